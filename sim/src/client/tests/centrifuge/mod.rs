//! centrifuge-js against the server's half: [`Pair`] joins the two; what each thing said means is tested in
//! `talk`, what happens when things break in `faults`.

mod faults;
mod talk;

use super::*;
use crate::client::Reply;
use longwire_protocol::Connection;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::centrifuge::json;
use longwire_protocol::centrifuge::link::{Beats, Link};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::message::{self, Push, ReplyError};
use longwire_protocol::websocket::{self, Role, frame, handshake};
use longwire_protocol::{Close, CloseReason, ErrorCode};
use std::time::Instant;

/// The server's half of one connection.
struct Server {
    frames: websocket::Connection,
    connection: Connection,
}

/// What happened to a client.
enum Step {
    /// The server's bytes, joined as far as nothing else came between.
    Bytes(Vec<u8>),
    Act(Action),
}

/// A client and the server it is connected to.
struct Pair {
    client: Box<dyn Client>,
    server: Server,
    now: Instant,
    out: Output,
    script: Vec<Step>,
}

impl Pair {
    /// Opens a connection: the handshake is over, and the client's first message is what it sent.
    fn open(mut client: Box<dyn Client>, now: Instant) -> Pair {
        let mut out = Output::default();
        client.opened(now, &mut out);
        let (head, consumed) = parse_request_head(&out.bytes, 4096, 50).unwrap().unwrap();
        assert_eq!(
            (head.path, head.host, consumed),
            ("/connection/websocket", "node-1:8000", out.bytes.len())
        );
        let options = handshake::Options {
            allowed_origins: &AllowedOrigins::default(),
            subprotocols: &["centrifuge-json"],
            allow_deflate: true,
        };
        let accept = handshake::accept(&head, &options).unwrap();
        let server = Server {
            frames: websocket::Connection::new(Role::Server, accept.deflate, 65_536),
            connection: Connection::centrifuge(
                Link::websocket(Format::Json, false, Beats::Messages, accept.deflate, 65_536),
                now,
                &INTERVALS,
                0.5,
            ),
        };
        let mut pair = Pair { client, server, now, out: Output::default(), script: Vec::new() };
        pair.send(&accept.response);
        pair
    }

    /// A client that is connected and subscribed to its channels, at offset 5.
    fn subscribed(channels: &[&str]) -> Pair {
        let mut pair = Pair::open(make(Kind::WebSocket, settings(channels)), Instant::now());
        pair.reply(1, message::Reply::Connect(Box::new(connected(vec![]))));
        for id in 2..2 + channels.len() as u32 {
            pair.reply(id, message::Reply::Subscribe(Box::new(fresh(5))));
        }
        pair.texts();
        pair.out.events.clear();
        pair
    }

    fn send(&mut self, bytes: &[u8]) {
        match self.script.last_mut() {
            Some(Step::Bytes(before)) => before.extend_from_slice(bytes),
            _ => self.script.push(Step::Bytes(bytes.to_vec())),
        }
        self.client.handle_bytes(self.now, bytes, &mut self.out);
    }

    fn line(&mut self, text: &str) {
        self.send(&frame::message(websocket::Kind::Text, text.as_bytes()));
    }

    fn reply(&mut self, id: u32, reply: message::Reply) {
        let answer = self.server.connection.reply(id, &reply);
        self.send(&answer.bytes);
    }

    fn refuse(&mut self, id: u32, code: ErrorCode) {
        self.reply(id, code.into());
    }

    fn push(&mut self, channel: &str, push: Push) {
        let bytes = encode_push(self.server.connection.encoding(), channel, &push, None, &mut None);
        self.send(&bytes);
    }

    fn close(&mut self, close: Close) {
        let farewell = self.server.connection.farewell(&close);
        self.send(&farewell);
    }

    fn act(&mut self, action: Action) -> bool {
        self.script.push(Step::Act(action.clone()));
        self.client.act(self.now, action, &mut self.out)
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.client.handle_timeout(self.now, &mut self.out);
    }

    /// The messages that the client sent since the last call. The real decoder understands each of them.
    fn texts(&mut self) -> Vec<String> {
        let bytes = std::mem::take(&mut self.out.bytes);
        let mut input = &bytes[..];
        let mut texts = Vec::new();
        while let Some(event) = self.server.frames.decode(&mut input).unwrap() {
            if let websocket::Event::Message { mut data, .. } = event {
                texts.push(String::from_utf8(data.to_vec()).unwrap());
                while let Some(command) = json::decode_next(&mut data) {
                    command.unwrap();
                }
            }
        }
        texts
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.out.events)
    }

    /// Loses this connection and opens another.
    fn reconnect(mut self) -> Pair {
        self.client.lost(self.now);
        assert_eq!(self.client.poll_timeout(), None);
        Pair::open(self.client, self.now)
    }

    fn nonsense(&self) -> &str {
        match &self.out.hang_up {
            Some(HangUp::Nonsense(what)) => what,
            other => panic!("expected nonsense, not {other:?}"),
        }
    }
}

fn subscribe(id: u32, channel: &str, more: &str) -> String {
    format!(
        "{{\"subscribe\":{{\"channel\":\"{channel}\",\"positioned\":true,\"recoverable\":true,\"join_leave\":true,\"flag\":1{more}}},\"id\":{id}}}"
    )
}

fn begun(channel: &str, offset: u64) -> Event {
    Event::Subscribed {
        channel: channel.to_owned(),
        position: told(offset),
        was_recovering: false,
        recovered: false,
        since: None,
        filter: None,
        publications: vec![],
    }
}
