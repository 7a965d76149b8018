//! Several sends and acknowledgements of which the broker does all or none.
//!
//! A transaction is kept here and written whole when it is committed, so that it costs the broker nothing before and a
//! break in the middle of it cannot leave half of it behind.

use super::client::{Confirmation, Handle};
use super::frame::Outgoing;
use super::message::{Message, Verdict};
use super::outbox::{Action, Entry, Load, Undone};
use crate::error::Error;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A transaction. Nothing of it happens before [`commit`](Self::commit); dropping it is enough to forget it.
#[must_use = "nothing happens before it is committed"]
pub struct Transaction {
    handle: Arc<Handle>,
    actions: Vec<Action>,
    is_resent: bool,
    /// Nothing came of it, so that its messages can be acknowledged by other means.
    is_undone: Arc<AtomicBool>,
    undone: Undone,
}

/// A message of a transaction, for what is said about it.
pub struct TransactionMessage<'a> {
    message: &'a mut Outgoing,
}

impl Transaction {
    pub(super) fn new(handle: Arc<Handle>) -> Transaction {
        let is_undone = Arc::new(AtomicBool::new(false));
        let undone = Undone::tell(is_undone.clone());
        Transaction { handle, actions: Vec::new(), is_resent: true, is_undone, undone }
    }

    /// Whether it is written again when a connection breaks before the receipt of its commit, if it has no
    /// acknowledgements. It is unless this says no.
    pub fn resend(mut self, is_resent: bool) -> Self {
        self.is_resent = is_resent;
        self
    }

    /// Adds a message.
    pub fn send(&mut self, destination: &str, body: impl Into<Bytes>) -> TransactionMessage<'_> {
        self.actions.push(Action::Send(Outgoing::new(destination, body.into())));
        match self.actions.last_mut() {
            Some(Action::Send(message)) => TransactionMessage { message },
            _ => unreachable!("a message was added last"),
        }
    }

    /// Adds that a message is done.
    ///
    /// # Errors
    /// Something was said about it before.
    pub fn ack(&mut self, message: &Message) -> Result<(), Error> {
        self.settle(message, Verdict::Ack)
    }

    /// Adds that a message is not done.
    ///
    /// # Errors
    /// Something was said about it before, or the version that is spoken has no NACK.
    pub fn nack(&mut self, message: &Message) -> Result<(), Error> {
        self.settle(message, Verdict::Nack)
    }

    fn settle(&mut self, message: &Message, verdict: Verdict) -> Result<(), Error> {
        if !Arc::ptr_eq(&self.handle, &message.handle) {
            return Err(Error::bad_argument("the message was received by another client"));
        }
        self.actions.extend(message.settle_in(verdict, &self.is_undone)?.map(Action::Settle));
        Ok(())
    }

    /// Has the broker do all of it. It waits in the outbox while there is no connection, as a send does.
    /// If it ends before it is written, its messages can be acknowledged by other means.
    pub fn commit(self) -> Confirmation {
        let Transaction { handle, actions, is_resent, is_undone: _, undone } = self;
        let faults = actions.iter().filter_map(|action| match action {
            Action::Send(message) => message.fault(),
            Action::Settle(_) => None,
        });
        if let Some(what) = faults.into_iter().next() {
            return Confirmation::failed(handle, Error::bad_argument(what));
        }
        let mut entry = Entry::new(Load::Transaction(actions), true, is_resent);
        entry.undone = Some(undone);
        Confirmation::offer(handle, entry)
    }

    /// Forgets all of it. Its messages can be acknowledged by other means.
    pub fn abort(self) {}
}

impl TransactionMessage<'_> {
    /// Sets a header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.message.set(name, value);
        self
    }

    /// Says what the body is.
    pub fn content_type(self, media_type: &str) -> Self {
        self.header("content-type", media_type)
    }

    /// Whether the message outlives the broker's process.
    pub fn persistent(self, is_persistent: bool) -> Self {
        self.header("persistent", if is_persistent { "true" } else { "false" })
    }
}
