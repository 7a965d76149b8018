//! What the backend is told of plain connections, over real sockets: what happened, in which order, and what becomes
//! of it while the backend is slow, wrong or gone.
//!
//! Clients are bare WebSockets and event streams; the backend is that of [`webhooks`](crate::webhooks).

use crate::framing_suite::frame;
use crate::harness::{Events, Raw, Received, TestServer, get, http, until, user_token};
use crate::webhooks::{Asked, Backend, Gate, ok, place, response};
use longwire::config::Config;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A server that tells these of the backend, with changed settings.
fn server_at(address: SocketAddr, names: &[&str], change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        for name in names {
            let webhook = place(config, name);
            webhook.endpoint = Some(format!("http://{address}/{name}"));
            // Generous: the machine may be busy.
            webhook.timeout = Duration::from_secs(20);
        }
        config.plain.grace = Duration::ZERO;
        change(config);
    })
}

fn server(backend: &Backend, names: &[&str], change: impl FnOnce(&mut Config)) -> TestServer {
    server_at(backend.address, names, change)
}

const ALL: [&str; 3] = ["open", "message", "close"];

/// A WebSocket, and what it was welcomed with.
#[track_caller]
fn welcomed(server: &TestServer, query: &str) -> (Raw, Value) {
    let mut socket = Raw::plain(server, query);
    let welcome = socket.value();
    assert_eq!(welcome["type"], "subscribed", "{welcome}");
    (socket, welcome)
}

fn leave(mut socket: Raw) {
    socket.send_bytes(&frame(0x88, &1000u16.to_be_bytes()));
    assert!(matches!(socket.next(), Received::Close(Some(1000), _)));
}

fn nothing() -> String {
    response("204 No Content", "", "")
}

/// What the backend was told of this, in its order.
fn told(backend: &Backend, event: &str) -> Vec<Value> {
    let asked = backend.asked().into_iter().map(|asked| asked.body);
    asked.filter(|body| body["event"] == event).collect()
}

#[track_caller]
fn await_told(backend: &Backend, event: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} calls of {event}"), || told(backend, event).len() >= count);
    told(backend, event)
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["data"].as_str().unwrap_or("none")).collect()
}

#[test]
fn the_backend_is_told_who_comes_what_is_said_and_who_goes() {
    let backend = Backend::start(|_| nothing());
    let server = server(&backend, &ALL, |_| {});
    let (mut client, welcome) = welcomed(&server, "client=device-42&channels=news&room=7");
    client.send("hello");
    client.send(r#"{"a":1}"#);
    client.send_bytes(&frame(0x82, b"\xff\x00"));
    await_told(&backend, "message", 3);
    leave(client);
    await_told(&backend, "close", 1);
    let common = |event: &str, seq: u64, more: Value| {
        let mut body = json!({
            "event": event, "client": welcome["client"], "name": "device-42", "user": "",
            "session": welcome["session"], "seq": seq, "transport": "websocket", "listener": "http",
            "address": "127.0.0.1",
        });
        let members = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(members);
        body
    };
    let mut asked: Vec<Value> = backend.asked().into_iter().map(|asked| asked.body).collect();
    let seconds = asked.last_mut().and_then(|close| close.as_object_mut()?.remove("open_seconds"));
    assert!(seconds.is_some_and(|seconds| seconds.as_u64().is_some_and(|seconds| seconds < 60)));
    let expected = [
        common("open", 0, json!({"query": "room=7", "channels": ["news"]})),
        common("message", 1, json!({"data": "hello"})),
        common("message", 2, json!({"data": "{\"a\":1}"})),
        common("message", 3, json!({"b64data": "/wA="})),
        common(
            "close",
            4,
            json!({
                "reason": "PeerClosed", "category": "client", "code": 1000, "initiator": "peer", "detail": "",
            }),
        ),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn the_answer_to_open_makes_the_connection_what_it_is() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/open" => ok(&json!({
            "user": "42", "join": ["seen:room", "nowhere:x"], "session_data": {"cart": [1]},
            "data": {"hello": asked.body["query"]}, "publish": [{"channel": "seen:room", "data": "somebody came"}],
        })),
        _ => nothing(),
    });
    let server = server(&backend, &ALL, |_| {});
    let (mut client, welcome) = welcomed(&server, "channels=news&as=A");
    let channels = welcome["channels"].as_object().expect("channels");
    assert_eq!(channels.keys().collect::<Vec<_>>(), ["news", "seen:room"], "{welcome}");
    assert_eq!(client.value(), json!({"data": {"hello": "as=A"}}), "right behind the welcome");
    let mut came = client.value();
    while came.get("type").is_some() {
        // That it joined, itself.
        came = client.value();
    }
    assert_eq!((&came["channel"], &came["data"]), (&json!("seen:room"), &json!("somebody came")));
    let presence = &server.api("presence", &json!({"channel": "seen:room"}))["result"]["presence"];
    let id = welcome["client"].as_str().expect("an id");
    assert_eq!(presence[id]["user"], "42", "{presence}");
    client.send("x");
    let message = &await_told(&backend, "message", 1)[0];
    assert_eq!((&message["user"], &message["session_data"]), (&json!("42"), &json!({"cart": [1]})));
}

#[test]
fn a_backend_that_is_asked_about_a_connection_may_send_to_it_already() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::start(move |asked| {
        if asked.path == "/open" {
            held.pass();
        }
        ok(&json!({"data": "answered"}))
    });
    let server = server(&backend, &["open"], |_| {});
    let mut client = Raw::plain(&server, "channels=news");
    let open = &await_told(&backend, "open", 1)[0];
    let send = |body: Value| server.api("send", &body)["result"]["sent"].clone();
    for (body, sent) in [
        (json!({"client": open["client"], "data": "first"}), 1),
        (json!({"all": true, "data": "nobody is here yet"}), 0),
        (json!({"client": open["client"], "data": "second"}), 1),
    ] {
        assert_eq!(send(body.clone()), sent, "{body}");
    }
    gate.open();
    assert_eq!(client.value()["type"], "subscribed");
    let heard = [(); 3].map(|()| client.value()["data"].clone());
    assert_eq!(heard, [json!("first"), json!("second"), json!("answered")]);
}

#[test]
fn the_answer_to_a_message_is_carried_out_before_the_next_one_is_told() {
    let backend = Backend::start(|asked| match asked.body["data"].as_str().unwrap_or_default() {
        "login" => ok(&json!({"user": "42", "session_data": {"n": 1}, "data": "welcome"})),
        "enter" => ok(&json!({
            "join": ["seen:room"], "publish": [{"channel": "seen:room", "data": "to all"}], "data": "you are in",
        })),
        "exit" => ok(&json!({"leave": ["seen:room"], "session_data": null, "b64data": "/w=="})),
        "bye" => ok(&json!({"close": {"code": 4001, "reason": "as you wish"}})),
        _ => nothing(),
    });
    let server = server(&backend, &["message"], |_| {});
    let (mut client, _) = welcomed(&server, "client=a");
    for text in ["login", "enter", "exit", "bye", "too late"] {
        client.send(text);
    }
    assert_eq!(client.value(), json!({"data": "welcome"}));
    let mut seen = Vec::new();
    loop {
        match client.next() {
            Received::Text(text) => seen.push(serde_json::from_str::<Value>(&text).expect("JSON")),
            other => break assert_eq!(other, Received::Close(Some(4001), "as you wish".into())),
        }
    }
    let kinds: Vec<&str> = seen.iter().map(|value| value["type"].as_str().unwrap_or("")).collect();
    let begun = kinds.iter().position(|kind| *kind == "subscribe").expect("it is told that it joined");
    let data = seen.iter().position(|value| value["data"] == "you are in").expect("its data");
    let ended = kinds.iter().position(|kind| *kind == "unsubscribe").expect("it is told that it left");
    let bytes = seen.iter().position(|value| value["b64data"] == "/w==").expect("its bytes");
    assert!(begun < data && data < ended && ended < bytes, "{seen:?}");
    assert!(
        seen.iter().any(|value| value["channel"] == "seen:room" && value["data"] == "to all"),
        "{seen:?}"
    );
    let messages = await_told(&backend, "message", 4);
    let users: Vec<&Value> = messages.iter().map(|message| &message["user"]).collect();
    assert_eq!(users[..4], [&json!(""), &json!("42"), &json!("42"), &json!("42")]);
    let data: Vec<Option<&Value>> = messages.iter().map(|message| message.get("session_data")).collect();
    assert_eq!(data[..4], [None, Some(&json!({"n": 1})), Some(&json!({"n": 1})), None]);
}

#[test]
fn who_the_backend_does_not_want_or_cannot_be_asked_about_does_not_come_in() {
    let backend = Backend::start(|asked| match asked.body["query"].as_str().unwrap_or_default() {
        "401" | "403" | "500" | "404" => {
            response(&format!("{} No", asked.body["query"].as_str().unwrap_or_default()), "", "")
        }
        "garbage" => response("200 OK", "", "<b>Warning</b>"),
        "unknown" => ok(&json!({"jion": ["news"]})),
        "close" => ok(&json!({"close": {"code": 4403, "reason": "banned"}})),
        _ => nothing(),
    });
    let server = server(&backend, &ALL, |_| {});
    let close = |reason: CloseReason| Received::Close(Some(reason.code()), reason.text().to_owned());
    for (query, expected) in [
        ("401", close(CloseReason::PermissionDenied)),
        ("403", close(CloseReason::PermissionDenied)),
        ("500", close(CloseReason::BackendUnavailable)),
        ("404", close(CloseReason::BackendUnavailable)),
        ("garbage", close(CloseReason::BackendUnavailable)),
        ("unknown", close(CloseReason::BackendUnavailable)),
        ("close", Received::Close(Some(4403), "banned".into())),
    ] {
        assert_eq!(Raw::plain(&server, query).next(), expected, "{query}");
    }
    assert_eq!(get(server.address, "/sse?channels=news&403", "").status, 403);
    // What was taken for open is told as closed: three times the backend answered 2xx.
    let closes = await_told(&backend, "close", 3);
    let clients: Vec<&Value> = closes.iter().map(|close| &close["client"]).collect();
    let opens = told(&backend, "open");
    let taken = opens
        .iter()
        .filter(|open| ["garbage", "unknown", "close"].contains(&open["query"].as_str().unwrap_or("")));
    assert_eq!(clients.len(), 3);
    assert!(taken.map(|open| &open["client"]).all(|client| clients.contains(&client)));
}

#[test]
fn a_token_says_who_it_is_and_the_backend_may_know_better() {
    let backend = Backend::start(|asked| match asked.body["user"].as_str() {
        Some("7") => ok(&json!({"user": "seven"})),
        _ => nothing(),
    });
    let server = server(&backend, &ALL, |_| {});
    let (_client, welcome) = welcomed(&server, &format!("channels=seen:a&token={}", user_token("7")));
    assert_eq!(told(&backend, "open")[0]["user"], "7");
    let presence = &server.api("presence", &json!({"channel": "seen:a"}))["result"]["presence"];
    assert_eq!(presence[welcome["client"].as_str().expect("an id")]["user"], "seven", "{presence}");
}

#[test]
fn an_event_stream_is_told_as_a_socket_is() {
    let backend = Backend::start(|asked| match asked.path.as_str() {
        "/open" => ok(&json!({"data": {"hello": 1}})),
        _ => nothing(),
    });
    let server = server(&backend, &ALL, |_| {});
    let mut events = Events::open(server.address, "/sse?channels=news&client=tab-1", "");
    let welcome = events.next();
    assert_eq!(welcome.name, "subscribed");
    assert_eq!(events.next().value(), json!({"data": {"hello": 1}}));
    let session = welcome.value()["session"].as_str().expect("a name").to_owned();
    let request = format!(
        "POST /send?session={session} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    );
    assert_eq!(http(server.address, request).status, 202);
    let message = &await_told(&backend, "message", 1)[0];
    assert_eq!(
        (&message["data"], &message["seq"], &message["name"]),
        (&json!("hi"), &json!(1), &json!("tab-1"))
    );
    assert_eq!(message["transport"], "sse");
    drop(events);
    assert_eq!(await_told(&backend, "close", 1)[0]["seq"], 2);
}

#[test]
fn what_is_said_while_the_backend_is_gone_arrives_once_and_in_order() {
    // A port where nobody listens until the backend is back.
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let server = server_at(address, &["message", "close"], |_| {});
    let mut clients: Vec<Raw> =
        (0..5).map(|number| welcomed(&server, &format!("client=device-{number}")).0).collect();
    let began = Instant::now();
    for text in 0..20 {
        for client in &mut clients {
            client.send(&text.to_string());
        }
    }
    let leaving = clients.pop().expect("one of five");
    leave(leaving);
    let counters = server.server().node().backend.message_counters();
    until("attempts fail for three seconds", || {
        counters.retried.get() > 5 && began.elapsed() > Duration::from_secs(3)
    });
    assert_eq!(counters.delivered.get(), 0);
    let backend = Backend::start_at(address, |_| nothing());
    let messages = await_told(&backend, "message", 100);
    assert_eq!(messages.len(), 100, "nothing is lost or doubled");
    for number in 0..5 {
        let name = json!(format!("device-{number}"));
        let own = messages.iter().filter(|message| message["name"] == name);
        let own: Vec<(u64, &str)> = own
            .map(|message| {
                (message["seq"].as_u64().expect("a number"), message["data"].as_str().expect("text"))
            })
            .collect();
        let expected: Vec<String> = (0..20).map(|text| text.to_string()).collect();
        let expected: Vec<(u64, &str)> = (0..20).zip(expected.iter().map(|text| &**text)).collect();
        assert_eq!(own, expected, "device-{number}");
    }
    // Who left meanwhile is told last of all that it said.
    let close = await_told(&backend, "close", 1).remove(0);
    assert_eq!((&close["name"], &close["seq"]), (&json!("device-4"), &json!(20)));
    assert_eq!(counters.given_up.get() + counters.dropped.get(), 0);
}

#[test]
fn an_attempt_that_fails_is_repeated_under_its_number_before_anything_else_is_told() {
    let attempts = AtomicUsize::new(0);
    let backend = Backend::start(move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 | 3 => response("503 Restarting", "", ""),
        1 => response("429 Slower", "", ""),
        _ => nothing(),
    });
    let server = server(&backend, &["message"], |_| {});
    let (mut client, _) = welcomed(&server, "");
    client.send("a");
    client.send("b");
    let messages = await_told(&backend, "message", 5);
    assert_eq!(texts(&messages), ["a", "a", "a", "b", "b"]);
    let numbers: Vec<&Value> = messages.iter().map(|message| &message["seq"]).collect();
    assert_eq!(numbers, [0, 0, 0, 1, 1]);
}

#[test]
fn a_slow_backend_is_asked_no_more_at_once_than_configured_and_hears_everybody() {
    let gate = Gate::default();
    let (busy, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let backend = {
        let (gate, busy, most) = (gate.clone(), busy.clone(), most.clone());
        Backend::start(move |_| {
            most.fetch_max(busy.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.pass();
            busy.fetch_sub(1, Ordering::SeqCst);
            nothing()
        })
    };
    let server = server(&backend, &["message"], |config| config.webhook.max_in_flight = 3);
    let mut clients: Vec<Raw> = (0..30).map(|_| welcomed(&server, "").0).collect();
    for client in &mut clients {
        client.send("one");
        client.send("two");
    }
    until("three are under way", || busy.load(Ordering::SeqCst) == 3);
    // The server itself is not slow.
    server.publish("news", 1);
    assert_eq!(server.api("info", &json!({}))["result"]["nodes"][0]["num_clients"], 30);
    gate.open();
    let messages = await_told(&backend, "message", 60);
    assert_eq!((messages.len(), most.load(Ordering::SeqCst)), (60, 3));
    for client in 0..30 {
        let id = &messages[client]["client"];
        let own: Vec<Value> = messages.iter().filter(|message| message["client"] == *id).cloned().collect();
        assert_eq!(texts(&own), ["one", "two"]);
    }
}

#[test]
fn a_message_that_is_refused_or_answered_nonsense_is_lost_alone() {
    let backend = Backend::start(|asked| match asked.body["data"].as_str().unwrap_or_default() {
        "400" => response("400 Bad Request", "", ""),
        "404" => response("404 Not Found", "", ""),
        "html" => response("200 OK", "", "<html>Fatal error"),
        "member" => ok(&json!({"joins": ["news"]})),
        _ => ok(&json!({"data": "fine"})),
    });
    let server = server(&backend, &["message"], |_| {});
    let (mut client, _) = welcomed(&server, "");
    for text in ["400", "404", "html", "member", "good"] {
        client.send(text);
    }
    assert_eq!(client.value(), json!({"data": "fine"}));
    assert_eq!(texts(&told(&backend, "message")), ["400", "404", "html", "member", "good"]);
    let counters = server.server().node().backend.message_counters();
    assert_eq!((counters.dropped.get(), counters.retried.get(), counters.delivered.get()), (4, 0, 1));
}

#[test]
fn a_message_that_nobody_takes_for_too_long_ends_the_session_and_nothing_overtakes_it() {
    let is_up = Arc::new(AtomicBool::new(false));
    let backend = {
        let is_up = is_up.clone();
        Backend::start(move |asked| {
            if is_up.load(Ordering::SeqCst) || asked.path == "/close" {
                nothing()
            } else {
                response("502 Gone", "", "")
            }
        })
    };
    let server = server(&backend, &["message", "close"], |config| {
        config.plain.retry_for = Duration::from_millis(700);
    });
    let (mut client, _) = welcomed(&server, "");
    for text in ["lost", "behind", "it"] {
        client.send(text);
    }
    client.expect_close(CloseReason::BackendUnavailable);
    is_up.store(true, Ordering::SeqCst);
    let close = await_told(&backend, "close", 1).remove(0);
    assert_eq!((&close["reason"], &close["category"]), (&json!("BackendUnavailable"), &json!("server")));
    assert!(texts(&told(&backend, "message")).iter().all(|text| *text == "lost"));
    assert_eq!(close["seq"], 1);
    assert_eq!(server.server().node().backend.message_counters().given_up.get(), 3);
}

#[test]
fn what_was_said_before_leaving_is_told_and_its_answers_still_publish() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |asked| {
            gate.pass();
            match asked.path.as_str() {
                "/message" => ok(&json!({
                    "publish": [{"channel": "news", "data": asked.body["data"]}], "data": "nobody reads it",
                    "join": ["seen:a"],
                })),
                _ => nothing(),
            }
        })
    };
    let server = server(&backend, &["message", "close"], |_| {});
    let mut reader = server.connect();
    reader.subscribe("news");
    let (mut client, _) = welcomed(&server, "");
    for text in ["1", "2", "3"] {
        client.send(text);
    }
    await_told(&backend, "message", 1);
    leave(client);
    until("it is gone", || server.closes(CloseReason::PeerClosed) == 1);
    assert!(told(&backend, "close").is_empty(), "its messages come first");
    gate.open();
    await_told(&backend, "close", 1);
    let order: Vec<(Value, String)> =
        backend.asked().into_iter().map(|asked: Asked| (asked.body["seq"].clone(), asked.path)).collect();
    let paths = ["/message", "/message", "/message", "/close"].map(String::from);
    let expected: Vec<(Value, String)> = (0..4).map(Value::from).zip(paths).collect();
    assert_eq!(order, expected);
    let published: Vec<Value> = (0..3).map(|_| reader.value()["push"]["pub"]["data"].clone()).collect();
    assert_eq!(published, ["1", "2", "3"]);
    assert_eq!(server.api("channels", &json!({}))["result"]["channels"].get("seen:a"), None);
}

#[test]
fn who_leaves_while_it_opens_is_told_as_closed_behind_that() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |asked| {
            if asked.path == "/open" {
                gate.pass();
            }
            nothing()
        })
    };
    let server = server(&backend, &ALL, |_| {});
    let client = Raw::plain(&server, "client=hasty");
    await_told(&backend, "open", 1);
    drop(client);
    until("it is gone", || {
        server.closes(CloseReason::PeerClosed) + server.closes(CloseReason::PeerReset) == 1
    });
    assert!(told(&backend, "close").is_empty());
    gate.open();
    let close = await_told(&backend, "close", 1).remove(0);
    assert_eq!((&close["seq"], &close["name"]), (&json!(1), &json!("hasty")));
}

#[test]
fn a_session_whose_messages_wait_takes_no_more_by_request_either() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |_| {
            gate.pass();
            nothing()
        })
    };
    let server = server(&backend, &["message"], |config| config.plain.max_waiting_messages = 2);
    let (_client, welcome) = welcomed(&server, "client=a");
    let session = welcome["session"].as_str().expect("a name");
    let send = |text: &str| {
        let request = format!(
            "POST /send?session={session} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let response = http(server.address, request);
        (response.status, response.header("retry-after").map(str::to_owned))
    };
    assert_eq!(send("under way"), (202, None));
    await_told(&backend, "message", 1);
    assert_eq!((send("1").0, send("2").0), (202, 202));
    assert_eq!(send("3"), (429, Some("1".into())));
    gate.open();
    await_told(&backend, "message", 3);
    until("there is room", || send("4").0 == 202);
    assert_eq!(texts(&await_told(&backend, "message", 4)), ["under way", "1", "2", "4"]);
}

#[test]
fn a_client_that_says_more_than_may_wait_is_read_on_once_the_backend_is_back() {
    for (max_waiting_messages, pause) in [(4, Duration::ZERO), (64, Duration::from_millis(5))] {
        let is_up = Arc::new(AtomicBool::new(false));
        let backend = {
            let is_up = is_up.clone();
            Backend::start(move |_| match is_up.load(Ordering::SeqCst) {
                true => nothing(),
                false => response("503 Restarting", "", ""),
            })
        };
        let server = server(&backend, &["message"], |config| {
            config.plain.max_waiting_messages = max_waiting_messages;
            (config.client.commands_per_second, config.client.command_burst) = (10_000, 10_000);
        });
        let (mut client, _) = welcomed(&server, "client=a");
        for number in 0..300 {
            client.send(&number.to_string());
            std::thread::sleep(pause);
        }
        client.send_bytes(&frame(0x89, b"still there?"));
        await_told(&backend, "message", 1);
        is_up.store(true, Ordering::SeqCst);
        let counters = server.server().node().backend.message_counters();
        until("all is told", || counters.delivered.get() == 300);
        let mut messages = told(&backend, "message");
        messages.dedup_by_key(|message| message["seq"].clone());
        let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        assert_eq!(texts(&messages), expected);
        assert_eq!(client.next(), Received::Pong(b"still there?".to_vec()));
        client.send("and on");
        until("what comes later is told", || counters.delivered.get() == 301);
    }
}

#[test]
fn a_drain_waits_until_the_backend_was_told_what_was_said_and_who_went() {
    let is_up = Arc::new(AtomicBool::new(false));
    let backend = {
        let is_up = is_up.clone();
        Backend::start(
            move |_| if is_up.load(Ordering::SeqCst) { nothing() } else { response("503 No", "", "") },
        )
    };
    let server = server(&backend, &["message", "close"], |config| {
        config.server.drain_deadline = Duration::from_secs(20);
    });
    let (mut client, _) = welcomed(&server, "");
    client.send("1");
    client.send("2");
    await_told(&backend, "message", 1);
    let drained = std::thread::spawn(move || server.drain());
    assert_eq!(client.next(), Received::Close(Some(3001), "shutdown".into()));
    drop(client);
    is_up.store(true, Ordering::SeqCst);
    drained.join().expect("it ends");
    let asked = backend.asked();
    let last: Vec<(&str, &Value)> =
        asked.iter().rev().take(3).map(|asked| (&*asked.path, &asked.body["seq"])).collect();
    assert_eq!(last, [("/close", &json!(2)), ("/message", &json!(1)), ("/message", &json!(0))]);
    assert_eq!(asked.last().expect("some").body["reason"], json!("Drain"));
}

#[test]
fn where_nobody_is_to_be_told_messages_are_counted_and_the_session_goes_on() {
    let server = TestServer::start();
    let (mut client, _) = welcomed(&server, "channels=news");
    for _ in 0..100 {
        client.send("anybody there?");
    }
    let counters = server.server().node().backend.message_counters();
    until("all are counted", || counters.dropped.get() == 100);
    server.publish("news", 1);
    assert_eq!(client.value()["data"], 1);
}

#[test]
fn what_the_answer_to_open_publishes_is_published_although_its_client_left() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::start(move |asked| {
        if asked.path == "/open" && asked.body["query"] == "leaves" {
            held.pass();
            return ok(&json!({"publish": [{"channel": "news", "data": "came"}]}));
        }
        nothing()
    });
    let server = server(&backend, &ALL, |_| {});
    let (mut watcher, _) = welcomed(&server, "channels=news");
    let leaving = Raw::plain(&server, "leaves");
    await_told(&backend, "open", 2);
    leaving.link.reset();
    until("the client to be gone", || server.server().node().admissions.open() == 1);
    gate.open();
    assert_eq!(watcher.value()["data"], "came");
    await_told(&backend, "close", 1);
}

#[test]
fn nobody_is_asked_about_who_left_before_its_turn() {
    let gate = Gate::default();
    let held = gate.clone();
    let backend = Backend::start(move |asked| {
        if asked.body["query"] == "slow" {
            held.pass();
        }
        nothing()
    });
    let server = server(&backend, &ALL, |config| config.webhook.max_in_flight = 1);
    let mut slow = Raw::plain(&server, "slow");
    await_told(&backend, "open", 1);
    let herd: Vec<Raw> = (0..5).map(|_| Raw::plain(&server, "gone")).collect();
    until("all to be there", || server.server().node().admissions.open() == 6);
    herd.into_iter().for_each(|socket| socket.link.reset());
    until("the herd to be gone", || server.server().node().admissions.open() == 1);
    gate.open();
    assert_eq!(slow.value()["type"], "subscribed");
    welcomed(&server, "later");
    let opens = told(&backend, "open");
    let queries: Vec<&Value> = opens.iter().map(|open| &open["query"]).collect();
    assert_eq!(queries, ["slow", "later"]);
    assert!(
        told(&backend, "close")
            .iter()
            .all(|close| opens.iter().any(|open| open["client"] == close["client"]))
    );
}
