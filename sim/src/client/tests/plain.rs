//! A client of the plain dialect against the server's half: what each transport carries is heard the same, wherever it
//! is cut, and where one ended the next goes on.

use super::*;
use crate::client::{Port, Transport};
use longwire_protocol::command::Command;
use longwire_protocol::connection::{Connection, Inbound};
use longwire_protocol::encoding::encode_push;
use longwire_protocol::message::{Push, Reply};
use longwire_protocol::plain::{self, Carrier, FirstPacket, Format, Framing, Terminator};
use longwire_protocol::{Close, CloseReason};
use std::time::Instant;

const TRANSPORTS: [Transport; 4] =
    [Transport::Tcp, Transport::Lines, Transport::EventStream, Transport::Poll];

fn client(ladder: &[Transport]) -> Box<dyn Client> {
    let plain = PlainSettings {
        name: "device".into(),
        ladder: ladder.to_vec(),
        wait_seconds: 5,
        beat: Duration::from_secs(10),
        ..PlainSettings::default()
    };
    make(Kind::Plain, Settings { plain, ..settings(&["a"]) })
}

fn carrier(transport: Transport) -> Carrier {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n".to_owned();
    match transport {
        Transport::Tcp => Carrier::Tcp {
            framing: Framing::Terminator(Terminator::new(b"\n").unwrap()),
            max_packet_bytes: 10_000,
            first_packet: FirstPacket::Json,
        },
        Transport::Lines => {
            Carrier::Lines { head: format!("{head}Transfer-Encoding: chunked\r\n"), is_chunked: true }
        }
        Transport::EventStream => Carrier::EventStream { head, retry_milliseconds: 100 },
        Transport::Poll => Carrier::Poll {
            keep_alive: true,
            is_first: false,
            wait: Duration::from_secs(5),
            head: String::new(),
        },
        Transport::WebSocket => unreachable!("its handshake is the centrifuge clients' to test"),
    }
}

/// What a server says to this request: the welcome with what was missed, a publication and something for it alone.
fn server(transport: Transport, request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    let is_back = text.contains("since");
    let asked = plain::asked(vec!["a".into()], None);
    let subscribes = if transport == Transport::Tcp { Vec::new() } else { asked.subscribes };
    let subscribes = subscribes.into_iter().map(|subscribe| {
        let recover = is_back.then(|| at(4).into());
        longwire_protocol::command::Subscribe { recover, ..subscribe }
    });
    let opening = plain::Opening {
        connect: longwire_protocol::command::Connect { client_name: "device".into(), ..Default::default() },
        subscribes: subscribes.collect(),
        carrier: carrier(transport),
        format: Format::Json,
        beats: Arc::default(),
    };
    let mut server = Connection::plain(opening, Instant::now(), &INTERVALS, 0.5);
    let mut input = if transport == Transport::Tcp { request } else { b"" };
    let mut bytes = Vec::new();
    while let Some(Inbound::Command(command)) = server.decode(&mut input).unwrap() {
        let result = if is_back { recovered(4, 6) } else { fresh(3) };
        let reply = match command.command {
            Command::Connect(_) => {
                let session = "the session".into();
                Reply::Connect(Box::new(ConnectResult { session, resumed: is_back, ..connected(vec![]) }))
            }
            _ => Reply::Subscribe(Box::new(result)),
        };
        bytes.extend_from_slice(&server.reply(command.id, &reply).bytes);
    }
    let offset = if is_back { 7 } else { 4 };
    let push = Push::Publication(publication(offset));
    let message = Push::Message { data: Bytes::from_static(b"{\"to\":\"you\"}"), is_json: true };
    bytes.extend(server.prefix([("a", at(offset))].into_iter()).unwrap_or_default());
    let said = encode_push(server.encoding(), "a", &push, Some(at(offset)), &mut None);
    let direct = server.push("", &message);
    for piece in [said, direct] {
        if !server.gather(&piece) {
            bytes.extend_from_slice(&piece);
        }
    }
    match transport {
        Transport::Poll => {
            let mut token = Vec::new();
            plain::position_token::write_position("a", &at(offset), &mut token);
            server.finish(&token).iter().for_each(|part| bytes.extend_from_slice(part));
        }
        _ => bytes.extend(server.farewell(&Close::from(CloseReason::Drain))),
    }
    bytes
}

fn opened(client: &mut dyn Client) -> Vec<u8> {
    let mut out = Output::default();
    client.opened(Instant::now(), &mut out);
    out.bytes
}

/// What the client is told, without its connection's end.
fn heard_of(client: &mut dyn Client, pieces: &[&[u8]]) -> Vec<Event> {
    let mut out = Output::default();
    pieces.iter().for_each(|piece| client.handle_bytes(Instant::now(), piece, &mut out));
    assert!(!matches!(out.hang_up, Some(HangUp::Nonsense(_))), "{out:?}");
    out.events.retain(|event| !matches!(event, Event::Told { .. }));
    out.events
}

fn expected(is_back: bool) -> Vec<Event> {
    let begun = Event::Subscribed {
        channel: "a".into(),
        position: told(if is_back { 4 } else { 3 }),
        was_recovering: is_back,
        recovered: is_back,
        since: told(4).filter(|_| is_back),
        filter: None,
        publications: vec![],
    };
    let publications = if is_back { 5..=7 } else { 4..=4 };
    let mut events = vec![
        Event::Session { session: "the session".into(), resumed: is_back },
        Event::Connected { client: CLIENT.into() },
        begun,
    ];
    events.extend(publications.map(|n| Event::Publication { channel: "a".into(), heard: heard(n) }));
    events.push(Event::Message { data: "{\"to\":\"you\"}".into() });
    events
}

#[test]
fn every_transport_says_the_same_wherever_it_is_cut() {
    for transport in TRANSPORTS {
        let mut first = client(&[transport]);
        let bytes = server(transport, &opened(&mut *first));
        assert_eq!(heard_of(&mut *first, &[&bytes]), expected(false), "{transport:?}");
        assert_eq!(first.positions()["a"], told(4).unwrap(), "{transport:?}");
        first.lost(Instant::now());
        let further = server(transport, &opened(&mut *first));
        assert_eq!(heard_of(&mut *first, &[&further]), expected(true), "{transport:?}");
        assert_eq!(first.positions()["a"], told(7).unwrap(), "{transport:?}");
        for cut in 0..=bytes.len() {
            let mut client = client(&[transport]);
            opened(&mut *client);
            let events = heard_of(&mut *client, &[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(events, expected(false), "{transport:?} cut at {cut}");
        }
    }
}

#[test]
fn what_fails_twice_is_followed_by_the_next_which_goes_on_where_the_first_stood() {
    let mut client = client(&[Transport::Tcp, Transport::Poll]);
    assert_eq!(client.port(), Port::Packets);
    let request = opened(&mut *client);
    assert!(
        String::from_utf8(request.clone())
            .unwrap()
            .starts_with("{\"channels\":[\"a\"],\"client\":\"device\"}")
    );
    heard_of(&mut *client, &[&server(Transport::Tcp, &request)]);
    client.lost(Instant::now());
    for _ in 0..6 {
        if client.port() == Port::Http {
            break;
        }
        opened(&mut *client);
        client.lost(Instant::now());
    }
    let request = String::from_utf8(opened(&mut *client)).unwrap();
    assert!(
        request.starts_with(
            "GET /poll?client=device&session=the%20session&channel=a&since=a%3D4.abcdefgh&wait=5 "
        ),
        "{request}"
    );
}

#[test]
fn the_answer_to_a_poll_is_followed_by_the_next_request_on_its_connection() {
    let mut client = client(&[Transport::Poll]);
    let bytes = server(Transport::Poll, &opened(&mut *client));
    let mut out = Output::default();
    client.handle_bytes(Instant::now(), &bytes, &mut out);
    let next = String::from_utf8(out.bytes).unwrap();
    assert!(next.contains("since=a%3D4.abcdefgh"), "{next}");
    let empty = b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n";
    let mut out = Output::default();
    client.handle_bytes(Instant::now(), empty, &mut out);
    assert_eq!(out.hang_up, Some(HangUp::Changed), "this connection carries no other");
    assert_eq!(client.reconnect_delay(), Duration::ZERO);
}

#[test]
fn what_breaks_the_contract_is_nonsense() {
    for object in [
        "{\"data\":1}",
        "{\"type\":\"subscribed\",\"client\":\"c\",\"channels\":{}}",
        "{\"type\":\"subscribed\",\"client\":\"c\",\"recovered\":true,\"channels\":{\"a\":{}}}",
        "{\"type\":\"subscribed\",\"client\":\"c\",\"channels\":{\"a\":{\"id\":\"b=1.x\"}}}",
        "{\"type\":\"subscribed\",\"client\":\"c\",\"channels\":{\"a\":{}},\"more\":1}",
    ] {
        let mut client = client(&[Transport::Tcp]);
        opened(&mut *client);
        let mut out = Output::default();
        client.handle_bytes(Instant::now(), format!("{object}\n").as_bytes(), &mut out);
        assert!(matches!(out.hang_up, Some(HangUp::Nonsense(_))), "{object}: {out:?}");
    }
}
