//! Positions: what a returning client is given, and that it is told when that is not everything.

use crate::harness::{TestServer, remembering_channel};
use longwire::config::ChannelOptions;
use serde_json::{Value, json};
use std::time::Duration;

/// Subscribes, recovering from a position if there is one.
#[track_caller]
fn subscribe(server: &TestServer, channel: &str, since: Option<(u64, &str)>) -> Value {
    let mut raw = server.connect();
    let mut ask = json!({"channel": channel, "recoverable": true});
    if let Some((offset, epoch)) = since {
        ask["recover"] = true.into();
        ask["offset"] = offset.into();
        ask["epoch"] = epoch.into();
    }
    let reply = raw.ask_value(&json!({"id": 2, "subscribe": ask}));
    raw.expect_silence();
    reply
}

fn epoch_of(server: &TestServer, channel: &str) -> String {
    let top = server.api("history", &json!({"channel": channel}));
    top["result"]["epoch"].as_str().expect("an epoch").to_owned()
}

fn fill(server: &TestServer, channel: &str, count: u64) -> String {
    for n in 1..=count {
        assert_eq!(server.publish(channel, n)["offset"], n);
    }
    epoch_of(server, channel)
}

#[test]
fn a_first_subscription_is_told_the_newest_position() {
    let server = TestServer::start();
    let epoch = epoch_of(&server, "kept:a");
    let reply = subscribe(&server, "kept:a", None);
    assert_eq!(
        reply,
        json!({"id": 2, "subscribe": {"recoverable": true, "epoch": epoch, "positioned": true}})
    );
    fill(&server, "kept:a", 3);
    let reply = subscribe(&server, "kept:a", None);
    let expected = json!({"recoverable": true, "epoch": epoch, "offset": 3, "positioned": true});
    assert_eq!(reply, json!({"id": 2, "subscribe": expected}));
}

#[test]
fn a_recovery_brings_what_was_missed_and_the_position_that_was_asked_from() {
    let server = TestServer::start();
    let epoch = fill(&server, "kept:a", 5);
    let recovered = |publications: Value, offset: u64| {
        let mut result = json!({
            "recoverable": true, "epoch": epoch, "publications": publications, "recovered": true,
            "offset": offset, "positioned": true, "was_recovering": true,
        });
        let fields = result.as_object_mut().expect("an object");
        // What is zero or empty is left out.
        fields.retain(|name, value| !(name == "offset" && offset == 0 || *value == json!([])));
        json!({"id": 2, "subscribe": result})
    };
    let publications =
        |from: u64| json!((from..=5).map(|n| json!({"data": n, "offset": n})).collect::<Vec<_>>());
    for offset in 0..=5 {
        let reply = subscribe(&server, "kept:a", Some((offset, &epoch)));
        assert_eq!(reply, recovered(publications(offset + 1), offset), "from {offset}");
    }
    // Who saw the channel without publications knows no epoch: any is meant.
    assert_eq!(subscribe(&server, "kept:a", Some((3, ""))), recovered(publications(4), 3));
}

#[test]
fn a_recovery_that_cannot_be_complete_brings_nothing_and_says_so() {
    let server = TestServer::with(|config| {
        config.client.max_recovery_publications = 6;
        let short = ChannelOptions { history_ttl: Duration::from_millis(300), ..remembering_channel(100) };
        config.namespaces.insert("short".to_owned(), short);
    });
    let honest = |epoch: &str, offset: u64| {
        let result = json!({
            "recoverable": true, "epoch": epoch, "offset": offset, "positioned": true, "was_recovering": true,
        });
        json!({"id": 2, "subscribe": result})
    };
    // Of fifteen publications ten are kept, and six may be recovered.
    let epoch = fill(&server, "kept:a", 15);
    assert_eq!(subscribe(&server, "kept:a", Some((4, &epoch))), honest(&epoch, 15), "the fifth is forgotten");
    assert_eq!(subscribe(&server, "kept:a", Some((8, &epoch))), honest(&epoch, 15), "one more than allowed");
    let reply = subscribe(&server, "kept:a", Some((9, &epoch)));
    assert_eq!(reply["subscribe"]["recovered"], true, "as many as allowed: {reply}");
    assert_eq!(subscribe(&server, "kept:a", Some((15, "otherone"))), honest(&epoch, 15), "another epoch");
    assert_eq!(
        subscribe(&server, "kept:a", Some((0, "_"))),
        honest(&epoch, 15),
        "an epoch that no channel has"
    );
    assert_eq!(
        subscribe(&server, "kept:a", Some((16, &epoch))),
        honest(&epoch, 15),
        "a position of the future"
    );
    assert_eq!(
        subscribe(&server, "kept:a", Some((u64::MAX, &epoch))),
        honest(&epoch, 15),
        "the largest offset there is"
    );

    let epoch = fill(&server, "short:a", 2);
    crate::harness::until("history to pass its time", || {
        let page = server.api("history", &json!({"channel": "short:a", "limit": -1}));
        page["result"]["publications"] == json!([])
    });
    assert_eq!(subscribe(&server, "short:a", Some((1, &epoch))), honest(&epoch, 2), "past its time");
    let reply = subscribe(&server, "short:a", Some((2, &epoch)));
    assert_eq!(reply["subscribe"]["recovered"], true, "nothing was missed: {reply}");
}

#[test]
fn a_client_that_wants_all_or_an_error_gets_the_error() {
    let server = TestServer::start();
    let epoch = fill(&server, "kept:a", 15);
    let mut raw = server.connect();
    let ask = |offset: u64| {
        json!({"id": 2, "subscribe": {
            "channel": "kept:a", "recoverable": true, "recover": true, "offset": offset, "epoch": epoch, "flag": 3,
        }})
    };
    let refused = raw.ask(&ask(1).to_string());
    assert_eq!(refused, r#"{"id":2,"error":{"code":112,"message":"unrecoverable position"}}"#);
    // The refusal left no subscription behind.
    server.publish("kept:a", "unheard");
    raw.expect_silence();
    let reply = raw.ask_value(&ask(10));
    assert_eq!(reply["subscribe"]["recovered"], true, "{reply}");
    assert_eq!(reply["subscribe"]["publications"].as_array().map(Vec::len), Some(6));
}

#[test]
fn a_recovered_subscription_goes_on_without_a_gap_or_a_double() {
    let server = TestServer::start();
    let epoch = fill(&server, "kept:a", 4);
    let mut raw = server.connect();
    let reply = raw.ask_value(&json!({"id": 2, "subscribe": {
        "channel": "kept:a", "recoverable": true, "recover": true, "offset": 2, "epoch": epoch,
    }}));
    assert_eq!(
        reply["subscribe"]["publications"],
        json!([{"data": 3, "offset": 3}, {"data": 4, "offset": 4}])
    );
    for n in 5..=9 {
        server.publish("kept:a", n);
        assert_eq!(raw.value(), json!({"push": {"channel": "kept:a", "pub": {"data": n, "offset": n}}}));
    }
}

#[test]
fn clients_that_return_while_others_publish_miss_nothing_and_see_nothing_twice() {
    const COUNT: u64 = 400;
    let server = TestServer::with(|config| {
        config.namespaces.insert("busy".to_owned(), remembering_channel(1000));
        config.client.max_recovery_publications = 1000;
        config.client.commands_per_second = 100_000;
        config.client.command_burst = 100_000;
    });
    let epoch = epoch_of(&server, "busy:a");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = server.connect();
            for n in 1..=COUNT {
                let reply =
                    publisher.ask(&format!(r#"{{"id":3,"publish":{{"channel":"busy:a","data":{n}}}}}"#));
                assert_eq!(reply, r#"{"id":3,"publish":{}}"#);
            }
        });
        for reader in 0..4u64 {
            let (server, epoch) = (&server, &epoch);
            scope.spawn(move || {
                let mut seen = 0;
                let mut returns = 0;
                while seen < COUNT {
                    returns += 1;
                    let mut raw = server.connect();
                    let reply = raw.ask_value(&json!({"id": 2, "subscribe": {
                        "channel": "busy:a", "recoverable": true, "recover": true, "offset": seen, "epoch": epoch,
                    }}));
                    let result = &reply["subscribe"];
                    assert_eq!(result["recovered"], true, "{reply}");
                    assert_eq!(result["offset"].as_u64().unwrap_or(0), seen);
                    for publication in result["publications"].as_array().into_iter().flatten() {
                        seen += 1;
                        assert_eq!(publication["offset"], seen);
                        assert_eq!(publication["data"], seen);
                    }
                    // A few live ones, then the link is dropped without a word.
                    for _ in 0..(returns * 7 + reader) % 23 {
                        if seen == COUNT {
                            break;
                        }
                        seen += 1;
                        let push = raw.value();
                        assert_eq!(push["push"]["pub"]["offset"], seen, "{push}");
                    }
                }
                assert!(returns > 1, "the reader never had to return");
            });
        }
    });
}

#[test]
fn what_a_client_may_ask_for_depends_on_the_channel() {
    let channel = |change: fn(&mut ChannelOptions)| {
        let mut options =
            ChannelOptions { allow_recovery: false, allow_positioning: false, ..remembering_channel(10) };
        change(&mut options);
        options
    };
    let server = TestServer::with(|config| {
        for (name, change) in [
            ("none", (|_| {}) as fn(&mut ChannelOptions)),
            ("may_position", |o| o.allow_positioning = true),
            ("may_recover", |o| o.allow_recovery = true),
            ("positions", |o| o.force_positioning = true),
            ("recovers", |o| o.force_recovery = true),
        ] {
            config.namespaces.insert(name.to_owned(), channel(change));
        }
    });
    for (namespace, ask, recoverable, positioned) in [
        ("none", json!({"recoverable": true, "positioned": true}), false, false),
        ("may_position", json!({}), false, false),
        ("may_position", json!({"positioned": true}), false, true),
        ("may_position", json!({"recoverable": true}), false, false),
        ("may_recover", json!({}), false, false),
        ("may_recover", json!({"positioned": true}), false, false),
        ("may_recover", json!({"recoverable": true}), true, true),
        ("positions", json!({}), false, true),
        ("recovers", json!({}), true, true),
    ] {
        let mut raw = server.connect();
        let mut ask = ask;
        ask["channel"] = format!("{namespace}:a").into();
        let reply = raw.ask_value(&json!({"id": 2, "subscribe": ask}));
        let result = &reply["subscribe"];
        let flag = |name: &str| result.get(name).is_some_and(|value| *value == json!(true));
        assert_eq!((flag("recoverable"), flag("positioned")), (recoverable, positioned), "{ask} {reply}");
        assert_eq!(result.get("epoch").is_some(), positioned, "{ask} {reply}");
    }
}

#[test]
fn a_channel_without_history_answers_a_recovery_honestly() {
    let server = TestServer::start();
    let reply = subscribe(&server, "plain", Some((7, "abcdefgh")));
    assert_eq!(reply, json!({"id": 2, "subscribe": {"was_recovering": true}}));
}

#[test]
fn a_publication_outside_of_history_has_no_offset_and_disturbs_no_position() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.ask_value(&json!({"id": 2, "subscribe": {"channel": "kept:a", "recoverable": true}}));
    server.publish("kept:a", 1);
    let skipped = json!({"channel": "kept:a", "data": "passing", "skip_history": true});
    assert_eq!(server.api("publish", &skipped), json!({"result": {}}));
    server.publish("kept:a", 2);
    for expected in
        [json!({"data": 1, "offset": 1}), json!({"data": "passing"}), json!({"data": 2, "offset": 2})]
    {
        assert_eq!(raw.value()["push"]["pub"], expected);
    }
}

#[test]
fn removed_history_keeps_its_numbering() {
    let server = TestServer::start();
    let epoch = fill(&server, "kept:a", 3);
    assert_eq!(server.api("history_remove", &json!({"channel": "kept:a"})), json!({"result": {}}));
    assert_eq!(server.publish("kept:a", 4), json!({"offset": 4, "epoch": epoch}));
    let reply = subscribe(&server, "kept:a", Some((2, &epoch)));
    assert_eq!(reply["subscribe"].get("recovered"), None, "{reply}");
    let reply = subscribe(&server, "kept:a", Some((3, &epoch)));
    assert_eq!(reply["subscribe"]["publications"], json!([{"data": 4, "offset": 4}]), "{reply}");
}
