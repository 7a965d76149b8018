//! What the JSON objects of the plain dialect mean, and what must be true of each.
//!
//! Their form is read strictly: a member that longwire does not write is an error. What must stay true: the client
//! stands where the last id of each channel says, and nowhere else.

use super::{Carrier, Plain};
use crate::client::{Event, HangUp, Heard, Output};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// Any object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    client: Option<String>,
    session: Option<String>,
    #[serde(default)]
    resumed: bool,
    recovered: Option<bool>,
    channels: Option<BTreeMap<String, ChannelState>>,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "b64data")]
    _b64data: Option<String>,
    #[serde(default)]
    offset: u64,
    #[serde(rename = "epoch")]
    _epoch: Option<String>,
    id: Option<String>,
    #[serde(rename = "tags")]
    _tags: Option<BTreeMap<String, String>>,
    info: Option<Who>,
    #[serde(default)]
    code: u32,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    reconnect: bool,
    #[serde(rename = "recoverable")]
    _recoverable: Option<bool>,
    #[serde(rename = "temporary")]
    _temporary: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelState {
    id: Option<String>,
    recovered: Option<bool>,
    publications: Option<u64>,
    offset: Option<u64>,
    epoch: Option<String>,
}

#[derive(Deserialize)]
struct Who {
    client: String,
}

/// The answer to a poll.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Polled<'a> {
    client: String,
    session: Option<String>,
    #[serde(default)]
    resumed: bool,
    recovered: Option<bool>,
    name: String,
    since: Option<String>,
    #[serde(borrow)]
    publications: Vec<&'a RawValue>,
}

impl Plain {
    /// Takes an object that came by itself.
    pub(super) fn handle_object(&mut self, text: &str, out: &mut Output) -> Result<(), String> {
        self.take(text, out)
            .map_err(|what| format!("{what}, in {}", text.chars().take(300).collect::<String>()))
    }

    fn take(&mut self, text: &str, out: &mut Output) -> Result<(), String> {
        let object: Object<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let is_first = !self.is_welcome && !matches!(self.carrier, Carrier::Poll(_));
        let kind = object.kind.clone();
        match kind.as_deref() {
            Some("disconnect") => {
                out.events.push(Event::Told { code: object.code, text: object.reason });
                let told = HangUp::Told { code: object.code, reconnect: object.reconnect };
                self.hang_up(told, out);
                Ok(())
            }
            Some("subscribed" | "recovered") if is_first => {
                self.begin(kind.as_deref() == Some("recovered"), object, out)
            }
            _ if is_first => Err("it comes before the welcome".into()),
            None => self.handle_publication(object, out),
            Some("subscribe") => {
                let channel = object.channel.ok_or("no channel")?;
                let position = object.id.as_deref().map(|id| position(&channel, id)).transpose()?;
                self.gain(&channel, position, None, None, out)
            }
            Some("join" | "leave") => {
                let channel = object.channel.ok_or("no channel")?;
                self.require_subscribed(&channel)?;
                let client = object.info.ok_or("nobody")?.client;
                out.events.push(match kind.as_deref() {
                    Some("join") => Event::Join { channel, client },
                    _ => Event::Leave { channel, client },
                });
                Ok(())
            }
            Some("unsubscribe") => {
                let channel = object.channel.ok_or("no channel")?;
                self.require_subscribed(&channel)?;
                self.channels.remove(&channel);
                self.ids.remove(&channel);
                self.brought.remove(&channel);
                out.events.push(Event::Unsubscribed { channel, code: object.code });
                Ok(())
            }
            _ => Err("there is no such object".into()),
        }
    }

    /// The welcome: what is subscribed, and what of it was recovered.
    fn begin(&mut self, is_recovery: bool, object: Object<'_>, out: &mut Output) -> Result<(), String> {
        let channels = object.channels.ok_or("no channels")?;
        if is_recovery != object.recovered.is_some() {
            return Err("recovered is not what the type says".into());
        }
        let all = channels.values().all(|state| state.recovered != Some(false));
        // Something that belongs to no channel may be lost, too.
        if object.recovered == Some(true) && !all {
            return Err("recovered is not what the channels say".into());
        }
        self.welcome(object.client.ok_or("no client")?, object.session, object.resumed, out);
        for wanted in &self.settings.channels {
            let state = channels.get(&wanted.channel);
            let state = state.ok_or(format!("{:?} is not among the channels", wanted.channel))?;
            if self.asked.is_some() && state.recovered.is_none() {
                return Err(format!("{:?}: recovery is not what was asked", wanted.channel));
            }
        }
        self.ids.clear();
        let mut token: Vec<String> = Vec::new();
        for (channel, state) in channels {
            let ChannelState { id, recovered, publications, offset, epoch } = state;
            let stands = id.as_deref().map(|id| position(&channel, id)).transpose()?;
            if publications.is_some() != (recovered == Some(true)) {
                return Err(format!("{channel:?}: it is said how many publications follow, or not"));
            }
            let told = offset.zip(epoch);
            if recovered != Some(true) && told != stands {
                return Err(format!("{channel:?}: at {told:?}, and its id says {stands:?}"));
            }
            token.extend(id);
            self.gain(&channel, stands, recovered, self.since_of(&channel), out)?;
        }
        let mut named: Vec<String> =
            object.id.iter().flat_map(|id| id.split(',')).map(str::to_owned).collect();
        named.sort_unstable();
        token.sort_unstable();
        match named == token {
            true => Ok(()),
            false => Err(format!("the id names {named:?}, the channels {token:?}")),
        }
    }

    fn welcome(&mut self, client: String, session: Option<String>, resumed: bool, out: &mut Output) {
        self.is_welcome = true;
        self.failures = 0;
        self.session = session.unwrap_or_default();
        self.proof.clone_from(&self.session);
        out.events.push(Event::Session { session: self.session.clone(), resumed });
        if self.client != client {
            self.brought.clear();
        }
        self.client.clone_from(&client);
        out.events.push(Event::Connected { client });
    }

    /// Where the client said that it stands in a channel.
    fn since_of(&self, channel: &str) -> Option<(u64, String)> {
        let id = self.asked.as_ref()?.get(channel)?;
        let (offset, epoch) = id.split_once('.')?;
        Some((offset.parse().ok()?, epoch.to_owned()))
    }

    /// A channel begins, or goes on.
    fn gain(
        &mut self,
        channel: &str,
        position: Option<(u64, String)>,
        recovered: Option<bool>,
        since: Option<(u64, String)>,
        out: &mut Output,
    ) -> Result<(), String> {
        if !self.channels.insert(channel.to_owned()) {
            return Err(format!("{channel:?} is subscribed already"));
        }
        if position.is_none() {
            self.brought.insert(channel.to_owned());
        }
        if let Some((offset, epoch)) = &position {
            self.ids.insert(channel.to_owned(), format!("{offset}.{epoch}"));
        }
        out.events.push(Event::Subscribed {
            channel: channel.to_owned(),
            position,
            was_recovering: recovered.is_some(),
            recovered: recovered == Some(true),
            since: recovered.and(since),
            filter: None,
            publications: Vec::new(),
        });
        Ok(())
    }

    fn handle_publication(&mut self, object: Object<'_>, out: &mut Output) -> Result<(), String> {
        let data = object.data.ok_or("no data that is JSON")?.get().to_owned();
        let Some(channel) = object.channel else {
            out.events.push(Event::Message { data });
            return Ok(());
        };
        self.require_subscribed(&channel)?;
        let heard = match object.id.as_deref().map(|id| position(&channel, id)).transpose()? {
            Some((offset, epoch)) => {
                if offset != object.offset || offset == 0 {
                    return Err("the id does not say the offset".into());
                }
                self.ids.insert(channel.clone(), format!("{offset}.{epoch}"));
                Heard { offset: Some(offset), epoch: Some(epoch), data }
            }
            None if object.offset != 0 || self.ids.contains_key(&channel) => {
                return Err("a publication with a position but without an id".into());
            }
            None => Heard { offset: None, epoch: None, data },
        };
        out.events.push(Event::Publication { channel, heard });
        Ok(())
    }

    fn require_subscribed(&self, channel: &str) -> Result<(), String> {
        match self.channels.contains(channel) {
            true => Ok(()),
            false => Err(format!("{channel:?} is not subscribed")),
        }
    }

    /// Takes the answer to a poll. It does not say which channels are subscribed, nor of which one something was lost:
    /// what was asked for is, and where the ids do not follow upon what was asked something was.
    pub(super) fn handle_answer(&mut self, text: &str, out: &mut Output) -> Result<(), String> {
        let what = |what: String| format!("{what}, in {}", text.chars().take(300).collect::<String>());
        self.take_answer(text, out).map_err(what)
    }

    /// A poll was answered with nothing: the client stands where it said.
    pub(super) fn handle_silence(&mut self, out: &mut Output) -> Result<(), String> {
        self.is_welcome = true;
        self.channels.clear();
        out.events.push(Event::Session { session: self.session.clone(), resumed: true });
        // Of those that the server brought it may have taken some away again.
        let channels: Vec<String> =
            self.settings.channels.iter().map(|wanted| wanted.channel.clone()).collect();
        for channel in channels {
            let since = self.since_of(&channel);
            self.gain(&channel, since.clone(), Some(true), since, out)?;
        }
        Ok(())
    }

    fn take_answer(&mut self, text: &str, out: &mut Output) -> Result<(), String> {
        let answer: Polled<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if answer.name != self.plain.name {
            return Err(format!("it is said to come back as {:?}", answer.name));
        }
        if answer.recovered.is_none() && self.asked.is_some() {
            return Err("recovery is not what was asked".into());
        }
        let mut ends: BTreeMap<String, (u64, String)> = BTreeMap::new();
        // Which answer this is; it goes back with the positions.
        let mut number = None;
        for entry in answer.since.iter().flat_map(|since| since.split(',')) {
            let (channel, _) = entry.split_once('=').ok_or("an entry without a position")?;
            if channel.is_empty() {
                number = Some(position(channel, entry)?);
                continue;
            }
            ends.insert(channel.to_owned(), position(channel, entry)?);
        }
        let mut firsts: BTreeMap<String, (u64, String)> = BTreeMap::new();
        let (mut begun, mut spoken_of): (BTreeSet<String>, BTreeSet<String>) = Default::default();
        for piece in &answer.publications {
            let object: Object<'_> = serde_json::from_str(piece.get()).map_err(|error| error.to_string())?;
            let Some(channel) = object.channel else { continue };
            match object.kind.as_deref() {
                Some("subscribe") if !spoken_of.contains(&channel) => drop(begun.insert(channel)),
                None if !firsts.contains_key(&channel) && !begun.contains(&channel) => {
                    if let Some(id) = &object.id {
                        let (offset, epoch) = position(&channel, id)?;
                        firsts.insert(channel.clone(), (offset.saturating_sub(1), epoch));
                    }
                    spoken_of.insert(channel);
                }
                _ => drop(spoken_of.insert(channel)),
            }
        }
        self.welcome(answer.client, answer.session, answer.resumed, out);
        self.channels.clear();
        self.ids.clear();
        let wanted = self.settings.channels.iter().map(|wanted| wanted.channel.clone());
        let brought = std::mem::take(&mut self.brought);
        let named = ends.keys().cloned().chain(spoken_of).chain(wanted).chain(brought);
        let channels: BTreeSet<String> = named.collect();
        for channel in channels.into_iter().filter(|channel| !begun.contains(channel)) {
            let since = self.since_of(&channel);
            let starts = firsts.get(&channel).or(ends.get(&channel)).or(since.as_ref()).cloned();
            let recovered = match (answer.recovered, &since) {
                (None, _) => None,
                (Some(true), _) => Some(true),
                (Some(false), Some(since)) => Some(starts.as_ref() == Some(since)),
                (Some(false), None) => Some(false),
            };
            // Where it only looks lost nobody can say from where it was to be recovered.
            let since = since.filter(|_| recovered == Some(true));
            self.gain(&channel, starts, recovered, since, out)?;
        }
        for piece in answer.publications {
            self.handle_object(piece.get(), out)?;
        }
        for (channel, (offset, epoch)) in ends {
            let id = format!("{offset}.{epoch}");
            if self.ids.get(&channel).is_some_and(|stands| *stands != id) {
                return Err(format!(
                    "the answer says {id} of {channel:?}, and brought it to {:?}",
                    self.ids[&channel]
                ));
            }
            self.ids.insert(channel, id);
        }
        if let Some((number, mark)) = number {
            self.ids.insert(String::new(), format!("{number}.{mark}"));
        }
        Ok(())
    }
}

/// What an id of one channel says.
fn position(channel: &str, id: &str) -> Result<(u64, String), String> {
    let read = || {
        let (offset, epoch) = id.strip_prefix(channel)?.strip_prefix('=')?.split_once('.')?;
        (!epoch.is_empty() && !epoch.contains(',')).then_some((offset.parse().ok()?, epoch.to_owned()))
    };
    read().ok_or_else(|| format!("{id:?} is no id of {channel:?}"))
}
