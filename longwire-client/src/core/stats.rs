//! What a client counts about its connections.

use crate::cause::Cause;
use crate::transport::Transport;
use std::collections::BTreeMap;

/// What a client counted since it was made.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Sockets that were dialled.
    pub attempts: u64,
    /// Attempts that ended before the login was done.
    pub failures: u64,
    /// Connections that were established, login included.
    pub connects: u64,
    /// Connections that were established and lost.
    pub losses: u64,
    /// Ends of attempts and connections, by [`Cause::name`].
    pub causes: BTreeMap<&'static str, u64>,
    /// The same, by the name of their category.
    pub categories: BTreeMap<&'static str, u64>,
    /// Why the last attempt or connection ended.
    pub last_cause: Option<Cause>,
    /// The transport of the connection that is established.
    pub transport: Option<Transport>,
    /// Bytes that came, from all sockets.
    pub bytes_received: u64,
    /// Bytes that were given to be written, to all sockets.
    pub bytes_sent: u64,
    /// Messages that came; over raw TCP: pieces.
    pub messages_received: u64,
    /// Messages that were sent.
    pub messages_sent: u64,
}

impl Stats {
    /// Counts an end.
    pub(crate) fn count(&mut self, cause: &Cause, was_connected: bool) {
        if was_connected {
            self.losses += 1;
        } else {
            self.failures += 1;
        }
        *self.causes.entry(cause.name()).or_default() += 1;
        *self.categories.entry(cause.category().as_str()).or_default() += 1;
        self.last_cause = Some(cause.clone());
        self.transport = None;
    }
}
