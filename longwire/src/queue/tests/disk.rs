//! Queues on the system's disk: what a kill at any byte leaves, what damage does, what is read back.

use super::*;
use crate::env::Disk;
use crate::journal::{DataDir, JournalError};
use crate::queue::store::{JournalStore, QueueStore};
use std::path::{Path, PathBuf};

fn opened(path: &Path, settings: &QueueSettings) -> Result<Engine, JournalError> {
    let data_dir = DataDir::new(Disk::system(), path);
    let (store, _) = JournalStore::open(data_dir, &settings.store, 7)?;
    let mut engine =
        Engine::new(Box::new(store), settings.clone(), Arc::new(QueueCounters::default()), 3, 1, 1_000_000);
    assert_eq!(engine.replay()?.unknown, 0);
    Ok(engine)
}

fn world(path: &Path, settings: &QueueSettings) -> World {
    let engine = opened(path, settings).expect("the store opens");
    let (kept, settings) = (Kept::default(), settings.clone());
    World { engine, kept, settings, seen: BTreeMap::new(), starts: 1, next_id: 0 }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let directory = path.join("queues");
    let names = Disk::system().list(&directory).expect("the directory is there");
    names.into_iter().map(|name| directory.join(name)).filter(|file| file.extension().is_some()).collect()
}

#[test]
fn messages_beyond_the_memory_for_them_are_read_back_in_order() {
    let root = tempfile::tempdir().expect("a directory");
    let mut settings = QueueSettings::default();
    settings.store.cache_bytes = 10_000;
    settings.store.max_segment_bytes = 20_000;
    let mut world = world(root.path(), &settings);
    for at in 0..500 {
        world.send(&format!("{at:0>200}"));
    }
    assert!(world.engine.cached_bytes <= 10_000);
    world.must(
        1,
        QueueCommand::Consume(Box::new(Consume {
            prefetch: Some(0),
            ..consume(1, "q", AckMode::Individual)
        })),
    );
    let came = world.take(1);
    assert_eq!(came.len(), 500);
    for (at, delivered) in came.iter().enumerate() {
        assert_eq!(text(&delivered.message.body), format!("{at:0>200}"));
        assert_eq!(delivered.message.headers.get("color").as_deref(), Some("red"));
    }
    for delivered in &came {
        world.settle(1, delivered, Verdict::Ack);
    }
    world.turn();
    assert!(world.engine.store.disk_bytes() < 45_000, "{}", world.engine.store.disk_bytes());
    assert_eq!((world.engine.cached_bytes, world.engine.live.iter().sum::<u64>() < 100), (0, true));
}

#[test]
fn records_of_another_version_are_passed_over_where_the_settings_say_so_and_only_there() {
    let root = tempfile::tempdir().expect("a directory");
    let mut config = crate::config::Config::demo();
    world(root.path(), &config.queues).send("kept");
    {
        let data_dir = DataDir::new(Disk::system(), root.path());
        let (mut store, _) = JournalStore::open(data_dir, &config.queues.store, 7).expect("the store opens");
        store.append(0x7f, &[b"of the future"]).expect("taken");
        store.commit().expect("durable");
    }
    let open = |config: &crate::config::Config| {
        let data_dir = DataDir::new(Disk::system(), root.path());
        crate::queue::keeper::open(config, &crate::env::Env::system(), data_dir, Vec::new())
    };
    let refused = open(&config).err().expect("it cannot be read").to_string();
    assert!(refused.contains("1 records") && refused.contains("`past_damage`"), "{refused}");
    config.queues.store.past_damage = true;
    open(&config).expect("what it knows is there");
}

#[test]
fn a_transaction_that_a_kill_cut_is_not_there_at_all_and_the_next_one_is() {
    let root = tempfile::tempdir().expect("a directory");
    let settings = QueueSettings::default();
    let mut first = world(root.path(), &settings);
    first.send("before");
    first.consume(1, AckMode::Individual);
    let delivered = first.take(1).remove(0);
    let mut commands = vec![settle(delivered.delivery, Verdict::Ack)];
    commands.extend((0..5).map(|at| send(message("q", &at.to_string()))));
    let whole = std::fs::read(&files(root.path())[0]).expect("the segment is read").len();
    first.must(1, QueueCommand::Transaction(commands));
    drop(first);
    let file = files(root.path()).remove(0);
    let bytes = std::fs::read(&file).expect("the segment is read");
    let (mut none, mut all) = (0, 0);
    // The last 29 bytes are the proof that the group is durable.
    for length in (whole - 29..bytes.len() - 29).step_by(3).chain([bytes.len() - 29, bytes.len()]) {
        let copy = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(copy.path().join("queues")).expect("made");
        let name = file.file_name().expect("it has a name");
        std::fs::write(copy.path().join("queues").join(name), &bytes[..length]).expect("written");
        let mut after = world(copy.path(), &settings);
        let waiting = after.stats("q").waiting;
        match waiting {
            1 => none += 1,
            5 => all += 1,
            other => panic!("{other} messages after {length} bytes"),
        }
        // Its records come right behind those that the kill left of the other.
        let next = ["6", "7"].map(|body| send(message("q", body)));
        after.must(2, QueueCommand::Transaction(next.into()));
        drop(after);
        assert_eq!(world(copy.path(), &settings).stats("q").waiting, waiting + 2, "after {length} bytes");
    }
    assert!(none > 50 && all == 2, "{none} without, {all} with");
}

#[test]
fn damage_is_reported_at_the_start_and_at_a_delivery_and_never_delivered() {
    let root = tempfile::tempdir().expect("a directory");
    let mut settings = QueueSettings::default();
    settings.store.cache_bytes = 0;
    let mut first = world(root.path(), &settings);
    for body in ["first message", "second message", "third message"] {
        first.send(body);
    }
    let file = files(root.path()).remove(0);
    let mut bytes = std::fs::read(&file).expect("the segment is read");
    let at = bytes.windows(14).position(|part| part == b"second message").expect("it is on the disk");
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).expect("written");
    first.consume(1, AckMode::Individual);
    assert_eq!(first.came(1), ["first message", "third message"]);
    assert_eq!(first.engine.counters.unreadable.get(), 1);
    assert_eq!(first.stats("q").bytes, first.engine.queues.iter().map(|(_, queue)| queue.bytes).sum::<u64>());
    drop(first);
    assert!(matches!(opened(root.path(), &settings), Err(JournalError::Damaged(_))));
    settings.store.past_damage = true;
    let mut past = world(root.path(), &settings);
    assert_eq!(past.stats("q").waiting, 2);
}

#[test]
fn a_refused_message_is_not_there_after_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let settings = QueueSettings::default();
    let mut first = world(root.path(), &settings);
    first.send("kept");
    let mark = first.engine.store.mark();
    first.engine.handle(Letter::Submitted(place(1), vec![(1, send(message("q", "refused")))]));
    assert!(first.engine.store.mark().bytes > mark.bytes);
    assert!(first.engine.store.discard());
    drop(first);
    assert_eq!(world(root.path(), &settings).stats("q").waiting, 1);
}
