//! What a session has to do with queues: its consumers, what each was given, and how much more it may be given.
//!
//! A delivery's number has the consumer's slot in its lowest bits, so that an acknowledgement leads to its consumer. A
//! consumer that was cancelled stays while it owes something. What must stay true: a consumer is given a message only
//! while it owes less than its credit, in messages and in bytes, or owes nothing at all.

use super::Place;
use super::line::{Keyed, Line};
use super::queue::{PRIORITIES, QueueRef};
use longwire_protocol::queue::AckMode;
use longwire_protocol::selector::Selector;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bits of a delivery's number that are the consumer's slot.
const SLOT_BITS: u32 = 12;

/// The slot of what is delivered through a lease.
pub(super) const LEASED: u16 = (1 << SLOT_BITS) - 1;

/// Bytes that a consumer may owe.
const OWED_BYTES: u64 = 1 << 20;

/// Bytes that may wait to be written to one session with deliveries that nobody acknowledges.
const UNWRITTEN_BYTES: u64 = 256 << 10;

/// What a message costs of those beside its headers and body.
const OVERHEAD: u64 = 64;

/// The largest credit in messages.
const MAX_PREFETCH: u32 = 65_535;

/// Which consumer is meant: the session's key in the engine and its slot there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ConsumerKey {
    pub(super) session: usize,
    pub(super) slot: u16,
}

/// The number of a delivery.
pub(super) fn delivery_number(count: u64, slot: u16) -> u64 {
    count << SLOT_BITS | u64::from(slot)
}

/// The slot in a delivery's number.
pub(super) fn slot_of(delivery: u64) -> u16 {
    (delivery & u64::from(LEASED)) as u16
}

/// A delivery that is not settled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owed {
    pub(super) delivery: u64,
    /// The message's order; 0 for one that was only shown.
    pub(super) order: u64,
    /// What it takes of the credit.
    pub(super) bytes: u32,
    pub(super) priority: u8,
}

impl Keyed for Owed {
    fn key(&self) -> u64 {
        self.delivery
    }
}

/// What a consumer is beside being one.
#[derive(Debug)]
pub(super) enum Kind {
    Plain,
    Selecting(Box<Selecting>),
    Browsing(Browsing),
}

/// How far a consumer with a selector has looked.
#[derive(Debug)]
pub(super) struct Selecting {
    pub(super) selector: Selector,
    /// By priority, the newest message that it has looked at.
    pub(super) seen: [u64; PRIORITIES],
    /// Messages that came back to their place behind that.
    pub(super) again: BTreeSet<(u8, u64)>,
}

/// How far somebody who only looks has come.
#[derive(Clone, Debug)]
pub(super) struct Browsing {
    /// Only messages that fit are shown.
    pub(super) selector: Option<Arc<Selector>>,
    pub(super) priority: u8,
    pub(super) after: u64,
    /// What is sent later is not shown.
    pub(super) before: u64,
    pub(super) is_done: bool,
}

/// Somebody who consumes.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) number: u32,
    pub(super) queue: QueueRef,
    pub(super) mode: AckMode,
    prefetch: u32,
    pub(super) owed: Line<Owed>,
    owed_bytes: u64,
    /// It is in its queue's list of those that are served.
    pub(super) is_hungry: bool,
    pub(super) is_cancelled: bool,
    pub(super) kind: Kind,
}

impl Consumer {
    pub(super) fn new(
        number: u32,
        queue: QueueRef,
        mode: AckMode,
        prefetch: Option<u32>,
        default_prefetch: usize,
        kind: Kind,
    ) -> Consumer {
        let prefetch = match (prefetch, mode) {
            (Some(0), _) | (None, AckMode::Auto) => MAX_PREFETCH,
            (Some(count), _) => count.min(MAX_PREFETCH),
            (None, _) => u32::try_from(default_prefetch).unwrap_or(MAX_PREFETCH).clamp(1, MAX_PREFETCH),
        };
        Consumer {
            number,
            queue,
            mode,
            prefetch,
            owed: Line::default(),
            owed_bytes: 0,
            is_hungry: false,
            is_cancelled: false,
            kind,
        }
    }
}

/// A session that consumes something, or did.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) place: Place,
    pub(super) slots: Vec<Option<Consumer>>,
    pub(super) by_number: BTreeMap<u32, u16>,
    /// Bytes of deliveries that nobody acknowledges and that are not written.
    unwritten: u64,
}

impl Session {
    pub(super) fn new(place: Place) -> Session {
        Session { place, slots: Vec::new(), by_number: BTreeMap::new(), unwritten: 0 }
    }

    pub(super) fn consumer(&self, slot: u16) -> Option<&Consumer> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    pub(super) fn consumer_mut(&mut self, slot: u16) -> Option<&mut Consumer> {
        self.slots.get_mut(usize::from(slot))?.as_mut()
    }

    /// Puts a consumer into a free slot, if there is one below `max`.
    pub(super) fn add(&mut self, consumer: Consumer, max: usize) -> Option<u16> {
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or(self.slots.len());
        let slot = u16::try_from(index).ok().filter(|slot| *slot < LEASED && index < max)?;
        self.by_number.insert(consumer.number, slot);
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(consumer);
        Some(slot)
    }

    /// Whether a consumer may be given a message of so many bytes.
    pub(super) fn has_credit(&self, slot: u16, bytes: u64) -> bool {
        let Some(consumer) = self.consumer(slot) else { return false };
        if consumer.is_cancelled || consumer.owed.len() >= consumer.prefetch as usize {
            return false;
        }
        let (taken, limit) = match consumer.mode {
            AckMode::Auto => (self.unwritten, UNWRITTEN_BYTES),
            AckMode::Cumulative | AckMode::Individual => (consumer.owed_bytes, OWED_BYTES),
        };
        // A message that is larger than the whole credit must be deliverable, too.
        taken == 0 || taken + bytes + OVERHEAD <= limit
    }

    /// Notes a delivery.
    pub(super) fn owe(&mut self, slot: u16, delivery: u64, order: u64, priority: u8, bytes: u64) {
        let Some(consumer) = self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut) else { return };
        let bytes = u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX);
        consumer.owed_bytes += u64::from(bytes);
        if consumer.mode == AckMode::Auto {
            self.unwritten += u64::from(bytes);
        }
        // Numbers grow, so there is none of this one.
        let _ = consumer.owed.insert(Owed { delivery, order, bytes, priority });
    }

    /// Takes a delivery from what a consumer owes.
    pub(super) fn settle(&mut self, slot: u16, delivery: u64) -> Option<Owed> {
        let consumer = self.slots.get_mut(usize::from(slot))?.as_mut()?;
        let owed = consumer.owed.remove(delivery)?;
        consumer.owed_bytes -= u64::from(owed.bytes);
        if consumer.mode == AckMode::Auto {
            self.unwritten -= u64::from(owed.bytes);
        }
        Some(owed)
    }

    /// Puts back what was settled in vain.
    pub(super) fn unsettle(&mut self, slot: u16, owed: Owed) {
        let Some(consumer) = self.slots.get_mut(usize::from(slot)).and_then(Option::as_mut) else { return };
        consumer.owed_bytes += u64::from(owed.bytes);
        if consumer.mode == AckMode::Auto {
            self.unwritten += u64::from(owed.bytes);
        }
        let _ = consumer.owed.insert(owed);
    }

    /// Whether deliveries that nobody acknowledges wait to be written, beyond what one more may.
    pub(super) fn is_choked(&self) -> bool {
        self.unwritten > UNWRITTEN_BYTES / 2
    }

    /// Frees the slot of a consumer that is cancelled and owes nothing.
    pub(super) fn tidy(&mut self, slot: u16) {
        let place = self.slots.get_mut(usize::from(slot));
        if let Some(place) = place
            && place.as_ref().is_some_and(|consumer| consumer.is_cancelled && consumer.owed.is_empty())
        {
            *place = None;
        }
    }
}
