//! Compares what queues could be kept on: the journal, and redb.
//!
//! ```sh
//! cargo run --release --manifest-path benches/stores/Cargo.toml -- DIRECTORY
//! ```
//!
//! Both do what a queue with a live consumer does: 100 messages in and 100 acknowledgements for each durable commit, with
//! a backlog of 20 000. The rounds alternate, so that a busy machine is busy for both. `fifo` acknowledges the oldest,
//! `random` any. Printed are the medians, and how many bytes went to the disk for each byte of a message.

use longwire::env::Disk;
use longwire::journal::{Journal, Options};
use redb::{Database, TableDefinition};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BACKLOG: u64 = 20_000;
const BATCH: u64 = 100;
const ROUND: Duration = Duration::from_secs(4);
const ROUNDS: usize = 5;
const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");

type Failure = Box<dyn std::error::Error>;

/// What a queue asks of a store.
trait Store {
    fn put(&mut self, id: u64, payload: &[u8]) -> Result<(), Failure>;
    fn ack(&mut self, id: u64) -> Result<(), Failure>;
    fn commit(&mut self) -> Result<(), Failure>;
}

struct OnJournal {
    journal: Journal,
    /// For each segment's worth of messages: the first id, and how many wait.
    waiting: VecDeque<(u64, u64)>,
}

/// Messages that are counted together; about a segment.
const PART: u64 = 8192;

impl OnJournal {
    fn open(directory: &Path) -> Result<OnJournal, Failure> {
        let mut options = Options::new(1);
        options.max_pending_bytes = 32 << 20;
    options.max_segment_bytes = 64 << 20;
        let (journal, _) = Journal::open(&Disk::system(), directory, options)?;
        Ok(OnJournal { journal, waiting: VecDeque::new() })
    }
}

impl Store for OnJournal {
    fn put(&mut self, id: u64, payload: &[u8]) -> Result<(), Failure> {
        self.journal.append(1, payload)?;
        match self.waiting.back_mut() {
            Some((first, count)) if id / PART == *first / PART => *count += 1,
            _ => self.waiting.push_back((id, 1)),
        }
        Ok(())
    }

    fn ack(&mut self, id: u64) -> Result<(), Failure> {
        self.journal.append(2, &id.to_le_bytes())?;
        let part = self.waiting.iter_mut().find(|(first, _)| id / PART == first / PART);
        part.ok_or("nobody sent it")?.1 -= 1;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.journal.commit()?;
        while self.waiting.len() > 1 && self.waiting[0].1 == 0 {
            self.waiting.pop_front();
        }
        Ok(())
    }
}

struct OnRedb {
    database: Database,
    puts: Vec<(u64, Vec<u8>)>,
    acks: Vec<u64>,
}

impl OnRedb {
    fn open(directory: &Path) -> Result<OnRedb, Failure> {
        std::fs::create_dir_all(directory)?;
        let database = Database::create(directory.join("queue.redb"))?;
        Ok(OnRedb { database, puts: Vec::new(), acks: Vec::new() })
    }
}

impl Store for OnRedb {
    fn put(&mut self, id: u64, payload: &[u8]) -> Result<(), Failure> {
        self.puts.push((id, payload.to_vec()));
        Ok(())
    }

    fn ack(&mut self, id: u64) -> Result<(), Failure> {
        self.acks.push(id);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(TABLE)?;
            for (id, payload) in self.puts.drain(..) {
                table.insert(id, &*payload)?;
            }
            for id in self.acks.drain(..) {
                table.remove(id)?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

/// One round: messages a second, and bytes written for each byte of a message.
fn round(store: &mut dyn Store, size: usize, is_random: bool) -> Result<(f64, f64), Failure> {
    let payload = vec![0x5a; size];
    let mut waiting: VecDeque<u64> = VecDeque::new();
    let mut next = 0;
    while next < BACKLOG {
        store.put(next, &payload)?;
        waiting.push_back(next);
        next += 1;
    }
    store.commit()?;
    let (mut seed, written, began, first) = (0x9e37_79b9_7f4a_7c15_u64, written(), Instant::now(), next);
    while began.elapsed() < ROUND {
        for _ in 0..BATCH {
            store.put(next, &payload)?;
            waiting.push_back(next);
            next += 1;
            if is_random {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let other = (seed % waiting.len() as u64) as usize;
                waiting.swap(0, other);
            }
            store.ack(waiting.pop_front().ok_or("the backlog is gone")?)?;
        }
        store.commit()?;
    }
    let messages = (next - first) as f64;
    let bytes = (self::written() - written) as f64;
    Ok((messages / began.elapsed().as_secs_f64(), bytes / (messages * size as f64)))
}

/// Bytes that this process had written to disks.
fn written() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let root = PathBuf::from(std::env::args().nth(1).ok_or("which directory, on the disk that is meant?")?);
    println!("{:8} {:6} {:>12} {:>12} {:>8} {:>14} {:>11}", "bytes", "acks", "journal/s", "redb/s", "ratio", "journal amp.", "redb amp.");
    for size in [256, 1024] {
        for is_random in [false, true] {
            let (mut journal, mut redb) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
            for _ in 0..ROUNDS {
                let directory = root.join("stores-bench");
                let (rate, amplification) =
                    round(&mut OnJournal::open(&directory.join("journal"))?, size, is_random)?;
                journal.0.push(rate);
                journal.1.push(amplification);
                let (rate, amplification) = round(&mut OnRedb::open(&directory.join("redb"))?, size, is_random)?;
                redb.0.push(rate);
                redb.1.push(amplification);
                std::fs::remove_dir_all(&directory)?;
            }
            let (rate, other) = (median(journal.0), median(redb.0));
            println!(
                "{size:<8} {:6} {rate:>12.0} {other:>12.0} {:>8.1} {:>14.2} {:>11.2}",
                if is_random { "random" } else { "fifo" },
                rate / other,
                median(journal.1),
                median(redb.1),
            );
        }
    }
    Ok(())
}
