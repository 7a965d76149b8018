//! A pool of producers through breaks: three tasks send numbers with what the pool lends them, each the next when the one
//! before is confirmed; a consumer of its own takes them.
//!
//! What must hold beside what the scenario looks at: the numbers of one task come in their order, whichever clients
//! sent them, because each was safe before the next was sent; and every client comes back by itself, so that none is replaced.

use crate::options;
use crate::order::Order;
use crate::proxy::Proxy;
use crate::scenario::{Ledger, Run, Up, twelve};
use crate::servers::{Kind, Server};
use crate::stomp::{acknowledge, write_down};
use longwire_client::Error;
use longwire_client::pool::Pool;
use longwire_client::stomp::{AckMode, Client, Event, Subscription};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const QUEUE: &str = "/queue/numbers";

const MEMBERS: [&str; 3] = ["first", "second", "third"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twelve_breaks_of_a_pool_of_producers_lose_nothing_that_was_confirmed() {
    let mut server = Server::start(Kind::Longwire);
    let proxy = Proxy::start(server.stomp());
    let url = format!("stomp://{}", proxy.address());
    let ledger = Arc::new(Ledger::default());
    let beat = Duration::from_secs(1);
    let pool = Pool::<Client>::builder().servers([&url]).size(MEMBERS.len());
    let pool = pool.each(move |builder| builder.heart_beat(beat, beat).options(options())).build();
    let pool = pool.expect("a pool");
    // Who has one gets another, so these are all.
    let mut leases = Vec::new();
    for name in MEMBERS {
        let lease = loop {
            let lease = pool.get().await.expect("a connection");
            if pool.members().iter().all(|member| member.is_connected) {
                break lease;
            }
        };
        write_down(&lease, name, &ledger);
        leases.push(lease);
    }
    drop(leases);
    let consumer = Client::builder(&url).heart_beat(beat, beat).options(options()).build().expect("a client");
    write_down(&consumer, "consumer", &ledger);
    let numbers = consumer.subscribe(QUEUE).ack(AckMode::ClientIndividual).prefetch(100);
    let receiving = tokio::spawn(receive(numbers.start().expect("a subscription"), ledger.clone()));
    let sending: Vec<_> =
        (0..MEMBERS.len()).map(|task| tokio::spawn(send(task, pool.clone(), ledger.clone()))).collect();

    let clients = &["first", "second", "third", "consumer"];
    Run { server: &mut server, proxy: &proxy, ledger: &ledger, clients, up: Up::Same }.go(&twelve());
    for task in sending {
        task.await.expect("no panic");
    }
    assert!(pool.members().iter().all(|member| member.replaced == 0), "{:?}", pool.members());
    pool.close().await;
    consumer.close().await;
    let orders = receiving.await.expect("no panic");
    assert_eq!(orders.len(), MEMBERS.len());
    for (task, order) in orders {
        let flaws = order.flaws(&ledger.book().resent);
        assert!(flaws.is_empty(), "out of order, of task {task}: {flaws:#?}");
    }
}

/// Sends one number after the other, each by whichever client the pool lends.
async fn send(task: usize, pool: Pool<Client>, ledger: Arc<Ledger>) {
    while let Some(number) = ledger.next() {
        let lease = loop {
            match pool.get().await {
                Ok(lease) => break lease,
                // Nobody has a connection, for longer than a checkout waits.
                Err(Error::Timeout) => {}
                Err(error) => {
                    ledger.give_up(number);
                    return ledger.complain(format!("borrowing for {number}: {error}"));
                }
            }
        };
        ledger.settle(number, lease.send(QUEUE, format!("{task} {number}")).persistent(true).await);
        drop(lease);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Takes and acknowledges; gives what came of each task in which order.
async fn receive(mut numbers: Subscription, ledger: Arc<Ledger>) -> BTreeMap<usize, Order> {
    let mut orders = BTreeMap::new();
    while let Some(event) = numbers.next().await {
        match event {
            Event::Message(message) => {
                let text = std::str::from_utf8(message.body()).expect("two numbers");
                let (task, number) = text.split_once(' ').expect("two numbers");
                let task = task.parse().expect("a number");
                let order = orders.entry(task).or_insert_with(|| Order::new(true));
                ledger.receive(number.parse().expect("a number"), message.is_redelivered(), order);
                acknowledge(message, &ledger).await;
            }
            Event::Subscribed { .. } => {
                let book = ledger.book();
                for order in orders.values_mut() {
                    // Each task has one under way.
                    order.begin(book.has_lingering, 1);
                    if book.has_killed {
                        order.forget();
                    }
                }
            }
            _ => {}
        }
    }
    orders
}
