//! What broken and malicious peers do on every transport of the plain dialect: each ends with one name in the log and
//! for the backend, the peer is told where its transport has a word for it, and memory does not follow what is announced.
//!
//! Servers whose memory or log is looked at are processes of their own; the others are asked what they counted.

use super::{Lines, Packets, polled, quoted, since, tcp_server, upgrade, websocket, welcomed};
use crate::bad_input::resident_kib;
use crate::framing_suite::frame;
use crate::harness::{Binary, End, Events, Link, Raw, Received, Response, TestServer, api, get, http, until};
use crate::metrics::metric;
use crate::webhooks::{Backend, Gate, ok, place};
use longwire::config::{FirstPacket, Framing, LengthCounts, Listener, Protocol};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// A binary with listeners of packets of every kind, whose backend is told of ends.
struct Devices {
    server: Binary,
    http: SocketAddr,
    backend: Backend,
}

impl Devices {
    fn start() -> Devices {
        let backend = Backend::start(|_| ok(&json!({})));
        let close = format!("http://{}/close", backend.address);
        let mut settings = vec![
            "--client.allow-anonymous=true".to_owned(),
            "--client.connect-timeout=2s".to_owned(),
            "--plain.grace=0s".to_owned(),
            "--websocket.max-message-bytes=65536".to_owned(),
            "--server.drain-over=0s".to_owned(),
            "--channel.allow-subscribe-for-client=true".to_owned(),
            "--channel.allow-subscribe-for-anonymous=true".to_owned(),
            format!("--webhook.close.endpoint={close}"),
        ];
        for (name, options) in [
            ("lines", &[][..]),
            ("ends", &["terminator=<END\r>", "max-packet-bytes=4096"][..]),
            ("bodies", &["framing=length"]),
            ("packets", &["framing=length", "length-counts=packet"]),
            ("wide", &["framing=length", "length-offset=200", "body-offset=255"]),
            ("widest", &["framing=length", "length-offset=251", "body-offset=255", "length-counts=packet"]),
            ("little", &["framing=length", "length-order=little", "whole-packets=true"]),
            ("first", &["first-packet=json"]),
            ("names", &["first-packet=client", "idle-timeout=1s"]),
        ] {
            settings.push(format!("--listeners.{name}.address=127.0.0.1:0"));
            settings.push(format!("--listeners.{name}.protocol=tcp"));
            settings.extend(options.iter().map(|option| format!("--listeners.{name}.{option}")));
        }
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let (server, http) = Binary::serve(&settings);
        Devices { server, http, backend }
    }

    fn address(&self, listener: &str) -> SocketAddr {
        let line = self.server.stderr().await_line(&format!("\"listener\":\"{listener}\""));
        let line: Value = serde_json::from_str(&line).expect("the log is JSON");
        line["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Opens a link of any listener; `http` is a WebSocket.
    fn open(&self, listener: &str) -> Link {
        if listener == "http" {
            return websocket_at(self.http).link;
        }
        Link::open(self.address(listener))
    }

    /// The names under which links ended, as the log has them; with what was wrong.
    fn logged(&self) -> Vec<(String, String)> {
        let lines = self.server.stderr().lines();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .filter(|line| {
                line["message"].as_str().is_some_and(|text| text.starts_with("connection closed: "))
            })
            .map(|line| (text(&line["reason"]), text(&line["detail"])))
            .collect()
    }

    /// The names under which connections ended, as the backend was told.
    fn told(&self) -> Vec<String> {
        let asked = self.backend.asked().into_iter();
        asked.map(|asked| asked.body["reason"].as_str().unwrap_or("none").to_owned()).collect()
    }
}

fn websocket_at(server: SocketAddr) -> Raw {
    let mut raw = Raw::of_request(server, &upgrade(server, "/ws?channels=news", ""));
    assert_eq!(raw.value()["type"], "subscribed");
    raw
}

/// A packet whose length is told in four bytes.
fn announced(number: u32, offset: usize) -> Vec<u8> {
    [vec![0; offset], number.to_be_bytes().to_vec()].concat()
}

/// What a peer does, and what comes of it.
struct Case {
    listener: &'static str,
    bytes: Vec<u8>,
    reason: CloseReason,
    detail: &'static str,
    /// The client was connected before, so that the backend hears of the end.
    is_told: bool,
}

fn cases() -> Vec<Case> {
    let over = "a length announces a packet larger than the limit";
    let under = "a length is smaller than the head that it counts";
    let endless = "a packet goes on past the limit without its terminator";
    let [head, max] = [|number, offset| announced(number, offset), |_, offset| announced(u32::MAX, offset)];
    let mut cases = Vec::new();
    let mut case = |listener, bytes, reason, detail, is_told| {
        cases.push(Case { listener, bytes, reason, detail, is_told });
    };
    for (listener, offset) in [("bodies", 0), ("packets", 0), ("wide", 200), ("widest", 251)] {
        case(listener, max(0, offset), CloseReason::MessageTooBig, over, true);
        // With the head that it does not count, 32 bits would not do.
        case(listener, head(u32::MAX - 254, offset), CloseReason::MessageTooBig, over, true);
        case(listener, head(1 << 31, offset), CloseReason::MessageTooBig, over, true);
        // The limit holds for the head, too.
        let just_over = if listener == "widest" || listener == "packets" { 65_537 } else { 65_536 };
        case(listener, head(just_over, offset), CloseReason::MessageTooBig, over, true);
    }
    case("packets", head(0, 0), CloseReason::ProtocolError, under, true);
    case("packets", head(3, 0), CloseReason::ProtocolError, under, true);
    case("widest", head(254, 251), CloseReason::ProtocolError, under, true);
    // Big-endian bytes where the others are expected.
    case("little", head(1, 0), CloseReason::MessageTooBig, over, true);
    // What comes before is heard.
    case("bodies", b"\0\0\0\x01a\0\0\0\0\xff\xff\xff\xff".to_vec(), CloseReason::MessageTooBig, over, true);
    // Other protocols on the port.
    case("bodies", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), CloseReason::MessageTooBig, over, true);
    case(
        "bodies",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        CloseReason::MessageTooBig,
        over,
        true,
    );
    case("bodies", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), CloseReason::MessageTooBig, over, true);
    case("lines", vec![b'x'; 65_537], CloseReason::MessageTooBig, endless, true);
    case("ends", [&vec![b'<'; 4100][..], b"END"].concat(), CloseReason::MessageTooBig, endless, true);
    case("ends", b"<END".repeat(2000), CloseReason::MessageTooBig, endless, true);
    case(
        "ends",
        [&vec![b'x'; 4097][..], b"<END\r>"].concat(),
        CloseReason::MessageTooBig,
        "a packet is larger than the limit",
        true,
    );
    for (bytes, detail) in [
        (&b"\xff\xfe\n"[..], "the first packet is not UTF-8"),
        (b"\n", "the first packet: EOF while parsing"),
        (b"{\n", "the first packet: EOF while parsing"),
        (b"{\"client\":\"a\",\"x\":1}\n", "the first packet: unknown field `x`"),
        (b"{\"channels\":[\"\"]}\n", "the first packet: channel 1 is empty or named twice"),
        (b"{\"since\":\"a=1\"}\n", "the first packet: \"since\": "),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "the first packet: expected value"),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\n", "the first packet"),
    ] {
        case("first", bytes.to_vec(), CloseReason::BadRequest, detail, false);
    }
    let deep = format!("{{\"data\":{}\n", "[".repeat(60_000)).into_bytes();
    case("first", deep, CloseReason::BadRequest, "the first packet: EOF while parsing", false);
    let many: Vec<String> = (0..129).map(|n| format!("\"c{n}\"")).collect();
    let many = format!("{{\"channels\":[{}]}}\n", many.join(",")).into_bytes();
    case("first", many, CloseReason::BadRequest, "129 channels, at most 128", false);
    case("names", b"\n".to_vec(), CloseReason::BadRequest, "a client's name has 1 to 255 bytes", false);
    case("names", [&[b'x'; 256][..], b"\n"].concat(), CloseReason::BadRequest, "1 to 255 bytes", false);
    // Not one that comes too late, nor one that never ends.
    case("first", b"{\"client\":".to_vec(), CloseReason::Stale, "", false);
    case("first", Vec::new(), CloseReason::Stale, "", false);
    case("names", b"a\nand nothing more".to_vec(), CloseReason::NoHeartbeat, "", true);
    for (bytes, reason, detail) in [
        (frame(0x81, &vec![b'x'; 65_537]), CloseReason::MessageTooBig, ""),
        // Parts that are small each.
        (
            [frame(0x01, &[b'x'; 60_000]), frame(0x89, b"still there"), frame(0x80, &[b'x'; 5_537])].concat(),
            CloseReason::MessageTooBig,
            "",
        ),
        (frame(0x80, b"x"), CloseReason::ProtocolError, ""),
        ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), CloseReason::ProtocolError, ""),
        (frame(0x09, b"a ping in parts"), CloseReason::ProtocolError, ""),
        (frame(0x89, &[b'x'; 126]), CloseReason::ProtocolError, ""),
        (frame(0xC1, b"compressed without a word"), CloseReason::ProtocolError, ""),
        (frame(0x88, b"\x03"), CloseReason::ProtocolError, ""),
        ([frame(0x01, b"\xc3"), frame(0x80, b"\x28")].concat(), CloseReason::InvalidPayload, ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), CloseReason::ProtocolError, ""),
        (b"plain text\n".to_vec(), CloseReason::ProtocolError, ""),
    ] {
        case("http", bytes, reason, detail, true);
    }
    cases
}

#[test]
fn whatever_breaks_a_rule_ends_under_one_name_for_the_peer_the_log_and_the_backend() {
    let devices = Devices::start();
    for (number, case) in cases().into_iter().enumerate() {
        let Case { listener, bytes, reason, detail, is_told } = case;
        let shown = format!(
            "case {number}: {:?} on {listener}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(60)])
        );
        let told_before = devices.told().len();
        let mut link = devices.open(listener);
        link.send(&bytes);
        let mut last = Vec::new();
        let end = loop {
            match link.take(1) {
                Ok(byte) => last.extend(byte),
                Err(end) => break end,
            }
            if listener == "http" && last.ends_with(reason.text().as_bytes()) {
                // A WebSocket waits for the other side.
                link.finish();
            }
        };
        assert_ne!(end, End::Nothing, "{shown}");
        let last = String::from_utf8_lossy(&last).into_owned();
        match listener {
            "http" => assert!(last.ends_with(reason.text()), "{shown}: {last}"),
            // Silence is answered with a reset: nobody may be there to read.
            _ if reason == CloseReason::NoHeartbeat => {}
            _ => {
                let told = format!(
                    r#"{{"type":"disconnect","code":{},"reason":"{}","reconnect":"#,
                    reason.code(),
                    reason.text()
                );
                assert!(last.contains(&told), "{shown}: {last}");
            }
        }
        until(&format!("the log: {shown}"), || devices.logged().len() > number);
        let (name, what) = devices.logged().swap_remove(number);
        assert_eq!(name, reason.name(), "{shown}: {what}");
        assert!(what.contains(detail), "{shown}: {what}");
        if is_told {
            until(&format!("the backend: {shown}"), || devices.told().len() > told_before);
            assert_eq!(devices.told()[told_before], reason.name(), "{shown}");
        }
    }
    let loud: Vec<String> =
        devices.server.stderr().lines().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
    // It serves as before.
    assert_eq!(Packets::open(devices.address("lines")).value()["type"], "subscribed");
}

#[test]
fn memory_follows_what_is_sent_and_not_what_is_announced() {
    const PEERS: usize = 300;
    let devices = Devices::start();
    let process = devices.server.id();
    let connected = || api(devices.http, "info", &json!({}))["result"]["nodes"][0]["num_clients"] == PEERS;
    let begin = |bytes: &dyn Fn(&str) -> Vec<u8>| {
        let links: Vec<Link> = (0..PEERS)
            .map(|number| {
                let listener = ["bodies", "packets", "wide", "http"][number % 4];
                let mut link = devices.open(listener);
                link.send(&bytes(listener));
                link
            })
            .collect();
        until("all to be connected", connected);
        links
    };
    // What connections cost by themselves, buffers of the process included.
    drop(begin(&|_| Vec::new()));
    until("all to be gone", || {
        api(devices.http, "info", &json!({}))["result"]["nodes"][0]["num_clients"] == 0
    });
    let idle = begin(&|_| Vec::new());
    let before = resident_kib(process);
    drop(idle);
    until("all to be gone", || {
        api(devices.http, "info", &json!({}))["result"]["nodes"][0]["num_clients"] == 0
    });
    // As much as is allowed, of which nothing comes: 64 KiB each.
    let announcing = begin(&|listener| match listener {
        "http" => frame(0x82, &[0; 65_536])[..14].to_vec(),
        "wide" => announced(65_536 - 255, 200),
        "packets" => announced(65_536, 0),
        _ => announced(65_532, 0),
    });
    // What was read is counted; nothing tells more surely that it was.
    let read = || {
        let text = get(devices.http, "/metrics", "").text();
        let line = text.lines().find(|line| line.starts_with("longwire_bytes_received_total "));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a counter")
    };
    until("all to be read", || read() >= (PEERS / 4 * (14 + 204 + 4 + 4)) as u64);
    let after = resident_kib(process);
    println!("{PEERS} peers: {before} KiB idle, {after} KiB announcing 64 KiB each");
    assert!(after < before + (PEERS * 64 / 4), "memory grew from {before} KiB to {after} KiB");
    drop(announcing);
}

#[test]
fn an_endless_stream_is_read_no_further_than_the_limit() {
    let (server, tcp) = tcp_server(|config| config.plain.grace = Duration::ZERO, |_| {});
    let mut packets = Packets::open(tcp);
    packets.value();
    let before = metric(&server, "longwire_bytes_received_total");
    let writer = std::thread::spawn(move || {
        let chunk = vec![b'x'; 64 * 1024];
        for _ in 0..1000 {
            packets.link.send(&chunk);
        }
        packets
    });
    server.await_close(CloseReason::MessageTooBig);
    let mut packets = writer.join().expect("it ends");
    // A limit, and what was read in one go beyond it; the API's own requests are not counted.
    let read = metric(&server, "longwire_bytes_received_total") - before;
    assert!(read <= (2 * 64 * 1024 + 64 * 1024) as f64, "{read} bytes were taken");
    assert_ne!(packets.link.await_end(), End::Nothing);
}

#[test]
fn a_flood_of_nothing_is_too_many_requests_and_a_flood_of_beats_is_read_as_fast_as_it_is_answered() {
    let (server, tcp) = tcp_server(
        |config| config.plain.grace = Duration::ZERO,
        |listener| {
            listener.heartbeat_messages = vec!["ping".to_owned()];
            listener.heartbeat_answer = "pong".to_owned();
        },
    );
    // Empty packets are messages, too.
    let mut packets = Packets::open(tcp);
    packets.value();
    packets.link.send(&b"\n".repeat(10_000));
    let told = packets.value();
    assert_eq!((&told["type"], &told["code"]), (&json!("disconnect"), &json!(3013)), "{told}");
    assert_eq!(server.closes(CloseReason::TooManyRequests), 1);
    // So is what asks for an answer.
    let mut packets = Packets::open(tcp);
    packets.value();
    packets.link.send(&b"ping\n".repeat(10_000));
    while packets.packet() == "pong" {}
    until("the second to be closed", || server.closes(CloseReason::TooManyRequests) == 2);
    let mut socket = websocket(&server, "channels=news");
    socket.value();
    socket.send_bytes(&frame(0x81, b"").repeat(10_000));
    socket.expect_close(CloseReason::TooManyRequests);
}

#[test]
fn messages_in_parts_come_whole_and_empty_ones_and_bytes_are_messages() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = TestServer::with(|config| *place(config, "message") = backend.webhook("message"));
    let (mut socket, _) = welcomed(&server, "channels=news");
    for bytes in [
        frame(0x01, b"in "),
        frame(0x89, b"between"),
        frame(0x00, b""),
        frame(0x00, b"pa\xc3"),
        frame(0x8A, b"a pong that nobody asked for"),
        frame(0x80, b"\xa9ts"),
        frame(0x81, b""),
        frame(0x82, b""),
        frame(0x82, b"text that is called bytes"),
        frame(0x02, b"\xff"),
        frame(0x80, b"\0"),
    ] {
        socket.send_bytes(&bytes);
    }
    assert_eq!(socket.next(), Received::Pong(b"between".to_vec()));
    until("the backend to be told", || backend.asked().len() == 5);
    let said: Vec<Value> = backend
        .asked()
        .into_iter()
        .map(|asked| asked.body.get("data").or(asked.body.get("b64data")).cloned().unwrap_or_default())
        .collect();
    let bytes = "dGV4dCB0aGF0IGlzIGNhbGxlZCBieXRlcw==";
    assert_eq!(said, [json!("in pa\u{e9}ts"), json!(""), json!(""), json!(bytes), json!("/wA=")]);
}

/// Asks with these bytes for the path and the query.
fn ask(server: &TestServer, target: &str, headers: &str) -> Response {
    http(server.address, upgrade(server.address, target, headers))
}

#[test]
fn queries_that_are_huge_or_no_text_are_refused_whoever_is_asked() {
    let server = TestServer::start();
    for path in ["/ws", "/sse", "/stream", "/poll", "/send"] {
        for (query, status) in [
            (format!("channels={}", "x".repeat(100_000)), 431),
            (format!("room={}", "x".repeat(100_000)), 431),
            ("x&".repeat(50_000), 431),
        ] {
            assert_eq!(ask(&server, &format!("{path}?{query}"), "").status, status, "{path}");
        }
    }
    for path in ["/ws", "/sse", "/stream", "/poll"] {
        for (query, said) in [
            ("channels=%ff", "the name of channel 1"),
            ("channels=%00", "the name of channel 1"),
            ("channel=caf%c3%a9", "the name of channel 1"),
            // Two names that are no text would be one.
            ("client=%ff", "the parameter \"client\""),
            ("client=a%00", "the parameter \"client\""),
            ("since=%ff", "the parameter \"since\""),
        ] {
            let response = ask(&server, &format!("{path}?{query}"), "");
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.text());
            assert!(response.text().contains(said), "{path}?{query}: {}", response.text());
        }
        assert_eq!(ask(&server, &format!("{path}?channels=\u{e9}"), "").status, 400, "{path}");
        // A blank ends the target, and what follows it is no version of HTTP.
        assert_eq!(ask(&server, &format!("{path}?channels=a b"), "").status, 505, "{path}");
    }
}

#[test]
fn an_id_of_an_event_that_is_none_of_ours_recovers_nothing_and_refuses_nobody() {
    let server = TestServer::start();
    server.publish("kept:a", 1);
    let long = "x".repeat(8000);
    for id in ["7", "kept:a=", "kept:a=1", "%00", "=", ",", "kept:a=99999999999999999999.abcdefgh", &long] {
        let header = format!("Last-Event-ID: {id}\r\n");
        let mut events = Events::open(server.address, "/sse?channels=kept:a", &header);
        let event = events.next();
        assert_eq!(event.value()["recovered"], false, "{id}: {event:?}");
        let line = Lines::open(server.address, "channels=kept:a", &header).value();
        assert_eq!(line["recovered"], false, "{id}: {line}");
        let response = get(server.address, "/poll?channels=kept:a&wait=60", &header);
        let answer: Value = serde_json::from_slice(&response.body).expect("an answer is JSON");
        assert_eq!(answer["recovered"], false, "{id}: {answer}");
        let mut socket =
            Raw::of_request(server.address, &upgrade(server.address, "/ws?channels=kept:a", &header));
        let welcome = socket.value();
        assert_eq!(welcome["recovered"], false, "{id}: {welcome}");
    }
}

#[test]
fn what_comes_while_a_poll_waits_is_thrown_away_and_the_answer_comes_all_the_same() {
    let server = TestServer::start();
    let at = quoted(&since(&polled(&server, "channels=kept:a")));
    let mut link = Link::open(server.address);
    link.send(format!("GET /poll?channels=kept:a&wait=60&since={at} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    until("the poll to be subscribed", || {
        server.api("channels", &json!({}))["result"]["channels"]["kept:a"]["num_clients"] == 1
    });
    // As many as a client that does not wait for answers sends, and something that is no request.
    for _ in 0..50 {
        link.send(b"GET /poll?channels=kept:a&wait=60 HTTP/1.1\r\nHost: x\r\n\r\n");
        link.send(&[0xFF; 1000]);
    }
    server.publish("kept:a", "at last");
    let response = link.response();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")), "{}", response.head);
    assert!(response.text().contains("at last"), "{}", response.text());
    link.finish();
    assert_eq!(link.await_end(), End::Closed);
}

#[test]
fn bodies_that_are_too_large_are_refused_before_they_are_read_and_slow_ones_in_time() {
    let server = TestServer::with(|config| {
        config.plain.max_message_bytes = 1000;
        config.http.body_timeout = Duration::from_millis(300);
    });
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = events.next().value()["session"].as_str().expect("a session").to_owned();
    let post = |headers: &str, body: &[u8]| {
        let head =
            format!("POST /send?session={session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        http(server.address, [head.as_bytes(), body].concat())
    };
    // The length is enough to know.
    assert_eq!(post("Content-Length: 1001\r\n", b"").status, 413);
    assert_eq!(post("Content-Length: 4294967296\r\n", b"").status, 413);
    assert_eq!(post("Content-Length: 18446744073709551615\r\n", b"").status / 100, 4);
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(post(chunked, b"5\r\nhello\r\n0\r\n\r\n").status, 202);
    assert_eq!(post(chunked, b"0\r\n\r\n").status, 202, "an empty message is one");
    let small = b"64\r\n".iter().chain(&[b'x'; 100]).chain(b"\r\n").copied().collect::<Vec<u8>>();
    assert_eq!(post(chunked, &small.repeat(11)).status, 413, "no chunk is too large");
    // A size of a chunk alone makes no room for it.
    assert_eq!(post(chunked, b"ffffffff\r\nx").status, 408);
    assert_eq!(post(chunked, b"xyz\r\n").status, 400);
    assert_eq!(post("Content-Length: 5\r\n", b"hel").status, 408, "it is not waited for");
    assert_eq!(post(chunked, b"5\r\nhel").status, 408);
    assert_eq!(post("Content-Length: 5\r\nExpect: 100-continue\r\n", b"hello").status / 100, 1);
}

#[test]
fn a_flood_by_requests_is_told_to_wait_and_ends_nothing() {
    let gate = Gate::default();
    let shut = gate.clone();
    let backend = Backend::start(move |_| {
        shut.pass();
        ok(&json!({}))
    });
    let server = TestServer::with(|config| *place(config, "message") = backend.webhook("message"));
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = events.next().value()["session"].as_str().expect("a session").to_owned();
    let request = format!("POST /send?session={session} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        .into_bytes();
    // All at once, on a connection that is kept, and without a look at the answers.
    let mut link = Link::open(server.address);
    let flood = request.repeat(400);
    let mut taken = 0;
    for part in flood.chunks(request.len() * 20) {
        link.send(part);
        for _ in 0..20 {
            let answer = link.response();
            match answer.status {
                202 => taken += 1,
                429 => {
                    assert_eq!(answer.header("retry-after"), Some("1"), "{}", answer.head);
                    assert!(answer.text().contains("too fast"), "{}", answer.text());
                }
                other => panic!("{other}: {}", answer.text()),
            }
        }
    }
    // One is on its way to the backend, and so many may wait.
    assert!((64..=65).contains(&taken), "{taken} were taken");
    gate.open();
    until("all to be told", || backend.asked().len() == taken);
    server.publish("news", "still here");
    assert_eq!(events.next().value()["data"], "still here");
}

#[test]
fn a_handshake_of_tls_on_a_port_of_packets_and_packets_on_one_of_http_end_in_time() {
    let server = TestServer::with(|config| {
        config.http.head_timeout = Duration::from_millis(300);
        config.client.connect_timeout = Duration::from_millis(300);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        for (name, first_packet, framing) in [
            ("first", FirstPacket::Token, Framing::Terminator),
            ("lengths", FirstPacket::None, Framing::Length),
        ] {
            let listener = Listener {
                first_packet,
                framing,
                length_counts: LengthCounts::Packet,
                idle_timeout: Duration::from_secs(60),
                ..Listener::new(name, address, Protocol::Tcp)
            };
            config.listeners.push(listener);
        }
    });
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 506]].concat();
    let mut link = Link::open(server.server().addresses()[1]);
    link.send(&hello);
    link.await_end();
    server.await_close(CloseReason::Stale);
    let mut link = Link::open(server.server().addresses()[2]);
    link.send(&hello);
    link.await_end();
    server.await_close(CloseReason::MessageTooBig);
    // A device that is set up for the wrong port.
    let mut link = Link::open(server.address);
    link.send(b"{\"client\":\"device-42\"}\n");
    let answer = link.response();
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{}", answer.text());
    link.finish();
    assert_eq!(link.await_end(), End::Closed);
    let mut link = Link::open(server.address);
    link.send(&[0, 0, 0, 5]);
    assert_eq!(link.response().status, 400);
    // Nothing at all.
    let mut link = Link::open(server.address);
    assert_eq!(link.await_end(), End::Closed);
}
