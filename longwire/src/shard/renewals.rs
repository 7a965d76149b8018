//! Asks the backend whether connections and subscriptions whose time has come live on.
//!
//! What a webhook granted for a time is prolonged by a webhook. The question runs beside the commands of the client,
//! which go on in their order; the session or subscription that is gone when the answer comes is simply not there.
//! What must stay true: whatever is asked about ends or gets another time, so that it is never forgotten.

use super::{Entry, Key, Shard};
use crate::backend::{Refusal, Renewal};
use crate::node::Node;
use crate::session::Ripe;
use bytes::Bytes;
use longwire_protocol::{Close, CloseReason};
use std::rc::Rc;
use std::time::Duration;

/// How long something lives on that the backend could not be asked about; then it is asked again.
const RETRY: Duration = Duration::from_secs(60);

/// What an answer comes to.
enum Verdict {
    /// It lives on.
    Until { expires_at: Option<i64>, info: Option<Bytes>, meta: Option<Bytes> },
    /// It is over.
    Over,
    /// The connection is closed.
    Close(Close),
    /// Ask again later.
    Retry,
}

impl Verdict {
    fn of(answer: Result<Renewal, Refusal>, now_unix: i64) -> Verdict {
        match answer {
            Ok(Renewal::Until { expires_at, .. }) if expires_at.is_some_and(|at| at <= now_unix) => {
                Verdict::Over
            }
            Ok(Renewal::Until { expires_at, info, meta }) => Verdict::Until { expires_at, info, meta },
            Ok(Renewal::Expired) | Err(Refusal::Error(_)) => Verdict::Over,
            Err(Refusal::Close(close)) => Verdict::Close(close),
            Err(Refusal::Failed) => Verdict::Retry,
        }
    }
}

/// Asks about one of them, and does what the backend says.
pub(super) async fn renew(shard: Rc<Shard>, key: Key, ripe: Ripe) {
    let Some(asker) = shard.with(key, |entry| entry.session.asker()) else { return };
    let (node, clock) = (&shard.node, shard.node.env.clock);
    let answer = match &ripe {
        Ripe::Connection => node.backend.refresh(&asker).await,
        Ripe::Subscription { channel, .. } => {
            let webhook = node.channel_options(channel).map_or("", |options| &options.sub_refresh_webhook);
            node.backend.sub_refresh(webhook, &asker, channel).await
        }
    };
    let verdict = Verdict::of(answer, clock.unix_seconds());
    let retry = Some(clock.now() + RETRY);
    shard.touch(key, |entry| match (ripe, verdict) {
        (_, Verdict::Close(close)) => entry.session.close(close, "ordered by a webhook's answer"),
        (Ripe::Connection, Verdict::Over) => {
            entry.session.close(CloseReason::Expired.into(), "the refresh webhook says so");
        }
        (Ripe::Connection, Verdict::Retry) => entry.session.set_expires(retry),
        (Ripe::Connection, Verdict::Until { expires_at, info, meta }) => {
            entry.session.set_expires(shard.instant_of(expires_at));
            if let Some(meta) = meta.filter(|_| node.config.hands_on_meta()) {
                entry.session.carry(|baggage| baggage.meta = meta);
            }
            if let Some(info) = info {
                entry.session.identity.info = info;
                show_again(node, entry, None);
            }
            let ttl_seconds = shard.ttl_seconds(expires_at);
            entry.session.tell_of_time(ttl_seconds, &node.config);
        }
        (Ripe::Subscription { serial, .. }, Verdict::Over) => {
            entry.session.expire_subscription(serial, &node.config);
        }
        (Ripe::Subscription { serial, .. }, Verdict::Retry) => {
            entry.session.subscription_numbered(serial).map(|s| s.set_expires(retry)).unwrap_or_default();
        }
        (Ripe::Subscription { serial, .. }, Verdict::Until { expires_at, info, .. }) => {
            let Some(subscription) = entry.session.subscription_numbered(serial) else { return };
            subscription.set_expires(shard.instant_of(expires_at));
            if let Some(info) = info {
                subscription.set_chan_info(info);
                show_again(node, entry, Some(serial));
            }
        }
    });
}

/// Shows a client's changed information in the presence of one of its subscriptions, or of all.
pub(super) fn show_again(node: &Node, entry: &Entry, serial: Option<u32>) {
    let session = &entry.session;
    let is_meant = |shown: u32| serial.is_none_or(|serial| serial == shown);
    for subscription in session.subscriptions.iter().filter(|s| is_meant(s.serial)) {
        if subscription.has_entered && subscription.traits.presence {
            let info = session.identity.info_in_channel(subscription.chan_info());
            node.enter(&subscription.channel, info);
        }
    }
}
