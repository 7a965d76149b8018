//! A client that keeps its connection.
//!
//! What this crate is: for programs that hold a connection for days. It dials, logs in, beats, notices silence, comes
//! back with backoff, restores subscriptions and positions, sends again what was not confirmed, and says clearly when
//! it gives up. [`realtime`] speaks the centrifuge dialect to longwire or Centrifugo over WebSocket, HTTP streams, SSE and
//! long-poll; [`plain`] reads feeds of its plain dialect; [`stomp`] speaks STOMP 1.0 to 1.2 to any broker over TCP, TLS and WebSocket.
//!
//! What it is not: it serves nobody. What must stay true: everything that decides is a [`machine`] without IO, which a
//! simulator can move; every loss is either made good or told; every buffer has a bound and a named consequence.

pub mod address;
pub mod blocking;
mod carrier;
pub mod cause;
mod chance;
mod core;
mod dial;
mod driver;
pub mod error;
pub mod machine;
pub mod options;
pub mod plain;
pub mod pool;
pub mod raw;
pub mod realtime;
mod shared;
pub mod stomp;
pub mod transition;
mod transport;
mod trust;

pub use crate::core::Stats;
pub use address::{Address, AddressError, Scheme};
pub use cause::Cause;
pub use error::Error;
pub use longwire_protocol::{Advice, Category, CloseReason};
pub use options::{Options, Outbox, Reconnect, Timeouts, Tls, WhenFull};
pub use transition::{Limit, Transition};
pub use transport::Transport;
