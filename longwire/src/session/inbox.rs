//! What a client says to the backend, while it waits to be told: one message at a time, in order.
//!
//! The part of [`Session`] that concerns [`Command::Message`]. A message
//! keeps nothing else of the session waiting: it lies here until the shard asks for it, and further bytes are decoded
//! meanwhile. Once it is full, reading pauses. It survives the link, and in the end the session, for what was said is
//! told. What must stay true: of one session one call is under way at most, and none before the client was told of its
//! connection.

use super::{Session, State};
use crate::config::Config;
use crate::node::control::Relayed;
use bytes::Bytes;
use longwire_protocol::command::{Command, Numbered};
use longwire_protocol::connection::{Dialect, Inbound};
use std::collections::VecDeque;
use std::time::Instant;

/// How many messages may be among bytes of which nobody knows how long they waited.
const MAX_MESSAGES_ELSEWHERE: usize = 1000;

/// From how many bytes on that were taken beyond the limits no further link is heard out.
const MAX_BYTES_BEYOND: usize = 256 * 1024;

/// About what a message that waits costs beside its content.
const MESSAGE_BYTES: usize = 64;

/// One message of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// The content.
    pub data: Bytes,
    /// It came as text, and is UTF-8.
    pub is_text: bool,
}

/// What a session that the backend is told of keeps for that.
#[derive(Debug, Default)]
pub struct Inbox {
    /// The backend may have taken the connection for open, so that it is told of its end.
    pub is_owed_close: bool,
    waiting: VecDeque<Said>,
    waiting_bytes: usize,
    /// Messages that were taken from links that ended, whatever the limits, since nothing waited.
    beyond: usize,
    beyond_bytes: usize,
    /// Messages that were not taken from such links, and nobody noted yet.
    unheard: usize,
    is_calling: bool,
    next_seq: u64,
}

impl Inbox {
    /// The number of the next call.
    pub fn take_seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq - 1
    }

    /// The message that has waited longest.
    pub fn pop(&mut self) -> Option<Said> {
        let said = self.waiting.pop_front()?;
        self.waiting_bytes -= said.data.len();
        if self.waiting.is_empty() {
            // A million idle sessions keep no room for it.
            self.waiting = VecDeque::new();
            (self.beyond, self.beyond_bytes) = (0, 0);
        }
        Some(said)
    }

    /// Forgets what waits; how many messages that was.
    pub fn clear(&mut self) -> usize {
        (self.waiting_bytes, self.beyond, self.beyond_bytes) = (0, 0, 0);
        std::mem::take(&mut self.waiting).len()
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// About how many bytes what waits takes.
    pub fn bytes(&self) -> usize {
        self.waiting_bytes + self.waiting.len() * MESSAGE_BYTES
    }

    /// Whether a call is under way.
    pub fn is_calling(&self) -> bool {
        self.is_calling
    }
}

/// Bytes of a client that wait to be decoded.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// How many of them were decoded already: who takes one command at a time moves nothing for it.
    start: usize,
    /// Since when any wait.
    since: Option<Instant>,
    /// How many messages may be among them.
    max_messages: usize,
}

impl Held {
    /// Bytes that waited elsewhere.
    pub(super) fn of(bytes: Vec<u8>) -> Held {
        Held { bytes, start: 0, since: None, max_messages: MAX_MESSAGES_ELSEWHERE }
    }

    /// Keeps more.
    pub(super) fn add(&mut self, now: Instant, bytes: &[u8], config: &Config) {
        let seconds = (now - *self.since.get_or_insert(now)).as_secs() as usize;
        let (per_second, burst) = (config.client.commands_per_second, config.client.command_burst);
        let allowed = seconds.saturating_mul(per_second as usize).saturating_add(burst as usize);
        self.max_messages = self.max_messages.max(allowed);
        if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..std::mem::take(&mut self.start));
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Gives them out; more that are kept after that wait as long already.
    pub(super) fn take(&mut self) -> Taken {
        Taken { bytes: std::mem::take(&mut self.bytes), start: std::mem::take(&mut self.start) }
    }

    /// Keeps the last `left` of those that were given out, as if they had never been.
    pub(super) fn put_back(&mut self, taken: Taken, left: usize) {
        debug_assert!(self.is_empty(), "what came later would come first");
        self.start = taken.bytes.len() - left;
        self.bytes = taken.bytes;
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that waited to be decoded.
#[derive(Debug, Default)]
pub(super) struct Taken {
    bytes: Vec<u8>,
    start: usize,
}

impl Taken {
    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl Session {
    /// Notes that a call about this session begins; [`end_call`](Self::end_call) follows.
    pub fn begin_call(&mut self) -> &mut Inbox {
        let inbox = self.inbox.get_or_insert_default();
        inbox.is_calling = true;
        inbox
    }

    /// Notes that the call is over.
    pub fn end_call(&mut self) -> &mut Inbox {
        let inbox = self.inbox.get_or_insert_default();
        inbox.is_calling = false;
        inbox
    }

    /// Whether the backend is being asked about the connection, which it knows by that alone: nobody else does.
    pub(super) fn is_opening(&self) -> bool {
        self.state == State::AwaitingConnect && self.inbox.as_ref().is_some_and(|inbox| inbox.is_calling)
    }

    /// What is kept for telling the backend, if anything is.
    pub fn inbox(&self) -> Option<&Inbox> {
        self.inbox.as_deref()
    }

    /// How many messages were not taken from links that ended, since this was asked last.
    pub fn take_unheard(&mut self) -> usize {
        self.inbox.as_mut().map_or(0, |inbox| std::mem::take(&mut inbox.unheard))
    }

    /// Gives out what is kept for telling the backend: the session is over.
    pub fn take_inbox(&mut self) -> Option<Box<Inbox>> {
        self.inbox.take()
    }

    /// Notes that the backend is to be told of the end.
    pub fn owe_close(&mut self) {
        self.inbox.get_or_insert_default().is_owed_close = true;
    }

    /// Whether no further message is taken until one was told.
    pub(super) fn is_inbox_full(&self, config: &Config) -> bool {
        let rules = &config.plain;
        self.inbox.as_ref().is_some_and(|inbox| {
            inbox.waiting.len() >= rules.max_waiting_messages
                || inbox.waiting_bytes >= rules.max_waiting_bytes
        })
    }

    /// Counts something that the peer says; false if that is more than it may say in the time.
    pub(super) fn is_in_time(&mut self, now: Instant, config: &Config) -> bool {
        let (per_second, burst) = (config.client.commands_per_second, config.client.command_burst);
        self.rate.allow(now - self.opened, per_second as usize, burst as usize)
    }

    /// Answers a sign of life that came by a request of its own: on the way down, which it proves so. Who is away has
    /// none.
    pub(super) fn answer_beat(&mut self, now: Instant, config: &Config) -> Relayed {
        let answer = self.connection.beat_answer();
        if answer.is_empty() || self.is_away() || !self.is_told() {
            return Relayed::Taken;
        }
        if !self.is_in_time(now, config) {
            return Relayed::Full;
        }
        self.write_push(answer, config);
        Relayed::Taken
    }

    /// Keeps a message until it is told.
    pub(super) fn keep_message(&mut self, data: Bytes, is_text: bool) {
        let inbox = self.inbox.get_or_insert_default();
        inbox.waiting_bytes += data.len();
        inbox.waiting.push_back(Said { data, is_text });
    }

    /// Takes the messages out of what waits undecoded: the link is gone, or is about to be, and what came by it is
    /// told. That may pass the limits by as much as is read at once, and by little more however many links come while
    /// the backend takes nothing; who says more in the time than it may is not heard to the end.
    pub(super) fn hear_out(&mut self) {
        if self.connection.dialect() != Dialect::Plain || !self.is_told() {
            return;
        }
        let Some(passing) = &mut self.passing else { return };
        let max_messages = passing.held.max_messages;
        let held = passing.held.take();
        let mut taken = 0;
        let mut input = held.bytes();
        let is_heard = self.inbox.as_ref().is_none_or(|inbox| inbox.beyond_bytes < MAX_BYTES_BEYOND);
        // What is wrong with it is no news: the link ends anyway.
        while let Ok(Some(inbound)) = self.connection.decode(&mut input) {
            match inbound {
                Inbound::Command(Numbered { command: Command::Message { data, is_text }, .. }) => {
                    let inbox = self.inbox.get_or_insert_default();
                    let max_beyond = max_messages.max(MAX_MESSAGES_ELSEWHERE);
                    if !is_heard || taken >= max_messages || inbox.beyond >= max_beyond {
                        inbox.unheard += 1;
                        continue;
                    }
                    taken += 1;
                    inbox.beyond += 1;
                    inbox.beyond_bytes += MESSAGE_BYTES + data.len();
                    self.keep_message(data, is_text);
                }
                Inbound::Closed(_) => return,
                Inbound::Command(_) | Inbound::Transmit(_) => {}
            }
        }
    }

    /// The message that the backend is to be told next; none while a call is under way, before the client was told of
    /// its connection, and while it has not read what it was answered.
    ///
    /// Whoever takes one begins the call in the same breath.
    pub fn next_message(&mut self, now: Instant, config: &Config) -> Option<Said> {
        let is_behind = self.outbox.len() > config.client.max_outbox_bytes / 4;
        if self.closing.is_some() || is_behind || !self.is_told() {
            return None;
        }
        let inbox = self.inbox.as_mut().filter(|inbox| !inbox.is_calling)?;
        let said = inbox.pop()?;
        // There is room for what waits undecoded.
        if !self.is_busy {
            self.take_held(now, config);
        }
        Some(said)
    }
}

#[cfg(test)]
mod tests;
