//! Who may do what in a channel: the one place that reads tokens and a channel's `allow_*` options.

use super::Node;
use crate::auth::{ConnectionToken, ServerSubscription, TokenError};
use crate::config::{ChannelOptions, DELTA_TYPE, Destination, RecoveryMode, User};
use bytes::Bytes;
use longwire_protocol::message::{ClientId, ClientInfo, ReplyError};
use longwire_protocol::name::ChannelName;
use longwire_protocol::{Close, CloseReason, ErrorCode};
use std::borrow::Cow;
use std::sync::Arc;

/// Who a connected client is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who it says it is; empty for the anonymous user.
    pub user: Arc<str>,
    /// The connection.
    pub client: ClientId,
    /// Raw JSON that others see; empty if absent.
    pub info: Bytes,
}

impl Identity {
    /// The identity as others see it in a channel.
    pub fn info_in_channel(&self, chan_info: Bytes) -> Arc<ClientInfo> {
        Arc::new(ClientInfo {
            user: self.user.clone(),
            client: self.client,
            conn_info: self.info.clone(),
            chan_info,
        })
    }
}

/// What a subscription is allowed, and what it comes with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// The client is kept in presence.
    pub presence: bool,
    /// The client's coming and going is announced.
    pub join_leave: bool,
    /// The client may be pushed joins and leaves if it asks.
    pub may_see_join_leave: bool,
    /// The client is pushed joins and leaves even if it does not ask.
    pub must_see_join_leave: bool,
    /// The channel has positions.
    pub has_history: bool,
    /// Every subscription is positioned.
    pub force_positioning: bool,
    /// The client may ask for a positioned subscription.
    pub allow_positioning: bool,
    /// Every subscription is recoverable.
    pub force_recovery: bool,
    /// The client may ask for a recoverable subscription.
    pub allow_recovery: bool,
    /// A recovery brings the newest publication rather than all that were missed.
    pub recovers_newest: bool,
    /// A subscription begins with the newest publication, asked for or not.
    pub begins_with_newest: bool,
    /// The client may ask for differences.
    pub allow_delta: bool,
    /// The client may choose publications by their tags.
    pub allow_tags_filter: bool,
    /// Raw JSON that others see with the client in this channel; empty if absent.
    pub chan_info: Bytes,
    /// Raw JSON for the client; empty if absent.
    pub data: Bytes,
    /// When the subscription ends unless it is refreshed, in seconds since 1970.
    pub expires_at: Option<i64>,
    /// The backend is asked to refresh it, not the client.
    pub is_renewed_by_backend: bool,
}

/// Why a client may not.
#[derive(Clone, Debug, PartialEq)]
pub enum Denied {
    /// The command is answered by an error.
    Error(ReplyError),
    /// The connection is closed; the text says why, for the log.
    Close(Close, Cow<'static, str>),
}

impl Denied {
    /// The connection is closed for a reason of the table.
    pub fn close(reason: CloseReason, what: impl Into<Cow<'static, str>>) -> Denied {
        Denied::Close(reason.into(), what.into())
    }
}

impl From<ErrorCode> for Denied {
    fn from(code: ErrorCode) -> Denied {
        Denied::Error(code.into())
    }
}

/// One of the three rights that channels grant by `_for_client`, `_for_subscriber`, `_for_anonymous`.
pub(super) struct Rights {
    client: bool,
    subscriber: bool,
    anonymous: bool,
}

impl Rights {
    pub(super) fn allow(&self, user: &str, is_subscriber: bool) -> bool {
        (self.client || self.subscriber && is_subscriber) && (self.anonymous || !user.is_empty())
    }
}

impl Node {
    /// Says who a client with this token is; an empty token is no token.
    ///
    /// # Errors
    /// `TokenExpired` for a token past its time; `InvalidToken` for a wrong one; `BadRequest` for none where
    /// one is needed; `UnknownChannel` for a server-side subscription in an unknown namespace; `Internal`, which is
    /// temporary, if the token cannot be judged at present.
    pub async fn authenticate(&self, token: &str) -> Result<ConnectionToken, Denied> {
        let rules = &self.config.client;
        if token.is_empty() {
            return if rules.allow_anonymous || rules.insecure {
                Ok(anonymous())
            } else {
                Err(Denied::close(
                    CloseReason::BadRequest,
                    "no token was shown and client.allow_anonymous is off",
                ))
            };
        }
        let verified = match self.verifier.judge_connection(token, self.env.clock).await {
            Ok(token) => token,
            Err(_) if rules.insecure => anonymous(),
            Err(TokenError::Expired) => return Err(ErrorCode::TokenExpired.into()),
            Err(TokenError::Unavailable(what)) => return Err(unavailable(what)),
            Err(error) => return Err(Denied::close(CloseReason::InvalidToken, error.what())),
        };
        if verified.user.is_empty() && !rules.allow_anonymous_tokens && !rules.insecure {
            let what = "the token names no user and client.allow_anonymous_tokens is off";
            return Err(Denied::close(CloseReason::PermissionDenied, what));
        }
        self.require_valid(&verified)?;
        for (channel, _) in &verified.channels {
            self.channel_options(channel)?;
        }
        Ok(verified)
    }

    /// Says whether a client may subscribe, and with what.
    ///
    /// In this order: a token decides; the user's own rights (`[users.NAME]`); a private channel needs a token; the users
    /// in the channel's name; the channel's options; the insecure mode (centrifuge protocol, "Channels and namespaces").
    ///
    /// # Errors
    /// An error code for the reply, or a close reason for a token that belongs to somebody else.
    pub async fn authorize_subscribe(
        &self,
        identity: &Identity,
        channel: &str,
        token: &str,
    ) -> Result<Grant, Denied> {
        let options = self.channel_options(channel)?;
        let name = ChannelName::parse(channel);
        let is_insecure = self.config.client.insecure;
        let may_see = is_insecure || presence_rights(options).allow(&identity.user, true);
        let granted = |options: &ChannelOptions| Grant {
            may_see_join_leave: options.join_leave && may_see,
            ..grant(options)
        };
        if !token.is_empty() {
            match self.verifier.judge_subscription(token, self.env.clock).await {
                Ok(token) => {
                    if self.is_revoked(&token.user, token.jti.as_deref(), token.issued_at) {
                        tracing::info!(%channel, "a revoked subscription token was refused");
                        return Err(ErrorCode::PermissionDenied.into());
                    }
                    let is_other_client = token
                        .client
                        .as_deref()
                        .is_some_and(|id| ClientId::parse(id) != Some(identity.client));
                    if token.channel != channel || token.user != identity.user || is_other_client {
                        let what = "the subscription token is for another channel, user or client";
                        return Err(Denied::close(CloseReason::InvalidToken, what));
                    }
                    return Ok(Grant {
                        chan_info: token.info,
                        data: token.data,
                        expires_at: token.expires_at,
                        ..granted(&token.overrides.apply(options))
                    });
                }
                Err(_) if is_insecure => return Ok(granted(options)),
                Err(TokenError::Expired) => return Err(ErrorCode::TokenExpired.into()),
                Err(TokenError::Unavailable(what)) => return Err(unavailable(what)),
                Err(error) => {
                    tracing::info!(%channel, %error, "a subscription token was refused");
                    return Err(ErrorCode::PermissionDenied.into());
                }
            }
        }
        let is_users_own = |user: &User| user.may_subscribe(Destination::Channel(channel));
        let is_allowed = if self.config.users.get(&*identity.user).is_some_and(is_users_own) {
            true
        } else if name.is_private {
            is_insecure
        } else if options.allow_user_limited_channels && name.users.is_some() {
            name.names_user(&identity.user)
        } else {
            let rights = Rights {
                client: options.allow_subscribe_for_client,
                subscriber: false,
                anonymous: options.allow_subscribe_for_anonymous,
            };
            is_insecure || rights.allow(&identity.user, false)
        };
        if is_allowed { Ok(granted(options)) } else { Err(ErrorCode::PermissionDenied.into()) }
    }

    /// What a subscription that the server itself begins comes with.
    ///
    /// # Errors
    /// As [`channel_options`](Node::channel_options).
    pub fn grant_server_side(&self, channel: &str, ours: &ServerSubscription) -> Result<Grant, ErrorCode> {
        let options = ours.overrides.apply(self.channel_options(channel)?);
        Ok(Grant {
            may_see_join_leave: options.join_leave,
            chan_info: ours.info.clone(),
            data: ours.data.clone(),
            ..grant(&options)
        })
    }

    /// Says whether a token that was good still is.
    ///
    /// # Errors
    /// `InvalidToken` closes if it was revoked.
    pub fn require_valid(&self, token: &ConnectionToken) -> Result<(), Denied> {
        if self.is_revoked(&token.user, token.jti.as_deref(), token.issued_at) {
            return Err(Denied::close(CloseReason::InvalidToken, "the token was revoked"));
        }
        Ok(())
    }

    fn is_revoked(&self, user: &str, jti: Option<&str>, issued_at: Option<i64>) -> bool {
        self.revocations.is_revoked(user, jti, issued_at, self.env.clock.unix_seconds())
    }

    /// Prolongs a connection: what the fresh token grants.
    ///
    /// `channels` is the [fingerprint](ConnectionToken::channels_fingerprint) of those that the client's token
    /// brought when it connected.
    ///
    /// # Errors
    /// `Expired` and `InvalidToken` close; so does a token of another user, and, as `InsufficientState`, one that
    /// brings other channels: the client comes back and has them. `Internal` if it cannot be judged at present.
    pub async fn refresh(
        &self,
        identity: &Identity,
        channels: u64,
        token: &str,
    ) -> Result<ConnectionToken, Denied> {
        if token.is_empty() {
            return Err(Denied::close(CloseReason::BadRequest, "refresh without a token"));
        }
        match self.verifier.judge_connection(token, self.env.clock).await {
            Ok(token) if token.user == identity.user => match token.channels_fingerprint() == channels {
                true => self.require_valid(&token).map(|()| token),
                false => Err(Denied::close(
                    CloseReason::InsufficientState,
                    "the refreshing token brings other channels",
                )),
            },
            Err(TokenError::Unavailable(what)) => Err(unavailable(what)),
            Err(TokenError::Expired) => {
                Err(Denied::close(CloseReason::Expired, "the refreshing token is expired"))
            }
            Ok(_) => Err(Denied::close(CloseReason::InvalidToken, "the refreshing token is another user's")),
            Err(error) => Err(Denied::close(CloseReason::InvalidToken, error.what())),
        }
    }

    /// Prolongs a subscription.
    ///
    /// # Errors
    /// As [`authorize_subscribe`](Self::authorize_subscribe); `BadRequest` for an empty token.
    pub async fn refresh_subscription(
        &self,
        identity: &Identity,
        channel: &str,
        token: &str,
    ) -> Result<Option<i64>, Denied> {
        if token.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        self.authorize_subscribe(identity, channel, token).await.map(|grant| grant.expires_at)
    }

    /// Says whether a client may publish.
    ///
    /// # Errors
    /// `PermissionDenied`, or those of [`channel_options`](Node::channel_options).
    pub fn authorize_publish(&self, user: &str, channel: &str, is_subscriber: bool) -> Result<(), ErrorCode> {
        let options = self.channel_options(channel)?;
        let rights = Rights {
            client: options.allow_publish_for_client,
            subscriber: options.allow_publish_for_subscriber,
            anonymous: options.allow_publish_for_anonymous,
        };
        let is_users_own = |user: &User| user.may_send(Destination::Channel(channel));
        let has_right = self.config.users.get(user).is_some_and(is_users_own);
        self.require(has_right || rights.allow(user, is_subscriber))
    }

    /// Says whether a client may ask who is there.
    ///
    /// # Errors
    /// `NotAvailable` if nothing is kept, `PermissionDenied`, or those of
    /// [`channel_options`](Node::channel_options).
    pub fn authorize_presence(
        &self,
        user: &str,
        channel: &str,
        is_subscriber: bool,
    ) -> Result<(), ErrorCode> {
        let options = self.channel_options(channel)?;
        if !options.presence {
            return Err(ErrorCode::NotAvailable);
        }
        self.require(presence_rights(options).allow(user, is_subscriber))
    }

    /// Says whether a client may read history.
    ///
    /// # Errors
    /// As [`authorize_presence`](Self::authorize_presence).
    pub fn authorize_history(&self, user: &str, channel: &str, is_subscriber: bool) -> Result<(), ErrorCode> {
        let options = self.channel_options(channel)?;
        if !options.has_history() {
            return Err(ErrorCode::NotAvailable);
        }
        let rights = Rights {
            client: options.allow_history_for_client,
            subscriber: options.allow_history_for_subscriber,
            anonymous: options.allow_history_for_anonymous,
        };
        self.require(rights.allow(user, is_subscriber))
    }

    fn require(&self, is_allowed: bool) -> Result<(), ErrorCode> {
        if is_allowed || self.config.client.insecure { Ok(()) } else { Err(ErrorCode::PermissionDenied) }
    }
}

/// The token of a client that needs none.
fn anonymous() -> ConnectionToken {
    ConnectionToken::default()
}

/// What a client is told whose token may be as good as any, but cannot be judged: to try again.
fn unavailable(what: &'static str) -> Denied {
    tracing::info!(what, "a token cannot be judged");
    ErrorCode::Internal.into()
}

pub(super) fn presence_rights(options: &ChannelOptions) -> Rights {
    Rights {
        client: options.allow_presence_for_client,
        subscriber: options.allow_presence_for_subscriber,
        anonymous: options.allow_presence_for_anonymous,
    }
}

pub(super) fn grant(options: &ChannelOptions) -> Grant {
    Grant {
        presence: options.presence,
        join_leave: options.join_leave,
        may_see_join_leave: false,
        must_see_join_leave: options.join_leave && options.force_push_join_leave,
        has_history: options.has_history(),
        force_positioning: options.force_positioning,
        allow_positioning: options.allow_positioning,
        force_recovery: options.force_recovery,
        allow_recovery: options.allow_recovery,
        recovers_newest: options.force_recovery_mode == RecoveryMode::Cache,
        begins_with_newest: options.force_recovery_mode == RecoveryMode::Cache && options.auto_cache_recover,
        allow_delta: options.allowed_delta_types.iter().any(|name| name == DELTA_TYPE),
        allow_tags_filter: options.allow_tags_filter,
        ..Grant::default()
    }
}
