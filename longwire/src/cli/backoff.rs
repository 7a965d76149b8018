//! Growing, scattered delays between attempts (full jitter).
//!
//! A thousand clients that lost the same server must not come back in the same second. What must stay true:
//! a delay is never shorter than the first bound nor longer than the second.

use std::time::Duration;

const MIN: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(20);

/// How many attempts failed in a row, and what that means for the next.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay before the next attempt; `chance` is a random number from 0.0 to 1.0.
    pub(super) fn next_delay(&mut self, chance: f64) -> Duration {
        let span = MIN.saturating_mul(2u32.saturating_pow(self.failures.min(31))).min(MAX);
        self.failures = self.failures.saturating_add(1);
        (MIN + span.mul_f64(chance.clamp(0.0, 1.0))).min(MAX)
    }

    /// Notes that an attempt succeeded.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let longest: Vec<f64> = (0..8).map(|_| backoff.next_delay(1.0).as_secs_f64()).collect();
        assert_eq!(longest, [1.0, 1.5, 2.5, 4.5, 8.5, 16.5, 20.0, 20.0]);
        for _ in 0..100 {
            assert_eq!(backoff.next_delay(0.0), MIN);
            assert!(backoff.next_delay(1.0) <= MAX);
        }
        backoff.reset();
        assert_eq!(backoff.next_delay(1.0), Duration::from_secs(1));
    }
}
