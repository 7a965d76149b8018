//! The methods that act upon live connections and users: `send`, `bind`, `unbind`, `is_online`, `users` and what a
//! backend keeps with a connection.
//!
//! What must stay true: a call that does not say plainly whom it is about is refused, never taken for everybody or for
//! the anonymous user; a text that is no connection's id names no connection.

use super::answer::separate;
use super::requests::{Bind, IsOnline, KeepData, OneConnection, Send, UserList, payload};
use crate::backend::MAX_USER_BYTES;
use crate::node::control::{DataChange, Handed, Recipients, Who};
use crate::node::survey::{ConnectionState, Wanted, WantedUsers};
use crate::node::{Node, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::ErrorCode;
use longwire_protocol::json::{write_payload, write_string};
use longwire_protocol::message::ClientId;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Users on a page, where nobody says how many.
const USUAL_LIMIT: usize = 1000;

/// Users on a page at most.
const MAX_LIMIT: usize = 10_000;

/// Sends a direct message.
pub(super) async fn send(node: &Node, body: &Bytes, request: Send<'_>) -> Result<Vec<u8>, ErrorCode> {
    let max = node.config.api.max_broadcast_channels;
    let (data, is_json) = match &*request.b64data {
        "" => (payload(body, request.data.ok_or(ErrorCode::BadRequest)?), true),
        base64 => {
            let data: Bytes = STANDARD.decode(base64).map_err(|_| ErrorCode::BadRequest)?.into();
            let is_json = json::is_valid(&data);
            (data, is_json)
        }
    };
    if [request.except.len(), request.except_users.len()].iter().any(|count| *count > max) {
        return Err(ErrorCode::BadRequest);
    }
    let recipients = Recipients {
        who: who(&request, max)?,
        // Text that is no id of ours would leave nobody out, which is not what was asked for.
        except: ids(&request.except).collect::<Option<_>>().ok_or(ErrorCode::BadRequest)?,
        except_users: request.except_users.into_iter().collect(),
    };
    if let Who::Channel(channel) = &recipients.who {
        node.channel_options(channel)?;
    }
    let Handed { taken, refused } = node.send(recipients, data, is_json).await;
    let refused = if refused > 0 { format!(",\"refused\":{refused}") } else { String::new() };
    Ok(format!("{{\"sent\":{taken}{refused}}}").into_bytes())
}

/// To whom a message goes: exactly one of the members that name somebody.
fn who(request: &Send<'_>, max: usize) -> Result<Who, ErrorCode> {
    let given = |text: &String| !text.is_empty();
    let named = [
        given(&request.client),
        request.clients.is_some(),
        given(&request.user),
        request.users.is_some(),
        given(&request.channel),
        request.all,
    ];
    if named.iter().filter(|is_named| **is_named).count() != 1 {
        return Err(ErrorCode::BadRequest);
    }
    if let Some(clients) = &request.clients {
        return match clients.len() <= max {
            true => Ok(Who::Clients(ids(clients).flatten().collect())),
            false => Err(ErrorCode::BadRequest),
        };
    }
    if let Some(users) = &request.users {
        // The anonymous user is not a user who could be meant among others.
        return match users.len() <= max && users.iter().all(given) {
            true => Ok(Who::Users(users.iter().cloned().collect())),
            false => Err(ErrorCode::BadRequest),
        };
    }
    Ok(match (&*request.client, &*request.user, &*request.channel) {
        ("", "", "") => Who::All,
        ("", "", channel) => Who::Channel(channel.into()),
        ("", user, _) => Who::Users([user.to_owned()].into()),
        (client, ..) => Who::Clients(ClientId::parse(client).into_iter().collect()),
    })
}

fn ids(texts: &[String]) -> impl Iterator<Item = Option<ClientId>> {
    texts.iter().map(|text| ClientId::parse(text))
}

/// Makes a connection a user's.
pub(super) async fn bind(node: &Node, request: Bind) -> Result<Vec<u8>, ErrorCode> {
    // Taking a user away has a method of its own: a variable that is empty by mistake must not log somebody out.
    if request.user.is_empty() || request.user.len() > MAX_USER_BYTES {
        return Err(ErrorCode::BadRequest);
    }
    node.bind(client(&request.client)?, request.user.into()).await?;
    Ok(b"{}".to_vec())
}

/// Makes a connection the anonymous user's.
pub(super) async fn unbind(node: &Node, request: OneConnection) -> Result<Vec<u8>, ErrorCode> {
    node.bind(client(&request.client)?, "".into()).await?;
    Ok(b"{}".to_vec())
}

/// Whether a connection, or any of a user, is here.
pub(super) async fn is_online(node: &Node, request: IsOnline) -> Result<Vec<u8>, ErrorCode> {
    let online = match (&*request.client, &*request.user) {
        ("", "") => return Err(ErrorCode::BadRequest),
        ("", user) => node.user(user).connections > 0,
        (id, "") => match ClientId::parse(id) {
            Some(client) => describe(node, client).await.is_ok(),
            None => false,
        },
        _ => return Err(ErrorCode::BadRequest),
    };
    Ok(format!("{{\"online\":{online}}}").into_bytes())
}

/// A page of users.
pub(super) async fn users(node: &Node, request: UserList) -> Result<Vec<u8>, ErrorCode> {
    let limit = match usize::try_from(request.limit) {
        Ok(0) => USUAL_LIMIT,
        Ok(limit) => limit.min(MAX_LIMIT),
        Err(_) => return Err(ErrorCode::BadRequest),
    };
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let (channel, after) = (given(request.channel), given(request.cursor));
    if let Some(channel) = &channel {
        node.channel_options(channel)?;
    }
    let (users, has_more, total) = node.users(WantedUsers { channel, after, limit }).await;
    let mut out = b"{\"users\":[".to_vec();
    for (i, user) in users.iter().enumerate() {
        separate(i, &mut out);
        write_string(user, &mut out);
    }
    out.extend_from_slice(format!("],\"total\":{total},\"cursor\":").as_bytes());
    let cursor: Option<&Arc<str>> = users.last().filter(|_| has_more);
    write_string(cursor.map(|user| &**user).unwrap_or_default(), &mut out);
    out.push(b'}');
    Ok(out)
}

/// What a backend keeps with a connection, and whose it is.
pub(super) async fn session_get(node: &Node, request: OneConnection) -> Result<Vec<u8>, ErrorCode> {
    let connection = describe(node, client(&request.client)?).await?;
    let mut out = b"{\"data\":".to_vec();
    write_data(&connection.session_data, &mut out);
    for (member, text) in [
        ("user", &*connection.user),
        ("name", &connection.name),
        ("transport", connection.transport),
        ("address", &connection.address.to_string()),
    ] {
        out.extend_from_slice(format!(",\"{member}\":").as_bytes());
        write_string(text, &mut out);
    }
    out.extend_from_slice(format!(",\"away\":{},\"channels\":[", connection.is_away).as_bytes());
    for (i, channel) in connection.channels.iter().enumerate() {
        separate(i, &mut out);
        write_string(&channel.channel, &mut out);
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Keeps an object with a connection in place of what was kept; none, or an empty one, keeps nothing.
pub(super) async fn session_set(node: &Node, request: KeepData<'_>) -> Result<Vec<u8>, ErrorCode> {
    let data = object(request.data)?;
    node.keep_data(client(&request.client)?, DataChange::Set(data)).await?;
    Ok(b"{}".to_vec())
}

/// Puts members into what is kept with a connection; what is kept then.
pub(super) async fn session_update(node: &Node, request: KeepData<'_>) -> Result<Vec<u8>, ErrorCode> {
    let members = object(request.data)?;
    let data = node.keep_data(client(&request.client)?, DataChange::Update(members)).await?;
    let mut out = b"{\"data\":".to_vec();
    write_data(&data, &mut out);
    out.push(b'}');
    Ok(out)
}

/// The id of a connection that must be named.
fn client(text: &str) -> Result<ClientId, ErrorCode> {
    if text.is_empty() {
        return Err(ErrorCode::BadRequest);
    }
    // Text that is no id of ours names no connection.
    ClientId::parse(text).ok_or(ErrorCode::NotFound)
}

async fn describe(node: &Node, client: ClientId) -> Result<ConnectionState, ErrorCode> {
    let wanted = Wanted { client: Some(client), limit: 1, ..Wanted::default() };
    node.connections(wanted).await.0.into_iter().next().ok_or(ErrorCode::NotFound)
}

/// An object as it was written; nothing for none and for an empty one, which PHP writes as a list.
fn object(data: Option<&RawValue>) -> Result<Bytes, ErrorCode> {
    let text = data.map_or("", RawValue::get);
    let is_empty = |open: char, close: char| {
        let inner = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
        inner.is_some_and(|inner| inner.trim_ascii().is_empty())
    };
    match text {
        "" | "null" => Ok(Bytes::new()),
        _ if is_empty('{', '}') || is_empty('[', ']') => Ok(Bytes::new()),
        _ if text.starts_with('{') => Ok(Bytes::copy_from_slice(text.as_bytes())),
        _ => Err(ErrorCode::BadRequest),
    }
}

/// What is kept; nothing is an empty object.
pub(super) fn write_data(data: &Bytes, out: &mut Vec<u8>) {
    if data.is_empty() {
        out.extend_from_slice(b"{}");
    } else {
        write_payload(data, out);
    }
}
