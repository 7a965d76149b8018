//! Position tokens, and event streams read back the way a browser reads them.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo, SubscribeResult, unsubscribe};
use longwire_protocol::plain::envelope::{ChannelState, Welcome};
use longwire_protocol::plain::event_stream::{
    HEARTBEAT, encode_disconnect, encode_publication_data, encode_push, encode_retry, encode_subscribed,
    write_id,
};
use longwire_protocol::plain::position_token::{
    MAX_BYTES, MAX_CHANNELS, PositionToken, longest_entry_bytes, longest_query_bytes, write_position,
};
use longwire_protocol::{Close, CloseReason, Epoch, Position, Publication, Push};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn at(offset: u64) -> Position {
    Position { offset, epoch: Epoch::parse("abcdefgh") }
}

// ---- position tokens

fn token(entries: &[(&str, Position)]) -> String {
    let mut out = Vec::new();
    for (channel, position) in entries {
        write_position(channel, position, &mut out);
    }
    String::from_utf8(out).unwrap()
}

/// Decodes as a server decodes a query (WHATWG URL section 5.1): `+` is a space.
fn decode_query(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                out.push(u8::from_str_radix(&text[at + 1..at + 3], 16).unwrap());
                at += 3;
                continue;
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    out
}

#[test]
fn a_token_can_be_read_by_people() {
    let foreign = Position { offset: 3, epoch: Epoch::FOREIGN };
    assert_eq!(token(&[("news", at(7)), ("chat:room/1", at(0))]), "news=7.abcdefgh,chat:room/1=0.abcdefgh");
    assert_eq!(token(&[("$dialog#1,2", at(u64::MAX))]), "$dialog%231%2C2=18446744073709551615.abcdefgh");
    assert_eq!(token(&[("a=b%c&d+e f\n", foreign)]), "a%3Db%25c%26d%2Be%20f%0A=3._");
    assert_eq!(token(&[]), "");
}

#[test]
fn a_token_is_looked_up_and_changed_by_channel() {
    let mut read = PositionToken::parse(b"news=7.abcdefgh,chat:1=9.ABCD1234").unwrap();
    assert_eq!(read.get("news"), Some(at(7)));
    assert_eq!(read.get("chat:1"), Some(Position { offset: 9, epoch: Epoch::parse("ABCD1234") }));
    assert_eq!(read.get("chat"), None);
    read.set("news", at(8));
    read.set("more", at(1));
    read.remove("chat:1");
    let mut text = b"id: ".to_vec();
    read.write(&mut text);
    assert_eq!(text, b"id: news=8.abcdefgh,more=1.abcdefgh");
    assert!(PositionToken::parse(b"").unwrap().is_empty() && !read.is_empty());
}

#[test]
fn a_token_may_say_which_answer_came_last() {
    for text in ["=3.zyxwvuts", "news=7.abcdefgh,=3.zyxwvuts"] {
        let read = PositionToken::parse(text.as_bytes()).unwrap();
        assert_eq!(read.answer(), Some(Position { offset: 3, epoch: Epoch::parse("zyxwvuts") }));
        assert!(read.iter().all(|(name, _)| name == "news"), "it is no channel");
        let mut again = Vec::new();
        read.write(&mut again);
        assert_eq!(again, text.as_bytes());
    }
    assert_eq!(PositionToken::parse(b"news=7.abcdefgh").unwrap().answer(), None);
    // It is none of the channels that there may be.
    let names: Vec<String> = (0..MAX_CHANNELS).map(|i| format!("c{i}")).collect();
    let entries: Vec<(&str, Position)> = names.iter().map(|name| (name.as_str(), at(1))).collect();
    let full = PositionToken::parse(format!("{},=1.zyxwvuts", token(&entries)).as_bytes()).unwrap();
    assert_eq!((full.iter().count(), full.answer().map(|answer| answer.offset)), (MAX_CHANNELS, Some(1)));
}

#[test]
fn a_token_survives_being_copied_into_a_query_without_encoding() {
    for channel in ["$dialog#1,2", "#7", "a&b", "a+b", "a*b", "~x", "ns:a/b-c_d.e", ",b"] {
        let text = token(&[("first", at(1)), ("x,y", at(2)), (channel, at(3))]);
        if channel.starts_with(',') {
            // Decoded twice it would read as an empty entry: refused rather than guessed.
            assert!(PositionToken::parse(&decode_query(&text)).is_err());
            continue;
        }
        let read = PositionToken::parse(&decode_query(&text)).unwrap();
        assert_eq!((read.get("x,y"), read.get(channel)), (Some(at(2)), Some(at(3))), "{channel}");
    }
}

#[test]
fn malformed_tokens_are_refused_with_the_place() {
    let table: &[(&str, &str)] = &[
        ("x", "a channel without `=` at byte 0"),
        ("a=1.abcdefgh,b", "a channel without `=` at byte 13"),
        ("a=1.abcdefgh,", "a comma at the end at byte 12"),
        (",", "a channel without `=` at byte 0"),
        (",a=1.abcdefgh", "a channel without a name at byte 0"),
        ("a=1.abcdefgh,,b=1.abcdefgh", "a channel without a name at byte 13"),
        ("=1.abcdefgh,a=1.abcdefgh,=1.abcdefgh", "an answer for the second time at byte 25"),
        ("=x.abcdefgh", "an offset that is not a whole number below 2^64 at byte 1"),
        ("a=1.abcdefgh,a=2.abcdefgh", "a channel for the second time at byte 13"),
        ("a=1.abcdefgh,%61=2.abcdefgh", "a channel for the second time at byte 13"),
        ("a=", "a position without `.` at byte 2"),
        ("a=7", "a position without `.` at byte 2"),
        ("a=7,b=1.abcdefgh", "a position without `.` at byte 2"),
        ("a=.abcdefgh", "an offset that is not a whole number below 2^64 at byte 2"),
        ("a=-1.abcdefgh", "an offset"),
        ("a=+1.abcdefgh", "an offset"),
        ("a= 1.abcdefgh", "an offset"),
        ("a=1x.abcdefgh", "an offset"),
        ("a=18446744073709551616.abcdefgh", "an offset"),
        ("a=99999999999999999999999999999.abcdefgh", "an offset"),
        ("a=b=1.abcdefgh", "an offset"),
        ("a=1.", "an epoch that is not eight letters or digits at byte 4"),
        ("a=1.abcdefg", "an epoch"),
        ("a=1.abcdefghi", "an epoch"),
        ("a=1.abcd-fgh", "an epoch"),
        ("a=1.abcdefgh ", "an epoch"),
        ("a=1.5.abcdefgh", "an epoch"),
        ("a=1.abcdefg\u{e9}", "an epoch"),
        ("%=1.abcdefgh", "`%` without two hexadecimal digits at byte 0"),
        ("ab%4=1.abcdefgh", "`%` without two hexadecimal digits at byte 2"),
        ("%zz=1.abcdefgh", "`%` without two hexadecimal digits"),
        ("%+1=1.abcdefgh", "`%` without two hexadecimal digits"),
        ("%ff=1.abcdefgh", "a name that is not UTF-8 at byte 0"),
        ("a b=1.abcdefgh", "a space or control character at byte 1"),
        ("a\n=1.abcdefgh", "a space or control character at byte 1"),
        ("a\0=1.abcdefgh", "a space or control character at byte 1"),
    ];
    for (text, expected) in table {
        let error = PositionToken::parse(text.as_bytes()).expect_err(text).to_string();
        assert!(error.starts_with("position token has ") && error.contains(expected), "{text:?}: {error}");
    }
}

#[test]
fn a_token_has_limits() {
    let names: Vec<String> = (0..=MAX_CHANNELS).map(|i| format!("c{i}")).collect();
    let entries: Vec<(&str, Position)> = names.iter().map(|name| (name.as_str(), at(1))).collect();
    assert!(PositionToken::parse(token(&entries[..MAX_CHANNELS]).as_bytes()).is_ok());
    let error = PositionToken::parse(token(&entries).as_bytes()).unwrap_err();
    assert_eq!(error.what, format!("more than {MAX_CHANNELS} channels"));

    let name_bytes = MAX_BYTES - "=1.abcdefgh".len();
    let mut longest = token(&[(&"a".repeat(name_bytes), at(1))]);
    assert!(PositionToken::parse(longest.as_bytes()).is_ok());
    longest.insert(0, 'a');
    let error = PositionToken::parse(longest.as_bytes()).unwrap_err();
    assert_eq!(error.what, format!("longer than {MAX_BYTES} bytes"));
}

proptest! {
    #[test]
    fn what_was_written_is_read_whatever_the_names(
        entries in prop::collection::btree_map("\\PC{1,8}|[\\x00-\\x7f]{1,8}|[,=%&#+.]{1,8}", (any::<u64>(), any::<u64>(), any::<bool>()), 0..20)
    ) {
        let entries: Vec<(&str, Position)> = entries.iter().map(|(name, (offset, bits, is_foreign))| {
            let epoch = if *is_foreign { Epoch::FOREIGN } else { Epoch::from_random(*bits) };
            (name.as_str(), Position { offset: *offset, epoch })
        }).collect();
        let text = token(&entries);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert!(!text.contains(['#', '&', '+', '"', '?']));
        let longest: usize = entries.iter().map(|(name, _)| longest_entry_bytes(name)).sum();
        prop_assert!(text.len() <= longest);
        let is_kept = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let in_query: usize = text.bytes().map(|byte| if is_kept(byte) { 1 } else { 3 }).sum();
        let longest: usize = entries.iter().map(|(name, _)| longest_query_bytes(name)).sum();
        prop_assert!(in_query <= longest);
        let read = PositionToken::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(read.iter().collect::<Vec<_>>(), entries);
        let mut again = Vec::new();
        read.write(&mut again);
        prop_assert_eq!(again, text.into_bytes());
    }

    #[test]
    fn arbitrary_bytes_are_read_or_refused_and_never_panic(text in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = PositionToken::parse(&text);
    }

    #[test]
    fn arbitrary_pieces_of_tokens_that_are_read_can_be_written_and_read_again(
        pieces in prop::collection::vec(prop::sample::select(vec!["a", "b", "=", "1", ".", "abcdefgh", "_", ",", "%", "2C", "=1.abcdefgh"]), 0..12)
    ) {
        if let Ok(read) = PositionToken::parse(pieces.concat().as_bytes()) {
            let mut text = Vec::new();
            read.write(&mut text);
            prop_assert_eq!(PositionToken::parse(&text), Ok(read));
        }
    }
}

// ---- event streams

#[derive(PartialEq, Debug)]
struct Event {
    kind: String,
    data: String,
    last_id: String,
}

/// Reads a whole stream by the algorithm of WHATWG HTML section 9.2.6; also tells the `retry:` values.
fn read_stream(bytes: &[u8]) -> (Vec<Event>, Vec<u64>) {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).replace("\r\n", "\n").replace('\r', "\n");
    let mut events = Vec::new();
    let mut retries = Vec::new();
    let (mut kind, mut data, mut id) = (String::new(), String::new(), String::new());
    // An incomplete last line, and an event without its empty line, are discarded.
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    for line in complete.split('\n') {
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                let kind = if kind.is_empty() { "message".into() } else { kind.clone() };
                events.push(Event { kind, data: data.clone(), last_id: id.clone() });
            }
            data.clear();
            kind.clear();
            continue;
        }
        let (field, value) = match line.split_once(':') {
            Some(("", _)) => continue,
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line, ""),
        };
        match field {
            "event" => kind = value.into(),
            "data" => {
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => id = value.into(),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                retries.extend(value.parse::<u64>())
            }
            _ => {}
        }
    }
    (events, retries)
}

fn client() -> ClientId {
    ClientId::parse("01234567-89ab-4def-8123-456789abcdef").unwrap()
}

fn info(user: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: user.into(),
        client: client(),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    })
}

fn publication(data: &'static str, offset: u64) -> Publication {
    Publication {
        offset,
        data: Bytes::from_static(data.as_bytes()),
        info: None,
        tags: vec![],
        except: None,
        is_json: true,
    }
}

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_publication_has_its_shape() {
    let text = written(|out| {
        write_id(b"news=7.abcdefgh", out);
        encode_publication_data("news", &publication("{\"a\":1}", 7), out);
    });
    assert_eq!(text, "id: news=7.abcdefgh\ndata: {\"channel\":\"news\",\"data\":{\"a\":1},\"offset\":7}\n\n");

    let full = Publication {
        info: Some(info("7")),
        tags: vec![("k".into(), "v".into())],
        ..publication("[\r\n1]", 0)
    };
    assert_eq!(
        written(|out| encode_publication_data("a\"b", &full, out)),
        "data: {\"channel\":\"a\\\"b\",\"data\":[  1],\"tags\":{\"k\":\"v\"},\"info\":{\"user\":\"7\",\"client\":\"01234567-89ab-4def-8123-456789abcdef\"}}\n\n"
    );
    assert_eq!(
        written(|out| encode_publication_data("a", &publication("", 0), out)),
        "data: {\"channel\":\"a\",\"data\":null}\n\n"
    );
}

fn welcome() -> Welcome {
    Welcome { client: client().to_string(), session: String::new(), resumed: false, lost: false }
}

#[test]
fn the_first_event_says_what_was_subscribed() {
    let channels = [
        ChannelState { channel: "a", recovered: None, publications: 0, position: Some(at(0)) },
        ChannelState { channel: "b", recovered: None, publications: 0, position: None },
    ];
    assert_eq!(
        written(|out| encode_subscribed(&welcome(), &channels, b"a=0.abcdefgh", out)),
        "id: a=0.abcdefgh\nevent: subscribed\ndata: {\"client\":\"01234567-89ab-4def-8123-456789abcdef\",\"channels\":{\"a\":{\"offset\":0,\"epoch\":\"abcdefgh\"},\"b\":{}}}\n\n"
    );
}

#[test]
fn the_first_event_says_honestly_what_was_recovered() {
    let a = ChannelState { channel: "a", recovered: Some(true), publications: 3, position: Some(at(9)) };
    let b = ChannelState { channel: "b", recovered: Some(false), publications: 0, position: Some(at(12)) };
    let c = ChannelState { channel: "c", recovered: None, publications: 0, position: None };
    assert_eq!(
        written(|out| encode_subscribed(
            &welcome(),
            &[a.clone(), b, c.clone()],
            b"a=6.abcdefgh,b=12.abcdefgh",
            out
        )),
        "id: a=6.abcdefgh,b=12.abcdefgh\nevent: recovered\ndata: {\"client\":\"01234567-89ab-4def-8123-456789abcdef\",\"recovered\":false,\"channels\":{\"a\":{\"recovered\":true,\"publications\":3},\"b\":{\"recovered\":false,\"offset\":12,\"epoch\":\"abcdefgh\"},\"c\":{}}}\n\n"
    );
    let nothing_missed = ChannelState { publications: 0, ..a };
    assert_eq!(
        written(|out| encode_subscribed(&welcome(), &[nothing_missed, c], b"", out)),
        "event: recovered\ndata: {\"client\":\"01234567-89ab-4def-8123-456789abcdef\",\"recovered\":true,\"channels\":{\"a\":{\"recovered\":true,\"publications\":0},\"c\":{}}}\n\n"
    );
}

#[test]
fn other_events_have_their_shapes() {
    let who = "{\"user\":\"7\",\"client\":\"01234567-89ab-4def-8123-456789abcdef\"}";
    let (code, reason) = unsubscribe::SERVER;
    let subscribed =
        SubscribeResult { position: Some(at(4)), recoverable: true, ..SubscribeResult::default() };
    let table = [
        (Push::Join(info("7")), format!("event: join\ndata: {{\"channel\":\"c\",\"info\":{who}}}\n\n")),
        (Push::Leave(info("7")), format!("event: leave\ndata: {{\"channel\":\"c\",\"info\":{who}}}\n\n")),
        (
            Push::Unsubscribe { code, reason },
            "event: unsubscribe\ndata: {\"channel\":\"c\",\"code\":2000,\"reason\":\"server unsubscribe\"}\n\n".into(),
        ),
        (
            Push::Subscribe(Box::new(subscribed)),
            "event: subscribed\ndata: {\"channels\":{\"c\":{\"offset\":4,\"epoch\":\"abcdefgh\",\"recoverable\":true}}}\n\n".into(),
        ),
        (
            Push::Publication(Arc::new(publication("1", 2))),
            "data: {\"channel\":\"c\",\"data\":1,\"offset\":2}\n\n".into(),
        ),
        (
            Push::Disconnect(CloseReason::Drain.into()),
            "event: disconnect\ndata: {\"code\":3001,\"reason\":\"shutdown\",\"reconnect\":true}\n\n".into(),
        ),
    ];
    for (push, expected) in table {
        assert_eq!(written(|out| encode_push("c", &push, out)), expected);
    }
    let gone = Close::custom(CloseReason::ForceDisconnect, 4500, "away\r\nwith you".into());
    assert_eq!(
        written(|out| encode_disconnect(&gone, out)),
        "event: disconnect\ndata: {\"code\":4500,\"reason\":\"away\\r\\nwith you\",\"reconnect\":false}\n\n"
    );
    assert_eq!(written(|out| encode_retry(1500, out)), "retry: 1500\n");
    assert_eq!(HEARTBEAT, b":\n\n");
}

#[test]
fn an_id_that_could_end_its_line_is_left_out() {
    for token in [&b""[..], b"a\nb", b"a\rb", b"a\0b", b"\n\ndata: x"] {
        assert_eq!(written(|out| write_id(token, out)), "", "{token:?}");
    }
}

#[test]
fn heartbeats_and_retry_advice_are_no_events_and_keep_the_id() {
    let mut stream = Vec::new();
    encode_retry(2000, &mut stream);
    stream.extend_from_slice(HEARTBEAT);
    write_id(b"a=1.abcdefgh", &mut stream);
    encode_publication_data("a", &publication("1", 1), &mut stream);
    stream.extend_from_slice(HEARTBEAT);
    encode_push("a", &Push::Join(info("7")), &mut stream);
    let (events, retries) = read_stream(&stream);
    let seen: Vec<(&str, &str)> =
        events.iter().map(|event| (event.kind.as_str(), event.last_id.as_str())).collect();
    assert_eq!(seen, [("message", "a=1.abcdefgh"), ("join", "a=1.abcdefgh")]);
    assert_eq!(retries, [2000]);
}

/// Text that tries to end a line and begin a field.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "\n",
            "\r",
            "\r\n",
            "\n\n",
            "data: ",
            "data:",
            "id: 9",
            "event: disconnect",
            "retry: 1",
            ":",
            "\0",
            "\"",
            "\\",
            "}",
            "{",
            "\u{feff}",
            "\u{2028}",
            "\u{85}",
            "a",
        ])
        .prop_map(String::from),
        any::<String>(),
    ];
    prop::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_that_others_choose_begins_a_field(
        channel in hostile(),
        data in hostile(),
        key in hostile(),
        value in hostile(),
        user in hostile(),
        reason in hostile(),
        is_valid_json in any::<bool>(),
    ) {
        let payload = if is_valid_json {
            serde_json::to_string_pretty(&json!({"x": [data]})).unwrap().replace("\n ", "\r")
        } else {
            data.clone()
        };
        let publication = Publication {
            offset: 5,
            data: Bytes::from(payload.into_bytes()),
            info: Some(info(&user)),
            tags: vec![(key.clone(), value.clone())],
            except: None, is_json: true,
        };
        let mut id = Vec::new();
        write_position(&channel, &at(5), &mut id);
        let state = ChannelState { channel: &channel, recovered: Some(true), publications: 1, position: None };
        let mut stream = Vec::new();
        encode_subscribed(&welcome(), &[state], &id, &mut stream);
        encode_publication_data(&channel, &publication, &mut stream);
        encode_push(&channel, &Push::Leave(info(&user)), &mut stream);
        encode_disconnect(&Close::custom(CloseReason::ForceDisconnect, 4000, reason.clone()), &mut stream);

        let (events, retries) = read_stream(&stream);
        prop_assert_eq!(retries, Vec::<u64>::new());
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        prop_assert_eq!(kinds, ["recovered", "message", "leave", "disconnect"]);
        let id = String::from_utf8(id).unwrap();
        prop_assert!(events.iter().all(|event| event.last_id == id && !event.data.contains('\n')));

        let who = json!({"user": user, "client": client().to_string()});
        let parse = |i: usize| serde_json::from_str::<Value>(&events[i].data);
        prop_assert_eq!(
            parse(0).unwrap(),
            json!({"client": client().to_string(), "recovered": true, "channels": {channel.as_str(): {"recovered": true, "publications": 1}}})
        );
        if is_valid_json {
            prop_assert_eq!(
                parse(1).unwrap(),
                json!({"channel": channel, "data": {"x": [data]}, "offset": 5, "tags": {key: value}, "info": who})
            );
        }
        prop_assert_eq!(parse(2).unwrap(), json!({"channel": channel, "info": who}));
        prop_assert_eq!(parse(3).unwrap(), json!({"code": 4000, "reason": reason, "reconnect": true}));
    }
}
