//! What was decided and is not carried out yet; and carrying it out, or taking it back, when the group is durable or is not.
//!
//! Ops between two [`Op::Done`] belong together. If the disk refuses a group, those that only settle deliveries stay and
//! are tried again with the next one, what needs no disk is carried out, and everything else is taken back, the last
//! first. What must stay true: what is taken back is as if it had never been decided; what is carried out is durable, or
//! needs not be.

use super::engine::{DISK_PAUSE, Engine};
use super::queue::{Declared, Entry, QueueRef, Where};
use super::record::{self, Removed, Returned};
use super::session::Owed;
use super::settle::Owner;
use super::{Event, Outcome, Place};
use crate::journal::JournalError;
use longwire_protocol::queue::{Headers, Message, QueueError, QueueErrorKind, QueuePush};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a record that lists messages.
const LIST_BYTES: usize = 1 << 20;

/// For how many milliseconds after a message another one is awaited, with which acknowledgements can go to the disk.
const COMPANY_MS: u64 = 2;

/// Acknowledgements that are worth a sync of their own.
const WORTH_A_SYNC: usize = 256;

/// What is done when the group is durable.
pub(super) enum Op {
    /// A message came.
    Sent { queue: QueueRef, entry: Entry, ticket: u32, visible_at: u64 },
    /// A delivery was settled.
    Settled { queue: QueueRef, owner: Owner, owed: Owed, how: How },
    /// A message was taken out of its line, for good.
    Taken { queue: QueueRef, entry: Entry, from: Where, visible_at: u64 },
    /// A message's record was written again.
    Copied { queue: QueueRef, order: u64, priority: u8, ticket: u32 },
    /// A queue's record was written.
    Declared { queue: QueueRef, ticket: u32, length: u32, before: Option<Arc<str>>, was: Declared },
    /// A queue was removed.
    Dropped { queue: QueueRef, count: u64 },
    /// The ops since the last one of these belong together, and this is whom to answer.
    Done(Whom),
}

/// What became of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    Acknowledged,
    /// It is a dead letter, or dropped.
    Gone,
    Returned {
        deliveries: u16,
        visible_at: u64,
    },
}

/// Who is to be told.
pub(super) enum Whom {
    Nobody,
    Session(Place, u32, Result<(), QueueError>),
    Sent(Outcome<Vec<Arc<str>>>, Result<Vec<Arc<str>>, QueueError>),
    SentEach(Each, usize, Result<Arc<str>, QueueError>),
    Settled(Settling, usize, Result<(), QueueError>),
    Count(Outcome<u64>, Result<u64, QueueError>),
}

/// Outcomes that are gathered until the last is there.
pub(super) type Each = Arc<Gathered<Arc<str>>>;
pub(super) type Settling = Arc<Gathered<()>>;

/// Outcomes of several things, and who waits for them.
pub(super) struct Gathered<T> {
    results: Mutex<Vec<Option<Result<T, QueueError>>>>,
    outcome: Mutex<Option<Outcome<Results<T>>>>,
}

/// What came of each of several things.
type Results<T> = Vec<Result<T, QueueError>>;

impl<T> Gathered<T> {
    pub(super) fn new(count: usize, outcome: Outcome<Results<T>>) -> Arc<Gathered<T>> {
        let results = std::iter::repeat_with(|| None).take(count).collect();
        Arc::new(Gathered { results: Mutex::new(results), outcome: Some(outcome).into() })
    }

    fn put(&self, index: usize, result: Result<T, QueueError>) {
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results[index] = Some(result);
        if results.iter().all(Option::is_some) {
            let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(outcome) = outcome.take() {
                // Whoever asked may be gone.
                let _ = outcome.send(Ok(results.drain(..).flatten().collect()));
            }
        }
    }
}

impl Engine {
    /// As [`flush`](Self::flush), unless there are only acknowledgements and a message is likely to come at once: a sync for
    /// them alone would keep it waiting. They wait for a millisecond.
    pub(super) fn flush_in_company(&mut self) {
        let is_due = self.alone_since.is_some_and(|since| since < self.now);
        if !is_due
            && !self.removed.is_empty()
            && self.now <= self.company_until
            && self.ops.len() < WORTH_A_SYNC
            && self.undecided.is_empty()
            && !self.is_failing
            && self.are_acknowledgements()
        {
            self.alone_since.get_or_insert(self.now);
            return;
        }
        self.flush();
    }

    /// Whether nothing was decided but acknowledgements. Answers to anything else wait for nobody: what follows them, such as
    /// the first message of a consumer, must not overtake them.
    fn are_acknowledgements(&self) -> bool {
        let mut has_settled = false;
        self.ops.iter().all(|op| match op {
            Op::Settled { how: How::Acknowledged, .. } => {
                has_settled = true;
                true
            }
            Op::Done(Whom::Nobody | Whom::Session(_, _, Ok(()))) => std::mem::take(&mut has_settled),
            _ => false,
        })
    }

    /// Makes durable what was decided, and carries it out.
    pub(super) fn flush(&mut self) {
        self.alone_since = None;
        if self.is_failing && self.now < self.retry_at {
            return self.apply_what_needs_no_disk();
        }
        if !self.undecided.is_empty() {
            if let Err(error) = self.store.commit() {
                self.note_disk_error(&error);
                self.retry_at = self.now + DISK_PAUSE;
                return self.apply_what_needs_no_disk();
            }
            let ops = std::mem::take(&mut self.undecided);
            ops.into_iter().for_each(|op| self.apply(op));
        }
        if self.ops.is_empty() {
            self.is_failing = false;
            return;
        }
        let appended = self.append_lists();
        // What the last run left is made safe where it is read.
        let needs_disk = self.store.pending_bytes() > 0 && !self.is_unread;
        let outcome = appended.and_then(|()| if needs_disk { self.store.commit() } else { Ok(()) });
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("queues: the disk works again");
                }
                self.counters.commits.add(u64::from(needs_disk));
                if needs_disk && self.ops.iter().any(|op| matches!(op, Op::Sent { .. })) {
                    self.company_until = self.now + COMPANY_MS;
                }
                let mut ops = std::mem::take(&mut self.ops);
                for op in ops.drain(..) {
                    self.apply(op);
                }
                // What carrying out asked for in its turn comes behind.
                ops.append(&mut self.ops);
                self.ops = ops;
            }
            Err(error) => self.handle_failure(&error),
        }
    }

    /// Appends the lists of messages that are done and that came back.
    pub(super) fn append_lists(&mut self) -> Result<(), JournalError> {
        for (kind, bytes) in [(record::REMOVED, 13), (record::RETURNED, 23)] {
            let is_removed = kind == record::REMOVED;
            let mut list = std::mem::take(if is_removed { &mut self.removed } else { &mut self.returned });
            let mut chunks = list.chunks(LIST_BYTES / bytes * bytes);
            let outcome = chunks.try_for_each(|chunk| self.append(kind, &[chunk]).map(drop));
            if matches!(outcome, Ok(())) {
                list.clear();
            }
            *(if is_removed { &mut self.removed } else { &mut self.returned }) = list;
            outcome?;
        }
        Ok(())
    }

    fn handle_failure(&mut self, error: &JournalError) {
        self.note_disk_error(error);
        (self.is_failing, self.retry_at) = (true, self.now + DISK_PAUSE);
        // How much room there is may have been wrong.
        self.room_known_until = 0;
        self.scan = None;
        if !self.store.discard() {
            self.undecided.append(&mut self.ops);
            return;
        }
        (self.removed, self.returned) = (Vec::new(), Vec::new());
        self.apply_what_needs_no_disk();
    }

    /// Carries out what the disk has no part in, keeps acknowledgements, and takes back everything else.
    fn apply_what_needs_no_disk(&mut self) {
        let ops = std::mem::take(&mut self.ops);
        let (mut kept, mut unit) = (Vec::new(), Vec::new());
        self.removed.clear();
        self.returned.clear();
        for op in ops {
            let Op::Done(whom) = op else {
                unit.push(op);
                continue;
            };
            let needs_disk = unit.iter().any(|op| self.needs_disk(op));
            let is_settled = |op: &Op| matches!(op, Op::Settled { .. });
            if !needs_disk {
                unit.drain(..).for_each(|op| self.apply(op));
                self.apply(Op::Done(whom));
            } else if unit.iter().all(is_settled) {
                for op in &unit {
                    self.encode_again(op);
                }
                kept.append(&mut unit);
                kept.push(Op::Done(whom));
            } else {
                while let Some(op) = unit.pop() {
                    self.revert(op);
                }
                let error = self.not_written();
                self.apply(Op::Done(whom.refused(error)));
            }
        }
        kept.append(&mut unit);
        // What carrying out asked for in its turn comes behind.
        kept.append(&mut self.ops);
        self.ops = kept;
    }

    /// Whether an op counts only when the disk has it.
    fn needs_disk(&mut self, op: &Op) -> bool {
        match op {
            Op::Sent { entry, .. } | Op::Taken { entry, .. } => entry.is_persistent,
            Op::Settled { queue, owed, how, .. } => {
                let entry = self.queue(*queue).and_then(|queue| queue.in_flight.get(owed.order));
                entry.is_some_and(|entry| entry.is_persistent) && !matches!(how, How::Returned { .. })
            }
            Op::Copied { .. } | Op::Declared { .. } => true,
            Op::Dropped { queue, .. } => {
                self.queue(*queue).is_some_and(|queue| queue.declared != Declared::No)
            }
            Op::Done(_) => false,
        }
    }

    /// Puts the record of an op that is tried again into the next group.
    fn encode_again(&mut self, op: &Op) {
        let Op::Settled { queue, owed, how, .. } = op else { return };
        let (order, priority, number) = (owed.order, owed.priority, queue.number);
        match *how {
            How::Returned { deliveries, visible_at } => {
                let returned = Returned { queue: number, order, priority, deliveries, visible_at };
                returned.encode(&mut self.returned);
            }
            How::Acknowledged | How::Gone => {
                Removed { queue: number, order, priority }.encode(&mut self.removed);
            }
        }
    }

    /// Takes back the ops from `start` on.
    pub(super) fn take_back(&mut self, start: usize) {
        while self.ops.len() > start
            && let Some(op) = self.ops.pop()
        {
            self.revert(op);
        }
    }

    /// As if an op had never been decided.
    fn revert(&mut self, op: Op) {
        match op {
            Op::Sent { queue, entry, .. } => {
                self.note_memory(&entry, false);
                let Some(queue) = self.queue(queue) else { return };
                queue.count -= 1;
                queue.bytes -= entry.bytes();
                self.counters.refused.add(1);
            }
            Op::Settled { queue, owner, owed, .. } => self.unsettle(queue, owner, owed),
            Op::Taken { queue, entry, from, visible_at } => self.put_back(queue, entry, from, visible_at),
            Op::Declared { queue, before, was, .. } => {
                if let Some(queue) = self.queue(queue) {
                    (queue.declared, queue.durable_of) = (was, before);
                }
            }
            Op::Copied { .. } | Op::Dropped { .. } | Op::Done(_) => {}
        }
    }

    fn put_back(&mut self, reference: QueueRef, entry: Entry, from: Where, visible_at: u64) {
        let Some(queue) = self.queue(reference) else { return };
        (queue.count, queue.bytes) = (queue.count + 1, queue.bytes + entry.bytes());
        let (order, expires, priority) = (entry.order, entry.expires, entry.priority);
        match from {
            Where::Delayed => {
                let _ = queue.delayed.insert(entry);
                self.delayed.insert((visible_at, reference, order));
            }
            _ => {
                queue.push_ready(entry);
                self.touch(reference.slot as usize);
            }
        }
        if expires > 0 {
            let at = expires.max(self.now + DISK_PAUSE);
            self.expiring.insert((at, reference, priority, order));
        }
    }

    /// Carries out what is durable, or needs not be.
    fn apply(&mut self, op: Op) {
        match op {
            Op::Sent { queue, entry, ticket, visible_at } => {
                self.apply_sent(queue, entry, ticket, visible_at)
            }
            Op::Settled { queue, owner, owed, how } => self.apply_settled(queue, owner, owed, how),
            Op::Taken { queue, entry, .. } => self.forget(queue, entry),
            Op::Copied { queue, order, priority, ticket } => {
                let spot = self.store.spot(ticket);
                let Some(entry) = self.queue(queue).and_then(|queue| queue.get_mut(priority, order)) else {
                    return;
                };
                let (before, length) = (std::mem::replace(&mut entry.spot, spot), entry.length);
                self.add_live(before.segment, -i64::from(length));
                self.add_live(spot.segment, i64::from(length));
            }
            Op::Declared { queue, ticket, length, was, .. } => {
                let spot = self.store.spot(ticket);
                let Some(queue) = self.queue(queue) else { return };
                let is_fed_anew = queue.fed_by != queue.durable_of;
                if is_fed_anew {
                    queue.fed_by = queue.durable_of.clone();
                }
                let before = std::mem::replace(&mut queue.declared, Declared::At(spot, length));
                self.bindings_changed |= is_fed_anew;
                // What stood on the disk before is needed no more, unless an op before this one said so.
                if let (Declared::At(before, length), _) | (_, Declared::At(before, length)) = (before, was) {
                    self.add_live(before.segment, -i64::from(length));
                }
                self.add_live(spot.segment, i64::from(length));
            }
            Op::Dropped { queue, count } => self.apply_dropped(queue, count),
            Op::Done(whom) => self.answer(whom),
        }
    }

    fn apply_sent(&mut self, reference: QueueRef, mut entry: Entry, ticket: u32, visible_at: u64) {
        let is_persistent = entry.is_persistent;
        if is_persistent {
            entry.spot = self.store.spot(ticket);
            self.add_live(entry.spot.segment, i64::from(entry.length));
        }
        self.counters.sent.add(1);
        let most = self.settings.store.cache_bytes as u64;
        let (cached, now) = (self.cached_bytes, self.now);
        let Some(queue) = self.queue(reference) else {
            // It was removed in the same group, behind this message.
            self.note_memory(&entry, false);
            return self
                .add_live(entry.spot.segment, -i64::from(if is_persistent { entry.length } else { 0 }));
        };
        queue.sent += 1;
        let is_wanted = visible_at == 0 && !(queue.hungry.is_empty() && queue.waiters.is_empty());
        if !is_wanted {
            // Half of the memory is left to queues that somebody consumes.
            let share = if queue.consumers.is_empty() { most / 2 } else { most };
            if is_persistent && cached > share {
                self.note_memory(&entry, false);
                entry.memory = None;
            } else if let Some(message) = &mut entry.memory {
                *message = Arc::new(compacted(message));
            }
        }
        let Some(queue) = self.queue(reference) else { return };
        let (order, expires, priority) = (entry.order, entry.expires, entry.priority);
        if visible_at > now {
            let _ = queue.delayed.insert(entry);
            self.delayed.insert((visible_at, reference, order));
        } else {
            queue.push_ready(entry);
            self.touch(reference.slot as usize);
        }
        if expires > 0 {
            self.expiring.insert((expires, reference, priority, order));
        }
    }

    fn apply_dropped(&mut self, reference: QueueRef, count: u64) {
        if self.queue(reference).is_none() {
            return;
        }
        let queue = self.queues.remove(reference.slot as usize);
        self.by_name.remove(&queue.name);
        self.by_number.remove(&queue.number);
        self.dirty.retain(|slot| *slot != reference.slot as usize);
        for entry in queue.entries() {
            self.note_memory(entry, false);
            if entry.is_persistent {
                self.add_live(entry.spot.segment, -i64::from(entry.length));
            }
        }
        if let Declared::At(spot, length) = queue.declared {
            self.add_live(spot.segment, -i64::from(length));
        }
        self.bindings_changed |= queue.fed_by.is_some();
        self.counters.dropped.add(count);
        for key in &queue.consumers {
            let session = &mut self.sessions[key.session];
            let place = session.place;
            let Some(consumer) = session.consumer_mut(key.slot) else { continue };
            let number = consumer.number;
            (consumer.is_cancelled, consumer.is_hungry) = (true, false);
            session.by_number.remove(&number);
            session.tidy(key.slot);
            self.counters.consumers.sub(1);
            self.push(place, QueuePush::Cancelled { consumer: number });
        }
        for waiter in queue.waiters {
            self.waiting.remove(&(waiter.deadline, reference, waiter.id));
            let gone =
                QueueError::new(QueueErrorKind::NoSuchQueue, format!("\"{}\" was removed", queue.name));
            let _ = waiter.outcome.send(Err(gone));
        }
    }

    /// Forgets a message that is done and that its queue counts no more.
    pub(super) fn forget(&mut self, reference: QueueRef, entry: Entry) {
        self.note_memory(&entry, false);
        let now = self.now;
        let Some(queue) = self.queue(reference) else { return };
        queue.idle_since = now;
        if !queue.shunned.is_empty() {
            queue.shunned.remove(&entry.order);
        }
        if entry.is_persistent {
            self.add_live(entry.spot.segment, -i64::from(entry.length));
        }
        if entry.expires > 0 {
            self.expiring.remove(&(entry.expires, reference, entry.priority, entry.order));
        }
    }

    pub(super) fn push(&mut self, place: Place, push: QueuePush) {
        if let Some(events) = self.events.get_mut(place.shard) {
            events.push(Event::Push { session: place.session, push });
        }
    }

    fn answer(&mut self, whom: Whom) {
        // Those who asked without a session may be gone.
        match whom {
            Whom::Nobody => {}
            Whom::Session(place, id, result) => {
                if let Some(events) = self.events.get_mut(place.shard) {
                    events.push(Event::Answer { session: place.session, id, result });
                }
            }
            Whom::Sent(outcome, result) => drop(outcome.send(result)),
            Whom::SentEach(each, index, result) => each.put(index, result),
            Whom::Settled(each, index, result) => each.put(index, result),
            Whom::Count(outcome, result) => drop(outcome.send(result)),
        }
    }
}

impl Whom {
    fn refused(self, error: QueueError) -> Whom {
        match self {
            Whom::Nobody => Whom::Nobody,
            Whom::Session(place, id, _) => Whom::Session(place, id, Err(error)),
            Whom::Sent(outcome, _) => Whom::Sent(outcome, Err(error)),
            Whom::SentEach(each, index, _) => Whom::SentEach(each, index, Err(error)),
            Whom::Settled(each, index, _) => Whom::Settled(each, index, Err(error)),
            Whom::Count(outcome, _) => Whom::Count(outcome, Err(error)),
        }
    }
}

/// A copy of a message that waits: what it holds must not keep the buffer in memory that it was read from.
fn compacted(message: &Message) -> Message {
    let headers = message.headers.as_bytes();
    let block: bytes::Bytes = [&headers[..], &message.body].concat().into();
    let headers = Headers::from_block(block.slice(..headers.len()));
    Message { body: block.slice(headers.as_bytes().len()..), headers, ..message.clone() }
}
