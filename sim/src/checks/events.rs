//! Whether the application hears what befell each client: in order, whole, and from its beginning to its end.
//!
//! It judges what is heard by itself (ids, numbers, pairs) and leaves to its caller what must agree with what
//! servers logged and clients were told.

use crate::trace::Promise;
use longwire::env::http::Call;
use longwire::signature;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// How old a signature may be: what a call may take.
const MAX_AGE_SECONDS: i64 = 60;

/// What the application heard.
#[derive(Default)]
pub(super) struct Ears {
    /// By id, what was said under it.
    events: BTreeMap<String, String>,
    /// By id, the body of a delivery.
    deliveries: BTreeMap<String, Vec<u8>>,
    clients: BTreeMap<String, Known>,
    /// By node and channel, whether the channel is in use there.
    channels: BTreeMap<(String, String), bool>,
    /// Events that came again.
    pub(super) repeated: u64,
}

/// What was heard of one client.
#[derive(Default)]
struct Known {
    seq: u32,
    subscribed: BTreeSet<String>,
    has_ended: bool,
}

/// What was heard of the end of a client.
pub(super) struct End {
    pub(super) client: String,
    pub(super) reason: String,
    /// It was told by a process that came after the one that is lost.
    pub(super) is_reconciled: bool,
}

type Judged<T> = Result<T, (Promise, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delivery {
    events: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "time_ms")]
    _time_ms: i64,
    node: String,
    client: Option<String>,
    seq: Option<u32>,
    user: Option<String>,
    transport: Option<String>,
    dialect: Option<String>,
    protocol: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "version")]
    _version: Option<String>,
    channel: Option<String>,
    #[serde(rename = "recovered")]
    _recovered: Option<bool>,
    reason: Option<String>,
    #[serde(rename = "code")]
    _code: Option<u32>,
    #[serde(rename = "category")]
    _category: Option<String>,
    #[serde(rename = "initiator")]
    _initiator: Option<String>,
    #[serde(rename = "detail")]
    _detail: Option<String>,
    #[serde(rename = "duration_ms")]
    _duration_ms: Option<u64>,
    #[serde(rename = "last_seen_ms_ago")]
    _last_seen_ms_ago: Option<u64>,
    #[serde(rename = "unsent_bytes")]
    _unsent_bytes: Option<u64>,
    reconciled: Option<bool>,
    #[serde(rename = "known_until_ms")]
    _known_until_ms: Option<i64>,
}

impl Ears {
    /// Hears a delivery; gives out which clients ended.
    pub(super) fn hear(&mut self, call: &Call, secret: &str, now_unix: i64) -> Judged<Vec<End>> {
        let malformed = |what: String| (Promise::WellFormed, format!("a delivery of events: {what}"));
        let header = |name: &str| {
            let found = call.headers.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| value.as_str()).ok_or_else(|| malformed(format!("no header {name}")))
        };
        let signed = header("x-longwire-signature")?;
        let time = signed.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")?.0.parse::<i64>().ok());
        let time = time.ok_or_else(|| malformed(format!("the signature {signed}")))?;
        if signature::sign(secret, time, &call.body) != signed
            || !(0..=MAX_AGE_SECONDS).contains(&(now_unix - time))
        {
            return Err(malformed(format!("the signature {signed} at {now_unix}")));
        }
        let id = header("x-longwire-delivery")?.to_owned();
        let before = self.deliveries.entry(id.clone()).or_insert_with(|| call.body.to_vec());
        if *before != *call.body {
            return Err((Promise::EventOrder, format!("the delivery {id} says something else than before")));
        }
        let delivery: Delivery =
            serde_json::from_slice(&call.body).map_err(|error| malformed(error.to_string()))?;
        let mut ends = Vec::new();
        for raw in delivery.events {
            let said: Said = serde_json::from_str(raw.get())
                .map_err(|error| malformed(format!("{error} in {}", raw.get())))?;
            match self.events.get(&said.id) {
                Some(before) if before == raw.get() => self.repeated += 1,
                Some(before) => {
                    let what = format!("{} was {before}, and is {}", said.id, raw.get());
                    return Err((Promise::EventOrder, what));
                }
                None => {
                    self.events.insert(said.id.clone(), raw.get().to_owned());
                    let judged = self
                        .take(said)
                        .map_err(|(promise, what)| (promise, format!("{what}, says {}", raw.get())));
                    ends.extend(judged?);
                }
            }
        }
        Ok(ends)
    }

    /// Judges an event that was not heard before.
    fn take(&mut self, said: Said) -> Judged<Option<End>> {
        let paired = |what: &str| Err((Promise::EventPairs, what.to_owned()));
        let malformed = |what: &str| (Promise::WellFormed, format!("an event without {what}"));
        if let "occupied" | "vacated" = &*said.kind {
            let channel = said.channel.ok_or_else(|| malformed("a channel"))?;
            let is_occupied = said.kind == "occupied";
            let was_occupied = self.channels.insert((said.node, channel), is_occupied).unwrap_or(false);
            return if was_occupied == is_occupied { paired("a channel as it was before") } else { Ok(None) };
        }
        let client = said.client.ok_or_else(|| malformed("a client"))?;
        for (name, field) in [
            ("a user", &said.user),
            ("a transport", &said.transport),
            ("a dialect", &said.dialect),
            ("a protocol", &said.protocol),
        ] {
            field.as_ref().ok_or_else(|| malformed(name))?;
        }
        let is_connected = said.kind == "connected";
        if is_connected == self.clients.contains_key(&client) {
            return paired(if is_connected {
                "a client that is known"
            } else {
                "a client that is not known"
            });
        }
        let known = self.clients.entry(client.clone()).or_default();
        if known.has_ended {
            return paired("a client that was disconnected");
        }
        if said.seq != Some(known.seq + 1) {
            let what = format!("number {:?} of a client after {}", said.seq, known.seq);
            return Err((Promise::EventOrder, what));
        }
        known.seq += 1;
        match (&*said.kind, said.channel) {
            ("connected", None) => Ok(None),
            ("disconnected", None) if !known.subscribed.is_empty() => {
                paired("the end of a client that is subscribed")
            }
            ("disconnected", None) => {
                known.has_ended = true;
                let reason = said.reason.ok_or_else(|| malformed("a reason"))?;
                Ok(Some(End { client, reason, is_reconciled: said.reconciled == Some(true) }))
            }
            ("subscribed", Some(channel)) => match known.subscribed.insert(channel) {
                true => Ok(None),
                false => paired("a second subscription"),
            },
            ("unsubscribed", Some(channel)) => match known.subscribed.remove(&channel) {
                true => Ok(None),
                false => paired("the end of a subscription that did not begin"),
            },
            _ => Err(malformed("a type that it could have")),
        }
    }

    /// Whether the application heard that a client came.
    pub(super) fn knows(&self, client: &str) -> bool {
        self.clients.contains_key(client)
    }

    /// How many different events were heard.
    pub(super) fn heard(&self) -> u64 {
        self.events.len() as u64
    }

    /// Whatever began must have ended.
    pub(super) fn require_all_ended(&self) -> Judged<()> {
        if let Some((client, known)) = self.clients.iter().find(|(_, known)| !known.has_ended) {
            let what = format!("{client} connected and never left, its last number is {}", known.seq);
            return Err((Promise::EventPairs, what));
        }
        match self.channels.iter().find(|(_, is_occupied)| **is_occupied) {
            Some(((node, channel), _)) => {
                Err((Promise::EventPairs, format!("{channel} is occupied for ever on {node}")))
            }
            None => Ok(()),
        }
    }
}
