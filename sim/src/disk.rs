//! A disk that forgets what was not synced, and fails when it is told to.
//!
//! One for each simulated machine, behind the seam of [`longwire::env::disk`]. What a program reads is what it
//! wrote; what survives [`SimDisk::power_loss`] is less: of each sector of 512 bytes written since its file's
//! last sync any state that it went through, the last write torn at any byte, any length that the file went
//! through, and of the names changed since the directory's last sync any subset (a rename whole or not at
//! all). A failed [`sync_data`](FileBytes::sync_data) forgets part of what it should have synced: a later sync
//! succeeds without it, as kernels do. A failed `sync_dir` leaves the names for the next one, as file systems
//! with a log do. Latency is not modelled. What must stay true: everything follows from the seed and the calls.

mod faults;

pub use faults::Faults;

use longwire::env::disk::{Disk, FileBytes, Files};
use longwire::env::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What reaches the disk whole or not at all.
const SECTOR: usize = 512;
const ROOT: NodeId = 0;

type NodeId = u64;

/// A simulated disk; copies are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// How often something went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Losses of power.
    pub power_losses: u64,
    /// Sectors that a loss of power left in an older state.
    pub sectors_lost: u64,
    /// Last writes that a loss of power tore within a sector.
    pub torn_writes: u64,
    /// Changes of names that a loss of power undid.
    pub names_undone: u64,
    /// Failed writes, resizes and changes of names.
    pub write_errors: u64,
    /// Failed syncs of files.
    pub sync_errors: u64,
    /// Failed syncs of directories.
    pub dir_sync_errors: u64,
    /// Writes that a failed sync forgot.
    pub writes_forgotten: u64,
    /// Writes refused because the disk was full.
    pub full: u64,
}

#[derive(Clone)]
struct State {
    rng: Rng,
    faults: Faults,
    counts: Counts,
    /// Files opened in an earlier life of the machine's process are dead.
    life: u64,
    next_node: NodeId,
    nodes: BTreeMap<NodeId, Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Dir(Dir),
    File(Content),
}

#[derive(Clone, Debug, Default)]
struct Dir {
    synced: BTreeMap<OsString, NodeId>,
    visible: BTreeMap<OsString, NodeId>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Set(OsString, NodeId),
    Remove(OsString),
    Rename(OsString, OsString, NodeId),
}

#[derive(Clone, Debug, Default)]
struct Content {
    synced: Vec<u8>,
    visible: Vec<u8>,
    unsynced: Vec<Write>,
    is_lost: bool,
    is_locked: bool,
}

#[derive(Clone, Debug)]
enum Write {
    Bytes(usize, Vec<u8>),
    Len(usize),
}

impl SimDisk {
    /// An empty disk whose chance follows from `rng`.
    pub fn new(rng: Rng) -> SimDisk {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]);
        let (faults, counts) = (Faults::default(), Counts::default());
        SimDisk(Arc::new(Mutex::new(State { rng, faults, counts, life: 0, next_node: ROOT + 1, nodes })))
    }

    /// This disk as the server's seam has it.
    pub fn disk(&self) -> Disk {
        Disk::of(Arc::new(self.clone()))
    }

    /// Another disk in the same state, to try something on; nobody has its files open.
    pub fn copy(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.unlock();
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// Sets what goes wrong from here on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// How often something went wrong until here.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Bytes that all files have together.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// The process ends: everything that it wrote is there, its open files are dead.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.unlock();
        state.sweep();
    }

    /// The machine ends: what was not synced may be gone, its open files are dead.
    pub fn power_loss(&self) {
        let mut state = self.state();
        state.life += 1;
        state.counts.power_losses += 1;
        state.unlock();
        state.lose_power();
        state.sweep();
    }

    /// Inverts one bit of a file, on the disk and in what is read.
    ///
    /// # Errors
    /// `NotFound`, `InvalidInput` beyond the end.
    pub fn flip(&self, path: &Path, offset: usize, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let content = state.file(path)?;
        let byte = content.visible.get_mut(offset).ok_or(io::ErrorKind::InvalidInput)?;
        *byte ^= 1 << bit;
        if let Some(byte) = content.synced.get_mut(offset) {
            *byte ^= 1 << bit;
        }
        Ok(())
    }

    /// The bytes of a file that would survive anything; fewer than what can be read.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn synced_len(&self, path: &Path) -> io::Result<usize> {
        Ok(self.state().file(path)?.synced.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state as a crash would: usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SimDisk").field("faults", &state.faults).field("counts", &state.counts).finish()
    }
}

impl State {
    fn chance(&mut self, probability: f64) -> bool {
        self.rng.fraction() < probability
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        (self.rng.bits() % bound.max(1) as u64) as usize
    }

    fn write_fails(&mut self) -> bool {
        let fails = self.chance(self.faults.write_error);
        self.counts.write_errors += u64::from(fails);
        fails
    }

    fn may_write(&mut self) -> io::Result<()> {
        if self.write_fails() { Err(io::Error::other("simulated write error")) } else { Ok(()) }
    }

    /// The node of a path; the working directory is the root.
    fn find(&self, path: &Path) -> io::Result<NodeId> {
        let mut node = ROOT;
        for component in path.components() {
            if let Component::Normal(name) = component {
                node = *self.dir_of(node)?.visible.get(name).ok_or(io::ErrorKind::NotFound)?;
            }
        }
        Ok(node)
    }

    fn dir_of(&self, node: NodeId) -> io::Result<&Dir> {
        match self.nodes.get(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, node: NodeId) -> io::Result<&mut Dir> {
        self.dir_of(node)?;
        match self.nodes.get_mut(&node) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn content(&mut self, node: NodeId) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&mut self, path: &Path) -> io::Result<&mut Content> {
        let node = self.find(path)?;
        self.content(node)
    }

    /// The directory that names a path, and the name.
    fn place(&self, path: &Path) -> io::Result<(NodeId, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.dir_of(directory)?;
        Ok((directory, name.to_os_string()))
    }

    fn add(&mut self, directory: NodeId, name: OsString, node: Node) -> io::Result<NodeId> {
        if self.faults.capacity.is_some_and(|capacity| self.used() >= capacity) {
            self.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.may_write()?;
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        self.dir_mut(directory)?.change(Change::Set(name, id));
        Ok(id)
    }

    /// Gives back every lock: whoever held one is gone.
    fn unlock(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(content) = node {
                content.is_locked = false;
            }
        }
    }

    fn used(&self) -> u64 {
        let (mut used, mut waiting) = (0, vec![ROOT]);
        while let Some(id) = waiting.pop() {
            match self.nodes.get(&id) {
                Some(Node::Dir(dir)) => waiting.extend(dir.visible.values()),
                Some(Node::File(content)) => used += content.visible.len() as u64,
                None => {}
            }
        }
        used
    }

    /// Forgets what no name leads to, or might lead to after a loss of power.
    fn sweep(&mut self) {
        let (mut kept, mut waiting) = (BTreeSet::new(), vec![ROOT]);
        while let Some(id) = waiting.pop() {
            if kept.insert(id)
                && let Some(Node::Dir(dir)) = self.nodes.get(&id)
            {
                waiting.extend(dir.synced.values().chain(dir.visible.values()));
                waiting.extend(dir.unsynced.iter().filter_map(Change::node));
            }
        }
        self.nodes.retain(|id, _| kept.contains(id));
    }

    fn lose_power(&mut self) {
        // How much was written back by chance differs from loss to loss: nothing, all, or in between.
        let kept = [0.0, 0.3, 0.7, 0.95, 1.0][self.below(5)];
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            match self.nodes.remove(&id) {
                Some(Node::Dir(mut dir)) => {
                    for change in std::mem::take(&mut dir.unsynced) {
                        if self.chance(kept) {
                            change.apply(&mut dir.synced);
                        } else {
                            self.counts.names_undone += 1;
                        }
                    }
                    dir.visible = dir.synced.clone();
                    self.nodes.insert(id, Node::Dir(dir));
                }
                Some(Node::File(content)) => {
                    let left = self.what_is_left(content, kept);
                    let content = Content { synced: left.clone(), visible: left, ..Content::default() };
                    self.nodes.insert(id, Node::File(content));
                }
                None => {}
            }
        }
    }

    /// What a loss of power leaves of a file.
    fn what_is_left(&mut self, content: Content, kept: f64) -> Vec<u8> {
        let Content { synced, mut unsynced, is_lost, .. } = content;
        if is_lost {
            return synced;
        }
        if unsynced.is_empty() {
            return synced;
        }
        if let Some(Write::Bytes(_, bytes)) = unsynced.last_mut()
            && self.rng.bits().is_multiple_of(2)
        {
            let torn = (self.rng.bits() % (bytes.len() as u64 + 1)) as usize;
            self.counts.torn_writes += u64::from(torn < bytes.len());
            bytes.truncate(torn);
        }
        let mut state = synced.clone();
        let mut lengths = vec![state.len()];
        let mut sectors: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for write in unsynced {
            let touched = match &write {
                Write::Bytes(offset, bytes) if !bytes.is_empty() => *offset..offset + bytes.len(),
                Write::Bytes(..) => continue,
                Write::Len(len) => (*len).min(state.len())..(*len).max(state.len()),
            };
            let first = touched.start.min(state.len()) / SECTOR;
            write.apply(&mut state);
            lengths.push(state.len());
            for sector in first..touched.end.div_ceil(SECTOR) {
                sectors.entry(sector).or_default().push(sector_of(&state, sector));
            }
        }
        let newest = lengths.len() - 1;
        let len = lengths[if self.chance(kept) { newest } else { self.below(newest + 1) }];
        let mut left = synced.clone();
        left.resize(len.max(left.len()), 0);
        for (sector, states) in sectors {
            // The state that was synced is one of them.
            let chosen = if self.chance(kept) { states.len() } else { self.below(states.len() + 1) };
            self.counts.sectors_lost += u64::from(chosen < states.len());
            if let Some(bytes) = chosen.checked_sub(1).map(|index| &states[index]) {
                let start = sector * SECTOR;
                let end = (start + bytes.len()).min(left.len());
                if start < end {
                    left[start..end].copy_from_slice(&bytes[..end - start]);
                }
            }
        }
        left.truncate(len);
        left
    }
}

/// The bytes of a sector, zeros beyond the end of the file.
fn sector_of(bytes: &[u8], sector: usize) -> Vec<u8> {
    let start = (sector * SECTOR).min(bytes.len());
    let mut sector = bytes[start..(start + SECTOR).min(bytes.len())].to_vec();
    sector.resize(SECTOR, 0);
    sector
}

impl Dir {
    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.visible);
        self.unsynced.push(change);
    }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<OsString, NodeId>) {
        match self {
            Change::Set(name, node) => {
                names.insert(name, node);
            }
            Change::Remove(name) => {
                names.remove(&name);
            }
            Change::Rename(from, to, node) => {
                names.remove(&from);
                names.insert(to, node);
            }
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Change::Set(_, node) | Change::Rename(_, _, node) => Some(*node),
            Change::Remove(_) => None,
        }
    }
}

impl Write {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Write::Bytes(offset, written) => {
                let end = offset + written.len();
                bytes.resize(end.max(bytes.len()), 0);
                bytes[*offset..end].copy_from_slice(written);
            }
            Write::Len(len) => bytes.resize(*len, 0),
        }
    }
}

impl Files for SimDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>> {
        let mut state = self.state();
        let node = match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                let (directory, name) = state.place(path)?;
                state.add(directory, name, Node::File(Content::default()))?
            }
            other => other?,
        };
        state.content(node)?;
        Ok(Box::new(SimFile {
            disk: self.clone(),
            node,
            life: state.life,
            holds_lock: AtomicBool::new(false),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        match state.find(path) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => {
                let (directory, name) = state.place(path)?;
                state.add(directory, name, Node::Dir(Dir::default())).map(drop)
            }
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let state = self.state();
        Ok(state.dir_of(state.find(path)?)?.visible.keys().cloned().collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(from)?;
        state.content(node)?;
        let ((directory, from), (other, to)) = (state.place(from)?, state.place(to)?);
        if directory != other {
            // What a crash leaves of a rename between directories is not modelled.
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.may_write()?;
        state.dir_mut(directory)?.change(Change::Rename(from, to, node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(path)?;
        state.content(node)?;
        let (directory, name) = state.place(path)?;
        state.may_write()?;
        state.dir_mut(directory)?.change(Change::Remove(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let directory = state.find(path)?;
        state.dir_of(directory)?;
        let probability = state.faults.dir_sync_error;
        if state.chance(probability) {
            state.counts.dir_sync_errors += 1;
            return Err(io::Error::other("simulated sync error"));
        }
        let dir = state.dir_mut(directory)?;
        for change in std::mem::take(&mut dir.unsynced) {
            change.apply(&mut dir.synced);
        }
        Ok(())
    }
}

/// An open file of a simulated disk.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    node: NodeId,
    life: u64,
    holds_lock: AtomicBool,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.life == self.life {
            Ok(state)
        } else {
            Err(io::Error::other("the process that opened the file has ended"))
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        // A file of an earlier life holds nothing, and what it held may be held again.
        if *self.holds_lock.get_mut()
            && let Ok(mut state) = self.state()
            && let Ok(content) = state.content(self.node)
        {
            content.is_locked = false;
        }
    }
}

impl FileBytes for SimFile {
    fn try_lock(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let content = state.content(self.node)?;
        if content.is_locked {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        content.is_locked = true;
        self.holds_lock.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.content(self.node)?.visible.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        let content = state.content(self.node)?;
        let start = (offset as usize).min(content.visible.len());
        let count = bytes.len().min(content.visible.len() - start);
        bytes[..count].copy_from_slice(&content.visible[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let mut room = bytes.len();
        if let Some(capacity) = state.faults.capacity {
            let grown = (capacity.saturating_sub(state.used())) as usize;
            let len = state.content(self.node)?.visible.len();
            room = room.min((len + grown).saturating_sub(offset as usize));
        }
        let mut result = Ok(());
        if state.write_fails() {
            result = Err(io::Error::other("simulated write error"));
            room = state.below(room + 1);
        } else if room < bytes.len() {
            state.counts.full += 1;
            result = Err(io::ErrorKind::StorageFull.into());
        }
        let content = state.content(self.node)?;
        content.write(Write::Bytes(offset as usize, bytes[..room].to_vec()));
        result
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let before = state.content(self.node)?.visible.len() as u64;
        let room = state.faults.capacity.map(|capacity| capacity.saturating_sub(state.used()));
        if room.is_some_and(|room| len > before + room) {
            state.counts.full += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.may_write()?;
        state.content(self.node)?.write(Write::Len(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let probability = state.faults.sync_error;
        let fails = state.chance(probability);
        let content = state.content(self.node)?;
        let (unsynced, is_lost) = (std::mem::take(&mut content.unsynced), content.is_lost);
        for write in unsynced {
            let fate = match (fails, is_lost) {
                (true, _) => state.below(3),
                (false, true) => 1,
                (false, false) => 0,
            };
            state.counts.writes_forgotten += u64::from(fate == 1);
            let content = state.content(self.node)?;
            match fate {
                // It reached the disk.
                0 => write.apply(&mut content.synced),
                // It did not and never will, though it is read until power is lost.
                1 => {}
                _ => content.unsynced.push(write),
            }
        }
        if fails {
            state.counts.sync_errors += 1;
            let is_lost = state.faults.lost_after_sync_error;
            state.content(self.node)?.is_lost |= is_lost;
            return Err(io::Error::other("simulated sync error"));
        }
        Ok(())
    }
}

impl Content {
    fn write(&mut self, write: Write) {
        if !matches!(&write, Write::Bytes(_, bytes) if bytes.is_empty()) {
            write.apply(&mut self.visible);
            self.unsynced.push(write);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire::env::disk::File;

    fn sim(seed: u64) -> (SimDisk, Disk) {
        let sim = SimDisk::new(Rng::from_seed(seed));
        (sim.clone(), sim.disk())
    }

    fn contents(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let count = file.read_at(0, &mut bytes).expect("the file can be read");
        bytes[..count].to_vec()
    }

    /// What every disk does.
    fn conforms(disk: &Disk, root: &Path) {
        let directory = root.join("a/b");
        let path = directory.join("one");
        assert_eq!(disk.open(&path).expect_err("there is none").kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.open_or_create(&path).expect_err("no directory").kind(), io::ErrorKind::NotFound);
        assert_eq!(disk.list(&directory).expect_err("no directory").kind(), io::ErrorKind::NotFound);
        disk.create_dir_all(&directory).expect("made");
        disk.create_dir_all(&directory).expect("made again");
        let mut file = disk.open_or_create(&path).expect("created");
        assert_eq!(file.len().expect("measured"), 0);
        file.write_at(3, b"abc").expect("written");
        assert_eq!(contents(&file), b"\0\0\0abc");
        file.write_at(4, b"XYZ").expect("written over");
        file.sync_data().expect("synced");
        let mut bytes = [9; 4];
        assert_eq!(file.read_at(4, &mut bytes).expect("read"), 3, "short at the end of the file");
        assert_eq!(&bytes, b"XYZ\x09");
        assert_eq!(file.read_at(100, &mut bytes).expect("read"), 0);
        file.set_len(5).expect("cut");
        file.set_len(7).expect("extended");
        assert_eq!(contents(&disk.open_or_create(&path).expect("opened")), b"\0\0\0aX\0\0");
        let (two, three) = (directory.join("two"), directory.join("three"));
        disk.open_or_create(&two).expect("created");
        disk.rename(&path, &two).expect("renamed in its place");
        file.moved_to(&two);
        file.write_at(0, b"still the same file").expect("written");
        assert_eq!(contents(&disk.open(&two).expect("opened")), b"still the same file");
        disk.open_or_create(&three).expect("created");
        assert_eq!(disk.list(&directory).expect("listed"), ["three", "two"]);
        let locked = disk.lock(&three).expect("nobody has it");
        let error = disk.lock(&three).expect_err("somebody has it");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("b/three\""), "the path is missing in: {error}");
        drop(locked);
        drop(disk.lock(&three).expect("it was given back"));
        disk.remove(&three).expect("removed");
        assert_eq!(disk.remove(&three).expect_err("it is gone").kind(), io::ErrorKind::NotFound);
        disk.sync_dir(&directory).expect("synced");
        assert_eq!(disk.list(&directory).expect("listed"), ["two"]);
        assert_eq!(disk.list(&root.join("a")).expect("listed"), ["b"]);
        let error = disk.open(&three).expect_err("it is gone");
        assert!(error.to_string().contains("b/three\""), "the path is missing in: {error}");
        let error = disk.rename(&three, &two).expect_err("it is gone");
        assert!(error.to_string().contains("b/three\""), "the path is missing in: {error}");
        assert!(disk.open(&directory).and_then(|file| file.write_at(0, b"x")).is_err(), "a directory");
        assert!(disk.list(&two).is_err(), "a file");
    }

    #[test]
    fn the_system_s_disk_conforms() {
        let root = tempfile::tempdir().expect("a directory");
        conforms(&Disk::system(), root.path());
    }

    #[test]
    fn the_simulated_disk_conforms() {
        conforms(&sim(1).1, Path::new("/data"));
        conforms(&sim(1).1, Path::new("relative"));
    }

    #[test]
    fn a_killed_process_loses_nothing_and_its_files_are_dead() {
        let (sim, disk) = sim(1);
        let file = disk.open_or_create(Path::new("f")).expect("created");
        file.write_at(0, b"abc").expect("written");
        sim.kill();
        assert!(file.write_at(0, b"x").is_err(), "a dead process writes");
        assert_eq!(contents(&disk.open(Path::new("f")).expect("opened")), b"abc");
    }

    #[test]
    fn a_killed_process_gives_its_locks_back_and_its_files_take_none_from_the_next() {
        let (sim, disk) = sim(1);
        for end in [SimDisk::kill, SimDisk::power_loss] {
            let dead = disk.lock(Path::new("f")).expect("nobody has it");
            disk.sync_dir(Path::new("")).expect("synced");
            end(&sim);
            let _living = disk.lock(Path::new("f")).expect("nobody has it");
            drop(dead);
            assert!(disk.lock(Path::new("f")).is_err(), "it is still held");
            assert!(sim.copy().disk().lock(Path::new("f")).is_ok(), "nobody has the copy open");
        }
    }

    #[test]
    fn synced_bytes_under_a_synced_name_survive_every_loss_of_power() {
        for seed in 0..200 {
            let (sim, disk) = sim(seed);
            let file = disk.open_or_create(Path::new("f")).expect("created");
            file.write_at(0, &[1; 1500]).expect("written");
            file.sync_data().expect("synced");
            disk.sync_dir(Path::new("")).expect("synced");
            file.write_at(1500, &[2; 1500]).expect("written");
            sim.power_loss();
            let left = contents(&disk.open(Path::new("f")).expect("its name was synced"));
            assert_eq!(left[..1500], [1; 1500], "seed {seed}");
            assert!(left[1500..].iter().all(|byte| [0, 2].contains(byte)), "seed {seed}");
        }
    }

    #[test]
    fn unsynced_bytes_are_lost_kept_torn_and_reordered() {
        let (mut none, mut all, mut torn, mut reordered) = (0, 0, 0, 0);
        for seed in 0..300 {
            let (sim, disk) = sim(seed);
            let file = disk.open_or_create(Path::new("f")).expect("created");
            file.write_at(0, &[1; 1024]).expect("written");
            file.sync_data().expect("synced");
            disk.sync_dir(Path::new("")).expect("synced");
            file.write_at(0, &[2; 512]).expect("written");
            file.write_at(512, &[3; 512]).expect("written");
            sim.power_loss();
            let left = contents(&disk.open(Path::new("f")).expect("its name was synced"));
            assert_eq!(left.len(), 1024);
            none += i32::from(left == [1; 1024]);
            all += i32::from(left[..512] == [2; 512] && left[512..] == [3; 512]);
            torn += i32::from(left[512] == 3 && left[1023] == 1);
            reordered += i32::from(left[0] == 1 && left[512] == 3);
        }
        assert!(none > 0 && all > 0 && torn > 0 && reordered > 0, "{none} {all} {torn} {reordered}");
    }

    #[test]
    fn unsynced_names_and_lengths_may_be_undone() {
        let (mut created, mut removed, mut renamed, mut cut) = ([0; 2], [0; 2], [0; 2], [0; 2]);
        for seed in 0..100 {
            let (sim, disk) = sim(seed);
            for name in ["old", "from"] {
                let file = disk.open_or_create(Path::new(name)).expect("created");
                file.write_at(0, b"abc").expect("written");
                file.sync_data().expect("synced");
            }
            disk.sync_dir(Path::new("")).expect("synced");
            disk.open_or_create(Path::new("new")).expect("created");
            disk.remove(Path::new("old")).expect("removed");
            disk.rename(Path::new("from"), Path::new("to")).expect("renamed");
            disk.open(Path::new("to")).and_then(|file| file.set_len(1)).expect("cut");
            sim.power_loss();
            let names = disk.list(Path::new("")).expect("listed");
            let has = |name: &str| names.iter().any(|other| other == name);
            created[usize::from(has("new"))] += 1;
            removed[usize::from(!has("old"))] += 1;
            renamed[usize::from(has("to"))] += 1;
            assert_ne!(has("from"), has("to"), "a rename is whole or not at all");
            let file = disk.open(Path::new(if has("to") { "to" } else { "from" })).expect("opened");
            cut[usize::from(file.len().expect("measured") == 1)] += 1;
        }
        for both in [created, removed, renamed, cut] {
            assert!(both[0] > 0 && both[1] > 0, "{both:?}");
        }
    }

    #[test]
    fn a_later_sync_does_not_bring_back_what_a_failed_one_forgot() {
        let mut forgotten = 0;
        for seed in 0..50 {
            let (sim, disk) = sim(seed);
            let file = disk.open_or_create(Path::new("f")).expect("created");
            disk.sync_dir(Path::new("")).expect("synced");
            file.write_at(0, b"abc").expect("written");
            sim.set_faults(Faults { sync_error: 1.0, ..Faults::default() });
            assert!(file.sync_data().is_err());
            sim.set_faults(Faults::default());
            file.sync_data().expect("synced, it says");
            assert_eq!(contents(&file), b"abc", "it is read until power is lost");
            sim.power_loss();
            let left = contents(&disk.open(Path::new("f")).expect("opened"));
            forgotten += i32::from(left != b"abc");
        }
        assert!((5..45).contains(&forgotten), "{forgotten}");
    }

    #[test]
    fn a_file_may_be_lost_after_a_failed_sync() {
        let (sim, disk) = sim(1);
        let file = disk.open_or_create(Path::new("f")).expect("created");
        disk.sync_dir(Path::new("")).expect("synced");
        sim.set_faults(Faults { sync_error: 1.0, lost_after_sync_error: true, ..Faults::default() });
        assert!(file.sync_data().is_err());
        sim.set_faults(Faults::default());
        file.write_at(0, b"abc").expect("written");
        file.sync_data().expect("synced, it says");
        sim.power_loss();
        assert_eq!(contents(&disk.open(Path::new("f")).expect("opened")), b"");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_says_so_until_there_is_room() {
        let (sim, disk) = sim(1);
        let file = disk.open_or_create(Path::new("f")).expect("created");
        sim.set_faults(Faults { capacity: Some(10), ..Faults::default() });
        let error = file.write_at(0, &[1; 16]).expect_err("it is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!((sim.used(), contents(&file)), (10, vec![1; 10]));
        file.write_at(2, &[2; 8]).expect("what is there can be written over");
        assert!(disk.open_or_create(Path::new("g")).is_err() && file.set_len(11).is_err());
        file.set_len(4).expect("cut");
        file.write_at(4, &[3; 6]).expect("there is room");
        assert_eq!(sim.counts().full, 3);
    }

    #[test]
    fn the_same_seed_gives_the_same_disk() {
        let run = |seed| {
            let (sim, disk) = sim(seed);
            let file = disk.open_or_create(Path::new("f")).expect("created");
            disk.sync_dir(Path::new("")).expect("synced");
            for round in 0..8 {
                file.write_at(round * 700, &[round as u8; 900]).expect("written");
            }
            sim.power_loss();
            (contents(&disk.open(Path::new("f")).expect("opened")), sim.counts())
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
