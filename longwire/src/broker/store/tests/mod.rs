//! Histories on a disk in memory: what a process finds that comes after one that stopped, was killed, or failed.

mod disk;
mod model;

use super::*;
use crate::broker::conformance;
use crate::broker::{Broker, IdempotencyKey, MemoryBroker, PublishOptions, Published};
use crate::config::ChannelOptions;
use crate::delivery::Mailbox;
use crate::env::{Clock, Http, Memory, Net, Rng};
use crate::history::{Page, Part, Retention, Version};
use disk::MemoryDisk;
use longwire_protocol::message::{ClientId, ClientInfo, Except};
use longwire_protocol::{Publication, Since};
use std::path::Path;
use std::sync::atomic::Ordering;

/// When every test begins: milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;

const ALL: Part = Part { since: None, limit: usize::MAX, reverse: false };

/// A directory on a disk, and who uses it one after the other.
struct Rig {
    disk: Arc<MemoryDisk>,
    config: Config,
    starts: u64,
    unix_ms: u64,
}

/// A process.
struct Running {
    broker: MemoryBroker,
    channels: Arc<Channels>,
    writer: Writer,
    clock: Clock,
}

impl Rig {
    fn new() -> Rig {
        let mut config = Config::default();
        config.channel = ChannelOptions {
            history_size: 10,
            history_ttl: Duration::from_secs(60),
            history_meta_ttl: Duration::from_secs(3600),
            history_on_disk: true,
            ..ChannelOptions::default()
        };
        let in_memory = ChannelOptions { history_on_disk: false, ..config.channel.clone() };
        config.namespaces.insert("memory".to_owned(), in_memory);
        Rig { disk: Arc::default(), config, starts: 0, unix_ms: BEGINNING }
    }

    fn open(&mut self) -> io::Result<(Arc<Channels>, Option<Writer>, Clock)> {
        self.starts += 1;
        let clock = Clock::starting_at(Duration::from_millis(self.unix_ms));
        let env = Env {
            clock,
            net: Net::system(),
            disk: self.disk.disk(),
            http: Http::system(),
            memory: Memory::system(),
            rng: Rng::from_seed(self.starts),
        };
        let data_dir = DataDir::new(env.disk.clone(), Path::new("data"));
        let (channels, writer) = open(&self.config, &env, &data_dir)?;
        Ok((channels, writer, clock))
    }

    fn start(&mut self) -> Running {
        let (channels, writer, clock) = self.open().expect("the directory can be used");
        let outlets = (0..1).map(|_| Arc::new(Mailbox::new(8))).collect();
        let rng = Rng::from_seed(1000 + self.starts);
        let broker = MemoryBroker::of(channels.clone(), outlets, clock, rng);
        Running { broker, channels, writer: writer.expect("a channel is kept"), clock }
    }

    fn retention(&self) -> Retention {
        retention(&self.config.channel)
    }
}

fn retention(options: &ChannelOptions) -> Retention {
    Retention {
        size: options.history_size,
        ttl: options.history_ttl,
        meta_ttl: options.history_meta_ttl,
        is_on_disk: options.history_on_disk,
    }
}

fn publication(text: &str) -> Publication {
    let data = format!("{text:?}").into();
    Publication { offset: 0, data, info: None, tags: Vec::new(), except: None, is_json: true }
}

impl Running {
    async fn publish(&self, rig: &Rig, channel: &str, text: &str) -> Published {
        let options = PublishOptions { retention: Some(rig.retention()), ..PublishOptions::default() };
        self.broker.publish(&channel.into(), publication(text), options).await.expect("published")
    }

    async fn page(&self, rig: &Rig, channel: &str) -> Page {
        self.broker.history(&channel.into(), rig.retention(), ALL).await.expect("history is read")
    }

    fn commit(&mut self) {
        self.writer.turn(self.clock.now());
    }

    fn counters(&self) -> &crate::telemetry::HistoryCounters {
        self.broker.history_counters().expect("histories are kept")
    }

    /// Ends as a process that is told to.
    fn stop(self, rig: &mut Rig) {
        rig.unix_ms = self.clock.unix_millis() as u64;
        self.writer.finish();
    }

    /// Ends as one that is killed, and with it the machine.
    fn kill(self, rig: &mut Rig) {
        rig.unix_ms = self.clock.unix_millis() as u64;
        std::mem::forget(self.writer);
        rig.disk.crash(0);
    }
}

fn texts(page: &Page) -> Vec<String> {
    page.publications
        .iter()
        .map(|it| String::from_utf8_lossy(&it.data).trim_matches('"').to_owned())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_keeps_histories_on_a_disk_keeps_the_contract() {
    let writers = std::cell::RefCell::new(Vec::new());
    conformance::all(|outlets| {
        let mut rig = Rig::new();
        let (channels, writer, clock) = rig.open().expect("the directory can be used");
        let mut writer = writer.expect("a channel is kept");
        writer.turn(clock.now());
        writers.borrow_mut().push(writer);
        Box::new(MemoryBroker::of(channels, outlets, clock, Rng::from_seed(1)))
    })
    .await;
    assert!(writers.into_inner().len() > 5);
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_recovered_from_with_all_that_was_published() {
    let mut rig = Rig::new();
    let mut first = rig.start();
    let info =
        ClientInfo { user: "7".into(), client: ClientId(8), conn_info: "{}".into(), chan_info: "[1]".into() };
    let whole = Publication {
        info: Some(Arc::new(info)),
        tags: vec![("shade".into(), "red".into())],
        except: Some(Box::new(Except { client: Some(ClientId(9)), user: Some("10".into()) })),
        data: vec![0xff, 0, 1].into(),
        is_json: false,
        ..publication("")
    };
    let version = |number| Some(Version { number, epoch: "v".into() });
    let kept = rig.retention();
    let options = |number| PublishOptions {
        retention: Some(kept),
        version: version(number),
        ..PublishOptions::default()
    };
    first.broker.publish(&"a".into(), whole, options(5)).await.expect("published");
    first.publish(&rig, "a", "two").await;
    first.commit();
    first.publish(&rig, "b", "gone").await;
    first.broker.remove_history(&"b".into()).await.expect("removed");
    let empty = first.page(&rig, "quiet").await;
    first.clock.sleep(Duration::from_secs(20)).await;
    first.publish(&rig, "a", "three").await;
    let (a, b) = (first.page(&rig, "a").await, first.page(&rig, "b").await);
    assert_eq!((a.publications.len(), b.publications.len(), b.top.offset), (3, 0, 1));
    first.stop(&mut rig);

    let mut second = rig.start();
    assert_eq!(second.page(&rig, "a").await, a);
    assert_eq!(second.page(&rig, "b").await, b);
    assert_eq!(second.page(&rig, "quiet").await, empty, "nothing was published, and nothing was missed");
    let again = second.broker.publish(&"a".into(), publication("again"), options(5)).await.expect("answered");
    assert!(again.is_suppressed, "the version outlives the process");
    assert_eq!(second.publish(&rig, "a", "four").await.position.map(|it| it.offset), Some(4));
    second.clock.sleep(Duration::from_secs(41)).await;
    assert_eq!(texts(&second.page(&rig, "a").await), ["three", "four"], "it expires when it would have");
    second.commit();
    second.stop(&mut rig);
    let third = rig.start();
    let page = third.page(&rig, "a").await;
    assert_eq!((texts(&page), page.top.epoch), (vec!["three".to_owned(), "four".to_owned()], a.top.epoch));
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_what_was_committed_is_there_and_nobody_recovers() {
    let mut rig = Rig::new();
    let mut first = rig.start();
    for text in ["1", "2", "3"] {
        first.publish(&rig, "a", text).await;
    }
    first.commit();
    first.publish(&rig, "a", "4").await;
    let before = first.page(&rig, "a").await;
    first.kill(&mut rig);
    let second = rig.start();
    let page = second.page(&rig, "a").await;
    assert_eq!((texts(&page), page.top.offset), (vec!["1".into(), "2".into(), "3".into()], 3));
    assert_ne!(page.top.epoch, before.top.epoch);
    let next = second.publish(&rig, "a", "other").await.position.expect("a position");
    assert_eq!((next.offset, next.epoch), (4, page.top.epoch), "numbers go on, in a numbering of their own");
    second.stop(&mut rig);
    let third = rig.start();
    assert_eq!(third.page(&rig, "a").await.top, next, "a fresh epoch is kept like any other");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_killed_before_it_writes_anything_leaves_no_epoch_behind() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    let top = first.page(&rig, "a").await.top;
    first.stop(&mut rig);
    let second = rig.start();
    assert_eq!(second.publish(&rig, "a", "2").await.position.map(|it| it.epoch), Some(top.epoch));
    second.kill(&mut rig);
    let page = rig.start().page(&rig, "a").await;
    assert_eq!(texts(&page), ["1"]);
    assert_ne!(page.top.epoch, top.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_never_serves_leaves_everything_as_it_was() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    let page = first.page(&rig, "a").await;
    first.stop(&mut rig);
    drop(rig.start());
    drop(rig.start());
    assert_eq!(rig.start().page(&rig, "a").await, page);
}

#[tokio::test(start_paused = true)]
async fn a_directory_from_a_backup_has_no_epochs() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.stop(&mut rig);
    let backup = rig.disk.backup();
    let second = rig.start();
    assert_eq!(second.publish(&rig, "a", "2").await.position.map(|it| it.epoch), Some(epoch));
    second.stop(&mut rig);
    rig.disk.restore(backup);
    let page = rig.start().page(&rig, "a").await;
    assert_eq!(texts(&page), ["1"]);
    assert_ne!(page.top.epoch, epoch, "2 of that epoch was something else");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_costs_the_epochs_and_prolongs_nothing() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.stop(&mut rig);
    rig.unix_ms -= 3_600_000;
    let second = rig.start();
    let page = second.page(&rig, "a").await;
    assert_eq!(texts(&page), ["1"]);
    assert_ne!(page.top.epoch, epoch);
    second.clock.sleep(Duration::from_secs(61)).await;
    assert_eq!(second.page(&rig, "a").await.publications.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_costs_one_start() {
    const AHEAD: u64 = 400 * 86_400_000;
    let mut rig = Rig::new();
    rig.unix_ms += AHEAD;
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    first.stop(&mut rig);
    rig.unix_ms -= AHEAD;
    let second = rig.start();
    assert_eq!(texts(&second.page(&rig, "a").await), ["1"], "it is as old as it was");
    second.clock.sleep(Duration::from_secs(61)).await;
    second.publish(&rig, "b", "2").await;
    let b = second.page(&rig, "b").await;
    second.stop(&mut rig);
    let third = rig.start();
    assert_eq!(third.page(&rig, "b").await, b, "the clock was right from its beginning to its end");
    third.clock.sleep(Duration::from_secs(61)).await;
    assert_eq!(
        third.page(&rig, "a").await.publications.len(),
        0,
        "not until the time comes that it was made in"
    );
}

#[tokio::test(start_paused = true)]
async fn histories_of_which_none_is_to_be_kept_leave_the_disk() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "a secret").await;
    first.stop(&mut rig);
    let on_disk = |rig: &Rig| {
        let files = rig.disk.backup();
        files.iter().any(|(_, bytes)| bytes.windows(8).any(|window| window == b"a secret"))
    };
    assert!(on_disk(&rig));
    rig.config.channel.history_on_disk = false;
    assert!(rig.open().expect("nothing is in the way").1.is_none());
    assert!(!on_disk(&rig));
    // Nothing that would have to be looked after.
    rig.config.channel.history_on_disk = true;
    let page = rig.start().page(&rig, "a").await;
    assert_eq!((page.publications.len(), page.top.offset), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_in_memory_only_for_a_while_begins_anew() {
    let mut rig = Rig::new();
    let first = rig.start();
    first.publish(&rig, "a", "1").await;
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.stop(&mut rig);
    // One channel still is on the disk: the journal goes on.
    rig.config.namespaces.insert("other".to_owned(), rig.config.channel.clone());
    rig.config.channel.history_on_disk = false;
    let second = rig.start();
    assert_ne!(second.page(&rig, "a").await.top.epoch, epoch);
    second.stop(&mut rig);
    rig.config.channel.history_on_disk = true;
    let third = rig.start();
    let page = third.page(&rig, "a").await;
    assert_eq!((page.publications.len(), page.top.offset), (0, 0));
    assert_ne!(page.top.epoch, epoch);
    third.publish(&rig, "a", "1").await;
    let epoch = third.page(&rig, "a").await.top.epoch;
    third.stop(&mut rig);
    // None is: there is no journal.
    rig.config.channel.history_on_disk = false;
    rig.config.namespaces.clear();
    assert!(rig.open().expect("nothing is in the way").1.is_none());
    rig.config.channel.history_on_disk = true;
    assert_ne!(rig.start().page(&rig, "a").await.top.epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_or_larger_history_is_recovered_from_as_far_as_it_reaches() {
    let mut rig = Rig::new();
    let first = rig.start();
    for n in 0..10 {
        first.publish(&rig, "a", &n.to_string()).await;
    }
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.stop(&mut rig);
    rig.config.channel.history_size = 3;
    let second = rig.start();
    second.publish(&rig, "a", "10").await;
    let page = second.page(&rig, "a").await;
    assert_eq!((texts(&page), page.top.epoch), (vec!["8".into(), "9".into(), "10".into()], epoch));
    second.stop(&mut rig);
    rig.config.channel.history_size = 100;
    assert_eq!(rig.start().page(&rig, "a").await, page);
}

#[tokio::test(start_paused = true)]
async fn damage_costs_what_is_spoiled_and_all_epochs() {
    let mut rig = Rig::new();
    let mut first = rig.start();
    for text in ["1", "2", "3"] {
        first.publish(&rig, "a", text).await;
        first.commit();
    }
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.stop(&mut rig);
    rig.disk.spoil();
    let second = rig.start();
    let page = second.page(&rig, "a").await;
    assert_ne!(page.top.epoch, epoch);
    assert!(page.publications.len() < 3, "{page:?}");
    let offsets: Vec<_> = page.publications.iter().map(|it| it.offset).collect();
    assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1));
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_is_full_everything_waits_and_nothing_is_lost() {
    let mut rig = Rig::new();
    let mut first = rig.start();
    first.publish(&rig, "a", "1").await;
    first.commit();
    rig.disk.switches().is_full.store(true, Ordering::SeqCst);
    first.publish(&rig, "a", "2").await;
    first.commit();
    first.publish(&rig, "a", "3").await;
    assert!(first.counters().disk_errors.get() > 0 && first.counters().pending_bytes.get() > 0);
    rig.disk.switches().is_full.store(false, Ordering::SeqCst);
    first.clock.sleep(Duration::from_secs(2)).await;
    first.commit();
    assert_eq!((first.counters().pending_bytes.get(), first.counters().failed.get()), (0, 0));
    let page = first.page(&rig, "a").await;
    first.stop(&mut rig);
    assert_eq!(rig.start().page(&rig, "a").await, page);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_at_the_end_costs_the_epochs() {
    let mut rig = Rig::new();
    let mut first = rig.start();
    first.publish(&rig, "a", "1").await;
    first.commit();
    first.publish(&rig, "a", "2").await;
    let epoch = first.page(&rig, "a").await.top.epoch;
    rig.disk.switches().loses_syncs.store(true, Ordering::SeqCst);
    first.stop(&mut rig);
    rig.disk.switches().loses_syncs.store(false, Ordering::SeqCst);
    rig.disk.crash(0);
    let page = rig.start().page(&rig, "a").await;
    assert_eq!(texts(&page), ["1"]);
    assert_ne!(page.top.epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_disk_that_stands_still_is_bounded() {
    let mut rig = Rig::new();
    rig.config.history.max_disk_bytes = 4 << 20;
    let mut first = rig.start();
    first.publish(&rig, "a", "1").await;
    first.commit();
    let (text, mut most) = ("x".repeat(100_000), 0);
    for _ in 0..100 {
        first.publish(&rig, "a", &text).await;
        most = most.max(first.counters().pending_bytes.get());
    }
    assert!(most > 3 << 20 && most <= 4 << 20, "{most}");
    assert_eq!(first.counters().failed.get(), 1, "it gave up and says so");
    assert_eq!(first.page(&rig, "a").await.top.offset, 101, "the server goes on");
    let epoch = first.page(&rig, "a").await.top.epoch;
    first.commit();
    assert_eq!(first.counters().pending_bytes.get(), 0, "what waited is let go");
    first.stop(&mut rig);
    let page = rig.start().page(&rig, "a").await;
    assert_eq!(texts(&page), ["1"]);
    assert_ne!(page.top.epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn the_disk_holds_what_is_retained_and_not_much_more() {
    let mut rig = Rig::new();
    rig.config.history.max_disk_bytes = 4 << 20;
    let mut first = rig.start();
    first.publish(&rig, "still", "here").await;
    let text = "x".repeat(10_000);
    for n in 0..3000 {
        first.publish(&rig, &format!("c{}", n % 5), &format!("{n}{text}")).await;
        if n % 20 == 0 {
            first.commit();
            assert!(rig.disk.bytes() <= 4 << 20, "{} bytes", rig.disk.bytes());
        }
        if n % 600 == 0 {
            first.clock.sleep(Duration::from_secs(10)).await;
        }
    }
    assert_eq!((first.counters().given_up.get(), first.counters().failed.get()), (0, 0));
    let mut pages = Vec::new();
    for channel in ["c0", "c1", "c2", "c3", "c4", "still"] {
        pages.push((channel, first.page(&rig, channel).await));
    }
    assert_eq!(pages[0].1.publications.len(), 10);
    assert_eq!(texts(&pages[5].1), ["here"], "it was written again and again");
    first.stop(&mut rig);
    let second = rig.start();
    for (channel, page) in pages {
        assert_eq!(second.page(&rig, channel).await, page, "{channel}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_has_no_room_for_is_in_memory_and_nobody_is_told_that_it_was_kept() {
    let mut rig = Rig::new();
    rig.config.history.max_disk_bytes = 4 << 20;
    rig.config.channel.history_size = 1000;
    let mut first = rig.start();
    let text = "x".repeat(10_000);
    for n in 0..600 {
        first.publish(&rig, &format!("c{}", n % 3), &format!("{n}{text}")).await;
        if n % 20 == 0 {
            first.commit();
            assert!(rig.disk.bytes() <= 4 << 20, "{} bytes", rig.disk.bytes());
        }
    }
    first.commit();
    assert!(first.counters().given_up.get() > 100);
    assert_eq!(first.counters().failed.get(), 0);
    let page = first.page(&rig, "c0").await;
    assert_eq!(page.publications.len(), 200, "memory has them all");
    first.stop(&mut rig);
    let second = rig.start();
    let after = second.page(&rig, "c0").await;
    assert_eq!(after.top, page.top, "what is there is whole up to the top");
    let count = after.publications.len();
    assert!((20..200).contains(&count), "{count}");
    assert_eq!(after.publications[..], page.publications[200 - count..]);
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_is_too_large_for_the_disk_is_no_gap_that_nobody_sees() {
    let mut rig = Rig::new();
    rig.config.history.max_disk_bytes = 4 << 20;
    let mut first = rig.start();
    first.publish(&rig, "a", "1").await;
    first.publish(&rig, "a", &"2".repeat(200_000)).await;
    first.publish(&rig, "a", "3").await;
    first.commit();
    assert_eq!(first.counters().given_up.get(), 2, "with the one before it");
    let top = first.page(&rig, "a").await.top;
    first.stop(&mut rig);
    let second = rig.start();
    let page = second.page(&rig, "a").await;
    assert_eq!((texts(&page), page.top), (vec!["3".to_owned()], top));
    let since = Part { since: Some(Since { offset: 1, epoch: Some(top.epoch) }), ..ALL };
    let page = second.broker.history(&"a".into(), rig.retention(), since).await.expect("history is read");
    assert_eq!(page.publications[0].offset, 3, "whoever stands at 1 sees that 2 is missing");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_behind_the_mark() {
    let mut rig = Rig::new();
    let Running { broker, channels, writer, .. } = rig.start();
    let (a, memory): (Arc<str>, Arc<str>) = ("a".into(), "memory:a".into());
    let options =
        |rig: &Rig| PublishOptions { retention: Some(rig.retention()), ..PublishOptions::default() };
    broker.publish(&a, publication("1"), options(&rig)).await.expect("published");
    writer.finish();
    assert!(broker.publish(&a, publication("2"), options(&rig)).await.is_err());
    assert!(broker.remove_history(&a).await.is_err());
    let retention = Some(Retention { is_on_disk: false, ..rig.retention() });
    let in_memory = PublishOptions { retention, ..PublishOptions::default() };
    broker.publish(&memory, publication("1"), in_memory).await.expect("this one is not kept");
    let page = broker.history(&a, rig.retention(), ALL).await.expect("history is read");
    assert_eq!(channels.survey().len(), 2);
    assert_eq!(texts(&page), ["1"]);
    assert_eq!(rig.start().page(&rig, "a").await, page);
}

#[tokio::test(start_paused = true)]
async fn keys_of_calls_are_forgotten_with_the_process() {
    let mut rig = Rig::new();
    let key = IdempotencyKey { name: "k".into(), ttl: Duration::from_secs(300) };
    let options = |rig: &Rig| PublishOptions {
        retention: Some(rig.retention()),
        idempotency_key: Some(key.clone()),
        ..PublishOptions::default()
    };
    let first = rig.start();
    first.broker.publish(&"a".into(), publication("1"), options(&rig)).await.expect("published");
    first.stop(&mut rig);
    let again = rig.start().broker.publish(&"a".into(), publication("1"), options(&rig)).await;
    assert!(!again.expect("published").is_suppressed);
}

#[tokio::test(start_paused = true)]
async fn two_processes_do_not_share_a_directory() {
    let mut rig = Rig::new();
    let first = rig.start();
    let refused = rig.open().err().map(|error| error.to_string()).expect("it is in use");
    assert!(refused.contains("is used by another process of longwire"), "{refused}");
    first.publish(&rig, "a", "1").await;
    let page = first.page(&rig, "a").await;
    first.stop(&mut rig);
    assert_eq!(rig.start().page(&rig, "a").await, page, "the one that was refused did no harm");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_is_left_alone_commits_within_its_delay() {
    let mut rig = Rig::new();
    let Running { broker, mut writer, clock, .. } = rig.start();
    let pending = || broker.history_counters().map_or(0, |counters| counters.pending_bytes.get());
    let options = PublishOptions { retention: Some(rig.retention()), ..PublishOptions::default() };
    let publishing = async {
        for _ in 0..3 {
            clock.sleep(Duration::from_secs(3)).await;
            broker.publish(&"a".into(), publication("1"), options.clone()).await.expect("published");
            assert!(pending() > 0);
            clock.sleep(rig.config.history.max_delay * 2).await;
            assert_eq!(pending(), 0, "it is on the disk");
        }
    };
    tokio::select! {
        biased;
        () = writer.run() => {}
        () = publishing => {}
    }
}
