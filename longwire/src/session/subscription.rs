//! One client's interest in one channel, and the list of them.
//!
//! A subscription is *joining* from the moment it is in the hub until its reply is written; what is
//! delivered meanwhile waits in its buffer. Then it is *live*, and [`Subscription::accept`] says of each
//! delivery whether it goes out.

use super::recovery;
use crate::delivery::{Delivery, What};
use crate::node::Grant;
use bytes::Bytes;
use longwire_protocol::command::Subscribe;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::{Continuity, Position};
use std::sync::Arc;
use std::time::Instant;

/// What a subscription is, apart from where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traits {
    /// The client is in presence.
    pub presence: bool,
    /// The client's coming and going is announced.
    pub join_leave: bool,
    /// The client is pushed joins and leaves.
    pub sees_movements: bool,
    /// Every offset is watched.
    pub is_positioned: bool,
    /// The client may recover.
    pub is_recoverable: bool,
    /// The server began it.
    pub is_server_side: bool,
}

impl Traits {
    /// What a grant and what the client asks for amount to.
    pub fn of(grant: &Grant, ask: &Subscribe, is_server_side: bool) -> Traits {
        let is_recoverable =
            grant.has_history && (grant.force_recovery || grant.allow_recovery && ask.recoverable);
        let is_positioned = is_recoverable
            || grant.has_history && (grant.force_positioning || grant.allow_positioning && ask.positioned);
        Traits {
            presence: grant.presence,
            join_leave: grant.join_leave,
            sees_movements: grant.must_see_join_leave || ask.join_leave && grant.may_see_join_leave,
            is_positioned,
            is_recoverable,
            is_server_side,
        }
    }
}

/// One client's interest in one channel.
#[derive(Debug)]
pub struct Subscription {
    /// The channel.
    pub channel: Arc<str>,
    /// The channel's number in the shard's hub.
    pub hub_id: u32,
    /// Tells this subscription from an earlier or later one of the same session to the same channel.
    pub serial: u32,
    /// What it is.
    pub traits: Traits,
    /// Up to where the client has seen everything; `None` if nobody watches.
    pub seen: Option<Position>,
    /// Presence and the join were seen to, so the leave must be.
    pub has_entered: bool,
    /// What was delivered since it joined; `None` once it is live.
    joining: Option<Box<Buffer>>,
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Buffer {
    deliveries: Vec<Arc<Delivery>>,
    /// The reply was given to the connection.
    is_answered: bool,
    /// About how many bytes the deliveries take.
    delivered_bytes: usize,
    /// About how many bytes were recovered, and wait with them.
    recovered_bytes: usize,
}

#[derive(Debug, Default)]
struct Rare {
    chan_info: Bytes,
    expires: Option<Instant>,
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it.
    Write,
    /// Do not.
    Skip,
    /// One before it is missing.
    Missing,
}

impl Subscription {
    /// A subscription that is joining.
    pub fn joining(
        channel: Arc<str>,
        hub_id: u32,
        serial: u32,
        traits: Traits,
        chan_info: Bytes,
    ) -> Subscription {
        let rare = (!chan_info.is_empty()).then(|| Box::new(Rare { chan_info, expires: None }));
        Subscription {
            channel,
            hub_id,
            serial,
            traits,
            seen: None,
            has_entered: false,
            joining: Some(Box::default()),
            rare,
        }
    }

    /// Whether its reply is not written yet.
    pub fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// Goes live at `seen`: gives out what was delivered meanwhile, of which [`accept`](Self::accept) says what goes
    /// out.
    pub fn go_live(&mut self) -> Vec<Arc<Delivery>> {
        let Buffer { deliveries, .. } = *self.joining.take().unwrap_or_default();
        if flaw::is_on(Flaw::BufferDropped) { Vec::new() } else { deliveries }
    }

    /// Notes about how many bytes were recovered; they wait for the reply.
    pub fn note_recovered(&mut self, bytes: usize) {
        if let Some(buffer) = &mut self.joining {
            buffer.recovered_bytes = bytes;
        }
    }

    /// About how many bytes were recovered and wait for the reply.
    pub fn recovered_bytes(&self) -> usize {
        self.joining.as_ref().map_or(0, |buffer| buffer.recovered_bytes)
    }

    /// About how many bytes were delivered and wait for the reply.
    pub fn delivered_bytes(&self) -> usize {
        self.joining.as_ref().map_or(0, |buffer| buffer.delivered_bytes)
    }

    /// Notes that its reply was given to the connection.
    pub fn set_answered(&mut self) {
        if let Some(buffer) = &mut self.joining {
            buffer.is_answered = true;
        }
    }

    /// Whether it is joining, and its reply was given to the connection.
    pub fn is_answered(&self) -> bool {
        self.joining.as_ref().is_some_and(|buffer| buffer.is_answered)
    }

    /// Says what becomes of a delivery.
    pub fn accept(&mut self, delivery: &Arc<Delivery>) -> Verdict {
        if !self.traits.sees_movements && !matches!(delivery.what, What::Publication(_)) {
            return Verdict::Skip;
        }
        if let Some(Buffer { deliveries, delivered_bytes, .. }) = self.joining.as_deref_mut() {
            *delivered_bytes += match &delivery.what {
                What::Publication(publication) => recovery::wire_bytes(std::slice::from_ref(publication)),
                What::Join(_) | What::Leave(_) => 2 * recovery::ENVELOPE_BYTES,
            };
            deliveries.push(delivery.clone());
            return Verdict::Skip;
        }
        match recovery::follows(&mut self.seen, delivery) {
            Continuity::Next => Verdict::Write,
            Continuity::Duplicate => Verdict::Skip,
            Continuity::Gap | Continuity::OtherEpoch => Verdict::Missing,
        }
    }

    /// Raw JSON that others see with the client in this channel; empty if absent.
    pub fn chan_info(&self) -> Bytes {
        self.rare.as_ref().map(|rare| rare.chan_info.clone()).unwrap_or_default()
    }

    /// When it ends unless it is refreshed.
    pub fn expires(&self) -> Option<Instant> {
        self.rare.as_ref().and_then(|rare| rare.expires)
    }

    /// Sets when it ends.
    pub fn set_expires(&mut self, expires: Option<Instant>) {
        if expires.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().expires = expires;
        }
    }
}
