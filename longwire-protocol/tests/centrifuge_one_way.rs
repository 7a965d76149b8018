//! What transports of the centrifuge dialect without a way back hear: a connect request that is no command, and
//! commands that come beside a stream. Text by text, byte by byte.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::centrifuge::json::{EmulationRequest, MAX_DEPTH, decode_connect, decode_emulation};
use longwire_protocol::centrifuge::protobuf;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::{Epoch, Since};

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn a_connect() -> Connect {
    Connect {
        token: "t".into(),
        data: bytes("{\"a\":\n1}"),
        name: "js".into(),
        version: "1".into(),
        headers: vec![("x".into(), "y".into())],
        subs: vec![Subscribe {
            channel: "a".into(),
            recover: Some(Since { offset: 7, epoch: Some(Epoch::parse("abcdefgh")) }),
            ..Subscribe::default()
        }],
        ..Connect::default()
    }
}

#[test]
fn a_lone_connect_request_is_read_as_the_command_is() {
    let connect = |text: &str| decode_connect(&Bytes::copy_from_slice(text.as_bytes()));
    for text in ["", " \n", "{}", " { } \r\n"] {
        assert_eq!(connect(text), Ok(Connect::default()), "{text:?}");
    }
    let text = "\n{\"token\":\"t\",\"data\":{\"a\":\n1},\"name\":\"js\",\"version\":\"1\",\"headers\":{\"x\":\"y\"},\"subs\":{\"a\":{\"recover\":true,\"offset\":7,\"epoch\":\"abcdefgh\"}},\"id\":[5]}\n";
    assert_eq!(connect(text), Ok(a_connect()));

    let deep = format!("{{\"data\":{}1{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    for (text, expected) in [
        ("x", "connect is not a JSON object at byte 0"),
        (" []", "connect is not a JSON object at byte 1"),
        ("{\"token\":\"t\"", "connect is cut off at byte 12"),
        ("{} {}", "something follows connect at byte 3"),
        ("{}\n\nx", "something follows connect at byte 4"),
        (" {\"token\"}", "connect is not valid JSON at byte 9"),
        ("{\"token\":5}", "connect.token is not a valid string at byte 9"),
        (" {\"headers\":5}", "connect.headers is not a map of strings at byte 12"),
        (
            "{\"subs\":{\"a\":{\"offset\":-1}}}",
            "connect.subs.offset is not an unsigned 64-bit integer at byte 23",
        ),
        (&deep, "connect is nested deeper than 64 levels"),
    ] {
        let error = connect(text).expect_err(expected).to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
    assert!(decode_connect(&Bytes::from_static(b"{\"token\":\"\xff\"}")).is_err());
}

#[test]
fn what_comes_beside_a_stream_is_taken_apart() {
    let emulation = |text: &str| decode_emulation(&Bytes::copy_from_slice(text.as_bytes()));
    let text = r#"{"session":"s\u00e9","node":"n","data":"{\"id\":1,\"ping\":{}}\n{}","more":{}}"#;
    let expected = EmulationRequest {
        session: "s\u{e9}".into(),
        node: "n".into(),
        data: bytes("{\"id\":1,\"ping\":{}}\n{}"),
    };
    assert_eq!(emulation(text), Ok(expected));
    assert_eq!(emulation("{\"node\":null}"), Ok(EmulationRequest::default()));
    for (text, expected) in [
        ("", "emulation is not a JSON object at byte 0"),
        ("\"{}\"", "emulation is not a JSON object at byte 0"),
        ("{}x", "something follows emulation at byte 2"),
        ("{\"session\":", "emulation is cut off at byte 11"),
        ("{\"data\":{\"id\":1}}", "emulation.data is not a valid string at byte 8"),
        ("{\"session\":7}", "emulation.session is not a valid string at byte 11"),
        ("{\"node\":[]}", "emulation.node is not a valid string at byte 8"),
    ] {
        assert_eq!(emulation(text).expect_err(expected).to_string(), expected, "{text}");
    }
}

#[test]
fn a_lone_connect_request_has_no_length_in_protobuf() {
    assert_eq!(protobuf::decode_connect(&Bytes::new()), Ok(Connect::default()));
    let message: &[&[u8]] = &[
        b"\x0a\x01t\x12\x08{\"a\":\n1}\x22\x02js\x2a\x011\x32\x06\x0a\x01x\x12\x01y",
        b"\x1a\x13\x0a\x01a\x12\x0e\x18\x01\x32\x08abcdefgh\x38\x07",
    ];
    assert_eq!(protobuf::decode_connect(&message.concat().into()), Ok(a_connect()));
    let error = protobuf::decode_connect(&Bytes::from_static(b"\x0a\x05t")).unwrap_err();
    assert_eq!(error.to_string(), "connect is cut off at byte 3");
    let error = protobuf::decode_connect(&Bytes::from_static(b"\x32\x04\x0a\x02\xff\xff")).unwrap_err();
    assert_eq!(error.to_string(), "connect.headers.key is not a valid string at byte 2");
}

#[test]
fn what_comes_beside_a_stream_is_taken_apart_in_protobuf() {
    let message = Bytes::from_static(b"\x0a\x01n\x12\x02s1\x1a\x03\x00\xff\x01\x20\x05");
    let request = protobuf::decode_emulation(&message).unwrap();
    let expected = EmulationRequest {
        session: "s1".into(),
        node: "n".into(),
        data: Bytes::from_static(b"\x00\xff\x01"),
    };
    assert_eq!(request, expected);
    assert_eq!(protobuf::decode_emulation(&Bytes::new()), Ok(EmulationRequest::default()));
    for (message, expected) in [
        (&b"\x0a\x02n"[..], "emulation is cut off at byte 3"),
        (b"\x08\x02", "emulation.node is not a valid string at byte 0"),
        (b"\x0a\x00\x18\x02", "emulation.data is not a payload at byte 2"),
    ] {
        let error = protobuf::decode_emulation(&Bytes::from_static(message)).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}
