//! The WebSocket codec against itself and against vectors, cut at every point and at random ones.

use bytes::Bytes;
use longwire_protocol::websocket::{Compressor, Connection, Event, Kind, Opcode, Role, Violation, frame};
use proptest::prelude::*;

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const LIMIT: u32 = 1 << 20;

/// Decodes pieces one after the other, each to its end.
fn decode<'a>(
    role: Role,
    deflate: bool,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Event>, Violation> {
    let mut connection = Connection::new(role, deflate, LIMIT);
    let mut events = Vec::new();
    for mut piece in pieces {
        while let Some(event) = connection.decode(&mut piece)? {
            events.push(event);
        }
        assert!(piece.is_empty());
    }
    Ok(events)
}

fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    let digit_pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digit_pairs.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

fn message(kind: Kind, data: impl Into<Bytes>) -> Event {
    Event::Message { kind, data: data.into() }
}

/// A masked frame; `first` is its whole first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(Opcode::Binary, false, Some(KEY), payload, &mut bytes);
    bytes[0] = first;
    bytes
}

/// A name, a client's bytes, and the events if they break no rule.
type Vector = (&'static str, Vec<u8>, Option<Vec<Event>>);

fn vectors() -> Vec<Vector> {
    let hello = message(Kind::Text, "Hello");
    let news = r#"{"channel":"news","data":{"n":1}}"#.repeat(3);
    let news = || Some(vec![message(Kind::Text, news.clone())]);
    // Made by zlib's C library, raw, sync-flushed, without the last four bytes.
    let fixed = "aa564ace48cccb4bcd51b252ca4b2d2f56d2514a492c4954b2aa56ca53b232acadada6580100";
    let dynamic = "04c1b10900200c45c15d5e6d639b6d82062ce4370a1621bb7b978ce5526c0cc53b34a65fc71261bd2a19cba5d8188a77684\
                   cbf8e25c27a5532964bb13114efd0987e1d4b84f5aa0f";
    let flushed = "aa564ace48cccb4bcd51b252ca4b2d2f56d25102000000ffff4a492c4954b2aa56ca53b232acadad062900000000ffffc2a\
                   200000000ffffc2a200000000ffffc2a200000000ffff02290000";
    let finished = "ab564ace48cccb4bcd51b252ca4b2d2f56d2514a492c4954b2aa56ca53b232acadada658010000";
    vec![
        ("RFC 6455 5.7: a masked text", hex("818537fa213d7f9f4d5158"), Some(vec![hello.clone()])),
        (
            "RFC 6455 5.7: a masked pong",
            hex("8a8537fa213d7f9f4d5158"),
            Some(vec![Event::Pong("Hello".into())]),
        ),
        (
            "two fragments and a ping between",
            [masked(0x01, b"Hel"), masked(0x89, b"?"), masked(0x80, b"lo")].concat(),
            Some(vec![Event::Ping("?".into()), hello.clone()]),
        ),
        (
            "a 16-bit length, a close with a reason",
            [masked(0x82, &[7; 300]), masked(0x88, b"\x03\xe8bye")].concat(),
            Some(vec![
                message(Kind::Binary, vec![7; 300]),
                Event::Close { code: Some(1000), reason: "bye".into() },
            ]),
        ),
        (
            "characters over fragments",
            [masked(0x01, b"\xf0\x9f"), masked(0x00, b""), masked(0x00, b"\x98"), masked(0x80, b"\x80!")]
                .concat(),
            Some(vec![message(Kind::Text, "😀!")]),
        ),
        ("RFC 7692 7.2.3.1", masked(0xC1, &hex("f248cdc9c90700")), Some(vec![hello])),
        ("zlib, fixed codes", masked(0xC1, &hex(fixed)), news()),
        ("zlib, dynamic codes", masked(0xC1, &hex(dynamic)), news()),
        ("zlib, flushed five times", masked(0xC1, &hex(flushed)), news()),
        ("zlib, a final block", masked(0xC1, &hex(finished)), news()),
        (
            "zlib, in fragments",
            [masked(0x41, &hex(dynamic)[..9]), masked(0x8A, b""), masked(0x80, &hex(dynamic)[9..])].concat(),
            news().map(|events| [vec![Event::Pong(Bytes::new())], events].concat()),
        ),
        ("a reserved opcode", [masked(0x8A, b"ok"), masked(0x83, b"x")].concat(), None),
        ("text cut within a character", masked(0x81, b"abc\xe2\x82"), None),
        ("a continuation of nothing", masked(0x80, b"x"), None),
        ("corrupt compressed data", masked(0xC1, &[0xFF; 20]), None),
    ]
}

#[test]
fn every_vector_split_at_every_point_gives_the_same_events() {
    for (name, bytes, expected) in vectors() {
        assert_eq!(decode(Role::Server, true, [&bytes[..]]).ok(), expected, "{name}");
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(decode(Role::Server, true, [head, tail]).ok(), expected, "{name} cut at {at}");
        }
        assert_eq!(decode(Role::Server, true, bytes.chunks(1)).ok(), expected, "{name} byte by byte");
    }
}

/// Something to send.
#[derive(Clone, Debug)]
enum Sent {
    Message { kind: Kind, payload: Vec<u8>, cuts: Vec<usize>, ping_between: bool, compress: bool },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

fn sent() -> impl Strategy<Value = Sent> {
    let payload = prop_oneof![
        any::<String>().prop_map(|text| (Kind::Text, text.into_bytes())),
        "(ab|é|😀){0,200}".prop_map(|text: String| (Kind::Text, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|data| (Kind::Binary, data)),
        (any::<u8>(), 65_500usize..65_600).prop_map(|(byte, len)| (Kind::Binary, vec![byte; len])),
    ];
    let control = prop::collection::vec(any::<u8>(), 0..=125);
    prop_oneof![
        4 => (payload, prop::collection::vec(any::<usize>(), 0..5), any::<bool>(), any::<bool>()).prop_map(
            |((kind, payload), cuts, ping_between, compress)| Sent::Message { kind, payload, cuts, ping_between, compress }
        ),
        1 => control.clone().prop_map(Sent::Ping),
        1 => control.prop_map(Sent::Pong),
    ]
}

/// Writes frames as `role`'s peer would, and says what must be decoded.
fn encode(sent: &[Sent], role: Role, key: [u8; 4], deflate: bool) -> (Vec<u8>, Vec<Event>) {
    let mask = (role == Role::Server).then_some(key);
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    let mut compressor = Compressor::new();
    for item in sent {
        match item {
            Sent::Ping(payload) => {
                frame::encode(Opcode::Ping, false, mask, payload, &mut bytes);
                events.push(Event::Ping(payload.clone().into()));
            }
            Sent::Pong(payload) => {
                frame::encode(Opcode::Pong, false, mask, payload, &mut bytes);
                events.push(Event::Pong(payload.clone().into()));
            }
            Sent::Message { kind, payload, cuts, ping_between, compress } => {
                let deflated = if *compress && deflate { compressor.compress(payload) } else { None };
                let body = deflated.unwrap_or(payload);
                let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
                at.sort_unstable();
                at.push(body.len());
                let mut start = 0;
                for (i, end) in at.iter().enumerate() {
                    let opcode = if i == 0 { Opcode::from(*kind) } else { Opcode::Continuation };
                    let first_byte = bytes.len();
                    frame::encode(opcode, deflated.is_some() && i == 0, mask, &body[start..*end], &mut bytes);
                    if *end != body.len() || i + 1 != at.len() {
                        bytes[first_byte] &= 0x7F;
                        if *ping_between {
                            frame::encode(Opcode::Ping, false, mask, b"between", &mut bytes);
                            events.push(Event::Ping("between".into()));
                        }
                    }
                    start = *end;
                }
                events.push(message(*kind, payload.clone()));
            }
        }
    }
    (bytes, events)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_is_decoded_however_it_is_fragmented_and_cut(
        sent in prop::collection::vec(sent(), 0..6),
        server in any::<bool>(),
        deflate in any::<bool>(),
        key in any::<[u8; 4]>(),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let (bytes, expected) = encode(&sent, role, key, deflate);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(decode(role, deflate, pieces), Ok(expected));
    }

    #[test]
    fn any_bytes_decode_to_the_same_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        first in prop::sample::select(vec![0x01u8, 0x81, 0x82, 0x89, 0x88, 0xC1, 0x41]),
        cuts in prop::collection::vec(0usize..300, 0..10),
    ) {
        // A valid header first, so that random bytes are read as a payload, too.
        let bytes = [masked(first, &bytes[..bytes.len().min(60)]), bytes].concat();
        let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(decode(Role::Server, true, pieces), decode(Role::Server, true, [&bytes[..]]));
    }
}
