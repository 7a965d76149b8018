//! Who a client is: connection and subscription tokens.
//!
//! A backend signs a JWT, the client shows it, [`Verifier`] says what it grants. It answers; what follows
//! (error 109, close 3500, ...) is the caller's business, as is comparing a subscription token's user,
//! channel and client with those of the connection. `passcode` judges names and passcodes of configured users. `judge` has the keys and rules of one section of the
//! configuration, `key` the keys, `jwks` those that an issuer publishes, `jwt` the form of a token. Time is an
//! argument: a token's times follow wall time, which the caller has. What must stay true: the algorithm follows
//! from the configured key and never from the token alone; an expired token is told apart from an invalid one
//! only after its signature held; no error or log contains a token or a part of it.

mod judge;
mod jwks;
mod jwt;
mod key;
mod passcode;
mod pattern;

pub use passcode::{Clerk, Login, Passcodes, hash_passcode};

use crate::config::{self, ChannelOptions, Config};
use crate::env::{Clock, Env};
use crate::errands::Errands;
use aws_lc_rs::digest;
use bytes::Bytes;
use judge::Judge;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Judges tokens, and logins.
pub struct Verifier {
    connection: Judge,
    /// Where subscription tokens have rules of their own.
    subscription: Option<Judge>,
    passcodes: Passcodes,
    clerk: Option<Clerk>,
}

/// Why a token is refused, or not judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenError {
    /// Genuine, but past its time: a fresh one may succeed.
    Expired,
    /// Not genuine, malformed, or meant for something else. The reason is for logs; it holds no part of the token.
    Invalid(&'static str),
    /// No key is configured, so no token can be judged.
    NotConfigured,
    /// There is no key for its algorithm.
    NoKey {
        /// The algorithm.
        algorithm: &'static str,
        /// The settings of which one is needed.
        settings: &'static str,
    },
    /// It names a key of its issuer that is not in memory: [`Verifier::judge_connection`] and
    /// [`Verifier::judge_subscription`] ask for it.
    MissingKey,
    /// It cannot be judged at present, whatever it is: the same one may succeed later.
    Unavailable(&'static str),
}

impl TokenError {
    /// What is wrong, for logs; it holds no part of the token.
    pub fn what(&self) -> Cow<'static, str> {
        match self {
            TokenError::Expired => "the token is expired".into(),
            TokenError::Invalid(reason) | TokenError::Unavailable(reason) => (*reason).into(),
            TokenError::NotConfigured => {
                "a token was shown, but no key is configured (auth.hmac_secret or another)".into()
            }
            TokenError::NoKey { algorithm, settings } => {
                format!("the algorithm {algorithm} needs {settings}").into()
            }
            TokenError::MissingKey => "the issuer's key of this name is not here".into(),
        }
    }

    /// What it means that a key is missing after the issuer was asked.
    fn after_fetch(self) -> TokenError {
        match self {
            TokenError::MissingKey => {
                TokenError::Invalid("the issuer has no key of the name that the token gives (`kid`)")
            }
            other => other,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenError::Expired => f.write_str("token expired"),
            TokenError::Invalid(_) | TokenError::NoKey { .. } => write!(f, "invalid token: {}", self.what()),
            TokenError::NotConfigured => f.write_str("no key for tokens is configured"),
            TokenError::MissingKey | TokenError::Unavailable(_) => {
                write!(f, "the token cannot be judged: {}", self.what())
            }
        }
    }
}

impl std::error::Error for TokenError {}

/// A key of the configuration that cannot be used; the text names its setting and never the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

/// The signing of tokens does not work in this build or on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SigningError(String);

impl fmt::Display for SigningError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tokens cannot be signed: {}", self.0)
    }
}

impl std::error::Error for SigningError {}

/// What a connection token grants.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ConnectionToken {
    /// Who the client is; empty for the anonymous user.
    pub user: Arc<str>,
    /// When the connection ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// What other clients see of the user: raw JSON; empty if absent.
    pub info: Bytes,
    /// Subscriptions that the server makes, by channel, sorted.
    pub channels: Vec<(String, ServerSubscription)>,
    /// Raw JSON that stays on the server; empty if absent.
    pub meta: Bytes,
    /// The token's own name (claim `jti`).
    pub jti: Option<Arc<str>>,
    /// When it was made, by the clock of its maker (claim `iat`), in seconds since 1970.
    pub issued_at: Option<i64>,
    /// The setting whose key accepted it.
    pub key: &'static str,
}

/// A subscription that a connection token asks the server to make.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServerSubscription {
    /// What other clients see of the user in this channel: raw JSON; empty if absent.
    pub info: Bytes,
    /// What the client is told with the subscription: raw JSON; empty if absent.
    pub data: Bytes,
    /// Options of the channel that hold differently here.
    pub overrides: Overrides,
}

/// What a subscription token grants.
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionToken {
    /// Who may use it; must be the connection's user.
    pub user: Arc<str>,
    /// The channel; must be the one that is subscribed.
    pub channel: String,
    /// The one connection that may use it, if the token names any.
    pub client: Option<String>,
    /// What other clients see of the user in this channel: raw JSON; empty if absent.
    pub info: Bytes,
    /// What the client is told with the subscription: raw JSON; empty if absent.
    pub data: Bytes,
    /// When the subscription ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// Options of the channel that hold differently here.
    pub overrides: Overrides,
    /// The token's own name (claim `jti`).
    pub jti: Option<Arc<str>>,
    /// When it was made, by the clock of its maker (claim `iat`), in seconds since 1970.
    pub issued_at: Option<i64>,
    /// The setting whose key accepted it.
    pub key: &'static str,
}

/// Options of a channel that a token changes for one subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// Keep who is there.
    pub presence: Option<bool>,
    /// Publish joins and leaves.
    pub join_leave: Option<bool>,
    /// The subscription is recoverable.
    pub force_recovery: Option<bool>,
    /// The subscription is positioned.
    pub force_positioning: Option<bool>,
    /// Joins and leaves are pushed, asked for or not.
    pub force_push_join_leave: Option<bool>,
}

impl Overrides {
    /// The options that hold for the subscription. A channel without history stays without recovery.
    pub fn apply(&self, options: &ChannelOptions) -> ChannelOptions {
        let has_history = options.has_history();
        ChannelOptions {
            presence: self.presence.unwrap_or(options.presence),
            join_leave: self.join_leave.unwrap_or(options.join_leave),
            force_recovery: self.force_recovery.unwrap_or(options.force_recovery) && has_history,
            force_positioning: self.force_positioning.unwrap_or(options.force_positioning) && has_history,
            force_push_join_leave: self.force_push_join_leave.unwrap_or(options.force_push_join_leave),
            ..options.clone()
        }
    }
}

impl Verifier {
    /// A verifier of both kinds of token by the rules of `[auth]`.
    ///
    /// # Errors
    /// A key that cannot be read, or is weak, or does not work: `jsonwebtoken` finds out about a build without a
    /// cryptographic backend only when it is used, and a start is the better moment than a client's connect.
    pub fn new(auth: &config::Auth) -> Result<Verifier, KeyError> {
        let (passcodes, clerk) = Passcodes::new(&Config::default());
        Ok(Verifier { connection: Judge::new(auth, false)?, subscription: None, passcodes, clerk })
    }

    /// A verifier by the rules of a whole configuration.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_config(config: &Config) -> Result<Verifier, KeyError> {
        let mut verifier = Verifier::new(&config.auth)?;
        (verifier.passcodes, verifier.clerk) = Passcodes::new(config);
        if let Some(auth) = config.subscription_auth.settings() {
            verifier.subscription = Some(Judge::new(&auth, true)?);
        }
        Ok(verifier)
    }

    /// The same verifier, able to fetch the keys of issuers; without, `jwks_url` accepts nothing.
    pub fn fetching(mut self, env: &Env, errands: &Errands) -> Verifier {
        for jwks in [Some(&mut self.connection), self.subscription.as_mut()].into_iter().flatten() {
            jwks.fetch_with(env, errands);
        }
        self
    }

    /// Judges names and passcodes, with the help of its [clerk](Self::take_clerk).
    pub fn passcodes(&self) -> &Passcodes {
        &self.passcodes
    }

    /// Who verifies passcodes, if there are any; it must be run by a thread of its own.
    pub fn take_clerk(&mut self) -> Option<Clerk> {
        self.clerk.take()
    }

    /// Fetches keys that are older than they should be; called every few seconds, waits for nothing.
    pub fn tend(&self) {
        self.connection.tend();
        self.subscription.iter().for_each(Judge::tend);
    }

    fn of_subscriptions(&self) -> &Judge {
        self.subscription.as_ref().unwrap_or(&self.connection)
    }

    /// Judges a connection token at the time `now_unix`, in seconds since 1970, with the keys in memory.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_connection(&self, token: &str, now_unix: i64) -> Result<ConnectionToken, TokenError> {
        self.connection.connection(token, now_unix)
    }

    /// Judges a subscription token at the time `now_unix`, in seconds since 1970, with the keys in memory.
    ///
    /// The caller compares user, channel and client with those of the connection.
    ///
    /// # Errors
    /// See [`TokenError`].
    pub fn verify_subscription(&self, token: &str, now_unix: i64) -> Result<SubscriptionToken, TokenError> {
        self.of_subscriptions().subscription(token, now_unix)
    }

    /// Judges a connection token; where its key is not there, asks the issuer for it first.
    ///
    /// # Errors
    /// See [`TokenError`]; never `MissingKey`.
    pub async fn judge_connection(&self, token: &str, clock: Clock) -> Result<ConnectionToken, TokenError> {
        match self.verify_connection(token, clock.unix_seconds()) {
            Err(TokenError::MissingKey) => self.connection.fetch().await?,
            verdict => return verdict,
        }
        self.verify_connection(token, clock.unix_seconds()).map_err(TokenError::after_fetch)
    }

    /// Judges a subscription token; where its key is not there, asks the issuer for it first.
    ///
    /// # Errors
    /// See [`TokenError`]; never `MissingKey`.
    pub async fn judge_subscription(
        &self,
        token: &str,
        clock: Clock,
    ) -> Result<SubscriptionToken, TokenError> {
        match self.verify_subscription(token, clock.unix_seconds()) {
            Err(TokenError::MissingKey) => self.of_subscriptions().fetch().await?,
            verdict => return verdict,
        }
        self.verify_subscription(token, clock.unix_seconds()).map_err(TokenError::after_fetch)
    }
}

impl ConnectionToken {
    /// A number that stands for the channels that the token brings: equal for equal ones, 0 for none.
    pub fn channels_fingerprint(&self) -> u64 {
        if self.channels.is_empty() {
            return 0;
        }
        let mut digest = digest::Context::new(&digest::SHA256);
        for (channel, _) in &self.channels {
            // With their lengths, or "a", "bc" would be "ab", "c".
            digest.update(&(channel.len() as u64).to_be_bytes());
            digest.update(channel.as_bytes());
        }
        let digest = digest.finish();
        let eight = digest.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(eight).max(1)
    }
}

/// Signs `claims` with HS256 and `secret`.
///
/// # Errors
///
/// If the claims are no JSON object, or the cryptographic library fails.
pub fn sign(secret: &str, claims: &serde_json::Value) -> Result<String, SigningError> {
    if !claims.is_object() {
        return Err(SigningError("claims must be an object".to_owned()));
    }
    jwt::sign(secret, claims).map_err(|error| SigningError(error.to_string()))
}

#[cfg(test)]
mod tests;
