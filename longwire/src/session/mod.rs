//! The server's state for one client, as a plain struct: bytes, time and answers go in, bytes for the outbox
//! and requests come out.
//!
//! A session decides what a command means in its present state, what a delivery does to a subscription, and
//! when to beat, to expire and to close. It never awaits, asks no clock and no node: what needs one is a
//! request ([`Session::poll_request`]) that the driver carries out and answers. Commands are taken one by
//! one; while one is in progress, what follows waits undecoded. What must stay true: after
//! [`closing`](Session::closing) is set nothing more is taken, delivered or written but the last words.

mod credentials;
pub mod expiry;
pub mod outbox;
pub mod recovery;
pub mod subscription;

use crate::config::Config;
use crate::delivery::{DataForm, Delivery, Shape, What};
use crate::node::control::{Relayed, ServerSubscribe};
use crate::node::limits::UserPlace;
use crate::node::rate::Rate;
use crate::node::sdk::Sdk;
use crate::node::survey::Sent;
use crate::node::{Denied, Identity};
use bytes::Bytes;
use credentials::Credentials;
pub use credentials::Ripe;
use longwire_protocol::command::{Command, Numbered};
use longwire_protocol::connection::{Fault, Inbound};
use longwire_protocol::encoding::Encoding;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::heartbeat::Due;
use longwire_protocol::message::{ClientId, ClientInfo, Push, Reply, SubscribeResult, unsubscribe};
use longwire_protocol::websocket::Compressor;
use longwire_protocol::{Close, CloseReason, Connection, ErrorCode, Position, Publication};
use outbox::Outbox;
use std::sync::Arc;
use std::time::Instant;
use subscription::{Subscription, Verdict};

/// The state of one client.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    /// What is about to be written.
    pub outbox: Outbox,
    /// Who the client is; anonymous until connected.
    pub identity: Identity,
    /// The channels the client is interested in.
    pub subscriptions: Vec<Subscription>,
    state: State,
    /// When the connection was opened.
    pub opened: Instant,
    /// What only a client that shows a token, or of which a backend is to know more, has.
    credentials: Option<Box<Credentials>>,
    /// What the client says that it is, if it does.
    pub sdk: Option<Arc<Sdk>>,
    rate: Rate,
    is_busy: bool,
    /// What a session only has for moments: a million idle ones keep no room for it.
    passing: Option<Box<Passing>>,
    closing: Option<Box<Closing>>,
}

#[derive(Debug, Default)]
struct Passing {
    /// A request that the driver did not take yet.
    request: Option<Numbered>,
    /// Inbound bytes that wait because a command is in progress.
    held: Vec<u8>,
    /// Subscriptions that ended and nobody took out of the hub yet.
    ended: Vec<Ended>,
    /// What the backend is to be asked about.
    ripe: Vec<Ripe>,
    /// When the connect command was refused, if it was.
    refused: Option<Instant>,
    /// What the backend ordered before the client was told of its connection.
    ordered: Vec<Arc<ServerSubscribe>>,
    /// Pushes, each with its channel, that wait for the head of a stream: at most as much as may wait in the
    /// outbox.
    early: Vec<(String, Bytes)>,
}

/// A subscription that ended, and why.
#[derive(Debug)]
pub struct Ended {
    /// What is left of it.
    pub subscription: Subscription,
    /// Code and words of the unsubscribe.
    pub why: (u32, &'static str),
}

impl Passing {
    fn is_empty(&self) -> bool {
        self.request.is_none()
            && self.held.is_empty()
            && self.ended.is_empty()
            && self.ripe.is_empty()
            && self.refused.is_none()
            && self.ordered.is_empty()
            && self.early.is_empty()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing but a connect command is allowed.
    AwaitingConnect,
    /// The connect command was refused: nothing is allowed.
    Refused,
    /// The connect command was granted; its reply is not written yet.
    Connecting,
    Connected,
}

/// Who ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initiator {
    /// The other end.
    Peer,
    /// This end.
    Server,
}

impl Initiator {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Initiator::Peer => "peer",
            Initiator::Server => "server",
        }
    }
}

/// How a connection ends.
#[derive(Clone, PartialEq, Debug)]
pub struct Closing {
    /// The reason and what the peer is told.
    pub close: Close,
    /// Who began it.
    pub initiator: Initiator,
    /// The broken rule or the error, for the log.
    pub detail: String,
    /// Bytes that were never written.
    pub unsent_bytes: usize,
    /// Say goodbye and wait for the peer; otherwise reset.
    pub is_polite: bool,
}

/// Why a session wants to be called at a certain time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// A beat is due, or the peer is dead.
    Heartbeat,
    /// No connect command came.
    Connect,
    /// A write waits too long.
    Write,
    /// The connection's or a subscription's token ran out.
    Expiry,
}

impl Session {
    /// A session for a connection that was opened at `now`.
    pub fn new(connection: Connection, client: ClientId, now: Instant) -> Session {
        Session {
            connection,
            outbox: Outbox::default(),
            identity: Identity { user: "".into(), client, info: Bytes::new() },
            subscriptions: Vec::new(),
            state: State::AwaitingConnect,
            opened: now,
            credentials: None,
            sdk: None,
            rate: Rate::default(),
            is_busy: false,
            passing: None,
            closing: None,
        }
    }

    /// The link of this session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How the connection ends, once it does.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_deref()
    }

    /// Whether more should be read: not while too much waits behind a command.
    pub fn wants_bytes(&self, config: &Config) -> bool {
        self.held_bytes() < config.websocket.max_message_bytes
    }

    /// Takes a message that the peer sent by another way than the link: with the request that is answered, or by
    /// one of its own.
    pub fn handle_message(&mut self, now: Instant, message: Bytes, config: &Config) -> Relayed {
        self.connection.heartbeat.seen(now);
        if self.closing.is_some() || !self.connection.is_emulated() {
            return Relayed::Unknown;
        }
        if self.connection.waiting_bytes() + message.len() > 2 * config.websocket.max_message_bytes {
            return Relayed::Full;
        }
        self.connection.deliver(message);
        self.take(now, &[], config);
        Relayed::Taken
    }

    /// Takes what the peer sent.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8], config: &Config) {
        if !flaw::is_on(Flaw::OnlyPongsCount) {
            self.connection.heartbeat.seen(now);
        }
        if self.closing.is_some() {
            return;
        }
        if self.is_busy || self.held_bytes() > 0 {
            self.passing.get_or_insert_default().held.extend_from_slice(bytes);
        } else {
            self.take(now, bytes, config);
        }
    }

    /// Notes that the peer ended the link, or that it broke.
    pub fn handle_end(&mut self, error: Option<std::io::Error>) {
        match error {
            None => self.begin_close(CloseReason::PeerClosed.into(), Initiator::Peer, String::new(), false),
            Some(error) => self.handle_broken_link(error),
        }
    }

    /// Notes that reading or writing failed.
    pub fn handle_broken_link(&mut self, error: std::io::Error) {
        if error.kind() == std::io::ErrorKind::TimedOut {
            // TCP_USER_TIMEOUT, which is set from the heartbeat's limit: either the peer takes nothing more,
            // or what was written is not even acknowledged because nobody is there.
            return match self.outbox.blocked_since() {
                Some(_) => self.abort(CloseReason::WriteStalled, "the peer takes nothing more"),
                None => self.abort(CloseReason::NoHeartbeat, "nothing that was sent is acknowledged"),
            };
        }
        self.begin_close(CloseReason::PeerReset.into(), Initiator::Peer, error.to_string(), false);
    }

    /// What the driver shall do, if anything; it answers with [`answer`](Self::answer) or
    /// [`deny`](Self::deny) and then calls [`resume`](Self::resume).
    pub fn poll_request(&mut self) -> Option<Numbered> {
        self.passing.as_mut()?.request.take()
    }

    /// Goes on with what waited behind a request.
    pub fn resume(&mut self, now: Instant, config: &Config) {
        self.is_busy = false;
        let held = self.passing.as_mut().map(|passing| std::mem::take(&mut passing.held)).unwrap_or_default();
        self.take(now, &held, config);
        self.passing.take_if(|passing| passing.is_empty());
    }

    fn held_bytes(&self) -> usize {
        self.passing.as_ref().map_or(0, |passing| passing.held.len())
    }

    /// Answers the command `id`.
    pub fn answer(&mut self, id: u32, reply: &Reply, config: &Config) {
        if self.closing.is_some() {
            return;
        }
        let is_carried = reply_publications(reply).all(|publication| self.carries(publication));
        if !is_carried {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_JSON);
        }
        if let Reply::Connect(_) = reply {
            self.state = State::Connected;
        }
        self.forget_early(reply);
        let answer = self.connection.reply(id, reply);
        self.write(answer.bytes, config);
        if let Some(reason) = answer.close {
            // The refusal itself was the farewell.
            let close = Box::new(Closing {
                close: reason.into(),
                initiator: Initiator::Server,
                detail: format!("the stream was refused: {}", answer.detail),
                unsent_bytes: 0,
                is_polite: true,
            });
            self.closing.get_or_insert(close);
        }
        if self.connection.is_open()
            && let Some(passing) = &mut self.passing
        {
            for (_, early) in std::mem::take(&mut passing.early) {
                self.write(early, config);
            }
        }
    }

    /// Forgets pushes about channels that this reply grants afresh: the head tells how they stand after it.
    fn forget_early(&mut self, reply: &Reply) {
        let Some(passing) = self.passing.as_mut().filter(|passing| !passing.early.is_empty()) else { return };
        let subscriptions = &self.subscriptions;
        passing.early.retain(|(channel, _)| match reply {
            Reply::Connect(result) => result.subs.iter().all(|(granted, _)| granted != channel),
            Reply::Subscribe(_) => {
                subscriptions.iter().all(|s| s.traits.is_server_side || *s.channel != **channel)
            }
            _ => true,
        });
    }

    /// Refuses the command `id`, or closes.
    pub fn deny(&mut self, id: u32, denied: Denied, config: &Config) {
        match denied {
            Denied::Error(error) => self.answer(id, &Reply::Error(error), config),
            Denied::Close(close, detail) => self.close(close, &detail),
        }
    }

    /// Notes that the connect command was granted; its reply follows.
    pub fn establish(
        &mut self,
        user: Arc<str>,
        info: Bytes,
        expires: Option<Instant>,
        place: Option<UserPlace>,
    ) {
        self.identity.user = user;
        self.identity.info = info;
        if expires.is_some() || place.is_some() {
            let credentials = self.credentials.get_or_insert_default();
            credentials.expiry.set(expires);
            credentials.place = place;
        }
        self.state = State::Connecting;
    }

    /// Notes that the connect command was refused by an error: the client shall go.
    pub fn refuse_connect(&mut self, now: Instant) {
        self.state = State::Refused;
        self.passing.get_or_insert_default().refused = Some(now);
    }

    /// Whether the connect command was granted.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connecting | State::Connected)
    }

    /// By when the client must have connected, or must have gone after a refusal; a command that is being carried
    /// out takes its own time.
    fn connect_deadline(&self, config: &Config) -> Option<Instant> {
        if self.is_connected() || self.is_busy {
            return None;
        }
        let refused = self.passing.as_ref().and_then(|passing| passing.refused);
        Some(refused.unwrap_or(self.opened) + config.client.connect_timeout)
    }

    /// The subscription of a channel.
    pub fn subscription(&mut self, channel: &str) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| *subscription.channel == *channel)
    }

    /// About how many bytes one more recovery may bring: half an outbox for all whose replies wait together, so that
    /// they do not alone make the client a slow reader.
    pub fn recovery_room(&self, config: &Config) -> usize {
        let recovered: usize = self.subscriptions.iter().map(Subscription::recovered_bytes).sum();
        (config.client.max_outbox_bytes / 2).saturating_sub(recovered)
    }

    /// The subscription with this serial number, unless it ended.
    pub fn subscription_numbered(&mut self, serial: u32) -> Option<&mut Subscription> {
        self.subscriptions.iter_mut().find(|subscription| subscription.serial == serial)
    }

    /// Whether the client is subscribed to a channel.
    pub fn is_subscribed(&self, channel: &str) -> bool {
        self.subscriptions.iter().any(|subscription| *subscription.channel == *channel)
    }

    /// Who the client is in a channel: with the channel's own information if it is subscribed.
    pub fn info_in(&self, channel: &str) -> Arc<ClientInfo> {
        let subscription = self.subscriptions.iter().find(|s| *s.channel == *channel);
        self.identity.info_in_channel(subscription.map(Subscription::chan_info).unwrap_or_default())
    }

    /// Takes a delivery for the subscription with this hub number.
    pub fn handle_delivery(
        &mut self,
        hub_id: u32,
        delivery: &Arc<Delivery>,
        compressor: &mut Option<Box<Compressor>>,
        config: &Config,
    ) {
        if self.closing.is_some() {
            return;
        }
        let Some(index) = self.subscriptions.iter().position(|s| s.hub_id == hub_id) else { return };
        if self.subscriptions[index].is_joining() {
            // What is published while subscriptions begin has a quarter of an outbox, beside what they recover. Who
            // comes and goes is told as long as half of that is left.
            let delivered: usize = self.subscriptions.iter().map(Subscription::delivered_bytes).sum();
            let quarter = config.client.max_outbox_bytes / 4;
            match &delivery.what {
                What::Publication(_) if delivered > quarter => {
                    let detail = "too much was published while a subscription began";
                    return self.close(CloseReason::InsufficientState.into(), detail);
                }
                What::Join(_) | What::Leave(_) if delivered > quarter / 2 => return,
                _ => {}
            }
        }
        match self.subscriptions[index].accept(delivery, &self.identity) {
            Verdict::Write(form) => self.write_delivery(delivery, form, compressor, config),
            Verdict::Skip => {}
            Verdict::Missing => self.missing(index, config),
        }
    }

    /// Whether the live subscription with this hub number has not come to a position of its channel.
    pub fn is_behind(&self, hub_id: u32, position: &Position) -> bool {
        let mut subscriptions = self.subscriptions.iter().filter(|s| s.hub_id == hub_id && !s.is_joining());
        subscriptions
            .any(|s| s.seen.is_some_and(|seen| seen.epoch != position.epoch || seen.offset < position.offset))
    }

    /// Notes that a publication of a channel will not come.
    pub fn handle_loss(&mut self, channel: &str, config: &Config) {
        if self.closing.is_none()
            && let Some(index) = self.subscriptions.iter().position(|s| *s.channel == *channel)
        {
            self.missing(index, config);
        }
    }

    /// Takes the subscriptions with these serial numbers live, after their reply was given to the connection; on a
    /// stream whose head waits for more replies, with the last of them.
    pub fn go_live(&mut self, serials: &[u32], compressor: &mut Option<Box<Compressor>>, config: &Config) {
        for subscription in self.subscriptions.iter_mut().filter(|s| serials.contains(&s.serial)) {
            subscription.set_answered();
        }
        if self.closing.is_some() || !self.connection.is_open() {
            return;
        }
        // All at once before any is written: from the first event on, a stream's ids name where each stands.
        let answered = self.subscriptions.iter_mut().filter(|s| s.is_answered());
        let waiting: Vec<_> = answered.map(|s| (s.serial, s.go_live())).collect();
        for (serial, delivery) in
            waiting.iter().flat_map(|(serial, all)| all.iter().map(move |one| (*serial, one)))
        {
            if self.closing.is_some() {
                return;
            }
            // One by one, so that each goes out with the position up to which it was written.
            let subscription = self.subscriptions.iter_mut().find(|s| s.serial == serial);
            match subscription.map(|subscription| subscription.accept(delivery, &self.identity)) {
                Some(Verdict::Write(form)) => self.write_delivery(delivery, form, compressor, config),
                Some(Verdict::Skip) | None => {}
                Some(Verdict::Missing) => {
                    self.close(CloseReason::InsufficientState.into(), "gap while subscribing");
                }
            }
        }
    }

    fn write_delivery(
        &mut self,
        delivery: &Arc<Delivery>,
        data: DataForm,
        compressor: &mut Option<Box<Compressor>>,
        config: &Config,
    ) {
        if let What::Publication(publication) = &delivery.what
            && !self.carries(publication)
        {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_JSON);
        }
        let mut encoding = self.connection.encoding();
        if encoding.is_deflated() && !is_worth_compressing(delivery, config) {
            encoding = encoding.inflated();
        }
        if encoding == Encoding::EventStreamWithoutId {
            // Of one that begins by order of the backend the client does not know yet.
            let told = self.subscriptions.iter().filter(|s| !s.is_joining());
            let positions = told.filter_map(|s| Some((&*s.channel, s.seen?)));
            if let Some(prefix) = self.connection.prefix(positions) {
                self.write(prefix, config);
            }
        }
        let bytes = delivery.encoded(Shape { encoding, data }, compressor).clone();
        self.write(bytes, config);
    }

    /// Whether the connection's encoding can express a publication's data.
    fn carries(&self, publication: &Publication) -> bool {
        publication.is_json || !self.connection.encoding().needs_json()
    }

    /// Whether the live subscription with this hub number was given a publication with this position, or of a
    /// channel without.
    pub fn has_taken(&self, hub_id: u32, sent: &Sent) -> bool {
        let Sent { position, except, tags, .. } = sent;
        let is_past = |seen: Option<Position>| match (seen, *position) {
            (Some(seen), Some(position)) => seen.epoch == position.epoch && seen.offset >= position.offset,
            // Nobody watches; what is delivered is given.
            _ => true,
        };
        self.closing.is_none()
            && !except.covers(&self.identity.user, self.identity.client)
            && self
                .subscriptions
                .iter()
                .any(|s| s.hub_id == hub_id && !s.is_joining() && is_past(s.seen) && s.wants(tags))
    }

    /// A publication is missing: the client subscribes again, or comes again, and recovers.
    fn missing(&mut self, index: usize, config: &Config) {
        let subscription = &self.subscriptions[index];
        if subscription.traits.is_server_side
            || subscription.is_joining()
            || !self.connection.takes_commands()
        {
            let detail = format!("publication missing in \"{}\"", subscription.channel);
            self.close(CloseReason::InsufficientState.into(), &detail);
            return;
        }
        let channel = subscription.channel.clone();
        self.unsubscribe(&channel, unsubscribe::INSUFFICIENT_STATE, config);
    }

    /// Ends a subscription from this side; [`poll_ended`](Self::poll_ended) gives out what is left of it.
    pub fn unsubscribe(&mut self, channel: &str, why: (u32, &'static str), config: &Config) {
        if let Some(passing) = &mut self.passing {
            // What was ordered before and waits is ordered no longer.
            passing.ordered.retain(|order| order.channel != channel);
        }
        let Some(subscription) = self.subscription(channel) else { return };
        // Of one that the server began and did not tell of yet, the client need not hear at all.
        let is_secret =
            subscription.traits.is_server_side && subscription.is_joining() && !subscription.is_answered();
        self.forget_where(|subscription| *subscription.channel == *channel, why);
        if !is_secret {
            let (code, reason) = why;
            self.push(channel, &Push::Unsubscribe { code, reason }, config);
        }
    }

    /// Ends a subscription that the client gave up: as [`unsubscribe`](Self::unsubscribe), without a push.
    pub fn forget(&mut self, channel: &str) {
        self.forget_where(|subscription| *subscription.channel == *channel, unsubscribe::CLIENT);
    }

    /// Ends the subscription with this serial number, which failed to begin.
    pub fn forget_numbered(&mut self, serial: u32) {
        self.forget_where(|subscription| subscription.serial == serial, unsubscribe::SERVER);
    }

    fn forget_where(&mut self, is_meant: impl Fn(&Subscription) -> bool, why: (u32, &'static str)) {
        if let Some(index) = self.subscriptions.iter().position(is_meant) {
            let subscription = self.subscriptions.swap_remove(index);
            self.passing.get_or_insert_default().ended.push(Ended { subscription, why });
        }
    }

    /// Whether [`poll_ended`](Self::poll_ended) has something to give out.
    pub fn has_ended_subscriptions(&self) -> bool {
        self.passing.as_ref().is_some_and(|passing| !passing.ended.is_empty())
    }

    /// A subscription that was ended and must be taken out of the hub and presence.
    pub fn poll_ended(&mut self) -> Option<Ended> {
        self.passing.as_mut()?.ended.pop()
    }

    /// Keeps a subscription that the backend orders for later, if the client was not told of its connection yet:
    /// it would not know what to make of it. True if it is kept; more than a connection may have close it.
    pub fn keep_for_later(&mut self, order: &Arc<ServerSubscribe>, config: &Config) -> bool {
        let is_early = !self.is_told();
        if is_early && self.closing.is_none() {
            let ordered = &mut self.passing.get_or_insert_default().ordered;
            if ordered.len() < config.client.max_subscriptions {
                ordered.push(order.clone());
            } else {
                self.close(CloseReason::ChannelLimit.into(), "ordered before the client was connected");
            }
        }
        is_early
    }

    /// Gives out what was kept for later, once the time has come.
    pub fn take_ordered(&mut self) -> Vec<Arc<ServerSubscribe>> {
        let is_told = self.is_told();
        let passing = self.passing.as_mut().filter(|_| is_told);
        passing.map(|passing| std::mem::take(&mut passing.ordered)).unwrap_or_default()
    }

    /// Whether the client was told that it is connected, and whatever it asked for with that.
    pub fn is_told(&self) -> bool {
        self.state == State::Connected && self.connection.is_open()
    }

    /// Writes a push for this client alone; on a stream, behind its head.
    pub fn push(&mut self, channel: &str, push: &Push, config: &Config) {
        if self.closing.is_some() {
            return;
        }
        if let Push::Publication(publication) | Push::Delta { publication, .. } = push
            && !self.carries(publication)
        {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_JSON);
        }
        let bytes = self.connection.push(channel, push);
        if self.connection.is_open() {
            return self.write(bytes, config);
        }
        // What was granted before the head is told in it, so what changed meanwhile must be told too.
        let early = &mut self.passing.get_or_insert_default().early;
        early.push((channel.to_owned(), bytes));
        if early.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > config.client.max_outbox_bytes {
            self.abort(CloseReason::Slow, "");
        }
    }

    /// The next time at which the session has something to do, and why.
    pub fn poll_timeout(&self, config: &Config) -> (Instant, Timer) {
        let mut next = (self.connection.heartbeat.poll_timeout(&config.heartbeat), Timer::Heartbeat);
        let mut consider = |time: Instant, timer: Timer| {
            if time < next.0 {
                next = (time, timer);
            }
        };
        if let Some(deadline) = self.connect_deadline(config) {
            consider(deadline, Timer::Connect);
        }
        if let Some(since) = self.outbox.blocked_since() {
            consider(since + config.client.write_timeout, Timer::Write);
        }
        let subscriptions = self.subscriptions.iter().filter_map(Subscription::expiry);
        for expiry in subscriptions.chain(self.credentials.as_ref().map(|credentials| &credentials.expiry)) {
            if let Some(deadline) = expiry.deadline(config.client.expired_close_delay) {
                consider(deadline, Timer::Expiry);
            }
        }
        next
    }

    /// Does what is due at `now`. The caller has taken what the peer sent before that.
    pub fn handle_timeout(&mut self, now: Instant, config: &Config) {
        if self.closing.is_some() {
            return;
        }
        if self.outbox.blocked_since().is_some_and(|since| since + config.client.write_timeout <= now) {
            return self.abort(CloseReason::WriteStalled, "");
        }
        if self.connect_deadline(config).is_some_and(|deadline| deadline <= now) {
            // Who was refused and stays would only be refused again.
            return match self.state {
                State::Refused => {
                    self.close(CloseReason::BadRequest.into(), "stayed after a refused connect")
                }
                _ => self.close(CloseReason::Stale.into(), ""),
            };
        }
        self.look_at_expiries(now, config);
        if self.closing.is_some() {
            return;
        }
        if !self.wants_bytes(config) {
            // The peer's signs of life wait unread behind a command in progress.
            self.connection.heartbeat.seen(now);
        }
        if self.state != State::Connected {
            // No peer expects a beat before it was told of them.
            self.connection.heartbeat.skip(now, &config.heartbeat);
        }
        if !self.outbox.is_empty() {
            // The beat still waits to be written; whether that makes progress is watched by itself.
            self.connection.heartbeat.defer(now, &config.heartbeat);
        }
        match self.connection.heartbeat.handle_timeout(now, &config.heartbeat) {
            Some(Due::Beat) => {
                let beat = self.connection.beat();
                self.write(beat, config);
            }
            Some(Due::PeerDead) if flaw::is_on(Flaw::SilenceForgiven) => self.connection.heartbeat.seen(now),
            Some(Due::PeerDead) if flaw::is_on(Flaw::SilenceCalledReset) => {
                self.abort(CloseReason::PeerReset, "")
            }
            Some(Due::PeerDead) => self.abort(CloseReason::NoHeartbeat, ""),
            None => {}
        }
    }

    /// Ends the connection politely: what waits is written, then the last words.
    pub fn close(&mut self, close: Close, detail: &str) {
        self.begin_close(close, Initiator::Server, detail.to_owned(), true);
    }

    /// Ends the connection at once: what waits is thrown away and the peer gets a reset.
    pub fn abort(&mut self, reason: CloseReason, detail: &str) {
        self.begin_close(reason.into(), Initiator::Server, detail.to_owned(), false);
    }

    fn begin_close(&mut self, close: Close, initiator: Initiator, detail: String, is_polite: bool) {
        if self.closing.is_some() {
            return;
        }
        if let Some(passing) = &mut self.passing {
            passing.request = None;
            passing.held = Vec::new();
            passing.ripe = Vec::new();
            passing.ordered = Vec::new();
            passing.early = Vec::new();
        }
        let unsent_bytes = if is_polite {
            let farewell = self.connection.farewell(&close);
            // The last words are small and bounded, so they may pass the limit.
            self.outbox.push(farewell, usize::MAX).expect("there is no limit to pass");
            0
        } else {
            self.outbox.clear()
        };
        self.closing = Some(Box::new(Closing { close, initiator, detail, unsent_bytes, is_polite }));
    }

    fn write(&mut self, bytes: Bytes, config: &Config) {
        // What comes in several parts may have been closed as slow at the first.
        if self.closing.is_some() {
            return;
        }
        let is_unbounded = flaw::is_on(Flaw::OutboxUnbounded);
        let limit = if is_unbounded { usize::MAX } else { config.client.max_outbox_bytes };
        if self.outbox.push(bytes, limit).is_err() {
            self.abort(CloseReason::Slow, "");
        }
    }

    fn take(&mut self, now: Instant, mut input: &[u8], config: &Config) {
        while !self.is_busy && self.closing.is_none() {
            match self.connection.decode(&mut input) {
                Ok(Some(Inbound::Command(numbered))) => self.handle_command(now, numbered, config),
                Ok(Some(Inbound::Transmit(bytes))) => {
                    if self.count_command(now, config) {
                        self.write(bytes, config);
                    }
                }
                Ok(Some(Inbound::Closed(code))) => {
                    let mut close = Close::from(CloseReason::PeerClosed);
                    // The answer repeats the peer's code (RFC 6455 section 5.5.1).
                    close.code = code.unwrap_or(1000);
                    close.text = "".into();
                    self.begin_close(close, Initiator::Peer, String::new(), true);
                }
                Ok(None) => return,
                Err(Fault { reason, what }) => return self.close(reason.into(), &what),
            }
        }
        if self.closing.is_none() && !input.is_empty() {
            self.passing.get_or_insert_default().held.extend_from_slice(input);
        }
    }

    fn handle_command(&mut self, now: Instant, numbered: Numbered, config: &Config) {
        if !self.count_command(now, config) {
            return;
        }
        let id = numbered.id;
        match (self.state, &numbered.command) {
            (_, Command::Pong) if flaw::is_on(Flaw::OnlyPongsCount) => self.connection.heartbeat.seen(now),
            (_, Command::Pong) => {}
            (State::AwaitingConnect, Command::Connect(_)) => self.begin_request(numbered),
            (State::AwaitingConnect, _) => {
                self.close(CloseReason::BadRequest.into(), "command before connect")
            }
            (State::Refused, _) => {
                self.close(CloseReason::BadRequest.into(), "command after a refused connect")
            }
            (_, Command::Connect(_)) => {
                self.close(CloseReason::BadRequest.into(), "second connect");
            }
            (_, Command::Send { .. }) => self.close(CloseReason::NotAvailable.into(), "send"),
            (_, Command::Ping) => self.answer(id, &ErrorCode::NotAvailable.into(), config),
            (_, Command::Rpc { method, .. }) if !config.has_method(method) => {
                self.answer(id, &ErrorCode::NotAvailable.into(), config);
            }
            (_, Command::Subscribe(ask)) => {
                if ask.channel.is_empty() {
                    return self.close(CloseReason::BadRequest.into(), "subscribe without a channel");
                }
                if !matches!(&*ask.delta, "" | "fossil") {
                    return self.close(CloseReason::BadRequest.into(), "unknown delta encoding");
                }
                match self.refuse_subscribe(&ask.channel, ask.kind, config) {
                    Some(code) => self.answer(id, &code.into(), config),
                    None => self.begin_request(numbered),
                }
            }
            (_, Command::Publish { channel, .. }) if channel.is_empty() => {
                self.close(CloseReason::BadRequest.into(), "publish without a channel");
            }
            (_, Command::SubRefresh { channel, .. }) if channel.is_empty() => {
                self.close(CloseReason::BadRequest.into(), "sub_refresh without a channel");
            }
            // Maps and shared polls, which longwire does not have.
            (_, Command::Publish { kind: 1.., .. } | Command::SubRefresh { kind: 1.., .. }) => {
                self.answer(id, &ErrorCode::NotAvailable.into(), config);
            }
            (_, _) => self.begin_request(numbered),
        }
    }

    /// Counts something that the peer wants; false, and closing, if it wants too much.
    fn count_command(&mut self, now: Instant, config: &Config) -> bool {
        let rules = &config.client;
        let (per_second, burst) = (rules.commands_per_second as usize, rules.command_burst as usize);
        let is_allowed = self.rate.allow(now - self.opened, per_second, burst);
        if !is_allowed {
            self.close(CloseReason::TooManyRequests.into(), "");
        }
        is_allowed
    }

    fn refuse_subscribe(&self, channel: &str, kind: i32, config: &Config) -> Option<ErrorCode> {
        if self.is_subscribed(channel) {
            Some(ErrorCode::AlreadySubscribed)
        } else if self.subscriptions.len() >= config.client.max_subscriptions {
            Some(ErrorCode::LimitExceeded)
        } else if kind != 0 {
            Some(ErrorCode::NotAvailable)
        } else {
            None
        }
    }

    fn begin_request(&mut self, numbered: Numbered) {
        self.passing.get_or_insert_default().request = Some(numbered);
        self.is_busy = true;
    }
}

const NOT_JSON: &str = "a publication is not JSON, and the connection carries nothing else";

/// The publications that a reply brings.
fn reply_publications(reply: &Reply) -> impl Iterator<Item = &Arc<Publication>> {
    let (subs, publications): (&[(String, SubscribeResult)], &[Arc<Publication>]) = match reply {
        Reply::Connect(result) => (&result.subs, &[]),
        Reply::Subscribe(result) => (&[], &result.publications),
        Reply::History { publications, .. } => (&[], publications),
        _ => (&[], &[]),
    };
    subs.iter().flat_map(|(_, result)| &result.publications).chain(publications)
}

fn is_worth_compressing(delivery: &Delivery, config: &Config) -> bool {
    match &delivery.what {
        What::Publication(publication) => publication.data.len() >= config.websocket.compression_min_bytes,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
