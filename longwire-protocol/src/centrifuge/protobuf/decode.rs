//! What a client says: commands taken out of a message.
//!
//! Payloads are slices of the message, as they came.

use crate::centrifuge::{
    DecodeError, EmulationRequest, MAX_SUBS, MEMBERS, REJECT_UNRECOVERED, check_id, put_sub, since,
};
use crate::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use crate::filter;
use crate::position::Since;
use bytes::{Buf, Bytes};
use std::collections::BTreeMap;

/// How deeply the nodes of a filter may be nested before it is refused unjudged.
pub const MAX_FILTER_DEPTH: usize = 32;

/// How many nodes a filter may have before it is refused unjudged: a node of two bytes takes seventy times as
/// many in memory.
pub const MAX_FILTER_NODES: usize = 1024;

/// Takes the next command from the front of `message`, which is advanced past it; `None` if nothing is left.
///
/// Payloads are slices of `message`: they keep the whole message in memory for as long as they live.
///
/// # Errors
///
/// If what comes next is not a command of the protocol. Nothing that follows can be trusted, so `message`
/// is then empty.
pub fn decode_next(message: &mut Bytes) -> Option<Result<Numbered, DecodeError>> {
    if message.is_empty() {
        return None;
    }
    let whole = message.clone();
    let mut all = Part::all(&whole, "command");
    let decoded = all.delimited().and_then(decode_command);
    match &decoded {
        Ok(_) => message.advance(all.at),
        Err(_) => message.clear(),
    }
    Some(decoded)
}

/// Reads the fields of a connect command that stands alone, as transports without a way back have it: all of
/// `message`, without a length. An empty message asks for nothing.
///
/// # Errors
///
/// As for [`decode_next`].
pub fn decode_connect(message: &Bytes) -> Result<Connect, DecodeError> {
    decode_connect_fields(Part::all(message, "connect"))
}

/// Reads what a client that listens to a stream sends beside it: commands, as bytes.
///
/// # Errors
///
/// If it is not such a message.
pub fn decode_emulation(message: &Bytes) -> Result<EmulationRequest, DecodeError> {
    let mut part = Part::all(message, "emulation");
    let mut request = EmulationRequest::default();
    while let Some(field) = part.next()? {
        match field.number {
            1 => request.node = field.text("node")?,
            2 => request.session = field.text("session")?,
            3 => request.data = field.payload("data")?,
            _ => {}
        }
    }
    Ok(request)
}

/// The number of a command's first member; the others follow in the order of [`MEMBERS`].
const FIRST_MEMBER: usize = 4;

fn decode_command(mut part: Part<'_>) -> Result<Numbered, DecodeError> {
    let start = part.at;
    let mut id = 0;
    let mut chosen: Option<(usize, Part<'_>)> = None;
    while let Some(field) = part.next()? {
        if field.number == 1 {
            id = field.u32("id")?;
            continue;
        }
        let Some(member) = (field.number as usize).checked_sub(FIRST_MEMBER) else { continue };
        let Some(name) = MEMBERS.get(member) else { continue };
        let fields = field.message(name)?;
        if chosen.is_none_or(|(earlier, _)| member <= earlier) {
            chosen = Some((member, Part { name, ..fields }));
        }
    }
    check_id(id, chosen.map(|(member, _)| MEMBERS[member]))
        .map_err(|what| DecodeError { what: what.into(), at: start })?;
    let command = match chosen {
        Some((_, fields)) => decode_member(fields)?,
        None => Command::Pong,
    };
    Ok(Numbered { id, command })
}

fn decode_member(mut part: Part<'_>) -> Result<Command, DecodeError> {
    // The fields of the commands that are short, whose numbers mean the same in several of them or are told
    // apart below.
    let (mut channel, mut token, mut kind) = (String::new(), String::new(), 0);
    let (mut data, mut method) = (Bytes::new(), String::new());
    let member = part.name;
    match member {
        "connect" => return Ok(Command::Connect(Box::new(decode_connect_fields(part)?))),
        "subscribe" => return Ok(Command::Subscribe(Box::new(decode_subscribe(part)?))),
        "history" => return Ok(Command::History(decode_history(part)?)),
        _ => {}
    }
    while let Some(field) = part.next()? {
        match (member, field.number) {
            ("unsubscribe" | "publish" | "presence" | "presence_stats" | "sub_refresh", 1) => {
                channel = field.text("channel")?;
            }
            ("publish", 2) | ("send" | "rpc", 1) => data = field.payload("data")?,
            ("publish" | "sub_refresh", 3) => kind = field.i32("type")?,
            ("rpc", 2) => method = field.text("method")?,
            ("refresh", 1) | ("sub_refresh", 2) => token = field.text("token")?,
            _ => {}
        }
    }
    Ok(match member {
        "unsubscribe" => Command::Unsubscribe { channel },
        "publish" => Command::Publish { channel, data, kind, tags: Vec::new() },
        "presence" => Command::Presence { channel },
        "presence_stats" => Command::PresenceStats { channel },
        "ping" => Command::Ping,
        "send" => Command::Send { data },
        "rpc" => Command::Rpc { method, data },
        "refresh" => Command::Refresh { token },
        "sub_refresh" => Command::SubRefresh { channel, token, kind },
        other => unreachable!("{other} is not in MEMBERS"),
    })
}

fn decode_connect_fields(mut part: Part<'_>) -> Result<Connect, DecodeError> {
    let mut connect = Connect::default();
    let mut headers = BTreeMap::new();
    let mut count = 0;
    while let Some(field) = part.next()? {
        match field.number {
            1 => connect.token = field.text("token")?,
            2 => connect.data = field.payload("data")?,
            3 => {
                count += 1;
                if count > MAX_SUBS {
                    return Err(field.wrong("subs", "a map of at most 1024 channels"));
                }
                let (key, value) = field.message("subs")?.entry("connect.subs")?;
                let channel = key.map_or(Ok(String::new()), |key| key.text("key"))?;
                let fields = value.map(|value| value.message("value")).transpose()?;
                let fields = fields.map(|fields| decode_subscribe(Part { name: "connect.subs", ..fields }));
                put_sub(&mut connect.subs, Subscribe { channel, ..fields.transpose()?.unwrap_or_default() });
            }
            4 => connect.name = field.text("name")?,
            5 => connect.version = field.text("version")?,
            6 => {
                let (key, value) = field.message("headers")?.entry("connect.headers")?;
                let key = key.map_or(Ok(String::new()), |key| key.text("key"))?;
                headers.insert(key, value.map_or(Ok(String::new()), |value| value.text("value"))?);
            }
            _ => {}
        }
    }
    connect.headers = headers.into_iter().collect();
    Ok(connect)
}

fn decode_subscribe(mut part: Part<'_>) -> Result<Subscribe, DecodeError> {
    let mut subscribe = Subscribe::default();
    let (mut recover, mut offset, mut epoch) = (false, 0, String::new());
    while let Some(field) = part.next()? {
        match field.number {
            1 => subscribe.channel = field.text("channel")?,
            2 => subscribe.token = field.text("token")?,
            3 => recover = field.flag("recover")?,
            6 => epoch = field.text("epoch")?,
            7 => offset = field.u64("offset")?,
            8 => subscribe.data = field.payload("data")?,
            9 => subscribe.positioned = field.flag("positioned")?,
            10 => subscribe.recoverable = field.flag("recoverable")?,
            11 => subscribe.join_leave = field.flag("join_leave")?,
            12 => subscribe.delta = field.text("delta")?,
            13 => {
                let mut nodes = 0;
                subscribe.tags_filter = Some(Box::new(decode_node(field.message("tf")?, 1, &mut nodes)?));
            }
            14 => subscribe.reject_unrecovered = field.i64("flag")? & REJECT_UNRECOVERED != 0,
            15 => subscribe.kind = field.i32("type")?,
            _ => {}
        }
    }
    subscribe.recover = recover.then(|| since(offset, &epoch));
    Ok(subscribe)
}

/// Reads a node of a filter and those within it, `depth` levels down, and counts them in `nodes`.
fn decode_node(part: Part<'_>, depth: usize, nodes: &mut usize) -> Result<filter::Node, DecodeError> {
    let mut part = Part { name: "subscribe.tf", ..part };
    let too = |what: String| Err(DecodeError { what: format!("subscribe.tf {what}").into(), at: part.at });
    *nodes += 1;
    if depth > MAX_FILTER_DEPTH {
        return too(format!("is nested deeper than {MAX_FILTER_DEPTH} levels"));
    }
    if *nodes > MAX_FILTER_NODES {
        return too(format!("has more than {MAX_FILTER_NODES} nodes"));
    }
    let mut node = filter::Node::default();
    while let Some(field) = part.next()? {
        match field.number {
            1 => node.op = field.text("op")?,
            2 => node.key = field.text("key")?,
            3 => node.cmp = field.text("cmp")?,
            4 => node.val = field.text("val")?,
            5 => node.vals.push(field.text("vals")?),
            6 => node.nodes.push(decode_node(field.message("nodes")?, depth + 1, nodes)?),
            _ => {}
        }
    }
    Ok(node)
}

fn decode_history(mut part: Part<'_>) -> Result<HistoryRequest, DecodeError> {
    let mut request = HistoryRequest::default();
    while let Some(field) = part.next()? {
        match field.number {
            1 => request.channel = field.text("channel")?,
            7 => request.limit = field.i32("limit")?,
            8 => request.since = Some(decode_position(field.message("since")?)?),
            9 => request.reverse = field.flag("reverse")?,
            _ => {}
        }
    }
    Ok(request)
}

fn decode_position(part: Part<'_>) -> Result<Since, DecodeError> {
    let mut part = Part { name: "history.since", ..part };
    let (mut offset, mut epoch) = (0, String::new());
    while let Some(field) = part.next()? {
        match field.number {
            1 => offset = field.u64("offset")?,
            2 => epoch = field.text("epoch")?,
            _ => {}
        }
    }
    Ok(since(offset, &epoch))
}

/// A Protobuf message within the message that came, read field by field.
#[derive(Clone, Copy)]
struct Part<'a> {
    message: &'a Bytes,
    /// What is read next.
    at: usize,
    end: usize,
    /// What it is, for errors.
    name: &'static str,
}

/// One field of a message.
#[derive(Clone, Copy)]
struct Field<'a> {
    number: u32,
    value: Value<'a>,
    /// Where it begins, and what it is part of.
    at: usize,
    parent: &'static str,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    /// Four or eight bytes, which no field that we know has.
    Fixed,
    /// Text, a payload or a message.
    Bytes(Part<'a>),
}

impl<'a> Part<'a> {
    fn all(message: &'a Bytes, name: &'static str) -> Part<'a> {
        Part { message, at: 0, end: message.len(), name }
    }

    fn next(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        if self.at == self.end {
            return Ok(None);
        }
        let at = self.at;
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.skip(4)?,
            _ => return Err(self.wrong("has a field of an unknown type", at)),
        };
        match u32::try_from(tag >> 3) {
            // Protocol Buffers: field numbers are 1 to 2^29 - 1.
            Ok(number @ 1..=0x1fff_ffff) => Ok(Some(Field { number, value, at, parent: self.name })),
            _ => Err(self.wrong("has a field of an impossible number", at)),
        }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let start = self.at;
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if self.at == self.end {
                return Err(self.cut_off());
            }
            let byte = self.message[self.at];
            self.at += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.wrong("has a number of more than 64 bits", start))
    }

    /// A length and so many bytes.
    fn delimited(&mut self) -> Result<Part<'a>, DecodeError> {
        let len = self.varint()?;
        let at = self.at;
        match usize::try_from(len) {
            Ok(len) if len <= self.end - at => {
                self.at = at + len;
                Ok(Part { at, end: self.at, ..*self })
            }
            _ => Err(self.cut_off()),
        }
    }

    fn skip(&mut self, len: usize) -> Result<Value<'a>, DecodeError> {
        if len > self.end - self.at {
            return Err(self.cut_off());
        }
        self.at += len;
        Ok(Value::Fixed)
    }

    /// The key and the value of a map's entry, which is a message of these two fields.
    fn entry(self, name: &'static str) -> Result<(Option<Field<'a>>, Option<Field<'a>>), DecodeError> {
        let mut part = Part { name, ..self };
        let (mut key, mut value) = (None, None);
        while let Some(field) = part.next()? {
            match field.number {
                1 => key = Some(field),
                2 => value = Some(field),
                _ => {}
            }
        }
        Ok((key, value))
    }

    fn cut_off(&self) -> DecodeError {
        self.wrong("is cut off", self.end)
    }

    fn wrong(&self, what: &str, at: usize) -> DecodeError {
        DecodeError { what: format!("{} {what}", self.name).into(), at }
    }
}

impl<'a> Field<'a> {
    fn varint(&self, field: &str, expected: &str) -> Result<u64, DecodeError> {
        match self.value {
            Value::Number(number) => Ok(number),
            _ => Err(self.wrong(field, expected)),
        }
    }

    fn u64(&self, field: &str) -> Result<u64, DecodeError> {
        self.varint(field, "an unsigned 64-bit integer")
    }

    fn u32(&self, field: &str) -> Result<u32, DecodeError> {
        const EXPECTED: &str = "an unsigned 32-bit integer";
        self.varint(field, EXPECTED)?.try_into().map_err(|_| self.wrong(field, EXPECTED))
    }

    fn i64(&self, field: &str) -> Result<i64, DecodeError> {
        // Protocol Buffers: a negative number is written as the unsigned one with the same 64 bits.
        Ok(self.varint(field, "a 64-bit integer")?.cast_signed())
    }

    fn i32(&self, field: &str) -> Result<i32, DecodeError> {
        const EXPECTED: &str = "a 32-bit integer";
        let number = self.varint(field, EXPECTED)?.cast_signed();
        number.try_into().map_err(|_| self.wrong(field, EXPECTED))
    }

    fn flag(&self, field: &str) -> Result<bool, DecodeError> {
        Ok(self.varint(field, "true or false")? != 0)
    }

    fn text(&self, field: &str) -> Result<String, DecodeError> {
        let Value::Bytes(part) = self.value else {
            return Err(self.wrong(field, "a valid string"));
        };
        match simdutf8::basic::from_utf8(&part.message[part.at..part.end]) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.wrong(field, "a valid string")),
        }
    }

    fn payload(&self, field: &str) -> Result<Bytes, DecodeError> {
        match self.value {
            // An empty slice would keep the whole message in memory.
            Value::Bytes(part) if part.at == part.end => Ok(Bytes::new()),
            Value::Bytes(part) => Ok(part.message.slice(part.at..part.end)),
            _ => Err(self.wrong(field, "a payload")),
        }
    }

    fn message(&self, field: &str) -> Result<Part<'a>, DecodeError> {
        match self.value {
            Value::Bytes(part) => Ok(part),
            _ => Err(self.wrong(field, "a message")),
        }
    }

    fn wrong(&self, field: &str, expected: &str) -> DecodeError {
        // The members of a command, and its id, go by their own names.
        let what = match self.parent {
            "command" => format!("{field} is not {expected}"),
            parent => format!("{parent}.{field} is not {expected}"),
        };
        DecodeError { what: what.into(), at: self.at }
    }
}
