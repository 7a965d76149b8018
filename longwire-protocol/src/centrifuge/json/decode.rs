//! What a client says: commands taken out of a message.
//!
//! Payloads are found but never parsed: they are slices of the message.

use crate::centrifuge::protobuf::MAX_FILTER_NODES;
use crate::centrifuge::{
    DecodeError, EmulationRequest, MAX_DEPTH, MAX_SUBS, MEMBERS, REJECT_UNRECOVERED, check_id, put_sub, since,
};
use crate::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use crate::filter;
use crate::position::Since;
use bytes::{Buf, Bytes};
use serde::de::{self, DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

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
    let decoded = object_end(message, start, "command")
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

/// Reads the fields of a connect command that stands alone, as transports without a way back have it; a blank
/// message asks for nothing.
///
/// # Errors
///
/// As for [`decode_next`].
pub fn decode_connect(message: &Bytes) -> Result<Connect, DecodeError> {
    match lone_object(message, "connect")? {
        Some((reader, fields)) => reader.connect(&fields),
        None => Ok(Connect::default()),
    }
}

/// Reads what a client that listens to a stream sends beside it: commands, as text in a string.
///
/// # Errors
///
/// If it is not such an object, or one of its fields is not a string.
pub fn decode_emulation(message: &Bytes) -> Result<EmulationRequest, DecodeError> {
    let Some((reader, fields)) = lone_object(message, "emulation")? else {
        return Err(DecodeError { what: "emulation is not a JSON object".into(), at: 0 });
    };
    Ok(EmulationRequest {
        session: reader.string("session", fields.session)?,
        node: reader.string("node", fields.node)?,
        data: reader.string("data", fields.data)?.into(),
    })
}

/// Takes apart the object that is all of `message`; `None` if there is only white space.
fn lone_object<'a>(
    message: &'a Bytes,
    name: &'static str,
) -> Result<Option<(Reader<'a>, Fields<'a>)>, DecodeError> {
    let Some(start) = message.iter().position(|byte| !byte.is_ascii_whitespace()) else {
        return Ok(None);
    };
    let end = object_end(message, start, name)?;
    if let Some(behind) = message[end..].iter().position(|byte| !byte.is_ascii_whitespace()) {
        return Err(DecodeError { what: format!("something follows {name}").into(), at: end + behind });
    }
    let mut fields = Fields::default();
    let mut parser = serde_json::Deserializer::from_slice(message);
    FieldsSeed(&mut fields).deserialize(&mut parser).map_err(|error| DecodeError {
        what: format!("{name} is not valid JSON").into(),
        at: offset_of_line_and_column(message, error.line(), error.column()),
    })?;
    Ok(Some((Reader { text: message, start: 0, member: name }, fields)))
}

/// Finds the end of the object that begins at `start`, and checks its depth on the way.
fn object_end(message: &[u8], start: usize, name: &'static str) -> Result<usize, DecodeError> {
    if message[start] != b'{' {
        return Err(DecodeError { what: format!("{name} is not a JSON object").into(), at: start });
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
                        what: format!("{name} is nested deeper than {MAX_DEPTH} levels").into(),
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
    Err(DecodeError { what: format!("{name} is cut off").into(), at: message.len() })
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
    let member = parsed.chosen.as_ref().map(|(member, _)| MEMBERS[*member]);
    check_id(id, member).map_err(|what| DecodeError { what: what.into(), at: start })?;
    let command = match parsed.chosen {
        Some((member, fields)) => Reader { text, start, member: MEMBERS[member] }.command(&fields)?,
        None => Command::Pong,
    };
    Ok(Numbered { id, command })
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
    headers: Option<&'a RawValue>,
    join_leave: Option<&'a RawValue>,
    limit: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    node: Option<&'a RawValue>,
    offset: Option<&'a RawValue>,
    positioned: Option<&'a RawValue>,
    recover: Option<&'a RawValue>,
    recoverable: Option<&'a RawValue>,
    reverse: Option<&'a RawValue>,
    session: Option<&'a RawValue>,
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
            "headers" => &mut self.headers,
            "join_leave" => &mut self.join_leave,
            "limit" => &mut self.limit,
            "method" => &mut self.method,
            "name" => &mut self.name,
            "node" => &mut self.node,
            "offset" => &mut self.offset,
            "positioned" => &mut self.positioned,
            "recover" => &mut self.recover,
            "recoverable" => &mut self.recoverable,
            "reverse" => &mut self.reverse,
            "session" => &mut self.session,
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
        let kind = || self.value("type", fields.r#type, "a 32-bit integer");
        Ok(match self.member {
            "connect" => Command::Connect(Box::new(self.connect(fields)?)),
            "subscribe" => Command::Subscribe(Box::new(self.subscribe(channel()?, fields)?)),
            "unsubscribe" => Command::Unsubscribe { channel: channel()? },
            "publish" => {
                Command::Publish { channel: channel()?, data: data(), kind: kind()?, tags: Vec::new() }
            }
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
            "sub_refresh" => Command::SubRefresh { channel: channel()?, token: token()?, kind: kind()? },
            other => unreachable!("{other} is not in MEMBERS"),
        })
    }

    fn connect(&self, fields: &Fields<'a>) -> Result<Connect, DecodeError> {
        Ok(Connect {
            token: self.string("token", fields.token)?,
            data: self.payload(fields.data),
            name: self.string("name", fields.name)?,
            version: self.string("version", fields.version)?,
            headers: self.headers(fields.headers)?,
            subs: self.subs(fields.subs)?,
            ..Connect::default()
        })
    }

    fn subscribe(&self, channel: String, fields: &Fields<'a>) -> Result<Subscribe, DecodeError> {
        // Read even without `recover`, so that a field of the wrong type is never overlooked.
        let since = self.since(fields)?;
        let recover = self.flag("recover", fields.recover)?;
        let flag: i64 = self.value("flag", fields.flag, "a 64-bit integer")?;
        Ok(Subscribe {
            channel,
            token: self.string("token", fields.token)?,
            data: self.payload(fields.data),
            recover: recover.then_some(since),
            positioned: self.flag("positioned", fields.positioned)?,
            recoverable: self.flag("recoverable", fields.recoverable)?,
            join_leave: self.flag("join_leave", fields.join_leave)?,
            delta: self.string("delta", fields.delta)?,
            tags_filter: fields.tf.map(|raw| self.tags_filter(raw)).transpose()?,
            reject_unrecovered: flag & REJECT_UNRECOVERED != 0,
            kind: self.value("type", fields.r#type, "a 32-bit integer")?,
        })
    }

    fn tags_filter(&self, raw: &'a RawValue) -> Result<Box<filter::Node>, DecodeError> {
        // As many nodes as Protobuf allows, each of which begins with a brace. A list would be taken for the fields in
        // their order.
        let is_small = memchr::memchr_iter(b'{', raw.get().as_bytes()).count() <= MAX_FILTER_NODES;
        let is_object = raw.get().starts_with('{');
        let node = (is_small && is_object).then(|| serde_json::from_str(raw.get()).ok()).flatten();
        node.map(Box::new).ok_or_else(|| self.wrong("tf", "a filter", raw))
    }

    fn headers(&self, raw: Option<&'a RawValue>) -> Result<Vec<(String, String)>, DecodeError> {
        let headers: BTreeMap<String, String> = self.value("headers", raw, "a map of strings")?;
        Ok(headers.into_iter().collect())
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
            put_sub(&mut subs, sub);
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
        Ok(since(self.value("offset", fields.offset, "an unsigned 64-bit integer")?, &epoch))
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
