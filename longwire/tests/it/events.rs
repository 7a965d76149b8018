//! Events to the backend, with a real server, real clients, a real directory and a backend that fails in the usual
//! ways: what a client does is told in order, and nothing that was told of a beginning lacks its end.

use crate::harness::{Binary, Events, LIMIT, Raw, TestServer, config, get, until};
use longwire::config::{Config, EventType};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// What the backend does with a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Takes,
    Refuses,
    /// Takes it, and answers later than anybody waits.
    Stalls,
    /// Closes the connection without an answer.
    HangsUp,
}

/// A delivery that the backend read.
#[derive(Clone, Debug)]
struct Delivery {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    was_taken: bool,
}

struct State {
    mood: Mood,
    deliveries: Vec<Delivery>,
}

/// A backend in threads of its own.
#[derive(Clone)]
struct Backend {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Backend {
    fn start() -> Backend {
        Backend::on(TcpListener::bind("127.0.0.1:0").expect("a port"))
    }

    fn on(listener: TcpListener) -> Backend {
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { mood: Mood::Takes, deliveries: Vec::new() }));
        let backend = Backend { address, state };
        let accepting = backend.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (backend, Ok(stream)) = (accepting.clone(), stream) else { return };
                std::thread::spawn(move || backend.serve(stream));
            }
        });
        backend
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let mut writer = stream;
        while let Some((headers, body)) = read_request(&mut reader) {
            let mood = {
                let mut state = self.lock();
                let was_taken = matches!(state.mood, Mood::Takes | Mood::Stalls);
                state.deliveries.push(Delivery { headers, body, was_taken });
                state.mood
            };
            let status = match mood {
                Mood::HangsUp => return,
                Mood::Stalls => {
                    std::thread::sleep(Duration::from_secs(2));
                    "200 OK"
                }
                Mood::Takes => "204 No Content",
                Mood::Refuses => "503 Service Unavailable",
            };
            let response = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if writer.write_all(response.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The events that were taken, each once, after checking what a backend relies on.
    fn events(&self) -> Vec<Value> {
        let deliveries = self.lock().deliveries.clone();
        let (mut seen, mut events) = (BTreeSet::new(), Vec::new());
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        for delivery in deliveries.iter().filter(|delivery| delivery.was_taken) {
            let body: Value = serde_json::from_slice(&delivery.body).expect("the body is JSON");
            for event in body["events"].as_array().expect("a list") {
                if !seen.insert(event["id"].as_str().expect("an id").to_owned()) {
                    continue;
                }
                if let (Some(client), Some(seq)) = (event["client"].as_str(), event["seq"].as_u64()) {
                    let before = newest.insert(client.to_owned(), seq).unwrap_or(0);
                    assert_eq!(seq, before + 1, "no number is left out: {event}");
                }
                events.push(event.clone());
            }
        }
        events
    }

    fn types(&self) -> Vec<String> {
        self.events().iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    }

    #[track_caller]
    fn await_events(&self, types: &[&str]) -> Vec<Value> {
        until(&format!("{types:?}"), || self.types().len() >= types.len());
        assert_eq!(self.types(), types);
        self.events()
    }

    fn attempts(&self) -> usize {
        self.lock().deliveries.len()
    }

    /// Clients that are connected as far as the backend knows; each pair is whole.
    fn connected(&self) -> BTreeSet<String> {
        let mut connected = BTreeSet::new();
        for event in self.events() {
            let client = event["client"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str() {
                Some("connected") => assert!(connected.insert(client), "connected twice: {event}"),
                Some("disconnected") => assert!(connected.remove(&client), "disconnected only: {event}"),
                _ => {}
            }
        }
        connected
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(BTreeMap<String, String>, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
    assert!(line.starts_with("POST /events HTTP/1.1"), "{line}");
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|len| *len > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}

fn told(address: SocketAddr, directory: &TempDir, types: &[EventType]) -> impl FnOnce(&mut Config) {
    let data_dir = directory.path().join("data");
    let types = types.to_vec();
    move |config| {
        config.server.data_dir = data_dir;
        config.events.endpoint = Some(format!("http://{address}/events"));
        config.events.types = types;
        config.events.max_delay = Duration::from_millis(5);
        config.events.max_backoff = Duration::from_millis(200);
        config.events.timeout = Duration::from_millis(500);
        config.events.vacated_delay = Duration::from_millis(50);
    }
}

const SECRET: &str = "the backend's secret, of 32 bytes at least";

const CLIENTS: [EventType; 2] = [EventType::Connected, EventType::Disconnected];

#[test]
fn what_a_client_does_is_told_in_order_with_its_cause() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &EventType::ALL));
    let mut raw = server.connect_as("ann");
    raw.subscribe("news");
    raw.ask(r#"{"id":3,"unsubscribe":{"channel":"news"}}"#);
    let types = ["connected", "subscribed", "occupied", "unsubscribed", "vacated"];
    until("the first events", || backend.types().len() >= types.len());
    let mut sorted = backend.types();
    sorted.sort();
    let mut expected: Vec<_> = types.map(str::to_owned).into();
    expected.sort();
    assert_eq!(sorted, expected);
    server.api("disconnect", &json!({"user": "ann"}));
    until("the end", || backend.types().last().is_some_and(|kind| kind == "disconnected"));
    let events = backend.events();
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).expect("it came").clone();
    for event in &events {
        let is_of_channel = matches!(event["type"].as_str(), Some("occupied" | "vacated"));
        assert_eq!(event["client"] == raw.client, !is_of_channel, "{event}");
        assert_eq!(event["user"] == "ann", !is_of_channel, "{event}");
        assert!(event["node"].is_string() && event["time_ms"].is_i64(), "{event}");
    }
    let connected = of("connected");
    assert_eq!((&connected["transport"], &connected["dialect"]), (&json!("websocket"), &json!("centrifuge")));
    assert_eq!(connected["protocol"], "json");
    assert_eq!((&of("subscribed")["channel"], &of("vacated")["channel"]), (&json!("news"), &json!("news")));
    assert_eq!(of("unsubscribed")["reason"], "client unsubscribed");
    let end = of("disconnected");
    assert_eq!(
        (&end["reason"], &end["code"], &end["seq"]),
        (&json!("ForceDisconnect"), &json!(3503), &json!(4))
    );
    assert_eq!((&end["category"], &end["initiator"]), (&json!("policy"), &json!("server")));
    assert!(end["duration_ms"].is_u64() && end["last_seen_ms_ago"].is_u64() && end["unsent_bytes"].is_u64());
    assert!(get(server.address, "/metrics", "").text().contains("longwire_events_delivered_total 6"));
}

#[test]
fn each_way_a_subscription_can_end_has_its_own_reason() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let types = [EventType::Subscribed, EventType::Unsubscribed];
    let server = TestServer::with(told(backend.address, &directory, &types));
    let mut raw = server.connect_as("ann");
    raw.subscribe("a");
    raw.subscribe("kept:b");
    server.api("unsubscribe", &json!({"user": "ann", "channel": "a"}));
    until("the unsubscribe", || backend.types().len() == 3);
    drop(raw);
    let events = backend.await_events(&["subscribed", "subscribed", "unsubscribed", "unsubscribed"]);
    let why: Vec<_> = events[2..].iter().map(|event| (&event["channel"], &event["code"])).collect();
    assert_eq!(why, [(&json!("a"), &json!(2000)), (&json!("kept:b"), &json!(1))]);
    assert_eq!(events[0]["seq"], 1, "what is not sent takes no number");
}

#[test]
fn a_recovery_is_told_with_its_outcome_and_a_stream_is_a_client_too() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &[EventType::Subscribed]));
    server.publish("kept:a", 1);
    let mut raw = server.connect();
    let recover = json!({"id": 2, "subscribe": {"channel": "kept:a", "recover": true, "recoverable": true,
        "epoch": "another", "offset": 1}});
    assert_eq!(raw.ask_value(&recover)["subscribe"]["recovered"], Value::Null);
    let mut stream = Events::open(server.address, "/sse?channels=news", "");
    stream.next();
    let events = backend.await_events(&["subscribed", "subscribed"]);
    assert_eq!((&events[0]["recovered"], &events[1]["recovered"]), (&json!(false), &Value::Null));
    assert_eq!((&events[1]["transport"], &events[1]["dialect"]), (&json!("sse"), &json!("plain")));
}

#[test]
fn a_stream_that_is_refused_was_never_a_client() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &EventType::ALL[..4]));
    assert_ne!(get(server.address, "/sse?channels=news,nowhere:a", "").status, 200);
    let mut stream = Events::open(server.address, "/sse?channels=news,kept:a", "");
    stream.next();
    let events = backend.await_events(&["connected", "subscribed", "subscribed"]);
    assert!(events.iter().all(|event| event["client"] == events[0]["client"]));
    drop(stream);
    backend.await_events(&[
        "connected",
        "subscribed",
        "subscribed",
        "unsubscribed",
        "unsubscribed",
        "disconnected",
    ]);
}

#[test]
fn a_process_that_is_killed_with_force_loses_no_pair() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let (endpoint, data_dir) =
        (format!("http://{}/events", backend.address), directory.path().display().to_string());
    let settings = [
        "--server.data-dir",
        &*data_dir,
        "--events.endpoint",
        &*endpoint,
        "--events.types",
        "connected,disconnected",
        "--events.max-backoff",
        "200ms",
        "--client.allow-anonymous",
        "true",
    ];
    let mut known = BTreeSet::new();
    for round in 0..3 {
        let (mut server, address) = Binary::serve(&settings);
        backend.set(if round == 1 { Mood::Refuses } else { Mood::Takes });
        let clients: Vec<Raw> = (0..10)
            .map(|_| {
                let mut raw = Raw::open(address);
                raw.connect("");
                raw
            })
            .collect();
        if round == 1 {
            until("a refused delivery", || {
                let deliveries = &backend.lock().deliveries;
                deliveries.last().is_some_and(|delivery| !delivery.was_taken)
            });
        } else {
            let clients: BTreeSet<_> = clients.iter().map(|raw| raw.client.clone()).collect();
            until("the clients of a round", || clients.is_subset(&backend.connected()));
            known.extend(clients);
        }
        server.kill();
    }
    backend.set(Mood::Takes);
    let (mut server, _) = Binary::serve(&settings);
    let ended = |backend: &Backend| {
        let events = backend.events();
        let ends = events.iter().filter(|event| event["type"] == "disconnected");
        ends.filter_map(|event| event["client"].as_str().map(str::to_owned)).collect::<BTreeSet<_>>()
    };
    until("the ends", || known.is_subset(&ended(&backend)) && backend.connected().is_empty());
    server.signal("TERM");
    assert!(server.wait().success());
    assert!(backend.connected().is_empty());
}

#[test]
fn a_backend_that_refuses_stalls_or_hangs_up_gets_everything_when_it_is_back() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &CLIENTS));
    let mut expected = 0;
    for mood in [Mood::Refuses, Mood::HangsUp, Mood::Stalls] {
        backend.set(mood);
        let before = backend.attempts();
        let clients: Vec<Raw> = (0..5).map(|_| server.connect()).collect();
        drop(clients);
        expected += 10;
        until(&format!("two attempts while it {mood:?}"), || backend.attempts() >= before + 2);
    }
    backend.set(Mood::Takes);
    until("everything", || backend.types().len() == expected && backend.connected().is_empty());
    until("the answers", || server.server().node().events.is_settled());
}

#[test]
fn a_backend_that_starts_late_misses_nothing() {
    let directory = TempDir::new().expect("a directory");
    let address =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let server = TestServer::with(told(address, &directory, &CLIENTS));
    drop(server.connect());
    let failures = || server.server().node().events.counters().expect("events are on").failures.get();
    until("failed attempts", || failures() >= 2);
    let backend = Backend::on(TcpListener::bind(address).expect("the port is free"));
    backend.await_events(&["connected", "disconnected"]);
}

#[test]
fn a_server_that_is_killed_ends_its_clients_at_its_next_start() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let mut gone = Vec::new();
    for round in 0..3 {
        let server = TestServer::with(told(backend.address, &directory, &CLIENTS));
        let clients: Vec<Raw> = (0..5).map(|_| server.connect()).collect();
        gone.extend(clients.iter().map(|raw| raw.client.clone()));
        // What is not on the disk yet goes down with the process.
        until("the beginnings to be told", || {
            let connected = backend.connected();
            clients.iter().all(|raw| connected.contains(&raw.client))
        });
        if round == 1 {
            // What was not delivered waits on the disk.
            backend.set(Mood::Refuses);
            drop(server.connect());
            let pending = || server.server().node().events.counters().expect("on").pending.get();
            until("undelivered events", || pending() >= 2);
        }
        drop(server);
        backend.set(Mood::Takes);
    }
    let server = TestServer::with(told(backend.address, &directory, &CLIENTS));
    until("the ends", || server.server().node().events.is_settled());
    assert_eq!(backend.connected(), BTreeSet::new());
    let events = backend.events();
    assert_eq!(events.len(), 2 * (gone.len() + 1));
    let lost = events.iter().filter(|event| event["reason"] == "ServerLost" && event["reconciled"] == true);
    let lost: BTreeSet<&str> = lost.filter_map(|event| event["client"].as_str()).collect();
    assert!(gone.iter().all(|client| lost.contains(&**client)), "{events:?}");
}

#[test]
fn a_drain_delivers_every_end_before_the_server_is_gone() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(|config| {
        told(backend.address, &directory, &EventType::ALL)(config);
        config.events.vacated_delay = Duration::from_secs(3600);
        config.events.max_delay = Duration::from_secs(3600);
        config.server.drain_deadline = LIMIT;
    });
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let mut raw = server.connect();
            raw.subscribe("news");
            std::thread::spawn(move || raw.link.await_end())
        })
        .collect();
    server.drain();
    clients.into_iter().for_each(|client| drop(client.join()));
    assert_eq!(backend.connected(), BTreeSet::new());
    let count = |kind: &str| backend.types().iter().filter(|found| *found == kind).count();
    assert_eq!(
        (count("disconnected"), count("unsubscribed"), count("occupied"), count("vacated")),
        (10, 10, 1, 1)
    );
    let is_drain = |event: &Value| event["type"] != "disconnected" || event["reason"] == "Drain";
    assert!(backend.events().iter().all(is_drain));
    // Nothing is left for the next start, not even in doubt.
    let attempts = backend.attempts();
    let server = TestServer::with(told(backend.address, &directory, &EventType::ALL));
    until("the start", || server.server().node().events.is_settled());
    assert_eq!(backend.attempts(), attempts);
}

#[test]
fn a_drain_without_a_backend_ends_at_its_deadline_and_keeps_the_rest() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    backend.set(Mood::Refuses);
    let server = TestServer::with(|config| {
        told(backend.address, &directory, &CLIENTS)(config);
        config.server.drain_deadline = Duration::from_secs(1);
    });
    let mut raw = server.connect();
    let client = std::thread::spawn(move || raw.link.await_end());
    server.drain();
    drop(client.join());
    backend.set(Mood::Takes);
    let _server = TestServer::with(told(backend.address, &directory, &CLIENTS));
    let events = backend.await_events(&["connected", "disconnected"]);
    assert_eq!(events[1]["reason"], "Drain", "it is the end itself, not what a start made of it");
}

#[test]
fn a_delivery_is_signed_and_named() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(|config| {
        told(backend.address, &directory, &CLIENTS)(config);
        config.events.secret = Some(SECRET.to_owned());
    });
    let raw = server.connect();
    let events = backend.await_events(&["connected"]);
    let delivery = backend.lock().deliveries[0].clone();
    let header = |name: &str| delivery.headers.get(name).cloned().unwrap_or_default();
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("x-longwire-delivery"), format!("{}.1", events[0]["id"].as_str().expect("an id")));
    let signature = header("x-longwire-signature");
    let time = signature.strip_prefix("t=").and_then(|rest| rest.split(',').next()).expect("a time");
    let time: i64 = time.parse().expect("seconds");
    assert!((crate::harness::in_seconds(-60)..=crate::harness::in_seconds(1)).contains(&time));
    assert_eq!(signature, longwire::signature::sign(SECRET, time, &delivery.body));
    drop(raw);
}

#[test]
fn without_an_endpoint_nothing_is_written_to_the_disk() {
    let directory = TempDir::new().expect("a directory");
    let data_dir = directory.path().join("data");
    let server = TestServer::with(|config| config.server.data_dir.clone_from(&data_dir));
    drop(server.connect());
    server.drain();
    assert!(!data_dir.exists());
}

#[test]
fn a_second_server_in_the_same_directory_does_not_start_and_ends_nobody() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &CLIENTS));
    let raw = server.connect();
    backend.await_events(&["connected"]);
    let mut second = config();
    told(backend.address, &directory, &CLIENTS)(&mut second);
    let start = longwire::server::Server::start(second.clone(), false, longwire::env::Env::system());
    let error = start.err().expect("it does not start").to_string();
    for part in [&*directory.path().join("data").display().to_string(), "another process", "server.data_dir"]
    {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    drop(raw);
    let events = backend.await_events(&["connected", "disconnected"]);
    assert_ne!(events[1]["reason"], "ServerLost");
    // The directory is free; one whose port is taken leaves alone what is in it.
    drop(server);
    let server = TestServer::start();
    second.listen_on(vec![server.address]);
    assert!(longwire::server::Server::start(second, false, longwire::env::Env::system()).is_err());
    assert_eq!(backend.types().len(), 2);
}

/// With room for one event at a time, and time to fill it.
fn narrow(address: SocketAddr, directory: &TempDir) -> TestServer {
    let told = told(address, directory, &EventType::ALL[..4]);
    TestServer::with(|config| {
        told(config);
        config.events.max_queue_bytes = 400;
        config.events.max_delay = Duration::from_secs(2);
    })
}

#[test]
fn a_subscription_that_found_no_room_gets_no_end() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = narrow(backend.address, &directory);
    let mut raw = server.connect_as("ann");
    raw.subscribe("news");
    let dropped = || server.server().node().events.counters().expect("events are on").dropped.get();
    assert_eq!(dropped(), 1, "`connected` waits, `subscribed` finds no room");
    backend.await_events(&["connected"]);
    until("room", || server.server().node().events.is_settled());
    raw.ask(r#"{"id":3,"unsubscribe":{"channel":"news"}}"#);
    drop(raw);
    until("the end", || backend.lock().deliveries.len() == 2);
    let bodies: Vec<Value> =
        backend.lock().deliveries.iter().map(|d| serde_json::from_slice(&d.body).expect("JSON")).collect();
    let end = &bodies[1]["events"];
    assert_eq!((end.as_array().map(Vec::len), &end[0]["type"]), (Some(1), &json!("disconnected")));
    assert_eq!(end[0]["seq"], 3, "the gap shows what was lost");
}

#[test]
fn of_a_client_whose_beginning_found_no_room_nothing_is_told_later_either() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = narrow(backend.address, &directory);
    let first = server.connect_as("ann");
    let mut second = server.connect_as("bob");
    let events = || &server.server().node().events;
    assert_eq!(events().counters().expect("events are on").dropped.get(), 1);
    backend.await_events(&["connected"]);
    until("room", || events().is_settled());
    second.subscribe("news");
    drop((first, second));
    let events = backend.await_events(&["connected", "disconnected"]);
    assert!(events.iter().all(|event| event["user"] == "ann"), "{events:?}");
    until("everything", || server.server().node().events.is_settled());
    assert_eq!(backend.types().len(), 2);
}

#[test]
fn a_damaged_directory_stops_the_start_with_file_offset_and_advice() {
    let (backend, directory) = (Backend::start(), TempDir::new().expect("a directory"));
    let server = TestServer::with(told(backend.address, &directory, &CLIENTS));
    let clients: Vec<Raw> = (0..5).map(|_| server.connect()).collect();
    until("the events", || backend.types().len() == 5 && server.server().node().events.is_settled());
    drop((server, clients));
    let folder = directory.path().join("data").join("events");
    let segment =
        std::fs::read_dir(&folder).expect("it is there").next().expect("a file").expect("a name").path();
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    bytes[60] ^= 0xff;
    std::fs::write(&segment, bytes).expect("it can be written");
    let mut damaged = config();
    told(backend.address, &directory, &CLIENTS)(&mut damaged);
    let start = |config: &Config| {
        longwire::server::Server::start(config.clone(), false, longwire::env::Env::system())
    };
    let error = start(&damaged).err().expect("it does not start").to_string();
    for part in [&*segment.display().to_string(), "at byte 36", "events.past_damage"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    damaged.events.past_damage = true;
    drop(start(&damaged).expect("it starts without what is lost"));
}
