//! Requests over HTTP, and the way up beside them: what the core does for streams and polls alone.
//!
//! What must stay true: a request whose answer may be on its way is repeated only if it is a GET; the uplink has one line
//! at a time.

use super::uplink::{self, Form, Need};
use super::{Asks, Core, PollLine, Stage};
use crate::carrier::Carrier;
use crate::carrier::http::Request;
use crate::machine::Output;
use crate::transport::Transport;
use std::sync::Arc;
use std::time::Instant;
use url::form_urlencoded::byte_serialize;

impl Core {
    pub(super) fn form(&self) -> Form {
        match self.plan.asks {
            Asks::WithLogin => Form::Emulation,
            Asks::WithTarget => Form::Plain,
        }
    }

    pub(super) fn ask_stream(&mut self, now: Instant, message: &[u8]) {
        let Some(link) = &mut self.link else { return };
        let (mut target, mut body) = ((self.plan.target)(&link.server, link.transport), None);
        match (self.plan.asks, link.transport) {
            // Nothing to say: a GET of the plan's own target.
            _ if message.is_empty() => {}
            (Asks::WithTarget, _) => target = String::from_utf8_lossy(message).into_owned(),
            (Asks::WithLogin, Transport::EventStream) => {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str("cf_connect=");
                target.extend(byte_serialize(message));
            }
            (Asks::WithLogin, _) => body = Some(("application/json", message)),
        }
        let request = Request {
            method: if body.is_some() { "POST" } else { "GET" },
            target: &target,
            host: &link.server.authority(),
            accept: if link.transport == Transport::EventStream { "text/event-stream" } else { "*/*" },
            headers: &self.options.headers,
            body,
        };
        let written = request.write(self.outputs.buffer(link.line));
        link.asked = Some(path_of(&target));
        if let Err(cause) = written {
            self.lose(now, cause);
        }
    }

    pub(super) fn ask_poll(&mut self, now: Instant, message: &[u8]) {
        let Some(link) = &mut self.link else { return };
        let Carrier::Poll(poll) = &mut link.carrier else { return };
        let target = String::from_utf8_lossy(message);
        link.request.clear();
        let request = Request {
            method: "GET",
            target: &target,
            host: &link.server.authority(),
            accept: "*/*",
            headers: &self.options.headers,
            body: None,
        };
        if let Err(cause) = request.write(&mut link.request) {
            return self.lose(now, cause);
        }
        link.asked = Some(path_of(&target));
        poll.ask();
        link.hear(now);
        match link.poll_line {
            PollLine::Gone => self.dial_poll(),
            // It is written when the line is there.
            PollLine::Dialling => {}
            PollLine::Fresh | PollLine::Used => {
                self.outputs.buffer(link.line).extend_from_slice(&link.request)
            }
        }
    }

    /// Dials another line for a poll's request.
    pub(super) fn dial_poll(&mut self) {
        let Some(server) = self.link.as_ref().map(|link| Arc::clone(&link.server)) else { return };
        let line = self.dial_line(server);
        if let Some(link) = &mut self.link {
            link.line = line;
            link.poll_line = PollLine::Dialling;
            link.writes = super::Writes::default();
        }
    }

    pub(super) fn handle_uplink_bytes(&mut self, now: Instant, bytes: &[u8]) {
        let Some(uplink) = self.link.as_mut().and_then(|link| link.uplink.as_mut()) else { return };
        match uplink.handle_bytes(now, bytes) {
            Ok(false) => self.advance_uplink(now),
            Ok(true) => {
                if let Some(line) = uplink.line.take() {
                    uplink.is_dialled = false;
                    uplink.writes = super::Writes::default();
                    self.outputs.push(Output::Close { line, abort: false });
                }
                self.advance_uplink(now);
            }
            Err(cause) => self.fail_or_leave(now, cause),
        }
    }

    /// Posts what waits, if it can be.
    pub(super) fn advance_uplink(&mut self, now: Instant) {
        let form = self.form();
        let Some(link) = &mut self.link else { return };
        let has_session = matches!(link.stage, Stage::LoggedIn(_) | Stage::Leaving);
        let Some(uplink) = link.uplink.as_mut().filter(|_| has_session) else { return };
        match uplink.advance(now, &link.session, &link.node) {
            Need::Nothing => self.leave_if_written(),
            Need::Dial => {
                let server = Arc::clone(&link.server);
                let line = self.dial_line(server);
                if let Some(uplink) = self.link.as_mut().and_then(|link| link.uplink.as_mut()) {
                    uplink.line = Some(line);
                }
            }
            Need::Write => {
                let Some(line) = uplink.line else { return };
                let asked = link.asked.as_deref().unwrap_or("/");
                let target = uplink::target(form, asked, self.plan.uplink, &link.session);
                let answer_by = now + self.options.timeouts.command;
                let host = link.server.authority();
                let out = self.outputs.buffer(line);
                if let Err(cause) = uplink.write(answer_by, (&host, &target), &self.options.headers, out) {
                    self.fail_or_leave(now, cause);
                }
            }
        }
    }
}

fn path_of(target: &str) -> String {
    target.split('?').next().unwrap_or_default().to_owned()
}
