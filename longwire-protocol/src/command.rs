//! What a client asks for, whatever dialect it asks in.
//!
//! Payloads are raw JSON in shared [`Bytes`], sliced out of the message they came in, never parsed.

use crate::filter;
use crate::position::{Position, Since};
use crate::queue::QueueCommand;
use bytes::Bytes;

/// One command and the number that its reply must carry.
#[derive(Clone, PartialEq, Debug)]
pub struct Numbered {
    /// Chosen by the client; 0 where no reply is wanted.
    pub id: u32,
    /// What is asked.
    pub command: Command,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Establish the session; must be the first.
    Connect(Box<Connect>),
    /// Take interest in a channel.
    Subscribe(Box<Subscribe>),
    /// Lose interest in a channel.
    Unsubscribe {
        /// The channel.
        channel: String,
    },
    /// Publish into a channel.
    Publish {
        /// The channel.
        channel: String,
        /// Raw JSON; empty if it was absent.
        data: Bytes,
        /// Kind of channel; 0 is a stream, the only kind that longwire has.
        kind: i32,
        /// What the publication carries beside its data, sorted by key (STOMP); empty elsewhere.
        tags: Vec<(String, String)>,
    },
    /// Something about queues (STOMP). It is answered when it is done; what follows does not wait for that.
    Queue(QueueCommand),
    /// Leave, once everything before is answered (STOMP).
    Disconnect,
    /// Who is in a channel.
    Presence {
        /// The channel.
        channel: String,
    },
    /// How many are in a channel.
    PresenceStats {
        /// The channel.
        channel: String,
    },
    /// Retained publications of a channel.
    History(HistoryRequest),
    /// Call a method of the backend.
    Rpc {
        /// Name of the method; may be empty.
        method: String,
        /// Raw JSON; empty if it was absent.
        data: Bytes,
    },
    /// Tell the backend something, without a reply.
    Send {
        /// Raw JSON.
        data: Bytes,
    },
    /// A message for the backend, of any content (plain dialect).
    Message {
        /// The content.
        data: Bytes,
        /// It came as text, and is UTF-8.
        is_text: bool,
    },
    /// Prolong the connection with a fresh token.
    Refresh {
        /// The fresh token.
        token: String,
    },
    /// Prolong a subscription with a fresh token.
    SubRefresh {
        /// The channel.
        channel: String,
        /// The fresh token.
        token: String,
        /// What is done; 0 refreshes, the only thing that longwire has.
        kind: i32,
    },
    /// A ping of the first protocol version, which no current SDK sends.
    Ping,
    /// The answer to a heartbeat of ours.
    Pong,
}

/// The fields of a connect command.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Connect {
    /// Connection token (JWT); empty if absent.
    pub token: String,
    /// Raw JSON for the backend; empty if absent.
    pub data: Bytes,
    /// Name of the SDK.
    pub name: String,
    /// Version of the SDK.
    pub version: String,
    /// Headers that the client names for the backend, which it may forge; in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// Server-side subscriptions that the client had before, with their positions.
    pub subs: Vec<Subscribe>,
    /// The client says where it stood, be it in no channel (plain dialect).
    pub has_since: bool,
    /// The number of the last answer to a long-poll that the client says it got, with the mark of its session (plain
    /// dialect).
    pub answer: Option<Position>,
    /// The same of the last answer that went by the connection on which the client asks again (plain dialect).
    pub carried: Option<Position>,
    /// By what name the client is known to the backend (plain dialect); empty if it gave none.
    pub client_name: String,
    /// The name of the session that the client had, which proves that it is the same (plain dialect); empty if it gave
    /// none.
    pub session: String,
    /// What the client's request asked besides, for the backend (plain dialect); empty if nothing.
    pub query: String,
    /// Name and password (STOMP); empty if absent.
    pub login: String,
    /// The password, or a token in its place (STOMP); empty if absent.
    pub passcode: String,
    /// The virtual host that the client asks for (STOMP); empty if absent.
    pub host: String,
}

/// The fields of a subscribe command.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Subscribe {
    /// The channel.
    pub channel: String,
    /// Subscription token (JWT); empty if absent.
    pub token: String,
    /// Raw JSON for the backend; empty if absent.
    pub data: Bytes,
    /// Where the client stopped, if it wants what it missed.
    pub recover: Option<Since>,
    /// The client asks for a positioned subscription.
    pub positioned: bool,
    /// The client asks for a recoverable subscription.
    pub recoverable: bool,
    /// The client asks for join and leave pushes.
    pub join_leave: bool,
    /// Name of the delta encoding that the client offers; empty if none.
    pub delta: String,
    /// Which publications are wanted, by their tags; `None` if all are.
    pub tags_filter: Option<Box<filter::Node>>,
    /// Answer error 112 rather than `recovered: false` (bit 1 of the protocol's `flag`).
    pub reject_unrecovered: bool,
    /// Kind of subscription; 0 is a stream, the only kind that longwire has.
    pub kind: i32,
}

/// Which part of a channel's history is wanted.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct HistoryRequest {
    /// The channel.
    pub channel: String,
    /// 0: only the position; negative: everything kept; else at most so many publications.
    pub limit: i32,
    /// Publications after (or, reversed, before) this position.
    pub since: Option<Since>,
    /// Newest first.
    pub reverse: bool,
}
