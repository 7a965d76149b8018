//! A coarse timer wheel: which sessions want to be called in which tenth of a second.
//!
//! Arming costs one push; nothing is ever cancelled. A session remembers the tick it is armed for, and what
//! fires at another tick is stale. What lies beyond the wheel's horizon is armed at the horizon and armed
//! again from there.

use super::Key;
use std::time::{Duration, Instant};

/// Length of a tick.
pub(super) const TICK: Duration = Duration::from_millis(100);

const SLOTS: u32 = 512;

/// The timers of one shard.
pub(super) struct Wheel {
    slots: Vec<Vec<Key>>,
    start: Instant,
    /// The last tick that was taken.
    current: u32,
}

impl Wheel {
    /// A wheel that starts to turn at `start`.
    pub(super) fn new(start: Instant) -> Wheel {
        Wheel { slots: (0..SLOTS).map(|_| Vec::new()).collect(), start, current: 0 }
    }

    /// The tick at which something due at `deadline` is fired: never early, at most one tick late.
    pub(super) fn tick_of(&self, deadline: Instant) -> u32 {
        let ticks = deadline.saturating_duration_since(self.start).as_millis().div_ceil(TICK.as_millis());
        (ticks as u32).clamp(self.current + 1, self.current + SLOTS - 1)
    }

    /// Arms a session for a tick that [`tick_of`](Self::tick_of) gave.
    pub(super) fn arm(&mut self, tick: u32, key: Key) {
        self.slots[(tick % SLOTS) as usize].push(key);
    }

    /// How many entries there are, stale ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.iter().map(Vec::len).sum()
    }

    /// The time at which the next tick begins.
    pub(super) fn next_tick(&self) -> Instant {
        self.start + TICK * (self.current + 1)
    }

    /// Takes the next tick if its time has come: its number and who was armed for it.
    pub(super) fn advance(&mut self, now: Instant) -> Option<(u32, Vec<Key>)> {
        if self.next_tick() > now {
            return None;
        }
        self.current += 1;
        Some((self.current, std::mem::take(&mut self.slots[(self.current % SLOTS) as usize])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> Key {
        Key { index, generation: 0 }
    }

    #[test]
    fn a_timer_fires_within_a_tick_after_its_deadline() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for (n, millis) in [(0, 50u64), (1, 100), (2, 2_501), (3, 60_000)] {
            let tick = wheel.tick_of(start + Duration::from_millis(millis));
            wheel.arm(tick, key(n));
        }
        let mut fired = Vec::new();
        for step in 1..=600u64 {
            let now = start + TICK * step as u32;
            while let Some((_, keys)) = wheel.advance(now) {
                fired.extend(keys.iter().map(|k| (k.index, step * 100)));
            }
        }
        // The last one lies beyond the horizon: it fires there and is to be armed again.
        assert_eq!(fired, [(0, 100), (1, 100), (2, 2_600), (3, 51_100)]);
    }

    #[test]
    fn a_late_shard_catches_up_tick_by_tick() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.arm(wheel.tick_of(start), key(9));
        let late = start + Duration::from_secs(5);
        let fired: Vec<_> = std::iter::from_fn(|| wheel.advance(late)).collect();
        assert_eq!(fired.len(), 50);
        assert_eq!(fired[0].1, [key(9)]);
        assert!(wheel.next_tick() > late);
    }
}
