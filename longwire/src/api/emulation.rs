//! The requests beside a stream: what a client of SSE or HTTP stream sends after its first commands, and what
//! a browser asks before it lets a page of another origin send anything (CORS).
//!
//! A message names its session, whose name only its client was told, so nothing else is asked for. The answer
//! says whether the message was taken; what became of its commands is said on the stream (centrifuge protocol,
//! section 1.4). What must stay true: pages of origins that are not allowed can send nothing and read nothing.

use super::{Respond, auth, read_body};
use crate::node::Node;
use crate::node::control::{Message, Relayed};
use bytes::Bytes;
use hyper::Method;
use hyper::body::Body;
use hyper::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE, ORIGIN};
use hyper::http::request::Parts;
use longwire_protocol::centrifuge::{json, protobuf};
use std::fmt::Display;

/// Where messages are sent to.
pub(super) const PATH: &str = "/emulation";

/// How many seconds a browser may remember that it may send.
const MAX_AGE_SECONDS: &str = "300";

/// Takes a message to its session.
pub(super) async fn message<B>(node: &Node, head: &Parts, body: B) -> Result<Respond, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    require_allowed(node, head)?;
    let respond = relay(node, head, body).await.unwrap_or_else(|refused| refused);
    Ok(with_cors(respond, head))
}

async fn relay<B>(node: &Node, head: &Parts, body: B) -> Result<Respond, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    if head.method != Method::POST {
        return Err(Respond::text(405, "only POST is possible here").with("allow", "POST, OPTIONS"));
    }
    let body = read_body(node, body, node.config.websocket.max_message_bytes).await?;
    // The one content type that means Protobuf.
    let is_protobuf = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let request = match is_protobuf {
        true => protobuf::decode_emulation(&body),
        false => json::decode_emulation(&body),
    };
    let request = request.map_err(|error| Respond::text(400, &error.to_string()))?;
    if request.data.trim_ascii().is_empty() {
        return Err(Respond::text(400, "the field \"data\" is empty: it holds the commands"));
    }
    if request.node != node.id.to_string() {
        return Err(Respond::text(404, "this is not the node of the session"));
    }
    match node.relay(request.session, Message::Commands(request.data)).await {
        Relayed::Taken => Ok(Respond::empty(204)),
        Relayed::Full => Err(Respond::text(429, "too many commands of this session wait")),
        Relayed::Unknown => Err(Respond::text(404, "there is no such session")),
    }
}

/// Answers what a browser asks before a request (the fetch standard, section 3.2).
pub(super) fn preflight(node: &Node, head: &Parts) -> Result<Respond, Respond> {
    require_allowed(node, head)?;
    let mut respond = Respond::empty(204)
        .with("access-control-allow-methods", "GET, POST, OPTIONS")
        .with("access-control-max-age", MAX_AGE_SECONDS);
    let wanted = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    if let Some(wanted) = wanted {
        respond = respond.with("access-control-allow-headers", wanted);
    }
    Ok(with_cors(respond, head))
}

/// Refuses a page that may send nothing.
pub(super) fn require_allowed(node: &Node, head: &Parts) -> Result<(), Respond> {
    auth::check_host(node, head)?;
    auth::check_origin(node, head)
}

/// Lets the page that was allowed read the answer.
pub(super) fn with_cors(respond: Respond, head: &Parts) -> Respond {
    let Some(origin) = head.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()) else {
        return respond;
    };
    respond
        .with("access-control-allow-origin", origin)
        .with("access-control-allow-credentials", "true")
        .with("access-control-expose-headers", "Retry-After")
        .with("vary", "Origin")
}
