//! Order and memory of a channel, and reach: the seam behind which a cluster fits.
//!
//! A broker numbers publications, keeps them, and hands one [`Delivery`] to each
//! shard that has subscribers. It knows no session and no permission. What must stay true, for every
//! implementation ([`conformance`]): numbering, keeping and handing over happen in one order per channel.

pub mod channels;
pub mod conformance;
mod idempotency;
pub mod memory;
pub mod store;

pub use channels::Channels;
pub use memory::MemoryBroker;

use crate::delivery::{Delivery, Mailbox};
use crate::history::{Page, Part, Retention, Version};
use crate::telemetry::HistoryCounters;
use longwire_protocol::message::ClientInfo;
use longwire_protocol::{Position, Publication};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A future that a broker returns; most are ready at once.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The mailboxes of the shards, by the shard's number.
pub type Outlets = Arc<[Arc<Mailbox<Arc<Delivery>>>]>;

/// A client that came or went.
#[derive(Clone, Debug)]
pub enum Movement {
    /// It came.
    Join(Arc<ClientInfo>),
    /// It went.
    Leave(Arc<ClientInfo>),
}

/// How something is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishOptions {
    /// How long it is kept; without, it has no position and is only handed on.
    pub retention: Option<Retention>,
    /// Hand on the publication before it, too, so that subscribers can be given the difference.
    pub use_delta: bool,
    /// Publish it only if nothing was published under this key lately.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Publish it only if the channel was told of nothing as new. Without `retention` it says nothing.
    pub version: Option<Version>,
}

/// By what a call is known that may be made twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// What the publisher calls it; a name within the channel.
    pub name: Arc<str>,
    /// How long it is remembered.
    pub ttl: Duration,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Its position, or that of whatever made it superfluous; `None` in a channel without history.
    pub position: Option<Position>,
    /// Nothing was published: the call is a repeated one, or the channel was told of something as new.
    pub is_suppressed: bool,
    /// Nothing was published because the same call published it before.
    pub is_repeat: bool,
}

/// Why a broker could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The broker's store or network is out of reach.
    #[error("the broker cannot be reached: {0}")]
    Unavailable(String),
}

/// Order, memory and reach of channels.
///
/// Every call ends within a few seconds, by an error if need be. A call that is dropped or that fails may have
/// taken effect or not. A shard makes its calls of [`set_interest`](Broker::set_interest) for one channel one after
/// another; those of different shards may run at the same time.
pub trait Broker: Send + Sync {
    /// Whether a call may fail, or a delivery be lost on its way to a shard that is interested: if so, shards
    /// compare positions with the broker's from time to time, and ask again for what failed.
    fn may_lose(&self) -> bool;

    /// Numbers a publication, keeps it, and hands it to all subscribers, as `options` say.
    ///
    /// The `offset` of the given publication is overwritten. Looking up the key and the version, and publishing,
    /// are one step: of two calls at the same time one publishes. A broker may forget a key early, the oldest
    /// first, where more are in use than it has room for; a call that is repeated after that publishes again.
    fn publish<'a>(
        &'a self,
        channel: &'a Arc<str>,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>>;

    /// Tells all subscribers that a client came or went.
    fn announce<'a>(
        &'a self,
        channel: &'a Arc<str>,
        movement: Movement,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Part of what the channel remembers. A channel that was never used gets its epoch here.
    fn history<'a>(
        &'a self,
        channel: &'a Arc<str>,
        retention: Retention,
        part: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>>;

    /// Forgets the publications of a channel, but not its numbering.
    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Notes that the shard has subscribers of the channel, or has none any more.
    ///
    /// Everything published after this returned reaches the shard.
    fn set_interest<'a>(
        &'a self,
        channel: &'a Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Drops what is past its time; called every few seconds.
    fn expire(&self, now: Instant);

    /// What is counted of histories on the disk, where they are kept there.
    fn history_counters(&self) -> Option<&HistoryCounters> {
        None
    }
}
