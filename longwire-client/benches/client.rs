//! What a client costs: memory of an idle connection, and messages received a second on one core.
//!
//! `cargo bench -p longwire-client --bench client [-- idle|receive] [--secs N] [--connections N]`. Every figure is of a
//! process that holds clients and nothing else, pinned to core 1; what it talks to is pinned to core 0: the server of
//! `LONGWIRE_BIN` (or `target/release/longwire`) for idle connections, and for messages a source that writes the same
//! frames over and over, so that the receiver is what saturates. `floor` is a receiver that reads and counts frames, and
//! looks at nothing else. What must stay true: memory is that of the clients' process alone, and a client that
//! loses a message has no figure.

use longwire_client::{realtime, stomp};
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::handshake;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bytes of data in a message.
const DATA: usize = 128;

/// Frames that a source writes at once.
const BATCH: usize = 256;

/// Connections before memory is looked at for the first time: what is made once is made by then.
const WARM: usize = 500;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let (secs, connections) = (number("--secs", 5), number("--connections", 10_000));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.first().copied() {
        // Roles of children.
        Some("source") => source(words[1]),
        Some("hold") => hold(words[1], words[2], connections),
        Some("receive-from") => receive_from(words[1], words[2], secs),
        Some("idle") => idle(connections),
        Some("receive") => receive(secs),
        _ => {
            idle(connections);
            receive(secs);
        }
    }
}

/// This program in another role, on one core; it ends when it is dropped.
struct Role(Child);

impl Role {
    fn start(core: &str, arguments: &[&str]) -> Role {
        let mut command = Command::new("taskset");
        let program = std::env::current_exe().expect("a program knows where it is");
        command.args(["-c", core]).arg(program).args(arguments);
        Role::of(command)
    }

    fn of(mut command: Command) -> Role {
        Role(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("taskset is there"))
    }

    /// Its next line.
    fn line(&mut self) -> String {
        // One byte at a time, so that nothing of the next line is taken.
        let out = self.0.stdout.as_mut().expect("it is piped");
        let mut line = Vec::new();
        let mut byte = [0];
        while out.read(&mut byte).is_ok_and(|len| len == 1) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        assert!(!line.is_empty(), "a child ended early: {:?}", self.0.wait());
        String::from_utf8(line).expect("text")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- idle connections

const SERVER: &str = r#"
[server]
listen = ["127.0.0.1:0"]
shards = 1
data_dir = "DIRECTORY/data"
[listeners.stomp]
address = "127.0.0.1:0"
protocol = "stomp"
[client]
allow_anonymous = true
[channel]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[log]
json = true
"#;

/// A longwire on core 0; with it where it speaks HTTP and STOMP, and the folder that must outlive it.
fn longwire() -> (Role, String, String, tempfile::TempDir) {
    let binary = std::env::var_os("LONGWIRE_BIN").map_or_else(
        || {
            let bench = std::env::current_exe().expect("a program knows where it is");
            bench.ancestors().nth(2).expect("it lies in target/PROFILE/deps").join("longwire")
        },
        PathBuf::from,
    );
    assert!(
        binary.is_file(),
        "there is no server at {}: build it with `cargo build --release -p longwire`, or set LONGWIRE_BIN",
        binary.display()
    );
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("longwire.toml");
    let text = SERVER.replace("DIRECTORY", directory.path().to_str().expect("a path of text"));
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(binary).args(["serve", "--config"]).arg(&config);
    command.stderr(Stdio::piped());
    let mut role = Role::of(command);
    let mut addresses = Vec::new();
    let mut log = BufReader::new(role.0.stderr.take().expect("it is piped"));
    while addresses.len() < 2 {
        let mut line = String::new();
        assert!(log.read_line(&mut line).expect("a log") > 0, "the server ended");
        let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
        if line["message"] == "listening" {
            addresses.push(line["address"].as_str().expect("an address").to_owned());
        }
    }
    std::thread::spawn(move || while log.read_line(&mut String::new()).is_ok_and(|len| len > 0) {});
    (role, addresses.remove(0), addresses.remove(0), directory)
}

fn idle(connections: u64) {
    println!("\n| idle clients, each with a subscription | connections | bytes of memory a connection |");
    println!("|---|---|---|");
    for (name, kind) in [
        ("realtime over WebSocket", "ws"),
        ("realtime over HTTP stream", "stream+http"),
        ("realtime over SSE", "sse+http"),
        ("STOMP over TCP", "stomp"),
    ] {
        let (_server, http, stomp, _directory) = longwire();
        let url = format!("{kind}://{}", if kind == "stomp" { stomp } else { http });
        let count = connections.to_string();
        let mut holder = Role::start("1", &["hold", kind, &url, "--connections", &count]);
        println!("| {name} | {connections} | {} |", holder.line());
    }
}

/// Holds idle clients, and says what each has added to the memory of this process.
fn hold(kind: &str, url: &str, connections: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let _warm = clients(kind, url, WARM).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = resident_bytes();
        let _held = clients(kind, url, connections as usize).await;
        // Longer than a heartbeat, which every one of them has answered by then.
        tokio::time::sleep(Duration::from_secs(30)).await;
        println!("{}", resident_bytes().saturating_sub(before) / connections);
    });
}

/// Clients that stay for as long as this does.
#[derive(Default)]
struct Held {
    realtime: Vec<(realtime::Client, realtime::Subscription)>,
    stomp: Vec<(stomp::Client, stomp::Subscription)>,
}

/// So many clients, each connected and subscribed.
async fn clients(kind: &str, url: &str, count: usize) -> Held {
    let mut held = Held::default();
    for _ in 0..count {
        if kind == "stomp" {
            let client = stomp::Client::builder(url).build().expect("a client");
            let mut subscription = client.subscribe("/topic/idle").start().expect("a subscription");
            subscription.next().await.expect("it is confirmed");
            // As a reader that waits for what comes, which is what readers do.
            let _ = tokio::time::timeout(Duration::ZERO, subscription.next()).await;
            held.stomp.push((client, subscription));
        } else {
            let client = realtime::Client::builder(url).build().expect("a client");
            let mut subscription = client.subscribe("idle").expect("a subscription");
            subscription.next().await.expect("it is confirmed");
            let _ = tokio::time::timeout(Duration::ZERO, subscription.next()).await;
            held.realtime.push((client, subscription));
        }
    }
    held
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

// ---- messages received

fn receive(secs: u64) {
    println!("\n| messages of {DATA} bytes received on one core | a second | a second of its CPU time |");
    println!("|---|---|---|");
    for (name, what, who) in [
        ("realtime over WebSocket, a frame each", "centrifuge", "realtime"),
        ("the same with positions, each checked", "positions", "realtime"),
        ("floor: frames read and counted", "centrifuge", "floor"),
        ("STOMP over TCP", "stomp", "stomp"),
    ] {
        let mut source = Role::start("0", &["source", what]);
        let address = source.line();
        let secs = secs.to_string();
        let mut receiver = Role::start("1", &["receive-from", who, &address, "--secs", &secs]);
        println!("| {name} | {} |", receiver.line());
    }
}

/// Receives for a while after a warm-up, and says the rate by the clock and by CPU time.
fn receive_from(who: &str, address: &str, secs: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut meter = Meter::new(secs);
        match who {
            "realtime" => {
                let client = realtime::Client::builder(&format!("ws://{address}")).build().expect("a client");
                let mut channel = client.subscribe("c").expect("a subscription");
                loop {
                    match channel.next().await.expect("it goes on") {
                        realtime::Event::Publication(publication) => {
                            assert_eq!(publication.data.len(), DATA);
                            if meter.count() {
                                return;
                            }
                        }
                        realtime::Event::Subscribed(subscribed) => assert!(!subscribed.again),
                        other => panic!("{other:?}"),
                    }
                }
            }
            "stomp" => {
                let builder = stomp::Client::builder(&format!("stomp://{address}"));
                let client = builder.heart_beat(Duration::ZERO, Duration::ZERO).build().expect("a client");
                let mut topic = client.subscribe("/topic/c").start().expect("a subscription");
                loop {
                    if let stomp::Event::Message(message) = topic.next().await.expect("it goes on") {
                        assert_eq!(message.body().len(), DATA);
                        if meter.count() {
                            return;
                        }
                    }
                }
            }
            _ => floor(address, &mut meter),
        }
    });
}

/// Reads frames of a WebSocket and counts them.
fn floor(address: &str, meter: &mut Meter) {
    let mut socket = TcpStream::connect(address).expect("a source");
    socket
        .write_all(
            b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        )
        .expect("a source");
    let mut buffer = vec![0; 65_536];
    // The head of the answer, byte by byte.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut buffer[..1]).expect("a head");
        head.push(buffer[0]);
    }
    for command in ["{\"id\":1,\"connect\":{}}", "{\"id\":2,\"subscribe\":{\"channel\":\"c\"}}"] {
        let mut frame = vec![0x81, 0x80 | command.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(command.as_bytes());
        socket.write_all(&frame).expect("a source");
    }
    let mut held = 0;
    loop {
        held += socket.read(&mut buffer[held..]).expect("a source");
        let mut at = 0;
        loop {
            let rest = &buffer[at..held];
            let len = match rest {
                [_, 126, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
                [_, len @ 0..=125, ..] => 2 + usize::from(*len),
                _ => break,
            };
            if rest.len() < len {
                break;
            }
            at += len;
            if meter.count() {
                return;
            }
        }
        buffer.copy_within(at..held, 0);
        held -= at;
    }
}

/// Counts, and looks at the clock seldom.
struct Meter {
    count: u64,
    span: Duration,
    began: Option<(Instant, u64, u64)>,
    created: Instant,
}

impl Meter {
    fn new(secs: u64) -> Meter {
        Meter { count: 0, span: Duration::from_secs(secs), began: None, created: Instant::now() }
    }

    /// Counts one message; when enough have come, prints the figures and says so.
    fn count(&mut self) -> bool {
        self.count += 1;
        if !self.count.is_multiple_of(4096) {
            return false;
        }
        match self.began {
            None => {
                if self.created.elapsed() > Duration::from_secs(1) {
                    self.began = Some((Instant::now(), self.count, cpu_ticks()));
                }
                false
            }
            Some((began, first, ticks)) if began.elapsed() >= self.span => {
                let count = (self.count - first) as f64;
                // USER_HZ is 100 on every Linux that there is.
                let cpu = (cpu_ticks() - ticks) as f64 / 100.0;
                println!("{:.0} | {:.0}", count / began.elapsed().as_secs_f64(), count / cpu);
                true
            }
            Some(_) => false,
        }
    }
}

/// CPU time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().expect("a number"));
    fields.next().expect("user") + fields.next().expect("system")
}

// ---- what is received

/// Serves whoever connects, as if it had published to one channel for ever; says where.
fn source(what: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("it is bound"));
    for socket in listener.incoming().map_while(Result::ok) {
        socket.set_nodelay(true).expect("a socket");
        // An error means that the receiver has had enough.
        let _ = match what {
            "stomp" => stomp_source(socket),
            _ => centrifuge_source(socket, what == "positions"),
        };
    }
}

fn centrifuge_source(mut socket: TcpStream, has_positions: bool) -> std::io::Result<()> {
    let mut held = Vec::new();
    let mut buffer = [0; 4096];
    let answer = loop {
        let len = socket.read(&mut buffer)?;
        held.extend_from_slice(&buffer[..len]);
        if let Some((head, len)) = parse_request_head(&held, 16_384, 100).expect("a request") {
            let origins = AllowedOrigins::default();
            let options =
                handshake::Options { allowed_origins: &origins, subprotocols: &[], allow_deflate: false };
            let response = handshake::accept(&head, &options).expect("a handshake").response;
            held.drain(..len);
            break response;
        }
    };
    socket.write_all(&answer)?;
    let position = if has_positions {
        ",\"positioned\":true,\"recoverable\":true,\"epoch\":\"abcd\",\"offset\":1000000000"
    } else {
        ""
    };
    loop {
        let Some(text) = next_text(&mut held) else {
            let len = socket.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            held.extend_from_slice(&buffer[..len]);
            continue;
        };
        let mut is_subscribed = false;
        for command in text.lines() {
            let command: serde_json::Value = serde_json::from_str(command)?;
            let id = &command["id"];
            let reply = if command.get("connect").is_some() {
                format!(
                    "{{\"id\":{id},\"connect\":{{\"client\":\"c\",\"version\":\"bench\",\"ping\":25,\"pong\":true}}}}"
                )
            } else {
                is_subscribed = true;
                format!("{{\"id\":{id},\"subscribe\":{{{}}}}}", position.trim_start_matches(','))
            };
            socket.write_all(&text_frame(&reply))?;
        }
        if is_subscribed {
            break;
        }
    }
    let data = format!("\"{}\"", "x".repeat(DATA - 2));
    let mut offset = 1_000_000_000_u64;
    let mut batch = Vec::new();
    let offset_of = |offset: u64| if has_positions { format!(",\"offset\":{offset}") } else { String::new() };
    let frame = |offset| {
        let position = offset_of(offset);
        text_frame(&format!("{{\"push\":{{\"channel\":\"c\",\"pub\":{{\"data\":{data}{position}}}}}}}"))
    };
    loop {
        if has_positions || batch.is_empty() {
            batch.clear();
            for _ in 0..BATCH {
                offset += 1;
                batch.extend_from_slice(&frame(offset));
            }
        }
        socket.write_all(&batch)?;
    }
}

fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ 0..=125 => frame.push(len as u8),
        len => {
            frame.push(126);
            frame.extend_from_slice(&u16::try_from(len).expect("short").to_be_bytes());
        }
    }
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Takes the text of a client's frame, if it is whole; frames are short.
fn next_text(held: &mut Vec<u8>) -> Option<String> {
    let (start, len) = match held[..] {
        [_, 0xfe, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, len @ 0x80..=0xfd, ..] => (2, usize::from(len & 0x7f)),
        _ => return None,
    };
    let mask: [u8; 4] = held.get(start..start + 4)?.try_into().ok()?;
    let payload = held.get(start + 4..start + 4 + len)?;
    let text = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    held.drain(..start + 4 + len);
    Some(String::from_utf8(text).expect("text"))
}

fn stomp_source(mut socket: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let id = loop {
        let mut frame = Vec::new();
        if reader.read_until(0, &mut frame)? == 0 {
            return Ok(());
        }
        let frame = String::from_utf8(frame).expect("text");
        let header = |name: &str| {
            let mut lines = frame.lines().map(|line| line.trim_end_matches('\0'));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned))
        };
        if frame.trim_start().starts_with("SUBSCRIBE") {
            if let Some(receipt) = header("receipt") {
                socket.write_all(format!("RECEIPT\nreceipt-id:{receipt}\n\n\0").as_bytes())?;
            }
            break header("id").expect("an id");
        }
        socket.write_all(b"CONNECTED\nversion:1.2\nheart-beat:0,0\nserver:bench\n\n\0")?;
    };
    let body = "x".repeat(DATA);
    let mut batch = String::new();
    for number in 0..BATCH {
        batch.push_str(&format!(
            "MESSAGE\nsubscription:{id}\nmessage-id:{number}\ndestination:/topic/c\ncontent-type:text/plain\n\
             content-length:{DATA}\n\n{body}\0\n"
        ));
    }
    loop {
        socket.write_all(batch.as_bytes())?;
    }
}
