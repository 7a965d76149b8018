//! What is said to all shards at once: the backend's orders about its users, and questions.
//!
//! An order is pushed into every shard's mailbox and carried out there; nobody waits for it. A question
//! carries its own way back.

use super::Node;
use super::revocation::Revoked;
use super::session_name::SessionPlace;
use super::survey::{ConnectionState, Reach, Sent, Wanted};
use crate::auth::ServerSubscription;
use crate::delivery::Mailbox;
use bytes::Bytes;
use longwire_protocol::message::ClientId;
use longwire_protocol::{Close, ErrorCode, Since};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Whose connections an order is about: those that match every field that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// All connections of this user.
    pub user: Option<String>,
    /// This connection.
    pub client: Option<ClientId>,
    /// The connection whose session has this name.
    pub session: Option<String>,
    /// Connections that are spared.
    pub except: Vec<ClientId>,
}

/// A subscription that the backend orders.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerSubscribe {
    /// The channel.
    pub channel: String,
    /// What it comes with.
    pub terms: ServerSubscription,
    /// When the subscription ends, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Recover from here.
    pub recover_since: Option<Since>,
}

/// An order or a question to a shard.
#[derive(Clone, Debug)]
pub enum Control {
    /// Close connections.
    Disconnect {
        /// Whose.
        target: Target,
        /// How.
        close: Close,
    },
    /// Drop connections as if the network had: no close frame, a reset.
    Cut {
        /// Whose.
        target: Target,
    },
    /// Begin server-side subscriptions.
    Subscribe {
        /// Whose.
        target: Target,
        /// To what.
        subscribe: Arc<ServerSubscribe>,
    },
    /// End subscriptions.
    Unsubscribe {
        /// Whose.
        target: Target,
        /// From what.
        channel: Arc<str>,
    },
    /// Prolong connections, or let them expire.
    Refresh {
        /// Whose.
        target: Target,
        /// `Some`: live until then, in seconds since 1970 (0: for ever); `None`: expire at once.
        expires_at: Option<i64>,
        /// What others are to see of the user, if that changes: raw JSON.
        info: Option<Bytes>,
    },
    /// A message of a client that came by a request of its own.
    Message {
        /// The name of its session.
        session: String,
        /// The commands.
        data: Bytes,
        /// Where it is told what became of it.
        answer: mpsc::UnboundedSender<Relayed>,
    },
    /// Close connections that came by a token that counts no more.
    Revoke {
        /// What was revoked.
        revoked: Arc<Revoked>,
    },
    /// Close the connections in a user's personal channel that are older than another one.
    Supersede {
        /// The channel.
        channel: Arc<str>,
        /// Whose; others that are in the channel stay.
        user: Arc<str>,
        /// The rank of the other one among all connections.
        rank: u64,
    },
    /// How far a publication came.
    Reach {
        /// Which.
        sent: Arc<Sent>,
        /// Where the answer goes.
        answer: mpsc::UnboundedSender<Reach>,
    },
    /// How connections stand.
    Connections {
        /// Which.
        wanted: Arc<Wanted>,
        /// Where the answer goes.
        answer: mpsc::UnboundedSender<Vec<ConnectionState>>,
    },
    /// How many subscribers each channel has.
    Channels {
        /// Only channels whose name this allows.
        pattern: Pattern,
        /// Where the answer goes.
        answer: mpsc::UnboundedSender<BTreeMap<Arc<str>, usize>>,
    },
    /// How much the shard holds.
    Census {
        /// Where the answer goes.
        answer: mpsc::UnboundedSender<Census>,
    },
    /// Memory is short: close the connections that keep the most of it waiting to be read.
    Shed,
    /// Tell every client to come back later, spread over a time.
    Drain {
        /// The time.
        over: Duration,
    },
}

/// What became of a message that came by a request of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relayed {
    /// The session has it.
    Taken,
    /// The session has too much that waits.
    Full,
    /// There is no such session, or it is about to end.
    Unknown,
}

/// How much a shard holds.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Connections.
    pub clients: usize,
    /// Users, the anonymous one included.
    pub users: BTreeSet<Arc<str>>,
    /// Channels with subscribers.
    pub channels: BTreeSet<Arc<str>>,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Connections, connected or not.
    pub sessions: usize,
    /// Entries in the timer wheel, stale ones included.
    pub timers: usize,
    /// The most bytes that wait for one connection.
    pub largest_outbox: usize,
}

/// A glob over channel names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether a name fits: `*` stands for any text, `?` for one character, anything else for itself; the
    /// empty pattern fits every name.
    pub fn matches(&self, name: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        // The classic two-pointer match: on a mismatch, the last `*` takes one character more.
        let (mut p, mut n, mut star) = (0, 0, None);
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(&byte) if byte == b'?' || byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match &mut star {
                    Some((at, taken)) => {
                        *taken += 1;
                        (p, n) = (*at + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|&byte| byte == b'*')
    }
}

/// The way to every shard.
#[derive(Clone)]
pub struct Switchboard(Arc<[Arc<Mailbox<Control>>]>);

impl Switchboard {
    /// A switchboard for the shards behind these mailboxes.
    pub fn new(mailboxes: Vec<Arc<Mailbox<Control>>>) -> Switchboard {
        Switchboard(mailboxes.into())
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.0.len()
    }

    async fn tell_all(&self, control: &Control) {
        for mailbox in self.0.iter() {
            mailbox.room().await;
            mailbox.push(control.clone());
        }
    }
}

impl Node {
    /// Gives an order to every shard.
    pub async fn order(&self, control: Control) {
        self.switchboard.tell_all(&control).await;
    }

    /// Takes a message to the session of that name.
    pub async fn relay(&self, session: String, data: Bytes) -> Relayed {
        let shard = SessionPlace::of_name(&session).map(|place| place.shard as usize);
        let Some(mailbox) = shard.and_then(|shard| self.switchboard.0.get(shard)) else {
            return Relayed::Unknown;
        };
        let (answer, mut answers) = mpsc::unbounded_channel();
        mailbox.room().await;
        mailbox.push(Control::Message { session, data, answer });
        answers.recv().await.unwrap_or(Relayed::Unknown)
    }

    /// Begins a server-side subscription for everybody in `target`.
    ///
    /// # Errors
    /// As [`channel_options`](Node::channel_options).
    pub async fn order_subscribe(&self, target: Target, subscribe: ServerSubscribe) -> Result<(), ErrorCode> {
        self.channel_options(&subscribe.channel)?;
        self.order(Control::Subscribe { target, subscribe: Arc::new(subscribe) }).await;
        Ok(())
    }

    /// The channels that have subscribers on this node, with their number.
    pub async fn channels(&self, pattern: Pattern) -> BTreeMap<Arc<str>, usize> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.order(Control::Channels { pattern, answer }).await;
        let mut channels = BTreeMap::new();
        while let Some(part) = answers.recv().await {
            for (channel, count) in part {
                *channels.entry(channel).or_insert(0) += count;
            }
        }
        channels
    }

    /// How much all shards hold together.
    pub async fn census(&self) -> Census {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.order(Control::Census { answer }).await;
        let mut sum = Census::default();
        while let Some(part) = answers.recv().await {
            sum.clients += part.clients;
            sum.subscriptions += part.subscriptions;
            sum.sessions += part.sessions;
            sum.timers += part.timers;
            sum.largest_outbox = sum.largest_outbox.max(part.largest_outbox);
            sum.users.extend(part.users);
            sum.channels.extend(part.channels);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_a_glob_does() {
        for (pattern, name, fits) in [
            ("", "anything", true),
            ("*", "anything", true),
            ("chat:*", "chat:7", true),
            ("chat:*", "news:7", false),
            ("*:7", "chat:7", true),
            ("c?at", "chat", true),
            ("c?at", "chaat", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("chat", "chat", true),
            ("chat", "chats", false),
        ] {
            assert_eq!(Pattern(pattern.into()).matches(name), fits, "{pattern} {name}");
        }
    }
}
