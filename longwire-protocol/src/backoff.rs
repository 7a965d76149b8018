//! Growing, scattered delays between attempts (full jitter).
//!
//! A thousand clients that lost the same server must not come back in the same second. Each delay is drawn evenly from
//! zero to a span, which begins at the first one, grows by a factor with each failure and stops at the longest. Who
//! draws is the caller: chance comes in as an argument.
//!
//! What must stay true: no delay is longer than [`Policy::max`], and the same chance gives the same delay.

use std::time::Duration;

/// How delays grow.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Policy {
    /// The span from which the delay after the first failure is drawn.
    pub first: Duration,
    /// By what the span grows with each further failure; below 1.0 counts as 1.0.
    pub factor: f64,
    /// The longest span.
    pub max: Duration,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { first: Duration::from_millis(500), factor: 2.0, max: Duration::from_secs(20) }
    }
}

/// How many attempts failed in a row, and what that means for the next.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Backoff {
    /// Makes the state of somebody who has not failed yet.
    pub fn new(policy: Policy) -> Backoff {
        Backoff { policy, failures: 0 }
    }

    /// Notes a failure and gives the delay before the next attempt; `chance` is a random number from 0.0 to 1.0.
    pub fn next_delay(&mut self, chance: f64) -> Duration {
        let span = self.span();
        self.failures = self.failures.saturating_add(1);
        let part = if chance.is_finite() { chance.clamp(0.0, 1.0) } else { 1.0 };
        // The longest spans are more than a float can say exactly.
        Duration::try_from_secs_f64(span.as_secs_f64() * part).unwrap_or(span).min(span)
    }

    /// The span from which the next delay will be drawn: its longest value.
    pub fn span(&self) -> Duration {
        let Policy { first, factor, max } = self.policy;
        let factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        let exponent = i32::try_from(self.failures).unwrap_or(i32::MAX);
        // In floating point nothing overflows: what is too large is infinite, and so the longest.
        let seconds = first.as_secs_f64() * factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).unwrap_or(max).min(max)
    }

    /// How many attempts failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes that an attempt succeeded, and for long enough to count.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let longest: Vec<f64> = (0..8).map(|_| backoff.next_delay(1.0).as_secs_f64()).collect();
        assert_eq!(longest, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]);
        assert_eq!(backoff.failures(), 8);
        backoff.reset();
        assert_eq!((backoff.failures(), backoff.span()), (0, Duration::from_millis(500)));
    }

    #[test]
    fn a_delay_is_the_part_of_its_span_that_chance_says() {
        let policy = Policy { first: Duration::from_secs(4), factor: 1.5, max: Duration::from_secs(8) };
        let mut backoff = Backoff::new(policy);
        assert_eq!(backoff.next_delay(0.25), Duration::from_secs(1));
        assert_eq!(backoff.next_delay(0.5), Duration::from_secs(3));
        assert_eq!(backoff.next_delay(0.5), Duration::from_secs(4));
        assert_eq!(backoff.next_delay(0.0), Duration::ZERO);
    }

    #[test]
    fn ten_thousand_that_fail_together_spread_evenly_over_the_span() {
        const CLIENTS: usize = 10_000;
        // Even numbers from 0 to 1, in an order without meaning.
        let chance = |client: usize| (client * 7_919 % CLIENTS) as f64 / CLIENTS as f64;
        for failures in [0, 3, 9] {
            let mut tenths = [0; 10];
            for client in 0..CLIENTS {
                let mut backoff = Backoff { failures, ..Backoff::default() };
                let span = backoff.span().as_secs_f64();
                let delay = backoff.next_delay(chance(client)).as_secs_f64();
                tenths[((delay / span * 10.0 + 1e-9) as usize).min(9)] += 1;
            }
            assert_eq!(tenths, [CLIENTS / 10; 10], "after {failures} failures");
        }
    }

    #[test]
    fn a_span_without_end_is_a_span() {
        let longest = Policy { first: Duration::MAX, factor: 2.0, max: Duration::MAX };
        let mut backoff = Backoff::new(longest);
        assert_eq!(backoff.next_delay(1.0), Duration::MAX);
        assert!(backoff.next_delay(0.5) > Duration::MAX / 3);
    }

    proptest! {
        #[test]
        fn no_delay_is_longer_than_its_span_and_no_span_than_the_longest(
            first in 0u64..100_000,
            max in 0u64..1_000_000,
            factor in prop_oneof![any::<f64>(), 0.5f64..10.0],
            chances in prop::collection::vec(prop_oneof![any::<f64>(), 0.0f64..=1.0], 1..200),
        ) {
            let max = Duration::from_millis(max);
            let mut backoff = Backoff::new(Policy { first: Duration::from_millis(first), factor, max });
            let mut last = Duration::ZERO;
            for chance in chances {
                let span = backoff.span();
                prop_assert!(span <= max && span >= last);
                prop_assert!(backoff.next_delay(chance) <= span);
                last = span;
            }
        }

        #[test]
        fn however_often_it_failed_there_is_a_span(failures in any::<u32>()) {
            let backoff = Backoff { failures, ..Backoff::default() };
            prop_assert!(backoff.span() >= Duration::from_millis(500));
            prop_assert!(backoff.span() <= Duration::from_secs(20));
        }
    }
}
