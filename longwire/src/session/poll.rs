//! When a long-poll is answered, and with what.
//!
//! The part of [`Session`] that concerns polls. What would be written to another link is gathered in the connection; once
//! per flush it becomes the answer. A poll ends with that; the session of a client with a name goes away until the next
//! one. What must stay true: a poll is answered once, at the latest when its time has passed; and at once if its client
//! does not stand where it said.

use super::{Closing, Initiator, Session};
use crate::config::Config;
use bytes::Bytes;
use longwire_protocol::CloseReason;
use longwire_protocol::connection::{Dialect, Transport};
use longwire_protocol::message::{Reply, SubscribeResult};
use longwire_protocol::plain::position_token;
use std::time::Instant;

/// The share of a request's head that is left to positions, in quarters: the rest of it must fit, too.
const POSITION_QUARTERS: usize = 3;

impl Session {
    /// Whether the client could return with its position in one channel more, over whichever transport of its dialect;
    /// where there is no room in what it says then, the channel would be lost to it at the first break.
    pub fn has_room_for_position(&self, channel: &str, config: &Config) -> bool {
        if self.connection.dialect() != Dialect::Plain || self.is_subscribed(channel) {
            return true;
        }
        let positioned = self.subscriptions.iter().filter(|s| s.traits.is_positioned).map(|s| &*s.channel);
        let (mut count, mut bytes) = (0, 0);
        for channel in positioned.chain([channel]) {
            count += 1;
            bytes += position_token::longest_query_bytes(channel);
        }
        let max_bytes = config.http.max_head_bytes / 4 * POSITION_QUARTERS;
        count <= position_token::MAX_CHANNELS && bytes <= max_bytes.min(position_token::MAX_BYTES)
    }

    /// Whether it is a long-poll of which nothing is kept once it was answered.
    pub fn ends_with_its_answer(&self) -> bool {
        self.connection.transport() == Transport::LongPoll && !self.is_kept_while_away()
    }

    /// Gives the answer to a long-poll, if there is something to say.
    pub fn answer_poll(&mut self) {
        if self.closing.is_some() || self.is_away() || !self.is_told() {
            return;
        }
        if self.polls_on && self.subscriptions.iter().all(|subscription| subscription.seen.is_none()) {
            // There is no position by which it could say that it was here: answered at once, it would ask without a pause.
            self.connection.let_poll_wait();
        }
        let Some(wait) = self.connection.poll_wait() else { return };
        if self.connection.gathered_bytes() == 0 && !wait.is_zero() && !self.is_poll_due {
            return;
        }
        let mut token = Vec::new();
        for subscription in self.subscriptions.iter().filter(|s| !s.is_joining()) {
            if let Some(seen) = &subscription.seen {
                position_token::write_position(&subscription.channel, seen, &mut token);
            }
        }
        // What is given is counted first, for the answer says which one it is.
        if self.is_to_be_kept()
            && let Some(answer) = self.count_answer()
        {
            position_token::write_answer(&answer, &mut token);
        }
        for part in self.connection.finish(&token) {
            self.write_last(part);
        }
        self.end_poll();
    }

    /// Answers a long-poll whose time has passed.
    pub(super) fn answer_poll_at_last(&mut self) {
        if self.connection.gathered_bytes() > 0 {
            return self.answer_poll();
        }
        let answer = self.connection.finish_empty();
        self.write_last(answer);
        self.end_poll();
    }

    /// By when a long-poll is answered.
    pub(super) fn poll_deadline(&self) -> Option<Instant> {
        self.connection.poll_deadline().filter(|_| self.is_told())
    }

    /// Notes what a reply says that a client that polls must hear at once: that it did not get what it missed.
    pub(super) fn note_poll(&mut self, reply: &Reply) {
        // Where nothing is kept between two polls, each of them misses what has no position: told without a pause, no
        // client would ever be made to wait.
        let is_kept = self.is_kept_while_away();
        let is_lost = |result: &SubscribeResult| {
            result.was_recovering && !result.recovered && (result.positioned || is_kept)
        };
        let is_loss = match reply {
            Reply::Connect(result) => result.lost || result.subs.iter().any(|(_, result)| is_lost(result)),
            Reply::Subscribe(result) => is_lost(result),
            _ => false,
        };
        if !is_loss || self.connection.poll_wait().is_none() {
            return;
        }
        // One that never proves what it got would be told without a pause.
        let has_told = self.has_told_loss();
        self.is_poll_due |= !has_told;
    }

    /// Writes something that the client is told, or keeps it for the answer to its long-poll.
    pub(super) fn write_push(&mut self, bytes: Bytes, config: &Config) {
        if !self.connection.gather(&bytes) {
            self.write(bytes, config);
        }
    }

    /// Ends a link whose long-poll was answered.
    fn end_poll(&mut self) {
        self.is_poll_due = false;
        let closing = Closing {
            close: CloseReason::Answered.into(),
            initiator: Initiator::Server,
            detail: String::new(),
            unsent_bytes: 0,
            is_polite: true,
        };
        match self.is_to_be_kept() {
            true => self.part(closing, true),
            false => self.end(closing),
        }
    }

    /// Writes what may pass the outbox's limit, because it is the last.
    fn write_last(&mut self, bytes: Bytes) {
        self.outbox.push(bytes, usize::MAX).expect("there is no limit to pass");
    }
}
