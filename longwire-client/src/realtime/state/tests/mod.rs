//! The client against a server that says what the test says, in invented time.
//!
//! [`World`] is both the driver and the server's end of a WebSocket: it dials, shakes hands, and turns frames into lines.

mod calls;
mod connection;
mod polling;
mod subscriptions;

use super::State;
use crate::machine::{End, Line, Machine, Output};
use crate::options::Options;
use crate::realtime::event::{ClientEvent, Event};
use crate::realtime::mailbox::Reader;
use crate::realtime::settings::{Settings, SubscriptionSettings};
use crate::realtime::token::{TokenError, TokenRequest, TokenSource};
use crate::transport::Transport;
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::{Connection, Event as Frame, Kind, Role, frame, handshake};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A client, its network and its server.
struct World {
    state: State,
    now: Instant,
    begin: Instant,
    /// Dialled, and neither accepted nor refused.
    dialled: VecDeque<Line>,
    line: Option<Line>,
    head: Vec<u8>,
    websocket: Option<Connection>,
    /// What the client said, a message a row.
    messages: Vec<Vec<Value>>,
    /// The code of its close frame.
    said_goodbye: Option<u16>,
    events: Reader<ClientEvent>,
}

fn settings() -> Settings {
    let options = Options { seed: Some(7), ..Options::default() };
    Settings { transports: vec![Transport::WebSocket], options, ..Settings::new(&["ws://server"]).unwrap() }
}

/// A source that is never run: the test answers for it.
fn source() -> Option<TokenSource> {
    Some(TokenSource::new(|| async { Err(TokenError::Failed("nobody runs this".to_owned())) }))
}

impl World {
    fn new(settings: Settings) -> World {
        let begin = Instant::now();
        let mut state = State::new(settings).unwrap();
        let events = state.listen();
        let mut world = World {
            state,
            now: begin,
            begin,
            dialled: VecDeque::new(),
            line: None,
            head: Vec::new(),
            websocket: None,
            messages: Vec::new(),
            said_goodbye: None,
            events,
        };
        world.state.start(begin);
        world.pump();
        world
    }

    /// A client whose login is done.
    fn connected(settings: Settings) -> World {
        let mut world = World::new(settings);
        world.log_in(json!({}));
        world
    }

    fn pump(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Dial { line, .. } => self.dialled.push_back(line),
                Output::Transmit { line, bytes } => {
                    if Some(line) == self.line {
                        self.take(line, &bytes);
                    }
                }
                Output::Close { line, .. } => {
                    if Some(line) == self.line {
                        self.line = None;
                    }
                    self.dialled.retain(|dialled| *dialled != line);
                }
            }
        }
    }

    fn take(&mut self, line: Line, mut bytes: &[u8]) {
        let Some(websocket) = &mut self.websocket else {
            self.head.extend_from_slice(bytes);
            let (head, _) = parse_request_head(&self.head, 1 << 14, 64).unwrap().unwrap();
            let options = handshake::Options {
                allowed_origins: &AllowedOrigins::default(),
                subprotocols: &[],
                allow_deflate: false,
            };
            let response = handshake::accept(&head, &options).unwrap().response;
            self.websocket = Some(Connection::new(Role::Server, false, 1 << 20));
            self.state.handle_unwritten(self.now, line, 0);
            self.state.handle_bytes(self.now, line, &response);
            return;
        };
        while let Some(event) = websocket.decode(&mut bytes).unwrap() {
            match event {
                Frame::Message { kind: Kind::Text, data } => {
                    let lines = data.split(|byte| *byte == b'\n');
                    self.messages.push(lines.map(|line| serde_json::from_slice(line).unwrap()).collect());
                }
                Frame::Close { code, .. } => self.said_goodbye = code,
                other => panic!("{other:?}"),
            }
        }
        self.state.handle_unwritten(self.now, line, 0);
    }

    /// The dial succeeds, the handshake too.
    fn accept(&mut self) {
        let line = self.dialled.pop_front().expect("a dial");
        (self.line, self.websocket) = (Some(line), None);
        self.head.clear();
        self.state.handle_dialled(self.now, line, Ok(()));
        self.pump();
    }

    /// Accepts and answers the login, with these members besides; gives what the login said.
    fn log_in(&mut self, more: Value) -> Value {
        self.accept();
        self.answer_login(more)
    }

    fn answer_login(&mut self, more: Value) -> Value {
        let command = self.only();
        let connect = command["connect"].clone();
        assert!(connect.is_object(), "{command}");
        let mut result = json!({"client": "me", "version": "test", "ping": 25, "pong": true});
        for (name, value) in more.as_object().unwrap() {
            result[name] = value.clone();
        }
        self.reply(&command, json!({"connect": result}));
        connect
    }

    /// The server says a line.
    fn say(&mut self, line: Value) {
        self.say_text(&line.to_string());
    }

    fn say_text(&mut self, text: &str) {
        let line = self.line.expect("a connection");
        self.state.handle_bytes(self.now, line, &frame::message(Kind::Text, text.as_bytes()));
        self.pump();
    }

    /// The server answers a command.
    fn reply(&mut self, command: &Value, mut result: Value) {
        result["id"] = command["id"].clone();
        self.say(result);
    }

    fn push(&mut self, channel: &str, mut push: Value) {
        push["channel"] = channel.into();
        self.say(json!({"push": push}));
    }

    fn publish(&mut self, channel: &str, offset: u64) {
        self.push(channel, json!({"pub": {"data": {"n": offset}, "offset": offset}}));
    }

    /// What the client said since this was asked last.
    fn heard(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.messages).into_iter().flatten().collect()
    }

    /// The one command that the client said.
    fn only(&mut self) -> Value {
        let mut heard = self.heard();
        assert_eq!(heard.len(), 1, "{heard:?}");
        heard.remove(0)
    }

    /// Lets time pass; whatever is due is done when it is due.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.state.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.state.handle_timeout(self.now);
            self.pump();
        }
        self.now = end;
    }

    fn seconds(&mut self, seconds: f64) {
        self.wait(Duration::from_secs_f64(seconds));
    }

    fn elapsed(&self) -> f64 {
        (self.now - self.begin).as_secs_f64()
    }

    /// Lets time pass until the client dials.
    fn wait_for_dial(&mut self) {
        let limit = self.now + Duration::from_secs(60);
        while self.dialled.is_empty() {
            let at = self
                .state
                .poll_timeout()
                .filter(|at| *at <= limit)
                .expect("the client dials within a minute");
            self.now = self.now.max(at);
            self.state.handle_timeout(self.now);
            self.pump();
        }
    }

    /// Lets time pass until the client says something.
    fn wait_for_word(&mut self) {
        let limit = self.now + Duration::from_secs(60);
        while self.messages.is_empty() {
            let at = self
                .state
                .poll_timeout()
                .filter(|at| *at <= limit)
                .expect("the client speaks within a minute");
            self.now = self.now.max(at);
            self.state.handle_timeout(self.now);
            self.pump();
        }
    }

    /// The connection breaks.
    fn break_line(&mut self) {
        let line = self.line.take().expect("a connection");
        self.messages.clear();
        self.state.handle_end(self.now, line, End::Reset);
        self.pump();
    }

    /// The server closes with a code.
    fn close(&mut self, code: u16, reason: &str) {
        let line = self.line.expect("a connection");
        self.state.handle_bytes(self.now, line, &frame::close(code, reason));
        self.pump();
    }

    /// Breaks the connection and brings it back; gives what the login said.
    fn come_back(&mut self, more: Value) -> Value {
        self.break_line();
        self.wait_for_dial();
        self.log_in(more)
    }

    fn subscribe_with(&mut self, channel: &str, settings: SubscriptionSettings) -> (u32, Reader<Event>) {
        let subscribed = self.state.subscribe(self.now, &Arc::from(channel), settings).unwrap();
        self.pump();
        subscribed
    }

    /// Subscribes; the server confirms, at an offset.
    fn subscribed(&mut self, channel: &str, offset: u64) -> (u32, Reader<Event>) {
        let (key, mut reader) = self.subscribe_with(channel, SubscriptionSettings::default());
        let command = self.only();
        self.reply(&command, confirmed(offset));
        assert!(matches!(reader.try_next(), Some(Event::Subscribed(_))));
        (key, reader)
    }

    fn token_request(&mut self) -> Option<TokenRequest> {
        match self.state.poll_token_request(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(request) => request,
            Poll::Pending => None,
        }
    }

    /// The source that is asked gives a token.
    fn give_token(&mut self, result: Result<&str, TokenError>) {
        let request = self.token_request().expect("a token is wanted");
        self.state.handle_token(self.now, &request.subject, result.map(str::to_owned));
        self.pump();
    }
}

fn confirmed(offset: u64) -> Value {
    json!({"subscribe": {"recoverable": true, "positioned": true, "epoch": "abcd", "offset": offset}})
}

/// What a reader hears, in short.
fn heard(reader: &mut Reader<Event>) -> Vec<String> {
    std::iter::from_fn(|| reader.try_next()).map(|event| short(&event)).collect()
}

fn short(event: &Event) -> String {
    match event {
        Event::Subscribed(subscribed) => format!("subscribed again={}", subscribed.again),
        Event::Publication(publication) => publication.offset.to_string(),
        Event::Recovered { publications } => format!("recovered {publications}"),
        Event::NotRecovered { from, to } => {
            let text =
                |position: &Option<_>| position.as_ref().map_or("none".to_owned(), ToString::to_string);
            format!("lost {} to {}", text(from), text(to))
        }
        Event::Join(info) => format!("join {}", info.user),
        Event::Leave(info) => format!("leave {}", info.user),
        Event::Unsubscribed { code, reason, is_final } => {
            format!("unsubscribed {code} {reason} final={is_final}")
        }
    }
}

/// What a listener hears, in short.
fn told(events: &mut Reader<ClientEvent>) -> Vec<String> {
    std::iter::from_fn(|| events.try_next())
        .map(|event| match event {
            ClientEvent::Transition(transition) => transition.to_string(),
            ClientEvent::ServerSide { channel, event } => format!("{channel}: {}", short(&event)),
            ClientEvent::Message(data) => format!("message {}", String::from_utf8_lossy(&data)),
            ClientEvent::Missed { events } => format!("missed {events}"),
        })
        .collect()
}

#[test]
fn an_idle_client_and_an_event_are_small() {
    use std::mem::size_of;
    assert!(size_of::<State>() <= 2048, "{}", size_of::<State>());
    assert!(size_of::<super::subscriptions::Subscription>() <= 384);
    assert!(size_of::<Event>() <= 96, "{}", size_of::<Event>());
}
