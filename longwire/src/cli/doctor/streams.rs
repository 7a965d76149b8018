//! What a response that goes on tells: whether its head, its beginning and what is said later come when they are said.
//!
//! Where the server speaks the centrifuge dialect, that is found out actively: it answers the login at once, and a
//! command that is sent beside the stream, for a channel to which nobody is subscribed, is answered on it. Of another
//! server only what comes can be told. What must stay true: what was seen so far can be read while this runs, and when
//! it is given up.

use super::line::{Break, Head};
use super::plan::{Form, StreamAt};
use super::seen::{Closing, Echo, Login, Stream};
use super::way::Way;
use super::{Arguments, milliseconds, text_of, upgrade};
use longwire_protocol::http::body::{BodyDecoder, ResponseBody};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// How long an answer on the stream may take.
const ECHO_TIME: Duration = Duration::from_secs(5);

/// How often it is noted how long a stream was watched.
const STEP: Duration = Duration::from_millis(250);

/// What is kept of a stream's lines.
const MAX_LINE_BYTES: usize = 256 << 10;

/// Times that are kept.
const MAX_TIMES: usize = 1000;

/// The number of the command that is sent beside the stream.
const ECHO_ID: u64 = 2;

/// Watches a stream until it ends.
pub(super) async fn watch(
    way: &Way,
    at: &StreamAt,
    uplink: Option<&str>,
    arguments: &Arguments,
    cell: &RefCell<Stream>,
) {
    let kind = match at.form {
        Form::EventStream | Form::ForeignEvents => "SSE",
        Form::HttpStream | Form::ForeignStream => "HTTP stream",
    };
    let speaks_at_once = matches!(at.form, Form::EventStream | Form::HttpStream);
    let begun = way.clock.now();
    *cell.borrow_mut() = Stream { kind, path: at.path.clone(), speaks_at_once, ..Stream::default() };
    let watching = Watching { way, begun, cell };
    let end = match watching.run(at, uplink, arguments).await {
        Ok(()) => Closing::Ended,
        Err(broken) => broken.closing().unwrap_or(Closing::Ended),
    };
    let mut seen = cell.borrow_mut();
    seen.watched_s = watching.seconds();
    if seen.status.is_none_or(|status| status == 200) {
        let end = seen.refusal.clone().map_or(end, Closing::Told);
        seen.end = Some((watching.seconds(), end));
    }
}

struct Watching<'a> {
    way: &'a Way,
    begun: Instant,
    cell: &'a RefCell<Stream>,
}

/// Where the answers are sent that a client owes.
struct Beside {
    session: String,
    node: String,
    wants_pong: bool,
}

impl Watching<'_> {
    fn seconds(&self) -> f64 {
        (self.way.clock.now() - self.begun).as_secs_f64()
    }

    async fn run(&self, at: &StreamAt, uplink: Option<&str>, arguments: &Arguments) -> Result<(), Break> {
        let mut line = self.way.open().await.map_err(Break::Failed)?;
        line.send(self.request(at, arguments).as_bytes(), self.way.deadline()).await?;
        let head = loop {
            // The head may be held back for as long as it likes: that is what is looked for.
            match line.head(self.way.clock.now() + STEP).await {
                Err(Break::TimedOut) => self.cell.borrow_mut().watched_s = self.seconds(),
                Ok(head) if head.status < 200 => {}
                other => break other?,
            }
        };
        self.note_head(&head);
        if head.status != 200 {
            return Ok(());
        }
        let body = head.body.map_err(|what| Break::Wrong(what.to_owned()))?;
        let mut lines = Lines::of(body)?;
        let mut beside: Option<Beside> = None;
        let mut echo_since = None;
        loop {
            for text in lines.take(&mut line.received)? {
                let Some(said) = said(&text) else { continue };
                let beat = said.as_object().is_some_and(|members| members.is_empty());
                if let Some(session) = read_session(&said, self.cell) {
                    beside = Some(session);
                } else if beat && beside.as_ref().is_some_and(|beside| beside.wants_pong) {
                    // What becomes of it shows on the stream.
                    let _ = self.post(uplink, beside.as_ref(), "{}").await;
                } else if said["id"].as_u64() == Some(ECHO_ID)
                    && let Some(since) = echo_since
                {
                    self.note_echo(Some(since), None);
                }
            }
            if let (Some(beside), Some(uplink), None) = (&beside, uplink, echo_since) {
                let since = self.way.clock.now();
                echo_since = Some(since);
                let command =
                    json!({"id": ECHO_ID, "unsubscribe": {"channel": "longwire-doctor"}}).to_string();
                match self.post(Some(uplink), Some(beside), &command).await {
                    Ok(()) => self.note_echo(None, None),
                    Err(error) => self.note_echo(None, Some(error)),
                }
            }
            if lines.has_ended() {
                return Ok(());
            }
            match line.read_more(self.way.clock.now() + STEP).await {
                Ok(_) => self.note_came(),
                Err(Break::TimedOut) => self.note_waiting(),
                Err(broken) => return Err(broken),
            }
        }
    }

    fn request(&self, at: &StreamAt, arguments: &Arguments) -> String {
        let token = self.way.secret(arguments.token.as_deref());
        let common = format!(
            "Host: {}\r\nUser-Agent: {}\r\nAccept-Encoding: gzip, br\r\nCache-Control: no-cache\r\n",
            self.way.authority,
            super::AGENT
        );
        let command = upgrade::connect_command(self.way, arguments.token.as_deref());
        let post = |accept: &str| {
            format!(
                "POST {} HTTP/1.1\r\n{common}Accept: {accept}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{command}",
                at.path,
                command.len()
            )
        };
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let get = |path: &str, bearer: &str| {
            format!("GET {path} HTTP/1.1\r\n{common}Accept: text/event-stream\r\n{bearer}\r\n")
        };
        match at.form {
            Form::HttpStream => post("*/*"),
            // A token in a URL would stand in every log on the way.
            Form::EventStream if token.is_some() => post("text/event-stream"),
            Form::EventStream => get(&format!("{}?cf_connect={}", at.path, escaped(&command)), ""),
            Form::ForeignEvents => get(&at.path, &bearer),
            Form::ForeignStream => get(&at.path, &bearer).replace("text/event-stream", "*/*"),
        }
    }

    fn note_head(&self, head: &Head) {
        let mut seen = self.cell.borrow_mut();
        let shown = |name: &str| head.header(name).map(crate::cli::printable);
        seen.head_ms = Some(milliseconds(self.way.clock.now() - self.begun));
        seen.status = Some(head.status);
        seen.content_type = shown("content-type");
        seen.content_encoding = shown("content-encoding").filter(|coding| coding != "identity");
        seen.has_accel = head.header("x-accel-buffering").is_some();
    }

    fn note_came(&self) {
        let mut seen = self.cell.borrow_mut();
        let ms = milliseconds(self.way.clock.now() - self.begun);
        seen.watched_s = self.seconds();
        if seen.first_ms.is_none() {
            seen.first_ms = Some(ms);
        } else if seen.came_s.len() < MAX_TIMES {
            seen.came_s.push((ms / 100.0).round() / 10.0);
        }
    }

    fn note_waiting(&self) {
        let mut seen = self.cell.borrow_mut();
        seen.watched_s = self.seconds();
        if let Some(echo) = &mut seen.echo
            && echo.ms.is_none()
        {
            echo.waited_s = (echo.waited_s + STEP.as_secs_f64()).min(ECHO_TIME.as_secs_f64());
        }
    }

    fn note_echo(&self, since: Option<Instant>, error: Option<String>) {
        let ms = since.map(|since| milliseconds(self.way.clock.now() - since));
        self.cell.borrow_mut().echo = Some(Echo { ms, waited_s: 0.0, error });
    }

    /// Sends commands beside the stream.
    async fn post(
        &self,
        uplink: Option<&str>,
        beside: Option<&Beside>,
        commands: &str,
    ) -> Result<(), String> {
        let (Some(uplink), Some(beside)) = (uplink, beside) else { return Ok(()) };
        let body = json!({"session": beside.session, "node": beside.node, "data": commands}).to_string();
        let mut line = self.way.open().await?;
        let request = format!(
            "POST {uplink} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            self.way.authority,
            super::AGENT,
            body.len()
        );
        let deadline = self.way.deadline();
        line.send(request.as_bytes(), deadline).await.map_err(|broken| broken.text())?;
        let head = line.head(deadline).await.map_err(|broken| broken.text())?;
        if (200..300).contains(&head.status) { Ok(()) } else { Err(format!("HTTP {}", head.status)) }
    }
}

/// Whether enough was seen to say how a stream comes: it answered, was refused, or was silent for too long.
pub(super) fn is_decided(stream: &Stream) -> bool {
    let is_refused = stream.status.is_some_and(|status| status != 200) || stream.refusal.is_some();
    let has_echo = stream.echo.as_ref().is_some_and(|echo| {
        echo.ms.is_some() || echo.error.is_some() || echo.waited_s >= ECHO_TIME.as_secs_f64()
    });
    is_refused || stream.end.is_some() || has_echo
}

/// One line of the stream as JSON, whether it is one of SSE or of an HTTP stream.
fn said(text: &str) -> Option<Value> {
    let text = text.strip_prefix("data:").unwrap_or(text).trim();
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// Reads the reply to the login.
fn read_session(said: &Value, cell: &RefCell<Stream>) -> Option<Beside> {
    let mut login = Login::default();
    if !upgrade::read_connected(said, &mut login) {
        return None;
    }
    if login.error.is_some() {
        // Of a command that came later it is no refusal of the login.
        if said["id"].as_u64() != Some(ECHO_ID) {
            cell.borrow_mut().refusal = login.error;
        }
        return None;
    }
    let connected = &said["connect"];
    let text = |name: &str| connected[name].as_str().unwrap_or_default().to_owned();
    Some(Beside { session: text("session"), node: text("node"), wants_pong: connected["pong"] == true })
}

/// A text within a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Takes lines from a body.
struct Lines {
    body: BodyDecoder,
    kept: Vec<u8>,
}

impl Lines {
    fn of(body: ResponseBody) -> Result<Lines, Break> {
        let body = BodyDecoder::new(body, u64::MAX).map_err(|error| Break::Wrong(error.to_string()))?;
        Ok(Lines { body, kept: Vec::new() })
    }

    fn has_ended(&self) -> bool {
        self.body.is_complete()
    }

    /// The lines that are complete.
    fn take(&mut self, received: &mut Vec<u8>) -> Result<Vec<String>, Break> {
        let mut input = received.as_slice();
        loop {
            match self.body.decode(&mut input) {
                Ok(Some(piece)) => self.kept.extend_from_slice(piece),
                Ok(None) => break,
                Err(error) => return Err(Break::Wrong(error.to_string())),
            }
        }
        received.clear();
        let mut lines = Vec::new();
        while let Some(at) = self.kept.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.kept.drain(..=at).collect();
            lines.push(text_of(&String::from_utf8_lossy(&line)));
        }
        if self.kept.len() > MAX_LINE_BYTES {
            // Nobody waits for a line that long.
            self.kept.clear();
        }
        // A login's reply over HTTP stream may come without its line end.
        if let Ok(whole) = serde_json::from_slice::<Value>(&self.kept)
            && whole.is_object()
        {
            lines.push(whole.to_string());
            self.kept.clear();
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_a_chunked_body_is_cut() {
        let body = b"6\r\ndata: \r\n4;x=y\r\n{}\n\n\r\n8\r\n: beat\n\n\r\n0\r\n\r\n";
        let expected = ["data: {}", "", ": beat", ""];
        for cut in 0..body.len() {
            let mut lines = Lines::of(ResponseBody::Chunked).unwrap();
            let mut found = Vec::new();
            for piece in [&body[..cut], &body[cut..]] {
                found.extend(lines.take(&mut piece.to_vec()).unwrap());
            }
            assert_eq!(found, expected, "cut at {cut}");
            assert!(lines.has_ended());
        }
        assert!(Lines::of(ResponseBody::Chunked).unwrap().take(&mut b"zz\r\n".to_vec()).is_err());
    }

    #[test]
    fn a_body_that_ends_with_the_connection_is_taken_as_it_comes() {
        let mut lines = Lines::of(ResponseBody::UntilClose).unwrap();
        assert_eq!(lines.take(&mut b"data: {\"a\":1}\n\nda".to_vec()).unwrap(), ["data: {\"a\":1}", ""]);
        assert_eq!(lines.take(&mut b"ta: x\n".to_vec()).unwrap(), ["data: x"]);
        assert_eq!(lines.take(&mut b"{\"b\":2}".to_vec()).unwrap(), ["{\"b\":2}"]);
    }

    #[test]
    fn what_is_said_is_read_from_both_forms() {
        assert_eq!(said("data: {\"id\":2}"), Some(json!({"id": 2})));
        assert_eq!(said("{\"id\":2}"), Some(json!({"id": 2})));
        assert_eq!(said(": comment"), None);
        assert_eq!(escaped("{\"a\": 1}"), "%7B%22a%22%3A%201%7D");
    }
}
