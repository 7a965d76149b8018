//! The examples, run as a user runs them, with a connection that breaks while they work.

use crate::harness::{LIMIT, comes_true};
use crate::proxy::{Fault, Proxy};
use crate::servers::{Kind, Server};
use longwire_client::{realtime, stomp};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// An example, running.
struct Example {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Example {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test.parent().and_then(|deps| deps.parent()).expect("it lies in target/PROFILE/deps");
        let path: PathBuf = folder.join("examples").join(name);
        assert!(
            path.is_file(),
            "there is no example at {}: build it with `cargo build -p longwire-client --examples`",
            path.display()
        );
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was built");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, kept) = (child.stdout.take().expect("it is piped"), lines.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Example { child, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[track_caller]
    fn await_line(&self, part: &str) {
        let came = comes_true(LIMIT, || self.lines().iter().any(|line| line.contains(part)));
        assert!(came, "no line with {part:?} in {:#?}", self.lines());
    }

    fn type_line(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).expect("it reads");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_does_every_job_across_a_break() {
    let server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.stomp());
    let worker = Example::start("worker", &[&format!("stomp://{}", proxy.address()), "/queue/jobs"]);
    let boss = stomp::Client::builder(&format!("stomp://{}", server.stomp())).build().unwrap();
    for job in 0..3 {
        boss.send("/queue/jobs", format!("job {job}")).await.unwrap();
    }
    worker.await_line("job 2");
    proxy.inflict(Fault::Reset);
    for job in 3..6 {
        boss.send("/queue/jobs", format!("job {job}")).await.unwrap();
    }
    for job in 0..6 {
        worker.await_line(&format!("job {job}"));
    }
    worker.await_line("-- the connection was reset; trying again");
    worker.await_line("-- connected again to stomp://");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_fails_where_its_queue_is_refused() {
    let server = Server::start(Kind::Longwire);
    let nowhere = [&format!("stomp://{}", server.stomp()), "/nowhere/jobs"];
    let mut worker = Example::start("worker", &nowhere);
    let ended = comes_true(LIMIT, || worker.child.try_wait().unwrap().is_some());
    assert!(ended, "{:#?}", worker.lines());
    assert_eq!(worker.child.wait().unwrap().code(), Some(1), "{:#?}", worker.lines());
    worker.await_line("-- connected to stomp://");
}

#[test]
fn the_worker_has_twenty_five_lines() {
    let source = include_str!("../../examples/worker.rs");
    let lines = source.lines().filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(lines.count() <= 25);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ticker_shows_every_price_across_a_break() {
    let server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.http());
    let ticker = Example::start("ticker", &[&format!("ws://{}", proxy.address()), "prices"]);
    ticker.await_line("subscribed");
    let exchange = realtime::Client::builder(&format!("ws://{}", server.http())).build().unwrap();
    exchange.publish("prices", r#"{"symbol":"LWR","price":1.25}"#).await.unwrap();
    ticker.await_line("LWR 1.25");
    proxy.refuse();
    proxy.inflict(Fault::Reset);
    for price in ["1.50", "1.75"] {
        let data = format!(r#"{{"symbol":"LWR","price":{price}}}"#);
        exchange.publish("prices", data).await.unwrap();
    }
    proxy.accept();
    ticker.await_line("LWR 1.50");
    ticker.await_line("LWR 1.75");
    ticker.await_line("nothing was missed");
    ticker.await_line("-- the connection was reset; trying again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_publisher_says_what_became_of_every_line() {
    let server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.http());
    let mut publisher = Example::start("publisher", &[&format!("ws://{}", proxy.address()), "readings"]);
    publisher.type_line("1");
    publisher.await_line("confirmed 1");
    proxy.refuse();
    proxy.inflict(Fault::Reset);
    publisher.await_line("connection was reset");
    // Nobody is there to take them: they wait.
    publisher.type_line("2");
    publisher.type_line("3");
    proxy.accept();
    publisher.await_line("confirmed 2");
    publisher.await_line("confirmed 3");
    drop(publisher.child.stdin.take());
    let ended = comes_true(LIMIT, || publisher.child.try_wait().unwrap().is_some_and(|end| end.success()));
    assert!(ended, "it ends when its input does");
}
