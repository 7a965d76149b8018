//! What a shard asks of the broker for one channel: to be handed it, to stop, to announce who comes and goes.
//!
//! A broker may take its time, and two calls that concern each other must not overtake: an interest that ends
//! would undo the one that begins, a leave would come before its join. So the calls about a channel's interest
//! wait in a line, and those that announce one client in one channel in another, first come first served. What
//! must stay true: once [`Shard::want`] has returned, whatever is published in the channel is handed to this
//! shard; and a channel without subscribers is given up in the end, however often the broker failed.

use super::hub::Interest;
use super::{BATCH, Key, Shard};
use crate::broker::Movement;
use crate::history::Part;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::ClientId;
use longwire_protocol::{ErrorCode, Position};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a shard rests between two looks at all its channels, where the broker may lose what it hands on.
///
/// A publication that was lost is noticed at the next one of its channel, or at the second look after it.
const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// The lines in which a call is under way, and who waits for it.
pub(super) type Lines = HashMap<Line, VecDeque<oneshot::Sender<Place>>, RandomState>;

/// What calls are about that must not overtake each other.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Line {
    /// Whether a channel is handed to this shard.
    Interest(Arc<str>),
    /// A client's coming and going in a channel.
    Movements(Arc<str>, ClientId),
}

/// The first place in a line; given on when it is dropped.
pub(super) struct Place {
    shard: Rc<Shard>,
    line: Line,
}

impl Drop for Place {
    fn drop(&mut self) {
        loop {
            let next = {
                let mut lines = self.shard.lines.borrow_mut();
                let Some(waiting) = lines.get_mut(&self.line) else { return };
                let Some(next) = waiting.pop_front() else {
                    lines.remove(&self.line);
                    return;
                };
                next
            };
            // Who does not wait any more is passed over. Who is dropped with the place in hand gives it on.
            if !next.is_closed() {
                let place = Place { shard: self.shard.clone(), line: self.line.clone() };
                let _ = next.send(place);
                return;
            }
        }
    }
}

impl Shard {
    /// Waits for the first place in a line.
    async fn first_in(self: &Rc<Shard>, line: Line) -> Place {
        let waiting = {
            let mut lines = self.lines.borrow_mut();
            match lines.get_mut(&line) {
                Some(waiting) => {
                    let (place, given) = oneshot::channel();
                    waiting.push_back(place);
                    Some(given)
                }
                None => {
                    lines.insert(line.clone(), VecDeque::new());
                    None
                }
            }
        };
        if let Some(given) = waiting
            && let Ok(place) = given.await
        {
            return place;
        }
        Place { shard: self.clone(), line }
    }

    /// Sees that the broker hands a channel to this shard.
    ///
    /// # Errors
    /// `Internal` if the broker cannot be reached.
    pub(super) async fn want(self: &Rc<Shard>, channel: &Arc<str>) -> Result<(), ErrorCode> {
        if let Some((Interest::On, _)) = self.interest(channel) {
            return Ok(());
        }
        let line = Line::Interest(channel.clone());
        if flaw::is_on(Flaw::InterestNotAwaited) && self.lines.borrow().contains_key(&line) {
            return Ok(());
        }
        let _first = self.first_in(line).await;
        // Who was before may have done it, or whoever wanted it has left.
        let Some((Interest::Off | Interest::Unsure, true)) = self.interest(channel) else { return Ok(()) };
        self.note_interest(channel, Interest::Unsure);
        self.node.set_interest(channel, self.index, true).await?;
        self.note_interest(channel, Interest::On);
        Ok(())
    }

    /// Gives a channel up if nobody is subscribed to it.
    pub(super) async fn give_up(self: &Rc<Shard>, channel: &Arc<str>) {
        if !self.is_handed_in_vain(channel) {
            return;
        }
        let _first = self.first_in(Line::Interest(channel.clone())).await;
        if !self.is_handed_in_vain(channel) {
            return;
        }
        self.note_interest(channel, Interest::Unsure);
        match self.node.set_interest(channel, self.index, false).await {
            Ok(()) => self.note_interest(channel, Interest::Off),
            Err(error) => {
                tracing::warn!(%channel, %error, "the broker goes on sending a channel that nobody reads; asked again later");
            }
        }
    }

    /// Announces who came or went, after what was announced of the same client before.
    pub(super) async fn announce(self: &Rc<Shard>, channel: &Arc<str>, movement: Movement) {
        let (Movement::Join(info) | Movement::Leave(info)) = &movement;
        let _first = match flaw::is_on(Flaw::MovementsOvertake) {
            false => Some(self.first_in(Line::Movements(channel.clone(), info.client)).await),
            true => None,
        };
        self.node.announce(channel, movement).await;
    }

    fn interest(&self, channel: &str) -> Option<(Interest, bool)> {
        self.state.borrow().hub.interest(channel)
    }

    /// Whether the broker hands on, or may hand on, a channel that has no subscribers.
    fn is_handed_in_vain(&self, channel: &str) -> bool {
        matches!(self.interest(channel), Some((Interest::On | Interest::Unsure, false)))
    }

    fn note_interest(&self, channel: &str, interest: Interest) {
        self.state.borrow_mut().hub.set_interest(channel, interest);
    }

    /// Looks, for ever, whether subscribers miss something that the broker lost on the way, and gives up what
    /// could not be given up before.
    pub(super) async fn look_after_channels(self: Rc<Shard>) {
        loop {
            self.node.env.clock.sleep(CHECK_INTERVAL).await;
            let names = self.state.borrow().hub.names();
            for channel in names {
                self.give_up(&channel).await;
                let has_subscribers = matches!(self.interest(&channel), Some((_, true)));
                if has_subscribers
                    && self.node.has_history(&channel)
                    && !flaw::is_on(Flaw::PositionsUnchecked)
                {
                    self.check_positions(&channel).await;
                }
            }
        }
    }

    /// Compares where subscribers stand with where the channel stood at the look before: what was published
    /// before that has arrived or is lost.
    async fn check_positions(self: &Rc<Shard>, channel: &Arc<str>) {
        let top = match self.node.catch_up(channel, Part { since: None, limit: 0, reverse: false }).await {
            Ok(page) => page.top,
            Err(error) => return tracing::warn!(%channel, %error, "the position of a channel is not known"),
        };
        let (expected, members) = {
            let hub = &mut self.state.borrow_mut().hub;
            let Some(hub_id) = hub.find(channel) else { return };
            (hub.expect(hub_id, top), hub.members(hub_id).to_vec())
        };
        let Some(expected) = expected.filter(|before| before.epoch == top.epoch) else { return };
        let mut lost = 0;
        for some in members.chunks(BATCH) {
            for key in self.who_is_behind(channel, some, &expected) {
                lost += 1;
                self.touch(key, |entry| entry.session.handle_loss(channel, &self.node.config));
            }
            tokio::task::yield_now().await;
        }
        if lost > 0 {
            tracing::warn!(%channel, sessions = lost, "publications were lost on the way from the broker");
        }
    }

    /// Which of these sessions have not come to a position of the channel.
    fn who_is_behind(&self, channel: &str, indices: &[u32], position: &Position) -> Vec<Key> {
        let state = self.state.borrow();
        let Some(hub_id) = state.hub.find(channel) else { return Vec::new() };
        let sessions = indices.iter().filter_map(|&index| Some((index, state.sessions.get(index as usize)?)));
        let behind = sessions.filter(|(_, entry)| entry.session.is_behind(hub_id, position));
        behind.map(|(index, entry)| Key { index, generation: entry.generation }).collect()
    }
}

#[cfg(test)]
mod tests;
