//! Where tokens come from, and when one is asked for.
//!
//! A source is a function of the program that makes a token, from its backend mostly. The state says that it wants one
//! ([`TokenRequest`]); whoever runs the state runs the function and brings the answer. What must stay true: of one
//! connection, and of one subscription, at most one request is under way.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Why there is no token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// There will be none: the client gives up, or the subscription ends.
    Denied(String),
    /// It did not work this time: it is tried again.
    Failed(String),
}

/// Any error of a source means that it is tried again.
impl<E: std::error::Error> From<E> for TokenError {
    fn from(error: E) -> TokenError {
        TokenError::Failed(error.to_string())
    }
}

/// A token on its way.
pub type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Makes tokens.
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenSource {
    /// Makes a source of a function.
    pub fn new<F, Fut>(source: F) -> TokenSource
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        TokenSource(Arc::new(move || Box::pin(source())))
    }

    /// Asks for a token.
    pub fn ask(&self) -> TokenFuture {
        (self.0)()
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// For what.
    pub subject: TokenSubject,
    /// From where.
    pub source: TokenSource,
}

/// What a token is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenSubject {
    /// The connection.
    Connection,
    /// A subscription.
    Subscription {
        /// Its channel.
        channel: Arc<str>,
        /// Which subscription to this channel: an earlier one may have ended meanwhile.
        key: u32,
    },
}
