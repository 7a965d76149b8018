//! Connections that become another user's, and what a backend keeps with a connection.

use crate::harness::{Link, Raw, TestServer, remembering_channel, token, until, user_token};
use crate::webhooks::{Backend, Gate, ok, place};
use longwire::config::ChannelOptions;
use serde_json::{Value, json};

#[track_caller]
fn result(server: &TestServer, method: &str, body: &Value) -> Value {
    server.api(method, body)["result"].clone()
}

fn error(code: u16, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

fn is_online(server: &TestServer, body: &Value) -> bool {
    result(server, "is_online", body)["online"].as_bool().expect("a boolean")
}

/// Takes the pushes about who comes and goes, until there are `count`: each as join or leave with its user.
fn movements(raw: &mut Raw, count: usize) -> Vec<(String, String)> {
    let next = |_| {
        let push = raw.value()["push"].clone();
        let kind = if push.get("join").is_some() { "join" } else { "leave" };
        (kind.to_owned(), push[kind]["info"]["user"].as_str().unwrap_or_else(|| panic!("{push}")).to_owned())
    };
    (0..count).map(next).collect()
}

#[test]
fn a_connection_that_is_bound_is_the_users_in_everything() {
    let server = TestServer::with(|config| {
        let seen = ChannelOptions { force_push_join_leave: true, ..config.namespaces["seen"].clone() };
        config.namespaces.insert("seen".to_owned(), seen);
        config.server.shards = 3;
    });
    let mut watcher = server.connect_as("watcher");
    watcher.subscribe("seen:a");
    movements(&mut watcher, 1);
    let mut raw = server.connect();
    raw.subscribe("seen:a");
    assert_eq!(movements(&mut watcher, 1), [("join".to_owned(), String::new())]);

    assert!(!is_online(&server, &json!({"user": "42"})));
    assert_eq!(server.api("bind", &json!({"client": raw.client, "user": "42"})), json!({"result": {}}));
    assert_eq!(
        movements(&mut watcher, 2),
        [("leave".to_owned(), String::new()), ("join".to_owned(), "42".to_owned())]
    );
    let presence = result(&server, "presence", &json!({"channel": "seen:a"}));
    assert_eq!(presence["presence"][&raw.client]["user"], "42");
    assert!(is_online(&server, &json!({"user": "42"})));
    assert_eq!(result(&server, "send", &json!({"user": "42", "data": 1})), json!({"sent": 1}));
    let ours = result(&server, "connections", &json!({"user": "42"}));
    assert_eq!(ours["connections"][&raw.client]["num_channels"], 1);
    // It is left out where the user is, too.
    server.api("publish", &json!({"channel": "seen:a", "data": 2, "exclude_user": "42"}));
    assert_eq!(watcher.value()["push"]["pub"]["data"], 2);

    // Another one, and then nobody's.
    server.api("bind", &json!({"client": raw.client, "user": "7"}));
    assert!(!is_online(&server, &json!({"user": "42"})) && is_online(&server, &json!({"user": "7"})));
    assert_eq!(result(&server, "user_status", &json!({"users": ["42"]}))["statuses"][0]["connections"], 0);
    server.api("unbind", &json!({"client": raw.client}));
    assert!(!is_online(&server, &json!({"user": "7"})) && is_online(&server, &json!({"client": raw.client})));
    let moves = movements(&mut watcher, 4);
    let users: Vec<&str> = moves.iter().map(|(_, user)| user.as_str()).collect();
    assert_eq!(users, ["42", "7", "7", ""], "{moves:?}");
    let client = raw.client.clone();
    drop(raw);
    assert_eq!(movements(&mut watcher, 1), [("leave".to_owned(), String::new())]);
    until("the connection to be gone", || !is_online(&server, &json!({"client": client})));
}

#[test]
fn a_user_who_has_enough_connections_gets_no_further_one() {
    let server = TestServer::with(|config| config.client.max_connections_per_user = 1);
    let (first, second) = (server.connect_as("42"), server.connect_as("7"));
    let bind = |raw: &Raw, user: &str| server.api("bind", &json!({"client": raw.client, "user": user}));
    assert_eq!(bind(&second, "42"), error(106, "limit exceeded"));
    assert!(is_online(&server, &json!({"user": "7"})), "nothing has changed");
    assert_eq!(bind(&first, "42"), json!({"result": {}}), "whose it is already");
    assert_eq!(bind(&second, "8"), json!({"result": {}}));
    // The place that was left is free.
    assert_eq!(bind(&first, "7"), json!({"result": {}}));
    assert_eq!(bind(&second, "42"), json!({"result": {}}));
}

#[test]
fn a_call_that_does_not_name_one_connection_and_one_user_changes_nothing() {
    let server = TestServer::start();
    let raw = server.connect_as("42");
    let nobody = "00000000-0000-4000-8000-000000000001";
    for (method, body, expected) in [
        ("bind", json!({"client": raw.client}), error(107, "bad request")),
        ("bind", json!({"user": "7"}), error(107, "bad request")),
        ("bind", json!({"client": raw.client, "user": "x".repeat(1025)}), error(107, "bad request")),
        ("bind", json!({"client": nobody, "user": "7"}), error(104, "not found")),
        ("bind", json!({"client": "not an id", "user": "7"}), error(104, "not found")),
        ("unbind", json!({}), error(107, "bad request")),
        ("unbind", json!({"client": nobody}), error(104, "not found")),
        ("is_online", json!({}), error(107, "bad request")),
        ("is_online", json!({"client": raw.client, "user": "42"}), error(107, "bad request")),
        ("session_get", json!({"client": nobody}), error(104, "not found")),
        ("session_set", json!({"client": nobody, "data": {}}), error(104, "not found")),
        ("session_set", json!({"client": raw.client, "data": [1]}), error(107, "bad request")),
        ("session_update", json!({"client": raw.client, "data": "text"}), error(107, "bad request")),
        ("send", json!({"client": raw.client}), error(107, "bad request")),
        ("send", json!({"data": 1}), error(107, "bad request")),
        ("send", json!({"all": true, "user": "42", "data": 1}), error(107, "bad request")),
        ("send", json!({"users": ["42", ""], "data": 1}), error(107, "bad request")),
        ("send", json!({"all": true, "except": ["not an id"], "data": 1}), error(107, "bad request")),
        ("send", json!({"channel": "nowhere:x", "data": 1}), error(102, "unknown channel")),
        ("users", json!({"channel": "nowhere:x"}), error(102, "unknown channel")),
        ("users", json!({"limit": -1}), error(107, "bad request")),
    ] {
        assert_eq!(server.api(method, &body), expected, "{method} {body}");
    }
    assert_eq!(result(&server, "session_get", &json!({"client": raw.client}))["user"], "42");
    assert!(!is_online(&server, &json!({"client": "not an id"})));
}

#[test]
fn what_a_client_has_because_of_who_it_was_is_lost_and_the_personal_channel_is_the_others() {
    let server = TestServer::with(|config| {
        config.client.personal_channel = true;
        config.channel.allow_user_limited_channels = true;
    });
    let mut raw = server.open();
    let reply = raw.connect(&user_token("42"));
    assert_eq!(reply["connect"]["subs"], json!({"#42": {}}));
    raw.subscribe("room#42,7");
    raw.subscribe("secret#42");
    raw.subscribe("news");
    server.api("bind", &json!({"client": raw.client, "user": "7"}));
    let mut lost: Vec<String> = (0..2)
        .map(|_| {
            let push = raw.value()["push"].clone();
            assert_eq!(push["unsubscribe"]["code"], 2000, "{push}");
            push["channel"].as_str().expect("a channel").to_owned()
        })
        .collect();
    lost.sort();
    assert_eq!(lost, ["#42", "secret#42"]);
    let push = raw.value();
    assert_eq!((&push["push"]["channel"], push["push"].get("subscribe").is_some()), (&json!("#7"), true));
    let kept = result(&server, "session_get", &json!({"client": raw.client}));
    assert_eq!(kept["channels"], json!(["#7", "news", "room#42,7"]));
}

#[test]
fn of_a_user_with_one_connection_the_one_that_is_bound_last_stays() {
    let server = TestServer::with(|config| {
        config.client.personal_channel = true;
        config.client.personal_channel_single_connection = true;
    });
    let mut first = server.connect_as("42");
    let mut second = server.connect();
    server.api("bind", &json!({"client": second.client, "user": "42"}));
    first.expect_close(longwire_protocol::CloseReason::ConnectionLimit);
    assert_eq!(second.value()["push"]["channel"], "#42");
    second.expect_silence();
}

#[test]
fn what_is_kept_with_a_connection_is_read_changed_and_bounded() {
    let server = TestServer::with(|config| config.plain.max_session_data_bytes = 64);
    let raw = server.connect_as("42");
    let of = |data: Value| json!({"client": raw.client, "data": data});
    let one = json!({"client": raw.client});
    let kept = || result(&server, "session_get", &one);
    assert_eq!(
        kept(),
        json!({"data": {}, "user": "42", "name": "", "transport": "websocket", "address": "127.0.0.1",
            "away": false, "channels": []})
    );
    assert_eq!(server.api("session_set", &of(json!({"room": 7, "name": "é"}))), json!({"result": {}}));
    let updated = result(&server, "session_update", &of(json!({"room": null, "since": [1]})));
    assert_eq!(updated, json!({"data": {"name": "é", "since": [1]}}));
    assert_eq!(kept()["data"], updated["data"]);
    let too_much = of(json!({"x": "y".repeat(60)}));
    assert_eq!(server.api("session_set", &too_much), error(106, "limit exceeded"));
    assert_eq!(server.api("session_update", &too_much), error(106, "limit exceeded"));
    assert_eq!(kept()["data"], updated["data"], "what was refused changed nothing");
    let shown = |body: Value| result(&server, "connections", &body)["connections"][&raw.client].clone();
    assert_eq!(shown(json!({})).get("session_data"), None);
    assert_eq!(shown(json!({"session_data": true}))["session_data"], updated["data"]);
    // PHP writes an empty array as a list.
    server.api("session_set", &of(json!([])));
    assert_eq!(kept()["data"], json!({}));
}

#[test]
fn users_are_listed_in_pages_and_counted() {
    let server = TestServer::with(|config| {
        config.server.shards = 3;
        config.namespaces.insert("room".to_owned(), remembering_channel(1));
    });
    let mut all: Vec<Raw> = ["5", "3", "1", "4", "2", "3"].map(|user| server.connect_as(user)).into();
    let _anonymous = server.connect();
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = result(&server, "users", &json!({"limit": 2, "cursor": cursor}));
        assert_eq!(page["total"], 5);
        pages.push(page["users"].clone());
        cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [json!(["1", "2"]), json!(["3", "4"]), json!(["5"])]);
    all[1].subscribe("room:1");
    all[4].subscribe("room:1");
    all[5].subscribe("room:1");
    let members = result(&server, "users", &json!({"channel": "room:1"}));
    assert_eq!(members, json!({"users": ["2", "3"], "total": 2, "cursor": ""}));
    assert_eq!(
        result(&server, "users", &json!({"channel": "room:2"})),
        json!({"users": [], "total": 0, "cursor": ""})
    );
    let first = result(&server, "users", &json!({"channel": "room:1", "limit": 1}));
    assert_eq!(first, json!({"users": ["2"], "total": 2, "cursor": "2"}));
}

#[test]
fn a_token_of_the_user_before_prolongs_nothing_any_more() {
    let server = TestServer::start();
    let claims = |user: &str| json!({"sub": user, "exp": crate::harness::in_seconds(60)});
    let mut raw = server.connect_with(&token(&claims("42")));
    server.api("bind", &json!({"client": raw.client, "user": "7"}));
    let refresh = |user: &str| json!({"id": 9, "refresh": {"token": token(&claims(user))}});
    let reply = raw.ask_value(&refresh("7"));
    assert!(reply["refresh"]["ttl"].is_u64(), "{reply}");
    raw.send(&refresh("42").to_string());
    raw.expect_close(longwire_protocol::CloseReason::InvalidToken);
}

#[test]
fn a_client_that_is_bound_twice_before_its_welcome_gets_the_last_users_channel_alone() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::start(move |_| {
        held.pass();
        ok(&json!({"result": {}}))
    });
    let server = TestServer::with(|config| {
        *place(config, "subscribe") = backend.webhook("subscribe");
        config.client.personal_channel = true;
        let asking = ChannelOptions { subscribe_webhook: "default".into(), ..ChannelOptions::default() };
        config.namespaces.insert("ask".to_owned(), asking);
    });
    let mut link = Link::open(server.address);
    link.send(b"GET /sse?channels=ask:1 HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the backend to be asked", || !backend.asked().is_empty());
    let listed = result(&server, "connections", &json!({}));
    let client = listed["connections"].as_object().and_then(|all| all.keys().next()).expect("one").clone();
    for user in ["42", "7"] {
        assert_eq!(server.api("bind", &json!({"client": client, "user": user})), json!({"result": {}}));
    }
    gate.open();
    let channels = || result(&server, "session_get", &json!({"client": client}))["channels"].clone();
    until("the channel of the last", || channels().to_string().contains("#7"));
    assert_eq!(channels(), json!(["#7", "ask:1"]));
}
