//! Whether clients of the plain dialect and the application hear each other: what was taken from a client is told, in
//! order; who came is told to have come and to have gone, once each; who returns in time has its session again.
//!
//! Each call is judged twice: when it is made, for its order and number, and when it is heard. What excuses that
//! something was not heard is a process that died, or an application or a process that failed about that time.

use super::{Checks, Connection, SLACK};
use crate::application::{Fate, Stage};
use crate::client::Kind;
use crate::net::{Happening, Side};
use crate::trace::{LogLine, Promise};
use crate::workload::UserPlan;
use longwire::config::WEBHOOKS;
use longwire::env::http::Call;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long before something was taken a trouble may have begun that keeps it from being told.
const FOREBODING: Duration = Duration::from_secs(12);

/// How long after that one may come.
const AFTERMATH: Duration = Duration::from_secs(90);

/// What passed between clients of the plain dialect and the application.
#[derive(Default)]
pub(super) struct Talks {
    /// By the id of the client.
    sessions: BTreeMap<String, Talk>,
    said: BTreeMap<u64, Said>,
    /// By link, what was said there, in order.
    links: BTreeMap<SocketAddr, Vec<u64>>,
    /// By session, what was taken by a request and is not told yet.
    posts: BTreeMap<String, Vec<u64>>,
    directs: u64,
    /// Since when, and until when, the application was anything but well.
    troubles: Vec<(Instant, Option<Instant>)>,
    /// Processes that died before they had told everything.
    killed: BTreeSet<(usize, u32)>,
    /// By user and machine, the client that was last welcomed there.
    welcomed: BTreeMap<(usize, usize), (String, u32)>,
    /// Links that were closed by their users when all was written.
    whole: BTreeSet<SocketAddr>,
    /// Clients that were welcomed.
    known: BTreeSet<String>,
    /// When, and why, sessions ended.
    pub(super) endings: BTreeMap<String, (Instant, String)>,
}

/// What the application was told of one client.
struct Talk {
    /// Whose it is, if its name tells.
    user: Option<usize>,
    machine: usize,
    life: u32,
    next_seq: u64,
    last_body: Vec<u8>,
    /// What became of its `open`, if that was heard.
    open: Option<Fate>,
    /// Between when and when its `open` was refused, if it was and its machine knows: unless that stood still meanwhile, for
    /// then time ran out before the answer was read.
    refused: Option<(Instant, Instant)>,
    is_close_made: bool,
    is_close_heard: bool,
    /// The application had it leave or join channels.
    was_moved: bool,
    /// What was sent to it, when, and whether the server is known to have got it.
    directs: BTreeMap<u64, (Instant, bool)>,
    last_direct: u64,
}

/// One message of a client.
struct Said {
    user: usize,
    at: Instant,
    /// The link on which it was said; `None` if by a request.
    link: Option<SocketAddr>,
    /// Since when the server has it for certain, and which one.
    taken: Option<(Instant, usize, u32)>,
    /// When the request was sent, for which session, and which process it was sent to.
    posted: Option<(Instant, String, (usize, u32))>,
    /// The call by which it was told.
    told: Option<(String, u64)>,
    is_heard: bool,
}

/// The body of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    event: String,
    client: String,
    name: String,
    #[serde(rename = "user")]
    _user: String,
    session: String,
    seq: u64,
    #[serde(rename = "transport")]
    _transport: String,
    #[serde(rename = "listener")]
    _listener: String,
    #[serde(rename = "address")]
    _address: String,
    #[serde(rename = "session_data")]
    _session_data: Option<IgnoredAny>,
    query: Option<String>,
    channels: Option<Vec<String>>,
    data: Option<String>,
    b64data: Option<String>,
    reason: Option<String>,
    #[serde(rename = "category")]
    category: Option<String>,
    #[serde(rename = "code")]
    _code: Option<u32>,
    #[serde(rename = "initiator")]
    _initiator: Option<String>,
    #[serde(rename = "detail")]
    _detail: Option<String>,
    #[serde(rename = "open_seconds")]
    _open_seconds: Option<u64>,
}

/// A message of ours.
#[derive(Deserialize)]
struct Message {
    said: u64,
}

/// What the application sends to one client.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Direct {
    direct: u64,
    client: String,
}

type Judged<T> = Result<T, (Promise, String)>;

impl Checks {
    /// The application behaves otherwise.
    pub(super) fn note_trouble(&mut self, is_well: bool) {
        let now = self.clock.now();
        let troubles = &mut self.talks.troubles;
        if let Some((_, until @ None)) = troubles.last_mut() {
            *until = Some(now);
        }
        if !is_well {
            troubles.push((now, None));
        }
    }

    /// A process ended before it had told everything.
    pub(super) fn note_killed(&mut self, machine: usize, life: u32) {
        self.talks.killed.insert((machine, life));
    }

    /// A user says something, on its link or by a request.
    pub fn says(&mut self, user: usize, number: u64, is_beside: bool) {
        let link = self.readers[user].connection.filter(|_| !is_beside);
        let at = self.clock.now();
        let said = Said { user, at, link, taken: None, posted: None, told: None, is_heard: false };
        self.talks.said.insert(number, said);
        if let Some(link) = link {
            self.talks.links.entry(link).or_default().push(number);
        }
    }

    /// A request with a message is sent.
    pub fn posts(&mut self, to: SocketAddr, number: Option<u64>, path: &str) {
        let now = self.clock.now();
        let said = number.and_then(|number| self.talks.said.get_mut(&number));
        let machine = self.plan.machines.iter().position(|machine| *machine == to);
        if let (Some(said), Some(machine)) = (said, machine) {
            said.posted = Some((now, path.to_owned(), (machine, self.machines[machine].life)));
        }
    }

    /// It was answered.
    pub fn posted(&mut self, number: Option<u64>, status: u16) {
        let now = self.clock.now();
        let Some(number) = number.filter(|_| status == 202) else { return };
        let Some(said) = self.talks.said.get_mut(&number) else { return };
        let Some((_, path, (machine, life))) = &said.posted else { return };
        said.taken = Some((now, *machine, *life));
        if said.told.is_none() {
            self.talks.posts.entry(path.clone()).or_default().push(number);
        }
    }

    /// A user lets go of its link; whether all that it said there was written.
    pub fn parts(&mut self, user: usize, has_written_all: bool) {
        let link = self.readers[user].connection.filter(|_| has_written_all);
        self.talks.whole.extend(link);
    }

    /// A link of a client with a name ended, as its user or its server sees it: whoever wrote last cannot know whether
    /// that was read, and what has no position is not asked for again.
    pub(super) fn note_doubt(&mut self, link: SocketAddr) {
        let Some(connection) = self.connections.get(&link) else { return };
        let polls = self.plan.users[connection.user].may_poll();
        let fate = self.net.fate(connection.id);
        if polls || fate.is_none_or(|fate| fate.server_unacked_since.is_some()) {
            self.uncertain[connection.user] = true;
        }
    }

    /// A server has read a link to its end: whatever was said there is taken.
    fn note_read_out(&mut self, link: SocketAddr) {
        let now = self.clock.now();
        let Some(connection) = self.connections.get(&link) else { return };
        let Some(fate) = self.net.fate(connection.id) else { return };
        let is_cut = fate.first(|happening| matches!(happening, Happening::Cut(..))).is_some();
        let has_ended = fate.when(Happening::FinArrived(Side::Server)).is_some();
        if is_cut || !has_ended || connection.sent_garbage || !self.talks.whole.contains(&link) {
            return;
        }
        let server = (now, connection.machine, connection.life);
        for number in self.talks.links.get(&link).into_iter().flatten() {
            if let Some(said) = self.talks.said.get_mut(number) {
                said.taken.get_or_insert(server);
            }
        }
    }

    /// Nothing has failed since then, and whoever spoke is still on its link: what was said there is taken.
    pub fn require_last_words(&mut self, since: Instant) {
        let now = self.clock.now();
        for said in self.talks.said.values_mut().filter(|said| said.at >= since && said.taken.is_none()) {
            let link = said.link.filter(|link| self.readers[said.user].connection == Some(*link));
            let connection = link.and_then(|link| self.connections.get(&link));
            said.taken = connection.map(|connection| (now, connection.machine, connection.life));
        }
    }

    /// A call about a plain connection is made, or heard; gives the answer.
    pub(super) fn talk(&mut self, machine: usize, call: &Call, stage: Stage) -> String {
        let judged = match stage {
            Stage::Made(fate, is_in_time) => {
                self.judge_made(machine, call, fate, is_in_time).map(|()| String::new())
            }
            Stage::Heard(fate) => self.judge_heard(call, fate),
        };
        judged.unwrap_or_else(|(promise, what)| {
            let body = String::from_utf8_lossy(&call.body).into_owned();
            self.trace.fail(promise, format!("machine {machine} calls {stage:?}: {what}: {body}"));
            String::new()
        })
    }

    fn judge_made(&mut self, machine: usize, call: &Call, fate: Fate, is_in_time: bool) -> Judged<()> {
        let body = parse(call)?;
        // What a process said last is judged when it is gone.
        let life = self.machines[machine].life - u32::from(!self.machines[machine].is_up);
        let order = |what: String| Err((Promise::CallOrder, what));
        let is_first = !self.talks.sessions.contains_key(&body.client);
        let talk = self.talks.sessions.entry(body.client.clone()).or_insert_with(|| Talk {
            user: body.name.strip_prefix("device ").and_then(|name| name.split_once('.')?.0.parse().ok()),
            machine,
            life,
            next_seq: 0,
            last_body: Vec::new(),
            open: None,
            refused: None,
            is_close_made: false,
            is_close_heard: false,
            was_moved: false,
            directs: BTreeMap::new(),
            last_direct: 0,
        });
        if is_first != (body.event == "open") {
            return order(format!("{} of a client that is known: {}", body.event, !is_first));
        }
        if (talk.machine, talk.life) != (machine, life) {
            return order(format!("its session is on machine {}", talk.machine));
        }
        let is_again = body.seq + 1 == talk.next_seq;
        if is_again {
            return match *talk.last_body == *call.body {
                true => {
                    self.note_refusal(&body, fate);
                    Ok(())
                }
                false => order(format!("another call had the number {}", body.seq)),
            };
        }
        if body.seq != talk.next_seq {
            return order(format!("the number {} after {} calls", body.seq, talk.next_seq));
        }
        if talk.is_close_made {
            return Err((Promise::OneClose, "a call after the close".into()));
        }
        talk.next_seq += 1;
        talk.last_body = call.body.to_vec();
        match &*body.event {
            "close" => {
                talk.is_close_made = true;
                let pauses = &self.machines[machine].troubles;
                let stood_still = |(made, over): (Instant, Instant)| {
                    pauses.iter().any(|(from, until)| *from < over && until.is_none_or(|until| until > made))
                };
                if talk.refused.is_some_and(|refused| !stood_still(refused)) {
                    return Err((Promise::OneClose, "the close of a client that was refused".into()));
                }
                // A poll's session that is not kept ends without a line.
                let is_quiet = body.reason.as_deref() == Some("Answered");
                if !is_quiet && !self.ended.contains(&body.client) {
                    return Err((Promise::OneClose, "a close, and the session is not over".into()));
                }
            }
            "message" => self.judge_message(&body)?,
            _ => {
                let is_refused = is_in_time && matches!(fate, Fate::RefusedHeard(_));
                let made = self.clock.now();
                talk.refused = is_refused.then(|| (made, made + call.timeout));
            }
        }
        self.note_refusal(&body, fate);
        Ok(())
    }

    /// Judges a message that is told for the first time.
    fn judge_message(&mut self, body: &Body) -> Judged<()> {
        let Some(number) = number_of(body) else {
            let is_garbage = self.connections.values().any(|connection| {
                connection.client.as_ref() == Some(&body.client) && connection.sent_garbage
            });
            return match is_garbage {
                true => Ok(()),
                false => Err((Promise::Order, "nobody said that".into())),
            };
        };
        let talks = &mut self.talks;
        let Some(said) = talks.said.get_mut(&number) else {
            return Err((Promise::Order, "nobody said that".into()));
        };
        if let Some(before) = said.told.replace((body.client.clone(), body.seq)) {
            return Err((Promise::NotTwice, format!("the message {number} was told as {before:?}")));
        }
        if let Some(link) = said.link {
            // Before it everything that was said on its link was told: in order, and without a gap.
            let before = talks.links[&link].iter().take_while(|before| **before != number);
            for before in before {
                if talks.said[before].told.is_none() {
                    let what =
                        format!("the message {number}, and {before} was said before it on the same link");
                    return Err((Promise::CallOrder, what));
                }
            }
        } else if let Some((sent, path, _)) = said.posted.clone() {
            let waiting = talks.posts.entry(path).or_default();
            waiting.retain(|other| *other != number);
            let overtaken =
                waiting.iter().find(|other| talks.said[other].taken.is_some_and(|(taken, ..)| taken < sent));
            if let Some(overtaken) = overtaken {
                let what = format!("the message {number}, and {overtaken} was taken before that was sent");
                return Err((Promise::CallOrder, what));
            }
        }
        Ok(())
    }

    /// Notes that the application will have none of a message, although it did not hear it.
    fn note_refusal(&mut self, body: &Body, fate: Fate) {
        if body.event == "message"
            && let Fate::RefusedUnheard(404 | 302) = fate
            && let Some(said) = number_of(body).and_then(|number| self.talks.said.get_mut(&number))
        {
            said.is_heard = true;
        }
    }

    fn judge_heard(&mut self, call: &Call, fate: Fate) -> Judged<String> {
        let body = parse(call)?;
        let now = self.clock.now();
        let form = |what: &str| (Promise::WellFormed, format!("{} {what}", body.event));
        let is_close = body.event == "close";
        let is_open = body.event == "open";
        if is_open != (body.query.is_some() && body.channels.is_some())
            || is_close != (body.reason.is_some() && body.category.is_some())
            || (body.event == "message") != (body.data.is_some() != body.b64data.is_some())
        {
            return Err(form("without its members, or with those of another"));
        }
        if body.session.is_empty() {
            return Err(form("without the session's name"));
        }
        let talks = &mut self.talks;
        let talk = talks.sessions.get_mut(&body.client).ok_or_else(|| form("was not made"))?;
        let mut answer = serde_json::json!({});
        let mut is_answered = !is_close;
        match &*body.event {
            "open" => {
                if talk.open.replace(fate).is_some() {
                    return Err((Promise::CallOrder, "a second open".into()));
                }
                let number = body.name.bytes().map(usize::from).sum::<usize>();
                if !body.name.is_empty() && number.is_multiple_of(3) {
                    answer["user"] = format!("bound {}", body.name).into();
                }
                if !body.name.is_empty() && number.is_multiple_of(2) {
                    talk.was_moved = true;
                    answer["join"] =
                        serde_json::json!([self.plan.channels[number % self.plan.channels.len()]]);
                }
            }
            "close" => talk.is_close_heard = true,
            _ => {
                if let Some(number) = number_of(&body) {
                    if let Some(said) = talks.said.get_mut(&number) {
                        said.is_heard = true;
                    }
                    let channel = &self.plan.channels[number as usize % self.plan.channels.len()];
                    is_answered = number % 4 != 0;
                    if number % 17 == 3 {
                        talk.was_moved = true;
                        answer[if number % 2 == 0 { "join" } else { "leave" }] = serde_json::json!([channel]);
                    }
                }
            }
        }
        if !is_answered {
            return Ok(answer
                .as_object()
                .filter(|all| !all.is_empty())
                .map_or(String::new(), |_| answer.to_string()));
        }
        talks.directs += 1;
        talk.directs.insert(talks.directs, (now, fate == Fate::Answered));
        answer["data"] = serde_json::json!({ "direct": talks.directs, "client": body.client });
        Ok(answer.to_string())
    }

    /// A user was told by what name its session is known, and whether that was there before.
    pub(super) fn judge_return(&mut self, user: usize, client: &str, resumed: bool) {
        let is_uncertain = std::mem::take(&mut self.uncertain[user]);
        let plan = &self.plan.users[user];
        let Some(connection) = self.readers[user].connection.and_then(|local| self.connections.get(&local))
        else {
            return;
        };
        let (machine, life) = (connection.machine, connection.life);
        let is_new = self.talks.known.insert(client.to_owned());
        // Another session may have begun with an answer that was lost.
        if !resumed || is_new || is_uncertain {
            self.readers[user].begins_anew();
        }
        if !resumed && !is_new {
            let what = format!(
                "user {user} is welcomed as {client} for the second time, and not as one who returned"
            );
            return self.trace.fail(Promise::TakenOver, what);
        }
        if plan.kind != Kind::Plain {
            return;
        }
        let former = self.talks.welcomed.insert((user, machine), (client.to_owned(), life));
        let Some((former, _)) = former.filter(|(former, there)| former != client && *there == life) else {
            return;
        };
        // A poll's session that is not kept ends without a line.
        if !self.plan.config.plain.grace.is_zero() && !self.ended.contains(&former) {
            let what = format!("user {user} returned and is {client}, and its session {former} is not over");
            self.trace.fail(Promise::TakenOver, what);
        }
    }

    /// A user forgot everything, its name included.
    pub(super) fn forget_name(&mut self, user: usize) {
        self.talks.welcomed.retain(|(known, _), _| *known != user);
    }

    /// Judges something that a client was sent alone.
    pub(super) fn judge_direct(&mut self, user: usize, data: &str) -> Judged<()> {
        let Direct { direct, client } = serde_json::from_str(data)
            .map_err(|error| (Promise::WellFormed, format!("a message of nobody: {error}: {data}")))?;
        let connection = self.readers[user].connection.and_then(|local| self.connections.get(&local));
        let Some(Connection { client: Some(known), connected_at: Some(since), .. }) = connection else {
            return Err((Promise::WellFormed, "a message before the welcome".into()));
        };
        if *known != client {
            return Err((Promise::Order, format!("a message for {client} came to {known}: {data}")));
        }
        let talk = self.talks.sessions.get_mut(&client);
        let Some(talk) = talk.filter(|talk| talk.directs.contains_key(&direct)) else {
            return Err((Promise::Order, format!("nobody sent {data}")));
        };
        let last = std::mem::replace(&mut talk.last_direct, direct);
        if direct <= last {
            return Err((Promise::NotTwice, format!("the message {direct} after {last}")));
        }
        // On one link nothing is left out.
        if talk.directs.get(&last).is_some_and(|(sent, _)| *sent > *since) {
            let mut between = talk.directs.range(last + 1..direct);
            let lost = between.find(|(_, (_, is_sent))| *is_sent).map(|(lost, (sent, _))| (*lost, *sent));
            if let Some((lost, _)) = lost.filter(|(_, sent)| !self.was_troubled(*sent)) {
                return Err((
                    Promise::NoGap,
                    format!("the message {direct} after {last}, and {lost} is missing"),
                ));
            }
        }
        Ok(())
    }

    /// Whether the application was not well, or a process stood still, about then.
    fn was_troubled(&self, at: Instant) -> bool {
        let pauses = self.machines.iter().flat_map(|machine| &machine.troubles);
        self.talks
            .troubles
            .iter()
            .chain(pauses)
            .any(|(from, until)| *from < at + AFTERMATH && until.is_none_or(|until| until + FOREBODING > at))
    }

    /// Judges a line that a server logged about a link of a client with a name, or its session.
    pub(super) fn logged_of_plain(&mut self, line: &LogLine, peer: SocketAddr) {
        let field = |name: &str| line.fields.get(name).cloned().unwrap_or_default();
        let (reason, client, detail) = (field("reason"), field("client"), field("detail"));
        let kept_for = line.fields.get("kept_for");
        let fails = |promise, what: String| self.trace.fail(promise, format!("{what}: {line:?}"));
        if line.message.starts_with("session taken over") {
            let former = self.connections.iter_mut().filter(|(local, connection)| {
                **local != peer && connection.client.as_ref() == Some(&client) && connection.closed.is_none()
            });
            former.for_each(|(_, connection)| connection.closed = Some("Replaced".into()));
            if self.talks.sessions.get(&client).is_some_and(|talk| talk.is_close_made) {
                self.trace.fail(Promise::OneClose, format!("{client} is back, and was told to be closed"));
            }
            return;
        }
        if line.message.starts_with("connection closed:") {
            self.ended.insert(client.clone());
            self.talks.endings.insert(client.clone(), (self.clock.now(), reason.clone()));
        }
        if let Some(kept_for) = kept_for {
            let machine = &self.machines[self.connections[&peer].machine];
            let seconds = kept_for.trim_end_matches('s').parse().map(Duration::from_secs_f64);
            let Ok(kept_for) = seconds else { return fails(Promise::WellFormed, "no time".into()) };
            let grace = self.plan.config.plain.grace;
            let begun = self.clock.now() - kept_for;
            let pauses =
                machine.troubles.iter().filter_map(|(from, until)| Some(((*until)?, (*until)? - *from)));
            let pauses: Duration = pauses.filter(|(until, _)| *until > begun).map(|(_, span)| span).sum();
            if kept_for > grace + SLACK + pauses {
                return fails(Promise::TakenOver, "a session outlived its grace".into());
            }
            let is_by_itself =
                matches!(&*reason, "PeerClosed" | "PeerReset" | "NoHeartbeat" | "WriteStalled" | "Answered");
            if is_by_itself && kept_for + SLACK < grace && !machine.is_draining && detail.is_empty() {
                return fails(Promise::TakenOver, "a session ended before its grace was over".into());
            }
            return;
        }
        let is_kept = line.message.starts_with("connection lost");
        *self
            .counts
            .closed
            .entry(if is_kept { format!("{reason}, kept") } else { reason.clone() })
            .or_default() += 1;
        if reason == "PeerClosed" {
            self.note_read_out(peer);
        }
        self.note_doubt(peer);
        let Some(connection) = self.connections.get_mut(&peer) else { return };
        if let Some(before) = connection.closed.replace(reason.clone()) {
            let what = format!("a link ended twice: {before}, then {reason} ({line:?})");
            return self.trace.fail(Promise::Cause, what);
        }
        if !client.is_empty() {
            connection.client.get_or_insert(client);
        }
        connection.closed_at = Some(self.clock.now());
        let connection = &self.connections[&peer];
        if let Err((promise, why)) = self.judge_cause(connection, &reason, &detail) {
            self.trace.fail(promise, format!("closed as {reason}, but {why}: {line:?}"));
        }
    }

    /// Whether the user of a client may be in a channel without knowing: answers to polls name none, and those without
    /// content not even the client.
    pub(super) fn may_be_unseen(&self, client: &str) -> bool {
        let polls = |user: &UserPlan| user.kind == Kind::Plain && user.may_poll();
        match self.talks.sessions.get(client) {
            Some(talk) => talk.user.is_some_and(|user| polls(&self.plan.users[user])),
            None => self.plan.users.iter().any(polls),
        }
    }

    /// Whether a client's session was moved among channels by the application, or by an order of the backend.
    pub(super) fn may_have_moved(&self, client: &str) -> bool {
        let is_ordered =
            |connection: &Connection| connection.client.as_deref() == Some(client) && connection.was_ordered;
        self.talks.sessions.get(client).is_some_and(|talk| talk.was_moved)
            || self.connections.values().any(is_ordered)
    }

    /// The run is over: what was taken was told, and who came was told to have gone.
    pub(super) fn require_talks_over(&self) {
        let close = WEBHOOKS.iter().position(|name| *name == "close").expect("there is such a webhook");
        if self.plan.config.default_webhooks[close].endpoint.is_none() {
            return;
        }
        for (number, said) in &self.talks.said {
            let Some((at, machine, life)) = said.taken.filter(|_| !said.is_heard) else { continue };
            if !self.talks.killed.contains(&(machine, life)) && !self.was_troubled(at) {
                let what = format!(
                    "the message {number} of user {} was taken by machine {machine} and never heard, told as {:?}",
                    said.user, said.told
                );
                return self.trace.fail(Promise::MessageHeard, what);
            }
        }
        for (client, talk) in &self.talks.sessions {
            let is_owed = matches!(
                talk.open,
                Some(Fate::Answered | Fate::AnswerLost | Fate::AnswerBroken | Fate::Nonsense)
            );
            let ended = self.talks.endings.get(client).map(|(at, _)| *at);
            let is_excused = self.talks.killed.contains(&(talk.machine, talk.life))
                || ended.is_some_and(|at| self.was_troubled(at))
                || ended.is_none() && !self.talks.troubles.is_empty();
            if is_owed && !talk.is_close_heard && !is_excused {
                let what = format!("nobody said that {client} on machine {} is gone", talk.machine);
                return self.trace.fail(Promise::OneClose, what);
            }
        }
    }
}

fn parse(call: &Call) -> Judged<Body> {
    serde_json::from_slice(&call.body).map_err(|error| (Promise::WellFormed, error.to_string()))
}

/// Which of our messages a call tells.
fn number_of(body: &Body) -> Option<u64> {
    let message: Message = serde_json::from_str(body.data.as_deref()?).ok()?;
    Some(message.said)
}
