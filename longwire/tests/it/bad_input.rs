//! Malformed input of every kind against the running command: each ends in a named close, an error reply or
//! an HTTP error, within its time; nothing panics, and memory is where it was.
//!
//! The inputs are tables and systematic damage to well-formed bytes: every prefix, every byte replaced. What
//! still makes sense after the damage is answered, and does not count. The server is a process of its own,
//! so that its memory is nobody else's.

use crate::framing_suite::{self, End as CaseEnd, frame};
use crate::harness::{
    Binary, End, Link, Raw, Received, SECRET, WEBSOCKET, get, handshake, in_seconds, token,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the server ended an input.
type Outcome = Result<Verdict, String>;

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    /// A close frame with this code.
    Closed(u16),
    /// An error reply with this code; the connection lives.
    Refused(u64),
    /// An HTTP status of 400 or more.
    Status(u16),
    /// The damage left something that is allowed.
    Harmless,
}

/// A malformed input, ready to be sent.
struct Case {
    kind: &'static str,
    name: String,
    run: Box<dyn Fn(SocketAddr) -> Outcome + Send + Sync>,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        run: impl Fn(SocketAddr) -> Outcome + Send + Sync + 'static,
    ) {
        self.0.push(Case { kind, name: name.into(), run: Box::new(run) });
    }

    /// A request as bytes, whose answer must be a status.
    fn request(&mut self, kind: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        self.add(kind, name, move |server| answer_to_request(server, &bytes));
    }

    /// A text that is sent after a connect.
    fn command(&mut self, kind: &'static str, text: impl Into<Vec<u8>>) {
        let text = text.into();
        let name = String::from_utf8_lossy(&text).chars().take(100).collect::<String>();
        self.add(kind, name, move |server| {
            let mut raw = connected(server, "")?;
            raw.send_bytes(&frame(0x81, &text));
            // If it was harmless, the answer to this comes.
            raw.send(r#"{"id":999,"presence_stats":{"channel":"seen:a"}}"#);
            answer_on_websocket(&mut raw)
        });
    }

    /// A body for a method of the API.
    fn body(&mut self, method: &str, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let shown = String::from_utf8_lossy(&body).chars().take(100).collect::<String>();
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head.into_bytes(), body].concat();
        self.add("API body", format!("{method} {shown}"), move |server| {
            let mut link = Link::open(server);
            link.send(&bytes);
            let response = link.try_response().map_err(|end| format!("no response: {end:?}"))?;
            if response.status >= 400 {
                return Ok(Verdict::Status(response.status));
            }
            let answer: Value = serde_json::from_slice(&response.body).map_err(|error| error.to_string())?;
            Ok(answer["error"]["code"].as_u64().map_or(Verdict::Harmless, Verdict::Refused))
        });
    }
}

fn connected(server: SocketAddr, headers: &str) -> Result<Raw, String> {
    let mut raw = Raw::open_with(server, headers);
    raw.send(r#"{"id":1,"connect":{}}"#);
    match raw.next() {
        Received::Text(reply) if reply.starts_with(r#"{"id":1,"connect":"#) => Ok(raw),
        other => Err(format!("the connect was answered with {other:?}")),
    }
}

fn answer_to_request(server: SocketAddr, bytes: &[u8]) -> Outcome {
    let mut link = Link::open(server);
    link.send(bytes);
    let response = link.try_response().map_err(|end| format!("no response: {end:?}"))?;
    match response.status {
        400.. => Ok(Verdict::Status(response.status)),
        101 | 200 => Ok(Verdict::Harmless),
        other => Err(format!("status {other}")),
    }
}

/// What comes first: an error reply, a close, or the answer to the command 999.
fn answer_on_websocket(raw: &mut Raw) -> Outcome {
    loop {
        match raw.next() {
            Received::Text(text) => {
                let reply: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
                if let Some(code) = reply["error"]["code"].as_u64() {
                    return Ok(Verdict::Refused(code));
                }
                if reply["id"] == 999 {
                    return Ok(Verdict::Harmless);
                }
            }
            Received::Close(Some(code), reason) if !reason.is_empty() => return Ok(Verdict::Closed(code)),
            Received::Pong(_) => {}
            other => return Err(format!("neither a reply nor a named close but {other:?}")),
        }
    }
}

/// Violations of RFC 6455 and RFC 7692, as the first thing on a connection and after a connect.
fn frames(cases: &mut Cases) {
    for case in framing_suite::violations(65_536) {
        let CaseEnd::Violation(code) = case.end else { continue };
        let case = std::sync::Arc::new(case);
        let first = case.clone();
        cases.add("frame", case.name.clone(), move |server| {
            framing_suite::run_violation(&first, server, WEBSOCKET).map(|()| Verdict::Closed(code))
        });
        cases.add("frame after connect", case.name.clone(), move |server| {
            let offer = case.deflate_offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
            let mut raw = connected(server, &offer.unwrap_or_default())?;
            // One write, so that what is sent after the violation is noticed does no harm.
            raw.send_bytes(&case.pieces.concat());
            match answer_on_websocket(&mut raw)? {
                Verdict::Closed(closed) if closed == code => Ok(Verdict::Closed(code)),
                other => Err(format!("{other:?} instead of {code}")),
            }
        });
    }
    for (name, bytes) in [
        ("binary", frame(0x82, br#"{"id":2,"rpc":{}}"#)),
        ("empty", frame(0x81, b"")),
        ("http again", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; 1000]),
        ("ones", vec![0xFF; 1000]),
    ] {
        cases.add("frame after connect", name, move |server| {
            let mut raw = connected(server, "")?;
            raw.send_bytes(&bytes);
            answer_on_websocket(&mut raw)
        });
    }
}

/// Commands that are none, and well-formed ones damaged at every byte.
fn commands(cases: &mut Cases) {
    const GOOD: [&str; 6] = [
        r#"{"id":2,"subscribe":{"channel":"kept:a","recover":true,"offset":1,"epoch":"abcdefgh"}}"#,
        r#"{"id":2,"publish":{"channel":"news","data":{"a":[1,"x"]}}}"#,
        r#"{"id":2,"history":{"channel":"kept:a","limit":-1,"since":{"offset":1,"epoch":""}}}"#,
        r#"{"id":2,"presence":{"channel":"seen:a"}}"#,
        r#"{"id":2,"refresh":{"token":"x.y.z"}}"#,
        r#"{"id":2,"sub_refresh":{"channel":"news","token":"x"}}"#,
    ];
    for good in GOOD {
        for end in 1..good.len() {
            cases.command("command, cut off", &good[..end]);
        }
        for at in 0..good.len() {
            for byte in [b'"', b'{', 0x01] {
                let mut bad = good.as_bytes().to_vec();
                bad[at] = byte;
                cases.command("command, a byte replaced", bad);
            }
        }
    }
    for bad in [
        "null",
        "true",
        "0",
        "\"x\"",
        "[]",
        "[{}]",
        "{}{",
        "{}x",
        "{,}",
        "{\"id\":2,}",
        "{'id':2}",
        "{id:2}",
        "{\"id\":01,\"rpc\":{}}",
        "{\"id\":2.5,\"rpc\":{}}",
        "{\"id\":1e1,\"rpc\":{}}",
        "{\"id\":NaN,\"rpc\":{}}",
        "{\"id\":99999999999999999999,\"rpc\":{}}",
        "{\"id\":-2,\"rpc\":{}}",
        "{\"id\":null,\"subscribe\":{}}",
        "{\"id\":[],\"rpc\":{}}",
        "{\"id\":2,\"subscribe\":null}",
        "{\"id\":2,\"subscribe\":\"news\"}",
        "{\"id\":2,\"subscribe\":[]}",
        "{\"id\":2,\"subscribe\":{\"channel\":null}}",
        "{\"id\":2,\"subscribe\":{\"channel\":[\"a\"]}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"\\ud800\"}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"\\u0000\"}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"offset\":-1}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"offset\":18446744073709551616}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"offset\":\"1\"}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"epoch\":1}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"recover\":1}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"flag\":9223372036854775808}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"tf\":[]}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"delta\":\"gzip\"}}",
        "{\"id\":2,\"subscribe\":{\"channel\":\"a\",\"token\":{}}}",
        "{\"id\":2,\"history\":{\"channel\":\"kept:a\",\"limit\":2147483648}}",
        "{\"id\":2,\"history\":{\"channel\":\"kept:a\",\"limit\":\"all\"}}",
        "{\"id\":2,\"history\":{\"channel\":\"kept:a\",\"since\":7}}",
        "{\"id\":2,\"history\":{\"channel\":\"kept:a\",\"since\":{\"offset\":{}}}}",
        "{\"id\":2,\"history\":{\"channel\":\"kept:a\",\"reverse\":\"yes\"}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":01}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":\"\\x\"}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":\"\u{1}\"}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":[1,]}}",
        "{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":nul}}",
        "{\"id\":2,\"publish\":{\"channel\":\"new\nline\",\"data\":1}}",
        "{\"id\":2,\"publish\":{\"channel\":\"new\\nline\",\"data\":1}}",
        "{\"id\":2,\"publish\":{\"channel\":\"nowhere:a\",\"data\":1}}",
        "{\"id\":2,\"connect\":{}}",
        "{\"send\":{\"data\":1}}",
        "{\"id\":2,\"rpc\":{\"method\":1}}",
    ] {
        cases.command("command", bad);
    }
    for depth in [64, 100, 1_000, 30_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        cases.command(
            "command, deep",
            format!("{{\"id\":2,\"publish\":{{\"channel\":\"news\",\"data\":{deep}}}}}"),
        );
        cases.command("command, deep", "{\"a\":".repeat(depth.min(10_000)));
    }
    cases.command("command", "{}".repeat(30_000).replace("}{", "}x{"));
    cases.command("command", vec![b'{'; 60_000]);
    cases.command("command", [b"{\"id\":2,\"", &[b'\\'; 50_000][..]].concat());
    // Before a connect everything else is forbidden.
    for command in GOOD {
        cases.add("command before connect", command, move |server| {
            let mut raw = Raw::open(server);
            raw.send(command);
            answer_on_websocket(&mut raw)
        });
    }
    for subs in
        [r#""subs":7"#, r#""subs":{"a":7}"#, r#""subs":{"a":{"offset":"x"}}"#, r#""token":7"#, r#""name":[]"#]
    {
        cases.add("connect", subs, move |server| {
            let mut raw = Raw::open(server);
            raw.send(&format!("{{\"id\":1,\"connect\":{{{subs}}}}}"));
            answer_on_websocket(&mut raw)
        });
    }
    let many: Vec<String> = (0..2000).map(|n| format!("\"{n}\":{{}}")).collect();
    let many = format!("{{\"id\":1,\"connect\":{{\"subs\":{{{}}}}}}}", many.join(","));
    cases.add("connect", "2000 subs", move |server| {
        let mut raw = Raw::open(server);
        raw.send(&many);
        answer_on_websocket(&mut raw)
    });
}

/// Heads that are none, and well-formed ones damaged at every byte.
fn heads(cases: &mut Cases) {
    const HOST: &str = "127.0.0.1:8000";
    let goods = [
        format!(
            "GET {WEBSOCKET} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        format!("GET /sse?channels=news HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "POST /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            .to_owned(),
    ];
    for good in &goods {
        // The last bytes replaced make a head without an end: that takes the head's whole time.
        for at in 0..good.len() {
            for byte in [0x00, 0x80, b' ', b':'] {
                let mut bad = good.clone().into_bytes();
                bad[at] = byte;
                cases.request("head, a byte replaced", format!("{byte:#04x} at {at} of {good:?}"), bad);
            }
        }
    }
    let websocket =
        |change: fn(String) -> String| change(handshake("127.0.0.1:8000".parse().expect("valid"), ""));
    for (name, bytes) in [
        ("another version", websocket(|h| h.replace("Version: 13", "Version: 12"))),
        ("no version", websocket(|h| h.replace("Sec-WebSocket-Version: 13\r\n", ""))),
        (
            "two versions",
            websocket(|h| h.replace("Version: 13\r\n", "Version: 13\r\nSec-WebSocket-Version: 13\r\n")),
        ),
        ("no key", websocket(|h| h.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""))),
        ("a short key", websocket(|h| h.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"))),
        ("a long key", websocket(|h| h.replace("dGhlIHNhbXBsZSBub25jZQ==", &"A".repeat(400)))),
        (
            "a key that is no base64",
            websocket(|h| h.replace("dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ==")),
        ),
        ("no upgrade", websocket(|h| h.replace("Upgrade: websocket\r\n", ""))),
        ("another upgrade", websocket(|h| h.replace("Upgrade: websocket", "Upgrade: h2c"))),
        ("no connection", websocket(|h| h.replace("Connection: Upgrade\r\n", ""))),
        ("old HTTP", websocket(|h| h.replace("HTTP/1.1", "HTTP/1.0"))),
        ("a body", websocket(|h| h.replace("Upgrade: websocket", "Content-Length: 5\r\nUpgrade: websocket"))),
        (
            "chunks",
            websocket(|h| {
                h.replace("Upgrade: websocket", "Transfer-Encoding: chunked\r\nUpgrade: websocket")
            }),
        ),
        (
            "a foreign origin",
            websocket(|h| h.replace("Upgrade: websocket", "Origin: http://evil\r\nUpgrade: websocket")),
        ),
        (
            "two origins",
            websocket(|h| h.replace("Upgrade: websocket", "Origin: a\r\nOrigin: b\r\nUpgrade: websocket")),
        ),
        ("POST", websocket(|h| h.replace("GET ", "POST "))),
        (
            "a JSON connect for Protobuf",
            websocket(|h| {
                h.replace(WEBSOCKET, "/connection/uni_websocket?cf_protocol=protobuf&cf_connect={}")
            }),
        ),
    ] {
        cases.request("handshake", name, bytes);
    }
    let get = |fields: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let post = |fields: &str| format!("POST /api/info HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    for (name, text) in [
        ("nothing but an end", "\r\n\r\n\r\n\r\n".to_owned()),
        ("HTTP/0.9", "GET /\r\n\r\n".to_owned()),
        ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_owned()),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned()),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned()),
        ("SMTP", "EHLO me\r\n\r\n".to_owned()),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_owned()),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()),
        ("no target", "GET  HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a relative target", "GET health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a fourth word", "GET / x HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("no such path", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a path upwards", "GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("another method", "DELETE /health HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("a method that is none", "G@T / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        ("CONNECT", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n".to_owned()),
        ("a folded line", get("A: b\r\n c\r\n")),
        ("a blank before the colon", get("A : b\r\n")),
        ("a line without a colon", get("nonsense\r\n")),
        ("a name of nothing", get(": b\r\n")),
        ("a control character", get("A: \u{1}\r\n")),
        ("a lone carriage return", get("A: b\rC: d\r\n")),
        ("too many headers", get(&"A: b\r\n".repeat(200))),
        ("one long header", get(&format!("A: {}\r\n", "x".repeat(20_000)))),
        ("one long name", get(&format!("{}: b\r\n", "x".repeat(20_000)))),
        ("a long target", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000))),
        ("a head without end", format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(10_000))),
        ("a line without end", format!("GET /{}", "x".repeat(100_000))),
        ("length and chunks", post("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n")),
        ("two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n")),
        ("two lengths in one", post("Content-Length: 2, 3\r\n")),
        ("a negative length", post("Content-Length: -1\r\n")),
        ("a length with a plus", post("Content-Length: +2\r\n")),
        ("a length in hexadecimal", post("Content-Length: 0x2\r\n")),
        ("an enormous length", post("Content-Length: 99999999999999999999999\r\n")),
        ("a length beyond the limit", post("Content-Length: 2000000\r\n")),
        ("the largest length", post("Content-Length: 18446744073709551615\r\n")),
        ("a coding after chunks", post("Transfer-Encoding: chunked, gzip\r\n")),
        ("an unknown coding", post("Transfer-Encoding: gzip\r\n")),
        ("chunks twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        (
            "chunks in HTTP/1.0",
            "POST /api/info HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("GET of a method", "GET /api/info HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
        (
            "a foreign host",
            "POST /api/info HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
        ),
        ("a foreign page", post("Origin: http://evil.example\r\nContent-Length: 0\r\n")),
        ("a forwarded caller", post("X-Forwarded-For: 1.2.3.4\r\nContent-Length: 0\r\n")),
        (
            "a stream with a body",
            "GET /sse?channels=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        ),
    ] {
        cases.request("head", name, text);
    }
    for (name, bytes) in [
        ("TLS", [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 600], b"\r\n\r\n"].concat()),
        ("bytes above ASCII", b"GET /health HTTP/1.1\r\nHost: x\r\n\xff\xfe: \xff\r\n\r\n".to_vec()),
        ("a NUL in a value", b"GET /health HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n".to_vec()),
        ("noise", (0..4000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()),
    ] {
        cases.request("head", name, bytes);
    }
    for (name, chunks) in [
        ("a size that is no number", "xyz\r\n"),
        ("a negative size", "-1\r\n"),
        ("an enormous size", "fffffffffffffffff\r\n"),
        ("the largest size", "ffffffffffffffff\r\n{}"),
        ("no end of a chunk", "2\r\n{}0\r\n\r\n"),
        ("an extension without end", "2;"),
    ] {
        let head = post("Transfer-Encoding: chunked\r\n");
        let filler = if name.starts_with("an extension") { "x".repeat(100_000) } else { String::new() };
        cases.request("chunks", name, format!("{head}{chunks}{filler}"));
    }
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let bytes = format!("{}{}", post("Transfer-Encoding: chunked\r\n"), chunk.repeat(20));
    cases.request("chunks", "more than a body may have", bytes);
}

/// Requests that do not come to an end.
fn slow(cases: &mut Cases) {
    for (name, text) in [
        ("a letter", "G".to_owned()),
        ("half a head", "GET /health HTTP/1.1\r\nHost".to_owned()),
        ("a head without its last line", "GET /health HTTP/1.1\r\nHost: x\r\n".to_owned()),
        ("half a handshake", handshake("127.0.0.1:1".parse().expect("valid"), "")[..120].to_owned()),
        ("no body", "POST /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n".to_owned()),
        (
            "half a body",
            "POST /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{".to_owned(),
        ),
        (
            "no last chunk",
            "POST /api/info HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"
                .to_owned(),
        ),
    ] {
        cases.request("slow", name, text);
    }
    cases.add("slow", "a head letter by letter", |server| {
        let mut link = Link::open(server);
        link.limit(std::time::Duration::from_millis(50));
        // Never complete, never silent for long.
        for byte in b"GET /health HTTP/1.1\r\nA: ".iter().chain(std::iter::repeat_n(&b'x', 1000)) {
            link.send(&[*byte]);
            match link.try_response() {
                Ok(response) => return Ok(Verdict::Status(response.status)),
                Err(End::Nothing) => {}
                Err(end) => return Err(format!("{end:?} without a response")),
            }
        }
        Err("it was never told to stop".to_owned())
    });
    cases.add("slow", "a handshake and nothing more", |server| {
        let mut raw = Raw::open(server);
        answer_on_websocket(&mut raw)
    });
    cases.add("slow", "half a frame before a connect", |server| {
        let mut raw = Raw::open(server);
        raw.send_bytes(&frame(0x81, &[b' '; 1000])[..500]);
        answer_on_websocket(&mut raw)
    });
}

/// Bodies for every method of the API.
fn bodies(cases: &mut Cases) {
    const METHODS: [(&str, &str); 14] = [
        ("publish", r#"{"channel":"news","data":{"a":1},"tags":{"k":"v"}}"#),
        ("broadcast", r#"{"channels":["a","b"],"data":1}"#),
        ("subscribe", r#"{"user":"42","channel":"a","recover_since":{"offset":1,"epoch":"x"}}"#),
        ("unsubscribe", r#"{"user":"42","channel":"a"}"#),
        ("disconnect", r#"{"user":"42","disconnect":{"code":4000,"reason":"x"}}"#),
        ("refresh", r#"{"user":"42","expire_at":1}"#),
        ("presence", r#"{"channel":"seen:a"}"#),
        ("presence_stats", r#"{"channel":"seen:a"}"#),
        ("history", r#"{"channel":"kept:a","limit":1,"since":{"offset":1,"epoch":"x"}}"#),
        ("history_remove", r#"{"channel":"kept:a"}"#),
        ("channels", r#"{"pattern":"*"}"#),
        ("info", r#"{"x":1}"#),
        ("rpc", r#"{"method":"x"}"#),
        ("batch", r#"{"commands":[{"publish":{"channel":"a","data":1}}]}"#),
    ];
    for (method, good) in METHODS {
        for end in 1..good.len() {
            cases.body(method, &good[..end]);
        }
        for bad in [
            "",
            "null",
            "1",
            "\"x\"",
            "[1]",
            "{",
            "{\"channel\":1}",
            "{\"user\":{}}",
            "{}{}",
            "\u{feff}{}",
            "{\"a\":\u{1}}",
        ] {
            cases.body(method, bad);
        }
        cases.body(method, b"\xff\xfe{\x00}\x00".to_vec());
        cases.body(method, "[".repeat(100_000));
        cases.body(method, format!("{{\"data\":{}{}}}", "[".repeat(1000), "]".repeat(1000)));
        cases.body(method, vec![b' '; 2_000_000]);
    }
    for (method, bad) in [
        ("publish", r#"{"channel":"news","data":"x","b64data":"*"}"#),
        ("publish", r#"{"channel":"news","b64data":"bm90IGpzb24="}"#),
        ("publish", r#"{"channel":"news","data":1,"tags":{"a":1}}"#),
        ("publish", r#"{"channel":"news"}"#),
        ("publish", r#"{"channel":"","data":1}"#),
        ("publish", r#"{"channel":"nowhere:a","data":1}"#),
        ("publish", r#"{"channel":"caf\u00e9","data":1}"#),
        ("publish", r#"{"channel":"a","data":1,"delta":true}"#),
        ("publish", r#"{"channel":"a","data":1,"version":-1}"#),
        ("broadcast", r#"{"channels":[],"data":1}"#),
        ("broadcast", r#"{"channels":"a","data":1}"#),
        ("broadcast", r#"{"channels":[1],"data":1}"#),
        ("disconnect", r#"{"user":"42","disconnect":{"code":1006}}"#),
        ("disconnect", r#"{"user":"42","disconnect":{"code":-1}}"#),
        ("disconnect", r#"{"user":"42","disconnect":{"code":70000}}"#),
        ("subscribe", r#"{"user":"42","channel":"a","expire_at":"soon"}"#),
        ("history", r#"{"channel":"news"}"#),
        ("history", r#"{"channel":"kept:a","limit":3000000000}"#),
        ("presence", r#"{"channel":"news"}"#),
        ("batch", r#"{"commands":[1]}"#),
        ("batch", r#"{"commands":{"publish":{}}}"#),
        ("batch", r#"{"commands":[{"publish":1}]}"#),
        ("nothing", "{}"),
        ("", "{}"),
        ("publish/", "{}"),
    ] {
        cases.body(method, bad);
    }
    let many: Vec<String> = (0..1001).map(|n| format!("\"c{n}\"")).collect();
    cases.body("broadcast", format!("{{\"channels\":[{}],\"data\":1}}", many.join(",")));
}

/// Tokens that are none: for connections, for subscriptions, and for positions.
fn tokens(cases: &mut Cases) {
    let claims = json!({"sub": "42", "exp": in_seconds(3600)});
    let good = token(&claims);
    let good_subscription = token(&json!({"sub": "", "channel": "$news", "exp": in_seconds(3600)}));
    let mut connection: Vec<String> =
        ["x", ".", "..", "a.b.c", "null", "{}", " ", "\u{1f512}.\u{1f512}.\u{1f512}"]
            .map(str::to_owned)
            .to_vec();
    let mut subscription = connection.clone();
    for (bad, good) in [(&mut connection, &good), (&mut subscription, &good_subscription)] {
        bad.extend((1..good.len()).step_by(3).map(|end| good[..end].to_owned()));
        for at in (0..good.len()).step_by(3) {
            let replaced = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
            bad.push(format!("{}{replaced}{}", &good[..at], &good[at + 1..]));
        }
        bad.push(format!("{good}."));
        bad.push(format!("{good}.x"));
        bad.push(format!("Bearer {good}"));
        bad.push("x".repeat(50_000));
        bad.push(format!("{}.{}.{}", "A".repeat(10_000), "A".repeat(10_000), "A".repeat(10_000)));
    }
    // {"alg":"none"}
    connection.push(format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims")));
    for wrong in [
        json!({"sub": "42"}),
        json!({"sub": 42, "exp": in_seconds(60)}),
        json!({"sub": "42", "exp": "soon"}),
        json!({"sub": "42", "exp": in_seconds(60), "channels": "a"}),
        json!({"sub": "42", "exp": in_seconds(60), "subs": {"a": 1}}),
        json!({"sub": "42", "exp": in_seconds(60), "b64info": "*"}),
        json!({"sub": "42", "exp": in_seconds(60), "channel": "a"}),
        json!({"sub": "42", "exp": in_seconds(-1)}),
        json!({"sub": "42", "exp": in_seconds(60), "channels": ["nowhere:a"]}),
        json!({"sub": "42", "exp": in_seconds(60), "channels": ["caf\u{e9}"]}),
    ] {
        connection.push(token(&wrong));
        subscription.push(token(&wrong));
    }
    for bad in connection {
        let command = json!({"id": 1, "connect": {"token": bad}}).to_string();
        cases.add("connection token", bad.chars().take(80).collect::<String>(), move |server| {
            let mut raw = Raw::open(server);
            raw.send(&command);
            raw.send(r#"{"id":999,"presence_stats":{"channel":"seen:a"}}"#);
            answer_on_websocket(&mut raw)
        });
    }
    for bad in subscription {
        cases.command(
            "subscription token",
            json!({"id": 2, "subscribe": {"channel": "$news", "token": bad}}).to_string(),
        );
    }
    let good = "kept:a=7.abcdefgh,news=0.zyxwvuts";
    let mut positions: Vec<String> = (1..good.len()).map(|end| good[..end].to_owned()).collect();
    for at in 0..good.len() {
        for byte in ["%00", "=", "%25", ".", "%ff"] {
            positions.push(format!("{}{byte}{}", &good[..at], &good[at + 1..]));
        }
    }
    positions.extend([
        "a=1.".to_owned(),
        "a=18446744073709551616.abcdefgh".to_owned(),
        "a=-1.abcdefgh".to_owned(),
        "a=1.abcdefgh,a=1.abcdefgh".to_owned(),
        "%2525".to_owned(),
        (0..200).map(|n| format!("c{n}=1.abcdefgh")).collect::<Vec<_>>().join(","),
    ]);
    for bad in positions {
        cases.add("position token", bad.clone(), move |server| {
            let response = get(server, &format!("/sse?channels=kept:a&since={bad}"), "");
            Ok(if response.status >= 400 { Verdict::Status(response.status) } else { Verdict::Harmless })
        });
    }
}

/// Memory of a process that is really there, in KiB.
pub(crate) fn resident_kib(process: u32) -> usize {
    let statm = std::fs::read_to_string(format!("/proc/{process}/statm")).expect("the process lives");
    let pages: usize = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4
}

/// Runs cases, a few at a time; what each came to, and what failed.
fn run(cases: &[&Case], server: SocketAddr) -> (BTreeMap<(&'static str, Verdict), usize>, Vec<String>) {
    let next = AtomicUsize::new(0);
    let (counts, failures) = (Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(server)))
                            .unwrap_or_else(|_| Err("the client gave up".to_owned()));
                    match outcome {
                        Ok(verdict) => {
                            *counts.lock().expect("whole").entry((case.kind, verdict)).or_insert(0) += 1;
                        }
                        Err(what) => {
                            failures
                                .lock()
                                .expect("whole")
                                .push(format!("{}: {}: {what}", case.kind, case.name));
                        }
                    }
                }
            });
        }
    });
    (counts.into_inner().expect("whole"), failures.into_inner().expect("whole"))
}

#[test]
fn malformed_input_ends_in_a_named_close_or_an_error_and_leaves_nothing_behind() {
    let (mut server, address) = Binary::serve(&[
        "--client.allow-anonymous",
        "--client.connect-timeout=2s",
        "--auth.hmac-secret",
        SECRET,
        "--websocket.compression",
        "--http.head-timeout=1s",
        "--http.body-timeout=1s",
        "--server.drain-over=0s",
        "--log.level=warn,longwire::server=info",
        "--channel.allow-subscribe-for-client",
        "--channel.allow-subscribe-for-anonymous",
        "--channel.allow-publish-for-client",
        "--channel.allow-publish-for-anonymous",
        "--namespaces.kept.history-size=10",
        "--namespaces.kept.history-ttl=1m",
        "--namespaces.kept.allow-recovery",
        "--namespaces.kept.allow-subscribe-for-client",
        "--namespaces.kept.allow-subscribe-for-anonymous",
        "--namespaces.kept.allow-history-for-client",
        "--namespaces.kept.allow-history-for-anonymous",
        "--namespaces.seen.presence",
        "--namespaces.seen.allow-presence-for-client",
        "--namespaces.seen.allow-presence-for-anonymous",
    ]);
    let mut cases = Cases::default();
    for add in [frames, commands, heads, slow, bodies, tokens] {
        add(&mut cases);
    }
    let all: Vec<&Case> = cases.0.iter().collect();
    // Buffers and tables reach their size in the first round; what the second adds would be added for ever.
    let (counts, mut failures) = run(&all, address);
    let before = resident_kib(server.id());
    failures.extend(run(&all, address).1);
    let after = resident_kib(server.id());

    let mut malformed = 0;
    for ((kind, verdict), count) in &counts {
        println!("{count:5} {kind}: {verdict:?}");
        if *verdict != Verdict::Harmless {
            malformed += count;
        }
    }
    println!(
        "{malformed} malformed inputs, twice; memory after the first round {before} KiB, after the second {after} KiB"
    );
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(malformed >= 1000, "{malformed}");
    assert!(after < before + 4 * 1024, "memory grew from {before} KiB to {after} KiB");

    // It serves as before, and nobody is left in it.
    let mut raw = Raw::open(address);
    raw.connect("");
    raw.subscribe("news");
    crate::harness::until("everybody else to be gone", || {
        let info = crate::harness::api(address, "info", &json!({}));
        info["result"]["nodes"][0]["num_clients"] == 1 && info["result"]["nodes"][0]["num_subs"] == 1
    });
    drop(raw);
    let lines = server.stderr().lines();
    let loud: Vec<&String> =
        lines.iter().filter(|line| line.contains("panicked") || line.contains("\"ERROR\"")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}
