//! Who may do what: users with a passcode, their destinations, anonymous clients, TLS, and the demo.

use super::Broker;
use super::client::{Client, Way};
use crate::harness::{Binary, Link, longwire};
use crate::tls;
use std::io::Write;
use std::process::Stdio;
use std::sync::LazyLock;

/// The hash of `open sesame: \`, as the command makes it.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut command = longwire(&["passcode"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    child.stdin.take().expect("it is piped").write_all(b"open sesame: \\\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
});

/// A server where nobody may do anything, but users what stands here.
fn strict(users: &str) -> Broker {
    let users = users.replace("HASH", &HASH);
    Broker::of(tempfile::tempdir().expect("a directory"), users, |config| {
        let options = &mut config.queues.options;
        options.allow_send_for_client = false;
        options.allow_consume_for_client = false;
        config.channel.allow_publish_for_client = false;
        config.channel.allow_subscribe_for_client = false;
        config.channel.allow_publish_for_anonymous = false;
        config.channel.allow_subscribe_for_anonymous = false;
    })
}

const WORKER: &str = "[users.worker]\npasscode = '''HASH'''\nsend = [\"/queue/out.*\", \"/topic/news\"]\n\
                      subscribe = [\"/queue/in\", \"/topic/#\"]\n[users.boss]\npasscode = '''HASH'''\nadmin = [\"#\"]\n";

#[track_caller]
fn login(broker: &Broker, user: &str) -> Client {
    let mut client = broker.open();
    client.connect("1.2", &[("login", user), ("passcode", "open sesame: \\")]);
    client
}

#[test]
fn a_user_logs_in_with_its_passcode_as_it_stands() {
    let broker = strict(WORKER);
    let _worker = login(&broker, "worker");
    let listed = broker.server.api("connections", &serde_json::json!({"user": "worker"}));
    assert!(listed.to_string().contains("\"worker\""), "{listed}");
}

#[test]
fn a_wrong_passcode_and_a_wrong_login_are_refused_alike() {
    let broker = strict(WORKER);
    let mut texts = Vec::new();
    for (user, passcode) in [("worker", "open sesame"), ("nobody", "open sesame: \\"), ("worker", "")] {
        let mut client = broker.open();
        client.version = "1.0".to_owned();
        client.raw(format!("CONNECT\naccept-version:1.2\nhost:a\nlogin:{user}\npasscode:{passcode}\n\n\0"));
        let error = client.error();
        texts.push(error.get("message").to_owned());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[test]
fn a_user_does_what_its_destinations_allow() {
    let broker = strict(WORKER);
    let mut client = login(&broker, "worker");
    client.put("/queue/out.a", "x");
    client.subscribe("t", "/topic/news", "auto");
    client.put("/topic/news", "y");
    assert_eq!(client.message().text(), "y");
    client.subscribe("q", "/queue/in", "auto");
    login(&broker, "boss").put("/queue/in", "z");
    assert_eq!(client.message().text(), "z");
}

macro_rules! forbidden {
    ($($name:ident: $frame:literal;)+) => {$(
        #[test]
        fn $name() {
            let broker = strict(WORKER);
            let mut client = login(&broker, "worker");
            client.raw($frame);
            let error = client.error();
            assert_eq!(error.get("receipt-id"), "r");
            assert!(error.get("message").contains("permission denied"), "{error:?}");
        }
    )+};
}

forbidden! {
    a_user_sends_to_no_other_queue: "SEND\ndestination:/queue/in\nreceipt:r\n\nx\0";
    a_pattern_of_one_part_is_not_two: "SEND\ndestination:/queue/out.a.b\nreceipt:r\n\nx\0";
    a_user_publishes_in_no_other_topic: "SEND\ndestination:/topic/other\nreceipt:r\n\nx\0";
    a_user_consumes_no_other_queue: "SUBSCRIBE\nid:1\ndestination:/queue/out.a\nreceipt:r\n\n\0";
    a_user_looks_into_no_other_queue:
        "SUBSCRIBE\nid:1\ndestination:/queue/out.a\nbrowser:true\nreceipt:r\n\n\0";
    a_user_takes_no_dead_letters: "SUBSCRIBE\nid:1\ndestination:/queue/dead.in\nreceipt:r\n\n\0";
}

#[test]
fn a_transaction_does_nothing_that_its_user_may_not() {
    let broker = strict(WORKER);
    let mut client = login(&broker, "worker");
    client.raw("BEGIN\ntransaction:t\n\n\0SEND\ndestination:/queue/out.a\ntransaction:t\n\nx\0");
    client.raw("SEND\ndestination:/queue/in\ntransaction:t\n\nx\0COMMIT\ntransaction:t\nreceipt:r\n\n\0");
    client.error();
    let mut boss = login(&broker, "boss");
    boss.subscribe("1", "/queue/out.a", "auto");
    boss.put("/queue/mark", "x");
    boss.subscribe("2", "/queue/mark", "auto");
    assert_eq!(boss.message().get("subscription"), "2");
}

#[test]
fn an_anonymous_client_may_do_what_the_settings_say() {
    let broker = strict(WORKER);
    for frame in ["SEND\ndestination:/queue/out.a\n\nx\0", "SUBSCRIBE\nid:1\ndestination:/topic/news\n\n\0"] {
        let mut client = broker.connect();
        client.raw(frame);
        client.error();
    }
}

#[test]
fn the_answer_to_a_request_may_be_sent_by_who_was_asked() {
    let broker = strict(WORKER);
    let mut worker = login(&broker, "worker");
    worker.subscribe("q", "/queue/in", "auto");
    let mut boss = login(&broker, "boss");
    boss.put_with("/queue/in", &[("reply-to", "/temp-queue/x")], "question");
    let reply_to = worker.message().get("reply-to").to_owned();
    worker.put(&reply_to, "answer");
    assert_eq!(boss.message().text(), "answer");
}

#[test]
fn stomp_is_spoken_over_tls() {
    let (files, certificate) = tls::Files::new();
    let (chain, key) = (files.tls().certificate, files.tls().key);
    let broker = Broker::with(&format!(
        "[listeners.stomps]\naddress = \"127.0.0.1:0\"\nprotocol = \"stomp\"\ntls_certificate = {chain:?}\ntls_key = {key:?}\n"
    ));
    let address = broker.server.server().addresses()[2];
    let link = Link::open(address).with_tls(tls::client(&certificate, rustls::ALL_VERSIONS));
    let mut client = Client::over(Way::Tcp(Box::new(link)));
    client.connect("1.2", &[]);
    let body = vec![b'x'; 1_000_000];
    client.put("/queue/a", &body);
    client.subscribe("1", "/queue/a", "client");
    let message = client.message();
    assert!(message.body == body);
    client.ack(&message);
    let mut plain = broker.connect();
    plain.put("/queue/a", "from the other port");
    assert_eq!(client.message().text(), "from the other port");
    client.disconnect();
}

#[test]
fn the_demo_speaks_stomp_and_leaves_nothing_behind() {
    let settings = [
        "demo",
        "--server.listen=127.0.0.1:0",
        "--listeners.tcp.address=127.0.0.1:0",
        "--listeners.stomp.address=127.0.0.1:0",
    ];
    let mut demo = Binary::start(&settings);
    let line = demo.stderr().await_line("protocol=\"stomp\"");
    let address = line.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let mut client = Client::open(address.expect("an address").parse().expect("an address"));
    client.connect("1.2", &[]);
    client.put("/queue/a", "x");
    client.subscribe("1", "/queue/a", "client");
    assert_eq!(client.message().text(), "x");
    demo.signal("TERM");
    assert!(demo.wait().success());
}
