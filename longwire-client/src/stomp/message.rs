//! What a subscription is told, and what is said about a message.
//!
//! [`Received`] is a message in the state machine; [`Message`] is the same in the hands of the application, with the
//! client to which its acknowledgement goes. What must stay true: an acknowledgement means one delivery on one
//! connection, and is never written on another.

use super::client::{Confirmation, Handle};
use super::frame::{Head, Writer};
use super::state::DEDUPLICATION_HEADER;
use crate::error::Error;
use bytes::Bytes;
use longwire_protocol::Position;
use longwire_protocol::stomp::Version;
use std::borrow::Cow;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How messages of a subscription are acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AckMode {
    /// By being written by the broker. What is on the way when a connection breaks is lost.
    #[default]
    Auto,
    /// An acknowledgement means the message and all before it of the subscription. RabbitMQ counts those of the
    /// connection's other subscriptions, too.
    Client,
    /// One by one.
    ClientIndividual,
}

impl AckMode {
    /// As the header has it.
    pub fn as_str(self) -> &'static str {
        match self {
            AckMode::Auto => "auto",
            AckMode::Client => "client",
            AckMode::ClientIndividual => "client-individual",
        }
    }
}

/// What a subscription is told, in its order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The broker took the subscription.
    Subscribed {
        /// It is not the first time.
        again: bool,
        /// Behind which place of its topic the messages begin that follow, where longwire keeps a history of it.
        position: Option<Position>,
    },
    /// A message.
    Message(Message),
    /// After a break: what was published meanwhile follows, nothing is missing.
    Recovered,
    /// After a break: what was published meanwhile may be missing. Also where something is known to be.
    NotRecovered {
        /// The last that was received before, where the topic has positions.
        from: Option<Position>,
        /// Where the topic is, if the broker said so.
        to: Option<Position>,
    },
    /// The subscription is over: the broker refused it, or the client is at its end. Nothing follows.
    Ended(Error),
}

/// A message in the state machine.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) head: Head,
    pub(super) body: Bytes,
    pub(super) subscription: u32,
    /// The number of the connection on which it came.
    pub(super) connection: u32,
    /// Its number within the subscription, on all connections.
    pub(super) number: u64,
    pub(super) version: Version,
    pub(super) ack: AckMode,
    pub(super) is_redelivered: bool,
    pub(super) position: Option<Position>,
    /// The subscription looks for doubles.
    pub(super) is_watched: bool,
}

/// What is said about a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Ack,
    Nack,
    Reject,
}

/// An acknowledgement of one delivery, on its way.
#[derive(Clone, Debug)]
pub(super) struct Settlement {
    pub(super) verdict: Verdict,
    /// The headers that name the delivery, as the broker wrote them.
    pub(super) lines: String,
    pub(super) subscription: u32,
    pub(super) connection: u32,
    pub(super) number: u64,
    /// The id by which doubles of it are known, if somebody looks for them.
    pub(super) id: Option<Box<str>>,
}

impl Received {
    /// What it keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        self.head.len() + self.body.len() + 160
    }

    /// The id by which doubles of it are known, if its sender gave it one.
    pub(super) fn double_id(&self) -> Option<Cow<'_, str>> {
        self.head.get(DEDUPLICATION_HEADER)
    }

    /// What is written to say this about it.
    ///
    /// # Errors
    /// It cannot be said.
    pub(super) fn settlement(&self, verdict: Verdict) -> Result<Settlement, Error> {
        if verdict != Verdict::Ack && self.version == Version::V10 {
            return Err(Error::bad_argument("STOMP 1.0 has no NACK"));
        }
        let raw =
            |name: &str| self.head.raw().find(|(its_name, _)| *its_name == name).map(|(_, value)| value);
        let id = raw("message-id");
        let mut lines = String::new();
        let mut add = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                lines.extend([name, ":", value, "\n"]);
            }
        };
        match self.version {
            Version::V12 => add("id", raw("ack").or(id)),
            Version::V11 | Version::V10 => {
                add("message-id", id);
                add("subscription", raw("subscription"));
            }
        }
        let Received { subscription, connection, number, .. } = *self;
        let id = if self.is_watched { self.double_id().map(Box::from) } else { None };
        Ok(Settlement { verdict, lines, subscription, connection, number, id })
    }
}

impl Settlement {
    /// The frame; `extra` are headers that follow.
    pub(super) fn frame(&self, version: Version, extra: &[(&str, &str)]) -> Vec<u8> {
        let command = if self.verdict == Verdict::Ack { "ACK" } else { "NACK" };
        let mut writer = Writer::new(version, command, self.lines.len()).lines(&self.lines);
        if self.verdict == Verdict::Reject {
            writer = writer.header("requeue", "false");
        }
        for (name, value) in extra {
            writer = writer.header(name, value);
        }
        writer.end()
    }
}

/// A message that a subscription received.
pub struct Message {
    pub(super) received: Received,
    pub(super) handle: Arc<Handle>,
    said: Mutex<Said>,
}

/// Whether something was said about a message.
enum Said {
    No,
    Yes,
    /// In a transaction; not if that was undone.
    In(Arc<AtomicBool>),
}

impl Message {
    pub(super) fn new(received: Received, handle: Arc<Handle>) -> Message {
        Message { received, handle, said: Mutex::new(Said::No) }
    }

    /// Where it was sent to.
    pub fn destination(&self) -> Cow<'_, str> {
        self.header("destination").unwrap_or_default()
    }

    /// The value of a header; of several of one name the first.
    pub fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.received.head.get(name)
    }

    /// All headers, in their order.
    pub fn headers(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.received.head.iter()
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.received.body
    }

    /// The body, where it is UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.received.body).ok()
    }

    /// The broker's id of it. RabbitMQ gives another at each delivery.
    pub fn id(&self) -> Cow<'_, str> {
        self.header("message-id").unwrap_or_default()
    }

    /// The broker says that it was delivered before.
    pub fn is_redelivered(&self) -> bool {
        self.received.is_redelivered
    }

    /// Its place in the topic, where longwire keeps a history of it.
    pub fn position(&self) -> Option<Position> {
        self.received.position
    }

    /// Says that it is done. Nothing happens before the result is awaited.
    #[must_use = "nothing is said before it is awaited"]
    pub fn ack(&self) -> Settling<'_> {
        Settling { message: self, verdict: Verdict::Ack, is_confirmed: false }
    }

    /// Says that it is not done: what follows is up to the broker. longwire and RabbitMQ deliver it again, ActiveMQ
    /// gives it to its dead letters.
    #[must_use = "nothing is said before it is awaited"]
    pub fn nack(&self) -> Settling<'_> {
        Settling { message: self, verdict: Verdict::Nack, is_confirmed: false }
    }

    /// Says that it never will be: it goes to the dead letters, where the broker has some.
    #[must_use = "nothing is said before it is awaited"]
    pub fn reject(&self) -> Settling<'_> {
        Settling { message: self, verdict: Verdict::Reject, is_confirmed: false }
    }

    /// What is written to say this; `None` if nothing has to be said.
    pub(super) fn settle(&self, verdict: Verdict) -> Result<Option<Settlement>, Error> {
        self.settle_as(verdict, Said::Yes)
    }

    /// The same in a transaction, of which `is_undone` says whether nothing came of it.
    pub(super) fn settle_in(
        &self,
        verdict: Verdict,
        is_undone: &Arc<AtomicBool>,
    ) -> Result<Option<Settlement>, Error> {
        self.settle_as(verdict, Said::In(is_undone.clone()))
    }

    fn settle_as(&self, verdict: Verdict, how: Said) -> Result<Option<Settlement>, Error> {
        if self.received.ack == AckMode::Auto {
            return Ok(None);
        }
        let settlement = self.received.settlement(verdict)?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = match &*said {
            Said::No => true,
            Said::Yes => false,
            Said::In(is_undone) => is_undone.load(Ordering::Acquire),
        };
        if !is_free {
            return Err(Error::bad_argument("the message was acknowledged before"));
        }
        *said = how;
        Ok(Some(settlement))
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("destination", &self.destination())
            .field("id", &self.id())
            .field("body_bytes", &self.received.body.len())
            .finish_non_exhaustive()
    }
}

/// An acknowledgement that is said when it is awaited.
#[must_use = "nothing is said before it is awaited"]
pub struct Settling<'a> {
    message: &'a Message,
    verdict: Verdict,
    is_confirmed: bool,
}

impl Settling<'_> {
    /// Waits until the broker has confirmed it, too. Without that it is done when it is on its way: if it is lost with
    /// the connection, the message is delivered again.
    pub fn confirmed(self) -> Self {
        Settling { is_confirmed: true, ..self }
    }

    async fn said(self) -> Result<(), Error> {
        let Settling { message, verdict, is_confirmed } = self;
        let Some(settlement) = message.settle(verdict)? else { return Ok(()) };
        let call = message.handle.shared.with(|state, now| state.settle(now, &settlement, is_confirmed))?;
        match call {
            Some(number) => Confirmation::of(message.handle.clone(), number).await.map(drop),
            None => Ok(()),
        }
    }
}

impl<'a> IntoFuture for Settling<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.said())
    }
}
