//! The store on the disk.
//!
//! Its directory is made with the first record: a server whose queues nobody uses leaves the disk alone, and does not
//! claim the directory. What an earlier process left is opened at the start. What must stay true: what is read is what
//! the journal calls durable.

use super::{QueueStore, Take};
use crate::config::QueueStore as Settings;
use crate::env::disk::Room;
use crate::journal::{DataDir, Journal, JournalError, Mark, Options, Recovery, Scan, Spot};
use std::io;
use std::ops::Range;

/// The journal's directory below `server.data_dir`.
const DIRECTORY: &str = "queues";

/// The largest payload: a body of 16 MiB with its headers.
const MAX_RECORD_BYTES: usize = 17 << 20;

/// The largest group: a transaction is one.
const MAX_PENDING_BYTES: usize = 96 << 20;

/// However small the disk is, a segment may have this.
const MIN_SEGMENT_BYTES: u64 = 256 << 10;

/// Segments that a disk has room for, at least.
const SEGMENTS_ON_DISK: u64 = 64;

/// Records in a journal.
pub(in crate::queue) struct JournalStore {
    data_dir: DataDir,
    options: Options,
    /// `None` until there is something to keep.
    journal: Option<Journal>,
}

impl JournalStore {
    /// The store of a directory. If an earlier process left something in it, that is opened, and what opening found is
    /// returned.
    pub(in crate::queue) fn open(
        data_dir: DataDir,
        settings: &Settings,
        salt: u32,
    ) -> Result<(JournalStore, Option<Recovery>), JournalError> {
        let options = Options {
            max_record_bytes: MAX_RECORD_BYTES,
            max_pending_bytes: MAX_PENDING_BYTES,
            max_segment_bytes: (MAX_PENDING_BYTES + (1 << 20)) as u64,
            roll_bytes: settings.max_segment_bytes,
            past_damage: settings.past_damage,
            ..Options::new(salt)
        };
        let mut store = JournalStore { data_dir, options, journal: None };
        let directory = store.data_dir.of(DIRECTORY);
        match store.data_dir.disk().list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((store, None)),
            Err(error) => Err(error.into()),
            Ok(names) if names.is_empty() => Ok((store, None)),
            Ok(_) => {
                let recovery = store.open_journal()?;
                Ok((store, Some(recovery)))
            }
        }
    }

    fn open_journal(&mut self) -> Result<Recovery, JournalError> {
        let (mut journal, recovery) = self.data_dir.open(DIRECTORY, self.options.clone())?;
        let room = self.data_dir.disk().room(&self.data_dir.of(DIRECTORY));
        if let Ok(Some(room)) = room {
            let most = (room.total / SEGMENTS_ON_DISK).max(MIN_SEGMENT_BYTES);
            self.options.roll_bytes = self.options.roll_bytes.min(most);
            journal.set_roll_bytes(self.options.roll_bytes);
        }
        self.journal = Some(journal);
        Ok(recovery)
    }

    /// The journal, which is opened if need be.
    fn journal(&mut self) -> Result<&mut Journal, JournalError> {
        if self.journal.is_none() {
            self.open_journal()?;
            if self.journal.as_ref().is_some_and(|journal| journal.last() > 0) {
                self.journal = None;
                return Err(JournalError::Io(io::Error::other(
                    "the directory of the queues was empty at the start, and is not any more",
                )));
            }
        }
        Ok(self.journal.as_mut().expect("it was just opened"))
    }
}

impl QueueStore for JournalStore {
    fn append(&mut self, kind: u8, parts: &[&[u8]]) -> Result<u32, JournalError> {
        let journal = self.journal()?;
        let ticket = journal.mark().bytes as u32;
        journal.append_parts(kind, parts)?;
        Ok(ticket)
    }

    fn mark(&self) -> Mark {
        self.journal.as_ref().map_or(Mark { next: 1, bytes: 0 }, Journal::mark)
    }

    fn rewind(&mut self, mark: Mark) {
        if let Some(journal) = &mut self.journal {
            journal.rewind(mark);
        }
    }

    fn pending_bytes(&self) -> usize {
        self.journal.as_ref().map_or(0, Journal::pending_bytes)
    }

    fn commit(&mut self) -> Result<(), JournalError> {
        match &mut self.journal {
            Some(journal) => journal.commit().map(drop),
            None => Ok(()),
        }
    }

    fn discard(&mut self) -> bool {
        self.journal.as_mut().is_none_or(Journal::discard)
    }

    fn spot(&self, ticket: u32) -> Spot {
        self.journal.as_ref().map_or(Spot::default(), |journal| journal.spot(ticket))
    }

    fn read(&mut self, spot: Spot, length: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), JournalError> {
        self.journal()?.read(spot, length, |_, _, payload| take(payload))
    }

    fn scan(&mut self, scan: &mut Scan, max_bytes: u64, take: Take<'_>) -> Result<bool, JournalError> {
        match &self.journal {
            Some(journal) => journal.scan(scan, max_bytes, take),
            None => Ok(true),
        }
    }

    fn segments(&self) -> Range<u32> {
        self.journal.as_ref().map_or(0..0, Journal::segments)
    }

    fn disk_bytes(&self) -> u64 {
        self.journal.as_ref().map_or(0, Journal::disk_bytes)
    }

    fn release_oldest(&mut self) -> Result<(), JournalError> {
        match &mut self.journal {
            Some(journal) => journal.release_oldest(),
            None => Ok(()),
        }
    }

    fn room(&self) -> Option<Room> {
        self.journal.as_ref()?;
        // A disk that does not say counts as one with room: writing will tell.
        self.data_dir.disk().room(&self.data_dir.of(DIRECTORY)).ok().flatten()
    }

    fn segment_size(&self) -> u64 {
        self.options.roll_bytes
    }
}
