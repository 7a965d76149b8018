//! The channels of a broker that is in memory, and what the disk is yet to be told of them.
//!
//! Channels lie in stripes, each behind a lock that is held for a few instructions and never across an await or a
//! call of the disk. [`MemoryBroker`](super::MemoryBroker) changes them; the [`store`](super::store) takes away what it
//! noted, and looks up what is still worth its place on the disk. What must stay true: a note is made under the lock
//! under which its channel changed, so notes of one channel are in the order of its changes; after a stripe was closed
//! nothing of it that should be on the disk changes; what waits for the disk is bounded.

use crate::history::{History, State};
use crate::telemetry::HistoryCounters;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::Publication;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

const STRIPES: usize = 64;

/// Channels in memory.
pub struct Channels {
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
    /// What waits for the disk, where histories are kept there.
    pub(super) backlog: Option<Arc<Backlog>>,
}

/// Channels behind one lock.
pub(super) struct Stripe {
    pub(super) channels: HashMap<Arc<str>, Channel, RandomState>,
    pub(super) notes: Notes,
}

/// What the disk is to be told, in the order in which it happened.
#[derive(Default)]
pub(super) struct Notes {
    waiting: Vec<Note>,
    is_closed: bool,
}

/// One channel.
#[derive(Default)]
pub(super) struct Channel {
    pub(super) history: Option<History>,
    /// One bit a shard.
    pub(super) interested: u64,
    /// What the disk knows, of a channel whose history is kept there.
    pub(super) kept: Option<Box<Kept>>,
}

/// What the disk has of a channel, or will have when it was told what waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// It has no publication before this one.
    pub(super) first: u64,
    /// It believes that the channel may be forgotten then.
    pub(super) until: Instant,
}

/// What the disk is to be told of a channel: how it stands, and mostly a publication.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) channel: Arc<str>,
    /// `first` is the oldest publication that counts.
    pub(super) state: State,
    /// With the time at which it expires.
    pub(super) publication: Option<(Instant, Arc<Publication>)>,
}

/// How much waits for the disk.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: AtomicUsize,
    max_bytes: usize,
    has_failed: AtomicBool,
    /// Something waits where nothing did, or nothing will ever be kept again.
    pub(super) changed: Notify,
    pub(super) counters: HistoryCounters,
}

impl Channels {
    /// No channels, in the memory of this process alone.
    pub fn new() -> Channels {
        Channels::noting(None)
    }

    pub(super) fn noting(backlog: Option<Arc<Backlog>>) -> Channels {
        let hasher = RandomState::default();
        let stripe = || Stripe { channels: HashMap::with_hasher(hasher.clone()), notes: Notes::default() };
        let stripes = (0..STRIPES).map(|_| Mutex::new(stripe())).collect();
        Channels { stripes, hasher, backlog }
    }

    /// The channels of which something is retained or known, by name: how they stand, and what is retained.
    pub fn survey(&self) -> Vec<(Arc<str>, State, Vec<Arc<Publication>>)> {
        let mut found = Vec::new();
        for stripe in self.stripes() {
            for (name, channel) in &stripe.channels {
                let Some(history) = &channel.history else { continue };
                let state = history.state();
                let retained = (state.first..=state.top).filter_map(|offset| history.retained(offset));
                let retained = retained.map(|(_, publication)| publication.clone()).collect();
                found.push((name.clone(), state, retained));
            }
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    pub(super) fn stripe(&self, channel: &str) -> MutexGuard<'_, Stripe> {
        let index = self.hasher.hash_one(channel) as usize % STRIPES;
        lock(&self.stripes[index])
    }

    /// All stripes, one after the other; each is locked until the next is asked for.
    pub(super) fn stripes(&self) -> impl Iterator<Item = MutexGuard<'_, Stripe>> {
        self.stripes.iter().map(lock)
    }

    /// Puts in a channel as it was in an earlier process.
    pub(super) fn put(&self, name: Arc<str>, history: History) {
        let state = history.state();
        let kept = Kept { first: state.first, until: state.forgotten_at };
        let channel = Channel { history: Some(history), interested: 0, kept: Some(Box::new(kept)) };
        self.stripe(&name).channels.insert(name, channel);
    }

    /// Takes away what was noted. If `is_last`, publishing into channels that are kept is refused from then on.
    pub(super) fn collect(&self, batch: &mut VecDeque<Note>, is_last: bool) {
        for mut stripe in self.stripes() {
            batch.extend(stripe.notes.waiting.drain(..));
            stripe.notes.is_closed |= is_last;
        }
    }

    /// What is to be told of a publication that the disk shall go on to have; `None` if nobody needs it.
    pub(super) fn note_of(&self, name: &str, offset: u64) -> Option<Note> {
        let stripe = self.stripe(name);
        let (name, channel) = stripe.channels.get_key_value(name)?;
        let kept = channel.kept.as_ref().filter(|kept| kept.first <= offset)?;
        let history = channel.history.as_ref()?;
        let (expiry, publication) = history.retained(offset)?;
        Some(kept.note(name, history, Some((expiry, publication.clone()))))
    }

    /// What is to be told of a channel alone; `None` if nobody needs it.
    pub(super) fn standing(&self, name: &str) -> Option<Note> {
        let stripe = self.stripe(name);
        let (name, channel) = stripe.channels.get_key_value(name)?;
        Some(channel.kept.as_ref()?.note(name, channel.history.as_ref()?, None))
    }

    /// Gives up having a publication on the disk, and those of the channel before it; how many that are.
    pub(super) fn give_up(&self, name: &str, offset: u64) -> u64 {
        let mut stripe = self.stripe(name);
        let Some(Channel { history: Some(history), kept: Some(kept), .. }) = stripe.channels.get_mut(name)
        else {
            return 0;
        };
        let first = kept.first.max(history.state().first);
        if history.retained(offset).is_none() || offset < first {
            return 0;
        }
        kept.first = offset + 1;
        kept.first - first
    }
}

impl Default for Channels {
    fn default() -> Channels {
        Channels::new()
    }
}

fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    // A panic while the lock was held is a bug of ours; the map itself is still a map.
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn note(
        &self,
        channel: &Arc<str>,
        history: &History,
        publication: Option<(Instant, Arc<Publication>)>,
    ) -> Note {
        let mut state = history.state();
        state.first = state.first.max(self.first);
        Note { channel: channel.clone(), state, publication }
    }
}

impl Notes {
    /// Whether nothing more can be noted.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Notes that something was published into a channel that is kept, or that it was cleared.
    pub(super) fn changed(
        &mut self,
        backlog: &Backlog,
        name: &Arc<str>,
        channel: &mut Channel,
        publication: Option<(Instant, Arc<Publication>)>,
    ) {
        if let Channel { history: Some(history), kept: Some(kept), .. } = channel
            && !self.is_closed
            && !backlog.has_failed()
        {
            let note = kept.note(name, history, publication);
            kept.until = note.state.forgotten_at;
            if backlog.take(note.bytes()) {
                self.waiting.push(note);
            }
        }
    }

    /// Notes that a channel that is kept was used, if that makes a difference worth a record.
    pub(super) fn used(&mut self, backlog: &Backlog, name: &Arc<str>, channel: &mut Channel) {
        if let Channel { history: Some(history), kept: Some(kept), .. } = channel
            && history.forgotten_at() > kept.until + history.lasting() / 2
        {
            self.changed(backlog, name, channel, None);
        }
    }
}

impl Note {
    /// About what it takes of the memory.
    pub(super) fn bytes(&self) -> usize {
        let of_publication = |(_, publication): &(Instant, Arc<Publication>)| {
            let tags =
                publication.tags.iter().map(|(key, value)| 48 + key.len() + value.len()).sum::<usize>();
            let info =
                publication.info.as_ref().map_or(0, |info| info.conn_info.len() + info.chan_info.len());
            128 + publication.data.len() + tags + info
        };
        size_of::<Note>() + self.publication.as_ref().map_or(0, of_publication)
    }
}

impl Backlog {
    pub(super) fn new(max_bytes: usize) -> Backlog {
        let (bytes, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let counters = HistoryCounters::default();
        Backlog { bytes, max_bytes, has_failed, changed: Notify::new(), counters }
    }

    /// Counts what is noted; false if that is more than may wait, and then nothing is kept any more.
    fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::SeqCst);
        if before.saturating_add(bytes) > self.max_bytes {
            self.settle(bytes);
            self.fail("too much waits for the disk");
            return false;
        }
        if before == 0 {
            self.changed.notify_one();
        }
        true
    }

    /// Counts what waits no longer.
    pub(super) fn settle(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// How much waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// Keeps nothing any more, for as long as this process lives.
    pub(super) fn fail(&self, why: &str) {
        if !self.has_failed.swap(true, Ordering::SeqCst) {
            tracing::error!(
                why,
                "histories are in memory only until the next start, and nobody can recover across it"
            );
            self.counters.failed.set(1);
            self.changed.notify_one();
        }
    }

    /// What is counted.
    pub(super) fn counters(&self) -> &HistoryCounters {
        self.counters.pending_bytes.set(self.bytes() as u64);
        &self.counters
    }

    /// Whether nothing is kept any more.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::SeqCst)
    }
}
