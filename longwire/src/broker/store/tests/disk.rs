//! A disk in memory that loses what was not synced, fails when told to, and knows when files were made.

use crate::env::Disk;
use crate::env::disk::{FileBytes, Files};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The disk.
#[derive(Debug, Default)]
pub(super) struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<Contents>>>,
    switches: Arc<Switches>,
    files_made: AtomicU64,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// No more bytes are taken.
    pub(super) is_full: AtomicBool,
    /// No sync of a file succeeds, and what it should have synced never gets to the disk.
    pub(super) loses_syncs: AtomicBool,
}

#[derive(Debug, Default)]
struct Contents {
    bytes: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    switches: Arc<Switches>,
    is_locked: AtomicBool,
    born: u64,
}

#[derive(Debug)]
struct Opened {
    contents: Arc<Contents>,
    holds_lock: AtomicBool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if *self.holds_lock.get_mut() {
            self.contents.is_locked.store(false, Ordering::SeqCst);
        }
    }
}

impl MemoryDisk {
    pub(super) fn disk(self: &Arc<MemoryDisk>) -> Disk {
        Disk::of(self.clone())
    }

    pub(super) fn switches(&self) -> &Switches {
        &self.switches
    }

    /// The process and the machine end: of what was not synced `kept` bytes of each file are there.
    pub(super) fn crash(&self, kept: usize) {
        for contents in self.files.lock().unwrap().values() {
            let synced = contents.synced.lock().unwrap().clone();
            let mut bytes = contents.bytes.lock().unwrap();
            if bytes.starts_with(&synced) {
                let length = bytes.len().min(synced.len() + kept);
                bytes.truncate(length);
            } else {
                *bytes = synced;
            }
            contents.synced.lock().unwrap().clone_from(&bytes);
            contents.is_locked.store(false, Ordering::SeqCst);
        }
    }

    /// What a backup program takes.
    pub(super) fn backup(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let files = self.files.lock().unwrap();
        files.iter().map(|(path, contents)| (path.clone(), contents.bytes.lock().unwrap().clone())).collect()
    }

    /// Puts a backup in the place of what is there.
    pub(super) fn restore(&self, backup: Vec<(PathBuf, Vec<u8>)>) {
        let mut files = self.files.lock().unwrap();
        files.clear();
        for (path, bytes) in backup {
            let contents = self.contents();
            contents.synced.lock().unwrap().clone_from(&bytes);
            *contents.bytes.lock().unwrap() = bytes;
            files.insert(path, contents);
        }
    }

    /// Inverts a byte in the middle of the oldest segment.
    pub(super) fn spoil(&self) {
        let files = self.files.lock().unwrap();
        let mut segments = files.iter().filter(|(path, _)| path.to_string_lossy().ends_with(".journal"));
        let (_, contents) = segments.next().expect("there is a segment");
        contents.bytes.lock().unwrap()[100] ^= 0xff;
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.lock().unwrap().values().map(|contents| contents.bytes.lock().unwrap().len() as u64).sum()
    }

    fn contents(&self) -> Arc<Contents> {
        let born = self.files_made.fetch_add(1, Ordering::SeqCst) + 1;
        Arc::new(Contents { switches: self.switches.clone(), born, ..Contents::default() })
    }
}

impl Files for MemoryDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>> {
        let mut files = self.files.lock().unwrap();
        if !create && !files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let contents = files.entry(path.to_path_buf()).or_insert_with(|| self.contents()).clone();
        Ok(Box::new(Opened { contents, holds_lock: AtomicBool::new(false) }))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let files = self.files.lock().unwrap();
        let names = files.keys().filter(|file| file.parent() == Some(path));
        Ok(names.filter_map(|file| Some(file.file_name()?.to_owned())).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl FileBytes for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let contents = self.contents.bytes.lock().unwrap();
        let there = contents.get(offset as usize..).unwrap_or_default();
        let count = there.len().min(bytes.len());
        bytes[..count].copy_from_slice(&there[..count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.contents.switches.is_full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut contents = self.contents.bytes.lock().unwrap();
        let end = offset as usize + bytes.len();
        let length = contents.len().max(end);
        contents.resize(length, 0);
        contents[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.contents.switches.loses_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("the sync failed"));
        }
        let bytes = self.contents.bytes.lock().unwrap().clone();
        *self.contents.synced.lock().unwrap() = bytes;
        Ok(())
    }

    fn try_lock(&self) -> io::Result<()> {
        if self.contents.is_locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.holds_lock.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn born(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.contents.born))
    }
}
