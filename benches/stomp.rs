//! What `benches/stomp` runs beside a broker: producers and consumers that speak STOMP 1.2 in raw bytes.
//!
//! One file of the standard library alone, which the script compiles with `rustc -O`. A thread for each connection. It
//! is no part of longwire, knows no broker by name, and does the same with each: the headers that differ are arguments.
//!
//! What must stay true: receipts are counted one by one and must all come; a message is counted when it was taken and
//! its ACK written; an ERROR, a lost message or one too many ends the run, so that there is no figure; nothing before the
//! warm-up is over is in one.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: stomp load ADDRESS NAME=VALUE...
       stomp fill ADDRESS count=N NAME=VALUE...
       stomp first ADDRESS NAME=VALUE...
NAME: queue producers consumers persistent says_transient bytes window secs rate receipts login passcode prefetch";
/// Time before what happens is counted.
const WARM_UP: Duration = Duration::from_secs(2);
/// After this long without a byte something is wrong.
const SILENCE: Duration = Duration::from_secs(60);

/// What is asked of the clients.
#[derive(Clone)]
struct Options {
    address: String,
    queue: String,
    producers: usize,
    consumers: usize,
    persistent: bool,
    /// Messages that are not persistent say so.
    says_transient: bool,
    /// Size of a body; 16 bytes of it say when it was sent.
    bytes: usize,
    /// Receipts that one producer has outstanding at most.
    window: usize,
    secs: f64,
    /// Messages a second of all producers together; 0 for as many as go.
    rate: u64,
    receipts: bool,
    login: String,
    passcode: String,
    prefetch: usize,
    count: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, address, rest @ ..] = &arguments[..] else { usage() };
    let mut options = Options {
        address: address.clone(),
        queue: "/queue/bench".to_owned(),
        producers: 1,
        consumers: 1,
        persistent: true,
        says_transient: false,
        bytes: 1024,
        window: 100,
        secs: 5.0,
        rate: 0,
        receipts: true,
        login: String::new(),
        passcode: String::new(),
        prefetch: 500,
        count: 0,
    };
    for argument in rest {
        let Some((name, value)) = argument.split_once('=') else { usage() };
        let number = || value.parse::<usize>().unwrap_or_else(|_| usage());
        match name {
            "queue" => options.queue = value.to_owned(),
            "producers" => options.producers = number(),
            "consumers" => options.consumers = number(),
            "persistent" => options.persistent = value == "true",
            "says_transient" => options.says_transient = value == "true",
            "bytes" => options.bytes = number().max(16),
            "window" => options.window = number(),
            "secs" => options.secs = value.parse().unwrap_or_else(|_| usage()),
            "rate" => options.rate = number() as u64,
            "receipts" => options.receipts = value == "true",
            "login" => options.login = value.to_owned(),
            "passcode" => options.passcode = value.to_owned(),
            "prefetch" => options.prefetch = number(),
            "count" => options.count = number() as u64,
            _ => usage(),
        }
    }
    let done = match what.as_str() {
        "load" => load(&options),
        "fill" => fill(&options),
        "first" => first(&options),
        _ => usage(),
    };
    if let Err(error) = done {
        eprintln!("stomp: {error}");
        exit(1);
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2);
}

fn broken(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

/// Opens a connection that the broker has accepted.
fn connect(options: &Options) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(&options.address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut frame = "CONNECT\naccept-version:1.2\nhost:/\nheart-beat:0,0\n".to_owned();
    if !options.login.is_empty() {
        frame += &format!("login:{}\npasscode:{}\n", options.login, options.passcode);
    }
    socket.write_all((frame + "\n\0").as_bytes())?;
    let mut answer = Vec::new();
    while !answer.contains(&0) {
        let mut buffer = [0; 4096];
        let length = socket.read(&mut buffer)?;
        if length == 0 {
            return Err(broken("closed before CONNECTED"));
        }
        answer.extend_from_slice(&buffer[..length]);
    }
    if !answer.trim_ascii_start().starts_with(b"CONNECTED") {
        return Err(broken(String::from_utf8_lossy(&answer)));
    }
    Ok(socket)
}

/// Counts the receipts in what a producer receives, and refuses everything else.
#[derive(Default)]
struct Receipts {
    is_within: bool,
    head: Vec<u8>,
}

impl Receipts {
    fn count(&mut self, bytes: &[u8]) -> Result<u64> {
        let mut count = 0;
        for byte in bytes {
            match byte {
                b'\n' | b'\r' if !self.is_within => {}
                0 => {
                    if !self.head.starts_with(b"RECEIPT") {
                        return Err(broken(String::from_utf8_lossy(&self.head)));
                    }
                    (self.is_within, count) = (false, count + 1);
                    self.head.clear();
                }
                byte => {
                    self.is_within = true;
                    if self.head.len() < 400 {
                        self.head.push(*byte);
                    }
                }
            }
        }
        Ok(count)
    }
}

/// Writes SENDs, each with a receipt of its own and the time in its body.
struct Sender {
    head: Vec<u8>,
    padding: Vec<u8>,
    receipts: bool,
    sent: u64,
    began: Instant,
}

impl Sender {
    fn new(options: &Options, began: Instant) -> Sender {
        // RabbitMQ takes `persistent:false` for a wish about the queue, and others have it as their default.
        let persistent = match (options.persistent, options.says_transient) {
            (true, _) => "persistent:true\n",
            (false, true) => "persistent:false\n",
            (false, false) => "",
        };
        let head = format!(
            "SEND\ndestination:{}\n{persistent}content-type:application/octet-stream\ncontent-length:{}\n",
            options.queue, options.bytes
        );
        let padding = vec![b'x'; options.bytes - 16];
        Sender { head: head.into_bytes(), padding, receipts: options.receipts, sent: 0, began }
    }

    fn add(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if self.receipts {
            out.extend_from_slice(b"receipt:");
            out.extend_from_slice(self.sent.to_string().as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
        let now = self.began.elapsed().as_nanos() as u64;
        out.extend_from_slice(format!("{now:016x}").as_bytes());
        out.extend_from_slice(&self.padding);
        out.push(0);
        self.sent += 1;
    }
}

/// When what happens is counted, and what all connections share.
struct Shared {
    began: Instant,
    from: Instant,
    to: Instant,
    /// Sent and, where receipts are asked for, receipted.
    sent: AtomicU64,
    received: AtomicU64,
    is_over: AtomicBool,
}

impl Shared {
    fn counts(&self, now: Instant) -> bool {
        now >= self.from && now < self.to
    }
}

fn load(options: &Options) -> Result<()> {
    let began = Instant::now();
    let from = began + WARM_UP;
    let shared = Arc::new(Shared {
        began,
        from,
        to: from + Duration::from_secs_f64(options.secs),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
    });
    let consumers: Vec<_> = (0..options.consumers)
        .map(|_| {
            let (options, shared) = (options.clone(), shared.clone());
            thread::spawn(move || stop_on_error(consume(&options, &shared)))
        })
        .collect();
    // Consumers are there before the first message.
    thread::sleep(Duration::from_millis(300));
    let producers: Vec<_> = (0..options.producers)
        .map(|_| {
            let (options, shared) = (options.clone(), shared.clone());
            thread::spawn(move || {
                stop_on_error(match options.rate {
                    0 => produce(&options, &shared),
                    _ => produce_at_rate(&options, &shared),
                })
            })
        })
        .collect();
    // Who measures reads CPU times between these two lines.
    thread::sleep(shared.from - Instant::now());
    println!("from");
    thread::sleep(shared.to - Instant::now());
    println!("to");
    let (mut counted, mut sent) = (0, 0);
    for producer in producers {
        let (more, all) = join(producer);
        (counted, sent) = (counted + more, sent + all);
    }
    shared.sent.store(sent, Ordering::SeqCst);
    shared.is_over.store(true, Ordering::SeqCst);
    let (mut taken, mut latencies) = (0, Vec::new());
    for consumer in consumers {
        let (more, latency) = join(consumer);
        taken += more;
        latencies.extend(latency);
    }
    let received = shared.received.load(Ordering::SeqCst);
    if options.consumers > 0 && received != sent {
        return Err(broken(format!("{sent} were sent and {received} came")));
    }
    latencies.sort_unstable();
    let at = |part: f64| {
        let last = latencies.len().max(1) - 1;
        latencies.get(((latencies.len() as f64 * part) as usize).min(last)).map_or(0.0, |ns| *ns as f64 / 1e6)
    };
    println!(
        "{{\"sent\":{:.0},\"received\":{:.0},\"p50_ms\":{:.3},\"p99_ms\":{:.3},\"max_ms\":{:.3}}}",
        counted as f64 / options.secs,
        taken as f64 / options.secs,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

fn join<T>(thread: thread::JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|_| exit(1))
}

fn stop_on_error<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| {
        eprintln!("stomp: {error}");
        exit(1);
    })
}

/// Sends with a window of receipts; those that count, and all.
fn produce(options: &Options, shared: &Shared) -> Result<(u64, u64)> {
    let mut socket = connect(options)?;
    let mut sender = Sender::new(options, shared.began);
    let (mut out, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut receipts = Receipts::default();
    let (mut confirmed, mut counted) = (0, 0);
    loop {
        let now = Instant::now();
        if now < shared.to {
            out.clear();
            let room = match options.receipts {
                true => options.window as u64 - (sender.sent - confirmed),
                // What nobody confirms is held back by the consumer alone, so that a queue does not grow for ever.
                false => room_without_receipts(options, shared, sender.sent),
            };
            for _ in 0..room {
                sender.add(&mut out);
            }
            socket.write_all(&out)?;
            if !options.receipts {
                if room == 0 {
                    thread::sleep(Duration::from_micros(200));
                } else if shared.counts(now) {
                    counted += room;
                }
                continue;
            }
        } else if !options.receipts {
            // One receipt says that all before it was taken.
            let receipt = b"BEGIN\ntransaction:end\nreceipt:end\n\n\0";
            socket.write_all(receipt)?;
            loop {
                let length = read(&mut socket, &mut buffer)?;
                if receipts.count(&buffer[..length])? > 0 {
                    return Ok((counted, sender.sent));
                }
            }
        } else if confirmed == sender.sent {
            return Ok((counted, sender.sent));
        }
        let length = read(&mut socket, &mut buffer)?;
        let more = receipts.count(&buffer[..length])?;
        confirmed += more;
        if shared.counts(Instant::now()) {
            counted += more;
        }
    }
}

/// How many one producer may send so that at most 20 000 messages wait in all.
fn room_without_receipts(options: &Options, shared: &Shared, sent: u64) -> u64 {
    let received = shared.received.load(Ordering::Relaxed) / options.producers as u64;
    (20_000 / options.producers as u64)
        .saturating_sub(sent.saturating_sub(received))
        .min(options.window as u64)
}

fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> Result<usize> {
    match socket.read(buffer)? {
        0 => Err(broken("the broker closed the connection")),
        length => Ok(length),
    }
}

/// Sends at a rate, whatever the answers do; what counts, and all.
fn produce_at_rate(options: &Options, shared: &Shared) -> Result<(u64, u64)> {
    let mut socket = connect(options)?;
    let mut reader = socket.try_clone()?;
    let confirmed = Arc::new(AtomicU64::new(0));
    let counter = confirmed.clone();
    thread::spawn(move || {
        let (mut receipts, mut buffer) = (Receipts::default(), vec![0; 64 * 1024]);
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            };
            counter.fetch_add(stop_on_error(receipts.count(&buffer[..length])), Ordering::SeqCst);
        }
    });
    let mut sender = Sender::new(options, shared.began);
    let mut out = Vec::new();
    let gap = Duration::from_secs_f64(options.producers as f64 / options.rate as f64);
    let mut due = Instant::now();
    let mut counted = 0;
    while due < shared.to {
        let now = Instant::now();
        if due > now {
            thread::sleep(due - now);
        }
        // One write a message, as programs do that send one thing at a time.
        out.clear();
        sender.add(&mut out);
        socket.write_all(&out)?;
        counted += u64::from(shared.counts(Instant::now()));
        due += gap;
    }
    let deadline = Instant::now() + SILENCE;
    while options.receipts && confirmed.load(Ordering::SeqCst) < sender.sent {
        if Instant::now() > deadline {
            return Err(broken("receipts are missing"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok((counted, sender.sent))
}

/// Takes messages until all that were sent are there; those that count, and their latencies in nanoseconds.
fn consume(options: &Options, shared: &Shared) -> Result<(u64, Vec<u64>)> {
    let mut socket = connect(options)?;
    socket.write_all(subscribe(options).as_bytes())?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut frames = Frames::default();
    let mut acks = Vec::new();
    let (mut taken, mut latencies) = (0, Vec::new());
    let mut last = Instant::now();
    loop {
        match frames.read(&mut socket) {
            Ok(()) => last = Instant::now(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let is_over = shared.is_over.load(Ordering::SeqCst);
                let all = shared.received.load(Ordering::SeqCst) >= shared.sent.load(Ordering::SeqCst);
                if is_over && all {
                    return Ok((taken, latencies));
                }
                if is_over && last.elapsed() > Duration::from_secs(20) {
                    return Err(broken("messages are missing"));
                }
            }
            Err(error) => return Err(error),
        }
        acks.clear();
        let mut count = 0;
        while let Some(frame) = frames.next()? {
            acks.extend_from_slice(b"ACK\nid:");
            acks.extend_from_slice(frame.ack);
            acks.extend_from_slice(b"\n\n\0");
            count += 1;
            let now = Instant::now();
            if shared.counts(now) {
                taken += 1;
                let sent = std::str::from_utf8(&frame.body[..16]).ok();
                let sent = sent.and_then(|hex| u64::from_str_radix(hex, 16).ok());
                let sent = sent.ok_or_else(|| broken("a body that nobody here sent"))?;
                latencies.push(((now - shared.began).as_nanos() as u64).saturating_sub(sent));
            }
        }
        if count > 0 {
            socket.write_all(&acks)?;
            shared.received.fetch_add(count, Ordering::SeqCst);
        }
    }
}

fn subscribe(options: &Options) -> String {
    format!(
        "SUBSCRIBE\nid:0\ndestination:{}\nack:client-individual\nprefetch-count:{1}\nactivemq.prefetchSize:{1}\n\n\0",
        options.queue, options.prefetch
    )
}

/// One MESSAGE.
struct Taken<'a> {
    /// As it stands on the wire.
    ack: &'a [u8],
    body: &'a [u8],
}

/// Cuts what a consumer receives into frames.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    at: usize,
}

impl Frames {
    fn read(&mut self, socket: &mut TcpStream) -> Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let before = self.buffer.len();
        self.buffer.resize(before + 256 * 1024, 0);
        let result = read(socket, &mut self.buffer[before..]);
        self.buffer.truncate(before + result.as_ref().map_or(0, |length| *length));
        result.map(|_| ())
    }

    fn next(&mut self) -> Result<Option<Taken<'_>>> {
        while matches!(self.buffer.get(self.at), Some(b'\n' | b'\r')) {
            self.at += 1;
        }
        let rest = &self.buffer[self.at..];
        let (mut line, mut ack, mut length) = (0, None, None);
        loop {
            let Some(end) = rest[line..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
            let text = &rest[line..line + end];
            if line == 0 && text != b"MESSAGE" {
                return Err(broken(String::from_utf8_lossy(&rest[..rest.len().min(300)])));
            }
            line += end + 1;
            if text.is_empty() {
                break;
            }
            if let Some(value) = text.strip_prefix(b"ack:") {
                ack = Some(value);
            } else if let Some(value) = text.strip_prefix(b"content-length:") {
                length = std::str::from_utf8(value).ok().and_then(|value| value.parse::<usize>().ok());
            }
        }
        let (Some(ack), Some(length)) = (ack, length) else {
            return Err(broken("a MESSAGE without ack or content-length"));
        };
        if rest.len() < line + length + 1 {
            return Ok(None);
        }
        self.at += line + length + 1;
        Ok(Some(Taken { ack, body: &rest[line..line + length] }))
    }
}

/// Puts `count` messages into the queue, each hundredth with a receipt.
fn fill(options: &Options) -> Result<()> {
    let began = Instant::now();
    let mut socket = connect(options)?;
    let mut sender = Sender::new(options, began);
    let (mut out, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut receipts = Receipts::default();
    let (mut asked, mut confirmed) = (0, 0);
    while sender.sent < options.count || confirmed < asked {
        out.clear();
        while sender.sent < options.count && asked - confirmed < 10 {
            sender.receipts = sender.sent % 100 == 99 || sender.sent + 1 == options.count;
            asked += u64::from(sender.receipts);
            sender.add(&mut out);
        }
        socket.write_all(&out)?;
        let length = read(&mut socket, &mut buffer)?;
        confirmed += receipts.count(&buffer[..length])?;
    }
    println!("{{\"seconds\":{:.3}}}", began.elapsed().as_secs_f64());
    Ok(())
}

/// Tries until the first message of the queue comes; the seconds until then.
fn first(options: &Options) -> Result<()> {
    let began = Instant::now();
    loop {
        match try_first(options) {
            Ok(()) => break,
            Err(error) if began.elapsed() > Duration::from_secs(180) => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    println!("{{\"seconds\":{:.3}}}", began.elapsed().as_secs_f64());
    Ok(())
}

fn try_first(options: &Options) -> Result<()> {
    let mut socket = connect(options)?;
    let one = Options { prefetch: 1, ..options.clone() };
    socket.write_all(subscribe(&one).as_bytes())?;
    let mut frames = Frames::default();
    loop {
        frames.read(&mut socket)?;
        if frames.next()?.is_some() {
            return Ok(());
        }
    }
}
