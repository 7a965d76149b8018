//! What a message or a consumer may ask for: priority, delay, expiry, selectors, exclusive consumers, browsing, replies.

use super::Broker;
use super::client::Client;
use std::time::{Duration, Instant};

#[test]
fn what_is_more_urgent_comes_first_and_in_order() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for (priority, body) in [("4", "c"), ("0", "e"), ("9", "a"), ("4", "d"), ("9", "b"), ("0", "f")] {
        client.put_with("/queue/a", &[("priority", priority)], body);
    }
    client.subscribe("1", "/queue/a", "auto");
    let messages: Vec<_> = (0..6).map(|_| client.message()).collect();
    assert_eq!(messages.iter().map(super::client::Frame::text).collect::<String>(), "abcdef");
    assert_eq!(messages[0].get("priority"), "9");
}

#[test]
fn without_a_priority_it_is_4() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for (headers, body) in [(&[("priority", "3")][..], "c"), (&[], "b"), (&[("priority", "5")], "a")] {
        client.put_with("/queue/a", headers, body);
    }
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(3), ["a", "b", "c"]);
}

#[test]
fn a_nacked_message_keeps_its_priority() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "usual");
    client.put_with("/queue/a", &[("priority", "8")], "urgent");
    client.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), ("prefetch-count", "1")]);
    let urgent = client.message();
    client.nack(&urgent);
    assert_eq!(client.message().text(), "urgent");
}

#[test]
fn what_has_expired_is_not_delivered() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put_with("/queue/a", &[("expires", "1")], "of 1970");
    client.put_with("/queue/a", &[("expires", "0")], "never expires");
    client.put_with("/queue/a", &[("expires", "32503680000000")], "of 3000");
    client.put_with("/queue/a", &[("expiration", "60000")], "a minute");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(3), ["never expires", "of 3000", "a minute"]);
    client.quiet();
}

#[test]
fn what_expires_while_it_waits_is_not_delivered() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put_with("/queue/a", &[("expiration", "50")], "short");
    client.put("/queue/a", "long");
    std::thread::sleep(Duration::from_millis(120));
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "long");
    client.quiet();
}

#[test]
fn a_delayed_message_waits() {
    let broker = Broker::start();
    for name in ["AMQ_SCHEDULED_DELAY", "x-delay"] {
        let mut client = broker.connect();
        client.subscribe("1", "/queue/a", "auto");
        let began = Instant::now();
        client.put_with("/queue/a", &[(name, "400")], "later");
        client.put("/queue/a", "at once");
        assert_eq!(client.message().text(), "at once");
        assert_eq!(client.message().text(), "later");
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(390) && took < Duration::from_secs(5), "{name}: {took:?}");
        client.disconnect();
    }
}

#[test]
fn a_delayed_message_outlives_a_restart() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let began = Instant::now();
    client.put_with("/queue/a", &[("x-delay", "1500")], "later");
    let broker = broker.restart();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "later");
    assert!(began.elapsed() >= Duration::from_millis(1450), "{:?}", began.elapsed());
}

/// Sends an item with a colour and a weight.
fn item(client: &mut Client, colour: &str, weight: &str) {
    client.put_with("/queue/a", &[("colour", colour), ("weight", weight)], format!("{colour} {weight}"));
}

#[test]
fn a_selector_leaves_to_others_what_it_does_not_mean() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for (colour, weight) in [("red", "1"), ("blue", "2"), ("red", "30"), ("green", "4")] {
        item(&mut client, colour, weight);
    }
    let mut reds = broker.connect();
    reds.subscribe_with("1", "/queue/a", &[("selector", "colour = 'red'")]);
    assert_eq!(reds.bodies(2), ["red 1", "red 30"]);
    reds.quiet();
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(2), ["blue 2", "green 4"]);
}

macro_rules! selectors {
    ($($name:ident: $selector:literal => $expected:expr;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.connect();
            for (colour, weight) in [("red", "1"), ("blue", "2"), ("red", "30"), ("green", "4"), ("it's", "x")] {
                item(&mut client, colour, weight);
            }
            client.put("/queue/a", "bare");
            client.subscribe_with("1", "/queue/a", &[("selector", $selector)]);
            let expected: &[&str] = &$expected;
            assert_eq!(client.bodies(expected.len()), expected);
            client.quiet();
        }
    )+};
}

selectors! {
    a_selector_compares_numbers_as_numbers: "weight > 3" => ["red 30", "green 4"];
    a_selector_knows_and_or_not: "colour = 'red' AND NOT weight = 1 OR colour = 'blue'" => ["blue 2", "red 30"];
    a_selector_knows_in: "colour IN ('blue', 'green')" => ["blue 2", "green 4"];
    a_selector_knows_between: "weight BETWEEN 2 AND 4" => ["blue 2", "green 4"];
    a_selector_knows_like: "colour LIKE '%e_'" => ["red 1", "red 30", "green 4"];
    a_selector_knows_null: "colour IS NULL" => ["bare"];
    a_selector_doubles_a_quote: "colour = 'it''s'" => ["it's x"];
    what_is_not_there_is_neither_equal_nor_different: "shape = 'x' OR shape <> 'x'" => [];
    a_selector_calculates: "weight * 2 = 8" => ["green 4"];
}

#[test]
fn an_exclusive_consumer_has_the_queue_for_itself() {
    let broker = Broker::start();
    for name in ["exclusive", "activemq.exclusive"] {
        let mut first = broker.connect();
        first.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), (name, "true")]);
        let mut second = broker.connect();
        second.subscribe("1", "/queue/a", "client-individual");
        for n in 0..4 {
            second.put("/queue/a", n.to_string());
        }
        let one = first.message();
        first.ack(&one);
        assert_eq!(first.bodies(3), ["1", "2", "3"]);
        second.quiet();
        first.vanish();
        for _ in 0..3 {
            let message = second.message();
            second.ack(&message);
        }
        second.disconnect();
    }
}

#[test]
fn who_browses_sees_all_and_takes_nothing() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..3 {
        client.put("/queue/a", n.to_string());
    }
    let mut browser = broker.connect();
    browser.subscribe_with("1", "/queue/a", &[("browser", "true")]);
    assert_eq!(browser.bodies(3), ["0", "1", "2"]);
    let end = browser.message();
    assert_eq!((end.get("browser"), end.get("subscription")), ("end", "1"));
    browser.disconnect();
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(3), ["0", "1", "2"]);
}

#[test]
fn who_browses_with_a_selector_sees_what_it_means() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for (colour, weight) in [("red", "1"), ("blue", "2")] {
        item(&mut client, colour, weight);
    }
    client.subscribe_with("1", "/queue/a", &[("browser", "true"), ("selector", "colour = 'blue'")]);
    assert_eq!(client.message().text(), "blue 2");
    assert_eq!(client.message().get("browser"), "end");
}

#[test]
fn a_reply_comes_to_the_temporary_queue_that_was_named() {
    let broker = Broker::start();
    let mut server = broker.connect();
    server.subscribe("s", "/queue/rpc", "auto");
    // The second is subscribed by itself when it is first named.
    for is_explicit in [true, false] {
        let mut client = broker.connect();
        if is_explicit {
            client.subscribe("r", "/temp-queue/replies", "auto");
        }
        let headers = [("reply-to", "/temp-queue/replies"), ("correlation-id", "42")];
        client.put_with("/queue/rpc", &headers, "question");
        let request = server.message();
        assert_ne!(request.get("reply-to"), "/temp-queue/replies");
        let correlation = request.get("correlation-id").to_owned();
        server.put_with(request.get("reply-to"), &[("correlation-id", &correlation)], "answer");
        let reply = client.message();
        assert_eq!((reply.text(), reply.get("correlation-id")), ("answer".to_owned(), "42"));
        if is_explicit {
            assert_eq!(reply.get("subscription"), "r");
        }
        assert_eq!(reply.get("destination"), "/temp-queue/replies");
    }
}

#[test]
fn temporary_queues_of_one_name_are_their_owners() {
    let broker = Broker::start();
    let mut server = broker.connect();
    server.subscribe("s", "/queue/rpc", "auto");
    let (mut one, mut two) = (broker.connect(), broker.connect());
    for (client, body) in [(&mut one, "1"), (&mut two, "2")] {
        client.subscribe("r", "/temp-queue/x", "auto");
        client.put_with("/queue/rpc", &[("reply-to", "/temp-queue/x")], body);
        let request = server.message();
        server.put(request.get("reply-to"), format!("for {body}"));
    }
    assert_eq!(one.message().text(), "for 1");
    assert_eq!(two.message().text(), "for 2");
    one.quiet();
}

#[test]
fn nobody_reads_the_temporary_queue_of_another() {
    let broker = Broker::start();
    let mut server = broker.connect();
    server.subscribe("s", "/queue/rpc", "auto");
    let mut client = broker.connect();
    client.put_with("/queue/rpc", &[("reply-to", "/temp-queue/x")], "question");
    let reply_to = server.message().get("reply-to").to_owned();
    let mut thief = broker.connect();
    thief.write("SUBSCRIBE", &[("id", "1"), ("destination", &reply_to)], b"");
    thief.error();
}

#[test]
fn a_reply_to_that_is_no_temporary_queue_is_left_as_it_is() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put_with("/queue/a", &[("reply-to", "/queue/answers")], "x");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().get("reply-to"), "/queue/answers");
}
