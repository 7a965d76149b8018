//! The contract between what decides and what moves bytes.
//!
//! A [`Machine`] is a whole client without a socket, a clock or a thread: it says what to dial, what to write and when it
//! wants to be called, and is told what came of it. The tokio driver (`driver`) moves one; the simulator moves
//! the same with its own network and time. What must stay true: no method waits, each is total (a bad peer becomes an
//! output), and the same inputs give the same outputs.

use crate::address::Address;
use crate::cause::Cause;
use bytes::Bytes;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// The number of one socket of one client; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Line(pub u32);

/// What a machine wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect a socket, TLS included if the address says so; answered by [`Machine::handle_dialled`].
    Dial {
        /// Its number.
        line: Line,
        /// Where to.
        address: Arc<Address>,
        /// How long that may take.
        timeout: Duration,
    },
    /// Write, behind what was given before.
    Transmit {
        /// To which socket.
        line: Line,
        /// What.
        bytes: Bytes,
    },
    /// Be done with a socket: nothing more is heard of it. An unfinished dial is given up.
    Close {
        /// Which.
        line: Line,
        /// Do not wait until what was given is written.
        abort: bool,
    },
}

/// How a socket ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer wrote its last byte.
    Eof,
    /// Reset.
    Reset,
    /// Anything else: the system's words.
    Failed(String),
}

/// A client without IO.
pub trait Machine: Send + 'static {
    /// The next thing to do; asked until `None` after every input.
    fn poll_output(&mut self) -> Option<Output>;

    /// When [`handle_timeout`](Self::handle_timeout) is wanted; asked after every input.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Does what is due at `now`.
    fn handle_timeout(&mut self, now: Instant);

    /// A dial is over.
    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>);

    /// Bytes came.
    fn handle_bytes(&mut self, now: Instant, line: Line, bytes: &[u8]);

    /// After each attempt to write: how many bytes that were given are not written yet.
    fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize);

    /// A socket ended.
    fn handle_end(&mut self, now: Instant, line: Line, end: End);

    /// Nobody moves it any more, as when a runtime is shut down: whoever waits for it is told, and it is over.
    fn handle_abandoned(&mut self, now: Instant);

    /// Whether more bytes are wanted from this socket: not while a reader is far behind.
    fn wants_bytes(&self, line: Line) -> bool;

    /// Who is to be woken; taken after every input, and woken when no lock is held.
    fn take_wakes(&mut self) -> Vec<Waker>;

    /// The machine has nothing more to do, for ever.
    fn is_over(&self) -> bool;
}
