//! The JSON encoding of the centrifuge dialect against the protocol's shapes, text by text.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::centrifuge::json::{
    DecodeError, MAX_DEPTH, MAX_SUBS, PING, decode_next, encode_bare_push, encode_push, encode_reply,
};
use longwire_protocol::command::{Connect, HistoryRequest, Numbered, Subscribe};
use longwire_protocol::message::{ClientId, ClientInfo, ConnectResult, SubscribeResult, unsubscribe};
use longwire_protocol::{
    Close, CloseReason, Command, Epoch, ErrorCode, Position, Publication, Push, Reply, Since,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn decode_one(text: &str) -> Result<Numbered, DecodeError> {
    let mut message = Bytes::copy_from_slice(text.as_bytes());
    let first = decode_next(&mut message).expect("the text is not blank");
    assert!(message.is_empty() || first.is_ok(), "an error must empty the message");
    first
}

fn decode_all(message: &[u8]) -> Vec<Result<Numbered, DecodeError>> {
    let mut message = Bytes::copy_from_slice(message);
    std::iter::from_fn(|| decode_next(&mut message)).collect()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn epoch() -> Epoch {
    Epoch::parse("abcdefgh")
}

fn at(offset: u64) -> Position {
    Position { offset, epoch: epoch() }
}

fn subscribe(channel: &str) -> Subscribe {
    Subscribe { channel: channel.into(), ..Subscribe::default() }
}

// ---- commands

#[test]
fn every_command_is_read() {
    let table: Vec<(&str, u32, Command)> = vec![
        ("{}", 0, Command::Pong),
        ("  {  }  ", 0, Command::Pong),
        (r#"{"id":0}"#, 0, Command::Pong),
        (r#"{"id":null,"connect":null}"#, 0, Command::Pong),
        (r#"{"something":[1,{"id":5}]}"#, 0, Command::Pong),
        (r#"{"id":1,"connect":{}}"#, 1, Command::Connect(Box::default())),
        (
            r#"{"connect":{"token":"t.o.k","data":{"a":[1,2]},"name":"js","version":"5.7","headers":{"x":"y","a":"z"},"flag":1},"id":1}"#,
            1,
            Command::Connect(Box::new(Connect {
                token: "t.o.k".into(),
                data: bytes(r#"{"a":[1,2]}"#),
                name: "js".into(),
                version: "5.7".into(),
                headers: vec![("a".into(), "z".into()), ("x".into(), "y".into())],
                subs: vec![],
                ..Connect::default()
            })),
        ),
        (
            r#"{"id":2,"connect":{"subs":{"a":{"recover":true,"offset":7,"epoch":"abcdefgh"},"b":{},"c":null}}}"#,
            2,
            Command::Connect(Box::new(Connect {
                subs: vec![Subscribe { recover: Some(at(7).into()), ..subscribe("a") }, subscribe("b")],
                ..Connect::default()
            })),
        ),
        (
            r#"{"id":2,"connect":{"subs":{"a":{"recover":true},"a":{"token":"t"}}}}"#,
            2,
            Command::Connect(Box::new(Connect {
                subs: vec![Subscribe { token: "t".into(), ..subscribe("a") }],
                ..Connect::default()
            })),
        ),
        (r#"{"id":3,"subscribe":{"channel":"news"}}"#, 3, Command::Subscribe(Box::new(subscribe("news")))),
        (
            r#"{"id":3,"subscribe":{"channel":"news","token":"t","recover":true,"epoch":"abcdefgh","offset":18446744073709551615,"data":"x","positioned":true,"recoverable":true,"join_leave":true,"delta":"fossil","tf":{"key":"k","cmp":"eq","val":"v"},"flag":3,"type":1,"phase":2,"cursor":"c","limit":5,"asc":true}}"#,
            3,
            Command::Subscribe(Box::new(Subscribe {
                channel: "news".into(),
                token: "t".into(),
                data: bytes(r#""x""#),
                recover: Some(at(u64::MAX).into()),
                positioned: true,
                recoverable: true,
                join_leave: true,
                delta: "fossil".into(),
                tags_filter: Some(Box::new(longwire_protocol::filter::Node {
                    key: "k".into(),
                    cmp: "eq".into(),
                    val: "v".into(),
                    ..Default::default()
                })),
                reject_unrecovered: true,
                kind: 1,
            })),
        ),
        (
            r#"{"id":4,"subscribe":{"channel":"a","recover":true,"flag":1}}"#,
            4,
            Command::Subscribe(Box::new(Subscribe { recover: Some(Since::default()), ..subscribe("a") })),
        ),
        (
            r#"{"id":4,"subscribe":{"channel":"a","recover":true,"epoch":"_"}}"#,
            4,
            Command::Subscribe(Box::new(Subscribe {
                recover: Some(Since { offset: 0, epoch: Some(Epoch::FOREIGN) }),
                ..subscribe("a")
            })),
        ),
        (
            r#"{"id":4,"subscribe":{"channel":"a","recover":false,"offset":5,"epoch":"abcdefgh"}}"#,
            4,
            Command::Subscribe(Box::new(subscribe("a"))),
        ),
        (
            r#"{"id":4,"subscribe":{"channel":"a","token":null,"data":null,"tf":null,"flag":null,"recover":null,"type":null}}"#,
            4,
            Command::Subscribe(Box::new(subscribe("a"))),
        ),
        (
            r#"{"id":4,"subscribe":{"channel":"a","channel":"b"}}"#,
            4,
            Command::Subscribe(Box::new(subscribe("b"))),
        ),
        (
            r#"{"id":4,"subscribe":{"ch\u0061nnel":"caf\u00e9 \ud83d\ude00 \"\\\/"}}"#,
            4,
            Command::Subscribe(Box::new(subscribe("caf\u{e9} \u{1f600} \"\\/"))),
        ),
        (r#"{"id":5,"unsubscribe":{"channel":"a"}}"#, 5, Command::Unsubscribe { channel: "a".into() }),
        (
            r#"{"id":6,"publish":{"channel":"a","data":{"text":"}{][\"\\"}}}"#,
            6,
            Command::Publish {
                channel: "a".into(),
                data: bytes(r#"{"text":"}{][\"\\"}"#),
                kind: 0,
                tags: Vec::new(),
            },
        ),
        (
            "{\"id\":6,\"publish\":{\"channel\":\"a\",\"data\": \n {\r\n\"x\" : 1 } \t }}",
            6,
            Command::Publish {
                channel: "a".into(),
                data: bytes("{\r\n\"x\" : 1 }"),
                kind: 0,
                tags: Vec::new(),
            },
        ),
        (
            r#"{"id":6,"publish":{"channel":"a"}}"#,
            6,
            Command::Publish { channel: "a".into(), data: Bytes::new(), kind: 0, tags: Vec::new() },
        ),
        (
            r#"{"id":6,"publish":{"channel":"a","data":-1.5e3,"key":"k","removed":true}}"#,
            6,
            Command::Publish { channel: "a".into(), data: bytes("-1.5e3"), kind: 0, tags: Vec::new() },
        ),
        (r#"{"id":7,"presence":{"channel":"a"}}"#, 7, Command::Presence { channel: "a".into() }),
        (r#"{"id":8,"presence_stats":{"channel":"a"}}"#, 8, Command::PresenceStats { channel: "a".into() }),
        (
            r#"{"id":9,"history":{"channel":"a"}}"#,
            9,
            Command::History(HistoryRequest { channel: "a".into(), ..HistoryRequest::default() }),
        ),
        (
            r#"{"id":9,"history":{"channel":"a","limit":-1,"since":{"offset":3,"epoch":"abcdefgh"},"reverse":true}}"#,
            9,
            Command::History(HistoryRequest {
                channel: "a".into(),
                limit: -1,
                since: Some(at(3).into()),
                reverse: true,
            }),
        ),
        (
            r#"{"id":9,"history":{"channel":"a","since":{}}}"#,
            9,
            Command::History(HistoryRequest {
                channel: "a".into(),
                since: Some(Since::default()),
                ..HistoryRequest::default()
            }),
        ),
        (r#"{"id":10,"ping":{}}"#, 10, Command::Ping),
        (r#"{"send":{"data":[1]}}"#, 0, Command::Send { data: bytes("[1]") }),
        (r#"{"id":11,"send":{}}"#, 11, Command::Send { data: Bytes::new() }),
        (
            r#"{"id":12,"rpc":{"method":"now","data":true}}"#,
            12,
            Command::Rpc { method: "now".into(), data: bytes("true") },
        ),
        (r#"{"id":12,"rpc":{}}"#, 12, Command::Rpc { method: String::new(), data: Bytes::new() }),
        (r#"{"id":13,"refresh":{"token":"t"}}"#, 13, Command::Refresh { token: "t".into() }),
        (
            r#"{"id":4294967295,"sub_refresh":{"channel":"a","token":"t"}}"#,
            u32::MAX,
            Command::SubRefresh { channel: "a".into(), token: "t".into(), kind: 0 },
        ),
    ];
    for (text, id, command) in table {
        assert_eq!(decode_one(text), Ok(Numbered { id, command }), "{text}");
    }
}

#[test]
fn of_two_members_the_first_of_the_definition_counts_wherever_it_stands() {
    let ping = Command::Unsubscribe { channel: "a".into() };
    for text in [
        r#"{"id":1,"unsubscribe":{"channel":"a"},"publish":{"channel":"b"}}"#,
        r#"{"id":1,"publish":{"channel":"b"},"unsubscribe":{"channel":"a"}}"#,
        r#"{"id":1,"connect":null,"publish":{"channel":"b"},"unsubscribe":{"channel":"a"}}"#,
    ] {
        assert_eq!(decode_one(text), Ok(Numbered { id: 1, command: ping.clone() }), "{text}");
    }
}

#[test]
fn a_frame_of_several_commands_is_taken_apart_in_order() {
    let message = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\r\n \n{}{\"id\":3,\n\"ping\":{}}\n";
    let ids: Vec<u32> =
        decode_all(message.as_bytes()).into_iter().map(|command| command.unwrap().id).collect();
    assert_eq!(ids, [1, 2, 0, 3]);
}

#[test]
fn a_blank_message_holds_no_command() {
    for text in ["", "\n", " \r\n\t "] {
        assert_eq!(decode_all(text.as_bytes()), [], "{text:?}");
    }
}

#[test]
fn a_payload_is_a_slice_of_the_message() {
    let message = Bytes::from_static(br#"{"id":1,"publish":{"channel":"a","data":{"x":1}}}"#);
    let Some(Ok(Numbered { command: Command::Publish { data, .. }, .. })) = decode_next(&mut message.clone())
    else {
        panic!("not a publish command");
    };
    assert!(message.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn nesting_is_allowed_up_to_the_limit_and_brackets_in_strings_do_not_count() {
    // The command and its member are two levels.
    let nested = |levels: usize| {
        format!(
            r#"{{"id":1,"send":{{"data":{}"{}"{}}}}}"#,
            "[".repeat(levels),
            "[{".repeat(500),
            "]".repeat(levels)
        )
    };
    assert!(decode_one(&nested(MAX_DEPTH - 2)).is_ok());
    let error = decode_one(&nested(MAX_DEPTH - 1)).unwrap_err();
    assert_eq!(error.what, "command is nested deeper than 64 levels");
    assert_eq!(error.at, 23 + MAX_DEPTH - 2);
}

#[test]
fn a_connect_command_may_name_only_so_many_channels() {
    let command = |channels: usize| {
        let subs: Vec<String> = (0..channels).map(|i| format!("\"c{i}\":{{}}")).collect();
        format!(r#"{{"id":1,"connect":{{"subs":{{{}}}}}}}"#, subs.join(","))
    };
    let Ok(Numbered { command: Command::Connect(connect), .. }) = decode_one(&command(MAX_SUBS)) else {
        panic!("refused");
    };
    assert_eq!(connect.subs.len(), MAX_SUBS);
    let error = decode_one(&command(MAX_SUBS + 1)).unwrap_err();
    assert_eq!(error.what, format!("connect.subs is not a map of at most {MAX_SUBS} channels"));
}

#[test]
fn malformed_commands_are_refused_with_what_is_wrong() {
    let object = "command is not a JSON object at byte 0";
    let json = "command is not valid JSON";
    let cut = "command is cut off";
    let table = [
        ("x", object),
        ("null", object),
        ("true", object),
        ("[]", object),
        ("[{}]", object),
        ("5", object),
        ("\"{}\"", object),
        ("}", object),
        (",{}", object),
        ("\u{feff}{}", object),
        ("\0{}", object),
        ("id", object),
        ("   x", "command is not a JSON object at byte 3"),
        ("\n\n[", "command is not a JSON object at byte 2"),
        ("{", "command is cut off at byte 1"),
        ("{\"", cut),
        ("{\"id\"", cut),
        ("{\"id\":1", "command is cut off at byte 7"),
        ("{\"id\":1,\"rpc\":{}", cut),
        ("{\"a\":\"}", cut),
        ("{\"a\":\"\\", cut),
        ("{\"a\":\"\\\"}", cut),
        ("{[}", cut),
        ("{]", "command is not valid JSON at byte 1"),
        ("{[]}", json),
        ("{{}}", json),
        ("{,}", json),
        ("{\"id\"}", json),
        ("{\"id\":}", json),
        ("{\"id\":1,}", json),
        ("{\"id\":1 \"ping\":{}}", json),
        ("{\"id\":1,,\"ping\":{}}", json),
        ("{id:1}", json),
        ("{'id':1}", json),
        ("{\"id\":01,\"ping\":{}}", json),
        ("{\"id\":+1,\"ping\":{}}", json),
        ("{\"id\":0x1,\"ping\":{}}", json),
        ("{\"id\":1.,\"ping\":{}}", json),
        ("{\"id\":NaN,\"ping\":{}}", json),
        ("{\"id\":tru,\"ping\":{}}", json),
        ("{\"id\":1,\"ping\":{}]", json),
        ("{\"id\":1,\"ping\":{},\"x\":\"a\nb\"}", json),
        ("{\"id\":1,\"x\":\"\\q\",\"ping\":{}}", json),
        ("{\"id\":1,\"x\":\"\\u12\",\"ping\":{}}", json),
        ("{\"\\ud800\":1}", json),
        ("{\"id\":1,\"rpc\":{\"data\":[1,]}}", json),
        ("{\"id\":1,\"rpc\":{\"data\":{\"a\"}}}", json),
        ("{\"id\":1,\"rpc\":{\"data\":\"\t\"}}", json),
        ("{\"id\":1,\"rpc\":{\"data\":nul}}", json),
        ("{\"id\":1,\"rpc\":{\"data\":1 2}}", json),
        ("{\"id\":1,\"rpc\":{\"data\":/*x*/1}}", json),
        ("{/*x*/}", json),
        ("{\"id\":1,\n\"rpc\":{\"data\":\n!}}", "command is not valid JSON at byte 24"),
        (r#"{"id":-1,"ping":{}}"#, "id is not an unsigned 32-bit integer at byte 6"),
        (r#"{"id":4294967296,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":99999999999999999999999,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":1.5,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":1e2,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":-0,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":"1","ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":true,"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":[],"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":{},"ping":{}}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":"x"}"#, "id is not an unsigned 32-bit integer"),
        (r#"{"id":5}"#, "command asks for nothing that is known at byte 0"),
        (r#"{"id":5,"conect":{}}"#, "command asks for nothing that is known"),
        (r#"{"id":5,"Connect":{}}"#, "command asks for nothing that is known"),
        (r#"{"id":5,"subscribe":null}"#, "command asks for nothing that is known"),
        (r#"{"id":5,"push":{"channel":"a"}}"#, "command asks for nothing that is known"),
        (r#"{"connect":{}}"#, "command without id at byte 0"),
        (r#"{"id":0,"connect":{}}"#, "command without id"),
        (r#"{"id":null,"connect":{}}"#, "command without id"),
        (r#"{"subscribe":{"channel":"a"}}"#, "command without id"),
        (r#"{"publish":{"channel":"a"}}"#, "command without id"),
        (r#"{"rpc":{}}"#, "command without id"),
        (r#"{"ping":{}}"#, "command without id"),
        (r#"{"id":1,"connect":[]}"#, "connect is not an object"),
        (r#"{"id":1,"connect":"x"}"#, "connect is not an object"),
        (r#"{"id":1,"connect":5}"#, "connect is not an object"),
        (r#"{"id":1,"ping":true}"#, "ping is not an object"),
        (r#"{"id":1,"subscribe":"news"}"#, "subscribe is not an object"),
        (r#"{"id":1,"ping":{},"sub_refresh":1.5}"#, "sub_refresh is not an object"),
        (r#"{"id":1,"connect":{"token":5}}"#, "connect.token is not a valid string at byte 27"),
        (r#"{"id":1,"connect":{"token":"\ud800"}}"#, "connect.token is not a valid string"),
        (r#"{"id":1,"connect":{"name":{}}}"#, "connect.name is not a valid string"),
        (r#"{"id":1,"connect":{"version":1}}"#, "connect.version is not a valid string"),
        (r#"{"id":1,"connect":{"subs":[]}}"#, "connect.subs is not a map of objects"),
        (r#"{"id":1,"connect":{"subs":"a"}}"#, "connect.subs is not a map of objects"),
        (r#"{"id":1,"connect":{"subs":{"a":5}}}"#, "connect.subs is not a map of objects"),
        (
            r#"{"id":1,"connect":{"subs":{"\udc00":{}}}}"#,
            "connect.subs is not a map with valid strings as keys",
        ),
        (
            r#"{"id":1,"connect":{"subs":{"a":{"offset":-1}}}}"#,
            "connect.subs.offset is not an unsigned 64-bit integer",
        ),
        (r#"{"id":1,"subscribe":{"channel":5}}"#, "subscribe.channel is not a valid string"),
        (r#"{"id":1,"subscribe":{"channel":["a"]}}"#, "subscribe.channel is not a valid string"),
        (r#"{"id":1,"subscribe":{"recover":1}}"#, "subscribe.recover is not true or false"),
        (r#"{"id":1,"subscribe":{"recover":"true"}}"#, "subscribe.recover is not true or false"),
        (
            r#"{"id":1,"subscribe":{"offset":18446744073709551616}}"#,
            "subscribe.offset is not an unsigned 64-bit integer",
        ),
        (r#"{"id":1,"subscribe":{"offset":"7"}}"#, "subscribe.offset is not an unsigned 64-bit integer"),
        (r#"{"id":1,"subscribe":{"epoch":7}}"#, "subscribe.epoch is not a valid string"),
        (r#"{"id":1,"subscribe":{"positioned":0}}"#, "subscribe.positioned is not true or false"),
        (r#"{"id":1,"subscribe":{"recoverable":[]}}"#, "subscribe.recoverable is not true or false"),
        (r#"{"id":1,"subscribe":{"join_leave":"no"}}"#, "subscribe.join_leave is not true or false"),
        (r#"{"id":1,"subscribe":{"delta":true}}"#, "subscribe.delta is not a valid string"),
        (r#"{"id":1,"subscribe":{"tf":"x"}}"#, "subscribe.tf is not a filter"),
        (r#"{"id":1,"subscribe":{"tf":["or"]}}"#, "subscribe.tf is not a filter"),
        (r#"{"id":1,"subscribe":{"tf":{"nodes":{}}}}"#, "subscribe.tf is not a filter"),
        (r#"{"id":1,"connect":{"headers":["a"]}}"#, "connect.headers is not a map of strings"),
        (r#"{"id":1,"connect":{"headers":{"a":1}}}"#, "connect.headers is not a map of strings"),
        (r#"{"id":1,"subscribe":{"flag":9223372036854775808}}"#, "subscribe.flag is not a 64-bit integer"),
        (r#"{"id":1,"subscribe":{"type":2147483648}}"#, "subscribe.type is not a 32-bit integer"),
        (r#"{"id":1,"unsubscribe":{"channel":{}}}"#, "unsubscribe.channel is not a valid string"),
        (r#"{"id":1,"publish":{"channel":1,"data":1}}"#, "publish.channel is not a valid string"),
        (r#"{"id":1,"history":{"limit":2147483648}}"#, "history.limit is not a 32-bit integer"),
        (r#"{"id":1,"history":{"since":5}}"#, "history.since is not an object"),
        (r#"{"id":1,"history":{"since":[1,"e"]}}"#, "history.since is not an object"),
        (
            r#"{"id":1,"history":{"since":{"offset":-3}}}"#,
            "history.since.offset is not an unsigned 64-bit integer",
        ),
        (r#"{"id":1,"history":{"reverse":1}}"#, "history.reverse is not true or false"),
        (r#"{"id":1,"rpc":{"method":5}}"#, "rpc.method is not a valid string"),
        (r#"{"id":1,"refresh":{"token":{}}}"#, "refresh.token is not a valid string"),
        (r#"{"id":1,"sub_refresh":{"token":1}}"#, "sub_refresh.token is not a valid string"),
    ];
    assert!(table.len() >= 80);
    for (text, expected) in table {
        let error = decode_one(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn an_error_in_a_later_command_says_where_it_is_in_what_was_left() {
    let mut message = Bytes::from_static(b"{}\n{\"id\":1,\"ping\":{}}\n  nonsense");
    assert!(decode_next(&mut message).unwrap().is_ok());
    assert!(decode_next(&mut message).unwrap().is_ok());
    let error = decode_next(&mut message).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "command is not a JSON object at byte 3");
    assert_eq!(decode_next(&mut message), None);
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    for message in [
        &b"{\"id\":1,\"rpc\":{\"data\":\"\xff\"}}"[..],
        b"{\"id\":1,\"rpc\":{\"method\":\"\xc3\x28\"}}",
        b"{\"\xff\":1}",
        b"\xff",
    ] {
        assert!(decode_all(message)[0].is_err(), "{message:?}");
    }
}

// ---- replies and pushes

fn client() -> ClientId {
    ClientId::parse("01234567-89ab-4def-8123-456789abcdef").unwrap()
}

fn info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: "7".into(),
        client: client(),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    })
}

fn full_info() -> Arc<ClientInfo> {
    Arc::new(ClientInfo { conn_info: bytes("{\n\"n\":1}"), chan_info: bytes("[2]"), ..(*info()).clone() })
}

fn publication(data: &'static str, offset: u64) -> Publication {
    Publication { offset, data: bytes(data), info: None, tags: vec![], except: None, is_json: true }
}

fn reply(id: u32, reply: &Reply) -> String {
    let mut out = Vec::new();
    encode_reply(id, reply, &mut out);
    String::from_utf8(out).unwrap()
}

fn push(channel: &str, push: &Push) -> String {
    let mut out = Vec::new();
    encode_push(channel, push, &mut out);
    String::from_utf8(out).unwrap()
}

const INFO: &str = r#"{"user":"7","client":"01234567-89ab-4def-8123-456789abcdef"}"#;
const FULL_INFO: &str =
    r#"{"user":"7","client":"01234567-89ab-4def-8123-456789abcdef","conn_info":{ "n":1},"chan_info":[2]}"#;

fn recovered() -> SubscribeResult {
    SubscribeResult {
        ttl_seconds: Some(60),
        recoverable: true,
        positioned: true,
        position: Some(at(7)),
        was_recovering: true,
        recovered: true,
        publications: vec![Arc::new(publication("1", 8)), Arc::new(publication("{}", 9))],
        data: bytes(r#"{"d":1}"#),
        delta: false,
    }
}

const RECOVERED: &str = r#"{"expires":true,"ttl":60,"recoverable":true,"epoch":"abcdefgh","publications":[{"data":1,"offset":8},{"data":{},"offset":9}],"recovered":true,"offset":7,"positioned":true,"data":{"d":1},"was_recovering":true}"#;

fn connect_result() -> ConnectResult {
    ConnectResult {
        client: client(),
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
    }
}

#[test]
fn every_reply_has_its_shape() {
    let uuid = client().to_string();
    let table: Vec<(u32, Reply, String)> = vec![
        (3, ErrorCode::PermissionDenied.into(), r#"{"id":3,"error":{"code":103,"message":"permission denied"}}"#.into()),
        (
            3,
            ErrorCode::Internal.into(),
            r#"{"id":3,"error":{"code":100,"message":"internal server error","temporary":true}}"#.into(),
        ),
        (
            1,
            Reply::Connect(Box::new(connect_result())),
            format!(r#"{{"id":1,"connect":{{"client":"{uuid}"}}}}"#),
        ),
        (
            1,
            Reply::Connect(Box::new(ConnectResult {
                version: "0.1.0",
                ttl_seconds: Some(3600),
                data: bytes("{\"a\":\n1}"),
                subs: vec![("a\"b".into(), recovered()), ("c".into(), SubscribeResult::default())],
                ping_seconds: 25,
                pong: true,
                session: String::new(),
                node: String::new(),                resumed: false,
        lost: false,
                ..connect_result()
            })),
            format!(
                r#"{{"id":1,"connect":{{"client":"{uuid}","version":"0.1.0","expires":true,"ttl":3600,"data":{{"a": 1}},"subs":{{"a\"b":{RECOVERED},"c":{{}}}},"ping":25,"pong":true}}}}"#
            ),
        ),
        (2, Reply::Subscribe(Box::default()), r#"{"id":2,"subscribe":{}}"#.into()),
        (2, Reply::Subscribe(Box::new(recovered())), format!(r#"{{"id":2,"subscribe":{RECOVERED}}}"#)),
        (
            2,
            Reply::Subscribe(Box::new(SubscribeResult {
                positioned: true,
                position: Some(at(0)),
                ..SubscribeResult::default()
            })),
            r#"{"id":2,"subscribe":{"epoch":"abcdefgh","positioned":true}}"#.into(),
        ),
        (
            2,
            Reply::Subscribe(Box::new(SubscribeResult { recovered: false, ttl_seconds: None, ..recovered() })),
            r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":7,"positioned":true,"data":{"d":1},"was_recovering":true}}"#.into(),
        ),
        (5, Reply::Unsubscribe, r#"{"id":5,"unsubscribe":{}}"#.into()),
        (6, Reply::Publish, r#"{"id":6,"publish":{}}"#.into()),
        (7, Reply::Presence(vec![]), r#"{"id":7,"presence":{"presence":{}}}"#.into()),
        (
            7,
            Reply::Presence(vec![info(), full_info()]),
            format!(r#"{{"id":7,"presence":{{"presence":{{"{uuid}":{INFO},"{uuid}":{FULL_INFO}}}}}}}"#),
        ),
        (
            8,
            Reply::PresenceStats { num_clients: 0, num_users: 0 },
            r#"{"id":8,"presence_stats":{"num_clients":0,"num_users":0}}"#.into(),
        ),
        (
            8,
            Reply::PresenceStats { num_clients: 3, num_users: 2 },
            r#"{"id":8,"presence_stats":{"num_clients":3,"num_users":2}}"#.into(),
        ),
        (
            9,
            Reply::History { publications: vec![], top: at(0) },
            r#"{"id":9,"history":{"publications":[],"epoch":"abcdefgh","offset":0}}"#.into(),
        ),
        (
            9,
            Reply::History { publications: vec![Arc::new(publication("\"x\"", 4))], top: at(4) },
            r#"{"id":9,"history":{"publications":[{"data":"x","offset":4}],"epoch":"abcdefgh","offset":4}}"#.into(),
        ),
        (10, Reply::Rpc { data: Bytes::new() }, r#"{"id":10,"rpc":{}}"#.into()),
        (10, Reply::Rpc { data: bytes("[1,\r\n2]") }, r#"{"id":10,"rpc":{"data":[1,  2]}}"#.into()),
        (
            11,
            Reply::Refresh { client: client(), version: "longwire", ttl_seconds: None },
            format!(r#"{{"id":11,"refresh":{{"client":"{uuid}","version":"longwire"}}}}"#),
        ),
        (
            11,
            Reply::Refresh { client: client(), version: "longwire", ttl_seconds: Some(9) },
            format!(r#"{{"id":11,"refresh":{{"client":"{uuid}","version":"longwire","expires":true,"ttl":9}}}}"#),
        ),
        (12, Reply::SubRefresh { ttl_seconds: None }, r#"{"id":12,"sub_refresh":{}}"#.into()),
        (
            u32::MAX,
            Reply::SubRefresh { ttl_seconds: Some(9) },
            r#"{"id":4294967295,"sub_refresh":{"expires":true,"ttl":9}}"#.into(),
        ),
    ];
    for (id, value, expected) in table {
        assert_eq!(reply(id, &value), expected);
        serde_json::from_str::<Value>(&expected).unwrap();
    }
}

#[test]
fn every_error_code_is_written_and_only_failures_have_an_error() {
    for code in ErrorCode::ALL {
        let mut error = json!({"code": code.code(), "message": code.text()});
        if code.is_temporary() {
            error["temporary"] = true.into();
        }
        let text = reply(1, &Reply::from(*code));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!({"id": 1, "error": error}));
    }
    assert!(!reply(1, &Reply::Publish).contains("error"));
}

#[test]
fn every_push_has_its_shape() {
    let with_all = Publication {
        info: Some(full_info()),
        tags: vec![("a".into(), "1".into()), ("b\n".into(), String::new())],
        ..publication("{\"a\":1}", 7)
    };
    let table: Vec<(&str, Push, String)> = vec![
        ("c", Push::Publication(Arc::new(publication("{\"a\":1}", 7))), r#"{"push":{"channel":"c","pub":{"data":{"a":1},"offset":7}}}"#.into()),
        ("c", Push::Publication(Arc::new(publication("null", 0))), r#"{"push":{"channel":"c","pub":{"data":null}}}"#.into()),
        (
            "c",
            Push::Publication(Arc::new(with_all)),
            format!(r#"{{"push":{{"channel":"c","pub":{{"data":{{"a":1}},"info":{FULL_INFO},"offset":7,"tags":{{"a":"1","b\n":""}}}}}}}}"#),
        ),
        ("c", Push::Join(info()), format!(r#"{{"push":{{"channel":"c","join":{{"info":{INFO}}}}}}}"#)),
        ("c", Push::Leave(info()), format!(r#"{{"push":{{"channel":"c","leave":{{"info":{INFO}}}}}}}"#)),
        (
            "c",
            Push::Unsubscribe { code: unsubscribe::INSUFFICIENT_STATE.0, reason: unsubscribe::INSUFFICIENT_STATE.1 },
            r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#.into(),
        ),
        ("c", Push::Subscribe(Box::default()), r#"{"push":{"channel":"c","subscribe":{}}}"#.into()),
        (
            "c",
            Push::Subscribe(Box::new(recovered())),
            r#"{"push":{"channel":"c","subscribe":{"recoverable":true,"epoch":"abcdefgh","offset":7,"positioned":true,"data":{"d":1}}}}"#.into(),
        ),
        (
            "",
            Push::Disconnect(CloseReason::Drain.into()),
            r#"{"push":{"disconnect":{"code":3001,"reason":"shutdown"}}}"#.into(),
        ),
        (
            "",
            Push::Disconnect(Close::custom(CloseReason::ForceDisconnect, 4501, "be\"gone\n".into())),
            r#"{"push":{"disconnect":{"code":4501,"reason":"be\"gone\n"}}}"#.into(),
        ),
    ];
    for (channel, value, expected) in table {
        assert_eq!(push(channel, &value), expected);
        serde_json::from_str::<Value>(&expected).unwrap();
        let mut bare = b"{\"push\":".to_vec();
        encode_bare_push(channel, &value, &mut bare);
        bare.push(b'}');
        assert_eq!(String::from_utf8(bare).unwrap(), expected);
    }
    assert_eq!(PING, b"{}");
}

// ---- what holds for every input

/// A JSON value with line breaks wherever JSON allows them.
fn payload() -> impl Strategy<Value = (Value, String)> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    value.prop_map(|value| {
        let text = serde_json::to_string_pretty(&value).unwrap().replace("\n ", "\r\n ");
        (value, text)
    })
}

fn parse_line(text: &str) -> Value {
    assert!(!text.contains(['\n', '\r']), "{text:?}");
    serde_json::from_str(text).unwrap()
}

const VALID: &[&str] = &[
    r#"{"id":1,"connect":{"token":"t","data":{"a":[1,2]},"subs":{"a":{"recover":true,"offset":7,"epoch":"abcdefgh"}}}}"#,
    r#"{"id":2,"subscribe":{"channel":"caf\u00e9","recover":true,"epoch":"abcdefgh","offset":5,"flag":3,"tf":{}}}"#,
    r#"{"id":3,"publish":{"channel":"a","data":{"text":"\"}\\"}}}"#,
    r#"{"id":4,"history":{"channel":"a","limit":-1,"since":{"offset":3,"epoch":"e"},"reverse":true}}"#,
    r#"{"id":5,"rpc":{"method":"m","data":[[[1.5e3]]]}}"#,
];

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(message in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&message);
    }

    #[test]
    fn arbitrary_pieces_of_json_never_panic(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", "\"", "\\", ":", ",", "\"id\":", "1", "\"subscribe\":", "\"connect\":", "\"subs\":",
                "\"channel\":", "\"a\"", "\"data\":", "null", "true", "-", "e", ".5", "\n", " ", "\"\\u", "d800", "\u{e9}",
            ]),
            0..40,
        )
    ) {
        decode_all(pieces.concat().as_bytes());
    }

    #[test]
    fn a_mutated_command_never_panics(
        which in 0..VALID.len(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
    ) {
        let mut message = VALID[which].as_bytes().to_vec();
        for (index, byte, kind) in mutations {
            if message.is_empty() {
                break;
            }
            let at = index.index(message.len());
            match kind {
                0 => message[at] = byte,
                1 => message.insert(at, byte),
                2 => { message.remove(at); }
                _ => message.truncate(at),
            }
        }
        decode_all(&message);
    }

    #[test]
    fn every_cut_of_a_command_is_an_error(which in 0..VALID.len(), cut in any::<prop::sample::Index>()) {
        let text = VALID[which];
        let end = 1 + cut.index(text.len() - 1);
        let outcomes = decode_all(&text.as_bytes()[..end]);
        prop_assert_eq!(outcomes.len(), 1);
        prop_assert!(outcomes[0].is_err());
    }

    #[test]
    fn a_published_payload_reaches_the_subscriber_unchanged(
        (value, text) in payload(),
        channel in any::<String>(),
        id in 1..=u32::MAX,
    ) {
        let command = format!(r#"{{"id":{id},"publish":{{"channel":{},"data":{text}}}}}"#, json!(channel));
        let Numbered { id: read_id, command: Command::Publish { channel: read_channel, data, .. } } = decode_one(&command).unwrap() else {
            panic!("not a publish command");
        };
        prop_assert_eq!(read_id, id);
        prop_assert_eq!(&read_channel, &channel);
        // A null payload counts as absent.
        prop_assert_eq!(data.is_empty(), value.is_null());
        let publication = Publication { offset: 1, data: data.clone(), info: None, tags: vec![], except: None, is_json: true };
        let pushed = parse_line(&push("c", &Push::Publication(Arc::new(publication))));
        if value.is_null() {
            prop_assert_eq!(pushed, json!({"push": {"channel": "c", "pub": {"offset": 1}}}));
        } else {
            prop_assert_eq!(pushed, json!({"push": {"channel": "c", "pub": {"data": value, "offset": 1}}}));
        }
    }

    #[test]
    fn a_publication_is_one_line_of_json_with_everything_in_it(
        (value, text) in payload(),
        channel in "\\PC{1,20}|[\\x00-\\x7f]{1,20}",
        offset in 1..=u64::MAX,
        user in any::<String>(),
        tags in prop::collection::btree_map(any::<String>(), any::<String>(), 1..4),
    ) {
        let info = ClientInfo { user: user.as_str().into(), conn_info: Bytes::from(text.clone()), ..(*info()).clone() };
        let publication = Publication {
            offset,
            data: Bytes::from(text),
            info: Some(Arc::new(info)),
            tags: tags.clone().into_iter().collect(),
            except: None, is_json: true,
        };
        let expected = json!({"data": value, "offset": offset, "tags": tags, "info": {
            "user": user, "client": client().to_string(), "conn_info": value,
        }});
        let pushed = parse_line(&push(&channel, &Push::Publication(Arc::new(publication.clone()))));
        prop_assert_eq!(&pushed, &json!({"push": {"channel": channel, "pub": expected}}));
        let history = Reply::History { publications: vec![Arc::new(publication)], top: at(offset) };
        let replied = parse_line(&reply(9, &history));
        prop_assert_eq!(replied, json!({"id": 9, "history": {
            "publications": [expected], "epoch": "abcdefgh", "offset": offset,
        }}));
    }

    #[test]
    fn a_subscription_survives_the_way_through_a_command(
        channel in any::<String>(), token in any::<String>(), offset in any::<u64>(), flag in any::<i64>(), kind in any::<i32>(),
        flags in any::<[bool; 4]>(),
    ) {
        let command = json!({"id": 1, "subscribe": {
            "channel": channel, "token": token, "offset": offset, "flag": flag, "type": kind,
            "recover": flags[0], "positioned": flags[1], "recoverable": flags[2], "join_leave": flags[3],
        }});
        let expected = Subscribe {
            channel, token, kind,
            recover: flags[0].then_some(Since { offset, epoch: None }),
            positioned: flags[1], recoverable: flags[2], join_leave: flags[3],
            reject_unrecovered: flag & 2 == 2,
            ..Subscribe::default()
        };
        let decoded = decode_one(&command.to_string()).unwrap();
        prop_assert_eq!(decoded, Numbered { id: 1, command: Command::Subscribe(Box::new(expected)) });
    }
}
