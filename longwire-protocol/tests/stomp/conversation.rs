//! The conversation itself: its beginning, beats, receipts in order, errors and its end.

use super::*;

#[test]
fn a_client_says_who_it_is_and_is_told_what_is_spoken() {
    let mut peer = Peer::new(Limits::default());
    assert_eq!((peer.connection.dialect(), peer.connection.transport()), (Dialect::Stomp, Transport::Tcp));
    let command = peer.hear_one(
        "\nSTOMP\naccept-version:1.0,1.2\nhost:/\nlogin:a:b\npasscode:p\\c:d\nheart-beat:0,0\nx-app:shop\nx-app:2\n\n\0",
    );
    let expected = Connect {
        name: "stomp".into(),
        version: "1.2".into(),
        host: "/".into(),
        // Nothing of a CONNECT is unescaped.
        login: "a:b".into(),
        passcode: "p\\c:d".into(),
        headers: vec![("x-app".into(), "shop".into())],
        ..Connect::default()
    };
    assert_eq!(command, Command::Connect(Box::new(expected)));
    let connected =
        format!("CONNECTED\nversion:1.2\nheart-beat:0,0\nsession:{UUID}\nserver:longwire/1.0\n\n\0");
    assert_eq!(peer.answer(1, &welcome()), connected);
}

#[test]
fn a_client_of_the_first_version_says_nothing_of_versions() {
    let mut peer = Peer::new(Limits::default());
    let command = peer.hear_one("CONNECT\nlogin: alice\npasscode:\tsecret\nheart-beat:1000,1000\n\n\0");
    let Command::Connect(connect) = command else { panic!("{command:?}") };
    assert_eq!((&*connect.login, &*connect.passcode, &*connect.version), ("alice", "secret", "1.0"));
    assert!(peer.answer(1, &welcome()).starts_with("CONNECTED\nversion:1.0\nheart-beat:0,0\n"));
    // Blanks before a value are none of it, and a backslash is a backslash.
    let message = sent(peer.hear_one("SEND\ndestination: /queue/jobs\npath:C:\\new\n\n\0"));
    assert_eq!((&*message.queue, message.headers.get("path").as_deref()), ("jobs", Some("C:\\new")));
    assert!(peer.error("NACK\nmessage-id:1\n\n\0").contains("unknown command"));
}

#[test]
fn no_version_in_common_is_answered_with_those_that_there_are() {
    let error = Peer::new(Limits::default()).error("CONNECT\naccept-version:2.0,1.10\nhost:x\n\n\0");
    assert!(error.starts_with("ERROR\nmessage:no supported version"), "{error}");
    assert!(error.contains("\nversion:1.0,1.1,1.2\n"), "{error}");
}

#[test]
fn the_first_frame_is_a_connect_and_no_other_is() {
    for first in ["SEND\ndestination:/queue/x\n\n\0", "DISCONNECT\n\n\0", "connect\n\n\0"] {
        assert!(Peer::new(Limits::default()).error(first).contains("message:the first frame is a CONNECT\n"));
    }
    let error = Peer::connected("1.2").error("CONNECT\naccept-version:1.2\npasscode:secret\n\n\0");
    assert!(error.contains("the client is connected") && !error.contains("secret"), "{error}");
}

#[test]
fn nobody_who_is_not_known_sends_much() {
    let mut peer = Peer::new(Limits { max_login_bytes: 100, ..Limits::default() });
    let error = peer.error(&format!("CONNECT\naccept-version:1.2\nx:{}", "x".repeat(100)));
    assert!(error.contains("too long"), "{error}");
    let mut peer = Peer::new(Limits::default());
    assert!(peer.error("CONNECT\naccept-version:1.2\ncontent-length:70000\n\n").contains("too long"));
    let mut peer = Peer::connected("1.2");
    let body = "x".repeat(70_000);
    let message = sent(peer.hear_one(&format!("SEND\ndestination:/queue/x\n\n{body}\0")));
    assert_eq!(message.body, body);
}

#[test]
fn heartbeats_are_those_that_both_agreed_upon() {
    let start = Instant::now();
    let mut connection = Connection::stomp(opening(Carrier::Tcp, Limits::default()), start, 1.0);
    let intervals = connection.intervals().expect("its own");
    assert_eq!((intervals.interval, intervals.max_silence), (OFF, OFF));
    let frame = b"CONNECT\naccept-version:1.1\nheart-beat:2000,1000\n\n\0";
    let now = start + Duration::from_secs(5);
    connection.heartbeat.seen(now);
    assert!(connection.decode(&mut &frame[..]).is_ok());
    let answer = connection.reply(1, &welcome());
    assert!(answer.bytes.starts_with(b"CONNECTED\nversion:1.1\nheart-beat:1000,2000\n"));
    let intervals = connection.intervals().expect("its own");
    let beat = now + Duration::from_millis(750);
    assert_eq!(connection.heartbeat.poll_timeout(&intervals), beat);
    assert_eq!(connection.heartbeat.handle_timeout(beat, &intervals), Some(Due::Beat));
    assert_eq!(connection.beat(), "\n");
    let dead = now + Duration::from_millis(4500);
    for tick in 1..45 {
        let due = connection.heartbeat.handle_timeout(now + Duration::from_millis(100 * tick), &intervals);
        assert_ne!(due, Some(Due::PeerDead), "{tick}");
    }
    assert_eq!(connection.heartbeat.handle_timeout(dead, &intervals), Some(Due::PeerDead));
    connection.heartbeat.seen(dead);
    assert_eq!(connection.heartbeat.handle_timeout(dead, &intervals), None);
    assert!(
        Peer::new(Limits::default())
            .error("CONNECT\naccept-version:1.2\nheart-beat:1,x\n\n\0")
            .contains("heart-beat")
    );
}

#[test]
fn a_virtual_host_stands_before_the_names_of_all() {
    let mut peer = Peer::new(Limits::default());
    peer.hear("CONNECT\naccept-version:1.2\nhost:shop\n\n\0");
    peer.answer(1, &welcome());
    assert_eq!(&*sent(peer.hear_one("SEND\ndestination:/queue/jobs\n\n\0")).queue, "shop:jobs");
    let own = consume(peer.hear_one("SUBSCRIBE\nid:1\ndestination:/temp-queue/x\n\n\0"));
    assert_eq!(&*own.queue, format!("~temp/{UUID}/x"));
    peer.hear("SUBSCRIBE\nid:2\ndestination:/topic/news\n\n\0");
    let copies = peer.publish("shop:news", &publication(1, &[]));
    assert!(copies[0].contains("\ndestination:/topic/news\n"), "{copies:?}");
    let direct = peer.publish("shop:other", &publication(1, &[]));
    assert!(direct[0].contains("\ndestination:/topic/other\n"), "{direct:?}");
}

#[test]
fn receipts_go_out_in_the_order_of_the_frames() {
    let mut peer = Peer::connected("1.2");
    let send = |receipt| format!("SEND\ndestination:/queue/a\nreceipt:{receipt}\n\n\0");
    let commands = peer
        .hear(&[send("one"), send("t\\cwo"), "BEGIN\ntransaction:t\nreceipt:three\n\n\0".into()].concat());
    let ids: Vec<u32> = commands.iter().map(|numbered| numbered.id).collect();
    assert_eq!((ids, peer.said()), (vec![2, 3], String::new()));
    assert_eq!(peer.answer(3, &DONE), "");
    let all = "RECEIPT\nreceipt-id:one\n\n\0RECEIPT\nreceipt-id:t\\cwo\n\n\0RECEIPT\nreceipt-id:three\n\n\0";
    assert_eq!(peer.answer(2, &DONE), all);
    peer.hear("ABORT\ntransaction:t\nreceipt:four\n\n\0");
    assert_eq!(peer.said(), "RECEIPT\nreceipt-id:four\n\n\0");
}

#[test]
fn so_many_frames_wait_for_an_answer_and_no_more() {
    let mut peer = Peer::connected("1.2");
    peer.hear("SEND\ndestination:/queue/a\n\n\0");
    let flood = "ACK\nid:t-1\nreceipt:r\n\n\0".repeat(5000);
    peer.hear(&flood);
    assert!(peer.connection.is_behind());
    assert!(peer.error(&flood.repeat(14)).contains("too many frames wait"));
}

#[test]
fn an_error_says_what_and_about_which_frame_and_ends_the_connection() {
    let mut peer = Peer::connected("1.2");
    let commands = peer
        .hear("SEND\ndestination:/queue/a\nreceipt:r1\n\n\0SEND\ndestination:/queue/b\nreceipt:r2\n\nx\0");
    assert!(peer.answer(commands[0].id, &DONE).contains("r1"));
    let error = QueueError::new(QueueErrorKind::QueueFull, "\"b\" holds 3 messages");
    let answer = peer.reply(commands[1].id, &Reply::Queue(Err(error)));
    assert_eq!(answer.close, Some(CloseReason::QueueUnavailable));
    let text = text_of(&answer.bytes);
    assert!(
        text.starts_with("ERROR\nmessage:queue full\\c \"b\" holds 3 messages\nreceipt-id:r2\n"),
        "{text}"
    );
    assert!(text.contains("\ncontent-type:text/plain\ncontent-length:"), "{text}");
    assert!(text.ends_with("\nIn answer to:\n\nSEND\ndestination:/queue/b\n\0"), "{text}");
    let mut peer = Peer::connected("1.1");
    let error = peer.error("SEND\nreceipt:r\ndestination:nowhere\n\n\0");
    assert!(
        error.contains("\nreceipt-id:r\n") && error.contains("SEND\nreceipt:r\ndestination:nowhere\n"),
        "{error}"
    );
    // Who is refused at the door is not shown what it said there.
    let mut peer = Peer::new(Limits::default());
    peer.hear("CONNECT\naccept-version:1.2\npasscode:secret\n\n\0");
    let answer = peer.reply(1, &ErrorCode::PermissionDenied.into());
    let text = text_of(&answer.bytes);
    assert_eq!(answer.close, Some(CloseReason::PermissionDenied));
    assert!(text.starts_with("ERROR\nmessage:permission denied\n") && !text.contains("secret"), "{text}");
    // What ends a connection otherwise is said in the words of the table.
    let farewell = Peer::connected("1.2").connection.farewell(&CloseReason::Drain.into());
    assert!(farewell.starts_with(b"ERROR\nmessage:shutdown\n"), "{farewell:?}");
    assert_eq!(Peer::connected("1.2").connection.farewell(&CloseReason::PeerClosed.into()), "");
}

#[test]
fn an_error_waits_for_what_was_asked_before_it() {
    let mut peer = Peer::connected("1.2");
    let send = |n| format!("SEND\ndestination:/queue/a\nreceipt:{n}\n\n\0");
    let frames = send(1) + &send(2) + "NONSENSE\nreceipt:3\n\n\0" + &send(4);
    let commands = peer.hear(&frames);
    assert_eq!(commands.len(), 2, "what follows a wrong frame is not heard");
    assert_eq!(peer.answer(commands[0].id, &DONE), "RECEIPT\nreceipt-id:1\n\n\0");
    let answer = peer.reply(commands[1].id, &DONE);
    assert!(
        answer.bytes.starts_with(b"RECEIPT\nreceipt-id:2\n\n\0\nERROR\nmessage:unknown command"),
        "{answer:?}"
    );
    assert_eq!(
        (answer.close, &*answer.detail),
        (Some(CloseReason::BadRequest), "unknown command \"NONSENSE\"")
    );
    // Of two that fail the earlier one is told, whichever is known first.
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(&(send(1) + &send(2)));
    let failed = |text: &str| Reply::Queue(Err(QueueError::new(QueueErrorKind::BadName, text)));
    assert_eq!(peer.answer(commands[1].id, &failed("later")), "");
    let answer = peer.reply(commands[0].id, &failed("earlier"));
    assert!(
        answer.bytes.starts_with(b"ERROR\nmessage:bad queue name\\c earlier\nreceipt-id:1\n"),
        "{answer:?}"
    );
}

#[test]
fn a_disconnect_is_answered_last_and_nothing_after_it_is_heard() {
    let mut peer = Peer::connected("1.2");
    let commands = peer.hear(
        "SEND\ndestination:/queue/a\nreceipt:1\n\n\0BEGIN\ntransaction:t\n\n\0DISCONNECT\nreceipt:bye\n\n\0SEND\nwrong\0",
    );
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[1].command, Command::Disconnect);
    assert_eq!(peer.answer(commands[1].id, &Reply::Disconnect), "");
    let answer = peer.reply(commands[0].id, &DONE);
    assert_eq!(text_of(&answer.bytes), "RECEIPT\nreceipt-id:1\n\n\0RECEIPT\nreceipt-id:bye\n\n\0");
    assert_eq!(answer.close, Some(CloseReason::PeerClosed));
    assert_eq!(peer.try_hear(b"anything\0"), Ok(Vec::new()));
}
