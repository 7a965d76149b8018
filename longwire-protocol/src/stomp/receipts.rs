//! Receipts: one for each frame that wants it, in the order of the frames.
//!
//! A frame becomes no command, one, or several; each is answered by its number, in whatever order. A frame whose
//! commands are all answered is done, and what it is answered goes out when all frames before it are done, because a
//! receipt says of those, too, that they were received. What must stay true: what comes for a subscription goes out
//! behind the receipt of its SUBSCRIBE; the numbers of commands ascend, from 1 again
//! when there is none left, and 0 is none.

use crate::close::CloseReason;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// A frame that is not done, or waits for those before it.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The number of its first command, or of the first after it.
    first: u32,
    /// How many commands it became.
    commands: u32,
    /// How many of them are not answered.
    unanswered: u32,
    /// The frame's command.
    pub(crate) command: &'static str,
    /// The frame's destination, if it has one.
    pub(crate) about: Option<Arc<str>>,
    /// What its `receipt` header says.
    pub(crate) receipt: Option<Box<str>>,
    /// What few frames have.
    pub(crate) more: Option<Box<More>>,
}

/// What few frames have.
#[derive(Debug, Default)]
pub(crate) struct More {
    /// Lines that the receipt has besides.
    pub(crate) lines: Vec<u8>,
    /// What goes out behind it.
    pub(crate) held: Vec<Bytes>,
    /// The subscription that it begins.
    pub(crate) subscription: Option<u32>,
    /// The connection ends with it.
    pub(crate) is_last: bool,
    /// Why, unless the client wants it so.
    pub(crate) words: Option<Box<LastWords>>,
}

/// What is wrong with a frame, and ends the connection.
#[derive(Debug)]
pub(crate) struct LastWords {
    /// For what the connection is closed.
    pub(crate) reason: CloseReason,
    /// For the log.
    pub(crate) detail: String,
    /// For the client.
    pub(crate) message: String,
    /// What the frame's `receipt` header says.
    pub(crate) receipt: Option<Box<str>>,
    /// The head of the frame, or as much of it as is known.
    pub(crate) head: String,
}

/// The frames that are not done, and those behind them.
#[derive(Debug)]
pub(crate) struct Receipts {
    slots: VecDeque<Slot>,
    next: u32,
    bytes: usize,
}

/// So many frames wait at most before nothing more should be read, and so many bytes behind them.
const ENOUGH_SLOTS: usize = 4096;
const ENOUGH_BYTES: usize = 1 << 20;

/// So much more than enough breaks the connection: whoever reads looks at [`Receipts::is_behind`] after each piece.
const FAR_TOO_MUCH: usize = 16;

impl Receipts {
    pub(crate) fn new() -> Receipts {
        Receipts { slots: VecDeque::new(), next: 1, bytes: 0 }
    }

    /// Adds a frame that became so many commands; the number of the first.
    pub(crate) fn add(
        &mut self,
        command: &'static str,
        about: Option<Arc<str>>,
        receipt: Option<Box<str>>,
        commands: u32,
    ) -> u32 {
        if u32::MAX - self.next < commands {
            // 0 is no command's number.
            self.next = 1;
        }
        let first = self.next;
        // No two commands that wait have one number: a connection is overfull long before.
        self.next += commands;
        self.bytes += receipt.as_ref().map_or(0, |receipt| receipt.len());
        let slot = Slot { first, commands, unanswered: commands, command, about, receipt, more: None };
        self.slots.push_back(slot);
        first
    }

    /// The frame that was added last.
    pub(crate) fn last(&mut self) -> Option<&mut Slot> {
        self.slots.back_mut()
    }

    /// The frame that became the command `id`, unless it is done and everything before it.
    pub(crate) fn slot(&mut self, id: u32) -> Option<&mut Slot> {
        let front = self.slots.front()?.first;
        let distance = id.wrapping_sub(front);
        // Behind the last of those that begin at or before it; those without commands begin where the next one does.
        let after = self.slots.partition_point(|slot| slot.first.wrapping_sub(front) <= distance);
        let slot = self.slots.get_mut(after.checked_sub(1)?)?;
        (id.wrapping_sub(slot.first) < slot.commands).then_some(slot)
    }

    /// Notes that a command is answered.
    pub(crate) fn answered(&mut self, id: u32) {
        if let Some(slot) = self.slot(id) {
            slot.unanswered = slot.unanswered.saturating_sub(1);
        }
    }

    /// The SUBSCRIBE of a subscription that wants a receipt and did not get it yet.
    pub(crate) fn slot_of_subscription(&mut self, number: u32) -> Option<&mut Slot> {
        let is_meant = |slot: &&mut Slot| {
            slot.receipt.is_some() && slot.more.as_ref().is_some_and(|more| more.subscription == Some(number))
        };
        self.slots.iter_mut().find(is_meant)
    }

    /// Keeps something for behind a frame's receipt.
    pub(crate) fn hold(&mut self, number: u32, bytes: Bytes) {
        let len = bytes.len();
        if let Some(slot) = self.slot_of_subscription(number) {
            slot.more.get_or_insert_default().held.push(bytes);
            self.bytes += len;
        }
    }

    /// Whether no frame waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Adds a frame that is wrong: the connection ends when all before it is done.
    pub(crate) fn add_wrong(&mut self, words: Box<LastWords>) {
        self.add("", None, None, 0);
        if let Some(slot) = self.slots.back_mut() {
            slot.more = Some(Box::new(More { is_last: true, words: Some(words), ..More::default() }));
        }
    }

    /// Notes that the frame that became the command `id` is wrong, which it is told in place of a receipt.
    pub(crate) fn fail(&mut self, id: u32, words: Box<LastWords>) {
        let Some(slot) = self.slot(id) else { return };
        slot.unanswered = 0;
        let more = slot.more.get_or_insert_default();
        (more.is_last, more.words) = (true, Some(words));
        let receipt = slot.receipt.take();
        self.bytes -= receipt.map_or(0, |receipt| receipt.len());
    }

    /// The next frame that is done, with all before it.
    pub(crate) fn pop(&mut self) -> Option<Slot> {
        if self.slots.front()?.unanswered != 0 {
            return None;
        }
        let slot = self.slots.pop_front()?;
        let held: usize = slot.more.iter().flat_map(|more| &more.held).map(Bytes::len).sum();
        self.bytes -= slot.receipt.as_ref().map_or(0, |receipt| receipt.len()) + held;
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
        Some(slot)
    }

    /// Whether so much waits that nothing more should be read.
    pub(crate) fn is_behind(&self) -> bool {
        self.slots.len() >= ENOUGH_SLOTS || self.bytes >= ENOUGH_BYTES
    }

    /// Whether so much waits that the connection must end.
    pub(crate) fn is_overfull(&self) -> bool {
        self.slots.len() >= FAR_TOO_MUCH * ENOUGH_SLOTS || self.bytes >= FAR_TOO_MUCH * ENOUGH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn popped(receipts: &mut Receipts) -> Vec<String> {
        std::iter::from_fn(|| receipts.pop()).filter_map(|slot| slot.receipt).map(String::from).collect()
    }

    #[test]
    fn a_frame_that_is_done_early_waits_for_those_before_it() {
        let mut receipts = Receipts::new();
        let first = receipts.add("SEND", None, Some("a".into()), 1);
        let second = receipts.add("COMMIT", None, Some("b".into()), 2);
        receipts.add("BEGIN", None, Some("c".into()), 0);
        assert_eq!((first, second), (1, 2));
        receipts.answered(3);
        assert_eq!(popped(&mut receipts), [] as [&str; 0]);
        receipts.answered(1);
        assert_eq!(popped(&mut receipts), ["a"]);
        receipts.answered(2);
        assert_eq!(popped(&mut receipts), ["b", "c"]);
        assert!(receipts.slot(2).is_none() && receipts.bytes == 0);
    }

    #[test]
    fn what_is_for_a_subscription_is_kept_for_behind_its_receipt() {
        let mut receipts = Receipts::new();
        receipts.add("SEND", None, None, 1);
        receipts.add("SUBSCRIBE", None, Some("s".into()), 1);
        receipts.last().expect("added").more.get_or_insert_default().subscription = Some(7);
        receipts.answered(2);
        assert!(receipts.slot_of_subscription(7).is_some() && receipts.slot_of_subscription(8).is_none());
        receipts.hold(7, Bytes::from_static(b"message"));
        assert_eq!(receipts.bytes, 8);
        receipts.answered(1);
        assert!(receipts.pop().is_some_and(|slot| slot.command == "SEND"));
        let slot = receipts.pop().expect("done");
        assert_eq!((slot.more.expect("held").held, receipts.bytes), (vec!["message".into()], 0));
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_in_bytes() {
        let mut receipts = Receipts::new();
        receipts.add("SEND", None, None, 1);
        for _ in 1..ENOUGH_SLOTS {
            assert!(!receipts.is_behind());
            receipts.add("BEGIN", None, None, 0);
        }
        assert!(receipts.is_behind() && !receipts.is_overfull());
        let mut receipts = Receipts::new();
        receipts.add("SEND", None, Some("x".repeat(ENOUGH_BYTES).into()), 1);
        assert!(receipts.is_behind() && !receipts.is_overfull());
        receipts.add("SEND", None, Some("x".repeat(15 * ENOUGH_BYTES).into()), 1);
        assert!(receipts.is_overfull());
    }

    proptest! {
        #[test]
        fn receipts_come_in_the_order_of_the_frames_whatever_the_order_of_the_answers(
            commands in prop::collection::vec(0u32..4, 1..40), start in prop_oneof![any::<u32>(), u32::MAX - 60..], seed in any::<u64>(),
        ) {
            let mut receipts = Receipts::new();
            // Near the last number, as well as anywhere.
            receipts.next = start.max(1);
            let mut ids: Vec<u32> = Vec::new();
            for (i, count) in commands.iter().enumerate() {
                let first = receipts.add("SEND", None, Some(i.to_string().into()), *count);
                prop_assert!(first != 0 && first.checked_add(*count).is_some());
                ids.extend((0..*count).map(|n| first.wrapping_add(n)));
            }
            let mut seen = popped(&mut receipts);
            let mut state = seed;
            while !ids.is_empty() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let id = ids.swap_remove((state >> 33) as usize % ids.len());
                receipts.answered(id);
                seen.extend(popped(&mut receipts));
            }
            let expected: Vec<String> = (0..commands.len()).map(|i| i.to_string()).collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(receipts.bytes, 0);
        }
    }
}
