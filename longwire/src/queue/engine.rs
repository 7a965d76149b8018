//! Decides what becomes of messages: takes commands, makes a group of records of them, and carries out what they ask for
//! once the group is durable.
//!
//! Between two flushes everything that changes is noted as an [`Op`] and its record appended; [`Engine::flush`] commits
//! and then carries the ops out, or, if the disk refuses, takes them back: sends and transactions are refused, while
//! acknowledgements stay and are tried again. `settle` has what becomes of deliveries, `dispatch` who is given what,
//! `calls` what is asked without a session, `replay` and `compact` what is on the disk. Its time is an argument. What
//! must stay true: no answer leaves before the flush that made it true; an op that is taken back leaves no trace.

use super::line::Line;
use super::ops::{Op, Whom};
use super::queue::{Declared, Entry, Queue, QueueRef, TEMPORARY, Where};
use super::record::{self, MessageHead, Removed};
use super::session::{Browsing, Consumer, ConsumerKey, Kind, Selecting, Session};
use super::settle::{Lease, Owner};
use super::store::QueueStore;
use super::{Bound, Call, Event, Letter, Place};
use crate::config::{QueueSettings, WhenFull};
use crate::journal::{JournalError, Scan};
use crate::telemetry::QueueCounters;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::queue::{
    Consume, Expiry, Message, NewMessage, QueueCommand, QueueError, QueueErrorKind,
};
use longwire_protocol::selector::Selector;
use slab::Slab;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The longest name of a queue.
const MAX_NAME_BYTES: usize = 255;

/// The largest payload of a record.
const MAX_PAYLOAD: usize = 17 << 20;

/// What a message that is in memory costs beside its headers and body.
pub(super) const MEMORY_OVERHEAD: u64 = 400;

/// Milliseconds that the disk is left alone after it failed.
pub(super) const DISK_PAUSE: u64 = 1000;

/// Milliseconds between two log lines about a failing disk.
const DISK_LOG_INTERVAL: u64 = 10_000;

/// Milliseconds for which it holds how much room the disk has.
const ROOM_INTERVAL: u64 = 1000;

/// What is made durable at once, unless a transaction is larger.
const GROUP_BYTES: usize = 4 << 20;
const GROUP_OPS: usize = 16_384;

/// Chains of queues that overflow into each other's dead letters.
const MAX_OVERFLOWS: usize = 4;

/// The longest delay that is kept: some ten years, in milliseconds.
const FAR_AWAY: u64 = 3653 * 86_400_000;

/// Keeps all queues; see the module's description.
pub(super) struct Engine {
    pub(super) store: Box<dyn QueueStore>,
    pub(super) settings: QueueSettings,
    pub(super) counters: Arc<QueueCounters>,
    /// In each id that this process gives.
    pub(super) tag: u32,
    pub(super) next_order: u64,
    pub(super) next_number: u32,
    pub(super) next_delivery: u64,
    /// Milliseconds since 1970, by a clock that does not jump.
    pub(super) now: u64,
    /// How far that is behind the wall clock, which clients go by.
    pub(super) wall_ahead: i64,
    pub(super) queues: Slab<Queue>,
    pub(super) by_name: HashMap<Arc<str>, usize, RandomState>,
    pub(super) by_number: HashMap<u32, usize, RandomState>,
    pub(super) sessions: Slab<Session>,
    places: HashMap<Place, usize, RandomState>,
    pub(super) leases: Line<Lease>,
    pub(super) lease_ends: BTreeSet<(u64, u64)>,
    /// When messages are to be given to somebody.
    pub(super) delayed: BTreeSet<(u64, QueueRef, u64)>,
    /// When messages are worth nothing any more.
    pub(super) expiring: BTreeSet<(u64, QueueRef, u8, u64)>,
    pub(super) waiting: BTreeSet<(u64, QueueRef, u64)>,
    pub(super) next_waiter: u64,
    pub(super) next_sweep: u64,
    pub(super) ops: Vec<Op>,
    /// Payloads of the lists of messages that are done, and that came back.
    pub(super) removed: Vec<u8>,
    pub(super) returned: Vec<u8>,
    /// Records of the transaction that is being written.
    transaction: Option<u32>,
    pub(super) dirty: VecDeque<usize>,
    pub(super) events: Vec<Vec<Event>>,
    pub(super) cached_bytes: u64,
    pub(super) transient_bytes: u64,
    /// Bytes of records that are needed, by segment from `live_base` on.
    pub(super) live: VecDeque<u64>,
    pub(super) live_base: u32,
    pub(super) scan: Option<Scan>,
    /// A segment that cannot be emptied, because something in it cannot be read.
    pub(super) stuck: Option<u32>,
    /// What an earlier process left is not read yet.
    pub(super) is_unread: bool,
    pub(super) is_failing: bool,
    /// Why the disk took nothing, the last time that it did not.
    failure: &'static str,
    /// The ops of a group that is written and of which only the file's name is not safe: it cannot be taken back.
    pub(super) undecided: Vec<Op>,
    pub(super) retry_at: u64,
    disk_logged: Option<u64>,
    has_room: bool,
    pub(super) room_known_until: u64,
    overflows: usize,
    /// What was decided must be carried out before anything else is.
    must_flush: bool,
    /// Until then another message is likely to come.
    pub(super) company_until: u64,
    /// Since when acknowledgements wait for one.
    pub(super) alone_since: Option<u64>,
    /// Queues whose next message could not be read, and when that is tried again.
    pub(super) unread_queues: BTreeSet<usize>,
    pub(super) reread_at: u64,
    /// Until then nothing that is too old is looked at, because it has nowhere to go.
    pub(super) expire_after: u64,
    pub(super) next_count: u64,
    pub(super) is_uncounted: bool,
    pub(super) bindings_changed: bool,
}

impl Engine {
    pub(super) fn new(
        store: Box<dyn QueueStore>,
        settings: QueueSettings,
        counters: Arc<QueueCounters>,
        tag: u32,
        shards: usize,
        now: u64,
    ) -> Engine {
        Engine {
            store,
            settings,
            counters,
            tag,
            next_order: 1,
            next_number: 1,
            next_delivery: 1,
            now,
            wall_ahead: 0,
            queues: Slab::new(),
            by_name: HashMap::default(),
            by_number: HashMap::default(),
            sessions: Slab::new(),
            places: HashMap::default(),
            leases: Line::default(),
            lease_ends: BTreeSet::new(),
            delayed: BTreeSet::new(),
            expiring: BTreeSet::new(),
            waiting: BTreeSet::new(),
            next_waiter: 0,
            next_sweep: 0,
            ops: Vec::new(),
            removed: Vec::new(),
            returned: Vec::new(),
            transaction: None,
            dirty: VecDeque::new(),
            events: std::iter::repeat_with(Vec::new).take(shards).collect(),
            cached_bytes: 0,
            transient_bytes: 0,
            live: VecDeque::new(),
            live_base: 0,
            scan: None,
            stuck: None,
            is_unread: false,
            is_failing: false,
            failure: "the disk failed",
            undecided: Vec::new(),
            retry_at: 0,
            disk_logged: None,
            has_room: true,
            room_known_until: 0,
            overflows: 0,
            must_flush: false,
            company_until: 0,
            alone_since: None,
            unread_queues: BTreeSet::new(),
            reread_at: 0,
            expire_after: 0,
            next_count: 0,
            is_uncounted: false,
            bindings_changed: false,
        }
    }

    /// Takes what somebody sent to the queues.
    pub(super) fn handle(&mut self, letter: Letter) {
        match letter {
            Letter::Submitted(place, commands) => {
                for (id, command) in commands {
                    let result = self.trying(|engine| engine.command(place, command));
                    self.ops.push(Op::Done(Whom::Session(place, id, result)));
                    self.flush_if_full();
                }
            }
            Letter::Written(place, deliveries) => self.written(place, &deliveries),
            Letter::Ended(place, unwritten) => self.end(place, &unwritten),
            Letter::Called(call) => self.call(call),
        }
        self.flush_if_full();
    }

    pub(super) fn flush_if_full(&mut self) {
        let is_full = self.ops.len() >= GROUP_OPS || self.store.pending_bytes() >= GROUP_BYTES;
        // While the disk fails what waits for it stays in the ops.
        if is_full && !self.is_failing || std::mem::take(&mut self.must_flush) {
            self.flush();
        }
    }

    /// Does something of which nothing stays if it fails.
    pub(super) fn trying<T>(
        &mut self,
        act: impl FnOnce(&mut Engine) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        let (start, mark) = (self.ops.len(), self.store.mark());
        let (removed, returned) = (self.removed.len(), self.returned.len());
        let result = act(self);
        if result.is_err() {
            self.take_back(start);
            self.store.rewind(mark);
            self.removed.truncate(removed);
            self.returned.truncate(returned);
        }
        result
    }

    fn command(&mut self, place: Place, command: QueueCommand) -> Result<(), QueueError> {
        match command {
            QueueCommand::Send(new) => self.send(*new).map(drop),
            QueueCommand::Settle { meant, verdict } => self.settle_meant(place, &meant, verdict),
            QueueCommand::Consume(consume) => self.consume(place, *consume),
            QueueCommand::Cancel { consumer, is_forever } => self.cancel(place, consumer, is_forever),
            QueueCommand::Transaction(commands) => self.transact(place, commands),
        }
    }

    fn transact(&mut self, place: Place, commands: Vec<QueueCommand>) -> Result<(), QueueError> {
        let most = self.settings.store.max_transaction;
        if commands.len() > most {
            return Err(limit(format!("{} commands in a transaction of at most {most}", commands.len())));
        }
        self.atomically(|engine| {
            for command in commands {
                match command {
                    QueueCommand::Send(_) | QueueCommand::Settle { .. } => engine.command(place, command)?,
                    _ => {
                        return Err(limit(
                            "only sends and acknowledgements are allowed in a transaction".into(),
                        ));
                    }
                }
            }
            Ok(())
        })
    }

    /// Does several things as one: all of their records count, or none.
    pub(super) fn atomically<T>(
        &mut self,
        act: impl FnOnce(&mut Engine) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        if self.transaction.is_some() {
            return act(self);
        }
        let (start, mark) = (self.ops.len(), self.store.mark());
        let removed = std::mem::take(&mut self.removed);
        let returned = std::mem::take(&mut self.returned);
        self.transaction = Some(0);
        let mut result = act(self);
        if result.is_ok()
            && let Err(error) = self.append_lists().and_then(|()| self.end_transaction())
        {
            result = Err(self.refused(&error));
        }
        self.transaction = None;
        if result.is_err() {
            self.take_back(start);
            self.store.rewind(mark);
        }
        (self.removed, self.returned) = (removed, returned);
        result
    }

    fn end_transaction(&mut self) -> Result<(), JournalError> {
        match self.transaction.take() {
            Some(records) if records > 0 => self.append(record::END, &[&records.to_le_bytes()]).map(drop),
            _ => Ok(()),
        }
    }

    /// Puts a record into the group.
    pub(super) fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<u32, JournalError> {
        if !self.undecided.is_empty() {
            return Err(JournalError::Io(std::io::Error::other("a group before is not safe yet")));
        }
        let Some(records) = &mut self.transaction else { return self.store.append(kind, parts) };
        let ticket = self.store.append(kind | record::IN_TRANSACTION, parts)?;
        *records += 1;
        Ok(ticket)
    }

    /// Takes a message; its id.
    pub(super) fn send(&mut self, new: NewMessage) -> Result<Arc<str>, QueueError> {
        let outcome = self.put(new);
        self.count_refusal(&outcome);
        outcome
    }

    fn count_refusal<T>(&self, outcome: &Result<T, QueueError>) {
        if outcome.is_err() {
            self.counters.refused.add(1);
        }
    }

    fn put(&mut self, new: NewMessage) -> Result<Arc<str>, QueueError> {
        let NewMessage { queue: name, headers, body, priority, is_persistent, expiry, delay } = new;
        if name.starts_with(TEMPORARY) && !self.by_name.contains_key(&name) {
            // Who asked is gone; whoever answers cannot know.
            self.counters.dropped.add(1);
            return Ok(record::id_of(self.tag, self.take_order()));
        }
        let slot = self.queue_of(&name)?;
        let size = headers.as_bytes().len() + body.len();
        let queue = &self.queues[slot];
        let is_persistent = is_persistent && !queue.is_temporary();
        let most = queue.options.max_message_bytes.min(MAX_PAYLOAD - record::MESSAGE_HEAD);
        if size > most {
            let detail = format!("{size} bytes, and queue \"{name}\" takes at most {most}");
            return Err(QueueError::new(QueueErrorKind::MessageTooBig, detail));
        }
        if is_persistent {
            self.require_disk()?;
        } else if self.transient_bytes + size as u64 + MEMORY_OVERHEAD
            > self.settings.store.max_transient_bytes as u64
        {
            return Err(QueueError::new(
                QueueErrorKind::QueueFull,
                "no memory for messages that are not persistent",
            ));
        }
        self.make_room(slot, size as u64)?;
        let order = self.take_order();
        let queue = &self.queues[slot];
        let expires = self.expires(expiry, queue.options.max_age.as_millis() as u64);
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX).min(FAR_AWAY);
        let visible_at = if delay > 0 { self.now + delay } else { 0 };
        let reference = QueueRef { slot: slot as u32, number: queue.number };
        let id = record::id_of(self.tag, order);
        let message = Message {
            id: id.clone(),
            queue: queue.name.clone(),
            headers,
            body,
            priority: priority.min(9),
            is_persistent,
            expires,
            sent_at: self.now,
        };
        let ticket = match is_persistent {
            true => self.append_message(reference, order, &message, visible_at),
            false => Ok(0),
        };
        let ticket = ticket.map_err(|error| self.refused(&error))?;
        let entry = Entry {
            order,
            expires,
            spot: Default::default(),
            length: (record::MESSAGE_HEAD + size) as u32,
            sent_at: (message.sent_at / 1000) as u32,
            deliveries: 0,
            priority: message.priority,
            is_persistent,
            memory: Some(Arc::new(message)),
        };
        self.note_memory(&entry, true);
        let queue = &mut self.queues[slot];
        (queue.count, queue.bytes) = (queue.count + 1, queue.bytes + size as u64);
        self.ops.push(Op::Sent { queue: reference, entry, ticket, visible_at });
        Ok(id)
    }

    fn append_message(
        &mut self,
        queue: QueueRef,
        order: u64,
        message: &Message,
        visible_at: u64,
    ) -> Result<u32, JournalError> {
        self.declare(queue.slot as usize)?;
        let head = MessageHead {
            queue: queue.number,
            order,
            tag: self.tag,
            sent_at: message.sent_at,
            expires: message.expires,
            visible_at,
            deliveries: 0,
            priority: message.priority,
            headers: message.headers.as_bytes().len() as u32,
        };
        self.append(record::MESSAGE, &[&head.encode(), message.headers.as_bytes(), &message.body])
    }

    fn take_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order - 1
    }

    fn expires(&self, expiry: Option<Expiry>, max_age: u64) -> u64 {
        let own = expiry.map(|expiry| match expiry {
            Expiry::After(span) => {
                self.now + u64::try_from(span.as_millis()).unwrap_or(u64::MAX).min(FAR_AWAY)
            }
            Expiry::At(wall) => wall.min(self.now + FAR_AWAY).saturating_add_signed(-self.wall_ahead).max(1),
        });
        let aged = (max_age > 0).then(|| self.now + max_age.min(FAR_AWAY));
        own.into_iter().chain(aged).min().unwrap_or(0)
    }

    /// The queue of a name, which is made if need be.
    pub(super) fn queue_of(&mut self, name: &Arc<str>) -> Result<usize, QueueError> {
        if let Some(slot) = self.by_name.get(name) {
            return Ok(*slot);
        }
        if self.is_unread {
            // Whatever is there may have this name, and numbers that are not known yet.
            self.require_disk()?;
        }
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            let detail =
                format!("{} bytes of at most {MAX_NAME_BYTES}, and no control characters", name.len());
            return Err(QueueError::new(QueueErrorKind::BadName, detail));
        }
        if self.queues.len() >= self.settings.store.max_queues {
            let detail = format!("there are {}", self.queues.len());
            return Err(QueueError::new(QueueErrorKind::TooManyQueues, detail));
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(self.add_queue(number, name.clone()))
    }

    pub(super) fn add_queue(&mut self, number: u32, name: Arc<str>) -> usize {
        let options = self.settings.options_of(&name).clone();
        let slot = self.queues.insert(Queue::new(number, name.clone(), options, self.now));
        self.by_name.insert(name, slot);
        self.by_number.insert(number, slot);
        slot
    }

    /// The queue of a name that exists.
    pub(super) fn known(&mut self, name: &str) -> Result<usize, QueueError> {
        if self.is_unread {
            self.require_disk()?;
        }
        let slot = self.by_name.get(name).copied();
        slot.ok_or_else(|| QueueError::new(QueueErrorKind::NoSuchQueue, format!("\"{name}\"")))
    }

    /// A queue that is meant, unless it was removed.
    pub(super) fn queue(&mut self, queue: QueueRef) -> Option<&mut Queue> {
        self.queues.get_mut(queue.slot as usize).filter(|found| found.number == queue.number)
    }

    pub(super) fn reference(&self, slot: usize) -> QueueRef {
        QueueRef { slot: slot as u32, number: self.queues[slot].number }
    }

    /// Has the store know a queue before its first record.
    fn declare(&mut self, slot: usize) -> Result<(), JournalError> {
        if self.queues[slot].declared != Declared::No {
            return Ok(());
        }
        let before = self.queues[slot].durable_of.clone();
        self.redeclare(slot, before)
    }

    /// Writes a queue's record; `before` is what it was a durable subscription of.
    pub(super) fn redeclare(&mut self, slot: usize, before: Option<Arc<str>>) -> Result<(), JournalError> {
        let queue = &self.queues[slot];
        let payload = record::encode_queue(queue.number, &queue.name, queue.durable_of.as_deref());
        // What a transaction declares must stay declared if it is taken back, for others may count on it: it never does,
        // because they are taken back, too, or come later and declare it again.
        let ticket = self.append(record::QUEUE, &[&payload])?;
        let queue = self.reference(slot);
        let was = std::mem::replace(&mut self.queues[slot].declared, Declared::Soon);
        self.ops.push(Op::Declared { queue, ticket, length: payload.len() as u32, before, was });
        Ok(())
    }

    /// Makes room for a message, or refuses it.
    fn make_room(&mut self, slot: usize, bytes: u64) -> Result<(), QueueError> {
        loop {
            let queue = &self.queues[slot];
            let options = &queue.options;
            if queue.count < options.max_messages && queue.bytes + bytes <= options.max_bytes {
                return Ok(());
            }
            let when_full = options.when_full;
            let oldest = queue.oldest_ready().filter(|_| when_full != WhenFull::Refuse);
            let taken = oldest.and_then(|(priority, order)| self.queues[slot].take_ready(priority, order));
            let Some(entry) = taken else {
                let queue = &self.queues[slot];
                let detail =
                    format!("\"{}\" has {} messages, {} bytes", queue.name, queue.count, queue.bytes);
                return Err(QueueError::new(QueueErrorKind::QueueFull, detail));
            };
            self.overflows += 1;
            let is_dead = when_full == WhenFull::DeadLetter && self.overflows <= MAX_OVERFLOWS;
            let outcome = match is_dead {
                true => self.bury(slot, entry, "queue_full"),
                false => {
                    self.counters.dropped.add(1);
                    self.remove_ready(slot, entry);
                    Ok(())
                }
            };
            self.overflows -= 1;
            outcome?;
        }
    }

    /// Notes that a message is done that was taken out of its line.
    pub(super) fn remove_ready(&mut self, slot: usize, entry: Entry) {
        self.remove_from(slot, entry, Where::Ready, 0);
    }

    pub(super) fn remove_from(&mut self, slot: usize, entry: Entry, from: Where, visible_at: u64) {
        let queue = self.reference(slot);
        if entry.is_persistent {
            let Entry { order, priority, .. } = entry;
            Removed { queue: queue.number, order, priority }.encode(&mut self.removed);
        }
        let found = &mut self.queues[slot];
        (found.count, found.bytes) = (found.count - 1, found.bytes - entry.bytes());
        self.ops.push(Op::Taken { queue, entry, from, visible_at });
    }

    /// Whether the disk takes something.
    pub(super) fn require_disk(&mut self) -> Result<(), QueueError> {
        let refused = |detail: &str| Err(QueueError::new(QueueErrorKind::NotWritable, detail));
        if self.is_unread {
            return refused("what is on the disk is not read yet");
        }
        if self.is_failing {
            return refused(self.failure);
        }
        if self.now >= self.room_known_until {
            self.room_known_until = self.now + ROOM_INTERVAL;
            let wanted = |total: u64| self.settings.store.min_free_disk.min(total / 10);
            self.has_room = self.store.room().is_none_or(|room| room.free >= wanted(room.total));
        }
        if self.has_room { Ok(()) } else { refused("the disk is nearly full") }
    }

    /// Whether there is less room on the disk than there should be.
    pub(super) fn is_short_of_room(&self) -> bool {
        !self.has_room
    }

    /// What whoever wanted to write is told of an error.
    pub(super) fn refused(&mut self, error: &JournalError) -> QueueError {
        self.note_disk_error(error);
        self.not_written()
    }

    /// What whoever wanted to write is told after an error was noted.
    pub(super) fn not_written(&self) -> QueueError {
        QueueError::new(QueueErrorKind::NotWritable, self.failure)
    }

    pub(super) fn note_disk_error(&mut self, error: &JournalError) {
        self.counters.disk_errors.add(1);
        // Which directory that is, those who send need not know: the log says it.
        self.failure = match error {
            JournalError::InUse { .. } => "the data directory is used by another process",
            JournalError::DiskFull(_) => "the disk is full",
            JournalError::UnknownRecords(_) => "what is on the disk is of another version of longwire",
            _ => "the disk failed",
        };
        if self.disk_logged.is_none_or(|logged| logged + DISK_LOG_INTERVAL <= self.now) {
            self.disk_logged = Some(self.now);
            tracing::error!(
                %error,
                "queues: {}; persistent messages are refused until that is over",
                self.failure
            );
        }
    }

    /// Counts what is in memory of a message.
    pub(super) fn note_memory(&mut self, entry: &Entry, is_added: bool) {
        if entry.memory.is_none() {
            return;
        }
        let bytes = entry.bytes() + MEMORY_OVERHEAD;
        let counter = if entry.is_persistent { &mut self.cached_bytes } else { &mut self.transient_bytes };
        *counter = if is_added { *counter + bytes } else { counter.saturating_sub(bytes) };
    }

    pub(super) fn session(&self, place: Place) -> Option<usize> {
        self.places.get(&place).copied()
    }

    fn consume(&mut self, place: Place, consume: Consume) -> Result<(), QueueError> {
        let selector = consume.selector.as_deref().map(Selector::parse).transpose();
        let selector =
            selector.map_err(|error| QueueError::new(QueueErrorKind::BadSelector, error.to_string()))?;
        let kind = match (consume.is_browsing, selector) {
            (true, selector) => Kind::Browsing(Browsing {
                selector: selector.map(Arc::new),
                priority: 9,
                after: 0,
                before: self.next_order,
                is_done: false,
            }),
            (false, None) => Kind::Plain,
            (false, Some(selector)) => {
                let (seen, again) = (Default::default(), BTreeSet::new());
                Kind::Selecting(Box::new(Selecting { selector, seen, again }))
            }
        };
        let session = self.session(place);
        if session.is_some_and(|key| self.sessions[key].by_number.contains_key(&consume.consumer)) {
            return Err(QueueError::new(QueueErrorKind::ConsumerInUse, format!("{}", consume.consumer)));
        }
        if consume.durable_of.is_some() {
            self.require_disk()?;
        } else if self.is_unread {
            return self.require_disk();
        }
        let slot = self.queue_of(&consume.queue)?;
        let queue = self.reference(slot);
        let prefetch = self.queues[slot].options.prefetch;
        let consumer = Consumer::new(consume.consumer, queue, consume.ack, consume.prefetch, prefetch, kind);
        let session = session.unwrap_or_else(|| {
            let key = self.sessions.insert(Session::new(place));
            self.places.insert(place, key);
            key
        });
        let most = self.settings.store.max_consumers_per_session;
        let Some(own) = self.sessions[session].add(consumer, most) else {
            return Err(limit(format!("{most} consumers of one session")));
        };
        let key = ConsumerKey { session, slot: own };
        let found = &mut self.queues[slot];
        found.consumers.push(key);
        let consumer = self.sessions[session].consumer_mut(own);
        match consumer.map(|consumer| (&consumer.kind, &mut consumer.is_hungry)) {
            Some((Kind::Plain, is_hungry)) => {
                *is_hungry = true;
                found.hungry.push_back(key);
            }
            Some((Kind::Selecting(_), _)) => found.selecting.push(key),
            Some((Kind::Browsing(_), _)) => found.browsing.push(key),
            None => {}
        }
        if consume.is_exclusive {
            found.exclusive.push_back(key);
        }
        if consume.durable_of.is_some() && consume.durable_of != found.durable_of {
            let before = std::mem::replace(&mut found.durable_of, consume.durable_of);
            if let Err(error) = self.redeclare(slot, before.clone()) {
                self.queues[slot].durable_of = before;
                self.remove_consumer(key);
                self.sessions[session].tidy(own);
                return Err(self.refused(&error));
            }
        }
        self.counters.consumers.add(1);
        self.touch(slot);
        Ok(())
    }

    fn cancel(&mut self, place: Place, number: u32, is_forever: bool) -> Result<(), QueueError> {
        let unknown = || QueueError::new(QueueErrorKind::NoSuchConsumer, format!("{number}"));
        let session = self.session(place).ok_or_else(unknown)?;
        let slot = *self.sessions[session].by_number.get(&number).ok_or_else(unknown)?;
        let queue = self.sessions[session].consumer(slot).ok_or_else(unknown)?.queue;
        self.remove_consumer(ConsumerKey { session, slot });
        self.counters.consumers.sub(1);
        self.sessions[session].tidy(slot);
        let is_bound = self.queue(queue).is_some_and(|queue| queue.durable_of.is_some());
        if is_forever && is_bound {
            self.remove_queue(queue.slot as usize)?;
        }
        Ok(())
    }

    /// Takes a consumer from its queue; what it owes it still owes.
    pub(super) fn remove_consumer(&mut self, key: ConsumerKey) {
        let session = &mut self.sessions[key.session];
        let Some(consumer) = session.consumer_mut(key.slot).filter(|consumer| !consumer.is_cancelled) else {
            return;
        };
        (consumer.is_cancelled, consumer.is_hungry) = (true, false);
        let (number, queue) = (consumer.number, consumer.queue);
        session.by_number.remove(&number);
        let now = self.now;
        let Some(queue) = self.queue(queue) else { return };
        queue.consumers.retain(|other| *other != key);
        queue.hungry.retain(|other| *other != key);
        queue.selecting.retain(|other| *other != key);
        queue.browsing.retain(|other| *other != key);
        queue.exclusive.retain(|other| *other != key);
        queue.idle_since = now;
        if let Some(slot) = self.session_queue(key) {
            self.touch(slot);
        }
    }

    fn session_queue(&mut self, key: ConsumerKey) -> Option<usize> {
        let queue = self.sessions[key.session].consumer(key.slot)?.queue;
        self.queue(queue)?;
        Some(queue.slot as usize)
    }

    /// Says that a queue may have something to give.
    pub(super) fn touch(&mut self, slot: usize) {
        let queue = &mut self.queues[slot];
        if !queue.is_dirty {
            queue.is_dirty = true;
            self.dirty.push_back(slot);
        }
    }

    /// Ends a session; `unwritten` deliveries were never on their way.
    fn end(&mut self, place: Place, unwritten: &[u64]) {
        let Some(session) = self.places.remove(&place) else { return };
        let never: BTreeSet<u64> = unwritten.iter().copied().collect();
        let slots = self.sessions[session].slots.len();
        for slot in 0..slots as u16 {
            let key = ConsumerKey { session, slot };
            let Some(consumer) = self.sessions[session].consumer(slot) else { continue };
            let (queue, was_there) = (consumer.queue, !consumer.is_cancelled);
            let is_browsing = matches!(consumer.kind, Kind::Browsing(_));
            self.remove_consumer(key);
            self.counters.consumers.sub(u64::from(was_there));
            let Some(consumer) = self.sessions[session].consumer_mut(slot) else { continue };
            let owed = std::mem::take(&mut consumer.owed);
            for owed in owed.iter().filter(|_| !is_browsing) {
                self.give_back(queue, Owner::Gone, *owed, !never.contains(&owed.delivery));
            }
            let is_temporary =
                self.queue(queue).is_some_and(|queue| queue.is_temporary() && queue.consumers.is_empty());
            if is_temporary {
                // It is not in the store, so that nothing can fail.
                let _ = self.remove_queue(queue.slot as usize);
            }
        }
        self.sessions.remove(session);
        self.ops.push(Op::Done(Whom::Nobody));
    }

    /// Removes a queue with everything; how many messages that were.
    pub(super) fn remove_queue(&mut self, slot: usize) -> Result<u64, QueueError> {
        let reference = self.reference(slot);
        if self.queues[slot].declared != Declared::No {
            self.require_disk()?;
            let appended = self.append(record::DROPPED, &[&reference.number.to_le_bytes()]);
            appended.map_err(|error| self.refused(&error))?;
        }
        let count = self.queues[slot].count as u64;
        // What follows must not go into a queue whose end is written.
        self.must_flush = true;
        self.ops.push(Op::Dropped { queue: reference, count });
        Ok(count)
    }

    /// The queues of durable subscriptions, if they changed since this was asked.
    pub(super) fn take_bindings(&mut self) -> Option<Option<Bound>> {
        if !std::mem::take(&mut self.bindings_changed) {
            return None;
        }
        let mut lists: std::collections::BTreeMap<Arc<str>, Vec<Arc<str>>> = Default::default();
        for (_, queue) in &self.queues {
            if let Some(channel) = &queue.fed_by {
                lists.entry(channel.clone()).or_default().push(queue.name.clone());
            }
        }
        let bound: Bound = lists.into_iter().map(|(channel, names)| (channel, names.into())).collect();
        Some((!bound.is_empty()).then_some(bound))
    }

    pub(super) fn call(&mut self, call: Call) {
        super::calls::handle(self, call);
    }
}

fn limit(detail: String) -> QueueError {
    QueueError::new(QueueErrorKind::LimitExceeded, detail)
}
