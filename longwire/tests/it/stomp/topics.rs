//! Topics are channels: fan-out, other dialects, positions and recovery, and subscriptions that outlive their connection.

use super::Broker;
use super::client::{Client, Frame};
use crate::harness::{Events, Raw};
use crate::plain::epoch_of;
use serde_json::json;

#[test]
fn everybody_who_is_subscribed_gets_a_publication() {
    let broker = Broker::start();
    let mut readers: Vec<Client> =
        ["1.0", "1.1", "1.2"].iter().map(|version| broker.speak(version)).collect();
    for reader in &mut readers {
        reader.subscribe("r", "/topic/news", "auto");
    }
    let mut client = broker.connect();
    client.put_with("/topic/news", &[("content-type", "text/plain"), ("k", "v:\\")], "hello");
    for reader in &mut readers {
        let message = reader.message();
        assert_eq!((message.get("destination"), message.get("subscription")), ("/topic/news", "r"));
        assert_eq!((message.text(), message.get("content-length")), ("hello".to_owned(), "5"));
        assert_eq!((message.get("k"), message.get("content-type")), ("v:\\", "text/plain"));
        assert!(!message.get("message-id").is_empty());
    }
}

#[test]
fn who_comes_later_gets_what_comes_later() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/topic/news", "early");
    client.subscribe("1", "/topic/news", "auto");
    client.put("/topic/news", "late");
    assert_eq!(client.message().text(), "late");
}

#[test]
fn a_publisher_who_is_subscribed_hears_itself() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    client.write("SEND", &[("destination", "/topic/news"), ("receipt", "r")], b"x");
    client.receipt("r");
    assert_eq!(client.message().text(), "x");
}

#[test]
fn bodies_of_topics_may_be_any_bytes() {
    let broker = Broker::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    client.put("/topic/news", &bytes);
    assert_eq!(client.message().body, bytes);
    client.put("/topic/news", b"");
    assert_eq!(client.message().body, b"");
}

#[test]
fn unsubscribe_ends_it() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    client.subscribe("2", "/topic/other", "auto");
    client.ask("UNSUBSCRIBE", &[("id", "1")], b"");
    client.put("/topic/news", "no");
    client.put("/topic/other", "yes");
    assert_eq!(client.message().text(), "yes");
}

#[test]
fn each_subscription_of_a_connection_gets_a_message_of_its_own() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for id in ["1", "2", "3"] {
        client.subscribe(id, "/topic/news", "auto");
    }
    client.ask("UNSUBSCRIBE", &[("id", "2")], b"");
    client.put("/topic/news", "x");
    let mut ids: Vec<_> = (0..2).map(|_| client.message().get("subscription").to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["1", "3"]);
    client.ask("UNSUBSCRIBE", &[("id", "1")], b"");
    client.put("/topic/news", "y");
    assert_eq!(client.message().get("subscription"), "3");
    client.quiet();
}

#[test]
fn acks_of_topics_are_taken_and_mean_nothing() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        for ack in ["client", "client-individual"] {
            let mut client = broker.speak(version);
            client.subscribe("1", "/topic/news", ack);
            client.put("/topic/news", "x");
            let message = client.message();
            assert_eq!(message.header("ack").is_some(), version == "1.2");
            client.ack(&message);
            if version != "1.0" {
                client.nack(&message);
            }
            client.quiet();
        }
    }
}

#[test]
fn what_the_api_publishes_reaches_stomp() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    broker.server.publish("news", json!({"a": [1, "ü"]}));
    assert_eq!(client.message().text(), r#"{"a":[1,"ü"]}"#);
}

#[test]
fn what_stomp_publishes_reaches_an_sdk_and_an_event_stream() {
    let broker = Broker::start();
    let mut sdk = broker.server.connect();
    sdk.subscribe("news");
    let mut events = Events::open(broker.server.address, "/sse?channels=news", "");
    events.next();
    let mut client = broker.connect();
    client.put_with("/topic/news", &[("content-type", "application/json")], r#"{"n":1}"#);
    assert_eq!(sdk.value()["push"]["pub"]["data"], json!({"n": 1}));
    assert!(events.next().data.contains(r#""data":{"n":1}"#));
}

#[test]
fn what_an_sdk_publishes_reaches_stomp() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    let mut sdk: Raw = broker.server.connect();
    sdk.ask_value(&json!({"id": 2, "publish": {"channel": "news", "data": {"n": 1}}}));
    let message = client.message();
    assert_eq!((message.text(), message.get("destination")), (r#"{"n":1}"#.to_owned(), "/topic/news"));
}

#[test]
fn a_message_of_a_channel_with_history_has_its_position() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/kept:a", "auto");
    let answer = broker.server.publish("kept:a", 1);
    let message = client.message();
    assert_eq!(message.get("offset"), "1");
    assert_eq!(Some(message.get("epoch")), answer["epoch"].as_str());
    client.put("/topic/kept:a", "2");
    assert_eq!(client.message().get("offset"), "2");
}

/// Subscribes from a position; the receipt.
fn since(client: &mut Client, offset: &str, epoch: &str) -> Frame {
    client.subscribe_with("1", "/topic/kept:a", &[("since-offset", offset), ("since-epoch", epoch)])
}

#[test]
fn who_returns_with_its_position_gets_what_it_missed_and_then_goes_on() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/kept:a", "auto");
    client.put("/topic/kept:a", "1");
    let last = client.message();
    client.vanish();
    for n in 2..=4 {
        broker.server.publish("kept:a", n);
    }
    let mut client = broker.connect();
    let receipt = since(&mut client, last.get("offset"), last.get("epoch"));
    assert_eq!(receipt.get("recovered"), "true");
    assert_eq!(client.bodies(3), ["2", "3", "4"]);
    broker.server.publish("kept:a", 5);
    let message = client.message();
    assert_eq!((message.text(), message.get("offset")), ("5".to_owned(), "5"));
}

#[test]
fn a_subscription_takes_the_place_of_one_that_the_backend_began() {
    let broker = Broker::start();
    let mut client = broker.open();
    let connected = client.connect("1.2", &[]);
    broker.server.publish("kept:a", 1);
    let epoch = epoch_of(&broker.server, "kept:a");
    let order = json!({"client": connected.get("session"), "user": "", "channel": "kept:a"});
    assert_eq!(broker.server.api("subscribe", &order), json!({"result": {}}));
    broker.server.publish("kept:a", 2);
    let receipt = since(&mut client, "1", &epoch);
    assert_eq!(receipt.get("recovered"), "true");
    broker.server.publish("kept:a", 3);
    assert_eq!(client.bodies(2), ["2", "3"]);
    let presence = broker.server.api("presence_stats", &json!({"channel": "kept:a"}));
    assert!(presence["result"]["num_clients"] == 1 || presence["error"]["code"] == 108, "{presence}");
}

#[test]
fn what_the_backend_alone_subscribed_to_brings_nothing_and_ends_nothing() {
    let broker = Broker::start();
    let mut client = broker.open();
    let connected = client.connect("1.2", &[]);
    for n in 1..=3 {
        broker.server.publish("kept:a", n);
    }
    let since = json!({"offset": 1, "epoch": epoch_of(&broker.server, "kept:a")});
    let of = |channel: &str| json!({"client": connected.get("session"), "user": "", "channel": channel});
    for channel in ["kept:a", "news"] {
        let mut order = of(channel);
        order["recover_since"] = since.clone();
        assert_eq!(broker.server.api("subscribe", &order), json!({"result": {}}));
        let answer = broker.server.api("publish", &json!({"channel": channel, "data": 4, "report": true}));
        let report = &answer["result"]["report"];
        let subscribers: i64 = report["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|node| node["subscribers"].as_i64())
            .sum();
        assert_eq!((subscribers, &report["reached"]), (1, &json!(0)), "{answer}");
    }
    client.quiet();
    for channel in ["kept:a", "news"] {
        assert_eq!(broker.server.api("unsubscribe", &of(channel)), json!({"result": {}}));
    }
    client.quiet();
}

#[test]
fn who_missed_nothing_has_recovered_too() {
    let broker = Broker::start();
    let answer = broker.server.publish("kept:a", 1);
    let mut client = broker.connect();
    let receipt = since(&mut client, "1", answer["epoch"].as_str().expect("an epoch"));
    assert_eq!(receipt.get("recovered"), "true");
    client.quiet();
}

#[test]
fn who_missed_too_much_is_told_so_and_where_it_stands() {
    let broker = Broker::start();
    let answer = broker.server.publish("kept:a", 0);
    for n in 1..=20 {
        broker.server.publish("kept:a", n);
    }
    let epoch = answer["epoch"].as_str().expect("an epoch");
    let mut client = broker.connect();
    let receipt = since(&mut client, "1", epoch);
    assert_eq!(receipt.get("recovered"), "false");
    assert_eq!((receipt.get("offset"), receipt.get("epoch")), ("21", epoch));
    broker.server.publish("kept:a", "next");
    assert_eq!(client.message().get("offset"), "22");
}

#[test]
fn a_position_of_another_epoch_recovers_nothing() {
    let broker = Broker::start();
    broker.server.publish("kept:a", 1);
    let mut client = broker.connect();
    assert_eq!(since(&mut client, "0", "nope").get("recovered"), "false");
}

#[test]
fn without_a_receipt_the_first_message_says_whether_it_recovered() {
    let broker = Broker::start();
    let answer = broker.server.publish("kept:a", 1);
    broker.server.publish("kept:a", 2);
    let epoch = answer["epoch"].as_str().expect("an epoch");
    let mut client = broker.connect();
    let headers =
        [("id", "1"), ("destination", "/topic/kept:a"), ("since-offset", "1"), ("since-epoch", epoch)];
    client.write("SUBSCRIBE", &headers, b"");
    let first = client.message();
    assert_eq!((first.text(), first.get("recovered")), ("2".to_owned(), "true"));
    broker.server.publish("kept:a", 3);
    assert_eq!(client.message().header("recovered"), None);
}

#[test]
fn a_large_publication_reaches_its_subscribers() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/topic/news", "auto");
    let body = vec![b'x'; 50_000];
    client.put("/topic/news", &body);
    assert!(client.message().body == body);
}

/// Subscribes durably as `ann` would.
fn durable(broker: &Broker, headers: &[(&str, &str)]) -> Client {
    let mut client = broker.open();
    client.connect("1.2", &[("client-id", "ann")]);
    client.subscribe_with("d", "/topic/news", headers);
    client
}

const DURABLE: &[(&str, &str)] =
    &[("durable", "true"), ("auto-delete", "false"), ("ack", "client-individual")];

#[test]
fn a_durable_subscription_keeps_what_comes_while_nobody_is_there() {
    let broker = Broker::start();
    let mut client = durable(&broker, DURABLE);
    client.put("/topic/news", "0");
    let message = client.message();
    assert_eq!((message.text(), message.get("destination")), ("0".to_owned(), "/topic/news"));
    client.ack(&message);
    client.disconnect();
    broker.server.publish("news", 1);
    broker.connect().put_with("/topic/news", &[("k", "v")], "2");
    let mut client = durable(&broker, DURABLE);
    let (one, two) = (client.message(), client.message());
    assert_eq!((one.text(), two.text(), two.get("k")), ("1".to_owned(), "2".to_owned(), "v"));
    assert_eq!(two.get("subscription"), "d");
    client.vanish();
    // What was not acked comes again.
    assert_eq!(durable(&broker, DURABLE).bodies(2), ["1", "2"]);
}

#[test]
fn a_durable_subscription_outlives_a_restart() {
    let broker = Broker::start();
    durable(&broker, DURABLE).disconnect();
    broker.server.publish("news", 1);
    let broker = broker.restart();
    broker.server.publish("news", 2);
    assert_eq!(durable(&broker, DURABLE).bodies(2), ["1", "2"]);
}

#[test]
fn unsubscribing_durably_ends_it() {
    let broker = Broker::start();
    let mut client = durable(&broker, DURABLE);
    client.ask("UNSUBSCRIBE", &[("id", "d"), ("durable", "true")], b"");
    client.disconnect();
    broker.server.publish("news", 1);
    let mut client = durable(&broker, DURABLE);
    client.quiet();
    broker.server.publish("news", 2);
    assert_eq!(client.message().text(), "2");
}

#[test]
fn unsubscribing_without_saying_durable_keeps_it() {
    let broker = Broker::start();
    let mut client = durable(&broker, DURABLE);
    client.ask("UNSUBSCRIBE", &[("id", "d")], b"");
    client.disconnect();
    broker.server.publish("news", 1);
    assert_eq!(durable(&broker, DURABLE).message().text(), "1");
}

#[test]
fn a_durable_subscription_is_shared_by_who_uses_its_name() {
    let broker = Broker::start();
    let mut one =
        durable(&broker, &[("durable", "true"), ("ack", "client-individual"), ("prefetch-count", "1")]);
    let mut two =
        durable(&broker, &[("durable", "true"), ("ack", "client-individual"), ("prefetch-count", "1")]);
    broker.server.publish("news", 1);
    broker.server.publish("news", 2);
    let mut bodies = [one.message().text(), two.message().text()];
    bodies.sort();
    assert_eq!(bodies, ["1", "2"]);
}

#[test]
fn other_brokers_words_for_durable_are_understood() {
    let broker = Broker::start();
    for words in [[("persistent", "true")], [("activemq.subscriptionName", "mine")]] {
        durable(&broker, &words).disconnect();
        broker.server.publish("news", 1);
        assert_eq!(durable(&broker, &words).message().text(), "1");
    }
}

#[test]
fn durable_subscriptions_of_two_clients_are_their_own() {
    let broker = Broker::start();
    durable(&broker, DURABLE).disconnect();
    let mut other = broker.open();
    other.connect("1.2", &[("client-id", "bob")]);
    other.subscribe_with("d", "/topic/news", DURABLE);
    broker.server.publish("news", 1);
    assert_eq!(other.message().text(), "1");
    assert_eq!(durable(&broker, DURABLE).message().text(), "1");
}

#[test]
fn text_that_is_no_json_reaches_everybody() {
    let broker = Broker::changed(|config| {
        let kept = config.namespaces.get_mut("kept").expect("it is there");
        (kept.allow_history_for_client, kept.allow_history_for_anonymous) = (true, true);
    });
    let mut reader = broker.connect();
    reader.subscribe("1", "/topic/kept:a", "auto");
    let mut sdk = broker.server.connect();
    let subscribed =
        sdk.ask_value(&json!({"id": 2, "subscribe": {"channel": "kept:a", "recoverable": true}}));
    let epoch = subscribed["subscribe"]["epoch"].clone();
    let mut events = Events::open(broker.server.address, "/sse?channels=kept:a", "");
    events.next();
    let mut client = broker.connect();
    let text = "hello \"you\"\nthere, ä";
    client.put("/topic/kept:a", text);
    assert_eq!(reader.message().text(), text);
    assert_eq!(sdk.value()["push"]["pub"]["data"], text);
    let event: serde_json::Value = serde_json::from_str(&events.next().data).expect("JSON");
    assert_eq!(event["data"], text);
    // It is the same for who comes back, and for who looks.
    let history = sdk.ask_value(&json!({"id": 3, "history": {"channel": "kept:a", "limit": 10}}));
    assert_eq!(history["history"]["publications"][0]["data"], text);
    let mut late = broker.server.connect();
    let ask = json!({"channel": "kept:a", "recover": true, "recoverable": true, "offset": 0, "epoch": epoch});
    let recovered = late.ask_value(&json!({"id": 2, "subscribe": ask}));
    assert_eq!(recovered["subscribe"]["publications"][0]["data"], text);
    // No string can be made of other bytes: who gets only JSON is told so.
    client.put("/topic/kept:a", b"\xff\xfe");
    assert_eq!(reader.message().body, b"\xff\xfe");
    let event: serde_json::Value = serde_json::from_str(&events.next().data).expect("JSON");
    assert_eq!(event["b64data"], "//4=");
    sdk.expect_close(longwire_protocol::CloseReason::InappropriateProtocol);
}
