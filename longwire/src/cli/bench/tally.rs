//! What a load counts, on all threads at once.
//!
//! What must stay true: every failure is counted under its cause, and the causes that are told apart are bounded.

use super::super::Failure;
use super::histogram::{Histogram, Snapshot as Durations};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Causes that are told apart; further ones count as one.
const MAX_CAUSES: usize = 64;

/// The counters of a load.
#[derive(Debug)]
pub(super) struct Tally {
    /// Connections that stand.
    pub(super) connected: AtomicU64,
    /// The most that stood.
    pub(super) most_connected: AtomicU64,
    /// Connections that came to stand, coming back included.
    pub(super) connects: AtomicU64,
    /// Publications that were sent.
    pub(super) sent: AtomicU64,
    /// Publications that came.
    pub(super) received: AtomicU64,
    /// Bytes of their data.
    pub(super) received_bytes: AtomicU64,
    /// From the beginning of a connection until it can be used.
    pub(super) connecting: Histogram,
    /// From publishing until it came, or there and back.
    pub(super) latency: Histogram,
    failures: Mutex<BTreeMap<String, u64>>,
    /// Why a connection was in vain, most lately.
    last: Mutex<Option<Failure>>,
    /// When measuring began.
    measured_since: Mutex<Option<Instant>>,
}

/// A look at them.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) connected: u64,
    pub(super) most_connected: u64,
    pub(super) connects: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) connecting: Durations,
    pub(super) latency: Durations,
    pub(super) failures: BTreeMap<String, u64>,
}

impl Tally {
    /// Everything at zero.
    pub(super) fn new() -> Tally {
        Tally {
            connected: AtomicU64::new(0),
            most_connected: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            connecting: Histogram::new(),
            latency: Histogram::new(),
            failures: Mutex::new(BTreeMap::new()),
            last: Mutex::new(None),
            measured_since: Mutex::new(None),
        }
    }

    /// A connection stands.
    pub(super) fn connected(&self) {
        self.connects.fetch_add(1, Relaxed);
        let connected = self.connected.fetch_add(1, Relaxed) + 1;
        self.most_connected.fetch_max(connected, Relaxed);
    }

    /// One that stood does not any more.
    pub(super) fn gone(&self) {
        self.connected.fetch_sub(1, Relaxed);
    }

    /// Something failed.
    pub(super) fn fail(&self, cause: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = failures.contains_key(cause) || failures.len() < MAX_CAUSES;
        let cause = if known { cause } else { "other" };
        *failures.entry(cause.to_owned()).or_default() += 1;
    }

    /// A connection failed; counted as `cause`, or under its own words.
    pub(super) fn fail_to_connect(&self, cause: Option<&str>, failure: Failure) {
        self.fail(cause.unwrap_or_else(|| failure.text()));
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(failure);
    }

    /// Why a connection was in vain, most lately.
    pub(super) fn take_last(&self) -> Option<Failure> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
    }

    /// Measuring begins.
    pub(super) fn begin(&self, now: Instant) {
        *self.measured_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(now);
    }

    /// For how long it has been measured.
    pub(super) fn measured_so_far(&self, now: Instant) -> Duration {
        let since = *self.measured_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| now - since)
    }

    /// A look at all of it.
    pub(super) fn snapshot(&self) -> Snapshot {
        let load = |number: &AtomicU64| number.load(Relaxed);
        Snapshot {
            connected: load(&self.connected),
            most_connected: load(&self.most_connected),
            connects: load(&self.connects),
            sent: load(&self.sent),
            received: load(&self.received),
            received_bytes: load(&self.received_bytes),
            connecting: self.connecting.snapshot(),
            latency: self.latency.snapshot(),
            failures: self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_cause_and_causes_are_bounded() {
        let tally = Tally::new();
        for n in 0..1000 {
            tally.fail(&format!("cause {n}"));
            tally.fail("reset");
        }
        let failures = tally.snapshot().failures;
        assert_eq!(failures["reset"], 1000);
        assert!(failures.len() <= MAX_CAUSES + 1);
        assert_eq!(failures.values().sum::<u64>(), 2000);
    }

    #[test]
    fn the_most_that_stood_is_kept() {
        let tally = Tally::new();
        tally.connected();
        tally.connected();
        tally.gone();
        tally.connected();
        let seen = tally.snapshot();
        assert_eq!((seen.connected, seen.most_connected, seen.connects), (2, 2, 3));
    }
}
