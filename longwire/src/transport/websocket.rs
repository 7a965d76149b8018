//! The centrifuge dialect over WebSocket: from a request's head to a running connection.

use super::front_door::{FrontDoor, Refused};
use crate::config::Config;
use crate::env::net::Stream;
use crate::node::limits::Place;
use crate::shard::Shard;
use longwire_protocol::Connection;
use longwire_protocol::http::RequestHead;
use longwire_protocol::websocket::handshake;
use std::net::SocketAddr;
use std::rc::Rc;

/// Where it is served.
pub const PATH: &str = "/connection/websocket";

/// The subprotocols that can be asked for; asking for none means the same.
const SUBPROTOCOLS: &[&str] = &["centrifuge-json"];

/// A handshake that succeeded.
pub struct Opening {
    response: Vec<u8>,
    is_deflated: bool,
    /// Where in the bytes that were read the head ends.
    consumed: usize,
}

impl Opening {
    /// Judges a request for this transport.
    pub(super) fn judge(
        head: &RequestHead<'_>,
        consumed: usize,
        door: &FrontDoor,
        config: &Config,
    ) -> Result<Opening, Refused> {
        let wants_protobuf = |(name, value): &(std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
            matches!(&**name, "cf_protocol" | "format") && value == "protobuf"
        };
        if head.query_pairs().any(|pair| wants_protobuf(&pair)) {
            return Err(Refused::new(400, "this server speaks centrifuge JSON here, not protobuf"));
        }
        let options = handshake::Options {
            allowed_origins: &door.allowed_origins,
            subprotocols: SUBPROTOCOLS,
            allow_deflate: config.websocket.compression,
        };
        match handshake::accept(head, &options) {
            Ok(accept) => Ok(Opening { response: accept.response, is_deflated: accept.deflate, consumed }),
            Err(refusal) if refusal.status == 403 => Err(super::front_door::foreign_origin(head)),
            Err(refusal) => Err(Refused { response: refusal.response(), what: refusal.text.into() }),
        }
    }

    /// Lets the connection run; `bytes` are those that were read.
    pub(super) fn open(
        self,
        shard: &Rc<Shard>,
        stream: Stream,
        peer: SocketAddr,
        place: Place,
        bytes: &[u8],
    ) {
        let config = &shard.node.config;
        let (client, spread) = shard.draw();
        let connection = Connection::centrifuge_json(
            self.is_deflated,
            u32::try_from(config.websocket.max_message_bytes).unwrap_or(u32::MAX),
            shard.node.env.clock.now(),
            &config.heartbeat,
            spread,
        );
        let link = crate::shard::Link { stream, peer, place };
        shard.open(connection, client, link, self.response.into(), &bytes[self.consumed..]);
    }
}
