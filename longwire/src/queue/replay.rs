//! Reads at the start what an earlier process left: every queue with what waits in it, everybody's deliveries given back.
//!
//! It is one pass over the store. The records of a transaction are the ones right before its end, as many as that says:
//! a kill may have left some of another before them. What must stay true: of a transaction without its end nothing
//! counts; what cannot be understood is an error, not nothing.

use super::engine::Engine;
use super::queue::{Declared, Entry, QueueRef};
use super::record::{self, MESSAGE_HEAD, MessageHead, Record, Removed, Returned};
use crate::journal::{JournalError, Scan, Sequence, Spot};
use std::sync::Arc;

/// A record of a transaction whose end was not read yet.
enum Step {
    Queue { number: u32, name: Arc<str>, durable_of: Option<Arc<str>>, spot: Spot, length: u32 },
    Dropped(u32),
    Message(MessageHead, Spot, u32),
    Removed(Vec<Removed>),
    Returned(Vec<Returned>),
}

/// What reading found beside messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) messages: u64,
    /// Records of transactions without an end.
    pub(super) unfinished: u64,
    /// Records that another version wrote, or that contradict themselves.
    pub(super) unknown: u64,
    /// Messages of queues whose record is lost.
    pub(super) strays: u64,
}

impl Engine {
    /// Reads everything.
    ///
    /// # Errors
    /// The disk's, and those of records that are damaged.
    pub(super) fn replay(&mut self) -> Result<Found, JournalError> {
        // An attempt before this one may have come some way.
        self.queues.clear();
        self.by_name.clear();
        self.by_number.clear();
        self.delayed.clear();
        self.expiring.clear();
        self.live.clear();
        let mut store = std::mem::replace(&mut self.store, Box::new(Nothing));
        let outcome = self.replay_from(&mut *store);
        self.store = store;
        outcome
    }

    fn replay_from(&mut self, store: &mut dyn super::store::QueueStore) -> Result<Found, JournalError> {
        let mut found = Found::default();
        let mut transaction: Vec<(Sequence, Step)> = Vec::new();
        self.live_base = store.segments().start;
        for segment in store.segments() {
            store.scan(&mut Scan::of(segment), u64::MAX, &mut |spot, sequence, kind, payload| {
                let Some(record) = record::decode(kind & !record::IN_TRANSACTION, payload) else {
                    found.unknown += 1;
                    return;
                };
                let step = match record {
                    Record::End { records } => {
                        let begin = sequence.saturating_sub(records.into());
                        let other = transaction.partition_point(|(at, _)| *at < begin);
                        found.unfinished += transaction.drain(..other).count() as u64;
                        let is_whole = transaction.len() == records as usize;
                        found.unknown += u64::from(!is_whole);
                        for (_, step) in transaction.drain(..).filter(|_| is_whole) {
                            self.take_step(step, &mut found);
                        }
                        return;
                    }
                    Record::Queue { number, name, durable_of } => {
                        let (name, durable_of) = (name.into(), durable_of.map(Into::into));
                        Step::Queue { number, name, durable_of, spot, length: payload.len() as u32 }
                    }
                    Record::Dropped { number } => Step::Dropped(number),
                    Record::Message { head, .. } => Step::Message(head, spot, payload.len() as u32),
                    Record::Removed(list) => Step::Removed(list),
                    Record::Returned(list) => Step::Returned(list),
                };
                if kind & record::IN_TRANSACTION != 0 {
                    transaction.push((sequence, step));
                } else {
                    found.unfinished += transaction.drain(..).count() as u64;
                    self.take_step(step, &mut found);
                }
            })?;
        }
        found.unfinished += transaction.len() as u64;
        found.messages = self.queues.iter().map(|(_, queue)| queue.count as u64).sum();
        self.bindings_changed = true;
        Ok(found)
    }

    fn take_step(&mut self, step: Step, found: &mut Found) {
        match step {
            Step::Queue { number, name, durable_of, spot, length } => {
                self.next_number = self.next_number.max(number + 1);
                let slot = match self.by_number.get(&number) {
                    Some(slot) => *slot,
                    None => self.add_queue(number, name),
                };
                let queue = &mut self.queues[slot];
                (queue.fed_by, queue.durable_of) = (durable_of.clone(), durable_of);
                let before = std::mem::replace(&mut queue.declared, Declared::At(spot, length));
                if let Declared::At(before, length) = before {
                    self.add_live(before.segment, -i64::from(length));
                }
                self.add_live(spot.segment, i64::from(length));
            }
            Step::Dropped(number) => {
                self.next_number = self.next_number.max(number + 1);
                let Some(slot) = self.by_number.remove(&number) else { return };
                let queue = self.queues.remove(slot);
                self.by_name.remove(&queue.name);
                for entry in queue.entries() {
                    self.add_live(entry.spot.segment, -i64::from(entry.length));
                }
                if let Declared::At(spot, length) = queue.declared {
                    self.add_live(spot.segment, -i64::from(length));
                }
            }
            Step::Message(head, spot, length) => self.take_message(&head, spot, length, found),
            Step::Removed(list) => {
                for Removed { queue, order, priority } in list {
                    self.next_order = self.next_order.max(order + 1);
                    let Some(slot) = self.by_number.get(&queue).copied() else { continue };
                    if let Some((_, entry)) = self.queues[slot].take(priority, order) {
                        let queue = &mut self.queues[slot];
                        (queue.count, queue.bytes) = (queue.count - 1, queue.bytes - entry.bytes());
                        self.add_live(entry.spot.segment, -i64::from(entry.length));
                    }
                }
            }
            Step::Returned(list) => {
                for Returned { queue, order, priority, deliveries, visible_at } in list {
                    let Some(slot) = self.by_number.get(&queue).copied() else { continue };
                    if let Some((_, mut entry)) = self.queues[slot].take(priority, order) {
                        entry.deliveries = deliveries;
                        self.put_replayed(slot, entry, visible_at);
                    }
                }
            }
        }
    }

    fn take_message(&mut self, head: &MessageHead, spot: Spot, length: u32, found: &mut Found) {
        self.next_order = self.next_order.max(head.order + 1);
        let slot = match self.by_number.get(&head.queue) {
            Some(slot) => *slot,
            None => {
                // Its name is lost, but not what it had.
                found.strays += 1;
                self.next_number = self.next_number.max(head.queue + 1);
                self.add_queue(head.queue, format!("lost.{}", head.queue).into())
            }
        };
        self.add_live(spot.segment, i64::from(length));
        if let Some(entry) = self.queues[slot].get_mut(head.priority, head.order) {
            // A copy: the record before it counts no more.
            let before = std::mem::replace(&mut entry.spot, spot);
            let length = std::mem::replace(&mut entry.length, length);
            entry.deliveries = head.deliveries;
            self.add_live(before.segment, -i64::from(length));
            return;
        }
        let queue = &mut self.queues[slot];
        queue.count += 1;
        queue.bytes += u64::from(length).saturating_sub(MESSAGE_HEAD as u64);
        let max_age = queue.options.max_age.as_millis() as u64;
        let aged = (max_age > 0).then(|| head.sent_at.saturating_add(max_age));
        let own = (head.expires > 0).then_some(head.expires);
        let entry = Entry {
            order: head.order,
            expires: own.into_iter().chain(aged).min().unwrap_or(0),
            spot,
            length,
            sent_at: (head.sent_at / 1000) as u32,
            deliveries: head.deliveries,
            priority: head.priority,
            is_persistent: true,
            memory: None,
        };
        if entry.expires > 0 {
            let reference = QueueRef { slot: slot as u32, number: self.queues[slot].number };
            self.expiring.insert((entry.expires, reference, entry.priority, entry.order));
        }
        self.put_replayed(slot, entry, head.visible_at);
    }

    fn put_replayed(&mut self, slot: usize, entry: Entry, visible_at: u64) {
        if visible_at > self.now {
            let reference = self.reference(slot);
            self.delayed.insert((visible_at, reference, entry.order));
            // There is none of its order: it was looked for.
            let _ = self.queues[slot].delayed.insert(entry);
        } else {
            self.queues[slot].push_ready(entry);
        }
    }
}

/// What stands in for the store while it is read.
struct Nothing;

impl super::store::QueueStore for Nothing {
    fn append(&mut self, _: u8, _: &[&[u8]]) -> Result<u32, JournalError> {
        Err(JournalError::Io(std::io::Error::other("the store is being read")))
    }

    fn mark(&self) -> crate::journal::Mark {
        crate::journal::Mark { next: 0, bytes: 0 }
    }

    fn rewind(&mut self, _: crate::journal::Mark) {}

    fn pending_bytes(&self) -> usize {
        0
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn discard(&mut self) -> bool {
        true
    }

    fn spot(&self, _: u32) -> Spot {
        Spot::default()
    }

    fn read(&mut self, _: Spot, _: u32, _: &mut dyn FnMut(&[u8])) -> Result<(), JournalError> {
        Err(JournalError::Io(std::io::Error::other("the store is being read")))
    }

    fn scan(&mut self, _: &mut Scan, _: u64, _: super::store::Take<'_>) -> Result<bool, JournalError> {
        Ok(true)
    }

    fn segments(&self) -> std::ops::Range<u32> {
        0..0
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn release_oldest(&mut self) -> Result<(), JournalError> {
        Ok(())
    }

    fn room(&self) -> Option<crate::env::disk::Room> {
        None
    }

    fn segment_size(&self) -> u64 {
        0
    }
}
