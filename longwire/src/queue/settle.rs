//! What becomes of deliveries: acknowledged, given back, dead; and how what is dead gets to the dead letters.
//!
//! A delivery is taken from what its consumer owes when it is settled, so that the credit is free at once; its message
//! leaves `in_flight` when that is durable. What must stay true: a message that goes to the dead letters is there in the
//! same transaction in which it is gone; a dead letter does not die again.

use super::Place;
use super::engine::{DISK_PAUSE, Engine};
use super::line::Keyed;
use super::ops::{How, Op, Whom};
use super::queue::{Entry, QueueRef};
use super::record::{self, Record, Removed, Returned};
use super::session::{ConsumerKey, Kind, LEASED, Owed, slot_of};
use crate::journal::JournalError;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::queue::{
    AckMode, Headers, Meant, Message, NewMessage, QueueError, QueueErrorKind, Verdict,
};
use std::sync::Arc;
use std::time::Duration;

/// Why a message is a dead letter, on its headers.
const REASON: &str = "x-death-reason";
/// Of which queue.
const QUEUE: &str = "x-death-queue";
/// How often it had been delivered.
const COUNT: &str = "x-death-count";

/// Messages that are found too old in one turn.
const MAX_EXPIRED: usize = 2000;

/// Who owed a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Consumer(ConsumerKey, Place),
    /// A lease that ends at this time.
    Lease(u64),
    /// A session that ended.
    Gone,
}

/// A delivery to somebody without a session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) owed: Owed,
    pub(super) queue: QueueRef,
    pub(super) ends: u64,
}

impl Keyed for Lease {
    fn key(&self) -> u64 {
        self.owed.delivery
    }
}

impl Engine {
    /// Settles what a session means.
    pub(super) fn settle_meant(
        &mut self,
        place: Place,
        meant: &Meant,
        verdict: Verdict,
    ) -> Result<(), QueueError> {
        let found = self.session(place).and_then(|session| self.find_meant(session, meant));
        let Some((key, delivery)) = found else {
            return Err(match meant {
                Meant::Delivery(delivery) => unknown(&format!("{delivery}")),
                Meant::Message(id, _) => unknown(id),
            });
        };
        let consumer = self.sessions[key.session].consumer(key.slot);
        if consumer.is_none_or(|consumer| consumer.mode != AckMode::Cumulative) {
            return self.settle_one(key, delivery, verdict);
        }
        loop {
            let consumer = self.sessions[key.session].consumer(key.slot);
            let first = consumer.and_then(|consumer| consumer.owed.front()).map(Keyed::key);
            match first.filter(|first| *first <= delivery) {
                Some(first) => self.settle_one(key, first, verdict)?,
                None => return Ok(()),
            }
        }
    }

    fn find_meant(&self, session: usize, meant: &Meant) -> Option<(ConsumerKey, u64)> {
        let found = &self.sessions[session];
        match meant {
            Meant::Delivery(delivery) => {
                let slot = slot_of(*delivery);
                found.consumer(slot)?.owed.get(*delivery)?;
                Some((ConsumerKey { session, slot }, *delivery))
            }
            Meant::Message(id, number) => {
                let (_, order) = record::parse_id(id)?;
                let consumers = (0..).zip(&found.slots).filter_map(|(slot, one)| Some((slot, one.as_ref()?)));
                let owed = consumers.filter_map(|(slot, consumer)| {
                    let owed = consumer.owed.iter().find(|owed| owed.order == order)?;
                    let is_other = Some(consumer.number) != *number;
                    Some((is_other, owed.delivery, slot))
                });
                let (_, delivery, slot) = owed.min()?;
                Some((ConsumerKey { session, slot }, delivery))
            }
        }
    }

    /// Settles one delivery that a consumer owes.
    fn settle_one(&mut self, key: ConsumerKey, delivery: u64, verdict: Verdict) -> Result<(), QueueError> {
        let session = &mut self.sessions[key.session];
        let Some(owed) = session.settle(key.slot, delivery) else {
            return Err(unknown(&delivery.to_string()));
        };
        let place = session.place;
        let Some(consumer) = session.consumer(key.slot) else { return Ok(()) };
        let (queue, is_browsing) = (consumer.queue, matches!(consumer.kind, Kind::Browsing(_)));
        if !is_browsing
            && let Err(error) = self.settle_owed(queue, Owner::Consumer(key, place), owed, verdict)
        {
            self.sessions[key.session].unsettle(key.slot, owed);
            return Err(error);
        }
        self.feed(key);
        self.sessions[key.session].tidy(key.slot);
        Ok(())
    }

    /// Notes that deliveries which nobody acknowledges were written.
    pub(super) fn written(&mut self, place: Place, deliveries: &[u64]) {
        let Some(session) = self.session(place) else { return };
        let was_choked = self.sessions[session].is_choked();
        for delivery in deliveries {
            // One that is unknown was given back when its queue went.
            let _ =
                self.settle_one(ConsumerKey { session, slot: slot_of(*delivery) }, *delivery, Verdict::Ack);
        }
        self.ops.push(Op::Done(Whom::Nobody));
        if was_choked && !self.sessions[session].is_choked() {
            for slot in 0..self.sessions[session].slots.len() as u16 {
                self.feed(ConsumerKey { session, slot });
            }
        }
    }

    /// Settles a delivery by the token of its lease.
    pub(super) fn settle_token(&mut self, token: &str, verdict: Verdict) -> Result<(), QueueError> {
        let known = record::parse_id(token).filter(|(tag, _)| *tag == self.tag);
        let lease = known.filter(|(_, delivery)| slot_of(*delivery) == LEASED);
        let lease = lease.and_then(|(_, delivery)| self.leases.remove(delivery));
        let Some(lease) = lease else { return Err(unknown(token)) };
        let outcome = self.settle_owed(lease.queue, Owner::Lease(lease.ends), lease.owed, verdict);
        match outcome {
            Ok(()) => drop(self.lease_ends.remove(&(lease.ends, lease.owed.delivery))),
            Err(_) => drop(self.leases.insert(lease)),
        }
        outcome
    }

    /// Gives back what was not settled within its lease.
    pub(super) fn end_leases(&mut self) {
        while let Some((ends, delivery)) =
            self.lease_ends.first().copied().filter(|(ends, _)| *ends <= self.now)
        {
            self.lease_ends.remove(&(ends, delivery));
            if let Some(lease) = self.leases.remove(delivery) {
                self.give_back(lease.queue, Owner::Gone, lease.owed, true);
                self.ops.push(Op::Done(Whom::Nobody));
            }
        }
    }

    fn settle_owed(
        &mut self,
        reference: QueueRef,
        owner: Owner,
        owed: Owed,
        verdict: Verdict,
    ) -> Result<(), QueueError> {
        let Some(queue) = self.queue(reference) else { return Ok(()) };
        let Some(entry) = queue.in_flight.get(owed.order) else { return Ok(()) };
        match verdict {
            Verdict::Ack => {
                if entry.is_persistent && !flaw::is_on(Flaw::DoneForgotten) {
                    let Owed { order, priority, .. } = owed;
                    Removed { queue: reference.number, order, priority }.encode(&mut self.removed);
                }
                self.ops.push(Op::Settled { queue: reference, owner, owed, how: How::Acknowledged });
                Ok(())
            }
            Verdict::Requeue => {
                self.give_back(reference, owner, owed, true);
                Ok(())
            }
            Verdict::Reject => self.kill(reference, owner, owed, "rejected").map(drop),
        }
    }

    /// Puts a message back that was delivered; unless `counts`, as if it had not been.
    pub(super) fn give_back(&mut self, reference: QueueRef, owner: Owner, owed: Owed, counts: bool) {
        let now = self.now;
        let Some(queue) = self.queue(reference) else { return };
        let Some(entry) = queue.in_flight.get(owed.order) else { return };
        let deliveries = entry.deliveries.saturating_add(u16::from(counts));
        let most = queue.options.max_deliveries;
        let delay = queue.options.redelivery_delay.as_millis() as u64;
        let is_persistent = entry.is_persistent;
        if counts && most > 0 && u32::from(deliveries) >= most {
            // Where it cannot be buried it goes on.
            match self.kill(reference, owner, owed, "max_deliveries") {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%error, "a message that was delivered too often stays where it is")
                }
            }
        }
        let visible_at = if counts && delay > 0 { now + delay } else { 0 };
        if is_persistent && counts {
            let Owed { order, priority, .. } = owed;
            let returned = Returned { queue: reference.number, order, priority, deliveries, visible_at };
            returned.encode(&mut self.returned);
        }
        self.ops.push(Op::Settled {
            queue: reference,
            owner,
            owed,
            how: How::Returned { deliveries, visible_at },
        });
    }

    /// Makes a dead letter of a message in flight; false if it stays, because it is one already and nobody rejected it.
    fn kill(
        &mut self,
        reference: QueueRef,
        owner: Owner,
        owed: Owed,
        reason: &'static str,
    ) -> Result<bool, QueueError> {
        let slot = reference.slot as usize;
        let Some(entry) = self.queues[slot].in_flight.get(owed.order) else { return Ok(true) };
        let (is_persistent, deliveries) = (entry.is_persistent, entry.deliveries.saturating_add(1));
        let message = match self.message(slot, owed.priority, owed.order) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(true),
            Err(error) => return Err(self.refused(&error)),
        };
        let letter = self.dead_letter(slot, &message, reason, deliveries);
        if letter.is_none() && reason == "max_deliveries" {
            return Ok(false);
        }
        let counters = self.counters.clone();
        self.atomically(|engine| {
            match letter {
                Some(letter) => drop(engine.send(letter)?),
                None => counters.dropped.add(1),
            }
            if is_persistent {
                let Owed { order, priority, .. } = owed;
                Removed { queue: reference.number, order, priority }.encode(&mut engine.removed);
            }
            engine.ops.push(Op::Settled { queue: reference, owner, owed, how: How::Gone });
            Ok(true)
        })
    }

    /// Makes a dead letter of a message that was taken out of line.
    pub(super) fn bury(&mut self, slot: usize, entry: Entry, reason: &'static str) -> Result<(), QueueError> {
        let message = match self.message_of(&entry, slot) {
            Ok(message) => message,
            Err(JournalError::Damaged(_)) => {
                self.set_aside(slot, entry);
                return Ok(());
            }
            Err(error) => {
                self.queues[slot].push_ready(entry);
                return Err(self.refused(&error));
            }
        };
        let Some(letter) = self.dead_letter(slot, &message, reason, entry.deliveries) else {
            self.counters.dropped.add(1);
            self.remove_ready(slot, entry);
            return Ok(());
        };
        let mut entry = Some(entry);
        let outcome = self.atomically(|engine| {
            engine.send(letter)?;
            if let Some(entry) = entry.take() {
                engine.remove_ready(slot, entry);
            }
            Ok(())
        });
        match (&outcome, entry) {
            (Ok(()), _) => {
                self.queues[slot].dead_lettered += 1;
                self.counters.dead_lettered.add(1);
            }
            (Err(_), Some(entry)) => self.queues[slot].push_ready(entry),
            (Err(_), None) => {}
        }
        outcome
    }

    /// What is sent to the dead letters for a message; `None` if it has nowhere to go.
    fn dead_letter(
        &self,
        slot: usize,
        message: &Message,
        reason: &str,
        deliveries: u16,
    ) -> Option<NewMessage> {
        let queue = &self.queues[slot];
        let target = queue.options.dead_letter_queue.replace("{queue}", &queue.name);
        if target.is_empty() || *target == *queue.name || queue.is_temporary() {
            return None;
        }
        // A dead letter does not die again where it is one. Whoever moves it back gives it another chance.
        if let Some(of) = message.headers.get(QUEUE).filter(|_| message.headers.get(REASON).is_some())
            && self.settings.options_of(&of).dead_letter_queue.replace("{queue}", &of) == *queue.name
        {
            return None;
        }
        let own: Vec<_> = message.headers.iter().collect();
        let own = own.iter().map(|(name, value)| (&**name, &**value));
        let own = own.filter(|(name, _)| ![REASON, QUEUE, COUNT].contains(name));
        let count = deliveries.to_string();
        let added = [(REASON, reason), (QUEUE, &*queue.name), (COUNT, &*count)];
        Some(NewMessage {
            queue: target.into(),
            headers: Headers::of(own.chain(added)),
            body: message.body.clone(),
            priority: message.priority,
            is_persistent: message.is_persistent,
            expiry: None,
            delay: Duration::ZERO,
        })
    }

    /// Drops messages that are worth nothing any more, or makes dead letters of them.
    pub(super) fn expire(&mut self) {
        if self.now < self.expire_after {
            return;
        }
        for _ in 0..MAX_EXPIRED {
            let Some(first) = self.expiring.first().copied().filter(|(at, ..)| *at <= self.now) else {
                return;
            };
            self.expiring.remove(&first);
            let (_, reference, priority, order) = first;
            let slot = reference.slot as usize;
            let has_disk = self.require_disk().is_ok();
            let Some(queue) = self.queue(reference) else { continue };
            // What is in flight is looked at again when it comes back.
            let found = queue.take_ready(priority, order).or_else(|| queue.delayed.remove(order));
            let Some(entry) = found else { continue };
            let outcome = match entry.is_persistent {
                true if !has_disk => {
                    self.put_in_line(reference, entry);
                    Err(())
                }
                true => self.bury(slot, entry, "expired").map_err(drop),
                false => {
                    self.remove_ready(slot, entry);
                    Ok(())
                }
            };
            self.ops.push(Op::Done(Whom::Nobody));
            if outcome.is_err() {
                self.expiring.insert(first);
                self.expire_after = self.now + DISK_PAUSE;
                return;
            }
            self.counters.expired.add(1);
            self.flush_if_full();
        }
    }

    /// Carries out what became of a delivery.
    pub(super) fn apply_settled(&mut self, reference: QueueRef, owner: Owner, owed: Owed, how: How) {
        let now = self.now;
        let Some(queue) = self.queue(reference) else { return };
        let Some(mut entry) = queue.in_flight.remove(owed.order) else { return };
        if matches!(how, How::Acknowledged | How::Gone) {
            (queue.count, queue.bytes) = (queue.count - 1, queue.bytes - entry.bytes());
        }
        match how {
            How::Acknowledged => {
                queue.acknowledged += 1;
                self.counters.acknowledged.add(1);
                self.forget(reference, entry);
            }
            How::Gone => {
                queue.dead_lettered += 1;
                self.counters.dead_lettered.add(1);
                self.forget(reference, entry);
            }
            How::Returned { deliveries, visible_at } => {
                entry.deliveries = deliveries;
                if let Owner::Consumer(key, _) = owner
                    && queue.consumers.len() > 1
                {
                    queue.shunned.insert(owed.order, key);
                }
                let expires = entry.expires;
                if visible_at > now {
                    let _ = queue.delayed.insert(entry);
                    self.delayed.insert((visible_at, reference, owed.order));
                } else {
                    self.put_in_line(reference, entry);
                }
                if expires > 0 {
                    self.expiring.insert((expires, reference, owed.priority, owed.order));
                }
            }
        }
    }

    /// Puts a message into its old place.
    pub(super) fn put_in_line(&mut self, reference: QueueRef, entry: Entry) {
        let (priority, order) = (entry.priority, entry.order);
        let Some(queue) = self.queue(reference) else { return };
        queue.push_ready(entry);
        let selecting = queue.selecting.clone();
        for key in selecting {
            if let Some(consumer) = self.sessions[key.session].consumer_mut(key.slot)
                && let Kind::Selecting(selecting) = &mut consumer.kind
                && selecting.seen[usize::from(priority)] >= order
            {
                selecting.again.insert((priority, order));
            }
        }
        self.touch(reference.slot as usize);
    }

    /// As if a delivery had not been settled.
    pub(super) fn unsettle(&mut self, reference: QueueRef, owner: Owner, owed: Owed) {
        match owner {
            Owner::Consumer(key, place) => {
                let session = self.sessions.get_mut(key.session).filter(|session| session.place == place);
                if let Some(session) = session.filter(|session| session.consumer(key.slot).is_some()) {
                    return session.unsettle(key.slot, owed);
                }
            }
            Owner::Lease(ends) => {
                let _ = self.leases.insert(Lease { owed, queue: reference, ends });
                self.lease_ends.insert((ends, owed.delivery));
                return;
            }
            Owner::Gone => {}
        }
        // Whoever owed it is gone: it is anybody's.
        let entry = self.queue(reference).and_then(|queue| queue.in_flight.remove(owed.order));
        if let Some(entry) = entry {
            self.put_in_line(reference, entry);
        }
    }

    /// The message of a place in a queue.
    pub(super) fn message(
        &mut self,
        slot: usize,
        priority: u8,
        order: u64,
    ) -> Result<Option<Arc<Message>>, JournalError> {
        let Engine { queues, store, .. } = self;
        let queue = &queues[slot];
        match queue.get(priority, order) {
            Some(entry) => read(&mut **store, &queue.name, entry).map(Some),
            None => Ok(None),
        }
    }

    /// The message itself: from memory, or else from the disk.
    pub(super) fn message_of(&mut self, entry: &Entry, slot: usize) -> Result<Arc<Message>, JournalError> {
        read(&mut *self.store, &self.queues[slot].name, entry)
    }

    /// Notes that a message cannot be read: it stays on the disk, and nobody is given it.
    pub(super) fn set_aside(&mut self, slot: usize, entry: Entry) {
        let queue = &mut self.queues[slot];
        tracing::error!(
            queue = &*queue.name,
            order = entry.order,
            spot = ?entry.spot,
            "a message cannot be read from the disk: it is damaged there; nobody is given it"
        );
        self.counters.unreadable.add(1);
        let _ = queue.unreadable.insert(entry);
    }
}

fn read(
    store: &mut dyn super::store::QueueStore,
    name: &Arc<str>,
    entry: &Entry,
) -> Result<Arc<Message>, JournalError> {
    if let Some(message) = &entry.memory {
        return Ok(message.clone());
    }
    let mut found = None;
    store.read(entry.spot, entry.length, &mut |payload| {
        if let Some(Record::Message { head, headers, body }) = record::decode(record::MESSAGE, payload)
            && head.order == entry.order
        {
            found = Some(Arc::new(head.message(name, headers, body)));
        }
    })?;
    found.ok_or_else(|| JournalError::Damaged(Vec::new()))
}

fn unknown(what: &str) -> QueueError {
    QueueError::new(QueueErrorKind::UnknownDelivery, format!("\"{what}\""))
}
