//! An event source against the server's half.

use super::*;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::connection::{Connection, Inbound};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::message::{Push, Reply};
use longwire_protocol::{Close, CloseReason, ErrorCode, Since, plain};
use std::time::Instant;

const HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n";

/// The server's half of a stream of these channels.
struct Server {
    connection: Connection,
    bytes: Vec<u8>,
}

impl Server {
    /// A stream whose channels begin as `results` say.
    fn open(results: &[(&str, SubscribeResult)]) -> Server {
        let subscribes = results.iter().map(|(channel, result)| Subscribe {
            channel: (*channel).to_owned(),
            recover: result.was_recovering.then(Since::default),
            ..Subscribe::default()
        });
        let mut connection = stream_of(subscribes.collect(), 1500);
        let mut bytes = Vec::new();
        while let Some(Inbound::Command(command)) = connection.decode(&mut &b""[..]).unwrap() {
            let reply = match command.id {
                1 => Reply::Connect(Box::new(connected(vec![]))),
                id => Reply::Subscribe(Box::new(results[id as usize - 2].1.clone())),
            };
            bytes.extend_from_slice(&connection.reply(command.id, &reply).bytes);
        }
        assert!(connection.is_open());
        Server { connection, bytes }
    }

    /// A publication of a channel, after which the stream stands at these positions.
    fn publish(&mut self, channel: &str, offset: u64, positions: &[(&str, Position)]) -> &mut Server {
        let push = Push::Publication(publication(offset));
        self.bytes.extend(self.connection.prefix(positions.iter().copied()).unwrap_or_default());
        let bytes = encode_push(self.connection.encoding(), channel, &push, Some(at(offset)), &mut None);
        self.bytes.extend(bytes);
        self
    }

    fn push(&mut self, channel: &str, push: &Push) -> &mut Server {
        self.bytes.extend(self.connection.push(channel, push));
        self
    }

    fn text(&mut self, text: &str) -> &mut Server {
        self.bytes.extend_from_slice(text.as_bytes());
        self
    }

    fn close(&mut self, close: Close) -> &mut Server {
        self.bytes.extend(self.connection.farewell(&close));
        self
    }

    /// Gives everything that was not given to a client.
    fn give(&mut self, client: &mut dyn Client) -> Output {
        let mut out = Output::default();
        client.handle_bytes(Instant::now(), &std::mem::take(&mut self.bytes), &mut out);
        assert_eq!(out.bytes, b"", "an event source says nothing");
        out
    }
}

fn stream_of(subscribes: Vec<Subscribe>, retry_milliseconds: u64) -> Connection {
    let opening = plain::Opening {
        connect: Connect::default(),
        subscribes,
        carrier: plain::Carrier::EventStream { head: HEAD.to_owned(), retry_milliseconds },
        format: plain::Format::Json,
        beats: Arc::default(),
    };
    Connection::plain(opening, Instant::now(), &INTERVALS, 0.5)
}

fn event_source(channels: &[&str]) -> Box<dyn Client> {
    make(Kind::EventStream, settings(channels))
}

fn request(client: &mut dyn Client) -> String {
    let mut out = Output::default();
    client.opened(Instant::now(), &mut out);
    assert!(out.events.is_empty() && out.hang_up.is_none());
    String::from_utf8(out.bytes).unwrap()
}

fn first_request(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: node-1:8000\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n{more}\r\n"
    )
}

fn begun(channel: &str, result: &SubscribeResult, since: Option<(u64, String)>) -> Event {
    Event::Subscribed {
        channel: channel.to_owned(),
        position: result.position.and_then(|position| told(position.offset)),
        was_recovering: result.was_recovering,
        recovered: result.recovered,
        since,
        filter: None,
        publications: vec![],
    }
}

fn published(channel: &str, offset: u64) -> Event {
    Event::Publication { channel: channel.to_owned(), heard: heard(offset) }
}

#[test]
fn the_address_names_channels_and_token() {
    let mut plain = event_source(&["a", "$dialog#1"]);
    assert_eq!(request(&mut *plain), first_request("/sse?channels=a%2C%24dialog%231", ""));
    let with_token = Settings { token: Some("t+/=".to_owned()), ..settings(&["a,b", "c"]) };
    let mut client = make(Kind::EventStream, with_token);
    assert_eq!(request(&mut *client), first_request("/sse?channel=a%2Cb&channel=c&token=t%2B%2F%3D", ""));
}

/// A stream on which everything happens, after one that broke at a=5,b=2.
fn eventful() -> (Box<dyn Client>, Vec<u8>) {
    let mut client = event_source(&["a", "b", "c"]);
    request(&mut *client);
    let beginning = [("a", fresh(5)), ("b", fresh(2)), ("c", SubscribeResult::default())];
    Server::open(&beginning).give(&mut *client);
    client.lost(Instant::now());
    let id = "Last-Event-ID: a=5.abcdefgh,b=2.abcdefgh\r\n";
    assert_eq!(request(&mut *client), first_request("/sse?channels=a%2Cb%2Cc", id));

    let lost = SubscribeResult { was_recovering: true, ..fresh(9) };
    let nothing = SubscribeResult { was_recovering: true, ..SubscribeResult::default() };
    let mut server = Server::open(&[("a", recovered(5, 7)), ("b", lost), ("c", nothing)]);
    server.text(":\n\n").push("a", &Push::Join(info()));
    server.publish("a", 8, &[("a", at(8)), ("b", at(9))]);
    server.publish("c", 0, &[("a", at(8)), ("b", at(9))]);
    server.push("s", &Push::Subscribe(Box::new(fresh(3)))).push("a", &Push::Leave(info()));
    server.push("a", &Push::Unsubscribe { code: 2000, reason: "x" });
    server.publish("b", 10, &[("b", at(10)), ("s", at(3))]);
    server.close(CloseReason::Drain.into());
    (client, server.bytes)
}

#[test]
fn the_same_bytes_give_the_same_events_wherever_they_are_cut() {
    let (_, bytes) = eventful();
    let read = |pieces: Vec<&[u8]>| {
        let (mut client, _) = eventful();
        let mut out = Output::default();
        pieces.into_iter().for_each(|piece| client.handle_bytes(Instant::now(), piece, &mut out));
        client.lost(Instant::now());
        (out, client.positions(), request(&mut *client))
    };
    let whole = read(vec![&bytes]);
    let lost = SubscribeResult { was_recovering: true, ..fresh(9) };
    let nothing = SubscribeResult { was_recovering: true, ..SubscribeResult::default() };
    let movement = ("a".to_owned(), CLIENT.to_owned());
    let expected = [
        Event::Connected { client: CLIENT.to_owned() },
        begun("a", &recovered(5, 7), told(5)),
        begun("b", &lost, told(2)),
        begun("c", &nothing, None),
        published("a", 6),
        published("a", 7),
        Event::Beat,
        Event::Join { channel: movement.0.clone(), client: movement.1.clone() },
        published("a", 8),
        Event::Publication {
            channel: "c".to_owned(),
            heard: Heard { offset: None, epoch: None, ..heard(0) },
        },
        begun("s", &fresh(3), None),
        Event::Leave { channel: movement.0, client: movement.1 },
        Event::Unsubscribed { channel: "a".to_owned(), code: 2000 },
        published("b", 10),
        Event::Told { code: 3001, text: "shutdown".to_owned() },
    ];
    assert_eq!(whole.0, Output { bytes: vec![], posts: vec![], events: expected.into(), hang_up: None });
    let positions = [("b".to_owned(), told(10).unwrap()), ("s".to_owned(), told(3).unwrap())];
    assert_eq!(whole.1, positions.into());
    assert!(whole.2.contains("\r\nLast-Event-ID: b=10.abcdefgh,s=3.abcdefgh\r\n"), "{}", whole.2);
    for cut in 0..=bytes.len() {
        assert_eq!(read(vec![&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(read(bytes.chunks(1).collect()), whole);
}

#[test]
fn a_stream_that_breaks_anywhere_is_resumed_behind_the_last_whole_event() {
    let result = fresh(5);
    let mut server = Server::open(&[("a", result)]);
    let after_first = server.bytes.len();
    server.publish("a", 6, &[]);
    let after_second = server.bytes.len();
    for cut in 0..=after_second {
        let mut client = event_source(&["a"]);
        request(&mut *client);
        let mut out = Output::default();
        client.handle_bytes(Instant::now(), &server.bytes[..cut], &mut out);
        client.lost(Instant::now());
        let more = match cut {
            _ if cut >= after_second => "Last-Event-ID: a=6.abcdefgh\r\n",
            _ if cut >= after_first => "Last-Event-ID: a=5.abcdefgh\r\n",
            _ => "",
        };
        assert_eq!(request(&mut *client), first_request("/sse?channels=a", more), "cut at {cut}");
        assert_eq!(out.hang_up, None);
        let retry = if cut >= HEAD.len() + 2 + "retry: 1500\n".len() { 1500 } else { 3000 };
        assert_eq!(client.reconnect_delay(), Duration::from_millis(retry), "cut at {cut}");
    }
}

#[test]
fn after_a_refusal_that_may_pass_the_page_asks_anew_with_its_position_in_the_address() {
    let mut client = event_source(&["a"]);
    request(&mut *client);
    Server::open(&[("a", fresh(5))]).give(&mut *client);
    client.lost(Instant::now());
    request(&mut *client);
    let mut refusal = Server {
        bytes: b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        ..Server::open(&[])
    };
    let out = refusal.give(&mut *client);
    assert_eq!(out.events, [Event::Refused { channel: None, code: 503 }]);
    assert_eq!(out.hang_up, Some(HangUp::Told { code: 503, reconnect: true }));
    let target = "/sse?channels=a&since=a%3D5.abcdefgh";
    assert_eq!(request(&mut *client), first_request(target, ""));
    // From then on that object goes on by itself, with the header that is newer than its address.
    let mut server = Server::open(&[("a", recovered(5, 6))]);
    let out = server.give(&mut *client);
    assert_eq!(out.events[1], begun("a", &recovered(5, 6), told(5)));
    client.lost(Instant::now());
    assert_eq!(request(&mut *client), first_request(target, "Last-Event-ID: a=6.abcdefgh\r\n"));
    let out = Server::open(&[("a", recovered(6, 6))]).give(&mut *client);
    assert_eq!(out.events[1], begun("a", &recovered(6, 6), told(6)));
}

#[test]
fn other_refusals_are_final_and_a_wrong_token_asks_for_another() {
    for (code, events) in [(204, 1), (400, 1), (401, 2), (403, 1), (404, 1)] {
        let mut client = event_source(&["a"]);
        request(&mut *client);
        let mut server =
            Server { bytes: format!("HTTP/1.1 {code} X\r\n\r\n").into_bytes(), ..Server::open(&[]) };
        let out = server.give(&mut *client);
        assert_eq!(out.hang_up, Some(HangUp::Told { code, reconnect: false }));
        assert_eq!(out.events.len(), events);
        assert!(client.act(Instant::now(), Action::Token("t".to_owned()), &mut Output::default()));
        assert!(request(&mut *client).contains("&token=t "));
    }
    // The server's own refusal, from the answer to a command.
    let mut client = event_source(&["a"]);
    request(&mut *client);
    let subscribe = Subscribe { channel: "a".to_owned(), ..Subscribe::default() };
    let now = Instant::now();
    let mut connection = stream_of(vec![subscribe], 1);
    connection.reply(1, &Reply::Connect(Box::new(connected(vec![]))));
    let refused = connection.reply(2, &ErrorCode::PermissionDenied.into());
    let mut out = Output::default();
    client.handle_bytes(now, &refused.bytes, &mut out);
    assert_eq!(out.hang_up, Some(HangUp::Told { code: 403, reconnect: false }));
}

#[test]
fn a_disconnect_is_obeyed_at_once_or_waits_for_the_end() {
    let opened = || {
        let mut client = event_source(&["a"]);
        request(&mut *client);
        let server = Server::open(&[("a", fresh(5))]);
        (client, server)
    };
    let (mut client, mut server) = opened();
    let out = server.close(CloseReason::InvalidToken.into()).give(&mut *client);
    assert_eq!(out.hang_up, Some(HangUp::Told { code: 3500, reconnect: false }));
    assert!(request(&mut *client).contains("since="), "only a page that wants to comes back");

    let (mut client, mut server) = opened();
    let out = server.close(CloseReason::Drain.into()).give(&mut *client);
    assert_eq!(
        (out.events.last(), out.hang_up),
        (Some(&Event::Told { code: 3001, text: "shutdown".into() }), None)
    );
    let out = server.text(":\n\n").give(&mut *client);
    assert!(matches!(out.hang_up, Some(HangUp::Nonsense(what)) if what.contains("after the disconnect")));
}

#[test]
fn only_a_consumer_that_watches_notices_silence() {
    let now = Instant::now();
    let mut browser = event_source(&["a"]);
    request(&mut *browser);
    assert_eq!(browser.poll_timeout(), None);

    let silence = Some(Duration::from_secs(62));
    let mut client = make(Kind::EventStream, Settings { silence, ..settings(&["a"]) });
    let mut out = Output::default();
    client.opened(now, &mut out);
    assert_eq!(client.poll_timeout(), Some(now + Duration::from_secs(5)));
    let later = now + Duration::from_secs(3);
    client.handle_bytes(later, &Server::open(&[("a", fresh(5))]).bytes, &mut out);
    assert_eq!(client.poll_timeout(), Some(later + Duration::from_secs(62)));
    client.handle_timeout(later + Duration::from_secs(61), &mut out);
    assert_eq!(out.hang_up, None);
    client.handle_timeout(later + Duration::from_secs(62), &mut out);
    assert_eq!((out.hang_up, client.poll_timeout()), (Some(HangUp::NoPing), None));
    assert!(request(&mut *client).contains("Last-Event-ID: a=5.abcdefgh\r\n"));

    let mut out = Output::default();
    client.handle_timeout(Instant::now() + Duration::from_secs(6), &mut out);
    assert_eq!(out.hang_up, Some(HangUp::ConnectTimeout));
}

#[test]
fn an_id_names_exactly_what_was_read() {
    let (a, b) = (("a", at(6)), ("b", at(2)));
    let cases = [
        ("a", vec![a, b], None),
        ("a", vec![a], Some("the id says None of \"b\"")),
        ("a", vec![a, ("b", at(3))], Some("of \"b\", which was read to")),
        ("a", vec![("a", at(7)), b], Some("of \"a\", which was read to")),
        ("a", vec![a, b, ("z", at(1))], Some("names \"z\"")),
        ("z", vec![a, b], Some("\"z\" is not subscribed")),
        ("a", vec![], Some("without an id")),
    ];
    for (channel, positions, expected) in cases {
        let mut client = event_source(&["a", "b"]);
        request(&mut *client);
        let mut server = Server::open(&[("a", fresh(5)), ("b", fresh(2))]);
        let out = server.publish(channel, 6, &positions).give(&mut *client);
        match (&out.hang_up, expected) {
            (None, None) => assert_eq!(out.events.last(), Some(&published("a", 6))),
            (Some(HangUp::Nonsense(said)), Some(what)) => assert!(said.contains(what), "{said}"),
            _ => panic!("expected {expected:?}: {out:?}"),
        }
    }
}

#[test]
fn what_breaks_the_contract_is_nonsense_and_says_where() {
    let ok = format!("{HEAD}\r\n");
    let first = "id: a=5.abcdefgh\nevent: subscribed\ndata: {\"client\":\"c\",\"channels\":{\"a\":{\"offset\":5,\"epoch\":\"abcdefgh\"}}}\n\n";
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), "head"),
        ("HTTP/1.1 302 Found\r\n\r\n".to_owned(), "status 302"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n".to_owned(), "text/html"),
        (format!("{HEAD}Content-Length: 5\r\n\r\n"), "content-length"),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"), "transfer-encoding"),
        (format!("{ok}data: 1\n\n"), "before the first event"),
        (
            format!(
                "{ok}event: recovered\ndata: {{\"client\":\"c\",\"recovered\":true,\"channels\":{{\"a\":{{\"recovered\":true}}}}}}\n\n"
            ),
            "not what was asked",
        ),
        (
            format!("{ok}event: subscribed\ndata: {{\"client\":\"c\",\"channels\":{{}}}}\n\n"),
            "\"a\" is not among",
        ),
        (format!("{ok}{}", first.replacen("id: a=5", "id: a=4", 1)), "which was read to"),
        (format!("{ok}{}", first.replacen("id: a=5", "id: a", 1)), "position token"),
        (format!("{ok}{first}{first}"), "for the second time"),
        (format!("{ok}{first}data: {{\"channel\":\"a\",\"data\":1,\"offset\":6}}\n\n"), "without an id"),
        (
            format!("{ok}{first}id: a=6.abcdefgh\ndata: {{\"channel\":\"a\",\"data\":1}}\n\n"),
            "without an offset",
        ),
        (format!("{ok}{first}data: {{\"channel\":\"a\",\"data\":1,\"x\":6}}\n\n"), "unknown field"),
        (
            format!("{ok}{first}event: unsubscribe\ndata: {{\"channel\":\"b\",\"code\":1}}\n\n"),
            "not subscribed",
        ),
        (format!("{ok}{first}event: party\ndata: {{}}\n\n"), "no such event"),
    ];
    for (bytes, what) in cases {
        let mut client = event_source(&["a"]);
        request(&mut *client);
        let mut out = Output::default();
        client.handle_bytes(Instant::now(), bytes.as_bytes(), &mut out);
        assert!(
            matches!(&out.hang_up, Some(HangUp::Nonsense(said)) if said.contains(what)),
            "{what}: {out:?}"
        );
    }
}

#[test]
fn an_event_source_cannot_speak() {
    let (now, mut out) = (Instant::now(), Output::default());
    let mut client = event_source(&["a", "b"]);
    request(&mut *client);
    for action in [
        Action::Publish { channel: "a".to_owned(), data: "1".to_owned() },
        Action::Presence("a".to_owned()),
        Action::Refresh,
        Action::Subscribe("c".to_owned()),
        Action::Unsubscribe("a".to_owned()),
    ] {
        assert!(!client.act(now, action, &mut out));
    }
    assert_eq!(out, Output::default());
    assert!(
        client.act(now, Action::Garbage(b"x".to_vec()), &mut out)
            && client.act(now, Action::Goodbye, &mut out)
    );
    assert_eq!(
        out,
        Output { bytes: b"x".to_vec(), posts: vec![], events: vec![], hang_up: Some(HangUp::Done) }
    );
    client.lost(now);
    // Between two connections the page may make another object with other channels.
    assert!(client.act(now, Action::Subscribe("c".to_owned()), &mut out));
    assert!(client.act(now, Action::Unsubscribe("a".to_owned()), &mut out));
    assert_eq!(request(&mut *client), first_request("/sse?channels=b%2Cc", ""));
}

#[test]
fn a_byte_that_is_changed_anywhere_does_no_worse_than_nonsense() {
    let (_, bytes) = eventful();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for change in [0x01, 0x20, 0x80] {
            let (mut client, _) = eventful();
            let mut changed = bytes.clone();
            changed[at] ^= change;
            let mut out = Output::default();
            client.handle_bytes(Instant::now(), &changed, &mut out);
            refused += u32::from(matches!(out.hang_up, Some(HangUp::Nonsense(_))));
        }
    }
    assert!(refused > 1000, "{refused}");
}
