//! `longwire sub` and `pub` over every kind of URL, with a break in the middle; `connect` and `bench` against the same server.
//!
//! The server is the built command, and so is each client. Between the two stands a relay that cuts what goes through it, as a network
//! does: without a word of either end.

use crate::harness::{Binary, LIMIT, Output, SECRET, api, longwire, until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A server on which everybody may do everything, and which remembers.
const OPEN: [&str; 22] = [
    "--client.allow-anonymous",
    "--channel.allow-subscribe-for-client",
    "--channel.allow-subscribe-for-anonymous",
    "--channel.allow-publish-for-client",
    "--channel.allow-publish-for-anonymous",
    "--channel.allow-history-for-client",
    "--channel.allow-history-for-anonymous",
    "--channel.history-size=100",
    "--channel.history-ttl=5m",
    "--channel.force-recovery",
    "--channel.allow-recovery",
    "--channel.allow-positioning",
    "--event-stream.retry=100ms",
    "--queue.allow-send-for-client",
    "--queue.allow-send-for-anonymous",
    "--queue.allow-consume-for-client",
    "--queue.allow-consume-for-anonymous",
    "--listeners.packets.address=127.0.0.1:0",
    "--listeners.packets.protocol=tcp",
    "--listeners.packets.first-packet=json",
    "--listeners.stomp.address=127.0.0.1:0",
    "--listeners.stomp.protocol=stomp",
];

struct World {
    server: Binary,
    http: SocketAddr,
    _folder: tempfile::TempDir,
}

impl World {
    fn start() -> World {
        World::in_folder(tempfile::tempdir().expect("a folder"), &[])
    }

    fn in_folder(folder: tempfile::TempDir, more: &[&str]) -> World {
        let data = folder.path().to_str().expect("UTF-8").to_owned();
        let (server, _) = Binary::serve(&[&OPEN[..], &["--server.data-dir", &data], more].concat());
        let http = listener(&server, "http");
        World { server, http, _folder: folder }
    }

    /// Where clients of this scheme connect.
    fn address(&self, scheme: &str) -> SocketAddr {
        match scheme {
            "tcp" => listener(&self.server, "tcp"),
            "stomp" => listener(&self.server, "stomp"),
            _ => self.http,
        }
    }

    fn publish(&self, channel: &str, data: impl Into<Value>) {
        api(self.http, "publish", &json!({"channel": channel, "data": data.into()}));
    }
}

/// Where the listener with this protocol is.
#[track_caller]
fn listener(server: &Binary, protocol: &str) -> SocketAddr {
    let line = server.stderr().await_line(&format!("\"protocol\":\"{protocol}\""));
    let line: Value = serde_json::from_str(&line).expect("the log is JSON");
    line["address"].as_str().expect("an address").parse().expect("an address")
}

/// Passes connections on, until it cuts them.
struct Relay {
    address: SocketAddr,
    links: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(server: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let links = Arc::<Mutex<Vec<TcpStream>>>::default();
        let kept = links.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
                kept.lock().expect("nobody panics with it").extend([copy(&client), copy(&server)]);
                pass(copy(&client), copy(&server));
                pass(server, client);
            }
        });
        Relay { address, links }
    }

    /// Resets everything that goes through it.
    fn cut(&self) {
        for link in self.links.lock().expect("nobody panics with it").drain(..) {
            let _ = socket2::SockRef::from(&link).set_linger(Some(std::time::Duration::ZERO));
            let _ = link.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}

fn values(output: &Output) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
    output.lines().iter().map(parse).collect()
}

fn events(output: &Output) -> Vec<String> {
    values(output).iter().filter_map(|line| Some(line["event"].as_str()?.to_owned())).collect()
}

/// Listens over one kind of URL while its connection is cut twice.
#[track_caller]
fn comes_back_with_everything(scheme: &str) {
    let world = World::start();
    let relay = Relay::to(world.address(scheme));
    let url = format!("{scheme}://{}", relay.address);
    let mut reader = Binary::start(&["sub", "news", "--json", "--events", "--url", &url]);
    let is_listening =
        |times: usize| events(reader.stdout()).iter().filter(|event| *event == "subscribed").count() == times;
    until("it to listen", || is_listening(1));
    for round in 0..3 {
        if round > 0 {
            relay.cut();
        }
        for n in 0..4 {
            world.publish("news", json!([round, n]));
        }
        reader.stdout().await_line(&format!("\"data\":[{round},3]"));
    }
    let lines = values(reader.stdout());
    let published: Vec<Value> = lines
        .iter()
        .filter(|line| line.get("channel").is_some_and(|_| line.get("event").is_none()))
        .cloned()
        .collect();
    let expected: Vec<Value> =
        (0..12u64).map(|n| json!({"channel": "news", "data": [n / 4, n % 4], "offset": n + 1})).collect();
    assert_eq!(published, expected, "{scheme}");
    let events = events(reader.stdout());
    let count = |name: &str| events.iter().filter(|event| *event == name).count();
    let counts = (count("disconnected"), count("recovered"), count("not_recovered"));
    // A poll that was cut off is asked again, and is no break.
    if scheme == "poll+http" {
        assert_eq!(counts.2, 0, "{events:?}");
    } else {
        assert_eq!(counts, (2, 2, 0), "{scheme}: {events:?}");
        let lost = lines.iter().find(|line| line["event"] == "disconnected").expect("counted");
        let cause = lost["cause"].as_str().unwrap_or_default();
        assert!(["reset", "ended", "broken"].contains(&cause), "{lost}");
    }
    reader.signal("INT");
    assert_eq!(reader.wait().code(), Some(0));
}

#[test]
fn sub_comes_back_with_everything_over_http() {
    comes_back_with_everything("http");
}

#[test]
fn sub_comes_back_with_everything_over_a_websocket() {
    comes_back_with_everything("ws");
}

#[test]
fn sub_comes_back_with_everything_over_an_http_stream() {
    comes_back_with_everything("stream+http");
}

#[test]
fn sub_comes_back_with_everything_over_server_sent_events() {
    comes_back_with_everything("sse+http");
}

#[test]
fn sub_comes_back_with_everything_over_long_polls() {
    comes_back_with_everything("poll+http");
}

#[test]
fn sub_comes_back_with_everything_over_packets() {
    comes_back_with_everything("tcp");
}

#[test]
fn sub_comes_back_with_everything_over_stomp() {
    comes_back_with_everything("stomp");
}

#[test]
fn sub_comes_back_with_everything_over_stomp_on_a_websocket() {
    comes_back_with_everything("stomp+ws");
}

/// Runs a command to its end with this input; code, standard output, standard error.
#[track_caller]
fn run(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut process = longwire(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was built");
    let mut stdin = process.stdin.take().expect("it is piped");
    // Whoever reads no input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let read = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).expect("it prints UTF-8");
            text
        })
    };
    let stdout = read(Box::new(process.stdout.take().expect("it is piped")));
    let stderr = read(Box::new(process.stderr.take().expect("it is piped")));
    let start = Instant::now();
    let mut status = None;
    while status.is_none() && start.elapsed() < LIMIT {
        status = process.try_wait().expect("it is our child");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    if status.is_none() {
        process.kill().expect("it is our child");
    }
    process.wait().expect("it is our child");
    let (stdout, stderr) = (stdout.join().expect("read"), stderr.join().expect("read"));
    let status = status.unwrap_or_else(|| panic!("{arguments:?} does not end:\n{stdout}\n{stderr}"));
    (status.code(), stdout, stderr)
}

#[test]
fn pub_publishes_over_every_kind_that_can() {
    let world = World::start();
    for (n, scheme) in ["http", "poll+http", "ws", "stomp", "stomp+ws"].into_iter().enumerate() {
        let url = format!("{scheme}://{}", world.address(scheme));
        let (code, stdout, stderr) = run(&["pub", "news", &format!("{{\"n\":{n}}}"), "--url", &url], "");
        assert_eq!(code, Some(0), "{scheme}: {stderr}");
        assert!(stdout.starts_with("offset ") || stdout == "published\n", "{scheme}: {stdout}");
    }
    let history = api(world.http, "history", &json!({"channel": "news", "limit": 10}));
    let found: Vec<&Value> = history["result"]["publications"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| &it["data"]["n"])
        .collect();
    assert_eq!(found, [0, 1, 2, 3, 4]);
    let url = format!("tcp://{}", world.address("tcp"));
    let (code, _, stderr) = run(&["pub", "news", "1", "--url", &url], "");
    assert_eq!(code, Some(2), "{stderr}");
}

#[test]
fn sub_and_pub_say_why_they_fail_with_the_same_codes_over_every_kind() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let (_closed, closed) = Binary::serve(&[]);
    for scheme in ["http", "ws", "stream+http", "sse+http", "poll+http", "stomp+ws"] {
        let url = format!("{scheme}://{nobody}");
        let (code, _, stderr) = run(&["sub", "news", "--attempts", "1", "--url", &url], "");
        assert_eq!(code, Some(4), "{scheme}: {stderr}");
        assert!(
            stderr.contains("connection refused") && stderr.contains("cannot reach"),
            "{scheme}: {stderr}"
        );
        // Nobody may come in without a token.
        let url = format!("{scheme}://{closed}");
        let (code, _, stderr) = run(&["sub", "news", "--url", &url], "");
        assert_eq!(code, Some(5), "{scheme}: {stderr}");
    }
    for scheme in ["ws", "stomp"] {
        let (code, _, stderr) = run(&["pub", "news", "1", "--url", &format!("{scheme}://{nobody}")], "");
        assert_eq!(code, Some(4), "{scheme}: {stderr}");
        let (code, _, stderr) = run(&["sub", "news", "--url", &format!("{scheme}://")], "");
        assert_eq!(code, Some(2), "{scheme}: {stderr}");
    }
}

/// Answers each connection with words that no dialect has.
fn stranger() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Whoever it greets may be gone.
            let _ = stream
                .write_all(b"220 mail.example.org ESMTP\r\n")
                .and_then(|()| stream.read(&mut [0; 1024]));
        }
    });
    address
}

#[test]
fn a_port_that_speaks_something_else_cannot_be_reached_whoever_asks() {
    let stranger = stranger();
    for scheme in ["http", "ws", "sse+http", "stomp", "stomp+ws"] {
        let url = format!("{scheme}://{stranger}");
        for command in [&["sub", "news", "--attempts", "1"][..], &["pub", "news", "1"], &["connect"]] {
            let url = if command[0] == "connect" { vec![url.as_str()] } else { vec!["--url", &url] };
            let (code, _, stderr) = run(&[command, &url].concat(), "");
            assert_eq!(code, Some(4), "{command:?} {scheme}: {stderr}");
        }
    }
}

#[test]
fn a_server_that_goes_away_is_away_and_refused_nobody() {
    for scheme in ["ws", "sse+http", "tcp", "stomp"] {
        for command in ["sub", "connect"] {
            let folder = tempfile::tempdir().expect("a folder");
            let world = World::in_folder(folder, &["--server.drain-over=10ms"]);
            let path = if command == "connect" && scheme == "sse+http" { "/sse?channels=news" } else { "" };
            let url = format!("{scheme}://{}{path}", world.address(scheme));
            let arguments = match command {
                "sub" => vec!["sub", "news", "--attempts", "1", "--url", &url],
                // It has no input, and stays all the same.
                _ => vec!["connect", &url, "--linger", "1m"],
            };
            let mut client = Binary::start(&arguments);
            let told = if command == "sub" { client.stderr() } else { client.stdout() };
            told.await_line("connected to");
            world.server.signal("TERM");
            assert_eq!(client.wait().code(), Some(4), "{arguments:?}: {:#?}", client.stderr().lines());
            let said = client.stderr().lines().pop().expect("it says why");
            assert!(said.contains("is lost: ") && !said.contains("right port"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn sub_over_packets_says_which_settings_of_the_listener_it_needs() {
    let start = |listener: &[&str]| {
        let packets = ["--listeners.packets.address=127.0.0.1:0", "--listeners.packets.protocol=tcp"];
        let (server, _) = Binary::serve(&[&["--client.insecure"], &packets[..], listener].concat());
        let url = format!("tcp://{}", self::listener(&server, "tcp"));
        (server, url)
    };
    for first in ["none", "client"] {
        let (_server, url) = start(&[&format!("--listeners.packets.first-packet={first}")]);
        let (code, stdout, stderr) = run(&["sub", "news", "--url", &url], "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{first}: {stderr}");
        assert!(!stderr.contains("connected"), "{first}: {stderr}");
        let last = stderr.lines().last().expect("it says why");
        assert!(last.contains("\"news\"") && last.ends_with("needs first_packet = \"json\""), "{stderr}");
    }
    let (_server, url) =
        start(&["--listeners.packets.first-packet=json", "--listeners.packets.framing=length"]);
    let (code, _, stderr) = run(&["sub", "news", "--attempts", "2", "--url", &url], "");
    assert_eq!(code, Some(4), "{stderr}");
    assert_eq!(stderr.matches("the framing that --packets names").count(), 1, "{stderr}");
    // Whoever gave a token, and a wrong one, is told of the token.
    let (server, _) = Binary::serve(&[
        "--auth.hmac-secret",
        SECRET,
        "--listeners.packets.address=127.0.0.1:0",
        "--listeners.packets.protocol=tcp",
        "--listeners.packets.first-packet=json",
    ]);
    let url = format!("tcp://{}", listener(&server, "tcp"));
    let (code, _, stderr) = run(&["sub", "news", "--token", "bad", "--url", &url], "");
    assert!(code == Some(5) && stderr.contains("--token"), "{stderr}");
    assert!(!stderr.contains("the framing that --packets names"), "{stderr}");
    // Who asks for no channel gets on with a listener that wants no packet.
    let (_server, url) = start(&[]);
    let report = bench(&["idle", "-n", "2", "-d", "100ms", "--url", &url]);
    assert_eq!(report["connected"], 2, "{report}");
}

/// Answers each request with this, and gives its head on.
fn web(answer: &'static str) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (heads, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut buffer = [0; 4096];
            let len = stream.read(&mut buffer).unwrap_or_default();
            // Nobody may want to know, or be there any more.
            let _ = heads.send(String::from_utf8_lossy(&buffer[..len]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, asked)
}

#[test]
fn over_http_a_server_that_is_too_busy_is_away_and_hears_the_headers() {
    let (address, asked) =
        web("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let url = format!("http://{address}");
    let more = ["--connect-header", "X-Me: 1", "--key", "K", "--url", &url];
    for command in [&["pub", "news", "1"][..], &["queue", "send", "a", "1"], &["queue", "receive", "a"]] {
        let (code, _, stderr) = run(&[command, &more].concat(), "");
        assert_eq!(code, Some(4), "{command:?}: {stderr}");
        assert!(stderr.contains("HTTP 503 Service Unavailable"), "{command:?}: {stderr}");
        let head = asked.recv_timeout(LIMIT).expect("it was asked").to_ascii_lowercase();
        assert!(head.contains("x-me: 1\r\n") && head.contains("x-api-key: k\r\n"), "{head}");
    }
    for (flag, value) in [("--key", "a\nb"), ("--connect-header", "a b:c")] {
        let (code, _, stderr) = run(&["pub", "news", "1", flag, value, "--url", &url], "");
        assert!(code == Some(2) && stderr.contains(&format!("`{flag}")), "{stderr}");
    }
}

#[test]
fn over_http_attempts_are_made_until_there_is_a_connection() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let url = format!("http://{nobody}");
    let (code, _, stderr) = run(&["pub", "news", "1", "--attempts", "2", "--url", &url], "");
    assert!(code == Some(4) && stderr.contains("nobody listens there"), "{stderr}");
    let publisher = {
        let url = url.clone();
        std::thread::spawn(move || run(&["pub", "news", "1", "--give-up-after", "1m", "--url", &url], ""))
    };
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!publisher.is_finished(), "it waits for somebody to listen");
    let (_server, _) = Binary::serve(&["--server.listen", &nobody.to_string()]);
    let (code, stdout, stderr) = publisher.join().expect("it ends");
    assert_eq!((code, stdout.starts_with("published")), (Some(0), true), "{stdout}{stderr}");
}

#[test]
fn no_proxy_of_the_environment_is_asked() {
    let world = World::start();
    let mut publish = longwire(&["pub", "news", "1", "--url", &format!("http://{}", world.http)]);
    let output = publish.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
    let output = output.env_remove("NO_PROXY").env_remove("no_proxy").output().expect("it was built");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn sub_ends_after_as_many_as_were_wanted() {
    let world = World::start();
    for n in 1..=3 {
        world.publish("news", n);
    }
    let history = api(world.http, "history", &json!({"channel": "news"}));
    let epoch = history["result"]["epoch"].as_str().expect("an epoch").to_owned();
    for scheme in ["http", "ws", "stomp", "poll+http"] {
        let url = format!("{scheme}://{}", world.address(scheme));
        let since = format!("news=1.{epoch}");
        let (code, stdout, stderr) =
            run(&["sub", "news", "--max", "2", "--since", &since, "--url", &url], "");
        assert_eq!((code, stdout.as_str()), (Some(0), "news 2 2\nnews 3 3\n"), "{scheme}: {stderr}");
    }
}

/// A certificate as `openssl req -x509` makes one: an authority that vouches for itself. The file and that of its key.
fn self_signed(folder: &Path) -> [String; 2] {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    [("certificate.pem", certificate.pem()), ("key.pem", key.serialize_pem())].map(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    })
}

#[test]
fn every_kind_with_tls_trusts_whom_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let [certificate, key] = self_signed(folder.path());
    let flags: Vec<String> = ["http", "tcp", "stomp"]
        .iter()
        .flat_map(|protocol| {
            let of = |setting: &str| format!("--listeners.secure-{protocol}.{setting}");
            [
                of("address=127.0.0.1:0"),
                of(&format!("protocol={protocol}")),
                of(&format!("tls-certificate={certificate}")),
                of(&format!("tls-key={key}")),
            ]
        })
        .chain(["--listeners.secure-tcp.first-packet=json".to_owned()])
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let world = World::in_folder(folder, &flags);
    let address = |protocol: &str| {
        let line = world.server.stderr().await_line(&format!("\"listener\":\"secure-{protocol}\""));
        let line: Value = serde_json::from_str(&line).expect("the log is JSON");
        assert_eq!(line["tls"], true);
        line["address"].as_str().expect("an address").to_owned()
    };
    let (http, tcp, stomp) = (address("http"), address("tcp"), address("stomp"));
    world.publish("news", 1);
    world.publish("news", 2);
    let history = api(world.http, "history", &json!({"channel": "news"}));
    let since = format!("news=1.{}", history["result"]["epoch"].as_str().expect("an epoch"));
    for (scheme, address) in [
        ("https", &http),
        ("wss", &http),
        ("sse+https", &http),
        ("stream+https", &http),
        ("poll+https", &http),
        ("tls", &tcp),
        ("stomps", &stomp),
        ("stomp+wss", &http),
    ] {
        let url = format!("{scheme}://{address}");
        let sub = ["sub", "news", "--max", "1", "--since", &since, "--attempts", "1", "--url", &url];
        let (code, _, stderr) = run(&sub, "");
        assert_eq!(code, Some(4), "{scheme}: {stderr}");
        let doubt = "TLS failed: the certificate is not trusted: it is one that signs others";
        assert!(stderr.contains(doubt) && stderr.contains("`--ca FILE`"), "{scheme}: {stderr}");
        let ca = ["--ca", certificate.as_str()];
        for trust in [&ca[..], &["--insecure"]] {
            let (code, stdout, stderr) = run(&[&sub[..], trust].concat(), "");
            assert_eq!((code, stdout.as_str()), (Some(0), "news 2 2\n"), "{scheme} {trust:?}: {stderr}");
        }
        let publish = ["pub", "other", "1", "--url", &url];
        if scheme != "tls" {
            let (code, _, stderr) = run(&publish, "");
            assert_eq!(code, Some(4), "{scheme}: {stderr}");
            assert!(stderr.contains(doubt) && stderr.contains("`--ca FILE`"), "{scheme}: {stderr}");
            for trust in [&ca[..], &["--insecure"]] {
                let (code, _, stderr) = run(&[&publish[..], trust].concat(), "");
                assert_eq!(code, Some(0), "{scheme} {trust:?}: {stderr}");
            }
        }
        let connect = ["connect", &url, "--linger", "10ms", "--ca", &certificate];
        let (code, stdout, stderr) = run(&connect, "");
        assert!(code == Some(0) && stdout.contains(" connected to "), "{scheme}: {stdout}{stderr}");
    }
    let queue = ["queue", "ls", "--url", &format!("https://{http}")];
    assert_eq!(run(&queue, "").0, Some(4));
    assert_eq!(run(&[&queue[..], &["--ca", &certificate]].concat(), "").0, Some(0));
    let report =
        bench(&["idle", "-n", "1", "-d", "100ms", "--ca", &certificate, "--url", &format!("wss://{http}")]);
    assert_eq!(report["connected"], 1, "{report}");
    // A certificate of somebody else is none of this server's, and a file without any is a mistake.
    let folder = tempfile::tempdir().expect("a folder");
    let [other, key] = self_signed(folder.path());
    let (code, _, stderr) = run(&["pub", "news", "1", "--ca", &other, "--url", &format!("wss://{http}")], "");
    assert_eq!(code, Some(4), "{stderr}");
    let (code, _, stderr) = run(&["pub", "news", "1", "--ca", &key], "");
    assert!(code == Some(2) && stderr.contains("there is none"), "{stderr}");
}

#[test]
fn a_queue_is_filled_and_emptied_over_http_and_stomp() {
    let world = World::start();
    for (sender, receiver) in [("http", "stomp"), ("stomp", "http"), ("stomp+ws", "stomp+ws")] {
        let (to, from) = (
            format!("{sender}://{}", world.address(sender)),
            format!("{receiver}://{}", world.address(receiver)),
        );
        for n in 1..=3 {
            let data = format!("{{\"n\":{n}}}");
            let (code, stdout, stderr) =
                run(&["queue", "send", "mails", &data, "--header", "kind:a", "--url", &to], "");
            assert_eq!(code, Some(0), "{sender}: {stderr}");
            assert!(stdout.starts_with("sent"), "{sender}: {stdout}");
        }
        let (code, stdout, stderr) = run(&["queue", "receive", "mails", "--max", "2", "--url", &from], "");
        assert_eq!(code, Some(0), "{receiver}: {stderr}");
        let (code, rest, stderr) = run(&["queue", "receive", "mails", "--wait", "1s", "--url", &from], "");
        assert_eq!(code, Some(0), "{receiver}: {stderr}");
        let received: Vec<Value> = stdout
            .lines()
            .chain(rest.lines())
            .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
            .collect();
        let numbers: Vec<&Value> = received.iter().map(|message| &message["data"]["n"]).collect();
        assert_eq!(numbers, [1, 2, 3], "{sender} to {receiver}: each once");
        assert!(
            received.iter().all(|message| message["queue"] == "mails" && message["headers"]["kind"] == "a")
        );
    }
    let url = format!("stomp://{}", world.address("stomp"));
    let (code, _, stderr) = run(&["queue", "ls", "--url", &url], "");
    assert!(code == Some(2) && stderr.contains("HTTP API"), "{stderr}");
}

/// What was shown, without the times.
fn shown(text: &str) -> Vec<&str> {
    text.lines().map(|line| line.split_once(' ').expect("a time before it").1).collect()
}

#[test]
fn connect_shows_both_ways_and_waits_for_the_answers_at_the_end_of_its_input() {
    let world = World::start();
    let url = format!("ws://{}", world.http);
    let input = "subscribe news\npublish news {\"a\": 1}\ndance\n{\"id\":9,\"presence_stats\":{\"channel\":\"news\"}}\n";
    let (code, stdout, stderr) = run(&["connect", &url, "--linger", "10ms"], input);
    // One of the lines is no command, and a script does not see what is shown of it.
    assert!(code == Some(1) && stderr.contains("1 line was not sent"), "{stderr}");
    assert_eq!(run(&["connect", &url, "--linger", "10ms"], "subscribe news\n").0, Some(0));
    let lines = shown(&stdout);
    for part in [
        "> {\"id\":2,\"subscribe\":{\"channel\":\"news\"}}",
        "> {\"id\":3,\"publish\":{\"channel\":\"news\",\"data\":{\"a\":1}}}",
        "* not sent: no command `dance`: `help` lists them",
        "* closed",
    ] {
        assert!(lines.contains(&part), "{part} is not in\n{stdout}");
    }
    for part in ["< {\"id\":1,\"connect\":", "\"data\":{\"a\":1}", "< {\"id\":9,", "* connected to ws://"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} is not in\n{stdout}");
    }
}

#[test]
fn connect_speaks_stomp_and_json_lines() {
    let world = World::start();
    for scheme in ["stomp", "stomp+ws"] {
        let url = format!("{scheme}://{}", world.address(scheme));
        let input = "subscribe /queue/x ack:auto\nsend /queue/x hello you\nSEND destination:/topic/news | {\"a\":1}\n";
        let (code, stdout, stderr) = run(&["connect", &url, "--json", "--linger", "200ms"], input);
        assert_eq!(code, Some(0), "{stderr}");
        let lines: Vec<Value> =
            stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect();
        let texts = |direction: &str| {
            let of = |line: &Value| {
                (line["direction"] == direction).then(|| line["text"].as_str().map(str::to_owned))
            };
            lines.iter().filter_map(of).flatten().collect::<Vec<String>>()
        };
        let (sent, received) = (texts("sent"), texts("received"));
        assert!(sent[0].starts_with("CONNECT accept-version:1.0,1.1,1.2"), "{sent:?}");
        assert!(received[0].starts_with("CONNECTED "), "{received:?}");
        let message = received.iter().find(|text| text.starts_with("MESSAGE ")).expect("a message came");
        assert!(message.contains(" destination:/queue/x ") && message.ends_with(" | hello you"), "{message}");
        assert!(sent.last().is_some_and(|text| text.starts_with("DISCONNECT receipt:")), "{sent:?}");
        assert!(
            received.iter().any(|text| text.starts_with("RECEIPT receipt-id:disconnect-")),
            "{received:?}"
        );
        assert!(lines.iter().all(|line| line["at_ms"].as_u64().is_some_and(|at| at > 1_700_000_000_000)));
    }
}

#[test]
fn connect_shows_the_plain_dialect_over_every_transport() {
    let world = World::start();
    for (scheme, path) in [
        ("ws", "/ws?channels=news"),
        ("sse+http", "/sse?channels=news"),
        ("stream+http", "/stream?channels=news"),
        ("poll+http", "/poll?channels=news"),
    ] {
        let url = format!("{scheme}://{}{path}", world.http);
        // Its input stays open: it is read until the publication came.
        let mut process = longwire(&["connect", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut stdout = process.stdout.take().expect("it is piped");
        let mut seen = String::new();
        let mut read_until = |part: &str| {
            while !seen.contains(part) {
                let mut buffer = [0; 4096];
                let len = stdout.read(&mut buffer).expect("a pipe");
                assert!(len > 0, "{scheme}: it ended without {part}: {seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..len]));
            }
        };
        read_until("\"session\":");
        world.publish("news", "hello");
        read_until("\"data\":\"hello\"");
        drop(process.stdin.take());
        assert!(process.wait().expect("it ends").success(), "{scheme}");
    }
}

#[test]
fn connect_ends_with_the_code_of_what_ended_the_connection() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let (code, _, stderr) = run(&["connect", &format!("ws://{nobody}")], "subscribe news\n");
    assert_eq!(code, Some(4), "{stderr}");
    let (_closed, closed) = Binary::serve(&[]);
    let (code, stdout, stderr) = run(&["connect", &format!("ws://{closed}")], "");
    assert_eq!(code, Some(5), "{stderr}\n{stdout}");
    let (code, _, stderr) = run(&["connect", "nonsense"], "");
    assert!(code == Some(2) && stderr.contains("`nonsense`: is no URL"), "{stderr}");
    let (code, _, stderr) = run(&["connect", &format!("ws://{nobody}"), "--attempts", "2"], "");
    assert!(code == Some(2) && stderr.contains("`--reconnect`"), "{stderr}");
}

#[track_caller]
fn bench(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = run(&[&["bench"], arguments, &["--json"]].concat(), "");
    assert_eq!(code, Some(0), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(report["failures"], json!({}), "{report}");
    report
}

#[test]
fn bench_counts_every_publication_over_every_kind() {
    let world = World::start();
    for scheme in ["ws", "sse+http", "stomp"] {
        let url = format!("{scheme}://{}", world.address(scheme));
        let report = bench(&["fanout", "-n", "5", "-d", "1s", "--rate", "20", "--url", &url]);
        assert_eq!((&report["connected"], &report["missing"]), (&5.into(), &0.into()), "{report}");
        let (sent, received) = (report["sent"].as_u64(), report["received"].as_u64());
        assert!(sent.is_some_and(|sent| (10..=21).contains(&sent)), "{report}");
        assert_eq!(received, sent.map(|sent| sent * 5), "{report}");
        assert_eq!(report["latency_ms"]["count"].as_u64(), received, "{report}");
    }
    for (scheme, channel) in [("ws", "bench"), ("stomp+ws", "bench"), ("stomp", "/queue/bench")] {
        let url = format!("{scheme}://{}", world.address(scheme));
        // Within what the server lets one client say.
        let options = ["-n", "3", "-d", "500ms", "--rate", "50", "--channel", channel];
        let report = bench(&[&["echo", "--url", &url], &options[..]].concat());
        assert!(report["received"].as_u64().is_some_and(|received| received >= 3), "{report}");
        assert_eq!(report["missing"], 0, "{report}");
    }
}

#[test]
fn bench_counts_connections_that_stay_and_that_come_and_go() {
    let world = World::start();
    let url = format!("ws://{}", world.http);
    let report = bench(&["idle", "-n", "20", "-d", "200ms", "--url", &url]);
    assert_eq!((&report["connected"], &report["connect_ms"]["count"]), (&20.into(), &20.into()), "{report}");
    let report = bench(&["churn", "-n", "2", "-d", "1s", "--url", &url]);
    assert!(report["connects"].as_u64().is_some_and(|connects| connects > 4), "{report}");
    assert!(report["connects_per_second"].as_f64().is_some_and(|rate| rate > 2.0), "{report}");

    let (code, stdout, _) = run(&["bench", "idle", "-n", "2", "-d", "100ms", "--url", &url], "");
    assert!(code == Some(0) && stdout.contains("2 of 2") && stdout.contains("no failures"), "{stdout}");
}

#[test]
fn bench_names_what_failed() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound")
    };
    let url = format!("ws://{nobody}");
    let (code, stdout, stderr) =
        run(&["bench", "idle", "-n", "2", "-d", "100ms", "--attempts", "1", "--json", "--url", &url], "");
    assert_eq!(code, Some(4), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("one JSON object");
    assert_eq!(report["connected"], 0);
    assert_eq!(report["failures"]["refused"], 2, "{report}");
    let (_, stdout, _) = run(&["bench", "idle", "-n", "1", "--attempts", "1", "--url", &url], "");
    assert!(stdout.contains("1  refused: nobody listens there"), "{stdout}");
    let (_closed, closed) = Binary::serve(&[]);
    for scheme in ["ws", "http"] {
        let url = format!("{scheme}://{closed}");
        let (code, stdout, stderr) = run(&["bench", "fanout", "-n", "2", "-d", "1m", "--url", &url], "");
        assert!(code == Some(5) && stderr.contains("--token"), "{scheme}: {stderr}");
        assert!(stdout.contains("0 of 2"), "{scheme}: {stdout}");
    }
    let (code, _, stderr) = run(&["bench", "fanout", "--url", "tcp://127.0.0.1:9"], "");
    assert!(code == Some(2) && stderr.contains("--publish-url"), "{stderr}");
}
