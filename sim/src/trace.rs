//! What happened in a run: a digest of every event, the last of them in words, and the first broken promise.
//!
//! Everything that a run's future may depend on is noted here, so two runs with one digest were the same run.
//! It also is the subscriber of the servers' log lines: what an operator would read is what the checks read.

use longwire::env::Clock;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tracing::field::{Field, Visit};

/// How many events are kept in words.
const KEPT: usize = 60;

/// What longwire promises, and the simulator checks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Promise {
    /// No publication is missing unless the client is told.
    NoGap,
    /// No publication comes twice.
    NotTwice,
    /// Within a channel publications come in the order of their offsets, with what was published.
    Order,
    /// Nobody is sent what its filter leaves out.
    Chosen,
    /// A recovery that is called complete is, and one that was possible is not refused.
    Recovery,
    /// A peer that is gone is out of presence within its limit, and whoever is there is in it.
    Presence,
    /// Every join has one leave, after it.
    OneLeave,
    /// A connection's end is reported once, with the true cause.
    Cause,
    /// A peer that answers is not called dead.
    Alive,
    /// What waits for a peer is bounded.
    Bounded,
    /// When all clients are gone nothing of them is left.
    NothingLeft,
    /// When faults stop, everybody is connected and whole.
    Converges,
    /// When nothing fails, every command is answered in time.
    Answered,
    /// Nobody comes in about whom the application was to be asked and was not.
    Asked,
    /// Whatever the server sends is well formed and in its place.
    WellFormed,
    /// No task of the server panics.
    NoPanic,
    /// The application hears of each client in the order in which it happened, without a gap, and the same as often
    /// as it hears it.
    EventOrder,
    /// Who came is heard to have come and to have left, once each; so are subscriptions and channels.
    EventPairs,
    /// When the application is well, all is delivered, and what it took of the disk is given back.
    EventsSettle,
    /// The application is called about each plain connection in order, with numbers without a gap, and again only with
    /// the same words.
    CallOrder,
    /// What was taken from a client is told to the application.
    MessageHeard,
    /// Who came is told to be gone, once, behind everything else and not while its session lives.
    OneClose,
    /// A client that returns in time has its session again, and no session outlives its grace.
    TakenOver,
    /// A message that a queue confirmed is delivered until somebody has said that it is done, and never behind that.
    Queued,
    /// What was reported durable is there after every crash, once and in order, and nothing else is.
    Durable,
}

/// A broken promise.
#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    /// Which.
    pub promise: Promise,
    /// Since the start of the run, in invented time; zero where there is none.
    pub at: Duration,
    /// How it was broken.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} broken after {:.3} s: {}", self.promise, self.at.as_secs_f64(), self.what)
    }
}

/// One line that a server logged.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// The text.
    pub message: String,
    /// The other fields, as they are printed.
    pub fields: BTreeMap<&'static str, String>,
}

/// What happened so far; copies share it.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    clock: Clock,
    digest: u64,
    events: u64,
    recent: VecDeque<String>,
    failure: Option<Failure>,
    lines: VecDeque<LogLine>,
    arrived: Arc<Notify>,
    failed: Arc<Notify>,
    is_loud: bool,
}

impl Trace {
    /// A trace that begins at the present of `clock`; a loud one prints every event.
    pub fn new(clock: Clock, is_loud: bool) -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            clock,
            digest: 0xcbf2_9ce4_8422_2325,
            events: 0,
            recent: VecDeque::new(),
            failure: None,
            lines: VecDeque::new(),
            arrived: Arc::default(),
            failed: Arc::default(),
            is_loud,
        })))
    }

    /// Notes an event.
    pub fn note(&self, event: fmt::Arguments<'_>) {
        self.lock().note(event);
    }

    /// Notes that a promise was broken; the first one counts.
    pub fn fail(&self, promise: Promise, what: impl Into<String>) {
        let mut inner = self.lock();
        let failure = Failure { promise, at: inner.elapsed(), what: what.into() };
        // Only what failed and when: the words may name real times.
        inner.note(format_args!("{promise:?} broken"));
        inner.say(failure.to_string());
        inner.failure.get_or_insert(failure);
        inner.failed.notify_one();
    }

    /// The first broken promise.
    pub fn failure(&self) -> Option<Failure> {
        self.lock().failure.clone()
    }

    /// The digest of all events so far, and their number.
    pub fn digest(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.digest, inner.events)
    }

    /// The last events in words.
    pub fn recent(&self) -> Vec<String> {
        self.lock().recent.iter().cloned().collect()
    }

    /// The next log line of a server that nobody looked at.
    pub fn next_line(&self) -> Option<LogLine> {
        self.lock().lines.pop_front()
    }

    /// Waits until a promise is broken.
    pub async fn failed(&self) {
        let failed = self.lock().failed.clone();
        failed.notified().await;
    }

    /// Waits until a server logs something.
    pub async fn arrived(&self) {
        let arrived = self.lock().arrived.clone();
        arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn elapsed(&self) -> Duration {
        self.clock.now() - self.clock.start()
    }

    fn note(&mut self, event: fmt::Arguments<'_>) {
        // What counts is what led to the failure.
        if self.failure.is_some() {
            return;
        }
        let line = format!("{:10.3} {event}", self.elapsed().as_secs_f64());
        // FNV-1a.
        for byte in line.bytes().chain([b'\n']) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.events += 1;
        self.say(line);
    }

    fn say(&mut self, line: String) {
        if self.is_loud {
            println!("{line}");
        }
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }
}

/// Takes the fields of one log line.
#[derive(Default)]
struct Fields {
    message: String,
    fields: BTreeMap<&'static str, String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => {
                self.fields.insert(name, format!("{value:?}"));
            }
        }
    }
}

impl tracing::Subscriber for Trace {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("longwire")
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, fields } = fields;
        let mut inner = self.lock();
        inner.note(format_args!("log: {message} {fields:?}"));
        inner.lines.push_back(LogLine { message, fields });
        inner.arrived.notify_one();
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}
