//! The subscriptions of a centrifuge client: wishes and positions, which outlive connections, and what each
//! push and reply does to them.
//!
//! The positions are kept as centrifuge-js keeps them: those of the last reply, moved by every publication
//! that comes, whatever its number. What must stay true: a channel's pushes are believed only between the
//! reply that began the subscription and the end of it; what comes while an unsubscribe is not answered
//! belongs to the subscription before, and is dropped.

use super::delta::Deltas;
use super::said::{Ask, Body, Publication, Push, SubscribeResult};
use super::{Asked, Centrifuge, Format, Phase};
use crate::client::choice::Choice;
use crate::client::{Event, Output, Wanted, backoff};
use std::collections::BTreeMap;
use std::time::Instant;

/// From this code of an unsubscribe push on the client subscribes again.
const FIRST_RESUBSCRIBE_CODE: u32 = 2500;

/// "State invalidated": the position is worthless.
const STATE_INVALIDATED: u32 = 2502;

/// A subscription that the application wants, or wanted.
pub(super) struct Sub {
    wanted: Wanted,
    state: SubState,
    /// The server said once that this can be recovered.
    pub(super) recover: bool,
    pub(super) offset: u64,
    pub(super) epoch: String,
    deltas: Deltas,
    /// Unsubscribe commands without an answer.
    leaving: u32,
    /// Failed attempts since the last success.
    attempts: u32,
}

#[derive(Clone, PartialEq)]
enum SubState {
    Unsubscribed,
    /// Waits for a connection, for the answer to a command, or for the next attempt.
    Subscribing {
        command: Option<u32>,
        retry_at: Option<Instant>,
    },
    /// With the epoch of the channel, if anybody watches positions.
    Subscribed(Option<String>),
}

/// A subscription that the server began.
pub(super) struct ServerSub {
    is_recoverable: bool,
    /// The epoch, if anybody watches positions.
    watched: Option<String>,
    offset: u64,
}

impl Sub {
    pub(super) fn new(wanted: Wanted) -> Sub {
        Sub {
            wanted,
            state: SubState::Subscribing { command: None, retry_at: None },
            recover: false,
            offset: 0,
            epoch: String::new(),
            deltas: Deltas::default(),
            leaving: 0,
            attempts: 0,
        }
    }

    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.state {
            SubState::Subscribing { retry_at, .. } => retry_at,
            _ => None,
        }
    }

    pub(super) fn forget_commands(&mut self) {
        self.leaving = 0;
        if self.state != SubState::Unsubscribed {
            self.state = SubState::Subscribing { command: None, retry_at: None };
        }
    }

    /// Takes a position that no server can have: it makes the server say that something is missing.
    pub(super) fn invalidate(&mut self) {
        self.offset = 0;
        "_".clone_into(&mut self.epoch);
    }

    fn command(&self) -> Option<u32> {
        match self.state {
            SubState::Subscribing { command, .. } => command,
            _ => None,
        }
    }
}

/// Whose pushes of a channel are.
enum Owner<'a> {
    Own(&'a mut Sub, Option<String>),
    Server(&'a mut ServerSub),
    /// A subscription that was given up already.
    Before,
}

impl Centrifuge {
    /// Where the server-side subscriptions that can be recovered stand.
    pub(super) fn server_positions(&self) -> impl Iterator<Item = (String, (u64, String))> {
        let recoverable = self.server_subs.iter().filter(|(_, sub)| sub.is_recoverable);
        recoverable
            .map(|(channel, sub)| (channel.clone(), (sub.offset, sub.watched.clone().unwrap_or_default())))
    }

    /// The command that a channel's subscription needs, if it needs one.
    pub(super) fn subscribe_command(&mut self, now: Instant, channel: &str) -> Option<Vec<u8>> {
        let id = self.last_id + 1;
        let route = self.wire.route;
        let sub = self.subs.get_mut(channel)?;
        // Requests beside a stream may overtake each other: it waits for the answer to its unsubscribe.
        if route.is_emulated() && sub.leaving > 0 {
            return None;
        }
        let SubState::Subscribing { command: None, .. } = sub.state else { return None };
        sub.state = SubState::Subscribing { command: Some(id), retry_at: None };
        let since = sub.recover.then(|| (sub.offset, sub.epoch.clone()));
        let ask = Ask::Subscribe { wanted: &sub.wanted, since: since.as_ref() };
        let command = super::said::encode(route.format, Some(id), &ask);
        self.last_id = id;
        self.expect(now, id, Asked::Subscribe { channel: channel.to_owned(), since });
        Some(command)
    }

    /// The application wants a channel.
    pub(super) fn wish(&mut self, now: Instant, channel: &str, out: &mut Output) -> bool {
        let sub = self.subs.entry(channel.to_owned()).or_insert_with(|| {
            let unsubscribed = SubState::Unsubscribed;
            Sub { state: unsubscribed, ..Sub::new(Wanted::all(channel)) }
        });
        if sub.state != SubState::Unsubscribed {
            return false;
        }
        sub.state = SubState::Subscribing { command: None, retry_at: None };
        self.subscribe_if_open(now, channel, out);
        true
    }

    /// The application wants a channel no more.
    pub(super) fn lose_interest(&mut self, now: Instant, channel: &str, out: &mut Output) -> bool {
        let Some(sub) = self.subs.get_mut(channel) else { return false };
        if sub.state == SubState::Unsubscribed {
            return false;
        }
        let is_known_to_server = matches!(sub.state, SubState::Subscribed(_)) || sub.command().is_some();
        sub.state = SubState::Unsubscribed;
        let is_talking = matches!(self.phase, Phase::Connecting | Phase::Connected);
        if is_known_to_server && is_talking {
            sub.leaving += 1;
            let id = self.next_id();
            self.expect(now, id, Asked::Unsubscribe(channel.to_owned()));
            let command = self.encode(id, &Ask::Unsubscribe(channel));
            self.send(vec![command], out);
        }
        true
    }

    /// Notes that an unsubscribe command was answered.
    pub(super) fn handle_unsubscribe_answer(&mut self, now: Instant, channel: &str, out: &mut Output) {
        if let Some(sub) = self.subs.get_mut(channel) {
            sub.leaving = sub.leaving.saturating_sub(1);
            if self.wire.route.is_emulated() {
                self.subscribe_if_open(now, channel, out);
            }
        }
    }

    /// Takes the answer to the subscribe command `id`.
    pub(super) fn handle_subscribe_answer(
        &mut self,
        now: Instant,
        id: u32,
        (channel, since): (String, Option<(u64, String)>),
        body: Body,
        out: &mut Output,
    ) -> Result<(), String> {
        let format = self.wire.route.format;
        let sub = self.subs.get_mut(&channel).filter(|sub| sub.command() == Some(id));
        match (sub, body) {
            // Interest was lost meanwhile.
            (None, Body::Subscribe(_) | Body::Error(_)) => Ok(()),
            (Some(sub), Body::Subscribe(result)) => {
                check(&channel, &result, since.is_some())?;
                if result.recoverable {
                    sub.recover = true;
                    sub.offset = result.publications.last().map_or(result.offset, |last| last.offset);
                    sub.epoch.clone_from(&result.epoch);
                }
                if result.delta && !sub.wanted.delta {
                    return Err("differences that nobody asked for".to_owned());
                }
                sub.state = SubState::Subscribed(watched(&result));
                sub.attempts = 0;
                sub.deltas = Deltas::new(result.delta);
                let filter = sub.wanted.filter.clone();
                out.events.push(subscribed(channel, result, since, filter, &mut sub.deltas, format)?);
                Ok(())
            }
            (Some(sub), Body::Error(error)) => {
                sub.state = SubState::Unsubscribed;
                if error.is_passing() {
                    let retry_at = Some(now + backoff(&mut self.rng, sub.attempts));
                    sub.attempts += 1;
                    sub.state = SubState::Subscribing { command: None, retry_at };
                }
                out.events.push(Event::Refused { channel: Some(channel), code: error.code });
                Ok(())
            }
            (_, _) => Err("this does not answer subscribe".to_owned()),
        }
    }

    /// Takes the server-side subscriptions that the answer to connect brings; those it does not are over.
    pub(super) fn replace_server_subs(
        &mut self,
        since: &BTreeMap<String, (u64, String)>,
        subs: BTreeMap<String, SubscribeResult>,
        out: &mut Output,
    ) -> Result<(), String> {
        let before = std::mem::take(&mut self.server_subs);
        let gone: Vec<String> = before.into_keys().filter(|channel| !subs.contains_key(channel)).collect();
        for (channel, result) in subs {
            let since = since.get(&channel).cloned();
            check(&channel, &result, since.is_some())?;
            self.begin_server_sub(channel, result, since, out)?;
        }
        out.events.extend(gone.into_iter().map(|channel| Event::Unsubscribed { channel, code: 0 }));
        Ok(())
    }

    fn begin_server_sub(
        &mut self,
        channel: String,
        result: SubscribeResult,
        since: Option<(u64, String)>,
        out: &mut Output,
    ) -> Result<(), String> {
        if result.delta {
            return Err("differences that nobody asked for".to_owned());
        }
        let sub = ServerSub {
            is_recoverable: result.recoverable,
            watched: watched(&result),
            offset: result.publications.last().map_or(result.offset, |last| last.offset),
        };
        self.server_subs.insert(channel.clone(), sub);
        let format = self.wire.route.format;
        out.events.push(subscribed(channel, result, since, None, &mut Deltas::default(), format)?);
        Ok(())
    }

    /// Takes a push.
    pub(super) fn handle_push(
        &mut self,
        now: Instant,
        channel: String,
        push: Push,
        out: &mut Output,
    ) -> Result<(), String> {
        match push {
            Push::Subscribe(result) => {
                check(&channel, &result, false)?;
                self.begin_server_sub(channel, result, None, out)?;
            }
            Push::Connect(_) | Push::Disconnect { .. } => return Err("this is about no channel".to_owned()),
            Push::Unsubscribe(code) => self.handle_unsubscribe_push(now, channel, code, out)?,
            Push::Publication(publication) => self.handle_publication(channel, &publication, out)?,
            Push::Join(client) => {
                if !matches!(self.owner(&channel)?, Owner::Before) {
                    out.events.push(Event::Join { channel, client });
                }
            }
            Push::Leave(client) => {
                if !matches!(self.owner(&channel)?, Owner::Before) {
                    out.events.push(Event::Leave { channel, client });
                }
            }
        }
        Ok(())
    }

    fn handle_publication(
        &mut self,
        channel: String,
        publication: &Publication,
        out: &mut Output,
    ) -> Result<(), String> {
        let format = self.wire.route.format;
        let mut plain = Deltas::default();
        let (offset, epoch, deltas) = match self.owner(&channel)? {
            Owner::Before => return Ok(()),
            Owner::Own(sub, epoch) => (&mut sub.offset, epoch, &mut sub.deltas),
            Owner::Server(sub) => (&mut sub.offset, sub.watched.clone(), &mut plain),
        };
        match publication.offset {
            0 if epoch.is_some() => {
                return Err(format!("a publication without an offset in {channel:?}, which is watched"));
            }
            0 => {}
            next => *offset = next,
        }
        let heard = deltas.read(publication, epoch.as_deref(), format)?;
        out.events.push(Event::Publication { channel, heard });
        Ok(())
    }

    fn handle_unsubscribe_push(
        &mut self,
        now: Instant,
        channel: String,
        code: u32,
        out: &mut Output,
    ) -> Result<(), String> {
        let resubscribes = code >= FIRST_RESUBSCRIBE_CODE;
        match self.subs.get_mut(&channel) {
            Some(sub) if sub.leaving > 0 => return Ok(()),
            Some(sub) if matches!(sub.state, SubState::Subscribed(_)) => {
                if code == STATE_INVALIDATED {
                    sub.invalidate();
                }
                sub.state = match resubscribes {
                    true => SubState::Subscribing { command: None, retry_at: None },
                    false => SubState::Unsubscribed,
                };
            }
            // It overtook the answer to the command; one from 2500 on leaves it to the answer.
            Some(sub) if sub.command().is_some() => {
                if !resubscribes {
                    sub.state = SubState::Unsubscribed;
                }
            }
            _ if self.server_subs.remove(&channel).is_some() => {}
            _ => return Err(format!("an unsubscribe of {channel:?}, which is not subscribed")),
        }
        self.subscribe_if_open(now, &channel, out);
        out.events.push(Event::Unsubscribed { channel, code });
        Ok(())
    }

    /// Whose a push is.
    fn owner(&mut self, channel: &str) -> Result<Owner<'_>, String> {
        let mut is_leaving = false;
        if let Some(sub) = self.subs.get_mut(channel) {
            is_leaving = sub.leaving > 0;
            if let SubState::Subscribed(epoch) = &sub.state {
                let epoch = epoch.clone();
                return Ok(Owner::Own(sub, epoch));
            }
        }
        match self.server_subs.get_mut(channel) {
            Some(sub) => Ok(Owner::Server(sub)),
            None if is_leaving => Ok(Owner::Before),
            None => Err(format!("a push about {channel:?}, which is not subscribed")),
        }
    }

    fn subscribe_if_open(&mut self, now: Instant, channel: &str, out: &mut Output) {
        if matches!(self.phase, Phase::Connecting | Phase::Connected) {
            let command = self.subscribe_command(now, channel);
            self.send(command.into_iter().collect(), out);
        }
    }
}

fn check(channel: &str, result: &SubscribeResult, asked_to_recover: bool) -> Result<(), String> {
    let contradiction = result.contradiction(asked_to_recover);
    contradiction.map_or(Ok(()), |what| Err(format!("the subscription of {channel:?}: {what}")))
}

/// The epoch of the numbers that follow, if anybody watches them.
fn watched(result: &SubscribeResult) -> Option<String> {
    result.position().map(|(_, epoch)| epoch)
}

fn subscribed(
    channel: String,
    result: SubscribeResult,
    since: Option<(u64, String)>,
    filter: Option<Choice>,
    deltas: &mut Deltas,
    format: Format,
) -> Result<Event, String> {
    let position = result.position();
    let epoch = watched(&result);
    let publications =
        result.publications.iter().map(|publication| deltas.read(publication, epoch.as_deref(), format));
    Ok(Event::Subscribed {
        channel,
        position,
        was_recovering: result.was_recovering,
        recovered: result.recovered,
        since,
        filter,
        publications: publications.collect::<Result<_, _>>()?,
    })
}
