//! How a STOMP connection begins: versions, what CONNECTED says, who may come, and who takes too long.

use super::Broker;
use super::client::Client;
use crate::harness::{End, LIMIT, user_token};
use longwire_protocol::CloseReason;
use std::time::{Duration, Instant};

macro_rules! negotiations {
    ($($name:ident: $offered:literal => $version:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.open();
            client.raw(concat!("CONNECT\naccept-version:", $offered, "\nhost:localhost\n\n\0"));
            let connected = client.frame();
            assert_eq!((connected.command.as_str(), connected.get("version")), ("CONNECTED", $version));
            assert_eq!(connected.count("version"), 1);
        }
    )+};
}

negotiations! {
    a_client_of_1_0_alone_gets_1_0: "1.0" => "1.0";
    a_client_of_1_1_alone_gets_1_1: "1.1" => "1.1";
    a_client_of_1_2_alone_gets_1_2: "1.2" => "1.2";
    the_highest_common_version_is_chosen: "1.0,1.1,1.2" => "1.2";
    the_order_of_versions_means_nothing: "1.2,1.0,1.1" => "1.2";
    the_first_version_is_no_better_than_the_second: "1.0,1.1" => "1.1";
    blanks_between_versions_are_tolerated: "1.0, 1.1 , 1.2" => "1.2";
    versions_are_no_decimal_numbers: "1.1,1.10,1.20" => "1.1";
    later_versions_are_passed_over: "1.0,1.3,2.0" => "1.0";
}

macro_rules! no_common_version {
    ($($name:ident: $offered:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.open();
            client.version = "1.0".to_owned();
            client.raw(concat!("CONNECT\naccept-version:", $offered, "\nhost:localhost\n\n\0"));
            let error = client.error();
            let mut versions: Vec<_> = error.get("version").split(',').collect();
            versions.sort_unstable();
            assert_eq!(versions, ["1.0", "1.1", "1.2"]);
        }
    )+};
}

no_common_version! {
    without_a_common_version_the_error_lists_ours: "2.0,3.0";
    version_1_10_is_not_1_1: "1.10";
    a_version_is_compared_whole: "1.2.1";
    an_empty_list_of_versions_has_none_in_common: "";
}

#[test]
fn a_client_that_names_no_version_speaks_1_0() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.version = "1.0".to_owned();
    client.raw("CONNECT\n\n\0");
    let connected = client.frame();
    assert_eq!(connected.command, "CONNECTED");
    assert_eq!((connected.get("version"), connected.get("heart-beat")), ("1.0", "0,0"));
    // The version is not only said: a backslash is a backslash.
    client.put_with("/queue/a", &[("path", "C:\\new\\q")], "x");
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().get("path"), "C:\\new\\q");
}

#[test]
fn stomp_is_another_word_for_connect() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("STOMP\naccept-version:1.1,1.2\nhost:localhost\n\n\0");
    assert_eq!(client.frame().get("version"), "1.2");
    client.put("/queue/a", "x");
}

#[test]
fn connected_says_version_session_server_and_heart_beat() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let connected = broker.open().connect(version, &[]);
        assert!(!connected.get("session").is_empty());
        assert_eq!(connected.get("heart-beat"), "0,0");
        let server = connected.get("server");
        assert!(server.starts_with("longwire/"), "{server}");
        for name in ["version", "session", "server", "heart-beat"] {
            assert_eq!(connected.count(name), 1, "{connected:?}");
        }
        assert!(connected.body.is_empty());
    }
}

#[test]
fn each_connection_has_a_session_of_its_own() {
    let broker = Broker::start();
    let (one, two) = (broker.open().connect("1.2", &[]), broker.open().connect("1.2", &[]));
    assert_ne!(one.get("session"), two.get("session"));
}

#[test]
fn values_of_connect_have_no_escapes() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("CONNECT\naccept-version:1.2\nhost:a\\qb:c\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
}

#[test]
fn a_client_that_names_no_host_is_let_in() {
    let broker = Broker::start();
    for version in ["1.1", "1.2"] {
        let mut client = broker.open();
        client.raw(format!("CONNECT\naccept-version:{version}\n\n\0"));
        assert_eq!(client.frame().get("version"), version);
    }
}

#[test]
fn lines_before_connect_are_nothing() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("\n\r\n\nCONNECT\naccept-version:1.2\nhost:a\n\n\0");
    assert_eq!(client.frame().command, "CONNECTED");
}

#[test]
fn connect_may_have_windows_line_ends() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("CONNECT\r\naccept-version:1.0,1.1,1.2\r\nhost:a\r\n\r\n\0\r\n");
    assert_eq!(client.frame().get("version"), "1.2");
    client.put("/queue/a", "x");
}

#[test]
fn what_is_sent_right_behind_connect_is_done_in_order() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw(
        "CONNECT\naccept-version:1.2\nhost:a\n\n\0SEND\ndestination:/queue/a\nreceipt:1\n\nx\0\
         SUBSCRIBE\nid:s\ndestination:/queue/a\nreceipt:2\n\n\0",
    );
    assert_eq!(client.frame().command, "CONNECTED");
    client.receipt("1");
    client.receipt("2");
    assert_eq!(client.message().text(), "x");
}

macro_rules! first_frames {
    ($($name:ident: $frame:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.open();
            client.version = "1.0".to_owned();
            client.raw($frame);
            client.error();
        }
    )+};
}

first_frames! {
    a_send_before_connect_is_refused: "SEND\ndestination:/queue/a\n\nx\0";
    a_subscribe_before_connect_is_refused: "SUBSCRIBE\nid:1\ndestination:/queue/a\n\n\0";
    a_disconnect_before_connect_is_refused: "DISCONNECT\nreceipt:1\n\n\0";
    an_unknown_command_before_connect_is_refused: "HELLO\n\n\0";
}

#[test]
fn a_second_connect_is_refused() {
    let broker = Broker::start();
    for again in ["CONNECT", "STOMP"] {
        let mut client = broker.connect();
        client.write(again, &[("accept-version", "1.2"), ("host", "a")], b"");
        client.error();
    }
}

/// Waits for the end and gives the time until then.
fn ends_after(mut client: Client) -> Duration {
    let began = Instant::now();
    client.version = "1.0".to_owned();
    assert_ne!(client.link().await_end(), End::Nothing);
    began.elapsed()
}

#[test]
fn who_says_nothing_is_closed_after_a_while() {
    let broker = Broker::changed(|config| config.client.connect_timeout = Duration::from_millis(300));
    let took = ends_after(broker.open());
    assert!(took >= Duration::from_millis(250) && took < LIMIT / 2, "{took:?}");
}

#[test]
fn who_never_ends_its_connect_is_closed_after_a_while() {
    let broker = Broker::changed(|config| config.client.connect_timeout = Duration::from_millis(300));
    let mut client = broker.open();
    client.raw("CONNECT\naccept-version:1.2\nhost:");
    let took = ends_after(client);
    assert!(took < LIMIT / 2, "{took:?}");
    broker.server.await_close(CloseReason::Stale);
}

#[test]
fn an_endless_connect_ends_at_a_limit() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.version = "1.0".to_owned();
    client.raw("CONNECT\naccept-version:1.2\n");
    for n in 0..200 {
        client.raw(format!("header-{n}:{}\n", "x".repeat(1000)));
    }
    client.error_then();
}

#[test]
fn tls_on_the_port_without_it_is_closed_at_once() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw([0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]);
    let took = ends_after(client);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_browser_on_the_port_of_stomp_is_closed_at_once() {
    let broker = Broker::start();
    let mut client = broker.open();
    client.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let took = ends_after(client);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_token_as_passcode_says_who_comes() {
    let broker = Broker::with("[stomp]\nanonymous = \"never\"\n");
    let mut client = broker.open();
    client.connect("1.2", &[("login", "ann"), ("passcode", &user_token("ann"))]);
    let listed = broker.server.api("connections", &serde_json::json!({"user": "ann"}));
    assert!(listed.to_string().contains("\"ann\""), "{listed}");
    client.put("/queue/a", "x");
}

#[test]
fn a_wrong_passcode_is_refused_without_saying_what_was_wrong() {
    let broker = Broker::with("[stomp]\nanonymous = \"never\"\n");
    let mut texts = Vec::new();
    for login in ["ann", "nobody"] {
        let mut client = broker.open();
        client.version = "1.0".to_owned();
        client.raw(format!("CONNECT\naccept-version:1.2\nhost:a\nlogin:{login}\npasscode:wrong\n\n\0"));
        let error = client.error();
        texts.push((error.get("message").to_owned(), error.text()));
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn nobody_is_anonymous_where_the_settings_say_never() {
    let broker = Broker::with("[stomp]\nanonymous = \"never\"\n");
    let mut client = broker.open();
    client.version = "1.0".to_owned();
    client.raw("CONNECT\naccept-version:1.2\nhost:a\n\n\0");
    client.error();
}
