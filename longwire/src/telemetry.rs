//! What a shard counts while it works.
//!
//! Counters are written by one thread each and summed when somebody asks, so counting costs an uncontended
//! store. Nothing here knows an exposition format: `api/metrics` does. What must stay true: no label has
//! more values than the source code names (no channel, no user, no address).

use longwire_protocol::CloseReason;
use longwire_protocol::connection::{Dialect, Transport};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One number that a single thread writes and any thread reads.
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
    /// Subscriptions that are in force.
    pub subscriptions: Counter,
    /// Subscriptions that ended and of which the broker does not know yet.
    pub leaving: Counter,
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

impl ShardCounters {
    /// Counts one turn.
    pub fn turn(&self, length: Duration) {
        let bucket = TURN_BOUNDS.iter().position(|bound| length <= *bound).unwrap_or(TURN_BOUNDS.len());
        self.turns[bucket].add(1);
        self.turn_micros.add(length.as_micros() as u64);
    }
}
