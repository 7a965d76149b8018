//! Whether a user gets what was published: whole, in order, once, or is told that it does not.

use super::Counts;
use crate::client::Wanted;
use crate::client::{Event, Heard, Reply};
use crate::model::Model;
use crate::trace::Promise;
use crate::workload::Plan;
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

type Judged = Result<(), (Promise, String)>;

impl Reader {
    pub(super) fn disconnected(&mut self) {
        self.connection = None;
        self.subscribed.clear();
    }

    pub(super) fn wants(&mut self, channel: &str, is_wanted: bool) {
        if is_wanted {
            self.unwanted.remove(channel);
        } else {
            self.unwanted.insert(channel.to_owned());
            self.subscribed.remove(channel);
        }
    }

    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        self.subscribed.contains(channel)
    }

    /// Whether it is connected, subscribed to all that it wants, and has seen all there is.
    pub(super) fn is_whole(
        &self,
        wanted: &[Wanted],
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
            if cursor != top {
                return Err(format!("stands at {cursor:?} in {channel}, which has come to {top:?}"));
            }
        }
        Ok(())
    }

    /// Judges what the user is told.
    pub(super) fn handle(&mut self, event: &Event, truth: &Truth<'_>, counts: &mut Counts) -> Judged {
        match event {
            Event::Subscribed { channel, position, was_recovering, recovered, since, publications } => {
                self.subscribed.insert(channel.clone());
                // Without offsets nothing is promised beyond one subscription, but all that follows.
                let next = truth.model.lock().next_place(channel);
                self.first_places.insert(channel.clone(), next);
                self.places.remove(channel);
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
                self.begin(channel, told, *was_recovering, *recovered, since.as_ref(), truth, counts)?;
                publications.iter().try_for_each(|heard| self.hear(channel, heard, truth, counts))
            }
            Event::Publication { channel, heard } => self.hear(channel, heard, truth, counts),
            Event::Unsubscribed { channel, code } => {
                self.subscribed.remove(channel);
                if *code == 0 {
                    // It was the server's, which the connection that came back does not bring.
                    self.unwanted.insert(channel.clone());
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
                (Some(before), Some(_)) => self.judge_refusal(channel, before, truth),
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
    fn judge_refusal(&self, channel: &str, before: Position, truth: &Truth<'_>) -> Judged {
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
        let bytes: usize = of_all
            .flat_map(|(channel, cursor, top)| missed(channel, cursor, top))
            .map(|record| record.data.len() + ENVELOPE_BYTES)
            .sum();
        let missed = missed(channel, before, top);
        let is_old = |at: Instant| at + options.history_ttl < truth.now + EXPIRY_MARGIN;
        if bytes > truth.plan.config.client.max_outbox_bytes / 4
            || missed.iter().any(|record| is_old(record.at))
        {
            return Ok(());
        }
        let what = format!(
            "{channel}: refused to recover from {before:?}, and history reached from there to {top:?}"
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
        let Some(cursor) = self.cursors.get_mut(channel) else {
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
        let promise = if offset <= cursor.offset { Promise::NotTwice } else { Promise::NoGap };
        if offset != cursor.offset + 1 {
            return Err((promise, format!("{channel}: offset {offset} after {cursor:?}")));
        }
        cursor.offset = offset;
        same(channel, cursor.epoch, offset, heard, truth)
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
