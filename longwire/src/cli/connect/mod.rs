//! `longwire connect`: one connection to look at. What is typed goes out, what comes is shown, each with its time and direction.
//!
//! It logs in as the dialect does and answers its signs of life, and shows that, too; everything else is the user's. Standard input may
//! be a terminal, a pipe or a file: at its end, it waits for the answers that are due and for `--linger`, says goodbye and ends well. What must stay
//! true: what is shown is what was sent and received, but for secrets; what cannot be understood is not sent; it ends with the exit code of
//! what ended the connection.

mod log;
mod words;

use super::address::{Server, Spoken};
use super::connecting::{Connecting, duration};
use super::input::Lines;
use super::subscribe::Packets;
use super::{Failure, http, outcome};
use crate::env::Clock;
use bytes::Bytes;
use log::{Direction, Log};
use longwire_client::raw::{Event, Kind, Link, Speaks};
use longwire_client::stomp::cause_of_error;
use longwire_client::{Cause, Error, Scheme, Transition};
use longwire_protocol::plain::{Framer, Framing};
use longwire_protocol::stomp::Limits;
use longwire_protocol::stomp::decode::{Bounds, Decoder};
use serde_json::Value;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use words::{Centrifuge, Stomp, Typed};

/// How long the answers that are due are waited for at the end of the input.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a goodbye may take.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// Lines that may wait for a connection.
const MAX_WAITING_LINES: usize = 1024;

/// The longest packet.
const MAX_PACKET_BYTES: u32 = 16 << 20;

/// What `longwire connect` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// The server: any URL below. One with a path is asked for that path; `/ws`, `/sse`, `/stream` and `/poll` are the plain dialect.
    url: String,
    #[command(flatten)]
    connecting: Connecting,
    /// Do not log in: nothing is sent that was not typed.
    #[arg(long)]
    bare: bool,
    /// Come back when the connection breaks, log in and subscribe again.
    #[arg(long)]
    reconnect: bool,
    /// Print everything as JSON objects, one a line.
    #[arg(long)]
    json: bool,
    /// How long to stay after the end of the input.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = duration)]
    linger: Duration,
    /// tcp://: what ends a packet, or how its length is written.
    #[arg(long, value_enum, default_value_t = Packets::Line)]
    packets: Packets,
}

/// Connects, and shows it.
pub(super) fn connect(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::parse_argument(&arguments.url)?;
    let Connecting { attempts, give_up_after, .. } = &arguments.connecting;
    if !arguments.reconnect && (attempts.is_some() || give_up_after.is_some()) {
        return Err(Failure::Usage(
            "`--attempts` and `--give-up-after` go with `--reconnect`: without it there is one attempt"
                .to_owned(),
        ));
    }
    http::block_on(async {
        tokio::select! {
            biased;
            result = tokio::signal::ctrl_c() => Ok(result?),
            result = talk(&server, arguments) => result,
        }
    })
}

/// What is spoken on the link.
enum Dialect {
    Centrifuge(Centrifuge),
    Stomp {
        words: Box<Stomp>,
        decoder: Decoder,
        bounds: Bounds,
    },
    /// Messages as they are: a plain WebSocket, a stream, events.
    Plain,
    /// Like it, with a request for each answer.
    Poll {
        target: String,
    },
    Packets {
        framing: Framing,
        framer: Framer,
    },
}

impl Dialect {
    fn of(server: &Server, arguments: &Arguments) -> Dialect {
        let path = server.address.target.split('?').next().unwrap_or_default();
        let is_centrifuge = path.contains("/connection/") && !path.contains("/uni_");
        match (server.spoken, server.address.scheme) {
            (Spoken::Stomp, _) => Dialect::Stomp {
                words: Box::default(),
                decoder: Decoder::default(),
                bounds: Bounds::of(&Limits::default()),
            },
            (Spoken::Packets, _) => {
                let framing = arguments.packets.framing();
                Dialect::Packets { framing, framer: Framer::new(framing, MAX_PACKET_BYTES) }
            }
            (_, Scheme::WebSocket) if is_centrifuge || path == "/" => {
                Dialect::Centrifuge(Centrifuge::default())
            }
            (_, Scheme::Stream | Scheme::EventStream) if is_centrifuge => {
                Dialect::Centrifuge(Centrifuge::default())
            }
            (_, Scheme::Poll) => Dialect::Poll { target: target(server) },
            _ => Dialect::Plain,
        }
    }

    fn speaks(&self) -> Speaks {
        match self {
            Dialect::Centrifuge(_) => Speaks::Centrifuge,
            Dialect::Stomp { .. } => Speaks::Stomp,
            Dialect::Plain | Dialect::Poll { .. } | Dialect::Packets { .. } => Speaks::Plain,
        }
    }

    fn help(&self) -> &'static str {
        match self {
            Dialect::Centrifuge(_) => words::CENTRIFUGE_HELP,
            Dialect::Stomp { .. } => words::STOMP_HELP,
            _ => words::PLAIN_HELP,
        }
    }

    /// Whether everything that is answered was.
    fn is_idle(&self) -> bool {
        match self {
            Dialect::Centrifuge(words) => words.is_idle(),
            Dialect::Stomp { words, .. } => words.is_idle(),
            _ => true,
        }
    }
}

/// Path and query of a plain dialect's address; where the URL has no path, the transport's own.
fn target(server: &Server) -> String {
    let usual = match server.address.scheme {
        Scheme::Stream => "/stream",
        Scheme::EventStream => "/sse",
        Scheme::Poll => "/poll",
        _ => "/",
    };
    match server.address.target.strip_prefix("/?") {
        Some(query) => format!("{usual}?{query}"),
        None if server.address.target == "/" => usual.to_owned(),
        None => server.address.target.clone(),
    }
}

/// The token, where no command of the dialect says it; a header that was given stands for it.
fn bearer(connecting: &Connecting) -> Option<(String, String)> {
    let is_given = connecting.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let token = connecting.token.as_ref().filter(|_| !is_given)?;
    Some(("Authorization".to_owned(), format!("Bearer {token}")))
}

/// Until when a talk goes on behind the end of its input.
struct Ending {
    /// It lingers until then.
    linger_until: Instant,
    /// No answer is waited for any longer than that.
    answers_until: Instant,
}

impl Ending {
    fn after(now: Instant, linger: Duration) -> Ending {
        Ending { linger_until: now + linger, answers_until: now + ANSWER_LIMIT }
    }
}

/// A connection, and what is said over it.
struct Talk<'a> {
    server: &'a Server,
    arguments: &'a Arguments,
    link: Link,
    dialect: Dialect,
    log: Log,
    /// The server took the login.
    is_logged_in: bool,
    /// It was told that it did: what is typed is sent.
    is_connected: bool,
    /// There was a connection, once.
    was_connected: bool,
    /// How many lines could not be understood.
    wrong_lines: u32,
    /// What was typed before it could be sent.
    waiting: Vec<String>,
    /// Subscriptions to be made again.
    subscriptions: Vec<String>,
    /// What STOMP's ERROR said, which is why the connection ends, whichever end closes it first.
    said: Option<Cause>,
}

async fn talk(server: &Server, arguments: &Arguments) -> Result<(), Failure> {
    let clock = Clock::system();
    let mut options = arguments.connecting.options();
    options.reconnect.is_on = arguments.reconnect;
    let dialect = Dialect::of(server, arguments);
    if matches!(dialect, Dialect::Plain | Dialect::Poll { .. }) {
        options.headers.extend(bearer(&arguments.connecting));
    }
    let failed = |error: Error| outcome::failed_call(&server.shown(), &error);
    let link = Link::open(&server.url, dialect.speaks(), options).map_err(failed)?;
    let mut talk = Talk {
        server,
        arguments,
        link,
        dialect,
        log: Log::new(clock, arguments.json),
        is_logged_in: false,
        is_connected: false,
        was_connected: false,
        wrong_lines: 0,
        waiting: Vec::new(),
        subscriptions: Vec::new(),
        said: None,
    };
    let mut lines = Lines::of_stdin();
    let mut ending: Option<Ending> = None;
    loop {
        let end_at = ending.as_ref().map(|ending| talk.ends_at(ending));
        if end_at.is_some_and(|at| at <= clock.now()) {
            return match talk.is_connected {
                true => {
                    let wrong_lines = talk.wrong_lines;
                    talk.say_goodbye(&clock).await?;
                    judge(wrong_lines)
                }
                false => talk.give_up(),
            };
        }
        let ends = async {
            match end_at {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // A pipe may hold more than a server that is not there can take.
        let takes_lines = ending.is_none() && (talk.is_connected || talk.waiting.len() < MAX_WAITING_LINES);
        tokio::select! {
            biased;
            event = talk.link.next() => match event {
                Some(event) => talk.handle(event)?,
                None => return Ok(()),
            },
            line = lines.next(), if takes_lines => match line {
                Some(line) => {
                    if !talk.typed(line?)? {
                        if !talk.is_connected && talk.waiting.is_empty() {
                            return talk.log.flush();
                        }
                        ending = Some(Ending::after(clock.now(), Duration::ZERO));
                    }
                }
                None => ending = Some(Ending::after(clock.now(), arguments.linger)),
            },
            () = ends => {}
        }
        talk.log.flush()?;
    }
}

impl Talk<'_> {
    /// When the talk ends, as things stand.
    fn ends_at(&self, ending: &Ending) -> Instant {
        let is_done = self.waiting.is_empty() && self.is_connected && self.dialect.is_idle();
        if is_done { ending.linger_until } else { ending.answers_until.max(ending.linger_until) }
    }

    /// Ends without ever having had somebody to say goodbye to.
    fn give_up(mut self) -> Result<(), Failure> {
        self.log.flush()?;
        let (server, waited) = (self.server.shown(), ANSWER_LIMIT.as_secs());
        let lost = match self.waiting.len() {
            0 => String::new(),
            lines => format!("; {lines} lines were not sent"),
        };
        let what = format!("no connection within {waited} s from the end of the input{lost}");
        Err(Failure::Unreachable(format!("cannot reach {server}: {what}")))
    }

    /// Reads a line; whether more are wanted.
    fn typed(&mut self, line: String) -> Result<bool, Failure> {
        if matches!(line.trim(), "quit" | "exit") {
            return Ok(false);
        }
        if !self.is_connected {
            self.waiting.push(line);
            return Ok(true);
        }
        let typed = match &mut self.dialect {
            Dialect::Centrifuge(words) => words.typed(&line),
            Dialect::Stomp { words, .. } => words.typed(&line),
            Dialect::Plain | Dialect::Poll { .. } | Dialect::Packets { .. } => match line.as_str() {
                "" => Typed::Nothing,
                "help" => Typed::Help,
                line => Typed::Send(line.as_bytes().to_vec()),
            },
        };
        match typed {
            Typed::Nothing => {}
            Typed::Send(message) => {
                self.remember(line.trim());
                self.send(&message)?;
            }
            Typed::Help => self.log.note(self.dialect.help())?,
            Typed::Wrong(what) => {
                self.wrong_lines += 1;
                self.log.note(&format!("not sent: {what}"))?;
            }
        }
        Ok(true)
    }

    /// Keeps what makes a subscription, for the next connection.
    fn remember(&mut self, line: &str) {
        if !self.arguments.reconnect {
            return;
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = rest.split_whitespace().next().unwrap_or_default();
        let is_same = |known: &String| known.split_whitespace().nth(1) == Some(name);
        match word {
            "subscribe" if !self.subscriptions.iter().any(is_same) => {
                self.subscriptions.push(line.to_owned())
            }
            "unsubscribe" => self.subscriptions.retain(|known| !is_same(known)),
            _ => {}
        }
    }

    /// Sends a message in the dialect's carrier, and shows it.
    fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match &self.dialect {
            Dialect::Centrifuge(_) => {
                self.link.send(Kind::Text, message);
                self.log.sent(&words::shown_command(message))
            }
            Dialect::Stomp { .. } => {
                self.link.send(Kind::Text, message);
                self.log.sent(&words::shown_frame(message))
            }
            Dialect::Packets { framing, .. } => {
                let packet = framing.packet(message);
                self.link.send(Kind::Binary, &packet);
                self.log.data(Direction::Sent, message)
            }
            Dialect::Plain if self.server.address.scheme == Scheme::WebSocket => {
                self.link.send(Kind::Text, message);
                self.log.data(Direction::Sent, message)
            }
            Dialect::Plain | Dialect::Poll { .. } => {
                self.link.post(Kind::Text, message);
                self.log.data(Direction::Sent, message)
            }
        }
    }

    /// Takes what happened on the link.
    fn handle(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Transition(mut transition) => {
                self.explain(&mut transition);
                // How it ends is said once, by the command's own last line.
                if self.arguments.json || !matches!(transition, Transition::GaveUp { .. }) {
                    self.log.transition(&transition)?;
                }
                match &transition {
                    Transition::Disconnected { .. } => self.forget(),
                    Transition::Connected { .. } => return self.connected(),
                    _ => {}
                }
                if let Transition::GaveUp { cause, limit } = &transition {
                    // That it does not come back was the user's choice, and the cause says the rest.
                    let limit = Some(*limit).filter(|_| self.arguments.reconnect);
                    self.log.flush()?;
                    return Err(outcome::failure(&self.server.shown(), cause, limit, self.was_connected));
                }
                Ok(())
            }
            Event::Open { .. } => self.opened(),
            Event::Received { kind, name, data } => self.received(kind, name.as_deref(), data),
            // The type may grow.
            _ => Ok(()),
        }
    }

    /// Puts what the server said in the place of what its socket did then, and words in the place of a library's.
    fn explain(&mut self, transition: &mut Transition) {
        match transition {
            Transition::Disconnected { cause, .. } | Transition::GaveUp { cause, .. } => {
                if let Some(said) = &self.said
                    && matches!(cause, Cause::Ended | Cause::Reset | Cause::Broken(_))
                {
                    *cause = said.clone();
                }
                *cause = outcome::in_words(cause);
            }
            _ => self.said = None,
        }
    }

    fn forget(&mut self) {
        self.is_logged_in = false;
        self.is_connected = false;
        let framing = self.arguments.packets.framing();
        match &mut self.dialect {
            Dialect::Centrifuge(words) => words.reset(),
            Dialect::Stomp { words, decoder, .. } => {
                words.reset();
                *decoder = Decoder::default();
            }
            Dialect::Packets { framer, .. } => *framer = Framer::new(framing, MAX_PACKET_BYTES),
            Dialect::Plain | Dialect::Poll { .. } => {}
        }
    }

    fn opened(&mut self) -> Result<(), Failure> {
        let connecting = &self.arguments.connecting;
        let login = match &mut self.dialect {
            Dialect::Centrifuge(_) | Dialect::Stomp { .. } if self.arguments.bare => None,
            Dialect::Centrifuge(words) => Some(words.login(connecting.token.as_deref())),
            Dialect::Stomp { words, .. } => {
                let address = &self.server.address;
                let (user, passcode) = connecting
                    .credentials(address)
                    .unwrap_or_else(|| (address.user.clone(), address.password.clone()));
                Some(words.login(&address.virtual_host(), &user, &passcode, &connecting.headers))
            }
            Dialect::Plain if self.server.address.scheme != Scheme::WebSocket => {
                let target = target(self.server);
                self.link.send(Kind::Text, target.as_bytes());
                // Without a welcome there is no session to send by, and nothing to wait for.
                return if target.contains("format=bare") { self.logged_in("", "") } else { Ok(()) };
            }
            Dialect::Poll { target } => {
                self.link.send(Kind::Text, target.as_bytes());
                return Ok(());
            }
            Dialect::Plain | Dialect::Packets { .. } => None,
        };
        match login {
            Some(login) => self.send(&login),
            None => self.logged_in("", ""),
        }
    }

    fn logged_in(&mut self, session: &str, node: &str) -> Result<(), Failure> {
        self.link.logged_in(session, node);
        self.is_logged_in = true;
        Ok(())
    }

    /// Sends what waited for a connection.
    fn connected(&mut self) -> Result<(), Failure> {
        (self.is_connected, self.was_connected) = (true, true);
        for line in self.subscriptions.clone().into_iter().chain(std::mem::take(&mut self.waiting)) {
            self.typed(line)?;
        }
        Ok(())
    }

    fn received(&mut self, kind: Kind, name: Option<&str>, data: Bytes) -> Result<(), Failure> {
        match &mut self.dialect {
            Dialect::Centrifuge(words) => {
                let text = String::from_utf8_lossy(&data).into_owned();
                // A message may hold several replies and pushes, a line each.
                for line in text.lines().filter(|line| !line.is_empty()) {
                    self.log.received(line)?;
                }
                let pong = words.received(&text);
                if let Some(pong) = pong {
                    self.send(&pong)?;
                }
                if !self.is_logged_in
                    && let Some(connected) = text.lines().find_map(connect_reply)
                {
                    let of = |name: &str| connected[name].as_str().unwrap_or_default().to_owned();
                    self.logged_in(&of("session"), &of("node"))?;
                }
                Ok(())
            }
            Dialect::Stomp { .. } => self.received_of_stomp(&data),
            Dialect::Packets { framer, .. } => {
                let mut input = &data[..];
                let mut packets = Vec::new();
                let broken = loop {
                    match framer.decode(&mut input) {
                        Ok(Some(packet)) => packets.push(packet),
                        Ok(None) => break None,
                        Err(violation) => break Some(violation.what),
                    }
                };
                for packet in packets {
                    self.log.data(Direction::Received, &packet)?;
                }
                if let Some(what) = broken {
                    self.link.fail(Cause::Protocol(what.to_owned()));
                }
                Ok(())
            }
            Dialect::Plain => {
                self.log.named(name, kind, &data)?;
                self.welcome(&data)
            }
            Dialect::Poll { .. } => {
                if !data.is_empty() {
                    self.log.data(Direction::Received, &data)?;
                }
                self.welcome(&data)?;
                self.poll_again(&data);
                Ok(())
            }
        }
    }

    fn received_of_stomp(&mut self, data: &[u8]) -> Result<(), Failure> {
        let Dialect::Stomp { words, decoder, bounds } = &mut self.dialect else { return Ok(()) };
        let mut input = data;
        let (mut is_connected, mut broken, mut refused) = (false, None, None);
        loop {
            match decoder.decode(&mut input, bounds) {
                Ok(Some(frame)) => {
                    is_connected |= frame.command() == "CONNECTED";
                    // Nothing is certain behind it, and not every broker ends the connection by itself.
                    if frame.command() == "ERROR" && !self.arguments.bare {
                        refused = Some(cause_of_error(&frame, self.is_logged_in.then(|| words.version())));
                    }
                    self.log.received(&words.received(&frame))?;
                }
                Ok(None) => break,
                Err(violation) => {
                    broken = Some(violation.what);
                    break;
                }
            }
        }
        if let Some(what) = broken {
            self.link.fail(Cause::Protocol(what.to_owned()));
        } else if let Some(cause) = refused {
            self.link.fail(cause.clone());
            self.said = Some(cause);
        } else if is_connected && !self.is_logged_in {
            self.logged_in("", "")?;
        }
        Ok(())
    }

    /// Takes the first that comes of the plain dialect as its welcome. Any may have a name of the session, by which messages
    /// are posted.
    fn welcome(&mut self, data: &[u8]) -> Result<(), Failure> {
        let welcome: Value = serde_json::from_slice(data).unwrap_or_default();
        let session = welcome["session"].as_str();
        match session {
            Some(session) if self.is_logged_in => self.link.set_session(session),
            _ if self.is_logged_in => {}
            _ => return self.logged_in(session.unwrap_or_default(), ""),
        }
        Ok(())
    }

    /// Asks for the next answer, from where the last one says.
    fn poll_again(&mut self, answer: &[u8]) {
        let Dialect::Poll { target } = &mut self.dialect else { return };
        *target = next_target(target, &serde_json::from_slice(answer).unwrap_or_default());
        self.link.send(Kind::Text, target.as_bytes());
    }

    /// Ends the connection as the dialect does, and waits until it has ended.
    async fn say_goodbye(mut self, clock: &Clock) -> Result<(), Failure> {
        let limit = clock.now() + GOODBYE_LIMIT;
        if self.is_connected
            && let Dialect::Stomp { words, .. } = &mut self.dialect
        {
            let goodbye = words.goodbye();
            self.send(&goodbye)?;
            while !self.dialect.is_idle() {
                let left = limit.saturating_duration_since(clock.now());
                match clock.timeout(left, self.link.next()).await {
                    Some(Some(event @ Event::Received { .. })) => self.handle(event)?,
                    Some(Some(Event::Transition(transition))) => {
                        self.log.transition(&transition)?;
                        break;
                    }
                    Some(Some(_)) => {}
                    Some(None) | None => break,
                }
            }
        }
        self.link.leave();
        // Whoever was told goodbye may end the connection: that is no other news.
        while let Some(Some(_)) =
            clock.timeout(limit.saturating_duration_since(clock.now()), self.link.next()).await
        {}
        self.log.transition(&Transition::Closed)?;
        self.log.flush()
    }
}

/// How it ends when the input did: a script cannot type a wrong line again.
fn judge(wrong_lines: u32) -> Result<(), Failure> {
    match wrong_lines {
        1.. if !std::io::stdin().is_terminal() => {
            let plural = if wrong_lines == 1 { " was" } else { "s were" };
            Err(Failure::Failed(format!(
                "{wrong_lines} line{plural} not sent, for the reason that is shown there"
            )))
        }
        _ => Ok(()),
    }
}

/// What is asked for after an answer: the same, from where it says, as who it says.
fn next_target(target: &str, answer: &Value) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut url = reqwest::Url::parse("http://x/").expect("a constant URL");
    url.set_query(Some(query));
    let said: Vec<(&str, &str)> = [("since", "since"), ("session", "session"), ("client", "name")]
        .into_iter()
        .filter_map(|(parameter, member)| Some((parameter, answer[member].as_str()?)))
        .collect();
    let mut all: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    all.retain(|(name, _)| !said.iter().any(|(said, _)| said == name));
    all.extend(said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    url.query_pairs_mut().clear().extend_pairs(all);
    format!("{path}?{}", url.query().unwrap_or_default())
}

/// What a connect reply says, if the line is one.
fn connect_reply(line: &str) -> Option<Value> {
    let mut reply: Value = serde_json::from_str(line).ok()?;
    Some(reply.get_mut("connect")?.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_which_dialect_a_websocket_has() {
        let of = |url: &str| {
            let server = Server::parse(url).unwrap();
            Speaks::clone(&Dialect::of(&server, &arguments(url)).speaks())
        };
        for (url, speaks) in [
            ("ws://h", Speaks::Centrifuge),
            ("ws://h/connection/websocket", Speaks::Centrifuge),
            ("ws://h/ws?channels=news", Speaks::Plain),
            ("ws://h/connection/uni_websocket", Speaks::Plain),
            ("sse+http://h/connection/sse", Speaks::Centrifuge),
            ("sse+http://h/sse?channels=news", Speaks::Plain),
            ("http://h", Speaks::Plain),
            ("stomp://h", Speaks::Stomp),
            ("stomp+ws://h/ws", Speaks::Stomp),
            ("tcp://h:1", Speaks::Plain),
        ] {
            assert_eq!(of(url), speaks, "{url}");
        }
    }

    fn arguments(url: &str) -> Arguments {
        #[derive(clap::Parser)]
        struct Parsed {
            #[command(flatten)]
            arguments: Arguments,
        }
        <Parsed as clap::Parser>::parse_from(["connect", url]).arguments
    }

    #[test]
    fn a_token_goes_into_a_header_unless_there_is_one() {
        let mut connecting = arguments("http://h").connecting;
        assert_eq!(bearer(&connecting), None);
        connecting.token = Some("T".to_owned());
        assert_eq!(bearer(&connecting), Some(("Authorization".to_owned(), "Bearer T".to_owned())));
        connecting.headers.push(("authorization".to_owned(), "Basic x".to_owned()));
        assert_eq!(bearer(&connecting), None);
    }

    #[test]
    fn a_url_without_a_path_has_the_transports_own() {
        for (url, expected) in [
            ("sse+http://h/?channels=a", "/sse?channels=a"),
            ("stream+http://h", "/stream"),
            ("poll+http://h/live/poll?x=1", "/live/poll?x=1"),
        ] {
            assert_eq!(target(&Server::parse(url).unwrap()), expected);
        }
    }

    #[test]
    fn a_poll_goes_on_where_the_answer_says() {
        let answer =
            serde_json::json!({"since": "a=2.x,=1.y", "session": "s 1", "name": "p1", "channels": {}});
        let next = next_target("/poll?channels=a,b&since=a%3D1.x&wait=5", &answer);
        assert_eq!(next, "/poll?channels=a%2Cb&wait=5&since=a%3D2.x%2C%3D1.y&session=s+1&client=p1");
        assert_eq!(next_target("/poll?channels=a", &Value::Null), "/poll?channels=a");
    }

    #[test]
    fn a_connect_reply_is_told_from_the_others() {
        let reply = connect_reply(r#"{"id":1,"connect":{"session":"s","node":"n"}}"#).unwrap();
        assert_eq!((&reply["session"], &reply["node"]), (&"s".into(), &"n".into()));
        assert!(connect_reply(r#"{"id":2,"subscribe":{}}"#).is_none());
        assert!(connect_reply("{}").is_none());
    }
}
