//! Carries out the requests of a session: asks the node, answers the session.
//!
//! Each function borrows the shard's state only between awaits. A session that closed meanwhile is simply
//! not there any more: what was done for it is undone where it was done. The order in which a subscription
//! begins is the heart of recovery: permission, hub, the broker's interest, history, presence, the reply,
//! and only then live.

use super::hub::Joined;
use super::{Key, Shard, orders};
use crate::auth::{ConnectionToken, ServerSubscription};
use crate::backend::calls::Content;
use crate::broker::Movement;
use crate::config::{Config, DELTA_TYPE};
use crate::node::session_name::SessionPlace;
use crate::node::{Arrival, Control, Denied, Grant, Identity, NewPublication};
use crate::session::expiry::Expiry;
use crate::session::subscription::{Subscription, Traits};
use crate::session::{Session, Terms, away, recovery};
use bytes::Bytes;
use longwire_protocol::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use longwire_protocol::connection::Dialect;
use longwire_protocol::filter::Filter;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::http::is_header_value;
use longwire_protocol::message::{ConnectResult, Push, Reply, SubscribeResult};
use longwire_protocol::queue::QueueCommand;
use longwire_protocol::{CloseReason, Epoch, ErrorCode, Since};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// The version that clients are told.
const VERSION: &str = concat!("longwire ", env!("CARGO_PKG_VERSION"));

/// Carries out one request and answers it.
pub(super) async fn carry_out(shard: Rc<Shard>, key: Key, request: Numbered) {
    let Numbered { id, command } = request;
    shard.counters.commands.add(1);
    if shard.is_too_fast(key) {
        let what = "the user's connections together sent more than client.commands_per_second_per_user";
        shard.with(key, |entry| entry.session.close(CloseReason::TooManyRequests.into(), what));
        return;
    }
    let outcome = match command {
        Command::Connect(connect) => shard.connect(key, id, *connect).await,
        Command::Subscribe(ask) => shard.subscribe_client(key, id, *ask).await,
        Command::Unsubscribe { channel } => Ok(shard.unsubscribe(key, &channel)),
        Command::Publish { channel, data, tags, .. } => shard.publish(key, &channel, data, tags).await,
        Command::Queue(QueueCommand::Consume(consume)) => shard.consume_channel(key, id, consume).await,
        Command::Presence { channel } => shard.presence(key, &channel),
        Command::PresenceStats { channel } => shard.presence_stats(key, &channel),
        Command::History(request) => shard.history(key, request).await,
        Command::Refresh { token } => shard.refresh(key, &token).await,
        Command::SubRefresh { channel, token, .. } => shard.refresh_subscription(key, &channel, &token).await,
        Command::Rpc { method, data } => shard.rpc(key, &method, &data).await,
        // The session answers these itself, or has nobody to give them to.
        Command::Message { .. }
        | Command::Queue(_)
        | Command::Disconnect
        | Command::Send { .. }
        | Command::Ping
        | Command::Pong => return,
    };
    shard.answer(key, id, outcome);
}

/// The reply to write, `None` if it was written already, or why not.
pub(super) type Outcome = Result<Option<Reply>, Denied>;

/// A subscription that is in session and hub, and is to be given what it missed.
struct Beginning<'a> {
    channel: Arc<str>,
    serial: u32,
    ask: &'a Subscribe,
    grant: Grant,
    traits: Traits,
    filter: Option<Filter>,
}

/// How far a subscription came.
pub(super) enum Begun {
    /// It is joining: the reply may be written. With the subscription's serial number.
    Joined(u32, Box<SubscribeResult>),
    /// The session has the channel already.
    Already,
    /// The backend, or the server, ended it meanwhile.
    Ended,
    /// The session is gone.
    Gone,
}

impl Shard {
    /// Counts a command of the session's user, if users' commands are counted; true if it is one too many.
    pub(super) fn is_too_fast(&self, key: Key) -> bool {
        let Some(rates) = &self.node.rates.commands else { return false };
        let user = self.with(key, |entry| entry.session.identity.user.clone()).unwrap_or_default();
        !user.is_empty() && rates.allow(self.node.running_for(), &user).is_err()
    }

    /// Answers the command `id`.
    pub(super) fn answer(self: &Rc<Shard>, key: Key, id: u32, outcome: Outcome) {
        let config = &self.node.config;
        self.with(key, |entry| match outcome {
            Ok(Some(reply)) => entry.session.answer(id, &reply, config),
            Ok(None) => {}
            Err(denied) => entry.session.deny(id, denied, config),
        });
        // What the backend ordered before the client was told of its connection.
        for order in self.with(key, |entry| entry.session.take_ordered()).unwrap_or_default() {
            self.run_apart(orders::order_subscribe(self.clone(), key, order));
        }
    }

    async fn connect(self: &Rc<Shard>, key: Key, id: u32, mut connect: Connect) -> Outcome {
        let emulated: Box<[_]> = handed_on(&connect.headers, &self.node.config);
        let Some((asker, is_stomp, whence)) = self.with(key, |entry| {
            entry.session.carry(|baggage| baggage.emulated_headers = emulated);
            let is_stomp = entry.session.connection().dialect() == Dialect::Stomp;
            (entry.session.asker(), is_stomp, entry.whence())
        }) else {
            return Ok(None);
        };
        let identified = match is_stomp {
            true => self.node.log_in(&asker, &mut connect, whence).await,
            false => self.node.identify(&asker, &connect).await,
        };
        match identified {
            Ok(arrival) => self.arrive(key, id, connect, arrival).await,
            Err(denied) => {
                let now = self.node.env.clock.now();
                self.with(key, |entry| entry.session.refuse_connect(now));
                Err(denied)
            }
        }
    }

    /// Lets a client in of whom it is known who it is: into a session of its own, or into the one that it has.
    pub(super) async fn arrive(
        self: &Rc<Shard>,
        key: Key,
        id: u32,
        connect: Connect,
        arrival: Arrival,
    ) -> Outcome {
        let config = &self.node.config;
        if self.with(key, |entry| entry.session.closing().is_none()) != Some(true) {
            return Ok(None);
        }
        // Its link may have been on its way when it was revoked.
        if !connect.token.is_empty() {
            self.node.require_valid(&arrival.token)?;
        }
        let had = SessionPlace::of_name(&connect.session);
        if let Some(had) = had.filter(|had| !connect.client_name.is_empty() && self.node.has_shard(had.shard))
        {
            // Whether it had, that shard says; if it did not, the link comes back here without that name.
            self.hand_over(key, had, (id, connect), arrival).await;
            return Ok(None);
        }
        if !connect.client_name.is_empty() {
            let user = &arrival.token.user;
            match self.node.claims.claim(user, &connect.client_name, self.place_of(key)) {
                Ok(claim) => {
                    let is_kept = !config.plain.grace.is_zero();
                    self.with(key, |entry| entry.session.set_claim(claim, is_kept));
                }
                Err(holder) => {
                    self.hand_over(key, holder, (id, connect), arrival).await;
                    return Ok(None);
                }
            }
        }
        let Arrival { mut token, data, is_from_backend } = arrival;
        let Some(terms) = self.terms(key, &connect, &token, is_from_backend) else { return Ok(None) };
        let mut orders = match self.tell_open(key, &connect, &mut token).await {
            Ok(orders) => orders,
            Err(denied) => {
                let now = self.node.env.clock.now();
                self.with(key, |entry| entry.session.refuse_connect(now));
                return Err(denied);
            }
        };
        if self.with(key, |entry| entry.session.closing().is_none()) != Some(true) {
            self.carry_out(key, orders).await;
            return Ok(None);
        }
        self.claim_as(key, &token.user).await?;
        let Ok(user_place) = self.node.admissions.admit_user(&token.user) else {
            return Err(Denied::close(
                CloseReason::ConnectionLimit,
                "client.max_connections_per_user is reached",
            ));
        };
        let personal = self.add_personal(&token.user, &mut token.channels)?;
        let sdk = self.state.borrow_mut().sdks.keep(&connect.name, &connect.version);
        let ttl_seconds = terms.ttl_seconds;
        let is_there = self.with(key, |entry| {
            let session = &mut entry.session;
            session.establish(token.user, token.info, terms.expires, user_place);
            session.set_terms(terms);
            session.sdk = sdk;
            if config.hands_on_meta() {
                session.carry(|baggage| baggage.meta = token.meta);
            }
        });
        if is_there.is_none() {
            return Ok(None);
        }
        self.list_user(key);
        let (serials, mut subs) = self.begin_server_side(key, token.channels, &connect, true).await?;
        self.supersede(key, personal).await;
        self.with(key, |entry| {
            // One may have been ended while the others began.
            let mut is_there =
                serials.iter().map(|serial| entry.session.subscription_numbered(*serial).is_some());
            subs.retain(|_| is_there.next() == Some(true));
            let reply = Reply::Connect(Box::new(ConnectResult {
                ttl_seconds,
                data,
                subs,
                ..self.connect_result(key, &entry.session)
            }));
            entry.session.answer(id, &reply, config);
            self.report_connected(entry, connect.name, connect.version);
            // Right behind it.
            if let Some(Content { data, is_json }) = orders.data.take() {
                entry.session.push("", &Push::Message { data, is_json }, config);
            }
        });
        self.go_live(key, &serials);
        self.carry_out(key, orders).await;
        Ok(None)
    }

    /// What a connection is granted besides channels; `None` if it is gone.
    pub(super) fn terms(
        &self,
        key: Key,
        connect: &Connect,
        token: &ConnectionToken,
        is_from_backend: bool,
    ) -> Option<Terms> {
        let takes_commands = self.with(key, |entry| entry.session.connection().takes_commands())?;
        // A client without a way back cannot show another token.
        let is_left_to_backend = token.expires_at.is_some()
            && self.node.backend.refreshes()
            && (is_from_backend || !takes_commands);
        // Who is told would prolong it, and could not.
        let is_told = !(is_left_to_backend && takes_commands);
        let is_by_token = !connect.token.is_empty();
        Some(Terms {
            expires: self.instant_of(token.expires_at),
            ttl_seconds: self.ttl_seconds(token.expires_at).filter(|_| is_told),
            is_left_to_backend,
            // Of what the token itself brings: that is what another token is compared with.
            token_channels: token.channels_fingerprint(),
            proof: is_by_token.then(|| self.node.revocations.proof(token.jti.as_deref(), token.issued_at)),
        })
    }

    /// Adds a user's personal channel, if there is one, to those that a client is given.
    ///
    /// # Errors
    /// `ChannelLimit` if these are more than there may be.
    pub(super) fn add_personal(
        &self,
        user: &str,
        channels: &mut Vec<(String, ServerSubscription)>,
    ) -> Result<Option<String>, Denied> {
        let personal = self.node.personal_channel(user);
        if let Some(channel) = &personal
            && channels.iter().all(|(known, _)| known != channel)
        {
            channels.push((channel.clone(), ServerSubscription::default()));
        }
        if channels.len() > self.node.config.client.max_subscriptions {
            return Err(Denied::close(
                CloseReason::ChannelLimit,
                "the token, or the backend, brings more channels than client.max_subscriptions",
            ));
        }
        Ok(personal)
    }

    /// Begins the subscriptions that a client is given: their serial numbers and what the client is told. Into a session
    /// that `is_fresh` nobody returns without saying where it stood.
    pub(super) async fn begin_server_side(
        self: &Rc<Shard>,
        key: Key,
        channels: Vec<(String, ServerSubscription)>,
        connect: &Connect,
        is_fresh: bool,
    ) -> Result<(Vec<u32>, Vec<(String, SubscribeResult)>), Denied> {
        let (mut serials, mut subs) = (Vec::new(), Vec::new());
        for (channel, server_side) in channels {
            let grant = self.node.grant_server_side(&channel, &server_side)?;
            let known = connect.subs.iter().find(|sub| sub.channel == channel);
            // The server asks for itself: whatever the channel can give, so that the client can return. Of what the
            // client says only its position counts, so that nothing in it can make this fail.
            let mut ask = Subscribe {
                channel,
                recover: known.and_then(|known| known.recover),
                join_leave: known.is_some_and(|known| known.join_leave),
                recoverable: true,
                positioned: true,
                ..Subscribe::default()
            };
            // It was here before, and does not know where it stood in this channel.
            if is_fresh && connect.has_since && Traits::of(&grant, &ask, true).is_positioned {
                ask.recover.get_or_insert(Since { offset: 0, epoch: Some(Epoch::FOREIGN) });
            }
            let begun = self.subscribe(key, &ask, grant, true).await;
            let begun = begun.map_err(|denied| match denied {
                Denied::Close(close, detail) if close.reason == CloseReason::ChannelLimit => {
                    Denied::Close(close, detail)
                }
                _ => Denied::close(CloseReason::InternalError, "a server-side subscription failed"),
            });
            if let Begun::Joined(serial, result) = begun? {
                serials.push(serial);
                subs.push((ask.channel, *result));
            }
        }
        Ok((serials, subs))
    }

    /// Closes the other connections of a user who may have one: those in its personal channel.
    pub(super) async fn supersede(&self, key: Key, personal: Option<String>) {
        if let Some(channel) = personal.filter(|_| self.node.config.client.personal_channel_single_connection)
        {
            // It is in the channel, so whoever draws a higher rank finds it there; who was found is closing and
            // draws none. So of two at the same time one stays.
            let rank = self.with(key, |entry| {
                let rank = entry.session.closing().is_none().then(|| self.node.next_rank())?;
                entry.session.set_rank(rank);
                Some((entry.session.identity.user.clone(), rank))
            });
            if let Some((user, rank)) = rank.flatten() {
                self.node.order(Control::Supersede { channel: channel.into(), user, rank }).await;
            }
        }
    }

    /// What every client is told that connected.
    pub(super) fn connect_result(&self, key: Key, session: &Session) -> ConnectResult {
        let connection = session.connection();
        let (are_beats_told, pong) = connection.beat_terms();
        let is_named = connection.is_emulated() || connection.is_bare();
        let client = session.identity.client;
        let beat_seconds = self.node.config.heartbeat.interval.as_secs().max(1) as u32;
        ConnectResult {
            client,
            version: VERSION,
            ttl_seconds: None,
            data: Bytes::new(),
            subs: Vec::new(),
            ping_seconds: if are_beats_told { beat_seconds } else { 0 },
            pong,
            session: if is_named { self.name_of(key, session) } else { String::new() },
            node: if is_named { self.node.id.to_string() } else { String::new() },
            resumed: false,
            lost: false,
        }
    }

    async fn subscribe_client(self: &Rc<Shard>, key: Key, id: u32, ask: Subscribe) -> Outcome {
        let who = |entry: &mut super::Entry| (entry.session.identity.clone(), entry.session.asker());
        let Some((identity, asker)) = self.with(key, who) else { return Ok(None) };
        if self.tell_untold(key, id, &ask).await? {
            return Ok(None);
        }
        let grant = self.node.admit(&asker, &identity, &ask).await?;
        if self.is_stomp(key) {
            // One that the backend began says nothing to a client of STOMP: its own takes the place.
            self.with(key, |entry| entry.session.forget(&ask.channel));
        }
        match self.subscribe(key, &ask, grant, false).await? {
            Begun::Joined(serial, result) => {
                let reply = Reply::Subscribe(result);
                self.with(key, |entry| entry.session.answer(id, &reply, &self.node.config));
                self.go_live(key, &[serial]);
                Ok(None)
            }
            Begun::Already if self.tell_untold(key, id, &ask).await? => Ok(None),
            Begun::Already => Err(match self.with(key, |entry| entry.session.connection().dialect()) {
                // It did not ask twice: what the backend had begun, the backend ended again. It may try again.
                Some(Dialect::Plain) => ErrorCode::Internal.into(),
                _ => ErrorCode::AlreadySubscribed.into(),
            }),
            // The backend ended it while it began; the client may try again.
            Begun::Ended => Err(ErrorCode::Internal.into()),
            Begun::Gone => Ok(None),
        }
    }

    /// Answers a client of the plain dialect that asks for a channel of which it was not told yet, and which it has: the
    /// backend joined it while it was away, or a moment ago. False if it does not have it.
    async fn tell_untold(self: &Rc<Shard>, key: Key, id: u32, ask: &Subscribe) -> Result<bool, Denied> {
        let find = |entry: &mut super::Entry| {
            let session = &mut entry.session;
            // Once it was told of its channels, nothing that another answer brings of one would reach it.
            let is_there = session.connection().dialect() == Dialect::Plain
                && session.closing().is_none()
                && !session.is_told()
                && session.is_subscribed(&ask.channel);
            is_there.then(|| {
                let is_positioned =
                    session.subscription(&ask.channel).is_some_and(|it| it.traits.is_positioned);
                // Who was not there before gets what the subscription began with.
                session.untold(ask).map(|missing| (missing, is_positioned && ask.recover.is_some()))
            })
        };
        let found = std::future::poll_fn(|_| match self.with(key, find).flatten() {
            // Whatever becomes of it, its session is touched then, and so is the driver, which this is part of.
            Some(None) => Poll::Pending,
            Some(Some(found)) => Poll::Ready(Some(found)),
            None => Poll::Ready(None),
        });
        let Some((missing, needs_page)) = found.await else {
            // Who is gone needs no answer.
            let is_here =
                |entry: &mut super::Entry| entry.session.closing().is_none() && !entry.session.is_away();
            return Ok(self.with(key, is_here) != Some(true));
        };
        let (config, mut page) = (&self.node.config, None);
        if needs_page {
            let part = recovery::needed(missing.since, config.client.max_recovery_publications);
            page = Some(self.node.catch_up(&missing.channel, part).await?);
        }
        let told = self.with(key, |entry| {
            let session = &mut entry.session;
            if session.is_away() || session.closing().is_some() {
                return true;
            }
            let Some(result) = session.tell(&missing, page, ask, config) else { return false };
            if result.was_recovering {
                let outcome = match result.recovered {
                    true => &self.counters.recoveries_complete,
                    false => &self.counters.recoveries_incomplete,
                };
                outcome.add(1);
            }
            session.answer(id, &Reply::Subscribe(Box::new(result)), config);
            true
        });
        if told == Some(true) {
            self.go_live(key, &[missing.serial]);
        }
        Ok(told != Some(false))
    }

    /// Begins a subscription; the caller writes what it returns and then calls [`go_live`](Self::go_live), without
    /// waiting in between.
    pub(super) async fn subscribe(
        self: &Rc<Shard>,
        key: Key,
        ask: &Subscribe,
        grant: Grant,
        is_server_side: bool,
    ) -> Result<Begun, Denied> {
        // What this side ended a moment ago must be out of hub and presence before it is entered again.
        self.settle(key);
        let mut traits = Traits::of(&grant, ask, is_server_side);
        if self.with(key, |entry| entry.session.ends_with_its_answer()) == Some(true) {
            // Each answer is such a client's leave, and its next poll a join: told of each other's, pollers would be
            // answered at once for ever.
            traits.sees_movements = false;
        }
        if is_server_side && self.is_stomp(key) {
            // It brings nothing to a client of STOMP, so nothing of it can be missing.
            (traits.is_positioned, traits.is_recoverable) = (false, false);
        }
        let filter = match &ask.tags_filter {
            None => None,
            Some(_) if !grant.allow_tags_filter || !ask.delta.is_empty() => {
                return Err(ErrorCode::BadRequest.into());
            }
            Some(node) => Some(Filter::new(node).map_err(|_| ErrorCode::BadRequest)?),
        };
        if traits.is_positioned
            && self.with(key, |entry| entry.session.has_room_for_position(&ask.channel, &self.node.config))
                == Some(false)
        {
            let detail = format!(
                "channel \"{}\": the client could not name its position in so many channels, or with names so long",
                ask.channel
            );
            return Err(Denied::close(CloseReason::ChannelLimit, detail));
        }
        let (channel, serial) = match self.join(key, &ask.channel, traits.clone(), grant.chan_info.clone()) {
            Ok(joined) => joined,
            Err(begun) => return Ok(begun),
        };
        let beginning = Beginning { channel, serial, ask, grant, traits, filter };
        let begun = self.begin(key, beginning).await;
        if begun.is_err() {
            self.with(key, |entry| entry.session.forget_numbered(serial));
            self.settle(key);
        }
        begun
    }

    fn is_stomp(&self, key: Key) -> bool {
        self.with(key, |entry| entry.session.connection().dialect() == Dialect::Stomp) == Some(true)
    }

    /// Puts a joining subscription into session and hub: the channel's shared name and the subscription's serial
    /// number, or what became of it instead.
    fn join(
        &self,
        key: Key,
        channel: &str,
        traits: Traits,
        chan_info: Bytes,
    ) -> Result<(Arc<str>, u32), Begun> {
        let state = &mut *self.state.borrow_mut();
        let entry = super::entry(&mut state.sessions, key).ok_or(Begun::Gone)?;
        if entry.session.closing().is_some() {
            return Err(Begun::Gone);
        }
        if entry.session.is_subscribed(channel) {
            return Err(Begun::Already);
        }
        let Joined { channel, hub_id } = state.hub.join(channel, key.index);
        state.serial = state.serial.wrapping_add(1);
        let serial = state.serial;
        let subscription = Subscription::joining(channel.clone(), hub_id, serial, traits, chan_info);
        if entry.session.subscriptions.is_empty() {
            // Most clients have one subscription: no room for four.
            entry.session.subscriptions.reserve_exact(1);
        }
        entry.session.subscriptions.push(subscription);
        self.counters.subscriptions.add(1);
        Ok((channel, serial))
    }

    async fn begin(self: &Rc<Shard>, key: Key, beginning: Beginning<'_>) -> Result<Begun, Denied> {
        let Beginning { channel, serial, ask, grant, traits, filter } = beginning;
        let channel = &channel;
        self.want(channel).await?;
        let is_with_newest = traits.is_recoverable && grant.begins_with_newest;
        let max = self.node.config.client.max_recovery_publications;
        let mut result = SubscribeResult {
            ttl_seconds: self.ttl_seconds(grant.expires_at).filter(|_| !grant.is_renewed_by_backend),
            recoverable: traits.is_recoverable,
            positioned: traits.is_positioned,
            was_recovering: ask.recover.is_some() || is_with_newest,
            delta: grant.allow_delta && grant.has_history && ask.delta == DELTA_TYPE,
            data: grant.data.clone(),
            ..SubscribeResult::default()
        };
        let mut seen = None;
        if traits.is_positioned {
            let since = ask.recover.filter(|_| traits.is_recoverable);
            if flaw::is_on(Flaw::HubAfterHistory) {
                let hub = &mut self.state.borrow_mut().hub;
                hub.find(channel).map(|hub_id| hub.leave(hub_id, key.index));
            }
            let wants_newest = is_with_newest || since.is_some() && grant.recovers_newest;
            let part = if wants_newest { recovery::newest() } else { recovery::needed(since, max) };
            let page = self.node.catch_up(channel, part).await?;
            if flaw::is_on(Flaw::HubAfterHistory) {
                self.state.borrow_mut().hub.join(channel, key.index);
            }
            let room = self.with(key, |entry| entry.session.recovery_room(&self.node.config)).unwrap_or(0);
            let start = match wants_newest {
                true => recovery::start_with_newest(since, page, room),
                false => recovery::start(since, page, max, room),
            };
            seen = Some(start.seen);
            result.position = Some(start.told);
            result.recovered = start.recovered;
            result.publications = start.publications;
        }
        if let Some(filter) = &filter {
            result.publications.retain(|publication| filter.matches(&publication.tags));
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
        let entered = self.with(key, |entry| {
            let info = entry.session.identity.info_in_channel(grant.chan_info.clone());
            let Identity { user, client, .. } = &entry.session.identity;
            result.publications.retain(|publication| recovery::is_for(publication, user, *client));
            let subscription = entry.session.subscription_numbered(serial)?;
            subscription.seen = seen;
            if let Some(filter) = filter {
                subscription.set_filter(filter);
            }
            if result.delta {
                subscription.set_delta(result.publications.last().map(|publication| publication.offset));
            }
            subscription.note_recovered(recovery::wire_bytes(&result.publications));
            subscription.note_stand(away::before(&result));
            subscription.has_entered = true;
            subscription.recovered = ask.recover.map(|_| result.recovered);
            subscription.set_expires(expires);
            if grant.is_renewed_by_backend {
                subscription.leave_to_backend();
            }
            // With that, whoever ends it takes it out of presence again.
            if traits.presence {
                self.node.enter(channel, info.clone());
            }
            Some(info)
        });
        let info = match entered {
            Some(Some(info)) => info,
            Some(None) => return Ok(Begun::Ended),
            None => return Ok(Begun::Gone),
        };
        if traits.join_leave {
            // Nobody waits for it; a leave that follows does.
            let (shard, channel) = (self.clone(), channel.clone());
            self.run_apart(async move { shard.announce(&channel, Movement::Join(info)).await });
        }
        Ok(Begun::Joined(serial, Box::new(result)))
    }

    /// Takes subscriptions live whose reply was given to the connection; on a stream, with the last of them.
    pub(super) fn go_live(&self, key: Key, serials: &[u32]) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = super::entry(&mut state.sessions, key) {
            self.report_subscribed(entry, serials);
            self.make_room(self.node.env.clock.now(), entry);
            entry.session.go_live(serials, &mut state.compressor, &self.node.config);
        }
    }

    /// Ends a subscription that the client gave up; never an error (centrifuge protocol, section 0.19).
    fn unsubscribe(self: &Rc<Shard>, key: Key, channel: &str) -> Option<Reply> {
        self.with(key, |entry| entry.session.forget(channel));
        self.settle(key);
        Some(Reply::Unsubscribe)
    }

    async fn publish(&self, key: Key, channel: &str, data: Bytes, tags: Vec<(String, String)>) -> Outcome {
        let Some((asker, is_subscriber, info, is_known_json, is_bytes)) = self.with(key, |entry| {
            let session = &entry.session;
            let is_json = session.connection().encoding().needs_json();
            let is_stomp = session.connection().dialect() == Dialect::Stomp;
            (session.asker(), session.is_subscribed(channel), session.info_in(channel), is_json, is_stomp)
        }) else {
            return Ok(None);
        };
        if let Some(rates) = self.node.rates.publishes.as_ref().filter(|_| !asker.user.is_empty()) {
            rates.allow(self.node.running_for(), &asker.user).map_err(|_| ErrorCode::TooManyRequests)?;
        }
        // A slice would keep the whole message that it came in, up to 500 times its size, in history.
        let data = Bytes::copy_from_slice(&data);
        if is_bytes {
            self.node.check_publication(channel, &data, &tags)?;
        }
        let info = Some(info);
        let new = NewPublication { data, is_known_json, is_bytes, info, tags, ..NewPublication::default() };
        let new = self.node.admit_publication(&asker, channel, is_subscriber, new).await?;
        self.node.publish(channel, new).await?;
        Ok(Some(Reply::Publish))
    }

    async fn rpc(&self, key: Key, method: &str, data: &Bytes) -> Outcome {
        let Some(asker) = self.with(key, |entry| entry.session.asker()) else { return Ok(None) };
        let data = self.node.backend.rpc(&asker, method, data).await?;
        Ok(Some(Reply::Rpc { data }))
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
        let standing = |entry: &mut super::Entry| {
            (entry.session.identity.clone(), entry.session.is_subscribed(&request.channel))
        };
        let Some((identity, is_subscriber)) = self.with(key, standing) else { return Ok(None) };
        self.node.authorize_history(&identity.user, &request.channel, is_subscriber)?;
        let max = self.node.config.client.max_history_publications;
        let limit = usize::try_from(request.limit).unwrap_or(max).min(max);
        let part = crate::history::Part { since: request.since, limit, reverse: request.reverse };
        let page = self.node.history(&request.channel, part).await?;
        let mut publications = page.publications;
        publications.retain(|publication| recovery::is_for(publication, &identity.user, identity.client));
        // One answer must not alone make the client a slow reader; it asks for the rest with `since`.
        let mut room = self.node.config.client.max_outbox_bytes / 2;
        let fitting = publications.iter().take_while(|publication| {
            let bytes = recovery::wire_bytes(std::slice::from_ref(publication));
            let fits = bytes <= room;
            room = room.saturating_sub(bytes);
            fits
        });
        publications.truncate(fitting.count().max(1));
        Ok(Some(Reply::History { publications, top: page.top }))
    }

    async fn refresh(&self, key: Key, token: &str) -> Outcome {
        let who = |entry: &mut super::Entry| {
            let session = &entry.session;
            (session.identity.clone(), session.token_channels(), session.is_left_to_backend())
        };
        let Some((identity, channels, is_left_to_backend)) = self.with(key, who) else { return Ok(None) };
        if is_left_to_backend {
            return Err(Denied::close(
                CloseReason::BadRequest,
                "refresh of a connection that the backend prolongs",
            ));
        }
        let token = self.node.refresh(&identity, channels, token).await?;
        let expires_at = token.expires_at;
        let expires = self.instant_of(expires_at);
        let proof = self.node.revocations.proof(token.jti.as_deref(), token.issued_at);
        self.with(key, |entry| {
            entry.session.set_expires(expires);
            entry.session.set_proof(proof);
        });
        let ttl_seconds = self.ttl_seconds(expires_at);
        Ok(Some(Reply::Refresh { client: identity.client, version: VERSION, ttl_seconds }))
    }

    async fn refresh_subscription(&self, key: Key, channel: &str, token: &str) -> Outcome {
        let Some(identity) = self.with(key, |entry| entry.session.identity.clone()) else { return Ok(None) };
        let is_ours = |entry: &mut super::Entry| {
            let subscription = entry.session.subscription(channel)?;
            let is_left_to_backend = subscription.expiry().is_some_and(Expiry::is_left_to_backend);
            Some(subscription.traits.is_server_side || is_left_to_backend)
        };
        match self.with(key, is_ours).flatten() {
            Some(false) => {}
            Some(true) => {
                return Err(Denied::close(
                    CloseReason::BadRequest,
                    "sub_refresh of a subscription that the server or the backend prolongs",
                ));
            }
            None => return Err(ErrorCode::PermissionDenied.into()),
        }
        let expires_at = self.node.refresh_subscription(&identity, channel, token).await?;
        let expires = self.instant_of(expires_at);
        self.with(key, |entry| entry.session.subscription(channel).map(|s| s.set_expires(expires)));
        Ok(Some(Reply::SubRefresh { ttl_seconds: self.ttl_seconds(expires_at) }))
    }

    /// Seconds from this moment to a time in seconds since 1970; at most a year, at least one second.
    pub(super) fn ttl_seconds(&self, expires_at: Option<i64>) -> Option<u32> {
        const YEAR: i64 = 365 * 24 * 3600;
        expires_at.map(|at| at.saturating_sub(self.node.env.clock.unix_seconds()).clamp(1, YEAR) as u32)
    }

    /// The monotonic time of a time in seconds since 1970.
    pub(super) fn instant_of(&self, expires_at: Option<i64>) -> Option<Instant> {
        let ttl = self.ttl_seconds(expires_at)?;
        Some(self.node.env.clock.now() + Duration::from_secs(ttl.into()))
    }
}

/// The headers of a connect command that some webhook is to get; their names in lower case.
fn handed_on(headers: &[(String, String)], config: &Config) -> Box<[(String, String)]> {
    headers
        .iter()
        // What is no header's value would make the whole request fail.
        .filter(|(name, value)| config.hands_on_emulated_header(name) && is_header_value(value.as_bytes()))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()))
        .collect()
}
