//! A network that fails in every way that networks do, in virtual time and under a seed.
//!
//! Hosts have addresses; a connection is TCP-like, with the habits of Linux: segments cut anywhere, a bounded
//! window, half close, resets, user timeouts, retransmission after an outage. [`Net::host`] is what a server
//! is given as its network, [`Net::connect`] is what clients call, the rest breaks and mends things and tells
//! the truth about them ([`Fate`]). It runs on a single-threaded runtime with paused time; a task that
//! [`Net::new`] starts works off what is due. The same seed and the same calls give the same run; nothing here
//! reads a clock but tokio's.

mod agenda;
mod connection;
mod fate;
mod kernel;
mod links;
mod pipe;
mod socket;
#[cfg(test)]
mod tests;

pub use fate::{ConnId, Cut, Direction, Fate, Happening, Side, Why};
pub use kernel::Stats;
pub use links::Quality;
pub use socket::{Dialled, HostNet};

use connection::Connection;
use kernel::{Handle, Shared, State};
use longwire::env::Rng;
use socket::SimSocket;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

/// How long a dialled socket tries to deliver: about what Linux's fifteen retransmissions take.
const CLIENT_PATIENCE: Duration = Duration::from_secs(15 * 60);

/// The network; copies are the same one.
#[derive(Clone)]
pub struct Net {
    handle: Handle,
}

impl Net {
    /// A network without faults. It starts the task that moves it, which ends when the last of the network's
    /// handles, listeners and sockets is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(rng: Rng) -> Net {
        let handle = Handle::new(rng);
        tokio::spawn(handle.drive());
        Net { handle }
    }

    /// The network as the processes of the host `ip` see it.
    pub fn host(&self, ip: IpAddr) -> HostNet {
        HostNet { handle: self.handle.clone(), ip }
    }

    /// Connects from the host `from`, with the next of its ports.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there, `TimedOut` if no answer came within `timeout`.
    pub async fn connect(&self, from: IpAddr, to: SocketAddr, timeout: Duration) -> io::Result<Dialled> {
        let dial =
            Dialling { handle: &self.handle, dial: self.handle.with(|state| state.begin_dial(from, to)) };
        let deadline = Instant::now() + timeout;
        let mut patience = Duration::from_secs(1);
        loop {
            self.handle.with(|state| state.send_syn(dial.dial));
            let again = deadline.min(Instant::now() + patience);
            patience *= 2;
            let answer = poll_fn(|cx| {
                self.handle.with(|state| state.poll_dial(dial.dial, CLIENT_PATIENCE, cx.waker()))
            });
            match tokio::time::timeout_at(again, answer).await {
                Ok(Ok((id, local))) => {
                    let socket = SimSocket { handle: self.handle.clone(), id, side: Side::Client };
                    return Ok(Dialled { socket: Box::new(socket), local, id });
                }
                Ok(Err(())) => {
                    let text = format!("connecting to {to} was refused");
                    return Err(io::Error::new(ErrorKind::ConnectionRefused, text));
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(io::Error::new(ErrorKind::TimedOut, format!("connecting to {to} timed out")));
                }
                Err(_) => {}
            }
        }
    }

    // Quality.

    /// Sets how good the way between two hosts is, both ways, for connections that are there and that come.
    pub fn quality(&self, a: IpAddr, b: IpAddr, quality: Quality) {
        self.requalify(|state| {
            state.shared.links.pairs.insert((a.min(b), a.max(b)), quality);
        });
    }

    /// Sets how good every way from and to a host is for which no pair was set.
    pub fn host_quality(&self, ip: IpAddr, quality: Quality) {
        self.requalify(|state| {
            state.shared.links.hosts.insert(ip, quality);
        });
    }

    /// Sets how good every other way is.
    pub fn default_quality(&self, quality: Quality) {
        self.requalify(|state| state.shared.links.default = quality);
    }

    fn requalify(&self, set: impl FnOnce(&mut State)) {
        self.handle.with(|state| {
            set(state);
            state.with_connections(
                |_| true,
                |connection, shared, _| {
                    for side in Side::BOTH {
                        let (from, to) =
                            (connection.ends[side].address.ip(), connection.ends[side.other()].address.ip());
                        connection.pipes[side].quality = shared.links.quality(from, to);
                    }
                },
            );
        });
    }

    /// Whether a reset takes with it what a process of the host has not read. On Linux it does not, which is
    /// the default; on other systems it does.
    pub fn discards_on_reset(&self, ip: IpAddr, discards: bool) {
        self.handle.with(|state| state.set_discards(ip, discards));
    }

    // Faults of ways.

    /// Has nothing arrive any more in one direction: no bytes, no acknowledgement, no end, no reset.
    pub fn block(&self, from: IpAddr, to: IpAddr) {
        self.handle.with(|state| block(state, from, to));
    }

    /// Blocks both directions between two groups of hosts.
    pub fn partition(&self, a: &[IpAddr], b: &[IpAddr]) {
        self.handle.with(|state| {
            for (a, b) in pairs(a, b) {
                block(state, a, b);
                block(state, b, a);
            }
        });
    }

    /// Lifts every block, stall and forgotten connection between two groups of hosts. What was lost and not
    /// given up is sent again within some seconds. A host that vanished stays so.
    pub fn repair(&self, a: &[IpAddr], b: &[IpAddr]) {
        self.handle.with(|state| {
            for (a, b) in pairs(a, b) {
                repair(state, a, b);
                repair(state, b, a);
            }
            mend(state, |connection| {
                let (client, server) = (connection.fate.client.ip(), connection.fate.server.ip());
                pairs(a, b).any(|pair| pair == (client, server) || pair == (server, client))
            });
        });
    }

    /// As [`repair`](Self::repair), for all hosts.
    pub fn repair_all(&self) {
        self.handle.with(|state| {
            for (from, to) in state.shared.links.faulty() {
                repair(state, from, to);
            }
            mend(state, |_| true);
        });
    }

    /// Has nothing arrive in one direction for `span`; then it goes on in order.
    pub fn stall_path(&self, from: IpAddr, to: IpAddr, span: Duration) {
        self.handle.with(|state| {
            let now = Instant::now();
            state.shared.links.stall(from, to, now + span, now);
            record(state, from, to, |direction| Happening::Stalled(direction, span));
        });
    }

    // Faults of one connection.

    /// Has nothing arrive on a connection, either way, for `span`; then it goes on in order.
    pub fn stall(&self, id: ConnId, span: Duration) {
        self.handle.with(|state| {
            state.with_connection(id, |connection, shared, now| connection.stall(span, shared, now))
        });
    }

    /// Has a middlebox reset both ends at once, where it can reach them.
    pub fn reset(&self, id: ConnId) {
        self.handle.with(|state| {
            state.with_connection(id, |connection, shared, now| connection.reset_both(shared, now))
        });
    }

    /// Cuts a connection as soon as exactly `bytes` more bytes have arrived in `direction`; with 0, at once.
    pub fn cut_after(&self, id: ConnId, direction: Direction, bytes: u64, how: Cut) {
        self.handle.with(|state| {
            state.with_connection(id, |connection, shared, now| {
                connection.cut_after(direction, bytes, how, shared, now);
            })
        });
    }

    // Faults of hosts.

    /// Takes the power from a host: no end, no reset, and its processes hear of nothing any more (the caller
    /// ends their tasks; until then their reads and writes wait for ever).
    pub fn vanish(&self, ip: IpAddr) {
        self.handle.with(|state| {
            if !state.set_up(ip, false) {
                return;
            }
            state.forget_dials(ip);
            for side in Side::BOTH {
                state.with_connections(
                    |connection| connection.ends[side].address.ip() == ip,
                    |connection, shared, now| connection.vanish(side, shared, now),
                );
            }
            state.unlisten_all(ip);
        });
    }

    /// Gives a host its power back. It knows nothing of its old connections and resets who mentions one.
    pub fn revive(&self, ip: IpAddr) {
        self.handle.with(|state| {
            if !state.set_up(ip, true) {
                return;
            }
            for side in Side::BOTH {
                state.with_connections(
                    |connection| connection.ends[side].address.ip() == ip,
                    |connection, shared, now| connection.record(Happening::Revived(side), shared, now),
                );
            }
            state.with_connections(|_| true, Connection::resume);
        });
    }

    /// Kills the processes of a host: its kernel closes their sockets, with an end or, where something was
    /// unread, a reset, and listens no more. The caller ends their tasks.
    pub fn kill_process(&self, ip: IpAddr) {
        self.handle.with(|state| {
            state.unlisten_all(ip);
            for side in Side::BOTH {
                state.with_connections(
                    |connection| connection.ends[side].address.ip() == ip,
                    |connection, shared, now| connection.kill(side, shared, now),
                );
            }
        });
    }

    // The truth.

    /// What became of a connection; `None` if there never was one of that name.
    pub fn fate(&self, id: ConnId) -> Option<Fate> {
        self.handle.with(|state| {
            let live = state.connections.get(&id).map(Connection::fate_so_far);
            live.or_else(|| state.fates.get(&id).cloned())
        })
    }

    /// The last connection that was dialled from `client`, which is how a server knows it.
    pub fn connection_from(&self, client: SocketAddr) -> Option<ConnId> {
        self.handle.with(|state| {
            let live = state.connections.iter().rfind(|(_, connection)| connection.fate.client == client);
            let over = state.fates.iter().rfind(|(_, fate)| fate.client == client);
            live.map(|(id, _)| *id).max(over.map(|(id, _)| *id))
        })
    }

    /// The connections that are not over.
    pub fn live(&self) -> Vec<ConnId> {
        self.handle.with(|state| state.connections.keys().copied().collect())
    }

    /// Drops the record of a connection that is over.
    pub fn forget_fate(&self, id: ConnId) {
        self.handle.with(|state| state.fates.remove(&id));
    }

    /// How many bytes have arrived in the kernel of `reader` and are unread.
    pub fn bytes_unread(&self, id: ConnId, reader: Side) -> u64 {
        self.handle.with(|state| {
            state.connections.get(&id).map_or(0, |connection| connection.pipes[reader.other()].unread())
        })
    }

    /// How much the network holds.
    pub fn stats(&self) -> Stats {
        self.handle.with(|state| state.stats())
    }

    /// A number that follows from every arrival and everything that happened, with its time.
    pub fn digest(&self) -> u64 {
        self.handle.with(|state| state.digest())
    }
}

/// An attempt to connect; dropped, it is given up.
struct Dialling<'a> {
    handle: &'a Handle,
    dial: u64,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.handle.with(|state| state.end_dial(self.dial));
    }
}

fn pairs<'a>(a: &'a [IpAddr], b: &'a [IpAddr]) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'a {
    a.iter().flat_map(move |a| b.iter().map(move |b| (*a, *b)))
}

fn block(state: &mut State, from: IpAddr, to: IpAddr) {
    if state.shared.links.block(from, to) {
        record(state, from, to, Happening::Blocked);
    }
}

fn repair(state: &mut State, from: IpAddr, to: IpAddr) {
    if state.shared.links.repair(from, to) {
        record(state, from, to, Happening::Repaired);
    }
}

/// Writes down what befell the way from one host to another, at every connection that uses it.
fn record(state: &mut State, from: IpAddr, to: IpAddr, what: impl Fn(Direction) -> Happening) {
    for side in Side::BOTH {
        state.with_connections(
            |connection| {
                connection.ends[side].address.ip() == from && connection.ends[side.other()].address.ip() == to
            },
            |connection, shared, now| connection.record(what(side.outward()), shared, now),
        );
    }
}

/// Lifts what is wrong with single connections, and has everything go on that can.
fn mend(state: &mut State, concerns: impl Fn(&Connection) -> bool) {
    state.with_connections(concerns, |connection: &mut Connection, shared: &mut Shared, now| {
        connection.repair(shared, now);
    });
    state.with_connections(|_| true, Connection::resume);
}
