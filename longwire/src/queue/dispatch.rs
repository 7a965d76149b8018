//! Who is given what: consumers in turn, each within its credit; those with a selector what fits; those who only look
//! everything; those who wait without a session what there is.
//!
//! It is called for the queues in which something changed, after what changed is durable. What must stay true: a message
//! in flight is owed by exactly one consumer or lease; nobody who does not have a queue that is consumed exclusively is
//! given anything of it; a turn ends after so much, so that what comes meanwhile is heard.

use super::Received;
use super::engine::{DISK_PAUSE, Engine};
use super::ops::{Op, Whom};
use super::queue::{Entry, QueueRef};
use super::record;
use super::session::{Browsing, ConsumerKey, Kind, LEASED, Owed, delivery_number};
use super::settle::{Lease, Owner};
use crate::journal::JournalError;
use longwire_protocol::queue::{Delivered, Message, QueuePush};
use std::sync::Arc;

/// Deliveries of one turn.
const TURN_DELIVERIES: usize = 8192;

/// Bytes of the deliveries of one turn.
const TURN_BYTES: u64 = 8 << 20;

/// Messages that a consumer with a selector looks at in one turn.
const TURN_LOOKS: usize = 2000;

/// Who is given the next message.
enum Taker {
    Consumer(usize, ConsumerKey),
    Waiter,
}

/// What one turn may still do.
pub(super) struct Budget {
    deliveries: usize,
    bytes: u64,
}

impl Budget {
    pub(super) fn of_a_turn() -> Budget {
        Budget { deliveries: TURN_DELIVERIES, bytes: TURN_BYTES }
    }

    fn is_spent(&self) -> bool {
        self.deliveries == 0 || self.bytes == 0
    }

    fn spend(&mut self, bytes: u64) {
        self.deliveries = self.deliveries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Engine {
    /// Gives out what the queues have in which something changed; true if there is more than one turn may do.
    pub(super) fn dispatch(&mut self) -> bool {
        let mut budget = Budget::of_a_turn();
        for _ in 0..self.dirty.len() {
            if budget.is_spent() {
                return true;
            }
            let Some(slot) = self.dirty.pop_front() else { break };
            let Some(queue) = self.queues.get_mut(slot) else { continue };
            queue.is_dirty = false;
            if self.dispatch_one(slot, &mut budget) {
                self.touch(slot);
            }
        }
        !self.dirty.is_empty()
    }

    /// True if the queue has more to give.
    fn dispatch_one(&mut self, slot: usize, budget: &mut Budget) -> bool {
        let mut has_more = false;
        if !self.queues[slot].browsing.is_empty() {
            has_more |= self.show(slot, budget);
        }
        if !self.queues[slot].selecting.is_empty() {
            has_more |= self.select(slot, budget);
        }
        while let Some((priority, order, bytes)) = self.next_message(slot) {
            if budget.is_spent() {
                return true;
            }
            let Some(taker) = self.next_taker(slot, order, bytes) else { break };
            let Some(entry) = self.queues[slot].take_ready(priority, order) else { break };
            match self.message_of(&entry, slot) {
                Ok(message) => {
                    budget.spend(bytes);
                    match taker {
                        Taker::Consumer(index, key) => self.give_in_turn(slot, index, key, entry, message),
                        Taker::Waiter => self.lend(slot, entry, message, budget),
                    }
                }
                Err(JournalError::Damaged(_)) => self.set_aside(slot, entry),
                Err(error) => {
                    self.queues[slot].push_ready(entry);
                    self.read_later(slot, &error);
                    return has_more;
                }
            }
        }
        has_more
    }

    fn next_message(&mut self, slot: usize) -> Option<(u8, u64, u64)> {
        let queue = &mut self.queues[slot];
        if queue.hungry.is_empty() && queue.waiters.is_empty() {
            return None;
        }
        queue.first_ready().map(|entry| (entry.priority, entry.order, entry.bytes()))
    }

    /// Who is to be given the next message; the index is that in the list of those who are served.
    fn next_taker(&mut self, slot: usize, order: u64, bytes: u64) -> Option<Taker> {
        loop {
            let queue = &mut self.queues[slot];
            if let Some(first) = queue.exclusive.front() {
                let index = queue.hungry.iter().position(|key| key == first)?;
                let key = queue.hungry[index];
                if self.sessions[key.session].has_credit(key.slot, bytes) {
                    return Some(Taker::Consumer(index, key));
                }
                self.starve(slot, index, key);
                return None;
            }
            while queue.waiters.front().is_some_and(|waiter| waiter.outcome.is_closed()) {
                if let Some(waiter) = queue.waiters.pop_front() {
                    let reference = QueueRef { slot: slot as u32, number: queue.number };
                    self.waiting.remove(&(waiter.deadline, reference, waiter.id));
                }
            }
            if !queue.waiters.is_empty() {
                return Some(Taker::Waiter);
            }
            let mut index = 0;
            let mut key = *queue.hungry.front()?;
            if !queue.shunned.is_empty()
                && queue.shunned.get(&order) == Some(&key)
                && let Some(other) = queue.hungry.get(1)
            {
                (index, key) = (1, *other);
            }
            if self.sessions[key.session].has_credit(key.slot, bytes) {
                return Some(Taker::Consumer(index, key));
            }
            self.starve(slot, index, key);
        }
    }

    /// Serves a consumer no more until it has credit again.
    fn starve(&mut self, slot: usize, index: usize, key: ConsumerKey) {
        self.queues[slot].hungry.remove(index);
        if let Some(consumer) = self.sessions[key.session].consumer_mut(key.slot) {
            consumer.is_hungry = false;
        }
    }

    /// Serves a consumer again if it has credit.
    pub(super) fn feed(&mut self, key: ConsumerKey) {
        let session = &mut self.sessions[key.session];
        if !session.has_credit(key.slot, 0) {
            return;
        }
        let Some(consumer) = session.consumer_mut(key.slot).filter(|consumer| !consumer.is_hungry) else {
            return;
        };
        let queue = consumer.queue;
        let is_plain = matches!(consumer.kind, Kind::Plain);
        consumer.is_hungry = is_plain;
        let Some(found) = self.queue(queue) else { return };
        if is_plain {
            found.hungry.push_back(key);
        }
        self.touch(queue.slot as usize);
    }

    fn give_in_turn(
        &mut self,
        slot: usize,
        index: usize,
        key: ConsumerKey,
        entry: Entry,
        message: Arc<Message>,
    ) {
        self.give(slot, key, entry, message);
        let has_credit = self.sessions[key.session].has_credit(key.slot, 0);
        if !has_credit {
            self.starve(slot, index, key);
        } else {
            // To the end of those who are served.
            let hungry = &mut self.queues[slot].hungry;
            if hungry.len() > 1
                && let Some(key) = hungry.remove(index)
            {
                hungry.push_back(key);
            }
        }
    }

    /// Gives a message to a consumer.
    fn give(&mut self, slot: usize, key: ConsumerKey, entry: Entry, message: Arc<Message>) {
        let delivery = delivery_number(self.next_delivery, key.slot);
        self.next_delivery += 1;
        let session = &mut self.sessions[key.session];
        session.owe(key.slot, delivery, entry.order, entry.priority, entry.bytes());
        let place = session.place;
        let consumer = session.consumer(key.slot).map_or(0, |consumer| consumer.number);
        let redeliveries = u32::from(entry.deliveries);
        self.note_delivery(slot, entry);
        self.push(place, QueuePush::Delivered(Delivered { consumer, delivery, message, redeliveries }));
    }

    /// Puts a message among those in flight.
    fn note_delivery(&mut self, slot: usize, mut entry: Entry) {
        self.counters.delivered.add(1);
        self.counters.redelivered.add(u64::from(entry.deliveries > 0));
        if entry.is_persistent {
            // It can be had from the disk, and will hardly be asked for again.
            self.note_memory(&entry, false);
            entry.memory = None;
        }
        let queue = &mut self.queues[slot];
        if !queue.shunned.is_empty() {
            queue.shunned.remove(&entry.order);
        }
        let is_fresh = queue.in_flight.insert(entry).is_ok();
        debug_assert!(is_fresh, "a message is in its queue once");
    }

    /// Gives messages to the first who waits without a session.
    fn lend(&mut self, slot: usize, entry: Entry, message: Arc<Message>, budget: &mut Budget) {
        let Some(waiter) = self.queues[slot].waiters.pop_front() else {
            self.queues[slot].push_ready(entry);
            return;
        };
        let reference = self.reference(slot);
        self.waiting.remove(&(waiter.deadline, reference, waiter.id));
        let ends = self.now.saturating_add(waiter.lease);
        let (mut received, mut next) = (Vec::new(), Some((entry, message)));
        while let Some((entry, message)) = next {
            let delivery = delivery_number(self.next_delivery, LEASED);
            self.next_delivery += 1;
            let (order, priority) = (entry.order, entry.priority);
            let owed = Owed { delivery, order, bytes: 0, priority };
            // Numbers grow, so there is none of this one.
            let _ = self.leases.insert(Lease { owed, queue: reference, ends });
            self.lease_ends.insert((ends, delivery));
            let redeliveries = u32::from(entry.deliveries);
            self.note_delivery(slot, entry);
            let token = record::id_of(self.tag, delivery).to_string();
            received.push(Received { token, message, redeliveries });
            next = None;
            if received.len() < waiter.max && !budget.is_spent() {
                next = self.pop_readable(slot);
                budget.spend(next.as_ref().map_or(0, |(entry, _)| entry.bytes()));
            }
        }
        if let Err(Ok(received)) = waiter.outcome.send(Ok(received)) {
            // Whoever waited is gone, and never saw them.
            for Received { token, .. } in received {
                let lease = record::parse_id(&token).and_then(|(_, delivery)| self.leases.remove(delivery));
                if let Some(lease) = lease {
                    self.lease_ends.remove(&(lease.ends, lease.owed.delivery));
                    self.give_back(lease.queue, Owner::Gone, lease.owed, false);
                }
            }
            self.ops.push(Op::Done(Whom::Nobody));
        }
    }

    /// Takes the next message that can be read.
    fn pop_readable(&mut self, slot: usize) -> Option<(Entry, Arc<Message>)> {
        loop {
            let entry = self.queues[slot].pop_ready()?;
            match self.message_of(&entry, slot) {
                Ok(message) => return Some((entry, message)),
                Err(JournalError::Damaged(_)) => self.set_aside(slot, entry),
                Err(error) => {
                    self.queues[slot].push_ready(entry);
                    self.note_disk_error(&error);
                    return None;
                }
            }
        }
    }

    /// Gives those with a selector what fits; true if there is more to look at.
    fn select(&mut self, slot: usize, budget: &mut Budget) -> bool {
        let mut has_more = false;
        let queue = &self.queues[slot];
        let takers: Vec<ConsumerKey> = match queue.exclusive.front() {
            Some(first) => queue.selecting.iter().filter(|key| *key == first).copied().collect(),
            None => queue.selecting.clone(),
        };
        for key in takers {
            let mut looks = TURN_LOOKS;
            while self.sessions[key.session].has_credit(key.slot, 0) {
                if looks == 0 || budget.is_spent() {
                    has_more = true;
                    break;
                }
                looks -= 1;
                let Some((priority, order, bytes)) = self.next_look(slot, key) else { break };
                if !self.sessions[key.session].has_credit(key.slot, bytes) {
                    self.look_again(key, priority, order);
                    break;
                }
                let message = match self.message(slot, priority, order) {
                    Ok(Some(message)) => message,
                    Ok(None) => continue,
                    Err(error) => {
                        let entry = self.queues[slot].take_ready(priority, order);
                        match (error, entry) {
                            (JournalError::Damaged(_), Some(entry)) => self.set_aside(slot, entry),
                            (error, entry) => {
                                entry.into_iter().for_each(|entry| self.queues[slot].push_ready(entry));
                                self.look_again(key, priority, order);
                                self.read_later(slot, &error);
                                return has_more;
                            }
                        }
                        continue;
                    }
                };
                let consumer = self.sessions[key.session].consumer(key.slot);
                let fits = consumer.is_some_and(|consumer| match &consumer.kind {
                    Kind::Selecting(selecting) => selecting.selector.matches(&message),
                    _ => false,
                });
                if fits && let Some(entry) = self.queues[slot].take_ready(priority, order) {
                    budget.spend(bytes);
                    self.give(slot, key, entry, message);
                }
            }
        }
        has_more
    }

    /// Leaves a queue alone whose next message the disk does not give; it may be better soon.
    fn read_later(&mut self, slot: usize, error: &JournalError) {
        self.note_disk_error(error);
        self.reread_at = self.now + DISK_PAUSE;
        self.unread_queues.insert(slot);
    }

    fn look_again(&mut self, key: ConsumerKey, priority: u8, order: u64) {
        if let Some(consumer) = self.sessions[key.session].consumer_mut(key.slot)
            && let Kind::Selecting(selecting) = &mut consumer.kind
        {
            selecting.again.insert((priority, order));
        }
    }

    /// The next message that a consumer with a selector has to look at: of the highest priority, and there the first.
    fn next_look(&mut self, slot: usize, key: ConsumerKey) -> Option<(u8, u64, u64)> {
        let queue = &self.queues[slot];
        let consumer = self.sessions[key.session].consumer_mut(key.slot)?;
        let Kind::Selecting(selecting) = &mut consumer.kind else { return None };
        for priority in (0..10u8).rev() {
            let line = queue.line(priority);
            while let Some(again) =
                selecting.again.range((priority, 0)..=(priority, u64::MAX)).next().copied()
            {
                selecting.again.remove(&again);
                if let Some(entry) = line.get(again.1) {
                    return Some((priority, entry.order, entry.bytes()));
                }
            }
            let seen = &mut selecting.seen[usize::from(priority)];
            if let Some(entry) = line.after(*seen).next() {
                *seen = entry.order;
                return Some((priority, entry.order, entry.bytes()));
            }
        }
        None
    }

    /// Shows what waits to those who only look; true if there is more to show.
    fn show(&mut self, slot: usize, budget: &mut Budget) -> bool {
        let lookers = self.queues[slot].browsing.clone();
        for key in lookers {
            while let Some(browsing) = self.browsing(key).filter(|browsing| !browsing.is_done) {
                if budget.is_spent() {
                    return true;
                }
                let Browsing { selector, priority, after, before, .. } = browsing;
                let next = self.queues[slot].line(priority).after(after).next();
                let next =
                    next.filter(|entry| entry.order < before).map(|entry| (entry.order, entry.bytes()));
                let Some((order, bytes)) = next else {
                    let place = self.sessions[key.session].place;
                    let Some(consumer) = self.sessions[key.session].consumer_mut(key.slot) else { break };
                    let number = consumer.number;
                    if let Kind::Browsing(browsing) = &mut consumer.kind {
                        match priority.checked_sub(1) {
                            Some(priority) => (browsing.priority, browsing.after) = (priority, 0),
                            None => browsing.is_done = true,
                        }
                        if browsing.is_done {
                            self.push(place, QueuePush::Browsed { consumer: number });
                        }
                    }
                    continue;
                };
                if !self.sessions[key.session].has_credit(key.slot, bytes) {
                    break;
                }
                let message = match self.message(slot, priority, order) {
                    Ok(message) => message,
                    Err(error @ JournalError::Damaged(_)) => {
                        tracing::error!(%error, order, "a message cannot be shown");
                        None
                    }
                    Err(error) => {
                        self.read_later(slot, &error);
                        return false;
                    }
                };
                let entry = self.queues[slot].line(priority).get(order);
                let redeliveries = entry.map_or(0, |entry| u32::from(entry.deliveries));
                let delivery = delivery_number(self.next_delivery, key.slot);
                self.next_delivery += 1;
                let session = &mut self.sessions[key.session];
                let place = session.place;
                let Some(consumer) = session.consumer_mut(key.slot) else { break };
                let number = consumer.number;
                if let Kind::Browsing(browsing) = &mut consumer.kind {
                    browsing.after = order;
                }
                budget.spend(bytes);
                let is_meant = |message: &Arc<Message>| selector.as_ref().is_none_or(|s| s.matches(message));
                let Some(message) = message.filter(is_meant) else { continue };
                session.owe(key.slot, delivery, order, priority, bytes);
                let delivered = Delivered { consumer: number, delivery, message, redeliveries };
                self.push(place, QueuePush::Delivered(delivered));
            }
        }
        false
    }

    fn browsing(&self, key: ConsumerKey) -> Option<Browsing> {
        match &self.sessions[key.session].consumer(key.slot)?.kind {
            Kind::Browsing(browsing) => Some(browsing.clone()),
            _ => None,
        }
    }
}
