//! Brings a process up and down: listeners, threads, hand-over of sockets, drain.
//!
//! Threads: one a shard, one for the HTTP API and everything else that is not hot, one that waits for the disk for
//! revoked tokens, one that keeps queues, and, where there are any, one each that writes to the disk the events that the backend is told of
//! and the histories that outlive the process. The listeners are watched by the first shard's thread, whose turns are
//! short: a socket that stays there crosses no thread.
//! [`Server::start`] gives each its thread; [`Server::assemble`] leaves it to the caller who runs them, which is
//! how a simulator runs several servers in one.
//! What must stay true: a ready listener is emptied before other work goes on, each socket goes to the shard
//! with the fewest, when descriptors run out accepting pauses rather than spins, and requests to the API
//! are begun in the order in which they came (one thread, first come first served), whichever connection
//! they came on.

mod certificates;

pub use certificates::Certificates;

use crate::api;
use crate::auth::Verifier;
use crate::broker::store::{self, Writer};
use crate::broker::{Broker, Channels, MemoryBroker, Outlets};
use crate::config::{self, Config, Protocol};
use crate::delivery::Mailbox;
use crate::env::Env;
use crate::env::net::tls::Acceptor;
use crate::env::net::{Accepted, Listener, is_out_of_resources};
use crate::errands::{Errands, Job};
use crate::events::{self, Courier};
use crate::journal::DataDir;
use crate::node::control::Switchboard;
use crate::node::limits::{Full, Place};
use crate::node::rate::Rate;
use crate::node::revocation::{Keeper, Revocations};
use crate::node::{Control, Node, Parts};
use crate::queue;
use crate::shard::{Mail, Shard};
use crate::transport::forwarded;
use crate::transport::front_door::{self, FrontDoor, Newcomer, Refused};
use crate::transport::listening::Listening;
use crate::transport::stomp;
use longwire_protocol::http::AllowedOrigins;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::{Builder, LocalOptions, Runtime};
use tokio::sync::{Notify, mpsc};

/// Deliveries, or orders, that may wait for a shard before publishers wait.
const MAILBOX_LETTERS: usize = 1024;

/// How long accepting rests when connections come too fast.
const ACCEPT_PAUSE: Duration = Duration::from_millis(5);

/// Pause after descriptors or memory ran out.
const OUT_OF_RESOURCES_PAUSE: Duration = Duration::from_millis(50);

/// How often a draining server looks whether everybody has left.
const DRAIN_POLL: Duration = Duration::from_millis(20);

/// How often the use of memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// How often what is past its time is dropped.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    node: Arc<Node>,
    addresses: Vec<SocketAddr>,
    certificates: Arc<Certificates>,
    progress: Arc<Progress>,
    threads: Vec<JoinHandle<()>>,
}

/// What one thread of a server does.
pub struct Thread {
    /// The name of the thread.
    pub name: String,
    /// Begins it; called on the thread that polls the future, within a runtime that can spawn local tasks.
    pub begin: Box<dyn FnOnce() -> Work + Send>,
}

/// The work of one thread, which ends when the server stops.
pub type Work = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Clients are sent away, and none is taken; the backend's calls are, for it may need them to take what clients
    /// said last.
    Draining = 1,
    /// Nothing more is accepted.
    Closing = 2,
    /// All threads end.
    Stopped = 3,
}

/// How far a server has come; it only ever goes on. Who waits is woken in the order of waiting.
#[derive(Default)]
struct Progress {
    /// The last [`Stage`] that was reached; 0 while the server runs.
    stage: AtomicU8,
    changed: Notify,
}

impl Progress {
    fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits until the server has come to `wanted`, or further.
    async fn reached(self: Arc<Progress>, wanted: Stage) {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.is_at(wanted) {
                return;
            }
            changed.await;
        }
    }

    /// Whether the server has come to `wanted`, or further.
    fn is_at(&self, wanted: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) >= wanted as u8
    }

    /// The end of a connection that comes at this moment, unless it becomes a stream; and whether it may.
    fn of_newcomer(self: &Arc<Progress>) -> (bool, impl Future<Output = ()> + use<>) {
        let is_draining = self.is_at(Stage::Draining);
        let end = if is_draining { Stage::Closing } else { Stage::Draining };
        (is_draining, self.clone().reached(end))
    }
}

/// Runs a server until the process is told to end, then drains it; told again, it ends at once. Where there is TLS,
/// SIGHUP has certificates read again.
///
/// `on_start` is called with the listeners, whose addresses are those that are listened on.
///
/// # Errors
/// Those of [`Server::start`].
pub fn run(config: Config, is_demo: bool, on_start: impl FnOnce(&[config::Listener])) -> io::Result<()> {
    waiting_runtime()?.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anybody is told that it listens: who is told may end it at once.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Server::start(config, is_demo, Env::system())?;
        // Without TLS it ends the process, as it ends whatever a terminal that is closed has started.
        let mut hangup = match server.certificates.is_empty() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let listeners = server.listeners();
        for config::Listener { name, address, protocol, tls, .. } in &listeners {
            let (protocol, tls) = (protocol.as_str(), tls.is_some());
            tracing::info!(listener = name, protocol, tls, %address, "listening");
        }
        on_start(&listeners);
        let mut told = async || {
            loop {
                let hung_up = async {
                    match &mut hangup {
                        Some(hangup) => hangup.recv().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = terminate.recv() => return "SIGTERM",
                    _ = interrupt.recv() => return "SIGINT",
                    _ = hung_up => server.reload_certificates(),
                }
            }
        };
        let signal = told().await;
        let rules = &server.node.config.server;
        tracing::info!(signal, over = ?rules.drain_over, deadline = ?rules.drain_deadline, "draining");
        tokio::select! {
            () = server.drained() => tracing::info!("stopped"),
            signal = told() => tracing::warn!(signal, "told twice: stopped at once"),
        }
        Ok(())
    })
}

/// A runtime for a thread that only waits.
fn waiting_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl Server {
    /// Starts a server: with the broker of a single node, a thread for each shard and one more.
    ///
    /// # Errors
    /// An address that cannot be listened on, or a thread or runtime that the system refuses.
    pub fn start(config: Config, is_demo: bool, env: Env) -> io::Result<Server> {
        let (clock, rng) = (env.clock, env.rng.fork("broker"));
        let broker = |outlets, channels| -> Box<dyn Broker> {
            Box::new(MemoryBroker::of(channels, outlets, clock, rng))
        };
        let (mut server, threads, bound) = Server::assemble(config, is_demo, env, broker)?;
        let mut threads = threads.into_iter();
        // The others begin when it is sure that there is a server: what an earlier one left on the disk, and owes the
        // backend, is not dealt with by a process that cannot listen.
        server.threads.push(spawn(threads.next().expect("there is a shard"))?);
        server.addresses = bound.recv().map_err(|_| io::Error::other("the first shard ended"))??;
        for thread in threads {
            server.threads.push(spawn(thread)?);
        }
        Ok(server)
    }

    /// Puts a server together without starting its threads: the caller runs them. The receiver is told the
    /// addresses once the first thread, which is the first shard's, listens.
    ///
    /// # Errors
    /// A configuration that does not work.
    pub fn assemble(
        config: Config,
        is_demo: bool,
        env: Env,
        broker: impl FnOnce(Outlets, Arc<Channels>) -> Box<dyn Broker>,
    ) -> io::Result<(Server, Vec<Thread>, std::sync::mpsc::Receiver<Bound>)> {
        let allowed_origins =
            AllowedOrigins::parse(&config.server.allowed_origins).map_err(io::Error::other)?;
        let certificates = Arc::new(Certificates::load(&config.listeners)?);
        let mut verifier = Verifier::from_config(&config).map_err(io::Error::other)?;
        let clerk = verifier.take_clerk();
        let mails: Vec<Mail> = (0..config.server.shards)
            .map(|_| Mail {
                deliveries: Arc::new(Mailbox::new(MAILBOX_LETTERS)),
                control: Arc::new(Mailbox::new(MAILBOX_LETTERS)),
                queues: Arc::new(Mailbox::new(MAILBOX_LETTERS)),
            })
            .collect();
        let outlets = mails.iter().map(|mail| mail.deliveries.clone()).collect();
        let (errands, jobs) = Errands::new();
        let switchboard = Switchboard::new(mails.iter().map(|mail| mail.control.clone()).collect());
        let (salt, now) = (env.rng.fork("revocations").bits() as u32, env.clock.unix_seconds());
        let data_dir = DataDir::new(env.disk.clone(), &config.server.data_dir);
        let (revocations, keeper) =
            Revocations::load(data_dir.clone(), salt, now).map_err(io::Error::other)?;
        let (channels, writer) = store::open(&config, &env, &data_dir)?;
        let to_sessions = mails.iter().map(|mail| mail.queues.clone()).collect();
        let (queues, queue_keeper) = queue::open(&config, &env, data_dir.clone(), to_sessions)?;
        let (events, courier) = events::prepare(&config, &env, data_dir, errands.clone())?;
        let node = {
            let broker = broker(outlets, channels);
            let verifier = verifier.fetching(&env, &errands);
            let parts = Parts {
                verifier,
                broker,
                switchboard,
                errands,
                allowed_origins,
                events,
                revocations,
                queues,
            };
            Arc::new(Node::new(config, is_demo, env, parts))
        };
        let progress = Arc::<Progress>::default();
        let (to_http, from_shards) = mpsc::unbounded_channel();
        let listening = node.config.listeners.iter().map(Listening::new).collect();
        let stomp = stomp::Terms::new(&node.config);
        let door = Arc::new(FrontDoor { to_http, listening, stomp });
        let (mut arriving, mut lanes) = (Vec::new(), Vec::new());
        for _ in &mails {
            let (newcomers, receiver) = mpsc::unbounded_channel();
            arriving.push(receiver);
            lanes.push(Lane { newcomers, load: Arc::default() });
        }
        let lanes: Arc<[Lane]> = lanes.into();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let acceptors = node.config.listeners.iter().map(|listener| certificates.acceptor(listener));
        let acceptors: Vec<Option<Acceptor>> = acceptors.collect::<io::Result<_>>()?;
        let mut listening = Some(ToListen { bound, lanes: lanes.clone(), acceptors });
        let mut threads = Vec::new();
        for (index, (mail, arriving)) in mails.into_iter().zip(arriving).enumerate() {
            let (node, door, progress) = (node.clone(), door.clone(), progress.clone());
            let work = run_shard(node, index, mail, door, arriving, listening.take(), progress);
            threads.push(Thread::new(format!("shard {index}"), work));
        }
        threads.push(Thread::new(
            "api".into(),
            run_api(node.clone(), from_shards, jobs, lanes, progress.clone()),
        ));
        threads.push(Thread::new(
            "revocations".into(),
            run_keeper(node.clone(), keeper, certificates.clone(), progress.clone()),
        ));
        let work = run_queues(queue_keeper, progress.clone());
        threads.push(Thread::new("queues".into(), work));
        if let Some(clerk) = clerk {
            let progress = progress.clone();
            let work = async move || {
                tokio::select! {
                    biased;
                    () = progress.reached(Stage::Stopped) => {}
                    () = clerk.run() => {}
                }
            };
            threads.push(Thread::new("passcodes".into(), work));
        }
        if let Some(writer) = writer {
            threads.push(Thread::new("history".into(), run_writer(writer, progress.clone())));
        }
        if let Some(courier) = courier {
            let work = run_courier(node.clone(), courier, progress.clone());
            threads.push(Thread::new("events".into(), work));
        }
        let server = Server { node, addresses: Vec::new(), certificates, progress, threads: Vec::new() };
        Ok((server, threads, is_bound))
    }

    /// The addresses that are listened on, in the order of `Config::listeners`.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The listeners, with the addresses that are listened on.
    pub fn listeners(&self) -> Vec<config::Listener> {
        let listeners = self.node.config.listeners.iter().zip(&self.addresses);
        listeners.map(|(listener, &address)| config::Listener { address, ..listener.clone() }).collect()
    }

    /// Has the files of certificates read again, soon and elsewhere. Connections that are open keep theirs.
    pub fn reload_certificates(&self) {
        self.certificates.ask();
    }

    /// The node that is served.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Takes no more clients, tells every one to come back later, and waits until all are gone or the deadline
    /// has come; then stops.
    ///
    /// # Errors
    /// The system refuses a runtime to wait in.
    pub fn drain(self) -> io::Result<()> {
        waiting_runtime()?.block_on(self.drained());
        Ok(())
    }

    /// Takes no more clients, tells every one to come back later, and waits until all are gone or the deadline
    /// has come; calls are served until the last is. Dropped after that, the server stops.
    pub async fn drained(&self) {
        let config = &self.node.config.server;
        self.progress.advance(Stage::Draining);
        let (node, clock) = (&self.node, self.node.env.clock);
        node.order(Control::Drain { over: config.drain_over }).await;
        node.events.drain();
        let gone = async {
            // Whoever watches a channel elsewhere must hear of the leaves, too, and the backend of what clients said
            // last and that they are gone.
            let is_leaving = || {
                node.counters.iter().any(|shard| {
                    let connections: u64 = shard.connections.iter().flatten().map(|count| count.get()).sum();
                    connections + shard.leaving.get() + shard.telling.get() + shard.sessions_away.get() > 0
                })
            };
            // Each connection's end is an event.
            while is_leaving() || !node.events.is_settled() {
                clock.sleep(DRAIN_POLL).await;
            }
            self.progress.advance(Stage::Closing);
            while node.admissions.open() > 0 || is_leaving() || !node.events.is_settled() {
                clock.sleep(DRAIN_POLL).await;
            }
        };
        if clock.timeout(config.drain_deadline, gone).await.is_none() {
            let events = node.events.counters().map_or(0, |counters| counters.pending.get());
            let connections = node.admissions.open();
            tracing::warn!(connections, events, "the drain's deadline cuts what is left");
        }
    }
}

impl Thread {
    fn new(name: String, work: impl AsyncFnOnce() + Send + 'static) -> Thread {
        Thread { name, begin: Box::new(|| Box::pin(async move { work().await })) }
    }
}

/// Runs a thread of the server in a thread of the system.
fn spawn(thread: Thread) -> io::Result<JoinHandle<()>> {
    let Thread { name, begin } = thread;
    thread::Builder::new().name(name.clone()).spawn(move || {
        let _fate = SharedFate;
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime.block_on(async { begin().await }),
            Err(error) => tracing::error!(%error, thread = name, "the system refuses a runtime"),
        }
    })
}

/// The work of a shard's thread; the first one's also listens and accepts.
fn run_shard(
    node: Arc<Node>,
    index: usize,
    mail: Mail,
    door: Arc<FrontDoor>,
    arriving: mpsc::UnboundedReceiver<Newcomer>,
    listening: Option<ToListen>,
    progress: Arc<Progress>,
) -> impl AsyncFnOnce() + Send {
    async move || {
        let shard = Shard::new(node.clone(), index, mail);
        tokio::task::spawn_local(receive(shard.clone(), door, arriving, progress.clone()));
        if let Some(listening) = listening {
            listen(&node, listening, &progress);
        }
        tokio::select! {
            biased;
            () = progress.reached(Stage::Stopped) => {}
            () = shard.run() => {}
        }
    }
}

/// The work of the thread that serves the HTTP API and looks after what is slow.
fn run_api(
    node: Arc<Node>,
    from_shards: mpsc::UnboundedReceiver<Newcomer>,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    lanes: Arc<[Lane]>,
    progress: Arc<Progress>,
) -> impl AsyncFnOnce() + Send {
    async move || {
        tokio::task::spawn_local(serve_http(node.clone(), from_shards, lanes, progress.clone()));
        tokio::task::spawn_local(watch_memory(node.clone()));
        tokio::task::spawn_local(async move {
            while let Some(job) = jobs.recv().await {
                tokio::task::spawn_local(job);
            }
        });
        tokio::task::spawn_local(async move {
            loop {
                node.env.clock.sleep(EXPIRE_INTERVAL).await;
                node.expire();
            }
        });
        progress.reached(Stage::Stopped).await;
    }
}

/// The work of the thread that takes events to the disk and the backend.
fn run_courier(node: Arc<Node>, mut courier: Courier, progress: Arc<Progress>) -> impl AsyncFnOnce() + Send {
    async move || {
        let id = node.id.to_string();
        tokio::select! {
            biased;
            () = progress.reached(Stage::Stopped) => {}
            () = courier.run(&id) => {}
        }
        courier.finish();
    }
}

/// The work of the thread that waits for the disk.
fn run_keeper(
    node: Arc<Node>,
    keeper: Keeper,
    certificates: Arc<Certificates>,
    progress: Arc<Progress>,
) -> impl AsyncFnOnce() + Send {
    async move || {
        tokio::select! {
            biased;
            () = progress.reached(Stage::Stopped) => {}
            () = keeper.run() => {}
            () = certificates.watch(node.env.clock) => {}
        }
    }
}

/// The work of the thread that keeps queues: it takes what comes until all others end, and then ends what it has begun.
fn run_queues(keeper: queue::Keeper, progress: Arc<Progress>) -> impl AsyncFnOnce() + Send {
    async move || keeper.run(progress.reached(Stage::Stopped)).await
}

/// The work of the thread that writes histories to the disk.
fn run_writer(mut writer: Writer, progress: Arc<Progress>) -> impl AsyncFnOnce() + Send {
    async move || {
        tokio::select! {
            biased;
            () = progress.reached(Stage::Stopped) => {}
            () = writer.run() => {}
        }
        writer.finish();
    }
}

/// Ends the process if its thread panics: without one of its threads a server would accept connections that
/// nobody serves, and a supervisor would never know.
struct SharedFate;

impl Drop for SharedFate {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a thread of the server panicked; the process ends");
            std::process::abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.progress.advance(Stage::Stopped);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the server panicked");
            }
        }
    }
}

/// Looks every second how much memory is left, where there is a limit.
async fn watch_memory(node: Arc<Node>) {
    if node.env.memory.used_percent().is_none() {
        return;
    }
    loop {
        node.env.clock.sleep(MEMORY_INTERVAL).await;
        // A look may fail, for instance while descriptors are short; the next one counts.
        if node.env.memory.used_percent().is_some_and(|percent| node.admissions.note_memory(percent)) {
            node.order(Control::Shed).await;
        }
    }
}

/// The way to one shard.
struct Lane {
    newcomers: mpsc::UnboundedSender<Newcomer>,
    /// Connections that were sent this way and still live.
    load: Arc<AtomicUsize>,
}

/// Sends a connection to the shard with the fewest.
fn dispatch(lanes: &[Lane], mut newcomer: Newcomer) {
    let Some(lane) = emptiest(lanes) else { return };
    newcomer.place.weigh_on(lane.load.clone());
    // An error means that the server is stopping; the socket closes.
    let _ = lane.newcomers.send(newcomer);
}

fn emptiest(lanes: &[Lane]) -> Option<&Lane> {
    lanes.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed))
}

/// The addresses that are listened on, or why one is not.
pub type Bound = io::Result<Vec<SocketAddr>>;

/// What listening needs beside the configuration.
struct ToListen {
    /// Who waits for it.
    bound: std::sync::mpsc::Sender<Bound>,
    lanes: Arc<[Lane]>,
    /// What makes connections those of TLS, by the listener.
    acceptors: Vec<Option<Acceptor>>,
}

/// Listens on all addresses, until the server drains.
fn listen(node: &Arc<Node>, listening: ToListen, progress: &Arc<Progress>) {
    let ToListen { bound, lanes, acceptors } = listening;
    // A beat that is not even acknowledged within the heartbeat's limit was sent to nobody. On a link that
    // cannot answer (SSE) this is the only sign of death.
    let user_timeout = node.config.heartbeat.timeout;
    let rules = node.config.listeners.iter().zip(acceptors);
    let listeners: io::Result<Vec<Listener>> = rules
        .map(|(rules, acceptor)| match listen_on(node, rules, user_timeout) {
            Ok(listener) => Ok(match acceptor {
                Some(acceptor) => listener.with_tls(acceptor),
                None => listener,
            }),
            Err(error) => Err(io::Error::new(error.kind(), format!("listener {:?}: {error}", rules.name))),
        })
        .collect();
    let answer = listeners.map(|listeners| {
        let addresses = listeners.iter().map(Listener::address).collect();
        for (index, listener) in (0..).zip(listeners) {
            let accepting = accept(node.clone(), listener, index, lanes.clone());
            let end = match node.config.listeners[usize::from(index)].protocol {
                Protocol::Http => Stage::Closing,
                Protocol::Tcp | Protocol::Stomp => Stage::Draining,
            };
            let closing = progress.clone().reached(end);
            tokio::task::spawn_local(async move {
                tokio::select! {
                    biased;
                    () = closing => {}
                    () = accepting => {}
                }
            });
        }
        addresses
    });
    // The one who waits for it cannot be gone.
    let _ = bound.send(answer);
}

/// Listens on one address. A demo goes without its port of STOMP if another broker has it.
fn listen_on(node: &Node, rules: &config::Listener, user_timeout: Duration) -> io::Result<Listener> {
    let net = &node.env.net;
    match net.listen(rules.address, user_timeout) {
        Err(error)
            if node.is_demo
                && rules.protocol == Protocol::Stomp
                && error.kind() == io::ErrorKind::AddrInUse =>
        {
            let listener = net.listen(SocketAddr::new(rules.address.ip(), 0), user_timeout)?;
            let (taken, instead) = (rules.address, listener.address());
            tracing::warn!(%taken, %instead, "the port of STOMP is taken, probably by another broker");
            Ok(listener)
        }
        other => other,
    }
}

/// Accepts what comes by the listener of this index in `Config::listeners`.
async fn accept(node: Arc<Node>, listener: Listener, index: u16, lanes: Arc<[Lane]>) {
    let (clock, rules) = (node.env.clock, &node.config.server);
    let protocol = node.config.listeners[usize::from(index)].protocol;
    let mut rate = Rate::default();
    loop {
        // What comes too fast waits in the listener's backlog: it is delayed, not refused.
        while rules.accepts_per_second > 0
            && !rate.allow(clock.now() - clock.start(), rules.accepts_per_second, rules.accept_burst)
        {
            clock.sleep(ACCEPT_PAUSE).await;
        }
        match listener.accept().await {
            Ok(socket) => match admit(&node, &socket) {
                Ok(place) => {
                    dispatch(&lanes, Newcomer { socket, prefix: Vec::new(), place, listener: index });
                }
                Err(full) => turn_away(socket, full, protocol),
            },
            Err(error) if is_out_of_resources(&error) => {
                tracing::error!(%error, "cannot accept connections; trying again shortly");
                node.env.clock.sleep(OUT_OF_RESOURCES_PAUSE).await;
            }
            // The peer was gone before it was accepted.
            Err(error) => tracing::debug!(%error, "accept failed"),
        }
    }
}

/// Finds a place for a connection. A trusted proxy speaks for many: whom is known once it has asked.
fn admit(node: &Node, socket: &Accepted) -> Result<Place, Full> {
    let mut place = node.admissions.admit()?;
    let ip = socket.peer.ip();
    if !forwarded::is_trusted(ip, &node.config.server.trusted_proxies) {
        place.count_address(ip)?;
    }
    Ok(place)
}

/// Tells a connection that there is no place for it, without waiting.
fn turn_away(socket: Accepted, full: Full, protocol: Protocol) {
    let peer = socket.peer;
    let what = match full {
        Full::Total => "this server has as many connections as it may",
        Full::Address => "there are too many connections from this address",
    };
    match protocol {
        Protocol::Http => socket.turn_away(&Refused::new(503, what).response),
        // Nothing can be said in a packet whose form is the application's.
        Protocol::Tcp => drop(socket),
        Protocol::Stomp => socket.turn_away(&stomp::refusal(what)),
    }
    tracing::warn!(%peer, what, "connection refused");
}

/// Takes what the acceptor sends to a shard.
async fn receive(
    shard: Rc<Shard>,
    door: Arc<FrontDoor>,
    mut arriving: mpsc::UnboundedReceiver<Newcomer>,
    progress: Arc<Progress>,
) {
    {
        // Not by the shard itself, which would keep itself alive by that.
        let (weak, door, progress) = (Rc::downgrade(&shard), door.clone(), progress.clone());
        shard.set_returning(move |link, answered| {
            let Some(shard) = weak.upgrade() else { return };
            let draining = progress.clone().reached(Stage::Draining);
            let again = front_door::serve_again(shard, door.clone(), link, answered, draining);
            tokio::task::spawn_local(again);
        });
    }
    while let Some(newcomer) = arriving.recv().await {
        let (is_draining, ending) = progress.of_newcomer();
        tokio::task::spawn_local(front_door::serve(
            shard.clone(),
            door.clone(),
            newcomer,
            is_draining,
            ending,
        ));
    }
}

/// Serves every request that is no stream, and sends back to the shards what turns out to be one.
async fn serve_http(
    node: Arc<Node>,
    mut guests: mpsc::UnboundedReceiver<Newcomer>,
    lanes: Arc<[Lane]>,
    progress: Arc<Progress>,
) {
    while let Some(Newcomer { socket, prefix, place, listener }) = guests.recv().await {
        let (node, lanes) = (node.clone(), lanes.clone());
        let (_, ending) = progress.of_newcomer();
        tokio::task::spawn_local(async move {
            let peer = socket.peer;
            let Ok(stream) = socket.into_stream() else { return };
            let is_streaming = front_door::is_streaming;
            let served = api::http::serve_connection(node, stream, prefix.into(), peer, is_streaming, ending);
            if let api::http::Outcome::TakeOver { stream, read } = served.await
                && let Ok(socket) = stream.into_accepted(peer)
            {
                dispatch(&lanes, Newcomer { socket, prefix: read, place, listener });
            }
        });
    }
}
