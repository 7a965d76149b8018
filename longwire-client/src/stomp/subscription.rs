//! The handle of a subscription.

use super::client::{Client, Confirmation, Handle};
use super::message::{AckMode, Event, Message};
use super::subscriptions::{Queued, Wanted};
use crate::error::Error;
use futures_core::Stream;
use longwire_protocol::Position;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A subscription that is being described.
#[must_use = "nothing is subscribed before it is started"]
pub struct Subscribe<'a> {
    client: &'a Client,
    wanted: Wanted,
}

impl<'a> Subscribe<'a> {
    pub(super) fn new(client: &'a Client, destination: &str) -> Subscribe<'a> {
        Subscribe { client, wanted: Wanted { destination: destination.to_owned(), ..Wanted::default() } }
    }

    /// How messages are acknowledged; [`AckMode::Auto`] unless it is said.
    pub fn ack(mut self, ack: AckMode) -> Self {
        self.wanted.ack = ack;
        self
    }

    /// How many messages may wait for their acknowledgement, in the words of the broker that is found. Otherwise its own
    /// default holds.
    pub fn prefetch(mut self, messages: u32) -> Self {
        self.wanted.prefetch = Some(messages);
        self
    }

    /// Only messages for which a condition over their headers holds.
    pub fn selector(self, condition: &str) -> Self {
        self.header("selector", condition)
    }

    /// The id on the wire, by which a broker knows a durable subscription again. Otherwise the client chooses one.
    pub fn id(mut self, id: &str) -> Self {
        self.wanted.id = id.to_owned();
        self
    }

    /// Goes on behind this place of a topic, where longwire keeps a history of it. After a break that happens by itself.
    pub fn since(mut self, position: Position) -> Self {
        self.wanted.since = Some(position);
        self
    }

    /// Keeps what is published in a topic while nobody is there, under this name: longwire, RabbitMQ and ActiveMQ. The last
    /// wants a [client id](super::Builder::client_id), too.
    pub fn durable(self, name: &str) -> Self {
        self.id(name)
            .header("durable", "true")
            .header("auto-delete", "false")
            .header("activemq.subscriptionName", name)
    }

    /// Passes over doubles of the last so many messages that were acknowledged (with [`AckMode::Auto`]: received), and
    /// acknowledges them itself. A double has the same [id](super::Sending::deduplicate) of its sender. Not with
    /// [`AckMode::Client`], which cannot speak of one message alone.
    pub fn drop_doubles(mut self, memory: usize) -> Self {
        self.wanted.doubles = memory;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.wanted.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Subscribes, on this connection or the next.
    ///
    /// # Errors
    /// Something cannot be asked, or the client is at its end.
    pub fn start(self) -> Result<Subscription, Error> {
        if let Some(what) = self.wanted.fault() {
            return Err(Error::bad_argument(what));
        }
        let handle = self.client.handle.clone();
        let number = handle.shared.with(|state, now| state.subscribe(now, self.wanted))?;
        Ok(Subscription { handle, number, is_left: false })
    }
}

/// A subscription, which comes back after each break. It ends when it is dropped.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    handle: Arc<Handle>,
    number: u32,
    /// The broker was told.
    is_left: bool,
}

impl Subscription {
    /// The next event; `None` when it is over.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll(context)).await
    }

    /// The next message; other events are passed over. `None` when it is over.
    pub async fn message(&mut self) -> Option<Message> {
        loop {
            if let Event::Message(message) = self.next().await? {
                return Some(message);
            }
        }
    }

    /// Ends it, and waits until the broker has confirmed that.
    ///
    /// # Errors
    /// The broker refused.
    pub async fn unsubscribe(self) -> Result<(), Error> {
        self.leave(false).await
    }

    /// Ends it, and gives a [durable](Subscribe::durable) one up with what waits in it.
    ///
    /// # Errors
    /// The broker refused, there is no connection over which it could be told, or that broke before the answer.
    pub async fn forget(self) -> Result<(), Error> {
        self.leave(true).await
    }

    async fn leave(mut self, is_forever: bool) -> Result<(), Error> {
        self.is_left = true;
        let number = self.number;
        match self.handle.shared.with(|state, now| state.unsubscribe(now, number, true, is_forever))? {
            Some(call) => Confirmation::of(self.handle.clone(), call).await.map(drop),
            None => Ok(()),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let number = self.number;
        let polled = self.handle.shared.with_nudge(|state, now| {
            let was_reading = state.is_reading;
            let polled = state.poll_subscription(now, number, context.waker());
            (polled, state.is_reading != was_reading)
        });
        polled.map(|queued| {
            Some(match queued? {
                Queued::Subscribed { again, position } => Event::Subscribed { again, position },
                Queued::Message(received) => Event::Message(Message::new(*received, self.handle.clone())),
                Queued::Recovered => Event::Recovered,
                Queued::NotRecovered { from, to } => Event::NotRecovered { from, to },
                Queued::Ended(error) => Event::Ended(error),
            })
        })
    }
}

impl Stream for Subscription {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.get_mut().poll(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.is_left {
            let number = self.number;
            // Only what is to be forgotten can fail.
            _ = self.handle.shared.with(|state, now| state.unsubscribe(now, number, false, false));
        }
    }
}
