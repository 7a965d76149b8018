//! The directory of a server's journals, which one process at a time may use.
//!
//! Two processes that write to one directory supersede each other's records, so the first journal that is opened
//! takes the lock of the directory, a file in it, and nothing is made before that. Copies share the lock; it is given
//! back when all of them are gone, or with the process. What must stay true: no journal below the directory is opened
//! without the lock.

use super::segment::Name;
use super::{Journal, JournalError, Options, Recovery};
use crate::env::disk::{Disk, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The file that is locked.
const LOCK: &str = "lock";

/// `server.data_dir`; copies share its lock.
#[derive(Clone, Debug)]
pub struct DataDir {
    disk: Disk,
    path: PathBuf,
    lock: Arc<Mutex<Option<File>>>,
}

impl DataDir {
    /// A directory of which nothing is known yet.
    pub fn new(disk: Disk, path: &Path) -> DataDir {
        DataDir { disk, path: path.to_path_buf(), lock: Arc::default() }
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The directory of a journal.
    pub fn of(&self, journal: &str) -> PathBuf {
        self.path.join(journal)
    }

    /// Opens a journal in the directory, as [`Journal::open`] does.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another process has the directory; those of [`Journal::open`].
    pub fn open(&self, journal: &str, options: Options) -> Result<(Journal, Recovery), JournalError> {
        self.claim()?;
        Journal::open(&self.disk, &self.of(journal), options)
    }

    /// Removes a journal of which nothing is wanted any more, the oldest segment first; how many bytes that were.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if another process has the directory; the disk's.
    pub fn remove(&self, journal: &str) -> Result<u64, JournalError> {
        let directory = self.of(journal);
        let names = match self.disk.list(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            other => other?,
        };
        let mut bytes = 0;
        for name in names.iter().filter(|name| Name::parse(name).is_some()) {
            self.claim()?;
            let path = directory.join(name);
            bytes += self.disk.open(&path)?.len()?;
            self.disk.remove(&path)?;
        }
        if bytes > 0 {
            self.disk.sync_dir(&directory)?;
        }
        Ok(bytes)
    }

    fn claim(&self) -> Result<(), JournalError> {
        // There is a lock or none, whatever happened to who held it.
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(());
        }
        self.disk.create_dir_all(&self.path)?;
        match self.disk.lock(&self.path.join(LOCK)) {
            Ok(file) => *lock = Some(file),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(JournalError::InUse { directory: self.path.clone() });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
