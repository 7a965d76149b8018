//! The plain dialect over packets: a socket of a listener that speaks no HTTP becomes a connection as it is.
//!
//! Nothing is read here: how packets end, and what the first one means, is decided by the connection, and how long the
//! first one may take by the session (`client.connect_timeout`). What must stay true: a socket is held to the limits of
//! its address as a request for a stream is.

use super::listening::Listening;
use crate::node::limits::{Full, network_of};
use crate::shard::{Link, Shard};
use longwire_protocol::Connection;
use longwire_protocol::command::Connect;
use longwire_protocol::plain::{self, Carrier};
use std::rc::Rc;

/// Lets a connection run, unless its address has too many or opens them too fast.
pub(super) fn open(shard: &Rc<Shard>, mut link: Link, listening: &Listening) {
    let (peer, node) = (link.peer, &shard.node);
    let address = peer.ip();
    if let Err(Full::Address | Full::Total) = link.place.count_address(address) {
        return refuse(&link, "there are too many connections from this address");
    }
    if let (Some(rates), Some(ip)) = (&node.rates.connects, link.place.address())
        && rates.allow(node.running_for(), &network_of(ip)).is_err()
    {
        return refuse(&link, "this address opens connections too fast");
    }
    let opening = plain::Opening {
        connect: Connect { name: "tcp".into(), ..Connect::default() },
        subscribes: Vec::new(),
        carrier: Carrier::Tcp {
            framing: listening.framing,
            max_packet_bytes: listening.max_packet_bytes,
            first_packet: listening.first_packet,
        },
        format: listening.format,
        beats: listening.beats.clone(),
    };
    let (client, spread) = shard.draw();
    let connection = Connection::plain(opening, node.env.clock.now(), &listening.intervals, spread);
    shard.open(connection, client, link, None, bytes::Bytes::new(), &[]);
}

/// Closes at once: a client that speaks packets would not understand more.
fn refuse(link: &Link, what: &str) {
    tracing::info!(peer = %link.peer, what, "connection refused");
    link.stream.abort_on_drop();
}
