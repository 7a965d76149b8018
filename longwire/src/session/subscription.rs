//! One client's interest in one channel, and the list of them.
//!
//! A subscription is *joining* from the moment it is in the hub until its reply is written; what is
//! delivered meanwhile waits in its buffer. Then it is *live*, and [`Subscription::accept`] says of each
//! delivery whether it goes out.

use super::expiry::Expiry;
use super::recovery;
use crate::delivery::{DataForm, Delivery, What};
use crate::node::{Grant, Identity};
use bytes::Bytes;
use longwire_protocol::command::Subscribe;
use longwire_protocol::filter::Filter;
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
    /// It counts as a subscriber of its channel, so its end must be counted, too.
    pub is_counted: bool,
    /// The backend is told of it, so it must be told of its end.
    pub is_told: bool,
    /// Whether everything that was missed came; `None` if nobody asked.
    pub recovered: Option<bool>,
    /// Whether the client may not have what it was written.
    pub doubt: Doubt,
    /// What was delivered since it joined; `None` once it is live.
    joining: Option<Box<Buffer>>,
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Buffer {
    deliveries: Vec<Arc<Delivery>>,
    /// The reply was given to the connection.
    is_answered: bool,
    /// Nobody is there: what history has is not kept.
    is_away: bool,
    /// Something was delivered that is not kept.
    is_lossy: bool,
    /// Where the client stands until the reply is written.
    stands: Option<Position>,
    /// About how many bytes the deliveries take.
    delivered_bytes: usize,
    /// About how many bytes were recovered, and wait with them.
    recovered_bytes: usize,
}

#[derive(Debug, Default)]
struct Rare {
    chan_info: Bytes,
    expiry: Expiry,
    /// Which publications the client wants.
    filter: Option<Filter>,
    delta: Option<Delta>,
}

/// What the client needs to make sense of a difference.
#[derive(Clone, Copy, Debug, Default)]
struct Delta {
    /// The offset of the publication that the client had last.
    base: Option<u64>,
}

/// Whether something was written that the client may not have, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doubt {
    /// It has everything.
    #[default]
    None,
    /// Something was written a while ago, and the client was heard after that.
    Fading,
    /// Something was written of which nobody knows.
    Fresh,
}

impl Doubt {
    /// A while has passed, and the client was heard.
    pub fn fade(&mut self) {
        *self = match self {
            Doubt::Fresh => Doubt::Fading,
            Doubt::Fading | Doubt::None => Doubt::None,
        };
    }
}

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write it, in this form.
    Write(DataForm),
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
        let rare = (!chan_info.is_empty()).then(|| Box::new(Rare { chan_info, ..Rare::default() }));
        Subscription {
            channel,
            hub_id,
            serial,
            traits,
            seen: None,
            has_entered: false,
            is_counted: false,
            is_told: false,
            recovered: None,
            doubt: Doubt::None,
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
        let Buffer { deliveries, recovered_bytes, .. } = *self.joining.take().unwrap_or_default();
        // The reply said something that a client must not miss.
        if recovered_bytes > 0 || self.recovered == Some(false) {
            self.doubt = Doubt::Fresh;
        }
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

    /// Notes where the client stands until the reply is written.
    pub fn note_stand(&mut self, position: Option<Position>) {
        if let Some(buffer) = &mut self.joining {
            buffer.stands = position;
        }
    }

    /// Where the client stands until the reply is written, if that is not where it has seen everything then.
    pub fn stands(&self) -> Option<Position> {
        self.joining.as_ref().and_then(|buffer| buffer.stands)
    }

    /// Goes back to joining, because the link ended: what was not written was not given.
    pub fn suspend(&mut self) {
        let is_positioned = self.traits.is_positioned;
        let buffer = self.joining.get_or_insert_default();
        if let Some(stands) = buffer.stands.take() {
            self.seen = Some(stands);
        }
        buffer.is_answered = false;
        buffer.is_away = true;
        buffer.recovered_bytes = 0;
        if is_positioned {
            buffer.deliveries.retain(|delivery| !matches!(delivery.what, What::Publication(_)));
            buffer.deliveries.shrink_to_fit();
            buffer.delivered_bytes = buffer.deliveries.iter().map(|delivery| wire_bytes(delivery)).sum();
        }
    }

    /// Waits for its reply again, because there is a link again.
    pub fn await_reply(&mut self) {
        self.joining.get_or_insert_default().is_away = false;
    }

    /// Keeps what was delivered before all that is kept already.
    pub fn put_back(&mut self, mut deliveries: Vec<Arc<Delivery>>) {
        if let Some(buffer) = self.joining.as_mut().filter(|_| !deliveries.is_empty()) {
            buffer.delivered_bytes += deliveries.iter().map(|delivery| wire_bytes(delivery)).sum::<usize>();
            deliveries.append(&mut buffer.deliveries);
            buffer.deliveries = deliveries;
        }
    }

    /// Drops what was delivered and what will be until there is a link again; returns how many publications and about
    /// how many bytes that were.
    pub fn lose(&mut self) -> (usize, usize) {
        let Some(buffer) = &mut self.joining else { return (0, 0) };
        buffer.is_lossy = true;
        let deliveries = std::mem::take(&mut buffer.deliveries);
        (deliveries.len(), std::mem::take(&mut buffer.delivered_bytes))
    }

    /// Whether something was delivered while nobody was there and is not kept.
    pub fn is_lossy(&self) -> bool {
        self.joining.as_ref().is_some_and(|buffer| buffer.is_lossy)
    }

    /// Says what becomes of a delivery to a client. What is not for it counts as seen.
    pub fn accept(&mut self, delivery: &Arc<Delivery>, identity: &Identity) -> Verdict {
        if !self.traits.sees_movements && !matches!(delivery.what, What::Publication(_)) {
            return Verdict::Skip;
        }
        if let Some(Buffer { deliveries, delivered_bytes, is_away, .. }) = self.joining.as_deref_mut() {
            if *is_away && self.traits.is_positioned && matches!(delivery.what, What::Publication(_)) {
                return Verdict::Skip;
            }
            *delivered_bytes += wire_bytes(delivery);
            deliveries.push(delivery.clone());
            return Verdict::Skip;
        }
        match recovery::follows(&mut self.seen, delivery) {
            Continuity::Next => self.form_of(delivery, identity),
            Continuity::Duplicate => Verdict::Skip,
            Continuity::Gap | Continuity::OtherEpoch => Verdict::Missing,
        }
    }

    /// In which form what is next goes out, if it does.
    fn form_of(&mut self, delivery: &Delivery, identity: &Identity) -> Verdict {
        let What::Publication(publication) = &delivery.what else { return Verdict::Write(DataForm::Plain) };
        if !recovery::is_for(publication, &identity.user, identity.client) {
            return Verdict::Skip;
        }
        let Some(rare) = self.rare.as_deref_mut() else { return Verdict::Write(DataForm::Plain) };
        if rare.filter.as_ref().is_some_and(|filter| !filter.matches(&publication.tags))
            && !flaw::is_on(Flaw::FilterLeaks)
        {
            return Verdict::Skip;
        }
        let Some(delta) = &mut rare.delta else { return Verdict::Write(DataForm::Plain) };
        // Whatever the client was not sent, it cannot put a difference on.
        let base = delta.base.replace(publication.offset);
        let previous = delivery.previous.as_ref().map(|previous| previous.offset);
        let is_known = base.is_some() && base == previous || flaw::is_on(Flaw::DeltaAgainstUnsent);
        Verdict::Write(if is_known { DataForm::Difference } else { DataForm::Whole })
    }

    /// Whether the client wants publications with these tags.
    pub fn wants(&self, tags: &[(String, String)]) -> bool {
        let filter = self.rare.as_ref().and_then(|rare| rare.filter.as_ref());
        filter.is_none_or(|filter| filter.matches(tags))
    }

    /// Sets which publications the client wants.
    pub fn set_filter(&mut self, filter: Filter) {
        self.rare.get_or_insert_default().filter = Some(filter);
    }

    /// Notes that the client takes differences, and the offset of the last publication that it is given with the
    /// reply, if any.
    pub fn set_delta(&mut self, base: Option<u64>) {
        self.rare.get_or_insert_default().delta = Some(Delta { base });
    }

    /// Raw JSON that others see with the client in this channel; empty if absent.
    pub fn chan_info(&self) -> Bytes {
        self.rare.as_ref().map(|rare| rare.chan_info.clone()).unwrap_or_default()
    }

    /// Sets raw JSON that others see with the client in this channel.
    pub fn set_chan_info(&mut self, chan_info: Bytes) {
        self.rare.get_or_insert_default().chan_info = chan_info;
    }

    /// When it ends, and who prolongs it; `None` if it does not end.
    pub fn expiry(&self) -> Option<&Expiry> {
        self.rare.as_ref().map(|rare| &rare.expiry)
    }

    /// When it ends, to be changed; `None` if it does not end.
    pub fn expiry_mut(&mut self) -> Option<&mut Expiry> {
        self.rare.as_mut().map(|rare| &mut rare.expiry)
    }

    /// Sets when it ends.
    pub fn set_expires(&mut self, expires: Option<Instant>) {
        if expires.is_some() || self.rare.is_some() {
            self.rare.get_or_insert_default().expiry.set(expires);
        }
    }

    /// Notes that the backend is asked to prolong it when its time has come.
    pub fn leave_to_backend(&mut self) {
        self.rare.get_or_insert_default().expiry.leave_to_backend();
    }
}

/// About how many bytes a delivery will take on the wire.
pub(super) fn wire_bytes(delivery: &Delivery) -> usize {
    match &delivery.what {
        What::Publication(publication) => recovery::wire_bytes(std::slice::from_ref(publication)),
        What::Join(_) | What::Leave(_) | What::Message { .. } => 2 * recovery::ENVELOPE_BYTES,
    }
}
