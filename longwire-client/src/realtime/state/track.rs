//! Where one subscription stands in its channel: what is next, what is missing, what comes as a difference.
//!
//! The same for subscriptions that the program began and for those of the server. It is told what the server says, and
//! says what the reader is to hear. What must stay true: a reader hears no offset twice and none that is lower than one
//! before; whatever may be missing is announced before anything newer.

use crate::realtime::event::{Event, Position, Publication, Subscribed};
use bytes::Bytes;
use longwire_protocol::centrifuge::client::{self, Since, SubscribeResult};
use longwire_protocol::position::{self, Continuity, Epoch, continuity};
use std::sync::Arc;

/// What a publication means for a subscription.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The reader gets it.
    Next(Publication),
    /// It was had before.
    Duplicate,
    /// Something is missing, or the difference fits to nothing: subscribe again from where everything was seen.
    Missing,
}

/// Where one subscription stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Up to where the reader was told everything; `None` in a channel without history.
    position: Option<Position>,
    /// Where it stood when its position lost its meaning.
    invalidated: Option<Position>,
    /// The reader has, or had elsewhere, something before: what is missing since is told.
    has_past: bool,
    /// It was subscribed by this client before.
    was_subscribed: bool,
    /// Offsets that are left out mean nothing: the server leaves out what is not for this client, and watches itself that
    /// nothing else is.
    passes_gaps: bool,
    /// A gap was seen since the last time.
    suspects: bool,
    /// Data comes as strings, whole or as differences.
    is_delta: bool,
    /// What the next difference is to.
    base: Bytes,
}

impl Track {
    /// A subscription that begins where `since` says. One with a filter does not get every offset.
    pub(super) fn new(since: Option<Position>, is_filtered: bool) -> Track {
        Track { has_past: since.is_some(), position: since, passes_gaps: is_filtered, ..Track::default() }
    }

    pub(super) fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// What to tell the server, to get what was missed.
    pub(super) fn since(&self) -> Option<Since<'_>> {
        self.position.as_ref().map(|position| Since { offset: position.offset, epoch: &position.epoch })
    }

    /// Offsets that are left out mean nothing from here on: the server watches them itself.
    pub(super) fn pass_gaps(&mut self) {
        self.passes_gaps = true;
    }

    /// The server says that what this client knows means nothing any more.
    pub(super) fn invalidate(&mut self) {
        if let Some(position) = self.position.take() {
            self.invalidated = Some(position);
        }
        self.base = Bytes::new();
    }

    /// The server confirmed the subscription; gives what the reader hears, or false if something in it fits to nothing.
    pub(super) fn begin(
        &mut self,
        result: SubscribeResult,
        max_bytes: usize,
        events: &mut Vec<Event>,
    ) -> bool {
        let is_invalidated = self.position.is_none() && self.invalidated.is_some();
        let from = self.position.take().or_else(|| self.invalidated.take());
        let epoch = match &from {
            Some(from) if *from.epoch == *result.epoch => from.epoch.clone(),
            _ => Arc::from(&*result.epoch),
        };
        let to = (!epoch.is_empty()).then(|| Position { offset: result.offset, epoch: epoch.clone() });
        self.invalidated = None;
        self.is_delta = result.delta;
        self.base = Bytes::new();
        events.push(Event::Subscribed(Subscribed {
            position: to.clone(),
            again: std::mem::replace(&mut self.was_subscribed, true),
            recoverable: result.recoverable,
            delta: result.delta,
            data: result.data,
        }));
        let has_past = std::mem::replace(&mut self.has_past, true);
        let suspects = std::mem::take(&mut self.suspects);
        self.position = to.clone();
        if !result.recovered {
            if has_past && !is_invalidated && from.is_some() && from == to {
                events.push(Event::Recovered { publications: 0 });
            } else if has_past {
                events.push(Event::NotRecovered { from, to });
            }
            return true;
        }
        let (seen, mut is_whole) =
            (from.filter(|from| from.epoch == epoch).map_or(0, |from| from.offset), true);
        let mut missed = Vec::with_capacity(result.publications.len());
        for publication in result.publications {
            let Some(publication) = self.publication(publication, Arc::clone(&epoch), max_bytes) else {
                is_whole = false;
                break;
            };
            if publication.offset == 0 || publication.offset > seen {
                missed.push(Event::Publication(publication));
            }
        }
        // What was thought to be missing is not there even now: it was never for this client.
        let first = missed.first().map(|event| match event {
            Event::Publication(publication) => publication.offset,
            _ => 0,
        });
        self.passes_gaps |= suspects && is_whole && first != Some(seen + 1);
        // Of one that is cut short the rest is asked for again, and what was recovered is told then.
        if has_past && is_whole {
            events.push(Event::Recovered { publications: missed.len() });
        }
        for event in &missed {
            if let (Event::Publication(publication), Some(position)) = (event, &mut self.position) {
                position.offset = position.offset.max(publication.offset);
            }
        }
        events.append(&mut missed);
        is_whole
    }

    /// Judges a publication that came.
    pub(super) fn next(&mut self, publication: client::Publication, max_bytes: usize) -> Verdict {
        let mut epoch = None;
        if let Some(seen) = self.position.as_ref().filter(|_| publication.offset > 0) {
            // A push says no epoch: it is that of its subscription.
            let at = |offset| position::Position { offset, epoch: Epoch::FOREIGN };
            match continuity(&at(seen.offset), &at(publication.offset)) {
                Continuity::Next => {}
                Continuity::Duplicate => return Verdict::Duplicate,
                Continuity::Gap | Continuity::OtherEpoch if self.passes_gaps => {}
                Continuity::Gap | Continuity::OtherEpoch => {
                    self.suspects = true;
                    return Verdict::Missing;
                }
            }
            epoch = Some(seen.epoch.clone());
        }
        let has_position = epoch.is_some();
        let epoch = epoch.unwrap_or_else(|| Arc::clone(no_epoch()));
        let Some(publication) = self.publication(publication, epoch, max_bytes) else {
            return Verdict::Missing;
        };
        if let Some(position) = self.position.as_mut().filter(|_| has_position) {
            position.offset = publication.offset;
        }
        Verdict::Next(publication)
    }

    fn publication(
        &mut self,
        publication: client::Publication,
        epoch: Arc<str>,
        max_bytes: usize,
    ) -> Option<Publication> {
        let data = if self.is_delta {
            let data = client::resolve(&publication, &self.base, max_bytes).ok();
            self.base = data.clone().unwrap_or_default();
            data?
        } else {
            publication.data
        };
        let client::Publication { offset, tags, info, .. } = publication;
        Some(Publication { offset, epoch, data, tags, info })
    }
}

/// The epoch of what has none.
fn no_epoch() -> &'static Arc<str> {
    static NONE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| Arc::from(""));
    &NONE
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::fossil;

    const MAX: usize = 1 << 20;

    fn at(offset: u64, epoch: &str) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    fn publication(offset: u64) -> client::Publication {
        client::Publication { offset, data: "1".into(), ..client::Publication::default() }
    }

    fn result(offset: u64, epoch: &'static str) -> SubscribeResult {
        SubscribeResult { recoverable: true, offset, epoch: epoch.into(), ..SubscribeResult::default() }
    }

    fn recovered(offset: u64, epoch: &'static str, offsets: &[u64]) -> SubscribeResult {
        let publications = offsets.iter().copied().map(publication).collect();
        SubscribeResult { recovered: true, was_recovering: true, publications, ..result(offset, epoch) }
    }

    /// What the reader hears, without the confirmation.
    fn begin(track: &mut Track, result: SubscribeResult) -> Vec<Event> {
        let mut events = Vec::new();
        assert!(track.begin(result, MAX, &mut events));
        assert!(matches!(events.remove(0), Event::Subscribed(_)));
        events
    }

    fn offsets(events: &[Event]) -> Vec<u64> {
        let offset = |event: &Event| match event {
            Event::Publication(publication) => Some(publication.offset),
            _ => None,
        };
        events.iter().filter_map(offset).collect()
    }

    #[test]
    fn what_was_missed_is_brought_once_and_in_order() {
        let mut track = Track::new(None, false);
        assert_eq!(begin(&mut track, result(5, "abcd")), []);
        assert!(matches!(track.next(publication(6), MAX), Verdict::Next(_)));
        let events = begin(&mut track, recovered(6, "abcd", &[6, 7, 8]));
        assert_eq!(events[0], Event::Recovered { publications: 2 });
        assert_eq!(offsets(&events), [7, 8]);
        assert_eq!(track.position(), Some(&at(8, "abcd")));
        assert!(matches!(track.next(publication(8), MAX), Verdict::Duplicate));
        assert!(matches!(track.next(publication(9), MAX), Verdict::Next(_)));
    }

    #[test]
    fn what_cannot_be_brought_is_announced() {
        let mut track = Track::new(Some(at(3, "abcd")), false);
        let events = begin(&mut track, result(2, "wxyz"));
        assert_eq!(events, [Event::NotRecovered { from: Some(at(3, "abcd")), to: Some(at(2, "wxyz")) }]);
        assert!(matches!(track.next(publication(3), MAX), Verdict::Next(_)));
    }

    #[test]
    fn nothing_is_missing_where_the_channel_stands_still() {
        let mut track = Track::new(Some(at(3, "abcd")), false);
        assert_eq!(begin(&mut track, result(3, "abcd")), [Event::Recovered { publications: 0 }]);
    }

    #[test]
    fn a_break_in_a_channel_without_history_is_announced_but_the_beginning_is_not() {
        let mut track = Track::new(None, false);
        assert_eq!(begin(&mut track, SubscribeResult::default()), []);
        assert!(matches!(track.next(publication(0), MAX), Verdict::Next(_)));
        assert_eq!(
            begin(&mut track, SubscribeResult::default()),
            [Event::NotRecovered { from: None, to: None }]
        );
    }

    #[test]
    fn an_invalidated_position_is_not_asked_for_but_its_loss_is_told() {
        let mut track = Track::new(None, false);
        begin(&mut track, result(5, "abcd"));
        track.invalidate();
        assert_eq!(track.since(), None);
        assert_eq!(
            begin(&mut track, result(9, "abcd")),
            [Event::NotRecovered { from: Some(at(5, "abcd")), to: Some(at(9, "abcd")) }]
        );
    }

    #[test]
    fn a_gap_is_asked_about_once_and_believed_if_the_server_does_not_fill_it() {
        let mut track = Track::new(None, false);
        begin(&mut track, result(5, "abcd"));
        assert!(matches!(track.next(publication(8), MAX), Verdict::Missing));
        assert_eq!(track.since(), Some(Since { offset: 5, epoch: "abcd" }));
        // 6 and 7 were for others.
        assert_eq!(offsets(&begin(&mut track, recovered(5, "abcd", &[8]))), [8]);
        assert!(matches!(track.next(publication(11), MAX), Verdict::Next(_)));
    }

    #[test]
    fn a_gap_that_the_server_fills_leaves_the_next_one_suspect() {
        let mut track = Track::new(None, false);
        begin(&mut track, result(5, "abcd"));
        assert!(matches!(track.next(publication(7), MAX), Verdict::Missing));
        assert_eq!(offsets(&begin(&mut track, recovered(5, "abcd", &[6, 7]))), [6, 7]);
        assert!(matches!(track.next(publication(9), MAX), Verdict::Missing));
    }

    #[test]
    fn a_filter_leaves_offsets_out() {
        let mut track = Track::new(None, true);
        begin(&mut track, result(5, "abcd"));
        assert!(matches!(track.next(publication(9), MAX), Verdict::Next(_)));
        assert!(matches!(track.next(publication(9), MAX), Verdict::Duplicate));
    }

    fn text(data: &str, offset: u64, base: Option<&str>) -> client::Publication {
        let text = match base {
            Some(base) => String::from_utf8(fossil::create(base.as_bytes(), data.as_bytes())).unwrap(),
            None => data.to_owned(),
        };
        let data = serde_json::to_vec(&text).unwrap();
        client::Publication {
            offset,
            data: data.into(),
            delta: base.is_some(),
            ..client::Publication::default()
        }
    }

    #[test]
    fn differences_are_applied_and_one_that_fits_to_nothing_is_asked_for_again() {
        let mut track = Track::new(None, false);
        let (a, b) = (r#"{"price":1.2345,"pair":"EURUSD"}"#, r#"{"price":1.2346,"pair":"EURUSD"}"#);
        let shifted = format!("[[{a}");
        begin(&mut track, SubscribeResult { delta: true, ..result(0, "abcd") });
        for (data, offset, base) in [(a, 1, None), (b, 2, Some(a))] {
            let Verdict::Next(publication) = track.next(text(data, offset, base), MAX) else {
                panic!("{data}")
            };
            assert_eq!(publication.data, data);
        }
        assert!(matches!(track.next(text(a, 3, Some(&shifted)), MAX), Verdict::Missing));
        assert_eq!(track.since(), Some(Since { offset: 2, epoch: "abcd" }));
        // Of what was missed the first is whole again.
        let publications = vec![text(a, 3, None), text(b, 4, Some(a))];
        let events = begin(
            &mut track,
            SubscribeResult { delta: true, recovered: true, publications, ..result(2, "abcd") },
        );
        assert_eq!(offsets(&events), [3, 4]);
        assert!(matches!(&events[2], Event::Publication(publication) if publication.data == b));
    }

    #[test]
    fn what_is_whole_of_a_broken_recovery_is_kept() {
        let mut track = Track::new(Some(at(1, "abcd")), false);
        let whole = r#"{"price":1.2345,"pair":"EURUSD"}"#;
        let shifted = format!("[[{whole}");
        let publications = vec![text(whole, 2, None), text(whole, 3, Some(&shifted))];
        let mut events = Vec::new();
        let result = SubscribeResult { delta: true, recovered: true, publications, ..result(1, "abcd") };
        assert!(!track.begin(result, MAX, &mut events));
        assert_eq!(offsets(&events), [2]);
        assert!(!events.iter().any(|event| matches!(event, Event::Recovered { .. })));
        assert_eq!(track.since(), Some(Since { offset: 2, epoch: "abcd" }));
    }
}
