//! Records by their place on the disk: read one by one, or a segment after the other.
//!
//! A [`Spot`] is where a record is, in 8 bytes, so that an owner can remember millions of them. It is known when the
//! record's group is durable ([`Journal::spot`]), holds until the segment is released, and means nothing after a
//! restart. Bytes are read in blocks, some of which are kept: who reads records in their order calls the disk once for
//! many. What must stay true: what is returned was checked; bytes that a later group may overwrite are not kept.

use super::segment::{HEAD, Head, Window};
use super::{Damage, Journal, JournalError, Segment, Sequence};
use crate::env::disk::{Disk, File};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes that are read at once, if the segment has them.
const BLOCK: usize = 128 << 10;

/// Blocks that are kept.
const MAX_BLOCKS: usize = 8;

/// Files that are kept open.
const MAX_FILES: usize = 32;

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Spot {
    /// The number of the segment in this process.
    pub segment: u32,
    /// The first byte of the record's head in it.
    pub offset: u32,
}

/// How far a journal's pending records go, to come back to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// The sequence of the record that is appended next.
    pub next: Sequence,
    /// Where in its group it begins.
    pub bytes: usize,
}

/// How far a segment is read.
#[derive(Debug)]
pub struct Scan {
    segment: u32,
    window: Option<Window>,
    run: usize,
    offset: u64,
    next: Sequence,
}

impl Scan {
    /// From the beginning of a segment on.
    pub fn of(segment: u32) -> Scan {
        Scan { segment, window: None, run: 0, offset: 0, next: 0 }
    }

    /// The segment.
    pub fn segment(&self) -> u32 {
        self.segment
    }
}

/// Files and blocks that were used last.
#[derive(Debug, Default)]
pub(super) struct Reader {
    files: VecDeque<(u32, File)>,
    blocks: VecDeque<Block>,
}

#[derive(Debug)]
struct Block {
    segment: u32,
    start: u64,
    bytes: Vec<u8>,
}

impl Block {
    fn get(&self, segment: u32, offset: u64, length: usize) -> Option<&[u8]> {
        let at = offset.checked_sub(self.start).filter(|_| self.segment == segment)?;
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..at.checked_add(length)?)
    }
}

impl Reader {
    /// Forgets segments before this one, which are released.
    pub(super) fn forget_before(&mut self, segment: u32) {
        self.files.retain(|(number, _)| *number >= segment);
        self.blocks.retain(|block| block.segment >= segment);
    }

    /// Bytes of a segment that ends, so far, at `end`.
    fn bytes(
        &mut self,
        disk: &Disk,
        segment: (u32, &Segment),
        offset: u64,
        length: usize,
        end: u64,
    ) -> Result<Option<&[u8]>, JournalError> {
        let (number, segment) = segment;
        if offset.saturating_add(length as u64) > end {
            return Ok(None);
        }
        let known = self.blocks.iter().position(|block| block.get(number, offset, length).is_some());
        let index = match known {
            Some(index) => index,
            None => {
                if !self.files.iter().any(|(open, _)| *open == number) {
                    self.files.truncate(MAX_FILES - 1);
                    self.files.push_front((number, disk.open(&segment.path)?));
                }
                let mut bytes = match self.blocks.len() < MAX_BLOCKS {
                    true => Vec::new(),
                    false => self.blocks.pop_back().map(|block| block.bytes).unwrap_or_default(),
                };
                let wanted = (length.max(BLOCK) as u64).min(end - offset) as usize;
                bytes.clear();
                // One large record must not leave its room behind for ever.
                bytes.shrink_to(BLOCK);
                bytes.resize(wanted, 0);
                let file = self.files.iter().find(|(open, _)| *open == number);
                let file = &file.expect("the file was just opened").1;
                let count = file.read_at(offset, &mut bytes)?;
                bytes.truncate(count);
                self.blocks.push_front(Block { segment: number, start: offset, bytes });
                0
            }
        };
        Ok(self.blocks[index].get(number, offset, length))
    }
}

/// What is given each record: its spot, number and kind, and its payload.
type Take<'a> = &'a mut dyn FnMut(Spot, Sequence, u8, &[u8]);

impl Journal {
    /// Where the pending records begin, seen from the first of their group, and which sequence is next.
    pub fn mark(&self) -> Mark {
        Mark { next: self.next, bytes: self.pending.len() }
    }

    /// Takes back what was appended since `mark`, which is of the same group.
    pub fn rewind(&mut self, mark: Mark) {
        debug_assert!(mark.bytes <= self.pending.len() && mark.next > self.written, "it is another group's");
        self.pending.truncate(mark.bytes);
        self.next = mark.next;
    }

    /// Takes back all that waits for a commit, of which nobody may have been told. False if that cannot be: it is
    /// written, only its name is not safe, and the next commit that succeeds makes it durable.
    pub fn discard(&mut self) -> bool {
        if self.written > self.durable {
            return false;
        }
        self.pending.clear();
        self.next = self.durable + 1;
        // What a shorter group leaves of the bytes of this one must not be read as records behind it.
        if let Some(writing) = &self.writing
            && writing.file.set_len(writing.end).is_err()
        {
            self.writing = None;
        }
        true
    }

    /// Where a record of the group that was committed last is, which begins at these bytes of it ([`Mark::bytes`]).
    pub fn spot(&self, bytes: u32) -> Spot {
        Spot { segment: self.group.segment, offset: self.group.offset + bytes }
    }

    /// The numbers of the segments, oldest first.
    pub fn segments(&self) -> Range<u32> {
        self.base..self.base + self.segments.len() as u32
    }

    /// From another size on no further group goes into a file.
    pub fn set_roll_bytes(&mut self, roll_bytes: u64) {
        self.options.roll_bytes = roll_bytes;
    }

    /// Removes the oldest segment, unless it is the only one.
    ///
    /// # Errors
    /// The disk's.
    pub fn release_oldest(&mut self) -> Result<(), JournalError> {
        match self.oldest_ends() {
            Some(last) => self.release(last),
            None => Ok(()),
        }
    }

    /// Reads a durable record whose payload has `length` bytes, and gives `read` its sequence, its kind and the payload.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if it is not there; the disk's.
    pub fn read<T>(
        &mut self,
        spot: Spot,
        length: u32,
        read: impl FnOnce(Sequence, u8, &[u8]) -> T,
    ) -> Result<T, JournalError> {
        let index = spot.segment.checked_sub(self.base).map(|index| index as usize);
        let segment = index.and_then(|index| self.segments.get(index));
        let Some(segment) = segment else {
            return Err(JournalError::Io(std::io::Error::other("the segment of a record was released")));
        };
        let end = segment.runs.last().map_or(0, |run| run.end);
        let offset = u64::from(spot.offset);
        let place = (spot.segment, segment);
        let bytes = self.reader.bytes(&self.disk, place, offset, HEAD + length as usize, end)?;
        let whole = bytes.and_then(|bytes| {
            let (head, payload) = bytes.split_at(HEAD);
            let head = Head::decode(segment.name.salt, head)?;
            let is_whole = head.length == length && head.payload_crc == super::segment::crc32c(0, payload);
            is_whole.then_some((head, payload))
        });
        match whole {
            Some((head, payload)) => Ok(read(head.sequence, head.kind, payload)),
            None => {
                let damage = Damage { file: segment.path.clone(), offset, lost: None };
                // What was read may be spoiled only in memory: the next reader shall ask the disk.
                self.reader.blocks.clear();
                Err(JournalError::Damaged(vec![damage]))
            }
        }
    }

    /// Gives `take` the durable records of a segment in order, until at least `max_bytes` were read; true at the end of
    /// the segment.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if a record cannot be read that was there; the disk's.
    pub fn scan(&self, scan: &mut Scan, max_bytes: u64, take: Take<'_>) -> Result<bool, JournalError> {
        let index = scan.segment.checked_sub(self.base).map(|index| index as usize);
        let Some(segment) = index.and_then(|index| self.segments.get(index)) else { return Ok(true) };
        let mut seen = 0;
        loop {
            let Some(run) = segment.runs.get(scan.run) else { return Ok(true) };
            if scan.offset == 0 {
                (scan.offset, scan.next) = (run.offset, run.from);
            }
            if scan.next > run.to.min(self.durable) {
                if scan.run + 1 == segment.runs.len() {
                    return Ok(true);
                }
                (scan.run, scan.offset) = (scan.run + 1, 0);
                continue;
            }
            if seen >= max_bytes {
                return Ok(false);
            }
            let window = match &mut scan.window {
                Some(window) => window,
                empty => empty.insert(Window::new(self.disk.open(&segment.path)?, segment.name.salt)?),
            };
            let head = window.head(scan.offset)?.filter(|head| head.sequence == scan.next);
            let payload = match &head {
                Some(head) => window.payload(scan.offset, head)?,
                None => None,
            };
            let (Some(head), Some(payload)) = (head, payload) else {
                let lost = Some(scan.next..=run.to);
                let damage = Damage { file: segment.path.clone(), offset: scan.offset, lost };
                return Err(JournalError::Damaged(vec![damage]));
            };
            let spot = Spot { segment: scan.segment, offset: scan.offset as u32 };
            take(spot, head.sequence, head.kind, payload);
            seen += head.size();
            scan.offset += head.size();
            scan.next += 1;
        }
    }
}
