//! Whether a user gets what was published: whole, in order, once, or is told that it does not.

use super::Counts;
use crate::client::choice::Choice;
use crate::client::{Event, Heard, Reply, Wanted};
use crate::model::Model;
use crate::trace::Promise;
use crate::workload::Plan;
use longwire::config::RecoveryMode;
use longwire_protocol::message::unsubscribe;
use longwire_protocol::{Epoch, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How much earlier than its time a publication may count as expired: it takes a while to be asked for.
const EXPIRY_MARGIN: Duration = Duration::from_secs(8);

/// About how many bytes a publication takes beside its payload, as servers reckon.
const ENVELOPE_BYTES: usize = 160;

/// What a user was told so far.
#[derive(Default)]
pub(super) struct Reader {
    /// It returns to a session that may have gained channels meanwhile, of which it knows nothing.
    has_name: bool,
    /// Its connection, if it has one.
    pub(super) connection: Option<SocketAddr>,
    /// Up to which place the first publication of a subscription without offsets must lie.
    first_places: BTreeMap<String, usize>,
    subscribed: BTreeSet<String>,
    unwanted: BTreeSet<String>,
    /// Where it truly stands, which need not be where it believes to stand.
    cursors: BTreeMap<String, Position>,
    /// The place behind the last one in a channel without offsets.
    places: BTreeMap<String, usize>,
    /// What it wants of a channel, if not everything.
    choices: BTreeMap<String, Choice>,
    /// About how many bytes it was given back at this moment: subscriptions that return with one answer.
    given_back: Option<(Instant, usize)>,
}

/// What events are judged by.
pub(super) struct Truth<'a> {
    pub(super) plan: &'a Plan,
    pub(super) model: &'a Model,
    pub(super) now: Instant,
    /// Whether a delivery may have been doubled on its way to a server.
    pub(super) may_double: bool,
    /// Whether one may have been lost there.
    pub(super) may_lose: bool,
}

impl Truth<'_> {
    /// Whether a recovery of the channel brings the newest publication alone.
    fn recovers_newest(&self, channel: &str) -> bool {
        let options = self.plan.config.channel_options(channel);
        options.is_some_and(|options| options.force_recovery_mode == RecoveryMode::Cache)
    }
}

type Judged = Result<(), (Promise, String)>;

impl Reader {
    /// Somebody who was told nothing.
    pub(super) fn new(has_name: bool) -> Reader {
        Reader { has_name, ..Reader::default() }
    }

    pub(super) fn disconnected(&mut self) {
        self.connection = None;
        self.subscribed.clear();
    }

    /// It is about to be told what it is subscribed to.
    pub(super) fn is_welcomed(&mut self) {
        self.subscribed.clear();
    }

    /// Its session is another one: nothing of what was kept for it is left.
    pub(super) fn begins_anew(&mut self) {
        self.places.clear();
        self.first_places.clear();
    }

    pub(super) fn wants(&mut self, channel: &str, is_wanted: bool) {
        if is_wanted {
            self.unwanted.remove(channel);
        } else {
            self.unwanted.insert(channel.to_owned());
            self.subscribed.remove(channel);
        }
    }

    /// It gave a channel up; what the server subscribed it to goes on.
    pub(super) fn gives_up(&mut self, channel: &str) {
        self.unwanted.insert(channel.to_owned());
    }

    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        self.subscribed.contains(channel)
    }

    /// Whether it is connected, subscribed to all that it wants, and has seen all there is for it.
    pub(super) fn is_whole(
        &self,
        wanted: &[Wanted],
        model: &Model,
        tops: &BTreeMap<&String, Option<Position>>,
    ) -> Result<(), String> {
        if self.connection.is_none() {
            return Err("is not connected".into());
        }
        for Wanted { channel, .. } in wanted.iter().filter(|wanted| !self.unwanted.contains(&wanted.channel))
        {
            if !self.subscribed.contains(channel) {
                return Err(format!("wants {channel} and is not subscribed to it"));
            }
        }
        for channel in &self.subscribed {
            let (Some(Some(top)), Some(cursor)) = (tops.get(channel), self.cursors.get(channel)) else {
                continue;
            };
            let is_at_end = cursor.epoch == top.epoch
                && cursor.offset <= top.offset
                && self.first_unwanted_gap(channel, *cursor, top.offset + 1, model).is_none();
            if !is_at_end {
                return Err(format!("stands at {cursor:?} in {channel}, which has come to {top:?}"));
            }
        }
        Ok(())
    }

    /// The first offset between the cursor and `end` that the user has not seen and wanted.
    fn first_unwanted_gap(&self, channel: &str, cursor: Position, end: u64, model: &Model) -> Option<u64> {
        let (choice, truth) = (self.choices.get(channel), model.lock());
        (cursor.offset + 1..end).find(|offset| {
            let record = truth.record(channel, cursor.epoch, *offset);
            choice.zip(record).is_none_or(|(choice, record)| choice.takes(&record.tags))
        })
    }

    /// Judges what the user is told.
    pub(super) fn handle(&mut self, event: &Event, truth: &Truth<'_>, counts: &mut Counts) -> Judged {
        match event {
            Event::Subscribed {
                channel,
                position,
                was_recovering,
                recovered,
                since,
                filter,
                publications,
            } => {
                self.subscribed.insert(channel.clone());
                match filter {
                    Some(choice) => drop(self.choices.insert(channel.clone(), choice.clone())),
                    None => drop(self.choices.remove(channel)),
                }
                // Without offsets nothing is promised beyond one subscription, but all that follows: unless the session
                // was kept, and with it what came.
                if position.is_some() || !recovered || !self.first_places.contains_key(channel) {
                    let next = truth.model.lock().next_place(channel);
                    self.first_places.insert(channel.clone(), next);
                    self.places.remove(channel);
                }
                let Some((offset, epoch)) = position else {
                    // Where there is history, every subscription of these settings has a position.
                    let options = truth.plan.config.channel_options(channel);
                    return match options.is_some_and(|options| options.force_positioning) {
                        true => {
                            Err((Promise::WellFormed, format!("{channel}: subscribed without a position")))
                        }
                        false => Ok(()),
                    };
                };
                let told = Position { offset: *offset, epoch: Epoch::parse(epoch) };
                if *recovered && truth.recovers_newest(channel) {
                    return self.begin_with_newest(channel, told, publications, truth, counts);
                }
                self.begin(channel, told, *was_recovering, *recovered, since.as_ref(), truth, counts)?;
                let before = self.given_back.filter(|(at, _)| *at == truth.now).map_or(0, |(_, bytes)| bytes);
                let bytes: usize = publications.iter().map(|heard| heard.data.len() + ENVELOPE_BYTES).sum();
                self.given_back = Some((truth.now, before + bytes));
                publications.iter().try_for_each(|heard| self.hear(channel, heard, truth, counts))
            }
            Event::Publication { channel, heard } => self.hear(channel, heard, truth, counts),
            Event::Unsubscribed { channel, code } => {
                self.subscribed.remove(channel);
                self.first_places.remove(channel);
                self.places.remove(channel);
                if *code == 0 {
                    // It was the server's, which the connection that came back does not bring.
                    self.unwanted.insert(channel.clone());
                    self.cursors.remove(channel);
                }
                if *code == unsubscribe::INSUFFICIENT_STATE.0 && !truth.may_lose {
                    return Err((
                        Promise::Cause,
                        format!("{channel}: insufficient state, and nothing was lost"),
                    ));
                }
                Ok(())
            }
            Event::Replied { what: Reply::History { publications, top }, asked, .. } => {
                let crate::client::Action::History(channel) = asked else { return Ok(()) };
                let epoch = Epoch::parse(&top.1);
                for heard in publications {
                    same(channel, epoch, heard.offset.unwrap_or(0), heard, truth)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Judges a recovery that brings the newest publication, unless the user has it.
    fn begin_with_newest(
        &mut self,
        channel: &str,
        told: Position,
        publications: &[Heard],
        truth: &Truth<'_>,
        counts: &mut Counts,
    ) -> Judged {
        counts.recovered += 1;
        let before = self.cursors.insert(channel.to_owned(), told);
        match publications {
            [] if before == Some(told) || self.has_name && before.is_none() => Ok(()),
            // It follows as an event of its own.
            [] if truth.model.lock().record(channel, told.epoch, told.offset + 1).is_some() => Ok(()),
            [newest] if newest.offset == Some(told.offset) => {
                same(channel, told.epoch, told.offset, newest, truth)
            }
            other => {
                let what =
                    format!("{channel}: the newest of {told:?} is said to be {other:?}, seen {before:?}");
                Err((Promise::Recovery, what))
            }
        }
    }

    /// Judges how a subscription with positions begins.
    #[expect(clippy::too_many_arguments, reason = "these are the fields of one event")]
    fn begin(
        &mut self,
        channel: &str,
        told: Position,
        was_recovering: bool,
        recovered: bool,
        since: Option<&(u64, String)>,
        truth: &Truth<'_>,
        counts: &mut Counts,
    ) -> Judged {
        let before = self.cursors.get(channel).copied();
        let judged =
            self.judge_beginning(channel, before, told, was_recovering, recovered, since, truth, counts);
        self.cursors.insert(channel.to_owned(), told);
        judged
    }

    #[expect(clippy::too_many_arguments, reason = "these are the fields of one event")]
    fn judge_beginning(
        &self,
        channel: &str,
        before: Option<Position>,
        told: Position,
        was_recovering: bool,
        recovered: bool,
        since: Option<&(u64, String)>,
        truth: &Truth<'_>,
        counts: &mut Counts,
    ) -> Judged {
        if recovered {
            counts.recovered += 1;
            match before {
                Some(before) if before == told => Ok(()),
                // It goes on with its own subscription, in whose place there was one of the server's.
                None if since.is_some_and(|(offset, epoch)| {
                    (*offset, Epoch::parse(epoch)) == (told.offset, told.epoch)
                }) =>
                {
                    Ok(())
                }
                _ if self.has_name && since.is_none() => Ok(()),
                // It knew no epoch because nothing had been published.
                Some(before) if before.offset == 0 && told.offset == 0 => Ok(()),
                before => {
                    let what = format!("{channel}: recovered from {told:?}, and it has seen {before:?}");
                    Err((Promise::Recovery, what))
                }
            }
        } else if was_recovering {
            counts.unrecovered += 1;
            match (before, since) {
                (Some(before), Some(_)) => self.judge_refusal(channel, before, told, truth),
                // The client forgot where it stood.
                _ => Ok(()),
            }
        } else if since.is_some() {
            Err((
                Promise::Recovery,
                format!("{channel}: asked to recover from {since:?} and was not told how it went"),
            ))
        } else {
            Ok(())
        }
    }

    /// Judges whether a recovery was refused without need.
    fn judge_refusal(&self, channel: &str, before: Position, told: Position, truth: &Truth<'_>) -> Judged {
        let model = truth.model.lock();
        let (Some(top), Some(options)) = (model.top(channel), truth.plan.config.channel_options(channel))
        else {
            return Ok(());
        };
        let most = options.history_size.min(truth.plan.config.client.max_recovery_publications) as u64;
        if before.epoch != top.epoch || top.offset - before.offset > most {
            return Ok(());
        }
        let missed = |channel: &str, before: Position, top: Position| -> Vec<crate::model::Record> {
            let offsets = before.offset + 1..=top.offset;
            offsets.filter_map(|offset| model.record(channel, top.epoch, offset).cloned()).collect()
        };
        // Half an outbox is for all that return together and what is published meanwhile: less is never refused.
        let of_all =
            self.cursors.iter().filter_map(|(channel, cursor)| Some((channel, *cursor, model.top(channel)?)));
        let given_back = self.given_back.filter(|(at, _)| *at == truth.now).map_or(0, |(_, bytes)| bytes);
        let waiting: usize = of_all
            .flat_map(|(channel, cursor, top)| missed(channel, cursor, top))
            .map(|record| record.data.len() + ENVELOPE_BYTES)
            .sum();
        let bytes = given_back + waiting;
        let missed = missed(channel, before, top);
        let is_old = |at: Instant| at + options.history_ttl < truth.now + EXPIRY_MARGIN;
        let newest = model.record(channel, told.epoch, told.offset);
        let newest_is_gone = newest.is_none_or(|record| is_old(record.at));
        if truth.recovers_newest(channel) && newest_is_gone {
            return Ok(());
        }
        if bytes > truth.plan.config.client.max_outbox_bytes / 4
            || missed.iter().any(|record| is_old(record.at))
        {
            return Ok(());
        }
        let what = format!(
            "{channel}: refused to recover from {before:?}, and history reached from there to {top:?} ({bytes} \
             bytes of all channels)"
        );
        Err((Promise::Recovery, what))
    }

    /// Judges one publication.
    fn hear(&mut self, channel: &str, heard: &Heard, truth: &Truth<'_>, counts: &mut Counts) -> Judged {
        counts.heard += 1;
        if !self.subscribed.contains(channel) && !self.unwanted.contains(channel) {
            return Err((
                Promise::WellFormed,
                format!("a publication in {channel}, which is not subscribed"),
            ));
        }
        let Some(offset) = heard.offset.filter(|offset| *offset > 0) else {
            return self.hear_unnumbered(channel, heard, truth);
        };
        let Some(cursor) = self.cursors.get(channel).copied() else {
            return Err((
                Promise::WellFormed,
                format!("{channel}: offset {offset} without a position before"),
            ));
        };
        if let Some(epoch) = &heard.epoch
            && Epoch::parse(epoch) != cursor.epoch
        {
            return Err((Promise::NoGap, format!("{channel}: epoch {epoch} after {cursor:?}")));
        }
        if offset <= cursor.offset {
            return Err((Promise::NotTwice, format!("{channel}: offset {offset} after {cursor:?}")));
        }
        if let Some(missing) = self.first_unwanted_gap(channel, cursor, offset, truth.model) {
            let what = format!("{channel}: offset {offset} after {cursor:?}, and {missing} is missing");
            return Err((Promise::NoGap, what));
        }
        self.cursors.insert(channel.to_owned(), Position { offset, ..cursor });
        same(channel, cursor.epoch, offset, heard, truth)?;
        let is_wanted = self.choices.get(channel).is_none_or(|choice| {
            let truth = truth.model.lock();
            truth.record(channel, cursor.epoch, offset).is_none_or(|record| choice.takes(&record.tags))
        });
        match is_wanted {
            true => Ok(()),
            false => Err((Promise::Chosen, format!("{channel}: offset {offset} is none that was asked for"))),
        }
    }

    fn hear_unnumbered(&mut self, channel: &str, heard: &Heard, truth: &Truth<'_>) -> Judged {
        let Some(place) = truth.model.lock().place(channel, &heard.data) else {
            return Err((Promise::Order, format!("{channel}: nobody published {}", heard.data)));
        };
        // What was published before the client was told of its subscription may come or not.
        let first = self.first_places.get(channel).copied().unwrap_or(0);
        let next = self.places.insert(channel.to_owned(), place + 1).unwrap_or(0);
        let what = format!("{channel}: the publication {place}, expected {next}, all from {first} on");
        if place > next.max(first) && !truth.may_lose {
            Err((Promise::NoGap, what))
        } else if place + 1 == next && !truth.may_double {
            Err((Promise::NotTwice, what))
        } else if place + 1 < next {
            Err((Promise::Order, what))
        } else {
            Ok(())
        }
    }
}

/// Judges whether a publication says what was published there.
fn same(channel: &str, epoch: Epoch, offset: u64, heard: &Heard, truth: &Truth<'_>) -> Judged {
    match truth.model.lock().record(channel, epoch, offset) {
        Some(record) if record.data == heard.data => Ok(()),
        record => {
            let what = format!("{channel}: {offset} of {epoch} says {}, truly {record:?}", heard.data);
            Err((Promise::Order, what))
        }
    }
}
