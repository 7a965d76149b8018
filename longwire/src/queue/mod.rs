//! Durable queues: messages that wait until somebody acknowledges them.
//!
//! [`Queues`] is the handle through which shards, the HTTP API and the node reach the one thread that keeps all queues,
//! the [`Keeper`]. It takes what came since its last turn, decides with `engine`, writes one group to the disk, and only
//! then tells anybody what came of it: that is the group commit. `engine` never waits, `store` never decides.
//! What must stay true: nobody is told that a persistent message was taken, or that it is gone, before the disk has
//! synced that; the answers to a session's commands come in their order; whoever has less credit than a message needs is
//! given none.

mod calls;
mod compact;
mod dispatch;
mod engine;
pub mod json;
mod keeper;
mod line;
mod ops;
#[expect(clippy::module_inception, reason = "one queue among all that belongs to queues")]
mod queue;
mod record;
mod replay;
mod session;
mod settle;
mod store;
#[cfg(test)]
mod tests;
mod timers;

pub use keeper::{Keeper, open};

use crate::delivery::Mailbox;
use crate::telemetry::QueueCounters;
use arc_swap::ArcSwapOption;
use longwire_protocol::queue::{
    Message, NewMessage, QueueCommand, QueueError, QueueErrorKind, QueuePush, Verdict,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Where a session is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Place {
    /// The shard.
    pub shard: usize,
    /// The session's number within the shard; never given twice.
    pub session: u64,
}

/// What a session is told.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// What came of a command; to each command one answer, in their order. Only while the disk fails, what needs no disk
    /// and what is refused may overtake what waits for it.
    Answer {
        /// The session.
        session: u64,
        /// The command's number, as it was submitted.
        id: u32,
        /// What came of it.
        result: Result<(), QueueError>,
    },
    /// Something for a consumer. It follows the answer to the command that made the consumer.
    Push {
        /// The session.
        session: u64,
        /// What.
        push: QueuePush,
    },
}

/// The ways to the shards' threads, by the number of the shard.
pub type Outlets = Vec<Arc<Mailbox<Vec<Event>>>>;

/// A message that was received through a lease.
#[derive(Clone, PartialEq, Debug)]
pub struct Received {
    /// Names the lease when it is settled.
    pub token: String,
    /// The message.
    pub message: Arc<Message>,
    /// How often it was delivered before.
    pub redeliveries: u32,
}

/// Where a message of a queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It waits for somebody who takes it.
    Waiting,
    /// It is given to nobody yet.
    Delayed,
    /// It waits for its acknowledgement.
    InFlight,
}

/// A message that somebody looks at.
#[derive(Clone, PartialEq, Debug)]
pub struct Peeked {
    /// The message.
    pub message: Arc<Message>,
    /// How often it was delivered before.
    pub redeliveries: u32,
    /// Where it is.
    pub state: State,
}

/// Some of a queue's messages.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Page {
    /// The messages, in the order in which they will be delivered.
    pub messages: Vec<Peeked>,
    /// Names the place behind the last one; `None` if there are no more.
    pub next: Option<String>,
}

/// What there is to know about a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueStats {
    /// Its name.
    pub name: Arc<str>,
    /// The channel that it is a durable subscription of.
    pub durable_of: Option<Arc<str>>,
    /// Messages that wait for somebody who takes them.
    pub waiting: u64,
    /// Messages that are given to nobody yet.
    pub delayed: u64,
    /// Messages that wait for their acknowledgement.
    pub in_flight: u64,
    /// Bytes of all of them, headers and bodies.
    pub bytes: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages that were sent to it since the start.
    pub sent: u64,
    /// Messages that were acknowledged since the start.
    pub acknowledged: u64,
    /// Messages that became dead letters since the start.
    pub dead_lettered: u64,
    /// When the oldest message was sent that still waits, in milliseconds since 1970, to the second if it is on the disk
    /// alone; 0 if none waits.
    pub oldest_ms: u64,
}

/// The way to the queues; copies lead to the same ones.
#[derive(Clone)]
pub struct Queues {
    shared: Arc<Shared>,
}

/// What the handles and the keeper have in common.
struct Shared {
    mailbox: Mailbox<Letter>,
    counters: Arc<QueueCounters>,
    /// Nobody takes letters any more.
    is_closed: AtomicBool,
    /// The queues of the durable subscriptions of each channel; `None` while there are none at all.
    bound: ArcSwapOption<Bound>,
}

/// The queues of the durable subscriptions of each channel.
type Bound = BTreeMap<Arc<str>, Arc<[Arc<str>]>>;

/// The answer to a call.
type Outcome<T> = oneshot::Sender<Result<T, QueueError>>;

/// What the keeper is sent.
enum Letter {
    /// A session wants something.
    Submitted(Place, Vec<(u32, QueueCommand)>),
    /// Deliveries with [`AckMode::Auto`](longwire_protocol::queue::AckMode) that were written.
    Written(Place, Vec<u64>),
    /// A session is gone; these deliveries never were on their way.
    Ended(Place, Vec<u64>),
    /// Somebody waits for the answer.
    Called(Call),
}

/// What is asked by somebody who has no session.
enum Call {
    Send { messages: Vec<NewMessage>, outcome: Outcome<Vec<Arc<str>>> },
    SendEach { messages: Vec<NewMessage>, outcome: Outcome<Vec<Result<Arc<str>, QueueError>>> },
    Receive { queue: Arc<str>, max: usize, wait: Duration, lease: Duration, outcome: Outcome<Vec<Received>> },
    Settle { tokens: Vec<String>, verdict: Verdict, outcome: Outcome<Vec<Result<(), QueueError>>> },
    Stats { queue: Arc<str>, outcome: Outcome<QueueStats> },
    List { after: Option<Arc<str>>, max: usize, outcome: Outcome<Vec<QueueStats>> },
    Peek { queue: Arc<str>, after: Option<String>, max: usize, outcome: Outcome<Page> },
    Purge { queue: Arc<str>, outcome: Outcome<u64> },
    Remove { queue: Arc<str>, outcome: Outcome<u64> },
    Move { from: Arc<str>, to: Arc<str>, max: usize, outcome: Outcome<u64> },
}

impl Queues {
    /// Queues that nobody keeps, where a test is about something else: what is asked of them waits.
    #[cfg(test)]
    pub fn idle() -> Queues {
        let mailbox = Mailbox::new(1024);
        let counters = Arc::new(QueueCounters::default());
        let (bound, is_closed) = (ArcSwapOption::empty(), Default::default());
        Queues { shared: Arc::new(Shared { mailbox, counters, bound, is_closed }) }
    }

    /// Hands over commands of a session. To each the session's shard is sent one [`Event::Answer`], in their order.
    pub fn submit(&self, place: Place, commands: Vec<(u32, QueueCommand)>) {
        self.shared.mailbox.push(Letter::Submitted(place, commands));
    }

    /// Says that deliveries with [`AckMode::Auto`](longwire_protocol::queue::AckMode) were written to the socket.
    pub fn settle_written(&self, place: Place, written: Vec<u64>) {
        self.shared.mailbox.push(Letter::Written(place, written));
    }

    /// Ends all that a session had to do with queues: what it did not acknowledge goes back to its place, and what was
    /// never written to the socket does not count as delivered. The session is sent nothing more, though events may be
    /// under way.
    pub fn end(&self, place: Place, unwritten: Vec<u64>) {
        self.shared.mailbox.push(Letter::Ended(place, unwritten));
    }

    /// Sends messages, all or none; their ids, once they are safe.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be taken.
    pub async fn send(&self, messages: Vec<NewMessage>) -> Result<Vec<Arc<str>>, QueueError> {
        self.call(|outcome| Call::Send { messages, outcome }).await
    }

    /// Sends messages, each for itself; their ids, once they are safe, or what is wrong with each.
    ///
    /// # Errors
    /// [`QueueErrorKind::ShuttingDown`].
    pub async fn send_each(
        &self,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<Result<Arc<str>, QueueError>>, QueueError> {
        self.call(|outcome| Call::SendEach { messages, outcome }).await
    }

    /// Takes up to `max` messages that wait; if there is none, waits for one, but no longer than `wait`. What is not
    /// settled within `lease` goes back to its place.
    ///
    /// # Errors
    /// There is no such queue.
    pub async fn receive(
        &self,
        queue: Arc<str>,
        max: usize,
        wait: Duration,
        lease: Duration,
    ) -> Result<Vec<Received>, QueueError> {
        self.call(|outcome| Call::Receive { queue, max, wait, lease, outcome }).await
    }

    /// Says of received messages what came of them, by the tokens of their leases; the outcomes are in the order of the
    /// tokens, and are sent once they are safe.
    ///
    /// # Errors
    /// [`QueueErrorKind::ShuttingDown`].
    pub async fn settle(
        &self,
        tokens: Vec<String>,
        verdict: Verdict,
    ) -> Result<Vec<Result<(), QueueError>>, QueueError> {
        self.call(|outcome| Call::Settle { tokens, verdict, outcome }).await
    }

    /// What there is to know about a queue.
    ///
    /// # Errors
    /// There is no such queue.
    pub async fn stats(&self, queue: Arc<str>) -> Result<QueueStats, QueueError> {
        self.call(|outcome| Call::Stats { queue, outcome }).await
    }

    /// The queues whose names follow `after`, by name, at most `max`.
    ///
    /// # Errors
    /// [`QueueErrorKind::ShuttingDown`].
    pub async fn list(&self, after: Option<Arc<str>>, max: usize) -> Result<Vec<QueueStats>, QueueError> {
        self.call(|outcome| Call::List { after, max, outcome }).await
    }

    /// Looks at up to `max` messages of a queue, from its head or from where an earlier look ended
    /// ([`Page::next`]). A look may end early, when it has seen much.
    ///
    /// # Errors
    /// There is no such queue, or `after` names no place.
    pub async fn peek(&self, queue: Arc<str>, after: Option<String>, max: usize) -> Result<Page, QueueError> {
        self.call(|outcome| Call::Peek { queue, after, max, outcome }).await
    }

    /// Drops all messages of a queue that are not in flight; how many they were, once that is safe.
    ///
    /// # Errors
    /// There is no such queue, or the disk does not take it.
    pub async fn purge(&self, queue: Arc<str>) -> Result<u64, QueueError> {
        let mut sum = 0;
        loop {
            let queue = queue.clone();
            let count = self.call(|outcome| Call::Purge { queue, outcome }).await?;
            sum += count;
            if count < calls::MAX_PURGED as u64 {
                return Ok(sum);
            }
        }
    }

    /// Removes a queue with all its messages, its consumers and its durable subscription; how many messages they were,
    /// once that is safe.
    ///
    /// # Errors
    /// There is no such queue, or the disk does not take it.
    pub async fn remove(&self, queue: Arc<str>) -> Result<u64, QueueError> {
        self.call(|outcome| Call::Remove { queue, outcome }).await
    }

    /// Puts up to `max` waiting messages of a queue behind those of another; how many they were, once that is safe. They
    /// get ids of their own there.
    ///
    /// # Errors
    /// There is no such queue, the other one does not take them, or the disk does not.
    pub async fn move_messages(&self, from: Arc<str>, to: Arc<str>, max: usize) -> Result<u64, QueueError> {
        let mut sum = 0;
        while (sum as usize) < max {
            let (from, to, max) = (from.clone(), to.clone(), max - sum as usize);
            match self.call(|outcome| Call::Move { from, to, max, outcome }).await {
                Ok(0) => break,
                Ok(count) => sum += count,
                Err(_) if sum > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// The queues of a channel's durable subscriptions.
    pub fn bound(&self, channel: &str) -> Option<Arc<[Arc<str>]>> {
        let bound = self.shared.bound.load();
        bound.as_ref()?.get(channel).cloned()
    }

    /// What is counted.
    pub fn counters(&self) -> &QueueCounters {
        &self.shared.counters
    }

    async fn call<T>(&self, call: impl FnOnce(Outcome<T>) -> Call) -> Result<T, QueueError> {
        let ended = || QueueError::new(QueueErrorKind::ShuttingDown, "");
        if self.shared.is_closed.load(Ordering::SeqCst) {
            return Err(ended());
        }
        self.shared.mailbox.room().await;
        let (outcome, answer) = oneshot::channel();
        self.shared.mailbox.push(Letter::Called(call(outcome)));
        if self.shared.is_closed.load(Ordering::SeqCst) {
            // The keeper may have taken its last letters before this one came.
            self.shared.mailbox.take(&mut VecDeque::new());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}
