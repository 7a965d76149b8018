//! A connection without a dialect: whatever is sent goes as it is, whatever comes is given as it came.
//!
//! For tools that look at a wire, such as `longwire connect`. It dials, makes the handshake, answers WebSocket pings and comes back as any
//! client of this crate; logging in, beating and understanding are the caller's, which says [`Link::logged_in`] when the server has
//! taken it. What must stay true: events come in the order in which things happened; what waits for the reader is bounded, and beyond
//! that nothing more is read of the socket; nothing that was sent on one connection is sent again on the next.

use crate::address::{Address, Scheme};
use crate::cause::Cause;
use crate::core::{Asks, Core, Event as CoreEvent, Inbound, Plan, Terms};
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::options::Options;
use crate::shared::Shared;
use crate::transition::Transition;
use crate::transport::Transport;
use bytes::Bytes;
use longwire_protocol::heartbeat::{self, Intervals, OFF};
pub use longwire_protocol::websocket::Kind;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

/// What may wait for the reader, in bytes, before no more is read.
const MAX_WAITING_BYTES: usize = 1 << 20;

/// What an event counts besides its data.
const EVENT_BYTES: usize = 64;

/// What is going to be spoken, as far as the carrier has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// The centrifuge dialect: over HTTP the first message is the login.
    Centrifuge,
    /// STOMP.
    Stomp,
    /// The plain dialect, or nothing in particular: over HTTP the first message is the path and query to ask for, and of a
    /// poll each one is.
    Plain,
}

/// What happens on a link.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Bytes can be sent: log in, where the dialect does.
    Open {
        /// How they travel.
        transport: Transport,
        /// The subprotocol that the server chose.
        subprotocol: Option<String>,
    },
    /// Something came: a WebSocket message, a line of a stream, the data of an event, the body of a poll's answer, or
    /// bytes of a TCP connection however they were cut.
    Received {
        /// Text or binary, where that is told apart.
        kind: Kind,
        /// The name of the event, of server-sent events that have one.
        name: Option<String>,
        /// What.
        data: Bytes,
    },
    /// The connection took a step.
    Transition(Transition),
}

/// A connection that is made again when it breaks.
pub struct Link {
    shared: Arc<Shared<State>>,
}

impl Link {
    /// Begins to connect; needs a tokio runtime.
    ///
    /// # Errors
    /// The URL is wrong.
    pub fn open(url: &str, speaks: Speaks, options: Options) -> Result<Link, Error> {
        let address = Arc::new(Address::parse(url)?);
        let tls = options.tls.clone();
        let shared = Shared::spawn(State::new(address, speaks, options), tls);
        shared.with(|state, now| state.core.start(now));
        Ok(Link { shared })
    }

    /// Sends a message. Without a connection it is dropped.
    pub fn send(&self, kind: Kind, message: &[u8]) {
        self.shared.with(|state, now| {
            state.core.send(now, kind, message);
            state.sort();
        });
    }

    /// Sends a message beside a stream or a poll of the plain dialect.
    pub fn post(&self, kind: Kind, message: &[u8]) {
        self.shared.with(|state, now| {
            state.core.post(now, kind, message);
            state.sort();
        });
    }

    /// Says that the server has taken the login: from here on the connection counts as established. `session` and `node` are
    /// what it calls them, for what is sent beside a stream; empty where it has none.
    pub fn logged_in(&self, session: &str, node: &str) {
        let intervals = Intervals { interval: OFF, timeout: OFF, max_silence: OFF };
        let (session, node) = (session.to_owned(), node.to_owned());
        let terms = Terms { intervals, kind: heartbeat::Kind::Silent, session, node };
        self.shared.with(|state, now| {
            state.core.logged_in(now, terms);
            state.sort();
        });
    }

    /// Takes another name of the session, where the server gave one later.
    pub fn set_session(&self, session: &str) {
        self.shared.with(|state, _| state.core.set_session(session));
    }

    /// Ends this connection because of what came over it; whether another follows, the cause says.
    pub fn fail(&self, cause: Cause) {
        self.shared.with(|state, now| {
            state.core.fail(now, cause);
            state.sort();
        });
    }

    /// What happens next; `None` when nothing follows.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| {
            self.shared.with_nudge(|state, now| {
                let was_reading = state.is_reading;
                let event = state.poll_next(now, cx);
                (event, state.is_reading != was_reading)
            })
        })
        .await
    }

    /// Says goodbye: what was sent is written, if the server takes it. What comes meanwhile can still be read.
    pub fn leave(&self) {
        self.shared.with(|state, now| {
            state.core.leave(now);
            state.sort();
        });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A link as a machine.
struct State {
    core: Core,
    events: VecDeque<Event>,
    waiting_bytes: usize,
    reader: Option<Waker>,
    is_reading: bool,
    /// The handshake is done.
    is_open: bool,
}

impl State {
    fn new(address: Arc<Address>, speaks: Speaks, options: Options) -> State {
        let transport = match address.scheme {
            Scheme::WebSocket | Scheme::StompWebSocket => Transport::WebSocket,
            Scheme::Stream => Transport::Stream,
            Scheme::EventStream => Transport::EventStream,
            Scheme::Poll => Transport::Poll,
            Scheme::Stomp | Scheme::Tcp => Transport::Tcp,
        };
        let is_stomp = speaks == Speaks::Stomp;
        let plan = Plan {
            servers: vec![address],
            transports: vec![transport],
            target: match speaks {
                Speaks::Centrifuge => target_of_centrifuge,
                Speaks::Stomp => target_of_stomp,
                Speaks::Plain => |address, _| address.target.clone(),
            },
            subprotocols: if is_stomp { &["v12.stomp", "v11.stomp", "v10.stomp"] } else { &[] },
            uplink: if speaks == Speaks::Plain { "/send" } else { "/emulation" },
            asks: if speaks == Speaks::Plain { Asks::WithTarget } else { Asks::WithLogin },
        };
        State {
            core: Core::new(plan, options),
            events: VecDeque::new(),
            waiting_bytes: 0,
            reader: None,
            is_reading: true,
            is_open: false,
        }
    }

    fn push(&mut self, event: Event) {
        self.waiting_bytes += weight(&event);
        self.events.push_back(event);
    }

    /// Takes what the last input meant, in its order.
    fn sort(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                CoreEvent::Open(opened) => {
                    self.is_open = true;
                    self.push(Event::Open { transport: opened.transport, subprotocol: opened.subprotocol });
                }
                // These are told as transitions.
                CoreEvent::Lost(_) | CoreEvent::GaveUp(..) => self.is_open = false,
                CoreEvent::BeatDue => {}
            }
        }
        // No input connects what it opens; one may open and end.
        for transition in self.core.take_transitions() {
            self.push(Event::Transition(transition));
        }
    }

    fn poll_next(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.sort();
        let Some(event) = self.events.pop_front() else {
            if self.core.is_over() {
                return Poll::Ready(None);
            }
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        self.waiting_bytes -= weight(&event);
        self.judge_reading(now);
        Poll::Ready(Some(event))
    }

    fn judge_reading(&mut self, now: Instant) {
        let is_reading = self.waiting_bytes < MAX_WAITING_BYTES;
        if is_reading != self.is_reading {
            self.is_reading = is_reading;
            self.core.set_reading(now, is_reading);
        }
    }
}

fn weight(event: &Event) -> usize {
    match event {
        Event::Received { data, .. } => data.len() + EVENT_BYTES,
        _ => EVENT_BYTES,
    }
}

fn target_of_centrifuge(address: &Address, transport: Transport) -> String {
    let usual = match transport {
        Transport::Stream => "/connection/http_stream",
        Transport::EventStream => "/connection/sse",
        _ => "/connection/websocket",
    };
    or_usual(address, usual)
}

fn target_of_stomp(address: &Address, _: Transport) -> String {
    or_usual(address, "/stomp")
}

fn or_usual(address: &Address, usual: &str) -> String {
    match address.target.as_str() {
        "/" => usual.to_owned(),
        target => target.to_owned(),
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
        self.sort();
    }

    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        self.core.handle_dialled(now, line, result);
        self.sort();
    }

    fn handle_bytes(&mut self, now: Instant, line: Line, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(inbound) = self.core.decode(now, line, &mut input) {
            // What the same bytes meant before, such as the end of the handshake.
            self.sort();
            let (kind, name, data) = match inbound {
                Inbound::Message(kind, data) => (kind, None, data),
                Inbound::Event { name, data } => (Kind::Text, Some(name), data),
                Inbound::Bytes(bytes) => (Kind::Binary, None, Bytes::copy_from_slice(bytes)),
            };
            self.push(Event::Received { kind, name, data });
            if !self.core.is_current(line) {
                break;
            }
        }
        self.sort();
        self.judge_reading(now);
    }

    fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize) {
        self.core.handle_unwritten(now, line, unwritten);
        self.sort();
    }

    fn handle_end(&mut self, now: Instant, line: Line, end: End) {
        self.core.handle_end(now, line, end);
        self.sort();
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.core.leave(now);
        self.core.abandon();
        self.sort();
    }

    fn wants_bytes(&self, line: Line) -> bool {
        // What comes before a login waits for the reader, too.
        self.core.wants_bytes(line) && (self.is_reading || !self.is_open)
    }

    fn take_wakes(&mut self) -> Vec<Waker> {
        let is_readable = !self.events.is_empty() || self.core.is_over();
        if is_readable { self.reader.take().into_iter().collect() } else { Vec::new() }
    }

    fn is_over(&self) -> bool {
        self.core.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::http::{AllowedOrigins, parse_request_head};
    use longwire_protocol::websocket::handshake;
    use std::time::Duration;

    fn state(url: &str, speaks: Speaks) -> State {
        State::new(
            Arc::new(Address::parse(url).unwrap()),
            speaks,
            Options { seed: Some(1), ..Options::default() },
        )
    }

    fn drain(state: &mut State) -> (Vec<Output>, Vec<Event>) {
        let outputs = std::iter::from_fn(|| state.poll_output()).collect();
        let mut events = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = state.poll_next(Instant::now(), &mut cx) {
            events.push(event);
        }
        (outputs, events)
    }

    #[test]
    fn bytes_of_a_tcp_connection_come_as_they_are_behind_its_opening() {
        let mut state = state("tcp://127.0.0.1:9", Speaks::Plain);
        let now = Instant::now();
        state.core.start(now);
        let (outputs, _) = drain(&mut state);
        let [Output::Dial { line, .. }] = outputs[..] else { panic!("{outputs:?}") };
        state.handle_dialled(now, line, Ok(()));
        let (_, events) = drain(&mut state);
        assert!(matches!(events[..], [Event::Open { transport: Transport::Tcp, .. }]), "{events:?}");
        state.core.send(now, Kind::Binary, b"hello");
        let (outputs, _) = drain(&mut state);
        assert!(
            matches!(&outputs[..], [Output::Transmit { bytes, .. }] if &bytes[..] == b"hello"),
            "{outputs:?}"
        );
        state.handle_bytes(now, line, b"\x00\xff");
        let (_, events) = drain(&mut state);
        assert!(
            matches!(&events[..], [Event::Received { data, .. }] if &data[..] == b"\x00\xff"),
            "{events:?}"
        );
    }

    #[test]
    fn a_connection_that_opens_and_ends_at_once_is_told_in_that_order() {
        let mut state = state("ws://127.0.0.1:9/ws", Speaks::Plain);
        let now = Instant::now();
        state.core.start(now);
        let (outputs, _) = drain(&mut state);
        let [Output::Dial { line, .. }] = outputs[..] else { panic!("{outputs:?}") };
        state.handle_dialled(now, line, Ok(()));
        let (outputs, _) = drain(&mut state);
        let [Output::Transmit { bytes, .. }] = &outputs[..] else { panic!("{outputs:?}") };
        let (head, _) = parse_request_head(bytes, 1 << 14, 64).unwrap().unwrap();
        let asked = handshake::Options {
            allowed_origins: &AllowedOrigins::default(),
            subprotocols: &[],
            allow_deflate: false,
        };
        let mut answer = handshake::accept(&head, &asked).unwrap().response;
        // A close frame with the code 1001.
        answer.extend_from_slice(&[0x88, 2, 0x03, 0xe9]);
        state.handle_bytes(now, line, &answer);
        let (_, events) = drain(&mut state);
        let opened = events.iter().position(|event| matches!(event, Event::Open { .. }));
        let ended = events
            .iter()
            .position(|event| matches!(event, Event::Transition(Transition::Disconnected { .. })));
        assert!(opened.is_some() && opened < ended, "{events:?}");
    }

    #[test]
    fn a_reader_that_is_far_behind_stops_the_reading() {
        let mut state = state("tcp://127.0.0.1:9", Speaks::Plain);
        let now = Instant::now();
        state.core.start(now);
        let (outputs, _) = drain(&mut state);
        let [Output::Dial { line, .. }] = outputs[..] else { panic!("{outputs:?}") };
        state.handle_dialled(now, line, Ok(()));
        let piece = vec![0; 64 << 10];
        let mut pieces = 0;
        while state.wants_bytes(line) {
            state.handle_bytes(now, line, &piece);
            pieces += 1;
            assert!(pieces < 100, "it never has enough");
        }
        assert_eq!(pieces, 16);
        drain(&mut state);
        assert!(state.wants_bytes(line));
    }

    #[test]
    fn a_reader_that_is_far_behind_stops_the_reading_of_the_next_connection_too() {
        let mut state = state("tcp://127.0.0.1:9", Speaks::Plain);
        let mut now = Instant::now();
        state.core.start(now);
        let dial = |state: &mut State| {
            let mut outputs = std::iter::from_fn(|| state.poll_output());
            outputs.find_map(|output| match output {
                Output::Dial { line, .. } => Some(line),
                _ => None,
            })
        };
        let line = dial(&mut state).unwrap();
        state.handle_dialled(now, line, Ok(()));
        let piece = vec![0; 64 << 10];
        while state.wants_bytes(line) {
            state.handle_bytes(now, line, &piece);
        }
        let waiting = state.waiting_bytes;
        state.handle_end(now, line, End::Reset);
        now = state.poll_timeout().unwrap();
        state.handle_timeout(now);
        let line = dial(&mut state).unwrap();
        state.handle_dialled(now, line, Ok(()));
        for _ in 0..100 {
            if state.wants_bytes(line) {
                state.handle_bytes(now, line, &piece);
            }
        }
        assert!(state.waiting_bytes < waiting + (128 << 10), "{}", state.waiting_bytes);
        drain(&mut state);
        assert!(state.wants_bytes(line));
    }

    #[test]
    fn a_link_that_was_left_ends() {
        let mut state = state("stomp://127.0.0.1:9", Speaks::Stomp);
        let now = Instant::now();
        state.core.start(now);
        state.core.leave(now + Duration::from_secs(1));
        let (_, events) = drain(&mut state);
        assert_eq!(events.last(), Some(&Event::Transition(Transition::Closed)));
        assert!(state.is_over());
    }
}
