//! What this process can do for clients and backends: permission and routing.
//!
//! Sessions (through their drivers) and the HTTP API call the node; the node asks the channel's options and
//! the tokens whether something is allowed, and passes it to the broker, to presence, or to all shards. It
//! keeps no session, runs no loop and writes to no socket.

pub mod claims;
pub mod control;
pub mod json;
pub mod limits;
mod login;
mod permission;
mod queues;
pub mod rate;
pub mod revocation;
pub mod sdk;
pub mod session_name;
pub mod survey;
mod users;
mod webhooks;

pub use control::{Control, Target};
pub use login::Whence;
pub use permission::{Denied, Grant, Identity};
pub use queues::QueueAction;
pub use webhooks::Arrival;

use crate::auth::Verifier;
use crate::backend::Backend;
use crate::broker::{Broker, BrokerError, IdempotencyKey, Movement, PublishOptions, Published};
use crate::config::{ChannelOptions, Config, DataFormat};
use crate::env::Env;
use crate::errands::Errands;
use crate::events::Events;
use crate::history::{Page, Part, Retention, Version};
use crate::presence::Presence;
use crate::queue::Queues;
use crate::telemetry::{Counter, HistoryCounters, ShardCounters};
use bytes::Bytes;
use claims::Claims;
use control::Switchboard;
use limits::Admissions;
use longwire_protocol::http::AllowedOrigins;
use longwire_protocol::message::{ClientId, ClientInfo, Except};
use longwire_protocol::name;
use longwire_protocol::{ErrorCode, Publication};
use queues::{ForQueues, Unkept};
use rate::Rates;
use revocation::{MAX_ID_BYTES, Revocations, Revoked};
use session_name::SessionNames;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use users::Departures;

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
    /// Pages that may open streams.
    pub allowed_origins: AllowedOrigins,
    /// What sessions are called.
    pub session_names: SessionNames,
    /// How fast something may be done.
    pub rates: RateLimits,
    /// Tokens that count no more.
    pub revocations: Revocations,
    /// Which session has a client's name.
    pub claims: Claims,
    /// When users were here last who left.
    departures: Departures,
    /// The rank that the next connection of a user with one connection gets.
    next_rank: AtomicU64,
    /// Where work goes that a shard's thread must not do.
    pub errands: Errands,
    /// What a backend is asked.
    pub backend: Backend,
    /// Where it is recorded what the backend is told of.
    pub events: Events,
    /// The way to the queues.
    pub queues: Queues,
    unkept: Unkept,
    /// Whether this is `longwire demo`, which has a page with a button that cuts connections.
    pub is_demo: bool,
    broker: Box<dyn Broker>,
    presence: Presence,
    verifier: Verifier,
    switchboard: Switchboard,
}

/// How fast something may be done; `None` where that is not limited.
pub struct RateLimits {
    /// Streams that one address opens.
    pub connects: Option<Rates<IpAddr>>,
    /// Commands of one user.
    pub commands: Option<Rates<Arc<str>>>,
    /// Publications of one user.
    pub publishes: Option<Rates<Arc<str>>>,
}

impl RateLimits {
    fn new(config: &Config) -> RateLimits {
        let Config { server, client, .. } = config;
        RateLimits {
            connects: Rates::new(server.connects_per_second_per_ip, server.connect_burst_per_ip),
            commands: Rates::new(client.commands_per_second_per_user, client.command_burst_per_user),
            publishes: Rates::new(client.publishes_per_second_per_user, client.publish_burst_per_user),
        }
    }
}

/// What a publisher gives.
#[derive(Clone, Debug, Default)]
pub struct NewPublication {
    /// Raw JSON; something else only where the channel's `publication_data_format` allows that.
    pub data: Bytes,
    /// The data is known to be JSON: it was cut out of JSON that was read. Otherwise it is looked at.
    pub is_known_json: bool,
    /// The publisher speaks of bytes (STOMP): where a channel demands nothing of its data, any will do.
    pub is_bytes: bool,
    /// Who publishes, if a client does.
    pub info: Option<Arc<ClientInfo>>,
    /// Tags for filters, sorted by key.
    pub tags: Vec<(String, String)>,
    /// Do not keep it: it gets no position.
    pub skip_history: bool,
    /// Let subscribers be given the difference to the publication before it.
    pub use_delta: bool,
    /// By what this call is known if it is repeated.
    pub idempotency_key: Option<Arc<str>>,
    /// Which state of the publisher's data it tells of.
    pub version: Option<Version>,
    /// Who is not to get it.
    pub except: Except,
}

/// Tags that one publication may have.
const MAX_TAGS: usize = 64;

/// Bytes of all tags of one publication together.
const MAX_TAG_BYTES: usize = 8 * 1024;

/// Longest idempotency key, and longest epoch of a version.
const MAX_KEY_BYTES: usize = 256;

impl NewPublication {
    /// Whether it keeps within what a publication may have beside its data.
    fn is_within_limits(&self) -> bool {
        let tag_bytes: usize = self.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.tags.len() <= MAX_TAGS
            && tag_bytes <= MAX_TAG_BYTES
            && self.idempotency_key.as_ref().is_none_or(|key| key.len() <= MAX_KEY_BYTES)
            && self.version.as_ref().is_none_or(|version| version.epoch.len() <= MAX_KEY_BYTES)
    }

    /// Whether the data is JSON, if the channel takes it.
    fn judge(&self, format: DataFormat) -> Result<bool, ErrorCode> {
        let is_json = self.is_known_json && !self.data.is_empty() || json::is_valid(&self.data);
        let is_taken = match format {
            DataFormat::Binary => true,
            DataFormat::Any if self.is_bytes => true,
            DataFormat::Any | DataFormat::Json => is_json,
            DataFormat::JsonObject => is_json && self.data.trim_ascii_start().starts_with(b"{"),
        };
        if is_taken { Ok(is_json) } else { Err(ErrorCode::BadRequest) }
    }
}

/// What a node is put together from.
pub struct Parts {
    /// Judges tokens.
    pub verifier: Verifier,
    /// Order and memory of channels.
    pub broker: Box<dyn Broker>,
    /// The way to every shard.
    pub switchboard: Switchboard,
    /// Where work goes that a shard's thread must not do.
    pub errands: Errands,
    /// Pages that may open streams.
    pub allowed_origins: AllowedOrigins,
    /// Where it is recorded what the backend is told of.
    pub events: Events,
    /// Tokens that count no more.
    pub revocations: Revocations,
    /// The way to the queues.
    pub queues: Queues,
}

impl Node {
    /// Puts a node together.
    pub fn new(config: Config, is_demo: bool, mut env: Env, parts: Parts) -> Node {
        let Parts { verifier, broker, switchboard, errands, allowed_origins, events, revocations, queues } =
            parts;
        let session_names = SessionNames::new([env.rng.bits_128(), env.rng.bits_128()]);
        let id = ClientId::from_random(env.rng.bits_128());
        let counters = (0..switchboard.shards()).map(|_| Arc::default()).collect();
        let admissions = Admissions::new(&config);
        let claims = Claims::new(config.server.max_connections, config.server.max_connections_per_ip);
        let rates = RateLimits::new(&config);
        let backend = Backend::new(&config, env.http.clone(), errands.clone(), env.clock);
        Node {
            config,
            env,
            id,
            counters,
            api_calls: Counter::default(),
            admissions,
            allowed_origins,
            session_names,
            rates,
            revocations,
            claims,
            departures: Departures::default(),
            next_rank: AtomicU64::new(1),
            errands,
            backend,
            events,
            queues,
            unkept: Unkept::default(),
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
    /// As [`channel_options`](Self::channel_options); `BadRequest` for data that the channel does not take, and for
    /// more tags or a longer key than there may be; `Internal` if the broker cannot be reached.
    pub async fn publish(&self, channel: &str, new: NewPublication) -> Result<Published, ErrorCode> {
        let options = self.channel_options(channel)?;
        let is_json = new.judge(options.publication_data_format)?;
        if !new.is_within_limits() {
            return Err(ErrorCode::BadRequest);
        }
        let ttl = self.config.api.idempotency_ttl;
        let publish_options = PublishOptions {
            retention: retention(options).filter(|_| !new.skip_history),
            use_delta: new.use_delta || options.delta_publish,
            idempotency_key: new.idempotency_key.map(|name| IdempotencyKey { name, ttl }),
            version: new.version,
        };
        let except = Some(new.except).filter(|except| *except != Except::default()).map(Box::new);
        let publication =
            Publication { offset: 0, data: new.data, info: new.info, tags: new.tags, except, is_json };
        let for_queues = ForQueues::of(self.bound_queues(channel), &publication);
        let published = self.broker.publish(&channel.into(), publication, publish_options).await;
        let published = published.map_err(broker_failed)?;
        if let Some(ForQueues { queues, tags, data }) = for_queues.filter(|_| !published.is_suppressed) {
            self.feed(channel, &queues, &tags, &data).await?;
        }
        Ok(published)
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

    /// What is counted of histories on the disk, where they are kept there.
    pub fn history_counters(&self) -> Option<&HistoryCounters> {
        self.broker.history_counters()
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

    /// Drops what is past its time and renews what grows old; called every few seconds.
    pub fn expire(&self) {
        self.verifier.tend();
        self.broker.expire(self.env.clock.now());
        self.revocations.expire(self.env.clock.unix_seconds());
        let running_for = self.running_for();
        let RateLimits { connects, commands, publishes } = &self.rates;
        connects.iter().for_each(|rates| rates.expire(running_for));
        commands.iter().chain(publishes).for_each(|rates| rates.expire(running_for));
    }

    /// How long this process has been running: the time by which rates are counted.
    pub fn running_for(&self) -> Duration {
        self.env.clock.now().saturating_duration_since(self.env.clock.start())
    }

    /// Notes that a connection of a user ended, who was heard last at this time.
    pub fn depart(&self, user: &Arc<str>, last_seen: Instant) {
        self.departures.note(user, self.unix_seconds_at(last_seen));
    }

    /// A moment that is past, in seconds since 1970.
    pub fn unix_seconds_at(&self, moment: Instant) -> i64 {
        let ago = self.env.clock.now().saturating_duration_since(moment).as_secs();
        self.env.clock.unix_seconds().saturating_sub_unsigned(ago)
    }

    /// A number that is greater than all before, by which connections are told apart by age.
    pub fn next_rank(&self) -> u64 {
        self.next_rank.fetch_add(1, Ordering::Relaxed)
    }

    /// The channel that is a user's own, if there is such a thing.
    ///
    /// A user whose id cannot be the one name after `#` has none: the channel would be nobody's, or somebody else's.
    pub fn personal_channel(&self, user: &str) -> Option<String> {
        let rules = &self.config.client;
        if !rules.personal_channel || user.is_empty() {
            return None;
        }
        let channel = match &rules.personal_channel_namespace {
            Some(namespace) => format!("{namespace}:#{user}"),
            None => format!("#{user}"),
        };
        // A colon would make the beginning of the id a namespace.
        let is_own =
            !user.contains([',', '#']) && (rules.personal_channel_namespace.is_some() || !user.contains(':'));
        if !is_own || self.channel_options(&channel).is_err() {
            tracing::warn!(
                ?user,
                "this user id cannot stand in a channel's name: there is no personal channel"
            );
            return None;
        }
        Some(channel)
    }

    /// Revokes tokens until a time in seconds since 1970 (0: for ever; one that is past: not at all), and closes the connections that came by
    /// them if `is_closing`.
    ///
    /// # Errors
    /// `BadRequest` for an empty or very long id; `LimitExceeded` if too much is revoked; `Internal` if the
    /// revocation holds, but may not outlive this process.
    pub async fn revoke(&self, revoked: Revoked, expires_at: i64, is_closing: bool) -> Result<(), ErrorCode> {
        let (Revoked::Token(id) | Revoked::User { user: id, .. }) = &revoked;
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(ErrorCode::BadRequest);
        }
        let now = self.env.clock.unix_seconds();
        if expires_at != 0 && expires_at <= now {
            return Ok(());
        }
        let keeping = self.revocations.revoke(&revoked, expires_at).map_err(|error| {
            tracing::error!(%error, "a token was not revoked");
            ErrorCode::LimitExceeded
        })?;
        // Nobody stays connected for as long as a disk takes.
        if is_closing {
            self.order(Control::Revoke { revoked: Arc::new(revoked) }).await;
        }
        keeping.await.map_err(|error| {
            tracing::error!(%error, "a revocation will not outlive this process");
            ErrorCode::Internal
        })
    }
}

/// What a channel with history keeps; `None` for one without.
pub fn retention(options: &ChannelOptions) -> Option<Retention> {
    options.has_history().then_some(Retention {
        size: options.history_size,
        ttl: options.history_ttl,
        meta_ttl: options.history_meta_ttl,
        is_on_disk: options.history_on_disk,
    })
}

fn broker_failed(error: BrokerError) -> ErrorCode {
    tracing::error!(%error, "the broker failed");
    ErrorCode::Internal
}
