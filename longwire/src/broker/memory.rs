//! The broker of a single node: everything in this process's memory, and what should outlive it noted for the store.
//!
//! A publication is numbered, kept and pushed into the shards' mailboxes under the lock of its channel's stripe
//! ([`channels`](super::channels)), so every shard sees one order. Waiting for room in a mailbox happens before the
//! lock is taken, and the disk is [`store`](super::store)'s.

use super::channels::{Channel, Channels, Kept, Notes, Stripe};
use super::idempotency::Keys;
use super::{BoxFuture, Broker, BrokerError, Movement, Outlets, PublishOptions, Published};
use crate::delivery::{Delivery, What};
use crate::env::{Clock, Rng};
use crate::history::{History, Page, Part, Retention};
use crate::telemetry::HistoryCounters;
use longwire_protocol::{Epoch, Publication};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The broker of a single node.
pub struct MemoryBroker {
    channels: Arc<Channels>,
    outlets: Outlets,
    clock: Clock,
    rng: Mutex<Rng>,
    /// Locked, if at all, within a stripe's lock: looking a key up and publishing are one step.
    keys: Mutex<Keys>,
}

impl MemoryBroker {
    /// A broker for the shards behind `outlets`, of which there are at most 64.
    pub fn new(outlets: Outlets, clock: Clock, rng: Rng) -> MemoryBroker {
        MemoryBroker::of(Arc::default(), outlets, clock, rng)
    }

    /// The same, with channels that are there.
    pub fn of(channels: Arc<Channels>, outlets: Outlets, clock: Clock, rng: Rng) -> MemoryBroker {
        assert!(outlets.len() <= 64, "interest is kept in one bit a shard");
        MemoryBroker { channels, outlets, clock, rng: Mutex::new(rng), keys: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_epoch(&self) -> Epoch {
        Epoch::from_random(self.rng.lock().unwrap_or_else(PoisonError::into_inner).bits())
    }

    /// Waits until every shard that is interested in the channel has room.
    async fn room(&self, channel: &str) {
        let interested =
            self.channels.stripe(channel).channels.get(channel).map_or(0, |channel| channel.interested);
        for shard in bits(interested) {
            self.outlets[shard].room().await;
        }
    }

    fn push(&self, interested: u64, delivery: Delivery) {
        let delivery = Arc::new(delivery);
        for shard in bits(interested) {
            self.outlets[shard].push(delivery.clone());
        }
    }

    fn history_of<'a>(
        &self,
        now: Instant,
        channel: &'a mut Channel,
        retention: &Retention,
    ) -> &'a mut History {
        if channel.history.is_none() && retention.is_on_disk && self.channels.backlog.is_some() {
            channel.kept = Some(Box::new(Kept { first: 1, until: now }));
        }
        channel.history.get_or_insert_with(|| History::new(now, self.fresh_epoch()))
    }

    /// Tells the disk that a channel was used.
    fn used(&self, notes: &mut Notes, name: &Arc<str>, channel: &mut Channel) {
        if let Some(backlog) = &self.channels.backlog {
            notes.used(backlog, name, channel);
        }
    }

    /// Tells the disk what a channel has come to.
    fn changed(
        &self,
        notes: &mut Notes,
        name: &Arc<str>,
        channel: &mut Channel,
        publication: Option<(Instant, Arc<Publication>)>,
    ) {
        if let Some(backlog) = &self.channels.backlog {
            notes.changed(backlog, name, channel, publication);
        }
    }
}

/// Why nothing is published that would be lost.
fn stopping() -> BrokerError {
    BrokerError::Unavailable("the server is stopping, and what it keeps is on the disk".to_owned())
}

impl Broker for MemoryBroker {
    fn may_lose(&self) -> bool {
        false
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Arc<str>,
        mut publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        Box::pin(async move {
            self.room(channel).await;
            let PublishOptions { retention, use_delta, idempotency_key, version } = options;
            let mut stripe = self.channels.stripe(channel);
            let Stripe { channels, notes } = &mut *stripe;
            let now = self.clock.now();
            if let Some(key) = &idempotency_key
                && let Some(position) = self.keys().answer(now, channel, &key.name)
            {
                return Ok(Published { position, is_suppressed: true, is_repeat: true });
            }
            let position = match retention {
                None => {
                    publication.offset = 0;
                    if let Some(entry) = channels.get(channel) {
                        let what = What::Publication(Arc::new(publication));
                        self.push(entry.interested, Delivery::new(channel.clone(), what, None));
                    }
                    None
                }
                Some(retention) => {
                    if retention.is_on_disk && notes.is_closed() {
                        return Err(stopping());
                    }
                    let entry = channels.entry(channel.clone()).or_default();
                    let history = self.history_of(now, entry, &retention);
                    if version.is_some_and(|version| !history.advance(version)) {
                        history.touch(now, &retention);
                        let position = Some(history.top());
                        self.used(notes, channel, entry);
                        return Ok(Published { position, is_suppressed: true, is_repeat: false });
                    }
                    let previous = if use_delta { history.newest(now) } else { None };
                    let (position, publication) = history.append(now, &retention, |offset| {
                        publication.offset = offset;
                        Arc::new(publication)
                    });
                    if entry.kept.is_some() {
                        let expiry = now + retention.ttl;
                        self.changed(notes, channel, entry, Some((expiry, publication.clone())));
                    }
                    let what = What::Publication(publication);
                    let delivery = Delivery::new(channel.clone(), what, Some(position)).after(previous);
                    self.push(entry.interested, delivery);
                    Some(position)
                }
            };
            if let Some(key) = idempotency_key {
                self.keys().remember(now + key.ttl, channel, &key.name, position);
            }
            Ok(Published { position, ..Published::default() })
        })
    }

    fn announce<'a>(
        &'a self,
        channel: &'a Arc<str>,
        movement: Movement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.room(channel).await;
            let stripe = self.channels.stripe(channel);
            if let Some(entry) = stripe.channels.get(channel) {
                let what = match movement {
                    Movement::Join(info) => What::Join(info),
                    Movement::Leave(info) => What::Leave(info),
                };
                self.push(entry.interested, Delivery::new(channel.clone(), what, None));
            }
            Ok(())
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a Arc<str>,
        retention: Retention,
        part: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut stripe = self.channels.stripe(channel);
            let Stripe { channels, notes } = &mut *stripe;
            let entry = channels.entry(channel.clone()).or_default();
            let history = self.history_of(now, entry, &retention);
            history.touch(now, &retention);
            let page = history.page(now, &part);
            self.used(notes, channel, entry);
            Ok(page)
        })
    }

    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let mut stripe = self.channels.stripe(channel);
            let Stripe { channels, notes } = &mut *stripe;
            if let Some(entry) = channels.get_mut(channel)
                && let Some(history) = &mut entry.history
            {
                if entry.kept.is_some() && notes.is_closed() {
                    return Err(stopping());
                }
                history.clear();
                self.changed(notes, channel, entry, None);
            }
            Ok(())
        })
    }

    fn set_interest<'a>(
        &'a self,
        channel: &'a Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let mut stripe = self.channels.stripe(channel);
            let Stripe { channels, notes } = &mut *stripe;
            if is_interested {
                channels.entry(channel.clone()).or_default().interested |= 1 << shard;
            } else if let Some(entry) = channels.get_mut(channel) {
                let was_interested = entry.interested != 0;
                entry.interested &= !(1 << shard);
                match &mut entry.history {
                    _ if entry.interested != 0 || !was_interested => {}
                    None => drop(channels.remove(channel)),
                    // Whoever was subscribed until this moment can come back as if it had just asked.
                    Some(history) => {
                        history.rest(self.clock.now());
                        self.used(notes, channel, entry);
                    }
                }
            }
            Ok(())
        })
    }

    fn expire(&self, now: Instant) {
        self.keys().expire(now);
        for mut stripe in self.channels.stripes() {
            stripe.channels.retain(|_, channel| {
                let is_over = channel.history.as_mut().is_none_or(|history| history.expire(now));
                // Whoever is subscribed holds on to the numbering.
                channel.interested != 0 || !is_over
            });
        }
    }

    fn history_counters(&self) -> Option<&HistoryCounters> {
        self.channels.backlog.as_ref().map(|backlog| backlog.counters())
    }
}

/// The numbers of the bits that are set.
fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let bit = set.trailing_zeros() as usize;
            set &= set - 1;
            bit
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::conformance;

    #[tokio::test(start_paused = true)]
    async fn the_memory_broker_keeps_the_contract() {
        conformance::all(|outlets| Box::new(MemoryBroker::new(outlets, Clock::system(), Rng::from_seed(1))))
            .await;
    }
}
