//! `POST /send`: the way up for who has none.

use super::{Lines, polled, quoted, since, welcomed};
use crate::harness::{Events, Received, Response, TestServer, http, until};
use crate::webhooks::{Backend, ok, place};
use longwire::config::Config;
use serde_json::{Value, json};
use std::time::Duration;

/// Sends a message; `headers` each with its line end.
fn send(server: &TestServer, session: &str, headers: &str, body: &[u8]) -> Response {
    let mut request = format!(
        "POST /send?session={session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(body);
    http(server.address, request)
}

fn session_of(welcome: &Value) -> String {
    welcome["session"].as_str().unwrap_or_else(|| panic!("no session in {welcome}")).to_owned()
}

/// A server whose backend is told of messages.
fn server(backend: &Backend, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        *place(config, "message") = backend.webhook("message");
        change(config);
    })
}

/// What the backend was told that clients said: `data`, or `b64data`.
fn said(backend: &Backend) -> Vec<Value> {
    backend
        .asked()
        .into_iter()
        .map(|asked| match asked.body.get("data") {
            Some(data) => data.clone(),
            None => json!({"b64data": asked.body["b64data"]}),
        })
        .collect()
}

#[test]
fn a_reader_of_any_stream_says_something_to_the_backend() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = server(&backend, |_| {});
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let mut lines = Lines::open(server.address, "channels=news", "");
    let (_socket, welcome) = welcomed(&server, "channels=news");
    for (index, session) in
        [session_of(&events.next().value()), session_of(&lines.value()), session_of(&welcome)]
            .into_iter()
            .enumerate()
    {
        let response = send(&server, &session, "Content-Type: text/plain\r\n", b"hello");
        assert_eq!((response.status, response.body.len()), (202, 0), "{}", response.text());
        assert_eq!(response.header("cache-control"), Some("no-store"));
        until("the backend to be told", || said(&backend).len() == index + 1);
    }
    assert_eq!(said(&backend), vec![json!("hello"); 3]);
}

#[test]
fn a_message_is_text_if_it_can_be_unless_it_is_said_to_be_none() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = server(&backend, |_| {});
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = session_of(&events.next().value());
    for (headers, body, expected) in [
        ("", &b"{\"a\":1}"[..], json!("{\"a\":1}")),
        ("Content-Type: application/json\r\n", b"{not json", json!("{not json")),
        ("Content-Type: application/octet-stream\r\n", b"abc", json!({"b64data": "YWJj"})),
        ("Content-Type: Application/Octet-Stream; x=y\r\n", b"abc", json!({"b64data": "YWJj"})),
        ("Content-Type: text/plain\r\n", b"\xff\x00", json!({"b64data": "/wA="})),
        ("", b"", json!("")),
    ] {
        let before = said(&backend).len();
        assert_eq!(send(&server, &session, headers, body).status, 202, "{headers}");
        until("the backend to be told", || said(&backend).len() == before + 1);
        assert_eq!(said(&backend)[before], expected, "{headers}");
    }
}

#[test]
fn messages_reach_the_backend_in_the_order_in_which_they_were_taken() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = server(&backend, |_| {});
    let (mut socket, welcome) = welcomed(&server, "channels=news");
    let session = session_of(&welcome);
    for n in 0..20 {
        if n % 2 == 0 {
            assert_eq!(send(&server, &session, "", n.to_string().as_bytes()).status, 202);
        } else {
            socket.send(&n.to_string());
            // Until it was told: the two ways are two connections.
            until("the backend to be told", || said(&backend).len() == n + 1);
        }
    }
    until("the backend to be told", || said(&backend).len() == 20);
    let expected: Vec<Value> = (0..20).map(|n| json!(n.to_string())).collect();
    assert_eq!(said(&backend), expected);
}

#[test]
fn a_poller_speaks_between_two_polls() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = server(&backend, |_| {});
    let session = session_of(&polled(&server, "channels=kept:a"));
    assert_eq!(send(&server, &session, "", b"hello").status, 202);
    until("the backend to be told", || said(&backend) == [json!("hello")]);
}

#[test]
fn a_heartbeat_text_is_taken_and_told_to_nobody() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server = server(&backend, |config| config.listeners[0].heartbeat_messages = vec!["ping".to_owned()]);
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = session_of(&events.next().value());
    assert_eq!(send(&server, &session, "", b"ping").status, 202);
    assert_eq!(send(&server, &session, "", b"something else").status, 202);
    until("the backend to be told", || said(&backend) == [json!("something else")]);
}

#[test]
fn a_heartbeat_text_is_answered_on_the_way_down() {
    for (answer, told) in
        [("pong", json!({"data": "pong"})), ("{\"type\":\n\"pong\"}", json!({"type": "pong"}))]
    {
        let server = TestServer::with(|config| {
            config.listeners[0].heartbeat_messages = vec!["ping".to_owned()];
            config.listeners[0].heartbeat_answer = answer.to_owned();
        });
        let mut events = Events::open(server.address, "/sse?channels=kept:a,kept:b", "");
        let session = session_of(&events.next().value());
        assert_eq!(send(&server, &session, "", b"ping").status, 202);
        let event = events.next();
        assert_eq!((event.value(), event.id), (told.clone(), None), "an answer is no position");

        let mut lines = Lines::open(server.address, "channels=news", "");
        let session = session_of(&lines.value());
        assert_eq!(send(&server, &session, "", b"ping").status, 202);
        assert_eq!(lines.value(), told);

        let (mut socket, welcome) = welcomed(&server, "channels=news");
        assert_eq!(send(&server, &session_of(&welcome), "", b"ping").status, 202);
        assert_eq!(socket.next(), Received::Text(answer.to_owned()), "as on the link itself");

        let first = polled(&server, "channels=kept:a&client=ann");
        let query = format!("channels=kept:a&client=ann&wait=30&since={}", quoted(&since(&first)));
        let session = session_of(&first);
        let answered = std::thread::scope(|scope| {
            let polling = scope.spawn(|| polled(&server, &query));
            // Between two polls there is no way down, and so no answer: it is repeated until the poll is there.
            until("the poll to be answered", || {
                assert_eq!(send(&server, &session, "", b"ping").status, 202);
                polling.is_finished()
            });
            polling.join().expect("it is answered")
        });
        assert_eq!(answered["publications"], json!([told]), "{answered}");
    }
}

#[test]
fn what_cannot_be_taken_is_answered_with_a_status() {
    let gate = crate::webhooks::Gate::default();
    let shut = gate.clone();
    let backend = Backend::start(move |_| {
        shut.pass();
        ok(&json!({}))
    });
    let server = server(&backend, |config| {
        config.plain.max_message_bytes = 100;
        config.plain.max_waiting_messages = 2;
    });
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = session_of(&events.next().value());
    for name in ["nonsense", "0-0-0-00000000000000000000000000000000", "999-0-1-x", ""] {
        assert_eq!(send(&server, name, "", b"x").status, 404, "{name}");
    }
    // A name that was given away, with another client's proof.
    let mut forged = session.clone();
    let last = if forged.ends_with('0') { "1" } else { "0" };
    forged.replace_range(forged.len() - 1.., last);
    assert_eq!(send(&server, &forged, "", b"x").status, 404);
    assert_eq!(send(&server, &session, "", &[b'x'; 101]).status, 413);
    let without = http(
        server.address,
        "POST /send HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
    );
    assert!(without.status == 400 && without.text().contains("\"session\""), "{}", without.text());
    let twice = send(&server, &format!("{session}&session={session}"), "", b"x");
    assert!(twice.status == 400 && twice.text().contains("twice"), "{}", twice.text());
    let get = crate::harness::get(server.address, &format!("/send?session={session}"), "");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST, OPTIONS")));

    // One is on its way to the backend, two wait: there is no room for a fourth.
    let mut taken = 0;
    let full = loop {
        let response = send(&server, &session, "", b"x");
        match response.status {
            202 => taken += 1,
            _ => break response,
        }
        assert!(taken <= 3, "more was taken than may wait");
        if taken == 1 {
            until("the first to be on its way", || backend.asked().len() == 1);
        }
    };
    assert_eq!((taken, full.status, full.header("retry-after")), (3, 429, Some("1")), "{}", full.text());
    gate.open();
    until("all to be told", || backend.asked().len() == 3);
    assert_eq!(send(&server, &session, "", b"x").status, 202);
}

#[test]
fn a_session_of_the_other_dialect_takes_no_plain_message() {
    let server = TestServer::start();
    let request = "POST /connection/http_stream HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"id\":1,\"connect\":{}}";
    let request = request.replace("20", &"{\"id\":1,\"connect\":{}}".len().to_string());
    let mut lines = Lines::of_request(server.address, &request);
    let reply = lines.value();
    let session = reply["connect"]["session"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
    assert_eq!(send(&server, &session, "", b"x").status, 404);
    // And the other way round.
    let (_socket, welcome) = welcomed(&server, "channels=news");
    let node = reply["connect"]["node"].as_str().expect("a node");
    let body = json!({"session": session_of(&welcome), "node": node, "data": "{}"}).to_string();
    assert_eq!(crate::harness::post(server.address, "/emulation", &body).status, 404);
}

#[test]
fn pages_of_foreign_origins_can_send_nothing() {
    let backend = Backend::start(|_| ok(&json!({})));
    let server =
        server(&backend, |config| config.server.allowed_origins = vec!["https://app.example".to_owned()]);
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = session_of(&events.next().value());
    let foreign = send(&server, &session, "Origin: https://evil.example\r\n", b"x");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    let allowed = send(&server, &session, "Origin: https://app.example\r\n", b"y");
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (202, Some("https://app.example"))
    );
    // Of a 429, too: `fetch` shows no other headers.
    assert_eq!(allowed.header("access-control-expose-headers"), Some("Retry-After"));
    until("the backend to be told", || said(&backend) == [json!("y")]);
}

#[test]
fn a_session_that_ended_takes_nothing() {
    let server = TestServer::with(|config| config.plain.grace = Duration::ZERO);
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    let session = session_of(&events.next().value());
    drop(events);
    until("the session to be gone", || send(&server, &session, "", b"x").status == 404);
}
