//! What a call on a client can end with, when it does not end well.
//!
//! One type for every dialect. A connection that breaks is no error: the client comes back, and tells it as a
//! [`Transition`](crate::Transition). An error is the answer to one call, or the end of the whole client. What must stay true: each
//! variant says whether what was asked for was done: [`Error::Unconfirmed`] and [`Error::Timeout`] alone leave that open; after
//! every other one it was not.

use crate::address::AddressError;
use crate::cause::Cause;
use crate::transition::Limit;

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was closed by this program.
    #[error("the client is closed")]
    Closed,
    /// The client has given up coming back.
    #[error("the client gave up ({limit}): {cause}")]
    GaveUp {
        /// Why the last connection or attempt ended.
        cause: Cause,
        /// Which limit was reached.
        limit: Limit,
    },
    /// The server refused.
    #[error("the server refused with {code}: {message}")]
    Refused {
        /// Its code; 0 where the dialect has none.
        code: u32,
        /// Its words.
        message: String,
        /// Whether it says that trying again may help.
        temporary: bool,
    },
    /// The connection broke between the command and its reply: it may have been done or not.
    #[error("the connection broke before the reply: it may have been done")]
    Unconfirmed,
    /// The server did not reply in time, on a connection that lives: it may still be done.
    #[error("the server did not reply in time")]
    Timeout,
    /// The outbox is full, and the client was told to fail then.
    #[error("the outbox is full")]
    OutboxFull,
    /// The outbox was full, and this was the oldest in it that had never been written.
    #[error("given up for a later one, because the outbox was full")]
    Dropped,
    /// The caller asked for something that cannot be.
    #[error("{what}")]
    BadArgument {
        /// What is wrong with it.
        what: String,
    },
    /// The transport in use has no way to do this.
    #[error("not available over {transport}")]
    NotAvailable {
        /// The transport's name.
        transport: &'static str,
    },
    /// The message was received on a connection that is gone: the server gives it out again.
    #[error("the message was received on an earlier connection: it will be delivered again")]
    StaleMessage,
    /// The application's source of tokens failed: its words.
    #[error("no token: {0}")]
    Token(String),
    /// A URL is wrong.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The server's answer makes no sense: the rule that it broke.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Makes the error of a caller's mistake.
    pub(crate) fn bad_argument(what: impl Into<String>) -> Error {
        Error::BadArgument { what: what.into() }
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Refused { temporary, .. } => *temporary,
            Error::Unconfirmed | Error::Timeout | Error::OutboxFull | Error::Dropped | Error::Token(_) => {
                true
            }
            Error::Closed
            | Error::GaveUp { .. }
            | Error::BadArgument { .. }
            | Error::NotAvailable { .. }
            | Error::StaleMessage
            | Error::Address(_)
            | Error::Protocol(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_help_later_is_said_by_the_error() {
        assert!(Error::Refused { code: 100, message: String::new(), temporary: true }.is_temporary());
        assert!(!Error::Refused { code: 103, message: String::new(), temporary: false }.is_temporary());
        assert!(Error::Unconfirmed.is_temporary());
        assert!(!Error::Closed.is_temporary());
    }

    #[test]
    fn the_text_names_what_ended_the_client() {
        let error = Error::GaveUp { cause: Cause::Refused, limit: Limit::Attempts };
        let text = error.to_string();
        assert!(text.contains("too many attempts") && text.contains("connection refused"), "{text}");
    }
}
