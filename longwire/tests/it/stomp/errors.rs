//! Frames that cannot be done: each is answered with ERROR, and then the connection ends.

use super::Broker;

macro_rules! refusals {
    ($($name:ident: $version:literal $frame:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.speak($version);
            client.raw($frame);
            let error = client.error();
            assert_eq!(error.get("receipt-id"), "r-1");
            assert_eq!(error.get("content-type").split(';').next(), Some("text/plain"));
            assert!(!error.body.is_empty(), "it says more in its body");
        }
    )+};
}

refusals! {
    a_send_without_destination_is_refused: "1.2" "SEND\nreceipt:r-1\n\nx\0";
    a_send_without_destination_is_refused_in_1_0: "1.0" "SEND\nreceipt:r-1\n\nx\0";
    a_send_without_destination_is_refused_in_1_1: "1.1" "SEND\nreceipt:r-1\n\nx\0";
    a_subscribe_without_destination_is_refused: "1.2" "SUBSCRIBE\nid:1\nreceipt:r-1\n\n\0";
    an_empty_destination_is_refused: "1.2" "SEND\ndestination:\nreceipt:r-1\n\nx\0";
    a_destination_of_no_kind_is_refused: "1.2" "SEND\ndestination:a\nreceipt:r-1\n\nx\0";
    a_destination_of_an_unknown_kind_is_refused: "1.2" "SEND\ndestination:/que/a\nreceipt:r-1\n\nx\0";
    a_queue_without_a_name_is_refused: "1.2" "SEND\ndestination:/queue/\nreceipt:r-1\n\nx\0";
    a_topic_without_a_name_is_refused: "1.2" "SEND\ndestination:/topic/\nreceipt:r-1\n\nx\0";
    an_unknown_exchange_is_refused: "1.2" "SEND\ndestination:/exchange/what/a\nreceipt:r-1\n\nx\0";
    a_star_in_a_subscribed_topic_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/topic/a.*\nreceipt:r-1\n\n\0";
    a_hash_in_a_subscribed_topic_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/topic/a.#\nreceipt:r-1\n\n\0";
    an_unknown_ack_mode_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:sometimes\nreceipt:r-1\n\n\0";
    an_ack_mode_in_capitals_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:CLIENT\nreceipt:r-1\n\n\0";
    a_bad_prefetch_count_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\nprefetch-count:many\nreceipt:r-1\n\n\0";
    a_bad_selector_is_refused:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nselector:colour = \nreceipt:r-1\n\n\0";
    a_bad_priority_is_refused: "1.2" "SEND\ndestination:/queue/a\npriority:high\nreceipt:r-1\n\nx\0";
    a_bad_expiry_is_refused: "1.2" "SEND\ndestination:/queue/a\nexpires:soon\nreceipt:r-1\n\nx\0";
    an_unsubscribe_of_nothing_is_refused: "1.2" "UNSUBSCRIBE\nid:9\nreceipt:r-1\n\n\0";
    an_unsubscribe_without_id_is_refused: "1.2" "UNSUBSCRIBE\nreceipt:r-1\n\n\0";
    an_ack_without_id_is_refused: "1.2" "ACK\nreceipt:r-1\n\n\0";
    an_ack_without_message_id_is_refused: "1.1" "ACK\nsubscription:1\nreceipt:r-1\n\n\0";
    an_ack_without_message_id_is_refused_in_1_0: "1.0" "ACK\nreceipt:r-1\n\n\0";
    a_nack_without_id_is_refused: "1.2" "NACK\nreceipt:r-1\n\n\0";
    an_ack_of_something_unknown_is_refused: "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n\0ACK\nid:nonsense\nreceipt:r-1\n\n\0";
    an_ack_of_an_unknown_delivery_is_refused: "1.2" "ACK\nid:d-4711\nreceipt:r-1\n\n\0";
    a_nack_of_something_unknown_is_refused: "1.2" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n\0NACK\nid:nonsense\nreceipt:r-1\n\n\0";
    an_ack_of_an_unknown_message_is_refused: "1.1" "SUBSCRIBE\nid:1\ndestination:/queue/a\nack:client\n\n\0ACK\nmessage-id:x\nsubscription:1\nreceipt:r-1\n\n\0";
    a_begin_without_a_name_is_refused: "1.2" "BEGIN\nreceipt:r-1\n\n\0";
    a_commit_without_a_name_is_refused: "1.2" "COMMIT\nreceipt:r-1\n\n\0";
    an_abort_without_a_name_is_refused: "1.2" "ABORT\nreceipt:r-1\n\n\0";
    a_commit_of_nothing_is_refused: "1.2" "COMMIT\ntransaction:t\nreceipt:r-1\n\n\0";
    a_commit_of_nothing_is_refused_in_1_0: "1.0" "COMMIT\ntransaction:t\nreceipt:r-1\n\n\0";
    an_abort_of_nothing_is_refused: "1.2" "ABORT\ntransaction:t\nreceipt:r-1\n\n\0";
    a_send_in_an_unknown_transaction_is_refused:
        "1.2" "SEND\ndestination:/queue/a\ntransaction:t\nreceipt:r-1\n\nx\0";
    an_ack_in_an_unknown_transaction_is_refused: "1.2" "ACK\nid:d-1\ntransaction:t\nreceipt:r-1\n\n\0";
    a_nack_in_an_unknown_transaction_is_refused: "1.2" "NACK\nid:d-1\ntransaction:t\nreceipt:r-1\n\n\0";
    a_topic_that_is_closed_is_refused_to_publishers:
        "1.2" "SEND\ndestination:/topic/closed:a\nreceipt:r-1\n\nx\0";
    a_topic_that_is_closed_is_refused_to_subscribers:
        "1.2" "SUBSCRIBE\nid:1\ndestination:/topic/closed:a\nreceipt:r-1\n\n\0";
    a_topic_of_an_unknown_namespace_is_refused: "1.2" "SEND\ndestination:/topic/none:a\nreceipt:r-1\n\nx\0";
    an_unknown_command_is_refused_with_its_receipt: "1.2" "PUBLISH\nreceipt:r-1\n\nx\0";
}

#[test]
fn a_second_subscription_of_one_id_is_refused() {
    let broker = Broker::start();
    for destination in ["/queue/b", "/queue/a", "/topic/a"] {
        let mut client = broker.connect();
        client.subscribe("1", "/queue/a", "auto");
        client.write("SUBSCRIBE", &[("id", "1"), ("destination", destination), ("receipt", "two")], b"");
        assert_eq!(client.error().get("receipt-id"), "two");
    }
}

#[test]
fn an_id_is_free_again_after_its_unsubscribe() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for destination in ["/queue/a", "/queue/b", "/topic/a", "/topic/b", "/queue/a"] {
        client.subscribe("1", destination, "auto");
        client.put(destination, destination);
        assert_eq!(client.message().text(), destination);
        client.ask("UNSUBSCRIBE", &[("id", "1")], b"");
    }
}

#[test]
fn nothing_behind_a_frame_that_failed_is_done() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\n\nx\0SEND\ndestination:/queue/a\nreceipt:2\n\nlost\0");
    client.error();
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    reader.quiet();
}

#[test]
fn what_came_before_a_frame_that_failed_is_done() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\ndestination:/queue/a\nreceipt:1\n\nkept\0NONSENSE\nreceipt:2\n\n\0");
    assert_eq!(client.error().get("receipt-id"), "2");
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    assert_eq!(reader.message().text(), "kept");
}

#[test]
fn an_error_without_a_receipt_names_none() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\n\nx\0");
    assert_eq!(client.error().header("receipt-id"), None);
}

#[test]
fn an_error_arrives_although_nobody_read_what_the_client_goes_on_to_send() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\nreceipt:1\n\nx\0");
    let more = client.encoded("SEND", &[("destination", "/queue/a")], &vec![b'x'; 100_000]);
    for _ in 0..4 {
        client.raw(&more);
    }
    assert_eq!(client.error_then().get("receipt-id"), "1");
}

#[test]
fn an_error_shows_the_head_of_the_frame_and_nothing_of_the_server() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\ndestination:/nowhere/a\nreceipt:1\n\nx\0");
    let text = client.error().text();
    assert!(text.contains("/nowhere/a"), "{text}");
    assert!(!text.contains(".rs") && !text.contains("panic"), "{text}");
}

#[test]
fn a_data_directory_that_somebody_else_uses_is_named_as_the_reason() {
    let broker = Broker::start();
    let lock = std::fs::File::create(broker.directory.path().join("lock")).expect("a file");
    lock.try_lock().expect("nobody has it yet");
    let mut client = broker.connect();
    client.write("SEND", &[("destination", "/queue/a"), ("receipt", "r")], b"x");
    let error = client.error();
    assert_eq!(error.get("message"), "not writable: the data directory is used by another process");
    assert!(!error.text().contains(&*broker.directory.path().to_string_lossy()), "{}", error.text());
    let answer = broker.server.api("queue/publish", &serde_json::json!({"queue": "a", "text": "x"}));
    assert_eq!(answer["error"]["message"], "not writable: the data directory is used by another process");
    // It goes on when the other is gone.
    drop(lock);
    broker.connect().put("/queue/a", "x");
}
