//! The thread that writes histories to the disk.
//!
//! It waits until something is noted, collects for a while, and commits. While the disk fails it tries again, and what
//! waits stays where it is noted, which is bounded. When the journal grows, its oldest segment is released: what is
//! still retained is written again, or given up where there is no room. It runs as a task, too, where all threads are
//! one. What must stay true: the mark is made only when everything that was noted is durable and nothing more can be
//! noted; a writer that never ran leaves the disk as it found it.

use super::super::channels::{Backlog, Channels, Note};
use super::mark::Mark;
use super::record;
use super::{MAX_SEGMENT_BYTES, Wall};
use crate::env::Clock;
use crate::journal::{Journal, JournalError, Options, Sequence};
use longwire_protocol::Epoch;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pause after the disk failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// How often a failing disk is logged.
const DISK_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Segments that are released at once.
const MAX_RELEASES: usize = 2;

/// Bytes of segments that may be released for each byte that was written.
const RELEASED_PER_BYTE: u64 = 3;

/// How large the journal becomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From here on segments are released if that is worth its cost.
    soft: u64,
    /// From here on they are, and what they hold is given up.
    hard: u64,
    /// Beyond it nothing more is kept.
    max: u64,
    segment: u64,
}

impl Bounds {
    pub(super) fn new(max: u64) -> Bounds {
        let segment = (max / 8).min(MAX_SEGMENT_BYTES);
        Bounds { soft: max / 2, hard: max - 2 * segment, max, segment }
    }

    pub(super) fn options(&self, salt: u32) -> Options {
        let max_pending_bytes = self.segment as usize / 2;
        let max_record_bytes = max_pending_bytes / 2;
        Options { max_record_bytes, max_pending_bytes, max_segment_bytes: self.segment, ..Options::new(salt) }
    }
}

/// What a writer works with.
pub(super) struct Parts {
    pub(super) channels: Arc<Channels>,
    pub(super) clock: Clock,
    pub(super) journal: Journal,
    pub(super) mark: Mark,
    pub(super) bounds: Bounds,
}

/// What is to be written before anything else.
pub(super) struct Beginning {
    /// The epoch of what was there, if that is another from here on.
    pub(super) fresh: Option<Epoch>,
    /// Channels that are not to be kept any more.
    pub(super) gone: Vec<Arc<str>>,
    /// The process before came to its end.
    pub(super) is_clean: bool,
}

/// Writes what channels noted.
pub struct Writer {
    parts: Parts,
    backlog: Arc<Backlog>,
    max_delay: Duration,
    /// The fresh epoch, if there is one, until that is written.
    opened: Option<Option<Epoch>>,
    gone: Vec<Arc<str>>,
    is_clean: bool,
    has_begun: bool,
    /// What was collected and is not in the journal.
    batch: VecDeque<Note>,
    /// What the notes took of the backlog that are in the journal and not durable.
    uncommitted: usize,
    /// Bytes of segments that may be released, for what was written.
    allowance: u64,
    disk_at: Option<Instant>,
    disk_logged: Option<Instant>,
    payload: Vec<u8>,
}

impl Writer {
    pub(super) fn new(parts: Parts, max_delay: Duration, beginning: Beginning) -> Writer {
        let backlog = parts.channels.backlog.clone();
        Writer {
            backlog: backlog.expect("these channels were made with a backlog"),
            parts,
            max_delay,
            opened: Some(beginning.fresh),
            gone: beginning.gone,
            is_clean: beginning.is_clean,
            has_begun: false,
            batch: VecDeque::new(),
            uncommitted: 0,
            allowance: 0,
            disk_at: None,
            disk_logged: None,
            payload: Vec::new(),
        }
    }

    /// Works until the caller lets it go; then [`finish`](Self::finish) is called.
    pub async fn run(&mut self) {
        let (backlog, clock) = (self.backlog.clone(), self.parts.clock);
        loop {
            self.turn(clock.now());
            match self.disk_at {
                Some(at) => clock.sleep_until(at).await,
                None => {
                    if backlog.bytes() == 0 || backlog.has_failed() {
                        backlog.changed.notified().await;
                    }
                    clock.sleep(self.max_delay).await;
                }
            }
        }
    }

    /// Writes what is left, and marks that everything is there: the next process goes on as if nothing had happened.
    /// From here on nothing is published into channels that are kept.
    pub fn finish(mut self) {
        self.has_begun = true;
        self.end();
    }

    fn end(&mut self) {
        let Parts { channels, .. } = &self.parts;
        channels.collect(&mut self.batch, true);
        if self.backlog.has_failed() {
            return;
        }
        if let Err(error) = self.store().and_then(|()| self.make_mark()) {
            tracing::error!(%error, "histories are not complete on the disk: nobody can recover across the next start");
        }
    }

    fn make_mark(&mut self) -> Result<(), JournalError> {
        let making = self.parts.mark.begin()?;
        let time_ms = self.wall().unix_ms;
        let kind = record::write_stopped(time_ms, making.born, &mut self.payload);
        self.append(kind)?;
        self.commit()?;
        Ok(making.name(self.parts.journal.durable())?)
    }

    /// Does what is due.
    pub(super) fn turn(&mut self, now: Instant) {
        self.has_begun = true;
        if self.disk_at.is_some_and(|at| at > now) {
            return;
        }
        self.disk_at = None;
        self.parts.channels.collect(&mut self.batch, false);
        if self.backlog.has_failed() {
            // What the journal has is as good as what a kill leaves.
            let waiting: usize = self.batch.drain(..).map(|note| note.bytes()).sum();
            self.backlog.settle(waiting + std::mem::take(&mut self.uncommitted));
            return;
        }
        if let Err(error) = self.store().and_then(|()| self.release()) {
            self.handle_error(now, &error);
        }
    }

    fn handle_error(&mut self, now: Instant, error: &JournalError) {
        self.backlog.counters.disk_errors.add(1);
        if let JournalError::Damaged(_) = error {
            self.backlog.fail(&error.to_string());
            return;
        }
        self.disk_at = Some(now + DISK_PAUSE);
        if self.disk_logged.is_none_or(|logged| logged + DISK_LOG_INTERVAL <= now) {
            self.disk_logged = Some(now);
            let waiting_bytes = self.backlog.bytes();
            tracing::error!(%error, waiting_bytes, "histories cannot be written; trying again");
        }
    }

    fn wall(&self) -> Wall {
        Wall { now: self.parts.clock.now(), unix_ms: self.parts.clock.unix_millis() }
    }

    /// Makes durable what was collected; what the disk refuses waits.
    fn store(&mut self) -> Result<(), JournalError> {
        let wall = self.wall();
        if let Some(fresh) = self.opened {
            let kind = record::write_opened(wall.unix_ms, fresh, &mut self.payload);
            self.append(kind)?;
            self.opened = None;
        }
        while let Some(channel) = self.gone.last() {
            let kind = record::write_gone(channel, &mut self.payload);
            self.append(kind)?;
            self.gone.pop();
        }
        while let Some(note) = self.batch.pop_front() {
            let bytes = note.bytes();
            if let Err(error) = self.append_note(&note, &wall) {
                self.batch.push_front(note);
                return Err(error);
            }
            self.uncommitted += bytes;
        }
        self.commit()
    }

    fn append_note(&mut self, note: &Note, wall: &Wall) -> Result<(), JournalError> {
        let kind = record::write_note(note, wall, &mut self.payload);
        match (self.append(kind), &note.publication) {
            (Err(JournalError::RecordTooLarge { bytes, bound }), Some((_, publication))) => {
                self.give_up(&note.channel, publication.offset);
                tracing::warn!(channel = %note.channel, bytes, bound, "a publication is too large for the disk");
                // The disk must know all the same that the channel went on.
                let mut state = note.state.clone();
                state.first = state.first.max(publication.offset + 1);
                let standing = Note { channel: note.channel.clone(), state, publication: None };
                let kind = record::write_note(&standing, wall, &mut self.payload);
                self.append(kind)
            }
            (result, _) => result,
        }
    }

    fn give_up(&self, channel: &str, offset: u64) {
        self.backlog.counters.given_up.add(self.parts.channels.give_up(channel, offset));
    }

    /// Appends the payload that was written; if much waits for a commit, after that.
    fn append(&mut self, kind: u8) -> Result<(), JournalError> {
        let appended = match self.parts.journal.append(kind, &self.payload) {
            Err(JournalError::Backlog { .. }) => {
                self.commit()?;
                self.parts.journal.append(kind, &self.payload)
            }
            other => other,
        };
        appended.map(drop)
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        let bytes = self.parts.journal.pending_bytes() as u64;
        if bytes == 0 && self.uncommitted == 0 {
            return Ok(());
        }
        self.parts.journal.commit()?;
        self.backlog.settle(std::mem::take(&mut self.uncommitted));
        self.allowance = self.allowance.saturating_add(bytes * RELEASED_PER_BYTE).min(self.parts.bounds.max);
        self.backlog.counters.commits.add(1);
        self.backlog.counters.disk_bytes.set(self.parts.journal.disk_bytes());
        Ok(())
    }

    /// Gives room back, where the journal has become large.
    fn release(&mut self) -> Result<(), JournalError> {
        let Bounds { soft, hard, max, segment } = self.parts.bounds;
        for _ in 0..MAX_RELEASES {
            let used = self.parts.journal.disk_bytes();
            let Some(end) = self.parts.journal.oldest_ends().filter(|_| used > soft) else { break };
            let is_urgent = used > hard;
            // Where nearly everything is retained, writing it again and again would gain nothing.
            if !is_urgent && self.allowance < segment {
                break;
            }
            self.allowance = self.allowance.saturating_sub(segment);
            self.release_oldest(end, is_urgent)?;
        }
        let used = self.parts.journal.disk_bytes();
        self.backlog.counters.disk_bytes.set(used);
        if used > max {
            self.backlog.fail("histories need more of the disk than `history.max_disk_bytes`");
        }
        Ok(())
    }

    /// Releases the segment that ends here. What is retained is written again before, or given up.
    fn release_oldest(&mut self, end: Sequence, is_giving_up: bool) -> Result<(), JournalError> {
        let (wall, before) = (self.wall(), self.backlog.counters.given_up.get());
        let mut seen: BTreeSet<Arc<str>> = BTreeSet::new();
        for read in self.parts.journal.replay(self.parts.journal.first()) {
            let read = read?;
            if read.sequence > end {
                break;
            }
            let Some((channel, offset)) = record::key(read.kind, &read.payload) else { continue };
            match offset {
                Some(offset) if is_giving_up => self.give_up(channel, offset),
                // From memory: the record may be of a numbering that the channel has no more.
                Some(offset) => {
                    if let Some(note) = self.parts.channels.note_of(channel, offset) {
                        self.append_note(&note, &wall)?;
                    }
                }
                None => {}
            }
            if !seen.contains(channel) {
                seen.insert(channel.into());
            }
        }
        for channel in seen {
            if let Some(note) = self.parts.channels.standing(&channel) {
                self.append_note(&note, &wall)?;
            }
        }
        self.commit()?;
        let given_up = self.backlog.counters.given_up.get() - before;
        if given_up > 0 {
            tracing::warn!(
                publications = given_up,
                "histories need more of the disk than `history.max_disk_bytes`: the oldest are in memory only"
            );
        }
        self.parts.journal.release(end)
    }
}

impl Drop for Writer {
    /// Of a process that never came to serve: it ends what the one before had ended.
    fn drop(&mut self) {
        if !self.has_begun && self.is_clean {
            self.end();
        }
    }
}
