//! What queues promise, with invented time and a store that fails when it is told to.

mod disk;
mod model;

use super::engine::Engine;
use super::store::memory::{Kept, MemoryStore};
use super::{Call, Keeper, QueueStats, Queues};
use super::{Event, Letter, Outcome, Page, Place, Received};
use crate::config::{Config, QueueOptions, QueueSettings, WhenFull};
use crate::delivery::Mailbox;
use crate::telemetry::QueueCounters;
use bytes::Bytes;
use longwire_protocol::queue::{
    AckMode, Consume, DEFAULT_PRIORITY, Delivered, Expiry, Headers, Meant, NewMessage, QueueCommand,
    QueueErrorKind, QueuePush, Verdict,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a session saw.
#[derive(Default)]
struct Seen {
    answers: Vec<(u32, Result<(), QueueErrorKind>)>,
    deliveries: Vec<Delivered>,
    others: Vec<QueuePush>,
}

/// An engine, the store it is on, and what its sessions saw.
struct World {
    engine: Engine,
    kept: Kept,
    settings: QueueSettings,
    seen: BTreeMap<u64, Seen>,
    starts: u32,
    next_id: u32,
}

impl World {
    fn new(change: impl FnOnce(&mut QueueSettings)) -> World {
        let mut settings = QueueSettings::default();
        change(&mut settings);
        let kept = Kept::default();
        let engine = engine(&kept, &settings, 1, 1_000_000);
        World { engine, kept, settings, seen: BTreeMap::new(), starts: 1, next_id: 0 }
    }

    /// As after a kill: what is durable is there.
    fn restart(&mut self) {
        self.starts += 1;
        self.engine = engine(&self.kept, &self.settings, self.starts, self.engine.now + 10);
        self.seen.clear();
        self.turn();
    }

    fn turn(&mut self) {
        for _ in 0..10_000 {
            self.engine.tick();
            self.engine.flush();
            let mut has_more = self.engine.dispatch();
            self.engine.end_waits();
            self.engine.flush();
            has_more |= self.engine.maintain();
            for events in &mut self.engine.events {
                for event in events.drain(..) {
                    let (Event::Answer { session, .. } | Event::Push { session, .. }) = &event;
                    let seen = self.seen.entry(*session).or_default();
                    match event {
                        Event::Answer { id, result, .. } => {
                            seen.answers.push((id, result.map_err(|error| error.kind)));
                        }
                        Event::Push { push: QueuePush::Delivered(delivered), .. } => {
                            seen.deliveries.push(delivered)
                        }
                        Event::Push { push, .. } => seen.others.push(push),
                    }
                }
            }
            if !has_more {
                return;
            }
        }
        panic!("the engine never rests");
    }

    fn pass(&mut self, millis: u64) {
        self.engine.now += millis;
        self.turn();
    }

    /// Does one command and gives its answer, if it has come.
    fn ask(&mut self, session: u64, command: QueueCommand) -> Option<Result<(), QueueErrorKind>> {
        self.next_id += 1;
        let id = self.next_id;
        self.engine.handle(Letter::Submitted(place(session), vec![(id, command)]));
        self.turn();
        let answers = &self.seen.get(&session)?.answers;
        answers.iter().find(|(answered, _)| *answered == id).map(|(_, result)| *result)
    }

    fn must(&mut self, session: u64, command: QueueCommand) {
        assert_eq!(self.ask(session, command), Some(Ok(())));
    }

    fn send(&mut self, body: &str) {
        self.must(99, send(message("q", body)));
    }

    fn consume(&mut self, session: u64, ack: AckMode) {
        self.must(session, QueueCommand::Consume(Box::new(consume(1, "q", ack))));
    }

    /// What a session was delivered since this was asked last.
    fn came(&mut self, session: u64) -> Vec<String> {
        self.turn();
        self.take(session).iter().map(|delivered| text(&delivered.message.body)).collect()
    }

    fn take(&mut self, session: u64) -> Vec<Delivered> {
        self.turn();
        std::mem::take(&mut self.seen.entry(session).or_default().deliveries)
    }

    fn settle(&mut self, session: u64, delivered: &Delivered, verdict: Verdict) {
        self.must(session, settle(delivered.delivery, verdict));
    }

    fn call<T>(&mut self, call: impl FnOnce(Outcome<T>) -> Call) -> Option<Result<T, QueueErrorKind>> {
        let (outcome, mut answer) = oneshot::channel();
        self.engine.handle(Letter::Called(call(outcome)));
        self.turn();
        answer.try_recv().ok().map(|result| result.map_err(|error| error.kind))
    }

    fn stats(&mut self, queue: &str) -> QueueStats {
        let stats = self.call(|outcome| Call::Stats { queue: queue.into(), outcome });
        stats.expect("it is answered").expect("there is the queue")
    }

    fn receive(&mut self, max: usize, lease: u64) -> Vec<Received> {
        let lease = Duration::from_millis(lease);
        let received = self.call(|outcome| Call::Receive {
            queue: "q".into(),
            max,
            wait: Duration::ZERO,
            lease,
            outcome,
        });
        received.expect("it is answered").expect("there is the queue")
    }

    fn fail(&self, fails: bool) {
        self.kept.1.fails.store(fails, Relaxed);
    }
}

fn engine(kept: &Kept, settings: &QueueSettings, tag: u32, now: u64) -> Engine {
    let store = Box::new(MemoryStore::on(kept));
    let mut engine = Engine::new(store, settings.clone(), Arc::new(QueueCounters::default()), tag, 1, now);
    let found = engine.replay().expect("the store is read");
    assert_eq!((found.unknown, found.strays, found.unfinished), (0, 0, 0));
    engine
}

fn place(session: u64) -> Place {
    Place { shard: 0, session }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

fn message(queue: &str, body: &str) -> NewMessage {
    NewMessage {
        queue: queue.into(),
        headers: Headers::of([("color", "red")]),
        body: Bytes::copy_from_slice(body.as_bytes()),
        priority: DEFAULT_PRIORITY,
        is_persistent: true,
        expiry: None,
        delay: Duration::ZERO,
    }
}

fn send(message: NewMessage) -> QueueCommand {
    QueueCommand::Send(Box::new(message))
}

fn consume(consumer: u32, queue: &str, ack: AckMode) -> Consume {
    Consume {
        consumer,
        queue: queue.into(),
        ack,
        prefetch: None,
        selector: None,
        is_exclusive: false,
        is_browsing: false,
        durable_of: None,
    }
}

fn settle(delivery: u64, verdict: Verdict) -> QueueCommand {
    QueueCommand::Settle { meant: Meant::Delivery(delivery), verdict }
}

#[test]
fn a_message_waits_until_it_is_acknowledged_and_is_then_gone_for_ever() {
    let mut world = World::new(|_| {});
    world.send("a");
    world.restart();
    world.consume(1, AckMode::Individual);
    let first = world.take(1);
    assert_eq!((text(&first[0].message.body), first[0].redeliveries), ("a".into(), 0));
    assert_eq!(first[0].message.headers.get("color").as_deref(), Some("red"));
    let id = first[0].message.id.clone();
    world.restart();
    world.consume(1, AckMode::Individual);
    let again = world.take(1);
    assert_eq!(again[0].message.id, id, "an id is kept");
    world.settle(1, &again[0], Verdict::Ack);
    assert_eq!(
        world.ask(1, settle(again[0].delivery, Verdict::Ack)),
        Some(Err(QueueErrorKind::UnknownDelivery))
    );
    world.restart();
    world.consume(1, AckMode::Individual);
    assert!(world.came(1).is_empty());
    world.send("b");
    assert_ne!(world.take(1)[0].message.id, id);
}

#[test]
fn consumers_take_turns_and_a_higher_priority_goes_first() {
    let mut world = World::new(|_| {});
    for (body, priority) in [("a", 4), ("b", 9), ("c", 4), ("d", 0), ("e", 9), ("f", 4)] {
        world.must(99, send(NewMessage { priority, ..message("q", body) }));
    }
    world.consume(1, AckMode::Individual);
    assert_eq!(world.came(1), ["b", "e", "a", "c", "f", "d"]);
    world.consume(2, AckMode::Individual);
    for body in ["1", "2", "3", "4"] {
        world.send(body);
    }
    assert_eq!((world.came(1), world.came(2)), (vec!["1".into(), "3".into()], vec!["2".into(), "4".into()]));
}

#[test]
fn what_is_given_back_goes_to_its_place_and_to_somebody_else_first() {
    let mut world = World::new(|_| {});
    for body in ["a", "b", "c"] {
        world.send(body);
    }
    world.must(
        1,
        QueueCommand::Consume(Box::new(Consume {
            prefetch: Some(1),
            ..consume(1, "q", AckMode::Individual)
        })),
    );
    let first = world.take(1);
    world.must(
        2,
        QueueCommand::Consume(Box::new(Consume {
            prefetch: Some(2),
            ..consume(1, "q", AckMode::Individual)
        })),
    );
    assert_eq!(world.came(2), ["b", "c"]);
    world.settle(1, &first[0], Verdict::Requeue);
    let again = world.take(1);
    assert_eq!(
        (text(&again[0].message.body), again[0].redeliveries),
        ("a".into(), 1),
        "nobody else had credit"
    );
    // Unwritten deliveries do not count, others do.
    world.engine.handle(Letter::Ended(place(1), vec![again[0].delivery]));
    world.consume(3, AckMode::Individual);
    let again = world.take(3);
    assert_eq!((text(&again[0].message.body), again[0].redeliveries), ("a".into(), 1));
    world.engine.handle(Letter::Ended(place(3), vec![]));
    world.engine.handle(Letter::Ended(place(2), vec![]));
    world.consume(4, AckMode::Individual);
    let all = world.take(4);
    let all: Vec<_> = all.iter().map(|one| (text(&one.message.body), one.redeliveries)).collect();
    assert_eq!(all, [("a".into(), 2), ("b".into(), 1), ("c".into(), 1)]);
}

#[test]
fn a_cumulative_acknowledgement_counts_for_one_consumer_up_to_that_delivery() {
    let mut world = World::new(|_| {});
    world.consume(1, AckMode::Cumulative);
    world.must(1, QueueCommand::Consume(Box::new(consume(2, "other", AckMode::Cumulative))));
    for body in ["a", "b", "c"] {
        world.send(body);
        world.must(99, send(message("other", body)));
    }
    let all = world.take(1);
    let own: Vec<_> = all.iter().filter(|delivered| delivered.consumer == 1).collect();
    world.settle(1, own[1], Verdict::Ack);
    assert_eq!((world.stats("q").in_flight, world.stats("other").in_flight), (1, 3));
    let meant = Meant::Message(own[2].message.id.clone(), None);
    world.must(1, QueueCommand::Settle { meant, verdict: Verdict::Ack });
    assert_eq!(world.stats("q").in_flight, 0);
}

#[test]
fn credit_in_messages_and_in_bytes_bounds_what_a_consumer_is_given() {
    let mut world = World::new(|_| {});
    let big = "x".repeat(700 << 10);
    for _ in 0..3 {
        world.send(&big);
    }
    world.must(99, send(message("small", "s")));
    world.consume(1, AckMode::Individual);
    assert_eq!(world.take(1).len(), 1, "1 MiB is the credit");
    world.must(99, send(message("q", &"y".repeat(3 << 20))));
    for _ in 0..3 {
        let delivery = world.seen.get(&1).map(|_| world.engine.next_delivery - 1).expect("it consumes");
        let number = super::session::delivery_number(delivery, 0);
        world.must(1, settle(number, Verdict::Ack));
        assert_eq!(world.take(1).len(), 1, "one at a time, and at last one larger than the credit");
    }
    let mut auto = World::new(|_| {});
    for _ in 0..600 {
        auto.send(&"z".repeat(1000));
    }
    auto.consume(1, AckMode::Auto);
    let first = auto.take(1);
    assert!((200..=256).contains(&first.len()), "{} of 1000 bytes", first.len());
    let written = first.iter().map(|delivered| delivered.delivery).collect();
    auto.engine.handle(Letter::Written(place(1), written));
    assert!((200..=256).contains(&auto.take(1).len()));
    auto.restart();
    assert_eq!(auto.stats("q").waiting, 600 - first.len() as u64, "what was written is done");
}

#[test]
fn a_message_that_fails_too_often_and_one_that_is_rejected_are_dead_letters() {
    let mut world = World::new(|settings| settings.options.max_deliveries = 3);
    world.send("bad");
    world.send("worse");
    world.consume(1, AckMode::Individual);
    let mut all = world.take(1);
    world.settle(1, &all.swap_remove(1), Verdict::Reject);
    for _ in 0..3 {
        world.settle(1, &all.pop().expect("it came again"), Verdict::Requeue);
        all = world.take(1);
    }
    assert!(all.is_empty());
    world.restart();
    world.must(1, QueueCommand::Consume(Box::new(consume(7, "dead.q", AckMode::Individual))));
    let dead = world.take(1);
    let of = |at: usize, name: &str| dead[at].message.headers.get(name).map(|value| value.into_owned());
    assert_eq!(
        (text(&dead[0].message.body), of(0, "x-death-reason")),
        ("worse".into(), Some("rejected".into()))
    );
    assert_eq!(
        (text(&dead[1].message.body), of(1, "x-death-reason")),
        ("bad".into(), Some("max_deliveries".into()))
    );
    assert_eq!((of(1, "x-death-queue"), of(1, "x-death-count")), (Some("q".into()), Some("3".into())));
    assert_eq!(of(1, "color").as_deref(), Some("red"));
    world.settle(1, &dead[0], Verdict::Reject);
    let queues = world.call(|outcome| Call::List { after: None, max: 100, outcome }).expect("answered");
    let names: Vec<_> = queues.expect("listed").into_iter().map(|queue| queue.name.to_string()).collect();
    assert_eq!(names, ["dead.q", "q"], "a dead letter does not die again");
    assert_eq!(world.stats("dead.q").in_flight, 1);
}

#[test]
fn a_full_queue_refuses_or_drops_the_oldest_or_buries_it() {
    for when_full in [WhenFull::Refuse, WhenFull::DropOldest, WhenFull::DeadLetter] {
        let mut world = World::new(|settings| {
            settings
                .named
                .insert("q".into(), QueueOptions { max_messages: 2, when_full, ..QueueOptions::default() });
        });
        world.send("a");
        world.send("b");
        let third = world.ask(99, send(message("q", "c"))).expect("answered");
        assert_eq!(third.is_err(), when_full == WhenFull::Refuse);
        world.restart();
        let mut waiting = |queue: &str| -> Vec<String> {
            let peek = |outcome| Call::Peek { queue: queue.into(), after: None, max: 10, outcome };
            let page = world.call(peek).expect("answered").unwrap_or_default();
            page.messages.iter().map(|peeked| text(&peeked.message.body)).collect()
        };
        let expected = if when_full == WhenFull::Refuse { ["a", "b"] } else { ["b", "c"] };
        assert_eq!(waiting("q"), expected);
        let buried: &[&str] = if when_full == WhenFull::DeadLetter { &["a"] } else { &[] };
        assert_eq!(waiting("dead.q"), buried);
    }
}

#[test]
fn a_transaction_is_done_as_one_or_not_at_all() {
    let mut world = World::new(|settings| settings.options.max_message_bytes = 20);
    world.send("a");
    world.consume(1, AckMode::Individual);
    let delivered = world.take(1).remove(0);
    let ack = settle(delivered.delivery, Verdict::Ack);
    let bad = vec![send(message("x", "1")), ack.clone(), send(message("x", "much too long for it"))];
    let refused = world.ask(1, QueueCommand::Transaction(bad));
    assert_eq!(refused, Some(Err(QueueErrorKind::MessageTooBig)));
    assert_eq!((world.stats("q").in_flight, world.stats("x").waiting), (1, 0));
    world.fail(true);
    let good = QueueCommand::Transaction(vec![send(message("x", "1")), ack, send(message("x", "2"))]);
    assert_eq!(world.ask(1, good.clone()), Some(Err(QueueErrorKind::NotWritable)));
    assert_eq!((world.stats("q").in_flight, world.stats("x").waiting), (1, 0));
    world.fail(false);
    world.pass(1001);
    world.must(1, good);
    world.restart();
    assert_eq!((world.stats("q").waiting, world.stats("x").waiting), (0, 2));
}

#[test]
fn a_disk_that_fails_refuses_sends_and_keeps_acknowledgements() {
    let mut world = World::new(|_| {});
    for body in ["a", "b", "c"] {
        world.send(body);
    }
    world.must(
        1,
        QueueCommand::Consume(Box::new(Consume {
            prefetch: Some(1),
            ..consume(1, "q", AckMode::Individual)
        })),
    );
    let first = world.take(1).remove(0);
    world.fail(true);
    assert_eq!(world.ask(99, send(message("q", "d"))), Some(Err(QueueErrorKind::NotWritable)));
    assert_eq!(world.ask(1, settle(first.delivery, Verdict::Ack)), None, "no receipt before the sync");
    assert_eq!(world.came(1), ["b"], "deliveries go on");
    let transient = NewMessage { is_persistent: false, ..message("q", "t") };
    world.must(99, send(transient));
    world.pass(5000);
    assert_eq!(world.ask(99, send(message("q", "e"))), Some(Err(QueueErrorKind::NotWritable)));
    world.fail(false);
    world.pass(1001);
    let answers = &world.seen[&1].answers;
    assert_eq!(answers.last().map(|(_, result)| *result), Some(Ok(())), "it is answered when it is safe");
    world.send("f");
    world.restart();
    world.consume(1, AckMode::Individual);
    assert_eq!(world.came(1), ["b", "c", "f"]);
}

#[test]
fn little_room_on_the_disk_refuses_sends_alone() {
    let mut world = World::new(|_| {});
    world.send("a");
    world.consume(1, AckMode::Individual);
    let delivered = world.take(1).remove(0);
    world.kept.1.free.store(1000, Relaxed);
    world.pass(2000);
    assert_eq!(world.ask(99, send(message("q", "b"))), Some(Err(QueueErrorKind::NotWritable)));
    world.settle(1, &delivered, Verdict::Ack);
    world.kept.1.free.store(0, Relaxed);
    world.pass(2000);
    world.send("c");
    assert_eq!(world.came(1), ["c"]);
}

#[test]
fn delays_and_ages_are_kept_over_a_restart() {
    let mut world = World::new(|_| {});
    world.must(99, send(NewMessage { delay: Duration::from_secs(10), ..message("q", "late") }));
    let expiry = Some(Expiry::After(Duration::from_secs(5)));
    world.must(99, send(NewMessage { expiry, ..message("q", "short") }));
    world.send("now");
    world.restart();
    assert_eq!((world.stats("q").waiting, world.stats("q").delayed), (2, 1));
    world.pass(6000);
    world.consume(1, AckMode::Individual);
    assert_eq!(world.came(1), ["now"]);
    world.pass(5000);
    assert_eq!(world.came(1), ["late"]);
    let dead = world.stats("dead.q");
    assert_eq!(dead.waiting, 1, "what is too old is a dead letter");
}

#[test]
fn a_selector_an_exclusive_consumer_and_a_browser_get_what_is_theirs() {
    let mut world = World::new(|_| {});
    let colored = |color: &str, body: &str| NewMessage {
        headers: Headers::of([("color", color)]),
        ..message("q", body)
    };
    for (color, body) in [("red", "1"), ("blue", "2"), ("red", "3")] {
        world.must(99, send(colored(color, body)));
    }
    let browse = Consume { is_browsing: true, ..consume(1, "q", AckMode::Auto) };
    world.must(5, QueueCommand::Consume(Box::new(browse)));
    assert_eq!(world.came(5), ["1", "2", "3"]);
    assert_eq!(world.seen[&5].others, [QueuePush::Browsed { consumer: 1 }]);
    let blue = Consume { selector: Some("color = 'blue'".into()), ..consume(1, "q", AckMode::Individual) };
    world.must(1, QueueCommand::Consume(Box::new(blue.clone())));
    world.must(99, send(colored("blue", "4")));
    let taken = world.take(1);
    assert_eq!(taken.iter().map(|one| text(&one.message.body)).collect::<Vec<_>>(), ["2", "4"]);
    world.settle(1, &taken[0], Verdict::Requeue);
    assert_eq!(world.came(1), ["2"], "it is looked at again");
    let bad = Consume { selector: Some("color = ".into()), ..blue };
    let refused = world.ask(2, QueueCommand::Consume(Box::new(bad)));
    assert_eq!(refused, Some(Err(QueueErrorKind::BadSelector)));
    let exclusive = Consume { is_exclusive: true, ..consume(1, "q", AckMode::Individual) };
    world.must(3, QueueCommand::Consume(Box::new(exclusive.clone())));
    world.must(4, QueueCommand::Consume(Box::new(exclusive)));
    world.must(99, send(colored("blue", "5")));
    assert_eq!(
        (world.came(3), world.came(4), world.came(1)),
        (vec!["1".into(), "3".into(), "5".into()], vec![], vec![])
    );
    world.engine.handle(Letter::Ended(place(3), vec![]));
    assert_eq!(world.came(4), ["1", "3", "5"], "the next one has it");
}

#[test]
fn a_durable_subscription_is_bound_until_it_is_given_up() {
    let mut world = World::new(|_| {});
    let name = "~durable/me/1";
    let durable = Consume { durable_of: Some("news".into()), ..consume(1, name, AckMode::Individual) };
    world.must(1, QueueCommand::Consume(Box::new(durable.clone())));
    let bound = world.engine.take_bindings().flatten().expect("it is bound");
    assert_eq!(&*bound["news"], &[Arc::<str>::from(name)]);
    world.must(99, send(message(name, "a")));
    world.engine.handle(Letter::Ended(place(1), vec![]));
    world.restart();
    assert!(world.engine.take_bindings().flatten().is_some_and(|bound| bound.contains_key("news")));
    world.must(1, QueueCommand::Consume(Box::new(durable)));
    assert_eq!(world.came(1), ["a"]);
    world.must(1, QueueCommand::Cancel { consumer: 1, is_forever: true });
    assert_eq!(world.engine.take_bindings(), Some(None));
    world.restart();
    assert_eq!(world.engine.take_bindings(), Some(None));
    let gone = world.call(|outcome| Call::Stats { queue: name.into(), outcome });
    assert_eq!(gone, Some(Err(QueueErrorKind::NoSuchQueue)));
}

#[test]
fn an_acknowledgement_goes_to_the_disk_with_the_next_message_or_a_millisecond_later() {
    let mut world = World::new(|_| {});
    world.consume(1, AckMode::Individual);
    let acknowledge = |world: &mut World, id| {
        let delivered = world.take(1).remove(0);
        let command = settle(delivered.delivery, Verdict::Ack);
        world.engine.handle(Letter::Submitted(place(1), vec![(id, command)]));
        world.engine.flush_in_company();
    };
    let commits = |world: &World| world.engine.counters.commits.get();

    world.send("a");
    let before = commits(&world);
    acknowledge(&mut world, 1001);
    assert_eq!(commits(&world), before, "a message was just sent: another may come");
    assert_eq!(world.engine.next_timeout(), Some(world.engine.now + 1));
    let another = vec![(1002, send(message("q", "b")))];
    world.engine.handle(Letter::Submitted(place(99), another));
    world.engine.flush_in_company();
    assert_eq!((commits(&world), world.engine.ops.len()), (before + 1, 0), "they went together");

    acknowledge(&mut world, 1003);
    world.engine.now += 1;
    world.engine.flush_in_company();
    assert_eq!((commits(&world), world.engine.ops.len()), (before + 2, 0), "no message came");

    world.send("c");
    world.engine.now += 100;
    let before = commits(&world);
    acknowledge(&mut world, 1004);
    assert_eq!((commits(&world), world.engine.ops.len()), (before + 1, 0), "no message is likely to come");
    world.restart();
    assert_eq!(world.stats("q").waiting, 0);
}

#[test]
fn the_age_of_the_oldest_message_is_known_without_its_body() {
    let mut world = World::new(|settings| settings.store.cache_bytes = 0);
    world.engine.now = 1_234_567;
    world.send("a");
    world.pass(60_000);
    world.send("b");
    assert_eq!(world.stats("q").oldest_ms, 1_234_000);
    world.restart();
    assert_eq!(world.stats("q").oldest_ms, 1_234_000);
    world.consume(1, AckMode::Individual);
    let came = world.take(1);
    assert_eq!(world.stats("q").oldest_ms, 0, "none waits");
    world.settle(1, &came[0], Verdict::Ack);
    world.engine.handle(Letter::Ended(place(1), vec![]));
    world.turn();
    assert_eq!(world.stats("q").oldest_ms, 1_294_000);
}

/// Notes, when a shard is woken, which channels are bound.
struct Looking {
    queues: Queues,
    bound: std::sync::Mutex<Vec<bool>>,
}

impl std::task::Wake for Looking {
    fn wake(self: Arc<Self>) {
        self.bound.lock().unwrap().push(self.queues.bound("news").is_some());
    }
}

#[test]
fn publishers_know_of_a_durable_subscription_before_its_subscriber_does() {
    let outlet = Arc::new(Mailbox::new(1));
    let clock = crate::env::Env::system().clock;
    let (queues, mut keeper) = Keeper::in_memory(&Config::demo(), clock, vec![outlet.clone()]);
    let looking = Arc::new(Looking { queues: queues.clone(), bound: Default::default() });
    let waker = std::task::Waker::from(looking.clone());
    let mut arrived = std::pin::pin!(outlet.arrived());
    assert!(arrived.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    let durable =
        Consume { durable_of: Some("news".into()), ..consume(1, "~durable/me/1", AckMode::Individual) };
    queues.submit(place(1), vec![(1, QueueCommand::Consume(Box::new(durable)))]);
    keeper.turn();
    assert_eq!(*looking.bound.lock().unwrap(), [true], "the answer came before the binding");
}

#[test]
fn a_durable_subscription_stays_bound_while_its_record_is_written_again() {
    let mut world = World::new(|_| {});
    let durable = |session: u64, channel: &str| {
        let name = format!("~durable/{session}/1");
        let consume = consume(1, &name, AckMode::Individual);
        QueueCommand::Consume(Box::new(Consume { durable_of: Some(channel.into()), ..consume }))
    };
    world.must(1, durable(1, "news"));
    // It is to follow another channel, and the disk does not take that.
    world.fail(true);
    world.engine.handle(Letter::Ended(place(1), vec![]));
    assert_eq!(world.ask(1, durable(1, "weather")), Some(Err(QueueErrorKind::NotWritable)));
    world.fail(false);
    world.pass(1001);
    world.must(2, durable(2, "other"));
    let bound = world.engine.take_bindings().flatten().expect("two are bound");
    assert_eq!(bound.keys().map(|channel| &**channel).collect::<Vec<_>>(), ["news", "other"]);
    // It does later, and what said so before is needed no more.
    world.engine.handle(Letter::Ended(place(1), vec![]));
    world.must(1, durable(1, "weather"));
    let bound = world.engine.take_bindings().flatten().expect("two are bound");
    assert_eq!(bound.keys().map(|channel| &**channel).collect::<Vec<_>>(), ["other", "weather"]);
    let live: u64 = world.engine.live.iter().sum();
    world.restart();
    assert_eq!(world.engine.live.iter().sum::<u64>(), live);
}

#[test]
fn a_lease_ends_and_its_token_with_it() {
    let mut world = World::new(|_| {});
    for body in ["a", "b", "c"] {
        world.send(body);
    }
    let received = world.receive(2, 1000);
    assert_eq!(received.iter().map(|one| text(&one.message.body)).collect::<Vec<_>>(), ["a", "b"]);
    let tokens = vec![received[0].token.clone(), "0-0".into()];
    let settled = world.call(|outcome| Call::Settle { tokens, verdict: Verdict::Ack, outcome });
    let settled = settled.expect("answered").expect("done");
    assert!(settled[0].is_ok() && settled[1].is_err());
    world.pass(1001);
    let tokens = vec![received[1].token.clone()];
    let late = world.call(|outcome| Call::Settle { tokens, verdict: Verdict::Ack, outcome });
    assert!(late.expect("answered").expect("done")[0].is_err());
    let again = world.receive(10, 1000);
    let again: Vec<_> = again.iter().map(|one| (text(&one.message.body), one.redeliveries)).collect();
    assert_eq!(again, [("b".into(), 1), ("c".into(), 0)]);
    let (outcome, mut answer) = oneshot::channel();
    let wait = Duration::from_secs(1);
    let lease = Duration::from_secs(9);
    world.engine.handle(Letter::Called(Call::Receive { queue: "q".into(), max: 5, wait, lease, outcome }));
    world.turn();
    assert!(answer.try_recv().is_err(), "it waits");
    world.send("d");
    assert_eq!(answer.try_recv().expect("it has come").expect("something").len(), 1);
    assert!(world.receive(1, 1).is_empty());
}

#[test]
fn who_looks_moves_and_purges_sees_everything_once() {
    let mut world = World::new(|_| {});
    for at in 0..25 {
        world.must(99, send(NewMessage { priority: at % 3, ..message("q", &at.to_string()) }));
    }
    world.must(
        1,
        QueueCommand::Consume(Box::new(Consume {
            prefetch: Some(4),
            ..consume(1, "q", AckMode::Individual)
        })),
    );
    let (mut bodies, mut after) = (Vec::new(), None);
    loop {
        let from = after.clone();
        let page: Page = world
            .call(|outcome| Call::Peek { queue: "q".into(), after: from, max: 4, outcome })
            .expect("answered")
            .expect("there is the queue");
        bodies.extend(page.messages.iter().map(|peeked| text(&peeked.message.body)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    bodies.sort_by_key(|body| body.parse::<u32>().expect("a number"));
    assert_eq!(bodies, (0..25).map(|at| at.to_string()).collect::<Vec<_>>());
    let moved = world.call(|outcome| Call::Move { from: "q".into(), to: "r".into(), max: 6, outcome });
    assert_eq!(moved, Some(Ok(6)));
    world.restart();
    assert_eq!((world.stats("q").waiting, world.stats("r").waiting), (19, 6));
    assert_eq!(world.call(|outcome| Call::Purge { queue: "q".into(), outcome }), Some(Ok(19)));
    assert_eq!(world.call(|outcome| Call::Remove { queue: "r".into(), outcome }), Some(Ok(6)));
    world.restart();
    assert_eq!(world.stats("q").waiting, 0);
}

#[test]
fn a_temporary_queue_goes_with_its_consumer_and_is_never_on_the_disk() {
    let mut world = World::new(|_| {});
    world.must(99, send(message("~temp/1/a", "to nobody")));
    world.must(1, QueueCommand::Consume(Box::new(consume(1, "~temp/1/a", AckMode::Individual))));
    world.must(99, send(message("~temp/1/a", "answer")));
    assert_eq!(world.came(1), ["answer"]);
    world.engine.handle(Letter::Ended(place(1), vec![]));
    world.turn();
    let gone = world.call(|outcome| Call::Stats { queue: "~temp/1/a".into(), outcome });
    assert_eq!(gone, Some(Err(QueueErrorKind::NoSuchQueue)));
    assert_eq!(world.engine.store.disk_bytes(), 0);
}

#[test]
fn room_on_the_disk_comes_back_while_one_old_message_stays() {
    let mut world = World::new(|_| {});
    world.must(99, send(message("old", "precious")));
    world.consume(1, AckMode::Individual);
    for round in 0..300 {
        world.send(&format!("{round}"));
        let delivered = world.take(1).remove(0);
        world.settle(1, &delivered, Verdict::Ack);
    }
    let bytes = world.engine.store.disk_bytes();
    assert!(bytes < 14_000, "{bytes} bytes for one message");
    world.restart();
    world.must(1, QueueCommand::Consume(Box::new(consume(2, "old", AckMode::Individual))));
    assert_eq!(world.came(1), ["precious"]);
    assert_eq!(world.stats("q").waiting, 0);
}

#[test]
fn a_queue_that_nobody_uses_is_forgotten_and_limits_hold() {
    let mut world = World::new(|settings| {
        settings.store.max_queues = 2;
        settings.store.max_consumers_per_session = 1;
    });
    world.send("a");
    world.must(99, send(message("r", "a")));
    assert_eq!(world.ask(99, send(message("s", "a"))), Some(Err(QueueErrorKind::TooManyQueues)));
    assert_eq!(world.ask(99, send(message("", "a"))), Some(Err(QueueErrorKind::BadName)));
    world.consume(1, AckMode::Auto);
    let second = QueueCommand::Consume(Box::new(consume(2, "q", AckMode::Auto)));
    assert_eq!(world.ask(1, second), Some(Err(QueueErrorKind::LimitExceeded)));
    let same = QueueCommand::Consume(Box::new(consume(1, "q", AckMode::Auto)));
    assert_eq!(world.ask(1, same), Some(Err(QueueErrorKind::ConsumerInUse)));
    let unknown = QueueCommand::Cancel { consumer: 9, is_forever: false };
    assert_eq!(world.ask(1, unknown), Some(Err(QueueErrorKind::NoSuchConsumer)));
    let written = world.take(1).iter().map(|delivered| delivered.delivery).collect();
    world.engine.handle(Letter::Written(place(1), written));
    world.must(1, QueueCommand::Cancel { consumer: 1, is_forever: false });
    world.pass(3_700_000);
    world.pass(61_000);
    let gone = world.call(|outcome| Call::Stats { queue: "q".into(), outcome });
    assert_eq!(gone, Some(Err(QueueErrorKind::NoSuchQueue)));
    assert_eq!(world.stats("r").waiting, 1, "one with messages stays");
}
