//! What the events of an event stream mean, and what must be true of each.
//!
//! Their form is read strictly: a member that longwire does not write is an error. What must stay true: the
//! page's position moves with every publication that is told, and by nothing else.

use super::{EventStream, Phase};
use crate::client::{Event, HangUp, Heard, Output, Wanted};
use longwire_protocol::plain::position_token::PositionToken;
use longwire_protocol::{Epoch, Position};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

impl EventStream {
    /// Takes one event; `is_first` says that it is the first of its stream.
    pub(super) fn handle_event(
        &mut self,
        name: &str,
        data: &str,
        id: Option<PositionToken>,
        is_first: bool,
        out: &mut Output,
    ) -> Result<(), String> {
        let may_be_first = matches!(name, "subscribed" | "recovered" | "disconnect");
        if is_first && !may_be_first {
            return Err("it comes before the first event".to_owned());
        }
        match name {
            "message" => return self.handle_publication(parse(data)?, id, out),
            "subscribed" | "recovered" if is_first => {
                return self.begin(parse(data)?, id, name == "recovered", out);
            }
            "subscribed" => {
                let Begun { client: None, recovered: None, channels, .. } = parse(data)? else {
                    return Err("a first event for the second time".to_owned());
                };
                for (channel, state) in channels {
                    self.gain(channel, &state, None, false, out)?;
                }
            }
            "join" | "leave" => {
                let Movement { channel, info: Who { client, .. } } = parse(data)?;
                self.require_subscribed(&channel)?;
                out.events.push(match name {
                    "join" => Event::Join { channel, client },
                    _ => Event::Leave { channel, client },
                });
            }
            "unsubscribe" => {
                let Unsubscribe { channel, code, .. } = parse(data)?;
                self.require_subscribed(&channel)?;
                self.channels.retain(|known| *known != channel);
                self.seen.remove(&channel);
                out.events.push(Event::Unsubscribed { channel, code });
            }
            "disconnect" => {
                let Disconnect { code, reason, reconnect } = parse(data)?;
                out.events.push(Event::Told { code, text: reason });
                if reconnect {
                    // The browser does so by itself when the stream ends.
                    self.end(Phase::Told);
                } else {
                    self.hang_up(HangUp::Told { code, reconnect: false }, out);
                }
            }
            _ => return Err("there is no such event".to_owned()),
        }
        // On a stream of several channels whatever all subscribers share has an id before it.
        id.map_or(Ok(()), |id| self.require_named(&id))
    }

    /// The first event: what is subscribed, and what of it was recovered.
    fn begin(
        &mut self,
        begun: Begun,
        id: Option<PositionToken>,
        is_recovery: bool,
        out: &mut Output,
    ) -> Result<(), String> {
        let client = begun.client.ok_or("the first event names no client")?;
        let is_resumed = begun.resumed == Some(true);
        if let Some(session) = begun.session.filter(|session| !session.is_empty()) {
            out.events.push(Event::Session { session, resumed: is_resumed });
        }
        out.events.push(Event::Connected { client });
        if is_recovery != begun.recovered.is_some() {
            return Err("recovered is not what the event's name says".to_owned());
        }
        let all = begun.channels.values().all(|state| state.recovered != Some(false));
        // Something that belongs to no channel may be lost, too.
        if begun.recovered == Some(true) && !all || begun.recovered == Some(false) && all && !is_resumed {
            return Err("recovered is not what the channels say".to_owned());
        }
        for Wanted { channel, .. } in &self.settings.channels {
            let state =
                begun.channels.get(channel).ok_or(format!("{channel:?} is not among the channels"))?;
            if state.recovered.is_some() != self.asked.is_some() && !is_resumed {
                return Err(format!("{channel:?}: recovery is not what was asked"));
            }
        }
        self.channels.clear();
        self.seen = PositionToken::default();
        for (channel, state) in begun.channels {
            // What a session without a link kept of a channel without positions is given to its client.
            let is_kept = is_resumed && id.as_ref().is_none_or(|id| id.get(&channel).is_none());
            self.gain(channel, &state, id.as_ref(), is_kept, out)?;
        }
        self.require_named(&id.unwrap_or_default())
    }

    /// A channel begins. Where it stands is said by the event, or by its id if it was recovered.
    fn gain(
        &mut self,
        channel: String,
        state: &ChannelState,
        id: Option<&PositionToken>,
        is_kept: bool,
        out: &mut Output,
    ) -> Result<(), String> {
        let position = match (state.recovered, state.offset, &state.epoch) {
            (Some(true), None, None) => id.and_then(|id| id.get(&channel)),
            (_, Some(offset), Some(epoch)) => Some(Position { offset, epoch: Epoch::parse(epoch) }),
            (_, None, None) => None,
            _ => return Err(format!("{channel:?}: half a position")),
        };
        if state.recovered == Some(true) && position.is_none() && !is_kept {
            return Err(format!("{channel:?}: recovered, but the id does not say from where"));
        }
        if self.channels.contains(&channel) {
            return Err(format!("{channel:?} is subscribed already"));
        }
        if let Some(position) = position {
            self.seen.set(&channel, position);
        }
        self.channels.push(channel.clone());
        out.events.push(Event::Subscribed {
            since: state.recovered.and(self.asked.as_ref()).and_then(|asked| asked.get(&channel)).map(told),
            channel,
            position: position.map(told),
            was_recovering: state.recovered.is_some(),
            recovered: state.recovered == Some(true),
            filter: None,
            publications: Vec::new(),
        });
        Ok(())
    }

    fn handle_publication(
        &mut self,
        publication: Publication<'_>,
        id: Option<PositionToken>,
        out: &mut Output,
    ) -> Result<(), String> {
        let Publication { channel, data, offset, .. } = publication;
        let Some(channel) = channel else {
            out.events.push(Event::Message { data: data.get().to_owned() });
            // Nothing changes about where the page stands.
            return id.map_or(Ok(()), |id| self.require_named(&id));
        };
        self.require_subscribed(&channel)?;
        let position = self.seen.get(&channel);
        match (position, &id) {
            (Some(position), Some(id)) => {
                if offset == 0 {
                    return Err("a publication without an offset in a channel with positions".to_owned());
                }
                // The epoch is the id's to tell: it may be another one, and the checks want to know.
                let epoch = id.get(&channel).map_or(position.epoch, |named| named.epoch);
                self.seen.set(&channel, Position { offset, epoch });
                self.require_named(id)?;
            }
            (Some(_), None) => return Err("a publication with a position but without an id".to_owned()),
            (None, Some(id)) => self.require_named(id)?,
            (None, None) => {}
        }
        let heard = Heard {
            offset: Some(offset).filter(|offset| *offset != 0),
            epoch: self.seen.get(&channel).map(|position| position.epoch.to_string()),
            data: data.get().to_owned(),
        };
        out.events.push(Event::Publication { channel, heard });
        Ok(())
    }

    fn require_subscribed(&self, channel: &str) -> Result<(), String> {
        match self.channels.iter().any(|known| known == channel) {
            true => Ok(()),
            false => Err(format!("{channel:?} is not subscribed")),
        }
    }

    /// An id must say where the reader stands in every channel: no less, and no more than it read.
    fn require_named(&self, id: &PositionToken) -> Result<(), String> {
        for (channel, seen) in self.seen.iter() {
            if id.get(channel) != Some(seen) {
                let named = id.get(channel).map(told);
                return Err(format!(
                    "the id says {named:?} of {channel:?}, which was read to {:?}",
                    told(seen)
                ));
            }
        }
        match id.iter().find(|(channel, _)| self.seen.get(channel).is_none()) {
            Some((channel, _)) => Err(format!("the id names {channel:?}, which has no position here")),
            None => Ok(()),
        }
    }
}

/// A position as events of the simulator tell it.
pub(super) fn told(position: Position) -> (u64, String) {
    (position.offset, position.epoch.to_string())
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, String> {
    serde_json::from_str(data).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begun {
    client: Option<String>,
    session: Option<String>,
    resumed: Option<bool>,
    recovered: Option<bool>,
    channels: BTreeMap<String, ChannelState>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelState {
    recovered: Option<bool>,
    #[serde(rename = "publications")]
    _publications: Option<u64>,
    offset: Option<u64>,
    epoch: Option<String>,
    #[serde(rename = "recoverable")]
    _recoverable: Option<bool>,
    #[serde(rename = "data")]
    _data: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Publication<'a> {
    channel: Option<String>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    offset: u64,
    #[serde(rename = "tags", default)]
    _tags: BTreeMap<String, String>,
    #[serde(rename = "info")]
    _info: Option<Who>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Movement {
    channel: String,
    info: Who,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Who {
    #[serde(rename = "user")]
    _user: String,
    client: String,
    #[serde(rename = "conn_info")]
    _conn_info: Option<Box<RawValue>>,
    #[serde(rename = "chan_info")]
    _chan_info: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unsubscribe {
    channel: String,
    code: u32,
    #[serde(rename = "reason", default)]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    code: u32,
    reason: String,
    reconnect: bool,
}
