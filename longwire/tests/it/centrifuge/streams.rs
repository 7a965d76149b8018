//! The dialect over responses that go on, with `/emulation` beside them and without a way back; WebSocket with
//! ping frames, and without a way back. In raw bytes.

use crate::harness::{End, Events, Link, Raw, Received, Response, TestServer, handshake, http, user_token};
use longwire::config::ChannelOptions;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::Duration;

const CONNECT: &str = r#"{"id":1,"connect":{}}"#;

fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// An HTTP stream, chunk by chunk.
struct Chunks {
    link: Link,
    head: Response,
}

impl Chunks {
    #[track_caller]
    fn open(server: &TestServer, path: &str, headers: &str, body: &str) -> Chunks {
        let mut link = Link::open(server.address);
        link.send(&post(path, headers, body.as_bytes()));
        let head = link.response();
        assert_eq!(head.status, 200, "{} {}", head.head, head.text());
        assert_eq!(head.header("transfer-encoding"), Some("chunked"));
        Chunks { link, head }
    }

    /// One chunk; empty for the last.
    fn chunk(&mut self) -> Result<Vec<u8>, End> {
        let size = self.link.take_up_to(b"\r\n")?;
        let size = std::str::from_utf8(&size).expect("a size").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        let mut data = Vec::new();
        while data.len() < size + 2 {
            data.extend(self.link.take_up_to(b"\n")?);
        }
        assert!(data.ends_with(b"\r\n"), "a chunk ends with its line");
        data.truncate(size);
        Ok(data)
    }

    /// A reply or push: a whole line in a chunk of its own.
    #[track_caller]
    fn value(&mut self) -> Value {
        let chunk = self.chunk().unwrap_or_else(|end| panic!("no chunk: {end:?}"));
        assert!(chunk.ends_with(b"\n") && chunk.is_ascii(), "{chunk:?}");
        serde_json::from_slice(&chunk).expect("a line of JSON")
    }
}

#[track_caller]
fn emulate(server: &TestServer, connected: &Value, commands: &str) -> u16 {
    let request = json!({
        "session": connected["connect"]["session"], "node": connected["connect"]["node"], "data": commands,
    });
    http(server.address, post("/emulation", "", request.to_string().as_bytes())).status
}

#[test]
fn an_http_stream_says_each_reply_in_a_chunk_and_takes_commands_beside_it() {
    let server = TestServer::start();
    let mut stream = Chunks::open(&server, "/connection/http_stream", "", CONNECT);
    for (name, value) in [
        ("cache-control", "no-cache, no-store, no-transform, private"),
        ("x-accel-buffering", "no"),
        ("content-type", "application/x-ndjson"),
    ] {
        assert_eq!(stream.head.header(name), Some(value));
    }
    let connected = stream.value();
    assert_eq!(connected["id"], 1);
    assert_eq!(connected["connect"]["ping"], 25);
    assert_eq!(connected["connect"].get("pong"), None, "nobody can answer here but by a request");
    assert_eq!(emulate(&server, &connected, "{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}"), 204);
    assert_eq!(stream.value(), json!({"id": 2, "subscribe": {}}));
    server.publish("news", "Привет 🌍");
    // Escaped, for clients that decode what they read piece by piece; the same text all the same.
    assert_eq!(stream.value(), json!({"push": {"channel": "news", "pub": {"data": "Привет 🌍"}}}));
    let two = "{\"id\":3,\"publish\":{\"channel\":\"news\",\"data\":3}}\n{\"id\":4,\"unsubscribe\":{\"channel\":\"news\"}}";
    assert_eq!(emulate(&server, &connected, two), 204);
    let mut said: Vec<Value> = (0..3).map(|_| stream.value()).collect();
    said.sort_by_key(|value| value["id"].as_u64());
    assert_eq!(said[1..], [json!({"id": 3, "publish": {}}), json!({"id": 4, "unsubscribe": {}})]);
}

#[test]
fn sse_with_a_way_back_is_one_reply_an_event() {
    let server = TestServer::start();
    let mut events =
        Events::open(server.address, "/connection/sse?cf_connect=%7B%22id%22:1,%22connect%22:%7B%7D%7D", "");
    assert_eq!(events.head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let connected = events.next();
    assert_eq!((connected.name.as_str(), &connected.id), ("", &None));
    let connected = connected.value();
    assert_eq!(emulate(&server, &connected, "{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}"), 204);
    assert_eq!(events.next().value(), json!({"id": 2, "subscribe": {}}));
    server.publish("news", 1);
    assert_eq!(events.next().value(), json!({"push": {"channel": "news", "pub": {"data": 1}}}));
    // The same by POST.
    let mut link = Link::open(server.address);
    link.send(&post("/connection/sse", "", CONNECT.as_bytes()));
    assert_eq!(Events::on(link).next().value()["id"], 1);
}

#[test]
fn a_stream_ends_with_a_push_that_says_why() {
    let server = TestServer::start();
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, user_token("42"));
    let mut stream = Chunks::open(&server, "/connection/http_stream", "", &connect);
    stream.value();
    let mut bare = Chunks::open(
        &server,
        "/connection/uni_http_stream",
        "",
        &json!({"token": user_token("42")}).to_string(),
    );
    bare.value();
    server.api("disconnect", &json!({"user": "42"}));
    let last = json!({"disconnect": {"code": 3503, "reason": "force disconnect"}});
    assert_eq!(stream.value(), json!({"push": last}));
    assert_eq!(stream.chunk(), Ok(Vec::new()), "the last chunk");
    assert_eq!(stream.chunk(), Err(End::Closed));
    assert_eq!(bare.value(), last);
    assert_eq!(bare.chunk(), Ok(Vec::new()));
}

#[test]
fn a_refused_connect_is_a_reply_where_there_is_a_way_back_and_the_end_where_there_is_none() {
    let server = TestServer::start();
    let expired = crate::harness::token(&json!({"sub": "42", "exp": 1}));
    let connect = json!({"id": 1, "connect": {"token": expired}}).to_string();
    let mut stream = Chunks::open(&server, "/connection/http_stream", "", &connect);
    assert_eq!(stream.value(), json!({"id": 1, "error": {"code": 109, "message": "token expired"}}));
    let mut bare =
        Chunks::open(&server, "/connection/uni_http_stream", "", &json!({"token": expired}).to_string());
    assert_eq!(bare.value(), json!({"disconnect": {"code": 3005, "reason": "connection expired"}}));
    assert_eq!(bare.chunk(), Ok(Vec::new()));
    assert_eq!(bare.chunk(), Err(End::Closed));
}

#[test]
fn a_stream_without_a_way_back_says_bare_pushes() {
    let server = TestServer::start();
    let token = crate::harness::token(&json!({
        "sub": "42", "exp": crate::harness::in_seconds(600), "channels": ["kept:a"],
    }));
    server.publish("kept:a", 1);
    let top = server.api("history", &json!({"channel": "kept:a"}));
    let epoch = &top["result"]["epoch"];
    let request = json!({"token": token, "subs": {"kept:a": {"recover": true, "offset": 0, "epoch": epoch}}});
    let query = request.to_string().replace('"', "%22").replace('{', "%7B").replace('}', "%7D");
    let mut events = Events::open(server.address, &format!("/connection/uni_sse?cf_connect={query}"), "");
    let mut chunks = Chunks::open(&server, "/connection/uni_http_stream", "", &request.to_string());
    let mut frames = open_websocket(&server, &format!("/connection/uni_websocket?cf_connect={query}"));
    let mut later = open_websocket(&server, "/connection/uni_websocket");
    later.send(&request.to_string());
    for connected in [events.next().value(), chunks.value(), frames.value(), later.value()] {
        let connect = &connected["connect"];
        let recovered = &connect["subs"]["kept:a"];
        assert_eq!(
            (&recovered["recovered"], &recovered["publications"]),
            (&json!(true), &json!([{"data": 1, "offset": 1}]))
        );
        assert_eq!((connect["ping"].as_u64(), connect.get("pong")), (Some(25), None), "{connected}");
        assert!(connect["session"].is_string());
    }
    server.publish("kept:a", 2);
    let expected = json!({"channel": "kept:a", "pub": {"data": 2, "offset": 2}});
    assert_eq!(events.next().value(), expected);
    assert_eq!(chunks.value(), expected);
    assert_eq!(frames.value(), expected);
    // Whatever a client says here means nothing.
    later.send("{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}");
    assert_eq!(later.value(), expected);
    server.publish("kept:a", 3);
    assert_eq!(later.value()["pub"]["data"], 3, "and it is not answered");
    assert_eq!(frames.value()["pub"]["data"], 3);
    // Over WebSocket the end is said twice: for the program, and for the implementation.
    server.api("disconnect", &json!({"user": "42"}));
    assert_eq!(frames.value(), json!({"disconnect": {"code": 3503, "reason": "force disconnect"}}));
    frames.expect_close(CloseReason::ForceDisconnect);
}

#[track_caller]
fn open_websocket(server: &TestServer, path: &str) -> Raw {
    let request = handshake(server.address, "").replacen("/connection/websocket", path, 1);
    Raw::of_request(server.address, &request)
}

#[test]
fn ping_frames_stand_in_for_messages_where_the_client_wants_them() {
    let server = TestServer::with(|config| {
        config.heartbeat.interval = Duration::from_secs(1);
        config.heartbeat.timeout = Duration::from_millis(500);
        config.heartbeat.max_silence = Duration::from_secs(3);
    });
    let mut framed = open_websocket(&server, "/connection/websocket?cf_ws_frame_ping_pong=true");
    let connected = framed.connect("");
    assert_eq!((connected.get("ping"), connected.get("pong")), (None, None), "{connected}");
    let mut bare = open_websocket(&server, "/connection/uni_websocket?cf_connect={}");
    assert_eq!(bare.value()["connect"]["ping"], 1);
    assert_eq!(framed.next(), Received::Ping(Vec::new()));
    assert_eq!(bare.next(), Received::Ping(Vec::new()));
    assert_eq!(bare.next(), Received::Text("{}".to_owned()));
    // Neither answers, and both are taken for dead.
    server.await_close(CloseReason::NoHeartbeat);
    crate::harness::until("both to be cut", || server.closes(CloseReason::NoHeartbeat) == 2);
}

#[test]
fn what_is_sent_beside_a_stream_must_name_its_session() {
    let server = TestServer::start();
    let mut stream = Chunks::open(&server, "/connection/http_stream", "", CONNECT);
    let connected = stream.value();
    let session = connected["connect"]["session"].as_str().expect("a session").to_owned();
    let node = connected["connect"]["node"].clone();
    let ask = |body: &Value| {
        let response = http(server.address, post("/emulation", "", body.to_string().as_bytes()));
        (response.status, response.text())
    };
    let of = |session: &str| json!({"session": session, "node": node, "data": "{}"});
    let forged = format!("{}0", &session[..session.len() - 1]);
    let forged = if forged == session { format!("{}1", &session[..session.len() - 1]) } else { forged };
    assert_eq!(ask(&of(&forged)).0, 404);
    assert_eq!(ask(&of("")).0, 404);
    assert_eq!(ask(&json!({"session": session, "node": "another", "data": "{}"})).0, 404);
    let (status, text) = ask(&json!({"session": session, "node": node, "data": {"id": 2}}));
    assert!(status == 400 && text.contains("data"), "{text}");
    let (status, text) = ask(&json!({"session": session, "node": node}));
    assert!(status == 400 && text.contains("data"), "{text}");
    assert_eq!(ask(&json!({"session": session, "node": node, "data": "x".repeat(70_000)})).0, 413);
    // The session of one that has commands of its own is nobody's business.
    let mut raw = server.connect();
    assert_eq!(ask(&of(&session)).0, 204, "a pong, of all things");
    raw.expect_silence();
    assert_eq!(ask(&json!({"session": session, "node": node, "data": "nonsense"})).0, 204);
    assert_eq!(stream.value()["push"]["disconnect"]["code"], 3501);
    assert_eq!(ask(&of(&session)).0, 404, "it is gone");
}

#[test]
fn a_page_of_another_origin_may_ask_if_it_is_listed() {
    let server =
        TestServer::with(|config| config.server.allowed_origins = vec!["https://app.example".into()]);
    let preflight = |path: &str, origin: &str| {
        let request = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n"
        );
        http(server.address, request)
    };
    for path in ["/emulation", "/connection/http_stream", "/connection/sse", "/connection/uni_http_stream"] {
        let allowed = preflight(path, "https://app.example");
        assert_eq!(allowed.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "https://app.example"),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-headers", "content-type"),
            ("access-control-max-age", "300"),
        ] {
            assert_eq!(allowed.header(name), Some(value), "{path}");
        }
        assert_eq!(preflight(path, "https://evil.example").status, 403, "{path}");
    }
    let origin = "Origin: https://app.example\r\n";
    let mut stream = Chunks::open(&server, "/connection/http_stream", origin, CONNECT);
    assert_eq!(stream.head.header("access-control-allow-origin"), Some("https://app.example"));
    stream.value();
    let evil = post("/connection/http_stream", "Origin: https://evil.example\r\n", CONNECT.as_bytes());
    assert_eq!(http(server.address, evil).status, 403);
    let evil = post("/emulation", "Origin: https://evil.example\r\n", b"{}");
    assert_eq!(http(server.address, evil).status, 403);
}

#[test]
fn a_request_for_a_stream_may_come_in_pieces_in_chunks_and_on_a_used_connection() {
    let server = TestServer::start();
    // Byte by byte.
    let mut link = Link::open(server.address);
    for byte in post("/connection/http_stream", "", CONNECT.as_bytes()) {
        link.send(&[byte]);
    }
    assert_eq!(link.response().status, 200);
    // Behind another request, and in chunks.
    let mut link = Link::open(server.address);
    link.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(link.response().status, 200);
    link.send(
        b"POST /connection/http_stream HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          a\r\n{\"id\":1,\"c\r\nb\r\nonnect\":{}}\r\n0\r\n\r\n",
    );
    let head = link.response();
    assert_eq!(head.status, 200, "{}", head.head);
    assert_eq!(Chunks { link, head }.value()["id"], 1);
    // To a client of HTTP/1.0 the end of the connection is the end.
    let mut link = Link::open(server.address);
    link.send(
        b"POST /connection/http_stream HTTP/1.0\r\nContent-Length: 21\r\n\r\n{\"id\":1,\"connect\":{}}",
    );
    let head = link.response();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    assert!(link.take_up_to(b"\n").expect("a line").starts_with(b"{\"id\":1,"));
}

#[test]
fn what_asks_for_a_stream_in_a_wrong_way_is_told_so() {
    let server = TestServer::start();
    let large = "x".repeat(70_000);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    for (request, status, part) in [
        (post("/connection/http_stream", "", b""), 400, "connect command is missing"),
        (get("/connection/sse"), 400, "cf_connect"),
        (get("/connection/http_stream"), 405, "POST"),
        (get("/emulation"), 405, "POST"),
        (post("/connection/http_stream", "", large.as_bytes()), 413, "65536"),
        (get("/connection/uni_websocket"), 400, "upgrade"),
    ] {
        let response = http(server.address, &request);
        assert_eq!(response.status, status, "{}", response.head);
        assert!(response.text().contains(part), "{}", response.text());
    }
    let mut stream =
        Chunks::open(&server, "/connection/http_stream", "", "{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}");
    assert_eq!(stream.value()["push"]["disconnect"]["code"], 3501, "connect comes first");
}

#[test]
fn differences_come_over_every_transport_and_only_to_who_agreed() {
    let server = TestServer::with(|config| {
        let options = ChannelOptions {
            allowed_delta_types: vec!["fossil".to_owned()],
            delta_publish: true,
            force_recovery: true,
            ..crate::harness::remembering_channel(10)
        };
        config.namespaces.insert("delta".to_owned(), options);
    });
    let text = |n: u32| format!("{{\"long\":\"{}\",\"n\":{n}}}", "the same again and again ".repeat(20));
    let publish = |n: u32| server.publish("delta:a", serde_json::from_str::<Value>(&text(n)).expect("JSON"));
    let mut plain = server.connect();
    plain.subscribe("delta:a");
    let mut agreed = server.connect();
    let reply = agreed.ask_value(&json!({"id": 2, "subscribe": {"channel": "delta:a", "delta": "fossil"}}));
    assert_eq!(reply["subscribe"]["delta"], true);
    publish(1);
    publish(2);
    for n in 1..=2 {
        assert_eq!(plain.value()["push"]["pub"]["data"]["n"], n);
    }
    let first = agreed.value()["push"]["pub"].clone();
    assert_eq!((first.get("delta"), first["data"].as_str()), (None, Some(&*text(1))));
    let second = agreed.value()["push"]["pub"].clone();
    let delta = second["data"].as_str().expect("a text");
    assert!(second["delta"] == true && delta.len() < 60, "{second}");
    let made = longwire_protocol::fossil::apply(text(1).as_bytes(), delta.as_bytes(), 10_000);
    assert_eq!(made, Ok(text(2).into_bytes()));
    // A return brings the first whole, and each later one as the difference to the one before.
    let epoch = reply["subscribe"]["epoch"].clone();
    publish(3);
    let mut back = server.connect();
    let reply = back.ask_value(&json!({"id": 2, "subscribe": {
        "channel": "delta:a", "delta": "fossil", "recover": true, "offset": 1, "epoch": epoch,
    }}));
    let publications = reply["subscribe"]["publications"].as_array().expect("a list");
    assert_eq!(publications[0]["data"].as_str(), Some(&*text(2)));
    assert_eq!(publications[1]["delta"], true);
    publish(4);
    assert_eq!(back.value()["push"]["pub"]["delta"], true, "it has the one before");
}

#[test]
fn a_filter_lets_through_what_has_the_tags() {
    let server = TestServer::with(|config| {
        let options = ChannelOptions { allow_tags_filter: true, ..crate::harness::remembering_channel(10) };
        config.namespaces.insert("tagged".to_owned(), options);
    });
    let publish = |n: u32, lang: &str| {
        server.api("publish", &json!({"channel": "tagged:a", "data": n, "tags": {"lang": lang}}))
    };
    let filter = json!({"key": "lang", "cmp": "eq", "val": "en"});
    let mut raw = server.connect();
    let ask = json!({"channel": "tagged:a", "tf": filter, "recoverable": true});
    let reply = raw.ask_value(&json!({"id": 2, "subscribe": ask}));
    let epoch = reply["subscribe"]["epoch"].clone();
    publish(1, "de");
    publish(2, "en");
    publish(3, "de");
    publish(4, "en");
    for n in [2, 4] {
        assert_eq!(raw.value()["push"]["pub"]["data"], n);
    }
    raw.expect_silence();
    let mut back = server.connect();
    let reply = back.ask_value(&json!({"id": 2, "subscribe": {
        "channel": "tagged:a", "tf": filter, "recover": true, "recoverable": true, "offset": 2, "epoch": epoch,
    }}));
    let result = &reply["subscribe"];
    assert_eq!(
        (&result["recovered"], result["publications"].as_array().map(Vec::len)),
        (&json!(true), Some(1))
    );
    for (channel, tf, delta) in [
        ("kept:a", filter.clone(), ""),
        ("tagged:b", json!({"key": "lang", "cmp": "nonsense"}), ""),
        ("tagged:b", filter, "fossil"),
    ] {
        let ask = json!({"id": 9, "subscribe": {"channel": channel, "tf": tf, "delta": delta}});
        assert_eq!(server.connect().ask_value(&ask)["error"]["code"], 107, "{ask}");
    }
}

#[test]
fn a_cache_brings_the_newest_publication() {
    let server = TestServer::with(|config| {
        let options = ChannelOptions {
            force_recovery: true,
            force_recovery_mode: longwire::config::RecoveryMode::Cache,
            ..crate::harness::remembering_channel(10)
        };
        let automatic = ChannelOptions { auto_cache_recover: true, ..options.clone() };
        config.namespaces.insert("cache".to_owned(), options);
        config.namespaces.insert("automatic".to_owned(), automatic);
    });
    for channel in ["cache:a", "automatic:a"] {
        for n in 1..=3 {
            server.publish(channel, n);
        }
        let epoch = server.api("history", &json!({"channel": channel}))["result"]["epoch"].clone();
        let subscribe = |recover: Option<u64>| {
            let mut ask = json!({"channel": channel});
            if let Some(offset) = recover {
                ask["recover"] = true.into();
                ask["offset"] = offset.into();
                ask["epoch"] = epoch.clone();
            }
            server.connect().ask_value(&json!({"id": 2, "subscribe": ask}))["subscribe"].clone()
        };
        let newest = json!([{"data": 3, "offset": 3}]);
        let returned = subscribe(Some(1));
        assert_eq!(
            (&returned["recovered"], &returned["publications"], &returned["offset"]),
            (&json!(true), &newest, &json!(3))
        );
        let has_it = subscribe(Some(3));
        assert_eq!((&has_it["recovered"], has_it.get("publications")), (&json!(true), None));
        let first = subscribe(None);
        let is_automatic = channel == "automatic:a";
        assert_eq!(first.get("publications"), is_automatic.then_some(&newest), "{channel}");
        assert_eq!(first.get("was_recovering"), is_automatic.then_some(&json!(true)));
    }
}

#[test]
fn protobuf_is_spoken_where_it_is_asked_for() {
    // A command with id 1 and an empty connect, behind its length.
    const CONNECT: &[u8] = &[4, 0x08, 1, 0x22, 0];
    // id 2, subscribe to "news".
    const SUBSCRIBE: &[u8] = b"\x0a\x08\x02\x2a\x06\x0a\x04news";
    // The push of {"a":1} in "news": push (4) of channel (2) and pub (4) with its data (4).
    const PUSH: &[u8] = b"\x13\x22\x11\x12\x04news\x22\x09\x22\x07{\"a\":1}";
    let server = TestServer::start();
    let masked = |payload: &[u8]| {
        let mut frame = Vec::new();
        longwire_protocol::websocket::frame::encode(
            longwire_protocol::websocket::frame::Opcode::Binary,
            false,
            Some([1, 2, 3, 4]),
            payload,
            &mut frame,
        );
        frame
    };
    let mut by_protocol = Raw::open_with(server.address, "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n");
    let mut by_parameter = open_websocket(&server, "/connection/websocket?cf_protocol=protobuf");
    for raw in [&mut by_protocol, &mut by_parameter] {
        raw.send_bytes(&masked(&[CONNECT, SUBSCRIBE].concat()));
        let Received::Binary(connected) = raw.next() else { panic!("a reply is a binary message") };
        assert_eq!(connected[1..4], [0x08, 1, 0x2a], "id 1, connect");
        assert_eq!(raw.next(), Received::Binary(vec![4, 0x08, 2, 0x32, 0]), "id 2, subscribe");
    }
    let mut link = Link::open(server.address);
    link.send(&post("/connection/http_stream", "Content-Type: application/octet-stream\r\n", CONNECT));
    let head = link.response();
    assert_eq!(head.header("content-type"), Some("application/octet-stream"));
    let mut stream = Chunks { link, head };
    // With a session and a node to name, its length takes two bytes.
    assert_eq!(stream.chunk().map(|chunk| chunk[2..5].to_vec()), Ok(vec![0x08, 1, 0x2a]));
    server.api("publish", &json!({"channel": "news", "data": {"a": 1}}));
    assert_eq!(by_protocol.next(), Received::Binary(PUSH.to_vec()));
    assert_eq!(by_parameter.next(), Received::Binary(PUSH.to_vec()));
    // Text is not Protobuf.
    by_protocol.send("{\"id\":3}");
    by_protocol.expect_close(CloseReason::BadRequest);
}
