//! How many subscribers each channel has on this node, over all its shards.
//!
//! Shards tell of each subscription that begins and ends; the courier asks, some time after a channel lost its last
//! subscriber, whether that is still so. The channels are spread over several locks, each held for a moment. What
//! must stay true: what is recorded of a channel is recorded under its lock, so `occupied` and `vacated` alternate.

use hashbrown::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Locks: shards meet at one rarely.
const STRIPES: usize = 64;

/// Subscribers by channel.
#[derive(Debug)]
pub struct Occupancy {
    stripes: Vec<Mutex<HashMap<Arc<str>, Room>>>,
}

#[derive(Debug, Default)]
struct Room {
    subscribers: u32,
    /// When the last subscriber left.
    emptied: Option<Instant>,
    /// The courier will ask about the channel.
    is_watched: bool,
    /// That it is occupied was recorded.
    is_told: bool,
}

/// Whether a channel is vacated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is, and that is recorded.
    Vacated,
    /// It is not, or nobody was told that it was occupied.
    Not,
    /// Ask again then.
    AskAt(Instant),
}

impl Default for Occupancy {
    fn default() -> Occupancy {
        Occupancy { stripes: (0..STRIPES).map(|_| Mutex::default()).collect() }
    }
}

impl Occupancy {
    fn stripe(&self, channel: &str) -> MutexGuard<'_, HashMap<Arc<str>, Room>> {
        let mut hasher = foldhash::fast::FixedState::with_seed(0).build_hasher();
        hasher.write(channel.as_bytes());
        let stripe = &self.stripes[hasher.finish() as usize % STRIPES];
        // Nothing that is done under the lock can leave a room half changed.
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a subscriber; `record` is called for the first, and says whether that was recorded.
    pub fn enter(&self, channel: &Arc<str>, record: impl FnOnce() -> bool) {
        let mut stripe = self.stripe(channel);
        let room = stripe.entry(channel.clone()).or_default();
        room.subscribers += 1;
        room.emptied = None;
        if !room.is_told {
            room.is_told = record();
        }
    }

    /// Takes a subscriber away; true if somebody must ask about the channel after a while.
    pub fn leave(&self, channel: &Arc<str>, now: Instant) -> bool {
        let mut stripe = self.stripe(channel);
        let Some(room) = stripe.get_mut(channel) else { return false };
        room.subscribers = room.subscribers.saturating_sub(1);
        if room.subscribers > 0 {
            return false;
        }
        room.emptied = Some(now);
        !std::mem::replace(&mut room.is_watched, true)
    }

    /// Says whether a channel has been empty for `delay`; if so, `record` is called and the channel forgotten.
    pub fn ask(&self, channel: &str, now: Instant, delay: Duration, record: impl FnOnce()) -> Verdict {
        let mut stripe = self.stripe(channel);
        let Some(room) = stripe.get_mut(channel) else { return Verdict::Not };
        match room.emptied {
            None => {
                room.is_watched = false;
                Verdict::Not
            }
            Some(emptied) if emptied + delay > now => Verdict::AskAt(emptied + delay),
            Some(_) => {
                let was_told = room.is_told;
                stripe.remove(channel);
                if !was_told {
                    return Verdict::Not;
                }
                record();
                Verdict::Vacated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(5);

    fn told(times: &mut u32) -> impl FnOnce() -> bool {
        *times += 1;
        || true
    }

    #[test]
    fn the_first_occupies_and_the_last_vacates_after_a_while() {
        let (occupancy, news, start) = (Occupancy::default(), Arc::from("news"), Instant::now());
        let mut occupied = 0;
        occupancy.enter(&news, told(&mut occupied));
        occupancy.enter(&news, || panic!("it is occupied already"));
        assert!(!occupancy.leave(&news, start));
        assert!(occupancy.leave(&news, start));
        let never = || panic!("too early");
        assert_eq!(occupancy.ask(&news, start, DELAY, never), Verdict::AskAt(start + DELAY));
        let mut vacated = 0;
        assert_eq!(occupancy.ask(&news, start + DELAY, DELAY, || vacated += 1), Verdict::Vacated);
        assert_eq!(occupancy.ask(&news, start + DELAY, DELAY, || vacated += 1), Verdict::Not);
        assert_eq!((occupied, vacated), (1, 1));
        assert!(occupancy.stripes.iter().all(|stripe| stripe.lock().unwrap().is_empty()));
    }

    #[test]
    fn a_return_in_time_prevents_both() {
        let (occupancy, news, start) = (Occupancy::default(), Arc::from("news"), Instant::now());
        occupancy.enter(&news, || true);
        assert!(occupancy.leave(&news, start));
        occupancy.enter(&news, || panic!("it was never vacated"));
        assert_eq!(occupancy.ask(&news, start + DELAY, DELAY, || panic!("it is occupied")), Verdict::Not);
        // Gone, back and gone: asked once, about the last time.
        assert!(occupancy.leave(&news, start + DELAY));
        occupancy.enter(&news, || panic!("it was never vacated"));
        assert!(!occupancy.leave(&news, start + DELAY * 3 / 2), "somebody will ask already");
        let verdict = occupancy.ask(&news, start + DELAY * 2, DELAY, || panic!("too early"));
        assert_eq!(verdict, Verdict::AskAt(start + DELAY * 5 / 2));
    }

    #[test]
    fn a_channel_whose_occupation_was_not_recorded_is_not_vacated_either() {
        let (occupancy, news, start) = (Occupancy::default(), Arc::from("news"), Instant::now());
        occupancy.enter(&news, || false);
        let mut again = 0;
        occupancy.enter(&news, told(&mut again));
        assert_eq!(again, 1, "it is tried again with the next subscriber");
        let other = Arc::from("other");
        occupancy.enter(&other, || false);
        assert!(occupancy.leave(&other, start));
        assert_eq!(occupancy.ask(&other, start + DELAY, DELAY, || panic!("nobody knows it")), Verdict::Not);
    }
}
