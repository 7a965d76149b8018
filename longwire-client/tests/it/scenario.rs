//! Fifty breaks of clients that are at work, written down in `scenario.txt` (and one of each kind in `short.txt`), and what
//! must hold after each and at the end.
//!
//! The clients are somebody else's: whoever runs a scenario has them write down what they do in a [`Ledger`]: numbers
//! that were sent, confirmed and received, and every transition. After each break every client must have named a cause
//! of [`Break::causes`], must have come back, and something sent after that must have been confirmed and received. At the
//! end every confirmed number was received, or lies in a gap that was announced. What must stay true: a break that
//! nobody made fails the run, just as one that nobody noticed.

use crate::harness::{LIMIT, comes_true, until};
use crate::order::Order;
use crate::proxy::{Fault, Proxy};
use crate::servers::{Kind, Server};
use longwire_client::stomp::Confirmed;
use longwire_client::{Error, Transition};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const TEXT: &str = include_str!("scenario.txt");
const SHORT: &str = include_str!("short.txt");

/// One line of the scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Break {
    /// A fault of the connections that exist, and of nothing else.
    Of(Fault),
    /// As [`Fault::Vanish`] for longer than the heartbeat's limit; what was held back then arrives after all, on
    /// connections that their client has left.
    Stall(Duration),
    /// The same for so short a time that nobody may notice: no break.
    Pause(Duration),
    /// Connections are reset and nobody listens for a while.
    Refuse(Duration),
    /// The server is killed when it has read all that was said to it, and nobody listens until it has started again.
    Kill,
    /// The server is killed whatever it is doing, and nobody listens until it has started again.
    Crash,
    /// The server is stopped as an operator would, and nobody listens until it has started again.
    Stop,
}

impl Break {
    /// The causes, by name, of which a client that was connected names one.
    ///
    /// There is one, but for a crash: the kernel ends the connections of a process that has died, with an end where
    /// the process had read everything and with a reset where it had not, and either is the truth. A server that hears
    /// nothing of a client ends the connection, longwire with a reset (nobody may be there to read a farewell), the
    /// brokers with an end.
    pub(crate) fn causes(self, server: Kind) -> &'static [&'static str] {
        match (self, server) {
            (Break::Of(Fault::Reset) | Break::Refuse(_), _) => &["reset"],
            (Break::Of(Fault::Close | Fault::CutDown | Fault::CutUp), _) => &["ended"],
            (Break::Of(Fault::Vanish | Fault::HoldDown) | Break::Stall(_), _) => &["silent"],
            (Break::Of(Fault::HoldUp), Kind::Longwire) => &["reset"],
            (Break::Of(Fault::HoldUp), _) => &["ended"],
            (Break::Kill, _) => &["ended"],
            (Break::Crash, _) => &["ended", "reset"],
            (Break::Stop, Kind::Longwire) => &["told"],
            (Break::Stop, _) => &["ended"],
            (Break::Pause(_), _) => &[],
        }
    }

    /// The causes, by name, that attempts may fail for until the client is back.
    fn causes_of_attempts(self) -> &'static [&'static str] {
        match self {
            Break::Refuse(_) | Break::Kill | Break::Crash | Break::Stop => &["refused"],
            _ => &[],
        }
    }

    /// What it is called in the file.
    fn parse(word: &str, duration: Option<Duration>) -> Option<Break> {
        Some(match (word, duration) {
            ("reset", None) => Break::Of(Fault::Reset),
            ("close", None) => Break::Of(Fault::Close),
            ("cut-down", None) => Break::Of(Fault::CutDown),
            ("cut-up", None) => Break::Of(Fault::CutUp),
            ("vanish", None) => Break::Of(Fault::Vanish),
            ("deaf", None) => Break::Of(Fault::HoldDown),
            ("mute", None) => Break::Of(Fault::HoldUp),
            ("stall", Some(duration)) => Break::Stall(duration),
            ("pause", Some(duration)) => Break::Pause(duration),
            ("refuse", Some(duration)) => Break::Refuse(duration),
            ("kill", None) => Break::Kill,
            ("crash", None) => Break::Crash,
            ("stop", None) => Break::Stop,
            _ => return None,
        })
    }
}

/// Reads a scenario; a line that makes no sense is a mistake in the file.
pub(crate) fn parse(text: &str) -> Vec<Break> {
    let mut breaks = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (what, times) = line.split_once('*').map_or((line, 1), |(what, times)| {
            (what, times.trim().parse().unwrap_or_else(|_| panic!("no number of times in {line:?}")))
        });
        let mut words = what.split_whitespace();
        let word = words.next().unwrap_or_else(|| panic!("nothing in {line:?}"));
        let duration = words.next().map(|text| {
            let (number, unit) =
                text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
            let number = number.parse().unwrap_or_else(|_| panic!("no duration in {line:?}"));
            match unit {
                "s" => Duration::from_secs(number),
                "ms" => Duration::from_millis(number),
                _ => panic!("no unit of time in {line:?}"),
            }
        });
        let one = Break::parse(word, duration).filter(|_| words.next().is_none());
        let one = one.unwrap_or_else(|| panic!("nobody knows what {line:?} means"));
        breaks.extend(std::iter::repeat_n(one, times));
    }
    breaks
}

/// The fifty breaks.
pub(crate) fn fifty() -> Vec<Break> {
    parse(TEXT)
}

/// One of each kind.
pub(crate) fn twelve() -> Vec<Break> {
    parse(SHORT)
}

/// What clients did and saw.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Book>);

/// What is in a [`Ledger`].
#[derive(Default)]
pub(crate) struct Book {
    /// The highest number that was begun to send.
    pub(crate) begun: u64,
    pub(crate) confirmed: BTreeSet<u64>,
    /// Sends that nobody knows the fate of, as the client said.
    pub(crate) unconfirmed: BTreeSet<u64>,
    pub(crate) received: BTreeSet<u64>,
    /// Numbers that may be missing: the client said that something was lost there.
    pub(crate) announced: BTreeSet<u64>,
    /// How often a number came again.
    pub(crate) doubled: u64,
    pub(crate) recoveries: u64,
    pub(crate) gaps: u64,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
    /// Numbers that a client wrote more than once, so that a broker may give out either copy.
    pub(crate) resent: BTreeSet<u64>,
    /// What is being done.
    pub(crate) stage: String,
    /// It is a kill of the server.
    pub(crate) has_killed: bool,
    /// The server does not learn of it at once: it keeps the connection for a while.
    pub(crate) has_lingering: bool,
    /// The server ends in it, in one way or another.
    pub(crate) has_restart: bool,
    /// What each client told of its connection.
    transitions: Vec<(&'static str, Transition)>,
    is_over: bool,
}

impl Ledger {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next number to send; `None` once there has been enough.
    pub(crate) fn next(&self) -> Option<u64> {
        let mut book = self.book();
        if book.is_over {
            return None;
        }
        book.begun += 1;
        Some(book.begun)
    }

    pub(crate) fn confirm(&self, number: u64) {
        self.book().confirmed.insert(number);
    }

    /// Notes what came of sending a number to a queue.
    pub(crate) fn settle(&self, number: u64, result: Result<Confirmed, Error>) {
        match result {
            Ok(confirmed) => {
                if confirmed.resent > 0 {
                    self.book().resent.insert(number);
                }
                self.confirm(number);
            }
            Err(error) => {
                self.give_up(number);
                self.complain(format!("sending {number}: {error}"));
            }
        }
    }

    /// Notes a number that came from a queue.
    pub(crate) fn receive(&self, number: u64, is_redelivered: bool, order: &mut Order) {
        let mut book = self.book();
        if !order.take(number, is_redelivered, &book.stage) {
            book.doubled += 1;
        }
        book.received.insert(number);
    }

    /// Notes that a client was told of a gap: only what a kill of the server takes with it cannot be filled.
    pub(crate) fn hear_of_gap(&self) {
        let mut book = self.book();
        book.gaps += 1;
        if !book.has_killed {
            let what = format!("a gap is announced in {}", book.stage);
            book.wrong.push(what);
        }
    }

    pub(crate) fn give_up(&self, number: u64) {
        self.book().unconfirmed.insert(number);
    }

    pub(crate) fn tell(&self, client: &'static str, transition: Transition) {
        self.book().transitions.push((client, transition));
    }

    /// Says that something is not as it must be.
    pub(crate) fn complain(&self, what: String) {
        self.book().wrong.push(what);
    }

    fn len(&self) -> usize {
        self.book().transitions.len()
    }

    /// What a client told since there were `mark` transitions.
    fn since(&self, mark: usize, client: &str) -> Vec<Transition> {
        let book = self.book();
        let told = book.transitions[mark..].iter().filter(|(name, _)| *name == client);
        told.map(|(_, transition)| transition.clone()).collect()
    }
}

/// How what clients say goes up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Up {
    /// On the connection on which they listen.
    Same,
    /// On connections of its own: what this client says, and no other says anything.
    Own(&'static str),
    /// Not at all.
    Nothing,
    /// In a request for each answer.
    Polls,
}

/// Whoever runs, and what is done to it.
pub(crate) struct Run<'a> {
    pub(crate) server: &'a mut Server,
    pub(crate) proxy: &'a Proxy,
    pub(crate) ledger: &'a Arc<Ledger>,
    /// The clients that write in the ledger.
    pub(crate) clients: &'a [&'static str],
    pub(crate) up: Up,
}

impl Run<'_> {
    /// Does everything in turn, then lets the clients finish and looks at the whole.
    ///
    /// Blocks: the clients must run on other threads.
    pub(crate) fn go(mut self, breaks: &[Break]) {
        for client in self.clients {
            self.await_transition(0, client, "its first connection", |told| {
                told.iter().any(|transition| matches!(transition, Transition::Connected { again: false, .. }))
            });
        }
        self.await_passage("at the beginning");
        for (index, one) in breaks.iter().enumerate() {
            let started = Instant::now();
            let causes = self.step(*one, &format!("break {} ({one:?})", index + 1));
            eprintln!("{:3} {one:?}: {:.1} s, {causes:?}", index + 1, started.elapsed().as_secs_f64());
        }
        self.ledger.book().is_over = true;
        let is_whole = comes_true(LIMIT, || {
            let book = self.ledger.book();
            book.begun as usize == book.confirmed.len() + book.unconfirmed.len()
                && book.confirmed.iter().all(|n| book.received.contains(n) || book.announced.contains(n))
        });
        let book = self.ledger.book();
        eprintln!(
            "{} sent, {} confirmed, {} unconfirmed, {} received, {} doubled, {} recovered, {} gaps announced",
            book.begun,
            book.confirmed.len(),
            book.unconfirmed.len(),
            book.received.len(),
            book.doubled,
            book.recoveries,
            book.gaps,
        );
        let lost =
            book.confirmed.iter().filter(|n| !book.received.contains(n) && !book.announced.contains(n));
        let lost: Vec<&u64> = lost.take(20).collect();
        assert!(
            is_whole,
            "not everything was answered or received in the end: {} of {} answered, confirmed and lost: {lost:?}",
            book.confirmed.len() + book.unconfirmed.len(),
            book.begun
        );
        assert!(book.wrong.is_empty(), "{:#?}", book.wrong);
    }

    /// Does one thing; gives what the clients named for the ends of connections.
    fn step(&mut self, one: Break, what: &str) -> Vec<&'static str> {
        let mark = self.ledger.len();
        {
            let mut book = self.ledger.book();
            book.stage = what.to_owned();
            book.has_killed = matches!(one, Break::Kill | Break::Crash);
            book.has_lingering =
                matches!(one, Break::Of(Fault::Vanish | Fault::HoldDown | Fault::HoldUp) | Break::Stall(_));
            book.has_restart = book.has_killed || one == Break::Stop;
        }
        match one {
            Break::Of(fault) => {
                self.proxy.inflict(fault);
                self.await_breaks(mark, one, what);
                if fault == Fault::HoldUp && self.up != Up::Same {
                    // What was given up arrives after all, and who noticed nothing is whole again.
                    self.proxy.resume();
                }
            }
            Break::Stall(duration) => {
                let begun = Instant::now();
                self.proxy.inflict(Fault::Vanish);
                self.await_breaks(mark, one, what);
                std::thread::sleep(duration.saturating_sub(begun.elapsed()));
                self.proxy.resume();
            }
            Break::Pause(duration) => {
                self.proxy.inflict(Fault::Vanish);
                std::thread::sleep(duration);
                self.proxy.resume();
            }
            Break::Refuse(duration) => {
                let begun = Instant::now();
                self.proxy.refuse();
                self.proxy.inflict(Fault::Reset);
                self.await_breaks(mark, one, what);
                std::thread::sleep(duration.saturating_sub(begun.elapsed()));
                self.proxy.accept();
            }
            Break::Kill | Break::Crash | Break::Stop => {
                self.proxy.refuse();
                // A broker that is stopped does not read on, so that it matters there, too.
                if one == Break::Kill || one == Break::Stop && self.server.kind != Kind::Longwire {
                    self.proxy.hold_up();
                    until("the server to read everything", || self.server.has_read_everything());
                }
                if one == Break::Stop {
                    self.server.stop();
                } else {
                    self.server.kill();
                }
                self.await_breaks(mark, one, what);
                self.server.start_again();
                self.proxy.resume();
                self.proxy.accept();
            }
        }
        for client in self.clients {
            if self.is_noticed(one, client) {
                self.await_transition(mark, client, &format!("its return after {what}"), |told| {
                    told.iter().any(|transition| matches!(transition, Transition::Connected { .. }))
                });
            }
        }
        self.await_passage(what);
        self.clients.iter().flat_map(|client| self.check(mark, client, one, what)).collect()
    }

    /// As [`Break::causes`]; none of a client that has nothing to notice.
    ///
    /// Where what is said goes up on connections of its own, only who says something meets one that is mute: nobody
    /// answers. The server expects no beats there, and what it says still arrives.
    fn causes(&self, one: Break, client: &str) -> &'static [&'static str] {
        match (one, self.up) {
            (Break::Of(Fault::HoldUp), Up::Own(name)) if name == client => &["command_timeout"],
            (Break::Of(Fault::HoldUp), Up::Own(_) | Up::Nothing) => &[],
            // Between two polls nothing breaks, and one whose line breaks before its answer begins is asked again at
            // once: the next line meets what there is. One that waits to be accepted when nobody is accepted any more is
            // reset.
            (Break::Refuse(_), Up::Polls) => &["refused", "reset"],
            (Break::Kill | Break::Crash, Up::Polls) => &["refused", "ended", "reset"],
            // What was given up arrives after all, and may take the place of the poll that came in its stead.
            (Break::Of(Fault::HoldUp), Up::Polls) => &["silent", "status"],
            // What waits is answered. Who asks again finds nobody, or by its own line somebody who says that he goes.
            (Break::Stop, Up::Polls) => &["refused", "reset", "status"],
            _ => one.causes(self.server.kind),
        }
    }

    /// Whether a client notices; who polls may repeat what it asked and be none the wiser, or be in the middle of an
    /// answer.
    fn is_noticed(&self, one: Break, client: &str) -> bool {
        let is_of_a_line = matches!(one, Break::Of(Fault::Reset | Fault::Close | Fault::CutUp));
        !(self.causes(one, client).is_empty() || self.up == Up::Polls && is_of_a_line)
    }

    /// Waits until every client has noticed.
    fn await_breaks(&self, mark: usize, one: Break, what: &str) {
        for client in self.clients {
            if !self.is_noticed(one, client) {
                continue;
            }
            self.await_transition(mark, client, &format!("the end by {what}"), |told| {
                told.iter().any(|transition| {
                    matches!(transition, Transition::Disconnected { was_connected: true, .. })
                })
            });
        }
        // Somebody has tried in the meantime, so that what the attempts say is looked at, too.
        if !one.causes_of_attempts().is_empty() {
            for client in self.clients {
                self.await_transition(mark, client, &format!("an attempt during {what}"), |told| {
                    told.iter().any(|transition| {
                        matches!(transition, Transition::Disconnected { was_connected: false, .. })
                    })
                });
            }
        }
    }

    /// Looks at what a client told of one step: a single break with the right cause, and no other. Gives the causes.
    fn check(&self, mark: usize, client: &str, one: Break, what: &str) -> Vec<&'static str> {
        let told = self.ledger.since(mark, client);
        let mut named = Vec::new();
        let is_haunted = one == Break::Of(Fault::HoldUp) && self.up == Up::Polls;
        for transition in &told {
            let Transition::Disconnected { cause, was_connected, .. } = transition else {
                continue;
            };
            named.extend(was_connected.then(|| cause.name()));
            let attempts = if is_haunted { &["status"] } else { one.causes_of_attempts() };
            let expected = if *was_connected { self.causes(one, client) } else { attempts };
            // A request that goes up may be cut off or refused before its stream has noticed anything.
            let is_of_uplink = matches!(self.up, Up::Own(name) if name == client)
                && (attempts.contains(&cause.name())
                    || one == Break::Stop && matches!(cause.name(), "ended" | "reset"));
            if !expected.contains(&cause.name()) && !is_of_uplink {
                let kind = if *was_connected { "the connection" } else { "an attempt" };
                self.ledger.complain(format!(
                    "{what}: the {client} says of {kind} \"{cause}\" ({}), expected is one of {expected:?}",
                    cause.name()
                ));
            }
        }
        let breaks = named.len();
        let least = usize::from(self.is_noticed(one, client));
        let most = usize::from(!self.causes(one, client).is_empty()) + usize::from(is_haunted);
        if !(least..=most).contains(&breaks) {
            self.ledger.complain(format!(
                "{what}: {breaks} breaks of the {client} where {least} to {most} were made: {told:#?}"
            ));
        }
        named
    }

    /// Waits until something that is sent from here on was confirmed and received: subscriptions are back.
    fn await_passage(&self, what: &str) {
        let begun = self.ledger.book().begun;
        let passes = comes_true(LIMIT, || {
            let book = self.ledger.book();
            book.confirmed.range(begun + 1..).any(|number| book.received.contains(number))
        });
        assert!(passes, "after {what} nothing passes any more: {}", self.state());
    }

    fn await_transition(
        &self,
        mark: usize,
        client: &str,
        what: &str,
        is_there: impl Fn(&[Transition]) -> bool,
    ) {
        let came = comes_true(LIMIT, || is_there(&self.ledger.since(mark, client)));
        assert!(came, "the {client} waits in vain for {what}: {}", self.state());
    }

    fn state(&self) -> String {
        let book = self.ledger.book();
        let last = book.transitions.len().saturating_sub(10);
        format!(
            "{} begun, {} confirmed, {} received; the last of the transitions {:#?}; complaints {:#?}; {}",
            book.begun,
            book.confirmed.len(),
            book.received.len(),
            &book.transitions[last..],
            book.wrong,
            self.server.log()
        )
    }
}

mod tests {
    use super::*;

    fn has_every_kind(breaks: &[Break]) {
        let kinds = [
            Break::Of(Fault::Reset),
            Break::Of(Fault::Close),
            Break::Of(Fault::CutDown),
            Break::Of(Fault::CutUp),
            Break::Of(Fault::Vanish),
            Break::Of(Fault::HoldDown),
            Break::Of(Fault::HoldUp),
            Break::Kill,
            Break::Crash,
            Break::Stop,
        ];
        for kind in kinds {
            assert!(breaks.contains(&kind), "{kind:?}");
        }
        assert!(breaks.iter().any(|one| matches!(one, Break::Stall(_))));
        assert!(breaks.iter().any(|one| matches!(one, Break::Pause(_))));
        assert!(breaks.iter().any(|one| matches!(one, Break::Refuse(_))));
    }

    #[test]
    fn the_scenario_is_fifty_breaks_of_every_kind() {
        let breaks = fifty();
        has_every_kind(&breaks);
        let real = breaks.iter().filter(|one| !matches!(one, Break::Pause(_)));
        assert_eq!(real.count(), 50);
        assert!(breaks.contains(&Break::Refuse(Duration::from_secs(20))));
    }

    #[test]
    fn the_short_one_has_each_kind_once() {
        let breaks = twelve();
        has_every_kind(&breaks);
        let real = breaks.iter().filter(|one| !matches!(one, Break::Pause(_)));
        assert_eq!(real.count(), 12);
    }

    #[test]
    fn a_line_says_what_how_long_and_how_often() {
        assert_eq!(
            parse("# nothing\n\nreset * 2\nrefuse 20s\npause 600ms"),
            [
                Break::Of(Fault::Reset),
                Break::Of(Fault::Reset),
                Break::Refuse(Duration::from_secs(20)),
                Break::Pause(Duration::from_millis(600)),
            ]
        );
        for wrong in ["explode", "reset 2s", "pause", "refuse 2 s", "reset * x", "refuse 3h"] {
            assert!(std::panic::catch_unwind(|| parse(wrong)).is_err(), "{wrong}");
        }
    }
}
