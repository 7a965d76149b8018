//! A shard before a broker that takes its time, fails, and writes down what it is asked.

use super::*;
use crate::auth::Verifier;
use crate::broker::{BoxFuture, Broker, BrokerError, PublishOptions, Published};
use crate::config::Config;
use crate::delivery::Mailbox;
use crate::env::Env;
use crate::history::{Page, Retention};
use crate::journal::DataDir;
use crate::node::Node;
use crate::node::control::Switchboard;
use crate::node::revocation::Revocations;
use crate::shard::Mail;
use bytes::Bytes;
use longwire_protocol::message::ClientInfo;
use longwire_protocol::{Epoch, Publication};
use std::sync::Mutex;
use std::time::Instant;
use tokio::task::LocalSet;

/// How long every call takes.
const LATENCY: Duration = Duration::from_millis(50);

/// What was asked, in the order in which it took effect, and how many calls fail from here on.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<(Vec<String>, u32)>>);

impl Slow {
    fn call<T: Send + 'static>(&self, what: String, answer: T) -> BoxFuture<'_, Result<T, BrokerError>> {
        let clock = crate::env::Clock::system();
        Box::pin(async move {
            clock.sleep(LATENCY).await;
            let (asked, failing) = &mut *self.0.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return Err(BrokerError::Unavailable("it is told to fail".into()));
            }
            asked.push(what);
            Ok(answer)
        })
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }

    fn fail(&self, calls: u32) {
        self.0.lock().unwrap().1 = calls;
    }
}

impl Broker for Slow {
    fn may_lose(&self) -> bool {
        true
    }

    fn publish<'a>(
        &'a self,
        _: &'a Arc<str>,
        _: Publication,
        _: PublishOptions,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        self.call("publish".into(), Published::default())
    }

    fn announce<'a>(&'a self, _: &'a Arc<str>, movement: Movement) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.call(if matches!(movement, Movement::Join(_)) { "join" } else { "leave" }.into(), ())
    }

    fn history<'a>(
        &'a self,
        _: &'a Arc<str>,
        _: Retention,
        _: Part,
    ) -> BoxFuture<'a, Result<Page, BrokerError>> {
        let top = Position { offset: 0, epoch: Epoch::parse("abcdefgh") };
        self.call("history".into(), Page { publications: Vec::new(), top })
    }

    fn remove_history<'a>(&'a self, _: &'a Arc<str>) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.call("remove".into(), ())
    }

    fn set_interest<'a>(
        &'a self,
        _: &'a Arc<str>,
        _: usize,
        is_interested: bool,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.call(if is_interested { "on" } else { "off" }.into(), ())
    }

    fn expire(&self, _: Instant) {}
}

fn shard(broker: &Slow) -> Rc<Shard> {
    let config = Config::demo();
    let verifier = Verifier::from_config(&config).unwrap();
    let mail = Mail {
        deliveries: Arc::new(Mailbox::new(8)),
        control: Arc::new(Mailbox::new(8)),
        queues: Arc::new(Mailbox::new(8)),
    };
    let switchboard = Switchboard::new(vec![mail.control.clone()]);
    let (errands, _) = crate::errands::Errands::new();
    let env = Env::system();
    let data_dir = DataDir::new(env.disk.clone(), &config.server.data_dir);
    let (revocations, _) = Revocations::load(data_dir, 0, 0).expect("there are none");
    let events = crate::events::Events::off();
    let parts = crate::node::Parts {
        verifier,
        broker: Box::new(broker.clone()),
        switchboard,
        errands,
        events,
        revocations,
        queues: crate::queue::Queues::idle(),
        allowed_origins: longwire_protocol::http::AllowedOrigins::parse(&config.server.allowed_origins)
            .expect("a test's origins are valid"),
    };
    let node = Node::new(config, false, env, parts);
    Shard::new(Arc::new(node), 0, mail)
}

#[tokio::test(start_paused = true)]
async fn who_comes_second_waits_until_the_channel_is_handed_on() {
    let broker = Slow::default();
    let (shard, channel): (_, Arc<str>) = (shard(&broker), "news".into());
    shard.state.borrow_mut().hub.join(&channel, 1);
    shard.state.borrow_mut().hub.join(&channel, 2);
    let start = shard.node.env.clock.now();
    let wait = || async {
        assert_eq!(shard.want(&channel).await, Ok(()));
        shard.node.env.clock.now() - start
    };
    let (first, second) = tokio::join!(wait(), wait());
    assert!(first >= LATENCY && second >= LATENCY, "{first:?}, {second:?}");
    assert_eq!(broker.asked(), ["on"], "once for both");
}

#[tokio::test(start_paused = true)]
async fn an_interest_that_ends_does_not_undo_the_one_that_begins() {
    let broker = Slow::default();
    let (shard, channel): (_, Arc<str>) = (shard(&broker), "news".into());
    let hub_id = shard.state.borrow_mut().hub.join(&channel, 1).hub_id;
    shard.want(&channel).await.unwrap();
    shard.state.borrow_mut().hub.leave(hub_id, 1);
    let back = async {
        shard.state.borrow_mut().hub.join(&channel, 2);
        shard.want(&channel).await
    };
    let ((), back) = tokio::join!(shard.give_up(&channel), back);
    assert_eq!(back, Ok(()));
    assert_eq!(broker.asked().last().map(String::as_str), Some("on"));
    assert!(shard.lines.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_leave_comes_after_its_join() {
    let broker = Slow::default();
    let (shard, channel): (_, Arc<str>) = (shard(&broker), "news".into());
    let info = Arc::new(ClientInfo {
        user: "7".into(),
        client: ClientId(7),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    });
    let (join, leave) = (Movement::Join(info.clone()), Movement::Leave(info));
    tokio::join!(shard.announce(&channel, join.clone()), shard.announce(&channel, leave), async {
        shard.announce(&channel, join).await;
    });
    assert_eq!(broker.asked(), ["join", "leave", "join"]);
    assert!(shard.lines.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_could_not_be_given_up_is_given_up_later() {
    let broker = Slow::default();
    let (shard, channel): (_, Arc<str>) = (shard(&broker), "news".into());
    let hub_id = shard.state.borrow_mut().hub.join(&channel, 1).hub_id;
    shard.want(&channel).await.unwrap();
    shard.state.borrow_mut().hub.leave(hub_id, 1);
    broker.fail(2);
    shard.give_up(&channel).await;
    assert_eq!(broker.asked(), ["on"]);
    let clock = shard.node.env.clock;
    let looking = shard.clone().look_after_channels();
    LocalSet::new().run_until(clock.timeout(CHECK_INTERVAL * 3, looking)).await;
    assert_eq!(broker.asked(), ["on", "off"]);
    assert!(shard.state.borrow().hub.names().is_empty());
}
