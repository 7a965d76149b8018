//! The channel that is a user's own.

use crate::harness::{Raw, Received, TestServer, in_seconds, open_channel, token, until, user_token};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};

fn connect(server: &TestServer, user: &str) -> (Raw, Value) {
    let mut raw = server.open();
    let reply = raw.connect(&user_token(user));
    (raw, reply["connect"]["subs"].clone())
}

#[test]
fn a_user_is_subscribed_to_the_personal_channel_and_others_cannot_be() {
    let server = TestServer::with(|config| {
        config.client.personal_channel = true;
        config.channel.allow_subscribe_for_client = false;
        config.channel.allow_user_limited_channels = true;
    });
    let (mut raw, subs) = connect(&server, "42");
    assert_eq!(subs, json!({"#42": {}}));
    server.publish("#42", "for you");
    assert_eq!(raw.line(), r##"{"push":{"channel":"#42","pub":{"data":"for you"}}}"##);
    let (mut other, subs) = connect(&server, "7");
    assert_eq!(subs, json!({"#7": {}}));
    let refused = other.ask(r##"{"id":2,"subscribe":{"channel":"#42"}}"##);
    assert_eq!(refused, r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#);
    // Nobody's channel, and one that would be somebody else's, too.
    for user in ["a,42", "a#42", "with space", "ns:x"] {
        let mut raw = server.open();
        let reply = raw.connect(&user_token(user));
        assert_eq!(reply["connect"]["subs"], Value::Null, "{user}");
    }
    let mut anonymous = server.open();
    assert_eq!(anonymous.connect("")["connect"]["subs"], Value::Null);
    // One that the token names already is there once.
    let claims = json!({"sub": "42", "exp": in_seconds(60), "channels": ["#42", "news"]});
    let mut raw = server.open();
    assert_eq!(raw.connect(&token(&claims))["connect"]["subs"], json!({"#42": {}, "news": {}}));
}

#[test]
fn personal_channels_may_lie_in_a_namespace() {
    let server = TestServer::with(|config| {
        config.client.personal_channel = true;
        config.client.personal_channel_namespace = Some("seen".to_owned());
    });
    let (_raw, subs) = connect(&server, "ns:x");
    assert!(subs.get("seen:#ns:x").is_some(), "{subs}");
}

#[test]
fn a_later_connection_closes_the_earlier_ones_of_the_user() {
    let server = TestServer::with(|config| {
        config.client.personal_channel = true;
        config.client.personal_channel_single_connection = true;
        config.channel = open_channel();
    });
    let (mut first, _) = connect(&server, "42");
    let (mut other, _) = connect(&server, "7");
    let (mut second, _) = connect(&server, "42");
    first.expect_close(CloseReason::ConnectionLimit);
    second.expect_silence();
    other.expect_silence();
}

#[test]
fn of_connections_at_the_same_time_exactly_one_stays() {
    let server = TestServer::with(|config| {
        config.server.shards = 4;
        config.client.personal_channel = true;
        config.client.personal_channel_single_connection = true;
        config.client.max_connections_per_user = 0;
    });
    let connect = json!({"id": 1, "connect": {"token": user_token("42")}}).to_string();
    let mut raws: Vec<Raw> = (0..12).map(|_| server.open()).collect();
    for raw in &mut raws {
        raw.send(&connect);
    }
    until("all others to be closed", || server.closes(CloseReason::ConnectionLimit) == 11);
    let mut stayed = 0;
    for raw in &mut raws {
        raw.send(r#"{"id":2,"rpc":{}}"#);
        loop {
            match raw.next() {
                Received::Text(text) if text.starts_with(r#"{"id":2,"#) => {
                    stayed += 1;
                    break;
                }
                Received::Text(_) => {}
                _ => break,
            }
        }
    }
    assert_eq!((stayed, server.closes(CloseReason::ConnectionLimit)), (1, 11));
}
