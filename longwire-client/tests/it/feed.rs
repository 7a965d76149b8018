//! Feeds of the plain dialect through breaks: a backend publishes numbers by the HTTP API, a feed gets them by the faulty way.
//!
//! The backend has a way of its own and meets no fault but the end of the server. What must hold beside what the scenario
//! looks at: what comes is in order and comes once, and no offset is missing but behind an event that says so.

use crate::harness::LIMIT;
use crate::options;
use crate::proxy::Proxy;
use crate::scenario::{Ledger, Run, Up, twelve};
use crate::servers::{Kind, Server};
use longwire_client::Transition;
use longwire_client::plain::{Event, Feed, Publication};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_breaks_of_a_feed_of_events_lose_nothing_that_was_not_announced() {
    breaks_over("sse+http", Up::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_breaks_of_a_feed_that_polls_lose_nothing_that_was_not_announced() {
    breaks_over("poll+http", Up::Polls).await;
}

async fn breaks_over(scheme: &str, up: Up) {
    let mut server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.http());
    let ledger = Arc::new(Ledger::default());
    let feed = Feed::builder(&format!("{scheme}://{}", proxy.address()))
        .channels(["numbers"])
        .wait(Duration::from_secs(1))
        .options(options())
        .build()
        .expect("a feed");
    // What is published before it stands there is not for it.
    let (opened, is_open) = mpsc::channel();
    let receiving = tokio::spawn(receive(feed, opened, ledger.clone()));
    let publishing = {
        let (address, ledger) = (server.http(), ledger.clone());
        std::thread::spawn(move || {
            is_open.recv_timeout(LIMIT).expect("it opens in time");
            publish(address, &ledger);
        })
    };

    Run { server: &mut server, proxy: &proxy, ledger: &ledger, clients: &["feed"], up }.go(&twelve());
    publishing.join().expect("no panic");
    receiving.abort();
}

/// Publishes one number after the other, each when the one before is answered or given up.
fn publish(server: SocketAddr, ledger: &Ledger) {
    while let Some(number) = ledger.next() {
        match post(server, number) {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") && answer.contains("\"result\"") => {
                ledger.confirm(number);
            }
            // A server that ends may have done it or not.
            _ if ledger.book().has_restart => ledger.give_up(number),
            other => {
                ledger.give_up(number);
                ledger.complain(format!("publishing {number}: {other:?}"));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn post(server: SocketAddr, number: u64) -> io::Result<String> {
    let body = format!("{{\"channel\":\"numbers\",\"data\":{number}}}");
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let length = body.len();
    write!(
        socket,
        "POST /api/publish HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Reads the feed, and looks at the order.
async fn receive(mut feed: Feed, opened: mpsc::Sender<()>, ledger: Arc<Ledger>) {
    let mut reader = Reader::default();
    while let Some(event) = feed.next().await {
        match event {
            Event::Transition(transition) => {
                if matches!(transition, Transition::GaveUp { .. }) {
                    ledger.complain(format!("the feed says {transition}"));
                }
                ledger.tell("feed", transition);
            }
            // An error means that nobody waits for the first any more.
            Event::Opened { .. } => drop(opened.send(())),
            Event::Publication(publication) => reader.take(&publication, &ledger),
            Event::Recovered { .. } => ledger.book().recoveries += 1,
            Event::NotRecovered { .. } => {
                ledger.hear_of_gap();
                reader.has_gap = true;
            }
            other => ledger.complain(format!("the feed hears {other:?}")),
        }
    }
    ledger.complain(format!("the feed is over: {:?}", feed.error()));
}

#[derive(Default)]
struct Reader {
    offset: Option<u64>,
    highest: u64,
    has_gap: bool,
}

impl Reader {
    fn take(&mut self, publication: &Publication, ledger: &Ledger) {
        let text = std::str::from_utf8(publication.data.bytes()).expect("a number");
        let number: u64 = text.parse().expect("a number");
        let offset = publication.offset;
        let mut book = ledger.book();
        if self.has_gap {
            book.announced.extend(self.highest + 1..number);
        } else if let Some(last) = self.offset
            && offset != last + 1
        {
            book.wrong.push(format!("offset {offset} follows {last}, and nobody said so"));
        }
        if !book.received.insert(number) {
            book.wrong.push(format!("{number} came twice, at {offset}"));
        } else if number < self.highest {
            book.wrong.push(format!("{number} came after {}", self.highest));
        }
        self.highest = self.highest.max(number);
        self.has_gap = false;
        self.offset = Some(offset);
    }
}
