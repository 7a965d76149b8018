//! What a program hears from a realtime client: publications, how subscriptions stand, what happens to the connection.
//!
//! Data, tags and names are slices of the message in which they came, never copied: whoever keeps one of them for long
//! keeps the message, and may want to copy it out. Plain values; [`state`](super::state) makes them, readers take them. What must stay true: whatever was missed is told
//! by an event ([`Event::Recovered`] or [`Event::NotRecovered`]) before anything newer than the loss.

use crate::transition::Transition;
use bytes::Bytes;
use longwire_protocol::Text;
use std::fmt;
use std::sync::Arc;

pub use longwire_protocol::centrifuge::client::ClientInfo;

/// A place in a channel: what to return with to get what was missed.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Position {
    /// Number of the last publication that was seen; 0 means "before the first".
    pub offset: u64,
    /// Identity of the numbering, as the server wrote it.
    pub epoch: Arc<str>,
}

/// What happens in a subscription.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server confirmed the subscription, for the first time or again after a break.
    Subscribed(Subscribed),
    /// Data.
    Publication(Publication),
    /// Nothing is missing since the break: the next so many publications are what was missed.
    Recovered {
        /// How many; 0 if nothing was published meanwhile.
        publications: usize,
    },
    /// Publications may be missing, and nobody can bring them: load the state anew.
    NotRecovered {
        /// Up to where everything was seen; `None` in a channel without history.
        from: Option<Position>,
        /// From where on everything is seen again; `None` in a channel without history.
        to: Option<Position>,
    },
    /// A client came.
    Join(Box<ClientInfo>),
    /// A client went.
    Leave(Box<ClientInfo>),
    /// The subscription ended.
    Unsubscribed {
        /// The server's code: that of its push or of its refusal.
        code: u32,
        /// The server's words.
        reason: Text,
        /// Nothing follows. Otherwise the client subscribes again.
        is_final: bool,
    },
}

/// What the server said when it confirmed a subscription.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subscribed {
    /// Where the reader stands; `None` in a channel without history.
    pub position: Option<Position>,
    /// It is not the first time.
    pub again: bool,
    /// Breaks can be recovered from.
    pub recoverable: bool,
    /// Publications travel as differences.
    pub delta: bool,
    /// Raw JSON from the token or the backend; empty if there is none.
    pub data: Bytes,
}

/// Data published to a channel.
#[derive(Clone, PartialEq, Debug)]
pub struct Publication {
    /// Number in the channel; 0 in one without history.
    pub offset: u64,
    /// Identity of the numbering; empty in a channel without history.
    pub epoch: Arc<str>,
    /// Raw JSON.
    pub data: Bytes,
    /// Tags, as the publisher set them.
    pub tags: Vec<(Text, Text)>,
    /// Who published, if a client did.
    pub info: Option<Box<ClientInfo>>,
}

impl Publication {
    /// The publication's place; `None` in a channel without history.
    pub fn position(&self) -> Option<Position> {
        (self.offset > 0).then(|| Position { offset: self.offset, epoch: self.epoch.clone() })
    }
}

/// What happens to a client, outside of the subscriptions that the program began.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The connection took a step.
    Transition(Transition),
    /// Something happened in a subscription that the server began.
    ServerSide {
        /// The channel.
        channel: Arc<str>,
        /// What.
        event: Event,
    },
    /// The backend sent data to this client alone: raw JSON.
    Message(Bytes),
    /// The reader was so far behind that events were left out.
    Missed {
        /// How many.
        events: u64,
    },
}

/// A part of a channel's history.
#[derive(Clone, PartialEq, Debug)]
pub struct History {
    /// In the order that was asked for.
    pub publications: Vec<Publication>,
    /// Where the channel stands.
    pub position: Position,
}

/// Which part of a channel's history is wanted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HistoryQuery {
    pub(super) limit: i32,
    pub(super) since: Option<Position>,
    pub(super) reverse: bool,
}

impl HistoryQuery {
    /// Asks for the channel's position alone.
    pub fn position() -> HistoryQuery {
        HistoryQuery::default()
    }

    /// Asks for at most so many publications.
    pub fn limit(limit: u32) -> HistoryQuery {
        HistoryQuery { limit: i32::try_from(limit).unwrap_or(i32::MAX), ..HistoryQuery::default() }
    }

    /// Asks for everything that the server keeps and gives at once.
    pub fn all() -> HistoryQuery {
        HistoryQuery { limit: -1, ..HistoryQuery::default() }
    }

    /// Of these, what comes after a position; before it, if reversed.
    #[must_use]
    pub fn since(mut self, position: Position) -> HistoryQuery {
        self.since = Some(position);
        self
    }

    /// Newest first.
    #[must_use]
    pub fn reverse(mut self) -> HistoryQuery {
        self.reverse = true;
        self
    }
}

/// How many are in a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PresenceStats {
    /// Connections.
    pub clients: u32,
    /// Distinct users.
    pub users: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.offset, self.epoch)
    }
}
