//! An event, from a shard's cheap note of it to the JSON that the backend gets and the record on the disk.
//!
//! A shard makes an [`Event`]; the courier gives it an id and its place in the journal as a [`Kept`], whose JSON
//! is never changed after that: every attempt to deliver it, also after a restart, says the same. The record has
//! a small head, so that nobody parses JSON to know whom an event is about. What must stay true: a record that was
//! written is read the same, and one that cannot be read is left out, not guessed.

pub use crate::config::EventType;

use crate::journal::{self, Sequence};
use bytes::Bytes;
use longwire_protocol::message::ClientId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;

/// The longest text that a peer chooses and an event repeats; what is longer is cut.
const MAX_TEXT_BYTES: usize = 256;

/// About what an event takes in memory beside its texts.
const EVENT_BYTES: usize = 256;

/// In a record's kind: the event ends what a lost process began.
const RECONCILED: u8 = 0x10;
/// In a record's kind: the event waits for delivery behind events that came after it.
const MOVED: u8 = 0x20;
/// In a record's kind: the event was delivered; the record only says that what it began goes on.
const CARRIED: u8 = 0x80;
/// The kind of a record that says how far deliveries came.
const MARK: u8 = 0x40;

/// Something that happened, as a shard knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What happened.
    pub kind: EventType,
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The client it is about, unless it is about a channel alone.
    pub client: Option<Client>,
    /// The channel it is about.
    pub channel: Option<Arc<str>>,
    /// What only events of this type have.
    pub details: Details,
}

/// The client an event is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// The number of the event among those of this client, from 1; 0 for one that is not sent.
    pub seq: u32,
    /// Whose client it is; empty for the anonymous user.
    pub user: Arc<str>,
    /// How its bytes travel.
    pub transport: &'static str,
    /// What they mean.
    pub dialect: &'static str,
    /// How that is written.
    pub protocol: &'static str,
}

/// What only events of one type have.
#[derive(Clone, Debug, PartialEq)]
pub enum Details {
    /// Nothing.
    None,
    /// How a client calls itself.
    Connected {
        /// Name of its SDK; empty if unknown.
        name: String,
        /// Version of its SDK; empty if unknown.
        version: String,
    },
    /// How a connection ended.
    Disconnected(Box<Disconnected>),
    /// How a subscription began.
    Subscribed {
        /// Whether everything that was missed came; `None` if nobody asked.
        recovered: Option<bool>,
    },
    /// Why a subscription ended.
    Unsubscribed {
        /// The code.
        code: u32,
        /// In words.
        reason: &'static str,
    },
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Disconnected {
    /// The reason's name in docs/close-codes.md.
    pub reason: &'static str,
    /// The code that the client was sent, or sent.
    pub code: u16,
    /// Who or what ended it.
    pub category: &'static str,
    /// Which end began.
    pub initiator: &'static str,
    /// The broken rule or the error.
    pub detail: String,
    /// How long it was open.
    pub duration_ms: u64,
    /// How long before its end the last byte came.
    pub last_seen_ms_ago: u64,
    /// Bytes that were never written.
    pub unsent_bytes: u64,
}

impl Event {
    /// About how much memory the event takes.
    pub fn memory_bytes(&self) -> usize {
        let texts = match &self.details {
            Details::Connected { name, version } => name.len() + version.len(),
            Details::Disconnected(end) => end.detail.len(),
            Details::None | Details::Subscribed { .. } | Details::Unsubscribed { .. } => 0,
        };
        EVENT_BYTES + texts + self.client.as_ref().map_or(0, |client| client.user.len())
    }

    /// What is written of it, but for its id.
    pub fn draft(&self, node: &str) -> Draft {
        let mut body = Body {
            kind: self.kind.as_str().into(),
            time_ms: self.time_ms,
            node: node.to_owned().into(),
            channel: self.channel.as_deref().map(|channel| channel.to_owned().into()),
            ..Body::default()
        };
        if let Some(client) = &self.client {
            body.client = Some(client.id.to_string().into());
            body.seq = (client.seq > 0).then_some(client.seq);
            body.user = Some(client.user.to_string().into());
            body.transport = Some(client.transport.into());
            body.dialect = Some(client.dialect.into());
            body.protocol = Some(client.protocol.into());
        }
        match &self.details {
            Details::None => {}
            Details::Connected { name, version } => {
                body.name = known(name);
                body.version = known(version);
            }
            Details::Disconnected(end) => {
                body.reason = Some(end.reason.into());
                body.code = Some(end.code.into());
                body.category = Some(end.category.into());
                body.initiator = Some(end.initiator.into());
                body.detail = known(&end.detail);
                body.duration_ms = Some(end.duration_ms);
                body.last_seen_ms_ago = Some(end.last_seen_ms_ago);
                body.unsent_bytes = Some(end.unsent_bytes);
            }
            Details::Subscribed { recovered } => body.recovered = *recovered,
            Details::Unsubscribed { code, reason } => {
                body.code = Some(*code);
                body.reason = Some((*reason).into());
            }
        }
        Draft {
            kind: self.kind,
            client: self.client.as_ref().map(|client| client.id),
            channel: self.channel.as_deref().unwrap_or_default().into(),
            seq: self.client.as_ref().map_or(0, |client| client.seq),
            body,
        }
    }
}

/// A text that a peer chose, cut to a bound; `None` if it is empty.
fn known(text: &str) -> Option<Cow<'static, str>> {
    let end = (0..=text.len().min(MAX_TEXT_BYTES)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    (!text.is_empty()).then(|| text[..end].to_owned().into())
}

/// What the backend is sent of an event; docs/events.md describes each field.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "docs/events.md has the fields, one description for both readers")]
pub struct Body<'a> {
    pub id: Cow<'a, str>,
    #[serde(rename = "type")]
    pub kind: Cow<'a, str>,
    pub time_ms: i64,
    pub node: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transport: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initiator: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen_ms_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsent_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconciled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_until_ms: Option<i64>,
}

/// An event that has no id yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// What happened.
    pub kind: EventType,
    /// The client it is about.
    pub client: Option<ClientId>,
    /// The channel it is about; empty if none.
    pub channel: Box<str>,
    /// The number of the event among those of the client.
    pub seq: u32,
    /// What is sent of it.
    pub body: Body<'static>,
}

impl Draft {
    /// The event with its place and its id.
    pub fn finish(mut self, sequence: Sequence, id: String) -> Kept {
        self.body.id = id.into();
        let json = serde_json::to_vec(&self.body).expect("numbers and texts can be JSON");
        Kept {
            sequence,
            standing: Standing::Waits,
            kind: self.kind,
            client: self.client,
            channel: self.channel,
            seq: self.seq,
            time_ms: self.body.time_ms,
            is_reconciled: self.body.reconciled == Some(true),
            json: json.into(),
        }
    }
}

/// What a record of an event stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// The event is to be delivered in its place.
    Waits,
    /// The same, but it was moved behind events that came after it.
    Moved,
    /// It was dealt with; what it began goes on.
    Carried,
}

/// An event in its place in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// Its place.
    pub sequence: Sequence,
    /// What the record stands for.
    pub standing: Standing,
    /// What happened.
    pub kind: EventType,
    /// The client it is about.
    pub client: Option<ClientId>,
    /// The channel it is about; empty if none.
    pub channel: Box<str>,
    /// The newest number among the client's events when the record was written.
    pub seq: u32,
    /// When it happened, in milliseconds since 1970.
    pub time_ms: i64,
    /// It ends what a lost process began: its time is that of a start, and says nothing of that process's life.
    pub is_reconciled: bool,
    /// What is sent of it.
    pub json: Bytes,
}

/// What a record of the journal says.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An event.
    Event(Kept),
    /// How far deliveries came, and the epoch of the ids that were given.
    Mark {
        /// Everything up to here is dealt with.
        position: Sequence,
        /// The epoch.
        epoch: u64,
    },
}

impl Kept {
    /// The record of it: kind and payload.
    pub fn encode(&self) -> (u8, Vec<u8>) {
        let flag = match self.standing {
            Standing::Waits => 0,
            Standing::Moved => MOVED,
            Standing::Carried => CARRIED,
        };
        let mut payload = Vec::with_capacity(self.payload_bytes());
        payload.extend_from_slice(&self.seq.to_le_bytes());
        payload.extend_from_slice(&self.time_ms.to_le_bytes());
        payload.extend_from_slice(&self.client.map_or(0, |client| client.0).to_le_bytes());
        payload.extend_from_slice(&(self.channel.len() as u32).to_le_bytes());
        payload.extend_from_slice(self.channel.as_bytes());
        payload.extend_from_slice(&self.json);
        let reconciled = if self.is_reconciled { RECONCILED } else { 0 };
        (self.kind.number() | flag | reconciled, payload)
    }

    fn payload_bytes(&self) -> usize {
        4 + 8 + 16 + 4 + self.channel.len() + self.json.len()
    }

    /// About how many bytes of the disk it takes.
    pub fn disk_bytes(&self) -> u64 {
        // Each record has a head of 29 bytes.
        (self.payload_bytes() + 29) as u64
    }
}

impl Line {
    /// The record of a mark: kind and payload.
    pub fn mark(position: Sequence, epoch: u64) -> (u8, Vec<u8>) {
        (MARK, [position.to_le_bytes(), epoch.to_le_bytes()].concat())
    }

    /// What a record says; `None` if this version does not know it.
    pub fn decode(record: journal::Record) -> Option<Line> {
        let mut rest = &record.payload[..];
        if record.kind == MARK {
            let (position, epoch) = (number(&mut rest)?, number(&mut rest)?);
            return Some(Line::Mark {
                position: u64::from_le_bytes(position),
                epoch: u64::from_le_bytes(epoch),
            });
        }
        let standing = match record.kind & (MOVED | CARRIED) {
            0 => Standing::Waits,
            MOVED => Standing::Moved,
            CARRIED => Standing::Carried,
            _ => return None,
        };
        let kind = EventType::numbered(record.kind & !(MOVED | CARRIED | RECONCILED))?;
        let seq = u32::from_le_bytes(number(&mut rest)?);
        let time_ms = i64::from_le_bytes(number(&mut rest)?);
        let client = ClientId(u128::from_le_bytes(number(&mut rest)?));
        let length = u32::from_le_bytes(number(&mut rest)?) as usize;
        let (channel, json) = rest.split_at_checked(length)?;
        let channel = std::str::from_utf8(channel).ok()?.into();
        let json_at = record.payload.len() - json.len();
        Some(Line::Event(Kept {
            sequence: record.sequence,
            standing,
            kind,
            client: kind.has_client().then_some(client),
            channel,
            seq,
            time_ms,
            is_reconciled: record.kind & RECONCILED != 0,
            json: Bytes::from(record.payload).slice(json_at..),
        }))
    }
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn client() -> Client {
        Client {
            id: ClientId(7),
            seq: 3,
            user: "ann \"a\"".into(),
            transport: "websocket",
            dialect: "centrifuge",
            protocol: "json",
        }
    }

    fn json_of(event: &Event) -> Value {
        let kept = event.draft("the-node").finish(5, "id-5".to_owned());
        serde_json::from_slice(&kept.json).unwrap()
    }

    #[test]
    fn an_event_says_who_what_when_and_where() {
        let mut event = Event {
            kind: EventType::Connected,
            time_ms: 1234,
            client: Some(client()),
            channel: None,
            details: Details::Connected { name: "js".into(), version: String::new() },
        };
        let about = json!({"id": "id-5", "type": "connected", "time_ms": 1234, "node": "the-node",
            "client": "00000000-0000-0000-0000-000000000007", "seq": 3, "user": "ann \"a\"",
            "transport": "websocket", "dialect": "centrifuge", "protocol": "json", "name": "js"});
        assert_eq!(json_of(&event), about);
        event.kind = EventType::Disconnected;
        event.details = Details::Disconnected(Box::new(Disconnected {
            reason: "NoHeartbeat",
            code: 3012,
            category: "network",
            initiator: "server",
            detail: "é".repeat(200),
            duration_ms: 1,
            last_seen_ms_ago: 2,
            unsent_bytes: 3,
        }));
        let json = json_of(&event);
        assert_eq!(json["reason"], "NoHeartbeat");
        assert_eq!(json["detail"], "é".repeat(128), "a long text is cut between two characters");
        assert_eq!((&json["code"], &json["unsent_bytes"]), (&json!(3012), &json!(3)));
    }

    #[test]
    fn an_event_of_a_channel_names_no_client() {
        let event = Event {
            kind: EventType::Vacated,
            time_ms: 1,
            client: None,
            channel: Some("news".into()),
            details: Details::None,
        };
        assert_eq!(
            json_of(&event),
            json!({"id": "id-5", "type": "vacated", "time_ms": 1, "node": "the-node", "channel": "news"})
        );
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let event = Event {
            kind: EventType::Subscribed,
            time_ms: -1,
            client: Some(client()),
            channel: Some("chat:1".into()),
            details: Details::Subscribed { recovered: Some(false) },
        };
        for (standing, is_reconciled) in
            [(Standing::Waits, false), (Standing::Moved, true), (Standing::Carried, false)]
        {
            let kept = Kept { standing, is_reconciled, ..event.draft("n").finish(9, "i".into()) };
            let (kind, payload) = kept.encode();
            assert_eq!(payload.len() as u64 + 29, kept.disk_bytes());
            let record = journal::Record { sequence: 9, kind, payload: payload.clone() };
            assert_eq!(Line::decode(record), Some(Line::Event(kept)));
            // No part of it is taken for a whole.
            for end in 0..32 + "chat:1".len() {
                let record = journal::Record { sequence: 9, kind, payload: payload[..end].to_vec() };
                assert_eq!(Line::decode(record), None, "{end}");
            }
        }
        let (kind, payload) = Line::mark(7, 8);
        let record = journal::Record { sequence: 1, kind, payload };
        assert_eq!(Line::decode(record), Some(Line::Mark { position: 7, epoch: 8 }));
        for kind in [0, 7, MOVED | CARRIED | 1, MARK | 1] {
            assert_eq!(Line::decode(journal::Record { sequence: 1, kind, payload: vec![0; 64] }), None);
        }
    }
}
