//! What `benches/exchange` runs beside longwire: clients, a backend, and a caller that drives a backend directly.
//!
//! One file of the standard library alone, which the script compiles with `rustc -O`. A thread for each connection, and
//! nothing shared but the figures at the end. It is no part of longwire and knows only the two forms that it needs:
//! messages of the plain dialect with `format=bare`, and HTTP/1.1 as a webhook speaks it.
//!
//! What must stay true: `clients` takes an answer for good only if it is the one to the oldest message under way, so that
//! what is lost, doubled or out of order ends the run; nothing before the warm-up is over is in a figure.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: exchange backend ADDRESS
       exchange clients ADDRESS ws|tcp COUNT WINDOW SECONDS
       exchange direct ADDRESS keep|close COUNT SECONDS";
/// Time before what happens is counted.
const WARM_UP: Duration = Duration::from_secs(1);
/// What each message has beside its number, in bytes.
const PADDING: usize = 100;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| usage());
    let seconds = |text: &str| Duration::from_secs_f64(text.parse().unwrap_or_else(|_| usage()));
    match arguments[..] {
        ["backend", address] => backend(address),
        ["clients", address, kind @ ("ws" | "tcp"), count, window, secs] => {
            let (address, is_tcp, window) = (address.to_owned(), kind == "tcp", number(window));
            run(number(count), seconds(secs), move |n, window_of_time| {
                client(&address, is_tcp, n, window, window_of_time)
            });
        }
        ["direct", address, kind @ ("keep" | "close"), count, secs] => {
            let (address, is_kept) = (address.to_owned(), kind == "keep");
            run(number(count), seconds(secs), move |n, window| direct(&address, is_kept, n, window));
        }
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("{USAGE}");
    exit(2);
}

fn broken(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

/// When what happens is counted.
#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    to: Instant,
}

/// Runs `count` threads, and prints how many exchanges a second there were, and how long they took.
fn run<F>(count: usize, length: Duration, one: F)
where
    F: Fn(usize, Window) -> Result<Vec<u32>> + Clone + Send + 'static,
{
    let from = Instant::now() + WARM_UP;
    let window = Window { from, to: from + length };
    let threads: Vec<_> = (0..count)
        .map(|n| {
            let one = one.clone();
            let builder = thread::Builder::new().stack_size(128 * 1024);
            builder.spawn(move || one(n, window)).expect("a thread")
        })
        .collect();
    // Who measures reads CPU times between these two lines.
    thread::sleep(window.from - Instant::now());
    println!("from");
    thread::sleep(window.to - Instant::now());
    println!("to");
    let mut took = Vec::new();
    for (n, thread) in threads.into_iter().enumerate() {
        match thread.join().expect("a thread that does not panic") {
            Ok(more) => took.extend(more),
            Err(error) => {
                eprintln!("exchange: connection {n}: {error}");
                exit(1);
            }
        }
    }
    took.sort_unstable();
    let at = |part: f64| took.get(((took.len() as f64 * part) as usize).min(took.len().max(1) - 1)).copied();
    println!(
        "{{\"per_second\":{:.1},\"p50_ms\":{:.3},\"p99_ms\":{:.3}}}",
        took.len() as f64 / length.as_secs_f64(),
        f64::from(at(0.5).unwrap_or(0)) / 1000.0,
        f64::from(at(0.99).unwrap_or(0)) / 1000.0,
    );
}

/// Sends messages, `window` of them under way, and gives the microseconds until each answer.
fn client(address: &str, is_tcp: bool, n: usize, window: usize, counted: Window) -> Result<Vec<u32>> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut socket = socket;
    if !is_tcp {
        write!(
            socket,
            "GET /ws?format=bare&client=device-{n} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        read_head(&mut reader)?;
    }
    let padding = "x".repeat(PADDING);
    let mut under_way = std::collections::VecDeque::with_capacity(window);
    let (mut sent, mut answered) = (0u64, 0u64);
    let mut took = Vec::new();
    let mut packet = Vec::with_capacity(PADDING + 64);
    loop {
        while under_way.len() < window {
            let now = Instant::now();
            if now >= counted.to {
                break;
            }
            let body = format!("{sent:010}-{padding}");
            packet.clear();
            if is_tcp {
                packet.extend(body.as_bytes());
                packet.push(b'\n');
            } else {
                // RFC 6455 section 5.2: a whole text message, with a mask that changes nothing.
                packet.extend([0x81, 0x80 | body.len() as u8, 0, 0, 0, 0]);
                packet.extend(body.as_bytes());
            }
            socket.write_all(&packet)?;
            under_way.push_back(now);
            sent += 1;
        }
        let Some(began) = under_way.pop_front() else { return Ok(took) };
        let answer = if is_tcp { read_line(&mut reader)? } else { read_message(&mut reader)? };
        if !answer.starts_with(format!("{answered:010}-x").as_bytes()) {
            return Err(broken(&format!("{:?} for {answered}", String::from_utf8_lossy(&answer))));
        }
        answered += 1;
        let now = Instant::now();
        if now >= counted.from && now < counted.to {
            took.push((now - began).as_micros() as u32);
        }
    }
}

fn read_line(reader: &mut impl BufRead) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(broken("the server closed"));
    }
    Ok(line)
}

/// Reads the next data message of a server; pings are passed over.
fn read_message(reader: &mut impl Read) -> Result<Vec<u8>> {
    loop {
        let mut head = [0; 2];
        reader.read_exact(&mut head)?;
        let length = match head[1] {
            short @ 0..126 => usize::from(short),
            126 => {
                let mut long = [0; 2];
                reader.read_exact(&mut long)?;
                usize::from(u16::from_be_bytes(long))
            }
            _ => return Err(broken("a huge or masked frame")),
        };
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload)?;
        match head[0] {
            0x81 | 0x82 => return Ok(payload),
            0x89 => {}
            _ => {
                return Err(broken(&format!(
                    "a frame {:#x} {:?}",
                    head[0],
                    String::from_utf8_lossy(&payload)
                )));
            }
        }
    }
}

/// Calls a backend as longwire does, one call after the other, and gives the microseconds that each took.
fn direct(address: &str, is_kept: bool, n: usize, counted: Window) -> Result<Vec<u32>> {
    let padding = "x".repeat(PADDING);
    let mut took = Vec::new();
    let mut kept: Option<BufReader<TcpStream>> = None;
    for seq in 0u64.. {
        let began = Instant::now();
        if began >= counted.to {
            break;
        }
        let body = format!(
            "{{\"event\":\"message\",\"client\":\"2f6c1d9e-0b34-4a52-8d4f-7a5291c34f0e\",\"name\":\"device-{n}\",\
             \"user\":\"\",\"session\":\"0-0-1-55a168b758c3a91e4e3ec40c90d78ea4\",\"transport\":\"websocket\",\
             \"listener\":\"http\",\"address\":\"127.0.0.1\",\"seq\":{seq},\"data\":\"{seq:010}-{padding}\"}}"
        );
        let mut link = match kept.take() {
            Some(link) => link,
            None => {
                let link = TcpStream::connect(address)?;
                link.set_nodelay(true)?;
                link.set_read_timeout(Some(Duration::from_secs(10)))?;
                BufReader::new(link)
            }
        };
        let connection = if is_kept { "" } else { "Connection: close\r\n" };
        let request = format!(
            "POST /message HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nContent-Type: application/json\r\n\
             {connection}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        link.get_mut().write_all(request.as_bytes())?;
        let head = read_head(&mut link)?;
        let mut answer = Vec::new();
        match head.length {
            Some(length) => {
                answer.resize(length, 0);
                link.read_exact(&mut answer)?;
            }
            None => {
                link.read_to_end(&mut answer)?;
            }
        }
        let expected = format!("\"{seq:010}-x");
        if !answer.windows(expected.len()).any(|part| part == expected.as_bytes()) {
            return Err(broken(&format!("{:?} for {seq}", String::from_utf8_lossy(&answer))));
        }
        if is_kept && !head.is_last && head.length.is_some() {
            kept = Some(link);
        }
        let now = Instant::now();
        if now >= counted.from && now < counted.to {
            took.push((now - began).as_micros() as u32);
        }
    }
    Ok(took)
}

struct Head {
    length: Option<usize>,
    /// Says that the connection ends with this message.
    is_last: bool,
}

/// Reads a head of HTTP/1.1, of a request or a response.
fn read_head(reader: &mut impl BufRead) -> Result<Head> {
    let mut head = Head { length: None, is_last: false };
    let mut line = String::new();
    for n in 0.. {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(Error::new(ErrorKind::UnexpectedEof, "closed"));
        }
        if n == 0 {
            if line.starts_with("HTTP/") && !line.contains(" 200") && !line.contains(" 101") {
                return Err(broken(line.trim_end()));
            }
            continue;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            head.length = value.trim().parse().ok();
        }
        if name.eq_ignore_ascii_case("connection") {
            head.is_last = value.trim().eq_ignore_ascii_case("close");
        }
    }
    Ok(head)
}

/// Answers each message with what the client sent, and does nothing else.
fn backend(address: &str) {
    let listener = TcpListener::bind(address).expect("an address that is free");
    for link in listener.incoming().flatten() {
        let builder = thread::Builder::new().stack_size(128 * 1024);
        builder.spawn(move || answer(link)).expect("a thread");
    }
}

/// Answers one connection's calls until it ends.
fn answer(link: TcpStream) -> Result<()> {
    link.set_nodelay(true)?;
    let mut reader = BufReader::new(link);
    loop {
        let head = read_head(&mut reader)?;
        let mut body = vec![0; head.length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let text = String::from_utf8_lossy(&body);
        let data = text.split_once("\"data\":\"").and_then(|(_, rest)| rest.split_once('"'));
        let answer = format!("{{\"data\":\"{}\"}}", data.map_or("", |(data, _)| data));
        let connection = if head.is_last { "Connection: close\r\n" } else { "" };
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{connection}Content-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        reader.get_mut().write_all(response.as_bytes())?;
        if head.is_last {
            return Ok(());
        }
    }
}
