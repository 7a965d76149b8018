//! The client's half of centrifuge JSON: commands written as centrifuge-js writes them, replies read strictly.
//!
//! Strictly means: a reply is one JSON object on one line, has an id and exactly one result, or a push of
//! exactly one kind, or nothing at all (a beat); a member that the protocol's definition does not have here
//! is an error. What it is not: it knows neither what was asked nor what is subscribed.

use crate::client::{Heard, Wanted};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What the server says in one line.
#[derive(Debug)]
pub(super) enum Line {
    Beat,
    Push { channel: String, push: Push },
    Reply { id: u32, body: Body },
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
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorBody {
    pub(super) code: u32,
    #[serde(rename = "message", default)]
    _message: String,
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

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectResult {
    pub(super) client: String,
    #[serde(rename = "version", default)]
    _version: String,
    #[serde(default)]
    pub(super) expires: bool,
    #[serde(default)]
    pub(super) ttl: u32,
    #[serde(rename = "data")]
    _data: Option<Box<RawValue>>,
    #[serde(default)]
    pub(super) subs: BTreeMap<String, SubscribeResult>,
    /// Seconds between beats.
    #[serde(default)]
    pub(super) ping: u32,
    #[serde(default)]
    pub(super) pong: bool,
}

/// The result of a subscribe command, and what a subscribe push says of it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscribeResult {
    #[serde(rename = "expires", default)]
    _expires: bool,
    #[serde(rename = "ttl", default)]
    _ttl: u32,
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
    #[serde(rename = "data")]
    _data: Option<Box<RawValue>>,
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

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    data: Option<Box<RawValue>>,
    #[serde(rename = "info")]
    _info: Option<ClientInfo>,
    #[serde(default)]
    pub(super) offset: u64,
    #[serde(rename = "tags", default)]
    _tags: BTreeMap<String, String>,
}

impl Publication {
    /// As the application gets it, in a channel of this epoch.
    pub(super) fn heard(&self, epoch: Option<&str>) -> Heard {
        Heard {
            offset: Some(self.offset).filter(|offset| *offset != 0),
            epoch: epoch.map(str::to_owned),
            data: self.data.as_ref().map_or(String::new(), |data| data.get().to_owned()),
        }
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientInfo {
    #[serde(rename = "user")]
    _user: String,
    pub(super) client: String,
    #[serde(rename = "conn_info")]
    _conn_info: Option<Box<RawValue>>,
    #[serde(rename = "chan_info")]
    _chan_info: Option<Box<RawValue>>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct PresenceResult {
    presence: BTreeMap<String, ClientInfo>,
}

impl PresenceResult {
    /// The clients' ids; `None` if one is listed under another's id.
    pub(super) fn clients(&self) -> Option<Vec<String>> {
        let is_listed = self.presence.iter().all(|(id, info)| *id == info.client);
        is_listed.then(|| self.presence.keys().cloned().collect())
    }
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryResult {
    pub(super) publications: Vec<Publication>,
    pub(super) epoch: String,
    pub(super) offset: u64,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshResult {
    pub(super) client: String,
    #[serde(rename = "version", default)]
    _version: String,
    #[serde(default)]
    pub(super) expires: bool,
    #[serde(default)]
    pub(super) ttl: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Movement {
    info: ClientInfo,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnsubscribePush {
    #[serde(default)]
    code: u32,
    #[serde(rename = "reason", default)]
    _reason: String,
}

/// A disconnect push is not among them: over a WebSocket the close frame says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPush {
    #[serde(default)]
    channel: String,
    #[serde(rename = "pub")]
    publication: Option<Publication>,
    join: Option<Movement>,
    leave: Option<Movement>,
    unsubscribe: Option<UnsubscribePush>,
    subscribe: Option<SubscribeResult>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReply {
    #[serde(default)]
    id: u32,
    push: Option<RawPush>,
    error: Option<ErrorBody>,
    connect: Option<ConnectResult>,
    subscribe: Option<SubscribeResult>,
    unsubscribe: Option<Empty>,
    publish: Option<Empty>,
    presence: Option<PresenceResult>,
    history: Option<HistoryResult>,
    refresh: Option<RefreshResult>,
}

/// Reads one line.
///
/// # Errors
/// What makes it no line of the protocol.
pub(super) fn decode(line: &str) -> Result<Line, String> {
    let raw: RawReply = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut bodies: Vec<Body> = Vec::new();
    bodies.extend(raw.error.map(Body::Error));
    bodies.extend(raw.connect.map(Body::Connect));
    bodies.extend(raw.subscribe.map(Body::Subscribe));
    bodies.extend(raw.unsubscribe.map(|Empty {}| Body::Unsubscribe));
    bodies.extend(raw.publish.map(|Empty {}| Body::Publish));
    bodies.extend(raw.presence.map(Body::Presence));
    bodies.extend(raw.history.map(Body::History));
    bodies.extend(raw.refresh.map(Body::Refresh));
    match (raw.id, raw.push, bodies.pop()) {
        (0, None, None) => Ok(Line::Beat),
        (0, Some(push), None) => push.into_line(),
        (id, None, Some(body)) if id != 0 && bodies.is_empty() => Ok(Line::Reply { id, body }),
        _ => Err("neither a beat, nor one push, nor one reply".to_owned()),
    }
}

impl RawPush {
    fn into_line(self) -> Result<Line, String> {
        if self.channel.is_empty() {
            return Err("a push without a channel".to_owned());
        }
        let mut kinds: Vec<Push> = Vec::new();
        kinds.extend(self.publication.map(Push::Publication));
        kinds.extend(self.join.map(|movement| Push::Join(movement.info.client)));
        kinds.extend(self.leave.map(|movement| Push::Leave(movement.info.client)));
        kinds.extend(self.unsubscribe.map(|unsubscribe| Push::Unsubscribe(unsubscribe.code)));
        kinds.extend(self.subscribe.map(Push::Subscribe));
        match (kinds.pop(), kinds.is_empty()) {
            (Some(push), true) => Ok(Line::Push { channel: self.channel, push }),
            _ => Err("a push of no kind or of several".to_owned()),
        }
    }
}

/// The answer to a beat.
pub(super) const PONG: &str = "{}";

/// Writes a connect command; `subs` are the server-side subscriptions to recover.
pub(super) fn connect(id: u32, token: Option<&str>, subs: &[(&str, u64, &str)]) -> String {
    let mut fields = String::new();
    if let Some(token) = token {
        fields.push_str(&format!("\"token\":{},", string(token)));
    }
    fields.push_str("\"name\":\"js\"");
    if !subs.is_empty() {
        let subs = subs.iter().map(|(channel, offset, epoch)| {
            let recover = recover(*offset, epoch);
            format!("{}:{{{}}}", string(channel), recover.trim_start_matches(','))
        });
        fields.push_str(&format!(",\"subs\":{{{}}}", subs.collect::<Vec<_>>().join(",")));
    }
    command(id, "connect", &fields)
}

/// Writes a subscribe command; `since` is where to recover from.
pub(super) fn subscribe(id: u32, wanted: &Wanted, since: Option<&(u64, String)>) -> String {
    let mut fields = channel_field(&wanted.channel);
    if let Some(token) = &wanted.token {
        fields.push_str(&format!(",\"token\":{}", string(token)));
    }
    for (name, is_asked) in [
        ("positioned", wanted.positioned),
        ("recoverable", wanted.recoverable),
        ("join_leave", wanted.join_leave),
    ] {
        if is_asked {
            fields.push_str(&format!(",\"{name}\":true"));
        }
    }
    fields.push_str(",\"flag\":1");
    if let Some((offset, epoch)) = since {
        fields.push_str(&recover(*offset, epoch));
    }
    command(id, "subscribe", &fields)
}

/// Writes a command that names a channel and nothing else.
pub(super) fn about(id: u32, name: &str, channel: &str) -> String {
    command(id, name, &channel_field(channel))
}

/// Writes a publish command.
pub(super) fn publish(id: u32, channel: &str, data: &str) -> String {
    command(id, "publish", &format!("{},\"data\":{data}", channel_field(channel)))
}

/// Writes a history command for everything that is retained.
pub(super) fn history(id: u32, channel: &str) -> String {
    command(id, "history", &format!("{},\"limit\":-1", channel_field(channel)))
}

/// Writes a refresh command.
pub(super) fn refresh(id: u32, token: &str) -> String {
    command(id, "refresh", &format!("\"token\":{}", string(token)))
}

/// centrifuge-js numbers a command when it is made already: the id stands last.
fn command(id: u32, name: &str, fields: &str) -> String {
    format!("{{\"{name}\":{{{fields}}},\"id\":{id}}}")
}

fn channel_field(channel: &str) -> String {
    format!("\"channel\":{}", string(channel))
}

/// The members that ask for recovery; zero values are left out.
fn recover(offset: u64, epoch: &str) -> String {
    let mut fields = ",\"recover\":true".to_owned();
    if offset != 0 {
        fields.push_str(&format!(",\"offset\":{offset}"));
    }
    if !epoch.is_empty() {
        fields.push_str(&format!(",\"epoch\":{}", string(epoch)));
    }
    fields
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
