//! From what was seen to what it means: in plain words, with the setting to change.
//!
//! A pure function of [`Seen`]; it asks nothing and prints nothing. What must stay true: what is called a fault was
//! measured; where two causes would look the same from here, both are named; every finding says what to do, and names
//! the directive of the proxy that was recognised, or of those whose habit it is.

use super::proxy::{Need, Proxy, usual_limits};
use super::report::words_of;
use super::seen::{Closing, Dialling, Echo, Quiet, Seen, Silence, Stream, TlsError, Upgrade};
use serde::Serialize;

/// Beats should come in less than this part of what a path allows.
const SAFE_PART: f64 = 0.8;

/// The interval that is advised where the path allows more.
const USUAL_BEAT_S: f64 = 25.0;

/// By how much later than the answer to a plain request that of a stream may come.
const PROMPT_MS: f64 = 2000.0;

/// What is due at once and does not come within so many seconds is held back.
const HELD_S: f64 = 4.5;

/// A certificate that ends sooner is worth a word.
const FEW_DAYS: i64 = 14;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weight {
    /// Nothing can be reached.
    Unreachable,
    /// Somebody said no.
    Refused,
    /// Something is wrong and has to be changed.
    Fault,
    /// Worth knowing.
    Note,
}

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    /// What it is called, for scripts.
    pub(super) name: &'static str,
    pub(super) weight: Weight,
    /// What is the matter.
    pub(super) what: String,
    /// What to do about it; nothing if nothing needs to be done.
    pub(super) change: Vec<String>,
}

/// How long a silent connection lasts.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Limit {
    /// It is ended after so many seconds.
    Closed { after_s: f64, how: Closing },
    /// Between these it is forgotten without a word.
    Dropped { alive_s: f64, dead_s: f64 },
    /// It answered after so many seconds, the longest that was tried.
    Survived { up_to_s: f64 },
    /// It did not end within so many seconds; whether it would have answered is not known.
    NoEnd { up_to_s: f64 },
    /// The server says something so often that no silence is longer.
    Disturbed { after_s: f64 },
    /// There was nothing to see.
    Unknown,
}

/// How long silent connections lasted, from what became of each.
pub(super) fn limit(quiet: &Quiet) -> Limit {
    let alive = |line: &&super::seen::QuietLine| line.outcome == Silence::Alive;
    let alive_s = quiet.lines.iter().filter(alive).map(|line| line.length_s).fold(0.0, f64::max);
    // What ended before a longer one answered was ended for another reason than its silence.
    let closed = quiet.lines.iter().filter_map(|line| match &line.outcome {
        Silence::Closed { after_s, how } if *after_s >= alive_s => Some((*after_s, how)),
        _ => None,
    });
    let closed = closed.min_by(|a, b| a.0.total_cmp(&b.0));
    let lost = quiet.lines.iter().filter(|line| line.outcome == Silence::Lost && line.length_s > alive_s);
    let lost = lost.map(|line| line.length_s).min_by(f64::total_cmp);
    let open = quiet.lines.iter().filter(|line| line.outcome == Silence::NoEnd);
    let open = open.map(|line| line.length_s).fold(0.0, f64::max);
    let disturbed = quiet.lines.iter().filter_map(|line| match line.outcome {
        Silence::Disturbed { after_s } => Some(after_s),
        _ => None,
    });
    let disturbed = disturbed.min_by(f64::total_cmp);
    match (closed, lost) {
        (Some((after_s, how)), lost) if lost.is_none_or(|lost| after_s <= lost) => {
            Limit::Closed { after_s, how: how.clone() }
        }
        (_, Some(dead_s)) => Limit::Dropped { alive_s, dead_s },
        _ if alive_s > 0.0 && alive_s >= open => Limit::Survived { up_to_s: alive_s },
        _ if open > 0.0 => Limit::NoEnd { up_to_s: open },
        _ => disturbed.map_or(Limit::Unknown, |after_s| Limit::Disturbed { after_s }),
    }
}

/// How often the server beats: as it said, or as it was seen to.
pub(super) fn beat_s(seen: &Seen) -> Option<f64> {
    let said = seen.login.as_ref().and_then(|login| login.beat_s);
    let beats = seen.kept.as_ref().map(|kept| kept.beats_s.as_slice()).unwrap_or_default();
    let observed = match beats {
        [first, .., last] => Some((last - first) / (beats.len() - 1) as f64),
        _ => None,
    };
    said.or(observed)
}

/// What was found, the worst first.
pub(super) fn verdict(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let reached = reach(seen, &mut found);
    if reached {
        trust(seen, &mut found);
        upgrade(seen, &mut found);
        login(seen, &mut found);
        pings(seen, &mut found);
        streams(seen, &mut found);
        idle(seen, &mut found);
        kept(seen, &mut found);
        sizes(seen, &mut found);
    }
    found.sort_by_key(|finding| finding.weight);
    found
}

fn add(found: &mut Vec<Finding>, name: &'static str, weight: Weight, what: String, change: Vec<String>) {
    found.push(Finding { name, weight, what, change });
}

/// The directive of who was recognised, or the best known ones.
fn directive(seen: &Seen, need: Need) -> Vec<String> {
    let known = seen.proxy.as_ref().map(|proxy| proxy.name);
    let of = |proxy: Proxy| proxy.directive(need).map(|text| format!("{}: {text}", proxy.name()));
    match known {
        Some(proxy) => of(proxy).into_iter().collect(),
        None => [Proxy::Nginx, Proxy::Haproxy, Proxy::Apache, Proxy::AwsAlb]
            .into_iter()
            .filter_map(of)
            .map(|text| format!("if it is {text}"))
            .collect(),
    }
}

/// Who holds something back, as far as that is known.
fn culprit(seen: &Seen) -> &'static str {
    seen.proxy.as_ref().map_or("something on the way", |proxy| proxy.name.name())
}

fn seconds(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0} s") } else { format!("{value:.1} s") }
}

/// Name, TCP, TLS and the first answer; whether there is somebody to talk to.
fn reach(seen: &Seen, found: &mut Vec<Finding>) -> bool {
    use Weight::{Fault, Unreachable};
    if let Some(resolving) = &seen.resolving
        && resolving.addresses.is_empty()
    {
        let what = format!(
            "the name {} leads to no address: {}",
            seen.host,
            resolving.error.as_deref().unwrap_or("there is none")
        );
        let change =
            vec!["the spelling of the name, its A and AAAA records, this machine's resolver".to_owned()];
        add(found, "unresolved", Unreachable, what, change);
        return false;
    }
    let is_connected = seen.tcp.iter().any(|dial| dial.outcome == Dialling::Connected);
    for dial in &seen.tcp {
        let Some((what, change)) = undialled(seen, dial) else { continue };
        let weight = if is_connected { Fault } else { Unreachable };
        let change = match is_connected {
            false => change,
            true => format!(
                "let the server listen there, or take the address out of the name's records; until then clients lose time on it ({change})"
            ),
        };
        add(found, "no-connection", weight, what, vec![change]);
    }
    if !is_connected {
        return false;
    }
    if let Some(tls) = &seen.tls
        && let Some(error) = &tls.error
    {
        let (what, change) = match error {
            TlsError::NotSpoken => (
                format!("port {} does not speak TLS", seen.port),
                "the URL: without TLS the scheme is ws, sse+http, stomp; or the port, or the server's certificate settings",
            ),
            TlsError::Ended => (
                "the connection was ended in the middle of the TLS handshake".to_owned(),
                "the proxy's certificate for this name (SNI), TLS 1.2 or later, and whether the port speaks TLS at all",
            ),
            TlsError::TimedOut => (
                "the TLS handshake did not come to an end".to_owned(),
                "a firewall that lets TCP through and TLS not, or a server that is stuck",
            ),
            TlsError::Failed(text) => (
                format!("TLS failed: {text}"),
                "TLS versions, ciphers and certificate of the server or proxy",
            ),
        };
        add(found, "no-tls", Unreachable, what, vec![change.to_owned()]);
        return false;
    }
    if let Some(answer) = &seen.http
        && answer.status.is_none()
    {
        if answer.is_tls {
            let what = format!("port {} speaks TLS, and the URL does not ask for it", seen.port);
            let change = vec!["the URL: with TLS the scheme is wss, sse+https, stream+https".to_owned()];
            add(found, "tls-wanted", Unreachable, what, change);
        } else {
            let what = format!(
                "the port takes connections but answers no HTTP: {}",
                answer.error.as_deref().unwrap_or("nothing came")
            );
            let change = vec![
                "the port, and whether it is one of STOMP or TCP: then the scheme is stomp or tcp".to_owned(),
                "whether the server behind it is stuck".to_owned(),
            ];
            add(found, "no-http", Unreachable, what, change);
        }
        return false;
    }
    true
}

/// Why an address did not connect, and what to look at.
fn undialled(seen: &Seen, dial: &super::seen::Dial) -> Option<(String, String)> {
    let address = &dial.address;
    Some(match &dial.outcome {
        Dialling::Connected => return None,
        Dialling::Refused => (
            format!("{address} refuses connections: nobody listens on port {}", seen.port),
            "start the server, or correct the port; a server that listens on 127.0.0.1 alone is seen by nobody else"
                .to_owned(),
        ),
        Dialling::TimedOut => (
            format!("{address} does not answer: no connection within {}", seconds(dial.ms / 1000.0)),
            "a firewall or security group that drops port and address, or a machine that is off".to_owned(),
        ),
        Dialling::Failed(text) => {
            (format!("{address} cannot be connected: {text}"), "this machine's network and routes".to_owned())
        }
    })
}

fn trust(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(tls) = &seen.tls else { return };
    if let Some(doubt) = &tls.doubt {
        let what = format!("the certificate is not trusted: {doubt}. Clients refuse the connection");
        let change = vec![
            "the certificate of the server or proxy: for this name, valid, with the certificates between it and the root"
                .to_owned(),
            "an authority of your own: add its root certificate to what this machine trusts (SSL_CERT_FILE), or give it with --ca; clients want it as well".to_owned(),
        ];
        add(found, "certificate", Weight::Fault, what, change);
    } else if let Some(days) = tls.days_left.filter(|days| *days <= FEW_DAYS) {
        let what = format!("the certificate is valid for {days} more days");
        add(found, "certificate-ends", Weight::Note, what, vec!["renew it".to_owned()]);
    }
}

fn upgrade(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(upgrade) = &seen.upgrade else { return };
    if upgrade.status == Some(101) && upgrade.error.is_none() {
        return;
    }
    let (name, weight, what, change) = refused_upgrade(seen, upgrade);
    add(found, name, weight, what, change);
}

fn refused_upgrade(seen: &Seen, upgrade: &Upgrade) -> (&'static str, Weight, String, Vec<String>) {
    use Weight::{Fault, Refused};
    let path = &upgrade.path;
    let Some(status) = upgrade.status else {
        let what = format!(
            "a WebSocket was asked for at {path} and nothing was answered: {}",
            upgrade.error.as_deref().unwrap_or("nothing came")
        );
        return ("upgrade-unanswered", Fault, what, directive(seen, Need::Upgrade));
    };
    let says = match words_of(&upgrade.body) {
        text if text.is_empty() => String::new(),
        text => format!(" (\"{text}\")"),
    };
    let asked = format!("a WebSocket was asked for at {path}, and the answer is HTTP {status}{says}");
    let lower = upgrade.body.to_ascii_lowercase();
    // What a server says that sees a request without Upgrade, or of HTTP/1.0: somebody took it out.
    let is_stripped = status == 426
        || (status == 400 || status == 405 || status == 501)
            && ["upgrade", "websocket", "http/1.1", "handshake"].iter().any(|word| lower.contains(word));
    match status {
        101 => {
            let what = format!(
                "the answer to the handshake at {path} is wrong: {}",
                upgrade.error.as_deref().unwrap_or("it breaks a rule")
            );
            ("upgrade-wrong", Fault, what, vec!["whatever rewrites headers on the way".to_owned()])
        }
        300..=399 => {
            let to = upgrade.location.as_deref().unwrap_or("another place");
            let what = format!("{asked}: it leads to {to}, and WebSocket clients follow nothing");
            ("upgrade-redirected", Fault, what, vec![format!("use the URL behind it: {to}")])
        }
        401 | 407 => (
            "upgrade-refused",
            Refused,
            asked,
            vec!["who may connect: give --token, or another one".to_owned()],
        ),
        403 => {
            let change = vec![
                "the server's list of origins (longwire: server.allowed_origins), a firewall for web applications, or --token"
                    .to_owned(),
            ];
            ("upgrade-refused", Refused, asked, change)
        }
        429 => {
            ("upgrade-refused", Refused, asked, vec!["wait: too many connections came from here".to_owned()])
        }
        502..=504 => {
            let what = format!("{asked}: {} is there, but not the server behind it", culprit(seen));
            let change = vec![
                "start the server; then the address to which the proxy hands on (nginx: proxy_pass)"
                    .to_owned(),
            ];
            ("upstream-away", Fault, what, change)
        }
        _ if is_stripped => {
            let what = format!(
                "{asked}: the request reached the server without what makes it a WebSocket; {} did not hand it on",
                culprit(seen)
            );
            ("upgrade-stripped", Fault, what, directive(seen, Need::Upgrade))
        }
        404 => {
            let mut change = vec![
                "the path: longwire and Centrifugo serve /connection/websocket, longwire also /ws and /stomp"
                    .to_owned(),
            ];
            if let Some(proxy) = &seen.proxy {
                change.push(format!("or {}: whether it hands this path on, with Upgrade", proxy.name.name()));
            }
            ("upgrade-not-found", Refused, asked, change)
        }
        200..=299 => {
            let what = format!("{asked}: an ordinary page, no WebSocket");
            let mut change = vec![
                "the path, and whether the proxy hands it on to the server rather than to a site".to_owned(),
            ];
            change.extend(directive(seen, Need::Upgrade));
            ("upgrade-ignored", Fault, what, change)
        }
        _ => ("upgrade-refused", Refused, asked, directive(seen, Need::Upgrade)),
    }
}

fn login(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(login) = &seen.login else { return };
    let Some(error) = &login.error else { return };
    if login.is_refusal {
        let what = format!("the server refused the login: {error}. What lies behind it was not looked at");
        let has_doubt = seen.tls.as_ref().is_some_and(|tls| tls.doubt.is_some());
        let change = match login.dialect {
            _ if has_doubt => {
                "the certificate first: a token or passcode is not said to a server whose certificate is not trusted (--ca FILE trusts it)"
            }
            "stomp" => "login and passcode, in the URL (stomp://login:passcode@host)",
            _ => {
                "give --token, or another one; longwire takes clients without one if client.allow_anonymous is on"
            }
        };
        add(found, "login-refused", Weight::Refused, what, vec![change.to_owned()]);
        return;
    }
    let (name, weight, change) = match login.dialect {
        "stomp" => (
            "no-stomp",
            Weight::Unreachable,
            "the port, and whether it is one of HTTP: then the scheme is ws or http",
        ),
        _ => (
            "login-unanswered",
            Weight::Fault,
            "the path, and whether it is longwire or Centrifugo that serves it",
        ),
    };
    let what = format!("the login is not answered as it has to be: {error}");
    let change = vec![change.to_owned(), "whether the server behind it is stuck".to_owned()];
    add(found, name, weight, what, change);
}

fn pings(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(ping) = &seen.ping else { return };
    if ping.ms.is_some() {
        return;
    }
    let waited = seconds(ping.waited_s);
    let (what, weight) = match ping.is_close_answered {
        Some(true) => (
            format!(
                "pings are swallowed: no pong within {waited}, though the server answers a close. A client that trusts pings \
                 takes this connection for dead"
            ),
            Weight::Fault,
        ),
        _ => (
            format!("neither a ping nor a close is answered within {waited}: nobody is there"),
            Weight::Fault,
        ),
    };
    let change = vec![
        "beats as messages of the dialect, which everything hands on (centrifuge: its pings are messages; STOMP: heart-beat)"
            .to_owned(),
        "the server, or a proxy that understands WebSockets: RFC 6455, section 5.5.2 wants a pong for each ping".to_owned(),
    ];
    add(found, "pings-swallowed", weight, what, change);
}

fn streams(seen: &Seen, found: &mut Vec<Finding>) {
    let is_prompt = seen.http.as_ref().is_some_and(|answer| answer.ms < PROMPT_MS);
    // What is compressed is held back by that, which is a finding of its own.
    let is_plainly_held = |stream: &&Stream| stream.content_encoding.is_none() && is_held(stream, seen);
    let held: Vec<&Stream> = seen.streams.iter().filter(is_plainly_held).collect();
    if let Some(first) = held.first() {
        let names: Vec<&str> = held.iter().map(|stream| stream.kind).collect();
        let names = names.join(" and ");
        let part = held_part(first);
        let (what, change) = if first.speaks_at_once {
            let what = format!(
                "{names} is held back by {}: {part}, though the server says something at once",
                culprit(seen)
            );
            (what, directive(seen, Need::Unbuffered))
        } else {
            let what = format!(
                "{names}: {part}{}. Either {} holds it back, or the server says nothing before its first event",
                if is_prompt { ", though other requests are answered at once" } else { "" },
                culprit(seen)
            );
            let mut change = directive(seen, Need::Unbuffered);
            change.push(
                "the server: X-Accel-Buffering: no, and a first line at once, such as a comment".to_owned(),
            );
            (what, change)
        };
        add(found, "buffered", Weight::Fault, what, change);
    }
    let coding = |stream: &Stream| stream.content_encoding.clone().map(|coding| (stream.kind, coding));
    if let Some((kind, coding)) = seen.streams.iter().find_map(coding) {
        let what = format!(
            "{kind} comes compressed ({coding}): whoever compresses waits for more before it hands on"
        );
        add(found, "stream-compressed", Weight::Fault, what, directive(seen, Need::Uncompressed));
    }
    // Where nothing else was asked for, a stream that is refused is no detail.
    let is_all = seen.upgrade.is_none() && !seen.streams.iter().any(|stream| stream.status == Some(200));
    for stream in &seen.streams {
        if let Some(status) = stream.status.filter(|status| *status != 200) {
            let what = format!("{} at {} is answered with HTTP {status}", stream.kind, stream.path);
            let change = match status {
                401 | 403 => "give --token, or another one",
                404 if is_all => "the path",
                404 => "the path; a server without it needs nothing",
                502..=504 => "the address to which the proxy hands on, and whether the server runs",
                _ => "the answer's text has the reason",
            };
            let weight = match status {
                _ if !is_all => Weight::Note,
                502..=504 => Weight::Fault,
                _ => Weight::Refused,
            };
            add(found, "stream-refused", weight, what, vec![change.to_owned()]);
        }
    }
    let has_events = seen.streams.iter().any(|stream| stream.kind == "SSE" && stream.status == Some(200));
    if has_events && seen.is_encrypted && seen.http2.is_some_and(|http2| !http2.is_spoken) {
        let what =
            "without HTTP/2 a browser opens no more than six streams to one host, over all tabs".to_owned();
        add(found, "no-http2", Weight::Note, what, directive(seen, Need::Http2));
    }
}

/// Whether what the server says does not arrive when it is said.
pub(super) fn is_held(stream: &Stream, seen: &Seen) -> bool {
    if stream.status.is_some_and(|status| status != 200) {
        return false;
    }
    let due_ms = seen.http.as_ref().map_or(0.0, |answer| answer.ms) + PROMPT_MS;
    let is_late = |came_ms: Option<f64>| match came_ms {
        None => stream.watched_s >= HELD_S,
        // What came with the end came because of it.
        Some(ms) => ms > due_ms,
    };
    let is_echo_late = |echo: &Echo| match (&echo.error, echo.ms) {
        (Some(_), _) => false,
        (None, None) => echo.waited_s >= HELD_S,
        (None, Some(ms)) => ms > due_ms,
    };
    match stream.speaks_at_once {
        true => {
            is_late(stream.head_ms)
                || is_late(stream.first_ms)
                || stream.echo.as_ref().is_some_and(is_echo_late)
        }
        false => stream.head_ms.is_none() && stream.watched_s >= HELD_S,
    }
}

fn held_part(stream: &Stream) -> String {
    let watched = seconds(stream.watched_s);
    match (stream.head_ms, stream.first_ms, &stream.echo) {
        (None, _, _) => format!("nothing came within {watched}, not even the response's head"),
        (Some(ms), _, _) if ms > 1000.0 * HELD_S || ms > PROMPT_MS && stream.end.is_some() => {
            format!("the response's head came after {}", seconds(ms / 1000.0))
        }
        (_, None, _) => format!("the head came, and nothing behind it within {watched}"),
        (_, _, Some(Echo { ms: None, waited_s, .. })) => {
            format!("the first part came, and what was asked for later did not within {}", seconds(*waited_s))
        }
        (_, Some(ms), echo) => {
            let last = echo.as_ref().and_then(|echo| echo.ms).unwrap_or(ms).max(ms);
            format!("what is said at once came after {}", seconds(last / 1000.0))
        }
    }
}

fn idle(seen: &Seen, found: &mut Vec<Finding>) {
    let beat = beat_s(seen);
    let limit = match &seen.quiet {
        Some(quiet) => limit(quiet),
        None => stream_limit(seen),
    };
    let is_dropped = matches!(limit, Limit::Dropped { .. });
    let (limit_s, what) = match limit {
        Limit::Closed { after_s, how } => {
            let who = match &how {
                Closing::Told(text) => format!("by the server, which says: {text}"),
                _ => match &seen.proxy {
                    Some(proxy) => format!("without a word, as {} does", proxy.name.name()),
                    None => "without a word".to_owned(),
                },
            };
            (
                after_s,
                format!("a connection on which nothing is sent is ended after {} ({who})", seconds(after_s)),
            )
        }
        Limit::Dropped { alive_s, dead_s } => {
            let what = format!(
                "a connection on which nothing is sent is forgotten on the way after between {} and {}, and neither end is told: \
                 a firewall or NAT does so",
                seconds(alive_s),
                seconds(dead_s)
            );
            (alive_s.max(1.0), what)
        }
        Limit::Survived { .. } | Limit::NoEnd { .. } | Limit::Disturbed { .. } | Limit::Unknown => return,
    };
    let advised = USUAL_BEAT_S.min((limit_s / 2.0).floor()).max(1.0);
    let mut change = Vec::new();
    let (weight, what) = match beat {
        Some(beat) if beat <= limit_s * SAFE_PART => {
            let what = format!(
                "{what}. The server beats every {}, which keeps its clients' connections open; whoever goes without beats loses \
                 them",
                seconds(beat)
            );
            change.push(format!(
                "nothing, for clients that get beats; STOMP: ask for heart-beat:{0},{0}",
                (advised * 1000.0) as u64
            ));
            (Weight::Note, what)
        }
        Some(beat) => {
            let what = format!("{what}, and the server beats only every {}", seconds(beat));
            change.push(advice(advised));
            (Weight::Fault, what)
        }
        None => {
            change.push(advice(advised));
            (Weight::Fault, what)
        }
    };
    if !is_dropped {
        change.extend(directive(seen, Need::Idle));
        if seen.proxy.is_none() {
            let usual = usual_limits(limit_s);
            change.extend(usual.iter().map(|whose| format!("so long is {whose}")));
        }
    }
    add(found, if is_dropped { "idle-dropped" } else { "idle-closed" }, weight, what, change);
}

/// What a stream says about silence that ended in the middle of one.
fn stream_limit(seen: &Seen) -> Limit {
    let ends = seen.streams.iter().filter_map(|stream| match &stream.end {
        Some((at_s, how)) if !matches!(how, Closing::Told(_)) => {
            let last_ms = stream.first_ms.or(stream.head_ms).unwrap_or(0.0);
            let last_s = stream.came_s.last().copied().unwrap_or(last_ms / 1000.0);
            Some((at_s - last_s, how.clone())).filter(|(silence_s, _)| *silence_s >= HELD_S)
        }
        _ => None,
    });
    match ends.min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((after_s, how)) => Limit::Closed { after_s, how },
        None => Limit::Unknown,
    }
}

fn advice(seconds: f64) -> String {
    format!(
        "a beat every {seconds:.0} s or more often: longwire's heartbeat.interval = \"{seconds:.0}s\" and ping_interval of the \
         listener, STOMP's heart-beat:{0},{0}, other servers' ping interval",
        (seconds * 1000.0) as u64
    )
}

/// A connection whose beats were answered should not end.
fn kept(seen: &Seen, found: &mut Vec<Finding>) {
    let Some(kept) = &seen.kept else { return };
    let Some((after_s, how)) = &kept.end else { return };
    let said = match how {
        Closing::Told(text) => format!("the server said: {text}"),
        Closing::Ended => "without a word".to_owned(),
        Closing::Reset => "by a reset".to_owned(),
        Closing::Failed(text) => text.clone(),
    };
    let beats = kept.beats_s.len();
    let what = format!(
        "a connection that was kept as clients do ended after {} ({said}), with {beats} {} before",
        seconds(*after_s),
        if beats == 1 { "beat" } else { "beats" }
    );
    let is_told = matches!(how, Closing::Told(_));
    let beat = beat_s(seen).filter(|beat| *after_s < *beat);
    let mut change = Vec::new();
    if beat.is_some() || beats == 0 && !is_told {
        change.push(advice(USUAL_BEAT_S.min((after_s / 2.0).floor()).max(1.0)));
        change.extend(directive(seen, Need::Idle));
    } else {
        change.push("the server's log of that moment, which has the reason".to_owned());
    }
    // A server that says why has its own reasons, such as a login that did not come.
    let weight = if is_told { Weight::Note } else { Weight::Fault };
    let is_known = found.iter().any(|finding| finding.name.starts_with("idle-") && beats == 0);
    if !is_known {
        add(found, "kept-ended", weight, what, change);
    }
}

fn sizes(seen: &Seen, found: &mut Vec<Finding>) {
    if let Some(size) = &seen.body
        && let Some(refused) = size.refused_bytes
        && let Some(proxy) = seen.proxy.as_ref().filter(|_| size.how.as_deref() == Some("proxy"))
    {
        let what = format!(
            "{} refuses requests whose body is {refused} bytes (HTTP 413); {} pass",
            proxy.name.name(),
            size.passed_bytes
        );
        let change = directive(seen, Need::Body);
        add(found, "body-limit", Weight::Note, what, change);
    }
}

#[cfg(test)]
mod tests;
