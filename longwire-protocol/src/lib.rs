//! The protocols of longwire as plain state machines.
//!
//! What this crate is: the vocabulary that all dialects share ([`command`], [`message`], [`position`],
//! [`close`]), the codecs that turn bytes into it and back ([`http`] heads, [`websocket`], [`centrifuge`],
//! [`plain`], [`stomp`], [`event_stream`]), and the small machines that every connection needs ([`heartbeat`],
//! [`connection`], [`backoff`]).
//!
//! What it is not: it opens no socket, asks no clock, draws no random number and knows no channel. Time,
//! bytes and randomness come in as arguments; the server and the client share it unchanged.
//!
//! What must stay true: nothing here depends on tokio, nothing a peer sends can make it panic, and every
//! buffer that a peer can fill has a limit that is checked before it grows.

pub mod backoff;
pub mod centrifuge;
pub mod close;
pub mod command;
pub mod connection;
pub mod encoding;
pub mod error_code;
pub mod event_stream;
pub mod filter;
pub mod flaw;
pub mod fossil;
pub mod heartbeat;
pub mod http;
pub mod json;
pub mod message;
pub mod name;
pub mod plain;
pub mod position;
pub mod queue;
pub mod selector;
pub mod stomp;
pub mod text;
pub mod websocket;

pub use backoff::Backoff;
pub use close::{Advice, Category, Close, CloseReason};
pub use command::Command;
pub use connection::Connection;
pub use error_code::ErrorCode;
pub use heartbeat::Heartbeat;
pub use message::{Publication, Push, Reply};
pub use position::{Continuity, Epoch, Position, Since, continuity};
pub use text::Text;
