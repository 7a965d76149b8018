//! What happens to a client of the plain dialect while it is away, or between two links: time runs out, the backend
//! answers, orders come, the server stops.
//!
//! That it returns at all, and with what, is the subject of [`takeover`](crate::takeover).

use crate::harness::{End, Events, LIMIT, Link, Raw, Response, TestServer};
use crate::harness::{get, http, in_seconds, remembering_channel, token, until, user_token};
use crate::plain::epoch_of;
use crate::takeover::{Stream, away, kept, num_clients, server, watcher, websocket};
use crate::webhooks::{Backend, Gate, ok, place, response};
use longwire::config::{ChannelOptions, Config, RecoveryMode, SecondConnection};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A server that tells a backend of these.
fn telling(backend: &Backend, names: &[&str], change: impl FnOnce(&mut Config)) -> TestServer {
    server(|config| {
        for name in names {
            let webhook = place(config, name);
            *webhook = backend.webhook(name);
            // Generous: the machine may be busy.
            webhook.timeout = Duration::from_secs(20);
        }
        change(config);
    })
}

fn nothing() -> String {
    response("204 No Content", "", "")
}

/// What the backend was told of this, in its order.
fn told(backend: &Backend, event: &str) -> Vec<Value> {
    let asked = backend.asked().into_iter().map(|asked| asked.body);
    asked.filter(|body| body["event"] == event).collect()
}

fn lapsed(server: &TestServer) -> u64 {
    server.server().node().counters.iter().map(|shard| shard.sessions_lapsed.get()).sum()
}

/// A request for an event stream of client `x`, and the link that it went by.
fn ask(server: &TestServer, query: &str) -> Link {
    let mut link = Link::open(server.address);
    link.send(format!("GET /sse?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    link
}

#[test]
fn a_token_ends_the_session_of_a_client_that_is_away_unless_it_shows_a_later_one() {
    let server = server(|config| {
        config.plain.grace = Duration::from_secs(60);
        config.client.expired_close_delay = Duration::ZERO;
    });
    let mut watcher = watcher(&server);
    let query = |expires: i64| {
        let token = token(&json!({"sub": "42", "exp": in_seconds(expires)}));
        format!("client=x&channels=seen:a&token={token}")
    };
    let first = Stream::open(&server, &query(3));
    assert!(watcher.value()["push"].get("join").is_some());
    let client = first.client().to_owned();
    first.leave(&server);
    // A later token counts in the place of the one that it came by.
    let back = Stream::open(&server, &query(4));
    assert_eq!(back.client(), client);
    let began = Instant::now();
    back.leave(&server);
    let leave = watcher.value();
    assert_eq!(leave["push"]["leave"]["info"]["client"], client.as_str(), "{leave}");
    assert!(began.elapsed() > Duration::from_secs(2), "the first token ended it after {:?}", began.elapsed());
    until("the session to be gone", || away(&server) == 0);
    assert_ne!(Stream::open(&server, &query(600)).client(), client);
}

#[test]
fn no_more_sessions_are_kept_than_there_may_be_connections() {
    let server = server(|config| config.server.max_connections = 3);
    let mut clients = Vec::new();
    for name in ["a", "b", "c"] {
        let stream = Stream::open(&server, &format!("client={name}&channels=seen:a"));
        clients.push(stream.client().to_owned());
        stream.leave(&server);
    }
    let mut fourth = Stream::open(&server, "client=d&channels=seen:a");
    let client = fourth.client().to_owned();
    fourth.events.link.finish();
    until("the fourth to be gone", || lapsed(&server) == 1);
    assert_eq!((away(&server), kept(&server), num_clients(&server, "seen:a")), (3, 3, json!(3)));
    let mut fourth = Stream::open(&server, "client=d&channels=seen:a");
    assert_ne!(fourth.client(), client);
    fourth.events.link.finish();
    until("the fourth to be gone again", || lapsed(&server) == 2);
    // One that returned leaves its place to another.
    let back = Stream::open(&server, "client=a&channels=seen:a");
    assert_eq!(back.client(), clients[0]);
    Stream::open(&server, "client=e&channels=seen:a").leave(&server);
    assert_eq!(away(&server), 3);
}

#[test]
fn one_address_has_no_more_sessions_away_than_it_may_have_connections() {
    let server = server(|config| {
        config.server.trusted_proxies = vec![[127, 0, 0, 1].into()];
        config.server.max_connections_per_ip = 3;
    });
    let poll = |address: &str, name: &str| {
        let headers = format!("X-Forwarded-For: {address}\r\n");
        let response = get(server.address, &format!("/poll?channels=seen:a&wait=0&client={name}"), &headers);
        assert_eq!(response.status, 200, "{}", response.text());
    };
    for n in 0..5 {
        poll("192.0.2.1", &format!("{n}"));
    }
    until("two not to be kept", || (away(&server), lapsed(&server)) == (3, 2));
    assert_eq!(num_clients(&server, "seen:a"), 3);
    // Whoever returns has its place, and others are not harmed.
    poll("192.0.2.1", "0");
    poll("192.0.2.2", "0");
    poll("192.0.2.2", "another");
    until("the last to be kept", || away(&server) == 4);
    assert_eq!(lapsed(&server), 2);
}

#[test]
fn who_does_not_ask_again_after_an_answer_is_gone_because_nothing_is_heard_of_it() {
    let backend = Backend::start(|_| nothing());
    let server = telling(&backend, &["close"], |config| config.plain.grace = Duration::from_millis(200));
    let answer = get(server.address, "/poll?channels=seen:a&wait=0&client=x", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    until("the backend to be told", || told(&backend, "close").len() == 1);
    let close = told(&backend, "close").remove(0);
    let cause = (&close["reason"], &close["category"], &close["detail"]);
    assert_eq!(cause, (&json!("NoHeartbeat"), &json!("network"), &json!("the client did not return")));
}

#[test]
fn who_polls_and_is_not_kept_any_longer_is_gone_for_the_reason_of_that() {
    let backend = Backend::start(|_| nothing());
    let server = telling(&backend, &["close"], |config| {
        config.server.max_connections = 3;
        config.server.drain_over = Duration::ZERO;
    });
    for name in ["a", "b", "c", "d"] {
        let ask = || get(server.address, &format!("/poll?channels=seen:a&wait=0&client={name}"), "");
        until("the poll to be answered", || ask().status == 200);
    }
    until("the backend to be told", || told(&backend, "close").len() == 1);
    server.drain();
    let told = told(&backend, "close");
    let causes: Vec<_> = told.iter().map(|close| (&close["reason"], &close["detail"])).collect();
    let full = (json!("Full"), json!("as many sessions are away as may be"));
    let drain = (json!("Drain"), json!("the server is shutting down"));
    assert_eq!(causes[0], (&full.0, &full.1));
    assert_eq!(causes[1..], [(&drain.0, &drain.1); 3], "{told:?}");
}

#[test]
fn who_opens_one_session_after_another_by_one_connection_is_as_fast_as_who_connects() {
    let server = server(|config| {
        config.server.trusted_proxies = vec![[127, 0, 0, 1].into()];
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 20;
    });
    let mut link = Link::open(server.address);
    let mut poll = |query: &str| {
        let head = "HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1";
        link.send(format!("GET /poll?channels=news&{query} {head}\r\n\r\n").as_bytes());
        link.response()
    };
    // One that goes on with its session may do that as often as it likes.
    for _ in 0..60 {
        assert_eq!(poll("client=x&wait=0").status, 200);
    }
    let refused = (0..60).map(|n| poll(&format!("client=other{n}"))).find(|response| response.status == 429);
    assert!(refused.expect("some time it is too fast").header("retry-after").is_some());
}

#[test]
fn where_the_first_is_to_stay_one_of_many_returns_and_the_others_are_refused() {
    let server = server(|config| config.plain.second_connection = SecondConnection::Refuse);
    let first = Stream::open(&server, "client=x&channels=kept:a");
    let client = first.client().to_owned();
    first.leave(&server);
    let links: Vec<(Link, Response)> = std::thread::scope(|scope| {
        let open = || {
            let mut link = ask(&server, "client=x&channels=kept:a");
            let head = link.response();
            (link, head)
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    let mut readers = 0;
    for (link, head) in links {
        assert_eq!(head.status, 200, "a browser is to come back: {}", head.head);
        let mut stream = Events { link, head };
        let event = stream.next();
        if event.name == "disconnect" {
            assert_eq!(event.value()["code"], CloseReason::ClientInUse.code());
            assert_eq!(stream.link.await_end(), End::Closed);
        } else {
            assert_eq!(event.value()["client"], client.as_str());
            readers += 1;
        }
    }
    assert_eq!((readers, server.closes(CloseReason::ClientInUse)), (1, 7));
}

#[test]
fn of_many_that_begin_at_once_under_one_name_the_backend_is_told_of_one() {
    let backend = Backend::start(|_| nothing());
    let server = telling(&backend, &["open", "close"], |_| {});
    let links: Vec<(Link, Response)> = std::thread::scope(|scope| {
        let open = || {
            let mut link = ask(&server, "client=x&channels=seen:a");
            let head = link.response();
            (link, head)
        };
        let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    assert_eq!((num_clients(&server, "seen:a"), away(&server)), (json!(1), 0));
    assert_eq!((told(&backend, "open").len(), told(&backend, "close").len()), (1, 0));
    assert_eq!(server.closes(CloseReason::Replaced), 7);
    drop(links);
}

#[test]
fn a_message_that_is_at_the_backend_is_answered_by_whichever_link_its_client_has() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |asked| match asked.body["event"].as_str() {
            Some("message") => {
                if asked.body["data"] == "1" {
                    gate.pass();
                }
                ok(&json!({"data": {"answer to": asked.body["data"]}, "join": ["kept:room"]}))
            }
            _ => nothing(),
        })
    };
    let server = telling(&backend, &["open", "message", "close"], |_| {});
    let (mut socket, welcome) = websocket(&server, "client=x");
    for text in ["1", "2"] {
        socket.send(text);
    }
    until("the first to be told", || told(&backend, "message").len() == 1);
    let before = kept(&server);
    socket.link.reset();
    until("it to be away", || kept(&server) > before);
    let (mut second, again) = websocket(&server, "client=x");
    assert_eq!((&again["client"], &again["resumed"]), (&welcome["client"], &json!(true)));
    second.send("3");
    // And once more, over another kind of link, while the call is under way still.
    let mut third = Stream::open(&server, "client=x");
    assert_eq!(third.client(), welcome["client"]);
    second.expect_close(CloseReason::Replaced);
    gate.open();
    let mut answers = Vec::new();
    while answers.len() < 3 {
        let event = third.events.next();
        if event.name.is_empty() {
            answers.push(event.value()["data"]["answer to"].clone());
        } else {
            assert!(event.value()["channels"].get("kept:room").is_some(), "{event:?}");
        }
    }
    assert_eq!(answers, ["1", "2", "3"]);
    let order: Vec<(String, Value)> =
        backend.asked().into_iter().map(|asked| (asked.path, asked.body["seq"].clone())).collect();
    let expected = [("/open", 0), ("/message", 1), ("/message", 2), ("/message", 3)];
    assert_eq!(order, expected.map(|(path, seq)| (path.to_owned(), json!(seq))));
}

#[test]
fn what_was_said_is_told_while_its_client_is_away_and_its_answer_waits() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |asked| {
            gate.pass();
            ok(&json!({"data": asked.body["data"]}))
        })
    };
    let server = telling(&backend, &["message"], |_| {});
    let (mut socket, _) = websocket(&server, "client=x&channels=news");
    for text in ["1", "2", "3"] {
        socket.send(text);
    }
    until("the first to be told", || told(&backend, "message").len() == 1);
    let before = kept(&server);
    socket.link.finish();
    until("it to be away", || kept(&server) > before);
    gate.open();
    let counters = server.server().node().backend.message_counters();
    until("all is told", || counters.delivered.get() == 3);
    let (mut back, welcome) = websocket(&server, "client=x");
    assert_eq!(welcome["recovered"], true, "{welcome}");
    assert_eq!([back.value(), back.value(), back.value()], ["1", "2", "3"].map(|data| json!({"data": data})));
}

#[test]
fn a_client_for_whose_messages_there_is_no_room_is_welcomed_again() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |_| {
            gate.pass();
            nothing()
        })
    };
    let server = telling(&backend, &["message"], |config| config.plain.max_waiting_messages = 2);
    let (_first, welcome) = websocket(&server, "client=x");
    let session = welcome["session"].as_str().expect("a name");
    let send = |text: &str| {
        let head = format!("POST /send?session={session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        http(server.address, format!("{head}Content-Length: {}\r\n\r\n{text}", text.len())).status
    };
    assert_eq!(send("under way"), 202);
    until("the first to be told", || told(&backend, "message").len() == 1);
    assert_eq!([send("1"), send("2"), send("3")], [202, 202, 429]);
    let (mut back, again) = websocket(&server, "client=x&channels=news");
    assert_eq!((&again["resumed"], &again["channels"]), (&json!(true), &json!({"news": {}})));
    back.send("4");
    gate.open();
    until("all is told", || told(&backend, "message").len() == 4);
    let texts: Vec<Value> = told(&backend, "message").iter().map(|told| told["data"].clone()).collect();
    assert_eq!(texts, ["under way", "1", "2", "4"]);
}

/// A backend that joins whoever says something to a channel once `joins` is open, and that is asked who may have those of
/// the namespace `ask`, which it answers once `asks` is open.
fn joining(
    wanted: &'static str,
    joins: &Gate,
    asks: &Gate,
    options: ChannelOptions,
) -> (Backend, TestServer) {
    let backend = {
        let (joins, asks) = (joins.clone(), asks.clone());
        Backend::start(move |asked| match asked.path.as_str() {
            "/message" => {
                joins.pass();
                ok(&json!({"join": [wanted]}))
            }
            _ => {
                asks.pass();
                ok(&json!({"result": {}}))
            }
        })
    };
    let server = telling(&backend, &["message", "subscribe"], |config| {
        let asking = ChannelOptions {
            allow_subscribe_for_client: false,
            allow_subscribe_for_anonymous: false,
            subscribe_webhook: "default".into(),
            ..options
        };
        config.namespaces.insert("ask".into(), asking);
    });
    (backend, server)
}

#[test]
fn a_client_that_asks_for_what_the_backend_gives_it_at_that_moment_has_it_from_where_it_stood() {
    // While it is asked about, and before its turn comes.
    for (channels, wanted) in [("ask:x", "ask:x"), ("ask:x,kept:a", "kept:a")] {
        let (joins, asks) = (Gate::default(), Gate::default());
        let (backend, server) = joining(wanted, &joins, &asks, remembering_channel(10));
        let epoch = epoch_of(&server, wanted);
        (1..=3).for_each(|n| drop(server.publish(wanted, n)));
        let (mut first, _) = websocket(&server, "client=x");
        first.send("put me there");
        until("it to be told", || told(&backend, "message").len() == 1);
        let query = format!("client=x&channels={channels}&since={wanted}%3D1.{epoch}");
        let mut back = Raw::plain(&server, &query);
        let is_asked = |path: &str| backend.asked().iter().any(|asked| asked.path == path);
        until("the backend to be asked", || is_asked("/subscribe"));
        joins.open();
        until("it to be joined", || {
            server.api("channels", &json!({}))["result"]["channels"].get(wanted).is_some()
        });
        asks.open();
        let welcome = back.value();
        let stands = json!({"id": format!("{wanted}=1.{epoch}"), "recovered": true, "publications": 2});
        assert_eq!((&welcome["resumed"], &welcome["channels"][wanted]), (&json!(true), &stands), "{welcome}");
        server.publish(wanted, 4);
        assert_eq!([2, 3, 4].map(|_| back.value()["offset"].clone()), [2, 3, 4]);
    }
}

#[test]
fn a_client_that_asks_for_what_the_backend_gives_it_at_that_moment_has_what_that_began_with() {
    let (joins, asks) = (Gate::default(), Gate::default());
    let options = ChannelOptions {
        force_recovery_mode: RecoveryMode::Cache,
        auto_cache_recover: true,
        presence: true,
        ..remembering_channel(1)
    };
    let (backend, server) = joining("ask:x", &joins, &asks, options);
    let epoch = epoch_of(&server, "ask:x");
    (1..=3).for_each(|n| drop(server.publish("ask:x", n)));
    let (mut first, _) = websocket(&server, "client=x");
    first.send("put me there");
    until("it to be told", || told(&backend, "message").len() == 1);
    let mut back = Raw::plain(&server, "client=x&channels=ask:x");
    until("the backend to be asked", || backend.asked().iter().any(|asked| asked.path == "/subscribe"));
    joins.open();
    until("it to be joined", || num_clients(&server, "ask:x") == 1);
    // History keeps one: what it began with is there no more.
    server.publish("ask:x", 4);
    asks.open();
    let welcome = back.value();
    let stands = json!(format!("ask:x=2.{epoch}"));
    assert_eq!(
        (&welcome["resumed"], &welcome["channels"]["ask:x"]["id"]),
        (&json!(true), &stands),
        "{welcome}"
    );
    server.publish("ask:x", 5);
    assert_eq!([3, 4, 5].map(|_| back.value()["offset"].clone()), [3, 4, 5]);
}

#[test]
fn a_server_that_drains_takes_nobody_over() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |asked| {
            // The second that comes is looked at for long.
            if asked.body["data"].is_null() && asked.header("x-slow").is_some() {
                gate.pass();
            }
            ok(&json!({"result": {"user": "42"}}))
        })
    };
    let server = telling(&backend, &["connect"], |config| {
        place(config, "connect").http_headers = vec!["x-slow".into()];
        config.server.drain_over = Duration::ZERO;
    });
    let mut first = Stream::open(&server, "client=x&channels=news");
    let mut second = Link::open(server.address);
    second.send(b"GET /sse?client=x&channels=news HTTP/1.1\r\nHost: x\r\nX-Slow: 1\r\n\r\n");
    until("the second to be looked at", || backend.asked().len() == 2);
    let drained = std::thread::spawn(move || server.drain());
    assert_eq!(first.named("disconnect").value()["code"], 3001);
    gate.open();
    let head = second.response();
    let mut second = Events { link: second, head };
    // Threads drain one after the other: it may have been let in by one that had not begun, into a session of its own.
    let mut event = second.next();
    if event.name != "disconnect" {
        assert_eq!(event.value().get("resumed"), None, "{event:?}");
        event = second.next();
    }
    assert_eq!((second.head.status, event.value()["code"].clone()), (200, json!(3001)), "{event:?}");
    drop((first, second));
    drained.join().expect("it ends");
}

#[test]
fn a_token_that_is_revoked_while_the_backend_is_asked_opens_nothing() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |_| {
            gate.pass();
            ok(&json!({"user": "seven"}))
        })
    };
    let root = tempfile::tempdir().expect("a directory");
    let server = telling(&backend, &["open"], |config| config.server.data_dir = root.path().to_path_buf());
    let token = token(&json!({"sub": "7", "jti": "stolen", "exp": in_seconds(600)}));
    let mut raw = Raw::plain(&server, &format!("client=x&token={token}"));
    until("the backend to be asked", || told(&backend, "open").len() == 1);
    server.api("revoke_token", &json!({"uid": "stolen"}));
    gate.open();
    raw.expect_close(CloseReason::InvalidToken);
    // Its name is free for whoever the user is by another token.
    assert!(
        Stream::open(&server, &format!("client=x&token={}", user_token("7")))
            .welcome
            .get("resumed")
            .is_none()
    );
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_kept() {
    let server = server(|config| config.client.max_outbox_bytes = 64 * 1024);
    let (socket, welcome) = websocket(&server, "client=x&channels=kept:a,kept:b,news");
    socket.link.limit(LIMIT);
    let text = "x".repeat(60_000);
    let mut published = 0;
    while server.closes(CloseReason::Slow) == 0 {
        server.publish(if published % 2 == 0 { "news" } else { "kept:a" }, text.as_str());
        published += 1;
        assert!(published < 2_000, "it is never too slow");
    }
    until("it to be away", || away(&server) == 1);
    server.publish("kept:b", "later");
    let (mut back, again) = websocket(&server, "client=x");
    let recovered = |channel: &str| again["channels"][channel]["recovered"].clone();
    assert_eq!(again["client"], welcome["client"]);
    assert_eq!(
        (recovered("kept:a"), recovered("news"), recovered("kept:b")),
        (false.into(), false.into(), true.into())
    );
    assert_eq!(back.value()["data"], "later");
}

#[test]
fn whoever_is_kicked_while_another_link_is_on_its_way_is_told_by_that() {
    let gate = Gate::default();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |_| {
            gate.pass();
            nothing()
        })
    };
    let server = telling(&backend, &["open"], |_| {});
    // The session is not connected yet, and a second link waits for it.
    let mut first = ask(&server, "client=x&channels=news");
    until("the backend to be asked", || told(&backend, "open").len() == 1);
    let client = told(&backend, "open")[0]["client"].as_str().expect("an id").to_owned();
    let mut second = ask(&server, "client=x&channels=news");
    until("both to be there", || server.server().node().admissions.open() == 2);
    let order = json!({"client": client, "user": "", "disconnect": {"code": 4500, "reason": "banned"}});
    server.api("disconnect", &order);
    gate.open();
    let refused = first.response();
    assert!(refused.text().contains("4500"), "{} {}", refused.head, refused.text());
    // Whichever way it went, it is not let into a session that is over.
    let answer = second.response();
    if answer.status == 200 {
        let mut events = Events { link: second, head: answer };
        let welcome = events.next();
        assert!(welcome.name == "disconnect" || welcome.value()["client"] != client.as_str(), "{welcome:?}");
    }
}

#[test]
fn nobody_else_returns_as_a_client_whatever_it_names() {
    let server = server(|_| {});
    let of = |user: &str| format!("client=x&channels=kept:a&token={}", user_token(user));
    let first = Stream::open(&server, &of("1"));
    let client = first.client().to_owned();
    let session = first.welcome["session"].as_str().expect("a name").to_owned();
    first.leave(&server);
    server.publish("kept:a", "for one");
    for query in [of("2"), "client=x&channels=news".to_owned(), format!("client={client}&channels=news")] {
        let other = Stream::open(&server, &query);
        assert!(other.client() != client && other.welcome.get("resumed").is_none(), "{}", other.welcome);
    }
    let poll = http(
        server.address,
        format!("GET /poll?session={session}&channels=news HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    );
    let answer: Value = serde_json::from_slice(&poll.body).unwrap_or_default();
    assert!(answer.get("resumed").is_none(), "{} {}", poll.head, poll.text());
    let mut back = Stream::open(&server, &of("1"));
    assert_eq!(back.client(), client);
    assert_eq!(back.data(), "for one");
}
