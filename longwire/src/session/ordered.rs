//! What the backend does to one live session: whose it is, what it is given directly, and what is kept with it.
//!
//! The part of [`Session`] that the orders of the HTTP API and the answers of webhooks touch. Limits, presence and events
//! are the shard's business. What must stay true: what is kept is a JSON object within its bound, or nothing.

use super::{Early, Session, State};
use crate::config::Config;
use crate::delivery::{DataForm, Delivery, Shape, What};
use crate::node::control::{DataChange, ServerSubscribe};
use crate::node::limits::UserPlace;
use bytes::Bytes;
use longwire_protocol::json::write_string;
use longwire_protocol::message::Push;
use longwire_protocol::websocket::Compressor;
use longwire_protocol::{CloseReason, ErrorCode};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of a direct message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// The client has it, or gets it behind what is to be written before.
    Taken,
    /// It is no JSON, and the connection carries nothing else.
    Refused,
    /// The client is not connected, or not any more.
    Gone,
}

impl Session {
    /// Notes that the session is another user's, with a place among that user's connections; the place among those of
    /// the earlier one is free.
    pub fn belong_to(&mut self, user: Arc<str>, place: Option<UserPlace>) {
        self.identity.user = user;
        if place.is_some() || self.credentials.is_some() {
            self.credentials.get_or_insert_default().place = place;
        }
    }

    /// Keeps a subscription that the backend orders for later, if the client was not told of its connection yet:
    /// it would not know what to make of it. True if it is kept; more than a connection may have close it.
    pub fn keep_for_later(&mut self, order: &Arc<ServerSubscribe>, config: &Config) -> bool {
        let is_early = !self.is_told();
        if is_early && self.closing.is_none() {
            let ordered = &mut self.passing.get_or_insert_default().ordered;
            if ordered.len() < config.client.max_subscriptions {
                ordered.push(order.clone());
            } else {
                self.close(CloseReason::ChannelLimit.into(), "ordered before the client was connected");
            }
        }
        is_early
    }

    /// Gives out what was kept for later, once the time has come.
    pub fn take_ordered(&mut self) -> Vec<Arc<ServerSubscribe>> {
        let is_told = self.is_told();
        let passing = self.passing.as_mut().filter(|_| is_told);
        passing.map(|passing| std::mem::take(&mut passing.ordered)).unwrap_or_default()
    }

    /// Gives the client a direct message; behind the reply to its connect command, if that is not written yet.
    pub fn send_message(
        &mut self,
        message: &Arc<Delivery>,
        compressor: &mut Option<Box<Compressor>>,
        config: &Config,
    ) -> Given {
        if self.closing.is_some() || !(self.is_connected() || self.is_opening()) {
            return Given::Gone;
        }
        let is_given = match self.state {
            State::Connecting if self.connection.is_open() => self.give_later(message, config),
            _ => self.give(message, compressor, config),
        };
        if !is_given {
            return Given::Refused;
        }
        // Who cannot take it is too slow, and is closed for that.
        if self.closing.is_some() { Given::Gone } else { Given::Taken }
    }

    /// Gives the client something that came for it directly; false if its connection cannot express it.
    fn give(
        &mut self,
        message: &Arc<Delivery>,
        compressor: &mut Option<Box<Compressor>>,
        config: &Config,
    ) -> bool {
        let What::Message { data, is_json } = &message.what else { return false };
        let push = Push::Message { data: data.clone(), is_json: *is_json };
        let encoding = self.connection.encoding();
        if self.closing.is_some() || !encoding.carries("", &push) {
            return false;
        }
        if self.connection.is_open() && !self.is_away() && !self.is_returning() {
            self.note_written(None);
            self.note_message_in_answer(data, *is_json, config);
            // Without compression: who is sent something of its own is seldom many.
            let shape = Shape { encoding: encoding.inflated(), data: DataForm::Plain };
            let bytes = message.encoded(shape, compressor).clone();
            self.write_push(bytes, config);
        } else {
            self.push("", &push, config);
        }
        true
    }

    /// Keeps a direct message until the client was told of its connection; false if its connection cannot express it.
    fn give_later(&mut self, message: &Delivery, config: &Config) -> bool {
        let What::Message { data, is_json } = &message.what else { return false };
        let push = Push::Message { data: data.clone(), is_json: *is_json };
        if !self.connection.encoding().carries("", &push) {
            return false;
        }
        self.note_message_in_answer(data, *is_json, config);
        let bytes = self.connection.push("", &push);
        let channel = String::new();
        self.keep_early(Early { channel, bytes, is_beginning: false, publication: None }, config);
        true
    }

    /// Whether the client is subscribed to a channel, or will be because the backend ordered it.
    pub fn expects(&self, channel: &str) -> bool {
        let ordered = self.passing.as_ref().map(|passing| passing.ordered.as_slice()).unwrap_or_default();
        self.is_subscribed(channel) || ordered.iter().any(|order| order.channel == channel)
    }

    /// What the backend keeps with the session: raw JSON; empty if it keeps nothing.
    pub fn data(&self) -> Bytes {
        self.baggage().map(|baggage| baggage.meta.clone()).unwrap_or_default()
    }

    /// Changes what the backend keeps with the session; what is kept then.
    ///
    /// # Errors
    /// `LimitExceeded` if it would be more than `max_bytes`, `BadRequest` if members are to be put into what is no
    /// object.
    pub fn keep_data(&mut self, change: &DataChange, max_bytes: usize) -> Result<Bytes, ErrorCode> {
        let data = match change {
            DataChange::Set(data) => data.clone(),
            DataChange::Update(members) => merge(&self.data(), members)?,
        };
        if data.len() > max_bytes {
            return Err(ErrorCode::LimitExceeded);
        }
        self.carry(|baggage| baggage.meta = data.clone());
        Ok(data)
    }
}

/// The members of both objects, sorted by their names; of members of the same name the later counts, and one that is null
/// is none. Empty if none is left.
fn merge(kept: &Bytes, members: &Bytes) -> Result<Bytes, ErrorCode> {
    let mut merged = object(kept)?;
    for (name, value) in object(members)? {
        match value.get() {
            "null" => merged.remove(&name),
            _ => merged.insert(name, value),
        };
    }
    let mut out = Vec::new();
    for (name, value) in merged {
        out.push(if out.is_empty() { b'{' } else { b',' });
        write_string(&name, &mut out);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    if !out.is_empty() {
        out.push(b'}');
    }
    Ok(out.into())
}

fn object(json: &[u8]) -> Result<BTreeMap<String, &RawValue>, ErrorCode> {
    if json.is_empty() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_slice(json).map_err(|_| ErrorCode::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_put_in_replaced_and_taken_out() {
        for (kept, members, merged) in [
            ("", "{}", ""),
            ("", r#"{"b":1,"a":[ 2 ]}"#, r#"{"a":[ 2 ],"b":1}"#),
            (r#"{"a":1,"b":{"c":null}}"#, r#"{"a":null,"d":"\u00e9"}"#, r#"{"b":{"c":null},"d":"\u00e9"}"#),
            (r#"{"a":1}"#, r#"{"a":null,"b":null}"#, ""),
            (r#"{"a":1}"#, r#"{"a":{"x":2}}"#, r#"{"a":{"x":2}}"#),
        ] {
            let all = merge(&Bytes::from(kept), &Bytes::from(members));
            assert_eq!(all, Ok(Bytes::from(merged)), "{kept} {members}");
        }
        assert_eq!(merge(&Bytes::from("7"), &Bytes::from("{}")), Err(ErrorCode::BadRequest));
    }
}
