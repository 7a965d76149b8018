//! STOMP 1.0, 1.1 and 1.2: frames, and the dialect that is spoken in them.
//!
//! [`decode`] takes frames from a stream of bytes and [`encode`] writes them; `link` is one connection from its
//! CONNECT to its end, over TCP or WebSocket. A destination is a channel or a queue ([`destination`]), so a frame
//! becomes the commands that all dialects share; what STOMP alone knows (receipts in the order of the frames,
//! transactions, subscriptions by id, names of temporary queues) stays in the link. It keeps no queue, judges no
//! permission and knows no channel.
//!
//! What must stay true: of an ERROR the connection ends; a limit is checked before anything grows; how the stream was
//! cut changes nothing.

mod connect;
pub mod decode;
pub mod destination;
pub mod encode;
pub(crate) mod link;
mod peer;
mod receipts;
mod subscriptions;
mod transaction;
mod version;

pub use encode::Style;
pub use version::Version;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How a connection begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How bytes travel.
    pub carrier: Carrier,
    /// What a peer may make grow.
    pub limits: Arc<Limits>,
    /// What the server calls itself and its parts.
    pub names: Arc<Names>,
}

/// What carries a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// TCP, with or without TLS.
    Tcp,
    /// WebSocket, after its handshake. Its messages are pieces of one stream.
    WebSocket {
        /// The peer takes compressed messages, and may send them.
        is_deflated: bool,
        /// How long a message of the peer may be, of all its fragments together.
        max_message_bytes: u32,
    },
}

/// What a peer may make grow, and how often it may make this end speak.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The first frame, which comes before anybody is known: head and body together.
    pub max_login_bytes: usize,
    /// One line of a frame's head.
    pub max_line_bytes: usize,
    /// Lines of headers in a frame.
    pub max_headers: usize,
    /// A frame's head, its command included.
    pub max_head_bytes: usize,
    /// A frame's body.
    pub max_body_bytes: usize,
    /// Subscriptions at a time, of topics and queues.
    pub max_subscriptions: usize,
    /// Transactions at a time.
    pub max_transactions: usize,
    /// What is sent and acknowledged in one transaction.
    pub max_transaction_actions: usize,
    /// What the open transactions of a connection keep, all together.
    pub max_transaction_bytes: usize,
    /// The shortest interval of signs of life that is agreed upon, either way.
    pub shortest_heartbeat: Duration,
    /// The longest that this end offers.
    pub longest_heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_login_bytes: 64 << 10,
            max_line_bytes: 16 << 10,
            max_headers: 128,
            max_head_bytes: 64 << 10,
            max_body_bytes: 16 << 20,
            max_subscriptions: 4096,
            max_transactions: 64,
            max_transaction_actions: 4096,
            max_transaction_bytes: 64 << 20,
            shortest_heartbeat: Duration::from_secs(1),
            longest_heartbeat: Duration::from_secs(300),
        }
    }
}

/// What the server calls itself and its parts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// The `server` header of CONNECTED: a name, `/` and a version.
    pub server: String,
    /// What stands before the names of channels and queues of those who ask for a virtual host, by its name. Of a host
    /// that is not here nothing does.
    pub hosts: BTreeMap<String, String>,
}
