//! `longwire doctor`: what the way to a server does to long connections, seen from here.
//!
//! `plan` says what a URL asks for, `way` walks there, `http`, `upgrade`, `stomp`, `streams` and `idle` each look at one
//! thing and fill in their part of `seen`; `verdict` is a pure function of that, and `report` prints both. The dialler
//! is `env::net::dial`. What must stay true: a run has an end that the user sets, and Ctrl-C brings the verdict on what
//! is known by then; nothing is published, sent to others, or left behind; the server may be anybody's.

mod certificate;
mod http;
mod idle;
mod line;
mod plan;
mod proxy;
mod report;
mod seen;
mod stomp;
mod streams;
mod upgrade;
mod verdict;
mod way;
mod websocket;

use self::idle::{Ask, On};
use self::plan::Plan;
use self::report::Stage;
use self::seen::{Kept, Quiet, Seen, Stream};
use self::stomp::{NoLogin, Who};
use self::upgrade::Open;
use self::verdict::Weight;
pub(super) use self::way::doubt;
use self::way::{Destination, Way};
use super::screen::columns_of;
use super::{Failure, print};
use crate::config::parse_duration;
use crate::env::net::dial::Trust;
use crate::env::{Clock, Rng, disk};
use longwire_client::{Address, Tls};
use std::cell::{Cell, RefCell};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// What requests call their sender.
const AGENT: &str = concat!("longwire-doctor/", env!("CARGO_PKG_VERSION"));

/// How long streams are watched at least, unless they showed before what they do.
const STREAM_TIME: Duration = Duration::from_secs(8);

/// How often it is looked whether the long part is over, and how far it is.
const TICK: Duration = Duration::from_millis(200);

/// The longest message that may be tried.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// What `longwire doctor` takes.
#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// What to look at: a host, or a URL of ws, wss, http, https, sse+http(s), stream+http(s), stomp, stomps, stomp+ws,
    /// stomp+wss, tcp or tls. Without a path: all that longwire serves there.
    #[arg(value_name = "URL")]
    url: String,
    /// A connection token, where the server wants one.
    #[arg(long, env = "LONGWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Trust the certificates in this file (PEM), too: your own authority's, or the server's own.
    #[arg(long, value_name = "FILE", value_parser = trusted)]
    ca: Option<Trust>,
    /// The longest silence that is tried, and so how long a run takes at most.
    #[arg(long, default_value = "90s", value_name = "DURATION", value_parser = duration)]
    max_idle: Duration,
    /// How long one step may take: a connection, an answer.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
    /// The longest message that is tried, in bytes.
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", value_parser = message_size)]
    max_message: usize,
    /// Print one JSON object at the end, and nothing else.
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    match parse_duration(text) {
        Some(duration) if duration.is_zero() => Err("must be longer than zero".to_owned()),
        Some(duration) if duration > LONGEST => Err("must be no longer than a day".to_owned()),
        Some(duration) => Ok(duration),
        None => Err("must be a duration such as 90s or 10m".to_owned()),
    }
}

fn trusted(path: &str) -> Result<Trust, String> {
    let pem = disk::read_to_string(Path::new(path)).map_err(|error| error.to_string())?;
    let verifier = Tls::verifier(pem.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Trust::of(verifier))
}

fn message_size(text: &str) -> Result<usize, String> {
    let size: usize = text.parse().map_err(|_| "must be a number of bytes".to_owned())?;
    if size == 0 || size > MAX_MESSAGE_BYTES {
        return Err(format!("must be between 1 and {MAX_MESSAGE_BYTES}"));
    }
    Ok(size)
}

/// Looks, and says what was found. Faults are a failure, so that scripts see them.
pub(super) fn doctor(arguments: &Arguments) -> Result<(), Failure> {
    let address = plan::address_of(&arguments.url)?;
    let plan = Plan::of(&address)?;
    let seen = RefCell::new(Seen {
        url: shown(&address),
        host: address.host.clone(),
        port: address.port,
        is_encrypted: address.is_encrypted,
        ..Seen::default()
    });
    let screen = Screen::new(arguments.json);
    screen.print(&format!("longwire doctor {}\n\n", seen.borrow().url))?;
    super::http::block_on(async {
        let clock = Clock::system();
        let begun = clock.now();
        let long = Long::default();
        let run = examine(&address, &plan, arguments, clock, &seen, &long, &screen);
        let stopped = tokio::select! {
            biased;
            result = tokio::signal::ctrl_c() => {
                result?;
                true
            }
            result = run => {
                result?;
                false
            }
        };
        let mut seen = seen.borrow_mut();
        if stopped {
            seen.stopped_after_s = Some((clock.now() - begun).as_secs_f64());
        }
        long.settle(&mut seen, clock);
        Ok(())
    })?;
    conclude(&seen.borrow(), &plan, arguments, &screen)
}

/// The URL as it may be shown.
fn shown(address: &Address) -> String {
    let target = if address.target == "/" { "/" } else { address.target.split('?').next().unwrap_or("/") };
    super::printable(&format!("{}://{}{target}", address.scheme_name(), address.authority()))
}

/// Prints what is left to print, and says by the exit code how it stands.
fn conclude(seen: &Seen, plan: &Plan, arguments: &Arguments, screen: &Screen) -> Result<(), Failure> {
    let findings = verdict::verdict(seen);
    screen.clear();
    if arguments.json {
        print(&report::json(seen, &findings))?;
    } else {
        screen.rows(seen, plan, Stage::Waited)?;
        if let Some(after) = seen.stopped_after_s {
            screen
                .print(&format!("\nStopped after {after:.0} s; what follows is what was known by then.\n"))?;
        }
        screen.print(&format!("\n{}", report::verdict(&findings, screen.width())))?;
    }
    let Some(worst) = findings.iter().min_by_key(|finding| finding.weight) else { return Ok(()) };
    // The report says what they are.
    let of_weight = findings.iter().filter(|finding| finding.weight == worst.weight);
    let names = of_weight.map(|finding| finding.name).collect::<Vec<_>>().join(", ");
    match worst.weight {
        Weight::Unreachable => Err(Failure::Unreachable(format!("cannot be reached: {names}"))),
        Weight::Refused => Err(Failure::Refused(format!("refused: {names}"))),
        Weight::Fault => Err(Failure::Failed(format!("to be changed: {names}"))),
        Weight::Note => Ok(()),
    }
}

/// What is still being seen while the long part runs.
#[derive(Default)]
struct Long {
    /// When it began.
    begun: Cell<Option<Instant>>,
    /// One for each stream that a plan can have.
    slots: [RefCell<Stream>; 2],
    kept: RefCell<Kept>,
    quiet: RefCell<Quiet>,
}

impl Long {
    /// Moves what was seen to where it belongs.
    fn settle(&self, seen: &mut Seen, clock: Clock) {
        let Some(begun) = self.begun.get() else { return };
        let gone_s = (clock.now() - begun).as_secs_f64();
        let streams = self.slots.iter().map(|slot| slot.borrow().clone());
        seen.streams = streams.filter(|stream| !stream.path.is_empty()).collect();
        let mut kept = self.kept.borrow().clone();
        if kept.end.is_none() {
            kept.watched_s = gone_s;
        }
        seen.kept = Some(kept).filter(|kept| !kept.path.is_empty());
        let mut quiet = self.quiet.borrow().clone();
        idle::give_up(&mut quiet, gone_s);
        seen.quiet = Some(quiet).filter(|quiet| !quiet.on.is_empty() || quiet.error.is_some());
    }
}

/// All of it, the short part first.
async fn examine(
    address: &Address,
    plan: &Plan,
    arguments: &Arguments,
    clock: Clock,
    cell: &RefCell<Seen>,
    long: &Long,
    screen: &Screen,
) -> Result<(), Failure> {
    let destination = Destination {
        host: &address.host,
        port: address.port,
        authority: address.authority(),
        is_encrypted: address.is_encrypted,
        is_http: plan.is_http,
        limit: arguments.timeout,
        trust: arguments.ca.as_ref(),
    };
    // What is seen is filled in here and handed over after each step, so that Ctrl-C finds it.
    let mut seen = cell.borrow().clone();
    screen.doing("dialling");
    let way = way::reach(&destination, clock, Rng::system().fork("doctor"), &mut seen).await;
    cell.replace(seen.clone());
    screen.rows(&seen, plan, Stage::Reached)?;
    let Some(way) = way else { return Ok(()) };
    let host = address.virtual_host();
    let who = Who::of(&way, address, &host, arguments);

    let mut open = None;
    if plan.is_http {
        screen.doing("asking");
        http::look(&way, &plan.prefix, &mut seen).await;
        cell.replace(seen.clone());
        if seen.http.as_ref().is_none_or(|answer| answer.status.is_none()) {
            return Ok(());
        }
        seen.http2 = Some(http::http2(&way, address.is_encrypted).await);
        if !plan.websockets.is_empty() {
            screen.doing("asking for a WebSocket");
            open = upgrade::look(&way, plan, arguments, &mut seen).await;
            cell.replace(seen.clone());
        }
    }
    let on = match &mut open {
        Some(open) => look_at_websocket(&way, plan, arguments, who, open, &mut seen, screen).await,
        None => without_websocket(&way, plan, who, &mut seen).await,
    };
    if let Some(uplink) = plan.uplink.as_deref() {
        screen.doing("announcing bodies");
        http::body_limit(&way, uplink, &mut seen).await;
    }
    cell.replace(seen.clone());
    screen.rows(&seen, plan, Stage::Asked)?;

    // A ping without an answer was followed by a close.
    let open = open.filter(|_| seen.ping.as_ref().is_some_and(|ping| ping.ms.is_some()));
    let open = match plan.subprotocols {
        [] => open,
        // Nobody logged in on it.
        _ => None,
    };
    wait(&way, plan, arguments, who, open, on, long, screen).await;
    Ok(())
}

/// What an open WebSocket tells at once, and on what to be silent; or why that is not possible.
async fn look_at_websocket(
    way: &Way,
    plan: &Plan,
    arguments: &Arguments,
    who: Who<'_>,
    open: &mut Open,
    seen: &mut Seen,
    screen: &Screen,
) -> Result<On, String> {
    screen.doing("pinging");
    let answers_pings = upgrade::ping(way, open, seen).await;
    if answers_pings {
        screen.doing("finding the longest message");
        upgrade::message_limit(way, plan, &open.path, arguments, seen).await;
    }
    if !plan.subprotocols.is_empty() {
        return stomp_or_why(way, plan, who, seen, true).await;
    }
    let login = seen.login.as_ref();
    // A login that is wanted and does not come is what ends the connection, not its silence.
    let is_known = login.is_some() || plan::is_centrifuge(&open.path);
    let is_beaten = login.is_some_and(|login| login.dialect == "plain" || login.beat_s.is_some());
    let is_refused = login.is_some_and(|login| login.error.is_some());
    if is_known {
        return stomp_or_why(way, plan, who, seen, false).await.map_err(|error| {
            match (is_refused, is_beaten) {
                (true, _) => "nobody is let in without a login".to_owned(),
                (_, true) => {
                    format!("the server beats, and no other connection can be silent (STOMP: {error})")
                }
                _ => format!("no connection can be silent (STOMP: {error})"),
            }
        });
    }
    let ask = match &seen.ping {
        Some(ping) if ping.ms.is_some() => Some(Ask::Ping),
        Some(ping) if ping.is_close_answered == Some(true) => Some(Ask::Close),
        _ => None,
    };
    Ok(On::WebSocket { path: open.path.clone(), subprotocols: plan.subprotocols, ask })
}

/// On what to be silent where there is no WebSocket.
async fn without_websocket(way: &Way, plan: &Plan, who: Who<'_>, seen: &mut Seen) -> Result<On, String> {
    match plan {
        Plan { is_http: false, stomp: None, .. } => Ok(On::Tcp),
        Plan { is_http: false, .. } => stomp_or_why(way, plan, who, seen, true).await,
        _ => Err(String::new()),
    }
}

/// STOMP, if it lets us in. `is_asked_for` says that the URL names it, so that its login is worth a row.
async fn stomp_or_why(
    way: &Way,
    plan: &Plan,
    who: Who<'_>,
    seen: &mut Seen,
    is_asked_for: bool,
) -> Result<On, String> {
    let Some(at) = &plan.stomp else { return Err("none is spoken here".to_owned()) };
    match stomp::connect(way, at, who, 0).await {
        Ok((mut stomp, login)) => {
            let begun = way.clock.now();
            let answered = stomp.ask(way.deadline()).await;
            if is_asked_for {
                seen.login = Some(login);
                if plan.websockets.is_empty() {
                    let ms = answered.is_ok().then(|| milliseconds(way.clock.now() - begun));
                    let waited_s = (way.clock.now() - begun).as_secs_f64();
                    seen.ping = Some(seen::PingSeen { ms, waited_s, is_close_answered: None });
                }
            }
            Ok(On::Stomp(at.clone()))
        }
        Err(NoLogin { text, is_refusal }) => {
            if is_asked_for {
                let error = Some(text.clone());
                seen.login =
                    Some(seen::Login { dialect: "stomp", error, is_refusal, ..seen::Login::default() });
            }
            Err(text)
        }
    }
}

/// The long part: silent connections, one that is kept, and streams, all at the same time.
#[expect(clippy::too_many_arguments, reason = "each is one thing that the parts share")]
async fn wait(
    way: &Way,
    plan: &Plan,
    arguments: &Arguments,
    who: Who<'_>,
    open: Option<Open>,
    on: Result<On, String>,
    long: &Long,
    screen: &Screen,
) {
    let max = arguments.max_idle;
    let begun = way.clock.now();
    long.begun.set(Some(begun));
    let is_quiet_over = Cell::new(false);
    let has_kept = open.is_some();
    let mut parts: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::new();
    for (at, slot) in plan.streams.iter().zip(&long.slots) {
        parts.push(Box::pin(streams::watch(way, at, plan.uplink.as_deref(), arguments, slot)));
    }
    match (open, &on) {
        (Some(open), _) => parts.push(Box::pin(idle::keep(way, open, &long.kept))),
        (None, Ok(On::Stomp(at))) => parts.push(Box::pin(idle::keep_stomp(way, at, who, &long.kept))),
        _ => {}
    }
    match &on {
        Ok(on) => {
            let is_over = &is_quiet_over;
            parts.push(Box::pin(async move {
                idle::quiet(way, on, who, max, &long.quiet).await;
                is_over.set(true);
            }));
        }
        Err(error) => {
            long.quiet.borrow_mut().error = Some(error.clone()).filter(|error| !error.is_empty());
            // Without a silence to wait for, the other parts are watched for as long.
            if plan.streams.is_empty() && !has_kept {
                return;
            }
        }
    }
    let watching = async {
        loop {
            way.clock.sleep(TICK).await;
            let gone = way.clock.now() - begun;
            let streams = long.slots.iter().take(plan.streams.len());
            let are_decided = streams.clone().all(|slot| streams::is_decided(&slot.borrow()));
            let have_ended =
                streams.clone().all(|slot| slot.borrow().end.is_some() || is_refused(&slot.borrow()));
            let is_over = match on {
                Ok(_) => is_quiet_over.get() && (are_decided || gone >= STREAM_TIME),
                Err(_) => gone >= max || have_ended && (!has_kept || long.kept.borrow().end.is_some()),
            };
            if is_over {
                break;
            }
            let lasting =
                long.quiet.borrow().lines.iter().filter(|line| line.outcome == seen::Silence::Lasts).count();
            screen.doing(&format!(
                "being silent: {} of at most {} s, {lasting} connections last; Ctrl-C for the verdict",
                gone.as_secs(),
                max.as_secs().max(1)
            ));
        }
    };
    tokio::select! {
        biased;
        () = watching => {}
        // All have ended by themselves.
        () = idle::together(parts) => {}
    }
}

fn is_refused(stream: &Stream) -> bool {
    stream.status.is_some_and(|status| status != 200)
}

/// Where rows and progress go.
struct Screen {
    /// Nothing but the object at the end is to be printed.
    is_json: bool,
    /// Somebody sees what is being done.
    is_watched: bool,
    /// The report goes to a terminal.
    is_read: bool,
    printed: Cell<usize>,
    doing: RefCell<String>,
}

impl Screen {
    fn new(is_json: bool) -> Screen {
        Screen {
            is_json,
            is_watched: std::io::stderr().is_terminal(),
            is_read: std::io::stdout().is_terminal(),
            printed: Cell::new(0),
            doing: RefCell::new(String::new()),
        }
    }

    /// How far text goes before it is broken: as far as it can be read well, and as the terminal goes.
    fn width(&self) -> usize {
        let terminal = if self.is_read { columns_of(std::io::stdout()) } else { None };
        terminal.unwrap_or(report::WIDTH).clamp(report::LEAST_WIDTH, report::WIDTH)
    }

    fn print(&self, text: &str) -> Result<(), Failure> {
        self.clear();
        if self.is_json { Ok(()) } else { print(text) }
    }

    /// Prints the rows that are certain and were not printed.
    fn rows(&self, seen: &Seen, plan: &Plan, stage: Stage) -> Result<(), Failure> {
        let rows = report::rows(seen, plan, stage);
        let width = self.width();
        let fresh = rows.iter().skip(self.printed.replace(rows.len())).map(|row| report::line(row, width));
        self.print(&fresh.collect::<String>())
    }

    /// Says what is being done, in a line that the next one replaces.
    fn doing(&self, what: &str) {
        if !self.is_watched || *self.doing.borrow() == what {
            return;
        }
        what.clone_into(&mut self.doing.borrow_mut());
        let mut error = std::io::stderr().lock();
        // Nobody loses anything by not seeing it.
        let room = columns_of(&error).unwrap_or(report::WIDTH).saturating_sub(7);
        let what: String = what.chars().take(room).collect();
        let _ = write!(error, "\r\x1b[K  ... {what}").and_then(|()| error.flush());
    }

    fn clear(&self) {
        if self.is_watched && !self.doing.borrow().is_empty() {
            self.doing.borrow_mut().clear();
            let mut error = std::io::stderr().lock();
            let _ = write!(error, "\r\x1b[K").and_then(|()| error.flush());
        }
    }
}

/// Milliseconds with one digit behind the point.
fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The text of a line, without what ends it.
fn text_of(text: &str) -> String {
    text.trim_end_matches(['\r', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_bounded() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["0s", "x", "25h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(message_size("1048576"), Ok(1 << 20));
        for bad in ["0", "-1", "1e9", "67108865"] {
            assert!(message_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let shown = |url| shown(&plan::address_of(url).unwrap());
        assert_eq!(shown("stomp://user:password@a.example"), "stomp://a.example:61613/");
        assert_eq!(shown("wss://a.example/ws?token=secret"), "wss://a.example:443/ws");
    }
}
