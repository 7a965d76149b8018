//! What every transport of the plain dialect refuses, and how it says that.

use super::{upgrade, websocket};
use crate::framing_suite::frame;
use crate::harness::{End, Link, TestServer, get, http};
use longwire_protocol::CloseReason;

/// A request for one of the four paths; the handshake's headers mean nothing to the other three.
fn ask(server: &TestServer, target: &str, headers: &str) -> crate::harness::Response {
    http(server.address, upgrade(server.address, target, headers))
}

#[test]
fn a_wrong_parameter_is_named_whichever_transport_is_asked_for() {
    let server = TestServer::start();
    let many: Vec<String> = (0..129).map(|n| format!("c{n}")).collect();
    let wide: Vec<String> = (0..60).map(|n| format!("{n}{}", "x".repeat(240))).collect();
    for path in ["/ws", "/sse", "/stream", "/poll"] {
        for (query, said) in [
            ("channels=a&since=7", "the parameter \"since\" is no position token"),
            ("channels=a&since=a=x.abcdefgh", "at byte 2"),
            (
                "channels=a&since=a=1.abcdefgh&since=a=2.abcdefgh",
                "the parameter \"since\" stands there twice",
            ),
            ("channels=a&token=x&token=y", "the parameter \"token\" stands there twice"),
            ("channels=a&client=x&client=x", "the parameter \"client\" stands there twice"),
            (&format!("channels=a&client={}", "x".repeat(256)), "the parameter \"client\""),
            ("channels=a&client=a%0Ab", "the parameter \"client\""),
            ("channels=a,a", "channel 2 is named twice"),
            ("channels=a&channel=b%20c", "the name of channel 2"),
            ("channel=", "the name of channel 1"),
            (&format!("channels={}", many.join(",")), "129 channels"),
            (&format!("channels={}", wide.join(",")), "too long together"),
        ] {
            let response = ask(&server, &format!("{path}?{query}"), "");
            assert_eq!(response.status, 400, "{path}?{query}: {}", response.text());
            assert!(response.text().contains(said), "{path}?{query}: {}", response.text());
            assert_eq!(response.header("connection"), Some("close"), "{path}?{query}");
        }
    }
    for (target, said) in [
        ("/ws?format=xml", "the parameter \"format\""),
        ("/stream?format=", "the parameter \"format\""),
        ("/poll?wait=soon", "the parameter \"wait\""),
        ("/poll?wait=-1", "the parameter \"wait\""),
        ("/poll?wait=1.5", "the parameter \"wait\""),
        ("/poll?wait=99999999999", "the parameter \"wait\""),
        ("/poll?wait=1&wait=1", "the parameter \"wait\" stands there twice"),
    ] {
        let response = ask(&server, target, "");
        assert_eq!(response.status, 400, "{target}: {}", response.text());
        assert!(response.text().contains(said), "{target}: {}", response.text());
    }
}

#[test]
fn parameters_of_a_pages_own_mean_nothing_here() {
    let server = TestServer::start();
    for target in [
        "/sse?channels=a&wait=soon&format=xml&x=1",
        "/stream?channels=a&wait=soon&room=1&room=2",
        "/poll?channels=a&format=xml",
        "/ws?channels=a&wait=soon",
    ] {
        let response = ask(&server, target, "");
        assert!(matches!(response.status, 101 | 200), "{target}: {} {}", response.head, response.text());
    }
}

#[test]
fn another_method_is_answered_with_those_that_are_possible() {
    let server = TestServer::start();
    for (path, allowed) in
        [("/ws", "GET"), ("/sse", "GET, OPTIONS"), ("/stream", "GET, OPTIONS"), ("/poll", "GET, OPTIONS")]
    {
        for method in ["HEAD", "POST", "PUT", "DELETE"] {
            let request =
                format!("{method} {path}?channels=a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let mut link = Link::open(server.address);
            link.send(request.as_bytes());
            // The body of an answer to HEAD is only announced.
            let head = link.take_up_to(b"\r\n\r\n").expect("a head");
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            assert!(head.starts_with("http/1.1 405 "), "{method} {path}: {head}");
            assert!(head.contains(&format!("\r\nallow: {}\r\n", allowed.to_ascii_lowercase())), "{head}");
        }
        let request = format!("GET {path}?channels=a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(http(server.address, request).status, 400, "{path} with a body");
    }
}

#[test]
fn a_page_may_ask_first_whether_it_may_ask() {
    let server = TestServer::with(|config| {
        config.server.allowed_origins = vec!["https://app.example".to_owned()];
    });
    for path in ["/sse", "/stream", "/poll", "/send"] {
        let ask = |origin: &str| {
            let request = format!(
                "OPTIONS {path}?channels=a HTTP/1.1\r\nHost: x\r\nOrigin: {origin}\r\nConnection: close\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
            );
            http(server.address, request)
        };
        let allowed = ask("https://app.example");
        assert_eq!(allowed.status, 204, "{path}: {}", allowed.text());
        assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"), "{path}");
        assert_eq!(allowed.header("access-control-allow-headers"), Some("authorization"), "{path}");
        assert_eq!(ask("https://evil.example").status, 403, "{path}");
    }
}

#[test]
fn a_broken_handshake_is_refused_with_its_rule() {
    let server = TestServer::start();
    for (target, status, said) in [
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 400, "upgrade"),
        (
            "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            426,
            "version must be 13",
        ),
    ] {
        let response = http(server.address, target);
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.text().contains(said), "{}", response.text());
    }
}

#[test]
fn what_breaks_the_rules_of_frames_is_closed_with_a_name() {
    let server = TestServer::with(|config| config.websocket.max_message_bytes = 1000);
    for (bytes, reason) in [
        // A frame that announces eight exabytes.
        (vec![0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], CloseReason::MessageTooBig),
        (frame(0x82, &[0; 1001]), CloseReason::MessageTooBig),
        // Not masked.
        (vec![0x81, 0x01, b'x'], CloseReason::ProtocolError),
        // A reserved opcode.
        (frame(0x83, b"x"), CloseReason::ProtocolError),
        (frame(0x81, &[0xFF]), CloseReason::InvalidPayload),
    ] {
        let mut socket = websocket(&server, "channels=news");
        socket.value();
        socket.send_bytes(&bytes);
        socket.expect_close(reason);
    }
}

#[test]
fn an_address_that_opens_too_fast_is_told_when_to_come_back() {
    let server = TestServer::with(|config| {
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 1;
        // Loopback is exempt; this is who a proxy speaks for.
        config.server.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    });
    let from = "X-Forwarded-For: 192.0.2.7\r\n";
    assert_eq!(get(server.address, "/poll?channels=news", from).status, 200);
    for path in ["/sse", "/stream", "/poll"] {
        let refused = get(server.address, &format!("{path}?channels=news"), from);
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{path}");
    }
}

#[test]
fn who_polls_again_on_its_connection_opens_nothing_if_it_says_its_name() {
    let server = TestServer::with(|config| {
        config.server.connects_per_second_per_ip = 1;
        config.server.connect_burst_per_ip = 2;
        config.server.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    });
    let mut link = Link::open(server.address);
    let mut poll = |query: &str| {
        let request = format!("GET /poll?{query} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
        link.send(request.as_bytes());
        link.response().status
    };
    assert_eq!(poll("channels=news&client=device-42"), 200);
    for _ in 0..30 {
        assert_eq!(poll("channels=news&client=device-42&wait=0"), 200);
    }
    // Without a name it is a new client each time.
    assert!((0..30).any(|_| poll("channels=news") == 429));
}

#[test]
fn a_reader_that_does_not_read_is_cut_whatever_carries_it() {
    let server = TestServer::with(|config| {
        config.client.max_outbox_bytes = 256 * 1024;
        config.client.write_timeout = std::time::Duration::from_secs(60);
        config.plain.grace = std::time::Duration::ZERO;
    });
    let data = "x".repeat(100_000);
    for (number, target) in ["/ws?channels=news", "/stream?channels=news"].into_iter().enumerate() {
        let mut link = Link::open(server.address);
        link.send(upgrade(server.address, target, "").as_bytes());
        assert!(matches!(link.response().status, 101 | 200));
        crate::harness::until("the reader to be cut", || {
            server.publish("news", data.as_str());
            server.closes(CloseReason::Slow) > number as u64
        });
        assert_eq!(link.await_end(), End::Reset, "{target}");
    }
}
