//! Receipts: one for every frame that asks, in the order of the frames, once the frame is done.

use super::Broker;
use super::client::Client;

macro_rules! receipts {
    ($($name:ident: $version:literal $before:expr, $frame:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.speak($version);
            for frame in $before as [&str; _] {
                client.raw(frame);
            }
            client.raw($frame);
            client.receipt("r-1");
        }
    )+};
}

receipts! {
    a_send_to_a_queue_is_receipted: "1.2" [], "SEND\ndestination:/queue/a\nreceipt:r-1\n\nx\0";
    a_send_that_need_not_last_is_receipted:
        "1.2" [], "SEND\ndestination:/queue/a\npersistent:false\nreceipt:r-1\n\nx\0";
    a_send_to_a_topic_is_receipted: "1.2" [], "SEND\ndestination:/topic/a\nreceipt:r-1\n\nx\0";
    a_subscribe_to_a_queue_is_receipted: "1.2" [], "SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:r-1\n\n\0";
    a_subscribe_to_a_topic_is_receipted: "1.2" [], "SUBSCRIBE\nid:1\ndestination:/topic/a\nreceipt:r-1\n\n\0";
    a_second_subscribe_to_a_topic_is_receipted: "1.2" ["SUBSCRIBE\nid:0\ndestination:/topic/a\n\n\0"],
        "SUBSCRIBE\nid:1\ndestination:/topic/a\nreceipt:r-1\n\n\0";
    an_unsubscribe_of_a_queue_is_receipted: "1.2" ["SUBSCRIBE\nid:1\ndestination:/queue/a\n\n\0"],
        "UNSUBSCRIBE\nid:1\nreceipt:r-1\n\n\0";
    an_unsubscribe_of_a_topic_is_receipted: "1.2" ["SUBSCRIBE\nid:1\ndestination:/topic/a\n\n\0"],
        "UNSUBSCRIBE\nid:1\nreceipt:r-1\n\n\0";
    a_begin_is_receipted: "1.2" [], "BEGIN\ntransaction:t\nreceipt:r-1\n\n\0";
    a_send_in_a_transaction_is_receipted: "1.2" ["BEGIN\ntransaction:t\n\n\0"],
        "SEND\ndestination:/queue/a\ntransaction:t\nreceipt:r-1\n\nx\0";
    an_empty_commit_is_receipted: "1.2" ["BEGIN\ntransaction:t\n\n\0"],
        "COMMIT\ntransaction:t\nreceipt:r-1\n\n\0";
    a_commit_of_queue_and_topic_is_receipted: "1.2" [
        "BEGIN\ntransaction:t\n\n\0",
        "SEND\ndestination:/topic/a\ntransaction:t\n\nx\0",
        "SEND\ndestination:/queue/a\ntransaction:t\n\nx\0"
    ], "COMMIT\ntransaction:t\nreceipt:r-1\n\n\0";
    an_abort_is_receipted: "1.2" ["BEGIN\ntransaction:t\n\n\0"],
        "ABORT\ntransaction:t\nreceipt:r-1\n\n\0";
    a_send_of_1_0_is_receipted: "1.0" [], "SEND\ndestination:/queue/a\nreceipt:r-1\n\nx\0";
    a_subscribe_of_1_0_without_id_is_receipted: "1.0" [], "SUBSCRIBE\ndestination:/queue/a\nreceipt:r-1\n\n\0";
    a_subscribe_of_1_2_without_id_is_receipted: "1.2" [], "SUBSCRIBE\ndestination:/queue/a\nreceipt:r-1\n\n\0";
    an_unsubscribe_of_1_0_by_destination_is_receipted: "1.0" ["SUBSCRIBE\ndestination:/queue/a\n\n\0"],
        "UNSUBSCRIBE\ndestination:/queue/a\nreceipt:r-1\n\n\0";
    an_unsubscribe_of_a_topic_by_destination_is_receipted: "1.0" ["SUBSCRIBE\ndestination:/topic/a\n\n\0"],
        "UNSUBSCRIBE\ndestination:/topic/a\nreceipt:r-1\n\n\0";
    a_send_of_1_1_is_receipted: "1.1" [], "SEND\ndestination:/queue/a\nreceipt:r-1\n\nx\0";
}

/// A client that was given one message and has not answered it.
fn with_a_message(broker: &Broker, version: &str) -> (Client, super::client::Frame) {
    let mut client = broker.speak(version);
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client-individual");
    let message = client.message();
    (client, message)
}

#[test]
fn an_ack_is_receipted() {
    let broker = Broker::start();
    let (mut client, message) = with_a_message(&broker, "1.2");
    assert_eq!(client.ack(&message).command, "RECEIPT");
}

#[test]
fn an_ack_of_1_1_is_receipted() {
    let broker = Broker::start();
    let (mut client, message) = with_a_message(&broker, "1.1");
    assert_eq!(client.ack(&message).command, "RECEIPT");
}

#[test]
fn a_nack_is_receipted() {
    let broker = Broker::start();
    let (mut client, message) = with_a_message(&broker, "1.2");
    assert_eq!(client.nack(&message).command, "RECEIPT");
}

#[test]
fn a_frame_without_the_header_has_no_receipt() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.write("SEND", &[("destination", "/queue/a")], b"x");
    client.write("BEGIN", &[("transaction", "t")], b"");
    // The next frame is the receipt of this one.
    client.put("/queue/a", "x");
}

#[test]
fn connect_has_no_receipt() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("CONNECT\naccept-version:1.2\nhost:a\nreceipt:no\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
    client.put("/queue/a", "x");
}

#[test]
fn a_receipt_says_its_id_as_it_was_given() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for id in ["a:b\\c\nd\re", " padded ", "grüße", "0"] {
        client.write("SEND", &[("destination", "/queue/a"), ("receipt", id)], b"x");
        client.receipt(id);
    }
    let mut old = broker.speak("1.0");
    old.raw("SEND\ndestination:/queue/a\nreceipt:C:\\new\n\nx\0");
    assert_eq!(old.frame().get("receipt-id"), "C:\\new");
}

#[test]
fn receipts_may_have_the_same_id() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for _ in 0..3 {
        client.write("SEND", &[("destination", "/queue/a"), ("receipt", "same")], b"x");
    }
    for _ in 0..3 {
        client.receipt("same");
    }
}

#[test]
fn receipts_come_in_the_order_of_the_frames_whatever_takes_longer() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let mut bytes = Vec::new();
    for n in 0..400usize {
        let (receipt, persistent) = (n.to_string(), (n % 3 == 0).to_string());
        if n % 10 == 7 {
            let names = [("transaction", receipt.as_str()), ("receipt", &receipt)];
            bytes.extend(client.encoded("BEGIN", &names, b""));
            continue;
        }
        let destination = ["/queue/a", "/topic/a", "/queue/b", "/topic/kept:a"][n % 4];
        let headers = [("destination", destination), ("persistent", &persistent), ("receipt", &receipt)];
        bytes.extend(client.encoded("SEND", &headers, b"x"));
    }
    client.raw(bytes);
    for n in 0..400 {
        client.receipt(&n.to_string());
    }
}

#[test]
fn the_receipt_of_disconnect_comes_last_and_then_the_end() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let mut client = broker.speak(version);
        let mut bytes = Vec::new();
        for n in 0..300 {
            let receipt = n.to_string();
            bytes.extend(client.encoded("SEND", &[("destination", "/queue/a"), ("receipt", &receipt)], b"x"));
        }
        bytes.extend(client.encoded("DISCONNECT", &[("receipt", "bye")], b""));
        client.raw(bytes);
        for n in 0..300 {
            client.receipt(&n.to_string());
        }
        client.receipt("bye");
        client.gone();
    }
}

#[test]
fn what_is_sent_behind_disconnect_is_not_done() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("DISCONNECT\nreceipt:bye\n\n\0SEND\ndestination:/queue/a\nreceipt:2\n\nlost\0");
    client.receipt("bye");
    client.gone();
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    reader.quiet();
}

#[test]
fn the_receipt_of_disconnect_survives_what_was_not_read() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("DISCONNECT\nreceipt:bye\n\n\0");
    client.raw(vec![b'x'; 200_000]);
    client.receipt("bye");
}

#[test]
fn a_disconnect_without_receipt_ends_the_connection() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.write("DISCONNECT", &[], b"");
    client.gone();
}

#[test]
fn what_was_sent_before_disconnect_is_kept() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.write("SEND", &[("destination", "/queue/a")], b"kept");
    client.disconnect();
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    assert_eq!(reader.message().text(), "kept");
}

#[test]
fn the_receipt_of_subscribe_comes_before_its_first_message() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for destination in ["/queue/a", "/queue/b"] {
        for n in 0..50 {
            client.put_with(destination, &[("persistent", "false")], n.to_string());
        }
    }
    for (id, destination) in [("1", "/queue/a"), ("2", "/queue/b")] {
        client.write("SUBSCRIBE", &[("id", id), ("destination", destination), ("receipt", id)], b"");
        let first = client.frame();
        assert_eq!((first.command.as_str(), first.header("receipt-id")), ("RECEIPT", Some(id)));
        assert_eq!(client.bodies(50).len(), 50);
    }
}

#[test]
fn many_clients_come_and_go_quickly() {
    let broker = Broker::start();
    for n in 0..50 {
        let mut client = broker.connect();
        client.write("SEND", &[("destination", "/queue/a")], n.to_string().as_bytes());
        client.disconnect();
    }
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    assert_eq!(reader.bodies(50), (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
}
