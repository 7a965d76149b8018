//! Where a frame begins and ends: bodies, lengths, line ends, and frames that come in any pieces.

use super::Broker;
use super::client::Client;

/// Subscribes a second connection to `/queue/a`.
fn reader(broker: &Broker) -> Client {
    let mut reader = broker.connect();
    reader.subscribe("r", "/queue/a", "auto");
    reader
}

/// Sends the bytes of one SEND to `/queue/a`, and gives the body that arrives.
#[track_caller]
fn body_of(version: &str, frame: &[u8]) -> Vec<u8> {
    let broker = Broker::start();
    let mut reader = reader(&broker);
    let mut client = broker.speak(version);
    client.raw(frame);
    reader.message().body
}

#[test]
fn without_a_length_the_body_ends_at_the_first_nul() {
    assert_eq!(body_of("1.2", b"SEND\ndestination:/queue/a\n\nhello\n\nworld\0\n"), b"hello\n\nworld");
}

#[test]
fn with_a_length_the_body_may_have_nuls() {
    for version in ["1.0", "1.1", "1.2"] {
        let body = body_of(version, b"SEND\ndestination:/queue/a\ncontent-length:5\n\n\0a\0b\0\0");
        assert_eq!(body, b"\0a\0b\0", "{version}");
    }
}

#[test]
fn every_byte_may_be_in_a_body() {
    let bytes: Vec<u8> = (0..=255).cycle().take(1024).collect();
    let broker = Broker::start();
    let mut client = broker.connect();
    client.put("/queue/a", &bytes);
    client.subscribe("1", "/queue/a", "auto");
    assert_eq!(client.message().body, bytes);
}

#[test]
fn a_body_may_be_empty() {
    assert_eq!(body_of("1.2", b"SEND\ndestination:/queue/a\n\n\0"), b"");
    assert_eq!(body_of("1.2", b"SEND\ndestination:/queue/a\ncontent-length:0\n\n\0"), b"");
}

#[test]
fn the_first_length_counts() {
    let frame = b"SEND\ndestination:/queue/a\ncontent-length:3\ncontent-length:1\n\na\0b\0";
    assert_eq!(body_of("1.2", frame), b"a\0b");
}

#[test]
fn a_length_may_be_on_any_frame() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:1\ncontent-length:3\n\na\0b\0");
    client.receipt("1");
    client.put("/queue/a", "still in step");
    assert_eq!(client.message().text(), "still in step");
}

#[test]
fn a_body_where_there_may_be_none_is_passed_over() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:1\n\nwhat is this\0");
    client.receipt("1");
    client.raw("BEGIN\ntransaction:t\nreceipt:2\n\n\n\0");
    client.receipt("2");
}

macro_rules! broken_frames {
    ($($name:ident: $version:literal $frame:expr;)+) => {$(
        #[test]
        fn $name() {
            let broker = Broker::start();
            let mut client = broker.speak($version);
            client.raw($frame);
            client.error();
        }
    )+};
}

broken_frames! {
    a_body_longer_than_its_length_is_an_error:
        "1.2" "SEND\ndestination:/queue/a\ncontent-length:2\n\nabc\0";
    a_negative_length_is_an_error: "1.2" "SEND\ndestination:/queue/a\ncontent-length:-1\n\na\0";
    a_length_with_a_sign_is_an_error: "1.2" "SEND\ndestination:/queue/a\ncontent-length:+1\n\na\0";
    a_length_with_a_blank_is_an_error: "1.2" "SEND\ndestination:/queue/a\ncontent-length:1 1\n\na\0";
    a_hexadecimal_length_is_an_error: "1.2" "SEND\ndestination:/queue/a\ncontent-length:0x1\n\na\0";
    an_empty_length_is_an_error: "1.2" "SEND\ndestination:/queue/a\ncontent-length:\n\na\0";
    a_length_beyond_all_numbers_is_an_error:
        "1.2" "SEND\ndestination:/queue/a\ncontent-length:99999999999999999999999\n\na\0";
    a_length_of_64_bits_is_an_error:
        "1.1" "SEND\ndestination:/queue/a\ncontent-length:18446744073709551615\n\na\0";
    a_line_without_a_colon_is_an_error: "1.2" "SEND\ndestination:/queue/a\nnonsense\n\na\0";
    a_line_without_a_name_is_an_error: "1.2" "SEND\ndestination:/queue/a\n:x\n\na\0";
    a_command_in_lower_case_is_an_error: "1.2" "send\ndestination:/queue/a\n\na\0";
    a_command_with_a_blank_is_an_error: "1.2" "SEND \ndestination:/queue/a\n\na\0";
    an_unknown_command_is_an_error: "1.2" "PUBLISH\ndestination:/queue/a\n\na\0";
    an_unknown_command_of_1_0_is_an_error: "1.0" "PUBLISH\ndestination:/queue/a\n\na\0";
    a_message_from_a_client_is_an_error:
        "1.2" "MESSAGE\ndestination:/queue/a\nmessage-id:1\nsubscription:1\n\na\0";
    a_receipt_from_a_client_is_an_error: "1.2" "RECEIPT\nreceipt-id:1\n\n\0";
    an_error_from_a_client_is_an_error: "1.2" "ERROR\nmessage:x\n\n\0";
    a_connected_from_a_client_is_an_error: "1.2" "CONNECTED\nversion:1.2\n\n\0";
    a_header_that_is_not_utf_8_is_an_error: "1.2" &b"SEND\ndestination:/queue/a\nx:\xFF\n\na\0"[..];
    a_command_that_is_not_utf_8_is_an_error: "1.2" &b"S\xC3\x28\ndestination:/queue/a\n\na\0"[..];
    a_nul_in_a_header_is_an_error: "1.2" "SEND\ndestination:/queue/a\nx:a\0b\n\nbody\0";
    a_nul_in_a_command_is_an_error: "1.2" "SE\0ND\ndestination:/queue/a\n\nbody\0";
    a_carriage_return_within_a_header_of_1_2_is_an_error:
        "1.2" "SEND\ndestination:/queue/a\nx:a\rb\n\nbody\0";
}

#[test]
fn any_line_ends_may_stand_between_frames() {
    let broker = Broker::start();
    for version in ["1.0", "1.1", "1.2"] {
        let mut client = broker.speak(version);
        client.raw("\n\n\nSEND\ndestination:/queue/z\nreceipt:1\n\nx\0\n\n\r\n\n");
        client.receipt("1");
        client.raw("\r\nSEND\ndestination:/queue/z\nreceipt:2\n\nx\0");
        client.receipt("2");
    }
}

#[test]
fn nuls_between_frames_are_passed_over() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("\0\0\nSEND\ndestination:/queue/z\nreceipt:1\n\nx\0\0");
    client.receipt("1");
    client.put("/queue/z", "x");
}

#[test]
fn lines_of_1_2_may_end_as_on_windows() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SUBSCRIBE\r\nid:1\r\ndestination:/queue/a\nreceipt:1\r\n\r\n\0\r\n");
    client.receipt("1");
    client.raw("SEND\ndestination:/queue/a\r\nx:y\r\n\nline\r\n\0\r\n\r\n");
    let message = client.message();
    assert_eq!((message.get("x"), message.get("destination")), ("y", "/queue/a"));
    assert_eq!(message.text(), "line\r\n", "a body is left as it is");
}

#[test]
fn the_server_itself_ends_lines_with_a_line_feed() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SUBSCRIBE\r\nid:1\r\ndestination:/queue/a\r\nreceipt:1\r\n\r\n\0\r\n");
    assert!(!client.receipt("1").bytes.contains(&b'\r'));
}

#[test]
fn a_carriage_return_within_a_header_of_1_1_is_data() {
    let broker = Broker::start();
    let mut client = broker.speak("1.1");
    client.subscribe("1", "/queue/a", "auto");
    client.raw("SEND\ndestination:/queue/a\nx:a\rb\n\nbody\0");
    assert_eq!(client.message().get("x"), "a\rb");
}

#[test]
fn frames_may_come_byte_by_byte() {
    for version in ["1.0", "1.1", "1.2"] {
        let broker = Broker::start();
        let mut client = broker.open();
        let connect = format!("\nCONNECT\naccept-version:{version}\nhost:a\n\n\0\n");
        for byte in connect.bytes() {
            client.raw([byte]);
        }
        client.version = version.to_owned();
        assert_eq!(client.frame().get("version"), version);
        let frames = "SUBSCRIBE\nid:1\ndestination:/queue/a\nreceipt:1\n\n\0\n\
                      SEND\ndestination:/queue/a\ngrüße:ü\ncontent-length:3\n\na\0b\0\n";
        for byte in frames.bytes() {
            client.raw([byte]);
        }
        client.receipt("1");
        let message = client.message();
        assert_eq!((message.get("grüße"), &message.body[..]), ("ü", &b"a\0b"[..]), "{version}");
    }
}

#[test]
fn a_frame_may_be_split_at_any_byte() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    let frame =
        "SEND\r\ndestination:/queue/a\r\nk\\c:a\\\\\\n\\r\\cü\r\ncontent-length:4\r\n\r\na\0\nb\0\r\n";
    for at in 1..frame.len() {
        let (head, tail) = frame.as_bytes().split_at(at);
        client.raw(head);
        client.raw(tail);
        let message = client.message();
        assert_eq!((message.get("k:"), &message.body[..]), ("a\\\n\r:ü", &b"a\0\nb"[..]), "split at {at}");
    }
}

#[test]
fn many_frames_may_come_in_one_piece() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.subscribe("1", "/queue/a", "auto");
    let mut bytes = Vec::new();
    for n in 0..1000 {
        let n = n.to_string();
        bytes.extend(client.encoded("SEND", &[("destination", "/queue/a"), ("n", &n)], n.as_bytes()));
    }
    client.raw(bytes);
    for n in 0..1000 {
        let message = client.message();
        assert_eq!((message.get("n"), message.text()), (n.to_string().as_str(), n.to_string()));
    }
}

#[test]
fn the_server_writes_one_line_feed_behind_each_frame() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.raw("SEND\ndestination:/queue/z\nreceipt:1\n\nx\0SEND\ndestination:/queue/z\nreceipt:2\n\nx\0");
    for receipt in 1..=2 {
        let bytes = client.link().take_up_to(b"\0\n").expect("a receipt");
        assert_eq!(String::from_utf8_lossy(&bytes), format!("RECEIPT\nreceipt-id:{receipt}\n\n\0\n"));
    }
}
