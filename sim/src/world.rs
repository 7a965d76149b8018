//! One run: everything that a seed stands for, from the first start to the last close.
//!
//! First comes chaos: users live, backends publish, and what the plan holds befalls them. Then everything is
//! repaired and all must find back, whole. Then everybody leaves, and nothing may be left of them. The checks
//! watch all of it.

use crate::application::{Application, Stage, WELL};
use crate::broker::{Alone, Cluster, Witness};
use crate::checks::{Checks, Counts, Deed};
use crate::client::backend::Backend;
use crate::client::{Action, Kind};
use crate::disk::{Faults, SimDisk};
use crate::machine::{Machine, Process};
use crate::model::Model;
use crate::net::{Cut, Dialled, Direction, Net, Quality};
use crate::trace::{Failure, Promise, Trace};
use crate::user::User;
use crate::workload::{API_KEY, Act, CONNECT_TIMEOUT, Dice, Options, Order, Plan, SHADES};
use bytes::Bytes;
use longwire::broker::{Broker, Channels, Outlets};
use longwire::env::http::{Answer, Call};
use longwire::env::{Clock, Env, Memory, Rng};
use longwire::node::control::ServerSubscribe;
use longwire::node::{Control, NewPublication, Target};
use longwire_protocol::CloseReason;
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

/// When every run begins: seconds since 1970.
const BEGINNING: Duration = Duration::from_secs(1_800_000_000);

/// How long an answer of a machine may take before the one who asks turns away.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long after everybody left the last timer may fire: the horizon of the wheel, a goodbye, and what a kernel
/// keeps of a connection whose end nobody acknowledged.
const DEPARTURE: Duration = Duration::from_secs(130);

/// How long after a failed start a process is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(2);

/// What fits between two processes: enough for the longest way, as kernels see to.
const WINDOW: usize = 256 * 1024;

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The digest of all events; equal digests are equal runs.
    pub digest: u64,
    /// How many events there were.
    pub events: u64,
    /// The first broken promise.
    pub failure: Option<Failure>,
    /// The last events in words.
    pub recent: Vec<String>,
    /// How much happened.
    pub counts: Counts,
    /// How long it took, in invented time.
    pub span: Duration,
}

/// The world of one run.
pub struct World {
    /// What is to happen.
    pub plan: Rc<Plan>,
    /// Time.
    pub clock: Clock,
    /// The network between users and machines.
    pub net: Net,
    /// What happened.
    pub trace: Trace,
    /// The judge.
    pub checks: RefCell<Checks>,
    model: Model,
    cluster: Option<Cluster>,
    machines: Vec<Machine>,
    memory_used: Vec<Arc<AtomicU32>>,
    disks: Vec<SimDisk>,
    application: Application,
    users: Vec<Rc<User>>,
    root: Rng,
    publications: Cell<u64>,
    starts: Cell<u64>,
    is_calm: Cell<bool>,
}

/// Runs what a seed stands for.
pub fn run(seed: u64, options: &Options, is_loud: bool) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing from the system");
    let trace = runtime.block_on(async { Trace::new(Clock::starting_at(BEGINNING), is_loud) });
    panics::forget();
    let plan = Rc::new(Plan::draw(seed, options));
    let (counts, span) = tracing::subscriber::with_default(trace.clone(), || {
        // Within a set of tasks each process can have a set of its own, which is dropped when it is killed.
        LocalSet::new().block_on(&runtime, async {
            let world = World::new(plan, Rng::from_seed(seed), trace.clone());
            tokio::select! {
                biased;
                () = trace.failed() => {}
                () = world.clone().live() => {}
            }
            (world.checks.borrow().counts().clone(), world.clock.now() - world.clock.start())
        })
    });
    drop(runtime);
    for what in panics::forget() {
        trace.fail(Promise::NoPanic, what);
    }
    let (digest, events) = trace.digest();
    Outcome { digest, events, failure: trace.failure(), recent: trace.recent(), counts, span }
}

impl World {
    fn new(plan: Rc<Plan>, root: Rng, trace: Trace) -> Rc<World> {
        let clock = Clock::starting_at(BEGINNING);
        let (net, model) = (Net::new(root.fork("net")), Model::default());
        let witness = Witness { model: model.clone(), trace: trace.clone(), clock };
        let cluster = plan.is_cluster.then(|| Cluster::new(plan.machines.len(), root.fork("store"), witness));
        if let Some(cluster) = &cluster {
            cluster.set_weather(plan.calm_weather);
        }
        let checks = Checks::new(plan.clone(), net.clone(), clock, model.clone(), trace.clone());
        let users = plan.users.iter().enumerate().map(|(number, user)| {
            let latency = user.latency;
            let quality =
                Quality { latency: latency / 2, jitter: latency / 4, window: WINDOW, ..Quality::default() };
            net.host_quality(user.ip, Quality { bytes_per_second: user.bytes_per_second, ..quality });
            Rc::new(User::new(number, user.clone(), root.fork(&format!("user {number}")), clock.start()))
        });
        Rc::new(World {
            users: users.collect(),
            machines: plan.machines.iter().map(|_| Machine::new(clock)).collect(),
            memory_used: plan.machines.iter().map(|_| Arc::new(AtomicU32::new(20))).collect(),
            disks: (0..plan.machines.len()).map(|n| SimDisk::new(root.fork(&format!("disk {n}")))).collect(),
            application: Application::new(clock, root.fork("application")),
            plan,
            clock,
            net,
            trace,
            checks: RefCell::new(checks),
            model,
            cluster,
            root,
            publications: Cell::default(),
            starts: Cell::default(),
            is_calm: Cell::default(),
        })
    }

    async fn live(self: Rc<World>) {
        spawn_local(self.clone().read_logs());
        spawn_local(self.clone().hear_calls());
        for machine in 0..self.machines.len() {
            if let Some(cluster) = &self.cluster {
                spawn_local(cluster.clone().carry(machine));
            }
            self.start(machine);
        }
        for user in &self.users {
            spawn_local(user.clone().live(self.clone()));
            if user.plan().kind.is_sdk() || user.plan().kind == Kind::Plain {
                spawn_local(user.clone().carry(self.clone()));
            }
            match user.plan().kind {
                Kind::Plain => drop(spawn_local(self.clone().let_say(user.clone()))),
                _ => drop(spawn_local(self.clone().let_publish(user.clone()))),
            }
            if user.plan().work.is_some() {
                spawn_local(self.clone().let_send(user.clone()));
            }
        }
        for number in 0..self.plan.backends.len() {
            spawn_local(self.clone().run_backend(number));
        }
        spawn_local(self.clone().watch());
        for (at, act) in &self.plan.acts {
            self.clock.sleep_until(self.clock.start() + *at).await;
            self.trace.note(format_args!("{act:?}"));
            self.clone().perform(act);
        }
        self.clock.sleep_until(self.clock.start() + self.plan.chaos).await;
        self.calm().await;
        self.leave().await;
    }

    /// Everything is repaired; after a while everybody must be whole.
    async fn calm(self: &Rc<World>) {
        self.trace.note(format_args!("faults stop"));
        self.is_calm.set(true);
        // What was killed or drained a moment ago ends first.
        self.clock.sleep(Duration::from_secs(8)).await;
        self.net.repair_all();
        for id in self.net.live() {
            // What was to be cut after some more bytes is not cut any more.
            for direction in [Direction::ToServer, Direction::ToClient] {
                self.net.cut_after(id, direction, u64::MAX / 2, Cut::Fin);
            }
        }
        if let Some(cluster) = &self.cluster {
            cluster.set_weather(self.plan.calm_weather);
            (0..self.machines.len()).for_each(|machine| cluster.cut(machine, false));
        }
        self.application.set_conduct(WELL);
        self.checks.borrow_mut().application_changes(true);
        for machine in 0..self.machines.len() {
            self.memory_used[machine].store(20, Ordering::Relaxed);
            self.disks[machine].set_faults(Faults::default());
            self.checks.borrow_mut().disk_changes(machine, true);
            self.start(machine);
        }
        for (user, plan) in self.users.iter().zip(&self.plan.users) {
            self.net.revive(plan.ip);
            self.net.host_quality(plan.ip, Quality::default());
            user.thaw(self);
        }
        // The last publication of each channel may be the one that was lost: nothing follows that would tell.
        self.clock.sleep(Duration::from_secs(5)).await;
        for channel in self.plan.channels.iter().filter(|_| self.plan.has_last_word) {
            let process = self.processes().into_iter().next();
            let (_, process) = process.expect("all machines were started");
            self.publish(&process, channel).await;
        }
        let heartbeat = &self.plan.config.heartbeat;
        let settle = 2 * (heartbeat.interval + heartbeat.max_silence) + Duration::from_secs(90);
        self.clock.sleep(settle).await;
        self.checks.borrow().converged(&self.processes());
        self.checks.borrow_mut().everybody_asks = true;
        for user in self.users.iter().filter(|user| user.plan().kind.is_sdk()) {
            user.order(Action::History(user.plan().wanted[0].channel.clone()));
            user.order(Action::Presence(user.plan().wanted[0].channel.clone()));
        }
        for user in self.users.iter().filter(|user| user.plan().kind == Kind::Plain) {
            self.say(user);
        }
        let since = self.clock.now();
        self.clock.sleep(2 * ANSWER_TIMEOUT).await;
        self.checks.borrow_mut().require_last_words(since);
        self.checks.borrow_mut().everybody_asks = false;
    }

    /// Everybody leaves; after a while nothing may be left of them.
    async fn leave(self: &Rc<World>) {
        self.trace.note(format_args!("everybody leaves"));
        self.users.iter().for_each(|user| user.leave());
        self.clock.sleep(DEPARTURE).await;
        for (machine, process) in self.processes() {
            let census = process.node().census().await;
            self.checks.borrow().emptied(machine, &process, &census);
            self.checks.borrow().settled(machine, &process, self.disks[machine].used());
        }
        let interests = self.cluster.as_ref().map_or(0, Cluster::interests);
        if interests != 0 {
            let what = format!("the store still hands on {interests} channels that nobody reads");
            self.trace.fail(Promise::NothingLeft, what);
        }
        let live = self.net.live();
        if !live.is_empty() {
            let fates: Vec<_> = live.iter().filter_map(|id| self.net.fate(*id)).collect();
            self.trace.fail(Promise::NothingLeft, format!("connections are left: {fates:?}"));
        }
        self.checks.borrow().finished();
    }

    /// The processes that run.
    fn processes(&self) -> Vec<(usize, Rc<Process>)> {
        let processes = self.machines.iter().map(Machine::process).enumerate();
        processes.filter_map(|(machine, process)| Some((machine, process?))).collect()
    }

    /// Starts a machine's process, unless it runs.
    fn start(self: &Rc<World>, machine: usize) {
        if self.machines[machine].process().is_some() {
            return;
        }
        if self.machines[machine].is_occupied() {
            // Its fuse burnt down a moment ago.
            self.end(machine, End::Killed);
        }
        let ip = self.plan.machines[machine].ip();
        self.net.revive(ip);
        self.starts.set(self.starts.get() + 1);
        let rng = self.root.fork(&format!("start {}", self.starts.get()));
        let used = self.memory_used[machine].clone();
        let env = Env {
            clock: self.clock,
            net: longwire::env::Net::of(Arc::new(self.net.host(ip))),
            disk: self.disks[machine].disk(),
            http: self.application.way_from(machine),
            memory: Memory::of(move || Some(used.load(Ordering::Relaxed))),
            rng: rng.clone(),
        };
        let witness = Witness { model: self.model.clone(), trace: self.trace.clone(), clock: self.clock };
        let broker = |outlets: Outlets, channels: Arc<Channels>| -> Box<dyn Broker> {
            match &self.cluster {
                Some(cluster) => cluster.broker(machine, outlets),
                None => Box::new(Alone::new(channels, outlets, rng.fork("broker"), witness)),
            }
        };
        self.checks.borrow_mut().started(machine);
        let started = self.machines[machine].start(self.plan.config.clone(), env, &rng, broker);
        if let Err(error) = started {
            // Only a disk that fails may keep it from starting, and somebody tries again.
            assert!(self.checks.borrow().is_disk_bad(machine), "the settings of a plan are valid: {error}");
            self.trace.note(format_args!("machine {machine} does not start: {error}"));
            self.end(machine, End::Killed);
            let world = self.clone();
            spawn_local(async move {
                world.clock.sleep(RESTART_PAUSE).await;
                world.start(machine);
            });
        }
    }

    /// Ends a machine's process at once.
    fn end(&self, machine: usize, how: End) {
        self.trace.note(format_args!("machine {machine} ends"));
        self.machines[machine].kill();
        match how {
            End::PowerLost => self.disks[machine].power_loss(),
            End::Drained | End::Killed => self.disks[machine].kill(),
        }
        self.net.kill_process(self.plan.machines[machine].ip());
        self.checks.borrow_mut().stopped(machine, how == End::Drained);
        match &self.cluster {
            Some(cluster) => cluster.leave(machine),
            None => self.model.lock().lose_epochs(),
        }
    }

    // What befalls the world.

    fn perform(self: Rc<World>, act: &Act) {
        let machine_ips: Vec<IpAddr> = self.plan.machines.iter().map(|address| address.ip()).collect();
        let ip = |user: usize| self.plan.users[user].ip;
        // A smaller replay of a run leaves users out.
        let is_there = |user: &usize| *user < self.users.len();
        let after = |span: Duration| self.clock.now() + span;
        match act.clone() {
            Act::Reset(user) => {
                if let Some(id) = self.checks.borrow().connection_of(user) {
                    self.net.reset(id);
                }
            }
            Act::Cut(user, direction, bytes, how) => {
                if let Some(id) = self.checks.borrow().connection_of(user) {
                    self.net.cut_after(id, direction, bytes, how);
                }
            }
            Act::Stall(user, span) => {
                if let Some(id) = self.checks.borrow().connection_of(user) {
                    self.net.stall(id, span);
                }
            }
            Act::Block(user, direction) => {
                for machine in machine_ips {
                    match direction {
                        Direction::ToServer => self.net.block(ip(user), machine),
                        Direction::ToClient => self.net.block(machine, ip(user)),
                    }
                }
            }
            Act::Partition(users, machine) => {
                let users: Vec<IpAddr> = users.into_iter().filter(is_there).map(ip).collect();
                self.net.partition(&users, &[machine_ips[machine]]);
            }
            Act::Repair(users) => {
                let users: Vec<IpAddr> = users.into_iter().filter(is_there).map(ip).collect();
                self.net.repair(&users, &machine_ips);
            }
            Act::Vanish(user) => {
                self.net.vanish(ip(user));
                self.users[user].set_power(false, true, &self);
            }
            Act::Revive(user, keeps_memory) => {
                self.net.revive(ip(user));
                self.users[user].set_power(true, keeps_memory, &self);
            }
            Act::PauseReading(user, span) => {
                self.users[user].pause_reading(after(span));
                self.checks.borrow_mut().idle(user, after(span));
            }
            Act::Freeze(user, span) => {
                self.users[user].freeze(after(span));
                self.checks.borrow_mut().idle(user, after(span));
            }
            Act::Garbage(user, bytes) => self.users[user].order(Action::Garbage(bytes)),
            Act::Goodbye(user) => self.users[user].order(Action::Goodbye),
            Act::Unsubscribe(user, channel) => {
                self.users[user].order(Action::Unsubscribe(self.plan.channels[channel].clone()));
            }
            Act::Subscribe(user, channel) => {
                self.users[user].order(Action::Subscribe(self.plan.channels[channel].clone()));
            }
            Act::Pause(machine, span) => {
                if let Some(process) = self.machines[machine].process() {
                    process.pause(after(span));
                    self.checks.borrow_mut().paused(machine, after(span));
                }
            }
            Act::Kill(machine, turns) => {
                if let Some(process) = self.machines[machine].process() {
                    spawn_local(self.clone().kill(machine, process, turns));
                }
            }
            Act::PowerLoss(machine) => {
                if self.machines[machine].process().is_some() {
                    self.net.vanish(machine_ips[machine]);
                    self.end(machine, End::PowerLost);
                }
            }
            Act::Drain(machine) => {
                if let Some(process) = self.machines[machine].process() {
                    spawn_local(self.clone().drain(machine, process));
                }
            }
            Act::Start(machine) => self.start(machine),
            Act::Memory(machine, percent) => {
                self.memory_used[machine].store(percent, Ordering::Relaxed);
                self.checks.borrow_mut().short_of_memory(machine);
            }
            Act::Weather(weather) => {
                if let Some(cluster) = &self.cluster {
                    cluster.set_weather(weather);
                    let mut checks = self.checks.borrow_mut();
                    checks.store_failed |= weather.failing > 0.0;
                    checks.store_lost |= weather.failing > 0.0 || weather.lost > 0.0;
                    checks.doubled |= weather.doubled > 0.0;
                }
            }
            Act::StoreCut(machine, is_cut) => {
                if let Some(cluster) = &self.cluster {
                    cluster.cut(machine, is_cut);
                    let mut checks = self.checks.borrow_mut();
                    (checks.store_failed, checks.store_lost) = (true, true);
                }
            }
            Act::EpochLoss => {
                if let Some(cluster) = &self.cluster {
                    cluster.lose_epochs();
                    self.checks.borrow_mut().store_lost = true;
                }
            }
            Act::Application(conduct) => {
                self.application.set_conduct(conduct);
                self.checks.borrow_mut().application_changes(conduct == WELL);
            }
            Act::Disk(machine, faults, is_full) => {
                let disk = &self.disks[machine];
                let capacity = is_full.then(|| disk.used());
                disk.set_faults(Faults { capacity, ..faults });
                let is_well = faults == Faults::default() && !is_full;
                self.checks.borrow_mut().disk_changes(machine, is_well);
            }
            Act::Order(order, user, channel) => {
                spawn_local(self.clone().order(order, user, self.plan.channels[channel].clone()));
            }
        }
    }

    async fn kill(self: Rc<World>, machine: usize, process: Rc<Process>, turns: u64) {
        process.light_fuse(turns);
        for _ in 0..50 {
            if !process.is_alive() {
                break;
            }
            self.clock.sleep(Duration::from_millis(10)).await;
        }
        if self.machines[machine].is_running(&process) {
            self.end(machine, End::Killed);
        }
    }

    async fn drain(self: Rc<World>, machine: usize, process: Rc<Process>) {
        self.checks.borrow_mut().draining(machine);
        process.drain().await;
        let node = process.node();
        let is_orderly = node.admissions.open() == 0
            && node
                .counters
                .iter()
                .all(|shard| shard.leaving.get() + shard.telling.get() + shard.sessions_away.get() == 0);
        if self.machines[machine].is_running(&process) {
            self.end(machine, if is_orderly { End::Drained } else { End::Killed });
        }
    }

    async fn order(self: Rc<World>, order: Order, user: usize, channel: String) {
        let Some((client, machine)) = self.checks.borrow().client_of(user) else { return };
        let Some(process) = self.machines[machine].process() else { return };
        self.checks.borrow_mut().acts(user, Deed::Ordered);
        let target = Target { client: Some(client), ..Target::default() };
        let node = process.node();
        let given = async {
            match order {
                Order::Disconnect => {
                    let close = CloseReason::ForceReconnect.into();
                    node.order(Control::Disconnect { target, close }).await;
                }
                Order::Unsubscribe => {
                    node.order(Control::Unsubscribe { target, channel: channel.into() }).await;
                }
                Order::Subscribe => {
                    let subscribe = ServerSubscribe { channel, ..ServerSubscribe::default() };
                    let ordered = node.order_subscribe(target, subscribe).await;
                    ordered.expect("the channels of a plan are valid");
                }
            }
        };
        // A process that is killed meanwhile answers nobody.
        let _ = self.clock.timeout(ANSWER_TIMEOUT, given).await;
    }

    // Those who publish.

    /// The next payload: different from all before.
    fn payload(&self, from: &str, bytes: usize) -> String {
        let number = self.publications.get() + 1;
        self.publications.set(number);
        // Sorted by name, so that a value that was read and written again is the same text; with characters that
        // some transports escape.
        format!(r#"{{"from":"{from} – 🌍","n":{number},"pad":"{}"}}"#, "x".repeat(bytes))
    }

    async fn let_publish(self: Rc<World>, user: Rc<User>) {
        let plan = user.plan();
        let Some(every) = plan.publishes_every else { return };
        let mut dice = Dice(self.root.fork(&format!("publications of {}", plan.ip)));
        while !self.is_calm.get() {
            self.clock.sleep(every.mul_f64(0.5 + dice.0.fraction())).await;
            let channel = plan.wanted[dice.below(plan.wanted.len())].channel.clone();
            let data = self.payload(&plan.ip.to_string(), dice.below(plan.payload_bytes + 1));
            user.order(Action::Publish { channel, data });
        }
    }

    async fn let_send(self: Rc<World>, user: Rc<User>) {
        let plan = user.plan();
        let Some(every) = plan.work.as_ref().and_then(|work| work.sends_every) else { return };
        let mut dice = Dice(self.root.fork(&format!("work of {}", plan.ip)));
        while !self.is_calm.get() {
            self.clock.sleep(every.mul_f64(0.2 + 1.6 * dice.0.fraction())).await;
            let number = self.publications.get() + 1;
            let body = self.payload(&plan.ip.to_string(), dice.below(400));
            user.order(Action::Send { number, body });
        }
    }

    async fn let_say(self: Rc<World>, user: Rc<User>) {
        let plan = user.plan();
        let mut dice = Dice(self.root.fork(&format!("messages of {}", plan.ip)));
        while !self.is_calm.get() {
            self.clock.sleep(plan.says_every.mul_f64(0.2 + 1.6 * dice.0.fraction())).await;
            self.say(&user);
        }
    }

    /// Has a user say something that nobody said before.
    fn say(&self, user: &User) {
        let number = self.publications.get() + 1;
        self.publications.set(number);
        user.order(Action::Say { number, data: format!(r#"{{"said":{number},"to":"you – 🌍"}}"#) });
    }

    /// A backend that publishes over the HTTP API, on a connection that it keeps.
    async fn run_backend(self: Rc<World>, number: usize) {
        let ip = IpAddr::V4(Ipv4Addr::new(10, 2, 0, number as u8 + 1));
        let every = self.plan.backends[number];
        let mut dice = Dice(self.root.fork(&format!("backend {number}")));
        let mut kept: Option<(Dialled, Backend)> = None;
        while !self.is_calm.get() {
            self.clock.sleep(every.mul_f64(2.0 * dice.0.fraction())).await;
            let machine = dice.below(self.plan.machines.len());
            let channel = &self.plan.channels[dice.below(self.plan.channels.len())];
            let bytes = dice.below(self.plan.backend_bytes);
            let data = self.payload(&format!("backend {number}"), bytes);
            let (shade, weight) = (SHADES[dice.below(SHADES.len())], dice.below(10));
            let tags = match dice.chance(0.8) {
                true => format!(r#","tags":{{"shade":"{shade}","weight":"{weight}"}}"#),
                false => String::new(),
            };
            let body = format!(r#"{{"channel":"{channel}","data":{data}{tags}}}"#);
            if kept.is_none() {
                let dialled = self.net.connect(ip, self.plan.machines[machine], CONNECT_TIMEOUT).await;
                kept = dialled.ok().map(|dialled| (dialled, Backend::new("longwire.test:8000")));
            }
            let Some((link, backend)) = &mut kept else { continue };
            let answer = self.clock.timeout(ANSWER_TIMEOUT, call(link, backend, "/api/publish", &body)).await;
            match answer {
                Some(Ok(Some((status, text)))) => {
                    self.trace.note(format_args!("backend {number} was answered {status} {text}"));
                    self.checks.borrow().accepted(channel, &data, status, &text);
                    if !backend.is_usable() {
                        kept = None;
                    }
                }
                Some(Err(what)) => {
                    self.trace.fail(Promise::WellFormed, format!("a backend was answered nonsense: {what}"));
                    kept = None;
                }
                _ => kept = None,
            }
        }
    }

    /// Has the application hear what servers call.
    async fn hear_calls(self: Rc<World>) {
        let application = self.application.clone();
        let hear = |machine: usize, call: &Call, stage: Stage| {
            // What servers said before they called is judged before the call.
            self.look_at_logs();
            let answer = self.checks.borrow_mut().called(machine, call, stage);
            Answer { status: 200, body: Bytes::from(answer) }
        };
        application.serve(hear).await;
    }

    // Those who watch.

    async fn read_logs(self: Rc<World>) {
        loop {
            self.trace.arrived().await;
            self.look_at_logs();
        }
    }

    fn look_at_logs(&self) {
        while let Some(line) = self.trace.next_line() {
            self.checks.borrow_mut().logged(&line);
        }
    }

    async fn watch(self: Rc<World>) {
        for second in 0u64.. {
            self.clock.sleep(Duration::from_secs(1)).await;
            for (machine, process) in self.processes() {
                self.checks.borrow_mut().look_at_machine(machine, &process);
                self.checks.borrow().look_at_disk(machine, self.disks[machine].used());
                if second % 3 == 0 {
                    let census = self.clock.timeout(ANSWER_TIMEOUT, process.node().census()).await;
                    if let Some(census) = census {
                        self.checks.borrow().look_at_census(machine, &census);
                    }
                }
            }
        }
    }

    async fn publish(&self, process: &Process, channel: &str) {
        let data = self.payload("the end", 0).into();
        let published =
            process.node().publish(channel, NewPublication { data, ..NewPublication::default() }).await;
        self.trace.note(format_args!("published at the end in {channel}: {published:?}"));
    }
}

/// One call of the HTTP API; `None` if the connection broke.
///
/// # Errors
/// The answer breaks the rules.
async fn call(
    link: &mut Dialled,
    backend: &mut Backend,
    path: &str,
    body: &str,
) -> Result<Option<(u16, String)>, String> {
    let Some(request) = backend.request(path, body, Some(API_KEY)) else { return Ok(None) };
    answered(link, backend, &request).await
}

/// Sends a request and waits for the answer; `None` if the connection broke.
///
/// # Errors
/// The answer breaks the rules.
pub(crate) async fn answered(
    link: &mut Dialled,
    backend: &mut Backend,
    request: &[u8],
) -> Result<Option<(u16, String)>, String> {
    if link.write_all(request).await.is_err() {
        return Ok(None);
    }
    let mut scratch = [0; 4096];
    loop {
        match link.read(&mut scratch).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(n) => {
                if let Some((status, body)) = backend.handle_bytes(&scratch[..n])? {
                    return Ok(Some((status, String::from_utf8_lossy(&body).into_owned())));
                }
            }
        }
    }
}

/// Panics of this thread, which tokio's tasks would swallow.
mod panics {
    use std::cell::RefCell;
    use std::sync::Once;

    thread_local! {
        static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Takes what was seen, and watches from then on.
    pub(super) fn forget() -> Vec<String> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                SEEN.with_borrow_mut(|seen| seen.push(panic.to_string()));
                before(panic);
            }));
        });
        SEEN.take()
    }
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// It had nothing left to do.
    Drained,
    Killed,
    /// What was not synced may be gone.
    PowerLost,
}
