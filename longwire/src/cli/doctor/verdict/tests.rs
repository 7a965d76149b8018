//! What observations mean, case by case.

use super::super::seen::{
    Answer, Dial, Http2, Kept, Login, PingSeen, ProxySeen, QuietLine, Resolving, Size, TlsSeen,
};
use super::*;

/// A way on which all is well: a server with TLS that can be reached, and says so.
fn fine() -> Seen {
    Seen {
        host: "a.example".to_owned(),
        port: 443,
        is_encrypted: true,
        resolving: Some(Resolving { ms: 1.0, addresses: vec!["192.0.2.1".to_owned()], error: None }),
        tcp: vec![dial("192.0.2.1:443", Dialling::Connected)],
        tls: Some(tls()),
        http: Some(answer(Some(200))),
        http2: Some(Http2 { is_spoken: true, has_websockets: false }),
        upgrade: Some(upgraded(101, "")),
        login: Some(Login { dialect: "centrifuge", beat_s: Some(25.0), ..Login::default() }),
        ping: Some(PingSeen { ms: Some(1.0), waited_s: 5.0, is_close_answered: None }),
        message: Some(Size { passed_bytes: 1 << 20, ..Size::default() }),
        streams: vec![stream()],
        kept: Some(Kept { beats_s: vec![20.0, 45.0, 70.0], watched_s: 90.0, ..Kept::default() }),
        quiet: Some(quiet(&[(5.0, Silence::Alive), (90.0, Silence::Alive)])),
        ..Seen::default()
    }
}

fn behind(proxy: Proxy) -> Seen {
    Seen { proxy: Some(ProxySeen { name: proxy, evidence: String::new() }), ..fine() }
}

fn dial(address: &str, outcome: Dialling) -> Dial {
    Dial { address: address.to_owned(), ms: 1.0, outcome }
}

fn tls() -> TlsSeen {
    TlsSeen { ms: 9.0, version: Some("TLS 1.3".to_owned()), error: None, doubt: None, days_left: Some(80) }
}

fn answer(status: Option<u16>) -> Answer {
    Answer { path: "/health".to_owned(), ms: 2.0, status, error: None, is_tls: false }
}

fn upgraded(status: u16, body: &str) -> Upgrade {
    let path = "/connection/websocket".to_owned();
    Upgrade { path, ms: 2.0, status: Some(status), body: body.to_owned(), ..Upgrade::default() }
}

fn stream() -> Stream {
    Stream {
        kind: "SSE",
        speaks_at_once: true,
        head_ms: Some(2.0),
        status: Some(200),
        first_ms: Some(2.5),
        echo: Some(Echo { ms: Some(3.0), waited_s: 0.0, error: None }),
        watched_s: 60.0,
        ..Stream::default()
    }
}

fn quiet(lines: &[(f64, Silence)]) -> Quiet {
    let line =
        |(length_s, outcome): &(f64, Silence)| QuietLine { length_s: *length_s, outcome: outcome.clone() };
    Quiet { lines: lines.iter().map(line).collect(), max_s: 90.0, ..Quiet::default() }
}

fn closed(after_s: f64) -> Silence {
    Silence::Closed { after_s, how: Closing::Ended }
}

/// The findings' names, with a `!` at what has to be changed.
fn names(seen: &Seen) -> Vec<String> {
    let mark = |weight| if weight == Weight::Note { "" } else { "!" };
    verdict(seen).iter().map(|finding| format!("{}{}", finding.name, mark(finding.weight))).collect()
}

#[track_caller]
fn only(seen: &Seen) -> Finding {
    let mut found = verdict(seen);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn says(finding: &Finding, part: &str) -> bool {
    finding.what.contains(part) || finding.change.iter().any(|change| change.contains(part))
}

#[test]
fn where_all_is_well_nothing_is_found() {
    assert_eq!(names(&fine()), [""; 0]);
    assert_eq!(names(&behind(Proxy::Nginx)), [""; 0]);
}

#[test]
fn who_cannot_be_reached_is_said_to_be_where_it_fails() {
    let unresolved = Resolving { ms: 1.0, addresses: Vec::new(), error: Some("unknown".to_owned()) };
    let dead = |outcome| Seen { tcp: vec![dial("192.0.2.1:443", outcome)], ..fine() };
    let tls_error =
        |error| Seen { tls: Some(TlsSeen { error: Some(error), version: None, ..tls() }), ..fine() };
    for (seen, name, part) in [
        (Seen { resolving: Some(unresolved), tcp: Vec::new(), ..fine() }, "unresolved", "unknown"),
        (dead(Dialling::Refused), "no-connection", "nobody listens on port 443"),
        (dead(Dialling::TimedOut), "no-connection", "firewall"),
        (dead(Dialling::Failed("no route".to_owned())), "no-connection", "no route"),
        (tls_error(TlsError::NotSpoken), "no-tls", "without TLS the scheme is ws"),
        (tls_error(TlsError::Ended), "no-tls", "SNI"),
        (Seen { http: Some(Answer { is_tls: true, ..answer(None) }), ..fine() }, "tls-wanted", "wss"),
        (Seen { http: Some(answer(None)), ..fine() }, "no-http", "nothing came"),
    ] {
        let finding = only(&seen);
        assert_eq!((finding.name, finding.weight), (name, Weight::Unreachable));
        assert!(says(&finding, part), "{part} is not in {finding:#?}");
    }
    // One of two addresses is dead: clients get there, and lose time.
    let tcp = vec![dial("[2001:db8::1]:443", Dialling::TimedOut), dial("192.0.2.1:443", Dialling::Connected)];
    let finding = only(&Seen { tcp, ..fine() });
    assert_eq!((finding.name, finding.weight), ("no-connection", Weight::Fault));
    assert!(says(&finding, "2001:db8::1"));
}

#[test]
fn who_kept_its_token_from_an_untrusted_server_is_not_asked_for_one() {
    let error = Some("3501: bad request".to_owned());
    let login = Some(Login { dialect: "centrifuge", error, is_refusal: true, ..Login::default() });
    let of = |tls| {
        let found = verdict(&Seen { tls: Some(tls), login: login.clone(), ..fine() });
        found.into_iter().find(|finding| finding.name == "login-refused").expect("it was refused")
    };
    assert!(says(&of(tls()), "give --token, or another one"));
    let doubted = of(TlsSeen { doubt: Some("it has expired".to_owned()), ..tls() });
    assert!(says(&doubted, "is not said to a server") && !says(&doubted, "give --token"), "{doubted:#?}");
}

#[test]
fn a_certificate_that_is_not_trusted_is_a_fault_and_one_that_ends_is_a_note() {
    let with = |tls| Seen { tls: Some(tls), ..fine() };
    let doubt = only(&with(TlsSeen { doubt: Some("it has expired".to_owned()), ..tls() }));
    assert_eq!((doubt.name, doubt.weight), ("certificate", Weight::Fault));
    assert!(says(&doubt, "it has expired"));
    assert_eq!(names(&with(TlsSeen { days_left: Some(3), ..tls() })), ["certificate-ends"]);
}

#[test]
fn a_refused_upgrade_names_what_stands_in_its_way() {
    let stripped = "the upgrade header does not list websocket";
    for (proxy, status, body, name, part) in [
        (Some(Proxy::Nginx), 400, stripped, "upgrade-stripped!", "proxy_set_header Upgrade $http_upgrade"),
        (
            Some(Proxy::Nginx),
            400,
            "a websocket handshake needs HTTP/1.1",
            "upgrade-stripped!",
            "proxy_http_version 1.1",
        ),
        (Some(Proxy::Apache), 426, "", "upgrade-stripped!", "upgrade=websocket"),
        (None, 400, stripped, "upgrade-stripped!", "if it is nginx: proxy_http_version"),
        (Some(Proxy::Nginx), 404, "", "upgrade-not-found!", "nginx: whether it hands this path on"),
        (None, 404, "", "upgrade-not-found!", "/connection/websocket"),
        (None, 403, "pages of this origin may not connect", "upgrade-refused!", "server.allowed_origins"),
        (None, 401, "", "upgrade-refused!", "--token"),
        (Some(Proxy::Nginx), 502, "", "upstream-away!", "proxy_pass"),
        (Some(Proxy::Nginx), 200, "<html>", "upgrade-ignored!", "ordinary page"),
        (None, 301, "", "upgrade-redirected!", "another place"),
    ] {
        let proxy = proxy.map(|name| ProxySeen { name, evidence: String::new() });
        let seen = Seen { proxy, upgrade: Some(upgraded(status, body)), ..fine() };
        assert_eq!(names(&seen), [name], "{status} {body}");
        assert!(says(&only(&seen), part), "{part} is not in {:#?}", only(&seen));
    }
}

#[test]
fn the_idle_limit_of_nginx_is_named_with_its_directive() {
    let lines = [(30.0, Silence::Alive), (61.0, closed(60.06)), (90.0, closed(60.05))];
    let seen = Seen { quiet: Some(quiet(&lines)), ..behind(Proxy::Nginx) };
    // The server beats every 25 s: its clients are safe, and whoever goes without beats is not.
    let finding = only(&seen);
    assert_eq!((finding.name, finding.weight), ("idle-closed", Weight::Note));
    assert!(says(&finding, "60 s") && says(&finding, "proxy_read_timeout 3600s;"), "{finding:#?}");
    // One that does not, or too seldom.
    let without = Seen { login: None, kept: None, ..seen.clone() };
    let finding = only(&without);
    assert_eq!((finding.name, finding.weight), ("idle-closed", Weight::Fault));
    assert!(says(&finding, "proxy_read_timeout") && says(&finding, "heartbeat.interval = \"25s\""));
    let seldom = Login { beat_s: Some(55.0), ..Login::default() };
    assert_eq!(names(&Seen { login: Some(seldom), ..seen.clone() }), ["idle-closed!"]);
    // Nobody is recognised: the length speaks.
    let finding = only(&Seen { proxy: None, login: None, kept: None, ..seen });
    assert!(says(&finding, "so long is nginx's proxy_read_timeout"), "{finding:#?}");
}

#[test]
fn a_beat_is_advised_that_comes_twice_within_the_limit() {
    let lines = [(10.0, closed(9.0))];
    let finding = only(&Seen { quiet: Some(quiet(&lines)), login: None, kept: None, ..fine() });
    assert!(says(&finding, "heartbeat.interval = \"4s\"") && says(&finding, "heart-beat:4000,4000"));
}

#[test]
fn what_is_forgotten_silently_is_the_fault_of_no_proxys_directive() {
    let lines = [(30.0, Silence::Alive), (40.0, Silence::Lost), (90.0, Silence::Lost)];
    let finding = only(&Seen { quiet: Some(quiet(&lines)), login: None, kept: None, ..behind(Proxy::Nginx) });
    assert_eq!((finding.name, finding.weight), ("idle-dropped", Weight::Fault));
    assert!(says(&finding, "between 30 s and 40 s") && says(&finding, "\"15s\""), "{finding:#?}");
    assert!(!says(&finding, "proxy_read_timeout"));
}

#[test]
fn the_limit_follows_from_what_became_of_each() {
    use Silence::{Alive, Lost, NoEnd};
    let told = Silence::Closed { after_s: 7.0, how: Closing::Told("close 3012".to_owned()) };
    for (lines, expected) in [
        (&[(5.0, Alive), (10.0, Alive)][..], Limit::Survived { up_to_s: 10.0 }),
        (&[(5.0, Alive), (10.0, closed(8.0))], Limit::Closed { after_s: 8.0, how: Closing::Ended }),
        (
            &[(5.0, Alive), (10.0, told.clone())],
            Limit::Closed { after_s: 7.0, how: Closing::Told("close 3012".to_owned()) },
        ),
        // One that ended early, though longer ones lived, ended for a reason of its own.
        (&[(5.0, closed(2.0)), (10.0, Alive)], Limit::Survived { up_to_s: 10.0 }),
        (&[(5.0, Alive), (10.0, Lost), (20.0, Lost)], Limit::Dropped { alive_s: 5.0, dead_s: 10.0 }),
        (&[(5.0, Lost), (10.0, closed(5.5))], Limit::Dropped { alive_s: 0.0, dead_s: 5.0 }),
        (&[(5.0, NoEnd), (10.0, NoEnd)], Limit::NoEnd { up_to_s: 10.0 }),
        (&[(5.0, Alive), (34.0, NoEnd)], Limit::NoEnd { up_to_s: 34.0 }),
        (&[(5.0, Alive), (10.0, Silence::Disturbed { after_s: 6.0 })], Limit::Survived { up_to_s: 5.0 }),
        (&[(10.0, Silence::Disturbed { after_s: 6.0 })], Limit::Disturbed { after_s: 6.0 }),
        (&[(10.0, Silence::NotOpened("429".to_owned()))], Limit::Unknown),
        (&[], Limit::Unknown),
    ] {
        assert_eq!(limit(&quiet(lines)), expected, "{lines:?}");
    }
}

#[test]
fn streams_that_are_held_back_name_who_holds_them() {
    let held = Stream { head_ms: None, status: None, first_ms: None, echo: None, watched_s: 8.0, ..stream() };
    let finding = only(&Seen { streams: vec![held.clone()], ..behind(Proxy::Nginx) });
    assert_eq!((finding.name, finding.weight), ("buffered", Weight::Fault));
    assert!(says(&finding, "proxy_buffering off;") && says(&finding, "not even the response's head"));
    // Both streams are one finding.
    let other = Stream { kind: "HTTP stream", ..held.clone() };
    let finding = only(&Seen { streams: vec![held.clone(), other], ..behind(Proxy::Nginx) });
    assert!(says(&finding, "SSE and HTTP stream"));
    // Of a foreign server it is not known whether it says anything at once.
    let foreign = Stream { speaks_at_once: false, ..held.clone() };
    let finding = only(&Seen { streams: vec![foreign], ..fine() });
    assert!(says(&finding, "Either") && says(&finding, "if it is nginx: proxy_buffering off"));
    // What had no time to come is no fault.
    assert_eq!(names(&Seen { streams: vec![Stream { watched_s: 1.0, ..held }], ..fine() }), [""; 0]);
}

#[test]
fn a_stream_whose_later_part_does_not_come_is_held_back_too() {
    let echo = Some(Echo { ms: None, waited_s: 5.0, error: None });
    let finding = only(&Seen { streams: vec![Stream { echo, ..stream() }], ..behind(Proxy::Nginx) });
    assert!(finding.name == "buffered" && says(&finding, "within 5.0 s"), "{finding:#?}");
    let first = Stream { first_ms: None, echo: None, ..stream() };
    assert_eq!(names(&Seen { streams: vec![first], ..fine() }), ["buffered!"]);
    // A foreign server may have nothing to say.
    let foreign = Stream { first_ms: None, echo: None, speaks_at_once: false, ..stream() };
    assert_eq!(names(&Seen { streams: vec![foreign], ..fine() }), [""; 0]);
    // What could not be asked for says nothing.
    let echo = Some(Echo { ms: None, waited_s: 5.0, error: Some("HTTP 404".to_owned()) });
    assert_eq!(names(&Seen { streams: vec![Stream { echo, ..stream() }], ..fine() }), [""; 0]);
}

#[test]
fn a_compressed_stream_is_a_fault_and_a_refused_one_a_note() {
    let packed = Stream { content_encoding: Some("gzip".to_owned()), first_ms: None, echo: None, ..stream() };
    let finding = only(&Seen { streams: vec![packed], ..behind(Proxy::Nginx) });
    assert!(finding.name == "stream-compressed" && says(&finding, "gzip_types"));
    let refused = Stream { status: Some(404), ..stream() };
    assert_eq!(names(&Seen { streams: vec![refused], ..fine() }), ["stream-refused"]);
}

#[test]
fn a_stream_that_ends_in_the_middle_of_silence_tells_the_limit() {
    let foreign = Stream {
        speaks_at_once: false,
        echo: None,
        came_s: vec![1.0],
        end: Some((61.1, Closing::Ended)),
        ..stream()
    };
    let seen = Seen { quiet: None, kept: None, login: None, streams: vec![foreign], ..behind(Proxy::Nginx) };
    assert!(says(&only(&seen), "ended after 60 s"));
}

#[test]
fn events_without_http_2_share_six_connections() {
    let http2 = Some(Http2 { is_spoken: false, has_websockets: false });
    let finding = only(&Seen { http2, ..behind(Proxy::Nginx) });
    assert!(finding.name == "no-http2" && says(&finding, "listen 443 ssl http2"));
    // Browsers speak it over TLS alone.
    assert_eq!(names(&Seen { http2, is_encrypted: false, ..fine() }), [""; 0]);
}

#[test]
fn swallowed_pings_are_told_from_a_dead_server() {
    let with = |is_close_answered| {
        let ping = PingSeen { ms: None, waited_s: 5.0, is_close_answered };
        only(&Seen { ping: Some(ping), ..fine() })
    };
    assert!(says(&with(Some(true)), "pings are swallowed") && says(&with(Some(true)), "STOMP: heart-beat"));
    assert!(says(&with(Some(false)), "nobody is there"));
}

#[test]
fn a_kept_connection_that_ends_is_no_secret() {
    let with = |beats_s: Vec<f64>, end| Seen {
        kept: Some(Kept { beats_s, end: Some(end), ..Kept::default() }),
        ..behind(Proxy::Nginx)
    };
    // Before the first beat: that comes too late for this way.
    let finding = only(&with(Vec::new(), (15.0, Closing::Ended)));
    assert!(finding.weight == Weight::Fault && says(&finding, "heartbeat.interval = \"7s\""), "{finding:#?}");
    assert!(says(&finding, "proxy_read_timeout"));
    let told = with(vec![20.0], (30.0, Closing::Told("close 3012 no pong".to_owned())));
    assert_eq!(names(&told), ["kept-ended"]);
    assert_eq!(names(&with(vec![20.0, 45.0], (50.0, Closing::Reset))), ["kept-ended!"]);
}

#[test]
fn a_proxys_limit_of_bodies_is_a_note() {
    let body = |how: &str| Size {
        passed_bytes: 1 << 16,
        refused_bytes: Some(1 << 18),
        how: Some(how.to_owned()),
        error: None,
    };
    let finding = only(&Seen { body: Some(body("proxy")), ..behind(Proxy::Nginx) });
    assert!(finding.name == "body-limit" && says(&finding, "client_max_body_size"));
    // A server's own limit is its own decision.
    assert_eq!(names(&Seen { body: Some(body("server")), ..behind(Proxy::Nginx) }), [""; 0]);
}

#[test]
fn the_worst_comes_first() {
    let held = Stream { head_ms: None, status: None, first_ms: None, echo: None, watched_s: 8.0, ..stream() };
    let lines = [(61.0, closed(60.0))];
    let seen = Seen { streams: vec![held], quiet: Some(quiet(&lines)), ..behind(Proxy::Nginx) };
    assert_eq!(names(&seen), ["buffered!", "idle-closed"]);
}

#[test]
fn a_login_that_is_refused_is_told_from_one_that_nobody_answers() {
    let with = |dialect, is_refusal| {
        let error = Some("Bad CONNECT: access refused".to_owned());
        let login = Login { dialect, error, is_refusal, ..Login::default() };
        only(&Seen { login: Some(login), ..fine() })
    };
    for (dialect, is_refusal, name, weight, part) in [
        ("stomp", true, "login-refused", Weight::Refused, "login and passcode"),
        ("centrifuge", true, "login-refused", Weight::Refused, "--token"),
        ("stomp", false, "no-stomp", Weight::Unreachable, "ws or http"),
        ("centrifuge", false, "login-unanswered", Weight::Fault, "the path"),
    ] {
        let finding = with(dialect, is_refusal);
        assert_eq!((finding.name, finding.weight), (name, weight));
        assert!(says(&finding, part) && says(&finding, "access refused"), "{finding:#?}");
    }
}

#[test]
fn a_stream_that_was_asked_for_and_is_not_there_is_no_note() {
    let refused = |status| Stream {
        kind: "SSE",
        path: "/events".to_owned(),
        status: Some(status),
        ..Stream::default()
    };
    let alone = |status| {
        only(&Seen { upgrade: None, login: None, ping: None, streams: vec![refused(status)], ..fine() })
    };
    assert_eq!((alone(404).name, alone(404).weight), ("stream-refused", Weight::Refused));
    assert_eq!(alone(502).weight, Weight::Fault);
    let beside = only(&Seen { streams: vec![refused(404)], ..fine() });
    assert_eq!(beside.weight, Weight::Note);
}

#[test]
fn of_a_page_of_html_the_title_is_said() {
    for (body, words) in [
        ("<!DOCTYPE HTML> <html>  <head><title>Error  response</title></head>", "Error response"),
        ("<html><body>no title", "a page of HTML"),
        (" a  websocket handshake\nneeds HTTP/1.1", "a websocket handshake needs HTTP/1.1"),
        ("", ""),
    ] {
        assert_eq!(words_of(body), words, "{body}");
    }
}
