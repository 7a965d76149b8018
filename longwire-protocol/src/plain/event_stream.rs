//! The plain dialect as an event stream (server-sent events, WHATWG HTML section 9.2).
//!
//! A publication is a message event, so that `onmessage` is all a page needs; everything else has a name of
//! its own: `subscribed` or `recovered` (once, first), `join`, `leave`, `unsubscribe`, `disconnect`. What all
//! subscribers of a channel share is written by [`encode_publication_data`]; what differs, the `id:` line
//! with the reader's [position token](super::position_token), is written before it by [`write_id`].
//!
//! What must stay true: each event is whole (it ends with an empty line), and nothing that a publisher, a
//! client or the backend chooses can begin a line. JSON is on one line by the promise of [`crate::json`];
//! tokens are percent-encoded, and checked again here.

use super::envelope::{
    ChannelState, Welcome, is_recovery, write_channels, write_close_members, write_data, write_position,
    write_welcome_members,
};
use crate::close::Close;
use crate::json::{
    write_client_info, write_flag_member, write_key, write_number, write_number_member, write_payload_member,
    write_string, write_tags_member,
};
use crate::message::{ClientInfo, Publication, Push};

/// A comment that proves life and means nothing.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Writes the first event: `recovered` if recovery was asked for in any channel, otherwise `subscribed`.
///
/// `token` says where the reader stands having read this event and nothing after it, that is before the
/// missed publications that follow: a connection lost right here is recovered from there.
pub fn encode_subscribed(welcome: &Welcome, channels: &[ChannelState], token: &[u8], out: &mut Vec<u8>) {
    write_id(token, out);
    write_event(if is_recovery(welcome, channels) { "recovered" } else { "subscribed" }, out);
    out.push(b'{');
    write_welcome_members(welcome, channels, out);
    write_channels(channels, false, out);
    out.extend_from_slice(b"}\n\n");
}

/// Writes the `id:` line of the event that follows.
///
/// An empty token writes nothing (an empty `id:` would make the browser forget where it stood), and neither
/// does one that could end the line.
pub fn write_id(token: &[u8], out: &mut Vec<u8>) {
    if token.is_empty() || memchr::memchr3(b'\n', b'\r', b'\0', token).is_some() {
        return;
    }
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(token);
    out.push(b'\n');
}

/// Writes a publication without its `id:` line: the part that all subscribers share.
pub fn encode_publication_data(channel: &str, publication: &Publication, out: &mut Vec<u8>) {
    out.reserve(channel.len() + publication.data.len() + 64);
    out.extend_from_slice(b"data: {\"channel\":");
    write_string(channel, out);
    write_data(&publication.data, publication.is_json, out);
    write_number_member("offset", publication.offset, out);
    write_tags_member(&publication.tags, out);
    if let Some(info) = &publication.info {
        write_key("info", out);
        write_client_info(info, out);
    }
    out.extend_from_slice(b"}\n\n");
}

/// Writes any push about `channel`, without an `id:` line.
pub fn encode_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    match push {
        // Nobody can ask for differences here.
        Push::Publication(publication) | Push::Delta { publication, .. } => {
            encode_publication_data(channel, publication, out);
        }
        Push::Message { data, is_json } => {
            out.extend_from_slice(b"data: {");
            write_data(data, *is_json, out);
            out.extend_from_slice(b"}\n\n");
        }
        Push::Join(info) => encode_presence_change("join", channel, info, out),
        Push::Leave(info) => encode_presence_change("leave", channel, info, out),
        Push::Unsubscribe { code, reason } => {
            write_event("unsubscribe", out);
            out.extend_from_slice(b"{\"channel\":");
            write_string(channel, out);
            write_key("code", out);
            write_number((*code).into(), out);
            write_key("reason", out);
            write_string(reason, out);
            out.extend_from_slice(b"}\n\n");
        }
        Push::Subscribe(result) => {
            write_event("subscribed", out);
            out.extend_from_slice(b"{\"channels\":{");
            write_string(channel, out);
            out.extend_from_slice(b":{");
            write_position(result.position, out);
            write_flag_member("recoverable", result.recoverable, out);
            write_payload_member("data", &result.data, out);
            out.extend_from_slice(b"}}}\n\n");
        }
        Push::Disconnect(close) => encode_disconnect(close, out),
        // The stream's first event is that of the connection, and its readers have nothing to refresh.
        Push::Connect(_) | Push::Refresh { .. } | Push::Queue(_) => {}
    }
}

/// Writes the event after which the stream ends.
pub fn encode_disconnect(close: &Close, out: &mut Vec<u8>) {
    write_event("disconnect", out);
    out.push(b'{');
    write_close_members(close, out);
    out.extend_from_slice(b"}\n\n");
}

/// Makes a message event, without an `id:` line, of what is on one line.
pub(super) fn message(object: &[u8]) -> bytes::Bytes {
    [b"data: ", object, b"\n\n"].concat().into()
}

/// Writes how many milliseconds the browser waits before it connects again, as a line of the event that follows.
///
/// A block of its own would be dispatched without an id, and by the letter of the HTML standard (section 9.2.6)
/// make the browser forget where it stood.
pub fn encode_retry(milliseconds: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    write_number(milliseconds, out);
    out.push(b'\n');
}

fn encode_presence_change(name: &'static str, channel: &str, info: &ClientInfo, out: &mut Vec<u8>) {
    write_event(name, out);
    out.extend_from_slice(b"{\"channel\":");
    write_string(channel, out);
    write_key("info", out);
    write_client_info(info, out);
    out.extend_from_slice(b"}\n\n");
}

/// Writes the `event:` line and begins the data.
fn write_event(name: &'static str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
}
