//! What a subscription that begins somewhere is given: pure functions over history and live buffer.
//!
//! The subscription joins the hub first, so that live publications fall into a buffer, and reads history
//! second. Here the two become one contiguous run, or an honest "not recovered". What must stay true: never
//! a partial recovery, nothing twice, nothing out of order.

use crate::delivery::{Delivery, What};
use crate::history::{Page, Part};
use longwire_protocol::flaw::{self, Flaw};
use longwire_protocol::message::{ClientId, ClientInfo};
use longwire_protocol::message::{Reply, SubscribeResult};
use longwire_protocol::{Continuity, Position, Publication, Since, continuity};
use std::sync::Arc;

/// How a subscription begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Everything that was missed is in `publications`. False if recovery was not asked for.
    pub recovered: bool,
    /// What was missed, oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// What the client is told: on recovery its own position, otherwise the newest.
    pub told: Position,
    /// Up to where the client has seen everything once it read the publications.
    pub seen: Position,
}

/// Which part of history is needed to begin at `since`: one more than may be recovered, so that too much
/// can be told from just enough.
pub fn needed(since: Option<Since>, max_publications: usize) -> Part {
    let limit = if since.is_some() { max_publications.saturating_add(1) } else { 0 };
    Part { since, limit, reverse: false }
}

/// Decides how a subscription begins, given what [`needed`] brought; more than `max_bytes` on the wire is too
/// much.
pub fn start(since: Option<Since>, page: Page, max_publications: usize, max_bytes: usize) -> Start {
    let Page { publications, top } = page;
    let bytes = wire_bytes(&publications);
    let recovered = bytes <= max_bytes
        && since.is_some_and(|since| is_complete(&since, &publications, &top, max_publications));
    match since {
        Some(since) if recovered => {
            let told = Position { offset: since.offset, epoch: top.epoch };
            Start { recovered, publications, told, seen: top }
        }
        _ => Start { recovered: false, publications: Vec::new(), told: top, seen: top },
    }
}

/// Which part of history is needed to begin with the newest publication.
pub fn newest() -> Part {
    Part { since: None, limit: 1, reverse: true }
}

/// Decides how a subscription begins that wants nothing but the newest publication: `since` is what the client
/// has, if it says so. It is recovered if that publication is there, and not sent what it has.
pub fn start_with_newest(since: Option<Since>, page: Page, max_bytes: usize) -> Start {
    let Page { mut publications, top } = page;
    let recovered = publications.first().is_some_and(|newest| newest.offset == top.offset)
        && wire_bytes(&publications) <= max_bytes;
    let has_it = since.is_some_and(|since| since.offset == top.offset && since.epoch == Some(top.epoch));
    if !recovered || has_it {
        publications.clear();
    }
    Start { recovered, publications, told: top, seen: top }
}

/// About how many bytes a publication takes beside its payload: envelope, channel, position.
pub const ENVELOPE_BYTES: usize = 160;

/// About how many bytes publications will take on the wire.
pub fn wire_bytes(publications: &[Arc<Publication>]) -> usize {
    let of_info = |info: &ClientInfo| info.conn_info.len() + info.chan_info.len();
    let of_tags =
        |tags: &[(String, String)]| tags.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let bytes = |publication: &Arc<Publication>| {
        let Publication { data, info, tags, .. } = &**publication;
        ENVELOPE_BYTES + data.len() + info.as_deref().map_or(0, of_info) + of_tags(tags)
    };
    publications.iter().map(bytes).sum()
}

fn is_complete(since: &Since, publications: &[Arc<Publication>], top: &Position, max: usize) -> bool {
    let is_other_epoch = since.epoch.is_some_and(|epoch| epoch != top.epoch);
    if is_other_epoch && !flaw::is_on(Flaw::EpochIgnored) {
        return false;
    }
    if flaw::is_on(Flaw::RecoveryAssumed) {
        return true;
    }
    if publications.len() > max {
        return false;
    }
    match (publications.first(), publications.last()) {
        (Some(first), Some(last)) => {
            let is_contiguous = publications.windows(2).all(|pair| pair[1].offset == pair[0].offset + 1);
            first.offset == since.offset + 1 && last.offset == top.offset && is_contiguous
        }
        _ => since.offset == top.offset,
    }
}

/// Whether a publication is meant for a client: the publisher may have left it out.
pub fn is_for(publication: &Publication, user: &str, client: ClientId) -> bool {
    publication.except.as_ref().is_none_or(|except| !except.covers(user, client))
}

/// Whether a delivery is next for a subscription that stands at `seen`, which is advanced if so.
///
/// What has no position, and every delivery to a subscription that watches none, is next.
pub fn follows(seen: &mut Option<Position>, delivery: &Delivery) -> Continuity {
    let (Some(seen), Some(next), What::Publication(_)) = (seen, &delivery.position, &delivery.what) else {
        return Continuity::Next;
    };
    let verdict = continuity(seen, next);
    if verdict == Continuity::Next {
        *seen = *next;
    }
    verdict
}

/// The publications that a reply brings, with their channels where these are known.
pub(super) fn reply_publications(reply: &Reply) -> impl Iterator<Item = (&str, &Arc<Publication>)> {
    let (subs, publications): (&[(String, SubscribeResult)], &[Arc<Publication>]) = match reply {
        Reply::Connect(result) => (&result.subs, &[]),
        Reply::Subscribe(result) => (&[], &result.publications),
        Reply::History { publications, .. } => (&[], publications),
        _ => (&[], &[]),
    };
    let brought = subs.iter().flat_map(|(channel, result)| {
        result.publications.iter().map(move |publication| (channel.as_str(), publication))
    });
    brought.chain(publications.iter().map(|publication| ("", publication)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longwire_protocol::Epoch;
    use proptest::prelude::*;

    fn epoch() -> Epoch {
        Epoch::parse("abcdefgh")
    }

    fn publication(offset: u64) -> Arc<Publication> {
        Arc::new(Publication {
            offset,
            data: "1".into(),
            info: None,
            tags: Vec::new(),
            except: None,
            is_json: true,
        })
    }

    fn delivery(offset: u64) -> Arc<Delivery> {
        let position = Position { offset, epoch: epoch() };
        Arc::new(Delivery::new("c".into(), What::Publication(publication(offset)), Some(position)))
    }

    /// A history that keeps `kept` publications up to `top`, asked for what came after `since`.
    fn page(since: Option<Since>, kept: u64, top: u64, max: usize) -> Page {
        let part = needed(since, max);
        let after = since.map_or(0, |since| since.offset);
        let publications =
            (top - kept + 1..=top).filter(|o| *o > after).take(part.limit).map(publication).collect();
        Page { publications, top: Position { offset: top, epoch: epoch() } }
    }

    fn since(offset: u64) -> Option<Since> {
        Some(Since { offset, epoch: Some(epoch()) })
    }

    fn offsets(start: &Start) -> Vec<u64> {
        start.publications.iter().map(|p| p.offset).collect()
    }

    #[test]
    fn a_reader_that_missed_nothing_or_a_little_is_recovered() {
        let nothing = start(since(7), page(since(7), 5, 7, 10), 10, usize::MAX);
        assert_eq!((nothing.recovered, offsets(&nothing), nothing.told.offset), (true, vec![], 7));
        let little = start(since(5), page(since(5), 5, 7, 10), 10, usize::MAX);
        assert_eq!((little.recovered, offsets(&little)), (true, vec![6, 7]));
        assert_eq!((little.told.offset, little.seen.offset), (5, 7));
    }

    #[test]
    fn a_reader_that_missed_too_much_is_told_and_given_nothing() {
        for (from, kept, top, max) in [(1, 3, 7, 10), (1, 10, 20, 10), (9, 3, 7, 10), (0, 0, 7, 10)] {
            let start = start(since(from), page(since(from), kept, top, max), max, usize::MAX);
            assert_eq!((start.recovered, offsets(&start), start.told.offset), (false, vec![], top), "{from}");
        }
    }

    #[test]
    fn more_bytes_than_one_reply_may_bring_are_not_recovered() {
        let two = || page(since(5), 5, 7, 10);
        let bytes = wire_bytes(&two().publications);
        assert!(start(since(5), two(), 10, bytes).recovered);
        let too_much = start(since(5), two(), 10, bytes - 1);
        assert_eq!((too_much.recovered, too_much.publications.len()), (false, 0));
    }

    #[test]
    fn another_epoch_is_never_recovered_and_an_unknown_one_is_taken_on_trust() {
        let other = Some(Since { offset: 5, epoch: Some(Epoch::parse("zzzzzzzz")) });
        assert!(!start(other, page(other, 5, 7, 10), 10, usize::MAX).recovered);
        let unknown = Some(Since { offset: 5, epoch: None });
        assert!(start(unknown, page(unknown, 5, 7, 10), 10, usize::MAX).recovered);
    }

    #[test]
    fn the_newest_publication_is_sent_unless_the_client_has_it_or_it_is_gone() {
        let page = |kept: u64| Page {
            publications: (0..kept.min(1)).map(|_| publication(7)).collect(),
            top: Position { offset: 7, epoch: epoch() },
        };
        for (has, kept, recovered, sent) in [
            (None, 1, true, vec![7]),
            (since(3), 1, true, vec![7]),
            (since(7), 1, true, vec![]),
            (Some(Since { offset: 7, epoch: Some(Epoch::parse("zzzzzzzz")) }), 1, true, vec![7]),
            (since(3), 0, false, vec![]),
        ] {
            let start = start_with_newest(has, page(kept), usize::MAX);
            assert_eq!(
                (start.recovered, offsets(&start), start.told.offset),
                (recovered, sent, 7),
                "{has:?}"
            );
        }
        assert!(!start_with_newest(None, page(1), 10).recovered, "too large to send");
    }

    #[test]
    fn a_gap_between_history_and_buffer_is_noticed() {
        let mut seen = Some(Position { offset: 7, epoch: epoch() });
        assert_eq!(follows(&mut seen, &delivery(7)), Continuity::Duplicate);
        assert_eq!(follows(&mut seen, &delivery(9)), Continuity::Gap);
    }

    proptest! {
        /// Whatever was kept, missed and buffered: either every missed offset exactly once and in order, or
        /// nothing and `recovered: false`.
        #[test]
        fn recovery_is_whole_or_refused(
            top in 1u64..60, kept in 0u64..60, from in 0u64..70, max in 0usize..30, early in 0u64..10, late in 0u64..10,
        ) {
            let kept = kept.min(top);
            let start = start(since(from), page(since(from), kept, top, max), max, usize::MAX);
            let mut seen = Some(start.seen);
            let first_buffered = top.saturating_sub(early) + 1;
            let mut got = offsets(&start);
            for delivery in (first_buffered..=top + late).map(delivery) {
                match follows(&mut seen, &delivery) {
                    Continuity::Next => got.push(delivery.position.unwrap().offset),
                    verdict => prop_assert_eq!(verdict, Continuity::Duplicate),
                }
            }
            let first = if start.recovered { from + 1 } else { top + 1 };
            prop_assert_eq!(got, (first..=top + late).collect::<Vec<_>>());
            let missed = (top as i64) - (from as i64);
            let should = missed == 0 || missed > 0 && missed as u64 <= kept && missed as usize <= max;
            prop_assert_eq!(start.recovered, should);
        }
    }
}
