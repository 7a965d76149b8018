//! The STOMP client through fifty breaks, before longwire, RabbitMQ and ActiveMQ: one client sends numbers to a queue with
//! receipts, twenty of them under way at a time, another takes and acknowledges them.
//!
//! At-least-once is what is promised: a number may come twice. What must hold beside that: among what was written once, comes
//! for the first time and was not given out before, numbers rise, as long as the server knows of one consumer.

use crate::options;
use crate::proxy::Proxy;
use crate::scenario::{Ledger, Run, fifty};
use crate::servers::{Kind, Server};
use longwire_client::Error;
use longwire_client::stomp::{AckMode, Client, Confirmation, Confirmed, Event, Message, Subscription};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const QUEUE: &str = "/queue/numbers";

/// Sends without an answer yet.
const WINDOW: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_before_longwire_lose_nothing_that_was_confirmed() {
    fifty_breaks(Kind::Longwire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_before_rabbitmq_lose_nothing_that_was_confirmed() {
    fifty_breaks(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_breaks_before_activemq_lose_nothing_that_was_confirmed() {
    fifty_breaks(Kind::ActiveMq).await;
}

async fn fifty_breaks(kind: Kind) {
    let mut server = Server::start(kind);
    let proxy = Proxy::start(server.stomp());
    let ledger = Arc::new(Ledger::default());
    let producer = client(&proxy, kind, "producer", &ledger);
    let consumer = client(&proxy, kind, "consumer", &ledger);
    let mut numbers = consumer.subscribe(QUEUE).ack(AckMode::ClientIndividual).prefetch(100);
    if kind == Kind::ActiveMq {
        // It does not mark what it gave to a consumer that died. So that order can be looked at all the same, the next
        // consumer gets nothing before that one is found dead.
        numbers = numbers.header("activemq.exclusive", "true");
    }
    let numbers = numbers.start().expect("a subscription");
    let receiving = tokio::spawn(receive(numbers, ledger.clone()));
    let sending = tokio::spawn(send(producer.clone(), ledger.clone()));

    let clients = &["producer", "consumer"];
    Run { server: &mut server, proxy: &proxy, ledger: &ledger, clients, has_uplink: false }.go(&fifty());
    sending.await.expect("no panic");
    producer.close().await;
    consumer.close().await;
    receiving.await.expect("no panic");
}

/// A client whose transitions are written down.
fn client(proxy: &Proxy, kind: Kind, name: &'static str, ledger: &Arc<Ledger>) -> Client {
    let mut builder = Client::builder(&format!("stomp://{}", proxy.address()))
        .heart_beat(Duration::from_secs(1), Duration::from_secs(1))
        .host("/")
        .options(options());
    if kind == Kind::RabbitMq {
        builder = builder.login("guest", "guest");
    }
    let client = builder.build().expect("a client");
    let mut events = client.events();
    let ledger = ledger.clone();
    tokio::spawn(async move {
        while let Some(transition) = events.next().await {
            ledger.tell(name, transition);
        }
    });
    client
}

/// Keeps [`WINDOW`] sends under way, each answered by its receipt or never.
async fn send(client: Client, ledger: Arc<Ledger>) {
    let mut under_way: VecDeque<(u64, Confirmation)> = VecDeque::new();
    let mut pace = tokio::time::interval(Duration::from_millis(3));
    let mut is_over = false;
    while !(is_over && under_way.is_empty()) {
        tokio::select! {
            biased;
            // Receipts come in the order of what they are for.
            Some(result) = first(&mut under_way) => {
                let (number, _) = under_way.pop_front().expect("it was awaited");
                match result {
                    Ok(confirmed) => {
                        if confirmed.resent > 0 {
                            ledger.book().resent.insert(number);
                        }
                        ledger.confirm(number);
                    }
                    Err(error) => {
                        ledger.give_up(number);
                        ledger.complain(format!("sending {number}: {error}"));
                    }
                }
            }
            _ = pace.tick(), if !is_over && under_way.len() < WINDOW => match ledger.next() {
                Some(number) => {
                    let sending = client.send(QUEUE, number.to_string()).persistent(true);
                    under_way.push_back((number, sending.start()));
                }
                None => is_over = true,
            },
        }
    }
}

/// What came of the first; `None` at once if there is none.
async fn first(under_way: &mut VecDeque<(u64, Confirmation)>) -> Option<Result<Confirmed, Error>> {
    let (_, confirmation) = under_way.front_mut()?;
    Some(confirmation.await)
}

/// Takes and acknowledges, and looks at the order.
async fn receive(mut numbers: Subscription, ledger: Arc<Ledger>) {
    let mut highest = 0;
    // While the server takes a connection that is gone for another consumer, each gets a part of what comes, and what that
    // one was never written comes later as if it had not been given out.
    let mut is_alone = true;
    while let Some(event) = numbers.next().await {
        match event {
            Event::Message(message) => {
                take(&message, &mut highest, is_alone, &ledger);
                match message.ack().await {
                    // It was received on a connection that is gone, or that went: it comes again.
                    Ok(()) | Err(Error::StaleMessage | Error::Unconfirmed) => {}
                    Err(error) => ledger.complain(format!("acknowledging: {error}")),
                }
            }
            Event::Subscribed { .. } => {
                let book = ledger.book();
                is_alone = !book.has_lingering;
                if book.has_killed {
                    // The server does not know what it had given out, and to whom.
                    highest = 0;
                }
            }
            _ => {}
        }
    }
}

fn take(message: &Message, highest: &mut u64, is_alone: bool, ledger: &Ledger) {
    let text = std::str::from_utf8(message.body()).expect("a number");
    let number: u64 = text.parse().expect("a number");
    let mut book = ledger.book();
    if !book.received.insert(number) {
        book.doubled += 1;
        return;
    }
    // What was given out before, to a connection that died, comes again when the server has noticed.
    if number < *highest && is_alone && !message.is_redelivered() {
        let late = format!("after {highest}, {}", book.stage);
        book.late.insert(number, late);
    }
    *highest = number.max(*highest);
}
