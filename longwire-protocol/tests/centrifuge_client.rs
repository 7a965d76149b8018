//! The client's half of the centrifuge dialect against the server's: what one writes, the other reads.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::centrifuge::EmulationRequest;
use longwire_protocol::centrifuge::client::{
    self, Command, Connect, MAX_ENTRIES, Said, Since, Subscribe, decode_line, decode_next, encode_command,
    encode_emulation, resolve,
};
use longwire_protocol::centrifuge::json;
use longwire_protocol::command::{self, HistoryRequest};
use longwire_protocol::filter::Node;
use longwire_protocol::message::{
    ClientId, ClientInfo, ConnectResult, Publication, Push, Reply, ReplyError, SubscribeResult,
};
use longwire_protocol::{Close, CloseReason, Epoch, Position, Text};
use proptest::prelude::*;
use std::sync::Arc;

fn read(line: &str) -> Said {
    decode_line(&Bytes::copy_from_slice(line.as_bytes())).unwrap()
}

fn refused(line: &[u8]) -> String {
    decode_line(&Bytes::copy_from_slice(line)).unwrap_err().to_string()
}

fn all(message: &[u8]) -> Vec<Result<Said, client::DecodeError>> {
    let mut message = Bytes::copy_from_slice(message);
    std::iter::from_fn(|| decode_next(&mut message)).collect()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

// ---- text by text

#[test]
fn a_publication_is_read_without_a_copy() {
    let line =
        bytes(r#"{"push":{"channel":"news","pub":{"data":{"a":[1,"}"]},"offset":7,"tags":{"k":"v"}}}}"#);
    let Said::Push { channel, push: client::Push::Publication(publication) } = decode_line(&line).unwrap()
    else {
        panic!("no publication");
    };
    assert_eq!((&*channel, &publication.data[..], publication.offset), ("news", &br#"{"a":[1,"}"]}"#[..], 7));
    assert_eq!(publication.tags, [(Text::from("k"), Text::from("v"))]);
    let within = |part: &[u8]| line.as_ptr_range().contains(&part.as_ptr());
    assert!(
        within(channel.as_bytes()) && within(&publication.data) && within(publication.tags[0].1.as_bytes())
    );
}

#[test]
fn several_lines_come_in_one_message() {
    let said =
        all(b"{\"id\":1,\"publish\":{}}\n{}\n\n \r\n{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":1}}}\n");
    assert_eq!(said.len(), 3);
    assert_eq!(said[0], Ok(Said::Reply { id: 1, reply: client::Reply::Publish }));
    assert_eq!(said[1], Ok(Said::Ping));
    assert!(matches!(&said[2], Ok(Said::Push { channel, .. }) if *channel == "a"));
    assert!(all(b" \n\n").is_empty());
}

#[test]
fn nothing_is_read_behind_an_error() {
    let said = all(b"{}\nnonsense\n{}");
    assert_eq!(said.len(), 2);
    assert_eq!(said[1].as_ref().unwrap_err().to_string(), "line is not valid JSON at byte 1");
}

#[test]
fn what_other_servers_add_is_passed_over() {
    for (line, expected) in [
        ("{ }", Said::Ping),
        (r#"{"id":0}"#, Said::Ping),
        (r#"{"id":null,"push":null}"#, Said::Ping),
        (r#"{"id":3}"#, Said::Reply { id: 3, reply: client::Reply::Unknown }),
        (r#"{"id":3,"map_publish":{}}"#, Said::Reply { id: 3, reply: client::Reply::Unknown }),
        (
            r#"{"id":3,"error":null,"publish":{"later":[{}]}}"#,
            Said::Reply { id: 3, reply: client::Reply::Publish },
        ),
        (
            r#"{"push":{"channel":"a","cache":{"x":1}}}"#,
            Said::Push { channel: "a".into(), push: client::Push::Unknown },
        ),
        (r#"{"push":{}}"#, Said::Push { channel: Text::default(), push: client::Push::Unknown }),
        (
            r#"{"push":{"id":5,"channel":"a","pub":{"data":null,"offset":1,"time":99,"key":"k","removed":true}}}"#,
            Said::Push {
                channel: "a".into(),
                push: client::Push::Publication(client::Publication {
                    offset: 1,
                    data: bytes("null"),
                    ..client::Publication::default()
                }),
            },
        ),
    ] {
        assert_eq!(read(line), expected, "{line}");
    }
}

#[test]
fn epochs_and_clients_of_other_servers_are_kept_as_they_are() {
    let Said::Reply { reply: client::Reply::Subscribe(result), .. } =
        read(r#"{"id":2,"subscribe":{"recoverable":true,"epoch":"xyzA","offset":3,"positioned":true}}"#)
    else {
        panic!("no result");
    };
    assert_eq!((&*result.epoch, result.offset, result.ttl_seconds), ("xyzA", 3, None));
    let mut out = Vec::new();
    let recover = Some(Since { offset: result.offset, epoch: &result.epoch });
    encode_command(
        3,
        &Command::Subscribe(&Subscribe { channel: "a", recover, ..Subscribe::default() }),
        &mut out,
    );
    assert_eq!(out, br#"{"id":3,"subscribe":{"channel":"a","recover":true,"offset":3,"epoch":"xyzA"}}"#);
    let Said::Reply { reply: client::Reply::Connect(result), .. } =
        read(r#"{"id":1,"connect":{"client":"not a uuid","ping":25,"pong":true,"expires":true,"ttl":60}}"#)
    else {
        panic!("no result");
    };
    assert_eq!((&*result.client, result.ping_seconds, result.pong), ("not a uuid", 25, true));
    assert_eq!(result.ttl_seconds, Some(60));
}

#[test]
fn escapes_are_taken_back_in_names_and_kept_in_payloads() {
    let said = read(r#"{"pu\u0073h":{"channel":"caf\u00e9 \"x\"","pub":{"data":"caf\u00e9"}}}"#);
    let Said::Push { channel, push: client::Push::Publication(publication) } = said else {
        panic!("no publication")
    };
    assert_eq!(&*channel, "caf\u{e9} \"x\"");
    assert_eq!(publication.data, r#""caf\u00e9""#);
}

#[test]
fn what_is_no_line_of_the_protocol_is_refused_with_what_is_wrong() {
    for (line, says) in [
        (&b"nonsense"[..], "line is not valid JSON at byte 1"),
        (b"null", "line is not an object at byte 0"),
        (b"[]", "line is not of its type"),
        (b"{}{}", "line is not valid JSON"),
        (b"{\"id\":1", "line is cut off"),
        (b"{\"id\":-1}", "id is not of its type"),
        (b"{\"id\":4294967296}", "id is not of its type"),
        (b"{\"push\":7}", "push is not of its type"),
        (b"{\"push\":{\"channel\":7}}", "channel is not of its type"),
        (b"{\"push\":{\"pub\":{\"offset\":1.5}}}", "offset is not of its type"),
        (b"{\"push\":{\"pub\":{\"tags\":[]}}}", "tags is not of its type"),
        (b"{\"push\":{\"pub\":{\"data\":}}}", "line is not valid JSON"),
        (b"{\"push\":{\"channel\":\"\xff\"}}", "line is not UTF-8 at byte 20"),
    ] {
        assert!(refused(line).starts_with(says), "{}: {}", String::from_utf8_lossy(line), refused(line));
    }
}

#[test]
fn a_list_is_not_longer_than_its_bound() {
    let history = |count: usize| {
        let list = vec!["{}"; count].join(",");
        format!("{{\"id\":1,\"history\":{{\"publications\":[{list}],\"epoch\":\"abcdefgh\",\"offset\":0}}}}")
    };
    assert!(matches!(read(&history(MAX_ENTRIES)), Said::Reply { reply: client::Reply::History(_), .. }));
    assert!(refused(history(MAX_ENTRIES + 1).as_bytes()).starts_with("line has too many entries"));
}

#[test]
fn nesting_without_end_is_no_danger() {
    let deep = format!(r#"{{"push":{{"channel":"a","pub":{{"data":{}"#, "[".repeat(1 << 20));
    assert!(refused(deep.as_bytes()).starts_with("line is cut off"));
    let deep = format!(r#"{{"unknown":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(&deep), Said::Ping);
}

#[test]
fn a_refusal_says_whether_to_try_again() {
    for (line, is_passing) in [
        (r#"{"id":1,"error":{"code":100,"message":"internal server error","temporary":true}}"#, true),
        (r#"{"id":1,"error":{"code":109,"message":"token expired"}}"#, true),
        (r#"{"id":1,"error":{"code":103,"message":"permission denied"}}"#, false),
        (r#"{"id":1,"error":{}}"#, true),
    ] {
        let Said::Reply { reply: client::Reply::Error(refusal), .. } = read(line) else { panic!("{line}") };
        assert_eq!(refusal.is_passing(), is_passing, "{line}");
    }
}

// ---- what the server writes, the client reads

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z:$#]{1,12}", Just(String::new())]
}

/// A payload on one line, as it leaves the server, or none.
fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        Just("".to_owned()),
        Just("null".to_owned()),
        Just(" {\"a\" : [1,{\"b\":\"\\u00e9}]\"}] } ".trim().to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>().prop_map(|text| serde_json::Value::from(text).to_string()),
    ]
    .prop_map(Bytes::from)
}

/// A payload that is there.
fn some_payload() -> impl Strategy<Value = Bytes> {
    payload().prop_map(|data| if data.is_empty() { Bytes::from_static(b"0") } else { data })
}

fn info() -> impl Strategy<Value = Arc<ClientInfo>> {
    (text(), any::<u128>(), payload(), payload()).prop_map(|(user, bits, conn_info, chan_info)| {
        Arc::new(ClientInfo { user: user.into(), client: ClientId::from_random(bits), conn_info, chan_info })
    })
}

fn publication() -> impl Strategy<Value = Arc<Publication>> {
    let tags = prop::collection::btree_map(text(), text(), 0..4);
    (any::<u64>(), payload(), prop::option::of(info()), tags).prop_map(|(offset, data, info, tags)| {
        let tags = tags.into_iter().collect();
        Arc::new(Publication { offset, data, info, tags, except: None, is_json: true })
    })
}

fn place() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(offset, bits)| Position { offset, epoch: Epoch::from_random(bits) })
}

fn subscribed() -> impl Strategy<Value = SubscribeResult> {
    (
        prop::option::of(any::<u32>()),
        any::<[bool; 5]>(),
        prop::option::of(place()),
        prop::collection::vec(publication(), 0..3),
        payload(),
    )
        .prop_map(|(ttl_seconds, flags, position, publications, data)| {
            let [recoverable, positioned, was_recovering, recovered, delta] = flags;
            SubscribeResult {
                ttl_seconds,
                recoverable,
                positioned,
                position,
                was_recovering,
                recovered,
                publications: if recovered { publications } else { Vec::new() },
                data,
                delta,
            }
        })
}

fn connected() -> impl Strategy<Value = ConnectResult> {
    (
        any::<u128>(),
        prop::option::of(any::<u32>()),
        payload(),
        prop::collection::btree_map(text(), subscribed(), 0..3),
        (any::<u32>(), any::<bool>(), text(), text()),
    )
        .prop_map(|(bits, ttl_seconds, data, subs, (ping_seconds, pong, session, node))| ConnectResult {
            client: ClientId::from_random(bits),
            version: "longwire 1.2",
            ttl_seconds,
            data,
            subs: subs.into_iter().collect(),
            ping_seconds,
            pong,
            session,
            node,
            resumed: false,
            lost: false,
        })
}

fn reply() -> impl Strategy<Value = Reply> {
    let ttl = || prop::option::of(any::<u32>());
    prop_oneof![
        (1u32.., text(), any::<bool>()).prop_map(|(code, message, temporary)| {
            Reply::Error(ReplyError { code, message: message.into(), temporary })
        }),
        connected().prop_map(|result| Reply::Connect(Box::new(result))),
        subscribed().prop_map(|result| Reply::Subscribe(Box::new(result))),
        Just(Reply::Unsubscribe),
        Just(Reply::Publish),
        prop::collection::vec(info(), 0..3).prop_map(Reply::Presence),
        any::<(u32, u32)>()
            .prop_map(|(num_clients, num_users)| Reply::PresenceStats { num_clients, num_users }),
        (prop::collection::vec(publication(), 0..3), place())
            .prop_map(|(publications, top)| Reply::History { publications, top }),
        payload().prop_map(|data| Reply::Rpc { data }),
        (any::<u128>(), ttl()).prop_map(|(bits, ttl_seconds)| Reply::Refresh {
            client: ClientId::from_random(bits),
            version: "longwire",
            ttl_seconds,
        }),
        ttl().prop_map(|ttl_seconds| Reply::SubRefresh { ttl_seconds }),
    ]
}

fn push() -> impl Strategy<Value = Push> {
    prop_oneof![
        4 => publication().prop_map(Push::Publication),
        1 => info().prop_map(Push::Join),
        1 => info().prop_map(Push::Leave),
        1 => any::<u32>().prop_map(|code| Push::Unsubscribe { code, reason: "insufficient \"state\"" }),
        1 => subscribed().prop_map(|result| Push::Subscribe(Box::new(result))),
        1 => payload().prop_map(|data| Push::Message { data, is_json: true }),
        1 => connected().prop_map(|result| Push::Connect(Box::new(result))),
        1 => prop::option::of(any::<u32>()).prop_map(|ttl_seconds| Push::Refresh { ttl_seconds }),
        1 => (any::<u16>(), text()).prop_map(|(code, text)| {
            Push::Disconnect(Close::custom(CloseReason::ForceDisconnect, code, text))
        }),
    ]
}

fn as_read_info(info: &ClientInfo) -> client::ClientInfo {
    client::ClientInfo {
        user: (&*info.user).into(),
        client: info.client.to_string().into(),
        conn_info: info.conn_info.clone(),
        chan_info: info.chan_info.clone(),
    }
}

fn as_read_publication(publication: &Publication) -> client::Publication {
    client::Publication {
        offset: publication.offset,
        data: publication.data.clone(),
        info: publication.info.as_ref().map(|info| Box::new(as_read_info(info))),
        tags: publication
            .tags
            .iter()
            .map(|(key, value)| (key.as_str().into(), value.as_str().into()))
            .collect(),
        delta: false,
    }
}

fn as_read_subscribed(result: &SubscribeResult) -> client::SubscribeResult {
    client::SubscribeResult {
        ttl_seconds: result.ttl_seconds,
        recoverable: result.recoverable,
        positioned: result.positioned,
        offset: result.position.map_or(0, |position| position.offset),
        epoch: result.position.map_or(Text::default(), |position| position.epoch.as_str().into()),
        was_recovering: result.was_recovering,
        recovered: result.recovered,
        publications: result
            .publications
            .iter()
            .map(|publication| as_read_publication(publication))
            .collect(),
        data: result.data.clone(),
        delta: result.delta,
    }
}

fn as_read_connected(result: &ConnectResult) -> client::ConnectResult {
    client::ConnectResult {
        client: result.client.to_string().into(),
        version: result.version.into(),
        ttl_seconds: result.ttl_seconds,
        data: result.data.clone(),
        subs: result.subs.iter().map(|(name, sub)| (name.as_str().into(), as_read_subscribed(sub))).collect(),
        ping_seconds: result.ping_seconds,
        pong: result.pong,
        session: result.session.as_str().into(),
        node: result.node.as_str().into(),
    }
}

fn as_read_reply(reply: &Reply) -> client::Reply {
    match reply {
        Reply::Error(error) => client::Reply::Error(client::Refusal {
            code: error.code,
            message: (&*error.message).into(),
            temporary: error.temporary,
        }),
        Reply::Connect(result) => client::Reply::Connect(Box::new(as_read_connected(result))),
        Reply::Subscribe(result) => client::Reply::Subscribe(Box::new(as_read_subscribed(result))),
        Reply::Unsubscribe => client::Reply::Unsubscribe,
        Reply::Publish => client::Reply::Publish,
        Reply::Presence(clients) => {
            client::Reply::Presence(clients.iter().map(|info| as_read_info(info)).collect())
        }
        Reply::PresenceStats { num_clients, num_users } => {
            client::Reply::PresenceStats { num_clients: *num_clients, num_users: *num_users }
        }
        Reply::History { publications, top } => client::Reply::History(client::History {
            publications: publications.iter().map(|publication| as_read_publication(publication)).collect(),
            offset: top.offset,
            epoch: top.epoch.as_str().into(),
        }),
        Reply::Rpc { data } => client::Reply::Rpc { data: data.clone() },
        Reply::Refresh { ttl_seconds, .. } => client::Reply::Refresh { ttl_seconds: *ttl_seconds },
        Reply::SubRefresh { ttl_seconds } => client::Reply::SubRefresh { ttl_seconds: *ttl_seconds },
        Reply::Queue(_) | Reply::Disconnect => client::Reply::Unknown,
    }
}

fn as_read_push(push: &Push) -> client::Push {
    match push {
        Push::Publication(publication) => client::Push::Publication(as_read_publication(publication)),
        Push::Join(info) => client::Push::Join(as_read_info(info)),
        Push::Leave(info) => client::Push::Leave(as_read_info(info)),
        Push::Unsubscribe { code, reason } => {
            client::Push::Unsubscribe { code: *code, reason: (*reason).into() }
        }
        // A push says less of a subscription than a result.
        Push::Subscribe(result) => client::Push::Subscribe(Box::new(as_read_subscribed(&SubscribeResult {
            ttl_seconds: None,
            was_recovering: false,
            recovered: false,
            publications: Vec::new(),
            delta: false,
            ..(**result).clone()
        }))),
        Push::Message { data, .. } => client::Push::Message { data: data.clone() },
        Push::Connect(result) => client::Push::Connect(Box::new(as_read_connected(result))),
        Push::Refresh { ttl_seconds } => client::Push::Refresh { ttl_seconds: *ttl_seconds },
        Push::Disconnect(close) => {
            client::Push::Disconnect { code: close.code.into(), reason: (&*close.text).into() }
        }
        Push::Delta { .. } | Push::Queue(_) => client::Push::Unknown,
    }
}

/// Takes the differences back in what was read, so that it can be compared.
fn undo(publications: &mut [client::Publication]) {
    let mut base = Bytes::new();
    for publication in publications {
        let data = resolve(publication, &base, 1 << 20).unwrap();
        // The text of absent data is `null`.
        base = data.clone();
        publication.data = data;
        publication.delta = false;
    }
}

/// What absent data is in a string.
fn absent_as_null(publications: &mut [client::Publication]) {
    for publication in publications.iter_mut().filter(|publication| publication.data.is_empty()) {
        publication.data = Bytes::from_static(b"null");
    }
}

/// Makes what was read of a result with differences, and what is expected of it, comparable.
fn level(read: &mut client::SubscribeResult, expected: &mut client::SubscribeResult) {
    if expected.delta {
        undo(&mut read.publications);
        absent_as_null(&mut expected.publications);
    }
}

proptest! {
    #[test]
    fn every_reply_of_the_server_is_read_as_what_it_is(id in 1u32.., reply in reply()) {
        let mut line = Vec::new();
        json::encode_reply(id, &reply, &mut line);
        let mut expected = as_read_reply(&reply);
        let Said::Reply { id: read_id, reply: mut read } = decode_line(&line.into()).unwrap() else {
            return Err(TestCaseError::fail("no reply"));
        };
        match (&mut read, &mut expected) {
            (client::Reply::Subscribe(read), client::Reply::Subscribe(expected)) => level(read, expected),
            (client::Reply::Connect(read), client::Reply::Connect(expected)) => {
                for ((_, read), (_, expected)) in read.subs.iter_mut().zip(&mut expected.subs) {
                    level(read, expected);
                }
            }
            _ => {}
        }
        prop_assert_eq!((read_id, read), (id, expected));
    }

    #[test]
    fn every_push_of_the_server_is_read_as_what_it_is(channel in text(), push in push()) {
        let mut line = Vec::new();
        json::encode_push(&channel, &push, &mut line);
        let mut expected = as_read_push(&push);
        let Said::Push { channel: read_channel, push: mut read } = decode_line(&line.into()).unwrap() else {
            return Err(TestCaseError::fail("no push"));
        };
        if let (client::Push::Connect(read), client::Push::Connect(expected)) = (&mut read, &mut expected) {
            for ((_, read), (_, expected)) in read.subs.iter_mut().zip(&mut expected.subs) {
                level(read, expected);
            }
        }
        prop_assert_eq!(&*read_channel, &*channel);
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn differences_give_back_what_was_published(
        texts in prop::collection::vec("[a-c\u{e9}\n]{0,60}", 1..6),
    ) {
        let mut base: Option<Bytes> = None;
        let mut read_base = Bytes::new();
        for text in texts {
            let data: Bytes = serde_json::Value::from(text).to_string().into();
            let publication = Arc::new(Publication {
                offset: 1, data: data.clone(), info: None, tags: Vec::new(), except: None, is_json: true,
            });
            let mut line = Vec::new();
            json::encode_push("a", &Push::Delta { publication, base: base.replace(data.clone()) }, &mut line);
            let Said::Push { push: client::Push::Publication(read), .. } = decode_line(&line.into()).unwrap() else {
                return Err(TestCaseError::fail("no publication"));
            };
            read_base = resolve(&read, &read_base, 1 << 20).unwrap();
            prop_assert_eq!(&read_base, &data);
        }
    }

    #[test]
    fn lines_are_the_same_alone_and_in_one_message(pushes in prop::collection::vec(push(), 1..6)) {
        let lines: Vec<Vec<u8>> = pushes.iter().map(|push| {
            let mut line = Vec::new();
            json::encode_push("a", push, &mut line);
            line
        }).collect();
        let alone: Vec<_> = lines.iter().map(|line| decode_line(&line.clone().into())).collect();
        prop_assert_eq!(all(&lines.join(&b'\n')), alone);
    }

    #[test]
    fn a_line_that_is_cut_off_is_refused(push in push(), part in 0.0f64..1.0) {
        let mut line = Vec::new();
        json::encode_push("a", &push, &mut line);
        line.truncate((line.len() as f64 * part) as usize);
        prop_assume!(!line.is_empty());
        prop_assert!(decode_line(&line.into()).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for said in all(&bytes) {
            if let Err(error) = said {
                prop_assert!(error.at <= bytes.len());
            }
        }
    }
}

// ---- what the client writes, the server reads

fn since() -> impl Strategy<Value = (u64, Option<u64>)> {
    (any::<u64>(), prop::option::of(any::<u64>()))
}

fn epoch_of(bits: Option<u64>) -> Option<Epoch> {
    bits.map(Epoch::from_random)
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = (text(), text(), text(), prop::collection::vec(text(), 0..3))
        .prop_map(|(key, cmp, val, vals)| Node { key, cmp, val, vals, ..Node::default() });
    leaf.prop_recursive(3, 8, 3, |inner| {
        (text(), prop::collection::vec(inner, 0..3)).prop_map(|(op, nodes)| Node {
            op,
            nodes,
            ..Node::default()
        })
    })
}

fn server_reads(id: u32, command: &Command<'_>) -> command::Numbered {
    let mut line = Vec::new();
    encode_command(id, command, &mut line);
    assert!(!line.contains(&b'\n'));
    let mut message = Bytes::from(line);
    let numbered = json::decode_next(&mut message).unwrap().unwrap();
    assert!(message.is_empty());
    numbered
}

proptest! {
    #[test]
    fn a_connect_is_read_as_what_it_is(
        id in 1u32.., token in text(), data in payload(), name in text(),
        headers in prop::collection::btree_map(text(), text(), 0..3),
        subs in prop::collection::btree_map(text(), since(), 0..4),
    ) {
        let headers: Vec<(String, String)> = headers.into_iter().collect();
        let epochs: Vec<Option<Epoch>> = subs.values().map(|(_, bits)| epoch_of(*bits)).collect();
        let wanted: Vec<(&str, Since<'_>)> = subs.iter().zip(&epochs).map(|((channel, (offset, _)), epoch)| {
            (channel.as_str(), Since { offset: *offset, epoch: epoch.as_ref().map_or("", |epoch| epoch.as_str()) })
        }).collect();
        let connect = Connect { token: &token, data: &data, name: &name, version: "1", headers: &headers, subs: &wanted };
        let expected = command::Connect {
            token: token.clone(), data: read_back(&data), name: name.clone(), version: "1".into(), headers: headers.clone(),
            subs: subs.iter().zip(&epochs).map(|((channel, (offset, _)), epoch)| command::Subscribe {
                channel: channel.clone(),
                recover: Some(longwire_protocol::Since { offset: *offset, epoch: *epoch }),
                ..command::Subscribe::default()
            }).collect(),
            ..command::Connect::default()
        };
        let numbered = server_reads(id, &Command::Connect(&connect));
        prop_assert_eq!(numbered.id, id);
        prop_assert_eq!(numbered.command, command::Command::Connect(Box::new(expected)));
    }

    #[test]
    fn a_subscribe_is_read_as_what_it_is(
        id in 1u32.., channel in text(), token in text(), data in payload(), recover in prop::option::of(since()),
        flags in any::<[bool; 5]>(), filter in prop::option::of(node()),
    ) {
        let [positioned, recoverable, join_leave, delta, reject_unrecovered] = flags;
        let epoch = recover.and_then(|(_, bits)| epoch_of(bits));
        let subscribe = Subscribe {
            channel: &channel,
            token: &token,
            data: &data,
            recover: recover.map(|(offset, _)| Since { offset, epoch: epoch.as_ref().map_or("", |epoch| epoch.as_str()) }),
            positioned,
            recoverable,
            join_leave,
            delta,
            tags_filter: filter.as_ref(),
            reject_unrecovered,
        };
        let expected = command::Subscribe {
            channel: channel.clone(),
            token: token.clone(),
            data: read_back(&data),
            recover: recover.map(|(offset, _)| longwire_protocol::Since { offset, epoch }),
            positioned,
            recoverable,
            join_leave,
            delta: if delta { "fossil".into() } else { String::new() },
            tags_filter: filter.clone().map(Box::new),
            reject_unrecovered,
            kind: 0,
        };
        let numbered = server_reads(id, &Command::Subscribe(&subscribe));
        prop_assert_eq!(numbered.command, command::Command::Subscribe(Box::new(expected)));
    }

    #[test]
    fn every_other_command_is_read_as_what_it_is(
        id in 1u32.., channel in text(), other in text(), data in payload(), limit in any::<i32>(),
        from in prop::option::of(since()), reverse in any::<bool>(),
    ) {
        let epoch = from.and_then(|(_, bits)| epoch_of(bits));
        let name = channel.clone();
        let table = [
            (Command::Unsubscribe { channel: &channel }, command::Command::Unsubscribe { channel: name.clone() }),
            (
                Command::Publish { channel: &channel, data: &data },
                command::Command::Publish { channel: name.clone(), data: read_back(&data), kind: 0, tags: Vec::new() },
            ),
            (Command::Presence { channel: &channel }, command::Command::Presence { channel: name.clone() }),
            (Command::PresenceStats { channel: &channel }, command::Command::PresenceStats { channel: name.clone() }),
            (
                Command::History {
                    channel: &channel,
                    limit,
                    since: from.map(|(offset, _)| Since {
                        offset,
                        epoch: epoch.as_ref().map_or("", |epoch| epoch.as_str()),
                    }),
                    reverse,
                },
                command::Command::History(HistoryRequest {
                    channel: name.clone(),
                    limit,
                    since: from.map(|(offset, _)| longwire_protocol::Since { offset, epoch }),
                    reverse,
                }),
            ),
            (
                Command::Rpc { method: &other, data: &data },
                command::Command::Rpc { method: other.clone(), data: read_back(&data) },
            ),
            (Command::Refresh { token: &other }, command::Command::Refresh { token: other.clone() }),
            (
                Command::SubRefresh { channel: &channel, token: &other },
                command::Command::SubRefresh { channel: name.clone(), token: other.clone(), kind: 0 },
            ),
        ];
        for (asked, expected) in table {
            prop_assert_eq!(server_reads(id, &asked), command::Numbered { id, command: expected });
        }
        let sent = server_reads(id, &Command::Send { data: &data });
        prop_assert_eq!(sent, command::Numbered { id: 0, command: command::Command::Send { data: read_back(&data) } });
    }

    #[test]
    fn what_goes_beside_a_stream_is_read_as_what_it_is(session in text(), node in text(), data in some_payload()) {
        let request = EmulationRequest { session, node, data };
        let mut body = Vec::new();
        encode_emulation(&request, &mut body);
        prop_assert_eq!(json::decode_emulation(&body.into()).unwrap(), request);
    }
}

/// A payload as the server gives it: `null` counts as absent.
fn read_back(data: &Bytes) -> Bytes {
    if data == "null" { Bytes::new() } else { data.clone() }
}
