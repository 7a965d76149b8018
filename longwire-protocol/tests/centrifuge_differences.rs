//! Publications as differences to the one before, in both encodings of the centrifuge dialect.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::centrifuge::{json, protobuf};
use longwire_protocol::message::{ClientId, ConnectResult, SubscribeResult};
use longwire_protocol::{Publication, Push, Reply, fossil};
use serde_json::{Value, json};
use std::sync::Arc;

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn publication(data: &'static str, offset: u64) -> Publication {
    Publication { offset, data: bytes(data), info: None, tags: vec![], except: None, is_json: true }
}

fn said(push: &Push) -> Value {
    let mut out = Vec::new();
    json::encode_bare_push("c", push, &mut out);
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'));
    serde_json::from_slice(&out).unwrap()
}

fn reply(reply: &Reply) -> Value {
    let mut out = Vec::new();
    json::encode_reply(1, reply, &mut out);
    serde_json::from_slice(&out).unwrap()
}

fn connect_result(result: &SubscribeResult) -> ConnectResult {
    ConnectResult {
        client: ClientId(1),
        version: "",
        ttl_seconds: None,
        data: Bytes::new(),
        subs: vec![("c".into(), result.clone())],
        ping_seconds: 0,
        pong: false,
        session: String::new(),
        node: String::new(),
        resumed: false,
        lost: false,
    }
}

const LONG: &str =
    r#"{"text":"\u043f\u0440\u0438\u0432\u0435\u0442 ПРИВЕТ, всё хорошо 😀😀, а у вас?","n":1}"#;

fn delta(data: &'static str, base: Option<&'static str>) -> Value {
    let publication = Arc::new(publication(data, 7));
    let mut said = said(&Push::Delta { publication, base: base.map(bytes) });
    said["pub"].take()
}

/// What a client makes of a publication, given the text of the one before.
fn undone(said: &Value, base: &str) -> String {
    let text = said["data"].as_str().expect("a string");
    match said["delta"].as_bool() {
        Some(true) => {
            String::from_utf8(fossil::apply(base.as_bytes(), text.as_bytes(), 10_000).unwrap()).unwrap()
        }
        _ => text.to_owned(),
    }
}

#[test]
fn a_subscriber_that_agreed_to_differences_gets_every_payload_as_a_string() {
    assert_eq!(delta("{\"a\":\n1}", None), json!({"data": "{\"a\":\n1}", "offset": 7}));
    assert_eq!(delta("", None), json!({"data": "null", "offset": 7}));
    // A difference that is not shorter is not sent.
    assert_eq!(delta("12345", Some("12345")), json!({"data": "12345", "offset": 7}));
    assert_eq!(
        delta("\"entirely different\"", Some(LONG)),
        json!({"data": "\"entirely different\"", "offset": 7})
    );

    let base = "{\"name\":\"a name that stays\",\"n\":1}";
    let said = delta("{\"name\":\"a name that stays\",\"n\":2}", Some(base));
    assert_eq!(said["delta"], true);
    assert!(said["data"].as_str().unwrap().starts_with("Y\nW@0,2:2}"), "{said}");
    assert_eq!(undone(&said, base), "{\"name\":\"a name that stays\",\"n\":2}");
}

#[test]
fn a_difference_never_cuts_a_character() {
    // Each pair shares bytes of its first or last characters.
    for (from, to) in [("П", "Я"), ("П", "\u{4df}"), ("😀", "😁"), ("😀", "\u{1f640}"), ("ё", "\u{491}")]
    {
        let target = LONG.replace(from, to);
        let said = delta(target.clone().leak(), Some(LONG));
        assert_eq!(said["delta"], true, "{from} {to}");
        assert_eq!(undone(&said, LONG), target);
    }
}

#[test]
fn what_was_missed_is_one_whole_payload_and_differences() {
    let texts = [1, 2, 3].map(|n| LONG.replace(":1}", &format!(":{n}}}")));
    let publications = (8..).zip(&texts).map(|(i, text)| Arc::new(publication(text.clone().leak(), i)));
    let mut result = SubscribeResult {
        recovered: true,
        publications: publications.collect(),
        delta: true,
        ..SubscribeResult::default()
    };
    let replies = [
        reply(&Reply::Subscribe(Box::new(result.clone())))["subscribe"].take(),
        reply(&Reply::Connect(Box::new(connect_result(&result))))["connect"]["subs"]["c"].take(),
    ];
    for said in replies {
        assert_eq!(said["delta"], true);
        let publications = said["publications"].as_array().unwrap();
        let marks: Vec<bool> =
            publications.iter().map(|said| said["delta"].as_bool().unwrap_or_default()).collect();
        assert_eq!(marks, [false, true, true]);
        let mut last = String::new();
        for (said, text) in publications.iter().zip(&texts) {
            last = undone(said, &last);
            assert_eq!(&last, text);
        }
    }
    result.delta = false;
    let said = reply(&Reply::Subscribe(Box::new(result)));
    assert_eq!(said["subscribe"].get("delta"), None);
    assert_eq!(said["subscribe"]["publications"][1]["data"]["n"], 2);
}

#[test]
fn text_that_is_no_json_is_a_string_to_which_differences_are_made() {
    const TEXT: &str = "a careless \"text\"\nof some length, so that a difference is worth it: 1";
    let next = TEXT.replace(": 1", ": 2");
    let text = |data: &str, offset: u64| {
        let data = Bytes::copy_from_slice(data.as_bytes());
        Arc::new(Publication { data, is_json: false, ..publication("", offset) })
    };
    assert_eq!(said(&Push::Publication(text(TEXT, 7)))["pub"], json!({"data": TEXT, "offset": 7}));
    assert_eq!(said(&Push::Publication(text("", 0)))["pub"], json!({"data": ""}));
    let message = |data: &'static str| Push::Message { data: bytes(data), is_json: false };
    assert_eq!(said(&message("hello"))["message"], json!({"data": "hello"}));
    // What a client had is what it was sent: JSON.
    let (first, second) = (text(TEXT, 7), text(&next, 8));
    let base = Some(first.json());
    let mut said = said(&Push::Delta { publication: second.clone(), base });
    let said = said["pub"].take();
    assert_eq!(said["delta"], true);
    assert_eq!(undone(&said, &json!(TEXT).to_string()), json!(next).to_string());
    let mut result = SubscribeResult {
        recovered: true,
        delta: true,
        publications: vec![first, second],
        ..Default::default()
    };
    let said = reply(&Reply::Subscribe(Box::new(result.clone())))["subscribe"]["publications"].take();
    assert_eq!(said[0]["data"], json!(TEXT).to_string());
    assert_eq!(undone(&said[1], &json!(TEXT).to_string()), json!(next).to_string());
    result.delta = false;
    let said = reply(&Reply::Subscribe(Box::new(result)));
    assert_eq!(said["subscribe"]["publications"][1]["data"], next);
}

#[test]
fn in_protobuf_a_difference_is_marked_and_payloads_stay_bytes() {
    let push = |data: &'static [u8], base: Option<&'static [u8]>| {
        let publication = Publication { data: Bytes::from_static(data), ..publication("", 7) };
        let push = Push::Delta { publication: Arc::new(publication), base: base.map(Bytes::from_static) };
        let mut out = Vec::new();
        protobuf::encode_bare_push("c", &push, &mut out);
        out
    };
    // Field 2 is the channel, 4 the publication; in that, 4 is the data, 6 the offset, 8 says that it is a delta.
    assert_eq!(push(b"\xff\n", None), b"\x0b\x12\x01c\x22\x06\x22\x02\xff\n\x30\x07");
    assert_eq!(push(b"\xff\n", Some(b"\xff\n")), push(b"\xff\n", None));
    let (base, target) =
        (&[b'-'; 64], b"----------------------------------------------------------------\xff");
    let delta = fossil::create(base, target);
    let expected = [&b"\x1d\x12\x01c\x22\x18\x22\x12"[..], &delta, b"\x30\x07\x40\x01"].concat();
    assert_eq!(delta.len(), 0x12);
    assert_eq!(push(target, Some(base)), expected);
}

#[test]
fn what_was_missed_is_the_same_series_in_protobuf() {
    let texts = [1, 2].map(|n| LONG.replace(":1}", &format!(":{n}}}")));
    let publications = texts.clone().map(|text| Arc::new(publication(text.leak(), 0)));
    let result = SubscribeResult {
        recovered: true,
        publications: publications.to_vec(),
        delta: true,
        ..SubscribeResult::default()
    };
    let delta = fossil::create(texts[0].as_bytes(), texts[1].as_bytes());
    for reply in
        [Reply::Subscribe(Box::new(result.clone())), Reply::Connect(Box::new(connect_result(&result)))]
    {
        let mut out = Vec::new();
        protobuf::encode_reply(1, &reply, &mut out);
        let holds = |piece: &[u8]| out.windows(piece.len()).any(|window| window == piece);
        assert!(holds(texts[0].as_bytes()));
        assert!(!holds(texts[1].as_bytes()));
        assert!(
            holds(&[&[0x22, delta.len() as u8], &delta[..], &[0x40, 1]].concat()),
            "field 8 marks the delta"
        );
        // Field 8 says that it is a recovery, 13 that differences were agreed to.
        assert!(out.ends_with(&[0x40, 1, 0x68, 1]));
    }
}
