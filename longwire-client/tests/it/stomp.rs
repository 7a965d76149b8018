//! The STOMP client through fifty breaks, before longwire, RabbitMQ and ActiveMQ: one client sends numbers to a queue with
//! receipts, twenty of them under way at a time, another takes and acknowledges them.
//!
//! At-least-once is what is promised: a number may come twice. What must hold beside that is in `order`.

use crate::options;
use crate::order::Order;
use crate::proxy::Proxy;
use crate::scenario::{Break, Ledger, Run, Up, fifty, twelve};
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_breaks_of_stomp_over_tls_lose_nothing_that_was_confirmed() {
    let server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.stomps());
    breaks_of(server, proxy, "stomps", &twelve()).await;
}

async fn fifty_breaks(kind: Kind) {
    let server = Server::start(kind);
    let proxy = Proxy::start(server.stomp());
    breaks_of(server, proxy, "stomp", &fifty()).await;
}

async fn breaks_of(mut server: Server, proxy: Proxy, scheme: &str, breaks: &[Break]) {
    let kind = server.kind;
    let url = format!("{scheme}://{}", proxy.address());
    let ledger = Arc::new(Ledger::default());
    let producer = client(&url, &server, "producer", &ledger);
    let consumer = client(&url, &server, "consumer", &ledger);
    let mut numbers = consumer.subscribe(QUEUE).ack(AckMode::ClientIndividual).prefetch(100);
    if kind == Kind::ActiveMq {
        // It does not mark what it gave to a consumer that died. So that order can be looked at all the same, the next
        // consumer gets nothing before that one is found dead.
        numbers = numbers.header("activemq.exclusive", "true");
    }
    let numbers = numbers.start().expect("a subscription");
    let receiving = tokio::spawn(receive(numbers, kind != Kind::ActiveMq, ledger.clone()));
    let sending = tokio::spawn(send(producer.clone(), ledger.clone()));

    let clients = &["producer", "consumer"];
    Run { server: &mut server, proxy: &proxy, ledger: &ledger, clients, up: Up::Same }.go(breaks);
    sending.await.expect("no panic");
    producer.close().await;
    consumer.close().await;
    let order = receiving.await.expect("no panic");
    let flaws = order.flaws(&ledger.book().resent);
    assert!(flaws.is_empty(), "out of order: {flaws:#?}");
}

/// A client whose transitions are written down.
fn client(url: &str, server: &Server, name: &'static str, ledger: &Arc<Ledger>) -> Client {
    let mut options = options();
    if server.kind == Kind::Longwire {
        options.tls = server.trust();
    }
    let mut builder = Client::builder(url)
        .heart_beat(Duration::from_secs(1), Duration::from_secs(1))
        .host("/")
        .options(options);
    if server.kind == Kind::RabbitMq {
        builder = builder.login("guest", "guest");
    }
    let client = builder.build().expect("a client");
    write_down(&client, name, ledger);
    client
}

/// Has the transitions of a client in the ledger.
pub(crate) fn write_down(client: &Client, name: &'static str, ledger: &Arc<Ledger>) {
    let mut events = client.events();
    let ledger = ledger.clone();
    tokio::spawn(async move {
        while let Some(transition) = events.next().await {
            ledger.tell(name, transition);
        }
    });
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
                ledger.settle(number, result);
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

/// Takes and acknowledges; gives what came in which order.
async fn receive(mut numbers: Subscription, marks: bool, ledger: Arc<Ledger>) -> Order {
    let mut order = Order::new(marks);
    while let Some(event) = numbers.next().await {
        match event {
            Event::Message(message) => {
                let text = std::str::from_utf8(message.body()).expect("a number");
                let number = text.parse().expect("a number");
                ledger.receive(number, message.is_redelivered(), &mut order);
                acknowledge(message, &ledger).await;
            }
            Event::Subscribed { .. } => {
                let book = ledger.book();
                order.begin(book.has_lingering, WINDOW);
                if book.has_killed {
                    order.forget();
                }
            }
            _ => {}
        }
    }
    order
}

pub(crate) async fn acknowledge(message: Message, ledger: &Ledger) {
    match message.ack().await {
        // It was received on a connection that is gone, or that went: it comes again.
        Ok(()) | Err(Error::StaleMessage | Error::Unconfirmed) => {}
        Err(error) => ledger.complain(format!("acknowledging: {error}")),
    }
}
