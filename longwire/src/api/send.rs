//! The way up for readers that have none of their own: a message for the backend, from a client of SSE, a stream of
//! lines or a poll (plain dialect), or from a page that prefers a request to its WebSocket.
//!
//! `POST /send?session=NAME` brings one message as its body, whatever that is. It names its session, whose name only
//! its client was told, so nothing else is asked for. The answer says whether the message was taken; what the backend
//! makes of it comes down the stream. What must stay true: pages of origins that are not allowed can send nothing and
//! read nothing, and a message that was answered 202 is in its session's queue.

use super::{Respond, emulation, read_body};
use crate::node::Node;
use crate::node::control::{Message, Relayed};
use bytes::Bytes;
use hyper::Method;
use hyper::body::Body;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use longwire_protocol::http::query_pairs;
use std::fmt::Display;

/// Where messages are sent to.
pub(super) const PATH: &str = "/send";

/// After how many seconds a client whose messages wait may try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// Takes a message to its session.
pub(super) async fn message<B>(node: &Node, head: &Parts, body: B) -> Result<Respond, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    emulation::require_allowed(node, head)?;
    let respond = relay(node, head, body).await.unwrap_or_else(|refused| refused);
    Ok(emulation::with_cors(respond, head).with("cache-control", "no-store"))
}

async fn relay<B>(node: &Node, head: &Parts, body: B) -> Result<Respond, Respond>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    if head.method != Method::POST {
        return Err(Respond::text(405, "only POST is possible here").with("allow", "POST, OPTIONS"));
    }
    let session = session(head)?;
    let data = read_body(node, body, node.config.plain.max_message_bytes).await?;
    let is_text = !is_octets(head) && std::str::from_utf8(&data).is_ok();
    match node.relay(session, Message::Content { data, is_text }).await {
        Relayed::Taken => Ok(Respond::empty(202)),
        Relayed::Full => {
            let refused = Respond::text(
                429,
                "this session sends too fast, or too many of its messages wait for the backend",
            );
            Err(refused.with("retry-after", RETRY_AFTER_SECONDS))
        }
        Relayed::Unknown => Err(Respond::text(404, "there is no such session")),
    }
}

/// The name of the session that the message is of.
fn session(head: &Parts) -> Result<String, Respond> {
    let mut named = query_pairs(head.uri.query().unwrap_or_default()).filter(|(name, _)| name == "session");
    match (named.next(), named.next()) {
        (Some((_, session)), None) => Ok(session.into_owned()),
        (None, _) => {
            let text = "the parameter \"session\" is missing: it is the member \"session\" of what the stream began with";
            Err(Respond::text(400, text))
        }
        // Two readers could mean different ones.
        (Some(_), Some(_)) => Err(Respond::text(400, "the parameter \"session\" stands there twice")),
    }
}

/// Whether the client says that its message is no text.
fn is_octets(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/octet-stream")
}
