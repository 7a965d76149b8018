//! A session without a link: what it keeps until its client returns, and how it stands then.
//!
//! The part of [`Session`] that outlives a link. Only a client with a name can return, so only its session goes away
//! rather than to its end. Meanwhile positioned subscriptions keep their position, because history has what is
//! missed; the others keep what is published, and all of them who comes and goes, within one bound over all of the
//! session. What must stay true: whatever the client may not have got is either given on its return, or the return
//! says `recovered: false`; what a returning client was about to be given when its link broke again counts as not
//! given.

use super::answered::Unproven;
use super::closing::Closing;
use super::credentials::Credentials;
use super::naming::Naming;
use super::subscription::{Doubt, Subscription, wire_bytes};
use super::{Session, State, recovery};
use crate::config::Config;
use crate::delivery::{Delivery, What};
use crate::history::Page;
use crate::node::claims::{AwayPlace, Claim};
use bytes::Bytes;
use longwire_protocol::command::{Connect, Subscribe};
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::{Push, Reply, SubscribeResult};
use longwire_protocol::{CloseReason, Connection, Epoch, Position, Since};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What only the session of a client with a name has.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) claim: Claim,
    pub(super) naming: Naming,
    /// The client was told of its session: it knows that it may return.
    is_established: bool,
    /// The session outlives its link.
    pub(super) is_kept: bool,
    /// There is no link.
    away: Option<Box<Away>>,
    /// There is one again, and the client was not told yet how it stands.
    pub(super) returned: Option<Box<Away>>,
    /// The serial number of the subscription of which the link was given a publication last; 0 if it was given
    /// something else behind that.
    last_written: u32,
    /// Whether the client may not have what it was written apart from its channels.
    pub(super) doubt: Doubt,
    /// When doubts faded.
    faded: Option<Instant>,
    /// How many polls were answered with something.
    pub(super) answers: u64,
    /// What the last answer to a poll had that has no position.
    pub(super) unproven: Option<Box<Unproven>>,
    /// The client was told last that something is lost that belongs to no channel.
    pub(super) has_said_lost: bool,
    /// By a poll that the client asked for without proving that it got the answer before it was told of a loss.
    pub(super) has_told_loss: bool,
}

/// What was written at least so long before something is heard was received, or the link would not carry any more:
/// what is heard at once may have crossed it.
const FADES_AFTER: Duration = Duration::from_secs(10);

/// How a session is kept that has no link.
#[derive(Debug)]
pub(super) struct Away {
    /// How the link ended, and the session unless the client returns.
    closing: Closing,
    /// Nothing is known to be lost.
    is_certain: bool,
    /// About how many bytes were kept.
    kept_bytes: usize,
    /// What was sent to the client alone, in order.
    messages: Vec<Push>,
    message_bytes: usize,
    /// Publications and direct messages that there was no room for.
    dropped: usize,
    gone: Option<Gone>,
}

/// When a link was let go, and who was at its other end.
#[derive(Debug)]
struct Gone {
    since: Instant,
    address: IpAddr,
    peer: SocketAddr,
    /// `None` if the session is not kept.
    place: Option<AwayPlace>,
}

/// A break, for the log.
#[derive(Debug)]
pub struct Break<'a> {
    /// How the link ended.
    pub closing: &'a Closing,
    /// When, once the link was let go.
    pub since: Option<Instant>,
    /// The client's address and the other end of the socket.
    pub addresses: Option<(IpAddr, SocketAddr)>,
    /// About how many bytes were kept.
    pub kept_bytes: usize,
    /// Publications and direct messages that there was no room for.
    pub dropped: usize,
}

/// A subscription of a client that returned, and what history is asked for.
#[derive(Debug)]
pub struct Missing {
    /// The channel.
    pub channel: Arc<str>,
    /// The subscription's serial number.
    pub serial: u32,
    /// Where the client stands; `None` if nobody knows.
    pub since: Option<Since>,
}

impl Named {
    /// What is kept for a client that has no link, or was not told yet how it stands. If there is no room there for so
    /// many bytes, what it was answered before, and most likely has, gives way.
    fn room_for(&mut self, bytes: usize, config: &Config) -> Option<&mut Away> {
        let away = self.away.as_mut().or(self.returned.as_mut())?;
        if away.kept_bytes + bytes > config.plain.max_away_bytes
            && let Some(unproven) = &mut self.unproven
        {
            away.free(unproven.lose());
        }
        Some(away)
    }
}

impl Away {
    /// Notes that so many bytes are kept no longer.
    pub(super) fn free(&mut self, bytes: usize) {
        self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
    }

    /// Keeps what was sent to the client before that, and took as many bytes with what is given back to subscriptions.
    pub(super) fn put_back(&mut self, mut messages: Vec<Push>, bytes: usize) {
        let message_bytes = |push: &Push| match push {
            Push::Message { data, .. } => recovery::ENVELOPE_BYTES + data.len(),
            _ => 0,
        };
        self.kept_bytes += bytes;
        self.message_bytes += messages.iter().map(message_bytes).sum::<usize>();
        messages.append(&mut self.messages);
        self.messages = messages;
    }
}

impl Session {
    /// Gives the session its client's name, by which the client may return; the session outlives its link if
    /// `is_kept`.
    pub fn set_claim(&mut self, claim: Claim, is_kept: bool) {
        let named = Named {
            naming: Naming::of(claim.user().clone()),
            claim,
            is_established: false,
            is_kept,
            away: None,
            returned: None,
            last_written: 0,
            doubt: Doubt::None,
            faded: None,
            answers: 0,
            unproven: None,
            has_said_lost: false,
            has_told_loss: false,
        };
        self.credentials.get_or_insert_default().named = Some(Box::new(named));
        self.is_named = true;
    }

    pub(super) fn named(&self) -> Option<&Named> {
        named_of(&self.credentials)
    }

    pub(super) fn named_mut(&mut self) -> Option<&mut Named> {
        named_in(&mut self.credentials)
    }

    /// What the client calls itself; empty if it does not.
    pub fn client_name(&self) -> &str {
        named_of(&self.credentials).map_or("", |named| named.claim.name())
    }

    /// Whether there is no link, and the client may return.
    pub fn is_away(&self) -> bool {
        self.is_parted && self.closing.is_none()
    }

    /// The last break of the link, until the client was told how it stands after its return, or if it never returned.
    pub fn last_break(&self) -> Option<Break<'_>> {
        let named = named_of(&self.credentials)?;
        let away = named.away.as_ref().or(named.returned.as_ref())?;
        Some(Break {
            closing: &away.closing,
            since: away.gone.as_ref().map(|gone| gone.since),
            addresses: away.gone.as_ref().map(|gone| (gone.address, gone.peer)),
            kept_bytes: away.kept_bytes,
            dropped: away.dropped,
        })
    }

    /// About how many bytes are kept for a client that is away.
    pub fn kept_bytes(&self) -> usize {
        named_of(&self.credentials).and_then(|named| named.away.as_ref()).map_or(0, |away| away.kept_bytes)
    }

    pub(super) fn away_until(&self, config: &Config) -> Option<Instant> {
        let away =
            named_of(&self.credentials)?.away.as_ref().filter(|_| !flaw::is_on(Flaw::GraceUnending))?;
        away.gone.as_ref().map(|gone| gone.since + config.plain.grace)
    }

    /// Whether the end of the link is not the end of the session.
    pub(super) fn is_to_be_kept(&self) -> bool {
        let is_told = self.is_told();
        named_of(&self.credentials).is_some_and(|named| named.is_kept && (named.is_established || is_told))
    }

    /// Whether something is kept of it while it has no link, once it is connected.
    pub(super) fn is_kept_while_away(&self) -> bool {
        named_of(&self.credentials).is_some_and(|named| named.is_kept)
    }

    /// Whether the client returned and was not told yet how it stands.
    pub(super) fn is_returning(&self) -> bool {
        named_of(&self.credentials).is_some_and(|named| named.returned.is_some())
    }

    /// Notes that the client was told how it stands, and gives out what was sent to it alone meanwhile.
    pub(super) fn note_told(&mut self) -> Vec<Push> {
        let is_away = self.is_away();
        let Some(named) = named_in(&mut self.credentials) else { return Vec::new() };
        named.is_established = true;
        if is_away {
            return Vec::new();
        }
        let Some(returned) = named.returned.take() else { return Vec::new() };
        // Whatever it does not have it was told of; what it is told with that is in doubt from here on.
        named.has_said_lost = named.doubt != Doubt::None || !returned.is_certain;
        named.doubt = if named.has_said_lost { Doubt::Fresh } else { Doubt::None };
        self.subscriptions.iter_mut().for_each(|subscription| subscription.doubt = Doubt::None);
        returned.messages
    }

    /// Notes that something is written which the client must not miss: a publication to the subscription at `index`,
    /// or something else.
    pub(super) fn note_written(&mut self, index: Option<usize>) {
        let subscription = index.and_then(|index| self.subscriptions.get_mut(index));
        if let Some(named) = named_in(&mut self.credentials) {
            named.last_written = subscription.as_ref().map_or(0, |subscription| subscription.serial);
            if subscription.is_none() {
                named.doubt = Doubt::Fresh;
            }
        }
        if let Some(subscription) = subscription {
            subscription.doubt = Doubt::Fresh;
        }
    }

    /// Notes that a reply is written; what it brings counts for each subscription as that goes live.
    pub(super) fn note_answered(&mut self, reply: &Reply) {
        let Some((channel, _)) = recovery::reply_publications(reply).last() else { return };
        let last = self.subscriptions.iter().find(|s| *s.channel == *channel).map_or(0, |s| s.serial);
        if let Some(named) = named_in(&mut self.credentials) {
            named.last_written = last;
        }
    }

    /// Notes that something is written behind what was noted last, of whichever subscription it is.
    pub(super) fn note_written_behind(&mut self) {
        if let Some(named) = named_in(&mut self.credentials) {
            named.last_written = 0;
        }
    }

    /// Notes that the peer was heard: in time it has what was written before.
    pub(super) fn note_heard(&mut self, now: Instant) {
        let Some(named) = named_in(&mut self.credentials) else { return };
        let since = *named.faded.get_or_insert(now);
        if now < since + FADES_AFTER || !self.outbox.is_empty() {
            return;
        }
        named.faded = Some(now);
        named.doubt.fade();
        self.subscriptions.iter_mut().for_each(|subscription| subscription.doubt.fade());
    }

    /// Notes that the client has everything that was written.
    pub(super) fn trust(&mut self) {
        if let Some(named) = named_in(&mut self.credentials) {
            named.doubt = Doubt::None;
        }
        self.subscriptions.iter_mut().for_each(|subscription| subscription.doubt = Doubt::None);
    }

    /// Goes away: the link ended as `closing` says. The caller lets the link go and then calls
    /// [`keep`](Self::keep).
    pub(super) fn part(&mut self, closing: Closing, was_all_written: bool) {
        self.hear_out();
        // A close frame is the client's own word, said behind what it read. The mere end of a connection may be that of a
        // proxy, or of one half of a connection whose other half was gone long before.
        let is_orderly = closing.close.reason == CloseReason::PeerClosed && closing.is_polite;
        if self.is_told() && is_orderly && was_all_written && closing.unsent_bytes == 0 {
            self.trust();
        }
        if let Some(passing) = &mut self.passing {
            if passing.request.take().is_some() {
                self.is_busy = false;
            }
            passing.held = Default::default();
            passing.early = Vec::new();
        }
        let Some(named) = named_in(&mut self.credentials) else { return };
        // Who was not even told of its return stands where it stood before.
        let before = named.returned.take();
        let is_certain = before.as_ref().is_none_or(|away| away.is_certain);
        named.is_established = true;
        named.claim.note_away(true);
        let (messages, message_bytes, dropped) =
            before.map(|away| (away.messages, away.message_bytes, away.dropped)).unwrap_or_default();
        named.away = Some(Box::new(Away {
            closing,
            is_certain,
            kept_bytes: message_bytes + named.unproven.as_ref().map_or(0, |unproven| unproven.bytes()),
            messages,
            message_bytes,
            dropped,
            gone: None,
        }));
        self.is_parted = true;
        self.state = State::Connected;
        self.subscriptions.iter_mut().for_each(Subscription::suspend);
    }

    /// Ends the session as its link ended, for it cannot be kept, or no longer; `why` is for the log. That a poll was
    /// answered ends no session: then it ends for this reason.
    pub fn lapse(&mut self, reason: CloseReason, why: &str) {
        let Some(away) = named_of(&self.credentials).and_then(|named| named.away.as_ref()) else { return };
        let mut closing = away.closing.clone();
        if closing.close.reason == CloseReason::Answered {
            closing.close = reason.into();
        }
        // The link is gone, and with it whoever could be told.
        closing.is_polite = false;
        for part in [if closing.detail.is_empty() { "" } else { "; " }, why] {
            closing.detail.push_str(part);
        }
        self.end(closing);
    }

    /// Notes that the link was let go of a client with these addresses. With a `place` among those that are away the
    /// session is kept until its grace is over; without one it ends.
    pub fn keep(
        &mut self,
        now: Instant,
        (address, peer): (IpAddr, SocketAddr),
        place: Option<AwayPlace>,
        config: &Config,
    ) {
        let Some(away) = named_in(&mut self.credentials).and_then(|named| named.away.as_mut()) else {
            return;
        };
        away.gone = Some(Gone { since: now, address, peer, place });
        self.note_kept(config);
    }

    /// Ends the link because a later one of the same client takes the session over: the session goes away.
    pub fn replace_link(&mut self) {
        if self.closing.is_some() || self.is_away() {
            return;
        }
        // Whether or not it would be kept otherwise: the other link is there.
        let Some(named) = named_in(&mut self.credentials) else { return };
        named.is_established = true;
        let is_kept = std::mem::replace(&mut named.is_kept, true);
        self.close(CloseReason::Replaced.into(), "");
        if let Some(named) = named_in(&mut self.credentials) {
            named.is_kept = is_kept;
        }
    }

    /// Goes on with another link: `unsent` and `held` are bytes on their way to the peer and from it.
    ///
    /// The connect command of the link is being carried out; the caller answers it with what
    /// [`restore`](Self::restore) gives, and then calls [`resume`](Self::resume).
    pub fn take_link(&mut self, connection: Connection, listener: u16, unsent: Vec<Bytes>, held: Vec<u8>) {
        self.connection = connection;
        if flaw::is_on(Flaw::InboxForgotten)
            && let Some(inbox) = &mut self.inbox
        {
            inbox.clear();
        }
        self.begin_with_connect(listener, unsent, held);
        self.state = State::Connecting;
        self.is_parted = false;
        if let Some(named) = named_in(&mut self.credentials) {
            named.claim.note_away(false);
            named.returned = named.away.take();
            let last = named.returned.as_ref().filter(|away| away.is_certain);
            self.polls_on = last.is_some_and(|away| away.closing.close.reason == CloseReason::Answered);
            // Who is back takes no place among those that are away.
            let gone = named.returned.as_mut().and_then(|away| away.gone.as_mut());
            gone.and_then(|gone| gone.place.take());
        }
        self.subscriptions.iter_mut().for_each(Subscription::await_reply);
    }

    /// Which history the subscriptions of a client that returned need; by `connect` the client says where it stands.
    pub fn missing_since(&mut self, connect: &Connect) -> Vec<Missing> {
        let named = |channel: &str| connect.subs.iter().find(|sub| sub.channel == channel)?.recover;
        if self.has_polled() {
            self.judge_answer(connect, named);
        } else if self.has_what_came_last(named) {
            self.trust();
        }
        if let Some(named) = named_in(&mut self.credentials) {
            named.last_written = 0;
        }
        let is_certain = self.is_certain();
        let positioned = self.subscriptions.iter().filter(|s| s.has_entered && s.traits.is_positioned);
        let missing = positioned.map(|subscription| {
            let known = named(&subscription.channel)
                .filter(|since| subscription.traits.is_recoverable && since.epoch != Some(Epoch::FOREIGN));
            let has_it = is_certain && subscription.doubt == Doubt::None;
            let stood = subscription.seen.filter(|_| has_it).map(Since::from);
            let known = known.filter(|_| !flaw::is_on(Flaw::SinceIgnored));
            let (channel, serial) = (subscription.channel.clone(), subscription.serial);
            Missing { channel, serial, since: known.or(stood) }
        });
        missing.collect()
    }

    /// Whether a client that returned stands behind the publication that its link was given last, and so has everything
    /// that was written: a link keeps its order.
    fn has_what_came_last(&self, named: impl Fn(&str) -> Option<Since>) -> bool {
        let last = named_of(&self.credentials).map_or(0, |named| named.last_written);
        let last = self.subscriptions.iter().find(|subscription| subscription.serial == last);
        last.and_then(|subscription| has_come_to(subscription, named(&subscription.channel))).unwrap_or(false)
    }

    /// Whether the link that a client that returned had before was a poll that was answered, or was about to be.
    fn has_polled(&self) -> bool {
        named_of(&self.credentials).is_some_and(|named| {
            let reason = named.returned.as_ref().map(|away| away.closing.close.reason);
            named.unproven.is_some() || reason == Some(CloseReason::Answered)
        })
    }

    /// How the subscriptions of a client that returned go on, given what history has: their serial numbers and what the
    /// client is told. Those that had not begun are left out, for they are told of when they have, and so are those
    /// that `begun` with the return.
    pub fn restore(
        &mut self,
        begun: &[u32],
        pages: Vec<(Missing, Page)>,
        config: &Config,
    ) -> (Vec<u32>, Vec<(String, SubscribeResult)>) {
        let is_certain = self.is_certain();
        let (mut serials, mut results) = (Vec::new(), Vec::new());
        for (missing, page) in pages.into_iter().filter(|(missing, _)| !begun.contains(&missing.serial)) {
            let Some(result) = self.go_on_from(&missing, page, config) else { continue };
            serials.push(missing.serial);
            results.push((missing.channel.to_string(), result));
        }
        for subscription in &mut self.subscriptions {
            if !subscription.has_entered || subscription.traits.is_positioned || !subscription.is_joining() {
                continue;
            }
            if serials.contains(&subscription.serial) || begun.contains(&subscription.serial) {
                continue;
            }
            let recovered = is_certain && subscription.doubt == Doubt::None && !subscription.is_lossy();
            subscription.recovered = Some(recovered);
            let result = SubscribeResult { was_recovering: true, recovered, ..SubscribeResult::default() };
            serials.push(subscription.serial);
            results.push((subscription.channel.to_string(), result));
        }
        (serials, results)
    }

    /// How a positioned subscription goes on whose client was not told of it yet, given what history has; `None` if it
    /// ended.
    fn go_on_from(&mut self, missing: &Missing, page: Page, config: &Config) -> Option<SubscribeResult> {
        let max = config.client.max_recovery_publications;
        let (user, client) = (self.identity.user.clone(), self.identity.client);
        let room = self.recovery_room(config);
        let subscription = self.subscription_numbered(missing.serial)?;
        let mut start = recovery::start(missing.since, page, max, room);
        start.publications.retain(|publication| {
            recovery::is_for(publication, &user, client) && subscription.wants(&publication.tags)
        });
        subscription.note_recovered(recovery::wire_bytes(&start.publications));
        let stands = if start.recovered { Some(start.told) } else { subscription.seen };
        subscription.note_stand(stands);
        subscription.seen = Some(start.seen);
        subscription.recovered = Some(start.recovered);
        Some(SubscribeResult {
            recoverable: subscription.traits.is_recoverable,
            positioned: true,
            position: Some(start.told),
            was_recovering: true,
            recovered: start.recovered,
            publications: start.publications,
            ..SubscribeResult::default()
        })
    }

    /// A subscription that has begun and of which the client was not told yet, while it asks for the same; `None` while it
    /// begins.
    pub fn untold(&mut self, ask: &Subscribe) -> Option<Missing> {
        let subscription = self.subscription(&ask.channel).filter(|subscription| subscription.has_entered)?;
        let since = ask
            .recover
            .filter(|since| subscription.traits.is_recoverable && since.epoch != Some(Epoch::FOREIGN));
        Some(Missing { channel: subscription.channel.clone(), serial: subscription.serial, since })
    }

    /// How such a subscription stands, given what history has of it if it has a position and the client says that it was
    /// there before; `None` if it ended. What was to be said of its beginning is said by that.
    pub fn tell(
        &mut self,
        missing: &Missing,
        page: Option<Page>,
        ask: &Subscribe,
        config: &Config,
    ) -> Option<SubscribeResult> {
        let was_recovering = ask.recover.is_some();
        let result = match page {
            Some(page) => self.go_on_from(missing, page, config)?,
            None => self.begun(missing)?,
        };
        let subscription = self.subscription_numbered(missing.serial)?;
        subscription.recovered = was_recovering.then_some(result.recovered);
        if let Some(passing) = &mut self.passing {
            passing.early.retain(|push| push.channel != ask.channel);
        }
        Some(SubscribeResult { was_recovering, ..result })
    }

    /// How a subscription began that waits for the head of a stream, with what was to be brought behind that.
    fn begun(&self, missing: &Missing) -> Option<SubscribeResult> {
        let mut publications = Vec::new();
        for push in self.passing.iter().flat_map(|passing| &passing.early) {
            if *push.channel != *missing.channel {
                continue;
            }
            if push.is_beginning {
                // It may have ended and begun again meanwhile.
                publications.clear();
            }
            publications.extend(push.publication.clone());
        }
        let subscription = self.subscriptions.iter().find(|s| s.serial == missing.serial)?;
        Some(SubscribeResult {
            recoverable: subscription.traits.is_recoverable,
            positioned: subscription.traits.is_positioned,
            position: subscription.stands().or(subscription.seen),
            publications,
            ..SubscribeResult::default()
        })
    }

    /// Notes that subscriptions began while nobody is there to be told.
    pub(super) fn suspend_begun(&mut self, serials: &[u32], config: &Config) {
        for subscription in self.subscriptions.iter_mut().filter(|s| serials.contains(&s.serial)) {
            subscription.suspend();
        }
        self.note_kept(config);
    }

    /// Keeps a delivery for a client that is away.
    pub(super) fn keep_delivery(&mut self, index: usize, delivery: &Arc<Delivery>, config: &Config) {
        let subscription = &mut self.subscriptions[index];
        let is_publication = matches!(delivery.what, What::Publication(_));
        // History has it.
        if is_publication && subscription.traits.is_positioned {
            return;
        }
        let bytes = wire_bytes(delivery);
        let named = named_in(&mut self.credentials);
        let Some(away) = named.and_then(|named| named.room_for(bytes, config)) else { return };
        if !is_publication {
            // Who comes and goes must not cost what is published its room.
            if away.kept_bytes + bytes <= config.plain.max_away_bytes / 2
                && subscription.traits.sees_movements
            {
                away.kept_bytes += bytes;
                subscription.accept(delivery, &self.identity);
            }
            return;
        }
        if subscription.is_lossy() || away.kept_bytes + bytes > config.plain.max_away_bytes {
            if flaw::is_on(Flaw::AwayLossHidden) {
                return;
            }
            let (dropped, freed) = subscription.lose();
            away.dropped += dropped + 1;
            away.kept_bytes = away.kept_bytes.saturating_sub(freed);
        } else {
            away.kept_bytes += bytes;
            subscription.accept(delivery, &self.identity);
        }
    }

    /// Keeps what is sent to a client alone that is away, or was not told yet how it stands. What there is no room for
    /// is dropped, and the client is told that it did not get everything.
    pub(super) fn keep_direct(&mut self, push: &Push, config: &Config) {
        let Push::Message { data, is_json } = push else { return };
        let bytes = recovery::ENVELOPE_BYTES + data.len();
        let named = named_in(&mut self.credentials);
        let Some(away) = named.and_then(|named| named.room_for(bytes, config)) else { return };
        if away.kept_bytes + bytes > config.plain.max_away_bytes {
            away.dropped += 1;
            away.is_certain = false;
            return;
        }
        away.kept_bytes += bytes;
        away.message_bytes += bytes;
        // A slice would keep the whole body that it came in.
        away.messages.push(Push::Message { data: Bytes::copy_from_slice(data), is_json: *is_json });
    }

    /// Counts what is kept, and drops what there is no room for.
    fn note_kept(&mut self, config: &Config) {
        let Some(named) = named_in(&mut self.credentials) else { return };
        let Some(away) = &mut named.away else { return };
        away.kept_bytes = away.message_bytes + named.unproven.as_ref().map_or(0, |unproven| unproven.bytes());
        for subscription in &mut self.subscriptions {
            if away.kept_bytes + subscription.delivered_bytes() > config.plain.max_away_bytes {
                away.dropped += subscription.lose().0;
            }
            away.kept_bytes += subscription.delivered_bytes();
        }
    }

    /// Whether nothing is missing, as far as is known, of what was sent to the client alone.
    pub fn is_certain(&self) -> bool {
        named_of(&self.credentials).is_none_or(|named| {
            named.doubt == Doubt::None && named.returned.as_ref().is_none_or(|away| away.is_certain)
        })
    }
}

/// Whether a client that says where it is has come as far as its subscription; `None` if it does not say.
pub(super) fn has_come_to(subscription: &Subscription, since: Option<Since>) -> Option<bool> {
    let (seen, since) = (subscription.seen?, since?);
    (since.epoch == Some(seen.epoch)).then_some(since.offset >= seen.offset)
}

pub(super) fn named_of(credentials: &Option<Box<Credentials>>) -> Option<&Named> {
    credentials.as_ref()?.named.as_deref()
}

pub(super) fn named_in(credentials: &mut Option<Box<Credentials>>) -> Option<&mut Named> {
    credentials.as_mut()?.named.as_deref_mut()
}

/// Where the reader of a subscription stands before what a reply brings it.
pub(crate) fn before(result: &SubscribeResult) -> Option<Position> {
    let position = result.position?;
    let first = result.publications.first().map(|publication| publication.offset.saturating_sub(1));
    Some(Position { offset: first.map_or(position.offset, |offset| offset.min(position.offset)), ..position })
}
