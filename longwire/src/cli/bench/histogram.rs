//! How long things took, by count, in buckets that grow with what they hold.
//!
//! Every power of two is cut into 64 buckets, so that a percentile is at most one part in 64 above what was measured, and the
//! whole span from a nanosecond to centuries is 30 KiB. Tasks on any thread record at the same time, with one addition each. What
//! must stay true: nothing that was recorded is lost, and a percentile is never below what was measured there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a power of two, and the exponent of that number.
const PARTS: usize = 64;
const PART_BITS: u32 = 6;

/// One row for what is smaller than [`PARTS`], then one for each further bit.
const BUCKETS: usize = PARTS * (64 - PART_BITS as usize + 1);

/// Durations by bucket.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

/// What a histogram held at one time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Snapshot {
    counts: Vec<u64>,
    /// How many were recorded.
    pub(super) count: u64,
    sum_ns: u64,
    max_ns: u64,
}

/// The bucket that a value falls into.
fn bucket(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    match bits.checked_sub(PART_BITS) {
        // Below 64 each value has its own.
        None | Some(0) => ns as usize,
        // The leading bit says which row, the six behind it which part.
        Some(shift) => {
            let shift = shift - 1;
            (shift as usize + 1) * PARTS + ((ns >> shift) as usize - PARTS)
        }
    }
}

/// The largest value that falls into a bucket.
fn upper_bound(bucket: usize) -> u64 {
    match bucket / PARTS {
        0 => bucket as u64,
        row => {
            let part = (bucket % PARTS + PARTS) as u128;
            (((part + 1) << (row - 1)) - 1) as u64
        }
    }
}

impl Histogram {
    /// An empty one.
    pub(super) fn new() -> Histogram {
        let counts = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Histogram { counts, sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub(super) fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.max_ns.fetch_max(ns, Ordering::Relaxed);
    }

    /// What it holds.
    pub(super) fn snapshot(&self) -> Snapshot {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count = counts.iter().sum();
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Snapshot { counts, count, sum_ns: load(&self.sum_ns), max_ns: load(&self.max_ns) }
    }
}

impl Snapshot {
    /// The duration within which this part (0.0 to 1.0) of all was done; zero if there is none.
    pub(super) fn percentile(&self, part: f64) -> Duration {
        if self.count == 0 {
            return Duration::ZERO;
        }
        let rank = ((self.count as f64 * part.clamp(0.0, 1.0)).ceil() as u64).clamp(1, self.count);
        let mut passed = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            passed += count;
            if passed >= rank {
                return Duration::from_nanos(upper_bound(bucket).min(self.max_ns));
            }
        }
        self.max()
    }

    /// The longest.
    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The average; zero if there is none.
    pub(super) fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.checked_div(self.count).unwrap_or(0))
    }

    /// What came after an earlier look at the same histogram. The longest stays that of all.
    pub(super) fn since(&self, earlier: &Snapshot) -> Snapshot {
        let before = |bucket: usize| earlier.counts.get(bucket).copied().unwrap_or(0);
        let counts: Vec<u64> = self
            .counts
            .iter()
            .enumerate()
            .map(|(bucket, count)| count.saturating_sub(before(bucket)))
            .collect();
        let count = counts.iter().sum();
        Snapshot { counts, count, sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns), max_ns: self.max_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_bound(BUCKETS - 1), u64::MAX);
        for index in 0..BUCKETS - 1 {
            let bound = upper_bound(index);
            assert_eq!(bucket(bound), index, "{bound}");
            assert_eq!(bucket(bound + 1), index + 1, "{bound}");
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_at_most_one_part_in_64_above_what_it_holds(ns: u64) {
            let bound = upper_bound(bucket(ns));
            prop_assert!(bound >= ns);
            prop_assert!(bound - ns <= ns / PARTS as u64);
        }
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let histogram = Histogram::new();
        for ms in 1..=1000 {
            histogram.record(Duration::from_millis(ms));
        }
        let all = histogram.snapshot();
        assert_eq!(all.count, 1000);
        for (part, ms) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = all.percentile(part).as_secs_f64() * 1000.0;
            let measured = f64::from(ms);
            assert!(found >= measured && found <= measured * (1.0 + 1.0 / 64.0), "{part}: {found}");
        }
        assert_eq!(all.max(), Duration::from_secs(1));
        assert_eq!(all.mean(), Duration::from_micros(500_500));
    }

    #[test]
    fn what_came_after_a_look_is_told_apart() {
        let histogram = Histogram::new();
        histogram.record(Duration::from_secs(5));
        let first = histogram.snapshot();
        histogram.record(Duration::from_millis(1));
        let later = histogram.snapshot().since(&first);
        assert_eq!(later.count, 1);
        assert!(later.percentile(0.99) < Duration::from_millis(2));
        assert_eq!(histogram.snapshot().count, 2);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        let empty = Histogram::new().snapshot();
        assert_eq!((empty.percentile(0.99), empty.mean(), empty.max()), Default::default());
    }
}
