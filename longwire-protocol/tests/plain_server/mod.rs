//! The server's half of a plain link, and what is said over it: for the tests of what it writes and of what it hears.

#![allow(dead_code, reason = "each test uses its part")]

use bytes::Bytes;
use longwire_protocol::command::{Command, Connect, Numbered, Subscribe};
use longwire_protocol::connection::{Answer, Connection, Inbound};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::heartbeat::Intervals;
use longwire_protocol::message::{ClientId, ClientInfo, ConnectResult, SubscribeResult};
use longwire_protocol::plain::{
    Beats, ByteOrder, Carrier, Counts, FirstPacket, Format, Framing, LengthField, Opening, Terminator,
};
use longwire_protocol::websocket::frame::{self};
use longwire_protocol::websocket::{self, Event, Kind, Role};
use longwire_protocol::{Epoch, Position, Publication, Push, Reply, Since};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const CLIENT: &str = "01234567-89ab-4def-8123-456789abcdef";
pub(crate) const INTERVALS: Intervals = Intervals {
    interval: Duration::from_secs(25),
    timeout: Duration::from_secs(8),
    max_silence: Duration::from_secs(30),
};
pub(crate) const LINES: Carrier = Carrier::Lines { head: String::new(), is_chunked: false };
pub(crate) const SOCKET: Carrier = Carrier::WebSocket { is_deflated: false, max_message_bytes: 1000 };

pub(crate) fn tcp(framing: Framing, first_packet: FirstPacket) -> Carrier {
    Carrier::Tcp { framing, max_packet_bytes: 1000, first_packet }
}

pub(crate) fn lines_over_tcp() -> Carrier {
    tcp(Framing::Terminator(Terminator::LINE_FEED), FirstPacket::None)
}

pub(crate) fn poll() -> Carrier {
    Carrier::Poll { keep_alive: true, is_first: false, wait: Duration::from_secs(25), head: String::new() }
}

pub(crate) fn length(bytes: u8, is_whole: bool) -> Framing {
    let order = ByteOrder::Big;
    Framing::Length(LengthField {
        bytes,
        order,
        offset: 0,
        body_offset: bytes,
        counts: Counts::Body,
        is_whole,
    })
}

pub(crate) fn beats() -> Beats {
    Beats {
        messages: vec!["ping".into(), "Hello!".into(), Bytes::from_static(b"\x09")],
        answer: "pong".into(),
        ping_packet: "are you there".into(),
    }
}

pub(crate) fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

pub(crate) fn ask(channel: &str, is_returning: bool) -> Subscribe {
    let recover = is_returning.then_some(Since { offset: 3, epoch: Some(at(3).epoch) });
    Subscribe { channel: channel.to_owned(), recover, ..Subscribe::default() }
}

pub(crate) fn publication(data: &'static str, offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        offset,
        data: Bytes::from_static(data.as_bytes()),
        info: None,
        tags: vec![],
        except: None,
        is_json: true,
    })
}

pub(crate) fn bytes_of(data: &'static [u8]) -> Arc<Publication> {
    Arc::new(Publication { data: Bytes::from_static(data), is_json: false, ..(*publication("", 0)).clone() })
}

pub(crate) fn message(data: &'static str) -> Push {
    Push::Message { data: Bytes::from_static(data.as_bytes()), is_json: true }
}

pub(crate) fn info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: "7".into(),
        client: ClientId::parse(CLIENT).unwrap(),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    })
}

pub(crate) fn connected(subs: Vec<(String, SubscribeResult)>) -> ConnectResult {
    ConnectResult {
        client: ClientId::parse(CLIENT).unwrap(),
        version: "v",
        ttl_seconds: None,
        data: Bytes::new(),
        subs,
        ping_seconds: 25,
        pong: false,
        session: "n/s".to_owned(),
        node: "n".to_owned(),
        resumed: false,
        lost: false,
    }
}

pub(crate) fn stands_at(offset: u64) -> SubscribeResult {
    SubscribeResult { position: Some(at(offset)), ..SubscribeResult::default() }
}

pub(crate) fn missed(from: u64, publications: Vec<Arc<Publication>>) -> SubscribeResult {
    SubscribeResult { was_recovering: true, recovered: true, publications, ..stands_at(from) }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One link of the server, and what it wrote.
pub(crate) struct Server {
    /// The link.
    pub(crate) link: Connection,
    /// What it wrote.
    pub(crate) written: Vec<u8>,
}

impl Server {
    pub(crate) fn new(carrier: Carrier, format: Format, subscribes: Vec<Subscribe>) -> Server {
        let connect = Connect { client_name: "device-42".to_owned(), ..Connect::default() };
        let opening = Opening { connect, subscribes, carrier, format, beats: Arc::new(beats()) };
        Server { link: Connection::plain(opening, Instant::now(), &INTERVALS, 0.5), written: Vec::new() }
    }

    /// A link whose client is welcome in the channel `a`, which stands at 3.
    pub(crate) fn welcome(carrier: Carrier, format: Format) -> Server {
        let mut server = Server::new(carrier, format, vec![ask("a", false)]);
        server.connect(connected(vec![]));
        server.subscribe(stands_at(3));
        assert!(server.link.is_open());
        server.written.clear();
        server
    }

    pub(crate) fn next(&mut self) -> Option<Inbound> {
        self.link.decode(&mut &b""[..]).unwrap()
    }

    pub(crate) fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        let answer = self.link.reply(id, reply);
        self.written.extend_from_slice(&answer.bytes);
        answer
    }

    pub(crate) fn connect(&mut self, result: ConnectResult) {
        let Some(Inbound::Command(Numbered { id: 1, command: Command::Connect(_) })) = self.next() else {
            panic!("connect comes first");
        };
        self.reply(1, &Reply::Connect(Box::new(result)));
    }

    pub(crate) fn subscribe(&mut self, result: SubscribeResult) {
        let Some(Inbound::Command(Numbered { id, command: Command::Subscribe(_) })) = self.next() else {
            panic!("then the subscribes");
        };
        self.reply(id, &Reply::Subscribe(Box::new(result)));
    }

    /// What is written for a push that all readers share.
    pub(crate) fn shared(&self, channel: &str, push: &Push, position: Option<Position>) -> Bytes {
        assert!(self.link.encoding().carries(channel, push));
        encode_push(self.link.encoding(), channel, push, position, &mut None)
    }

    /// What becomes of everything that the peer sends.
    pub(crate) fn hear(&mut self, mut bytes: &[u8]) -> Vec<Inbound> {
        std::iter::from_fn(|| self.link.decode(&mut bytes).unwrap()).collect()
    }
}

pub(crate) fn content(data: &'static [u8], is_text: bool) -> Inbound {
    Inbound::Command(Numbered {
        id: 0,
        command: Command::Message { data: Bytes::from_static(data), is_text },
    })
}

pub(crate) fn from_client(kind: Kind, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind.into(), false, Some([1, 2, 3, 4]), data, &mut out);
    out
}

/// Reads the server's frames.
pub(crate) fn frames(bytes: &[u8], is_deflated: bool) -> Vec<(Kind, String)> {
    let mut connection = websocket::Connection::new(Role::Client, is_deflated, 100_000);
    let mut input = bytes;
    let mut all = Vec::new();
    while let Some(event) = connection.decode(&mut input).unwrap() {
        let Event::Message { kind, data } = event else { panic!("{event:?}") };
        all.push((kind, String::from_utf8_lossy(&data).into_owned()));
    }
    all
}

/// Head and body of a response, whose length must be what it says.
pub(crate) fn body_of(response: &[u8]) -> (String, String) {
    let response = text(response);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length, Some(body.len().to_string().as_str()));
    let _: serde_json::Value = serde_json::from_str(body).unwrap();
    (format!("{head}\r\n"), body.to_owned())
}
