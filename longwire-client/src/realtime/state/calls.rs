//! What the program asked of the server, from the call to its answer: the outbox.
//!
//! A call waits until there is a connection, is written, and is answered; each step is a [`Stage`]. What breaks a connection
//! leaves those that were never written where they are, lets those be written again that do no harm twice, up to three
//! times, and ends the others as [`Error::Unconfirmed`]. What must stay true: what is not finished never passes the bounds of
//! [`Outbox`]; calls are written in the order in which they entered; each ends exactly once.

use crate::error::Error;
use crate::options::{Outbox, WhenFull};
use crate::realtime::event::{History, PresenceStats};
use bytes::Bytes;
use longwire_protocol::centrifuge::client::ClientInfo;
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

/// What the server answered.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// It is done.
    Done,
    /// Part of a history.
    History(History),
    /// Who is there.
    Presence(Vec<ClientInfo>),
    /// How many are there.
    PresenceStats(PresenceStats),
    /// What the backend answered: raw JSON.
    Rpc(Bytes),
}

/// What a call asks for, as far as its fate depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Publish,
    Rpc,
    /// Has no reply: it is done when it is given to the connection.
    Send,
    History,
    Presence,
    PresenceStats,
}

impl Kind {
    /// Asking twice does no harm.
    fn is_question(self) -> bool {
        matches!(self, Kind::History | Kind::Presence | Kind::PresenceStats)
    }
}

/// A call that its caller holds, before it entered and after.
#[derive(Debug)]
pub struct Ticket {
    pub(super) id: u32,
    pub(super) kind: Kind,
    /// The command, as long as it has not entered.
    line: Option<Bytes>,
    resend: bool,
    /// Its place among those that wait for room.
    place: Option<u64>,
}

impl Ticket {
    pub(super) fn new(id: u32, kind: Kind, line: Vec<u8>, resend: bool) -> Ticket {
        let resend = resend || kind.is_question();
        Ticket { id, kind, line: Some(line.into()), resend, place: None }
    }

    /// Whether it may be written again if a connection breaks before the answer; before it enters.
    pub(crate) fn set_resend(&mut self, resend: bool) {
        self.resend = resend || self.kind.is_question();
    }

    /// Whether the call is in the outbox, or was.
    pub(super) fn has_entered(&self) -> bool {
        self.line.is_none()
    }
}

#[derive(Debug)]
struct Call {
    kind: Kind,
    /// Empty once written, unless it may be written again.
    line: Bytes,
    bytes: usize,
    resend: bool,
    was_written: bool,
    /// When it entered, among all calls.
    place: u64,
    /// How many connections ended while it was the next to be answered.
    ends: u8,
    stage: Stage,
    caller: Option<Waker>,
    /// Nobody waits for the answer any more.
    is_forgotten: bool,
}

#[derive(Debug)]
enum Stage {
    Waiting,
    Written,
    Done(Result<Answer, Error>),
}

/// How many connections may end while a call is the next to be answered before it is thought to be the reason.
const MAX_ENDS: u8 = 3;

/// All calls of one client.
#[derive(Debug)]
pub(super) struct Calls {
    limits: Outbox,
    calls: BTreeMap<u32, Call>,
    /// What is to be written, in order; some of it may be gone.
    queue: VecDeque<u32>,
    /// Of those not finished.
    bytes: usize,
    count: usize,
    /// Who waits for room, in order.
    places: BTreeMap<u64, Option<Waker>>,
    next_place: u64,
    /// How many calls ever entered.
    entered: u64,
    /// Set for ever: nothing enters.
    end: Option<Error>,
}

impl Calls {
    pub(super) fn new(limits: Outbox) -> Calls {
        Calls {
            limits,
            calls: BTreeMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            count: 0,
            places: BTreeMap::new(),
            next_place: 0,
            entered: 0,
            end: None,
        }
    }

    /// How many are not finished, and how many bytes they have.
    pub(super) fn unfinished(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    pub(super) fn is_taken(&self, id: u32) -> bool {
        self.calls.contains_key(&id)
    }

    /// Lets a call enter, or gives its answer.
    pub(super) fn poll(
        &mut self,
        ticket: &mut Ticket,
        cx: &mut Context<'_>,
        wakes: &mut Vec<Waker>,
    ) -> Poll<Result<Answer, Error>> {
        if let Some(line) = &ticket.line {
            let bytes = line.len();
            match self.try_enter(ticket.place, bytes, wakes) {
                Err(error) => {
                    self.leave_line(ticket, wakes);
                    return Poll::Ready(Err(error));
                }
                Ok(false) => {
                    let place = *ticket.place.get_or_insert_with(|| {
                        self.next_place += 1;
                        self.next_place
                    });
                    self.places.insert(place, Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                Ok(true) => {}
            }
            self.bytes += bytes;
            self.count += 1;
            self.entered += 1;
            let call = Call {
                kind: ticket.kind,
                line: ticket.line.take().unwrap_or_default(),
                bytes,
                resend: ticket.resend,
                was_written: false,
                place: self.entered,
                ends: 0,
                stage: Stage::Waiting,
                caller: Some(cx.waker().clone()),
                is_forgotten: false,
            };
            self.calls.insert(ticket.id, call);
            self.queue.push_back(ticket.id);
            self.leave_line(ticket, wakes);
            return Poll::Pending;
        }
        let Some(call) = self.calls.get_mut(&ticket.id) else {
            return Poll::Ready(Err(self.end.clone().unwrap_or(Error::Closed)));
        };
        match &mut call.stage {
            Stage::Done(result) => {
                let result = std::mem::replace(result, Err(Error::Closed));
                self.forget(ticket.id);
                Poll::Ready(result)
            }
            _ => {
                call.caller = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether a call of so many bytes may enter; `Ok(false)` if it has to wait.
    fn try_enter(&mut self, place: Option<u64>, bytes: usize, wakes: &mut Vec<Waker>) -> Result<bool, Error> {
        if let Some(error) = &self.end {
            return Err(error.clone());
        }
        if bytes > self.limits.max_bytes || self.limits.max_sends == 0 {
            return Err(Error::OutboxFull);
        }
        let is_first = match (self.places.first_key_value(), place) {
            (None, _) => true,
            (Some((first, _)), Some(place)) => *first == place,
            (Some(_), None) => false,
        };
        if is_first && self.fits(bytes) {
            return Ok(true);
        }
        match self.limits.when_full {
            WhenFull::Wait => Ok(false),
            WhenFull::Fail => Err(Error::OutboxFull),
            WhenFull::DropOldest => {
                let dropped = self.to_drop(bytes).ok_or(Error::OutboxFull)?;
                self.queue.retain(|id| !dropped.contains(id));
                for id in dropped {
                    self.finish(id, Err(Error::Dropped), wakes);
                }
                Ok(true)
            }
        }
    }

    /// The oldest calls that have to go for one of so many bytes; `None` if that would not help.
    fn to_drop(&self, bytes: usize) -> Option<Vec<u32>> {
        let (mut held, mut count, mut dropped) = (self.bytes, self.count, Vec::new());
        let mut unwritten = self.queue.iter().filter_map(|id| {
            let call = self.calls.get(id)?;
            (!call.was_written && matches!(call.stage, Stage::Waiting)).then_some((*id, call.bytes))
        });
        while held + bytes > self.limits.max_bytes || count >= self.limits.max_sends {
            let (id, freed) = unwritten.next()?;
            (held, count) = (held - freed, count - 1);
            dropped.push(id);
        }
        Some(dropped)
    }

    /// A call is over and its caller knows.
    fn forget(&mut self, id: u32) {
        self.calls.remove(&id);
        // An idle client keeps none of the room that a busy moment took.
        if self.calls.is_empty() {
            (self.calls, self.queue) = (BTreeMap::new(), VecDeque::new());
        }
    }

    fn fits(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.limits.max_bytes && self.count < self.limits.max_sends
    }

    /// Gives up a ticket's place among those that wait for room; the next may have it.
    fn leave_line(&mut self, ticket: &mut Ticket, wakes: &mut Vec<Waker>) {
        if ticket.place.take().is_some_and(|place| self.places.remove(&place).is_some()) {
            self.wake_first(wakes);
        }
    }

    fn wake_first(&mut self, wakes: &mut Vec<Waker>) {
        if self.fits(0)
            && let Some(mut first) = self.places.first_entry()
        {
            wakes.extend(first.get_mut().take());
        }
    }

    /// Its caller is gone.
    pub(super) fn cancel(&mut self, ticket: &mut Ticket, wakes: &mut Vec<Waker>) {
        self.leave_line(ticket, wakes);
        if ticket.line.take().is_some() {
            return;
        }
        let Some(call) = self.calls.get_mut(&ticket.id) else { return };
        match call.stage {
            Stage::Waiting => {
                self.finish(ticket.id, Ok(Answer::Done), wakes);
                self.forget(ticket.id);
                // What is only cancelled is never taken from the queue by a connection that does not come.
                if self.queue.len() > 64 && self.queue.len() > 2 * self.count {
                    let calls = &self.calls;
                    self.queue.retain(|id| calls.contains_key(id));
                }
            }
            Stage::Done(_) => self.forget(ticket.id),
            _ => call.is_forgotten = true,
        }
    }

    /// The next call to be written, which counts as written from then on; its line, and whether it has a reply.
    pub(super) fn take_next(&mut self, wakes: &mut Vec<Waker>) -> Option<(u32, Bytes, bool)> {
        loop {
            let id = self.queue.pop_front()?;
            let Some(call) = self.calls.get_mut(&id).filter(|call| matches!(call.stage, Stage::Waiting))
            else {
                continue;
            };
            call.stage = Stage::Written;
            call.was_written = true;
            let line = if call.resend { call.line.clone() } else { std::mem::take(&mut call.line) };
            let has_reply = call.kind != Kind::Send;
            if !has_reply {
                self.finish(id, Ok(Answer::Done), wakes);
            }
            return Some((id, line, has_reply));
        }
    }

    /// Answers all that wait to be written: they cannot be, on this connection. What an earlier one carried may have been done.
    pub(super) fn refuse_waiting(&mut self, error: &Error, wakes: &mut Vec<Waker>) {
        for id in std::mem::take(&mut self.queue) {
            let was_written = self.calls.get(&id).is_some_and(|call| call.was_written);
            self.finish(id, Err(if was_written { Error::Unconfirmed } else { error.clone() }), wakes);
        }
    }

    pub(super) fn has_next(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The kind of a call that waits for its answer.
    pub(super) fn kind(&self, id: u32) -> Option<Kind> {
        self.calls.get(&id).map(|call| call.kind)
    }

    /// A call is over.
    pub(super) fn finish(&mut self, id: u32, result: Result<Answer, Error>, wakes: &mut Vec<Waker>) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if matches!(call.stage, Stage::Done(_)) {
            return;
        }
        self.bytes -= call.bytes;
        self.count -= 1;
        call.stage = Stage::Done(result);
        call.line = Bytes::new();
        wakes.extend(call.caller.take());
        if call.is_forgotten {
            self.forget(id);
        }
        self.wake_first(wakes);
    }

    /// The connection is gone.
    pub(super) fn handle_lost(&mut self, wakes: &mut Vec<Waker>) {
        let written = self.calls.iter().filter(|(_, call)| matches!(call.stage, Stage::Written));
        let mut written: Vec<(u64, u32)> = written.map(|(id, call)| (call.place, *id)).collect();
        written.sort_unstable();
        // Servers answer in order: if a call is what ends connections, it is the first without an answer.
        if let Some(first) = written.first().and_then(|(_, id)| self.calls.get_mut(id)) {
            first.ends = first.ends.saturating_add(1);
        }
        let mut again = VecDeque::new();
        for (_, id) in written {
            match self.calls.get_mut(&id) {
                Some(call) if call.resend && !call.is_forgotten && call.ends < MAX_ENDS => {
                    call.stage = Stage::Waiting;
                    again.push_back(id);
                }
                _ => self.finish(id, Err(Error::Unconfirmed), wakes),
            }
        }
        // They entered before all that was never written.
        again.append(&mut self.queue);
        self.queue = again;
    }

    /// The client is over: nothing is written any more.
    pub(super) fn handle_end(&mut self, error: &Error, wakes: &mut Vec<Waker>) {
        self.end = Some(error.clone());
        self.queue.clear();
        let all: Vec<u32> = self.calls.keys().copied().collect();
        for id in all {
            let was_written = self.calls.get(&id).is_some_and(|call| call.was_written);
            self.finish(id, Err(if was_written { Error::Unconfirmed } else { error.clone() }), wakes);
        }
        for (_, waker) in std::mem::take(&mut self.places) {
            wakes.extend(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(max_sends: usize, when_full: WhenFull) -> Calls {
        Calls::new(Outbox { max_bytes: 100, max_sends, when_full })
    }

    fn ticket(id: u32, kind: Kind) -> Ticket {
        Ticket::new(id, kind, vec![b'x'; 10], false)
    }

    fn poll(calls: &mut Calls, ticket: &mut Ticket) -> Poll<Result<Answer, Error>> {
        calls.poll(ticket, &mut Context::from_waker(Waker::noop()), &mut Vec::new())
    }

    fn next(calls: &mut Calls) -> Option<u32> {
        calls.take_next(&mut Vec::new()).map(|(id, ..)| id)
    }

    #[test]
    fn a_broken_connection_leaves_what_was_written_unconfirmed_and_the_rest_in_order() {
        let mut calls = calls(10, WhenFull::Wait);
        let mut tickets: Vec<Ticket> = [Kind::Publish, Kind::History, Kind::Publish]
            .into_iter()
            .zip(1..)
            .map(|(kind, id)| ticket(id, kind))
            .collect();
        for ticket in &mut tickets {
            assert!(poll(&mut calls, ticket).is_pending());
        }
        assert_eq!((next(&mut calls), next(&mut calls)), (Some(1), Some(2)));
        calls.handle_lost(&mut Vec::new());
        assert_eq!(poll(&mut calls, &mut tickets[0]), Poll::Ready(Err(Error::Unconfirmed)));
        assert!(poll(&mut calls, &mut tickets[1]).is_pending());
        assert_eq!((next(&mut calls), next(&mut calls), next(&mut calls)), (Some(2), Some(3), None));
        calls.finish(3, Ok(Answer::Done), &mut Vec::new());
        assert_eq!(poll(&mut calls, &mut tickets[2]), Poll::Ready(Ok(Answer::Done)));
        assert_eq!(calls.unfinished(), (1, 10));
    }

    #[test]
    fn whoever_may_be_written_twice_is() {
        let mut calls = calls(10, WhenFull::Wait);
        let mut publish = Ticket::new(1, Kind::Publish, vec![b'x'; 10], true);
        assert!(poll(&mut calls, &mut publish).is_pending());
        assert_eq!(next(&mut calls), Some(1));
        calls.handle_lost(&mut Vec::new());
        let (id, line, has_reply) = calls.take_next(&mut Vec::new()).unwrap();
        assert_eq!((id, line.len(), has_reply), (1, 10, true));
    }

    #[test]
    fn who_does_not_fit_waits_its_turn() {
        let mut calls = calls(1, WhenFull::Wait);
        let (mut first, mut second, mut third) =
            (ticket(1, Kind::Publish), ticket(2, Kind::Publish), ticket(3, Kind::Publish));
        for ticket in [&mut first, &mut second, &mut third] {
            assert!(poll(&mut calls, ticket).is_pending());
        }
        assert_eq!(calls.unfinished(), (1, 10));
        calls.finish(1, Ok(Answer::Done), &mut Vec::new());
        // The third came later.
        assert!(poll(&mut calls, &mut third).is_pending());
        assert!(!calls.is_taken(3));
        assert!(poll(&mut calls, &mut second).is_pending());
        assert!(calls.is_taken(2));
        // Whoever leaves makes room.
        calls.cancel(&mut second, &mut Vec::new());
        assert!(poll(&mut calls, &mut third).is_pending());
        assert!(calls.is_taken(3));
        assert_eq!(calls.unfinished(), (1, 10));
    }

    #[test]
    fn the_policy_for_a_full_outbox_is_kept() {
        let mut failing = calls(1, WhenFull::Fail);
        assert!(poll(&mut failing, &mut ticket(1, Kind::Publish)).is_pending());
        assert_eq!(poll(&mut failing, &mut ticket(2, Kind::Publish)), Poll::Ready(Err(Error::OutboxFull)));

        let mut dropping = calls(1, WhenFull::DropOldest);
        let mut first = ticket(1, Kind::Publish);
        assert!(poll(&mut dropping, &mut first).is_pending());
        assert!(poll(&mut dropping, &mut ticket(2, Kind::Publish)).is_pending());
        assert_eq!(poll(&mut dropping, &mut first), Poll::Ready(Err(Error::Dropped)));
        // What was written is not given up.
        assert_eq!(next(&mut dropping), Some(2));
        assert_eq!(poll(&mut dropping, &mut ticket(3, Kind::Publish)), Poll::Ready(Err(Error::OutboxFull)));
    }

    #[test]
    fn a_call_without_reply_is_done_when_it_is_written() {
        let mut calls = calls(1, WhenFull::Wait);
        let mut send = ticket(1, Kind::Send);
        assert!(poll(&mut calls, &mut send).is_pending());
        assert_eq!(next(&mut calls), Some(1));
        assert_eq!(poll(&mut calls, &mut send), Poll::Ready(Ok(Answer::Done)));
        assert_eq!(calls.unfinished(), (0, 0));
    }

    #[test]
    fn the_end_answers_everybody() {
        let mut calls = calls(2, WhenFull::Wait);
        let mut tickets: Vec<Ticket> = (1..=3).map(|id| ticket(id, Kind::Publish)).collect();
        for ticket in &mut tickets {
            assert!(poll(&mut calls, ticket).is_pending());
        }
        assert_eq!(next(&mut calls), Some(1));
        calls.handle_end(&Error::Closed, &mut Vec::new());
        let ends: Vec<_> = tickets.iter_mut().map(|ticket| poll(&mut calls, ticket)).collect();
        let expected =
            [Error::Unconfirmed, Error::Closed, Error::Closed].map(|error| Poll::Ready(Err(error)));
        assert_eq!(ends, expected);
        assert_eq!(calls.unfinished(), (0, 0));
    }
}
