//! Judges a run: what clients were told against what is true, what servers logged against what befell.
//!
//! It is told every event of every client, every log line of every server, and looks around once a second. It
//! changes nothing. Each promise of [`Promise`] is judged here and nowhere else.

mod causes;
mod delivery;
mod events;
mod plain;
mod queues;
mod told;

use crate::client::{Action, Event, HangUp, Kind, Reply};
use crate::machine::Process;
use crate::model::Model;
use crate::net::{ConnId, Direction, Happening, Net, Side};
use crate::trace::{LogLine, Promise, Trace};
use crate::workload::{Plan, UserPlan};
use delivery::Reader;
use events::Ears;
use longwire::env::Clock;
use longwire::node::Node;
use longwire::node::control::Census;
use longwire_protocol::message::ClientId;
use plain::Talks;
pub use queues::QueueEvent;
use queues::Work;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Beyond the limit of the heartbeat: a tick of the timers, the way of a reset, a turn that was put off.
const SLACK: Duration = Duration::from_secs(2);

/// How long an announcement may take: calls that fail before and behind it in its line.
const UNANNOUNCED: Duration = Duration::from_secs(60);

/// How long after a repair what was lost is sent again at the latest.
const RETRANSMISSION: Duration = Duration::from_secs(10);

/// The judge of one run.
pub struct Checks {
    plan: Rc<Plan>,
    net: Net,
    clock: Clock,
    model: Model,
    trace: Trace,
    readers: Vec<Reader>,
    connections: BTreeMap<SocketAddr, Connection>,
    /// By the id of its client, where a connection came from.
    origins: BTreeMap<String, SocketAddr>,
    /// Ids of clients of whom a killed process may have announced less than it should have.
    silenced: BTreeSet<String>,
    /// Ids of clients whose session has ended.
    ended: BTreeSet<String>,
    machines: Vec<MachineTruth>,
    /// What the application heard of events.
    ears: Ears,
    /// What passed between plain clients and the application.
    talks: Talks,
    /// What was sent to the queue, and what became of it.
    work: Work,
    /// Of processes that ended, from when on what happened may not be on the disk.
    unrecorded: BTreeMap<(usize, u32), Instant>,
    /// The clients about which the application was asked.
    asked: BTreeSet<String>,
    /// Events were dropped because there was no more room for them, and that was said.
    events_dropped: bool,
    /// The application was ever anything but well.
    application_failed: bool,
    /// Nothing fails any more, and everybody asks something.
    pub everybody_asks: bool,
    /// The store was ever out of reach, or failed.
    pub store_failed: bool,
    /// What the store hands on may have been lost, or the store lost it.
    pub store_lost: bool,
    /// Deliveries were ever doubled.
    pub doubled: bool,
    /// Until when each user does not read, or does nothing.
    idle_until: Vec<Option<Instant>>,
    /// Since when, and until when, each user does or did nothing at all.
    frozen: Vec<Option<(Instant, Option<Instant>)>>,
    /// Whether each user is about to be told that it is connected to a session that was there before.
    is_resumed: Vec<bool>,
    /// Whether something may have been lost on the last link of each user that nobody can know of.
    uncertain: Vec<bool>,
    /// The last connection of each user.
    last: Vec<Option<SocketAddr>>,
    counts: Counts,
}

/// How much happened in a run: a run without any of it would prove nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    /// Connections that were established.
    pub connections: u64,
    /// Publications that reached a client.
    pub heard: u64,
    /// Subscriptions that recovered everything.
    pub recovered: u64,
    /// Subscriptions that were told that they missed something.
    pub unrecovered: u64,
    /// Messages that a queue confirmed.
    pub queued: u64,
    /// Those that a worker did, and was told that this is safe.
    pub done: u64,
    /// Different events that the application heard.
    pub events: u64,
    /// Events that it heard again.
    pub repeated: u64,
    /// Closed connections by reason.
    pub closed: BTreeMap<String, u64>,
}

/// What is true of one connection.
struct Connection {
    id: ConnId,
    user: usize,
    machine: usize,
    life: u32,
    client: Option<String>,
    /// When the client was told of it.
    connected_at: Option<Instant>,
    closed: Option<String>,
    closed_at: Option<Instant>,
    said_goodbye: bool,
    sent_garbage: bool,
    was_ordered: bool,
}

/// What is true of one machine's process.
#[derive(Default)]
struct MachineTruth {
    /// Which of its processes runs.
    life: u32,
    /// That one is there.
    is_up: bool,
    /// When each began.
    starts: Vec<(Instant, u32)>,
    is_draining: bool,
    was_short_of_memory: bool,
    paused_until: Option<Instant>,
    /// Since when, and until when, something kept what happens from its disk: it stood still, or the disk failed.
    troubles: Vec<(Instant, Option<Instant>)>,
    is_disk_failing: bool,
    disk_works_since: Option<Instant>,
}

impl Checks {
    /// A judge who has seen nothing.
    pub fn new(plan: Rc<Plan>, net: Net, clock: Clock, model: Model, trace: Trace) -> Checks {
        Checks {
            readers: plan.users.iter().map(reader_of).collect(),
            machines: plan.machines.iter().map(|_| MachineTruth::default()).collect(),
            idle_until: vec![None; plan.users.len()],
            frozen: vec![None; plan.users.len()],
            uncertain: vec![false; plan.users.len()],
            is_resumed: vec![false; plan.users.len()],
            last: vec![None; plan.users.len()],
            plan,
            net,
            clock,
            model,
            trace,
            connections: BTreeMap::new(),
            origins: BTreeMap::new(),
            ended: BTreeSet::new(),
            silenced: BTreeSet::new(),
            ears: Ears::default(),
            talks: Talks::default(),
            work: Work::default(),
            unrecorded: BTreeMap::new(),
            asked: BTreeSet::new(),
            events_dropped: false,
            application_failed: false,
            everybody_asks: false,
            store_failed: false,
            store_lost: false,
            doubled: false,
            counts: Counts::default(),
        }
    }

    /// How much happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    // What befalls the world.

    /// A machine's process started.
    pub fn started(&mut self, machine: usize) {
        let truth = &mut self.machines[machine];
        truth.life += 1;
        truth.is_up = true;
        truth.starts.push((self.clock.now(), truth.life));
        truth.is_draining = false;
        truth.paused_until = None;
    }

    /// A machine's process was told to drain.
    pub fn draining(&mut self, machine: usize) {
        self.machines[machine].is_draining = true;
    }

    /// A machine's process is gone: nobody says what became of its connections. If it did not leave in order, it
    /// may have kept to itself whose sessions had ended a moment ago.
    pub fn stopped(&mut self, machine: usize, is_orderly: bool) {
        let life = self.machines[machine].life;
        if let Some(since) = self.unrecorded_since(machine, is_orderly) {
            self.unrecorded.insert((machine, life), since);
        }
        self.machines[machine].life += 1;
        self.machines[machine].is_up = false;
        let recent = self.clock.now() - UNANNOUNCED;
        if !is_orderly {
            self.note_killed(machine, life);
            let is_here = |c: &Connection| c.machine == machine && c.life == life;
            let here = self.connections.values().filter(|c| is_here(c));
            let silenced = here.filter(|c| c.closed_at.is_none_or(|at| at > recent));
            self.silenced.extend(silenced.filter_map(|c| c.client.clone()));
            // No line tells that a link waits for the next poll, and who has not read the answer to the first is not
            // known by it: of such a session nothing is told but that it is over.
            let lapsed =
                self.talks.endings.iter().filter(|(_, (at, _))| *at > recent).map(|(client, _)| client);
            let origin = |client: &String| self.connections.get(self.origins.get(client)?);
            let lapsed = lapsed.filter(|client| origin(client).is_some_and(is_here));
            self.silenced.extend(lapsed.cloned());
        }
    }

    /// A machine's process stands still.
    pub fn paused(&mut self, machine: usize, until: Instant) {
        let now = self.clock.now();
        let truth = &mut self.machines[machine];
        truth.troubles.push((now, Some(until)));
        truth.paused_until = truth.paused_until.max(Some(until));
    }

    /// A machine's memory ran short.
    pub fn short_of_memory(&mut self, machine: usize) {
        self.machines[machine].was_short_of_memory = true;
    }

    /// A user dialled a machine.
    pub fn dialled(&mut self, user: usize, machine: usize, local: SocketAddr, id: ConnId) {
        self.trace.note(format_args!("user {user} dialled machine {machine} from {local}"));
        let life = self.machines[machine].life;
        let connection = Connection {
            id,
            user,
            machine,
            life,
            client: None,
            connected_at: None,
            closed: None,
            closed_at: None,
            said_goodbye: false,
            sent_garbage: false,
            was_ordered: false,
        };
        self.connections.insert(local, connection);
        self.last[user] = Some(local);
        self.readers[user].connection = Some(local);
    }

    /// Notes which process of the machine serves a connection: one that was dialled while a process ended may be
    /// accepted by the next.
    fn note_server(&mut self, local: SocketAddr) {
        let Some(connection) = self.connections.get_mut(&local) else { return };
        let accepted = self.net.fate(connection.id).and_then(|fate| fate.when(Happening::Accepted));
        let starts = &self.machines[connection.machine].starts;
        let server = accepted.and_then(|at| starts.iter().rev().find(|(start, _)| *start <= at.into_std()));
        connection.life = server.map_or(connection.life, |(_, life)| *life);
    }

    /// A user does something on its connection.
    pub fn acts(&mut self, user: usize, what: Deed) {
        let Some(connection) =
            self.readers[user].connection.and_then(|local| self.connections.get_mut(&local))
        else {
            return;
        };
        match what {
            Deed::Goodbye => connection.said_goodbye = true,
            Deed::Garbage => connection.sent_garbage = true,
            Deed::Ordered => connection.was_ordered = true,
        }
    }

    /// A user does not read, or does nothing at all, until then.
    pub fn idle(&mut self, user: usize, until: Instant) {
        self.idle_until[user] = self.idle_until[user].max(Some(until));
    }

    /// A user does nothing at all, or does something again.
    pub fn frozen(&mut self, user: usize, is_frozen: bool) {
        let now = self.clock.now();
        let thawed_now = self.frozen[user].is_some_and(|(_, until)| until == Some(now));
        self.frozen[user] = match (self.frozen[user], is_frozen) {
            // Woken for a moment.
            (Some((since, _)), true) if thawed_now => Some((since, None)),
            (_, true) => Some((now, None)),
            (Some((since, _)), false) => Some((since, Some(now))),
            (None, false) => None,
        };
    }

    /// The connection that a user has.
    pub fn connection_of(&self, user: usize) -> Option<ConnId> {
        Some(self.connections.get(&self.readers[user].connection?)?.id)
    }

    /// The id of a user's client, and the machine that it is connected to.
    pub fn client_of(&self, user: usize) -> Option<(ClientId, usize)> {
        let connection = self.connections.get(&self.readers[user].connection?)?;
        Some((ClientId::parse(connection.client.as_ref()?)?, connection.machine))
    }

    /// Whether a user has done something for which a server may send it away for good.
    pub fn may_be_sent_away(&self, user: usize) -> bool {
        let connection = self.last[user].and_then(|local| self.connections.get(&local));
        connection.is_some_and(|connection| connection.sent_garbage)
    }

    /// A user's connection is gone, as the user sees it.
    pub fn lost(&mut self, user: usize, why: &str) {
        self.trace.note(format_args!("user {user} lost its connection: {why}"));
        self.readers[user].connection.into_iter().for_each(|link| self.note_doubt(link));
        self.readers[user].disconnected();
    }

    /// A user's memory is gone: it stands nowhere.
    pub fn forgot(&mut self, user: usize) {
        self.trace.note(format_args!("user {user} forgot everything"));
        self.work.forgot(user);
        self.readers[user] = reader_of(&self.plan.users[user]);
        self.forget_name(user);
    }

    /// A user's interest in a channel changed by its own wish.
    pub fn wants(&mut self, user: usize, channel: &str, is_wanted: bool) {
        self.trace.note(format_args!("user {user} wants {channel}: {is_wanted}"));
        self.readers[user].wants(channel, is_wanted);
    }

    /// A user gave a channel up because the server refused it for good.
    pub fn gives_up(&mut self, user: usize, channel: &str) {
        self.readers[user].gives_up(channel);
    }

    /// The client hangs up.
    pub fn hangs_up(&mut self, user: usize, why: &HangUp) {
        if let HangUp::Nonsense(what) = why {
            let name = self.plan.users[user].kind;
            self.trace.fail(Promise::WellFormed, format!("user {user} ({name:?}) was sent nonsense: {what}"));
        }
    }

    /// A user was told something.
    pub fn told(&mut self, user: usize, event: &Event) {
        self.trace.note(format_args!("user {user}: {event:?}"));
        if let Event::Session { resumed, .. } = event {
            self.is_resumed[user] = *resumed;
            self.readers[user].is_welcomed();
        }
        if let Event::Message { data } = event
            && let Err((promise, what)) = self.judge_direct(user, data)
        {
            self.trace.fail(promise, format!("user {user}: {what}"));
        }
        if let Event::Connected { client } = event {
            let resumed = std::mem::take(&mut self.is_resumed[user]);
            self.judge_return(user, client, resumed);
            self.judge_entry(user, client);
            self.counts.connections += 1;
            let local = self.readers[user].connection;
            self.origins.extend(local.map(|local| (client.clone(), local)));
            local.into_iter().for_each(|local| self.note_server(local));
            if let Some(connection) = local.and_then(|local| self.connections.get_mut(&local)) {
                connection.client = Some(client.clone());
                connection.connected_at = Some(self.clock.now());
            }
        }
        let (may_double, may_lose) = (self.doubled, self.store_lost);
        let truth = delivery::Truth {
            plan: &self.plan,
            model: &self.model,
            now: self.clock.now(),
            may_double,
            may_lose,
        };
        if let Event::Replied { what: Reply::Published, asked: Action::Publish { channel, data }, .. } = event
            && !self.model.lock().is_published(channel, data)
        {
            self.trace.fail(Promise::NoGap, format!("{channel}: accepted and not published: {data}"));
        }
        if let Event::Replied { what: Reply::TimedOut, asked, .. } = event
            && self.everybody_asks
        {
            self.trace.fail(Promise::Answered, format!("user {user}: nothing answers {asked:?}"));
        }
        let heard = self.readers[user].handle(event, &truth, &mut self.counts);
        if let Err((promise, what)) = heard {
            self.trace.fail(promise, format!("user {user}: {what}"));
        }
    }

    /// A backend was answered: what was accepted must be published.
    pub fn accepted(&self, channel: &str, data: &str, status: u16, text: &str) {
        let is_accepted = status == 200 && text.contains("\"result\"");
        if is_accepted && !self.model.lock().is_published(channel, data) {
            self.trace.fail(Promise::NoGap, format!("{channel}: accepted and not published: {data}"));
        }
        if status != 200 && status != 503 {
            self.trace.fail(Promise::WellFormed, format!("a backend was answered {status} {text}"));
        }
    }

    /// A request beside a user's stream was answered.
    pub fn relayed(&self, user: usize, status: u16, text: &str) {
        self.trace.note(format_args!("a request of user {user} was answered {status} {text}"));
        // Its session may be gone, or flooded; or the server is on its way out.
        if !matches!(status, 202 | 204 | 404 | 429 | 503) {
            self.trace.fail(Promise::WellFormed, format!("a request of user {user}: {status} {text}"));
        }
    }

    /// A server logged something.
    pub fn logged(&mut self, line: &LogLine) {
        if line.message.starts_with("undelivered events were dropped") {
            self.events_dropped = true;
        }
        let is_about_link = ["connection closed", "connection lost", "session taken over"];
        if !is_about_link.iter().any(|start| line.message.starts_with(start)) {
            return;
        }
        let field = |name: &str| line.fields.get(name).cloned().unwrap_or_default();
        let (reason, client) = (field("reason"), field("client"));
        let named: Option<SocketAddr> = field("peer").parse().ok();
        let named = named.filter(|peer| {
            let connection = self.connections.get(peer);
            connection.is_some_and(|connection| self.plan.users[connection.user].kind == Kind::Plain)
        });
        if let Some(peer) = named {
            self.note_server(peer);
            if !client.is_empty() {
                self.origins.insert(client, peer);
            }
            return self.logged_of_plain(line, peer);
        }
        *self.counts.closed.entry(reason.clone()).or_default() += 1;
        let peer: Option<SocketAddr> = field("peer").parse().ok();
        self.origins.extend(peer.map(|peer| (client.clone(), peer)));
        self.ended.insert(client);
        peer.into_iter().for_each(|peer| self.note_server(peer));
        let Some(connection) = peer.and_then(|peer| self.connections.get_mut(&peer)) else {
            return self.trace.fail(Promise::Cause, format!("the close of an unknown peer: {line:?}"));
        };
        if let Some(before) = &connection.closed {
            let what = format!("a connection was closed twice: {before}, then {reason} ({line:?})");
            return self.trace.fail(Promise::Cause, what);
        }
        connection.closed = Some(reason.clone());
        connection.client = connection.client.take().or(Some(field("client")));
        connection.closed_at = Some(self.clock.now());
        let connection = &self.connections[&peer.expect("it was found")];
        if let Err((promise, why)) = self.judge_cause(connection, &reason, &field("detail")) {
            self.trace.fail(promise, format!("closed as {reason}, but {why}: {line:?}"));
        }
    }

    // What is looked at once a second.

    /// Looks who is in presence on a machine, and whether anybody is held who is long gone.
    pub fn look_at_machine(&mut self, machine: usize, process: &Process) {
        for channel in &self.plan.channels {
            for info in process.node().presence(channel).unwrap_or_default() {
                if self.ended.contains(&info.client.to_string()) {
                    let what =
                        format!("{} ended and is still in {channel} on machine {machine}", info.client);
                    return self.trace.fail(Promise::Presence, what);
                }
            }
        }
        let heartbeat = &self.plan.config.heartbeat;
        let limit = heartbeat.max_silence.max(heartbeat.interval + heartbeat.timeout) + SLACK;
        let (now, truth) = (self.clock.now(), &self.machines[machine]);
        for (local, connection) in &self.connections {
            let is_here = connection.machine == machine && connection.life == truth.life;
            if !is_here || connection.client.is_none() || connection.closed.is_some() {
                continue;
            }
            // The end of a link that waited for the next poll has no line.
            let user = &self.plan.users[connection.user];
            let limit = match user.kind.is_stomp() {
                // What STOMP's heartbeat is given.
                true => 2 * heartbeat.interval + Duration::from_millis(500) + SLACK,
                false => limit,
            };
            if user.kind == Kind::Plain && user.may_poll() {
                continue;
            }
            let Some(gone) = self.gone_since(connection) else { continue };
            if now > gone.max(truth.paused_until.unwrap_or(gone)) + limit {
                let what =
                    format!("{local} has been gone for {:?} and is not closed, limit {limit:?}", now - gone);
                return self.trace.fail(Promise::Presence, what);
            }
        }
    }

    /// Since when nothing of a connection's client can reach the server, or nothing of the server the client.
    fn gone_since(&self, connection: &Connection) -> Option<Instant> {
        let fate = self.net.fate(connection.id)?;
        let now = tokio::time::Instant::now();
        let (mut gone, mut not_before) = (None, None);
        for (at, happening) in &fate.happenings {
            match happening {
                Happening::Closed(Side::Client)
                | Happening::Killed(Side::Client)
                | Happening::Vanished(Side::Client)
                | Happening::Cut(_, crate::net::Cut::Vanish) => gone = gone.or(Some(*at)),
                Happening::CutRepaired | Happening::Repaired(_) => not_before = Some(*at + RETRANSMISSION),
                Happening::Stalled(_, span) => not_before = not_before.max(Some(*at + *span)),
                _ => {}
            }
            if *happening == Happening::CutRepaired && fate.when(Happening::Closed(Side::Client)).is_none() {
                gone = None;
            }
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            if let Some(since) = fate.blocked_since(direction, now) {
                gone = Some(gone.map_or(since, |gone: tokio::time::Instant| gone.min(since)));
            }
        }
        let gone = gone.map(|gone| gone.max(not_before.unwrap_or(gone)).into_std());
        // Who stands still behind a link that works is only given away by its silence, where it would answer.
        // What waits to be written to it puts that off, as long as its kernel takes it.
        let user = &self.plan.users[connection.user];
        let is_quiet = self.plan.backend_bytes <= 300 && user.bytes_per_second.is_none();
        let would_answer = is_quiet && user.kind.answers_beats();
        let frozen = self.frozen[connection.user].filter(|(_, until)| would_answer && until.is_none());
        gone.or(frozen.map(|(since, _)| not_before.map_or(since, |at| at.into_std().max(since))))
    }

    /// Judges what a machine's shards hold.
    pub fn look_at_census(&self, machine: usize, census: &Census) {
        // Beyond the bound one item, and the most that an item can be is what half of the bound recovers.
        let limit = self.plan.config.client.max_outbox_bytes * 3 / 2 + 48 * 1024;
        if census.largest_outbox > limit {
            let what = format!("{} bytes wait for one peer of machine {machine}", census.largest_outbox);
            self.trace.fail(Promise::Bounded, what);
        }
    }

    // What is looked at in the end.

    /// Faults have stopped long ago: everybody must be connected and whole.
    pub fn converged(&self, machines: &[(usize, Rc<Process>)]) {
        let tops: BTreeMap<&String, _> =
            self.plan.channels.iter().map(|channel| (channel, self.model.lock().top(channel))).collect();
        let mut present: BTreeMap<&String, BTreeSet<String>> = BTreeMap::new();
        if let Err(what) = self.work.is_settled() {
            return self.trace.fail(Promise::Queued, what);
        }
        for (user, reader) in self.readers.iter().enumerate() {
            if let Err(what) = reader.is_whole(&self.plan.users[user].wanted, &self.model, &tops) {
                return self.trace.fail(Promise::Converges, format!("user {user}: {what}"));
            }
            let client = reader.connection.and_then(|local| self.connections.get(&local)?.client.clone());
            for channel in self.plan.channels.iter().filter(|channel| reader.is_subscribed(channel)) {
                present.entry(channel).or_default().extend(client.clone());
            }
        }
        for channel in &self.plan.channels {
            if !self.plan.config.channel_options(channel).is_some_and(|options| options.presence) {
                continue;
            }
            let members = machines.iter().flat_map(|(_, process)| members(process.node(), channel));
            let (members, expected) =
                (members.collect::<BTreeSet<String>>(), present.remove(channel).unwrap_or_default());
            let (mut more, less): (Vec<_>, Vec<_>) =
                (members.difference(&expected).collect(), expected.difference(&members).collect());
            more.retain(|client| !self.may_be_unseen(client));
            if !more.is_empty() || !less.is_empty() {
                let what = format!("{channel} holds {more:?}, who are not there, and not {less:?}, who are");
                return self.trace.fail(Promise::Presence, what);
            }
        }
    }

    /// Everybody has left long ago: nothing of them may be left.
    pub fn emptied(&self, machine: usize, process: &Process, census: &Census) {
        let node = process.node();
        let sum = |of: &dyn Fn(&longwire::telemetry::ShardCounters) -> u64| -> u64 {
            node.counters.iter().map(|shard| of(shard)).sum()
        };
        let connections = sum(&|shard| shard.connections.iter().flatten().map(|gauge| gauge.get()).sum());
        let left = [
            ("sessions", census.sessions as u64),
            ("subscriptions", census.subscriptions as u64),
            ("channels", census.channels.len() as u64),
            ("timers", census.timers as u64),
            ("places", node.admissions.open() as u64),
            ("names of clients", node.claims.len() as u64),
            ("sessions that are away", sum(&|shard| shard.sessions_away.get())),
            ("ends that are to be told", sum(&|shard| shard.telling.get())),
            ("counted connections", connections),
            ("counted subscriptions", sum(&|shard| shard.subscriptions.get())),
            ("counted outbox bytes", sum(&|shard| shard.outbox_bytes.get())),
            ("members", self.plan.channels.iter().map(|channel| members(node, channel).len() as u64).sum()),
        ];
        for (what, count) in left {
            if count != 0 {
                return self
                    .trace
                    .fail(Promise::NothingLeft, format!("machine {machine} still has {count} {what}"));
            }
        }
    }

    /// The run is over: every session was closed once, and every join has its leave.
    pub fn finished(&self) {
        for (local, connection) in &self.connections {
            let is_here = connection.life == self.machines[connection.machine].life;
            let user = &self.plan.users[connection.user];
            let may_poll = user.kind == Kind::Plain && user.may_poll();
            if is_here && connection.client.is_some() && connection.closed.is_none() && !may_poll {
                return self.trace.fail(Promise::Cause, format!("nobody said why {local} was closed"));
            }
        }
        self.require_told();
        self.require_talks_over();
        let truth = self.model.lock();
        for (key, movements) in &truth.movements {
            if truth.unannounced.contains(key) {
                continue;
            }
            let is_alternating = movements.iter().zip([true, false].iter().cycle()).all(|(a, b)| a == b);
            // A client that was never told its id was in the middle of it all when its process was killed.
            let may_stay = self.silenced.contains(&key.1) || !self.ended.contains(&key.1);
            if !is_alternating || movements.len() % 2 != 0 && !may_stay {
                let what = format!("{} in {} was announced {movements:?} (true: join)", key.1, key.0);
                return self.trace.fail(Promise::OneLeave, what);
            }
            let origin = self.origins.get(&key.1).and_then(|origin| self.connections.get(origin));
            let is_plain = origin.is_some_and(|origin| self.plan.users[origin.user].kind == Kind::Plain);
            if is_plain && movements.len() > 2 && !self.may_have_moved(&key.1) {
                let what = format!("{} in {} was announced {movements:?}, and nobody moved it", key.1, key.0);
                return self.trace.fail(Promise::OneLeave, what);
            }
        }
    }
}

/// What a user does on its connection that excuses its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// It closes politely.
    Goodbye,
    /// It breaks the protocol.
    Garbage,
    /// The backend gave an order about it.
    Ordered,
}

fn reader_of(user: &UserPlan) -> Reader {
    Reader::new(user.kind == Kind::Plain)
}

fn members(node: &Node, channel: &str) -> Vec<String> {
    let members = node.presence(channel).unwrap_or_default();
    members.iter().map(|info| info.client.to_string()).collect()
}
