//! What happens to a connection, told to whoever wants to know.

use crate::cause::Cause;
use std::fmt;
use std::time::Duration;

/// One step in the life of a client's connection. Each is an event for the application, a line of `tracing`, and counted.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Transition {
    /// A server is dialled.
    Connecting {
        /// The server, without secrets.
        server: String,
        /// The transport's name.
        transport: &'static str,
        /// How many attempts failed before this one, in a row.
        failures: u32,
    },
    /// Handshake and login are done.
    Connected {
        /// The server, without secrets.
        server: String,
        /// The transport's name.
        transport: &'static str,
        /// It is not the first time.
        again: bool,
    },
    /// An established connection ended, or an attempt failed.
    Disconnected {
        /// Why.
        cause: Cause,
        /// It had been established.
        was_connected: bool,
        /// After what delay the next attempt begins; `None`: there is none.
        retry_in: Option<Duration>,
    },
    /// There is no further attempt.
    GaveUp {
        /// Why the last connection or attempt ended.
        cause: Cause,
        /// Which limit was reached.
        limit: Limit,
    },
    /// The application closed the client.
    Closed,
}

/// What ended the attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// The server does not want the client back.
    Advice,
    /// As many attempts failed as may.
    Attempts,
    /// They have failed for as long as they may.
    Elapsed,
    /// Coming back is off.
    Off,
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Transition::Connecting { server, transport, failures: 0 } => {
                write!(f, "connecting to {server} ({transport})")
            }
            Transition::Connecting { server, transport, failures } => {
                write!(f, "connecting to {server} ({transport}), {failures} failed before")
            }
            Transition::Connected { server, again: false, .. } => write!(f, "connected to {server}"),
            Transition::Connected { server, .. } => write!(f, "connected again to {server}"),
            Transition::Disconnected { cause, retry_in: Some(delay), .. } if delay.as_millis() < 50 => {
                write!(f, "{cause}; trying again at once")
            }
            Transition::Disconnected { cause, retry_in: Some(delay), .. } => {
                write!(f, "{cause}; trying again in {:.1} s", delay.as_secs_f64())
            }
            Transition::Disconnected { cause, .. } => write!(f, "{cause}"),
            Transition::GaveUp { cause, limit } => write!(f, "gave up ({limit}): {cause}"),
            Transition::Closed => f.write_str("closed"),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Advice => "the server does not want it back",
            Limit::Attempts => "too many attempts failed",
            Limit::Elapsed => "attempts failed for too long",
            Limit::Off => "coming back is off",
        })
    }
}
