//! Tokens that are revoked before their time, and the connections that came by them.

use crate::harness::{Raw, Received, TestServer, in_seconds, token};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::path::Path;

fn server(data_dir: &Path) -> TestServer {
    TestServer::with(|config| config.server.data_dir = data_dir.to_path_buf())
}

fn claims(more: Value) -> String {
    let mut claims = json!({"sub": "42", "exp": in_seconds(3600)});
    claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    token(&claims)
}

/// What a connect with a token comes to.
fn attempt(server: &TestServer, token: &str) -> Received {
    let mut raw = server.open();
    raw.send(&json!({"id": 1, "connect": {"token": token}}).to_string());
    raw.next()
}

fn invalid() -> Received {
    Received::Close(Some(3500), "invalid token".to_owned())
}

#[test]
fn a_revoked_token_ends_its_connections_and_opens_no_other_even_after_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let first = server(root.path());
    let (stolen, own) = (claims(json!({"jti": "stolen"})), claims(json!({"jti": "own"})));
    let (mut thief, mut owner) = (first.connect_with(&stolen), first.connect_with(&own));
    assert_eq!(
        first.api("revoke_token", &json!({"uid": "stolen", "expire_at": in_seconds(7200)})),
        json!({"result": {}})
    );
    thief.expect_close(CloseReason::ForceDisconnect);
    owner.expect_silence();
    assert_eq!(attempt(&first, &stolen), invalid());
    drop((thief, owner, first));
    let second = server(root.path());
    assert_eq!(attempt(&second, &stolen), invalid());
    second.connect_with(&own);
}

#[test]
fn the_tokens_of_a_user_are_invalidated_by_their_time_of_issue() {
    let root = tempfile::tempdir().expect("a directory");
    let server = server(root.path());
    let (old, fresh) = (claims(json!({"iat": 1_700_000_000})), claims(json!({"iat": 1_800_000_000})));
    let (mut old_one, mut fresh_one) = (server.connect_with(&old), server.connect_with(&fresh));
    let mut unknown_one = server.connect_with(&claims(json!({})));
    let mut other = server.connect_with(&claims(json!({"sub": "7", "iat": 1_700_000_000})));
    let order = json!({"user": "42", "issued_before": 1_750_000_000, "expire_at": 0});
    assert_eq!(server.api("invalidate_user_tokens", &order), json!({"result": {}}));
    old_one.expect_close(CloseReason::ForceDisconnect);
    unknown_one.expect_close(CloseReason::ForceDisconnect);
    fresh_one.expect_silence();
    other.expect_silence();
    assert_eq!(attempt(&server, &old), invalid());
    assert!(matches!(attempt(&server, &fresh), Received::Text(_)));
}

#[test]
fn a_connection_that_is_left_alone_ends_at_its_next_refresh() {
    let root = tempfile::tempdir().expect("a directory");
    let server = server(root.path());
    let revoked = claims(json!({"jti": "a"}));
    let (mut raw, mut changed) = (server.connect_with(&revoked), server.connect_with(&revoked));
    let order = json!({"uid": "a", "disconnect": false});
    assert_eq!(server.api("revoke_token", &order), json!({"result": {}}));
    raw.expect_silence();
    raw.send(&json!({"id": 2, "refresh": {"token": revoked}}).to_string());
    raw.expect_close(CloseReason::InvalidToken);
    // Who refreshed with another token came by that one from then on.
    let refreshed = changed.ask_value(&json!({"id": 2, "refresh": {"token": claims(json!({"jti": "b"}))}}));
    assert!(refreshed.get("refresh").is_some(), "{refreshed}");
    assert_eq!(server.api("revoke_token", &json!({"uid": "a"})), json!({"result": {}}));
    changed.expect_silence();
    assert_eq!(server.api("revoke_token", &json!({"uid": "b"})), json!({"result": {}}));
    changed.expect_close(CloseReason::ForceDisconnect);
}

#[test]
fn a_revoked_subscription_token_opens_no_channel() {
    let root = tempfile::tempdir().expect("a directory");
    let server = server(root.path());
    let mut raw = server.connect_as("42");
    let subscribe = |raw: &mut Raw, channel: &str, jti: &str| {
        let token = claims(json!({"channel": channel, "jti": jti}));
        raw.ask_value(&json!({"id": 2, "subscribe": {"channel": channel, "token": token}}))
    };
    assert_eq!(server.api("revoke_token", &json!({"uid": "a"})), json!({"result": {}}));
    let refused = json!({"id": 2, "error": {"code": 103, "message": "permission denied"}});
    assert_eq!(subscribe(&mut raw, "$one", "a"), refused);
    let taken = subscribe(&mut raw, "$one", "b");
    assert_eq!(taken["subscribe"]["expires"], true, "{taken}");
}
