//! What was seen and found, for people and for scripts.
//!
//! Rows are made from [`Seen`] as far as it goes, always in the same order, so that they can be printed while the rest is
//! still measured. What must stay true: a row that was printed does not change; text of a stranger has no control
//! characters, for whoever filled it in took them out.

use super::plan::Plan;
use super::seen::{Closing, Dialling, Seen, Size, Stream, TlsError, Upgrade};
use super::verdict::{Finding, Limit, Weight, beat_s, is_held, limit};
use serde_json::json;

/// The width of a row's name.
const NAME_WIDTH: usize = 13;

/// How far text goes before it is broken, where there is room.
pub(super) const WIDTH: usize = 100;

/// And how far at least.
pub(super) const LEAST_WIDTH: usize = 40;

/// One row: its name and what there is to say.
pub(super) type Row = (&'static str, String);

/// How far a run has come; a row is only there once nothing more can change it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stage {
    Reached,
    Asked,
    Waited,
}

/// The rows that are certain at a stage.
pub(super) fn rows(seen: &Seen, plan: &Plan, stage: Stage) -> Vec<Row> {
    let mut rows = Vec::new();
    reached(seen, &mut rows);
    if stage >= Stage::Asked {
        asked(seen, plan, &mut rows);
    }
    if stage >= Stage::Waited {
        waited(seen, &mut rows);
    }
    rows
}

/// A row as it is printed.
pub(super) fn line((name, text): &Row, width: usize) -> String {
    let broken = broken(text, width.max(LEAST_WIDTH) - NAME_WIDTH - 2);
    let mut line = String::new();
    for (index, part) in broken.iter().enumerate() {
        let name = if index == 0 { *name } else { "" };
        line.push_str(&format!("  {name:<NAME_WIDTH$} {part}\n"));
    }
    line
}

/// What it all means.
pub(super) fn verdict(findings: &[Finding], width: usize) -> String {
    let width = width.max(LEAST_WIDTH);
    let count = findings.iter().filter(|finding| finding.weight != Weight::Note).count();
    let mut text = match count {
        0 => "Verdict: nothing has to be changed.\n".to_owned(),
        1 => "Verdict: one thing has to be changed.\n".to_owned(),
        count => format!("Verdict: {count} things have to be changed.\n"),
    };
    for (index, finding) in findings.iter().enumerate() {
        let mark = if finding.weight == Weight::Note { "note: " } else { "" };
        let number = format!("{}.", index + 1);
        text.push('\n');
        for (index, part) in broken(&format!("{mark}{}", finding.what), width - 5).iter().enumerate() {
            let number = if index == 0 { number.as_str() } else { "" };
            text.push_str(&format!("  {number:<3}{part}\n"));
        }
        for change in &finding.change {
            for (index, part) in broken(change, width - 8).iter().enumerate() {
                let mark = if index == 0 { "->" } else { "  " };
                text.push_str(&format!("     {mark} {part}\n"));
            }
        }
    }
    text
}

/// All of it as one JSON object.
pub(super) fn json(seen: &Seen, findings: &[Finding]) -> String {
    let idle = seen.quiet.as_ref().map(limit).map(|limit| match limit {
        Limit::Closed { after_s, .. } => json!({"closed_after_s": after_s}),
        Limit::Dropped { alive_s, dead_s } => json!({"alive_after_s": alive_s, "lost_after_s": dead_s}),
        Limit::Survived { up_to_s } => json!({"alive_after_s": up_to_s}),
        Limit::NoEnd { up_to_s } => json!({"no_end_within_s": up_to_s}),
        Limit::Disturbed { after_s } => json!({"server_speaks_after_s": after_s}),
        Limit::Unknown => json!({}),
    });
    let is_fine = findings.iter().all(|finding| finding.weight == Weight::Note);
    format!("{}\n", json!({"ok": is_fine, "idle": idle, "findings": findings, "seen": seen}))
}

/// What the body of a refusal says to a person: of a page of HTML its title.
pub(super) fn words_of(body: &str) -> String {
    let lower = body.to_ascii_lowercase();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !lower.trim_start().starts_with("<!doctype") && !lower.trim_start().starts_with("<html") {
        return words(body);
    }
    let title = lower.find("<title>").and_then(|at| {
        let rest = body.get(at + "<title>".len()..)?;
        Some(words(rest.split('<').next()?))
    });
    title.filter(|title| !title.is_empty()).unwrap_or_else(|| "a page of HTML".to_owned())
}

/// Cuts text into lines of no more than so many characters, where blanks are.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is one from the start");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn ms(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.1} ms"),
        value if value < 10_000.0 => format!("{value:.0} ms"),
        value => format!("{:.1} s", value / 1000.0),
    }
}

fn seconds(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0} s") } else { format!("{value:.1} s") }
}

fn bytes(value: u64) -> String {
    match value {
        value if value >= 1 << 20 && value % (1 << 20) == 0 => format!("{} MiB", value >> 20),
        value if value >= 1 << 10 && value % (1 << 10) == 0 => format!("{} KiB", value >> 10),
        value => format!("{value} bytes"),
    }
}

fn reached(seen: &Seen, rows: &mut Vec<Row>) {
    match &seen.resolving {
        None => rows.push(("name", format!("none: {} is an address", seen.host))),
        Some(resolving) => {
            let text = match (&resolving.error, resolving.addresses.len()) {
                (Some(error), _) => format!("{} cannot be resolved: {error}", seen.host),
                (None, 0) => format!("{} has no address", seen.host),
                (None, _) => {
                    format!("{} in {}: {}", seen.host, ms(resolving.ms), resolving.addresses.join(", "))
                }
            };
            rows.push(("name", text));
        }
    }
    for dial in &seen.tcp {
        let text = match &dial.outcome {
            Dialling::Connected => format!("{} connected in {}", dial.address, ms(dial.ms)),
            Dialling::Refused => format!("{} refused after {}", dial.address, ms(dial.ms)),
            Dialling::TimedOut => format!("{} does not answer within {}", dial.address, ms(dial.ms)),
            Dialling::Failed(error) => format!("{}: {error}", dial.address),
        };
        rows.push(("TCP", text));
    }
    if let Some(tls) = &seen.tls {
        let text = match (&tls.error, &tls.version) {
            (Some(TlsError::NotSpoken), _) => "not spoken on this port".to_owned(),
            (Some(TlsError::Ended), _) => "the connection was ended in the handshake".to_owned(),
            (Some(TlsError::TimedOut), _) => "the handshake did not end in time".to_owned(),
            (Some(TlsError::Failed(error)), _) => format!("failed: {error}"),
            (None, version) => {
                let version = version.as_deref().unwrap_or("done");
                let doubt = tls.doubt.as_ref().map(|doubt| format!(", certificate not trusted: {doubt}"));
                let days = tls.days_left.map(|days| format!(", valid for {days} days"));
                let trust = doubt.or(days).unwrap_or_default();
                format!("{version} in {}{trust}", ms(tls.ms))
            }
        };
        rows.push(("TLS", text));
    }
}

fn asked(seen: &Seen, plan: &Plan, rows: &mut Vec<Row>) {
    if let Some(answer) = &seen.http {
        let text = match (answer.status, &answer.error) {
            _ if answer.is_tls => "the port speaks TLS".to_owned(),
            (Some(status), _) => format!("{} is answered with {status} in {}", answer.path, ms(answer.ms)),
            (None, error) => error.clone().unwrap_or_else(|| "no answer".to_owned()),
        };
        rows.push(("HTTP", text));
    }
    if seen.http.as_ref().is_some_and(|answer| answer.status.is_some()) {
        let text = match &seen.proxy {
            Some(proxy) => format!("{} ({})", proxy.name.name(), proxy.evidence),
            None => "nobody who says so".to_owned(),
        };
        rows.push(("on the way", text));
    }
    if let Some(http2) = seen.http2 {
        let text = match (http2.is_spoken, http2.has_websockets) {
            (false, _) => "not spoken",
            (true, false) => "spoken, without WebSockets (they go over HTTP/1.1)",
            (true, true) => "spoken, WebSockets too",
        };
        rows.push(("HTTP/2", text.to_owned()));
    }
    if let Some(upgrade) = &seen.upgrade {
        rows.push(("WebSocket", upgraded(upgrade)));
        if upgrade.status == Some(101) && upgrade.error.is_none() {
            let text = match &upgrade.compression {
                Some(answer) => format!("agreed on: {answer}"),
                None => "permessage-deflate was offered and not taken".to_owned(),
            };
            rows.push(("compression", text));
        }
    }
    if let Some(login) = &seen.login {
        let dialect = match login.dialect {
            "plain" => "the plain dialect",
            "stomp" => "STOMP",
            _ => "the centrifuge dialect",
        };
        let text = match (&login.error, &login.server) {
            (Some(error), _) if login.is_refusal => format!("{dialect}: refused: {error}"),
            (Some(error), _) => format!("{dialect}: no answer to it: {error}"),
            (None, server) => {
                let server = server.as_ref().filter(|server| !server.is_empty());
                let by = server.map(|server| format!(" by {server}")).unwrap_or_default();
                format!("{dialect}, welcomed{by} in {}", ms(login.ms))
            }
        };
        rows.push(("login", text));
        if let Some(beat) = login.beat_s {
            rows.push(("beats", format!("every {}, as the server says", seconds(beat))));
        }
    }
    if let Some(ping) = &seen.ping {
        let text = match (ping.ms, ping.is_close_answered) {
            (Some(time), _) => format!("answered in {}", ms(time)),
            (None, Some(true)) => {
                format!("no answer within {}, though a close is answered", seconds(ping.waited_s))
            }
            (None, _) => format!("no answer within {}, nor to a close", seconds(ping.waited_s)),
        };
        rows.push(("ping", text));
    }
    if let Some(size) = &seen.message {
        rows.push(("messages", sized(size)));
    } else if !plan.websockets.is_empty() && seen.ping.as_ref().is_some_and(|ping| ping.ms.is_none()) {
        rows.push(("messages", "their limit cannot be found: pings are not answered".to_owned()));
    }
    if let Some(size) = &seen.body {
        rows.push(("requests", sized(size)));
    }
}

fn upgraded(upgrade: &Upgrade) -> String {
    let path = &upgrade.path;
    match (upgrade.status, &upgrade.error) {
        (Some(101), None) => format!("{path} in {}", ms(upgrade.ms)),
        (Some(101), Some(error)) => format!("{path}: {error}"),
        (Some(status), _) => {
            let body = words_of(&upgrade.body);
            let says = if body.is_empty() { String::new() } else { format!(": {body}") };
            format!("{path} is answered with {status}{says}")
        }
        (None, error) => format!("{path}: {}", error.as_deref().unwrap_or("no answer")),
    }
}

fn sized(size: &Size) -> String {
    match (size.refused_bytes, &size.error) {
        (None, Some(error)) => format!("not found out: {error}"),
        (None, None) => format!("{} pass, more was not tried", bytes(size.passed_bytes)),
        (Some(refused), _) => {
            let how = size.how.as_ref().map(|how| format!(" ({how})")).unwrap_or_default();
            format!("{} pass, {} do not{how}", bytes(size.passed_bytes), bytes(refused))
        }
    }
}

fn waited(seen: &Seen, rows: &mut Vec<Row>) {
    for stream in &seen.streams {
        rows.push((stream.kind, streamed(stream, seen)));
    }
    if let Some(kept) = &seen.kept {
        let beats = match (kept.beats_s.len(), kept.kind) {
            (0, _) | (_, None) => "no beat came".to_owned(),
            (1, Some(kind)) => format!("one beat came ({kind})"),
            (count, Some(kind)) => match beat_s(seen) {
                Some(beat) => format!("{count} beats came ({kind}), about {} apart", seconds(beat)),
                None => format!("{count} beats came ({kind})"),
            },
        };
        let text = match &kept.end {
            None => format!("lasts, after {}; {beats}", seconds(kept.watched_s)),
            Some((after, how)) => format!("ended after {} ({}); {beats}", seconds(*after), closing(how)),
        };
        rows.push(("kept", text));
    }
    if let Some(quiet) = &seen.quiet {
        let text = match (limit(quiet), &quiet.error) {
            (Limit::Closed { after_s, how }, _) => {
                format!("ended after {after_s:.1} s of silence ({}); {}", closing(&how), quiet.on)
            }
            (Limit::Dropped { alive_s, dead_s }, _) => {
                format!(
                    "forgotten between {} and {} of silence, without a word; {}",
                    seconds(alive_s),
                    seconds(dead_s),
                    quiet.on
                )
            }
            (Limit::Survived { up_to_s }, _) => {
                format!(
                    "alive after {} of silence, the longest that was tried; {}",
                    seconds(up_to_s),
                    quiet.on
                )
            }
            (Limit::NoEnd { up_to_s }, _) => {
                format!("no end within {} of silence; {}", seconds(up_to_s), quiet.on)
            }
            (Limit::Disturbed { after_s }, _) => {
                format!(
                    "never silent for long: the server says something after {}; {}",
                    seconds(after_s),
                    quiet.on
                )
            }
            (Limit::Unknown, Some(error)) => format!("not found out: {error}"),
            (Limit::Unknown, None) => "not found out: no connection could be had".to_owned(),
        };
        rows.push(("silence", text));
    }
}

fn closing(how: &Closing) -> String {
    match how {
        Closing::Told(text) => format!("the server says: {text}"),
        Closing::Ended => "without a word".to_owned(),
        Closing::Reset => "reset".to_owned(),
        Closing::Failed(text) => text.clone(),
    }
}

fn streamed(stream: &Stream, seen: &Seen) -> String {
    let path = &stream.path;
    match stream.status {
        Some(200) => {}
        Some(status) => return format!("{path} is answered with {status}"),
        None if stream.end.is_some() => return format!("{path}: the connection ended without an answer"),
        None => return format!("{path}: nothing came within {}", seconds(stream.watched_s)),
    }
    let head = stream.head_ms.map(ms).unwrap_or_default();
    let mut text = format!("{path}: head in {head}");
    match stream.first_ms {
        Some(first) => text.push_str(&format!(", first part in {}", ms(first))),
        // It was refused, and that is what was watched for.
        None if stream.refusal.is_some() => {}
        None => text.push_str(&format!(", nothing behind it within {}", seconds(stream.watched_s))),
    }
    if let Some(refusal) = &stream.refusal {
        text.push_str(&format!(", login refused: {refusal}"));
    }
    if let Some(echo) = &stream.echo {
        text.push_str(&match (echo.ms, &echo.error) {
            (Some(time), _) => format!(", an answer in {}", ms(time)),
            (None, Some(error)) => format!(", nothing can be asked beside it ({error})"),
            (None, None) => format!(", no answer within {}", seconds(echo.waited_s)),
        });
    }
    if !is_held(stream, seen) && stream.speaks_at_once && stream.refusal.is_none() {
        text.push_str(": not held back");
    }
    if let Some((after, how)) = &stream.end
        && stream.refusal.is_none()
    {
        text.push_str(&format!(", ended after {} ({})", seconds(*after), closing(how)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_whose_login_was_refused_is_not_said_to_be_late() {
        let refusal = Some("3501: bad request".to_owned());
        let refused = Stream {
            path: "/x".to_owned(),
            status: Some(200),
            head_ms: Some(2.0),
            refusal,
            ..Stream::default()
        };
        let text = streamed(&refused, &Seen::default());
        assert_eq!(text, "/x: head in 2.0 ms, login refused: 3501: bad request");
        let silent = Stream { refusal: None, watched_s: 8.0, ..refused };
        assert!(streamed(&silent, &Seen::default()).contains("nothing behind it within 8.0 s"));
    }
}
