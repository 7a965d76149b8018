//! Promises of `centrifuge::client`.
//!
//! A message is taken apart to its end whatever it holds; each line that is taken is JSON to an independent parser too,
//! which finds the same in it, and its payloads are its own text. What a client asks is read by the server's half as
//! what it was; a difference gives its target or is refused, and never more than the limit.

use crate::input::Input;
use bytes::Bytes;
use longwire_protocol::centrifuge::client::{
    Command, Connect, Publication, Push, Reply, Said, Since, Subscribe, decode_line, decode_next,
    encode_command, resolve,
};
use longwire_protocol::centrifuge::json;
use longwire_protocol::command;
use serde_json::Value;

/// How long what a difference makes may be.
const MAX: usize = 3000;

/// Takes the data as what a server says, as a difference, and as what a client asks.
pub fn run(data: &[u8]) {
    hostile(data);
    differs(Input::new(data));
    asks(Input::new(data));
}

fn hostile(data: &[u8]) {
    let mut message = Bytes::copy_from_slice(data);
    loop {
        let before = message.clone();
        match decode_next(&mut message) {
            None => {
                assert!(message.is_empty() && before.trim_ascii().is_empty(), "something was passed over");
                break;
            }
            Some(Ok(said)) => {
                let taken = &before[..before.len() - message.len()];
                let line = taken.trim_ascii();
                judge(line, &said);
                assert_eq!(
                    decode_line(&Bytes::copy_from_slice(line)),
                    Ok(said),
                    "alone it is something else"
                );
            }
            Some(Err(error)) => {
                assert!(message.is_empty(), "something may be taken after an error");
                assert!(
                    error.at <= before.len() && !error.what.is_empty() && error.what.len() < 100,
                    "{error}"
                );
                break;
            }
        }
    }
}

/// Compares what was read with what an independent parser finds.
fn judge(line: &[u8], said: &Said) {
    // It keeps the last of two members of one name, as this one does; but numbers may be too large for it.
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => return assert!(!error.is_eof(), "what was read is cut off"),
    };
    let id = value.get("id").and_then(Value::as_u64).unwrap_or(0);
    match said {
        Said::Ping => assert!(id == 0 && value.get("push").is_none_or(Value::is_null)),
        Said::Reply { id: read, reply } => {
            assert_eq!(u64::from(*read), id);
            match reply {
                Reply::Connect(result) => payload(line, &result.data),
                Reply::Subscribe(result) => {
                    payload(line, &result.data);
                    result.publications.iter().for_each(|publication| published(line, publication));
                }
                Reply::History(history) => history.publications.iter().for_each(|one| published(line, one)),
                Reply::Rpc { data } => payload(line, data),
                _ => {}
            }
        }
        Said::Push { channel, push } => {
            let pushed = &value["push"];
            assert_eq!(pushed.get("channel").and_then(Value::as_str).unwrap_or(""), &**channel);
            match push {
                Push::Publication(publication) => published(line, publication),
                Push::Message { data } => payload(line, data),
                _ => {}
            }
        }
    }
}

fn published(line: &[u8], publication: &Publication) {
    payload(line, &publication.data);
    if let Some(info) = &publication.info {
        payload(line, &info.conn_info);
        payload(line, &info.chan_info);
    }
}

/// A payload is JSON, and stands in the line as it is.
fn payload(line: &[u8], data: &Bytes) {
    if !data.is_empty() {
        assert!(memmem(line, data), "a payload that the line does not have");
        assert!(
            serde_json::from_slice::<&serde_json::value::RawValue>(data).is_ok(),
            "a payload that is no JSON"
        );
    }
}

fn memmem(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn differs(mut input: Input<'_>) {
    let delta = input.flag();
    let base = input.text(300);
    let raw = match input.flag() {
        true => Value::from(input.text(300)).to_string().into(),
        // A payload stands in its line without space around it.
        false => Bytes::copy_from_slice(input.bytes(300).trim_ascii()),
    };
    let publication = Publication { data: raw.clone(), delta, ..Publication::default() };
    match resolve(&publication, base.as_bytes(), MAX) {
        Ok(data) => {
            assert!(data.len() <= MAX && std::str::from_utf8(&data).is_ok());
            if !delta {
                assert_eq!(serde_json::from_slice::<String>(&raw).expect("a string").as_bytes(), data);
            }
        }
        Err(error) => assert!(delta || serde_json::from_slice::<String>(&raw).is_err(), "{error}"),
    }
}

fn asks(mut input: Input<'_>) {
    let id = u32::from(input.short()) + 1;
    let (channel, token) = (input.text(40), input.text(40));
    let data = Value::from(input.text(100)).to_string();
    let epoch = input.text(10);
    let since = Since { offset: input.number(), epoch: &epoch };
    let subscribe = Subscribe {
        channel: &channel,
        token: &token,
        data: data.as_bytes(),
        recover: input.flag().then_some(since),
        positioned: input.flag(),
        recoverable: input.flag(),
        join_leave: input.flag(),
        delta: input.flag(),
        tags_filter: None,
        reject_unrecovered: input.flag(),
    };
    let subs = [(channel.as_str(), since)];
    let connect =
        Connect { token: &token, data: data.as_bytes(), name: &channel, subs: &subs, ..Connect::default() };
    for asked in [
        Command::Connect(&connect),
        Command::Subscribe(&subscribe),
        Command::Publish { channel: &channel, data: data.as_bytes() },
        Command::Rpc { method: &channel, data: data.as_bytes() },
        Command::History { channel: &channel, limit: -1, since: Some(since), reverse: true },
    ] {
        let mut line = Vec::new();
        encode_command(id, &asked, &mut line);
        assert!(!line.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "a line break in a line");
        let read = json::decode_next(&mut line.into()).expect("it is not blank").expect("it is a command");
        assert_eq!(read.id, id);
        match read.command {
            command::Command::Connect(read) => {
                assert_eq!(
                    (read.token, read.data, read.name),
                    (token.clone(), data.clone().into(), channel.clone())
                );
                assert_eq!(read.subs[0].channel, channel);
                assert_eq!(read.subs[0].recover.map(|since| since.offset), Some(since.offset));
            }
            command::Command::Subscribe(read) => {
                assert_eq!(
                    (read.channel, read.token, read.data),
                    (channel.clone(), token.clone(), data.clone().into())
                );
                assert_eq!(
                    read.recover.map(|since| since.offset),
                    subscribe.recover.map(|since| since.offset)
                );
                assert_eq!(read.reject_unrecovered, subscribe.reject_unrecovered);
                assert_eq!(
                    (read.positioned, read.recoverable),
                    (subscribe.positioned, subscribe.recoverable)
                );
                assert_eq!(
                    (read.join_leave, read.delta == "fossil"),
                    (subscribe.join_leave, subscribe.delta)
                );
            }
            command::Command::Publish { channel: read, data: sent, .. } => {
                assert_eq!((read, sent), (channel.clone(), data.clone().into()));
            }
            command::Command::Rpc { method, data: sent } => {
                assert_eq!((method, sent), (channel.clone(), data.clone().into()));
            }
            command::Command::History(read) => {
                assert_eq!((read.channel, read.limit, read.reverse), (channel.clone(), -1, true));
                assert_eq!(read.since.map(|since| since.offset), Some(since.offset));
            }
            other => panic!("{asked:?} is read as {other:?}"),
        }
    }
}
