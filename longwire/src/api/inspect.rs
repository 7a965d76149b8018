//! The methods that tell how connections and users stand: `connections`, `connection`, `user_status`.
//!
//! The answers tell of the moment and of this node. Names and nesting follow Centrifugo
//! PRO's `connections`; what it does not have stands beside. What must stay true: an answer is bounded, in
//! connections and in bytes; where there is more, a cursor leads on, and no connection that stays is missed
//! or listed twice.

use super::answer::separate;
use super::requests::Connections;
use crate::node::Node;
use crate::node::survey::{ConnectionState, Wanted};
use longwire_protocol::ErrorCode;
use longwire_protocol::json::{write_number, write_payload, write_string};
use longwire_protocol::message::ClientId;
use std::time::Duration;

/// Connections on a page, where nobody says how many.
const USUAL_LIMIT: usize = 100;

/// Connections on a page at most.
const MAX_LIMIT: usize = 1000;

/// From this size on a page takes no further connection.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Channels of one connection that a list shows; how many there are it says beside.
const LISTED_CHANNELS: usize = 32;

/// A page of connections.
pub(super) async fn connections(node: &Node, request: Connections) -> Result<Vec<u8>, ErrorCode> {
    let limit = match usize::try_from(request.limit) {
        Ok(0) => USUAL_LIMIT,
        Ok(limit) => limit.min(MAX_LIMIT),
        Err(_) => return Err(ErrorCode::BadRequest),
    };
    let after = match &*request.cursor {
        "" => None,
        text => Some(ClientId::parse(text).ok_or(ErrorCode::BadRequest)?),
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let (user, channel, transport) = (given(request.user), given(request.channel), given(request.transport));
    let (found, mut has_more) =
        node.connections(Wanted { user, channel, transport, client: None, after, limit }).await;
    let mut out = b"{\"connections\":{".to_vec();
    let mut last = None;
    for (i, connection) in found.iter().enumerate() {
        if out.len() > MAX_PAGE_BYTES {
            has_more = true;
            break;
        }
        separate(i, &mut out);
        write_string(&connection.client.to_string(), &mut out);
        out.push(b':');
        write_connection(connection, LISTED_CHANNELS, request.session_data, &mut out);
        last = Some(connection.client);
    }
    let cursor = last.filter(|_| has_more).map(|client| client.to_string()).unwrap_or_default();
    out.extend_from_slice(b"},\"cursor\":");
    write_string(&cursor, &mut out);
    out.push(b'}');
    Ok(out)
}

/// One connection in full.
pub(super) async fn connection(node: &Node, client: &str) -> Result<Vec<u8>, ErrorCode> {
    if client.is_empty() {
        return Err(ErrorCode::BadRequest);
    }
    // Text that is no id of ours names no connection.
    let client = ClientId::parse(client).ok_or(ErrorCode::NotFound)?;
    let (found, _) = node.connections(Wanted { client: Some(client), limit: 1, ..Wanted::default() }).await;
    let connection = found.first().ok_or(ErrorCode::NotFound)?;
    let mut out = b"{\"client\":".to_vec();
    write_string(&client.to_string(), &mut out);
    out.extend_from_slice(b",\"connection\":");
    write_connection(connection, usize::MAX, true, &mut out);
    out.push(b'}');
    Ok(out)
}

/// Who of these users is here, and when the others were.
pub(super) fn user_status(node: &Node, users: &[String]) -> Result<Vec<u8>, ErrorCode> {
    if users.is_empty() || users.len() > node.config.api.max_broadcast_channels {
        return Err(ErrorCode::BadRequest);
    }
    let mut out = b"{\"statuses\":[".to_vec();
    for (i, user) in users.iter().enumerate() {
        let state = node.user(user);
        separate(i, &mut out);
        out.extend_from_slice(b"{\"user\":");
        write_string(user, &mut out);
        let text = format!(
            ",\"online\":{},\"connections\":{},\"last_seen\":{}}}",
            state.connections > 0,
            state.connections,
            state.last_seen.unwrap_or(0)
        );
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

fn write_connection(connection: &ConnectionState, max_channels: usize, with_data: bool, out: &mut Vec<u8>) {
    let sdk = connection.sdk.as_deref().cloned().unwrap_or_default();
    let shown = &connection.channels[..connection.channels.len().min(max_channels)];
    out.push(b'{');
    for (member, text) in [
        ("app_name", sdk.name.as_str()),
        ("app_version", &sdk.version),
        ("transport", connection.transport),
        ("protocol", connection.protocol),
        ("dialect", connection.dialect),
        ("user", &connection.user),
        ("address", &connection.address.to_string()),
    ] {
        write_key(member, out);
        write_string(text, out);
    }
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    for (member, number) in [
        ("opened_ms_ago", millis(connection.open_for)),
        ("last_seen_ms_ago", millis(connection.silent_for)),
        ("outbox_bytes", connection.outbox_bytes as u64),
        ("write_blocked_ms", connection.blocked_for.map_or(0, millis)),
        ("num_channels", connection.channels.len() as u64),
    ] {
        write_key(member, out);
        write_number(number, out);
    }
    if let Some(expires_in) = connection.expires_in {
        write_key("expires_in_ms", out);
        write_number(millis(expires_in), out);
    }
    if !connection.name.is_empty() {
        write_key("name", out);
        write_string(&connection.name, out);
    }
    if connection.is_away {
        write_key("away", out);
        out.extend_from_slice(b"true");
    }
    if with_data && !connection.session_data.is_empty() {
        write_key("session_data", out);
        write_payload(&connection.session_data, out);
    }
    write_key("channels", out);
    out.push(b'[');
    for (i, channel) in shown.iter().enumerate() {
        separate(i, out);
        out.extend_from_slice(b"{\"channel\":");
        write_string(&channel.channel, out);
        if let Some(seen) = channel.seen {
            out.extend_from_slice(b",\"offset\":");
            write_number(seen.offset, out);
            out.extend_from_slice(b",\"epoch\":");
            write_string(seen.epoch.as_str(), out);
        }
        if channel.is_server_side {
            out.extend_from_slice(b",\"server_side\":true");
        }
        out.push(b'}');
    }
    out.push(b']');
    write_key("state", out);
    out.extend_from_slice(b"{\"channels\":{");
    for (i, channel) in shown.iter().enumerate() {
        separate(i, out);
        write_string(&channel.channel, out);
        out.extend_from_slice(b":{}");
    }
    out.push(b'}');
    if let Some(issued_at) = connection.token_issued_at {
        out.extend_from_slice(format!(",\"connection_token\":{{\"issued_at\":{issued_at}}}").as_bytes());
    }
    out.extend_from_slice(b"}}");
}

fn write_key(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}
