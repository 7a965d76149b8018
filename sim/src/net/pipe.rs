//! One direction of a connection: the bytes and how far each of them is.
//!
//! A stream position rises from read to arrived to sent to written; the bytes between the first and the last
//! are held once. The writer knows of arrivals only by acknowledgements, which travel back and carry the edge
//! up to which the reader's kernel has room. The end of the stream takes one position after the last byte, as
//! in TCP. Nothing here knows about faults: the connection decides what arrives.

use super::agenda::Key;
use super::fate::Cut;
use super::links::Quality;
use longwire::env::Rng;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;
use tokio::time::Instant;

/// The largest number of bytes in a segment.
const MAX_SEGMENT: u64 = 1448;

/// What a segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The last step of the handshake.
    Open,
    Data,
    Fin,
    Reset,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) kind: Kind,
    /// The position after it.
    pub(super) end: u64,
    /// When it arrives.
    pub(super) at: Instant,
    /// Whether a read stops behind it even if more is there.
    pub(super) stop: bool,
}

#[derive(Clone, Copy)]
struct Ack {
    at: Instant,
    up_to: u64,
    edge: u64,
}

/// How far the writer's end of the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Open,
    Queued,
    Sent,
}

pub(super) struct Pipe {
    /// From `read` up to `written`.
    bytes: VecDeque<u8>,
    read: u64,
    arrived: u64,
    sent: u64,
    written: u64,
    pub(super) ending: Ending,
    /// Whether the writer's end arrived.
    pub(super) fin_arrived: bool,
    /// Whether the reader sees an end, be it the writer's or a middlebox's.
    pub(super) ended: bool,
    /// The writer's knowledge: what arrived, and up to where there is room.
    acked: u64,
    edge: u64,
    /// The last edge that the reader told.
    told: u64,
    /// Sent and neither arrived nor given up; in order of arrival.
    pub(super) flight: VecDeque<Segment>,
    acks: VecDeque<Ack>,
    /// The time of departure of what is not acknowledged: positions up to which, and when.
    departures: VecDeque<(u64, Instant)>,
    /// Since when there is something to send and no room for it.
    shut_since: Option<Instant>,
    /// Positions at which a read stops.
    stops: VecDeque<u64>,
    /// When the way can take the next segment.
    free_at: Instant,
    last_arrival: Instant,
    pub(super) quality: Quality,
    /// Whether the writer found no room and waits for plenty.
    starved: bool,
    /// Whether the first segment was lost and waits to be sent again.
    pub(super) lost: bool,
    /// Whether an acknowledgement was lost and waits to be sent again.
    pub(super) ack_lost: bool,
    /// The position at which the connection is cut.
    pub(super) cut: Option<(u64, Cut)>,
    pub(super) delivery: Option<Key>,
    pub(super) acknowledgement: Option<Key>,
}

impl Pipe {
    pub(super) fn with(quality: Quality, now: Instant) -> Pipe {
        let mut pipe = Pipe {
            bytes: VecDeque::new(),
            read: 0,
            arrived: 0,
            sent: 0,
            written: 0,
            ending: Ending::Open,
            fin_arrived: false,
            ended: false,
            acked: 0,
            edge: 0,
            told: 0,
            flight: VecDeque::new(),
            acks: VecDeque::new(),
            departures: VecDeque::new(),
            shut_since: None,
            stops: VecDeque::new(),
            free_at: now,
            last_arrival: now,
            quality,
            starved: false,
            lost: false,
            ack_lost: false,
            cut: None,
            delivery: None,
            acknowledgement: None,
        };
        pipe.edge = pipe.receive_buffer();
        pipe.told = pipe.edge;
        pipe
    }

    fn receive_buffer(&self) -> u64 {
        (self.quality.window as u64 / 2).max(1)
    }

    fn send_buffer(&self) -> u64 {
        (self.quality.window as u64).saturating_sub(self.receive_buffer()).max(1)
    }

    // The writer's side.

    /// Bytes that occupy the writer's kernel.
    fn unacked(&self) -> u64 {
        // The end is acknowledged as one position more than there are bytes.
        self.written.saturating_sub(self.acked)
    }

    /// Whether a write takes anything. Once one did not, there must be a third free, as on Linux.
    pub(super) fn is_writable(&mut self) -> bool {
        let (used, all) = (self.unacked(), self.send_buffer());
        if self.starved && used * 3 <= all * 2 {
            self.starved = false;
        }
        !self.starved && used < all
    }

    /// Takes what fits; `None` if nothing does.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> Option<usize> {
        if !self.is_writable() {
            self.starved = true;
            return None;
        }
        let mut room = (self.send_buffer() - self.unacked()) as usize;
        let mut taken = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            self.bytes.extend(part);
            room -= part.len();
            taken += part.len();
        }
        self.written += taken as u64;
        Some(taken)
    }

    /// Sends what there is room for, and the end behind it if it was asked for.
    pub(super) fn transmit(&mut self, now: Instant, rng: &mut Rng) {
        let before = self.sent;
        loop {
            let available = self.written.min(self.edge).saturating_sub(self.sent);
            if available == 0 {
                break;
            }
            let most = available.min(MAX_SEGMENT);
            let chance = rng.bits();
            // Long runs stay mostly in one piece, short writes often do not.
            let whole = if most == MAX_SEGMENT { 7 } else { 4 };
            let length = if chance % 8 < whole { most } else { 1 + (chance >> 3) % most };
            self.sent += length;
            self.depart(Kind::Data, self.sent, length, now, rng);
        }
        if self.sent < self.written {
            if self.sent > before || self.shut_since.is_none() {
                self.shut_since = Some(now);
            }
            return;
        }
        self.shut_since = None;
        if self.ending == Ending::Queued {
            self.ending = Ending::Sent;
            self.depart(Kind::Fin, self.written + 1, 0, now, rng);
        }
    }

    /// Puts a segment on the way.
    pub(super) fn depart(&mut self, kind: Kind, end: u64, length: u64, now: Instant, rng: &mut Rng) {
        let departure = now.max(self.free_at);
        if let Some(rate) = self.quality.bytes_per_second {
            self.free_at = departure + Duration::from_secs_f64(length as f64 / rate.max(1) as f64);
        }
        let jitter = self.quality.jitter.mul_f64(rng.fraction());
        let at = (departure.max(self.free_at) + self.quality.latency + jitter).max(self.last_arrival);
        self.last_arrival = at;
        let stop = kind == Kind::Data && rng.bits().is_multiple_of(4);
        self.flight.push_back(Segment { kind, end, at, stop });
        if matches!(kind, Kind::Data | Kind::Fin) {
            match self.departures.back_mut() {
                Some(last) if last.1 == departure => last.0 = end,
                _ => self.departures.push_back((end, departure)),
            }
        }
    }

    /// Position after what is sent and was not lost before; where a reset goes.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Has everything under way arrive at `at` or later.
    pub(super) fn delay(&mut self, at: Instant) {
        for segment in &mut self.flight {
            segment.at = segment.at.max(at);
        }
        self.last_arrival = self.last_arrival.max(at);
    }

    /// Takes note of the acknowledgements that arrive at `now`.
    pub(super) fn acknowledge(&mut self, now: Instant) {
        while let Some(ack) = self.acks.front().filter(|ack| ack.at <= now) {
            self.acked = self.acked.max(ack.up_to);
            self.edge = self.edge.max(ack.edge);
            self.acks.pop_front();
        }
        while self.departures.front().is_some_and(|(end, _)| *end <= self.acked) {
            self.departures.pop_front();
        }
    }

    /// Whether the end was sent and acknowledged.
    pub(super) fn fin_acked(&self) -> bool {
        self.ending == Ending::Sent && self.acked > self.written
    }

    /// Since when the oldest byte is unacknowledged, or else cannot be sent for lack of room.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.departures.front().map(|(_, at)| *at).or(self.shut_since)
    }

    /// Forgets what was not sent, as a kernel does that forgets the connection.
    pub(super) fn forget_unsent(&mut self) {
        self.written = self.sent;
        self.bytes.truncate((self.sent - self.read) as usize);
        self.departures.clear();
        self.shut_since = None;
    }

    /// Forgets what did not arrive.
    pub(super) fn forget_flight(&mut self) {
        self.flight.clear();
        self.lost = false;
        self.sent = self.arrived;
        self.forget_unsent();
    }

    // The reader's side.

    /// Bytes that can be read.
    pub(super) fn unread(&self) -> u64 {
        self.arrived - self.read
    }

    /// Bytes held.
    pub(super) fn held(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Bytes that arrived since the beginning.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived
    }

    /// The bytes up to `end` are in the reader's kernel.
    pub(super) fn arrive(&mut self, end: u64, stop: bool) {
        self.arrived = end;
        if stop {
            self.stops.push_back(end);
        }
    }

    /// Gives the next bytes to the reader: all that fit, or those before the next stop.
    pub(super) fn take(&mut self, scratch: &mut [u8]) -> usize {
        while self.stops.front().is_some_and(|stop| *stop <= self.read) {
            self.stops.pop_front();
        }
        let there = self.stops.front().map_or(self.arrived, |stop| *stop) - self.read;
        let count = scratch.len().min(there as usize);
        let (front, back) = self.bytes.as_slices();
        let first = front.len().min(count);
        scratch[..first].copy_from_slice(&front[..first]);
        scratch[first..count].copy_from_slice(&back[..count - first]);
        self.bytes.drain(..count);
        self.read += count as u64;
        count
    }

    /// Throws away what arrived and was not read.
    pub(super) fn discard_unread(&mut self) {
        self.bytes.drain(..(self.arrived - self.read) as usize);
        self.read = self.arrived;
        self.stops.clear();
    }

    /// Whether reading made so much room that the writer must hear of it.
    pub(super) fn has_much_room(&self) -> bool {
        let edge = self.read + self.receive_buffer();
        !self.fin_arrived && edge >= self.told + (self.receive_buffer() / 2).clamp(1, MAX_SEGMENT)
    }

    /// Tells the writer, who hears of it at `at`, what arrived and up to where there is room.
    pub(super) fn tell(&mut self, at: Instant) {
        self.told = self.told.max(self.read + self.receive_buffer());
        let up_to = self.arrived + u64::from(self.fin_arrived);
        match self.acks.back_mut() {
            // One a millisecond is what the clock can tell apart.
            Some(last) if at < last.at + Duration::from_millis(1) => {
                last.up_to = up_to;
                last.edge = self.told;
            }
            _ => self.acks.push_back(Ack { at, up_to, edge: self.told }),
        }
    }

    /// When the next acknowledgement arrives.
    pub(super) fn next_ack(&self) -> Option<Instant> {
        self.acks.front().map(|ack| ack.at)
    }

    /// Loses the acknowledgements under way; the next one that arrives says all that they said.
    pub(super) fn lose_acks(&mut self) {
        self.acks.clear();
    }
}
