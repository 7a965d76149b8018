//! The server is killed under load, again and again: what a receipt promised holds, and nothing else is believed.
//!
//! Four mixes of load, 25 kills each, in a process of its own whose disk survives. A message is the number in its header
//! `n`. What must hold: a persistent message whose receipt came is delivered at least once; an acknowledgement
//! whose receipt came ends it; a single consumer sees the numbers of one priority rise within a connection; a
//! transaction is done whole or not at all. What a kill interrupts may go either way.

use super::client::{Client, Frame, Incoming};
use crate::harness::Binary;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const KILLS: u64 = 25;

/// Frames that a producer has under way.
const WINDOW: u64 = 20;

const SETTINGS: &str = r#"
[server]
listen = ["127.0.0.1:0"]
shards = 1
data_dir = "DIRECTORY"
[listeners.stomp]
address = "127.0.0.1:0"
protocol = "stomp"
[client]
allow_anonymous = true
[queue]
max_deliveries = 1000
allow_send_for_client = true
allow_send_for_anonymous = true
allow_consume_for_client = true
allow_consume_for_anonymous = true
[log]
json = true
"#;

/// Starts the server; where it speaks STOMP.
fn start(directory: &Path) -> (Binary, SocketAddr) {
    let file = directory.join("longwire.toml");
    let data = directory.join("data");
    std::fs::write(&file, SETTINGS.replace("DIRECTORY", data.to_str().expect("text"))).expect("a file");
    let server = Binary::start(&["serve", "--config", file.to_str().expect("text")]);
    let line = server.stderr().await_line("\"protocol\":\"stomp\"");
    let line: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
    let address = line["address"].as_str().expect("an address").parse().expect("an address");
    (server, address)
}

fn connect(server: SocketAddr) -> Client {
    let mut client = Client::open(server);
    client.connect("1.2", &[]);
    client
}

/// The next frame; `None` once the server is dead.
fn next(client: &mut Client) -> Option<Frame> {
    loop {
        match client.next() {
            Incoming::Frame(frame) => {
                assert_ne!(frame.command, "ERROR", "{frame:?} {:?}", frame.text());
                return Some(frame);
            }
            Incoming::Beat => {}
            Incoming::Close(_) | Incoming::End(_) => return None,
        }
    }
}

fn number(message: &Frame) -> u64 {
    message.get("n").parse().expect("a number")
}

/// Runs `work` beside a server that is killed after a while that depends on `round`.
fn while_it_lives<T: Send>(
    directory: &Path,
    round: u64,
    work: Vec<Box<dyn FnOnce(Client) -> T + Send>>,
) -> Vec<T> {
    let (mut server, address) = start(directory);
    let clients: Vec<Client> = work.iter().map(|_| connect(address)).collect();
    thread::scope(|scope| {
        let threads: Vec<_> =
            work.into_iter().zip(clients).map(|(work, client)| scope.spawn(move || work(client))).collect();
        thread::sleep(Duration::from_millis(20 + round * 37 % 130));
        server.kill();
        threads.into_iter().map(|thread| thread.join().expect("nothing that must hold is broken")).collect()
    })
}

/// Sends numbers from `first` on until the server is dead; those whose receipt came, and the number after the last.
fn produce(mut client: Client, queue: &str, first: u64, priorities: u64) -> (BTreeSet<u64>, u64) {
    let mut confirmed = BTreeSet::new();
    let mut sent = first;
    loop {
        while sent < first + confirmed.len() as u64 + WINDOW {
            let (n, priority) = (sent.to_string(), (4 + sent % priorities).to_string());
            let headers = [("destination", queue), ("n", &n), ("receipt", &n), ("priority", &priority)];
            client.write("SEND", &headers, format!("body of {n}").as_bytes());
            sent += 1;
        }
        let Some(frame) = next(&mut client) else { return (confirmed, sent) };
        assert_eq!(frame.command, "RECEIPT", "{frame:?}");
        let n: u64 = frame.get("receipt-id").parse().expect("a number");
        assert_eq!(n, first + confirmed.len() as u64, "receipts are in order");
        confirmed.insert(n);
    }
}

/// What a consumer saw.
#[derive(Default)]
struct Seen {
    delivered: Vec<u64>,
    acked: BTreeSet<u64>,
}

/// Takes messages and acknowledges each `every`th until the server is dead.
fn consume(mut client: Client, queue: &str, mode: &str, every: u64) -> Seen {
    let mut seen = Seen::default();
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    let mut under_way: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut pending = Vec::new();
    let headers = [("id", "c"), ("destination", queue), ("ack", mode), ("prefetch-count", "50")];
    client.write("SUBSCRIBE", &headers, b"");
    while let Some(frame) = next(&mut client) {
        if frame.command == "RECEIPT" {
            let n = frame.get("receipt-id").parse().expect("a number");
            seen.acked.extend(under_way.remove(&n).expect("it was asked for"));
            continue;
        }
        let n = number(&frame);
        assert_eq!(frame.text(), format!("body of {n}"));
        let last = newest.insert(frame.get("priority").to_owned(), n);
        assert!(last.is_none_or(|last| last < n), "{n} after {last:?}");
        seen.delivered.push(n);
        pending.push(n);
        if n.is_multiple_of(every) {
            let id = n.to_string();
            client.write("ACK", &[("id", frame.get("ack")), ("receipt", &id)], b"");
            let meant = if mode == "client" { std::mem::take(&mut pending) } else { vec![n] };
            under_way.insert(n, meant);
        }
    }
    seen
}

/// Takes everything that is in a queue.
fn drain(directory: &Path, queue: &str) -> Vec<Frame> {
    let (_server, address) = start(directory);
    let mut client = connect(address);
    // It has the lowest priority, so that it comes last.
    client.put_with(queue, &[("priority", "0"), ("n", "0")], "the end");
    client.subscribe("c", queue, "auto");
    let mut all = Vec::new();
    loop {
        let message = client.message();
        if message.text() == "the end" {
            client.quiet();
            return all;
        }
        all.push(message);
    }
}

/// Produces and consumes through all kills, and checks what must hold.
fn survive(mode: &'static str, every: u64, producers: u64, priorities: u64) {
    const QUEUE: &str = "/queue/work";
    // So that each producer has numbers of its own.
    const SHARE: u64 = 1_000_000;
    let directory = TempDir::new().expect("a directory");
    let mut confirmed = BTreeSet::new();
    let mut delivered = BTreeSet::new();
    let mut acked = BTreeSet::new();
    let mut next_of: Vec<u64> = (0..producers).map(|producer| 1 + producer * SHARE).collect();
    enum Did {
        Produced(usize, BTreeSet<u64>, u64),
        Consumed(Seen),
    }
    for round in 0..KILLS {
        let mut work: Vec<Box<dyn FnOnce(Client) -> Did + Send>> =
            vec![Box::new(move |client| Did::Consumed(consume(client, QUEUE, mode, every)))];
        for (producer, first) in next_of.clone().into_iter().enumerate() {
            work.push(Box::new(move |client| {
                let (confirmed, next) = produce(client, QUEUE, first, priorities);
                Did::Produced(producer, confirmed, next)
            }));
        }
        for did in while_it_lives(directory.path(), round, work) {
            match did {
                Did::Produced(producer, more, next) => {
                    confirmed.extend(more);
                    next_of[producer] = next;
                }
                Did::Consumed(seen) => {
                    let back: Vec<_> = seen.delivered.iter().filter(|n| acked.contains(*n)).collect();
                    assert!(back.is_empty(), "round {round}: acknowledged and back: {back:?}");
                    delivered.extend(seen.delivered);
                    acked.extend(seen.acked);
                }
            }
        }
    }
    assert!(confirmed.len() as u64 > KILLS && acked.len() as u64 > KILLS, "there was load");
    for message in drain(directory.path(), QUEUE) {
        let n = number(&message);
        assert!(!acked.contains(&n), "acknowledged and back: {n}");
        delivered.insert(n);
    }
    let lost: Vec<_> = confirmed.difference(&delivered).collect();
    assert!(lost.is_empty(), "lost although confirmed: {lost:?}");
    assert!(drain(directory.path(), QUEUE).is_empty(), "taken and back");
}

#[test]
fn no_confirmed_message_is_lost_and_no_acked_one_returns() {
    survive("client-individual", 1, 1, 1);
}

#[test]
fn no_cumulative_ack_is_forgotten_and_priorities_keep_their_order() {
    survive("client", 3, 1, 3);
}

#[test]
fn a_transaction_is_whole_or_nothing_after_a_kill() {
    const QUEUE: &str = "/queue/pairs";
    let directory = TempDir::new().expect("a directory");
    let mut confirmed = BTreeSet::new();
    let mut first = 1;
    for round in 0..KILLS {
        let send = move |mut client: Client| {
            let mut confirmed = BTreeSet::new();
            let mut sent = first;
            loop {
                while sent < first + confirmed.len() as u64 + WINDOW {
                    let n = sent.to_string();
                    client.write("BEGIN", &[("transaction", &n)], b"");
                    for half in ["a", "b", "c"] {
                        let headers =
                            [("destination", QUEUE), ("transaction", &n), ("n", &n), ("half", half)];
                        client.write("SEND", &headers, b"x");
                    }
                    client.write("COMMIT", &[("transaction", &n), ("receipt", &n)], b"");
                    sent += 1;
                }
                let Some(frame) = next(&mut client) else { return (confirmed, sent) };
                confirmed.insert(frame.get("receipt-id").parse::<u64>().expect("a number"));
            }
        };
        for (more, next) in while_it_lives(directory.path(), round, vec![Box::new(send)]) {
            confirmed.extend(more);
            first = next;
        }
    }
    assert!(confirmed.len() as u64 > KILLS, "there was load");
    let mut parts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for message in drain(directory.path(), QUEUE) {
        parts.entry(number(&message)).or_default().push(message.get("half").to_owned());
    }
    let torn: Vec<_> = parts.iter().filter(|(_, parts)| **parts != ["a", "b", "c"]).collect();
    assert!(torn.is_empty(), "neither whole nor nothing: {torn:?}");
    let lost: Vec<_> = confirmed.iter().filter(|n| !parts.contains_key(n)).collect();
    assert!(lost.is_empty(), "lost although committed: {lost:?}");
}

#[test]
fn what_is_moved_in_transactions_is_there_exactly_once_after_kills() {
    const COUNT: u64 = 20_000;
    let directory = TempDir::new().expect("a directory");
    {
        let (_server, address) = start(directory.path());
        let mut client = connect(address);
        let mut bytes = Vec::new();
        for n in 1..=COUNT {
            let n = n.to_string();
            bytes.extend(client.encoded("SEND", &[("destination", "/queue/from"), ("n", &n)], b"x"));
        }
        client.raw(bytes);
        client.put_with("/queue/from", &[("n", "0")], "x");
        client.disconnect();
    }
    let mut moved = BTreeSet::new();
    for round in 0..KILLS {
        let work = |mut client: Client| {
            let mut moved = BTreeSet::new();
            let headers = [
                ("id", "c"),
                ("destination", "/queue/from"),
                ("ack", "client-individual"),
                ("prefetch-count", "20"),
            ];
            client.write("SUBSCRIBE", &headers, b"");
            while let Some(frame) = next(&mut client) {
                if frame.command == "RECEIPT" {
                    moved.insert(frame.get("receipt-id").parse::<u64>().expect("a number"));
                    continue;
                }
                let n = frame.get("n");
                client.write("BEGIN", &[("transaction", n)], b"");
                client.write("ACK", &[("id", frame.get("ack")), ("transaction", n)], b"");
                let headers = [("destination", "/queue/to"), ("transaction", n), ("n", n)];
                client.write("SEND", &headers, b"x");
                client.write("COMMIT", &[("transaction", n), ("receipt", n)], b"");
            }
            moved
        };
        for more in while_it_lives(directory.path(), round, vec![Box::new(work)]) {
            let twice: Vec<_> = more.intersection(&moved).collect();
            assert!(twice.is_empty(), "moved again: {twice:?}");
            moved.extend(more);
        }
    }
    assert!(moved.len() as u64 > KILLS, "there was load");
    let to: Vec<u64> = drain(directory.path(), "/queue/to").iter().map(number).collect();
    let from: Vec<u64> = drain(directory.path(), "/queue/from").iter().map(number).collect();
    let unique: BTreeSet<u64> = to.iter().chain(&from).copied().collect();
    assert_eq!(unique.len(), to.len() + from.len(), "some are there twice");
    assert_eq!(unique.len() as u64, COUNT + 1, "some are gone");
    assert!(moved.is_subset(&to.into_iter().collect()), "some that were moved are not there");
}
