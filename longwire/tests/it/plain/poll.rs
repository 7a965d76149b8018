//! `/poll`: what a page does that can have neither a WebSocket nor a stream.

use super::{epoch_of, poll, polled, quoted, since, stands};
use crate::harness::{End, LIMIT, Link, Response, TestServer, get, http, until, user_token};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A request for a poll on a connection that is kept.
fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[track_caller]
fn value(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{} {}", response.head, response.text());
    serde_json::from_slice(&response.body).expect("an answer is JSON")
}

#[test]
fn a_first_poll_is_answered_at_once_with_where_it_stands() {
    let server = TestServer::start();
    let epoch = epoch_of(&server, "kept:a");
    let began = Instant::now();
    let response = poll(&server, "channels=kept:a,news&wait=30");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for (name, expected) in [
        ("content-type", Some("application/json")),
        ("cache-control", Some("no-store")),
        ("connection", Some("close")),
        ("etag", None),
        ("last-modified", None),
        ("transfer-encoding", None),
        ("access-control-allow-origin", None),
    ] {
        assert_eq!(response.header(name), expected, "{name}");
    }
    let answer = value(&response);
    assert_eq!(answer["client"].as_str().map(str::len), Some(36), "{answer}");
    assert_eq!(answer["publications"], json!([]), "{answer}");
    assert_eq!(stands(&answer), format!("kept:a=0.{epoch}"));
    assert_eq!(answer.get("recovered"), None, "{answer}");
}

#[test]
fn a_poller_without_a_name_is_given_one_that_nobody_sees() {
    let server = TestServer::start();
    let answer = polled(&server, "channels=kept:a");
    let name = answer["name"].as_str().expect("a name").to_owned();
    assert!(name.len() >= 32 && answer["client"] != answer["name"], "{answer}");
    assert_ne!(polled(&server, "channels=kept:a")["name"], name);
    // Its own is left to it.
    assert_eq!(polled(&server, "channels=kept:a&client=device-42")["name"], "device-42");
    // Where no session is kept, there is nothing to return to.
    let server = TestServer::with(|config| config.plain.grace = Duration::ZERO);
    assert_eq!(polled(&server, "channels=kept:a").get("name"), None);
}

#[test]
fn a_poll_brings_what_was_missed_and_where_to_go_on() {
    let server = TestServer::start();
    let mut at = since(&polled(&server, "channels=kept:a"));
    let epoch = epoch_of(&server, "kept:a");
    for n in 1..=3 {
        server.publish("kept:a", n);
    }
    let answer = polled(&server, &format!("channels=kept:a&since={}", quoted(&at)));
    assert_eq!(answer["recovered"], true, "{answer}");
    let expected: Vec<Value> = (1..=3)
        .map(|n| json!({"channel": "kept:a", "data": n, "offset": n, "id": format!("kept:a={n}.{epoch}")}))
        .collect();
    assert_eq!(answer["publications"], json!(expected));
    at = since(&answer);
    assert_eq!(stands(&answer), format!("kept:a=3.{epoch}"));
    // Nothing comes twice.
    let nothing = polled(&server, &format!("channels=kept:a&wait=0&since={}", quoted(&at)));
    assert_eq!((&nothing["publications"], stands(&nothing)), (&json!([]), stands(&answer)), "{nothing}");
}

#[test]
fn a_poll_waits_for_the_next_publication() {
    let server = TestServer::start();
    let at = since(&polled(&server, "channels=kept:a"));
    let mut link = Link::open(server.address);
    link.send(request(&format!("/poll?channels=kept:a&wait=60&since={}", quoted(&at))).as_bytes());
    until("the poll to be subscribed", || {
        server.api("channels", &json!({}))["result"]["channels"]["kept:a"]["num_clients"] == 1
    });
    server.publish("kept:a", "at last");
    let answer = value(&link.response());
    assert_eq!(answer["publications"][0]["data"], "at last", "{answer}");
    assert_eq!(answer["publications"][0]["offset"], 1, "{answer}");
}

#[test]
fn a_poll_that_nothing_happens_to_is_answered_with_nothing() {
    let server = TestServer::start();
    let at = since(&polled(&server, "channels=kept:a"));
    let began = Instant::now();
    let response = poll(&server, &format!("channels=kept:a&wait=1&since={}", quoted(&at)));
    assert_eq!((response.status, response.body.len()), (204, 0), "{}", response.text());
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("content-length"), None, "a 204 has none");
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_poller_that_stands_nowhere_waits_from_its_second_poll_on() {
    let server = TestServer::start();
    for channels in ["", "&channels=news"] {
        let ask =
            |wait: u32| poll(&server, &format!("client=device-{}{channels}&wait={wait}", channels.len()));
        let first = value(&ask(30));
        assert_eq!((&*stands(&first), first.get("resumed")), ("", None), "{first}");
        let began = Instant::now();
        assert_eq!(ask(1).status, 204, "{channels}");
        assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
        // What is sent to it is heard at once, and between two polls, too.
        server.api("send", &json!({"client": first["client"], "data": "hello"}));
        let heard = value(&ask(30));
        assert_eq!((&heard["publications"], &heard["resumed"]), (&json!([{"data": "hello"}]), &json!(true)));
    }
    // Who asks for a channel with history besides is told at once where it stands there.
    let told = polled(&server, "client=device-0&channels=kept:a&wait=30");
    assert!(since(&told).starts_with("kept:a=0."), "{told}");
}

#[test]
fn nobody_waits_longer_than_is_allowed() {
    let server = TestServer::with(|config| {
        config.plain.max_poll_wait = Duration::from_millis(300);
    });
    let at = quoted(&since(&polled(&server, "channels=kept:a")));
    for wait in ["", "&wait=", "&wait=3600"] {
        let began = Instant::now();
        let response = poll(&server, &format!("channels=kept:a&since={at}{wait}"));
        assert_eq!(response.status, 204, "{wait}");
        assert!(began.elapsed() < Duration::from_secs(20), "{wait}: {:?}", began.elapsed());
    }
}

#[test]
fn what_a_poll_missed_for_ever_is_said() {
    let server = TestServer::start();
    for n in 1..=15 {
        server.publish("kept:a", n);
    }
    let epoch = epoch_of(&server, "kept:a");
    for at in [format!("kept:a=2.{epoch}"), "kept:a=15.otherone".to_owned()] {
        let answer = polled(&server, &format!("channels=kept:a&wait=0&since={}", quoted(&at)));
        assert_eq!(answer["recovered"], false, "{at}: {answer}");
        assert_eq!(stands(&answer), format!("kept:a=15.{epoch}"), "{at}: {answer}");
    }
}

#[test]
fn a_connection_is_kept_from_one_poll_to_the_next_request() {
    let server = TestServer::start();
    let mut link = Link::open(server.address);
    link.send(request("/poll?channels=kept:a").as_bytes());
    let first = link.response();
    assert_eq!(first.header("connection"), Some("keep-alive"), "{}", first.head);
    let mut at = since(&value(&first));
    for n in 1..=5 {
        server.publish("kept:a", n);
        link.send(request(&format!("/poll?channels=kept:a&since={}", quoted(&at))).as_bytes());
        let answer = value(&link.response());
        assert_eq!(answer["publications"][0]["data"], n, "{answer}");
        at = since(&answer);
    }
    // After an answer without anything, too, and whatever comes next.
    link.send(request(&format!("/poll?channels=kept:a&wait=1&since={}", quoted(&at))).as_bytes());
    assert_eq!(link.response().status, 204);
    link.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(link.response().text(), "{}");
    link.send(request("/poll?channels=kept:a").as_bytes());
    assert_eq!(link.response().status, 200);
    link.send(b"GET /sse?channels=kept:a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(link.response().header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(server.server().node().admissions.open(), 1);
}

#[test]
fn the_next_head_on_a_kept_connection_has_the_time_of_every_head() {
    let server = TestServer::with(|config| config.http.head_timeout = Duration::from_millis(300));
    let mut link = Link::open(server.address);
    link.send(request("/poll?channels=news").as_bytes());
    assert_eq!(link.response().status, 200);
    // Before it begins there is more time.
    link.limit(Duration::from_millis(500));
    assert_eq!(link.read_more(), Err(End::Nothing));
    link.limit(LIMIT);
    link.send(b"GET /poll?chann");
    assert_eq!(link.response().status, 408);
    link.finish();
    link.await_end();
    until("the place to be free", || server.server().node().admissions.open() == 0);
}

#[test]
fn a_client_that_cannot_keep_connections_is_told_the_end_of_each() {
    let server = TestServer::start();
    for request in [
        "GET /poll?channels=news HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET /poll?channels=news HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let mut link = Link::open(server.address);
        link.send(request.as_bytes());
        let response = link.response();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")), "{request}");
        assert_eq!(link.await_end(), End::Closed, "{request}");
    }
}

#[test]
fn a_request_sent_before_the_answer_is_not_answered_twice_nor_lost_in_silence() {
    let server = TestServer::start();
    let both = format!("{}{}", request("/poll?channels=news"), request("/health"));
    let response = http(server.address, both);
    // It did not wait for the answer, and is told to repeat itself on another connection (RFC 9112 section 9.3.2).
    assert_eq!((response.status, response.header("connection")), (200, Some("close")), "{}", response.head);
}

#[test]
fn a_poll_that_is_refused_is_an_answer_with_a_status() {
    let server = TestServer::start();
    for (query, status, said) in [
        ("channels=nowhere:a", 400, "unknown channel"),
        ("channels=$private", 403, "permission denied"),
        ("channels=a&token=nonsense", 401, "3500"),
    ] {
        let response = poll(&server, query);
        assert_eq!(response.status, status, "{query}: {}", response.text());
        assert!(response.text().contains(said), "{query}: {}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"), "{query}");
    }
    assert_eq!(server.closes(CloseReason::InvalidToken), 1);
}

#[test]
fn a_poll_whose_connection_is_ended_by_the_backend_says_so() {
    let server = TestServer::start();
    let token = user_token("42");
    let at = quoted(&since(&polled(&server, &format!("channels=kept:a&token={token}"))));
    let mut link = Link::open(server.address);
    link.send(request(&format!("/poll?channels=kept:a&token={token}&wait=60&since={at}")).as_bytes());
    until("the poll to be subscribed", || {
        server.api("channels", &json!({}))["result"]["channels"]["kept:a"]["num_clients"] == 1
    });
    server.api("disconnect", &json!({"user": "42"}));
    let response = link.response();
    assert_eq!(response.status, 403, "{} {}", response.head, response.text());
    assert!(response.text().contains("3503"), "{}", response.text());
}

#[test]
fn an_allowed_page_may_read_every_answer() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    });
    let origin = "Origin: https://app.example\r\n";
    let first = get(server.address, "/poll?channels=kept:a", origin);
    let at = quoted(&since(&value(&first)));
    let timed_out = get(server.address, &format!("/poll?channels=kept:a&wait=0&since={at}"), origin);
    let refused = get(server.address, "/poll?channels=$private", origin);
    let wrong = get(server.address, "/poll?channels=a&wait=x", origin);
    for response in [&first, &timed_out, &refused, &wrong] {
        assert_eq!(
            response.header("access-control-allow-origin"),
            Some("https://app.example"),
            "{}",
            response.head
        );
        assert_eq!(response.header("vary"), Some("Origin"), "{}", response.head);
    }
    let foreign = get(server.address, "/poll?channels=kept:a", "Origin: https://evil.example\r\n");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
}

#[test]
fn an_allowed_page_may_read_when_to_ask_again() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 1;
        // Loopback is exempt; this is who a proxy speaks for.
        config.server.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    });
    let ask = |origin: &str| {
        let headers = format!("X-Forwarded-For: 192.0.2.7\r\nOrigin: {origin}\r\n");
        get(server.address, "/poll?channels=news", &headers)
    };
    assert_eq!(ask("https://app.example").status, 200);
    let refused = ask("https://app.example");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.head);
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(refused.header("access-control-expose-headers"), Some("Retry-After"));
    assert_eq!(ask("https://evil.example").header("access-control-allow-origin"), None);
}

#[test]
fn a_poller_that_leaves_is_not_waited_for() {
    let server = TestServer::with(|config| config.plain.grace = Duration::ZERO);
    let at = quoted(&since(&polled(&server, "channels=kept:a")));
    let mut link = Link::open(server.address);
    link.send(request(&format!("/poll?channels=kept:a&wait=60&since={at}")).as_bytes());
    until("the poll to be subscribed", || {
        server.api("channels", &json!({}))["result"]["channels"]["kept:a"]["num_clients"] == 1
    });
    drop(link);
    until("nobody to be subscribed", || {
        server.api("channels", &json!({}))["result"]["channels"].get("kept:a").is_none()
    });
}

#[test]
fn what_is_kept_nowhere_between_two_polls_makes_none_of_them_return_at_once() {
    let server = TestServer::with(|config| config.plain.grace = Duration::ZERO);
    let at = quoted(&since(&polled(&server, "channels=kept:a,news")));
    let path = format!("/poll?channels=kept:a,news&wait=1&since={at}");
    assert_eq!(get(server.address, &path, "").status, 204);
    server.publish("kept:a", 1);
    let answer = polled(&server, &format!("channels=kept:a,news&since={at}"));
    assert_eq!((&answer["publications"][0]["data"], &answer["recovered"]), (&json!(1), &json!(false)));
}
