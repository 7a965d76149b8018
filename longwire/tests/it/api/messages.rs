//! Direct messages: from a backend to connections, users, the subscribers of a channel, or all.

use crate::harness::{Events, Raw, Received, TestServer, user_token};
use serde_json::{Value, json};

/// Opens a WebSocket of the plain dialect and reads where it begins; the connection's id is in it.
#[track_caller]
fn plain(server: &TestServer, query: &str) -> Raw {
    let mut raw = Raw::plain(server, query);
    let welcome = raw.value();
    raw.client = welcome["client"].as_str().unwrap_or_else(|| panic!("no welcome: {welcome}")).to_owned();
    raw
}

#[track_caller]
fn send(server: &TestServer, body: &Value) -> Value {
    server.api("send", body)["result"].clone()
}

#[track_caller]
fn expect_message(raw: &mut Raw, data: impl Into<Value>) {
    assert_eq!(raw.value(), json!({"push": {"message": {"data": data.into()}}}));
}

#[test]
fn a_message_reaches_those_that_it_is_for_on_every_shard_and_in_every_dialect() {
    let server = TestServer::with(|config| config.server.shards = 3);
    let mut ours: Vec<Raw> = (0..3).map(|_| server.connect_as("42")).collect();
    let mut other = server.connect_as("7");
    let mut anonymous = server.connect();
    let path = format!("/sse?channels=news&token={}", user_token("42"));
    let mut stream = Events::open(server.address, &path, "");
    assert_eq!(stream.next().name, "subscribed");
    let mut page = plain(&server, &format!("channels=news&token={}", user_token("42")));

    let one = ours[1].client.clone();
    assert_eq!(send(&server, &json!({"client": one, "data": {"n": [1]}})), json!({"sent": 1}));
    expect_message(&mut ours[1], json!({"n": [1]}));

    assert_eq!(send(&server, &json!({"user": "42", "data": 2})), json!({"sent": 5}));
    ours.iter_mut().for_each(|raw| expect_message(raw, 2));
    assert_eq!(page.line(), r#"{"data":2}"#);
    let event = stream.next();
    assert_eq!((event.name.as_str(), event.id, event.data.as_str()), ("", None, r#"{"data":2}"#));

    let some = json!({"clients": [other.client, one, one, "nobody"], "data": 3});
    assert_eq!(send(&server, &some), json!({"sent": 2}));
    expect_message(&mut ours[1], 3);
    expect_message(&mut other, 3);

    // One who is named twice gets it once, who is spared not at all.
    let users = json!({"users": ["7", "42", "7", "nobody"], "except": [one, page.client], "data": 4});
    assert_eq!(send(&server, &users), json!({"sent": 4}));
    expect_message(&mut other, 4);
    expect_message(&mut ours[0], 4);
    assert_eq!(stream.next().data, r#"{"data":4}"#);

    assert_eq!(send(&server, &json!({"all": true, "except_users": ["42"], "data": 5})), json!({"sent": 2}));
    expect_message(&mut other, 5);
    expect_message(&mut anonymous, 5);

    other.subscribe("news");
    let channel = json!({"channel": "news", "except": [page.client], "b64data": "eyJhIjo2fQ=="});
    assert_eq!(send(&server, &channel), json!({"sent": 2}));
    expect_message(&mut other, json!({"a": 6}));
    assert_eq!(stream.next().data, r#"{"data":{"a":6}}"#);

    assert_eq!(send(&server, &json!({"user": "nobody", "data": 1})), json!({"sent": 0}));
    assert_eq!(send(&server, &json!({"client": "not an id", "data": 1})), json!({"sent": 0}));
    ours[1].expect_silence();
    anonymous.expect_silence();
}

#[test]
fn what_is_no_json_reaches_whom_it_can_and_the_others_are_counted() {
    let server = TestServer::start();
    let mut centrifuge = server.connect_as("42");
    let mut page = plain(&server, &format!("token={}", user_token("42")));
    let answer = send(&server, &json!({"user": "42", "b64data": "AP8B"}));
    assert_eq!(answer, json!({"sent": 1, "refused": 1}));
    assert_eq!(page.line(), r#"{"b64data":"AP8B"}"#);
    centrifuge.expect_silence();
}

#[test]
fn a_message_comes_before_the_close_that_is_ordered_behind_it() {
    let server = TestServer::start();
    let mut raw = server.connect_as("42");
    let batch = json!({"commands": [
        {"send": {"client": raw.client, "data": "elsewhere"}},
        {"disconnect": {"client": raw.client, "disconnect": {"code": 4100, "reason": "logged in elsewhere"}}},
    ]});
    let replies = server.api("batch", &batch);
    assert_eq!(replies, json!({"replies": [{"send": {"sent": 1}}, {"disconnect": {}}]}));
    expect_message(&mut raw, "elsewhere");
    assert_eq!(raw.next(), Received::Close(Some(4100), "logged in elsewhere".to_owned()));
}

#[test]
fn what_is_published_once_a_subscription_was_ordered_is_heard() {
    let server = TestServer::with(|config| config.server.shards = 3);
    let mut all: Vec<Raw> = (0..3).map(|_| server.connect_as("42")).collect();
    for n in 0..50 {
        let channel = format!("joined-{n}");
        // In one call nothing lies between the two.
        let batch = json!({"commands": [
            {"subscribe": {"user": "42", "channel": channel}},
            {"publish": {"channel": channel, "data": n}},
        ]});
        server.api("batch", &batch);
        for raw in &mut all {
            let (begun, publication) = (raw.value(), raw.value());
            assert!(begun["push"].get("subscribe").is_some(), "{begun}");
            assert_eq!(publication["push"]["pub"]["data"], n, "{publication}");
        }
    }
}

#[test]
fn everybody_can_be_taken_out_of_a_channel_and_sent_away() {
    let server = TestServer::with(|config| config.server.shards = 3);
    let mut all: Vec<Raw> = ["", "42", "7"]
        .map(|user| match user {
            "" => server.connect(),
            user => server.connect_as(user),
        })
        .into();
    all.iter_mut().for_each(|raw| drop(raw.subscribe("seen:a")));
    let mut bystander = server.connect_as("42");
    let refused = json!({"error": {"code": 107, "message": "bad request"}});
    assert_eq!(server.api("unsubscribe", &json!({"channel": "seen:a", "all": true, "user": "42"})), refused);
    assert_eq!(server.api("disconnect", &json!({"all": true, "client": bystander.client})), refused);
    assert_eq!(server.api("unsubscribe", &json!({"channel": "seen:a", "all": true})), json!({"result": {}}));
    for raw in &mut all {
        let push = raw.value();
        assert_eq!(push["push"]["unsubscribe"]["code"], 2000, "{push}");
        raw.expect_silence();
    }
    bystander.expect_silence();
    let stats = server.api("presence_stats", &json!({"channel": "seen:a"}));
    assert_eq!(stats["result"], json!({"num_clients": 0, "num_users": 0}));
    let spared = all.pop().expect("there are three");
    server.api("disconnect", &json!({"all": true, "whitelist": [spared.client]}));
    all.push(bystander);
    for mut raw in all {
        assert!(matches!(raw.next(), Received::Close(Some(3503), _)));
    }
}
