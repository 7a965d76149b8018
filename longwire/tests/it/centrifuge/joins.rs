//! Presence, and who is told of comings and goings.

use crate::harness::{Raw, TestServer, until};
use longwire::config::ChannelOptions;
use serde_json::{Value, json};

fn presence(server: &TestServer, channel: &str) -> Vec<String> {
    let answer = server.api("presence", &json!({"channel": channel}));
    let members = answer["result"]["presence"].as_object().expect("a map").clone();
    members.into_iter().map(|(client, _)| client).collect()
}

fn movement(kind: &str, channel: &str, user: &str, raw: &Raw) -> Value {
    json!({"push": {"channel": channel, kind: {"info": {"user": user, "client": raw.client}}}})
}

#[test]
fn who_asked_for_them_sees_joins_and_leaves_its_own_join_included() {
    let server = TestServer::start();
    let mut watcher = server.connect_as("watcher");
    let reply = watcher.ask(r#"{"id":2,"subscribe":{"channel":"seen:a","join_leave":true}}"#);
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(watcher.value(), movement("join", "seen:a", "watcher", &watcher));

    let mut guest = server.connect_as("guest");
    guest.subscribe("seen:a");
    assert_eq!(watcher.value(), movement("join", "seen:a", "guest", &guest));
    let mut both = [watcher.client.clone(), guest.client.clone()];
    both.sort();
    assert_eq!(presence(&server, "seen:a"), both);

    assert_eq!(guest.ask(r#"{"id":3,"unsubscribe":{"channel":"seen:a"}}"#), r#"{"id":3,"unsubscribe":{}}"#);
    assert_eq!(watcher.value(), movement("leave", "seen:a", "guest", &guest));
    assert_eq!(presence(&server, "seen:a"), [watcher.client.clone()]);
    // The guest did not ask, and was told nothing.
    guest.expect_silence();
}

#[test]
fn a_connection_that_ends_leaves_at_once_however_it_ends() {
    let server = TestServer::start();
    let mut watcher = server.connect();
    watcher.ask(r#"{"id":2,"subscribe":{"channel":"seen:a","join_leave":true}}"#);
    assert!(watcher.line().contains("\"join\""));
    for how in ["close frame", "end of the stream", "broken rule"] {
        let mut guest = server.connect_as(how);
        guest.subscribe("seen:a");
        assert_eq!(watcher.value(), movement("join", "seen:a", how, &guest));
        match how {
            "close frame" => guest.send_bytes(&crate::framing_suite::frame(0x88, &1000u16.to_be_bytes())),
            "end of the stream" => guest.link.finish(),
            _ => guest.send("nonsense"),
        }
        assert_eq!(watcher.value(), movement("leave", "seen:a", how, &guest));
        assert_eq!(presence(&server, "seen:a"), [watcher.client.clone()], "{how}");
    }
}

#[test]
fn joins_and_leaves_are_seen_only_by_whom_the_channel_allows() {
    let channel = |change: fn(&mut ChannelOptions)| {
        let mut options =
            ChannelOptions { join_leave: true, presence: true, ..crate::harness::open_channel() };
        options.allow_presence_for_client = false;
        options.allow_presence_for_anonymous = false;
        change(&mut options);
        options
    };
    let server = TestServer::with(|config| {
        for (name, change) in [
            ("nobody", (|_| {}) as fn(&mut ChannelOptions)),
            ("clients", |o| o.allow_presence_for_client = true),
            ("subscribers", |o| o.allow_presence_for_subscriber = true),
            ("anonymous", |o| {
                o.allow_presence_for_subscriber = true;
                o.allow_presence_for_anonymous = true;
            }),
            ("forced", |o| o.force_push_join_leave = true),
            ("off", |o| {
                o.join_leave = false;
                o.force_push_join_leave = true;
                o.allow_presence_for_client = true;
            }),
        ] {
            config.namespaces.insert(name.to_owned(), channel(change));
        }
    });
    for (namespace, user, asks, sees) in [
        ("nobody", "42", true, false),
        ("clients", "42", true, true),
        ("clients", "42", false, false),
        ("clients", "", true, false),
        ("subscribers", "42", true, true),
        ("subscribers", "", true, false),
        ("anonymous", "", true, true),
        ("forced", "", false, true),
        ("forced", "42", false, true),
        ("off", "42", true, false),
    ] {
        let channel = format!("{namespace}:{user}{asks}");
        let mut raw = if user.is_empty() { server.connect() } else { server.connect_as(user) };
        let ask = json!({"id": 2, "subscribe": {"channel": channel, "join_leave": asks}});
        assert_eq!(raw.ask_value(&ask), json!({"id": 2, "subscribe": {}}), "{channel}");
        if sees {
            assert_eq!(raw.value(), movement("join", &channel, user, &raw), "{channel}");
        }
        raw.expect_silence();
    }
}

#[test]
fn presence_counts_connections_and_users() {
    let server = TestServer::start();
    let mut all: Vec<Raw> = ["7", "7", "8"].into_iter().map(|user| server.connect_as(user)).collect();
    for raw in &mut all {
        raw.subscribe("seen:a");
    }
    let stats =
        |server: &TestServer| server.api("presence_stats", &json!({"channel": "seen:a"}))["result"].clone();
    assert_eq!(stats(&server), json!({"num_clients": 3, "num_users": 2}));
    assert_eq!(
        all[0].ask(r#"{"id":3,"presence_stats":{"channel":"seen:a"}}"#),
        r#"{"id":3,"presence_stats":{"num_clients":3,"num_users":2}}"#
    );
    drop(all);
    until("everybody to leave", || stats(&server) == json!({"num_clients": 0, "num_users": 0}));
}

#[test]
fn what_a_token_says_about_a_user_is_seen_by_others() {
    let server = TestServer::start();
    let mut watcher = server.connect();
    watcher.ask(r#"{"id":2,"subscribe":{"channel":"seen:a","join_leave":true}}"#);
    watcher.line();
    let exp = crate::harness::in_seconds(60);
    let mut guest = server
        .connect_with(&crate::harness::token(&json!({"sub": "7", "exp": exp, "info": {"name": "Ada"}})));
    let token = json!({"sub": "7", "exp": exp, "channel": "seen:a", "info": {"role": "host"}, "data": [1]});
    let ask = json!({"id": 2, "subscribe": {"channel": "seen:a", "token": crate::harness::token(&token)}});
    let reply = guest.ask_value(&ask);
    assert_eq!(reply["subscribe"]["data"], json!([1]), "{reply}");
    let info = json!({
        "user": "7", "client": guest.client, "conn_info": {"name": "Ada"}, "chan_info": {"role": "host"},
    });
    assert_eq!(watcher.value(), json!({"push": {"channel": "seen:a", "join": {"info": info}}}));
    let answer = server.api("presence", &json!({"channel": "seen:a"}));
    assert_eq!(answer["result"]["presence"][&guest.client], info);
}
