//! Commands whose answers are awaited, and by when.
//!
//! All have the same time, so they run out in the order in which they were said. What must stay true: where nothing is
//! awaited, nothing is kept; one that is answered never runs out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// What an answer will be to.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Connect,
    /// Of the subscription with this key.
    Subscribe(Arc<str>, u32),
    Unsubscribe(Arc<str>),
    Refresh,
    SubRefresh(Arc<str>, u32),
    Call,
}

impl Pending {
    /// The protocol's name of the command.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Pending::Connect => "connect",
            Pending::Subscribe(..) => "subscribe",
            Pending::Unsubscribe(_) => "unsubscribe",
            Pending::Refresh => "refresh",
            Pending::SubRefresh(..) => "sub_refresh",
            Pending::Call => "call",
        }
    }
}

/// What is awaited on one connection.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    pending: BTreeMap<u32, Pending>,
    /// By when; some may be answered.
    deadlines: VecDeque<(Instant, u32)>,
}

impl Awaited {
    /// Notes a command; without a deadline, somebody else has it.
    pub(super) fn insert(&mut self, id: u32, pending: Pending, deadline: Option<Instant>) {
        self.pending.insert(id, pending);
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.pending.contains_key(&id)
    }

    /// The command with this number is answered.
    pub(super) fn take(&mut self, id: u32) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        while self.deadlines.front().is_some_and(|(_, of)| !self.pending.contains_key(of)) {
            self.deadlines.pop_front();
        }
        // An idle client keeps none of the room that a busy moment took.
        if self.pending.is_empty() {
            *self = Awaited::default();
        }
        Some(pending)
    }

    /// A command whose time has run out.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<(u32, Pending)> {
        while let Some((at, id)) = self.deadlines.front().copied()
            && at <= now
        {
            self.deadlines.pop_front();
            if let Some(pending) = self.take(id) {
                return Some((id, pending));
            }
        }
        None
    }

    /// A call whose time has run out, whatever else has.
    pub(super) fn take_late_call(&mut self, now: Instant) -> Option<(u32, Pending)> {
        let late = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let id = late.map(|(_, id)| *id).find(|id| self.is_call(*id))?;
        self.deadlines.retain(|(_, of)| *of != id);
        self.take(id).map(|pending| (id, pending))
    }

    /// When the next call runs out.
    pub(super) fn next_deadline_of_calls(&self) -> Option<Instant> {
        self.deadlines.iter().find(|(_, id)| self.is_call(*id)).map(|(at, _)| *at)
    }

    fn is_call(&self, id: u32) -> bool {
        matches!(self.pending.get(&id), Some(Pending::Call))
    }

    /// When the next one runs out; not before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.front().map(|(at, _)| *at)
    }

    /// Nothing runs out before `at_least`.
    pub(super) fn postpone(&mut self, at_least: Instant) {
        self.deadlines.iter_mut().for_each(|(at, _)| *at = (*at).max(at_least));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_answered_never_runs_out_and_the_rest_does_in_order() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut awaited = Awaited::default();
        awaited.insert(1, Pending::Connect, None);
        for id in 2..=4 {
            awaited.insert(id, Pending::Call, Some(at(id.into())));
        }
        assert!(awaited.take(2).is_some() && awaited.take(2).is_none());
        assert_eq!(awaited.next_deadline(), Some(at(3)));
        assert!(awaited.take_late(at(2)).is_none());
        awaited.postpone(at(5));
        assert!(awaited.take_late(at(4)).is_none());
        let late: Vec<u32> = std::iter::from_fn(|| awaited.take_late(at(5))).map(|(id, _)| id).collect();
        assert_eq!(late, [3, 4]);
        assert!(awaited.contains(1) && awaited.take(1).is_some());
        assert_eq!((awaited.next_deadline(), awaited.deadlines.capacity()), (None, 0));
    }
}
