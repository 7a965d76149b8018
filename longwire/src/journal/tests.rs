//! The journal on the system's disk, and on one that fails when it is told to.
//!
//! The simulator's `ledger` has the long runs against a model; here each promise has its example.

use super::*;
use crate::env::disk::{FileBytes, Files};
use proptest::prelude::*;
use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

const KIND: u8 = 7;

fn options() -> Options {
    Options { max_record_bytes: 100, max_pending_bytes: 400, max_segment_bytes: 600, ..Options::new(0xfeed) }
}

fn open(directory: &Path) -> (Journal, Recovery) {
    Journal::open(&Disk::system(), directory, options()).expect("the journal opens")
}

fn damage(directory: &Path) -> Vec<Damage> {
    match Journal::open(&Disk::system(), directory, options()) {
        Err(JournalError::Damaged(damage)) => damage,
        other => panic!("no damage in {other:?}"),
    }
}

fn past_damage(directory: &Path) -> (Journal, Recovery) {
    let options = Options { past_damage: true, ..options() };
    Journal::open(&Disk::system(), directory, options).expect("the journal opens past its damage")
}

fn read(journal: &Journal) -> Vec<(Sequence, Vec<u8>)> {
    let records = journal.replay(0).map(|record| record.expect("the record can be read"));
    records.map(|record| (record.sequence, record.payload)).collect()
}

fn sequences(journal: &Journal) -> Vec<Sequence> {
    read(journal).into_iter().map(|(sequence, _)| sequence).collect()
}

/// Appends and commits one group of records of 20 bytes.
fn group(journal: &mut Journal, count: usize) -> Sequence {
    for _ in 0..count {
        let sequence = journal.append(KIND, &[9; 20]).expect("the record is taken");
        assert_eq!(sequence, journal.last());
    }
    journal.commit().expect("the group is durable")
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let names = Disk::system().list(directory).expect("the directory is there");
    names.iter().filter(|name| Name::parse(name).is_some()).map(|name| directory.join(name)).collect()
}

/// Inverts a byte.
fn spoil(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).expect("the segment can be read");
    bytes[offset] ^= 0xff;
    std::fs::write(path, bytes).expect("the segment can be written");
}

#[test]
fn records_are_read_again_in_order_with_their_kinds() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("a/journal");
    let (mut journal, recovery) = open(&directory);
    assert_eq!((journal.first(), journal.last(), journal.durable()), (1, 0, 0));
    assert!(recovery.damage.is_empty() && recovery.cut_bytes == 0);
    assert_eq!(journal.append(1, b"one").expect("taken"), 1);
    assert_eq!(journal.append(2, b"").expect("taken"), 2);
    assert_eq!((journal.durable(), read(&journal).len()), (0, 0), "nothing is durable before a commit");
    assert_eq!(journal.commit().expect("durable"), 2);
    assert_eq!(journal.append(3, b"three").expect("taken"), 3);
    assert_eq!(journal.commit().expect("durable"), 3);
    assert_eq!(journal.append(4, b"never committed").expect("taken"), 4);
    drop(journal);
    let (journal, recovery) = open(&directory);
    let records: Vec<_> = journal.replay(2).map(|record| record.expect("readable")).collect();
    let expected = |sequence, kind, payload: &[u8]| Record { sequence, kind, payload: payload.to_vec() };
    assert_eq!(records, [expected(2, 2, b""), expected(3, 3, b"three")]);
    assert_eq!((journal.last(), recovery.cut_bytes), (3, 0));
}

#[test]
fn crc32c_is_that_of_the_standard() {
    // RFC 3720, appendix B.4.
    assert_eq!(segment::crc32c(0, &[0; 32]), 0x8a91_36aa);
    assert_eq!(segment::crc32c(0, &[0xff; 32]), 0x62a8_ab43);
    assert_eq!(segment::crc32c(0, b"123456789"), 0xe306_9283);
    assert_eq!(segment::crc32c(segment::crc32c(0, b"1234"), b"56789"), 0xe306_9283);
}

#[test]
fn what_is_released_gives_its_room_back_and_its_numbers_stay() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    for _ in 0..10 {
        group(&mut journal, 5);
    }
    assert!(segments(root.path()).len() > 3);
    journal.release(1000).expect("released");
    assert_eq!(segments(root.path()).len(), 1);
    let first = journal.first();
    assert!(first > 40 && sequences(&journal) == (first..=50).collect::<Vec<_>>());
    drop(journal);
    let (mut journal, _) = open(root.path());
    assert_eq!((journal.first(), journal.durable()), (first, 50));
    assert_eq!(group(&mut journal, 1), 51);
    journal.release(first - 1).expect("released");
    assert_eq!(journal.first(), first, "nothing else was released");
}

#[test]
fn bounds_are_refused_before_anything_is_taken() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    assert!(matches!(journal.append(KIND, &[0; 101]), Err(JournalError::RecordTooLarge { .. })));
    for _ in 0..3 {
        journal.append(KIND, &[0; 100]).expect("there is room");
    }
    assert!(matches!(journal.append(KIND, &[0; 100]), Err(JournalError::Backlog { .. })));
    assert_eq!((journal.last(), journal.pending_bytes()), (3, 387));
    assert_eq!(journal.commit().expect("durable"), 3);
    journal.append(KIND, &[0; 100]).expect("there is room again");
    for wrong in [
        Options { max_record_bytes: usize::MAX / 2, ..options() },
        Options { max_pending_bytes: 100, ..options() },
        Options { max_segment_bytes: 400, ..options() },
    ] {
        let result = Journal::open(&Disk::system(), root.path(), wrong);
        assert!(matches!(result, Err(JournalError::Options(_))), "{result:?}");
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_measured() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    group(&mut journal, 2);
    drop(journal);
    let [path] = &segments(root.path())[..] else { panic!("one segment") };
    let whole = std::fs::read(path).expect("the segment can be read");
    // The second group was written in part; the third of its records is whole, and not told of either.
    let torn = Head::of(3, 2, KIND, b"torn").encode(0xfeed);
    let later = [&Head::of(5, 2, KIND, b"late").encode(0xfeed)[..], b"late"].concat();
    let tails = [torn[..20].to_vec(), torn.to_vec(), [&torn[..], b"tor?", &later].concat(), vec![0; 700]];
    for tail in tails {
        std::fs::write(path, [&whole[..whole.len() - HEAD], &tail].concat()).expect("written");
        let (journal, recovery) = open(root.path());
        assert_eq!((journal.last(), recovery.cut_bytes), (2, tail.len() as u64));
    }
    let (mut journal, _) = open(root.path());
    assert_eq!(group(&mut journal, 1), 3);
    drop(journal);
    assert_eq!(sequences(&open(root.path()).0), [1, 2, 3]);
}

#[test]
fn a_spoiled_record_is_refused_by_name_and_never_delivered() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    group(&mut journal, 4);
    group(&mut journal, 1);
    drop(journal);
    let [path] = &segments(root.path())[..] else { panic!("one segment") };
    let record = HEAD + 20;
    // The head of the second record, the payload of the fourth, the last record, which only a proof covers.
    for (offset, lost) in
        [(HEADER + record, 2..=2), (HEADER + 3 * record + HEAD + 5, 4..=4), (HEADER + 4 * record, 5..=5)]
    {
        spoil(path, offset);
        let place = (HEADER + (*lost.start() as usize - 1) * record) as u64;
        let expected = Damage { file: path.clone(), offset: place, lost: Some(lost.clone()) };
        assert_eq!(damage(root.path()), [expected]);
        spoil(path, offset);
    }
    assert_eq!(sequences(&open(root.path()).0), [1, 2, 3, 4, 5], "a refusal changes nothing");
    spoil(path, HEADER + record);
    spoil(path, HEADER + 4 * record);
    let text = JournalError::Damaged(damage(root.path())).to_string();
    assert!(text.contains("records 2 to 2 are lost; ") && text.contains(".journal\" is spoiled at byte 85"));
    let (mut journal, recovery) = past_damage(root.path());
    let lost: Vec<_> = recovery.damage.into_iter().filter_map(|damage| damage.lost).collect();
    assert_eq!(lost, [2..=2, 5..=5]);
    assert_eq!(group(&mut journal, 1), 6, "a lost number is not given again");
    assert_eq!(sequences(&journal), [1, 3, 4, 6]);
}

#[test]
fn a_missing_segment_and_a_spoiled_header_are_damage() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    for _ in 0..6 {
        group(&mut journal, 5);
    }
    drop(journal);
    let paths = segments(root.path());
    assert!(paths.len() >= 3);
    spoil(&paths[0], 3);
    assert_eq!(damage(root.path()), [Damage { file: paths[0].clone(), offset: 0, lost: None }]);
    assert_eq!(sequences(&past_damage(root.path()).0).len(), 30, "a header costs no record");
    spoil(&paths[0], 3);
    std::fs::remove_file(&paths[1]).expect("removed");
    let lost = damage(root.path()).pop().and_then(|damage| damage.lost).expect("records are lost");
    let (journal, _) = past_damage(root.path());
    let left: Vec<_> = (1..=30).filter(|sequence| !lost.contains(sequence)).collect();
    assert!(lost.clone().count() >= 5);
    assert_eq!(sequences(&journal), left);
}

#[test]
fn a_format_of_another_version_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    group(&mut open(root.path()).0, 1);
    let path = segments(root.path()).remove(0);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes[8] = 2;
    let crc = segment::crc32c(0, &bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, bytes).expect("written");
    let result = Journal::open(&Disk::system(), root.path(), Options { past_damage: true, ..options() });
    assert!(matches!(result, Err(JournalError::UnknownVersion { version: 2, .. })), "{result:?}");
}

#[test]
fn a_payload_that_looks_like_a_record_is_none_without_the_salt() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    group(&mut journal, 1);
    let forged = [&Head::of(3, 2, KIND, b"forged").encode(0)[..], b"forged"].concat();
    journal.append(KIND, &forged).expect("taken");
    journal.commit().expect("durable");
    drop(journal);
    let path = segments(root.path()).remove(0);
    // The record's head is spoiled, so that what is in its payload is searched; nothing proves it.
    spoil(&path, HEADER + HEAD + 20);
    let mut bytes = std::fs::read(&path).expect("read");
    bytes.truncate(bytes.len() - HEAD);
    std::fs::write(&path, bytes).expect("written");
    assert_eq!(sequences(&open(root.path()).0), [1]);
}

#[test]
fn a_record_spoiled_while_it_is_replayed_ends_the_replay() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = open(root.path());
    group(&mut journal, 3);
    spoil(&segments(root.path())[0], HEADER + HEAD + 20 + HEAD);
    let records: Vec<_> = journal.replay(0).collect();
    assert!(matches!(&records[..], [Ok(_), Err(JournalError::Damaged(_))]), "{records:?}");
}

/// The system's disk, with switches.
#[derive(Debug, Clone, Default)]
struct Failing {
    full: Arc<AtomicBool>,
    sync: Arc<AtomicBool>,
    names: Arc<AtomicBool>,
    syncs: Arc<AtomicU64>,
}

#[derive(Debug)]
struct FailingFile(Failing, std::fs::File);

fn fails(switch: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
    if switch.load(Relaxed) { Err(kind.into()) } else { Ok(()) }
}

impl Files for Failing {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Box::new(FailingFile(self.clone(), file)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        fails(&self.names, io::ErrorKind::Other)?;
        self.syncs.fetch_add(1, Relaxed);
        Ok(())
    }
}

impl FileBytes for FailingFile {
    fn len(&self) -> io::Result<u64> {
        FileBytes::len(&self.1)
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        FileBytes::read_at(&self.1, offset, bytes)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        fails(&self.0.full, io::ErrorKind::StorageFull)?;
        FileBytes::write_at(&self.1, offset, bytes)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        FileBytes::set_len(&self.1, len)
    }
    fn try_lock(&self) -> io::Result<()> {
        FileBytes::try_lock(&self.1)
    }
    fn sync_data(&self) -> io::Result<()> {
        fails(&self.0.sync, io::ErrorKind::Other)?;
        self.0.syncs.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[test]
fn a_full_disk_is_named_and_writing_resumes_by_itself() {
    let root = tempfile::tempdir().expect("a directory");
    let failing = Failing::default();
    let disk = Disk::of(Arc::new(failing.clone()));
    let (mut journal, _) = Journal::open(&disk, root.path(), options()).expect("opens");
    group(&mut journal, 2);
    failing.full.store(true, Relaxed);
    journal.append(KIND, b"waits").expect("taken into memory");
    let error = journal.commit().expect_err("there is no room");
    assert!(matches!(error, JournalError::DiskFull(_)) && error.to_string() == "the disk is full");
    assert_eq!((journal.durable(), sequences(&journal)), (2, vec![1, 2]), "what was durable can be read");
    // A start on a full disk goes the same way; what waited in memory only is gone with the process.
    drop(journal);
    let (mut journal, recovery) = Journal::open(&disk, root.path(), options()).expect("opens");
    assert!(recovery.unsaved.is_none() && journal.last() == 2);
    journal.append(KIND, b"waits").expect("taken into memory");
    assert!(journal.commit().is_err());
    failing.full.store(false, Relaxed);
    assert_eq!(journal.commit().expect("there is room"), 3);
    assert_eq!(sequences(&journal), [1, 2, 3]);
}

#[test]
fn a_file_whose_sync_failed_is_not_written_to_again() {
    let root = tempfile::tempdir().expect("a directory");
    let failing = Failing::default();
    let disk = Disk::of(Arc::new(failing.clone()));
    let (mut journal, _) = Journal::open(&disk, root.path(), options()).expect("opens");
    group(&mut journal, 1);
    let old = std::fs::read(&segments(root.path())[0]).expect("read").len();
    failing.sync.store(true, Relaxed);
    journal.append(KIND, b"two").expect("taken");
    for _ in 0..3 {
        assert!(matches!(journal.commit(), Err(JournalError::Io(_))));
        assert_eq!((journal.durable(), sequences(&journal)), (1, vec![1]));
    }
    assert_eq!(segments(root.path()).len(), 1, "failed attempts leave no segments");
    failing.sync.store(false, Relaxed);
    journal.append(KIND, b"three").expect("taken");
    assert_eq!(journal.commit().expect("durable"), 3);
    let paths = segments(root.path());
    assert_eq!(paths.len(), 2);
    assert!(std::fs::read(&paths[0]).expect("read").len() <= old + HEAD + 3);
    drop(journal);
    let (journal, recovery) = open(root.path());
    assert_eq!(read(&journal)[1..], [(2, b"two".to_vec()), (3, b"three".to_vec())]);
    assert_eq!(recovery.cut_bytes, 0);
}

#[test]
fn nothing_is_durable_before_the_directory_is_synced() {
    let root = tempfile::tempdir().expect("a directory");
    let failing = Failing::default();
    let disk = Disk::of(Arc::new(failing.clone()));
    let (mut journal, _) = Journal::open(&disk, root.path(), options()).expect("opens");
    failing.names.store(true, Relaxed);
    journal.append(KIND, b"one").expect("taken");
    assert!(journal.commit().is_err() && journal.commit().is_err());
    assert_eq!((journal.durable(), journal.replay(0).count()), (0, 0));
    assert!(Journal::open(&disk, root.path(), options()).is_err(), "a start reports nothing either");
    failing.names.store(false, Relaxed);
    assert_eq!(journal.commit().expect("durable"), 1);
    // One sync of the data and one of the directory before the first report, one of the data for each later.
    let syncs = failing.syncs.load(Relaxed);
    group(&mut journal, 1);
    assert_eq!(failing.syncs.load(Relaxed), syncs + 1);
}

#[test]
fn whole_records_that_nobody_was_told_of_are_written_again() {
    let root = tempfile::tempdir().expect("a directory");
    let failing = Failing::default();
    let disk = Disk::of(Arc::new(failing.clone()));
    let (mut journal, _) = Journal::open(&disk, root.path(), options()).expect("opens");
    group(&mut journal, 1);
    failing.sync.store(true, Relaxed);
    journal.append(KIND, b"two").expect("taken");
    assert!(journal.commit().is_err());
    drop(journal);
    // The process was killed. What can be read may never have reached the disk.
    let (journal, recovery) = Journal::open(&disk, root.path(), options()).expect("opens");
    assert!(matches!(recovery.unsaved, Some(JournalError::Io(_))));
    assert_eq!((journal.durable(), journal.last(), sequences(&journal)), (1, 2, vec![1]));
    drop(journal);
    failing.sync.store(false, Relaxed);
    let (journal, recovery) = Journal::open(&disk, root.path(), options()).expect("opens");
    assert!(recovery.unsaved.is_none());
    assert_eq!((journal.durable(), read(&journal)[1].clone()), (2, (2, b"two".to_vec())));
    assert_eq!(segments(root.path()).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_was_committed_is_read_again(
        groups in prop::collection::vec(prop::collection::vec((any::<u8>(), 0..100usize), 1..4), 1..12),
        restarts in prop::collection::vec(any::<bool>(), 12),
    ) {
        let root = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = open(root.path());
        let mut expected = Vec::new();
        for (records, restart) in groups.iter().zip(restarts) {
            for (kind, length) in records {
                let payload = vec![*kind; *length];
                let sequence = journal.append(*kind, &payload).expect("taken");
                expected.push(Record { sequence, kind: *kind, payload });
            }
            prop_assert_eq!(journal.commit().expect("durable"), expected.len() as u64);
            if restart {
                drop(journal);
                journal = open(root.path()).0;
            }
        }
        let read: Vec<_> = journal.replay(0).map(|record| record.expect("readable")).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn no_bytes_in_a_directory_make_it_panic_or_invent_records(
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
    ) {
        let root = tempfile::tempdir().expect("a directory");
        let (mut journal, _) = open(root.path());
        for _ in 0..5 {
            group(&mut journal, 3);
        }
        let expected = read(&journal);
        drop(journal);
        let paths = segments(root.path());
        let path = &paths[at.index(paths.len())];
        let mut bytes = std::fs::read(path).expect("read");
        bytes.truncate(cut.index(bytes.len()));
        bytes.extend(noise);
        std::fs::write(path, bytes).expect("written");
        let (journal, recovery) = past_damage(root.path());
        let lost: Vec<_> = recovery.damage.iter().filter_map(|damage| damage.lost.clone()).collect();
        let is_lost = |sequence: &Sequence| lost.iter().any(|range| range.contains(sequence));
        let left: Vec<_> = expected.iter().filter(|(sequence, _)| !is_lost(sequence)).cloned().collect();
        let found = read(&journal);
        // Only of the newest segment may a part be gone unseen: that which a proof would have covered.
        prop_assert_eq!(&found[..], &left[..found.len()]);
        prop_assert!(found.len() == left.len() || path == &paths[paths.len() - 1]);
    }
}
