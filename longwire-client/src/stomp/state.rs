//! A STOMP client without IO: everything that decides.
//!
//! [`State`] is a [`Machine`] on top of the core, which chooses servers, comes back and watches for silence. This one logs
//! in, asks for its subscriptions again, writes what waits in the outbox, and matches what comes to who awaits it. The
//! handles of the application call it under a lock ([`calls`](super::calls)). What must stay true: frames of a connection
//! are written in this order: CONNECT, the subscriptions, what is unconfirmed, the rest; nothing of one connection is
//! taken for something of another; whoever awaits something has an answer when the client ends.

use super::builder::Settings;
use super::frame::{Head, Writer, plain};
use super::login::{Broker, Session, connect_frame, is_temporary, told};
use super::message::{AckMode, Received, Settlement, Verdict};
use super::outbox::{Action, Calls, Confirmed, Entry, Load, Outbox};
use super::subscriptions::{Answer, Mentioned, SaidUpTo, Table, settles_after_the_end};
use crate::address::{Address, Scheme};
use crate::cause::Cause;
use crate::core::{Asks, Core, Event, Inbound, Opened, Plan, Terms};
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::options::Options;
use crate::transition::Transition;
use crate::transport::Transport;
use longwire_protocol::Advice;
use longwire_protocol::heartbeat::{self, OFF};
use longwire_protocol::stomp::decode::{Bounds, Decoder, Frame};
use longwire_protocol::stomp::{Limits, Version};
use longwire_protocol::websocket::Kind;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How much may wait to be written before the outbox waits, too.
const HIGH_WATER_BYTES: usize = 256 << 10;
/// How many logins in a row may be refused before that is believed of a broker that took one before.
const MAX_REFUSALS: u8 = 5;
/// How many transitions may wait for one who wants to know; the oldest go first.
const MAX_TRANSITIONS: usize = 1024;
/// A header with an id that stays the same however often a message is written.
pub const DEDUPLICATION_HEADER: &str = "x-deduplication-id";
/// The header by which Artemis itself drops doubles.
const ARTEMIS_DEDUPLICATION: &str = "_AMQ_DUPL_ID";

const SUBPROTOCOLS: &[&str] = &["v12.stomp", "v11.stomp", "v10.stomp"];

/// A STOMP client without IO, for whoever moves it by other means than tokio: see [`Machine`].
pub struct State {
    pub(super) core: Core,
    settings: Box<Settings>,
    bounds: Bounds,
    command_timeout: Duration,
    decoder: Decoder,
    /// What was agreed upon, while there is a connection with a login.
    pub(super) session: Option<Box<Session>>,
    is_logging_in: bool,
    is_websocket: bool,
    /// Counts the connections with a login.
    pub(super) connection: u32,
    /// How many logins were refused since the last of them.
    refusals: u8,
    last_number: u64,
    /// What ids of this client begin with, once it gave one.
    name: Option<Box<str>>,
    pub(super) outbox: Outbox,
    pub(super) calls: Calls,
    /// What is written, not of the outbox, and has no receipt yet.
    pending: BTreeMap<u64, Pending>,
    pub(super) table: Table,
    /// When the last answer came, or what is next to be answered was written; `None` once those who await one were told
    /// that it does not come in time.
    pub(super) progress: Option<Instant>,
    /// What the last attempt to write left.
    backlog: usize,
    /// No reader is too far behind.
    pub(super) is_reading: bool,
    /// Why it is over.
    pub(super) end: Option<Error>,
    pub(super) is_closing: bool,
    /// Who waits for a login or for the end.
    pub(super) watchers: BTreeMap<u64, Waker>,
    pub(super) listeners: Vec<Listener>,
    last_listener: u32,
    pub(super) wakes: Vec<Waker>,
}

/// A frame that has no receipt yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pending {
    Subscribe(u32),
    Unsubscribe,
    /// The end of a subscription that outlives its connections.
    Forget,
    Settle,
    Disconnect,
}

impl Pending {
    fn command(self) -> &'static str {
        match self {
            Pending::Subscribe(_) => "SUBSCRIBE",
            Pending::Unsubscribe | Pending::Forget => "UNSUBSCRIBE",
            Pending::Settle => "ACK",
            Pending::Disconnect => "DISCONNECT",
        }
    }
}

/// Somebody who wants to know of transitions.
pub(super) struct Listener {
    pub(super) number: u32,
    pub(super) queue: VecDeque<Transition>,
    pub(super) waker: Option<Waker>,
}

/// The path where the URL names none.
fn target(address: &Address, _: Transport) -> String {
    if address.target == "/" { "/stomp".to_owned() } else { address.target.clone() }
}

impl State {
    pub(super) fn new(servers: Vec<Arc<Address>>, settings: Settings, options: Options) -> State {
        let is_websocket = servers.iter().any(|server| server.scheme == Scheme::StompWebSocket);
        let transport = if is_websocket { Transport::WebSocket } else { Transport::Tcp };
        // What a broker says is bounded as loosely as brokers bound what they are told.
        let limits = Limits {
            max_line_bytes: 256 << 10,
            max_headers: 1024,
            max_head_bytes: 1 << 20,
            max_body_bytes: options.max_message_bytes,
            ..Limits::default()
        };
        let max_bytes = options.max_message_bytes.max(1 << 20);
        State {
            settings: Box::new(settings),
            bounds: Bounds::of(&limits),
            command_timeout: options.timeouts.command,
            decoder: Decoder::default(),
            session: None,
            is_logging_in: false,
            is_websocket,
            connection: 0,
            refusals: 0,
            last_number: 0,
            name: None,
            outbox: Outbox::new(options.outbox),
            calls: Calls::default(),
            pending: BTreeMap::new(),
            table: Table::new(options.max_buffered, max_bytes),
            progress: None,
            backlog: 0,
            is_reading: true,
            end: None,
            is_closing: false,
            watchers: BTreeMap::new(),
            listeners: Vec::new(),
            last_listener: 0,
            wakes: Vec::new(),
            core: Core::new(
                Plan {
                    servers,
                    transports: vec![transport],
                    target,
                    subprotocols: SUBPROTOCOLS,
                    uplink: "",
                    asks: Asks::WithLogin,
                },
                options,
            ),
        }
    }

    /// Begins to connect.
    pub fn start(&mut self, now: Instant) {
        self.core.start(now);
        self.step(now);
    }

    /// A number that no frame had before.
    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// An id that nothing else has.
    pub(super) fn unique_id(&mut self) -> String {
        let number = self.number();
        let core = &mut self.core;
        let name =
            self.name.get_or_insert_with(|| format!("{:016x}{:016x}", core.bits(), core.bits()).into());
        format!("{name}-{number}")
    }

    /// Does what follows from an input.
    pub(super) fn step(&mut self, now: Instant) {
        loop {
            while let Some(event) = self.core.poll_event() {
                match event {
                    Event::Open(opened) => self.open(now, &opened),
                    Event::BeatDue if self.session.is_some() => self.write(now, b"\n"),
                    Event::BeatDue => {}
                    Event::Lost(_) => self.lost(now),
                    Event::GaveUp(cause, limit) => {
                        let is_ours = self.is_closing || cause == Cause::Closed;
                        self.finish(if is_ours { Error::Closed } else { Error::GaveUp { cause, limit } });
                    }
                }
            }
            if !self.pump(now) {
                break;
            }
        }
        let transitions = self.core.take_transitions();
        for listener in &mut self.listeners {
            for transition in &transitions {
                if listener.queue.len() == MAX_TRANSITIONS {
                    listener.queue.pop_front();
                }
                listener.queue.push_back(transition.clone());
            }
            if !transitions.is_empty() {
                self.wakes.extend(listener.waker.take());
            }
        }
    }

    /// Adds somebody who wants to know of transitions, from the one on that made the connection there is.
    pub(super) fn listen(&mut self) -> u32 {
        self.last_listener += 1;
        let number = self.last_listener;
        let queue = self.core.standing().into_iter().collect();
        self.listeners.push(Listener { number, queue, waker: None });
        number
    }

    pub(super) fn write(&mut self, now: Instant, frame: &[u8]) {
        // Brokers take either; some give back what they were given.
        let is_text = self.is_websocket && std::str::from_utf8(frame).is_ok();
        self.core.send(now, if is_text { Kind::Text } else { Kind::Binary }, frame);
    }

    /// Notes that a frame is about to be written that will be answered.
    fn expect_answer(&mut self, now: Instant) {
        if self.progress.is_none() || !self.is_awaited() {
            self.progress = Some(now);
        }
    }

    /// Whether something has no answer yet.
    fn is_awaited(&self) -> bool {
        self.outbox.unanswered() > 0 || !self.pending.is_empty()
    }

    /// Whether answers wait behind what no reader takes, for longer than they may take.
    pub(super) fn is_stuck(&self) -> bool {
        !self.is_reading && self.progress.is_none() && self.is_awaited()
    }

    /// Notes that a frame is written whose receipt has this number.
    pub(super) fn expect(&mut self, now: Instant, number: u64, pending: Pending) {
        self.expect_answer(now);
        self.pending.insert(number, pending);
    }

    fn open(&mut self, now: Instant, opened: &Opened) {
        self.decoder = Decoder::default();
        self.is_logging_in = true;
        let frame = connect_frame(&self.settings, &opened.server);
        self.write(now, &frame);
    }

    /// The connection is gone, or the attempt.
    fn lost(&mut self, now: Instant) {
        self.decoder = Decoder::default();
        self.is_logging_in = false;
        self.backlog = 0;
        if self.session.take().is_none() {
            return;
        }
        self.progress = None;
        for (number, pending) in std::mem::take(&mut self.pending) {
            let result = match pending {
                // With the connection it is over, whoever ended it.
                Pending::Unsubscribe | Pending::Disconnect => Ok(Confirmed::default()),
                Pending::Settle | Pending::Forget => Err(Error::Unconfirmed),
                Pending::Subscribe(_) => continue,
            };
            self.calls.finish(number, result, &mut self.wakes);
        }
        for (number, result) in self.outbox.rewind() {
            self.calls.finish(number, result, &mut self.wakes);
        }
        self.outbox.call_next(&mut self.wakes);
        self.table.disconnected();
        self.note_reading(now);
        if self.is_closing {
            self.finish(Error::Closed);
            self.core.leave(now);
        }
    }

    /// Ends everything: whoever awaits something is told.
    pub(super) fn finish(&mut self, error: Error) {
        if self.end.is_some() {
            return;
        }
        for (number, error) in self.outbox.end(&error) {
            self.calls.finish(number, Err(error), &mut self.wakes);
        }
        for (number, pending) in std::mem::take(&mut self.pending) {
            let may_be_done = matches!(pending, Pending::Settle | Pending::Forget);
            let error = if may_be_done { Error::Unconfirmed } else { error.clone() };
            self.calls.finish(number, Err(error), &mut self.wakes);
        }
        self.table.end_all(&error, &mut self.wakes);
        self.session = None;
        self.is_logging_in = false;
        self.end = Some(error);
        self.outbox.call_all(&mut self.wakes);
        self.wakes.extend(std::mem::take(&mut self.watchers).into_values());
        for listener in &mut self.listeners {
            self.wakes.extend(listener.waker.take());
        }
    }

    /// Notes what a reader took, or what came for one: the broker's silence is none while nothing is read.
    pub(super) fn note_reading(&mut self, now: Instant) {
        // Logins and farewells are read whoever is behind.
        let is_reading = self.session.is_none() || self.is_closing || !self.table.is_behind();
        if is_reading != self.is_reading {
            self.is_reading = is_reading;
            self.progress = Some(now);
            self.core.set_reading(now, is_reading);
        }
    }

    fn take_bytes(&mut self, now: Instant, mut bytes: &[u8]) {
        while self.session.is_some() || self.is_logging_in {
            match self.decoder.decode(&mut bytes, &self.bounds) {
                Ok(Some(frame)) => {
                    if let Err(cause) = self.take_frame(now, frame) {
                        return self.core.fail(now, cause);
                    }
                }
                Ok(None) => return,
                Err(violation) => {
                    return self.core.fail(now, Cause::Protocol(violation.what.to_owned()));
                }
            }
        }
    }

    fn take_frame(&mut self, now: Instant, frame: Frame<'_>) -> Result<(), Cause> {
        let Some(session) = &self.session else {
            return match frame.command() {
                "CONNECTED" => self.connected(now, &frame),
                "ERROR" => Err(self.turned_away(told(&frame, None))),
                other => {
                    let what =
                        format!("the answer to CONNECT is neither CONNECTED nor ERROR but \"{other}\"");
                    Err(Cause::Protocol(what))
                }
            };
        };
        let (version, broker) = (session.version, session.broker);
        match frame.command() {
            "MESSAGE" | "RECEIPT" => frame.check(version).map_err(|what| Cause::Protocol(what.to_owned()))?,
            "ERROR" => return Err(self.refused(&frame, version)),
            other => return Err(Cause::Protocol(format!("a frame has the command \"{other}\""))),
        }
        if frame.command() == "RECEIPT" {
            self.take_receipt(now, &frame, version, broker);
            return Ok(());
        }
        if self.is_closing && self.table.is_behind() {
            // Nobody takes it: the broker gives it to others once the connection has ended.
            return Ok(());
        }
        let mentioned = Mentioned::read(frame.headers(version));
        let subscription = mentioned.subscription.map(|id| plain(version, id));
        let destination = mentioned.destination.map(|text| plain(version, text));
        let number = self.table.find(subscription.as_deref(), destination.as_deref());
        let is_redelivered = mentioned.redelivered.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let position = mentioned.position(broker);
        let head = Head::of(&frame, version);
        let ack = number.and_then(|number| self.table.get(number)).map(|it| it.wanted.ack);
        let received = Received {
            head,
            body: frame.body,
            subscription: number.unwrap_or_default(),
            connection: self.connection,
            number: 0,
            version,
            ack: ack.unwrap_or_default(),
            is_redelivered,
            position,
            is_watched: false,
        };
        if number.is_some() {
            if let Some(double) = self.table.push(received, &mut self.wakes) {
                self.give_back(now, double, Verdict::Ack);
            }
        } else if broker == Broker::Longwire {
            // It was on its way while its subscription ended.
            self.give_back(now, received, Verdict::Nack);
        }
        Ok(())
    }

    /// Says something about a message that nobody will take here: that others shall, before the connection ends, or that it
    /// is a double.
    pub(super) fn give_back(&mut self, now: Instant, received: Received, verdict: Verdict) {
        // Whoever is not asked says nothing.
        let is_asked = received.ack != AckMode::Auto || received.head.get("ack").is_some();
        let has_nack = received.version > Version::V10;
        if !is_asked || verdict == Verdict::Nack && !has_nack {
            return;
        }
        if let Ok(settlement) = received.settlement(verdict) {
            let frame = settlement.frame(received.version, &[]);
            self.write(now, &frame);
        }
    }

    fn connected(&mut self, now: Instant, frame: &Frame<'_>) -> Result<(), Cause> {
        let session = Session::read(frame, &self.settings).map_err(Cause::Protocol)?;
        let intervals = session.intervals;
        let is_silent = intervals.interval >= OFF && intervals.max_silence >= OFF;
        let kind = if is_silent { heartbeat::Kind::Silent } else { heartbeat::Kind::Idle };
        // Names are for transports that STOMP is not spoken over.
        let terms = Terms { intervals, kind, session: String::new(), node: String::new() };
        let (version, broker) = (session.version, session.broker);
        self.is_logging_in = false;
        self.session = Some(Box::new(session));
        self.connection += 1;
        self.refusals = 0;
        self.core.logged_in(now, terms);
        for number in self.table.wanted() {
            self.ask(now, number, version, broker);
        }
        self.wakes.extend(std::mem::take(&mut self.watchers).into_values());
        Ok(())
    }

    /// Takes the refusal of a login. It is final where none was taken before; a broker that did may only be on its way up
    /// or down.
    fn turned_away(&mut self, cause: Cause) -> Cause {
        self.refusals = self.refusals.saturating_add(1);
        match cause {
            // One with a code says itself whether it is final.
            Cause::Told { code: 0, text, after, .. }
                if self.connection > 0 && self.refusals < MAX_REFUSALS =>
            {
                Cause::Told { code: 0, text, advice: Advice::Reconnect, after }
            }
            other => other,
        }
    }

    /// Asks for a subscription.
    pub(super) fn ask(&mut self, now: Instant, number: u32, version: Version, broker: Broker) {
        let receipt = self.number();
        if let Some(frame) = self.table.ask(number, version, broker, receipt) {
            self.expect(now, receipt, Pending::Subscribe(number));
            self.write(now, &frame);
        }
    }

    fn take_receipt(&mut self, now: Instant, frame: &Frame<'_>, version: Version, broker: Broker) {
        self.progress = Some(now);
        let id = frame.headers(version).find(|(name, _)| *name == "receipt-id");
        let Some(number) = id.and_then(|(_, value)| value.trim().parse().ok()) else { return };
        if let Some(entry) = self.outbox.answered(number) {
            for settlement in entry.load.settlements() {
                if let Some(id) = &settlement.id {
                    let is_done = settlement.verdict == Verdict::Ack;
                    self.table.note_settled(settlement.subscription, id, is_done);
                }
            }
            // Only its own receipt: that an earlier frame was received, which a later one's says, too, is not that it is
            // safe (STOMP 1.2, "RECEIPT").
            self.calls.finish(number, Ok(entry.confirmed()), &mut self.wakes);
            return self.outbox.call_next(&mut self.wakes);
        }
        let pending = self.pending.remove(&number);
        if self.pending.is_empty() {
            // An empty map would keep its node.
            self.pending = BTreeMap::new();
        }
        match pending {
            None => {}
            Some(Pending::Subscribe(subscription)) => {
                let mentioned = Mentioned::read(frame.headers(version));
                let recovered = mentioned.recovered.filter(|_| broker == Broker::Longwire);
                let answer = Answer {
                    recovered: recovered.map(|value| value == "true"),
                    position: mentioned.position(broker),
                };
                self.table.begin(subscription, answer, &mut self.wakes);
            }
            Some(Pending::Unsubscribe | Pending::Forget | Pending::Settle) => {
                self.calls.finish(number, Ok(Confirmed::default()), &mut self.wakes);
            }
            Some(Pending::Disconnect) => {
                self.finish(Error::Closed);
                self.core.leave(now);
            }
        }
    }

    /// Blames what is next to be answered for an ERROR that names nobody; its number, if it is to be taken for the culprit.
    fn blame(&mut self) -> Option<u64> {
        let first = self.pending.iter().find_map(|(number, pending)| match pending {
            Pending::Subscribe(subscription) => Some((*number, *subscription)),
            _ => None,
        });
        match first {
            // Subscriptions are asked for before anything is sent.
            Some((number, subscription)) => self.table.blame(subscription).then_some(number),
            None => self.outbox.blame_oldest(),
        }
    }

    /// Takes an ERROR, of which the connection ends; whoever is at fault does not come back with the next one.
    fn refused(&mut self, frame: &Frame<'_>, version: Version) -> Cause {
        let cause = told(frame, Some(version));
        let Cause::Told { code, text, advice, after } = &cause else { return cause };
        let refused =
            Error::Refused { code: u32::from(*code), message: text.clone(), temporary: is_temporary(&cause) };
        let id = frame.headers(version).find(|(name, _)| *name == "receipt-id");
        let named = id.and_then(|(_, value)| value.trim().parse().ok());
        let Some(number) = named.or_else(|| self.blame()) else { return cause };
        if self.outbox.answered(number).is_some() {
            self.calls.finish(number, Err(refused), &mut self.wakes);
        } else {
            match self.pending.remove(&number) {
                None => return cause,
                Some(Pending::Subscribe(subscription)) => {
                    // What is asked for in vain for a time is asked for again on the next connection.
                    if !refused.is_temporary() {
                        self.table.end(subscription, refused, &mut self.wakes);
                    }
                }
                Some(_) => self.calls.finish(number, Err(refused), &mut self.wakes),
            }
        }
        let advice = if *advice == Advice::Stop { Advice::Reconnect } else { *advice };
        Cause::Told { code: *code, text: text.clone(), advice, after: *after }
    }

    /// Writes what waits in the outbox, as much as the connection takes; whether something happened of which core may
    /// have to say something.
    fn pump(&mut self, now: Instant) -> bool {
        let Some(session) = &self.session else { return false };
        let (version, broker) = (session.version, session.broker);
        let mut has_written = false;
        while self.core.unwritten() < HIGH_WATER_BYTES {
            let Some((number, entry)) = self.outbox.next() else { break };
            let mut said = BTreeMap::new();
            let frames = match &entry.load {
                Load::Message(message) => {
                    let receipt = number.to_string();
                    let mut extra = Vec::new();
                    if entry.wants_receipt {
                        extra.push(("receipt", &*receipt));
                    }
                    if broker == Broker::Artemis
                        && let Some((_, id)) =
                            message.headers.iter().find(|(name, _)| name == DEDUPLICATION_HEADER)
                    {
                        extra.push((ARTEMIS_DEDUPLICATION, id));
                    }
                    Ok(message.frame(version, &extra))
                }
                Load::Transaction(actions) => {
                    let frames = self.transaction(number, entry, actions, version, broker);
                    frames.map(|(frames, all)| {
                        said = all;
                        frames
                    })
                }
            };
            has_written = true;
            match frames {
                Ok(frames) => {
                    said.into_iter().for_each(|(subscription, said)| self.table.set_said(subscription, said));
                    self.expect_answer(now);
                    self.write(now, &frames);
                    if let Some(entry) = self.outbox.written(number) {
                        self.calls.finish(number, Ok(entry.confirmed()), &mut self.wakes);
                        self.outbox.call_next(&mut self.wakes);
                    }
                }
                Err(error) => {
                    self.outbox.remove(number);
                    self.calls.finish(number, Err(error), &mut self.wakes);
                    self.outbox.call_next(&mut self.wakes);
                }
            }
        }
        // Not before everything is answered: RabbitMQ answers a DISCONNECT at once, and nothing behind that.
        if self.is_closing && self.outbox.is_empty() && self.pending.is_empty() {
            let number = self.number();
            self.expect(now, number, Pending::Disconnect);
            let frame = Writer::new(version, "DISCONNECT", 32).number("receipt", number).end();
            self.write(now, &frame);
            has_written = true;
        }
        has_written
    }

    /// Makes the frames of a transaction, and how far everything is said behind it, by subscription.
    fn transaction(
        &self,
        number: u64,
        entry: &Entry,
        actions: &[Action],
        version: Version,
        broker: Broker,
    ) -> Result<(Vec<u8>, BTreeMap<u32, SaidUpTo>), Error> {
        let name = format!("lw-{number}-{}", entry.writings);
        let can_settle = |settlement: &Settlement| {
            let is_there = self.table.get(settlement.subscription).is_some();
            settlement.connection == self.connection && (is_there || settles_after_the_end(broker))
        };
        let extra = [("transaction", &*name)];
        let mut all_said: BTreeMap<u32, SaidUpTo> = BTreeMap::new();
        let mut frames = Writer::new(version, "BEGIN", 32).header("transaction", &name).end();
        for action in actions {
            match action {
                Action::Send(message) => frames.extend(message.frame(version, &extra)),
                Action::Settle(settlement) if can_settle(settlement) => {
                    let of = settlement.subscription;
                    if let Some(mut said) = all_said.get(&of).copied().or_else(|| self.table.said(of)) {
                        let is_said = said.add(settlement.number, settlement.verdict == Verdict::Ack)?;
                        all_said.insert(of, said);
                        if is_said {
                            continue;
                        }
                    }
                    frames.extend(settlement.frame(version, &extra));
                }
                Action::Settle(_) => return Err(Error::StaleMessage),
            }
        }
        let mut commit = Writer::new(version, "COMMIT", 32).header("transaction", &name);
        if entry.wants_receipt {
            commit = commit.number("receipt", number);
        }
        frames.extend(commit.end());
        Ok((frames, all_said))
    }

    /// What is to be answered next, if something is.
    fn awaited(&self) -> Option<&'static str> {
        let of_outbox = self.outbox.oldest_unanswered().map(|(number, entry)| (number, entry.load.command()));
        let other = self.pending.first_key_value().map(|(number, pending)| (*number, pending.command()));
        of_outbox.into_iter().chain(other).min().map(|(_, command)| command)
    }

    /// When something should have been answered.
    fn answer_due(&self) -> Option<Instant> {
        self.progress.filter(|_| self.is_awaited())?.checked_add(self.command_timeout)
    }

    /// Tells those who await an answer that it does not come in time: it waits behind what no reader takes, and the reader
    /// may be one of them. What they sent stays what it is.
    fn tell_late(&mut self) {
        self.progress = None;
        let pending = self.pending.keys().copied();
        for number in self.outbox.all_unanswered().chain(pending) {
            self.calls.finish(number, Err(Error::Timeout), &mut self.wakes);
        }
        self.outbox.call_all(&mut self.wakes);
    }
}

impl Machine for State {
    fn poll_output(&mut self) -> Option<Output> {
        self.core.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.core.poll_timeout(), self.answer_due()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        self.step(now);
        if self.answer_due().is_none_or(|due| due > now) {
            return;
        }
        if !self.is_reading {
            self.tell_late();
        } else if let Some(command) = self.awaited() {
            self.core.fail(now, Cause::CommandTimeout(command));
            self.step(now);
        }
    }

    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        self.core.handle_dialled(now, line, result);
        self.step(now);
    }

    fn handle_bytes(&mut self, now: Instant, line: Line, bytes: &[u8]) {
        let mut input = bytes;
        while self.core.is_current(line) {
            match self.core.decode(now, line, &mut input) {
                Some(Inbound::Bytes(bytes)) => self.take_bytes(now, bytes),
                Some(Inbound::Message(_, bytes)) => self.take_bytes(now, &bytes),
                // Server-sent events carry no STOMP.
                Some(Inbound::Event { .. }) => {}
                None => break,
            }
        }
        self.note_reading(now);
        self.step(now);
    }

    fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize) {
        self.core.handle_unwritten(now, line, unwritten);
        if self.backlog > 0 {
            self.progress = Some(now);
        }
        self.backlog = unwritten;
        self.step(now);
    }

    fn handle_end(&mut self, now: Instant, line: Line, end: End) {
        self.core.handle_end(now, line, end);
        self.step(now);
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.leave(now);
        self.core.abandon();
        self.step(now);
    }

    fn wants_bytes(&self, line: Line) -> bool {
        self.core.wants_bytes(line)
    }

    fn take_wakes(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakes)
    }

    fn is_over(&self) -> bool {
        self.core.is_over()
    }
}
