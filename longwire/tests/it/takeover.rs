//! Sessions that outlive their link: clients with a name that leave and return, over real sockets and several shards.
//!
//! Each test asks the server itself whether a client is away before it goes on: a break takes a moment to be noticed.
//! What is held against it: a name has one session at a time, nothing that was published meanwhile is missing or
//! doubled without a word, nobody who watches sees a client that returned leave, and whoever is sent away is told why.

use crate::harness::{End, Event, Events, LIMIT, Link, Raw, Received, Response, TestServer};
use crate::harness::{get, http, until, user_token};
use longwire::config::{Config, SecondConnection};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A server of several shards, whose backend may put anybody into `kept:`, `seen:` and plain channels.
pub(crate) fn server(change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        config.server.shards = 4;
        change(config);
    })
}

/// A stream of a client, and what it was told first.
pub(crate) struct Stream {
    pub(crate) events: Events,
    pub(crate) welcome: Value,
}

impl Stream {
    #[track_caller]
    pub(crate) fn open(server: &TestServer, query: &str) -> Stream {
        let mut events = Events::open(server.address, &format!("/sse?{query}"), "");
        let welcome = events.next().value();
        Stream { events, welcome }
    }

    pub(crate) fn client(&self) -> &str {
        self.welcome["client"].as_str().expect("a client has an id")
    }

    /// The data of the next publication or direct message.
    #[track_caller]
    pub(crate) fn data(&mut self) -> Value {
        let event = self.events.next();
        assert_eq!(event.name, "", "{event:?}");
        event.value()["data"].clone()
    }

    #[track_caller]
    pub(crate) fn named(&mut self, name: &str) -> Event {
        let event = self.events.next();
        assert_eq!(event.name, name, "{event:?}");
        event
    }

    /// Leaves, and waits until the server has noticed.
    #[track_caller]
    pub(crate) fn leave(mut self, server: &TestServer) {
        let before = kept(server);
        self.events.link.finish();
        until("the break to be noticed", || kept(server) > before);
    }
}

/// Breaks after which a session was kept.
pub(crate) fn kept(server: &TestServer) -> u64 {
    server.server().node().counters.iter().map(|shard| shard.sessions_kept.get()).sum()
}

/// Sessions without a link.
pub(crate) fn away(server: &TestServer) -> u64 {
    server.server().node().counters.iter().map(|shard| shard.sessions_away.get()).sum()
}

pub(crate) fn websocket(server: &TestServer, query: &str) -> (Raw, Value) {
    let mut socket = Raw::plain(server, query);
    let welcome = socket.value();
    (socket, welcome)
}

fn poll(server: &TestServer, query: &str) -> Response {
    get(server.address, &format!("/poll?{query}"), "")
}

#[track_caller]
fn polled(server: &TestServer, query: &str) -> Value {
    let response = poll(server, query);
    assert_eq!(response.status, 200, "{query}: {} {}", response.head, response.text());
    serde_json::from_slice(&response.body).expect("an answer is JSON")
}

/// Breaks a socket off as a network does, and waits until the server has noticed.
#[track_caller]
fn reset(server: &TestServer, socket: Raw) {
    let before = kept(server);
    socket.link.reset();
    until("the break to be noticed", || kept(server) > before);
}

/// Leaves as a browser does that leaves a page, having read everything, and waits until the server has noticed.
#[track_caller]
fn go_away(server: &TestServer, mut socket: Raw) {
    let before = kept(server);
    socket.send_bytes(b"\x88\x82\0\0\0\0\x03\xe9");
    until("the farewell to be noticed", || kept(server) > before);
}

/// Text for a query.
fn quoted(text: &str) -> String {
    text.replace('=', "%3D").replace(',', "%2C").replace(':', "%3A")
}

pub(crate) fn num_clients(server: &TestServer, channel: &str) -> Value {
    server.api("presence_stats", &json!({"channel": channel}))["result"]["num_clients"].clone()
}

/// A WebSocket client that is told who comes and goes in `seen:a`.
#[track_caller]
pub(crate) fn watcher(server: &TestServer) -> Raw {
    let mut watcher = server.connect();
    let ask = json!({"id": 2, "subscribe": {"channel": "seen:a", "join_leave": true}});
    let reply = watcher.ask_value(&ask);
    assert!(reply.get("subscribe").is_some(), "{reply}");
    // Itself.
    assert!(watcher.value()["push"].get("join").is_some());
    watcher
}

#[test]
fn a_client_that_returns_in_time_goes_on_as_if_nothing_had_happened() {
    let server = server(|_| {});
    let mut watcher = watcher(&server);
    const QUERY: &str = "client=device-42&channels=kept:a,news,seen:a";
    let (mut first, welcome) = websocket(&server, QUERY);
    assert!(watcher.value()["push"].get("join").is_some());
    let client = welcome["client"].clone();
    assert_eq!(first.value()["info"]["client"], client);
    assert_eq!(welcome.get("resumed"), None, "{welcome}");
    for n in 1..=3 {
        server.publish("news", n);
        server.publish("kept:a", n);
    }
    for n in (1..=3).flat_map(|n| [n, n]) {
        assert_eq!(first.value()["data"], n);
    }
    go_away(&server, first);
    assert_eq!(num_clients(&server, "seen:a"), 2);
    for n in 4..=6 {
        server.publish("kept:a", n);
        server.publish("news", n);
    }
    // Whichever shard its link comes to, and whatever else it asks for.
    for round in 0..6 {
        let (mut back, welcome) = websocket(&server, &format!("{QUERY},extra{round}"));
        assert_eq!(welcome["client"], client, "round {round}");
        assert_eq!((&welcome["resumed"], &welcome["recovered"]), (&json!(true), &json!(true)), "{welcome}");
        assert_eq!(welcome["channels"]["kept:a"]["recovered"], true, "{welcome}");
        assert_eq!(welcome["channels"]["news"]["recovered"], true, "{welcome}");
        assert!(welcome["channels"].get(format!("extra{round}")).is_some(), "{welcome}");
        // What was missed in a channel with memory, then what was kept of the one without.
        let from = if round == 0 { 4 } else { 7 + 2 * (round - 1) };
        let until = if round == 0 { 6 } else { from + 1 };
        let all: Vec<Value> =
            (from..=until).chain(from..=until).map(|_| back.value()["data"].clone()).collect();
        let expected: Vec<Value> = (from..=until).chain(from..=until).map(|n| json!(n)).collect();
        assert_eq!(all, expected, "round {round}");
        go_away(&server, back);
        for n in 0..2 {
            server.publish("kept:a", 7 + 2 * round + n);
            server.publish("news", 7 + 2 * round + n);
        }
    }
    // It has not left all the time, nor come.
    watcher.link.limit(Duration::from_millis(300));
    watcher.expect_silence();
    assert_eq!(num_clients(&server, "seen:a"), 2);
    assert_eq!(away(&server), 1);
}

#[test]
fn a_client_that_says_where_it_stands_gets_everything_from_there() {
    let server = server(|_| {});
    let mut first = Stream::open(&server, "client=x&channels=kept:a");
    let client = first.client().to_owned();
    let mut ids = Vec::new();
    for n in 1..=3 {
        server.publish("kept:a", n);
        ids.push(first.events.next().id.expect("an id"));
    }
    first.leave(&server);
    server.publish("kept:a", 4);
    // It lost what was on its way: the server believes it, not its own books.
    let back = format!("client=x&channels=kept:a&since={}", quoted(&ids[0]));
    let mut back = Stream::open(&server, &back);
    assert_eq!((back.client(), &back.welcome["recovered"]), (&*client, &json!(true)));
    assert_eq!([back.data(), back.data(), back.data()], [json!(2), json!(3), json!(4)]);
}

#[test]
fn what_does_not_fit_is_dropped_and_the_client_is_told() {
    let server = server(|config| config.plain.max_away_bytes = 2_000);
    let first = Stream::open(&server, "client=x&channels=loud,quiet,kept:a");
    let client = first.client().to_owned();
    first.leave(&server);
    server.publish("quiet", "kept");
    for _ in 0..20 {
        server.publish("loud", "x".repeat(200));
        server.publish("kept:a", "in history");
    }
    let mut back = Stream::open(&server, "client=x&channels=loud,quiet");
    let welcome = back.welcome.clone();
    assert_eq!((back.client(), &welcome["recovered"]), (&*client, &json!(false)), "{welcome}");
    assert_eq!(welcome["channels"]["loud"]["recovered"], false, "{welcome}");
    assert_eq!(welcome["channels"]["quiet"]["recovered"], true, "{welcome}");
    // Twenty are more than this history keeps: all or nothing.
    assert_eq!(welcome["channels"]["kept:a"]["recovered"], false, "{welcome}");
    assert_eq!(back.data(), "kept");
    server.publish("loud", "again");
    assert_eq!(back.data(), "again");
}

#[test]
fn a_client_that_does_not_return_in_time_has_left() {
    let server = server(|config| config.plain.grace = Duration::from_millis(700));
    let mut watcher = watcher(&server);
    let first = Stream::open(&server, "client=x&channels=seen:a");
    let client = first.client().to_owned();
    assert!(watcher.value()["push"].get("join").is_some());
    let broke = Instant::now();
    first.leave(&server);
    let leave = watcher.value();
    assert_eq!(leave["push"]["leave"]["info"]["client"], client.as_str(), "{leave}");
    assert!(broke.elapsed() >= Duration::from_millis(650), "{:?}", broke.elapsed());
    until("the session to be gone", || away(&server) == 0);
    let node = server.server().node();
    assert_eq!(node.counters.iter().map(|shard| shard.sessions_lapsed.get()).sum::<u64>(), 1);
    let back = Stream::open(&server, "client=x&channels=seen:a");
    assert_ne!(back.client(), client);
    assert_eq!(back.welcome.get("resumed"), None);
}

#[test]
fn without_a_name_or_grace_or_with_a_farewell_nothing_is_kept() {
    let server = server(|_| {});
    let mut nameless = Stream::open(&server, "channels=seen:a");
    nameless.events.link.finish();
    until("the nameless one to be gone", || num_clients(&server, "seen:a") == 0);
    // A close frame that says that all is done, and one that says nothing.
    for close in [&b"\x88\x82\0\0\0\0\x03\xe8"[..], &b"\x88\x80\0\0\0\0"[..]] {
        let (mut socket, _) = websocket(&server, "client=x&channels=seen:a");
        socket.send_bytes(close);
        until("the one that said goodbye to be gone", || num_clients(&server, "seen:a") == 0);
    }
    assert_eq!(kept(&server), 0);
    // A page that is left may be loaded again.
    let (mut socket, welcome) = websocket(&server, "client=x&channels=seen:a");
    socket.send_bytes(b"\x88\x82\0\0\0\0\x03\xe9");
    until("the page to be away", || away(&server) == 1);
    let back = Stream::open(&server, "client=x&channels=seen:a");
    assert_eq!(back.welcome["client"], welcome["client"]);

    let server = self::server(|config| config.plain.grace = Duration::ZERO);
    let mut stream = Stream::open(&server, "client=x&channels=seen:a");
    stream.events.link.finish();
    until("the client to be gone", || num_clients(&server, "seen:a") == 0);
    assert_eq!(kept(&server), 0);
}

#[test]
fn a_second_connection_takes_the_session_and_the_first_is_told() {
    // Without grace, too: nothing is kept, the link is only another one.
    for grace in [Duration::ZERO, Duration::from_secs(15)] {
        let server = server(|config| config.plain.grace = grace);
        let mut watcher = watcher(&server);
        let (mut first, welcome) = websocket(&server, "client=x&channels=seen:a,kept:a,news");
        assert!(watcher.value()["push"].get("join").is_some());
        assert_eq!(first.value()["type"], "join");
        server.publish("kept:a", 1);
        assert_eq!(first.value()["data"], 1);
        let mut second = Stream::open(&server, "client=x&channels=seen:a,kept:a,news");
        first.expect_close(CloseReason::Replaced);
        assert_eq!(
            (&second.welcome["client"], &second.welcome["resumed"]),
            (&welcome["client"], &json!(true))
        );
        // It is not known whether the first one had read it.
        assert_eq!(second.welcome["channels"]["kept:a"]["recovered"], false, "{}", second.welcome);
        server.publish("kept:a", 2);
        server.publish("news", 2);
        assert_eq!((second.data(), second.data()), (json!(2), json!(2)));
        assert_eq!(server.closes(CloseReason::Replaced), 1);
        watcher.link.limit(Duration::from_millis(300));
        watcher.expect_silence();
        assert_eq!(away(&server), 0);
    }
}

#[test]
fn a_second_connection_is_refused_where_the_first_is_to_stay() {
    let server = server(|config| config.plain.second_connection = SecondConnection::Refuse);
    let (mut first, welcome) = websocket(&server, "client=x&channels=news");
    for _ in 0..4 {
        let request =
            format!("GET /stream?client=x&channels=news HTTP/1.1\r\nHost: {}\r\n\r\n", server.address);
        let refused = http(server.address, request);
        assert_eq!(refused.status, 409, "{}", refused.text());
    }
    assert_eq!(server.closes(CloseReason::ClientInUse), 4);
    server.publish("news", 1);
    assert_eq!(first.value()["data"], 1);
    // Once it is away, the next one is the same client again.
    first.link.finish();
    until("the first to be away", || away(&server) == 1);
    assert_eq!(Stream::open(&server, "client=x&channels=news").welcome["client"], welcome["client"]);
}

#[test]
fn names_are_a_users_own() {
    let server = server(|_| {});
    let of = |user: &str| format!("client=x&channels=news&token={}", user_token(user));
    let anonymous = Stream::open(&server, "client=x&channels=news");
    let (one, two) = (Stream::open(&server, &of("1")), Stream::open(&server, &of("2")));
    assert!(anonymous.client() != one.client() && one.client() != two.client());
    let client = one.client().to_owned();
    one.leave(&server);
    assert_ne!(Stream::open(&server, "client=x2&channels=news").client(), client);
    assert_eq!(Stream::open(&server, &of("1")).client(), client);
}

#[test]
fn a_session_counts_once_among_the_connections_of_its_user() {
    let server = server(|config| config.client.max_connections_per_user = 1);
    let query = format!("client=x&channels=news&token={}", user_token("42"));
    let first = Stream::open(&server, &query);
    let client = first.client().to_owned();
    first.leave(&server);
    let second = Stream::open(&server, &query);
    let mut third = Stream::open(&server, &query);
    assert_eq!((second.client(), third.client()), (&*client, &*client));
    // Another name is another connection.
    let other = format!("GET /stream?{} HTTP/1.1\r\nHost: x\r\n\r\n", query.replace("client=x", "client=y"));
    assert_eq!(http(server.address, other).status, 429);
    assert_eq!(server.server().node().admissions.connections_of("42"), 1);
    server.publish("news", 1);
    assert_eq!(third.data(), 1);
}

#[test]
fn what_the_backend_does_meanwhile_holds_upon_the_return() {
    let server = server(|_| {});
    let first = Stream::open(&server, "client=x&channels=news,old");
    let client = first.client().to_owned();
    let session = first.welcome["session"].as_str().expect("a name").to_owned();
    first.leave(&server);
    server.publish("kept:b", "before");
    server.api("subscribe", &json!({"client": client, "channel": "kept:b", "user": ""}));
    server.api("unsubscribe", &json!({"client": client, "channel": "old", "user": ""}));
    server.api("bind", &json!({"client": client, "user": "42"}));
    server.api("send", &json!({"client": client, "data": {"for": "you"}}));
    until("the channel to be joined", || {
        server.api("channels", &json!({}))["result"]["channels"].get("kept:b").is_some()
    });
    server.publish("kept:b", "meanwhile");
    server.api("send", &json!({"user": "42", "data": 2}));
    let connections = server.api("connections", &json!({"user": "42"}));
    assert_eq!(
        connections["result"]["connections"].as_object().map(|all| all.len()),
        Some(1),
        "{connections}"
    );
    // Who knows the session's name returns, whoever the backend has made of it.
    let mut back = Stream::open(&server, &format!("client=x&channels=news&session={session}"));
    assert_eq!(back.client(), client);
    let channels: Vec<&String> = back.welcome["channels"].as_object().expect("an object").keys().collect();
    assert_eq!(channels, ["kept:b", "news"], "{}", back.welcome);
    assert_eq!(
        [back.data(), back.data(), back.data()],
        [json!("meanwhile"), json!({"for": "you"}), json!(2)]
    );
    assert_eq!(server.server().node().admissions.connections_of("42"), 1);
}

#[test]
fn a_client_that_is_disconnected_while_it_is_away_begins_anew() {
    let server = server(|_| {});
    let first = Stream::open(&server, "client=x&channels=seen:a");
    let client = first.client().to_owned();
    first.leave(&server);
    server.api("disconnect", &json!({"client": client, "user": ""}));
    until("it to be gone", || num_clients(&server, "seen:a") == 0);
    let again = Stream::open(&server, "client=x&channels=seen:a");
    assert_ne!(again.client(), client);
    assert_eq!(away(&server), 0);
}

#[test]
fn a_client_goes_on_over_whichever_transport() {
    let server = server(|_| {});
    let (mut socket, welcome) = websocket(&server, "client=x&channels=kept:a,news");
    let client = welcome["client"].clone();
    server.publish("kept:a", 1);
    let mut id = socket.value()["id"].as_str().expect("an id").to_owned();
    socket.link.finish();
    until("it to be away", || away(&server) == 1);

    server.publish("kept:a", 2);
    server.publish("news", "b");
    let query = |id: &str| format!("client=x&channels=kept:a,news&since={}", quoted(id));
    let answer = polled(&server, &query(&id));
    assert_eq!((&answer["client"], &answer["resumed"]), (&client, &json!(true)), "{answer}");
    let data: Vec<&Value> =
        answer["publications"].as_array().expect("a list").iter().map(|it| &it["data"]).collect();
    assert_eq!(data, [&json!(2), &json!("b")]);
    assert_eq!((&answer["name"], &answer["recovered"]), (&json!("x"), &json!(true)), "{answer}");
    id = answer["since"].as_str().expect("a position").to_owned();

    server.publish("news", "c");
    let answer = polled(&server, &query(&id));
    assert_eq!((&answer["client"], &answer["publications"][0]["data"]), (&client, &json!("c")), "{answer}");
    id = answer["since"].as_str().expect("a position").to_owned();
    assert_eq!(poll(&server, &format!("{}&wait=1", query(&id))).status, 204);

    server.publish("kept:a", 3);
    let mut stream = Stream::open(&server, &query(&id));
    assert_eq!((stream.welcome["client"].clone(), stream.data()), (client.clone(), json!(3)));
    let (_, welcome) = websocket(&server, &query(&id));
    assert_eq!(welcome["client"], client);
    assert_eq!(stream.named("disconnect").value()["code"], 3510);
}

#[test]
fn a_client_that_polls_stays_between_its_polls() {
    let server = server(|config| config.plain.grace = Duration::from_millis(1_500));
    let mut watcher = watcher(&server);
    // It gets a name that nobody can guess.
    let first = polled(&server, "channels=seen:a,news");
    assert!(watcher.value()["push"].get("join").is_some());
    let name = first["name"].as_str().expect("a name").to_owned();
    assert_ne!(name, first["client"]);
    for n in 0..4 {
        server.publish("news", n);
        let answer =
            polled(&server, &format!("client={name}&channels=seen:a,news&since=kept:a%3D0.abcdefgh"));
        assert_eq!(answer["client"], first["client"], "{answer}");
        let data: Vec<&Value> = answer["publications"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|it| it["channel"] == "news" && it.get("type").is_none())
            .map(|it| &it["data"])
            .collect();
        assert_eq!(data, [&json!(n)], "{answer}");
    }
    watcher.link.limit(Duration::from_millis(300));
    watcher.expect_silence();
    watcher.link.limit(LIMIT);
    let leave = watcher.value();
    assert_eq!(leave["push"]["leave"]["info"]["client"], first["client"], "{leave}");
}

#[test]
fn a_client_that_names_one_channel_stands_where_the_server_stood_in_the_others() {
    let server = server(|_| {});
    const QUERY: &str = "client=x&channels=kept:a,kept:b,kept:c,news";
    let (mut socket, welcome) = websocket(&server, QUERY);
    let client = welcome["client"].clone();
    for channel in ["kept:b", "news", "kept:a"] {
        server.publish(channel, 1);
    }
    let id = [socket.value(), socket.value(), socket.value()][2]["id"].as_str().expect("an id").to_owned();
    reset(&server, socket);
    for channel in ["kept:a", "kept:b", "news", "kept:c"] {
        server.publish(channel, 2);
    }
    // It has what it was given last, and so everything that came before it on the same link.
    let (mut socket, welcome) = websocket(&server, &format!("client=x&since={}", quoted(&id)));
    assert_eq!((&welcome["client"], &welcome["recovered"]), (&client, &json!(true)), "{welcome}");
    let mut came = BTreeMap::new();
    for _ in 0..4 {
        let publication = socket.value();
        let channel = publication["channel"].as_str().expect("a channel").to_owned();
        assert_eq!(came.insert(channel, publication["data"].clone()), None);
    }
    assert!(came.len() == 4 && came.values().all(|data| *data == 2), "{came:?}");

    // Of what came behind the one that it names nobody knows, but of channels in which nothing came.
    for channel in ["kept:a", "news", "kept:b"] {
        server.publish(channel, 3);
    }
    let id = socket.value()["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (socket.value()["channel"].clone(), socket.value()["channel"].clone()),
        ("news".into(), "kept:b".into())
    );
    reset(&server, socket);
    let (_socket, welcome) = websocket(&server, &format!("client=x&since={}", quoted(&id)));
    let recovered = |channel: &str| welcome["channels"][channel]["recovered"].clone();
    assert_eq!(welcome["recovered"], false, "{welcome}");
    assert_eq!(
        (recovered("kept:a"), recovered("kept:b"), recovered("news")),
        (true.into(), false.into(), false.into())
    );
}

#[test]
fn a_channel_in_which_nothing_was_given_is_recovered_whoever_broke_the_link() {
    let server = server(|_| {});
    let (mut socket, _) = websocket(&server, "client=x&channels=kept:a,kept:b,news");
    server.publish("kept:a", 1);
    assert_eq!(socket.value()["data"], 1);
    reset(&server, socket);
    server.publish("kept:b", 2);
    server.publish("news", 2);
    let (mut socket, welcome) = websocket(&server, "client=x");
    let recovered = |channel: &str| welcome["channels"][channel]["recovered"].clone();
    assert_eq!(
        (recovered("kept:a"), recovered("kept:b"), recovered("news")),
        (false.into(), true.into(), true.into())
    );
    assert_eq!((socket.value()["data"].clone(), socket.value()["data"].clone()), (2.into(), 2.into()));
    // That it did not recover is told until it is known to have been read.
    reset(&server, socket);
    let (_socket, welcome) = websocket(&server, "client=x");
    assert_eq!(welcome["channels"]["kept:a"]["recovered"], false, "{welcome}");
}

#[test]
fn a_connection_that_merely_ends_says_nothing_of_what_was_read() {
    for says_farewell in [false, true] {
        let server = server(|_| {});
        let (mut socket, _) = websocket(&server, "client=x&channels=kept:a,quiet,news");
        server.publish("kept:a", 1);
        server.publish("news", 1);
        assert_eq!((socket.value()["data"].clone(), socket.value()["data"].clone()), (1.into(), 1.into()));
        let before = kept(&server);
        match says_farewell {
            true => go_away(&server, socket),
            false => socket.link.finish(),
        }
        until("the end to be noticed", || kept(&server) > before);
        let (_socket, welcome) = websocket(&server, "client=x");
        let recovered = |channel: &str| welcome["channels"][channel]["recovered"].clone();
        assert_eq!(
            (recovered("kept:a"), recovered("news"), recovered("quiet")),
            (says_farewell.into(), says_farewell.into(), true.into()),
            "{welcome}"
        );
        assert_eq!((&welcome["recovered"], &welcome["resumed"]), (&json!(says_farewell), &json!(true)));
    }
}

#[test]
fn who_came_and_went_between_two_polls_is_told_by_the_next() {
    let server = server(|config| config.plain.max_away_bytes = 4_000);
    let query = "client=x&channels=seen:a,news&wait=0";
    let first = polled(&server, query);
    // That it came itself.
    assert_eq!(polled(&server, query)["publications"][0]["type"], "join");
    let guest = Stream::open(&server, "channels=seen:a");
    let id = guest.client().to_owned();
    drop(guest);
    until("the guest to be gone", || num_clients(&server, "seen:a") == 1);
    let told = polled(&server, query);
    assert_eq!((&told["client"], &told["recovered"]), (&first["client"], &json!(true)), "{told}");
    let told: Vec<(&Value, &Value)> = told["publications"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| (&it["type"], &it["info"]["client"]))
        .collect();
    assert_eq!(told, [(&json!("join"), &json!(id)), (&json!("leave"), &json!(id))]);
    // A crowd does not cost it what was published.
    let crowd: Vec<Stream> = (0..20).map(|_| Stream::open(&server, "channels=seen:a")).collect();
    server.publish("news", "kept");
    let told = polled(&server, query);
    assert_eq!(told["recovered"], true, "{told}");
    let told = told["publications"].as_array().expect("a list");
    let joins = told.iter().filter(|it| it["type"] == "join").count();
    assert!((1..20).contains(&joins), "{joins}");
    assert!(told.iter().any(|it| it["data"] == "kept"), "{told:?}");
    drop(crowd);
}

#[test]
fn a_client_whose_answer_was_lost_is_given_it_again() {
    let server = server(|_| {});
    let first = polled(&server, "client=x&channels=kept:a,news");
    let query = |since: &Value| {
        format!("client=x&channels=kept:a,news&since={}", quoted(since.as_str().expect("a position")))
    };
    server.publish("news", 1);
    server.publish("kept:a", 1);
    let lost = polled(&server, &query(&first["since"]));
    assert_eq!(
        (&lost["recovered"], lost["publications"].as_array().map(Vec::len)),
        (&json!(true), Some(2)),
        "{lost}"
    );
    // One that was kept from its reader by whatever lies between: it asks from where it stood.
    let next = polled(&server, &query(&first["since"]));
    assert_eq!((&next["recovered"], &next["resumed"]), (&json!(true), &json!(true)), "{next}");
    let channels: Vec<&Value> =
        next["publications"].as_array().expect("a list").iter().map(|it| &it["channel"]).collect();
    assert_eq!(channels, ["kept:a", "news"], "{next}");
    server.publish("kept:a", 2);
    let next = polled(&server, &query(&next["since"]));
    assert_eq!((&next["recovered"], &next["publications"][0]["data"]), (&json!(true), &json!(2)), "{next}");
}

#[test]
fn a_poll_of_a_client_that_polls_already_takes_its_place() {
    let server = server(|_| {});
    let at = quoted(polled(&server, "client=x&channels=kept:a")["since"].as_str().expect("a position"));
    let mut waiting = Link::open(server.address);
    let request =
        format!("GET /poll?client=x&channels=kept:a&wait=60&since={at} HTTP/1.1\r\nHost: x\r\n\r\n");
    waiting.send(request.as_bytes());
    until("the poll to wait", || away(&server) == 0);
    let begun = std::thread::scope(|scope| {
        let answer = scope.spawn(|| poll(&server, &format!("client=x&channels=kept:a&wait=1&since={at}")));
        assert_eq!(waiting.response().status, 409);
        answer.join().expect("an answer")
    });
    assert_eq!(begun.status, 204);
}

#[test]
fn of_many_that_want_one_session_at_once_one_has_it_and_the_others_are_told() {
    let server = server(|_| {});
    let first = Stream::open(&server, "client=x&channels=kept:a,seen:a");
    let client = first.client().to_owned();
    first.leave(&server);
    for round in 0..5 {
        let links: Vec<(Link, Response)> = std::thread::scope(|scope| {
            let open = || {
                let mut link = Link::open(server.address);
                link.send(b"GET /sse?client=x&channels=kept:a,seen:a HTTP/1.1\r\nHost: x\r\n\r\n");
                let head = link.response();
                (link, head)
            };
            let all: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            all.into_iter().map(|one| one.join().expect("an answer")).collect()
        });
        server.publish("kept:a", round);
        let mut readers = Vec::new();
        for (link, head) in links {
            if head.status == 409 {
                assert!(head.text().contains("3510"), "{}", head.text());
                continue;
            }
            let mut stream = Events { link, head };
            loop {
                let event = stream.next();
                match event.name.as_str() {
                    "disconnect" => {
                        assert_eq!(event.value()["code"], 3510, "{event:?}");
                        assert_eq!(stream.link.await_end(), End::Closed);
                        break;
                    }
                    "" if event.value()["data"] == round => {
                        readers.push(stream);
                        break;
                    }
                    "subscribed" | "recovered" => assert_eq!(event.value()["client"], client.as_str()),
                    _ => {}
                }
            }
        }
        assert_eq!(readers.len(), 1, "round {round}");
        assert_eq!((num_clients(&server, "seen:a"), away(&server)), (json!(1), 0));
    }
}

#[test]
fn a_server_that_drains_keeps_nobody_waiting() {
    let server = server(|config| config.plain.grace = Duration::from_secs(60));
    let first = Stream::open(&server, "client=x&channels=seen:a");
    let mut live = Stream::open(&server, "client=y&channels=seen:a");
    first.leave(&server);
    let began = Instant::now();
    server.drain();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(live.named("join").name, "join");
    assert_eq!(live.named("leave").name, "leave");
    assert_eq!(live.named("disconnect").value()["code"], 3001);
}

#[test]
fn a_link_that_breaks_again_while_it_returns_costs_nothing() {
    let server = server(|_| {});
    let first = Stream::open(&server, "client=x&channels=kept:a,news,seen:a");
    let client = first.client().to_owned();
    first.leave(&server);
    server.publish("kept:a", 1);
    server.publish("news", 1);
    // Each is gone before it can have read anything.
    for _ in 0..20 {
        let mut link = Link::open(server.address);
        link.send(b"GET /sse?client=x&channels=kept:a,news,seen:a,kept:c HTTP/1.1\r\nHost: x\r\n\r\n");
        link.finish();
        drop(link);
    }
    let node = server.server().node();
    until("all of them to be gone", || away(&server) == 1 && node.admissions.open() == 0);
    let mut back = Stream::open(&server, "client=x&channels=kept:a,news");
    assert_eq!(back.client(), client);
    if back.welcome["recovered"] == true {
        assert_eq!([back.data(), back.data()], [json!(1), json!(1)]);
    }
    assert_eq!(num_clients(&server, "seen:a"), 1);
}

#[test]
fn a_client_without_a_sign_of_life_is_kept_like_one_that_broke_off() {
    let server = server(|config| {
        for listener in &mut config.listeners {
            listener.idle_timeout = Duration::from_millis(600);
            listener.ping_interval = Duration::from_millis(200);
        }
    });
    let (mut socket, welcome) = websocket(&server, "client=x&channels=seen:a");
    // It answers no ping.
    loop {
        if let Received::End(_) = socket.next() {
            break;
        }
    }
    until("it to be away", || away(&server) == 1);
    assert_eq!(server.closes(CloseReason::NoHeartbeat), 1);
    assert_eq!(Stream::open(&server, "client=x&channels=seen:a").welcome["client"], welcome["client"]);
}
