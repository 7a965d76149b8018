//! The thread that keeps all queues: it takes what came, has the engine decide, makes one group durable, and then tells.
//!
//! While the disk syncs, what comes waits and becomes the next group, so that a busy server syncs seldom. Between groups
//! it carries out what is due by the clock and tidies the disk a little. What must stay true: what a turn says to a
//! shard is one letter; what a wall clock jumps is not seen by messages that wait.

use super::engine::Engine;
use super::store::{JournalStore, QueueStore};
use super::{Letter, Outlets, Queues, Shared};
use crate::config::Config;
use crate::delivery::Mailbox;
use crate::env::{Clock, Env};
use crate::journal::{DataDir, JournalError};
use crate::telemetry::QueueCounters;
use arc_swap::ArcSwapOption;
use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Letters that may wait for the keeper before callers wait.
const MAILBOX_LETTERS: usize = 1024;

/// The longest sleep: nothing is due.
const IDLE: Duration = Duration::from_secs(3600);

/// Letters between two rounds of giving out.
const ROUND_LETTERS: usize = 512;

/// Keeps all queues.
pub struct Keeper {
    shared: Arc<Shared>,
    outlets: Outlets,
    clock: Clock,
    engine: Engine,
    start: Instant,
    start_ms: u64,
    letters: VecDeque<Letter>,
}

/// Reads what an earlier process kept; the keeper is then to be run.
///
/// # Errors
/// The store is in use, damaged, or of another version. A disk that fails only delays.
pub fn open(config: &Config, env: &Env, data_dir: DataDir, outlets: Outlets) -> io::Result<(Queues, Keeper)> {
    let mut rng = env.rng.fork("queues");
    let (salt, tag) = (rng.bits() as u32, rng.bits() as u32);
    let settings = config.queues.clone();
    let failed = |error: JournalError| {
        let advice = match error {
            JournalError::Damaged(_) => "; see `past_damage` in docs/config.md to start without what is lost",
            JournalError::UnknownRecords(_) => "; see `past_damage` in docs/config.md to start without these",
            _ => "",
        };
        io::Error::other(format!("queues: {error}{advice}"))
    };
    let (store, recovery) = JournalStore::open(data_dir, &settings.store, salt).map_err(failed)?;
    let mut is_unread = false;
    if let Some(recovery) = recovery {
        for damage in &recovery.damage {
            tracing::error!(%damage, "messages are lost: the store is damaged, and `past_damage` is set");
        }
        if let Some(error) = recovery.unsaved {
            tracing::error!(%error, "queues cannot be read before what the last run wrote is safe on the disk");
            is_unread = true;
        }
    }
    let keeper = Keeper::new(env.clock, settings, Box::new(store), tag, outlets, is_unread);
    let mut keeper = keeper.map_err(failed)?;
    let queues = Queues { shared: keeper.shared.clone() };
    keeper.publish_bindings();
    Ok((queues, keeper))
}

#[cfg(test)]
impl Keeper {
    /// Queues whose messages are in memory alone, for tests of those who use them.
    pub fn in_memory(config: &Config, clock: Clock, outlets: Outlets) -> (Queues, Keeper) {
        let (queues, keeper, _) = Keeper::in_memory_that_may_fail(config, clock, outlets);
        (queues, keeper)
    }

    /// The same, with what makes their store fail, or work again.
    pub fn in_memory_that_may_fail(
        config: &Config,
        clock: Clock,
        outlets: Outlets,
    ) -> (Queues, Keeper, Box<dyn Fn(bool)>) {
        let kept = super::store::memory::Kept::default();
        let store = Box::new(super::store::memory::MemoryStore::on(&kept));
        let keeper = Keeper::new(clock, config.queues.clone(), store, 7, outlets, false);
        let keeper = keeper.expect("there is nothing to read");
        let fail = move |fails| kept.1.fails.store(fails, Ordering::SeqCst);
        (Queues { shared: keeper.shared.clone() }, keeper, Box::new(fail))
    }
}

impl Keeper {
    fn new(
        clock: Clock,
        settings: crate::config::QueueSettings,
        store: Box<dyn QueueStore>,
        tag: u32,
        outlets: Outlets,
        is_unread: bool,
    ) -> Result<Keeper, JournalError> {
        let counters = Arc::new(QueueCounters::default());
        let shared = Arc::new(Shared {
            mailbox: Mailbox::new(MAILBOX_LETTERS),
            counters: counters.clone(),
            bound: ArcSwapOption::empty(),
            is_closed: AtomicBool::new(false),
        });
        let start_ms = u64::try_from(clock.unix_millis()).unwrap_or(0);
        let past_damage = settings.store.past_damage;
        let engine = Engine::new(store, settings, counters, tag, outlets.len(), start_ms);
        let mut keeper =
            Keeper { shared, outlets, clock, engine, start: clock.now(), start_ms, letters: VecDeque::new() };
        keeper.engine.is_unread = is_unread;
        if !is_unread {
            keeper.read(past_damage)?;
        }
        Ok(keeper)
    }

    /// Reads what an earlier process left.
    fn read(&mut self, past_damage: bool) -> Result<(), JournalError> {
        let found = self.engine.replay()?;
        if found.unknown > 0 && !past_damage {
            return Err(JournalError::UnknownRecords(found.unknown));
        }
        if found.unknown + found.strays > 0 {
            tracing::error!(
                unknown = found.unknown,
                strays = found.strays,
                "records of queues cannot be understood, or their queue's name is lost"
            );
        }
        if found.unfinished > 0 {
            tracing::info!(records = found.unfinished, "a transaction that was not committed is dropped");
        }
        if found.messages > 0 {
            let queues = self.engine.queues.len();
            tracing::info!(queues, messages = found.messages, "queues were read from the disk");
        }
        Ok(())
    }

    /// Works until `stop`, then writes what is left.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let shared = self.shared.clone();
        loop {
            let has_more = self.turn();
            let next = match has_more {
                true => self.clock.now(),
                false => self.instant(self.engine.next_timeout()),
            };
            let sleep = self.clock.sleep_until(next);
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = shared.mailbox.arrived() => {}
                () = sleep => {}
            }
        }
        self.finish();
    }

    /// Does what came and what is due; true if there is more to do at once.
    pub(super) fn turn(&mut self) -> bool {
        self.tell_time();
        if self.engine.is_unread && self.engine.now >= self.engine.retry_at {
            self.read_late();
        }
        if self.letters.is_empty() {
            self.shared.mailbox.take(&mut self.letters);
        }
        for _ in 0..ROUND_LETTERS {
            let Some(letter) = self.letters.pop_front() else { break };
            self.engine.handle(letter);
        }
        let mut has_more = !self.letters.is_empty();
        self.engine.tick();
        self.engine.flush_in_company();
        has_more |= self.engine.dispatch();
        self.engine.end_waits();
        // Who did not wait for what was lent to it gave it back.
        if !self.engine.ops.is_empty() {
            self.engine.flush_in_company();
        }
        has_more |= self.engine.maintain();
        self.emit();
        has_more
    }

    fn read_late(&mut self) {
        let outcome = self.engine.store.commit().and_then(|()| {
            let past_damage = self.engine.settings.store.past_damage;
            self.read(past_damage)
        });
        match outcome {
            Ok(()) => self.engine.is_unread = false,
            Err(error) => {
                self.engine.note_disk_error(&error);
                self.engine.retry_at = self.engine.now + super::engine::DISK_PAUSE;
            }
        }
    }

    fn tell_time(&mut self) {
        let since = self.clock.now().saturating_duration_since(self.start);
        let now = self.start_ms + since.as_millis() as u64;
        self.engine.now = now;
        self.engine.wall_ahead =
            self.clock.unix_millis().saturating_sub(i64::try_from(now).unwrap_or(i64::MAX));
    }

    fn instant(&self, at: Option<u64>) -> Instant {
        let ahead = at.map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(self.start_ms)));
        match at {
            None => self.clock.now() + IDLE,
            // A millisecond later it is certainly due.
            Some(_) => (self.start + ahead + Duration::from_millis(1)).min(self.clock.now() + IDLE),
        }
    }

    /// Tells the shards what came of it. Who is told that it subscribed may have somebody publish at once, so the
    /// publishers know first.
    fn emit(&mut self) {
        self.publish_bindings();
        for (events, outlet) in self.engine.events.iter_mut().zip(&self.outlets) {
            if !events.is_empty() {
                outlet.push(std::mem::take(events));
            }
        }
        self.engine.count();
    }

    fn publish_bindings(&mut self) {
        if let Some(bound) = self.engine.take_bindings() {
            self.shared.bound.store(bound.map(Arc::new));
        }
    }

    /// Writes what is left; whoever asks for something later is told that it is too late.
    fn finish(mut self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.tell_time();
        loop {
            if self.letters.is_empty() {
                self.shared.mailbox.take(&mut self.letters);
            }
            if self.letters.is_empty() {
                break;
            }
            while let Some(letter) = self.letters.pop_front() {
                self.engine.handle(letter);
            }
        }
        self.engine.retry_at = 0;
        self.engine.flush();
        self.emit();
        self.letters.clear();
    }
}
