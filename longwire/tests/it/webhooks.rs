//! Webhooks over real sockets: what the backend is asked, what its answers do, and what becomes of clients when it
//! does not answer as it should.
//!
//! The [`Backend`] is a small HTTP server in threads of its own, whose answers a test gives as a function.

use crate::harness::{Events, Raw, Received, TestServer, get, in_seconds, until, user_token};
use longwire::config::{ChannelOptions, Config, RpcNamespace, WEBHOOKS, Webhook};
use longwire::signature;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

const INTERNAL: &str = r#"{"code":100,"message":"internal server error","temporary":true}"#;

/// One request that the backend got.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    head: String,
    text: String,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A backend that answers as a function says.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Backend {
    pub(crate) fn start(answer: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Backend {
        Backend::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer)
    }

    /// Starts one at this address.
    pub(crate) fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Asked) -> String + Send + Sync + 'static,
    ) -> Backend {
        let listener = TcpListener::bind(address).expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Backend { address, asked }
    }

    /// Answers every request with this JSON.
    pub(crate) fn answering(json: Value) -> Backend {
        Backend::start(move |_| ok(&json))
    }

    pub(crate) fn webhook(&self, path: &str) -> Webhook {
        Webhook { endpoint: Some(format!("http://{}/{path}", self.address)), ..Webhook::default() }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no thread panics with it").clone()
    }

    #[track_caller]
    pub(crate) fn last(&self) -> Asked {
        self.asked().pop().expect("the backend was asked")
    }

    fn paths(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.path).collect()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> String) {
    let (mut received, mut buffer) = (Vec::new(), [0; 65_536]);
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, text)) = text.split_once("\r\n\r\n") {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut asked = Asked { path, head: head.to_owned(), text: text.to_owned(), body: Value::Null };
            let len: usize = asked.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
            if text.len() >= len {
                asked.body = serde_json::from_str(&asked.text).unwrap_or_default();
                received.clear();
                log.lock().expect("no thread panics with it").push(asked.clone());
                if stream.write_all(answer(&asked).as_bytes()).is_err() {
                    return;
                }
                continue;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => received.extend_from_slice(&buffer[..len]),
        }
    }
}

pub(crate) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

pub(crate) fn ok(json: &Value) -> String {
    response("200 OK", "Content-Type: application/json\r\n", &json.to_string())
}

/// Something that is closed until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn pass(&self) {
        let (is_open, opened) = &*self.0;
        let guard = is_open.lock().expect("no thread panics with it");
        drop(opened.wait_while(guard, |is_open| !*is_open).expect("no thread panics with it"));
    }

    pub(crate) fn open(&self) {
        let (is_open, opened) = &*self.0;
        *is_open.lock().expect("no thread panics with it") = true;
        opened.notify_all();
    }
}

/// The place of a default webhook.
pub(crate) fn place<'a>(config: &'a mut Config, name: &str) -> &'a mut Webhook {
    let index = WEBHOOKS.iter().position(|known| *known == name).expect("a webhook");
    &mut config.default_webhooks[index]
}

/// A server whose webhooks of these names are asked of the backend, with changed settings.
fn server(backend: &Backend, names: &[&str], change: impl FnOnce(&mut Config)) -> TestServer {
    TestServer::with(|config| {
        for name in names {
            *place(config, name) = backend.webhook(name);
        }
        // Generous: the machine may be busy.
        config.default_webhooks.iter_mut().for_each(|webhook| webhook.timeout = Duration::from_secs(20));
        let asking = ChannelOptions {
            subscribe_webhook: "default".into(),
            publish_webhook: "default".into(),
            sub_refresh_webhook: "default".into(),
            presence: true,
            allow_presence_for_subscriber: true,
            ..ChannelOptions::default()
        };
        config.namespaces.insert("ask".into(), asking);
        change(config);
    })
}

fn rpc(id: u32, method: &str) -> Value {
    json!({"id": id, "rpc": {"method": method}})
}

#[test]
fn the_connect_webhook_says_who_a_client_is_and_what_it_gets() {
    let backend = Backend::answering(json!({"result": {
        "user": "42", "info": {"name": "A"}, "data": {"hello": 1}, "channels": ["news"],
        "subs": {"seen:1": {"info": 7, "data": {"topic": "x"}}}, "meta": {"tenant": 1},
    }}));
    let server = server(&backend, &["connect"], |config| config.client.allow_anonymous = false);
    let mut raw = server.open();
    let command = json!({"id": 1, "connect": {"data": {"room": 5}, "name": "js", "version": "1.2"}});
    let reply = raw.ask_value(&command)["connect"].clone();
    assert_eq!(reply["data"], json!({"hello": 1}));
    assert_eq!(reply["subs"]["seen:1"]["data"], json!({"topic": "x"}));
    assert!(reply["subs"]["news"].is_object(), "{reply}");
    let client = reply["client"].as_str().expect("an id");
    let expected = json!({
        "client": client, "transport": "websocket", "protocol": "json", "encoding": "json",
        "data": {"room": 5}, "name": "js", "version": "1.2",
    });
    let asked = backend.last();
    assert_eq!((asked.body, &*asked.path), (expected, "/connect"));
    let presence = &server.api("presence", &json!({"channel": "seen:1"}))["result"]["presence"];
    let known = json!({client: {"client": client, "user": "42", "conn_info": {"name": "A"}, "chan_info": 7}});
    assert_eq!(*presence, known);
}

#[test]
fn a_cookie_is_handed_on_only_where_it_is_allowed_and_with_every_webhook_of_the_connection() {
    let headers = "Cookie: session=abc\r\nX-Other: 1\r\n";
    let backend = Backend::answering(json!({"result": {"user": "42", "meta": {"tenant": 1}}}));
    let plain = server(&backend, &["connect"], |_| {});
    Raw::open_with(plain.address, headers).connect("");
    assert_eq!(backend.last().header("cookie"), None);
    let allowing = server(&backend, &["connect", "rpc"], |config| {
        for name in ["connect", "rpc"] {
            place(config, name).http_headers = vec!["cookie".into()];
            place(config, name).include_connection_meta = true;
        }
        place(config, "connect").emulated_headers = vec!["authorization".into(), "cookie".into()];
        place(config, "connect").static_headers = vec![("x-key".into(), "ours".into())];
    });
    let mut raw = Raw::open_with(allowing.address, headers);
    let emulated =
        json!({"Authorization": "Bearer x", "Cookie": "forged=1", "X-Other": "2", "X-Key": "forged"});
    raw.ask_value(&json!({"id": 1, "connect": {"headers": emulated}}));
    let asked = backend.last();
    let found =
        ["cookie", "authorization", "x-key", "x-other"].map(|name| asked.header(name).unwrap_or("none"));
    assert_eq!(found, ["session=abc", "Bearer x", "ours", "none"]);
    assert_eq!(asked.header("content-type"), Some("application/json"));
    raw.ask_value(&rpc(2, "x"));
    let asked = backend.last();
    assert_eq!((asked.header("cookie"), asked.header("authorization")), (Some("session=abc"), None));
    assert_eq!((&asked.body["meta"], &asked.body["user"]), (&json!({"tenant": 1}), &json!("42")));
    // An event stream is asked about in the same way.
    let _events = Events::open(allowing.address, "/sse?channels=news", headers);
    let asked = backend.last();
    assert_eq!((asked.header("cookie"), &asked.body["transport"]), (Some("session=abc"), &json!("sse")));
}

#[test]
fn a_token_comes_before_the_webhook_and_anonymous_clients_after_it() {
    let backend = Backend::answering(json!({}));
    let closed = server(&backend, &["connect"], |config| config.client.allow_anonymous = false);
    closed.connect_with(&user_token("7"));
    assert!(backend.asked().is_empty(), "a token says who it is");
    let mut raw = closed.open();
    raw.send(r#"{"id":1,"connect":{}}"#);
    raw.expect_close(CloseReason::BadRequest);
    assert_eq!(backend.asked().len(), 1);
    let open = server(&backend, &["connect"], |_| {});
    open.connect();
}

#[test]
fn the_backend_may_turn_a_client_away_by_error_by_disconnect_or_by_status() {
    let backend = Backend::start(|asked| match asked.body["name"].as_str() {
        Some("error") => ok(&json!({"error": {"code": 1000, "message": "no", "temporary": true}})),
        Some("disconnect") => ok(&json!({"disconnect": {"code": 4501, "reason": "unauthorized"}})),
        Some("late") => ok(&json!({"result": {"user": "42", "expire_at": 1}})),
        Some("channel") => ok(&json!({"result": {"channels": ["nowhere:1"]}})),
        Some(status) => response(&format!("{status} No"), "", "{}"),
        None => ok(&json!({})),
    });
    let server = server(&backend, &["connect"], |_| {});
    let connect = |name: &str| {
        let mut raw = server.open();
        raw.send(&json!({"id": 1, "connect": {"name": name}}).to_string());
        raw.next()
    };
    let error = |error: &str| Received::Text(format!(r#"{{"id":1,"error":{error}}}"#));
    assert_eq!(connect("error"), error(r#"{"code":1000,"message":"no","temporary":true}"#));
    assert_eq!(connect("disconnect"), Received::Close(Some(4501), "unauthorized".into()));
    assert_eq!(connect("late"), error(r#"{"code":110,"message":"expired"}"#));
    assert_eq!(connect("channel"), error(r#"{"code":102,"message":"unknown channel"}"#));
    for status in ["401", "403"] {
        assert_eq!(connect(status), Received::Close(Some(3507), "permission denied".into()), "{status}");
    }
    assert_eq!(connect("500"), error(INTERNAL));
}

#[test]
fn a_stream_that_the_backend_turns_away_is_a_status_unless_a_browser_shall_return() {
    let backend = Backend::start(|asked| match asked.header("x-want") {
        Some(status) => response(&format!("{status} No"), "", ""),
        None => ok(&json!({"disconnect": {"code": 4501, "reason": "unauthorized"}})),
    });
    let server = server(&backend, &["connect"], |config| {
        place(config, "connect").http_headers = vec!["x-want".into()];
    });
    for (headers, status) in [("", 403), ("X-Want: 403\r\n", 403), ("X-Want: 500\r\n", 500)] {
        for path in ["/sse", "/stream", "/poll"] {
            // A browser's EventSource never comes back from a status, and here it is to.
            if (path, status) != ("/sse", 500) {
                let answer = get(server.address, &format!("{path}?channels=news"), headers);
                assert_eq!(answer.status, status, "{path} {headers}");
            }
        }
    }
    let mut events = Events::open(server.address, "/sse?channels=news", "X-Want: 500\r\n");
    let event = events.next();
    assert!(event.name == "disconnect" && event.retry.is_some(), "{event:?}");
    assert_eq!(event.value(), json!({"code": 3004, "reason": "internal server error", "reconnect": true}));
    assert_eq!(events.link.await_end(), crate::harness::End::Closed);
}

#[test]
fn the_subscribe_webhook_decides_where_nothing_stronger_does() {
    let backend = Backend::start(|asked| match asked.body["channel"].as_str() {
        Some("ask:no") => ok(&json!({"error": {"code": 403, "message": "not yours"}})),
        Some("ask:bye") => ok(&json!({"disconnect": {"code": 4000, "reason": "bye"}})),
        _ => ok(
            &json!({"result": {"info": 7, "data": {"topic": "x"}, "override": {"presence": {"value": true}}}}),
        ),
    });
    let server = server(&backend, &["subscribe"], |config| {
        let options = config.namespaces.get_mut("ask").expect("it is there");
        (options.presence, options.allow_user_limited_channels) = (false, true);
        options.publish_webhook.clear();
        options.sub_refresh_webhook.clear();
    });
    let mut raw = server.connect_as("42");
    let ask = json!({"id": 2, "subscribe": {"channel": "ask:1", "data": {"why": "x"}}});
    assert_eq!(raw.ask_value(&ask), json!({"id": 2, "subscribe": {"data": {"topic": "x"}}}));
    let body = backend.last().body;
    let said = ["user", "channel", "data"].map(|name| body[name].clone());
    assert_eq!(said, [json!("42"), json!("ask:1"), json!({"why": "x"})]);
    assert_eq!(body["client"], json!(raw.client));
    let refused = raw.ask_value(&json!({"id": 3, "subscribe": {"channel": "ask:no"}}));
    assert_eq!(refused["error"], json!({"code": 403, "message": "not yours"}));
    assert_eq!(backend.asked().len(), 2);
    // Private channels, those of users and other namespaces are not asked about.
    for (channel, is_allowed) in [("$ask:1", false), ("ask:1#42", true), ("ask:1#7", false), ("news", true)] {
        let reply = raw.ask_value(&json!({"id": 4, "subscribe": {"channel": channel}}));
        assert_eq!(reply.get("subscribe").is_some(), is_allowed, "{channel}: {reply}");
    }
    let token = crate::harness::token(&json!({"sub": "42", "channel": "ask:2", "exp": in_seconds(60)}));
    raw.ask_value(&json!({"id": 5, "subscribe": {"channel": "ask:2", "token": token}}));
    assert_eq!(backend.asked().len(), 2);
    raw.send(r#"{"id":6,"subscribe":{"channel":"ask:bye"}}"#);
    assert_eq!(raw.next(), Received::Close(Some(4000), "bye".into()));
}

#[test]
fn the_publish_webhook_may_change_what_is_published() {
    let backend = Backend::start(|asked| match asked.body["data"].as_str() {
        Some("same") => ok(&json!({"result": {}})),
        Some("no") => ok(&json!({"error": {"code": 1000, "message": "no"}})),
        _ => ok(&json!({"result": {"data": {"clean": true}, "tags": {"b": "2", "a": "1"}}})),
    });
    let server = server(&backend, &["publish"], |config| {
        let options = config.namespaces.get_mut("ask").expect("it is there");
        options.subscribe_webhook.clear();
        options.sub_refresh_webhook.clear();
        options.allow_subscribe_for_client = true;
    });
    let (mut reader, mut writer) = (server.connect_as("1"), server.connect_as("2"));
    reader.subscribe("ask:1");
    let publish = |id: u32, data: Value| json!({"id": id, "publish": {"channel": "ask:1", "data": data}});
    assert_eq!(writer.ask_value(&publish(2, json!("same"))), json!({"id": 2, "publish": {}}));
    assert_eq!(reader.value()["push"]["pub"]["data"], json!("same"));
    assert_eq!(writer.ask_value(&publish(3, json!("no")))["error"]["code"], json!(1000));
    writer.ask_value(&publish(4, json!({"rude": true})));
    let push = reader.value()["push"]["pub"].clone();
    assert_eq!((&push["data"], &push["tags"]), (&json!({"clean": true}), &json!({"a": "1", "b": "2"})));
    assert_eq!(push["info"]["user"], json!("2"));
    assert_eq!(backend.last().body["data"], json!({"rude": true}));
}

#[test]
fn a_method_is_answered_by_the_backend_of_its_namespace() {
    let backend = Backend::start(|asked| {
        ok(&json!({"result": {"data": [asked.path, asked.body["method"], asked.body["data"]]}}))
    });
    let server = server(&backend, &["rpc"], |config| {
        config.webhooks.insert("shop".into(), backend.webhook("shop"));
        config.rpc_namespaces.insert("cart".into(), RpcNamespace { webhook: "shop".into() });
        config.rpc_namespaces.insert("off".into(), RpcNamespace { webhook: String::new() });
        config.webhook.secret = Some("a secret of at least 32 bytes, is it".into());
    });
    let mut raw = server.connect();
    let reply = raw.ask_value(&json!({"id": 2, "rpc": {"method": "sum", "data": [1, 2]}}));
    assert_eq!(reply, json!({"id": 2, "rpc": {"data": ["/rpc", "sum", [1, 2]]}}));
    let asked = backend.last();
    let given = asked.header("x-longwire-signature").expect("a signature").to_owned();
    let time = given.strip_prefix("t=").and_then(|rest| rest.split_once(',')).expect("a time").0;
    let time: i64 = time.parse().expect("seconds");
    assert_eq!(given, signature::sign("a secret of at least 32 bytes, is it", time, asked.text.as_bytes()));
    assert!((in_seconds(-30)..=in_seconds(1)).contains(&time));
    assert_eq!(raw.ask_value(&rpc(3, "cart:add"))["rpc"]["data"], json!(["/shop", "cart:add", null]));
    assert_eq!(raw.ask_value(&rpc(4, "card:add"))["error"]["code"], json!(104));
    assert_eq!(raw.ask_value(&rpc(5, "off:x"))["error"]["code"], json!(108));
    raw.send(r#"{"send":{"data":1}}"#);
    raw.expect_close(CloseReason::NotAvailable);
}

#[test]
fn the_backend_prolongs_a_connection_and_lets_it_expire() {
    let backend = Backend::start(|asked| match &*asked.path {
        "/connect" => {
            ok(&json!({"result": {"user": "42", "expire_at": in_seconds(1), "channels": ["seen:1"]}}))
        }
        _ if asked.body["meta"] == json!(2) => ok(&json!({"result": {"expired": true}})),
        _ => ok(&json!({"result": {"expire_at": in_seconds(2), "info": {"v": 2}, "meta": 2}})),
    });
    let server = server(&backend, &["connect", "refresh"], |config| {
        place(config, "refresh").include_connection_meta = true;
    });
    let mut raw = server.open();
    // It is not told to prolong what it cannot.
    assert_eq!(raw.connect("")["connect"].get("ttl"), None);
    let mut pushes = Vec::new();
    let close = loop {
        match raw.next() {
            Received::Text(text) => pushes.push(serde_json::from_str::<Value>(&text).expect("JSON")),
            other => break other,
        }
        if pushes.last().is_some_and(|push| push["push"].get("refresh").is_some()) {
            let presence = &server.api("presence", &json!({"channel": "seen:1"}))["result"]["presence"];
            assert_eq!(presence[&raw.client]["conn_info"], json!({"v": 2}));
        }
    };
    assert_eq!(close, Received::Close(Some(3005), "connection expired".into()));
    let refreshes: Vec<_> = pushes.iter().filter(|push| push["push"].get("refresh").is_some()).collect();
    assert_eq!(refreshes.len(), 1, "{pushes:?}");
    assert_eq!(refreshes[0]["push"]["refresh"], json!({}), "who is told a time shows another token for it");
    assert_eq!(backend.paths(), ["/connect", "/refresh", "/refresh"]);
    let asked = backend.asked();
    assert_eq!((&asked[1].body["user"], &asked[1].body["client"]), (&json!("42"), &json!(raw.client)));
    // What the backend prolongs the client must not.
    let mut raw = server.open();
    raw.connect("");
    raw.send(&json!({"id": 2, "refresh": {"token": user_token("42")}}).to_string());
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_connection_outlives_a_backend_that_cannot_be_asked_about_it() {
    let backend = Backend::start(|asked| match &*asked.path {
        "/connect" => ok(&json!({"result": {"user": "42", "expire_at": in_seconds(1)}})),
        _ => response("500 Oops", "", ""),
    });
    let server = server(&backend, &["connect", "refresh"], |config| {
        config.client.expired_close_delay = Duration::ZERO;
    });
    let mut raw = server.open();
    raw.connect("");
    until("the backend to be asked", || backend.paths().contains(&"/refresh".to_owned()));
    raw.expect_silence();
    assert_eq!(backend.paths(), ["/connect", "/refresh"]);
}

#[test]
fn the_backend_prolongs_a_subscription_and_lets_it_expire() {
    let backend = Backend::start(|asked| match &*asked.path {
        "/subscribe" => ok(&json!({"result": {"expire_at": in_seconds(1), "info": 1}})),
        _ if asked.body["channel"] == json!("ask:over") => ok(&json!({"result": {"expired": true}})),
        _ => ok(&json!({"result": {"expire_at": in_seconds(60), "info": 2}})),
    });
    let server = server(&backend, &["subscribe", "sub_refresh", "publish"], |_| {});
    let mut raw = server.connect_as("42");
    let subscribed = raw.subscribe("ask:over");
    assert_eq!(subscribed.get("ttl"), None, "the client is not to prolong it");
    raw.subscribe("ask:on");
    let push = raw.value();
    let expected =
        json!({"channel": "ask:over", "unsubscribe": {"code": 2501, "reason": "subscription expired"}});
    assert_eq!(push["push"], expected);
    let mut members = Value::Null;
    until("what the backend changed to be seen", || {
        members = server.api("presence", &json!({"channel": "ask:on"}))["result"]["presence"].clone();
        members[&raw.client]["chan_info"] == json!(2)
    });
    let reply = raw.ask_value(&json!({"id": 3, "presence_stats": {"channel": "ask:on"}}));
    assert_eq!(reply["presence_stats"]["num_clients"], json!(1));
    raw.send(&json!({"id": 4, "sub_refresh": {"channel": "ask:on", "token": "x"}}).to_string());
    raw.expect_close(CloseReason::BadRequest);
}

#[test]
fn a_slow_backend_keeps_nobody_waiting_who_does_not_need_it() {
    let gate = Gate::default();
    let backend = Backend::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            ok(&json!({"result": {"data": 1}}))
        }
    });
    let server = server(&backend, &["rpc", "connect"], |_| {});
    let mut waiting: Vec<Raw> = (0..20).map(|n| server.connect_as(&n.to_string())).collect();
    for raw in &mut waiting {
        // The subscribe waits behind it, in order.
        raw.send("{\"id\":2,\"rpc\":{\"method\":\"x\"}}\n{\"id\":3,\"subscribe\":{\"channel\":\"news\"}}");
    }
    let mut arriving = server.open();
    arriving.send(r#"{"id":1,"connect":{}}"#);
    until("everything to wait", || backend.asked().len() == 21);
    // Clients that need nothing of it do not notice.
    let (mut reader, mut writer) = (server.connect_as("reader"), server.connect_as("writer"));
    reader.subscribe("news");
    for n in 0..100 {
        let began = Instant::now();
        writer.ask_value(&json!({"id": n + 10, "publish": {"channel": "news", "data": n}}));
        assert_eq!(reader.value()["push"]["pub"]["data"], json!(n));
        assert!(began.elapsed() < Duration::from_secs(5), "publication {n} took {:?}", began.elapsed());
    }
    let in_flight = get(server.address, "/metrics", "").text();
    assert!(in_flight.contains("longwire_webhook_in_flight{webhook=\"rpc\"} 20"), "{in_flight}");
    gate.open();
    for raw in &mut waiting {
        assert_eq!(raw.value(), json!({"id": 2, "rpc": {"data": 1}}));
        assert_eq!(raw.value()["id"], json!(3));
    }
    assert_eq!(arriving.value()["id"], json!(1));
}

#[test]
fn a_backend_that_does_not_answer_in_time_is_a_temporary_error_and_the_client_lives_on() {
    let gate = Gate::default();
    let backend = Backend::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            ok(&json!({}))
        }
    });
    let server = server(&backend, &["rpc"], |config| {
        place(config, "rpc").timeout = Duration::from_millis(100);
    });
    let mut raw = server.connect();
    assert_eq!(raw.ask(&rpc(2, "x").to_string()), format!(r#"{{"id":2,"error":{INTERNAL}}}"#));
    raw.subscribe("news");
    gate.open();
}

#[test]
fn so_many_requests_are_made_at_once_and_those_that_may_not_wait_fail_at_once() {
    let gate = Gate::default();
    let backend = Backend::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            ok(&json!({"result": {"data": 1}}))
        }
    });
    let server = server(&backend, &["rpc"], |config| {
        (config.webhook.max_in_flight, config.webhook.max_waiting) = (2, 1);
    });
    let mut waiting: Vec<Raw> = (0..3).map(|_| server.connect()).collect();
    let node = server.server().node().clone();
    let counters = || node.backend.counters(longwire::backend::WebhookKind::Rpc);
    for (n, raw) in waiting.iter_mut().enumerate() {
        raw.send(&rpc(2, "x").to_string());
        until("it to be made", || backend.asked().len() == (n + 1).min(2));
    }
    let mut raw = server.connect();
    // The third has come to its place once a fourth finds none.
    until("a request for which there is no place", || {
        raw.send(&rpc(2, "x").to_string());
        counters().failures.get() > 0
    });
    assert_eq!((backend.asked().len(), counters().in_flight.get()), (2, 2));
    gate.open();
    for raw in &mut waiting {
        assert_eq!(raw.value(), json!({"id": 2, "rpc": {"data": 1}}));
    }
}

#[test]
fn whatever_a_broken_backend_answers_is_a_temporary_error() {
    let backend = Backend::start(|asked| match asked.body["method"].as_str() {
        Some("500") => response("500 Oops", "", "<h1>Oops</h1>"),
        Some("redirect") => response("302 Found", "Location: /elsewhere\r\n", ""),
        Some("garbage") => ok(&json!(null)).replace("null", "<br>"),
        Some("huge") => {
            response("200 OK", "", &format!("{{\"result\":{{\"data\":\"{}\"}}}}", "x".repeat(2 << 20)))
        }
        Some("half") => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n{".to_owned(),
        Some("nonsense") => "hello\r\n\r\n".to_owned(),
        Some("code") => ok(&json!({"error": {"code": 7, "message": "x"}})),
        _ => ok(&json!({"result": {"data": "fine"}})),
    });
    let server = server(&backend, &["rpc"], |config| {
        place(config, "rpc").timeout = Duration::from_secs(2);
    });
    let mut raw = server.connect();
    let modes = ["500", "redirect", "garbage", "huge", "half", "nonsense", "code"];
    for (n, mode) in modes.iter().enumerate() {
        let id = n as u32 + 2;
        let expected = format!(r#"{{"id":{id},"error":{INTERNAL}}}"#);
        assert_eq!(raw.ask(&rpc(id, mode).to_string()), expected, "{mode}");
    }
    assert!(!backend.paths().contains(&"/elsewhere".to_owned()), "a redirect is not followed");
    assert_eq!(raw.ask_value(&rpc(99, "x")), json!({"id": 99, "rpc": {"data": "fine"}}));
    let metrics = get(server.address, "/metrics", "").text();
    for line in [
        "longwire_webhook_calls_total{webhook=\"rpc\"} 8",
        "longwire_webhook_failures_total{webhook=\"rpc\"} 7",
        "longwire_webhook_in_flight{webhook=\"rpc\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[test]
fn a_private_address_is_not_asked_where_only_public_ones_may_be() {
    let backend = Backend::answering(json!({"result": {}}));
    let server = server(&backend, &["rpc"], |config| {
        let by_name = format!("http://localhost:{}/rpc", backend.address.port());
        let named = Webhook { endpoint: Some(by_name), public_addresses_only: true, ..Webhook::default() };
        config.webhooks.insert("tenant".into(), named);
        config.rpc_namespaces.insert("tenant".into(), RpcNamespace { webhook: "tenant".into() });
        place(config, "rpc").public_addresses_only = true;
    });
    let mut raw = server.connect();
    for (id, method) in [(2, "x"), (3, "tenant:x")] {
        let expected = format!(r#"{{"id":{id},"error":{INTERNAL}}}"#);
        assert_eq!(raw.ask(&rpc(id, method).to_string()), expected, "{method}");
    }
    assert!(backend.asked().is_empty());
}

#[test]
fn a_client_that_leaves_while_the_backend_thinks_leaves_nothing_behind() {
    let gate = Gate::default();
    let backend = Backend::start({
        let gate = gate.clone();
        move |_| {
            gate.pass();
            ok(&json!({"result": {}}))
        }
    });
    let server = server(&backend, &["subscribe", "publish", "sub_refresh"], |_| {});
    let mut raw = server.connect_as("42");
    raw.send(r#"{"id":2,"subscribe":{"channel":"ask:1"}}"#);
    until("the backend to be asked", || !backend.asked().is_empty());
    drop(raw);
    until("the client to be gone", || {
        server.closes(CloseReason::PeerClosed) + server.closes(CloseReason::PeerReset) > 0
    });
    gate.open();
    let node = server.server().node();
    until("the request to end", || {
        node.backend.counters(longwire::backend::WebhookKind::Subscribe).in_flight.get() == 0
    });
    assert_eq!(server.api("presence", &json!({"channel": "ask:1"}))["result"]["presence"], json!({}));
    assert!(server.api("channels", &json!({}))["result"]["channels"].get("ask:1").is_none());
}
