//! Whether the cause that a server gives for the end of a connection is honest.

use super::{Checks, Connection, SLACK};
use crate::client::Kind;
use crate::net::{Cut, Fate, Happening, Side};
use crate::trace::Promise;
use std::time::{Duration, Instant};

/// How long after it ended an impairment still explains a silence.
const AFTERMATH: Duration = Duration::from_secs(12);

/// So many users are a crowd.
const CROWD: usize = 100;

impl Checks {
    /// Judges a cause, at the moment in which it is given.
    pub(super) fn judge_cause(
        &self,
        connection: &Connection,
        reason: &str,
        detail: &str,
    ) -> Result<(), (Promise, String)> {
        let Some(fate) = self.net.fate(connection.id) else {
            return Err((Promise::Cause, "the network knows no such connection".into()));
        };
        let machine = &self.machines[connection.machine];
        let user = &self.plan.users[connection.user];
        // What gathered while the process stood still, a flood, or what a crowd says at once when it comes back, may be
        // more than link and outbox hold.
        let is_flooded = self.plan.backend_bytes > 300 || self.plan.users.len() > CROWD;
        let has_gathered =
            is_flooded || machine.paused_until.is_some_and(|until| until + AFTERMATH > self.clock.now());
        let has = |happening: Happening| fate.when(happening).is_some();
        let is_slow = user.bytes_per_second.is_some();
        // Answers of the application, too, may come too late while the process stands still.
        let may_be_unanswered = self.application_failed
            || machine.paused_until.is_some_and(|until| until + AFTERMATH > self.clock.now());
        let (is_honest, promise, why) = match reason {
            "PeerClosed" => {
                let is_ended = |happening: &Happening| matches!(happening, Happening::Cut(_, Cut::Fin));
                let left = connection.said_goodbye
                    || has(Happening::FinArrived(Side::Server))
                    || fate.first(is_ended).is_some();
                (left, Promise::Cause, "the peer did not leave")
            }
            "PeerReset" => {
                let reset = has(Happening::ResetArrived(Side::Server))
                    || has(Happening::ResetByNetwork(Side::Server));
                (reset, Promise::Cause, "no reset arrived")
            }
            "NoHeartbeat" => {
                // On a slow link the beat may be behind what was written before it.
                // Who said goodbye answers no beat, and the goodbye may wait behind a command.
                // A client of the plain dialect is not asked before it is called silent: one that only answers was
                // not asked while the process stood still.
                let was_unasked = user.kind == Kind::Plain
                    && machine.paused_until.is_some_and(|until| until + AFTERMATH > self.clock.now());
                let is_silent = connection.said_goodbye
                    || was_unasked
                    || self.is_impaired(connection, &fate)
                    || self.is_beat_under_way(&fate)
                    || is_slow;
                (is_silent, Promise::Alive, "the peer could answer")
            }
            "WriteStalled" => {
                let is_stuck = is_slow || self.is_impaired(connection, &fate);
                (is_stuck, Promise::Cause, "the peer read")
            }
            "Slow" => {
                let is_shed = machine.was_short_of_memory && detail == "memory is short";
                let is_stuck = is_slow || self.is_impaired(connection, &fate) || is_shed || has_gathered;
                (is_stuck, Promise::Cause, "the peer read")
            }
            "Stale" => {
                let is_late = is_slow || self.is_impaired(connection, &fate) || connection.sent_garbage;
                (is_late, Promise::Cause, "the peer could connect")
            }
            "Replaced" => (self.has_later(connection), Promise::Cause, "its client opened no later link"),
            "ClientInUse" => (self.has_earlier(connection), Promise::Cause, "its client had no other link"),
            "BackendUnavailable" => (may_be_unanswered, Promise::Cause, "nothing failed"),
            "Drain" => (machine.is_draining, Promise::Cause, "the server was not told to drain"),
            // What an SDK says with its connect command comes behind the refusal.
            "BadRequest" if may_be_unanswered && detail.ends_with("after a refused connect") => {
                (true, Promise::Cause, "")
            }
            "BadRequest" | "ProtocolError" | "InvalidPayload" | "MessageTooBig" => {
                (connection.sent_garbage, Promise::Cause, "the peer broke no rule")
            }
            "InsufficientState" => {
                let has_overflowed = has_gathered && detail.starts_with("too much was published");
                (self.store_lost || has_overflowed, Promise::Cause, "nothing was lost")
            }
            "InternalError" => (self.store_failed || may_be_unanswered, Promise::Cause, "nothing failed"),
            "QueueUnavailable" => {
                (self.is_disk_bad(connection.machine), Promise::Cause, "its disk takes what it is given")
            }
            // STOMP has no word for the end of a subscription.
            "StateInvalidated" => {
                let is_told_so = user.kind.is_stomp() && connection.was_ordered;
                (is_told_so, Promise::Cause, "the backend ordered nothing")
            }
            "ForceReconnect" | "ForceDisconnect" => {
                (connection.was_ordered, Promise::Cause, "the backend ordered nothing")
            }
            _ => (false, Promise::Cause, "nothing that was done explains it"),
        };
        if is_honest { Ok(()) } else { Err((promise, format!("{why}; its fate: {:?}", fate.happenings))) }
    }

    /// Whether the user of a connection has opened another there since.
    fn has_later(&self, connection: &Connection) -> bool {
        let accepted = |id| self.net.fate(id).and_then(|fate| fate.when(Happening::Accepted));
        // Two that were dialled one after the other may arrive the other way round.
        let is_later = |other: &Connection| {
            other.id > connection.id
                || other.id != connection.id && accepted(other.id) >= accepted(connection.id)
        };
        self.connections.values().any(|other| is_beside(other, connection) && is_later(other))
    }

    /// Whether the user of a connection had opened another there before, whose end its server need not know.
    fn has_earlier(&self, connection: &Connection) -> bool {
        let is_earlier = |other: &Connection| other.id < connection.id;
        self.connections.values().any(|other| is_beside(other, connection) && is_earlier(other))
    }

    /// Whether, a short while ago or still, the peer could not read or answer, or its link did not carry.
    fn is_impaired(&self, connection: &Connection, fate: &Fate) -> bool {
        let now = self.clock.now();
        let heartbeat = &self.plan.config.heartbeat;
        let since = now - heartbeat.interval - heartbeat.max_silence - AFTERMATH;
        if self.idle_until[connection.user].is_some_and(|until| until > since) {
            return true;
        }
        let is_recent = |at: Instant| at > since;
        // A moment ago the server may not have looked yet.
        let seen = |happening: Happening| fate.when(happening).is_some_and(|at| at.into_std() + SLACK < now);
        let has_arrived =
            seen(Happening::FinArrived(Side::Server)) || seen(Happening::ResetArrived(Side::Server));
        let mut open = 0;
        for (at, happening) in &fate.happenings {
            let at = at.into_std();
            match happening {
                Happening::Blocked(_) => open += 1,
                Happening::Repaired(_) | Happening::CutRepaired if is_recent(at) => return true,
                Happening::Repaired(_) => open -= 1,
                Happening::Stalled(_, span) if is_recent(at + *span) => return true,
                Happening::Vanished(Side::Client) | Happening::Cut(_, Cut::Vanish) => return true,
                Happening::TimedOut { side: Side::Server, .. } => return true,
                // Closed behind a link that lets nothing of it through yet.
                Happening::Closed(Side::Client) if !has_arrived => return true,
                _ => {}
            }
        }
        open > 0
    }

    /// Whether what the server wrote is still on its way after a good part of the time for an answer.
    fn is_beat_under_way(&self, fate: &Fate) -> bool {
        let patience = self.plan.config.heartbeat.timeout / 2;
        fate.server_unacked_since.is_some_and(|since| since.into_std() + patience < self.clock.now())
    }
}

fn is_beside(other: &Connection, connection: &Connection) -> bool {
    (other.user, other.machine, other.life) == (connection.user, connection.machine, connection.life)
}
