//! Random breaks: what is promised of every send and of every message, whatever happens.

use super::bench::Bench;
use crate::stomp::message::{AckMode, Verdict};
use crate::stomp::outbox::Confirmed;
use longwire_protocol::stomp::decode::{Bounds, Decoder};
use longwire_protocol::stomp::{Limits, Version};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A broker with one queue.
#[derive(Default)]
struct Broker {
    decoder: Decoder,
    /// What it took, in order.
    taken: Vec<u64>,
    /// What waits for a consumer, and what a consumer has.
    ready: VecDeque<u64>,
    delivered: BTreeMap<u64, u64>,
    deliveries: u64,
    done: BTreeSet<u64>,
    consumer: Option<String>,
}

impl Broker {
    /// Reads what the client wrote; what is answered.
    fn read(&mut self, bytes: &[u8]) -> String {
        let (mut input, mut said) = (bytes, String::new());
        let bounds = Bounds::of(&Limits::default());
        while let Some(frame) = self.decoder.decode(&mut input, &bounds).expect("the client keeps the rules")
        {
            let get = |name: &str| frame.headers(Version::V12).find(|(its, _)| *its == name).map(|(_, v)| v);
            match frame.command() {
                "CONNECT" => said.push_str("CONNECTED\nversion:1.2\nserver:longwire\n\n\0"),
                "SEND" => {
                    let number = std::str::from_utf8(&frame.body).unwrap().parse().unwrap();
                    self.taken.push(number);
                    self.ready.push_back(number);
                }
                "SUBSCRIBE" => self.consumer = get("id").map(str::to_owned),
                "ACK" => {
                    let delivery = get("id").and_then(|id| id.strip_prefix("d-")).unwrap().parse().unwrap();
                    let number = self.delivered.remove(&delivery).expect("only what was delivered");
                    self.done.insert(number);
                }
                other => panic!("{other}"),
            }
            if let Some(receipt) = get("receipt") {
                said.push_str(&format!("RECEIPT\nreceipt-id:{receipt}\n\n\0"));
            }
        }
        while let (Some(consumer), Some(number)) = (&self.consumer, self.ready.front()) {
            self.deliveries += 1;
            let delivery = self.deliveries;
            said.push_str(&format!(
                "MESSAGE\nsubscription:{consumer}\nmessage-id:{number}\nack:d-{delivery}\ndestination:/queue/a\n\n{number}\0"
            ));
            self.delivered.insert(delivery, *number);
            self.ready.pop_front();
        }
        said
    }

    /// The connection is gone.
    fn lose(&mut self) {
        self.decoder = Decoder::default();
        self.consumer = None;
        for number in std::mem::take(&mut self.delivered).into_values() {
            self.ready.push_back(number);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    /// Bytes go up to the broker, at most so many, and its answers wait.
    Up(usize),
    /// Bytes go down.
    Down(usize),
    Work(usize),
    Break,
    Sleep(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        4 => (1usize..400).prop_map(Step::Up),
        4 => (1usize..400).prop_map(Step::Down),
        2 => (0usize..4).prop_map(Step::Work),
        1 => Just(Step::Break),
        1 => (0u64..3000).prop_map(Step::Sleep),
    ]
}

struct Scene {
    bench: Bench,
    broker: Broker,
    queue: u32,
    calls: BTreeMap<u64, u64>,
    confirmed: BTreeSet<u64>,
    worked: BTreeSet<u64>,
    sent: u64,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    line: Option<crate::machine::Line>,
}

impl Scene {
    fn new() -> Scene {
        let mut bench = Bench::new(|builder| builder.heart_beat(Duration::ZERO, Duration::ZERO));
        let queue = bench.subscribe("/queue/a", AckMode::ClientIndividual);
        Scene {
            bench,
            broker: Broker::default(),
            queue,
            calls: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            worked: BTreeSet::new(),
            sent: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            line: None,
        }
    }

    /// Notices a new connection, and what was written.
    fn look(&mut self) {
        self.bench.drive();
        if self.bench.line != self.line {
            self.line = self.bench.line;
            self.up.clear();
            self.down.clear();
            self.broker.lose();
            if let Some(line) = self.line {
                crate::machine::Machine::handle_dialled(&mut self.bench.state, self.bench.now, line, Ok(()));
                self.bench.drive();
            }
        }
        self.up.extend(std::mem::take(&mut self.bench.out));
        let calls = self.calls.clone();
        for (call, number) in calls {
            match self.bench.result(call) {
                None => {}
                Some(Ok(Confirmed { .. })) => {
                    self.calls.remove(&call);
                    assert!(self.broker.taken.contains(&number), "{number} was confirmed and is not there");
                    self.confirmed.insert(number);
                }
                Some(Err(error)) => panic!("{number}: {error}"),
            }
        }
    }

    fn up(&mut self, count: usize) {
        let bytes: Vec<u8> = self.up.drain(..count.min(self.up.len())).collect();
        let said = self.broker.read(&bytes);
        self.down.extend(said.into_bytes());
    }

    fn down(&mut self, count: usize) {
        let bytes: Vec<u8> = self.down.drain(..count.min(self.down.len())).collect();
        if let Some(line) = self.line {
            crate::machine::Machine::handle_bytes(&mut self.bench.state, self.bench.now, line, &bytes);
        }
    }

    /// Takes messages and acknowledges them.
    fn work(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.bench.next(self.queue) else { return };
            if let crate::stomp::subscriptions::Queued::Message(received) = event {
                let number = std::str::from_utf8(&received.body).unwrap().parse().unwrap();
                self.worked.insert(number);
                // One of a connection that is gone comes again.
                _ = self.bench.settle(&received, Verdict::Ack);
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Send => {
                self.sent += 1;
                let number = self.sent;
                let call = self.bench.send(&number.to_string());
                self.calls.insert(call, number);
            }
            Step::Up(count) => self.up(*count),
            Step::Down(count) => self.down(*count),
            Step::Work(count) => self.work(*count),
            Step::Break if self.line.is_some() => self.bench.reset(),
            Step::Break => {}
            Step::Sleep(millis) => self.bench.sleep(Duration::from_millis(*millis)),
        }
        self.look();
    }
}

proptest! {
    #[test]
    fn every_confirmed_send_arrives_in_order_and_every_message_is_done(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let mut scene = Scene::new();
        scene.look();
        for step in &steps {
            scene.run(step);
        }
        // The network heals.
        for _ in 0..200 {
            if scene.broker.done.len() as u64 == scene.sent && scene.confirmed.len() as u64 == scene.sent {
                break;
            }
            for step in [Step::Sleep(500), Step::Up(4000), Step::Down(40_000), Step::Work(1000)] {
                scene.run(&step);
            }
        }
        let all: BTreeSet<u64> = (1..=scene.sent).collect();
        prop_assert_eq!(&scene.confirmed, &all, "all are confirmed");
        prop_assert_eq!(&scene.worked, &all);
        prop_assert_eq!(&scene.broker.done, &all);
        // The first arrivals are in the order of the sends, and so is what follows each break.
        let mut seen = BTreeSet::new();
        let first: Vec<u64> = scene.broker.taken.iter().copied().filter(|number| seen.insert(*number)).collect();
        prop_assert_eq!(first, all.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(scene.bench.state.outbox.len(), (0, 0));
    }

    #[test]
    fn nothing_that_a_broker_says_makes_the_client_panic(
        said in prop::collection::vec(prop::sample::select(vec![
            "MESSAGE\n", "RECEIPT\n", "ERROR\n", "CONNECTED\n", "receipt-id:1\n", "receipt-id:2\n",
            "subscription:lw-1\n", "offset:1\n", "offset:99999999999999999999999\n", "epoch:abcdefgh\n", "ack:d-1\n",
            "message:x\n", "heart-beat:1,1\n", "version:1.1\n", "content-length:3\n", "\n", "\0", "abc", ":", "\\", "\r",
        ]), 0..60),
        is_logged_in in any::<bool>(),
    ) {
        let mut bench = if is_logged_in { Bench::connected() } else { Bench::new(|builder| builder) };
        let subscription = bench.subscribe("/topic/a", AckMode::Client);
        bench.send("one");
        if !is_logged_in {
            bench.accept();
        }
        for piece in said {
            if bench.line.is_some() {
                bench.say(piece);
            }
        }
        bench.events(subscription);
        bench.sleep(Duration::from_secs(60));
    }
}
