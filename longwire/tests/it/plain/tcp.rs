//! Packets over TCP: what a device or a Workerman client speaks.

use super::{Packets, epoch_of, tcp_server};
use crate::harness::{End, Link, user_token};
use longwire::config::{FirstPacket, Framing, LengthCounts, LengthOrder, PlainFormat};
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Subscribes whoever is connected as a user, as a backend would.
fn join(server: &crate::harness::TestServer, user: &str, channel: &str) {
    server.api("subscribe", &json!({"user": user, "channel": channel}));
}

#[test]
fn a_connection_is_welcomed_at_once_and_reads_packets() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.first_packet = FirstPacket::Json);
    let epoch = epoch_of(&server, "kept:a");
    let mut packets = Packets::open(tcp);
    packets.send(r#"{"channels":["kept:a","news"]}"#);
    let welcome = packets.value();
    assert_eq!(
        (&welcome["type"], &welcome["id"]),
        (&json!("subscribed"), &json!(format!("kept:a=0.{epoch}")))
    );
    server.publish("kept:a", 1);
    let packet = packets.packet();
    assert_eq!(packet, format!(r#"{{"channel":"kept:a","data":1,"offset":1,"id":"kept:a=1.{epoch}"}}"#));
    server.publish("news", "two\nlines");
    assert_eq!(packets.packet(), r#"{"channel":"news","data":"two\nlines"}"#);
}

#[test]
fn without_a_first_packet_the_backend_says_what_a_device_reads() {
    let (server, tcp) = tcp_server(|_| {}, |_| {});
    let mut packets = Packets::open(tcp);
    let welcome = packets.value();
    assert_eq!((&welcome["type"], &welcome["channels"]), (&json!("subscribed"), &json!({})), "{welcome}");
    let client = welcome["client"].as_str().expect("an id").to_owned();
    let listed = server.api("connections", &json!({"client": client}));
    assert!(listed.to_string().contains(r#""transport":"tcp""#), "{listed}");
}

#[test]
fn a_token_as_the_first_packet_says_who_a_device_is() {
    let (server, tcp) = tcp_server(
        |config| config.client.allow_anonymous = false,
        |listener| listener.first_packet = FirstPacket::Token,
    );
    let mut packets = Packets::open(tcp);
    packets.send(&user_token("42"));
    assert_eq!(packets.value()["type"], "subscribed");
    join(&server, "42", "news");
    assert_eq!(packets.value()["type"], "subscribe");
    server.publish("news", 1);
    assert_eq!(packets.value(), json!({"channel": "news", "data": 1}));

    let mut packets = Packets::open(tcp);
    packets.send("nonsense");
    assert_eq!(
        packets.value(),
        json!({"type": "disconnect", "code": 3500, "reason": "invalid token", "reconnect": false})
    );
    assert_eq!(packets.link.await_end(), End::Closed);
}

#[test]
fn a_first_packet_that_is_wrong_is_told_so() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.first_packet = FirstPacket::Json);
    for packet in [
        "hello",
        "[]",
        r#"{"chanels":["news"]}"#,
        r#"{"channels":"news"}"#,
        r#"{"channels":["news","news"]}"#,
        r#"{"since":"x"}"#,
        r#"{"client":"a\u0007b"}"#,
    ] {
        let mut packets = Packets::open(tcp);
        packets.send(packet);
        let told = packets.value();
        assert_eq!((&told["type"], &told["code"]), (&json!("disconnect"), &json!(3501)), "{packet}: {told}");
        assert_eq!(packets.link.await_end(), End::Closed, "{packet}");
    }
    assert_eq!(server.closes(CloseReason::BadRequest), 7);
}

#[test]
fn a_first_packet_that_does_not_come_in_time_ends_the_connection() {
    let (server, tcp) = tcp_server(
        |config| config.client.connect_timeout = Duration::from_millis(200),
        |listener| listener.first_packet = FirstPacket::Client,
    );
    let began = Instant::now();
    let mut silent = Link::open(tcp);
    let mut dribbling = Link::open(tcp);
    dribbling.send(b"devic");
    silent.await_end();
    dribbling.await_end();
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    crate::harness::until("both to be called stale", || server.closes(CloseReason::Stale) == 2);
}

/// A packet whose length is told in this many bytes after `offset` others.
fn announced(order: LengthOrder, bytes: usize, offset: usize, number: u64, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![b'#'; offset];
    let number = number.to_be_bytes();
    let mut field = number[8 - bytes..].to_vec();
    if order == LengthOrder::Little {
        field.reverse();
    }
    packet.extend(field);
    packet.extend(body);
    packet
}

#[test]
fn packets_are_told_apart_by_any_length_field() {
    for (order, bytes, offset, counts) in [
        (LengthOrder::Big, 4, 0, LengthCounts::Body),
        (LengthOrder::Little, 4, 0, LengthCounts::Body),
        (LengthOrder::Big, 2, 0, LengthCounts::Packet),
        (LengthOrder::Little, 2, 3, LengthCounts::Packet),
        (LengthOrder::Big, 1, 2, LengthCounts::Body),
    ] {
        let (server, tcp) = tcp_server(
            |_| {},
            |listener| {
                listener.framing = Framing::Length;
                (listener.length_order, listener.length_bytes) = (order, bytes);
                (listener.length_offset, listener.body_offset) = (offset, offset + bytes);
                listener.length_counts = counts;
                listener.first_packet = FirstPacket::Json;
                listener.heartbeat_messages = vec!["ping".to_owned()];
                listener.heartbeat_answer = "pong".to_owned();
                listener.format = PlainFormat::Bare;
            },
        );
        let head_bytes = offset + bytes;
        let counted = |body: &[u8]| match counts {
            LengthCounts::Body => body.len() as u64,
            LengthCounts::Packet => (head_bytes + body.len()) as u64,
        };
        let mut link = Link::open(tcp);
        let mut sent = Vec::new();
        for body in [&br#"{"channels":["news"]}"#[..], b"ping", b"ping"] {
            sent.extend(announced(order, bytes, offset, counted(body), body));
        }
        // However it is cut.
        for byte in &sent {
            link.send(std::slice::from_ref(byte));
        }
        for _ in 0..2 {
            let answer = link.take(head_bytes + 4).expect("an answer");
            let mut expected = announced(order, bytes, offset, counted(b"pong"), b"pong");
            expected[..offset].fill(0);
            assert_eq!(answer, expected, "{order:?} {bytes} {offset} {counts:?}");
        }
        server.publish("news", "up");
        let packet = link.take(head_bytes + 2).expect("a packet");
        assert_eq!(packet[head_bytes..], *b"up", "{order:?} {bytes} {offset} {counts:?}");
    }
}

#[test]
fn a_length_of_four_gigabytes_is_refused_before_anything_is_kept_for_it() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.framing = Framing::Length);
    let mut link = Link::open(tcp);
    link.send(&[0xFF; 4]);
    // The welcome, and then why it ends.
    let mut told = Vec::new();
    for _ in 0..2 {
        let length = link.take(4).expect("a length");
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let packet: Value = serde_json::from_slice(&link.take(length).expect("a packet")).expect("JSON");
        told.push(packet);
    }
    assert_eq!(told[0]["type"], "subscribed", "{told:?}");
    assert_eq!((&told[1]["type"], &told[1]["code"]), (&json!("disconnect"), &json!(1009)), "{told:?}");
    assert_eq!(server.closes(CloseReason::MessageTooBig), 1);
}

#[test]
fn an_endless_packet_is_refused_at_the_limit() {
    let (server, tcp) = tcp_server(|_| {}, |listener| listener.max_packet_bytes = 4096);
    let mut packets = Packets::open(tcp);
    packets.value();
    // A packet of the limit is taken; one byte more is not, whether or not it has an end.
    packets.send(&"x".repeat(4096));
    packets.link.send(&[b'x'; 4097]);
    let told = packets.value();
    assert_eq!((&told["type"], &told["code"]), (&json!("disconnect"), &json!(1009)), "{told}");
    assert_eq!(server.closes(CloseReason::MessageTooBig), 1);
}

#[test]
fn a_length_below_its_own_head_is_a_broken_rule() {
    let (server, tcp) = tcp_server(
        |_| {},
        |listener| {
            listener.framing = Framing::Length;
            listener.length_counts = LengthCounts::Packet;
        },
    );
    let mut link = Link::open(tcp);
    link.send(&3u32.to_be_bytes());
    link.await_end();
    server.await_close(CloseReason::ProtocolError);
}

#[test]
fn a_terminator_may_be_longer_and_may_come_in_parts() {
    let (_server, tcp) = tcp_server(
        |_| {},
        |listener| {
            listener.terminator = "\r\n\r\n".to_owned();
            listener.heartbeat_messages = vec!["ping".to_owned()];
            listener.heartbeat_answer = "pong".to_owned();
        },
    );
    let mut link = Link::open(tcp);
    link.take_up_to(b"\r\n\r\n").expect("the welcome");
    for part in [&b"pi"[..], b"ng\r\n", b"\r", b"\nping\r\n\r\n"] {
        link.send(part);
    }
    assert_eq!(link.take(16).expect("two answers"), b"pong\r\n\r\npong\r\n\r\n");
}

#[test]
fn a_device_that_falls_silent_is_closed_and_one_that_beats_is_not() {
    let (server, tcp) = tcp_server(
        |_| {},
        |listener| {
            listener.idle_timeout = Duration::from_millis(600);
            listener.ping_interval = Duration::from_millis(200);
            listener.ping_packet = "are you there".to_owned();
            listener.heartbeat_messages = vec!["Hello!".to_owned()];
        },
    );
    let mut beating = Packets::open(tcp);
    beating.value();
    let mut silent = Packets::open(tcp);
    silent.value();
    let began = Instant::now();
    let mut pings = 0;
    while server.closes(CloseReason::NoHeartbeat) == 0 {
        assert!(began.elapsed() < crate::harness::LIMIT, "nobody was closed");
        assert_eq!(beating.packet(), "are you there");
        pings += 1;
        beating.send("Hello!");
    }
    assert!(pings >= 2, "{pings} pings");
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    while silent.link.take_up_to(b"\n").is_ok() {}
    // Who beats is still there.
    for _ in 0..4 {
        assert_eq!(beating.packet(), "are you there");
        beating.send("Hello!");
    }
    assert_eq!(server.closes(CloseReason::NoHeartbeat), 1);
}

#[test]
fn connections_of_one_address_are_counted_over_all_listeners() {
    let (server, tcp) = tcp_server(|config| config.server.max_connections = 2, |_| {});
    let mut first = Packets::open(tcp);
    first.value();
    let mut second = Packets::open(tcp);
    second.value();
    // A third is closed without a word that a device could not read.
    let mut third = Link::open(tcp);
    assert_eq!(third.take_up_to(b"\n"), Err(End::Closed));
    drop(first);
    crate::harness::until("a free place", || server.server().node().admissions.open() < 2);
    assert_eq!(Packets::open(tcp).value()["type"], "subscribed");
}

#[test]
fn an_http_request_on_a_listener_of_packets_is_a_packet_like_any_other() {
    let (_server, tcp) = tcp_server(|_| {}, |listener| listener.first_packet = FirstPacket::Json);
    let mut link = Link::open(tcp);
    link.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let told = link.take_up_to(b"\n").expect("a packet");
    assert!(String::from_utf8_lossy(&told).contains(r#""code":3501"#), "{}", String::from_utf8_lossy(&told));
}
