//! The event stream at `/sse`, as a browser's `EventSource` sees it: raw bytes over TCP.

use crate::harness::{End, Events, Link, TestServer, get, handshake, in_seconds, post, token, user_token};
use longwire::config::ChannelOptions;
use longwire_protocol::CloseReason;
use serde_json::json;
use std::time::Duration;

fn epoch_of(server: &TestServer, channel: &str) -> String {
    let top = server.api("history", &json!({"channel": channel}));
    top["result"]["epoch"].as_str().expect("an epoch").to_owned()
}

/// A server whose channels `kept:...` recover for whoever asks.
fn server() -> TestServer {
    TestServer::start()
}

#[test]
fn a_stream_begins_with_its_head_and_says_where_it_stands() {
    let server = server();
    let epoch = epoch_of(&server, "kept:a");
    let mut events = Events::open(server.address, "/sse?channels=kept:a,news", "");
    for (name, value) in [
        ("content-type", Some("text/event-stream; charset=utf-8")),
        ("cache-control", Some("no-cache, no-store, no-transform, private")),
        ("x-accel-buffering", Some("no")),
        ("connection", Some("close")),
        ("content-length", None),
        ("access-control-allow-origin", None),
    ] {
        assert_eq!(events.head.header(name), value, "{name}");
    }
    // The advice is part of the first event: a block of its own would have no id.
    let first = events.next();
    assert_eq!((first.name.as_str(), first.retry), ("subscribed", Some(2000)));
    assert_eq!(first.id, Some(format!("kept:a=0.{epoch}")));
    let value = first.value();
    assert_eq!(value["client"].as_str().map(str::len), Some(36), "{value}");
    assert_eq!(value["channels"], json!({"kept:a": {"offset": 0, "epoch": epoch}, "news": {}}));
    assert_eq!(value.get("recovered"), None);
}

#[test]
fn each_publication_names_the_position_up_to_which_everything_was_sent() {
    let server = server();
    let (a, b) = (epoch_of(&server, "kept:a"), epoch_of(&server, "kept:b"));
    let mut one = Events::open(server.address, "/sse?channels=kept:a", "");
    let mut two = Events::open(server.address, "/sse?channel=kept:a&channel=kept:b&channel=news", "");
    assert_eq!(one.next().id, Some(format!("kept:a=0.{a}")));
    assert_eq!(two.next().id, Some(format!("kept:a=0.{a},kept:b=0.{b}")));

    server.publish("kept:a", 1);
    let event = one.next();
    assert_eq!((event.id, event.name.as_str()), (Some(format!("kept:a=1.{a}")), ""));
    assert_eq!(event.data, r#"{"channel":"kept:a","data":1,"offset":1}"#);
    let event = two.next();
    assert_eq!(event.id, Some(format!("kept:a=1.{a},kept:b=0.{b}")));
    assert_eq!(event.data, r#"{"channel":"kept:a","data":1,"offset":1}"#);

    server.publish("kept:b", json!({"x": "line\nbreak"}));
    let event = two.next();
    assert_eq!(event.id, Some(format!("kept:a=1.{a},kept:b=1.{b}")));
    assert_eq!(event.data, r#"{"channel":"kept:b","data":{"x":"line\nbreak"},"offset":1}"#);
    // A channel without history moves nothing.
    server.publish("news", 9);
    let event = two.next();
    assert_eq!(event.id, Some(format!("kept:a=1.{a},kept:b=1.{b}")));
    assert_eq!(event.data, r#"{"channel":"news","data":9}"#);
}

#[test]
fn a_returning_reader_gets_what_it_missed_whichever_way_it_says_where_it_was() {
    let server = server();
    for n in 1..=5 {
        server.publish("kept:a", n);
    }
    server.publish("kept:b", "b");
    let (a, b) = (epoch_of(&server, "kept:a"), epoch_of(&server, "kept:b"));
    let id = format!("kept:a=3.{a},kept:b=1.{b}");
    let header = format!("Last-Event-ID: {id}\r\n");
    let query = format!("/sse?channels=kept:a,kept:b&since={}", id.replace(',', "%2C").replace('=', "%3D"));
    let raw_query = format!("/sse?channels=kept:a,kept:b&since={id}");
    for (path, header) in [
        ("/sse?channels=kept:a,kept:b", header.as_str()),
        (&query, ""),
        (&raw_query, ""),
        // The address is what it was at the first time; the header is newer.
        (&format!("/sse?channels=kept:a,kept:b&since=kept:a=1.{a}"), &header),
    ] {
        let mut events = Events::open(server.address, path, header);
        let first = events.next();
        assert_eq!(first.name, "recovered", "{path}");
        assert_eq!(first.id.as_ref(), Some(&id), "{path}");
        let value = first.value();
        assert_eq!(value["recovered"], true, "{path}");
        assert_eq!(
            value["channels"],
            json!({"kept:a": {"recovered": true, "publications": 2}, "kept:b": {"recovered": true, "publications": 0}})
        );
        for n in 4..=5 {
            let event = events.next();
            assert_eq!(event.id, Some(format!("kept:a={n}.{a},kept:b=1.{b}")));
            assert_eq!(event.value(), json!({"channel": "kept:a", "data": n, "offset": n}));
        }
    }
    // And goes on where it is.
    let mut events = Events::open(server.address, "/sse?channels=kept:a,kept:b", &header);
    for _ in 0..3 {
        events.next();
    }
    server.publish("kept:a", 6);
    assert_eq!(events.next().id, Some(format!("kept:a=6.{a},kept:b=1.{b}")));
}

#[test]
fn a_reader_that_missed_what_is_gone_is_told_so() {
    let server = server();
    for n in 1..=15 {
        server.publish("kept:a", n);
    }
    let epoch = epoch_of(&server, "kept:a");
    for id in [
        format!("kept:a=4.{epoch}"),
        "kept:a=15.otherone".to_owned(),
        format!("kept:b=1.{epoch}"),
        // What another server, or nobody, wrote.
        "7".to_owned(),
        "kept:a=x.y".to_owned(),
        "\u{1f512}".to_owned(),
        "%".repeat(500),
    ] {
        let mut events =
            Events::open(server.address, "/sse?channels=kept:a", &format!("Last-Event-ID: {id}\r\n"));
        let first = events.next();
        assert_eq!(first.name, "recovered", "{id}");
        let value = first.value();
        assert_eq!(value["recovered"], false, "{id}");
        let state = json!({"recovered": false, "offset": 15, "epoch": epoch});
        assert_eq!(value["channels"]["kept:a"], state, "{id}");
        assert_eq!(first.id, Some(format!("kept:a=15.{epoch}")), "{id}");
        server.publish("other", 0);
        server.publish("kept:c", 0);
    }
    // A channel without history recovers nothing, and says that.
    let mut events = Events::open(server.address, "/sse?channels=news", "Last-Event-ID: news=1.abcdefgh\r\n");
    assert_eq!(events.next().value()["recovered"], false);
    // An empty id is none.
    let mut events = Events::open(server.address, "/sse?channels=kept:a", "Last-Event-ID:\r\n");
    assert_eq!(events.next().name, "subscribed");
}

#[test]
fn what_is_wrong_with_a_request_is_said_in_the_response() {
    let server = server();
    let many: Vec<String> = (0..129).map(|n| format!("c{n}")).collect();
    let long = "x".repeat(256);
    let wide: Vec<String> = (0..60).map(|n| format!("{n}{}", "x".repeat(240))).collect();
    for (path, status, said) in [
        ("/sse?channels=a&since=7", 400, "the parameter \"since\" is no position token"),
        ("/sse?channels=a&since=a=1.abcdefgh,", 400, "at byte 12"),
        ("/sse?channels=a&since=a=x.abcdefgh", 400, "at byte 2"),
        ("/sse?channels=a,a", 400, "channel 2 is named twice"),
        ("/sse?channels=a&channel=a%20b", 400, "the name of channel 2"),
        ("/sse?channels=a%0Ab", 400, "the name of channel 1"),
        ("/sse?channel=", 400, "the name of channel 1"),
        (&format!("/sse?channels=a,{long}"), 400, "the name of channel 2"),
        (&format!("/sse?channels={}", many.join(",")), 400, "129 channels"),
        (&format!("/sse?channels={}", wide.join(",")), 400, "too long together"),
        ("/sse?channels=nowhere:a", 400, r#"{"error":{"code":102,"message":"unknown channel"}}"#),
        ("/sse?channels=a,$private", 403, r#"{"error":{"code":103,"message":"permission denied"}}"#),
        ("/sse?channels=a&token=nonsense", 401, r#""code":3500"#),
    ] {
        let response = get(server.address, path, "");
        assert_eq!(response.status, status, "{path}: {}", response.text());
        assert!(response.text().contains(said), "{path}: {}", response.text());
        assert_eq!(response.header("connection"), Some("close"), "{path}");
    }
    let body = "GET /sse?channels=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(crate::harness::http(server.address, body).status, 400);
    assert_eq!(post(server.address, "/sse?channels=a", "").status, 405);
    assert_eq!(server.closes(CloseReason::InvalidToken), 1);
    crate::harness::until("nobody to be left", || {
        server.api("channels", &json!({}))["result"]["channels"] == json!({})
    });
}

#[test]
fn a_token_says_who_reads_in_the_address_or_in_a_header() {
    let server = TestServer::with(|config| {
        config.client.allow_anonymous = false;
        let rooms = ChannelOptions { allow_user_limited_channels: true, ..ChannelOptions::default() };
        config.namespaces.insert("rooms".to_owned(), rooms);
    });
    assert_eq!(get(server.address, "/sse?channels=news", "").status, 400);
    let path = "/sse?channel=rooms:a%2342";
    let (right, wrong) = (user_token("42"), user_token("7"));
    for (path, headers) in [
        (format!("{path}&token={right}"), String::new()),
        (path.to_owned(), format!("Authorization: Bearer {right}\r\n")),
        (path.to_owned(), format!("authorization: bearer  {right} \r\n")),
    ] {
        assert_eq!(Events::open(server.address, &path, &headers).next().name, "subscribed");
    }
    let refused = get(server.address, path, &format!("Authorization: Bearer {wrong}\r\n"));
    assert_eq!((refused.status, refused.text().contains("103")), (403, true), "{}", refused.text());
    let expired = token(&json!({"sub": "42", "exp": in_seconds(-1)}));
    let refused = get(server.address, &format!("{path}&token={expired}"), "");
    assert_eq!((refused.status, refused.text().contains("109")), (401, true), "{}", refused.text());
}

#[test]
fn a_stream_without_channels_waits_for_what_the_backend_does() {
    let server = server();
    for path in ["/sse", "/sse?channels=", "/sse?channels=,,"] {
        let token = user_token("42");
        let mut events = Events::open(server.address, path, &format!("Authorization: Bearer {token}\r\n"));
        assert_eq!(events.next().value()["channels"], json!({}), "{path}");
        server.api("subscribe", &json!({"user": "42", "channel": "news"}));
        assert_eq!(events.next().value()["channels"], json!({"news": {}}), "{path}");
        server.publish("news", 1);
        assert_eq!(events.next().value(), json!({"channel": "news", "data": 1}), "{path}");
    }
}

#[test]
fn a_token_brings_channels_that_need_not_be_asked_for() {
    let server = server();
    let epoch = epoch_of(&server, "kept:a");
    let claims = json!({
        "sub": "42", "exp": in_seconds(60),
        "subs": {"kept:a": {"override": {"force_positioning": {"value": true}}}, "news": {}},
    });
    let path = format!("/sse?token={}", token(&claims));
    let mut events = Events::open(server.address, &path, "");
    let first = events.next();
    assert_eq!(first.name, "subscribed");
    assert_eq!(first.value()["channels"], json!({"kept:a": {"offset": 0, "epoch": epoch}, "news": {}}));
    server.publish("kept:a", 1);
    let event = events.next();
    assert_eq!(event.id, Some(format!("kept:a=1.{epoch}")));
    server.publish("news", 2);
    assert_eq!(events.next().value(), json!({"channel": "news", "data": 2}));
}

#[test]
fn pages_of_foreign_origins_read_nothing_and_allowed_ones_may() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    });
    let path = "/sse?channels=news";
    for foreign in ["https://evil.example", "http://app.example", "https://app.example:8443", "null", "x"] {
        let response = get(server.address, path, &format!("Origin: {foreign}\r\n"));
        assert_eq!(response.status, 403, "{foreign}");
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    let events = Events::open(server.address, path, "Origin: https://app.example\r\n");
    assert_eq!(events.head.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(events.head.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(events.head.header("vary"), Some("Origin"));

    // Without a list a page may talk to the host that served it.
    let server = TestServer::start();
    let own = format!("Origin: http://{}\r\n", server.address);
    assert_eq!(Events::open(server.address, path, &own).next().name, "subscribed");
    assert_eq!(get(server.address, path, "Origin: http://127.0.0.1:1\r\n").status, 403);
    // The same holds for WebSockets.
    let mut link = Link::open(server.address);
    link.send(handshake(server.address, "Origin: http://evil.example\r\n").as_bytes());
    assert_eq!(link.response().status, 403);
}

#[test]
fn a_link_or_an_image_of_another_site_opens_nothing() {
    let server =
        TestServer::with(|config| config.server.allowed_origins = vec!["https://app.example".to_owned()]);
    let fetched = |site: &str, mode: &str| format!("Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\n");
    for path in ["/sse?channels=news", "/stream?channels=news", "/poll?channels=news", "/connection/uni_sse"]
    {
        // Browsers send no origin with these, but a user's cookies.
        for headers in [
            fetched("cross-site", "no-cors"),
            fetched("same-site", "no-cors"),
            fetched("cross-site", "navigate"),
            fetched("same-origin", "navigate"),
            fetched("none", "navigate"),
        ] {
            let refused = get(server.address, path, &headers);
            assert_eq!(refused.status, 403, "{path} {headers}: {}", refused.text());
        }
        for headers in [
            fetched("same-origin", "cors"),
            fetched("cross-site", "cors") + "Origin: https://app.example\r\n",
            String::new(),
        ] {
            let mut link = Link::open(server.address);
            link.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes());
            let head = link.response();
            assert_eq!(head.status, 200, "{path} {headers}: {}", head.text());
            let names = ["x-content-type-options", "cross-origin-resource-policy"];
            assert_eq!(names.map(|name| head.header(name)), [Some("nosniff"), Some("same-origin")], "{path}");
        }
    }
    let refused = get(server.address, "/poll?channels=$private", "");
    assert_eq!((refused.status, refused.header("x-content-type-options")), (403, Some("nosniff")));
}

#[test]
fn a_backend_may_end_a_stream_and_the_reader_learns_why() {
    let server = server();
    let path = format!("/sse?channels=news&token={}", user_token("42"));
    for (custom, code, reason, reconnect) in [
        (json!(null), 3503, "force disconnect", false),
        (json!({"code": 4000, "reason": "come again"}), 4000, "come again", true),
    ] {
        let mut events = Events::open(server.address, &path, "");
        events.next();
        server.api("disconnect", &json!({"user": "42", "disconnect": custom}));
        let event = events.next();
        assert_eq!(event.name, "disconnect");
        assert_eq!(event.value(), json!({"code": code, "reason": reason, "reconnect": reconnect}));
        assert_eq!(events.try_next(), Err(End::Closed));
    }
}

#[test]
fn a_backend_may_change_what_a_stream_reads() {
    let server = server();
    let epoch = epoch_of(&server, "kept:a");
    let path = format!("/sse?channels=kept:a&token={}", user_token("42"));
    let mut events = Events::open(server.address, &path, "");
    events.next();
    server.api("subscribe", &json!({"user": "42", "channel": "news", "data": 5}));
    let event = events.next();
    assert_eq!(
        (event.name.as_str(), event.value()),
        ("subscribed", json!({"channels": {"news": {"data": 5}}}))
    );
    server.publish("news", 1);
    let event = events.next();
    assert_eq!(event.value(), json!({"channel": "news", "data": 1}));
    assert_eq!(event.id, Some(format!("kept:a=0.{epoch}")));
    server.api("unsubscribe", &json!({"user": "42", "channel": "news"}));
    let event = events.next();
    assert_eq!(event.name, "unsubscribe");
    assert_eq!(event.value(), json!({"channel": "news", "code": 2000, "reason": "server unsubscribe"}));
    server.publish("news", 2);
    server.publish("kept:a", 3);
    let event = events.next();
    assert_eq!(
        (event.id, event.data),
        (Some(format!("kept:a=1.{epoch}")), r#"{"channel":"kept:a","data":3,"offset":1}"#.to_owned())
    );
}

#[test]
fn a_streams_token_that_runs_out_ends_it_with_an_invitation_to_return() {
    let server = TestServer::with(|config| config.client.expired_close_delay = Duration::ZERO);
    let short = token(&json!({"sub": "42", "exp": in_seconds(1)}));
    let mut events = Events::open(server.address, &format!("/sse?channels=news&token={short}"), "");
    events.next();
    let event = events.next();
    assert_eq!(event.name, "disconnect");
    assert_eq!(event.value(), json!({"code": 3005, "reason": "connection expired", "reconnect": true}));
    assert_eq!(events.try_next(), Err(End::Closed));
}

#[test]
fn a_stream_shows_joins_and_leaves_and_is_seen_itself() {
    let server = server();
    let mut events = Events::open(server.address, "/sse?channels=seen:a", "");
    let client = events.next().value()["client"].clone();
    let event = events.next();
    let info = json!({"user": "", "client": client});
    assert_eq!((event.name.as_str(), event.value()), ("join", json!({"channel": "seen:a", "info": info})));
    let members = server.api("presence", &json!({"channel": "seen:a"}));
    assert_eq!(members["result"]["presence"][client.as_str().expect("an id")], info);
    let mut guest = server.connect_as("42");
    guest.subscribe("seen:a");
    let info = json!({"user": "42", "client": guest.client});
    assert_eq!(events.next().value(), json!({"channel": "seen:a", "info": info}));
    drop(guest);
    let event = events.next();
    assert_eq!((event.name.as_str(), event.value()), ("leave", json!({"channel": "seen:a", "info": info})));
    drop(events);
    crate::harness::until("the stream to leave", || {
        server.api("presence", &json!({"channel": "seen:a"}))["result"]["presence"] == json!({})
    });
}

#[test]
fn a_browser_may_ask_for_a_stream_on_a_connection_that_it_used_before() {
    let server = server();
    let mut link = Link::open(server.address);
    for _ in 0..3 {
        link.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = link.response();
        assert_eq!((response.status, response.text().as_str()), (200, "{}"));
    }
    let body = r#"{"channel":"kept:a","data":"by hand"}"#;
    link.send(
        format!(
            "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    assert_eq!(link.response().status, 200);
    let epoch = epoch_of(&server, "kept:a");
    link.send(
        format!("GET /sse?channels=kept:a HTTP/1.1\r\nHost: x\r\nLast-Event-ID: kept:a=0.{epoch}\r\n\r\n")
            .as_bytes(),
    );
    let mut events = Events::on(link);
    assert_eq!(events.next().name, "recovered");
    assert_eq!(events.next().value(), json!({"channel": "kept:a", "data": "by hand", "offset": 1}));
    server.publish("kept:a", 2);
    assert_eq!(events.next().value()["data"], 2);

    // Both at once, without waiting for the first answer.
    let mut link = Link::open(server.address);
    link.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /sse?channels=news HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(link.response().text(), "{}");
    let mut events = Events::on(link);
    assert_eq!(events.next().name, "subscribed");
    // And a WebSocket.
    let mut link = Link::open(server.address);
    link.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(link.response().status, 200);
    link.send(handshake(server.address, "").as_bytes());
    assert_eq!(link.response().status, 101);
}

#[test]
fn what_a_reader_sends_behind_its_request_means_nothing() {
    let server = server();
    let mut link = Link::open(server.address);
    link.send(b"GET /sse?channels=news HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut events = Events::on(link);
    assert_eq!(events.next().name, "subscribed");
    events.link.send(&[0xFF; 100_000]);
    server.publish("news", 1);
    assert_eq!(events.next().value(), json!({"channel": "news", "data": 1}));
}

#[test]
fn a_reader_that_does_not_read_is_cut() {
    let server = TestServer::with(|config| {
        config.client.max_outbox_bytes = 256 * 1024;
        config.client.write_timeout = Duration::from_secs(60);
    });
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    events.next();
    let data = "x".repeat(100_000);
    crate::harness::until("the reader to be cut", || {
        server.publish("news", data.as_str());
        server.closes(CloseReason::Slow) > 0
    });
    assert_eq!(events.link.await_end(), End::Reset);
}

#[test]
fn a_reader_whose_link_broke_goes_on_from_its_last_event() {
    let server = server();
    let mut events = Events::open(server.address, "/sse?channels=kept:a", "");
    events.next();
    server.publish("kept:a", 1);
    let id = events.next().id.expect("an id");
    drop(events);
    for n in 2..=4 {
        server.publish("kept:a", n);
    }
    let mut events =
        Events::open(server.address, "/sse?channels=kept:a", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!(events.next().value()["recovered"], true);
    for n in 2..=4 {
        assert_eq!(events.next().value()["data"], n);
    }
}
