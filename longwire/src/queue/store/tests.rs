//! What every store promises, and what it takes back.

use super::memory::{Kept, MemoryStore};
use super::{JournalStore, QueueStore};
use crate::config::QueueStore as Settings;
use crate::env::Disk;
use crate::journal::{DataDir, JournalError, Scan, Spot};
use std::path::Path;

fn on_disk(path: &Path) -> Box<dyn QueueStore> {
    let data_dir = DataDir::new(Disk::system(), path);
    Box::new(JournalStore::open(data_dir, &Settings::default(), 7).expect("the store opens").0)
}

/// Runs a test on a store of each kind; `reopen` gives one on what the last one left.
fn for_each(test: impl Fn(&dyn Fn() -> Box<dyn QueueStore>)) {
    let root = tempfile::tempdir().expect("a directory");
    test(&|| on_disk(root.path()));
    let kept = Kept::default();
    test(&|| Box::new(MemoryStore::on(&kept)));
}

fn all(store: &mut dyn QueueStore) -> Vec<(Spot, u8, Vec<u8>)> {
    let mut found = Vec::new();
    for segment in store.segments() {
        let mut scan = Scan::of(segment);
        let mut take = |spot: Spot, _, kind: u8, payload: &[u8]| found.push((spot, kind, payload.to_vec()));
        assert!(store.scan(&mut scan, u64::MAX, &mut take).expect("the segment is read"), "to its end");
    }
    found
}

fn read(store: &mut dyn QueueStore, spot: Spot, length: u32) -> Result<Vec<u8>, JournalError> {
    let mut found = Vec::new();
    store.read(spot, length, &mut |payload| found = payload.to_vec())?;
    Ok(found)
}

#[test]
fn a_record_is_found_again_by_its_place_and_after_a_restart_by_a_scan() {
    for_each(|open| {
        let mut store = open();
        assert!(all(&mut *store).is_empty());
        let mut spots = Vec::new();
        for group in 0..10u8 {
            let tickets: Vec<_> = (0..5u8)
                .map(|at| store.append(group, &[&[group], &vec![at; 30 * usize::from(at)]]).expect("taken"))
                .collect();
            assert!(store.pending_bytes() > 300);
            store.commit().expect("durable");
            assert_eq!(store.pending_bytes(), 0);
            spots.extend((0..5u8).zip(tickets).map(|(at, ticket)| (group, at, store.spot(ticket))));
        }
        for (group, at, spot) in spots.iter().rev() {
            let length = 1 + 30 * u32::from(*at);
            let payload = read(&mut *store, *spot, length).expect("it is there");
            assert_eq!((payload[0], payload.len() as u32), (*group, length));
            assert!(matches!(read(&mut *store, *spot, length + 1), Err(JournalError::Damaged(_))));
        }
        let places: Vec<_> = all(&mut *store).into_iter().map(|(spot, kind, _)| (kind, spot)).collect();
        assert_eq!(places, spots.iter().map(|(group, _, spot)| (*group, *spot)).collect::<Vec<_>>());
        drop(store);
        let mut store = open();
        let again: Vec<_> =
            all(&mut *store).into_iter().map(|(_, kind, payload)| (kind, payload.len())).collect();
        assert_eq!(again.len(), 50);
        assert_eq!(again[49], (9, 121));
        let (spot, _, payload) = all(&mut *store).swap_remove(7);
        assert_eq!(read(&mut *store, spot, payload.len() as u32).expect("it is there"), payload);
    });
}

#[test]
fn what_is_taken_back_was_never_there() {
    for_each(|open| {
        let mut store = open();
        store.append(1, &[b"kept"]).expect("taken");
        let mark = store.mark();
        store.append(2, &[b"taken back"]).expect("taken");
        store.append(2, &[b"taken back, too"]).expect("taken");
        store.rewind(mark);
        let ticket = store.append(3, &[b"kept, too"]).expect("taken");
        store.commit().expect("durable");
        let spot = store.spot(ticket);
        assert_eq!(read(&mut *store, spot, 9).expect("it is there"), b"kept, too");
        store.append(4, &[b"discarded"]).expect("taken");
        assert!(store.discard());
        store.commit().expect("nothing to do");
        store.append(5, &[b"last"]).expect("taken");
        store.commit().expect("durable");
        drop(store);
        let kinds: Vec<_> = all(&mut *open()).into_iter().map(|(_, kind, _)| kind).collect();
        assert_eq!(kinds, [1, 3, 5]);
    });
}

#[test]
fn the_oldest_segment_goes_and_the_newest_stays() {
    for_each(|open| {
        let mut store = open();
        let payload = vec![1; 600 << 10];
        for kind in 0..40 {
            store.append(kind, &[&payload]).expect("taken");
            store.commit().expect("durable");
        }
        let before = store.segments();
        assert!(before.len() > 1);
        let bytes = store.disk_bytes();
        store.release_oldest().expect("released");
        assert_eq!(store.segments(), before.start + 1..before.end);
        assert!(store.disk_bytes() < bytes);
        for _ in 0..100 {
            store.release_oldest().expect("released");
        }
        assert_eq!(store.segments(), before.end - 1..before.end);
        assert_eq!(all(&mut *store).last().expect("the newest is there").1, 39);
        let gone = Spot { segment: before.start, offset: 36 };
        assert!(read(&mut *store, gone, 600 << 10).is_err());
    });
}

#[test]
fn a_scan_goes_on_where_it_stopped() {
    for_each(|open| {
        let mut store = open();
        for kind in 0..20 {
            store.append(kind, &[&[0; 10]]).expect("taken");
        }
        store.commit().expect("durable");
        let (mut kinds, mut steps) = (Vec::new(), 0);
        let mut scan = Scan::of(store.segments().start);
        while !store.scan(&mut scan, 100, &mut |_, _, kind, _| kinds.push(kind)).expect("readable") {
            steps += 1;
        }
        assert!(steps >= 4, "{steps} steps");
        assert_eq!(kinds, (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_store_that_is_not_used_leaves_the_disk_alone() {
    let root = tempfile::tempdir().expect("a directory");
    let data = root.path().join("data");
    let mut store = on_disk(&data);
    store.commit().expect("nothing to do");
    assert!(!data.exists());
    store.append(1, &[b"x"]).expect("taken");
    assert!(data.exists());
}
