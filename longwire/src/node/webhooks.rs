//! What the backend decides for clients: when it is asked, and what its answer grants.
//!
//! `backend` makes the calls; here is which of them is made, and how an answer and the channel's options come to a
//! grant. What `permission` decides without asking anybody is asked there. What must stay true: a token comes before
//! a webhook, and a webhook before the options `allow_*`.

use super::permission::{grant, presence_rights};
use super::{Denied, Grant, Identity, NewPublication, Node};
use crate::auth::ConnectionToken;
use crate::backend::{Asker, Refusal, Welcome};
use crate::history::Version;
use bytes::Bytes;
use longwire_protocol::ErrorCode;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::name::ChannelName;

/// Who a client turned out to be.
pub struct Arrival {
    /// What a token grants, or the backend as if by one.
    pub token: ConnectionToken,
    /// Payload of the backend for the client; empty if absent.
    pub data: Bytes,
    /// The backend said so, not a token.
    pub is_from_backend: bool,
}

/// What a token, or a login, brings that nobody else was asked about.
pub(super) fn arrival(token: ConnectionToken) -> Arrival {
    Arrival { token, data: Bytes::new(), is_from_backend: false }
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Denied {
        match refusal {
            Refusal::Failed => ErrorCode::Internal.into(),
            Refusal::Error(error) => Denied::Error(error),
            Refusal::Close(close) => Denied::Close(close, "ordered by a webhook's answer".into()),
        }
    }
}

impl Node {
    /// Says who a client is: by its token, else by the connect webhook, else as an anonymous user.
    ///
    /// # Errors
    /// As [`authenticate`](Node::authenticate), and those of the backend; `Expired` if what it grants is past its
    /// time already.
    pub async fn identify(&self, asker: &Asker, connect: &Connect) -> Result<Arrival, Denied> {
        if connect.token.is_empty()
            && self.backend.identifies()
            && let Some(arrival) = self.ask_who(asker, connect).await?
        {
            return Ok(arrival);
        }
        self.authenticate(&connect.token).await.map(arrival)
    }

    /// Has the connect webhook say who a client is; `None` if it does not.
    pub(super) async fn ask_who(&self, asker: &Asker, connect: &Connect) -> Result<Option<Arrival>, Denied> {
        let Some(welcome) = self.welcome(asker, connect).await? else { return Ok(None) };
        if welcome.expires_at.is_some_and(|at| at <= self.env.clock.unix_seconds()) {
            return Err(ErrorCode::Expired.into());
        }
        for (channel, _) in &welcome.channels {
            self.channel_options(channel)?;
        }
        let token = ConnectionToken {
            user: welcome.user,
            expires_at: welcome.expires_at,
            info: welcome.info,
            channels: welcome.channels,
            meta: welcome.meta,
            ..ConnectionToken::default()
        };
        Ok(Some(Arrival { token, data: welcome.data, is_from_backend: true }))
    }

    async fn welcome(&self, asker: &Asker, connect: &Connect) -> Result<Option<Welcome>, Refusal> {
        let answer = self.backend.connect(asker, connect).await;
        if flaw::is_on(Flaw::DoorLeftOpen) { answer.or(Ok(None)) } else { answer }
    }

    /// Says whether a client may subscribe, and with what.
    ///
    /// The webhook of the channel's options decides unless the channel is private, a token is shown, or the channel's
    /// name says who may (centrifuge protocol, section 13).
    ///
    /// # Errors
    /// As [`authorize_subscribe`](Node::authorize_subscribe), and those of the backend.
    pub async fn admit(&self, asker: &Asker, identity: &Identity, ask: &Subscribe) -> Result<Grant, Denied> {
        let options = self.channel_options(&ask.channel)?;
        let name = ChannelName::parse(&ask.channel);
        let is_users_own = options.allow_user_limited_channels && name.users.is_some();
        let webhook = &options.subscribe_webhook;
        if webhook.is_empty() || !ask.token.is_empty() || name.is_private || is_users_own {
            return self.authorize_subscribe(identity, &ask.channel, &ask.token).await;
        }
        let admission = self.backend.subscribe(webhook, asker, &ask.channel, &ask.data).await?;
        if admission.expires_at.is_some_and(|at| at <= self.env.clock.unix_seconds()) {
            return Err(ErrorCode::Expired.into());
        }
        let is_insecure = self.config.client.insecure;
        let may_see = is_insecure || presence_rights(options).allow(&identity.user, true);
        let overridden = admission.terms.overrides.apply(options);
        Ok(Grant {
            may_see_join_leave: overridden.join_leave && may_see,
            chan_info: admission.terms.info,
            data: admission.terms.data,
            expires_at: admission.expires_at,
            is_renewed_by_backend: admission.expires_at.is_some() && !options.sub_refresh_webhook.is_empty(),
            ..grant(&overridden)
        })
    }

    /// Says what is published for a client: by the webhook of the channel's options, else as it came.
    ///
    /// # Errors
    /// As [`authorize_publish`](Node::authorize_publish), and those of the backend.
    pub async fn admit_publication(
        &self,
        asker: &Asker,
        channel: &str,
        is_subscriber: bool,
        new: NewPublication,
    ) -> Result<NewPublication, Denied> {
        let webhook = &self.channel_options(channel)?.publish_webhook;
        if webhook.is_empty() {
            self.authorize_publish(&asker.user, channel, is_subscriber)?;
            return Ok(new);
        }
        if new.data.is_empty() {
            return Err(ErrorCode::BadRequest.into());
        }
        let published = self.backend.publish(webhook, asker, channel, &new.data).await?;
        Ok(NewPublication {
            is_known_json: published.data.is_none() && new.is_known_json,
            data: published.data.unwrap_or(new.data),
            skip_history: published.skip_history,
            tags: if published.tags.is_empty() { new.tags } else { published.tags },
            is_bytes: new.is_bytes,
            idempotency_key: Some(published.idempotency_key).filter(|key| !key.is_empty()).map(Into::into),
            use_delta: published.delta,
            version: (published.version != 0).then(|| Version {
                number: published.version,
                epoch: published.version_epoch.as_str().into(),
            }),
            info: new.info,
            ..NewPublication::default()
        })
    }
}
