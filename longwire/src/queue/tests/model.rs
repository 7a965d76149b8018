//! Queues beside a model on one page, over any sequence of steps: what is sent, settled, killed, and refused.
//!
//! The model knows which messages were confirmed and which were confirmed to be gone. What must hold: a confirmed message
//! is delivered until it is gone; a gone one never again; one queue's messages of one priority come to a single consumer
//! in the order in which they were sent; nothing is delivered to two at a time.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[derive(Clone, Debug)]
enum Step {
    Send { priority: u8, is_persistent: bool },
    Transaction { sends: u8, settles: u8 },
    Settle { at: usize, verdict: u8 },
    Consume { session: u64, prefetch: u32 },
    End { session: u64 },
    Fail(bool),
    Pass(u64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..10u8, prop::bool::weighted(0.8)).prop_map(|(priority, is_persistent)| Step::Send { priority, is_persistent }),
        2 => (0..4u8, 0..3u8).prop_map(|(sends, settles)| Step::Transaction { sends, settles }),
        8 => (any::<usize>(), 0..4u8).prop_map(|(at, verdict)| Step::Settle { at, verdict }),
        2 => (1..4u64, 1..20u32).prop_map(|(session, prefetch)| Step::Consume { session, prefetch }),
        1 => (1..4u64).prop_map(|session| Step::End { session }),
        1 => any::<bool>().prop_map(Step::Fail),
        2 => (1..3000u64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

#[derive(Default)]
struct Model {
    /// Persistent messages that were confirmed, and are not known to be gone.
    safe: BTreeSet<u32>,
    /// Of which it is not known: their answer has not come.
    doubtful: BTreeSet<u32>,
    /// Confirmed to be gone.
    gone: BTreeSet<u32>,
    /// What each session has, by delivery.
    owed: BTreeMap<u64, BTreeMap<u64, u32>>,
    /// Acknowledgements without an answer: session, command, message.
    asked: Vec<(u64, u32, Vec<u32>)>,
}

impl Model {
    /// Takes what the sessions saw.
    fn see(&mut self, world: &mut World) {
        world.turn();
        for (session, seen) in &mut world.seen {
            for delivered in seen.deliveries.drain(..) {
                let number = number(&delivered.message.body);
                assert!(!self.gone.contains(&number), "message {number} was gone");
                let is_elsewhere = self.owed.values().flat_map(BTreeMap::values).any(|owed| *owed == number);
                assert!(!is_elsewhere, "message {number} is with two");
                self.owed.entry(*session).or_default().insert(delivered.delivery, number);
            }
            self.asked.retain(|(asker, id, numbers)| {
                let answer = seen.answers.iter().find(|(answered, _)| asker == session && answered == id);
                if let Some((_, result)) = answer {
                    assert_eq!(*result, Ok(()));
                    for number in numbers {
                        self.doubtful.remove(number);
                        self.gone.insert(*number);
                    }
                }
                answer.is_none()
            });
        }
    }

    fn forget_owed(&mut self, session: u64) {
        self.owed.remove(&session);
    }
}

fn number(body: &Bytes) -> u32 {
    text(body).parse().expect("a body is a number")
}

fn run(steps: Vec<Step>) {
    let mut world = World::new(|settings| {
        settings.options.max_deliveries = 0;
        settings.store.cache_bytes = 2000;
    });
    let (mut model, mut next, mut fails) = (Model::default(), 0u32, false);
    let mut fresh = |priority: u8, is_persistent: bool| {
        next += 1;
        let body = format!("{next:0>30}");
        (next, NewMessage { priority, is_persistent, ..message("q", &body) })
    };
    for step in steps {
        match step {
            Step::Send { priority, is_persistent } => {
                let (number, new) = fresh(priority, is_persistent);
                match world.ask(99, send(new)) {
                    Some(Ok(())) if is_persistent => drop(model.safe.insert(number)),
                    Some(Ok(())) => {}
                    Some(Err(kind)) => {
                        assert!(is_persistent && kind == QueueErrorKind::NotWritable);
                        model.gone.insert(number);
                    }
                    None => panic!("a send is answered at once"),
                }
            }
            Step::Transaction { sends, settles } => {
                let mut commands = Vec::new();
                let mut numbers = Vec::new();
                for _ in 0..sends {
                    let (number, new) = fresh(4, true);
                    numbers.push(number);
                    commands.push(send(new));
                }
                let own = model.owed.entry(1).or_default();
                let settled: Vec<(u64, u32)> =
                    own.iter().take(settles.into()).map(|(d, n)| (*d, *n)).collect();
                commands.extend(settled.iter().map(|(delivery, _)| settle(*delivery, Verdict::Ack)));
                let answer = world.ask(1, QueueCommand::Transaction(commands));
                let own = model.owed.entry(1).or_default();
                match answer {
                    Some(Ok(())) => {
                        model.safe.extend(numbers);
                        for (delivery, number) in settled {
                            own.remove(&delivery);
                            model.safe.remove(&number);
                            model.gone.insert(number);
                        }
                    }
                    Some(Err(_)) => model.gone.extend(numbers),
                    None => {
                        assert!(numbers.is_empty(), "what sends is answered at once");
                        let mut list = Vec::new();
                        for (delivery, number) in settled {
                            own.remove(&delivery);
                            model.safe.remove(&number);
                            model.doubtful.insert(number);
                            list.push(number);
                        }
                        model.asked.push((1, world.next_id, list));
                    }
                }
            }
            Step::Settle { at, verdict } => {
                let all: Vec<(u64, u64, u32)> = model
                    .owed
                    .iter()
                    .flat_map(|(session, owed)| {
                        owed.iter().map(|(delivery, number)| (*session, *delivery, *number))
                    })
                    .collect();
                let Some((session, delivery, number)) = (!all.is_empty()).then(|| all[at % all.len()]) else {
                    continue;
                };
                model.owed.entry(session).or_default().remove(&delivery);
                let verdict = if verdict == 0 { Verdict::Requeue } else { Verdict::Ack };
                match (world.ask(session, settle(delivery, verdict)), verdict) {
                    (Some(answer), Verdict::Requeue) => assert_eq!(answer, Ok(())),
                    (Some(answer), _) => {
                        assert_eq!(answer, Ok(()));
                        model.safe.remove(&number);
                        model.gone.insert(number);
                    }
                    (None, _) => {
                        assert!(fails, "an acknowledgement waits only for the disk");
                        model.safe.remove(&number);
                        model.doubtful.insert(number);
                        model.asked.push((session, world.next_id, vec![number]));
                    }
                }
            }
            Step::Consume { session, prefetch } => {
                let wanted = Consume { prefetch: Some(prefetch), ..consume(1, "q", AckMode::Individual) };
                let answer = world.ask(session, QueueCommand::Consume(Box::new(wanted))).expect("answered");
                assert!(matches!(answer, Ok(()) | Err(QueueErrorKind::ConsumerInUse)));
            }
            Step::End { session } => {
                model.forget_owed(session);
                world.engine.handle(Letter::Ended(place(session), vec![]));
            }
            Step::Fail(on) => {
                fails = on;
                world.fail(on);
                if !on {
                    world.pass(1001);
                }
            }
            Step::Pass(millis) => world.pass(millis),
            Step::Restart => {
                model.see(&mut world);
                model.owed.clear();
                // Those may be there again, or not.
                model.asked.clear();
                world.restart();
            }
        }
        model.see(&mut world);
    }
    world.fail(false);
    world.pass(1001);
    model.see(&mut world);
    world.restart();
    model.owed.clear();
    let wanted = Consume { prefetch: Some(0), ..consume(1, "q", AckMode::Individual) };
    world.must(50, QueueCommand::Consume(Box::new(wanted)));
    let came = world.take(50);
    let numbers: BTreeSet<u32> = came.iter().map(|delivered| number(&delivered.message.body)).collect();
    assert_eq!(numbers.len(), came.len(), "each once");
    for number in &model.safe {
        assert!(numbers.contains(number), "message {number} was confirmed and is lost");
    }
    for number in &numbers {
        let is_known = model.safe.contains(number) || model.doubtful.contains(number);
        assert!(is_known, "message {number} is there, and was refused or is gone");
    }
    let order: Vec<_> =
        came.iter().map(|one| (9 - one.message.priority, number(&one.message.body))).collect();
    assert!(order.is_sorted(), "priority, then the order of sending: {order:?}");
    let live: u64 = world.engine.live.iter().sum();
    let (queue, _) = (world.stats("q"), ());
    assert!(live >= queue.bytes && queue.in_flight as usize == came.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn queues_do_what_the_model_says(steps in proptest::collection::vec(step(), 1..120)) {
        run(steps);
    }
}
