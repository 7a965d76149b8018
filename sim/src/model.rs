//! The truth, on one page: what was published where, in which order, and who was announced.
//!
//! Brokers write it at the moment in which something takes effect; the checks read it. It knows nothing of
//! nodes, connections or faults.

use longwire_protocol::{Epoch, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The truth; copies share it.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<Truth>>);

/// What is true.
#[derive(Default)]
pub struct Truth {
    /// By channel and epoch, what was published, in the order of the offsets from 1.
    numbered: BTreeMap<(String, Epoch), Vec<Record>>,
    /// The epoch of a channel's last publication.
    current: BTreeMap<String, Epoch>,
    /// All channels and payloads.
    published: BTreeSet<(String, String)>,
    /// What was published without an offset, by channel and payload: its place in the order.
    unnumbered: BTreeMap<String, BTreeMap<String, usize>>,
    /// By channel and client: true for a join, false for a leave.
    pub movements: BTreeMap<(String, String), Vec<bool>>,
    /// Channels and clients of whom an announcement did not reach the store.
    pub unannounced: BTreeSet<(String, String)>,
}

/// One publication.
#[derive(Clone, Debug)]
pub struct Record {
    /// The payload.
    pub data: String,
    /// When it took effect.
    pub at: Instant,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Model {
    /// Looks at the truth, or changes it.
    pub fn lock(&self) -> MutexGuard<'_, Truth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Truth {
    /// A publication took effect.
    ///
    /// # Errors
    /// The broker broke the numbering.
    pub fn publish(
        &mut self,
        channel: &str,
        position: Option<Position>,
        data: &str,
        tags: BTreeMap<String, String>,
        at: Instant,
    ) -> Result<(), String> {
        self.published.insert((channel.into(), data.into()));
        let Some(Position { offset, epoch }) = position else {
            let seen = self.unnumbered.entry(channel.into()).or_default();
            seen.insert(data.into(), seen.len());
            return Ok(());
        };
        let records = self.numbered.entry((channel.into(), epoch)).or_default();
        if offset != records.len() as u64 + 1 {
            return Err(format!("{channel}: offset {offset} after {} in epoch {epoch}", records.len()));
        }
        records.push(Record { data: data.into(), at, tags });
        self.current.insert(channel.into(), epoch);
        Ok(())
    }

    /// Everything was forgotten that had offsets: what is published next has another epoch.
    pub fn lose_epochs(&mut self) {
        self.current.clear();
    }

    /// The publication with this offset.
    pub fn record(&self, channel: &str, epoch: Epoch, offset: u64) -> Option<&Record> {
        self.numbered.get(&(channel.into(), epoch))?.get(usize::try_from(offset).ok()?.checked_sub(1)?)
    }

    /// The newest position, if anything with an offset was published since epochs were lost.
    pub fn top(&self, channel: &str) -> Option<Position> {
        let epoch = *self.current.get(channel)?;
        let offset = self.numbered.get(&(channel.into(), epoch))?.len() as u64;
        Some(Position { offset, epoch })
    }

    /// The place of an unnumbered publication in its channel.
    pub fn place(&self, channel: &str, data: &str) -> Option<usize> {
        self.unnumbered.get(channel)?.get(data).copied()
    }

    /// Whether something was published in a channel.
    pub fn is_published(&self, channel: &str, data: &str) -> bool {
        self.published.contains(&(channel.to_owned(), data.to_owned()))
    }

    /// The place of what is published next without an offset.
    pub fn next_place(&self, channel: &str) -> usize {
        self.unnumbered.get(channel).map_or(0, BTreeMap::len)
    }

    /// A client was announced to have come or gone.
    pub fn announce(&mut self, channel: &str, client: String, is_join: bool) {
        self.movements.entry((channel.into(), client)).or_default().push(is_join);
    }
}
