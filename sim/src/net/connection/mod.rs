//! One connection: two ends, as their kernels see them, and the two pipes between them.
//!
//! It follows Linux: who resets whom and when, what a pending error does to the next read and write, when an
//! end gives up. It decides what of a pipe arrives, with the way as it is at that instant, and writes down
//! what happened. Its callers are the agenda's task, for what is due, and the sockets, for what the processes
//! do; each calls [`Connection::is_over`] afterwards.

mod arrivals;
mod calls;

use super::agenda::{Due, Key};
use super::fate::{Both, ConnId, Fate, Happening, Side, Why};
use super::kernel::Shared;
use super::links::Path;
use super::pipe::{Kind, Pipe};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// How long a kernel tries to deliver for a process that let go of its socket (`tcp_orphan_retries`).
const ORPHAN_PATIENCE: Duration = Duration::from_secs(100);
/// How long a kernel waits for the other end after that (`tcp_fin_timeout`).
const FIN_WAIT: Duration = Duration::from_secs(60);

/// One end, as its kernel sees it.
pub(super) struct End {
    pub(super) address: SocketAddr,
    user_timeout: Duration,
    /// Whether a process, or the queue of a listener, holds the socket.
    pub(super) is_open: bool,
    /// Whether the kernel has the connection.
    pub(super) is_alive: bool,
    /// Whether the host or the process is gone, so that nothing can be done with the socket any more.
    is_gone: bool,
    /// Whether both directions ended in order, so that late acknowledgements are no surprise.
    is_done: bool,
    aborts: bool,
    error: Option<ErrorKind>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    check: Option<Key>,
    closed_at: Option<Instant>,
    fin_acked_at: Option<Instant>,
}

impl End {
    fn new(address: SocketAddr, user_timeout: Duration, exists: bool) -> End {
        End {
            address,
            user_timeout,
            is_open: exists,
            is_alive: exists,
            is_gone: false,
            is_done: false,
            aborts: false,
            error: None,
            reader: None,
            writer: None,
            check: None,
            closed_at: None,
            fin_acked_at: None,
        }
    }

    fn wake(&mut self, shared: &mut Shared) {
        shared.wakes.extend(self.reader.take());
        shared.wakes.extend(self.writer.take());
    }
}

pub(super) struct Connection {
    id: ConnId,
    pub(super) ends: Both<End>,
    /// By the side that writes.
    pub(super) pipes: Both<Pipe>,
    pub(super) fate: Fate,
    /// How often the server's host had started when the connection was dialled.
    boot: u64,
    /// Whether a middlebox has forgotten the connection.
    is_forgotten: bool,
    /// Whether a middlebox ended it and resets whoever sends more.
    is_severed: bool,
    stalled_until: Option<Instant>,
}

impl Connection {
    /// A connection that the client's kernel takes for established; the server's hears of it when the last
    /// step of the handshake arrives.
    pub(super) fn dialled(
        id: ConnId,
        client: SocketAddr,
        server: SocketAddr,
        patience: Duration,
        shared: &mut Shared,
        now: Instant,
    ) -> Connection {
        let outward = shared.links.quality(client.ip(), server.ip());
        let inward = shared.links.quality(server.ip(), client.ip());
        let mut connection = Connection {
            id,
            ends: Both([End::new(client, patience, true), End::new(server, patience, false)]),
            pipes: Both([Pipe::with(outward, now), Pipe::with(inward, now)]),
            fate: Fate::between(client, server),
            boot: shared.boot(server.ip()),
            is_forgotten: false,
            is_severed: false,
            stalled_until: None,
        };
        connection.record(Happening::Dialled, shared, now);
        connection.pipes[Side::Client].depart(Kind::Open, 0, 0, now, &mut shared.rng);
        connection.schedule(Side::Client, shared, now);
        connection
    }

    pub(super) fn record(&mut self, happening: Happening, shared: &mut Shared, now: Instant) {
        shared.fold(self.id, 1, self.fate.happenings.len() as u64, now);
        self.fate.happenings.push((now, happening));
    }

    /// Whether nobody holds a socket and no kernel has the connection, or will have it.
    pub(super) fn is_over(&self) -> bool {
        let is_opening =
            self.pipes[Side::Client].flight.front().is_some_and(|first| first.kind == Kind::Open);
        !is_opening && Side::BOTH.iter().all(|side| !self.ends[*side].is_open && !self.ends[*side].is_alive)
    }

    /// Takes back everything that is due for a connection that is over, and closes the record.
    pub(super) fn finish(mut self, shared: &mut Shared) -> Fate {
        for side in Side::BOTH {
            shared.agenda.cancel(&mut self.ends[side].check);
            shared.agenda.cancel(&mut self.pipes[side].delivery);
            shared.agenda.cancel(&mut self.pipes[side].acknowledgement);
            let end = &mut self.ends[side];
            shared.spent.extend(end.reader.take());
            shared.spent.extend(end.writer.take());
        }
        let mut fate = self.fate_so_far();
        fate.client_unacked_since = None;
        fate.server_unacked_since = None;
        fate.over = true;
        fate
    }

    pub(super) fn fate_so_far(&self) -> Fate {
        let mut fate = self.fate.clone();
        fate.arrived_at_server = self.pipes[Side::Client].arrived();
        fate.arrived_at_client = self.pipes[Side::Server].arrived();
        fate.client_unacked_since = self.pipes[Side::Client].stuck_since();
        fate.server_unacked_since = self.pipes[Side::Server].stuck_since();
        fate
    }

    /// Whether what `from` sends arrives at `now`.
    fn path(&self, from: Side, shared: &Shared, now: Instant) -> Path {
        if self.is_forgotten {
            return Path::Dead;
        }
        let way = shared.path(self.ends[from].address.ip(), self.ends[from.other()].address.ip(), now);
        match (way, self.stalled_until.filter(|until| *until > now)) {
            (Path::Dead, _) => Path::Dead,
            (Path::Stalled(way), Some(own)) => Path::Stalled(way.max(own)),
            (Path::Open, Some(own)) => Path::Stalled(own),
            (way, None) => way,
        }
    }

    fn transmit(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        self.pipes[side].transmit(now, &mut shared.rng);
        self.schedule(side, shared, now);
        self.watch(side, shared);
    }

    /// The kernel of the reader of what `writer` sends tells what arrived and how much room there is.
    fn tell(&mut self, writer: Side, wait: Duration, shared: &mut Shared, now: Instant) {
        let at = now + wait + self.pipes[writer.other()].quality.latency;
        self.pipes[writer].tell(at);
        self.await_ack(writer, shared);
    }

    fn await_ack(&mut self, writer: Side, shared: &mut Shared) {
        let pipe = &mut self.pipes[writer];
        if pipe.acknowledgement.is_none()
            && let Some(at) = pipe.next_ack()
        {
            pipe.acknowledgement = Some(shared.agenda.put(at, Due::Acknowledge(self.id, writer)));
        }
    }

    fn schedule(&mut self, from: Side, shared: &mut Shared, now: Instant) {
        let pipe = &mut self.pipes[from];
        match pipe.flight.front() {
            Some(front) if !pipe.lost && pipe.delivery.is_none() => {
                let at = front.at.max(now);
                pipe.delivery = Some(shared.agenda.put(at, Due::Deliver(self.id, from)));
            }
            None => shared.agenda.cancel(&mut pipe.delivery),
            _ => {}
        }
    }

    /// The first segment from `from` is lost: it is sent again if there is still someone to do that.
    fn lose(&mut self, from: Side) {
        if self.ends[from].is_alive {
            self.pipes[from].lost = true;
        } else {
            self.pipes[from].forget_flight();
        }
    }

    /// The kernel of `side` sends a reset for a connection that it does not have any more.
    fn send_reset(&mut self, side: Side, why: Why, shared: &mut Shared, now: Instant) {
        if self.pipes[side].flight.back().is_some_and(|last| last.kind == Kind::Reset) {
            return;
        }
        self.record(Happening::Reset(side, why), shared, now);
        if self.path(side, shared, now) == Path::Dead {
            return self.pipes[side].forget_flight();
        }
        let end = self.pipes[side].sent();
        self.pipes[side].depart(Kind::Reset, end, 0, now, &mut shared.rng);
        self.schedule(side, shared, now);
    }

    /// The kernel of `side` forgets the connection; what it has sent travels on.
    fn forget(&mut self, side: Side, shared: &mut Shared) {
        self.ends[side].is_alive = false;
        shared.agenda.cancel(&mut self.ends[side].check);
        if self.pipes[side].lost {
            self.pipes[side].forget_flight();
        }
        self.pipes[side].forget_unsent();
    }

    /// The connection fails at `side`: the next read or write says why.
    fn fail(&mut self, side: Side, kind: ErrorKind, shared: &mut Shared) {
        self.forget(side, shared);
        self.pipes[side].forget_flight();
        shared.agenda.cancel(&mut self.pipes[side].delivery);
        let inward = &mut self.pipes[side.other()];
        if kind == ErrorKind::ConnectionReset && shared.discards(self.ends[side].address.ip()) {
            inward.discard_unread();
        }
        let end = &mut self.ends[side];
        // After the other end's end, a reset is a broken pipe (Linux, `tcp_reset`).
        let is_broken_pipe = kind == ErrorKind::ConnectionReset && inward.ended;
        end.error = Some(if is_broken_pipe { ErrorKind::BrokenPipe } else { kind });
        end.wake(shared);
    }

    /// An end that nobody holds is done once both directions have ended.
    fn settle(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        let end = &self.ends[side];
        if end.is_alive && !end.is_open && self.pipes[side].fin_acked() && self.pipes[side.other()].ended {
            self.ends[side].is_done = true;
            self.forget(side, shared);
            shared.fold(self.id, 4, side as u64, now);
        }
    }

    /// Until when `side` waits for what it waits for.
    fn patience(&self, side: Side) -> Option<Instant> {
        let (end, pipe) = (&self.ends[side], &self.pipes[side]);
        match (end.is_alive, pipe.stuck_since(), end.closed_at) {
            (false, ..) => None,
            (true, Some(since), None) => Some(since + end.user_timeout),
            (true, Some(since), Some(closed)) => {
                Some((since + end.user_timeout).min(since.max(closed) + ORPHAN_PATIENCE))
            }
            (true, None, Some(closed)) => end.fin_acked_at.map(|acked| acked.max(closed) + FIN_WAIT),
            (true, None, None) => None,
        }
    }

    /// Sees to it that the patience of `side` is looked at in time.
    fn watch(&mut self, side: Side, shared: &mut Shared) {
        if let Some(until) = self.patience(side)
            && self.ends[side].check.is_none_or(|(at, _)| until < at)
        {
            shared.agenda.cancel(&mut self.ends[side].check);
            self.ends[side].check = Some(shared.agenda.put(until, Due::Check(self.id, side)));
        }
    }
}
