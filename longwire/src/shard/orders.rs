//! Carries out the backend's orders and answers its questions, on this shard's share of the connections.

use super::commands::Begun;
use super::{Entry, Key, Shard, arm, entry, mark_dirty, renewals};
use crate::node::control::{Census, Relayed, ServerSubscribe};
use crate::node::session_name::SessionPlace;
use crate::node::{Control, Denied, Target};
use crate::session::Session;
use longwire_protocol::command::Subscribe;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::{ClientId, Push, unsubscribe};
use longwire_protocol::{Close, CloseReason};
use std::rc::Rc;
use std::sync::Arc;

/// While memory is short, one in this many of those who read slowly is closed each time.
const SHED_SHARE: usize = 10;

impl Shard {
    /// Carries out one order or answers one question.
    pub(super) fn obey(self: &Rc<Shard>, control: Control) {
        let config = &self.node.config;
        match control {
            Control::Disconnect { target, close } => {
                self.each(&target, |entry| entry.session.close(close.clone(), "ordered by the backend"));
            }
            Control::Cut { target } => {
                self.each(&target, |entry| {
                    if !entry.session.is_away() {
                        entry.session.abort(CloseReason::PeerReset, "cut on request");
                    }
                });
            }
            Control::Unsubscribe { target, channel } => {
                for key in self.keys(&target) {
                    // Of a crowd, whom it does not concern is left alone.
                    if self.with(key, |entry| entry.session.expects(&channel)) == Some(true) {
                        let why = unsubscribe::SERVER;
                        self.touch(key, |entry| entry.session.unsubscribe(&channel, why, config));
                    }
                }
            }
            Control::Send { recipients, message, answer } => {
                // An error means that nobody waits for the answer any more.
                let _ = answer.send(self.hand_out(&recipients, &message));
            }
            Control::Bind { client, user, answer } => {
                if let Some(key) = self.key_of(client) {
                    let _ = answer.send(self.bind_user(key, &user));
                }
            }
            Control::KeepData { client, change, answer } => {
                let keep =
                    |entry: &mut Entry| entry.session.keep_data(&change, config.plain.max_session_data_bytes);
                if let Some(kept) = self.key_of(client).and_then(|key| self.with(key, keep)) {
                    let _ = answer.send(kept);
                }
            }
            Control::Refresh { target, expires_at, info } => {
                let expires = match expires_at {
                    Some(0) => None,
                    Some(_) => self.instant_of(expires_at),
                    None => {
                        return self
                            .each(&target, |entry| entry.session.close(CloseReason::Expired.into(), ""));
                    }
                };
                let ttl_seconds = expires.and(self.ttl_seconds(expires_at));
                self.each(&target, |entry| {
                    entry.session.set_expires(expires);
                    if let Some(info) = &info {
                        entry.session.identity.info = info.clone();
                        renewals::show_again(&self.node, entry, None);
                    }
                    entry.session.tell_of_time(ttl_seconds, config);
                });
            }
            Control::Subscribe { target, subscribe, begun } => {
                for key in self.keys(&target) {
                    let mut is_early = true;
                    self.touch(key, |entry| is_early = entry.session.keep_for_later(&subscribe, config));
                    if !is_early {
                        let beginning = order_subscribe(self.clone(), key, subscribe.clone());
                        let begun = begun.clone();
                        self.run_apart(async move {
                            beginning.await;
                            drop(begun);
                        });
                    }
                }
            }
            Control::TakeOver(parcel) => {
                if let Some(returning) = parcel.open() {
                    self.take_over(returning);
                }
            }
            Control::GiveWay { holder, answer } => {
                let key = Key { index: holder.index, generation: holder.generation };
                self.touch(key, |entry| entry.session.give_way());
                // An error means that nobody waits for the answer any more.
                let _ = answer.send(());
            }
            Control::Message { session, message, answer } => {
                let mut relayed = Relayed::Unknown;
                if flaw::is_on(Flaw::EmulationForgets) {
                    relayed = Relayed::Taken;
                } else if let Some(key) = self.named_by_client(&session) {
                    let now = self.node.env.clock.now();
                    self.touch(key, |entry| relayed = entry.session.handle_message(now, message, config));
                }
                let _ = answer.send(relayed);
            }
            Control::Revoke { revoked } => {
                let is_meant = |session: &Session| {
                    let user = &session.identity.user;
                    session.proof().is_some_and(|proof| self.node.revocations.is_about(&revoked, user, proof))
                };
                self.close_where(is_meant, CloseReason::ForceDisconnect, "the token was revoked");
            }
            Control::Supersede { channel, user, rank } => {
                let detail = "the user has a later connection, and may have one";
                for key in self.members(&channel) {
                    self.touch(key, |entry| {
                        if entry.session.rank() < rank && entry.session.identity.user == user {
                            entry.session.close(CloseReason::ConnectionLimit.into(), detail);
                        }
                    });
                }
            }
            Control::Reach { sent, answer } => {
                // An error means that nobody waits for the answer any more.
                let _ = answer.send(self.reach(&sent));
            }
            Control::Connections { wanted, answer } => {
                let _ = answer.send(self.connections(&wanted));
            }
            Control::Users { wanted, answer } => {
                let _ = answer.send(self.users(&wanted));
            }
            Control::Channels { pattern, answer } => {
                let mut channels = self.state.borrow().hub.channels();
                channels.retain(|channel, _| pattern.matches(channel));
                // An error means that nobody waits for the answer any more.
                let _ = answer.send(channels);
            }
            Control::Census { answer } => {
                let state = self.state.borrow();
                let outboxes = state.sessions.iter().map(|(_, entry)| entry.session.outbox.len());
                let connected = || state.sessions.iter().filter(|(_, entry)| entry.session.is_connected());
                let _ = answer.send(Census {
                    clients: connected().count(),
                    users: connected().map(|(_, entry)| entry.session.identity.user.clone()).collect(),
                    channels: state.hub.channels().into_keys().collect(),
                    subscriptions: state.hub.subscriptions(),
                    sessions: state.sessions.len(),
                    timers: state.wheel.len(),
                    largest_outbox: outboxes.max().unwrap_or(0),
                });
            }
            Control::Shed => {
                let mut slow = self.slow_keys();
                slow.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
                for (_, key) in slow.iter().take(slow.len().div_ceil(SHED_SHARE)) {
                    self.touch(*key, |entry| match entry.session.is_away() {
                        true => entry.session.lapse(CloseReason::Slow, "memory is short"),
                        false => entry.session.abort(CloseReason::Slow, "memory is short"),
                    });
                }
            }
            Control::Drain { over } => {
                self.is_draining.set(true);
                for key in self.keys(&Target::default()) {
                    let is_away = self.with(key, |entry| entry.session.is_away()) == Some(true);
                    if is_away {
                        self.touch(key, |entry| {
                            entry.session.lapse(CloseReason::Drain, "the server is shutting down");
                        });
                        continue;
                    }
                    let delay = over.mul_f64(self.draw().1);
                    let (shard, clock) = (self.clone(), self.node.env.clock);
                    self.run_apart(async move {
                        clock.sleep(delay).await;
                        shard.touch(key, |entry| entry.session.close(CloseReason::Drain.into(), ""));
                    });
                }
            }
        }
    }

    /// The sessions that an order is about, in the order of their places.
    fn keys(&self, target: &Target) -> Vec<Key> {
        let named = target.session.as_deref().map(|name| self.named(name));
        let is_meant = |key: Key, entry: &Entry| {
            let identity = &entry.session.identity;
            entry.session.closing().is_none()
                && target
                    .user
                    .as_deref()
                    .is_none_or(|user| entry.session.is_connected() && *user == *identity.user)
                && target.client.is_none_or(|client| client == identity.client)
                && !target.except.contains(&identity.client)
                && named.is_none_or(|named| named == Some(key))
        };
        let state = self.state.borrow();
        let mut meant = Vec::new();
        let mut consider = |index: u32, entry: &Entry| {
            let key = Key { index, generation: entry.generation };
            if is_meant(key, entry) {
                meant.push(key);
            }
        };
        state.look_at(target.client, target.user.as_deref(), &mut consider);
        meant
    }

    /// The session of a connected client, if it is here.
    fn key_of(&self, client: ClientId) -> Option<Key> {
        let keys = self.keys(&Target { client: Some(client), ..Target::default() });
        keys.into_iter().find(|key| self.with(*key, |entry| entry.session.is_connected()) == Some(true))
    }

    /// The session of this name, if it is here.
    fn named(&self, name: &str) -> Option<Key> {
        self.named_how(name).map(|(key, _)| key)
    }

    /// The session of this name, if it is here, which its client gave.
    pub(super) fn named_by_client(&self, name: &str) -> Option<Key> {
        let (key, is_latest) = self.named_how(name)?;
        if is_latest {
            self.with(key, |entry| entry.session.note_name_known());
        }
        Some(key)
    }

    /// The session of this name, if it is here, and whether that is its latest name.
    fn named_how(&self, name: &str) -> Option<(Key, bool)> {
        let place = SessionPlace::of_name(name).filter(|place| place.shard as usize == self.index)?;
        let key = Key { index: place.index, generation: place.generation };
        let known = |Entry { session, .. }: &mut Entry| {
            (session.identity.client, session.name_changes(), session.former_name_changes())
        };
        let (client, latest, former) = self.with(key, known)?;
        let is_name = |changes| self.node.session_names.is_name(name, place, client, changes);
        let is_latest = is_name(latest);
        (is_latest || former.is_some_and(is_name)).then_some((key, is_latest))
    }

    /// The name of a session.
    pub(super) fn name_of(&self, key: Key, session: &Session) -> String {
        let (client, changes) = (session.identity.client, session.name_changes());
        self.node.session_names.name(self.place_of(key), client, changes)
    }

    /// Where a session is.
    pub(super) fn place_of(&self, key: Key) -> SessionPlace {
        SessionPlace { shard: self.index as u32, index: key.index, generation: key.generation }
    }

    /// The sessions that are subscribed to a channel, or begin to be.
    fn members(&self, channel: &str) -> Vec<Key> {
        let state = self.state.borrow();
        let Some(hub_id) = state.hub.find(channel) else { return Vec::new() };
        let key = |index: &u32| {
            let entry = state.sessions.get(*index as usize)?;
            Some(Key { index: *index, generation: entry.generation })
        };
        state.hub.members(hub_id).iter().filter_map(key).collect()
    }

    fn close_where(&self, is_meant: impl Fn(&Session) -> bool, reason: CloseReason, detail: &str) {
        let all = self.keys(&Target::default());
        let meant = |key: &Key| {
            self.with(*key, |entry| entry.session.is_connected() && is_meant(&entry.session)) == Some(true)
        };
        for key in all.into_iter().filter(meant).collect::<Vec<_>>() {
            self.touch(key, |entry| entry.session.close(reason.into(), detail));
        }
    }

    /// The sessions whose socket takes no more, or that are away, with how much waits for each.
    fn slow_keys(&self) -> Vec<(usize, Key)> {
        let state = self.state.borrow();
        let is_waited_for = |session: &Session| session.outbox.blocked_since().is_some() || session.is_away();
        let waiting = state.sessions.iter().filter(|(_, entry)| is_waited_for(&entry.session));
        let keyed = waiting.map(|(index, entry)| {
            let bytes = entry.session.outbox.len() + entry.session.kept_bytes();
            (bytes, Key { index: index as u32, generation: entry.generation })
        });
        keyed.collect()
    }

    fn each(&self, target: &Target, mut act: impl FnMut(&mut Entry)) {
        for key in self.keys(target) {
            self.touch(key, &mut act);
        }
    }

    /// Does something to a session from outside of its task, and sees that it is written and settled.
    pub(super) fn touch(&self, key: Key, act: impl FnOnce(&mut Entry)) {
        let state = &mut *self.state.borrow_mut();
        if let Some(entry) = entry(&mut state.sessions, key) {
            act(entry);
            arm(&mut state.wheel, key, entry, &self.node.config);
            mark_dirty(&mut state.dirty, key.index, entry);
            entry.wake();
        }
    }
}

/// Begins a server-side subscription and tells the client.
pub(super) async fn order_subscribe(shard: Rc<Shard>, key: Key, order: Arc<ServerSubscribe>) {
    let config = &shard.node.config;
    let Ok(mut grant) = shard.node.grant_server_side(&order.channel, &order.terms) else { return };
    grant.expires_at = order.expires_at;
    let is_full = shard.with(key, |Entry { session, .. }| {
        // What the client has is ordered in vain, and takes no more room.
        session.subscriptions.len() >= config.client.max_subscriptions
            && !session.is_subscribed(&order.channel)
    });
    if is_full == Some(true) {
        return shard.touch(key, |entry| entry.session.close(CloseReason::ChannelLimit.into(), ""));
    }
    let ask = Subscribe {
        channel: order.channel.clone(),
        recover: order.recover_since,
        recoverable: true,
        positioned: true,
        ..Subscribe::default()
    };
    match shard.subscribe(key, &ask, grant, true).await {
        Ok(Begun::Joined(serial, mut result)) => {
            let publications = std::mem::take(&mut result.publications);
            shard.touch(key, |entry| {
                entry.session.push(&ask.channel, &Push::Subscribe(result), config);
                for publication in publications {
                    entry.session.push(&ask.channel, &Push::Publication(publication), config);
                }
            });
            shard.go_live(key, &[serial]);
            shard.touch(key, |_| {});
        }
        Ok(Begun::Already | Begun::Ended | Begun::Gone) => {}
        Err(Denied::Close(close, detail)) if close.reason == CloseReason::ChannelLimit => {
            shard.touch(key, |entry| entry.session.close(close, &detail));
        }
        Err(denied) => {
            tracing::warn!(channel = %order.channel, ?denied, "an ordered subscription failed");
            let close = Close::from(CloseReason::InternalError);
            shard.touch(key, |entry| entry.session.close(close, "an ordered subscription failed"));
        }
    }
}
