//! Tokens: who a client is, what it brings along, and what happens when its time is over.

use crate::harness::{Raw, TestServer, in_seconds, token};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::Duration;

fn connect_command(token: &str) -> String {
    json!({"id": 1, "connect": {"token": token}}).to_string()
}

#[test]
fn a_valid_token_connects_its_user_and_tells_how_long_it_is_good() {
    let server = TestServer::start();
    let mut raw = server.open();
    let reply = raw.connect(&token(&json!({"sub": "42", "exp": in_seconds(600)})));
    assert_eq!(reply["connect"]["expires"], true, "{reply}");
    let ttl = reply["connect"]["ttl"].as_u64().expect("seconds");
    assert!((540..=600).contains(&ttl), "{reply}");
    // Who it is shows in what it publishes.
    raw.subscribe("news");
    raw.ask(r#"{"id":3,"publish":{"channel":"news","data":1}}"#);
    assert_eq!(raw.value()["push"]["pub"]["info"], json!({"user": "42", "client": raw.client}));

    let for_ever = token(&json!({"sub": "42", "exp": in_seconds(600), "expire_at": 0}));
    let reply = server.open().connect(&for_ever);
    assert_eq!((reply["connect"].get("expires"), reply["connect"].get("ttl")), (None, None), "{reply}");
}

#[test]
fn an_expired_token_is_an_error_after_which_the_connection_is_of_no_use() {
    let server = TestServer::with(|config| config.client.connect_timeout = Duration::from_secs(1));
    let expired = connect_command(&token(&json!({"sub": "42", "exp": in_seconds(-1)})));
    const EXPIRED: &str = r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#;
    let mut raw = server.open();
    assert_eq!(raw.ask(&expired), EXPIRED);
    raw.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    raw.expect_close(CloseReason::BadRequest);
    // One that does nothing more is not kept.
    let mut raw = server.open();
    assert_eq!(raw.ask(&expired), EXPIRED);
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_wrong_token_closes_the_connection() {
    let server = TestServer::start();
    let good = json!({"sub": "42", "exp": in_seconds(600)});
    for wrong in [
        "x".to_owned(),
        longwire::auth::sign("another secret than the server's!!", &good).expect("signed"),
        token(&json!({"sub": "42"})),
        token(&json!({"sub": 42, "exp": in_seconds(600)})),
        token(&json!({"sub": "42", "exp": in_seconds(600), "channel": "news"})),
        token(&json!({"sub": "42", "exp": in_seconds(600), "nbf": in_seconds(600)})),
        format!("{}x", token(&good)),
    ] {
        let mut raw = server.open();
        raw.send(&connect_command(&wrong));
        raw.expect_close(CloseReason::InvalidToken);
    }
    assert_eq!(server.closes(CloseReason::InvalidToken), 7);
}

#[test]
fn without_a_token_only_the_anonymous_are_let_in_where_they_are_allowed() {
    let server = TestServer::with(|config| config.client.allow_anonymous = false);
    let mut raw = server.open();
    raw.send(r#"{"id":1,"connect":{}}"#);
    raw.expect_close(CloseReason::BadRequest);
    server.connect_as("42");
    // A token of the anonymous user is a token.
    server.connect_as("");
}

#[test]
fn a_token_may_bring_subscriptions_which_recover_like_others() {
    let server = TestServer::start();
    for n in 1..=3 {
        server.publish("kept:a", n);
    }
    let epoch = server.publish("kept:a", 4)["epoch"].clone();
    let claims = json!({
        "sub": "42", "exp": in_seconds(600), "expire_at": 0, "channels": ["news"],
        "subs": {
            "kept:a": {"data": {"x": 1}, "override": {"force_recovery": {"value": true}}},
            "seen:a": {"info": {"role": "host"}, "override": {"force_push_join_leave": {"value": true}}},
        },
    });
    let mut raw = server.open();
    let reply = raw.ask_value(&json!({"id": 1, "connect": {"token": token(&claims), "subs": {
        "kept:a": {"recover": true, "offset": 2, "epoch": epoch},
        "unknown": {"recover": true, "offset": 2, "epoch": epoch},
    }}}));
    let client = reply["connect"]["client"].clone();
    assert_eq!(
        reply["connect"]["subs"],
        json!({
            "kept:a": {
                "recoverable": true, "epoch": epoch, "recovered": true, "offset": 2, "positioned": true,
                "publications": [{"data": 3, "offset": 3}, {"data": 4, "offset": 4}], "data": {"x": 1},
                "was_recovering": true,
            },
            "news": {},
            "seen:a": {},
        }),
        "{reply}"
    );
    let info = json!({"user": "42", "client": client, "chan_info": {"role": "host"}});
    assert_eq!(raw.value(), json!({"push": {"channel": "seen:a", "join": {"info": info}}}));
    server.publish("kept:a", 5);
    assert_eq!(raw.value(), json!({"push": {"channel": "kept:a", "pub": {"data": 5, "offset": 5}}}));
    server.publish("news", "n");
    assert_eq!(raw.value(), json!({"push": {"channel": "news", "pub": {"data": "n"}}}));
    let again = raw.ask(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    assert_eq!(again, r#"{"id":2,"error":{"code":105,"message":"already subscribed"}}"#);
}

#[test]
fn a_token_with_an_unknown_channel_connects_nobody() {
    let server = TestServer::start();
    let claims = json!({"sub": "42", "exp": in_seconds(600), "channels": ["news", "nowhere:a"]});
    let mut raw = server.open();
    let reply = raw.ask(&connect_command(&token(&claims)));
    assert_eq!(reply, r#"{"id":1,"error":{"code":102,"message":"unknown channel"}}"#);
    assert_eq!(server.api("channels", &json!({})), json!({"result": {"channels": {}}}));
    raw.send(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_private_channel_needs_a_token_for_it() {
    let server = TestServer::start();
    let mut raw = server.connect_as("42");
    let claims = |change: &[(&str, Value)]| {
        let mut claims = json!({"sub": "42", "channel": "$kept:a", "exp": in_seconds(600), "data": "hi"});
        for (name, value) in change {
            claims[name] = value.clone();
        }
        token(&claims)
    };
    let subscribe = |token: &str| {
        json!({"id": 2, "subscribe": {"channel": "$kept:a", "token": token, "recoverable": true}}).to_string()
    };
    const DENIED: &str = r#"{"id":2,"error":{"code":103,"message":"permission denied"}}"#;
    assert_eq!(raw.ask(&subscribe("")), DENIED);
    assert_eq!(raw.ask(&subscribe("nonsense")), DENIED);
    assert_eq!(raw.ask(&subscribe(&crate::harness::user_token("42"))), DENIED, "a connection token");
    let expired = raw.ask(&subscribe(&claims(&[("exp", in_seconds(-1).into())])));
    assert_eq!(expired, r#"{"id":2,"error":{"code":109,"message":"token expired"}}"#);

    let reply: Value = serde_json::from_str(&raw.ask(&subscribe(&claims(&[])))).expect("JSON");
    let result = &reply["subscribe"];
    assert_eq!(
        (&result["expires"], &result["data"], &result["recoverable"]),
        (&json!(true), &json!("hi"), &json!(true))
    );
    assert!(result["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");
    server.publish("$kept:a", 1);
    assert_eq!(raw.value()["push"]["pub"], json!({"data": 1, "offset": 1}));
}

#[test]
fn a_subscription_token_of_somebody_else_closes_the_connection() {
    let server = TestServer::start();
    for (name, value) in [
        ("sub", json!("7")),
        ("sub", json!("")),
        ("channel", json!("$kept:b")),
        ("client", json!("00000000-0000-4000-8000-000000000000")),
    ] {
        let mut raw = server.connect_as("42");
        let mut claims = json!({"sub": "42", "channel": "$kept:a", "exp": in_seconds(600)});
        claims[name] = value;
        raw.send(&json!({"id": 2, "subscribe": {"channel": "$kept:a", "token": token(&claims)}}).to_string());
        raw.expect_close(CloseReason::InvalidToken);
    }
    // The client's own id is right.
    let mut raw = server.connect_as("42");
    let claims = json!({"sub": "42", "channel": "$news", "exp": in_seconds(600), "client": raw.client});
    let reply = raw.ask_value(&json!({"id": 2, "subscribe": {"channel": "$news", "token": token(&claims)}}));
    assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
}

#[test]
fn a_refresh_prolongs_a_connection_and_without_one_it_ends() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::from_secs(1));
    let short = token(&json!({"sub": "42", "exp": in_seconds(2)}));
    let (mut forgetful, mut careful) = (server.connect_with(&short), server.connect_with(&short));
    let fresh = token(&json!({"sub": "42", "exp": in_seconds(600)}));
    let reply = careful.ask_value(&json!({"id": 2, "refresh": {"token": fresh}}));
    let result = &reply["refresh"];
    assert_eq!((&result["client"], &result["expires"]), (&json!(careful.client), &json!(true)), "{reply}");
    assert_eq!(result["version"], concat!("longwire ", env!("CARGO_PKG_VERSION")));
    assert!(result["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");
    forgetful.expect_close(CloseReason::Expired);
    assert!(in_seconds(0) > expiry_of(&short), "closed within the delay");
    careful.expect_silence();
}

/// The `exp` of a token of ours.
fn expiry_of(token: &str) -> i64 {
    use base64::Engine;
    let claims = token.split('.').nth(1).expect("claims");
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice::<Value>(&claims).expect("JSON")["exp"].as_i64().expect("seconds")
}

#[test]
fn a_refresh_with_a_token_that_is_no_good_closes_the_connection() {
    let server = TestServer::start();
    for (fresh, reason) in [
        (token(&json!({"sub": "42", "exp": in_seconds(-1)})), CloseReason::Expired),
        (token(&json!({"sub": "7", "exp": in_seconds(600)})), CloseReason::InvalidToken),
        ("nonsense".to_owned(), CloseReason::InvalidToken),
        (String::new(), CloseReason::BadRequest),
    ] {
        let mut raw = server.connect_as("42");
        raw.send(&json!({"id": 2, "refresh": {"token": fresh}}).to_string());
        raw.expect_close(reason);
    }
}

#[test]
fn a_subscription_ends_with_its_token_unless_it_is_refreshed() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let subscribe = |raw: &mut Raw, channel: &str, seconds: i64| {
        let claims = json!({"sub": "42", "channel": channel, "exp": in_seconds(seconds)});
        let reply =
            raw.ask_value(&json!({"id": 2, "subscribe": {"channel": channel, "token": token(&claims)}}));
        assert_eq!(reply["subscribe"]["expires"], true, "{reply}");
    };
    let mut raw = server.connect_as("42");
    subscribe(&mut raw, "$short", 2);
    subscribe(&mut raw, "$long", 2);
    let fresh = token(&json!({"sub": "42", "channel": "$long", "exp": in_seconds(600)}));
    let reply = raw.ask_value(&json!({"id": 3, "sub_refresh": {"channel": "$long", "token": fresh}}));
    assert_eq!(reply["sub_refresh"]["expires"], true, "{reply}");
    assert!(reply["sub_refresh"]["ttl"].as_u64().is_some_and(|ttl| (540..=600).contains(&ttl)), "{reply}");

    let expected =
        r#"{"push":{"channel":"$short","unsubscribe":{"code":2501,"reason":"subscription expired"}}}"#;
    assert_eq!(raw.line(), expected);
    server.publish("$short", 1);
    server.publish("$long", 2);
    assert_eq!(raw.line(), r#"{"push":{"channel":"$long","pub":{"data":2}}}"#);

    let expired = token(&json!({"sub": "42", "channel": "$long", "exp": in_seconds(-1)}));
    let reply = raw.ask(&json!({"id": 4, "sub_refresh": {"channel": "$long", "token": expired}}).to_string());
    assert_eq!(reply, r#"{"id":4,"error":{"code":109,"message":"token expired"}}"#);
    let other = token(&json!({"sub": "7", "channel": "$long", "exp": in_seconds(600)}));
    raw.send(&json!({"id": 5, "sub_refresh": {"channel": "$long", "token": other}}).to_string());
    raw.expect_close(CloseReason::InvalidToken);
}

#[test]
fn a_server_side_subscription_that_expires_takes_the_connection_with_it() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let mut raw = server.connect_as("42");
    let order = json!({"user": "42", "channel": "news", "expire_at": in_seconds(1)});
    assert_eq!(server.api("subscribe", &order), json!({"result": {}}));
    assert_eq!(raw.value(), json!({"push": {"channel": "news", "subscribe": {}}}));
    raw.expect_close(CloseReason::SubscriptionExpired);
}
