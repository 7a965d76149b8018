//! The handle of a client, and what is sent with it.

use super::builder::Builder;
use super::calls::Offered;
use super::frame::Outgoing;
use super::outbox::{Confirmed, Entry, Load};
use super::state::{DEDUPLICATION_HEADER, State};
use super::subscription::Subscribe;
use super::transaction::Transaction;
use crate::core::Stats;
use crate::error::Error;
use crate::options::Tls;
use crate::shared::Shared;
use crate::transition::Transition;
use bytes::Bytes;
use futures_core::Stream;
use longwire_protocol::stomp::Version;
use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A client of a STOMP broker, which keeps its connection. Clones are handles of the same one; when the last of them, and
/// of its subscriptions and messages, is gone, it disconnects.
#[derive(Clone)]
pub struct Client {
    pub(super) handle: Arc<Handle>,
}

/// What all handles of a client share; with it the client ends.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared<State>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|state, now| state.leave(now));
    }
}

/// What the broker said of itself when the client logged in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Server {
    /// The version that is spoken.
    pub version: Version,
    /// What it calls itself; may be empty.
    pub name: String,
    /// What it calls the connection; may be empty.
    pub session: String,
}

impl Client {
    /// Begins to describe a client of this server.
    pub fn builder(url: &str) -> Builder {
        Builder::new(url)
    }

    pub(super) fn spawn(state: State, tls: Tls) -> Client {
        let shared = Shared::spawn(state, tls);
        shared.with(State::start);
        Client { handle: Arc::new(Handle { shared }) }
    }

    /// Looks at the state, from which nothing follows that its driver would have to do.
    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        self.handle.shared.with_nudge(|state, _| (look(state), false))
    }

    /// Waits until there is a connection with a login.
    ///
    /// # Errors
    /// There will be none.
    pub async fn connected(&self) -> Result<(), Error> {
        let mut watcher = Watcher { handle: &self.handle, ticket: 0 };
        poll_fn(|context| watcher.poll(|state, ticket| state.poll_connected(ticket, context.waker()))).await
    }

    /// Whether there is a connection with a login.
    pub fn is_connected(&self) -> bool {
        self.look(|state| state.session.is_some())
    }

    /// Why the client is at its end, if it is.
    pub fn end(&self) -> Option<Error> {
        self.look(|state| state.end.clone())
    }

    /// What the broker said of itself, while there is a connection with a login.
    pub fn server(&self) -> Option<Server> {
        self.look(|state| {
            let session = state.session.as_deref()?;
            Some(Server {
                version: session.version,
                name: session.server.clone(),
                session: session.session.clone(),
            })
        })
    }

    /// Sends a message. It waits in the outbox while there is no connection, and is written again when one breaks before
    /// the broker's receipt. Nothing happens before it is awaited or [started](Sending::start).
    pub fn send(&self, destination: &str, body: impl Into<Bytes>) -> Sending<'_> {
        let message = Outgoing::new(destination, body.into());
        Sending { client: self, message, has_receipt: true, is_resent: true }
    }

    /// Describes a subscription.
    pub fn subscribe(&self, destination: &str) -> Subscribe<'_> {
        Subscribe::new(self, destination)
    }

    /// Begins a transaction, which the broker is told of as a whole when it is committed.
    pub fn begin(&self) -> Transaction {
        Transaction::new(self.handle.clone())
    }

    /// How many sends wait in the outbox for a connection or their receipt, and their bytes.
    pub fn outbox(&self) -> (usize, usize) {
        self.look(|state| state.outbox.len())
    }

    /// What happens to the connection from here on; if there is one, that is told first.
    pub fn events(&self) -> Events {
        let number = self.handle.shared.with(|state, _| state.listen());
        Events { shared: self.handle.shared.clone(), number }
    }

    /// What the client counted.
    pub fn stats(&self) -> Stats {
        self.look(|state| state.stats())
    }

    /// Takes nothing more, waits until what was taken is confirmed, as long as that goes on, and disconnects. Without a
    /// connection it ends at once; what had never been written is then told [`Error::Closed`].
    pub async fn close(&self) {
        self.handle.shared.with(|state, now| state.close(now));
        let mut watcher = Watcher { handle: &self.handle, ticket: 0 };
        poll_fn(|context| watcher.poll(|state, ticket| state.poll_closed(ticket, context.waker()))).await;
    }
}

/// Somebody who waits for a login or for the end, for as long as that is awaited.
struct Watcher<'a> {
    handle: &'a Handle,
    /// 0: it did not have to wait.
    ticket: u64,
}

impl Watcher<'_> {
    fn poll<T>(&mut self, say: impl FnOnce(&mut State, &mut u64) -> Poll<T>) -> Poll<T> {
        self.handle.shared.with_nudge(|state, _| (say(state, &mut self.ticket), false))
    }
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if self.ticket != 0 {
            self.handle.shared.with_nudge(|state, _| (state.stop_watching(self.ticket), false));
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("is_connected", &self.is_connected()).finish_non_exhaustive()
    }
}

/// A message on its way to be sent.
#[must_use = "nothing is sent before it is awaited or started"]
pub struct Sending<'a> {
    client: &'a Client,
    message: Outgoing,
    has_receipt: bool,
    is_resent: bool,
}

impl Sending<'_> {
    /// Sets a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.message.set(name, value);
        self
    }

    /// Says what the body is.
    pub fn content_type(self, media_type: &str) -> Self {
        self.header("content-type", media_type)
    }

    /// Whether the message outlives the broker's process. Brokers differ in what they do with a message that does not
    /// say.
    pub fn persistent(self, is_persistent: bool) -> Self {
        self.header("persistent", if is_persistent { "true" } else { "false" })
    }

    /// Leaves `content-length` out, unless the body needs it: ActiveMQ takes the message for text then.
    pub fn text(mut self) -> Self {
        self.message.is_text = true;
        self
    }

    /// Asks for no receipt: it is done when it is written, and lost if the connection breaks behind that.
    pub fn without_receipt(mut self) -> Self {
        self.has_receipt = false;
        self
    }

    /// Whether it is written again when a connection breaks before the receipt. Otherwise it then ends with
    /// [`Error::Unconfirmed`]. It is unless this says no.
    pub fn resend(mut self, is_resent: bool) -> Self {
        self.is_resent = is_resent;
        self
    }

    /// Adds the header `x-deduplication-id` with an id that stays the same however often the message is written, so that
    /// consumers can tell doubles. Artemis drops them itself.
    pub fn deduplicate(self) -> Self {
        let id = self.client.handle.shared.with(|state, _| state.unique_id());
        self.deduplicate_as(&id)
    }

    /// The same, with an id of the caller's.
    pub fn deduplicate_as(self, id: &str) -> Self {
        self.header(DEDUPLICATION_HEADER, id)
    }

    /// Sends it without waiting: what is returned says what came of it. If the outbox has no room, it waits for some only
    /// while that is awaited.
    pub fn start(self) -> Confirmation {
        let Sending { client, message, has_receipt, is_resent } = self;
        match message.fault() {
            Some(what) => Confirmation::failed(client.handle.clone(), Error::bad_argument(what)),
            None => Confirmation::offer(
                client.handle.clone(),
                Entry::new(Load::Message(message), has_receipt, is_resent),
            ),
        }
    }
}

impl IntoFuture for Sending<'_> {
    type Output = Result<Confirmed, Error>;
    type IntoFuture = Confirmation;

    fn into_future(self) -> Confirmation {
        self.start()
    }
}

/// What comes of something that was sent. Dropping it takes nothing back that is in the outbox.
#[must_use = "what came of it is told to whoever awaits this"]
pub struct Confirmation {
    handle: Arc<Handle>,
    stage: Stage,
    /// The place in line for room.
    ticket: Option<u64>,
}

enum Stage {
    Offer(Box<Entry>),
    Wait(u64),
    Failed(Error),
    Over,
}

impl Confirmation {
    pub(super) fn failed(handle: Arc<Handle>, error: Error) -> Confirmation {
        Confirmation { handle, stage: Stage::Failed(error), ticket: None }
    }

    /// Puts something into the outbox, at once if there is room.
    pub(super) fn offer(handle: Arc<Handle>, entry: Entry) -> Confirmation {
        let stage = match handle.shared.with(|state, now| state.offer(now, entry, None)) {
            Ok(Offered::Taken(number)) => Stage::Wait(number),
            Ok(Offered::Wait(entry)) => Stage::Offer(Box::new(entry)),
            Err(error) => Stage::Failed(error),
        };
        Confirmation { handle, stage, ticket: None }
    }

    /// Awaits something that was written already.
    pub(super) fn of(handle: Arc<Handle>, number: u64) -> Confirmation {
        Confirmation { handle, stage: Stage::Wait(number), ticket: None }
    }
}

impl Future for Confirmation {
    type Output = Result<Confirmed, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (waker, ticket) = (context.waker(), &mut this.ticket);
        let stage = std::mem::replace(&mut this.stage, Stage::Over);
        let number = match stage {
            Stage::Wait(number) => number,
            Stage::Failed(error) => return Poll::Ready(Err(error)),
            Stage::Over => return Poll::Ready(Err(Error::Closed)),
            Stage::Offer(entry) => {
                let offered = this.handle.shared.with(|state, now| {
                    let offered = state.offer(now, *entry, *ticket);
                    if let Ok(Offered::Wait(_)) = &offered {
                        state.outbox.wait(ticket, waker);
                    }
                    offered
                });
                match offered {
                    Ok(Offered::Taken(number)) => {
                        this.ticket = None;
                        number
                    }
                    Ok(Offered::Wait(entry)) => {
                        this.stage = Stage::Offer(Box::new(entry));
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        };
        let polled = this.handle.shared.with_nudge(|state, _| (state.poll_call(number, waker), false));
        if polled.is_pending() {
            this.stage = Stage::Wait(number);
        }
        polled
    }
}

impl Drop for Confirmation {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.handle.shared.with(|state, _| state.leave_line(ticket));
        }
        if let Stage::Wait(number) = self.stage {
            self.handle.shared.with(|state, _| state.calls.forget(number));
        }
    }
}

/// What happens to a client's connection. It keeps no client that nobody else has.
#[must_use = "a stream does nothing unless it is read"]
pub struct Events {
    shared: Arc<Shared<State>>,
    number: u32,
}

impl Events {
    /// The next transition; `None` when the client is at its end. Of one who reads too slowly the oldest are forgotten.
    pub async fn next(&mut self) -> Option<Transition> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Transition>> {
        self.shared.with_nudge(|state, _| (state.poll_transition(self.number, context.waker()), false))
    }
}

impl Stream for Events {
    type Item = Transition;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Transition>> {
        self.get_mut().poll(context)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.shared.with_nudge(|state, _| (state.stop_listening(self.number), false));
    }
}
