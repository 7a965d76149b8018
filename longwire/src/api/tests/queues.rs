//! The methods of queues, against queues that are kept in memory.

use super::World;
use crate::queue::Place;
use longwire_protocol::queue::{AckMode, Consume, QueueCommand};
use serde_json::{Value, json};

fn world() -> World {
    let mut world = World::new(|config| config.queues.options.max_deliveries = 2);
    world.run_queues();
    world
}

/// The result of a call.
async fn result(world: &World, method: &str, body: Value) -> Value {
    let answer: Value = serde_json::from_str(&world.call(method, &body.to_string()).await).unwrap();
    assert!(answer.get("error").is_none(), "{method} {body}: {answer}");
    answer["result"].clone()
}

/// The code and the text of a refusal.
async fn refusal(world: &World, method: &str, body: Value) -> (u64, String) {
    let answer: Value = serde_json::from_str(&world.call(method, &body.to_string()).await).unwrap();
    let error = &answer["error"];
    (error["code"].as_u64().expect("an error"), error["message"].as_str().expect("a text").to_owned())
}

/// Texts of messages that are received.
async fn received(world: &World, queue: &str) -> Vec<Value> {
    let answer = result(world, "queue/receive", json!({"queue": queue, "max": 10})).await;
    answer["messages"].as_array().unwrap().clone()
}

/// Subscribes `~durable/ann/1` to `plain:a`.
async fn subscribe_durably(world: &World) {
    let consume = Consume {
        consumer: 1,
        queue: "~durable/ann/1".into(),
        ack: AckMode::Individual,
        prefetch: None,
        selector: None,
        is_exclusive: false,
        is_browsing: false,
        durable_of: Some("plain:a".into()),
    };
    let place = Place { shard: 0, session: 1 };
    world.node.queues.submit(place, vec![(1, QueueCommand::Consume(Box::new(consume)))]);
    while world.node.queues.bound("plain:a").is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_is_received_settled_and_gone() {
    let world = world();
    let one =
        result(&world, "queue/publish", json!({"queue": "q", "data": {"n": 1}, "headers": {"kind": "a"}}))
            .await;
    let two = json!({"queue": "q", "messages": [{"text": "2"}, {"b64data": "/w==", "priority": 9}]});
    let two = result(&world, "queue/publish", two).await;
    let messages = received(&world, "q").await;
    let ids: Vec<&Value> = messages.iter().map(|message| &message["id"]).collect();
    assert_eq!(ids, [&two["ids"][1], &one["id"], &two["ids"][0]], "by priority, then as they came");
    assert_eq!(messages[1]["data"], json!({"n": 1}));
    assert_eq!(messages[1]["headers"], json!({"content-type": "application/json", "kind": "a"}));
    assert_eq!((&messages[0]["b64data"], &messages[2]["text"]), (&json!("/w=="), &json!("2")));
    assert_eq!(received(&world, "q").await, [] as [Value; 0], "they are somebody's");

    let tokens = json!({"token": messages[0]["token"], "tokens": [messages[1]["token"], "0-0", "x"]});
    let settled = result(&world, "queue/ack", tokens).await;
    assert_eq!(settled["settled"], 2, "{settled}");
    let failed: Vec<&Value> = settled["failed"].as_array().unwrap().iter().map(|it| &it["token"]).collect();
    assert_eq!(failed, ["0-0", "x"]);
    assert_eq!(settled["failed"][0]["error"]["code"], 104);
    let stats = result(&world, "queue/stats", json!({"queue": "q"})).await;
    let numbers = ["waiting", "in_flight", "sent", "acknowledged"].map(|name| stats[name].as_u64().unwrap());
    assert_eq!(numbers, [0, 1, 3, 2], "{stats}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_comes_back_and_is_a_dead_letter_at_last() {
    let world = world();
    result(&world, "queue/publish", json!({"queue": "q", "text": "x"})).await;
    let first = received(&world, "q").await;
    result(&world, "queue/nack", json!({"token": first[0]["token"]})).await;
    let second = received(&world, "q").await;
    assert_eq!((&second[0]["id"], &second[0]["redeliveries"]), (&first[0]["id"], &json!(1)));
    result(&world, "queue/nack", json!({"token": second[0]["token"]})).await;
    assert_eq!(received(&world, "q").await.len(), 0);
    let dead = result(&world, "queue/peek", json!({"queue": "dead.q"})).await;
    assert_eq!(dead["messages"][0]["headers"]["x-death-queue"], "q", "{dead}");

    assert_eq!(result(&world, "queue/move", json!({"from": "dead.q", "to": "q"})).await, json!({"moved": 1}));
    let again = received(&world, "q").await;
    result(&world, "queue/nack", json!({"token": again[0]["token"], "requeue": false})).await;
    let dead = result(&world, "queue/stats", json!({"queue": "dead.q"})).await;
    assert_eq!(dead["waiting"], 1, "{dead}");
    let letter = received(&world, "dead.q").await;
    assert_eq!(letter[0]["headers"]["x-death-reason"], "rejected", "{letter:?}");
    // A dead letter that is rejected is nobody's any more.
    result(&world, "queue/nack", json!({"token": letter[0]["token"], "requeue": false})).await;
    let dead = result(&world, "queue/stats", json!({"queue": "dead.q"})).await;
    assert_eq!((&dead["waiting"], &dead["in_flight"]), (&json!(0), &json!(0)), "{dead}");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_message_and_a_lease_ends() {
    let world = world();
    let waiting = json!({"queue": "later", "wait_ms": 20_000, "lease_ms": 5_000});
    let (answer, ()) = tokio::join!(result(&world, "queue/receive", waiting.clone()), async {
        // The queue is not there before: a worker may be started first.
        world.node.env.clock.sleep(std::time::Duration::from_secs(3)).await;
        result(&world, "queue/publish", json!({"queue": "later", "text": "x"})).await;
    });
    assert_eq!(answer["messages"][0]["text"], "x", "{answer}");
    let begun = world.node.env.clock.now();
    let again = result(&world, "queue/receive", waiting).await;
    assert_eq!(again["messages"][0]["id"], answer["messages"][0]["id"]);
    assert!((4..=6).contains(&(world.node.env.clock.now() - begun).as_secs()));
    let late = result(&world, "queue/ack", json!({"token": answer["messages"][0]["token"]})).await;
    assert_eq!(late["settled"], 0, "somebody else has it");
    let nothing = result(&world, "queue/receive", json!({"queue": "none", "wait_ms": 1000})).await;
    assert_eq!(nothing, json!({"messages": []}));
}

#[tokio::test(start_paused = true)]
async fn queues_are_listed_looked_into_and_removed() {
    let world = world();
    for (queue, count) in [("a", 3), ("b", 1), ("c", 0)] {
        let messages: Vec<Value> = (0..count).map(|n| json!({"text": n.to_string()})).collect();
        result(&world, "queue/publish", json!({"queue": queue, "messages": messages})).await;
    }
    let page = result(&world, "queue/list", json!({"max": 1})).await;
    assert_eq!((&page["queues"][0]["queue"], &page["queues"][0]["waiting"]), (&json!("a"), &json!(3)));
    let rest = result(&world, "queue/list", json!({"after": page["next"]})).await;
    assert_eq!((rest["queues"].as_array().unwrap().len(), rest.get("next")), (1, None), "{rest}");

    let mut texts = Vec::new();
    let mut after = json!("");
    loop {
        let page = result(&world, "queue/peek", json!({"queue": "a", "max": 2, "after": after})).await;
        for message in page["messages"].as_array().unwrap() {
            assert_eq!(message["state"], "waiting");
            texts.push(message["text"].as_str().unwrap().to_owned());
        }
        match page.get("next") {
            Some(next) => after = next.clone(),
            None => break,
        }
    }
    assert_eq!(texts, ["0", "1", "2"]);
    assert_eq!(result(&world, "queue/purge", json!({"queue": "a"})).await, json!({"removed": 3}));
    assert_eq!(result(&world, "queue/remove", json!({"queue": "b"})).await, json!({"removed": 1}));
    for method in ["stats", "peek", "purge", "remove"] {
        let (code, text) = refusal(&world, &format!("queue/{method}"), json!({"queue": "b"})).await;
        assert_eq!(code, 104, "{method}");
        assert!(text.starts_with("no such queue"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_queue_refuses_is_said_in_words() {
    let mut world = World::new(|config| {
        config.queues.options.max_messages = 1;
        config.queues.options.max_message_bytes = 10;
    });
    world.run_queues();
    result(&world, "queue/publish", json!({"queue": "q", "b64data": "eA=="})).await;
    let (code, text) = refusal(&world, "queue/publish", json!({"queue": "q", "b64data": "eA=="})).await;
    assert!(code == 106 && text.starts_with("queue full"), "{code} {text}");
    let (code, text) = refusal(&world, "queue/publish", json!({"queue": "r", "text": "x".repeat(11)})).await;
    assert!(code == 107 && text.starts_with("message too big"), "{code} {text}");
    let both = json!({"messages": [{"queue": "new", "b64data": "eA=="}, {"queue": "q", "b64data": "eA=="}]});
    assert_eq!(refusal(&world, "queue/publish", both).await.0, 106);
    let neither = result(&world, "queue/stats", json!({"queue": "new"})).await;
    assert_eq!((&neither["waiting"], &neither["sent"]), (&json!(0), &json!(0)));
    let batch = r#"{"commands":[{"queue/stats":{"queue":"q"}},{"queue/stats":{"queue":"x"}}]}"#;
    let replies: Value = serde_json::from_str(&world.call("batch", batch).await).unwrap();
    assert_eq!(replies["replies"][0]["queue/stats"]["waiting"], 1, "{replies}");
    assert_eq!(replies["replies"][1]["error"]["code"], 104);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_does_not_suffer_from_a_durable_subscription_that_is_full() {
    let mut world = World::new(|config| config.queues.options.max_messages = 1);
    world.run_queues();
    subscribe_durably(&world).await;
    let one = json!({"channel": "plain:a", "data": 1});
    for _ in 0..3 {
        result(&world, "publish", one.clone()).await;
    }
    // The first is there and waits for its acknowledgement.
    assert_eq!(world.node.queues.counters().unkept.get(), 2);
    let stats = result(&world, "queue/stats", json!({"queue": "~durable/ann/1"})).await;
    assert_eq!(stats["in_flight"], 1, "{stats}");
    result(&world, "queue/remove", json!({"queue": "~durable/ann/1"})).await;
    result(&world, "publish", one.clone()).await;
    assert_eq!(world.node.queues.counters().unkept.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_is_told_that_a_durable_subscription_cannot_be_written() {
    let mut world = World::new(|_| {});
    world.run_queues();
    subscribe_durably(&world).await;
    (world.fail_queues)(true);
    let refused = refusal(&world, "publish", json!({"channel": "plain:a", "data": 1})).await;
    assert_eq!(refused, (100, "published, but a durable subscription cannot keep it".to_owned()));
    assert_eq!(world.node.queues.counters().unkept.get(), 1);
    let refused = refusal(&world, "queue/publish", json!({"queue": "q", "text": "x"})).await;
    assert_eq!(refused, (100, "not writable: the disk is full".to_owned()));
}
