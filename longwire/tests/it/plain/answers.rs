//! Answers to polls that get lost behind the socket: what they carried comes again, or the client is told.
//!
//! A lost answer is one that the test read and then asks on as if it had not. Positions are the subject of `poll`; here
//! it is what has none: direct messages, channels without history, who came and went.

use super::{Lines, polled, quoted, since, welcomed};
use crate::harness::{Events, Link, TestServer, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const QUERY: &str = "client=x&channels=news,kept:a,seen:a";

/// What an answer brought, apart from who came and went.
fn brought(answer: &Value) -> Vec<&Value> {
    let all = answer["publications"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
    all.filter(|it| it.get("type").is_none()).map(|it| &it["data"]).collect()
}

fn from(query: &str, at: &str) -> String {
    format!("{query}&since={}", quoted(at))
}

/// The number of an answer, which its `since` names.
fn number(answer: &Value) -> u64 {
    let since = since(answer);
    let entry =
        since.split(',').find_map(|entry| entry.strip_prefix('=')).unwrap_or_else(|| panic!("{answer}"));
    entry.split_once('.').expect("a mark").0.parse().expect("a number")
}

/// A client that polls, its first answer, and one that carried `news`, a direct message and `kept:a`.
#[track_caller]
fn lost(server: &TestServer) -> (Value, Value) {
    let first = polled(server, QUERY);
    server.publish("news", "of no history");
    server.api("send", &json!({"client": first["client"], "data": "direct"}));
    server.publish("kept:a", "of history");
    let lost = polled(server, &from(QUERY, &since(&first)));
    assert_eq!(brought(&lost).len(), 3, "{lost}");
    assert_eq!((number(&first), number(&lost), &lost["recovered"]), (1, 2, &json!(true)), "{lost}");
    (first, lost)
}

#[test]
fn what_an_answer_carried_that_was_lost_comes_again() {
    let server = TestServer::start();
    let (first, lost) = lost(&server);
    server.publish("news", "meanwhile");
    let again = polled(&server, &from(QUERY, &since(&first)));
    assert_eq!((&again["client"], &again["recovered"]), (&first["client"], &json!(true)), "{again}");
    let mut all = brought(&again);
    let news = |it: &&Value| **it == "of no history" || **it == "meanwhile";
    assert_eq!(
        all.iter().copied().filter(news).collect::<Vec<_>>(),
        ["of no history", "meanwhile"],
        "{again}"
    );
    all.sort_by_key(|it| it.to_string());
    assert_eq!(all, ["direct", "meanwhile", "of history", "of no history"], "{again}");
    // Who came itself was in the lost one.
    let joins = |answer: &Value| answer["publications"].to_string().matches("\"join\"").count();
    assert_eq!((joins(&lost), joins(&again)), (1, 1), "{lost} {again}");
    // And once more, for that one may be lost, too.
    let again = polled(&server, &from(QUERY, &since(&first)));
    assert_eq!((brought(&again).len(), &again["recovered"]), (4, &json!(true)), "{again}");
    assert_eq!(super::poll(&server, &format!("{}&wait=1", from(QUERY, &since(&again)))).status, 204);
}

#[test]
fn who_names_the_answer_has_what_was_in_it_whatever_it_asks_by() {
    for transport in ["/ws", "/sse", "/stream", "/poll"] {
        for has_it in [true, false] {
            let server = TestServer::start();
            let (first, lost) = lost(&server);
            let query = from(QUERY, &since(if has_it { &lost } else { &first }));
            let pieces = if has_it { 0 } else { 4 };
            let (welcome, came) = match transport {
                "/ws" => {
                    let (mut socket, welcome) = welcomed(&server, &query);
                    (welcome, (0..pieces).map(|_| socket.value()).collect::<Vec<Value>>())
                }
                "/sse" => {
                    let mut events = Events::open(server.address, &format!("/sse?{query}"), "");
                    (events.next().value(), (0..pieces).map(|_| events.next().value()).collect())
                }
                "/stream" => {
                    let mut lines = Lines::open(server.address, &query, "");
                    (lines.value(), (0..pieces).map(|_| lines.value()).collect())
                }
                _ => {
                    let answer = polled(&server, &format!("{query}&wait=0"));
                    let came = answer["publications"].as_array().expect("a list").clone();
                    (answer, came)
                }
            };
            assert_eq!(
                (&welcome["recovered"], &welcome["resumed"], came.len()),
                (&json!(true), &json!(true), pieces),
                "{transport} {has_it}: {welcome} {came:?}"
            );
        }
    }
}

#[test]
fn a_position_from_an_answer_proves_it_too() {
    let server = TestServer::start();
    let (first, lost) = lost(&server);
    let ids = |answer: &Value| since(answer).split(',').next().expect("an entry").to_owned();
    assert!(ids(&lost).starts_with("kept:a=1."), "{lost}");
    let next = polled(&server, &format!("{}&wait=0", from(QUERY, &ids(&lost))));
    assert_eq!((&next["recovered"], brought(&next).len()), (&json!(true), 0), "{next}");
    drop(first);

    let server = TestServer::start();
    let (first, _) = self::lost(&server);
    let again = polled(&server, &from(QUERY, &ids(&first)));
    assert_eq!((&again["recovered"], brought(&again).len()), (&json!(true), 3), "{again}");
}

#[test]
fn who_proves_nothing_is_told_that_something_may_be_missing_and_not_in_haste() {
    let server = TestServer::start();
    let (_, lost) = lost(&server);
    let told = polled(&server, &format!("{QUERY}&wait=30"));
    assert_eq!((&told["recovered"], &told["resumed"]), (&json!(false), &json!(true)), "{told}");
    assert_eq!(brought(&told).len(), 0, "it may have it: {told}");
    assert_eq!(number(&told), number(&lost) + 1);
    // With a position it is answered when there is something to say, and else when its time is over.
    let at = since(&told).split(',').next().expect("an entry").to_owned();
    let next = polled(&server, &format!("{}&wait=0", from("client=x", &at)));
    assert_eq!(next["recovered"], false, "nor was it proved that this was read: {next}");
    let began = Instant::now();
    assert_eq!(super::poll(&server, &format!("{}&wait=1", from("client=x", &at))).status, 204);
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    let proved = polled(&server, &format!("{}&wait=0", from("client=x", &since(&next))));
    assert_eq!(proved["recovered"], true, "{proved}");
}

#[test]
fn a_lost_direct_message_is_told_to_a_client_without_channels() {
    let server = TestServer::start();
    let first = polled(&server, "client=x");
    server.api("send", &json!({"client": first["client"], "data": "direct"}));
    let lost = polled(&server, &from("client=x", &since(&first)));
    assert_eq!((brought(&lost), lost.get("recovered")), (vec![&json!("direct")], None), "{lost}");
    let told = polled(&server, "client=x");
    assert_eq!((brought(&told).len(), &told["recovered"]), (0, &json!(false)), "{told}");
    // By what it was told last it knows; before that it does not.
    let again = polled(&server, &format!("{}&wait=0", from("client=x", &since(&lost))));
    assert_eq!(again["recovered"], false, "{again}");
    let next = polled(&server, &format!("{}&wait=0", from("client=x", &since(&again))));
    assert_eq!(next.get("recovered"), None, "{next}");
}

#[test]
fn who_asks_on_by_the_same_connection_has_what_came_by_it() {
    let server = TestServer::with(|config| config.server.trusted_proxies = vec![[127, 0, 0, 9].into()]);
    let mut link = Link::open(server.address);
    let mut ask = |query: &str| {
        link.send(format!("GET /poll?{query} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        serde_json::from_slice::<Value>(&link.response().body).expect("an answer")
    };
    let first = ask("client=x&channels=news");
    for n in 0..3 {
        server.publish("news", n);
        let answer = ask("client=x&channels=news");
        assert_eq!((brought(&answer), &answer["recovered"]), (vec![&json!(n)], &json!(true)), "{answer}");
    }
    // What it says itself counts more: the connection may be that of a proxy.
    let answer = ask(&from("client=x", &since(&first)));
    assert_eq!((brought(&answer), &answer["recovered"]), (vec![&json!(2)], &json!(true)), "{answer}");
}

#[test]
fn a_connection_of_a_trusted_proxy_proves_nothing() {
    let server = TestServer::with(|config| config.server.trusted_proxies = vec![[127, 0, 0, 1].into()]);
    let mut link = Link::open(server.address);
    let mut ask = || {
        link.send(b"GET /poll?client=x&channels=news HTTP/1.1\r\nHost: x\r\n\r\n");
        serde_json::from_slice::<Value>(&link.response().body).expect("an answer")
    };
    ask();
    server.publish("news", 1);
    assert_eq!(brought(&ask()), [&json!(1)]);
    assert_eq!(ask()["recovered"], false);
}

#[test]
fn an_answer_larger_than_what_is_kept_does_not_come_again() {
    let server = TestServer::with(|config| config.plain.max_away_bytes = 3_000);
    let first = polled(&server, "client=x&channels=news");
    let waiting = std::thread::scope(|scope| {
        let answer = scope.spawn(|| polled(&server, &from("client=x", &since(&first))));
        until("the poll to wait", || {
            let counters = &server.server().node().counters;
            counters.iter().map(|shard| shard.sessions_away.get()).sum::<u64>() == 0
        });
        server.publish("news", "x".repeat(4_000));
        answer.join().expect("an answer")
    });
    assert_eq!(brought(&waiting).len(), 1);
    let told = polled(&server, &from("client=x", &since(&first)));
    assert_eq!((brought(&told).len(), &told["recovered"]), (0, &json!(false)), "{told}");
}

#[test]
fn what_is_kept_of_an_answer_makes_room_for_what_comes_after_it() {
    let server = TestServer::with(|config| config.plain.max_away_bytes = 3_000);
    let first = polled(&server, "client=x&channels=news");
    server.publish("news", "a".repeat(2_000));
    let second = polled(&server, &from("client=x", &since(&first)));
    server.publish("news", "b".repeat(2_000));
    let third = polled(&server, &from("client=x", &since(&second)));
    assert_eq!((brought(&third).len(), &third["recovered"]), (1, &json!(true)), "{third}");
}

#[test]
fn an_answer_of_a_session_that_is_over_proves_nothing_of_the_next() {
    let server = TestServer::with(|config| config.plain.grace = Duration::from_millis(300));
    let lapsed =
        || server.server().node().counters.iter().map(|shard| shard.sessions_lapsed.get()).sum::<u64>();
    let first = polled(&server, "client=x&channels=news,kept:a");
    until("the session to be over", || lapsed() == 1);
    // Of channels with history it is known what is missing, of others it is not; the session is not resumed.
    let next = polled(&server, &format!("{}&wait=0", from("client=x&channels=kept:a", &since(&first))));
    assert_eq!((&next["recovered"], next.get("resumed")), (&json!(true), None), "{next}");
    until("the session to be over", || lapsed() == 2);
    let next = polled(&server, &format!("{}&wait=30", from("client=x&channels=news,kept:a", &since(&next))));
    assert_eq!((&next["recovered"], next.get("resumed")), (&json!(false), None), "{next}");
    // The same number, but of another session: this answer was not got.
    let again = polled(&server, &format!("{}&wait=0", from("client=x", &since(&first))));
    assert_eq!((number(&first), number(&next), &again["recovered"]), (1, 1, &json!(false)), "{again}");
}
