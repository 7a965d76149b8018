//! What shards are asked about their connections, and what their answers come to.
//!
//! A question is pushed into every shard's mailbox and answered there; the answers are put together here. They
//! tell of this process alone. What must stay true: an answer is bounded, however many connections there are.

use super::sdk::Sdk;
use super::{Control, Node};
use bytes::Bytes;
use longwire_protocol::Position;
use longwire_protocol::message::{ClientId, Except};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How far a publication came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Connections that are subscribed.
    pub subscribers: usize,
    /// Those among them that it was given to: who is not connected any more or was left out does not count.
    pub reached: usize,
}

/// Which publication is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Where it was published.
    pub channel: Arc<str>,
    /// Its position, if it has one.
    pub position: Option<Position>,
    /// Who was not to get it.
    pub except: Except,
    /// Its tags, sorted by key, by which subscribers choose.
    pub tags: Vec<(String, String)>,
}

/// Which connections are wanted: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Connections of this user.
    pub user: Option<String>,
    /// Connections that are subscribed to this channel.
    pub channel: Option<String>,
    /// Connections over this transport, by its name.
    pub transport: Option<String>,
    /// This connection.
    pub client: Option<ClientId>,
    /// Connections whose id is greater.
    pub after: Option<ClientId>,
    /// At most so many, those with the smallest ids.
    pub limit: usize,
}

/// Which users are wanted: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WantedUsers {
    /// Users with a connection that is subscribed to this channel.
    pub channel: Option<String>,
    /// Users whose id is greater.
    pub after: Option<String>,
    /// At most so many, those with the smallest ids.
    pub limit: usize,
}

/// Users that are here; the anonymous one is nobody.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsersHere {
    /// As many as are wanted.
    pub first: BTreeSet<Arc<str>>,
    /// All who are in the channel that is wanted, if one is.
    pub in_channel: BTreeSet<Arc<str>>,
}

/// One connection, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionState {
    /// The connection.
    pub client: ClientId,
    /// Whose it is; empty for the anonymous user.
    pub user: Arc<str>,
    /// What the client says that it is, if it does.
    pub sdk: Option<Arc<Sdk>>,
    /// How bytes travel.
    pub transport: &'static str,
    /// How they are encoded.
    pub protocol: &'static str,
    /// What they mean.
    pub dialect: &'static str,
    /// The client's address.
    pub address: IpAddr,
    /// How long the connection has been open.
    pub open_for: Duration,
    /// How long nothing has been heard of the client.
    pub silent_for: Duration,
    /// Bytes that wait to be written.
    pub outbox_bytes: usize,
    /// How long a write has been waiting for the client without progress, if one has.
    pub blocked_for: Option<Duration>,
    /// When the token says that it was issued, in seconds since 1970.
    pub token_issued_at: Option<i64>,
    /// How long until the connection ends unless it is refreshed.
    pub expires_in: Option<Duration>,
    /// What the client calls itself; empty if it does not.
    pub name: String,
    /// Its link is lost, and it is kept for the client's return.
    pub is_away: bool,
    /// What the backend keeps with it: raw JSON; empty if absent.
    pub session_data: Bytes,
    /// What it is subscribed to, in the order of the names.
    pub channels: Vec<ChannelState>,
}

/// One subscription, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelState {
    /// The channel.
    pub channel: Arc<str>,
    /// Up to where the client has been given everything, where that is watched.
    pub seen: Option<Position>,
    /// The server began it.
    pub is_server_side: bool,
}

/// What is known of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserState {
    /// Connections of the user.
    pub connections: usize,
    /// When the user was here last, in seconds since 1970; who is here is here at this moment.
    pub last_seen: Option<i64>,
}

impl Node {
    /// How far a publication came that was published before. A broker that hands deliveries on over a network may
    /// not have handed it on yet.
    pub async fn reach(&self, sent: Sent) -> Reach {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.order(Control::Reach { sent: Arc::new(sent), answer }).await;
        let mut sum = Reach::default();
        while let Some(part) = answers.recv().await {
            sum.subscribers += part.subscribers;
            sum.reached += part.reached;
        }
        sum
    }

    /// The connections that are wanted, by their ids, and whether there are more.
    pub async fn connections(&self, wanted: Wanted) -> (Vec<ConnectionState>, bool) {
        let limit = wanted.limit;
        let (answer, mut answers) = mpsc::unbounded_channel();
        // One more than is wanted, to know whether there is.
        let wanted = Arc::new(Wanted { limit: limit.saturating_add(1), ..wanted });
        self.order(Control::Connections { wanted, answer }).await;
        let mut found = Vec::new();
        while let Some(part) = answers.recv().await {
            found.extend(part);
        }
        found.sort_unstable_by_key(|connection| connection.client);
        let has_more = found.len() > limit;
        found.truncate(limit);
        (found, has_more)
    }

    /// The users that are wanted, in the order of their ids; whether there are more; and how many there are, whatever
    /// their ids.
    pub async fn users(&self, wanted: WantedUsers) -> (Vec<Arc<str>>, bool, usize) {
        let limit = wanted.limit;
        let is_in_channel = wanted.channel.is_some();
        let (answer, mut answers) = mpsc::unbounded_channel();
        // One more than is wanted, to know whether there is.
        let wanted = Arc::new(WantedUsers { limit: limit.saturating_add(1), ..wanted });
        self.order(Control::Users { wanted, answer }).await;
        let mut sum = UsersHere::default();
        while let Some(part) = answers.recv().await {
            sum.first.extend(part.first);
            sum.in_channel.extend(part.in_channel);
        }
        let has_more = sum.first.len() > limit;
        let total = if is_in_channel { sum.in_channel.len() } else { self.admissions.users() };
        (sum.first.into_iter().take(limit).collect(), has_more, total)
    }

    /// What is known of a user; no shard needs to be asked.
    pub fn user(&self, user: &str) -> UserState {
        match self.admissions.connections_of(user) {
            0 => UserState { connections: 0, last_seen: self.departures.last_seen(user) },
            connections => UserState { connections, last_seen: Some(self.env.clock.unix_seconds()) },
        }
    }
}
