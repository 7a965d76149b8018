//! What a connection is subscribed to, by the ids that it chose.
//!
//! Several subscriptions of one channel are one to the server, and each gets its own MESSAGE. Each has a number that is
//! never given twice on a connection, by which queues know their consumers. What must stay true: an id, or without one a
//! destination, names one subscription at most.

use super::Version;
use super::encode::{write_escaped, write_header};
use crate::queue::AckMode;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Its number on the connection.
    pub(crate) number: u32,
    /// By what the client names it: `i` and its id, or `d` and its destination if it has none.
    key: Box<str>,
    pub(crate) source: Source,
    pub(crate) ack: AckMode,
    /// What a MESSAGE begins with.
    pub(crate) head: Bytes,
    /// A line that only the first MESSAGE has.
    pub(crate) note: Option<&'static str>,
    /// Its SUBSCRIBE wants a receipt, which is not known to be written.
    pub(crate) awaits_receipt: bool,
}

/// Where its messages come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// A channel.
    Channel(Box<str>),
    /// A queue.
    Queue {
        /// The queue's whole name.
        name: Arc<str>,
    },
}

/// All subscriptions of a connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_number: BTreeMap<u32, Subscription>,
    by_key: BTreeMap<Box<str>, u32>,
    by_channel: BTreeMap<Box<str>, Vec<u32>>,
    last_number: u32,
    /// A queue was consumed whose deliveries the client acknowledges.
    pub(crate) has_acks: bool,
    /// A queue was consumed of whose deliveries nobody awaits that.
    pub(crate) has_automatic: bool,
}

/// What names a subscription, as a key.
pub(crate) fn key(id: Option<&str>, destination: &str) -> Box<str> {
    match id {
        Some(id) => format!("i{id}").into(),
        None => format!("d{destination}").into(),
    }
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn named(&self, key: &str) -> Option<&Subscription> {
        self.by_number.get(self.by_key.get(key)?)
    }

    pub(crate) fn numbered(&mut self, number: u32) -> Option<&mut Subscription> {
        self.by_number.get_mut(&number)
    }

    /// The numbers of the subscriptions of a channel.
    pub(crate) fn of_channel(&self, channel: &str) -> &[u32] {
        self.by_channel.get(channel).map_or(&[], Vec::as_slice)
    }

    /// Whether one of them is of this queue.
    pub(crate) fn has_queue(&self, queue: &str) -> bool {
        self.by_number.values().any(|it| matches!(&it.source, Source::Queue { name } if **name == *queue))
    }

    /// A number that no subscription had or has.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.last_number = self.last_number.wrapping_add(1);
        self.last_number
    }

    /// Adds one whose key names none yet; its number.
    pub(crate) fn add(
        &mut self,
        version: Version,
        id: Option<&str>,
        destination: &str,
        source: Source,
        ack: AckMode,
    ) -> u32 {
        let number = self.next_number();
        if let Source::Channel(channel) = &source {
            match self.by_channel.get_mut(channel) {
                Some(numbers) => numbers.push(number),
                None => {
                    self.by_channel.insert(channel.clone(), vec![number]);
                }
            }
        } else {
            self.has_acks |= ack != AckMode::Auto;
            self.has_automatic |= ack == AckMode::Auto;
        }
        let key = key(id, destination);
        self.by_key.insert(key.clone(), number);
        let head = message_head(version, id, destination);
        let subscription = Subscription { number, key, source, ack, head, note: None, awaits_receipt: false };
        self.by_number.insert(number, subscription);
        number
    }

    /// Takes one out, and says whether it was the last of its channel.
    pub(crate) fn remove(&mut self, number: u32) -> Option<(Subscription, bool)> {
        let subscription = self.by_number.remove(&number)?;
        self.by_key.remove(&subscription.key);
        let mut was_last = false;
        if let Source::Channel(channel) = &subscription.source
            && let Some(numbers) = self.by_channel.get_mut(channel)
        {
            numbers.retain(|known| *known != number);
            was_last = numbers.is_empty();
            if was_last {
                self.by_channel.remove(channel);
            }
        }
        Some((subscription, was_last))
    }
}

/// Writes what a MESSAGE for a subscription begins with.
pub(crate) fn message_head(version: Version, id: Option<&str>, destination: &str) -> Bytes {
    let mut head = Vec::with_capacity(destination.len() + 48);
    head.extend_from_slice(b"MESSAGE\n");
    if let Some(id) = id {
        write_header(version, "subscription", id, &mut head);
    }
    head.extend_from_slice(b"destination:");
    write_escaped(version, destination, &mut head);
    head.push(b'\n');
    head.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_destinations_name_subscriptions_apart() {
        let mut all = Subscriptions::default();
        let channel = || Source::Channel("x".into());
        let by_id = all.add(Version::V12, Some("/topic/x"), "/topic/x", channel(), AckMode::Auto);
        let without = all.add(Version::V12, None, "/topic/x", channel(), AckMode::Cumulative);
        assert_eq!(all.named(&key(Some("/topic/x"), "")).map(|it| it.number), Some(by_id));
        assert_eq!(all.named(&key(None, "/topic/x")).map(|it| it.number), Some(without));
        assert_eq!(all.of_channel("x"), [by_id, without]);
        assert!(!all.has_acks, "of a channel nothing is acknowledged");
        assert!(matches!(all.remove(by_id), Some((_, false))));
        assert!(matches!(all.remove(without), Some((_, true))));
        assert!(all.remove(without).is_none() && all.of_channel("x").is_empty() && all.len() == 0);
        let again = all.add(Version::V12, None, "/topic/x", channel(), AckMode::Auto);
        assert!(again > without, "a number was given twice");
    }
}
