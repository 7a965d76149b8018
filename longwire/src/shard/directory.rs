//! Where a client or a user of this shard is found, without a look at every session.
//!
//! Local to one thread: no locks. It holds places in the table of sessions and nothing else; whoever looks somebody up
//! checks that the session there is the one that is meant. The anonymous user is not listed: all of those who are
//! nobody are found by looking at everybody. What must stay true: a session is listed from its opening until it is
//! taken out of the table, under its user from the moment that it is that user's.

use super::{Entry, Key, Shard, State, entry};
use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashTable};
use longwire_protocol::message::ClientId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Who is where among the sessions of one shard.
#[derive(Default)]
pub(super) struct Directory {
    /// Not under their ids, which the sessions have: a place costs a connection 9 bytes so, and 33 with its id.
    clients: HashTable<Listed>,
    users: HashMap<Arc<str>, Places, RandomState>,
}

/// Where a client is that has this piece of its id, and maybe another of which that is true.
#[derive(PartialEq, Eq)]
struct Listed {
    piece: u32,
    session: u32,
}

impl Listed {
    fn new(client: ClientId, session: u32) -> Listed {
        // Of a UUID's random bits.
        Listed { piece: client.0 as u32, session }
    }

    fn hash(&self) -> u64 {
        // The table wants its upper bits to be as good as its lower ones; nobody chooses an id, so this is enough.
        u64::from(self.piece).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// The places of one user's sessions: mostly one.
enum Places {
    One(u32),
    Many(BTreeSet<u32>),
}

impl Directory {
    /// Lists a session under its client id.
    pub(super) fn list(&mut self, client: ClientId, session: u32) {
        let listed = Listed::new(client, session);
        self.clients.insert_unique(listed.hash(), listed, Listed::hash);
    }

    /// Lists a session under its user, too.
    pub(super) fn list_user(&mut self, user: &Arc<str>, session: u32) {
        if user.is_empty() {
            return;
        }
        let places = self.users.entry(user.clone()).or_insert(Places::One(session));
        match places {
            Places::One(one) if *one == session => {}
            Places::One(one) => *places = Places::Many([*one, session].into()),
            Places::Many(many) => {
                many.insert(session);
            }
        }
    }

    /// Takes a session from under a user.
    pub(super) fn strike_user(&mut self, user: &str, session: u32) {
        let is_last = match self.users.get_mut(user) {
            Some(Places::One(one)) => *one == session,
            Some(Places::Many(many)) => {
                many.remove(&session);
                many.is_empty()
            }
            None => false,
        };
        if is_last {
            self.users.remove(user);
        }
    }

    /// Takes a session out that is over.
    pub(super) fn strike(&mut self, client: ClientId, user: &str, session: u32) {
        let listed = Listed::new(client, session);
        if let Ok(found) = self.clients.find_entry(listed.hash(), |other| *other == listed) {
            found.remove();
        }
        self.strike_user(user, session);
        if self.clients.is_empty() {
            // A crowd that left leaves no tables behind.
            *self = Directory::default();
        }
    }

    /// Where a client's session is; `is_its` says whether one that may be is.
    pub(super) fn client(&self, client: ClientId, is_its: impl Fn(u32) -> bool) -> Option<u32> {
        let wanted = Listed::new(client, 0);
        let may_be = |other: &Listed| other.piece == wanted.piece && is_its(other.session);
        self.clients.find(wanted.hash(), may_be).map(|listed| listed.session)
    }

    /// Where the sessions of a user are, in the order of their places; not of the anonymous one.
    pub(super) fn user(&self, user: &str) -> impl Iterator<Item = u32> + '_ {
        let (one, many) = match self.users.get(user) {
            Some(Places::One(one)) => (Some(*one), None),
            Some(Places::Many(many)) => (None, Some(many)),
            None => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten().copied())
    }
}

impl Shard {
    /// Lists a session under its user, whom it has from this moment on.
    pub(super) fn list_user(&self, key: Key) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = entry(&mut state.sessions, key) {
            state.directory.list_user(&entry.session.identity.user, key.index);
        }
    }
}

impl State {
    /// Looks at the sessions that may be of a client or of a user, or at all, in the order of their places.
    pub(super) fn look_at(
        &self,
        client: Option<ClientId>,
        user: Option<&str>,
        consider: &mut dyn FnMut(u32, &Entry),
    ) {
        let mut look = |index: u32| {
            self.sessions.get(index as usize).into_iter().for_each(|entry| consider(index, entry));
        };
        match (client, user) {
            (Some(client), _) => {
                let is_its = |index| {
                    let entry = self.sessions.get(index as usize);
                    entry.is_some_and(|entry| entry.session.identity.client == client)
                };
                self.directory.client(client, is_its).into_iter().for_each(look);
            }
            (None, Some(user)) if !user.is_empty() => self.directory.user(user).for_each(look),
            _ => self.sessions.iter().for_each(|(index, _)| look(index as u32)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_wherever_the_connections_are_and_nowhere_after_the_last() {
        let mut directory = Directory::default();
        let user: Arc<str> = "42".into();
        for session in [3, 1, 2] {
            directory.list(ClientId(session.into()), session);
            directory.list_user(&user, session);
            directory.list_user(&user, session);
        }
        assert_eq!(directory.user("42").collect::<Vec<_>>(), [1, 2, 3]);
        let is_listed = |client| directory.client(ClientId(client), |_| true);
        assert_eq!((is_listed(2), is_listed(9)), (Some(2), None));
        directory.strike_user("42", 1);
        directory.strike(ClientId(3), "42", 3);
        directory.strike(ClientId(3), "42", 3);
        assert_eq!(directory.user("42").collect::<Vec<_>>(), [2]);
        directory.strike_user("7", 2);
        directory.strike(ClientId(2), "42", 2);
        directory.strike(ClientId(1), "", 1);
        assert_eq!((directory.user("42").count(), directory.users.len(), directory.clients.len()), (0, 0, 0));
    }

    #[test]
    fn a_place_that_another_client_took_is_the_others() {
        let mut directory = Directory::default();
        directory.list(ClientId(1), 7);
        directory.list(ClientId(1), 8);
        directory.strike(ClientId(1), "", 7);
        assert_eq!(directory.client(ClientId(1), |_| true), Some(8));
        directory.list_user(&"".into(), 8);
        assert_eq!(directory.user("").count(), 0, "the anonymous user is nobody");
    }

    #[test]
    fn clients_whose_ids_have_a_piece_in_common_are_told_apart() {
        let mut directory = Directory::default();
        let client = |n: u32| ClientId(u128::from(n) << 64 | 5);
        for n in 0..1000 {
            directory.list(client(n), n);
        }
        for n in 0..1000 {
            assert_eq!(directory.client(client(n), |session| session == n), Some(n));
        }
        for n in (0..1000).step_by(2) {
            directory.strike(client(n), "", n);
        }
        for n in 0..1000 {
            assert_eq!(directory.client(client(n), |session| session == n), (n % 2 == 1).then_some(n));
        }
    }
}
