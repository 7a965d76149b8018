//! The Protobuf encoding of the centrifuge dialect against the protocol's table of fields, byte by byte.
//!
//! The expected bytes are put together by the few functions below, which know nothing but how a field is
//! written; the numbers come from the table.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::centrifuge::json;
use longwire_protocol::centrifuge::protobuf::{
    DecodeError, MAX_FILTER_DEPTH, MAX_FILTER_NODES, MAX_SUBS, PING, decode_next, encode_bare_push,
    encode_push, encode_reply,
};
use longwire_protocol::command::{Connect, HistoryRequest, Numbered, Subscribe};
use longwire_protocol::message::{ClientId, ClientInfo, ConnectResult, SubscribeResult};
use longwire_protocol::{
    Close, CloseReason, Command, Epoch, ErrorCode, Position, Publication, Push, Reply, Since, filter,
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::sync::Arc;

// ---- how a field is written

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push((number % 0x80) as u8 + 0x80);
        number /= 0x80;
    }
    out.push(number as u8);
    out
}

/// A field of type 0.
fn num(field: u64, number: u64) -> Vec<u8> {
    [varint(field * 8), varint(number)].concat()
}

/// A field of type 2: text, bytes.
fn len(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [varint(field * 8 + 2), varint(bytes.as_ref().len() as u64), bytes.as_ref().to_vec()].concat()
}

/// A field of type 2: a message.
fn msg(field: u64, fields: &[Vec<u8>]) -> Vec<u8> {
    len(field, fields.concat())
}

/// A message behind its length.
fn frame(fields: &[Vec<u8>]) -> Vec<u8> {
    let message = fields.concat();
    [varint(message.len() as u64), message].concat()
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_functions_of_this_test_write_what_the_specification_shows() {
    // The examples of the Protocol Buffers documentation: 150 in field 1, "testing" in field 2.
    assert_eq!(num(1, 150), hex("08 96 01"));
    assert_eq!(len(2, "testing"), hex("12 07 74 65 73 74 69 6e 67"));
    assert_eq!(msg(3, &[num(1, 150)]), hex("1a 03 08 96 01"));
}

fn decode_all(message: &[u8]) -> Vec<Result<Numbered, DecodeError>> {
    let mut message = Bytes::copy_from_slice(message);
    std::iter::from_fn(|| decode_next(&mut message)).collect()
}

fn decode_one(message: &[u8]) -> Result<Numbered, DecodeError> {
    let mut rest = Bytes::copy_from_slice(message);
    let first = decode_next(&mut rest).expect("the message is not empty");
    assert!(rest.is_empty(), "one command is all, and an error must empty the message");
    first
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

fn subscribe(channel: &str) -> Subscribe {
    Subscribe { channel: channel.into(), ..Subscribe::default() }
}

// ---- commands

#[test]
fn every_command_is_read() {
    let a = || "a".to_owned();
    let table: Vec<(Vec<u8>, u32, Command)> = vec![
        (hex("00"), 0, Command::Pong),
        (frame(&[num(1, 0)]), 0, Command::Pong),
        (frame(&[len(99, "unknown"), num(100, 1)]), 0, Command::Pong),
        // Fields of eight and four bytes, which we know none of.
        (frame(&[hex("81 01 01 02 03 04 05 06 07 08"), hex("85 01 01 02 03 04")]), 0, Command::Pong),
        (hex("04 08 01 22 00"), 1, Command::Connect(Box::default())),
        (
            frame(&[
                msg(
                    4,
                    &[
                        len(1, "t.o.k"),
                        len(2, b"\xff\x00"),
                        msg(
                            3,
                            &[
                                len(1, "a"),
                                msg(2, &[len(1, "ignored"), num(3, 1), len(6, "abcdefgh"), num(7, 7)]),
                            ],
                        ),
                        msg(3, &[len(1, "b")]),
                        len(4, "js"),
                        len(5, "5.7"),
                        msg(6, &[len(1, "x"), len(2, "y")]),
                        msg(6, &[len(2, "no key")]),
                        num(7, 1),
                        len(8, "dict"),
                        len(9, "profile"),
                    ],
                ),
                num(1, 1),
            ]),
            1,
            Command::Connect(Box::new(Connect {
                token: "t.o.k".into(),
                data: Bytes::from_static(b"\xff\x00"),
                name: "js".into(),
                version: "5.7".into(),
                headers: vec![(String::new(), "no key".into()), ("x".into(), "y".into())],
                subs: vec![Subscribe { recover: Some(at(7).into()), ..subscribe("a") }, subscribe("b")],
                ..Connect::default()
            })),
        ),
        (
            frame(&[
                num(1, 2),
                msg(
                    4,
                    &[
                        msg(3, &[len(1, "a"), msg(2, &[num(3, 1)])]),
                        msg(3, &[len(1, "a"), msg(2, &[len(2, "t")])]),
                    ],
                ),
            ]),
            2,
            Command::Connect(Box::new(Connect {
                subs: vec![Subscribe { token: "t".into(), ..subscribe("a") }],
                ..Connect::default()
            })),
        ),
        (
            frame(&[num(1, 3), msg(5, &[len(1, "caf\u{e9}")])]),
            3,
            Command::Subscribe(Box::new(subscribe("caf\u{e9}"))),
        ),
        (
            frame(&[
                num(1, 3),
                msg(
                    5,
                    &[
                        len(1, "news"),
                        len(2, "t"),
                        num(3, 1),
                        len(6, "abcdefgh"),
                        num(7, u64::MAX),
                        len(8, "x"),
                        num(9, 1),
                        num(10, 1),
                        num(11, 1),
                        len(12, "fossil"),
                        msg(
                            13,
                            &[
                                len(1, "and"),
                                msg(6, &[len(2, "k"), len(3, "eq"), len(4, "v")]),
                                msg(6, &[len(2, "k"), len(3, "in"), len(5, "v"), len(5, ""), len(5, "w")]),
                            ],
                        ),
                        num(14, 3),
                        num(15, 1),
                        num(16, 2),
                        len(17, "c"),
                        num(18, 5),
                        num(19, 1),
                    ],
                ),
            ]),
            3,
            Command::Subscribe(Box::new(Subscribe {
                channel: "news".into(),
                token: "t".into(),
                data: bytes("x"),
                recover: Some(at(u64::MAX).into()),
                positioned: true,
                recoverable: true,
                join_leave: true,
                delta: "fossil".into(),
                tags_filter: Some(Box::new(filter::Node {
                    op: "and".into(),
                    nodes: vec![
                        filter::Node {
                            key: "k".into(),
                            cmp: "eq".into(),
                            val: "v".into(),
                            ..Default::default()
                        },
                        filter::Node {
                            key: "k".into(),
                            cmp: "in".into(),
                            vals: vec!["v".into(), String::new(), "w".into()],
                            ..Default::default()
                        },
                    ],
                    ..Default::default()
                })),
                reject_unrecovered: true,
                kind: 1,
            })),
        ),
        (
            frame(&[num(1, 4), msg(5, &[len(1, "a"), num(7, 5), len(6, "abcdefgh"), num(14, u64::MAX - 2)])]),
            4,
            Command::Subscribe(Box::new(subscribe("a"))),
        ),
        (
            frame(&[num(1, 4), msg(5, &[len(1, "a"), len(1, "b"), num(3, 1)])]),
            4,
            Command::Subscribe(Box::new(Subscribe { recover: Some(Since::default()), ..subscribe("b") })),
        ),
        (frame(&[num(1, 5), msg(6, &[len(1, "a")])]), 5, Command::Unsubscribe { channel: a() }),
        (
            frame(&[
                num(1, 6),
                msg(7, &[len(1, "a"), len(2, b"\x00\n\xff"), num(3, 1), len(4, "k"), num(5, 1)]),
            ]),
            6,
            Command::Publish {
                channel: a(),
                data: Bytes::from_static(b"\x00\n\xff"),
                kind: 1,
                tags: Vec::new(),
            },
        ),
        (
            // -1 as the protocol's thirty-two bit numbers are written: in ten bytes.
            frame(&[num(1, 6), msg(7, &[hex("18 ff ff ff ff ff ff ff ff ff 01")])]),
            6,
            Command::Publish { channel: String::new(), data: Bytes::new(), kind: -1, tags: Vec::new() },
        ),
        (frame(&[num(1, 7), msg(8, &[len(1, "a")])]), 7, Command::Presence { channel: a() }),
        (frame(&[num(1, 8), msg(9, &[len(1, "a")])]), 8, Command::PresenceStats { channel: a() }),
        (
            frame(&[
                num(1, 9),
                msg(
                    10,
                    &[len(1, "a"), num(7, u64::MAX), msg(8, &[num(1, 3), len(2, "abcdefgh")]), num(9, 1)],
                ),
            ]),
            9,
            Command::History(HistoryRequest {
                channel: a(),
                limit: -1,
                since: Some(at(3).into()),
                reverse: true,
            }),
        ),
        (
            frame(&[num(1, 9), msg(10, &[len(1, "a"), msg(8, &[])])]),
            9,
            Command::History(HistoryRequest {
                channel: a(),
                since: Some(Since::default()),
                ..HistoryRequest::default()
            }),
        ),
        (frame(&[num(1, 10), msg(11, &[])]), 10, Command::Ping),
        (frame(&[msg(12, &[len(1, "[1]")])]), 0, Command::Send { data: bytes("[1]") }),
        (frame(&[num(1, 11), msg(12, &[])]), 11, Command::Send { data: Bytes::new() }),
        (
            frame(&[num(1, 12), msg(13, &[len(1, "d"), len(2, "now")])]),
            12,
            Command::Rpc { method: "now".into(), data: bytes("d") },
        ),
        (frame(&[num(1, 13), msg(14, &[len(1, "t")])]), 13, Command::Refresh { token: "t".into() }),
        (
            frame(&[
                num(1, u64::from(u32::MAX)),
                msg(15, &[len(1, "a"), len(2, "t"), num(3, 2), msg(4, &[len(1, "s")]), len(5, "u")]),
            ]),
            u32::MAX,
            Command::SubRefresh { channel: a(), token: "t".into(), kind: 2 },
        ),
    ];
    for (message, id, command) in table {
        assert_eq!(decode_one(&message), Ok(Numbered { id, command }), "{message:x?}");
    }
}

#[test]
fn of_two_members_the_first_of_the_definition_counts_wherever_it_stands() {
    let (unsubscribe, publish) = (msg(6, &[len(1, "a")]), msg(7, &[len(1, "b")]));
    let expected = Ok(Numbered { id: 1, command: Command::Unsubscribe { channel: "a".into() } });
    assert_eq!(decode_one(&frame(&[num(1, 1), unsubscribe.clone(), publish.clone()])), expected);
    assert_eq!(decode_one(&frame(&[publish, unsubscribe, num(1, 1)])), expected);
}

#[test]
fn a_message_of_several_commands_is_taken_apart_in_order() {
    let commands = [frame(&[num(1, 1), msg(4, &[])]), hex("00"), frame(&[num(1, 3), msg(11, &[])])];
    let ids: Vec<u32> =
        decode_all(&commands.concat()).into_iter().map(|command| command.unwrap().id).collect();
    assert_eq!(ids, [1, 0, 3]);
    assert_eq!(decode_all(b""), []);
}

#[test]
fn a_payload_is_a_slice_of_the_message() {
    let message = Bytes::from(frame(&[num(1, 1), msg(7, &[len(1, "a"), len(2, "payload")])]));
    let Some(Ok(Numbered { command: Command::Publish { data, .. }, .. })) = decode_next(&mut message.clone())
    else {
        panic!("not a publish command");
    };
    assert!(message.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn malformed_commands_are_refused_with_what_is_wrong() {
    let sub = |fields: &[Vec<u8>]| frame(&[num(1, 1), msg(5, fields)]);
    let fixed = |field: u64| [varint(field * 8 + 5), vec![0; 4]].concat();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (hex("01"), "command is cut off at byte 1"),
        (hex("05 08 01 22 00"), "command is cut off at byte 5"),
        (hex("80"), "command is cut off at byte 1"),
        (hex("ff ff ff ff ff ff ff ff ff 01"), "command is cut off at byte 10"),
        (hex("ff ff ff ff ff ff ff ff ff 02"), "command has a number of more than 64 bits at byte 0"),
        (hex("80 80 80 80 80 80 80 80 80 80 00"), "command has a number of more than 64 bits at byte 0"),
        (hex("01 08"), "command is cut off at byte 2"),
        (hex("02 08 80"), "command is cut off at byte 3"),
        (hex("02 22 01"), "command is cut off at byte 3"),
        (hex("03 0d 00 00"), "command is cut off at byte 4"),
        (hex("03 09 00 00"), "command is cut off at byte 4"),
        (hex("02 00 01"), "command has a field of an impossible number at byte 1"),
        (hex("06 80 80 80 80 10 00"), "command has a field of an impossible number at byte 1"),
        (hex("02 0b 0c"), "command has a field of an unknown type at byte 1"),
        (hex("01 0e"), "command has a field of an unknown type at byte 1"),
        (frame(&[num(1, 1 << 32), msg(11, &[])]), "id is not an unsigned 32-bit integer at byte 1"),
        (frame(&[len(1, "1"), msg(11, &[])]), "id is not an unsigned 32-bit integer"),
        (frame(&[num(1, 5)]), "command asks for nothing that is known at byte 1"),
        (frame(&[num(1, 5), len(2, "x"), len(16, "x")]), "command asks for nothing that is known"),
        (frame(&[msg(4, &[])]), "command without id at byte 1"),
        (frame(&[num(1, 0), msg(7, &[])]), "command without id"),
        (frame(&[num(1, 1), num(4, 1)]), "connect is not a message at byte 3"),
        (frame(&[num(1, 1), msg(11, &[]), fixed(15)]), "sub_refresh is not a message"),
        (frame(&[num(1, 1), msg(4, &[hex("0a 05")])]), "connect is cut off at byte 7"),
        (frame(&[num(1, 1), msg(4, &[len(1, b"\xff")])]), "connect.token is not a valid string at byte 5"),
        (frame(&[num(1, 1), msg(4, &[num(2, 1)])]), "connect.data is not a payload"),
        (frame(&[num(1, 1), msg(4, &[num(3, 1)])]), "connect.subs is not a message"),
        (
            frame(&[num(1, 1), msg(4, &[msg(3, &[len(1, b"\xff")])])]),
            "connect.subs.key is not a valid string",
        ),
        (frame(&[num(1, 1), msg(4, &[msg(3, &[num(2, 1)])])]), "connect.subs.value is not a message"),
        (
            frame(&[num(1, 1), msg(4, &[msg(3, &[msg(2, &[len(7, "1")])])])]),
            "connect.subs.offset is not an unsigned 64-bit integer",
        ),
        (frame(&[num(1, 1), msg(4, &[len(4, b"\xc3\x28")])]), "connect.name is not a valid string"),
        (frame(&[num(1, 1), msg(4, &[fixed(5)])]), "connect.version is not a valid string"),
        (frame(&[num(1, 1), msg(4, &[msg(6, &[num(2, 1)])])]), "connect.headers.value is not a valid string"),
        (sub(&[num(1, 1)]), "subscribe.channel is not a valid string at byte 5"),
        (sub(&[len(3, "1")]), "subscribe.recover is not true or false"),
        (sub(&[num(6, 1)]), "subscribe.epoch is not a valid string"),
        (sub(&[fixed(7)]), "subscribe.offset is not an unsigned 64-bit integer"),
        (sub(&[num(13, 1)]), "subscribe.tf is not a message"),
        (sub(&[msg(13, &[num(6, 1)])]), "subscribe.tf.nodes is not a message"),
        (sub(&[msg(13, &[msg(6, &[len(2, b"\xff")])])]), "subscribe.tf.key is not a valid string"),
        (sub(&[len(14, "1")]), "subscribe.flag is not a 64-bit integer"),
        (sub(&[num(15, 1 << 31)]), "subscribe.type is not a 32-bit integer"),
        (frame(&[num(1, 1), msg(7, &[len(3, "1")])]), "publish.type is not a 32-bit integer"),
        (frame(&[num(1, 1), msg(10, &[num(7, 1 << 31)])]), "history.limit is not a 32-bit integer"),
        (frame(&[num(1, 1), msg(10, &[num(8, 1)])]), "history.since is not a message"),
        (
            frame(&[num(1, 1), msg(10, &[msg(8, &[len(1, "")])])]),
            "history.since.offset is not an unsigned 64-bit integer",
        ),
        (frame(&[num(1, 1), msg(13, &[num(2, 1)])]), "rpc.method is not a valid string"),
        (frame(&[num(1, 1), msg(14, &[num(1, 1)])]), "refresh.token is not a valid string"),
        (frame(&[num(1, 1), msg(15, &[num(2, 1)])]), "sub_refresh.token is not a valid string"),
    ];
    for (message, expected) in table {
        let error = decode_one(&message).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{message:x?}: {error}, not {expected}");
    }
}

#[test]
fn channels_of_a_connect_command_and_nodes_of_a_filter_are_limited() {
    let connect = |count: usize| {
        let subs: Vec<Vec<u8>> = (0..count).map(|i| msg(3, &[len(1, i.to_string())])).collect();
        decode_one(&frame(&[num(1, 1), msg(4, &subs)]))
    };
    let Command::Connect(most) = connect(MAX_SUBS).unwrap().command else { panic!("not a connect") };
    assert_eq!(most.subs.len(), MAX_SUBS);
    assert_eq!(connect(MAX_SUBS + 1).unwrap_err().what, "connect.subs is not a map of at most 1024 channels");

    let nested = |levels: usize| {
        let node = (1..levels).fold(len(1, "not"), |node, _| msg(6, &[node]));
        decode_one(&frame(&[num(1, 1), msg(5, &[msg(13, &[node])])]))
    };
    assert!(nested(MAX_FILTER_DEPTH).is_ok());
    let error = nested(MAX_FILTER_DEPTH + 1).unwrap_err();
    assert_eq!(error.what, "subscribe.tf is nested deeper than 32 levels");
    assert_eq!(nested(100_000).unwrap_err().what, error.what);

    let wide =
        |nodes: usize| decode_one(&frame(&[num(1, 1), msg(5, &[msg(13, &vec![msg(6, &[]); nodes - 1])])]));
    assert!(wide(MAX_FILTER_NODES).is_ok());
    assert_eq!(wide(MAX_FILTER_NODES + 1).unwrap_err().what, "subscribe.tf has more than 1024 nodes");
}

#[test]
fn an_error_in_a_later_command_says_where_it_is_in_what_was_left() {
    let mut message = Bytes::from([frame(&[num(1, 1), msg(11, &[])]), hex("02 0b 0c")].concat());
    assert!(decode_next(&mut message).unwrap().is_ok());
    let error = decode_next(&mut message).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "command has a field of an unknown type at byte 1");
    assert_eq!(decode_next(&mut message), None);
}

// ---- replies and pushes

const UUID: &str = "01234567-89ab-4def-8123-456789abcdef";

fn client() -> ClientId {
    ClientId::parse(UUID).unwrap()
}

fn info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: "7".into(),
        client: client(),
        conn_info: bytes("{}"),
        chan_info: bytes("[2]"),
    })
}

fn info_fields() -> Vec<Vec<u8>> {
    vec![len(1, "7"), len(2, UUID), len(3, "{}"), len(4, "[2]")]
}

fn publication(data: &'static [u8], offset: u64) -> Publication {
    Publication {
        offset,
        data: Bytes::from_static(data),
        info: None,
        tags: vec![],
        except: None,
        is_json: true,
    }
}

fn recovered() -> SubscribeResult {
    SubscribeResult {
        ttl_seconds: Some(60),
        recoverable: true,
        positioned: true,
        position: Some(at(7)),
        was_recovering: true,
        recovered: true,
        publications: vec![Arc::new(publication(b"1", 8)), Arc::new(publication(b"\xff\n", 300))],
        data: bytes("d"),
        delta: false,
    }
}

fn recovered_fields() -> Vec<Vec<u8>> {
    vec![
        num(1, 1),
        num(2, 60),
        num(3, 1),
        len(6, "abcdefgh"),
        num(9, 7),
        msg(7, &[len(4, "1"), num(6, 8)]),
        msg(7, &[len(4, b"\xff\n"), num(6, 300)]),
        num(8, 1),
        num(10, 1),
        len(11, "d"),
        num(12, 1),
    ]
}

fn connect_result() -> ConnectResult {
    ConnectResult {
        client: client(),
        version: "0.1.0",
        ttl_seconds: Some(3600),
        data: bytes("data"),
        subs: vec![("a".into(), recovered()), ("b".into(), SubscribeResult::default())],
        ping_seconds: 25,
        pong: true,
        session: "s".into(),
        node: "n".into(),
        resumed: false,
        lost: false,
    }
}

fn subs(field: u64) -> Vec<u8> {
    [msg(field, &[len(1, "a"), msg(2, &recovered_fields())]), msg(field, &[len(1, "b"), msg(2, &[])])]
        .concat()
}

#[test]
fn every_reply_has_its_bytes() {
    let empty = ConnectResult {
        version: "",
        ttl_seconds: None,
        data: Bytes::new(),
        subs: vec![],
        ping_seconds: 0,
        pong: false,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
        ..connect_result()
    };
    let table: Vec<(u32, Reply, Vec<Vec<u8>>)> = vec![
        (3, ErrorCode::PermissionDenied.into(), vec![msg(2, &[num(1, 103), len(2, "permission denied")])]),
        (
            3,
            ErrorCode::Internal.into(),
            vec![msg(2, &[num(1, 100), len(2, "internal server error"), num(3, 1)])],
        ),
        (1, Reply::Connect(Box::new(empty)), vec![msg(5, &[len(1, UUID)])]),
        (
            1,
            Reply::Connect(Box::new(connect_result())),
            vec![msg(
                5,
                &[
                    len(1, UUID),
                    len(2, "0.1.0"),
                    num(3, 1),
                    num(4, 3600),
                    len(5, "data"),
                    subs(6),
                    num(7, 25),
                    num(8, 1),
                    len(9, "s"),
                    len(10, "n"),
                ],
            )],
        ),
        (2, Reply::Subscribe(Box::default()), vec![msg(6, &[])]),
        (2, Reply::Subscribe(Box::new(recovered())), vec![msg(6, &recovered_fields())]),
        (
            2,
            Reply::Subscribe(Box::new(SubscribeResult {
                recovered: false,
                delta: true,
                ttl_seconds: None,
                ..recovered()
            })),
            vec![msg(
                6,
                &[num(3, 1), len(6, "abcdefgh"), num(9, 7), num(10, 1), len(11, "d"), num(12, 1), num(13, 1)],
            )],
        ),
        (5, Reply::Unsubscribe, vec![msg(7, &[])]),
        (6, Reply::Publish, vec![msg(8, &[])]),
        (7, Reply::Presence(vec![]), vec![msg(9, &[])]),
        (7, Reply::Presence(vec![info()]), vec![msg(9, &[msg(1, &[len(1, UUID), msg(2, &info_fields())])])]),
        (
            8,
            Reply::PresenceStats { num_clients: 300, num_users: 2 },
            vec![msg(10, &[num(1, 300), num(2, 2)])],
        ),
        (9, Reply::History { publications: vec![], top: at(0) }, vec![msg(11, &[len(2, "abcdefgh")])]),
        (
            9,
            Reply::History {
                publications: vec![Arc::new(publication(b"x", 4)), Arc::new(publication(b"x", 4))],
                top: at(u64::MAX),
            },
            vec![msg(
                11,
                &[
                    msg(1, &[len(4, "x"), num(6, 4)]),
                    msg(1, &[len(4, "x"), num(6, 4)]),
                    len(2, "abcdefgh"),
                    num(3, u64::MAX),
                ],
            )],
        ),
        (10, Reply::Rpc { data: Bytes::new() }, vec![msg(13, &[])]),
        (10, Reply::Rpc { data: bytes("[1,\r\n2]") }, vec![msg(13, &[len(1, "[1,\r\n2]")])]),
        (
            11,
            Reply::Refresh { client: client(), version: "v", ttl_seconds: Some(9) },
            vec![msg(14, &[len(1, UUID), len(2, "v"), num(3, 1), num(4, 9)])],
        ),
        (
            11,
            Reply::Refresh { client: client(), version: "v", ttl_seconds: None },
            vec![msg(14, &[len(1, UUID), len(2, "v")])],
        ),
        (12, Reply::SubRefresh { ttl_seconds: None }, vec![msg(15, &[])]),
        (u32::MAX, Reply::SubRefresh { ttl_seconds: Some(9) }, vec![msg(15, &[num(1, 1), num(2, 9)])]),
    ];
    for (id, reply, fields) in table {
        let mut out = b"before".to_vec();
        encode_reply(id, &reply, &mut out);
        let expected = frame(&[vec![num(1, id.into())], fields].concat());
        assert_eq!(out, [b"before".to_vec(), expected].concat(), "{reply:?}");
    }
}

#[test]
fn every_push_has_its_bytes() {
    let with_all = Publication {
        info: Some(info()),
        tags: vec![("a".into(), "1".into()), ("b".into(), String::new())],
        ..publication(b"{\"a\":\n1}", 7)
    };
    let table: Vec<(&str, Push, Vec<u8>)> = vec![
        ("c", Push::Publication(Arc::new(publication(b"", 0))), msg(4, &[])),
        (
            "c",
            Push::Publication(Arc::new(with_all)),
            msg(
                4,
                &[
                    len(4, "{\"a\":\n1}"),
                    msg(5, &info_fields()),
                    num(6, 7),
                    msg(7, &[len(1, "a"), len(2, "1")]),
                    msg(7, &[len(1, "b")]),
                ],
            ),
        ),
        (
            "c",
            Push::Publication(Arc::new(publication(&[b'x'; 20_000], 0))),
            msg(4, &[len(4, [b'x'; 20_000])]),
        ),
        ("c", Push::Join(info()), msg(5, &[msg(1, &info_fields())])),
        ("c", Push::Leave(info()), msg(6, &[msg(1, &info_fields())])),
        ("c", Push::Unsubscribe { code: 2500, reason: "why" }, msg(7, &[num(2, 2500), len(3, "why")])),
        ("c", Push::Subscribe(Box::default()), msg(9, &[])),
        (
            "c",
            Push::Subscribe(Box::new(recovered())),
            msg(9, &[num(1, 1), len(4, "abcdefgh"), num(5, 7), num(6, 1), len(7, "d")]),
        ),
        (
            "",
            Push::Connect(Box::new(connect_result())),
            msg(
                10,
                &[
                    len(1, UUID),
                    len(2, "0.1.0"),
                    len(3, "data"),
                    subs(4),
                    num(5, 1),
                    num(6, 3600),
                    num(7, 25),
                    num(8, 1),
                    len(9, "s"),
                    len(10, "n"),
                ],
            ),
        ),
        ("", Push::Disconnect(CloseReason::Drain.into()), msg(11, &[num(1, 3001), len(2, "shutdown")])),
        (
            "",
            Push::Disconnect(Close::custom(CloseReason::ForceDisconnect, 4501, "be gone\n".into())),
            msg(11, &[num(1, 4501), len(2, "be gone\n")]),
        ),
        ("", Push::Refresh { ttl_seconds: None }, msg(12, &[])),
        ("", Push::Refresh { ttl_seconds: Some(9) }, msg(12, &[num(1, 1), num(2, 9)])),
    ];
    for (channel, push, member) in table {
        let fields = if channel.is_empty() { member } else { [len(2, channel), member].concat() };
        let mut out = Vec::new();
        encode_push(channel, &push, &mut out);
        assert_eq!(out, frame(&[len(4, &fields)]), "{push:?}");
        out.clear();
        encode_bare_push(channel, &push, &mut out);
        assert_eq!(out, frame(&[fields]), "{push:?}");
    }
    assert_eq!(PING, hex("00"));
}

#[test]
fn a_publication_is_these_very_bytes() {
    let mut out = Vec::new();
    encode_push("c", &Push::Publication(Arc::new(publication(b"{}", 300))), &mut out);
    assert_eq!(out, hex("0e 22 0c 12 01 63 22 07 22 02 7b 7d 30 ac 02"));
}

// ---- both encodings

/// A command as JSON and as Protobuf, with payloads that are JSON.
fn written() -> impl Strategy<Value = (Value, Vec<u8>)> {
    let text = || any::<String>();
    let sub = (
        (text(), text(), any::<[bool; 4]>(), any::<i64>(), any::<i32>()),
        (any::<u64>(), prop::sample::select(vec!["", "_", "abcdefgh"]), prop::option::of(filter_node()), text()),
    )
        .prop_map(|((token, data, flags, flag, kind), (offset, epoch, tf, delta))| {
            let mut value = json!({
                "token": token, "data": data, "recover": flags[0], "positioned": flags[1], "recoverable": flags[2],
                "join_leave": flags[3], "flag": flag, "type": kind, "offset": offset, "epoch": epoch, "delta": delta,
            });
            let mut fields = vec![
                len(2, &token), num(3, flags[0].into()), len(6, epoch), num(7, offset), len(8, json!(data).to_string()),
                num(9, flags[1].into()), num(10, flags[2].into()), num(11, flags[3].into()), len(12, &delta),
                num(14, flag as u64), num(15, i64::from(kind) as u64),
            ];
            if let Some((tf, tf_fields)) = tf {
                value["tf"] = tf;
                fields.push(len(13, tf_fields));
            }
            (value, fields.concat())
        })
        .boxed();
    let subscribe = (text(), sub.clone()).prop_map(|(channel, (mut value, fields))| {
        value["channel"] = json!(channel);
        ("subscribe", value, 5, [len(1, channel), fields].concat())
    });
    let headers = prop::collection::btree_map(text(), text(), 0..3);
    let connect = (text(), text(), text(), headers, prop::collection::vec((text(), sub), 0..3)).prop_map(
        |(token, data, name, headers, subs)| {
            let map: Map<String, Value> =
                subs.iter().map(|(channel, (value, _))| (channel.clone(), value.clone())).collect();
            // In the order of the map, which is how they come in JSON.
            let subs = map.keys().map(|channel| {
                let (_, (_, fields)) = subs.iter().rfind(|(other, _)| other == channel).unwrap();
                msg(3, &[len(1, channel), len(2, fields)])
            });
            let entries = headers.iter().map(|(key, value)| msg(6, &[len(1, key), len(2, value)]));
            let fields = [
                len(1, &token),
                len(2, json!(data).to_string()),
                len(4, &name),
                entries.collect::<Vec<_>>().concat(),
                subs.collect::<Vec<_>>().concat(),
            ];
            let value = json!({"token": token, "data": data, "name": name, "headers": headers, "subs": map});
            ("connect", value, 4, fields.concat())
        },
    );
    let small = (0..9usize, text(), text(), any::<i32>(), any::<u64>(), any::<bool>()).prop_map(
        |(which, a, b, kind, offset, reverse)| {
            let payload = json!([a]);
            let raw = payload.to_string();
            let signed = i64::from(kind) as u64;
            match which {
                0 => ("unsubscribe", json!({"channel": a}), 6, len(1, a)),
                1 => (
                    "publish",
                    json!({"channel": b, "data": payload, "type": kind}),
                    7,
                    [len(1, b), len(2, raw), num(3, signed)].concat(),
                ),
                2 => ("presence", json!({"channel": a}), 8, len(1, a)),
                3 => ("presence_stats", json!({"channel": a}), 9, len(1, a)),
                4 => (
                    "history",
                    json!({"channel": a, "limit": kind, "since": {"offset": offset, "epoch": b}, "reverse": reverse}),
                    10,
                    [len(1, a), num(7, signed), msg(8, &[num(1, offset), len(2, b)]), num(9, reverse.into())].concat(),
                ),
                5 => ("send", json!({"data": payload}), 12, len(1, raw)),
                6 => ("rpc", json!({"method": b, "data": payload}), 13, [len(1, raw), len(2, b)].concat()),
                7 => ("refresh", json!({"token": a}), 14, len(1, a)),
                _ => (
                    "sub_refresh",
                    json!({"channel": a, "token": b, "type": kind}),
                    15,
                    [len(1, a), len(2, b), num(3, signed)].concat(),
                ),
            }
        },
    );
    (0..3u32, prop_oneof![2 => subscribe, 1 => connect, 4 => small]).prop_map(
        |(id, (name, value, field, fields))| {
            (json!({"id": id, name: value}), frame(&[num(1, id.into()), len(field, fields)]))
        },
    )
}

fn filter_node() -> impl Strategy<Value = (Value, Vec<u8>)> {
    let leaf = (any::<String>(), any::<String>(), prop::collection::vec(any::<String>(), 0..3)).prop_map(
        |(key, val, vals)| {
            let fields =
                [len(2, &key), len(3, "eq"), len(4, &val), vals.iter().flat_map(|val| len(5, val)).collect()];
            (json!({"key": key, "cmp": "eq", "val": val, "vals": vals}), fields.concat())
        },
    );
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(|nodes| {
            let (values, fields): (Vec<Value>, Vec<Vec<u8>>) = nodes.into_iter().unzip();
            let nodes: Vec<u8> = fields.iter().flat_map(|fields| len(6, fields)).collect();
            (json!({"op": "or", "nodes": values}), [len(1, "or"), nodes].concat())
        })
    })
}

proptest! {
    #[test]
    fn a_command_means_the_same_in_both_encodings((value, message) in written()) {
        let mut text = Bytes::from(value.to_string());
        let in_json = json::decode_next(&mut text).unwrap();
        let in_protobuf = decode_one(&message);
        match (in_json, in_protobuf) {
            (Err(a), Err(b)) => prop_assert_eq!(a.what, b.what),
            (a, b) => prop_assert_eq!(a, b),
        }
    }

    #[test]
    fn every_cut_of_a_command_is_an_error((_, message) in written(), cut in any::<prop::sample::Index>()) {
        let outcomes = decode_all(&message[..1 + cut.index(message.len() - 1)]);
        prop_assert_eq!(outcomes.len(), 1);
        prop_assert!(outcomes[0].as_ref().unwrap_err().what.ends_with("is cut off"));
    }

    #[test]
    fn a_mutated_command_never_panics(
        (_, mut message) in written(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (index, byte) in mutations {
            let at = index.index(message.len());
            message[at] = byte;
        }
        for outcome in decode_all(&message) {
            if let Err(error) = outcome {
                prop_assert!(error.at <= message.len());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&message);
    }

    #[test]
    fn numbers_of_any_size_are_written(offset in any::<u64>(), data in prop::collection::vec(any::<u8>(), 1..300)) {
        let mut out = Vec::new();
        let publication = Publication { data: data.clone().into(), ..publication(b"", offset) };
        encode_bare_push("c", &Push::Publication(Arc::new(publication)), &mut out);
        let offset = if offset == 0 { vec![] } else { num(6, offset) };
        prop_assert_eq!(out, frame(&[len(2, "c"), msg(4, &[len(4, data), offset])]));
    }
}
