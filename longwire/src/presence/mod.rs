//! Who is in a channel, on this node.
//!
//! Entries are put in when a subscription begins and taken out when it ends, so nothing here expires. The
//! table lies in stripes behind locks that are held for a few instructions. It publishes nothing: joins
//! and leaves are the node's business.

use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::message::{ClientId, ClientInfo};
use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const STRIPES: usize = 64;

/// Who is where.
pub struct Presence {
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
}

type Stripe = HashMap<Arc<str>, BTreeMap<ClientId, Arc<ClientInfo>>, RandomState>;

impl Default for Presence {
    fn default() -> Presence {
        let hasher = RandomState::default();
        let stripes = (0..STRIPES).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        Presence { stripes, hasher }
    }
}

impl Presence {
    /// Puts a client into a channel.
    pub fn add(&self, channel: &Arc<str>, info: Arc<ClientInfo>) {
        self.stripe(channel).entry(channel.clone()).or_default().insert(info.client, info);
    }

    /// Takes a client out of a channel.
    pub fn remove(&self, channel: &str, client: ClientId) {
        let mut stripe = self.stripe(channel);
        if let Some(members) = stripe.get_mut(channel) {
            members.remove(&client);
            if members.is_empty() {
                stripe.remove(channel);
            }
        }
    }

    /// Everybody in a channel, in the order of their client ids.
    pub fn members(&self, channel: &str) -> Vec<Arc<ClientInfo>> {
        self.stripe(channel)
            .get(channel)
            .map(|members| members.values().cloned().collect())
            .unwrap_or_default()
    }

    /// How many connections, and how many distinct users, are in a channel.
    pub fn counts(&self, channel: &str) -> (u32, u32) {
        let stripe = self.stripe(channel);
        let Some(members) = stripe.get(channel) else { return (0, 0) };
        let users: std::collections::BTreeSet<&str> = members.values().map(|info| &*info.user).collect();
        (members.len() as u32, users.len() as u32)
    }

    fn stripe(&self, channel: &str) -> MutexGuard<'_, Stripe> {
        let index = self.hasher.hash_one(channel) as usize % STRIPES;
        // A panic while the lock was held is a bug of ours; the map itself is still a map.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn info(user: &str, client: u128) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            user: user.into(),
            client: ClientId(client),
            conn_info: Bytes::new(),
            chan_info: Bytes::new(),
        })
    }

    #[test]
    fn two_connections_of_a_user_are_two_clients_and_one_user() {
        let presence = Presence::default();
        let channel: Arc<str> = "room".into();
        presence.add(&channel, info("42", 1));
        presence.add(&channel, info("42", 2));
        presence.add(&channel, info("7", 3));
        assert_eq!(presence.counts("room"), (3, 2));
        presence.remove("room", ClientId(2));
        assert_eq!(presence.members("room").iter().map(|i| i.client.0).collect::<Vec<_>>(), [1, 3]);
        presence.remove("room", ClientId(1));
        presence.remove("room", ClientId(3));
        assert_eq!(presence.counts("room"), (0, 0));
    }
}
