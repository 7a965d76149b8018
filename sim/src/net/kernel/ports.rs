//! Ports: connecting, listening, accepting. An attempt to connect is a segment there and an answer back; the
//! connection begins when the answer is taken, and reaches its listener with the last step of the handshake.

use super::super::agenda::Due;
use super::super::connection::Connection;
use super::super::fate::{ConnId, Direction, Happening, Side};
use super::super::links::Path;
use super::{Dial, FIRST_PORT, Listening, State};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::task::{Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

impl State {
    fn free_port(&mut self, ip: IpAddr) -> u16 {
        let used = |port: u16, state: &State| {
            let address = SocketAddr::new(ip, port);
            state.connections.values().any(|connection| connection.fate.client == address)
                || state.dials.values().any(|dial| dial.from == address)
        };
        loop {
            let host = self.shared.hosts.entry(ip).or_default();
            let port = host.next_port;
            host.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
            let is_listening = host.listening.contains_key(&port);
            // Only after the ports have gone round can one be in use.
            if !is_listening && !used(port, self) {
                return port;
            }
        }
    }

    pub(in crate::net) fn begin_dial(&mut self, ip: IpAddr, to: SocketAddr) -> u64 {
        let from = SocketAddr::new(ip, self.free_port(ip));
        let dial = self.next_id;
        self.next_id += 1;
        self.dials.insert(dial, Dial { from, to, answer: None, waker: None });
        dial
    }

    pub(in crate::net) fn end_dial(&mut self, dial: u64) {
        if let Some(dial) = self.dials.remove(&dial) {
            self.shared.spent.extend(dial.waker);
        }
    }

    pub(in crate::net) fn send_syn(&mut self, dial: u64) {
        if let Some((from, to)) = self.dials.get(&dial).map(|dial| (dial.from, dial.to)) {
            let at = Instant::now() + self.delay(from.ip(), to.ip());
            self.shared.agenda.put(at, Due::Syn(dial));
        }
    }

    fn delay(&mut self, from: IpAddr, to: IpAddr) -> Duration {
        let quality = self.shared.links.quality(from, to);
        quality.latency + quality.jitter.mul_f64(self.shared.rng.fraction())
    }

    pub(super) fn syn_arrives(&mut self, dial: u64, now: Instant) {
        let Some(Dial { from, to, .. }) = self.dials.get(&dial) else { return };
        let (from, to) = (*from, *to);
        match self.shared.path(from.ip(), to.ip(), now) {
            Path::Dead => {}
            Path::Stalled(until) => {
                self.shared.agenda.put(until, Due::Syn(dial));
            }
            Path::Open => {
                let accepted = match self.shared.listening(to) {
                    // As Linux does, a full queue says nothing: the next attempt may find room.
                    Some(listening) if listening.is_full() => return,
                    listening => listening.is_some(),
                };
                let at = now + self.delay(to.ip(), from.ip());
                self.shared.agenda.put(at, Due::Answer(dial, accepted));
            }
        }
    }

    pub(super) fn answer_arrives(&mut self, dial: u64, accepted: bool, now: Instant) {
        let Some(Dial { from, to, .. }) = self.dials.get(&dial) else { return };
        match self.shared.path(to.ip(), from.ip(), now) {
            Path::Dead => {}
            Path::Stalled(until) => {
                self.shared.agenda.put(until, Due::Answer(dial, accepted));
            }
            Path::Open => {
                if let Some(dial) = self.dials.get_mut(&dial) {
                    dial.answer.get_or_insert(accepted);
                    self.shared.wakes.extend(dial.waker.take());
                }
            }
        }
    }

    /// The answer to an attempt: `Ok` names the connection, `Err` is a refusal.
    pub(in crate::net) fn poll_dial(
        &mut self,
        dial: u64,
        patience: Duration,
        waker: &Waker,
    ) -> Poll<Result<(ConnId, SocketAddr), ()>> {
        let Some(entry) = self.dials.get_mut(&dial) else { return Poll::Pending };
        let (from, to) = (entry.from, entry.to);
        match entry.answer {
            None => {
                self.shared.replace(&mut entry.waker, waker);
                Poll::Pending
            }
            Some(false) => Poll::Ready(Err(())),
            Some(true) => {
                self.end_dial(dial);
                let id = ConnId(self.next_id);
                self.next_id += 1;
                let now = Instant::now();
                let mut connection = Connection::dialled(id, from, to, patience, &mut self.shared, now);
                // A block can have come since the answer arrived.
                for (direction, from, to) in
                    [(Direction::ToServer, from.ip(), to.ip()), (Direction::ToClient, to.ip(), from.ip())]
                {
                    if self.shared.links.is_blocked(from, to) {
                        connection.record(Happening::Blocked(direction), &mut self.shared, now);
                    }
                }
                self.connections.insert(id, connection);
                Poll::Ready(Ok((id, from)))
            }
        }
    }

    // Listening.

    /// Listens; `None` if the port is taken.
    pub(in crate::net) fn listen(
        &mut self,
        ip: IpAddr,
        port: u16,
        user_timeout: Duration,
    ) -> Option<(SocketAddr, u64)> {
        let port = if port == 0 { self.free_port(ip) } else { port };
        let host = self.shared.hosts.entry(ip).or_default();
        if !host.is_up || host.listening.contains_key(&port) {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        host.listening.insert(port, Listening { id, user_timeout, queue: VecDeque::new(), waker: None });
        Some((SocketAddr::new(ip, port), id))
    }

    pub(in crate::net) fn poll_accept(
        &mut self,
        address: SocketAddr,
        id: u64,
        waker: &Waker,
    ) -> Poll<(ConnId, SocketAddr)> {
        let host = self.shared.hosts.entry(address.ip()).or_default();
        // The listener of a host that lost power waits for ever.
        let Some(listening) = host.listening.get_mut(&address.port()).filter(|listening| listening.id == id)
        else {
            return Poll::Pending;
        };
        let Some(next) = listening.queue.pop_front() else {
            let mut place = listening.waker.take();
            self.shared.replace(&mut place, waker);
            if let Some(listening) = self.shared.listening(address) {
                listening.waker = place;
            }
            return Poll::Pending;
        };
        let client = self.with_connection(next, |connection, shared, now| {
            connection.accepted(shared, now);
            connection.fate.client
        });
        Poll::Ready((next, client.expect("what is in a queue is open, so it is not over")))
    }

    /// Ends a listener: whom nobody accepted is reset, or left without a word if the host is gone.
    pub(in crate::net) fn unlisten(&mut self, address: SocketAddr, id: u64) {
        if let Some(host) = self.shared.hosts.get_mut(&address.ip())
            && host.listening.get(&address.port()).is_some_and(|listening| listening.id == id)
            && let Some(listening) = host.listening.remove(&address.port())
        {
            self.shared.spent.extend(listening.waker);
            for id in listening.queue {
                self.with_connection(id, |connection, shared, now| {
                    connection.abort_on_close(Side::Server);
                    connection.close(Side::Server, shared, now);
                });
            }
        }
    }

    pub(in crate::net) fn unlisten_all(&mut self, ip: IpAddr) {
        let listening: Vec<(u16, u64)> = self
            .shared
            .hosts
            .get(&ip)
            .map(|host| host.listening.iter().map(|(port, listening)| (*port, listening.id)).collect())
            .unwrap_or_default();
        for (port, id) in listening {
            self.unlisten(SocketAddr::new(ip, port), id);
        }
    }
}
