//! Promises of a connection of the STOMP dialect.
//!
//! However a stream is cut, it is the same commands; those of one connection have each a number of their own. Receipts go
//! out once for each frame that wanted one, in the order of the frames, whatever the order of the answers; what comes for a
//! subscription never goes out before its receipt. All that is said are whole frames that the same decoder reads, over
//! WebSocket one a message; after an ERROR nothing is said, and nothing heard.

use crate::input::{Input, pieces};
use bytes::Bytes;
use longwire_protocol::command::{Command, Numbered};
use longwire_protocol::connection::{Connection, Inbound};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::message::{ClientId, ConnectResult, Publication, Push, Reply, SubscribeResult};
use longwire_protocol::queue::{
    Delivered, Headers, Message, QueueCommand, QueueError, QueueErrorKind, QueuePush,
};
use longwire_protocol::stomp::decode::{Bounds, Decoder};
use longwire_protocol::stomp::{Carrier, Limits, Names, Opening};
use longwire_protocol::websocket::{self, Event, Role, frame};
use longwire_protocol::{CloseReason, Epoch, Position};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

const VERSIONS: [&str; 4] = ["", "accept-version:1.0\n", "accept-version:1.0,1.1\n", "accept-version:1.2\n"];

/// Frames that a client may send; `@` stands for a letter, and for a number of its own where a receipt is asked for.
const FRAMES: [&str; 24] = [
    "SEND\ndestination:/queue/@\nreceipt:@#\n\nbody\0",
    "SEND\ndestination:/queue/@\nreply-to:/temp-queue/@\nreceipt:@#\n\n\0",
    "SEND\ndestination:/topic/@\nx:@\nreceipt:@#\n\n{}\0",
    "SEND\ndestination:/topic/@\ntransaction:@\nreceipt:@#\n\n1\0",
    "SEND\ndestination:/queue/@\ntransaction:@\ncontent-length:1\n\n\0\0",
    "SUBSCRIBE\nid:@\ndestination:/topic/@\nreceipt:@#\n\n\0",
    "SUBSCRIBE\nid:@\ndestination:/topic/@\nack:client\nsince-offset:3\n\n\0",
    "SUBSCRIBE\nid:@\ndestination:/queue/@\nack:client-individual\nreceipt:@#\n\n\0",
    "SUBSCRIBE\nid:@\ndestination:/topic/@\ndurable:true\nack:client\nreceipt:@#\n\n\0",
    "SUBSCRIBE\ndestination:/queue/@\n\n\0",
    "UNSUBSCRIBE\nid:@\nreceipt:@#\n\n\0",
    "UNSUBSCRIBE\nid:@\ndestination:/topic/@\ndurable:true\n\n\0",
    "ACK\nid:d-1\nmessage-id:s-1\nreceipt:@#\n\n\0",
    "ACK\nid:t-1\nmessage-id:t-1\nreceipt:@#\n\n\0",
    "NACK\nid:s-1\nmessage-id:s-1\nsubscription:@\nrequeue:false\n\n\0",
    "ACK\nid:d-2\nmessage-id:s-2\ntransaction:@\nreceipt:@#\n\n\0",
    "BEGIN\ntransaction:@\nreceipt:@#\n\n\0",
    "COMMIT\ntransaction:@\nreceipt:@#\n\n\0",
    "ABORT\ntransaction:@\n\n\0",
    "DISCONNECT\nreceipt:@#\n\n\0",
    "\r\n\n\0",
    "CONNECT\n\n\0",
    "SEND\ndestination:/queue/@\n\n",
    "SEND\nx\n",
];

/// Takes the data as how a client connects, then as what it says and when it is answered.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let is_websocket = input.flag();
    let connect = format!("CONNECT\n{}login:a\n\n\0", input.choose(&VERSIONS));
    let seed = input.number();
    let script = input.clone();
    told(is_websocket, &connect, script);
    cut(&connect, seed, input.rest());
}

fn connection(is_websocket: bool) -> Connection {
    let carrier = match is_websocket {
        true => Carrier::WebSocket { is_deflated: false, max_message_bytes: 1 << 16 },
        false => Carrier::Tcp,
    };
    let names = Names { server: "longwire/1".into(), ..Names::default() };
    let opening = Opening { carrier, limits: Arc::new(Limits::default()), names: Arc::new(names) };
    Connection::stomp(opening, Instant::now(), 0.5)
}

fn welcome() -> Reply {
    Reply::Connect(Box::new(ConnectResult {
        client: ClientId::from_random(1),
        version: "1",
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

/// Hears the same twice, differently cut.
fn cut(connect: &str, seed: u64, rest: &[u8]) {
    let heard = |pieces: Vec<&[u8]>| {
        let mut connection = connection(false);
        let mut commands = Vec::new();
        for mut piece in pieces {
            loop {
                match connection.decode(&mut piece) {
                    Ok(None) => break,
                    Ok(Some(Inbound::Command(numbered))) => {
                        if let Command::Connect(_) = numbered.command {
                            connection.reply(numbered.id, &welcome());
                        }
                        commands.push(numbered);
                    }
                    Ok(Some(Inbound::Transmit(_))) => {}
                    Ok(Some(other)) => panic!("{other:?}"),
                    Err(fault) => {
                        assert!(connection.decode(&mut &b"SEND\n\n\0"[..]).is_ok_and(|it| it.is_none()));
                        return (commands, Some(fault));
                    }
                }
            }
        }
        let numbers: BTreeSet<u32> = commands.iter().map(|numbered| numbered.id).collect();
        assert_eq!(numbers.len(), commands.len(), "two commands have one number");
        (commands, None)
    };
    let stream = [connect.as_bytes(), rest].concat();
    let (whole, end) = heard(vec![&stream]);
    for pieces in [pieces(&stream, seed).collect(), stream.chunks(1).collect()] {
        let (commands, its_end) = heard(pieces);
        assert_eq!(commands, whole);
        assert_eq!(its_end.is_some(), end.is_some(), "{end:?} {its_end:?}");
    }
}

/// A client that is told things, and what it heard.
struct Told {
    connection: Connection,
    /// Reads what goes out.
    reader: Decoder,
    frames: Option<websocket::Connection>,
    /// Receipts that are due, in order.
    wanted: VecDeque<String>,
    /// The receipts of subscriptions that were not given, by the subscription.
    unreceipted: BTreeMap<String, String>,
    /// Names of subscriptions that were begun. What comes for a second one may be for the first.
    begun: BTreeSet<String>,
    /// Commands for queues, in order, that are not answered.
    queue: VecDeque<u32>,
    has_ended: bool,
    /// A frame was begun whose body goes on.
    is_in_body: bool,
}

fn told(is_websocket: bool, connect: &str, mut input: Input<'_>) {
    let frames = is_websocket.then(|| websocket::Connection::new(Role::Client, false, 1 << 20));
    let mut told = Told {
        connection: connection(is_websocket),
        reader: Decoder::default(),
        frames,
        wanted: VecDeque::new(),
        unreceipted: BTreeMap::new(),
        begun: BTreeSet::new(),
        queue: VecDeque::new(),
        has_ended: false,
        is_in_body: false,
    };
    told.hear(connect.as_bytes());
    let mut count = 0;
    while !input.is_empty() && !told.has_ended && count < 100 {
        count += 1;
        match input.byte() % 8 {
            0..=3 => {
                let template = input.choose(&FRAMES);
                let mut text = String::new();
                for char in template.chars() {
                    match char {
                        '@' => text.push(char::from(b'a' + input.byte() % 3)),
                        '#' => text.push_str(&count.to_string()),
                        char => text.push(char),
                    }
                }
                told.expect(&text);
                told.hear(text.as_bytes());
            }
            4 => {
                if let Some(id) = told.queue.pop_front() {
                    told.answer(id, &Reply::Queue(Ok(())));
                    told.go_on(&[]);
                }
            }
            5 => told.publish(input.byte(), input.flag().then_some(u64::from(input.byte()) + 1)),
            6 => told.deliver(u32::from(input.byte() % 8), input.bytes(50)),
            _ => {
                let kind = input.choose(QueueErrorKind::ALL);
                if input.flag()
                    && let Some(id) = told.queue.pop_front()
                {
                    told.answer(id, &Reply::Queue(Err(QueueError::new(kind, "\0detail\nof it"))));
                }
            }
        }
    }
    while let Some(id) = told.queue.pop_front().filter(|_| !told.has_ended) {
        told.answer(id, &Reply::Queue(Ok(())));
        told.go_on(&[]);
    }
    assert!(told.has_ended || told.wanted.is_empty(), "never receipted: {:?}", told.wanted);
}

impl Told {
    /// Notes what a frame asks for, in case it is good.
    fn expect(&mut self, text: &str) {
        let is_body = std::mem::replace(&mut self.is_in_body, !text.ends_with('\0'));
        if is_body {
            return;
        }
        let receipt = text.lines().find_map(|line| line.strip_prefix("receipt:"));
        let id = text.lines().find_map(|line| line.strip_prefix("id:")).unwrap_or_default();
        if text.starts_with("UNSUBSCRIBE") {
            // Another one may have its name from here on.
            self.unreceipted.remove(id);
        }
        let is_first = !text.starts_with("SUBSCRIBE") || self.begun.insert(id.to_owned());
        if let Some(receipt) = receipt {
            self.wanted.push_back(receipt.to_owned());
            if text.starts_with("SUBSCRIBE") && is_first {
                self.unreceipted.insert(id.to_owned(), receipt.to_owned());
            }
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        let mut wire = Vec::new();
        if self.frames.is_some() {
            frame::encode(frame::Opcode::Text, false, Some([7; 4]), bytes, &mut wire);
        } else {
            wire.extend_from_slice(bytes);
        }
        self.go_on(&wire);
    }

    /// Decodes this and what waits, as far as it may be decoded.
    fn go_on(&mut self, mut wire: &[u8]) {
        while !self.has_ended {
            // What is behind a COMMIT waits until the queues have done their part of it.
            while self.connection.is_behind()
                && let Some(id) = self.queue.pop_front()
            {
                self.answer(id, &Reply::Queue(Ok(())));
            }
            match self.connection.decode(&mut wire) {
                Ok(None) => return,
                Ok(Some(Inbound::Transmit(said))) => self.listen(&said),
                Ok(Some(Inbound::Command(numbered))) => self.command(numbered),
                Ok(Some(other)) => panic!("{other:?}"),
                Err(fault) => {
                    let last = self.connection.farewell(&fault.reason.into());
                    self.listen(&last);
                    assert!(self.has_ended, "a fault without an ERROR");
                }
            }
        }
    }

    /// Answers at once what has nothing to do with queues, as the server does.
    fn command(&mut self, Numbered { id, command }: Numbered) {
        match command {
            Command::Queue(command) => {
                if let QueueCommand::Transaction(actions) = &command {
                    let is_allowed =
                        |it: &QueueCommand| matches!(it, QueueCommand::Send(_) | QueueCommand::Settle { .. });
                    assert!(!actions.is_empty() && actions.iter().all(is_allowed), "{actions:?}");
                }
                self.queue.push_back(id);
            }
            Command::Connect(_) => self.answer(id, &welcome()),
            Command::Subscribe(ask) => {
                let position = Position { offset: 3, epoch: Epoch::from_random(1) };
                let result = SubscribeResult {
                    position: Some(position),
                    was_recovering: ask.recover.is_some(),
                    recovered: ask.recover.is_some(),
                    publications: ask.recover.iter().map(|_| publication(4)).collect(),
                    ..SubscribeResult::default()
                };
                self.answer(id, &Reply::Subscribe(Box::new(result)));
            }
            Command::Unsubscribe { .. } => self.answer(id, &Reply::Unsubscribe),
            Command::Publish { .. } => self.answer(id, &Reply::Publish),
            Command::Disconnect => {
                while let Some(before) = self.queue.pop_front() {
                    self.answer(before, &Reply::Queue(Ok(())));
                }
                self.answer(id, &Reply::Disconnect);
                assert!(self.has_ended, "a DISCONNECT does not end the connection");
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, id: u32, reply: &Reply) {
        let answer = self.connection.reply(id, reply);
        self.listen(&answer.bytes);
        let is_refused = matches!(reply, Reply::Queue(Err(_)));
        assert!(!is_refused || answer.close.is_some(), "a refusal leaves the connection open");
        if let Some(reason) = answer.close {
            let is_left = reason == CloseReason::PeerClosed && self.wanted.is_empty();
            assert!(self.has_ended || is_left, "{reason} without an ERROR");
            self.has_ended = true;
        }
    }

    fn publish(&mut self, letter: u8, offset: Option<u64>) {
        let channel = char::from(b'a' + letter % 3).to_string();
        let position = offset.map(|offset| Position { offset, epoch: Epoch::from_random(1) });
        let push = Push::Publication(publication(offset.unwrap_or(0)));
        let shared = encode_push(self.connection.encoding(), &channel, &push, position, &mut None);
        let mut copies = Vec::new();
        self.connection.copies(&channel, &shared, &mut copies).expect("little waits");
        self.listen(&copies.concat());
    }

    fn deliver(&mut self, consumer: u32, text: &[u8]) {
        if !self.queue.is_empty() {
            // A queue answers who consumes before it delivers.
            return;
        }
        let text = String::from_utf8_lossy(text);
        let message = Message {
            id: "s-1".into(),
            queue: "a".into(),
            headers: Headers::of((!text.is_empty()).then_some((&*text, &*text))),
            body: Bytes::copy_from_slice(text.as_bytes()),
            priority: 4,
            is_persistent: true,
            expires: 0,
            sent_at: 0,
        };
        let delivered =
            Delivered { consumer, delivery: 1, message: Arc::new(message), redeliveries: consumer % 2 };
        let bytes = self.connection.push("", &Push::Queue(QueuePush::Delivered(delivered)));
        self.listen(&bytes);
    }

    /// Reads what goes out.
    fn listen(&mut self, bytes: &[u8]) {
        let Some(mut frames) = self.frames.take() else { return self.listen_to(bytes) };
        let mut rest = bytes;
        while let Some(event) = frames.decode(&mut rest).expect("good frames") {
            match event {
                Event::Message { data, .. } => {
                    self.listen_to(&data);
                    assert!(self.reader.is_idle(), "a message ends within a frame");
                }
                Event::Close { .. } => {
                    assert!(rest.is_empty(), "something follows a close frame");
                    self.has_ended = true;
                }
                other => panic!("{other:?}"),
            }
        }
        self.frames = Some(frames);
    }

    fn listen_to(&mut self, mut bytes: &[u8]) {
        let bounds = Bounds::of(&Limits::default());
        while let Some(frame) = self.reader.decode(&mut bytes, &bounds).expect("whole frames") {
            assert!(!self.has_ended, "something follows an ERROR");
            let header = |name: &str| {
                let mut headers = frame.headers(longwire_protocol::stomp::Version::V12);
                headers.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
            };
            match frame.command() {
                "CONNECTED" => assert!(header("version").is_some() && header("session").is_some()),
                "RECEIPT" => {
                    let receipt = header("receipt-id").expect("a receipt says of what");
                    assert_eq!(Some(&receipt), self.wanted.front(), "receipts are out of order");
                    self.wanted.pop_front();
                    self.unreceipted.retain(|_, awaited| *awaited != receipt);
                }
                "MESSAGE" => {
                    assert_eq!(header("content-length"), Some(frame.body.len().to_string()));
                    assert!(header("destination").is_some() && header("message-id").is_some());
                    if let Some(id) = header("subscription") {
                        assert!(!self.unreceipted.contains_key(&id), "a message comes before the receipt");
                    }
                }
                "ERROR" => {
                    assert!(header("message").is_some());
                    self.has_ended = true;
                }
                other => panic!("{other}"),
            }
        }
        assert!(self.reader.is_idle(), "a part of a frame was said");
    }
}

fn publication(offset: u64) -> Arc<Publication> {
    let tags = vec![("ack".to_owned(), "x".to_owned()), ("t".to_owned(), "a:b\n\\".to_owned())];
    Arc::new(Publication { offset, data: "{}".into(), info: None, tags, except: None, is_json: true })
}
