//! `/ws`: what `new WebSocket(...)` sees.

use super::{epoch_of, quoted, upgrade, websocket, welcomed};
use crate::framing_suite::frame;
use crate::harness::{End, Link, Raw, Received, TestServer, user_token};
use longwire::config::DataFormat;
use longwire_protocol::CloseReason;
use serde_json::json;

#[test]
fn a_socket_begins_with_where_it_stands_and_then_reads_publications() {
    let server = TestServer::start();
    let epoch = epoch_of(&server, "kept:a");
    let (mut socket, welcome) = welcomed(&server, "channels=kept:a,news");
    assert_eq!(welcome["type"], "subscribed");
    assert_eq!(welcome["client"].as_str().map(str::len), Some(36), "{welcome}");
    assert!(welcome["session"].as_str().is_some_and(|session| !session.is_empty()), "{welcome}");
    assert_eq!(welcome["channels"]["kept:a"]["id"], format!("kept:a=0.{epoch}"), "{welcome}");
    assert_eq!(welcome["channels"]["news"], json!({}), "{welcome}");
    assert_eq!(welcome["id"], format!("kept:a=0.{epoch}"), "{welcome}");

    server.publish("kept:a", json!({"text": "hello"}));
    let line = socket.line();
    assert_eq!(
        line,
        format!(r#"{{"channel":"kept:a","data":{{"text":"hello"}},"offset":1,"id":"kept:a=1.{epoch}"}}"#)
    );
    server.publish("news", 2);
    assert_eq!(socket.line(), r#"{"channel":"news","data":2}"#);
}

#[test]
fn a_socket_that_asks_for_bare_data_gets_nothing_else() {
    let server = TestServer::with(|config| {
        config.channel.publication_data_format = DataFormat::Binary;
    });
    let mut socket = websocket(&server, "channels=news&format=bare");
    crate::harness::until("the subscription", || {
        server.api("channels", &json!({}))["result"]["channels"]["news"]["num_clients"] == 1
    });
    // There is no welcome: the first thing is data. A string is its text, other JSON is as it was published.
    server.publish("news", "a line of text");
    assert_eq!(socket.next(), Received::Text("a line of text".to_owned()));
    server.publish("news", json!({"a": [1, 2]}));
    assert_eq!(socket.next(), Received::Text(r#"{"a":[1,2]}"#.to_owned()));
    server.api("publish", &json!({"channel": "news", "b64data": "AP8B"}));
    assert_eq!(socket.next(), Received::Binary(vec![0, 255, 1]));
}

#[test]
fn data_that_is_no_json_is_told_in_base64() {
    let server = TestServer::with(|config| {
        config.channel.publication_data_format = DataFormat::Binary;
    });
    let (mut socket, _) = welcomed(&server, "channels=news");
    server.api("publish", &json!({"channel": "news", "b64data": "AP8B"}));
    assert_eq!(socket.value(), json!({"channel": "news", "b64data": "AP8B"}));
}

#[test]
fn a_socket_goes_on_from_the_ids_that_it_read_in_any_order() {
    let server = TestServer::start();
    let (mut socket, _) = welcomed(&server, "channels=kept:a,kept:b");
    server.publish("kept:a", 1);
    server.publish("kept:b", 1);
    let ids: Vec<String> = (0..2).map(|_| socket.value()["id"].as_str().expect("an id").to_owned()).collect();
    drop(socket);
    server.publish("kept:b", 2);
    server.publish("kept:a", 2);
    let since = quoted(&ids.join(","));
    let (mut socket, welcome) = welcomed(&server, &format!("channels=kept:b,kept:a&since={since}"));
    assert_eq!((&welcome["type"], &welcome["recovered"]), (&json!("recovered"), &json!(true)), "{welcome}");
    assert_eq!(welcome["channels"]["kept:a"]["publications"], 1, "{welcome}");
    let mut missed: Vec<(String, u64)> = (0..2)
        .map(|_| {
            let publication = socket.value();
            let channel = publication["channel"].as_str().expect("a channel").to_owned();
            (channel, publication["offset"].as_u64().expect("an offset"))
        })
        .collect();
    missed.sort();
    assert_eq!(missed, [("kept:a".to_owned(), 2), ("kept:b".to_owned(), 2)]);
    server.publish("kept:a", 3);
    assert_eq!(socket.value()["offset"], 3);
}

#[test]
fn what_a_socket_missed_for_ever_is_said() {
    let server = TestServer::start();
    for n in 1..=15 {
        server.publish("kept:a", n);
    }
    let epoch = epoch_of(&server, "kept:a");
    for since in [format!("kept:a=2.{epoch}"), "kept:a=15.otherone".to_owned()] {
        let (_, welcome) = welcomed(&server, &format!("channels=kept:a&since={}", quoted(&since)));
        assert_eq!(welcome["recovered"], false, "{since}: {welcome}");
        assert_eq!(welcome["channels"]["kept:a"]["recovered"], false, "{since}: {welcome}");
        assert_eq!(welcome["channels"]["kept:a"]["id"], format!("kept:a=15.{epoch}"), "{since}: {welcome}");
    }
}

#[test]
fn a_token_says_who_a_socket_is_and_a_wrong_one_ends_it_with_a_code() {
    let server = TestServer::with(|config| config.client.allow_anonymous = false);
    let (_socket, welcome) = welcomed(&server, &format!("channels=news&token={}", user_token("42")));
    let listed = server.api("connections", &json!({"user": "42"}));
    assert!(listed.to_string().contains(welcome["client"].as_str().expect("an id")), "{listed}");
    let header = format!("Authorization: Bearer {}\r\n", user_token("7"));
    let mut socket = Raw::of_request(server.address, &upgrade(server.address, "/ws?channels=news", &header));
    assert_eq!(socket.value()["type"], "subscribed");
    let mut socket = websocket(&server, "channels=news&token=nonsense");
    socket.expect_close(CloseReason::InvalidToken);
    assert_eq!(server.closes(CloseReason::InvalidToken), 1);
}

#[test]
fn a_refused_channel_is_a_close_frame_with_its_code() {
    let server = TestServer::start();
    let mut socket = websocket(&server, "channels=news,$private");
    socket.expect_close(CloseReason::PermissionDenied);
}

#[test]
fn a_socket_without_channels_waits_for_what_the_backend_does() {
    let server = TestServer::start();
    let (mut socket, welcome) = welcomed(&server, &format!("token={}", user_token("42")));
    assert_eq!(welcome["channels"], json!({}), "{welcome}");
    server.api("subscribe", &json!({"user": "42", "channel": "news"}));
    let joined = socket.value();
    assert_eq!((&joined["type"], &joined["channel"]), (&json!("subscribe"), &json!("news")), "{joined}");
    server.publish("news", 1);
    assert_eq!(socket.value(), json!({"channel": "news", "data": 1}));
    server.api("unsubscribe", &json!({"user": "42", "channel": "news"}));
    let left = socket.value();
    assert_eq!((&left["type"], &left["channel"]), (&json!("unsubscribe"), &json!("news")), "{left}");
}

#[test]
fn an_end_by_the_backend_is_the_close_frame_alone() {
    let server = TestServer::start();
    let (mut socket, _) = welcomed(&server, &format!("channels=news&token={}", user_token("42")));
    server.api("disconnect", &json!({"user": "42", "disconnect": {"code": 4321, "reason": "go away"}}));
    assert_eq!(socket.next(), Received::Close(Some(4321), "go away".to_owned()));
}

#[test]
fn heartbeat_texts_are_answered_and_others_are_not() {
    let server = TestServer::with(|config| {
        config.listeners[0].heartbeat_messages = vec!["ping".to_owned(), "Hello!".to_owned()];
        config.listeners[0].heartbeat_answer = "pong".to_owned();
    });
    let (mut socket, _) = welcomed(&server, "channels=news");
    for text in ["ping", "Hello!"] {
        socket.send(text);
        assert_eq!(socket.next(), Received::Text("pong".to_owned()), "{text}");
    }
    // What only looks like one is a message.
    socket.send("ping ");
    server.publish("news", 1);
    assert_eq!(socket.value()["data"], 1);
}

#[test]
fn pings_of_a_client_are_answered_and_its_close_is_too() {
    let server = TestServer::start();
    let (mut socket, _) = welcomed(&server, "channels=news");
    socket.send_bytes(&frame(0x89, b"are you there"));
    assert_eq!(socket.next(), Received::Pong(b"are you there".to_vec()));
    socket.send_bytes(&frame(0x88, &1000u16.to_be_bytes()));
    assert!(matches!(socket.next(), Received::Close(Some(1000), _)));
    socket.link.finish();
    assert_eq!(socket.next(), Received::End(End::Closed));
    server.await_close(CloseReason::PeerClosed);
}

#[test]
fn pages_of_foreign_origins_may_not_open_a_socket() {
    let server = TestServer::start();
    let mut link = Link::open(server.address);
    link.send(upgrade(server.address, "/ws?channels=news", "Origin: http://evil.example\r\n").as_bytes());
    assert_eq!(link.response().status, 403);
    let own = format!("Origin: http://{}\r\n", server.address);
    let mut socket = Raw::of_request(server.address, &upgrade(server.address, "/ws?channels=news", &own));
    assert_eq!(socket.value()["type"], "subscribed");
}

#[test]
fn a_subprotocol_is_neither_needed_nor_spoken() {
    let server = TestServer::start();
    let mut link = Link::open(server.address);
    let header = "Sec-WebSocket-Protocol: chat\r\n";
    link.send(upgrade(server.address, "/ws?channels=news", header).as_bytes());
    let response = link.response();
    assert_eq!(
        (response.status, response.header("sec-websocket-protocol")),
        (101, None),
        "{}",
        response.head
    );
}
