//! What a seed stands for: how many machines and clients of which kind, with which settings, and what befalls
//! them when.
//!
//! Everything is drawn before the run, from generators that are forked by name, so that leaving a kind of fault
//! or some clients out changes as little as possible of the rest: that is how a failing seed is made small.

use crate::application::{Conduct, WELL};
use crate::broker::{CALM, Weather};
use crate::client::choice::Choice;
use crate::client::{BEAT, BEAT_ANSWER, Kind, PING_PACKET, PlainSettings, Transport, Wanted};
use crate::disk::Faults;
use crate::net::{Cut, Direction};
use longwire::config::{
    ChannelOptions, Config, DEFAULT_WEBHOOK, DELTA_TYPE, EventType, FirstPacket, Listener, Protocol,
    RecoveryMode, SecondConnection, WEBHOOKS,
};
use longwire::env::Rng;
use longwire_client::stomp::AckMode;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// The key that backends show.
pub const API_KEY: &str = "the key of the simulated backends";

/// The secret of tokens.
pub const AUTH_SECRET: &str = "the secret of the simulated issuer of tokens";

/// The secret with which deliveries of events are signed.
pub const EVENTS_SECRET: &str = "the secret of the simulated application";

/// The disk that events may take on a machine; a segment is an eighth of it.
pub const EVENTS_DISK_BYTES: u64 = 4 << 20;

/// Where machines take packets.
pub const PACKET_PORT: u16 = 9501;

/// Where machines speak STOMP.
pub const STOMP_PORT: u16 = 61613;

/// Where work is sent, and taken from.
pub const QUEUE: &str = "/queue/work";

/// The disk that the queues of a machine may take beside its events.
pub const QUEUES_DISK_BYTES: u64 = 4 << 20;

/// What the tag `shade` of a publication may be.
pub const SHADES: [&str; 3] = ["red", "green", "blue"];

/// How long a client's attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Of the users, how many have a client that is shipped.
const REAL_SHARE: f64 = 0.3;

/// Kinds of faults.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A middlebox resets a connection.
    Reset,
    /// A connection ends at some byte: with a reset, an end, or silently.
    Cut,
    /// A link delivers nothing for a while.
    Stall,
    /// One direction of a link dies silently.
    HalfOpen,
    /// Several clients and a machine cannot reach each other.
    Partition,
    /// A client's host loses power.
    Vanish,
    /// A client does not read for a while.
    SlowReader,
    /// A client's process stands still for a while, as in a suspended laptop.
    Frozen,
    /// A client breaks the protocol.
    Garbage,
    /// A client says goodbye and comes back.
    Goodbye,
    /// A client leaves a channel and joins it again.
    Resubscribe,
    /// A server's process stands still for a while.
    Pause,
    /// A server's process is killed, at any step, and started again.
    Kill,
    /// A server's machine loses power and comes back.
    PowerLoss,
    /// A server is drained and started again.
    Drain,
    /// A server's memory runs short.
    Memory,
    /// The links to the store are slow, lose, double, or fail.
    Weather,
    /// A machine cannot reach the store.
    StoreCut,
    /// The store forgets everything.
    EpochLoss,
    /// The backend disconnects a client, or ends or begins a subscription.
    Orders,
    /// The application, which hears events and is asked who may come, is slow, dead, refuses, babbles, or its answers are lost.
    Application,
    /// A machine's disk fails, or is full.
    Disk,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 22] = [
        Fault::Reset,
        Fault::Cut,
        Fault::Stall,
        Fault::HalfOpen,
        Fault::Partition,
        Fault::Vanish,
        Fault::SlowReader,
        Fault::Frozen,
        Fault::Garbage,
        Fault::Goodbye,
        Fault::Resubscribe,
        Fault::Pause,
        Fault::Kill,
        Fault::PowerLoss,
        Fault::Drain,
        Fault::Memory,
        Fault::Weather,
        Fault::StoreCut,
        Fault::EpochLoss,
        Fault::Orders,
        Fault::Application,
        Fault::Disk,
    ];
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let named = Fault::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(text));
        named.ok_or_else(|| format!("no fault is called \"{text}\"; there are {:?}", Fault::ALL))
    }
}

/// What befalls the world at some moment; users and machines by their number.
#[derive(Clone, PartialEq, Debug)]
pub enum Act {
    /// The user's connection is reset by a middlebox.
    Reset(usize),
    /// The user's connection ends after so many bytes.
    Cut(usize, Direction, u64, Cut),
    /// Nothing is delivered between the user and any machine for a while.
    Stall(usize, Duration),
    /// Nothing passes in one direction any more.
    Block(usize, Direction),
    /// Both directions between these users and a machine die.
    Partition(Vec<usize>, usize),
    /// The links of these users are whole again.
    Repair(Vec<usize>),
    /// The user's host loses power.
    Vanish(usize),
    /// It comes back; with its memory or without.
    Revive(usize, bool),
    /// The user does not read for a while.
    PauseReading(usize, Duration),
    /// The user's process stands still for a while.
    Freeze(usize, Duration),
    /// The user sends this.
    Garbage(usize, Vec<u8>),
    /// The user closes politely.
    Goodbye(usize),
    /// The user leaves one of its channels.
    Unsubscribe(usize, usize),
    /// The user joins it again.
    Subscribe(usize, usize),
    /// The machine's process stands still for a while.
    Pause(usize, Duration),
    /// The machine's process dies after so many turns of its threads.
    Kill(usize, u64),
    /// The machine loses power.
    PowerLoss(usize),
    /// The machine's process drains and ends.
    Drain(usize),
    /// The machine's process starts, unless it runs.
    Start(usize),
    /// The machine's memory is used to so many percent.
    Memory(usize, u32),
    /// The links to the store behave otherwise.
    Weather(Weather),
    /// The machine cannot reach the store, or can again.
    StoreCut(usize, bool),
    /// The store forgets everything.
    EpochLoss,
    /// The application behaves otherwise.
    Application(Conduct),
    /// A machine's disk fails in this way; full means no more room than what is used.
    Disk(usize, Faults, bool),
    /// The backend orders something by this API method about this user and channel.
    Order(Order, usize, usize),
}

impl Act {
    /// Whom it befalls, if it is one user.
    pub fn user(&self) -> Option<usize> {
        match *self {
            Act::Reset(user)
            | Act::Cut(user, ..)
            | Act::Stall(user, _)
            | Act::Block(user, _)
            | Act::Vanish(user)
            | Act::Revive(user, _)
            | Act::PauseReading(user, _)
            | Act::Freeze(user, _)
            | Act::Garbage(user, _)
            | Act::Goodbye(user)
            | Act::Unsubscribe(user, _)
            | Act::Subscribe(user, _)
            | Act::Order(_, user, _) => Some(user),
            _ => None,
        }
    }
}

/// An order of the backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Disconnect, so that the client comes back.
    Disconnect,
    /// Unsubscribe, so that the client does not come back to the channel by itself; the user asks for it again.
    Unsubscribe,
    /// Subscribe on the server's side.
    Subscribe,
}

/// What is asked of the simulator beside the seed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// At most so many clients.
    pub clients: Option<usize>,
    /// Faults stop after so long.
    pub until: Option<Duration>,
    /// Kinds of faults that are left out.
    pub without: BTreeSet<Fault>,
}

/// A user.
#[derive(Clone, Debug)]
pub struct UserPlan {
    /// The host.
    pub ip: IpAddr,
    /// Dialect and transport.
    pub kind: Kind,
    /// Its channels.
    pub wanted: Vec<Wanted>,
    /// Whether compression is offered.
    pub offer_deflate: bool,
    /// The longest way to a machine.
    pub latency: Duration,
    /// What the link carries, if that is little.
    pub bytes_per_second: Option<u64>,
    /// How long an event stream may say nothing before the user takes it for dead: two and a half beats.
    pub silence: Duration,
    /// What a client of the plain dialect with a name has beside that; it is named later.
    pub plain: PlainSettings,
    /// For how long something on its way lets the best of its transports not pass.
    pub barred_for: Duration,
    /// How often it says something to the application.
    pub says_every: Duration,
    /// How often it publishes.
    pub publishes_every: Option<Duration>,
    /// Bytes of what it publishes.
    pub payload_bytes: usize,
    /// What it does with the queue, if it speaks STOMP.
    pub work: Option<Work>,
}

/// What a user does with the queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    /// It knows this machine alone, and nothing befalls it: somebody works off what every machine has taken.
    pub only: Option<usize>,
    /// How often it sends a message.
    pub sends_every: Option<Duration>,
    /// How it acknowledges messages, if it takes any.
    pub ack: Option<AckMode>,
    /// How many it takes at once.
    pub prefetch: u32,
    /// How long one may take.
    pub takes: Duration,
}

impl UserPlan {
    /// Whether a client of the plain dialect with a name goes down to polling.
    pub fn may_poll(&self) -> bool {
        self.plain.ladder.contains(&Transport::Poll)
    }
}

/// What a seed stands for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Machines with longwire.
    pub machines: Vec<SocketAddr>,
    /// Whether they share a store; otherwise there is one machine, and its broker is as shipped.
    pub is_cluster: bool,
    /// The settings of all machines.
    pub config: Config,
    /// The users.
    pub users: Vec<UserPlan>,
    /// Within how long all users come at first: at once, as when a page is opened to all, or by and by.
    pub arrivals: Duration,
    /// All channels.
    pub channels: Vec<String>,
    /// How often each of the backends publishes.
    pub backends: Vec<Duration>,
    /// At most so many bytes.
    pub backend_bytes: usize,
    /// When faults have stopped each channel gets one more publication, which shows what was lost before it;
    /// otherwise nothing follows what was lost.
    pub has_last_word: bool,
    /// How the links to the store behave while nothing befalls them.
    pub calm_weather: Weather,
    /// When faults stop.
    pub chaos: Duration,
    /// What befalls whom, in the order of time.
    pub acts: Vec<(Duration, Act)>,
}

impl Plan {
    /// Draws the plan of a seed.
    pub fn draw(seed: u64, options: &Options) -> Plan {
        let root = Rng::from_seed(seed);
        let mut rng = Dice(root.fork("plan"));
        let is_cluster = rng.chance(0.6);
        let count = if is_cluster { rng.between(2, 4) } else { 1 };
        let address = |n| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 1, n as u8 + 1)), 8000);
        let machines: Vec<SocketAddr> = (0..count).map(address).collect();
        let channels: Vec<String> =
            ["room:a", "room:b", "list:a", "list:b", "list:c", "tiny:a", "tiny:b", "last:a", "free:a"]
                .into_iter()
                .map(str::to_owned)
                .collect();
        let config = settings(&mut rng);
        // Some runs have a crowd, some have more to tell than a peer that stops reading may keep waiting.
        let (is_crowded, is_flooded) = (rng.chance(0.15), rng.chance(0.15));
        let crowd = match (is_flooded, is_crowded) {
            (true, _) => rng.between(12, 20),
            (false, true) => rng.between(150, 300),
            (false, false) => rng.between(12, 70),
        } as usize;
        let users = (0..crowd)
            .map(|n| user(&mut Dice(root.fork(&format!("user {n}"))), n, &channels, &config))
            .collect();
        let every = if is_flooded { (25, 80) } else { (60, 1500) };
        let backends = (0..rng.between(1, 3)).map(|_| rng.millis(every.0, every.1)).collect();
        let chaos = Duration::from_secs(if is_flooded { rng.between(30, 50) } else { rng.between(40, 150) });
        let until = options.until.unwrap_or(chaos).min(chaos);
        let mut arrivals = Dice(root.fork("arrivals"));
        let mut plan = Plan {
            machines,
            is_cluster,
            config,
            users,
            arrivals: Duration::from_millis(if arrivals.chance(0.5) {
                arrivals.between(10, 300)
            } else {
                3_000
            }),
            channels,
            backends,
            backend_bytes: if is_flooded { 8_000 } else { 300 },
            has_last_word: rng.chance(0.3),
            calm_weather: Weather { latency: rng.millis(1, 120), ..CALM },
            chaos: until,
            acts: Vec::new(),
        };
        for fault in Fault::ALL {
            let mut rng = Dice(root.fork(&format!("{fault:?}")));
            // A run has some kinds of faults, not all: each shows its own mistakes.
            let is_chosen = rng.chance(0.45);
            if is_chosen && !options.without.contains(&fault) {
                plan.befall(fault, &mut rng);
            }
        }
        // Drawn for the whole crowd, so that what befalls the first is the same without the others.
        plan.users.truncate(options.clients.unwrap_or(usize::MAX));
        plan.acts.retain(|(at, act)| *at < until && act.user().is_none_or(|user| user < plan.users.len()));
        plan.acts.sort_by_key(|(at, _)| *at);
        plan.keep_workers();
        plan
    }

    /// Adds a worker for the queue of each machine, whom nothing befalls.
    fn keep_workers(&mut self) {
        for machine in 0..self.machines.len() {
            let number = self.users.len();
            let work = Work {
                only: Some(machine),
                sends_every: None,
                ack: Some(AckMode::ClientIndividual),
                prefetch: 5,
                takes: Duration::from_millis(500),
            };
            self.users.push(UserPlan {
                ip: address_of(number),
                kind: Kind::Stomp,
                wanted: vec![Wanted::all(&self.channels[0])],
                offer_deflate: false,
                latency: Duration::from_millis(20),
                bytes_per_second: None,
                silence: self.config.heartbeat.interval.mul_f64(2.5),
                plain: PlainSettings::default(),
                barred_for: Duration::ZERO,
                says_every: Duration::ZERO,
                publishes_every: None,
                payload_bytes: 0,
                work: Some(work),
            });
        }
    }

    /// Adds the faults of one kind, spread over the time of chaos.
    fn befall(&mut self, fault: Fault, rng: &mut Dice) {
        // What befalls everybody at once comes seldom, or nobody would be connected any more.
        let is_wide = matches!(
            fault,
            Fault::Kill
                | Fault::PowerLoss
                | Fault::Drain
                | Fault::Partition
                | Fault::EpochLoss
                | Fault::StoreCut
        );
        let gap = if is_wide { rng.millis(6_000, 30_000) } else { rng.millis(400, 15_000) };
        let mut at = rng.millis(500, 10_000);
        while at < self.chaos {
            self.add(fault, at, rng);
            at += gap.mul_f64(0.2 + 1.6 * rng.0.fraction());
        }
    }

    fn add(&mut self, fault: Fault, at: Duration, rng: &mut Dice) {
        let user = rng.below(self.users.len());
        let machine = rng.below(self.machines.len());
        let channel = rng.below(self.channels.len());
        let short = rng.millis(50, 4_000);
        let long = rng.millis(1_000, 45_000);
        let direction = if rng.chance(0.5) { Direction::ToServer } else { Direction::ToClient };
        let calm_weather = self.calm_weather;
        let mut act = |after: Duration, act: Act| self.acts.push((at + after, act));
        let now = Duration::ZERO;
        match fault {
            Fault::Reset => act(now, Act::Reset(user)),
            Fault::Cut => {
                let how = [Cut::Reset, Cut::Fin, Cut::Vanish][rng.below(3)];
                act(now, Act::Cut(user, direction, rng.between(0, 3000), how));
                act(long, Act::Repair(vec![user]));
            }
            Fault::Stall => act(now, Act::Stall(user, if rng.chance(0.8) { short } else { long })),
            Fault::HalfOpen => {
                act(now, Act::Block(user, direction));
                act(long, Act::Repair(vec![user]));
            }
            Fault::Partition => {
                let crowd: Vec<usize> = (0..self.users.len()).filter(|_| rng.chance(0.3)).collect();
                act(now, Act::Partition(crowd.clone(), machine));
                act(long, Act::Repair(crowd));
            }
            Fault::Vanish => {
                act(now, Act::Vanish(user));
                act(long, Act::Revive(user, rng.chance(0.5)));
            }
            Fault::SlowReader => {
                act(now, Act::PauseReading(user, if rng.chance(0.5) { short } else { long }))
            }
            Fault::Frozen => act(now, Act::Freeze(user, if rng.chance(0.5) { short } else { long })),
            Fault::Garbage => {
                let bytes = (0..rng.between(1, 40)).map(|_| rng.0.bits() as u8).collect();
                act(now, Act::Garbage(user, bytes));
            }
            Fault::Goodbye => act(now, Act::Goodbye(user)),
            Fault::Resubscribe => {
                act(now, Act::Unsubscribe(user, channel));
                act(short / 4, Act::Subscribe(user, channel));
            }
            Fault::Pause => {
                act(now, Act::Pause(machine, if rng.chance(0.5) { short } else { long.min(secs(20)) }))
            }
            Fault::Kill => {
                act(now, Act::Kill(machine, rng.between(0, 400)));
                act(secs(1) + short, Act::Start(machine));
            }
            Fault::PowerLoss => {
                act(now, Act::PowerLoss(machine));
                act(secs(1) + long / 3, Act::Start(machine));
            }
            Fault::Drain => {
                act(now, Act::Drain(machine));
                act(secs(4) + short, Act::Start(machine));
            }
            Fault::Memory => {
                act(now, Act::Memory(machine, rng.between(75, 99) as u32));
                act(short, Act::Memory(machine, 20));
            }
            Fault::Weather => {
                let bad =
                    |share: f64, rng: &mut Dice| if rng.chance(0.5) { rng.0.fraction() * share } else { 0.0 };
                let weather = Weather {
                    latency: rng.millis(1, 400),
                    lost: bad(0.2, rng),
                    doubled: bad(0.3, rng),
                    failing: bad(0.2, rng),
                };
                act(now, Act::Weather(weather));
                act(long / 2, Act::Weather(calm_weather));
            }
            Fault::StoreCut => {
                act(now, Act::StoreCut(machine, true));
                act(long / 2, Act::StoreCut(machine, false));
            }
            Fault::EpochLoss => act(now, Act::EpochLoss),
            Fault::Application => {
                let share =
                    |share: f64, rng: &mut Dice| if rng.chance(0.5) { rng.0.fraction() * share } else { 0.0 };
                let slowest = if rng.chance(0.3) { 6_000 } else { 300 };
                let conduct = Conduct {
                    latency: rng.millis(5, slowest),
                    is_dead: rng.chance(0.3),
                    losing: share(0.4, rng),
                    silent: share(0.2, rng),
                    refusing: share(0.5, rng),
                    babbling: share(0.2, rng),
                };
                act(now, Act::Application(conduct));
                act(long / 2, Act::Application(WELL));
            }
            Fault::Disk => {
                let share = |rng: &mut Dice| if rng.chance(0.5) { rng.0.fraction() * 0.6 } else { 0.0 };
                let faults = Faults {
                    capacity: None,
                    write_error: share(rng),
                    sync_error: share(rng),
                    dir_sync_error: share(rng),
                    lost_after_sync_error: rng.chance(0.5),
                };
                act(now, Act::Disk(machine, faults, rng.chance(0.3)));
                act(long / 2, Act::Disk(machine, Faults::default(), false));
            }
            Fault::Orders => {
                let order = [Order::Disconnect, Order::Unsubscribe, Order::Subscribe][rng.below(3)];
                act(now, Act::Order(order, user, channel));
                if order == Order::Unsubscribe {
                    act(short, Act::Subscribe(user, channel));
                }
            }
        }
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The host of a user.
fn address_of(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, (number / 200) as u8, (number % 200) as u8 + 1))
}

fn user(rng: &mut Dice, number: usize, channels: &[String], config: &Config) -> UserPlan {
    let ip = address_of(number);
    // Of clients with a name there are more: each may use any transport.
    let kind = Kind::ALL[rng.below(Kind::ALL.len() + 2).min(Kind::ALL.len() - 1)];
    // Drawn apart, so that everything else about a user is the same whoever its client is.
    let mut real = Dice(rng.0.fork("real client"));
    let kind = if real.chance(REAL_SHARE) { Kind::REAL[real.below(Kind::REAL.len())] } else { kind };
    let work = kind.is_stomp().then(|| work(&mut real));
    let asks = rng.chance(0.8);
    let mut wanted = Vec::new();
    for channel in channels {
        let (is_wanted, delta, is_choosy) = (rng.chance(0.35), rng.chance(0.5), rng.chance(0.5));
        let filter = choice(rng);
        if is_wanted {
            let may_choose = kind.is_sdk() && channel.starts_with("list:");
            wanted.push(Wanted {
                recoverable: asks,
                positioned: asks,
                // Nobody may ask for both.
                delta: delta && kind.is_sdk() && !(may_choose && is_choosy),
                filter: (may_choose && is_choosy).then_some(filter),
                ..Wanted::all(channel)
            });
        }
    }
    if wanted.is_empty() {
        wanted.push(Wanted::all(&channels[rng.below(channels.len())]));
    }
    let is_slow = rng.chance(0.1);
    let mut plain = Dice(rng.0.fork("plain"));
    UserPlan {
        ip,
        kind,
        wanted,
        offer_deflate: rng.chance(0.3),
        latency: rng.millis(1, 600),
        bytes_per_second: is_slow.then(|| rng.between(8_000, 60_000)),
        silence: config.heartbeat.interval.mul_f64(2.5),
        plain: PlainSettings {
            name: String::new(),
            proof: String::new(),
            ladder: ladder(&mut plain, config),
            barred_until: None,
            wait_seconds: plain.between(1, 25),
            beat: config.heartbeat.max_silence.mul_f64(0.3),
        },
        barred_for: if plain.chance(0.3) { plain.millis(5_000, 60_000) } else { Duration::ZERO },
        says_every: plain.millis(300, 12_000),
        publishes_every: rng.chance(0.25).then(|| rng.millis(500, 20_000)),
        payload_bytes: rng.below(if is_slow { 10_000 } else { 300 }),
        work,
    }
}

/// What a user does with the queue.
fn work(rng: &mut Dice) -> Work {
    let ack = if rng.chance(0.7) { AckMode::ClientIndividual } else { AckMode::Client };
    Work {
        only: None,
        sends_every: rng.chance(0.7).then(|| rng.millis(300, 8_000)),
        ack: rng.chance(0.6).then_some(ack),
        prefetch: rng.between(1, 20) as u32,
        takes: rng.millis(0, 3_000),
    }
}

/// The transports of a client of the plain dialect, the best first.
fn ladder(rng: &mut Dice, config: &Config) -> Vec<Transport> {
    use Transport::{EventStream, Lines, Poll, Tcp, WebSocket};
    let mut ladder = match rng.below(6) {
        0 | 1 => vec![WebSocket, EventStream, Poll],
        2 => vec![Tcp, WebSocket, Poll],
        3 => vec![EventStream, Poll, Lines],
        4 => vec![Lines, WebSocket],
        _ => vec![Poll, Tcp],
    };
    // Where no session is kept each poll is one of its own: its end is a leave, which answers everybody's polls.
    if config.plain.grace.is_zero() {
        ladder.retain(|transport| *transport != Poll);
    }
    ladder
}

/// Which publications of a channel somebody wants.
fn choice(rng: &mut Dice) -> Choice {
    let shade = SHADES[rng.below(SHADES.len())];
    let shade = Choice::Is("shade".into(), shade.into());
    let weight = Choice::MoreThan("weight".into(), rng.between(2, 7) as i64);
    match rng.below(4) {
        0 => shade,
        1 => weight,
        2 => Choice::Not(Box::new(shade)),
        _ => Choice::Any(vec![shade, weight]),
    }
}

/// Settings that are all valid, and small enough that every limit is met.
fn settings(rng: &mut Dice) -> Config {
    let mut config = Config::demo();
    config.server.shards = rng.between(1, 3) as usize;
    config.listen_on(vec![SocketAddr::from(([0, 0, 0, 0], 8000))]);
    config.server.drain_over = rng.millis(0, 2_500);
    config.server.drain_deadline = secs(3);
    config.server.max_connections = 100_000;
    config.server.max_connections_per_ip = 1_000;
    config.api.key = Some(API_KEY.into());
    config.api.insecure = false;
    config.heartbeat.interval = rng.millis(4_000, 25_000);
    config.heartbeat.timeout = config.heartbeat.interval.mul_f64(0.3 + 0.4 * rng.0.fraction());
    config.heartbeat.max_silence =
        config.heartbeat.interval + config.heartbeat.timeout + rng.millis(500, 5_000);
    config.websocket.compression = rng.chance(0.5);
    config.auth.hmac_secret = Some(AUTH_SECRET.into());
    config.auth.require_exp = false;
    config.client.insecure = true;
    // Connections that vanished count until they are found out.
    config.client.max_connections_per_user = 0;
    config.client.max_outbox_bytes = rng.between(48, 256) as usize * 1024;
    config.client.write_timeout = rng.millis(3_000, 20_000);
    config.client.max_recovery_publications = rng.between(5, 300) as usize;
    config.event_stream.retry = rng.millis(300, 2_000);
    let mut plain = Dice(rng.0.fork("plain"));
    plain_settings(&mut plain, &mut config);
    if rng.chance(0.8) {
        config.events.endpoint = Some("http://application.test/events".into());
        config.events.secret = Some(EVENTS_SECRET.into());
        if rng.chance(0.3) {
            config.events.types = vec![EventType::Connected, EventType::Disconnected];
        }
        config.events.timeout = rng.millis(500, 5_000);
        config.events.max_backoff = rng.millis(200, 4_000);
        config.events.max_delay = rng.millis(0, 100);
        config.events.max_batch = rng.between(1, 100) as usize;
        config.events.max_disk_bytes = EVENTS_DISK_BYTES as usize;
        config.events.vacated_delay = rng.millis(0, 5_000);
    }
    if rng.chance(0.4) {
        for name in ["connect", "subscribe", "publish"] {
            let number = WEBHOOKS.iter().position(|known| *known == name).expect("there is such a webhook");
            let webhook = &mut config.default_webhooks[number];
            webhook.endpoint = Some(format!("http://application.test/{name}"));
            webhook.timeout = rng.millis(200, 1_000);
        }
    }
    let stomp = SocketAddr::from(([0, 0, 0, 0], STOMP_PORT));
    config.listeners.push(Listener::new("stomp", stomp, Protocol::Stomp));
    let queue = &mut config.queues.options;
    (queue.allow_send_for_client, queue.allow_send_for_anonymous) = (true, true);
    (queue.allow_consume_for_client, queue.allow_consume_for_anonymous) = (true, true);
    // A message that breaks its connections is worth as much as any other.
    queue.max_deliveries = 0;
    config.queues.store.max_segment_bytes = QUEUES_DISK_BYTES / 16;
    let has_webhooks = config.has_connect_webhook();
    let asked = if has_webhooks { DEFAULT_WEBHOOK } else { "" };
    let history = ChannelOptions {
        presence: true,
        history_size: rng.between(20, 300) as usize,
        history_ttl: rng.millis(45_000, 300_000),
        force_recovery: true,
        force_positioning: true,
        allowed_delta_types: vec![DELTA_TYPE.into()],
        delta_publish: true,
        allow_tags_filter: true,
        ..ChannelOptions::default()
    };
    let last = ChannelOptions { force_recovery_mode: RecoveryMode::Cache, ..history.clone() };
    let tiny =
        ChannelOptions { history_size: rng.between(1, 12) as usize, presence: false, ..history.clone() };
    let room = ChannelOptions {
        join_leave: true,
        force_push_join_leave: true,
        publish_webhook: asked.into(),
        ..history.clone()
    };
    let list = ChannelOptions { subscribe_webhook: asked.into(), ..history };
    let free = ChannelOptions { presence: true, join_leave: true, ..ChannelOptions::default() };
    let named = [("room", room), ("list", list), ("tiny", tiny), ("last", last), ("free", free)];
    config.namespaces = named.into_iter().map(|(name, options)| (name.to_owned(), options)).collect();
    config
}

/// What concerns the plain dialect.
fn plain_settings(rng: &mut Dice, config: &mut Config) {
    let mut packets = Listener::new("packets", SocketAddr::from(([0, 0, 0, 0], PACKET_PORT)), Protocol::Tcp);
    packets.first_packet = FirstPacket::Json;
    packets.ping_packet = PING_PACKET.into();
    config.listeners.push(packets);
    for listener in &mut config.listeners {
        listener.heartbeat_messages = vec![BEAT.into()];
        listener.heartbeat_answer = BEAT_ANSWER.into();
        listener.ping_interval = config.heartbeat.interval;
        listener.idle_timeout = config.heartbeat.max_silence;
    }
    let rules = &mut config.plain;
    rules.grace = if rng.chance(0.9) { rng.millis(2_000, 20_000) } else { Duration::ZERO };
    if rng.chance(0.25) {
        rules.second_connection = SecondConnection::Refuse;
    }
    rules.max_away_bytes = rng.between(0, 20) as usize * 1024;
    rules.max_waiting_messages = rng.between(2, 64) as usize;
    rules.retry_for = rng.millis(4_000, 20_000);
    if rng.chance(0.8) {
        for name in ["open", "message", "close"] {
            let number = WEBHOOKS.iter().position(|known| *known == name).expect("there is such a webhook");
            let webhook = &mut config.default_webhooks[number];
            webhook.endpoint = Some(format!("http://application.test/{name}"));
            webhook.timeout = rng.millis(300, 1_500);
        }
    }
}

/// A generator with the draws that a plan needs.
pub struct Dice(pub Rng);

impl Dice {
    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.0.bits() % end as u64) as usize
    }

    /// A number between both, which may come.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.0.bits() % (most - least + 1)
    }

    /// A span between both.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    /// True in this share of the cases (0.0 to 1.0).
    pub fn chance(&mut self, share: f64) -> bool {
        self.0.fraction() < share
    }
}
