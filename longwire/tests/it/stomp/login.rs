//! Who comes by which login, and what it may then do.

use super::Broker;
use super::client::Client;
use crate::harness::{LIMIT, longwire};
use std::io::Write;
use std::process::Stdio;
use std::time::Instant;

/// What `longwire passcode` makes of a passcode.
fn hash(passcode: &str) -> String {
    let mut process =
        longwire(&["passcode"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    process.stdin.take().expect("it is piped").write_all(passcode.as_bytes()).expect("it is read");
    let output = process.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// A server where only users come, and every right is one's own.
fn broker() -> Broker {
    let settings = format!(
        "[queues.\"work.#\"]\nallow_send_for_client = false\nallow_send_for_anonymous = false\n\
         allow_consume_for_client = false\nallow_consume_for_anonymous = false\n\
         [stomp]\nanonymous = \"never\"\nvirtual_hosts = [\"shop=work.\"]\n\
         [users.ann]\npasscode = \"{}\"\nsend = [\"/queue/work.*\"]\nsubscribe = [\"/queue/work.ann\"]\n\
         [users.ben]\npasscode = \"{}\"\nsubscribe = [\"/queue/work.#\"]\n",
        hash("ann's\\passcode:\u{e9}"),
        hash("ben's"),
    );
    Broker::with(&settings)
}

fn of(broker: &Broker, login: &str, passcode: &str) -> Client {
    let mut client = broker.open();
    client.connect("1.2", &[("login", login), ("passcode", passcode)]);
    client
}

#[test]
fn a_user_comes_by_the_passcode_whose_hash_is_configured() {
    let broker = broker();
    // CONNECT has no escapes: what looks like one is a part of the passcode.
    let mut ann = of(&broker, "ann", "ann's\\passcode:\u{e9}");
    ann.put("/queue/work.a", "x");
    for (login, passcode) in [("ann", "ben's"), ("ben", "ben"), ("nobody", "ben's"), ("ann", "")] {
        let begun = Instant::now();
        let mut client = broker.open();
        client.version = "1.0".to_owned();
        client.raw(format!("CONNECT\naccept-version:1.2\nhost:a\nlogin:{login}\npasscode:{passcode}\n\n\0"));
        let error = client.error();
        assert!(error.get("message").contains("wrong login or passcode"), "{login}: {error:?}");
        assert!(begun.elapsed().as_millis() >= 950 && begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    }
}

#[test]
fn a_user_does_only_what_it_has_a_right_to() {
    let broker = broker();
    let ann = || of(&broker, "ann", "ann's\\passcode:\u{e9}");
    ann().put("/queue/work.ann", "x");
    let mut consumer = ann();
    consumer.subscribe("1", "/queue/work.ann", "auto");
    assert_eq!(consumer.bodies(1), ["x"]);
    // What everybody may do is everybody's still.
    ann().put("/queue/free", "x");
    let denied = |mut client: Client, command: &str, destination: &str| {
        client.write(command, &[("destination", destination), ("id", "9"), ("receipt", "r")], b"");
        let error = client.error();
        assert!(error.get("message").contains("permission denied"), "{destination}: {error:?}");
        assert_eq!(error.get("receipt-id"), "r");
    };
    denied(ann(), "SEND", "/queue/work.a.b");
    denied(ann(), "SUBSCRIBE", "/queue/work.ben");
    denied(of(&broker, "ben", "ben's"), "SEND", "/queue/work.ben");
    of(&broker, "ben", "ben's").subscribe("1", "/queue/work.a.b", "auto");
}

#[test]
fn a_virtual_host_is_the_beginning_of_every_name() {
    let broker = broker();
    let mut shop = broker.open();
    shop.raw("CONNECT\naccept-version:1.2\nhost:shop\nlogin:ben\npasscode:ben's\n\n\0");
    assert_eq!(shop.frame().command, "CONNECTED");
    shop.version = "1.2".to_owned();
    shop.subscribe("1", "/queue/x", "auto");
    of(&broker, "ann", "ann's\\passcode:\u{e9}").put("/queue/work.x", "hello");
    let message = shop.message();
    assert_eq!((message.get("destination"), message.text()), ("/queue/x", "hello".to_owned()));
}
