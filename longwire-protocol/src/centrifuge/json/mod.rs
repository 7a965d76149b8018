//! The JSON encoding of the centrifuge dialect.
//!
//! A message holds one or more commands, each a JSON object, separated by line feeds; a reply or a push is
//! one line. Payloads are embedded JSON: they are found but never parsed, and leave as they came, except that
//! line breaks between their tokens become spaces. Keys are the field names of the protocol's definition,
//! zero values are left out except where the definition keeps them. To a subscriber that agreed to differences
//! ([`fossil`](crate::fossil)) every payload of that subscription is a string instead, whole or not.
//!
//! It is not a judge: an empty channel, a second connect or a missing token decode well and are refused by
//! the session. An error from here means that the bytes are not the protocol, and closes the connection.
//!
//! What must stay true: decoding allocates nothing before the size is known to be bounded by the message and
//! by [`MAX_DEPTH`] and [`MAX_SUBS`]; nothing a client sends makes it panic; encoding writes no line break.

mod decode;
mod encode;

pub use super::{DecodeError, EmulationRequest, MAX_DEPTH, MAX_SUBS};
pub use decode::{decode_connect, decode_emulation, decode_next};
pub use encode::{encode_bare_push, encode_push, encode_reply};

/// The heartbeat of the server: an empty reply.
pub const PING: &[u8] = b"{}";
