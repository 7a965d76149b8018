//! Where queues keep what must outlive the process: records in groups, found again by their place.
//!
//! Behind [`QueueStore`] is the `journal`, or, for tests of what decides, memory. A store knows nothing of messages; it
//! takes records, makes a group of them durable, reads one back by its [`Spot`], and gives room back segment by segment,
//! oldest first. What must stay true: a record that was taken and not yet committed can be taken back as if it had
//! never been there.

mod journal;
#[cfg(test)]
pub(super) mod memory;
#[cfg(test)]
mod tests;

pub(super) use journal::JournalStore;

use crate::env::disk::Room;
use crate::journal::{JournalError, Mark, Scan, Sequence, Spot};
use std::ops::Range;

/// What is done with each record that is read: where it is, its number, its kind, its payload. Numbers rise by one, but
/// for what damage took.
pub(super) type Take<'a> = &'a mut dyn FnMut(Spot, Sequence, u8, &[u8]);

/// Records that outlive the process.
pub(super) trait QueueStore: Send {
    /// Takes a record into the group that the next commit makes durable, and says where in the group it is.
    fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<u32, JournalError>;

    /// How far the group goes.
    fn mark(&self) -> Mark;

    /// Takes back what was appended since `mark`, which is of the same group.
    fn rewind(&mut self, mark: Mark);

    /// Bytes of the group.
    fn pending_bytes(&self) -> usize;

    /// Makes the group durable. After an error it is still there.
    fn commit(&mut self) -> Result<(), JournalError>;

    /// Takes back the whole group; false if that cannot be, because the next commit makes it durable.
    fn discard(&mut self) -> bool;

    /// Where a record of the last committed group is.
    fn spot(&self, ticket: u32) -> Spot;

    /// Reads a durable record whose payload has this length.
    fn read(&mut self, spot: Spot, length: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), JournalError>;

    /// Reads on in a segment, at least so many bytes; true at its end.
    fn scan(&mut self, scan: &mut Scan, max_bytes: u64, take: Take<'_>) -> Result<bool, JournalError>;

    /// The numbers of the segments, oldest first; the newest may still grow.
    fn segments(&self) -> Range<u32>;

    /// Bytes of all segments.
    fn disk_bytes(&self) -> u64;

    /// Removes the oldest segment, unless it is the newest, too.
    fn release_oldest(&mut self) -> Result<(), JournalError>;

    /// How much room the disk has, where it is known.
    fn room(&self) -> Option<Room>;

    /// Bytes that a segment has when the next begins.
    fn segment_size(&self) -> u64;
}
