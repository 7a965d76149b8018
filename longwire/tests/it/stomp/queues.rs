//! Queues: what a message carries, what outlives a restart, how long a queue may become.

use super::Broker;

#[test]
fn a_message_says_where_it_was_sent_and_what_it_is() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let mut client = broker.speak(version);
        client.put("/queue/a.b", "hello");
        client.subscribe("s", "/queue/a.b", "client");
        let message = client.message();
        assert_eq!(message.get("destination"), "/queue/a.b");
        assert_eq!((message.get("subscription"), message.get("content-length")), ("s", "5"));
        assert_eq!(message.header("ack").is_some(), version == "1.2");
        assert!(!message.get("message-id").is_empty());
        client.ack(&message);
        client.disconnect();
    }
}

#[test]
fn message_ids_differ() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for _ in 0..3 {
        client.put("/queue/a", "x");
        client.put("/queue/b", "x");
    }
    client.subscribe("1", "/queue/a", "auto");
    client.subscribe("2", "/queue/b", "auto");
    let mut ids: Vec<String> = (0..6).map(|_| client.message().get("message-id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn a_queue_keeps_its_order() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let mut bytes = Vec::new();
    for n in 0..1000 {
        let persistent = (n % 2 == 0).to_string();
        let headers = [("destination", "/queue/a"), ("persistent", persistent.as_str())];
        bytes.extend(client.encoded("SEND", &headers, n.to_string().as_bytes()));
    }
    client.raw(bytes);
    let mut reader = broker.connect();
    reader.subscribe("1", "/queue/a", "auto");
    assert_eq!(reader.bodies(1000), (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn names_of_queues_may_have_slashes_and_other_scripts() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for (n, destination) in
        ["/queue/a/b/c", "/queue/grüße", "/queue/with blank", "/queue/a:b"].iter().enumerate()
    {
        client.put(destination, destination);
        client.subscribe(&n.to_string(), destination, "auto");
        let message = client.message();
        assert_eq!((message.get("destination"), message.text()), (*destination, (*destination).to_owned()));
    }
}

#[test]
fn an_amq_queue_is_the_queue_of_that_name() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/amq/queue/a", "x");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "x");
}

#[test]
fn a_queue_and_a_topic_of_one_name_have_nothing_to_do_with_each_other() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("q", "/queue/a", "auto");
    client.subscribe("t", "/topic/a", "auto");
    client.put("/queue/a", "to the queue");
    let message = client.message();
    assert_eq!((message.get("subscription"), message.text()), ("q", "to the queue".to_owned()));
    client.put("/topic/a", "to the topic");
    let message = client.message();
    assert_eq!((message.get("subscription"), message.text()), ("t", "to the topic".to_owned()));
}

#[test]
fn what_is_persistent_outlives_a_restart_in_order_and_with_all_it_carries() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..10 {
        client.put_with("/queue/a", &[("n:\\", &format!("{n}\n"))], [n, 0, 255]);
    }
    client.put_with("/queue/a", &[("priority", "9")], "first");
    client.disconnect();
    let broker = broker.restart();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "first");
    for n in 0..10 {
        let message = client.message();
        assert_eq!((message.get("n:\\"), &message.body[..]), (format!("{n}\n").as_str(), &[n, 0, 255][..]));
    }
    client.quiet();
}

#[test]
fn what_is_not_persistent_is_gone_after_a_restart() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put_with("/queue/a", &[("persistent", "false")], "light");
    client.put_with("/queue/a", &[("persistent", "true")], "heavy");
    client.put("/queue/a", "by default");
    client.disconnect();
    let broker = broker.restart();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.bodies(2), ["heavy", "by default"]);
    client.quiet();
}

#[test]
fn what_was_acked_is_gone_after_a_restart_and_the_rest_keeps_its_ids() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..4 {
        client.put("/queue/a", n.to_string());
    }
    client.subscribe("1", "/queue/a", "client-individual");
    let messages: Vec<_> = (0..4).map(|_| client.message()).collect();
    client.ack(&messages[0]);
    client.ack(&messages[2]);
    client.disconnect();
    let broker = broker.restart();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "client-individual");
    for n in [1, 3] {
        let message = client.message();
        assert_eq!(message.get("message-id"), messages[n].get("message-id"));
    }
    client.quiet();
}

#[test]
fn dead_letters_outlive_a_restart() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client");
    let message = client.message();
    client.answer("NACK", &message, &[("requeue", "false")]);
    client.disconnect();
    let broker = broker.restart();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    client.quiet();
    client.subscribe("2", "/queue/dead.a", "auto");
    assert_eq!(client.message().text(), "x");
}

#[test]
fn a_full_queue_refuses_and_serves_what_it_has() {
    let broker = Broker::with("[queues.small]\nmax_messages = 2\nwhen_full = \"refuse\"\n");
    let mut client = broker.connect();
    client.put("/queue/small", "1");
    client.put("/queue/small", "2");
    client.write("SEND", &[("destination", "/queue/small"), ("receipt", "3")], b"3");
    let error = client.error();
    assert_eq!(error.get("receipt-id"), "3");
    assert!(error.get("message").contains("full"), "{error:?}");
    let mut reader = broker.connect();
    reader.put("/queue/other", "x");
    reader.subscribe("1", "/queue/small", "client");
    let (one, two) = (reader.message(), reader.message());
    assert_eq!([one.text(), two.text()], ["1", "2"]);
    reader.ack(&two);
    reader.put("/queue/small", "4");
    assert_eq!(reader.message().text(), "4");
}

#[test]
fn a_full_queue_may_drop_its_oldest() {
    let broker = Broker::with("[queues.small]\nmax_messages = 2\nwhen_full = \"drop_oldest\"\n");
    let mut client = broker.connect();
    for n in 1..=4 {
        client.put("/queue/small", n.to_string());
    }
    client.subscribe("1", "/queue/small", "auto");
    assert_eq!(client.bodies(2), ["3", "4"]);
    client.quiet();
}

#[test]
fn a_full_queue_may_give_its_oldest_to_the_dead_letters() {
    let broker = Broker::with("[queues.small]\nmax_messages = 2\nwhen_full = \"dead_letter\"\n");
    let mut client = broker.connect();
    for n in 1..=4 {
        client.put("/queue/small", n.to_string());
    }
    client.subscribe("1", "/queue/small", "auto");
    assert_eq!(client.bodies(2), ["3", "4"]);
    client.subscribe("2", "/queue/dead.small", "auto");
    assert_eq!(client.bodies(2), ["1", "2"]);
}

#[test]
fn dead_letters_may_go_where_the_settings_say() {
    let broker = Broker::with("[queues.a]\ndead_letter_queue = \"graveyard\"\n");
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client");
    let message = client.message();
    client.answer("NACK", &message, &[("requeue", "false")]);
    client.subscribe("2", "/queue/graveyard", "auto");
    assert_eq!(client.message().text(), "x");
}

#[test]
fn the_api_sees_what_waits() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for _ in 0..3 {
        client.put("/queue/a", "x");
    }
    client.subscribe("1", "/queue/a", "client");
    client.message();
    let stats = broker.server.api("queue/stats", &serde_json::json!({"queue": "a"}));
    assert!(stats["result"].is_object(), "{stats}");
}
