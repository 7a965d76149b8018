//! The state machine in the hands of whoever moves it without tokio, such as the simulator.
//!
//! The same calls as those of the handles, without futures: what they await is asked for here. Nothing is decided in this
//! file.

use super::calls::Offered;
use super::frame::Outgoing;
use super::message::{AckMode, Received, Verdict};
use super::outbox::{Confirmed, Entry, Load};
use super::state::State;
use super::subscriptions::{Queued, Wanted};
use crate::error::Error;
use crate::transition::Transition;
use bytes::Bytes;
use longwire_protocol::Position;
use std::borrow::Cow;
use std::task::{Poll, Waker};
use std::time::Instant;

/// What a subscription is told; see [`Event`](super::Event).
#[derive(Debug)]
pub enum Told {
    /// The broker took it.
    Subscribed {
        /// Not for the first time.
        again: bool,
        /// Behind which place the messages begin that follow.
        position: Option<Position>,
    },
    /// A message.
    Message(Delivery),
    /// Nothing is missing.
    Recovered,
    /// Something may be.
    NotRecovered {
        /// Behind this place.
        from: Option<Position>,
        /// Up to this one.
        to: Option<Position>,
    },
    /// It is over.
    Ended(Error),
}

/// A message; see [`Message`](super::Message).
#[derive(Debug)]
pub struct Delivery(Box<Received>);

impl Delivery {
    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.0.body
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.head.get(name)
    }

    /// Its place in its topic.
    pub fn position(&self) -> Option<Position> {
        self.0.position
    }

    /// It was delivered before.
    pub fn is_redelivered(&self) -> bool {
        self.0.is_redelivered
    }
}

impl State {
    /// Whether there is a connection with a login.
    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Why it is over, if it is.
    pub fn ended(&self) -> Option<&Error> {
        self.end.as_ref()
    }

    /// What the broker calls the connection, while there is one with a login.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref().map(|session| &*session.session)
    }

    /// Sends a message; the number under which [`confirmed`](Self::confirmed) says what came of it. If `is_resent`, it is
    /// written again after a break that left it without a receipt.
    ///
    /// # Errors
    /// It cannot be sent, or there is no room in the outbox.
    pub fn send(
        &mut self,
        now: Instant,
        destination: &str,
        headers: &[(&str, &str)],
        body: Bytes,
        is_resent: bool,
    ) -> Result<u64, Error> {
        let mut message = Outgoing::new(destination, body);
        for (name, value) in headers {
            message.set(name, value);
        }
        if let Some(what) = message.fault() {
            return Err(Error::bad_argument(what));
        }
        match self.offer(now, Entry::new(Load::Message(message), true, is_resent), None)? {
            Offered::Taken(number) => Ok(number),
            Offered::Wait(_) => Err(Error::OutboxFull),
        }
    }

    /// What came of a send or an acknowledgement, once that is known; told once.
    pub fn confirmed(&mut self, number: u64) -> Option<Result<Confirmed, Error>> {
        match self.poll_call(number, Waker::noop()) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Subscribes; the number under which [`told`](Self::told) says what it is told.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn consume(
        &mut self,
        now: Instant,
        destination: &str,
        ack: AckMode,
        prefetch: Option<u32>,
    ) -> Result<u32, Error> {
        let wanted = Wanted { destination: destination.to_owned(), ack, prefetch, ..Wanted::default() };
        match wanted.fault() {
            Some(what) => Err(Error::bad_argument(what)),
            None => self.subscribe(now, wanted),
        }
    }

    /// The next that a subscription is told, if something waits.
    pub fn told(&mut self, now: Instant, subscription: u32) -> Option<Told> {
        let Poll::Ready(event) = self.poll_subscription(now, subscription, Waker::noop()) else {
            return None;
        };
        event.map(|event| match event {
            Queued::Subscribed { again, position } => Told::Subscribed { again, position },
            Queued::Message(received) => Told::Message(Delivery(received)),
            Queued::Recovered => Told::Recovered,
            Queued::NotRecovered { from, to } => Told::NotRecovered { from, to },
            Queued::Ended(error) => Told::Ended(error),
        })
    }

    /// Says that a message is done, or not; the number under which [`confirmed`](Self::confirmed) says what came of it, if
    /// there was anything to say.
    ///
    /// # Errors
    /// It came on a connection that is gone.
    pub fn acknowledge(
        &mut self,
        now: Instant,
        delivery: &Delivery,
        is_done: bool,
    ) -> Result<Option<u64>, Error> {
        if delivery.0.ack == AckMode::Auto {
            return Ok(None);
        }
        let verdict = if is_done { Verdict::Ack } else { Verdict::Nack };
        let settlement = delivery.0.settlement(verdict)?;
        self.settle(now, &settlement, true)
    }

    /// Ends a subscription.
    pub fn cancel(&mut self, now: Instant, subscription: u32) {
        // Only what is to be forgotten can fail.
        _ = self.unsubscribe(now, subscription, false, false);
    }

    /// Wants to know of transitions from here on; the number under which [`transition`](Self::transition) tells them.
    pub fn observe(&mut self) -> u32 {
        self.listen()
    }

    /// The next transition, if one waits.
    pub fn transition(&mut self, observer: u32) -> Option<Transition> {
        match self.poll_transition(observer, Waker::noop()) {
            Poll::Ready(transition) => transition,
            Poll::Pending => None,
        }
    }
}
