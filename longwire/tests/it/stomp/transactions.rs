//! Transactions: all of it or nothing, in order, and nothing of it before COMMIT.

use super::Broker;
use super::client::Client;

fn begin(client: &mut Client, name: &str) {
    client.ask("BEGIN", &[("transaction", name)], b"");
}

fn commit(client: &mut Client, name: &str) {
    client.ask("COMMIT", &[("transaction", name)], b"");
}

fn abort(client: &mut Client, name: &str) {
    client.ask("ABORT", &[("transaction", name)], b"");
}

/// A client that reads `/queue/a`.
fn reader(broker: &Broker) -> Client {
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    reader
}

#[test]
fn nothing_arrives_before_commit_and_then_all_in_order() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let mut reader = reader(&broker);
        let mut client = broker.speak(version);
        begin(&mut client, "t");
        for n in 0..5 {
            client.put_with("/queue/a", &[("transaction", "t")], n.to_string());
        }
        reader.quiet();
        commit(&mut client, "t");
        assert_eq!(reader.bodies(5), ["0", "1", "2", "3", "4"]);
        reader.disconnect();
    }
}

#[test]
fn a_message_does_not_name_the_transaction_it_came_in() {
    let broker = Broker::start();
    let mut reader = reader(&broker);
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "x");
    commit(&mut client, "t");
    let message = reader.message();
    assert_eq!((message.header("transaction"), message.header("receipt")), (None, None));
}

#[test]
fn abort_drops_what_was_sent() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    abort(&mut client, "t");
    client.put("/queue/a", "kept");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "kept");
    client.quiet();
}

#[test]
fn disconnect_drops_what_was_sent() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    client.disconnect();
    reader(&broker).quiet();
}

#[test]
fn a_connection_that_breaks_drops_what_was_sent() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    client.vanish();
    let mut reader = reader(&broker);
    reader.put("/queue/a", "kept");
    assert_eq!(reader.message().text(), "kept");
    reader.quiet();
}

#[test]
fn what_is_outside_a_transaction_does_not_wait_for_it() {
    let broker = Broker::start();
    let mut reader = reader(&broker);
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "later");
    client.put("/queue/a", "at once");
    assert_eq!(reader.message().text(), "at once");
    commit(&mut client, "t");
    assert_eq!(reader.message().text(), "later");
}

#[test]
fn transactions_beside_each_other_are_their_own() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for name in ["one", "two", "three"] {
        begin(&mut client, name);
    }
    for (name, body) in [("one", "1"), ("two", "2"), ("three", "3"), ("one", "1b")] {
        client.put_with("/queue/a", &[("transaction", name)], body);
    }
    commit(&mut client, "three");
    abort(&mut client, "two");
    commit(&mut client, "one");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(3), ["3", "1", "1b"]);
    client.quiet();
}

#[test]
fn transactions_of_two_connections_may_have_one_name() {
    let broker = Broker::start();
    let (mut one, mut two) = (broker.connect(), broker.connect());
    begin(&mut one, "t");
    begin(&mut two, "t");
    one.put_with("/queue/a", &[("transaction", "t")], "1");
    two.put_with("/queue/a", &[("transaction", "t")], "2");
    abort(&mut one, "t");
    commit(&mut two, "t");
    one.subscribe("1", "/queue/a", "auto");
    assert_eq!(one.message().text(), "2");
    one.quiet();
}

#[test]
fn a_name_is_free_again_after_commit_and_abort() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..4 {
        begin(&mut client, "t");
        client.put_with("/queue/a", &[("transaction", "t")], n.to_string());
        if n % 2 == 0 { commit(&mut client, "t") } else { abort(&mut client, "t") }
    }
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(2), ["0", "2"]);
    client.quiet();
}

#[test]
fn a_second_begin_of_an_open_transaction_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    client.write("BEGIN", &[("transaction", "t"), ("receipt", "two")], b"");
    assert_eq!(client.error().get("receipt-id"), "two");
    reader(&broker).quiet();
}

#[test]
fn an_ack_counts_from_commit_on() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..2 {
        client.put("/queue/a", n.to_string());
    }
    client.subscribe("1", "/queue/a", "client-individual");
    let (one, _two) = (client.message(), client.message());
    begin(&mut client, "t");
    client.answer("ACK", &one, &[("transaction", "t")]);
    commit(&mut client, "t");
    client.vanish();
    assert_eq!(reader(&broker).message().text(), "1");
}

#[test]
fn an_ack_that_was_never_committed_does_not_count() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client-individual");
    let message = client.message();
    begin(&mut client, "t");
    client.answer("ACK", &message, &[("transaction", "t")]);
    client.vanish();
    let again = reader(&broker).message();
    assert_eq!((again.text(), again.get("redelivered")), ("x".to_owned(), "true"));
}

#[test]
fn after_abort_a_message_can_be_acked_again() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client-individual");
    let message = client.message();
    begin(&mut client, "t");
    client.answer("ACK", &message, &[("transaction", "t")]);
    abort(&mut client, "t");
    client.ack(&message);
    client.vanish();
    reader(&broker).quiet();
}

#[test]
fn a_nack_counts_from_commit_on() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client-individual");
    let message = client.message();
    begin(&mut client, "t");
    client.answer("NACK", &message, &[("transaction", "t")]);
    client.quiet();
    commit(&mut client, "t");
    assert_eq!(client.message().get("redelivered"), "true");
}

#[test]
fn taking_from_one_queue_and_putting_into_another_is_one_deed() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "work");
    client.subscribe("1", "/queue/a", "client-individual");
    let message = client.message();
    begin(&mut client, "t");
    client.answer("ACK", &message, &[("transaction", "t")]);
    client.put_with("/queue/b", &[("transaction", "t")], "result");
    commit(&mut client, "t");
    client.disconnect();
    let broker = broker.restart();
    let mut reader = reader(&broker);
    reader.quiet();
    reader.subscribe("b", "/queue/b", "auto");
    assert_eq!(reader.message().text(), "result");
}

#[test]
fn a_transaction_with_a_deed_that_fails_does_nothing() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    client.write("ACK", &[("id", "d-4711"), ("transaction", "t")], b"");
    client.write("COMMIT", &[("transaction", "t"), ("receipt", "c")], b"");
    client.error();
    reader(&broker).quiet();
}

#[test]
fn a_transaction_may_publish_to_topics() {
    let broker = Broker::start();
    let mut reader = broker.connect();
    reader.subscribe("t", "/topic/a", "auto");
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/topic/a", &[("transaction", "t")], "1");
    client.put_with("/topic/a", &[("transaction", "t")], "2");
    client.put("/topic/a", "0");
    assert_eq!(reader.message().text(), "0");
    commit(&mut client, "t");
    assert_eq!(reader.bodies(2), ["1", "2"]);
    begin(&mut client, "t");
    client.put_with("/topic/a", &[("transaction", "t")], "lost");
    abort(&mut client, "t");
    client.put("/topic/a", "3");
    assert_eq!(reader.message().text(), "3");
}

#[test]
fn a_committed_transaction_outlives_a_restart() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    for n in 0..100 {
        client.put_with("/queue/a", &[("transaction", "t")], n.to_string());
    }
    commit(&mut client, "t");
    begin(&mut client, "u");
    client.put_with("/queue/a", &[("transaction", "u")], "lost");
    let broker = broker.restart();
    let mut reader = reader(&broker);
    assert_eq!(reader.bodies(100), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    reader.quiet();
}

#[test]
fn there_may_not_be_any_number_of_transactions() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..64 {
        begin(&mut client, &n.to_string());
    }
    client.write("BEGIN", &[("transaction", "one more")], b"");
    client.error();
}

#[test]
fn a_transaction_may_not_have_any_number_of_deeds() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    let one = client.encoded("SEND", &[("destination", "/queue/a"), ("transaction", "t")], b"x");
    client.raw(one.repeat(5000));
    client.error_then();
    reader(&broker).quiet();
}

#[test]
fn a_transaction_may_not_hold_any_number_of_bytes() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    let body = vec![b'x'; 15 * 1024 * 1024];
    let one = client.encoded("SEND", &[("destination", "/queue/a"), ("transaction", "t")], &body);
    for _ in 0..5 {
        client.raw(&one);
    }
    client.error_then();
}

#[test]
fn a_transaction_that_a_queue_refuses_publishes_nothing() {
    let broker = Broker::with("[queues.full]\nmax_messages = 1\nallow_send_for_anonymous = true\n");
    let mut reader = broker.connect();
    reader.subscribe("t", "/topic/a", "auto");
    let mut client = broker.connect();
    client.put("/queue/full", "it is full");
    begin(&mut client, "t");
    client.put_with("/topic/a", &[("transaction", "t")], "lost");
    client.put_with("/queue/a", &[("transaction", "t")], "lost");
    client.put_with("/queue/full", &[("transaction", "t")], "one too many");
    client.put_with("/topic/a", &[("transaction", "t")], "lost");
    client.write("COMMIT", &[("transaction", "t"), ("receipt", "c")], b"");
    client.write("SEND", &[("destination", "/topic/a")], b"lost, too");
    let error = client.error();
    assert_eq!(error.get("receipt-id"), "c");
    assert!(error.get("message").contains("full"), "{error:?}");
    self::reader(&broker).quiet();
    broker.connect().put("/topic/a", "next");
    assert_eq!(reader.message().text(), "next");
}

#[test]
fn what_a_transaction_publishes_comes_when_it_is_safe_and_before_what_follows_it() {
    let broker = Broker::start();
    let mut reader = broker.connect();
    reader.subscribe("t", "/topic/a", "auto");
    let mut client = broker.connect();
    let mut bytes = Vec::new();
    for n in 0..20 {
        let name = n.to_string();
        let transaction = ("transaction", &*name);
        let receipt = format!("c-{n}");
        bytes.extend(client.encoded("BEGIN", &[transaction], b""));
        for destination in ["/topic/a", "/queue/a", "/topic/a"] {
            bytes.extend(client.encoded("SEND", &[("destination", destination), transaction], b"in it"));
        }
        bytes.extend(client.encoded("COMMIT", &[transaction, ("receipt", &receipt)], b""));
        bytes.extend(client.encoded("SEND", &[("destination", "/topic/a")], b"behind it"));
    }
    client.raw(bytes);
    for n in 0..20 {
        client.receipt(&format!("c-{n}"));
        assert_eq!(reader.bodies(3), ["in it", "in it", "behind it"], "{n}");
    }
    // It need not wait to be told: whatever it said before it left is done.
    begin(&mut client, "u");
    for destination in ["/topic/a", "/queue/a"] {
        client.put_with(destination, &[("transaction", "u")], "last");
    }
    client.write("COMMIT", &[("transaction", "u")], b"");
    client.disconnect();
    assert_eq!(reader.message().text(), "last");
}

#[test]
fn a_transaction_that_may_not_publish_says_what_it_did_before() {
    let broker = Broker::start();
    let mut client = broker.connect();
    begin(&mut client, "t");
    client.put_with("/queue/a", &[("transaction", "t")], "done");
    client.put_with("/topic/closed:a", &[("transaction", "t")], "refused");
    client.write("COMMIT", &[("transaction", "t"), ("receipt", "c")], b"");
    let error = client.error();
    assert_eq!(error.get("receipt-id"), "c");
    assert!(error.get("message").ends_with("what the transaction did before that is done"), "{error:?}");
    assert_eq!(reader(&broker).message().text(), "done");
}
