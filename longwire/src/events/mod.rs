//! Events to the backend that are never lost: who connected and left, what is subscribed to, which channels are in
//! use.
//!
//! Shards record through [`Events`], which costs them a push into a bounded queue, or nothing where events are off.
//! The [`Courier`], a thread of its own because disks make it wait, numbers the events, writes them to a
//! [`journal`](crate::journal), and only then posts them to the backend, until each is delivered. `event` has the
//! JSON, `outbox` decides what is sent when and what may be released, `reconcile` ends after a crash what the lost
//! process began. What must stay true: an event is on the disk before it is first sent; events of one client are
//! recorded and sent in the order in which they happened.

pub mod courier;
pub mod event;
pub mod occupancy;
pub mod outbox;
pub mod reconcile;

pub use courier::{Courier, prepare};
pub use event::{Event, EventType};

use crate::config;
use crate::telemetry::EventCounters;
use event::Details;
use occupancy::{Occupancy, Verdict};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Where events are recorded; copies record into the same place. Nothing is recorded where events are off.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<Arc<Shared>>);

/// What shards and the courier share.
#[derive(Debug)]
struct Shared {
    /// By number: the types that are recorded, because they are sent or because of their pair.
    is_recorded: [bool; EventType::ALL.len()],
    is_sent: [bool; EventType::ALL.len()],
    max_queue_bytes: usize,
    vacated_delay: Duration,
    queue: Mutex<VecDeque<Event>>,
    /// Of the queue, and of what the courier took and did not write yet.
    queue_bytes: AtomicUsize,
    /// There is something in the queue, or a drain began.
    changed: Notify,
    is_draining: AtomicBool,
    /// The courier knows what an earlier process left.
    has_stock: AtomicBool,
    occupancy: Occupancy,
    /// Channels without subscribers, about which the courier asks after a while.
    emptied: Mutex<Vec<Arc<str>>>,
    /// How many of those there are, with those that the courier took.
    watched: AtomicU64,
    counters: EventCounters,
}

impl Events {
    /// Records nothing.
    pub fn off() -> Events {
        Events(None)
    }

    /// Records what the settings want; nothing without an endpoint.
    pub fn new(config: &config::Events) -> Events {
        if config.endpoint.is_none() || config.types.is_empty() {
            return Events(None);
        }
        let is_sent = EventType::ALL.map(|kind| config.types.contains(&kind));
        let sends = |kind: EventType| is_sent[kind as usize];
        let has_clients = EventType::ALL.into_iter().any(|kind| kind.has_client() && sends(kind));
        let is_recorded = EventType::ALL.map(|kind| match kind {
            // Without them nobody would know, after a crash, whose other events came to an end.
            EventType::Connected | EventType::Disconnected => has_clients,
            EventType::Subscribed | EventType::Unsubscribed => {
                sends(EventType::Subscribed) || sends(EventType::Unsubscribed)
            }
            EventType::Occupied | EventType::Vacated => {
                sends(EventType::Occupied) || sends(EventType::Vacated)
            }
        });
        Events(Some(Arc::new(Shared {
            is_recorded,
            is_sent,
            max_queue_bytes: config.max_queue_bytes,
            vacated_delay: config.vacated_delay,
            queue: Mutex::default(),
            queue_bytes: AtomicUsize::new(0),
            changed: Notify::new(),
            is_draining: AtomicBool::new(false),
            has_stock: AtomicBool::new(false),
            occupancy: Occupancy::default(),
            emptied: Mutex::default(),
            watched: AtomicU64::new(0),
            counters: EventCounters::default(),
        })))
    }

    /// Whether events of this type are recorded.
    pub fn is_recorded(&self, kind: EventType) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.is_recorded[kind as usize])
    }

    /// Whether events of this type are sent, and so take a number of their client's.
    pub fn is_sent(&self, kind: EventType) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.is_sent[kind as usize])
    }

    /// Records an event; false if it is not, because nobody wants it or too much waits for the disk.
    ///
    /// Of a client whose `connected` was not recorded nothing else may be.
    pub fn record(&self, event: Event) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.is_recorded[event.kind as usize] && shared.push(event))
    }

    /// Notes that a subscription to a channel began.
    pub fn enter(&self, channel: &Arc<str>, time_ms: i64) {
        if let Some(shared) = self.watching() {
            let occupied = || shared.push(about_channel(EventType::Occupied, channel, time_ms));
            shared.occupancy.enter(channel, occupied);
        }
    }

    /// Notes that a subscription to a channel ended, at `now`.
    pub fn leave(&self, channel: &Arc<str>, now: Instant) {
        if let Some(shared) = self.watching()
            && shared.occupancy.leave(channel, now)
        {
            shared.watched.fetch_add(1, Ordering::SeqCst);
            lock(&shared.emptied).push(channel.clone());
            shared.changed.notify_one();
        }
    }

    fn watching(&self) -> Option<&Arc<Shared>> {
        self.0.as_ref().filter(|shared| shared.is_recorded[EventType::Occupied as usize])
    }

    /// Notes that the server drains: empty channels are vacated at once, and nothing is collected any longer.
    pub fn drain(&self) {
        if let Some(shared) = &self.0 {
            shared.is_draining.store(true, Ordering::SeqCst);
            shared.changed.notify_one();
        }
    }

    /// Whether everything that was recorded is delivered, also of an earlier process.
    pub fn is_settled(&self) -> bool {
        let is_settled = |shared: &Arc<Shared>| {
            // In this order: what is watched becomes pending before it is watched no longer.
            shared.has_stock.load(Ordering::SeqCst)
                && shared.watched.load(Ordering::SeqCst) == 0
                && shared.counters.pending.get() == 0
        };
        self.0.as_ref().is_none_or(is_settled)
    }

    /// What is counted, where events are on.
    pub fn counters(&self) -> Option<&EventCounters> {
        self.0.as_ref().map(|shared| &shared.counters)
    }
}

impl Shared {
    fn push(&self, event: Event) -> bool {
        let is_end = event.kind.end().is_none();
        // An end has as much room again: without it, what is known would be wrong until the next start.
        let bound = if is_end { self.max_queue_bytes.saturating_mul(2) } else { self.max_queue_bytes };
        let bytes = event.memory_bytes();
        let mut queue = lock(&self.queue);
        if self.queue_bytes.load(Ordering::Relaxed) + bytes > bound {
            self.counters.dropped.add(1);
            return false;
        }
        self.queue_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.counters.recorded.add(1);
        if self.is_sent[event.kind as usize] {
            self.counters.pending.add(1);
        }
        queue.push_back(event);
        if queue.len() == 1 {
            self.changed.notify_one();
        }
        true
    }

    /// Asks about a channel that became empty; if it is vacated, that is recorded.
    fn ask(&self, channel: &Arc<str>, now: Instant, time_ms: i64) -> Verdict {
        let is_draining = self.is_draining.load(Ordering::SeqCst);
        let delay = if is_draining { Duration::ZERO } else { self.vacated_delay };
        let vacated = || {
            self.push(about_channel(EventType::Vacated, channel, time_ms));
        };
        let verdict = self.occupancy.ask(channel, now, delay, vacated);
        if !matches!(verdict, Verdict::AskAt(_)) {
            self.watched.fetch_sub(1, Ordering::SeqCst);
        }
        verdict
    }
}

fn about_channel(kind: EventType, channel: &Arc<str>, time_ms: i64) -> Event {
    Event { kind, time_ms, client: None, channel: Some(channel.clone()), details: Details::None }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A queue is whole between any two of its operations.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
