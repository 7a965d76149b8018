//! The JSON forms of the plain dialect: one object a push, on one line.
//!
//! A publication is `{"channel","data","offset","id",..}`, a direct message `{"data"}`; everything else has a
//! `type`. The `id` of a publication is the position token of its channel alone, so that what one reader is sent
//! all can be sent: a client keeps the last id of each channel and comes back with all of them, joined by commas.
//! Data that is not JSON stands as a string if it is text, otherwise as `b64data`, base64 of RFC 4648 section 4.
//!
//! What it is not: framing. What must stay true: an object is valid JSON without a line break, whatever a
//! publisher, a client or the backend chose.

use super::position_token;
use crate::close::{Advice, Close};
use crate::json::{
    write_client_info, write_flag_member, write_key, write_map, write_number, write_number_member,
    write_payload, write_payload_member, write_string, write_tags_member,
};
use crate::message::{ClientInfo, ConnectResult, Publication, Push, ReplyError};
use crate::position::Position;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How one channel stands when a connection begins.
#[derive(Clone, PartialEq, Debug)]
pub struct ChannelState<'a> {
    /// The channel.
    pub channel: &'a str,
    /// Whether everything that was missed follows; `None` if the client did not ask.
    pub recovered: Option<bool>,
    /// How many missed publications follow.
    pub publications: usize,
    /// Where the reader stands before what follows; `None` in a channel without history.
    pub position: Option<Position>,
}

/// What the client is told of its connection and of its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// The connection.
    pub client: String,
    /// By what name requests beside the link refer to it; may be empty.
    pub session: String,
    /// The session was there before, without a link.
    pub resumed: bool,
    /// Something that was sent to the client alone may be lost.
    pub lost: bool,
}

impl From<&ConnectResult> for Welcome {
    fn from(result: &ConnectResult) -> Welcome {
        let ConnectResult { client, session, resumed, lost, .. } = result;
        Welcome { client: client.to_string(), session: session.clone(), resumed: *resumed, lost: *lost }
    }
}

/// Whether recovery was asked for in any channel, or something is lost that belongs to none.
pub(super) fn is_recovery(welcome: &Welcome, channels: &[ChannelState<'_>]) -> bool {
    welcome.lost || channels.iter().any(|state| state.recovered.is_some())
}

/// Writes the members `client`, `session`, `resumed` and `recovered`.
pub(super) fn write_welcome_members(welcome: &Welcome, channels: &[ChannelState<'_>], out: &mut Vec<u8>) {
    write_key("client", out);
    write_string(&welcome.client, out);
    if !welcome.session.is_empty() {
        write_key("session", out);
        write_string(&welcome.session, out);
    }
    write_flag_member("resumed", welcome.resumed, out);
    if is_recovery(welcome, channels) {
        write_key("recovered", out);
        let is_whole = !welcome.lost && channels.iter().all(|state| state.recovered != Some(false));
        write_bool(is_whole, out);
    }
}

/// Writes the member `channels`; `with_ids` says that each has its position token, too.
pub(super) fn write_channels(channels: &[ChannelState<'_>], with_ids: bool, out: &mut Vec<u8>) {
    write_key("channels", out);
    write_map(channels, out, |state, out| {
        write_string(state.channel, out);
        out.extend_from_slice(b":{");
        if with_ids {
            write_id_member(state.channel, state.position, out);
        }
        if let Some(recovered) = state.recovered {
            write_key("recovered", out);
            write_bool(recovered, out);
        }
        if state.recovered == Some(true) {
            write_key("publications", out);
            write_number(state.publications as u64, out);
        } else {
            write_position(state.position, out);
        }
        out.push(b'}');
    });
}

/// Writes the first object of a connection: `recovered` if recovery was asked for in any channel, otherwise
/// `subscribed`. `token` says where the reader stands having read this and nothing after it.
pub fn encode_welcome(welcome: &Welcome, channels: &[ChannelState<'_>], token: &[u8], out: &mut Vec<u8>) {
    begin(if is_recovery(welcome, channels) { "recovered" } else { "subscribed" }, out);
    write_welcome_members(welcome, channels, out);
    write_channels(channels, true, out);
    write_token_member("id", token, out);
    out.push(b'}');
}

/// Writes a publication. `position` is its own; its epoch stands in no publication.
pub fn encode_publication(
    channel: &str,
    publication: &Publication,
    position: Option<Position>,
    out: &mut Vec<u8>,
) {
    out.reserve(channel.len() + publication.data.len() + 96);
    out.extend_from_slice(b"{\"channel\":");
    write_string(channel, out);
    write_data(&publication.data, publication.is_json, out);
    write_number_member("offset", publication.offset, out);
    write_id_member(channel, position, out);
    write_tags_member(&publication.tags, out);
    if let Some(info) = &publication.info {
        write_key("info", out);
        write_client_info(info, out);
    }
    out.push(b'}');
}

/// Writes any push about `channel`; false if it says nothing here, and nothing was written.
pub fn encode_push(channel: &str, push: &Push, position: Option<Position>, out: &mut Vec<u8>) -> bool {
    match push {
        // Nobody can ask for differences here.
        Push::Publication(publication) | Push::Delta { publication, .. } => {
            encode_publication(channel, publication, position, out);
        }
        Push::Message { data, is_json } => {
            out.push(b'{');
            write_data(data, *is_json, out);
            out.push(b'}');
        }
        Push::Join(info) => encode_presence_change("join", channel, info, out),
        Push::Leave(info) => encode_presence_change("leave", channel, info, out),
        Push::Unsubscribe { code, reason } => {
            begin("unsubscribe", out);
            write_key("channel", out);
            write_string(channel, out);
            write_key("code", out);
            write_number((*code).into(), out);
            write_key("reason", out);
            write_string(reason, out);
            out.push(b'}');
        }
        Push::Subscribe(result) => {
            begin("subscribe", out);
            write_key("channel", out);
            write_string(channel, out);
            write_id_member(channel, result.position, out);
            write_position(result.position, out);
            write_flag_member("recoverable", result.recoverable, out);
            write_payload_member("data", &result.data, out);
            out.push(b'}');
        }
        Push::Disconnect(close) => encode_disconnect(close, out),
        // The first object is that of the connection, and its readers have nothing to refresh.
        Push::Connect(_) | Push::Refresh { .. } | Push::Queue(_) => return false,
    }
    true
}

/// Writes the object after which the connection ends.
pub fn encode_disconnect(close: &Close, out: &mut Vec<u8>) {
    begin("disconnect", out);
    write_close_members(close, out);
    out.push(b'}');
}

/// Writes that something the client asked for was refused.
pub fn encode_error(error: &ReplyError, out: &mut Vec<u8>) {
    begin("error", out);
    write_key("code", out);
    write_number(error.code.into(), out);
    write_key("reason", out);
    write_string(&error.message, out);
    write_flag_member("temporary", error.temporary, out);
    out.push(b'}');
}

/// Writes what a sign of life is answered with: the text itself if it is a JSON object, otherwise a direct message of
/// it.
pub(super) fn encode_beat_answer(answer: &[u8], out: &mut Vec<u8>) {
    let is_object = answer.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<&serde_json::value::RawValue>(answer).is_ok();
    if is_object {
        return write_payload(answer, out);
    }
    out.push(b'{');
    write_data(answer, false, out);
    out.push(b'}');
}

/// Writes the members `code`, `reason` and `reconnect`.
pub(super) fn write_close_members(close: &Close, out: &mut Vec<u8>) {
    write_key("code", out);
    write_number(close.code.into(), out);
    write_key("reason", out);
    write_string(&close.text, out);
    write_key("reconnect", out);
    write_bool(close.advice() != Advice::Stop, out);
}

/// Writes the member `data`, or `b64data` for what is neither JSON nor text.
pub(super) fn write_data(data: &[u8], is_json: bool, out: &mut Vec<u8>) {
    if !is_json {
        if let Ok(text) = simdutf8::basic::from_utf8(data) {
            write_key("data", out);
            return write_string(text, out);
        }
        write_key("b64data", out);
        out.push(b'"');
        let start = out.len();
        let encoded_bytes = data.len().div_ceil(3) * 4;
        out.resize(start + encoded_bytes, 0);
        let written = STANDARD
            .encode_slice(data, &mut out[start..])
            .expect("base64 makes four characters of three bytes or fewer");
        out.truncate(start + written);
        out.push(b'"');
        return;
    }
    write_key("data", out);
    if data.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        write_payload(data, out);
    }
}

pub(super) fn write_position(position: Option<Position>, out: &mut Vec<u8>) {
    if let Some(position) = position {
        write_key("offset", out);
        write_number(position.offset, out);
        write_key("epoch", out);
        write_string(position.epoch.as_str(), out);
    }
}

pub(super) fn write_bool(value: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// Writes a token, which has no character that JSON escapes, as the member `name`; nothing for an empty one.
pub(super) fn write_token_member(name: &'static str, token: &[u8], out: &mut Vec<u8>) {
    if !token.is_empty() {
        write_key(name, out);
        write_string(&String::from_utf8_lossy(token), out);
    }
}

fn write_id_member(channel: &str, position: Option<Position>, out: &mut Vec<u8>) {
    if let Some(position) = position {
        // The same text as `write_string` would make: a token needs no escapes.
        write_key("id", out);
        out.push(b'"');
        position_token::write_entry(channel, &position, out);
        out.push(b'"');
    }
}

fn encode_presence_change(name: &'static str, channel: &str, info: &ClientInfo, out: &mut Vec<u8>) {
    begin(name, out);
    write_key("channel", out);
    write_string(channel, out);
    write_key("info", out);
    write_client_info(info, out);
    out.push(b'}');
}

fn begin(name: &'static str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(name.as_bytes());
    out.push(b'"');
}
