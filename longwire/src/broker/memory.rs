//! The broker of a single node: everything in this process's memory.
//!
//! Channels lie in stripes, each behind a lock that is held for a few instructions and never across an
//! await. A publication is numbered, kept and pushed into the shards' mailboxes under that lock, so every
//! shard sees one order. Waiting for room in a mailbox happens before the lock is taken.

use super::idempotency::Keys;
use super::{BoxFuture, Broker, BrokerError, Movement, Outlets, PublishOptions, Published};
use crate::delivery::{Delivery, What};
use crate::env::{Clock, Rng};
use crate::history::{History, Page, Part, Retention};
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::{Epoch, Publication};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const STRIPES: usize = 64;

/// The broker of a single node.
pub struct MemoryBroker {
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
    outlets: Outlets,
    clock: Clock,
    rng: Mutex<Rng>,
    /// Locked, if at all, within a stripe's lock: looking a key up and publishing are one step.
    keys: Mutex<Keys>,
}

type Stripe = HashMap<Arc<str>, Channel, RandomState>;

#[derive(Default)]
struct Channel {
    history: Option<History>,
    /// One bit a shard.
    interested: u64,
}

impl MemoryBroker {
    /// A broker for the shards behind `outlets`, of which there are at most 64.
    pub fn new(outlets: Outlets, clock: Clock, rng: Rng) -> MemoryBroker {
        assert!(outlets.len() <= 64, "interest is kept in one bit a shard");
        let hasher = RandomState::default();
        let stripes = (0..STRIPES).map(|_| Mutex::new(HashMap::with_hasher(hasher.clone()))).collect();
        MemoryBroker { stripes, hasher, outlets, clock, rng: Mutex::new(rng), keys: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, channel: &str) -> MutexGuard<'_, Stripe> {
        let index = self.hasher.hash_one(channel) as usize % STRIPES;
        // A panic while the lock was held is a bug of ours; the map itself is still a map.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh_epoch(&self) -> Epoch {
        Epoch::from_random(self.rng.lock().unwrap_or_else(PoisonError::into_inner).bits())
    }

    /// Waits until every shard that is interested in the channel has room.
    async fn room(&self, channel: &str) {
        let interested = self.stripe(channel).get(channel).map_or(0, |channel| channel.interested);
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

    fn history_of<'a>(&self, channel: &'a mut Channel) -> &'a mut History {
        channel.history.get_or_insert_with(|| History::new(self.clock.now(), self.fresh_epoch()))
    }
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
            let mut stripe = self.stripe(channel);
            let now = self.clock.now();
            if let Some(key) = &idempotency_key
                && let Some(position) = self.keys().answer(now, channel, &key.name)
            {
                return Ok(Published { position, is_suppressed: true, is_repeat: true });
            }
            let position = match retention {
                None => {
                    publication.offset = 0;
                    if let Some(entry) = stripe.get(channel) {
                        let what = What::Publication(Arc::new(publication));
                        self.push(entry.interested, Delivery::new(channel.clone(), what, None));
                    }
                    None
                }
                Some(retention) => {
                    let entry = stripe.entry(channel.clone()).or_default();
                    let history = self.history_of(entry);
                    if version.is_some_and(|version| !history.advance(version)) {
                        history.touch(now, &retention);
                        let position = Some(history.top());
                        return Ok(Published { position, is_suppressed: true, is_repeat: false });
                    }
                    let previous = if use_delta { history.newest(now) } else { None };
                    let (position, publication) = history.append(now, &retention, |offset| {
                        publication.offset = offset;
                        Arc::new(publication)
                    });
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
            let stripe = self.stripe(channel);
            if let Some(entry) = stripe.get(channel) {
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
            let mut stripe = self.stripe(channel);
            let entry = stripe.entry(channel.clone()).or_default();
            let history = self.history_of(entry);
            history.touch(now, &retention);
            Ok(history.page(now, &part))
        })
    }

    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            if let Some(history) = self.stripe(channel).get_mut(channel).and_then(|c| c.history.as_mut()) {
                history.clear();
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
            let mut stripe = self.stripe(channel);
            if is_interested {
                stripe.entry(channel.clone()).or_default().interested |= 1 << shard;
            } else if let Some(entry) = stripe.get_mut(channel) {
                entry.interested &= !(1 << shard);
                if entry.interested == 0 && entry.history.is_none() {
                    stripe.remove(channel);
                }
            }
            Ok(())
        })
    }

    fn expire(&self, now: Instant) {
        self.keys().expire(now);
        for stripe in &self.stripes {
            let mut stripe = stripe.lock().unwrap_or_else(PoisonError::into_inner);
            stripe.retain(|_, channel| {
                let is_over = channel.history.as_mut().is_none_or(|history| history.expire(now));
                // Whoever is subscribed holds on to the numbering.
                channel.interested != 0 || !is_over
            });
        }
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
