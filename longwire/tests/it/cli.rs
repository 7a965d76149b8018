//! The command as a user runs it: what it prints where, and with which code it ends.

use crate::harness::{Binary, Raw, SECRET, longwire};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn run(arguments: &[&str]) -> Output {
    longwire(arguments).output().expect("it was built")
}

#[track_caller]
fn ends(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it prints UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout: {stdout}\nstderr: {stderr}");
    (stdout, stderr)
}

#[test]
fn check_prints_a_right_configuration_with_its_sources_and_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("longwire.toml");
    let contents = format!("[auth]\nhmac_secret = \"{SECRET}\"\n\n[namespaces.chat]\npresence = true\n");
    std::fs::write(&file, contents).expect("written");
    let path = file.to_str().expect("UTF-8");
    let output = longwire(&["check", "--config", path, "--heartbeat.interval", "20s"])
        .env("LONGWIRE_WEBSOCKET__COMPRESSION", "true")
        .output()
        .expect("it was built");
    let (stdout, stderr) = ends(&output, 0);
    for line in [
        "interval = \"20s\" # from flag --heartbeat.interval".to_owned(),
        "compression = true # from environment variable LONGWIRE_WEBSOCKET__COMPRESSION".to_owned(),
        format!("presence = true # from {path} line 5"),
        "timeout = \"8s\" # from default".to_owned(),
    ] {
        assert!(stdout.lines().any(|printed| printed == line), "{line} is not in\n{stdout}");
    }
    assert!(!stdout.contains(SECRET) && stdout.contains("(hidden)"), "{stdout}");
    assert_eq!(stderr, "longwire: the configuration is right\n");

    // What it prints is a configuration, except for the secrets.
    let again = folder.path().join("again.toml");
    std::fs::write(
        &again,
        stdout.lines().filter(|line| !line.contains("hidden")).collect::<Vec<_>>().join("\n"),
    )
    .expect("written");
    ends(&run(&["check", "--config", again.to_str().expect("UTF-8")]), 0);
}

#[test]
fn check_names_every_mistake_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("longwire.toml");
    std::fs::write(&file, "[heartbeat]\ninterval = 25\n[websocket]\nmax_mesage_bytes = 1\n")
        .expect("written");
    let path = file.to_str().expect("UTF-8");
    for command in ["check", "serve"] {
        let (stdout, stderr) = ends(&run(&[command, "--config", path, "--client.write-timeout=0s"]), 3);
        assert_eq!(stdout, "");
        for part in [
            format!("in {path} line 2: `heartbeat.interval`"),
            format!(
                "in {path} line 4: unknown key `websocket.max_mesage_bytes`; did you mean `websocket.max_message_bytes`?"
            ),
            "flag --client.write-timeout: `client.write_timeout`".to_owned(),
        ] {
            assert!(stderr.contains(&part), "{part} is not in\n{stderr}");
        }
    }
    let (_, stderr) = ends(&run(&["check", "--config", "/no/such/file.toml"]), 3);
    assert!(stderr.contains("/no/such/file.toml"), "{stderr}");
}

#[test]
fn wrong_arguments_end_with_2_and_help_with_0() {
    for arguments in [&["nonsense"][..], &[], &["pub"], &["sub"], &["pub", "a", "1", "--server.shards=1"]] {
        let (stdout, stderr) = ends(&run(arguments), 2);
        assert!(stdout.is_empty() && !stderr.is_empty(), "{arguments:?}");
    }
    let (stdout, _) = ends(&run(&["--help"]), 0);
    for command in ["serve", "demo", "check", "token", "pub", "sub", "queue", "connect", "bench"] {
        assert!(stdout.contains(&format!("\n  {command} ")), "{command} is not in\n{stdout}");
    }
    for help in [&["help"][..], &["help", "queue", "send"], &["bench", "fanout", "--help"]] {
        let (stdout, _) = ends(&run(help), 0);
        assert!(stdout.contains("Exit codes:"), "{help:?}: {stdout}");
        assert!(help.len() == 1 || stdout.contains("URLs:"), "{help:?}: {stdout}");
    }
    let (stdout, _) = ends(&run(&["--version"]), 0);
    assert_eq!(stdout, concat!("longwire ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn a_result_that_cannot_be_written_is_a_failure_that_says_so() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let output = longwire(&["check"]).stdout(full).output().expect("it was built");
    let (_, stderr) = ends(&output, 1);
    assert!(stderr.contains("standard output cannot be written: No space"), "{stderr}");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let (_server, address) = Binary::serve(&[]);
    let listen = format!("--server.listen={address}");
    let (_, stderr) = ends(&run(&["serve", "--log.level=error", &listen]), 1);
    assert!(stderr.contains(&format!("cannot listen on {address}")), "{stderr}");
    assert!(stderr.trim().ends_with("`--server.listen ADDRESS:PORT` takes another one"), "{stderr}");
}

#[test]
fn a_token_that_was_made_is_valid_and_connects() {
    let secret = ["--auth.hmac-secret", SECRET];
    let with_secret = |arguments: &[&str]| run(&[arguments, &secret].concat());
    let (stdout, stderr) =
        ends(&with_secret(&["token", "make", "--user", "42", "--expires", "10m", "--info", "{\"a\":1}"]), 0);
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET));
    let token = stdout.trim();
    let (stdout, _) = ends(&with_secret(&["token", "inspect", token]), 0);
    assert!(
        stdout.contains("\"sub\":\"42\"") && stdout.contains("verdict: a valid connection token"),
        "{stdout}"
    );

    let (_server, address) = Binary::serve(&secret);
    let mut raw = Raw::open(address);
    raw.connect(token);
    let (stdout, _) = ends(&with_secret(&["token", "make", "--user", "42", "--channel", "$news"]), 0);
    let subscription =
        serde_json::json!({"id": 2, "subscribe": {"channel": "$news", "token": stdout.trim()}});
    assert_eq!(raw.ask_value(&subscription)["subscribe"]["expires"], true);

    let (stdout, stderr) = ends(&with_secret(&["token", "inspect", &format!("{token}x")]), 5);
    assert!(stdout.contains("verdict: not valid") && !stderr.is_empty(), "{stdout}");
    ends(&with_secret(&["token", "inspect", "nonsense"]), 5);
    let other = ["token", "inspect", token, "--auth.hmac-secret", "quite another secret of 32 bytes!"];
    assert!(ends(&run(&other), 5).0.contains("the signature does not match"));
    ends(&run(&["token", "make", "--user", "42"]), 3);
    ends(&with_secret(&["token", "make", "--expires", "soon"]), 2);
    let expired = longwire::auth::sign(SECRET, &serde_json::json!({"sub": "42", "exp": 1})).expect("signed");
    assert!(ends(&with_secret(&["token", "inspect", &expired]), 5).0.contains("expired"));
}

#[test]
fn the_generated_documents_are_those_in_docs() {
    let folder = tempfile::tempdir().expect("a folder");
    ends(&run(&["docs", folder.path().to_str().expect("UTF-8")]), 0);
    for name in ["close-codes.md", "config.md"] {
        let written = std::fs::read_to_string(folder.path().join(name)).expect("it was written");
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        assert!(written == std::fs::read_to_string(kept).expect("it is there"), "{name} differs");
    }
}

/// Settings of a server whose channels anybody may read, and which remembers.
const OPEN: [&str; 7] = [
    "--client.allow-anonymous",
    "--channel.allow-subscribe-for-client",
    "--channel.allow-subscribe-for-anonymous",
    "--channel.history-size=100",
    "--channel.history-ttl=5m",
    "--channel.force-recovery",
    "--event-stream.retry=100ms",
];

fn publish(url: &str, data: &str) -> Output {
    run(&["pub", "news", data, "--url", url])
}

#[test]
fn sub_prints_what_pub_publishes_and_comes_back_when_the_server_does() {
    let (mut server, address) = Binary::serve(&OPEN);
    let url = format!("http://{address}");
    let mut reader = Binary::start(&["sub", "news", "--url", &url]);
    reader.stderr().await_line("longwire: connected to");
    let (stdout, _) = ends(&publish(&url, "{\"n\": 1}"), 0);
    assert!(stdout.starts_with("offset 1 epoch "), "{stdout}");
    ends(&publish(&url, "two words"), 0);
    reader.stdout().await_line("news 1 {\"n\": 1}");
    reader.stdout().await_line("news 2 \"two words\"");

    // What was published while it was away is gone with the server that knew it, and it says so.
    server.kill();
    reader.stderr().await_line("; trying again");
    let (mut server, _) = Binary::serve(&[&OPEN[..], &["--server.listen", &address.to_string()]].concat());
    reader.stderr().await_line("longwire: connected again to");
    reader.stderr().await_line("something was missed and is lost");
    ends(&publish(&url, "3"), 0);
    reader.stdout().await_line("news 1 3");

    // A server that drains is a server that comes back.
    server.signal("TERM");
    reader.stderr().await_line("the server said 3001: shutdown; trying again");
    assert_eq!(server.wait().code(), Some(0));
    let (_server, _) = Binary::serve(&[&OPEN[..], &["--server.listen", &address.to_string()]].concat());
    crate::harness::until("it to be connected once more", || {
        let lines = reader.stderr().lines();
        lines.iter().filter(|line| line.contains("connected again to")).count() == 2
    });
    assert_eq!(reader.stdout().lines().len(), 3);
    // Ctrl-C is how one ends it, and no failure.
    reader.signal("INT");
    assert_eq!(reader.wait().code(), Some(0));
}

#[test]
fn sub_recovers_what_it_missed_while_its_connection_was_cut() {
    let (_server, address) = Binary::serve(&OPEN);
    let url = format!("http://{address}");
    let reader = Binary::start(&["sub", "news", "--json", "--url", &url]);
    reader.stderr().await_line("longwire: connected to");
    for round in 1..=5 {
        // The backend sends it away with a code that means "come again", and publishes at once.
        let order = serde_json::json!({"user": "", "disconnect": {"code": 4000, "reason": "come again"}});
        crate::harness::api(address, "disconnect", &order);
        for n in 0..4 {
            ends(&publish(&url, &format!("[{round}, {n}]")), 0);
        }
        reader.stdout().await_line(&format!("[{round}, 3]"));
    }
    let printed: Vec<Value> = reader
        .stdout()
        .lines()
        .iter()
        .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
        .collect();
    let expected: Vec<Value> = (0..20u64)
        .map(|n| serde_json::json!({"channel": "news", "data": [n / 4 + 1, n % 4], "offset": n + 1}))
        .collect();
    assert_eq!(printed, expected);
}

#[test]
fn pub_and_sub_say_why_they_fail() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let (_, stderr) = ends(&publish(&format!("http://{nobody}"), "1"), 4);
    assert!(stderr.contains(&format!("cannot reach http://{nobody}")), "{stderr}");

    let (_server, address) =
        Binary::serve(&["--api.key", "the key of the backend", "--client.allow-anonymous"]);
    let url = format!("http://{address}");
    let (_, stderr) = ends(&publish(&url, "1"), 5);
    assert!(stderr.contains("the API key is wrong or missing (--key)"), "{stderr}");
    let keyed = run(&["pub", "news", "1", "--url", &url, "--key", "the key of the backend"]);
    assert_eq!(ends(&keyed, 0).0, "published (the channel keeps no history)\n");
    let unknown = run(&["pub", "nowhere:a", "1", "--url", &url, "--key", "the key of the backend"]);
    assert!(ends(&unknown, 5).1.contains("unknown channel (102)"));
    let (_, stderr) = ends(&run(&["sub", "news", "--url", &url]), 5);
    assert!(stderr.contains("HTTP 403"), "{stderr}");
    ends(&run(&["sub", "", "--url", &url]), 2);
    ends(&run(&["sub", "news", "--url", "nonsense"]), 2);
}

#[test]
fn the_demo_opens_a_listener_of_packets_and_says_when_it_cannot() {
    let settings = [
        "demo",
        "--server.listen=127.0.0.1:0",
        "--server.drain-over=0s",
        "--listeners.stomp.address=127.0.0.1:0",
        "--listeners.tcp.address",
    ];
    let demo = Binary::start(&[&settings[..], &["127.0.0.1:0"]].concat());
    let line = demo.stdout().await_line("TCP:");
    let address = line.split_whitespace().nth(1).expect("an address").trim_end_matches(',');
    let mut link = crate::harness::Link::open(address.parse().expect("an address"));
    assert!(link.take_up_to(b"\n").expect("a packet").starts_with(b"{\"type\":\"subscribed\""));
    let second = run(&[&settings[..], &[address]].concat());
    let (_, stderr) = ends(&second, 1);
    assert!(stderr.contains(&format!("listener \"tcp\": cannot listen on {address}: ")), "{stderr}");
    assert!(stderr.contains("`--listeners.tcp.address ADDRESS:PORT`"), "{stderr}");
}

#[test]
fn the_demo_says_what_to_do_and_serves_its_page() {
    let mut demo = Binary::start(&["demo", "--server.listen", "127.0.0.1:0", "--server.drain-over=0s"]);
    demo.stdout().await_line("The demo page:");
    demo.stdout().await_line("curl http://");
    for line in ["WebSocket:       ws://", "SSE:", "HTTP stream:", "Long-poll:"] {
        demo.stdout().await_line(line);
    }
    let line = demo.stderr().await_line("listening");
    let address = line.rsplit("address=").next().expect("an address").trim().parse().expect("an address");
    let page = crate::harness::get(address, "/", "");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{}", page.head);
    let mut raw = Raw::open(address);
    let reply = raw.connect("any token");
    let client = reply["connect"]["client"].clone();
    raw.subscribe("demo");
    // The button that cuts a connection as a network would.
    let response =
        crate::harness::post(address, "/demo/cut", &serde_json::json!({"client": client}).to_string());
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(raw.link.await_end(), crate::harness::End::Reset);
    demo.signal("TERM");
    assert_eq!(demo.wait().code(), Some(0));
}
