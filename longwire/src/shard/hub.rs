//! Which sessions of this shard are subscribed to which channel.
//!
//! Local to one thread: no locks. A channel has a number while it has subscribers, so that sessions compare
//! numbers and not names. It holds no session and writes nothing.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
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
    /// It is the first of this shard.
    pub(super) is_first: bool,
}

impl Hub {
    /// Adds a session to a channel; it must not be in it.
    pub(super) fn join(&mut self, channel: &str, session: u32) -> Joined {
        self.subscriptions += 1;
        if let Some(&hub_id) = self.numbers.get(channel) {
            let entry = &mut self.channels[hub_id as usize];
            entry.join(session);
            return Joined { hub_id, channel: entry.name.clone(), is_first: false };
        }
        let name: Arc<str> = channel.into();
        let entry = Channel { name: name.clone(), members: vec![session], places: None };
        let hub_id = self.channels.insert(entry) as u32;
        self.numbers.insert(name.clone(), hub_id);
        Joined { hub_id, channel: name, is_first: true }
    }

    /// Takes a session out of a channel; true if it was the last of this shard.
    pub(super) fn leave(&mut self, hub_id: u32, session: u32) -> bool {
        let Some(entry) = self.channels.get_mut(hub_id as usize) else { return false };
        if !entry.leave(session) {
            return false;
        }
        self.subscriptions -= 1;
        let is_last = entry.members.is_empty();
        if is_last {
            let entry = self.channels.remove(hub_id as usize);
            self.numbers.remove(&entry.name);
        }
        is_last
    }

    /// A channel's number, if it has subscribers.
    pub(super) fn find(&self, channel: &str) -> Option<u32> {
        self.numbers.get(channel).copied()
    }

    /// The sessions of a channel.
    pub(super) fn members(&self, hub_id: u32) -> &[u32] {
        &self.channels[hub_id as usize].members
    }

    /// All channels with the number of their subscribers.
    pub(super) fn channels(&self) -> BTreeMap<Arc<str>, usize> {
        self.channels.iter().map(|(_, channel)| (channel.name.clone(), channel.members.len())).collect()
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
    fn the_first_and_the_last_member_are_told() {
        let mut hub = Hub::default();
        let first = hub.join("a", 1);
        assert!(first.is_first);
        assert!(!hub.join("a", 2).is_first);
        assert!(!hub.leave(first.hub_id, 1));
        assert!(!hub.leave(first.hub_id, 1), "leaving twice is nothing");
        assert!(hub.leave(first.hub_id, 2));
        assert_eq!((hub.find("a"), hub.subscriptions()), (None, 0));
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
