//! What was sent and is not confirmed, in its order, and who waits for what.
//!
//! An entry stays until its RECEIPT came; when the connection breaks, what was written goes back and is written again in
//! the same order. [`Calls`] keeps the results of everything that somebody awaits. What must stay true: an entry has one
//! end, which its caller is told; entries are written in the order in which they were taken; beyond the limits nothing is
//! taken, and who waits for room gets it in turn.

use super::frame::Outgoing;
use super::message::Settlement;
use crate::error::Error;
use crate::options::{self, WhenFull};
use longwire_protocol::flaw::{self, Flaw};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

/// How many connections may end with an ERROR that names nobody while something is next to be answered, before that is
/// taken for the culprit.
pub(super) const MAX_BLAMED: u8 = 3;

/// What came of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Confirmed {
    /// How often it was written again, because a connection broke before the receipt: the broker may have it more than
    /// once if this is not 0.
    pub resent: u32,
}

/// One thing that is written whole.
#[derive(Debug)]
pub(super) enum Load {
    Message(Outgoing),
    Transaction(Vec<Action>),
}

/// One part of a transaction.
#[derive(Debug)]
pub(super) enum Action {
    Send(Outgoing),
    Settle(Settlement),
}

impl Load {
    /// What it keeps in memory, roughly.
    pub(super) fn weight(&self) -> usize {
        match self {
            Load::Message(message) => message.weight(),
            Load::Transaction(actions) => actions.iter().map(Action::weight).sum::<usize>() + 64,
        }
    }

    /// What it says about messages, which only the connection knows on which they came.
    pub(super) fn settlements(&self) -> impl Iterator<Item = &Settlement> {
        let actions: &[Action] = match self {
            Load::Message(_) => &[],
            Load::Transaction(actions) => actions,
        };
        actions.iter().filter_map(|action| match action {
            Action::Settle(settlement) => Some(settlement),
            Action::Send(_) => None,
        })
    }

    /// The command that is unanswered if this is.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Load::Message(_) => "SEND",
            Load::Transaction(_) => "COMMIT",
        }
    }
}

impl Action {
    pub(super) fn weight(&self) -> usize {
        match self {
            Action::Send(message) => message.weight(),
            Action::Settle(settlement) => settlement.lines.len() + 64,
        }
    }
}

/// Says of a transaction, when it is dropped, that nothing came of it.
#[derive(Debug)]
pub(super) struct Undone(Option<Arc<AtomicBool>>);

impl Undone {
    /// Sets `is_undone`.
    pub(super) fn tell(is_undone: Arc<AtomicBool>) -> Undone {
        Undone(Some(is_undone))
    }

    /// Something may come of it.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        if let Some(is_undone) = &self.0 {
            is_undone.store(true, Ordering::Release);
        }
    }
}

/// Something that was sent and is not confirmed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) load: Load,
    /// Until a transaction is written: whatever ends it before has done nothing.
    pub(super) undone: Option<Undone>,
    pub(super) wants_receipt: bool,
    /// It is written again after a break.
    pub(super) is_resent: bool,
    /// How often it was written.
    pub(super) writings: u32,
    /// It is written on this connection.
    is_out: bool,
    /// How many connections ended with an ERROR that named nobody while this was next to be answered.
    blamed: u8,
    weight: usize,
}

impl Entry {
    pub(super) fn new(load: Load, wants_receipt: bool, is_resent: bool) -> Entry {
        let weight = load.weight();
        Entry { load, undone: None, wants_receipt, is_resent, writings: 0, is_out: false, blamed: 0, weight }
    }

    /// What its caller is told when it is confirmed.
    pub(super) fn confirmed(&self) -> Confirmed {
        Confirmed { resent: self.writings.saturating_sub(1) }
    }

    /// What its caller is told when there is no further attempt.
    fn error(&self, end: &Error) -> Error {
        if self.writings > 0 { Error::Unconfirmed } else { end.clone() }
    }
}

/// What is to be done with something that somebody sends.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is in the outbox; this one was given up for it.
    Yes(Vec<u64>),
    /// It has to wait for room.
    Wait(Entry),
    /// There is no room.
    Full,
}

/// All that was sent and is not confirmed.
#[derive(Debug)]
pub(super) struct Outbox {
    limits: options::Outbox,
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// No entry below this number waits to be written on this connection.
    next: u64,
    /// No entry from this number on was ever written.
    first_new: u64,
    /// Up to this number one is written only when those before it are answered: one of them is what a connection ended of.
    one_by_one: u64,
    /// How many were written on this connection and not answered.
    unanswered: usize,
    /// Who waits for room, in turn.
    waiting: BTreeMap<u64, Waker>,
    tickets: u64,
}

impl Outbox {
    pub(super) fn new(limits: options::Outbox) -> Outbox {
        Outbox {
            limits,
            entries: BTreeMap::new(),
            bytes: 0,
            next: 0,
            first_new: 0,
            one_by_one: 0,
            unanswered: 0,
            waiting: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// How many entries there are, and their bytes.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    /// How many were written on this connection and are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether everything that was taken is done.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn fits(&self, weight: usize) -> bool {
        // One that is larger than the limit goes alone.
        self.entries.is_empty()
            || (self.entries.len() < self.limits.max_sends && self.bytes + weight <= self.limits.max_bytes)
    }

    /// Takes an entry under a number that is higher than all before it. `ticket` is the place of who waited, if it did.
    pub(super) fn take(&mut self, number: u64, entry: Entry, ticket: Option<u64>) -> Taken {
        let is_next = match (self.waiting.first_key_value(), ticket) {
            (None, _) => true,
            (Some((first, _)), Some(ticket)) => *first == ticket,
            (Some(_), None) => false,
        };
        let mut dropped = Vec::new();
        match self.limits.when_full {
            WhenFull::Wait if !is_next || !self.fits(entry.weight) => return Taken::Wait(entry),
            WhenFull::Wait => {}
            WhenFull::Fail if !self.fits(entry.weight) => return Taken::Full,
            WhenFull::Fail => {}
            WhenFull::DropOldest => {
                let Some(oldest) = self.to_drop(entry.weight) else { return Taken::Full };
                for number in &oldest {
                    self.remove(*number);
                }
                dropped = oldest;
            }
        }
        if let Some(ticket) = ticket {
            self.waiting.remove(&ticket);
        }
        self.bytes += entry.weight;
        self.entries.insert(number, entry);
        Taken::Yes(dropped)
    }

    /// The oldest entries that were never written, as many as make room; `None` if all of them would not.
    fn to_drop(&self, weight: usize) -> Option<Vec<u64>> {
        let (mut sends, mut bytes, mut dropped) = (self.entries.len(), self.bytes, Vec::new());
        let mut never_written = self.entries.range(self.first_new..);
        while sends > 0 && (sends >= self.limits.max_sends || bytes + weight > self.limits.max_bytes) {
            let (number, entry) = never_written.next()?;
            dropped.push(*number);
            (sends, bytes) = (sends - 1, bytes - entry.weight);
        }
        Some(dropped)
    }

    /// Stands in line for room.
    pub(super) fn wait(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let ticket = *ticket.get_or_insert_with(|| {
            self.tickets += 1;
            self.tickets
        });
        self.waiting.insert(ticket, waker.clone());
    }

    /// Leaves the line.
    pub(super) fn leave_line(&mut self, ticket: u64) {
        self.waiting.remove(&ticket);
    }

    /// Who is next in line, if there may be room.
    pub(super) fn call_next(&self, wakes: &mut Vec<Waker>) {
        if let Some(waker) = self.waiting.values().next().filter(|_| self.fits(0)) {
            wakes.push(waker.clone());
        }
    }

    /// Everybody in line.
    pub(super) fn call_all(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(std::mem::take(&mut self.waiting).into_values());
    }

    /// The next entry to be written.
    pub(super) fn next(&self) -> Option<(u64, &Entry)> {
        let is_suspect = |(number, _): (&u64, &Entry)| *number <= self.one_by_one;
        if self.unanswered > 0 && self.entries.first_key_value().is_some_and(is_suspect) {
            return None;
        }
        self.entries.range(self.next..).next().map(|(number, entry)| (*number, entry))
    }

    /// Notes that an entry is written, which was [`next`](Self::next); what is not confirmed is done with that.
    pub(super) fn written(&mut self, number: u64) -> Option<Entry> {
        self.next = number + 1;
        self.first_new = self.first_new.max(number + 1);
        let entry = self.entries.get_mut(&number)?;
        entry.writings += 1;
        entry.is_out = true;
        if let Some(undone) = entry.undone.take() {
            undone.forget();
        }
        self.unanswered += 1;
        if entry.wants_receipt { None } else { self.remove(number) }
    }

    /// Takes an entry out that is confirmed or refused; none that was not written on this connection.
    pub(super) fn answered(&mut self, number: u64) -> Option<Entry> {
        self.entries.get(&number).filter(|entry| entry.is_out)?;
        self.remove(number)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.bytes -= entry.weight;
        self.unanswered -= usize::from(entry.is_out);
        // An empty map would keep its node.
        if self.entries.is_empty() {
            self.entries = BTreeMap::new();
        }
        Some(entry)
    }

    /// All that were written on this connection and are not answered.
    pub(super) fn all_unanswered(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().take_while(|(_, entry)| entry.is_out).map(|(number, _)| *number)
    }

    /// The one whose answer is next, by the order of the frames.
    pub(super) fn oldest_unanswered(&self) -> Option<(u64, &Entry)> {
        self.entries.iter().next().filter(|(_, entry)| entry.is_out).map(|(number, entry)| (*number, entry))
    }

    /// Notes that the connection ends with an ERROR that names nobody; the entry that is taken for its cause, because
    /// connections do not outlive it. A broker refuses at once and confirms late: who is meant shows only when one alone is
    /// unanswered, as it is on the connections that follow.
    pub(super) fn blame_oldest(&mut self) -> Option<u64> {
        if self.unanswered > 1 {
            self.one_by_one = self.next.saturating_sub(1);
        }
        let (number, entry) = self.entries.iter_mut().next().filter(|(_, entry)| entry.is_out)?;
        entry.blamed += 1;
        (entry.blamed >= MAX_BLAMED).then_some(*number)
    }

    /// Goes back after a break: what was written will be again. What is not, and what its caller is told.
    pub(super) fn rewind(&mut self) -> Vec<(u64, Result<Confirmed, Error>)> {
        self.next = 0;
        self.unanswered = 0;
        let mut ends = Vec::new();
        for (number, entry) in &mut self.entries {
            // An acknowledgement means nothing on another connection.
            let is_bound = entry.load.settlements().next().is_some();
            match (entry.is_out, entry.is_resent && !is_bound) {
                (true, false) => ends.push((*number, Err(Error::Unconfirmed))),
                (true, true) if flaw::is_on(Flaw::ReceiptAssumed) => {
                    ends.push((*number, Ok(entry.confirmed())))
                }
                (false, _) if is_bound => ends.push((*number, Err(Error::StaleMessage))),
                _ => {}
            }
            entry.is_out = false;
        }
        for (number, _) in &ends {
            self.remove(*number);
        }
        ends
    }

    /// Ends everything. Who is told what.
    pub(super) fn end(&mut self, error: &Error) -> Vec<(u64, Error)> {
        self.bytes = 0;
        self.unanswered = 0;
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries.map(|(number, entry)| (number, entry.error(error))).collect()
    }
}

/// What somebody awaits, by its number.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<u64, Call>);

#[derive(Debug, Default)]
struct Call {
    result: Option<Result<Confirmed, Error>>,
    waker: Option<Waker>,
}

impl Calls {
    /// Begins a call.
    pub(super) fn open(&mut self, number: u64) {
        self.0.insert(number, Call::default());
    }

    /// Gives a call its result, if somebody awaits it.
    pub(super) fn finish(&mut self, number: u64, result: Result<Confirmed, Error>, wakes: &mut Vec<Waker>) {
        if let Some(call) = self.0.get_mut(&number) {
            call.result = Some(result);
            wakes.extend(call.waker.take());
        }
    }

    /// The result of a call, which is told once.
    pub(super) fn poll(&mut self, number: u64, waker: &Waker) -> Poll<Result<Confirmed, Error>> {
        let Some(call) = self.0.get_mut(&number) else { return Poll::Ready(Err(Error::Closed)) };
        match call.result.take() {
            Some(result) => {
                self.forget(number);
                Poll::Ready(result)
            }
            None => {
                call.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// Nobody awaits it any more.
    pub(super) fn forget(&mut self, number: u64) {
        self.0.remove(&number);
        // An empty map would keep its node.
        if self.0.is_empty() {
            self.0 = BTreeMap::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(bytes: usize) -> Entry {
        let body = Bytes::from(vec![b'x'; bytes]);
        Entry::new(Load::Message(Outgoing::new("/queue/a", body)), true, true)
    }

    fn outbox(max_sends: usize, max_bytes: usize, when_full: WhenFull) -> Outbox {
        Outbox::new(options::Outbox { max_sends, max_bytes, when_full })
    }

    fn take(outbox: &mut Outbox, number: u64) -> bool {
        matches!(outbox.take(number, message(10), None), Taken::Yes(dropped) if dropped.is_empty())
    }

    fn write_all(outbox: &mut Outbox) -> Vec<u64> {
        let mut written = Vec::new();
        while let Some(number) = outbox.next().map(|(number, _)| number) {
            outbox.written(number);
            written.push(number);
        }
        written
    }

    #[test]
    fn what_is_not_confirmed_is_written_again_in_its_order() {
        let mut outbox = outbox(100, 1 << 20, WhenFull::Wait);
        for number in 1..=4 {
            assert!(take(&mut outbox, number));
        }
        assert_eq!(write_all(&mut outbox), [1, 2, 3, 4]);
        assert_eq!(outbox.remove(2).map(|entry| entry.confirmed()), Some(Confirmed { resent: 0 }));
        assert_eq!(outbox.unanswered(), 3);
        assert!(outbox.rewind().is_empty());
        assert!(take(&mut outbox, 5));
        assert_eq!(write_all(&mut outbox), [1, 3, 4, 5]);
        assert_eq!(outbox.remove(3).map(|entry| entry.confirmed()), Some(Confirmed { resent: 1 }));
        assert_eq!(outbox.remove(5).map(|entry| entry.confirmed()), Some(Confirmed { resent: 0 }));
        assert_eq!(outbox.remove(3).map(|entry| entry.confirmed()), None);
    }

    #[test]
    fn what_may_not_be_written_again_is_unconfirmed_after_a_break() {
        let mut outbox = outbox(100, 1 << 20, WhenFull::Wait);
        let once = || Entry { is_resent: false, ..message(1) };
        assert!(matches!(outbox.take(1, once(), None), Taken::Yes(_)));
        outbox.written(1);
        assert!(matches!(outbox.take(2, once(), None), Taken::Yes(_)));
        assert_eq!(outbox.rewind(), [(1, Err(Error::Unconfirmed))]);
        // The second was never written, so that it is for the next connection.
        assert_eq!(write_all(&mut outbox), [2]);
    }

    #[test]
    fn without_a_receipt_it_is_done_when_it_is_written() {
        let mut outbox = outbox(100, 1 << 20, WhenFull::Wait);
        let entry = Entry { wants_receipt: false, ..message(1) };
        assert!(matches!(outbox.take(1, entry, None), Taken::Yes(_)));
        assert!(outbox.written(1).is_some());
        assert_eq!((outbox.len(), outbox.unanswered()), ((0, 0), 0));
    }

    #[test]
    fn a_full_outbox_does_what_its_policy_says() {
        let mut failing = outbox(2, 1 << 20, WhenFull::Fail);
        assert!(take(&mut failing, 1) && take(&mut failing, 2));
        assert!(matches!(failing.take(3, message(1), None), Taken::Full));

        let mut dropping = outbox(2, 1 << 20, WhenFull::DropOldest);
        assert!(take(&mut dropping, 1) && take(&mut dropping, 2));
        dropping.written(1);
        assert!(matches!(dropping.take(3, message(1), None), Taken::Yes(dropped) if dropped == [2]));
        dropping.written(3);
        assert!(matches!(dropping.take(4, message(1), None), Taken::Full), "all were written");
        // Also when they are to be written again: the broker may have them.
        dropping.rewind();
        assert!(matches!(dropping.take(4, message(1), None), Taken::Full));

        let mut waiting = outbox(2, 1 << 20, WhenFull::Wait);
        assert!(take(&mut waiting, 1) && take(&mut waiting, 2));
        assert!(matches!(waiting.take(3, message(1), None), Taken::Wait(_)));
    }

    #[test]
    fn who_waits_for_room_gets_it_in_turn() {
        let mut outbox = outbox(1, 1 << 20, WhenFull::Wait);
        assert!(take(&mut outbox, 1));
        let (mut first, mut second) = (None, None);
        outbox.wait(&mut first, Waker::noop());
        outbox.wait(&mut second, Waker::noop());
        outbox.remove(1);
        let mut wakes = Vec::new();
        outbox.call_next(&mut wakes);
        assert_eq!(wakes.len(), 1);
        assert!(matches!(outbox.take(2, message(1), None), Taken::Wait(_)), "others are before it");
        assert!(matches!(outbox.take(2, message(1), second), Taken::Wait(_)));
        assert!(matches!(outbox.take(2, message(1), first), Taken::Yes(_)));
        outbox.remove(2);
        outbox.leave_line(second.unwrap());
        assert!(take(&mut outbox, 3));
    }

    #[test]
    fn bytes_are_limited_but_one_large_message_goes_alone() {
        let mut outbox = outbox(100, 1000, WhenFull::Fail);
        assert!(matches!(outbox.take(1, message(5000), None), Taken::Yes(_)));
        assert!(matches!(outbox.take(2, message(1), None), Taken::Full));
        outbox.remove(1);
        assert!(take(&mut outbox, 2));
        assert!(matches!(outbox.take(3, message(900), None), Taken::Full));
        assert_eq!(outbox.len().0, 1);
    }

    #[test]
    fn who_ends_three_connections_is_taken_for_the_culprit() {
        let mut outbox = outbox(100, 1 << 20, WhenFull::Wait);
        assert!(take(&mut outbox, 1) && take(&mut outbox, 2));
        assert_eq!(outbox.blame_oldest(), None, "nothing was written");
        for (written, expected) in [(vec![1, 2], None), (vec![1], None), (vec![1], Some(1))] {
            assert_eq!(write_all(&mut outbox), written);
            assert_eq!(outbox.blame_oldest(), expected);
            outbox.rewind();
        }
    }

    #[test]
    fn the_end_says_of_each_whether_the_broker_may_have_it() {
        let mut outbox = outbox(100, 1 << 20, WhenFull::Wait);
        assert!(take(&mut outbox, 1) && take(&mut outbox, 2));
        outbox.written(1);
        outbox.rewind();
        assert_eq!(outbox.end(&Error::Closed), [(1, Error::Unconfirmed), (2, Error::Closed)]);
        assert_eq!(outbox.len(), (0, 0));
    }
}
