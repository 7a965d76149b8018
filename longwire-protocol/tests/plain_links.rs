//! The plain dialect over every transport: what a connection says, byte by byte.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod plain_server;

use bytes::Bytes;
use longwire_protocol::connection::{Answer, Dialect, Transport};
use longwire_protocol::encoding::{Encoding, encode_push};
use longwire_protocol::message::{SubscribeResult, unsubscribe};
use longwire_protocol::plain::{Carrier, FirstPacket, Format, Framing, Terminator};
use longwire_protocol::websocket::frame::{self};
use longwire_protocol::websocket::{Compressor, Kind};
use longwire_protocol::{Close, CloseReason, ErrorCode, Position, Publication, Push};
use std::sync::Arc;
use std::time::Duration;

use plain_server::*;

/// All that a JSON link can say after its welcome.
fn pushes() -> Vec<(&'static str, Push, Option<Position>, String)> {
    let full = Publication {
        tags: vec![("k".into(), "v".into())],
        info: Some(info()),
        ..(*publication("{\"a\":\n1}", 7)).clone()
    };
    let who = format!("{{\"user\":\"7\",\"client\":\"{CLIENT}\"}}");
    let (code, reason) = unsubscribe::SERVER;
    let joined = SubscribeResult { recoverable: true, data: "{\"x\":1}".into(), ..stands_at(4) };
    vec![
        (
            "a",
            Push::Publication(publication("1", 7)),
            Some(at(7)),
            "{\"channel\":\"a\",\"data\":1,\"offset\":7,\"id\":\"a=7.abcdefgh\"}".into(),
        ),
        (
            "a\" \u{e9}",
            Push::Publication(Arc::new(full)),
            Some(at(7)),
            format!(
                "{{\"channel\":\"a\\\" \u{e9}\",\"data\":{{\"a\": 1}},\"offset\":7,\"id\":\"a%22%20%C3%A9=7.abcdefgh\",\"tags\":{{\"k\":\"v\"}},\"info\":{who}}}"
            ),
        ),
        (
            "a",
            Push::Delta { publication: publication("\"x\"", 0), base: Some("\"y\"".into()) },
            None,
            "{\"channel\":\"a\",\"data\":\"x\"}".into(),
        ),
        ("a", Push::Publication(publication("", 0)), None, "{\"channel\":\"a\",\"data\":null}".into()),
        (
            "a",
            Push::Publication(bytes_of(b"\x00\xff\n")),
            None,
            "{\"channel\":\"a\",\"b64data\":\"AP8K\"}".into(),
        ),
        ("a", Push::Publication(bytes_of(b"")), None, "{\"channel\":\"a\",\"data\":\"\"}".into()),
        (
            "a",
            Push::Publication(bytes_of("h\u{e9} \"you\"\n\u{1}".as_bytes())),
            None,
            "{\"channel\":\"a\",\"data\":\"h\u{e9} \\\"you\\\"\\n\\u0001\"}".into(),
        ),
        ("", message("[\n1]"), None, "{\"data\":[ 1]}".into()),
        (
            "",
            Push::Message { data: Bytes::from_static(b"\xff"), is_json: false },
            None,
            "{\"b64data\":\"/w==\"}".into(),
        ),
        ("a", Push::Join(info()), None, format!("{{\"type\":\"join\",\"channel\":\"a\",\"info\":{who}}}")),
        ("a", Push::Leave(info()), None, format!("{{\"type\":\"leave\",\"channel\":\"a\",\"info\":{who}}}")),
        (
            "a",
            Push::Unsubscribe { code, reason },
            None,
            "{\"type\":\"unsubscribe\",\"channel\":\"a\",\"code\":2000,\"reason\":\"server unsubscribe\"}".into(),
        ),
        (
            "a",
            Push::Subscribe(Box::new(joined)),
            None,
            "{\"type\":\"subscribe\",\"channel\":\"a\",\"id\":\"a=4.abcdefgh\",\"offset\":4,\"epoch\":\"abcdefgh\",\"recoverable\":true,\"data\":{\"x\":1}}".into(),
        ),
        (
            "",
            Push::Disconnect(CloseReason::Drain.into()),
            None,
            "{\"type\":\"disconnect\",\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}".into(),
        ),
        ("", Push::Refresh { ttl_seconds: Some(1) }, None, String::new()),
        ("", Push::Connect(Box::new(connected(vec![]))), None, String::new()),
    ]
}

#[test]
fn every_push_has_its_json_form_in_every_framing() {
    for (channel, push, position, json) in pushes() {
        let over = |carrier| Server::welcome(carrier, Format::Json).shared(channel, &push, position);
        let is_nothing = json.is_empty();
        let expect = |bytes: Vec<u8>| if is_nothing { Vec::new() } else { bytes };
        assert_eq!(over(SOCKET), frame_of(&json, is_nothing));
        let line = format!("{json}\n");
        assert_eq!(over(LINES), expect(line.clone().into_bytes()));
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        assert_eq!(
            over(Carrier::Lines { head: String::new(), is_chunked: true }),
            expect(chunk.into_bytes())
        );
        assert_eq!(over(poll()), json.clone().into_bytes());
        let ended = |terminator: &[u8]| Framing::Terminator(Terminator::new(terminator).unwrap());
        assert_eq!(over(tcp(ended(b"\r\n"), FirstPacket::None)), expect(format!("{json}\r\n").into_bytes()));
        let packet = [&(json.len() as u16).to_be_bytes(), json.as_bytes()].concat();
        // An envelope is no packet of somebody's own protocol, so it has a head in any case.
        for is_whole in [false, true] {
            assert_eq!(over(tcp(length(2, is_whole), FirstPacket::None)), expect(packet.clone()));
        }
    }
}

fn frame_of(json: &str, is_nothing: bool) -> Bytes {
    if is_nothing { Bytes::new() } else { frame::message(Kind::Text, json.as_bytes()) }
}

#[test]
fn a_personal_push_is_what_a_shared_one_is() {
    for carrier in [SOCKET, LINES, poll(), lines_over_tcp(), tcp(length(4, false), FirstPacket::None)] {
        for format in [Format::Json, Format::Bare] {
            let mut server = Server::welcome(carrier.clone(), format);
            for (channel, push, _, _) in pushes() {
                assert_eq!(server.link.push(channel, &push), server.shared(channel, &push, None), "{push:?}");
            }
        }
    }
}

#[test]
fn bare_links_say_data_and_nothing_else() {
    let json = |data| Push::Publication(publication(data, 7));
    let other = |data| Push::Publication(bytes_of(data));
    // What is published, what goes out where a line break is nothing and where it is one, and whether it is text.
    let table: Vec<(Push, &[u8], &[u8], Kind)> = vec![
        (json("\"hello\""), b"hello", b"hello", Kind::Text),
        (
            json(" \"a\\u00e9\\n\\\"\\ud83d\\ude00\" "),
            "a\u{e9}\n\"\u{1f600}".as_bytes(),
            "a\u{e9}\n\"\u{1f600}".as_bytes(),
            Kind::Text,
        ),
        (json("\"\""), b"", b"", Kind::Text),
        // Half a pair is no text.
        (json("\"\\ud83d\""), b"\"\\ud83d\"", b"\"\\ud83d\"", Kind::Text),
        (json("{\"a\":\r\n\"b\"}"), b"{\"a\":\r\n\"b\"}", b"{\"a\":  \"b\"}", Kind::Text),
        (json("12"), b"12", b"12", Kind::Text),
        (json(""), b"", b"", Kind::Text),
        (other(b"\x00\xff"), b"\x00\xff", b"\x00\xff", Kind::Binary),
        (other(b"plain text"), b"plain text", b"plain text", Kind::Binary),
        (message("\"direct\""), b"direct", b"direct", Kind::Text),
        (Push::Message { data: Bytes::from_static(b"\xfe"), is_json: false }, b"\xfe", b"\xfe", Kind::Binary),
    ];
    let line_over_tcp = tcp(Framing::Terminator(Terminator::LINE_FEED), FirstPacket::None);
    for (push, free, on_one_line, kind) in table {
        let over = |carrier| Server::welcome(carrier, Format::Bare).shared("a", &push, Some(at(7)));
        assert_eq!(over(SOCKET), frame::message(kind, free));
        assert_eq!(over(LINES), [on_one_line, b"\n"].concat());
        assert_eq!(over(line_over_tcp.clone()), [on_one_line, b"\n"].concat());
        assert_eq!(over(tcp(length(1, false), FirstPacket::None)), [&[free.len() as u8], free].concat());
        // A whole packet is the publisher's own.
        assert_eq!(over(tcp(length(1, true), FirstPacket::None)), free);
    }
    let mut server = Server::welcome(SOCKET, Format::Bare);
    for push in [
        Push::Join(info()),
        Push::Leave(info()),
        Push::Unsubscribe { code: 2000, reason: "" },
        Push::Subscribe(Box::default()),
        Push::Disconnect(CloseReason::Drain.into()),
    ] {
        assert_eq!(server.link.push("a", &push), "");
    }
}

#[test]
fn a_publication_is_made_once_for_all_readers_of_a_kind() {
    let readers = |carrier: Carrier| {
        let one = Server::welcome(carrier.clone(), Format::Json).link.encoding();
        let mut other = Server::new(carrier, Format::Json, vec![ask("a", true), ask("b", false)]);
        other.connect(connected(vec![]));
        other.subscribe(missed(3, vec![]));
        other.subscribe(SubscribeResult::default());
        (one, other.link.encoding())
    };
    for carrier in [SOCKET, LINES, poll(), lines_over_tcp(), tcp(length(2, false), FirstPacket::None)] {
        let (one, other) = readers(carrier);
        assert_eq!(one, other, "whatever channels they have");
    }
    assert_ne!(readers(lines_over_tcp()).0, readers(tcp(length(2, false), FirstPacket::None)).0);
}

#[test]
fn a_link_over_websocket_deflates_what_is_worth_it() {
    let server =
        Server::welcome(Carrier::WebSocket { is_deflated: true, max_message_bytes: 1000 }, Format::Json);
    let encoding = server.link.encoding();
    assert!(encoding.is_deflated() && !encoding.inflated().is_deflated());
    let data: &'static str = Box::leak(format!("\"{}\"", "compressible ".repeat(50)).into_boxed_str());
    let push = Push::Publication(publication(data, 1));
    let mut compressor: Option<Box<Compressor>> = None;
    let deflated = encode_push(encoding, "a", &push, None, &mut compressor);
    let plain = encode_push(encoding.inflated(), "a", &push, None, &mut compressor);
    assert!(deflated.len() < plain.len() / 5);
    assert_eq!(frames(&deflated, true), frames(&plain, false));
    let mut server = server;
    assert_eq!(server.link.push("a", &push), plain, "what is for one alone is not");
}

#[test]
fn what_a_length_cannot_tell_is_known_before_it_is_made() {
    let data: &'static str = Box::leak("7".repeat(255).into_boxed_str());
    let bare = Server::welcome(tcp(length(1, false), FirstPacket::None), Format::Bare).link.encoding();
    assert!(bare.carries("a", &Push::Publication(publication(data, 0))));
    let more: &'static str = Box::leak("7".repeat(256).into_boxed_str());
    assert!(!bare.carries("a", &Push::Publication(publication(more, 0))));
    assert_eq!(encode_push(bare, "a", &Push::Publication(publication(more, 0)), None, &mut None), "");
    // A string of two hundred and fifty-six bytes is a text of two less.
    let string: &'static str = Box::leak(format!("\"{}\"", "s".repeat(254)).into_boxed_str());
    assert!(bare.carries("a", &Push::Publication(publication(string, 0))));
    assert!(bare.carries("a", &Push::Join(info())), "of which nothing is said");

    let whole = Server::welcome(tcp(length(1, true), FirstPacket::None), Format::Bare).link.encoding();
    assert!(
        whole.carries("a", &Push::Publication(publication(more, 0))),
        "its length is the publisher's business"
    );
    let whole = Server::welcome(tcp(length(1, true), FirstPacket::None), Format::Json).link.encoding();
    assert!(!whole.carries("a", &Push::Publication(publication(more, 0))));

    let json = Server::welcome(tcp(length(1, false), FirstPacket::None), Format::Json).link.encoding();
    for (bytes, channel, offset) in
        (0..255).flat_map(|n| [(n, "a", 0), (n, "a", u64::MAX), (n, "\"\u{1}", 9)])
    {
        let data: &'static str = Box::leak("7".repeat(bytes).into_boxed_str());
        let push = Push::Publication(publication(data, offset));
        let position = (offset > 0).then(|| at(offset));
        let made = encode_push(json, channel, &push, position, &mut None);
        assert_eq!(
            json.carries(channel, &push),
            !made.is_empty(),
            "{bytes} bytes in {channel:?} at {offset}"
        );
    }
    let tagged = Publication { tags: vec![("k".into(), "v".repeat(300))], ..(*publication("1", 0)).clone() };
    assert!(!json.carries("a", &Push::Publication(Arc::new(tagged))));
    assert!(Encoding::EventStream.carries("a", &Push::Publication(bytes_of(b"\xff"))));
}

// ---- the beginning

#[test]
fn a_client_is_welcomed_once_everything_it_asked_for_is_granted() {
    let mut server = Server::new(SOCKET, Format::Json, vec![ask("a", false), ask("b", false)]);
    server.connect(connected(vec![]));
    server.subscribe(stands_at(3));
    assert_eq!((server.link.is_open(), server.written.len()), (false, 0));
    server.subscribe(SubscribeResult::default());
    assert!(server.link.is_open());
    let welcome = format!(
        "{{\"type\":\"subscribed\",\"client\":\"{CLIENT}\",\"session\":\"n/s\",\"channels\":{{\"a\":{{\"id\":\"a=3.abcdefgh\",\"offset\":3,\"epoch\":\"abcdefgh\"}},\"b\":{{}}}},\"id\":\"a=3.abcdefgh\"}}"
    );
    assert_eq!(frames(&server.written, false), [(Kind::Text, welcome)]);
    assert_eq!((server.link.transport(), server.link.dialect()), (Transport::WebSocket, Dialect::Plain));
}

#[test]
fn what_was_missed_follows_the_welcome_with_its_positions() {
    let returning = || {
        let result = missed(3, vec![publication("4", 4), publication("\"five\"", 5)]);
        let mut connected = connected(vec![("brought".to_owned(), SubscribeResult::default())]);
        connected.resumed = true;
        (vec![ask("a", true), ask("b", true)], connected, result)
    };
    let not_recovered = SubscribeResult { was_recovering: true, ..stands_at(9) };
    let open = |carrier, format| {
        let (subscribes, connected, result) = returning();
        let mut server = Server::new(carrier, format, subscribes);
        server.connect(connected);
        server.subscribe(result);
        server.subscribe(not_recovered.clone());
        server
    };
    let welcome = format!(
        "{{\"type\":\"recovered\",\"client\":\"{CLIENT}\",\"session\":\"n/s\",\"resumed\":true,\"recovered\":false,\"channels\":{{\"brought\":{{}},\"a\":{{\"id\":\"a=3.abcdefgh\",\"recovered\":true,\"publications\":2}},\"b\":{{\"id\":\"b=9.abcdefgh\",\"recovered\":false,\"offset\":9,\"epoch\":\"abcdefgh\"}}}},\"id\":\"a=3.abcdefgh,b=9.abcdefgh\"}}"
    );
    let four = "{\"channel\":\"a\",\"data\":4,\"offset\":4,\"id\":\"a=4.abcdefgh\"}";
    let five = "{\"channel\":\"a\",\"data\":\"five\",\"offset\":5,\"id\":\"a=5.abcdefgh\"}";
    assert_eq!(text(&open(lines_over_tcp(), Format::Json).written), format!("{welcome}\n{four}\n{five}\n"));
    assert_eq!(text(&open(lines_over_tcp(), Format::Bare).written), "4\nfive\n");
    let head = "HTTP/1.1 200 OK\r\nX: y\r\n".to_owned();
    let lines = Carrier::Lines { head: head.clone(), is_chunked: false };
    assert_eq!(
        text(&open(lines.clone(), Format::Json).written),
        format!("{head}\r\n{welcome}\n{four}\n{five}\n")
    );
    assert_eq!(text(&open(lines, Format::Bare).written), format!("{head}\r\n4\nfive\n"));
    let events = Carrier::EventStream { head: head.clone(), retry_milliseconds: 1500 };
    let told = welcome
        .replace("{\"type\":\"recovered\",", "{")
        .replace(",\"id\":\"a=3.abcdefgh,b=9.abcdefgh\"}", "}");
    let told = told.replace("\"id\":\"a=3.abcdefgh\",", "").replace("\"id\":\"b=9.abcdefgh\",", "");
    assert_eq!(
        text(&open(events, Format::Bare).written),
        format!(
            "{head}\r\nretry: 1500\nid: a=3.abcdefgh,b=9.abcdefgh\nevent: recovered\ndata: {told}\n\n\
             id: a=4.abcdefgh,b=9.abcdefgh\ndata: {{\"channel\":\"a\",\"data\":4,\"offset\":4}}\n\n\
             id: a=5.abcdefgh,b=9.abcdefgh\ndata: {{\"channel\":\"a\",\"data\":\"five\",\"offset\":5}}\n\n"
        )
    );
    let mut polled = open(poll(), Format::Json);
    assert_eq!(text(&polled.written), "");
    assert_eq!(
        body_of(&polled.link.finish(b"a=5.abcdefgh,b=9.abcdefgh").concat()).1,
        format!(
            "{{\"client\":\"{CLIENT}\",\"session\":\"n/s\",\"resumed\":true,\"recovered\":false,\"name\":\"device-42\",\"since\":\"a=5.abcdefgh,b=9.abcdefgh\",\"publications\":[{four},{five}]}}\n"
        )
    );
}

#[test]
fn the_first_id_does_not_name_the_newest_publication_before_it_is_sent() {
    let newest = || SubscribeResult {
        was_recovering: true,
        recovered: true,
        publications: vec![publication("1", 7)],
        ..stands_at(7)
    };
    let head = "head\r\n".to_owned();
    let mut events =
        Server::new(Carrier::EventStream { head, retry_milliseconds: 1 }, Format::Json, vec![ask("a", true)]);
    events.connect(connected(vec![]));
    events.subscribe(newest());
    let written = text(&events.written);
    let ids: Vec<&str> = written.lines().filter(|line| line.starts_with("id: ")).collect();
    assert_eq!(ids, ["id: a=6.abcdefgh", "id: a=7.abcdefgh"]);
    let mut lines = Server::new(lines_over_tcp(), Format::Json, vec![ask("a", true)]);
    lines.connect(connected(vec![]));
    lines.subscribe(newest());
    let written = text(&lines.written);
    let (welcome, publication) = written.split_once('\n').unwrap();
    assert!(welcome.ends_with(",\"id\":\"a=6.abcdefgh\"}"), "{welcome}");
    assert!(publication.contains("\"id\":\"a=7.abcdefgh\""), "{publication}");
}

#[test]
fn a_client_without_channels_is_welcome_and_may_be_given_some_later() {
    let mut server = Server::new(lines_over_tcp(), Format::Json, vec![]);
    server.connect(connected(vec![]));
    assert_eq!(
        text(&server.written),
        format!(
            "{{\"type\":\"subscribed\",\"client\":\"{CLIENT}\",\"session\":\"n/s\",\"channels\":{{}}}}\n"
        )
    );
    let later = server.link.push("b", &Push::Subscribe(Box::new(stands_at(0))));
    assert_eq!(
        text(&later),
        "{\"type\":\"subscribe\",\"channel\":\"b\",\"id\":\"b=0.abcdefgh\",\"offset\":0,\"epoch\":\"abcdefgh\"}\n"
    );
}

#[test]
fn channels_that_the_server_brings_need_not_be_asked_for() {
    let mut server = Server::new(SOCKET, Format::Json, vec![ask("a", false), ask("b", false)]);
    server.connect(connected(vec![("b".to_owned(), stands_at(1)), ("c".to_owned(), stands_at(2))]));
    server.subscribe(stands_at(3));
    assert!(server.link.is_open());
    assert_eq!(server.next(), None);
    let (_, welcome) = frames(&server.written, false).remove(0);
    assert!(welcome.ends_with(",\"id\":\"b=1.abcdefgh,c=2.abcdefgh,a=3.abcdefgh\"}"), "{welcome}");
}

// ---- refusals and ends

fn refused(carrier: Carrier, format: Format, error: ErrorCode) -> (String, Answer) {
    let mut server = Server::new(carrier, format, vec![ask("a", false)]);
    server.connect(connected(vec![]));
    let answer = server.reply(2, &error.into());
    (String::from_utf8_lossy(&server.written).into_owned(), answer)
}

#[test]
fn a_refusal_is_said_in_the_way_of_its_transport() {
    let code = ErrorCode::PermissionDenied;
    let body = "{\"error\":{\"code\":103,\"message\":\"permission denied\"}}\n";
    let status = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n",
        body.len()
    );
    let cors = "Access-Control-Allow-Origin: http://a.example\r\nVary: Origin\r\n";
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{cors}");
    for carrier in [
        Carrier::EventStream { head: head.clone(), retry_milliseconds: 9 },
        Carrier::Lines { head, is_chunked: true },
        Carrier::Poll { keep_alive: true, is_first: true, wait: Duration::ZERO, head: cors.to_owned() },
    ] {
        let (written, answer) = refused(carrier, Format::Bare, code);
        assert_eq!(written, format!("{status}{cors}\r\n{body}"), "and pages of other origins may read it");
        assert_eq!(answer.close, Some(CloseReason::PermissionDenied));
        assert_eq!(answer.detail, "channel \"a\": permission denied (103)");
    }
    let reason = CloseReason::PermissionDenied;
    let disconnect = format!(
        "{{\"type\":\"disconnect\",\"code\":{},\"reason\":\"{}\",\"reconnect\":false}}\n",
        reason.code(),
        reason.text()
    );
    assert_eq!(refused(lines_over_tcp(), Format::Json, code).0, disconnect);
    assert_eq!(refused(lines_over_tcp(), Format::Bare, code).0, "");
    for format in [Format::Json, Format::Bare] {
        let answer = refused(SOCKET, format, code).1;
        assert_eq!(answer.bytes, frame::close(reason.code(), reason.text()));
    }
}

#[test]
fn a_browsers_event_source_is_kept_coming_back_where_that_may_help() {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n".to_owned();
    let carrier = || Carrier::EventStream { head: head.clone(), retry_milliseconds: 1500 };
    let stream = |code: u16, reason: &str| {
        format!(
            "{head}\r\nretry: 1500\nevent: disconnect\ndata: {{\"code\":{code},\"reason\":\"{reason}\",\"reconnect\":true}}\n\n"
        )
    };
    for (error, reason) in [
        (ErrorCode::Internal, CloseReason::InternalError),
        (ErrorCode::TooManyRequests, CloseReason::TooManyRequests),
    ] {
        let (written, answer) = refused(carrier(), Format::Json, error);
        assert_eq!(written, stream(reason.code(), reason.text()));
        assert_eq!(answer.close, Some(reason));
    }
    // The same token would be refused again.
    for error in [ErrorCode::TokenExpired, ErrorCode::Unauthorized] {
        assert!(refused(carrier(), Format::Json, error).0.starts_with("HTTP/1.1 401 "), "{error}");
    }
    let early = Server::new(carrier(), Format::Json, vec![]);
    assert_eq!(text(&early.link.farewell(&CloseReason::Drain.into())), stream(3001, "shutdown"));
    assert_eq!(
        text(&early.link.farewell(&CloseReason::BackendUnavailable.into())),
        stream(CloseReason::BackendUnavailable.code(), CloseReason::BackendUnavailable.text())
    );
    let invalid = text(&early.link.farewell(&CloseReason::InvalidToken.into()));
    assert!(invalid.starts_with("HTTP/1.1 401 "), "{invalid}");
    // A stream of lines has a reader that sees the status.
    let lines = Server::new(LINES, Format::Json, vec![]);
    assert!(text(&lines.link.farewell(&CloseReason::Drain.into())).starts_with("HTTP/1.1 503 "));
}

#[test]
fn every_transport_has_its_last_words() {
    let close = Close::custom(CloseReason::ForceDisconnect, 4500, "away\r\nwith you".into());
    let said = |carrier, format| Server::welcome(carrier, format).link.farewell(&close);
    let object =
        "{\"type\":\"disconnect\",\"code\":4500,\"reason\":\"away\\r\\nwith you\",\"reconnect\":false}";
    let chunked = || Carrier::Lines { head: String::new(), is_chunked: true };
    assert_eq!(said(SOCKET, Format::Json), frame::close(4500, "away\r\nwith you"));
    assert_eq!(said(SOCKET, Format::Bare), frame::close(4500, "away\r\nwith you"));
    assert_eq!(text(&said(LINES, Format::Json)), format!("{object}\n"));
    assert_eq!(text(&said(LINES, Format::Bare)), "");
    assert_eq!(
        text(&said(chunked(), Format::Json)),
        format!("{:x}\r\n{object}\n\r\n0\r\n\r\n", object.len() + 1)
    );
    assert_eq!(text(&said(chunked(), Format::Bare)), "0\r\n\r\n");
    assert_eq!(text(&said(lines_over_tcp(), Format::Json)), format!("{object}\n"));
    assert_eq!(text(&said(lines_over_tcp(), Format::Bare)), "");
    let events = Carrier::EventStream { head: String::new(), retry_milliseconds: 1 };
    assert_eq!(
        text(&said(events, Format::Json)),
        "event: disconnect\ndata: {\"code\":4500,\"reason\":\"away\\r\\nwith you\",\"reconnect\":false}\n\n"
    );
    assert!(text(&said(poll(), Format::Json)).starts_with("HTTP/1.1 403 Forbidden\r\n"));
}

#[test]
fn an_error_after_the_welcome_is_told_where_there_is_a_word_for_it() {
    let object = "{\"type\":\"error\",\"code\":111,\"reason\":\"too many requests\",\"temporary\":true}";
    let said = |carrier, format| {
        let mut server = Server::welcome(carrier, format);
        let answer = server.reply(0, &ErrorCode::TooManyRequests.into());
        assert_eq!(answer.close, None);
        server
    };
    assert_eq!(text(&said(lines_over_tcp(), Format::Json).written), format!("{object}\n"));
    assert_eq!(text(&said(lines_over_tcp(), Format::Bare).written), "");
    assert_eq!(frames(&said(SOCKET, Format::Json).written, false), [(Kind::Text, object.to_owned())]);
    // `error` is the browser's own event.
    let events = Carrier::EventStream { head: String::new(), retry_milliseconds: 1 };
    assert_eq!(text(&said(events, Format::Json).written), "");
    let mut polled = said(poll(), Format::Json);
    assert!(
        body_of(&polled.link.finish(b"").concat()).1.ends_with(&format!("\"publications\":[{object}]}}\n"))
    );
}

// ---- long-polls

#[test]
fn a_poll_is_answered_with_everything_that_was_gathered() {
    let cors = "Access-Control-Allow-Origin: http://a.example\r\n".to_owned();
    let carrier = Carrier::Poll {
        keep_alive: true,
        is_first: false,
        wait: Duration::from_secs(25),
        head: cors.clone(),
    };
    let mut server = Server::welcome(carrier, Format::Bare);
    assert_eq!(server.link.poll_wait(), Some(Duration::from_secs(25)));
    assert_eq!((server.link.gathered_bytes(), server.link.is_finished()), (0, false));
    let shared = server.shared("a", &Push::Publication(publication("4", 4)), Some(at(4)));
    let own = server.link.push("", &message("\"hi\""));
    assert!(server.link.gather(&shared) && server.link.gather(&Bytes::new()) && server.link.gather(&own));
    assert_eq!(server.link.gathered_bytes(), shared.len() + own.len());
    let parts = server.link.finish(b"a=4.abcdefgh");
    assert!(parts.iter().any(|part| part.as_ptr() == shared.as_ptr()), "shared with all readers");
    let (head, body) = body_of(&parts.concat());
    assert_eq!(
        head,
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n{cors}",
            body.len()
        )
    );
    assert_eq!(
        body,
        format!(
            "{{\"client\":\"{CLIENT}\",\"session\":\"n/s\",\"name\":\"device-42\",\"since\":\"a=4.abcdefgh\",\"publications\":[{{\"channel\":\"a\",\"data\":4,\"offset\":4,\"id\":\"a=4.abcdefgh\"}},{{\"data\":\"hi\"}}]}}\n"
        )
    );
    assert!(server.link.is_finished() && server.link.keeps_alive());
    assert_eq!(server.link.gathered_bytes(), 0);
    // Once.
    assert!(server.link.gather(&shared));
    assert_eq!(server.link.finish(b"a=4.abcdefgh"), Vec::<Bytes>::new());
    assert_eq!(server.link.finish_empty(), "");
    assert_eq!(server.link.farewell(&CloseReason::Drain.into()), "");
}

#[test]
fn a_poll_without_anything_to_say_ends_without_a_body() {
    let mut server = Server::welcome(poll(), Format::Json);
    assert_eq!(
        text(&server.link.finish_empty()),
        "HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: keep-alive\r\n\r\n"
    );
    assert!(server.link.is_finished());
    let mut server = Server::welcome(poll(), Format::Json);
    let (_, body) = body_of(&server.link.finish(b"").concat());
    assert!(body.ends_with(",\"name\":\"device-42\",\"publications\":[]}\n"), "{body}");
}

#[test]
fn a_first_poll_is_answered_as_soon_as_its_client_is_welcome() {
    let carrier = Carrier::Poll {
        keep_alive: false,
        is_first: true,
        wait: Duration::from_secs(25),
        head: String::new(),
    };
    let mut server = Server::new(carrier, Format::Json, vec![ask("a", false)]);
    assert_eq!(server.link.poll_wait(), Some(Duration::ZERO));
    assert!(!server.link.gather(&"early".into()), "nothing is gathered before");
    assert_eq!(server.link.finish(b""), Vec::<Bytes>::new());
    server.connect(connected(vec![]));
    server.subscribe(stands_at(3));
    let (head, body) = body_of(&server.link.finish(b"a=3.abcdefgh").concat());
    assert!(head.contains("\r\nConnection: close\r\n"));
    assert!(body.contains("\"since\":\"a=3.abcdefgh\",\"publications\":[]"), "{body}");
}

#[test]
fn who_sends_more_behind_a_poll_finds_the_connection_closed_after_it() {
    let mut server = Server::welcome(poll(), Format::Json);
    assert!(server.link.keeps_alive());
    assert_eq!(server.hear(b"GET /poll?since=a HTTP/1.1\r\n"), []);
    assert!(!server.link.keeps_alive());
    assert!(text(&server.link.finish_empty()).contains("\r\nConnection: close\r\n"));
}

#[test]
fn only_polls_gather() {
    for carrier in
        [SOCKET, LINES, lines_over_tcp(), Carrier::EventStream { head: String::new(), retry_milliseconds: 1 }]
    {
        let mut server = Server::welcome(carrier, Format::Json);
        assert!(!server.link.gather(&"x".into()));
        assert_eq!(server.link.finish(b""), Vec::<Bytes>::new());
        assert_eq!(server.link.finish_empty(), "");
        assert!(!server.link.is_finished() && !server.link.keeps_alive());
        assert_eq!((server.link.poll_wait(), server.link.gathered_bytes()), (None, 0));
    }
}
