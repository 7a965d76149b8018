//! What only some sessions have: an end that somebody may put off, and what a backend is to know of them.
//!
//! The part of [`Session`] that concerns its own time, the time of its subscriptions, and what is handed on with every
//! webhook. What must stay true: a session that needs none of it keeps nothing for it.

use super::Session;
use super::away::Named;
use super::expiry::{Due, Expiry};
use crate::backend::{Asker, Baggage};
use crate::config::Config;
use crate::node::limits::UserPlace;
use crate::node::revocation::Proof;
use longwire_protocol::CloseReason;
use longwire_protocol::message::{Push, unsubscribe};
use std::sync::Arc;
use std::time::Instant;

/// What only some sessions have.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// When the connection ends, and who prolongs it.
    pub(super) expiry: Expiry,
    /// What is handed on to the backend.
    baggage: Option<Arc<Baggage>>,
    /// The place among the user's connections, kept for as long as the session.
    pub(super) place: Option<UserPlace>,
    /// The channels that the token brought, as a fingerprint; 0 for none.
    channels: u64,
    /// By which token the client came, if by one.
    proof: Option<Proof>,
    /// Among the connections of a user who may have one, a later one has a higher rank; 0 without such a rule.
    rank: u64,
    /// What only a client with a name has.
    pub(super) named: Option<Box<Named>>,
}

/// What a connection is granted besides channels.
#[derive(Debug)]
pub struct Terms {
    /// When it ends unless it is prolonged.
    pub expires: Option<Instant>,
    /// What the client is told of that.
    pub ttl_seconds: Option<u32>,
    /// The backend prolongs it, not the client.
    pub is_left_to_backend: bool,
    /// The channels that the token brought, as a fingerprint; 0 for none.
    pub token_channels: u64,
    /// By which token the client came, if by one.
    pub proof: Option<Proof>,
}

/// What the backend is to be asked about: its time has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ripe {
    /// The connection.
    Connection,
    /// The subscription with this serial number.
    Subscription {
        /// The channel.
        channel: Arc<str>,
        /// The number.
        serial: u32,
    },
}

impl Session {
    /// Sets when the connection ends unless it is prolonged.
    pub fn set_expires(&mut self, expires: Option<Instant>) {
        if expires.is_some() || self.credentials.is_some() {
            self.credentials.get_or_insert_default().expiry.set(expires);
        }
    }

    /// Whether the backend prolongs the connection, not the client.
    pub fn is_left_to_backend(&self) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| credentials.expiry.is_left_to_backend())
    }

    /// Tells the client how long the connection lives on, if it knows of its connection; not the time to one that the
    /// backend prolongs, who would show another token for it.
    pub fn tell_of_time(&mut self, ttl_seconds: Option<u32>, config: &Config) {
        if self.is_told() {
            let is_its_own = !self.is_left_to_backend() || !self.connection.takes_commands();
            let ttl_seconds = ttl_seconds.filter(|_| is_its_own);
            self.push("", &Push::Refresh { ttl_seconds }, config);
        }
    }

    /// Keeps what is handed on to the backend; it is shared by the requests that are under way.
    pub fn carry(&mut self, change: impl FnOnce(&mut Baggage)) {
        let mut baggage = self.baggage().map(|baggage| (**baggage).clone()).unwrap_or_default();
        change(&mut baggage);
        if !baggage.is_empty() || self.baggage().is_some() {
            self.credentials.get_or_insert_default().baggage = Some(Arc::new(baggage));
        }
    }

    /// What is told of the client with each call to the backend, if anything is.
    pub fn baggage(&self) -> Option<&Arc<Baggage>> {
        self.credentials.as_ref().and_then(|credentials| credentials.baggage.as_ref())
    }

    /// Takes what the client's latest proof of who it is grants, in the place of what an earlier one granted.
    pub fn set_terms(&mut self, terms: Terms) {
        let Terms { expires, ttl_seconds: _, is_left_to_backend, token_channels, proof } = terms;
        let is_plain = expires.is_none() && token_channels == 0 && proof.is_none();
        if is_plain && self.credentials.is_none() {
            return;
        }
        let credentials = self.credentials.get_or_insert_default();
        credentials.expiry = Expiry::default();
        if is_left_to_backend {
            credentials.expiry.leave_to_backend();
        }
        credentials.expiry.set(expires);
        credentials.channels = token_channels;
        credentials.proof = proof;
    }

    /// The fingerprint of the channels that the client's token brought; 0 for none.
    pub fn token_channels(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |credentials| credentials.channels)
    }

    /// Notes by which token the client came.
    pub fn set_proof(&mut self, proof: Proof) {
        self.credentials.get_or_insert_default().proof = Some(proof);
    }

    /// By which token the client came, if by one.
    pub fn proof(&self) -> Option<&Proof> {
        self.credentials.as_ref()?.proof.as_ref()
    }

    /// Notes the rank among the connections of its user.
    pub fn set_rank(&mut self, rank: u64) {
        self.credentials.get_or_insert_default().rank = rank;
    }

    /// The rank among the connections of its user; 0 if they have none.
    pub fn rank(&self) -> u64 {
        self.credentials.as_ref().map_or(0, |credentials| credentials.rank)
    }

    /// When the connection ends unless it is prolonged.
    pub fn expires(&self) -> Option<Instant> {
        self.credentials.as_ref().and_then(|credentials| credentials.expiry.at())
    }

    /// Who the client is for the backend.
    pub fn asker(&self) -> Asker {
        Asker {
            client: self.identity.client,
            user: self.identity.user.clone(),
            transport: self.connection.transport().as_str(),
            protocol: self.connection.format().as_str(),
            baggage: self.baggage().cloned(),
        }
    }

    /// What the backend is to be asked about, because its time has come; the answer sets when it ends.
    pub fn poll_ripe(&mut self) -> Option<Ripe> {
        let ripe = self.passing.as_mut()?.ripe.pop();
        self.passing.take_if(|passing| passing.is_empty());
        ripe
    }

    /// Ends a subscription whose time is over: the client is told, or has to come again where it cannot subscribe.
    pub fn expire_subscription(&mut self, serial: u32, config: &Config) {
        let takes_commands = self.connection.takes_commands();
        let Some(subscription) = self.subscription_numbered(serial) else { return };
        subscription.set_expires(None);
        if subscription.traits.is_server_side || !takes_commands {
            return self.close(CloseReason::SubscriptionExpired.into(), "");
        }
        let channel = subscription.channel.clone();
        self.unsubscribe(&channel, unsubscribe::EXPIRED, config);
    }

    /// Gives the place among the user's connections back, and the client's name; the session is over.
    pub fn release_places(&mut self) {
        self.credentials = None;
    }

    /// Ends what is over, and notes what the backend is to be asked about.
    pub(super) fn look_at_expiries(&mut self, now: Instant, config: &Config) {
        let grace = config.client.expired_close_delay;
        let (mut ripe, mut over) = (Vec::new(), Vec::new());
        let connection = self.credentials.as_mut();
        match connection.and_then(|credentials| credentials.expiry.handle_timeout(now, grace)) {
            Some(Due::End) => return self.close(CloseReason::Expired.into(), ""),
            Some(Due::Ask) => ripe.push(Ripe::Connection),
            None => {}
        }
        for subscription in &mut self.subscriptions {
            match subscription.expiry_mut().and_then(|expiry| expiry.handle_timeout(now, grace)) {
                Some(Due::End) => over.push(subscription.serial),
                Some(Due::Ask) => {
                    let (channel, serial) = (subscription.channel.clone(), subscription.serial);
                    ripe.push(Ripe::Subscription { channel, serial });
                }
                None => {}
            }
        }
        if !ripe.is_empty() {
            self.passing.get_or_insert_default().ripe.append(&mut ripe);
        }
        for serial in over {
            self.expire_subscription(serial, config);
        }
    }
}
