//! Messages of queues as backends write and read them in JSON: in calls of the HTTP API and in webhooks' answers.
//!
//! What must stay true: what is read and what is written of a message are the same members, so that who is given a
//! message can send it again; no name of a header passes that is the server's own; what is wrong is said with the
//! member's name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longwire_protocol::json::{write_number, write_payload, write_string};
use longwire_protocol::queue::{DEFAULT_PRIORITY, Expiry, Headers, Message, NewMessage, is_reserved_header};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::time::Duration;

/// A message that a backend sends: a body of one of three kinds, and what goes with it.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Sent<'a> {
    queue: Option<String>,
    /// The body is this JSON.
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// The body is this text.
    text: Option<String>,
    /// The body is these bytes, in base64.
    b64data: Option<String>,
    /// Names and values; of PHP's making an empty list, too.
    #[serde(borrow)]
    headers: Option<&'a RawValue>,
    priority: Option<u8>,
    /// True if absent.
    persistent: Option<bool>,
    delay_ms: Option<u64>,
    /// 0: for ever.
    ttl_ms: Option<u64>,
}

impl Sent<'_> {
    /// What a message may have, for those who refuse what it may not.
    pub const MEMBERS: [&'static str; 9] =
        ["queue", "data", "text", "b64data", "headers", "priority", "persistent", "delay_ms", "ttl_ms"];

    /// The message; `queue` is that of one which names none.
    ///
    /// # Errors
    /// What is wrong with which member.
    pub fn into_message(self, queue: &str) -> Result<NewMessage, String> {
        let Sent { queue: own, data, text, b64data, headers, priority, persistent, delay_ms, ttl_ms } = self;
        let queue = own.as_deref().filter(|own| !own.is_empty()).unwrap_or(queue);
        if queue.is_empty() {
            return Err("queue: is missing".to_owned());
        }
        let (body, content_type) = match (data, text, b64data) {
            (Some(data), None, None) => {
                (Bytes::copy_from_slice(data.get().as_bytes()), Some("application/json"))
            }
            (None, Some(text), None) => (text.into(), Some("text/plain")),
            (None, None, Some(base64)) => {
                let bytes = STANDARD.decode(base64);
                (bytes.map_err(|error| format!("b64data: is no base64: {error}"))?.into(), None)
            }
            (None, None, None) => (Bytes::new(), None),
            _ => return Err("data, text, b64data: only one of them can be the body".to_owned()),
        };
        let mut headers: BTreeMap<String, String> = match headers.map(RawValue::get) {
            None => BTreeMap::new(),
            Some(list) if list.strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]") => {
                BTreeMap::new()
            }
            Some(text) => serde_json::from_str(text).map_err(|error| format!("headers: {error}"))?,
        };
        let is_ours = |name: &&String| name.is_empty() || is_reserved_header(name);
        if let Some(name) = headers.keys().find(is_ours) {
            return Err(format!("headers: the name {name:?} is the server's own"));
        }
        if let Some(content_type) = content_type {
            headers.entry("content-type".to_owned()).or_insert_with(|| content_type.to_owned());
        }
        let priority = priority.unwrap_or(DEFAULT_PRIORITY);
        if priority > 9 {
            return Err("priority: is from 0 to 9".to_owned());
        }
        let ttl = ttl_ms.filter(|ttl| *ttl > 0).map(Duration::from_millis);
        Ok(NewMessage {
            queue: queue.into(),
            headers: Headers::of(headers.iter().map(|(name, value)| (&**name, &**value))),
            body,
            priority,
            is_persistent: persistent.unwrap_or(true),
            expiry: ttl.map(Expiry::After),
            delay: Duration::from_millis(delay_ms.unwrap_or_default()),
        })
    }
}

/// Writes the members of a message. The body is `data` where it says that it is JSON and is, `text` where it is that, and
/// `b64data` otherwise.
pub fn write_message(message: &Message, redeliveries: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\"id\":");
    write_string(&message.id, out);
    out.extend_from_slice(b",\"queue\":");
    write_string(&message.queue, out);
    let content_type = message.headers.get("content-type");
    let says_json = content_type.as_deref().is_some_and(|kind| kind.starts_with("application/json"));
    // The parser refuses what is nested too deep for those who read the answer.
    if says_json && serde_json::from_slice::<serde::de::IgnoredAny>(&message.body).is_ok() {
        out.extend_from_slice(b",\"data\":");
        write_payload(&message.body, out);
    } else if let Ok(text) = std::str::from_utf8(&message.body) {
        out.extend_from_slice(b",\"text\":");
        write_string(text, out);
    } else {
        out.extend_from_slice(b",\"b64data\":");
        write_string(&STANDARD.encode(&message.body), out);
    }
    out.extend_from_slice(b",\"headers\":{");
    for (at, (name, value)) in message.headers.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_string(&name, out);
        out.push(b':');
        write_string(&value, out);
    }
    out.extend_from_slice(b"},\"priority\":");
    write_number(message.priority.into(), out);
    let persistent = message.is_persistent;
    out.extend_from_slice(format!(",\"persistent\":{persistent},\"redeliveries\":{redeliveries}").as_bytes());
    out.extend_from_slice(b",\"sent_at_ms\":");
    write_number(message.sent_at, out);
    if message.expires > 0 {
        out.extend_from_slice(b",\"expires_at_ms\":");
        write_number(message.expires, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(json: &str) -> Result<NewMessage, String> {
        serde_json::from_str::<Sent<'_>>(json).expect(json).into_message("usual")
    }

    fn written(new: &NewMessage) -> serde_json::Value {
        let message = Message {
            id: "1-2".into(),
            queue: new.queue.clone(),
            headers: new.headers.clone(),
            body: new.body.clone(),
            priority: new.priority,
            is_persistent: new.is_persistent,
            expires: 0,
            sent_at: 5,
        };
        let mut out = vec![b'{'];
        write_message(&message, 2, &mut out);
        out.push(b'}');
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_body_of_each_kind_comes_back_as_what_it_was_sent_as() {
        for (sent, body, member) in [
            (r#"{"data":{"a":[1, 2]}}"#, &b"{\"a\":[1, 2]}"[..], "data"),
            (r#"{"data":"x"}"#, b"\"x\"", "data"),
            (r#"{"text":"{\"a\":1}"}"#, b"{\"a\":1}", "text"),
            (r#"{"b64data":"/wA="}"#, b"\xff\0", "b64data"),
            (r#"{"b64data":"YQ=="}"#, b"a", "text"),
            (r#"{}"#, b"", "text"),
            // It says what it is not.
            (r#"{"text":"{","headers":{"content-type":"application/json"}}"#, b"{", "text"),
        ] {
            let new = made(sent).unwrap();
            assert_eq!(&new.body[..], body, "{sent}");
            let shown = written(&new);
            assert!(shown.get(member).is_some(), "{sent}: {shown}");
            let again = made(&serde_json::json!({member: shown[member]}).to_string()).unwrap();
            let value = |body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).ok();
            assert!(again.body == new.body || value(&again.body) == value(&new.body), "{sent}");
        }
    }

    #[test]
    fn what_goes_with_a_message_goes_with_it() {
        let new = made(
            r#"{"queue":"q","text":"x","headers":{"a:b":"1\n2"},"priority":7,"persistent":false,"ttl_ms":5,"delay_ms":9}"#,
        )
        .unwrap();
        assert_eq!((&*new.queue, new.priority, new.is_persistent), ("q", 7, false));
        assert_eq!((new.expiry, new.delay.as_millis()), (Some(Expiry::After(Duration::from_millis(5))), 9));
        assert_eq!(&new.headers.as_bytes()[..], b"a\\cb:1\\n2\ncontent-type:text/plain\n");
        let shown = written(&new);
        assert_eq!((&shown["headers"]["a:b"], &shown["redeliveries"]), (&"1\n2".into(), &2.into()));
        let usual = made(r#"{"headers":[ ]}"#).unwrap();
        assert_eq!((&*usual.queue, usual.priority, usual.is_persistent), ("usual", DEFAULT_PRIORITY, true));
        assert_eq!((usual.expiry, usual.delay), (None, Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_its_member() {
        for (sent, member) in [
            (r#"{"data":1,"text":"x"}"#, "data, text, b64data"),
            (r#"{"b64data":"?"}"#, "b64data"),
            (r#"{"priority":10}"#, "priority"),
            (r#"{"headers":{"redelivered":"false"}}"#, "headers"),
            (r#"{"headers":{"":"x"}}"#, "headers"),
            (r#"{"headers":{"priority":"9"}}"#, "headers"),
            (r#"{"headers":["x"]}"#, "headers"),
            (r#"{"headers":{"x":5}}"#, "headers"),
        ] {
            let problem = made(sent).expect_err(sent);
            assert!(problem.starts_with(&format!("{member}:")), "{sent}: {problem}");
        }
    }
}
