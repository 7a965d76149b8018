//! Where one client, one user or one process has enough, and what it is told then.

use crate::framing_suite::frame;
use crate::harness::{End, LIMIT, Link, Raw, Received, TestServer, handshake, until};
use longwire_protocol::CloseReason;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn the_hundred_and_twenty_ninth_subscription_is_refused() {
    let server = TestServer::start();
    let mut raw = server.connect();
    let commands: Vec<String> =
        (2..=130).map(|n| format!(r#"{{"id":{n},"subscribe":{{"channel":"c{n}"}}}}"#)).collect();
    raw.send(&commands.join("\n"));
    for n in 2..=129 {
        assert_eq!(raw.line(), format!(r#"{{"id":{n},"subscribe":{{}}}}"#));
    }
    assert_eq!(raw.line(), r#"{"id":130,"error":{"code":106,"message":"limit exceeded"}}"#);
    // One place given back is one place to take.
    raw.ask(r#"{"id":131,"unsubscribe":{"channel":"c2"}}"#);
    assert_eq!(raw.ask(r#"{"id":132,"subscribe":{"channel":"c130"}}"#), r#"{"id":132,"subscribe":{}}"#);
}

#[test]
fn more_subscriptions_than_allowed_that_the_server_begins_close_the_connection() {
    let server = TestServer::with(|config| config.client.max_subscriptions = 2);
    let token = |channels: &[&str]| {
        let claims = json!({"sub": "42", "exp": crate::harness::in_seconds(60), "channels": channels});
        crate::harness::token(&claims)
    };
    let mut raw = server.open();
    raw.send(&json!({"id": 1, "connect": {"token": token(&["a", "b", "c"])}}).to_string());
    raw.expect_close(CloseReason::ChannelLimit);
    let mut raw = server.connect_with(&token(&["a", "b"]));
    let refused = raw.ask(r#"{"id":2,"subscribe":{"channel":"c"}}"#);
    assert_eq!(refused, r#"{"id":2,"error":{"code":106,"message":"limit exceeded"}}"#);
    assert_eq!(server.api("subscribe", &json!({"user": "42", "channel": "c"})), json!({"result": {}}));
    raw.expect_close(CloseReason::ChannelLimit);
    crate::harness::until("nobody to be subscribed", || {
        server.api("channels", &json!({})) == json!({"result": {"channels": {}}})
    });
}

#[test]
fn ordering_a_subscription_that_a_full_connection_has_does_no_harm() {
    let server = TestServer::with(|config| config.client.max_subscriptions = 1);
    let mut raw = server.connect_as("42");
    raw.subscribe("a");
    assert_eq!(server.api("subscribe", &json!({"user": "42", "channel": "a"})), json!({"result": {}}));
    raw.expect_silence();
}

#[test]
fn a_channel_name_may_have_255_bytes_and_no_more() {
    let server = TestServer::start();
    let mut raw = server.connect();
    let ask = |len: usize| format!(r#"{{"id":2,"subscribe":{{"channel":"{}"}}}}"#, "x".repeat(len));
    assert_eq!(raw.ask(&ask(255)), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(raw.ask(&ask(256)), r#"{"id":2,"error":{"code":107,"message":"bad request"}}"#);
}

#[test]
fn commands_beyond_the_rate_close_the_connection() {
    let server = TestServer::with(|config| {
        config.client.commands_per_second = 1;
        config.client.command_burst = 5;
    });
    let mut raw = server.connect();
    let commands: Vec<String> = (2..=100).map(|n| format!(r#"{{"id":{n},"rpc":{{}}}}"#)).collect();
    raw.send(&commands.join("\n"));
    // Connect was the first of five; a slow machine may have earned one more.
    for n in 2..=5 {
        assert_eq!(raw.line(), format!(r#"{{"id":{n},"error":{{"code":108,"message":"not available"}}}}"#));
    }
    let mut received = raw.next();
    while let Received::Text(_) = received {
        received = raw.next();
    }
    assert_eq!(received, Received::Close(Some(3013), "too many requests".to_owned()));
    assert_eq!(server.closes(CloseReason::TooManyRequests), 1);
}

#[test]
fn a_message_at_the_limit_passes_and_a_byte_more_closes() {
    let server = TestServer::start();
    let message = |len: usize| {
        let empty = r#"{"id":2,"publish":{"channel":"a","data":""}}"#.len();
        format!(r#"{{"id":2,"publish":{{"channel":"a","data":"{}"}}}}"#, "x".repeat(len - empty))
    };
    let mut raw = server.connect();
    assert_eq!(raw.ask(&message(65_536)), r#"{"id":2,"publish":{}}"#);
    raw.send(&message(65_537));
    raw.expect_close(CloseReason::MessageTooBig);
    // In fragments, none of which is too large by itself.
    let mut raw = server.connect();
    let text = message(65_537).into_bytes();
    let (first, rest) = text.split_at(40_000);
    raw.send_bytes(&[frame(0x01, first), frame(0x80, rest)].concat());
    raw.expect_close(CloseReason::MessageTooBig);
}

#[test]
fn a_reader_that_does_not_read_is_cut_as_slow_and_holds_nobody_up() {
    let server = TestServer::with(|config| {
        config.client.max_outbox_bytes = 256 * 1024;
        // The outbox shall fill up before the write counts as stalled.
        config.client.write_timeout = Duration::from_secs(60);
    });
    let (mut slow, mut quick) = (server.connect(), server.connect());
    slow.subscribe("news");
    quick.subscribe("news");
    let data = "x".repeat(100_000);
    let mut published = 0;
    until("the slow reader to be cut", || {
        server.publish("news", data.as_str());
        published += 1;
        assert!(quick.line().len() > data.len());
        server.closes(CloseReason::Slow) > 0
    });
    assert!(published > 2, "the outbox has room for two");
    assert_eq!(slow.link.await_end(), End::Reset);
    assert_eq!(server.closes(CloseReason::Slow), 1);
    quick.expect_silence();
}

#[test]
fn a_client_that_asks_without_reading_the_answers_is_slowed_down_and_then_cut() {
    let server = TestServer::with(|config| {
        config.client.max_outbox_bytes = 64 * 1024;
        config.client.commands_per_second = 1_000_000;
        config.client.command_burst = 1_000_000;
        config.client.write_timeout = Duration::from_secs(1);
    });
    for n in 0..10 {
        server.publish("kept:a", json!([n, "x".repeat(5_000)]));
    }
    let mut raw = server.connect();
    let command = frame(0x81, br#"{"id":2,"history":{"channel":"kept:a","limit":-1}}"#);
    let many = command.repeat(100);
    raw.link.limit(Duration::from_millis(100));
    let start = Instant::now();
    // Its commands wait until its answers are read: it never comes to `Slow`.
    while server.closes(CloseReason::WriteStalled) == 0 {
        assert!(start.elapsed() < LIMIT, "never cut");
        raw.send_bytes(&many);
    }
    assert_eq!(server.closes(CloseReason::Slow), 0);
}

#[test]
fn one_user_has_so_many_connections_and_the_next_is_told() {
    let server = TestServer::with(|config| config.client.max_connections_per_user = 2);
    let first = server.connect_as("42");
    let _second = server.connect_as("42");
    let mut third = server.open();
    third.send(&json!({"id": 1, "connect": {"token": crate::harness::user_token("42")}}).to_string());
    third.expect_close(CloseReason::ConnectionLimit);
    // Others are others, and the anonymous are not counted.
    let _other = server.connect_as("7");
    let _anonymous: Vec<Raw> = (0..5).map(|_| server.connect()).collect();
    drop(first);
    until("the place to be free again", || {
        let mut raw = server.open();
        raw.send(&json!({"id": 1, "connect": {"token": crate::harness::user_token("42")}}).to_string());
        matches!(raw.next(), Received::Text(reply) if reply.starts_with(r#"{"id":1,"connect":"#))
    });
}

#[test]
fn a_full_server_answers_503() {
    let server = TestServer::with(|config| config.server.max_connections = 2);
    let first = server.connect();
    let _second = server.connect();
    let mut third = Link::open(server.address);
    let refused = third.response();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{}", refused.text());
    assert!(third.read_more().is_err(), "the connection goes on");
    drop(first);
    until("a place", || {
        let mut link = Link::open(server.address);
        link.send(handshake(server.address, "").as_bytes());
        link.try_response().is_ok_and(|response| response.status == 101)
    });
}

#[test]
fn who_opens_a_connection_and_says_nothing_is_closed_as_stale() {
    let server = TestServer::with(|config| config.client.connect_timeout = Duration::from_secs(1));
    let mut raw = server.open();
    // Signs of life are no connect command.
    raw.send_bytes(&frame(0x89, b""));
    assert_eq!(raw.next(), Received::Pong(Vec::new()));
    raw.send_bytes(&frame(0x8A, b""));
    raw.expect_close(CloseReason::Stale);
}
