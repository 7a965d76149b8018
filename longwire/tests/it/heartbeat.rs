//! Peers that vanish, peers that are only quiet, and peers that stop reading, in real time.
//!
//! A vanished peer is one whose socket stays open and from which nothing comes. What a heartbeat decides at
//! which time is tested with invented time beside its code; here is what follows from it: who is cut, how,
//! who is told, and what the log says.

use crate::framing_suite::frame;
use crate::harness::{Binary, End, Events, LIMIT, Raw, Received, SECRET, TestServer, until, user_token};
use longwire::config::Config;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Beats every second; a peer has half a second to answer.
fn quick(config: &mut Config) {
    config.heartbeat.interval = Duration::from_secs(1);
    config.heartbeat.timeout = Duration::from_millis(500);
    config.heartbeat.max_silence = Duration::from_secs(2);
}

/// Reads texts, answering beats, until one satisfies `is_it`.
#[track_caller]
fn await_text(raw: &mut Raw, mut is_it: impl FnMut(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT, "it did not come");
        match raw.line() {
            beat if beat == "{}" => raw.send("{}"),
            text if is_it(&text) => return text,
            _ => {}
        }
    }
}

#[test]
fn a_vanished_peer_is_cut_leaves_presence_and_is_logged_once_with_everything_one_wants_to_know() {
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let (server, address) = Binary::serve(&[
        "--heartbeat.interval=2s",
        "--heartbeat.timeout=1s",
        "--heartbeat.max-silence=4s",
        "--client.allow-anonymous",
        "--auth.hmac-secret",
        SECRET,
        "--namespaces.seen.presence",
        "--namespaces.seen.join-leave",
        "--namespaces.seen.force-push-join-leave",
        "--namespaces.seen.allow-subscribe-for-client",
        "--namespaces.seen.allow-subscribe-for-anonymous",
    ]);
    let mut watcher = Raw::open(address);
    watcher.connect("");
    watcher.subscribe("seen:a");
    let mut vanishing = Raw::open(address);
    vanishing.connect(&user_token("42"));
    vanishing.send(r#"{"id":2,"subscribe":{"channel":"seen:a"}}"#);
    let client = vanishing.client.clone();
    await_text(&mut watcher, |text| text.contains("\"join\"") && text.contains(&client));
    let last_sent = Instant::now();

    let leave = await_text(&mut watcher, |text| text.contains("\"leave\""));
    let took = last_sent.elapsed();
    assert!(took < interval + timeout + Duration::from_secs(1), "it took {took:?}");
    let expected =
        json!({"push": {"channel": "seen:a", "leave": {"info": {"user": "42", "client": client}}}});
    assert_eq!(serde_json::from_str::<Value>(&leave).expect("JSON"), expected);
    let members = crate::harness::api(address, "presence", &json!({"channel": "seen:a"}));
    let members = members["result"]["presence"].as_object().expect("a map").clone();
    assert_eq!(members.keys().collect::<Vec<_>>(), [&watcher.client]);
    // Cut, not closed: nobody waits for the answer of the dead.
    assert_eq!(vanishing.link.await_end(), End::Reset);

    let line = server.stderr().await_line("NoHeartbeat");
    let line: Value = serde_json::from_str(&line).expect("the log is JSON");
    for (field, value) in [
        ("reason", json!("NoHeartbeat")),
        ("category", json!("network")),
        ("began", json!("server")),
        ("client", json!(client)),
        // Quoted: a user's name is a stranger's text.
        ("user", json!("\"42\"")),
        ("transport", json!("websocket")),
        ("dialect", json!("centrifuge")),
        ("code", json!(3012)),
        ("advice", json!("reconnect")),
        ("level", json!("INFO")),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    let text = |field: &str| line[field].as_str().unwrap_or_else(|| panic!("{field} in {line}")).to_owned();
    let seconds = |field: &str| {
        let text = text(field);
        let number = text.strip_suffix(" ago").unwrap_or(&text).strip_suffix('s').expect("seconds");
        number.parse::<f64>().expect("a number")
    };
    assert!((1.5..4.0).contains(&seconds("open_for")), "{line}");
    assert!((1.5..4.0).contains(&seconds("last_seen")), "{line}");
    assert!(text("peer").starts_with("127.0.0.1:"), "{line}");
    assert!(text("message").contains("Nothing was heard from the peer"), "{line}");
    // The watcher, who answers, is no part of it.
    let lines = server.stderr().lines();
    let closed: Vec<&String> = lines.iter().filter(|line| line.contains("connection closed")).collect();
    assert_eq!(closed.len(), 1, "{closed:#?}");
}

#[test]
fn a_quiet_client_that_answers_beats_is_kept() {
    let server = TestServer::with(quick);
    let mut raw = server.connect();
    let start = Instant::now();
    let mut beats = 0;
    while start.elapsed() < Duration::from_millis(4500) {
        assert_eq!(raw.line(), "{}");
        raw.send("{}");
        beats += 1;
    }
    assert!((4..=6).contains(&beats), "{beats} beats");
    raw.expect_silence();
    assert_eq!(server.closes(CloseReason::NoHeartbeat), 0);
}

#[test]
fn any_byte_is_a_sign_of_life_even_a_part_of_a_frame() {
    let server = TestServer::with(quick);
    let command = format!(r#"{{"id":2,"publish":{{"channel":"a","data":"{}"}}}}"#, "x".repeat(40));
    // The whole of it takes far longer than a beat may stay unanswered.
    let bytes = frame(0x81, command.as_bytes());
    let mut raw = server.connect();
    raw.link.limit(Duration::from_millis(60));
    let mut beats = 0;
    for byte in &bytes {
        raw.send_bytes(&[*byte]);
        match raw.next() {
            Received::End(End::Nothing) => {}
            Received::Text(beat) if beat == "{}" => beats += 1,
            other => {
                assert_eq!(other, Received::Text(r#"{"id":2,"publish":{}}"#.to_owned()));
            }
        }
    }
    assert!(beats >= 3, "{beats} beats, none of them answered");
    raw.link.limit(LIMIT);
    // The reply, unless it was the last thing that was read above.
    raw.send(r#"{"id":3,"ping":{}}"#);
    await_text(&mut raw, |text| text.starts_with(r#"{"id":3,"#));
    assert_eq!(server.closes(CloseReason::NoHeartbeat), 0);
}

#[test]
fn a_reader_of_events_who_cannot_answer_is_kept_and_gets_beats() {
    let server = TestServer::with(quick);
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    assert_eq!(events.next().name, "subscribed");
    for _ in 0..4 {
        let beat = events.try_next().expect("a beat");
        assert!(beat.is_comment, "{beat:?}");
    }
    server.publish("news", 1);
    assert_eq!(events.next().value(), json!({"channel": "news", "data": 1}));
    assert_eq!(server.closes(CloseReason::NoHeartbeat), 0);
}

#[test]
fn a_connection_that_never_connects_does_not_live_on_answered_beats() {
    let server = TestServer::with(|config| {
        quick(config);
        config.client.connect_timeout = Duration::from_secs(2);
    });
    let mut raw = server.open();
    let start = Instant::now();
    loop {
        match raw.next() {
            Received::Text(beat) if beat == "{}" => raw.send("{}"),
            Received::Close(code, _) => {
                assert_eq!(code, Some(3000));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_peer_that_answers_but_does_not_read_is_cut_when_writing_gets_no_further() {
    let server = TestServer::with(|config| {
        // Time enough for a sign of life between two publications, however busy the machine.
        config.heartbeat.interval = Duration::from_secs(11);
        config.heartbeat.timeout = Duration::from_secs(10);
        config.client.write_timeout = Duration::from_secs(1);
        config.client.max_outbox_bytes = 256 * 1024 * 1024;
    });
    let mut stalled = server.connect();
    stalled.subscribe("news");
    let data = "x".repeat(500_000);
    until("the stalled peer to be cut", || {
        server.publish("news", data.as_str());
        // A sign of life, again and again.
        stalled.send("{}");
        server.closes(CloseReason::WriteStalled) > 0
    });
    // Whether a reset or an end is read depends on whether writing met the reset before.
    assert_ne!(stalled.link.await_end(), End::Nothing);
    assert_eq!((server.closes(CloseReason::NoHeartbeat), server.closes(CloseReason::Slow)), (0, 0));
}

#[test]
fn a_vanished_peer_with_traffic_on_its_way_is_cut_too() {
    let server = TestServer::with(|config| {
        quick(config);
        config.client.max_outbox_bytes = 256 * 1024 * 1024;
    });
    let mut vanished = server.connect();
    vanished.subscribe("news");
    let (start, data) = (Instant::now(), "x".repeat(500_000));
    until("the vanished peer to be cut", || {
        server.publish("news", data.as_str());
        server.closes(CloseReason::NoHeartbeat) + server.closes(CloseReason::WriteStalled) > 0
    });
    assert!(start.elapsed() < Duration::from_millis(2500), "it took {:?}", start.elapsed());
    assert_eq!(vanished.link.await_end(), End::Reset);
}
