//! Connections that are listed, one that is looked at, users that are here or were.

use crate::harness::{Raw, TestServer, in_seconds, token, until, user_token};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Connects as a user with the name and version of an SDK.
fn connect_with_sdk(server: &TestServer, user: &str, name: &str, version: &str) -> Raw {
    let mut raw = server.open();
    let claims = json!({"sub": user, "exp": in_seconds(3600), "iat": 1_700_000_000});
    let connect = json!({"id": 1, "connect": {"token": token(&claims), "name": name, "version": version}});
    let reply = raw.ask_value(&connect);
    raw.client = reply["connect"]["client"].as_str().expect("it is connected").to_owned();
    raw
}

fn listed(server: &TestServer, wanted: &Value) -> BTreeSet<String> {
    let answer = server.api("connections", wanted);
    answer["result"]["connections"].as_object().expect("a map").keys().cloned().collect()
}

#[test]
fn a_connection_is_told_of_in_full() {
    let server = TestServer::start();
    let epoch = server.publish("kept:a", 1)["epoch"].clone();
    let mut raw = connect_with_sdk(&server, "42", "js", "5.7.4");
    raw.ask_value(&json!({"id": 2, "subscribe": {"channel": "kept:a", "positioned": true}}));
    raw.subscribe("news");
    let answer = server.api("connection", &json!({"client": raw.client}));
    let mut described = answer["result"]["connection"].clone();
    assert_eq!(answer["result"]["client"], raw.client);
    // What time does to it.
    for (member, limit) in
        [("opened_ms_ago", 60_000), ("last_seen_ms_ago", 60_000), ("expires_in_ms", 3_600_000)]
    {
        let millis = described.as_object_mut().and_then(|members| members.remove(member));
        assert!(
            millis.as_ref().and_then(Value::as_u64).is_some_and(|ms| ms <= limit),
            "{member}: {millis:?}"
        );
    }
    assert_eq!(
        described,
        json!({
            "app_name": "js", "app_version": "5.7.4", "transport": "websocket", "protocol": "json",
            "dialect": "centrifuge", "user": "42", "address": "127.0.0.1",
            "outbox_bytes": 0, "write_blocked_ms": 0, "num_channels": 2,
            "channels": [{"channel": "kept:a", "offset": 1, "epoch": epoch}, {"channel": "news"}],
            "state": {"channels": {"kept:a": {}, "news": {}}, "connection_token": {"issued_at": 1_700_000_000}},
        })
    );
    let list = server.api("connections", &json!({}));
    let (id, in_list) = list["result"]["connections"].as_object().expect("a map").iter().next().expect("one");
    assert_eq!((id, &in_list["channels"]), (&raw.client, &described["channels"]));
    let client = raw.client.clone();
    drop(raw);
    let gone = json!({"error": {"code": 104, "message": "not found"}});
    until("the connection to be gone", || server.api("connection", &json!({"client": client})) == gone);
}

#[test]
fn connections_are_found_by_user_channel_and_transport_on_every_shard() {
    let server = TestServer::with(|config| config.server.shards = 3);
    let mut ours: Vec<Raw> = (0..4).map(|_| server.connect_as("42")).collect();
    let mut others: Vec<Raw> = (0..2).map(|_| server.connect_as("7")).collect();
    let _not_connected = server.open();
    let path = format!("/sse?channels=news&token={}", user_token("42"));
    let _stream = crate::harness::Events::open(server.address, &path, "");
    ours[0].subscribe("news");
    others[0].subscribe("news");
    let ids = |raws: &[Raw]| raws.iter().map(|raw| raw.client.clone()).collect::<BTreeSet<_>>();
    until("everybody to be connected", || listed(&server, &json!({})).len() == 7);
    let sockets = json!({"user": "42", "transport": "websocket"});
    assert_eq!(listed(&server, &sockets), ids(&ours));
    assert_eq!(listed(&server, &json!({"user": "7"})), ids(&others));
    assert_eq!(listed(&server, &json!({"transport": "sse"})).len(), 1);
    assert_eq!(listed(&server, &json!({"channel": "news"})).len(), 3);
    assert_eq!(listed(&server, &json!({"channel": "news", "user": "7"})), ids(&others[..1]));
    assert_eq!(listed(&server, &json!({"user": "nobody"})).len(), 0);
    // All pages together are all connections, each once.
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = server.api("connections", &json!({"limit": 2, "cursor": cursor}));
        let page = answer["result"]["connections"].as_object().expect("a map");
        assert!(page.len() <= 2);
        all.extend(page.keys().cloned());
        cursor = answer["result"]["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<_>>()), (7, listed(&server, &json!({}))));
}

#[test]
fn a_user_who_left_is_remembered() {
    let server = TestServer::start();
    let status = |user: &str| {
        let answer = server.api("user_status", &json!({"users": [user]}));
        answer["result"]["statuses"][0].clone()
    };
    assert_eq!(status("42"), json!({"user": "42", "online": false, "connections": 0, "last_seen": 0}));
    let (one, two) = (server.connect_as("42"), server.connect_as("42"));
    let here = status("42");
    assert_eq!((&here["online"], &here["connections"]), (&json!(true), &json!(2)), "{here}");
    let now = in_seconds(0);
    let is_recent = |status: &Value| {
        status["last_seen"].as_i64().is_some_and(|seen| (now - 60..=now + 60).contains(&seen))
    };
    assert!(is_recent(&here), "{here}");
    drop((one, two));
    until("the user to have left", || status("42")["online"] == false);
    let left = status("42");
    assert!(is_recent(&left), "{left}");
    assert_eq!(left["connections"], 0);
}
