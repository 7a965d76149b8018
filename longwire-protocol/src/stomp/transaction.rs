//! Transactions: what is to be done together, kept until it is known whether.
//!
//! They belong to a connection and end with it. One that is committed goes to the queues first, and is published when they
//! have taken it. What must stay true: what all of them keep is bounded, in number and in bytes, before it is kept; nothing
//! of an aborted one is done; nothing is published of one that the queues refuse.

use super::Limits;
use crate::command::{Command, Numbered};
use crate::queue::QueueCommand;
use std::collections::{BTreeMap, VecDeque};

/// What an action takes besides what it was made of.
const ACTION_BYTES: usize = 128;

/// The open transactions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    open: BTreeMap<Box<str>, Transaction>,
    bytes: usize,
}

/// What is to be done when one is committed.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// With queues, in order.
    pub(crate) queues: Vec<QueueCommand>,
    /// With channels, in order.
    pub(crate) channels: Vec<Command>,
    bytes: usize,
}

impl Transactions {
    /// Begins one.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn begin(&mut self, name: &str, limits: &Limits) -> Result<(), &'static str> {
        if self.open.contains_key(name) {
            return Err("the transaction was begun before");
        }
        if self.open.len() >= limits.max_transactions {
            return Err("too many transactions are open");
        }
        self.open.insert(name.into(), Transaction::default());
        Ok(())
    }

    /// Keeps an action that was made of a frame of so many bytes.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn keep(
        &mut self,
        name: &str,
        action: Command,
        frame_bytes: usize,
        limits: &Limits,
    ) -> Result<(), &'static str> {
        let Some(transaction) = self.open.get_mut(name) else { return Err(UNKNOWN) };
        if transaction.queues.len() + transaction.channels.len() >= limits.max_transaction_actions {
            return Err("the transaction has too many actions");
        }
        let bytes = frame_bytes + ACTION_BYTES;
        if self.bytes + bytes > limits.max_transaction_bytes {
            return Err("the open transactions keep too much");
        }
        self.bytes += bytes;
        transaction.bytes += bytes;
        match action {
            Command::Queue(command) => transaction.queues.push(command),
            command => transaction.channels.push(command),
        }
        Ok(())
    }

    /// Whether one is open.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.open.contains_key(name)
    }

    /// Ends one; whoever committed it does what it says.
    ///
    /// # Errors
    /// There is none of this name.
    pub(crate) fn end(&mut self, name: &str) -> Result<Transaction, &'static str> {
        let transaction = self.open.remove(name).ok_or(UNKNOWN)?;
        self.bytes -= transaction.bytes;
        Ok(transaction)
    }
}

/// What is published of committed transactions when the queues have taken the rest of each.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// Each behind the number of the command that the queues are to carry out before.
    waiting: VecDeque<(u32, VecDeque<Numbered>)>,
}

impl Committed {
    /// Keeps publications until the command `id` is carried out.
    pub(crate) fn keep(&mut self, id: u32, publications: VecDeque<Numbered>) {
        self.waiting.push_back((id, publications));
    }

    /// What has waited for the command `id`, if anything has.
    pub(crate) fn release(&mut self, id: u32) -> VecDeque<Numbered> {
        let at = self.waiting.iter().position(|(before, _)| *before == id);
        at.and_then(|at| self.waiting.remove(at)).map(|(_, publications)| publications).unwrap_or_default()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What is said of a transaction that is not open.
pub(crate) const UNKNOWN: &str = "the transaction was not begun, or has ended";

#[cfg(test)]
mod tests {
    use super::*;

    fn publish() -> Command {
        Command::Publish { channel: "x".into(), data: "{}".into(), kind: 0, tags: Vec::new() }
    }

    #[test]
    fn what_transactions_keep_is_bounded_all_together() {
        let limits = Limits {
            max_transactions: 2,
            max_transaction_actions: 3,
            max_transaction_bytes: 4 * (ACTION_BYTES + 100),
            ..Limits::default()
        };
        let mut all = Transactions::default();
        assert_eq!(all.begin("a", &limits), Ok(()));
        assert_eq!(all.begin("a", &limits), Err("the transaction was begun before"));
        assert_eq!(all.begin("b", &limits), Ok(()));
        assert_eq!(all.begin("c", &limits), Err("too many transactions are open"));
        for _ in 0..3 {
            assert_eq!(all.keep("a", publish(), 100, &limits), Ok(()));
        }
        assert_eq!(all.keep("a", publish(), 100, &limits), Err("the transaction has too many actions"));
        assert_eq!(all.keep("b", publish(), 101, &limits), Err("the open transactions keep too much"));
        assert_eq!(all.keep("b", publish(), 100, &limits), Ok(()));
        assert_eq!(all.end("a").map(|it| it.channels.len()), Ok(3));
        assert_eq!(all.keep("b", publish(), 201, &limits), Ok(()));
        assert_eq!(all.end("a").map(|it| it.channels.len()), Err(UNKNOWN));
        assert!(all.end("b").is_ok() && all.bytes == 0);
    }
}
