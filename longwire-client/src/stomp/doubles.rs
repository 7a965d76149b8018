//! Messages that a subscription was given before, known by an id that its sender gave them.
//!
//! Whoever sends again because a receipt was lost gives the broker the same message twice; whoever processed a message and lost the
//! connection with the acknowledgement is given it again. What must stay true: an id counts as done only when its
//! message was acknowledged, so that a message which nobody finished is never dropped; the memory has a bound.

use std::collections::{BTreeSet, VecDeque};

/// The ids that one subscription knows.
#[derive(Debug)]
pub(super) struct Doubles {
    memory: usize,
    done: BTreeSet<Box<str>>,
    /// The same in the order in which they were done, the oldest first.
    order: VecDeque<Box<str>>,
    /// Delivered on this connection, and nothing was said about them.
    in_hand: BTreeSet<Box<str>>,
}

impl Doubles {
    /// Knows the last so many ids that were done.
    pub(super) fn new(memory: usize) -> Doubles {
        Doubles { memory, done: BTreeSet::new(), order: VecDeque::new(), in_hand: BTreeSet::new() }
    }

    /// Notes a message; whether it is a double, which can be acknowledged as it is: the other one is done, or decides.
    pub(super) fn note(&mut self, id: &str) -> bool {
        self.done.contains(id) || !self.in_hand.insert(id.into())
    }

    /// Notes what was said about a message.
    pub(super) fn settle(&mut self, id: &str, is_done: bool) {
        self.in_hand.remove(id);
        if is_done && self.done.insert(id.into()) {
            self.order.push_back(id.into());
            if self.order.len() > self.memory
                && let Some(oldest) = self.order.pop_front()
            {
                self.done.remove(&oldest);
            }
        }
    }

    /// The connection broke: what is not done comes again.
    pub(super) fn disconnected(&mut self) {
        self.in_hand.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_double_is_one_of_what_is_done_or_in_hand() {
        let mut doubles = Doubles::new(10);
        assert!(!doubles.note("a"));
        assert!(doubles.note("a"), "the first is in hand");
        doubles.settle("a", true);
        assert!(doubles.note("a"));
        doubles.disconnected();
        assert!(doubles.note("a"), "done is done");
    }

    #[test]
    fn what_nobody_finished_comes_again() {
        let mut doubles = Doubles::new(10);
        doubles.note("a");
        doubles.settle("a", false);
        assert!(!doubles.note("a"), "it was given back");
        doubles.disconnected();
        assert!(!doubles.note("a"), "it was lost with the connection");
    }

    #[test]
    fn the_memory_has_a_bound_and_the_oldest_goes_first() {
        let mut doubles = Doubles::new(2);
        for id in ["a", "b", "b", "c"] {
            doubles.settle(id, true);
        }
        assert_eq!([doubles.note("b"), doubles.note("c"), doubles.note("a")], [true, true, false]);
        assert_eq!((doubles.done.len(), doubles.order.len()), (2, 2));
    }
}
