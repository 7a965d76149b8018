//! Whether queues keep what they confirm, and forget what is done.
//!
//! A page of truth beside what clients of STOMP tell: what was sent, what was confirmed, by which machine, what came, and
//! what was done. Queues are a machine's own. At least once is what is promised: a client that was not answered sends
//! again, and whoever did not learn that it is done gets it again. What must stay true: nothing comes that nobody sent; what
//! was confirmed comes; what is known to be done comes to nobody who connects after that.

use super::Checks;
use crate::trace::Promise;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a send may go without an answer when nothing fails: attempts to connect, and a turn in the outbox.
const ANSWER: Duration = Duration::from_secs(60);

/// What happens with the queue, as a client tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum QueueEvent {
    /// The message is in the client's hands.
    Sent {
        /// Its number.
        number: u64,
        /// What it says.
        body: String,
    },
    /// The server confirmed it.
    Confirmed {
        /// Its number.
        number: u64,
    },
    /// It was refused, or nobody knows.
    Unconfirmed {
        /// Its number.
        number: u64,
    },
    /// A message was delivered.
    Received {
        /// What it says.
        body: String,
        /// The server's id of it.
        id: String,
    },
    /// The server confirmed that it is done.
    Done {
        /// The server's id of it.
        id: String,
    },
    /// Nobody may work.
    Refused {
        /// Why.
        what: String,
    },
}

/// What is known of the queue.
#[derive(Default)]
pub(super) struct Work {
    sent: BTreeMap<u64, Sent>,
    /// By what a message says, which one it is.
    numbers: BTreeMap<String, u64>,
    /// By machine and id, what is done, and since when that is known.
    done: BTreeMap<(usize, String), Instant>,
    /// Whose deliveries came at all.
    received: BTreeSet<u64>,
    /// Faults have stopped, and what is sent must be answered.
    now: Option<Instant>,
}

struct Sent {
    user: usize,
    at: Instant,
    is_answered: bool,
    confirmed_by: Option<usize>,
}

impl Work {
    /// A user's memory is gone: nobody awaits an answer.
    pub(super) fn forgot(&mut self, user: usize) {
        let sent = self.sent.values_mut().filter(|sent| sent.user == user);
        sent.for_each(|sent| sent.is_answered = true);
    }

    /// Whether everything is answered, and everything that was confirmed came.
    ///
    /// # Errors
    /// What is not.
    pub(super) fn is_settled(&self) -> Result<(), String> {
        for (number, Sent { user, at, is_answered, confirmed_by }) in &self.sent {
            if !is_answered && self.now.is_some_and(|now| *at + ANSWER < now) {
                return Err(format!(
                    "the message {number} of user {user} was neither confirmed nor given up"
                ));
            }
            if let Some(machine) = confirmed_by
                && !self.received.contains(number)
            {
                return Err(format!("machine {machine} confirmed the message {number}, and nobody got it"));
            }
        }
        Ok(())
    }
}

impl Checks {
    /// A client tells what happened with the queue.
    pub fn queue_told(&mut self, user: usize, event: QueueEvent) {
        self.trace.note(format_args!("user {user}: {event:?}"));
        let now = self.clock.now();
        self.work.now = Some(now);
        let connection = self.readers[user].connection.and_then(|local| self.connections.get(&local));
        let (machine, since) = connection.map(|it| (it.machine, it.connected_at)).unzip();
        let connected_at = since.flatten();
        match event {
            QueueEvent::Sent { number, body } => {
                self.work.numbers.insert(body, number);
                let sent = Sent { user, at: now, is_answered: false, confirmed_by: None };
                self.work.sent.insert(number, sent);
            }
            QueueEvent::Confirmed { number } => {
                self.counts.queued += 1;
                let sent = self.work.sent.get_mut(&number).expect("it is told of its own sends alone");
                (sent.is_answered, sent.confirmed_by) = (true, machine);
                if machine.is_none() {
                    let what = format!("user {user}: the message {number} is confirmed without a connection");
                    self.trace.fail(Promise::Queued, what);
                }
            }
            QueueEvent::Unconfirmed { number } => {
                let sent = self.work.sent.get_mut(&number).expect("it is told of its own sends alone");
                sent.is_answered = true;
            }
            QueueEvent::Received { body, id } => {
                let Some(number) = self.work.numbers.get(&body) else {
                    let what = format!("user {user} got a message that nobody sent: {body}");
                    return self.trace.fail(Promise::Queued, what);
                };
                self.work.received.insert(*number);
                let Some(machine) = machine else { return };
                // What was on its way to somebody who is slow may come later than it is done by another.
                let done = self.work.done.get(&(machine, id.clone()));
                if done.is_some_and(|at| connected_at.is_some_and(|since| since > *at)) {
                    let what =
                        format!("user {user} got {id} of machine {machine}, which was done before it came");
                    self.trace.fail(Promise::Queued, what);
                }
            }
            QueueEvent::Done { id } => {
                self.counts.done += 1;
                if let Some(machine) = machine {
                    self.work.done.insert((machine, id), now);
                }
            }
            QueueEvent::Refused { what } => {
                self.trace.fail(Promise::Queued, format!("user {user} may not work: {what}"));
            }
        }
    }
}
