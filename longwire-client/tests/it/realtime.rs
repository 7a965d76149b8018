//! The realtime client through fifty breaks: one client publishes numbers, another is subscribed, both by the same faulty way.
//!
//! The channel keeps its history on the disk, so that even a killed server leaves nothing that could not be recovered;
//! what a kill may take with it is what had not reached the disk, and then the client has to say so.

use crate::harness::LIMIT;
use crate::options;
use crate::proxy::Proxy;
use crate::scenario::{Break, Ledger, Run, Up, fifty, twelve};
use crate::servers::{Kind, Server};
use longwire_client::realtime::{Client, ClientEvent, Event, Position, Publication};
use longwire_client::{Error, Options};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_of_websockets_lose_nothing_that_was_confirmed() {
    breaks_over("ws", &fifty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_of_http_streams_lose_nothing_that_was_confirmed() {
    breaks_over("stream+http", &fifty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_of_event_streams_lose_nothing_that_was_confirmed() {
    breaks_over("sse+http", &fifty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_breaks_of_websockets_over_tls_lose_nothing_that_was_confirmed() {
    breaks_over("wss", &twelve()).await;
}

async fn breaks_over(scheme: &str, breaks: &[Break]) {
    let mut server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(if scheme == "wss" { server.https() } else { server.http() });
    let url = format!("{scheme}://{}", proxy.address());
    let ledger = Arc::new(Ledger::default());
    let has_uplink = scheme.contains('+');
    let mut options = Options { tls: server.trust(), ..options() };
    if has_uplink {
        // How long who is mute believes to be heard: the server does not expect beats.
        options.timeouts.command = Duration::from_secs(5);
    }
    let publisher = client(&url, "publisher", &options, &ledger);
    let subscriber = client(&url, "subscriber", &options, &ledger);
    let mut numbers = subscriber.subscribe("numbers").expect("a subscription");
    // What is published before is not for this subscriber.
    let first = tokio::time::timeout(LIMIT, numbers.next()).await.expect("it subscribes in time");
    assert!(matches!(first, Some(Event::Subscribed(_))), "{first:?}");
    let receiving = tokio::spawn(receive(numbers, ledger.clone()));
    let sending = tokio::spawn(publish(publisher.clone(), ledger.clone()));

    let clients = &["publisher", "subscriber"];
    let up = if has_uplink { Up::Own("publisher") } else { Up::Same };
    Run { server: &mut server, proxy: &proxy, ledger: &ledger, clients, up }.go(breaks);
    sending.await.expect("no panic");
    publisher.close().await;
    subscriber.close().await;
    receiving.await.expect("no panic");
}

/// A client whose transitions are written down.
fn client(url: &str, name: &'static str, options: &Options, ledger: &Arc<Ledger>) -> Client {
    let client = Client::builder(url).options(options.clone()).build().expect("a client");
    let mut events = client.events();
    let ledger = ledger.clone();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            match event {
                ClientEvent::Transition(transition) => ledger.tell(name, transition),
                other => ledger.complain(format!("the {name} hears {other:?}")),
            }
        }
    });
    client
}

/// Publishes one number after the other, each when the one before is answered or given up.
async fn publish(client: Client, ledger: Arc<Ledger>) {
    while let Some(number) = ledger.next() {
        match client.publish("numbers", number.to_string()).await {
            Ok(()) => ledger.confirm(number),
            // What a break leaves open; nothing else may go wrong.
            Err(Error::Unconfirmed) => ledger.give_up(number),
            Err(error) => {
                ledger.give_up(number);
                ledger.complain(format!("publishing {number}: {error}"));
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Reads the subscription, and looks at the order.
async fn receive(mut numbers: longwire_client::realtime::Subscription, ledger: Arc<Ledger>) {
    let mut reader = Reader::default();
    while let Some(event) = numbers.next().await {
        match event {
            Event::Publication(publication) => reader.take(&publication, &ledger),
            Event::Recovered { .. } => ledger.book().recoveries += 1,
            Event::NotRecovered { .. } => {
                ledger.hear_of_gap();
                reader.has_gap = true;
            }
            Event::Unsubscribed { code, reason, .. } => {
                ledger.complain(format!("unsubscribed: {code} {reason}"));
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Reader {
    last: Option<Position>,
    highest: u64,
    has_gap: bool,
}

impl Reader {
    fn take(&mut self, publication: &Publication, ledger: &Ledger) {
        let text = std::str::from_utf8(&publication.data).expect("a number");
        let number: u64 = text.parse().expect("a number");
        let Some(position) = publication.position() else {
            return ledger.complain(format!("{number} has no position"));
        };
        let mut book = ledger.book();
        if self.has_gap {
            book.announced.extend(self.highest + 1..number);
        } else if let Some(last) = &self.last
            && (position.epoch != last.epoch || position.offset != last.offset + 1)
        {
            book.wrong.push(format!("{position} follows {last}, and nobody said so"));
        }
        if !book.received.insert(number) {
            book.doubled += 1;
            book.wrong.push(format!("{number} came twice, at {position}"));
        }
        // What was given up may still have been done, behind what was sent later by another way.
        if number < self.highest && !book.unconfirmed.contains(&number) {
            book.wrong.push(format!("{number} came after {}", self.highest));
        }
        self.highest = self.highest.max(number);
        self.has_gap = false;
        self.last = Some(position);
    }
}
