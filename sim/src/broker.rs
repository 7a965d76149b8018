//! Brokers under observation: the one that ships, and the same one as the store of a simulated cluster.
//!
//! [`Alone`] is a node's own [`MemoryBroker`], as shipped; it only tells the model what took effect. [`Cluster`]
//! puts one `MemoryBroker` in the place of a Redis: each node reaches it over a link on which calls take time,
//! fail before or after they took effect, and on which deliveries are late, doubled or lost; and it may forget
//! everything, with its epochs. On one link deliveries keep their order, as on one connection; calls do not, as
//! on a pool of them.

use crate::model::Model;
use crate::trace::{Promise, Trace};
use longwire::broker::{
    BoxFuture, Broker, BrokerError, Channels, MemoryBroker, Movement, Outlets, PublishOptions, Published,
};
use longwire::delivery::{Delivery, Mailbox};
use longwire::env::{Clock, Rng};
use longwire::history::{Page, Part, Retention};
use longwire_protocol::Publication;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a node waits for an answer before it calls the store unreachable.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Deliveries that may wait for a node's link.
const LINK_LETTERS: usize = 4096;

/// What took effect, told to the model.
#[derive(Clone)]
pub struct Witness {
    /// The truth.
    pub model: Model,
    /// Where a broken numbering is reported.
    pub trace: Trace,
    /// The time.
    pub clock: Clock,
}

impl Witness {
    fn published(&self, channel: &str, published: Published, what: &Publication) {
        let Published { position, is_suppressed, .. } = published;
        let data = String::from_utf8_lossy(&what.data);
        if is_suppressed {
            return self.trace.note(format_args!("suppressed {channel} {position:?} {data}"));
        }
        self.trace.note(format_args!("published {channel} {position:?} {data} {:?}", what.tags));
        let tags = what.tags.iter().cloned().collect();
        let told = self.model.lock().publish(channel, position, &data, tags, self.clock.now());
        if let Err(what) = told {
            self.trace.fail(Promise::Order, what);
        }
    }

    fn announced(&self, channel: &str, movement: &Movement) {
        let (info, is_join) = match movement {
            Movement::Join(info) => (info, true),
            Movement::Leave(info) => (info, false),
        };
        self.trace.note(format_args!("announced {channel} {} join={is_join}", info.client));
        self.model.lock().announce(channel, info.client.to_string(), is_join);
    }
}

/// The broker of a single node, as shipped.
pub struct Alone {
    inner: MemoryBroker,
    witness: Witness,
}

impl Alone {
    /// Puts a witness beside a broker.
    pub fn new(channels: Arc<Channels>, outlets: Outlets, rng: Rng, witness: Witness) -> Alone {
        Alone { inner: MemoryBroker::of(channels, outlets, witness.clock, rng), witness }
    }
}

impl Broker for Alone {
    fn may_lose(&self) -> bool {
        self.inner.may_lose()
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Arc<str>,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        Box::pin(async move {
            let what = publication.clone();
            let published = self.inner.publish(channel, publication, options).await?;
            self.witness.published(channel, published, &what);
            Ok(published)
        })
    }

    fn announce<'a>(
        &'a self,
        channel: &'a Arc<str>,
        movement: Movement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            self.inner.announce(channel, movement.clone()).await?;
            self.witness.announced(channel, &movement);
            Ok(())
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a Arc<str>,
        retention: Retention,
        part: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>> {
        self.inner.history(channel, retention, part)
    }

    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.inner.remove_history(channel)
    }

    fn set_interest<'a>(
        &'a self,
        channel: &'a Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.inner.set_interest(channel, shard, is_interested)
    }

    fn expire(&self, now: Instant) {
        self.inner.expire(now);
    }
}

/// How the links to the store behave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// The longest that a call or a delivery takes; the shortest is a tenth of it.
    pub latency: Duration,
    /// Share of deliveries that are lost (0.0 to 1.0).
    pub lost: f64,
    /// Share of deliveries that come twice.
    pub doubled: f64,
    /// Share of calls that fail, half of them after they took effect.
    pub failing: f64,
}

/// Calm weather.
pub const CALM: Weather =
    Weather { latency: Duration::from_millis(2), lost: 0.0, doubled: 0.0, failing: 0.0 };

/// A store and its links to several nodes; copies share it.
#[derive(Clone)]
pub struct Cluster(Arc<Mutex<Store>>);

struct Store {
    memory: Arc<MemoryBroker>,
    links: Vec<Link>,
    weather: Weather,
    witness: Witness,
    rng: Rng,
    epochs_lost: u32,
}

struct Link {
    mailbox: Arc<Mailbox<Arc<Delivery>>>,
    /// The shards of the node that runs, and by channel which of them are interested.
    node: Option<Outlets>,
    interest: BTreeMap<Arc<str>, u64>,
    is_cut: bool,
}

impl Cluster {
    /// A store for `nodes` nodes.
    pub fn new(nodes: usize, rng: Rng, witness: Witness) -> Cluster {
        let link = || Link {
            mailbox: Arc::new(Mailbox::new(LINK_LETTERS)),
            node: None,
            interest: BTreeMap::new(),
            is_cut: false,
        };
        let links: Vec<Link> = (0..nodes).map(|_| link()).collect();
        let memory = Arc::new(new_memory(&links, &rng, 0, witness.clock));
        Cluster(Arc::new(Mutex::new(Store { memory, links, weather: CALM, witness, rng, epochs_lost: 0 })))
    }

    /// The broker of one node, which replaces that of the node's earlier lives.
    pub fn broker(&self, node: usize, outlets: Outlets) -> Box<dyn Broker> {
        self.leave(node);
        self.lock().links[node].node = Some(outlets);
        Box::new(OfNode { cluster: self.clone(), node })
    }

    /// A node's process is gone.
    pub fn leave(&self, node: usize) {
        let store = &mut *self.lock();
        store.links[node].node = None;
        store.links[node].interest.clear();
        store.links[node].mailbox.take(&mut VecDeque::new());
        store.renew_interest();
    }

    /// Changes how all links behave.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Cuts a node off, or reaches it again.
    pub fn cut(&self, node: usize, is_cut: bool) {
        self.lock().links[node].is_cut = is_cut;
    }

    /// The store forgets everything, as one does that is restarted without a disk.
    pub fn lose_epochs(&self) {
        let store = &mut *self.lock();
        store.epochs_lost += 1;
        store.witness.model.lock().lose_epochs();
        let (rng, lost) = (&store.rng, store.epochs_lost);
        store.memory = Arc::new(new_memory(&store.links, rng, lost, store.witness.clock));
        store.renew_interest();
    }

    /// Whether any node still has an interest in any channel.
    pub fn interests(&self) -> usize {
        self.lock().links.iter().map(|link| link.interest.len()).sum()
    }

    /// Carries deliveries from the store to one node, for ever.
    pub async fn carry(self, node: usize) {
        let (mailbox, clock) = {
            let store = self.lock();
            (store.links[node].mailbox.clone(), store.witness.clock)
        };
        let mut under_way: VecDeque<(Instant, Arc<Delivery>)> = VecDeque::new();
        let mut batch = VecDeque::new();
        loop {
            let due = under_way.front().map(|(due, _)| *due);
            tokio::select! {
                biased;
                () = mailbox.arrived() => {}
                () = async { clock.sleep_until(due.unwrap_or_else(|| clock.now())).await }, if due.is_some() => {}
            }
            mailbox.take(&mut batch);
            let now = clock.now();
            for delivery in batch.drain(..) {
                let earliest = under_way.back().map_or(now, |(due, _)| *due);
                for due in self.fates(node, now) {
                    under_way.push_back((due.max(earliest), delivery.clone()));
                }
            }
            while under_way.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, delivery)) = under_way.pop_front() else { break };
                for outlet in self.outlets(node, &delivery.channel) {
                    outlet.push(delivery.clone());
                }
            }
        }
    }

    /// When a delivery arrives: never, once or twice.
    fn fates(&self, node: usize, now: Instant) -> Vec<Instant> {
        let store = &mut *self.lock();
        let weather = store.weather;
        if store.links[node].is_cut || store.rng.fraction() < weather.lost {
            return Vec::new();
        }
        let copies = if store.rng.fraction() < weather.doubled { 2 } else { 1 };
        (0..copies).map(|_| now + store.delay()).collect()
    }

    /// The interested shards of a node.
    fn outlets(&self, node: usize, channel: &str) -> Vec<Arc<Mailbox<Arc<Delivery>>>> {
        let store = self.lock();
        let link = &store.links[node];
        let shards = link.interest.get(channel).copied().unwrap_or(0);
        let outlets = link.node.iter().flat_map(|outlets| outlets.iter().enumerate());
        outlets.filter(|(shard, _)| shards >> shard & 1 == 1).map(|(_, outlet)| outlet.clone()).collect()
    }

    /// One call of a node: it takes time, it may fail before, and it may fail after `effect`.
    async fn call<T>(
        &self,
        node: usize,
        effect: impl AsyncFnOnce(&MemoryBroker) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        let clock = self.lock().witness.clock;
        let unreachable = || BrokerError::Unavailable("the simulated store does not answer".into());
        let (there, back, fate, is_cut) = {
            let store = &mut *self.lock();
            let fate = store.rng.fraction() / store.weather.failing.max(f64::MIN_POSITIVE);
            (store.delay(), store.delay(), fate, store.links[node].is_cut)
        };
        clock.sleep(there).await;
        if is_cut || fate < 0.5 {
            clock.sleep(CALL_TIMEOUT).await;
            return Err(unreachable());
        }
        let memory = self.lock().memory.clone();
        let answer = effect(&memory).await;
        if fate < 1.0 {
            clock.sleep(CALL_TIMEOUT).await;
            return Err(unreachable());
        }
        clock.sleep(back).await;
        answer
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn new_memory(links: &[Link], rng: &Rng, epochs_lost: u32, clock: Clock) -> MemoryBroker {
    let outlets = links.iter().map(|link| link.mailbox.clone()).collect();
    MemoryBroker::new(outlets, clock, rng.fork(&format!("store {epochs_lost}")))
}

impl Store {
    fn delay(&mut self) -> Duration {
        self.weather.latency.mul_f64(0.1 + 0.9 * self.rng.fraction())
    }

    /// Tells a store that knows nothing of it what every node is interested in.
    fn renew_interest(&mut self) {
        for (node, link) in self.links.iter().enumerate() {
            for channel in link.interest.keys() {
                ready(self.memory.set_interest(channel, node, true));
            }
        }
    }
}

/// The answer of a call to memory that waits for nothing.
fn ready<T>(mut future: BoxFuture<'_, Result<T, BrokerError>>) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_ready(), "memory does not wait");
}

/// One node's view of the store.
struct OfNode {
    cluster: Cluster,
    node: usize,
}

impl Broker for OfNode {
    fn may_lose(&self) -> bool {
        true
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Arc<str>,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        Box::pin(async move {
            let witness = self.cluster.lock().witness.clone();
            let what = publication.clone();
            let effect = async |memory: &MemoryBroker| {
                let published = memory.publish(channel, publication, options).await?;
                witness.published(channel, published, &what);
                Ok(published)
            };
            self.cluster.call(self.node, effect).await
        })
    }

    fn announce<'a>(
        &'a self,
        channel: &'a Arc<str>,
        movement: Movement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let witness = self.cluster.lock().witness.clone();
            let mut is_announced = false;
            let effect = async |memory: &MemoryBroker| {
                is_announced = true;
                witness.announced(channel, &movement);
                memory.announce(channel, movement.clone()).await
            };
            let answer = self.cluster.call(self.node, effect).await;
            if !is_announced {
                let (Movement::Join(info) | Movement::Leave(info)) = &movement;
                let key = (channel.to_string(), info.client.to_string());
                witness.model.lock().unannounced.insert(key);
            }
            answer
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a Arc<str>,
        retention: Retention,
        part: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>> {
        let read = async move |memory: &MemoryBroker| memory.history(channel, retention, part).await;
        Box::pin(async move { self.cluster.call(self.node, read).await })
    }

    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        let remove = async move |memory: &MemoryBroker| memory.remove_history(channel).await;
        Box::pin(async move { self.cluster.call(self.node, remove).await })
    }

    fn set_interest<'a>(
        &'a self,
        channel: &'a Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        let change = async move |memory: &MemoryBroker| {
            let shards = {
                let link = &mut self.cluster.lock().links[self.node];
                let shards = link.interest.entry(channel.clone()).or_default();
                *shards = *shards & !(1 << shard) | u64::from(is_interested) << shard;
                let shards = *shards;
                if shards == 0 {
                    link.interest.remove(channel);
                }
                shards
            };
            memory.set_interest(channel, self.node, shards != 0).await
        };
        Box::pin(async move { self.cluster.call(self.node, change).await })
    }

    fn expire(&self, now: Instant) {
        let memory = self.cluster.lock().memory.clone();
        memory.expire(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire::broker::conformance;
    use tokio::task::{LocalSet, spawn_local};

    #[tokio::test(start_paused = true)]
    async fn a_node_of_the_simulated_cluster_keeps_the_contract() {
        let make = |outlets| {
            let clock = Clock::system();
            let witness = Witness { model: Model::default(), trace: Trace::new(clock, false), clock };
            let cluster = Cluster::new(2, Rng::from_seed(1), witness);
            spawn_local(cluster.clone().carry(0));
            cluster.broker(0, outlets)
        };
        LocalSet::new().run_until(conformance::all(make)).await;
    }
}
