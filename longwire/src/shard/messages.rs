//! Gives direct messages to the connections that they are for.
//!
//! A message is made once by the node and shared, as a delivery is: its wire form is made once for each encoding, however
//! many connections get it. What must stay true: whoever is counted was given it, or has it waiting behind the reply to
//! the connect command.

use super::{Entry, Shard, State, mark_dirty};
use crate::delivery::Delivery;
use crate::node::control::{Handed, Recipients, Who};
use crate::session::Given;
use std::sync::Arc;

impl Shard {
    /// Gives a message to whom it is for; to how many of them.
    pub(super) fn hand_out(&self, recipients: &Recipients, message: &Arc<Delivery>) -> Handed {
        let mut handed = Handed::default();
        let state = &mut *self.state.borrow_mut();
        let (now, config) = (self.node.env.clock.now(), &self.node.config);
        for index in state.recipients(recipients) {
            let Some(entry) = state.sessions.get_mut(index as usize) else { continue };
            match entry.session.send_message(message, &mut state.compressor, config) {
                Given::Taken => handed.taken += 1,
                Given::Refused => handed.refused += 1,
                Given::Gone => continue,
            }
            self.make_room(now, entry);
            mark_dirty(&mut state.dirty, index, entry);
        }
        handed
    }
}

impl State {
    /// The places of the sessions that a message is for, each once.
    fn recipients(&self, recipients: &Recipients) -> Vec<u32> {
        let mut found = Vec::new();
        // Whoever names a connection may know it from the call that asks whether it shall be.
        let is_named = matches!(recipients.who, Who::Clients(_));
        let mut consider = |index: u32, entry: &Entry| {
            let identity = &entry.session.identity;
            if (is_named || entry.session.is_connected())
                && !recipients.except.contains(&identity.client)
                && !recipients.except_users.contains(&*identity.user)
            {
                found.push(index);
            }
        };
        match &recipients.who {
            Who::Clients(clients) => {
                clients.iter().for_each(|client| self.look_at(Some(*client), None, &mut consider));
            }
            Who::Users(users) => users.iter().for_each(|user| self.look_at(None, Some(user), &mut consider)),
            Who::Channel(channel) => {
                let members =
                    self.hub.find(channel).map(|hub_id| self.hub.members(hub_id)).unwrap_or_default();
                for &index in members {
                    self.sessions.get(index as usize).into_iter().for_each(|entry| consider(index, entry));
                }
            }
            Who::All => self.look_at(None, None, &mut consider),
        }
        found
    }
}
