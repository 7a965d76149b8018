//! What the network does to a connection: segments, acknowledgements and resets arrive or are lost, patience runs
//! out, middleboxes meddle, and after a repair what was lost is sent again.

use super::super::agenda::Due;
use super::super::fate::{Cut, Direction, Happening, Side, Why};
use super::super::kernel::Shared;
use super::super::links::Path;
use super::super::pipe::{Kind, Segment};
use super::{Connection, End};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

/// How late a lost segment is sent again at most, after the way is good again.
const RETRANSMISSION: Duration = Duration::from_secs(3);
/// When the last step of a handshake is tried again that met a full queue.
const QUEUE_RETRY: Duration = Duration::from_secs(1);

impl Connection {
    pub(in crate::net) fn deliver(&mut self, from: Side, shared: &mut Shared, now: Instant) {
        self.pipes[from].delivery = None;
        match self.path(from, shared, now) {
            Path::Open => {}
            Path::Stalled(until) => {
                self.pipes[from].delivery = Some(shared.agenda.put(until, Due::Deliver(self.id, from)));
                return;
            }
            Path::Dead => return self.lose(from),
        }
        while let Some(segment) = self.pipes[from].flight.front().copied().filter(|front| front.at <= now) {
            if !self.arrive(from, segment, shared, now) {
                break;
            }
        }
        self.schedule(from, shared, now);
    }

    /// Has the first segment from `from` arrive; whether the next one may.
    fn arrive(&mut self, from: Side, segment: Segment, shared: &mut Shared, now: Instant) -> bool {
        let to = from.other();
        shared.fold(self.id, 2 + from as u64, segment.end, now);
        match segment.kind {
            Kind::Reset => {
                self.pipes[from].flight.pop_front();
                if self.ends[to].is_alive {
                    self.record(Happening::ResetArrived(to), shared, now);
                    self.fail(to, ErrorKind::ConnectionReset, shared);
                }
                return true;
            }
            Kind::Open => return self.open(shared, now),
            Kind::Data if self.is_severed => {
                self.pipes[from].flight.pop_front();
                self.reset_by_network(from, shared, now);
                return true;
            }
            Kind::Data if self.ends[to].is_alive && !self.ends[to].is_open => {
                // RFC 9293, 3.10.7.4: bytes for a process that is gone.
                self.forget(to, shared);
            }
            Kind::Data | Kind::Fin => {}
        }
        // Who is done still acknowledges an end (RFC 9293, 3.6: TIME-WAIT).
        if !self.ends[to].is_alive && !self.ends[to].is_done {
            if self.ends[from].is_alive {
                // Until the answer arrives, the sender goes on trying.
                self.pipes[from].lost = true;
                self.send_reset(to, Why::Answer, shared, now);
                return false;
            }
            self.pipes[from].flight.pop_front();
            return true;
        }
        let pipe = &mut self.pipes[from];
        if segment.kind == Kind::Fin {
            pipe.flight.pop_front();
            pipe.fin_arrived = true;
            pipe.ended = true;
            self.record(Happening::FinArrived(to), shared, now);
            self.tell(from, Duration::ZERO, shared, now);
            self.settle(to, shared, now);
        } else {
            match pipe.cut {
                Some((limit, how)) if limit <= segment.end => {
                    if limit == segment.end {
                        pipe.flight.pop_front();
                    }
                    pipe.arrive(limit, false);
                    self.tell(from, Duration::ZERO, shared, now);
                    self.cut(from.outward(), how, shared, now);
                }
                _ => {
                    pipe.flight.pop_front();
                    pipe.arrive(segment.end, segment.stop);
                    self.tell(from, Duration::ZERO, shared, now);
                }
            }
        }
        shared.wakes.extend(self.ends[to].reader.take());
        !self.is_forgotten
    }

    /// Has the last step of the handshake arrive; whether the next segment may.
    fn open(&mut self, shared: &mut Shared, now: Instant) -> bool {
        let (server, boot) = (self.ends[Side::Server].address, self.boot);
        let is_same_boot = shared.boot(server.ip()) == boot;
        match shared.listening(server).filter(|_| is_same_boot) {
            Some(listening) if listening.is_full() => {
                self.pipes[Side::Client].delay(now + QUEUE_RETRY);
                return false;
            }
            Some(listening) => {
                self.ends[Side::Server] = End::new(server, listening.user_timeout, true);
                let waker = listening.push(self.id);
                shared.wakes.extend(waker);
                self.record(Happening::Queued, shared, now);
            }
            // Who dialled was heard; the listener is gone since.
            None => self.send_reset(Side::Server, Why::Answer, shared, now),
        }
        self.pipes[Side::Client].flight.pop_front();
        true
    }

    pub(in crate::net) fn acknowledge(&mut self, writer: Side, shared: &mut Shared, now: Instant) {
        self.pipes[writer].acknowledgement = None;
        match self.path(writer.other(), shared, now) {
            Path::Open => {}
            Path::Stalled(until) => {
                let key = shared.agenda.put(until, Due::Acknowledge(self.id, writer));
                self.pipes[writer].acknowledgement = Some(key);
                return;
            }
            Path::Dead => {
                self.pipes[writer].lose_acks();
                self.pipes[writer].ack_lost = true;
                return;
            }
        }
        if !self.ends[writer].is_alive {
            self.pipes[writer].lose_acks();
            if !self.ends[writer].is_done && self.ends[writer.other()].is_alive {
                self.send_reset(writer, Why::Answer, shared, now);
            }
            return;
        }
        self.pipes[writer].acknowledge(now);
        if self.pipes[writer].fin_acked() {
            self.ends[writer].fin_acked_at.get_or_insert(now);
        }
        self.transmit(writer, shared, now);
        if self.pipes[writer].is_writable() {
            shared.wakes.extend(self.ends[writer].writer.take());
        }
        self.settle(writer, shared, now);
        self.await_ack(writer, shared);
    }

    /// The patience of `side` may have run out.
    pub(in crate::net) fn check(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        self.ends[side].check = None;
        match self.patience(side) {
            Some(until) if until <= now => match self.pipes[side].stuck_since() {
                Some(since) => {
                    self.record(Happening::TimedOut { side, since }, shared, now);
                    self.fail(side, ErrorKind::TimedOut, shared);
                }
                // It closed, and the other end never did.
                None => self.forget(side, shared),
            },
            _ => self.watch(side, shared),
        }
    }

    /// A middlebox resets both ends, where it can reach them.
    pub(in crate::net) fn reset_both(&mut self, shared: &mut Shared, now: Instant) {
        for side in Side::BOTH {
            if self.path(side.other(), shared, now) != Path::Dead {
                self.reset_by_network(side, shared, now);
            }
        }
    }

    fn reset_by_network(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        if self.ends[side].is_alive {
            self.record(Happening::ResetByNetwork(side), shared, now);
            self.fail(side, ErrorKind::ConnectionReset, shared);
        }
    }

    /// Cuts the connection once `bytes` more have arrived in `direction`.
    pub(in crate::net) fn cut_after(
        &mut self,
        direction: Direction,
        bytes: u64,
        how: Cut,
        shared: &mut Shared,
        now: Instant,
    ) {
        let pipe = &mut self.pipes[direction.writer()];
        if bytes == 0 {
            self.cut(direction, how, shared, now);
        } else {
            pipe.cut = Some((pipe.arrived() + bytes, how));
        }
    }

    fn cut(&mut self, direction: Direction, how: Cut, shared: &mut Shared, now: Instant) {
        self.pipes[direction.writer()].cut = None;
        self.record(Happening::Cut(direction, how), shared, now);
        match how {
            Cut::Reset => self.reset_both(shared, now),
            Cut::Vanish => self.is_forgotten = true,
            Cut::Fin => {
                self.is_severed = true;
                for side in Side::BOTH {
                    self.pipes[side].ended = true;
                    shared.wakes.extend(self.ends[side.other()].reader.take());
                }
                for side in Side::BOTH {
                    self.settle(side, shared, now);
                }
            }
        }
    }

    pub(in crate::net) fn stall(&mut self, span: Duration, shared: &mut Shared, now: Instant) {
        self.stalled_until = self.stalled_until.max(Some(now + span));
        for side in Side::BOTH {
            self.record(Happening::Stalled(side.outward(), span), shared, now);
        }
    }

    /// Lifts what is wrong with this connection alone.
    pub(in crate::net) fn repair(&mut self, shared: &mut Shared, now: Instant) {
        self.stalled_until = None;
        if std::mem::take(&mut self.is_forgotten) {
            self.record(Happening::CutRepaired, shared, now);
        }
    }

    /// After a fault was lifted: what was lost and can pass is sent again, after a while.
    pub(in crate::net) fn resume(&mut self, shared: &mut Shared, now: Instant) {
        for from in Side::BOTH {
            let passes = self.path(from, shared, now) != Path::Dead;
            let returns = self.path(from.other(), shared, now) != Path::Dead;
            if passes && self.pipes[from].lost {
                self.pipes[from].lost = false;
                if self.ends[from].is_alive {
                    let wait = self.retransmission(from, shared, now);
                    let at = now + wait + self.pipes[from].quality.latency;
                    self.pipes[from].delay(at);
                } else {
                    self.pipes[from].forget_flight();
                }
            }
            if passes && returns && self.pipes[from].ack_lost {
                self.pipes[from].ack_lost = false;
                let wait = self.retransmission(from, shared, now);
                if self.ends[from.other()].is_alive || self.ends[from.other()].is_done {
                    self.tell(from, wait, shared, now);
                } else if self.ends[from].is_alive && self.pipes[from].stuck_since().is_some() {
                    self.send_reset(from.other(), Why::Answer, shared, now);
                }
            }
            shared.agenda.cancel(&mut self.pipes[from].delivery);
            shared.agenda.cancel(&mut self.pipes[from].acknowledgement);
            self.schedule(from, shared, now);
            self.await_ack(from, shared);
        }
    }

    /// How long it takes until a lost segment of `from` is sent again: up to some seconds, but not past what
    /// is left of its patience, as Linux has it.
    fn retransmission(&self, from: Side, shared: &mut Shared, now: Instant) -> Duration {
        let left = self.patience(from).map_or(RETRANSMISSION, |until| until.duration_since(now) / 2);
        RETRANSMISSION.min(left).mul_f64(shared.rng.fraction())
    }
}
