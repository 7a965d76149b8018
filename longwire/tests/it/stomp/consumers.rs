//! Who is given what, and what ACK and NACK mean: the three modes, three versions, credit, and the way back.

use super::Broker;
use super::client::{Client, Frame};

/// Puts these bodies into a queue, in order.
#[track_caller]
fn fill(broker: &Broker, queue: &str, bodies: &[&str]) {
    let mut sender = broker.connect();
    for body in bodies {
        sender.put(queue, body);
    }
    sender.disconnect();
}

/// A 1.2 client that consumes `/queue/a` as subscription `1`.
#[track_caller]
fn consumer(broker: &Broker, ack: &str) -> Client {
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", ack);
    client
}

/// Expects that `/queue/a` holds these, in this order, and takes them.
#[track_caller]
fn expect_left(broker: &Broker, bodies: &[&str]) -> Vec<Frame> {
    let mut reader = consumer(broker, "auto");
    let found: Vec<Frame> = bodies.iter().map(|_| reader.message()).collect();
    assert_eq!(found.iter().map(Frame::text).collect::<Vec<_>>(), bodies);
    reader.quiet();
    reader.disconnect();
    found
}

#[test]
fn auto_takes_a_message_by_delivering_it() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = consumer(&broker, "auto");
    assert_eq!(client.bodies(2), ["1", "2"]);
    client.quiet();
    client.disconnect();
    expect_left(&broker, &[]);
}

#[test]
fn without_a_mode_it_is_auto() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    let mut client = broker.connect();
    client.subscribe_with("1", "/queue/a", &[]);
    client.message();
    client.disconnect();
    expect_left(&broker, &[]);
}

#[test]
fn acks_in_auto_mode_are_ignored() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    for version in ["1.0", "1.1"] {
        let mut client = broker.speak(version);
        client.put("/queue/b", "x");
        client.subscribe("1", "/queue/b", "auto");
        let message = client.message();
        client.ack(&message);
        client.put("/queue/b", "y");
        assert_eq!(client.message().text(), "y");
    }
}

#[test]
fn what_was_not_acked_comes_back_in_order_with_its_id() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2", "3"]);
    for mode in ["client", "client-individual"] {
        let mut client = consumer(&broker, mode);
        let ids: Vec<String> = (0..3).map(|_| client.message().get("message-id").to_owned()).collect();
        client.vanish();
        let mut other = consumer(&broker, "client");
        for id in &ids {
            let message = other.message();
            assert_eq!((message.get("message-id"), message.get("redelivered")), (id.as_str(), "true"));
        }
        other.disconnect();
    }
}

#[test]
fn a_first_delivery_says_so() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    assert_eq!(consumer(&broker, "client").message().get("redelivered"), "false");
}

#[test]
fn what_was_acked_does_not_come_back() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2", "3"]);
    let mut client = consumer(&broker, "client-individual");
    let messages: Vec<_> = (0..3).map(|_| client.message()).collect();
    client.ack(&messages[1]);
    client.vanish();
    expect_left(&broker, &["1", "3"]);
}

#[test]
fn each_message_of_1_2_has_a_token_of_its_own() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = consumer(&broker, "client-individual");
    let (one, two) = (client.message(), client.message());
    assert_ne!(one.get("ack"), two.get("ack"));
    assert!(!one.get("ack").contains([':', '\\']), "tokens spare clients that do not escape");
}

#[test]
fn a_redelivery_has_another_token() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    let mut client = consumer(&broker, "client-individual");
    let first = client.message();
    client.nack(&first);
    let second = client.message();
    assert_ne!(first.get("ack"), second.get("ack"));
    assert_eq!(first.get("message-id"), second.get("message-id"));
}

#[test]
fn client_mode_acks_all_up_to_the_one() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        fill(&broker, "/queue/a", &["1", "2", "3", "4"]);
        let mut client = broker.speak(version);
        client.subscribe("1", "/queue/a", "client");
        let messages: Vec<_> = (0..4).map(|_| client.message()).collect();
        client.ack(&messages[2]);
        client.vanish();
        expect_left(&broker, &["4"]);
    }
}

#[test]
fn client_mode_acks_within_its_subscription_alone() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["a1", "a2"]);
    fill(&broker, "/queue/b", &["b1", "b2"]);
    let mut client = broker.connect();
    client.subscribe("a", "/queue/a", "client");
    let _first = [client.message(), client.message()];
    client.subscribe("b", "/queue/b", "client");
    let second = [client.message(), client.message()];
    assert_eq!(second[1].get("subscription"), "b");
    client.ack(&second[1]);
    client.vanish();
    expect_left(&broker, &["a1", "a2"]);
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/b", "auto");
    reader.quiet();
}

#[test]
fn client_individual_acks_exactly_one() {
    let broker = Broker::start();
    for version in ["1.1", "1.2"] {
        fill(&broker, "/queue/a", &["1", "2", "3"]);
        let mut client = broker.speak(version);
        client.subscribe("1", "/queue/a", "client-individual");
        let messages: Vec<_> = (0..3).map(|_| client.message()).collect();
        client.ack(&messages[2]);
        client.vanish();
        expect_left(&broker, &["1", "2"]);
    }
}

#[test]
fn an_ack_of_1_1_may_name_another_subscription_or_none() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = broker.speak("1.1");
    client.subscribe("1", "/queue/a", "client-individual");
    let (one, two) = (client.message(), client.message());
    client.ask("ACK", &[("message-id", one.get("message-id")), ("subscription", "other")], b"");
    client.ask("ACK", &[("message-id", two.get("message-id"))], b"");
    client.vanish();
    expect_left(&broker, &[]);
}

#[test]
fn an_ack_of_1_2_may_have_the_message_id() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    let mut client = consumer(&broker, "client-individual");
    let message = client.message();
    client.ask("ACK", &[("id", message.get("message-id"))], b"");
    client.vanish();
    expect_left(&broker, &[]);
}

#[test]
fn who_acks_although_nothing_waits_for_it_is_forgiven() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/b", "auto");
    client.ask("ACK", &[("id", "4711")], b"");
    client.put("/queue/a", "x");
}

#[test]
fn a_second_ack_of_one_delivery_is_refused() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    let mut client = consumer(&broker, "client-individual");
    let message = client.message();
    client.ack(&message);
    client.write("ACK", &[("id", message.get("ack")), ("receipt", "two")], b"");
    assert_eq!(client.error().get("receipt-id"), "two");
}

#[test]
fn nobody_acks_what_another_connection_was_given() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1"]);
    let mut client = consumer(&broker, "client-individual");
    let message = client.message();
    for id in ["ack", "message-id"] {
        let mut other = broker.connect();
        other.subscribe("1", "/queue/b", "client");
        other.write("ACK", &[("id", message.get(id))], b"");
        other.error();
    }
    client.ack(&message);
}

#[test]
fn a_nack_gives_a_message_back_to_its_place() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2", "3"]);
    let mut client = broker.connect();
    client.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), ("prefetch-count", "1")]);
    let one = client.message();
    client.nack(&one);
    let again = client.message();
    assert_eq!((again.text(), again.get("redelivered")), ("1".to_owned(), "true"));
    client.ack(&again);
    let two = client.message();
    assert_eq!((two.text(), two.get("redelivered")), ("2".to_owned(), "false"));
}

#[test]
fn a_nack_of_client_mode_is_cumulative() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2", "3"]);
    let mut client = consumer(&broker, "client");
    let messages: Vec<_> = (0..3).map(|_| client.message()).collect();
    client.nack(&messages[1]);
    let again = [client.message(), client.message()];
    assert_eq!([again[0].text(), again[1].text()], ["1", "2"]);
    assert!(again.iter().all(|message| message.get("redelivered") == "true"));
    client.quiet();
}

#[test]
fn a_nack_of_1_1_gives_back_the_one_it_names() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = broker.speak("1.1");
    client.subscribe("1", "/queue/a", "client-individual");
    let (_one, two) = (client.message(), client.message());
    client.nack(&two);
    let again = client.message();
    assert_eq!((again.text(), again.get("redelivered")), ("2".to_owned(), "true"));
}

#[test]
fn after_a_nack_others_are_preferred() {
    let broker = Broker::start();
    let mut one = consumer(&broker, "client-individual");
    fill(&broker, "/queue/a", &["1"]);
    let message = one.message();
    let mut two = consumer(&broker, "client-individual");
    one.nack(&message);
    assert_eq!(two.message().get("message-id"), message.get("message-id"));
    one.quiet();
}

#[test]
fn a_nack_that_wants_no_return_goes_to_the_dead_letters() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = consumer(&broker, "client-individual");
    let (one, _two) = (client.message(), client.message());
    client.answer("NACK", &one, &[("requeue", "false")]);
    client.subscribe("dead", "/queue/dead.a", "auto");
    let dead = client.message();
    assert_eq!((dead.get("subscription"), dead.text()), ("dead", "1".to_owned()));
    assert_eq!(dead.get("x-death-queue"), "a");
    assert!(!dead.get("x-death-reason").is_empty());
}

#[test]
fn a_message_that_fails_too_often_goes_to_the_dead_letters() {
    let broker = Broker::with("max_deliveries = 3\n");
    let mut sender = broker.connect();
    sender.put_with("/queue/a", &[("x", "y")], "poison");
    fill(&broker, "/queue/a", &["good"]);
    let mut client = broker.connect();
    client.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), ("prefetch-count", "1")]);
    for _ in 0..3 {
        let message = client.message();
        assert_eq!(message.text(), "poison");
        client.nack(&message);
    }
    assert_eq!(client.message().text(), "good");
    sender.subscribe("dead", "/queue/dead.a", "auto");
    let dead = sender.message();
    assert_eq!((dead.text(), dead.get("x"), dead.get("x-death-queue")), ("poison".to_owned(), "y", "a"));
    assert_eq!(dead.get("x-death-count"), "3");
}

#[test]
fn deliveries_that_break_with_their_connection_count_too() {
    let broker = Broker::with("max_deliveries = 2\n");
    fill(&broker, "/queue/a", &["poison"]);
    for _ in 0..2 {
        let mut client = consumer(&broker, "client");
        client.message();
        client.vanish();
    }
    let mut reader = broker.connect();
    reader.subscribe("dead", "/queue/dead.a", "auto");
    assert_eq!(reader.message().text(), "poison");
}

#[test]
fn no_more_than_the_prefetch_is_under_way() {
    let broker = Broker::start();
    for name in ["prefetch-count", "activemq.prefetchSize"] {
        fill(&broker, "/queue/a", &["1", "2", "3", "4"]);
        let mut client = broker.connect();
        client.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), (name, "2")]);
        let (one, two) = (client.message(), client.message());
        client.quiet();
        client.ack(&one);
        let three = client.message();
        assert_eq!(three.text(), "3");
        client.quiet();
        client.ack(&two);
        client.ack(&three);
        let four = client.message();
        client.ack(&four);
        client.disconnect();
    }
}

#[test]
fn a_hundred_are_under_way_where_nobody_says_how_many() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..101 {
        client.put_with("/queue/a", &[("persistent", "false")], n.to_string());
    }
    client.subscribe("1", "/queue/a", "client");
    let mut last = client.message();
    for _ in 1..100 {
        last = client.message();
    }
    client.quiet();
    client.ack(&last);
    assert_eq!(client.message().text(), "100");
}

#[test]
fn each_message_goes_to_one_consumer() {
    let broker = Broker::start();
    let mut consumers: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = broker.connect();
            client.subscribe_with("1", "/queue/a", &[("ack", "client-individual"), ("prefetch-count", "5")]);
            client
        })
        .collect();
    let bodies: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    fill(&broker, "/queue/a", &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    let mut seen: Vec<String> = consumers.iter_mut().flat_map(|client| client.bodies(5)).collect();
    seen.sort_by_key(|body| body.parse::<u32>().expect("a number"));
    assert_eq!(seen, bodies);
    consumers.iter_mut().for_each(Client::quiet);
}

#[test]
fn two_subscriptions_of_one_connection_compete() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for id in ["1", "2"] {
        client.subscribe_with(id, "/queue/a", &[("ack", "client-individual"), ("prefetch-count", "1")]);
    }
    fill(&broker, "/queue/a", &["x", "y", "z"]);
    let (one, two) = (client.message(), client.message());
    let mut ids = [one.get("subscription"), two.get("subscription")];
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2"]);
    client.quiet();
    client.ack(&one);
    assert_eq!(client.message().get("subscription"), one.get("subscription"));
}

#[test]
fn after_unsubscribe_nothing_more_comes() {
    let broker = Broker::start();
    let mut client = consumer(&broker, "auto");
    client.ask("UNSUBSCRIBE", &[("id", "1")], b"");
    client.put("/queue/a", "1");
    client.quiet();
    client.disconnect();
    expect_left(&broker, &["1"]);
}

#[test]
fn what_was_given_before_unsubscribe_can_be_acked_after_it() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = consumer(&broker, "client-individual");
    let (one, _two) = (client.message(), client.message());
    client.ask("UNSUBSCRIBE", &[("id", "1")], b"");
    client.ack(&one);
    client.disconnect();
    expect_left(&broker, &["2"]);
}

#[test]
fn what_was_not_acked_comes_back_after_disconnect() {
    let broker = Broker::start();
    fill(&broker, "/queue/a", &["1", "2"]);
    let mut client = consumer(&broker, "client-individual");
    let (one, _two) = (client.message(), client.message());
    client.ack(&one);
    client.disconnect();
    let left = expect_left(&broker, &["2"]);
    assert_eq!(left[0].get("redelivered"), "true");
}

#[test]
fn a_slow_auto_consumer_does_not_swallow_the_queue() {
    let broker = Broker::start();
    let mut sender = broker.connect();
    let body = vec![b'x'; 100_000];
    for _ in 0..200 {
        sender.put_with("/queue/a", &[("persistent", "false")], &body);
    }
    // It reads nothing, so only what its socket's buffers and the credit hold may be taken for it.
    let mut slow = broker.connect();
    slow.write("SUBSCRIBE", &[("id", "1"), ("destination", "/queue/a")], b"");
    slow.put("/topic/mark", "x");
    let mut other = consumer(&broker, "client");
    assert!(other.message().body == body);
    slow.vanish();
}

#[test]
fn a_1_0_message_names_its_subscription_only_if_it_has_an_id() {
    let broker = Broker::start();
    let mut client = broker.speak("1.0");
    client.put("/queue/a", "x");
    client.ask("SUBSCRIBE", &[("destination", "/queue/a")], b"");
    assert_eq!(client.message().header("subscription"), None);
    client.put("/queue/b", "x");
    client.subscribe("mine", "/queue/b", "auto");
    assert_eq!(client.message().get("subscription"), "mine");
}
