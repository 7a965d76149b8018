//! What a publication may come with: keys, versions, exclusions, formats, and a report of how far it came.

use super::super::answer::{Answer, Rendered};
use super::{BAD_REQUEST, CLIENT, DONE, World};
use crate::config::{ChannelOptions, DataFormat};
use crate::delivery::{Delivery, What};
use longwire_protocol::Publication;
use longwire_protocol::message::{ClientId, Except};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

fn arrived(world: &World) -> Vec<Arc<Delivery>> {
    let mut batch = VecDeque::new();
    world.outlets[0].take(&mut batch);
    batch.into()
}

fn publications(world: &World) -> Vec<Arc<Publication>> {
    let publication = |delivery: &Arc<Delivery>| match &delivery.what {
        What::Publication(publication) => publication.clone(),
        other => panic!("a publication was expected, not {other:?}"),
    };
    arrived(world).iter().map(publication).collect()
}

#[tokio::test(start_paused = true)]
async fn a_repeated_call_is_answered_the_same_and_publishes_nothing() {
    let world = World::new(|config| config.api.idempotency_ttl = Duration::from_secs(60));
    world.node.set_interest(&"chat".into(), 0, true).await.unwrap();
    let body = r#"{"channel":"chat","data":1,"idempotency_key":"k"}"#;
    let first = world.call("publish", body).await;
    assert!(first.starts_with(r#"{"result":{"offset":1,"epoch":""#), "{first}");
    assert_eq!(world.call("publish", body).await, first);
    let broadcast = r#"{"channels":["chat","plain:a"],"data":1,"idempotency_key":"k"}"#;
    let answer = world.call("broadcast", broadcast).await;
    assert_eq!(answer, format!(r#"{{"result":{{"responses":[{first},{DONE}]}}}}"#));
    assert_eq!(arrived(&world).len(), 1);
    world.node.env.clock.sleep(Duration::from_secs(60)).await;
    assert!(world.call("publish", body).await.starts_with(r#"{"result":{"offset":2,"#));
    assert_eq!(arrived(&world).len(), 1);
}

#[tokio::test]
async fn an_old_version_is_answered_with_where_the_channel_stands() {
    let world = World::new(|_| {});
    let publish = async |number: u64, epoch: &str| {
        let body =
            format!(r#"{{"channel":"chat","data":{number},"version":{number},"version_epoch":"{epoch}"}}"#);
        let answer: serde_json::Value = serde_json::from_str(&world.call("publish", &body).await).unwrap();
        answer["result"]["offset"].as_u64().unwrap()
    };
    let mut offsets = Vec::new();
    for (number, epoch) in [(3, "a"), (3, "a"), (2, "a"), (4, "a"), (1, "b")] {
        offsets.push(publish(number, epoch).await);
    }
    assert_eq!(offsets, [1, 1, 1, 2, 3]);
}

#[tokio::test]
async fn who_is_left_out_is_written_on_the_publication() {
    let world = World::new(|_| {});
    world.node.set_interest(&"chat".into(), 0, true).await.unwrap();
    let body = |members: &str| format!(r#"{{"channel":"chat","data":1{members}}}"#);
    let client = format!(r#","exclude_client":"{CLIENT}""#);
    for members in ["", r#","exclude_user":"42""#, &client] {
        assert!(world.call("publish", &body(members)).await.contains("offset"), "{members}");
    }
    assert_eq!(world.call("publish", &body(r#","exclude_client":"nobody""#)).await, BAD_REQUEST);
    let excepts: Vec<_> = publications(&world).iter().map(|p| p.except.clone()).collect();
    let user = Except { user: Some("42".into()), client: None };
    let client = Except { user: None, client: ClientId::parse(CLIENT) };
    assert_eq!(excepts, [None, Some(Box::new(user)), Some(Box::new(client))]);
    // The backend itself sees everything.
    let history = world.call("history", r#"{"channel":"chat","limit":-1}"#).await;
    assert!(history.contains(r#"[{"data":1,"offset":1},{"data":1,"offset":2},{"data":1,"offset":3}]"#));
}

#[tokio::test]
async fn a_delta_brings_the_publication_before_it() {
    let world = World::new(|config| {
        let kept = config.channel.clone();
        config.namespaces.insert("delta".into(), ChannelOptions { delta_publish: true, ..kept });
    });
    for channel in ["chat", "delta:a"] {
        world.node.set_interest(&channel.into(), 0, true).await.unwrap();
    }
    for (channel, members) in
        [("chat", ""), ("chat", ""), ("chat", r#","delta":true"#), ("delta:a", ""), ("delta:a", "")]
    {
        world.call("publish", &format!(r#"{{"channel":"{channel}","data":1{members}}}"#)).await;
    }
    let previous = |d: &Arc<Delivery>| d.previous.as_ref().map(|p| p.offset);
    assert_eq!(
        arrived(&world).iter().map(previous).collect::<Vec<_>>(),
        [None, None, Some(2), None, Some(1)]
    );
}

#[tokio::test]
async fn a_namespace_says_what_may_be_published() {
    let world = World::new(|config| {
        for format in DataFormat::ALL {
            let options = ChannelOptions { publication_data_format: format, ..config.channel.clone() };
            config.namespaces.insert(format!("as_{}", format.as_str()), options);
        }
    });
    for (data, any, object) in [
        (r#""data":{"a":1}"#, true, true),
        (r#""data":[1]"#, true, false),
        (r#""data":"text""#, true, false),
        (r#""data": {}"#, true, true),
        (r#""b64data":"eyJhIjoxfQ==""#, true, true),
        (r#""b64data":"WzFd""#, true, false),
        (r#""b64data":"AAEC""#, false, false),
        (r#""b64data":"e30x""#, false, false),
        (r#""skip_history":false"#, false, false),
    ] {
        for (format, is_taken) in [("", any), ("json", any), ("json_object", object), ("binary", true)] {
            let body = format!(r#"{{"channel":"as_{format}:a",{data}}}"#);
            let answer = world.call("publish", &body).await;
            assert_eq!(answer.contains("offset"), is_taken, "{format} {data}: {answer}");
            assert!(is_taken || answer == BAD_REQUEST, "{answer}");
        }
    }
    let history = world.call("history", r#"{"channel":"as_binary:a","limit":2,"since":{"offset":5}}"#).await;
    assert!(history.contains(r#"[{"data":[1],"offset":6},{"b64data":"AAEC","offset":7}]"#), "{history}");
}

#[tokio::test]
async fn tags_keys_and_epochs_are_bounded() {
    let world = World::new(|_| {});
    let tags = |count: usize, value: &str| {
        let tags: Vec<_> = (0..count).map(|n| format!(r#""{n}":"{value}""#)).collect();
        format!(r#""tags":{{{}}}"#, tags.join(","))
    };
    let long = "x".repeat(257);
    for (members, is_taken) in [
        (tags(64, "x"), true),
        (tags(65, "x"), false),
        (tags(1, &"x".repeat(8191)), true),
        (tags(1, &"x".repeat(8192)), false),
        (format!(r#""idempotency_key":"{}""#, &long[1..]), true),
        (format!(r#""idempotency_key":"{long}""#), false),
        (format!(r#""version":1,"version_epoch":"{long}""#), false),
    ] {
        let answer = world.call("publish", &format!(r#"{{"channel":"chat","data":1,{members}}}"#)).await;
        assert_eq!(answer.contains("offset"), is_taken, "{members}: {answer}");
        assert!(is_taken || answer == BAD_REQUEST, "{answer}");
    }
}

#[tokio::test]
async fn a_report_says_how_far_a_publication_came() {
    let world = World::new(|_| {});
    world.run_shards();
    let uid = world.node.id;
    let report = |subscribers: usize, reached: usize| {
        format!(
            r#""report":{{"reached":{reached},"nodes":[{{"uid":"{uid}","subscribers":{subscribers},"reached":{reached}}}]}}"#
        )
    };
    // Two shards answer the same.
    let all = format!(r#"{{"result":{{{}}}}}"#, report(6, 4));
    assert_eq!(world.call("publish", r#"{"channel":"plain:a","data":1,"report":true}"#).await, all);
    let but_one = r#"{"channel":"plain:a","data":1,"report":true,"exclude_user":"42"}"#;
    assert_eq!(world.call("publish", but_one).await, format!(r#"{{"result":{{{}}}}}"#, report(6, 2)));
    let broadcast = r#"{"channels":["plain:a","plain:b"],"data":1,"report":true}"#;
    assert_eq!(
        world.call("broadcast", broadcast).await,
        format!(r#"{{"result":{{"responses":[{all},{all}]}}}}"#)
    );
    let kept = r#"{"channel":"chat","data":1,"report":true,"version":2,"idempotency_key":"k"}"#;
    let first = world.call("publish", kept).await;
    let epoch = first.split('"').nth(7).unwrap().to_owned();
    let expected =
        |reached| format!(r#"{{"result":{{"offset":1,"epoch":"{epoch}",{}}}}}"#, report(6, reached));
    assert_eq!(first, expected(4));
    assert_eq!(world.call("publish", kept).await, expected(4), "a repeated call is told of the first one");
    let old = r#"{"channel":"chat","data":1,"report":true,"version":1}"#;
    assert_eq!(world.call("publish", old).await, expected(0), "an old version went to nobody");
}

#[test]
fn what_does_not_exist_is_a_404_for_who_asks_for_statuses() {
    let not_found = Answer::Error(longwire_protocol::ErrorCode::NotFound).render(true);
    assert_eq!(not_found, Rendered::Json(404, br#"{"code":104,"message":"not found"}"#.to_vec()));
}
