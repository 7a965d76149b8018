//! One link: a transport's framing, a dialect on top of it, and a heartbeat.
//!
//! A [`Connection`] turns inbound bytes into [`Command`](crate::Command)s and replies and pushes into bytes,
//! whichever dialect is spoken; the session above sees no difference. It knows no channel's options and no
//! permission, touches no socket and asks no clock. What must stay true: nothing the peer sends makes it
//! panic or grow past its limits, and a broken rule becomes a [`Fault`] with a named close reason.

use crate::centrifuge::Format;
use crate::centrifuge::link::Link;
use crate::close::{Close, CloseReason};
use crate::command::{Connect, Numbered, Subscribe};
use crate::encoding::{Encoding, encode_push};
use crate::error_code::ErrorCode;
use crate::heartbeat::{Heartbeat, Intervals};
use crate::message::{Push, Reply, ReplyError};
use crate::plain::event_stream;
use crate::plain::position_token;
use crate::plain::stream::EventStream;
use crate::position::Position;
use bytes::Bytes;
use std::fmt;
use std::time::Instant;

/// How bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Transport {
    /// RFC 6455.
    WebSocket,
    /// `text/event-stream` over HTTP.
    EventStream,
    /// A response that goes on, a message at a time.
    HttpStream,
    /// RFC 6455, from the server to the client only.
    UniWebSocket,
    /// `text/event-stream`, from the server to the client only.
    UniEventStream,
    /// A response that goes on, from the server to the client only.
    UniHttpStream,
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All of them.
    pub const ALL: [Transport; Transport::COUNT] = [
        Transport::WebSocket,
        Transport::EventStream,
        Transport::HttpStream,
        Transport::UniWebSocket,
        Transport::UniEventStream,
        Transport::UniHttpStream,
    ];

    /// The word in logs, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::EventStream => "sse",
            Transport::HttpStream => "http_stream",
            Transport::UniWebSocket => "uni_websocket",
            Transport::UniEventStream => "uni_sse",
            Transport::UniHttpStream => "uni_http_stream",
        }
    }
}

/// What bytes mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Dialect {
    /// Our own, for clients that have no SDK.
    Plain,
    /// The protocol of the centrifuge SDKs.
    Centrifuge,
}

impl Dialect {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// All of them.
    pub const ALL: [Dialect; Dialect::COUNT] = [Dialect::Plain, Dialect::Centrifuge];

    /// The word in logs, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Plain => "plain",
            Dialect::Centrifuge => "centrifuge",
        }
    }
}

/// Something that came from the peer.
#[derive(Clone, PartialEq, Debug)]
pub enum Inbound {
    /// A command.
    Command(Numbered),
    /// The transport itself wants an answer; these bytes are it.
    Transmit(Bytes),
    /// The peer closes in an orderly way, with a code if it gave one.
    Closed(Option<u16>),
}

/// A rule that the peer broke.
#[derive(Clone, PartialEq, Debug)]
pub struct Fault {
    /// The connection is closed for this.
    pub reason: CloseReason,
    /// What was wrong, for the log.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// What became of a reply.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The bytes to write; empty if the dialect says nothing here.
    pub bytes: Bytes,
    /// The connection ends with it.
    pub close: Option<CloseReason>,
    /// What was refused, for the log; empty unless the connection ends.
    pub detail: String,
}

/// One link of one peer.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// Signs of life.
    pub heartbeat: Heartbeat,
}

#[derive(Debug)]
enum Wire {
    Centrifuge(Link),
    EventStream(EventStream),
}

impl Connection {
    /// A connection of the centrifuge dialect, after its handshake or behind the head of its response.
    pub fn centrifuge(link: Link, now: Instant, intervals: &Intervals, spread: f64) -> Connection {
        let heartbeat = Heartbeat::new(now, intervals, link.answers_beats(), spread);
        Connection { wire: Wire::Centrifuge(link), heartbeat }
    }

    /// A connection of the plain dialect over SSE: `connect`, then `subscribes` are its commands.
    ///
    /// The response's head is written with the answer to the last of them, so that a refusal can still be
    /// an HTTP status. `head` is the head of a successful response, without its empty line.
    pub fn event_stream(
        connect: Connect,
        subscribes: Vec<Subscribe>,
        head: String,
        retry_milliseconds: u64,
        now: Instant,
        intervals: &Intervals,
        spread: f64,
    ) -> Connection {
        Connection {
            wire: Wire::EventStream(EventStream::new(connect, subscribes, head, retry_milliseconds)),
            heartbeat: Heartbeat::new(now, intervals, false, spread),
        }
    }

    /// How bytes travel.
    pub fn transport(&self) -> Transport {
        match &self.wire {
            Wire::Centrifuge(link) => link.transport(),
            Wire::EventStream(_) => Transport::EventStream,
        }
    }

    /// What bytes mean.
    pub fn dialect(&self) -> Dialect {
        match self.wire {
            Wire::Centrifuge(_) => Dialect::Centrifuge,
            Wire::EventStream(_) => Dialect::Plain,
        }
    }

    /// What messages are made of.
    pub fn format(&self) -> Format {
        match &self.wire {
            Wire::Centrifuge(link) => link.style().format,
            Wire::EventStream(_) => Format::Json,
        }
    }

    /// The form of pushes that this connection wants.
    pub fn encoding(&self) -> Encoding {
        match &self.wire {
            Wire::Centrifuge(link) => Encoding::Centrifuge(link.style()),
            Wire::EventStream(stream) if stream.has_one_channel() => Encoding::EventStream,
            Wire::EventStream(_) => Encoding::EventStreamWithoutId,
        }
    }

    /// Whether the peer can say more than it said at the beginning: subscribe again, or show another token. One that
    /// cannot has to reconnect.
    pub fn takes_commands(&self) -> bool {
        matches!(&self.wire, Wire::Centrifuge(link) if !link.is_bare())
    }

    /// Whether pushes may be written: not before the head of a stream.
    pub fn is_open(&self) -> bool {
        match &self.wire {
            Wire::Centrifuge(_) => true,
            Wire::EventStream(stream) => stream.is_open(),
        }
    }

    /// Whether further commands of the peer come by requests of their own, see [`deliver`](Self::deliver).
    pub fn is_emulated(&self) -> bool {
        matches!(&self.wire, Wire::Centrifuge(link) if !link.answers_beats() && !link.is_bare())
    }

    /// Whether nothing but pushes is said.
    pub fn is_bare(&self) -> bool {
        matches!(&self.wire, Wire::Centrifuge(link) if link.is_bare())
    }

    /// Whether beats are announced to the peer, and whether it is told to answer them.
    pub fn beat_terms(&self) -> (bool, bool) {
        match &self.wire {
            Wire::Centrifuge(link) => link.beat_terms(),
            Wire::EventStream(_) => (true, false),
        }
    }

    /// Takes a message that came by another way than the link; [`decode`](Self::decode) gives out its commands.
    pub fn deliver(&mut self, message: Bytes) {
        if let Wire::Centrifuge(link) = &mut self.wire {
            link.deliver(message);
        }
    }

    /// Bytes of messages that wait to be decoded.
    pub fn waiting_bytes(&self) -> usize {
        match &self.wire {
            Wire::Centrifuge(link) => link.waiting_bytes(),
            Wire::EventStream(_) => 0,
        }
    }

    /// Takes what comes next from what the peer sent, advancing `input`; `None` means that more bytes are
    /// needed and all of `input` was taken.
    ///
    /// A message of several commands is given out one command a call, so a caller that is busy with one
    /// leaves the rest here.
    ///
    /// # Errors
    /// The rule that the peer broke; nothing can be taken after that.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Fault> {
        match &mut self.wire {
            Wire::EventStream(stream) => {
                // The request is complete; what follows it on this link means nothing.
                *input = &[];
                Ok(stream.next_command().map(Inbound::Command))
            }
            Wire::Centrifuge(link) => link.decode(input),
        }
    }

    /// Makes the answer to the command `id`.
    pub fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.reply(id, reply),
            Wire::EventStream(stream) => stream.reply(id, reply),
        }
    }

    /// Makes a push for this connection alone.
    pub fn push(&mut self, channel: &str, push: &Push) -> Bytes {
        match &mut self.wire {
            Wire::Centrifuge(link) => link.push(channel, push),
            Wire::EventStream(stream) => {
                if let Push::Subscribe(_) = push {
                    stream.gain_channel();
                }
                encode_push(Encoding::EventStreamWithoutId, channel, push, None, &mut None)
            }
        }
    }

    /// Makes what must stand before a shared push on this connection: the id of an event on a stream of
    /// several channels. `positions` are those of all its channels, the push included.
    pub fn prefix<'a>(&self, positions: impl Iterator<Item = (&'a str, Position)>) -> Option<Bytes> {
        if self.encoding() != Encoding::EventStreamWithoutId {
            return None;
        }
        let mut token = Vec::new();
        for (channel, position) in positions {
            position_token::write_position(channel, &position, &mut token);
        }
        let mut id = Vec::with_capacity(token.len() + 8);
        if !token.is_empty() {
            event_stream::write_id(&token, &mut id);
        }
        Some(id.into())
    }

    /// Makes a beat.
    pub fn beat(&self) -> Bytes {
        match &self.wire {
            Wire::Centrifuge(link) => link.beat(),
            // A comment; none before the response's head.
            Wire::EventStream(stream) if stream.is_open() => Bytes::from_static(event_stream::HEARTBEAT),
            Wire::EventStream(_) => Bytes::new(),
        }
    }

    /// Makes the last words: a close frame, a disconnect event, or the HTTP refusal of a stream that never
    /// began.
    pub fn farewell(&self, close: &Close) -> Bytes {
        match &self.wire {
            Wire::Centrifuge(link) => link.farewell(close),
            Wire::EventStream(stream) => stream.farewell(close),
        }
    }
}

/// The close reason that a refused command amounts to, where refusing it ends the connection.
pub(crate) fn refusal(error: &ReplyError) -> CloseReason {
    let Some(code) = ErrorCode::ALL.iter().find(|known| known.code() == error.code) else {
        // The backend's own.
        return if error.temporary { CloseReason::InternalError } else { CloseReason::BadRequest };
    };
    match code {
        ErrorCode::Internal => CloseReason::InternalError,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired | ErrorCode::Expired => CloseReason::Expired,
        ErrorCode::PermissionDenied => CloseReason::PermissionDenied,
        ErrorCode::LimitExceeded => CloseReason::ChannelLimit,
        ErrorCode::TooManyRequests => CloseReason::TooManyRequests,
        ErrorCode::NotAvailable => CloseReason::NotAvailable,
        ErrorCode::UnrecoverablePosition => CloseReason::InsufficientState,
        ErrorCode::UnknownChannel
        | ErrorCode::MethodNotFound
        | ErrorCode::NotFound
        | ErrorCode::AlreadySubscribed
        | ErrorCode::BadRequest => CloseReason::BadRequest,
    }
}
