//! What the server says: replies and pushes, each as one line of JSON.

use crate::fossil;
use crate::json::{
    write_client_info, write_data_member, write_flag_member, write_key, write_map, write_number,
    write_number_member, write_payload_member, write_string, write_tags_member,
};
use crate::message::{ClientInfo, ConnectResult, Publication, Push, Reply, ReplyError, SubscribeResult};
use crate::position::Position;

/// Writes the reply to the command `id`, without a line feed.
pub fn encode_reply(id: u32, reply: &Reply, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("id", id.into(), out);
    match reply {
        Reply::Error(error) => {
            write_key("error", out);
            write_error(error, out);
        }
        Reply::Connect(result) => {
            write_key("connect", out);
            write_connect_result(result, out);
        }
        Reply::Subscribe(result) => {
            write_key("subscribe", out);
            write_subscribe_result(result, out);
        }
        Reply::Unsubscribe => write_empty("unsubscribe", out),
        Reply::Publish => write_empty("publish", out),
        Reply::Presence(clients) => {
            write_key("presence", out);
            out.extend_from_slice(b"{\"presence\":");
            write_map(clients, out, |info, out| {
                write_string(&info.client.to_string(), out);
                out.push(b':');
                write_client_info(info, out);
            });
            out.push(b'}');
        }
        Reply::PresenceStats { num_clients, num_users } => {
            write_key("presence_stats", out);
            out.extend_from_slice(b"{\"num_clients\":");
            write_number((*num_clients).into(), out);
            write_key("num_users", out);
            write_number((*num_users).into(), out);
            out.push(b'}');
        }
        Reply::History { publications, top } => {
            write_key("history", out);
            out.extend_from_slice(b"{\"publications\":");
            write_list(publications, out, |publication, out| write_publication(publication, out));
            write_key("epoch", out);
            write_string(top.epoch.as_str(), out);
            write_key("offset", out);
            write_number(top.offset, out);
            out.push(b'}');
        }
        Reply::Rpc { data } => {
            write_key("rpc", out);
            out.push(b'{');
            write_payload_member("data", data, out);
            out.push(b'}');
        }
        Reply::Refresh { client, version, ttl_seconds } => {
            write_key("refresh", out);
            out.extend_from_slice(b"{\"client\":");
            write_string(&client.to_string(), out);
            write_key("version", out);
            write_string(version, out);
            write_expiry(*ttl_seconds, out);
            out.push(b'}');
        }
        // Only STOMP has queues.
        Reply::Queue(_) | Reply::Disconnect => {}
        Reply::SubRefresh { ttl_seconds } => {
            write_key("sub_refresh", out);
            out.push(b'{');
            write_expiry(*ttl_seconds, out);
            out.push(b'}');
        }
    }
    out.push(b'}');
}

/// Writes a push about `channel`, without a line feed; one about the whole connection has an empty channel.
pub fn encode_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"push\":");
    encode_bare_push(channel, push, out);
    out.push(b'}');
}

/// Writes what [`encode_push`] writes without what is around it: all that transports without a way back send.
pub fn encode_bare_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    out.push(b'{');
    if !channel.is_empty() {
        write_key("channel", out);
        write_string(channel, out);
    }
    match push {
        Push::Publication(publication) => {
            write_key("pub", out);
            write_publication(publication, out);
        }
        Push::Delta { publication, base } => {
            write_key("pub", out);
            let data = publication.json();
            let delta = fossil::shorter(base.as_deref(), &data);
            write_publication_as_text(publication, &data, delta, out);
        }
        Push::Join(info) => write_presence_change("join", info, out),
        Push::Leave(info) => write_presence_change("leave", info, out),
        Push::Unsubscribe { code, reason } => {
            write_key("unsubscribe", out);
            write_code_and_reason(*code, reason, out);
        }
        Push::Subscribe(result) => {
            write_key("subscribe", out);
            out.push(b'{');
            write_flag_member("recoverable", result.recoverable, out);
            write_position(result.position, out);
            write_flag_member("positioned", result.positioned, out);
            write_payload_member("data", &result.data, out);
            out.push(b'}');
        }
        Push::Message { data, is_json } => {
            write_key("message", out);
            out.push(b'{');
            write_data_member("data", data, *is_json, out);
            out.push(b'}');
        }
        Push::Connect(result) => {
            write_key("connect", out);
            write_connect_result(result, out);
        }
        Push::Refresh { ttl_seconds } => {
            write_key("refresh", out);
            out.push(b'{');
            write_expiry(*ttl_seconds, out);
            out.push(b'}');
        }
        // Only STOMP has queues.
        Push::Queue(_) => {}
        Push::Disconnect(close) => {
            write_key("disconnect", out);
            write_code_and_reason(close.code.into(), &close.text, out);
        }
    }
    out.push(b'}');
}

fn write_text_member(name: &'static str, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        write_key(name, out);
        write_string(text, out);
    }
}

fn write_empty(name: &'static str, out: &mut Vec<u8>) {
    write_key(name, out);
    out.extend_from_slice(b"{}");
}

fn write_error(error: &ReplyError, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("code", error.code.into(), out);
    write_text_member("message", &error.message, out);
    write_flag_member("temporary", error.temporary, out);
    out.push(b'}');
}

fn write_code_and_reason(code: u32, reason: &str, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("code", code.into(), out);
    write_text_member("reason", reason, out);
    out.push(b'}');
}

fn write_connect_result(result: &ConnectResult, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"client\":");
    write_string(&result.client.to_string(), out);
    write_text_member("version", result.version, out);
    write_expiry(result.ttl_seconds, out);
    write_payload_member("data", &result.data, out);
    if !result.subs.is_empty() {
        write_key("subs", out);
        write_map(&result.subs, out, |(channel, result), out| {
            write_string(channel, out);
            out.push(b':');
            write_subscribe_result(result, out);
        });
    }
    write_number_member("ping", result.ping_seconds.into(), out);
    write_flag_member("pong", result.pong, out);
    write_text_member("session", &result.session, out);
    write_text_member("node", &result.node, out);
    out.push(b'}');
}

fn write_subscribe_result(result: &SubscribeResult, out: &mut Vec<u8>) {
    out.push(b'{');
    write_expiry(result.ttl_seconds, out);
    write_flag_member("recoverable", result.recoverable, out);
    if let Some(position) = result.position {
        write_key("epoch", out);
        write_string(position.epoch.as_str(), out);
    }
    // centrifuge-js delivers `publications` without looking at `recovered`: a partial recovery would be taken
    // for a whole one.
    if result.recovered && !result.publications.is_empty() {
        write_key("publications", out);
        if result.delta {
            let series = fossil::series(&result.publications, Publication::json);
            write_list(series, out, |(publication, data, delta), out| {
                write_publication_as_text(publication, &data, delta, out);
            });
        } else {
            write_list(&result.publications, out, |publication, out| write_publication(publication, out));
        }
    }
    write_flag_member("recovered", result.recovered, out);
    write_number_member("offset", result.position.map_or(0, |position| position.offset), out);
    write_flag_member("positioned", result.positioned, out);
    write_payload_member("data", &result.data, out);
    write_flag_member("was_recovering", result.was_recovering, out);
    write_flag_member("delta", result.delta, out);
    out.push(b'}');
}

fn write_position(position: Option<Position>, out: &mut Vec<u8>) {
    if let Some(position) = position {
        write_key("epoch", out);
        write_string(position.epoch.as_str(), out);
        write_number_member("offset", position.offset, out);
    }
}

fn write_expiry(ttl_seconds: Option<u32>, out: &mut Vec<u8>) {
    if let Some(seconds) = ttl_seconds {
        write_flag_member("expires", true, out);
        write_number_member("ttl", seconds.into(), out);
    }
}

fn write_list<T>(
    entries: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write_entry: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'[');
    for (i, entry) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_entry(entry, out);
    }
    out.push(b']');
}

fn write_publication(publication: &Publication, out: &mut Vec<u8>) {
    out.reserve(publication.data.len() + 64);
    out.push(b'{');
    write_data_member("data", &publication.data, publication.is_json, out);
    write_all_but_data(publication, out);
    out.push(b'}');
}

/// Writes a publication for a subscriber that agreed to differences: whole or not, the data is a string. `data` is what
/// it has as JSON.
fn write_publication_as_text(
    publication: &Publication,
    data: &[u8],
    delta: Option<Vec<u8>>,
    out: &mut Vec<u8>,
) {
    // The delta of data that is no text is none either, and cannot be a string.
    let delta = delta.and_then(|delta| String::from_utf8(delta).ok());
    out.push(b'{');
    write_key("data", out);
    match &delta {
        Some(delta) => write_string(delta, out),
        // A string must hold JSON; absent data is what `null` is.
        None if data.is_empty() => write_string("null", out),
        None => write_string(&String::from_utf8_lossy(data), out),
    }
    write_all_but_data(publication, out);
    write_flag_member("delta", delta.is_some(), out);
    out.push(b'}');
}

fn write_all_but_data(publication: &Publication, out: &mut Vec<u8>) {
    if let Some(info) = &publication.info {
        write_key("info", out);
        write_client_info(info, out);
    }
    write_number_member("offset", publication.offset, out);
    write_tags_member(&publication.tags, out);
}

fn write_presence_change(name: &'static str, info: &ClientInfo, out: &mut Vec<u8>) {
    write_key(name, out);
    out.extend_from_slice(b"{\"info\":");
    write_client_info(info, out);
    out.push(b'}');
}
