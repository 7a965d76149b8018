//! The wire forms of a push: what is made once and shared by all connections that want the same.
//!
//! An [`Encoding`] says which bytes a connection wants for a push, framing included, so that a publication for
//! a crowd is written as it is. It knows no connection. What must stay true: two connections of equal encoding
//! can be given the same bytes.

use crate::centrifuge::Format;
use crate::json::{escape_non_ascii, is_text};
use crate::message::Push;
use crate::plain::{self, event_stream, position_token};
use crate::position::Position;
use crate::stomp;
use crate::websocket::{Compressor, Kind, frame};
use bytes::Bytes;

/// The form in which a connection wants pushes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Of the centrifuge dialect.
    Centrifuge(Style),
    /// An event with its id, for streams of one channel.
    EventStream,
    /// An event without its id, for streams of several channels, whose id each makes its own.
    EventStreamWithoutId,
    /// Of the plain dialect, elsewhere.
    Plain(plain::Style),
    /// STOMP: the part of a MESSAGE that is the same for all (see [`Connection::copies`](crate::Connection::copies)).
    Stomp(stomp::Style),
}

/// How the centrifuge dialect is spoken on one link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// What messages are made of.
    pub format: Format,
    /// How they are told apart.
    pub framing: Framing,
    /// Nothing but pushes is said, without an envelope: the link has no way back (centrifuge protocol,
    /// section 10).
    pub is_bare: bool,
}

/// How messages are told apart on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// WebSocket messages.
    WebSocket,
    /// WebSocket messages, compressed where that is worth it.
    Deflated,
    /// Server-sent events.
    Events,
    /// By what the format itself has: a line feed, or a length.
    Stream,
    /// The same, each message in an HTTP chunk of its own.
    Chunks,
}

impl Encoding {
    /// Whether a push is compressed for it.
    pub fn is_deflated(self) -> bool {
        match self {
            Encoding::Centrifuge(style) => style.framing == Framing::Deflated,
            Encoding::Plain(style) => style.unit == plain::Unit::Deflated,
            Encoding::EventStream | Encoding::EventStreamWithoutId | Encoding::Stomp(_) => false,
        }
    }

    /// Whether a payload must be JSON, or text, to be carried.
    pub fn needs_json(self) -> bool {
        matches!(self, Encoding::Centrifuge(Style { format: Format::Json, .. }))
    }

    /// Whether it can express a publication, or a direct message: its data must be JSON, or text, where nothing else
    /// is carried, and what is made of it must fit the length field of packets.
    pub fn carries(self, channel: &str, push: &Push) -> bool {
        let is_expressible = || match push {
            Push::Publication(publication) | Push::Delta { publication, .. } => {
                publication.is_json || is_text(&publication.data)
            }
            Push::Message { data, is_json } => *is_json || is_text(data),
            _ => true,
        };
        match self {
            Encoding::Centrifuge(style) => style.format == Format::Protobuf || is_expressible(),
            Encoding::EventStream | Encoding::EventStreamWithoutId | Encoding::Stomp(_) => true,
            Encoding::Plain(style) => style.carries(channel, push),
        }
    }

    /// The same without compression.
    #[must_use]
    pub fn inflated(self) -> Encoding {
        match self {
            Encoding::Centrifuge(style) => Encoding::Centrifuge(style.inflated()),
            Encoding::Plain(style) => Encoding::Plain(style.inflated()),
            Encoding::EventStream | Encoding::EventStreamWithoutId | Encoding::Stomp(_) => self,
        }
    }
}

/// Makes the wire form of a push that goes to many connections; empty if there is nothing to say about it, or no
/// way to say it (see [`Encoding::carries`]).
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
        Encoding::Centrifuge(style) => {
            style.message(compressor, |out| style.format.encode_push(style.is_bare, channel, push, out))
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
        Encoding::Plain(style) => style.push(channel, push, position, compressor),
        Encoding::Stomp(style) => style.shared(push, position),
    }
}

impl Style {
    /// The same without compression.
    #[must_use]
    pub(crate) fn inflated(self) -> Style {
        match self.framing {
            Framing::Deflated => Style { framing: Framing::WebSocket, ..self },
            _ => self,
        }
    }

    /// Frames the message that `write` writes.
    pub(crate) fn message(
        self,
        compressor: &mut Option<Box<Compressor>>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Bytes {
        let mut message = Vec::with_capacity(256);
        write(&mut message);
        let kind = self.kind();
        match self.framing {
            Framing::WebSocket => frame::message(kind, &message),
            Framing::Deflated => {
                let compressed = compressor.get_or_insert_with(Box::default).compress_message(kind, &message);
                compressed.unwrap_or_else(|| frame::message(kind, &message))
            }
            Framing::Events => [b"data: ", &*message, b"\n\n"].concat().into(),
            Framing::Stream | Framing::Chunks => {
                if self.format == Format::Json {
                    // SDKs of before September 2026 decode what they read piece by piece, and break a character
                    // that comes in two (centrifuge protocol, section 0.20).
                    escape_non_ascii(&mut message);
                    message.push(b'\n');
                }
                match self.framing {
                    Framing::Chunks => chunk(&message),
                    _ => message.into(),
                }
            }
        }
    }

    /// The kind of its WebSocket messages.
    pub(crate) fn kind(self) -> Kind {
        match self.format {
            Format::Json => Kind::Text,
            Format::Protobuf => Kind::Binary,
        }
    }

    /// A beat: an empty message.
    pub(crate) fn beat(self) -> &'static [u8] {
        match (self.framing, self.format) {
            (Framing::WebSocket | Framing::Deflated, Format::Json) => b"\x81\x02{}",
            (Framing::WebSocket | Framing::Deflated, Format::Protobuf) => b"\x82\x01\x00",
            (Framing::Events, _) => b"data: {}\n\n",
            (Framing::Stream, Format::Json) => b"{}\n",
            (Framing::Stream, Format::Protobuf) => b"\x00",
            (Framing::Chunks, Format::Json) => b"3\r\n{}\n\r\n",
            (Framing::Chunks, Format::Protobuf) => b"1\r\n\x00\r\n",
        }
    }
}

/// One chunk (RFC 9112 section 7.1).
pub(crate) fn chunk(data: &[u8]) -> Bytes {
    let mut out = format!("{:x}\r\n", data.len()).into_bytes();
    out.reserve_exact(data.len() + 2);
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
    out.into()
}
