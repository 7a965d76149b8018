//! A journal on a disk that fails, against a page of truth.
//!
//! [`run`] draws appends, commits, releases, kills, losses of power, a full disk, failing writes and syncs, and
//! flipped bits from a seed, and checks after each what [`Journal`] promises: what was reported durable is
//! there, in order, once, until it is released; nothing appears that was not appended; a flipped bit is
//! reported and never delivered; released segments go; when faults stop, writing resumes. It knows nothing of
//! files but their names. What must stay true: a violation is an error that says what was expected; the same
//! seed gives the same digest.

use crate::disk::{Counts, Faults, SimDisk};
use longwire::env::rng::Rng;
use longwire::journal::{Journal, JournalError, Options, Record, Recovery, Sequence};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DIRECTORY: &str = "data/journal";
/// A torn tail of fewer bytes may be a proof, which nobody waits for.
const PROOF_BYTES: u64 = 29;

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records appended.
    pub records: u64,
    /// Commits that succeeded with something to commit.
    pub commits: u64,
    /// Commits that failed for want of room.
    pub full_commits: u64,
    /// Commits that failed for another reason.
    pub failed_commits: u64,
    /// Appends refused because too much waited.
    pub backlogs: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Starts that found a torn tail.
    pub torn_tails: u64,
    /// Those among them that lost more than a proof.
    pub torn_groups: u64,
    /// Records that were appended, but not reported durable, and were there after a crash.
    pub survivors: u64,
    /// Records that were appended, not reported durable, and gone after a crash.
    pub forgotten: u64,
    /// Starts that failed while the disk did.
    pub failed_starts: u64,
    /// Starts that could not make whole records durable.
    pub unsaved_starts: u64,
    /// Releases after which the journal began later.
    pub releases: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Flipped bits that a start refused as damage.
    pub flips_refused: u64,
    /// Flipped bits in bytes that no longer matter, or in a group that nobody can tell from a torn one.
    pub flips_harmless: u64,
    /// Durable records that the flips cost, each reported.
    pub flips_lost: u64,
    /// What went wrong on the disk.
    pub disk: Counts,
    /// Everything that was observed, folded.
    pub digest: u64,
}

impl Summary {
    /// Adds up what happened in two runs.
    #[must_use]
    pub fn and(mut self, other: &Summary) -> Summary {
        self.records += other.records;
        self.commits += other.commits;
        self.full_commits += other.full_commits;
        self.failed_commits += other.failed_commits;
        self.backlogs += other.backlogs;
        self.kills += other.kills;
        self.torn_tails += other.torn_tails;
        self.torn_groups += other.torn_groups;
        self.survivors += other.survivors;
        self.forgotten += other.forgotten;
        self.failed_starts += other.failed_starts;
        self.unsaved_starts += other.unsaved_starts;
        self.releases += other.releases;
        self.flips += other.flips;
        self.flips_refused += other.flips_refused;
        self.flips_harmless += other.flips_harmless;
        self.flips_lost += other.flips_lost;
        self.disk.power_losses += other.disk.power_losses;
        self.disk.sectors_lost += other.disk.sectors_lost;
        self.disk.torn_writes += other.disk.torn_writes;
        self.disk.names_undone += other.disk.names_undone;
        self.disk.write_errors += other.disk.write_errors;
        self.disk.sync_errors += other.disk.sync_errors;
        self.disk.dir_sync_errors += other.disk.dir_sync_errors;
        self.disk.writes_forgotten += other.disk.writes_forgotten;
        self.disk.full += other.disk.full;
        self.digest = fnv(fnv(FNV, &self.digest.to_le_bytes()), &other.digest.to_le_bytes());
        self
    }
}

/// Runs `steps` steps that follow from `seed`.
///
/// # Errors
/// The first promise that was broken, with the step at which it was seen.
pub fn run(seed: u64, steps: usize) -> Result<Summary, String> {
    let root = Rng::from_seed(seed);
    let mut ledger = Ledger::new(&root)?;
    for step in 0..steps {
        ledger.step().map_err(|violation| format!("seed {seed}, step {step}: {violation}"))?;
    }
    ledger.finish().map_err(|violation| format!("seed {seed}, at the end: {violation}"))
}

/// The truth: what was appended, and what was reported.
#[derive(Default)]
struct Model {
    appended: BTreeMap<Sequence, (u8, Vec<u8>)>,
    reported: Sequence,
    released: Sequence,
}

struct Ledger {
    rng: Rng,
    disk: SimDisk,
    faults: Faults,
    journal: Option<Journal>,
    model: Model,
    /// Where the newest group begins that was reported.
    group: Sequence,
    /// From here on a proof may be missing, so that a spoiled record looks like a torn one.
    unproven: Sequence,
    /// The last start could not save; until a commit succeeds the newest group may not be read.
    is_unsaved: bool,
    /// Something failed or died; power is lost soon after more often than at other times.
    is_shaken: bool,
    summary: Summary,
}

impl Ledger {
    fn new(root: &Rng) -> Result<Ledger, String> {
        let mut ledger = Ledger {
            rng: root.fork("ledger"),
            disk: SimDisk::new(root.fork("disk")),
            faults: Faults::default(),
            journal: None,
            model: Model::default(),
            group: 1,
            unproven: Sequence::MAX,
            is_unsaved: false,
            is_shaken: false,
            summary: Summary { digest: FNV, ..Summary::default() },
        };
        ledger.start()?;
        Ok(ledger)
    }

    fn step(&mut self) -> Result<(), String> {
        if std::mem::take(&mut self.is_shaken) {
            match self.rng.bits() % 3 {
                0 => return self.lose_power(),
                1 => return self.kill(),
                _ => {}
            }
        }
        match self.rng.bits() % 100 {
            0..45 => self.append(),
            45..68 => self.commit(),
            68..74 => self.release(),
            74..78 => self.kill(),
            78..84 => self.lose_power(),
            84..90 => self.flip(),
            90..92 => self.check(),
            92..98 => {
                self.change_faults();
                Ok(())
            }
            _ => (0..8).try_for_each(|_| self.append()),
        }
    }

    fn kill(&mut self) -> Result<(), String> {
        self.summary.kills += 1;
        self.journal = None;
        self.disk.kill();
        self.is_shaken = true;
        self.start()
    }

    fn lose_power(&mut self) -> Result<(), String> {
        self.journal = None;
        self.disk.power_loss();
        self.start()
    }

    fn finish(mut self) -> Result<Summary, String> {
        self.set_faults(Faults::default());
        // What a backlog refused goes in when commits work.
        self.commit()?;
        self.append()?;
        self.commit()?;
        let last = *self.model.appended.last_key_value().ok_or("nothing was appended")?.0;
        if self.model.reported != last {
            return Err(format!("faults ended, but only {} of {last} are durable", self.model.reported));
        }
        self.check()?;
        self.lose_power()?;
        self.summary.disk = self.disk.counts();
        Ok(self.summary)
    }

    fn journal(&mut self) -> &mut Journal {
        self.journal.as_mut().expect("every step leaves a journal")
    }

    fn options(&mut self) -> Options {
        let mut options = Options::new(self.rng.bits() as u32);
        options.max_record_bytes = 1500;
        options.max_pending_bytes = 2000;
        options.max_segment_bytes = 2600;
        options
    }

    /// A payload: mostly short, at times empty or the longest there may be.
    fn payload(&mut self) -> Vec<u8> {
        let length = match self.rng.bits() % 10 {
            0 => 0,
            1..7 => self.rng.bits() % 60,
            7..9 => self.rng.bits() % 700,
            _ => self.rng.bits() % 1501,
        };
        let words = (0..length.div_ceil(8)).flat_map(|_| self.rng.bits().to_le_bytes());
        words.take(length as usize).collect()
    }

    fn append(&mut self) -> Result<(), String> {
        let (kind, payload) = (self.rng.bits() as u8, self.payload());
        let expected = self.journal().last() + 1;
        match self.journal().append(kind, &payload) {
            Ok(sequence) if sequence == expected => {
                self.note(b"append", sequence);
                self.summary.records += 1;
                self.model.appended.insert(sequence, (kind, payload));
                Ok(())
            }
            Ok(sequence) => Err(format!("record {sequence} came where {expected} was due")),
            Err(JournalError::Backlog { .. }) => {
                self.summary.backlogs += 1;
                self.note(b"backlog", expected);
                if self.faults.are_any() { Ok(()) } else { self.commit() }
            }
            Err(error) => Err(format!("an append failed: {error}")),
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        let (before, last) = (self.model.reported, self.journal().last());
        let safe = self.journal().durable();
        match self.journal().commit() {
            Ok(durable) => {
                self.note(b"commit", durable);
                if durable != last {
                    return Err(format!("a commit reported {durable}, but {last} was appended"));
                }
                self.is_unsaved = false;
                if durable > before {
                    self.summary.commits += 1;
                    self.model.reported = durable;
                    self.group = before.min(safe) + 1;
                    // A write that fails may be that of the proof.
                    self.unproven = if self.faults.are_any() { self.group } else { Sequence::MAX };
                }
                Ok(())
            }
            Err(error) => self.failed("a commit", &error),
        }
    }

    /// A failure is right only while the disk fails, and must say what the disk said.
    fn failed(&mut self, what: &str, error: &JournalError) -> Result<(), String> {
        self.is_shaken = true;
        // The group before may lose its proof to a part of the next one.
        self.unproven = self.group;
        match error {
            JournalError::DiskFull(_) if self.faults.capacity.is_some() => self.summary.full_commits += 1,
            JournalError::Io(_) if self.faults.are_any() => self.summary.failed_commits += 1,
            _ => return Err(format!("{what} failed: {}", chain(error))),
        }
        let durable = self.journal().durable();
        self.note(b"failed", durable);
        if durable < self.model.reported && !self.is_unsaved {
            return Err(format!("{durable} is durable, but {} was reported", self.model.reported));
        }
        self.model.reported = self.model.reported.max(durable);
        Ok(())
    }

    fn release(&mut self) -> Result<(), String> {
        let span = self.model.reported - self.model.released;
        let up_to = self.model.released + self.rng.bits() % (span + 1);
        self.model.released = up_to;
        let before = self.journal().first();
        match self.journal().release(up_to) {
            Ok(()) => {
                let first = self.journal().first();
                self.note(b"release", first);
                self.summary.releases += u64::from(first > before);
                let files = self.segments()?;
                if up_to == self.model.reported && files > 1 && self.journal().pending_bytes() == 0 {
                    return Err(format!("all is released, but there are {files} segments"));
                }
                Ok(())
            }
            Err(error) => self.failed("a release", &error),
        }
    }

    fn segments(&self) -> Result<usize, String> {
        let names = self.disk.disk().list(Path::new(DIRECTORY)).map_err(|error| error.to_string())?;
        Ok(names.iter().filter(|name| name.to_string_lossy().ends_with(".journal")).count())
    }

    fn change_faults(&mut self) {
        let faults = Faults::drawn(&mut self.rng, &self.disk, 3000);
        self.set_faults(faults);
    }

    fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.disk.set_faults(faults);
    }

    /// A process starts on what the disk has.
    fn start(&mut self) -> Result<(), String> {
        let options = self.options();
        let directory = Path::new(DIRECTORY);
        let opened = match Journal::open(&self.disk.disk(), directory, options.clone()) {
            Err(JournalError::Io(_) | JournalError::DiskFull(_)) if self.faults.are_any() => {
                self.summary.failed_starts += 1;
                self.set_faults(Faults::default());
                Journal::open(&self.disk.disk(), directory, options)
            }
            other => other,
        };
        let (journal, recovery) = opened.map_err(|error| format!("a start failed: {}", chain(&error)))?;
        self.took_over(&journal, &recovery)?;
        self.journal = Some(journal);
        self.check()
    }

    /// Compares what a start says with what was reported and appended, and forgets what is gone.
    fn took_over(&mut self, journal: &Journal, recovery: &Recovery) -> Result<(), String> {
        let Recovery { cut_bytes, damage, unsaved } = recovery;
        if !damage.is_empty() {
            return Err(format!("damage without a flipped bit: {damage:?}"));
        }
        let last = self.model.appended.last_key_value().map_or(0, |(last, _)| *last);
        let (reported, durable) = (self.model.reported, journal.durable());
        if durable > journal.last() || journal.last() > last {
            return Err(format!("{durable} durable of {}, but {last} was appended", journal.last()));
        }
        match unsaved {
            None if durable < journal.last() => {
                return Err(format!("{durable} is durable of {}, and no reason why", journal.last()));
            }
            Some(JournalError::Io(_) | JournalError::DiskFull(_)) if self.faults.are_any() => {
                self.summary.unsaved_starts += 1;
            }
            Some(error) => return Err(format!("a start could not commit: {}", chain(error))),
            None => {}
        }
        if journal.last() < reported {
            return Err(format!("{reported} was reported durable, but {} is the last", journal.last()));
        }
        self.summary.torn_tails += u64::from(*cut_bytes > 0);
        self.summary.torn_groups += u64::from(*cut_bytes > PROOF_BYTES);
        self.summary.survivors += journal.last() - reported;
        self.summary.forgotten += last - journal.last();
        self.model.appended.split_off(&(journal.last() + 1));
        // A start that could not save leaves what was reported as it was found.
        self.model.reported = reported.max(durable);
        self.is_unsaved = unsaved.is_some();
        // What had no proof is written once more, with one.
        self.unproven = if self.faults.are_any() { self.group } else { Sequence::MAX };
        self.note(b"start", journal.last());
        self.note(b"cut", *cut_bytes);
        Ok(())
    }

    /// Reads everything and compares it with the truth.
    fn check(&mut self) -> Result<(), String> {
        let (first, durable) = (self.journal().first(), self.journal().durable());
        if first > self.model.released + 1 {
            return Err(format!("{} is the first, but only {} is released", first, self.model.released));
        }
        let replay: Vec<_> = self.journal().replay(0).collect();
        let mut expected = first;
        for record in replay {
            let record = record.map_err(|error| format!("a replay failed: {}", chain(&error)))?;
            if record.sequence != expected {
                return Err(format!("record {} was read where {expected} was due", record.sequence));
            }
            self.is_true(&record)?;
            self.summary.digest = fnv(self.summary.digest, &record.payload);
            expected += 1;
        }
        if expected != durable + 1 {
            return Err(format!("{durable} is durable, but {} is the last that can be read", expected - 1));
        }
        Ok(())
    }

    fn is_true(&self, record: &Record) -> Result<(), String> {
        match self.model.appended.get(&record.sequence) {
            Some((kind, payload)) if *kind == record.kind && *payload == record.payload => Ok(()),
            Some(_) => Err(format!("record {} is not what was appended", record.sequence)),
            None => Err(format!("record {} was never appended", record.sequence)),
        }
    }

    /// Flips a bit on a copy of the disk and starts there, as a process would after a kill.
    fn flip(&mut self) -> Result<(), String> {
        let copy = self.disk.copy();
        copy.set_faults(Faults::default());
        copy.kill();
        let disk = copy.disk();
        let names = disk.list(Path::new(DIRECTORY)).map_err(|error| error.to_string())?;
        let Some(name) = names.get((self.rng.bits() % names.len().max(1) as u64) as usize) else {
            return Ok(());
        };
        let path = Path::new(DIRECTORY).join(name);
        let synced = copy.synced_len(&path).map_err(|error| error.to_string())?;
        if synced == 0 {
            return Ok(());
        }
        self.summary.flips += 1;
        let (offset, bit) = (self.rng.bits() % synced as u64, (self.rng.bits() % 8) as u8);
        copy.flip(&path, offset as usize, bit).map_err(|error| error.to_string())?;
        let mut options = self.options();
        let mut lost = BTreeSet::new();
        let refused = match Journal::open(&disk, Path::new(DIRECTORY), options.clone()) {
            Err(JournalError::Damaged(damage)) => {
                self.summary.flips_refused += 1;
                lost = damage.into_iter().filter_map(|damage| damage.lost).flatten().collect();
                options.past_damage = true;
                true
            }
            Ok(_) => {
                self.summary.flips_harmless += 1;
                false
            }
            Err(error) => return Err(format!("a flipped bit gave: {}", chain(&error))),
        };
        self.summary.flips_lost += lost.len() as u64;
        self.note(b"flip", lost.len() as u64);
        let (journal, recovery) = Journal::open(&disk, Path::new(DIRECTORY), options)
            .map_err(|error| format!("a start past damage failed: {}", chain(&error)))?;
        if refused == recovery.damage.is_empty() {
            return Err(format!("refused: {refused}, then reported: {:?}", recovery.damage));
        }
        let mut read = BTreeSet::new();
        for record in journal.replay(0) {
            let record = record.map_err(|error| format!("past damage: {}", chain(&error)))?;
            self.is_true(&record)?;
            read.insert(record.sequence);
        }
        for sequence in journal.first()..=self.model.reported {
            match (read.contains(&sequence), lost.contains(&sequence)) {
                (true, false) | (false, true) => {}
                (false, false) if sequence >= self.unproven => {}
                (is_read, is_lost) => {
                    return Err(format!(
                        "bit {bit} of byte {offset} of {name:?} flipped: record {sequence} is read: {is_read}, \
                         reported as lost: {is_lost}"
                    ));
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, what: &[u8], number: u64) {
        self.summary.digest = fnv(fnv(self.summary.digest, what), &number.to_le_bytes());
    }
}

/// An error and what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// What a digest begins with.
pub(crate) const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of 64 bits, going on from what was folded before.
pub(crate) fn fnv(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_keeps_its_promises_on_a_disk_that_fails() {
        let mut sum = Summary::default();
        for seed in 0..300 {
            sum = sum.and(&run(seed, 300).unwrap_or_else(|violation| panic!("{violation}")));
        }
        // Each fault occurred, and often enough to mean something.
        for (what, count, least) in [
            ("records", sum.records, 20_000),
            ("commits", sum.commits, 5_000),
            ("commits on a full disk", sum.full_commits, 100),
            ("failed commits", sum.failed_commits, 100),
            ("backlogs", sum.backlogs, 50),
            ("kills", sum.kills, 1_000),
            ("torn tails", sum.torn_tails, 50),
            ("torn groups", sum.torn_groups, 50),
            ("survivors", sum.survivors, 100),
            ("forgotten", sum.forgotten, 100),
            ("failed starts", sum.failed_starts, 50),
            ("starts that could not save", sum.unsaved_starts, 10),
            ("releases", sum.releases, 500),
            ("flips refused", sum.flips_refused, 500),
            ("records that flips cost", sum.flips_lost, 300),
            ("losses of power", sum.disk.power_losses, 1_000),
            ("sectors lost", sum.disk.sectors_lost, 500),
            ("torn writes", sum.disk.torn_writes, 500),
            ("names undone", sum.disk.names_undone, 50),
            ("write errors", sum.disk.write_errors, 100),
            ("sync errors", sum.disk.sync_errors, 100),
            ("failed syncs of a directory", sum.disk.dir_sync_errors, 50),
            ("writes forgotten", sum.disk.writes_forgotten, 50),
            ("refusals for want of room", sum.disk.full, 100),
        ] {
            assert!(count >= least, "only {count} {what} in all seeds");
        }
    }

    #[test]
    fn a_seed_run_twice_gives_the_same() {
        for seed in [1, 42, 1_000_000] {
            assert_eq!(run(seed, 300), run(seed, 300));
        }
        assert_ne!(run(1, 300).map(|sum| sum.digest), run(2, 300).map(|sum| sum.digest));
    }

    fn options() -> Options {
        let bounds = (100, 400, 600);
        let (max_record_bytes, max_pending_bytes, max_segment_bytes) = bounds;
        Options { max_record_bytes, max_pending_bytes, max_segment_bytes, ..Options::new(1) }
    }

    fn open(disk: &SimDisk) -> Journal {
        let opened = Journal::open(&disk.disk(), Path::new(DIRECTORY), options());
        opened.unwrap_or_else(|error| panic!("{}", chain(&error))).0
    }

    #[test]
    fn a_release_that_is_cut_short_leaves_no_hole() {
        for seed in 0..50 {
            let disk = SimDisk::new(Rng::from_seed(seed));
            let mut journal = open(&disk);
            for _ in 0..30 {
                journal.append(1, &[1; 80]).expect("taken");
                journal.commit().expect("durable");
            }
            disk.set_faults(Faults { dir_sync_error: 1.0, ..Faults::default() });
            assert!(journal.release(30).is_err() && journal.release(30).is_err());
            disk.set_faults(Faults::default());
            disk.power_loss();
            let journal = open(&disk);
            assert_eq!((journal.durable(), journal.replay(30).count()), (30, 1), "seed {seed}");
        }
    }

    #[test]
    fn a_segment_is_not_begun_in_a_file_whose_sync_failed() {
        let mut attempts = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(Rng::from_seed(seed));
            let mut journal = open(&disk);
            journal.append(1, b"one").expect("taken");
            let (write_error, sync_error) = (0.4, 0.8);
            disk.set_faults(Faults {
                write_error,
                sync_error,
                lost_after_sync_error: true,
                ..Faults::default()
            });
            while journal.commit().is_err() {
                attempts += 1;
            }
            disk.set_faults(Faults::default());
            disk.power_loss();
            assert_eq!(open(&disk).durable(), 1, "seed {seed}");
        }
        assert!(attempts > 100, "{attempts}");
    }
}
