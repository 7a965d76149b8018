//! Promises of `centrifuge::protobuf`.
//!
//! A message is taken apart to its end whatever it holds; payloads are its own bytes; two messages in a row are
//! their commands one after the other. A command that is written field by field decodes to what it is in JSON.
//! What the server says is one message behind its length, and a push is the bare push in a reply.

use crate::centrifuge_json::{command, payload, written};
use crate::input::Input;
use bytes::Bytes;
use longwire_protocol::centrifuge::json;
use longwire_protocol::centrifuge::protobuf::{
    DecodeError, MAX_SUBS, decode_connect, decode_emulation, decode_next, encode_bare_push, encode_push,
    encode_reply,
};
use longwire_protocol::command::{Command, Numbered, Subscribe};
use longwire_protocol::message::{
    ClientId, ClientInfo, ConnectResult, Publication, Push, Reply, SubscribeResult,
};
use longwire_protocol::{Epoch, Position, Since, fossil};
use std::sync::Arc;

/// Takes the data as a message, then as what to make commands, replies and pushes of.
pub fn run(data: &[u8]) {
    hostile(data);
    faithful(Input::new(data));
    said(Input::new(data));
}

type Decoded = (Vec<Numbered>, Option<DecodeError>);

fn decode_all(message: &[u8]) -> Decoded {
    let mut message = Bytes::copy_from_slice(message);
    let mut commands = Vec::new();
    loop {
        let before = message.clone();
        match decode_next(&mut message) {
            None => {
                assert!(message.is_empty());
                return (commands, None);
            }
            Some(Ok(numbered)) => {
                assert!(message.len() < before.len(), "a command of no bytes");
                is_command(&before[..before.len() - message.len()], &numbered);
                commands.push(numbered);
            }
            Some(Err(error)) => {
                assert!(message.is_empty(), "something may be taken after an error");
                is_error(&error, &before);
                return (commands, Some(error));
            }
        }
    }
}

fn is_error(error: &DecodeError, message: &[u8]) {
    assert!(error.at <= message.len(), "{error}");
    assert!(!error.what.is_empty() && error.what.len() < 100, "{error}");
}

fn is_command(message: &[u8], numbered: &Numbered) {
    let is_own = |data: &Bytes| {
        assert!(data.is_empty() || message.as_ptr_range().contains(&data.as_ptr()), "a payload was copied");
    };
    match &numbered.command {
        Command::Pong => assert_eq!(numbered.id, 0),
        Command::Send { data } => is_own(data),
        command => {
            assert_ne!(numbered.id, 0, "{command:?} without an id");
            match command {
                Command::Connect(connect) => {
                    is_own(&connect.data);
                    assert!(connect.subs.len() <= MAX_SUBS);
                    connect.subs.iter().for_each(|sub| is_own(&sub.data));
                }
                Command::Subscribe(subscribe) => is_own(&subscribe.data),
                Command::Publish { data, .. } | Command::Rpc { data, .. } => is_own(data),
                _ => {}
            }
        }
    }
}

fn hostile(data: &[u8]) {
    let whole = decode_all(data);
    if whole.1.is_none() {
        let twice = decode_all(&[data, data].concat());
        assert_eq!(twice, ([&whole.0[..], &whole.0[..]].concat(), None));
    }
    let message = Bytes::copy_from_slice(data);
    match decode_connect(&message) {
        Ok(connect) => {
            let command = Numbered { id: 1, command: Command::Connect(Box::new(connect)) };
            let framed = frame(&[num(1, 1), len(4, data)].concat());
            assert_eq!(decode_all(&framed), (vec![command], None), "alone it means something else");
        }
        Err(error) => is_error(&error, data),
    }
    if let Err(error) = decode_emulation(&message) {
        is_error(&error, data);
    }
}

fn faithful(mut input: Input<'_>) {
    let mut message = Vec::new();
    let mut in_json = Vec::new();
    for _ in 0..1 + input.byte() % 4 {
        let numbered = command(&mut input);
        message.extend_from_slice(&encoded(&numbered));
        let mut text = Bytes::from(written(&numbered).to_string());
        in_json.push(json::decode_next(&mut text).expect("a command").expect("a valid command"));
    }
    let (decoded, error) = decode_all(&message);
    assert_eq!(error, None, "{message:x?}");
    // A payload of no bytes is absent in both.
    assert_eq!(decoded, in_json);
    let cut = usize::from(input.short()) % message.len();
    let (some, _) = decode_all(&message[..cut]);
    assert_eq!(some[..], decoded[..some.len()], "a cut changes what came before");
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push((number % 0x80) as u8 + 0x80);
        number /= 0x80;
    }
    out.push(number as u8);
    out
}

fn num(field: u64, number: impl Into<i128>) -> Vec<u8> {
    [varint(field * 8), varint(number.into() as u64)].concat()
}

fn len(field: u64, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    [varint(field * 8 + 2), frame(bytes.as_ref())].concat()
}

fn frame(message: &[u8]) -> Vec<u8> {
    [varint(message.len() as u64), message.to_vec()].concat()
}

/// A command as an SDK would write it.
fn encoded(numbered: &Numbered) -> Vec<u8> {
    let (member, fields) = match &numbered.command {
        Command::Pong => return frame(b""),
        Command::Connect(connect) => {
            let subs = connect
                .subs
                .iter()
                .map(|sub| len(3, [len(1, &sub.channel), len(2, subscribe_fields(sub))].concat()));
            let headers =
                connect.headers.iter().map(|(key, value)| len(6, [len(1, key), len(2, value)].concat()));
            let fields = [
                len(1, &connect.token),
                len(2, &connect.data),
                len(4, &connect.name),
                len(5, &connect.version),
                subs.collect::<Vec<_>>().concat(),
                headers.collect::<Vec<_>>().concat(),
            ];
            (4, fields.concat())
        }
        Command::Subscribe(subscribe) => {
            (5, [len(1, &subscribe.channel), subscribe_fields(subscribe)].concat())
        }
        Command::Unsubscribe { channel } => (6, len(1, channel)),
        Command::Publish { channel, data, .. } => (7, [len(1, channel), len(2, data)].concat()),
        Command::Presence { channel } => (8, len(1, channel)),
        Command::PresenceStats { channel } => (9, len(1, channel)),
        Command::History(ask) => {
            let since = ask.since.map(|since| len(8, [num(1, since.offset), len(2, epoch(since))].concat()));
            let fields =
                [len(1, &ask.channel), num(7, ask.limit), since.unwrap_or_default(), num(9, ask.reverse)];
            (10, fields.concat())
        }
        Command::Ping => (11, Vec::new()),
        Command::Send { data } => (12, len(1, data)),
        Command::Message { .. } | Command::Queue(_) | Command::Disconnect => {
            unreachable!("the dialect has none of these")
        }
        Command::Rpc { method, data } => (13, [len(1, data), len(2, method)].concat()),
        Command::Refresh { token } => (14, len(1, token)),
        Command::SubRefresh { channel, token, .. } => (15, [len(1, channel), len(2, token)].concat()),
    };
    frame(&[num(1, numbered.id), len(member, fields)].concat())
}

fn epoch(since: Since) -> String {
    since.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}

fn subscribe_fields(ask: &Subscribe) -> Vec<u8> {
    let since = ask.recover.map(|since| [len(6, epoch(since)), num(7, since.offset)].concat());
    let tf = ask.tags_filter.as_ref().map(|node| len(13, len(1, &node.op)));
    let fields = [
        len(2, &ask.token),
        num(3, ask.recover.is_some()),
        since.unwrap_or_default(),
        len(8, &ask.data),
        num(9, ask.positioned),
        num(10, ask.recoverable),
        num(11, ask.join_leave),
        len(12, &ask.delta),
        tf.unwrap_or_default(),
        num(14, if ask.reject_unrecovered { 3 } else { 1 }),
        num(15, ask.kind),
    ];
    fields.concat()
}

/// Replies and pushes of arbitrary content.
fn said(mut input: Input<'_>) {
    let info = Arc::new(ClientInfo {
        user: input.text(20).into(),
        client: ClientId(u128::from(input.number()) << 64 | u128::from(input.number())),
        conn_info: payload(&mut input),
        chan_info: payload(&mut input),
    });
    let position = Position { offset: input.number(), epoch: Epoch::from_random(input.number()) };
    let publication = Arc::new(Publication {
        offset: input.number(),
        data: Bytes::copy_from_slice(input.bytes(300)),
        info: input.flag().then(|| info.clone()),
        tags: (0..input.byte() % 3).map(|i| (format!("{i}{}", input.text(10)), input.text(10))).collect(),
        except: None,
        is_json: true,
    });
    let channel = input.text(30);
    let base = input.flag().then(|| Bytes::copy_from_slice(input.bytes(300)));
    let result = SubscribeResult {
        ttl_seconds: input.flag().then_some(60),
        recoverable: input.flag(),
        positioned: input.flag(),
        position: input.flag().then_some(position),
        was_recovering: input.flag(),
        recovered: input.flag(),
        publications: vec![publication.clone(); usize::from(input.byte() % 3)],
        data: payload(&mut input),
        delta: input.flag(),
    };
    let connect = ConnectResult {
        client: info.client,
        version: "test",
        ttl_seconds: None,
        data: payload(&mut input),
        subs: vec![(channel.clone(), result.clone())],
        ping_seconds: 25,
        pong: input.flag(),
        session: input.text(10),
        node: String::new(),
        resumed: false,
        lost: false,
    };

    let pub_fields = push(&channel, &Push::Publication(publication.clone()), 4);
    assert_eq!(bytes_of(&pub_fields, 4), &publication.data[..]);
    assert_eq!(number_of(&pub_fields, 6), publication.offset);
    let delta_fields =
        push(&channel, &Push::Delta { publication: publication.clone(), base: base.clone() }, 4);
    let sent = bytes_of(&delta_fields, 4);
    let undone = match number_of(&delta_fields, 8) {
        0 => sent.to_vec(),
        _ => fossil::apply(&base.expect("a delta has a base"), sent, 300).expect("a delta that was made"),
    };
    assert_eq!(undone, &publication.data[..]);
    for (member, change) in [(5, Push::Join(info.clone())), (6, Push::Leave(info.clone()))] {
        let fields = push(&channel, &change, member);
        assert_eq!(bytes_of(&read(bytes_of(&fields, 1)), 1), info.user.as_bytes());
    }
    push(&channel, &Push::Subscribe(Box::new(result.clone())), 9);
    push(&channel, &Push::Connect(Box::new(connect.clone())), 10);

    let id = u32::from(input.short());
    let fields = reply(id, &Reply::Subscribe(Box::new(result.clone())), 6);
    let publications = fields.iter().filter(|(number, _)| *number == 7).count();
    assert_eq!(publications, if result.recovered { result.publications.len() } else { 0 });
    let fields = reply(id, &Reply::Connect(Box::new(connect)), 5);
    let sub = read(bytes_of(&fields, 6));
    assert_eq!(bytes_of(&sub, 1), channel.as_bytes());
    assert_eq!(number_of(&read(bytes_of(&sub, 2)), 8), u64::from(result.recovered));
    let fields = reply(id, &Reply::Presence(vec![info.clone()]), 9);
    assert_eq!(bytes_of(&read(bytes_of(&fields, 1)), 1), info.client.to_string().as_bytes());
    let fields = reply(id, &Reply::History { publications: vec![publication], top: position }, 11);
    assert_eq!(read(bytes_of(&fields, 1)), pub_fields, "one form of a publication");
    assert_eq!(number_of(&fields, 3), position.offset);
}

/// The fields of a message: numbers, or else bytes.
type Fields = Vec<(u64, Result<u64, Vec<u8>>)>;

fn read(mut message: &[u8]) -> Fields {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = take_varint(&mut message);
        let number = take_varint(&mut message);
        let value = match tag & 7 {
            0 => Ok(number),
            2 => Err(message.split_off(..number as usize).expect("as many bytes as announced").to_vec()),
            other => panic!("a field of type {other}"),
        };
        fields.push((tag >> 3, value));
    }
    fields
}

fn take_varint(message: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *message.split_off_first().expect("a whole number");
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

fn value_of(fields: &Fields, number: u64) -> Option<&Result<u64, Vec<u8>>> {
    fields.iter().find(|(other, _)| *other == number).map(|(_, value)| value)
}

fn bytes_of(fields: &Fields, number: u64) -> &[u8] {
    value_of(fields, number).map_or(&[], |value| value.as_ref().expect_err("bytes"))
}

fn number_of(fields: &Fields, number: u64) -> u64 {
    value_of(fields, number).map_or(0, |value| *value.as_ref().expect("a number"))
}

/// What a push says in its member.
fn push(channel: &str, push: &Push, member: u64) -> Fields {
    let (mut out, mut bare) = (Vec::new(), Vec::new());
    encode_push(channel, push, &mut out);
    encode_bare_push(channel, push, &mut bare);
    let bare = unframed(&bare);
    assert_eq!(unframed(&out), len(4, bare), "a push is the bare push in a reply");
    let fields = read(bare);
    assert_eq!(bytes_of(&fields, 2), channel.as_bytes());
    assert!(value_of(&fields, member).is_some(), "the member is missing");
    read(bytes_of(&fields, member))
}

fn reply(id: u32, reply: &Reply, member: u64) -> Fields {
    let mut out = Vec::new();
    encode_reply(id, reply, &mut out);
    let fields = read(unframed(&out));
    assert_eq!(number_of(&fields, 1), u64::from(id));
    assert!(value_of(&fields, member).is_some(), "the member is missing");
    read(bytes_of(&fields, member))
}

fn unframed(mut out: &[u8]) -> &[u8] {
    let len = take_varint(&mut out);
    assert_eq!(len, out.len() as u64, "the length is wrong");
    out
}
