//! `/stream`: what `fetch` and curl read line by line.

use super::{Lines, epoch_of, quoted, upgrade};
use crate::harness::{Link, TestServer, get, user_token};
use longwire_protocol::CloseReason;
use serde_json::json;

#[test]
fn a_stream_is_a_line_of_json_for_each_thing_that_happens() {
    let server = TestServer::start();
    let epoch = epoch_of(&server, "kept:a");
    let mut lines = Lines::open(server.address, "channels=kept:a,news", "");
    for (name, value) in [
        ("content-type", Some("application/x-ndjson")),
        ("transfer-encoding", Some("chunked")),
        ("cache-control", Some("no-cache, no-store, no-transform, private")),
        ("x-accel-buffering", Some("no")),
        ("content-length", None),
        ("etag", None),
        ("access-control-allow-origin", None),
    ] {
        assert_eq!(lines.head.header(name), value, "{name}");
    }
    let welcome = lines.value();
    assert_eq!(welcome["type"], "subscribed", "{welcome}");
    assert_eq!(welcome["id"], format!("kept:a=0.{epoch}"), "{welcome}");
    server.publish("kept:a", "line\nbreak");
    assert_eq!(
        lines.line(),
        format!(r#"{{"channel":"kept:a","data":"line\nbreak","offset":1,"id":"kept:a=1.{epoch}"}}"#)
    );
    server.publish("news", 2);
    assert_eq!(lines.line(), r#"{"channel":"news","data":2}"#);
}

#[test]
fn an_old_client_reads_until_the_end_of_the_connection() {
    let server = TestServer::start();
    let mut lines =
        Lines::of_request(server.address, "GET /stream?channels=news HTTP/1.0\r\nHost: localhost\r\n\r\n");
    assert_eq!(lines.head.header("transfer-encoding"), None);
    assert_eq!(lines.value()["type"], "subscribed");
    server.publish("news", 1);
    assert_eq!(lines.value(), json!({"channel": "news", "data": 1}));
}

#[test]
fn a_stream_goes_on_from_where_another_stopped() {
    let server = TestServer::start();
    let mut lines = Lines::open(server.address, "channels=kept:a", "");
    let id = lines.value()["id"].as_str().expect("an id").to_owned();
    drop(lines);
    for n in 1..=3 {
        server.publish("kept:a", n);
    }
    let mut lines = Lines::open(server.address, &format!("channels=kept:a&since={}", quoted(&id)), "");
    let welcome = lines.value();
    assert_eq!((&welcome["type"], &welcome["recovered"]), (&json!("recovered"), &json!(true)), "{welcome}");
    for n in 1..=3 {
        assert_eq!(lines.value()["offset"], n);
    }
}

#[test]
fn the_last_line_says_why_the_stream_ends() {
    let server = TestServer::start();
    let mut lines = Lines::open(server.address, &format!("channels=news&token={}", user_token("42")), "");
    lines.value();
    server.api("disconnect", &json!({"user": "42"}));
    let last = lines.value();
    assert_eq!(
        last,
        json!({"type": "disconnect", "code": 3503, "reason": "force disconnect", "reconnect": false})
    );
    assert_eq!(lines.try_line(), Ok(None), "the body has its end");
}

#[test]
fn bare_lines_are_the_data_alone() {
    let server = TestServer::start();
    let mut lines = Lines::open(server.address, "channels=news&format=bare", "");
    server.publish("news", json!({"a": 1}));
    assert_eq!(lines.line(), r#"{"a":1}"#);
    server.publish("news", "text");
    assert_eq!(lines.line(), "text");
}

#[test]
fn a_stream_that_is_refused_is_an_answer_with_a_status() {
    let server = TestServer::start();
    for (path, status, said) in [
        ("/stream?channels=nowhere:a", 400, "unknown channel"),
        ("/stream?channels=$private", 403, "permission denied"),
        ("/stream?channels=a&token=nonsense", 401, "3500"),
    ] {
        let response = get(server.address, path, "");
        assert_eq!(response.status, status, "{path}: {}", response.text());
        assert!(response.text().contains(said), "{path}: {}", response.text());
    }
    assert_eq!(server.closes(CloseReason::InvalidToken), 1);
}

#[test]
fn an_allowed_page_reads_a_stream_and_what_is_wrong_with_its_request() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    });
    let origin = "Origin: https://app.example\r\n";
    let lines = Lines::open(server.address, "channels=news", origin);
    assert_eq!(lines.head.header("access-control-allow-origin"), Some("https://app.example"));
    let refused = get(server.address, "/stream?channels=a&format=xml", origin);
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some("https://app.example"),
        "{}",
        refused.head
    );
    let foreign = get(server.address, "/stream?channels=news", "Origin: https://evil.example\r\n");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
}

#[test]
fn a_connection_that_was_used_before_may_become_any_of_the_four() {
    let server = TestServer::start();
    let before = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    for request in [
        "GET /stream?channels=news HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /sse?channels=news HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /poll?channels=news HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        upgrade(server.address, "/ws?channels=news", ""),
    ] {
        let mut link = Link::open(server.address);
        link.send(before);
        assert_eq!(link.response().status, 200);
        link.send(request.as_bytes());
        let response = link.response();
        assert!(matches!(response.status, 101 | 200), "{request}: {} {}", response.head, response.text());
    }
}
