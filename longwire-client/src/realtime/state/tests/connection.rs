//! Login, heartbeats, ends, tokens of the connection, subscriptions of the server.

use super::*;
use crate::cause::Cause;
use crate::error::Error;
use crate::transition::Limit;

#[test]
fn the_login_says_who_it_is_and_beats_are_answered() {
    let mut world = World::new(Settings {
        token: "secret".to_owned(),
        data: "{\"a\":1}".into(),
        name: "ticker".to_owned(),
        headers: vec![("x-a".to_owned(), "b".to_owned())],
        ..settings()
    });
    world.accept();
    assert!(!world.state.is_connected());
    let connect = world.answer_login(json!({}));
    assert_eq!(
        connect,
        json!({"token": "secret", "data": {"a": 1}, "name": "ticker", "headers": {"x-a": "b"}})
    );
    assert!(world.state.is_connected());
    assert_eq!(world.state.client().map(ToString::to_string).as_deref(), Some("me"));
    world.say(json!({}));
    assert_eq!(world.only(), json!({}));
}

#[test]
fn beats_are_not_answered_where_the_server_does_not_want_it() {
    let mut world = World::new(settings());
    world.log_in(json!({"pong": false}));
    world.say(json!({}));
    assert_eq!(world.heard(), Vec::<Value>::new());
}

#[test]
fn a_server_that_falls_silent_is_left_ten_seconds_behind_its_beat() {
    let mut world = World::connected(settings());
    world.seconds(34.9);
    assert!(world.state.is_connected());
    world.seconds(0.2);
    assert!(!world.state.is_connected());
    assert_eq!(world.state.stats().last_cause.as_ref().map(Cause::name), Some("silent"));
    world.wait_for_dial();
    world.log_in(json!({}));
    let told = told(&mut world.events);
    assert_eq!(told.last().map(String::as_str), Some("connected again to ws://server:80"), "{told:?}");
}

#[test]
fn a_login_that_is_refused_for_the_time_being_is_tried_again_and_any_other_is_the_end() {
    let mut world = World::new(settings());
    for refusal in [json!({"code": 100, "message": "internal", "temporary": true}), json!({"code": 7})] {
        world.accept();
        let command = world.only();
        world.reply(&command, json!({"error": refusal}));
        world.wait_for_dial();
    }
    world.accept();
    let command = world.only();
    world.reply(&command, json!({"error": {"code": 101, "message": "unauthorized"}}));
    let polled = world.state.poll_connected(&mut None, &mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(Error::GaveUp { cause: Cause::Told { code: 101, text, .. }, limit: Limit::Advice })) =
        polled
    else {
        panic!("{polled:?}");
    };
    assert_eq!(text, "unauthorized");
    assert!(world.state.is_over());
}

#[test]
fn codes_say_whether_the_client_comes_back() {
    for (code, comes_back) in
        [(3001, true), (3012, true), (4100, true), (3500, false), (3503, false), (4500, false)]
    {
        let mut world = World::connected(settings());
        let (_, mut reader) = world.subscribed("news", 1);
        world.close(code, "because");
        if comes_back {
            world.wait_for_dial();
            assert_eq!(heard(&mut reader), Vec::<String>::new());
        } else {
            assert!(world.state.is_over(), "{code}");
            let heard = heard(&mut reader);
            assert!(heard[0].starts_with("unsubscribed 2 the client gave up"), "{heard:?}");
        }
        let told = told(&mut world.events).join("\n");
        assert!(told.contains(&format!("the server said {code}: because")), "{told}");
    }
}

#[test]
fn a_disconnect_push_is_as_good_as_a_close_frame() {
    let mut world = World::connected(settings());
    world.say(json!({"push": {"disconnect": {"code": 3501, "reason": "bad request"}}}));
    assert!(world.state.is_over());
    assert_eq!(world.state.stats().last_cause, Some(Cause::told(3501, "bad request")));
}

#[test]
fn nonsense_ends_the_connection_and_not_the_client() {
    for nonsense in ["nonsense", "[]", "{\"id\":1,\"subscribe\":7}", "{\"push\":{\"channel\":1}}"] {
        let mut world = World::connected(settings());
        world.say_text(nonsense);
        assert_eq!(world.state.stats().last_cause.as_ref().map(Cause::name), Some("protocol"), "{nonsense}");
        assert_eq!(world.said_goodbye, Some(1002));
        world.wait_for_dial();
    }
    // What nobody knows yet, and answers that nobody awaits, are passed over.
    let mut world = World::connected(settings());
    for line in [
        json!({"id": 77, "publish": {}}),
        json!({"push": {"channel": "x", "novelty": {}}}),
        json!({"id": 3, "novelty": 1}),
    ] {
        world.say(line);
    }
    assert!(world.state.is_connected());
}

#[test]
fn an_expired_token_is_replaced_by_one_of_the_source() {
    let mut world = World::new(Settings { token: "old".to_owned(), token_source: source(), ..settings() });
    world.accept();
    let command = world.only();
    assert_eq!(command["connect"]["token"], "old");
    world.reply(&command, json!({"error": {"code": 109, "message": "token expired"}}));
    world.wait_for_dial();
    world.accept();
    assert_eq!(world.heard(), Vec::<Value>::new(), "there is no token yet");
    world.give_token(Ok("fresh"));
    assert_eq!(world.answer_login(json!({}))["token"], "fresh");
    // It serves for later connections.
    assert_eq!(world.come_back(json!({}))["token"], "fresh");
    assert!(world.token_request().is_none());
}

#[test]
fn an_expired_token_without_a_source_is_the_end() {
    let mut world = World::new(Settings { token: "old".to_owned(), ..settings() });
    world.accept();
    let command = world.only();
    world.reply(&command, json!({"error": {"code": 109, "message": "token expired"}}));
    assert!(world.state.is_over());
}

#[test]
fn the_token_is_fetched_while_the_server_is_dialled() {
    let mut world = World::new(Settings { token_source: source(), ..settings() });
    world.give_token(Ok("fresh"));
    assert_eq!(world.log_in(json!({}))["token"], "fresh");
}

#[test]
fn a_source_that_fails_is_asked_again_and_one_that_denies_is_believed() {
    let mut world = World::new(Settings { token_source: source(), ..settings() });
    world.accept();
    world.give_token(Err(TokenError::Failed("no backend".to_owned())));
    assert_eq!(world.state.stats().last_cause.as_ref().map(Cause::name), Some("no_token"));
    world.wait_for_dial();
    world.accept();
    world.give_token(Err(TokenError::Denied("who are you".to_owned())));
    assert!(world.state.is_over());
    assert!(told(&mut world.events).join("\n").contains("no token: who are you"));
}

#[test]
fn the_connections_token_is_refreshed_before_it_expires() {
    let mut world = World::new(Settings { token: "first".to_owned(), token_source: source(), ..settings() });
    world.log_in(json!({"ttl": 60, "expires": true, "ping": 3600}));
    world.seconds(47.9);
    assert!(world.token_request().is_none());
    world.seconds(0.2);
    world.give_token(Ok("second"));
    let command = world.only();
    assert_eq!(command["refresh"], json!({"token": "second"}));
    world.reply(&command, json!({"refresh": {"client": "me", "ttl": 60, "expires": true}}));
    world.seconds(48.1);
    // The source is down for a while.
    world.give_token(Err(TokenError::Failed("no backend".to_owned())));
    world.seconds(4.9);
    assert!(world.token_request().is_none());
    world.seconds(5.2);
    world.give_token(Ok("third"));
    let command = world.only();
    world.reply(&command, json!({"error": {"code": 103, "message": "permission denied"}}));
    assert!(world.state.is_over(), "a refresh that is refused for good is the end");
}

#[test]
fn an_invalidated_state_forgets_token_and_positions_and_says_so() {
    let mut world = World::new(Settings { token: "old".to_owned(), token_source: source(), ..settings() });
    world.log_in(json!({}));
    let (_, mut reader) = world.subscribed("news", 5);
    world.close(3014, "state invalidated");
    world.wait_for_dial();
    world.accept();
    world.give_token(Ok("fresh"));
    assert_eq!(world.answer_login(json!({}))["token"], "fresh");
    let command = world.only();
    assert_eq!(command["subscribe"].get("recover"), None);
    world.reply(&command, confirmed(9));
    assert_eq!(heard(&mut reader), ["subscribed again=true", "lost 5.abcd to 9.abcd"]);
}

#[test]
fn who_listens_late_is_told_that_there_is_a_connection() {
    let mut world = World::new(settings());
    let mut early = world.state.listen();
    world.log_in(json!({}));
    let mut late = world.state.listen();
    assert_eq!(told(&mut late), ["connected to ws://server:80"]);
    assert_eq!(told(&mut early).last().map(String::as_str), Some("connected to ws://server:80"));
    world.break_line();
    assert_eq!(told(&mut late), told(&mut early));
}

#[test]
fn what_the_server_subscribes_to_is_heard_while_the_same_channel_is_asked_for() {
    let mut world = World::connected(settings());
    let mut reader = world.subscribe_with("room", SubscriptionSettings::default()).1;
    let command = world.only();
    told(&mut world.events);
    world.push("room", json!({"subscribe": {"recoverable": true, "epoch": "wxyz", "offset": 1}}));
    world.publish("room", 2);
    world.reply(&command, json!({"error": {"code": 105, "message": "already subscribed"}}));
    world.publish("room", 3);
    assert_eq!(told(&mut world.events), ["room: subscribed again=false", "room: 2", "room: 3"]);
    assert_eq!(heard(&mut reader), ["unsubscribed 105 already subscribed final=true"]);
}

#[test]
fn subscriptions_of_the_server_are_followed_and_recovered() {
    let mut world = World::new(settings());
    let sub = |offset: u64| json!({"recoverable": true, "epoch": "abcd", "offset": offset});
    world.log_in(json!({"subs": {"#me": sub(3), "all": {}}}));
    world.publish("#me", 4);
    world.push("late", json!({"subscribe": {"recoverable": true, "epoch": "wxyz", "offset": 1}}));
    world.push("all", json!({"join": {"info": {"user": "ada", "client": "c"}}}));
    world.say(json!({"push": {"message": {"data": {"hello": 1}}}}));
    let expected = [
        "connecting to ws://server:80 (websocket)",
        "connected to ws://server:80",
        "#me: subscribed again=false",
        "all: subscribed again=false",
        "#me: 4",
        "late: subscribed again=false",
        "all: join ada",
        "message {\"hello\":1}",
    ];
    assert_eq!(told(&mut world.events), expected);

    let missed = json!({"recoverable": true, "recovered": true, "was_recovering": true, "epoch": "abcd", "offset": 4,
        "publications": [{"data": 5, "offset": 5}]});
    let connect = world.come_back(json!({"subs": {"#me": missed, "all": {}}}));
    assert_eq!(
        connect["subs"],
        json!({"#me": {"recover": true, "offset": 4, "epoch": "abcd"}, "late": {"recover": true, "offset": 1, "epoch": "wxyz"}})
    );
    let told = told(&mut world.events);
    let expected = [
        "connected again to ws://server:80",
        "#me: subscribed again=true",
        "#me: recovered 1",
        "#me: 5",
        "all: subscribed again=true",
        "all: lost none to none",
        "late: unsubscribed 2000 the server did not subscribe again final=true",
    ];
    assert_eq!(told[told.len() - expected.len()..], expected);
    world.push("#me", json!({"unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}));
    assert_eq!(super::told(&mut world.events), ["#me: unsubscribed 2000 server unsubscribe final=true"]);
}

#[test]
fn a_publication_that_is_missing_in_a_subscription_of_the_server_is_fetched_by_a_login() {
    let mut world = World::new(settings());
    world.log_in(json!({"subs": {"all": {"recoverable": true, "epoch": "abcd", "offset": 3}}}));
    world.publish("all", 5);
    assert_eq!(world.state.stats().last_cause.as_ref().map(Cause::name), Some("protocol"));
    world.wait_for_dial();
    world.accept();
    assert_eq!(world.only()["connect"]["subs"]["all"]["offset"], 3);
}

#[test]
fn a_closed_client_tells_everybody() {
    let mut world = World::connected(settings());
    let (_, mut reader) = world.subscribed("news", 1);
    world.state.close(world.now);
    world.pump();
    assert_eq!(heard(&mut reader), ["unsubscribed 2 client closed final=true"]);
    assert_eq!(reader.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
    assert_eq!(told(&mut world.events).last().map(String::as_str), Some("closed"));
    assert_eq!(world.said_goodbye, Some(1000));
    assert!(world.state.is_over());
    let again = world.state.subscribe(world.now, &Arc::from("x"), SubscriptionSettings::default());
    assert!(matches!(again, Err(Error::Closed)));
    assert!(matches!(
        world.state.poll_token_request(&mut Context::from_waker(Waker::noop())),
        Poll::Ready(None)
    ));
}

#[test]
fn a_server_without_beats_is_asked_whether_it_lives() {
    let mut world = World::new(settings());
    world.accept();
    let command = world.only();
    world.reply(&command, json!({"connect": {"client": "me"}}));
    // The ping of a WebSocket is no text: the server of this test does not take it.
    let line = world.line.unwrap();
    let mut pings = 0;
    for _ in 0..1000 {
        let Some(at) = world.state.poll_timeout() else { break };
        world.now = at;
        world.state.handle_timeout(at);
        while let Some(output) = world.state.poll_output() {
            match output {
                Output::Transmit { bytes, .. } if bytes[0] == 0x89 => pings += 1,
                Output::Close { .. } => break,
                _ => {}
            }
        }
        world.state.handle_unwritten(world.now, line, 0);
        if !world.state.is_connected() {
            break;
        }
    }
    assert_eq!(pings, 1);
    assert!(world.elapsed() <= 61.0, "{}", world.elapsed());
    assert_eq!(world.state.stats().last_cause.as_ref().map(Cause::name), Some("silent"));
}
