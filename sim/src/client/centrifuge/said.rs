//! What a server says, whichever format it says it in, and what a client asks.
//!
//! `json` and `protobuf` read [`Line`]s and write [`Ask`]s. Reading is strict: a member that the protocol's
//! definition does not have here is an error. What it is not: it knows neither what was asked nor what is
//! subscribed.

use crate::client::Wanted;
use longwire_protocol::centrifuge::Format;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// One thing that the server says.
#[derive(Debug)]
pub(super) enum Line {
    Beat,
    /// The channel is empty where the push is about the connection.
    Push {
        channel: String,
        push: Push,
    },
    Reply {
        id: u32,
        body: Body,
    },
}

/// The answer to a command.
#[derive(Debug)]
pub(super) enum Body {
    Error(ErrorBody),
    Connect(ConnectResult),
    Subscribe(SubscribeResult),
    Unsubscribe,
    Publish,
    Presence(PresenceResult),
    History(HistoryResult),
    Refresh(RefreshResult),
}

/// Something the server says unasked.
#[derive(Debug)]
pub(super) enum Push {
    Publication(Publication),
    Join(String),
    Leave(String),
    Unsubscribe(u32),
    Subscribe(SubscribeResult),
    Connect(ConnectResult),
    Disconnect { code: u32, reason: String },
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorBody {
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) temporary: bool,
}

impl ErrorBody {
    /// Whether SDKs try again by themselves.
    pub(super) fn is_passing(&self) -> bool {
        self.code < 100 || self.temporary || self.code == TOKEN_EXPIRED
    }
}

/// The error that asks for another token.
pub(super) const TOKEN_EXPIRED: u32 = 109;

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectResult {
    pub(super) client: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) expires: bool,
    #[serde(default)]
    pub(super) ttl: u32,
    #[serde(default)]
    pub(super) data: Payload,
    #[serde(default)]
    pub(super) subs: BTreeMap<String, SubscribeResult>,
    /// Seconds between beats.
    #[serde(default)]
    pub(super) ping: u32,
    #[serde(default)]
    pub(super) pong: bool,
    #[serde(default)]
    pub(super) session: String,
    #[serde(default)]
    pub(super) node: String,
}

/// The result of a subscribe command, and what a subscribe push says of it.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscribeResult {
    #[serde(default)]
    pub(super) expires: bool,
    #[serde(default)]
    pub(super) ttl: u32,
    #[serde(default)]
    pub(super) recoverable: bool,
    #[serde(default)]
    pub(super) positioned: bool,
    #[serde(default)]
    pub(super) epoch: String,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) publications: Vec<Publication>,
    #[serde(default)]
    pub(super) was_recovering: bool,
    #[serde(default)]
    pub(super) recovered: bool,
    #[serde(default)]
    pub(super) data: Payload,
    /// Publications come as differences.
    #[serde(default)]
    pub(super) delta: bool,
}

impl SubscribeResult {
    /// Where the subscription stands, if anybody watches.
    pub(super) fn position(&self) -> Option<(u64, String)> {
        (self.positioned || self.recoverable).then(|| (self.offset, self.epoch.clone()))
    }

    /// What is wrong with it as an answer to a client that asked for recovery or did not.
    pub(super) fn contradiction(&self, asked_to_recover: bool) -> Option<&'static str> {
        let is_watched = self.positioned || self.recoverable;
        if self.was_recovering != asked_to_recover {
            Some("was_recovering is not what was asked")
        } else if self.recovered && !(self.was_recovering && self.recoverable) {
            Some("recovered without recovery")
        } else if !self.recovered && !self.publications.is_empty() {
            Some("publications without recovery")
        } else if is_watched == self.epoch.is_empty() {
            Some("an epoch if and only if somebody watches positions")
        } else if is_watched && self.publications.iter().any(|publication| publication.offset == 0) {
            Some("a recovered publication without an offset")
        } else {
            None
        }
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    #[serde(default)]
    pub(super) data: Payload,
    #[serde(default)]
    pub(super) info: Option<ClientInfo>,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    /// The data is a difference.
    #[serde(default)]
    pub(super) delta: bool,
}

/// Data as it came: in JSON the text of a value.
#[derive(Debug, Default)]
pub(super) struct Payload(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Payload, D::Error> {
        Ok(Payload(Box::<RawValue>::deserialize(deserializer)?.get().as_bytes().to_vec()))
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientInfo {
    pub(super) user: String,
    pub(super) client: String,
    #[serde(default)]
    pub(super) conn_info: Payload,
    #[serde(default)]
    pub(super) chan_info: Payload,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct PresenceResult {
    pub(super) presence: BTreeMap<String, ClientInfo>,
}

impl PresenceResult {
    /// The clients' ids; `None` if one is listed under another's id.
    pub(super) fn clients(&self) -> Option<Vec<String>> {
        let is_listed = self.presence.iter().all(|(id, info)| *id == info.client);
        is_listed.then(|| self.presence.keys().cloned().collect())
    }
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryResult {
    pub(super) publications: Vec<Publication>,
    pub(super) epoch: String,
    pub(super) offset: u64,
}

#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshResult {
    pub(super) client: String,
    #[serde(default)]
    pub(super) version: String,
    #[serde(default)]
    pub(super) expires: bool,
    #[serde(default)]
    pub(super) ttl: u32,
}

/// Puts raw replies and pushes together, which have one of many members.
pub(super) struct Parts {
    pub(super) id: u32,
    pub(super) push: Option<Result<Line, String>>,
    pub(super) bodies: Vec<Body>,
}

impl Parts {
    /// The line, if it is one thing.
    pub(super) fn into_line(mut self) -> Result<Line, String> {
        match (self.id, self.push, self.bodies.pop()) {
            (0, None, None) => Ok(Line::Beat),
            (0, Some(push), None) => push,
            (id, None, Some(body)) if id != 0 && self.bodies.is_empty() => Ok(Line::Reply { id, body }),
            _ => Err("neither a beat, nor one push, nor one reply".to_owned()),
        }
    }
}

/// The push of these kinds, if it is one, with a channel if and only if it is about one.
pub(super) fn one_push(channel: String, mut kinds: Vec<Push>) -> Result<Line, String> {
    match (kinds.pop(), kinds.is_empty()) {
        (Some(push @ (Push::Connect(_) | Push::Disconnect { .. })), true) => match channel.is_empty() {
            true => Ok(Line::Push { channel, push }),
            false => Err("a push about the connection with a channel".to_owned()),
        },
        (Some(_), true) if channel.is_empty() => Err("a push without a channel".to_owned()),
        (Some(push), true) => Ok(Line::Push { channel, push }),
        _ => Err("a push of no kind or of several".to_owned()),
    }
}

/// What a client asks for.
pub(super) enum Ask<'a> {
    /// With the server-side subscriptions to recover.
    Connect {
        token: Option<&'a str>,
        subs: &'a [(&'a str, u64, &'a str)],
    },
    /// With where to recover from.
    Subscribe {
        wanted: &'a Wanted,
        since: Option<&'a (u64, String)>,
    },
    Unsubscribe(&'a str),
    Publish {
        channel: &'a str,
        data: &'a str,
    },
    Presence(&'a str),
    /// Everything that is retained.
    History(&'a str),
    Refresh(&'a str),
}

/// Writes a command, or, without a number, the request of a link that has no way back.
pub(super) fn encode(format: Format, id: Option<u32>, ask: &Ask<'_>) -> Vec<u8> {
    match format {
        Format::Json => super::json::encode(id, ask).into_bytes(),
        Format::Protobuf => super::protobuf::encode(id, ask),
    }
}

/// Makes one message of commands; without any, an answer to a beat.
pub(super) fn join(format: Format, commands: &[Vec<u8>]) -> Vec<u8> {
    match format {
        Format::Json if commands.is_empty() => b"{}".to_vec(),
        Format::Json => commands.join(&b'\n'),
        Format::Protobuf => super::protobuf::join(commands),
    }
}

/// Takes the next thing that is said from the front of a message, which is not empty; in bare form where nothing
/// but pushes is said. With it comes what was read, for complaints.
pub(super) fn decode_next<'a>(
    format: Format,
    is_bare: bool,
    message: &mut &'a [u8],
) -> (&'a [u8], Result<Line, String>) {
    match format {
        Format::Json => {
            let end = message.iter().position(|byte| *byte == b'\n').unwrap_or(message.len());
            let line = &message[..end];
            *message = message.get(end + 1..).unwrap_or_default();
            (line, super::json::decode(line, is_bare))
        }
        Format::Protobuf => match super::protobuf::take_delimited(message) {
            Ok(line) => (line, super::protobuf::decode(line, is_bare)),
            Err(what) => (std::mem::take(message), Err(what)),
        },
    }
}
