//! The client's half of the centrifuge dialect, in JSON.
//!
//! [`encode_command`] writes what a client asks, [`decode_next`] reads what the server says: replies, pushes and
//! heartbeats. The types are not those of the server's half: what is written here is borrowed, and what is read may come
//! from any server of the protocol, so that epochs and clients' names are text, and what is unknown is passed over.
//!
//! Payloads, channels and names are slices of the message, never copied: they keep it in memory for as long as they
//! live. What is not here: which reply answers what, and what it changes, is the business of whoever asked.
//!
//! What must stay true: nothing that a server sends makes it panic, and what is kept of a message is bounded by its
//! bytes and [`MAX_ENTRIES`].

mod command;
mod delta;
mod reply;

pub use super::DecodeError;
pub use command::{Command, Connect, PONG, Since, Subscribe, encode_command, encode_emulation};
pub use delta::resolve;
pub use reply::{decode_line, decode_next};

use crate::text::Text;
use bytes::Bytes;

/// How many entries the lists and maps of one line may have in all: publications, tags, clients, subscriptions.
pub const MAX_ENTRIES: usize = 131_072;

/// One thing that the server says.
#[derive(Clone, PartialEq, Debug)]
pub enum Said {
    /// A heartbeat. Answered with [`PONG`] where the connect result says so.
    Ping,
    /// The answer to a command.
    Reply {
        /// The number of the command.
        id: u32,
        /// The answer.
        reply: Reply,
    },
    /// Something unasked.
    Push {
        /// The channel that it is about; empty if it is about the whole connection.
        channel: Text,
        /// What.
        push: Push,
    },
}

/// The answer to a command.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// The command was refused.
    Error(Refusal),
    /// The session is established.
    Connect(Box<ConnectResult>),
    /// The subscription is established.
    Subscribe(Box<SubscribeResult>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was accepted.
    Publish,
    /// Who is in the channel, sorted as the server wrote it.
    Presence(Vec<ClientInfo>),
    /// How many are in the channel.
    PresenceStats {
        /// Connections.
        num_clients: u32,
        /// Distinct users.
        num_users: u32,
    },
    /// Retained publications.
    History(History),
    /// What the backend answered.
    Rpc {
        /// Raw JSON; empty if absent.
        data: Bytes,
    },
    /// The connection lives on.
    Refresh {
        /// Seconds until the next refresh; `None` if it does not expire.
        ttl_seconds: Option<u32>,
    },
    /// The subscription lives on.
    SubRefresh {
        /// Seconds until the next refresh; `None` if it does not expire.
        ttl_seconds: Option<u32>,
    },
    /// A result that is not known here.
    Unknown,
}

/// Why a command was refused (centrifuge protocol, section 9.1).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refusal {
    /// The number.
    pub code: u32,
    /// The text.
    pub message: Text,
    /// Whether trying again may help, as the server says.
    pub temporary: bool,
}

impl Refusal {
    /// The code that asks for a fresh token.
    pub const TOKEN_EXPIRED: u32 = 109;

    /// The code of a position that cannot be recovered from.
    pub const UNRECOVERABLE: u32 = 112;

    /// Whether SDKs try again by themselves: temporary, or cured by a fresh token.
    pub fn is_passing(&self) -> bool {
        self.code < 100 || self.temporary || self.code == Refusal::TOKEN_EXPIRED
    }
}

/// The result of a connect command.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnectResult {
    /// The connection, as others see it.
    pub client: Text,
    /// Version of the server.
    pub version: Text,
    /// Seconds until the client must refresh; `None` if it need not.
    pub ttl_seconds: Option<u32>,
    /// Raw JSON from the backend; empty if absent.
    pub data: Bytes,
    /// Server-side subscriptions: channel and state.
    pub subs: Vec<(Text, SubscribeResult)>,
    /// Seconds between heartbeats of the server; 0 if it sends none.
    pub ping_seconds: u32,
    /// Whether the client must answer them.
    pub pong: bool,
    /// By what further requests beside a stream name this connection; empty where none need to.
    pub session: Text,
    /// The node that such requests are for; empty where `session` is.
    pub node: Text,
}

/// The result of a subscribe command, and the state of a server-side subscription.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SubscribeResult {
    /// Seconds until the client must refresh; `None` if it need not.
    pub ttl_seconds: Option<u32>,
    /// The position can be used to recover.
    pub recoverable: bool,
    /// The server watches every offset.
    pub positioned: bool,
    /// Number of the newest publication; upon a recovery that succeeded, of the one asked for.
    pub offset: u64,
    /// Identity of the numbering, in the server's very text; empty if there are no positions.
    pub epoch: Text,
    /// The client asked for recovery.
    pub was_recovering: bool,
    /// Everything that was missed is in `publications`.
    pub recovered: bool,
    /// What was missed, oldest first.
    pub publications: Vec<Publication>,
    /// Raw JSON from the backend; empty if absent.
    pub data: Bytes,
    /// Data of publications is a string, whole or a difference: see [`resolve`].
    pub delta: bool,
}

/// Data published to a channel.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Publication {
    /// Number within the channel's epoch; 0 in a channel without history.
    pub offset: u64,
    /// Raw JSON; empty if absent. A string where differences were agreed upon: see [`resolve`].
    pub data: Bytes,
    /// Who published, if a client did.
    pub info: Option<Box<ClientInfo>>,
    /// Tags, in the order in which they came.
    pub tags: Vec<(Text, Text)>,
    /// The data is a difference to that of the publication before.
    pub delta: bool,
}

/// Who a client is.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClientInfo {
    /// Who the client says it is; empty for an anonymous one.
    pub user: Text,
    /// The connection.
    pub client: Text,
    /// Raw JSON from the connection token; empty if absent.
    pub conn_info: Bytes,
    /// Raw JSON from the subscription token; empty if absent.
    pub chan_info: Bytes,
}

/// Retained publications.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    /// The asked-for part.
    pub publications: Vec<Publication>,
    /// Number of the newest publication.
    pub offset: u64,
    /// Identity of the numbering.
    pub epoch: Text,
}

/// Something the server says unasked.
#[derive(Clone, PartialEq, Debug)]
pub enum Push {
    /// A publication in a channel.
    Publication(Publication),
    /// A client came.
    Join(ClientInfo),
    /// A client went.
    Leave(ClientInfo),
    /// The server ended the subscription.
    Unsubscribe {
        /// 2500 and above: subscribe again; below: it is over.
        code: u32,
        /// Text for people.
        reason: Text,
    },
    /// The server began a subscription.
    Subscribe(Box<SubscribeResult>),
    /// Data from the backend for this client, outside of any channel.
    Message {
        /// Raw JSON; empty if absent.
        data: Bytes,
    },
    /// The connection is established (transports without a way back).
    Connect(Box<ConnectResult>),
    /// The connection lives on, by order of the backend.
    Refresh {
        /// Seconds until it expires; `None` if it does not.
        ttl_seconds: Option<u32>,
    },
    /// The connection ends (transports without a close frame).
    Disconnect {
        /// From the table of close codes, or a backend's own.
        code: u32,
        /// Text for people.
        reason: Text,
    },
    /// Something that is not known here.
    Unknown,
}
