//! What this process can do for clients and backends: permission and routing.
//!
//! Sessions (through their drivers) and the HTTP API call the node; the node asks the channel's options and
//! the tokens whether something is allowed, and passes it to the broker, to presence, or to all shards. It
//! keeps no session, runs no loop and writes to no socket.

pub mod control;
pub mod limits;
mod permission;

pub use control::{Control, Target};
pub use permission::{Denied, Grant, Identity};

use crate::auth::Verifier;
use crate::broker::{Broker, BrokerError, Movement};
use crate::config::{ChannelOptions, Config};
use crate::env::Env;
use crate::history::{Page, Part, Retention};
use crate::presence::Presence;
use crate::telemetry::{Counter, ShardCounters};
use bytes::Bytes;
use control::Switchboard;
use limits::Admissions;
use longwire_protocol::message::{ClientId, ClientInfo};
use longwire_protocol::name;
use longwire_protocol::{ErrorCode, Position, Publication};
use std::sync::Arc;

/// This process, as clients and backends see it.
pub struct Node {
    /// The settings.
    pub config: Config,
    /// What there is beside clients, backends and settings.
    pub env: Env,
    /// Identity of this process, drawn at start.
    pub id: ClientId,
    /// What each shard counts, by its number.
    pub counters: Vec<Arc<ShardCounters>>,
    /// Calls of the HTTP API.
    pub api_calls: Counter,
    /// Connections in all, by address and by user.
    pub admissions: Admissions,
    /// Whether this is `longwire demo`, which has a page with a button that cuts connections.
    pub is_demo: bool,
    broker: Box<dyn Broker>,
    presence: Presence,
    verifier: Verifier,
    switchboard: Switchboard,
}

/// What a publisher gives.
#[derive(Clone, Debug, Default)]
pub struct NewPublication {
    /// Raw JSON.
    pub data: Bytes,
    /// Who publishes, if a client does.
    pub info: Option<Arc<ClientInfo>>,
    /// Tags for filters, sorted by key.
    pub tags: Vec<(String, String)>,
    /// Do not keep it: it gets no position.
    pub skip_history: bool,
}

impl Node {
    /// Puts a node together.
    pub fn new(
        config: Config,
        is_demo: bool,
        mut env: Env,
        verifier: Verifier,
        broker: Box<dyn Broker>,
        switchboard: Switchboard,
    ) -> Node {
        let id = ClientId::from_random(env.rng.bits_128());
        let counters = (0..switchboard.shards()).map(|_| Arc::default()).collect();
        let admissions = Admissions::new(&config);
        Node {
            config,
            env,
            id,
            counters,
            api_calls: Counter::default(),
            admissions,
            is_demo,
            broker,
            presence: Presence::default(),
            verifier,
            switchboard,
        }
    }

    /// The options of a channel.
    ///
    /// # Errors
    /// `BadRequest` for a name that no channel may have, `UnknownChannel` for an unknown namespace.
    pub fn channel_options(&self, channel: &str) -> Result<&ChannelOptions, ErrorCode> {
        if !name::is_valid(channel, self.config.client.max_channel_bytes) {
            return Err(ErrorCode::BadRequest);
        }
        self.config.channel_options(channel).ok_or(ErrorCode::UnknownChannel)
    }

    /// Whether a channel keeps publications, and so has positions.
    pub fn has_history(&self, channel: &str) -> bool {
        self.channel_options(channel).is_ok_and(|options| retention(options).is_some())
    }

    /// Publishes without asking for permission: what the HTTP API does.
    ///
    /// # Errors
    /// As [`channel_options`](Self::channel_options); `BadRequest` for empty data; `Internal` if the broker
    /// cannot be reached.
    pub async fn publish(&self, channel: &str, new: NewPublication) -> Result<Option<Position>, ErrorCode> {
        let options = self.channel_options(channel)?;
        if new.data.is_empty() {
            return Err(ErrorCode::BadRequest);
        }
        let retention = retention(options).filter(|_| !new.skip_history);
        let publication = Publication { offset: 0, data: new.data, info: new.info, tags: new.tags };
        self.broker.publish(&channel.into(), publication, retention).await.map_err(broker_failed)
    }

    /// Part of a channel's history, without asking for permission.
    ///
    /// # Errors
    /// As [`channel_options`](Self::channel_options); `NotAvailable` if the channel has none;
    /// `UnrecoverablePosition` if `part.since` names another epoch.
    pub async fn history(&self, channel: &str, part: Part) -> Result<Page, ErrorCode> {
        let retention = retention(self.channel_options(channel)?).ok_or(ErrorCode::NotAvailable)?;
        let page = self.broker.history(&channel.into(), retention, part).await.map_err(broker_failed)?;
        match part.since.and_then(|since| since.epoch) {
            Some(epoch) if epoch != page.top.epoch => Err(ErrorCode::UnrecoverablePosition),
            _ => Ok(page),
        }
    }

    /// What a subscription that begins at `since` needs: what came after, whatever the epoch.
    ///
    /// # Errors
    /// As [`history`](Self::history), without `UnrecoverablePosition`.
    pub async fn catch_up(&self, channel: &Arc<str>, part: Part) -> Result<Page, ErrorCode> {
        let retention = retention(self.channel_options(channel)?).ok_or(ErrorCode::NotAvailable)?;
        self.broker.history(channel, retention, part).await.map_err(broker_failed)
    }

    /// Forgets a channel's publications.
    ///
    /// # Errors
    /// As [`history`](Self::history).
    pub async fn remove_history(&self, channel: &str) -> Result<(), ErrorCode> {
        retention(self.channel_options(channel)?).ok_or(ErrorCode::NotAvailable)?;
        self.broker.remove_history(&channel.into()).await.map_err(broker_failed)
    }

    /// Everybody in a channel, without asking for permission.
    ///
    /// # Errors
    /// As [`channel_options`](Self::channel_options); `NotAvailable` if the channel keeps no presence.
    pub fn presence(&self, channel: &str) -> Result<Vec<Arc<ClientInfo>>, ErrorCode> {
        self.require_presence(channel)?;
        Ok(self.presence.members(channel))
    }

    /// How many connections and users are in a channel, without asking for permission.
    ///
    /// # Errors
    /// As [`presence`](Self::presence).
    pub fn presence_stats(&self, channel: &str) -> Result<(u32, u32), ErrorCode> {
        self.require_presence(channel)?;
        Ok(self.presence.counts(channel))
    }

    fn require_presence(&self, channel: &str) -> Result<(), ErrorCode> {
        if self.channel_options(channel)?.presence { Ok(()) } else { Err(ErrorCode::NotAvailable) }
    }

    /// Puts a client into a channel's presence.
    pub fn enter(&self, channel: &Arc<str>, info: Arc<ClientInfo>) {
        self.presence.add(channel, info);
    }

    /// Takes a client out of a channel's presence.
    pub fn leave(&self, channel: &str, client: ClientId) {
        self.presence.remove(channel, client);
    }

    /// Tells a channel's subscribers who came or went; that it failed is only logged.
    pub async fn announce(&self, channel: &Arc<str>, movement: Movement) {
        if let Err(error) = self.broker.announce(channel, movement).await {
            tracing::warn!(%channel, %error, "a join or leave was not announced");
        }
    }

    /// Whether what the broker hands on may be lost on the way.
    pub fn broker_may_lose(&self) -> bool {
        self.broker.may_lose()
    }

    /// Notes that a shard has subscribers of the channel, or has none any more.
    ///
    /// # Errors
    /// `Internal` if the broker cannot be reached.
    pub async fn set_interest(
        &self,
        channel: &Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> Result<(), ErrorCode> {
        self.broker.set_interest(channel, shard, is_interested).await.map_err(broker_failed)
    }

    /// Drops what is past its time; called every few seconds.
    pub fn expire(&self) {
        self.broker.expire(self.env.clock.now());
    }
}

/// What a channel with history keeps; `None` for one without.
pub fn retention(options: &ChannelOptions) -> Option<Retention> {
    options.has_history().then_some(Retention {
        size: options.history_size,
        ttl: options.history_ttl,
        meta_ttl: options.history_meta_ttl,
    })
}

fn broker_failed(error: BrokerError) -> ErrorCode {
    tracing::error!(%error, "the broker failed");
    ErrorCode::Internal
}
