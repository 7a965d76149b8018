//! Promises of `centrifuge::json`.
//!
//! A message is taken apart to its end whatever it holds; each command that is taken is JSON to an
//! independent parser too, is no deeper than the limit, and its payloads are its own text. Two messages on
//! two lines are their commands one after the other. A command that is written as JSON decodes to itself,
//! and what the server says is one line of JSON that says what was meant,
//! in ASCII too. A connect request means alone what it means as a command; a difference gives back the whole.

use crate::input::Input;
use bytes::Bytes;
use longwire_protocol::centrifuge::json::{
    DecodeError, EmulationRequest, MAX_DEPTH, MAX_SUBS, decode_connect, decode_emulation, decode_next,
    encode_bare_push, encode_push, encode_reply,
};
use longwire_protocol::command::{Command, Connect, HistoryRequest, Numbered, Subscribe};
use longwire_protocol::filter;
use longwire_protocol::json::escape_non_ascii;
use longwire_protocol::message::{
    ClientId, ClientInfo, ConnectResult, Publication, Push, Reply, ReplyError, SubscribeResult,
};
use longwire_protocol::{Close, CloseReason, Epoch, Position, Since, fossil};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Takes the data as a message, then as what to make commands, replies and pushes of.
pub fn run(data: &[u8]) {
    hostile(data);
    alone(data);
    faithful(Input::new(data));
    said(Input::new(data));
}

type Decoded = (Vec<Numbered>, Option<DecodeError>);

fn decode_all(message: &[u8]) -> Decoded {
    let mut message = Bytes::copy_from_slice(message);
    let mut commands = Vec::new();
    loop {
        let before = message.clone();
        match decode_next(&mut message) {
            None => {
                assert!(message.is_empty());
                return (commands, None);
            }
            Some(Ok(numbered)) => {
                assert!(message.len() < before.len(), "a command of no bytes");
                let text = &before[..before.len() - message.len()];
                is_command(text, &numbered);
                commands.push(numbered);
            }
            Some(Err(error)) => {
                assert!(message.is_empty(), "something may be taken after an error");
                assert!(error.at <= before.len(), "{error}");
                assert!(!error.what.is_empty() && error.what.len() < 100, "{error}");
                return (commands, Some(error));
            }
        }
    }
}

fn is_command(text: &[u8], numbered: &Numbered) {
    // That all of it is UTF-8 is the transport's promise; here only what is used is looked at.
    if let Ok(text) = std::str::from_utf8(text.trim_ascii()) {
        serde_json::from_str::<&RawValue>(text).expect("a command is JSON");
    }
    let deepest = depth(text);
    assert!(deepest <= MAX_DEPTH, "{deepest} levels");
    let is_own = |data: &Bytes| {
        let lies_within = text.as_ptr_range().contains(&data.as_ptr());
        assert!(data.is_empty() || lies_within, "a payload was copied");
        assert!(data.is_empty() || serde_json::from_slice::<&RawValue>(data).is_ok(), "a payload is JSON");
    };
    match &numbered.command {
        Command::Pong => assert_eq!(numbered.id, 0),
        Command::Send { data } => is_own(data),
        command => {
            assert_ne!(numbered.id, 0, "{command:?} without an id");
            match command {
                Command::Connect(connect) => {
                    is_own(&connect.data);
                    assert!(connect.subs.len() <= MAX_SUBS);
                    connect.subs.iter().for_each(|sub| is_own(&sub.data));
                }
                Command::Subscribe(subscribe) => is_own(&subscribe.data),
                Command::Publish { data, .. } | Command::Rpc { data, .. } => is_own(data),
                _ => {}
            }
        }
    }
}

/// How deeply valid JSON is nested.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut is_escaped) = (0usize, 0, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn hostile(data: &[u8]) {
    let whole = decode_all(data);
    for separator in [&b"\n"[..], b" \r\n", b""] {
        let twice = decode_all(&[data, separator, data].concat());
        if whole.1.is_none() {
            assert_eq!(twice.1, None, "what is valid twice is not valid in a row");
            assert_eq!(twice.0, [&whole.0[..], &whole.0[..]].concat());
        } else {
            // What was cut off may go on behind the separator, so nothing is said of the rest.
            let common = whole.0.len().min(twice.0.len());
            assert_eq!(twice.0[..common], whole.0[..common]);
            assert_eq!(common, whole.0.len(), "what follows takes back a command");
        }
    }
}

/// Takes the data as what transports without a way back hear.
fn alone(data: &[u8]) {
    let message = Bytes::copy_from_slice(data);
    match decode_connect(&message) {
        Ok(connect) if data.trim_ascii().is_empty() => assert_eq!(connect, Connect::default()),
        Ok(connect) => {
            let command = [b"{\"id\":1,\"connect\":", data, b"}"].concat();
            let expected = Numbered { id: 1, command: Command::Connect(Box::new(connect)) };
            // As a member it is a level deeper.
            if depth(data) < MAX_DEPTH {
                assert_eq!(decode_all(&command), (vec![expected], None), "alone it means something else");
            }
        }
        Err(error) => assert!(error.at <= data.len() && error.what.len() < 100, "{error}"),
    }
    match decode_emulation(&message) {
        Ok(request) => {
            // A surrogate alone, in a field that nobody asks for, is overlooked.
            if let Ok(said) = serde_json::from_slice::<Value>(data) {
                assert_eq!(said["session"].as_str().unwrap_or_default(), request.session);
                assert_eq!(said["data"].as_str().unwrap_or_default().as_bytes(), &request.data[..]);
            }
        }
        Err(error) => assert!(error.at <= data.len() && error.what.len() < 100, "{error}"),
    }
}

fn faithful(mut input: Input<'_>) {
    let mut message = Vec::new();
    let mut made = Vec::new();
    for _ in 0..1 + input.byte() % 4 {
        let numbered = command(&mut input);
        let is_indented = input.flag();
        let value = written(&numbered);
        if is_indented {
            message.extend_from_slice(serde_json::to_string_pretty(&value).expect("a value").as_bytes());
        } else {
            message.extend_from_slice(value.to_string().as_bytes());
        }
        message.push(b'\n');
        made.push(numbered);
    }
    let (decoded, error) = decode_all(&message);
    assert_eq!(error, None, "{}", String::from_utf8_lossy(&message));
    let session = input.text(10);
    let beside = json!({ "session": session, "node": "n", "data": String::from_utf8_lossy(&message) });
    let expected = EmulationRequest { session, node: "n".to_owned(), data: message.clone().into() };
    assert_eq!(decode_emulation(&beside.to_string().into()), Ok(expected));
    let readable = |commands: &[Numbered]| commands.iter().map(written).collect::<Vec<_>>();
    assert_eq!(readable(&decoded), readable(&made));
}

/// A payload that is JSON, or none.
pub(crate) fn payload(input: &mut Input<'_>) -> Bytes {
    let value = match input.byte() % 6 {
        0 => return Bytes::new(),
        1 => Value::from(input.number()),
        2 => Value::from(input.text(200)),
        3 => json!({ input.text(10): [input.text(10), null, 1.5, {}] }),
        4 => json!([[[[true]]], "\n\r\u{2028}\"\\"]),
        _ => json!({ "data": { "channel": input.text(20) } }),
    };
    value.to_string().into()
}

fn since(input: &mut Input<'_>) -> Since {
    let epoch = (!input.flag()).then(|| Epoch::from_random(input.number()));
    Since { offset: input.number(), epoch }
}

fn subscribe(input: &mut Input<'_>) -> Subscribe {
    let flags = input.byte();
    let is = |bit: u8| flags & bit != 0;
    Subscribe {
        channel: input.text(30),
        token: input.text(30),
        data: payload(input),
        recover: is(1).then(|| since(input)),
        positioned: is(2),
        recoverable: is(4),
        join_leave: is(8),
        delta: if is(16) { "fossil".to_owned() } else { String::new() },
        tags_filter: is(32).then(|| Box::new(filter::Node { op: input.text(5), ..filter::Node::default() })),
        reject_unrecovered: is(64),
        kind: i32::from(is(128)) - i32::from(is(64)),
    }
}

/// A command of arbitrary content.
pub(crate) fn command(input: &mut Input<'_>) -> Numbered {
    let id = u32::from(input.short()) << 8 | 1;
    let command = match input.byte() % 13 {
        0 => {
            let mut subs: Vec<Subscribe> = Vec::new();
            for _ in 0..input.byte() % 4 {
                let sub = subscribe(input);
                if subs.iter().all(|earlier| earlier.channel != sub.channel) {
                    subs.push(sub);
                }
            }
            // The order of a map's keys means nothing; `written` sorts them.
            subs.sort_by(|a, b| a.channel.cmp(&b.channel));
            Command::Connect(Box::new(Connect {
                token: input.text(30),
                data: payload(input),
                name: input.text(10),
                version: input.text(10),
                headers: (0..input.byte() % 3)
                    .map(|i| (format!("{i}{}", input.text(9)), input.text(9)))
                    .collect(),
                subs,
                ..Connect::default()
            }))
        }
        1 => Command::Subscribe(Box::new(subscribe(input))),
        2 => Command::Unsubscribe { channel: input.text(30) },
        3 => Command::Publish { channel: input.text(30), data: payload(input), kind: 0, tags: Vec::new() },
        4 => Command::Presence { channel: input.text(30) },
        5 => Command::PresenceStats { channel: input.text(30) },
        6 => Command::History(HistoryRequest {
            channel: input.text(30),
            limit: input.number() as i32,
            since: (!input.flag()).then(|| since(input)),
            reverse: input.flag(),
        }),
        7 => Command::Rpc { method: input.text(10), data: payload(input) },
        8 => Command::Send { data: payload(input) },
        9 => Command::Refresh { token: input.text(30) },
        10 => Command::SubRefresh { channel: input.text(30), token: input.text(30), kind: 0 },
        11 => Command::Ping,
        _ => return Numbered { id: 0, command: Command::Pong },
    };
    Numbered { id, command }
}

/// A command as an SDK would write it.
pub(crate) fn written(numbered: &Numbered) -> Value {
    let mut out = Map::new();
    if numbered.id != 0 {
        out.insert("id".to_owned(), numbered.id.into());
    }
    let (member, fields) = match &numbered.command {
        Command::Pong => return Value::Object(out),
        Command::Connect(connect) => {
            let subs: Map<String, Value> =
                connect.subs.iter().map(|sub| (sub.channel.clone(), subscribe_fields(sub, false))).collect();
            let headers: Map<String, Value> =
                connect.headers.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            let mut fields = json!({ "token": connect.token, "name": connect.name, "version": connect.version, "subs": subs, "headers": headers });
            put(&mut fields, &connect.data);
            ("connect", fields)
        }
        Command::Subscribe(subscribe) => ("subscribe", subscribe_fields(subscribe, true)),
        Command::Unsubscribe { channel } => ("unsubscribe", json!({ "channel": channel })),
        Command::Publish { channel, data, .. } => {
            let mut fields = json!({ "channel": channel });
            put(&mut fields, data);
            ("publish", fields)
        }
        Command::Presence { channel } => ("presence", json!({ "channel": channel })),
        Command::PresenceStats { channel } => ("presence_stats", json!({ "channel": channel })),
        Command::History(ask) => {
            let mut fields = json!({ "channel": ask.channel, "limit": ask.limit, "reverse": ask.reverse });
            if let Some(since) = ask.since {
                fields["since"] = json!({ "offset": since.offset, "epoch": epoch(since) });
            }
            ("history", fields)
        }
        Command::Rpc { method, data } => {
            let mut fields = json!({ "method": method });
            put(&mut fields, data);
            ("rpc", fields)
        }
        Command::Send { data } => {
            let mut fields = json!({});
            put(&mut fields, data);
            ("send", fields)
        }
        Command::Refresh { token } => ("refresh", json!({ "token": token })),
        Command::SubRefresh { channel, token, .. } => {
            ("sub_refresh", json!({ "channel": channel, "token": token }))
        }
        Command::Ping => ("ping", json!({})),
        Command::Message { .. } | Command::Queue(_) | Command::Disconnect => {
            unreachable!("the dialect has none of these")
        }
    };
    out.insert(member.to_owned(), fields);
    Value::Object(out)
}

fn epoch(since: Since) -> String {
    since.epoch.map(|epoch| epoch.to_string()).unwrap_or_default()
}

fn subscribe_fields(subscribe: &Subscribe, has_channel: bool) -> Value {
    let mut fields = json!({
        "token": subscribe.token,
        "recover": subscribe.recover.is_some(),
        "positioned": subscribe.positioned,
        "recoverable": subscribe.recoverable,
        "join_leave": subscribe.join_leave,
        "delta": subscribe.delta,
        "flag": if subscribe.reject_unrecovered { 3 } else { 1 },
        "type": subscribe.kind,
    });
    if has_channel {
        fields["channel"] = Value::from(&*subscribe.channel);
    }
    if let Some(since) = subscribe.recover {
        fields["offset"] = since.offset.into();
        fields["epoch"] = epoch(since).into();
    }
    if let Some(node) = &subscribe.tags_filter {
        fields["tf"] = json!({ "op": node.op });
    }
    put(&mut fields, &subscribe.data);
    fields
}

fn put(fields: &mut Value, data: &Bytes) {
    if !data.is_empty() {
        fields["data"] = serde_json::from_slice(data).expect("payloads are made of values");
    }
}

/// Replies and pushes of arbitrary content.
fn said(mut input: Input<'_>) {
    let info = Arc::new(ClientInfo {
        user: input.text(20).into(),
        client: ClientId::from_random(u128::from(input.number()) << 64 | u128::from(input.number())),
        conn_info: payload(&mut input),
        chan_info: payload(&mut input),
    });
    let position = Position { offset: input.number(), epoch: Epoch::from_random(input.number()) };
    let publication = Arc::new(Publication {
        offset: input.number(),
        data: payload(&mut input),
        info: input.flag().then(|| info.clone()),
        tags: (0..input.byte() % 3).map(|i| (format!("{i}{}", input.text(10)), input.text(10))).collect(),
        except: None,
        is_json: true,
    });
    let channel = input.text(30);
    let result = SubscribeResult {
        ttl_seconds: input.flag().then_some(60),
        recoverable: input.flag(),
        positioned: input.flag(),
        position: input.flag().then_some(position),
        was_recovering: input.flag(),
        recovered: input.flag(),
        publications: vec![publication.clone(); usize::from(input.byte() % 3)],
        data: payload(&mut input),
        delta: input.flag(),
    };

    let said = push(&channel, &Push::Publication(publication.clone()));
    assert_eq!(said["channel"], if channel.is_empty() { Value::Null } else { channel.clone().into() });
    is_publication(&said["pub"], &publication);
    let base = input.flag().then(|| payload(&mut input));
    let mut said = push(&channel, &Push::Delta { publication: publication.clone(), base: base.clone() });
    said["pub"]["data"] = whole(&said["pub"], &base.unwrap_or_default());
    is_publication(&said["pub"], &publication);
    for (name, change) in [("join", Push::Join(info.clone())), ("leave", Push::Leave(info.clone()))] {
        assert_eq!(push(&channel, &change)[name]["info"]["user"], *info.user);
    }
    let said = push(&channel, &Push::Subscribe(Box::new(result.clone())));
    assert_eq!(said["subscribe"]["recoverable"].as_bool().unwrap_or_default(), result.recoverable);
    let close = Close::custom(CloseReason::ForceDisconnect, input.short(), input.text(30));
    let said = push(&channel, &Push::Disconnect(close.clone()));
    assert_eq!(said["disconnect"]["reason"].as_str().unwrap_or_default(), close.text);

    let id = u32::from(input.short());
    let said = reply(id, &Reply::Subscribe(Box::new(result.clone())));
    let mut publications = said["subscribe"]["publications"].as_array().cloned().unwrap_or_default();
    assert_eq!(publications.len(), if result.recovered { result.publications.len() } else { 0 });
    for said in &mut publications {
        if result.delta {
            // All of them are the same one.
            said["data"] = whole(said, &publication.data);
        }
        is_publication(said, &publication);
    }
    let connect = ConnectResult {
        client: info.client,
        version: "test",
        ttl_seconds: None,
        data: payload(&mut input),
        subs: vec![(channel.clone(), result)],
        ping_seconds: 25,
        pong: input.flag(),
        session: input.text(10),
        node: String::new(),
        resumed: false,
        lost: false,
    };
    let said = reply(id, &Reply::Connect(Box::new(connect)));
    assert_eq!(said["connect"]["client"], info.client.to_string());
    assert!(said["connect"]["subs"].get(&channel).is_some());
    let said = reply(id, &Reply::Presence(vec![info.clone()]));
    assert_eq!(said["presence"]["presence"][info.client.to_string()]["user"], *info.user);
    let said = reply(id, &Reply::History { publications: vec![publication.clone()], top: position });
    is_publication(&said["history"]["publications"][0], &publication);
    assert_eq!(said["history"]["offset"], position.offset);
    let message = input.text(30);
    let error = ReplyError { code: 400, message: message.clone().into(), temporary: true };
    let said = reply(id, &Reply::Error(error));
    assert_eq!(said["error"]["message"].as_str().unwrap_or_default(), message);
}

fn is_publication(said: &Value, publication: &Publication) {
    assert_eq!(said["offset"].as_u64().unwrap_or_default(), publication.offset);
    let data = match publication.data.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&publication.data).expect("payloads are made of values"),
    };
    assert_eq!(said["data"], data);
    assert_eq!(said["tags"].as_object().map_or(0, Map::len), publication.tags.len());
}

/// The data of a publication for a subscriber that agreed to differences, given the data before.
fn whole(said: &Value, base: &[u8]) -> Value {
    let text = said["data"].as_str().expect("a string, whole or not");
    let text = match said["delta"].as_bool() {
        Some(true) => fossil::apply(base, text.as_bytes(), 10_000).expect("a delta to the base"),
        _ => text.as_bytes().to_vec(),
    };
    serde_json::from_slice(&text).expect("payloads are made of values")
}

fn push(channel: &str, push: &Push) -> Value {
    let (mut out, mut bare) = (Vec::new(), b"{\"push\":".to_vec());
    encode_push(channel, push, &mut out);
    encode_bare_push(channel, push, &mut bare);
    assert_eq!(out, [&bare[..], b"}"].concat());
    line(&out)["push"].take()
}

fn reply(id: u32, reply: &Reply) -> Value {
    let mut out = Vec::new();
    encode_reply(id, reply, &mut out);
    let said = line(&out);
    assert_eq!(said["id"].as_u64().unwrap_or_default(), u64::from(id));
    said
}

fn line(out: &[u8]) -> Value {
    assert!(!out.contains(&b'\n') && !out.contains(&b'\r'), "a line break");
    let said = serde_json::from_slice(out)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(out)));
    let mut ascii = out.to_vec();
    escape_non_ascii(&mut ascii);
    assert!(ascii.is_ascii() && serde_json::from_slice::<Value>(&ascii).ok().as_ref() == Some(&said));
    said
}
