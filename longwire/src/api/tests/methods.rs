//! The methods: exact JSON, orders to shards, refusals, and bodies that are none.

use super::super::answer::{Answer, Rendered};
use super::super::methods::call;
use super::super::requests::Command;
use super::{BAD_REQUEST, CLIENT, DONE, World};
use crate::delivery::What;
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

const NOT_AVAILABLE: &str = r#"{"error":{"code":108,"message":"not available"}}"#;
const UNKNOWN_CHANNEL: &str = r#"{"error":{"code":102,"message":"unknown channel"}}"#;
const NOT_FOUND: &str = r#"{"error":{"code":104,"message":"method not found"}}"#;

#[tokio::test]
async fn publishing_and_reading_back_have_exactly_these_shapes() {
    let world = World::new(|_| {});
    let first = world.call("publish", r#"{"channel":"chat","data":{"a":1}}"#).await;
    let epoch = first.split('"').nth_back(1).unwrap().to_owned();
    assert_eq!(first, format!(r#"{{"result":{{"offset":1,"epoch":"{epoch}"}}}}"#));

    let at = |offset: u64| format!(r#"{{"result":{{"offset":{offset},"epoch":"{epoch}"}}}}"#);
    let page = |publications: &str, offset: u64| {
        format!(r#"{{"result":{{"publications":[{publications}],"epoch":"{epoch}","offset":{offset}}}}}"#)
    };
    let (one, two) = (r#"{"data":{"a":1},"offset":1}"#, r#"{"data":[],"offset":2,"tags":{"a":"1","b":"2"}}"#);
    let foreign = r#"{"error":{"code":112,"message":"unrecoverable position"}}"#.to_owned();
    for (method, body, expected) in [
        ("publish", r#"{"channel":"chat","data":[],"tags":{"b":"2","a":"1"}}"#.to_owned(), at(2)),
        ("publish", r#"{"channel":"chat","data":7,"skip_history":true}"#.to_owned(), DONE.to_owned()),
        ("history", r#"{"channel":"chat"}"#.to_owned(), page("", 2)),
        ("history", r#"{"channel":"chat","limit":0,"since":[],"reverse":false}"#.to_owned(), page("", 2)),
        ("history", r#"{"channel":"chat","limit":-1}"#.to_owned(), page(&format!("{one},{two}"), 2)),
        ("history", r#"{"channel":"chat","limit":1}"#.to_owned(), page(one, 2)),
        ("history", r#"{"channel":"chat","limit":1,"reverse":true}"#.to_owned(), page(two, 2)),
        (
            "history",
            r#"{"channel":"chat","limit":9,"since":{"offset":1,"epoch":""}}"#.to_owned(),
            page(two, 2),
        ),
        (
            "history",
            format!(r#"{{"channel":"chat","limit":9,"since":{{"offset":1,"epoch":"{epoch}"}}}}"#),
            page(two, 2),
        ),
        (
            "history",
            r#"{"channel":"chat","limit":9,"since":{"offset":1,"epoch":"other"}}"#.to_owned(),
            foreign,
        ),
        ("history_remove", r#"{"channel":"chat"}"#.to_owned(), DONE.to_owned()),
        ("history", r#"{"channel":"chat","limit":-1}"#.to_owned(), page("", 2)),
    ] {
        assert_eq!(world.call(method, &body).await, expected, "{method} {body}");
    }
}

#[tokio::test]
async fn every_method_answers_exactly_this() {
    let world = World::new(|_| {});
    world.run_shards();
    let broadcast = format!(r#"{{"result":{{"responses":[{DONE},{UNKNOWN_CHANNEL},{BAD_REQUEST}]}}}}"#);
    let bad = |what: &str| format!(r#"{{"error":{{"code":107,"message":"{what}"}}}}"#);
    let no_method = "404 Not Found: there is no such method\n";
    for (method, body, expected) in [
        ("publish", r#"{"channel":"plain:a","data":{}}"#, DONE),
        ("publish", r#"{"channel":"plain:a","data":"text"}"#, DONE),
        ("publish", r#"{"channel":"plain:a","b64data":"eyJhIjoxfQ==","data":null}"#, DONE),
        ("publish", r#"{"channel":"plain:a","b64data":"?","data":{}}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"plain:a","b64data":"AAEC"}"#, BAD_REQUEST),
        ("publish", r#"{"data":{}}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"","data":{}}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"with space","data":{}}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"plain:a"}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"plain:a","data":null}"#, BAD_REQUEST),
        ("publish", r#"{"channel":"nowhere:a","data":{}}"#, UNKNOWN_CHANNEL),
        ("publish", r#"{"channel":"plain:a","data":1,"later":{"x":[1]}}"#, DONE),
        (
            "publish",
            r#"{"channel":"plain:a","data":1,"skip_history":false,"tags":[],"b64data":"","idempotency_key":"",
                "delta":false,"version":0,"version_epoch":"","exclude_client":"","exclude_user":"","report":false}"#,
            DONE,
        ),
        (
            "publish",
            r#"{"channel":"plain:a","data":1,"skip_history":null,"tags":null,"b64data":null,
                "idempotency_key":null,"delta":null,"version":null,"version_epoch":null,"exclude_client":null,
                "exclude_user":null,"report":null}"#,
            DONE,
        ),
        ("broadcast", r#"{"channels":["plain:a","nowhere:a",""],"data":{}}"#, &broadcast),
        ("broadcast", r#"{"channels":[],"data":{}}"#, BAD_REQUEST),
        ("broadcast", r#"{"data":{}}"#, BAD_REQUEST),
        ("broadcast", r#"{"channels":["plain:a"]}"#, BAD_REQUEST),
        ("subscribe", r#"{"channel":"chat","user":"42"}"#, DONE),
        ("subscribe", r#"{"user":"42"}"#, BAD_REQUEST),
        ("subscribe", r#"{"channel":"nowhere:a","user":"42"}"#, UNKNOWN_CHANNEL),
        ("subscribe", r#"{"channel":"chat","user":"42","override":{},"recover_since":[],"info":null}"#, DONE),
        ("unsubscribe", r#"{"channel":"chat","user":"42","client":""}"#, DONE),
        ("unsubscribe", r#"{"channel":"","user":"42"}"#, DONE),
        ("unsubscribe", r#"{"channel":"nowhere:a","user":"42"}"#, UNKNOWN_CHANNEL),
        ("disconnect", r#"{"user":"42"}"#, DONE),
        ("disconnect", r#"{"user":"42","disconnect":[],"whitelist":[]}"#, DONE),
        ("disconnect", r#"{"user":"42","disconnect":{"code":4000,"reason":"bye"}}"#, DONE),
        ("disconnect", r#"{"user":"42","disconnect":{"code":1000,"reason":"bye"}}"#, BAD_REQUEST),
        ("disconnect", r#"{"user":"42","disconnect":{"code":5000,"reason":"bye"}}"#, BAD_REQUEST),
        (
            "disconnect",
            r#"{"user":"42","disconnect":{"code":4000,"reason":"{\"reconnect\":true}"}}"#,
            BAD_REQUEST,
        ),
        ("disconnect", r#"{"user":"42","disconnect":{"code":4000,"reason":"404"}}"#, BAD_REQUEST),
        ("refresh", r#"{"user":"42","expired":true}"#, DONE),
        ("refresh", r#"{"user":"42","info":{}}"#, DONE),
        ("presence", r#"{"channel":"chat"}"#, r#"{"result":{"presence":{}}}"#),
        ("presence", r#"{"channel":"plain:a"}"#, NOT_AVAILABLE),
        ("presence", r#"{}"#, BAD_REQUEST),
        ("presence_stats", r#"{"channel":"chat"}"#, r#"{"result":{"num_clients":0,"num_users":0}}"#),
        ("presence_stats", r#"{"channel":"plain:a"}"#, NOT_AVAILABLE),
        ("history", r#"{"channel":"plain:a"}"#, NOT_AVAILABLE),
        ("history", r#"{"channel":"nowhere:a"}"#, UNKNOWN_CHANNEL),
        ("history_remove", r#"{"channel":"plain:a"}"#, NOT_AVAILABLE),
        (
            "channels",
            r#"{"pattern":""}"#,
            r#"{"result":{"channels":{"chat":{"num_clients":4},"news":{"num_clients":4}}}}"#,
        ),
        ("channels", r#"{"pattern":"ch*"}"#, r#"{"result":{"channels":{"chat":{"num_clients":4}}}}"#),
        ("channels", r#"{"pattern":"x*"}"#, r#"{"result":{"channels":{}}}"#),
        ("rpc", r#"{"method":"x"}"#, NOT_FOUND),
        ("rpc", r#"{}"#, BAD_REQUEST),
        ("connections", r#"{"limit":-1}"#, BAD_REQUEST),
        ("connections", r#"{"cursor":"x"}"#, BAD_REQUEST),
        ("connection", r#"{"client":""}"#, BAD_REQUEST),
        ("connection", r#"{"client":"x"}"#, r#"{"error":{"code":104,"message":"not found"}}"#),
        ("user_status", r#"{"users":[]}"#, BAD_REQUEST),
        ("revoke_token", r#"{"uid":""}"#, BAD_REQUEST),
        ("revoke_token", r#"{"uid":"x","expire_at":-1}"#, BAD_REQUEST),
        ("invalidate_user_tokens", r#"{"user":""}"#, BAD_REQUEST),
        ("invalidate_user_tokens", r#"{"user":"42","channel":"chat"}"#, NOT_AVAILABLE),
        ("queue/publish", r#"{"text":"x"}"#, &bad("queue: is missing")),
        (
            "queue/publish",
            r#"{"queue":"q","data":1,"text":"x"}"#,
            &bad("data, text, b64data: only one of them can be the body"),
        ),
        ("queue/publish", r#"{"messages":[{"queue":"q"},{}]}"#, &bad("messages[1]: queue: is missing")),
        ("queue/publish", r#"{"messages":[]}"#, r#"{"result":{"ids":[]}}"#),
        ("queue/receive", r#"{}"#, &bad("queue: is missing")),
        ("queue/receive", r#"{"queue":"q","max":1001}"#, &bad("max: is at most 1000")),
        ("queue/receive", r#"{"queue":"q","wait_ms":60001}"#, &bad("wait_ms: is at most 60000")),
        ("queue/receive", r#"{"queue":"q","lease_ms":43200001}"#, &bad("lease_ms: is at most 43200000")),
        ("queue/ack", r#"{"tokens":[]}"#, &bad("token, tokens: one of them is needed")),
        ("queue/nack", r#"{}"#, &bad("token, tokens: one of them is needed")),
        ("queue/move", r#"{"from":"a","to":"a"}"#, &bad("to: is the same queue as from")),
        ("queue/move", r#"{"from":"a"}"#, &bad("to: is missing")),
        ("queue/peek", r#"{"queue":""}"#, &bad("queue: is missing")),
        ("queue/list", r#"{"max":1001}"#, &bad("max: is at most 1000")),
        ("block_user", r#"{}"#, no_method),
        ("", r#"{}"#, no_method),
        ("publish/x", r#"{}"#, no_method),
    ] {
        assert_eq!(world.call(method, body).await, expected, "{method} {body}");
    }
}

/// The page has, of each method, a heading, a call whose body the method takes, and answers that are JSON.
#[test]
fn every_method_is_documented() {
    let page = include_str!("../../../../docs/http-api.md");
    let sections: Vec<(&str, &str)> =
        page.split("\n### `").skip(1).map(|section| section.split_once('`').unwrap()).collect();
    let mut documented: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    let mut methods: Vec<&str> = Command::METHODS.iter().copied().chain(["batch"]).collect();
    documented.sort_unstable();
    methods.sort_unstable();
    assert_eq!(documented, methods);
    for (name, section) in sections {
        let blocks = |language: &str| {
            let fence = format!("```{language}\n");
            let blocks = section.split(fence.as_str()).skip(1);
            blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let calls = blocks("sh");
        assert!(!calls.is_empty() && calls.len() <= blocks("json").len(), "{name}");
        for call in calls {
            let body = call.split('\'').nth(1).unwrap();
            assert!(call.ends_with(&format!("/api/{name}")), "{call}");
            match Command::parse(name, body) {
                Some(parsed) => assert!(parsed.is_ok(), "{call}"),
                None => assert_eq!(name, "batch"),
            }
        }
        for answer in blocks("json") {
            assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{name}: {answer}");
        }
    }
}

#[tokio::test]
async fn presence_tells_who_is_there() {
    let world = World::new(|_| {});
    let info = |client, conn_info: &'static str| {
        let conn_info = Bytes::from_static(conn_info.as_bytes());
        Arc::new(ClientInfo {
            user: "42".into(),
            client: ClientId(client),
            conn_info,
            chan_info: Bytes::new(),
        })
    };
    for info in [info(1, ""), info(2, r#"{"name":"A"}"#)] {
        world.node.enter(&"chat".into(), info);
    }
    let (first, second) = (ClientId(1), ClientId(2));
    assert_eq!(
        world.call("presence", r#"{"channel":"chat"}"#).await,
        format!(
            r#"{{"result":{{"presence":{{"{first}":{{"user":"42","client":"{first}"}},"{second}":{{"user":"42","client":"{second}","conn_info":{{"name":"A"}}}}}}}}}}"#
        )
    );
    assert_eq!(
        world.call("presence_stats", r#"{"channel":"chat"}"#).await,
        r#"{"result":{"num_clients":2,"num_users":1}}"#
    );
}

#[tokio::test]
async fn info_describes_this_node() {
    let world = World::new(|_| {});
    world.run_shards();
    let info: serde_json::Value = serde_json::from_str(&world.call("info", "{}").await).unwrap();
    let node = &info["result"]["nodes"][0];
    assert_eq!(info["result"]["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(node["uid"], world.node.id.to_string());
    assert_eq!(node["version"], env!("CARGO_PKG_VERSION"));
    assert!(!node["name"].as_str().unwrap().is_empty());
    for (member, expected) in
        [("num_clients", 4), ("num_users", 1), ("num_channels", 2), ("num_subs", 8), ("uptime", 0)]
    {
        assert_eq!(node[member], expected, "{member}");
    }
}

#[tokio::test]
async fn a_payload_reaches_subscribers_byte_for_byte() {
    let world = World::new(|_| {});
    world.node.set_interest(&"chat".into(), 0, true).await.unwrap();
    for (body, expected) in [
        (r#"{"channel":"chat", "data" : {"b": 1.50,  "a":"\u00e9"} }"#, r#"{"b": 1.50,  "a":"\u00e9"}"#),
        (r#"{"channel":"chat","data":"x","b64data":"eyJhIjoxfQ=="}"#, r#"{"a":1}"#),
        (r#"{"channel":"chat","data":12345678901234567890123}"#, "12345678901234567890123"),
    ] {
        world.call("publish", body).await;
        let mut batch = VecDeque::new();
        world.outlets[0].take(&mut batch);
        let What::Publication(publication) = &batch[0].what else { panic!("a publication was expected") };
        assert_eq!(publication.data, expected);
    }
}

#[tokio::test]
async fn orders_are_given_to_every_shard_and_to_the_right_connections() {
    let world = World::new(|_| {});
    for (method, body, expected) in [
        ("disconnect", r#"{"user":"42"}"#.to_owned(), r#"user: Some("42"), client: None, session: None, except: [] }, close: Close { reason: ForceDisconnect, code: 3503, text: "force disconnect" }"#.to_owned()),
        ("disconnect", format!(r#"{{"user":"42","whitelist":["{CLIENT}","nobody"],"disconnect":{{"code":4501,"reason":"bye"}}}}"#), format!(r#"except: [{CLIENT}] }}, close: Close {{ reason: ForceDisconnect, code: 4501, text: "bye" }}"#)),
        ("disconnect", format!(r#"{{"client":"{CLIENT}"}}"#), format!("user: None, client: Some({CLIENT})")),
        ("disconnect", r#"{"session":"s"}"#.to_owned(), r#"user: None, client: None, session: Some("s")"#.to_owned()),
        // The anonymous user, not everybody.
        ("disconnect", "{}".to_owned(), r#"user: Some(""), client: None, session: None"#.to_owned()),
        ("unsubscribe", r#"{"user":"42","channel":"chat"}"#.to_owned(), r#"channel: "chat""#.to_owned()),
        ("refresh", r#"{"user":"42","expire_at":99}"#.to_owned(), "expires_at: Some(99)".to_owned()),
        ("refresh", r#"{"user":"42"}"#.to_owned(), "expires_at: Some(0)".to_owned()),
        ("refresh", r#"{"user":"42","expired":true,"expire_at":99}"#.to_owned(), "expires_at: None".to_owned()),
        ("subscribe", r#"{"user":"42","channel":"chat","info":{"a":1},"data":{"b":2},"expire_at":9,"recover_since":{"offset":3,"epoch":"abcdefgh"}}"#.to_owned(), r#"channel: "chat" .. info: b"{\"a\":1}", data: b"{\"b\":2}" .. expires_at: Some(9) .. recover_since: Some(Since { offset: 3, epoch: Some(abcdefgh) })"#.to_owned()),
        ("subscribe", r#"{"user":"42","channel":"chat","override":{"presence":{"value":true},"join_leave":null,"force_recovery":{},"force_positioning":{"value":null},"later":1}}"#.to_owned(), "Overrides { presence: Some(true), join_leave: None, force_recovery: Some(false), force_positioning: Some(false), force_push_join_leave: None }".to_owned()),
        ("subscribe", r#"{"user":"42","channel":"chat","b64info":"eyJhIjoxfQ=="}"#.to_owned(), r#"info: b"{\"a\":1}", data: b"" .. expires_at: None .. recover_since: None"#.to_owned()),
    ] {
        let mut call = pin!(world.call(method, &body));
        let first = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await;
        let orders = world.orders();
        // Some are answered when the shards have carried them out.
        let answer = if let Poll::Ready(answer) = first { answer } else { call.await };
        assert_eq!(answer, DONE);
        assert!(orders.len() == 1 && expected.split(" .. ").all(|part| orders[0].contains(part)), "{method} {body}: {orders:?}");
    }
}

#[tokio::test]
async fn an_id_that_is_none_hits_nobody() {
    let world = World::new(|_| {});
    for method in ["disconnect", "refresh", "subscribe", "unsubscribe"] {
        let body = r#"{"channel":"chat","user":"42","client":"not an id"}"#;
        assert_eq!(world.call(method, body).await, DONE, "{method}");
        assert_eq!(world.orders(), [] as [&str; 0], "{method}");
    }
}

#[tokio::test]
async fn what_longwire_does_not_have_is_refused_and_not_ignored() {
    let world = World::new(|_| {});
    for member in [r#""all_users":true"#, r#""label_filter":{"key":"a"}"#] {
        let body = format!(r#"{{"channel":"chat","user":"42",{member}}}"#);
        assert_eq!(world.call("subscribe", &body).await, NOT_AVAILABLE, "{member}");
    }
    assert_eq!(world.orders(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_batch_answers_at_the_top_and_in_order() {
    let world = World::new(|_| {});
    let body = r#"{"commands":[{"publish":{"channel":"plain:a","data":{}}},null,{},{"presence":{"channel":"nowhere:a"}},
        {"presence_stats":{"channel":"chat"}},{"broadcast":{"channels":["plain:a"],"data":1}},{"batch":{}},
        {"publish":null,"history_remove":{"channel":"chat"}}]}"#;
    let expected = format!(
        r#"{{"replies":[{{"publish":{{}}}},{BAD_REQUEST},{NOT_FOUND},{UNKNOWN_CHANNEL},{{"presence_stats":{{"num_clients":0,"num_users":0}}}},{{"broadcast":{{"responses":[{DONE}]}}}},{NOT_FOUND},{{"history_remove":{{}}}}]}}"#
    );
    assert_eq!(world.call("batch", body).await, expected);
    assert_eq!(world.call("batch", r#"{"commands":[],"parallel":true}"#).await, r#"{"replies":[]}"#);
    assert_eq!(world.call("batch", "{}").await, r#"{"replies":[]}"#);
}

#[tokio::test]
async fn a_mistake_anywhere_in_a_batch_leaves_everything_undone() {
    let world = World::new(|_| {});
    let body = r#"{"commands":[{"publish":{"channel":"chat","data":1}},{"publish":{"channel":7}}]}"#;
    let answer = world.call("batch", body).await;
    assert!(answer.starts_with("400 Bad Request: command 1: invalid type: integer `7`"), "{answer}");
    assert!(world.call("history", r#"{"channel":"chat"}"#).await.ends_with(r#""offset":0}}"#));
}

#[tokio::test]
async fn a_call_reaches_only_so_many_channels() {
    let world = World::new(|config| config.api.max_broadcast_channels = 2);
    let three = r#"{"channels":["plain:a","plain:b","plain:c"],"data":1}"#;
    assert_eq!(world.call("broadcast", three).await, BAD_REQUEST);
    assert_eq!(world.call("batch", r#"{"commands":[null,null,null]}"#).await, BAD_REQUEST);
    let two = r#"{"channels":["plain:a","plain:b"],"data":1}"#;
    assert_eq!(
        world.call("broadcast", two).await,
        format!(r#"{{"result":{{"responses":[{DONE},{DONE}]}}}}"#)
    );
}

/// Bodies of which none is what `method` takes.
fn bad_bodies() -> Vec<Vec<u8>> {
    let whole =
        br#"{"channel":"plain:a","data":{"text":"caf\u00e9","n":[1,2.5e3,null,true]},"tags":{"a":"b"}}"#;
    let mut bodies: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    let texts = [
        "null",
        "true",
        "1",
        "\"text\"",
        "[]",
        "[\"plain:a\",{}]",
        "{}{}",
        "{\"channel\":\"plain:a\",\"data\":1}x",
        "{'channel':'a'}",
        "{channel:1}",
        "{\"channel\":7,\"data\":1}",
        "{\"channel\":{},\"data\":1}",
        "{\"channel\":\"plain:a\",\"data\":}",
        "{\"channel\":\"plain:a\",\"data\":1,}",
        "{\"channel\":\"plain:a\",\"data\":01}",
        "{\"channel\":\"plain:a\",\"data\":NaN}",
        "{\"channel\":\"plain:a\",\"data\":1,\"tags\":{\"a\":1}}",
        "{\"channel\":\"plain:a\",\"data\":1,\"tags\":\"\"}",
        "{\"channel\":\"plain:a\",\"data\":1,\"tags\":[1]}",
        "{\"channel\":\"plain:a\",\"data\":1,\"delta\":\"yes\"}",
        "{\"channel\":\"plain:a\",\"data\":1,\"version\":-1}",
        "{\"channel\":\"a\",\"channel\":\"b\",\"data\":1}",
        "{\"channel\":\"plain:a\",\"data\":1,\"b64data\":5}",
        "{\"channel\":\"\\ud800\",\"data\":1}",
        "{\"channel\":\"a\u{1}\",\"data\":1}",
        "\u{feff}{\"channel\":\"plain:a\",\"data\":1}",
        "{\"channel\":\"plain:a\",\"data\":1,\"skip_history\":1}",
        "{\"channel\":\"plain:a\",\"channels\":\"x\",\"data\":1}",
    ];
    bodies.extend(texts.iter().map(|text| text.as_bytes().to_vec()));
    bodies.push(b"{\"channel\":\"plain:a\",\"data\":\"\xff\"}".to_vec());
    bodies.push(b"{\"channel\":\"plain:a\",\"data\":1,\"later\":\"\xc3\x28\"}".to_vec());
    bodies.push(b"\0".repeat(64));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        bodies.push(format!("{{\"channel\":\"plain:a\",\"data\":{nested}}}").into_bytes());
        bodies.push(format!("{{\"channel\":\"plain:a\",\"data\":1,\"later\":{nested}}}").into_bytes());
        bodies.push(nested.into_bytes());
    }
    bodies
}

#[tokio::test]
async fn a_malformed_body_is_a_400_that_says_what_and_does_nothing() {
    let mut world = World::new(|_| {});
    world.run_queues();
    world.node.set_interest(&"plain:a".into(), 0, true).await.unwrap();
    let bodies = bad_bodies();
    assert!(bodies.len() > 100);
    for body in &bodies {
        let body = Bytes::copy_from_slice(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = call(&world.node, "publish", &body).await.render(false);
        let Rendered::Text(400, text) = &answer else { panic!("{shown}: {answer:?}") };
        assert!(text.starts_with("Bad Request: "), "{shown}: {text}");
    }
    // The same garbage given to every method ends in some answer; what some of it means is asked of the shards.
    world.run_shards();
    for method in Command::METHODS.iter().chain(&["batch"]) {
        for body in &bodies {
            let answer = call(&world.node, method, &Bytes::copy_from_slice(body)).await;
            assert_ne!(answer, Answer::NoSuchMethod);
        }
    }
    let mut batch = VecDeque::new();
    world.outlets[0].take(&mut batch);
    assert_eq!(batch.len(), 0, "nothing was published");
    let answer = world.call("publish", "{\n  \"channel\": 7}").await;
    assert!(answer.ends_with("at line 2 column 14\n"), "{answer}");
}

#[test]
fn a_caller_may_ask_for_statuses() {
    use longwire_protocol::ErrorCode;
    for (code, status) in [
        (ErrorCode::Internal, 500),
        (ErrorCode::UnknownChannel, 404),
        (ErrorCode::MethodNotFound, 404),
        (ErrorCode::BadRequest, 400),
        (ErrorCode::NotAvailable, 400),
        (ErrorCode::UnrecoverablePosition, 416),
        (ErrorCode::LimitExceeded, 500),
    ] {
        let json = format!(r#"{{"code":{},"message":"{}"}}"#, code.code(), code.text());
        assert_eq!(Answer::Error(code).render(true), Rendered::Json(status, json.into_bytes()));
    }
    let done = Answer::Result(b"{}".to_vec()).render(true);
    assert_eq!(done, Rendered::Json(200, DONE.as_bytes().to_vec()));
}
