//! The mark that everything was on the disk when the last process ended: a file beside the journal.
//!
//! It is taken away before a process serves, and made anew after the last commit. It names the record with which the
//! journal ended, and that record names the time at which the mark was made: a directory that was copied, or put
//! back from a backup, has another mark than its journal knows. Where the file system does not say when a file was
//! made, and where a whole disk is put back as an image, that is not noticed. What must stay true: whoever reads a
//! mark that fits may go on with the epochs that the journal tells of.

use super::DIRECTORY;
use crate::env::disk::{Disk, File};
use crate::journal::{DataDir, Sequence};
use std::io;
use std::path::PathBuf;

/// The mark of one directory, whose lock it shares: if there is one, it is held for as long as the mark may be made.
#[derive(Debug)]
pub(super) struct Mark {
    data_dir: DataDir,
}

/// A mark that is not made yet.
pub(super) struct Making {
    file: File,
    /// When its file was made; 0 where nobody knows.
    pub(super) born: u64,
}

impl Mark {
    pub(super) fn new(data_dir: &DataDir) -> Mark {
        Mark { data_dir: data_dir.clone() }
    }

    fn disk(&self) -> &Disk {
        self.data_dir.disk()
    }

    fn directory(&self) -> PathBuf {
        self.data_dir.of(DIRECTORY)
    }

    fn path(&self) -> PathBuf {
        self.directory().join("stopped")
    }

    /// When it was made, and the record that it names; `None` if there is none.
    pub(super) fn read(&self) -> io::Result<Option<(u64, Sequence)>> {
        let file = match self.disk().open(&self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut sequence = [0; 8];
        let is_whole = file.len()? == 8 && file.read_at(0, &mut sequence)? == 8;
        Ok(is_whole.then_some((file.born()?.unwrap_or(0), Sequence::from_le_bytes(sequence))))
    }

    /// Takes it away, for good.
    pub(super) fn remove(&self) -> io::Result<()> {
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        self.disk()
            .remove(&self.path())
            .or_else(|error| if is_missing(&error) { Ok(()) } else { Err(error) })?;
        // Even if there was none: an earlier attempt may have come this far. There may be no directory, either.
        self.disk()
            .sync_dir(&self.directory())
            .or_else(|error| if is_missing(&error) { Ok(()) } else { Err(error) })
    }

    /// Begins to make it; nobody takes it for one before it names a record.
    pub(super) fn begin(&self) -> io::Result<Making> {
        self.remove()?;
        let file = self.disk().open_or_create(&self.path())?;
        self.disk().sync_dir(&self.directory())?;
        let born = file.born()?.unwrap_or(0);
        Ok(Making { file, born })
    }
}

impl Making {
    /// Makes the mark: the journal ends with this record, which is durable.
    pub(super) fn name(self, sequence: Sequence) -> io::Result<()> {
        self.file.write_at(0, &sequence.to_le_bytes())?;
        self.file.sync_data()
    }
}
