//! A feed without IO: what it asks for, where it stands, what its reader is told.
//!
//! It is a [`Machine`] on top of [`Core`], which connects and comes back. What is added here is the dialect: the request
//! that names channels, session and position, and the objects that come. What it is not: it keeps nothing that was sent
//! and not written; a message is given to a connection or stays with its caller.
//!
//! What must stay true: the position is that of what was given to the reader or waits for it; a full reader stops the
//! socket, not the memory; after a break whatever is not said to be recovered is told to be missing.

use super::event::{Answer, Content, Event, Object, Welcome};
use super::settings::Settings;
use super::{FirstPacket, Format};
use crate::address::Address;
use crate::cause::Cause;
use crate::core::{self, Asks, Core, Inbound, Plan, Stats, Terms};
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::options::WhenFull;
use crate::transport::Transport;
use bytes::Bytes;
use longwire_protocol::heartbeat::{Intervals, Kind, OFF};
use longwire_protocol::plain::Framer;
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::websocket::Kind as MessageKind;
use longwire_protocol::{Advice, Continuity, continuity};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use url::form_urlencoded::byte_serialize;

/// What may wait for the reader at least, in bytes of data.
const MIN_WAITING_BYTES: usize = 1 << 20;

/// How many transitions wait for a reader who takes nothing.
const MAX_TRANSITIONS: usize = 256;

/// A feed without IO.
pub struct State {
    core: Core,
    settings: Box<Settings>,
    transport: Transport,
    framer: Option<Framer>,
    phase: Phase,
    /// By what name it returns.
    client: String,
    /// The name of its session, which proves that it is its own.
    session: String,
    positions: PositionToken,
    /// The position as the server wrote it, where it writes all of it.
    since: Option<String>,
    was_welcome: bool,
    /// That something may be missing was told already, of everything, when this connection began.
    is_loss_told: bool,
    /// Whom it asked.
    server: Option<Arc<Address>>,
    /// The next welcome is the first of this connection.
    is_strange: bool,
    /// A poll is due.
    is_poll_due: bool,
    events: VecDeque<Event>,
    /// The data in them.
    waiting_bytes: usize,
    missed: u64,
    is_full: bool,
    /// The driver is to look, because a reader has caught up.
    is_resumed: bool,
    reader: Option<Waker>,
    /// Who waits to send, by number.
    pub(super) senders: BTreeMap<u64, Waker>,
    last_sender: u64,
    wakes: Vec<Waker>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    Away,
    /// The request is made; the welcome is awaited.
    Asked,
    Welcome,
    Over(Error),
}

impl State {
    /// Makes a feed that does nothing before [`start`](Self::start).
    ///
    /// # Errors
    /// If the settings make no sense.
    pub fn new(mut settings: Settings) -> Result<State, Error> {
        let transport = settings.transport()?;
        settings.check(transport)?;
        if !settings.token.is_empty() && transport != Transport::Tcp {
            // Not in the URL, which every proxy on the way may log.
            settings.options.headers.push(("Authorization".into(), format!("Bearer {}", settings.token)));
        }
        let plan = Plan {
            servers: settings.servers.clone(),
            transports: vec![transport],
            target: |address, _| address.target.clone(),
            subprotocols: &[],
            uplink: "/send",
            asks: Asks::WithTarget,
        };
        let positions = PositionToken::parse(settings.since.as_bytes()).unwrap_or_default();
        Ok(State {
            core: Core::new(plan, settings.options.clone()),
            transport,
            framer: None,
            phase: Phase::Away,
            client: settings.client.clone(),
            session: String::new(),
            since: (!settings.since.is_empty()).then(|| settings.since.clone()),
            positions,
            was_welcome: false,
            is_loss_told: false,
            server: None,
            is_strange: false,
            is_poll_due: false,
            events: VecDeque::new(),
            waiting_bytes: 0,
            missed: 0,
            is_full: false,
            is_resumed: false,
            reader: None,
            senders: BTreeMap::new(),
            last_sender: 0,
            wakes: Vec::new(),
            settings: Box::new(settings),
        })
    }

    /// Begins to connect.
    pub fn start(&mut self, now: Instant) {
        self.core.start(now);
        self.work(now);
    }

    /// Ends for ever; what was given to the connection is still written.
    pub fn close(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Over(_)) {
            self.core.leave(now);
            self.end(Error::Closed);
            self.work(now);
        }
    }

    /// Where the reader stands once it has taken what waits: what a later feed's `since` goes on from. Empty for nowhere.
    pub fn position(&self) -> String {
        self.since.clone().unwrap_or_else(|| {
            let mut text = Vec::new();
            self.positions.write(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    }

    /// What was counted.
    pub fn stats(&self) -> &Stats {
        self.core.stats()
    }

    /// Gives what was heard next; `Ready(None)` when nothing follows.
    pub fn poll_event(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let Some(event) = self.try_event(now) else {
            if matches!(self.phase, Phase::Over(_)) {
                return Poll::Ready(None);
            }
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(Some(event))
    }

    /// Gives what was heard already.
    pub fn try_event(&mut self, now: Instant) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.waiting_bytes -= event.data_bytes();
        let is_low = self.events.len() <= self.settings.options.max_buffered / 2
            && self.waiting_bytes <= self.max_bytes() / 2;
        if self.is_full && is_low {
            self.is_full = false;
            self.is_resumed = true;
            self.core.set_reading(now, true);
            self.ask_again(now);
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Whether whoever moves it is to look, because a reader has caught up; true once each time.
    pub fn take_resumed(&mut self) -> bool {
        std::mem::take(&mut self.is_resumed)
    }

    /// Why nothing follows, once nothing does.
    pub fn error(&self) -> Option<&Error> {
        match &self.phase {
            Phase::Over(error) => Some(error),
            _ => None,
        }
    }

    /// Gives a message for the backend to the connection, once there is one that takes it. `sender` is `None` at first, and
    /// for [`forget_sender`](Self::forget_sender) later.
    pub fn poll_send(
        &mut self,
        now: Instant,
        message: &[u8],
        is_text: bool,
        sender: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let outbox = self.settings.options.outbox;
        match &self.phase {
            Phase::Over(error) => return Poll::Ready(Err(error.clone())),
            Phase::Welcome if self.transport != Transport::Tcp && self.session.is_empty() => {
                return Poll::Ready(Err(Error::NotAvailable { transport: self.transport.name() }));
            }
            Phase::Welcome if self.core.unwritten() < outbox.max_bytes => {}
            _ if outbox.when_full == WhenFull::Fail => return Poll::Ready(Err(Error::OutboxFull)),
            _ => {
                let number = *sender.get_or_insert_with(|| {
                    self.last_sender += 1;
                    self.last_sender
                });
                self.senders.insert(number, cx.waker().clone());
                return Poll::Pending;
            }
        }
        let kind = if is_text { MessageKind::Text } else { MessageKind::Binary };
        if self.transport == Transport::Tcp {
            let mut packet = Vec::new();
            if !self.settings.framing.write(message, &mut packet) {
                return Poll::Ready(Err(Error::bad_argument("the message is longer than a packet can be")));
            }
            self.core.send(now, kind, &packet);
        } else {
            self.core.post(now, kind, message);
        }
        self.work(now);
        Poll::Ready(Ok(()))
    }

    /// Wakes a sender no more, which may have given up.
    pub fn forget_sender(&mut self, sender: u64) {
        self.senders.remove(&sender);
    }

    // What follows from inputs.

    fn work(&mut self, now: Instant) {
        while let Some(event) = self.core.poll_event() {
            self.handle_event(now, event);
        }
        self.tell_transitions(now);
        let can_send =
            self.phase == Phase::Welcome && self.core.unwritten() < self.settings.options.outbox.max_bytes;
        if can_send || matches!(self.phase, Phase::Over(_)) {
            self.wakes.extend(std::mem::take(&mut self.senders).into_values());
        }
        if matches!(self.phase, Phase::Over(_)) {
            self.wakes.extend(self.reader.take());
        }
    }

    fn tell_transitions(&mut self, now: Instant) {
        for transition in self.core.take_transitions() {
            // They come however little is read.
            if self.events.len() >= self.settings.options.max_buffered.saturating_add(MAX_TRANSITIONS) {
                self.missed += 1;
                continue;
            }
            let missed = std::mem::take(&mut self.missed);
            if missed > 0 {
                self.tell(now, Event::Missed { events: missed });
            }
            self.tell(now, Event::Transition(transition));
        }
    }

    fn handle_event(&mut self, now: Instant, event: core::Event) {
        match event {
            core::Event::Open(opened) => {
                self.framer = None;
                self.phase = Phase::Asked;
                self.is_strange = true;
                self.is_loss_told = false;
                self.server = Some(Arc::clone(&opened.server));
                self.log_in(now, &opened.server);
            }
            core::Event::BeatDue => {
                if let Some(beat) = &self.settings.heartbeat {
                    let packet = self.settings.framing.packet(&beat.says);
                    self.core.send(now, MessageKind::Binary, &packet);
                }
            }
            core::Event::Lost(_) => {
                self.was_welcome |= self.phase == Phase::Welcome;
                self.phase = Phase::Away;
                self.is_poll_due = false;
            }
            core::Event::GaveUp(cause, limit) => self.end(Error::GaveUp { cause, limit }),
        }
    }

    /// How much data may wait for the reader: few messages may be as long as many.
    fn max_bytes(&self) -> usize {
        self.settings.options.max_message_bytes.max(MIN_WAITING_BYTES)
    }

    fn end(&mut self, error: Error) {
        self.phase = Phase::Over(error);
        self.wakes.extend(self.reader.take());
    }

    fn tell(&mut self, now: Instant, event: Event) {
        self.waiting_bytes += event.data_bytes();
        self.events.push_back(event);
        self.wakes.extend(self.reader.take());
        let is_high = self.events.len() >= self.settings.options.max_buffered.max(1)
            || self.waiting_bytes > self.max_bytes();
        if !self.is_full && is_high {
            self.is_full = true;
            self.core.set_reading(now, false);
        }
    }

    /// Says what it wants of the server.
    fn log_in(&mut self, now: Instant, server: &Address) {
        match self.transport {
            Transport::Tcp => {
                self.framer = Some(Framer::new(
                    self.settings.framing,
                    u32::try_from(self.settings.options.max_message_bytes).unwrap_or(u32::MAX),
                ));
                if let Some(packet) = self.first_packet() {
                    self.core.send(now, MessageKind::Binary, &packet);
                }
            }
            _ => {
                let target = self.target(server);
                self.core.send(now, MessageKind::Text, target.as_bytes());
            }
        }
        // There is no welcome where nothing but data comes, and none is promised where nothing was said.
        let is_welcomed = match self.transport {
            Transport::Tcp => {
                self.settings.format == Format::Json && self.settings.first_packet != FirstPacket::None
            }
            Transport::Poll => true,
            _ => self.settings.format == Format::Json,
        };
        if !is_welcomed {
            self.welcome(now);
            if self.was_welcome {
                self.is_loss_told = true;
                self.tell(now, Event::NotRecovered { channel: None });
            }
        }
    }

    /// Notes that the login is done, and tells so before anything that follows from it.
    fn welcome(&mut self, now: Instant) {
        self.phase = Phase::Welcome;
        let silence = self.settings.options.timeouts.silence;
        let (interval, max_silence) = match (self.transport, &self.settings.heartbeat) {
            (Transport::Tcp, None) => (OFF, OFF),
            (_, Some(beat)) if beat.answer.is_empty() => (beat.interval, OFF),
            (_, Some(beat)) => (beat.interval, silence.max(beat.interval.saturating_mul(2))),
            (Transport::Poll, None) => (OFF, silence.saturating_add(self.settings.wait)),
            (_, None) => (OFF, silence),
        };
        let terms = Terms {
            intervals: Intervals { interval, timeout: OFF, max_silence },
            kind: Kind::Idle,
            session: self.session.clone(),
            node: String::new(),
        };
        self.core.logged_in(now, terms);
        self.tell_transitions(now);
    }

    /// Path and query with everything that it says of itself.
    fn target(&self, server: &Address) -> String {
        let (path, query) = match server.target.split_once('?') {
            Some((path, query)) => (path, query),
            None => (&*server.target, ""),
        };
        let own = match self.transport {
            Transport::EventStream => "/sse",
            Transport::Stream => "/stream",
            _ => "/poll",
        };
        let mut target = if path.ends_with(own) {
            path.to_owned()
        } else {
            format!("{}{own}", path.trim_end_matches('/'))
        };
        let mut separator = '?';
        let mut add = |name: &str, value: &str| {
            target.push(separator);
            separator = '&';
            target.push_str(name);
            if !name.is_empty() {
                target.push('=');
                target.extend(byte_serialize(value.as_bytes()));
            } else {
                target.push_str(value);
            }
        };
        if !query.is_empty() {
            add("", query);
        }
        for channel in &self.settings.channels {
            add("channel", channel);
        }
        if !self.client.is_empty() {
            add("client", &self.client);
        }
        if !self.session.is_empty() && !self.client.is_empty() {
            add("session", &self.session);
        }
        let since = self.position();
        if !since.is_empty() {
            add("since", &since);
        }
        match self.transport {
            // The first of a connection is its login, and has to be answered in time for that.
            Transport::Poll if self.phase == Phase::Asked && !since.is_empty() => add("wait", "1"),
            Transport::Poll => add("wait", &self.settings.wait.as_secs().max(1).to_string()),
            Transport::Stream if self.settings.format == Format::Bare => add("format", "bare"),
            Transport::Stream => add("format", "json"),
            _ => {}
        }
        target
    }

    fn first_packet(&self) -> Option<Bytes> {
        let body = match self.settings.first_packet {
            FirstPacket::None => return None,
            FirstPacket::Client => self.client.clone(),
            FirstPacket::Token => self.settings.token.clone(),
            FirstPacket::Json => {
                let mut object = serde_json::Map::new();
                let mut add = |name: &str, value: &str| {
                    if !value.is_empty() {
                        object.insert(name.to_owned(), value.into());
                    }
                };
                add("token", &self.settings.token);
                add("client", &self.client);
                if !self.client.is_empty() {
                    add("session", &self.session);
                }
                add("since", &self.position());
                if !self.settings.channels.is_empty() {
                    object.insert("channels".to_owned(), self.settings.channels.clone().into());
                }
                serde_json::Value::Object(object).to_string()
            }
        };
        Some(self.settings.framing.packet(body.as_bytes()))
    }

    /// Polls again, if that is due and the reader keeps up.
    fn ask_again(&mut self, now: Instant) {
        if self.is_full || self.phase != Phase::Welcome || !std::mem::take(&mut self.is_poll_due) {
            return;
        }
        if let Some(server) = self.server.clone() {
            let target = self.target(&server);
            self.core.send(now, MessageKind::Text, target.as_bytes());
        }
    }

    fn handle_message(&mut self, now: Instant, name: Option<&str>, message: &Bytes) {
        let handled = match (self.transport, self.settings.format) {
            (Transport::Poll, _) => self.handle_answer(now, message),
            (_, Format::Bare) => {
                self.tell(now, Event::Message(content(message)));
                Ok(())
            }
            _ => Object::read(message, name).and_then(|object| self.handle_object(now, object)),
        };
        if let Err(what) = handled {
            self.core.fail(now, Cause::Protocol(what));
        }
    }

    fn handle_packet(&mut self, now: Instant, packet: &Bytes) -> Result<(), String> {
        if self
            .settings
            .heartbeat
            .as_ref()
            .is_some_and(|beat| !beat.answer.is_empty() && beat.answer == *packet)
        {
            return Ok(());
        }
        if self.settings.format == Format::Json && packet.trim_ascii_start().first() == Some(&b'{') {
            return Object::read(packet, None).and_then(|object| self.handle_object(now, object));
        }
        // A sign of life of the server's own, or what the backend sent as it is.
        self.tell(now, Event::Message(content(packet)));
        Ok(())
    }

    fn handle_answer(&mut self, now: Instant, message: &Bytes) -> Result<(), String> {
        if message.is_empty() {
            if self.phase == Phase::Asked {
                self.welcome(now);
            }
        } else {
            let Answer { welcome, since, objects } = Answer::read(message)?;
            self.greet(now, welcome);
            for object in objects {
                self.handle_object(now, object?)?;
            }
            if !since.is_empty() {
                self.since = Some(since);
            }
        }
        self.is_poll_due = true;
        self.ask_again(now);
        Ok(())
    }

    /// Takes a welcome. Each answer to a poll is one: but for the first of a connection only what is wrong is told.
    fn greet(&mut self, now: Instant, welcome: Welcome) {
        if self.phase == Phase::Asked
            && let Some(channel) = self.passed_over(&welcome)
        {
            return self.core.fail(now, Cause::PassedOver { channel });
        }
        let Welcome { client, session, name, resumed, recovered, channels, id } = welcome;
        if !session.is_empty() {
            self.core.set_session(&session);
            self.session = session;
        }
        if !name.is_empty() {
            self.client = name;
        }
        let returns = std::mem::replace(&mut self.was_welcome, true) || !self.settings.since.is_empty();
        let is_first = std::mem::take(&mut self.is_strange);
        if self.phase == Phase::Asked {
            self.welcome(now);
        }
        if is_first {
            self.tell(now, Event::Opened { client, resumed });
        }
        let (mut is_any_told, mut is_any_missing) = (false, false);
        for (channel, standing) in channels {
            let channel = Some(channel);
            match standing.recovered {
                _ if self.is_loss_told => {}
                Some(true) => {
                    is_any_told = true;
                    self.tell(now, Event::Recovered { channel, publications: standing.publications });
                }
                Some(false) => {
                    is_any_missing = true;
                    self.tell(now, Event::NotRecovered { channel });
                }
                // Nothing was asked about it, and the reader had been there.
                None if returns && !resumed => {
                    is_any_missing = true;
                    self.tell(now, Event::NotRecovered { channel });
                }
                None => {}
            }
        }
        let is_lost = recovered == Some(false) || recovered.is_none() && returns && is_first && !resumed;
        if self.is_loss_told {
            // More was lost than this connection's server knows of.
        } else if is_lost && !is_any_missing {
            self.tell(now, Event::NotRecovered { channel: None });
        } else if recovered == Some(true) && is_first && returns && !is_any_told {
            self.tell(now, Event::Recovered { channel: None, publications: 0 });
        }
        self.stand_at(&id);
    }

    /// The channel that a first packet asked for and its welcome does not know of, if there is one. Whoever reads the packet
    /// grants each of its channels or refuses the connection, so that nobody read it. A session that goes on has the channels
    /// that it had.
    fn passed_over(&self, welcome: &Welcome) -> Option<String> {
        if self.transport != Transport::Tcp || welcome.resumed {
            return None;
        }
        self.settings.channels.iter().find(|channel| !welcome.channels.contains_key(*channel)).cloned()
    }

    /// Notes where the reader stands in the channels that `id` names.
    fn stand_at(&mut self, id: &str) {
        if self.transport == Transport::EventStream {
            // Each names all channels, and stands in the event's own field.
            if let Some(id) = self.core.last_event_id().filter(|id| !id.is_empty())
                && self.since.as_deref() != Some(id)
            {
                self.positions = PositionToken::parse(id.as_bytes()).unwrap_or_default();
                self.since = Some(id.to_owned());
            }
            return;
        }
        if let Ok(named) = PositionToken::parse(id.as_bytes()) {
            for (channel, position) in named.iter() {
                self.positions.set(channel, position);
            }
            if !named.is_empty() && self.transport != Transport::Poll {
                self.since = None;
            }
        }
    }

    fn handle_object(&mut self, now: Instant, object: Object) -> Result<(), String> {
        match object {
            Object::Welcome(welcome) => self.greet(now, *welcome),
            Object::Publication { publication, id } => {
                let before = self.positions.get(&publication.channel);
                self.stand_at(&id);
                let after = self.positions.get(&publication.channel);
                // One without a place, or whose place is not named, is not compared with others.
                let after =
                    after.filter(|after| publication.offset != 0 && after.offset == publication.offset);
                if let (Some(before), Some(after)) = (before, after) {
                    match continuity(&before, &after) {
                        Continuity::Next => {}
                        Continuity::Duplicate => {
                            self.positions.set(&publication.channel, before);
                            return Ok(());
                        }
                        Continuity::Gap | Continuity::OtherEpoch => {
                            let channel = Some(publication.channel.clone());
                            self.tell(now, Event::NotRecovered { channel });
                        }
                    }
                }
                self.tell(now, Event::Publication(publication));
            }
            Object::Message(content) => {
                self.stand_at("");
                self.tell(now, Event::Message(content));
            }
            Object::Join { channel, info } => self.tell(now, Event::Join { channel, info }),
            Object::Leave { channel, info } => self.tell(now, Event::Leave { channel, info }),
            Object::Subscribed { channel, id } => {
                self.stand_at(&id);
                self.tell(now, Event::Subscribed { channel });
            }
            Object::Unsubscribed { channel, code, reason } => {
                self.positions.remove(&channel);
                if self.transport != Transport::Poll {
                    self.since = None;
                }
                self.tell(now, Event::Unsubscribed { channel, code, reason });
            }
            Object::Refused { code, reason } => self.tell(now, Event::Refused { code, reason }),
            Object::Disconnect { code, reason, reconnect } => {
                let cause = match Cause::told(code, reason) {
                    Cause::Told { code, text, advice, after } => {
                        let advice = match (reconnect, advice) {
                            (true, Advice::Stop) => Advice::Reconnect,
                            (false, _) => Advice::Stop,
                            (true, advice) => advice,
                        };
                        Cause::Told { code, text, advice, after }
                    }
                    other => other,
                };
                self.core.fail(now, cause);
            }
            Object::Other => {}
        }
        Ok(())
    }

    fn handle_packets(&mut self, now: Instant, line: Line, mut bytes: &[u8]) {
        while self.core.is_current(line) {
            let Some(framer) = &mut self.framer else { return };
            let handled = match framer.decode(&mut bytes) {
                Ok(None) => return,
                Ok(Some(packet)) => self.handle_packet(now, &packet),
                Err(violation) => Err(violation.what.to_owned()),
            };
            if let Err(what) = handled {
                self.core.fail(now, Cause::Protocol(what));
            }
        }
    }
}

/// What bytes are, of which nothing else is known.
fn content(bytes: &Bytes) -> Content {
    match serde_json::from_slice::<&serde_json::value::RawValue>(bytes) {
        Ok(_) => Content::Json(bytes.clone()),
        Err(_) => Content::Bytes(bytes.clone()),
    }
}

impl Machine for State {
    fn poll_output(&mut self) -> Option<Output> {
        self.core.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        self.work(now);
    }

    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        self.core.handle_dialled(now, line, result);
        self.work(now);
    }

    fn handle_bytes(&mut self, now: Instant, line: Line, mut bytes: &[u8]) {
        while let Some(inbound) = self.core.decode(now, line, &mut bytes) {
            match inbound {
                Inbound::Message(_, message) => {
                    let name = (self.transport == Transport::EventStream).then_some("message");
                    self.handle_message(now, name, &message);
                }
                Inbound::Event { name, data } => self.handle_message(now, Some(&name), &data),
                Inbound::Bytes(bytes) => self.handle_packets(now, line, bytes),
            }
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

    fn handle_abandoned(&mut self, now: Instant) {
        self.close(now);
        self.core.abandon();
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

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("transport", &self.transport).field("phase", &self.phase).finish()
    }
}
