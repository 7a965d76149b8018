//! The centrifuge dialect over responses that go on: SSE and HTTP stream, each with a way back or without.
//!
//! The request brings the first commands, in the parameter `cf_connect` or in the body; replies and pushes are
//! the response. Where there is a way back, further commands come by `POST /emulation`, which names the session
//! that the connect reply told. Whether the commands make sense is decided by the session: from its head on the
//! response is a success, and a refusal is said in it.

use super::front_door::{Refused, captured_headers};
use super::response;
use crate::config::Config;
use crate::shard::{Link, Shard};
use bytes::Bytes;
use longwire_protocol::Connection;
use longwire_protocol::centrifuge::{self, Format};
use longwire_protocol::encoding::{Framing, Style};
use longwire_protocol::http::{Body, RequestHead};
use std::rc::Rc;

/// Where SSE with a way back is served.
pub const SSE: &str = "/connection/sse";
/// Where HTTP stream with a way back is served.
pub const HTTP_STREAM: &str = "/connection/http_stream";
/// Where SSE without a way back is served.
pub const UNI_SSE: &str = "/connection/uni_sse";
/// Where HTTP stream without a way back is served.
pub const UNI_HTTP_STREAM: &str = "/connection/uni_http_stream";

/// How many bytes a request has together with its body, whose head took `consumed`; `None` if it has no body.
///
/// # Errors
/// The body is too large, or has no length.
pub(super) fn awaited_bytes(
    head: &RequestHead<'_>,
    consumed: usize,
    config: &Config,
) -> Result<Option<usize>, Refused> {
    let limit = config.websocket.max_message_bytes;
    match head.body {
        Body::Length(length) if head.method == "POST" && length > limit as u64 => {
            Err(Refused::new(413, format!("the body is larger than {limit} bytes")))
        }
        Body::Length(length) if head.method == "POST" => Ok(Some(consumed + length as usize)),
        // A GET request for a stream is refused for its body, or its body means nothing.
        _ => Ok(None),
    }
}

/// A request that is well formed.
pub struct Opening {
    style: Style,
    message: Bytes,
    head: String,
    /// Headers that a backend is to get.
    headers: Option<Box<[(String, String)]>>,
}

impl Opening {
    /// Judges a request, which came with all of its body; what follows that means nothing.
    pub(super) fn judge(head: &RequestHead<'_>, rest: &[u8], config: &Config) -> Result<Opening, Refused> {
        let length = match head.body {
            Body::Length(length) => length as usize,
            Body::Empty | Body::Chunked => 0,
        };
        let body = rest.get(..length).unwrap_or_default();
        let is_bare = matches!(head.path, UNI_SSE | UNI_HTTP_STREAM);
        let is_sse = matches!(head.path, SSE | UNI_SSE);
        let mut message = Bytes::copy_from_slice(body);
        if message.is_empty() && is_sse {
            let parameter = head.query_pairs().find(|(name, _)| name == "cf_connect");
            message = parameter.map(|(_, value)| value.into_owned().into()).unwrap_or_default();
        }
        if message.trim_ascii().is_empty() && !is_bare {
            let what = match is_sse {
                true => {
                    "the connect command is missing: it is the parameter cf_connect, or the body of a POST"
                }
                false => "the connect command is missing: it is the body",
            };
            return Err(Refused::new(400, what));
        }
        // The one content type that means Protobuf (centrifuge protocol, section 1.2).
        let is_protobuf = !is_sse && head.headers.first("content-type") == Some(b"application/octet-stream");
        let (format, content_type) = match (is_sse, is_protobuf) {
            (true, _) => (Format::Json, "text/event-stream; charset=utf-8"),
            (false, false) => (Format::Json, "application/x-ndjson"),
            (false, true) => (Format::Protobuf, "application/octet-stream"),
        };
        let (framing, body) = match is_sse {
            true => (Framing::Events, response::Body::UntilEnd),
            false if head.is_http_11 => (Framing::Chunks, response::Body::Chunked),
            false => (Framing::Stream, response::Body::UntilEnd),
        };
        let mut response = response::head(head, content_type, body);
        response.push_str("\r\n");
        let style = Style { format, framing, is_bare };
        let headers = captured_headers(head, config);
        Ok(Opening { style, message, head: response, headers })
    }

    /// Lets the stream run.
    pub(super) fn open(self, shard: &Rc<Shard>, socket: Link) {
        let (client, spread) = shard.draw();
        let mut link = centrifuge::link::Link::response(self.style);
        link.deliver(self.message);
        let now = shard.node.env.clock.now();
        let connection = Connection::centrifuge(link, now, &shard.node.config.heartbeat, spread);
        shard.open(connection, client, socket, self.headers, self.head.into(), &[]);
    }
}
