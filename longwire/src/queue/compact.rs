//! Gives room on the disk back: segments in which nothing is needed any more go, oldest first, and what is still needed
//! in the oldest is written again when most of the disk's bytes are not.
//!
//! It works between two groups, when nothing is under way: a copy is never behind the record that its message is done.
//! What must stay true: a segment goes only when nothing in it is needed; a segment of which something cannot be read
//! stays.

use super::engine::Engine;
use super::ops::{Op, Whom};
use super::queue::{Declared, QueueRef};
use super::record::{self, Record};
use crate::journal::{JournalError, Scan};

/// Bytes of a segment that are looked at in one turn.
const STEP_BYTES: u64 = 512 << 10;

/// Segments that may be of no use before anything is written again.
const SPARE_SEGMENTS: u64 = 4;

impl Engine {
    /// Counts bytes that are needed in a segment, or no more.
    pub(super) fn add_live(&mut self, segment: u32, bytes: i64) {
        // What was released is counted no more.
        let Some(index) = segment.checked_sub(self.live_base).map(|index| index as usize) else { return };
        if self.live.len() <= index {
            self.live.resize(index + 1, 0);
        }
        let live = &mut self.live[index];
        debug_assert!(live.checked_add_signed(bytes).is_some(), "more bytes are done than were needed");
        *live = live.saturating_add_signed(bytes);
    }

    fn live_in(&self, segment: u32) -> u64 {
        let index = segment.checked_sub(self.live_base).map(|index| index as usize);
        index.and_then(|index| self.live.get(index)).copied().unwrap_or(0)
    }

    /// Releases and copies what it is time for; true if there is more to do.
    pub(super) fn maintain(&mut self) -> bool {
        if self.is_failing || self.is_unread || !self.ops.is_empty() {
            return false;
        }
        if let Err(error) = self.release() {
            self.note_disk_error(&error);
            return false;
        }
        if self.scan.is_none() && self.is_worth_copying() {
            self.scan = Some(Scan::of(self.store.segments().start));
        }
        match self.copy() {
            Ok(has_more) => has_more,
            Err(error) => {
                self.stuck = Some(self.store.segments().start);
                self.scan = None;
                tracing::error!(%error, "queues: the oldest segment cannot be read, and stays on the disk");
                self.counters.disk_errors.add(1);
                false
            }
        }
    }

    fn release(&mut self) -> Result<(), JournalError> {
        loop {
            let segments = self.store.segments();
            while self.live_base < segments.start {
                self.live.pop_front();
                self.live_base += 1;
            }
            // One that is being read may have had its last bytes written again.
            let is_read = self.scan.as_ref().is_some_and(|scan| scan.segment() == segments.start);
            if segments.len() < 2 || self.live_in(segments.start) > 0 || is_read {
                return Ok(());
            }
            self.store.release_oldest()?;
            if self.store.segments().start == segments.start {
                return Ok(());
            }
        }
    }

    fn is_worth_copying(&self) -> bool {
        let segments = self.store.segments();
        if segments.len() < 2 || self.stuck == Some(segments.start) {
            return false;
        }
        let (disk, live, size) =
            (self.store.disk_bytes(), self.live.iter().sum::<u64>(), self.store.segment_size());
        match self.is_short_of_room() {
            // A fifth more than is needed must do.
            true => disk > live + live / 5 + size,
            false => disk > 2 * live + SPARE_SEGMENTS * size,
        }
    }

    /// Writes again what is needed of the oldest segment; true if there is more of it.
    fn copy(&mut self) -> Result<bool, JournalError> {
        let Some(mut scan) = self.scan.take() else { return Ok(false) };
        let segment = scan.segment();
        let mut copies: Vec<(Op, u8, Vec<u8>)> = Vec::new();
        let Engine { store, queues, by_number, .. } = self;
        let is_done = store.scan(&mut scan, STEP_BYTES, &mut |spot, _, kind, payload| {
            let kind = kind & !record::IN_TRANSACTION;
            match record::decode(kind, payload) {
                Some(Record::Message { head, .. }) => {
                    let Some(slot) = by_number.get(&head.queue) else { return };
                    let Some(entry) = queues[*slot].get(head.priority, head.order) else { return };
                    if entry.spot != spot || !entry.is_persistent {
                        return;
                    }
                    let mut payload = payload.to_vec();
                    let head = record::MessageHead { deliveries: entry.deliveries, ..head };
                    payload[..record::MESSAGE_HEAD].copy_from_slice(&head.encode());
                    let queue = QueueRef { slot: *slot as u32, number: head.queue };
                    let (order, priority) = (head.order, head.priority);
                    copies.push((Op::Copied { queue, order, priority, ticket: 0 }, kind, payload));
                }
                Some(Record::Queue { number, .. }) => {
                    let Some(slot) = by_number.get(&number) else { return };
                    let queue = &queues[*slot];
                    if queue.declared != Declared::At(spot, payload.len() as u32) {
                        return;
                    }
                    let before = queue.durable_of.clone();
                    let queue = QueueRef { slot: *slot as u32, number };
                    let length = payload.len() as u32;
                    let was = Declared::At(spot, length);
                    let op = Op::Declared { queue, ticket: 0, length, before, was };
                    copies.push((op, kind, payload.to_vec()));
                }
                _ => {}
            }
        })?;
        let any = !copies.is_empty();
        for (op, kind, payload) in copies {
            let ticket = self.store.append(kind, &[&payload])?;
            self.ops.push(match op {
                Op::Copied { queue, order, priority, .. } => Op::Copied { queue, order, priority, ticket },
                Op::Declared { queue, length, before, was, .. } => {
                    Op::Declared { queue, ticket, length, before, was }
                }
                other => other,
            });
        }
        if any {
            self.ops.push(Op::Done(Whom::Nobody));
        }
        if !is_done {
            self.scan = Some(scan);
            return Ok(true);
        }
        self.flush();
        if !self.is_failing && self.live_in(segment) > 0 {
            // It would be copied for ever.
            self.stuck = Some(segment);
            tracing::error!(
                segment,
                "queues: something in the oldest segment cannot be found again; it stays"
            );
        }
        Ok(true)
    }
}
