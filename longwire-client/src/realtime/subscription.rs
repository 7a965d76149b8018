//! The handle of a program on one subscription.

use super::client::Handle;
use super::event::{Event, Position};
use super::mailbox::Reader;
use super::settings::SubscriptionSettings;
use super::token::{TokenError, TokenSource};
use crate::error::Error;
use bytes::Bytes;
use futures_core::Stream;
use longwire_protocol::filter::Node;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A subscription: a stream of events. Dropped, it is given up. A reader who does not read keeps the whole client from
/// reading once `max_buffered` events wait.
pub struct Subscription {
    handle: Arc<Handle>,
    channel: Arc<str>,
    key: u32,
    reader: Reader<Event>,
}

impl Subscription {
    /// The channel.
    pub fn channel(&self) -> &str {
        &self.channel
    }

    /// Waits for the next event; `None` when nothing follows.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Gives what happened already, without waiting.
    pub fn try_next(&mut self) -> Option<Event> {
        let event = self.reader.try_next();
        self.resume();
        event
    }

    /// Gives the subscription up. The reader still gets what came before, and the end.
    pub fn unsubscribe(&self) {
        self.handle.shared.with(|state, now| state.unsubscribe(now, &self.channel, self.key));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let polled = self.reader.poll_next(cx);
        self.resume();
        polled
    }

    fn resume(&mut self) {
        if self.reader.take_resumes() {
            self.handle.shared.with(|state, now| state.resume(now));
        }
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.unsubscribe();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("channel", &self.channel).finish()
    }
}

/// What a subscription is told before it begins.
#[must_use = "nothing begins before `start`"]
pub struct SubscriptionBuilder {
    handle: Arc<Handle>,
    channel: Arc<str>,
    settings: SubscriptionSettings,
    wrong: Option<Error>,
}

impl SubscriptionBuilder {
    pub(super) fn new(
        handle: Arc<Handle>,
        channel: &str,
        settings: SubscriptionSettings,
    ) -> SubscriptionBuilder {
        SubscriptionBuilder { handle, channel: Arc::from(channel), settings, wrong: None }
    }

    /// The subscription's token.
    pub fn token(mut self, token: impl Into<String>) -> SubscriptionBuilder {
        self.settings.token = token.into();
        self
    }

    /// Where tokens come from: asked when there is none, when the server calls the one there is expired, and before it
    /// expires. A source must not hold the client: neither would ever be dropped.
    pub fn token_source<F, Fut>(mut self, source: F) -> SubscriptionBuilder
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        self.settings.token_source = Some(TokenSource::new(source));
        self
    }

    /// Raw JSON for the backend.
    pub fn data(mut self, json: impl Into<Bytes>) -> SubscriptionBuilder {
        self.settings.data = json.into();
        self
    }

    /// Where an earlier reader stopped: what came after it is recovered, or its loss is told.
    pub fn since(mut self, position: Position) -> SubscriptionBuilder {
        self.settings.since = Some(position);
        self
    }

    /// Whether to ask who comes and goes.
    pub fn join_leave(mut self, join_leave: bool) -> SubscriptionBuilder {
        self.settings.join_leave = join_leave;
        self
    }

    /// Whether to ask for differences in place of whole publications; the reader gets whole ones all the same.
    pub fn delta(mut self, delta: bool) -> SubscriptionBuilder {
        self.settings.delta = delta;
        self
    }

    /// Which publications are wanted, by their tags: the JSON of the protocol's `tf`, such as
    /// `{"key":"lang","cmp":"eq","val":"de"}`.
    pub fn tags_filter(mut self, json: &str) -> SubscriptionBuilder {
        match serde_json::from_str::<Node>(json) {
            Ok(node) => self.settings.tags_filter = Some(Box::new(node)),
            Err(error) => self.wrong = Some(Error::bad_argument(format!("the filter is none: {error}"))),
        }
        self
    }

    /// Begins the subscription.
    ///
    /// # Errors
    /// If the client is over, has a subscription to this channel, or a setting makes no sense.
    pub fn start(self) -> Result<Subscription, Error> {
        let SubscriptionBuilder { handle, channel, settings, wrong } = self;
        if let Some(error) = wrong {
            return Err(error);
        }
        if settings.token_source.is_some() {
            handle.run_tokens();
        }
        let (key, reader) = handle.shared.with(|state, now| state.subscribe(now, &channel, settings))?;
        Ok(Subscription { handle, channel, key, reader })
    }
}

impl fmt::Debug for SubscriptionBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionBuilder").field("channel", &self.channel).finish()
    }
}
