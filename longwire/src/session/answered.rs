//! What the answers to long-polls carried, until their client proves that it has it.
//!
//! Whether an answer arrived only its client knows, and history brings again only what has a position. The rest (direct
//! messages, publications of channels without history, who came and went) is kept here, within the bound of what is
//! kept for a client that is away. What must stay true: of one answer at a time it is not known whether it arrived; a
//! client that says that it has an earlier one is given again what was in the later one; one that proves nothing is told
//! that it may have lost something, if there was something to lose.

use super::Session;
use super::away::{has_come_to, named_in, named_of};
use super::recovery;
use super::subscription::{Doubt, wire_bytes};
use crate::config::Config;
use crate::delivery::{Delivery, What};
use bytes::Bytes;
use longwire_protocol::command::Connect;
use longwire_protocol::message::Push;
use longwire_protocol::{Epoch, Position, Since};
use std::sync::Arc;

/// What of one answer has no position.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    /// The number of the answer.
    number: u64,
    messages: Vec<Push>,
    /// Each with the serial number of its subscription.
    deliveries: Vec<(u32, Arc<Delivery>)>,
    bytes: usize,
    /// There was no room for all of it, so nothing is kept.
    is_lossy: bool,
}

/// Whether a client that returns got the answer to its last poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receipt {
    Got,
    Missed,
    Unknown,
}

impl Unproven {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps nothing of it; returns about how many bytes that were.
    pub(super) fn lose(&mut self) -> usize {
        self.is_lossy = true;
        self.messages = Vec::new();
        self.deliveries = Vec::new();
        std::mem::take(&mut self.bytes)
    }

    /// Makes room for something, if there is.
    fn takes(&mut self, bytes: usize, config: &Config) -> bool {
        if !self.is_lossy && self.bytes + bytes > config.plain.max_away_bytes {
            self.lose();
        }
        if !self.is_lossy {
            self.bytes += bytes;
        }
        !self.is_lossy
    }
}

impl Session {
    /// The number of the last answer to a poll, with the mark of this session; `None` if there was none.
    pub fn last_answer(&self) -> Option<Position> {
        let offset = named_of(&self.credentials)?.answers;
        (offset > 0).then(|| Position { offset, epoch: self.mark() })
    }

    /// Counts an answer whose client may return.
    pub(super) fn count_answer(&mut self) -> Option<Position> {
        named_in(&mut self.credentials)?.answers += 1;
        self.last_answer()
    }

    /// Notes that a client that polls is told that it lost something; true if it was told before and has proved nothing
    /// since.
    pub(super) fn has_told_loss(&mut self) -> bool {
        let named = named_in(&mut self.credentials);
        named.is_some_and(|named| std::mem::replace(&mut named.has_told_loss, true))
    }

    /// Notes that a direct message goes into the answer to a poll.
    pub(super) fn note_message_in_answer(&mut self, data: &Bytes, is_json: bool, config: &Config) {
        if let Some(unproven) = self.next_answer()
            && unproven.takes(recovery::ENVELOPE_BYTES + data.len(), config)
        {
            // A slice would keep the whole body that it came in.
            unproven.messages.push(Push::Message { data: Bytes::copy_from_slice(data), is_json });
        }
    }

    /// Notes that a delivery to the subscription at `index` goes into the answer to a poll.
    pub(super) fn note_delivery_in_answer(
        &mut self,
        index: usize,
        delivery: &Arc<Delivery>,
        config: &Config,
    ) {
        let subscription = &self.subscriptions[index];
        if subscription.traits.is_positioned && matches!(delivery.what, What::Publication(_)) {
            return;
        }
        let serial = subscription.serial;
        if let Some(unproven) = self.next_answer()
            && unproven.takes(wire_bytes(delivery), config)
        {
            unproven.deliveries.push((serial, delivery.clone()));
        }
    }

    /// Decides, when a client returns whose link before was a poll, what becomes of the answer to that. `named` gives
    /// where it says that it stands in a channel.
    pub(super) fn judge_answer(&mut self, connect: &Connect, named: impl Fn(&str) -> Option<Since>) {
        let receipt = self.receipt(connect, named);
        let Some(named) = named_in(&mut self.credentials) else { return };
        let unproven = named.unproven.take().unwrap_or_default();
        if let Some(returned) = &mut named.returned {
            returned.free(unproven.bytes);
        }
        // To whom nothing was proved it was said, and is not said in haste again.
        named.has_told_loss &= receipt == Receipt::Unknown;
        match receipt {
            Receipt::Got => self.trust(),
            Receipt::Missed if !unproven.is_lossy => self.give_again(*unproven),
            Receipt::Missed | Receipt::Unknown => {}
        }
    }

    fn receipt(&self, connect: &Connect, named: impl Fn(&str) -> Option<Since>) -> Receipt {
        let Some(mine) = named_of(&self.credentials) else { return Receipt::Unknown };
        let number = mine.unproven.as_ref().map_or(mine.answers, |unproven| unproven.number);
        if number > mine.answers {
            // The link broke before it was given.
            return Receipt::Missed;
        }
        let is_got = |answer: Position| answer.epoch == self.mark() && answer.offset >= number;
        if let Some(answer) = connect.answer {
            // One of another session it got before all of this one.
            return if is_got(answer) { Receipt::Got } else { Receipt::Missed };
        }
        // An answer comes as a whole: who has come to a position in it has all of it.
        let doubtful = self.subscriptions.iter().filter(|subscription| subscription.doubt != Doubt::None);
        let come = doubtful.filter_map(|subscription| {
            let has_come = has_come_to(subscription, named(&subscription.channel))?;
            // One that was told of a loss alone may have been there before.
            (!has_come || subscription.recovered != Some(false)).then_some(has_come)
        });
        let come: Vec<bool> = come.collect();
        if come.contains(&false) {
            Receipt::Missed
        } else if come.contains(&true) || connect.carried.is_some_and(is_got) {
            Receipt::Got
        } else {
            Receipt::Unknown
        }
    }

    /// Lets a client have again what it was not given.
    fn give_again(&mut self, unproven: Unproven) {
        let Unproven { messages, deliveries, bytes, .. } = unproven;
        for subscription in &mut self.subscriptions {
            // What it was told that it lost it was not told, either.
            if !subscription.traits.is_positioned && subscription.recovered != Some(false) {
                subscription.doubt = Doubt::None;
            }
            let of_it = deliveries.iter().filter(|(serial, _)| *serial == subscription.serial);
            subscription.put_back(of_it.map(|(_, delivery)| delivery.clone()).collect());
        }
        let Some(named) = named_in(&mut self.credentials) else { return };
        if !named.has_said_lost {
            named.doubt = Doubt::None;
        }
        if let Some(returned) = &mut named.returned {
            returned.put_back(messages, bytes);
        }
    }

    /// What is noted of the answer that a poll is about to be given; `None` if there is no poll, or no way to return.
    fn next_answer(&mut self) -> Option<&mut Unproven> {
        self.connection.poll_wait()?;
        let named = named_in(&mut self.credentials)?;
        let number = named.answers + 1;
        Some(named.unproven.get_or_insert_with(|| Box::new(Unproven { number, ..Unproven::default() })))
    }

    /// What tells the numbers of this session's answers from those of another.
    fn mark(&self) -> Epoch {
        Epoch::from_random(self.identity.client.0 as u64)
    }
}
