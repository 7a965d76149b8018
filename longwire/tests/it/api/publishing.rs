//! Publications that are repeated, outdated, not for everybody, not JSON; and how far they came.

use crate::harness::{Events, Raw, TestServer, open_channel, remembering_channel, until};
use longwire::config::{ChannelOptions, DataFormat};
use longwire::node::NewPublication;
use longwire::node::survey::{Reach, Sent};
use longwire_protocol::CloseReason;
use longwire_protocol::message::Except;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// The position that a publish was answered.
fn position(answer: &Value) -> (u64, String) {
    let result = &answer["result"];
    (result["offset"].as_u64().expect("an offset"), result["epoch"].as_str().expect("an epoch").to_owned())
}

#[test]
fn of_calls_with_the_same_key_at_the_same_time_one_publishes() {
    let server = TestServer::start();
    let mut reader = server.connect();
    reader.subscribe("kept:a");
    let body = json!({"channel": "kept:a", "data": 1, "idempotency_key": "order 7"});
    let answers: Vec<Value> = std::thread::scope(|scope| {
        let call = || scope.spawn(|| server.api("publish", &body));
        let calls: Vec<_> = (0..8).map(|_| call()).collect();
        calls.into_iter().map(|call| call.join().expect("it was answered")).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0] && position(answer).0 == 1), "{answers:?}");
    server.publish("kept:a", 2);
    assert_eq!(reader.line(), r#"{"push":{"channel":"kept:a","pub":{"data":1,"offset":1}}}"#);
    assert_eq!(reader.line(), r#"{"push":{"channel":"kept:a","pub":{"data":2,"offset":2}}}"#);
}

#[test]
fn subscribers_see_no_version_after_a_newer_one() {
    let server = TestServer::start();
    let mut reader = server.connect();
    reader.subscribe("kept:a");
    for (version, offset) in [(2, 1), (1, 1), (2, 1), (3, 2)] {
        let answer =
            server.api("publish", &json!({"channel": "kept:a", "data": version, "version": version}));
        assert_eq!(position(&answer).0, offset, "{version}");
    }
    assert_eq!(reader.line(), r#"{"push":{"channel":"kept:a","pub":{"data":2,"offset":1}}}"#);
    assert_eq!(reader.line(), r#"{"push":{"channel":"kept:a","pub":{"data":3,"offset":2}}}"#);
    reader.expect_silence();
}

#[test]
fn who_is_left_out_misses_it_without_a_gap_and_does_not_recover_it_either() {
    let server = TestServer::start();
    let subscribe = |raw: &mut Raw, more: Value| {
        let mut ask = json!({"channel": "kept:a", "positioned": true, "recoverable": true});
        ask.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        raw.ask_value(&json!({"id": 2, "subscribe": ask}))["subscribe"].clone()
    };
    let (mut sender, mut same_user, mut other) =
        (server.connect_as("42"), server.connect_as("42"), server.connect_as("7"));
    for raw in [&mut sender, &mut same_user, &mut other] {
        subscribe(raw, json!({}));
    }
    let publish = |n: u64, more: Value| {
        let mut body = json!({"channel": "kept:a", "data": n});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        position(&server.api("publish", &body))
    };
    publish(1, json!({"exclude_client": sender.client}));
    publish(2, json!({"exclude_user": "42"}));
    let (_, epoch) = publish(3, json!({}));
    let push = |n: u64| format!(r#"{{"push":{{"channel":"kept:a","pub":{{"data":{n},"offset":{n}}}}}}}"#);
    let heard = |raw: &mut Raw, numbers: &[u64]| {
        for n in numbers {
            assert_eq!(raw.line(), push(*n));
        }
        raw.expect_silence();
    };
    heard(&mut sender, &[3]);
    heard(&mut same_user, &[1, 3]);
    heard(&mut other, &[1, 2, 3]);

    let recover = json!({"recover": true, "offset": 0, "epoch": epoch});
    let mut returned = server.connect_as("42");
    let result = subscribe(&mut returned, recover.clone());
    assert_eq!((&result["recovered"], &result["offset"]), (&json!(true), &Value::Null), "{result}");
    assert_eq!(result["publications"], json!([{"data": 1, "offset": 1}, {"data": 3, "offset": 3}]));
    // What was left out counts as seen: the next one is no gap.
    publish(4, json!({}));
    heard(&mut returned, &[4]);
    // Nor does the history command show it.
    let history = returned.ask_value(&json!({"id": 3, "history": {"channel": "kept:a", "limit": -1}}));
    assert_eq!(history["history"]["publications"].as_array().map(Vec::len), Some(3), "{history}");
}

#[test]
fn an_event_stream_of_several_channels_leaves_out_what_is_not_for_it() {
    let server = TestServer::start();
    let token = crate::harness::user_token("42");
    let mut events = Events::open(server.address, &format!("/sse?channels=kept:a,kept:b&token={token}"), "");
    until("two subscribers", || {
        server.api("channels", &json!({}))["result"]["channels"].as_object().map(serde_json::Map::len)
            == Some(2)
    });
    server.api("publish", &json!({"channel": "kept:a", "data": 1, "exclude_user": "42"}));
    server.publish("kept:b", 2);
    server.publish("kept:a", 3);
    let data: Vec<Value> = std::iter::from_fn(|| Some(events.next()))
        .filter(|event| event.name.is_empty())
        .take(2)
        .map(|event| event.value()["data"].clone())
        .collect();
    assert_eq!(data, [2, 3]);
}

#[test]
fn a_report_counts_whom_the_publication_was_given_to() {
    let server = TestServer::with(|config| config.server.shards = 4);
    let uid = server.server().node().id.to_string();
    let report = |channel: &str, more: Value| {
        let mut body = json!({"channel": channel, "data": 1, "report": true});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.api("publish", &body)["result"]["report"].clone()
    };
    let expected = |subscribers: usize, reached: usize| json!({"reached": reached, "nodes": [{"uid": uid, "subscribers": subscribers, "reached": reached}]});
    assert_eq!(report("news", json!({})), expected(0, 0));
    let mut readers: Vec<Raw> = (0..7).map(|_| server.connect_as("42")).collect();
    for reader in &mut readers {
        reader.subscribe("news");
        reader.subscribe("kept:a");
    }
    // Asked right behind each publication, while the shards are still busy with it.
    for _ in 0..50 {
        assert_eq!(report("news", json!({})), expected(7, 7));
        assert_eq!(report("kept:a", json!({})), expected(7, 7));
    }
    assert_eq!(report("news", json!({"exclude_client": readers[3].client})), expected(7, 6));
    assert_eq!(report("kept:a", json!({"exclude_user": "42"})), expected(7, 0));
    // By then everybody has it.
    for reader in &mut readers {
        for _ in 0..100 {
            assert_eq!(reader.value()["push"]["pub"]["data"], 1);
        }
    }
    // Without being asked, the answer is what it always was.
    assert_eq!(server.api("publish", &json!({"channel": "news", "data": 1})), json!({"result": {}}));
    drop(readers);
    until("everybody to have left", || report("news", json!({})) == expected(0, 0));
}

/// The question travels another way to a shard than the publication does; it must not overtake it, however busy the
/// shard is with others. Who watches positions is counted only once the publication was handed over.
#[test]
fn a_report_never_overtakes_its_publication() {
    let server = TestServer::start();
    let mut readers: Vec<Raw> = (0..4).map(|_| server.connect()).collect();
    for reader in &mut readers {
        let reply =
            reader.ask_value(&json!({"id": 2, "subscribe": {"channel": "kept:a", "positioned": true}}));
        assert_eq!(reply["subscribe"]["positioned"], true, "{reply}");
    }
    let mut crowd: Vec<Raw> = (0..40).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|raw| drop(raw.subscribe("noise")));
    let node = server.server().node();
    let new = || NewPublication { data: "1".into(), is_known_json: true, ..NewPublication::default() };
    let block_on = |future: std::pin::Pin<Box<dyn Future<Output = ()> + '_>>| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(future);
    };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            block_on(Box::pin(async {
                // Not more than the crowd's sockets hold, for nobody reads.
                for _ in 0..5_000 {
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    node.publish("noise", new()).await.expect("it is published");
                }
            }));
        });
        block_on(Box::pin(async {
            for _ in 0..1_000 {
                let position = node.publish("kept:a", new()).await.expect("it is published").position;
                let sent =
                    Sent { channel: "kept:a".into(), position, except: Except::default(), tags: Vec::new() };
                assert_eq!(node.reach(sent).await, Reach { subscribers: 4, reached: 4 }, "{position:?}");
            }
            is_over.store(true, Ordering::Relaxed);
        }));
    });
}

#[test]
fn a_json_client_is_closed_by_a_payload_that_json_cannot_carry() {
    let server = TestServer::with(|config| {
        let binary = DataFormat::Binary;
        for (name, options) in [("raw", open_channel()), ("rawkept", remembering_channel(10))] {
            let options = ChannelOptions { publication_data_format: binary, ..options };
            config.namespaces.insert(name.to_owned(), options);
        }
    });
    let binary = |channel: &str| server.api("publish", &json!({"channel": channel, "b64data": "AAEC/w=="}));
    let mut reader = server.connect();
    reader.subscribe("raw:a");
    server.publish("raw:a", 1);
    assert_eq!(reader.line(), r#"{"push":{"channel":"raw:a","pub":{"data":1}}}"#);
    assert_eq!(binary("raw:a"), json!({"result": {}}));
    reader.expect_close(CloseReason::InappropriateProtocol);

    let (_, epoch) = position(&binary("rawkept:a"));
    let mut reader = server.connect();
    reader.send(
        &json!({"id": 2, "subscribe": {"channel": "rawkept:a", "recover": true, "recoverable": true, "epoch": epoch}})
            .to_string(),
    );
    reader.expect_close(CloseReason::InappropriateProtocol);
    let mut reader = server.connect();
    reader.send(r#"{"id":2,"history":{"channel":"rawkept:a","limit":-1}}"#);
    reader.expect_close(CloseReason::InappropriateProtocol);
    // Elsewhere it cannot be published.
    let refused = json!({"error": {"code": 107, "message": "bad request"}});
    assert_eq!(binary("news"), refused);
    // Nobody else is harmed.
    let mut reader = server.connect();
    reader.subscribe("news");
    server.publish("news", 1);
    assert_eq!(reader.line(), r#"{"push":{"channel":"news","pub":{"data":1}}}"#);
}

#[test]
fn a_backend_overrides_the_options_of_a_channel_for_one_subscription() {
    let server = TestServer::start();
    let mut raw = server.connect_as("42");
    let order = json!({"user": "42", "channel": "seen:a", "override": {"presence": {"value": false}}});
    assert_eq!(server.api("subscribe", &order), json!({"result": {}}));
    assert_eq!(raw.value()["push"]["channel"], "seen:a");
    assert_eq!(server.api("presence", &json!({"channel": "seen:a"})), json!({"result": {"presence": {}}}));
    let order = json!({"user": "42", "channel": "seen:b"});
    assert_eq!(server.api("subscribe", &order), json!({"result": {}}));
    assert_eq!(raw.value()["push"]["channel"], "seen:b");
    let there = server.api("presence", &json!({"channel": "seen:b"}));
    assert!(there["result"]["presence"].get(&raw.client).is_some(), "{there}");
}
