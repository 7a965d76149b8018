//! What the handles of the application ask of the state machine.
//!
//! Each is called under the lock, waits for nothing, and leaves behind who is to be woken. What must stay true: after the
//! end nothing is taken, and who asks is told which end it was.

use super::login::{Broker, Session};
use super::message::{Settlement, Verdict};
use super::outbox::{Confirmed, Entry, Taken};
use super::state::{Pending, State};
use super::subscriptions::{Queued, Wanted, settles_after_the_end};
use crate::core::Stats;
use crate::error::Error;
use crate::transition::Transition;
use std::task::{Poll, Waker};
use std::time::Instant;

/// What became of something that somebody sends.
pub(super) enum Offered {
    /// It is in the outbox under this number.
    Taken(u64),
    /// There is no room for it.
    Wait(Entry),
}

impl State {
    fn check(&self) -> Result<(), Error> {
        match &self.end {
            Some(error) => Err(error.clone()),
            None if self.is_closing => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Takes something to be sent. `ticket` is the place in line of who waited for room.
    pub(super) fn offer(
        &mut self,
        now: Instant,
        entry: Entry,
        ticket: Option<u64>,
    ) -> Result<Offered, Error> {
        self.check()?;
        let number = self.number();
        match self.outbox.take(number, entry, ticket) {
            Taken::Yes(dropped) => {
                for number in dropped {
                    self.calls.finish(number, Err(Error::Dropped), &mut self.wakes);
                }
                self.calls.open(number);
                self.outbox.call_next(&mut self.wakes);
                self.step(now);
                Ok(Offered::Taken(number))
            }
            // Room may come only when somebody reads, who may be the one who waits for it.
            Taken::Wait(_) if self.is_stuck() => Err(Error::OutboxFull),
            Taken::Wait(entry) => Ok(Offered::Wait(entry)),
            Taken::Full => Err(Error::OutboxFull),
        }
    }

    /// Leaves the line for room.
    pub(super) fn leave_line(&mut self, ticket: u64) {
        self.outbox.leave_line(ticket);
        self.outbox.call_next(&mut self.wakes);
    }

    pub(super) fn poll_call(&mut self, number: u64, waker: &Waker) -> Poll<Result<Confirmed, Error>> {
        self.calls.poll(number, waker)
    }

    /// Begins a subscription; its number.
    pub(super) fn subscribe(&mut self, now: Instant, wanted: Wanted) -> Result<u32, Error> {
        self.check()?;
        let id = wanted.id.clone();
        let number = self
            .table
            .add(wanted)
            .ok_or_else(|| Error::bad_argument(format!("there is a subscription with the id \"{id}\"")))?;
        if let Some(Session { version, broker, .. }) = self.session.as_deref() {
            let (version, broker) = (*version, *broker);
            self.ask(now, number, version, broker);
            self.step(now);
        }
        Ok(number)
    }

    /// Ends a subscription; the call that is done when the broker has confirmed it, if it is to.
    ///
    /// # Errors
    /// The broker is to forget it, and cannot be told.
    pub(super) fn unsubscribe(
        &mut self,
        now: Instant,
        number: u32,
        is_confirmed: bool,
        is_forever: bool,
    ) -> Result<Option<u64>, Error> {
        let Some((subscription, left)) = self.table.remove(number) else { return Ok(None) };
        self.note_reading(now);
        let session = self.session.as_deref().filter(|_| subscription.is_asked());
        let Some(Session { version, broker, .. }) = session else {
            let unasked = || Error::bad_argument("without a connection no broker forgets a subscription");
            return if is_forever { Err(self.end.clone().unwrap_or_else(unasked)) } else { Ok(None) };
        };
        let (version, broker) = (*version, *broker);
        // What waits here waits there, too, until the connection ends, unless it is given back. ActiveMQ takes it back by
        // itself, and an acknowledgement of all before would mean what the application has in hand.
        let is_single = subscription.wanted.ack == super::message::AckMode::ClientIndividual;
        if is_single && matches!(broker, Broker::Longwire | Broker::RabbitMq) {
            for received in left {
                self.give_back(now, received, Verdict::Nack);
            }
        }
        if is_forever && broker == Broker::ActiveMq {
            // It forgets a durable subscription only when nobody consumes it.
            self.write(now, &subscription.unsubscribe(version, None, false));
        }
        let call = is_confirmed.then(|| self.number());
        if let Some(call) = call {
            self.calls.open(call);
            self.expect(now, call, if is_forever { Pending::Forget } else { Pending::Unsubscribe });
        }
        self.write(now, &subscription.unsubscribe(version, call, is_forever));
        self.step(now);
        Ok(call)
    }

    /// The next event of a subscription; `None` when it is over.
    pub(super) fn poll_subscription(
        &mut self,
        now: Instant,
        number: u32,
        waker: &Waker,
    ) -> Poll<Option<Queued>> {
        let polled = self.table.poll(number, waker);
        if polled.is_ready() && !self.is_reading && self.progress.is_some() {
            self.progress = Some(now);
        }
        self.note_reading(now);
        polled
    }

    /// Says something about a message; the call that is done when the broker has confirmed it, if it is to.
    pub(super) fn settle(
        &mut self,
        now: Instant,
        settlement: &Settlement,
        is_confirmed: bool,
    ) -> Result<Option<u64>, Error> {
        self.check()?;
        let Some(session) = self.session.as_deref() else { return Err(Error::StaleMessage) };
        let Session { version, broker, .. } = *session;
        let is_gone = self.table.get(settlement.subscription).is_none();
        if settlement.connection != self.connection || is_gone && !settles_after_the_end(broker) {
            return Err(Error::StaleMessage);
        }
        let is_ack = settlement.verdict == Verdict::Ack;
        if self.table.is_said(settlement.subscription, settlement.number, is_ack)? {
            return Ok(None);
        }
        if let Some(id) = &settlement.id {
            self.table.note_settled(settlement.subscription, id, is_ack);
        }
        let call = is_confirmed.then(|| self.number());
        let receipt = call.map(|number| number.to_string());
        let extra: Vec<(&str, &str)> = receipt.iter().map(|receipt| ("receipt", &**receipt)).collect();
        let frame = settlement.frame(version, &extra);
        if let Some(call) = call {
            self.calls.open(call);
            self.expect(now, call, Pending::Settle);
        }
        self.write(now, &frame);
        Ok(call)
    }

    /// Whether there is a connection with a login; an error if there will be none.
    pub(super) fn poll_connected(&mut self, ticket: &mut u64, waker: &Waker) -> Poll<Result<(), Error>> {
        match self.check() {
            Err(error) => Poll::Ready(Err(error)),
            Ok(()) if self.session.is_some() => Poll::Ready(Ok(())),
            Ok(()) => self.watch(ticket, waker),
        }
    }

    /// Whether the client is at its end.
    pub(super) fn poll_closed(&mut self, ticket: &mut u64, waker: &Waker) -> Poll<()> {
        if self.end.is_some() { Poll::Ready(()) } else { self.watch(ticket, waker) }
    }

    fn watch<T>(&mut self, ticket: &mut u64, waker: &Waker) -> Poll<T> {
        if *ticket == 0 {
            *ticket = self.number();
        }
        self.watchers.insert(*ticket, waker.clone());
        Poll::Pending
    }

    /// Waits no longer.
    pub(super) fn stop_watching(&mut self, ticket: u64) {
        self.watchers.remove(&ticket);
    }

    /// Takes nothing more, and ends when what was taken is confirmed.
    pub fn close(&mut self, now: Instant) {
        if self.end.is_some() || self.is_closing {
            return;
        }
        self.is_closing = true;
        self.outbox.call_all(&mut self.wakes);
        self.note_reading(now);
        if self.session.is_none() {
            self.finish(Error::Closed);
            self.core.leave(now);
        }
        self.step(now);
    }

    /// Ends at once: nobody is there any more to await anything.
    pub(super) fn leave(&mut self, now: Instant) {
        if self.end.is_some() {
            return;
        }
        if self.session.is_some() {
            self.write(now, b"DISCONNECT\n\n\0");
        }
        self.finish(Error::Closed);
        self.core.leave(now);
        self.step(now);
    }

    /// The next transition for one who listens; `None` when there will be none.
    pub(super) fn poll_transition(&mut self, number: u32, waker: &Waker) -> Poll<Option<Transition>> {
        let is_over = self.end.is_some();
        let Some(listener) = self.listeners.iter_mut().find(|listener| listener.number == number) else {
            return Poll::Ready(None);
        };
        match listener.queue.pop_front() {
            None if is_over => Poll::Ready(None),
            None => {
                listener.waker = Some(waker.clone());
                Poll::Pending
            }
            transition => Poll::Ready(transition),
        }
    }

    pub(super) fn stop_listening(&mut self, number: u32) {
        self.listeners.retain(|listener| listener.number != number);
    }

    pub(super) fn stats(&self) -> Stats {
        self.core.stats().clone()
    }
}
