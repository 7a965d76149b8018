//! Queues on a disk that fails, against a page of truth.
//!
//! [`run`] draws from a seed what sessions send, acknowledge, give back and do in transactions, and what befalls the
//! process and its disk: kills, losses of power, a full disk, failing writes and syncs. The queues are the real ones,
//! with their thread as a task in invented time. After each start, and at the end, it checks what queues promise: who was
//! told that a message was taken finds it there until it is acknowledged; what was acknowledged, and its sender told so,
//! never comes again; a transaction is there as a whole or not at all; within a priority the order is that of sending;
//! nothing appears that nobody sent; when faults stop, messages are taken again. It knows nothing of files. What must stay true: a
//! violation is an error that says what was expected; the same seed gives the same digest.

use crate::disk::{self, Faults, SimDisk};
use crate::ledger::{FNV, fnv};
use bytes::Bytes;
use longwire::config::Config;
use longwire::delivery::Mailbox;
use longwire::env::{Clock, Env, Http, Memory, Net, Rng};
use longwire::journal::DataDir;
use longwire::queue::{self, Event, Place, Queues};
use longwire_protocol::queue::{
    AckMode, Consume, Delivered, Headers, Meant, NewMessage, QueueCommand, QueueError, QueueErrorKind,
    QueuePush, Verdict,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// The queue.
const QUEUE: &str = "work";
/// The time at which the machine's clock begins, since 1970.
const BEGINNING: Duration = Duration::from_secs(1_700_000_000);
/// How long the queues are given for what they were sent.
const TURN: Duration = Duration::from_millis(20);
/// How long a queue that failed to write may take to write again when its disk works.
const MENDING: Duration = Duration::from_secs(30);

/// What happened in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that were sent.
    pub sent: u64,
    /// Those whose sender was told that they are safe.
    pub taken: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Deliveries of what was delivered before.
    pub redelivered: u64,
    /// Acknowledgements whose sender was told that they are safe.
    pub acked: u64,
    /// Transactions that were carried out.
    pub transactions: u64,
    /// Transactions that a crash left without an answer, and that were there.
    pub transactions_found: u64,
    /// Transactions that a crash left without an answer, and that were gone.
    pub transactions_lost: u64,
    /// Messages that a crash left without an answer, and that were there.
    pub survivors: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Starts that failed while the disk did.
    pub failed_starts: u64,
    /// What went wrong on the disk.
    pub disk: disk::Counts,
    /// Everything that was observed, folded.
    pub digest: u64,
}

/// Runs `steps` steps that follow from `seed`.
///
/// # Errors
/// The first promise that was broken, with the step at which it was seen.
pub fn run(seed: u64, steps: usize) -> Result<Summary, String> {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing from the system");
    LocalSet::new().block_on(&runtime, async {
        let mut store = Store::new(&Rng::from_seed(seed))?;
        for step in 0..steps {
            let done = store.step().await;
            done.map_err(|violation| format!("seed {seed}, step {step}: {violation}"))?;
        }
        store.finish().await.map_err(|violation| format!("seed {seed}, at the end: {violation}"))
    })
}

/// The number of a message: those sent later have higher ones.
type Number = u64;

/// What is known of a message.
#[derive(Clone, Debug)]
struct Sent {
    priority: u8,
    is_persistent: bool,
    /// In which life of the process it was sent.
    life: u32,
    fate: Fate,
    ack: Fate,
}

/// What was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// It was not asked for.
    Unasked,
    /// Nobody knows: the answer is under way, or went down with the process.
    Open,
    /// It is safe.
    Safe,
    /// It was refused, in that life.
    Refused(u32),
}

/// A transaction.
#[derive(Clone, Debug)]
struct Transaction {
    sends: Vec<Number>,
    acks: Vec<Number>,
}

/// What a command without an answer yet was about.
#[derive(Clone, Debug)]
enum Asked {
    Send(Number),
    Settle(Vec<Number>),
    GiveBack,
    Consume,
    Transaction(Transaction),
}

/// A process that runs.
struct Process {
    queues: Queues,
    thread: JoinHandle<()>,
    outlet: Arc<Mailbox<Vec<Event>>>,
}

/// A session that consumes.
#[derive(Debug)]
struct Consumer {
    session: u64,
    ack: AckMode,
    /// Deliveries that wait for their acknowledgement, with the messages.
    outstanding: BTreeMap<u64, Number>,
}

struct Store {
    rng: Rng,
    disk: SimDisk,
    faults: Faults,
    process: Option<Process>,
    life: u32,
    sessions: u64,
    producer: u64,
    consumers: Vec<Consumer>,
    commands: u32,
    asked: BTreeMap<(u64, u32), Asked>,
    sent: BTreeMap<Number, Sent>,
    /// Transactions whose answer went down with a process.
    in_doubt: Vec<Transaction>,
    /// When the disk's last faults ended.
    mended: Option<Instant>,
    summary: Summary,
}

impl Store {
    fn new(root: &Rng) -> Result<Store, String> {
        let mut store = Store {
            rng: root.fork("queues"),
            disk: SimDisk::new(root.fork("disk")),
            faults: Faults::default(),
            process: None,
            life: 0,
            sessions: 0,
            producer: 0,
            consumers: Vec::new(),
            commands: 0,
            asked: BTreeMap::new(),
            sent: BTreeMap::new(),
            in_doubt: Vec::new(),
            mended: None,
            summary: Summary { digest: FNV, ..Summary::default() },
        };
        store.start()?;
        Ok(store)
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.rng.bits() % 100 {
            0..40 => {
                for _ in 0..1 + self.rng.bits() % 6 {
                    self.send();
                }
            }
            40..46 => self.transact(),
            46..66 => self.settle(),
            66..70 => self.consume(),
            70..72 => self.leave(),
            72..76 => self.kill(false)?,
            76..82 => self.kill(true)?,
            82..88 => self.change_faults(),
            _ => self.turn().await?,
        }
        if self.rng.bits().is_multiple_of(3) { self.turn().await } else { Ok(()) }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("every step leaves a process")
    }

    fn number(&mut self) -> Number {
        self.sent.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// Notes a message and makes it.
    fn draw(&mut self) -> (Number, NewMessage) {
        let number = self.number();
        let (priority, is_persistent) = ((self.rng.bits() % 3) as u8 * 3, !self.rng.bits().is_multiple_of(8));
        let size = match self.rng.bits() % 8 {
            0 => 0,
            1..7 => self.rng.bits() % 60,
            _ => self.rng.bits() % 1400,
        };
        let sent = Sent { priority, is_persistent, life: self.life, fate: Fate::Open, ack: Fate::Unasked };
        self.sent.insert(number, sent);
        self.summary.sent += 1;
        let message = NewMessage {
            queue: QUEUE.into(),
            headers: Headers::of([("number", &*number.to_string())]),
            body: body(number, size as usize),
            priority,
            is_persistent,
            expiry: None,
            delay: Duration::ZERO,
        };
        (number, message)
    }

    fn submit(&mut self, session: u64, command: QueueCommand, asked: Asked) {
        self.commands += 1;
        self.asked.insert((session, self.commands), asked);
        self.process().queues.submit(Place { shard: 0, session }, vec![(self.commands, command)]);
    }

    fn send(&mut self) {
        let (number, message) = self.draw();
        self.submit(self.producer, QueueCommand::Send(Box::new(message)), Asked::Send(number));
    }

    /// Acknowledges, or gives back, something that was delivered.
    fn settle(&mut self) {
        let Some(at) = self.pick(self.consumers.len()) else { return };
        let consumer = &self.consumers[at];
        let (session, ack) = (consumer.session, consumer.ack);
        let Some(nth) = self.pick(self.consumers[at].outstanding.len()) else { return };
        let outstanding = &mut self.consumers[at].outstanding;
        let delivery = *outstanding.keys().nth(nth).expect("there are more");
        let meant: Vec<u64> = match ack {
            AckMode::Cumulative => outstanding.range(..=delivery).map(|(delivery, _)| *delivery).collect(),
            _ => vec![delivery],
        };
        let numbers: Vec<Number> = meant.iter().filter_map(|delivery| outstanding.remove(delivery)).collect();
        let meant = Meant::Delivery(delivery);
        if self.rng.bits().is_multiple_of(5) {
            let command = QueueCommand::Settle { meant, verdict: Verdict::Requeue };
            return self.submit(session, command, Asked::GiveBack);
        }
        for number in &numbers {
            self.truth(*number).ack = Fate::Open;
        }
        let command = QueueCommand::Settle { meant, verdict: Verdict::Ack };
        self.submit(session, command, Asked::Settle(numbers));
    }

    /// Sends some, and acknowledges some of what one consumer has if there is one.
    fn transact(&mut self) {
        let consumer = self.pick(self.consumers.len());
        let session = consumer.map_or(self.producer, |at| self.consumers[at].session);
        let mut commands = Vec::new();
        let mut transaction = Transaction { sends: Vec::new(), acks: Vec::new() };
        for _ in 0..1 + self.rng.bits() % 4 {
            let (number, message) = self.draw();
            transaction.sends.push(number);
            commands.push(QueueCommand::Send(Box::new(message)));
        }
        if let Some(at) = consumer.filter(|at| self.consumers[*at].ack == AckMode::Individual) {
            for _ in 0..self.rng.bits() % 3 {
                let Some((delivery, number)) = self.consumers[at].outstanding.pop_first() else { break };
                self.truth(number).ack = Fate::Open;
                transaction.acks.push(number);
                let meant = Meant::Delivery(delivery);
                commands.push(QueueCommand::Settle { meant, verdict: Verdict::Ack });
            }
        }
        self.submit(session, QueueCommand::Transaction(commands), Asked::Transaction(transaction));
    }

    fn consume(&mut self) {
        if self.consumers.len() >= 3 {
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        let ack = if self.rng.bits().is_multiple_of(3) { AckMode::Cumulative } else { AckMode::Individual };
        let prefetch = Some(1 + (self.rng.bits() % 20) as u32);
        self.consumers.push(Consumer { session, ack, outstanding: BTreeMap::new() });
        self.submit(session, consume(ack, prefetch), Asked::Consume);
    }

    /// A consumer's session ends; what it had goes back.
    fn leave(&mut self) {
        let Some(at) = self.pick(self.consumers.len()) else { return };
        let consumer = self.consumers.swap_remove(at);
        let session = consumer.session;
        self.process().queues.end(Place { shard: 0, session }, Vec::new());
        // Its answers do not matter to it, but what it asked may be done.
        let of_it: Vec<_> = self.asked.keys().filter(|(of, _)| *of == session).copied().collect();
        let lost: Vec<Asked> = of_it.iter().filter_map(|key| self.asked.remove(key)).collect();
        lost.into_iter().for_each(|asked| self.doubt(asked));
    }

    /// The answer to a command will not come.
    fn doubt(&mut self, asked: Asked) {
        if let Asked::Transaction(transaction) = asked {
            self.in_doubt.push(transaction);
        }
    }

    fn pick(&mut self, of: usize) -> Option<usize> {
        (of > 0).then(|| (self.rng.bits() % of.max(1) as u64) as usize)
    }

    fn truth(&mut self, number: Number) -> &mut Sent {
        self.sent.get_mut(&number).expect("what is noted was sent")
    }

    /// Lets the queues get on, and hears what they say.
    async fn turn(&mut self) -> Result<(), String> {
        tokio::time::sleep(TURN).await;
        let mut letters = VecDeque::new();
        self.process().outlet.take(&mut letters);
        for event in letters.into_iter().flatten() {
            match event {
                Event::Answer { session, id, result } => self.answered(session, id, result)?,
                Event::Push { session, push: QueuePush::Delivered(delivered) } => {
                    self.delivered(session, &delivered)?;
                }
                Event::Push { push, .. } => return Err(format!("nobody asked for {push:?}")),
            }
        }
        if self.process().thread.is_finished() {
            return Err("the thread of the queues ended".into());
        }
        Ok(())
    }

    fn answered(&mut self, session: u64, id: u32, result: Result<(), QueueError>) -> Result<(), String> {
        let Some(asked) = self.asked.remove(&(session, id)) else {
            let is_there =
                session == self.producer || self.consumers.iter().any(|consumer| consumer.session == session);
            return if is_there {
                Err(format!("command {id} was answered twice, or never asked"))
            } else {
                Ok(())
            };
        };
        self.note(b"answer", u64::from(id) << 1 | u64::from(result.is_ok()));
        let fate = match &result {
            Ok(()) => Fate::Safe,
            Err(QueueError { kind: QueueErrorKind::NotWritable, .. }) if self.may_refuse() => {
                Fate::Refused(self.life)
            }
            Err(error) => return Err(format!("{asked:?} was refused: {error}")),
        };
        match asked {
            Asked::Send(number) => self.told_of_send(number, fate),
            Asked::Settle(numbers) => numbers.into_iter().for_each(|number| self.told_of_ack(number, fate)),
            Asked::Transaction(transaction) => {
                self.summary.transactions += u64::from(fate == Fate::Safe);
                transaction.sends.into_iter().for_each(|number| self.told_of_send(number, fate));
                transaction.acks.into_iter().for_each(|number| self.told_of_ack(number, fate));
            }
            Asked::GiveBack | Asked::Consume => {}
        }
        Ok(())
    }

    fn told_of_send(&mut self, number: Number, fate: Fate) {
        self.truth(number).fate = fate;
        self.summary.taken += u64::from(fate == Fate::Safe);
        self.summary.refused += u64::from(matches!(fate, Fate::Refused(_)));
    }

    fn told_of_ack(&mut self, number: Number, fate: Fate) {
        self.truth(number).ack = fate;
        self.summary.acked += u64::from(fate == Fate::Safe);
    }

    /// Checks a delivery, and says of which message it is.
    fn delivered(&mut self, session: u64, delivered: &Delivered) -> Result<Number, String> {
        let message = &delivered.message;
        let number = message.headers.get("number").and_then(|number| number.parse().ok());
        let number: Number = number.ok_or_else(|| format!("a message that nobody sent: {message:?}"))?;
        let life = self.life;
        let Some(sent) = self.sent.get_mut(&number) else {
            return Err(format!("message {number} was never sent"));
        };
        if message.body != body(number, message.body.len()) || message.priority != sent.priority {
            return Err(format!("message {number} is not what was sent: {message:?}"));
        }
        if sent.ack == Fate::Safe {
            return Err(format!("message {number} comes again, though its acknowledgement was confirmed"));
        }
        if !sent.is_persistent && sent.life != life {
            return Err(format!("message {number} was not persistent and outlived its process"));
        }
        if sent.fate == Fate::Refused(life) {
            return Err(format!("message {number} was refused and is delivered"));
        }
        if sent.fate == Fate::Open
            && sent.life == life
            && self.asked.values().any(|asked| is_of(asked, number))
        {
            return Err(format!("message {number} is delivered before it is said to be taken"));
        }
        if sent.fate == Fate::Open && sent.life != life {
            // It is there, whoever was told.
            sent.fate = Fate::Safe;
            self.summary.survivors += 1;
        }
        self.summary.delivered += 1;
        self.summary.redelivered += u64::from(delivered.redeliveries > 0);
        self.note(b"delivery", number);
        let consumer = self.consumers.iter_mut().find(|consumer| consumer.session == session);
        if let Some(consumer) = consumer
            && consumer.outstanding.insert(delivered.delivery, number).is_some()
        {
            return Err(format!("delivery {} was given twice", delivered.delivery));
        }
        Ok(number)
    }

    /// Whether the disk failed, or did a moment ago: who was refused by it tries again later only.
    fn may_refuse(&self) -> bool {
        self.faults.are_any() || self.mended.is_some_and(|since| since.elapsed() < MENDING)
    }

    fn change_faults(&mut self) {
        let faults = Faults::drawn(&mut self.rng, &self.disk, 4000);
        self.set_faults(faults);
    }

    fn set_faults(&mut self, faults: Faults) {
        if self.faults.are_any() {
            self.mended = Some(Instant::now());
        }
        self.faults = faults;
        self.disk.set_faults(faults);
    }

    fn kill(&mut self, is_power_lost: bool) -> Result<(), String> {
        self.summary.kills += 1;
        if let Some(process) = self.process.take() {
            process.thread.abort();
        }
        if is_power_lost {
            self.disk.power_loss()
        } else {
            self.disk.kill()
        }
        for asked in std::mem::take(&mut self.asked).into_values() {
            self.doubt(asked);
        }
        self.consumers.clear();
        self.start()
    }

    fn start(&mut self) -> Result<(), String> {
        self.life += 1;
        self.sessions += 1;
        self.producer = self.sessions;
        let opened = match self.open() {
            Err(_) if self.faults.are_any() => {
                self.summary.failed_starts += 1;
                self.set_faults(Faults::default());
                self.open()
            }
            other => other,
        };
        self.process = Some(opened.map_err(|error| format!("a start failed: {error}"))?);
        // What a transaction writes may come right behind what a crash left of another.
        if self.rng.bits().is_multiple_of(4) {
            self.transact();
        }
        Ok(())
    }

    fn open(&mut self) -> std::io::Result<Process> {
        let mut config = Config::default();
        config.server.data_dir = "data".into();
        // Nobody's messages die here: the queue is judged by what comes back.
        config.queues.options.max_deliveries = 0;
        let store = &mut config.queues.store;
        (store.max_segment_bytes, store.cache_bytes, store.min_free_disk) = (4096, 2000, 0);
        let env = Env {
            clock: Clock::starting_at(BEGINNING),
            net: Net::system(),
            disk: self.disk.disk(),
            http: Http::system(),
            memory: Memory::system(),
            rng: self.rng.fork(&format!("life {}", self.life)),
        };
        let outlet = Arc::new(Mailbox::new(1024));
        let data_dir = DataDir::new(env.disk.clone(), Path::new("data"));
        let (queues, keeper) = queue::open(&config, &env, data_dir, vec![outlet.clone()])?;
        let thread = tokio::task::spawn_local(keeper.run(std::future::pending()));
        Ok(Process { queues, thread, outlet })
    }

    /// When faults stop, what is sent is taken; and after one more loss of power all is there that has to be.
    async fn finish(mut self) -> Result<Summary, String> {
        self.set_faults(Faults::default());
        // What was answered while the disk failed is judged by that.
        self.turn().await?;
        tokio::time::sleep(MENDING).await;
        self.turn().await?;
        let (number, message) = self.draw();
        self.submit(self.producer, QueueCommand::Send(Box::new(message)), Asked::Send(number));
        self.turn().await?;
        if self.sent[&number].fate != Fate::Safe {
            return Err(format!("faults ended, and message {number} is {:?}", self.sent[&number].fate));
        }
        self.kill(true)?;
        let came = self.drain().await?;
        self.judge(&came)?;
        self.summary.disk = self.disk.counts();
        Ok(self.summary)
    }

    /// Consumes everything, and gives it in the order in which it came.
    async fn drain(&mut self) -> Result<Vec<Number>, String> {
        self.sessions += 1;
        let session = self.sessions;
        self.consumers.push(Consumer { session, ack: AckMode::Individual, outstanding: BTreeMap::new() });
        self.submit(session, consume(AckMode::Individual, Some(u32::MAX)), Asked::Consume);
        let mut came = Vec::new();
        loop {
            self.turn().await?;
            let outstanding = std::mem::take(&mut self.consumers[0].outstanding);
            if outstanding.is_empty() {
                return Ok(came);
            }
            for (delivery, number) in outstanding {
                came.push(number);
                self.truth(number).ack = Fate::Open;
                let command =
                    QueueCommand::Settle { meant: Meant::Delivery(delivery), verdict: Verdict::Ack };
                self.submit(session, command, Asked::Settle(vec![number]));
            }
        }
    }

    fn judge(&mut self, came: &[Number]) -> Result<(), String> {
        let there: BTreeSet<Number> = came.iter().copied().collect();
        if there.len() != came.len() {
            return Err("a message came twice, though it was acknowledged".into());
        }
        let place = |number: &Number| (9 - self.sent[number].priority, *number);
        if let Some(pair) = came.windows(2).find(|pair| place(&pair[0]) > place(&pair[1])) {
            return Err(format!("message {} came before message {}", pair[0], pair[1]));
        }
        for (number, sent) in &self.sent {
            let has_to_be = sent.fate == Fate::Safe
                && sent.ack == Fate::Unasked
                && (sent.is_persistent || sent.life == self.life);
            if has_to_be && !there.contains(number) {
                return Err(format!("message {number} was taken, was never acknowledged, and is gone"));
            }
        }
        for Transaction { sends, acks } in std::mem::take(&mut self.in_doubt) {
            let seen = |number: &Number| there.contains(number) || self.sent[number].ack != Fate::Unasked;
            let kept: Vec<Number> =
                sends.iter().copied().filter(|number| self.sent[number].is_persistent).collect();
            let found = kept.iter().filter(|number| seen(number)).count();
            if found > 0 && found < kept.len() {
                return Err(format!("of a transaction's messages {kept:?} only {found} are there"));
            }
            if found > 0
                && let Some(number) = acks.iter().find(|number| there.contains(number))
            {
                return Err(format!(
                    "message {number} comes again, though the transaction of its end was carried out"
                ));
            }
            self.summary.transactions_found += u64::from(found > 0);
            self.summary.transactions_lost += u64::from(found == 0);
        }
        Ok(())
    }

    fn note(&mut self, what: &[u8], number: u64) {
        self.summary.digest = fnv(fnv(self.summary.digest, what), &number.to_le_bytes());
    }
}

/// Whether a command without an answer is about this message's sending.
fn is_of(asked: &Asked, number: Number) -> bool {
    match asked {
        Asked::Send(sent) => *sent == number,
        Asked::Transaction(transaction) => transaction.sends.contains(&number),
        Asked::Settle(_) | Asked::GiveBack | Asked::Consume => false,
    }
}

fn consume(ack: AckMode, prefetch: Option<u32>) -> QueueCommand {
    QueueCommand::Consume(Box::new(Consume {
        consumer: 1,
        queue: QUEUE.into(),
        ack,
        prefetch,
        selector: None,
        is_exclusive: false,
        is_browsing: false,
        durable_of: None,
    }))
}

/// The bytes of a message, which nobody else's has.
fn body(number: Number, size: usize) -> Bytes {
    number.to_le_bytes().into_iter().cycle().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_their_promises_on_a_disk_that_fails() {
        let mut sum = Summary::default();
        for seed in 0..300 {
            let one = run(seed, 300).unwrap_or_else(|violation| panic!("{violation}"));
            sum.sent += one.sent;
            sum.taken += one.taken;
            sum.refused += one.refused;
            sum.delivered += one.delivered;
            sum.redelivered += one.redelivered;
            sum.acked += one.acked;
            sum.transactions += one.transactions;
            sum.transactions_found += one.transactions_found;
            sum.transactions_lost += one.transactions_lost;
            sum.survivors += one.survivors;
            sum.kills += one.kills;
            sum.failed_starts += one.failed_starts;
            sum.disk.torn_writes += one.disk.torn_writes;
            sum.disk.sectors_lost += one.disk.sectors_lost;
            sum.disk.full += one.disk.full;
            sum.disk.sync_errors += one.disk.sync_errors;
            sum.disk.write_errors += one.disk.write_errors;
        }
        // Each of these occurred, and often enough to mean something.
        for (what, count, least) in [
            ("messages", sum.sent, 50_000),
            ("messages taken", sum.taken, 20_000),
            ("messages refused", sum.refused, 500),
            ("deliveries", sum.delivered, 10_000),
            ("redeliveries", sum.redelivered, 1_000),
            ("acknowledgements", sum.acked, 2_000),
            ("transactions", sum.transactions, 500),
            ("transactions found after a crash", sum.transactions_found, 20),
            ("transactions lost in a crash", sum.transactions_lost, 20),
            ("survivors", sum.survivors, 100),
            ("kills", sum.kills, 5_000),
            ("failed starts", sum.failed_starts, 20),
            ("torn writes", sum.disk.torn_writes, 200),
            ("sectors lost", sum.disk.sectors_lost, 200),
            ("refusals for want of room", sum.disk.full, 100),
            ("sync errors", sum.disk.sync_errors, 100),
            ("write errors", sum.disk.write_errors, 100),
        ] {
            assert!(count >= least, "only {count} {what} in all seeds");
        }
    }

    #[test]
    fn a_seed_run_twice_gives_the_same() {
        for seed in [1, 42, 1_000_000] {
            assert_eq!(run(seed, 200), run(seed, 200));
        }
    }
}
