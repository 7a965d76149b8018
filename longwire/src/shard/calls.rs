//! What the backend is told of this shard's plain connections, and what its answers do to them.
//!
//! `open` is asked while a connection connects, `message` for each that the client sends, `close` when the session is
//! over. Each call runs apart from its session, which goes on or ends meanwhile: what a session leaves behind is told
//! by the one function that is called where sessions end ([`Shard::tell_end`]), after the call that is under way. An
//! answer whose session is gone only publishes. What must stay true: the calls about one session are made one after
//! the other in the order in which the client spoke, numbered without a gap; and whatever the backend may have taken for
//! open is told as closed once.

use super::{Entry, Key, Shard, orders};
use crate::auth::{ConnectionToken, ServerSubscription};
use crate::backend::calls::{Content, Ending, Fate, Opened, Opening, Orders, RestRoom, Subject};
use crate::backend::{Refusal, WebhookKind};
use crate::node::control::{BindError, ServerSubscribe};
use crate::node::{Denied, NewPublication};
use crate::session::Closing;
use crate::session::inbox::{Inbox, Said};
use longwire_protocol::CloseReason;
use longwire_protocol::command::Connect;
use longwire_protocol::connection::Dialect;
use longwire_protocol::message::{Push, unsubscribe};
use longwire_protocol::queue::NewMessage;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a session leaves behind that is to be told.
pub(super) struct Rest {
    inbox: Box<Inbox>,
    subject: Subject,
    ending: Ending,
    /// Held while messages may wait.
    room: Option<RestRoom>,
}

impl Shard {
    /// Whom a call is about, numbered; the call begins with that.
    fn begin_call(&self, key: Key, entry: &mut Entry) -> Subject {
        let seq = entry.session.begin_call().take_seq();
        Subject { seq, ..self.subject(key, entry) }
    }

    fn subject(&self, key: Key, entry: &Entry) -> Subject {
        let session = &entry.session;
        Subject {
            asker: session.asker(),
            name: session.client_name().into(),
            session: self.name_of(key, session),
            listener: self.listener_of(entry),
            address: entry.address(),
            seq: 0,
        }
    }

    /// The name of the listener by which a client came.
    fn listener_of(&self, entry: &Entry) -> Arc<str> {
        let listener = self.node.config.listeners.get(usize::from(entry.session.listener));
        listener.map(|listener| listener.name.as_str().into()).unwrap_or_default()
    }

    /// Asks the backend what it wants for a plain connection whose client is known; what it says of user, channels and
    /// session data is put into `token`, as if that had said so.
    pub(super) async fn tell_open(
        self: &Rc<Shard>,
        key: Key,
        connect: &Connect,
        token: &mut ConnectionToken,
    ) -> Result<Orders, Denied> {
        let is_told_of = |event| self.node.backend.is_told_of(event);
        let subject = self.with(key, |entry| {
            if entry.session.connection().dialect() != Dialect::Plain {
                return None;
            }
            if !token.meta.is_empty() {
                let meta = token.meta.clone();
                entry.session.carry(|baggage| baggage.meta = meta);
            }
            if is_told_of(WebhookKind::Open) {
                let mut subject = self.begin_call(key, entry);
                subject.asker.user = token.user.clone();
                return Some(subject);
            }
            if is_told_of(WebhookKind::Close) {
                entry.session.owe_close();
            }
            None
        });
        let Some(subject) = subject.flatten() else { return Ok(Orders::default()) };
        let channels: Vec<String> = connect.subs.iter().map(|sub| sub.channel.clone()).collect();
        let (query, data) = (connect.query.clone(), connect.data.clone());
        let (done, answered) = oneshot::channel();
        let (_wanted, unwanted) = oneshot::channel::<()>();
        // Apart from the command, which is dropped if the client leaves: then the backend is still told of the end.
        let shard = self.clone();
        self.run_apart(async move {
            let opening = Opening { query: &query, channels: &channels, data: &data };
            let gone = async move {
                // Nothing is ever sent: it ends with who waits.
                let _ = unwanted.await;
            };
            let Opened { answer, is_owed_close } = shard.node.backend.open(&subject, opening, gone).await;
            let noted = shard.with(key, |entry| entry.session.end_call().is_owed_close = is_owed_close);
            if noted.is_none() {
                shard.go_on(key, |inbox| inbox.is_owed_close = is_owed_close);
            }
            // Who is not there any more is not waiting.
            if let Err(Ok(orders)) = done.send(answer) {
                shard.publish_all(orders.publish, orders.queue_publish).await;
            }
        });
        let answer = answered.await.unwrap_or(Err(Refusal::Failed));
        // Who is not let in yet is not found by the order to close whoever came by this token.
        if !connect.token.is_empty() {
            self.node.require_valid(token)?;
        }
        let mut orders = answer.map_err(|refusal| match refusal {
            Refusal::Failed => {
                Denied::close(CloseReason::BackendUnavailable, "the webhook for open gave no useful answer")
            }
            refusal => refusal.into(),
        })?;
        if let Some(close) = orders.close.take() {
            return Err(Denied::Close(close, "ordered by a webhook's answer".into()));
        }
        if let Some(user) = orders.user.take() {
            token.user = user;
        }
        if let Some(data) = orders.session_data.take() {
            token.meta = data.clone();
            self.with(key, |entry| entry.session.carry(|baggage| baggage.meta = data));
        }
        let (join, leave) = (std::mem::take(&mut orders.join), std::mem::take(&mut orders.leave));
        for channel in join {
            if self.is_channel(&channel) && token.channels.iter().all(|(known, _)| *known != channel) {
                token.channels.push((channel, ServerSubscription::default()));
            }
        }
        token.channels.retain(|(channel, _)| !leave.contains(channel));
        Ok(orders)
    }

    /// Begins to tell the backend what a client said, if it is time.
    pub(super) fn tell_messages(self: &Rc<Shard>, key: Key) {
        loop {
            let (now, config) = (self.node.env.clock.now(), &self.node.config);
            let next = self.with(key, |entry| {
                self.note_unheard(entry);
                let said = entry.session.next_message(now, config)?;
                Some((said, self.begin_call(key, entry)))
            });
            let Some((said, subject)) = next.flatten() else { return };
            self.run_apart(self.clone().tell_message(key, said, subject));
        }
    }

    async fn tell_message(self: Rc<Shard>, key: Key, said: Said, subject: Subject) {
        self.counters.commands.add(1);
        if self.is_too_fast(key) {
            let what = "the user's connections together sent more than client.commands_per_second_per_user";
            self.touch(key, |entry| entry.session.close(CloseReason::TooManyRequests.into(), what));
        }
        let fate = self.node.backend.message(&subject, &said.data, said.is_text).await;
        let is_given_up = fate == Fate::GivenUp;
        match fate {
            Fate::Taken(orders) => self.carry_out(key, *orders).await,
            Fate::Dropped => {}
            Fate::GivenUp => self.give_up_messages(key),
        }
        let is_there = self.with(key, |entry| {
            entry.session.end_call();
            entry.wake();
        });
        if is_there.is_none() {
            self.go_on(key, |inbox| {
                if is_given_up {
                    self.node.backend.note_given_up(inbox.clear());
                }
            });
        }
    }

    /// Ends a session whose messages the backend does not take.
    fn give_up_messages(&self, key: Key) {
        let detail = "the backend took a message neither at once nor within plain.retry_for";
        self.touch(key, |entry| {
            // First, for that takes in what waits undecoded, which must not overtake what is given up.
            entry.session.close(CloseReason::BackendUnavailable.into(), detail);
            let left = entry.session.begin_call().clear();
            self.node.backend.note_given_up(left);
        });
    }

    /// Does what the backend wants done for a connection, in this order: session data, user, leaving and joining,
    /// publishing, data for the client, closing. What concerns a connection that is gone is passed over.
    pub(super) async fn carry_out(self: &Rc<Shard>, key: Key, orders: Orders) {
        // As with every connection that no webhook is told of.
        if orders == Orders::default() {
            return;
        }
        let Orders { data, join, leave, user, session_data, publish, queue_publish, close } = orders;
        let config = &self.node.config;
        // What was published before the backend answered reaches the client before it leaves a channel.
        self.deliver_arrived(&mut VecDeque::new());
        if let Some(meta) = session_data {
            self.with(key, |entry| entry.session.carry(|baggage| baggage.meta = meta));
        }
        if let Some(user) = user {
            self.bind_by_answer(key, &user);
        }
        for channel in leave {
            self.touch(key, |entry| entry.session.unsubscribe(&channel, unsubscribe::SERVER, config));
        }
        self.settle(key);
        for channel in join {
            if self.is_channel(&channel) {
                let order = Arc::new(ServerSubscribe { channel, ..ServerSubscribe::default() });
                orders::order_subscribe(self.clone(), key, order).await;
            }
        }
        self.publish_all(publish, queue_publish).await;
        if let Some(Content { data, is_json }) = data {
            self.touch(key, |entry| entry.session.push("", &Push::Message { data, is_json }, config));
        }
        if let Some(close) = close {
            self.touch(key, |entry| entry.session.close(close, "ordered by a webhook's answer"));
        }
    }

    /// Makes a connection another user's, as the backend answered; a user who may have no further one is closed.
    fn bind_by_answer(self: &Rc<Shard>, key: Key, user: &str) {
        let (reason, detail) = match self.bind_user(key, user) {
            Err(BindError::Full) => (
                CloseReason::ConnectionLimit,
                "bound to a user whose client.max_connections_per_user is reached",
            ),
            Err(BindError::InUse) => {
                (CloseReason::ClientInUse, "bound to a user who has a connection of the same name")
            }
            Ok(()) | Err(BindError::NotFound) => return,
        };
        self.touch(key, |entry| entry.session.close(reason.into(), detail));
    }

    /// Publishes, and sends to queues: what cannot be sent is in the log, and does not keep the rest from being sent.
    async fn publish_all(&self, publications: Vec<(String, Content)>, messages: Vec<NewMessage>) {
        for (channel, Content { data, is_json }) in publications {
            let new = NewPublication { data, is_known_json: is_json, ..NewPublication::default() };
            if let Err(error) = self.node.publish(&channel, new).await {
                tracing::warn!(channel, ?error, "what a webhook's answer publishes was not published");
            }
        }
        if messages.is_empty() {
            return;
        }
        let queues: Vec<Arc<str>> = messages.iter().map(|message| message.queue.clone()).collect();
        let outcomes = match self.node.queues.send_each(messages).await {
            Ok(outcomes) => outcomes,
            Err(error) => queues.iter().map(|_| Err(error.clone())).collect(),
        };
        for (queue, outcome) in queues.iter().zip(outcomes) {
            if let Err(error) = outcome {
                tracing::warn!(%queue, %error, "what a webhook's answer sends to a queue was not taken");
            }
        }
    }

    /// Whether there may be such a channel; if not, the log has it.
    fn is_channel(&self, channel: &str) -> bool {
        let options = self.node.channel_options(channel);
        if let Err(error) = &options {
            tracing::warn!(channel, ?error, "a webhook's answer joins what cannot be a channel");
        }
        options.is_ok()
    }

    fn ending(&self, entry: &Entry, closing: &Closing) -> Ending {
        let reason = closing.close.reason;
        Ending {
            reason: reason.name(),
            category: reason.category().as_str(),
            code: closing.close.code,
            initiator: closing.initiator.as_str(),
            detail: closing.detail.clone(),
            open_seconds: (self.node.env.clock.now() - entry.session.opened).as_secs(),
        }
    }

    /// Sees that the backend is told what a session leaves behind: the messages that wait, and that it is over. Called
    /// once for each session, where it ends for good.
    pub(super) fn tell_end(self: &Rc<Shard>, key: Key, entry: &mut Entry) {
        self.note_unheard(entry);
        let Some(mut inbox) = entry.session.take_inbox() else { return };
        let Some(closing) = entry.session.closing() else { return };
        if inbox.is_empty() && !inbox.is_owed_close && !inbox.is_calling() {
            return;
        }
        let ending = self.ending(entry, closing);
        let is_calling = inbox.is_calling();
        let room = self.node.backend.room_for_rest(inbox.bytes());
        if room.is_none() {
            self.node.backend.note_dropped(inbox.clear());
        }
        let rest = Rest { inbox, subject: self.subject(key, entry), ending, room };
        self.counters.telling.add(1);
        if is_calling {
            self.state.borrow_mut().unfinished.insert(key, rest);
        } else {
            self.run_apart(self.clone().finish(rest));
        }
    }

    /// Tells the backend that a client is gone whose session is kept: a deliberate flaw.
    pub(super) fn tell_break(
        self: Rc<Shard>,
        key: Key,
        entry: &mut Entry,
        closing: &Closing,
    ) -> impl Future<Output = ()> + 'static {
        let subject = self.begin_call(key, entry);
        entry.session.end_call();
        let ending = self.ending(entry, closing);
        async move { self.node.backend.close(&subject, &ending).await }
    }

    /// Notes messages that there was no room for when the link by which they came ended.
    fn note_unheard(&self, entry: &mut Entry) {
        let messages = entry.session.take_unheard();
        if messages > 0 {
            let (client, name) = (entry.session.identity.client, entry.session.client_name());
            tracing::warn!(%client, name, messages, "messages of a link that ended are dropped: more wait for the backend than may");
            self.node.backend.note_dropped(messages);
        }
    }

    /// Goes on with what a session left behind while a call was under way.
    fn go_on(self: &Rc<Shard>, key: Key, note: impl FnOnce(&mut Inbox)) {
        let rest = self.state.borrow_mut().unfinished.remove(&key);
        if let Some(mut rest) = rest {
            note(&mut rest.inbox);
            self.run_apart(self.clone().finish(rest));
        }
    }

    async fn finish(self: Rc<Shard>, rest: Rest) {
        let Rest { mut inbox, mut subject, ending, room } = rest;
        let backend = &self.node.backend;
        // As many may wait to be told as may be connected.
        let telling: u64 = self.node.counters.iter().map(|shard| shard.telling.get()).sum();
        if telling > self.node.config.server.max_connections as u64 {
            backend.note_left_behind(inbox.clear());
            inbox.is_owed_close = false;
        }
        while let Some(said) = inbox.pop() {
            subject.seq = inbox.take_seq();
            match backend.message(&subject, &said.data, said.is_text).await {
                Fate::Taken(orders) => self.publish_all(orders.publish, orders.queue_publish).await,
                Fate::Dropped => {}
                Fate::GivenUp => backend.note_given_up(inbox.clear()),
            }
        }
        drop(room);
        if inbox.is_owed_close {
            subject.seq = inbox.take_seq();
            backend.close(&subject, &ending).await;
        }
        self.counters.telling.sub(1);
    }
}
