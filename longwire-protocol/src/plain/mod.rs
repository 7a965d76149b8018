//! The plain dialect: what a client without any SDK reads and writes.
//!
//! It exists for `EventSource`, the browser's own `WebSocket`, `fetch`, curl and raw TCP. A client names its
//! channels when it opens the connection and reads publications as JSON ([`envelope`]), or as nothing but their
//! data ([`bare`]). Where it stopped travels as a [position token](position_token), the same text on every
//! transport. Whatever it says is a message of any content for the backend.
//!
//! Over SSE the JSON forms are those of [`event_stream`]; TCP is cut into packets by [`framing`]. How a
//! connection begins is an [`Opening`], whichever transport carries it.

pub mod bare;
pub mod envelope;
pub mod event_stream;
pub mod framing;
pub(crate) mod link;
mod opening;
pub(crate) mod poll;
pub mod position_token;

pub use framing::{ByteOrder, Counts, Framer, Framing, LengthField, Terminator};
pub use opening::{
    Asked, BadClientName, Beats, Carrier, FirstPacket, MAX_CLIENT_NAME_BYTES, Opening, asked,
    check_client_name,
};

use crate::encoding::chunk;
use crate::message::Push;
use crate::position::Position;
use crate::websocket::{Compressor, Kind, frame};
use bytes::Bytes;

/// What pushes are made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Format {
    /// JSON objects that say which channel, which position, what kind of thing.
    #[default]
    Json,
    /// The data alone. There is no welcome, and nobody is told of joins, leaves or ends.
    Bare,
}

/// How the dialect is spoken where it is no event stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// What pushes are made of.
    pub format: Format,
    /// How they are told apart.
    pub unit: Unit,
}

/// How what is said is told apart on a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// WebSocket messages.
    WebSocket,
    /// WebSocket messages, compressed where that is worth it.
    Deflated,
    /// Lines.
    Line,
    /// Lines, each in an HTTP chunk of its own.
    Chunk,
    /// Elements of a JSON array, which whoever answers a long-poll separates.
    Piece,
    /// Packets.
    Packet(Framing),
}

impl Style {
    /// The same without compression.
    #[must_use]
    pub(crate) fn inflated(self) -> Style {
        match self.unit {
            Unit::Deflated => Style { unit: Unit::WebSocket, ..self },
            _ => self,
        }
    }

    /// Whether the data of a publication, or of a direct message, fits what this style puts around it: a length
    /// field of one or two bytes may be too small.
    pub(crate) fn carries(self, channel: &str, push: &Push) -> bool {
        let Unit::Packet(framing) = self.unit else { return true };
        let longest = self.packets(framing).longest_body_bytes();
        if longest >= u64::from(u32::MAX) - framing::MAX_HEAD_BYTES as u64 {
            return true;
        }
        // Most are so short that nothing need be written to know it.
        let data_bytes = match push {
            Push::Publication(publication) | Push::Delta { publication, .. }
                if publication.tags.is_empty() && publication.info.is_none() =>
            {
                Some((publication.data.len(), publication.is_json))
            }
            Push::Message { data, is_json } => Some((data.len(), *is_json)),
            _ => None,
        };
        if data_bytes.is_some_and(|(bytes, is_json)| self.at_most(channel, bytes, is_json) <= longest) {
            return true;
        }
        let mut body = Vec::new();
        self.write(channel, push, position_of(push), &mut body);
        body.len() as u64 <= longest
    }

    /// What so much data in this channel takes at most, without tags and without information about who published.
    fn at_most(self, channel: &str, data_bytes: usize, is_json: bool) -> u64 {
        let bytes = match self.format {
            // A string's text is no longer than the string.
            Format::Bare => data_bytes,
            // A byte of text or of a channel is at most six in JSON, and three in a token; words and numbers less than 128.
            Format::Json => (if is_json { 1 } else { 6 }) * data_bytes + 9 * channel.len() + 128,
        };
        bytes as u64
    }

    /// Makes the wire form of a push; empty where there is nothing to say, or no way to say it.
    pub(crate) fn push(
        self,
        channel: &str,
        push: &Push,
        position: Option<Position>,
        compressor: &mut Option<Box<Compressor>>,
    ) -> Bytes {
        let mut content = Vec::with_capacity(256);
        match self.write(channel, push, position, &mut content) {
            Some(kind) => self.wrap(kind, content, compressor),
            None => Bytes::new(),
        }
    }

    /// Writes what a push says, and tells whether that is text; `None` if it says nothing.
    fn write(
        self,
        channel: &str,
        push: &Push,
        position: Option<Position>,
        out: &mut Vec<u8>,
    ) -> Option<Kind> {
        match self.format {
            Format::Json => envelope::encode_push(channel, push, position, out).then_some(Kind::Text),
            Format::Bare => bare::encode_push(push, self.needs_one_line(), out),
        }
    }

    /// Whether a line break between the tokens of JSON would end what is said.
    fn needs_one_line(self) -> bool {
        matches!(self.unit, Unit::Line | Unit::Chunk | Unit::Packet(Framing::Terminator(_)))
    }

    /// Puts around `content` what tells it from what comes before and behind it.
    pub(crate) fn wrap(
        self,
        kind: Kind,
        mut content: Vec<u8>,
        compressor: &mut Option<Box<Compressor>>,
    ) -> Bytes {
        match self.unit {
            Unit::WebSocket => frame::message(kind, &content),
            Unit::Deflated => {
                let compressed = compressor.get_or_insert_with(Box::default).compress_message(kind, &content);
                compressed.unwrap_or_else(|| frame::message(kind, &content))
            }
            Unit::Line | Unit::Chunk => {
                content.push(b'\n');
                match self.unit {
                    Unit::Chunk => chunk(&content),
                    _ => content.into(),
                }
            }
            Unit::Piece => content.into(),
            Unit::Packet(framing) => self.packets(framing).packet(&content),
        }
    }

    /// How packets of this style are made: an object of ours is never a whole packet by itself.
    fn packets(self, framing: Framing) -> Framing {
        match self.format {
            Format::Json => framing.with_head(),
            Format::Bare => framing,
        }
    }
}

/// A position that makes the form of a push as long as it can be.
fn position_of(push: &Push) -> Option<Position> {
    match push {
        Push::Publication(publication) | Push::Delta { publication, .. } if publication.offset != 0 => {
            let epoch = crate::position::Epoch::from_random(0);
            Some(Position { offset: publication.offset, epoch })
        }
        _ => None,
    }
}
