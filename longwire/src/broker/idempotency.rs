//! The keys under which something was published lately, and what those calls were answered.
//!
//! A plain struct: time comes in as an argument, and who keeps it behind which lock is the broker's business.
//! What must stay true: it holds at most so many keys for a channel and in all, and each for its time at most;
//! where there are more, the oldest is forgotten, and a call that is repeated after that publishes again.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::Position;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Keys that one channel may have.
const MAX_OF_CHANNEL: usize = 10_000;

/// Keys that all channels may have together.
const MAX_TOTAL: usize = 100_000;

/// Keys in use and what was answered.
#[derive(Debug)]
pub(super) struct Keys {
    channels: HashMap<Arc<str>, Channel, RandomState>,
    /// All of them by age.
    ages: BTreeMap<u64, (Arc<str>, Arc<str>)>,
    /// The age of the next; grows.
    next: u64,
    max_of_channel: usize,
    max_total: usize,
}

#[derive(Debug, Default)]
struct Channel {
    answers: HashMap<Arc<str>, Answer, RandomState>,
    ages: BTreeMap<u64, Arc<str>>,
}

#[derive(Debug)]
struct Answer {
    age: u64,
    expires: Instant,
    position: Option<Position>,
}

impl Default for Keys {
    fn default() -> Keys {
        Keys::of(MAX_OF_CHANNEL, MAX_TOTAL)
    }
}

impl Keys {
    fn of(max_of_channel: usize, max_total: usize) -> Keys {
        Keys { channels: HashMap::default(), ages: BTreeMap::new(), next: 0, max_of_channel, max_total }
    }

    /// What the call with this key was answered.
    pub(super) fn answer(&self, now: Instant, channel: &str, key: &str) -> Option<Option<Position>> {
        let answer = self.channels.get(channel)?.answers.get(key)?;
        (now < answer.expires).then_some(answer.position)
    }

    /// Remembers what the call with this key was answered.
    pub(super) fn remember(
        &mut self,
        expires: Instant,
        channel: &Arc<str>,
        key: &Arc<str>,
        position: Option<Position>,
    ) {
        // It may be there still, past its time.
        self.forget(channel, key);
        if self.ages.len() >= self.max_total
            && let Some((_, (channel, key))) = self.ages.first_key_value()
        {
            let (channel, key) = (channel.clone(), key.clone());
            self.forget(&channel, &key);
        }
        let of_channel = self.channels.get(channel);
        if let Some(of_channel) = of_channel.filter(|of_channel| of_channel.ages.len() >= self.max_of_channel)
            && let Some((_, oldest)) = of_channel.ages.first_key_value()
        {
            let oldest = oldest.clone();
            self.forget(channel, &oldest);
        }
        let age = self.next;
        self.next += 1;
        self.ages.insert(age, (channel.clone(), key.clone()));
        let of_channel = self.channels.entry(channel.clone()).or_default();
        of_channel.ages.insert(age, key.clone());
        of_channel.answers.insert(key.clone(), Answer { age, expires, position });
    }

    fn forget(&mut self, channel: &str, key: &str) {
        let Some(of_channel) = self.channels.get_mut(channel) else { return };
        let Some(Answer { age, .. }) = of_channel.answers.remove(key) else { return };
        of_channel.ages.remove(&age);
        self.ages.remove(&age);
        if of_channel.answers.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Forgets what is past its time.
    pub(super) fn expire(&mut self, now: Instant) {
        // All have the same time to live, but for a changed setting: then some are forgotten a little later.
        while let Some((_, (channel, key))) = self.ages.first_key_value() {
            if self.answer(now, channel, key).is_some() {
                return;
            }
            let (channel, key) = (channel.clone(), key.clone());
            self.forget(&channel, &key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::Epoch;
    use std::time::Duration;

    fn at(offset: u64) -> Option<Position> {
        Some(Position { offset, epoch: Epoch::parse("abcdefgh") })
    }

    fn names(keys: &Keys, now: Instant, channel: &str) -> Vec<u64> {
        let offset = |n: &u64| keys.answer(now, channel, &n.to_string()).is_some();
        (0..100).filter(offset).collect()
    }

    #[test]
    fn a_key_is_known_in_its_channel_until_its_time_is_over() {
        let (now, mut keys) = (Instant::now(), Keys::default());
        let expires = now + Duration::from_secs(300);
        keys.remember(expires, &"a".into(), &"k".into(), at(7));
        keys.remember(expires, &"b".into(), &"k".into(), None);
        assert_eq!(keys.answer(now, "a", "k"), Some(at(7)));
        assert_eq!(keys.answer(now, "b", "k"), Some(None));
        assert_eq!(keys.answer(now, "a", "other"), None);
        assert_eq!(keys.answer(expires, "a", "k"), None);
        keys.remember(expires + Duration::from_secs(1), &"a".into(), &"k".into(), at(8));
        assert_eq!((keys.answer(expires, "a", "k"), keys.ages.len()), (Some(at(8)), 2));
        keys.expire(expires + Duration::from_secs(1));
        assert_eq!((keys.channels.len(), keys.ages.len()), (0, 0));
    }

    #[test]
    fn where_there_are_too_many_the_oldest_gives_way() {
        let (now, mut keys) = (Instant::now(), Keys::of(3, 5));
        let expires = now + Duration::from_secs(300);
        for n in 0..5u64 {
            keys.remember(expires, &"a".into(), &n.to_string().into(), at(n));
        }
        assert_eq!(names(&keys, now, "a"), [2, 3, 4], "of one channel");
        for n in 0..3u64 {
            keys.remember(expires, &"b".into(), &n.to_string().into(), at(n));
        }
        assert_eq!((names(&keys, now, "a"), names(&keys, now, "b")), (vec![3, 4], vec![0, 1, 2]), "of all");
        assert_eq!(keys.ages.len(), 5);
    }
}
