//! What a backend answers, read.
//!
//! An answer is `{"result": {…}}`, `{"error": {code, message, temporary}}` or `{"disconnect": {code, reason}}`; of
//! several members disconnect comes before error, and error before result. Upon a call about a plain connection it is
//! nothing, or an object of orders without any member that is not known. An empty list is taken for an empty
//! object: PHP writes one where it has nothing to say. What must stay true: what is wrong is named with its place,
//! and no payload leaves here that would break the frame it is put into.

use super::calls::{Content, Orders};
use super::{Admission, MAX_USER_BYTES, Published, Refusal, Renewal, Welcome};
use crate::auth::{Overrides, ServerSubscription};
use crate::config::Answered;
use crate::queue::json::Sent;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::message::ReplyError;
use longwire_protocol::{Close, CloseReason, ErrorCode};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// How much of an answer that is no JSON is repeated: enough to see that it is a page or a warning.
const SHOWN_CHARS: usize = 60;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Envelope<'a> {
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    disconnect: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireError {
    code: i64,
    message: Option<String>,
    temporary: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireDisconnect {
    code: i64,
    reason: Option<String>,
}

/// Reads an answer's body: what `decode` makes of the result, which may be absent, or a refusal.
///
/// The outer error says what is wrong with the body.
pub(super) fn read<T>(
    body: &[u8],
    decode: impl FnOnce(Option<&RawValue>) -> Result<T, String>,
) -> Result<Result<T, Refusal>, String> {
    let envelope: Envelope<'_> = object("the answer", json(body)?)?;
    let answered = if let Some(raw) = envelope.disconnect {
        let WireDisconnect { code, reason } = object("disconnect", raw.get())?;
        let code = u16::try_from(code).map_err(|_| "disconnect: the code is not from 4000 to 4999")?;
        Answered::Disconnect { code, reason: reason.unwrap_or_default() }
    } else if let Some(raw) = envelope.error {
        let WireError { code, message, temporary } = object("error", raw.get())?;
        let code = u32::try_from(code).map_err(|_| "error: the code is not from 400 to 1999")?;
        let (message, temporary) = (message.unwrap_or_default(), temporary.unwrap_or_default());
        Answered::Error { code, message, temporary }
    } else {
        return decode(envelope.result).map(Ok);
    };
    answered.check()?;
    Ok(Err(refusal(&answered)))
}

/// The text of a body that is JSON.
fn json(body: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("the answer is no UTF-8: {error}"))?;
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let shown: String = text.chars().take(SHOWN_CHARS).collect();
        return Err(format!("the answer is no JSON ({error}); it begins {shown:?}"));
    }
    Ok(text.trim())
}

/// The refusal that an answer, or a status, stands for.
pub(super) fn refusal(answered: &Answered) -> Refusal {
    match answered {
        Answered::Error { code, message, temporary } => {
            let known = ErrorCode::ALL.iter().find(|known| known.code() == *code && message.is_empty());
            let message = known.map_or(Cow::Owned(message.clone()), |known| Cow::Borrowed(known.text()));
            Refusal::Error(ReplyError { code: *code, message, temporary: *temporary })
        }
        Answered::Disconnect { code, reason } => {
            Refusal::Close(Close::custom(CloseReason::ForceDisconnect, *code, reason.clone()))
        }
    }
}

/// Reads an object; `what` names it in a problem.
fn object<'a, T: Deserialize<'a>>(what: &str, text: &'a str) -> Result<T, String> {
    let text = match text.strip_prefix('[') {
        Some(rest) if rest.trim_start().starts_with(']') => "{}",
        // Taken for the members in their order by the parser, and by nobody else.
        Some(_) => return Err(format!("{what}: is a list, not an object")),
        None => text,
    };
    serde_json::from_str(text).map_err(|error| format!("{what}: {error}"))
}

fn object_or_empty<'a, T: Deserialize<'a> + Default>(
    what: &str,
    raw: Option<&'a RawValue>,
) -> Result<T, String> {
    raw.map_or_else(|| Ok(T::default()), |raw| object(what, raw.get()))
}

/// A payload, or its base64 twin, which wins unless it is empty; empty if there is none.
///
/// Only who speaks Protobuf can be told what is no JSON.
fn payload(
    what: &str,
    raw: Option<&RawValue>,
    base64: Option<&str>,
    may_be_binary: bool,
) -> Result<Bytes, String> {
    let text = match base64.filter(|base64| !base64.is_empty()) {
        None => Cow::Borrowed(raw.map_or("", RawValue::get)),
        Some(base64) => {
            let bytes =
                STANDARD.decode(base64).map_err(|error| format!("b64{what} is no base64: {error}"))?;
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
            match String::from_utf8(bytes) {
                Ok(text) if is_json => Cow::Owned(text),
                Ok(text) if may_be_binary => return Ok(text.into()),
                Err(error) if may_be_binary => return Ok(error.into_bytes().into()),
                _ => return Err(format!("b64{what} holds no JSON, and the client speaks nothing else")),
            }
        }
    };
    Ok(one_line(&text))
}

/// JSON on one line: a frame ends at a newline. Inside JSON text it is escaped, so a raw one is between tokens, where a
/// space means the same.
fn one_line(text: &str) -> Bytes {
    Bytes::from(text.replace(['\n', '\r'], " "))
}

/// A time in seconds since 1970; 0 and none are never.
fn time(expire_at: Option<i64>) -> Option<i64> {
    expire_at.filter(|at| *at != 0)
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WireOverride {
    presence: Option<Flag>,
    join_leave: Option<Flag>,
    force_recovery: Option<Flag>,
    force_positioning: Option<Flag>,
    force_push_join_leave: Option<Flag>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Flag {
    value: bool,
}

fn overrides(raw: Option<&RawValue>) -> Result<Overrides, String> {
    let wire: WireOverride = object_or_empty("override", raw)?;
    let value = |flag: Option<Flag>| flag.map(|flag| flag.value);
    Ok(Overrides {
        presence: value(wire.presence),
        join_leave: value(wire.join_leave),
        force_recovery: value(wire.force_recovery),
        force_positioning: value(wire.force_positioning),
        force_push_join_leave: value(wire.force_push_join_leave),
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConnectResult<'a> {
    user: Option<String>,
    expire_at: Option<i64>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<&'a RawValue>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

/// What a subscription comes with: the result of the subscribe webhook, and a member of `subs`.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SubscribeResult<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override", borrow)]
    overrides: Option<&'a RawValue>,
    expire_at: Option<i64>,
}

impl SubscribeResult<'_> {
    fn terms(&self, may_be_binary: bool) -> Result<ServerSubscription, String> {
        Ok(ServerSubscription {
            info: payload("info", self.info, self.b64info.as_deref(), false)?,
            data: payload("data", self.data, self.b64data.as_deref(), may_be_binary)?,
            overrides: overrides(self.overrides)?,
        })
    }
}

pub(super) fn welcome(result: Option<&RawValue>, may_be_binary: bool) -> Result<Option<Welcome>, String> {
    let Some(raw) = result else { return Ok(None) };
    let wire: ConnectResult<'_> = object("result", raw.get())?;
    let mut channels: BTreeMap<String, ServerSubscription> =
        wire.channels.unwrap_or_default().into_iter().map(|channel| (channel, Default::default())).collect();
    let subs: BTreeMap<String, &RawValue> = object_or_empty("result.subs", wire.subs)?;
    for (channel, raw) in subs {
        let wire: SubscribeResult<'_> = object(&format!("result.subs[{channel:?}]"), raw.get())?;
        let terms = wire.terms(may_be_binary);
        let terms = terms.map_err(|problem| format!("result.subs[{channel:?}]: {problem}"))?;
        channels.insert(channel, terms);
    }
    Ok(Some(Welcome {
        user: wire.user.unwrap_or_default().into(),
        expires_at: time(wire.expire_at),
        info: payload("info", wire.info, wire.b64info.as_deref(), false)?,
        data: payload("data", wire.data, wire.b64data.as_deref(), may_be_binary)?,
        meta: payload("meta", wire.meta, None, false)?,
        channels: channels.into_iter().collect(),
    }))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RefreshResult<'a> {
    expired: Option<bool>,
    expire_at: Option<i64>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

pub(super) fn renewal(result: Option<&RawValue>) -> Result<Renewal, String> {
    // Who says nothing about the user does not prolong anything.
    let Some(raw) = result else { return Ok(Renewal::Expired) };
    let wire: RefreshResult<'_> = object("result", raw.get())?;
    if wire.expired == Some(true) {
        return Ok(Renewal::Expired);
    }
    let info = payload("info", wire.info, wire.b64info.as_deref(), false)?;
    let meta = payload("meta", wire.meta, None, false)?;
    let given = |bytes: Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
    Ok(Renewal::Until { expires_at: time(wire.expire_at), info: given(info), meta: given(meta) })
}

pub(super) fn admission(result: Option<&RawValue>, may_be_binary: bool) -> Result<Admission, String> {
    let wire: SubscribeResult<'_> = object_or_empty("result", result)?;
    Ok(Admission { terms: wire.terms(may_be_binary)?, expires_at: time(wire.expire_at) })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PublishResult<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    skip_history: Option<bool>,
    #[serde(borrow)]
    tags: Option<&'a RawValue>,
    idempotency_key: Option<String>,
    delta: Option<bool>,
    version: Option<u64>,
    version_epoch: Option<String>,
}

pub(super) fn published(result: Option<&RawValue>, may_be_binary: bool) -> Result<Published, String> {
    let wire: PublishResult<'_> = object_or_empty("result", result)?;
    let tags: BTreeMap<String, String> = object_or_empty("result.tags", wire.tags)?;
    let data = payload("data", wire.data, wire.b64data.as_deref(), may_be_binary)?;
    Ok(Published {
        data: Some(data).filter(|data| !data.is_empty()),
        skip_history: wire.skip_history.unwrap_or_default(),
        tags: tags.into_iter().collect(),
        idempotency_key: wire.idempotency_key.unwrap_or_default(),
        delta: wire.delta.unwrap_or_default(),
        version: wire.version.unwrap_or_default(),
        version_epoch: wire.version_epoch.unwrap_or_default(),
    })
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RpcResult<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
}

pub(super) fn rpc(result: Option<&RawValue>, may_be_binary: bool) -> Result<Bytes, String> {
    let wire: RpcResult<'_> = object_or_empty("result", result)?;
    payload("data", wire.data, wire.b64data.as_deref(), may_be_binary)
}

/// What the backend answers to a call about a plain connection. Each member is read by itself, so that a problem can
/// name it.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct WireOrders<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    b64data: Option<&'a RawValue>,
    #[serde(borrow)]
    join: Option<&'a RawValue>,
    #[serde(borrow)]
    leave: Option<&'a RawValue>,
    #[serde(borrow)]
    user: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "given")]
    session_data: Option<&'a RawValue>,
    #[serde(borrow)]
    publish: Option<&'a RawValue>,
    #[serde(borrow)]
    queue_publish: Option<&'a RawValue>,
    #[serde(borrow)]
    close: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WirePublication<'a> {
    channel: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    b64data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireClose {
    code: u16,
    #[serde(default)]
    reason: String,
}

/// A member that is there, also if it is `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A member by its name, if it is there.
fn member<'a, T: Deserialize<'a>>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, String> {
    raw.map(|raw| serde_json::from_str(raw.get()).map_err(|error| format!("{name}: {error}"))).transpose()
}

/// Data as JSON, or any bytes in base64; `place` leads to the two members.
fn content(
    place: &str,
    data: Option<&RawValue>,
    b64data: Option<&RawValue>,
) -> Result<Option<Content>, String> {
    match (data, member::<Cow<'_, str>>(&format!("{place}b64data"), b64data)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(format!("{place}data and {place}b64data are both there")),
        (Some(data), None) => Ok(Some(Content { data: one_line(data.get()), is_json: true })),
        (None, Some(base64)) => {
            let decoded = STANDARD.decode(&*base64);
            let data = decoded.map_err(|error| format!("{place}b64data is no base64: {error}"))?;
            Ok(Some(Content { data: data.into(), is_json: false }))
        }
    }
}

/// Reads what the backend answers to a call about a plain connection; nothing orders nothing.
///
/// The outer error says what is wrong with the body.
pub(super) fn orders(body: &[u8], max_session_data_bytes: usize) -> Result<Result<Orders, Refusal>, String> {
    if body.trim_ascii().is_empty() {
        return Ok(Ok(Orders::default()));
    }
    let wire: WireOrders<'_> = object("the answer", json(body)?)?;
    let session_data = match wire.session_data.map(RawValue::get) {
        None => None,
        Some("null") => Some(Bytes::new()),
        Some(text) => {
            let _: BTreeMap<Cow<'_, str>, &RawValue> = object("session_data", text)?;
            if text.len() > max_session_data_bytes {
                let limit = "plain.max_session_data_bytes allows";
                return Err(format!("session_data has {} bytes, more than {limit}", text.len()));
            }
            Some(if text.starts_with('[') { Bytes::from_static(b"{}") } else { one_line(text) })
        }
    };
    let mut publish = Vec::new();
    let publications: Vec<&RawValue> = member("publish", wire.publish)?.unwrap_or_default();
    for (index, raw) in publications.into_iter().enumerate() {
        let wire: WirePublication<'_> = object(&format!("publish[{index}]"), raw.get())?;
        let content = content(&format!("publish[{index}]."), wire.data, wire.b64data)?;
        let nothing = || format!("publish[{index}] has neither data nor b64data");
        publish.push((wire.channel, content.ok_or_else(nothing)?));
    }
    let mut queue_publish = Vec::new();
    let messages: Vec<&RawValue> = member("queue_publish", wire.queue_publish)?.unwrap_or_default();
    for (index, raw) in messages.into_iter().enumerate() {
        let place = format!("queue_publish[{index}]");
        let members: BTreeMap<Cow<'_, str>, &RawValue> = object(&place, raw.get())?;
        if let Some(name) = members.keys().find(|name| !Sent::MEMBERS.contains(&&***name)) {
            return Err(format!("{place}: unknown member {name:?}"));
        }
        let sent: Sent<'_> = object(&place, raw.get())?;
        let message = sent.into_message("");
        queue_publish.push(message.map_err(|problem| format!("queue_publish[{index}].{problem}"))?);
    }
    let user = member::<String>("user", wire.user)?;
    if user.as_ref().is_some_and(|user| user.len() > MAX_USER_BYTES) {
        return Err(format!("user: longer than {MAX_USER_BYTES} bytes"));
    }
    let close = match wire.close {
        None => None,
        Some(raw) => {
            let WireClose { code, reason } = object("close", raw.get())?;
            let answered = Answered::Disconnect { code, reason };
            answered.check().map_err(|problem| format!("close: {problem}"))?;
            match refusal(&answered) {
                Refusal::Close(close) => Some(close),
                Refusal::Failed | Refusal::Error(_) => None,
            }
        }
    };
    Ok(Ok(Orders {
        data: content("", wire.data, wire.b64data)?,
        join: member("join", wire.join)?.unwrap_or_default(),
        leave: member("leave", wire.leave)?.unwrap_or_default(),
        user: user.map(Into::into),
        session_data,
        publish,
        queue_publish,
        close,
    }))
}

#[cfg(test)]
mod tests;
