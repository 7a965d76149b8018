//! Handles of a client: what they leave behind when they are dropped.

use super::bench::{Bench, delivery};
use crate::error::Error;
use crate::options::{Options, Outbox};
use crate::stomp::client::Client;
use crate::stomp::message::{AckMode, Message, Verdict};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

/// A client that finds nobody.
fn alone() -> Client {
    // Nothing listens at the port of discard.
    Client::builder("stomp://127.0.0.1:9").build().expect("a client")
}

/// A message that this client received.
fn received(client: &Client) -> Message {
    let mut bench = Bench::connected();
    let queue = bench.subscribe("/queue/a", AckMode::ClientIndividual);
    bench.say(&delivery("lw-1", "1", "a"));
    Message::new(*bench.message(queue), client.handle.clone())
}

#[tokio::test]
async fn who_waits_no_longer_is_forgotten() {
    let client = alone();
    for _ in 0..100 {
        let waker = Waker::from(Arc::new(Nobody));
        let mut context = Context::from_waker(&waker);
        let mut connected = pin!(client.connected());
        assert!(connected.as_mut().poll(&mut context).is_pending());
        assert!(connected.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(client.handle.shared.with(|state, _| state.watchers.len()), 0);
}

#[tokio::test]
async fn a_listener_keeps_no_client() {
    let client = alone();
    let mut events = client.events();
    drop(client);
    let end = async { while events.next().await.is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), end).await.expect("the client ends");
}

#[tokio::test]
async fn what_a_transaction_that_is_undone_said_can_be_said_anew() {
    let client = alone();
    let message = received(&client);
    let mut transaction = client.begin();
    transaction.ack(&message).unwrap();
    assert!(matches!(message.settle(Verdict::Ack), Err(Error::BadArgument { .. })));
    transaction.abort();

    let mut unfit = client.begin();
    unfit.ack(&message).unwrap();
    unfit.send("", "no destination");
    assert!(matches!(unfit.commit().await, Err(Error::BadArgument { .. })));

    let mut committed = client.begin();
    committed.ack(&message).unwrap();
    drop(committed.commit());
    assert!(matches!(message.settle(Verdict::Ack), Err(Error::BadArgument { .. })), "it may be written yet");
}

#[tokio::test]
async fn what_a_commit_that_found_no_room_said_can_be_said_anew() {
    let outbox = Outbox { max_sends: 1, ..Outbox::default() };
    let options = Options { outbox, ..Options::default() };
    let client = Client::builder("stomp://127.0.0.1:9").options(options).build().expect("a client");
    let message = received(&client);
    let _first = client.send("/queue/a", "1").start();
    let mut transaction = client.begin();
    transaction.ack(&message).unwrap();
    // Its caller waits for room, and gives up.
    let mut commit = pin!(transaction.commit());
    assert!(commit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(matches!(message.settle(Verdict::Ack), Err(Error::BadArgument { .. })));
    commit.set(client.begin().commit());
    assert!(matches!(message.settle(Verdict::Ack), Ok(Some(_))));
}
