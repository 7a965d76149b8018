//! The plain dialect over every transport: what is made of what a connection hears, and when it is called dead.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod plain_server;

use bytes::Bytes;
use longwire_protocol::command::{Command, Connect, Numbered, Subscribe};
use longwire_protocol::connection::{Connection, Inbound};
use longwire_protocol::heartbeat::Due;
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::plain::{
    Asked, BadClientName, Beats, Carrier, FirstPacket, Format, Framing, Opening, Terminator, asked,
    check_client_name,
};
use longwire_protocol::websocket::Kind;
use longwire_protocol::websocket::frame::{self, Opcode};
use longwire_protocol::{CloseReason, Epoch, Push, Reply, Since};
use std::sync::Arc;
use std::time::Instant;

use plain_server::*;

#[test]
fn whatever_comes_over_websocket_is_a_message() {
    let mut server = Server::welcome(SOCKET, Format::Json);
    let bytes = [
        from_client(Kind::Text, b"{\"a\":1}"),
        from_client(Kind::Binary, b"\xff\x00"),
        from_client(Kind::Binary, b"is no text"),
        from_client(Kind::Text, b""),
    ]
    .concat();
    let expected = [
        content(b"{\"a\":1}", true),
        content(b"\xff\x00", false),
        content(b"is no text", false),
        content(b"", true),
    ];
    assert_eq!(server.hear(&bytes), expected);
    let mut server = Server::welcome(SOCKET, Format::Json);
    let byte_by_byte: Vec<Inbound> = bytes.chunks(1).flat_map(|byte| server.hear(byte)).collect();
    assert_eq!(byte_by_byte, expected);
}

#[test]
fn control_frames_are_answered_or_end_the_connection() {
    let mut server = Server::welcome(SOCKET, Format::Bare);
    let mut bytes = Vec::new();
    frame::encode(Opcode::Ping, false, Some([1, 2, 3, 4]), b"x", &mut bytes);
    frame::encode(Opcode::Pong, false, Some([1, 2, 3, 4]), b"y", &mut bytes);
    frame::encode(Opcode::Close, false, Some([1, 2, 3, 4]), &frame::close_payload(1000, "bye"), &mut bytes);
    assert_eq!(server.hear(&bytes), [Inbound::Transmit(frame::pong(b"x")), Inbound::Closed(Some(1000))]);
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let mut server = Server::welcome(SOCKET, Format::Json);
    let fault = server.link.decode(&mut &from_client(Kind::Text, &[b'a'; 1001])[..]).unwrap_err();
    assert_eq!(fault.reason, CloseReason::MessageTooBig);
    let mut server = Server::welcome(lines_over_tcp(), Format::Json);
    let fault = server.link.decode(&mut &[b'a'; 1001][..]).unwrap_err();
    assert_eq!(fault.reason, CloseReason::MessageTooBig);
    let mut server = Server::welcome(tcp(length(4, false), FirstPacket::None), Format::Json);
    let fault = server.link.decode(&mut &b"\xff\xff\xff\xff"[..]).unwrap_err();
    assert_eq!(fault.reason, CloseReason::MessageTooBig);
}

#[test]
fn a_packet_is_text_if_it_can_be() {
    let mut server = Server::welcome(lines_over_tcp(), Format::Json);
    assert_eq!(
        server.hear(b"caf\xc3\xa9\n\xff\n\n"),
        [content("caf\u{e9}".as_bytes(), true), content(b"\xff", false), content(b"", true)]
    );
    let mut server = Server::welcome(tcp(length(1, true), FirstPacket::None), Format::Bare);
    assert_eq!(server.hear(b"\x02ab\x00"), [content(b"\x02ab", true), content(b"\0", true)]);
}

#[test]
fn a_sign_of_life_is_nobodys_message_and_is_answered() {
    let mut server = Server::welcome(SOCKET, Format::Json);
    let pong = |kind| Inbound::Transmit(frame::message(kind, b"pong"));
    let bytes = [
        from_client(Kind::Text, b"ping"),
        from_client(Kind::Binary, b"\x09"),
        from_client(Kind::Text, b"ping "),
        from_client(Kind::Text, b"Hello!"),
    ]
    .concat();
    assert_eq!(
        server.hear(&bytes),
        [pong(Kind::Text), pong(Kind::Binary), content(b"ping ", true), pong(Kind::Text)]
    );
    for (framing, bytes, answer) in [
        (Framing::Terminator(Terminator::new(b"\r\n").unwrap()), &b"ping\r\n"[..], &b"pong\r\n"[..]),
        (length(2, false), b"\0\x04ping", b"\0\x04pong"),
        // The head is not said to be part of it; the answer is the operator's packet.
        (length(2, true), b"\0\x04ping", b"pong"),
    ] {
        let mut server = Server::welcome(tcp(framing, FirstPacket::None), Format::Json);
        assert_eq!(server.hear(bytes), [Inbound::Transmit(Bytes::from_static(answer))]);
    }
    // Without an answer nothing is said.
    let silent = Arc::new(Beats { answer: Bytes::new(), ..beats() });
    for (carrier, bytes) in
        [(SOCKET, from_client(Kind::Text, b"ping")), (lines_over_tcp(), b"ping\n".to_vec())]
    {
        let opening = Opening {
            connect: Connect::default(),
            subscribes: vec![],
            carrier,
            format: Format::Json,
            beats: silent.clone(),
        };
        let mut link = Connection::plain(opening, Instant::now(), &INTERVALS, 0.0);
        assert!(matches!(link.decode(&mut &b""[..]), Ok(Some(Inbound::Command(_)))));
        assert_eq!(link.decode(&mut &bytes[..]), Ok(None));
    }
}

#[test]
fn messages_may_come_beside_every_link_and_are_no_commands() {
    for carrier in [SOCKET, LINES, poll(), lines_over_tcp()] {
        let mut server = Server::welcome(carrier, Format::Json);
        assert!(server.link.is_emulated());
        assert!(server.link.is_beat(b"ping") && !server.link.is_beat(b"pang"));
        server.link.deliver(Bytes::from_static(b"{\"id\":2,\"rpc\":{}}"));
        assert_eq!((server.hear(b""), server.link.waiting_bytes()), (vec![], 0));
    }
}

#[test]
fn what_comes_on_a_response_itself_means_nothing() {
    for carrier in [LINES, poll(), Carrier::EventStream { head: String::new(), retry_milliseconds: 1 }] {
        let mut server = Server::welcome(carrier, Format::Json);
        assert_eq!(server.hear(b"anything\n"), []);
    }
}

// ---- the first packet

fn first(
    first_packet: FirstPacket,
    bytes: &[u8],
) -> (Server, Result<Option<Inbound>, (CloseReason, String)>) {
    let framing = Framing::Terminator(Terminator::new(b"\r\n").unwrap());
    let mut server = Server::new(tcp(framing, first_packet), Format::Json, vec![]);
    let inbound = server.link.decode(&mut &bytes[..]).map_err(|fault| (fault.reason, fault.what));
    (server, inbound)
}

fn connect_of(inbound: Result<Option<Inbound>, (CloseReason, String)>) -> Connect {
    match inbound {
        Ok(Some(Inbound::Command(Numbered { id: 1, command: Command::Connect(connect) }))) => *connect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_packet_says_who_is_there() {
    let before = Connect { client_name: "device-42".to_owned(), ..Connect::default() };
    assert_eq!(connect_of(first(FirstPacket::None, b"").1), before);
    let named = Connect { client_name: "d 7".to_owned(), ..Connect::default() };
    assert_eq!(connect_of(first(FirstPacket::Client, b" d 7 \r\n").1), named);
    let token = Connect { token: "a.b.c".to_owned(), ..before };
    assert_eq!(connect_of(first(FirstPacket::Token, b"a.b.c\r\n").1), token);
    assert_eq!(first(FirstPacket::Token, b"a.b.c\r").1, Ok(None), "not before it is whole");
}

#[test]
fn the_first_packet_may_say_everything() {
    let packet =
        b"{\"token\":\"t\",\"client\":\"me\",\"session\":\"0-1-2-ff\",\"channels\":[\"a\",\"b\"],\"since\":\"a=3.abcdefgh,c=1.abcdefgh\",\"data\":{\"x\": 1}}\r\n";
    let (mut server, inbound) = first(FirstPacket::Json, packet);
    let seen = PositionToken::parse(b"a=3.abcdefgh,c=1.abcdefgh").unwrap();
    let Asked { subscribes, returning } = asked(vec!["a".into(), "b".into()], Some(&seen));
    assert_eq!(
        connect_of(inbound),
        Connect {
            token: "t".into(),
            client_name: "me".into(),
            session: "0-1-2-ff".into(),
            data: "{\"x\": 1}".into(),
            subs: returning,
            has_since: true,
            ..Connect::default()
        }
    );
    server.reply(1, &Reply::Connect(Box::new(connected(vec![]))));
    for (id, subscribe) in [(2, &subscribes[0]), (3, &subscribes[1])] {
        let command = Command::Subscribe(Box::new(subscribe.clone()));
        assert_eq!(server.next(), Some(Inbound::Command(Numbered { id, command })));
        server.reply(id, &Reply::Subscribe(Box::new(stands_at(3))));
    }
    assert!(server.link.is_open());
    assert_eq!(server.hear(b"{}\r\n"), [content(b"{}", true)]);
    assert_eq!(connect_of(first(FirstPacket::Json, b"{}\r\n").1), Connect::default());
}

#[test]
fn a_wrong_first_packet_is_refused_with_what_is_wrong() {
    let long = [&[b'x'; 256][..], b"\r\n"].concat();
    for (kind, packet, expected) in [
        (FirstPacket::Client, &b"\r\n"[..], "the first packet: a client's name has 1 to 255 bytes"),
        (FirstPacket::Client, b"a\0b\r\n", "the first packet: a client's name has no control characters"),
        (
            FirstPacket::Client,
            "a\u{fffd}\r\n".as_bytes(),
            "the first packet: a client's name is UTF-8, without U+FFFD",
        ),
        (FirstPacket::Client, &long, "the first packet: a client's name has 1 to 255 bytes"),
        (FirstPacket::Client, b"\xff\r\n", "the first packet is not UTF-8"),
        (FirstPacket::Token, b"\r\n", "the first packet is no token"),
        (FirstPacket::Json, b"hello\r\n", "the first packet: expected value at line 1 column 1"),
        (FirstPacket::Json, b"[]\r\n", "the first packet: "),
        (FirstPacket::Json, b"{\"user\":1}\r\n", "the first packet: unknown field `user`"),
        (FirstPacket::Json, b"{\"token\":1}\r\n", "the first packet: invalid type: integer `1`"),
        (FirstPacket::Json, b"{\"client\":\"\\n\"}\r\n", "the first packet: a client's name"),
        (
            FirstPacket::Json,
            b"{\"channels\":[\"a\",\"a\"]}\r\n",
            "the first packet: channel 2 is empty or named twice",
        ),
        (
            FirstPacket::Json,
            b"{\"channels\":[\"\"]}\r\n",
            "the first packet: channel 1 is empty or named twice",
        ),
        (FirstPacket::Json, b"{\"since\":\"a\"}\r\n", "the first packet: \"since\": position token has"),
    ] {
        let (server, inbound) = first(kind, packet);
        let (reason, what) = inbound.unwrap_err();
        assert_eq!(reason, CloseReason::BadRequest);
        assert!(what.starts_with(expected), "{what}");
        let last = text(&server.link.farewell(&reason.into()));
        assert!(last.starts_with("{\"type\":\"disconnect\",") && last.ends_with("}\r\n"), "{last}");
    }
    // As much as is quoted, and where it was.
    let quoted = first(FirstPacket::Json, format!("{{\"{}\":1}}\r\n", "\u{e9}".repeat(300)).as_bytes());
    let what = quoted.1.unwrap_err().1;
    assert!(what.starts_with("the first packet: unknown field `\u{e9}\u{e9}") && what.len() < 400, "{what}");
    assert!(what.contains(".. at line 1 column 60"), "{what}");
    let many = format!(
        "{{\"channels\":[{}]}}\r\n",
        (0..129).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(",")
    );
    assert_eq!(
        first(FirstPacket::Json, many.as_bytes()).1.unwrap_err().1,
        "the first packet: 129 channels, at most 128 are allowed"
    );
}

#[test]
fn a_sign_of_life_is_not_the_first_packet() {
    let (mut server, inbound) = first(FirstPacket::Client, b"ping\r\n");
    assert_eq!(inbound, Ok(Some(Inbound::Transmit("pong\r\n".into()))));
    let next = server.link.decode(&mut &b"me\r\n"[..]).unwrap();
    assert_eq!(connect_of(Ok(next)).client_name, "me");
}

#[test]
fn the_first_of_whole_packets_is_read_without_its_head() {
    let mut server = Server::new(tcp(length(1, true), FirstPacket::Client), Format::Bare, vec![]);
    let inbound = server.link.decode(&mut &b"\x02me"[..]).unwrap();
    assert_eq!(connect_of(Ok(inbound)).client_name, "me");
}

#[test]
fn names_of_clients_are_checked() {
    let long = "x".repeat(256);
    for (name, expected) in [
        ("a", Ok(())),
        ("device 42/\u{e9}", Ok(())),
        (&long[1..], Ok(())),
        ("", Err(BadClientName::Length)),
        (&long, Err(BadClientName::Length)),
        ("a\nb", Err(BadClientName::ControlCharacter)),
        ("\u{85}", Err(BadClientName::ControlCharacter)),
        ("a\u{fffd}", Err(BadClientName::NotText)),
    ] {
        assert_eq!(check_client_name(name), expected, "{name:?}");
    }
}

#[test]
fn who_asks_says_where_it_stood_in_every_channel() {
    let seen = PositionToken::parse(b"a=3.abcdefgh,gone=9.abcdefgh").unwrap();
    let Asked { subscribes, returning } = asked(vec!["a".into(), "new".into()], Some(&seen));
    let stood = |all: &[Subscribe]| -> Vec<(String, Option<Since>)> {
        all.iter().map(|subscribe| (subscribe.channel.clone(), subscribe.recover)).collect()
    };
    let nowhere = Some(Since { offset: 0, epoch: Some(Epoch::FOREIGN) });
    assert_eq!(stood(&subscribes), [("a".into(), Some(at(3).into())), ("new".into(), nowhere)]);
    assert_eq!(
        stood(&returning),
        [("a".into(), Some(at(3).into())), ("gone".into(), Some(at(9).into())), ("new".into(), nowhere)]
    );
    assert!(subscribes.iter().all(|s| s.recoverable && s.positioned && s.join_leave));
    let Asked { subscribes, returning } = asked(vec!["a".into()], None);
    assert_eq!((stood(&subscribes), stood(&returning)), (vec![("a".into(), None)], vec![("a".into(), None)]));
}

// ---- signs of life

#[test]
fn every_transport_beats_in_its_own_way() {
    let beat = |carrier, format| Server::welcome(carrier, format).link.beat();
    let events = || Carrier::EventStream { head: String::new(), retry_milliseconds: 1 };
    let chunked = || Carrier::Lines { head: String::new(), is_chunked: true };
    for format in [Format::Json, Format::Bare] {
        assert_eq!(beat(SOCKET, format), frame::ping(b""));
        assert_eq!(beat(events(), format), &b":\n\n"[..]);
        assert_eq!(beat(LINES, format), &b"\n"[..]);
        assert_eq!(beat(chunked(), format), &b"1\r\n\n\r\n"[..]);
        assert_eq!(beat(poll(), format), "");
        assert_eq!(beat(lines_over_tcp(), format), "are you there\n");
        assert_eq!(beat(tcp(length(1, false), FirstPacket::None), format), "\x0dare you there");
    }
    // Before the head and the welcome there is nothing to say but what WebSocket says below them.
    let early = |carrier| Server::new(carrier, Format::Json, vec![]).link.beat();
    for carrier in [events(), LINES, poll(), lines_over_tcp()] {
        assert_eq!(early(carrier), "");
    }
    assert_eq!(early(SOCKET), frame::ping(b""));
}

#[test]
fn who_can_speak_must_and_who_cannot_need_not() {
    let start = Instant::now();
    let due = |carrier| {
        let opening = Opening {
            connect: Connect::default(),
            subscribes: vec![],
            carrier,
            format: Format::Json,
            beats: Arc::default(),
        };
        let mut link = Connection::plain(opening, start, &INTERVALS, 1.0);
        link.heartbeat.handle_timeout(start + INTERVALS.max_silence, &INTERVALS)
    };
    assert_eq!(due(SOCKET), Some(Due::PeerDead));
    assert_eq!(due(lines_over_tcp()), Some(Due::PeerDead));
    assert_eq!(due(LINES), Some(Due::Beat));
    assert_eq!(due(Carrier::EventStream { head: String::new(), retry_milliseconds: 1 }), Some(Due::Beat));
    assert_eq!(due(poll()), None);
}

#[test]
fn data_that_is_not_json_goes_over_event_streams_too() {
    let server =
        Server::welcome(Carrier::EventStream { head: String::new(), retry_milliseconds: 1 }, Format::Json);
    let event = server.shared("a", &Push::Publication(bytes_of(b"\xff\n")), Some(at(4)));
    assert_eq!(text(&event), "id: a=4.abcdefgh\ndata: {\"channel\":\"a\",\"b64data\":\"/wo=\"}\n\n");
    let mut server = server;
    assert_eq!(text(&server.link.push("", &message("{\"x\":\n1}"))), "data: {\"data\":{\"x\": 1}}\n\n");
}
