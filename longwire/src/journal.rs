//! Records on a disk, made safe in groups, read again after a crash.
//!
//! A plain struct: no thread, no clock, no chance, one owner of a directory at a time. Its owner appends what
//! must outlive the process, commits, and only then tells anyone; [replays](Journal::replay) it later, and
//! [releases](Journal::release) what is dealt with. It knows no record's meaning; `segment` has the bytes.
//!
//! - A group (what one commit writes) goes behind the last one in the newest *segment*, or begins a segment, as
//!   `segment.new`, renamed once synced: a segment that has its name has its first group, and supersedes the
//!   one before it from its first sequence on. A segment of an earlier run is never written to.
//! - After the sync a *proof*, itself not synced, is written behind the group. Spoiled bytes that a proof, a
//!   header or a later segment covers are damage, which [`Journal::open`] refuses unless told
//!   [`past_damage`](Options::past_damage); others at the end are of a group that nobody was told about, and
//!   are cut off. Whole records without proof are written once more: after a failed sync, what is read need
//!   not be on the disk.
//! - What must stay true: nothing is `durable` before the syncs of its file and of the directory; a file whose
//!   sync failed is not written again; only one name at a time waits for the directory's sync, so that no
//!   crash leaves a hole. The loss of the oldest or newest segments as whole files is not seen: compare
//!   [`Journal::first`] and [`Journal::last`] with a position of your own.

mod data_dir;
mod segment;
mod spot;
#[cfg(test)]
mod tests;

pub use data_dir::DataDir;
pub use spot::{Mark, Scan, Spot};

use crate::env::disk::{Disk, File};
use longwire_protocol::flaw::{self, Flaw};
use segment::{HEAD, HEADER, Head, Name, Run, Window};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The number of a record: 1 for the first, and one more for each.
pub type Sequence = u64;

/// The name of a segment until its first group is safe.
const UNFINISHED: &str = "segment.new";

/// Memory for groups that is kept from one to the next.
const KEPT_PENDING: usize = 4 << 20;

/// Records in a directory; see the module's description.
#[derive(Debug)]
pub struct Journal {
    disk: Disk,
    directory: PathBuf,
    options: Options,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The newest segment, while groups go into it.
    writing: Option<Writing>,
    /// Encoded records that wait for a commit.
    pending: Vec<u8>,
    /// The sequence of the record that is appended next.
    next: Sequence,
    /// The newest record whose data is synced.
    written: Sequence,
    /// The newest record that outlives a loss of power.
    durable: Sequence,
    /// Names were changed since the directory was synced.
    names_changed: bool,
    /// The number of the oldest segment: each that there ever was in this process has its own.
    base: u32,
    /// Where the group begins that was written last.
    group: Spot,
    reader: spot::Reader,
}

impl Journal {
    /// Opens the journal of a directory, which is made if need be, and finds out what is in it.
    ///
    /// Whole records that are not proven to be durable are committed; if that fails the journal is open all
    /// the same, [`Recovery::unsaved`] says why, and they become durable with the next commit.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if durable records are spoiled or missing, unless
    /// [`Options::past_damage`]; nothing is changed on the disk then. [`JournalError::Io`] and
    /// [`JournalError::DiskFull`] if the directory cannot be made, read or synced.
    pub fn open(
        disk: &Disk,
        directory: &Path,
        options: Options,
    ) -> Result<(Journal, Recovery), JournalError> {
        options.check()?;
        disk.create_dir_all(directory)?;
        let mut names: Vec<_> = disk.list(directory)?.iter().filter_map(|name| Name::parse(name)).collect();
        names.sort_unstable();
        // The run before may have been killed between a rename and its sync.
        disk.sync_dir(directory)?;
        let mut journal = Journal {
            disk: disk.clone(),
            directory: directory.to_path_buf(),
            options,
            segments: VecDeque::with_capacity(names.len()),
            writing: None,
            pending: Vec::new(),
            next: 1,
            written: 0,
            durable: 0,
            names_changed: false,
            base: 0,
            group: Spot::default(),
            reader: spot::Reader::default(),
        };
        let mut recovery = Recovery::default();
        for (index, name) in names.iter().enumerate() {
            let path = directory.join(name.file_name());
            let limit = names.get(index + 1).map(|next| next.first - 1);
            let found = segment::find(&path, disk.open(&path)?, name, limit)?;
            if let Err(version) = found.version {
                return Err(JournalError::UnknownVersion { file: path, version });
            }
            journal.segments.push_back(Segment { name: *name, path, runs: found.runs });
            (journal.next, journal.durable) = (found.last + 1, found.proven);
            recovery.cut_bytes = found.cut_bytes;
            recovery.damage.extend(found.damage);
        }
        if !journal.options.past_damage && !recovery.damage.is_empty() {
            return Err(JournalError::Damaged(recovery.damage));
        }
        journal.written = journal.durable;
        journal.take_back_unproven()?;
        recovery.unsaved = journal.commit().err();
        Ok((journal, recovery))
    }

    /// Puts whole records that are not proven to be durable before the next group.
    fn take_back_unproven(&mut self) -> Result<(), JournalError> {
        for record in self.records(self.durable + 1, self.next - 1) {
            let Record { sequence, kind, payload } = record?;
            self.encode(&Head::of(sequence, self.durable, kind, &payload), &[&payload]);
        }
        if let Some(newest) = self.segments.back_mut() {
            // They will be read from the segment that this run writes them to.
            newest.runs.retain(|run| run.from <= self.durable);
            if let Some(run) = newest.runs.last_mut() {
                run.to = run.to.min(self.durable);
            }
        }
        Ok(())
    }

    /// Takes a record and gives it the next sequence. It is kept in memory until a commit succeeds.
    ///
    /// # Errors
    /// [`JournalError::RecordTooLarge`]; [`JournalError::Backlog`] when too much waits for a commit. The
    /// record is not taken then.
    pub fn append(&mut self, kind: u8, payload: &[u8]) -> Result<Sequence, JournalError> {
        self.append_parts(kind, &[payload])
    }

    /// The same of a payload that lies in parts.
    ///
    /// # Errors
    /// Those of [`append`](Self::append).
    pub fn append_parts(&mut self, kind: u8, parts: &[&[u8]]) -> Result<Sequence, JournalError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        let bound = self.options.max_record_bytes;
        if bytes > bound {
            return Err(JournalError::RecordTooLarge { bytes, bound });
        }
        let bound = self.options.max_pending_bytes;
        if self.pending.len() + HEAD + bytes > bound {
            return Err(JournalError::Backlog { bytes: self.pending.len(), bound });
        }
        let sequence = self.next;
        self.encode(&Head::of_parts(sequence, self.durable, kind, parts), parts);
        self.next += 1;
        Ok(sequence)
    }

    fn encode(&mut self, head: &Head, parts: &[&[u8]]) {
        self.pending.extend_from_slice(&head.encode(self.options.salt));
        for part in parts {
            self.pending.extend_from_slice(part);
        }
    }

    /// Makes everything that was appended durable, and says up to which record.
    ///
    /// # Errors
    /// The disk's. Nothing is lost then: the records still wait, and the next commit tries again with them;
    /// in place if the disk refused bytes, in another file if a sync failed.
    pub fn commit(&mut self) -> Result<Sequence, JournalError> {
        let before = self.durable;
        // First, because a segment may only be begun when the names of those before it are safe.
        self.sync_names()?;
        if !self.pending.is_empty() {
            let group = std::mem::take(&mut self.pending);
            let result = self.write(&group);
            self.pending = group;
            result?;
            self.pending.clear();
            // One large group must not leave its room behind for ever.
            self.pending.shrink_to(KEPT_PENDING);
            self.sync_names()?;
        }
        if let Some(writing) = self.writing.as_ref().filter(|_| self.durable > before) {
            let proof = Head::proof(self.durable).encode(self.options.salt);
            // Without it the group is durable all the same; it would only be written again at the next start.
            let _ = writing.file.write_at(writing.end, &proof);
        }
        Ok(self.durable)
    }

    /// Writes and syncs a group.
    fn write(&mut self, group: &[u8]) -> Result<(), JournalError> {
        let size = (group.len() + HEAD) as u64;
        match &mut self.writing {
            Some(writing)
                if writing.end + size <= self.options.max_segment_bytes
                    && writing.end < self.options.roll_bytes =>
            {
                let offset = writing.end as u32;
                writing.file.write_at(writing.end, group)?;
                if let Err(error) = make_durable(&writing.file) {
                    self.writing = None;
                    return Err(error.into());
                }
                writing.end += group.len() as u64;
                let run = self.segments.back_mut().and_then(|segment| segment.runs.last_mut());
                let run = run.expect("the segment that is written has its first group");
                (run.to, run.end) = (self.next - 1, writing.end);
                let segment = self.base + self.segments.len() as u32 - 1;
                self.group = Spot { segment, offset };
            }
            _ => self.begin_segment(group)?,
        }
        self.written = self.next - 1;
        Ok(())
    }

    /// Writes and syncs a group as the first of a segment.
    fn begin_segment(&mut self, group: &[u8]) -> Result<(), JournalError> {
        let unfinished = self.directory.join(UNFINISHED);
        // What is left of an earlier attempt may be a file whose sync failed.
        match self.disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let name = Name { first: self.durable + 1, salt: self.options.salt };
        let path = self.directory.join(name.file_name());
        let bytes = [&name.header(self.next - 1)[..], group].concat();
        let attempt = self.disk.open_or_create(&unfinished).and_then(|file| {
            file.write_at(0, &bytes)?;
            make_durable(&file)?;
            self.disk.rename(&unfinished, &path)?;
            Ok(file)
        });
        let mut file = match attempt {
            Ok(file) => file,
            Err(error) => {
                // A full disk needs the room; if it cannot be removed either, the next attempt will see.
                let _ = self.disk.remove(&unfinished);
                return Err(error.into());
            }
        };
        file.moved_to(&path);
        self.names_changed = true;
        let end = bytes.len() as u64;
        let run = Run { from: name.first, to: self.next - 1, offset: HEADER as u64, end };
        self.segments.push_back(Segment { name, path, runs: vec![run] });
        self.writing = Some(Writing { file, end });
        let segment = self.base + self.segments.len() as u32 - 1;
        self.group = Spot { segment, offset: HEADER as u32 };
        Ok(())
    }

    /// Makes changed names safe, and with them the records that are written.
    fn sync_names(&mut self) -> Result<(), JournalError> {
        if self.names_changed {
            self.disk.sync_dir(&self.directory)?;
            self.names_changed = false;
        }
        self.durable = self.written;
        Ok(())
    }

    /// Says that the records up to this one are dealt with, and removes the segments that have no others.
    ///
    /// Only whole segments go, and never the newest: a later start replays some records again.
    ///
    /// # Errors
    /// The disk's; the next call goes on where this one stopped.
    pub fn release(&mut self, up_to: Sequence) -> Result<(), JournalError> {
        let up_to = up_to.min(self.durable);
        while let Some(second) = self.segments.get(1)
            && second.name.first <= up_to + 1
        {
            let path = self.segments[0].path.clone();
            // One by one: if several removals waited for a sync, a crash might undo the older of two.
            self.sync_names()?;
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            self.segments.pop_front();
            self.base += 1;
            self.reader.forget_before(self.base);
            self.names_changed = true;
        }
        self.sync_names()
    }

    /// The newest record that outlives a loss of power; 0 if there is none.
    pub fn durable(&self) -> Sequence {
        self.durable
    }

    /// The oldest record that is kept, or the first that will be.
    pub fn first(&self) -> Sequence {
        self.segments.front().map_or(1, |segment| segment.name.first)
    }

    /// The newest record, durable or not; 0 if there is none.
    pub fn last(&self) -> Sequence {
        self.next - 1
    }

    /// The newest record of the oldest segment, up to which the next [`release`](Self::release) would remove a
    /// file; `None` while there is one segment.
    pub fn oldest_ends(&self) -> Option<Sequence> {
        self.segments.get(1).map(|second| second.name.first - 1)
    }

    /// Bytes that the segments have on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().filter_map(|segment| segment.runs.last()).map(|run| run.end).sum()
    }

    /// Bytes that wait for a commit.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Reads the durable records from one on, in order. What is released meanwhile can no longer be read.
    pub fn replay(&self, from: Sequence) -> Replay {
        self.records(from, self.durable)
    }

    fn records(&self, from: Sequence, to: Sequence) -> Replay {
        let mut parts = VecDeque::new();
        for segment in &self.segments {
            let runs = segment.runs.iter().filter(|run| run.from <= to && run.to >= from);
            parts.extend(runs.map(|run| Part {
                path: segment.path.clone(),
                salt: segment.name.salt,
                next: run.from,
                to: run.to.min(to),
                offset: run.offset,
            }));
        }
        Replay { disk: self.disk.clone(), from, parts, window: None }
    }
}

/// The one place that makes bytes durable.
fn make_durable(file: &File) -> io::Result<()> {
    if flaw::is_on(Flaw::AckBeforeDurable) {
        return Ok(());
    }
    file.sync_data()
}

/// Bounds of a journal, which its owner chooses.
#[derive(Clone, Debug)]
pub struct Options {
    /// The largest payload.
    pub max_record_bytes: usize,
    /// Most that waits for a commit, each record counted with 29 bytes more than its payload.
    pub max_pending_bytes: usize,
    /// The largest file: what is released gives room back in pieces of this size.
    pub max_segment_bytes: u64,
    /// From this size on no further group goes into a file, so that pieces are smaller than the largest group.
    pub roll_bytes: u64,
    /// A random number, drawn for each start, which keeps payloads from being taken for records.
    pub salt: u32,
    /// Opens a damaged journal too, without the records that [`Recovery::damage`] names.
    pub past_damage: bool,
}

impl Options {
    /// Records up to 1 MiB, groups up to 4 MiB, segments up to 16 MiB; damage is refused.
    pub fn new(salt: u32) -> Options {
        Options {
            max_record_bytes: 1 << 20,
            max_pending_bytes: 4 << 20,
            max_segment_bytes: 16 << 20,
            roll_bytes: u64::MAX,
            salt,
            past_damage: false,
        }
    }

    fn check(&self) -> Result<(), JournalError> {
        if self.max_record_bytes > segment::MAX_PAYLOAD {
            return Err(JournalError::Options("max_record_bytes is more than the format has"));
        }
        if self.max_record_bytes + HEAD > self.max_pending_bytes {
            return Err(JournalError::Options("max_pending_bytes has no room for the largest record"));
        }
        if self.max_segment_bytes > u64::from(u32::MAX) {
            return Err(JournalError::Options("max_segment_bytes is more than the format has"));
        }
        if (HEADER + self.max_pending_bytes + HEAD) as u64 > self.max_segment_bytes {
            return Err(JournalError::Options("max_segment_bytes has no room for the largest group"));
        }
        Ok(())
    }
}

/// What opening a journal found beside its records.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Bytes at the end that a crash left of records nobody was told about.
    pub cut_bytes: u64,
    /// What is gone, with [`Options::past_damage`].
    pub damage: Vec<Damage>,
    /// Why whole records are not durable yet.
    pub unsaved: Option<JournalError>,
}

/// Durable records that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file that should have them.
    pub file: PathBuf,
    /// Where in it the first should begin.
    pub offset: u64,
    /// The records; `None` if only the file's header is spoiled.
    pub lost: Option<RangeInclusive<Sequence>>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is spoiled at byte {}: ", self.file.display(), self.offset)?;
        match &self.lost {
            Some(lost) => write!(f, "records {} to {} are lost", lost.start(), lost.end()),
            None => write!(f, "its header is wrong, no record is lost"),
        }
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub sequence: Sequence,
    /// What its owner said that it is.
    pub kind: u8,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// Records as they are read from the disk, each checked again; ends after an error.
#[derive(Debug)]
pub struct Replay {
    disk: Disk,
    from: Sequence,
    parts: VecDeque<Part>,
    window: Option<Window>,
}

impl Replay {
    fn read(&mut self) -> Result<Option<Record>, JournalError> {
        while let Some(part) = self.parts.front_mut() {
            let window = match &mut self.window {
                Some(window) => window,
                empty => empty.insert(Window::new(self.disk.open(&part.path)?, part.salt)?),
            };
            let head = window.head(part.offset)?.filter(|head| head.sequence == part.next);
            let payload = match &head {
                Some(head) => window.payload(part.offset, head)?,
                None => None,
            };
            let (Some(head), Some(payload)) = (head, payload) else {
                let lost = Some(part.next..=part.to);
                let damage = Damage { file: part.path.clone(), offset: part.offset, lost };
                return Err(JournalError::Damaged(vec![damage]));
            };
            let wanted = head.sequence >= self.from;
            let record = wanted.then(|| Record {
                sequence: head.sequence,
                kind: head.kind,
                payload: payload.to_vec(),
            });
            part.offset += head.size();
            part.next += 1;
            if part.next > part.to {
                self.parts.pop_front();
                self.window = None;
            }
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }
}

impl Iterator for Replay {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.read().transpose();
        if matches!(item, Some(Err(_))) {
            self.parts.clear();
        }
        item
    }
}

/// Why a journal did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The owner's: a payload beyond [`Options::max_record_bytes`].
    #[error("a record of {bytes} bytes is larger than the {bound} that a journal's record may have")]
    RecordTooLarge {
        /// Its bytes.
        bytes: usize,
        /// The most there may be.
        bound: usize,
    },
    /// The environment's: commits fail, and [`Options::max_pending_bytes`] is reached.
    #[error("the journal takes no record while {bytes} of at most {bound} bytes wait for a commit")]
    Backlog {
        /// Bytes that wait.
        bytes: usize,
        /// The most that may.
        bound: usize,
    },
    /// The environment's: there is no room; writing goes on when there is.
    #[error("the disk is full")]
    DiskFull(#[source] io::Error),
    /// The environment's: the disk failed.
    #[error("the disk failed: {0}")]
    Io(io::Error),
    /// Whoever runs it: two processes were given one directory.
    #[error(
        "\"{}\" is used by another process of longwire: end that one, or give each a `server.data_dir` of its own",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The environment's: durable records are spoiled or missing.
    #[error("the journal is damaged: {}", .0.iter().map(Damage::to_string).collect::<Vec<_>>().join("; "))]
    Damaged(Vec<Damage>),
    /// Whoever runs it: the file is of another version of longwire.
    #[error("\"{}\" has format version {version}, which this version of longwire does not know", file.display())]
    UnknownVersion {
        /// The segment.
        file: PathBuf,
        /// What its header says.
        version: u32,
    },
    /// Whoever runs it: the owner reads records that it cannot have written.
    #[error("{0} records are not of this version of longwire")]
    UnknownRecords(u64),
    /// The owner's: bounds that contradict each other.
    #[error("the journal's options contradict each other: {0}")]
    Options(&'static str),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> JournalError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => JournalError::DiskFull(error),
            _ => JournalError::Io(error),
        }
    }
}

/// One file.
#[derive(Debug)]
struct Segment {
    name: Name,
    path: PathBuf,
    /// Where its records are; more than one run only where some are lost.
    runs: Vec<Run>,
}

/// The file that groups go into.
#[derive(Debug)]
struct Writing {
    file: File,
    /// Where the next group goes.
    end: u64,
}

/// A run that is being read.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    salt: u32,
    next: Sequence,
    to: Sequence,
    offset: u64,
}
