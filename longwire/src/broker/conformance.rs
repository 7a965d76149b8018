//! The contract of every broker, as tests that each implementation runs.
//!
//! Called with a function that makes a broker for given outlets; panics where the contract is broken. A broker that
//! hands deliveries on over a network has a tenth of a second for each.

use super::{Broker, IdempotencyKey, Movement, Outlets, PublishOptions, Published};
use crate::delivery::{Delivery, Mailbox, What};
use crate::env::Clock;
use crate::history::{Part, Retention, Version};
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo};
use longwire_protocol::{Position, Publication, Since};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const RETENTION: Retention = Retention {
    size: 100,
    ttl: Duration::from_secs(60),
    meta_ttl: Duration::from_secs(3600),
    is_on_disk: true,
};

/// Kept, and nothing else.
fn kept() -> PublishOptions {
    PublishOptions { retention: Some(RETENTION), ..PublishOptions::default() }
}

/// Runs every check on a broker of its own.
pub async fn all(make: impl Fn(Outlets) -> Box<dyn Broker>) {
    let outlets = || -> Outlets { (0..2).map(|_| Arc::new(Mailbox::new(8))).collect() };
    let run = |outlets: &Outlets| make(outlets.clone());

    let o = outlets();
    offsets_ascend_and_arrive_in_order(run(&o), &o).await;
    let o = outlets();
    only_interested_shards_are_handed_anything(run(&o), &o).await;
    let o = outlets();
    a_channel_without_history_has_no_positions(run(&o), &o).await;
    let o = outlets();
    history_gives_what_was_published_and_an_epoch_before_that(run(&o)).await;
    let o = outlets();
    removed_history_keeps_its_numbering(run(&o)).await;
    let o = outlets();
    movements_reach_subscribers(run(&o), &o).await;
    let o = outlets();
    a_repeated_call_publishes_once_and_is_answered_the_same(run(&o), &o).await;
    let o = outlets();
    a_repeated_call_is_known_without_history_too(run(&o), &o).await;
    let o = outlets();
    a_version_that_is_not_newer_is_skipped(run(&o), &o).await;
    let o = outlets();
    a_publication_brings_the_one_before_it_if_asked(run(&o), &o).await;
}

async fn publish(broker: &dyn Broker, channel: &Arc<str>, text: &str, options: PublishOptions) -> Published {
    broker.publish(channel, publication(text), options).await.expect("published")
}

async fn publish_kept(broker: &dyn Broker, channel: &Arc<str>) -> Option<Position> {
    publish(broker, channel, "x", kept()).await.position
}

fn publication(text: &str) -> Publication {
    Publication {
        offset: 0,
        data: Bytes::from(format!("{text:?}")),
        info: None,
        tags: Vec::new(),
        except: None,
        is_json: true,
    }
}

/// How long a delivery may be under way.
const JOURNEY: Duration = Duration::from_millis(100);

async fn arrived(outlets: &Outlets, shard: usize) -> Vec<Arc<Delivery>> {
    Clock::system().sleep(JOURNEY).await;
    let mut batch = VecDeque::new();
    outlets[shard].take(&mut batch);
    batch.into()
}

async fn offsets_ascend_and_arrive_in_order(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    for n in 1..=5u64 {
        let position = publish_kept(&*broker, &channel).await;
        assert_eq!(position.map(|p| p.offset), Some(n));
    }
    let got: Vec<_> = arrived(outlets, 0).await.iter().map(|d| d.position.map(|p| p.offset)).collect();
    assert_eq!(got, (1..=5).map(Some).collect::<Vec<_>>());
}

async fn only_interested_shards_are_handed_anything(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 1, true).await.expect("interest is noted");
    publish_kept(&*broker, &channel).await;
    assert_eq!((arrived(outlets, 0).await.len(), arrived(outlets, 1).await.len()), (0, 1));
    broker.set_interest(&channel, 1, false).await.expect("interest is noted");
    publish_kept(&*broker, &channel).await;
    assert_eq!((arrived(outlets, 0).await.len(), arrived(outlets, 1).await.len()), (0, 0));
}

async fn a_channel_without_history_has_no_positions(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let published = publish(&*broker, &channel, "x", PublishOptions::default()).await;
    assert_eq!(published, Published::default());
    assert_eq!(arrived(outlets, 0).await[0].position, None);
}

async fn history_gives_what_was_published_and_an_epoch_before_that(broker: Box<dyn Broker>) {
    let channel: Arc<str> = "news".into();
    let all = Part { since: None, limit: usize::MAX, reverse: false };
    let before = broker.history(&channel, RETENTION, all).await.expect("history is read");
    assert_eq!((before.publications.len(), before.top.offset), (0, 0));
    publish(&*broker, &channel, "a", kept()).await;
    publish(&*broker, &channel, "b", kept()).await;
    let since = Part { since: Some(Since { offset: 1, epoch: None }), ..all };
    let page = broker.history(&channel, RETENTION, since).await.expect("history is read");
    assert_eq!(page.top.epoch, before.top.epoch, "the epoch changed without a loss");
    assert_eq!(page.top.offset, 2);
    assert_eq!(page.publications.iter().map(|p| &p.data[..]).collect::<Vec<_>>(), [b"\"b\""]);
}

async fn removed_history_keeps_its_numbering(broker: Box<dyn Broker>) {
    let channel: Arc<str> = "news".into();
    let first = publish_kept(&*broker, &channel).await;
    broker.remove_history(&channel).await.expect("removed");
    let all = Part { since: None, limit: usize::MAX, reverse: false };
    let page = broker.history(&channel, RETENTION, all).await.expect("history is read");
    assert_eq!((page.publications.len(), Some(page.top)), (0, first));
    let second = publish_kept(&*broker, &channel).await;
    assert_eq!(second.map(|p| p.offset), Some(2));
}

async fn movements_reach_subscribers(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let info = Arc::new(ClientInfo {
        user: "7".into(),
        client: ClientId(7),
        conn_info: Bytes::new(),
        chan_info: Bytes::new(),
    });
    broker.announce(&channel, Movement::Join(info.clone())).await.expect("announced");
    broker.announce(&channel, Movement::Leave(info.clone())).await.expect("announced");
    let got: Vec<_> = arrived(outlets, 0).await.iter().map(|d| d.what.clone()).collect();
    assert_eq!(got, [What::Join(info.clone()), What::Leave(info)]);
}

fn keyed(name: &str, options: PublishOptions) -> PublishOptions {
    let key = IdempotencyKey { name: name.into(), ttl: Duration::from_secs(300) };
    PublishOptions { idempotency_key: Some(key), ..options }
}

async fn a_repeated_call_publishes_once_and_is_answered_the_same(broker: Box<dyn Broker>, outlets: &Outlets) {
    let (channel, other): (Arc<str>, Arc<str>) = ("news".into(), "other".into());
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let first = publish(&*broker, &channel, "a", keyed("k", kept())).await;
    assert_eq!((first.position.map(|p| p.offset), first.is_suppressed), (Some(1), false));
    publish_kept(&*broker, &channel).await;
    let again = publish(&*broker, &channel, "a", keyed("k", kept())).await;
    assert_eq!(again, Published { position: first.position, is_suppressed: true, is_repeat: true });
    assert_eq!(arrived(outlets, 0).await.len(), 2, "the repeated one was not handed on");
    let all = Part { since: None, limit: usize::MAX, reverse: false };
    let page = broker.history(&channel, RETENTION, all).await.expect("history is read");
    assert_eq!((page.publications.len(), page.top.offset), (2, 2), "nor kept");
    // A key is a name within its channel, and another key is another call.
    assert!(!publish(&*broker, &other, "a", keyed("k", kept())).await.is_suppressed);
    assert!(!publish(&*broker, &channel, "a", keyed("l", kept())).await.is_suppressed);
}

async fn a_repeated_call_is_known_without_history_too(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let first = publish(&*broker, &channel, "a", keyed("k", PublishOptions::default())).await;
    let again = publish(&*broker, &channel, "a", keyed("k", PublishOptions::default())).await;
    assert_eq!((first.is_suppressed, again.is_suppressed, again.position), (false, true, None));
    assert_eq!(arrived(outlets, 0).await.len(), 1);
}

async fn a_version_that_is_not_newer_is_skipped(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let versioned = |number, epoch: &str| PublishOptions {
        version: Some(Version { number, epoch: epoch.into() }),
        ..kept()
    };
    let mut newest = None;
    for (number, epoch, is_newer) in
        [(5, "e", true), (5, "e", false), (4, "e", false), (6, "e", true), (1, "f", true), (1, "f", false)]
    {
        let published = publish(&*broker, &channel, "x", versioned(number, epoch)).await;
        assert_eq!(published.is_suppressed, !is_newer, "{number} {epoch}");
        match is_newer {
            true => newest = published.position,
            false => assert_eq!(published.position, newest, "the answer is where the channel stands"),
        }
    }
    assert_eq!(newest.map(|p| p.offset), Some(3));
    // Without a version nothing is compared, and without history nothing is remembered.
    assert!(!publish(&*broker, &channel, "x", kept()).await.is_suppressed);
    let nothing_kept = PublishOptions { retention: None, ..versioned(1, "f") };
    assert!(!publish(&*broker, &channel, "x", nothing_kept).await.is_suppressed);
    assert_eq!(arrived(outlets, 0).await.len(), 5);
    // A skipped call is not one that was carried out.
    let skipped = publish(&*broker, &channel, "x", keyed("k", versioned(1, "f"))).await;
    assert!(skipped.is_suppressed && !skipped.is_repeat);
    assert!(!publish(&*broker, &channel, "x", keyed("k", versioned(2, "f"))).await.is_suppressed);
}

async fn a_publication_brings_the_one_before_it_if_asked(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    let with_delta = || PublishOptions { use_delta: true, ..kept() };
    publish(&*broker, &channel, "a", with_delta()).await;
    publish(&*broker, &channel, "b", with_delta()).await;
    publish(&*broker, &channel, "c", kept()).await;
    publish(&*broker, &channel, "d", with_delta()).await;
    broker.remove_history(&channel).await.expect("removed");
    publish(&*broker, &channel, "e", with_delta()).await;
    publish(&*broker, &channel, "f", PublishOptions { retention: None, ..with_delta() }).await;
    let previous = |d: &Arc<Delivery>| d.previous.as_ref().map(|p| (p.offset, p.data.clone()));
    let got: Vec<_> = arrived(outlets, 0).await.iter().map(previous).collect();
    let before = |offset, data: &'static str| Some((offset, Bytes::from_static(data.as_bytes())));
    assert_eq!(got, [None, before(1, "\"a\""), None, before(3, "\"c\""), None, None]);
}
