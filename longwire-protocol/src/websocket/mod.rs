//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692), for both roles, without a socket.
//!
//! [`handshake`] turns a parsed request head into the 101 response or a refusal, and does the client's half.
//! [`Connection`] turns received bytes into events. [`frame`] makes the bytes to send. [`deflate`]
//! compresses a message once for all its receivers, and inflates what peers send.
//!
//! What it is not: it answers nothing by itself. A ping, a close and a [`Violation`] are reported; the caller
//! sends the pong or the close frame, because only the caller has an outbox, a clock and a close policy.
//!
//! What must stay true: an idle connection costs a few bytes and no heap; a frame's length is checked
//! against the limit before anything is allocated for it; buffers grow with what was received, never with
//! what was announced.

mod connection;
pub mod deflate;
pub mod frame;
pub mod handshake;

pub use connection::{Connection, Event, Violation};
pub use deflate::Compressor;
pub use frame::Opcode;

/// Which end of the connection this side is; it decides who masks (RFC 6455 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This side dialled: it masks what it sends and receives unmasked frames.
    Client,
    /// This side accepted: it sends unmasked frames and receives masked ones.
    Server,
}

/// What a message consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// UTF-8 text, checked.
    Text,
    /// Any bytes.
    Binary,
}
