//! What a backend is told, and how often, against a backend that is a function of the attempts.

use super::super::tests::{World, asker, config, pairs};
use super::*;
use crate::backend::Baggage;
use crate::config::{Answered, Config, StatusTransform};
use crate::env::http::{Answer, HttpError};
use longwire_protocol::CloseReason;
use longwire_protocol::queue::{Headers, NewMessage};
use serde_json::{Value, json};
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::Instant;

fn answered(status: u16, body: &'static str) -> Result<Answer, HttpError> {
    Ok(Answer { status, body: Bytes::from_static(body.as_bytes()) })
}

fn unreachable() -> Result<Answer, HttpError> {
    Err(HttpError::Unreachable("refused".into()))
}

/// A backend that answers one after the other, and the last for ever.
fn world_with(change: impl FnOnce(&mut Config), answers: Vec<Result<Answer, HttpError>>) -> World {
    let mut config = config();
    change(&mut config);
    let calls = AtomicUsize::new(0);
    let next = move |_: &crate::env::http::Call| {
        let index = calls.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1);
        answers[index].clone()
    };
    World::new(&config, None, Box::new(next))
}

fn world(answers: Vec<Result<Answer, HttpError>>) -> World {
    world_with(|_| {}, answers)
}

fn subject(seq: u64) -> Subject {
    let baggage = Baggage {
        headers: pairs(&[("cookie", "a=1")]),
        meta: Bytes::from_static(b"{\"cart\":[1]}"),
        ..Baggage::default()
    };
    Subject {
        asker: Asker { baggage: Some(Arc::new(baggage)), ..asker() },
        name: "device-7".into(),
        session: "0-1-2-ff".into(),
        listener: "web".into(),
        address: IpAddr::from([192, 0, 2, 1]),
        seq,
    }
}

fn ending() -> Ending {
    Ending {
        reason: "NoHeartbeat",
        category: "network",
        code: 3012,
        initiator: "server",
        detail: String::new(),
        open_seconds: 61,
    }
}

/// The body of a call about [`subject`].
fn told(event: &str, seq: u64, more: &Value) -> Value {
    let mut body = json!({
        "event": event, "client": asker().client.to_string(), "name": "device-7", "user": "42",
        "session": "0-1-2-ff", "seq": seq, "transport": "websocket", "listener": "web",
        "address": "192.0.2.1", "session_data": {"cart": [1]},
    });
    let members = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    body
}

fn counted(counters: &TellingCounters) -> [u64; 4] {
    let TellingCounters { delivered, retried, dropped, given_up } = counters;
    [delivered, retried, dropped, given_up].map(|counter| counter.get())
}

async fn say(world: &World, text: &str) -> Fate {
    world.backend.message(&subject(1), text.as_bytes(), true).await
}

#[tokio::test]
async fn each_call_says_whom_it_is_about_and_what_happened() {
    let world = world_with(
        |config| config.default_webhooks[7].http_headers = vec!["cookie".into()],
        vec![answered(204, "")],
    );
    let channels = ["news".to_owned()];
    let opening = Opening { query: "room=1&x=%20", channels: &channels, data: b"{\"v\":2}" };
    let opened = world.backend.open(&subject(0), opening, pending()).await;
    assert_eq!((opened.answer, opened.is_owed_close), (Ok(Orders::default()), true));
    let more = json!({"query": "room=1&x=%20", "channels": ["news"], "data": {"v": 2}});
    assert_eq!(world.last_body(), told("open", 0, &more));
    assert_eq!(&*world.last_call().url, "http://backend/open");
    assert_eq!(say(&world, "{\"a\":1}").await, Fate::Taken(Box::default()));
    // Whatever was said is a text, also if it is JSON.
    assert_eq!(world.last_body(), told("message", 1, &json!({"data": "{\"a\":1}"})));
    assert!(world.last_call().headers.contains(&("cookie".to_owned(), "a=1".to_owned())));
    world.backend.message(&subject(2), b"\xff\x00", false).await;
    assert_eq!(world.last_body(), told("message", 2, &json!({"b64data": "/wA="})));
    world.backend.close(&subject(3), &ending()).await;
    let more = json!({
        "reason": "NoHeartbeat", "category": "network", "code": 3012, "initiator": "server", "detail": "",
        "open_seconds": 61,
    });
    assert_eq!(world.last_body(), told("close", 3, &more));
    assert_eq!(counted(world.backend.message_counters()), [2, 0, 0, 0]);
    assert_eq!(counted(world.backend.close_counters()), [1, 0, 0, 0]);
    // Without session data there is no such member.
    let plain = Subject { asker: asker(), ..subject(0) };
    world.backend.message(&plain, b"x", true).await;
    assert_eq!(world.last_body().get("session_data"), None);
}

#[tokio::test]
async fn what_the_backend_orders_is_read_member_by_member() {
    let world = world(vec![answered(
        200,
        r#"{"data":{"hi":
            1},"join":["a","b"],"leave":["c"],"user":"","session_data":{"n":1},"close":{"code":4001,"reason":"bye"},
            "publish":[{"channel":"a","data":[1]},{"channel":"b","b64data":"/w=="}],
            "queue_publish":[{"queue":"mails","text":"x","headers":{"to":"ann"},"delay_ms":5}]}"#,
    )]);
    let orders = Orders {
        data: Some(Content { data: r#"{"hi":             1}"#.into(), is_json: true }),
        join: vec!["a".into(), "b".into()],
        leave: vec!["c".into()],
        user: Some("".into()),
        session_data: Some(r#"{"n":1}"#.into()),
        publish: vec![
            ("a".into(), Content { data: "[1]".into(), is_json: true }),
            ("b".into(), Content { data: Bytes::from_static(b"\xff"), is_json: false }),
        ],
        queue_publish: vec![NewMessage {
            queue: "mails".into(),
            headers: Headers::of([("content-type", "text/plain"), ("to", "ann")]),
            body: "x".into(),
            priority: 4,
            is_persistent: true,
            expiry: None,
            delay: Duration::from_millis(5),
        }],
        close: Some(Close::custom(CloseReason::ForceDisconnect, 4001, "bye".into())),
    };
    assert_eq!(say(&world, "x").await, Fate::Taken(Box::new(orders)));
}

#[tokio::test]
async fn nothing_orders_nothing_and_null_takes_only_session_data_away() {
    for body in ["", " \n", "{}", "[]", r#"{"data":null,"join":null,"user":null,"publish":[],"leave":[]}"#] {
        let world = world(vec![answered(200, body)]);
        assert_eq!(say(&world, "x").await, Fate::Taken(Box::default()), "{body}");
    }
    for (body, data) in [
        (r#"{"session_data":null}"#, ""),
        (r#"{"session_data":[]}"#, "{}"),
        (r#"{"session_data":{"a":[]}}"#, r#"{"a":[]}"#),
    ] {
        let world = world(vec![answered(200, body)]);
        let orders = Orders { session_data: Some(data.into()), ..Orders::default() };
        assert_eq!(say(&world, "x").await, Fate::Taken(Box::new(orders)), "{body}");
    }
    let world = world(vec![answered(200, r#"{"b64data":""}"#)]);
    let data = Some(Content { data: Bytes::new(), is_json: false });
    assert_eq!(say(&world, "x").await, Fate::Taken(Box::new(Orders { data, ..Orders::default() })));
}

#[test]
fn an_answer_that_cannot_be_understood_is_told_with_the_member_that_is_wrong() {
    let user = |bytes: usize| format!(r#"{{"user":"{}"}}"#, "x".repeat(bytes));
    assert!(answers::orders(user(1024).as_bytes(), 100).is_ok());
    assert_eq!(answers::orders(user(1025).as_bytes(), 100), Err("user: longer than 1024 bytes".to_owned()));
    let large = format!(r#"{{"session_data":{{"a":"{}"}}}}"#, "x".repeat(100));
    for (body, named) in [
        ("<br />Warning", "is no JSON"),
        ("null", "the answer: "),
        ("[1]", "the answer: is a list"),
        (r#"{"jion":["a"]}"#, "unknown field `jion`"),
        (r#"{"result":{}}"#, "unknown field `result`"),
        (r#"{"join":"a"}"#, "join: "),
        (r#"{"leave":[1]}"#, "leave: "),
        (r#"{"user":42}"#, "user: "),
        (r#"{"session_data":7}"#, "session_data: "),
        (r#"{"session_data":[1]}"#, "session_data: is a list"),
        (&large, "session_data has 108 bytes"),
        (r#"{"b64data":"?"}"#, "b64data is no base64"),
        (r#"{"data":1,"b64data":"/w=="}"#, "data and b64data are both there"),
        (r#"{"publish":{"channel":"a","data":1}}"#, "publish: "),
        (r#"{"queue_publish":{"queue":"a"}}"#, "queue_publish: "),
        (r#"{"queue_publish":[{"queue":"a"},{"text":"x"}]}"#, "queue_publish[1].queue: is missing"),
        (r#"{"queue_publish":[{"queue":"a","priority":11}]}"#, "queue_publish[0].priority: "),
        (r#"{"queue_publish":[{"queue":"a","prio":1}]}"#, "queue_publish[0]: unknown member \"prio\""),
        (r#"{"publish":[{"data":1}]}"#, "publish[0]: missing field `channel`"),
        (r#"{"publish":[{"channel":"a"}]}"#, "publish[0] has neither data nor b64data"),
        (r#"{"publish":[{"channel":"a","data":1},{"channel":"b","tags":1}]}"#, "publish[1]: unknown field"),
        (r#"{"publish":[{"channel":"a","b64data":"?"}]}"#, "publish[0].b64data is no base64"),
        (r#"{"close":true}"#, "close: "),
        (r#"{"close":{"code":1000}}"#, "close: the disconnect's code is not from 4000 to 4999"),
        (r#"{"close":{"code":4000,"why":""}}"#, "close: unknown field `why`"),
    ] {
        let problem = answers::orders(body.as_bytes(), 100).expect_err(body);
        assert!(problem.contains(named), "{body}: {problem}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_tried_under_the_same_number_until_the_backend_is_back() {
    let began = Instant::now();
    let times = Arc::<Mutex<Vec<Duration>>>::default();
    let log = times.clone();
    let answer = move |_: &crate::env::http::Call| {
        let mut log = log.lock().unwrap();
        log.push(began.elapsed());
        match log.len() {
            1 => unreachable(),
            2 => answered(503, "restarting"),
            3 => answered(429, ""),
            4 => Err(HttpError::TimedOut(Duration::from_secs(1))),
            5 => Err(HttpError::Broken("reset".into())),
            6..=9 => unreachable(),
            _ => answered(200, r#"{"data":1}"#),
        }
    };
    let world = World::new(&config(), None, Box::new(answer));
    let data = Some(Content { data: "1".into(), is_json: true });
    assert_eq!(say(&world, "x").await, Fate::Taken(Box::new(Orders { data, ..Orders::default() })));
    let calls = world.fake.calls.lock().unwrap();
    assert_eq!(calls.len(), 10);
    assert!(calls.iter().all(|call| call.body == calls[0].body), "all are the same call");
    let times = times.lock().unwrap();
    let longest = [100, 200, 400, 800, 1600, 2000, 2000, 2000, 2000];
    for (pair, longest) in times.windows(2).zip(longest) {
        let pause = (pair[1] - pair[0]).as_millis();
        assert!((longest / 2..=longest + 2).contains(&pause), "{pause} ms of {longest} ms");
    }
    assert_eq!(counted(world.backend.message_counters()), [1, 9, 0, 0]);
    assert_eq!(world.counted(WebhookKind::Message), (10, 9, 0));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_nobody_takes_is_given_up_when_its_time_is_over() {
    let world = world_with(|config| config.plain.retry_for = Duration::from_secs(7), vec![unreachable()]);
    let began = Instant::now();
    assert_eq!(say(&world, "x").await, Fate::GivenUp);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took <= Duration::from_secs(7), "{took:?}");
    let [delivered, retried, dropped, given_up] = counted(world.backend.message_counters());
    assert_eq!((delivered, dropped, given_up), (0, 0, 1));
    assert_eq!(world.fake.calls.lock().unwrap().len() as u64, retried + 1);
}

#[tokio::test(start_paused = true)]
async fn what_will_never_be_taken_is_dropped_at_once() {
    for answer in [
        answered(400, ""),
        answered(401, ""),
        answered(404, ""),
        answered(302, ""),
        answered(200, "<html>"),
        answered(200, r#"{"jion":[]}"#),
        Err(HttpError::TooLarge(1)),
        Err(HttpError::NotPublic),
    ] {
        let world = world(vec![answer.clone()]);
        assert_eq!(say(&world, "x").await, Fate::Dropped, "{answer:?}");
        assert_eq!(counted(world.backend.message_counters()), [0, 0, 1, 0], "{answer:?}");
        assert_eq!(world.counted(WebhookKind::Message), (1, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_until_it_is_heard_whatever_is_answered() {
    let world = world(vec![unreachable(), answered(500, ""), answered(200, "goodbye")]);
    world.backend.close(&subject(1), &ending()).await;
    assert_eq!(counted(world.backend.close_counters()), [1, 2, 0, 0]);
    assert_eq!(world.fake.calls.lock().unwrap().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_open_is_asked_once_and_owes_a_close_where_the_backend_may_have_taken_it() {
    let refused = || Err(Refusal::Close(CloseReason::PermissionDenied.into()));
    let failed = || Err(Refusal::Failed);
    for (answer, expected, is_owed_close) in [
        (answered(200, ""), Ok(Orders::default()), true),
        (answered(200, "<html>"), failed(), true),
        (Err(HttpError::TimedOut(Duration::from_secs(1))), failed(), true),
        (Err(HttpError::Broken("reset".into())), failed(), true),
        (unreachable(), failed(), false),
        (answered(500, ""), failed(), false),
        (answered(404, ""), failed(), false),
        (answered(401, ""), refused(), false),
        (answered(403, ""), refused(), false),
    ] {
        let world = world(vec![answer.clone()]);
        let opened = world.backend.open(&subject(0), Opening::default(), pending()).await;
        assert_eq!((opened.answer, opened.is_owed_close), (expected, is_owed_close), "{answer:?}");
        assert_eq!(world.fake.calls.lock().unwrap().len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_status_may_be_given_the_meaning_of_a_close() {
    let gone = Answered::Disconnect { code: 4500, reason: "gone".into() };
    let change = |config: &mut Config| {
        config.default_webhooks[7].status_transforms = vec![StatusTransform { status: 410, answer: gone }];
    };
    let world = world_with(change, vec![answered(410, "")]);
    let close = Some(Close::custom(CloseReason::ForceDisconnect, 4500, "gone".into()));
    assert_eq!(say(&world, "x").await, Fate::Taken(Box::new(Orders { close, ..Orders::default() })));
}

#[tokio::test]
async fn where_nobody_is_to_be_told_messages_are_dropped_and_everybody_may_come() {
    let world = World::new(&Config::default(), None, Box::new(|_| panic!("nobody is to be told")));
    assert!(!world.backend.is_told_of(WebhookKind::Message));
    assert_eq!(say(&world, "x").await, Fate::Dropped);
    world.backend.close(&subject(0), &ending()).await;
    let opened = world.backend.open(&subject(0), Opening::default(), pending()).await;
    assert_eq!(opened.answer, Ok(Orders::default()));
    assert_eq!(counted(world.backend.message_counters()), [0, 0, 1, 0]);
    assert_eq!(counted(world.backend.close_counters()), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_what_may_wait_are_tried_again_and_none_is_lost() {
    let change = |config: &mut Config| (config.webhook.max_in_flight, config.webhook.max_waiting) = (2, 3);
    let mut config = config();
    change(&mut config);
    let most = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Notify::new());
    let answer = |_: &crate::env::http::Call| answered(200, "");
    let world = Arc::new(World::new(&config, Some(gate.clone()), Box::new(answer)));
    let mut sessions = Vec::new();
    for number in 0..20 {
        let world = world.clone();
        sessions.push(tokio::spawn(async move {
            let mut subject = subject(1);
            subject.asker.client.0 = number;
            world.backend.message(&subject, b"x", true).await
        }));
    }
    // A backend that needs 100 ms for each call.
    let (releasing, watched, most_seen) = (gate.clone(), world.clone(), most.clone());
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (.., in_flight) = watched.counted(WebhookKind::Message);
            most_seen.fetch_max(in_flight as usize, Ordering::Relaxed);
            releasing.notify_waiters();
        }
    });
    for session in sessions {
        assert_eq!(session.await.unwrap(), Fate::Taken(Box::default()));
    }
    assert_eq!(most.load(Ordering::Relaxed), 2, "no more are under way than may be");
    let [delivered, retried, dropped, given_up] = counted(world.backend.message_counters());
    assert_eq!((delivered, dropped, given_up), (20, 0, 0));
    assert!(retried > 0, "some had no place at first");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_leaves_nobody_waiting() {
    let (errands, jobs) = crate::errands::Errands::new();
    drop(jobs);
    let fake = world(vec![unreachable()]).fake;
    let clock = crate::env::Clock::starting_at(Duration::from_secs(1));
    let backend = Backend::new(&config(), crate::env::Http::of(fake), errands, clock);
    assert_eq!(backend.message(&subject(1), b"x", true).await, Fate::Dropped);
    backend.close(&subject(2), &ending()).await;
    let opened = backend.open(&subject(0), Opening::default(), pending()).await;
    assert_eq!((opened.answer, opened.is_owed_close), (Err(Refusal::Failed), false));
}

#[tokio::test(start_paused = true)]
async fn what_ended_sessions_leave_behind_has_a_bound_over_all_of_them() {
    let world = world(vec![answered(204, "")]);
    let half = world.backend.room_for_rest(MAX_REST_BYTES / 2);
    assert!(half.is_some() && world.backend.room_for_rest(MAX_REST_BYTES / 2 + 1).is_none());
    let rest = world.backend.room_for_rest(MAX_REST_BYTES / 2);
    assert!(rest.is_some() && world.backend.room_for_rest(1).is_none());
    assert!(world.backend.room_for_rest(0).is_some(), "an end alone takes none");
    drop(half);
    assert!(world.backend.room_for_rest(1).is_some());
}
