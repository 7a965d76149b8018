//! What frames mean for queues: sends, consumers, deliveries, acknowledgements, transactions.

use super::*;

#[test]
fn a_message_for_a_queue_has_all_that_its_sender_wrote() {
    let mut peer = Peer::connected("1.2");
    let message = sent(peer.hear_one(
        "SEND\ndestination:/queue/test/a\ncontent-type:text/plain;x:y\nb\\c:1\\n2\nb\\c:again\nreceipt:1\n\
         content-length:3\nmessage-id:mine\nack:mine\nsubscription:mine\nredelivered:true\npriority:12\n\
         expiration:1500\npersistent:false\nx-delay:20\noffset:7\n\na\0b\0",
    ));
    assert_eq!((&*message.queue, &*message.body), ("test/a", &b"a\0b"[..]));
    let block = "content-type:text/plain;x\\cy\nb\\c:1\\n2\nexpiration:1500\nx-delay:20\noffset:7\n";
    assert_eq!(message.headers.as_bytes(), block);
    assert_eq!((message.priority, message.is_persistent), (9, false));
    assert_eq!(message.expiry, Some(Expiry::After(Duration::from_millis(1500))));
    assert_eq!(message.delay, Duration::from_millis(20));
    let plain = sent(peer.hear_one("SEND\ndestination:/amq/queue/b\nexpires:0\n\n\0"));
    assert_eq!((&*plain.queue, plain.priority, plain.is_persistent), ("b", 4, true));
    assert_eq!((plain.expiry, plain.delay), (None, Duration::ZERO));
    let expires =
        sent(peer.hear_one("SEND\ndestination:/queue/b\nexpires:1700000000000\nexpiration:1\n\n\0"));
    assert_eq!(expires.expiry, Some(Expiry::At(1_700_000_000_000)));
    for (frame, what) in [
        ("SEND\n\n\0", "SEND has no destination"),
        ("SEND\ndestination:jobs\n\n\0", "unknown destination \\\"jobs\\\""),
        ("SEND\ndestination:/queue/a\npriority:high\n\n\0", "priority is no number"),
        ("SEND\ndestination:/queue/~durable/x\n\n\0", "the server's own"),
        ("SEND\ndestination:/queue/a\nx:\\t\n\n\0", "an escape that the version does not have"),
        ("FROB\n\n\0", "unknown command"),
    ] {
        let error = Peer::connected("1.2").error(frame);
        assert!(error.contains(&what.replace('\\', "")), "{error}");
    }
}

#[test]
fn without_an_id_a_subscription_is_named_by_its_destination() {
    for version in ["1.0", "1.1", "1.2"] {
        let mut peer = Peer::connected_any(version);
        peer.hear("SUBSCRIBE\ndestination:/queue/jobs\n\n\0");
        let message = peer.deliver(1, 0, Headers::default());
        let head = format!(
            "MESSAGE\ndestination:/queue/jobs\nmessage-id:s-12\nredelivered:false\n{OWN}timestamp:3\n"
        );
        assert_eq!(message, format!("{head}content-length:4\n\nwork\0"));
        let cancel = QueueCommand::Cancel { consumer: 1, is_forever: false };
        assert_eq!(peer.hear_one("UNSUBSCRIBE\ndestination:/queue/jobs\n\n\0"), Command::Queue(cancel));
        assert_eq!(peer.deliver(1, 0, Headers::default()), "", "there is nobody to give it to");
    }
}

#[test]
fn consumers_ask_for_what_they_want() {
    let mut peer = Peer::connected("1.2");
    let all = consume(peer.hear_one(
        "SUBSCRIBE\nid:a\ndestination:/queue/x\nack:client-individual\nprefetch-count:7\nselector:a = 'b\\c'\n\
         exclusive:true\nbrowser:true\ndurable:true\n\n\0",
    ));
    let expected = Consume {
        consumer: 1,
        queue: "x".into(),
        ack: AckMode::Individual,
        prefetch: Some(7),
        selector: Some("a = 'b:'".into()),
        is_exclusive: true,
        is_browsing: true,
        durable_of: None,
    };
    assert_eq!(all, expected);
    let other = consume(
        peer.hear_one("SUBSCRIBE\nid:b\ndestination:/queue/y\nack:client\nactivemq.prefetchSize:0\n\n\0"),
    );
    assert_eq!((other.consumer, other.ack, other.prefetch), (2, AckMode::Cumulative, None));
    assert_eq!(consume(peer.hear_one("SUBSCRIBE\nid:c\ndestination:/queue/x\n\n\0")).ack, AckMode::Auto);
    for (frame, what) in [
        ("SUBSCRIBE\nid:d\n\n\0", "no destination"),
        ("SUBSCRIBE\nid:d\ndestination:/queue/x\nack:sometimes\n\n\0", "ack is none of"),
        ("SUBSCRIBE\nid:d\ndestination:/topic/x\nselector:a=1\n\n\0", "selectors are for queues"),
        ("SUBSCRIBE\nid:d\ndestination:/queue/x\nprefetch-count:-1\n\n\0", "prefetch count is no number"),
        ("SUBSCRIBE\ndestination:/topic/x\ndurable:true\n\n\0", "a durable subscription has an id"),
        ("SUBSCRIBE\nid:d\ndestination:/queue/~temp/other/x\n\n\0", "the server's own"),
    ] {
        let error = Peer::connected("1.2").error(frame);
        assert!(error.contains(what), "{error}");
    }
    let limits = Limits { max_subscriptions: 1, ..Limits::default() };
    let mut peer = Peer::new(limits);
    peer.hear("CONNECT\n\n\0SUBSCRIBE\nid:1\ndestination:/topic/x\n\n\0");
    assert!(peer.error("SUBSCRIBE\nid:2\ndestination:/topic/x\n\n\0").contains("too many subscriptions"));
}

#[test]
fn a_delivery_has_its_own_headers_first_and_then_the_senders() {
    let headers = Headers::of([("x", "a:b\nc"), ("timestamp", "mine")]);
    let individual = "SUBSCRIBE\nid:0\ndestination:/queue/jobs\nack:client-individual\n\n\0";
    for (version, own, theirs) in [
        ("1.0", "", "x:a:b c\ntimestamp:mine\n"),
        ("1.1", "", "x:a\\cb\\nc\ntimestamp:mine\n"),
        ("1.2", "ack:d-31\n", "x:a\\cb\\nc\ntimestamp:mine\n"),
    ] {
        let mut peer = Peer::connected_any(version);
        peer.hear(individual);
        let message = format!(
            "MESSAGE\nsubscription:0\ndestination:/queue/jobs\nmessage-id:s-12\n{own}\
             redelivered:true\nx-delivery-count:2\n{OWN}{theirs}content-length:4\n\nwork\0"
        );
        assert_eq!(peer.deliver(1, 2, headers.clone()), message);
    }
    let mut peer = Peer::connected("1.2");
    peer.hear("SUBSCRIBE\nid:0\ndestination:/queue/jobs\nbrowser:true\n\n\0");
    let end = peer.connection.push("", &Push::Queue(QueuePush::Browsed { consumer: 1 }));
    let text = "MESSAGE\nsubscription:0\ndestination:/queue/jobs\nmessage-id:t-1\nbrowser:end\ncontent-length:0\n\n\0";
    assert_eq!(text_of(&end), text);
}

#[test]
fn acknowledgements_name_deliveries_as_each_version_does() {
    let individual = |id, ack| format!("SUBSCRIBE\nid:{id}\ndestination:/queue/q{id}\nack:{ack}\n\n\0");
    let mut peer = Peer::connected("1.2");
    peer.hear(&individual("0", "client"));
    let delivery = Meant::Delivery(31);
    assert_eq!(settled(peer.hear_one("ACK\nid:d-31\n\n\0")), (delivery.clone(), Verdict::Ack));
    assert_eq!(settled(peer.hear_one("NACK\nid:d-31\n\n\0")), (delivery.clone(), Verdict::Requeue));
    assert_eq!(settled(peer.hear_one("NACK\nid:d-31\nrequeue:false\n\n\0")), (delivery, Verdict::Reject));
    let message = |consumer| Meant::Message("s-12".into(), consumer);
    assert_eq!(settled(peer.hear_one("ACK\nid:s-12\n\n\0")).0, message(None));
    for version in ["1.0", "1.1"] {
        let mut peer = Peer::connected_any(version);
        peer.hear(&(individual("0", "auto") + &individual("1", "client")));
        assert_eq!(settled(peer.hear_one("ACK\nmessage-id:s-12\nsubscription:1\n\n\0")).0, message(Some(2)));
        assert_eq!(settled(peer.hear_one("ACK\nmessage-id:s-12\nsubscription:9\n\n\0")).0, message(None));
        assert_eq!(settled(peer.hear_one("ACK\nmessage-id:s-12\n\n\0")).0, message(None));
        for id in 2..7 {
            assert_eq!(peer.answer(id, &DONE), "");
        }
        assert_eq!(peer.hear("ACK\nmessage-id:s-12\nsubscription:0\nreceipt:r\n\n\0"), []);
        assert_eq!(peer.said(), "RECEIPT\nreceipt-id:r\n\n\0");
    }
    // Old clients acknowledge everything.
    let mut peer = Peer::connected("1.1");
    peer.hear(&individual("0", "auto"));
    assert_eq!(peer.hear("ACK\nmessage-id:s-12\n\n\0"), []);
    assert_eq!(settled(Peer::connected("1.1").hear_one("ACK\nmessage-id:s-12\n\n\0")).0, message(None));
    assert!(peer.error("ACK\nsubscription:0\n\n\0").contains("ACK does not say of which message"));
}

#[test]
fn a_transaction_is_done_whole_or_not_at_all() {
    let mut peer = Peer::connected("1.2");
    peer.hear("SUBSCRIBE\nid:0\ndestination:/queue/in\nack:client\n\n\0");
    let frames = "BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/out\ntransaction:t\nreceipt:now\n\na\0\
                  ACK\nid:d-1\ntransaction:t\n\n\0SEND\ndestination:/topic/x\ntransaction:t\n\nb\0ACK\nid:t-1\ntransaction:t\n\n\0";
    assert_eq!(peer.hear(frames), []);
    // The frame was dealt with: it is kept.
    assert_eq!(peer.said(), "", "the receipt waits for the SUBSCRIBE before");
    assert_eq!(peer.answer(2, &DONE), "RECEIPT\nreceipt-id:now\n\n\0");
    let commands = peer.hear("COMMIT\ntransaction:t\nreceipt:all\n\n\0");
    let [Numbered { id, command: Command::Queue(QueueCommand::Transaction(actions)) }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert!(matches!(&actions[..], [QueueCommand::Send(_), QueueCommand::Settle { .. }]), "{actions:?}");
    // What it publishes waits until the queues have taken the rest, and with it what comes behind.
    assert!(peer.connection.is_behind() && !peer.connection.has_more());
    assert_eq!(peer.answer(*id, &DONE), "");
    assert!(!peer.connection.is_behind() && peer.connection.has_more());
    let published = peer.hear("").remove(0);
    assert!(matches!(&published.command, Command::Publish { channel, .. } if channel == "x"));
    assert_eq!(peer.answer(published.id, &Reply::Publish), "RECEIPT\nreceipt-id:all\n\n\0");
    // One that is aborted is not done; its name may be used again.
    peer.hear("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/out\ntransaction:t\n\na\0ABORT\ntransaction:t\n\n\0");
    assert_eq!(peer.hear("BEGIN\ntransaction:t\n\n\0COMMIT\ntransaction:t\nreceipt:e\n\n\0"), []);
    assert_eq!(peer.said(), "RECEIPT\nreceipt-id:e\n\n\0");
    for frame in [
        "SEND\ndestination:/queue/out\ntransaction:t\n\n\0",
        "ACK\nid:d-1\ntransaction:t\n\n\0",
        "ACK\nid:t-1\ntransaction:t\n\n\0",
        "COMMIT\ntransaction:t\n\n\0",
        "ABORT\ntransaction:t\n\n\0",
        "BEGIN\n\n\0",
        "BEGIN\ntransaction:t\n\n\0BEGIN\ntransaction:t\n\n\0",
    ] {
        assert!(Peer::connected("1.2").error(frame).contains("transaction"), "{frame:?}");
    }
}

#[test]
fn whoever_asks_for_an_answer_in_a_queue_of_its_own_hears_it() {
    let mut peer = Peer::connected("1.2");
    let send = "SEND\ndestination:/queue/ask\nreply-to:/temp-queue/a\nreceipt:r\n\n\0";
    let commands = peer.hear(send);
    assert_eq!(commands.len(), 2);
    let own = format!("~temp/{UUID}/a");
    assert_eq!(&*consume(commands[0].command.clone()).queue, own);
    let asked = sent(commands[1].command.clone());
    assert_eq!(asked.headers.get("reply-to").as_deref(), Some(&*format!("/queue/{own}")));
    assert_eq!(peer.answer(commands[0].id, &DONE), "");
    assert_eq!(peer.answer(commands[1].id, &DONE), "RECEIPT\nreceipt-id:r\n\n\0");
    assert!(
        peer.deliver(1, 0, Headers::default())
            .starts_with("MESSAGE\nsubscription:/temp-queue/a\ndestination:/temp-queue/a\n")
    );
    assert_eq!(peer.hear(send).len(), 1, "it is consumed already");
    // Anybody answers, and nobody else listens.
    let mut other = Peer::connected("1.2");
    let answer = sent(other.hear_one(&format!("SEND\ndestination:/queue/{own}\n\n\0")));
    assert_eq!(&*answer.queue, own);
    assert!(
        Peer::connected("1.2")
            .error("SUBSCRIBE\nid:0\ndestination:/queue/~temp/00000000-0000-4000-8000-000000000008/a\n\n\0")
            .contains("the server's own")
    );
}

#[test]
fn a_durable_subscription_is_a_queue_of_whoever_has_it() {
    let mut peer = Peer::connected("1.2");
    peer.connection.identify("bob");
    let begin =
        "SUBSCRIBE\nid:s/1\ndestination:/topic/news\ndurable:true\nauto-delete:false\nack:client\n\n\0";
    let durable = consume(peer.hear_one(begin));
    assert_eq!((&*durable.queue, durable.durable_of.as_deref()), ("~durable/bob/s%2F1", Some("news")));
    assert!(
        peer.deliver(1, 0, Headers::default())
            .starts_with("MESSAGE\nsubscription:s/1\ndestination:/topic/news\n")
    );
    let cancel = |consumer, is_forever| Command::Queue(QueueCommand::Cancel { consumer, is_forever });
    assert_eq!(peer.hear_one("UNSUBSCRIBE\nid:s/1\n\n\0"), cancel(1, false));
    peer.hear(begin);
    assert_eq!(peer.hear_one("UNSUBSCRIBE\nid:s/1\ndurable:true\n\n\0"), cancel(2, true));
    // Some give the subscription up when they have stopped reading.
    let commands = peer.hear_commands("UNSUBSCRIBE\nid:s/1\ndestination:/topic/news\ndurable:true\n\n\0");
    assert_eq!(&*consume(commands[0].clone()).queue, "~durable/bob/s%2F1");
    assert_eq!(commands[1], cancel(3, true));
    let mut peer = Peer::new(Limits::default());
    peer.hear("CONNECT\naccept-version:1.2\nlogin:alice\nclient-id:phone\n\n\0");
    peer.answer(1, &welcome());
    let named = consume(
        peer.hear_one("SUBSCRIBE\nid:0\ndestination:/topic/news\nactivemq.subscriptionName:mine\n\n\0"),
    );
    assert_eq!(&*named.queue, "~durable/alice:phone/mine");
}
