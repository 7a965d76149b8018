//! A client of the plain dialect with a name: one life over several transports.
//!
//! It has a ladder of them, the best first. Where an attempt fails twice it goes a step down, where it was welcome for a
//! while it tries the better one again; whatever carries it, it returns with its name and with the last id of each
//! channel. What it says goes up on its link, where that has a way up, or by `POST /send`. What comes down is read by
//! code of its own, but for events, which are [`EventStream`]'s to read. It judges the form of each object and that an
//! id names what it stands at; the promises are the checks' business.

mod carriers;
mod objects;

use super::event_stream::EventStream;
use super::websocket::Link;
use super::{Action, Client, Event, HangUp, Output, PlainSettings, Port, Post, Settings, Transport};
use carriers::{Answer, Lines, PollReader};
use longwire_protocol::plain::position_token::PositionToken;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long the client waits for its welcome, and for the end of a close.
const PATIENCE: Duration = Duration::from_secs(6);

/// After so many attempts in vain the next transport is tried.
const ATTEMPTS: u32 = 2;

/// Of links that broke, how many make the client go down a step at once.
const DISTRUST: f64 = 0.3;

/// Of messages, how many go by a request although the link has a way up.
const BESIDE: f64 = 0.15;

/// What the client says over TCP to show that it is there, and what it is answered.
pub const BEAT: &str = "ping";
/// The answer to [`BEAT`].
pub const BEAT_ANSWER: &str = "pong";
/// What the server says over TCP to show that it is there.
pub const PING_PACKET: &str = "beat";

pub(super) struct Plain {
    settings: Settings,
    plain: PlainSettings,
    rung: usize,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// The next socket is dialled at once.
    is_changing: bool,
    carrier: Carrier,
    is_welcome: bool,
    /// The application said goodbye.
    is_leaving: bool,
    /// When to try the better transport again.
    climb_at: Option<Instant>,
    beat_at: Option<Instant>,
    heard: Option<Instant>,
    /// Where it stands in each channel, as the last id says: the offset, a dot and the epoch.
    ids: BTreeMap<String, String>,
    /// Where it said that it stands; `None` if nothing.
    asked: Option<BTreeMap<String, String>>,
    /// What is subscribed on this link.
    channels: BTreeSet<String>,
    /// Channels without positions that the server brought into the session: answers to polls do not name them.
    brought: BTreeSet<String>,
    session: String,
    /// What its session was called last, which shows that it is its own.
    proof: String,
    client: String,
}

enum Carrier {
    Idle,
    /// The server said that it ends the link.
    Told,
    WebSocket(Box<Link>),
    Tcp(Vec<u8>),
    Events(Box<EventStream>),
    Lines(Lines),
    Poll(PollReader),
}

impl Client for Plain {
    fn opened(&mut self, now: Instant, out: &mut Output) {
        self.forget_link();
        self.heard = Some(now);
        let is_barred = self.rung == 0 && self.plain.barred_until.is_some_and(|until| until > now);
        if is_barred {
            self.is_changing = true;
            out.hang_up = Some(HangUp::Changed);
            return;
        }
        let transport = self.transport();
        self.asked = (!self.ids.is_empty()).then(|| self.ids.clone());
        self.carrier = match transport {
            Transport::WebSocket => {
                let target = self.target("/ws", &[]);
                let rng = self.settings.rng.fork("websocket");
                let deflate = self.settings.offer_deflate;
                let mut link = Box::new(Link::new(self.settings.host.clone(), target, None, deflate, rng));
                link.open(&mut out.bytes);
                Carrier::WebSocket(link)
            }
            Transport::Tcp => {
                out.bytes.extend_from_slice(self.first_packet().as_bytes());
                self.beat_at = Some(now + self.plain.beat);
                Carrier::Tcp(Vec::new())
            }
            Transport::EventStream => {
                let seen = PositionToken::parse(since(&self.ids).as_bytes()).unwrap_or_default();
                let mut settings = self.settings.clone();
                settings.plain.proof.clone_from(&self.proof);
                let mut inner = Box::new(EventStream::standing(settings, seen));
                inner.opened(now, out);
                Carrier::Events(inner)
            }
            Transport::Lines => {
                out.bytes.extend_from_slice(self.request(&self.target("/stream", &[])).as_bytes());
                Carrier::Lines(Lines::default())
            }
            Transport::Poll => {
                self.ask(out);
                Carrier::Poll(PollReader::default())
            }
        };
    }

    fn handle_bytes(&mut self, now: Instant, bytes: &[u8], out: &mut Output) {
        self.heard = Some(now);
        if let Err(what) = self.read(now, bytes, out) {
            let transport = self.transport();
            self.hang_up(HangUp::Nonsense(format!("plain over {transport:?}: {what}")), out);
        }
    }

    fn lost(&mut self, _now: Instant) {
        if !self.is_changing {
            let is_fallen = match self.is_welcome {
                true => self.settings.rng.fraction() < DISTRUST,
                false => self.failures + 1 >= ATTEMPTS,
            };
            self.failures = if self.is_welcome || is_fallen { 0 } else { self.failures + 1 };
            if is_fallen {
                self.rung = (self.rung + 1) % self.plain.ladder.len();
            }
        }
        self.forget_link();
    }

    fn missed(&mut self) {
        self.is_welcome = false;
        self.lost_in_vain();
    }

    fn port(&self) -> Port {
        match self.transport() {
            Transport::Tcp => Port::Packets,
            _ => Port::Http,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if let Carrier::Idle = self.carrier {
            return None;
        }
        let silence = self.settings.silence.unwrap_or(PATIENCE);
        let limit = match self.carrier {
            Carrier::Poll(_) => Duration::from_secs(self.plain.wait_seconds) + silence,
            _ if self.is_welcome && !self.is_leaving => silence,
            _ => PATIENCE,
        };
        let silent = self.heard.map(|heard| heard + limit);
        [silent, self.climb_at, self.beat_at].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Output) {
        if self.beat_at.is_some_and(|at| at <= now) {
            self.beat_at = Some(now + self.plain.beat);
            out.bytes.extend_from_slice(format!("{BEAT}\n").as_bytes());
        } else if self.climb_at.is_some_and(|at| at <= now) {
            self.climb_at = None;
            self.rung = if self.settings.rng.fraction() < 0.5 { 0 } else { self.rung - 1 };
            self.change(out);
        } else if self.poll_timeout().is_some_and(|at| at <= now) {
            let why = match (self.is_leaving, self.is_welcome) {
                (true, _) => HangUp::Done,
                (false, true) => HangUp::NoPing,
                (false, false) => HangUp::ConnectTimeout,
            };
            self.hang_up(why, out);
        }
    }

    fn act(&mut self, now: Instant, action: Action, out: &mut Output) -> bool {
        match action {
            Action::Say { number, data } => self.say(number, &data, out),
            Action::Goodbye => {
                if let Carrier::WebSocket(link) = &mut self.carrier
                    && link.close(&mut out.bytes)
                {
                    (self.is_leaving, self.climb_at, self.heard) = (true, None, Some(now));
                } else {
                    self.hang_up(HangUp::Done, out);
                }
                true
            }
            // Elsewhere it means nothing, or is a message as any other.
            Action::Garbage(bytes) if matches!(self.carrier, Carrier::WebSocket(_)) => {
                out.bytes.extend_from_slice(&bytes);
                true
            }
            _ => false,
        }
    }

    fn reconnect_delay(&mut self) -> Duration {
        if std::mem::take(&mut self.is_changing) {
            return Duration::ZERO;
        }
        let longest = Duration::from_millis(300 << self.failures.min(4));
        Duration::from_millis(50) + longest.mul_f64(self.settings.rng.fraction())
    }

    fn name(&self) -> &'static str {
        "plain over whatever passes"
    }

    fn positions(&self) -> BTreeMap<String, (u64, String)> {
        let split =
            |id: &str| id.split_once('.').and_then(|(at, epoch)| Some((at.parse().ok()?, epoch.into())));
        self.ids.iter().filter_map(|(channel, id)| Some((channel.clone(), split(id)?))).collect()
    }
}

impl Plain {
    pub(super) fn new(settings: Settings) -> Plain {
        let mut plain = settings.plain.clone();
        if plain.ladder.is_empty() {
            plain.ladder.push(Transport::WebSocket);
        }
        Plain {
            settings,
            plain,
            rung: 0,
            failures: 0,
            is_changing: false,
            carrier: Carrier::Idle,
            is_welcome: false,
            is_leaving: false,
            climb_at: None,
            beat_at: None,
            heard: None,
            ids: BTreeMap::new(),
            asked: None,
            channels: BTreeSet::new(),
            brought: BTreeSet::new(),
            session: String::new(),
            proof: String::new(),
            client: String::new(),
        }
    }

    fn transport(&self) -> Transport {
        self.plain.ladder[self.rung]
    }

    fn forget_link(&mut self) {
        self.carrier = Carrier::Idle;
        (self.is_welcome, self.is_leaving) = (false, false);
        (self.climb_at, self.beat_at, self.heard) = (None, None, None);
        self.channels.clear();
        self.session.clear();
    }

    fn lost_in_vain(&mut self) {
        self.failures += 1;
        if self.failures >= ATTEMPTS {
            self.failures = 0;
            self.rung = (self.rung + 1) % self.plain.ladder.len();
        }
    }

    fn hang_up(&mut self, why: HangUp, out: &mut Output) {
        out.hang_up = Some(why);
        self.carrier = Carrier::Told;
    }

    /// Leaves this socket for the next, at once.
    fn change(&mut self, out: &mut Output) {
        self.is_changing = true;
        self.hang_up(HangUp::Changed, out);
    }

    /// A path with everything that the client says of itself.
    fn target(&self, path: &str, more: &[String]) -> String {
        let encode = super::event_stream::encode;
        let names: Vec<&str> = self.settings.channels.iter().map(|wanted| &*wanted.channel).collect();
        let mut parameters = vec![format!("client={}", encode(&self.plain.name))];
        if !self.proof.is_empty() {
            parameters.push(format!("session={}", encode(&self.proof)));
        }
        // Both forms mean the same.
        match names.len() % 2 {
            0 => parameters.push(format!("channels={}", encode(&names.join(",")))),
            _ => parameters.extend(names.iter().map(|name| format!("channel={}", encode(name)))),
        }
        parameters.extend(self.settings.token.as_ref().map(|token| format!("token={}", encode(token))));
        if !self.ids.is_empty() {
            parameters.push(format!("since={}", encode(&since(&self.ids))));
        }
        parameters.extend_from_slice(more);
        format!("{path}?{}", parameters.join("&"))
    }

    fn request(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.settings.host)
    }

    fn ask(&mut self, out: &mut Output) {
        self.asked = (!self.ids.is_empty()).then(|| self.ids.clone());
        let target = self.target("/poll", &[format!("wait={}", self.plain.wait_seconds)]);
        out.bytes.extend_from_slice(self.request(&target).as_bytes());
    }

    fn first_packet(&self) -> String {
        let channels: Vec<&str> = self.settings.channels.iter().map(|wanted| &*wanted.channel).collect();
        let mut packet = serde_json::json!({ "client": self.plain.name, "channels": channels });
        if let Some(token) = &self.settings.token {
            packet["token"] = token.clone().into();
        }
        if !self.proof.is_empty() {
            packet["session"] = self.proof.clone().into();
        }
        if !self.ids.is_empty() {
            packet["since"] = since(&self.ids).into();
        }
        format!("{packet}\n")
    }

    fn read(&mut self, now: Instant, bytes: &[u8], out: &mut Output) -> Result<(), String> {
        let mut input = bytes;
        while out.hang_up.is_none() && !input.is_empty() {
            match &mut self.carrier {
                Carrier::Idle => return Ok(()),
                Carrier::Told => return Err("bytes after the last words".into()),
                Carrier::WebSocket(_) => self.read_websocket(&mut input, out)?,
                Carrier::Tcp(held) => {
                    let Some(packet) = carriers::take_line(held, &mut input)? else { break };
                    match &*packet {
                        BEAT_ANSWER | PING_PACKET => out.events.push(Event::Beat),
                        object => self.handle_object(object, out)?,
                    }
                }
                Carrier::Events(inner) => {
                    inner.handle_bytes(now, input, out);
                    input = &[];
                    self.ids =
                        inner.positions().into_iter().map(|(c, (o, e))| (c, format!("{o}.{e}"))).collect();
                    for event in &out.events {
                        match event {
                            Event::Session { session, .. } => {
                                self.session.clone_from(session);
                                self.proof.clone_from(session);
                            }
                            Event::Connected { client } => {
                                self.client.clone_from(client);
                                self.is_welcome = true;
                            }
                            _ => {}
                        }
                    }
                }
                Carrier::Lines(lines) => {
                    lines.feed(&mut input);
                    self.read_lines(out)?;
                }
                Carrier::Poll(reader) => {
                    let Some((answer, keeps_alive)) = reader.poll(&mut input)? else { break };
                    match answer {
                        Answer::Refused(status) => self.refused(status, out),
                        Answer::Text(body) => self.handle_answer(&body, out)?,
                        Answer::Nothing | Answer::End => self.handle_silence(out)?,
                    }
                    if out.hang_up.is_none() {
                        match keeps_alive {
                            true => self.ask(out),
                            false => self.change(out),
                        }
                    }
                }
            }
        }
        if self.is_welcome && self.rung > 0 && self.climb_at.is_none() && out.hang_up.is_none() {
            self.climb_at = Some(
                now + Duration::from_secs(4) + Duration::from_secs(20).mul_f64(self.settings.rng.fraction()),
            );
        }
        Ok(())
    }

    fn read_lines(&mut self, out: &mut Output) -> Result<(), String> {
        while out.hang_up.is_none() {
            let Carrier::Lines(lines) = &mut self.carrier else { break };
            match lines.take()? {
                Some(Answer::Refused(status)) => self.refused(status, out),
                Some(Answer::Text(line)) if line.is_empty() => out.events.push(Event::Beat),
                Some(Answer::Text(line)) => self.handle_object(&line, out)?,
                Some(Answer::Nothing | Answer::End) => self.carrier = Carrier::Told,
                None => break,
            }
        }
        Ok(())
    }

    fn read_websocket(&mut self, input: &mut &[u8], out: &mut Output) -> Result<(), String> {
        use super::websocket::Incoming;
        let Carrier::WebSocket(link) = &mut self.carrier else { return Ok(()) };
        match link.poll(input, &mut out.bytes)? {
            None | Some(Incoming::Open) => {}
            Some(Incoming::Refused(status)) => self.refused(status, out),
            Some(Incoming::Message(object)) => {
                let text = std::str::from_utf8(&object).map_err(|error| error.to_string())?;
                self.handle_object(text, out)?;
            }
            Some(Incoming::Close { .. }) if self.is_leaving => self.hang_up(HangUp::Done, out),
            Some(Incoming::Close { code, reason }) => {
                let code = code.map_or(0, u32::from);
                out.events.push(Event::Told { code, text: reason });
                let is_final = matches!(code, 3500..4000 | 4500..5000);
                self.hang_up(HangUp::Told { code, reconnect: !is_final }, out);
            }
        }
        Ok(())
    }

    fn refused(&mut self, status: u16, out: &mut Output) {
        let code = status.into();
        out.events.push(Event::Refused { channel: None, code });
        // 409: a link that nobody has any more is still taken for one.
        let reconnect = matches!(status, 408 | 409 | 429 | 500..);
        self.hang_up(HangUp::Told { code, reconnect }, out);
    }

    fn say(&mut self, number: u64, data: &str, out: &mut Output) -> bool {
        if !self.is_welcome || self.is_leaving {
            return false;
        }
        let is_beside = self.settings.rng.fraction() < BESIDE;
        match &mut self.carrier {
            Carrier::WebSocket(link) if !is_beside => {
                if !link.is_open() {
                    return false;
                }
                link.send(data.as_bytes(), &mut out.bytes);
            }
            Carrier::Tcp(_) if !is_beside => out.bytes.extend_from_slice(format!("{data}\n").as_bytes()),
            Carrier::Told | Carrier::Idle => return false,
            _ if self.session.is_empty() => return false,
            _ => out.posts.push(Post {
                path: format!("/send?session={}", super::event_stream::encode(&self.session)),
                number: Some(number),
                body: data.as_bytes().to_vec(),
                content_type: "text/plain",
            }),
        }
        true
    }
}

/// Ids as a client returns with them, joined by commas.
fn since(ids: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> = ids.iter().map(|(channel, id)| format!("{channel}={id}")).collect();
    entries.join(",")
}
