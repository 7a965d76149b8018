//! Brings a process up and down: listeners, threads, hand-over of sockets, drain.
//!
//! Threads: one a shard, one for the HTTP API and everything else that is not hot, one that waits for the disk for
//! revoked tokens, and, where the backend is told of events, one that writes them to the disk. The listeners are
//! watched by the first shard's thread, whose turns are short: a socket that stays there crosses no thread.
//! [`Server::start`] gives each its thread; [`Server::assemble`] leaves it to the caller who runs them, which is
//! how a simulator runs several servers in one.
//! What must stay true: a ready listener is emptied before other work goes on, each socket goes to the shard
//! with the fewest, when descriptors run out accepting pauses rather than spins, and requests to the API
//! are begun in the order in which they came (one thread, first come first served), whichever connection
//! they came on.

use crate::api;
use crate::auth::Verifier;
use crate::broker::{Broker, MemoryBroker, Outlets};
use crate::config::Config;
use crate::delivery::Mailbox;
use crate::env::Env;
use crate::env::net::{Accepted, Listener, is_out_of_resources};
use crate::errands::{Errands, Job};
use crate::events::{self, Courier};
use crate::journal::DataDir;
use crate::node::control::Switchboard;
use crate::node::limits::{Full, Place};
use crate::node::rate::Rate;
use crate::node::revocation::{Keeper, Revocations};
use crate::node::{Control, Node, Parts};
use crate::shard::{Mail, Shard};
use crate::transport::forwarded;
use crate::transport::front_door::{self, FrontDoor, Newcomer, Refused};
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
    /// Nothing more is accepted.
    Draining = 1,
    /// All threads end.
    Stopped = 2,
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
            if self.stage.load(Ordering::SeqCst) >= wanted as u8 {
                return;
            }
            changed.await;
        }
    }
}

/// Runs a server until the process is told to end, then drains it; told again, it ends at once.
///
/// `on_start` is called with the addresses that are listened on.
///
/// # Errors
/// Those of [`Server::start`].
pub fn run(config: Config, is_demo: bool, on_start: impl FnOnce(&[SocketAddr])) -> io::Result<()> {
    waiting_runtime()?.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // Before anybody is told that it listens: who is told may end it at once.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let server = Server::start(config, is_demo, Env::system())?;
        for address in server.addresses() {
            tracing::info!(%address, "listening");
        }
        on_start(server.addresses());
        let mut told = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
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
        let broker = |outlets| -> Box<dyn Broker> { Box::new(MemoryBroker::new(outlets, clock, rng)) };
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
        broker: impl FnOnce(Outlets) -> Box<dyn Broker>,
    ) -> io::Result<(Server, Vec<Thread>, std::sync::mpsc::Receiver<Bound>)> {
        let allowed_origins =
            AllowedOrigins::parse(&config.server.allowed_origins).map_err(io::Error::other)?;
        let verifier = Verifier::from_config(&config).map_err(io::Error::other)?;
        let mails: Vec<Mail> = (0..config.server.shards)
            .map(|_| Mail {
                deliveries: Arc::new(Mailbox::new(MAILBOX_LETTERS)),
                control: Arc::new(Mailbox::new(MAILBOX_LETTERS)),
            })
            .collect();
        let outlets = mails.iter().map(|mail| mail.deliveries.clone()).collect();
        let (errands, jobs) = Errands::new();
        let switchboard = Switchboard::new(mails.iter().map(|mail| mail.control.clone()).collect());
        let (salt, now) = (env.rng.fork("revocations").bits() as u32, env.clock.unix_seconds());
        let data_dir = DataDir::new(env.disk.clone(), &config.server.data_dir);
        let (revocations, keeper) =
            Revocations::load(data_dir.clone(), salt, now).map_err(io::Error::other)?;
        let (events, courier) = events::prepare(&config, &env, data_dir, errands.clone())?;
        let node = {
            let broker = broker(outlets);
            let verifier = verifier.fetching(&env, &errands);
            let parts =
                Parts { verifier, broker, switchboard, errands, allowed_origins, events, revocations };
            Arc::new(Node::new(config, is_demo, env, parts))
        };
        let progress = Arc::<Progress>::default();
        let (to_http, from_shards) = mpsc::unbounded_channel();
        let door = Arc::new(FrontDoor { to_http });
        let (mut arriving, mut lanes) = (Vec::new(), Vec::new());
        for _ in &mails {
            let (newcomers, receiver) = mpsc::unbounded_channel();
            arriving.push(receiver);
            lanes.push(Lane { newcomers, load: Arc::default() });
        }
        let lanes: Arc<[Lane]> = lanes.into();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let mut listening = Some((bound, lanes.clone()));
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
        threads.push(Thread::new("revocations".into(), run_keeper(keeper, progress.clone())));
        if let Some(courier) = courier {
            let work = run_courier(node.clone(), courier, progress.clone());
            threads.push(Thread::new("events".into(), work));
        }
        Ok((Server { node, addresses: Vec::new(), progress, threads: Vec::new() }, threads, is_bound))
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The node that is served.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Stops accepting, tells every client to come back later, and waits until all are gone or the deadline
    /// has come; then stops.
    ///
    /// # Errors
    /// The system refuses a runtime to wait in.
    pub fn drain(self) -> io::Result<()> {
        waiting_runtime()?.block_on(self.drained());
        Ok(())
    }

    /// Stops accepting, tells every client to come back later, and waits until all are gone or the deadline
    /// has come. Dropped after that, the server stops.
    pub async fn drained(&self) {
        let config = &self.node.config.server;
        self.progress.advance(Stage::Draining);
        let (node, clock) = (&self.node, self.node.env.clock);
        node.order(Control::Drain { over: config.drain_over }).await;
        node.events.drain();
        let gone = async {
            // Whoever watches a channel elsewhere must hear of the leaves, too.
            let is_leaving = || node.counters.iter().any(|shard| shard.leaving.get() > 0);
            while node.admissions.open() > 0 || is_leaving() {
                clock.sleep(DRAIN_POLL).await;
            }
            // Last, because each connection's end is an event.
            while !node.events.is_settled() {
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
    listening: Option<(std::sync::mpsc::Sender<Bound>, Arc<[Lane]>)>,
    progress: Arc<Progress>,
) -> impl AsyncFnOnce() + Send {
    async move || {
        let shard = Shard::new(node.clone(), index, mail);
        tokio::task::spawn_local(receive(shard.clone(), door, arriving, progress.clone()));
        if let Some((bound, lanes)) = listening {
            listen(&node, &bound, &lanes, &progress);
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
fn run_keeper(keeper: Keeper, progress: Arc<Progress>) -> impl AsyncFnOnce() + Send {
    async move || {
        tokio::select! {
            biased;
            () = progress.reached(Stage::Stopped) => {}
            () = keeper.run() => {}
        }
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

/// Listens on all addresses, until the server drains.
fn listen(
    node: &Arc<Node>,
    bound: &std::sync::mpsc::Sender<Bound>,
    lanes: &Arc<[Lane]>,
    progress: &Arc<Progress>,
) {
    // A beat that is not even acknowledged within the heartbeat's limit was sent to nobody. On a link that
    // cannot answer (SSE) this is the only sign of death.
    let user_timeout = node.config.heartbeat.timeout;
    let addresses = node.config.server.listen.iter();
    let listeners: io::Result<Vec<Listener>> =
        addresses.map(|address| node.env.net.listen(*address, user_timeout)).collect();
    let answer = listeners.map(|listeners| {
        let addresses = listeners.iter().map(Listener::address).collect();
        for listener in listeners {
            let accepting = accept(node.clone(), listener, lanes.clone());
            let draining = progress.clone().reached(Stage::Draining);
            tokio::task::spawn_local(async move {
                tokio::select! {
                    biased;
                    () = draining => {}
                    () = accepting => {}
                }
            });
        }
        addresses
    });
    // The one who waits for it cannot be gone.
    let _ = bound.send(answer);
}

async fn accept(node: Arc<Node>, listener: Listener, lanes: Arc<[Lane]>) {
    let (clock, rules) = (node.env.clock, &node.config.server);
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
                Ok(place) => dispatch(&lanes, Newcomer { socket, prefix: Vec::new(), place }),
                Err(full) => turn_away(socket, full),
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
fn turn_away(socket: Accepted, full: Full) {
    let peer = socket.peer;
    let what = match full {
        Full::Total => "this server has as many connections as it may",
        Full::Address => "there are too many connections from this address",
    };
    let refused = Refused::new(503, what);
    socket.turn_away(&refused.response);
    tracing::warn!(%peer, what, "connection refused");
}

/// Takes what the acceptor sends to a shard.
async fn receive(
    shard: Rc<Shard>,
    door: Arc<FrontDoor>,
    mut arriving: mpsc::UnboundedReceiver<Newcomer>,
    progress: Arc<Progress>,
) {
    while let Some(newcomer) = arriving.recv().await {
        let draining = progress.clone().reached(Stage::Draining);
        tokio::task::spawn_local(front_door::serve(shard.clone(), door.clone(), newcomer, draining));
    }
}

/// Serves every request that is no stream, and sends back to the shards what turns out to be one.
async fn serve_http(
    node: Arc<Node>,
    mut guests: mpsc::UnboundedReceiver<Newcomer>,
    lanes: Arc<[Lane]>,
    progress: Arc<Progress>,
) {
    while let Some(Newcomer { socket, prefix, place }) = guests.recv().await {
        let (node, lanes) = (node.clone(), lanes.clone());
        let draining = progress.clone().reached(Stage::Draining);
        tokio::task::spawn_local(async move {
            let peer = socket.peer;
            let Ok(stream) = socket.into_stream() else { return };
            let is_streaming = front_door::is_streaming;
            let served =
                api::http::serve_connection(node, stream, prefix.into(), peer, is_streaming, draining);
            if let api::http::Outcome::TakeOver { stream, read } = served.await
                && let Ok(socket) = stream.into_accepted(peer)
            {
                dispatch(&lanes, Newcomer { socket, prefix: read, place });
            }
        });
    }
}
