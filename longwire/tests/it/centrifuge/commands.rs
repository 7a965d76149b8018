//! Each command's answer, byte for byte, and what closes the connection instead.

use crate::framing_suite::frame;
use crate::harness::{Raw, Received, TestServer};
use longwire_protocol::CloseReason;

#[test]
fn the_first_frame_may_hold_connect_and_subscribes_and_is_answered_in_order() {
    let server = TestServer::start();
    let mut raw = server.open();
    raw.send(
        "{\"id\":1,\"connect\":{\"name\":\"js\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n\
         {\"id\":3,\"subscribe\":{\"channel\":\"nowhere:b\"}}\n{\"id\":4,\"subscribe\":{\"channel\":\"c\"}}\n",
    );
    let connected = raw.value();
    let client = connected["connect"]["client"].as_str().expect("an id");
    assert_eq!(client.len(), 36, "{client}");
    assert_eq!(
        connected.to_string(),
        serde_json::json!({"id": 1, "connect": {
            "client": client, "version": concat!("longwire ", env!("CARGO_PKG_VERSION")), "ping": 25, "pong": true,
        }})
        .to_string()
    );
    assert_eq!(raw.line(), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(raw.line(), r#"{"id":3,"error":{"code":102,"message":"unknown channel"}}"#);
    assert_eq!(raw.line(), r#"{"id":4,"subscribe":{}}"#);
    raw.expect_silence();
}

#[test]
fn a_connect_that_arrives_byte_by_byte_is_answered_like_one_that_arrives_at_once() {
    let server = TestServer::start();
    let mut raw = server.open();
    for byte in frame(0x81, b"{\"id\":7,\"connect\":{}}\n{\"id\":8,\"subscribe\":{\"channel\":\"a\"}}") {
        raw.send_bytes(&[byte]);
    }
    assert!(raw.line().starts_with(r#"{"id":7,"connect":{"client":""#));
    assert_eq!(raw.line(), r#"{"id":8,"subscribe":{}}"#);
}

#[test]
fn every_command_is_answered_in_its_exact_form() {
    let server = TestServer::start();
    let mut raw = server.connect();
    let client = raw.client.clone();
    let info = format!(r#"{{"user":"","client":"{client}"}}"#);

    assert_eq!(raw.ask(r#"{"id":2,"subscribe":{"channel":"news"}}"#), r#"{"id":2,"subscribe":{}}"#);
    assert_eq!(
        raw.ask(r#"{"id":3,"publish":{"channel":"news","data":{"b":1, "a":[]}}}"#),
        r#"{"id":3,"publish":{}}"#
    );
    assert_eq!(
        raw.line(),
        format!(r#"{{"push":{{"channel":"news","pub":{{"data":{{"b":1, "a":[]}},"info":{info}}}}}}}"#)
    );
    assert_eq!(raw.ask(r#"{"id":4,"unsubscribe":{"channel":"news"}}"#), r#"{"id":4,"unsubscribe":{}}"#);

    assert_eq!(raw.ask(r#"{"id":5,"subscribe":{"channel":"seen:a"}}"#), r#"{"id":5,"subscribe":{}}"#);
    assert_eq!(
        raw.ask(r#"{"id":6,"presence":{"channel":"seen:a"}}"#),
        format!(r#"{{"id":6,"presence":{{"presence":{{"{client}":{info}}}}}}}"#)
    );
    assert_eq!(
        raw.ask(r#"{"id":7,"presence_stats":{"channel":"seen:a"}}"#),
        r#"{"id":7,"presence_stats":{"num_clients":1,"num_users":1}}"#
    );
    assert_eq!(
        raw.ask(r#"{"id":7,"presence_stats":{"channel":"seen:empty"}}"#),
        r#"{"id":7,"presence_stats":{"num_clients":0,"num_users":0}}"#
    );
    assert_eq!(
        raw.ask(r#"{"id":8,"presence":{"channel":"seen:empty"}}"#),
        r#"{"id":8,"presence":{"presence":{}}}"#
    );

    let position = raw.ask(r#"{"id":9,"history":{"channel":"kept:a","limit":0}}"#);
    let epoch = position.split('"').rev().nth(3).expect("an epoch").to_owned();
    assert_eq!(epoch.len(), 8, "{position}");
    assert_eq!(
        position,
        format!(r#"{{"id":9,"history":{{"publications":[],"epoch":"{epoch}","offset":0}}}}"#)
    );
    for n in 1..=3 {
        assert_eq!(
            raw.ask(&format!(r#"{{"id":10,"publish":{{"channel":"kept:a","data":{n}}}}}"#)),
            r#"{"id":10,"publish":{}}"#
        );
    }
    let publication = |n: u32| format!(r#"{{"data":{n},"info":{info},"offset":{n}}}"#);
    for (fields, expected) in [
        (r#""limit":-1"#.to_owned(), vec![1, 2, 3]),
        (r#""limit":2"#.to_owned(), vec![1, 2]),
        (r#""limit":2,"reverse":true"#.to_owned(), vec![3, 2]),
        (format!(r#""limit":-1,"since":{{"offset":1,"epoch":"{epoch}"}}"#), vec![2, 3]),
        (format!(r#""limit":-1,"since":{{"offset":3,"epoch":"{epoch}"}},"reverse":true"#), vec![2, 1]),
        (String::from(r#""limit":0"#), vec![]),
    ] {
        let publications: Vec<String> = expected.into_iter().map(publication).collect();
        assert_eq!(
            raw.ask(&format!(r#"{{"id":11,"history":{{"channel":"kept:a",{fields}}}}}"#)),
            format!(
                r#"{{"id":11,"history":{{"publications":[{}],"epoch":"{epoch}","offset":3}}}}"#,
                publications.join(",")
            ),
            "{fields}"
        );
    }
}

#[test]
fn what_cannot_be_done_is_answered_with_its_code() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.subscribe("news");
    let long = "x".repeat(256);
    for (command, code, message) in [
        (r#""subscribe":{"channel":"nowhere:x"}"#, 102, "unknown channel"),
        (r#""subscribe":{"channel":"news"}"#, 105, "already subscribed"),
        (&format!(r#""subscribe":{{"channel":"{long}"}}"#), 107, "bad request"),
        (r#""subscribe":{"channel":"with space"}"#, 107, "bad request"),
        (r#""subscribe":{"channel":"caf\u00e9"}"#, 107, "bad request"),
        (r#""subscribe":{"channel":"a","tf":{"key":"k","cmp":"eq","val":"v"}}"#, 107, "bad request"),
        (r#""subscribe":{"channel":"a","type":1}"#, 108, "not available"),
        (r#""subscribe":{"channel":"$a"}"#, 103, "permission denied"),
        (r#""publish":{"channel":"nowhere:x","data":1}"#, 102, "unknown channel"),
        (r#""publish":{"channel":"news"}"#, 107, "bad request"),
        (r#""publish":{"channel":"news","data":null}"#, 107, "bad request"),
        (&format!(r#""publish":{{"channel":"{long}","data":1}}"#), 107, "bad request"),
        (r#""presence":{"channel":"news"}"#, 108, "not available"),
        (r#""presence_stats":{"channel":"news"}"#, 108, "not available"),
        (r#""presence":{"channel":"nowhere:x"}"#, 102, "unknown channel"),
        (r#""history":{"channel":"news"}"#, 108, "not available"),
        (
            r#""history":{"channel":"kept:a","since":{"offset":1,"epoch":"other123"}}"#,
            112,
            "unrecoverable position",
        ),
        (r#""rpc":{"method":"x","data":{}}"#, 108, "not available"),
        (r#""ping":{}"#, 108, "not available"),
        (r#""sub_refresh":{"channel":"other","token":"x"}"#, 103, "permission denied"),
        (r#""sub_refresh":{"channel":"news","token":""}"#, 107, "bad request"),
    ] {
        assert_eq!(
            raw.ask(&format!(r#"{{"id":9,{command}}}"#)),
            format!(r#"{{"id":9,"error":{{"code":{code},"message":"{message}"}}}}"#),
            "{command}"
        );
    }
    // Never an error: the SDK would reconnect.
    for channel in ["never", "nowhere:x", "with space", ""] {
        assert_eq!(
            raw.ask(&format!(r#"{{"id":10,"unsubscribe":{{"channel":"{channel}"}}}}"#)),
            r#"{"id":10,"unsubscribe":{}}"#
        );
    }
}

/// Sends frames to a fresh connection, connected or not, and expects it to be closed.
fn closes(server: &TestServer, is_connected: bool, sent: &[u8], reason: CloseReason) {
    let mut raw = if is_connected { server.connect() } else { server.open() };
    raw.send_bytes(sent);
    let received = raw.next();
    let expected = Received::Close(Some(reason.code()), reason.text().to_owned());
    assert_eq!(received, expected, "{}", String::from_utf8_lossy(sent));
}

#[test]
fn what_the_protocol_forbids_closes_the_connection_with_its_code() {
    let server = TestServer::start();
    for command in [
        r#"{"id":1,"subscribe":{"channel":"a"}}"#,
        r#"{"id":1,"publish":{"channel":"a","data":1}}"#,
        r#"{"id":1,"rpc":{}}"#,
        r#"{"send":{"data":1}}"#,
        "{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":2,\"connect\":{}}",
    ] {
        closes(&server, false, &frame(0x81, command.as_bytes()), CloseReason::BadRequest);
    }
    for command in [
        r#"{"id":2,"connect":{}}"#,
        r#"{"publish":{"channel":"a","data":1}}"#,
        r#"{"id":0,"subscribe":{"channel":"a"}}"#,
        "",
        " ",
        "\n",
        "\n\n \t\r\n",
        "x",
        "[]",
        "null",
        "{",
        r#"{"id":2,"subscribe":{"channel":"a"}"#,
        r#"{"id":2}"#,
        r#"{"id":2,"unknown":{}}"#,
        r#"{"id":4294967296,"rpc":{}}"#,
        r#"{"id":-1,"rpc":{}}"#,
        r#"{"id":"2","rpc":{}}"#,
        r#"{"id":2,"rpc":[]}"#,
        r#"{"id":2,"subscribe":{"channel":1}}"#,
        r#"{"id":2,"subscribe":{"channel":""}}"#,
        r#"{"id":2,"subscribe":{"channel":"a","delta":"vcdiff"}}"#,
        r#"{"id":2,"publish":{"channel":"","data":1}}"#,
        r#"{"id":2,"sub_refresh":{"channel":"","token":"x"}}"#,
        r#"{"id":2,"refresh":{}}"#,
    ] {
        closes(&server, true, &frame(0x81, command.as_bytes()), CloseReason::BadRequest);
    }
    closes(&server, true, &frame(0x82, br#"{"id":2,"rpc":{}}"#), CloseReason::BadRequest);
    closes(&server, true, &frame(0x81, br#"{"send":{"data":1}}"#), CloseReason::NotAvailable);
    closes(&server, false, &frame(0x81, br#"{"id":1,"connect":{"token":"x"}}"#), CloseReason::InvalidToken);
}

#[test]
fn what_came_before_the_broken_command_is_still_answered() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.send("{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":3,");
    assert_eq!(raw.line(), r#"{"id":2,"subscribe":{}}"#);
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_pong_that_nobody_asked_for_does_no_harm() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.send("{}");
    raw.send("{}\n{}");
    raw.expect_silence();
}

#[test]
fn an_accepted_delta_or_filter_option_that_is_not_granted_is_not_in_the_reply() {
    let server = TestServer::start();
    let mut raw = server.connect();
    let reply = raw.ask(r#"{"id":2,"subscribe":{"channel":"a","delta":"fossil","flag":1}}"#);
    assert_eq!(reply, r#"{"id":2,"subscribe":{}}"#);
}

#[test]
fn a_close_frame_is_answered_with_its_code() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.send_bytes(&frame(0x88, &[&1000u16.to_be_bytes()[..], b"bye"].concat()));
    assert_eq!(raw.next(), Received::Close(Some(1000), String::new()));
    server.await_close(CloseReason::PeerClosed);
}

#[test]
fn a_websocket_ping_is_answered_between_commands() {
    let server = TestServer::start();
    let mut raw = server.connect();
    raw.send_bytes(&frame(0x89, b"are you there"));
    assert_eq!(raw.next(), Received::Pong(b"are you there".to_vec()));
    raw.expect_silence();
}

#[test]
fn a_payload_comes_out_as_it_went_in_but_for_line_breaks() {
    let server = TestServer::start();
    let (mut reader, mut writer) = (server.connect(), server.connect());
    reader.subscribe("news");
    for (sent, received) in [
        ("{ \"a\" : 1 }", "{ \"a\" : 1 }"),
        ("\"\\u0041\\n\"", "\"\\u0041\\n\""),
        ("1e2", "1e2"),
        ("[1,\n 2]", "[1,  2]"),
        ("{\"dup\":1,\"dup\":2}", "{\"dup\":1,\"dup\":2}"),
        ("\"\u{1f512}\"", "\"\u{1f512}\""),
    ] {
        writer.send(&format!("{{\"id\":3,\"publish\":{{\"channel\":\"news\",\"data\":{sent}}}}}"));
        assert_eq!(writer.line(), r#"{"id":3,"publish":{}}"#, "{sent}");
        let push = reader.line();
        assert!(
            push.starts_with(&format!(
                "{{\"push\":{{\"channel\":\"news\",\"pub\":{{\"data\":{received},\"info\""
            )),
            "{push}"
        );
    }
}

#[test]
fn compressed_frames_are_understood_and_sent() {
    let server = TestServer::with(|config| config.websocket.compression = true);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut raw = Raw::open_with(server.address, offer);
    // A stored block, whose tail of four bytes is left out (RFC 7692 section 7.2.1).
    let text = br#"{"id":1,"connect":{}}"#;
    let len = text.len() as u16;
    let deflated = [&[0x00][..], &len.to_le_bytes(), &(!len).to_le_bytes(), text, &[0x00]].concat();
    raw.send_bytes(&frame(0xC1, &deflated));
    assert!(raw.line().starts_with(r#"{"id":1,"connect":"#));
    raw.subscribe("news");
    server.publish("news", "x".repeat(2000));
    let (first, payload) = raw.frame().expect("a frame");
    assert_eq!(first, 0xC1, "a text frame that is compressed");
    assert!(payload.len() < 200, "{} bytes", payload.len());
    server.publish("news", "small");
    assert_eq!(raw.line(), r#"{"push":{"channel":"news","pub":{"data":"small"}}}"#);
}
