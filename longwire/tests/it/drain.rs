//! How a server ends: it tells everybody, spread over a time, and is gone before its deadline.

use crate::harness::{Binary, End, Events, Link, Raw, Received, TestServer, api, get};
use serde_json::json;
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
    assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");
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
