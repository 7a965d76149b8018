//! How fast something may happen: a generic cell rate algorithm in eight bytes.
//!
//! For the commands of one connection and the connections of one listener; [`Rates`] has one for each of many
//! keys, such as the users. What must stay true: a table of them is bounded and forgets who rested long enough
//! to have nothing on account; who comes when it is full of others is not counted.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

    /// How long from `since_start` until the next event is allowed.
    fn wait(&self, since_start: Duration, per_second: usize, burst: usize) -> Duration {
        let now = since_start.as_nanos() as u64;
        let cost = 1_000_000_000 / per_second.max(1) as u64;
        let next = self.0.max(now) + cost;
        Duration::from_nanos(
            next.saturating_sub(now.saturating_add(cost.saturating_mul(burst.max(1) as u64))),
        )
    }

    /// Whether a whole burst is allowed again: as if nothing had ever been counted.
    fn is_rested(&self, since_start: Duration) -> bool {
        self.0 <= since_start.as_nanos() as u64
    }
}

const STRIPES: usize = 16;

/// Keys that are counted at the same time.
const MAX_KEYS: usize = 128 * 1024;

/// A full table is not searched more often than that for keys that rested.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How fast each of many may do something.
pub struct Rates<K> {
    stripes: Vec<Mutex<Stripe<K>>>,
    hasher: RandomState,
    per_second: usize,
    burst: usize,
    max_of_stripe: usize,
}

struct Stripe<K> {
    rates: HashMap<K, Rate, RandomState>,
    /// When keys that rested may be searched for again.
    next_sweep: Duration,
}

impl<K: Eq + Hash + Clone> Rates<K> {
    /// So many a second, and so many at once, for each; `None` if `per_second` is 0, which means no limit.
    pub fn new(per_second: usize, burst: usize) -> Option<Rates<K>> {
        (per_second > 0).then(|| Rates::of(per_second, burst, MAX_KEYS))
    }

    fn of(per_second: usize, burst: usize, max_keys: usize) -> Rates<K> {
        let stripe = || Mutex::new(Stripe { rates: HashMap::default(), next_sweep: Duration::ZERO });
        let stripes = (0..STRIPES).map(|_| stripe()).collect();
        Rates {
            stripes,
            hasher: RandomState::default(),
            per_second,
            burst,
            max_of_stripe: max_keys / STRIPES,
        }
    }

    /// Counts an event of `key` that came `since_start` after a fixed time.
    ///
    /// # Errors
    /// The time after which the next one is allowed; the event is not counted then.
    pub fn allow(&self, since_start: Duration, key: &K) -> Result<(), Duration> {
        let mut stripe = self.stripe(self.hasher.hash_one(key) as usize % STRIPES);
        let Stripe { rates, next_sweep } = &mut *stripe;
        if rates.len() >= self.max_of_stripe && !rates.contains_key(key) {
            if since_start >= *next_sweep {
                *next_sweep = since_start + SWEEP_INTERVAL;
                rates.retain(|_, rate| !rate.is_rested(since_start));
            }
            if rates.len() >= self.max_of_stripe {
                return Ok(());
            }
        }
        let rate = match rates.get_mut(key) {
            Some(rate) => rate,
            None => rates.entry(key.clone()).or_default(),
        };
        match rate.allow(since_start, self.per_second, self.burst) {
            true => Ok(()),
            false => Err(rate.wait(since_start, self.per_second, self.burst)),
        }
    }

    /// Forgets who rested.
    pub fn expire(&self, since_start: Duration) {
        for index in 0..STRIPES {
            let rates = &mut self.stripe(index).rates;
            rates.retain(|_, rate| !rate.is_rested(since_start));
            if rates.is_empty() {
                rates.shrink_to_fit();
            }
        }
    }

    fn stripe(&self, index: usize) -> MutexGuard<'_, Stripe<K>> {
        // A panic while the lock was held is a bug of ours; the map itself is still a map.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn each_key_has_a_rate_of_its_own_and_is_told_how_long_to_wait() {
        let rates = Rates::<u32>::new(2, 3).unwrap();
        let at = Duration::from_millis;
        assert_eq!((0..9).filter(|_| rates.allow(at(0), &1).is_ok()).count(), 3);
        assert_eq!(rates.allow(at(100), &1), Err(at(400)));
        assert_eq!(rates.allow(at(100), &2), Ok(()));
        assert_eq!(rates.allow(at(500), &1), Ok(()));
        assert!(Rates::<u32>::new(0, 3).is_none());
    }

    #[test]
    fn who_rested_is_forgotten_and_a_full_table_counts_nobody_new() {
        let rates = Rates::<u32>::of(1, 1, 4 * STRIPES);
        let at = Duration::from_secs;
        let known = || rates.stripes.iter().map(|stripe| stripe.lock().unwrap().rates.len()).sum::<usize>();
        for key in 0..10_000 {
            assert_eq!(rates.allow(at(0), &key), Ok(()), "{key}");
        }
        assert_eq!(known(), 4 * STRIPES);
        // The second event of those that are counted is refused, of the others it is not.
        assert_eq!((0..10_000).filter(|key| rates.allow(at(0), key).is_err()).count(), 4 * STRIPES);
        // Once they rested, others are counted in their place.
        for key in 20_000..30_000 {
            assert_eq!(rates.allow(at(2), &key), Ok(()), "{key}");
        }
        assert_eq!((20_000..30_000).filter(|key| rates.allow(at(2), key).is_err()).count(), 4 * STRIPES);
        rates.expire(at(4));
        assert_eq!(known(), 0);
    }
}
