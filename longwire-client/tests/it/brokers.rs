//! What the STOMP client does at longwire, RabbitMQ and ActiveMQ when nothing breaks: versions, headers, acknowledgements,
//! transactions, topics, refusals. What the brokers differ in is said where it is.

use crate::harness::LIMIT;
use crate::servers::{Kind, Server};
use longwire_client::stomp::{AckMode, Builder, Client, Event, Message, Subscription, Version};
use longwire_client::{Cause, Error, Limit, Transition};
use std::future::Future;
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn longwire_and_the_client_understand_each_other() {
    everything(Kind::Longwire).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_and_the_client_understand_each_other() {
    everything(Kind::RabbitMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn activemq_and_the_client_understand_each_other() {
    everything(Kind::ActiveMq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn longwire_is_spoken_to_over_websocket_as_over_tcp() {
    let server = Server::start(Kind::Longwire);
    let client = Client::builder(&format!("stomp+ws://{}", server.http())).build().expect("a client");
    let mut messages =
        client.subscribe("/queue/a").ack(AckMode::ClientIndividual).start().expect("a subscription");
    // Neither is text.
    for body in [&b"\xff\xfe\0\n"[..], "\u{e4}\0\n".as_bytes()] {
        soon("a receipt", client.send("/queue/a", body.to_vec()).into_future()).await.expect("it is taken");
        let received = message(&mut messages).await;
        assert_eq!(received.body(), body);
        soon("a receipt", received.ack().confirmed().into_future()).await.expect("it is taken");
    }
    soon("the end", client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_of_longwire_goes_on_where_it_stood_over_a_restart() {
    let mut server = Server::start(Kind::Longwire);
    let reader = client(&server);
    let mut news = reader.subscribe("/topic/news").start().expect("a subscription");
    let event = soon("the subscription", news.next()).await;
    assert!(matches!(event, Some(Event::Subscribed { again: false, .. })), "{event:?}");
    let writer = client(&server);
    let sent = writer.send("/topic/news", "before").into_future();
    soon("a receipt", sent).await.expect("it is taken");
    assert_eq!(message(&mut news).await.text(), Some("before"));
    server.stop();
    let while_away = writer.send("/topic/news", "while away").start();
    server.start_again();
    soon("a receipt", while_away).await.expect("it is taken");
    let event = soon("the subscription", news.next()).await;
    assert!(matches!(event, Some(Event::Subscribed { again: true, .. })), "{event:?}");
    let event = soon("what became of the gap", news.next()).await;
    assert!(matches!(event, Some(Event::Recovered)), "{event:?}");
    assert_eq!(message(&mut news).await.text(), Some("while away"));
    for client in [reader, writer] {
        soon("the end", client.close()).await;
    }
}

async fn everything(kind: Kind) {
    let server = Server::start(kind);
    for version in Version::ALL {
        headers_and_bodies_arrive(&server, version).await;
        one_by_one(&server, version).await;
    }
    all_before(&server).await;
    transactions(&server).await;
    topics(&server).await;
    heartbeats(&server).await;
    refusals(&server).await;
    if kind != Kind::ActiveMq {
        // ActiveMQ gives what is not acknowledged to its dead letters, and lets everybody in.
        given_back(&server).await;
        login_refused(&server).await;
    }
}

fn builder(server: &Server) -> Builder {
    let builder = Client::builder(&format!("stomp://{}", server.stomp()));
    if server.kind == Kind::RabbitMq { builder.login("guest", "guest") } else { builder }
}

fn client(server: &Server) -> Client {
    builder(server).build().expect("a client")
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn message(subscription: &mut Subscription) -> Message {
    soon("a message", subscription.message()).await.expect("the subscription lives")
}

async fn send(client: &Client, queue: &str, body: &str) {
    let sent = client.send(queue, body.to_owned()).persistent(true);
    soon("a receipt", sent.into_future()).await.expect("it is taken");
}

async fn headers_and_bodies_arrive(server: &Server, version: Version) {
    let client = builder(server).versions(&[version]).build().expect("a client");
    let queue = format!("/queue/headers-{}", version.as_str());
    soon("a login", client.connected()).await.expect("a login");
    assert_eq!(client.server().expect("it is connected").version, version);
    // 1.0 has no escapes, and 1.1 none for a carriage return.
    let hard = if version == Version::V10 { "plain" } else { "a:b\\c\nd\u{e4}" };
    let body: Vec<u8> = (0..=255).collect();
    let sent = client.send(&queue, body.clone()).header("hard", hard).content_type("application/x-test");
    let confirmed = soon("a receipt", sent.persistent(true).into_future()).await.expect("it is taken");
    assert_eq!(confirmed.resent, 0);
    let mut messages = client.subscribe(&queue).prefetch(5).start().expect("a subscription");
    let received = message(&mut messages).await;
    assert_eq!(received.destination(), queue);
    assert_eq!(received.header("hard").as_deref(), Some(hard));
    assert_eq!(received.header("content-type").as_deref(), Some("application/x-test"));
    assert_eq!(received.body(), &body);
    assert!(!received.id().is_empty());
    soon("the end of the subscription", messages.unsubscribe()).await.expect("it ends");
    soon("the end", client.close()).await;
}

async fn one_by_one(server: &Server, version: Version) {
    let client = builder(server).versions(&[version]).build().expect("a client");
    let queue = format!("/queue/one-by-one-{}", version.as_str());
    // 1.0 has no such mode, but brokers know it.
    let mut messages =
        client.subscribe(&queue).ack(AckMode::ClientIndividual).start().expect("a subscription");
    for body in ["a", "b", "c"] {
        send(&client, &queue, body).await;
    }
    let (first, second, third) =
        (message(&mut messages).await, message(&mut messages).await, message(&mut messages).await);
    assert_eq!([first.text(), second.text(), third.text()], [Some("a"), Some("b"), Some("c")]);
    soon("a receipt", first.ack().confirmed().into_future()).await.expect("it is taken");
    soon("a receipt", third.ack().confirmed().into_future()).await.expect("it is taken");
    assert!(matches!(first.ack().await, Err(Error::BadArgument { .. })), "once is enough");
    soon("the end", client.close()).await;
    assert!(second.ack().await.is_err());
    let again = self::client(server);
    let mut messages = again.subscribe(&queue).start().expect("a subscription");
    let redelivered = message(&mut messages).await;
    assert_eq!(redelivered.text(), Some("b"));
    // ActiveMQ does not mark what a consumer had that is gone.
    assert!(redelivered.is_redelivered() || server.kind == Kind::ActiveMq);
    send(&again, &queue, "d").await;
    assert_eq!(message(&mut messages).await.text(), Some("d"), "the others were done");
    soon("the end", again.close()).await;
}

async fn all_before(server: &Server) {
    let client = client(server);
    let queue = "/queue/all-before";
    let mut messages = client.subscribe(queue).ack(AckMode::Client).start().expect("a subscription");
    for body in ["a", "b", "c"] {
        send(&client, queue, body).await;
    }
    let (first, second, _third) =
        (message(&mut messages).await, message(&mut messages).await, message(&mut messages).await);
    soon("a receipt", second.ack().confirmed().into_future()).await.expect("it is taken");
    soon("nothing to do", first.ack().into_future()).await.expect("it was said already");
    soon("the end", client.close()).await;
    let again = self::client(server);
    let mut messages = again.subscribe(queue).start().expect("a subscription");
    assert_eq!(message(&mut messages).await.text(), Some("c"));
    soon("the end", again.close()).await;
}

async fn transactions(server: &Server) {
    let client = client(server);
    let (jobs, results) = ("/queue/jobs", "/queue/results");
    send(&client, jobs, "job").await;
    let mut messages = client.subscribe(jobs).ack(AckMode::ClientIndividual).start().expect("a subscription");
    let job = message(&mut messages).await;
    let mut forgotten = client.begin();
    forgotten.send(results, "forgotten").persistent(true);
    forgotten.abort();
    let mut transaction = client.begin();
    transaction.send(results, "one").persistent(true).header("n", "1");
    transaction.send(results, "two").persistent(true);
    transaction.ack(&job).expect("it was not acknowledged");
    soon("the commit", transaction.commit()).await.expect("it is done");
    soon("the end", client.close()).await;
    let again = self::client(server);
    let mut done = again.subscribe(results).start().expect("a subscription");
    let first = message(&mut done).await;
    assert_eq!((first.text(), first.header("n").as_deref()), (Some("one"), Some("1")));
    assert_eq!(message(&mut done).await.text(), Some("two"));
    let mut left = again.subscribe(jobs).start().expect("a subscription");
    send(&again, jobs, "another").await;
    assert_eq!(message(&mut left).await.text(), Some("another"), "the job was acknowledged");
    soon("the end", again.close()).await;
}

async fn topics(server: &Server) {
    let client = client(server);
    let topic = "/topic/news";
    let mut one = client.subscribe(topic).start().expect("a subscription");
    let mut other = client.subscribe(topic).start().expect("a subscription");
    for subscription in [&mut one, &mut other] {
        let event = soon("the subscription", subscription.next()).await;
        assert!(matches!(event, Some(Event::Subscribed { again: false, .. })), "{event:?}");
    }
    let sent = client.send(topic, "today").header("kind", "weather").into_future();
    soon("a receipt", sent).await.expect("it is taken");
    for subscription in [&mut one, &mut other] {
        let received = message(subscription).await;
        assert_eq!((received.text(), received.header("kind").as_deref()), (Some("today"), Some("weather")));
        assert_eq!(received.position().is_some(), server.kind == Kind::Longwire);
    }
    soon("the end", client.close()).await;
}

async fn heartbeats(server: &Server) {
    let second = Duration::from_secs(1);
    let client = builder(server).heart_beat(second, second).build().expect("a client");
    soon("a login", client.connected()).await.expect("a login");
    // Longer than either end bears silence.
    tokio::time::sleep(4 * second).await;
    assert_eq!(client.stats().losses, 0, "{:?}", client.stats());
    assert!(client.is_connected());
    soon("the end", client.close()).await;
}

async fn given_back(server: &Server) {
    let client = client(server);
    let queue = "/queue/given-back";
    send(&client, queue, "a").await;
    let mut messages =
        client.subscribe(queue).ack(AckMode::ClientIndividual).start().expect("a subscription");
    let first = message(&mut messages).await;
    soon("a receipt", first.nack().confirmed().into_future()).await.expect("it is taken");
    let again = message(&mut messages).await;
    assert_eq!((again.text(), again.is_redelivered()), (Some("a"), true));
    soon("the end", client.close()).await;
}

/// A subscription that is refused ends, and the client and its other subscriptions go on.
async fn refusals(server: &Server) {
    let destination = match server.kind {
        Kind::Longwire => "/nowhere/at/all",
        Kind::RabbitMq => "/exchange/nowhere/at-all",
        // It takes every destination, but not every condition.
        Kind::ActiveMq => "/queue/refusals-selected",
    };
    let client = client(server);
    let mut good = client.subscribe("/queue/refusals").start().expect("a subscription");
    let mut bad = client.subscribe(destination).selector("= = =").start().expect("a subscription");
    let event = soon("the refusal", bad.next()).await;
    assert!(matches!(event, Some(Event::Ended(Error::Refused { .. }))), "{event:?}");
    assert!(bad.next().await.is_none());
    send(&client, "/queue/refusals", "still here").await;
    assert_eq!(message(&mut good).await.text(), Some("still here"));
    soon("the end", client.close()).await;
}

async fn login_refused(server: &Server) {
    let client = builder(server).login("nobody", "wrong").build().expect("a client");
    let mut events = client.events();
    let error = soon("the refusal", client.connected()).await.expect_err("nobody knows it");
    let Error::GaveUp { cause: Cause::Told { text, .. }, limit: Limit::Advice } = &error else {
        panic!("{error}");
    };
    assert!(!text.is_empty());
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Transition::GaveUp { .. })), "{last:?}");
}
