//! How connections and users are told of: exact JSON, pages, bounds.

use super::World;
use crate::node::control::Control;
use crate::node::sdk::Sdk;
use crate::node::survey::{ChannelState, ConnectionState, Wanted};
use longwire_protocol::message::ClientId;
use longwire_protocol::{Epoch, Position};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn connection(client: u128) -> ConnectionState {
    ConnectionState {
        client: ClientId(client),
        user: "42".into(),
        sdk: None,
        transport: "sse",
        protocol: "json",
        dialect: "plain",
        address: "192.0.2.1".parse().unwrap(),
        open_for: Duration::from_secs(9),
        silent_for: Duration::from_millis(1500),
        outbox_bytes: 0,
        blocked_for: None,
        token_issued_at: None,
        expires_in: None,
        name: String::new(),
        is_away: false,
        session_data: bytes::Bytes::new(),
        channels: Vec::new(),
    }
}

/// Answers as two shards do that have these connections, and remembers what was wanted.
fn run_shards(world: &World, held: [Vec<ConnectionState>; 2]) -> Arc<Mutex<Vec<Wanted>>> {
    let asked = Arc::<Mutex<Vec<Wanted>>>::default();
    for (mailbox, held) in world.controls.iter().zip(held) {
        let (mailbox, asked) = (mailbox.clone(), asked.clone());
        tokio::spawn(async move {
            loop {
                mailbox.arrived().await;
                let mut letters = VecDeque::new();
                mailbox.take(&mut letters);
                for letter in letters {
                    match letter {
                        Control::Connections { wanted, answer } => {
                            asked.lock().unwrap().push((*wanted).clone());
                            let after = wanted.after.unwrap_or(ClientId(0));
                            let one = wanted.client;
                            let is_wanted = |c: &&ConnectionState| {
                                c.client > after && one.is_none_or(|one| one == c.client)
                            };
                            let found = held.iter().filter(is_wanted).take(wanted.limit).cloned();
                            answer.send(found.collect()).unwrap();
                        }
                        other => panic!("not asked for: {other:?}"),
                    }
                }
            }
        });
    }
    asked
}

#[tokio::test]
async fn a_connection_is_described_exactly_like_this() {
    let world = World::new(|_| {});
    let position = Position { offset: 7, epoch: Epoch::parse("abcdefgh") };
    let channel =
        |name: &str, seen, is_server_side| ChannelState { channel: name.into(), seen, is_server_side };
    let full = ConnectionState {
        sdk: Some(Arc::new(Sdk { name: "js".into(), version: "5.7.4".into() })),
        transport: "websocket",
        dialect: "centrifuge",
        outbox_bytes: 512,
        blocked_for: Some(Duration::from_millis(20)),
        token_issued_at: Some(1_700_000_000),
        expires_in: Some(Duration::from_secs(60)),
        channels: vec![channel("#42", None, true), channel("news", Some(position), false)],
        ..connection(1)
    };
    run_shards(&world, [vec![full], vec![connection(2)]]);
    let (one, two) = (ClientId(1), ClientId(2));
    let first = r##"{"app_name":"js","app_version":"5.7.4","transport":"websocket","protocol":"json","dialect":"centrifuge","user":"42","address":"192.0.2.1","opened_ms_ago":9000,"last_seen_ms_ago":1500,"outbox_bytes":512,"write_blocked_ms":20,"num_channels":2,"expires_in_ms":60000,"channels":[{"channel":"#42","server_side":true},{"channel":"news","offset":7,"epoch":"abcdefgh"}],"state":{"channels":{"#42":{},"news":{}},"connection_token":{"issued_at":1700000000}}}"##;
    let second = r#"{"app_name":"","app_version":"","transport":"sse","protocol":"json","dialect":"plain","user":"42","address":"192.0.2.1","opened_ms_ago":9000,"last_seen_ms_ago":1500,"outbox_bytes":0,"write_blocked_ms":0,"num_channels":0,"channels":[],"state":{"channels":{}}}"#;
    assert_eq!(
        world.call("connections", "{}").await,
        format!(r#"{{"result":{{"connections":{{"{one}":{first},"{two}":{second}}},"cursor":""}}}}"#)
    );
    assert_eq!(
        world.call("connection", &format!(r#"{{"client":"{one}"}}"#)).await,
        format!(r#"{{"result":{{"client":"{one}","connection":{first}}}}}"#)
    );
    assert_eq!(
        world.call("connection", &format!(r#"{{"client":"{}"}}"#, ClientId(3))).await,
        r#"{"error":{"code":104,"message":"not found"}}"#
    );
}

#[tokio::test]
async fn a_cursor_leads_through_all_pages() {
    let world = World::new(|_| {});
    let even: Vec<_> = (1..=5).map(|n| connection(2 * n)).collect();
    let odd: Vec<_> = (1..=2).map(|n| connection(2 * n + 1)).collect();
    run_shards(&world, [even, odd]);
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = world.call("connections", &format!(r#"{{"limit":3,"cursor":"{cursor}"}}"#)).await;
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let page = answer["result"]["connections"].as_object().unwrap();
        pages.push(page.keys().map(|id| ClientId::parse(id).unwrap().0).collect::<Vec<_>>());
        cursor = answer["result"]["cursor"].as_str().unwrap().to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(pages, [vec![2, 3, 4], vec![5, 6, 8], vec![10]]);
}

#[tokio::test]
async fn the_members_of_a_call_say_which_connections_are_wanted() {
    let world = World::new(|_| {});
    let asked = run_shards(&world, [Vec::new(), Vec::new()]);
    let empty = r#"{"result":{"connections":{},"cursor":""}}"#;
    for (body, wanted) in [
        (
            r#"{"user":"42","channel":"news","transport":"sse","limit":7,"cursor":"00000000-0000-0000-0000-000000000003"}"#,
            Wanted {
                user: Some("42".into()),
                channel: Some("news".into()),
                transport: Some("sse".into()),
                client: None,
                after: Some(ClientId(3)),
                limit: 8,
            },
        ),
        (
            r#"{"user":"","channel":"","transport":"","limit":0,"cursor":""}"#,
            Wanted { limit: 101, ..Wanted::default() },
        ),
        (r#"{"limit":1000000}"#, Wanted { limit: 1001, ..Wanted::default() }),
    ] {
        assert_eq!(world.call("connections", body).await, empty, "{body}");
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(asked, [wanted.clone(), wanted], "{body}");
    }
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_a_list_shows_some_of_many_channels() {
    let world = World::new(|_| {});
    let crowded = |client| {
        let channel = |n: usize| ChannelState {
            channel: format!("{n:0>200}").into(),
            seen: None,
            is_server_side: false,
        };
        ConnectionState { channels: (0..100).map(channel).collect(), ..connection(client) }
    };
    run_shards(&world, [(1..=1000).map(crowded).collect(), Vec::new()]);
    let answer = world.call("connections", r#"{"limit":1000}"#).await;
    assert!((4 << 20..5 << 20).contains(&answer.len()), "{}", answer.len());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let page = answer["result"]["connections"].as_object().unwrap();
    let (last, shown) = page.iter().next_back().unwrap();
    assert_eq!(answer["result"]["cursor"], *last);
    assert_eq!((shown["channels"].as_array().unwrap().len(), &shown["num_channels"]), (32, &100.into()));
    let one = world.call("connection", &format!(r#"{{"client":"{}"}}"#, ClientId(1))).await;
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one["result"]["connection"]["channels"].as_array().unwrap().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_user_is_here_or_was_or_is_unknown() {
    let world = World::new(|config| config.client.max_connections_per_user = 0);
    let _places = [(); 2].map(|()| world.node.admissions.admit_user(&"42".into()));
    let now = world.node.env.clock.now();
    world.node.depart(&"7".into(), now);
    let seen = world.node.unix_seconds_at(now);
    world.node.env.clock.sleep(Duration::from_secs(9)).await;
    let here = seen + 9;
    let expected = format!(
        r#"{{"result":{{"statuses":[{{"user":"7","online":false,"connections":0,"last_seen":{seen}}},{{"user":"42","online":true,"connections":2,"last_seen":{here}}},{{"user":"nobody","online":false,"connections":0,"last_seen":0}}]}}}}"#
    );
    for method in ["user_status", "get_user_status"] {
        assert_eq!(world.call(method, r#"{"users":["7","42","nobody"]}"#).await, expected);
    }
    let batch = r#"{"commands":[{"user_status":{"users":["nobody"]}}]}"#;
    let status = r#"{"user":"nobody","online":false,"connections":0,"last_seen":0}"#;
    assert_eq!(
        world.call("batch", batch).await,
        format!(r#"{{"replies":[{{"user_status":{{"statuses":[{status}]}}}}]}}"#)
    );
}
