//! The client's half of centrifuge JSON: commands written as centrifuge-js writes them, replies read strictly.
//!
//! Strictly means: a reply is one JSON object on one line, has an id and exactly one result, or a push of
//! exactly one kind, or nothing at all (a beat).

use super::said::{
    Ask, Body, ClientInfo, ConnectResult, ErrorBody, HistoryResult, Line, Parts, PresenceResult, Publication,
    Push, RefreshResult, SubscribeResult, one_push,
};
use serde::Deserialize;

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
struct Ending {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPush {
    #[serde(default)]
    channel: String,
    #[serde(rename = "pub")]
    publication: Option<Publication>,
    join: Option<Movement>,
    leave: Option<Movement>,
    unsubscribe: Option<Ending>,
    subscribe: Option<SubscribeResult>,
    connect: Option<ConnectResult>,
    disconnect: Option<Ending>,
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
pub(super) fn decode(line: &[u8], is_bare: bool) -> Result<Line, String> {
    if is_bare {
        if line.trim_ascii() == b"{}" {
            return Ok(Line::Beat);
        }
        let raw: RawPush = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        return raw.into_line();
    }
    let raw: RawReply = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut bodies: Vec<Body> = Vec::new();
    bodies.extend(raw.error.map(Body::Error));
    bodies.extend(raw.connect.map(Body::Connect));
    bodies.extend(raw.subscribe.map(Body::Subscribe));
    bodies.extend(raw.unsubscribe.map(|Empty {}| Body::Unsubscribe));
    bodies.extend(raw.publish.map(|Empty {}| Body::Publish));
    bodies.extend(raw.presence.map(Body::Presence));
    bodies.extend(raw.history.map(Body::History));
    bodies.extend(raw.refresh.map(Body::Refresh));
    Parts { id: raw.id, push: raw.push.map(RawPush::into_line), bodies }.into_line()
}

impl RawPush {
    fn into_line(self) -> Result<Line, String> {
        let mut kinds: Vec<Push> = Vec::new();
        kinds.extend(self.publication.map(Push::Publication));
        kinds.extend(self.join.map(|movement| Push::Join(movement.info.client)));
        kinds.extend(self.leave.map(|movement| Push::Leave(movement.info.client)));
        kinds.extend(self.unsubscribe.map(|Ending { code, .. }| Push::Unsubscribe(code)));
        kinds.extend(self.subscribe.map(Push::Subscribe));
        kinds.extend(self.connect.map(Push::Connect));
        kinds.extend(self.disconnect.map(|Ending { code, reason }| Push::Disconnect { code, reason }));
        one_push(self.channel, kinds)
    }
}

/// Writes a command, or, without a number, the request of a link that has no way back.
pub(super) fn encode(id: Option<u32>, ask: &Ask<'_>) -> String {
    let (name, fields) = match *ask {
        Ask::Connect { token, subs } => ("connect", connect(token, subs, id.is_none())),
        Ask::Subscribe { wanted, since } => {
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
            if wanted.delta {
                fields.push_str(",\"delta\":\"fossil\"");
            }
            if let Some(filter) = &wanted.filter {
                fields.push_str(&format!(",\"tf\":{}", filter.to_json()));
            }
            fields.push_str(",\"flag\":1");
            if let Some((offset, epoch)) = since {
                fields.push_str(&recover(*offset, epoch));
            }
            ("subscribe", fields)
        }
        Ask::Unsubscribe(channel) => ("unsubscribe", channel_field(channel)),
        Ask::Publish { channel, data } => ("publish", format!("{},\"data\":{data}", channel_field(channel))),
        Ask::Presence(channel) => ("presence", channel_field(channel)),
        Ask::History(channel) => ("history", format!("{},\"limit\":-1", channel_field(channel))),
        Ask::Refresh(token) => ("refresh", format!("\"token\":{}", string(token))),
    };
    match id {
        // centrifuge-js numbers a command when it is made already: the id stands last.
        Some(id) => format!("{{\"{name}\":{{{fields}}},\"id\":{id}}}"),
        None => format!("{{{fields}}}"),
    }
}

fn connect(token: Option<&str>, subs: &[(&str, u64, &str)], is_bare: bool) -> String {
    let mut fields = String::new();
    if let Some(token) = token {
        fields.push_str(&format!("\"token\":{},", string(token)));
    }
    fields.push_str(if is_bare { "\"name\":\"curl\"" } else { "\"name\":\"js\"" });
    if !subs.is_empty() {
        let subs = subs.iter().map(|(channel, offset, epoch)| {
            let recover = recover(*offset, epoch);
            format!("{}:{{{}}}", string(channel), recover.trim_start_matches(','))
        });
        fields.push_str(&format!(",\"subs\":{{{}}}", subs.collect::<Vec<_>>().join(",")));
    }
    fields
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

pub(super) fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
