//! Fifty breaks of clients that are at work, written down in `scenario.txt`, and what must hold after each and at the end.
//!
//! The clients are somebody else's: whoever runs a scenario has them write down what they do in a [`Ledger`]: numbers
//! that were sent, confirmed and received, and every transition. After each break every client must have named a cause
//! of [`Break::causes`], must have come back, and something sent after that must have been confirmed and received. At the
//! end every confirmed number was received, or lies in a gap that was announced. What must stay true: a break that
//! nobody made fails the run, just as one that nobody noticed.

use crate::harness::{LIMIT, comes_true};
use crate::proxy::{Fault, Proxy};
use crate::servers::{Kind, Server};
use longwire_client::Transition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const TEXT: &str = include_str!("scenario.txt");

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
    /// The server is killed, and nobody listens until it has started again.
    Kill,
    /// The server is stopped as an operator would, and nobody listens until it has started again.
    Stop,
}

impl Break {
    /// The causes, by name, of which a client that was connected names one.
    ///
    /// Where there are several, what the server does decides: one that ends writes an end or, with something unread, a
    /// reset; one that hears nothing for too long says so or just ends.
    pub(crate) fn causes(self, server: Kind) -> &'static [&'static str] {
        match (self, server) {
            (Break::Of(Fault::Reset) | Break::Refuse(_), _) => &["reset"],
            (Break::Of(Fault::Close | Fault::CutDown | Fault::CutUp), _) => &["ended"],
            (Break::Of(Fault::Vanish | Fault::HoldDown) | Break::Stall(_), _) => &["silent"],
            (Break::Of(Fault::HoldUp), Kind::Longwire) => &["told", "reset"],
            (Break::Of(Fault::HoldUp), _) => &["told", "ended", "reset"],
            (Break::Kill, _) => &["ended", "reset"],
            (Break::Stop, Kind::Longwire) => &["told"],
            (Break::Stop, _) => &["told", "ended", "reset"],
            (Break::Pause(_), _) => &[],
        }
    }

    /// The causes, by name, that attempts may fail for until the client is back.
    fn causes_of_attempts(self) -> &'static [&'static str] {
        match self {
            Break::Refuse(_) | Break::Kill | Break::Stop => &["refused"],
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
    /// Numbers that came for the first time, and not as given out before, after a higher one: that, and what was being
    /// done.
    pub(crate) late: BTreeMap<u64, String>,
    /// Numbers that a client wrote more than once, so that a broker may give out either copy.
    pub(crate) resent: BTreeSet<u64>,
    /// What is being done.
    pub(crate) stage: String,
    /// It is a kill of the server.
    pub(crate) has_killed: bool,
    /// It is something that the server does not learn of at once: it keeps the connection for a while.
    pub(crate) has_lingering: bool,
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

/// Whoever runs, and what is done to it.
pub(crate) struct Run<'a> {
    pub(crate) server: &'a mut Server,
    pub(crate) proxy: &'a Proxy,
    pub(crate) ledger: &'a Arc<Ledger>,
    /// The clients that write in the ledger.
    pub(crate) clients: &'a [&'static str],
    /// What a client says goes up on connections of its own, which are dialled while the others still stand.
    pub(crate) has_uplink: bool,
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
            self.step(*one, &format!("break {} ({one:?})", index + 1));
            eprintln!("{:3} {one:?}: {:.1} s", index + 1, started.elapsed().as_secs_f64());
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
        let late: Vec<_> = book.late.iter().filter(|(number, _)| !book.resent.contains(number)).collect();
        assert!(late.is_empty(), "out of order: {late:#?}");
    }

    fn step(&mut self, one: Break, what: &str) {
        let mark = self.ledger.len();
        {
            let mut book = self.ledger.book();
            book.stage = what.to_owned();
            book.has_killed = one == Break::Kill;
            book.has_lingering =
                matches!(one, Break::Of(Fault::Vanish | Fault::HoldDown | Fault::HoldUp) | Break::Stall(_));
        }
        match one {
            Break::Of(fault) => {
                self.proxy.inflict(fault);
                self.await_breaks(mark, one, what);
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
            Break::Kill => {
                self.proxy.refuse();
                self.server.kill();
                self.await_breaks(mark, one, what);
                self.server.start_again();
                self.proxy.accept();
            }
            Break::Stop => {
                self.proxy.refuse();
                self.server.stop();
                self.await_breaks(mark, one, what);
                self.server.start_again();
                self.proxy.accept();
            }
        }
        if !matches!(one, Break::Pause(_)) {
            for client in self.clients {
                self.await_transition(mark, client, &format!("its return after {what}"), |told| {
                    told.iter().any(|transition| matches!(transition, Transition::Connected { .. }))
                });
            }
        }
        self.await_passage(what);
        for client in self.clients {
            self.check(mark, client, one, what);
        }
    }

    /// Waits until every client has noticed.
    fn await_breaks(&self, mark: usize, one: Break, what: &str) {
        for client in self.clients {
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

    /// What a client told of one step: a single break with the right cause, and no other.
    fn check(&self, mark: usize, client: &str, one: Break, what: &str) {
        let told = self.ledger.since(mark, client);
        let mut breaks = 0;
        for transition in &told {
            let Transition::Disconnected { cause, was_connected, .. } = transition else {
                continue;
            };
            breaks += usize::from(*was_connected);
            let attempts = one.causes_of_attempts();
            let expected = if *was_connected { one.causes(self.server.kind) } else { attempts };
            // A request that goes up may be cut off or refused before its stream has noticed anything.
            let is_of_uplink = self.has_uplink
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
        let expected = usize::from(!matches!(one, Break::Pause(_)));
        if breaks != expected {
            self.ledger.complain(format!(
                "{what}: {breaks} breaks of the {client} where {expected} was made: {told:#?}"
            ));
        }
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

    #[test]
    fn the_scenario_is_fifty_breaks_of_every_kind() {
        let breaks = fifty();
        let real = breaks.iter().filter(|one| !matches!(one, Break::Pause(_)));
        assert_eq!(real.count(), 50);
        for fault in [
            Fault::Reset,
            Fault::Close,
            Fault::CutDown,
            Fault::CutUp,
            Fault::Vanish,
            Fault::HoldDown,
            Fault::HoldUp,
        ] {
            assert!(breaks.contains(&Break::Of(fault)), "{fault:?}");
        }
        assert!(breaks.contains(&Break::Refuse(Duration::from_secs(20))));
        assert!(breaks.contains(&Break::Kill) && breaks.contains(&Break::Stop));
        assert!(breaks.iter().any(|one| matches!(one, Break::Stall(_))));
        assert!(breaks.iter().any(|one| matches!(one, Break::Pause(_))));
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
