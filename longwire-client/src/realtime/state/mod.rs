//! A realtime client without IO: login, subscriptions, calls, tokens, on top of `Core`.
//!
//! The program calls it ([`State::subscribe`], [`State::poll_call`]), a driver moves it ([`Machine`]), and whoever runs tokens'
//! sources asks it for requests ([`State::poll_token_request`]). It speaks the centrifuge dialect in JSON. Readers take
//! events from mailboxes, without its lock.
//!
//! What it is not: it dials nothing and decides no delay between connections, `Core` does. What must stay true: what a
//! server says never makes it panic; after each connection all that was wanted is wanted again, with the last position;
//! whatever a program waits for ends, at the latest when the client is over.

mod asking;
mod awaited;
mod by_channel;
mod calls;
mod polling;
mod replies;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tokens;
mod track;

pub use calls::{Answer, Ticket};

use super::event::{ClientEvent, Event, Position};
use super::mailbox::{Mailbox, Reader};
use super::settings::{Settings, SubscriptionSettings};
use super::token::{TokenSource, TokenSubject};
use crate::address::{Address, Scheme};
use crate::cause::Cause;
use crate::core::{self, Asks, Core, Inbound, Opened, Plan, Stats};
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::transport::Transport;
use awaited::{Awaited, Pending};
use by_channel::ByChannel;
use bytes::Bytes;
use calls::Calls;
use longwire_protocol::Text;
use longwire_protocol::backoff::Policy;
use longwire_protocol::centrifuge::client::{Command, Connect, Since, encode_command};
use longwire_protocol::websocket;
use polling::Polling;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use subscriptions::{ServerSide, Stage, Subscription, ended};

/// How many bytes of commands are joined into one message, at most, unless one alone is longer. A server of the protocol takes
/// 64 KiB.
const MAX_BATCH_BYTES: usize = 16 << 10;

/// How many commands are joined into one message, at most.
const MAX_BATCH_COMMANDS: usize = 32;

/// How many bytes may wait to be written before calls wait here rather than in the connection.
const MAX_UNWRITTEN_BYTES: usize = 256 << 10;

/// A realtime client without IO.
pub struct State {
    core: Core,
    login: Box<Login>,
    phase: Phase,
    /// The server wants its beats answered.
    answers_beats: bool,
    /// What there is, is a WebSocket.
    is_websocket: bool,
    /// What is kept of long-polls, where it had to come to them.
    polling: Option<Box<Polling>>,
    /// By what other clients know this connection.
    client: Option<Text>,
    token: String,
    /// A token for the connection was asked for and has not come.
    awaits_token: bool,
    /// The token that comes is for the connection that there is.
    refreshes: bool,
    last_id: u32,
    awaited: Awaited,
    timers: BTreeSet<(Instant, Timer)>,
    subscriptions: ByChannel<Box<Subscription>>,
    last_key: u32,
    /// Channels whose unsubscribe was not answered yet.
    leaving: BTreeSet<Arc<str>>,
    server_side: BTreeMap<Arc<str>, ServerSide>,
    calls: Calls,
    /// Commands of the next message.
    batch: Vec<u8>,
    batched: usize,
    listeners: Vec<Listener>,
    /// More bytes are wanted.
    reads: bool,
    /// Mailboxes that were full.
    stalled: Vec<Stalled>,
    token_requests: VecDeque<TokenSubject>,
    token_runner: Option<Waker>,
    /// Who waits for the client to be connected, or over, by their numbers.
    watchers: BTreeMap<u64, Waker>,
    last_watcher: u64,
    wakes: Vec<Waker>,
}

/// What a login says besides the token.
struct Login {
    /// Where tokens come from.
    token_source: Option<TokenSource>,
    data: Bytes,
    name: String,
    version: String,
    headers: Vec<(String, String)>,
}

/// How the client stands.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// There is no connection.
    Away,
    /// There is one, and the login waits for a token.
    Open,
    /// The login is on its way.
    LoggingIn,
    /// The login is done.
    Connected,
    /// For ever.
    Over(Error),
}

/// What is done later, unless the connection ends before.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    /// Refresh the connection's token.
    Refresh,
    /// Ask for a paused subscription again.
    Subscribe(Arc<str>),
    /// Refresh a subscription's token.
    SubRefresh(Arc<str>),
}

/// Somebody who hears of the client.
struct Listener {
    mailbox: Arc<Mailbox<ClientEvent>>,
    /// What was left out since the last event.
    missed: u64,
}

/// A mailbox whose reader is behind.
enum Stalled {
    Subscription(Arc<Mailbox<Event>>),
    Listener(Arc<Mailbox<ClientEvent>>),
}

impl Stalled {
    fn is_stalled(&self) -> bool {
        match self {
            Stalled::Subscription(mailbox) => mailbox.is_stalled(),
            Stalled::Listener(mailbox) => mailbox.is_stalled(),
        }
    }
}

/// What the program does.
impl State {
    /// Makes a client that does nothing before [`start`](Self::start).
    ///
    /// # Errors
    /// If the settings make no sense.
    pub fn new(settings: Settings) -> Result<State, Error> {
        settings.check()?;
        let plan = Plan {
            servers: settings.servers.clone(),
            transports: settings.ladder(),
            target,
            subprotocols: &[],
            uplink: "/emulation",
            asks: Asks::WithLogin,
        };
        let Settings { token, token_source, data, name, version, headers, options, .. } = settings;
        let calls = Calls::new(options.outbox);
        let core = Core::new(plan, options);
        Ok(State {
            core,
            login: Box::new(Login { token_source, data, name, version, headers }),
            phase: Phase::Away,
            answers_beats: false,
            is_websocket: false,
            polling: None,
            client: None,
            token,
            awaits_token: false,
            refreshes: false,
            last_id: 0,
            awaited: Awaited::default(),
            timers: BTreeSet::new(),
            subscriptions: ByChannel::default(),
            last_key: 0,
            leaving: BTreeSet::new(),
            server_side: BTreeMap::new(),
            calls,
            batch: Vec::new(),
            batched: 0,
            listeners: Vec::new(),
            reads: true,
            stalled: Vec::new(),
            token_requests: VecDeque::new(),
            token_runner: None,
            watchers: BTreeMap::new(),
            last_watcher: 0,
            wakes: Vec::new(),
        })
    }

    /// Begins to connect.
    pub fn start(&mut self, now: Instant) {
        // The source may take as long as the dialling: both at once.
        if self.lacks_token() {
            self.ask_connection_token();
        }
        self.core.start(now);
        self.work(now);
    }

    /// Ends for ever. What was given to the connection is still written; everything that waits ends.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.core.leave(now);
        self.end(Error::Closed, "client closed");
        self.work(now);
    }

    /// Whether the login is done.
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// By what name other clients know the connection that there is.
    pub fn client(&self) -> Option<&Text> {
        self.client.as_ref().filter(|_| self.is_connected())
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        self.core.stats()
    }

    #[cfg(test)]
    pub(in crate::realtime) fn is_reading(&self) -> bool {
        self.reads
    }

    #[cfg(test)]
    pub(in crate::realtime) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// How many calls wait for a connection or for their answer, and their bytes.
    pub fn unfinished(&self) -> (usize, usize) {
        self.calls.unfinished()
    }

    /// Ready when the login is done, or never will be. `watcher` is `None` at first; who waits no longer says so with
    /// [`unwatch`](Self::unwatch).
    pub fn poll_connected(
        &mut self,
        watcher: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        match &self.phase {
            Phase::Connected => Poll::Ready(Ok(())),
            Phase::Over(error) => Poll::Ready(Err(error.clone())),
            _ => self.watch(watcher, cx),
        }
    }

    /// Ready when everything is over, the socket included; `watcher` is as for [`poll_connected`](Self::poll_connected).
    pub fn poll_over(&mut self, watcher: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        if self.core.is_over() { Poll::Ready(()) } else { self.watch(watcher, cx) }
    }

    fn watch<T>(&mut self, watcher: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<T> {
        let number = *watcher.get_or_insert_with(|| {
            self.last_watcher += 1;
            self.last_watcher
        });
        self.watchers.insert(number, cx.waker().clone());
        Poll::Pending
    }

    /// Somebody does not wait any more.
    pub fn unwatch(&mut self, watcher: &mut Option<u64>) {
        let is_last = watcher.take().is_some_and(|number| self.watchers.remove(&number).is_some())
            && self.watchers.is_empty();
        // An idle client keeps none of the room that those who waited took.
        if is_last {
            self.watchers = BTreeMap::new();
        }
    }

    fn wake_watchers(&mut self) {
        self.wakes.extend(std::mem::take(&mut self.watchers).into_values());
    }

    /// Begins to listen to what happens to the client. A listener who does not read keeps the client from reading more, as
    /// the reader of a subscription does, once `max_buffered` events wait; transitions beyond are left out and counted.
    /// If there is a connection, that is told first.
    pub fn listen(&mut self) -> Reader<ClientEvent> {
        let mailbox = Arc::new(Mailbox::new(self.core.options().max_buffered));
        if matches!(self.phase, Phase::Over(_)) {
            mailbox.close();
        } else {
            let standing = self.core.standing().map(ClientEvent::Transition);
            standing.into_iter().for_each(|event| drop(mailbox.push(event)));
            self.listeners.push(Listener { mailbox: Arc::clone(&mailbox), missed: 0 });
        }
        Reader::new(mailbox)
    }

    /// Begins a subscription; gives its number and its events.
    ///
    /// # Errors
    /// If the client is over, the settings make no sense, or there is a subscription to this channel.
    pub fn subscribe(
        &mut self,
        now: Instant,
        channel: &Arc<str>,
        settings: SubscriptionSettings,
    ) -> Result<(u32, Reader<Event>), Error> {
        if let Phase::Over(error) = &self.phase {
            return Err(error.clone());
        }
        settings.check()?;
        if channel.is_empty() {
            return Err(Error::bad_argument("a channel has a name"));
        }
        if self.subscriptions.contains_key(channel) {
            return Err(Error::bad_argument(format!("there is a subscription to \"{channel}\" already")));
        }
        self.last_key = self.last_key.wrapping_add(1);
        let options = self.core.options();
        let policy = Policy {
            first: options.reconnect.first_delay,
            factor: options.reconnect.factor,
            max: options.reconnect.max_delay,
        };
        let subscription = Subscription::new(self.last_key, settings, options.max_buffered, policy);
        let reader = Reader::new(Arc::clone(&subscription.mailbox));
        self.subscriptions.insert(Arc::clone(channel), Box::new(subscription));
        self.ask_for(now, channel);
        self.work(now);
        Ok((self.last_key, reader))
    }

    /// Ends a subscription, which is told so and nothing more.
    pub fn unsubscribe(&mut self, now: Instant, channel: &Arc<str>, key: u32) {
        if self.subscription(channel, key).is_some() {
            let (code, reason) = ended::BY_PROGRAM;
            self.end_subscription(now, channel, code, reason.into());
        }
        self.work(now);
    }

    /// A position with which a later reader of a subscription can go on.
    pub fn position(&self, channel: &str) -> Option<Position> {
        self.subscriptions.get(channel)?.track.position().cloned()
    }

    /// Lets a call enter the outbox, and gives its answer. A ticket that is not wanted any more is for
    /// [`cancel_call`](Self::cancel_call).
    pub fn poll_call(
        &mut self,
        now: Instant,
        ticket: &mut Ticket,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Answer, Error>> {
        let was_outside = !ticket.has_entered();
        let polled = self.calls.poll(ticket, cx, &mut self.wakes);
        if polled.is_ready() || !was_outside || !ticket.has_entered() {
            return polled;
        }
        // It entered: it may be written at once, and what has no answer is done then.
        self.work(now);
        self.calls.poll(ticket, cx, &mut self.wakes)
    }

    /// Nobody waits for this call's answer any more. What was written is done all the same.
    pub fn cancel_call(&mut self, ticket: &mut Ticket) {
        self.calls.cancel(ticket, &mut self.wakes);
    }
}

/// What follows from inputs.
impl State {
    /// Does what has become possible.
    fn work(&mut self, now: Instant) {
        if !self.stalled.is_empty() {
            self.stalled.retain(Stalled::is_stalled);
        }
        loop {
            while let Some(event) = self.core.poll_event() {
                self.handle_event(now, event);
            }
            if self.polling.is_some() {
                self.poll_again(now);
            }
            self.write_calls(now);
            self.flush(now);
            // What was written may have been too much for the server's HTTP.
            match self.core.poll_event() {
                Some(event) => self.handle_event(now, event),
                None => break,
            }
        }
        self.tell_transitions();
        if self.reads != self.stalled.is_empty() {
            self.reads = self.stalled.is_empty();
            self.core.set_reading(now, self.reads);
            if self.reads {
                // Answers may have waited unread.
                let at_least = now + self.core.options().timeouts.command;
                self.awaited.postpone(at_least);
            }
        }
        if !self.watchers.is_empty() && self.core.is_over() {
            self.wake_watchers();
        }
    }

    fn handle_event(&mut self, now: Instant, event: core::Event) {
        match event {
            core::Event::Open(Opened { transport, server, .. }) => {
                self.phase = Phase::Open;
                self.is_websocket = transport == Transport::WebSocket;
                self.polling = match transport {
                    Transport::Poll => Some(self.polling.take().unwrap_or_default()),
                    _ => None,
                };
                if let Some(polling) = &mut self.polling {
                    polling.reach(server);
                }
                if self.lacks_token() { self.ask_connection_token() } else { self.log_in(now) }
            }
            core::Event::BeatDue => self.core.ping(),
            core::Event::Lost(cause) => self.handle_lost(now, &cause),
            core::Event::GaveUp(cause, limit) => {
                let reason = format!("the client gave up: {cause}");
                self.end(Error::GaveUp { cause, limit }, &reason);
            }
        }
    }

    fn log_in(&mut self, now: Instant) {
        if self.polling.is_some() {
            self.phase = Phase::LoggingIn;
            return self.poll_again(now);
        }
        let id = self.next_id();
        let mut line = Vec::with_capacity(128);
        let subs: Vec<(&str, Since<'_>)> = self
            .server_side
            .iter()
            .filter(|(_, side)| side.recoverable)
            .filter_map(|(channel, side)| Some((&**channel, side.track.since()?)))
            .collect();
        let connect = Connect {
            token: &self.token,
            data: &self.login.data,
            name: &self.login.name,
            version: &self.login.version,
            headers: &self.login.headers,
            subs: &subs,
        };
        encode_command(id, &Command::Connect(&connect), &mut line);
        self.phase = Phase::LoggingIn;
        // Its deadline is the core's.
        self.awaited.insert(id, Pending::Connect, None);
        self.core.send(now, websocket::Kind::Text, &line);
    }

    fn handle_lost(&mut self, now: Instant, cause: &Cause) {
        if matches!(self.phase, Phase::Over(_)) {
            return;
        }
        self.phase = Phase::Away;
        self.client = None;
        self.refreshes = false;
        self.awaited = Awaited::default();
        self.timers.clear();
        self.leaving.clear();
        self.batch = Vec::new();
        self.batched = 0;
        let code = if let Cause::Told { code, .. } = cause { *code } else { 0 };
        // A poll has no other word for a token whose time ran out.
        let is_refused_poll = self.polling.is_some() && matches!(cause, Cause::Status { status: 401, .. });
        if matches!(code, STATE_INVALIDATED | EXPIRED) || is_refused_poll {
            self.drop_token();
        }
        if code == STATE_INVALIDATED {
            self.server_side.values_mut().for_each(|side| side.track.invalidate());
        }
        let stable_after = self.core.options().reconnect.stable_after;
        for subscription in self.subscriptions.values_mut() {
            subscription.note_end(now, stable_after);
            subscription.stage = Stage::Wanted;
            subscription.refresh_at = None;
            if matches!(code, STATE_INVALIDATED | SUBSCRIPTION_EXPIRED) {
                subscription.drop_token();
            }
            if code == STATE_INVALIDATED {
                subscription.track.invalidate();
            }
        }
        self.calls.handle_lost(&mut self.wakes);
    }

    /// The client is over, for ever.
    fn end(&mut self, error: Error, reason: &str) {
        self.calls.handle_end(&error, &mut self.wakes);
        self.phase = Phase::Over(error);
        self.awaited = Awaited::default();
        self.timers.clear();
        self.server_side.clear();
        self.token_requests.clear();
        for subscription in std::mem::take(&mut self.subscriptions).into_values() {
            subscription.end(ended::CLIENT_OVER, reason.into(), &mut self.wakes);
        }
        self.tell_transitions();
        for listener in std::mem::take(&mut self.listeners) {
            self.wakes.extend(listener.mailbox.close());
        }
        self.stalled.clear();
        self.wake_watchers();
        self.wakes.extend(self.token_runner.take());
    }

    /// Asks the server for a subscription, if that is what is to be done next.
    fn ask_for(&mut self, now: Instant, channel: &Arc<str>) {
        // A poll names all of them.
        if self.phase != Phase::Connected || self.polling.is_some() || self.leaving.contains(channel) {
            return;
        }
        let id = self.next_id();
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        if subscription.stage != Stage::Wanted {
            return;
        }
        if subscription.lacks_token() {
            return self.ask_subscription_token(channel);
        }
        let mut line = Vec::with_capacity(128);
        subscription.encode(id, channel, &mut line);
        subscription.stage = Stage::Asked;
        let pending = Pending::Subscribe(Arc::clone(channel), subscription.key);
        self.ask(now, id, &line, pending);
    }

    /// Asks for everything that is wanted, after a login.
    fn ask_for_all(&mut self, now: Instant) {
        let channels: Vec<Arc<str>> = self.subscriptions.keys().cloned().collect();
        for channel in channels {
            self.ask_for(now, &channel);
        }
    }

    /// Tells the server that a channel is of no interest; nothing else about the channel is asked before its answer.
    fn leave(&mut self, now: Instant, channel: &Arc<str>) {
        let is_asked = self.phase == Phase::Connected && self.polling.is_none();
        if !is_asked || !self.leaving.insert(Arc::clone(channel)) {
            return;
        }
        let id = self.next_id();
        let mut line = Vec::with_capacity(64);
        encode_command(id, &Command::Unsubscribe { channel }, &mut line);
        self.ask(now, id, &line, Pending::Unsubscribe(Arc::clone(channel)));
    }

    /// Subscribes anew from where the reader stands: what came fits to nothing.
    fn recover(&mut self, now: Instant, channel: &Arc<str>) {
        self.leave(now, channel);
        self.pause(now, channel);
    }

    /// Lets a subscription rest before it is asked for again.
    fn pause(&mut self, now: Instant, channel: &Arc<str>) {
        let chance = self.core.draw();
        let stable_after = self.core.options().reconnect.stable_after;
        let Some(subscription) = self.subscriptions.get_mut(channel) else { return };
        let delay = subscription.next_delay(now, stable_after, chance);
        subscription.stage = Stage::Paused;
        self.forget_refresh(channel);
        self.timers.insert((now + delay, Timer::Subscribe(Arc::clone(channel))));
    }

    /// A subscription is over.
    fn end_subscription(&mut self, now: Instant, channel: &Arc<str>, code: u32, reason: Text) {
        let Some(subscription) = self.remove_subscription(channel) else { return };
        subscription.end(code, reason, &mut self.wakes);
        if matches!(subscription.stage, Stage::Asked | Stage::Live(_)) {
            self.leave(now, channel);
        }
    }

    fn remove_subscription(&mut self, channel: &Arc<str>) -> Option<Box<Subscription>> {
        self.forget_refresh(channel);
        self.subscriptions.remove(channel)
    }

    fn subscription(&mut self, channel: &str, key: u32) -> Option<&mut Subscription> {
        let subscription = self.subscriptions.get_mut(channel)?;
        (subscription.key == key).then_some(subscription)
    }

    fn is_live(&mut self, channel: &str, key: u32) -> bool {
        self.subscription(channel, key).is_some_and(|of| matches!(of.stage, Stage::Live(_)))
    }

    /// A number that no command has that waits for its answer.
    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            let id = self.last_id;
            if id != 0 && !self.awaited.contains(id) && !self.calls.is_taken(id) {
                return id;
            }
        }
    }

    /// Writes a command, whose answer has its time.
    fn ask(&mut self, now: Instant, id: u32, line: &[u8], pending: Pending) {
        let deadline = now + self.core.options().timeouts.command;
        self.awaited.insert(id, pending, Some(deadline));
        self.write(now, line);
    }

    /// Adds a command to the next message.
    fn write(&mut self, now: Instant, line: &[u8]) {
        if self.batched >= MAX_BATCH_COMMANDS || self.batch.len() + line.len() >= MAX_BATCH_BYTES {
            self.flush(now);
        }
        if self.batched > 0 {
            self.batch.push(b'\n');
        }
        self.batch.extend_from_slice(line);
        self.batched += 1;
    }

    /// Sends what was gathered.
    fn flush(&mut self, now: Instant) {
        if self.batched > 0 {
            let batch = std::mem::take(&mut self.batch);
            self.batched = 0;
            self.core.send(now, websocket::Kind::Text, &batch);
        }
    }

    fn write_calls(&mut self, now: Instant) {
        if self.polling.is_some() && self.phase == Phase::Connected {
            return self.refuse_calls();
        }
        while self.phase == Phase::Connected
            && self.calls.has_next()
            && self.core.unwritten() + self.batch.len() < MAX_UNWRITTEN_BYTES
        {
            let Some((id, line, has_reply)) = self.calls.take_next(&mut self.wakes) else { return };
            if has_reply { self.ask(now, id, &line, Pending::Call) } else { self.write(now, &line) }
        }
    }

    fn tell_transitions(&mut self) {
        for transition in self.core.take_transitions() {
            self.tell(&ClientEvent::Transition(transition));
        }
    }

    fn tell(&mut self, event: &ClientEvent) {
        let is_transition = matches!(event, ClientEvent::Transition(_));
        for Listener { mailbox, missed } in &mut self.listeners {
            if *missed > 0 && mailbox.offer(ClientEvent::Missed { events: *missed }, &mut self.wakes) {
                *missed = 0;
            }
            // Transitions come however little is read.
            if is_transition {
                *missed += u64::from(!mailbox.offer(event.clone(), &mut self.wakes));
                continue;
            }
            let pushed = mailbox.push(event.clone());
            self.wakes.extend(pushed.wakes);
            if pushed.has_filled {
                self.stalled.push(Stalled::Listener(Arc::clone(mailbox)));
            }
        }
    }

    /// Tells what happened in a subscription of the server.
    fn tell_of(&mut self, channel: &Arc<str>, event: Event) {
        if !self.listeners.is_empty() {
            self.tell(&ClientEvent::ServerSide { channel: Arc::clone(channel), event });
        }
    }

    /// A reader has taken what waited, or is gone: bytes are wanted again.
    pub fn resume(&mut self, now: Instant) {
        self.listeners.retain(|listener| !listener.mailbox.is_closed());
        self.work(now);
    }
}

impl Machine for State {
    fn poll_output(&mut self) -> Option<Output> {
        self.core.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadline =
            if self.reads { self.awaited.next_deadline() } else { self.awaited.next_deadline_of_calls() };
        let timer = self.timers.first().map(|(at, _)| *at);
        [self.core.poll_timeout(), deadline, timer].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        self.work(now);
        // While nobody reads, answers may wait unread. Callers are told all the same: one of them may be the reader.
        while let Some((id, pending)) =
            if self.reads { self.awaited.take_late(now) } else { self.awaited.take_late_call(now) }
        {
            self.handle_unanswered(now, id, pending);
        }
        while self.timers.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, timer)) = self.timers.pop_first()
        {
            match timer {
                Timer::Refresh => {
                    self.refreshes = true;
                    self.ask_connection_token();
                }
                Timer::Subscribe(channel) => {
                    if let Some(subscription) = self.subscriptions.get_mut(&channel)
                        && subscription.stage == Stage::Paused
                    {
                        subscription.stage = Stage::Wanted;
                        self.ask_for(now, &channel);
                    }
                }
                Timer::SubRefresh(channel) => {
                    if let Some(subscription) = self.subscriptions.get_mut(&channel)
                        && subscription.refresh_at.take_if(|at| *at <= now).is_some()
                    {
                        self.ask_subscription_token(&channel);
                    }
                }
            }
        }
        self.work(now);
    }

    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        self.core.handle_dialled(now, line, result);
        self.work(now);
    }

    fn handle_bytes(&mut self, now: Instant, line: Line, mut bytes: &[u8]) {
        while let Some(inbound) = self.core.decode(now, line, &mut bytes) {
            match inbound {
                Inbound::Message(_, answer) if self.polling.is_some() => {
                    self.handle_poll_answer(now, &answer)
                }
                Inbound::Message(_, message) => self.handle_message(now, line, message),
                // Events of the protocol have no name, and it is not spoken without a transport around it.
                Inbound::Event { .. } | Inbound::Bytes(_) => {}
            }
            // The carrier's own words, the opening among them, come before what follows.
            while let Some(event) = self.core.poll_event() {
                self.handle_event(now, event);
            }
        }
        self.work(now);
    }

    fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize) {
        self.core.handle_unwritten(now, line, unwritten);
        self.work(now);
    }

    fn handle_end(&mut self, now: Instant, line: Line, end: End) {
        self.core.handle_end(now, line, end);
        self.work(now);
    }

    fn wants_bytes(&self, line: Line) -> bool {
        self.core.wants_bytes(line)
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.close(now);
        self.core.abandon();
        self.work(now);
    }

    fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    fn is_over(&self) -> bool {
        self.core.is_over()
    }
}

/// Codes of ends that concern more than the connection (centrifuge protocol, section 9.3).
const STATE_INVALIDATED: u16 = 3014;
const EXPIRED: u16 = 3005;
const SUBSCRIPTION_EXPIRED: u16 = 3006;

/// Path and query that are asked for, by the URL's own or by the protocol's names.
fn target(address: &Address, transport: Transport) -> String {
    const PATHS: [(Transport, &str); 4] = [
        (Transport::WebSocket, "/connection/websocket"),
        (Transport::Stream, "/connection/http_stream"),
        (Transport::EventStream, "/connection/sse"),
        (Transport::Poll, "/poll"),
    ];
    let (path, query) = match address.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*address.target, None),
    };
    let known = PATHS.iter().find(|(of, _)| *of == transport).map_or("/", |(_, known)| *known);
    let own = match address.scheme {
        Scheme::Stream => Transport::Stream,
        Scheme::EventStream => Transport::EventStream,
        Scheme::Poll => Transport::Poll,
        _ => Transport::WebSocket,
    };
    let prefix = PATHS.iter().find_map(|(_, known)| path.strip_suffix(known));
    let mut target = match prefix {
        Some(prefix) => format!("{prefix}{known}"),
        // A path of another name is that of the URL's own transport alone.
        None if path != "/" && own == transport => path.to_owned(),
        None => known.to_owned(),
    };
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    target
}
