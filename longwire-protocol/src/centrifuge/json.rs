//! The JSON encoding of the centrifuge dialect.
//!
//! A message holds one or more commands, each a JSON object, separated by line feeds; a reply or a push is
//! one line. Payloads are embedded JSON: they are found but never parsed, and leave as they came, except that
//! line breaks between their tokens become spaces. Keys are the field names of the protocol's definition,
//! zero values are left out except where the definition keeps them.
//!
//! It is not a judge: an empty channel, a second connect or a missing token decode well and are refused by
//! the session. An error from here means that the bytes are not the protocol, and closes the connection.
//!
//! What must stay true: decoding allocates nothing before the size is known to be bounded by the message and
//! by [`MAX_DEPTH`] and [`MAX_SUBS`]; nothing a client sends makes it panic; encoding writes no line break.

use crate::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use crate::json::{
    write_client_info, write_flag_member, write_key, write_map, write_number, write_number_member,
    write_payload_member, write_string, write_tags_member,
};
use crate::message::{ClientInfo, ConnectResult, Publication, Push, Reply, ReplyError, SubscribeResult};
use crate::position::{Epoch, Position, Since};
use bytes::{Buf, Bytes};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The heartbeat of the server: an empty reply.
pub const PING: &[u8] = b"{}";

/// How deeply the objects and arrays of one command may be nested, the command itself included.
pub const MAX_DEPTH: usize = 64;

/// How many server-side subscriptions a connect command may name.
pub const MAX_SUBS: usize = 1024;

/// Why a message is not a command.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct DecodeError {
    /// What is wrong, naming the field; never text of the client's.
    pub what: Cow<'static, str>,
    /// Where, counted from the first byte of the message as it was given to [`decode_next`].
    pub at: usize,
}

/// Takes the next command from the front of `message`, which is advanced past it; `None` if only white
/// space is left.
///
/// Payloads are slices of `message`: they keep the whole message in memory for as long as they live.
///
/// # Errors
///
/// If what comes next is not a command of the protocol. Nothing that follows can be trusted, so `message`
/// is then empty.
pub fn decode_next(message: &mut Bytes) -> Option<Result<Numbered, DecodeError>> {
    let Some(start) = message.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        message.clear();
        return None;
    };
    let decoded = command_end(message, start)
        .and_then(|end| Ok((decode_command(&message.slice(start..end), start)?, end)));
    match decoded {
        Ok((numbered, end)) => {
            message.advance(end);
            Some(Ok(numbered))
        }
        Err(error) => {
            message.clear();
            Some(Err(error))
        }
    }
}

/// Writes the reply to the command `id`, without a line feed.
pub fn encode_reply(id: u32, reply: &Reply, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("id", id.into(), out);
    match reply {
        Reply::Error(error) => {
            write_key("error", out);
            write_error(error, out);
        }
        Reply::Connect(result) => {
            write_key("connect", out);
            write_connect_result(result, out);
        }
        Reply::Subscribe(result) => {
            write_key("subscribe", out);
            write_subscribe_result(result, out);
        }
        Reply::Unsubscribe => write_empty("unsubscribe", out),
        Reply::Publish => write_empty("publish", out),
        Reply::Presence(clients) => {
            write_key("presence", out);
            out.extend_from_slice(b"{\"presence\":");
            write_map(clients, out, |info, out| {
                write_string(&info.client.to_string(), out);
                out.push(b':');
                write_client_info(info, out);
            });
            out.push(b'}');
        }
        Reply::PresenceStats { num_clients, num_users } => {
            write_key("presence_stats", out);
            out.extend_from_slice(b"{\"num_clients\":");
            write_number((*num_clients).into(), out);
            write_key("num_users", out);
            write_number((*num_users).into(), out);
            out.push(b'}');
        }
        Reply::History { publications, top } => {
            write_key("history", out);
            out.extend_from_slice(b"{\"publications\":");
            write_publications(publications.iter().map(AsRef::as_ref), out);
            write_key("epoch", out);
            write_string(top.epoch.as_str(), out);
            write_key("offset", out);
            write_number(top.offset, out);
            out.push(b'}');
        }
        Reply::Rpc { data } => {
            write_key("rpc", out);
            out.push(b'{');
            write_payload_member("data", data, out);
            out.push(b'}');
        }
        Reply::Refresh { client, version, ttl_seconds } => {
            write_key("refresh", out);
            out.extend_from_slice(b"{\"client\":");
            write_string(&client.to_string(), out);
            write_key("version", out);
            write_string(version, out);
            write_expiry(*ttl_seconds, out);
            out.push(b'}');
        }
        Reply::SubRefresh { ttl_seconds } => {
            write_key("sub_refresh", out);
            out.push(b'{');
            write_expiry(*ttl_seconds, out);
            out.push(b'}');
        }
    }
    out.push(b'}');
}

/// Writes a push about `channel`, without a line feed; a disconnect push has no channel.
pub fn encode_push(channel: &str, push: &Push, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"push\":{");
    if !channel.is_empty() && !matches!(push, Push::Disconnect(_)) {
        write_key("channel", out);
        write_string(channel, out);
    }
    match push {
        Push::Publication(publication) => {
            write_key("pub", out);
            write_publication(publication, out);
        }
        Push::Join(info) => write_presence_change("join", info, out),
        Push::Leave(info) => write_presence_change("leave", info, out),
        Push::Unsubscribe { code, reason } => {
            write_key("unsubscribe", out);
            write_code_and_reason(*code, reason, out);
        }
        Push::Subscribe(result) => {
            write_key("subscribe", out);
            out.push(b'{');
            write_flag_member("recoverable", result.recoverable, out);
            write_position(result.position, out);
            write_flag_member("positioned", result.positioned, out);
            write_payload_member("data", &result.data, out);
            out.push(b'}');
        }
        Push::Disconnect(close) => {
            write_key("disconnect", out);
            write_code_and_reason(close.code.into(), &close.text, out);
        }
    }
    out.extend_from_slice(b"}}");
}

fn write_empty(name: &'static str, out: &mut Vec<u8>) {
    write_key(name, out);
    out.extend_from_slice(b"{}");
}

fn write_error(error: &ReplyError, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("code", error.code.into(), out);
    if !error.message.is_empty() {
        write_key("message", out);
        write_string(&error.message, out);
    }
    write_flag_member("temporary", error.temporary, out);
    out.push(b'}');
}

fn write_code_and_reason(code: u32, reason: &str, out: &mut Vec<u8>) {
    out.push(b'{');
    write_number_member("code", code.into(), out);
    if !reason.is_empty() {
        write_key("reason", out);
        write_string(reason, out);
    }
    out.push(b'}');
}

fn write_connect_result(result: &ConnectResult, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"client\":");
    write_string(&result.client.to_string(), out);
    if !result.version.is_empty() {
        write_key("version", out);
        write_string(result.version, out);
    }
    write_expiry(result.ttl_seconds, out);
    write_payload_member("data", &result.data, out);
    if !result.subs.is_empty() {
        write_key("subs", out);
        write_map(&result.subs, out, |(channel, result), out| {
            write_string(channel, out);
            out.push(b':');
            write_subscribe_result(result, out);
        });
    }
    write_number_member("ping", result.ping_seconds.into(), out);
    write_flag_member("pong", result.pong, out);
    out.push(b'}');
}

fn write_subscribe_result(result: &SubscribeResult, out: &mut Vec<u8>) {
    out.push(b'{');
    write_expiry(result.ttl_seconds, out);
    write_flag_member("recoverable", result.recoverable, out);
    if let Some(position) = result.position {
        write_key("epoch", out);
        write_string(position.epoch.as_str(), out);
    }
    // centrifuge-js delivers `publications` without looking at `recovered`: a partial recovery would be taken
    // for a whole one.
    if result.recovered && !result.publications.is_empty() {
        write_key("publications", out);
        write_publications(result.publications.iter().map(AsRef::as_ref), out);
    }
    write_flag_member("recovered", result.recovered, out);
    write_number_member("offset", result.position.map_or(0, |position| position.offset), out);
    write_flag_member("positioned", result.positioned, out);
    write_payload_member("data", &result.data, out);
    write_flag_member("was_recovering", result.was_recovering, out);
    out.push(b'}');
}

fn write_position(position: Option<Position>, out: &mut Vec<u8>) {
    if let Some(position) = position {
        write_key("epoch", out);
        write_string(position.epoch.as_str(), out);
        write_number_member("offset", position.offset, out);
    }
}

fn write_expiry(ttl_seconds: Option<u32>, out: &mut Vec<u8>) {
    if let Some(seconds) = ttl_seconds {
        write_flag_member("expires", true, out);
        write_number_member("ttl", seconds.into(), out);
    }
}

fn write_publications<'a>(publications: impl Iterator<Item = &'a Publication>, out: &mut Vec<u8>) {
    out.push(b'[');
    for (i, publication) in publications.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_publication(publication, out);
    }
    out.push(b']');
}

fn write_publication(publication: &Publication, out: &mut Vec<u8>) {
    out.reserve(publication.data.len() + 64);
    out.push(b'{');
    write_payload_member("data", &publication.data, out);
    if let Some(info) = &publication.info {
        write_key("info", out);
        write_client_info(info, out);
    }
    write_number_member("offset", publication.offset, out);
    write_tags_member(&publication.tags, out);
    out.push(b'}');
}

fn write_presence_change(name: &'static str, info: &ClientInfo, out: &mut Vec<u8>) {
    write_key(name, out);
    out.extend_from_slice(b"{\"info\":");
    write_client_info(info, out);
    out.push(b'}');
}

/// Finds the end of the command that begins at `start`, and checks its depth on the way.
fn command_end(message: &[u8], start: usize) -> Result<usize, DecodeError> {
    if message[start] != b'{' {
        return Err(DecodeError { what: "command is not a JSON object".into(), at: start });
    }
    let mut depth = 0;
    let mut at = start;
    while let Some(byte) = message.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(DecodeError {
                        what: format!("command is nested deeper than {MAX_DEPTH} levels").into(),
                        at: at - 1,
                    });
                }
            }
            b'}' | b']' => {
                // Not below 0: the first byte opened, and 0 returns.
                depth -= 1;
                if depth == 0 {
                    return Ok(at);
                }
            }
            b'"' => at = string_end(message, at),
            _ => {}
        }
    }
    Err(DecodeError { what: "command is cut off".into(), at: message.len() })
}

/// Finds the byte after the string whose first character is at `at`; past the message if it has no end.
fn string_end(message: &[u8], mut at: usize) -> usize {
    while let Some(found) = message.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if message[at - 1] == b'"' {
            return at;
        }
        // The character after a reverse solidus ends nothing.
        at += 1;
    }
    message.len()
}

/// The members of a command that say what is asked, in the order of the protocol's definition: of several,
/// the first in this order counts.
const MEMBERS: [&str; 12] = [
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "ping",
    "send",
    "rpc",
    "refresh",
    "sub_refresh",
];

fn decode_command(text: &Bytes, start: usize) -> Result<Numbered, DecodeError> {
    let mut parsed = ParsedCommand::default();
    let mut parser = serde_json::Deserializer::from_slice(text);
    let outcome = de::Deserializer::deserialize_map(&mut parser, CommandVisitor(&mut parsed));
    if let Err(error) = outcome.and_then(|()| parser.end()) {
        let at = start + offset_of_line_and_column(text, error.line(), error.column());
        return Err(match (error.classify(), parsed.current) {
            (serde_json::error::Category::Data, Some(member)) => {
                DecodeError { what: format!("{} is not an object", MEMBERS[member]).into(), at }
            }
            _ => DecodeError { what: "command is not valid JSON".into(), at },
        });
    }

    let id_reader = Reader { text, start, member: "" };
    let id = id_reader.value("id", parsed.id, "an unsigned 32-bit integer")?;
    let Some((member, fields)) = parsed.chosen else {
        if id == 0 {
            return Ok(Numbered { id, command: Command::Pong });
        }
        return Err(DecodeError { what: "command asks for nothing that is known".into(), at: start });
    };
    let reader = Reader { text, start, member: MEMBERS[member] };
    if id == 0 && reader.member != "send" {
        return Err(DecodeError { what: "command without id".into(), at: start });
    }
    Ok(Numbered { id, command: reader.command(&fields)? })
}

/// Turns the line and column of a parser's error, both counted from 1, into an offset.
fn offset_of_line_and_column(text: &[u8], line: usize, column: usize) -> usize {
    let start_of_line = match line {
        0 | 1 => 0,
        _ => memchr::memchr_iter(b'\n', text).nth(line - 2).map_or(0, |newline| newline + 1),
    };
    (start_of_line + column.saturating_sub(1)).min(text.len())
}

/// What a command holds, found but not yet read.
#[derive(Default)]
struct ParsedCommand<'a> {
    id: Option<&'a RawValue>,
    /// Index into [`MEMBERS`], and what the member holds.
    chosen: Option<(usize, Fields<'a>)>,
    /// The member that was being read when an error occurred.
    current: Option<usize>,
}

/// The fields of whatever is asked; one struct for all commands, since no name has two meanings.
#[derive(Default)]
struct Fields<'a> {
    channel: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
    delta: Option<&'a RawValue>,
    epoch: Option<&'a RawValue>,
    flag: Option<&'a RawValue>,
    join_leave: Option<&'a RawValue>,
    limit: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
    positioned: Option<&'a RawValue>,
    recover: Option<&'a RawValue>,
    recoverable: Option<&'a RawValue>,
    reverse: Option<&'a RawValue>,
    since: Option<&'a RawValue>,
    subs: Option<&'a RawValue>,
    tf: Option<&'a RawValue>,
    token: Option<&'a RawValue>,
    r#type: Option<&'a RawValue>,
    version: Option<&'a RawValue>,
}

impl<'a> Fields<'a> {
    fn slot(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        Some(match name {
            "channel" => &mut self.channel,
            "data" => &mut self.data,
            "delta" => &mut self.delta,
            "epoch" => &mut self.epoch,
            "flag" => &mut self.flag,
            "join_leave" => &mut self.join_leave,
            "limit" => &mut self.limit,
            "method" => &mut self.method,
            "name" => &mut self.name,
            "offset" => &mut self.offset,
            "positioned" => &mut self.positioned,
            "recover" => &mut self.recover,
            "recoverable" => &mut self.recoverable,
            "reverse" => &mut self.reverse,
            "since" => &mut self.since,
            "subs" => &mut self.subs,
            "tf" => &mut self.tf,
            "token" => &mut self.token,
            "type" => &mut self.r#type,
            "version" => &mut self.version,
            _ => return None,
        })
    }
}

/// Reads the fields of one command out of the raw text of each, naming the field that is wrong.
struct Reader<'a> {
    /// The command's text; every raw value is a part of it.
    text: &'a Bytes,
    /// Where the command begins in the message.
    start: usize,
    /// The member that the fields belong to.
    member: &'static str,
}

impl<'a> Reader<'a> {
    fn command(&self, fields: &Fields<'a>) -> Result<Command, DecodeError> {
        let channel = || self.string("channel", fields.channel);
        let token = || self.string("token", fields.token);
        let data = || self.payload(fields.data);
        Ok(match self.member {
            "connect" => Command::Connect(Box::new(Connect {
                token: token()?,
                data: data(),
                name: self.string("name", fields.name)?,
                version: self.string("version", fields.version)?,
                subs: self.subs(fields.subs)?,
            })),
            "subscribe" => Command::Subscribe(Box::new(self.subscribe(channel()?, fields)?)),
            "unsubscribe" => Command::Unsubscribe { channel: channel()? },
            "publish" => Command::Publish { channel: channel()?, data: data() },
            "presence" => Command::Presence { channel: channel()? },
            "presence_stats" => Command::PresenceStats { channel: channel()? },
            "history" => Command::History(HistoryRequest {
                channel: channel()?,
                limit: self.value("limit", fields.limit, "a 32-bit integer")?,
                since: fields.since.map(|raw| self.position(raw)).transpose()?,
                reverse: self.flag("reverse", fields.reverse)?,
            }),
            "ping" => Command::Ping,
            "send" => Command::Send { data: data() },
            "rpc" => Command::Rpc { method: self.string("method", fields.method)?, data: data() },
            "refresh" => Command::Refresh { token: token()? },
            "sub_refresh" => Command::SubRefresh { channel: channel()?, token: token()? },
            other => unreachable!("{other} is not in MEMBERS"),
        })
    }

    fn subscribe(&self, channel: String, fields: &Fields<'a>) -> Result<Subscribe, DecodeError> {
        // Read even without `recover`, so that a field of the wrong type is never overlooked.
        let since = self.since(fields)?;
        let recover = self.flag("recover", fields.recover)?;
        let flag: i64 = self.value("flag", fields.flag, "a 64-bit integer")?;
        if let Some(raw) = fields.tf.filter(|raw| !raw.get().starts_with('{')) {
            return Err(self.wrong("tf", "an object", raw));
        }
        Ok(Subscribe {
            channel,
            token: self.string("token", fields.token)?,
            data: self.payload(fields.data),
            recover: recover.then_some(since),
            positioned: self.flag("positioned", fields.positioned)?,
            recoverable: self.flag("recoverable", fields.recoverable)?,
            join_leave: self.flag("join_leave", fields.join_leave)?,
            delta: self.string("delta", fields.delta)?,
            has_tags_filter: fields.tf.is_some(),
            reject_unrecovered: flag & 2 != 0,
            kind: self.value("type", fields.r#type, "a 32-bit integer")?,
        })
    }

    /// The server-side subscriptions of a connect command: channel to the fields of a subscribe command.
    fn subs(&self, raw: Option<&'a RawValue>) -> Result<Vec<Subscribe>, DecodeError> {
        let Some(raw) = raw else { return Ok(Vec::new()) };
        let wrong = |expected| self.wrong("subs", expected, raw);
        let mut parser = serde_json::Deserializer::from_str(raw.get());
        let mut entries = Vec::new();
        de::Deserializer::deserialize_map(&mut parser, SubsVisitor(&mut entries)).map_err(|error| {
            // The text is known to be JSON, so an error is one of data, or of a channel's name.
            wrong(match error.classify() {
                serde_json::error::Category::Data if entries.len() > MAX_SUBS => {
                    "a map of at most 1024 channels"
                }
                serde_json::error::Category::Data => "a map of objects",
                _ => "a map with valid strings as keys",
            })
        })?;
        let mut subs: Vec<Subscribe> = Vec::with_capacity(entries.len());
        for (channel, fields) in entries {
            let sub = Reader { member: "connect.subs", ..*self }.subscribe(channel, &fields)?;
            match subs.iter_mut().find(|earlier| earlier.channel == sub.channel) {
                Some(earlier) => *earlier = sub,
                None => subs.push(sub),
            }
        }
        Ok(subs)
    }

    /// The object in `since`.
    fn position(&self, raw: &'a RawValue) -> Result<Since, DecodeError> {
        let mut fields = Fields::default();
        let mut parser = serde_json::Deserializer::from_str(raw.get());
        match FieldsSeed(&mut fields).deserialize(&mut parser) {
            Ok(_) => Reader { member: "history.since", ..*self }.since(&fields),
            Err(_) => Err(self.wrong("since", "an object", raw)),
        }
    }

    fn since(&self, fields: &Fields<'a>) -> Result<Since, DecodeError> {
        let epoch = self.string("epoch", fields.epoch)?;
        Ok(Since {
            offset: self.value("offset", fields.offset, "an unsigned 64-bit integer")?,
            epoch: (!epoch.is_empty()).then(|| Epoch::parse(&epoch)),
        })
    }

    fn string(&self, field: &str, raw: Option<&'a RawValue>) -> Result<String, DecodeError> {
        self.value(field, raw, "a valid string")
    }

    fn flag(&self, field: &str, raw: Option<&'a RawValue>) -> Result<bool, DecodeError> {
        self.value(field, raw, "true or false")
    }

    fn value<T: DeserializeOwned + Default>(
        &self,
        field: &str,
        raw: Option<&'a RawValue>,
        expected: &str,
    ) -> Result<T, DecodeError> {
        match raw {
            None => Ok(T::default()),
            Some(raw) => serde_json::from_str(raw.get()).map_err(|_| self.wrong(field, expected, raw)),
        }
    }

    fn payload(&self, raw: Option<&'a RawValue>) -> Bytes {
        raw.map_or_else(Bytes::new, |raw| self.text.slice_ref(raw.get().as_bytes()))
    }

    fn wrong(&self, field: &str, expected: &str, raw: &RawValue) -> DecodeError {
        let dot = if self.member.is_empty() { "" } else { "." };
        DecodeError {
            what: format!("{}{dot}{field} is not {expected}", self.member).into(),
            at: self.start + (raw.get().as_ptr().addr() - self.text.as_ptr().addr()),
        }
    }
}

struct CommandVisitor<'p, 'de>(&'p mut ParsedCommand<'de>);

impl<'de> Visitor<'de> for CommandVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key_seed(CommandKeySeed)? {
            match key {
                CommandKey::Id => self.0.id = present(map.next_value()?),
                CommandKey::Member(member) => {
                    self.0.current = Some(member);
                    let mut fields = Fields::default();
                    let is_present = map.next_value_seed(FieldsSeed(&mut fields))?;
                    self.0.current = None;
                    if is_present && self.0.chosen.as_ref().is_none_or(|(chosen, _)| member <= *chosen) {
                        self.0.chosen = Some((member, fields));
                    }
                }
                CommandKey::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

enum CommandKey {
    Id,
    Member(usize),
    Unknown,
}

struct CommandKeySeed;

impl<'de> DeserializeSeed<'de> for CommandKeySeed {
    type Value = CommandKey;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<CommandKey, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for CommandKeySeed {
    type Value = CommandKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<CommandKey, E> {
        Ok(match MEMBERS.iter().position(|member| *member == name) {
            Some(member) => CommandKey::Member(member),
            None if name == "id" => CommandKey::Id,
            None => CommandKey::Unknown,
        })
    }
}

/// Reads an object into [`Fields`], or null; tells whether it was an object.
struct FieldsSeed<'f, 'de>(&'f mut Fields<'de>);

impl<'de> DeserializeSeed<'de> for FieldsSeed<'_, 'de> {
    type Value = bool;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldsSeed<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<bool, M::Error> {
        while let Some(slot) = map.next_key_seed(SlotSeed(&mut *self.0))? {
            match slot {
                Some(slot) => *slot = present(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(true)
    }
}

/// A null member counts as an absent one.
fn present(raw: &RawValue) -> Option<&RawValue> {
    (raw.get() != "null").then_some(raw)
}

/// Finds the slot of a field by its name; `None` for an unknown field.
struct SlotSeed<'s, 'de>(&'s mut Fields<'de>);

impl<'s, 'de> DeserializeSeed<'de> for SlotSeed<'s, 'de> {
    type Value = Option<&'s mut Option<&'de RawValue>>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s, 'de> Visitor<'de> for SlotSeed<'s, 'de> {
    type Value = Option<&'s mut Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.slot(name))
    }
}

struct SubsVisitor<'s, 'de>(&'s mut Vec<(String, Fields<'de>)>);

impl<'de> Visitor<'de> for SubsVisitor<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of objects")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(channel) = map.next_key()? {
            let mut fields = Fields::default();
            if map.next_value_seed(FieldsSeed(&mut fields))? {
                self.0.push((channel, fields));
            }
            if self.0.len() > MAX_SUBS {
                return Err(de::Error::custom("too many"));
            }
        }
        Ok(())
    }
}
