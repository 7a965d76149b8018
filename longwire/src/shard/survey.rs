//! Answers questions about this shard's share of the connections.
//!
//! Each answer is made in one go, between two turns, and is bounded by what was asked for; it changes nothing.
//! What must stay true: a connection that is closing, or whose client is not connected, is not there.

use super::{Entry, Shard};
use crate::node::survey::{ChannelState, ConnectionState, Reach, Sent, UsersHere, Wanted, WantedUsers};
use longwire_protocol::message::ClientId;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Instant;

impl Shard {
    /// How far a publication came, which was handed to the sessions before: see [`Shard::run`].
    ///
    /// Who subscribed since counts, too, if the subscription began behind the publication.
    pub(super) fn reach(&self, sent: &Sent) -> Reach {
        let state = self.state.borrow();
        let Some(hub_id) = state.hub.find(&sent.channel) else { return Reach::default() };
        let members = state.hub.members(hub_id);
        let sessions = members.iter().filter_map(|index| state.sessions.get(*index as usize));
        let reached = sessions.filter(|entry| entry.session.has_taken(hub_id, sent));
        Reach { subscribers: members.len(), reached: reached.count() }
    }

    /// The users that are wanted.
    pub(super) fn users(&self, wanted: &WantedUsers) -> UsersHere {
        let state = self.state.borrow();
        let mut here = UsersHere::default();
        let is_user = |entry: &&Entry| is_there(entry) && !entry.session.identity.user.is_empty();
        match &wanted.channel {
            Some(channel) => {
                let members = state.hub.find(channel).map(|hub_id| state.hub.members(hub_id));
                let members = members.unwrap_or_default().iter();
                let entries =
                    members.filter_map(|&index| state.sessions.get(index as usize).map(|entry| &**entry));
                for entry in entries.filter(is_user) {
                    let user = &entry.session.identity.user;
                    keep_first(&mut here.first, wanted, user);
                    if !here.in_channel.contains(user) {
                        here.in_channel.insert(user.clone());
                    }
                }
            }
            None => {
                let entries = state.sessions.iter().map(|(_, entry)| &**entry);
                for entry in entries.filter(is_user) {
                    keep_first(&mut here.first, wanted, &entry.session.identity.user);
                }
            }
        }
        here
    }

    /// The connections that are wanted, by their ids.
    pub(super) fn connections(&self, wanted: &Wanted) -> Vec<ConnectionState> {
        let state = self.state.borrow();
        // The smallest ids that were found: whatever there is, no more is kept than is wanted.
        let mut smallest: BinaryHeap<(ClientId, u32)> = BinaryHeap::new();
        let mut consider = |index: u32, entry: &Entry| {
            let client = entry.session.identity.client;
            if is_wanted(entry, wanted) {
                smallest.push((client, index));
                if smallest.len() > wanted.limit {
                    smallest.pop();
                }
            }
        };
        match &wanted.channel {
            Some(channel) => {
                let members = state.hub.find(channel).map(|hub_id| state.hub.members(hub_id));
                for &index in members.unwrap_or_default() {
                    state.sessions.get(index as usize).into_iter().for_each(|entry| consider(index, entry));
                }
            }
            None => state.look_at(wanted.client, wanted.user.as_deref(), &mut consider),
        }
        let now = self.node.env.clock.now();
        let entries = smallest.into_iter().filter_map(|(_, index)| state.sessions.get(index as usize));
        entries.map(|entry| describe(entry, now)).collect()
    }
}

/// Puts a user among the smallest `limit` that come after another.
fn keep_first(first: &mut BTreeSet<Arc<str>>, wanted: &WantedUsers, user: &Arc<str>) {
    let is_after = wanted.after.as_deref().is_none_or(|after| *after < **user);
    let is_small = first.len() < wanted.limit || first.last().is_some_and(|last| user < last);
    if is_after && is_small && first.insert(user.clone()) && first.len() > wanted.limit {
        first.pop_last();
    }
}

fn is_there(entry: &Entry) -> bool {
    entry.session.closing().is_none() && entry.session.is_connected()
}

fn is_wanted(entry: &Entry, wanted: &Wanted) -> bool {
    let identity = &entry.session.identity;
    is_there(entry)
        && wanted.user.as_deref().is_none_or(|user| *user == *identity.user)
        && wanted.client.is_none_or(|client| client == identity.client)
        && wanted.after.is_none_or(|after| after < identity.client)
        && wanted
            .transport
            .as_deref()
            .is_none_or(|name| name == entry.session.connection().transport().as_str())
}

fn describe(entry: &Entry, now: Instant) -> ConnectionState {
    let session = &entry.session;
    let (identity, connection) = (&session.identity, session.connection());
    let since = |moment: Instant| now.saturating_duration_since(moment);
    let mut channels: Vec<ChannelState> = session
        .subscriptions
        .iter()
        .map(|subscription| ChannelState {
            channel: subscription.channel.clone(),
            seen: subscription.seen,
            is_server_side: subscription.traits.is_server_side,
        })
        .collect();
    channels.sort_unstable_by(|a, b| a.channel.cmp(&b.channel));
    ConnectionState {
        client: identity.client,
        user: identity.user.clone(),
        sdk: session.sdk.clone(),
        transport: connection.transport().as_str(),
        protocol: connection.format().as_str(),
        dialect: connection.dialect().as_str(),
        address: entry.address(),
        open_for: since(session.opened),
        silent_for: since(connection.heartbeat.last_seen()),
        outbox_bytes: session.outbox.len(),
        blocked_for: session.outbox.blocked_since().map(since),
        token_issued_at: session.proof().and_then(|proof| proof.issued_at),
        expires_in: session.expires().map(|expires| expires.saturating_duration_since(now)),
        name: session.client_name().to_owned(),
        is_away: session.is_away(),
        session_data: session.data(),
        channels,
    }
}
