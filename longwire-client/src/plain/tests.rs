//! A feed without IO, in invented time: scripted servers over each transport, cut anywhere and lost at any point.

use super::event::{Content, Event, Publication};
use super::settings::{Beat, Settings};
use super::state::State;
use super::{FirstPacket, Framing, Terminator};
use crate::address::Address;
use crate::cause::Cause;
use crate::error::Error;
use crate::machine::{End, Line, Machine, Output};
use crate::transition::Transition;
use bytes::Bytes;
use longwire_protocol::message::Publication as Published;
use longwire_protocol::plain::envelope::{self, ChannelState, Welcome};
use longwire_protocol::plain::event_stream;
use longwire_protocol::{Epoch, Position};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A feed and the server's side of it, in invented time.
struct World {
    state: State,
    now: Instant,
    line: Option<Line>,
    written: Vec<u8>,
}

impl World {
    fn new(url: &str, change: impl FnOnce(&mut Settings)) -> World {
        let mut settings = Settings::new(vec![Arc::new(Address::parse(url).unwrap())]);
        settings.options.seed = Some(1);
        settings.channels = vec!["news".to_owned()];
        change(&mut settings);
        let now = Instant::now();
        let mut world = World { state: State::new(settings).unwrap(), now, line: None, written: Vec::new() };
        world.state.start(now);
        world.settle();
        world.connect();
        world
    }

    /// Does what the machine wants.
    fn settle(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Dial { line, .. } => self.line = Some(line),
                Output::Transmit { bytes, .. } => self.written.extend_from_slice(&bytes),
                Output::Close { line, .. } if self.line == Some(line) => self.line = None,
                Output::Close { .. } => {}
            }
        }
    }

    fn connect(&mut self) {
        self.state.handle_dialled(self.now, self.line.unwrap(), Ok(()));
        self.settle();
    }

    /// Waits until it dials again, and connects.
    fn come_back(&mut self) {
        while self.line.is_none() {
            self.now = self.state.poll_timeout().expect("it comes back").max(self.now);
            self.state.handle_timeout(self.now);
            self.settle();
        }
        self.connect();
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.state.handle_bytes(self.now, self.line.unwrap(), bytes);
        self.settle();
    }

    fn breaks(&mut self) {
        self.state.handle_end(self.now, self.line.unwrap(), End::Reset);
        self.settle();
        assert_eq!(self.line, None);
    }

    fn take_written(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.written)).unwrap()
    }

    /// What was told, but for the steps of the connection.
    fn told(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        while let Some(event) = self.state.try_event(self.now) {
            told.push(event);
        }
        self.settle();
        told.retain(|event| !matches!(event, Event::Transition(_)));
        told
    }
}

fn at(offset: u64) -> Option<Position> {
    Some(Position { offset, epoch: Epoch::parse("abcdefgh") })
}

fn welcome(
    recovered: Option<bool>,
    publications: usize,
    offset: u64,
) -> (Welcome, [ChannelState<'static>; 1]) {
    let welcome =
        Welcome { client: "c1".into(), session: "s1".into(), resumed: recovered == Some(true), lost: false };
    (welcome, [ChannelState { channel: "news", recovered, publications, position: at(offset) }])
}

fn published(offset: u64, data: &'static str) -> Published {
    let data = Bytes::from_static(data.as_bytes());
    Published { offset, data, info: None, tags: Vec::new(), except: None, is_json: true }
}

/// As a feed tells it.
fn told(offset: u64, data: &'static str) -> Event {
    Event::Publication(Publication {
        channel: "news".into(),
        offset,
        data: Content::Json(Bytes::from_static(data.as_bytes())),
        tags: Default::default(),
        info: Bytes::new(),
    })
}

const SSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

fn sse_welcome(recovered: Option<bool>, publications: usize, offset: u64) -> Vec<u8> {
    let (welcome, channels) = welcome(recovered, publications, offset);
    let mut out = SSE.to_vec();
    event_stream::encode_subscribed(
        &welcome,
        &channels,
        format!("news={offset}.abcdefgh").as_bytes(),
        &mut out,
    );
    out
}

fn sse(offset: u64, data: &'static str) -> Vec<u8> {
    let mut out = Vec::new();
    event_stream::write_id(format!("news={offset}.abcdefgh").as_bytes(), &mut out);
    event_stream::encode_publication_data("news", &published(offset, data), &mut out);
    out
}

#[test]
fn a_feed_of_events_returns_with_session_and_position_and_hears_what_it_missed() {
    let mut world = World::new("sse+http://host:8000", |settings| {
        settings.client = "device 7".into();
        settings.token = "t.o.k".into();
    });
    let request = world.take_written();
    assert!(request.starts_with("GET /sse?channel=news&client=device+7 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Authorization: Bearer t.o.k\r\n") && !request.contains("token="), "{request}");
    world.hear(&[sse_welcome(None, 0, 4), sse(5, "[5]")].concat());
    assert_eq!(world.told(), [Event::Opened { client: "c1".into(), resumed: false }, told(5, "[5]")]);
    assert_eq!(world.state.position(), "news=5.abcdefgh");

    world.breaks();
    world.come_back();
    let request = world.take_written();
    assert!(request.contains("&session=s1&since=news%3D5.abcdefgh "), "{request}");
    world.hear(&[sse_welcome(Some(true), 2, 5), sse(6, "6"), sse(7, "7")].concat());
    let recovered = Event::Recovered { channel: Some("news".into()), publications: 2 };
    let opened = Event::Opened { client: "c1".into(), resumed: true };
    assert_eq!(world.told(), [opened, recovered, told(6, "6"), told(7, "7")]);
}

#[test]
fn what_cannot_be_recovered_is_told_before_anything_newer() {
    let mut world = World::new("sse+http://host:8000", |_| {});
    world.hear(&[sse_welcome(None, 0, 4), sse(5, "5")].concat());
    world.told();
    world.breaks();
    world.come_back();
    world.hear(&[sse_welcome(Some(false), 0, 90), sse(91, "91")].concat());
    let lost = Event::NotRecovered { channel: Some("news".into()) };
    assert_eq!(world.told()[1..], [lost, told(91, "91")]);
    // A server that skips one breaks its promise; the reader is told all the same.
    world.hear(&[sse(91, "91"), sse(93, "93")].concat());
    assert_eq!(world.told(), [Event::NotRecovered { channel: Some("news".into()) }, told(93, "93")]);
}

#[test]
fn a_stream_is_read_by_lines_and_says_its_position_by_channel() {
    let mut world = World::new("stream+http://host:8000/rt", |_| {});
    assert!(world.take_written().starts_with("GET /rt/stream?channel=news&format=json HTTP/1.1\r\n"));
    let mut body = Vec::new();
    let (welcome, channels) = welcome(None, 0, 4);
    envelope::encode_welcome(&welcome, &channels, b"news=4.abcdefgh", &mut body);
    body.push(b'\n');
    envelope::encode_publication("news", &published(5, "\"x\""), at(5), &mut body);
    body.extend_from_slice(b"\n\n{\"type\":\"later\",\"x\":{}}\n{\"data\":1}\n");
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes.extend_from_slice(b"\r\n");
    for byte in &bytes {
        world.hear(&[*byte]);
    }
    let message = Event::Message(Content::Json(Bytes::from_static(b"1")));
    assert_eq!(world.told()[1..], [told(5, "\"x\""), message]);
    assert_eq!(world.state.position(), "news=5.abcdefgh");
}

fn answer(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn a_poll_asks_again_at_once_from_where_the_answer_says() {
    let mut world = World::new("poll+http://host:8000", |_| {});
    assert!(world.take_written().starts_with("GET /poll?channel=news&wait=25 HTTP/1.1\r\n"));
    world.hear(&answer(
        r#"{"client":"c","session":"s","name":"p1","since":"news=4.abcdefgh,=1.kwmzqpfa","publications":[]}"#,
    ));
    let second = world.take_written();
    let asked =
        "GET /poll?channel=news&client=p1&session=s&since=news%3D4.abcdefgh%2C%3D1.kwmzqpfa&wait=25 HTTP/1.1";
    assert!(second.starts_with(asked), "{second}");
    // Nothing happened for as long as it was to wait, which is no silence.
    world.now += Duration::from_secs(25);
    world.state.handle_timeout(world.now);
    world.hear(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert!(world.take_written().starts_with(asked));
    world.hear(&answer(
        r#"{"client":"c","session":"s","resumed":true,"recovered":true,"name":"p1","since":"news=5.abcdefgh,=2.kwmzqpfa","publications":[{"channel":"news","data":5,"offset":5,"id":"news=5.abcdefgh"}]}"#,
    ));
    assert_eq!(world.told(), [Event::Opened { client: "c".into(), resumed: false }, told(5, "5")]);
    assert_eq!(world.state.position(), "news=5.abcdefgh,=2.kwmzqpfa");
}

#[test]
fn packets_begin_with_one_that_says_everything_and_beats_are_answered() {
    let mut world = World::new("tcp://host:9501", |settings| {
        settings.first_packet = FirstPacket::Json;
        settings.framing = Framing::Terminator(Terminator::new(b"\r\n").unwrap());
        settings.heartbeat =
            Some(Beat { says: "ping".into(), answer: "pong".into(), interval: Duration::from_secs(10) });
        settings.token = "t".into();
    });
    assert_eq!(world.take_written(), "{\"channels\":[\"news\"],\"token\":\"t\"}\r\n");
    world.hear(b"{\"type\":\"subscribed\",\"client\":\"c\",\"session\":\"s\",\"channels\":{\"news\":{\"id\":\"news=4.abcdefgh\"}},\"id\":\"news=4.abcdefgh\"}\r\n{\"channel\":\"news\",\"data\":5,\"offset\":5,\"id\":\"news=5.abcdefgh\"}\r\npo");
    world.hear(b"ng\r\nbeat\r\n");
    let beat = Event::Message(Content::Bytes(Bytes::from_static(b"beat")));
    assert_eq!(world.told()[1..], [told(5, "5"), beat]);
    let Poll::Ready(Ok(())) =
        world.state.poll_send(world.now, b"hello", true, &mut None, &mut Context::from_waker(Waker::noop()))
    else {
        panic!("it is connected")
    };
    world.settle();
    assert_eq!(world.take_written(), "hello\r\n");
    world.now += Duration::from_secs(11);
    world.state.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.take_written(), "ping\r\n");
    // Nobody answers.
    world.now += Duration::from_secs(60);
    world.state.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.line, None);
}

const UNASKED: &[u8] = b"{\"type\":\"subscribed\",\"client\":\"c\",\"session\":\"s\",\"channels\":{}}\n";

#[test]
fn a_listener_that_does_not_read_the_first_packet_is_named_and_ends_the_feed() {
    let mut world = World::new("tcp://host:9501", |settings| settings.first_packet = FirstPacket::Json);
    world.hear(UNASKED);
    let Some(Error::GaveUp { cause, .. }) = world.state.error() else { panic!("it waits for nothing") };
    assert_eq!(*cause, Cause::PassedOver { channel: "news".into() });
    let text = cause.to_string();
    assert!(text.contains("\"news\"") && text.contains("first_packet = \"json\""), "{text}");
    assert_eq!((world.told(), world.line), (vec![], None));

    // A session that goes on has the channels that it had: one of them may have been left meanwhile.
    let mut world = World::new("tcp://host:9501", |settings| settings.first_packet = FirstPacket::Json);
    world.hear(b"{\"type\":\"recovered\",\"client\":\"c\",\"session\":\"s\",\"resumed\":true,\"recovered\":true,\"channels\":{}}\n");
    assert!(world.state.error().is_none() && world.line.is_some());
}

#[test]
fn a_welcome_that_was_not_promised_is_no_return() {
    let mut world = World::new("tcp://host:9501", |settings| settings.channels = Vec::new());
    world.hear(UNASKED);
    assert_eq!(world.told(), [Event::Opened { client: "c".into(), resumed: false }]);
    // Nobody knows where it stood: that is told, and once.
    world.breaks();
    world.come_back();
    let opened = Event::Opened { client: "c".into(), resumed: false };
    world.hear(UNASKED);
    assert_eq!(world.told(), [Event::NotRecovered { channel: None }, opened]);
    // Nor is it said twice where there is no welcome at all.
    world.breaks();
    world.come_back();
    world.hear(b"data\n");
    let data = Event::Message(Content::Bytes(Bytes::from_static(b"data")));
    assert_eq!(world.told(), [Event::NotRecovered { channel: None }, data]);
}

#[test]
fn a_name_that_is_said_first_is_welcomed_and_resumed() {
    let mut world = World::new("tcp://host:9501", |settings| {
        settings.channels = Vec::new();
        settings.first_packet = FirstPacket::Client;
        settings.client = "device 7".into();
    });
    assert_eq!(world.take_written(), "device 7\n");
    world.hear(UNASKED);
    assert_eq!(world.told(), [Event::Opened { client: "c".into(), resumed: false }]);
    world.breaks();
    world.come_back();
    world.hear(b"{\"type\":\"recovered\",\"client\":\"c\",\"session\":\"s2\",\"resumed\":true,\"recovered\":true,\"channels\":{}}\n");
    let recovered = Event::Recovered { channel: None, publications: 0 };
    assert_eq!(world.told(), [Event::Opened { client: "c".into(), resumed: true }, recovered]);
}

#[test]
fn a_connection_is_told_before_what_it_brings() {
    for (url, welcome) in
        [("sse+http://host:8000", sse_welcome(None, 0, 4)), ("tcp://host:9501", UNASKED.to_vec())]
    {
        let mut world = World::new(url, |settings| settings.channels = Vec::new());
        for again in [false, true] {
            world.hear(&welcome);
            let mut is_connected = false;
            let mut heard = 0;
            while let Some(event) = world.state.try_event(world.now) {
                match event {
                    Event::Transition(Transition::Connected { again: told, .. }) => {
                        assert_eq!(told, again, "{url}");
                        is_connected = true;
                    }
                    Event::Transition(_) => {}
                    event => {
                        assert!(is_connected, "{url}: {event:?}");
                        heard += 1;
                    }
                }
            }
            assert!(heard > 0, "{url}");
            world.breaks();
            world.come_back();
        }
    }
}

#[test]
fn a_server_that_says_stop_is_obeyed_and_one_that_drains_is_returned_to() {
    for (reconnect, returns) in [("true", true), ("false", false)] {
        let mut world = World::new("sse+http://host:8000", |_| {});
        world.hear(&sse_welcome(None, 0, 4));
        world.hear(format!("event: disconnect\ndata: {{\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":{reconnect}}}\n\n").as_bytes());
        assert_eq!(world.line, None);
        assert_eq!(world.state.poll_timeout().is_some(), returns);
        assert_eq!(world.state.error().is_none(), returns);
        if !returns {
            assert!(matches!(
                world.state.error(),
                Some(Error::GaveUp { cause: Cause::Told { code: 3001, .. }, .. })
            ));
        }
    }
}

#[test]
fn a_full_reader_stops_the_socket_and_reading_moves_it_again() {
    let mut world = World::new("sse+http://host:8000", |settings| settings.options.max_buffered = 4);
    world.hear(&[sse_welcome(None, 0, 0), sse(1, "1"), sse(2, "2"), sse(3, "3"), sse(4, "4")].concat());
    let line = world.line.unwrap();
    assert!(!world.state.wants_bytes(line));
    // However long that takes, nobody is called silent.
    world.now += Duration::from_secs(3600);
    world.state.handle_timeout(world.now);
    world.settle();
    assert_eq!(world.line, Some(line));
    assert_eq!(world.told().len(), 5);
    assert!(world.state.wants_bytes(line) && world.state.take_resumed());
}

#[test]
fn long_publications_stop_the_socket_before_they_are_many() {
    let mut world = World::new("stream+http://host:8000", |settings| {
        settings.options.max_message_bytes = 1 << 20;
    });
    world.hear(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n");
    world.hear(b"{\"type\":\"subscribed\",\"client\":\"c\",\"session\":\"s\",\"channels\":{\"news\":{}}}\n");
    let line = world.line.unwrap();
    let long = format!("{{\"channel\":\"news\",\"data\":\"{}\"}}\n", "x".repeat(600_000));
    world.hear(long.as_bytes());
    assert!(world.state.wants_bytes(line));
    world.hear(long.as_bytes());
    assert!(!world.state.wants_bytes(line));
    assert_eq!(world.told().len(), 3);
    assert!(world.state.wants_bytes(line));
}

#[test]
fn a_full_reader_is_full_on_the_next_connection_too() {
    let mut world = World::new("sse+http://host:8000", |settings| settings.options.max_buffered = 4);
    world.hear(&[sse_welcome(None, 0, 0), sse(1, "1"), sse(2, "2"), sse(3, "3")].concat());
    world.breaks();
    world.come_back();
    assert!(world.state.wants_bytes(world.line.unwrap()), "the welcome is read");
    world.hear(&sse_welcome(Some(true), 0, 3));
    let line = world.line.unwrap();
    assert!(!world.state.wants_bytes(line));
    assert!(world.told().len() > 4);
    assert!(world.state.wants_bytes(line) && world.state.take_resumed());
}

#[test]
fn a_publication_that_does_not_say_where_it_stands_is_told_all_the_same() {
    let mut world = World::new("stream+http://host:8000", |_| {});
    world.hear(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n");
    world.hear(b"{\"type\":\"subscribed\",\"client\":\"c\",\"session\":\"s\",\"channels\":{\"news\":{}},\"id\":\"news=4.abcdefgh\"}\n");
    world.hear(b"{\"channel\":\"news\",\"data\":5,\"offset\":5}\n");
    assert_eq!(world.told()[1..], [told(5, "5")]);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_is_wrong() {
    let refused = |url: &str, change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::new(vec![Arc::new(Address::parse(url).unwrap())]);
        change(&mut settings);
        State::new(settings).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused("ws://host", &|_| {}).contains("is not for a feed"));
    assert!(
        refused("tcp://host:1", &|settings| settings.channels = vec!["a".into()]).contains("first packet")
    );
    assert!(refused("sse+http://host", &|settings| settings.since = "nonsense".into()).contains("since"));
    assert!(refused("sse+http://host", &|settings| settings.channels = vec![String::new()]).contains("name"));
    let other = Arc::new(Address::parse("poll+http://host").unwrap());
    assert!(
        refused("sse+http://host", &|settings| settings.servers.push(other.clone()))
            .contains("one transport")
    );
}

#[test]
fn every_step_of_the_connection_is_told() {
    let mut world = World::new("sse+http://host:8000", |_| {});
    world.hear(&sse_welcome(None, 0, 4));
    world.breaks();
    let mut steps = Vec::new();
    while let Some(event) = world.state.try_event(world.now) {
        if let Event::Transition(transition) = event {
            steps.push(match transition {
                Transition::Connecting { .. } => "connecting",
                Transition::Connected { .. } => "connected",
                Transition::Disconnected { cause: Cause::Reset, was_connected: true, .. } => "reset",
                other => panic!("{other:?}"),
            });
        }
    }
    assert_eq!(steps, ["connecting", "connected", "reset"]);
    world.state.close(world.now);
    assert!(matches!(world.state.error(), Some(Error::Closed)));
    assert_eq!(
        world.state.poll_event(world.now, &mut Context::from_waker(Waker::noop())),
        Poll::Ready(Some(Event::Transition(Transition::Closed)))
    );
}

#[test]
fn a_poll_that_is_refused_when_it_comes_back_is_the_end() {
    let mut world = World::new("poll+http://host:8000", |_| {});
    world.hear(&answer(
        r#"{"client":"c","session":"s","name":"p1","since":"news=4.abcdefgh,=1.kwmzqpfa","publications":[]}"#,
    ));
    let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
    world.hear(refusal);
    world.take_written();
    world.come_back();
    assert!(world.take_written().contains("&wait=1 "), "its login");
    world.hear(refusal);
    assert!(matches!(world.state.error(), Some(Error::GaveUp { .. })), "{:?}", world.state.error());
    let mut connected = 0;
    while let Some(event) = world.state.try_event(world.now) {
        connected += usize::from(matches!(event, Event::Transition(Transition::Connected { .. })));
    }
    assert_eq!(connected, 1);
}

#[tokio::test]
async fn who_waits_to_send_no_longer_is_forgotten() {
    // Nothing listens at the port of discard.
    let feed = super::Feed::builder("sse+http://127.0.0.1:9").channels(["news"]).build().unwrap();
    for _ in 0..100 {
        let mut send = std::pin::pin!(feed.send("x"));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(send.as_mut().poll(&mut cx).is_pending());
        assert!(send.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(feed.waiting_senders(), 0);
}
