//! One connection of the STOMP dialect, from its CONNECT to its end: what frames become, and what goes back.
//!
//! A small server of the test's own answers commands; what queues and channels do is not looked at here.

mod channels;
mod conversation;
mod queues;
mod websocket;

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
