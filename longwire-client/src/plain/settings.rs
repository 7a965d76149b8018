//! What a feed is told before it begins: whom it asks for what, by which transport, and how packets are told apart.

use super::{FirstPacket, Format, Framing, Terminator};
use crate::address::{Address, Scheme};
use crate::error::Error;
use crate::options::Options;
use crate::transport::Transport;
use bytes::Bytes;
use longwire_protocol::plain::position_token::PositionToken;
use std::sync::Arc;
use std::time::Duration;

const SCHEMES: &str = "sse+http(s), stream+http(s), poll+http(s), tcp, tls";

/// What a feed is told before it begins.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tried in turn; at least one, all of the first one's scheme.
    pub servers: Vec<Arc<Address>>,
    /// The channels; none where token or backend bring them.
    pub channels: Vec<String>,
    /// Connection token; empty for none.
    pub token: String,
    /// What it calls itself; empty for nothing, and then no session outlives a break.
    pub client: String,
    /// Where an earlier reader stopped, as [`State::position`](super::State::position) said; empty for nowhere.
    pub since: String,
    /// What comes: objects, or data alone.
    pub format: Format,
    /// How long the answer to a poll may take.
    pub wait: Duration,
    /// How packets are told apart, over TCP.
    pub framing: Framing,
    /// What the server takes the first packet for, over TCP.
    pub first_packet: FirstPacket,
    /// Over TCP: what is said how often to show that it is there, and what the server answers. Without it the server's
    /// silence is no sign.
    pub heartbeat: Option<Beat>,
    /// Everything that all clients have.
    pub options: Options,
}

/// A sign of life over TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Beat {
    /// What is said.
    pub says: Bytes,
    /// What is answered; empty if nothing.
    pub answer: Bytes,
    /// How often.
    pub interval: Duration,
}

impl Settings {
    /// What a feed of these servers is without a word more.
    pub fn new(servers: Vec<Arc<Address>>) -> Settings {
        Settings {
            servers,
            channels: Vec::new(),
            token: String::new(),
            client: String::new(),
            since: String::new(),
            format: Format::Json,
            wait: Duration::from_secs(25),
            framing: Framing::Terminator(Terminator::LINE_FEED),
            first_packet: FirstPacket::None,
            heartbeat: None,
            options: Options::default(),
        }
    }

    /// The transport, as the URLs say.
    ///
    /// # Errors
    /// If they disagree, or name none of a feed's.
    pub fn transport(&self) -> Result<Transport, Error> {
        let mut transports = self.servers.iter().map(|server| match server.scheme {
            Scheme::EventStream => Ok(Transport::EventStream),
            Scheme::Stream => Ok(Transport::Stream),
            Scheme::Poll => Ok(Transport::Poll),
            Scheme::Tcp => Ok(Transport::Tcp),
            Scheme::WebSocket | Scheme::Stomp | Scheme::StompWebSocket => Err(Error::bad_argument(format!(
                "{server} is not for a feed: its scheme is none of {SCHEMES}"
            ))),
        });
        let first = transports.next().unwrap_or_else(|| Err(Error::bad_argument("a feed needs a server")))?;
        for transport in transports {
            if transport? != first {
                return Err(Error::bad_argument("the servers of a feed are asked over one transport"));
            }
        }
        Ok(first)
    }

    /// Whether it makes sense over this transport.
    pub(super) fn check(&self, transport: Transport) -> Result<(), Error> {
        let bad = |what: &str| Err(Error::bad_argument(what));
        if self.channels.iter().any(String::is_empty) {
            return bad("a channel has a name");
        }
        if PositionToken::parse(self.since.as_bytes()).is_err() {
            return bad("`since` is no position");
        }
        if self.wait.is_zero() {
            return bad("an answer to a poll needs time");
        }
        if let Framing::Length(field) = &self.framing
            && let Err(what) = field.check()
        {
            return bad(what);
        }
        let is_tcp = transport == Transport::Tcp;
        if self.heartbeat.as_ref().is_some_and(|beat| beat.interval.is_zero() || !is_tcp) {
            return bad("a heartbeat is for TCP, and has an interval");
        }
        let can_ask = !is_tcp || self.first_packet == FirstPacket::Json;
        if !can_ask && (!self.channels.is_empty() || !self.since.is_empty()) {
            return bad("over TCP channels and position are named by a first packet in JSON");
        }
        if self.format == Format::Bare && matches!(transport, Transport::EventStream | Transport::Poll) {
            return bad("server-sent events and polls are made of objects");
        }
        Ok(())
    }
}
