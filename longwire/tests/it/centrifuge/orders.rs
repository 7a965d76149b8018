//! What a backend does to clients through the HTTP API.

use crate::harness::{End, Raw, Received, TestServer, in_seconds};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::Duration;

fn done() -> Value {
    json!({"result": {}})
}

#[test]
fn a_publication_reaches_every_subscriber_on_every_shard() {
    let server = TestServer::with(|config| config.server.shards = 4);
    let mut readers: Vec<Raw> = (0..8).map(|_| server.connect()).collect();
    for reader in &mut readers {
        reader.subscribe("kept:a");
    }
    let tagged = json!({"channel": "kept:a", "data": {"n": 1}, "tags": {"b": "2", "a": "1"}});
    let result = server.api("publish", &tagged)["result"].clone();
    assert_eq!(result["offset"], 1);
    for reader in &mut readers {
        assert_eq!(
            reader.line(),
            r#"{"push":{"channel":"kept:a","pub":{"data":{"n":1},"offset":1,"tags":{"a":"1","b":"2"}}}}"#
        );
    }
    assert_eq!(server.api("publish", &json!({"channel": "a", "b64data": "eyJiIjoxfQ=="})), done());
}

#[test]
fn a_broadcast_reaches_several_channels_and_says_what_became_of_each() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.subscribe("a");
    raw.subscribe("b");
    let answer = server.api("broadcast", &json!({"channels": ["a", "nowhere:x", "b"], "data": 7}));
    assert_eq!(
        answer,
        json!({"result": {"responses": [
            {"result": {}}, {"error": {"code": 102, "message": "unknown channel"}}, {"result": {}},
        ]}})
    );
    assert_eq!(raw.line(), r#"{"push":{"channel":"a","pub":{"data":7}}}"#);
    assert_eq!(raw.line(), r#"{"push":{"channel":"b","pub":{"data":7}}}"#);
}

#[test]
fn a_batch_is_carried_out_in_order() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.subscribe("a");
    let answer = server.api(
        "batch",
        &json!({"commands": [
            {"publish": {"channel": "a", "data": 1}},
            {"publish": {"channel": "nowhere:a", "data": 1}},
            {"publish": {"channel": "a", "data": 2}},
        ]}),
    );
    assert_eq!(
        answer,
        json!({"replies": [
            {"publish": {}}, {"error": {"code": 102, "message": "unknown channel"}}, {"publish": {}},
        ]})
    );
    for n in 1..=2 {
        assert_eq!(raw.value()["push"]["pub"]["data"], n);
    }
}

#[test]
fn a_backend_subscribes_a_user_everywhere_and_the_client_is_told() {
    let server = TestServer::start();
    for n in 1..=3 {
        server.publish("kept:a", n);
    }
    let epoch = server.publish("kept:a", 4)["epoch"].clone();
    let (mut one, mut two, mut other) =
        (server.connect_as("42"), server.connect_as("42"), server.connect_as("7"));
    let order = json!({
        "user": "42", "channel": "kept:a", "data": {"why": "invited"},
        "recover_since": {"offset": 2, "epoch": epoch},
    });
    assert_eq!(server.api("subscribe", &order), done());
    for raw in [&mut one, &mut two] {
        let push = raw.value();
        let told = &push["push"]["subscribe"];
        assert_eq!(push["push"]["channel"], "kept:a");
        assert_eq!((&told["recoverable"], &told["positioned"]), (&json!(true), &json!(true)), "{push}");
        assert_eq!((&told["epoch"], &told["data"]), (&epoch, &json!({"why": "invited"})), "{push}");
        for n in 3..=4 {
            assert_eq!(raw.value(), json!({"push": {"channel": "kept:a", "pub": {"data": n, "offset": n}}}));
        }
    }
    server.publish("kept:a", 5);
    for raw in [&mut one, &mut two] {
        assert_eq!(raw.value()["push"]["pub"], json!({"data": 5, "offset": 5}));
    }
    other.expect_silence();
    // Ordered twice is done once.
    assert_eq!(server.api("subscribe", &json!({"user": "42", "channel": "kept:a"})), done());
    one.expect_silence();

    assert_eq!(server.api("subscribe", &json!({"user": "7", "channel": "b", "client": one.client})), done());
    one.expect_silence();
    other.expect_silence();
    assert_eq!(server.api("subscribe", &json!({"user": "42", "channel": "b", "client": one.client})), done());
    assert_eq!(one.line(), r#"{"push":{"channel":"b","subscribe":{}}}"#);
    two.expect_silence();
}

#[test]
fn a_backend_unsubscribes_a_user_and_the_client_is_told() {
    let server = TestServer::start();
    let mut raw = server.connect_as("42");
    raw.subscribe("a");
    raw.subscribe("b");
    assert_eq!(server.api("unsubscribe", &json!({"user": "42", "channel": "a"})), done());
    let told = r#"{"push":{"channel":"a","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}"#;
    assert_eq!(raw.line(), told);
    server.publish("a", 1);
    server.publish("b", 2);
    assert_eq!(raw.line(), r#"{"push":{"channel":"b","pub":{"data":2}}}"#);
    assert_eq!(server.api("unsubscribe", &json!({"user": "42", "channel": "a"})), done());
    raw.expect_silence();
    assert_eq!(raw.ask(r#"{"id":3,"subscribe":{"channel":"a"}}"#), r#"{"id":3,"subscribe":{}}"#);
}

#[test]
fn a_backend_disconnects_a_user_with_the_code_it_chooses() {
    let server = TestServer::start();
    for (custom, code, reason) in [
        (Value::Null, 3503, "force disconnect"),
        (json!({"code": 4000, "reason": "come again"}), 4000, "come again"),
        (json!({"code": 4500, "reason": "go away"}), 4500, "go away"),
    ] {
        let (mut one, mut two) = (server.connect_as("42"), server.connect_as("42"));
        let (mut spared, mut other) = (server.connect_as("42"), server.connect_as("7"));
        let order = json!({"user": "42", "disconnect": custom, "whitelist": [spared.client]});
        assert_eq!(server.api("disconnect", &order), done());
        for raw in [&mut one, &mut two] {
            assert_eq!(raw.next(), Received::Close(Some(code), reason.to_owned()));
            raw.link.finish();
            assert_eq!(raw.next(), Received::End(End::Closed));
        }
        spared.expect_silence();
        other.expect_silence();
    }
    for wrong in [
        json!({"code": 1000}),
        json!({"code": 5000}),
        json!({"code": 4000, "reason": "x".repeat(124)}),
        json!({"code": 4000, "reason": "{}"}),
    ] {
        let answer = server.api("disconnect", &json!({"user": "42", "disconnect": wrong}));
        assert_eq!(answer["error"]["code"], 107, "{wrong}");
    }
    // An id that is none of ours is nobody's, not everybody's.
    let mut raw = server.connect_as("42");
    assert_eq!(server.api("disconnect", &json!({"user": "42", "client": "nonsense"})), done());
    raw.expect_silence();
}

#[test]
fn a_backend_prolongs_or_ends_the_life_of_a_connection() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let short = crate::harness::token(&json!({"sub": "42", "exp": in_seconds(2)}));
    let (mut kept, mut forgotten) = (server.connect_with(&short), server.connect_with(&short));
    let order = json!({"user": "42", "client": kept.client, "expire_at": in_seconds(600)});
    assert_eq!(server.api("refresh", &order), done());
    forgotten.expect_close(CloseReason::Expired);
    let told = kept.value();
    let ttl = told["push"]["refresh"]["ttl"].as_u64().expect("a time");
    assert!(told["push"]["refresh"]["expires"] == true && (590..=600).contains(&ttl), "{told}");
    kept.expect_silence();
    assert_eq!(server.api("refresh", &json!({"user": "42", "expired": true})), done());
    kept.expect_close(CloseReason::Expired);
}

#[test]
fn the_api_sees_what_clients_do() {
    let server = TestServer::start();
    let (mut one, mut two) = (server.connect_as("42"), server.connect());
    one.subscribe("seen:a");
    two.subscribe("seen:a");
    two.subscribe("b");
    let channels =
        |pattern: &str| server.api("channels", &json!({"pattern": pattern}))["result"]["channels"].clone();
    assert_eq!(channels(""), json!({"seen:a": {"num_clients": 2}, "b": {"num_clients": 1}}));
    assert_eq!(channels("seen:*"), json!({"seen:a": {"num_clients": 2}}));
    let info = server.api("info", &json!({}));
    let node = &info["result"]["nodes"][0];
    for (name, count) in [("num_clients", 2), ("num_users", 2), ("num_channels", 2), ("num_subs", 3)] {
        assert_eq!(node[name], count, "{name} in {info}");
    }
    let info_of = |user: &str, raw: &Raw| json!({"user": user, "client": raw.client});
    assert_eq!(
        server.api("presence", &json!({"channel": "seen:a"}))["result"]["presence"],
        json!({one.client.clone(): info_of("42", &one), two.client.clone(): info_of("", &two)})
    );
}
