//! The transports and formats of the centrifuge dialect against the server's half: what the real encoders write is
//! read the same, wherever it is cut, and what a client says beside its stream names its session.

use super::*;
use crate::client::choice::Choice;
use longwire_protocol::Connection;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::centrifuge::link::Link;
use longwire_protocol::encoding::{Framing, Style};
use longwire_protocol::filter::{Filter, Node};
use longwire_protocol::message::{Push, Reply};
use longwire_protocol::{Close, CloseReason};
use std::time::Instant;

const STREAMS: [(Kind, Format, Framing, bool); 5] = [
    (Kind::HttpStream, Format::Json, Framing::Chunks, false),
    (Kind::HttpStreamProtobuf, Format::Protobuf, Framing::Chunks, false),
    (Kind::Sse, Format::Json, Framing::Events, false),
    (Kind::UniHttpStream, Format::Json, Framing::Chunks, true),
    (Kind::UniSse, Format::Json, Framing::Events, true),
];

/// What a server says on a stream, from its head to its last words.
fn stream(format: Format, framing: Framing, is_bare: bool) -> Vec<u8> {
    let link = Link::response(Style { format, framing, is_bare });
    let mut server = Connection::centrifuge(link, Instant::now(), &INTERVALS, 0.5);
    let (content_type, body) = match (framing, format) {
        (Framing::Events, _) => ("text/event-stream; charset=utf-8", ""),
        (_, Format::Json) => ("application/x-ndjson", "Transfer-Encoding: chunked\r\n"),
        (_, Format::Protobuf) => ("application/octet-stream", "Transfer-Encoding: chunked\r\n"),
    };
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{body}\r\n").into_bytes();
    let subs = if is_bare { vec![("a".to_owned(), fresh(3))] } else { Vec::new() };
    let result = ConnectResult {
        pong: false,
        session: "the session".into(),
        node: "the node".into(),
        ..connected(subs)
    };
    bytes.extend(server.reply(1, &Reply::Connect(Box::new(result))).bytes);
    if !is_bare {
        bytes.extend(server.reply(2, &Reply::Subscribe(Box::new(fresh(3)))).bytes);
    }
    bytes.extend(server.push("a", &Push::Join(info())));
    bytes.extend(server.push("a", &Push::Publication(publication(4))));
    bytes.extend(server.beat());
    bytes.extend(server.push("a", &Push::Unsubscribe { code: 2000, reason: "server unsubscribe" }));
    bytes.extend(server.farewell(&Close::from(CloseReason::Drain)));
    bytes
}

fn hear(kind: Kind, pieces: &[&[u8]]) -> Output {
    let mut client = make(kind, settings(&["a"]));
    let (now, mut out) = (Instant::now(), Output::default());
    client.opened(now, &mut out);
    out.bytes.clear();
    pieces.iter().for_each(|piece| client.handle_bytes(now, piece, &mut out));
    out
}

#[test]
fn every_stream_says_the_same_in_its_own_form_wherever_it_is_cut() {
    for (kind, format, framing, is_bare) in STREAMS {
        let bytes = stream(format, framing, is_bare);
        let whole = hear(kind, &[&bytes]);
        let begun = Event::Subscribed {
            channel: "a".into(),
            position: told(3),
            was_recovering: false,
            recovered: false,
            since: None,
            filter: None,
            publications: vec![],
        };
        let expected = [
            Event::Connected { client: CLIENT.into() },
            begun,
            Event::Join { channel: "a".into(), client: CLIENT.into() },
            Event::Publication { channel: "a".into(), heard: heard(4) },
            Event::Beat,
            Event::Unsubscribed { channel: "a".into(), code: 2000 },
            Event::Told { code: 3001, text: "shutdown".into() },
        ];
        assert_eq!(whole.events, expected, "{kind:?}");
        assert_eq!(whole.hang_up, Some(HangUp::Told { code: 3001, reconnect: true }), "{kind:?}");
        for cut in 0..=bytes.len() {
            assert_eq!(hear(kind, &[&bytes[..cut], &bytes[cut..]]), whole, "{kind:?} cut at {cut}");
        }
    }
}

#[test]
fn a_chunk_that_is_not_one_message_is_nonsense() {
    let bytes = String::from_utf8(stream(Format::Json, Framing::Chunks, false)).unwrap();
    let (head, rest) = bytes.split_once("\r\n\r\n").unwrap();
    let (_, rest) = rest.split_once("\r\n").unwrap();
    let (line, _) = rest.split_once("\r\n").unwrap();
    for chunk in
        [line[..line.len() - 1].to_owned(), format!("{line}{line}"), line.replace("session", "séssion")]
    {
        let bytes = format!("{head}\r\n\r\n{:x}\r\n{chunk}\r\n", chunk.len());
        let out = hear(Kind::HttpStream, &[bytes.as_bytes()]);
        assert!(matches!(out.hang_up, Some(HangUp::Nonsense(_))), "{chunk:?}: {out:?}");
    }
}

#[test]
fn what_is_said_beside_a_stream_names_its_session_and_waits_until_it_is_known() {
    for (kind, format, framing, is_bare) in STREAMS.into_iter().filter(|(.., is_bare)| !is_bare) {
        let bytes = stream(format, framing, is_bare);
        let mut client = make(kind, settings(&["a"]));
        let (now, mut out) = (Instant::now(), Output::default());
        client.opened(now, &mut out);
        assert!(client.act(now, Action::Subscribe("b".into()), &mut out));
        assert_eq!(out.posts, [], "{kind:?}");
        client.handle_bytes(now, &bytes[..bytes.len() / 2], &mut out);
        let [post] = &out.posts[..] else { panic!("{kind:?}: {:?}", out.posts) };
        let text = String::from_utf8_lossy(&post.body).into_owned();
        for part in ["the session", "the node", "b"] {
            assert!(text.contains(part), "{kind:?}: {text}");
        }
        let request = match format {
            Format::Json => longwire_protocol::centrifuge::json::decode_emulation(&post.body.clone().into()),
            Format::Protobuf => {
                longwire_protocol::centrifuge::protobuf::decode_emulation(&post.body.clone().into())
            }
        };
        assert_eq!(request.unwrap().session, "the session");
    }
}

#[test]
fn a_choice_takes_what_the_filter_lets_through() {
    let is = Choice::Is("shade".into(), "red".into());
    let more = Choice::MoreThan("weight".into(), 5);
    let choices = [
        is.clone(),
        more.clone(),
        Choice::Not(Box::new(more.clone())),
        Choice::Any(vec![is, Choice::Not(Box::new(more))]),
    ];
    for choice in choices {
        let node: Node = serde_json::from_str(&choice.to_json()).unwrap();
        let filter = Filter::new(&node).unwrap();
        for tags in [
            vec![],
            vec![("shade", "red")],
            vec![("shade", "blue"), ("weight", "5")],
            vec![("shade", "red"), ("weight", "6")],
            vec![("weight", "heavy")],
        ] {
            let tags: Vec<(String, String)> =
                tags.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let takes = choice.takes(&tags.iter().cloned().collect());
            assert_eq!(takes, filter.matches(&tags), "{choice:?} of {tags:?}");
        }
    }
}
