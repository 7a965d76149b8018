//! Histories that outlive the process: the real binary, stopped, killed and started again on one directory, and a
//! client of SSE that comes back with the id of the last event that it saw.

use crate::harness::{Binary, Events, TestServer, api, get, longwire, until};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tempfile::TempDir;

const SETTINGS: [&str; 12] = [
    "--channel.history-size",
    "100",
    "--channel.history-ttl",
    "5m",
    "--channel.history-on-disk",
    "true",
    "--channel.force-recovery",
    "true",
    "--channel.allow-subscribe-for-client",
    "true",
    "--channel.allow-subscribe-for-anonymous",
    "true",
];

fn serve(directory: &TempDir, more: &[&str]) -> (Binary, SocketAddr) {
    let path = directory.path().to_str().expect("a path of text");
    let mut settings = vec!["--server.data-dir", path, "--client.allow-anonymous", "true"];
    settings.extend(SETTINGS);
    settings.extend(more);
    Binary::serve(&settings)
}

fn publish(server: SocketAddr, channel: &str, data: impl Into<Value>) -> Value {
    api(server, "publish", &json!({"channel": channel, "data": data.into()}))["result"].clone()
}

/// What a channel retains, and where it stands.
fn history(server: SocketAddr, channel: &str) -> (Vec<Value>, Value, String) {
    let page = api(server, "history", &json!({"channel": channel, "limit": 1000}))["result"].clone();
    let publications = page["publications"].as_array().cloned().unwrap_or_default();
    let data = publications.iter().map(|publication| publication["data"].clone()).collect();
    (data, page["offset"].clone(), page["epoch"].as_str().expect("an epoch").to_owned())
}

fn metric(server: SocketAddr, name: &str) -> u64 {
    let text = get(server, "/metrics", "").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// Waits until everything that was published is on the disk.
fn settle(server: SocketAddr) {
    until("the disk", || metric(server, "longwire_history_pending_bytes") == 0);
}

fn stop(mut server: Binary) {
    server.signal("TERM");
    assert!(server.wait().success());
}

/// Comes back with the last id, and reads to its first event and so many publications.
fn come_back(server: SocketAddr, id: &str, publications: usize) -> (Value, Vec<Value>) {
    let mut events = Events::open(server, "/sse?channels=news", &format!("Last-Event-ID: {id}\r\n"));
    let first = events.next();
    assert!(["subscribed", "recovered"].contains(&first.name.as_str()), "{first:?}");
    let data = (0..publications).map(|_| events.next().value()["data"].clone()).collect();
    (first.value(), data)
}

#[test]
fn a_client_recovers_across_a_restart_as_across_a_loss_of_its_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, address) = serve(&directory, &[]);
    let mut events = Events::open(address, "/sse?channels=news", "");
    events.next();
    publish(address, "news", 1);
    let id = events.next().id.expect("an id");
    // It is gone when these are published, and the server after that.
    drop(events);
    publish(address, "news", 2);
    publish(address, "news", json!({"three": 3}));
    let before = history(address, "news");
    stop(server);
    let (server, address) = serve(&directory, &[]);
    assert_eq!(history(address, "news"), before);
    publish(address, "news", 4);
    let (first, data) = come_back(address, &id, 3);
    assert_eq!((&first["recovered"], data), (&json!(true), vec![json!(2), json!({"three": 3}), json!(4)]));
    // And once more, with nothing in between.
    stop(server);
    let (server, address) = serve(&directory, &[]);
    assert_eq!(history(address, "news").1, 4);
    let (first, data) = come_back(address, &id, 3);
    assert_eq!((&first["recovered"], data.len()), (&json!(true), 3));
    stop(server);
}

#[test]
fn after_a_kill_history_is_there_and_nobody_is_told_that_it_is_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, address) = serve(&directory, &["--history.max-delay", "10ms"]);
    let mut events = Events::open(address, "/sse?channels=news", "");
    events.next();
    publish(address, "news", 1);
    let id = events.next().id.expect("an id");
    publish(address, "news", 2);
    settle(address);
    let (_, _, epoch) = history(address, "news");
    server.kill();
    drop(events);
    let (server, address) = serve(&directory, &[]);
    let (data, top, other) = history(address, "news");
    assert_eq!((data, top), (vec![json!(1), json!(2)], json!(2)));
    assert_ne!(other, epoch);
    publish(address, "news", 3);
    let (first, _) = come_back(address, &id, 0);
    assert_eq!(first["recovered"], json!(false), "{first}");
    stop(server);
}

#[test]
fn what_is_published_to_the_last_moment_is_there_or_was_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut server, address) = serve(&directory, &[]);
    let (_, _, epoch) = history(address, "news");
    let publisher = std::thread::spawn(move || {
        let mut accepted = Vec::new();
        for n in 0.. {
            let body = json!({"channel": "news", "data": n}).to_string();
            let Some(answer) = try_publish(address, &body) else { return accepted };
            if answer.contains("\"offset\"") {
                accepted.push(json!(n));
            }
        }
        accepted
    });
    until("some publications", || metric(address, "longwire_history_commits_total") > 2);
    server.signal("TERM");
    assert!(server.wait().success());
    let accepted = publisher.join().expect("it ends");
    let (server, address) = serve(&directory, &[]);
    let (data, top, same) = history(address, "news");
    assert_eq!(same, epoch, "everything is there");
    // The answer to the last one may have been cut off.
    assert!(top.as_u64().is_some_and(|top| top >= accepted.len() as u64), "{top} of {}", accepted.len());
    let newest = accepted.last().expect("some were accepted");
    assert!(data.contains(newest), "{newest} is missing in {data:?}");
    stop(server);
}

/// Publishes unless the server is gone; what it answered.
fn try_publish(server: SocketAddr, body: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(server).ok()?;
    let length = body.len();
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn a_second_process_on_the_directory_is_refused_and_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, address) = serve(&directory, &[]);
    publish(address, "news", 1);
    let before = history(address, "news");
    let path = directory.path().to_str().expect("a path of text");
    let mut arguments = vec!["serve", "--server.listen", "127.0.0.1:0", "--server.data-dir", path];
    arguments.extend(SETTINGS);
    let refused = longwire(&arguments).output().expect("it was built");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(text.contains("is used by another process of longwire"), "{text}");
    assert!(text.contains("history:"), "it says for what: {text}");
    stop(server);
    let (server, address) = serve(&directory, &[]);
    assert_eq!(history(address, "news"), before);
    stop(server);
}

#[test]
fn a_server_that_cannot_listen_leaves_what_an_earlier_one_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, address) = serve(&directory, &[]);
    publish(address, "news", 1);
    let before = history(address, "news");
    stop(server);
    let busy = TestServer::start();
    let path = directory.path().to_str().expect("a path of text");
    let taken = busy.address.to_string();
    let mut arguments = vec!["serve", "--server.listen", &taken, "--server.data-dir", path];
    arguments.extend(SETTINGS);
    assert!(!longwire(&arguments).output().expect("it was built").status.success());
    let (server, address) = serve(&directory, &[]);
    assert_eq!(history(address, "news"), before);
    stop(server);
}

#[test]
fn a_copy_of_the_directory_is_not_recovered_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let (server, address) = serve(&directory, &[]);
    publish(address, "news", 1);
    let before = history(address, "news");
    stop(server);
    let marks = directory.path().join("history/stopped");
    let knows = std::fs::metadata(&marks).expect("there is a mark").created().is_ok();
    let copy = tempfile::tempdir().expect("a directory");
    let copied = std::process::Command::new("cp")
        .args(["-a", &format!("{}/.", directory.path().display()), copy.path().to_str().expect("text")])
        .status();
    assert!(copied.expect("cp").success());
    let (server, address) = serve(&copy, &[]);
    let after = history(address, "news");
    assert_eq!(after.0, before.0);
    // Where the file system does not say when a file was made, copies look like what they were copied from.
    assert_eq!(after.2 != before.2, knows);
    stop(server);
}
