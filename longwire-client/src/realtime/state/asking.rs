//! What a program asks of the server, made into commands.

use super::State;
use super::calls::{Kind, Ticket};
use crate::error::Error;
use crate::realtime::event::HistoryQuery;
use crate::realtime::settings::check_json;
use longwire_protocol::centrifuge::client::{Command, Since, encode_command};

impl State {
    /// Publishes. `resend`: it may be written again if a connection breaks before the answer.
    ///
    /// # Errors
    /// If the channel has no name or the data is not JSON.
    pub fn publish(&mut self, channel: &str, data: &[u8], resend: bool) -> Result<Ticket, Error> {
        check_channel(channel)?;
        if data.is_empty() {
            return Err(Error::bad_argument("data is empty"));
        }
        check_json("data", data)?;
        Ok(self.ticket(Kind::Publish, &Command::Publish { channel, data }, resend))
    }

    /// Calls a method of the backend.
    ///
    /// # Errors
    /// If the data is not JSON.
    pub fn rpc(&mut self, method: &str, data: &[u8], resend: bool) -> Result<Ticket, Error> {
        check_json("data", data)?;
        Ok(self.ticket(Kind::Rpc, &Command::Rpc { method, data }, resend))
    }

    /// Tells the backend something, without an answer.
    ///
    /// # Errors
    /// If the data is not JSON.
    pub fn send(&mut self, data: &[u8]) -> Result<Ticket, Error> {
        check_json("data", data)?;
        Ok(self.ticket(Kind::Send, &Command::Send { data }, false))
    }

    /// Asks for a part of a channel's history.
    ///
    /// # Errors
    /// If the channel has no name.
    pub fn history(&mut self, channel: &str, query: &HistoryQuery) -> Result<Ticket, Error> {
        check_channel(channel)?;
        let since = query.since.as_ref().map(|since| Since { offset: since.offset, epoch: &since.epoch });
        let command = Command::History { channel, limit: query.limit, since, reverse: query.reverse };
        Ok(self.ticket(Kind::History, &command, false))
    }

    /// Asks who is in a channel.
    ///
    /// # Errors
    /// If the channel has no name.
    pub fn presence(&mut self, channel: &str) -> Result<Ticket, Error> {
        check_channel(channel)?;
        Ok(self.ticket(Kind::Presence, &Command::Presence { channel }, false))
    }

    /// Asks how many are in a channel.
    ///
    /// # Errors
    /// If the channel has no name.
    pub fn presence_stats(&mut self, channel: &str) -> Result<Ticket, Error> {
        check_channel(channel)?;
        Ok(self.ticket(Kind::PresenceStats, &Command::PresenceStats { channel }, false))
    }

    fn ticket(&mut self, kind: Kind, command: &Command<'_>, resend: bool) -> Ticket {
        let id = self.next_id();
        let mut line = Vec::with_capacity(64);
        encode_command(id, command, &mut line);
        Ticket::new(id, kind, line, resend)
    }
}

fn check_channel(channel: &str) -> Result<(), Error> {
    if channel.is_empty() { Err(Error::bad_argument("a channel has a name")) } else { Ok(()) }
}
