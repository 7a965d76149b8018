//! What a plain request tells: who answers, whether HTTP/2 is spoken, how long a body may be.
//!
//! What must stay true: no body is ever sent, so that nothing happens at the server; what is asked for by GET has no
//! effect by HTTP's rules.

use super::line::{Break, Head, Line};
use super::proxy;
use super::seen::{Answer, Http2, ProxySeen, Seen, Size};
use super::way::Way;
use super::{milliseconds, text_of};
use std::time::Duration;

/// What is asked for: longwire answers it, and others say that it is not there.
const PROBE: &str = "/health";

/// How much of a body is looked at for its author.
const LOOKED_AT_BYTES: usize = 2048;

/// How long the body of an answer may take.
const BODY_TIME: Duration = Duration::from_secs(1);

/// How long is waited for a refusal of a body: who looks at its length answers at once.
const REFUSAL_TIME: Duration = Duration::from_millis(1500);

/// What opens HTTP/2 (RFC 9113 section 3.4), with empty settings.
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The setting by which a server says that it takes WebSockets within HTTP/2 (RFC 8441 section 3).
const ENABLE_CONNECT: u16 = 8;

/// Asks for something usual, below the prefix that the server's paths have.
pub(super) async fn look(way: &Way, prefix: &str, seen: &mut Seen) {
    let path = format!("{prefix}{PROBE}");
    let begun = way.clock.now();
    let mut answer = Answer { path, ms: 0.0, status: None, error: None, is_tls: false };
    match way.open().await {
        Err(error) => answer.error = Some(error),
        Ok(mut line) => {
            let begun = way.clock.now();
            let asked = get(way, &mut line, &answer.path, "").await;
            answer.ms = milliseconds(way.clock.now() - begun);
            match asked {
                Ok(head) => {
                    answer.status = Some(head.status);
                    let deadline = way.clock.now() + BODY_TIME;
                    let body = line.beginning(&head, LOOKED_AT_BYTES, deadline).await;
                    note_proxy(seen, &head, &body);
                    // nginx answers so where TLS is spoken and was not begun.
                    let is_asked_for_tls =
                        head.status == 400 && body.contains("HTTP request was sent to HTTPS port");
                    if is_asked_for_tls {
                        (answer.status, answer.is_tls) = (None, true);
                    }
                }
                Err(broken) => {
                    answer.error = Some(broken.text());
                    answer.is_tls = line.is_tls();
                }
            }
        }
    }
    if answer.ms == 0.0 {
        answer.ms = milliseconds(way.clock.now() - begun);
    }
    seen.http = Some(answer);
}

/// Asks for a path with more header lines, each with its end; the head that is answered.
pub(super) async fn get(way: &Way, line: &mut Line, path: &str, lines: &str) -> Result<Head, Break> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nAccept: */*\r\n{lines}\r\n",
        way.authority,
        super::AGENT
    );
    let deadline = way.deadline();
    line.send(request.as_bytes(), deadline).await?;
    line.head(deadline).await
}

/// Notes who is on the way, unless that is known.
pub(super) fn note_proxy(seen: &mut Seen, head: &Head, body: &str) {
    if seen.proxy.is_none()
        && let Some((name, evidence)) = proxy::recognise(|name| head.header(name), body)
    {
        seen.proxy = Some(ProxySeen { name, evidence: super::super::printable(&text_of(&evidence)) });
    }
}

/// Begins HTTP/2 and reads the server's settings.
pub(super) async fn http2(way: &Way, is_encrypted: bool) -> Http2 {
    let none = Http2 { is_spoken: false, has_websockets: false };
    let opened = way.open_offering(if is_encrypted { &["h2", "http/1.1"] } else { &[] }).await;
    let Ok((mut line, protocol)) = opened else { return none };
    if is_encrypted && protocol.as_deref() != Some("h2") {
        return none;
    }
    let deadline = way.clock.now() + way.limit.min(REFUSAL_TIME);
    if line.send(HTTP_2, deadline).await.is_err() {
        return none;
    }
    loop {
        if let Some(settings) = settings(&line.received) {
            return settings.unwrap_or(none);
        }
        if line.read_more(deadline).await.is_err() {
            return none;
        }
    }
}

/// The first frame of a server of HTTP/2; none if more is needed, none within if it is something else.
fn settings(bytes: &[u8]) -> Option<Option<Http2>> {
    const HEADER: usize = 9;
    const SETTINGS: u8 = 4;
    let header = match bytes.get(..HEADER) {
        // What begins an answer of HTTP/1.
        _ if bytes.starts_with(b"HTTP") => return Some(None),
        None => return None,
        Some(header) => header,
    };
    let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
    if header[3] != SETTINGS || length > 1024 {
        return Some(None);
    }
    let payload = bytes.get(HEADER..HEADER + length)?;
    let has_websockets = payload
        .chunks_exact(6)
        .any(|setting| setting[..2] == ENABLE_CONNECT.to_be_bytes() && setting[2..] == [0, 0, 0, 1]);
    Some(Some(Http2 { is_spoken: true, has_websockets }))
}

/// Finds out how long a body may be, from the answer to its announced length alone.
pub(super) async fn body_limit(way: &Way, path: &str, seen: &mut Seen) {
    let mut size = Size::default();
    // No further than what anybody sends beside a stream.
    for kib in [16_u64, 64, 256, 1024] {
        let bytes = kib << 10;
        match is_refused(way, path, bytes).await {
            Err(error) => {
                size.error = Some(error);
                break;
            }
            Ok(None) => size.passed_bytes = bytes,
            Ok(Some((head, body))) => {
                note_proxy(seen, &head, &body);
                size.refused_bytes = Some(bytes);
                // A proxy answers with a page of its own; a server that is behind it says what it likes.
                let is_page = body.contains("<center>") || body.contains("413 Request Entity Too Large</");
                size.how = Some(if is_page { "proxy" } else { "server" }.to_owned());
                break;
            }
        }
    }
    seen.body = Some(size);
}

/// Announces a body; the refusal, if it is refused for its length.
async fn is_refused(way: &Way, path: &str, bytes: u64) -> Result<Option<(Head, String)>, String> {
    let mut line = way.open().await?;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {bytes}\r\nExpect: 100-continue\r\n\r\n",
        way.authority,
        super::AGENT
    );
    line.send(request.as_bytes(), way.deadline()).await.map_err(|broken| broken.text())?;
    let deadline = way.clock.now() + way.limit.min(REFUSAL_TIME);
    match line.head(deadline).await {
        Ok(head) if head.status == 413 => {
            let body = line.beginning(&head, LOOKED_AT_BYTES, way.clock.now() + BODY_TIME).await;
            Ok(Some((head, body)))
        }
        // Who waits for the body, or asks for it, has nothing against its length.
        Ok(_) | Err(Break::TimedOut) => Ok(None),
        Err(broken) => Err(broken.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_a_server_are_read_however_they_are_cut() {
        let frame = b"\0\0\x0c\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\x08\0\0\0\x01rest";
        for cut in 0..21 {
            assert_eq!(settings(&frame[..cut]), None, "{cut}");
        }
        assert_eq!(settings(frame), Some(Some(Http2 { is_spoken: true, has_websockets: true })));
        assert_eq!(
            settings(b"\0\0\0\x04\0\0\0\0\0"),
            Some(Some(Http2 { is_spoken: true, has_websockets: false }))
        );
        assert_eq!(settings(b"HTTP/1.1 400"), Some(None));
        assert_eq!(settings(b"\0\0\x08\x07\0\0\0\0\0xxxxxxxx"), Some(None));
        assert_eq!(settings(b"\xff\xff\xff\x04\0\0\0\0\0"), Some(None));
    }
}
