//! What a backend asks for: the bodies of the API's methods, one row a method.
//!
//! Names and types are those of Centrifugo's server API. A member that is null, or that holds the default of
//! its type, counts as absent; so does an empty list where an object is expected, which is what PHP makes of
//! an empty array. Unknown members are ignored. What must stay true: payloads are borrowed from the body and
//! never taken apart, and no text can make the parser recurse deeper than [`MAX_DEPTH`].

use bytes::Bytes;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Lists and objects within one another in one body, payloads included.
pub(super) const MAX_DEPTH: usize = 64;

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
}

impl Publish<'_> {
    /// Whether something is asked for that longwire does not have.
    pub(super) fn needs_what_is_not_there(&self) -> bool {
        !self.idempotency_key.is_empty() || self.delta || self.version != 0 || !self.version_epoch.is_empty()
    }
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
    r#override: BTreeMap<String, Option<IgnoredAny>>,
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
        self.r#override.values().any(Option::is_some) || self.all_users || has_label_filter
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Unsubscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
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
    /// Cannot be changed while a connection lives.
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

/// Whether lists and objects lie at most [`MAX_DEPTH`] deep; of text that is no JSON it says something, too.
///
/// The parser of payloads does not recurse, so nothing else bounds what subscribers would have to parse.
pub(super) fn is_depth_allowed(json: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return false;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
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
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_depth_allowed(nested(MAX_DEPTH).as_bytes()));
        assert!(!is_depth_allowed(nested(MAX_DEPTH + 1).as_bytes()));
        let text = format!("[\"\\\"{}\"]", "[".repeat(500));
        assert!(is_depth_allowed(text.as_bytes()));
        assert!(is_depth_allowed("[]".repeat(500).as_bytes()));
    }

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
