//! Headers: the escapes of each version, what is repeated, and what one client may not do to another.

use super::Broker;
use super::client::Client;

/// A sender and a receiver of `/queue/a` with versions of their own.
fn pair(broker: &Broker, from: &str, to: &str) -> (Client, Client) {
    let mut receiver = broker.speak(to);
    receiver.subscribe("r", "/queue/a", "auto");
    (broker.speak(from), receiver)
}

#[test]
fn the_four_escapes_of_1_2_come_through() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.2");
    from.raw("SEND\ndestination:/queue/a\nn\\c\\\\\\n\\r:v\\c\\\\\\n\\r\n\nx\0");
    let message = to.message();
    assert_eq!(message.get("n:\\\n\r"), "v:\\\n\r");
    let text = String::from_utf8_lossy(&message.bytes).into_owned();
    assert!(text.contains("n\\c\\\\\\n\\r:v\\c\\\\\\n\\r\n"), "{text}");
}

#[test]
fn the_three_escapes_of_1_1_come_through() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.1", "1.1");
    from.raw("SEND\ndestination:/queue/a\nn\\c\\\\\\n:v\\c\\\\\\n\n\nx\0");
    assert_eq!(to.message().get("n:\\\n"), "v:\\\n");
}

#[test]
fn names_are_escaped_as_values_are() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.1");
    from.raw("SEND\ndestination:/queue/a\na\\cb:c\n\nx\0");
    let message = to.message();
    assert_eq!(message.get("a:b"), "c");
    assert!(String::from_utf8_lossy(&message.bytes).contains("\na\\cb:c\n"));
}

macro_rules! bad_escapes {
    ($($name:ident: $version:literal $line:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.speak($version);
            client.raw(concat!("SEND\ndestination:/queue/a\nreceipt:r\n", $line, "\n\nx\0"));
            client.error();
        }
    )+};
}

bad_escapes! {
    the_escape_t_does_not_exist_in_1_2: "1.2" "x:a\\tb";
    the_escape_t_does_not_exist_in_1_1: "1.1" "x:a\\tb";
    the_escape_r_does_not_exist_in_1_1: "1.1" "x:a\\rb";
    a_lone_backslash_at_the_end_is_no_escape: "1.2" "x:a\\";
    a_lone_backslash_at_the_end_is_no_escape_of_1_1: "1.1" "x:a\\";
    escapes_are_case_sensitive: "1.2" "x:a\\N";
    a_name_has_only_escapes_that_exist: "1.2" "a\\0b:x";
}

#[test]
fn version_1_0_has_no_escapes() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.0", "1.0");
    from.raw("SEND\ndestination:/queue/a\npath:C:\\new\\table\\\n\nx\0");
    assert_eq!(to.message().get("path"), "C:\\new\\table\\");
}

#[test]
fn what_1_0_sends_raw_is_escaped_for_1_2() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.0", "1.2");
    from.raw("SEND\ndestination:/queue/a\npath:C:\\new\n\nx\0");
    let message = to.message();
    assert_eq!(message.get("path"), "C:\\new");
    assert!(String::from_utf8_lossy(&message.bytes).contains("path:C\\c\\\\new\n"));
}

#[test]
fn a_line_feed_cannot_inject_a_header_into_1_0() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.0");
    from.raw("SEND\ndestination:/queue/a\nx:a\\nsubscription:evil\\n\\nbody\n\nreal\0");
    let message = to.message();
    assert_eq!((message.count("subscription"), message.text()), (1, "real".to_owned()));
    assert_eq!(message.get("subscription"), "r");
    assert!(!message.get("x").contains('\n'));
}

#[test]
fn a_carriage_return_reaches_1_0_and_1_1_without_an_escape_they_lack() {
    let broker = Broker::start();
    for version in ["1.0", "1.1"] {
        let (mut from, mut to) = pair(&broker, "1.2", version);
        from.raw("SEND\ndestination:/queue/a\nx:a\\rb\n\nbody\0");
        let message = to.message();
        assert!(["a\rb", "a b"].contains(&message.get("x")), "{message:?}");
    }
}

#[test]
fn a_name_that_1_0_cannot_write_is_left_out() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.0");
    from.raw("SEND\ndestination:/queue/a\nack\\cx:evil\ngood:1\n\nx\0");
    let message = to.message();
    assert_eq!((message.count("ack"), message.get("good")), (0, "1"));
}

#[test]
fn a_colon_within_a_value_is_forgiven() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let (mut from, mut to) = pair(&broker, version, "1.2");
        from.raw("SEND\ndestination:/queue/a\nlink:http://a:80/\n\nx\0");
        assert_eq!(to.message().get("link"), "http://a:80/", "{version}");
    }
}

#[test]
fn of_a_repeated_header_the_first_counts() {
    let broker = Broker::start();
    for version in ["1.1", "1.2"] {
        let (mut from, mut to) = pair(&broker, version, version);
        from.raw("SEND\ndestination:/queue/a\nk:1\nk:2\ndestination:/queue/b\nk:3\n\nx\0");
        assert_eq!(to.message().get("k"), "1");
    }
}

#[test]
fn values_of_1_1_and_1_2_are_not_trimmed() {
    let broker = Broker::start();
    for version in ["1.1", "1.2"] {
        let (mut from, mut to) = pair(&broker, version, version);
        from.raw("SEND\ndestination:/queue/a\nk: a \t\n k:b\n\nx\0");
        let message = to.message();
        assert_eq!((message.get("k"), message.get(" k")), (" a \t", "b"));
    }
}

#[test]
fn values_of_1_0_may_be_padded() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.0", "1.2");
    from.raw("SEND\ndestination: /queue/a\nk: a\n\nx\0");
    assert_eq!(to.message().get("k"), "a");
}

#[test]
fn a_value_may_be_empty() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.1");
    from.raw("SEND\ndestination:/queue/a\nk:\n\nx\0");
    assert_eq!(to.message().get("k"), "");
}

#[test]
fn headers_are_case_sensitive() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.2");
    from.raw("SEND\ndestination:/queue/a\nDestination:/queue/b\nKey:1\nkey:2\n\nx\0");
    let message = to.message();
    assert_eq!((message.get("Destination"), message.get("Key"), message.get("key")), ("/queue/b", "1", "2"));
    let mut client = broker.connect();
    client.raw("SEND\nDestination:/queue/a\n\nx\0");
    client.error();
}

#[test]
fn headers_are_utf_8() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.2");
    from.put_with("/queue/a", &[("grüße", "日本語 \u{1f44b}")], "x");
    assert_eq!(to.message().get("grüße"), "日本語 \u{1f44b}");
}

#[test]
fn headers_of_the_user_reach_the_consumer_unchanged() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.2");
    let headers = [
        ("content-type", "application/json;charset=utf-8"),
        ("correlation-id", "c-1"),
        ("type", "order"),
        ("x-custom", " padded "),
        ("JMSXGroupID", "g"),
        ("timestamp-of-mine", "1"),
    ];
    from.put_with("/queue/a", &headers, "{}");
    let message = to.message();
    for (name, value) in headers {
        assert_eq!((message.get(name), message.count(name)), (value, 1), "{name}");
    }
}

#[test]
fn nobody_can_forge_the_headers_of_the_server() {
    let broker = Broker::start();
    let (mut from, mut to) = pair(&broker, "1.2", "1.2");
    from.raw(
        "SEND\ndestination:/queue/a\nmessage-id:forged\nsubscription:forged\nack:forged\nredelivered:true\n\
         receipt:1\ncontent-length:1\n\nx\0",
    );
    from.receipt("1");
    let message = to.message();
    assert_ne!(message.get("message-id"), "forged");
    assert_eq!((message.get("subscription"), message.get("redelivered")), ("r", "false"));
    assert_eq!((message.header("receipt"), message.header("transaction")), (None, None));
    for name in ["message-id", "subscription", "redelivered", "content-length", "destination"] {
        assert_eq!(message.count(name), 1, "{message:?}");
    }
    assert!(message.header("ack").is_none_or(|ack| ack != "forged"));
}

#[test]
fn nobody_can_forge_the_headers_of_a_topic_either() {
    let broker = Broker::start();
    let mut to = broker.connect();
    to.subscribe("r", "/topic/a", "auto");
    let mut from = broker.connect();
    from.raw(
        "SEND\ndestination:/topic/a\nmessage-id:forged\nsubscription:forged\nreceipt:1\nack:forged\n\nx\0",
    );
    from.receipt("1");
    let message = to.message();
    assert_ne!(message.get("message-id"), "forged");
    assert_eq!((message.get("subscription"), message.header("receipt")), ("r", None));
    assert!(message.count("subscription") == 1 && message.count("message-id") == 1, "{message:?}");
}
