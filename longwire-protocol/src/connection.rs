//! One link: a transport's framing, a dialect on top of it, and a heartbeat.
//!
//! A [`Connection`] turns inbound bytes into [`Command`](crate::Command)s and replies and pushes into bytes,
//! whichever dialect is spoken; the session above sees no difference. It knows no channel's options and no
//! permission, touches no socket and asks no clock. What must stay true: nothing the peer sends makes it
//! panic or grow past its limits, and a broken rule becomes a [`Fault`] with a named close reason.

use crate::centrifuge::json;
use crate::close::{Close, CloseReason};
use crate::command::{Connect, Numbered, Subscribe};
use crate::error_code::ErrorCode;
use crate::heartbeat::{Heartbeat, Intervals};
use crate::message::{Push, Reply};
use crate::plain::event_stream;
use crate::plain::position_token;
use crate::plain::stream::EventStream;
use crate::position::Position;
use crate::websocket::{self, Compressor, Event, Kind, Role, frame};
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
}

impl Transport {
    /// How many there are.
    pub const COUNT: usize = 2;
    /// All of them.
    pub const ALL: [Transport; Transport::COUNT] = [Transport::WebSocket, Transport::EventStream];

    /// The word in logs, metrics and webhooks.
    pub fn as_str(self) -> &'static str {
        match self {
            Transport::WebSocket => "websocket",
            Transport::EventStream => "sse",
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

/// The forms in which a push is made once and shared by all connections that want that form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Centrifuge JSON in a WebSocket frame.
    CentrifugeJson,
    /// The same, compressed.
    CentrifugeJsonDeflated,
    /// An event with its id, for streams of one channel.
    EventStream,
    /// An event without its id, for streams of several channels, whose id each makes its own.
    EventStreamWithoutId,
}

impl Encoding {
    /// How many there are.
    pub const COUNT: usize = 4;
}

/// Makes the wire form of a push that goes to many connections.
///
/// The compressor is made on first use; small messages are not worth one and stay as they are.
pub fn encode_push(
    encoding: Encoding,
    channel: &str,
    push: &Push,
    position: Option<Position>,
    compressor: &mut Option<Box<Compressor>>,
) -> Bytes {
    match encoding {
        Encoding::CentrifugeJson => frame::message(Kind::Text, &centrifuge_push(channel, push)),
        Encoding::CentrifugeJsonDeflated => {
            let text = centrifuge_push(channel, push);
            let compressor = compressor.get_or_insert_with(Box::default);
            let compressed = compressor.compress_message(Kind::Text, &text);
            compressed.unwrap_or_else(|| frame::message(Kind::Text, &text))
        }
        Encoding::EventStream => {
            let mut event = Vec::with_capacity(512);
            if let Some(position) = position {
                let mut token = Vec::new();
                position_token::write_position(channel, &position, &mut token);
                event_stream::write_id(&token, &mut event);
            }
            event_stream::encode_push(channel, push, &mut event);
            event.into()
        }
        Encoding::EventStreamWithoutId => {
            let mut event = Vec::with_capacity(256);
            event_stream::encode_push(channel, push, &mut event);
            event.into()
        }
    }
}

fn centrifuge_push(channel: &str, push: &Push) -> Vec<u8> {
    let mut text = Vec::with_capacity(256);
    json::encode_push(channel, push, &mut text);
    text
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
    Centrifuge {
        frames: websocket::Connection,
        /// What is left of a message whose commands are taken one by one; rarely anything.
        message: Option<Box<Bytes>>,
        is_deflated: bool,
    },
    EventStream(EventStream),
}

impl Connection {
    /// A connection of the centrifuge dialect, JSON over WebSocket, after the handshake.
    pub fn centrifuge_json(
        is_deflated: bool,
        max_message_bytes: u32,
        now: Instant,
        intervals: &Intervals,
        spread: f64,
    ) -> Connection {
        Connection {
            wire: Wire::Centrifuge {
                frames: websocket::Connection::new(Role::Server, is_deflated, max_message_bytes),
                message: None,
                is_deflated,
            },
            heartbeat: Heartbeat::new(now, intervals, true, spread),
        }
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
        match self.wire {
            Wire::Centrifuge { .. } => Transport::WebSocket,
            Wire::EventStream(_) => Transport::EventStream,
        }
    }

    /// What bytes mean.
    pub fn dialect(&self) -> Dialect {
        match self.wire {
            Wire::Centrifuge { .. } => Dialect::Centrifuge,
            Wire::EventStream(_) => Dialect::Plain,
        }
    }

    /// The form of pushes that this connection wants.
    pub fn encoding(&self) -> Encoding {
        match &self.wire {
            Wire::Centrifuge { is_deflated: false, .. } => Encoding::CentrifugeJson,
            Wire::Centrifuge { is_deflated: true, .. } => Encoding::CentrifugeJsonDeflated,
            Wire::EventStream(stream) if stream.has_one_channel() => Encoding::EventStream,
            Wire::EventStream(_) => Encoding::EventStreamWithoutId,
        }
    }

    /// Whether the peer can subscribe again by itself after the server ended a subscription; one that
    /// cannot has to reconnect.
    pub fn can_resubscribe(&self) -> bool {
        matches!(self.wire, Wire::Centrifuge { .. })
    }

    /// Whether pushes may be written: not before the head of a stream.
    pub fn is_open(&self) -> bool {
        match &self.wire {
            Wire::Centrifuge { .. } => true,
            Wire::EventStream(stream) => stream.is_open(),
        }
    }

    /// Whether the peer can answer a beat.
    pub fn is_two_way(&self) -> bool {
        matches!(self.wire, Wire::Centrifuge { .. })
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
            Wire::Centrifuge { frames, message, .. } => loop {
                if let Some(rest) = message {
                    if let Some(command) = json::decode_next(rest) {
                        return command.map(|command| Some(Inbound::Command(command))).map_err(bad_command);
                    }
                    *message = None;
                }
                let event = frames
                    .decode(input)
                    .map_err(|violation| Fault { reason: violation.reason, what: violation.what.into() })?;
                match event {
                    None => return Ok(None),
                    Some(Event::Ping(payload)) => return Ok(Some(Inbound::Transmit(frame::pong(&payload)))),
                    Some(Event::Pong(_)) => {}
                    Some(Event::Close { code, .. }) => return Ok(Some(Inbound::Closed(code))),
                    Some(Event::Message { kind: Kind::Binary, .. }) => {
                        return Err(bad_request("binary message on a JSON connection"));
                    }
                    Some(Event::Message { kind: Kind::Text, mut data }) => {
                        let Some(command) = json::decode_next(&mut data) else {
                            return Err(bad_request("message without a command"));
                        };
                        if data.iter().any(|byte| !byte.is_ascii_whitespace()) {
                            *message = Some(Box::new(data));
                        }
                        return command.map(|command| Some(Inbound::Command(command))).map_err(bad_command);
                    }
                }
            },
        }
    }

    /// Makes the answer to the command `id`.
    pub fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        match &mut self.wire {
            Wire::Centrifuge { .. } => {
                let mut text = Vec::with_capacity(256);
                json::encode_reply(id, reply, &mut text);
                Answer { bytes: frame::message(Kind::Text, &text), close: None, detail: String::new() }
            }
            Wire::EventStream(stream) => stream.reply(id, reply),
        }
    }

    /// Makes a push for this connection alone.
    pub fn push(&mut self, channel: &str, push: &Push) -> Bytes {
        if let (Wire::EventStream(stream), Push::Subscribe(_)) = (&mut self.wire, push) {
            stream.gain_channel();
        }
        encode_push(self.plain_encoding(), channel, push, None, &mut None)
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
            // `{}` in a text frame (centrifuge protocol, section 4).
            Wire::Centrifuge { .. } => Bytes::from_static(b"\x81\x02{}"),
            // A comment; none before the response's head.
            Wire::EventStream(stream) if stream.is_open() => Bytes::from_static(event_stream::HEARTBEAT),
            Wire::EventStream(_) => Bytes::new(),
        }
    }

    /// Makes the last words: a close frame, a disconnect event, or the HTTP refusal of a stream that never
    /// began.
    pub fn farewell(&self, close: &Close) -> Bytes {
        match &self.wire {
            Wire::Centrifuge { .. } => frame::close(close.code, &close.text),
            Wire::EventStream(stream) => stream.farewell(close),
        }
    }

    fn plain_encoding(&self) -> Encoding {
        match self.encoding() {
            Encoding::CentrifugeJsonDeflated => Encoding::CentrifugeJson,
            Encoding::EventStream => Encoding::EventStreamWithoutId,
            encoding => encoding,
        }
    }
}

fn bad_command(error: json::DecodeError) -> Fault {
    Fault { reason: CloseReason::BadRequest, what: error.to_string() }
}

fn bad_request(what: &str) -> Fault {
    Fault { reason: CloseReason::BadRequest, what: what.to_owned() }
}

/// The close reason that a refused command amounts to, where refusing it ends the connection.
pub(crate) fn refusal(code: u32) -> CloseReason {
    let Some(code) = ErrorCode::ALL.iter().find(|known| known.code() == code) else {
        return CloseReason::BadRequest;
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
        | ErrorCode::AlreadySubscribed
        | ErrorCode::BadRequest => CloseReason::BadRequest,
    }
}
