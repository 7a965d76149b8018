//! Which sessions of this shard are subscribed to which channel.
//!
//! Local to one thread: no locks. A channel has a number while it has subscribers, or while the broker hands it
//! to this shard, so that sessions compare numbers and not names. It holds no session and writes nothing.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::Position;
use slab::Slab;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The channels of one shard and their subscribers.
#[derive(Default)]
pub(super) struct Hub {
    numbers: HashMap<Arc<str>, u32, RandomState>,
    channels: Slab<Channel>,
    subscriptions: usize,
}

struct Channel {
    name: Arc<str>,
    /// Indices of sessions.
    members: Vec<u32>,
    /// Where in `members` each session stands; kept only once linear search would hurt.
    places: Option<HashMap<u32, u32, RandomState>>,
    interest: Interest,
    /// The channel's newest position when the broker was last asked for it.
    expected: Option<Position>,
}

/// Whether the broker hands a channel to this shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Interest {
    /// It does not.
    #[default]
    Off,
    /// It does.
    On,
    /// It was asked to begin or to stop, and did not say that it did.
    Unsure,
}

/// Up to this many members a linear search is cheaper than a map.
const SEARCHED: usize = 64;

/// A session that joined.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Joined {
    /// The channel's number.
    pub(super) hub_id: u32,
    /// The channel's shared name.
    pub(super) channel: Arc<str>,
}

impl Hub {
    /// Adds a session to a channel; it must not be in it.
    pub(super) fn join(&mut self, channel: &str, session: u32) -> Joined {
        self.subscriptions += 1;
        if let Some(&hub_id) = self.numbers.get(channel) {
            let entry = &mut self.channels[hub_id as usize];
            entry.join(session);
            return Joined { hub_id, channel: entry.name.clone() };
        }
        let name: Arc<str> = channel.into();
        let entry = Channel {
            name: name.clone(),
            members: vec![session],
            places: None,
            interest: Interest::Off,
            expected: None,
        };
        let hub_id = self.channels.insert(entry) as u32;
        self.numbers.insert(name.clone(), hub_id);
        Joined { hub_id, channel: name }
    }

    /// Takes a session out of a channel; true if it was the last of this shard.
    pub(super) fn leave(&mut self, hub_id: u32, session: u32) -> bool {
        let Some(entry) = self.channels.get_mut(hub_id as usize) else { return false };
        if !entry.leave(session) {
            return false;
        }
        self.subscriptions -= 1;
        let is_last = entry.members.is_empty();
        self.forget_unused(hub_id);
        is_last
    }

    /// Whether the broker hands the channel to this shard, and whether that is wanted: `None` if the channel
    /// has neither subscribers nor interest.
    pub(super) fn interest(&self, channel: &str) -> Option<(Interest, bool)> {
        let entry = &self.channels[self.find(channel)? as usize];
        Some((entry.interest, !entry.members.is_empty()))
    }

    /// Notes whether the broker hands the channel to this shard.
    pub(super) fn set_interest(&mut self, channel: &str, interest: Interest) {
        if let Some(hub_id) = self.find(channel) {
            self.channels[hub_id as usize].interest = interest;
            self.forget_unused(hub_id);
        }
    }

    /// Notes the channel's newest position; returns what was noted before.
    pub(super) fn expect(&mut self, hub_id: u32, top: Position) -> Option<Position> {
        self.channels[hub_id as usize].expected.replace(top)
    }

    fn forget_unused(&mut self, hub_id: u32) {
        let entry = &self.channels[hub_id as usize];
        if entry.members.is_empty() && entry.interest == Interest::Off {
            let entry = self.channels.remove(hub_id as usize);
            self.numbers.remove(&entry.name);
        }
    }

    /// A channel's number, if it has one.
    pub(super) fn find(&self, channel: &str) -> Option<u32> {
        self.numbers.get(channel).copied()
    }

    /// The sessions of a channel.
    pub(super) fn members(&self, hub_id: u32) -> &[u32] {
        &self.channels[hub_id as usize].members
    }

    /// All channels that have subscribers, with their number.
    pub(super) fn channels(&self) -> BTreeMap<Arc<str>, usize> {
        let subscribed = self.channels.iter().filter(|(_, channel)| !channel.members.is_empty());
        subscribed.map(|(_, channel)| (channel.name.clone(), channel.members.len())).collect()
    }

    /// The names of all channels, with and without subscribers.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.channels.iter().map(|(_, channel)| channel.name.clone()).collect()
    }

    /// Subscriptions in all channels together.
    pub(super) fn subscriptions(&self) -> usize {
        self.subscriptions
    }
}

impl Channel {
    fn join(&mut self, session: u32) {
        self.members.push(session);
        let last = (self.members.len() - 1) as u32;
        match &mut self.places {
            Some(places) => {
                places.insert(session, last);
            }
            None if self.members.len() > SEARCHED => {
                self.places = Some((0..).zip(&self.members).map(|(at, &session)| (session, at)).collect());
            }
            None => {}
        }
    }

    fn leave(&mut self, session: u32) -> bool {
        let at = match &mut self.places {
            Some(places) => places.remove(&session).map(|at| at as usize),
            None => self.members.iter().position(|&member| member == session),
        };
        let Some(at) = at else { return false };
        self.members.swap_remove(at);
        if let (Some(places), Some(&moved)) = (&mut self.places, self.members.get(at)) {
            places.insert(moved, at as u32);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_member_is_told() {
        let mut hub = Hub::default();
        let first = hub.join("a", 1);
        assert_eq!(hub.interest("a"), Some((Interest::Off, true)));
        assert_eq!(hub.join("a", 2), first);
        assert!(!hub.leave(first.hub_id, 1));
        assert!(!hub.leave(first.hub_id, 1), "leaving twice is nothing");
        assert!(hub.leave(first.hub_id, 2));
        assert_eq!((hub.find("a"), hub.subscriptions()), (None, 0));
    }

    #[test]
    fn a_channel_that_the_broker_still_hands_on_keeps_its_number() {
        let mut hub = Hub::default();
        let first = hub.join("a", 1);
        hub.set_interest("a", Interest::On);
        assert!(hub.leave(first.hub_id, 1));
        assert_eq!((hub.interest("a"), hub.channels().len()), (Some((Interest::On, false)), 0));
        assert_eq!(hub.join("a", 2), first);
        assert!(hub.leave(first.hub_id, 2));
        hub.set_interest("a", Interest::Off);
        assert_eq!((hub.interest("a"), hub.names().len()), (None, 0));
    }

    #[test]
    fn a_crowd_comes_and_goes_in_any_order() {
        let mut hub = Hub::default();
        let hub_id = hub.join("a", 0).hub_id;
        for session in 1..1000 {
            hub.join("a", session);
        }
        for session in (0..1000).filter(|s| s % 3 != 0) {
            assert!(!hub.leave(hub_id, session));
        }
        let mut left = hub.members(hub_id).to_vec();
        left.sort_unstable();
        assert_eq!(left, (0..1000).filter(|s| s % 3 == 0).collect::<Vec<_>>());
        let last = left.pop().unwrap();
        for session in left {
            assert!(!hub.leave(hub_id, session));
        }
        assert!(hub.leave(hub_id, last));
    }
}
