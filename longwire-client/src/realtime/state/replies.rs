//! What the server says, and what follows from it.

use super::awaited::Pending;
use super::calls::{Answer, Kind};
use super::subscriptions::{ServerSide, Stage, Subscription};
use super::track::Verdict;
use super::{MAX_UNWRITTEN_BYTES, Phase, Stalled, State};
use crate::cause::Cause;
use crate::core::Terms;
use crate::error::Error;
use crate::machine::Line;
use crate::realtime::event::{ClientEvent, Event, History, Position, PresenceStats, Publication};
use bytes::Bytes;
use longwire_protocol::Advice;
use longwire_protocol::Text;
use longwire_protocol::centrifuge::client::{
    self, ConnectResult, PONG, Push, Refusal, Reply, Said, SubscribeResult, decode_next,
};
use longwire_protocol::heartbeat::{self, Intervals};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much later than it said a server may beat, unless the program bears less silence: what SDKs of the protocol wait.
const BEAT_GRACE: Duration = Duration::from_secs(10);

/// The codes of an unsubscribe push after which the client subscribes again begin here (centrifuge protocol, section 9.2).
const AGAIN: u32 = 2500;
const TOKEN_EXPIRED: u32 = 2501;
const STATE_INVALIDATED: u32 = 2502;

impl State {
    /// Reads one message.
    pub(super) fn handle_message(&mut self, now: Instant, line: Line, mut message: Bytes) {
        while let Some(said) = decode_next(&mut message) {
            match said {
                Ok(Said::Push { channel, push }) => self.handle_push(now, &channel, push),
                Ok(Said::Reply { id, reply }) => {
                    // Of what was given up nobody wants the answer.
                    if let Some(pending) = self.awaited.take(id) {
                        self.handle_reply(now, id, pending, reply);
                    }
                }
                // Who takes no answers gets no more of them.
                Ok(Said::Ping) if self.answers_beats && self.core.unwritten() < MAX_UNWRITTEN_BYTES => {
                    self.write(now, PONG);
                }
                Ok(Said::Ping) => {}
                Err(error) => self.core.fail(now, Cause::Protocol(error.to_string())),
            }
            if !self.core.is_current(line) {
                return;
            }
        }
    }

    fn handle_push(&mut self, now: Instant, channel: &Text, push: Push) {
        match push {
            Push::Publication(publication) => return self.handle_publication(now, channel, publication),
            Push::Message { data } => return self.tell(&ClientEvent::Message(data)),
            Push::Disconnect { code, reason } => {
                return self.core.fail(now, Cause::told(short(code), reason.as_str()));
            }
            // A server that refreshes by itself needs nothing from here; the others are said elsewhere, or unknown.
            Push::Connect(_) | Push::Refresh { .. } | Push::Unknown => return,
            _ => {}
        }
        if let Some((channel, subscription)) = self.subscriptions.get_key_value(channel.as_str())
            && matches!(subscription.stage, Stage::Live(_))
        {
            let channel = Arc::clone(channel);
            return self.handle_subscription_push(now, &channel, push);
        }
        if let Push::Subscribe(result) = push {
            let channel = Arc::from(channel.as_str());
            let side = self.server_side.remove(&channel).unwrap_or_default();
            return self.begin_server_side(now, channel, side, *result);
        }
        let Some((channel, _)) = self.server_side.get_key_value(channel.as_str()) else { return };
        let channel = Arc::clone(channel);
        match push {
            Push::Join(info) => self.tell_of(&channel, Event::Join(Box::new(info))),
            Push::Leave(info) => self.tell_of(&channel, Event::Leave(Box::new(info))),
            Push::Unsubscribe { code, reason } => {
                self.server_side.remove(&channel);
                self.tell_of(&channel, Event::Unsubscribed { code, reason, is_final: true });
            }
            _ => {}
        }
    }

    pub(super) fn handle_publication(
        &mut self,
        now: Instant,
        channel: &Text,
        publication: client::Publication,
    ) {
        let max_bytes = self.core.options().max_message_bytes;
        let live = |of: &&mut Box<Subscription>| matches!(of.stage, Stage::Live(_));
        if let Some(subscription) = self.subscriptions.get_mut(channel.as_str()).filter(live) {
            match subscription.track.next(publication, max_bytes) {
                Verdict::Next(publication) => {
                    let pushed = subscription.mailbox.push(Event::Publication(publication));
                    self.wakes.extend(pushed.wakes);
                    if pushed.has_filled {
                        self.stalled.push(Stalled::Subscription(Arc::clone(&subscription.mailbox)));
                    }
                }
                Verdict::Duplicate => {}
                Verdict::Missing => self.recover(now, &Arc::from(channel.as_str())),
            }
        } else if let Some(side) = self.server_side.get_mut(channel.as_str()) {
            match side.track.next(publication, max_bytes) {
                Verdict::Next(publication) => {
                    if !self.listeners.is_empty() {
                        self.tell_of(&Arc::from(channel.as_str()), Event::Publication(publication));
                    }
                }
                Verdict::Duplicate => {}
                // Only a login brings back what is missing in a subscription of the server.
                Verdict::Missing => {
                    self.core
                        .fail(now, Cause::Protocol(format!("a publication is missing in \"{channel}\"")));
                }
            }
        }
    }

    /// A push about a subscription that is confirmed.
    pub(super) fn handle_subscription_push(&mut self, now: Instant, channel: &Arc<str>, push: Push) {
        match push {
            Push::Join(info) => self.tell_subscription(channel, Event::Join(Box::new(info))),
            Push::Leave(info) => self.tell_subscription(channel, Event::Leave(Box::new(info))),
            Push::Unsubscribe { code, reason } if code >= AGAIN => {
                self.tell_subscription(channel, Event::Unsubscribed { code, reason, is_final: false });
                if let Some(subscription) = self.subscriptions.get_mut(channel) {
                    if matches!(code, TOKEN_EXPIRED | STATE_INVALIDATED) {
                        subscription.drop_token();
                    }
                    if code == STATE_INVALIDATED {
                        subscription.track.invalidate();
                    }
                }
                self.pause(now, channel);
            }
            Push::Unsubscribe { code, reason } => {
                if let Some(subscription) = self.remove_subscription(channel) {
                    subscription.end(code, reason, &mut self.wakes);
                }
            }
            _ => {}
        }
    }

    pub(super) fn tell_subscription(&mut self, channel: &Arc<str>, event: Event) {
        let Some(subscription) = self.subscriptions.get(channel) else { return };
        let pushed = subscription.mailbox.push(event);
        self.wakes.extend(pushed.wakes);
        if pushed.has_filled {
            self.stalled.push(Stalled::Subscription(Arc::clone(&subscription.mailbox)));
        }
    }

    fn handle_reply(&mut self, now: Instant, id: u32, pending: Pending, reply: Reply) {
        match (pending, reply) {
            (Pending::Connect, Reply::Connect(result)) => self.handle_connected(now, *result),
            (Pending::Connect, Reply::Error(refusal)) => self.handle_login_refused(now, &refusal),
            (Pending::Subscribe(channel, key), Reply::Subscribe(result)) => {
                self.handle_subscribed(now, &channel, key, *result);
            }
            (Pending::Subscribe(channel, key), Reply::Error(refusal)) => {
                self.handle_subscribe_refused(now, &channel, key, refusal);
            }
            (Pending::Unsubscribe(channel), Reply::Unsubscribe) => {
                self.leaving.remove(&channel);
                self.ask_for(now, &channel);
            }
            // Whether the channel is left is unknown; a new connection begins without it.
            (Pending::Unsubscribe(_), Reply::Error(refusal)) => {
                let Refusal { code, message, .. } = refusal;
                let (text, advice) = (message.into(), Advice::Reconnect);
                self.core.fail(now, Cause::Told { code: short(code), text, advice, after: None });
            }
            (Pending::Refresh, Reply::Refresh { ttl_seconds }) => self.expect_refresh(now, ttl_seconds),
            (Pending::Refresh, Reply::Error(refusal)) if refusal.is_passing() => self.retry_refresh(now),
            (Pending::Refresh, Reply::Error(refusal)) => {
                let Refusal { code, message, .. } = refusal;
                let (text, advice) = (message.into(), Advice::Stop);
                self.core.fail(now, Cause::Told { code: short(code), text, advice, after: None });
            }
            // It crossed the end of what it was to prolong: what comes next has a token and a time of its own.
            (Pending::SubRefresh(channel, key), _) if !self.is_live(&channel, key) => {}
            (Pending::SubRefresh(channel, _), Reply::SubRefresh { ttl_seconds }) => {
                self.expect_sub_refresh(now, &channel, ttl_seconds);
            }
            (Pending::SubRefresh(channel, _), Reply::Error(refusal)) if refusal.is_passing() => {
                self.retry_sub_refresh(now, &channel);
            }
            (Pending::SubRefresh(channel, _), Reply::Error(refusal)) => {
                self.end_subscription(now, &channel, refusal.code, refusal.message);
            }
            (Pending::Call, reply) => {
                let result = match self.calls.kind(id) {
                    Some(kind) => answer(kind, reply),
                    None => return,
                };
                self.calls.finish(id, result, &mut self.wakes);
            }
            (pending, _) => {
                let cause = Cause::Protocol(format!("a reply of another kind to \"{}\"", pending.name()));
                self.core.fail(now, cause);
            }
        }
    }

    /// An answer did not come in time.
    pub(super) fn handle_unanswered(&mut self, now: Instant, id: u32, pending: Pending) {
        match pending {
            // How the channel stands is unknown: only a new connection makes it certain.
            Pending::Connect | Pending::Subscribe(..) | Pending::Unsubscribe(_) => {
                self.core.fail(now, Cause::CommandTimeout(pending.name()));
            }
            Pending::Refresh => self.retry_refresh(now),
            Pending::SubRefresh(channel, key) => {
                if self.is_live(&channel, key) {
                    self.retry_sub_refresh(now, &channel);
                }
            }
            Pending::Call => self.calls.finish(id, Err(Error::Timeout), &mut self.wakes),
        }
    }

    fn handle_connected(&mut self, now: Instant, result: ConnectResult) {
        let silence = self.core.options().timeouts.silence;
        let (kind, intervals) = match result.ping_seconds {
            // A server that never beats is asked, where there is a way to ask: as often as silence is found out in time.
            0 => {
                let (interval, timeout) = (silence * 2 / 3, silence / 3);
                let kind = if self.is_websocket { heartbeat::Kind::TwoWay } else { heartbeat::Kind::Silent };
                (kind, Intervals { interval, timeout, max_silence: silence * 2 })
            }
            seconds => {
                let max_silence = Duration::from_secs(seconds.into()) + BEAT_GRACE.min(silence);
                let (interval, timeout) = (heartbeat::OFF, Duration::ZERO);
                (heartbeat::Kind::Idle, Intervals { interval, timeout, max_silence })
            }
        };
        self.answers_beats = result.pong;
        // A text of its own: the message holds everything else that the login brought.
        self.client = Some(result.client.to_owned_text());
        self.phase = Phase::Connected;
        let (session, node) = (String::from(result.session), String::from(result.node));
        self.core.logged_in(now, Terms { intervals, kind, session, node });
        self.tell_transitions();
        self.wake_watchers();
        self.expect_refresh(now, result.ttl_seconds);
        let mut before = std::mem::take(&mut self.server_side);
        for (channel, result) in result.subs {
            let channel = Arc::from(channel.as_str());
            let side = before.remove(&channel).unwrap_or_default();
            self.begin_server_side(now, channel, side, result);
        }
        for channel in before.into_keys() {
            let reason = "the server did not subscribe again".into();
            self.tell_of(&channel, Event::Unsubscribed { code: 2000, reason, is_final: true });
        }
        self.ask_for_all(now);
    }

    /// The server subscribed this client.
    pub(super) fn begin_server_side(
        &mut self,
        now: Instant,
        channel: Arc<str>,
        mut side: ServerSide,
        result: SubscribeResult,
    ) {
        let mut events = Vec::new();
        side.recoverable = result.recoverable;
        let max_bytes = self.core.options().max_message_bytes;
        let is_whole = side.track.begin(result, max_bytes, &mut events);
        for event in events {
            self.tell_of(&channel, event);
        }
        self.server_side.insert(channel, side);
        if !is_whole {
            self.core.fail(now, Cause::Protocol("a difference that nobody asked for".to_owned()));
        }
    }

    fn handle_login_refused(&mut self, now: Instant, refusal: &Refusal) {
        let may_help = match refusal.code {
            Refusal::TOKEN_EXPIRED => self.drop_token(),
            _ => refusal.is_passing(),
        };
        let advice = if may_help { Advice::Reconnect } else { Advice::Stop };
        let text = refusal.message.as_str().to_owned();
        self.core.fail(now, Cause::Told { code: short(refusal.code), text, advice, after: None });
    }

    fn handle_subscribed(&mut self, now: Instant, channel: &Arc<str>, key: u32, result: SubscribeResult) {
        let max_bytes = self.core.options().max_message_bytes;
        let Some(subscription) = self.subscription(channel, key) else { return };
        if subscription.stage != Stage::Asked {
            return;
        }
        subscription.stage = Stage::Live(now);
        let (mut events, ttl_seconds) = (Vec::new(), result.ttl_seconds);
        let is_whole = subscription.track.begin(result, max_bytes, &mut events);
        for event in events {
            self.tell_subscription(channel, event);
        }
        self.expect_sub_refresh(now, channel, ttl_seconds);
        if !is_whole {
            self.recover(now, channel);
        }
    }

    fn handle_subscribe_refused(&mut self, now: Instant, channel: &Arc<str>, key: u32, refusal: Refusal) {
        let Some(subscription) = self.subscription(channel, key) else { return };
        if subscription.stage != Stage::Asked {
            return;
        }
        let may_help = match refusal.code {
            Refusal::TOKEN_EXPIRED => subscription.drop_token(),
            Refusal::UNRECOVERABLE => {
                subscription.track.invalidate();
                true
            }
            _ => refusal.is_passing(),
        };
        // The server has no such subscription: there is nothing to leave.
        subscription.stage = Stage::Wanted;
        if may_help {
            self.pause(now, channel);
        } else {
            self.end_subscription(now, channel, refusal.code, refusal.message);
        }
    }
}

/// What a reply means to the call that it answers.
fn answer(kind: Kind, reply: Reply) -> Result<Answer, Error> {
    match (kind, reply) {
        (_, Reply::Error(Refusal { code, message, temporary })) => {
            Err(Error::Refused { code, message: message.into(), temporary })
        }
        (Kind::Publish, Reply::Publish) => Ok(Answer::Done),
        (Kind::Rpc, Reply::Rpc { data }) => Ok(Answer::Rpc(data)),
        (Kind::Presence, Reply::Presence(clients)) => Ok(Answer::Presence(clients)),
        (Kind::PresenceStats, Reply::PresenceStats { num_clients, num_users }) => {
            Ok(Answer::PresenceStats(PresenceStats { clients: num_clients, users: num_users }))
        }
        (Kind::History, Reply::History(history)) => {
            let epoch: Arc<str> = Arc::from(history.epoch.as_str());
            let publication = |publication: client::Publication| {
                let client::Publication { offset, data, tags, info, .. } = publication;
                Publication { offset, epoch: Arc::clone(&epoch), data, tags, info }
            };
            let publications = history.publications.into_iter().map(publication).collect();
            let position = Position { offset: history.offset, epoch: Arc::clone(&epoch) };
            Ok(Answer::History(History { publications, position }))
        }
        _ => Err(Error::Protocol("a reply of another kind".to_owned())),
    }
}

/// A code as a cause has it.
fn short(code: u32) -> u16 {
    u16::try_from(code).unwrap_or(0)
}
