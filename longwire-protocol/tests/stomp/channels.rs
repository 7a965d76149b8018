//! What frames mean for channels: subscriptions and their receipts, positions, publications.

use super::*;

#[test]
fn a_channel_is_subscribed_once_and_each_id_gets_its_own_message() {
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear("SUBSCRIBE\nid:0\ndestination:/topic/news\nreceipt:s\n\n\0");
    let ask = Subscribe { channel: "news".into(), recoverable: true, ..Subscribe::default() };
    assert_eq!(commands[0].command, Command::Subscribe(Box::new(ask)));
    let result = SubscribeResult { position: Some(at(4)), recoverable: true, ..SubscribeResult::default() };
    let receipt = peer.answer(commands[0].id, &Reply::Subscribe(Box::new(result)));
    assert_eq!(receipt, "RECEIPT\nreceipt-id:s\noffset:4\nepoch:abcdefgh\n\n\0");
    assert_eq!(peer.hear("SUBSCRIBE\nid:a\\c1\ndestination:/topic/news\nack:client\nreceipt:s2\n\n\0"), []);
    assert_eq!(peer.said(), "RECEIPT\nreceipt-id:s2\n\n\0");
    let shared = "message-id:t-abcdefgh-5\noffset:5\nepoch:abcdefgh\nkind:a\\cb\ncontent-length:2\n\n{}\0";
    let copies = peer.publish("news", &publication(5, &[("kind", "a:b")]));
    assert_eq!(copies[0], format!("MESSAGE\nsubscription:0\ndestination:/topic/news\n{shared}"));
    assert_eq!(
        copies[1],
        format!("MESSAGE\nsubscription:a\\c1\ndestination:/topic/news\nack:t-2-1\n{shared}")
    );
    // Nothing waits for an acknowledgement of these.
    assert_eq!(peer.hear("ACK\nid:t-2-1\nreceipt:k\n\n\0NACK\nid:t-abcdefgh-5\n\n\0"), []);
    assert_eq!(peer.said(), "RECEIPT\nreceipt-id:k\n\n\0");
    assert!(
        Peer::connected("1.2").error("SUBSCRIBE\nid:0\ndestination:/topic/a.*\n\n\0").contains("wildcards")
    );
    assert!(
        peer.error("SUBSCRIBE\nid:0\ndestination:/topic/other\n\n\0").contains("subscription \"0\" exists")
    );
}

#[test]
fn a_subscription_ends_with_the_last_of_its_ids() {
    let mut peer = Peer::connected("1.2");
    peer.hear("SUBSCRIBE\nid:0\ndestination:/topic/x\n\n\0SUBSCRIBE\nid:1\ndestination:/topic/x\n\n\0");
    assert_eq!(peer.hear_commands("UNSUBSCRIBE\nid:0\n\n\0"), []);
    assert_eq!(peer.publish("x", &publication(1, &[])).len(), 1);
    let unsubscribe = Command::Unsubscribe { channel: "x".into() };
    assert_eq!(peer.hear_commands("UNSUBSCRIBE\nid:1\n\n\0"), [unsubscribe]);
    assert!(peer.error("UNSUBSCRIBE\nid:1\n\n\0").contains("no such subscription"));
}

#[test]
fn a_client_says_where_it_stopped_and_is_told_whether_it_has_all() {
    let frame = "SUBSCRIBE\nid:0\ndestination:/topic/x\nsince-offset:3\nsince-epoch:abcdefgh\n";
    let result = || {
        Reply::Subscribe(Box::new(SubscribeResult {
            position: Some(at(3)),
            was_recovering: true,
            recovered: true,
            publications: vec![publication(4, &[]), publication(5, &[])],
            ..SubscribeResult::default()
        }))
    };
    let message = |offset: u64, note: &str| {
        format!(
            "MESSAGE\nsubscription:0\ndestination:/topic/x\n{note}message-id:t-abcdefgh-{offset}\n\
             offset:{offset}\nepoch:abcdefgh\ncontent-length:2\n\n{{}}\0"
        )
    };
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(&format!("{frame}receipt:r\n\n\0"));
    let Command::Subscribe(ask) = &commands[0].command else { panic!("{commands:?}") };
    assert_eq!(ask.recover, Some(Since { offset: 3, epoch: Some(Epoch::parse("abcdefgh")) }));
    let receipt = "RECEIPT\nreceipt-id:r\nrecovered:true\noffset:3\nepoch:abcdefgh\n\n\0";
    let answer = peer.answer(commands[0].id, &result());
    assert_eq!(answer, [receipt, &message(4, ""), &message(5, "")].concat());
    // Without a receipt the first message says it.
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(&format!("{frame}\n\0"));
    let answer = peer.answer(commands[0].id, &result());
    assert_eq!(answer, [message(4, "recovered:true\n"), message(5, "")].concat());
    // What came too late for the receipt says that something is missing.
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(&format!("{frame}\n\0"));
    let lost = SubscribeResult { was_recovering: true, position: Some(at(9)), ..SubscribeResult::default() };
    assert_eq!(peer.answer(commands[0].id, &Reply::Subscribe(Box::new(lost))), "");
    assert_eq!(peer.publish("x", &publication(10, &[])), [message(10, "recovered:false\n")]);
    assert_eq!(peer.publish("x", &publication(11, &[])), [message(11, "")]);
}

#[test]
fn nothing_of_a_channel_overtakes_the_receipt_of_its_subscription() {
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(
        "SEND\ndestination:/queue/a\nreceipt:1\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/x\nreceipt:2\n\n\0",
    );
    let subscribed = Reply::Subscribe(Box::default());
    assert_eq!(peer.answer(commands[1].id, &subscribed), "");
    assert_eq!(peer.publish("x", &publication(0, &[])), [""; 0]);
    let answer = peer.answer(commands[0].id, &DONE);
    let message = "MESSAGE\nsubscription:0\ndestination:/topic/x\nmessage-id:t-1\ncontent-length:2\n\n{}\0";
    assert_eq!(answer, format!("RECEIPT\nreceipt-id:1\n\n\0RECEIPT\nreceipt-id:2\n\n\0{message}"));
    assert_eq!(peer.publish("x", &publication(0, &[])), [message.replace("t-1", "t-2")]);
}

#[test]
fn what_waits_for_a_receipt_is_bounded() {
    let mut peer = Peer::connected("1.2");
    let commands =
        peer.hear("SEND\ndestination:/queue/a\n\n\0SUBSCRIBE\nid:0\ndestination:/topic/x\nreceipt:2\n\n\0");
    peer.answer(commands[1].id, &Reply::Subscribe(Box::default()));
    let shared = Bytes::from(vec![b'x'; 1 << 20]);
    let refused = (0..=16).find(|_| peer.connection.copies("x", &shared, &mut Vec::new()).is_err());
    assert_eq!(refused, Some(15));
}

#[test]
fn a_publication_carries_the_headers_of_its_sender_as_tags() {
    let mut peer = Peer::connected("1.2");
    let command =
        peer.hear_one("SEND\ndestination:/topic/x\nz:1\na\\cb:2\nreceipt:r\noffset:9\nz:3\n\n\u{e4}\0");
    let tags = vec![("a:b".to_owned(), "2".to_owned()), ("z".to_owned(), "1".to_owned())];
    let data = Bytes::from("\u{e4}");
    assert_eq!(command, Command::Publish { channel: "x".into(), data, kind: 0, tags });
    assert_eq!(peer.answer(2, &Reply::Publish), "RECEIPT\nreceipt-id:r\n\n\0");
}

#[test]
fn direct_messages_and_channels_of_the_server_come_without_a_subscribe() {
    let mut peer = Peer::connected("1.1");
    let direct = peer.connection.push("", &Push::Message { data: "hi".into(), is_json: false });
    let text = "MESSAGE\nsubscription:/direct\ndestination:/direct\nmessage-id:t-1\ncontent-length:2\n\nhi\0";
    assert_eq!(text_of(&direct), text);
    let copies = peer.publish("given", &publication(2, &[]));
    assert!(copies[0].starts_with(
        "MESSAGE\nsubscription:/topic/given\ndestination:/topic/given\nmessage-id:t-abcdefgh-2\n"
    ));
}
