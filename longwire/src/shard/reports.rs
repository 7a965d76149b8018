//! What the backend is told of this shard's clients.
//!
//! Called where something has happened: after the reply to a connect or subscribe command, and when a subscription
//! or a session leaves the hub. Events are only recorded here; `events` sees that they arrive. What must stay true:
//! an end is recorded if and only if its beginning was, and a client's events are numbered in their order.

use super::{Entry, Shard, Told};
use crate::events::event::{Client, Details, Disconnected};
use crate::events::{Event, EventType};
use crate::session::Ended;
use crate::session::subscription::Subscription;
use std::sync::Arc;

impl Shard {
    /// Tells of a client that was told of its connection; on a stream that is not before its head, which may yet
    /// be a refusal.
    pub(super) fn report_connected(&self, entry: &mut Entry, name: String, version: String) {
        let is_over = entry.session.closing().is_some() || !entry.session.is_told();
        if is_over || !self.node.events.is_recorded(EventType::Connected) {
            return;
        }
        entry.told = Told::Last(0);
        if !self.record(entry, EventType::Connected, None, Details::Connected { name, version }) {
            // Too much waits.
            entry.told = Told::Nothing;
        }
    }

    /// Tells of subscriptions whose reply was given to the connection: those with these serial numbers, and on a
    /// stream those that waited for its head.
    pub(super) fn report_subscribed(&self, entry: &mut Entry, serials: &[u32]) {
        let events = &self.node.events;
        let (tells_of_clients, tells_of_channels) =
            (events.is_recorded(EventType::Subscribed), events.is_recorded(EventType::Occupied));
        let is_over = entry.session.closing().is_some() || !entry.session.is_told();
        if is_over || !events.is_recorded(EventType::Connected) && !tells_of_channels {
            return;
        }
        if entry.told == Told::NotYet {
            self.report_connected(entry, String::new(), String::new());
        }
        let begun = |s: &&mut Subscription| !s.is_counted && (serials.contains(&s.serial) || s.is_answered());
        let mut subscriptions = Vec::new();
        for subscription in entry.session.subscriptions.iter_mut().filter(begun) {
            subscription.is_counted = true;
            subscriptions.push((subscription.serial, subscription.channel.clone(), subscription.recovered));
        }
        for (serial, channel, recovered) in subscriptions {
            events.enter(&channel, self.node.env.clock.unix_millis());
            if tells_of_clients
                && self.record(entry, EventType::Subscribed, Some(channel), Details::Subscribed { recovered })
                && let Some(told) = entry.session.subscriptions.iter_mut().find(|s| s.serial == serial)
            {
                told.is_told = true;
            }
        }
    }

    /// Tells of a subscription that ended.
    pub(super) fn report_unsubscribed(&self, entry: &mut Entry, ended: &Ended) {
        let Ended { subscription, why: (code, reason) } = ended;
        if !subscription.is_counted {
            return;
        }
        let channel = &subscription.channel;
        if subscription.is_told {
            let details = Details::Unsubscribed { code: *code, reason };
            self.record(entry, EventType::Unsubscribed, Some(channel.clone()), details);
        }
        self.node.events.leave(channel, self.node.env.clock.now());
    }

    /// Tells of a client whose connection ended.
    pub(super) fn report_disconnected(&self, entry: &mut Entry) {
        let is_told = matches!(entry.told, Told::Last(_));
        let Some(closing) = entry.session.closing().filter(|_| is_told) else { return };
        let now = self.node.env.clock.now();
        let reason = closing.close.reason;
        let end = Disconnected {
            reason: reason.name(),
            code: closing.close.code,
            category: reason.category().as_str(),
            initiator: closing.initiator.as_str(),
            detail: closing.detail.clone(),
            duration_ms: (now - entry.session.opened).as_millis() as u64,
            last_seen_ms_ago: (now - entry.session.connection().heartbeat.last_seen()).as_millis() as u64,
            unsent_bytes: closing.unsent_bytes as u64,
        };
        self.record(entry, EventType::Disconnected, None, Details::Disconnected(Box::new(end)));
        entry.told = Told::Nothing;
    }

    /// Records an event of a client; false if nothing is told of it, or there is no room.
    fn record(
        &self,
        entry: &mut Entry,
        kind: EventType,
        channel: Option<Arc<str>>,
        details: Details,
    ) -> bool {
        let Told::Last(before) = entry.told else { return false };
        let events = &self.node.events;
        // What is lost takes a number, too: the gap shows the loss.
        let seq = before.saturating_add(events.is_sent(kind).into());
        entry.told = Told::Last(seq);
        let connection = entry.session.connection();
        let client = Client {
            id: entry.session.identity.client,
            seq,
            user: entry.session.identity.user.clone(),
            transport: connection.transport().as_str(),
            dialect: connection.dialect().as_str(),
            protocol: connection.format().as_str(),
        };
        events.record(Event {
            kind,
            time_ms: self.node.env.clock.unix_millis(),
            client: Some(client),
            channel,
            details,
        })
    }
}
