//! What is due by the clock: delayed messages, old ones, leases, waits, the disk that failed, queues that nobody uses.

use super::engine::Engine;
use super::ops::{Op, Whom};
use super::queue::Declared;

/// Milliseconds between two looks for queues that nobody uses.
const SWEEP_INTERVAL: u64 = 60_000;

/// So many queues are counted whenever something changes.
const FEW_QUEUES: usize = 32;

/// Milliseconds between two counts of more.
const COUNT_INTERVAL: u64 = 100;

impl Engine {
    /// Does what is due.
    pub(super) fn tick(&mut self) {
        self.show_delayed();
        self.expire();
        self.end_leases();
        if self.now >= self.reread_at {
            for slot in std::mem::take(&mut self.unread_queues) {
                if self.queues.contains(slot) {
                    self.touch(slot);
                }
            }
        }
        if self.now >= self.next_sweep {
            self.next_sweep = self.now + SWEEP_INTERVAL;
            self.sweep();
        }
    }

    /// When something is due, whatever else happens.
    pub(super) fn next_timeout(&self) -> Option<u64> {
        if self.is_unread {
            return Some(self.retry_at);
        }
        let retry = self.is_failing.then_some(self.retry_at);
        let count = self.is_uncounted.then_some(self.next_count);
        let reread = (!self.unread_queues.is_empty()).then_some(self.reread_at);
        let sweep = (!self.queues.is_empty()).then_some(self.next_sweep);
        let delayed = self.delayed.first().map(|(at, ..)| *at);
        let expiring = self.expiring.first().map(|(at, ..)| (*at).max(self.expire_after));
        let lease = self.lease_ends.first().map(|(at, _)| *at);
        let wait = self.waiting.first().map(|(at, ..)| *at);
        let alone = self.alone_since.map(|since| since + 1);
        [alone, retry, count, reread, sweep, delayed, expiring, lease, wait].into_iter().flatten().min()
    }

    fn show_delayed(&mut self) {
        while let Some(first) = self.delayed.first().copied().filter(|(at, ..)| *at <= self.now) {
            self.delayed.remove(&first);
            let (_, reference, order) = first;
            let entry = self.queue(reference).and_then(|queue| queue.delayed.remove(order));
            if let Some(entry) = entry {
                self.put_in_line(reference, entry);
            }
        }
    }

    /// Forgets queues that are empty and that nobody used for long.
    fn sweep(&mut self) {
        let (now, idle) = (self.now, self.settings.store.max_idle.as_millis() as u64);
        let old = |since: u64| since.saturating_add(idle) <= now;
        let unused = self.queues.iter().filter(|(_, queue)| queue.is_unused() && old(queue.idle_since));
        let slots: Vec<usize> = unused.map(|(slot, _)| slot).collect();
        for slot in slots {
            let needs_disk = self.queues[slot].declared != Declared::No;
            if needs_disk && self.require_disk().is_err() {
                continue;
            }
            let _ = self.trying(|engine| engine.remove_queue(slot));
            self.ops.push(Op::Done(Whom::Nobody));
        }
    }

    /// Counts what there is.
    pub(super) fn count(&mut self) {
        // Many queues are not gone through for each message.
        self.is_uncounted = self.queues.len() > FEW_QUEUES && self.now < self.next_count;
        if self.is_uncounted {
            return;
        }
        self.next_count = self.now + COUNT_INTERVAL;
        let (mut messages, mut bytes, mut in_flight) = (0, 0, 0);
        for (_, queue) in &self.queues {
            messages += queue.count as u64;
            bytes += queue.bytes;
            in_flight += queue.in_flight.len() as u64;
        }
        let counters = &self.counters;
        counters.queues.set(self.queues.len() as u64);
        counters.messages.set(messages);
        counters.message_bytes.set(bytes);
        counters.in_flight.set(in_flight);
        counters.disk_bytes.set(self.store.disk_bytes());
        counters.not_writable.set(u64::from(self.is_failing || self.is_unread || self.is_short_of_room()));
    }
}
