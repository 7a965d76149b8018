//! STOMP over WebSocket: subprotocols, text and binary, frames that are not messages, and how it closes.

use super::Broker;
use super::client::{Client, Incoming, Way};
use crate::framing_suite;
use crate::harness::{End, Link, Raw, Received, Response, upgrade};
use longwire_protocol::CloseReason;

const CONNECT: &str = "CONNECT\naccept-version:1.2\nhost:a\n\n\0";

/// Asks for a WebSocket with these subprotocols; the answer.
fn answer(broker: &Broker, path: &str, offered: &str) -> (Link, Response) {
    let mut link = Link::open(broker.server.address);
    let header = match offered {
        "" => String::new(),
        offered => format!("Sec-WebSocket-Protocol: {offered}\r\n"),
    };
    link.send(upgrade(broker.server.address, path, &header).as_bytes());
    let response = link.response();
    (link, response)
}

macro_rules! subprotocols {
    ($($name:ident: $path:literal $offered:literal => $chosen:expr;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let (link, response) = answer(&broker, $path, $offered);
            assert_eq!(response.status, 101, "{}", response.head);
            let chosen: Option<&str> = $chosen;
            assert_eq!(response.header("sec-websocket-protocol"), chosen);
            let mut raw = Raw { link, client: String::new() };
            raw.send(CONNECT);
            assert!(raw.line().starts_with("CONNECTED\n"));
        }
    )+};
}

subprotocols! {
    the_highest_subprotocol_is_chosen: "/stomp" "v10.stomp, v11.stomp, v12.stomp" => Some("v12.stomp");
    a_lower_subprotocol_is_chosen_if_it_is_the_best: "/stomp" "v10.stomp,v11.stomp" => Some("v11.stomp");
    the_lowest_subprotocol_may_be_all: "/stomp" "v10.stomp" => Some("v10.stomp");
    an_unknown_subprotocol_is_not_answered: "/stomp" "chat" => None;
    a_known_subprotocol_among_unknown_ones_is_chosen: "/stomp" "chat, v11.stomp, mqtt" => Some("v11.stomp");
    without_a_subprotocol_it_is_stomp_all_the_same: "/stomp" "" => None;
    the_path_of_sockjs_clients_is_served: "/stomp/websocket" "v12.stomp" => Some("v12.stomp");
    the_path_of_rabbitmq_clients_is_served: "/ws" "v10.stomp, v11.stomp, v12.stomp" => Some("v12.stomp");
}

#[test]
fn without_a_subprotocol_of_stomp_ws_is_what_it_was() {
    let broker = Broker::start();
    let (link, response) = answer(&broker, "/ws?channels=news", "");
    assert_eq!(response.status, 101);
    let mut raw = Raw { link, client: String::new() };
    assert_eq!(raw.value()["type"], "subscribed");
}

#[test]
fn a_foreign_origin_is_refused() {
    let broker = Broker::start();
    let mut link = Link::open(broker.server.address);
    let request = upgrade(broker.server.address, "/stomp", "Origin: https://evil.example\r\n");
    link.send(request.as_bytes());
    assert_eq!(link.response().status, 403);
}

/// Asks for a WebSocket as a proxy on this machine does, and connects without a login.
fn by_proxy(broker: &Broker, header: &str) -> Client {
    let headers = format!("Sec-WebSocket-Protocol: v12.stomp\r\n{header}");
    let request = upgrade(broker.server.address, "/stomp", &headers);
    let raw = Box::new(Raw::of_request(broker.server.address, &request));
    let mut client = Client::over(Way::WebSocket { raw, is_binary: false });
    client.raw(CONNECT);
    client
}

#[test]
fn a_proxy_on_this_machine_makes_nobody_anonymous_unless_it_is_trusted() {
    let broker = Broker::start();
    for header in ["X-Forwarded-For: 192.0.2.1\r\n", "Forwarded: for=127.0.0.1\r\n"] {
        let error = by_proxy(&broker, header).error();
        assert!(error.get("message").contains("server.trusted_proxies"), "{error:?}");
    }
    assert_eq!(by_proxy(&broker, "").frame().command, "CONNECTED");

    let broker = Broker::changed(|config| config.server.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]);
    let here = by_proxy(&broker, "X-Forwarded-For: 127.0.0.1\r\n").frame();
    assert_eq!(here.command, "CONNECTED");
    let error = by_proxy(&broker, "X-Forwarded-For: 192.0.2.1\r\n").error();
    assert_eq!(error.get("message"), "login and passcode are needed");
}

fn text(broker: &Broker) -> Client {
    let mut client = Client::websocket(broker.server.address, "/stomp", false);
    client.connect("1.2", &[]);
    client
}

fn raw(client: &mut Client) -> &mut Raw {
    match &mut client.way {
        Way::WebSocket { raw, .. } => raw,
        Way::Tcp(_) => panic!("no WebSocket"),
    }
}

#[test]
fn queues_and_topics_work_over_websocket() {
    let broker = Broker::start();
    for is_binary in [false, true] {
        for version in ["1.0", "1.1", "1.2"] {
            let mut client = Client::websocket(broker.server.address, "/stomp", is_binary);
            client.connect(version, &[]);
            client.subscribe("q", "/queue/a", "client");
            client.subscribe("t", "/topic/a", "auto");
            client.put_with("/queue/a", &[("k", "v")], "to the queue");
            let message = client.message();
            assert_eq!((message.text(), message.get("k")), ("to the queue".to_owned(), "v"));
            client.ack(&message);
            client.put("/topic/a", "to the topic");
            assert_eq!(client.message().get("subscription"), "t");
            client.disconnect();
        }
    }
}

#[test]
fn over_tcp_and_websocket_it_is_one_broker() {
    let broker = Broker::start();
    let (mut tcp, mut web) = (broker.connect(), text(&broker));
    web.subscribe("1", "/queue/a", "auto");
    tcp.subscribe("1", "/topic/b", "auto");
    tcp.put("/queue/a", "from tcp");
    assert_eq!(web.message().text(), "from tcp");
    web.put("/topic/b", "from the web");
    assert_eq!(tcp.message().text(), "from the web");
}

#[test]
fn text_is_answered_with_text() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.put("/queue/a", "grüße");
    client.write("SUBSCRIBE", &[("id", "1"), ("destination", "/queue/a")], b"");
    match raw(&mut client).next() {
        Received::Text(frame) => {
            assert!(frame.starts_with("MESSAGE\n") && frame.ends_with("grüße\0"), "{frame}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn binary_is_answered_with_binary() {
    let broker = Broker::start();
    let mut client = Client::websocket(broker.server.address, "/stomp", true);
    client.write("CONNECT", &[("accept-version", "1.2"), ("host", "a")], b"");
    match raw(&mut client).next() {
        Received::Binary(frame) => assert!(frame.starts_with(b"CONNECTED\n") && frame.ends_with(b"\0")),
        other => panic!("{other:?}"),
    }
    client.write("SEND", &[("destination", "/queue/a"), ("receipt", "r")], b"x");
    assert!(matches!(raw(&mut client).next(), Received::Binary(_)));
}

#[test]
fn what_is_no_text_comes_as_binary_although_the_client_writes_text() {
    let broker = Broker::start();
    let mut sender = broker.connect();
    let mut client = text(&broker);
    for destination in ["/queue/a", "/topic/a"] {
        client.subscribe(destination, destination, "auto");
        sender.put(destination, b"\xFF\xFE\0");
        match raw(&mut client).next() {
            Received::Binary(frame) => assert!(frame.ends_with(b"\xFF\xFE\0\0")),
            other => panic!("{other:?}"),
        }
        sender.put(destination, "text again");
        assert!(matches!(raw(&mut client).next(), Received::Text(_)));
    }
}

#[test]
fn a_frame_may_come_in_many_messages() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.subscribe("1", "/queue/a", "auto");
    for byte in "SEND\ndestination:/queue/a\nreceipt:r\n\nbyte by byte\0".bytes() {
        client.raw([byte]);
    }
    client.receipt("r");
    assert_eq!(client.message().text(), "byte by byte");
}

#[test]
fn many_frames_may_come_in_one_message() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.raw(
        "\nSEND\ndestination:/queue/a\nreceipt:1\n\nx\0\nSEND\ndestination:/queue/a\nreceipt:2\n\ny\0\n\
         SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:3\n\n\0SEND\ndestin",
    );
    for receipt in ["1", "2", "3"] {
        client.receipt(receipt);
    }
    client.raw("ation:/queue/b\nreceipt:4\n\nz\0");
    client.receipt("4");
    assert_eq!(client.bodies(2), ["x", "y"]);
}

#[test]
fn a_message_may_be_fragmented() {
    let broker = Broker::start();
    let mut client = text(&broker);
    let frame = "SEND\ndestination:/queue/a\nreceipt:r\n\ngrüße\0".as_bytes();
    // In the middle of the `ü`, and with a ping between.
    let at = frame.len() - 5;
    let (head, tail) = frame.split_at(at);
    let raw = raw(&mut client);
    raw.send_bytes(&framing_suite::frame(0x01, head));
    raw.send_bytes(&framing_suite::frame(0x89, b"ping"));
    raw.send_bytes(&framing_suite::frame(0x80, tail));
    assert_eq!(raw.next(), Received::Pong(b"ping".to_vec()));
    client.receipt("r");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().text(), "grüße");
}

#[test]
fn each_message_of_the_server_is_one_frame() {
    let broker = Broker::start();
    let mut client = text(&broker);
    for n in 0..20 {
        client.write("SEND", &[("destination", "/queue/a"), ("receipt", &n.to_string())], b"x");
    }
    for n in 0..20 {
        let line = raw(&mut client).line();
        assert!(line.starts_with("RECEIPT\n") && line.ends_with('\0'), "{line:?}");
        assert_eq!(line.matches('\0').count(), 1);
        assert!(line.contains(&format!("receipt-id:{n}\n")), "{line:?}");
    }
}

#[test]
fn a_beat_is_a_message_of_one_line_feed() {
    let broker = Broker::start();
    let mut client = Client::websocket(broker.server.address, "/stomp", false);
    client.connect("1.2", &[("heart-beat", "0,1000")]);
    assert_eq!(raw(&mut client).next(), Received::Text("\n".to_owned()));
    assert_eq!(client.next(), Incoming::Beat);
}

#[test]
fn a_beat_of_the_client_is_a_sign_of_life() {
    let broker = Broker::start();
    let mut client = Client::websocket(broker.server.address, "/stomp", false);
    client.connect("1.2", &[("heart-beat", "1000,0")]);
    client.link().limit(std::time::Duration::from_millis(700));
    for _ in 0..5 {
        client.raw("\n");
        assert_eq!(client.next(), Incoming::End(End::Nothing));
    }
    client.link().limit(crate::harness::LIMIT);
    client.put("/queue/a", "x");
}

#[test]
fn a_silent_client_is_given_up_over_websocket_too() {
    let broker = Broker::start();
    let mut client = Client::websocket(broker.server.address, "/stomp", false);
    client.connect("1.2", &[("heart-beat", "1000,0")]);
    client.link().await_end();
    broker.server.await_close(CloseReason::NoHeartbeat);
}

#[test]
fn after_disconnect_it_closes_with_1000() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.write("DISCONNECT", &[("receipt", "bye")], b"");
    client.receipt("bye");
    assert_eq!(client.next(), Incoming::Close(Some(1000)));
}

#[test]
fn after_an_error_it_closes_with_1002() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.write("NONSENSE", &[], b"");
    client.error_then();
    assert_eq!(client.next(), Incoming::Close(Some(1002)));
    client.link().finish();
    assert_eq!(client.link().await_end(), End::Closed);
}

#[test]
fn a_frame_that_is_too_large_ends_with_an_error_and_1009() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.raw("SEND\ndestination:/queue/a\ncontent-length:999999999\n\n");
    client.error_then();
    assert_eq!(client.next(), Incoming::Close(Some(1009)));
}

#[test]
fn a_message_that_is_too_large_ends_with_1009() {
    let broker = Broker::start();
    let mut client = text(&broker);
    // RFC 6455 section 5.2: a masked text message of 4 GiB, of which only the head comes.
    raw(&mut client).send_bytes(&[0x81, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]);
    loop {
        match client.next() {
            Incoming::Close(code) => {
                assert_eq!(code, Some(1009));
                break;
            }
            Incoming::Frame(frame) => assert_eq!(frame.command, "ERROR"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_body_of_8_mib_goes_over_websocket() {
    let broker = Broker::start();
    let mut client = Client::websocket(broker.server.address, "/stomp", true);
    client.connect("1.2", &[]);
    let body: Vec<u8> = (0..8 * 1024 * 1024u32).map(|n| (n % 253) as u8).collect();
    client.put("/queue/a", &body);
    client.subscribe("1", "/queue/a", "client");
    assert!(client.message().body == body);
}

#[test]
fn a_large_frame_may_come_in_messages_of_8_kib() {
    let broker = Broker::start();
    let mut client = text(&broker);
    let body = "0123456789abcdef".repeat(64 * 1024);
    let frame = client.encoded("SEND", &[("destination", "/queue/a"), ("receipt", "r")], body.as_bytes());
    for chunk in frame.chunks(8192) {
        client.raw(chunk);
    }
    client.receipt("r");
    client.subscribe("1", "/queue/a", "auto");
    assert!(client.message().body == body.as_bytes());
}

#[test]
fn a_close_of_the_client_is_answered_and_gives_back_what_it_had() {
    let broker = Broker::start();
    let mut client = text(&broker);
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client");
    client.message();
    raw(&mut client).send_bytes(&framing_suite::frame(0x88, &1000u16.to_be_bytes()));
    assert_eq!(client.next(), Incoming::Close(Some(1000)));
    let mut other = broker.connect();
    other.subscribe("1", "/queue/a", "auto");
    assert_eq!(other.message().text(), "x");
}

#[test]
fn one_message_may_hold_more_frames_than_may_be_unanswered() {
    let broker = Broker::start();
    let mut client = text(&broker);
    let send = client.encoded("SEND", &[("destination", "/queue/a"), ("persistent", "false")], b"x");
    let mut all = send.repeat(3000);
    all.extend(client.encoded("SEND", &[("destination", "/queue/a"), ("receipt", "last")], b"x"));
    client.raw(all);
    client.receipt("last");
}
