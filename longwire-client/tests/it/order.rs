//! In which order a queue's messages may reach a consumer whose connections break.
//!
//! Numbers are sent in rising order, and the queue keeps it. A break takes the consumer away from the server, which may
//! find that out late and meanwhile give another consumer (the same, come back) what follows. What the first was given
//! then comes after that, marked as redelivered, but for the few that were never written to it; nothing else may. What must stay true: whatever is excused here is what
//! `docs/stomp.md` says of redeliveries and of messages that were sent twice, and no more (the tests below misorder runs).

use std::collections::{BTreeMap, BTreeSet};

/// What came, and what of it was out of order.
pub(crate) struct Order {
    /// The server marks what it gave out before.
    marks: bool,
    /// The highest number since the server last forgot what it had given out.
    highest: u64,
    /// How often it forgot.
    life: u32,
    /// Each number that came, and the life in which it did so first.
    seen: BTreeMap<u64, u32>,
    /// How many more may come late and unmarked before the next connection.
    unwritten: usize,
    /// Those of which a copy came marked, or one in a later life.
    returned: BTreeSet<u64>,
    /// What came unmarked, for the first time, after a higher one: that, and when.
    late: BTreeMap<u64, String>,
    /// What came again unmarked, though the server should have known: when.
    unmarked: BTreeMap<u64, String>,
}

impl Order {
    /// Begins with an empty queue, of a server that says of a message whether it gave it out before, or does not.
    pub(crate) fn new(marks: bool) -> Order {
        Order {
            marks,
            highest: 0,
            life: 0,
            seen: BTreeMap::new(),
            unwritten: 0,
            returned: BTreeSet::new(),
            late: BTreeMap::new(),
            unmarked: BTreeMap::new(),
        }
    }

    /// Notes that the server was killed: it knows what is in the queue, not what it gave out, and begins at the front.
    pub(crate) fn forget(&mut self) {
        self.highest = 0;
        self.life += 1;
    }

    /// Notes that the consumer is back. Where the server knows the one before for another that is still there (`lingers`),
    /// it may give that one as many as are sent at a time, find it gone before they are written, and pass them on as what
    /// they are: given to nobody.
    pub(crate) fn begin(&mut self, lingers: bool, at_a_time: usize) {
        self.unwritten = if lingers && self.marks { at_a_time } else { 0 };
    }

    /// Notes a message; `when` is what is being done. Says whether it is the first of its number.
    pub(crate) fn take(&mut self, number: u64, is_redelivered: bool, when: &str) -> bool {
        let first = self.seen.get(&number).copied();
        let text = || format!("after {}, {when}", self.highest);
        match first {
            Some(life) if is_redelivered || life < self.life => {
                self.returned.insert(number);
            }
            Some(_) => {
                self.unmarked.entry(number).or_insert_with(text);
            }
            None => {
                if is_redelivered {
                    self.returned.insert(number);
                } else if number < self.highest {
                    if self.unwritten == 0 {
                        self.late.insert(number, text());
                    }
                    self.unwritten = self.unwritten.saturating_sub(1);
                }
                self.seen.insert(number, self.life);
            }
        }
        self.highest = self.highest.max(number);
        first.is_none()
    }

    /// What was not as it must be; `resent` are the numbers that were written more than once, each a message for the
    /// server.
    ///
    /// Such a number may come after a higher one if its other copy was in the hands of a consumer that is gone, which
    /// shows when that copy comes back; and it may come again without a mark.
    pub(crate) fn flaws(&self, resent: &BTreeSet<u64>) -> Vec<String> {
        let is_excused = |number: &u64| resent.contains(number) && self.returned.contains(number);
        let late = self.late.iter().filter(|(number, _)| !is_excused(number));
        let late = late.map(|(number, when)| format!("{number} came late, {when}"));
        let unmarked = self.unmarked.iter().filter(|(number, _)| self.marks && !resent.contains(number));
        late.chain(unmarked.map(|(number, when)| format!("{number} came again without a mark, {when}")))
            .collect()
    }
}

mod tests {
    use super::*;

    /// What is wrong with a run: numbers, with whether they are marked.
    fn flaws(marks: bool, run: &[(u64, bool)], resent: &[u64]) -> Vec<String> {
        let mut order = Order::new(marks);
        for (number, is_redelivered) in run {
            order.take(*number, *is_redelivered, "in a test");
        }
        order.flaws(&resent.iter().copied().collect())
    }

    #[test]
    fn numbers_that_rise_are_in_order() {
        assert_eq!(flaws(true, &[(1, false), (2, false), (5, false)], &[]), Vec::<String>::new());
    }

    #[test]
    fn two_that_change_places_are_found() {
        for marks in [false, true] {
            let found = flaws(marks, &[(1, false), (3, false), (2, false), (4, false)], &[]);
            assert_eq!(found, ["2 came late, after 3, in a test"]);
        }
    }

    #[test]
    fn what_was_given_to_the_dead_comes_late_with_a_mark_alone() {
        assert!(flaws(true, &[(1, false), (4, false), (2, true), (3, true)], &[]).is_empty());
        assert_eq!(flaws(true, &[(1, false), (4, false), (2, true), (3, false)], &[]).len(), 1);
    }

    #[test]
    fn what_comes_again_has_a_mark_or_was_sent_again() {
        let run = [(1, false), (2, false), (1, false)];
        assert_eq!(flaws(true, &run, &[]), ["1 came again without a mark, after 2, in a test"]);
        assert!(flaws(true, &run, &[1]).is_empty());
        assert!(flaws(false, &run, &[]).is_empty(), "a server that does not mark");
        assert!(flaws(true, &[(1, false), (2, false), (1, true)], &[]).is_empty());
    }

    #[test]
    fn to_be_sent_again_is_no_excuse_unless_the_other_copy_was_given_to_the_dead() {
        let run = [(1, false), (3, false), (2, false)];
        assert_eq!(flaws(true, &run, &[2]).len(), 1, "where was the other copy?");
        assert!(flaws(true, &[&run[..], &[(2, true)]].concat(), &[2]).is_empty());
        assert_eq!(flaws(true, &[&run[..], &[(2, true)]].concat(), &[]).len(), 1);
    }

    #[test]
    fn what_was_never_written_to_the_dead_comes_late_within_its_bound() {
        for (lingers, marks, flaws) in [(true, true, 1), (false, true, 3), (true, false, 3)] {
            let mut order = Order::new(marks);
            order.begin(lingers, 2);
            for number in [1, 3, 5, 7, 2, 4, 6] {
                order.take(number, false, "in a test");
            }
            assert_eq!(order.flaws(&BTreeSet::new()).len(), flaws, "{lingers} {marks}");
            order.begin(false, 2);
            order.take(9, false, "in a test");
            order.take(8, false, "in a test");
            assert_eq!(order.flaws(&BTreeSet::new()).len(), flaws + 1, "{lingers} {marks}");
        }
    }

    #[test]
    fn a_killed_server_begins_at_the_front_and_keeps_the_order_from_there() {
        let mut order = Order::new(true);
        let take = |order: &mut Order, numbers: &[u64]| {
            numbers.iter().for_each(|number| {
                order.take(*number, false, "in a test");
            });
        };
        take(&mut order, &[1, 5]);
        order.forget();
        take(&mut order, &[2, 3, 5, 6]);
        assert!(order.flaws(&BTreeSet::new()).is_empty());
        take(&mut order, &[4]);
        assert_eq!(order.flaws(&BTreeSet::new()), ["4 came late, after 6, in a test"]);
        take(&mut order, &[6]);
        assert_eq!(order.flaws(&BTreeSet::new()).len(), 2);
    }
}
