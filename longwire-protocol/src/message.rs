//! What the server says to a client: replies to its commands, and pushes.
//!
//! Payloads are raw JSON in shared [`Bytes`]. The wire form of each is the business of a dialect.

use crate::close::Close;
use crate::error_code::ErrorCode;
use crate::position::Position;
use crate::queue::{QueueError, QueuePush};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Identity of one connection of a client: 128 random bits, a UUID on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u128);

impl ClientId {
    /// Makes a version 4 UUID (RFC 9562 section 5.4) of 128 random bits.
    pub fn from_random(bits: u128) -> ClientId {
        ClientId(bits & !(0xf << 76) & !(0b11 << 62) | 0x4 << 76 | 0b10 << 62)
    }

    /// Reads a UUID in its usual form; `None` for anything else, which names no client of ours.
    pub fn parse(text: &str) -> Option<ClientId> {
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&i| bytes[i] != b'-') {
            return None;
        }
        let mut value = 0u128;
        for (i, byte) in bytes.iter().enumerate() {
            if ![8, 13, 18, 23].contains(&i) {
                value = value << 4 | u128::from((*byte as char).to_digit(16)?);
            }
        }
        Some(ClientId(value))
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (v >> 96) as u32,
            (v >> 80) as u16,
            (v >> 64) as u16,
            (v >> 48) as u16,
            v & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who a client is, as other clients see it in presence, joins, leaves and publications.
#[derive(Clone, PartialEq, Debug)]
pub struct ClientInfo {
    /// Who the client says it is; empty for an anonymous one.
    pub user: Arc<str>,
    /// The connection.
    pub client: ClientId,
    /// Raw JSON from the connection token; empty if absent.
    pub conn_info: Bytes,
    /// Raw JSON from the subscription token; empty if absent.
    pub chan_info: Bytes,
}

/// Data published to a channel.
#[derive(Clone, PartialEq, Debug)]
pub struct Publication {
    /// Number within the channel's epoch; 0 in a channel without history.
    pub offset: u64,
    /// Raw JSON, unless `is_json` says otherwise.
    pub data: Bytes,
    /// Who published, if a client did.
    pub info: Option<Arc<ClientInfo>>,
    /// Tags for filters, sorted by key; mostly empty.
    pub tags: Vec<(String, String)>,
    /// Who is not to get it; never on the wire.
    pub except: Option<Box<Except>>,
    /// Whether the data is JSON, found out once when it was published; never on the wire. Other data goes as it is to
    /// connections that carry bytes, and as a string to others, if it is text.
    pub is_json: bool,
}

impl Publication {
    /// The data as JSON, which other data than text is not.
    pub fn json(&self) -> Bytes {
        if self.is_json {
            return self.data.clone();
        }
        let mut json = Vec::with_capacity(self.data.len() + 2);
        crate::json::write_string(&String::from_utf8_lossy(&self.data), &mut json);
        json.into()
    }
}

/// Who is not to get a publication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Except {
    /// This connection.
    pub client: Option<ClientId>,
    /// All connections of this user.
    pub user: Option<Arc<str>>,
}

impl Except {
    /// Whether a connection is left out.
    pub fn covers(&self, user: &str, client: ClientId) -> bool {
        self.client == Some(client) || self.user.as_deref() == Some(user)
    }
}

/// The answer to one command.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// The command was refused.
    Error(ReplyError),
    /// The session is established.
    Connect(Box<ConnectResult>),
    /// The subscription is established.
    Subscribe(Box<SubscribeResult>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was accepted.
    Publish,
    /// Who is in the channel.
    Presence(Vec<Arc<ClientInfo>>),
    /// How many are in the channel.
    PresenceStats {
        /// Connections.
        num_clients: u32,
        /// Distinct users.
        num_users: u32,
    },
    /// Retained publications.
    History {
        /// The asked-for part.
        publications: Vec<Arc<Publication>>,
        /// The position of the newest publication.
        top: Position,
    },
    /// What the backend answered.
    Rpc {
        /// Raw JSON.
        data: Bytes,
    },
    /// What was asked of queues is done, or why not.
    Queue(Result<(), QueueError>),
    /// Everything that the client said before it left was dealt with.
    Disconnect,
    /// The connection lives on.
    Refresh {
        /// The connection.
        client: ClientId,
        /// Version of the server.
        version: &'static str,
        /// Seconds until the next refresh; `None` if it does not expire.
        ttl_seconds: Option<u32>,
    },
    /// The subscription lives on.
    SubRefresh {
        /// Seconds until the next refresh; `None` if it does not expire.
        ttl_seconds: Option<u32>,
    },
}

/// Why a command was refused, as the client reads it.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplyError {
    /// The number; from the table of [`ErrorCode`], or 400 to 1999 from a backend.
    pub code: u32,
    /// The text.
    pub message: Cow<'static, str>,
    /// Whether trying again may help.
    pub temporary: bool,
}

impl From<ErrorCode> for ReplyError {
    fn from(code: ErrorCode) -> ReplyError {
        ReplyError { code: code.code(), message: Cow::Borrowed(code.text()), temporary: code.is_temporary() }
    }
}

impl From<ErrorCode> for Reply {
    fn from(code: ErrorCode) -> Reply {
        Reply::Error(code.into())
    }
}

/// The result of a connect command.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectResult {
    /// The connection.
    pub client: ClientId,
    /// Version of the server.
    pub version: &'static str,
    /// Seconds until the client must refresh; `None` if it need not.
    pub ttl_seconds: Option<u32>,
    /// Raw JSON from the backend; empty if absent.
    pub data: Bytes,
    /// Server-side subscriptions.
    pub subs: Vec<(String, SubscribeResult)>,
    /// Seconds between heartbeats of the server; 0 if it sends none.
    pub ping_seconds: u32,
    /// Whether the client must answer them.
    pub pong: bool,
    /// By what the client's further requests, and the backend's, name this connection; empty where no request
    /// needs to. Whoever knows it may speak for the client.
    pub session: String,
    /// The node that such requests are for; empty where `session` is.
    pub node: String,
    /// The session was there before, without a link: the client took it over.
    pub resumed: bool,
    /// Something that was sent to the client alone may be lost (plain dialect).
    pub lost: bool,
}

/// The result of a subscribe command.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SubscribeResult {
    /// Seconds until the client must refresh; `None` if it need not.
    pub ttl_seconds: Option<u32>,
    /// The position can be used to recover.
    pub recoverable: bool,
    /// The server watches every offset.
    pub positioned: bool,
    /// Where the subscription stands: on recovery the asked-for position, otherwise the newest.
    pub position: Option<Position>,
    /// The client asked for recovery.
    pub was_recovering: bool,
    /// Everything that was missed is in `publications`.
    pub recovered: bool,
    /// What was missed, oldest first; empty unless `recovered`.
    pub publications: Vec<Arc<Publication>>,
    /// Raw JSON from the subscription token or the backend; empty if absent.
    pub data: Bytes,
    /// Publications, the recovered ones included, come as differences where that is shorter.
    pub delta: bool,
}

/// Something the server says unasked.
#[derive(Clone, PartialEq, Debug)]
pub enum Push {
    /// A publication in a channel.
    Publication(Arc<Publication>),
    /// A publication for a subscriber that agreed to differences (centrifuge protocol, section 7).
    Delta {
        /// The publication.
        publication: Arc<Publication>,
        /// The data of the publication that the subscriber had last, in the form in which it had it, if the difference
        /// is to be to that.
        base: Option<Bytes>,
    },
    /// A client came.
    Join(Arc<ClientInfo>),
    /// A client went.
    Leave(Arc<ClientInfo>),
    /// The server ended the subscription.
    Unsubscribe {
        /// 2500 and above: subscribe again; below: it is over.
        code: u32,
        /// Text for people.
        reason: &'static str,
    },
    /// The server began a subscription.
    Subscribe(Box<SubscribeResult>),
    /// Data from the backend for this client, outside of any channel.
    Message {
        /// Raw JSON, unless `is_json` says otherwise.
        data: Bytes,
        /// Whether the data is JSON; other data goes to connections that carry bytes as they are.
        is_json: bool,
    },
    /// Something from a queue (STOMP).
    Queue(QueuePush),
    /// The connection is established (transports without a way back).
    Connect(Box<ConnectResult>),
    /// The connection lives on, by order of the backend.
    Refresh {
        /// Seconds until it expires; `None` if it does not.
        ttl_seconds: Option<u32>,
    },
    /// The connection ends (transports without a close frame).
    Disconnect(Close),
}

/// Codes of an unsubscribe push (centrifuge protocol, section 9.2).
pub mod unsubscribe {
    /// The client gave it up; told to the backend alone.
    pub const CLIENT: (u32, &str) = (0, "client unsubscribed");
    /// The connection ended; told to the backend alone.
    pub const DISCONNECT: (u32, &str) = (1, "disconnected");
    /// The backend ended the subscription.
    pub const SERVER: (u32, &str) = (2000, "server unsubscribe");
    /// A publication is missing; subscribing again recovers it.
    pub const INSUFFICIENT_STATE: (u32, &str) = (2500, "insufficient state");
    /// The subscription's token ran out.
    pub const EXPIRED: (u32, &str) = (2501, "subscription expired");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_survives_its_text() {
        let id = ClientId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(id.to_string(), "01234567-89ab-4def-8123-456789abcdef");
        assert_eq!(ClientId::parse(&id.to_string()), Some(id));
        assert_eq!(ClientId::parse("01234567-89ab-4def-8123-456789abcdeg"), None);
        assert_eq!(ClientId::parse(""), None);
    }
}
