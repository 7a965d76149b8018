//! Whose session a client that returns gets: by its name and user, by the session's name, or a fresh one.
//!
//! The backend says who a client is in its answer to `open`, or binds it later. What is held against it: whoever knows no
//! more than the name of a client gets nothing that the backend gave a user; the client itself goes on over
//! whichever transport without being asked about again, and one name of a user has one session.

use crate::harness::{Raw, TestServer, get, http, until, user_token};
use crate::webhooks::{Asked, Backend, Gate, ok, place, response};
use longwire::config::{Config, SecondConnection};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::Duration;

/// A backend that takes whoever says so (`?as=42`) for a user.
fn backend() -> Backend {
    Backend::start(answer)
}

fn answer(asked: &Asked) -> String {
    let query = asked.body["query"].as_str().unwrap_or_default();
    match query.strip_prefix("as=") {
        Some(user) if asked.path == "/open" => ok(&json!({"user": user, "join": ["kept:own"]})),
        _ => response("204 No Content", "", ""),
    }
}

fn server(backend: &Backend, change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        for name in ["open", "message", "close"] {
            let webhook = place(config, name);
            webhook.endpoint = Some(format!("http://{}/{name}", backend.address));
            webhook.timeout = Duration::from_secs(20);
        }
        config.server.shards = 3;
        change(config);
    })
}

fn told(backend: &Backend, event: &str) -> Vec<Value> {
    backend.asked().into_iter().map(|asked| asked.body).filter(|body| body["event"] == event).collect()
}

/// A WebSocket, and what it was welcomed with.
#[track_caller]
fn websocket(server: &TestServer, query: &str) -> (Raw, Value) {
    let mut socket = Raw::plain(server, query);
    let welcome = socket.value();
    (socket, welcome)
}

fn session_of(welcome: &Value) -> String {
    welcome["session"].as_str().unwrap_or_else(|| panic!("no session in {welcome}")).to_owned()
}

fn is_resumed(welcome: &Value) -> bool {
    welcome["resumed"] == true
}

/// Breaks a socket off as a network does, and waits until the server has noticed.
#[track_caller]
fn reset(server: &TestServer, socket: Raw) {
    let kept = || -> u64 {
        let counters = &server.server().node().counters;
        counters.iter().map(|shard| shard.sessions_kept.get()).sum()
    };
    let before = kept();
    socket.link.reset();
    until("the break to be noticed", || kept() > before);
}

fn send(server: &TestServer, session: &str) -> u16 {
    let request = format!(
        "POST /send?session={session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    );
    http(server.address, request).status
}

#[test]
fn who_only_knows_the_name_of_a_client_does_not_get_what_the_backend_gave_it() {
    let backend = backend();
    let server = server(&backend, |_| {});
    let (mut first, welcome) = websocket(&server, "client=device-42&as=42");
    assert!(welcome["channels"].get("kept:own").is_some(), "{welcome}");
    for name in ["device-42", "device-42", "device-41"] {
        let (_guest, guest) = websocket(&server, &format!("client={name}"));
        assert!(guest["client"] != welcome["client"] && guest["channels"] == json!({}), "{guest}");
    }
    assert_eq!(told(&backend, "open").len(), 3, "nobody has the name until the backend says so");
    server.publish("kept:own", 1);
    assert_eq!(first.value()["data"], 1);
    // Also once it is away, and with a name that is none of this session's.
    let session = session_of(&welcome);
    reset(&server, first);
    let (start, end) = session.split_at(session.len() - 1);
    let forged = format!("{start}{}", if end == "0" { "1" } else { "0" });
    for wrong in [forged, session.replacen('-', "-9", 1), "nonsense".to_owned(), String::new()] {
        let (_guest, guest) = websocket(&server, &format!("client=device-42&session={wrong}"));
        assert_ne!(guest["client"], welcome["client"], "{wrong}");
    }
    let (_other, other) = websocket(&server, &format!("client=device-43&session={session}"));
    assert_ne!(other["client"], welcome["client"], "of another name");
}

#[test]
fn a_client_that_knows_its_sessions_name_goes_on_whoever_the_backend_made_of_it() {
    let backend = backend();
    let server = server(&backend, |_| {});
    let (socket, welcome) = websocket(&server, "client=device-42&as=42");
    let client = &welcome["client"];
    let mut session = session_of(&welcome);
    reset(&server, socket);
    server.publish("kept:own", 1);
    // With the user's own token as well, and whichever transport it takes.
    for more in ["", "&as=42", &format!("&token={}", user_token("42"))] {
        let (socket, back) = websocket(&server, &format!("client=device-42&session={session}{more}"));
        assert!(back["client"] == *client && is_resumed(&back), "{more}: {back}");
        assert_ne!(session_of(&back), session, "it changes");
        session = session_of(&back);
        reset(&server, socket);
    }
    for _ in 0..3 {
        let query = format!("/poll?client=device-42&wait=0&since=kept:own%3D0.abcdefgh&session={session}");
        let answer = get(server.address, &query, "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(answer["client"], *client, "{answer}");
        session = session_of(&answer);
    }
    // With another user's it is not the same any more.
    let (_other, other) =
        websocket(&server, &format!("client=device-42&session={session}&token={}", user_token("7")));
    assert!(other["client"] != *client && !is_resumed(&other), "{other}");
    let opens = told(&backend, "open");
    assert_eq!(opens.len(), 2, "{opens:?}");
    assert_eq!(opens[1]["query"], "", "what proves a return is nothing for the backend");
}

#[test]
fn one_name_of_a_user_has_one_session_however_it_became_the_users() {
    let backend = backend();
    let server = server(&backend, |config| config.client.max_connections_per_user = 1);
    let (mut first, welcome) = websocket(&server, "client=tab&as=42");
    // It lost the name of its session, so the backend is asked again.
    let (second, again) = websocket(&server, "client=tab&as=42");
    first.expect_close(CloseReason::Replaced);
    assert!(again["client"] != welcome["client"] && !is_resumed(&again), "{again}");
    until("the first to be told as closed", || told(&backend, "close").len() == 1);
    let close = &told(&backend, "close")[0];
    assert_eq!((&close["client"], &close["reason"]), (&welcome["client"], &json!("Replaced")));
    // One that is away has to go as well.
    reset(&server, second);
    let (_third, third) = websocket(&server, "client=tab&as=42");
    until("the second to be told as closed", || told(&backend, "close").len() == 2);
    assert_eq!(server.server().node().admissions.connections_of("42"), 1);
    // By its token the user is found under the same name.
    let (_fourth, fourth) = websocket(&server, &format!("client=tab&token={}", user_token("42")));
    assert!(fourth["client"] == third["client"] && is_resumed(&fourth), "{fourth}");
}

#[test]
fn a_session_that_is_to_stay_keeps_its_name_from_whoever_the_backend_takes_for_the_same() {
    let backend = backend();
    let server = server(&backend, |config| config.plain.second_connection = SecondConnection::Refuse);
    let (mut first, welcome) = websocket(&server, "client=tab&as=42");
    Raw::plain(&server, "client=tab&as=42").expect_close(CloseReason::ClientInUse);
    let (_guest, guest) = websocket(&server, "client=tab");
    let bind = server.api("bind", &json!({"client": guest["client"], "user": "42"}));
    assert_eq!(bind["error"]["code"], 106, "{bind}");
    server.publish("kept:own", 1);
    assert_eq!(first.value()["data"], 1);
    reset(&server, first);
    let (_second, second) = websocket(&server, "client=other&as=7");
    assert_ne!(second["client"], welcome["client"]);
    let bound = server.api("bind", &json!({"client": guest["client"], "user": "42"}));
    assert_eq!(bound, json!({"result": {}}), "who is away is not defended");
    until("the one that was away to be over", || {
        told(&backend, "close").iter().any(|close| close["client"] == welcome["client"])
    });
}

#[test]
fn a_claim_follows_a_client_that_is_bound() {
    let backend = backend();
    let server = server(&backend, |_| {});
    let (socket, welcome) = websocket(&server, "client=x");
    server.api("bind", &json!({"client": welcome["client"], "user": "42"}));
    let (_guest, guest) = websocket(&server, "client=x");
    assert_ne!(guest["client"], welcome["client"]);
    reset(&server, socket);
    let (_back, back) = websocket(&server, &format!("client=x&session={}", session_of(&welcome)));
    assert!(back["client"] == welcome["client"] && is_resumed(&back), "{back}");
    // What is nobody's again is whoever's knows the name.
    drop((_guest, guest));
    server.api("unbind", &json!({"client": welcome["client"]}));
    let (_last, last) = websocket(&server, "client=x");
    assert_eq!(last["client"], welcome["client"]);
}

#[test]
fn who_waited_for_a_session_that_became_a_users_is_asked_about_on_its_own() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::start(move |asked| {
        if asked.path == "/open" && asked.body["query"] == "as=42" {
            held.pass();
        }
        answer(asked)
    });
    let server = server(&backend, |_| {});
    let mut first = Raw::plain(&server, "client=x&as=42");
    until("the first to be asked about", || told(&backend, "open").len() == 1);
    let (first, guest) = std::thread::scope(|scope| {
        // It waits for a session whose client is nobody yet.
        let guest = scope.spawn(|| Raw::plain(&server, "client=x").value());
        until("the guest to be there", || server.server().node().admissions.open() == 2);
        std::thread::sleep(Duration::from_millis(200));
        gate.open();
        (first.value(), guest.join().expect("a welcome"))
    });
    assert!(first["client"] != guest["client"] && guest["channels"] == json!({}), "{guest}");
    assert_eq!(told(&backend, "open").len(), 2);
}

#[test]
fn who_was_replaced_cannot_speak_for_the_client_any_more() {
    let backend = backend();
    let server = server(&backend, |_| {});
    let (mut first, welcome) = websocket(&server, "client=x");
    let former = session_of(&welcome);
    assert_eq!(send(&server, &former), 202);
    let (second, again) = websocket(&server, "client=x");
    first.expect_close(CloseReason::Replaced);
    assert_eq!((&again["client"], send(&server, &former)), (&welcome["client"], 404));
    // A client that shows the name has it until it is told the next one, and has used that.
    let latest = session_of(&again);
    reset(&server, second);
    let (_third, third) = websocket(&server, &format!("client=x&session={latest}"));
    let next = session_of(&third);
    assert_eq!((send(&server, &latest), send(&server, &next), send(&server, &latest)), (202, 202, 404));
}
