//! What is said to all shards at once: the backend's orders about its users, and questions.
//!
//! An order is pushed into every shard's mailbox and carried out there; nobody waits for it. A question
//! carries its own way back.

use super::Node;
use super::claims::{Parcel, Returning};
use super::revocation::Revoked;
use super::session_name::SessionPlace;
use super::survey::{ConnectionState, Reach, Sent, UsersHere, Wanted, WantedUsers};
use crate::auth::ServerSubscription;
use crate::delivery::{Delivery, Mailbox, What};
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

/// Who is to get a direct message.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipients {
    /// Whose connections.
    pub who: Who,
    /// Connections that do not get it.
    pub except: BTreeSet<ClientId>,
    /// Users whose connections do not get it.
    pub except_users: BTreeSet<String>,
}

/// Whose connections get a direct message.
#[derive(Clone, Debug, PartialEq)]
pub enum Who {
    /// These.
    Clients(BTreeSet<ClientId>),
    /// Those of these users.
    Users(BTreeSet<String>),
    /// Those that are subscribed to a channel.
    Channel(String),
    /// All.
    All,
}

/// How far a direct message came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Connections that it was given to.
    pub taken: usize,
    /// Connections that cannot be given it: it is no JSON, and they carry nothing else.
    pub refused: usize,
}

/// Why a connection did not become another user's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BindError {
    /// There is no such connection, or it is about to end.
    NotFound,
    /// The user has as many connections as there may be.
    Full,
    /// Another connection of the user has the same client name, and is to keep it.
    InUse,
}

/// What is done with what a backend keeps with a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum DataChange {
    /// Keep this JSON object in place of what was kept; empty: keep nothing.
    Set(Bytes),
    /// Put the members of this JSON object among those that are kept; one that is null is taken out.
    Update(Bytes),
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
        /// Dropped where they have begun.
        begun: mpsc::UnboundedSender<()>,
    },
    /// End subscriptions.
    Unsubscribe {
        /// Whose.
        target: Target,
        /// From what.
        channel: Arc<str>,
    },
    /// Give connections a direct message.
    Send {
        /// Which.
        recipients: Arc<Recipients>,
        /// The message, encoded once for each form in which it goes out.
        message: Arc<Delivery>,
        /// Where it is told how far it came.
        answer: mpsc::UnboundedSender<Handed>,
    },
    /// Make a connection another user's.
    Bind {
        /// Which.
        client: ClientId,
        /// Whose it will be; empty for the anonymous user.
        user: Arc<str>,
        /// Where it is told what came of it; the shard that does not have it says nothing.
        answer: mpsc::UnboundedSender<Result<(), BindError>>,
    },
    /// Change what the backend keeps with a connection.
    KeepData {
        /// Which.
        client: ClientId,
        /// How.
        change: DataChange,
        /// Where what is kept goes; the shard that does not have it says nothing.
        answer: mpsc::UnboundedSender<Result<Bytes, ErrorCode>>,
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
    /// Let a session go on with another link of its client; if it is gone, let one begin with it.
    TakeOver(Parcel<Box<Returning>>),
    /// End a session whose claim to its client's name another one has.
    GiveWay {
        /// Where it is.
        holder: SessionPlace,
        /// Where it is told that this is done.
        answer: mpsc::UnboundedSender<()>,
    },
    /// A message of a client that came by a request of its own.
    Message {
        /// The name of its session.
        session: String,
        /// The message.
        message: Message,
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
    /// Which users are here.
    Users {
        /// Which are wanted.
        wanted: Arc<WantedUsers>,
        /// Where the answer goes.
        answer: mpsc::UnboundedSender<UsersHere>,
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

/// A message that came by a request of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// Commands (centrifuge dialect).
    Commands(Bytes),
    /// Something for the backend, of any content (plain dialect).
    Content {
        /// The content.
        data: Bytes,
        /// It came as text, and is UTF-8.
        is_text: bool,
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

    /// Whether there is a shard of this number.
    pub fn has_shard(&self, shard: u32) -> bool {
        (shard as usize) < self.switchboard.shards()
    }

    /// The mailbox of a shard, once it has room; `None` if there is no such shard.
    ///
    /// Whoever gives a link away does so without waiting in between.
    pub async fn room_at(&self, shard: u32) -> Option<Arc<Mailbox<Control>>> {
        let mailbox = self.switchboard.0.get(shard as usize)?.clone();
        mailbox.room().await;
        Some(mailbox)
    }

    /// Takes a message to the session of that name.
    pub async fn relay(&self, session: String, message: Message) -> Relayed {
        let shard = SessionPlace::of_name(&session).map(|place| place.shard as usize);
        let Some(mailbox) = shard.and_then(|shard| self.switchboard.0.get(shard)) else {
            return Relayed::Unknown;
        };
        let (answer, mut answers) = mpsc::unbounded_channel();
        mailbox.room().await;
        mailbox.push(Control::Message { session, message, answer });
        answers.recv().await.unwrap_or(Relayed::Unknown)
    }

    /// Begins a server-side subscription for everybody in `target`, and returns when it has begun: what is published
    /// after that is heard by all of them, except by who is still being welcomed.
    ///
    /// # Errors
    /// As [`channel_options`](Node::channel_options).
    pub async fn order_subscribe(&self, target: Target, subscribe: ServerSubscribe) -> Result<(), ErrorCode> {
        self.channel_options(&subscribe.channel)?;
        let (begun, mut beginning) = mpsc::unbounded_channel();
        self.order(Control::Subscribe { target, subscribe: Arc::new(subscribe), begun }).await;
        // Nothing is sent: it ends when nobody can send.
        while beginning.recv().await.is_some() {}
        Ok(())
    }

    /// Gives connections a direct message.
    pub async fn send(&self, recipients: Recipients, data: Bytes, is_json: bool) -> Handed {
        let (answer, mut answers) = mpsc::unbounded_channel();
        let message = Arc::new(Delivery::new("".into(), What::Message { data, is_json }, None));
        self.order(Control::Send { recipients: Arc::new(recipients), message, answer }).await;
        let mut sum = Handed::default();
        while let Some(part) = answers.recv().await {
            sum.taken += part.taken;
            sum.refused += part.refused;
        }
        sum
    }

    /// Makes a connection another user's; an empty one is the anonymous user.
    ///
    /// # Errors
    /// `NotFound` if it is not here, `LimitExceeded` if the user has as many connections as there may be, or one of the
    /// same client name that is to keep it.
    pub async fn bind(&self, client: ClientId, user: Arc<str>) -> Result<(), ErrorCode> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.order(Control::Bind { client, user, answer }).await;
        answers.recv().await.unwrap_or(Err(BindError::NotFound)).map_err(|error| match error {
            BindError::NotFound => ErrorCode::NotFound,
            BindError::Full | BindError::InUse => ErrorCode::LimitExceeded,
        })
    }

    /// Changes what the backend keeps with a connection; what is kept then, empty for nothing.
    ///
    /// # Errors
    /// `NotFound` if it is not here, `LimitExceeded` if it would be more than may be kept, `BadRequest` if members are
    /// to be put into what is no object.
    pub async fn keep_data(&self, client: ClientId, change: DataChange) -> Result<Bytes, ErrorCode> {
        let (answer, mut answers) = mpsc::unbounded_channel();
        self.order(Control::KeepData { client, change, answer }).await;
        answers.recv().await.unwrap_or(Err(ErrorCode::NotFound))
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
