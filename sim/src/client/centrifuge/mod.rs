//! centrifuge-js over each of its transports, in JSON and Protobuf: the SDK's state machine over all connections.
//!
//! What it does is what the SDK does: connect and all subscribes in the first message, positions taken from
//! replies and publications, recovery by itself, backoff with full jitter, five seconds of patience with each
//! command, ten seconds beyond a beat. Where the server cannot be answered on the link (SSE, HTTP stream) each
//! further message is a [`Post`](super::Post), which may be lost. Without a way back at all it is a program that
//! takes what its token brings: no SDK has that, so it follows the protocol's documentation.
//! Two things differ from the SDK, and both are about faults: a line that breaks the contract (an unknown id, a publication of a channel that was never subscribed) is reported where the SDK
//! would shrug, and a reply counts for a subscription only if it answers its last subscribe command.
//! What must stay true: nothing is remembered of a connection that was lost, except ids, positions and wishes.

mod delta;
mod json;
mod protobuf;
mod said;
mod subs;
mod wire;

use super::{Action, Client, Event, HangUp, Output, Reply, Settings, backoff};
use delta::Deltas;
use longwire::env::rng::Rng;
pub(super) use longwire_protocol::centrifuge::Format;
use said::{Ask, Body, ConnectResult, Line, Push};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use subs::{ServerSub, Sub};
pub(super) use wire::{Carrier, Route};
use wire::{Incoming, Wire};

/// How long the SDK waits for a handshake, for the answer to a command and for the answer to its close.
const PATIENCE: Duration = Duration::from_secs(5);

/// How late a beat may be.
const MAX_BEAT_DELAY: Duration = Duration::from_secs(10);

/// "State invalidated": the token and all positions are worthless.
const STATE_INVALIDATED: u32 = 3014;

pub(super) struct Centrifuge {
    wire: Wire,
    rng: Rng,
    token: Option<String>,
    phase: Phase,
    /// The connection's id, as the last answer to connect told it.
    client: String,
    subs: BTreeMap<String, Sub>,
    server_subs: BTreeMap<String, ServerSub>,
    /// Commands without an answer. Those that took too long stay, so that a late answer is known.
    pending: BTreeMap<u32, Pending>,
    /// Commands that wait until it is known which session they are for.
    held: Vec<Vec<u8>>,
    last_id: u32,
    /// Failed attempts to connect since the last success.
    attempts: u32,
    beats: Option<Beats>,
    refresh_at: Option<Instant>,
}

/// How far a connection is; with the time at which patience ends.
#[derive(Clone, Copy)]
enum Phase {
    /// No connection, or one that was given up.
    Idle,
    Handshake(Instant),
    /// The connect command is sent.
    Connecting,
    Connected,
    /// Our close frame is sent.
    Closing(Instant),
}

struct Beats {
    interval: Duration,
    wants_pong: bool,
    heard: Instant,
}

struct Pending {
    asked: Asked,
    /// `None` once patience ended.
    deadline: Option<Instant>,
}

enum Asked {
    Connect(BTreeMap<String, (u64, String)>),
    Subscribe { channel: String, since: Option<(u64, String)> },
    Unsubscribe(String),
    Action(Action),
}

impl Client for Centrifuge {
    fn opened(&mut self, now: Instant, out: &mut Output) {
        self.lost(now);
        if self.wire.open(&mut out.bytes) {
            self.phase = Phase::Handshake(now + PATIENCE);
        } else {
            let message = self.first_message(now);
            self.wire.request(&message, &mut out.bytes);
        }
    }

    fn handle_bytes(&mut self, now: Instant, bytes: &[u8], out: &mut Output) {
        let mut input = bytes;
        while !matches!(self.phase, Phase::Idle) {
            match self.wire.poll(&mut input, &mut out.bytes) {
                Ok(Some(incoming)) => self.handle_incoming(now, incoming, out),
                Ok(None) => return,
                Err(what) => self.hang_up(HangUp::Nonsense(what), out),
            }
        }
    }

    fn lost(&mut self, _now: Instant) {
        self.phase = Phase::Idle;
        self.wire.reset();
        self.forget_commands();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Idle => return None,
            Phase::Handshake(deadline) | Phase::Closing(deadline) => Some(deadline),
            Phase::Connecting | Phase::Connected => None,
        };
        let commands = self.pending.values().filter_map(|pending| pending.deadline);
        let retries = self.subs.values().filter_map(Sub::retry_at);
        let beat = self.beats.as_ref().map(Beats::overdue_at);
        phase.into_iter().chain(commands).chain(retries).chain(beat).chain(self.refresh_at).min()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        match self.phase {
            Phase::Idle => return,
            Phase::Handshake(deadline) if deadline <= now => {
                return self.hang_up(HangUp::ConnectTimeout, out);
            }
            Phase::Closing(deadline) if deadline <= now => return self.hang_up(HangUp::Done, out),
            _ => {}
        }
        if self.beats.as_ref().is_some_and(|beats| beats.overdue_at() <= now) {
            return self.hang_up(HangUp::NoPing, out);
        }
        if self.refresh_at.take_if(|at| *at <= now).is_some() {
            out.events.push(Event::WantsToken);
        }
        let mut failed = None;
        for (id, pending) in &mut self.pending {
            if pending.deadline.take_if(|deadline| *deadline <= now).is_none() {
                continue;
            }
            match &pending.asked {
                Asked::Connect(_) => failed = failed.or(Some(HangUp::ConnectTimeout)),
                Asked::Subscribe { .. } | Asked::Unsubscribe(_) => {
                    failed = failed.or(Some(HangUp::CommandTimeout));
                }
                Asked::Action(asked) => {
                    let (asked, what) = (asked.clone(), Reply::TimedOut);
                    out.events.push(Event::Replied { id: *id, asked, what });
                }
            }
        }
        if let Some(why) = failed {
            return self.hang_up(why, out);
        }
        let due = self.subs.iter().filter(|(_, sub)| sub.retry_at().is_some_and(|at| at <= now));
        let due: Vec<String> = due.map(|(channel, _)| channel.clone()).collect();
        let commands: Vec<Vec<u8>> =
            due.iter().filter_map(|channel| self.subscribe_command(now, channel)).collect();
        self.send(commands, out);
    }

    fn act(&mut self, now: Instant, action: Action, out: &mut Output) -> bool {
        let is_connected = matches!(self.phase, Phase::Connected);
        let Route { is_bare, .. } = self.wire.route;
        match action {
            Action::Subscribe(_) | Action::Unsubscribe(_) if is_bare => false,
            Action::Subscribe(channel) => self.wish(now, &channel, out),
            Action::Unsubscribe(channel) => self.lose_interest(now, &channel, out),
            Action::Token(token) => {
                self.token = Some(token);
                true
            }
            Action::Garbage(bytes) if is_connected && self.wire.route.is_emulated() => {
                // Whatever it is, it is no command.
                self.wire.send(&[b"g", &*bytes].concat(), out);
                true
            }
            Action::Garbage(bytes) => {
                let is_possible = !matches!(self.phase, Phase::Idle);
                if is_possible {
                    out.bytes.extend_from_slice(&bytes);
                }
                is_possible
            }
            Action::Goodbye => match self.phase {
                Phase::Idle | Phase::Closing(_) => false,
                Phase::Handshake(_) => {
                    self.hang_up(HangUp::Done, out);
                    true
                }
                Phase::Connecting | Phase::Connected => {
                    if self.wire.close(&mut out.bytes) {
                        self.forget_commands();
                        self.phase = Phase::Closing(now + PATIENCE);
                    } else {
                        self.hang_up(HangUp::Done, out);
                    }
                    true
                }
            },
            _ if !is_connected || is_bare => false,
            Action::Refresh if self.token.is_none() => false,
            action => {
                let id = self.next_id();
                let ask = match &action {
                    Action::Publish { channel, data } => Ask::Publish { channel, data },
                    Action::Presence(channel) => Ask::Presence(channel),
                    Action::History(channel) => Ask::History(channel),
                    _ => Ask::Refresh(self.token.as_deref().unwrap_or_default()),
                };
                let command = self.encode(id, &ask);
                self.expect(now, id, Asked::Action(action));
                self.send(vec![command], out);
                true
            }
        }
    }

    fn reconnect_delay(&mut self) -> Duration {
        self.attempts += 1;
        backoff(&mut self.rng, self.attempts - 1)
    }

    fn name(&self) -> &'static str {
        self.wire.route.name()
    }

    fn positions(&self) -> BTreeMap<String, (u64, String)> {
        let own = self.subs.iter().filter(|(_, sub)| sub.recover);
        let own = own.map(|(channel, sub)| (channel.clone(), (sub.offset, sub.epoch.clone())));
        own.chain(self.server_positions()).collect()
    }
}

impl Centrifuge {
    pub(super) fn new(route: Route, settings: Settings) -> Centrifuge {
        let wire = Wire::new(route, &settings);
        let Settings { channels, token, rng, .. } = settings;
        // Without a way back the token alone brings channels.
        let channels = if route.is_bare { Vec::new() } else { channels };
        let subs = channels.into_iter().map(|wanted| (wanted.channel.clone(), Sub::new(wanted)));
        Centrifuge {
            wire,
            rng: rng.fork("backoff"),
            token,
            phase: Phase::Idle,
            client: String::new(),
            subs: subs.collect(),
            server_subs: BTreeMap::new(),
            pending: BTreeMap::new(),
            held: Vec::new(),
            last_id: 0,
            attempts: 0,
            beats: None,
            refresh_at: None,
        }
    }

    fn hang_up(&mut self, why: HangUp, out: &mut Output) {
        // What the page's WebSocket sends when the SDK closes it; nothing if the server closed first.
        self.wire.close(&mut out.bytes);
        if matches!(why, HangUp::Told { code: STATE_INVALIDATED, .. }) {
            self.subs.values_mut().for_each(Sub::invalidate);
            out.events.push(Event::WantsToken);
        }
        out.hang_up = Some(why);
        self.phase = Phase::Idle;
    }

    fn forget_commands(&mut self) {
        self.pending.clear();
        self.held.clear();
        self.beats = None;
        self.refresh_at = None;
        self.subs.values_mut().for_each(Sub::forget_commands);
    }

    fn nonsense(&mut self, what: String, out: &mut Output) {
        self.hang_up(HangUp::Nonsense(what), out);
    }

    fn handle_incoming(&mut self, now: Instant, incoming: Incoming, out: &mut Output) {
        match incoming {
            Incoming::Open => self.connect(now, out),
            Incoming::Message(message) => self.handle_message(now, &message, out),
            Incoming::Refused(status) => {
                // A browser does not tell the page which status it was, so every one is tried again.
                let code = status.into();
                out.events.push(Event::Refused { channel: None, code });
                self.hang_up(HangUp::Told { code, reconnect: true }, out);
            }
            Incoming::Close { .. } if matches!(self.phase, Phase::Closing(_)) => {
                self.hang_up(HangUp::Done, out);
            }
            Incoming::Close { reason, .. } if serde_json::from_str::<serde_json::Value>(&reason).is_ok() => {
                self.nonsense(format!("close: the SDK would read the reason {reason:?} as JSON"), out);
            }
            Incoming::Close { code, reason } => {
                let code = u32::from(code.unwrap_or(1005));
                // The SDK looks at the code's range only if there is a reason too.
                let is_final =
                    code == 1009 || !reason.is_empty() && matches!(code, 3500..=3999 | 4500..=4999);
                out.events.push(Event::Told { code, text: reason });
                self.hang_up(HangUp::Told { code, reconnect: !is_final }, out);
            }
        }
    }

    /// Sends connect and every subscribe in one message.
    fn connect(&mut self, now: Instant, out: &mut Output) {
        let message = self.first_message(now);
        self.wire.send(&message, out);
    }

    fn first_message(&mut self, now: Instant) -> Vec<u8> {
        self.phase = Phase::Connecting;
        let id = self.next_id();
        let Route { format, is_bare, .. } = self.wire.route;
        let since: BTreeMap<String, (u64, String)> = self.server_positions().collect();
        let subs: Vec<(&str, u64, &str)> =
            since.iter().map(|(channel, (offset, epoch))| (&**channel, *offset, &**epoch)).collect();
        let ask = Ask::Connect { token: self.token.as_deref(), subs: &subs };
        let connect = said::encode(format, (!is_bare).then_some(id), &ask);
        self.expect(now, id, Asked::Connect(since));
        if is_bare {
            return connect;
        }
        let mut commands = vec![connect];
        let channels: Vec<String> = self.subs.keys().cloned().collect();
        commands.extend(channels.iter().filter_map(|channel| self.subscribe_command(now, channel)));
        said::join(format, &commands)
    }

    fn handle_message(&mut self, now: Instant, message: &[u8], out: &mut Output) {
        if let Some(beats) = &mut self.beats {
            beats.heard = now;
        }
        let Route { format, is_bare, .. } = self.wire.route;
        let mut rest = message;
        if format == Format::Json {
            rest = rest.trim_ascii();
        }
        loop {
            let (line, decoded) = said::decode_next(format, is_bare, &mut rest);
            let handled = decoded.and_then(|decoded| self.handle_line(now, decoded, out));
            if let Err(what) = handled {
                let beginning: String = String::from_utf8_lossy(line).chars().take(300).collect();
                self.nonsense(format!("centrifuge: {what}, in {beginning}"), out);
            }
            if out.hang_up.is_some() || rest.is_empty() {
                return;
            }
        }
    }

    fn handle_line(&mut self, now: Instant, line: Line, out: &mut Output) -> Result<(), String> {
        match line {
            Line::Beat => {
                out.events.push(Event::Beat);
                match &self.beats {
                    Some(beats) if beats.wants_pong => {
                        let pong = said::join(self.wire.route.format, &[]);
                        self.wire.send(&pong, out);
                    }
                    Some(_) => {}
                    None => return Err("a beat that was not announced".to_owned()),
                }
                Ok(())
            }
            Line::Push { push: Push::Disconnect { code, reason }, .. } => {
                self.handle_disconnect(code, reason, out)
            }
            Line::Push { push: Push::Connect(result), .. } => {
                let Some((_, Pending { asked: Asked::Connect(since), .. })) = self.pending.pop_first() else {
                    return Err("a connect push that nothing waits for".to_owned());
                };
                self.established(now, &since, result, out)
            }
            Line::Push { channel, push } => match self.phase {
                Phase::Connecting => Err("a push before the answer to connect".to_owned()),
                _ => self.handle_push(now, channel, push, out),
            },
            Line::Reply { id, body } => {
                let Pending { asked, deadline } =
                    self.pending.remove(&id).ok_or("an id that nothing waits for")?;
                match (asked, body) {
                    (Asked::Action(_), _) if deadline.is_none() => Ok(()),
                    (Asked::Action(asked), body) => self.handle_answer(now, id, asked, body, out),
                    (Asked::Connect(since), Body::Connect(result)) => {
                        self.established(now, &since, result, out)
                    }
                    (Asked::Connect(_), Body::Error(error)) => {
                        out.events.push(Event::Refused { channel: None, code: error.code });
                        if error.code == said::TOKEN_EXPIRED {
                            out.events.push(Event::WantsToken);
                        }
                        let told = HangUp::Told { code: error.code, reconnect: error.is_passing() };
                        self.hang_up(told, out);
                        Ok(())
                    }
                    (Asked::Subscribe { channel, since }, body) => {
                        self.handle_subscribe_answer(now, id, (channel, since), body, out)
                    }
                    (Asked::Unsubscribe(channel), Body::Unsubscribe) => {
                        self.handle_unsubscribe_answer(now, &channel, out);
                        Ok(())
                    }
                    (Asked::Unsubscribe(_), _) => {
                        Err("an unsubscribe is answered by nothing else".to_owned())
                    }
                    (Asked::Connect(_), _) => Err("this does not answer connect".to_owned()),
                }
            }
        }
    }

    fn established(
        &mut self,
        now: Instant,
        since: &BTreeMap<String, (u64, String)>,
        result: ConnectResult,
        out: &mut Output,
    ) -> Result<(), String> {
        let Route { carrier, is_bare, .. } = self.wire.route;
        let is_named = !result.session.is_empty() && !result.node.is_empty();
        if is_named != (is_bare || carrier != Carrier::WebSocket) {
            return Err("a session is named if and only if further requests need its name".to_owned());
        }
        if result.pong && (is_bare || carrier != Carrier::WebSocket) {
            return Err("an answer to beats is asked for where nothing can be said".to_owned());
        }
        self.phase = Phase::Connected;
        self.attempts = 0;
        self.client.clone_from(&result.client);
        out.events.push(Event::Connected { client: result.client });
        self.replace_server_subs(since, result.subs, out)?;
        let interval = Duration::from_secs(result.ping.into());
        self.beats = (result.ping > 0).then_some(Beats { interval, wants_pong: result.pong, heard: now });
        self.refresh_at = result.expires.then(|| now + Duration::from_secs(result.ttl.into()));
        if self.wire.route.is_emulated() {
            self.wire.set_session(result.session, result.node);
            let held = std::mem::take(&mut self.held);
            self.send(held, out);
        }
        Ok(())
    }

    /// Takes the last words where no close frame can say them, or beside it.
    fn handle_disconnect(&mut self, code: u32, reason: String, out: &mut Output) -> Result<(), String> {
        let Route { carrier, is_bare, .. } = self.wire.route;
        if carrier == Carrier::WebSocket && !is_bare {
            return Err("a disconnect push where the close frame says it".to_owned());
        }
        let is_final = matches!(code, 3500..=3999 | 4500..=4999);
        out.events.push(Event::Told { code, text: reason });
        self.hang_up(HangUp::Told { code, reconnect: !is_final }, out);
        Ok(())
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        id: u32,
        asked: Action,
        body: Body,
        out: &mut Output,
    ) -> Result<(), String> {
        let what = match (&asked, body) {
            (Action::Publish { .. }, Body::Publish) => Reply::Published,
            (Action::Presence(_), Body::Presence(result)) => {
                Reply::Presence(result.clients().ok_or("a client in presence under another's id")?)
            }
            (Action::History(_), Body::History(result)) => {
                let epoch = result.epoch;
                let format = self.wire.route.format;
                let read = |publication| Deltas::default().read(publication, Some(&epoch), format);
                let publications = result.publications.iter().map(read).collect::<Result<_, _>>()?;
                Reply::History { publications, top: (result.offset, epoch) }
            }
            (Action::Refresh, Body::Refresh(result)) => {
                if result.client != self.client {
                    return Err("a refresh of another connection".to_owned());
                }
                self.refresh_at = result.expires.then(|| now + Duration::from_secs(result.ttl.into()));
                Reply::Refreshed
            }
            (Action::Refresh, Body::Error(error)) => {
                if error.code < 100 || error.temporary {
                    self.refresh_at = Some(now + PATIENCE + PATIENCE.mul_f64(self.rng.fraction()));
                } else {
                    self.hang_up(HangUp::Told { code: error.code, reconnect: false }, out);
                }
                Reply::Error(error.code)
            }
            (_, Body::Error(error)) => Reply::Error(error.code),
            (asked, _) => return Err(format!("this does not answer {asked:?}")),
        };
        out.events.push(Event::Replied { id, asked, what });
        Ok(())
    }

    fn next_id(&mut self) -> u32 {
        self.last_id += 1;
        self.last_id
    }

    fn expect(&mut self, now: Instant, id: u32, asked: Asked) {
        self.pending.insert(id, Pending { asked, deadline: Some(now + PATIENCE) });
    }

    fn encode(&self, id: u32, ask: &Ask<'_>) -> Vec<u8> {
        said::encode(self.wire.route.format, Some(id), ask)
    }

    /// Sends commands as one message, once it is known to which session.
    fn send(&mut self, commands: Vec<Vec<u8>>, out: &mut Output) {
        if commands.is_empty() {
            return;
        }
        if self.wire.route.is_emulated() && !self.wire.is_open() {
            self.held.extend(commands);
        } else {
            self.wire.send(&said::join(self.wire.route.format, &commands), out);
        }
    }
}

impl Beats {
    fn overdue_at(&self) -> Instant {
        self.heard + self.interval + MAX_BEAT_DELAY
    }
}
