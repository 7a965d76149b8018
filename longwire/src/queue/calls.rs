//! What is asked without a session: by the HTTP API, webhooks' answers, and publications for durable subscriptions.
//!
//! What only looks is answered at once, from what was carried out before; what changes something is answered when that
//! is durable. Large changes are made in pieces, and the handle asks for the next. What must stay true: nothing here
//! does more in one call than the bounds below say.

use super::engine::Engine;
use super::ops::{Gathered, Op, Whom};
use super::queue::{Declared, Entry, Queue, Waiter, Where};
use super::{Call, Page, Peeked, QueueStats, State};
use longwire_protocol::queue::{NewMessage, QueueError, QueueErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Messages that one call looks at, receives, moves or drops.
pub(super) const MAX_RECEIVED: usize = 1000;
const MAX_PEEKED: usize = 1000;
pub(super) const MAX_MOVED: usize = 1000;
pub(super) const MAX_PURGED: usize = 100_000;

/// Bytes that one call looks at or moves.
const MAX_BYTES: u64 = 4 << 20;

/// The longest lease and the longest wait.
const MAX_SPAN: Duration = Duration::from_secs(7 * 86_400);

pub(super) fn handle(engine: &mut Engine, call: Call) {
    match call {
        Call::Send { messages, outcome } => {
            let result =
                engine.atomically(|engine| messages.into_iter().map(|new| engine.send(new)).collect());
            engine.ops.push(Op::Done(Whom::Sent(outcome, result)));
        }
        Call::SendEach { messages, outcome } => {
            if messages.is_empty() {
                let _ = outcome.send(Ok(Vec::new()));
                return;
            }
            let each = Gathered::new(messages.len(), outcome);
            for (index, new) in messages.into_iter().enumerate() {
                let result = engine.trying(|engine| engine.send(new));
                engine.ops.push(Op::Done(Whom::SentEach(each.clone(), index, result)));
                engine.flush_if_full();
            }
        }
        Call::Settle { tokens, verdict, outcome } => {
            if tokens.is_empty() {
                let _ = outcome.send(Ok(Vec::new()));
                return;
            }
            let each = Gathered::new(tokens.len(), outcome);
            for (index, token) in tokens.iter().enumerate() {
                let result = engine.trying(|engine| engine.settle_token(token, verdict));
                engine.ops.push(Op::Done(Whom::Settled(each.clone(), index, result)));
                engine.flush_if_full();
            }
        }
        Call::Receive { queue, max, wait, lease, outcome } => match engine.known(&queue) {
            Ok(slot) => {
                let reference = engine.reference(slot);
                let deadline = engine.now + wait.min(MAX_SPAN).as_millis() as u64;
                let lease = lease.min(MAX_SPAN).as_millis() as u64;
                let (id, max) = (engine.next_waiter, max.clamp(1, MAX_RECEIVED));
                engine.next_waiter += 1;
                engine.queues[slot].waiters.push_back(Waiter { id, max, lease, deadline, outcome });
                engine.waiting.insert((deadline, reference, id));
                engine.touch(slot);
            }
            Err(error) => drop(outcome.send(Err(error))),
        },
        Call::Stats { queue, outcome } => {
            let stats = engine.known(&queue).map(|slot| stats(&engine.queues[slot]));
            let _ = outcome.send(stats);
        }
        Call::List { after, max, outcome } => {
            let mut all: Vec<(&Arc<str>, usize)> =
                engine.queues.iter().map(|(slot, queue)| (&queue.name, slot)).collect();
            all.retain(|(name, _)| after.as_ref().is_none_or(|after| *name > after));
            all.sort_unstable();
            let stats = all.iter().take(max).map(|(_, slot)| stats(&engine.queues[*slot]));
            let _ = outcome.send(Ok(stats.collect()));
        }
        Call::Peek { queue, after, max, outcome } => {
            let page = peek(engine, &queue, after.as_deref(), max);
            let _ = outcome.send(page);
        }
        Call::Purge { queue, outcome } => {
            let result = engine.trying(|engine| purge(engine, &queue));
            engine.ops.push(Op::Done(Whom::Count(outcome, result)));
        }
        Call::Remove { queue, outcome } => {
            let result = engine.trying(|engine| {
                let slot = engine.known(&queue)?;
                engine.remove_queue(slot)
            });
            engine.ops.push(Op::Done(Whom::Count(outcome, result)));
        }
        Call::Move { from, to, max, outcome } => {
            let result = engine.trying(|engine| move_messages(engine, &from, &to, max));
            engine.ops.push(Op::Done(Whom::Count(outcome, result)));
        }
    }
}

fn stats(queue: &Queue) -> QueueStats {
    let oldest = queue.oldest_ready().and_then(|(priority, order)| queue.line(priority).get(order));
    QueueStats {
        name: queue.name.clone(),
        durable_of: queue.durable_of.clone(),
        waiting: queue.ready_len() as u64,
        delayed: queue.delayed.len() as u64,
        in_flight: queue.in_flight.len() as u64,
        bytes: queue.bytes,
        consumers: queue.consumers.len() as u64,
        sent: queue.sent,
        acknowledged: queue.acknowledged,
        dead_lettered: queue.dead_lettered,
        oldest_ms: oldest.map_or(0, Entry::sent_at_ms),
    }
}

/// Where a look goes on: what is in flight comes first, then what waits, from the highest priority down, then what is
/// delayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor {
    stage: u8,
    order: u64,
}

/// The stages of a look: 0 is in flight, 1 to 10 are the priorities from 9 to 0, 11 is delayed.
const STAGES: u8 = 12;

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let (stage, order) = text.split_once('-')?;
        let cursor = Cursor { stage: stage.parse().ok()?, order: order.parse().ok()? };
        (cursor.stage < STAGES).then_some(cursor)
    }
}

fn peek(engine: &mut Engine, queue: &str, after: Option<&str>, max: usize) -> Result<Page, QueueError> {
    let slot = engine.known(queue)?;
    let mut cursor = match after {
        None => Cursor { stage: 0, order: 0 },
        Some(text) => Cursor::parse(text).ok_or_else(|| {
            QueueError::new(QueueErrorKind::UnknownDelivery, format!("no place in a queue: \"{text}\""))
        })?,
    };
    let max = max.clamp(1, MAX_PEEKED);
    let (mut page, mut bytes) = (Page::default(), 0);
    while cursor.stage < STAGES {
        let found = &engine.queues[slot];
        let (line, state) = match cursor.stage {
            0 => (&found.in_flight, State::InFlight),
            stage @ 1..=10 => (found.line(10 - stage), State::Waiting),
            _ => (&found.delayed, State::Delayed),
        };
        let room = max - page.messages.len();
        let keys: Vec<(u8, u64)> =
            line.after(cursor.order).take(room).map(|entry| (entry.priority, entry.order)).collect();
        if keys.is_empty() {
            cursor = Cursor { stage: cursor.stage + 1, order: 0 };
            continue;
        }
        for (priority, order) in keys {
            if page.messages.len() >= max || bytes >= MAX_BYTES {
                page.next = Some(format!("{}-{}", cursor.stage, cursor.order));
                return Ok(page);
            }
            cursor.order = order;
            match engine.message(slot, priority, order) {
                Ok(Some(message)) => {
                    bytes += (message.headers.as_bytes().len() + message.body.len()) as u64;
                    let entry = engine.queues[slot].get(priority, order);
                    let redeliveries = entry.map_or(0, |entry| u32::from(entry.deliveries));
                    page.messages.push(Peeked { message, redeliveries, state });
                }
                Ok(None) => {}
                // It is reported when somebody is to be given it.
                Err(crate::journal::JournalError::Damaged(_)) => {}
                Err(error) => return Err(engine.refused(&error)),
            }
        }
        if page.messages.len() >= max || bytes >= MAX_BYTES {
            page.next = Some(format!("{}-{}", cursor.stage, cursor.order));
            return Ok(page);
        }
    }
    Ok(page)
}

fn purge(engine: &mut Engine, queue: &str) -> Result<u64, QueueError> {
    let slot = engine.known(queue)?;
    let reference = engine.reference(slot);
    if engine.queues[slot].declared != Declared::No {
        engine.require_disk()?;
    }
    let mut count = 0;
    while count < MAX_PURGED {
        let queue = &mut engine.queues[slot];
        let Some(entry) = queue.pop_ready().or_else(|| queue.unreadable.pop_front()) else { break };
        engine.remove_ready(slot, entry);
        count += 1;
    }
    let delayed = engine.delayed.iter().filter(|(_, queue, _)| *queue == reference);
    let delayed: Vec<_> = delayed.take(MAX_PURGED - count).copied().collect();
    for key in delayed {
        engine.delayed.remove(&key);
        if let Some(entry) = engine.queues[slot].delayed.remove(key.2) {
            engine.remove_from(slot, entry, Where::Delayed, key.0);
            count += 1;
        }
    }
    engine.counters.dropped.add(count as u64);
    Ok(count as u64)
}

fn move_messages(engine: &mut Engine, from: &Arc<str>, to: &Arc<str>, max: usize) -> Result<u64, QueueError> {
    let slot = engine.known(from)?;
    if from == to {
        let detail = format!("\"{to}\" is the queue itself");
        return Err(QueueError::new(QueueErrorKind::BadName, detail));
    }
    let max = max.min(MAX_MOVED);
    engine.atomically(|engine| {
        let (mut count, mut bytes) = (0, 0);
        while count < max && bytes < MAX_BYTES {
            let Some((priority, order)) =
                engine.queues[slot].first_ready().map(|entry| (entry.priority, entry.order))
            else {
                break;
            };
            let message = match engine.message(slot, priority, order) {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return Err(engine.refused(&error)),
            };
            let expiry = (message.expires > 0).then(|| {
                let left = message.expires.saturating_sub(engine.now);
                longwire_protocol::queue::Expiry::After(Duration::from_millis(left))
            });
            engine.send(NewMessage {
                queue: to.clone(),
                headers: message.headers.clone(),
                body: message.body.clone(),
                priority,
                is_persistent: message.is_persistent,
                expiry,
                delay: Duration::ZERO,
            })?;
            let Some(entry) = engine.queues[slot].take_ready(priority, order) else { break };
            bytes += entry.bytes();
            engine.remove_ready(slot, entry);
            count += 1;
        }
        Ok(count as u64)
    })
}

impl Engine {
    /// Answers those who waited long enough.
    pub(super) fn end_waits(&mut self) {
        while let Some(first) = self.waiting.first().copied().filter(|(at, ..)| *at <= self.now) {
            self.waiting.remove(&first);
            let (_, reference, id) = first;
            let Some(queue) = self.queue(reference) else { continue };
            let index = queue.waiters.iter().position(|waiter| waiter.id == id);
            if let Some(waiter) = index.and_then(|index| queue.waiters.remove(index)) {
                // Who asked may be gone.
                let _ = waiter.outcome.send(Ok(Vec::new()));
            }
        }
    }
}
