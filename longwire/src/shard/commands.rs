//! Carries out the requests of a session: asks the node, answers the session.
//!
//! Each function borrows the shard's state only between awaits. A session that closed meanwhile is simply
//! not there any more: what was done for it is undone where it was done. The order in which a subscription
//! begins is the heart of recovery: permission, hub, the broker's interest, history, presence, the reply,
//! and only then live.

use super::{Key, Shard};
use crate::node::{Denied, Grant, NewPublication};
use crate::session::recovery;
use crate::session::subscription::{Subscription, Traits};
use bytes::Bytes;
use longwire_protocol::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use longwire_protocol::message::{ConnectResult, Reply, SubscribeResult};
use longwire_protocol::{CloseReason, ErrorCode};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The version that clients are told.
const VERSION: &str = concat!("longwire ", env!("CARGO_PKG_VERSION"));

/// Carries out one request and answers it.
pub(super) async fn carry_out(shard: Rc<Shard>, key: Key, request: Numbered) {
    let Numbered { id, command } = request;
    shard.counters.commands.add(1);
    let outcome = match command {
        Command::Connect(connect) => shard.connect(key, id, *connect).await,
        Command::Subscribe(ask) => shard.subscribe_client(key, id, *ask).await,
        Command::Unsubscribe { channel } => Ok(shard.unsubscribe(key, &channel)),
        Command::Publish { channel, data } => shard.publish(key, &channel, data).await,
        Command::Presence { channel } => shard.presence(key, &channel),
        Command::PresenceStats { channel } => shard.presence_stats(key, &channel),
        Command::History(request) => shard.history(key, request).await,
        Command::Refresh { token } => shard.refresh(key, &token),
        Command::SubRefresh { channel, token } => shard.refresh_subscription(key, &channel, &token),
        // The session answers these itself.
        Command::Rpc { .. } | Command::Send { .. } | Command::Ping | Command::Pong => return,
    };
    let config = &shard.node.config;
    shard.with(key, |entry| match outcome {
        Ok(Some(reply)) => entry.session.answer(id, &reply, config),
        Ok(None) => {}
        Err(denied) => entry.session.deny(id, denied, config),
    });
}

/// The reply to write, `None` if it was written already, or why not.
type Outcome = Result<Option<Reply>, Denied>;

impl Shard {
    async fn connect(&self, key: Key, id: u32, connect: Connect) -> Outcome {
        let config = &self.node.config;
        let token = match self.node.authenticate(&connect.token) {
            Ok(token) => token,
            Err(denied) => {
                self.with(key, |entry| entry.session.refuse_connect());
                return Err(denied);
            }
        };
        let Ok(user_place) = self.node.admissions.admit_user(&token.user) else {
            return Err(Denied::Close(
                CloseReason::ConnectionLimit,
                "client.max_connections_per_user is reached",
            ));
        };
        if token.channels.len() > config.client.max_subscriptions {
            return Err(Denied::Close(
                CloseReason::ChannelLimit,
                "the token brings more channels than client.max_subscriptions",
            ));
        }
        let ttl_seconds = self.ttl_seconds(token.expires_at);
        let expires = self.instant_of(token.expires_at);
        let Some(client) = self.with(key, |entry| {
            entry.session.establish(token.user, token.info, expires, user_place);
            entry.session.identity.client
        }) else {
            return Ok(None);
        };
        let mut subs = Vec::new();
        for (channel, server_side) in token.channels {
            let grant = self.node.grant_server_side(&channel, &server_side)?;
            let known = connect.subs.iter().find(|sub| sub.channel == channel);
            let ask = Subscribe { channel, ..known.cloned().unwrap_or_default() };
            // Nothing that the client did can make this fail.
            let begun = self.subscribe(key, &ask, grant, true).await;
            if let Some(result) = begun
                .map_err(|_| Denied::Close(CloseReason::InternalError, "a server-side subscription failed"))?
            {
                subs.push((ask.channel, result));
            }
        }
        self.with(key, |entry| {
            let is_two_way = entry.session.connection().is_two_way();
            let channels: Vec<String> = subs.iter().map(|(channel, _)| channel.clone()).collect();
            let reply = Reply::Connect(Box::new(ConnectResult {
                client,
                version: VERSION,
                ttl_seconds,
                data: Bytes::new(),
                subs,
                ping_seconds: config.heartbeat.interval.as_secs().max(1) as u32,
                pong: is_two_way,
            }));
            entry.session.answer(id, &reply, config);
            channels
        })
        .into_iter()
        .flatten()
        .for_each(|channel| self.go_live(key, &channel));
        Ok(None)
    }

    async fn subscribe_client(&self, key: Key, id: u32, ask: Subscribe) -> Outcome {
        let Some(identity) = self.with(key, |entry| entry.session.identity.clone()) else { return Ok(None) };
        let grant = self.node.authorize_subscribe(&identity, &ask.channel, &ask.token)?;
        let Some(result) = self.subscribe(key, &ask, grant, false).await? else { return Ok(None) };
        if self.with(key, |entry| entry.session.is_subscribed(&ask.channel)) == Some(false) {
            // The backend ended it while it began; the client may try again.
            return Err(ErrorCode::Internal.into());
        }
        let reply = Reply::Subscribe(Box::new(result));
        self.with(key, |entry| entry.session.answer(id, &reply, &self.node.config));
        self.go_live(key, &ask.channel);
        Ok(None)
    }

    /// Begins a subscription; the caller writes what it returns and then calls [`go_live`](Self::go_live).
    /// `None` if the session is gone.
    pub(super) async fn subscribe(
        &self,
        key: Key,
        ask: &Subscribe,
        grant: Grant,
        is_server_side: bool,
    ) -> Result<Option<SubscribeResult>, Denied> {
        // What this side ended a moment ago must be out of hub and presence before it is entered again.
        self.settle(key);
        let traits = Traits::of(&grant, ask, is_server_side);
        let Some((channel, is_first)) = self.join(key, &ask.channel, traits.clone(), grant.chan_info.clone())
        else {
            return Ok(None);
        };
        let begun = self.begin(key, &channel, ask, &grant, &traits, is_first).await;
        if begun.is_err() {
            self.unsubscribe(key, &channel);
        }
        begun
    }

    /// Puts a joining subscription into session and hub.
    fn join(&self, key: Key, channel: &str, traits: Traits, chan_info: Bytes) -> Option<(Arc<str>, bool)> {
        let state = &mut *self.state.borrow_mut();
        let entry = super::entry(&mut state.sessions, key)?;
        if entry.session.closing().is_some() || entry.session.is_subscribed(channel) {
            return None;
        }
        let joined = state.hub.join(channel, key.index);
        let subscription = Subscription::joining(joined.channel.clone(), joined.hub_id, traits, chan_info);
        if entry.session.subscriptions.is_empty() {
            // Most clients have one subscription: no room for four.
            entry.session.subscriptions.reserve_exact(1);
        }
        entry.session.subscriptions.push(subscription);
        self.counters.subscriptions.add(1);
        Some((joined.channel, joined.is_first))
    }

    async fn begin(
        &self,
        key: Key,
        channel: &Arc<str>,
        ask: &Subscribe,
        grant: &Grant,
        traits: &Traits,
        is_first: bool,
    ) -> Result<Option<SubscribeResult>, Denied> {
        if is_first {
            self.node.set_interest(channel, self.index, true).await?;
        }
        let max = self.node.config.client.max_recovery_publications;
        let mut result = SubscribeResult {
            ttl_seconds: self.ttl_seconds(grant.expires_at),
            recoverable: traits.is_recoverable,
            positioned: traits.is_positioned,
            was_recovering: ask.recover.is_some(),
            data: grant.data.clone(),
            ..SubscribeResult::default()
        };
        let mut seen = None;
        if traits.is_positioned {
            let since = ask.recover.filter(|_| traits.is_recoverable);
            let page = self.node.catch_up(channel, recovery::needed(since, max)).await?;
            let start = recovery::start(since, page, max, self.node.config.client.max_outbox_bytes / 2);
            seen = Some(start.seen);
            result.position = Some(start.told);
            result.recovered = start.recovered;
            result.publications = start.publications;
        }
        if ask.recover.is_some() {
            let outcome = match result.recovered {
                true => &self.counters.recoveries_complete,
                false => &self.counters.recoveries_incomplete,
            };
            outcome.add(1);
        }
        if ask.reject_unrecovered && ask.recover.is_some() && !result.recovered {
            return Err(ErrorCode::UnrecoverablePosition.into());
        }
        let expires = self.instant_of(grant.expires_at);
        let Some(info) = self.with(key, |entry| {
            let subscription = entry.session.subscription(channel)?;
            subscription.seen = seen;
            subscription.has_entered = true;
            subscription.set_expires(expires);
            Some(entry.session.identity.info_in_channel(grant.chan_info.clone()))
        }) else {
            return Ok(None);
        };
        let Some(info) = info else { return Ok(None) };
        if traits.presence || traits.join_leave {
            self.node.enter(channel, info, grant).await;
        }
        Ok(Some(result))
    }

    /// Takes a subscription live once its reply is written; on a stream, with the last of them.
    pub(super) fn go_live(&self, key: Key, channel: &str) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = super::entry(&mut state.sessions, key) {
            entry.session.go_live(channel, &mut state.compressor, &self.node.config);
        }
    }

    /// Ends a subscription that the client gave up; never an error (centrifuge protocol, section 0.19).
    fn unsubscribe(&self, key: Key, channel: &str) -> Option<Reply> {
        self.with(key, |entry| entry.session.forget(channel));
        self.settle(key);
        Some(Reply::Unsubscribe)
    }

    async fn publish(&self, key: Key, channel: &str, data: Bytes) -> Outcome {
        let Some((user, is_subscriber, info)) = self.with(key, |entry| {
            let session = &entry.session;
            (session.identity.user.clone(), session.is_subscribed(channel), session.info_in(channel))
        }) else {
            return Ok(None);
        };
        self.node.authorize_publish(&user, channel, is_subscriber)?;
        // A slice would keep the whole message that it came in, up to 500 times its size, in history.
        let data = Bytes::copy_from_slice(&data);
        let new = NewPublication { data, info: Some(info), ..NewPublication::default() };
        self.node.publish(channel, new).await?;
        Ok(Some(Reply::Publish))
    }

    /// The user of a session, and whether it is subscribed to a channel.
    fn standing(&self, key: Key, channel: &str) -> Option<(Arc<str>, bool)> {
        self.with(key, |entry| (entry.session.identity.user.clone(), entry.session.is_subscribed(channel)))
    }

    fn presence(&self, key: Key, channel: &str) -> Outcome {
        let Some((user, is_subscriber)) = self.standing(key, channel) else { return Ok(None) };
        self.node.authorize_presence(&user, channel, is_subscriber)?;
        Ok(Some(Reply::Presence(self.node.presence(channel)?)))
    }

    fn presence_stats(&self, key: Key, channel: &str) -> Outcome {
        let Some((user, is_subscriber)) = self.standing(key, channel) else { return Ok(None) };
        self.node.authorize_presence(&user, channel, is_subscriber)?;
        let (num_clients, num_users) = self.node.presence_stats(channel)?;
        Ok(Some(Reply::PresenceStats { num_clients, num_users }))
    }

    async fn history(&self, key: Key, request: HistoryRequest) -> Outcome {
        let Some((user, is_subscriber)) = self.standing(key, &request.channel) else { return Ok(None) };
        self.node.authorize_history(&user, &request.channel, is_subscriber)?;
        let max = self.node.config.client.max_history_publications;
        let limit = usize::try_from(request.limit).unwrap_or(max).min(max);
        let part = crate::history::Part { since: request.since, limit, reverse: request.reverse };
        let page = self.node.history(&request.channel, part).await?;
        let mut publications = page.publications;
        // One answer must not alone make the client a slow reader; it asks for the rest with `since`.
        let mut room = self.node.config.client.max_outbox_bytes / 2;
        let fitting = publications.iter().take_while(|publication| {
            let fits = publication.data.len() <= room;
            room = room.saturating_sub(publication.data.len());
            fits
        });
        publications.truncate(fitting.count().max(1));
        Ok(Some(Reply::History { publications, top: page.top }))
    }

    fn refresh(&self, key: Key, token: &str) -> Outcome {
        let Some(identity) = self.with(key, |entry| entry.session.identity.clone()) else { return Ok(None) };
        let expires_at = self.node.refresh(&identity, token)?;
        let expires = self.instant_of(expires_at);
        self.with(key, |entry| entry.session.set_expires(expires));
        let ttl_seconds = self.ttl_seconds(expires_at);
        Ok(Some(Reply::Refresh { client: identity.client, version: VERSION, ttl_seconds }))
    }

    fn refresh_subscription(&self, key: Key, channel: &str, token: &str) -> Outcome {
        let Some(identity) = self.with(key, |entry| entry.session.identity.clone()) else { return Ok(None) };
        let is_ours = |entry: &mut super::Entry| {
            entry.session.subscription(channel).map(|subscription| subscription.traits.is_server_side)
        };
        match self.with(key, is_ours).flatten() {
            Some(false) => {}
            Some(true) => {
                return Err(Denied::Close(
                    CloseReason::BadRequest,
                    "sub_refresh of a server-side subscription",
                ));
            }
            None => return Err(ErrorCode::PermissionDenied.into()),
        }
        let expires_at = self.node.refresh_subscription(&identity, channel, token)?;
        let expires = self.instant_of(expires_at);
        self.with(key, |entry| entry.session.subscription(channel).map(|s| s.set_expires(expires)));
        Ok(Some(Reply::SubRefresh { ttl_seconds: self.ttl_seconds(expires_at) }))
    }

    /// Seconds from this moment to a time in seconds since 1970; at most a year, at least one second.
    fn ttl_seconds(&self, expires_at: Option<i64>) -> Option<u32> {
        const YEAR: i64 = 365 * 24 * 3600;
        expires_at.map(|at| at.saturating_sub(self.node.env.clock.unix_seconds()).clamp(1, YEAR) as u32)
    }

    /// The monotonic time of a time in seconds since 1970.
    pub(super) fn instant_of(&self, expires_at: Option<i64>) -> Option<Instant> {
        let ttl = self.ttl_seconds(expires_at)?;
        Some(self.node.env.clock.now() + Duration::from_secs(ttl.into()))
    }
}
