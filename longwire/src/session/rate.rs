//! How fast something may happen: a generic cell rate algorithm in eight bytes.
//!
//! For the commands of one connection, and for the connections of one listener.

use std::time::Duration;

/// The theoretical arrival time of the next event, in nanoseconds since some fixed time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate(u64);

impl Rate {
    /// Counts an event that came `since_start` after the fixed time; false, and not counted, if too soon.
    pub fn allow(&mut self, since_start: Duration, per_second: usize, burst: usize) -> bool {
        let now = since_start.as_nanos() as u64;
        let cost = 1_000_000_000 / per_second.max(1) as u64;
        let next = self.0.max(now) + cost;
        if next > now.saturating_add(cost.saturating_mul(burst.max(1) as u64)) {
            return false;
        }
        self.0 = next;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_sustained_rate() {
        let mut rate = Rate::default();
        let at = Duration::from_millis;
        assert_eq!((0..300).filter(|_| rate.allow(at(0), 100, 200)).count(), 200);
        assert!(!rate.allow(at(9), 100, 200));
        assert!(rate.allow(at(10), 100, 200));
        assert_eq!((0..300).filter(|_| rate.allow(at(1010), 100, 200)).count(), 100);
    }
}
