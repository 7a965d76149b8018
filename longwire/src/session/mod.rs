//! The server's state for one client, as a plain struct: bytes, time and answers go in, bytes for the outbox
//! and requests come out.
//!
//! A session decides what a command means in its present state, what a delivery does to a subscription, and
//! when to beat, to expire and to close. It never awaits, asks no clock and no node: what needs one is a
//! request ([`Session::poll_request`]) that the driver carries out and answers. Commands are taken one by
//! one; while one is in progress, what follows waits undecoded. What must stay true: after
//! [`closing`](Session::closing) is set nothing more is taken, delivered or written but the last words.

mod answered;
pub mod away;
mod closing;
mod credentials;
pub mod expiry;
pub mod inbox;
mod incoming;
mod naming;
mod ordered;
pub mod outbox;
mod poll;
mod queues;
pub mod recovery;
pub mod subscription;

use crate::config::{Config, Listener};
use crate::delivery::{DataForm, Delivery, Shape, What};
use crate::node::control::ServerSubscribe;
use crate::node::limits::UserPlace;
use crate::node::rate::Rate;
use crate::node::sdk::Sdk;
use crate::node::survey::Sent;
use crate::node::{Denied, Identity};
use bytes::Bytes;
pub use closing::{Closing, Initiator};
use credentials::Credentials;
pub use credentials::{Ripe, Terms};
use inbox::Inbox;
use longwire_protocol::command::Numbered;
use longwire_protocol::connection::{Dialect, Fault, Transport};
use longwire_protocol::encoding::Encoding;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::heartbeat::{Due, Intervals};
use longwire_protocol::json::is_text;
use longwire_protocol::message::{ClientId, ClientInfo, Push, Reply, unsubscribe};
use longwire_protocol::websocket::Compressor;
use longwire_protocol::{CloseReason, Connection, Position, Publication};
pub use ordered::Given;
use outbox::Outbox;
use queues::Queueing;
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
    /// By which listener the link came: the index in `Config::listeners`.
    pub listener: u16,
    is_busy: bool,
    /// There is something to say on a long-poll that is no push.
    is_poll_due: bool,
    /// The client was given the answer to a long-poll, and asked again.
    polls_on: bool,
    /// There is no link.
    is_parted: bool,
    /// The client has a name.
    is_named: bool,
    /// What the backend is to be told of the client; only of the plain dialect.
    inbox: Option<Box<Inbox>>,
    /// What a session only has for moments, or seldom: a million idle ones keep no room for it.
    passing: Option<Box<Passing>>,
    closing: Option<Box<Closing>>,
}

#[derive(Debug, Default)]
struct Passing {
    /// A request that the driver did not take yet.
    request: Option<Numbered>,
    /// Inbound bytes that wait because a command is in progress.
    held: inbox::Held,
    /// Subscriptions that ended and nobody took out of the hub yet.
    ended: Vec<Ended>,
    /// What the backend is to be asked about.
    ripe: Vec<Ripe>,
    /// When the connect command was refused, if it was.
    refused: Option<Instant>,
    /// What the backend ordered before the client was told of its connection.
    ordered: Vec<Arc<ServerSubscribe>>,
    /// Pushes that wait for the head of a stream: at most as much as may wait in the outbox.
    early: Vec<Early>,
    /// What the client wants of queues, from when it first wants something.
    queues: Option<Box<Queueing>>,
}

/// A push that waits for the head of a stream.
#[derive(Debug)]
struct Early {
    /// Empty if it belongs to none.
    channel: String,
    bytes: Bytes,
    /// It says that a subscription began.
    is_beginning: bool,
    publication: Option<Arc<Publication>>,
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
            && self.queues.is_none()
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
    /// The client did not return in time.
    Grace,
    /// A long-poll is answered, whatever there is to say.
    Poll,
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
            listener: 0,
            is_busy: false,
            is_poll_due: false,
            polls_on: false,
            is_parted: false,
            is_named: false,
            inbox: None,
            passing: None,
            closing: None,
        }
    }

    /// Takes a link whose connect command is being carried out already: `unsent` and `held` are bytes on their way to
    /// the peer and from it.
    pub fn begin_with_connect(&mut self, listener: u16, unsent: Vec<Bytes>, held: Vec<u8>) {
        self.listener = listener;
        self.outbox = Outbox::default();
        for bytes in unsent {
            self.outbox.push(bytes, usize::MAX).expect("there is no limit to pass");
        }
        self.is_busy = true;
        if !held.is_empty() {
            self.passing.get_or_insert_default().held = inbox::Held::of(held);
        }
    }

    /// Takes the link out of a session that nobody was told of: its state, and the bytes on their way to the peer and
    /// from it.
    pub fn into_link(mut self) -> (Connection, Vec<Bytes>, Vec<u8>) {
        let held = self.passing.take().map(|mut passing| passing.held.take()).unwrap_or_default();
        (self.connection, self.outbox.take(), held.bytes().to_vec())
    }

    /// The link of this session.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How the connection ends, once it does.
    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_deref()
    }

    /// Whether more should be read: not while too much waits behind a command, or for the backend.
    pub fn wants_bytes(&self, config: &Config) -> bool {
        !self.is_away()
            && self.held_bytes() < config.websocket.max_message_bytes
            && !self.is_inbox_full(config)
            && self.is_reading_queues(config)
    }

    /// How signs of life go on this connection: as its listener says, where its client knows nothing of them.
    pub fn intervals(&self, config: &Config) -> Intervals {
        if let Some(agreed) = self.connection.intervals() {
            return agreed;
        }
        let is_plain = self.connection.dialect() == Dialect::Plain;
        let is_two_way = matches!(self.connection.transport(), Transport::WebSocket | Transport::Tcp);
        let listener = config.listeners.get(usize::from(self.listener)).filter(|_| is_plain && is_two_way);
        listener.map_or(config.heartbeat, Listener::intervals)
    }

    /// Answers the command `id`.
    pub fn answer(&mut self, id: u32, reply: &Reply, config: &Config) {
        if self.closing.is_some() || self.is_away() {
            return;
        }
        let is_carried = recovery::reply_publications(reply).all(|(channel, it)| self.carries(channel, it));
        if !is_carried {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_CARRIED);
        }
        if let Reply::Connect(_) = reply {
            self.state = State::Connected;
        }
        self.forget_early(reply);
        self.note_poll(reply);
        self.note_answered(reply);
        let answer = self.connection.reply(id, reply);
        self.write_answer(answer, config);
        if self.closing.is_some() || self.is_away() {
            return;
        }
        if self.is_told() {
            for push in self.note_told() {
                // Another link may not be able to say it.
                if self.connection.encoding().carries("", &push) {
                    self.push("", &push, config);
                }
            }
            let early = self.passing.as_mut().map(|passing| std::mem::take(&mut passing.early));
            for Early { bytes, .. } in early.unwrap_or_default() {
                self.note_written_behind();
                self.write_push(bytes, config);
            }
        }
    }

    /// Forgets pushes about channels that this reply grants afresh: the head tells how they stand after it.
    fn forget_early(&mut self, reply: &Reply) {
        let Some(passing) = self.passing.as_mut().filter(|passing| !passing.early.is_empty()) else { return };
        let subscriptions = &self.subscriptions;
        passing.early.retain(|Early { channel, .. }| match reply {
            Reply::Connect(result) => result.subs.iter().all(|(granted, _)| granted != channel),
            Reply::Subscribe(_) => {
                subscriptions.iter().all(|s| s.traits.is_server_side || *s.channel != **channel)
            }
            _ => true,
        });
    }

    /// Refuses the command `id`, or closes.
    pub fn deny(&mut self, id: u32, denied: Denied, config: &Config) {
        if self.is_away() {
            // Whoever would be told is gone; what it has stays.
            return;
        }
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
        self.connection.identify(&user);
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
        if self.is_away() {
            return self.keep_delivery(index, delivery, config);
        }
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
                What::Join(_) | What::Leave(_) | What::Message { .. } if delivered > quarter / 2 => return,
                _ => {}
            }
        }
        match self.subscriptions[index].accept(delivery, &self.identity) {
            Verdict::Write(form) => self.write_delivery(index, delivery, form, compressor, config),
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
        if self.is_away() {
            return self.suspend_begun(serials, config);
        }
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
            let Some(index) = self.subscriptions.iter().position(|s| s.serial == serial) else { continue };
            match self.subscriptions[index].accept(delivery, &self.identity) {
                Verdict::Write(form) => self.write_delivery(index, delivery, form, compressor, config),
                Verdict::Skip => {}
                Verdict::Missing => {
                    self.close(CloseReason::InsufficientState.into(), "gap while subscribing");
                }
            }
        }
    }

    fn write_delivery(
        &mut self,
        index: usize,
        delivery: &Arc<Delivery>,
        data: DataForm,
        compressor: &mut Option<Box<Compressor>>,
        config: &Config,
    ) {
        if let What::Publication(publication) = &delivery.what
            && !self.carries(&delivery.channel, publication)
        {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_CARRIED);
        }
        let mut encoding = self.connection.encoding();
        if self.is_mute(&self.subscriptions[index]) {
            return;
        }
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
        let bytes = delivery.encoded(Shape { encoding, data }, compressor);
        if let Encoding::Stomp(_) = encoding {
            let mut copies = Vec::new();
            if let Err(Fault { reason, what }) = self.connection.copies(&delivery.channel, bytes, &mut copies)
            {
                return self.close(reason.into(), &what);
            }
            return copies.into_iter().for_each(|copy| self.write_push(copy, config));
        }
        let bytes = bytes.clone();
        // Whoever has no name cannot return, and most have none: what that needs is not looked at.
        if let What::Publication(_) = delivery.what
            && self.is_named
        {
            self.note_written(Some(index));
        }
        self.note_delivery_in_answer(index, delivery, config);
        self.write_push(bytes, config);
    }

    /// Whether nothing of a subscription comes to the client: the server gave it to a client of STOMP, which knows only
    /// those that it asked for.
    fn is_mute(&self, subscription: &Subscription) -> bool {
        subscription.traits.is_server_side && self.connection.dialect() == Dialect::Stomp
    }

    /// Whether the connection's encoding can express a publication.
    fn carries(&self, channel: &str, publication: &Arc<Publication>) -> bool {
        match self.connection.encoding() {
            // Of packets the length counts, too.
            encoding @ Encoding::Plain(_) => {
                encoding.carries(channel, &Push::Publication(publication.clone()))
            }
            encoding => publication.is_json || !encoding.needs_json() || is_text(&publication.data),
        }
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
                .filter(|s| s.hub_id == hub_id && !s.is_joining() && !self.is_mute(s))
                .any(|s| is_past(s.seen) && s.wants(tags))
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
        let Some(subscription) = self.subscriptions.iter().find(|s| *s.channel == *channel) else { return };
        // Of one that the server began and did not tell of yet, the client need not hear at all.
        let is_untold =
            subscription.traits.is_server_side && subscription.is_joining() && !subscription.is_answered();
        let is_secret = is_untold || self.is_mute(subscription);
        self.forget_where(|subscription| *subscription.channel == *channel, why);
        if !is_secret && self.connection.dialect() == Dialect::Stomp {
            // No frame says that a subscription ended.
            let detail = format!("the subscription to \"{channel}\" was ended: {}", why.1);
            return self.close(CloseReason::StateInvalidated.into(), &detail);
        }
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

    /// Whether the client was told that it is connected, and whatever it asked for with that.
    pub fn is_told(&self) -> bool {
        self.state == State::Connected && (self.connection.is_open() || self.is_away())
    }

    /// Writes a push for this client alone; on a stream, behind its head.
    pub fn push(&mut self, channel: &str, push: &Push, config: &Config) {
        if self.closing.is_some() {
            return;
        }
        if self.is_away() || self.is_returning() && matches!(push, Push::Message { .. }) {
            // Of its channels the client is told on its return, and history keeps what was published.
            return self.keep_direct(push, config);
        }
        if let Push::Publication(publication) | Push::Delta { publication, .. } = push
            && !self.carries(channel, publication)
        {
            return self.close(CloseReason::InappropriateProtocol.into(), NOT_CARRIED);
        }
        let bytes = self.connection.push(channel, push);
        if let Push::Publication(_) | Push::Delta { .. } | Push::Message { .. } = push {
            self.note_written(self.subscriptions.iter().position(|s| *s.channel == *channel));
        }
        if let Push::Message { data, is_json } = push {
            self.note_message_in_answer(data, *is_json, config);
        }
        if self.connection.is_open() {
            return self.write_push(bytes, config);
        }
        // What was granted before the head is told in it, so what changed meanwhile must be told too.
        let is_beginning = matches!(push, Push::Subscribe(_));
        let publication = match push {
            Push::Publication(publication) => Some(publication.clone()),
            _ => None,
        };
        self.keep_early(Early { channel: channel.to_owned(), bytes, is_beginning, publication }, config);
    }

    /// Keeps a push until the head of a stream is written.
    fn keep_early(&mut self, push: Early, config: &Config) {
        let early = &mut self.passing.get_or_insert_default().early;
        early.push(push);
        if early.iter().map(|push| push.bytes.len()).sum::<usize>() > config.client.max_outbox_bytes {
            self.abort(CloseReason::Slow, "");
        }
    }

    /// The next time at which the session has something to do, and why.
    pub fn poll_timeout(&self, config: &Config) -> (Instant, Timer) {
        let mut next = match self.away_until(config) {
            Some(until) => (until, Timer::Grace),
            None => (self.connection.heartbeat.poll_timeout(&self.intervals(config)), Timer::Heartbeat),
        };
        let mut consider = |time: Instant, timer: Timer| {
            if time < next.0 {
                next = (time, timer);
            }
        };
        if let Some(deadline) = self.poll_deadline() {
            consider(deadline, Timer::Poll);
        }
        if let Some(deadline) = self.connect_deadline(config) {
            consider(deadline, Timer::Connect);
        }
        if let Some(since) = self.outbox.blocked_since().filter(|_| !self.may_stall()) {
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
        let blocked = self.outbox.blocked_since().filter(|_| !self.may_stall());
        if blocked.is_some_and(|since| since + config.client.write_timeout <= now) {
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
        if self.is_away() && self.away_until(config).is_some_and(|until| until <= now) {
            self.lapse(CloseReason::NoHeartbeat, "the client did not return");
        }
        if self.closing.is_some() || self.is_away() {
            return;
        }
        let intervals = self.intervals(config);
        if !self.wants_bytes(config) {
            // The peer's signs of life wait unread behind a command in progress.
            self.connection.heartbeat.seen(now);
        }
        if self.state != State::Connected {
            // No peer expects a beat before it was told of them.
            self.connection.heartbeat.skip(now, &intervals);
        }
        if !self.outbox.is_empty() {
            // The beat still waits to be written; whether that makes progress is watched by itself.
            self.connection.heartbeat.defer(now, &intervals);
        }
        if self.poll_deadline().is_some_and(|deadline| deadline <= now) {
            return self.answer_poll_at_last();
        }
        match self.connection.heartbeat.handle_timeout(now, &intervals) {
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

    fn write(&mut self, bytes: Bytes, config: &Config) {
        // What comes in several parts may have been closed as slow at the first.
        if self.closing.is_some() || self.is_away() {
            return;
        }
        let is_unbounded = flaw::is_on(Flaw::OutboxUnbounded);
        let limit = if is_unbounded { usize::MAX } else { config.client.max_outbox_bytes };
        if self.outbox.push(bytes, limit).is_err() {
            self.abort(CloseReason::Slow, "");
        }
    }
}

const NOT_CARRIED: &str = "a publication is neither JSON nor text, where nothing else is carried, or is longer than a packet's length can say";

fn is_worth_compressing(delivery: &Delivery, config: &Config) -> bool {
    match &delivery.what {
        What::Publication(publication) => publication.data.len() >= config.websocket.compression_min_bytes,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
