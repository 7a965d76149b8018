//! How fast one address may open streams, and how fast one user may do anything.

use crate::harness::{Link, Raw, Received, Response, TestServer, get, handshake, user_token};
use longwire_protocol::CloseReason;
use serde_json::json;
use std::net::IpAddr;

/// Asks for a WebSocket as a proxy does that speaks for `address`.
fn open_for(server: &TestServer, address: &str) -> Response {
    let mut link = Link::open(server.address);
    link.send(handshake(server.address, &format!("X-Forwarded-For: {address}\r\n")).as_bytes());
    link.response()
}

#[test]
fn an_address_that_connects_too_fast_is_told_when_to_come_back() {
    let server = TestServer::with(|config| {
        config.server.trusted_proxies = vec![IpAddr::from([127, 0, 0, 1])];
        // So slow that no machine earns another while this runs.
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 600;
    });
    let is_refused = |_: &i32| open_for(&server, "192.0.2.1").status == 429;
    // The burst is spent at some time, and then a second brings one more.
    let at = (0..2000).find(is_refused).expect("some time it is too much");
    assert!(at >= 600, "{at}");
    let refused = std::iter::from_fn(|| Some(open_for(&server, "192.0.2.1"))).find(|r| r.status == 429);
    let refused = refused.expect("it does not become faster");
    assert_eq!(refused.header("retry-after"), Some("1"), "{}", refused.head);
    assert_eq!(refused.text(), "192.0.2.1 opens streams too fast\n");
    // Of an IPv6 network all addresses count together; others are not harmed, nor is what opens no stream.
    assert_eq!(open_for(&server, "192.0.2.2").status, 101);
    assert_eq!(open_for(&server, "2001:db8::1").status, 101);
    assert_eq!(get(server.address, "/health", "X-Forwarded-For: 192.0.2.1\r\n").status, 200);
}

#[test]
fn addresses_of_one_ipv6_network_have_one_rate_and_event_streams_count() {
    let server = TestServer::with(|config| {
        config.server.trusted_proxies = vec![IpAddr::from([127, 0, 0, 1])];
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 1;
    });
    let statuses: Vec<u16> = (0..30).map(|n| open_for(&server, &format!("2001:db8::{n:x}")).status).collect();
    assert_eq!(statuses[0], 101);
    assert!(statuses[1..].contains(&429), "{statuses:?}");
    let stream = || get(server.address, "/sse?channels=a&x=", "X-Forwarded-For: 192.0.2.9\r\n").status;
    assert!((0..30).any(|_| stream() == 429));
    // This machine itself is exempt.
    assert!((0..30).all(|_| open_for(&server, "127.0.0.1").status == 101));
}

#[test]
fn the_commands_of_all_connections_of_a_user_count_together() {
    let server = TestServer::with(|config| {
        config.client.commands_per_second_per_user = 1;
        config.client.command_burst_per_user = 40;
    });
    let (mut one, mut two) = (server.connect_as("42"), server.connect_as("42"));
    let mut other = server.connect_as("7");
    let spend = |raw: &mut Raw, count: usize| {
        let command = r#"{"id":2,"presence_stats":{"channel":"seen:a"}}"#;
        for _ in 0..count {
            raw.send(command);
        }
        for _ in 0..count {
            match raw.next() {
                Received::Text(_) => {}
                closed => return Some(closed),
            }
        }
        None
    };
    assert_eq!(spend(&mut one, 30), None);
    let closed = spend(&mut two, 60).expect("more than the burst, and more than seconds can bring");
    assert_eq!(closed, Received::Close(Some(3013), "too many requests".to_owned()));
    assert_eq!(server.closes(CloseReason::TooManyRequests), 1);
    assert_eq!(spend(&mut other, 30), None, "another user is not harmed");
    let mut anonymous = server.connect();
    assert_eq!(spend(&mut anonymous, 90), None, "the anonymous user is nobody");
}

#[test]
fn publications_beyond_a_users_rate_are_refused_for_the_moment() {
    let server = TestServer::with(|config| {
        config.client.publishes_per_second_per_user = 1;
        config.client.publish_burst_per_user = 5;
    });
    let (mut one, mut two) = (server.connect_as("42"), server.connect_as("42"));
    let publish = |raw: &mut Raw| raw.ask(r#"{"id":2,"publish":{"channel":"news","data":1}}"#);
    for _ in 0..5 {
        assert_eq!(publish(&mut one), r#"{"id":2,"publish":{}}"#);
    }
    let refusal = r#"{"id":2,"error":{"code":111,"message":"too many requests","temporary":true}}"#;
    assert!((0..30).any(|_| publish(&mut two) == refusal));
    // Another command is not harmed, nor is another user, nor the backend.
    one.subscribe("kept:b");
    let mut other = server.connect_with(&user_token("7"));
    assert_eq!(publish(&mut other), r#"{"id":2,"publish":{}}"#);
    assert_eq!(server.api("publish", &json!({"channel": "news", "data": 1})), json!({"result": {}}));
}
