//! What waits for delivery: which events, in which order, in which batches, and when it is tried again.
//!
//! A plain struct: the courier tells it which records became durable, what the disk gave and how a delivery went,
//! and asks for the next batch. Only a window of what waits is in memory; the rest is read from the journal when
//! its turn comes. Of the journal's oldest records it says which must be written again before they are released.
//! What must stay true: events are sent in the order of their records, one batch at a time, each until it is
//! delivered; no event of a client is sent before an earlier one that is still to be sent.

use super::event::{EventType, Kept, Standing};
use super::reconcile::Ledger;
use crate::journal::Sequence;
use bytes::Bytes;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::ClientId;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// The longest pause before the second attempt; each later one may be twice as long.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// The body around the events, and the commas between them.
const OPENING: &[u8] = b"{\"events\":[";
const CLOSING: &[u8] = b"]}";

/// Bounds of an outbox.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The types that are sent.
    pub types: Vec<EventType>,
    /// Events in a batch.
    pub max_batch: usize,
    /// Size of a batch's body.
    pub max_batch_bytes: usize,
    /// The longest pause between attempts.
    pub max_backoff: Duration,
}

impl Rules {
    /// Whether events of this type are sent.
    pub fn is_sent(&self, kind: EventType) -> bool {
        self.types.contains(&kind)
    }

    fn window_bytes(&self) -> usize {
        4 * self.max_batch_bytes
    }
}

/// Events that are sent together, again and again until they are delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Names the batch: the id of its first event and how many there are.
    pub id: String,
    /// The JSON that is sent.
    pub body: Bytes,
    /// How many events.
    pub events: usize,
    /// How often it was tried.
    pub attempts: u32,
}

/// What becomes of a record whose segment is to be released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Everything is done with it.
    Done,
    /// It is written again: what it began goes on.
    Carry,
    /// It is written again, to be delivered later than in its turn.
    Move,
    /// It is lost, undelivered.
    Drop,
}

/// What waits for delivery.
#[derive(Debug)]
pub struct Outbox {
    rules: Rules,
    ready: VecDeque<Kept>,
    ready_bytes: usize,
    /// Up to here every record was taken, or is not to be sent.
    read_to: Sequence,
    /// Durable records beyond `read_to` are on the disk only.
    is_behind: bool,
    batch: Option<Batch>,
    /// The records of the batch, in order; empty without one. Where a segment is released in their midst, the rest
    /// waits again.
    trying: VecDeque<Kept>,
    is_sending: bool,
    retry_at: Option<Instant>,
    /// Clients of whom nothing before this record is sent: the record that tells of them was moved, or is lost.
    muted: BTreeMap<ClientId, Sequence>,
    /// What waits, and what it takes of the disk.
    waiting: u64,
    waiting_bytes: u64,
    /// Events that were passed over since somebody asked.
    passed_over: u64,
}

impl Outbox {
    /// An outbox whose first event comes behind the record `position`.
    pub fn new(rules: Rules, position: Sequence) -> Outbox {
        Outbox {
            rules,
            ready: VecDeque::new(),
            ready_bytes: 0,
            read_to: position,
            is_behind: false,
            batch: None,
            trying: VecDeque::new(),
            is_sending: false,
            retry_at: None,
            muted: BTreeMap::new(),
            waiting: 0,
            waiting_bytes: 0,
            passed_over: 0,
        }
    }

    /// The bounds.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether a record is one that is sent.
    pub fn is_sent(&self, kept: &Kept) -> bool {
        kept.standing != Standing::Carried && self.rules.is_sent(kept.kind)
    }

    /// Counts a record that was appended, or was found behind the position at the start.
    pub fn count(&mut self, kept: &Kept) {
        if !self.is_sent(kept) {
            return;
        }
        self.waiting += 1;
        self.waiting_bytes += kept.disk_bytes();
        if let (Standing::Moved, EventType::Connected, Some(client)) = (kept.standing, kept.kind, kept.client)
        {
            self.muted.insert(client, kept.sequence);
        }
    }

    /// Takes a record that just became durable, if there is room and none before it waits on the disk.
    pub fn offer(&mut self, kept: Kept) {
        if self.is_behind || self.is_full() {
            self.is_behind = true;
        } else {
            self.take(kept);
        }
    }

    /// Notes that records wait on the disk.
    pub fn set_behind(&mut self) {
        self.is_behind = true;
    }

    /// Whether records wait on the disk.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// From where records are wanted from the disk.
    pub fn wants_from(&self) -> Option<Sequence> {
        (self.is_behind && self.ready_bytes < self.rules.window_bytes() / 2).then_some(self.read_to + 1)
    }

    /// Whether nothing more should be taken.
    pub fn is_full(&self) -> bool {
        self.ready_bytes >= self.rules.window_bytes()
    }

    /// Takes the next record.
    pub fn take(&mut self, kept: Kept) {
        self.read_to = kept.sequence;
        if !self.is_sent(&kept) || self.passes_over(&kept) {
            return;
        }
        self.ready_bytes += kept.json.len();
        let is_overtaking = flaw::is_on(Flaw::EventsOvertake)
            && self.ready.back().is_some_and(|last| last.client == kept.client);
        self.ready.insert(self.ready.len() - usize::from(is_overtaking), kept);
    }

    /// Whether an event is not sent, because what tells of its client comes behind it, or never; it is settled then.
    fn passes_over(&mut self, kept: &Kept) -> bool {
        let Some((client, from)) = kept.client.and_then(|client| Some((client, *self.muted.get(&client)?)))
        else {
            return false;
        };
        let is_before = kept.sequence < from;
        if !is_before || kept.kind == EventType::Disconnected {
            self.muted.remove(&client);
        }
        if is_before {
            self.settle(1, kept.disk_bytes());
            self.passed_over += 1;
        }
        is_before
    }

    /// Passes over records that cannot be read, up to this one.
    pub fn skip_to(&mut self, sequence: Sequence) {
        self.read_to = self.read_to.max(sequence);
    }

    /// Notes that everything durable up to this record was taken.
    pub fn caught_up(&mut self, newest: Sequence) {
        self.is_behind = self.read_to < newest;
    }

    /// How many events were passed over since the last call: their clients are unknown to the backend.
    pub fn take_passed_over(&mut self) -> u64 {
        std::mem::take(&mut self.passed_over)
    }

    fn settle(&mut self, events: u64, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(events);
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
    }

    /// Everything up to this record is dealt with.
    pub fn position(&self) -> Sequence {
        self.oldest().map_or(self.read_to, |first| first.sequence - 1)
    }

    fn oldest(&self) -> Option<&Kept> {
        self.trying.front().or(self.ready.front())
    }

    fn batch_begins(&self) -> Option<Sequence> {
        self.trying.front().map(|kept| kept.sequence)
    }

    /// Whether a batch is on its way that has records up to this one.
    pub fn is_sending_before(&self, end: Sequence) -> bool {
        self.is_sending && self.batch_begins().is_some_and(|first| first <= end)
    }

    /// How many events wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// What those that wait take of the disk.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// When the oldest that waits happened, in milliseconds since 1970.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.oldest().map(|kept| kept.time_ms)
    }

    /// The batch to send, unless one is on its way or its time has not come.
    pub fn poll_batch(&mut self, now: Instant) -> Option<Batch> {
        if self.is_sending || self.retry_at.is_some_and(|at| at > now) {
            return None;
        }
        if self.batch.is_none() {
            self.batch = self.gather();
        }
        let batch = self.batch.as_mut()?;
        batch.attempts += 1;
        self.is_sending = true;
        self.retry_at = None;
        Some(batch.clone())
    }

    fn gather(&mut self) -> Option<Batch> {
        let first = self.ready.front()?;
        let mut batch = Batch { id: String::new(), body: Bytes::new(), events: 0, attempts: 0 };
        let first_id = serde_json::from_slice::<super::event::Body<'_>>(&first.json).unwrap_or_default().id;
        let mut body = OPENING.to_vec();
        let max_bytes = self.rules.max_batch_bytes.saturating_sub(CLOSING.len());
        while batch.events < self.rules.max_batch
            && let Some(next) = self.ready.front()
            && (batch.events == 0 || body.len() + 1 + next.json.len() <= max_bytes)
            && let Some(kept) = self.ready.pop_front()
        {
            if batch.events > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&kept.json);
            self.ready_bytes -= kept.json.len();
            batch.events += 1;
            self.trying.push_back(kept);
        }
        body.extend_from_slice(CLOSING);
        batch.id = format!("{first_id}.{}", batch.events);
        batch.body = body.into();
        Some(batch)
    }

    /// Notes that the batch was delivered: how many events that are.
    pub fn handle_delivered(&mut self) -> u64 {
        self.is_sending = false;
        self.batch = None;
        let delivered = std::mem::take(&mut self.trying);
        self.settle(delivered.len() as u64, delivered.iter().map(Kept::disk_bytes).sum());
        delivered.len() as u64
    }

    /// Notes that the batch was not delivered; `fraction` (0.0 to 1.0, from the caller's random source) chooses the
    /// pause, which is returned.
    pub fn handle_failed(&mut self, now: Instant, fraction: f64) -> Duration {
        self.is_sending = false;
        let attempts = self.batch.as_ref().map_or(1, |batch| batch.attempts);
        let doubled = FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        let pause = doubled.min(self.rules.max_backoff).mul_f64(fraction.clamp(0.0, 1.0));
        let pause = pause.max(FIRST_BACKOFF.min(self.rules.max_backoff));
        self.retry_at = Some(now + pause);
        pause
    }

    /// When there is something to send, if that is known.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.is_sending || self.batch.is_none() && self.ready.is_empty() {
            return None;
        }
        Some(self.retry_at.unwrap_or(now))
    }

    /// What becomes of a record whose segment is to be released; `has_room` if more may be moved.
    ///
    /// The caller carries it out, and [`cut`](Self::cut)s when it is through with the segment. A batch that was tried
    /// in vain is no exception: in memory alone it would be lost in a crash, and nobody would count it.
    pub fn fate(&mut self, kept: &Kept, ledger: &mut Ledger, has_room: bool) -> Fate {
        let is_in = |queue: &VecDeque<Kept>| {
            queue.binary_search_by_key(&kept.sequence, |waiting| waiting.sequence).is_ok()
        };
        let was_tried = is_in(&self.trying);
        let is_undelivered =
            self.is_sent(kept) && (was_tried || kept.sequence > self.read_to || is_in(&self.ready));
        let stands = ledger.stands_at(kept);
        if !is_undelivered {
            return if stands { Fate::Carry } else { Fate::Done };
        }
        let is_muted = kept
            .client
            .is_some_and(|client| self.muted.get(&client).is_some_and(|from| kept.sequence < *from));
        let fate = match (kept.kind, kept.client) {
            // Whoever is there will be told of, though late; what came after it is passed over until then.
            (EventType::Connected, Some(client)) if stands => {
                // Up to where is known when it is counted in its new place.
                self.muted.insert(client, Sequence::MAX);
                Fate::Move
            }
            (EventType::Occupied, _) if stands => Fate::Move,
            // The backend may have taken it, though its answer was lost: then it needs the end.
            (EventType::Connected, Some(_)) if was_tried => Fate::Drop,
            (EventType::Connected, Some(client)) => {
                // Half of a pair is worse than none.
                self.muted.insert(client, Sequence::MAX);
                Fate::Drop
            }
            (EventType::Disconnected, Some(client)) if is_muted => {
                self.muted.remove(&client);
                Fate::Drop
            }
            (EventType::Disconnected, _) if has_room => Fate::Move,
            // A channel that is occupied again must not be called vacated after that.
            (EventType::Vacated, _) if has_room && !ledger.is_open(kept) => Fate::Move,
            _ => Fate::Drop,
        };
        match fate {
            Fate::Drop => {
                ledger.forget(kept);
                self.settle(1, kept.disk_bytes());
            }
            // It is counted where it is written again.
            _ => self.settle(1, kept.disk_bytes()),
        }
        fate
    }

    /// Forgets what waits in memory up to this record: its fate was another. What waits beyond, also in a batch that
    /// was tried in vain, is sent in its turn, unless its client's fate forbids that; it is not read again, since
    /// what is passed over must be counted once.
    pub fn cut(&mut self, end: Sequence) {
        if self.batch_begins().is_some_and(|first| first <= end) {
            self.batch = None;
            self.trying.append(&mut self.ready);
            self.ready = std::mem::take(&mut self.trying);
        }
        let waited = std::mem::take(&mut self.ready);
        self.ready =
            waited.into_iter().filter(|kept| kept.sequence > end && !self.passes_over(kept)).collect();
        self.ready_bytes = self.ready.iter().map(|kept| kept.json.len()).sum();
        self.read_to = self.read_to.max(end);
    }
}

#[cfg(test)]
mod tests;
