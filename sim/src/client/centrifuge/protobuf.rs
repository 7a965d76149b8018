//! The client's half of centrifuge Protobuf, by a reader and writer of fields of its own: nothing here knows how
//! the server's works.
//!
//! Reading is strict: a field that the protocol's definition does not have here, a wrong wire type or a flag that
//! is written although it is not set is an error.

use super::said::{
    Ask, Body, ClientInfo, ConnectResult, ErrorBody, HistoryResult, Line, Parts, Payload, PresenceResult,
    Publication, Push, RefreshResult, SubscribeResult, one_push,
};
use crate::client::choice::Choice;
use std::collections::BTreeMap;

/// One field's value.
#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

type Read<T> = Result<T, String>;

impl<'a> Value<'a> {
    fn number(self) -> Read<u64> {
        match self {
            Value::Number(number) => Ok(number),
            Value::Bytes(_) => Err("bytes where a number belongs".into()),
        }
    }

    fn number_u32(self) -> Read<u32> {
        u32::try_from(self.number()?).map_err(|_| "a number of more than 32 bits".into())
    }

    fn flag(self) -> Read<bool> {
        match self.number()? {
            1 => Ok(true),
            other => Err(format!("a flag of {other}")),
        }
    }

    fn bytes(self) -> Read<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Number(_) => Err("a number where bytes belong".into()),
        }
    }

    fn text(self) -> Read<String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| "a string that is no UTF-8".into())
    }

    fn payload(self) -> Read<Payload> {
        Ok(Payload(self.bytes()?.to_vec()))
    }
}

fn take_varint(bytes: &mut &[u8]) -> Read<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("a number that is cut off")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number that does not end".into())
}

/// Takes a message behind its length from the front of `bytes`.
pub(super) fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Read<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).map_err(|_| "a length beyond all memory")?;
    let (message, rest) = bytes.split_at_checked(length).ok_or("a message that is cut off")?;
    *bytes = rest;
    Ok(message)
}

/// Gives each field of a message to `take`.
fn each_field<'a>(mut bytes: &'a [u8], mut take: impl FnMut(u64, Value<'a>) -> Read<()>) -> Read<()> {
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(take_varint(&mut bytes)?),
            2 => Value::Bytes(take_delimited(&mut bytes)?),
            kind => return Err(format!("field {} of the wire type {kind}", key >> 3)),
        };
        take(key >> 3, value).map_err(|what| format!("field {}: {what}", key >> 3))?;
    }
    Ok(())
}

fn unknown(_: Value<'_>) -> Read<()> {
    Err("no such field".into())
}

/// Reads one message.
///
/// # Errors
/// What makes it none of the protocol.
pub(super) fn decode(message: &[u8], is_bare: bool) -> Read<Line> {
    if is_bare {
        return if message.is_empty() { Ok(Line::Beat) } else { push(message) };
    }
    let mut parts = Parts { id: 0, push: None, bodies: Vec::new() };
    each_field(message, |field, value| {
        let body = match field {
            1 => {
                parts.id = value.number_u32()?;
                return Ok(());
            }
            4 => {
                parts.push = Some(push(value.bytes()?));
                return Ok(());
            }
            2 => Body::Error(error(value.bytes()?)?),
            5 => Body::Connect(connect_result(value.bytes()?, false)?),
            6 => Body::Subscribe(subscribe_result(value.bytes()?)?),
            7 => empty(value, Body::Unsubscribe)?,
            8 => empty(value, Body::Publish)?,
            9 => Body::Presence(presence_result(value.bytes()?)?),
            11 => Body::History(history_result(value.bytes()?)?),
            14 => Body::Refresh(refresh_result(value.bytes()?)?),
            _ => return unknown(value),
        };
        parts.bodies.push(body);
        Ok(())
    })?;
    parts.into_line()
}

fn empty(value: Value<'_>, body: Body) -> Read<Body> {
    if value.bytes()?.is_empty() { Ok(body) } else { Err("something where nothing belongs".into()) }
}

fn push(bytes: &[u8]) -> Read<Line> {
    let (mut channel, mut kinds) = (String::new(), Vec::new());
    each_field(bytes, |field, value| {
        kinds.push(match field {
            2 => {
                channel = value.text()?;
                return Ok(());
            }
            4 => Push::Publication(publication(value.bytes()?)?),
            5 => Push::Join(movement(value.bytes()?)?),
            6 => Push::Leave(movement(value.bytes()?)?),
            7 => Push::Unsubscribe(code_and_reason(value.bytes()?, 2)?.0),
            9 => Push::Subscribe(subscribe_push(value.bytes()?)?),
            10 => Push::Connect(connect_result(value.bytes()?, true)?),
            11 => {
                let (code, reason) = code_and_reason(value.bytes()?, 1)?;
                Push::Disconnect { code, reason }
            }
            _ => return unknown(value),
        });
        Ok(())
    })?;
    one_push(channel, kinds)
}

fn code_and_reason(bytes: &[u8], first: u64) -> Read<(u32, String)> {
    let (mut code, mut reason) = (0, String::new());
    each_field(bytes, |field, value| {
        match field {
            field if field == first => code = value.number_u32()?,
            field if field == first + 1 => reason = value.text()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok((code, reason))
}

fn movement(bytes: &[u8]) -> Read<String> {
    let mut client = None;
    each_field(bytes, |field, value| match field {
        1 => {
            client = Some(client_info(value.bytes()?)?.client);
            Ok(())
        }
        _ => unknown(value),
    })?;
    client.ok_or("a movement of nobody".into())
}

fn error(bytes: &[u8]) -> Read<ErrorBody> {
    let mut error = ErrorBody::default();
    each_field(bytes, |field, value| {
        match field {
            1 => error.code = value.number_u32()?,
            2 => error.message = value.text()?,
            3 => error.temporary = value.flag()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(error)
}

/// The result of a connect command, or the push that stands in its place, whose fields have other numbers.
fn connect_result(bytes: &[u8], is_push: bool) -> Read<ConnectResult> {
    let [expires, ttl, data, subs] = if is_push { [5, 6, 3, 4] } else { [3, 4, 5, 6] };
    let mut result = ConnectResult::default();
    each_field(bytes, |field, value| {
        match field {
            1 => result.client = value.text()?,
            2 => result.version = value.text()?,
            7 => result.ping = value.number_u32()?,
            8 => result.pong = value.flag()?,
            9 => result.session = value.text()?,
            10 => result.node = value.text()?,
            field if field == expires => result.expires = value.flag()?,
            field if field == ttl => result.ttl = value.number_u32()?,
            field if field == data => result.data = value.payload()?,
            field if field == subs => entry(value, &mut result.subs, subscribe_result)?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(result)
}

/// Reads an entry of a map.
fn entry<T: Default>(
    value: Value<'_>,
    map: &mut BTreeMap<String, T>,
    read: impl Fn(&[u8]) -> Read<T>,
) -> Read<()> {
    let (mut name, mut held) = (String::new(), T::default());
    each_field(value.bytes()?, |field, value| {
        match field {
            1 => name = value.text()?,
            2 => held = read(value.bytes()?)?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    match map.insert(name, held) {
        None => Ok(()),
        Some(_) => Err("the same key twice".into()),
    }
}

fn subscribe_result(bytes: &[u8]) -> Read<SubscribeResult> {
    let mut result = SubscribeResult::default();
    each_field(bytes, |field, value| {
        match field {
            1 => result.expires = value.flag()?,
            2 => result.ttl = value.number_u32()?,
            3 => result.recoverable = value.flag()?,
            6 => result.epoch = value.text()?,
            7 => result.publications.push(publication(value.bytes()?)?),
            8 => result.recovered = value.flag()?,
            9 => result.offset = value.number()?,
            10 => result.positioned = value.flag()?,
            11 => result.data = value.payload()?,
            12 => result.was_recovering = value.flag()?,
            13 => result.delta = value.flag()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(result)
}

fn subscribe_push(bytes: &[u8]) -> Read<SubscribeResult> {
    let mut result = SubscribeResult::default();
    each_field(bytes, |field, value| {
        match field {
            1 => result.recoverable = value.flag()?,
            4 => result.epoch = value.text()?,
            5 => result.offset = value.number()?,
            6 => result.positioned = value.flag()?,
            7 => result.data = value.payload()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(result)
}

fn publication(bytes: &[u8]) -> Read<Publication> {
    let mut publication = Publication::default();
    each_field(bytes, |field, value| {
        match field {
            4 => publication.data = value.payload()?,
            5 => publication.info = Some(client_info(value.bytes()?)?),
            6 => publication.offset = value.number()?,
            7 => entry(value, &mut publication.tags, |text| Value::Bytes(text).text())?,
            8 => publication.delta = value.flag()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(publication)
}

fn client_info(bytes: &[u8]) -> Read<ClientInfo> {
    let mut info = ClientInfo::default();
    each_field(bytes, |field, value| {
        match field {
            1 => info.user = value.text()?,
            2 => info.client = value.text()?,
            3 => info.conn_info = value.payload()?,
            4 => info.chan_info = value.payload()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(info)
}

fn presence_result(bytes: &[u8]) -> Read<PresenceResult> {
    let mut result = PresenceResult::default();
    each_field(bytes, |field, value| match field {
        1 => entry(value, &mut result.presence, client_info),
        _ => unknown(value),
    })?;
    Ok(result)
}

fn history_result(bytes: &[u8]) -> Read<HistoryResult> {
    let mut result = HistoryResult::default();
    each_field(bytes, |field, value| {
        match field {
            1 => result.publications.push(publication(value.bytes()?)?),
            2 => result.epoch = value.text()?,
            3 => result.offset = value.number()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(result)
}

fn refresh_result(bytes: &[u8]) -> Read<RefreshResult> {
    let mut result = RefreshResult::default();
    each_field(bytes, |field, value| {
        match field {
            1 => result.client = value.text()?,
            2 => result.version = value.text()?,
            3 => result.expires = value.flag()?,
            4 => result.ttl = value.number_u32()?,
            _ => return unknown(value),
        }
        Ok(())
    })?;
    Ok(result)
}

/// A message that is written: zero values are left out.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(mut self, field: u64, number: u64) -> Writer {
        if number != 0 {
            self.varint(field << 3);
            self.varint(number);
        }
        self
    }

    fn text(self, field: u64, text: &str) -> Writer {
        if text.is_empty() { self } else { self.nested(field, text.as_bytes()) }
    }

    /// As [`text`](Self::text), but written even where it is empty.
    fn nested(mut self, field: u64, bytes: &[u8]) -> Writer {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }
}

/// Writes a command without its length, or, without a number, the request of a link that has no way back.
pub(super) fn encode(id: Option<u32>, ask: &Ask<'_>) -> Vec<u8> {
    let new = Writer::default;
    let (field, fields) = match *ask {
        Ask::Connect { token, subs } => {
            let mut fields = new().text(1, token.unwrap_or_default());
            for (channel, offset, epoch) in subs {
                let sub = new().number(3, 1).text(6, epoch).number(7, *offset);
                fields = fields.nested(3, &new().text(1, channel).nested(2, &sub.0).0);
            }
            (4, fields.text(4, "go"))
        }
        Ask::Subscribe { wanted, since } => {
            let mut fields = new().text(1, &wanted.channel).text(2, wanted.token.as_deref().unwrap_or(""));
            if let Some((offset, epoch)) = since {
                fields = fields.number(3, 1).text(6, epoch).number(7, *offset);
            }
            fields = fields
                .number(9, wanted.positioned.into())
                .number(10, wanted.recoverable.into())
                .number(11, wanted.join_leave.into())
                .text(12, if wanted.delta { "fossil" } else { "" });
            if let Some(filter) = &wanted.filter {
                fields = fields.nested(13, &tags_filter(filter).0);
            }
            (5, fields)
        }
        Ask::Unsubscribe(channel) => (6, new().text(1, channel)),
        Ask::Publish { channel, data } => (7, new().text(1, channel).text(2, data)),
        Ask::Presence(channel) => (8, new().text(1, channel)),
        // -1 in 64 bits, as every writer of a negative `int32` has it.
        Ask::History(channel) => (10, new().text(1, channel).number(7, u64::MAX)),
        Ask::Refresh(token) => (14, new().text(1, token)),
    };
    match id {
        Some(id) => new().number(1, id.into()).nested(field, &fields.0).0,
        None => fields.0,
    }
}

fn tags_filter(choice: &Choice) -> Writer {
    let new = Writer::default;
    match choice {
        Choice::Is(key, value) => new().text(2, key).text(3, "eq").text(4, value),
        Choice::MoreThan(key, value) => new().text(2, key).text(3, "gt").text(4, &value.to_string()),
        Choice::Not(inner) => new().text(1, "not").nested(6, &tags_filter(inner).0),
        Choice::Any(all) => {
            all.iter().fold(new().text(1, "or"), |writer, inner| writer.nested(6, &tags_filter(inner).0))
        }
    }
}

/// Makes one message of commands; without any, an answer to a beat.
pub(super) fn join(commands: &[Vec<u8>]) -> Vec<u8> {
    if commands.is_empty() {
        return vec![0];
    }
    let mut message = Writer::default();
    for command in commands {
        message.varint(command.len() as u64);
        message.0.extend_from_slice(command);
    }
    message.0
}

/// Writes what `/emulation` takes.
pub(super) fn emulation(session: &str, node: &str, data: &[u8]) -> Vec<u8> {
    Writer::default().text(1, node).text(2, session).nested(3, data).0
}
