//! What a shard counts while it works, and what is counted of webhooks and of events to the backend.
//!
//! A shard's counters are written by one thread each and summed when somebody asks, so counting costs an uncontended
//! store. Nothing here knows an exposition format: `api/metrics` does. What must stay true: no label has
//! more values than the source code names (no channel, no user, no address).

use longwire_protocol::CloseReason;
use longwire_protocol::connection::{Dialect, Transport};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One number that any thread reads, and mostly a single one writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away, from a counter that is used as a gauge.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Puts another number in its place, in a counter that is used as a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the buckets for the length of a shard's turn.
pub const TURN_BOUNDS: [Duration; 8] = [
    Duration::from_micros(100),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// What one shard counts.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Open connections, by transport and dialect.
    pub connections: [[Counter; Dialect::COUNT]; Transport::COUNT],
    /// Connections that were ever opened.
    pub connections_opened: Counter,
    /// Handshakes of TLS that failed, or were not done in time.
    pub tls_failures: Counter,
    /// Subscriptions that are in force.
    pub subscriptions: Counter,
    /// Subscriptions that ended and of which the broker does not know yet.
    pub leaving: Counter,
    /// Sessions that ended and of whose last messages, or of whose end, the backend does not know yet.
    pub telling: Counter,
    /// Sessions that are kept for clients that are away.
    pub sessions_away: Counter,
    /// Breaks that did not end their session.
    pub sessions_kept: Counter,
    /// Sessions that went on with another link.
    pub sessions_taken_over: Counter,
    /// Sessions that ended while their client was away.
    pub sessions_lapsed: Counter,
    /// Publications, joins and leaves handed to sessions.
    pub deliveries: Counter,
    /// Commands received.
    pub commands: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Connections closed, by reason in the order of [`CloseReason::ALL`].
    pub closes: [Counter; CloseReason::ALL.len()],
    /// Beats that no sign of life answered in time.
    pub heartbeats_missed: Counter,
    /// Recoveries that brought everything.
    pub recoveries_complete: Counter,
    /// Recoveries that could not bring everything.
    pub recoveries_incomplete: Counter,
    /// Bytes that wait in outboxes.
    pub outbox_bytes: Counter,
    /// Turns of the shard by their length; the last bucket is for longer ones.
    pub turns: [Counter; TURN_BOUNDS.len() + 1],
    /// Length of all turns together, in microseconds.
    pub turn_micros: Counter,
}

/// What is counted of events to the backend.
#[derive(Debug, Default)]
pub struct EventCounters {
    /// Events that were recorded.
    pub recorded: Counter,
    /// Events that the backend took.
    pub delivered: Counter,
    /// Attempts to deliver that failed.
    pub failures: Counter,
    /// Events that were lost, because memory or disk for them was full.
    pub dropped: Counter,
    /// Calls to the disk that failed.
    pub disk_errors: Counter,
    /// Events that wait for the disk or the backend.
    pub pending: Counter,
    /// When the oldest of those happened, in milliseconds since 1970; 0 if none waits.
    pub oldest_ms: Counter,
    /// Bytes of the disk.
    pub disk_bytes: Counter,
}

/// What is counted of histories on the disk.
#[derive(Debug, Default)]
pub struct HistoryCounters {
    /// Bytes that wait for the disk.
    pub pending_bytes: Counter,
    /// Bytes of the disk.
    pub disk_bytes: Counter,
    /// Groups that were made durable.
    pub commits: Counter,
    /// Calls to the disk that failed.
    pub disk_errors: Counter,
    /// Publications that are in memory only, because they were too large or there was no more room for them.
    pub given_up: Counter,
    /// 1 if nothing is kept on the disk any more until the next start, 0 otherwise.
    pub failed: Counter,
}

/// What is counted of queues.
#[derive(Debug, Default)]
pub struct QueueCounters {
    /// Queues that there are.
    pub queues: Counter,
    /// Consumers.
    pub consumers: Counter,
    /// Messages in queues, those that wait for an acknowledgement included.
    pub messages: Counter,
    /// Bytes of their headers and bodies.
    pub message_bytes: Counter,
    /// Messages that wait for an acknowledgement.
    pub in_flight: Counter,
    /// Messages that were taken.
    pub sent: Counter,
    /// Messages that were not taken.
    pub refused: Counter,
    /// Deliveries.
    pub delivered: Counter,
    /// Deliveries of messages that had been delivered before.
    pub redelivered: Counter,
    /// Messages that were acknowledged.
    pub acknowledged: Counter,
    /// Messages that became dead letters.
    pub dead_lettered: Counter,
    /// Messages that were dropped: no room, or nowhere to go as dead letters.
    pub dropped: Counter,
    /// Publications that a durable subscription of their channel lost: its queue is full, or cannot be written.
    pub unkept: Counter,
    /// Messages that were too old.
    pub expired: Counter,
    /// Groups that were made durable.
    pub commits: Counter,
    /// Calls to the disk that failed.
    pub disk_errors: Counter,
    /// Bytes of the disk.
    pub disk_bytes: Counter,
    /// Messages that cannot be read from the disk.
    pub unreadable: Counter,
    /// 1 while persistent messages are refused because of the disk, 0 otherwise.
    pub not_writable: Counter,
}

impl ShardCounters {
    /// Counts one turn.
    pub fn turn(&self, length: Duration) {
        let bucket = TURN_BOUNDS.iter().position(|bound| length <= *bound).unwrap_or(TURN_BOUNDS.len());
        self.turns[bucket].add(1);
        self.turn_micros.add(length.as_micros() as u64);
    }
}

/// Upper bounds of the buckets for how long a backend takes to answer.
pub const CALL_BOUNDS: [Duration; 9] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// What is counted of one kind of webhook.
#[derive(Debug, Default)]
pub struct WebhookCounters {
    /// Requests that were made.
    pub calls: Counter,
    /// Requests that were answered in no useful way, or that were not made because too many waited.
    pub failures: Counter,
    /// Requests under way.
    pub in_flight: Counter,
    /// Requests by the time that the answer took; the last bucket is for longer ones.
    pub durations: [Counter; CALL_BOUNDS.len() + 1],
    /// That time of all together, in microseconds.
    pub micros: Counter,
}

impl WebhookCounters {
    /// Counts how long one request took.
    pub fn took(&self, length: Duration) {
        let bucket = CALL_BOUNDS.iter().position(|bound| length <= *bound).unwrap_or(CALL_BOUNDS.len());
        self.durations[bucket].add(1);
        self.micros.add(length.as_micros() as u64);
    }
}

/// What became of what a backend is told until it takes it.
#[derive(Debug, Default)]
pub struct TellingCounters {
    /// Told, and taken.
    pub delivered: Counter,
    /// Attempts that were made again.
    pub retried: Counter,
    /// Dropped at once: there is nobody to tell, or the answer was a refusal or could not be understood.
    pub dropped: Counter,
    /// Dropped after it was tried for as long as it may be.
    pub given_up: Counter,
}
