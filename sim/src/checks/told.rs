//! Whether what the application hears of clients agrees with what servers logged and clients were told, and whether
//! all of it arrives in the end.

use super::events::End;
use super::{Checks, MachineTruth, SLACK};
use crate::application::Stage;
use crate::client::Kind;
use crate::machine::Process;
use crate::trace::Promise;
use crate::workload::{EVENTS_DISK_BYTES, EVENTS_SECRET, QUEUES_DISK_BYTES};
use longwire::env::http::Call;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How long it may take until an event is on a disk that works: it is collected, and turns are put off.
const UNRECORDED: Duration = Duration::from_secs(2);

/// How long after a disk works again it is tried again.
const DISK_AFTERMATH: Duration = Duration::from_secs(4);

/// Segments that may be left when nothing in them is needed: those that are not worth the work, and the last.
const SEGMENTS_LEFT: u64 = 4;

/// What the application is asked, as far as it matters here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    client: String,
    #[serde(rename = "transport")]
    _transport: String,
    #[serde(rename = "protocol")]
    _protocol: String,
    #[serde(rename = "encoding")]
    _encoding: String,
    #[serde(rename = "user")]
    _user: Option<String>,
    #[serde(rename = "channel")]
    _channel: Option<String>,
    #[serde(rename = "data")]
    _data: Option<IgnoredAny>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "channels")]
    _channels: Option<Vec<String>>,
    /// What STOMP alone says.
    #[serde(rename = "version")]
    _version: Option<String>,
    #[serde(rename = "host")]
    _host: Option<String>,
}

impl Checks {
    /// The application behaves otherwise.
    pub fn application_changes(&mut self, is_well: bool) {
        self.application_failed |= !is_well;
        self.note_trouble(is_well);
    }

    /// A machine's disk fails, or works again.
    pub fn disk_changes(&mut self, machine: usize, is_well: bool) {
        let now = self.clock.now();
        let truth = &mut self.machines[machine];
        let was_failing = std::mem::replace(&mut truth.is_disk_failing, !is_well);
        if was_failing && is_well {
            truth.disk_works_since = Some(now);
            let failing = truth.troubles.iter_mut().find(|(_, until)| until.is_none());
            failing.expect("it began when the disk failed").1 = Some(now);
        } else if !was_failing && !is_well {
            truth.troubles.push((now, None));
        }
    }

    /// Whether a machine's disk fails, or did a moment ago.
    pub fn is_disk_bad(&self, machine: usize) -> bool {
        let MachineTruth { is_disk_failing, disk_works_since, .. } = self.machines[machine];
        is_disk_failing || disk_works_since.is_some_and(|since| since + DISK_AFTERMATH > self.clock.now())
    }

    /// From when on what happened on a machine whose process ends may not be on its disk.
    pub(super) fn unrecorded_since(&self, machine: usize, is_orderly: bool) -> Option<Instant> {
        if is_orderly && !self.is_disk_bad(machine) {
            return None;
        }
        let mut since = self.clock.now();
        // One trouble may follow upon the other.
        while let Some((earlier, _)) = self.machines[machine]
            .troubles
            .iter()
            .find(|(begun, over)| *begun < since && over.is_none_or(|over| over + DISK_AFTERMATH >= since))
        {
            since = *earlier;
        }
        Some(since - UNRECORDED)
    }

    /// A machine makes a call, or the application hears it and answers.
    pub fn called(&mut self, machine: usize, call: &Call, stage: Stage) -> String {
        let (url, body) = (&call.url, String::from_utf8_lossy(&call.body));
        let kind = url.rsplit('/').next().unwrap_or_default();
        let is_heard = matches!(stage, Stage::Heard(_));
        if is_heard || matches!(kind, "open" | "message" | "close") {
            self.trace.note(format_args!("machine {machine} calls {url} ({stage:?}): {body}"));
        }
        match kind {
            "open" | "message" | "close" => self.talk(machine, call, stage),
            _ if !is_heard => String::new(),
            "events" => {
                self.hear_events(machine, call);
                String::new()
            }
            "connect" => self.hear_question(&call.body, r#"{"result":{"user":"guest"}}"#).into(),
            _ => self.hear_question(&call.body, r#"{"result":{}}"#).into(),
        }
    }

    /// Hears what the application is asked before a client may do something.
    fn hear_question(&mut self, body: &[u8], answer: &'static str) -> &'static str {
        match serde_json::from_slice::<Question>(body) {
            Ok(question) => drop(self.asked.insert(question.client)),
            Err(error) => {
                let what = format!("the application was asked {}: {error}", String::from_utf8_lossy(body));
                self.trace.fail(Promise::WellFormed, what);
            }
        }
        answer
    }

    /// Judges whether a user may be told that it is connected.
    pub(super) fn judge_entry(&self, user: usize, client: &str) {
        let is_asked_about = self.plan.config.default_webhooks[0].endpoint.is_some();
        let kind = self.plan.users[user].kind;
        let shows_token = kind.is_one_way() || kind == Kind::Plain && user.is_multiple_of(2);
        if is_asked_about && !shows_token && !self.asked.contains(client) {
            let what = format!("user {user} is connected as {client}, and nobody asked the application");
            self.trace.fail(Promise::Asked, what);
        }
    }

    fn hear_events(&mut self, machine: usize, call: &Call) {
        let heard = self.ears.hear(call, EVENTS_SECRET, self.clock.unix_seconds());
        (self.counts.events, self.counts.repeated) = (self.ears.heard(), self.ears.repeated);
        let judged = heard.and_then(|ends| ends.iter().try_for_each(|end| self.judge_end(end)));
        // What is lost with a word leaves ends without beginnings, and gaps.
        let is_excused =
            |promise| self.events_dropped && matches!(promise, Promise::EventPairs | Promise::EventOrder);
        if let Err((promise, what)) = judged
            && !is_excused(promise)
        {
            self.trace.fail(promise, format!("machine {machine}: {what}"));
        }
    }

    /// Judges what is heard of the end of a client by what its server logged.
    fn judge_end(&self, end: &End) -> Result<(), (Promise, String)> {
        let End { client, reason, is_reconciled } = end;
        let connection = self.origins.get(client).and_then(|origin| self.connections.get(origin));
        // The end of an unnamed client's poll has no line.
        if reason == "Answered" && !is_reconciled {
            return Ok(());
        }
        let Some(connection) = connection else {
            // Its process ended before it told anybody but the disk.
            return match is_reconciled {
                true => Ok(()),
                false => Err((Promise::Cause, format!("the end of {client}, of which nobody knows"))),
            };
        };
        let is_lost = connection.life != self.machines[connection.machine].life;
        let is_honest = match is_reconciled {
            true => is_lost && reason == "ServerLost",
            false => match self.talks.endings.get(client) {
                Some((_, ending)) => ending == reason,
                None => connection.closed.as_ref() == Some(reason),
            },
        };
        if is_honest {
            return Ok(());
        }
        let what = format!(
            "{client} is said to have ended by {reason}, reconciled: {is_reconciled}; it was closed as {:?} and {:?}",
            connection.closed,
            self.talks.endings.get(client)
        );
        Err((Promise::Cause, what))
    }

    /// Looks how much of its disk a machine takes.
    pub fn look_at_disk(&self, machine: usize, used: u64) {
        // What is to be kept of a segment is written again before the segment is given back.
        if used > EVENTS_DISK_BYTES + EVENTS_DISK_BYTES / 4 + QUEUES_DISK_BYTES {
            self.trace.fail(Promise::Bounded, format!("machine {machine} takes {used} bytes of its disk"));
        }
    }

    /// The application has been well for long: all is delivered, and little is left on the disk.
    pub fn settled(&self, machine: usize, process: &Rc<Process>, used: u64) {
        let pending = process.node().events.counters().map_or(0, |counters| counters.pending.get());
        let dropped = process.node().events.counters().map_or(0, |counters| counters.dropped.get());
        if pending > 0 || dropped > 0 && !self.events_dropped {
            let what = format!("{pending} events of machine {machine} wait, {dropped} were dropped");
            self.trace.fail(Promise::EventsSettle, what);
        }
        if used > SEGMENTS_LEFT * EVENTS_DISK_BYTES / 8 {
            let what = format!("{used} bytes are left on the disk of machine {machine}");
            self.trace.fail(Promise::EventsSettle, what);
        }
    }

    /// The run is over: whoever was told of its connection is known to the application, and known to have left.
    pub(super) fn require_told(&self) {
        if self.plan.config.events.endpoint.is_none() || self.events_dropped {
            return;
        }
        if let Err((promise, what)) = self.ears.require_all_ended() {
            return self.trace.fail(promise, what);
        }
        for connection in self.connections.values() {
            let (Some(client), Some(at)) = (&connection.client, connection.connected_at) else { continue };
            let unrecorded = self.unrecorded.get(&(connection.machine, connection.life));
            let may_be_lost = unrecorded.is_some_and(|since| at + SLACK > *since);
            if !may_be_lost && !self.ears.knows(client) {
                let what =
                    format!("nobody told the application of {client} on machine {}", connection.machine);
                return self.trace.fail(Promise::EventPairs, what);
            }
        }
    }
}
