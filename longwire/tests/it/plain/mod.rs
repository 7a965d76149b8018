//! The plain dialect as clients speak it that have nothing of ours: raw bytes over TCP.
//!
//! A file is a transport, `limits` what every one of them refuses, `session` a client's life across them. The helpers
//! here only save typing: each opens what a browser, `fetch` or a socket would open.

mod answers;
mod hostile;
mod limits;
mod poll;
mod send;
mod session;
mod stream;
mod tcp;
mod ws;

use crate::harness::{End, Link, Raw, Response, TestServer, upgrade};
use longwire::config::{Config, Listener, Protocol};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// The epoch of a channel, which is made if nobody knows it.
#[track_caller]
pub(crate) fn epoch_of(server: &TestServer, channel: &str) -> String {
    let top = server.api("history", &json!({"channel": channel}));
    top["result"]["epoch"].as_str().expect("an epoch").to_owned()
}

/// Opens a WebSocket.
#[track_caller]
fn websocket(server: &TestServer, query: &str) -> Raw {
    Raw::plain(server, query)
}

/// Opens a WebSocket and reads what it begins with.
#[track_caller]
fn welcomed(server: &TestServer, query: &str) -> (Raw, Value) {
    let mut socket = websocket(server, query);
    let welcome = socket.value();
    assert!(["subscribed", "recovered"].contains(&welcome["type"].as_str().unwrap_or_default()), "{welcome}");
    (socket, welcome)
}

/// A stream of lines.
struct Lines {
    link: Link,
    head: Response,
    is_chunked: bool,
    /// What was taken out of chunks and not used.
    text: Vec<u8>,
}

impl Lines {
    /// Asks for a stream with more headers (each with its line end), and expects one.
    #[track_caller]
    fn open(server: SocketAddr, query: &str, headers: &str) -> Lines {
        Lines::of_request(server, &format!("GET /stream?{query} HTTP/1.1\r\nHost: {server}\r\n{headers}\r\n"))
    }

    #[track_caller]
    fn of_request(server: SocketAddr, request: &str) -> Lines {
        let mut link = Link::open(server);
        link.send(request.as_bytes());
        let head = link.response();
        assert_eq!(head.status, 200, "{} {}", head.head, head.text());
        let is_chunked = head.header("transfer-encoding") == Some("chunked");
        Lines { link, head, is_chunked, text: Vec::new() }
    }

    /// The next line, without its end; `None` at the end of the body.
    fn try_line(&mut self) -> Result<Option<String>, End> {
        if !self.is_chunked {
            return match self.link.take_up_to(b"\n") {
                Ok(line) => Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned())),
                Err(End::Closed) => Ok(None),
                Err(end) => Err(end),
            };
        }
        loop {
            if let Some(at) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=at).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let size = self.link.take_up_to(b"\r\n")?;
            let size = String::from_utf8_lossy(&size).trim_end().to_owned();
            let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
            let mut chunk = self.link.take(size + 2)?;
            assert!(chunk.ends_with(b"\r\n"), "a chunk has its end");
            if size == 0 {
                return Ok(None);
            }
            chunk.truncate(size);
            self.text.extend(chunk);
        }
    }

    /// The next line that is not empty.
    #[track_caller]
    fn line(&mut self) -> String {
        loop {
            match self.try_line() {
                Ok(Some(line)) if line.is_empty() => {}
                Ok(Some(line)) => return line,
                other => panic!("no line but {other:?}"),
            }
        }
    }

    #[track_caller]
    fn value(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("a line is JSON")
    }
}

/// Polls on a connection of its own.
#[track_caller]
fn poll(server: &TestServer, query: &str) -> Response {
    crate::harness::get(server.address, &format!("/poll?{query}"), "")
}

/// Polls and expects something to be told.
#[track_caller]
fn polled(server: &TestServer, query: &str) -> Value {
    let response = poll(server, query);
    assert_eq!(response.status, 200, "{query}: {} {}", response.head, response.text());
    serde_json::from_slice(&response.body).expect("an answer is JSON")
}

/// Where an answer says that its reader stands.
#[track_caller]
fn since(answer: &Value) -> String {
    answer["since"].as_str().unwrap_or_else(|| panic!("no position in {answer}")).to_owned()
}

/// The same without the number of the answer, which only its session knows.
#[track_caller]
fn stands(answer: &Value) -> String {
    let since = since(answer);
    since.split(',').filter(|entry| !entry.starts_with('=')).collect::<Vec<_>>().join(",")
}

/// Text for a query.
fn quoted(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' => quoted.push(byte.into()),
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
        quoted
    })
}

/// A server that besides HTTP listens for packets; where it does that is in the result.
fn tcp_server(change: impl FnOnce(&mut Config), set: impl FnOnce(&mut Listener)) -> (TestServer, SocketAddr) {
    let server = TestServer::with(|config| {
        let mut listener = Listener::new("devices", SocketAddr::from(([127, 0, 0, 1], 0)), Protocol::Tcp);
        set(&mut listener);
        config.listeners.push(listener);
        change(config);
    });
    let address = server.server().addresses()[1];
    (server, address)
}

/// Packets over TCP that end with a line feed.
struct Packets {
    link: Link,
}

impl Packets {
    #[track_caller]
    fn open(server: SocketAddr) -> Packets {
        Packets { link: Link::open(server) }
    }

    fn send(&mut self, packet: &str) {
        self.link.send(format!("{packet}\n").as_bytes());
    }

    #[track_caller]
    fn packet(&mut self) -> String {
        let packet = self.link.take_up_to(b"\n").unwrap_or_else(|end| panic!("no packet: {end:?}"));
        String::from_utf8(packet).expect("a packet is text").trim_end().to_owned()
    }

    #[track_caller]
    fn value(&mut self) -> Value {
        serde_json::from_str(&self.packet()).expect("a packet is JSON")
    }
}
