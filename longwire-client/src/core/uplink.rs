//! The way up beside a stream: messages in POSTs, one at a time, on a line of its own.
//!
//! `core` dials and writes for it. What must stay true: messages arrive in the order in which they were posted; a POST
//! whose answer did not come is never repeated, because it may have been done, unless the server said that it was not.

use super::outputs::Writes;
use crate::carrier::http::Request;
use crate::carrier::poll::Poll;
use crate::cause::Cause;
use crate::machine::Line;
use longwire_protocol::websocket::Kind;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use url::form_urlencoded::byte_serialize;

/// How much one POST carries where several messages may share it: half of what servers take by default.
const MAX_BATCH_BYTES: usize = 32 << 10;

/// The longest answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// How long a line is kept behind the last answer: at rest it costs both ends more than another would.
const REST: Duration = Duration::from_secs(2);

/// When a message is posted again that the server could not take, unless it says when.
const PATIENCE: Duration = Duration::from_secs(1);

/// How messages are put into POSTs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// An object with session, node and commands, a line each (the centrifuge dialect's emulation).
    Emulation,
    /// A message each; the session stands in the target (the plain dialect).
    Plain,
}

/// The state of the way up.
#[derive(Debug)]
pub(super) struct Uplink {
    form: Form,
    waiting: VecDeque<(Kind, Vec<u8>)>,
    waiting_bytes: usize,
    /// The POST that is to be written, or that was and whose answer is awaited.
    current: Option<(&'static str, Vec<u8>)>,
    /// By when its answer has to be there.
    answer_by: Option<Instant>,
    /// Until when the server takes nothing.
    resume_at: Option<Instant>,
    /// Until when its line is kept for what may follow.
    rest_until: Option<Instant>,
    answer: Poll,
    pub(super) line: Option<Line>,
    pub(super) is_dialled: bool,
    pub(super) writes: Writes,
}

/// What the way up needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Nothing, or patience.
    Nothing,
    /// A line.
    Dial,
    /// That its POST is written.
    Write,
}

impl Uplink {
    pub(super) fn new(form: Form) -> Uplink {
        Uplink {
            form,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            current: None,
            answer_by: None,
            resume_at: None,
            rest_until: None,
            answer: Poll::new(MAX_ANSWER_BYTES),
            line: None,
            is_dialled: false,
            writes: Writes::default(),
        }
    }

    pub(super) fn post(&mut self, kind: Kind, message: &[u8]) {
        self.waiting_bytes += message.len();
        self.waiting.push_back((kind, message.to_vec()));
    }

    /// How many bytes were posted and are not known to have arrived.
    pub(super) fn unwritten(&self) -> usize {
        self.waiting_bytes + self.current.as_ref().map_or(0, |(_, body)| body.len())
    }

    /// Gathers the next POST and says what it needs.
    pub(super) fn advance(&mut self, now: Instant, session: &str, node: &str) -> Need {
        if self.answer_by.is_some() || self.resume_at.is_some_and(|at| at > now) {
            return Need::Nothing;
        }
        self.resume_at = None;
        if self.current.is_none() {
            self.current = self.gather(session, node);
        }
        if self.current.is_some() {
            self.rest_until = None;
        }
        match (&self.current, self.line, self.is_dialled) {
            (None, _, _) | (Some(_), Some(_), false) => Need::Nothing,
            (Some(_), None, _) => Need::Dial,
            (Some(_), Some(_), true) => Need::Write,
        }
    }

    /// Writes the POST.
    pub(super) fn write(
        &mut self,
        answer_by: Instant,
        (host, target): (&str, &str),
        headers: &[(String, String)],
        out: &mut Vec<u8>,
    ) -> Result<(), Cause> {
        let Some((content_type, body)) = &self.current else { return Ok(()) };
        let body = Some((*content_type, body.as_slice()));
        Request { method: "POST", target, host, accept: "*/*", headers, body }.write(out)?;
        self.answer.ask();
        self.answer_by = Some(answer_by);
        Ok(())
    }

    /// Takes bytes of its line; `Ok(true)` once the answer is there and the line is of no more use.
    ///
    /// # Errors
    ///
    /// The server refuses what is posted, or breaks the protocol.
    pub(super) fn handle_bytes(&mut self, now: Instant, mut bytes: &[u8]) -> Result<bool, Cause> {
        match self.answer.take(&mut bytes) {
            Ok(None) => Ok(false),
            Ok(Some((answer, _))) => {
                self.current = None;
                self.answer_by = None;
                self.rest_until = Some(now + REST);
                Ok(!answer.keeps_alive)
            }
            // It was not taken, so it may be repeated.
            Err(Cause::Status { status: 429, retry_after, .. }) => {
                self.answer_by = None;
                self.resume_at = Some(now + retry_after.unwrap_or(PATIENCE).min(60 * PATIENCE));
                Ok(true)
            }
            Err(cause) => Err(cause),
        }
    }

    /// Forgets its line.
    ///
    /// # Errors
    ///
    /// `cause`, if a POST may have been done or not.
    pub(super) fn handle_end(&mut self, cause: Cause) -> Result<(), Cause> {
        self.line = None;
        self.is_dialled = false;
        self.writes = Writes::default();
        if self.answer_by.is_some() { Err(cause) } else { Ok(()) }
    }

    pub(super) fn poll_timeout(&self, write_timeout: Duration) -> Option<Instant> {
        let stall = self.writes.stalls_at(write_timeout);
        [self.answer_by, self.resume_at, self.rest_until, stall].into_iter().flatten().min()
    }

    /// Whether it has rested for long enough to be given up until it is wanted again.
    ///
    /// # Errors
    ///
    /// What did not come in time.
    pub(super) fn handle_timeout(&mut self, now: Instant, write_timeout: Duration) -> Result<bool, Cause> {
        if self.writes.stalls_at(write_timeout).is_some_and(|at| at <= now) {
            return Err(Cause::WriteStalled);
        }
        if self.answer_by.is_some_and(|by| by <= now) {
            return Err(Cause::CommandTimeout("POST"));
        }
        Ok(self.rest_until.is_some_and(|until| until <= now))
    }

    fn gather(&mut self, session: &str, node: &str) -> Option<(&'static str, Vec<u8>)> {
        let (kind, first) = self.waiting.pop_front()?;
        self.waiting_bytes -= first.len();
        let gathered = match self.form {
            Form::Plain if kind == Kind::Text => ("text/plain; charset=utf-8", first),
            Form::Plain => ("application/octet-stream", first),
            Form::Emulation => {
                let mut data = first;
                while self.waiting.front().is_some_and(|(_, next)| data.len() + next.len() < MAX_BATCH_BYTES)
                {
                    let Some((_, next)) = self.waiting.pop_front() else { break };
                    self.waiting_bytes -= next.len();
                    data.push(b'\n');
                    data.extend_from_slice(&next);
                }
                let data = String::from_utf8_lossy(&data);
                let body = serde_json::json!({ "session": session, "node": node, "data": data });
                ("application/json", body.to_string().into_bytes())
            }
        };
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some(gathered)
    }
}

/// Where messages are posted: beside the path of the stream.
pub(super) fn target(form: Form, path: &str, uplink: &str, session: &str) -> String {
    match form {
        Form::Emulation => match path.rfind("/connection/") {
            Some(at) => format!("{}{uplink}", &path[..at]),
            None => uplink.to_owned(),
        },
        Form::Plain => {
            let folder = path.rfind('/').map_or("", |at| &path[..at]);
            let session: String = byte_serialize(session.as_bytes()).collect();
            format!("{folder}{uplink}?session={session}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_up_is_beside_the_way_down() {
        for (form, down, uplink, expected) in [
            (Form::Emulation, "/connection/http_stream", "/emulation", "/emulation"),
            (Form::Emulation, "/rt/connection/sse", "/emulation", "/rt/emulation"),
            (Form::Emulation, "/elsewhere", "/emulation", "/emulation"),
            (Form::Plain, "/sse", "/send", "/send?session=1-0+a"),
            (Form::Plain, "/rt/stream", "/send", "/rt/send?session=1-0+a"),
        ] {
            assert_eq!(target(form, down, uplink, "1-0 a"), expected, "{down}");
        }
    }

    #[test]
    fn commands_that_wait_share_a_post_in_their_order_within_its_bound() {
        let mut uplink = Uplink::new(Form::Emulation);
        for message in [&b"{\"id\":1}"[..], b"{\"id\":2}"] {
            uplink.post(Kind::Text, message);
        }
        uplink.post(Kind::Text, &vec![b' '; MAX_BATCH_BYTES]);
        assert_eq!(uplink.advance(Instant::now(), "s\"", "n"), Need::Dial);
        let (_, body) = uplink.current.take().expect("gathered");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({"session": "s\"", "node": "n", "data": "{\"id\":1}\n{\"id\":2}"});
        assert_eq!(body, expected);
        assert_eq!(uplink.unwritten(), MAX_BATCH_BYTES);
        uplink.advance(Instant::now(), "s", "n");
        assert!(uplink.current.is_some() && uplink.waiting.is_empty());
    }
}
