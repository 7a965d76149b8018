//! A store that forgets, for tests of what decides; it can be told to fail.

use super::{QueueStore, Take};
use crate::env::disk::Room;
use crate::journal::{JournalError, Mark, Scan, Sequence, Spot};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// Bytes from which on a group begins a segment.
const SEGMENT_BYTES: u64 = 2000;

/// What a store like this holds; copies share it, so that another store can be opened on what one left.
#[derive(Clone, Default)]
pub(in crate::queue) struct Kept(Arc<Mutex<Segments>>, pub(in crate::queue) Arc<Switches>);

/// What goes wrong.
#[derive(Default)]
pub(in crate::queue) struct Switches {
    /// No commit succeeds.
    pub(in crate::queue) fails: AtomicBool,
    /// Free bytes that the store tells of; 0 for not known.
    pub(in crate::queue) free: AtomicU64,
}

#[derive(Default)]
struct Segments {
    base: u32,
    segments: VecDeque<Vec<(u8, Vec<u8>)>>,
    /// The number of the oldest record.
    first: Sequence,
}

/// Records in memory.
#[derive(Default)]
pub(in crate::queue) struct MemoryStore {
    kept: Kept,
    pending: Vec<(u8, Vec<u8>)>,
    group: Spot,
    next: u64,
    /// How far each scan of a segment is.
    scanned: (u32, usize),
}

impl MemoryStore {
    pub(in crate::queue) fn on(kept: &Kept) -> MemoryStore {
        MemoryStore { kept: kept.clone(), ..MemoryStore::default() }
    }
}

fn size(segment: &[(u8, Vec<u8>)]) -> u64 {
    segment.iter().map(|(_, payload)| 29 + payload.len() as u64).sum()
}

impl QueueStore for MemoryStore {
    fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<u32, JournalError> {
        self.pending.push((kind, parts.concat()));
        self.next += 1;
        Ok(self.pending.len() as u32 - 1)
    }

    fn mark(&self) -> Mark {
        Mark { next: self.next, bytes: self.pending.len() }
    }

    fn rewind(&mut self, mark: Mark) {
        self.pending.truncate(mark.bytes);
        self.next = mark.next;
    }

    fn pending_bytes(&self) -> usize {
        size(&self.pending) as usize
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        if self.kept.1.fails.load(Relaxed) {
            return Err(JournalError::DiskFull(io::ErrorKind::StorageFull.into()));
        }
        let mut kept = self.kept.0.lock().unwrap();
        if kept.segments.back().is_none_or(|segment| size(segment) >= SEGMENT_BYTES) {
            kept.segments.push_back(Vec::new());
        }
        let segment = kept.base + kept.segments.len() as u32 - 1;
        let newest = kept.segments.back_mut().expect("there is a segment");
        self.group = Spot { segment, offset: newest.len() as u32 };
        newest.append(&mut self.pending);
        Ok(())
    }

    fn discard(&mut self) -> bool {
        self.pending.clear();
        true
    }

    fn spot(&self, ticket: u32) -> Spot {
        Spot { segment: self.group.segment, offset: self.group.offset + ticket }
    }

    fn read(&mut self, spot: Spot, length: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), JournalError> {
        let kept = self.kept.0.lock().unwrap();
        let segment = spot.segment.checked_sub(kept.base).and_then(|at| kept.segments.get(at as usize));
        match segment.and_then(|segment| segment.get(spot.offset as usize)) {
            Some((_, payload)) if payload.len() == length as usize => take(payload),
            _ => return Err(JournalError::Damaged(Vec::new())),
        }
        Ok(())
    }

    fn scan(&mut self, scan: &mut Scan, max_bytes: u64, take: Take<'_>) -> Result<bool, JournalError> {
        let kept = self.kept.0.lock().unwrap();
        if self.scanned.0 != scan.segment() || max_bytes == u64::MAX {
            self.scanned = (scan.segment(), 0);
        }
        let Some(at) = scan.segment().checked_sub(kept.base).map(|at| at as usize) else { return Ok(true) };
        let Some(segment) = kept.segments.get(at) else { return Ok(true) };
        let before: usize = kept.segments.iter().take(at).map(Vec::len).sum();
        let mut seen = 0;
        while let Some((kind, payload)) = segment.get(self.scanned.1) {
            if seen >= max_bytes {
                return Ok(false);
            }
            let spot = Spot { segment: scan.segment(), offset: self.scanned.1 as u32 };
            take(spot, kept.first + (before + self.scanned.1) as Sequence, *kind, payload);
            seen += payload.len() as u64 + 29;
            self.scanned.1 += 1;
        }
        self.scanned = (u32::MAX, 0);
        Ok(true)
    }

    fn segments(&self) -> Range<u32> {
        let kept = self.kept.0.lock().unwrap();
        kept.base..kept.base + kept.segments.len() as u32
    }

    fn disk_bytes(&self) -> u64 {
        self.kept.0.lock().unwrap().segments.iter().map(|segment| size(segment)).sum()
    }

    fn release_oldest(&mut self) -> Result<(), JournalError> {
        let mut kept = self.kept.0.lock().unwrap();
        if kept.segments.len() > 1 {
            kept.first += kept.segments.pop_front().map_or(0, |segment| segment.len() as Sequence);
            kept.base += 1;
        }
        Ok(())
    }

    fn room(&self) -> Option<Room> {
        match self.kept.1.free.load(Relaxed) {
            0 => None,
            free => Some(Room { free, total: 1 << 30 }),
        }
    }

    fn segment_size(&self) -> u64 {
        SEGMENT_BYTES
    }
}
