//! One queue: what waits in it, what is in flight, and who wants it.
//!
//! Messages wait in ten lines, one a priority, in the order in which they were sent; what is given back goes to its old
//! place. The lines know where a message is on the disk and have it in memory only while there is room. This is a plain
//! struct without rules: `engine` and its parts have those. What must stay true: a message is in exactly one of the
//! lines, and `count` and `bytes` are those of all of them and of what is being sent.

use super::line::{Keyed, Line};
use super::session::ConsumerKey;
use super::{Outcome, Received};
use crate::config::QueueOptions;
use crate::journal::Spot;
use longwire_protocol::queue::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Priorities that there are.
pub(super) const PRIORITIES: usize = 10;

/// The names of temporary queues begin with this; they go with who consumes them.
pub(super) const TEMPORARY: &str = "~temp/";

/// Which queue is meant; its slot may have become another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct QueueRef {
    pub(super) slot: u32,
    pub(super) number: u32,
}

/// A message in a queue.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its key for as long as it lives, and its place in its line.
    pub(super) order: u64,
    /// When it is worth nothing any more; 0 for never.
    pub(super) expires: u64,
    pub(super) spot: Spot,
    /// Bytes of its record's payload; what does not outlive the process has none, but counts as if it had.
    pub(super) length: u32,
    /// When it was sent, in seconds since 1970.
    pub(super) sent_at: u32,
    pub(super) deliveries: u16,
    pub(super) priority: u8,
    pub(super) is_persistent: bool,
    pub(super) memory: Option<Arc<Message>>,
}

impl Entry {
    /// When it was sent, in milliseconds since 1970, as exactly as is known without the disk.
    pub(super) fn sent_at_ms(&self) -> u64 {
        self.memory.as_ref().map_or(u64::from(self.sent_at) * 1000, |message| message.sent_at)
    }

    /// Bytes of headers and body.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.length).saturating_sub(super::record::MESSAGE_HEAD as u64)
    }
}

impl Keyed for Entry {
    fn key(&self) -> u64 {
        self.order
    }
}

/// Where a message is in its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Where {
    Ready,
    Delayed,
    InFlight,
    Unreadable,
}

/// Whether the store knows the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Declared {
    No,
    /// It is in the group that is being made.
    Soon,
    At(Spot, u32),
}

/// Somebody who waits for messages without a session.
pub(super) struct Waiter {
    pub(super) id: u64,
    pub(super) max: usize,
    pub(super) lease: u64,
    pub(super) deadline: u64,
    pub(super) outcome: Outcome<Vec<Received>>,
}

/// A queue.
pub(super) struct Queue {
    pub(super) number: u32,
    pub(super) name: Arc<str>,
    pub(super) options: QueueOptions,
    /// The channel that it is a durable subscription of, or is to be when that is on the disk.
    pub(super) durable_of: Option<Arc<str>>,
    /// The channel from which it is fed: what of `durable_of` the disk has.
    pub(super) fed_by: Option<Arc<str>>,
    pub(super) declared: Declared,
    ready: Box<[Line<Entry>; PRIORITIES]>,
    /// A bit for each line that may have something.
    filled: u16,
    pub(super) delayed: Line<Entry>,
    pub(super) in_flight: Line<Entry>,
    /// What the disk cannot give back.
    pub(super) unreadable: Line<Entry>,
    pub(super) count: usize,
    pub(super) bytes: u64,
    /// Consumers without a selector that have credit, in the order in which they are served.
    pub(super) hungry: VecDeque<ConsumerKey>,
    pub(super) consumers: Vec<ConsumerKey>,
    pub(super) selecting: Vec<ConsumerKey>,
    pub(super) browsing: Vec<ConsumerKey>,
    /// Those that want it for themselves; the first has it.
    pub(super) exclusive: VecDeque<ConsumerKey>,
    pub(super) waiters: VecDeque<Waiter>,
    /// Who gave a message back: others are preferred.
    pub(super) shunned: BTreeMap<u64, ConsumerKey>,
    pub(super) is_dirty: bool,
    /// Since when nothing is in it and nobody wants anything of it.
    pub(super) idle_since: u64,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) dead_lettered: u64,
}

impl Queue {
    pub(super) fn new(number: u32, name: Arc<str>, options: QueueOptions, now: u64) -> Queue {
        Queue {
            number,
            name,
            options,
            durable_of: None,
            fed_by: None,
            declared: Declared::No,
            ready: Box::default(),
            filled: 0,
            delayed: Line::default(),
            in_flight: Line::default(),
            unreadable: Line::default(),
            count: 0,
            bytes: 0,
            hungry: VecDeque::new(),
            consumers: Vec::new(),
            selecting: Vec::new(),
            browsing: Vec::new(),
            exclusive: VecDeque::new(),
            waiters: VecDeque::new(),
            shunned: BTreeMap::new(),
            is_dirty: false,
            idle_since: now,
            sent: 0,
            acknowledged: 0,
            dead_lettered: 0,
        }
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.name.starts_with(TEMPORARY)
    }

    /// Whether nothing is in it and nobody wants anything of it.
    pub(super) fn is_unused(&self) -> bool {
        self.count == 0 && self.consumers.is_empty() && self.waiters.is_empty() && self.durable_of.is_none()
    }

    /// The messages of a priority that wait.
    pub(super) fn line(&self, priority: u8) -> &Line<Entry> {
        &self.ready[usize::from(priority)]
    }

    pub(super) fn ready_len(&self) -> usize {
        self.ready.iter().map(Line::len).sum()
    }

    /// Puts a message in line. There is none of its order: each is taken out before it is put back.
    pub(super) fn push_ready(&mut self, entry: Entry) {
        self.filled |= 1 << entry.priority;
        let line = &mut self.ready[usize::from(entry.priority)];
        let is_fresh = line.insert(entry).is_ok();
        debug_assert!(is_fresh, "a message is in its queue once");
    }

    /// The priority of the message that is next.
    fn top(&mut self) -> Option<usize> {
        loop {
            let top = self.filled.checked_ilog2()? as usize;
            if !self.ready[top].is_empty() {
                return Some(top);
            }
            self.filled &= !(1 << top);
        }
    }

    /// The message that is next.
    pub(super) fn first_ready(&mut self) -> Option<&Entry> {
        let top = self.top()?;
        self.ready[top].front()
    }

    pub(super) fn pop_ready(&mut self) -> Option<Entry> {
        let top = self.top()?;
        self.ready[top].pop_front()
    }

    /// The message that waits longest, whatever its priority.
    pub(super) fn oldest_ready(&self) -> Option<(u8, u64)> {
        let fronts = self.ready.iter().filter_map(Line::front);
        fronts.min_by_key(|entry| entry.order).map(|entry| (entry.priority, entry.order))
    }

    pub(super) fn take_ready(&mut self, priority: u8, order: u64) -> Option<Entry> {
        self.ready[usize::from(priority)].remove(order)
    }

    /// Takes a message out, wherever it is.
    pub(super) fn take(&mut self, priority: u8, order: u64) -> Option<(Where, Entry)> {
        if let Some(entry) = self.take_ready(priority, order) {
            return Some((Where::Ready, entry));
        }
        if let Some(entry) = self.in_flight.remove(order) {
            return Some((Where::InFlight, entry));
        }
        if let Some(entry) = self.delayed.remove(order) {
            return Some((Where::Delayed, entry));
        }
        self.unreadable.remove(order).map(|entry| (Where::Unreadable, entry))
    }

    /// A message, wherever it is.
    pub(super) fn get_mut(&mut self, priority: u8, order: u64) -> Option<&mut Entry> {
        let Queue { ready, in_flight, delayed, unreadable, .. } = self;
        let lines = [&mut ready[usize::from(priority)], in_flight, delayed, unreadable];
        lines.into_iter().find_map(|line| line.get_mut(order))
    }

    pub(super) fn get(&self, priority: u8, order: u64) -> Option<&Entry> {
        let lines = [self.line(priority), &self.in_flight, &self.delayed, &self.unreadable];
        lines.into_iter().find_map(|line| line.get(order))
    }

    /// All messages.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        let others = [&self.delayed, &self.in_flight, &self.unreadable];
        self.ready.iter().chain(others).flat_map(Line::iter)
    }
}
