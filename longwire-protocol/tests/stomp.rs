//! One connection of the STOMP dialect, from its CONNECT to its end: what frames become, and what goes back.
//!
//! A small server of the test's own answers commands; what queues and channels do is not looked at here.

use bytes::Bytes;
use longwire_protocol::command::{Command, Connect, Numbered, Subscribe};
use longwire_protocol::connection::{Answer, Connection, Dialect, Inbound, Transport};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::heartbeat::{Due, OFF};
use longwire_protocol::message::{ClientId, ConnectResult, Publication, Push, Reply, SubscribeResult};
use longwire_protocol::queue::{
    AckMode, Consume, Delivered, Expiry, Headers, Meant, Message, NewMessage, QueueCommand, QueueError,
    QueueErrorKind, QueuePush, Verdict,
};
use longwire_protocol::stomp::{Carrier, Limits, Names, Opening};
use longwire_protocol::websocket::frame;
use longwire_protocol::{Close, CloseReason, Epoch, ErrorCode, Position, Since};
use std::sync::Arc;
use std::time::{Duration, Instant};

const OWN: &str = "persistent:true\npriority:4\nexpires:5\n";
const UUID: &str = "00000000-0000-4000-8000-000000000007";

struct Peer {
    connection: Connection,
    /// What the connection said by itself.
    said: Vec<u8>,
    /// Commands that were not answered.
    unanswered: Vec<u32>,
}

fn opening(carrier: Carrier, limits: Limits) -> Opening {
    let hosts = [("shop".to_owned(), "shop:".to_owned())].into();
    let names = Names { server: "longwire/1.0".into(), hosts };
    Opening { carrier, limits: Arc::new(limits), names: Arc::new(names) }
}

/// What was said over TCP, without the line feed behind each frame, which every one has.
fn text_of(bytes: &[u8]) -> String {
    assert_ne!(bytes.last(), Some(&0), "the line feed is missing");
    String::from_utf8(bytes.to_vec()).expect("text").replace("\0\n", "\0")
}

fn client() -> ClientId {
    ClientId::from_random(7)
}

fn welcome() -> Reply {
    Reply::Connect(Box::new(ConnectResult {
        client: client(),
        version: "0",
        ttl_seconds: None,
        data: Bytes::new(),
        subs: Vec::new(),
        ping_seconds: 0,
        pong: false,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
    }))
}

const DONE: Reply = Reply::Queue(Ok(()));

impl Peer {
    fn new(limits: Limits) -> Peer {
        let connection = Connection::stomp(opening(Carrier::Tcp, limits), Instant::now(), 0.5);
        Peer { connection, said: Vec::new(), unanswered: Vec::new() }
    }

    /// A peer that is welcome.
    fn connected(version: &str) -> Peer {
        let mut peer = Peer::new(Limits::default());
        let commands = peer.hear(&format!("CONNECT\naccept-version:{version}\nlogin:alice\nhost:here\n\n\0"));
        assert_eq!(commands.len(), 1);
        let answer = peer.answer(commands[0].id, &welcome());
        assert!(answer.starts_with(&format!("CONNECTED\nversion:{version}\n")), "{answer:?}");
        peer
    }

    fn try_hear(&mut self, mut bytes: &[u8]) -> Result<Vec<Numbered>, String> {
        let mut commands = Vec::new();
        loop {
            match self.connection.decode(&mut bytes) {
                Ok(None) => return Ok(commands),
                Ok(Some(Inbound::Command(numbered))) => {
                    self.unanswered.push(numbered.id);
                    commands.push(numbered);
                }
                Ok(Some(Inbound::Transmit(said))) => self.said.extend_from_slice(&said),
                Ok(Some(closed @ Inbound::Closed(_))) => return Err(format!("{closed:?}")),
                Err(fault) => {
                    let last = self.connection.farewell(&fault.reason.into());
                    return Err(text_of(&last));
                }
            }
        }
    }

    fn hear(&mut self, text: &str) -> Vec<Numbered> {
        self.try_hear(text.as_bytes()).expect("good frames")
    }

    fn hear_commands(&mut self, text: &str) -> Vec<Command> {
        self.hear(text).into_iter().map(|numbered| numbered.command).collect()
    }

    fn hear_one(&mut self, text: &str) -> Command {
        let mut commands = self.hear_commands(text);
        assert_eq!(commands.len(), 1, "{commands:?}");
        commands.remove(0)
    }

    /// The ERROR that a frame is answered with, once all before it is answered.
    fn error(&mut self, text: &str) -> String {
        if let Err(error) = self.try_hear(text.as_bytes()) {
            return error;
        }
        for id in self.unanswered.clone() {
            let answer = self.reply(id, &DONE);
            if answer.close.is_some() {
                return text_of(&answer.bytes);
            }
        }
        panic!("no ERROR: {text:?}")
    }

    fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        self.unanswered.retain(|known| *known != id);
        self.connection.reply(id, reply)
    }

    fn answer(&mut self, id: u32, reply: &Reply) -> String {
        let answer = self.reply(id, reply);
        assert_eq!(answer.close, None, "{answer:?}");
        text_of(&answer.bytes)
    }

    fn said(&mut self) -> String {
        text_of(&std::mem::take(&mut self.said))
    }

    fn publish(&mut self, channel: &str, publication: &Arc<Publication>) -> Vec<String> {
        let position = (publication.offset > 0).then(|| at(publication.offset));
        let push = Push::Publication(publication.clone());
        let shared = encode_push(self.connection.encoding(), channel, &push, position, &mut None);
        let mut copies = Vec::new();
        self.connection.copies(channel, &shared, &mut copies).expect("room");
        copies.chunks(2).map(|parts| text_of(&parts.concat())).collect()
    }

    fn deliver(&mut self, consumer: u32, redeliveries: u32, headers: Headers) -> String {
        let message = Message {
            id: "s-12".into(),
            queue: "jobs".into(),
            headers,
            body: "work".into(),
            priority: 4,
            is_persistent: true,
            expires: 5,
            sent_at: 3,
        };
        let delivered = Delivered { consumer, delivery: 31, message: Arc::new(message), redeliveries };
        let bytes = self.connection.push("", &Push::Queue(QueuePush::Delivered(delivered)));
        text_of(&bytes)
    }
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

fn publication(offset: u64, tags: &[(&str, &str)]) -> Arc<Publication> {
    let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Arc::new(Publication { offset, data: "{}".into(), info: None, tags, except: None, is_json: true })
}

fn consume(command: Command) -> Consume {
    match command {
        Command::Queue(QueueCommand::Consume(consume)) => *consume,
        other => panic!("{other:?}"),
    }
}

fn sent(command: Command) -> NewMessage {
    match command {
        Command::Queue(QueueCommand::Send(message)) => *message,
        other => panic!("{other:?}"),
    }
}

fn settled(command: Command) -> (Meant, Verdict) {
    match command {
        Command::Queue(QueueCommand::Settle { meant, verdict }) => (meant, verdict),
        other => panic!("{other:?}"),
    }
}

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

impl Peer {
    fn connected_any(version: &str) -> Peer {
        if version != "1.0" {
            return Peer::connected(version);
        }
        let mut peer = Peer::new(Limits::default());
        peer.hear("CONNECT\n\n\0");
        peer.answer(1, &welcome());
        peer
    }
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

mod websocket {
    use super::*;

    const KEY: [u8; 4] = [1, 2, 3, 4];

    fn message(kind: frame::Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(kind, false, Some(KEY), payload, &mut out);
        out
    }

    fn peer() -> Peer {
        let carrier = Carrier::WebSocket { is_deflated: false, max_message_bytes: 1 << 20 };
        let connection = Connection::stomp(opening(carrier, Limits::default()), Instant::now(), 0.5);
        Peer { connection, said: Vec::new(), unanswered: Vec::new() }
    }

    fn connected(kind: frame::Opcode) -> Peer {
        let mut peer = peer();
        let commands = peer.try_hear(&message(kind, b"CONNECT\naccept-version:1.2\n\n\0")).expect("good");
        let answer = peer.reply(commands[0].id, &welcome());
        assert_eq!(answer.bytes[0], 0x80 | kind.bits());
        assert!(
            answer.bytes[2..].starts_with(b"CONNECTED\n") || answer.bytes[4..].starts_with(b"CONNECTED\n")
        );
        peer
    }

    #[test]
    fn a_frame_may_be_cut_by_messages_and_a_message_may_have_many() {
        let mut peer = connected(frame::Opcode::Text);
        assert_eq!(peer.connection.transport(), Transport::WebSocket);
        let frames = b"SEND\ndestination:/queue/a\n\n1\0\nSEND\ndestination:/queue/a\n\n2\0";
        assert_eq!(peer.try_hear(&message(frame::Opcode::Text, frames)).map(|it| it.len()), Ok(2));
        let pieces: Vec<u8> =
            frames.iter().flat_map(|byte| message(frame::Opcode::Binary, &[*byte])).collect();
        let commands = peer.try_hear(&pieces).expect("good");
        assert_eq!(commands.len(), 2);
        assert_eq!(sent(commands[1].command.clone()).body, "2");
        assert_eq!(peer.try_hear(&message(frame::Opcode::Ping, b"?")), Ok(vec![]));
        assert_eq!(std::mem::take(&mut peer.said), b"\x8a\x01?");
    }

    #[test]
    fn frames_go_out_one_a_message_in_the_clients_own_kind() {
        let mut text = connected(frame::Opcode::Text);
        assert_eq!(text.connection.beat(), &b"\x81\x01\n"[..]);
        let mut binary = connected(frame::Opcode::Binary);
        assert_eq!(binary.connection.beat(), &b"\x82\x01\n"[..]);
        let subscribe =
            b"SUBSCRIBE\nid:0\ndestination:/topic/x\n\n\0SUBSCRIBE\nid:1\ndestination:/topic/x\n\n\0";
        for (peer, kind) in [(&mut text, 0x81), (&mut binary, 0x82)] {
            peer.try_hear(&message(frame::Opcode::Text, subscribe)).expect("good");
            let push = Push::Publication(publication(3, &[]));
            let shared = encode_push(peer.connection.encoding(), "x", &push, Some(at(3)), &mut None);
            let mut copies = Vec::new();
            peer.connection.copies("x", &shared, &mut copies).expect("room");
            for parts in copies.chunks(2) {
                let whole = parts.concat();
                assert_eq!((whole[0], usize::from(whole[1])), (kind, whole.len() - 2));
                assert!(whole[2..].starts_with(b"MESSAGE\n") && whole.ends_with(b"{}\0"));
            }
        }
        // What is no text cannot go as text.
        let shared = encode_push(
            text.connection.encoding(),
            "x",
            &Push::Message { data: Bytes::from_static(b"\xff"), is_json: false },
            None,
            &mut None,
        );
        let mut copies = Vec::new();
        text.connection.copies("x", &shared, &mut copies).expect("room");
        assert_eq!(copies[0][0], 0x82);
    }

    #[test]
    fn the_end_is_an_error_and_a_close_frame_with_its_code() {
        let ends = |bytes: &[u8], code: u16| {
            let close = &code.to_be_bytes()[..];
            bytes.windows(4).any(|end| end[0] == 0x88 && &end[2..] == close)
        };
        for (reason, code) in [
            (CloseReason::BadRequest, 1002),
            (CloseReason::MessageTooBig, 1009),
            (CloseReason::Drain, 1001),
            (CloseReason::PermissionDenied, 3507),
        ] {
            let bytes = connected(frame::Opcode::Text).connection.farewell(&reason.into());
            assert!(ends(&bytes, code) && bytes[2..6].contains(&b'E'), "{reason}: {bytes:?}");
        }
        let mut peer = connected(frame::Opcode::Text);
        let commands =
            peer.try_hear(&message(frame::Opcode::Text, b"DISCONNECT\nreceipt:b\n\n\0")).expect("good");
        let answer = peer.reply(commands[0].id, &Reply::Disconnect);
        assert!(answer.bytes[2..].starts_with(b"RECEIPT\nreceipt-id:b\n\n\0\x88"), "{answer:?}");
        assert!(ends(&answer.bytes, 1000) && answer.close == Some(CloseReason::PeerClosed));
        // A close of the peer's is answered by its own code, without a word.
        let mut peer = connected(frame::Opcode::Text);
        assert!(peer.try_hear(&message(frame::Opcode::Close, &1001u16.to_be_bytes())).is_err());
        let mut close = Close::from(CloseReason::PeerClosed);
        (close.code, close.text) = (1001, "".into());
        assert_eq!(peer.connection.farewell(&close), &b"\x88\x02\x03\xe9"[..]);
    }
}
