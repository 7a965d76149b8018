//! Every webhook and every way to fail, against a backend that is a function.

use super::*;
use crate::config::{Answered, RpcNamespace, StatusTransform};
use crate::env::http::{Caller, Calling, HttpError};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Notify;

pub(super) type Answering = dyn Fn(&Call) -> Result<Answer, HttpError> + Send + Sync;

/// A backend that is a function, with what it was asked.
pub(super) struct Fake {
    pub(super) calls: Mutex<Vec<Call>>,
    answer: Box<Answering>,
    /// Calls wait for this, if it is there.
    gate: Option<Arc<Notify>>,
}

impl Caller for Fake {
    fn call(&self, call: Call) -> Calling {
        let answer = (self.answer)(&call);
        let (gate, timeout) = (self.gate.clone(), call.timeout);
        self.calls.lock().unwrap().push(call);
        Box::pin(async move {
            if let Some(gate) = gate
                && tokio::time::timeout(timeout, gate.notified()).await.is_err()
            {
                return Err(HttpError::TimedOut(timeout));
            }
            answer
        })
    }
}

pub(super) struct World {
    pub(super) backend: Backend,
    pub(super) fake: Arc<Fake>,
}

fn webhook(path: &str) -> Webhook {
    Webhook { endpoint: Some(format!("http://backend/{path}")), ..Webhook::default() }
}

/// A configuration in which every webhook is on.
pub(super) fn config() -> Config {
    let mut config = Config::default();
    for (name, place) in WEBHOOKS.iter().zip(&mut config.default_webhooks) {
        *place = webhook(name);
    }
    config.webhooks.insert("other".into(), webhook("other"));
    config.rpc_namespaces.insert("shop".into(), RpcNamespace { webhook: "other".into() });
    config.rpc_namespaces.insert("off".into(), RpcNamespace { webhook: String::new() });
    config
}

impl World {
    pub(super) fn new(config: &Config, gate: Option<Arc<Notify>>, answer: Box<Answering>) -> World {
        let fake = Arc::new(Fake { calls: Mutex::default(), answer, gate });
        let (errands, mut jobs) = Errands::new();
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                tokio::spawn(job);
            }
        });
        let clock = Clock::starting_at(Duration::from_secs(1_700_000_000));
        World { backend: Backend::new(config, Http::of(fake.clone()), errands, clock), fake }
    }

    fn answering(body: &'static str) -> World {
        World::with(|_| {}, 200, body)
    }

    fn with(change: impl FnOnce(&mut Config), status: u16, body: &'static str) -> World {
        let mut config = config();
        change(&mut config);
        let answer = move |_: &Call| Ok(Answer { status, body: Bytes::from_static(body.as_bytes()) });
        World::new(&config, None, Box::new(answer))
    }

    pub(super) fn last_call(&self) -> Call {
        self.fake.calls.lock().unwrap().last().cloned().expect("a call")
    }

    pub(super) fn last_body(&self) -> Value {
        serde_json::from_slice(&self.last_call().body).expect("a body of JSON")
    }

    pub(super) fn counted(&self, event: WebhookKind) -> (u64, u64, u64) {
        let counters = self.backend.counters(event);
        (counters.calls.get(), counters.failures.get(), counters.in_flight.get())
    }
}

pub(super) fn asker() -> Asker {
    Asker { client: ClientId(7), user: "42".into(), transport: "websocket", protocol: "json", baggage: None }
}

fn carrying(baggage: Baggage) -> Asker {
    Asker { baggage: Some(Arc::new(baggage)), ..asker() }
}

fn common(more: Value) -> Value {
    let mut body = json!({
        "client": ClientId(7).to_string(), "transport": "websocket", "protocol": "json", "encoding": "json",
        "user": "42",
    });
    let members = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    body
}

pub(super) fn pairs(pairs: &[(&str, &str)]) -> Box<[(String, String)]> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn connect_says_what_the_client_said_and_no_user() {
    let world = World::answering(r#"{"result":{"user":"42","data":{"a":1}}}"#);
    let sub = longwire_protocol::command::Subscribe { channel: "news".into(), ..Default::default() };
    let connect = Connect {
        data: r#"{"room":1}"#.into(),
        name: "js".into(),
        version: "1.0".into(),
        subs: vec![sub],
        ..Connect::default()
    };
    let welcome = world.backend.connect(&asker(), &connect).await.unwrap().expect("credentials");
    assert_eq!((&*welcome.user, &welcome.data[..]), ("42", &b"{\"a\":1}"[..]));
    let mut expected =
        common(json!({"data": {"room": 1}, "name": "js", "version": "1.0", "channels": ["news"]}));
    expected.as_object_mut().unwrap().remove("user");
    assert_eq!(world.last_body(), expected);
    let call = world.last_call();
    assert_eq!((call.method, &*call.url), (Method::Post, "http://backend/connect"));
    assert_eq!(call.headers, [("content-type".to_owned(), "application/json".to_owned())]);
    assert_eq!((call.max_answer_bytes, call.must_be_public), (MAX_ANSWER_BYTES, false));
    // What is empty is left out.
    world.backend.connect(&asker(), &Connect::default()).await.unwrap();
    assert_eq!(world.last_body().as_object().unwrap().len(), 4);
}

#[tokio::test]
async fn the_other_webhooks_name_the_user_and_what_it_is_about() {
    let world = World::answering(r#"{"result":{}}"#);
    let (backend, data) = (&world.backend, Bytes::from_static(b"[1]"));
    backend.refresh(&asker()).await.unwrap();
    assert_eq!(world.last_body(), common(json!({})));
    backend.subscribe("default", &asker(), "news", &data).await.unwrap();
    assert_eq!(world.last_body(), common(json!({"channel": "news", "data": [1]})));
    backend.publish("default", &asker(), "news", &data).await.unwrap();
    assert_eq!(world.last_body(), common(json!({"channel": "news", "data": [1]})));
    backend.sub_refresh("default", &asker(), "news").await.unwrap();
    assert_eq!(world.last_body(), common(json!({"channel": "news"})));
    backend.rpc(&asker(), "sum", &data).await.unwrap();
    assert_eq!(world.last_body(), common(json!({"method": "sum", "data": [1]})));
    backend.rpc(&Asker { user: "".into(), ..asker() }, "sum", &Bytes::new()).await.unwrap();
    assert_eq!(world.last_body(), common(json!({"method": "sum", "user": ""})));
    let urls: Vec<_> = world.fake.calls.lock().unwrap().iter().map(|call| call.url.to_string()).collect();
    let expected = ["refresh", "subscribe", "publish", "sub_refresh", "rpc", "rpc"];
    assert_eq!(urls, expected.map(|path| format!("http://backend/{path}")));
}

#[tokio::test]
async fn payloads_go_in_base64_where_that_is_configured() {
    let world =
        World::with(|config| config.default_webhooks[5].binary_encoding = true, 200, r#"{"result":{}}"#);
    let asker = Asker { protocol: "protobuf", ..asker() };
    world.backend.rpc(&asker, "sum", &Bytes::from_static(b"\xff")).await.unwrap();
    let body = world.last_body();
    assert_eq!((&body["b64data"], &body["encoding"]), (&json!("/w=="), &json!("binary")));
    assert_eq!(body.get("data"), None);
}

#[tokio::test]
async fn what_is_no_json_never_becomes_a_part_of_a_body() {
    let world = World::answering("{}");
    let asker = Asker { protocol: "protobuf", ..asker() };
    for data in [&b"\xff"[..], b"1,\"user\":\"0\"", b"}"] {
        let refused = world.backend.rpc(&asker, "sum", &Bytes::copy_from_slice(data)).await;
        assert_eq!(refused, Err(Refusal::Error(ErrorCode::BadRequest.into())));
    }
    assert!(world.fake.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn only_headers_that_are_allowed_are_handed_on_and_the_clients_own_request_is_the_strongest() {
    let baggage = || Baggage {
        headers: pairs(&[
            ("cookie", "real=1"),
            ("origin", "https://a.b"),
            ("x-forwarded-for", "1"),
            ("x-forwarded-for", "2"),
        ]),
        emulated_headers: pairs(&[
            ("cookie", "forged=1"),
            ("authorization", "Bearer x"),
            ("x-key", "forged"),
        ]),
        meta: Bytes::from_static(b"{\"tenant\":1}"),
    };
    let world = World::answering(r#"{"result":{}}"#);
    world.backend.refresh(&carrying(baggage())).await.unwrap();
    assert_eq!(world.last_call().headers.len(), 1, "nothing is handed on by default");
    assert_eq!(world.last_body().get("meta"), None);
    let allow = |config: &mut Config| {
        let webhook = &mut config.default_webhooks[1];
        webhook.http_headers = vec!["cookie".into(), "x-forwarded-for".into()];
        webhook.emulated_headers = vec!["cookie".into(), "authorization".into(), "x-key".into()];
        webhook.static_headers = pairs(&[("x-key", "ours"), ("x-other", "1")]).into_vec();
        webhook.include_connection_meta = true;
    };
    let world = World::with(allow, 200, r#"{"result":{}}"#);
    world.backend.refresh(&carrying(baggage())).await.unwrap();
    let expected = pairs(&[
        ("x-other", "1"),
        ("authorization", "Bearer x"),
        ("x-key", "forged"),
        ("cookie", "real=1"),
        ("x-forwarded-for", "1"),
        ("x-forwarded-for", "2"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(world.last_call().headers[..], expected[..]);
    assert_eq!(world.last_body()["meta"], json!({"tenant": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_body_is_signed_with_the_time_at_which_it_goes_out() {
    let secret = "0123456789abcdef0123456789abcdef";
    let world = World::with(|config| config.webhook.secret = Some(secret.into()), 200, r#"{"result":{}}"#);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.backend.refresh(&asker()).await.unwrap();
    let call = world.last_call();
    let expected = signature::sign(secret, 1_700_000_005, &call.body);
    assert!(call.headers.contains(&("x-longwire-signature".to_owned(), expected)), "{:?}", call.headers);
}

#[tokio::test]
async fn a_backend_may_refuse_with_an_error_or_a_disconnect() {
    let world = World::answering(r#"{"error":{"code":1001,"message":"no room"}}"#);
    let error = ReplyError { code: 1001, message: "no room".into(), temporary: false };
    assert_eq!(world.backend.rpc(&asker(), "x", &Bytes::new()).await, Err(Refusal::Error(error)));
    let world = World::answering(r#"{"disconnect":{"code":4501,"reason":"gone"}}"#);
    let close = Close::custom(CloseReason::ForceDisconnect, 4501, "gone".into());
    let refused = world.backend.subscribe("default", &asker(), "news", &Bytes::new()).await;
    assert_eq!(refused, Err(Refusal::Close(close)));
    // A refusal is an answer: nothing failed.
    assert_eq!(world.counted(WebhookKind::Subscribe), (1, 0, 0));
}

#[tokio::test]
async fn a_status_means_what_is_configured_and_else_that_the_call_failed() {
    for (status, expected) in [
        (401, Refusal::Close(CloseReason::PermissionDenied.into())),
        (403, Refusal::Close(CloseReason::PermissionDenied.into())),
        (302, Refusal::Failed),
        (404, Refusal::Failed),
        (500, Refusal::Failed),
    ] {
        let world = World::with(|_| {}, status, r#"{"result":{}}"#);
        assert_eq!(world.backend.connect(&asker(), &Connect::default()).await, Err(expected), "{status}");
    }
    // Only of connect: elsewhere the client may well be known.
    let world = World::with(|_| {}, 403, "{}");
    assert_eq!(world.backend.rpc(&asker(), "x", &Bytes::new()).await, Err(Refusal::Failed));
    // Any answer that is a success counts.
    let world = World::with(|_| {}, 201, r#"{"result":{"user":"42"}}"#);
    assert!(world.backend.connect(&asker(), &Connect::default()).await.is_ok());
    let retried = Answered::Error { code: 100, message: String::new(), temporary: true };
    let transforms = |config: &mut Config| {
        let gone = Answered::Disconnect { code: 4500, reason: "gone".into() };
        config.default_webhooks[0].status_transforms = vec![
            StatusTransform { status: 403, answer: retried },
            StatusTransform { status: 404, answer: gone },
        ];
    };
    let world = World::with(transforms.clone(), 403, "");
    let error = ReplyError { code: 100, message: ErrorCode::Internal.text().into(), temporary: true };
    assert_eq!(world.backend.connect(&asker(), &Connect::default()).await, Err(Refusal::Error(error)));
    let world = World::with(transforms, 404, "");
    let close = Close::custom(CloseReason::ForceDisconnect, 4500, "gone".into());
    assert_eq!(world.backend.connect(&asker(), &Connect::default()).await, Err(Refusal::Close(close)));
}

#[tokio::test]
async fn whatever_else_comes_back_is_a_failed_call() {
    for body in ["", "<html>", "[1]", r#"{"error":{"code":7}}"#, r#"{"result":{"data":}}"#] {
        let world = World::answering(body);
        assert_eq!(world.backend.rpc(&asker(), "x", &Bytes::new()).await, Err(Refusal::Failed), "{body}");
        assert_eq!(world.counted(WebhookKind::Rpc), (1, 1, 0), "{body}");
    }
    for error in [
        HttpError::Unreachable("refused".into()),
        HttpError::TimedOut(Duration::from_secs(1)),
        HttpError::TooLarge(1),
        HttpError::NotPublic,
        HttpError::Broken("reset".into()),
    ] {
        let world = World::new(&config(), None, Box::new(move |_| Err(error.clone())));
        assert_eq!(world.backend.refresh(&asker()).await, Err(Refusal::Failed));
        assert_eq!(world.counted(WebhookKind::Refresh), (1, 1, 0));
    }
}

#[tokio::test]
async fn a_method_is_answered_by_the_webhook_of_its_namespace() {
    let world = World::answering(r#"{"result":{"data":7}}"#);
    assert_eq!(world.backend.rpc(&asker(), "shop:buy", &Bytes::new()).await, Ok("7".into()));
    assert_eq!(
        (&*world.last_call().url, &world.last_body()["method"]),
        ("http://backend/other", &json!("shop:buy"))
    );
    let unknown = world.backend.rpc(&asker(), "shoe:buy", &Bytes::new()).await;
    assert_eq!(unknown, Err(Refusal::Error(ErrorCode::MethodNotFound.into())));
    let off = world.backend.rpc(&asker(), "off:x", &Bytes::new()).await;
    assert_eq!(off, Err(Refusal::Error(ErrorCode::NotAvailable.into())));
    let world = World::new(&Config::default(), None, Box::new(|_| panic!("nobody is to be asked")));
    let nobody = world.backend.rpc(&asker(), "x", &Bytes::new()).await;
    assert_eq!(nobody, Err(Refusal::Error(ErrorCode::NotAvailable.into())));
    assert!(!world.backend.identifies() && !world.backend.refreshes());
}

#[tokio::test(start_paused = true)]
async fn so_many_calls_are_made_at_once_so_many_wait_and_more_fail_at_once() {
    let mut config = config();
    (config.webhook.max_in_flight, config.webhook.max_waiting) = (2, 3);
    let gate = Arc::new(Notify::new());
    let answer = |_: &Call| Ok(Answer { status: 200, body: Bytes::from_static(b"{}") });
    let world = Arc::new(World::new(&config, Some(gate.clone()), Box::new(answer)));
    let ask = |event: WebhookKind| {
        let world = world.clone();
        tokio::spawn(async move {
            match event {
                WebhookKind::Rpc => world.backend.rpc(&asker(), "x", &Bytes::new()).await.map(drop),
                _ => world.backend.refresh(&asker()).await.map(drop),
            }
        })
    };
    let settle = async || {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    };
    let five: Vec<_> = (0..5).map(|_| ask(WebhookKind::Rpc)).collect();
    settle().await;
    assert_eq!(world.counted(WebhookKind::Rpc), (2, 0, 2));
    assert_eq!(ask(WebhookKind::Rpc).await.unwrap(), Err(Refusal::Failed));
    assert_eq!(world.counted(WebhookKind::Rpc), (2, 1, 2));
    // Another webhook is not held up.
    let other = ask(WebhookKind::Refresh);
    settle().await;
    assert_eq!(world.counted(WebhookKind::Refresh), (1, 0, 1));
    for _ in 0..3 {
        gate.notify_waiters();
        settle().await;
    }
    for call in five {
        assert_eq!(call.await.unwrap(), Ok(()));
    }
    assert_eq!(other.await.unwrap(), Ok(()));
    assert_eq!(world.counted(WebhookKind::Rpc), (5, 1, 0));
    assert_eq!(world.backend.counters(WebhookKind::Rpc).durations.iter().map(Counter::get).sum::<u64>(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_slow_backend_costs_each_call_at_most_twice_its_timeout() {
    let mut config = config();
    (config.webhook.max_in_flight, config.webhook.max_waiting) = (1, 10);
    let world = World::new(&config, Some(Arc::default()), Box::new(|_| Err(HttpError::NotPublic)));
    let began = tokio::time::Instant::now();
    let (asker, backend) = (asker(), &world.backend);
    let (a, b, c) = tokio::join!(backend.refresh(&asker), backend.refresh(&asker), backend.refresh(&asker));
    assert_eq!((a, b, c), (Err(Refusal::Failed), Err(Refusal::Failed), Err(Refusal::Failed)));
    assert!(began.elapsed() <= Duration::from_millis(2_010), "{:?}", began.elapsed());
    assert_eq!(world.counted(WebhookKind::Refresh).1, 3);
}

#[tokio::test]
async fn a_server_that_stops_leaves_no_client_waiting() {
    let (errands, jobs) = Errands::new();
    drop(jobs);
    let fake = Fake { calls: Mutex::default(), answer: Box::new(|_| panic!("no call")), gate: None };
    let backend = Backend::new(&config(), Http::of(Arc::new(fake)), errands, Clock::system());
    for _ in 0..3 {
        assert_eq!(backend.refresh(&asker()).await, Err(Refusal::Failed));
    }
    let hook = backend.hook(WebhookKind::Refresh, "default").expect("it is configured");
    assert_eq!(hook.pending.load(Ordering::Relaxed), 0);
}

#[test]
fn what_is_handed_on_appears_in_no_log() {
    let baggage = Baggage {
        headers: pairs(&[("cookie", "correct-horse")]),
        emulated_headers: pairs(&[("authorization", "correct-horse")]),
        meta: Bytes::from_static(b"\"correct-horse\""),
    };
    let shown = format!("{:?}", carrying(baggage));
    assert!(shown.contains("cookie") && !shown.contains("correct-horse"), "{shown}");
}
