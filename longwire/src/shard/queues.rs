//! The way between this shard's sessions and the queues, which are kept elsewhere.
//!
//! What a session collected in a turn is handed on in one letter, once it is known that the client may; what comes back
//! is given to the session that it is for. What must stay true: a session's commands are handed on in their order; of
//! every session that queues know, its end is told once, after everything that it wanted.

use super::commands::Outcome;
use super::{Entry, Key, Shard, entry, mark_dirty};
use crate::queue::{Event, Place};
use longwire_protocol::command::Subscribe;
use longwire_protocol::queue::{Consume, QueueCommand};
use std::collections::VecDeque;
use std::rc::Rc;

impl Key {
    /// The number by which queues know the session.
    fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn numbered(number: u64) -> Key {
        Key { index: number as u32, generation: (number >> 32) as u32 }
    }
}

impl Shard {
    fn queue_place(&self, key: Key) -> Place {
        Place { shard: self.index, session: key.number() }
    }

    /// Hands on what a session wants of queues, and which deliveries are done because they were written.
    pub(super) fn submit(&self, key: Key, entry: &mut Entry) {
        if !entry.session.uses_queues() {
            return;
        }
        let settled = entry.session.take_settled();
        if !settled.is_empty() {
            self.node.queues.settle_written(self.queue_place(key), settled);
        }
        let mut commands = entry.session.take_queue_commands();
        if commands.is_empty() {
            return;
        }
        self.counters.commands.add(commands.len() as u64);
        let denied = commands.iter().enumerate().find_map(|(index, (id, command))| {
            let error = self.node.authorize_queue_command(&entry.session.identity, command).err()?;
            Some((index, *id, error))
        });
        if let Some((index, id, error)) = denied {
            // Nothing is carried out that stood behind it: its refusal is the last that the client is told.
            let dropped = commands.split_off(index).len();
            entry.session.refuse_queue_command(id, error, dropped, &self.node.config);
        }
        if !commands.is_empty() {
            self.node.queues.submit(self.queue_place(key), commands);
        }
    }

    /// Gives sessions what queues have for them; `letters` is empty before and after.
    pub(super) fn hear_queues(&self, letters: &mut VecDeque<Vec<Event>>) {
        self.mail.queues.take(letters);
        if letters.is_empty() {
            return;
        }
        let (now, config) = (self.node.env.clock.now(), &self.node.config);
        let state = &mut *self.state.borrow_mut();
        // Each with whether it was being read.
        let mut touched: Vec<(Key, bool)> = Vec::new();
        for event in letters.drain(..).flatten() {
            let (Event::Answer { session, .. } | Event::Push { session, .. }) = &event;
            let key = Key::numbered(*session);
            let Some(entry) = entry(&mut state.sessions, key) else { continue };
            if touched.last().is_none_or(|(last, _)| *last != key) {
                touched.push((key, entry.session.wants_bytes(config)));
            }
            match event {
                Event::Answer { id, result, .. } => entry.session.answer_queue(id, result, config),
                Event::Push { push, .. } => entry.session.push_queue(push, config),
            }
        }
        for (key, was_read) in touched {
            let Some(entry) = entry(&mut state.sessions, key) else { continue };
            entry.session.go_on_asking(now, config);
            self.submit(key, entry);
            if entry.session.has_request() || !was_read && entry.session.wants_bytes(config) {
                entry.wake();
            }
            mark_dirty(&mut state.dirty, key.index, entry);
        }
    }

    /// Goes on after something was written: there may be room for what queues gave, and deliveries that are done.
    pub(super) fn note_written(&self, key: Key, entry: &mut Entry) {
        if !entry.session.uses_queues() {
            return;
        }
        let config = &self.node.config;
        let was_read = entry.session.wants_bytes(config);
        entry.session.give_kept(config);
        entry.session.go_on_asking(self.node.env.clock.now(), config);
        self.submit(key, entry);
        if entry.session.has_request() || !was_read && entry.session.wants_bytes(config) {
            entry.wake();
        }
    }

    /// Tells queues that a session is over.
    pub(super) fn end_queues(&self, key: Key, entry: &mut Entry) {
        if !entry.session.uses_queues() {
            return;
        }
        if entry.session.closing().is_some_and(|closing| closing.is_polite) {
            // What the socket takes at once counts for what it is.
            self.write(self.node.env.clock.now(), entry);
        }
        self.submit(key, entry);
        if let Some(unwritten) = entry.session.end_queues() {
            self.node.queues.end(self.queue_place(key), unwritten);
        }
    }

    /// Begins a durable subscription: its queue gets what is published in a channel, so the client must be one that may
    /// read that.
    pub(super) async fn consume_channel(
        self: &Rc<Shard>,
        key: Key,
        id: u32,
        consume: Box<Consume>,
    ) -> Outcome {
        let channel = consume.durable_of.as_deref().unwrap_or_default().to_owned();
        let who = |entry: &mut Entry| (entry.session.identity.clone(), entry.session.asker());
        let Some((identity, asker)) = self.with(key, who) else { return Ok(None) };
        self.node.admit(&asker, &identity, &Subscribe { channel, ..Subscribe::default() }).await?;
        self.with(key, |entry| entry.session.ask_queues(id, QueueCommand::Consume(consume)));
        Ok(None)
    }
}
