//! By what a client that returns shows that a session is its own.
//!
//! The part of [`Session`] that outlives its links beside [`away`](super::away). A link may take it over if its client is
//! the same user with the same name, as the claim has it, or if it knows the session's name, which only its client was
//! told, and comes as the same user as the first link. What must stay true: whoever only knows the client's name does not
//! get what the backend gave a user; whoever was replaced by one who did not know the session's name cannot speak for
//! the client any more.

use super::Session;
use crate::node::claims::InUse;
use crate::node::session_name::SessionPlace;
use longwire_protocol::CloseReason;
use longwire_protocol::connection::Transport;
use std::sync::Arc;

/// By what the session is known to its client.
#[derive(Debug)]
pub(super) struct Naming {
    /// The user that the first link proved to be.
    came_as: Arc<str>,
    /// How often the session's name changed.
    changes: u32,
    /// The name before the latest counts as well: its client may not know the latest yet.
    does_former_count: bool,
}

impl Naming {
    pub(super) fn of(came_as: Arc<str>) -> Naming {
        Naming { came_as, changes: 0, does_former_count: false }
    }
}

impl Session {
    /// How often the session's name changed.
    pub fn name_changes(&self) -> u32 {
        self.named().map_or(0, |named| named.naming.changes)
    }

    /// How often it had changed under a name that counts as well as the latest, if there is one.
    pub fn former_name_changes(&self) -> Option<u32> {
        let naming = &self.named()?.naming;
        naming.does_former_count.then(|| naming.changes.wrapping_sub(1))
    }

    /// Notes that the client knows the session's latest name.
    pub fn note_name_known(&mut self) {
        if let Some(named) = self.named_mut() {
            named.naming.does_former_count = false;
        }
    }

    /// Whether a link of `user` whose client calls itself `name` may take the session over; one that knew the session's
    /// name `is_proven`.
    pub fn is_open_to(&self, user: &Arc<str>, name: &str, is_proven: bool) -> bool {
        self.named().is_some_and(|named| {
            let is_same_user = match is_proven {
                true => named.naming.came_as == *user || self.identity.user == *user,
                false => named.claim.user() == user,
            };
            is_same_user && named.claim.name() == name
        })
    }

    /// Gives the session another name, for it is about to be taken over by a link over `transport`; `is_proven` as in
    /// [`is_open_to`](Self::is_open_to).
    pub fn change_name(&mut self, transport: Transport, is_proven: bool) {
        let is_replacing = !self.is_away();
        let polls = |reason| reason == CloseReason::Answered && transport == Transport::LongPoll;
        // A poll that waits has told nobody of a name, and its client sends by the one that it knows.
        if !is_replacing && self.last_break().is_some_and(|last| polls(last.closing.close.reason)) {
            return;
        }
        let Some(named) = self.named_mut() else { return };
        named.naming.changes = named.naming.changes.wrapping_add(1);
        // Nobody else is known to have the former one; what tells the latest may be lost.
        named.naming.does_former_count = is_proven || !is_replacing;
    }

    /// Has the claim to the client's name follow the session to another user, from whichever session has it: where
    /// that is, which is to be ended. Of a client that is there only if `may_replace`.
    ///
    /// # Errors
    /// [`InUse`]; nothing has changed then.
    pub fn move_claim(&mut self, user: &Arc<str>, may_replace: bool) -> Result<Option<SessionPlace>, InUse> {
        self.named_mut().map_or(Ok(None), |named| named.claim.move_to(user, may_replace))
    }

    /// Ends the session because another one of the same client has its claim.
    pub fn give_way(&mut self) {
        if let Some(named) = self.named_mut() {
            named.is_kept = false;
        }
        self.close(CloseReason::Replaced.into(), "the client has another session");
        // The other one may need it.
        if let Some(credentials) = &mut self.credentials {
            credentials.place = None;
        }
    }
}
