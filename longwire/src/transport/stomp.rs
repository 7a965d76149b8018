//! STOMP: from a socket, or a WebSocket's handshake, to a running connection.
//!
//! A listener of the protocol `stomp` speaks it over TCP and TLS; one of `http` over WebSocket, whose messages are pieces
//! of the same stream of bytes. Nothing is read here: who speaks HTTP or TLS to a socket of STOMP is found out by the
//! connection. What must stay true: a socket is held to the limits of its address as a request for a stream is.

use super::front_door::{Refused, captured_headers};
use crate::config::Config;
use crate::node::Node;
use crate::node::limits::{Full, network_of};
use crate::shard::{Link, Shard};
use bytes::Bytes;
use longwire_protocol::http::RequestHead;
use longwire_protocol::stomp::{self, Carrier, Limits, Names};
use longwire_protocol::websocket::handshake;
use longwire_protocol::{CloseReason, Connection};
use std::rc::Rc;
use std::sync::Arc;

/// Where WebSockets are served, and where clients of SockJS look for its transport without framing.
pub const PATHS: [&str; 2] = ["/stomp", "/stomp/websocket"];

/// The subprotocols, the best first.
const SUBPROTOCOLS: [&str; 3] = ["v12.stomp", "v11.stomp", "v10.stomp"];

/// What all connections have in common.
#[derive(Clone, Debug)]
pub struct Terms {
    limits: Arc<Limits>,
    names: Arc<Names>,
}

impl Terms {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Terms {
        let names = Names {
            server: concat!("longwire/", env!("CARGO_PKG_VERSION")).into(),
            hosts: config.stomp.virtual_hosts.iter().cloned().collect(),
        };
        Terms { limits: Arc::new(config.stomp.limits()), names: Arc::new(names) }
    }

    fn connection(&self, shard: &Shard, carrier: Carrier, spread: f64) -> Connection {
        let opening = stomp::Opening { carrier, limits: self.limits.clone(), names: self.names.clone() };
        Connection::stomp(opening, shard.node.env.clock.now(), spread)
    }
}

/// Lets a connection run, unless its address has too many or opens them too fast.
pub(super) fn open(shard: &Rc<Shard>, mut link: Link, terms: &Terms) {
    let (peer, node) = (link.peer, &shard.node);
    if let Err(Full::Address | Full::Total) = link.place.count_address(peer.ip()) {
        return turn_away(&link, "there are too many connections from this address");
    }
    if let (Some(rates), Some(ip)) = (&node.rates.connects, link.place.address())
        && rates.allow(node.running_for(), &network_of(ip)).is_err()
    {
        return turn_away(&link, "this address opens connections too fast");
    }
    link.stream.outlast_silence();
    let (client, spread) = shard.draw();
    let connection = terms.connection(shard, Carrier::Tcp, spread);
    shard.open(connection, client, link, None, Bytes::new(), &[]);
}

/// What a socket is told for which there is no place: a frame without escapes, which any version reads. Its body says that
/// it may come again, as that of any ERROR does.
pub fn refusal(what: &str) -> Vec<u8> {
    let reason = CloseReason::Full;
    let body = format!("{what}\n\n{} ({} {})\n", reason.explanation(), reason.code(), reason.text());
    let length = body.len();
    format!("ERROR\nmessage:{what}\ncontent-type:text/plain\ncontent-length:{length}\n\n{body}\0")
        .into_bytes()
}

/// Closes at once.
fn turn_away(link: &Link, what: &str) {
    tracing::info!(peer = %link.peer, what, "connection refused");
    link.stream.abort_on_drop();
}

/// The best subprotocol that a request for a WebSocket offers.
pub(super) fn offered(head: &RequestHead<'_>) -> Option<&'static str> {
    let is_offered = |name: &&&str| head.headers.has_token("sec-websocket-protocol", name);
    SUBPROTOCOLS.iter().find(is_offered).copied()
}

/// A handshake that succeeded.
pub struct Opening {
    response: Vec<u8>,
    is_deflated: bool,
    /// Headers that a backend is to get.
    headers: Option<Box<[(String, String)]>>,
    /// Where in the bytes that were read the head ends.
    consumed: usize,
}

impl Opening {
    /// Judges a request for a WebSocket. One that offers no subprotocol of STOMP gets none, and is served all the same.
    pub(super) fn judge(head: &RequestHead<'_>, consumed: usize, node: &Node) -> Result<Opening, Refused> {
        let chosen = offered(head);
        let options = handshake::Options {
            allowed_origins: &node.allowed_origins,
            subprotocols: chosen.as_slice(),
            allow_deflate: node.config.websocket.compression,
        };
        match handshake::accept(head, &options) {
            Ok(accept) => Ok(Opening {
                response: accept.response,
                is_deflated: accept.deflate,
                headers: captured_headers(head, &node.config),
                consumed,
            }),
            Err(refusal) if refusal.status == 403 => Err(super::front_door::foreign_origin(head)),
            Err(refusal) => Err(Refused { response: refusal.response(), what: refusal.text.into() }),
        }
    }

    /// Lets the connection run; `bytes` are those that were read.
    pub(super) fn open(self, shard: &Rc<Shard>, link: Link, terms: &Terms, bytes: &[u8]) {
        link.stream.outlast_silence();
        let (client, spread) = shard.draw();
        // A message may be one whole frame.
        let limits = &terms.limits;
        let max_message_bytes = limits.max_head_bytes.saturating_add(limits.max_body_bytes).saturating_add(1);
        let carrier = Carrier::WebSocket {
            is_deflated: self.is_deflated,
            max_message_bytes: u32::try_from(max_message_bytes).unwrap_or(u32::MAX),
        };
        let connection = terms.connection(shard, carrier, spread);
        shard.open(connection, client, link, self.headers, self.response.into(), &bytes[self.consumed..]);
    }
}
