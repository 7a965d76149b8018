//! The core against invented time and invented peers.

use super::*;
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::{Connection, Event as Frame, Opcode, Role, frame, handshake};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target(address: &Address, transport: Transport) -> String {
    match (address.target.as_str(), transport) {
        ("/", Transport::Stream) => "/connection/http_stream".to_owned(),
        ("/", Transport::EventStream) => "/connection/sse".to_owned(),
        (target, _) => target.to_owned(),
    }
}

/// A core, its clock, and what it wanted done.
struct Bench {
    core: Core,
    now: Instant,
    outputs: Vec<Output>,
}

fn plan(urls: &[&str], transports: &[Transport]) -> Plan {
    Plan {
        servers: urls.iter().map(|url| Arc::new(Address::parse(url).unwrap())).collect(),
        transports: transports.to_vec(),
        target,
        subprotocols: &["v12.stomp"],
        uplink: "/emulation",
        asks: Asks::WithLogin,
    }
}

fn terms(kind: heartbeat::Kind, interval: u64, max_silence: u64) -> Terms {
    let intervals =
        Intervals { interval: secs(interval), timeout: secs(interval / 2), max_silence: secs(max_silence) };
    Terms { intervals, kind, session: "s".to_owned(), node: "n".to_owned() }
}

impl Bench {
    fn new(plan: Plan, options: Options) -> Bench {
        let options = Options { seed: Some(1), ..options };
        let mut bench = Bench { core: Core::new(plan, options), now: Instant::now(), outputs: Vec::new() };
        bench.core.start(bench.now);
        bench
    }

    fn over(transport: Transport) -> Bench {
        Bench::new(plan(&["ws://one:1"], &[transport]), Options::default())
    }

    fn drain(&mut self) {
        self.outputs.extend(std::iter::from_fn(|| self.core.poll_output()));
    }

    /// The line that was dialled last, and that nobody answered yet.
    fn dialled(&mut self) -> (Line, Arc<Address>) {
        self.drain();
        let dial = self.outputs.iter().rposition(|output| matches!(output, Output::Dial { .. }));
        match self.outputs.remove(dial.expect("something is dialled")) {
            Output::Dial { line, address, .. } => (line, address),
            other => panic!("{other:?}"),
        }
    }

    /// Lets the socket be there.
    fn connect(&mut self) -> Line {
        let (line, _) = self.dialled();
        self.core.handle_dialled(self.now, line, Ok(()));
        line
    }

    fn refuse(&mut self, cause: Cause) -> Arc<Address> {
        let (line, address) = self.dialled();
        self.core.handle_dialled(self.now, line, Err(cause));
        address
    }

    /// What was written to `line` since this was asked last.
    fn written(&mut self, line: Line) -> Vec<u8> {
        self.drain();
        let mut written = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Transmit { line: of, bytes } if *of == line => {
                written.extend_from_slice(bytes);
                false
            }
            _ => true,
        });
        self.core.handle_unwritten(self.now, line, 0);
        written
    }

    fn text(&mut self, line: Line) -> String {
        String::from_utf8(self.written(line)).unwrap()
    }

    /// How `line` was closed, if it was.
    fn closed(&mut self, line: Line) -> Option<bool> {
        self.drain();
        self.outputs.iter().find_map(|output| match output {
            Output::Close { line: of, abort } if *of == line => Some(*abort),
            _ => None,
        })
    }

    /// Gives bytes; says what the dialect hears.
    fn hear(&mut self, line: Line, bytes: &[u8]) -> Vec<String> {
        let mut input = bytes;
        let mut heard = Vec::new();
        while let Some(inbound) = self.core.decode(self.now, line, &mut input) {
            heard.push(match inbound {
                Inbound::Message(_, data) => String::from_utf8(data.to_vec()).unwrap(),
                Inbound::Event { name, data } => format!("{name}={}", String::from_utf8_lossy(&data)),
                Inbound::Bytes(bytes) => format!("bytes {}", String::from_utf8_lossy(bytes)),
            });
        }
        heard
    }

    fn events(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.core.poll_event())
            .map(|event| match event {
                Event::Open(opened) => format!("open {} {}", opened.server.host, opened.transport),
                Event::BeatDue => "beat".to_owned(),
                Event::Lost(cause) => format!("lost {}", cause.name()),
                Event::GaveUp(cause, limit) => format!("gave up {} {limit:?}", cause.name()),
            })
            .collect()
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.core.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "a deadline that has passed is asked for again and again");
            self.now = at;
            self.core.handle_timeout(at);
            if self.core.poll_timeout() == Some(at) {
                self.now += Duration::from_nanos(1);
            }
        }
        self.now = self.now.max(end);
    }

    /// A WebSocket behind its handshake.
    fn open_websocket(&mut self) -> Line {
        let line = self.connect();
        let request = self.written(line);
        let (head, _) = parse_request_head(&request, 1 << 14, 100).unwrap().expect("whole");
        let allowed_origins = AllowedOrigins::default();
        let options = handshake::Options {
            allowed_origins: &allowed_origins,
            subprotocols: &["v12.stomp"],
            allow_deflate: false,
        };
        let accepted = handshake::accept(&head, &options).unwrap();
        assert_eq!(self.hear(line, &accepted.response), [""; 0]);
        assert_eq!(self.events().last().map(String::as_str), Some("open one websocket"));
        line
    }

    fn log_in(&mut self, kind: heartbeat::Kind, interval: u64, max_silence: u64) {
        self.core.logged_in(self.now, terms(kind, interval, max_silence));
        assert!(self.core.is_logged_in());
    }

    /// The frames that were written, as a server reads them.
    fn frames(&mut self, line: Line) -> Vec<Frame> {
        let bytes = self.written(line);
        let mut server = Connection::new(Role::Server, false, 1 << 20);
        let mut input = &bytes[..];
        std::iter::from_fn(|| server.decode(&mut input).unwrap()).collect()
    }
}

fn served(kind: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(kind, false, None, payload, &mut out);
    out
}

const IDLE: heartbeat::Kind = heartbeat::Kind::Idle;

#[test]
fn a_websocket_opens_and_carries_masked_messages() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 60);
    bench.core.send(bench.now, Kind::Text, b"hello");
    bench.core.send(bench.now, Kind::Binary, b"hello");
    bench.drain();
    let Some(Output::Transmit { bytes, .. }) = bench.outputs.last().cloned() else {
        panic!("nothing written")
    };
    let (first, second) = bytes.split_at(11);
    assert_eq!((first[1], second[1]), (0x85, 0x85), "both are masked");
    assert_ne!(first[2..6], second[2..6], "each by a mask of its own");
    let frames = bench.frames(line);
    assert_eq!(frames.len(), 2);
    assert!(matches!(&frames[1], Frame::Message { kind: Kind::Binary, data } if data.as_ref() == b"hello"));

    let heard = bench.hear(line, &[served(Opcode::Text, b"a"), served(Opcode::Text, b"b")].concat());
    assert_eq!(heard, ["a", "b"]);
    assert_eq!((bench.core.stats().messages_sent, bench.core.stats().messages_received), (2, 2));
}

#[test]
fn a_ping_is_answered_with_what_it_carried() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    assert_eq!(bench.hear(line, &served(Opcode::Ping, b"are you there")), [""; 0]);
    assert!(matches!(&bench.frames(line)[..], [Frame::Pong(data)] if data.as_ref() == b"are you there"));
}

#[test]
fn a_server_that_falls_silent_is_left_at_once_and_dialled_again() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 30);
    bench.pass(secs(29));
    bench.hear(line, &served(Opcode::Ping, b""));
    bench.pass(secs(29));
    assert!(bench.core.is_logged_in(), "a ping is a sign of life");
    bench.pass(secs(1));
    assert_eq!(bench.events(), ["lost silent"]);
    assert_eq!(bench.closed(line), Some(true), "nobody waits for a peer that is not there");
    let transitions = bench.core.take_transitions();
    let Some(Transition::Disconnected { cause, was_connected: true, retry_in: Some(delay) }) =
        transitions.last()
    else {
        panic!("{transitions:?}");
    };
    assert_eq!(*cause, Cause::Silent { silence: secs(30) });
    assert!(*delay <= Duration::from_millis(500));
    bench.pass(secs(1));
    assert_ne!(bench.dialled().0, line);
}

#[test]
fn a_server_that_is_not_read_is_not_called_silent() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 30);
    bench.core.set_reading(bench.now, false);
    assert!(!bench.core.wants_bytes(line));
    bench.pass(secs(100));
    bench.core.set_reading(bench.now, true);
    assert!(bench.core.wants_bytes(line));
    bench.pass(secs(29));
    assert_eq!(bench.events(), [""; 0]);
    bench.pass(secs(1));
    assert_eq!(bench.events(), ["lost silent"], "counted from when it is read again");
}

#[test]
fn beats_are_asked_of_the_dialect() {
    let mut bench = Bench::over(Transport::Tcp);
    bench.connect();
    bench.events();
    bench.log_in(heartbeat::Kind::OneWay, 10, 100);
    bench.pass(secs(31));
    assert_eq!(bench.events(), ["beat"; 3]);
}

#[test]
fn a_write_that_makes_no_progress_ends_the_connection() {
    let mut bench = Bench::over(Transport::Tcp);
    let line = bench.connect();
    bench.log_in(IDLE, 1000, 600);
    bench.core.send(bench.now, Kind::Binary, &[0; 1000]);
    assert_eq!(bench.core.unwritten(), 1000);
    bench.drain();
    bench.core.handle_unwritten(bench.now, line, 800);
    bench.pass(secs(9));
    bench.core.handle_unwritten(bench.now, line, 700);
    bench.pass(secs(9));
    bench.core.handle_unwritten(bench.now, line, 700);
    assert!(bench.core.is_logged_in());
    bench.pass(secs(1));
    assert_eq!(bench.events(), ["open one tcp", "lost write_stalled"]);
    assert_eq!((bench.closed(line), bench.core.unwritten()), (Some(true), 0));
}

#[test]
fn a_login_has_ten_seconds_from_the_socket_on() {
    let mut bench = Bench::over(Transport::WebSocket);
    bench.pass(secs(9));
    bench.open_websocket();
    bench.pass(secs(9));
    assert_eq!(bench.events(), [""; 0]);
    bench.pass(secs(1));
    assert_eq!(bench.events(), ["lost login_timeout"]);
    // The handshake counts, too.
    let mut bench = Bench::over(Transport::WebSocket);
    bench.connect();
    bench.pass(secs(10));
    assert_eq!(bench.events(), ["lost login_timeout"]);
}

#[test]
fn a_driver_that_says_nothing_of_a_dial_is_not_waited_for() {
    let mut bench = Bench::over(Transport::Tcp);
    let (line, _) = bench.dialled();
    bench.pass(secs(11));
    assert_eq!(bench.events(), ["lost connect_timeout"]);
    bench.core.handle_dialled(bench.now, line, Ok(()));
    assert_eq!(bench.events(), [""; 0], "it comes too late");
}

#[test]
fn who_leaves_says_so_and_what_was_sent_is_written_first() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 60);
    bench.core.send(bench.now, Kind::Text, b"last words");
    bench.core.leave(bench.now);
    bench.drain();
    assert_eq!(bench.closed(line), None, "not before it is written");
    let frames = bench.frames(line);
    assert!(
        matches!(&frames[..], [Frame::Message { .. }, Frame::Close { code: Some(1000), .. }]),
        "{frames:?}"
    );
    assert_eq!(bench.closed(line), Some(false));
    assert!(bench.core.is_over());
    assert_eq!(bench.events(), [""; 0]);
    assert_eq!(bench.core.take_transitions().last(), Some(&Transition::Closed));
    assert_eq!(bench.core.poll_timeout(), None);
}

#[test]
fn leaving_a_peer_that_takes_nothing_ends_with_the_write_timeout() {
    let mut bench = Bench::over(Transport::Tcp);
    let line = bench.connect();
    bench.log_in(IDLE, 5, 600);
    bench.core.send(bench.now, Kind::Binary, &[0; 1000]);
    bench.drain();
    bench.core.handle_unwritten(bench.now, line, 1000);
    bench.core.leave(bench.now);
    bench.pass(secs(9));
    assert!(!bench.core.is_over());
    bench.pass(secs(1));
    assert_eq!((bench.closed(line), bench.core.is_over()), (Some(true), true));
    assert_eq!(bench.events(), ["open one tcp"]);
}

#[test]
fn leaving_between_attempts_and_while_dialling_is_at_once() {
    let mut bench = Bench::over(Transport::Tcp);
    bench.refuse(Cause::Refused);
    bench.core.leave(bench.now);
    assert!(bench.core.is_over() && bench.core.poll_timeout().is_none());
    let mut bench = Bench::over(Transport::Tcp);
    let (line, _) = bench.dialled();
    bench.core.leave(bench.now);
    assert_eq!((bench.closed(line), bench.core.is_over()), (Some(true), true));
}

#[test]
fn ends_are_named_after_what_was_seen() {
    let close = |code: u16, text: &str| served(Opcode::Close, &frame::close_payload(code, text));
    for (end, name) in [
        (Ok(End::Eof), "ended"),
        (Ok(End::Reset), "reset"),
        (Ok(End::Failed("no route".to_owned())), "broken"),
        (Err(close(3001, "shutdown")), "told"),
        (Err(served(Opcode::Close, b"")), "ended"),
        (Err(vec![0xFF, 0xFF]), "protocol"),
        (Err(served(Opcode::Continuation, b"x")), "protocol"),
    ] {
        let mut bench = Bench::over(Transport::WebSocket);
        let line = bench.open_websocket();
        bench.log_in(IDLE, 1000, 60);
        match end {
            Ok(end) => bench.core.handle_end(bench.now, line, end),
            Err(bytes) => assert_eq!(bench.hear(line, &bytes), [""; 0]),
        }
        assert_eq!(bench.events(), [format!("lost {name}")]);
        assert_eq!(bench.core.stats().causes.get(name), Some(&1));
        assert_eq!(bench.hear(line, &served(Opcode::Text, b"late")), [""; 0], "nothing more is heard");
    }
}

#[test]
fn a_close_frame_is_returned_and_its_words_are_the_cause() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.hear(line, &served(Opcode::Close, &frame::close_payload(3500, "invalid token")));
    assert!(matches!(&bench.frames(line)[..], [Frame::Close { code: Some(3500), .. }]));
    assert_eq!(bench.closed(line), Some(false));
    assert_eq!(bench.events(), ["lost told", "gave up told Advice"]);
    let cause = bench.core.stats().last_cause.clone().expect("counted");
    assert_eq!(cause, Cause::told(3500, "invalid token"));
    assert!(bench.core.is_over());
}

#[test]
fn a_broken_rule_is_said_before_the_connection_is_closed() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.hear(line, &served(Opcode::Text, &[0xFF]));
    assert!(matches!(&bench.frames(line)[..], [Frame::Close { code: Some(1007), .. }]));
    assert_eq!(bench.closed(line), Some(false));
}

#[test]
fn what_the_dialect_saw_ends_the_connection_and_is_told_once() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 60);
    bench.core.fail(bench.now, Cause::CommandTimeout("subscribe"));
    bench.core.fail(bench.now, Cause::Ended);
    bench.core.handle_end(bench.now, line, End::Reset);
    assert_eq!(bench.events(), ["lost command_timeout"]);
    assert_eq!(bench.core.stats().losses, 1);
}

#[test]
fn a_refused_upgrade_tries_the_next_transport_at_once_and_keeps_the_one_that_works() {
    let ladder = [Transport::WebSocket, Transport::Stream];
    let mut bench = Bench::new(plan(&["ws://one:1"], &ladder), Options::default());
    let line = bench.connect();
    bench.hear(line, b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.events(), ["lost status"]);
    bench.pass(Duration::ZERO);
    let line = bench.connect();
    assert_eq!(bench.events(), ["open one stream"]);
    bench.log_in(IDLE, 1000, 60);
    bench.core.handle_end(bench.now, line, End::Eof);
    bench.pass(secs(1));
    bench.connect();
    assert_eq!(bench.events(), ["lost ended", "open one stream"]);
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.connect();
    bench.hear(line, b"HTTP/1.1 503 Away\r\nRetry-After: 7\r\n\r\n");
    bench.pass(Duration::from_millis(6999));
    bench.drain();
    assert!(!bench.outputs.iter().any(|output| matches!(output, Output::Dial { .. })));
    bench.pass(Duration::from_millis(501));
    bench.dialled();
}

#[test]
fn a_final_status_of_the_only_server_and_transport_is_final() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.connect();
    bench.hear(line, b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.events(), ["lost status", "gave up status Advice"]);
    assert!(bench.core.is_over());
}

#[test]
fn servers_are_dialled_in_turn_until_one_opens() {
    let urls = ["ws://one:1", "ws://two:2", "ws://three:3"];
    let mut bench = Bench::new(plan(&urls, &[Transport::Tcp]), Options::default());
    let mut dialled = Vec::new();
    for _ in 0..4 {
        dialled.push(bench.refuse(Cause::Refused).port);
        bench.pass(secs(2));
    }
    assert_eq!(dialled, [1, 2, 3, 1]);
    let failures: Vec<u32> = bench
        .core
        .take_transitions()
        .iter()
        .filter_map(|transition| match transition {
            Transition::Connecting { failures, .. } => Some(*failures),
            _ => None,
        })
        .collect();
    assert_eq!(failures, [0, 1, 2, 3, 4]);
}

#[test]
fn attempts_end_where_the_limit_is() {
    let mut options = Options::default();
    options.reconnect.max_attempts = Some(2);
    let mut bench = Bench::new(plan(&["ws://one:1"], &[Transport::Tcp]), options);
    bench.refuse(Cause::Refused);
    bench.pass(secs(1));
    bench.refuse(Cause::Refused);
    assert_eq!(bench.events(), ["lost refused", "lost refused", "gave up refused Attempts"]);
    assert!(bench.core.is_over() && bench.core.poll_timeout().is_none());
    let stats = bench.core.stats();
    assert_eq!((stats.attempts, stats.failures, stats.connects, stats.losses), (2, 2, 0, 0));
    assert_eq!(stats.categories.get("network"), Some(&2));
    let last = bench.core.take_transitions().pop();
    assert_eq!(last, Some(Transition::GaveUp { cause: Cause::Refused, limit: Limit::Attempts }));
}

#[test]
fn raw_bytes_go_both_ways_as_they_are() {
    let mut bench = Bench::over(Transport::Tcp);
    let line = bench.connect();
    bench.core.send(bench.now, Kind::Binary, b"CONNECT\n\n\0");
    assert_eq!(bench.text(line), "CONNECT\n\n\0");
    assert_eq!(bench.hear(line, b"\n"), ["bytes \n"]);
}

const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(line: &str) -> Vec<u8> {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1).into_bytes()
}

/// A stream whose login is done.
fn open_stream() -> (Bench, Line) {
    let mut bench = Bench::over(Transport::Stream);
    let line = bench.connect();
    assert_eq!(bench.events(), ["open one stream"]);
    bench.core.send(bench.now, Kind::Text, b"{\"id\":1}");
    let request = bench.text(line);
    assert!(request.starts_with("POST /connection/http_stream HTTP/1.1\r\nHost: one:1\r\n"), "{request}");
    assert!(
        request.ends_with("Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"id\":1}"),
        "{request}"
    );
    assert_eq!(bench.hear(line, &[CHUNKED, &chunk("{\"a\":1}")].concat()), ["{\"a\":1}"]);
    bench.log_in(IDLE, 1000, 60);
    (bench, line)
}

/// The `data` of a POST to the uplink.
fn posted(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").expect("whole");
    assert!(head.starts_with("POST /emulation HTTP/1.1\r\n"), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["session"], &body["node"]), (&"s".into(), &"n".into()));
    body["data"].as_str().unwrap().to_owned()
}

#[test]
fn messages_beside_a_stream_are_posted_one_post_at_a_time_in_order() {
    let (mut bench, _) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    let up = bench.connect();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":3}");
    bench.core.send(bench.now, Kind::Text, b"{\"id\":4}");
    let request = bench.text(up);
    assert_eq!(posted(&request), "{\"id\":2}");
    assert_eq!(bench.hear(up, b"HTTP/1.1 204 No Content\r\n\r\n"), [""; 0]);
    let request = bench.text(up);
    assert_eq!(posted(&request), "{\"id\":3}\n{\"id\":4}", "on the same line, together");
    assert!(bench.core.unwritten() > 0, "an answer is awaited");
    bench.hear(up, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!((bench.core.unwritten(), bench.closed(up)), (0, Some(false)));
    bench.core.send(bench.now, Kind::Text, b"{\"id\":5}");
    let other = bench.connect();
    let request = bench.text(other);
    assert_eq!((posted(&request).as_str(), other != up), ("{\"id\":5}", true));
}

#[test]
fn a_post_that_may_have_been_done_is_not_repeated() {
    for end in [End::Reset, End::Eof] {
        let (mut bench, line) = open_stream();
        bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
        let up = bench.connect();
        bench.written(up);
        bench.core.handle_end(bench.now, up, end);
        assert!(bench.events()[0].starts_with("lost "));
        assert!(bench.closed(line).is_some() && bench.closed(up).is_some());
    }
    let (mut bench, _) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    let up = bench.connect();
    bench.written(up);
    bench.pass(secs(10));
    assert_eq!(bench.events(), ["lost command_timeout"]);
}

#[test]
fn an_uplink_that_ends_at_rest_is_dialled_again_when_it_is_wanted() {
    let (mut bench, _) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    let up = bench.connect();
    bench.written(up);
    bench.hear(up, b"HTTP/1.1 204 No Content\r\n\r\n");
    bench.core.handle_end(bench.now, up, End::Eof);
    assert_eq!((bench.events().len(), bench.closed(up)), (0, Some(true)));
    bench.core.send(bench.now, Kind::Text, b"{\"id\":3}");
    let other = bench.connect();
    let request = bench.text(other);
    assert_eq!(posted(&request), "{\"id\":3}");
}

#[test]
fn an_uplink_that_is_not_wanted_is_given_up() {
    let (mut bench, _) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    let up = bench.connect();
    bench.written(up);
    bench.pass(secs(6));
    bench.hear(up, b"HTTP/1.1 204 No Content\r\n\r\n");
    bench.pass(Duration::from_millis(1999));
    assert_eq!(bench.closed(up), None);
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.closed(up), bench.core.is_logged_in()), (Some(false), true));
    bench.core.send(bench.now, Kind::Text, b"{\"id\":3}");
    let other = bench.connect();
    let request = bench.text(other);
    assert_eq!(posted(&request), "{\"id\":3}");
    bench.pass(secs(9));
    assert_eq!(bench.closed(other), None, "an answer is awaited");
}

#[test]
fn what_the_uplink_does_not_take_yet_is_posted_again_and_what_it_refuses_ends_the_connection() {
    let (mut bench, _) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    let up = bench.connect();
    bench.written(up);
    bench.hear(up, b"HTTP/1.1 429 Later\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n");
    bench.pass(secs(2));
    bench.drain();
    assert!(!bench.outputs.iter().any(|output| matches!(output, Output::Dial { .. })));
    bench.pass(secs(1));
    let up = bench.connect();
    let request = bench.text(up);
    assert_eq!(posted(&request), "{\"id\":2}");
    bench.hear(up, b"HTTP/1.1 404 Who\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.events(), ["lost status"], "but the client comes back");
}

#[test]
fn leaving_a_stream_waits_for_what_was_posted() {
    let (mut bench, line) = open_stream();
    bench.core.send(bench.now, Kind::Text, b"{\"id\":2}");
    bench.core.leave(bench.now);
    let up = bench.connect();
    bench.written(up);
    assert!(!bench.core.is_over());
    bench.hear(up, b"HTTP/1.1 204 No Content\r\n\r\n");
    assert!(bench.core.is_over());
    assert_eq!((bench.closed(line), bench.closed(up)), (Some(false), Some(false)));
}

#[test]
fn the_end_of_a_stream_is_an_end_however_it_is_said() {
    let (mut bench, line) = open_stream();
    bench.hear(line, b"0\r\n\r\n");
    assert_eq!(bench.events(), ["lost ended"]);
    let (mut bench, line) = open_stream();
    bench.core.handle_end(bench.now, line, End::Eof);
    assert_eq!(bench.events(), ["lost ended"]);
    let (mut bench, line) = open_stream();
    bench.hear(line, b"nonsense\r\n");
    assert_eq!(bench.events(), ["lost protocol"]);
}

#[test]
fn an_event_stream_carries_its_login_in_the_target() {
    let mut bench = Bench::over(Transport::EventStream);
    let line = bench.connect();
    assert_eq!(bench.events(), ["open one sse"]);
    bench.core.send(bench.now, Kind::Text, b"{\"id\":1} &");
    let request = bench.text(line);
    let expected = "GET /connection/sse?cf_connect=%7B%22id%22%3A1%7D+%26 HTTP/1.1\r\n";
    assert!(request.starts_with(expected), "{request}");
    assert!(request.contains("Accept: text/event-stream\r\n"), "{request}");
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let heard = bench.hear(line, &[&head[..], b"\r\nid: 4\ndata: {}\n\nevent: join\ndata: x\n\n"].concat());
    assert_eq!(heard, ["{}", "join=x"]);
    assert_eq!(bench.core.last_event_id(), Some("4"));
}

fn open_poll() -> (Bench, Line) {
    let plan =
        Plan { asks: Asks::WithTarget, uplink: "/send", ..plan(&["poll+http://one:1"], &[Transport::Poll]) };
    let mut bench = Bench::new(plan, Options::default());
    let line = bench.connect();
    bench.core.send(bench.now, Kind::Text, b"/poll?channels=a");
    assert!(bench.text(line).starts_with("GET /poll?channels=a HTTP/1.1\r\n"));
    assert_eq!(bench.hear(line, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), ["{}"]);
    bench.log_in(IDLE, 1000, 30);
    bench.events();
    (bench, line)
}

#[test]
fn polls_follow_one_another_on_one_line_for_as_long_as_it_lasts() {
    let (mut bench, line) = open_poll();
    bench.core.send(bench.now, Kind::Text, b"/poll?since=1");
    assert!(bench.text(line).starts_with("GET /poll?since=1 "));
    let closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n2";
    assert_eq!(bench.hear(line, closing), ["2"]);
    assert_eq!((bench.closed(line), bench.core.is_logged_in()), (Some(false), true));
    bench.core.send(bench.now, Kind::Text, b"/poll?since=2");
    let other = bench.connect();
    assert!(bench.core.is_current(other) && !bench.core.is_current(line));
    assert!(bench.text(other).starts_with("GET /poll?since=2 "));
    assert_eq!(bench.events(), [""; 0], "it is one connection to the dialect");
    assert_eq!(bench.hear(other, b"HTTP/1.1 204 No Content\r\n\r\n"), [""]);
}

#[test]
fn a_poll_that_crossed_the_end_of_its_line_is_asked_again() {
    let (mut bench, line) = open_poll();
    bench.core.send(bench.now, Kind::Text, b"/poll?since=1");
    bench.written(line);
    bench.core.handle_end(bench.now, line, End::Reset);
    let other = bench.connect();
    assert!(bench.text(other).starts_with("GET /poll?since=1 "));
    bench.core.handle_end(bench.now, other, End::Reset);
    assert_eq!(bench.events(), ["lost reset"], "a fresh line is believed");
}

#[test]
fn a_poll_is_silent_only_while_it_is_asked() {
    let (mut bench, line) = open_poll();
    bench.pass(secs(300));
    assert_eq!(bench.events(), [""; 0]);
    bench.core.send(bench.now, Kind::Text, b"/poll?since=1");
    bench.written(line);
    bench.pass(secs(29));
    assert_eq!(bench.events(), [""; 0]);
    bench.pass(secs(1));
    assert_eq!(bench.events(), ["lost silent"]);
}

#[test]
fn what_goes_up_beside_a_poll_is_posted_to_the_session() {
    let (mut bench, _) = open_poll();
    bench.core.post(bench.now, Kind::Text, b"hello");
    let up = bench.connect();
    let request = bench.text(up);
    assert!(request.starts_with("POST /send?session=s HTTP/1.1\r\n"), "{request}");
    assert!(request.ends_with("Content-Length: 5\r\n\r\nhello"), "{request}");
    bench.hear(up, b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(bench.core.unwritten(), 0);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_bytes_and_delays() {
    let run = || {
        let mut bench = Bench::over(Transport::WebSocket);
        let line = bench.connect();
        let request = bench.written(line);
        bench.core.handle_end(bench.now, line, End::Eof);
        (request, bench.core.poll_timeout().map(|at| at - bench.now))
    };
    assert_eq!(run(), run());
}

#[test]
fn limits_without_end_are_limits() {
    let mut options = Options::default();
    let for_ever = Duration::MAX;
    options.timeouts.connect = for_ever;
    options.timeouts.login = for_ever;
    options.timeouts.write = for_ever;
    options.timeouts.command = for_ever;
    options.timeouts.silence = for_ever;
    options.reconnect.first_delay = for_ever;
    options.reconnect.max_delay = for_ever;
    options.reconnect.stable_after = for_ever;
    options.reconnect.max_elapsed = Some(for_ever);
    let mut bench = Bench::new(plan(&["ws://one:1"], &[Transport::WebSocket]), options);
    assert!(bench.core.poll_timeout().is_some());
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 60);
    bench.core.send(bench.now, Kind::Text, b"hello");
    bench.drain();
    bench.core.handle_unwritten(bench.now, line, 3);
    assert!(bench.core.poll_timeout().is_some());
    bench.core.handle_end(bench.now, line, End::Eof);
    assert_eq!(bench.events().last().map(String::as_str), Some("lost ended"));
    assert!(bench.core.poll_timeout().is_some());
    bench.core.leave(bench.now);
    assert!(bench.core.is_over());
}

#[test]
fn who_floods_with_pings_and_reads_nothing_gets_few_answers() {
    let mut bench = Bench::over(Transport::WebSocket);
    let line = bench.open_websocket();
    bench.log_in(IDLE, 1000, 60);
    let pings = served(Opcode::Ping, &[7; 125]).repeat(500);
    for _ in 0..50 {
        bench.hear(line, &pings);
        let unwritten = bench.core.unwritten();
        bench.drain();
        bench.core.handle_unwritten(bench.now, line, unwritten);
    }
    assert!(bench.core.unwritten() < 1 << 19, "{}", bench.core.unwritten());
    bench.written(line);
    bench.hear(line, &served(Opcode::Ping, b"again"));
    assert!(matches!(&bench.frames(line)[..], [Frame::Pong(data)] if data.as_ref() == b"again"));
}
