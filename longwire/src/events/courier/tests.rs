//! The courier against a disk that crashes and fails and a backend that refuses, in invented time.

use super::*;
use crate::env::disk::{FileBytes, Files};
use crate::env::http::{Caller, Calling as Call2};
use crate::env::{Disk, Memory, Net, Rng};
use crate::errands::Job;
use crate::events::Event;
use crate::events::event::{Client, Details, EventType};
use longwire_protocol::message::ClientId;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU16};
use tokio::sync::{mpsc, oneshot};

const SECRET: &str = "the secret of the backend, long enough";

/// A disk in memory that forgets upon a crash what was not synced, and fails when told to.
#[derive(Debug, Default)]
struct MemoryDisk {
    files: Mutex<BTreeMap<PathBuf, Arc<Contents>>>,
    is_failing: Arc<AtomicBool>,
    /// So many syncs of directories fail.
    failing_dir_syncs: AtomicU16,
}

#[derive(Debug, Default)]
struct Contents {
    bytes: Mutex<Vec<u8>>,
    synced: Mutex<Vec<u8>>,
    is_failing: Arc<AtomicBool>,
    is_locked: AtomicBool,
}

#[derive(Debug)]
struct Opened {
    contents: Arc<Contents>,
    holds_lock: AtomicBool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if *self.holds_lock.get_mut() {
            self.contents.is_locked.store(false, Ordering::SeqCst);
        }
    }
}

impl Contents {
    fn check(&self) -> io::Result<()> {
        if self.is_failing.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl MemoryDisk {
    /// Loses what was not synced. Names are safe at once: that they are synced is the journal's own test.
    fn crash(&self) {
        for contents in self.files.lock().unwrap().values() {
            let synced = contents.synced.lock().unwrap().clone();
            *contents.bytes.lock().unwrap() = synced;
        }
    }

    fn bytes(&self) -> u64 {
        self.files.lock().unwrap().values().map(|contents| contents.bytes.lock().unwrap().len() as u64).sum()
    }

    fn has_synced(&self, text: &str) -> bool {
        let has = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        self.files.lock().unwrap().values().any(|contents| has(&contents.synced.lock().unwrap()))
    }

    fn spoil(&self) {
        let files = self.files.lock().unwrap();
        let contents = files.values().next().expect("there is a segment");
        contents.bytes.lock().unwrap()[60] ^= 0xff;
    }
}

impl Files for MemoryDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>> {
        let mut files = self.files.lock().unwrap();
        if !create && !files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let fresh = || Arc::new(Contents { is_failing: self.is_failing.clone(), ..Contents::default() });
        let contents = files.entry(path.to_path_buf()).or_insert_with(fresh).clone();
        Ok(Box::new(Opened { contents, holds_lock: AtomicBool::new(false) }))
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let files = self.files.lock().unwrap();
        Ok(files
            .keys()
            .filter_map(|file| Some(file.strip_prefix(path).ok()?.as_os_str().to_owned()))
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock().unwrap();
        let contents = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_path_buf(), contents);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.files.lock().unwrap().remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let one_less = |left: u16| left.checked_sub(1);
        match self.failing_dir_syncs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
            Ok(_) => Err(io::Error::other("the names are not safe")),
            Err(_) => Ok(()),
        }
    }
}

impl FileBytes for Opened {
    fn try_lock(&self) -> io::Result<()> {
        if self.contents.is_locked.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.holds_lock.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.bytes.lock().unwrap().len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let whole = self.contents.bytes.lock().unwrap();
        let rest = &whole[whole.len().min(offset as usize)..];
        let len = rest.len().min(bytes.len());
        bytes[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.contents.check()?;
        let mut whole = self.contents.bytes.lock().unwrap();
        let end = offset as usize + bytes.len();
        if whole.len() < end {
            whole.resize(end, 0);
        }
        whole[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.contents.check()?;
        let bytes = self.contents.bytes.lock().unwrap().clone();
        *self.contents.synced.lock().unwrap() = bytes;
        Ok(())
    }
}

/// A backend that answers with a status and remembers what it took.
#[derive(Default)]
struct Backend {
    /// 0 for no answer at all.
    status: AtomicU16,
    taken: Mutex<Vec<Value>>,
    calls: Mutex<Vec<Call>>,
    disk: Arc<MemoryDisk>,
}

impl Caller for Backend {
    fn call(&self, call: Call) -> Call2 {
        let body: Value = serde_json::from_slice(&call.body).expect("the body is JSON");
        let events = body["events"].as_array().expect("events").clone();
        // Of a large disk it would take too long.
        for event in events.iter().filter(|_| self.disk.bytes() < 10_000) {
            let id = event["id"].as_str().expect("an id");
            assert!(self.disk.has_synced(id), "{id} is sent before it is durable");
        }
        self.calls.lock().unwrap().push(call.clone());
        let status = self.status.load(Ordering::SeqCst);
        if (200..300).contains(&status) {
            self.taken.lock().unwrap().extend(events);
        }
        Box::pin(async move {
            match status {
                0 => Err(HttpError::Unreachable("nobody listens".into())),
                status => Ok(Answer { status, body: "ignored".into() }),
            }
        })
    }
}

/// What outlives the processes of a test.
struct World {
    config: Config,
    disk: Arc<MemoryDisk>,
    backend: Arc<Backend>,
    clock: Clock,
    seqs: Mutex<BTreeMap<u128, u32>>,
}

/// A courier that runs.
struct Process {
    events: Events,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    jobs: tokio::task::JoinHandle<()>,
}

impl World {
    fn new(change: impl FnOnce(&mut config::Events)) -> World {
        let mut config = Config::default();
        config.server.data_dir = "data".into();
        config.events.endpoint = Some("http://backend.test/events".into());
        change(&mut config.events);
        let disk = Arc::<MemoryDisk>::default();
        let backend = Backend { status: AtomicU16::new(204), disk: disk.clone(), ..Backend::default() };
        let clock = Clock::starting_at(Duration::from_secs(1_700_000_000));
        World { config, disk, backend: Arc::new(backend), clock, seqs: Mutex::default() }
    }

    fn try_start(&self) -> io::Result<Process> {
        let env = Env {
            clock: self.clock,
            net: Net::system(),
            disk: Disk::of(self.disk.clone()),
            http: Http::of(self.backend.clone()),
            memory: Memory::of(|| None),
            rng: Rng::from_seed(1),
        };
        let data_dir = DataDir::new(env.disk.clone(), &self.config.server.data_dir);
        let (errands, mut jobs): (_, mpsc::UnboundedReceiver<Job>) = Errands::new();
        let (events, courier) = prepare(&self.config, &env, data_dir, errands)?;
        let mut courier = courier.expect("events are on");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stopped => {}
                () = courier.run("node") => {}
            }
            courier.finish();
        });
        let jobs = tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                job.await;
            }
        });
        Ok(Process { events, stop: Some(stop), task, jobs })
    }

    fn start(&self) -> Process {
        self.try_start().expect("it starts")
    }

    fn answer(&self, status: u16) {
        self.backend.status.store(status, Ordering::SeqCst);
    }

    /// Records an event of a client as a shard does.
    fn say(&self, process: &Process, kind: EventType, client: u128, channel: &str) -> bool {
        let mut seqs = self.seqs.lock().unwrap();
        let seq = seqs.entry(client).or_default();
        *seq += 1;
        let about = Client {
            id: ClientId(client),
            seq: *seq,
            user: "ann".into(),
            transport: "websocket",
            dialect: "centrifuge",
            protocol: "json",
        };
        let is_recorded = process.events.record(Event {
            kind,
            time_ms: self.clock.unix_millis(),
            client: Some(about),
            channel: (!channel.is_empty()).then(|| channel.into()),
            details: Details::None,
        });
        if !is_recorded && kind == EventType::Connected {
            *seq = 0;
        }
        is_recorded
    }

    async fn wait(&self, span: Duration) {
        self.clock.sleep(span).await;
    }

    async fn settled(&self, process: &Process) {
        let settled = async {
            while !process.events.is_settled() {
                self.wait(Duration::from_millis(10)).await;
            }
        };
        self.clock.timeout(Duration::from_secs(3600), settled).await.expect("everything is delivered");
    }

    /// Kills a process and the machine under it.
    async fn crash(&self, process: Process) {
        process.task.abort();
        process.jobs.abort();
        let _ = (process.task.await, process.jobs.await);
        self.disk.crash();
    }

    fn taken(&self) -> Vec<Value> {
        self.backend.taken.lock().unwrap().clone()
    }

    /// What was taken, without repetitions, after checking what a backend relies on.
    fn checked(&self) -> Vec<Value> {
        let (mut seen, mut distinct) = (BTreeMap::new(), Vec::new());
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        for event in self.taken() {
            let id = event["id"].as_str().unwrap().to_owned();
            if let Some(before) = seen.insert(id, event.clone()) {
                assert_eq!(before, event, "an id means one event");
                continue;
            }
            if let (Some(client), Some(seq)) = (event["client"].as_str(), event["seq"].as_u64()) {
                let newest = newest.entry(client.to_owned()).or_default();
                assert!(seq > *newest, "{event} overtook number {newest}");
                *newest = seq;
            }
            distinct.push(event);
        }
        distinct
    }

    /// The clients that are connected by what the backend took; no pair may be half.
    fn connected(&self) -> BTreeSet<String> {
        let mut connected = BTreeSet::new();
        for event in self.checked() {
            let client = event["client"].as_str().unwrap_or_default().to_owned();
            match event["type"].as_str().unwrap() {
                "connected" => assert!(connected.insert(client), "connected twice: {event}"),
                "disconnected" => assert!(connected.remove(&client), "disconnected only: {event}"),
                _ => {}
            }
        }
        connected
    }
}

impl Process {
    /// Ends as a server that was drained, or whose drain's deadline passed.
    async fn stop(mut self) {
        let _ = self.stop.take().expect("it is stopped once").send(());
        self.task.await.expect("the courier does not panic");
        self.jobs.abort();
    }

    fn counted(&self, count: impl Fn(&crate::telemetry::EventCounters) -> &crate::telemetry::Counter) -> u64 {
        count(self.events.counters().expect("events are on")).get()
    }
}

use EventType::{Connected, Disconnected, Subscribed, Unsubscribed};

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_together_is_delivered_together_in_order_and_signed() {
    let world = World::new(|config| config.secret = Some(SECRET.into()));
    let process = world.start();
    for kind in [Connected, Subscribed, Unsubscribed, Disconnected] {
        let channel = if matches!(kind, Connected | Disconnected) { "" } else { "news" };
        assert!(world.say(&process, kind, 1, channel));
    }
    world.settled(&process).await;
    assert_eq!(types(&world.checked()), ["connected", "subscribed", "unsubscribed", "disconnected"]);
    let calls = world.backend.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 1);
    let header = |name: &str| calls[0].headers.iter().find(|(found, _)| found == name).unwrap().1.clone();
    assert_eq!(header("content-type"), "application/json");
    let first = world.taken()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(header("x-longwire-delivery"), format!("{first}.4"));
    let signature = header("x-longwire-signature");
    let time = signature.strip_prefix("t=").unwrap().split(',').next().unwrap().parse().unwrap();
    assert_eq!(signature, signature::sign(SECRET, time, &calls[0].body));
    assert_eq!(process.counted(|counters| &counters.delivered), 4);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_fails_and_returns_gets_everything_in_order() {
    let world = World::new(|config| config.max_batch = 3);
    let process = world.start();
    for (round, status) in [500, 0, 404, 301].into_iter().enumerate() {
        world.answer(status);
        for client in 0..10 {
            world.say(&process, Connected, 10 * round as u128 + client, "");
        }
        world.wait(Duration::from_secs(60)).await;
        assert_eq!(world.taken(), [Value::Null; 0]);
    }
    let failures = process.counted(|counters| &counters.failures);
    assert!((10..400).contains(&failures), "{failures} attempts in four minutes");
    assert_eq!(process.counted(|counters| &counters.pending), 40);
    world.answer(200);
    world.settled(&process).await;
    assert_eq!((world.checked().len(), world.taken().len()), (40, 40));
    let times: Vec<i64> = world.taken().iter().map(|event| event["time_ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_what_was_undelivered_comes_and_who_was_connected_is_ended_first() {
    let world = World::new(|_| {});
    let process = world.start();
    world.say(&process, Connected, 1, "");
    world.settled(&process).await;
    world.answer(503);
    world.say(&process, Connected, 2, "");
    world.say(&process, Subscribed, 1, "news");
    world.wait(Duration::from_secs(2)).await;
    world.crash(process).await;
    world.answer(200);
    let process = world.start();
    world.say(&process, Connected, 3, "");
    world.settled(&process).await;
    let events = world.checked();
    let short: Vec<_> = events.iter().map(|event| (event["type"].as_str().unwrap(), &event["seq"])).collect();
    let numbers = [1, 2, 3, 4].map(Value::from);
    assert_eq!(
        short,
        [
            ("connected", &numbers[0]),
            ("connected", &numbers[0]),
            ("subscribed", &numbers[1]),
            ("unsubscribed", &numbers[2]),
            ("disconnected", &numbers[3]),
            ("disconnected", &numbers[1]),
            ("connected", &numbers[0]),
        ]
    );
    assert_eq!((&events[4]["reason"], &events[4]["reconciled"]), (&"ServerLost".into(), &true.into()));
    assert_eq!(world.taken().len(), events.len(), "what was known to be delivered is not sent again");
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert!(ids.is_sorted(), "ids grow, over restarts too: {ids:?}");
    assert_eq!(world.connected().len(), 1);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_drain_could_not_deliver_waits_for_the_next_start() {
    let world = World::new(|config| config.max_delay = Duration::from_secs(30));
    world.answer(500);
    let process = world.start();
    world.say(&process, Connected, 1, "");
    process.events.drain();
    world.wait(Duration::from_millis(10)).await;
    assert_eq!(world.backend.calls.lock().unwrap().len(), 1, "a drain collects nothing");
    world.say(&process, Disconnected, 1, "");
    process.stop().await;
    world.disk.crash();
    world.answer(200);
    let process = world.start();
    world.settled(&process).await;
    assert_eq!(types(&world.checked()), ["connected", "disconnected"]);
    assert_eq!(process.counted(|counters| &counters.recorded), 0, "nothing had to be ended");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_fails_nothing_is_sent_and_nothing_is_lost() {
    let world = World::new(|config| config.max_queue_bytes = 100_000);
    let process = world.start();
    world.say(&process, Connected, 1, "");
    world.settled(&process).await;
    world.disk.is_failing.store(true, Ordering::SeqCst);
    let mut recorded = 1;
    for client in 2..2000 {
        recorded += usize::from(world.say(&process, Connected, client, ""));
        world.wait(Duration::from_millis(10)).await;
    }
    assert!(world.say(&process, Disconnected, 1, ""), "an end has room when beginnings have none");
    assert!((100..500).contains(&recorded), "the bound holds: {recorded}");
    assert_eq!(world.taken().len(), 1);
    assert!((10..40).contains(&process.counted(|counters| &counters.disk_errors)));
    assert_eq!(process.counted(|counters| &counters.dropped), 1999 - recorded as u64);
    world.disk.is_failing.store(false, Ordering::SeqCst);
    world.settled(&process).await;
    assert_eq!(world.checked().len(), recorded + 1);
    assert_eq!(world.connected().len(), recorded - 1);
    assert!(world.say(&process, Connected, 5000, ""), "there is room again");
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_disk_is_bounded_by_who_is_connected_not_by_how_many_ever_were() {
    let world = World::new(|config| {
        config.max_disk_bytes = 4 << 20;
        config.max_delay = Duration::from_millis(1);
    });
    let segment = 512 << 10;
    let process = world.start();
    let stayers: Vec<u128> = (1..=200).collect();
    for client in &stayers {
        world.say(&process, Connected, *client, "");
        world.say(&process, Subscribed, *client, "news");
    }
    let mut written = 0;
    let mut client = 1000;
    while written < 8 * segment {
        for _ in 0..500 {
            client += 1;
            world.say(&process, Connected, client, "");
            world.say(&process, Disconnected, client, "");
            written += 2 * 300;
        }
        world.settled(&process).await;
        assert!(world.disk.bytes() <= 4 * segment, "{} bytes", world.disk.bytes());
    }
    assert!(world.disk.bytes() < written / 2);
    let before = world.taken().len();
    world.wait(Duration::from_secs(5)).await;
    world.crash(process).await;
    let process = world.start();
    world.settled(&process).await;
    let after = world.taken().split_off(before);
    assert_eq!(after.len(), 2 * stayers.len(), "exactly those who stayed are ended");
    assert!(after.iter().all(|event| event["reconciled"] == true));
    let seqs: Vec<_> =
        after.iter().filter(|e| e["type"] == "disconnected").map(|e| e["seq"].as_u64()).collect();
    assert_eq!(seqs, vec![Some(4); 200], "the numbers go on");
    assert!(world.connected().is_empty());
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_drops_the_oldest_whole_and_says_so() {
    let world = World::new(|config| {
        config.max_disk_bytes = 4 << 20;
        config.max_delay = Duration::from_millis(1);
    });
    let process = world.start();
    let told: Vec<u128> = (1..=20).collect();
    told.iter().for_each(|client| assert!(world.say(&process, Connected, *client, "")));
    world.settled(&process).await;
    world.answer(500);
    told[..10].iter().for_each(|client| assert!(world.say(&process, Disconnected, *client, "")));
    // Who comes while the backend is gone: of some nothing more happens, some go at once, some later.
    for client in 100..12_000 {
        world.say(&process, Connected, client, "");
        world.say(&process, Subscribed, client, "news");
        let _ = match client % 3 {
            0 => world.say(&process, Disconnected, client, ""),
            _ if client > 3100 && client % 10 != 0 => world.say(&process, Disconnected, client - 3000, ""),
            _ => true,
        };
        if client % 100 == 0 {
            world.wait(Duration::from_millis(20)).await;
            assert!(world.disk.bytes() <= (4 << 20) + 3 * (512 << 10), "{} bytes", world.disk.bytes());
        }
    }
    let dropped = process.counted(|counters| &counters.dropped);
    assert!(dropped > 500, "{dropped}");
    world.answer(200);
    world.settled(&process).await;
    let recorded = process.counted(|counters| &counters.recorded);
    let dropped = process.counted(|counters| &counters.dropped);
    let delivered = process.counted(|counters| &counters.delivered);
    assert_eq!((recorded, world.checked().len() as u64), (delivered + dropped, delivered));
    let connected = world.connected();
    assert_eq!(told.iter().filter(|id| connected.contains(&ClientId(**id).to_string())).count(), 10);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_stops_the_start_and_says_how_to_go_on() {
    let mut world = World::new(|_| {});
    world.answer(500);
    let process = world.start();
    (1..=20).for_each(|client| assert!(world.say(&process, Connected, client, "")));
    world.wait(Duration::from_secs(1)).await;
    process.stop().await;
    world.disk.spoil();
    let error = world.try_start().err().expect("it does not start").to_string();
    for part in ["data/events/00000000000000000001-", "at byte 36", "events.past_damage = true"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    world.config.events.past_damage = true;
    world.answer(200);
    let process = world.start();
    world.say(&process, Connected, 50, "");
    world.settled(&process).await;
    assert!(world.checked().iter().any(|event| event["client"] == ClientId(50).to_string()));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_at_the_start_only_delays() {
    let world = World::new(|_| {});
    let process = world.start();
    world.say(&process, Connected, 1, "");
    world.wait(Duration::from_secs(1)).await;
    world.crash(process).await;
    world.disk.is_failing.store(true, Ordering::SeqCst);
    let process = world.start();
    world.say(&process, Connected, 2, "");
    world.wait(Duration::from_secs(30)).await;
    world.disk.is_failing.store(false, Ordering::SeqCst);
    world.settled(&process).await;
    assert_eq!(types(&world.checked()), ["connected", "disconnected", "connected"]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_only_looked_leaves_alone_what_another_left() {
    let world = World::new(|_| {});
    let process = world.start();
    world.say(&process, Connected, 1, "");
    world.settled(&process).await;
    let error = world.try_start().err().expect("the first one lives").to_string();
    assert!(error.contains("\"data\" is used by another process"), "{error}");
    world.crash(process).await;
    // It could not listen: stopped before its courier ever ran.
    world.start().stop().await;
    let process = world.start();
    world.settled(&process).await;
    let end = world.checked().pop().expect("an event");
    assert_eq!((&end["type"], process.counted(|counters| &counters.recorded)), (&"disconnected".into(), 1));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn names_that_could_not_be_made_safe_are_tried_again_without_another_event() {
    let world = World::new(|_| {});
    let process = world.start();
    world.say(&process, Connected, 1, "");
    // The first turn takes stock and writes the event, together.
    process.events.drain();
    world.disk.failing_dir_syncs.store(1, Ordering::SeqCst);
    world.wait(Duration::from_millis(500)).await;
    assert_eq!(process.counted(|counters| &counters.disk_errors), 1);
    assert_eq!(world.taken(), [Value::Null; 0], "it is not durable");
    world.wait(Duration::from_secs(2)).await;
    assert_eq!(types(&world.taken()), ["connected"]);
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn until_when_a_process_lived_is_no_later_for_an_end_that_a_second_crash_put_off() {
    let world = World::new(|_| {});
    let lived_ms = world.clock.unix_millis();
    let begun = |client| {
        let client = Client {
            id: ClientId(client),
            seq: 1,
            user: "ann".into(),
            transport: "websocket",
            dialect: "centrifuge",
            protocol: "json",
        };
        let (kind, details) = (Connected, Details::None);
        Event { kind, time_ms: lived_ms, client: Some(client), channel: None, details }.draft("lost")
    };
    let history: Vec<Kept> = (1..=2).map(|n| begun(n.into()).finish(n, format!("id{n}"))).collect();
    let mut ledger = Ledger::default();
    history.iter().for_each(|kept| ledger.note(kept));
    let much_later = lived_ms + 3_600_000;
    let mut ends = reconcile::endings(&ledger, history.clone(), much_later, lived_ms, |_| true);
    // The next process was cut off after the first of the two ends.
    let written = [&history[..], &[ends.remove(0).finish(3, "id3".into())]].concat();
    let disk = Disk::of(world.disk.clone());
    let (mut journal, _) = Journal::open(&disk, Path::new("data/events"), Options::new(1)).expect("it opens");
    for kept in written {
        let (kind, payload) = kept.encode();
        journal.append(kind, &payload).expect("there is room");
    }
    journal.commit().expect("the disk works");
    drop(journal);
    let process = world.start();
    world.settled(&process).await;
    let end = world.checked().pop().expect("an event");
    assert_eq!((&end["client"], &end["type"]), (&ClientId(2).to_string().into(), &"disconnected".into()));
    assert_eq!(end["known_until_ms"], lived_ms);
    process.stop().await;
}

/// What befalls a world.
#[derive(Clone, Debug)]
enum Act {
    Say(u8, u8),
    /// So many come and go.
    Churn(u8),
    Wait(u16),
    Answer(bool),
    Disk(bool),
    Crash,
    Stop,
}

fn acts(length: usize, churn: u32) -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        churn => (0u8..30).prop_map(Act::Churn),
        12 => (any::<u8>(), 0u8..4).prop_map(|(who, what)| Act::Say(who, what)),
        4 => (0u16..3000).prop_map(Act::Wait),
        2 => prop::bool::weighted(0.7).prop_map(Act::Answer),
        1 => prop::bool::weighted(0.7).prop_map(Act::Disk),
        1 => Just(Act::Crash),
        1 => Just(Act::Stop),
    ];
    prop::collection::vec(act, 0..length)
}

/// Lives through it; how many events were dropped.
async fn live(acts: Vec<Act>, max_disk_bytes: usize) -> u64 {
    let world = World::new(|config| {
        config.max_batch = 4;
        config.max_disk_bytes = max_disk_bytes;
    });
    let mut dropped = 0;
    let mut process = world.start();
    // Clients of the process, and the channels of each.
    let mut clients: Vec<(u128, BTreeSet<&str>)> = Vec::new();
    let mut newest = 0;
    for act in acts {
        match act {
            Act::Say(who, what) => {
                let at = usize::from(who) % clients.len().max(1);
                let channel = ["a", "b"][usize::from(who) % 2];
                match (what, clients.get_mut(at)) {
                    (0, _) | (_, None) => {
                        newest += 1;
                        world.say(&process, Connected, newest, "");
                        clients.push((newest, BTreeSet::new()));
                    }
                    (1, Some((client, channels))) => {
                        let is_new = channels.insert(channel);
                        if is_new {
                            world.say(&process, Subscribed, *client, channel);
                        }
                    }
                    (2, Some((client, channels))) => {
                        let was_there = channels.remove(channel);
                        if was_there {
                            world.say(&process, Unsubscribed, *client, channel);
                        }
                    }
                    (3, Some(_)) => {
                        let (client, _) = clients.remove(at);
                        world.say(&process, Disconnected, client, "");
                    }
                    _ => {}
                }
            }
            Act::Churn(count) => {
                for _ in 0..count {
                    newest += 1;
                    world.say(&process, Connected, newest, "");
                    world.say(&process, Disconnected, newest, "");
                    world.wait(Duration::from_millis(20)).await;
                }
            }
            Act::Wait(ms) => world.wait(Duration::from_millis(ms.into())).await,
            Act::Answer(works) => world.answer(if works { 200 } else { 500 }),
            Act::Disk(works) => world.disk.is_failing.store(!works, Ordering::SeqCst),
            Act::Crash => {
                dropped += process.counted(|counters| &counters.dropped);
                world.crash(process).await;
                clients.clear();
                process = world.start();
            }
            Act::Stop => {
                dropped += process.counted(|counters| &counters.dropped);
                process.stop().await;
                clients.clear();
                process = world.start();
            }
        }
    }
    world.answer(200);
    world.disk.is_failing.store(false, Ordering::SeqCst);
    world.settled(&process).await;
    dropped += process.counted(|counters| &counters.dropped);
    if dropped > 0 {
        // Pairs may be half if a crash followed.
        world.checked();
        return dropped;
    }
    let present: BTreeSet<String> = clients.iter().map(|(client, _)| ClientId(*client).to_string()).collect();
    assert_eq!(world.connected(), present, "the backend knows exactly who is there");
    let mut subscribed = BTreeSet::new();
    for event in world.checked() {
        let subscription = (event["client"].to_string(), event["channel"].to_string());
        match event["type"].as_str().unwrap() {
            "subscribed" => assert!(subscribed.insert(subscription)),
            "unsubscribed" => assert!(subscribed.remove(&subscription)),
            "disconnected" => subscribed.retain(|(client, _)| *client != subscription.0),
            _ => {}
        }
    }
    assert_eq!(subscribed.len(), clients.iter().map(|(_, channels)| channels.len()).sum::<usize>());
    0
}

fn live_alone(acts: Vec<Act>, max_disk_bytes: usize) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(live(acts, max_disk_bytes))
}

/// While the backend does not answer, what tells of a client is moved behind what came after, though that was read.
#[test]
fn nothing_of_a_client_overtakes_what_tells_of_it_when_a_file_is_released() {
    use Act::{Answer, Churn, Say};
    let quiet = [Say(0, 0), Say(0, 1), Say(0, 0), Answer(false), Churn(16), Churn(6), Say(0, 0), Say(0, 0)];
    let then = [Churn(23), Churn(7), Churn(18), Say(106, 1), Churn(20), Churn(26), Churn(10), Churn(28)];
    let acts = [&quiet[..], &then[..], &[Churn(27)]].concat();
    assert!(live_alone(acts, 96 << 10) > 0, "some are dropped");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn through_crashes_and_failures_the_backend_learns_everything_in_order(acts in acts(80, 0)) {
        prop_assert_eq!(live_alone(acts, 4 << 20), 0);
    }

    /// Files so small that they are released, and what goes on is written again, all the time.
    #[test]
    fn so_it_does_while_old_files_are_released(acts in acts(120, 4)) {
        live_alone(acts, 96 << 10);
    }
}
