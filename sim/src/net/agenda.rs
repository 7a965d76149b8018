//! What is due when.
//!
//! One ordered list for the whole network, worked off by one task. Entries at the same time come in the order
//! in which they were put, so that a run depends on nothing but its seed. Every entry can be taken back: a
//! connection that is over leaves nothing here.

use super::fate::{ConnId, Side};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Names an entry: its time and its place among those of the same time.
pub(super) type Key = (Instant, u64);

/// Something that the network has to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Due {
    /// The first segment that this side sent arrives.
    Deliver(ConnId, Side),
    /// The first acknowledgement of what this side sent arrives.
    Acknowledge(ConnId, Side),
    /// This side may have waited long enough.
    Check(ConnId, Side),
    /// The first segment of this attempt to connect arrives.
    Syn(u64),
    /// The answer to this attempt to connect arrives.
    Answer(u64, bool),
}

#[derive(Default)]
pub(super) struct Agenda {
    next: u64,
    entries: BTreeMap<Key, Due>,
}

impl Agenda {
    pub(super) fn put(&mut self, at: Instant, due: Due) -> Key {
        let key = (at, self.next);
        self.next += 1;
        self.entries.insert(key, due);
        key
    }

    pub(super) fn cancel(&mut self, key: &mut Option<Key>) {
        if let Some(key) = key.take() {
            self.entries.remove(&key);
        }
    }

    /// When the first entry is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// The first entry, if it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due> {
        let entry = self.entries.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
