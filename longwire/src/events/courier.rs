//! The thread that takes events to the disk and from there to the backend.
//!
//! It takes what shards recorded, gives it ids, commits it in groups, and posts the outbox's batches; calls are made
//! on the thread of the HTTP API, so that a slow disk delays no call and no call a commit. At its start it takes
//! stock of what an earlier process left, and ends what that began. It runs as a task, too, where all threads are
//! one. What must stay true: nothing is sent that is not durable; while the disk fails nothing is lost that was
//! taken, and it is tried again; whatever is dropped is counted and logged.

use super::event::{Draft, Kept, Line, Standing};
use super::occupancy::Verdict;
use super::outbox::{Batch, Fate, Outbox, Rules};
use super::reconcile::{self, Ledger};
use super::{Event, Events, Shared, lock};
use crate::config::{self, Config};
use crate::env::http::{Answer, Call, HttpError, Method};
use crate::env::{Clock, Env, Http, Rng};
use crate::errands::Errands;
use crate::journal::{Damage, DataDir, Journal, JournalError, Options, Replay, Sequence};
use crate::signature;
use longwire_protocol::flaw::{self, Flaw};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause after the disk failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// How often a failing disk is logged.
const DISK_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long it may be unwritten how far deliveries came; what is delivered meanwhile is sent again after a crash.
const MARK_DELAY: Duration = Duration::from_secs(1);

/// The longest sleep: nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// The largest answer that is read: only its status counts.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// The largest segment; only whole ones are released.
const MAX_SEGMENT_BYTES: u64 = 8 << 20;

/// Segments that are released at once; each may have to be written again.
const MAX_RELEASES: usize = 4;

/// With the deliberate flaw, how much is delivered before it is on the disk.
const UNSAFE_BYTES: usize = 16 << 10;
/// The journal's directory below `server.data_dir`.
const DIRECTORY: &str = "events";

/// The largest event.
const MAX_RECORD_BYTES: usize = 512 << 10;

/// The outcome of a call; `None` if the server is stopping.
type Calling = Pin<Box<dyn Future<Output = Option<Result<Answer, HttpError>>> + Send>>;

/// Takes events to the disk and from there to the backend.
pub struct Courier {
    shared: Arc<Shared>,
    settings: config::Events,
    endpoint: Arc<str>,
    clock: Clock,
    rng: Rng,
    http: Http,
    errands: Errands,
    data_dir: DataDir,
    options: Options,
    node: String,
    has_begun: bool,
    ids: Ids,
    /// `None` until the disk lets it be opened and read.
    journal: Option<Journal>,
    has_stock: bool,
    ledger: Ledger,
    outbox: Outbox,
    /// Events without a place in the journal: ends of what a lost process began, which go first, and what shards
    /// recorded, which the queue's bound counts.
    endings: VecDeque<Draft>,
    collected: VecDeque<Event>,
    /// Events in the journal that are not durable yet, each with what it takes of the queue's bound.
    uncommitted: Vec<(Kept, usize)>,
    /// What the outbox wants from the disk.
    reading: Option<Replay>,
    /// Empty channels, by the time to ask about them.
    watched: BTreeSet<(Instant, Arc<str>)>,
    calling: Option<Calling>,
    /// When what was collected is written.
    commit_at: Option<Instant>,
    /// When the disk is tried again.
    disk_at: Option<Instant>,
    disk_logged: Option<Instant>,
    mark: Sequence,
    mark_at: Option<Instant>,
    /// Something changed since segments were last considered for release.
    may_release: bool,
    /// What must be written again before the segment that ends here is released.
    rewrites: VecDeque<(Kept, Standing)>,
    releasing: Option<Sequence>,
}

/// Gives ids: in order within a directory, and never the same twice.
#[derive(Clone, Copy, Debug)]
struct Ids {
    /// Grows with each start.
    epoch: u64,
    /// A random number: other nodes have the same epochs and sequences.
    tag: u32,
}

impl Ids {
    fn id(self, sequence: Sequence) -> String {
        format!("{:012x}-{sequence:012x}-{:08x}", self.epoch, self.tag)
    }
}

/// Gets events going: where shards record them, and who takes them away.
///
/// # Errors
/// What an earlier process left is damaged, or of another version, or another process uses the directory. A disk that
/// fails only delays.
pub fn prepare(
    config: &Config,
    env: &Env,
    data_dir: DataDir,
    errands: Errands,
) -> io::Result<(Events, Option<Courier>)> {
    let events = Events::new(&config.events);
    let (Some(shared), Some(endpoint)) = (&events.0, &config.events.endpoint) else {
        return Ok((Events::off(), None));
    };
    let settings = config.events.clone();
    let mut rng = env.rng.fork("events");
    let most = settings.max_disk_bytes as u64 / 8;
    let max_segment_bytes = most.min(MAX_SEGMENT_BYTES);
    let max_pending_bytes = max_segment_bytes as usize / 2;
    let options = Options {
        max_record_bytes: MAX_RECORD_BYTES.min(max_pending_bytes / 2),
        max_pending_bytes,
        max_segment_bytes,
        past_damage: settings.past_damage,
        ..Options::new(rng.bits() as u32)
    };
    let rules = Rules {
        types: settings.types.clone(),
        max_batch: settings.max_batch,
        max_batch_bytes: settings.max_batch_bytes,
        max_backoff: settings.max_backoff,
    };
    let mut courier = Courier {
        shared: shared.clone(),
        endpoint: endpoint.as_str().into(),
        clock: env.clock,
        http: env.http.clone(),
        errands,
        data_dir,
        options,
        node: String::new(),
        has_begun: false,
        ids: Ids { epoch: 0, tag: rng.bits() as u32 },
        rng,
        journal: None,
        has_stock: false,
        ledger: Ledger::default(),
        outbox: Outbox::new(rules, 0),
        endings: VecDeque::new(),
        collected: VecDeque::new(),
        uncommitted: Vec::new(),
        reading: None,
        watched: BTreeSet::new(),
        calling: None,
        commit_at: None,
        disk_at: None,
        disk_logged: None,
        mark: 0,
        mark_at: None,
        may_release: true,
        rewrites: VecDeque::new(),
        releasing: None,
        settings,
    };
    let opened = courier.open();
    match opened {
        Err(error @ (JournalError::Io(_) | JournalError::DiskFull(_))) => {
            courier.note_disk_error(env.clock.now(), &error);
        }
        Err(error) => {
            let advice = match error {
                JournalError::Damaged(_) => "; set `events.past_damage = true` to start without what is lost",
                _ => "",
            };
            return Err(io::Error::other(format!("events: {error}{advice}")));
        }
        Ok(()) => {}
    }
    Ok((events, Some(courier)))
}

impl Courier {
    /// Works until the caller lets it go; then [`finish`](Self::finish) is called. `node` names this process.
    pub async fn run(&mut self, node: &str) {
        node.clone_into(&mut self.node);
        self.has_begun = true;
        let shared = self.shared.clone();
        loop {
            let now = self.clock.now();
            self.turn(now);
            let next = self.next(now);
            let sleep = self.clock.sleep_until(next);
            let calling = &mut self.calling;
            let calling = async move {
                match calling {
                    Some(calling) => calling.await,
                    None => std::future::pending().await,
                }
            };
            let outcome = tokio::select! {
                biased;
                outcome = calling => Some(outcome),
                () = shared.changed.notified() => None,
                () = sleep => None,
            };
            if let Some(outcome) = outcome {
                self.calling = None;
                self.answered(outcome);
            }
        }
    }

    /// Writes what is left to the disk: the next start goes on with it. Of a server that never came to run there is
    /// nothing, and it leaves alone what an earlier process left.
    pub fn finish(&mut self) {
        if !self.has_begun {
            return;
        }
        let now = self.clock.now();
        self.collect();
        self.disk_at = None;
        self.store(now);
        self.count();
        let left = self.shared.counters.pending.get();
        if left > 0 {
            tracing::warn!(events = left, directory = %self.data_dir.of(DIRECTORY).display(), "events wait for the next start");
        }
    }

    /// Does what is due.
    fn turn(&mut self, now: Instant) {
        self.disk_at.take_if(|at| *at <= now);
        self.ask_about_channels(now);
        let is_draining = self.shared.is_draining.load(Ordering::SeqCst);
        if self.commit_at.is_none() && !lock(&self.shared.queue).is_empty() {
            self.commit_at = Some(now + self.settings.max_delay);
        }
        if self.commit_at.take_if(|at| *at <= now || is_draining).is_some() {
            self.collect();
            self.store(now);
        } else if self.has_work(now) {
            self.store(now);
        }
        if self.disk_at.is_none()
            && let Err(error) = self.release().and_then(|()| self.fetch())
        {
            self.note_disk_error(now, &error);
        }
        self.send(now);
        self.count();
    }

    /// Whether the disk has something to do beside what was just collected.
    fn has_work(&self, now: Instant) -> bool {
        !self.has_stock
            || self.mark_at.is_some_and(|at| at <= now)
            || !self.endings.is_empty()
            || !self.collected.is_empty()
            || self.releasing.is_some()
            || self.journal.as_ref().is_some_and(|journal| journal.durable() < journal.last())
    }

    /// When there is something to do, whatever else happens.
    fn next(&self, now: Instant) -> Instant {
        let mut next = now + IDLE;
        let mut consider = |at: Option<Instant>| next = next.min(at.unwrap_or(next));
        consider(self.commit_at);
        consider(self.disk_at.or(self.mark_at));
        consider(self.outbox.poll_timeout(now));
        consider(self.watched.first().map(|(at, _)| *at));
        next
    }

    fn ask_about_channels(&mut self, now: Instant) {
        let time_ms = self.clock.unix_millis();
        let due = std::mem::take(&mut *lock(&self.shared.emptied));
        self.watched.extend(due.into_iter().map(|channel| (now, channel)));
        let is_draining = self.shared.is_draining.load(Ordering::SeqCst);
        let mut later = Vec::new();
        while let Some((at, channel)) = self.watched.pop_first() {
            if at > now && !is_draining {
                self.watched.insert((at, channel));
                break;
            }
            if let Verdict::AskAt(at) = self.shared.ask(&channel, now, time_ms) {
                later.push((at, channel));
            }
        }
        self.watched.extend(later);
    }

    /// Takes what shards recorded.
    fn collect(&mut self) {
        let events = std::mem::take(&mut *lock(&self.shared.queue));
        self.collected.extend(events);
    }

    /// Writes what was collected; what the disk refuses waits.
    fn store(&mut self, now: Instant) {
        if self.disk_at.is_some() {
            return;
        }
        if let Err(error) = self.try_store() {
            self.note_disk_error(now, &error);
        }
    }

    fn try_store(&mut self) -> Result<(), JournalError> {
        if self.journal.is_none() {
            self.open()?;
        }
        if !self.has_stock {
            self.take_stock()?;
        }
        self.finish_release()?;
        loop {
            let is_all = self.append_drafts()?;
            let position = self.outbox.position();
            if is_all && position > self.mark {
                self.append_mark(position)?;
            }
            self.mark_at = None;
            self.commit()?;
            if is_all {
                return Ok(());
            }
        }
    }

    fn open(&mut self) -> Result<(), JournalError> {
        let (journal, recovery) = self.data_dir.open(DIRECTORY, self.options.clone())?;
        for damage in &recovery.damage {
            tracing::error!(%damage, "events are lost: the journal is damaged, and `events.past_damage` is set");
        }
        if let Some(error) = recovery.unsaved {
            tracing::error!(%error, "events of the last run are not safe on the disk yet");
        }
        self.journal = Some(journal);
        Ok(())
    }

    /// Learns what an earlier process left, and ends what it began.
    fn take_stock(&mut self) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        // Records that a crash left without proof can be read once they are written again.
        journal.commit()?;
        let (mut ledger, mut position, mut epoch, mut newest_ms) = (Ledger::default(), 0, 0, 0);
        for record in journal.replay(0) {
            match Line::decode(record?) {
                Some(Line::Mark { position: marked, epoch: marked_epoch }) => {
                    position = position.max(marked);
                    epoch = epoch.max(marked_epoch);
                }
                Some(Line::Event(kept)) => {
                    ledger.note(&kept);
                    if !kept.is_reconciled {
                        newest_ms = newest_ms.max(kept.time_ms);
                    }
                }
                None => tracing::error!("an event is passed over: another version of longwire wrote it"),
            }
        }
        let position = position.max(journal.first().saturating_sub(1));
        let mut outbox = Outbox::new(self.outbox.rules().clone(), position);
        let mut opened = Vec::new();
        for record in journal.replay(0) {
            let Some(Line::Event(kept)) = Line::decode(record?) else { continue };
            if kept.sequence > position {
                outbox.count(&kept);
            }
            if ledger.stands_at(&kept) {
                opened.push(kept);
            }
        }
        outbox.set_behind();
        let now_ms = self.clock.unix_millis();
        if flaw::is_on(Flaw::DisconnectForgotten) {
            opened.clear();
        }
        let count = opened.len();
        let endings =
            reconcile::endings(&ledger, opened, now_ms, newest_ms, |kind| outbox.rules().is_sent(kind));
        if count > 0 {
            tracing::warn!(events = count, "the last run was cut off: its clients and channels are ended");
        }
        self.ids.epoch = (epoch + 1).max(now_ms.max(0) as u64);
        self.mark = position;
        let counters = &self.shared.counters;
        counters.pending.add(outbox.waiting());
        for draft in &endings {
            counters.recorded.add(1);
            counters.pending.add(u64::from(outbox.rules().is_sent(draft.kind)));
        }
        (self.ledger, self.outbox, self.has_stock) = (ledger, outbox, true);
        self.shared.has_stock.store(true, Ordering::SeqCst);
        self.endings = endings.into();
        self.append_mark(position)
    }

    /// Gives events their places; false if the journal must commit before it takes the rest.
    fn append_drafts(&mut self) -> Result<bool, JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(true) };
        loop {
            let sequence = journal.last() + 1;
            let is_ending = !self.endings.is_empty();
            let (draft, bytes) = match (self.endings.front(), self.collected.front()) {
                (Some(ending), _) => (ending.clone(), 0),
                (None, Some(event)) => (event.draft(&self.node), event.memory_bytes()),
                (None, None) => return Ok(true),
            };
            let kept = draft.finish(sequence, self.ids.id(sequence));
            let (kind, payload) = kept.encode();
            match journal.append(kind, &payload) {
                Ok(_) => {
                    self.ledger.note(&kept);
                    self.outbox.count(&kept);
                    self.uncommitted.push((kept, bytes));
                }
                Err(error @ JournalError::RecordTooLarge { .. }) => {
                    tracing::error!(%error, event = kept.kind.as_str(), "an event is lost");
                    let is_sent = self.outbox.is_sent(&kept);
                    self.shared.counters.dropped.add(1);
                    self.shared.counters.pending.sub(is_sent.into());
                    self.shared.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }
                Err(JournalError::Backlog { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
            if is_ending {
                self.endings.pop_front();
            } else {
                self.collected.pop_front();
            }
        }
    }

    fn append_mark(&mut self, position: Sequence) -> Result<(), JournalError> {
        let (kind, payload) = Line::mark(position, self.ids.epoch);
        self.append(kind, &payload)?;
        (self.mark, self.mark_at) = (position, None);
        Ok(())
    }

    /// Appends a record, if need be after a commit.
    fn append(&mut self, kind: u8, payload: &[u8]) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        match journal.append(kind, payload) {
            Err(JournalError::Backlog { .. }) => {
                self.commit()?;
                self.append(kind, payload)
            }
            other => other.map(drop),
        }
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        // Also when nothing waits to be written: the names of the last attempt may not be safe yet.
        if !(flaw::is_on(Flaw::EventsBeforeDisk) && journal.pending_bytes() < UNSAFE_BYTES) {
            journal.commit()?;
        }
        self.may_release |= !self.uncommitted.is_empty();
        for (kept, bytes) in self.uncommitted.drain(..) {
            self.shared.queue_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.outbox.offer(kept);
        }
        if !self.outbox.is_behind() {
            // The last records may be no events.
            self.outbox.skip_to(journal.durable());
        }
        Ok(())
    }

    fn note_disk_error(&mut self, now: Instant, error: &JournalError) {
        self.shared.counters.disk_errors.add(1);
        self.disk_at = Some(now + DISK_PAUSE);
        self.reading = None;
        if self.disk_logged.is_none_or(|at| at + DISK_LOG_INTERVAL <= now) {
            self.disk_logged = Some(now);
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, cause, directory = %self.data_dir.of(DIRECTORY).display(), "events wait for the disk");
        }
    }

    /// Reads what the outbox wants from the disk.
    fn fetch(&mut self) -> Result<(), JournalError> {
        // While a segment is released, what is moved is not in its place yet.
        let is_ready = self.has_stock && self.releasing.is_none();
        let Some(journal) = self.journal.as_ref().filter(|_| is_ready) else { return Ok(()) };
        let Some(from) = self.outbox.wants_from() else { return Ok(()) };
        let mut reading = self.reading.take().unwrap_or_else(|| journal.replay(from));
        while !self.outbox.is_full() {
            match reading.next() {
                Some(Ok(record)) => {
                    let sequence = record.sequence;
                    match Line::decode(record) {
                        Some(Line::Event(kept)) => self.outbox.take(kept),
                        _ => self.outbox.skip_to(sequence),
                    }
                }
                Some(Err(JournalError::Damaged(damage))) => {
                    let end = note_lost(&damage, journal.durable());
                    self.outbox.skip_to(end);
                    reading = journal.replay(end + 1);
                }
                Some(Err(error)) => return Err(error),
                None => {
                    self.outbox.caught_up(journal.durable());
                    return Ok(());
                }
            }
        }
        self.reading = Some(reading);
        Ok(())
    }

    /// Posts the next batch, if it is time.
    fn send(&mut self, now: Instant) {
        let passed_over = self.outbox.take_passed_over();
        if passed_over > 0 {
            self.note_dropped(passed_over);
        }
        if self.calling.is_some() {
            return;
        }
        let Some(batch) = self.outbox.poll_batch(now) else { return };
        let call = self.call(&batch);
        let http = self.http.clone();
        self.calling = Some(Box::pin(self.errands.run(async move { http.call(call).await })));
    }

    fn call(&self, batch: &Batch) -> Call {
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("x-longwire-delivery".to_owned(), batch.id.clone()),
        ];
        if let Some(secret) = &self.settings.secret {
            let signature = signature::sign(secret, self.clock.unix_seconds(), &batch.body);
            headers.push((signature::HEADER.to_owned(), signature));
        }
        Call {
            method: Method::Post,
            url: self.endpoint.clone(),
            headers,
            body: batch.body.clone(),
            timeout: self.settings.timeout,
            max_answer_bytes: MAX_ANSWER_BYTES,
            must_be_public: false,
        }
    }

    fn answered(&mut self, outcome: Option<Result<Answer, HttpError>>) {
        let now = self.clock.now();
        let counters = &self.shared.counters;
        let problem = match outcome {
            Some(Ok(Answer { status: 200..=299, .. })) => {
                let delivered = self.outbox.handle_delivered();
                counters.delivered.add(delivered);
                counters.pending.sub(delivered);
                self.mark_at.get_or_insert(now + MARK_DELAY);
                self.may_release = true;
                return;
            }
            Some(Ok(answer)) => format!("the backend answered {}", answer.status),
            Some(Err(error)) => error.to_string(),
            None => "the server is stopping".to_owned(),
        };
        // A release may have waited for this.
        self.may_release = true;
        counters.failures.add(1);
        let failures = counters.failures.get();
        let pause = self.outbox.handle_failed(now, self.rng.fraction());
        let waiting = self.outbox.waiting();
        // A backend that is gone for hours is not a line of the log for each attempt.
        if failures.is_power_of_two() || failures.is_multiple_of(64) {
            tracing::warn!(problem, waiting, again_in = ?pause, url = %self.endpoint, "events were not delivered");
        }
    }

    fn note_dropped(&mut self, events: u64) {
        self.shared.counters.dropped.add(events);
        self.shared.counters.pending.sub(events);
        tracing::error!(
            events,
            bound = self.settings.max_disk_bytes,
            "undelivered events were dropped: the disk that they may take is full (events.max_disk_bytes)"
        );
    }

    /// Releases the oldest segments: of what was delivered when more than half of the disk's bytes are of no use,
    /// and whatever is in them when there is no more room.
    fn release(&mut self) -> Result<(), JournalError> {
        if !self.has_stock || !std::mem::take(&mut self.may_release) {
            return Ok(());
        }
        let max_bytes = self.settings.max_disk_bytes as u64;
        // Where most of it must be kept, more haste writes much to gain little.
        let rounds = if self.ledger.disk_bytes() > max_bytes / 4 * 3 { 1 } else { MAX_RELEASES };
        for _ in 0..rounds {
            let Some(journal) = &self.journal else { return Ok(()) };
            let Some(end) = journal.oldest_ends() else { return Ok(()) };
            let bytes = journal.disk_bytes();
            let needed = self.ledger.disk_bytes() + self.outbox.waiting_bytes();
            let is_mostly_waste = bytes > 2 * needed + 2 * self.options.max_segment_bytes;
            let is_delivered = self.outbox.position() >= end;
            if bytes <= max_bytes && !(is_delivered && is_mostly_waste) {
                return Ok(());
            }
            if self.outbox.is_sending_before(end) {
                // What the backend may be about to take is judged when its answer is known.
                return Ok(());
            }
            self.may_release = true;
            self.begin_release(end)?;
            self.finish_release()?;
            self.may_release = false;
        }
        self.may_release = true;
        Ok(())
    }

    /// Decides what becomes of the records of the oldest segment, which ends here. All are read before anything
    /// is decided: a disk that fails leaves everything as it was.
    fn begin_release(&mut self, end: Sequence) -> Result<(), JournalError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut segment = Vec::new();
        let mut replay = journal.replay(0);
        while let Some(record) = replay.next() {
            match record {
                Ok(record) if record.sequence > end => break,
                Ok(record) => segment.push(record),
                Err(JournalError::Damaged(damage)) => replay = journal.replay(note_lost(&damage, end) + 1),
                Err(error) => return Err(error),
            }
        }
        let (mut dropped, mut moved_bytes) = (0, 0);
        for record in segment {
            let Some(Line::Event(kept)) = Line::decode(record) else { continue };
            // Ends of what the backend knows are kept, as long as that gives room.
            let has_room = moved_bytes < self.options.max_segment_bytes / 2;
            match self.outbox.fate(&kept, &mut self.ledger, has_room) {
                Fate::Done => {}
                Fate::Carry => self.rewrites.push_back((kept, Standing::Carried)),
                Fate::Move => {
                    moved_bytes += kept.disk_bytes();
                    self.rewrites.push_back((kept, Standing::Moved));
                }
                Fate::Drop => dropped += 1,
            }
        }
        self.outbox.cut(end);
        self.reading = None;
        self.releasing = Some(end);
        if dropped > 0 {
            self.note_dropped(dropped);
        }
        Ok(())
    }

    /// Writes again what must be, and then releases the segment.
    fn finish_release(&mut self) -> Result<(), JournalError> {
        let Some(end) = self.releasing else { return Ok(()) };
        while let Some((kept, standing)) = self.rewrites.front() {
            let seq = kept.client.and_then(|client| self.ledger.newest_seq(client)).unwrap_or(kept.seq);
            let mut again = Kept { standing: *standing, seq: seq.max(kept.seq), ..kept.clone() };
            let (kind, payload) = again.encode();
            self.append(kind, &payload)?;
            self.rewrites.pop_front();
            again.sequence = self.journal.as_ref().map_or(0, Journal::last);
            self.ledger.note(&again);
            self.outbox.count(&again);
            self.uncommitted.push((again, 0));
        }
        // The newest mark may be in what is released.
        self.append_mark(self.outbox.position())?;
        self.commit()?;
        if let Some(journal) = &mut self.journal {
            journal.release(end)?;
        }
        self.releasing = None;
        Ok(())
    }

    /// Brings the gauges up to date.
    fn count(&self) {
        let counters = &self.shared.counters;
        let ending = self.endings.front().map(|draft| draft.body.time_ms);
        let collected = self.collected.front().map(|event| event.time_ms);
        let oldest = self.outbox.oldest_ms().or(ending).or(collected);
        counters.oldest_ms.set(oldest.unwrap_or(0).max(0) as u64);
        counters.disk_bytes.set(self.journal.as_ref().map_or(0, Journal::disk_bytes));
    }
}

/// Logs what cannot be read any more: up to which record, or else up to `end`.
fn note_lost(damage: &[Damage], end: Sequence) -> Sequence {
    for damage in damage {
        tracing::error!(%damage, "events are lost: the journal is damaged");
    }
    damage.iter().filter_map(|damage| damage.lost.as_ref()).map(|lost| *lost.end()).max().unwrap_or(end)
}

#[cfg(test)]
mod tests;
