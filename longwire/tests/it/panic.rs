//! A panic while a client is served: it costs that one connection, which leaves like any other.

use crate::harness::{Raw, api, config, get, until};
use longwire::broker::{BoxFuture, Broker, BrokerError, MemoryBroker, Movement, PublishOptions, Published};
use longwire::env::{Env, Rng};
use longwire::history::{Page, Part, Retention};
use longwire::server::Server;
use longwire_protocol::Publication;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::{Builder, LocalOptions};

/// Panics when something is published in `panic`.
struct Panics(MemoryBroker);

impl Broker for Panics {
    fn may_lose(&self) -> bool {
        self.0.may_lose()
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Arc<str>,
        publication: Publication,
        options: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        assert_ne!(&**channel, "panic", "this panic is part of the test");
        self.0.publish(channel, publication, options)
    }

    fn announce<'a>(
        &'a self,
        channel: &'a Arc<str>,
        movement: Movement,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.0.announce(channel, movement)
    }

    fn history<'a>(
        &'a self,
        channel: &'a Arc<str>,
        retention: Retention,
        part: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>> {
        self.0.history(channel, retention, part)
    }

    fn remove_history<'a>(&'a self, channel: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.0.remove_history(channel)
    }

    fn set_interest<'a>(
        &'a self,
        channel: &'a Arc<str>,
        shard: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.0.set_interest(channel, shard, is_interested)
    }

    fn expire(&self, now: Instant) {
        self.0.expire(now);
    }
}

#[test]
fn a_panic_costs_one_connection_and_that_one_has_an_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = config();
    config.server.data_dir = directory.path().join("data");
    // Nobody listens there: what is recorded stays to be counted.
    config.events.endpoint = Some("http://127.0.0.1:9/".to_owned());
    config.events.types = vec![longwire::config::EventType::Disconnected];
    let env = Env::system();
    let clock = env.clock;
    let (server, threads, bound) = Server::assemble(config, false, env, |outlets, _| {
        Box::new(Panics(MemoryBroker::new(outlets, clock, Rng::from_seed(1))))
    })
    .expect("a server");
    let run = |thread: longwire::server::Thread| {
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            runtime.expect("a runtime").block_on(async { (thread.begin)().await });
        })
    };
    let threads: Vec<_> = threads.into_iter().map(run).collect();
    let address = bound.recv().expect("an answer").expect("it listens")[0];
    let mut watching = Raw::open(address);
    watching.connect("");
    let mut raw = Raw::open(address);
    raw.connect("");
    raw.send(r#"{"id":2,"publish":{"channel":"panic","data":1}}"#);
    raw.link.await_end();
    let metrics = || get(address, "/metrics", "").text();
    let ended = "longwire_events_pending 1";
    until("the end is told", || metrics().lines().any(|line| line == ended));
    let closes = metrics();
    let counted = closes.lines().find(|line| line.contains("\"InternalError\"")).expect("a counter");
    assert!(counted.ends_with(" 1"), "{counted}");
    let others = api(address, "publish", &json!({"channel": "news", "data": 1}));
    assert!(others["error"].is_null(), "{others}");
    assert!(watching.ask(r#"{"id":2,"presence_stats":{"channel":"seen:a"}}"#).contains("\"id\":2"));
    drop(server);
    threads.into_iter().for_each(|thread| thread.join().expect("no other thread panicked"));
}
