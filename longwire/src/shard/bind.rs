//! Makes a live session another user's: by order of the backend, or by its answer to a webhook.
//!
//! The connection, its id and its subscriptions stay; whatever goes by the user goes by the other one from that
//! moment on: limits, permission, presence, rates, exceptions of publications, events. Subscriptions that the client
//! has only because of who it was end, and the personal channel is the other user's. What must stay true: a user who
//! has as many connections as may be gets no further one, and then nothing has changed; whoever watches a channel
//! sees the one leave and the other join.

use super::{Entry, Key, Shard, orders};
use crate::broker::Movement;
use crate::node::Control;
use crate::node::claims::InUse;
use crate::node::control::{BindError, ServerSubscribe};
use crate::session::subscription::Subscription;
use longwire_protocol::message::unsubscribe;
use longwire_protocol::name::ChannelName;
use std::rc::Rc;
use std::sync::Arc;

impl Shard {
    /// Makes a session another user's; an empty one is the anonymous user.
    ///
    /// # Errors
    /// `NotFound` if it is over or its client not connected, `Full` if the user has as many connections as allowed, `InUse`
    /// if one of them has the same client name and is to keep it.
    pub(super) fn bind_user(self: &Rc<Shard>, key: Key, user: &str) -> Result<(), BindError> {
        let is_there = |entry: &Entry| entry.session.closing().is_none() && entry.session.is_connected();
        let before = self.with(key, |entry| is_there(entry).then(|| entry.session.identity.user.clone()));
        let before = before.flatten().ok_or(BindError::NotFound)?;
        if *before == *user {
            return Ok(());
        }
        let (node, config) = (&self.node, &self.node.config);
        let user: Arc<str> = user.into();
        let place = node.admissions.admit_user(&user).map_err(|()| BindError::Full)?;
        let former = self.move_claim(key, &user).map_err(|InUse| BindError::InUse)?;
        if let Some(former) = former {
            let shard = self.clone();
            self.run_apart(async move { shard.end_former(former).await });
        }
        let personal = node.personal_channel(&before);
        self.touch(key, |entry| {
            let session = &mut entry.session;
            let is_lost = |subscription: &&Subscription| {
                personal.as_deref() == Some(&*subscription.channel) || self.is_others(subscription, &user)
            };
            let lost: Vec<_> =
                session.subscriptions.iter().filter(is_lost).map(|s| s.channel.clone()).collect();
            // The personal one may not have begun yet.
            let lost = lost.iter().map(|channel| &**channel).chain(personal.as_deref());
            lost.for_each(|channel| session.unsubscribe(channel, unsubscribe::SERVER, config));
        });
        // As the one who joined: what ended is told of the earlier user.
        self.settle(key);
        let mut shown = Vec::new();
        self.touch(key, |entry| {
            shown = entered(entry);
            node.depart(&before, entry.session.connection().heartbeat.last_seen());
            entry.session.belong_to(user.clone(), place);
        });
        self.state.borrow_mut().directory.strike_user(&before, key.index);
        self.list_user(key);
        self.show_as_other(key, shown);
        if let Some(channel) = node.personal_channel(&user) {
            self.run_apart(enter_personal(self.clone(), key, channel));
        }
        Ok(())
    }

    /// Whether a client subscribed to a channel whose name says who may, and this user may not.
    fn is_others(&self, subscription: &Subscription, user: &str) -> bool {
        // Where the backend put it, it stays.
        if subscription.traits.is_server_side {
            return false;
        }
        let name = ChannelName::parse(&subscription.channel);
        let options = self.node.channel_options(&subscription.channel);
        name.users.is_some()
            && options.is_ok_and(|options| options.allow_user_limited_channels)
            && !name.names_user(user)
    }

    /// Shows the user of a session in place of the earlier one wherever that was shown.
    fn show_as_other(self: &Rc<Shard>, key: Key, shown: Vec<Shown>) {
        for Shown { channel, serial, in_presence, is_announced, leave } in shown {
            let join = self.with(key, |entry| {
                let subscription = entry.session.subscription_numbered(serial)?;
                let chan_info = subscription.chan_info();
                Some(entry.session.identity.info_in_channel(chan_info))
            });
            let Some(join) = join.flatten() else { continue };
            if in_presence {
                self.node.enter(&channel, join.clone());
            }
            if is_announced {
                let shard = self.clone();
                self.run_apart(async move {
                    shard.announce(&channel, Movement::Leave(leave)).await;
                    shard.announce(&channel, Movement::Join(join)).await;
                });
            }
        }
    }
}

/// A subscription as others see it.
struct Shown {
    channel: Arc<str>,
    serial: u32,
    in_presence: bool,
    is_announced: bool,
    /// Who was seen.
    leave: Arc<longwire_protocol::message::ClientInfo>,
}

fn entered(entry: &Entry) -> Vec<Shown> {
    let session = &entry.session;
    let shown = session.subscriptions.iter().filter(|s| s.has_entered);
    shown
        .map(|subscription| Shown {
            channel: subscription.channel.clone(),
            serial: subscription.serial,
            in_presence: subscription.traits.presence,
            is_announced: subscription.traits.join_leave,
            leave: session.identity.info_in_channel(subscription.chan_info()),
        })
        .collect()
}

/// Subscribes a session to the personal channel of its user; where a user may have one connection, the others go.
async fn enter_personal(shard: Rc<Shard>, key: Key, channel: String) {
    let config = &shard.node.config;
    let order = Arc::new(ServerSubscribe { channel: channel.clone(), ..ServerSubscribe::default() });
    let mut is_early = true;
    shard.touch(key, |entry| is_early = entry.session.keep_for_later(&order, config));
    if !is_early {
        orders::order_subscribe(shard.clone(), key, order).await;
        // The session may have become another's meanwhile.
        let is_its_own = |entry: &mut Entry| {
            shard.node.personal_channel(&entry.session.identity.user).as_deref() == Some(&*channel)
        };
        if shard.with(key, is_its_own) == Some(false) {
            shard.touch(key, |entry| entry.session.unsubscribe(&channel, unsubscribe::SERVER, config));
            return shard.settle(key);
        }
    }
    if !config.client.personal_channel_single_connection {
        return;
    }
    let rank = shard.with(key, |entry| {
        let rank = entry.session.closing().is_none().then(|| shard.node.next_rank())?;
        entry.session.set_rank(rank);
        Some((entry.session.identity.user.clone(), rank))
    });
    if let Some((user, rank)) = rank.flatten() {
        shard.node.order(Control::Supersede { channel: channel.into(), user, rank }).await;
    }
}
