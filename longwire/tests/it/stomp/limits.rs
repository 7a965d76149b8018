//! What is too much: long lines, many headers, large bodies. Each ends in an ERROR and a close, before memory is taken.

use super::Broker;
use super::client::Client;

/// Sends bytes of a frame that never ends and expects an ERROR for what is there already.
#[track_caller]
fn refused(broker: &Broker, bytes: impl AsRef<[u8]>) {
    let mut client = broker.connect();
    client.raw(bytes);
    client.error_then();
}

#[test]
fn a_command_without_end_is_refused() {
    refused(&Broker::start(), "X".repeat(100));
}

#[test]
fn a_header_line_without_end_is_refused() {
    refused(&Broker::start(), format!("SEND\ndestination:/queue/a\nx:{}", "y".repeat(17 * 1024)));
}

#[test]
fn a_header_name_without_end_is_refused() {
    refused(&Broker::start(), format!("SEND\ndestination:/queue/a\n{}", "y".repeat(17 * 1024)));
}

#[test]
fn a_long_header_line_is_taken() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let long = "y".repeat(16_000);
    client.put_with("/queue/a", &[("x", &long)], "body");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().get("x"), long);
}

#[test]
fn too_many_headers_are_refused() {
    let lines: String = (0..200).map(|n| format!("h{n}:x\n")).collect();
    refused(&Broker::start(), format!("SEND\ndestination:/queue/a\n{lines}"));
}

#[test]
fn a_hundred_headers_are_taken() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let mut frame = "SEND\ndestination:/queue/a\nreceipt:r\n".to_owned();
    frame.extend((0..100).map(|n| format!("h{n}:{n}\n")));
    client.raw(frame + "\nbody\0");
    client.receipt("r");
    client.subscribe("1", "/queue/a", "auto");
    let message = client.message();
    for n in 0..100 {
        assert_eq!(message.get(&format!("h{n}")), n.to_string());
    }
}

#[test]
fn headers_that_are_too_much_together_are_refused() {
    let lines: String = (0..10).map(|n| format!("h{n}:{}\n", "x".repeat(10_000))).collect();
    refused(&Broker::start(), format!("SEND\ndestination:/queue/a\n{lines}"));
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    refused(&Broker::start(), "SEND\ndestination:/queue/a\ncontent-length:1000000000\n\n");
}

#[test]
fn a_body_of_one_byte_more_than_allowed_is_refused_by_its_length() {
    refused(
        &Broker::start(),
        format!("SEND\ndestination:/queue/a\ncontent-length:{}\n\n", 16 * 1024 * 1024 + 1),
    );
}

#[test]
fn a_body_without_end_and_length_is_refused() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\ndestination:/queue/a\n\n");
    let chunk = vec![b'x'; 1024 * 1024];
    for _ in 0..17 {
        client.raw(&chunk);
    }
    client.error_then();
}

#[test]
fn a_body_of_8_mib_goes_through_a_queue() {
    let broker = Broker::start();
    let body: Vec<u8> = (0..8 * 1024 * 1024u32).map(|n| (n * 7 % 251) as u8).collect();
    let mut client = broker.connect();
    client.put("/queue/a", &body);
    for ack in ["client-individual", "auto"] {
        let mut reader = broker.connect();
        reader.subscribe("1", "/queue/a", ack);
        let message = reader.message();
        assert!(message.body == body, "{} bytes", message.body.len());
        assert_eq!(message.get("content-length"), body.len().to_string());
    }
}

#[test]
fn the_largest_body_goes_through_a_queue() {
    let broker = Broker::start();
    let body = vec![b'x'; 16 * 1024 * 1024];
    let mut client = broker.connect();
    client.put("/queue/a", &body);
    client.subscribe("1", "/queue/a", "auto");
    assert!(client.message().body == body);
}

#[test]
fn several_bodies_of_8_mib_go_to_one_consumer() {
    let broker = Broker::start();
    let mut client = broker.connect();
    for n in 0..3u8 {
        client.put("/queue/a", vec![b'a' + n; 8 * 1024 * 1024]);
    }
    client.subscribe("1", "/queue/a", "client");
    for n in 0..3u8 {
        let message = client.message();
        assert!(message.body.len() == 8 * 1024 * 1024 && message.body[0] == b'a' + n);
        client.ack(&message);
    }
    client.quiet();
}

#[test]
fn so_many_subscriptions_are_refused_and_some_are_taken() {
    let broker = Broker::start();
    let mut client = broker.connect();
    let subscribe = |client: &Client, n: u32| {
        let (n, destination) = (n.to_string(), format!("/queue/{}", n % 16));
        client.encoded("SUBSCRIBE", &[("id", &n), ("destination", &destination), ("receipt", &n)], b"")
    };
    let bytes: Vec<u8> = (0..100).flat_map(|n| subscribe(&client, n)).collect();
    client.raw(bytes);
    for n in 0..100 {
        client.receipt(&n.to_string());
    }
    let bytes: Vec<u8> = (100..4200).flat_map(|n| subscribe(&client, n)).collect();
    client.raw(bytes);
    client.error_then();
}

#[test]
fn a_peer_that_breaks_every_limit_leaves_the_server_serving() {
    let broker = Broker::start();
    for n in 0..50u8 {
        let mut client = broker.connect();
        let mut noise = vec![b'S', b'E', n, 0, n, b'\n', b':'];
        noise.extend((0..2000u32).map(|i| (i * u32::from(n)) as u8));
        client.raw(noise);
        client.link().finish();
        client.link().await_end();
    }
    let mut client = broker.connect();
    client.put("/queue/a", "x");
    client.disconnect();
}
