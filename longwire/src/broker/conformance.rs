//! The contract of every broker, as tests that each implementation runs.
//!
//! Called with a function that makes a broker for given outlets; panics where the contract is broken.

use super::{Broker, Movement, Outlets};
use crate::delivery::{Delivery, Mailbox, What};
use crate::history::{Part, Retention};
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo};
use longwire_protocol::{Publication, Since};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const RETENTION: Retention =
    Retention { size: 100, ttl: Duration::from_secs(60), meta_ttl: Duration::from_secs(3600) };

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
}

fn publication(text: &str) -> Publication {
    Publication { offset: 0, data: Bytes::from(format!("{text:?}")), info: None, tags: Vec::new() }
}

fn arrived(outlets: &Outlets, shard: usize) -> Vec<Arc<Delivery>> {
    let mut batch = VecDeque::new();
    outlets[shard].take(&mut batch);
    batch.into()
}

async fn offsets_ascend_and_arrive_in_order(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    for n in 1..=5u64 {
        let position = broker.publish(&channel, publication("x"), Some(RETENTION)).await.expect("published");
        assert_eq!(position.map(|p| p.offset), Some(n));
    }
    let got: Vec<_> = arrived(outlets, 0).iter().map(|d| d.position.map(|p| p.offset)).collect();
    assert_eq!(got, (1..=5).map(Some).collect::<Vec<_>>());
}

async fn only_interested_shards_are_handed_anything(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 1, true).await.expect("interest is noted");
    broker.publish(&channel, publication("x"), Some(RETENTION)).await.expect("published");
    assert_eq!((arrived(outlets, 0).len(), arrived(outlets, 1).len()), (0, 1));
    broker.set_interest(&channel, 1, false).await.expect("interest is noted");
    broker.publish(&channel, publication("x"), Some(RETENTION)).await.expect("published");
    assert_eq!((arrived(outlets, 0).len(), arrived(outlets, 1).len()), (0, 0));
}

async fn a_channel_without_history_has_no_positions(broker: Box<dyn Broker>, outlets: &Outlets) {
    let channel: Arc<str> = "news".into();
    broker.set_interest(&channel, 0, true).await.expect("interest is noted");
    assert_eq!(broker.publish(&channel, publication("x"), None).await.expect("published"), None);
    assert_eq!(arrived(outlets, 0)[0].position, None);
}

async fn history_gives_what_was_published_and_an_epoch_before_that(broker: Box<dyn Broker>) {
    let channel: Arc<str> = "news".into();
    let all = Part { since: None, limit: usize::MAX, reverse: false };
    let before = broker.history(&channel, RETENTION, all).await.expect("history is read");
    assert_eq!((before.publications.len(), before.top.offset), (0, 0));
    broker.publish(&channel, publication("a"), Some(RETENTION)).await.expect("published");
    broker.publish(&channel, publication("b"), Some(RETENTION)).await.expect("published");
    let since = Part { since: Some(Since { offset: 1, epoch: None }), ..all };
    let page = broker.history(&channel, RETENTION, since).await.expect("history is read");
    assert_eq!(page.top.epoch, before.top.epoch, "the epoch changed without a loss");
    assert_eq!(page.top.offset, 2);
    assert_eq!(page.publications.iter().map(|p| &p.data[..]).collect::<Vec<_>>(), [b"\"b\""]);
}

async fn removed_history_keeps_its_numbering(broker: Box<dyn Broker>) {
    let channel: Arc<str> = "news".into();
    let first = broker.publish(&channel, publication("a"), Some(RETENTION)).await.expect("published");
    broker.remove_history(&channel).await.expect("removed");
    let all = Part { since: None, limit: usize::MAX, reverse: false };
    let page = broker.history(&channel, RETENTION, all).await.expect("history is read");
    assert_eq!((page.publications.len(), Some(page.top)), (0, first));
    let second = broker.publish(&channel, publication("b"), Some(RETENTION)).await.expect("published");
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
    let got: Vec<_> = arrived(outlets, 0).iter().map(|d| d.what.clone()).collect();
    assert_eq!(got, [What::Join(info.clone()), What::Leave(info)]);
}
