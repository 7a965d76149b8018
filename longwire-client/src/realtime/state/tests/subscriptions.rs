//! Subscriptions of the program: recovery, refusals, tokens, readers that are behind.

use super::*;
use crate::error::Error;
use crate::realtime::event::Position;

#[test]
fn what_was_missed_during_a_break_is_asked_for_and_told_in_order() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 5);
    world.publish("news", 6);
    world.publish("news", 7);
    world.come_back(json!({}));
    let command = world.only();
    let asked = json!({"channel": "news", "recover": true, "offset": 7, "epoch": "abcd", "positioned": true, "recoverable": true});
    assert_eq!(command["subscribe"], asked);
    let mut result = confirmed(7);
    result["subscribe"]["recovered"] = true.into();
    result["subscribe"]["publications"] = json!([{"data": 8, "offset": 8}, {"data": 9, "offset": 9}]);
    world.reply(&command, result);
    world.publish("news", 9);
    world.publish("news", 10);
    assert_eq!(heard(&mut reader), ["6", "7", "subscribed again=true", "recovered 2", "8", "9", "10"]);
    assert_eq!(world.state.position("news"), Some(Position { offset: 10, epoch: "abcd".into() }));
}

#[test]
fn what_cannot_be_recovered_is_announced_before_anything_newer() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 5);
    world.come_back(json!({}));
    let command = world.only();
    world.reply(
        &command,
        json!({"subscribe": {"recoverable": true, "epoch": "wxyz", "offset": 1, "was_recovering": true}}),
    );
    world.publish("news", 2);
    assert_eq!(heard(&mut reader), ["subscribed again=true", "lost 5.abcd to 1.wxyz", "2"]);
}

#[test]
fn an_earlier_readers_position_is_gone_on_from() {
    let mut world = World::connected(settings());
    let since = Some(Position { offset: 3, epoch: "abcd".into() });
    let (_, mut reader) = world.subscribe_with("news", SubscriptionSettings { since, ..Default::default() });
    let command = world.only();
    assert_eq!(
        (&command["subscribe"]["recover"], &command["subscribe"]["offset"]),
        (&json!(true), &json!(3))
    );
    world.reply(&command, confirmed(3));
    assert_eq!(heard(&mut reader), ["subscribed again=false", "recovered 0"]);
}

#[test]
fn a_gap_is_filled_by_subscribing_anew() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 5);
    world.publish("news", 7);
    let unsubscribe = world.only();
    assert_eq!(unsubscribe["unsubscribe"], json!({"channel": "news"}));
    // What comes meanwhile comes again.
    world.publish("news", 8);
    world.seconds(1.0);
    assert_eq!(world.heard(), Vec::<Value>::new(), "the unsubscribe is not answered");
    world.reply(&unsubscribe, json!({"unsubscribe": {}}));
    let command = world.only();
    assert_eq!(command["subscribe"]["offset"], 5);
    let mut result = confirmed(5);
    result["subscribe"]["recovered"] = true.into();
    result["subscribe"]["publications"] = json!([{"offset": 6}, {"offset": 7}, {"offset": 8}]);
    world.reply(&command, result);
    assert_eq!(heard(&mut reader), ["subscribed again=true", "recovered 3", "6", "7", "8"]);
}

#[test]
fn a_refusal_for_the_time_being_is_tried_again_with_growing_delays() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribe_with("news", SubscriptionSettings::default());
    let mut spans = Vec::new();
    for _ in 0..6 {
        let command = world.only();
        world.reply(&command, json!({"error": {"code": 100, "message": "internal", "temporary": true}}));
        let asked = world.now;
        world.wait_for_word();
        spans.push((world.now - asked).as_secs_f64());
        world.say(json!({}));
        world.messages.retain(|message| message[0].get("subscribe").is_some());
    }
    let longest = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0];
    assert!(spans.iter().zip(longest).all(|(span, longest)| *span <= longest), "{spans:?}");
    assert!(spans.iter().sum::<f64>() > 1.0, "{spans:?}");
    let command = world.only();
    world.reply(&command, confirmed(1));
    assert_eq!(heard(&mut reader), ["subscribed again=false"]);
}

#[test]
fn a_refusal_for_good_ends_the_subscription_and_frees_the_channel() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribe_with("news", SubscriptionSettings::default());
    let command = world.only();
    world.reply(&command, json!({"error": {"code": 103, "message": "permission denied"}}));
    assert_eq!(heard(&mut reader), ["unsubscribed 103 permission denied final=true"]);
    assert_eq!(reader.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    world.subscribed("news", 1);
}

#[test]
fn an_unsubscribe_of_the_server_is_obeyed_as_its_code_says() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 5);
    world.push("news", json!({"unsubscribe": {"code": 2500, "reason": "insufficient state"}}));
    world.wait_for_word();
    let command = world.only();
    assert_eq!(command["subscribe"]["offset"], 5);
    world.reply(&command, confirmed(5));
    let expected =
        ["unsubscribed 2500 insufficient state final=false", "subscribed again=true", "recovered 0"];
    assert_eq!(heard(&mut reader), expected);

    world.push("news", json!({"unsubscribe": {"code": 2502, "reason": "state invalidated"}}));
    world.wait_for_word();
    let command = world.only();
    assert_eq!(command["subscribe"].get("offset"), None);
    world.reply(&command, confirmed(8));
    let expected =
        ["unsubscribed 2502 state invalidated final=false", "subscribed again=true", "lost 5.abcd to 8.abcd"];
    assert_eq!(heard(&mut reader), expected);

    world.push("news", json!({"unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}));
    assert_eq!(heard(&mut reader), ["unsubscribed 2000 server unsubscribe final=true"]);
    world.seconds(20.0);
    assert_eq!(world.heard(), Vec::<Value>::new());
}

#[test]
fn a_subscription_token_is_fetched_replaced_and_refreshed() {
    let mut world = World::connected(settings());
    let with_source = SubscriptionSettings { token_source: source(), ..Default::default() };
    let (_, mut reader) = world.subscribe_with("$news", with_source);
    assert_eq!(world.heard(), Vec::<Value>::new());
    world.give_token(Err(TokenError::Failed("no backend".to_owned())));
    world.seconds(0.6);
    world.give_token(Ok("first"));
    let command = world.only();
    assert_eq!(command["subscribe"]["token"], "first");
    world.reply(&command, json!({"error": {"code": 109, "message": "token expired"}}));
    world.seconds(1.1);
    world.give_token(Ok("second"));
    let command = world.only();
    assert_eq!(command["subscribe"]["token"], "second");
    world.reply(&command, json!({"subscribe": {"expires": true, "ttl": 10}}));
    assert_eq!(heard(&mut reader), ["subscribed again=false"]);
    world.seconds(7.9);
    assert!(world.token_request().is_none());
    world.seconds(0.2);
    world.give_token(Ok("third"));
    let command = world.only();
    assert_eq!(command["sub_refresh"], json!({"channel": "$news", "token": "third"}));
    world.reply(&command, json!({"sub_refresh": {"expires": true, "ttl": 10}}));
    world.seconds(8.1);
    world.give_token(Err(TokenError::Denied("not any more".to_owned())));
    assert_eq!(heard(&mut reader), ["unsubscribed 1 not any more final=true"]);
    assert_eq!(world.only()["unsubscribe"]["channel"], "$news");
}

#[test]
fn an_unanswered_subscribe_is_a_reason_to_connect_anew() {
    let mut world = World::connected(settings());
    let (_, _reader) = world.subscribe_with("news", SubscriptionSettings::default());
    assert_eq!(world.only()["subscribe"]["channel"], "news");
    world.seconds(9.9);
    assert!(world.state.is_connected());
    world.seconds(0.2);
    assert_eq!(world.state.stats().causes.get("command_timeout"), Some(&1));
    world.wait_for_dial();
    world.log_in(json!({}));
    assert_eq!(world.only()["subscribe"]["channel"], "news");
}

#[test]
fn who_leaves_and_returns_to_a_channel_asks_when_the_leaving_is_answered() {
    let mut world = World::connected(settings());
    let (key, mut reader) = world.subscribed("news", 5);
    world.state.unsubscribe(world.now, &Arc::from("news"), key);
    world.pump();
    assert_eq!(heard(&mut reader), ["unsubscribed 0 unsubscribed final=true"]);
    let unsubscribe = world.only();
    let (_, mut reader) = world.subscribe_with("news", SubscriptionSettings::default());
    world.publish("news", 6);
    // The old subscription's name means nothing to the new one.
    world.state.unsubscribe(world.now, &Arc::from("news"), key);
    assert_eq!(world.heard(), Vec::<Value>::new());
    world.reply(&unsubscribe, json!({"unsubscribe": {}}));
    let command = world.only();
    world.reply(&command, confirmed(6));
    assert_eq!(heard(&mut reader), ["subscribed again=false"]);
}

#[test]
fn a_channel_has_one_subscription() {
    let mut world = World::connected(settings());
    let (_, _reader) = world.subscribed("news", 5);
    let second = world.state.subscribe(world.now, &Arc::from("news"), SubscriptionSettings::default());
    assert!(matches!(second, Err(Error::BadArgument { .. })));
    let nameless = world.state.subscribe(world.now, &Arc::from(""), SubscriptionSettings::default());
    assert!(matches!(nameless, Err(Error::BadArgument { .. })));
}

#[test]
fn many_subscriptions_are_asked_for_in_few_messages_of_bounded_length() {
    let mut world = World::new(settings());
    let channel = |n: usize| format!("channel-{n:03}");
    let _readers: Vec<_> = (0..100).map(|n| world.subscribe_with(&channel(n), Default::default())).collect();
    let long: Vec<_> = (0..3)
        .map(|n| {
            let data = format!("\"{}\"", "x".repeat(10_000)).into();
            world.subscribe_with(&format!("long-{n}"), SubscriptionSettings { data, ..Default::default() })
        })
        .collect();
    world.log_in(json!({}));
    let messages = std::mem::take(&mut world.messages);
    assert_eq!(messages.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 32, 5, 1, 1]);
    assert_eq!(long.len(), 3);
    let ids: std::collections::BTreeSet<u64> =
        messages.iter().flatten().map(|command| command["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 103);
}

#[test]
fn a_reader_who_is_behind_stops_the_reading_and_costs_nobody_the_connection() {
    let mut few = settings();
    few.options.max_buffered = 3;
    let mut world = World::connected(few);
    let (_, mut reader) = world.subscribed("news", 0);
    let line = world.line.unwrap();
    for offset in 1..=3 {
        assert!(world.state.wants_bytes(line));
        world.publish("news", offset);
    }
    assert!(!world.state.wants_bytes(line));
    // Meanwhile the server's silence is no sign, and the answer to a command may wait unread.
    let (_, mut other) = world.subscribe_with("other", SubscriptionSettings::default());
    let command = world.only();
    world.seconds(100.0);
    assert!(world.state.is_connected());
    assert_eq!(heard(&mut reader), ["1", "2", "3"]);
    assert!(reader.take_resumes());
    world.state.resume(world.now);
    assert!(world.state.wants_bytes(line));
    world.seconds(9.0);
    world.reply(&command, confirmed(1));
    world.publish("news", 4);
    assert_eq!(
        (heard(&mut reader), heard(&mut other)),
        (vec!["4".to_owned()], vec!["subscribed again=false".to_owned()])
    );
}

#[test]
fn a_reader_who_leaves_holds_nobody_up() {
    let mut few = settings();
    few.options.max_buffered = 1;
    let mut world = World::connected(few);
    let (key, reader) = world.subscribed("news", 0);
    let line = world.line.unwrap();
    world.publish("news", 1);
    assert!(!world.state.wants_bytes(line));
    drop(reader);
    world.state.unsubscribe(world.now, &Arc::from("news"), key);
    assert!(world.state.wants_bytes(line));
}

#[test]
fn transitions_that_nobody_reads_are_left_out_and_counted() {
    let mut few = settings();
    few.options.max_buffered = 4;
    let mut world = World::connected(few);
    for _ in 0..4 {
        world.come_back(json!({}));
    }
    assert!(world.state.wants_bytes(world.line.unwrap()));
    assert_eq!(told(&mut world.events).len(), 4);
    world.come_back(json!({}));
    // Two of the first connection and three of each that followed, of which four were kept.
    assert_eq!(told(&mut world.events)[0], "missed 10");
}

#[test]
fn who_comes_and_goes_is_told_where_it_was_asked_for() {
    let mut world = World::connected(settings());
    let (_, mut reader) =
        world.subscribe_with("room", SubscriptionSettings { join_leave: true, ..Default::default() });
    let command = world.only();
    assert_eq!(command["subscribe"]["join_leave"], true);
    world.reply(&command, json!({"subscribe": {}}));
    world.push("room", json!({"join": {"info": {"user": "ada", "client": "c1"}}}));
    world.push("room", json!({"leave": {"info": {"user": "ada", "client": "c1"}}}));
    assert_eq!(heard(&mut reader), ["subscribed again=false", "join ada", "leave ada"]);
}

#[test]
fn an_invalidated_state_is_a_loss_even_where_nothing_was_published() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 5);
    world.push("news", json!({"unsubscribe": {"code": 2502, "reason": "state invalidated"}}));
    world.wait_for_word();
    let command = world.only();
    world.reply(&command, confirmed(5));
    let expected =
        ["unsubscribed 2502 state invalidated final=false", "subscribed again=true", "lost 5.abcd to 5.abcd"];
    assert_eq!(heard(&mut reader), expected);
}

/// Subscribes with a token of a source; the server confirms for a while.
fn with_token(world: &mut World, ttl: u32) -> (u32, Reader<Event>) {
    let with_source =
        SubscriptionSettings { token: "first".to_owned(), token_source: source(), ..Default::default() };
    let (key, mut reader) = world.subscribe_with("$news", with_source);
    let command = world.only();
    world.reply(&command, json!({"subscribe": {"expires": true, "ttl": ttl}}));
    assert_eq!(heard(&mut reader), ["subscribed again=false"]);
    (key, reader)
}

#[test]
fn a_refresh_that_crosses_an_unsubscribe_of_the_server_ends_nothing() {
    let mut world = World::connected(settings());
    let (_, mut reader) = with_token(&mut world, 10);
    world.seconds(8.1);
    world.give_token(Ok("second"));
    let refresh = world.only();
    world.push("$news", json!({"unsubscribe": {"code": 2500, "reason": "insufficient state"}}));
    // The server has no such subscription any more.
    world.reply(&refresh, json!({"error": {"code": 103, "message": "permission denied"}}));
    assert_eq!(heard(&mut reader), ["unsubscribed 2500 insufficient state final=false"]);
    world.wait_for_word();
    let command = world.only();
    assert_eq!(command["subscribe"]["token"], "second");
    world.reply(&command, json!({"subscribe": {}}));
    assert_eq!(heard(&mut reader), ["subscribed again=true", "lost none to none"]);
    world.seconds(60.0);
    assert!(world.token_request().is_none(), "what was confirmed last does not expire");
}

#[test]
fn a_subscription_that_is_over_leaves_no_timer_behind() {
    let mut world = World::connected(settings());
    for _ in 0..100 {
        let (key, _reader) = with_token(&mut world, 3600);
        world.state.unsubscribe(world.now, &Arc::from("$news"), key);
        world.pump();
        let unsubscribe = world.only();
        world.reply(&unsubscribe, json!({"unsubscribe": {}}));
    }
    assert_eq!(world.state.timers.len(), 0);
}

#[test]
fn delays_begin_anew_behind_a_subscription_that_lasted_until_the_connection_broke() {
    let mut world = World::connected(settings());
    let (_, _reader) = world.subscribe_with("news", SubscriptionSettings::default());
    let refuse = |world: &mut World| {
        let command = world.only();
        world.reply(&command, json!({"error": {"code": 100, "message": "internal", "temporary": true}}));
    };
    for _ in 0..6 {
        refuse(&mut world);
        while world.messages.is_empty() {
            world.seconds(1.0);
            world.say(json!({}));
            world.messages.retain(|message| message[0].get("subscribe").is_some());
        }
    }
    let command = world.only();
    world.reply(&command, confirmed(1));
    world.seconds(20.0);
    world.come_back(json!({}));
    refuse(&mut world);
    world.seconds(0.5);
    assert_eq!(world.heard().len(), 1, "the span is that of a first failure");
}

#[test]
fn a_reader_who_is_behind_is_waited_for_on_the_next_connection_as_well() {
    let mut few = settings();
    few.options.max_buffered = 2;
    let mut world = World::connected(few);
    let (_, mut reader) = world.subscribed("news", 0);
    world.publish("news", 1);
    world.publish("news", 2);
    assert!(!world.state.wants_bytes(world.line.unwrap()));
    world.break_line();
    world.wait_for_dial();
    world.accept();
    let line = world.line.unwrap();
    assert!(world.state.wants_bytes(line), "a login is read whoever is behind");
    world.answer_login(json!({}));
    assert!(!world.state.wants_bytes(line));
    assert_eq!(heard(&mut reader), ["1", "2"]);
    world.state.resume(world.now);
    assert!(world.state.wants_bytes(line));
}

#[test]
fn a_call_ends_in_time_although_a_reader_is_behind() {
    let mut few = settings();
    few.options.max_buffered = 1;
    let mut world = World::connected(few);
    let (_, mut reader) = world.subscribed("news", 0);
    let mut ticket = world.state.publish("other", b"1", false).unwrap();
    let mut poll = |world: &mut World| {
        let polled = world.state.poll_call(world.now, &mut ticket, &mut Context::from_waker(Waker::noop()));
        world.pump();
        polled
    };
    assert!(poll(&mut world).is_pending());
    let (_, mut asked) = world.subscribe_with("asked", SubscriptionSettings::default());
    let heard_last = world.heard().pop().unwrap();
    world.publish("news", 1);
    assert!(!world.state.wants_bytes(world.line.unwrap()));
    // Who reads may be the very one who waits for the call: without an end nobody would ever read again.
    world.seconds(10.1);
    assert_eq!(poll(&mut world), Poll::Ready(Err(Error::Timeout)));
    // What is not the caller's goes on as it stood.
    world.seconds(60.0);
    assert!(world.state.is_connected());
    assert_eq!(heard(&mut reader), ["1"]);
    world.state.resume(world.now);
    world.reply(&heard_last, confirmed(1));
    assert_eq!(heard(&mut asked), ["subscribed again=false"]);
}

#[test]
fn a_subscription_of_the_server_goes_on_while_the_program_asks_for_the_same_channel() {
    let mut world = World::new(settings());
    world.log_in(json!({"subs": {"all": {}}}));
    told(&mut world.events);
    let (_, mut reader) = world.subscribe_with("all", SubscriptionSettings::default());
    let command = world.only();
    world.push("all", json!({"pub": {"data": 1}}));
    assert_eq!(told(&mut world.events), ["all: 0"]);
    world.reply(&command, json!({"error": {"code": 105, "message": "already subscribed"}}));
    assert_eq!(heard(&mut reader), ["unsubscribed 105 already subscribed final=true"]);
    world.push("all", json!({"pub": {"data": 2}}));
    assert_eq!(told(&mut world.events), ["all: 0"]);
}
