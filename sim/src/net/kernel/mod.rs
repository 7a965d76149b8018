//! Everything that the network holds: hosts, listeners, attempts to connect, connections.
//!
//! [`Handle`] is the one door to it: it locks, runs a piece of work that never waits and never calls out, and
//! wakes whom that concerns after the lock is gone. All loops go over ordered maps, so that a run depends on
//! nothing but its seed.

mod ports;

use super::agenda::{Agenda, Due};
use super::connection::Connection;
use super::fate::{ConnId, Fate, Side};
use super::links::{Links, Path};
use longwire::env::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How many connections a listener holds that nobody has accepted; Linux has 4096.
const BACKLOG: usize = 128;
/// The first port that a host gives to a connection or a listener that asked for none.
const FIRST_PORT: u16 = 10_000;

/// A listening port.
pub(super) struct Listening {
    pub(super) id: u64,
    pub(super) user_timeout: Duration,
    queue: VecDeque<ConnId>,
    waker: Option<Waker>,
}

impl Listening {
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= BACKLOG
    }

    /// Puts a connection into the queue; whom to wake.
    pub(super) fn push(&mut self, id: ConnId) -> Option<Waker> {
        self.queue.push_back(id);
        self.waker.take()
    }
}

struct Host {
    is_up: bool,
    /// How often it lost power.
    boot: u64,
    next_port: u16,
    discards_on_reset: bool,
    listening: BTreeMap<u16, Listening>,
}

impl Default for Host {
    fn default() -> Host {
        Host {
            is_up: true,
            boot: 0,
            next_port: FIRST_PORT,
            discards_on_reset: false,
            listening: BTreeMap::new(),
        }
    }
}

/// What connections share.
pub(super) struct Shared {
    pub(super) rng: Rng,
    pub(super) links: Links,
    pub(super) agenda: Agenda,
    hosts: BTreeMap<IpAddr, Host>,
    /// Whom to wake once the lock is gone.
    pub(super) wakes: Vec<Waker>,
    /// Wakers to drop once the lock is gone: with one goes perhaps a task, and with that a socket.
    pub(super) spent: Vec<Waker>,
    start: Instant,
    digest: u64,
}

impl Shared {
    /// Takes note of something for the digest.
    pub(super) fn fold(&mut self, id: ConnId, what: u64, value: u64, now: Instant) {
        let nanoseconds = now.duration_since(self.start).as_nanos() as u64;
        for word in [nanoseconds, id.0, what, value] {
            // FNV-1a by words.
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
        }
    }

    pub(super) fn replace(&mut self, place: &mut Option<Waker>, waker: &Waker) {
        if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.spent.extend(place.replace(waker.clone()));
        }
    }

    pub(super) fn path(&self, from: IpAddr, to: IpAddr, now: Instant) -> Path {
        if self.hosts.get(&to).is_some_and(|host| !host.is_up) {
            return Path::Dead;
        }
        self.links.path(from, to, now)
    }

    pub(super) fn boot(&self, ip: IpAddr) -> u64 {
        self.hosts.get(&ip).map_or(0, |host| host.boot)
    }

    pub(super) fn discards(&self, ip: IpAddr) -> bool {
        self.hosts.get(&ip).is_some_and(|host| host.discards_on_reset)
    }

    pub(super) fn listening(&mut self, address: SocketAddr) -> Option<&mut Listening> {
        self.hosts.get_mut(&address.ip())?.listening.get_mut(&address.port())
    }
}

/// An attempt to connect.
struct Dial {
    from: SocketAddr,
    to: SocketAddr,
    answer: Option<bool>,
    waker: Option<Waker>,
}

pub(super) struct State {
    pub(super) shared: Shared,
    pub(super) connections: BTreeMap<ConnId, Connection>,
    pub(super) fates: BTreeMap<ConnId, Fate>,
    dials: BTreeMap<u64, Dial>,
    next_id: u64,
    driver: Option<Waker>,
    /// When the driver looks at the agenda next.
    armed: Option<Instant>,
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// How much the network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Stats {
    /// Connections of which at least one end is open or not yet forgotten by its kernel.
    pub connections: usize,
    /// Listening sockets.
    pub listeners: usize,
    /// Attempts to connect that have no answer.
    pub dialling: usize,
    /// Bytes that are written and not read, in all connections.
    pub bytes_buffered: u64,
    /// Things that are due at some time.
    pub due: usize,
}

impl State {
    /// Works on one connection, and buries it if it is over.
    pub(super) fn with_connection<R>(
        &mut self,
        id: ConnId,
        work: impl FnOnce(&mut Connection, &mut Shared, Instant) -> R,
    ) -> Option<R> {
        let connection = self.connections.get_mut(&id)?;
        let result = work(connection, &mut self.shared, Instant::now());
        if connection.is_over()
            && let Some(connection) = self.connections.remove(&id)
        {
            self.fates.insert(id, connection.finish(&mut self.shared));
        }
        Some(result)
    }

    /// Works on every connection for which `concerns` holds.
    pub(super) fn with_connections(
        &mut self,
        concerns: impl Fn(&Connection) -> bool,
        mut work: impl FnMut(&mut Connection, &mut Shared, Instant),
    ) {
        let ids: Vec<ConnId> = self
            .connections
            .iter()
            .filter(|(_, connection)| concerns(connection))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.with_connection(id, &mut work);
        }
    }

    /// Does everything that is due; when to come again.
    fn run_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(due) = self.shared.agenda.pop(now) {
            match due {
                Due::Deliver(id, from) => {
                    self.with_connection(id, |connection, shared, now| connection.deliver(from, shared, now));
                }
                Due::Acknowledge(id, writer) => {
                    self.with_connection(id, |connection, shared, now| {
                        connection.acknowledge(writer, shared, now);
                    });
                }
                Due::Check(id, side) => {
                    self.with_connection(id, |connection, shared, now| connection.check(side, shared, now));
                }
                Due::Syn(dial) => self.syn_arrives(dial, now),
                Due::Answer(dial, accepted) => self.answer_arrives(dial, accepted, now),
            }
        }
        self.armed = self.shared.agenda.first();
        self.armed
    }

    // Hosts.

    /// Turns a host off or on; whether it was the other way.
    pub(super) fn set_up(&mut self, ip: IpAddr, is_up: bool) -> bool {
        let host = self.shared.hosts.entry(ip).or_default();
        let changes = host.is_up != is_up;
        host.is_up = is_up;
        host.boot += u64::from(changes && !is_up);
        changes
    }

    pub(super) fn set_discards(&mut self, ip: IpAddr, discards: bool) {
        self.shared.hosts.entry(ip).or_default().discards_on_reset = discards;
    }

    /// Forgets the attempts to connect of a host that lost power.
    pub(super) fn forget_dials(&mut self, ip: IpAddr) {
        let dials: Vec<u64> =
            self.dials.iter().filter(|(_, dial)| dial.from.ip() == ip).map(|(id, _)| *id).collect();
        for dial in dials {
            self.end_dial(dial);
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.shared.digest
    }

    pub(super) fn stats(&self) -> Stats {
        let held = |connection: &Connection| {
            connection.pipes[Side::Client].held() + connection.pipes[Side::Server].held()
        };
        Stats {
            connections: self.connections.len(),
            listeners: self.shared.hosts.values().map(|host| host.listening.len()).sum(),
            dialling: self.dials.len(),
            bytes_buffered: self.connections.values().map(held).sum(),
            due: self.shared.agenda.len(),
        }
    }
}

/// The one door to the state.
#[derive(Clone)]
pub(super) struct Handle(Arc<Mutex<State>>);

impl Handle {
    pub(super) fn new(rng: Rng) -> Handle {
        let shared = Shared {
            rng,
            links: Links::default(),
            agenda: Agenda::default(),
            hosts: BTreeMap::new(),
            wakes: Vec::new(),
            spent: Vec::new(),
            start: Instant::now(),
            digest: 0xcbf2_9ce4_8422_2325,
        };
        Handle(Arc::new(Mutex::new(State {
            shared,
            connections: BTreeMap::new(),
            fates: BTreeMap::new(),
            dials: BTreeMap::new(),
            next_id: 0,
            driver: None,
            armed: None,
        })))
    }

    /// Runs `work` under the lock, and afterwards wakes whom it concerns.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        let (result, wakes, spent) = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let state = &mut *state;
            let result = work(state);
            let first = state.shared.agenda.first();
            if first.is_some_and(|first| state.armed.is_none_or(|armed| first < armed)) {
                state.armed = first;
                state.shared.wakes.extend(state.driver.take());
            }
            (result, std::mem::take(&mut state.shared.wakes), std::mem::take(&mut state.shared.spent))
        };
        wakes.into_iter().for_each(Waker::wake);
        drop(spent);
        result
    }

    /// Works off the agenda until nobody has a handle any more.
    pub(super) fn drive(&self) -> impl Future<Output = ()> + Send + 'static {
        let state: Weak<Mutex<State>> = Arc::downgrade(&self.0);
        async move {
            let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
            std::future::poll_fn(|cx| {
                loop {
                    let Some(handle) = state.upgrade().map(Handle) else { return Poll::Ready(()) };
                    let next = handle.with(|state| {
                        state.driver = Some(cx.waker().clone());
                        state.run_due()
                    });
                    let Some(next) = next else { return Poll::Pending };
                    sleep.as_mut().reset(next);
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            })
            .await;
        }
    }
}
