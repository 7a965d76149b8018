//! The handle of a program on a realtime client.
//!
//! Every call locks the state, says what is wanted, and waits for a wake. What must stay true: nothing is held across an
//! await; a call that is dropped is forgotten.

use super::builder::Builder;
use super::event::{ClientEvent, ClientInfo, History, HistoryQuery, PresenceStats};
use super::mailbox::Reader;
use super::settings::{Settings, SubscriptionSettings};
use super::state::{Answer, State, Ticket};
use super::subscription::{Subscription, SubscriptionBuilder};
use super::token::{TokenError, TokenSubject};
use crate::core::Stats;
use crate::error::Error;
use crate::shared::Shared;
use bytes::Bytes;
use futures_core::Stream;
use longwire_protocol::Text;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// A realtime client. Clones are the same client; it closes when it is told to, or when the last clone and the last of its
/// subscriptions are gone.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What a client and its subscriptions hold together.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared<State>>,
    runtime: tokio::runtime::Handle,
    /// A task runs the sources of tokens.
    has_runner: AtomicBool,
}

impl Handle {
    /// Sees to it that somebody runs the sources of tokens.
    pub(super) fn run_tokens(&self) {
        if !self.has_runner.swap(true, Ordering::Relaxed) {
            self.runtime.spawn(run_tokens(Arc::clone(&self.shared)));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state, now| state.close(now));
    }
}

impl Client {
    /// Begins to say what a client needs; the first server is that of `url`.
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    /// Begins to connect.
    ///
    /// # Errors
    /// If the settings make no sense.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(settings: Settings) -> Result<Client, Error> {
        let has_source = settings.token_source.is_some();
        let tls = settings.options.tls.clone();
        let shared = Shared::spawn(State::new(settings)?, tls);
        let runtime = tokio::runtime::Handle::current();
        let handle = Handle { shared, runtime, has_runner: AtomicBool::new(false) };
        if has_source {
            handle.run_tokens();
        }
        handle.shared.with(|state, now| state.start(now));
        Ok(Client { handle: Arc::new(handle) })
    }

    /// Waits until the login is done.
    ///
    /// # Errors
    /// If the client is over.
    pub async fn connected(&self) -> Result<(), Error> {
        Watch::of(&self.handle.shared, State::poll_connected).await
    }

    /// Whether the login is done at this moment.
    pub fn is_connected(&self) -> bool {
        self.handle.shared.with_nudge(|state, _| (state.is_connected(), false))
    }

    /// By what name other clients know the connection that there is at this moment.
    pub fn client(&self) -> Option<Text> {
        self.handle.shared.with_nudge(|state, _| (state.client().cloned(), false))
    }

    /// Closes, and waits until what was given to the connection is written and the socket is left.
    pub async fn close(&self) {
        let shared = &self.handle.shared;
        shared.with(|state, now| state.close(now));
        Watch::of(shared, State::poll_over).await;
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        self.handle.shared.with_nudge(|state, _| (state.stats().clone(), false))
    }

    /// How many calls wait for a connection or for their answer, and their bytes.
    pub fn unfinished(&self) -> (usize, usize) {
        self.handle.shared.with_nudge(|state, _| (state.unfinished(), false))
    }

    /// What happens to the client from here on; if there is a connection, that is told first. Several may listen; each has to read, or the client stops reading once
    /// `max_buffered` events wait. It ends with the client, which it does not keep.
    pub fn events(&self) -> Events {
        let shared = Arc::clone(&self.handle.shared);
        let reader = shared.with_nudge(|state, _| (state.listen(), false));
        Events { shared, reader }
    }

    /// Begins a subscription.
    ///
    /// # Errors
    /// If the client is over, or has a subscription to this channel.
    pub fn subscribe(&self, channel: &str) -> Result<Subscription, Error> {
        self.subscription(channel).start()
    }

    /// Begins to say what a subscription needs.
    pub fn subscription(&self, channel: &str) -> SubscriptionBuilder {
        SubscriptionBuilder::new(Arc::clone(&self.handle), channel, SubscriptionSettings::default())
    }

    /// Publishes raw JSON to a channel. Where there is no connection it waits for one. If the connection breaks before the
    /// answer, it ends as [`Error::Unconfirmed`], unless it may be [written again](Calling::resend).
    pub fn publish(&self, channel: &str, data: impl Into<Bytes>) -> Calling<()> {
        let data = data.into();
        self.call(|state| state.publish(channel, &data, false), done)
    }

    /// Calls a method of the backend with raw JSON; empty for none. Breaks are as in [`publish`](Self::publish).
    pub fn rpc(&self, method: &str, data: impl Into<Bytes>) -> Calling<Bytes> {
        let data = data.into();
        self.call(
            |state| state.rpc(method, &data, false),
            |answer| if let Answer::Rpc(data) = answer { Some(data) } else { None },
        )
    }

    /// Tells the backend raw JSON. There is no answer: it is done when it is given to a connection.
    pub fn send(&self, data: impl Into<Bytes>) -> Calling<()> {
        let data = data.into();
        self.call(|state| state.send(&data), done)
    }

    /// Asks for a part of a channel's history.
    pub fn history(&self, channel: &str, query: HistoryQuery) -> Calling<History> {
        self.call(
            |state| state.history(channel, &query),
            |answer| if let Answer::History(history) = answer { Some(history) } else { None },
        )
    }

    /// Asks who is in a channel.
    pub fn presence(&self, channel: &str) -> Calling<Vec<ClientInfo>> {
        self.call(
            |state| state.presence(channel),
            |answer| if let Answer::Presence(clients) = answer { Some(clients) } else { None },
        )
    }

    /// Asks how many are in a channel.
    pub fn presence_stats(&self, channel: &str) -> Calling<PresenceStats> {
        self.call(
            |state| state.presence_stats(channel),
            |answer| if let Answer::PresenceStats(stats) = answer { Some(stats) } else { None },
        )
    }

    fn call<T>(
        &self,
        make: impl FnOnce(&mut State) -> Result<Ticket, Error>,
        read: fn(Answer) -> Option<T>,
    ) -> Calling<T> {
        let ticket = self.handle.shared.with_nudge(|state, _| (make(state), false));
        Calling { handle: Arc::clone(&self.handle), ticket: Some(ticket), read }
    }
}

/// Waits for the client to be connected, or over.
struct Watch<'a, T> {
    shared: &'a Shared<State>,
    watcher: Option<u64>,
    poll: fn(&mut State, &mut Option<u64>, &mut Context<'_>) -> Poll<T>,
}

impl<'a, T> Watch<'a, T> {
    fn of(
        shared: &'a Shared<State>,
        poll: fn(&mut State, &mut Option<u64>, &mut Context<'_>) -> Poll<T>,
    ) -> Watch<'a, T> {
        Watch { shared, watcher: None, poll }
    }
}

impl<T> Future for Watch<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Watch { shared, watcher, poll } = &mut *self;
        shared.with_nudge(|state, _| (poll(state, watcher, cx), false))
    }
}

impl<T> Drop for Watch<'_, T> {
    fn drop(&mut self) {
        if self.watcher.is_some() {
            self.shared.with_nudge(|state, _| (state.unwatch(&mut self.watcher), false));
        }
    }
}

fn done(answer: Answer) -> Option<()> {
    (answer == Answer::Done).then_some(())
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("is_connected", &self.is_connected()).finish()
    }
}

/// A call under way. It enters the outbox when it is first polled; dropped before it is written, it is never done.
#[must_use = "a call does nothing unless it is awaited"]
pub struct Calling<T> {
    handle: Arc<Handle>,
    /// `None` once it gave its answer.
    ticket: Option<Result<Ticket, Error>>,
    read: fn(Answer) -> Option<T>,
}

impl<T> Calling<T> {
    /// Whether it may be written again if a connection breaks before the answer. It may then be done twice. When three
    /// connections have ended while it was the next to be answered, it is given up as [`Error::Unconfirmed`].
    pub fn resend(mut self, resend: bool) -> Calling<T> {
        if let Some(Ok(ticket)) = &mut self.ticket {
            ticket.set_resend(resend);
        }
        self
    }
}

impl<T> Future for Calling<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        let this = &mut *self;
        let polled = match &mut this.ticket {
            None => return Poll::Pending,
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            Some(Ok(ticket)) => this.handle.shared.with(|state, now| state.poll_call(now, ticket, cx)),
        };
        let Poll::Ready(result) = polled else { return Poll::Pending };
        this.ticket = None;
        let wrong = || Error::Protocol("an answer of another kind".to_owned());
        Poll::Ready(result.and_then(|answer| (this.read)(answer).ok_or_else(wrong)))
    }
}

impl<T> Drop for Calling<T> {
    fn drop(&mut self) {
        if let Some(Ok(mut ticket)) = self.ticket.take() {
            self.handle.shared.with_nudge(|state, _| (state.cancel_call(&mut ticket), false));
        }
    }
}

impl<T> fmt::Debug for Calling<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("is_done", &self.ticket.is_none()).finish()
    }
}

/// What happens to a client, as a stream.
pub struct Events {
    shared: Arc<Shared<State>>,
    reader: Reader<ClientEvent>,
}

impl Events {
    /// Waits for the next event; `None` when the client is over.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Gives what happened already, without waiting.
    pub fn try_next(&mut self) -> Option<ClientEvent> {
        let event = self.reader.try_next();
        self.resume();
        event
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        let polled = self.reader.poll_next(cx);
        self.resume();
        polled
    }

    fn resume(&mut self) {
        if self.reader.take_resumes() {
            self.shared.with(|state, now| state.resume(now));
        }
    }
}

impl Stream for Events {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientEvent>> {
        self.poll(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.reader.leave();
        self.shared.with(|state, now| state.resume(now));
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

/// Runs the sources of tokens, each request in a task of its own: one source may be slow.
async fn run_tokens(shared: Arc<Shared<State>>) {
    loop {
        let next = poll_fn(|cx| shared.with_nudge(|state, _| (state.poll_token_request(cx), false)));
        let Some(request) = next.await else { return };
        let answer = TokenAnswer {
            shared: Arc::clone(&shared),
            subject: request.subject,
            result: Some(Err(TokenError::Failed("the source of tokens ended without an answer".to_owned()))),
        };
        tokio::spawn(async move { answer.bring(request.source.ask().await) });
    }
}

/// Brings what a source answers, also where it panics: whoever waits for a token is told in any case.
struct TokenAnswer {
    shared: Arc<Shared<State>>,
    subject: TokenSubject,
    /// Taken when it is brought.
    result: Option<Result<String, TokenError>>,
}

impl TokenAnswer {
    fn bring(mut self, result: Result<String, TokenError>) {
        self.result = Some(result);
    }
}

impl Drop for TokenAnswer {
    fn drop(&mut self) {
        if let Some(result) = self.result.take() {
            self.shared.with(|state, now| state.handle_token(now, &self.subject, result));
        }
    }
}

#[cfg(test)]
mod tests;
