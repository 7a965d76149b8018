//! The centrifuge dialect over WebSocket, with a way back or without: from a request's head to a running
//! connection.
//!
//! The subprotocol, or a parameter, says whether messages are JSON or Protobuf; other parameters whether beats
//! are ping frames and, without a way back, what the connect request is.

use super::front_door::{Refused, captured_headers};
use crate::node::Node;
use crate::shard::Shard;
use bytes::Bytes;
use longwire_protocol::Connection;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::centrifuge::link::{Beats, Link};
use longwire_protocol::http::RequestHead;
use longwire_protocol::websocket::handshake;
use std::rc::Rc;

/// Where it is served.
pub const PATH: &str = "/connection/websocket";
/// Where it is served without a way back.
pub const UNI_PATH: &str = "/connection/uni_websocket";

const PROTOBUF: &str = "centrifuge-protobuf";

/// The subprotocols that can be asked for; asking for none means the first.
const SUBPROTOCOLS: &[&str] = &["centrifuge-json", PROTOBUF];

/// A handshake that succeeded.
pub struct Opening {
    response: Vec<u8>,
    format: Format,
    is_bare: bool,
    beats: Beats,
    /// The request of a client that cannot say anything later, if it said it here.
    connect: Option<Bytes>,
    is_deflated: bool,
    /// Headers that a backend is to get.
    headers: Option<Box<[(String, String)]>>,
    /// Where in the bytes that were read the head ends.
    consumed: usize,
}

impl Opening {
    /// Judges a request for this transport.
    pub(super) fn judge(head: &RequestHead<'_>, consumed: usize, node: &Node) -> Result<Opening, Refused> {
        let is_bare = head.path == UNI_PATH;
        let (mut format, mut connect) = (Format::Json, None);
        let mut beats = if is_bare { Beats::Frames } else { Beats::Messages };
        for (name, value) in head.query_pairs() {
            match (&*name, &*value) {
                ("cf_protocol" | "format", "protobuf") => format = Format::Protobuf,
                ("cf_ws_frame_ping_pong", "true") => beats = Beats::Frames,
                ("cf_connect", request) if is_bare => {
                    connect = Some(Bytes::copy_from_slice(request.as_bytes()))
                }
                _ => {}
            }
        }
        let options = handshake::Options {
            allowed_origins: &node.allowed_origins,
            subprotocols: SUBPROTOCOLS,
            allow_deflate: node.config.websocket.compression,
        };
        let accept = match handshake::accept(head, &options) {
            Ok(accept) => accept,
            Err(refusal) if refusal.status == 403 => return Err(super::front_door::foreign_origin(head)),
            Err(refusal) => return Err(Refused { response: refusal.response(), what: refusal.text.into() }),
        };
        if accept.subprotocol == Some(PROTOBUF) {
            format = Format::Protobuf;
        }
        if connect.is_some() && format == Format::Protobuf {
            return Err(Refused::new(400, "the parameter cf_connect is JSON, and Protobuf was asked for"));
        }
        Ok(Opening {
            response: accept.response,
            format,
            is_bare,
            beats,
            connect,
            is_deflated: accept.deflate,
            headers: captured_headers(head, &node.config),
            consumed,
        })
    }

    /// Lets the connection run; `bytes` are those that were read.
    pub(super) fn open(self, shard: &Rc<Shard>, socket: crate::shard::Link, bytes: &[u8]) {
        let config = &shard.node.config;
        let (client, spread) = shard.draw();
        let max_message_bytes = u32::try_from(config.websocket.max_message_bytes).unwrap_or(u32::MAX);
        let mut link =
            Link::websocket(self.format, self.is_bare, self.beats, self.is_deflated, max_message_bytes);
        if let Some(connect) = self.connect {
            link.deliver(connect);
        }
        let connection = Connection::centrifuge(link, shard.node.env.clock.now(), &config.heartbeat, spread);
        shard.open(connection, client, socket, self.headers, self.response.into(), &bytes[self.consumed..]);
    }
}
