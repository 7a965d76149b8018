//! Heart-beats: what is negotiated, that it is kept, and who is given up. The times are real, with room for a busy machine.

use super::Broker;
use super::client::{Client, Incoming};
use crate::harness::End;
use longwire_protocol::CloseReason;
use std::time::{Duration, Instant};

/// Connects with a `heart-beat` header; what CONNECTED says of it.
fn negotiated(broker: &Broker, offered: &str) -> String {
    broker.open().connect("1.2", &[("heart-beat", offered)]).get("heart-beat").to_owned()
}

macro_rules! negotiations {
    ($($name:ident: $offered:literal => $answered:literal;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(negotiated(&Broker::start(), $offered), $answered);
        }
    )+};
}

negotiations! {
    who_wants_none_gets_none: "0,0" => "0,0";
    each_side_gets_what_it_asked_for: "5000,4000" => "4000,5000";
    who_only_sends_is_only_listened_to: "5000,0" => "0,5000";
    who_only_listens_is_only_sent_to: "0,5000" => "5000,0";
    beats_come_no_more_than_once_a_second: "10,10" => "1000,1000";
    blanks_in_the_header_are_forgiven: "2000, 3000" => "3000,2000";
}

macro_rules! nonsense {
    ($($name:ident: $offered:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.open();
            client.version = "1.0".to_owned();
            client.raw(concat!("CONNECT\naccept-version:1.2\nhost:a\nheart-beat:", $offered, "\n\n\0"));
            client.error();
        }
    )+};
}

nonsense! {
    a_heart_beat_of_words_is_refused: "often,seldom";
    a_heart_beat_of_one_number_is_refused: "1000";
    a_heart_beat_of_three_numbers_is_refused: "1000,1000,1000";
    a_negative_heart_beat_is_refused: "-1,1000";
    an_empty_heart_beat_is_refused: "";
}

#[test]
fn a_huge_heart_beat_does_no_harm() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.version = "1.0".to_owned();
    client.raw("CONNECT\naccept-version:1.2\nhost:a\nheart-beat:99999999999,99999999999\n\n\0");
    let answer = client.frame();
    assert!(["CONNECTED", "ERROR"].contains(&answer.command.as_str()), "{answer:?}");
    broker.connect().put("/queue/a", "x");
}

#[test]
fn the_server_beats_as_often_as_it_promised() {
    let broker = Broker::start();
    for version in ["1.1", "1.2"] {
        let mut client = broker.open();
        let connected = client.connect(version, &[("heart-beat", "0,1000")]);
        assert_eq!(connected.get("heart-beat"), "1000,0");
        for _ in 0..3 {
            let began = Instant::now();
            assert_eq!(client.next(), Incoming::Beat);
            let took = began.elapsed();
            assert!(took <= Duration::from_millis(1400), "{took:?}");
        }
    }
}

#[test]
fn the_server_sends_no_beats_to_who_wants_none() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.link().limit(Duration::from_millis(2500));
    assert_eq!(client.next(), Incoming::End(End::Nothing));
}

#[test]
fn who_promised_beats_and_is_silent_is_given_up() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.connect("1.2", &[("heart-beat", "1000,0")]);
    let began = Instant::now();
    client.link().await_end();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1900), "it has its margin: {took:?}");
    assert!(took < Duration::from_millis(6000), "{took:?}");
    broker.server.await_close(CloseReason::NoHeartbeat);
}

#[test]
fn what_a_silent_client_was_given_goes_to_another() {
    let broker = Broker::start();
    let mut silent = broker.open();
    silent.connect("1.2", &[("heart-beat", "1000,0")]);
    silent.put("/queue/a", "x");
    silent.subscribe("1", "/queue/a", "client");
    let id = silent.message().get("message-id").to_owned();
    let mut other = broker.connect();
    other.subscribe("1", "/queue/a", "client");
    let message = other.message();
    assert_eq!((message.get("message-id"), message.get("redelivered")), (id.as_str(), "true"));
}

/// Keeps a client alive for four seconds with what `beat` sends.
fn lives_by(client: &mut Client, beat: impl Fn(&mut Client)) {
    client.link().limit(Duration::from_millis(500));
    for _ in 0..8 {
        beat(client);
        assert_eq!(client.next(), Incoming::End(End::Nothing));
    }
    client.link().limit(crate::harness::LIMIT);
}

#[test]
fn who_beats_lives() {
    let broker = Broker::start();
    for beat in ["\n", "\r\n"] {
        let mut client = broker.open();
        client.connect("1.2", &[("heart-beat", "1000,0")]);
        lives_by(&mut client, |client| client.raw(beat));
        client.put("/queue/a", "x");
    }
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.connect("1.2", &[("heart-beat", "1000,0")]);
    client.raw("SEND\ndestination:/queue/a\nreceipt:r\n\n");
    lives_by(&mut client, |client| client.raw("x"));
    client.raw("\0");
    client.receipt("r");
}

#[test]
fn who_promised_nothing_may_be_silent() {
    let broker = Broker::start();
    let mut client = broker.connect();
    lives_by(&mut client, |_| {});
    client.put("/queue/a", "x");
}

#[test]
fn beats_never_stand_within_a_frame() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.connect("1.2", &[("heart-beat", "0,1000")]);
    let body: Vec<u8> = (0..4 * 1024 * 1024u32).map(|n| (n % 250) as u8 + 1).collect();
    client.put("/queue/a", &body);
    client.put("/queue/a", &body);
    client.write("SUBSCRIBE", &[("id", "1"), ("destination", "/queue/a"), ("ack", "client")], b"");
    // Beats fall due while nothing is read.
    std::thread::sleep(Duration::from_millis(2500));
    for _ in 0..2 {
        let message = client.message();
        assert!(message.body == body);
        // One larger than the credit goes alone.
        client.ack(&message);
    }
}
