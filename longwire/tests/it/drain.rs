//! How a server ends: it tells everybody, spread over a time, and is gone before its deadline.

use crate::harness::{Binary, End, Events, Link, Raw, Received, TestServer, api, get, post, until};
use crate::webhooks::{Backend, Gate, place, response};
use serde_json::json;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[test]
fn a_drain_tells_every_client_to_come_back_spread_over_its_time() {
    let over = Duration::from_secs(2);
    let server = TestServer::with(|config| {
        config.server.drain_over = over;
        config.server.drain_deadline = Duration::from_secs(20);
    });
    let mut clients: Vec<Raw> = (0..40).map(|_| server.connect()).collect();
    let mut unconnected = server.open();
    let mut events = Events::open(server.address, "/sse?channels=news", "");
    events.next();
    let address = server.address;
    let start = Instant::now();
    let drained = std::thread::spawn(move || {
        server.drain();
        start.elapsed()
    });
    // Each is waited for in a thread of its own, or the order of waiting would hide the spread.
    let waiting: Vec<_> = clients
        .drain(..)
        .map(|mut raw| {
            std::thread::spawn(move || {
                assert_eq!(raw.next(), Received::Close(Some(3001), "shutdown".to_owned()));
                start.elapsed()
            })
        })
        .collect();
    let times: Vec<Duration> = waiting.into_iter().map(|one| one.join().expect("it is told")).collect();
    let (first, last) = (times.iter().min().expect("some"), times.iter().max().expect("some"));
    assert!(*last < over + Duration::from_secs(2), "the last is told after {last:?}");
    // Of forty drawn times, with near certainty.
    assert!(*last - *first > over / 3, "all are told between {first:?} and {last:?}");
    assert_eq!(unconnected.next(), Received::Close(Some(3001), "shutdown".to_owned()));
    let event = events.next();
    assert_eq!(event.value(), json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
    assert_eq!(events.try_next(), Err(End::Closed));
    drop((unconnected, events));
    let took = drained.join().expect("it ends");
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn a_draining_server_answers_the_backend_until_all_is_told_and_takes_nobody_else() {
    // A backend as most are: it takes a message by publishing something.
    let (gate, server_at) = (Gate::default(), Arc::new(OnceLock::<SocketAddr>::new()));
    let backend = {
        let (gate, server_at) = (gate.clone(), server_at.clone());
        Backend::start(move |_| {
            gate.pass();
            let body = json!({"channel": "news", "data": "taken"}).to_string();
            let published = post(*server_at.get().expect("it is set"), "/api/publish", &body);
            response(if published.status == 200 { "204 No Content" } else { "500 No" }, "", "")
        })
    };
    let server = TestServer::with(|config| {
        place(config, "message").endpoint = Some(format!("http://{}/message", backend.address));
        place(config, "message").timeout = Duration::from_secs(20);
        config.plain.grace = Duration::ZERO;
        config.server.drain_over = Duration::ZERO;
        config.server.drain_deadline = Duration::from_secs(20);
    });
    let address = server.address;
    server_at.set(address).expect("it is set once");
    let mut client = Raw::of_request(
        address,
        &format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    );
    assert_eq!(client.value()["type"], "subscribed");
    client.send("take this");
    until("the backend is asked", || backend.asked().len() == 1);
    let start = Instant::now();
    let drained = std::thread::spawn(move || server.drain());
    assert_eq!(client.next(), Received::Close(Some(3001), "shutdown".to_owned()));
    drop(client);
    // Who comes meanwhile is told to come again, in words that a proxy does not make an error of its own of.
    for path in ["/poll?channels=news", "/stream?channels=news", "/ws?channels=news", "/health"] {
        let refused = get(address, path, &format!("Origin: http://{address}\r\n"));
        let said = (refused.status, refused.header("retry-after"), refused.header("connection"));
        assert_eq!(said, (503, Some("1"), Some("close")), "{path}: {}", refused.text());
        assert!(refused.header("access-control-allow-origin").is_some(), "{path}: {}", refused.head);
    }
    // An `EventSource` comes back after the end of a stream, and never after an error.
    let mut events = Events::open(address, "/sse?channels=news", "");
    let event = events.next();
    assert_eq!((&*event.name, event.retry), ("disconnect", Some(2000)));
    assert_eq!(event.value(), json!({"code": 3001, "reason": "shutdown", "reconnect": true}));
    assert_eq!(events.try_next(), Err(End::Closed));
    let bare = get(address, "/connection/uni_sse", "");
    assert_eq!((bare.status, bare.header("content-type")), (200, Some("text/event-stream; charset=utf-8")));
    let foreign = get(address, "/sse?channels=news", "Origin: http://evil.example\r\n");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    // Nor does who asks for nothing hold it up.
    let mut silent = Link::open(address);
    gate.open();
    drained.join().expect("it ends");
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert_eq!(backend.asked().len(), 1, "the call was taken at once");
    assert!(matches!(silent.await_end(), End::Closed | End::Reset));
    assert!(TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn who_does_not_go_is_cut_at_the_deadline() {
    let server = TestServer::with(|config| {
        config.server.drain_over = Duration::ZERO;
        config.server.drain_deadline = Duration::from_secs(1);
    });
    let mut raw = server.connect();
    let start = Instant::now();
    // It reads its close frame and keeps its side open.
    server.drain();
    assert!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    assert_eq!(raw.next(), Received::Close(Some(3001), "shutdown".to_owned()));
    assert!(matches!(raw.next(), Received::End(End::Closed | End::Reset)));
}

#[test]
fn connections_that_wait_for_nothing_do_not_hold_a_drain_up() {
    let server = TestServer::with(|config| {
        config.server.drain_deadline = Duration::from_secs(20);
        config.server.shards = 1;
    });
    // A browser keeps connections for requests that may come.
    let mut idle = Link::open(server.address);
    idle.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.response().status, 200);
    // And opens some in advance.
    let mut silent = Link::open(server.address);
    let mut half = Link::open(server.address);
    half.send(b"GET /he");
    // Once others were served that came later to the same thread, all of that has been taken and read.
    for _ in 0..3 {
        assert_eq!(get(server.address, "/health", "").status, 200);
    }
    let start = Instant::now();
    server.drain();
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
    assert_eq!((idle.await_end(), silent.await_end()), (End::Closed, End::Closed));
    let refused = half.response();
    assert_eq!((refused.status, refused.header("connection")), (503, Some("close")), "{}", refused.text());
}

#[test]
fn a_signal_drains_the_process_which_then_ends_well() {
    for signal in ["TERM", "INT"] {
        let (mut server, address) = Binary::serve(&["--server.drain-over=0s", "--client.allow-anonymous"]);
        let mut raw = Raw::open(address);
        raw.connect("");
        assert_eq!(api(address, "info", &json!({}))["result"]["nodes"][0]["num_clients"], 1);
        server.signal(signal);
        assert_eq!(raw.next(), Received::Close(Some(3001), "shutdown".to_owned()));
        drop(raw);
        assert_eq!(server.wait().code(), Some(0), "{:#?}", server.stderr().lines());
        assert!(server.stderr().await_line("draining").contains(&format!("SIG{signal}")));
        let closed = server.stderr().await_line("connection closed");
        assert!(closed.contains("\"Drain\"") && closed.contains("reconnect after a delay"), "{closed}");
    }
}
