//! What a backend asks for: the bodies of the API's methods, one row a method.
//!
//! Names and types are those of Centrifugo's server API. A member that is null, or that holds the default of
//! its type, counts as absent; so does an empty list where an object is expected, which is what PHP makes of
//! an empty array. Unknown members are ignored. What must stay true: payloads are borrowed from the body and
//! never taken apart, and no text can make the parser recurse deep: `node::json` bounds that before.

mod queues;

pub(super) use queues::*;

use crate::auth::Overrides;
use bytes::Bytes;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

macro_rules! commands {
    ($($name:literal $variant:ident $request:ty;)+) => {
        /// One call of a method, with its fields.
        pub(super) enum Command<'a> { $($variant($request),)+ }

        impl<'a> Command<'a> {
            /// The methods that can be called by themselves and in a batch.
            pub(super) const METHODS: &'static [&'static str] = &[$($name,)+];

            /// Reads the fields of `method`; `None` if there is no such method.
            pub(super) fn parse(method: &str, json: &'a str) -> Option<Result<Command<'a>, serde_json::Error>> {
                match method {
                    $($name => Some(from_object(json).map(Command::$variant)),)+
                    _ => None,
                }
            }
        }
    };
}

commands! {
    "publish" Publish Publish<'a>;
    "broadcast" Broadcast Publish<'a>;
    "subscribe" Subscribe Box<Subscribe<'a>>;
    "unsubscribe" Unsubscribe Unsubscribe;
    "disconnect" Disconnect Disconnect;
    "refresh" Refresh Refresh<'a>;
    "presence" Presence InChannel;
    "presence_stats" PresenceStats InChannel;
    "history" History History;
    "history_remove" HistoryRemove InChannel;
    "channels" Channels Channels;
    "info" Info Empty;
    "rpc" Rpc Rpc;
    "connections" Connections Connections;
    "connection" Connection OneConnection;
    "user_status" UserStatus Users;
    "get_user_status" GetUserStatus Users;
    "send" Send Box<Send<'a>>;
    "bind" Bind Bind;
    "unbind" Unbind OneConnection;
    "is_online" IsOnline IsOnline;
    "users" UserList UserList;
    "session_get" SessionGet OneConnection;
    "session_set" SessionSet KeepData<'a>;
    "session_update" SessionUpdate KeepData<'a>;
    "revoke_token" RevokeToken RevokeToken;
    "invalidate_user_tokens" InvalidateUserTokens InvalidateUserTokens;
    "queue/publish" QueuePublish Box<QueuePublish<'a>>;
    "queue/receive" QueueReceive QueueReceive;
    "queue/ack" QueueAck QueueSettle;
    "queue/nack" QueueNack QueueSettle;
    "queue/stats" QueueStats OneQueue;
    "queue/list" QueueList QueueList;
    "queue/peek" QueuePeek QueuePeek;
    "queue/purge" QueuePurge OneQueue;
    "queue/remove" QueueRemove OneQueue;
    "queue/move" QueueMove QueueMove;
}

/// The fields of `publish` and, with `channels` in the place of `channel`, of `broadcast`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Publish<'a> {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channels: Vec<String>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "object")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) delta: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) version: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) version_epoch: String,
    /// A connection that does not get it.
    #[serde(deserialize_with = "or_default")]
    pub(super) exclude_client: String,
    /// A user whose connections do not get it.
    #[serde(deserialize_with = "or_default")]
    pub(super) exclude_user: String,
    /// Answer how far it came, too.
    #[serde(deserialize_with = "or_default")]
    pub(super) report: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Subscribe<'a> {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    #[serde(borrow)]
    pub(super) info: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64info: String,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "object")]
    pub(super) recover_since: Option<StreamPosition>,
    #[serde(deserialize_with = "object")]
    pub(super) r#override: Option<Override>,
    #[serde(deserialize_with = "or_default")]
    all_users: bool,
    #[serde(borrow)]
    label_filter: Option<&'a RawValue>,
}

impl Subscribe<'_> {
    /// Whether something is asked for that longwire does not have.
    pub(super) fn needs_what_is_not_there(&self) -> bool {
        let has_label_filter =
            self.label_filter.is_some_and(|filter| !matches!(filter.get(), "{}" | "[]" | "\"\""));
        self.all_users || has_label_filter
    }
}

/// Options of the channel that hold differently for one subscription.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Override {
    #[serde(deserialize_with = "object")]
    presence: Option<Flag>,
    #[serde(deserialize_with = "object")]
    join_leave: Option<Flag>,
    #[serde(deserialize_with = "object")]
    force_recovery: Option<Flag>,
    #[serde(deserialize_with = "object")]
    force_positioning: Option<Flag>,
    #[serde(deserialize_with = "object")]
    force_push_join_leave: Option<Flag>,
}

/// A boolean as protobuf's JSON form wraps it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Flag {
    #[serde(deserialize_with = "or_default")]
    value: bool,
}

impl Override {
    pub(super) fn overrides(&self) -> Overrides {
        let value = |flag: &Option<Flag>| flag.as_ref().map(|flag| flag.value);
        Overrides {
            presence: value(&self.presence),
            join_leave: value(&self.join_leave),
            force_recovery: value(&self.force_recovery),
            force_positioning: value(&self.force_positioning),
            force_push_join_leave: value(&self.force_push_join_leave),
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Unsubscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    /// Everybody, whoever it is.
    #[serde(deserialize_with = "or_default")]
    pub(super) all: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Disconnect {
    /// Everybody, whoever it is.
    #[serde(deserialize_with = "or_default")]
    pub(super) all: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    /// Client ids that are spared.
    #[serde(deserialize_with = "or_default")]
    pub(super) whitelist: Vec<String>,
    #[serde(deserialize_with = "object")]
    pub(super) disconnect: Option<CustomClose>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct CustomClose {
    #[serde(deserialize_with = "or_default")]
    pub(super) code: u32,
    #[serde(deserialize_with = "or_default")]
    pub(super) reason: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Refresh<'a> {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    /// What others are to see of the user.
    #[serde(borrow)]
    pub(super) info: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct InChannel {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    /// 0: only the position; negative: everything kept.
    #[serde(deserialize_with = "or_default")]
    pub(super) limit: i32,
    #[serde(deserialize_with = "object")]
    pub(super) since: Option<StreamPosition>,
    #[serde(deserialize_with = "or_default")]
    pub(super) reverse: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct StreamPosition {
    #[serde(deserialize_with = "or_default")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) epoch: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Channels {
    #[serde(deserialize_with = "or_default")]
    pub(super) pattern: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Rpc {
    #[serde(deserialize_with = "or_default")]
    pub(super) method: String,
}

/// Which connections are listed: those that match every member that is set.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Connections {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) transport: String,
    /// 0: as many as is usual.
    #[serde(deserialize_with = "or_default")]
    pub(super) limit: i32,
    /// Where an earlier answer stopped.
    #[serde(deserialize_with = "or_default")]
    pub(super) cursor: String,
    /// Show what the backend keeps with each, too.
    #[serde(deserialize_with = "or_default")]
    pub(super) session_data: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct OneConnection {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Users {
    #[serde(deserialize_with = "or_default")]
    pub(super) users: Vec<String>,
}

/// A direct message, and to whom: exactly one of the members that name somebody.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Send<'a> {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) clients: Option<Vec<String>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) users: Option<Vec<String>>,
    /// Whoever is subscribed to it.
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) all: bool,
    /// Client ids that do not get it.
    #[serde(deserialize_with = "or_default")]
    pub(super) except: Vec<String>,
    /// Users who do not get it.
    #[serde(deserialize_with = "or_default")]
    pub(super) except_users: Vec<String>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Bind {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
}

/// One of both.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct IsOnline {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
}

/// Which users are listed.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct UserList {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    /// 0: as many as is usual.
    #[serde(deserialize_with = "or_default")]
    pub(super) limit: i32,
    /// Where an earlier answer stopped.
    #[serde(deserialize_with = "or_default")]
    pub(super) cursor: String,
}

/// What is to be kept with a connection.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct KeepData<'a> {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RevokeToken {
    /// The claim `jti`.
    #[serde(deserialize_with = "or_default")]
    pub(super) uid: String,
    /// 0: for ever.
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    /// Close the connections that came by it; true if absent.
    pub(super) disconnect: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct InvalidateUserTokens {
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    /// 0: until this moment.
    #[serde(deserialize_with = "or_default")]
    pub(super) issued_before: i64,
    /// 0: for ever.
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    /// Close the connections that came by them; true if absent.
    pub(super) disconnect: Option<bool>,
    /// Only tokens for this channel, which longwire does not tell apart.
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Batch<'a> {
    #[serde(borrow, deserialize_with = "or_default")]
    pub(super) commands: Vec<Option<&'a RawValue>>,
    /// A permission to run the commands in any order; the order given is one.
    #[serde(deserialize_with = "or_default", rename = "parallel")]
    _parallel: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Cut {
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) all: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Empty {}

/// Reads an object; a list, which serde would take for a struct's fields in order, is refused.
///
/// # Errors
/// The text is not JSON, or not of the shape of `T`.
pub(super) fn from_object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, serde_json::Error> {
    if json.trim_ascii_start().starts_with('[') {
        return Err(serde_json::Error::custom("expected an object, found a list"));
    }
    serde_json::from_str(json)
}

/// A payload as part of `body`, which it keeps alive only if it is most of it.
pub(super) fn payload(body: &Bytes, raw: &RawValue) -> Bytes {
    let text = raw.get().as_bytes();
    if text.len() * 2 < body.len() { Bytes::copy_from_slice(text) } else { body.slice_ref(text) }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An object; null and an empty list are the default.
fn object<'de, D: Deserializer<'de>, T: FromObject<'de>>(from: D) -> Result<T, D::Error> {
    let raw = Option::<&'de RawValue>::deserialize(from)?;
    let Some(text) = raw.map(RawValue::get) else { return Ok(T::default()) };
    let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if list.is_some_and(|items| items.trim_ascii().is_empty()) {
        return Ok(T::default());
    }
    T::from_object(text).map_err(D::Error::custom)
}

/// What [`object`] can read.
trait FromObject<'de>: Default {
    fn from_object(json: &'de str) -> Result<Self, serde_json::Error>;
}

impl<'de, T: Deserialize<'de>> FromObject<'de> for Option<T> {
    fn from_object(json: &'de str) -> Result<Self, serde_json::Error> {
        from_object(json).map(Some)
    }
}

impl<'de, V: Deserialize<'de>> FromObject<'de> for BTreeMap<String, V> {
    fn from_object(json: &'de str) -> Result<Self, serde_json::Error> {
        from_object(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_payload_does_not_keep_a_large_body_alive() {
        let body = Bytes::from(format!("{{\"data\":1,\"pad\":\"{}\"}}", "x".repeat(100)));
        let request: Publish<'_> = from_object(std::str::from_utf8(&body).unwrap()).unwrap();
        let data = payload(&body, request.data.unwrap());
        assert_eq!(&data[..], b"1");
        assert!(!body.as_ptr_range().contains(&data.as_ptr()));

        let body = Bytes::from(format!("{{\"data\":\"{}\"}}", "x".repeat(100)));
        let request: Publish<'_> = from_object(std::str::from_utf8(&body).unwrap()).unwrap();
        let data = payload(&body, request.data.unwrap());
        assert!(body.as_ptr_range().contains(&data.as_ptr()));
    }
}
