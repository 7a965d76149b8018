//! Long-poll: the last rung of the ladder, where nothing but requests and answers passes.
//!
//! Here longwire speaks its plain dialect: one request names every channel and where the reader stands, one answer brings
//! what there is. So subscriptions work, and commands do not: calls end as [`Error::NotAvailable`]. What differs for a
//! reader: a subscription begins with the next request (within [`IDLE_WAIT`]); the server speaks of all channels together, so a
//! loss in one is told in all; subscription tokens are not sent.
//!
//! What must stay true: nothing but the login is asked while a reader is behind; what is not said to be recovered is told as lost.

use super::subscriptions::Stage;
use super::{Phase, State};
use crate::address::Address;
use crate::cause::Cause;
use crate::core::Terms;
use crate::error::Error;
use crate::plain::event::{Answer, Object};
use crate::plain::{Content, Publication};
use crate::realtime::event::{ClientEvent, ClientInfo, Event};
use crate::transport::Transport;
use bytes::Bytes;
use longwire_protocol::centrifuge::client::{self, SubscribeResult};
use longwire_protocol::filter::Filter;
use longwire_protocol::heartbeat::{self, Intervals, OFF};
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::position::Epoch;
use longwire_protocol::{Position, Text, websocket};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::form_urlencoded::byte_serialize;

/// How long a request that brings nothing else waits for news.
const IDLE_WAIT: Duration = Duration::from_secs(10);

/// How long one waits that names a channel for the first time: its reader wants to know how it stands.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What is kept from one poll to the next, and over a break.
#[derive(Debug, Default)]
pub(super) struct Polling {
    server: Option<Arc<Address>>,
    /// By what name the client returns; the server gives it.
    name: String,
    session: String,
    /// Where the client stands, in the server's words.
    since: String,
    is_due: bool,
}

impl State {
    /// Asks again, if the last answer is there and every reader keeps up; first of all who it is, whoever is behind.
    pub(super) fn poll_again(&mut self, now: Instant) {
        let is_linked = matches!(self.phase, Phase::LoggingIn | Phase::Connected);
        if !is_linked || self.phase == Phase::Connected && !self.stalled.is_empty() {
            return;
        }
        let Some(polling) = self.polling.as_mut().filter(|polling| polling.is_due) else { return };
        polling.is_due = false;
        // What the server said, and where readers stood before it said anything of their channels.
        let mut positions = PositionToken::parse(polling.since.as_bytes()).unwrap_or_default();
        let (mut channels, mut is_first) = (Vec::new(), self.phase == Phase::LoggingIn);
        for (channel, subscription) in self.subscriptions.iter_mut() {
            if subscription.stage == Stage::Wanted {
                subscription.stage = Stage::Asked;
                is_first = true;
                if let Some(since) = subscription.track.since() {
                    let position = Position { offset: since.offset, epoch: Epoch::parse(since.epoch) };
                    positions.set(channel, position);
                }
            }
            if matches!(subscription.stage, Stage::Asked | Stage::Live(_)) {
                channels.push(Arc::clone(channel));
            }
        }
        let mut since = Vec::new();
        positions.write(&mut since);
        polling.since = String::from_utf8_lossy(&since).into_owned();
        let wait = if is_first { FIRST_WAIT } else { IDLE_WAIT };
        let target = polling.target(&channels, &self.token, wait);
        self.core.send(now, websocket::Kind::Text, target.as_bytes());
    }

    /// An answer came; an empty one says that there is nothing new.
    pub(super) fn handle_poll_answer(&mut self, now: Instant, text: &Bytes) {
        let read = if text.is_empty() { Ok(None) } else { Answer::read(text).map(Some) };
        let answer = match read {
            Ok(answer) => answer,
            Err(what) => return self.core.fail(now, Cause::Protocol(what)),
        };
        if self.phase == Phase::LoggingIn {
            self.phase = Phase::Connected;
            let client = answer.as_ref().map(|answer| answer.welcome.client.as_str().into());
            self.client = client.or(self.client.take());
            let max_silence = self.core.options().timeouts.silence.saturating_add(IDLE_WAIT);
            let intervals = Intervals { interval: OFF, timeout: Duration::ZERO, max_silence };
            let kind = heartbeat::Kind::Idle;
            self.core.logged_in(now, Terms { intervals, kind, session: String::new(), node: String::new() });
            self.tell_transitions();
            self.wake_watchers();
        }
        let Some(polling) = &mut self.polling else { return };
        polling.is_due = true;
        // What nothing is new to stands where it stood.
        let Some(Answer { welcome, since, objects }) = answer else {
            return self.confirm(now, Some(true), &BTreeMap::new(), None);
        };
        polling.session = welcome.session;
        if !welcome.name.is_empty() {
            polling.name = welcome.name;
        }
        polling.since = since;
        let positions = PositionToken::parse(polling.since.as_bytes()).unwrap_or_default();
        let mut publications: BTreeMap<String, Vec<Publication>> = BTreeMap::new();
        let mut others = Vec::new();
        for object in objects {
            match object {
                Ok(Object::Publication { publication, .. }) => {
                    publications.entry(publication.channel.clone()).or_default().push(publication);
                }
                Ok(object) => others.push(object),
                Err(what) => return self.core.fail(now, Cause::Protocol(what)),
            }
        }
        self.confirm(now, welcome.recovered, &publications, Some(&positions));
        for (channel, publications) in publications {
            self.deliver(now, &Arc::from(channel), publications);
        }
        for object in others {
            self.handle_polled_object(now, object);
        }
    }

    /// Tells readers how their channels stand: those that were asked for first, and all if something is lost.
    fn confirm(
        &mut self,
        now: Instant,
        recovered: Option<bool>,
        publications: &BTreeMap<String, Vec<Publication>>,
        positions: Option<&PositionToken>,
    ) {
        let max_bytes = self.core.options().max_message_bytes;
        let mut events = Vec::new();
        for (channel, subscription) in self.subscriptions.iter_mut() {
            match subscription.stage {
                Stage::Asked => {}
                Stage::Live(_) if recovered == Some(false) => {}
                _ => continue,
            }
            let since = subscription.track.since().map(|since| (since.offset, Text::from(since.epoch)));
            let position = match positions {
                Some(positions) => {
                    positions.get(channel).map(|at| (at.offset, Text::from(at.epoch.as_str())))
                }
                None => since.clone(),
            };
            let is_whole = recovered == Some(true);
            let first = publications.get(&**channel).and_then(|publications| publications.first());
            let offset = match (is_whole, &since, first, &position) {
                (true, Some((offset, _)), ..) => *offset,
                // The position is that behind what this answer brings.
                (_, _, Some(first), _) => first.offset.saturating_sub(1),
                (_, _, None, position) => position.as_ref().map_or(0, |(offset, _)| *offset),
            };
            let result = SubscribeResult {
                recoverable: position.is_some(),
                offset,
                epoch: position.map(|(_, epoch)| epoch).unwrap_or_default(),
                recovered: is_whole,
                // They are counted here, and delivered by themselves.
                publications: Vec::new(),
                ..SubscribeResult::default()
            };
            subscription.stage = Stage::Live(now);
            subscription.track.pass_gaps();
            let mut told = Vec::new();
            subscription.track.begin(result, max_bytes, &mut told);
            let missed = publications.get(&**channel).map_or(0, Vec::len);
            for event in told {
                let event = match event {
                    Event::Recovered { .. } => Event::Recovered { publications: missed },
                    event => event,
                };
                events.push((Arc::clone(channel), event));
            }
        }
        for (channel, event) in events {
            self.tell_subscription(&channel, event);
        }
    }

    fn deliver(&mut self, now: Instant, channel: &Arc<str>, publications: Vec<Publication>) {
        let filter = self.subscriptions.get(channel).and_then(|subscription| {
            subscription.settings.tags_filter.as_ref().and_then(|node| Filter::new(node).ok())
        });
        for publication in publications {
            let tags: Vec<(String, String)> = publication.tags.into_iter().collect();
            // The plain dialect knows no filters.
            if filter.as_ref().is_some_and(|filter| !filter.matches(&tags)) {
                continue;
            }
            // Data of another kind is for clients that carry bytes.
            let Content::Json(data) = publication.data else { continue };
            let tags = tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            let info = client_info(&publication.info).map(Box::new);
            let publication =
                client::Publication { offset: publication.offset, data, info, tags, delta: false };
            self.handle_publication(now, &Text::from(&**channel), publication);
        }
    }

    fn handle_polled_object(&mut self, now: Instant, object: Object) {
        match object {
            Object::Message(Content::Json(data)) => self.tell(&ClientEvent::Message(data)),
            Object::Join { channel, info } => {
                if let Some(info) = client_info(&info) {
                    self.tell_polled(&Arc::from(channel), Event::Join(Box::new(info)));
                }
            }
            Object::Leave { channel, info } => {
                if let Some(info) = client_info(&info) {
                    self.tell_polled(&Arc::from(channel), Event::Leave(Box::new(info)));
                }
            }
            Object::Subscribed { channel, .. } if !self.subscriptions.contains_key(&channel) => {
                let side = self.server_side.remove(&*channel).unwrap_or_default();
                self.begin_server_side(now, Arc::from(channel), side, SubscribeResult::default());
            }
            Object::Unsubscribed { channel, code, reason } => {
                let channel: Arc<str> = Arc::from(channel);
                let push = client::Push::Unsubscribe { code, reason: reason.into() };
                if self.subscriptions.contains_key(&channel) {
                    self.handle_subscription_push(now, &channel, push);
                } else if self.server_side.remove(&channel).is_some()
                    && let client::Push::Unsubscribe { code, reason } = push
                {
                    self.tell_of(&channel, Event::Unsubscribed { code, reason, is_final: true });
                }
            }
            Object::Disconnect { code, reason, .. } => self.core.fail(now, Cause::told(code, reason)),
            // Not JSON, of no channel of ours, or unknown.
            _ => {}
        }
    }

    fn tell_polled(&mut self, channel: &Arc<str>, event: Event) {
        match self.subscriptions.get(channel) {
            Some(subscription) if subscription.settings.join_leave => self.tell_subscription(channel, event),
            Some(_) => {}
            None if self.server_side.contains_key(channel) => self.tell_of(channel, event),
            None => {}
        }
    }

    /// Answers every call that waits: nothing can be asked here.
    pub(super) fn refuse_calls(&mut self) {
        let error = Error::NotAvailable { transport: Transport::Poll.name() };
        self.calls.refuse_waiting(&error, &mut self.wakes);
    }
}

impl Polling {
    /// A server is reached: it is asked first thing.
    pub(super) fn reach(&mut self, server: Arc<Address>) {
        self.server = Some(server);
        self.is_due = true;
    }

    fn target(&self, channels: &[Arc<str>], token: &str, wait: Duration) -> String {
        let mut target = self
            .server
            .as_ref()
            .map_or_else(|| "/poll".to_owned(), |server| super::target(server, Transport::Poll));
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(name);
                target.push('=');
                target.extend(byte_serialize(value.as_bytes()));
            }
        };
        for channel in channels {
            add("channel", channel);
        }
        add("token", token);
        add("client", &self.name);
        if !self.name.is_empty() {
            add("session", &self.session);
        }
        add("since", &self.since);
        add("wait", &wait.as_secs().to_string());
        target
    }
}

/// Reads who a client is.
fn client_info(json: &Bytes) -> Option<ClientInfo> {
    #[derive(Deserialize)]
    struct Info<'a> {
        #[serde(default)]
        user: String,
        #[serde(default)]
        client: String,
        #[serde(borrow)]
        conn_info: Option<&'a RawValue>,
        #[serde(borrow)]
        chan_info: Option<&'a RawValue>,
    }
    let info: Info<'_> = serde_json::from_slice(json).ok()?;
    let part = |raw: Option<&RawValue>| raw.map_or(Bytes::new(), |raw| json.slice_ref(raw.get().as_bytes()));
    let (conn_info, chan_info) = (part(info.conn_info), part(info.chan_info));
    Some(ClientInfo { user: info.user.into(), client: info.client.into(), conn_info, chan_info })
}
