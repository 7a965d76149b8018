//! What every dialect's client stands on: which server and transport next, when, and whether the connection lives.
//!
//! A [`Core`] lives inside a dialect's machine, which passes every input of its driver on and then asks
//! [`Core::poll_event`] what that meant: `Open`, and the dialect logs in; `Lost`, and it forgets what belonged to the
//! connection. It dials through the ladder of transports and the list of servers, keeps the deadlines of dialling, login
//! and writing, runs the heartbeat, answers WebSocket pings, counts, and tells each transition.
//!
//! What it is not: it understands no message, and knows neither subscriptions nor receipts. What must stay true: at any
//! time there is at most one connection; after `Lost` nothing of it is heard again; everything that was sent is written
//! in order, or the connection is lost; chance and time come from outside.

mod http;
mod outputs;
pub(crate) mod reconnect;
mod stats;
#[cfg(test)]
mod tests;
mod uplink;

pub(crate) use crate::carrier::Inbound;
pub use stats::Stats;

use crate::address::Address;
use crate::carrier::poll::Poll;
use crate::carrier::stream::Stream;
use crate::carrier::websocket::{Ask, WebSocket};
use crate::carrier::{Carrier, Step};
use crate::cause::Cause;
use crate::chance::Chance;
use crate::machine::{End, Line, Output};
use crate::options::Options;
use crate::transition::{Limit, Transition};
use crate::transport::Transport;
use longwire_protocol::heartbeat::{self, Due, Heartbeat, Intervals};
use longwire_protocol::websocket::Kind;
use outputs::{Outputs, Writes};
use reconnect::{Next, Reached, Turn};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use uplink::Uplink;

/// What a dialect says of where and how it connects.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The servers, tried in turn; at least one.
    pub(crate) servers: Vec<Arc<Address>>,
    /// The ladder of transports at each server, the best first; one to eight.
    pub(crate) transports: Vec<Transport>,
    /// Path and query to ask for.
    pub(crate) target: fn(&Address, Transport) -> String,
    /// Subprotocols of WebSocket handshakes.
    pub(crate) subprotocols: &'static [&'static str],
    /// Where messages go beside a stream: `/emulation` or `/send`.
    pub(crate) uplink: &'static str,
    /// What the first message over HTTP is.
    pub(crate) asks: Asks,
}

/// What the first message over HTTP is; it does not concern WebSockets and raw TCP. An empty one asks for the plan's
/// target with a GET, whichever it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Asks {
    /// A login: the body of a stream's POST, or `cf_connect` of an event stream's GET. Later messages are posted to the
    /// uplink as the centrifuge dialect's emulation wants them.
    WithLogin,
    /// The target of a GET, position and token included; of each request, where it polls. What goes up is given to
    /// [`Core::post`].
    WithTarget,
}

/// What an input meant; asked for with [`Core::poll_event`] after each.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The carrier is ready: send the login.
    Open(Opened),
    /// The heartbeat wants a beat of the dialect.
    BeatDue,
    /// The connection, or the attempt, is gone. Another `Open` may follow.
    Lost(Cause),
    /// None will.
    GaveUp(Cause, Limit),
}

/// A connection without a login.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// To whom.
    pub(crate) server: Arc<Address>,
    /// By which transport.
    pub(crate) transport: Transport,
    /// The subprotocol that the server chose, if it is a WebSocket and did.
    pub(crate) subprotocol: Option<String>,
}

/// What was agreed upon at the login.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The heartbeat's intervals.
    pub(crate) intervals: Intervals,
    /// What the heartbeat expects.
    pub(crate) kind: heartbeat::Kind,
    /// The session's name, for the uplink; empty where there is none.
    pub(crate) session: String,
    /// The node's name, for the uplink; empty where there is none.
    pub(crate) node: String,
}

/// The connection of a client, without IO.
pub(crate) struct Core {
    plan: Plan,
    options: Arc<Options>,
    chance: Chance,
    turn: Turn,
    phase: Phase,
    link: Option<Box<Link>>,
    next_line: u32,
    /// What the dialect wants of connections whose login is done.
    is_reading: bool,
    outputs: Outputs,
    events: VecDeque<Event>,
    transitions: Vec<Transition>,
    stats: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    New,
    /// The next attempt begins then.
    Waiting(Instant),
    /// There is a link.
    Linked,
    /// There will be none.
    Over,
}

/// One attempt, and the connection it becomes.
struct Link {
    line: Line,
    server: Arc<Address>,
    transport: Transport,
    carrier: Carrier,
    stage: Stage,
    /// By when the stage has to be left.
    deadline: Option<Instant>,
    beat: Option<(Heartbeat, Intervals)>,
    writes: Writes,
    /// The path of the last request, once one was made.
    asked: Option<String>,
    /// A poll's request that is to be written when its new line is there, or may have to be written again.
    request: Vec<u8>,
    poll_line: PollLine,
    uplink: Option<Box<Uplink>>,
    session: String,
    node: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Dialling,
    Handshake,
    Open,
    LoggedIn(Instant),
    /// What was sent is being written.
    Leaving,
}

/// The state of the line over which it is polled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PollLine {
    Fresh,
    /// It carried an answer: the server may have ended it meanwhile.
    Used,
    /// It is gone; the next request takes another.
    Gone,
    Dialling,
}

/// How many transitions wait for somebody who never takes them.
const MAX_TRANSITIONS: usize = 256;

/// How many bytes may wait to be written before pings are passed over.
const MAX_UNREAD_ANSWERS: usize = 256 << 10;

/// What a driver may take longer than it was told.
const DIAL_GRACE: Duration = Duration::from_secs(1);

impl Core {
    /// What a connection takes besides its `Core`.
    #[cfg(test)]
    pub(crate) const LINK_BYTES: usize = size_of::<Link>();

    pub(crate) fn new(plan: Plan, options: impl Into<Arc<Options>>) -> Core {
        let options = options.into().shared();
        let turn = Turn::new(plan.servers.len(), plan.transports.len(), &options.reconnect);
        Core {
            chance: Chance::new(options.seed),
            turn,
            plan,
            options,
            phase: Phase::New,
            link: None,
            next_line: 0,
            is_reading: true,
            outputs: Outputs::new(),
            events: VecDeque::new(),
            transitions: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Begins to connect; once.
    pub(crate) fn start(&mut self, now: Instant) {
        if self.phase == Phase::New {
            self.dial(now);
        }
    }

    /// Ends for ever: what was sent is written if the server takes it within the write timeout.
    pub(crate) fn leave(&mut self, now: Instant) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.note(Transition::Closed, None);
        let Some(link) = &mut self.link else { return };
        if matches!(link.stage, Stage::Dialling | Stage::Handshake) {
            return self.close_link(true);
        }
        if let Carrier::WebSocket(websocket) = &mut link.carrier {
            // RFC 6455 section 7.4.1: a normal closure.
            websocket.close(1000, "", &mut self.chance, self.outputs.buffer(link.line));
        }
        link.stage = Stage::Leaving;
        link.deadline = Some(now + self.options.timeouts.write);
        self.leave_if_written();
    }

    /// Ends at once, with nobody left to write anything.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Over;
        self.close_link(true);
    }

    /// Whether there is nothing more to do, for ever.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.link.is_none()
    }

    /// Whether the login is done and the connection not lost.
    #[cfg(test)]
    pub(crate) fn is_logged_in(&self) -> bool {
        self.link.as_ref().is_some_and(|link| matches!(link.stage, Stage::LoggedIn(_)))
    }

    /// Whether bytes of this line still mean something to the dialect.
    pub(crate) fn is_current(&self, line: Line) -> bool {
        self.link.as_ref().is_some_and(|link| link.line == line && link.is_live())
    }

    /// How many bytes that were sent are not known to be written; on the uplink, to have arrived.
    pub(crate) fn unwritten(&self) -> usize {
        self.link.as_ref().map_or(0, |link| {
            let uplink = link.uplink.as_ref().map_or(0, |uplink| uplink.unwritten());
            self.outputs.queued(link.line) + link.writes.unwritten() + uplink
        })
    }

    /// What was counted.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What happened since this was asked last; they are in the log and counted without it.
    pub(crate) fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// What the client was told.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// A number from 0.0 up to but not including 1.0.
    pub(crate) fn draw(&mut self) -> f64 {
        self.chance.draw()
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.chance.bits()
    }

    /// The id that server-sent events gave last on this connection.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        match &self.link.as_ref()?.carrier {
            Carrier::Stream(stream) => stream.last_event_id(),
            _ => None,
        }
    }

    /// What the last input meant; asked until `None`.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        event
    }

    // What the dialect says.

    /// Notes that the login is done and what was agreed upon.
    pub(crate) fn logged_in(&mut self, now: Instant, terms: Terms) {
        let spread = self.chance.draw();
        let Some(link) = self.link.as_mut().filter(|link| link.stage == Stage::Open) else { return };
        link.stage = Stage::LoggedIn(now);
        link.deadline = None;
        link.beat = Some((Heartbeat::new(now, &terms.intervals, terms.kind, spread), terms.intervals));
        // Nobody asks for them where messages go up the way they come down.
        if matches!(link.carrier, Carrier::Stream(_) | Carrier::Poll(_)) {
            link.session = terms.session;
            link.node = terms.node;
        }
        self.stats.transport = Some(link.transport);
        self.stats.connects += 1;
        self.turn.succeed();
        if let Some(transition) = self.standing() {
            self.note(transition, None);
        }
        self.advance_uplink(now);
    }

    /// What somebody who listens from here on is told first: that there is a connection, if there is one.
    pub(crate) fn standing(&self) -> Option<Transition> {
        let link = self.link.as_ref().filter(|link| matches!(link.stage, Stage::LoggedIn(_)))?;
        let (server, transport) = (link.server.to_string(), link.transport.name());
        Some(Transition::Connected { server, transport, again: self.stats.connects > 1 })
    }

    /// Goes on under another session's name, for the uplink.
    pub(crate) fn set_session(&mut self, session: &str) {
        if let Some(link) = self.link.as_mut().filter(|link| link.session != session) {
            session.clone_into(&mut link.session);
        }
    }

    /// Sends a message: a WebSocket frame, raw bytes, or what [`Asks`] says. Without an open connection it is dropped:
    /// what has to arrive is kept by the dialect.
    pub(crate) fn send(&mut self, now: Instant, kind: Kind, message: &[u8]) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_open()) else { return };
        self.stats.messages_sent += 1;
        match &mut link.carrier {
            Carrier::WebSocket(websocket) => {
                let out = self.outputs.buffer(link.line);
                websocket.encode(kind, message, &mut self.chance, out);
            }
            Carrier::Tcp => self.outputs.buffer(link.line).extend_from_slice(message),
            Carrier::Poll(_) => self.ask_poll(now, message),
            Carrier::Stream(_) if link.asked.is_none() => self.ask_stream(now, message),
            Carrier::Stream(_) => {
                self.stats.messages_sent -= 1;
                self.post(now, kind, message);
            }
        }
    }

    /// Sends a message by the uplink, whatever the transport of what comes; not before the login is done.
    pub(crate) fn post(&mut self, now: Instant, kind: Kind, message: &[u8]) {
        let form = self.form();
        let Some(link) = self.link.as_mut().filter(|link| link.is_open()) else { return };
        self.stats.messages_sent += 1;
        link.uplink.get_or_insert_with(|| Box::new(Uplink::new(form))).post(kind, message);
        self.advance_uplink(now);
    }

    /// Sends a WebSocket ping, where it is a WebSocket.
    pub(crate) fn ping(&mut self) {
        let Some(link) = self.link.as_mut().filter(|link| link.is_open()) else { return };
        if let Carrier::WebSocket(websocket) = &link.carrier {
            websocket.ping(&mut self.chance, self.outputs.buffer(link.line));
        }
    }

    /// Ends this connection for a cause that the dialect saw: the server said so, broke the protocol or did not answer.
    /// `Lost` follows as an event.
    pub(crate) fn fail(&mut self, now: Instant, cause: Cause) {
        if self.link.as_ref().is_some_and(|link| link.is_live() || link.stage == Stage::Dialling) {
            self.lose(now, cause);
        }
    }

    /// Notes whether the dialect wants more bytes, of this connection and of those that follow, whose logins are read in
    /// any case. While it does not, the server's silence is no sign.
    pub(crate) fn set_reading(&mut self, now: Instant, is_reading: bool) {
        let was_reading = std::mem::replace(&mut self.is_reading, is_reading);
        if let Some(link) = self.link.as_mut().filter(|_| is_reading && !was_reading) {
            link.hear(now);
        }
    }

    // What the driver says.

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop()?;
        if let Output::Transmit { line, bytes } = &output {
            self.stats.bytes_sent += bytes.len() as u64;
            if let Some(writes) = self.writes(*line) {
                writes.give(bytes.len());
            }
        }
        Some(output)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = match self.phase {
            Phase::Waiting(until) => Some(until),
            _ => None,
        };
        let link = self.link.as_ref().and_then(|link| link.poll_timeout(self.options.timeouts.write));
        [waiting, link].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting(until) if until <= now => self.dial(now),
            _ => self.handle_link_timeout(now),
        }
    }

    pub(crate) fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        let Some(link) = &mut self.link else { return };
        if let Some(uplink) = link.uplink.as_mut().filter(|uplink| uplink.line == Some(line)) {
            match result {
                Ok(()) => {
                    uplink.is_dialled = true;
                    self.advance_uplink(now);
                }
                Err(cause) => self.fail_or_leave(now, cause),
            }
        } else if link.line != line {
            // Of an attempt that was given up.
        } else if link.poll_line == PollLine::Dialling {
            match result {
                Ok(()) => {
                    link.poll_line = PollLine::Fresh;
                    self.outputs.buffer(line).extend_from_slice(&link.request);
                }
                Err(cause) => self.fail_or_leave(now, cause),
            }
        } else if link.stage == Stage::Dialling {
            match result {
                Ok(()) => self.begin(now),
                Err(cause) => self.lose(now, cause),
            }
        }
    }

    /// Takes what it can from the front of `input`; asked until `None`, and for no longer than the line
    /// [is current](Self::is_current).
    pub(crate) fn decode<'a>(
        &mut self,
        now: Instant,
        line: Line,
        input: &mut &'a [u8],
    ) -> Option<Inbound<'a>> {
        let before = input.len();
        let inbound = self.decode_step(now, line, input);
        self.stats.bytes_received += (before - input.len()) as u64;
        self.stats.messages_received += u64::from(inbound.is_some());
        inbound
    }

    /// Notes how many bytes that were given are not written.
    pub(crate) fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize) {
        if let Some(writes) = self.writes(line) {
            writes.note(now, unwritten);
            self.leave_if_written();
        }
    }

    pub(crate) fn handle_end(&mut self, now: Instant, line: Line, end: End) {
        let cause = match end {
            End::Eof => Cause::Ended,
            End::Reset => Cause::Reset,
            End::Failed(words) => Cause::Broken(words),
        };
        let Some(link) = &mut self.link else { return };
        if let Some(uplink) = link.uplink.as_mut().filter(|uplink| uplink.line == Some(line)) {
            let ended = uplink.handle_end(cause);
            self.outputs.push(Output::Close { line, abort: true });
            match ended {
                Ok(()) => self.advance_uplink(now),
                Err(cause) => self.fail_or_leave(now, cause),
            }
        } else if link.line == line {
            match &link.carrier {
                Carrier::Poll(poll) if !poll.is_awaited() && link.is_open() => {
                    link.poll_line = PollLine::Gone;
                    self.outputs.push(Output::Close { line, abort: true });
                }
                // Its end and the request crossed: a GET may be repeated.
                Carrier::Poll(poll) if link.poll_line == PollLine::Used && !poll.has_begun() => {
                    self.outputs.push(Output::Close { line, abort: true });
                    self.dial_poll();
                }
                _ => self.fail_or_leave(now, cause),
            }
        }
    }

    /// Whether more bytes are wanted from this line, as far as the connection is concerned.
    pub(crate) fn wants_bytes(&self, line: Line) -> bool {
        self.link.as_ref().is_some_and(|link| {
            link.line != line || self.is_reading || !matches!(link.stage, Stage::LoggedIn(_))
        })
    }

    // What follows is what they share.

    fn dial(&mut self, now: Instant) {
        let Some(server) = self.plan.servers.get(self.turn.server()).cloned() else { return };
        let transport = self.plan.transports.get(self.turn.rung()).copied().unwrap_or(Transport::WebSocket);
        self.turn.begin(now);
        let timeout = self.options.timeouts.connect;
        let line = self.dial_line(Arc::clone(&server));
        self.phase = Phase::Linked;
        self.stats.attempts += 1;
        let transition = Transition::Connecting {
            server: server.to_string(),
            transport: transport.name(),
            failures: self.turn.failures(),
        };
        self.link = Some(Box::new(Link {
            line,
            server,
            transport,
            carrier: Carrier::Tcp,
            stage: Stage::Dialling,
            deadline: Some(now + timeout + DIAL_GRACE),
            beat: None,
            writes: Writes::default(),
            asked: None,
            request: Vec::new(),
            poll_line: PollLine::Fresh,
            uplink: None,
            session: String::new(),
            node: String::new(),
        }));
        self.note(transition, None);
    }

    fn dial_line(&mut self, address: Arc<Address>) -> Line {
        let line = Line(self.next_line);
        self.next_line += 1;
        self.outputs.push(Output::Dial { line, address, timeout: self.options.timeouts.connect });
        line
    }

    /// The socket is there: the carrier begins.
    fn begin(&mut self, now: Instant) {
        let Some(link) = &mut self.link else { return };
        link.deadline = Some(now + self.options.timeouts.login);
        let max_message_bytes = self.options.max_message_bytes;
        link.carrier = match link.transport {
            Transport::WebSocket => {
                let ask = Ask {
                    host: &link.server.authority(),
                    target: &(self.plan.target)(&link.server, link.transport),
                    subprotocols: self.plan.subprotocols,
                    offer_deflate: self.options.offer_deflate,
                    headers: &self.options.headers,
                    max_message_bytes,
                };
                match WebSocket::begin(&ask, &mut self.chance, self.outputs.buffer(link.line)) {
                    Ok(websocket) => {
                        link.stage = Stage::Handshake;
                        link.carrier = Carrier::WebSocket(websocket);
                    }
                    Err(cause) => self.lose(now, cause),
                }
                return;
            }
            Transport::Stream => Carrier::Stream(Box::new(Stream::of_lines(max_message_bytes))),
            Transport::EventStream => Carrier::Stream(Box::new(Stream::of_events(max_message_bytes))),
            Transport::Poll => Carrier::Poll(Box::new(Poll::new(max_message_bytes))),
            Transport::Tcp => Carrier::Tcp,
        };
        self.open(None);
    }

    fn open(&mut self, subprotocol: Option<String>) {
        let Some(link) = &mut self.link else { return };
        link.stage = Stage::Open;
        let opened = Opened { server: Arc::clone(&link.server), transport: link.transport, subprotocol };
        self.events.push_back(Event::Open(opened));
    }

    fn decode_step<'a>(&mut self, now: Instant, line: Line, input: &mut &'a [u8]) -> Option<Inbound<'a>> {
        loop {
            let link = self.link.as_mut()?;
            if link.uplink.as_ref().is_some_and(|uplink| uplink.line == Some(line)) {
                self.handle_uplink_bytes(now, std::mem::take(input));
                return None;
            }
            if link.line != line || !link.is_live() {
                *input = &[];
                return None;
            }
            link.hear(now);
            let unwritten = link.writes.unwritten();
            let out = self.outputs.buffer(line);
            match link.carrier.decode(input, &mut self.chance, out) {
                Ok(None) => return None,
                Ok(Some(Step::Inbound(inbound))) => {
                    if matches!(link.carrier, Carrier::Poll(_)) {
                        link.poll_line = PollLine::Used;
                    }
                    return Some(inbound);
                }
                Ok(Some(Step::Opened { subprotocol })) => self.open(subprotocol),
                Ok(Some(Step::Pinged(data))) => {
                    // RFC 6455 section 5.5.3 asks for the last answer alone; who takes none gets no more of them.
                    if let Carrier::WebSocket(websocket) = &link.carrier
                        && unwritten + out.len() < MAX_UNREAD_ANSWERS
                    {
                        websocket.pong(&data, &mut self.chance, out);
                    }
                }
                Ok(Some(Step::LastAnswer(content))) => {
                    link.poll_line = PollLine::Gone;
                    self.outputs.push(Output::Close { line, abort: false });
                    *input = &[];
                    return Some(Inbound::Message(Kind::Text, content));
                }
                Ok(Some(Step::Ended(cause))) | Err(cause) => {
                    *input = &[];
                    self.lose(now, cause);
                    return None;
                }
            }
        }
    }

    fn handle_link_timeout(&mut self, now: Instant) {
        let write_timeout = self.options.timeouts.write;
        let unwritten = self.unwritten();
        let Some(link) = &mut self.link else { return };
        if link.deadline.is_some_and(|deadline| deadline <= now) {
            return match link.stage {
                Stage::Leaving => self.close_link(true),
                Stage::Dialling => self.lose(now, Cause::ConnectTimeout),
                _ => self.lose(now, Cause::LoginTimeout),
            };
        }
        if link.stage == Stage::Leaving {
            return;
        }
        if link.writes.stalls_at(write_timeout).is_some_and(|at| at <= now) {
            return self.lose(now, Cause::WriteStalled);
        }
        if let Some(uplink) = &mut link.uplink {
            match uplink.handle_timeout(now, write_timeout) {
                Ok(false) => {}
                Ok(true) => {
                    if let Some(line) = uplink.line {
                        self.outputs.push(Output::Close { line, abort: false });
                    }
                    link.uplink = None;
                }
                Err(cause) => return self.lose(now, cause),
            }
        }
        // Nobody speaks who was not asked.
        let is_at_rest = matches!(&link.carrier, Carrier::Poll(poll) if !poll.is_awaited());
        if let Some((heartbeat, intervals)) = &mut link.beat {
            if unwritten > 0 {
                heartbeat.defer(now, intervals);
            }
            if (is_at_rest || !self.is_reading) && heartbeat.is_overdue(now, intervals) {
                heartbeat.seen(now);
            }
            match heartbeat.handle_timeout(now, intervals) {
                Some(Due::Beat) => self.events.push_back(Event::BeatDue),
                Some(Due::PeerDead) => {
                    let silence = now.saturating_duration_since(heartbeat.last_seen());
                    return self.lose(now, Cause::Silent { silence });
                }
                None => {}
            }
        }
        self.advance_uplink(now);
    }

    /// Ends the link for `cause`, unless it is being left anyway.
    fn fail_or_leave(&mut self, now: Instant, cause: Cause) {
        match self.link.as_ref().map(|link| link.stage) {
            Some(Stage::Leaving) => self.close_link(true),
            Some(_) => self.lose(now, cause),
            None => {}
        }
    }

    /// The link is over; says what comes next.
    fn lose(&mut self, now: Instant, cause: Cause) {
        let Some(link) = &mut self.link else { return };
        let reached = match link.stage {
            Stage::Dialling => Reached::Nothing,
            Stage::LoggedIn(since) => Reached::Login(since),
            Stage::Handshake | Stage::Open | Stage::Leaving => Reached::Socket,
        };
        // A peer that takes or says nothing is not waited for; any other is told.
        let is_mute =
            matches!(cause, Cause::Silent { .. } | Cause::WriteStalled | Cause::Reset | Cause::Broken(_));
        if !is_mute
            && cause != Cause::Ended
            && let Carrier::WebSocket(websocket) = &mut link.carrier
        {
            let (code, text) = match cause {
                Cause::Protocol(_) => (1002, "protocol error"),
                _ => (1000, ""),
            };
            websocket.close(code, text, &mut self.chance, self.outputs.buffer(link.line));
        }
        let server = Arc::clone(&link.server);
        self.close_link(is_mute);
        let was_connected = matches!(reached, Reached::Login(_));
        self.stats.count(&cause, was_connected);
        let chance = self.chance.draw();
        let next = self.turn.end(now, &cause, reached, &self.options.reconnect, chance);
        let retry_in = match next {
            Next::Attempt { delay } => Some(delay),
            Next::GiveUp(_) => None,
        };
        let transition = Transition::Disconnected { cause: cause.clone(), was_connected, retry_in };
        self.note(transition, Some(&server));
        self.events.push_back(Event::Lost(cause.clone()));
        match next {
            Next::Attempt { delay } => self.phase = Phase::Waiting(now + delay),
            Next::GiveUp(limit) => {
                self.phase = Phase::Over;
                self.note(Transition::GaveUp { cause: cause.clone(), limit }, Some(&server));
                self.events.push_back(Event::GaveUp(cause, limit));
            }
        }
    }

    /// Has the sockets closed.
    fn close_link(&mut self, abort: bool) {
        let Some(link) = self.link.take() else { return };
        let uplink = link.uplink.and_then(|uplink| uplink.line);
        let main = (link.poll_line != PollLine::Gone).then_some(link.line);
        for line in [main, uplink].into_iter().flatten() {
            if abort {
                self.outputs.forget(line);
            }
            self.outputs.push(Output::Close { line, abort });
        }
        self.stats.transport = None;
    }

    /// Closes what is being left once all of it is written.
    fn leave_if_written(&mut self) {
        if self.link.as_ref().is_some_and(|link| link.stage == Stage::Leaving) && self.unwritten() == 0 {
            self.close_link(false);
        }
    }

    fn writes(&mut self, line: Line) -> Option<&mut Writes> {
        let link = self.link.as_mut()?;
        if link.line == line {
            return Some(&mut link.writes);
        }
        link.uplink.as_mut().filter(|uplink| uplink.line == Some(line)).map(|uplink| &mut uplink.writes)
    }

    /// Tells a transition: to the application, and to the log.
    fn note(&mut self, transition: Transition, server: Option<&Address>) {
        let server = server.map(|server| server.to_string()).unwrap_or_default();
        match &transition {
            Transition::Connecting { server, transport, failures } => {
                tracing::debug!(target: "longwire_client", %server, transport, failures, "{transition}");
            }
            Transition::Connected { server, transport, .. } => {
                tracing::info!(target: "longwire_client", %server, transport, "{transition}");
            }
            Transition::Disconnected { cause, .. } => {
                let (category, cause) = (cause.category().as_str(), cause.name());
                tracing::warn!(target: "longwire_client", server, cause, category, "{transition}");
            }
            Transition::GaveUp { cause, .. } => {
                let (category, cause) = (cause.category().as_str(), cause.name());
                tracing::error!(target: "longwire_client", server, cause, category, "{transition}");
            }
            Transition::Closed => tracing::debug!(target: "longwire_client", "{transition}"),
        }
        if self.transitions.len() >= MAX_TRANSITIONS {
            self.transitions.remove(0);
        }
        self.transitions.push(transition);
    }
}

impl Link {
    /// Whether its bytes mean something.
    fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Handshake | Stage::Open | Stage::LoggedIn(_))
    }

    /// Whether messages can be sent.
    fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::LoggedIn(_))
    }

    /// Notes a sign of life.
    fn hear(&mut self, now: Instant) {
        if let Some((heartbeat, _)) = &mut self.beat {
            heartbeat.seen(now);
        }
    }

    fn poll_timeout(&self, write_timeout: Duration) -> Option<Instant> {
        let stall = self.writes.stalls_at(write_timeout).filter(|_| self.stage != Stage::Leaving);
        let beat = self.beat.as_ref().map(|(heartbeat, intervals)| heartbeat.poll_timeout(intervals));
        let beat = beat.filter(|_| self.stage != Stage::Leaving);
        let uplink = self.uplink.as_ref().and_then(|uplink| uplink.poll_timeout(write_timeout));
        let uplink = uplink.filter(|_| self.stage != Stage::Leaving);
        [self.deadline, stall, beat, uplink].into_iter().flatten().min()
    }
}
