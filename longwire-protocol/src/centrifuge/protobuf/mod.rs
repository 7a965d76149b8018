//! The Protobuf encoding of the centrifuge dialect.
//!
//! A message holds one or more commands, each a length and so many bytes of a Protobuf message; a reply or a
//! push is written so too. The length 0 is the heartbeat, both ways. Payloads are arbitrary bytes that nobody
//! looks into. Both directions are written by hand from the table of fields: what is read goes straight into
//! the shared vocabulary, and what is said goes straight into the connection's bytes.
//!
//! It is not a judge, as [`json`](super::json) is none, and it refuses what that refuses, with the same words.
//! Unknown fields are passed over; a known field of another type is an error rather than an unknown one.
//!
//! What must stay true: decoding allocates nothing before the size is known to be bounded by the message, by
//! [`MAX_SUBS`] and by the depth and number of a filter's nodes; nothing a client sends makes it panic; a command
//! means the same in Protobuf and in JSON.

mod decode;
mod encode;

pub use super::{DecodeError, EmulationRequest, MAX_SUBS};
pub use decode::{MAX_FILTER_DEPTH, MAX_FILTER_NODES, decode_connect, decode_emulation, decode_next};
pub use encode::{encode_bare_push, encode_push, encode_reply};

/// The heartbeat of the server: an empty reply.
pub const PING: &[u8] = &[0];
