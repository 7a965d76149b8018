//! How a link ends, and what of it ends the session.
//!
//! The part of [`Session`] that closes. A reason that a client may return from does not end the session of a client
//! with a name: it goes away instead, see `away`. What must stay true: the first reason counts, and after it nothing
//! is written to the link but the last words.

use super::Session;
use longwire_protocol::{Close, CloseReason};

/// Who ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiator {
    /// The other end.
    Peer,
    /// This end.
    Server,
}

impl Initiator {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Initiator::Peer => "peer",
            Initiator::Server => "server",
        }
    }
}

/// How a connection ends.
#[derive(Clone, PartialEq, Debug)]
pub struct Closing {
    /// The reason and what the peer is told.
    pub close: Close,
    /// Who began it.
    pub initiator: Initiator,
    /// The broken rule or the error, for the log.
    pub detail: String,
    /// Bytes that were never written.
    pub unsent_bytes: usize,
    /// Say goodbye and wait for the peer; otherwise reset.
    pub is_polite: bool,
}

impl Closing {
    /// Whether the client may return: the link broke, or ended in a way that does not say that the client left.
    pub fn is_for_a_while(&self) -> bool {
        match self.close.reason {
            CloseReason::PeerReset
            | CloseReason::NoHeartbeat
            | CloseReason::WriteStalled
            | CloseReason::Slow
            | CloseReason::InsufficientState
            | CloseReason::Answered
            | CloseReason::Full
            | CloseReason::Replaced => true,
            // 1000 says that the purpose was fulfilled (RFC 6455 section 7.4.1); a browser that leaves a page says 1001,
            // and may be about to load it again.
            CloseReason::PeerClosed => !self.is_polite || self.close.code != 1000,
            _ => false,
        }
    }
}

impl Session {
    /// Notes that the peer ended the link, or that it broke.
    pub fn handle_end(&mut self, error: Option<std::io::Error>) {
        match error {
            None => self.begin_close(CloseReason::PeerClosed.into(), Initiator::Peer, String::new(), false),
            Some(error) => self.handle_broken_link(error),
        }
    }

    /// Notes that reading or writing failed.
    pub fn handle_broken_link(&mut self, error: std::io::Error) {
        if error.kind() == std::io::ErrorKind::TimedOut {
            // TCP_USER_TIMEOUT, which is set from the heartbeat's limit: either the peer takes nothing more,
            // or what was written is not even acknowledged because nobody is there.
            return match self.outbox.blocked_since() {
                Some(_) => self.abort(CloseReason::WriteStalled, "the peer takes nothing more"),
                None => self.abort(CloseReason::NoHeartbeat, "nothing that was sent is acknowledged"),
            };
        }
        self.begin_close(CloseReason::PeerReset.into(), Initiator::Peer, error.to_string(), false);
    }

    /// Ends the connection politely: what waits is written, then the last words.
    pub fn close(&mut self, close: Close, detail: &str) {
        self.begin_close(close, Initiator::Server, detail.to_owned(), true);
    }

    /// Ends the connection at once: what waits is thrown away and the peer gets a reset.
    pub fn abort(&mut self, reason: CloseReason, detail: &str) {
        self.begin_close(reason.into(), Initiator::Server, detail.to_owned(), false);
    }

    pub(super) fn begin_close(
        &mut self,
        close: Close,
        initiator: Initiator,
        detail: String,
        is_polite: bool,
    ) {
        if self.closing.is_some() {
            return;
        }
        if self.is_away() {
            // There is nobody to tell.
            let closing = Closing { close, initiator, detail, unsent_bytes: 0, is_polite: false };
            return self.end(closing);
        }
        let was_all_written = self.outbox.is_empty() && self.connection.gathered_bytes() == 0;
        let unsent_bytes = if is_polite {
            let farewell = self.connection.farewell(&close);
            // The last words are small and bounded, so they may pass the limit.
            self.outbox.push(farewell, usize::MAX).expect("there is no limit to pass");
            0
        } else {
            self.outbox.clear()
        };
        let closing = Closing { close, initiator, detail, unsent_bytes, is_polite };
        if closing.is_for_a_while() && self.is_to_be_kept() {
            self.part(closing, was_all_written);
        } else {
            self.end(closing);
        }
    }

    /// Ends the session for good.
    pub(super) fn end(&mut self, closing: Closing) {
        self.hear_out();
        if let Some(passing) = &mut self.passing {
            passing.request = None;
            passing.held = Default::default();
            passing.ripe = Vec::new();
            passing.ordered = Vec::new();
            passing.early = Vec::new();
        }
        self.closing.get_or_insert(Box::new(closing));
    }
}
