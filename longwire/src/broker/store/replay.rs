//! What the journal tells of the channels of an earlier process.
//!
//! A plain struct: it takes the records in their order and makes histories of them. Records of one numbering may come
//! in any order and more than once, because what is still needed is written again when its segment is released; what
//! counts is the newest standing, and each publication once. What must stay true: a history that is made is one
//! contiguous run that ends at its top, and keeps its epoch only if nothing of it can be missing.

use super::Wall;
use super::record::{Record, Standing};
use crate::history::{History, State};
use longwire_protocol::{Epoch, Publication};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was read until here.
#[derive(Debug, Default)]
pub(super) struct Table {
    channels: BTreeMap<Arc<str>, Found>,
    /// The last record, if a process wrote it that came to its end.
    last: Option<Stop>,
    /// The latest time that is told of, by the clock of the process that last came to its end.
    latest_ms: i64,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) time_ms: i64,
    pub(super) mark_born: u64,
}

#[derive(Debug)]
struct Found {
    standing: Standing,
    publications: BTreeMap<u64, (i64, Arc<Publication>)>,
}

impl Table {
    /// Takes the next record.
    pub(super) fn take(&mut self, record: Record) {
        self.last = None;
        match record {
            Record::Channel(channel, standing, publication) => {
                let found = self.channels.entry(channel).or_insert_with(|| Found::new(&standing));
                found.take(standing, publication);
            }
            Record::Gone(channel) => drop(self.channels.remove(&channel)),
            Record::Opened { time_ms, fresh } => {
                self.latest_ms = self.latest_ms.max(time_ms);
                if let Some(epoch) = fresh {
                    self.renew(epoch);
                }
            }
            Record::Stopped { time_ms, mark_born } => {
                // A clock that was ahead when some process began may have been set right since then.
                self.latest_ms = time_ms;
                self.last = Some(Stop { time_ms, mark_born });
            }
        }
    }

    /// Takes note of a record that nobody could read.
    pub(super) fn skip(&mut self) {
        self.last = None;
    }

    /// How the last process ended, if it came to its end.
    pub(super) fn stopped(&self) -> Option<Stop> {
        self.last
    }

    /// The latest time that is told of by the last process that came to its end, and by those after it, in milliseconds
    /// since 1970.
    pub(super) fn latest_ms(&self) -> i64 {
        self.latest_ms
    }

    /// Gives all channels an epoch that nobody has seen: what came last may be missing.
    pub(super) fn renew(&mut self, epoch: Epoch) {
        for found in self.channels.values_mut() {
            found.standing.epoch = epoch;
            // Numbers that were lost are given again; nobody can take them for the lost ones.
            if let Some(newest) = found.run().next_back()
                && newest < found.standing.top
            {
                (found.standing.top, found.standing.version) = (newest, None);
            }
        }
    }

    /// Makes histories of what was read; `spare` is the epoch of those that lack something all the same. `longest` says
    /// how long a channel's publications, and then its position, may be kept from here on: what was written by a clock
    /// that was ahead is not kept until that time comes.
    pub(super) fn histories(
        self,
        wall: &Wall,
        spare: Epoch,
        longest: impl Fn(&str) -> (Duration, Duration),
    ) -> impl Iterator<Item = (Arc<str>, History)> {
        let wall = *wall;
        self.channels.into_iter().filter_map(move |(channel, found)| {
            let history = found.history(&wall, spare, longest(&channel))?;
            Some((channel, history))
        })
    }
}

impl Found {
    fn new(standing: &Standing) -> Found {
        Found { standing: standing.clone(), publications: BTreeMap::new() }
    }

    fn take(&mut self, standing: Standing, publication: Option<(i64, Publication)>) {
        if standing.epoch != self.standing.epoch {
            // The channel was forgotten, and began anew.
            *self = Found::new(&standing);
        }
        let Standing { top, first, forgotten_ms, version, .. } = standing;
        let own = &mut self.standing;
        if top >= own.top {
            (own.top, own.version) = (top, version);
        }
        own.forgotten_ms = own.forgotten_ms.max(forgotten_ms);
        if first > own.first {
            own.first = first;
            self.publications = self.publications.split_off(&first);
        }
        if let Some((expires_ms, publication)) = publication
            && publication.offset >= self.standing.first
        {
            self.publications.insert(publication.offset, (expires_ms, Arc::new(publication)));
        }
    }

    /// The numbers of the contiguous run that ends with the newest publication.
    fn run(&self) -> std::ops::Range<u64> {
        let Some(newest) = self.publications.last_key_value().map(|(offset, _)| *offset) else { return 0..0 };
        let numbers = self.publications.keys().rev();
        let length =
            numbers.zip(0..).take_while(|(offset, back)| newest.checked_sub(*back) == Some(**offset));
        newest - (length.count() as u64 - 1)..newest + 1
    }

    fn history(
        mut self,
        wall: &Wall,
        spare: Epoch,
        (ttl, meta_ttl): (Duration, Duration),
    ) -> Option<History> {
        let now = wall.now;
        let run = self.run();
        let Standing { mut epoch, mut top, forgotten_ms, mut version, .. } = self.standing;
        if !run.is_empty() && run.end != top + 1 {
            // What was published last is not there, or what is there was never accounted for.
            (epoch, top, version) = (spare, run.end - 1, None);
        }
        let retained = run.filter_map(|offset| self.publications.remove(&offset));
        let retained =
            retained.map(|(expires_ms, publication)| (wall.instant(expires_ms).min(now + ttl), publication));
        let retained: VecDeque<(Instant, _)> = retained.skip_while(|(expiry, _)| *expiry <= now).collect();
        let forgotten_at = wall.instant(forgotten_ms).min(now + meta_ttl);
        let state = State { epoch, top, first: 0, forgotten_at, version };
        let mut history = History::restored(now, state, retained);
        (!history.expire(now)).then_some(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Version;

    const LONG: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

    const SPARE: &str = "sparespa";

    fn wall() -> Wall {
        Wall { now: Instant::now(), unix_ms: 1000 }
    }

    fn standing(epoch: &str, first: u64, top: u64) -> Standing {
        Standing { epoch: Epoch::parse(epoch), top, first, forgotten_ms: 9000, version: None }
    }

    fn publication(epoch: &str, first: u64, top: u64, offset: u64) -> Record {
        let publication = Publication {
            offset,
            data: format!("{offset}").into(),
            info: None,
            tags: Vec::new(),
            except: None,
            is_json: true,
        };
        Record::Channel("a".into(), standing(epoch, first, top), Some((2000 + offset as i64, publication)))
    }

    fn channel(epoch: &str, first: u64, top: u64) -> Record {
        Record::Channel("a".into(), standing(epoch, first, top), None)
    }

    /// Epoch, top and retained offsets of the only channel.
    fn read_at(wall: &Wall, records: Vec<Record>) -> Option<(String, u64, Vec<u64>)> {
        let mut table = Table::default();
        records.into_iter().for_each(|record| table.take(record));
        let mut histories: Vec<_> = table.histories(wall, Epoch::parse(SPARE), |_| LONG).collect();
        let (_, history) = histories.pop()?;
        let state = history.state();
        let retained = (1..=state.top).filter(|offset| history.retained(*offset).is_some()).collect();
        Some((state.epoch.to_string(), state.top, retained))
    }

    fn read(records: Vec<Record>) -> Option<(String, u64, Vec<u64>)> {
        read_at(&wall(), records)
    }

    fn found(epoch: &str, top: u64, retained: &[u64]) -> Option<(String, u64, Vec<u64>)> {
        Some((epoch.into(), top, retained.to_vec()))
    }

    #[test]
    fn records_of_one_numbering_may_come_in_any_order_and_twice() {
        let e = "aaaaaaaa";
        let records = [1, 2, 3, 4].map(|offset| publication(e, 1, offset, offset));
        assert_eq!(read(records.to_vec()), found(e, 4, &[1, 2, 3, 4]));
        let again = records.iter().cloned().chain([publication(e, 1, 4, 2), channel(e, 1, 4)]).collect();
        assert_eq!(read(again), found(e, 4, &[1, 2, 3, 4]));
        let moved = [3, 4, 1, 2].map(|offset| publication(e, 1, offset, offset)).to_vec();
        assert_eq!(read(moved), found(e, 4, &[1, 2, 3, 4]));
    }

    #[test]
    fn what_was_cleared_or_given_up_stays_away_whatever_is_read_after_it() {
        let e = "aaaaaaaa";
        let records =
            vec![publication(e, 1, 1, 1), publication(e, 1, 2, 2), channel(e, 3, 2), publication(e, 1, 2, 2)];
        assert_eq!(read(records.clone()), found(e, 2, &[]));
        let more = records.into_iter().chain([publication(e, 3, 3, 3)]).collect();
        assert_eq!(read(more), found(e, 3, &[3]));
    }

    #[test]
    fn a_channel_that_began_anew_has_nothing_of_the_one_before() {
        let records = vec![
            publication("aaaaaaaa", 1, 1, 1),
            publication("aaaaaaaa", 1, 2, 2),
            channel("bbbbbbbb", 1, 0),
        ];
        assert_eq!(read(records.clone()), found("bbbbbbbb", 0, &[]));
        let more = records.into_iter().chain([publication("bbbbbbbb", 1, 1, 1)]).collect();
        assert_eq!(read(more), found("bbbbbbbb", 1, &[1]));
    }

    #[test]
    fn a_fresh_epoch_goes_on_from_what_is_there() {
        let e = "aaaaaaaa";
        let fresh = Record::Opened { time_ms: 5, fresh: Some(Epoch::parse("ffffffff")) };
        let records = vec![publication(e, 1, 1, 1), channel(e, 1, 7), fresh.clone()];
        assert_eq!(
            read(records),
            found("ffffffff", 1, &[1]),
            "2 to 7 were lost, and their numbers are given again"
        );
        assert_eq!(read(vec![channel(e, 8, 7), fresh]), found("ffffffff", 7, &[]));
        let same = Record::Opened { time_ms: 5, fresh: None };
        assert_eq!(read(vec![publication(e, 1, 1, 1), same]), found(e, 1, &[1]));
    }

    #[test]
    fn a_hole_costs_the_epoch_and_what_is_before_it() {
        let e = "aaaaaaaa";
        let hole = vec![publication(e, 1, 1, 1), publication(e, 1, 3, 3)];
        assert_eq!(read(hole), found(e, 3, &[3]), "the run ends at the top: nothing is missing behind it");
        let short = vec![publication(e, 1, 1, 1), channel(e, 1, 2)];
        assert_eq!(read(short), found(SPARE, 1, &[1]));
    }

    #[test]
    fn what_is_past_its_time_is_forgotten() {
        let e = "aaaaaaaa";
        let records: Vec<_> = (1..=3).map(|offset| publication(e, 1, offset, offset)).collect();
        let at = |unix_ms| Wall { now: Instant::now() + Duration::from_secs(60), unix_ms };
        assert_eq!(read_at(&at(2002), records.clone()), found(e, 3, &[3]));
        assert_eq!(read_at(&at(2003), records.clone()), found(e, 3, &[]), "the numbering lasts longer");
        assert_eq!(read_at(&at(9000), records), None);
    }

    #[test]
    fn a_version_is_that_of_the_newest_publication() {
        let versioned = |top, number| {
            let version = Version { number, epoch: "v".into() };
            let standing = Standing { version: Some(Box::new(version)), ..standing("aaaaaaaa", 1, top) };
            Record::Channel("a".into(), standing, None)
        };
        let mut table = Table::default();
        [versioned(2, 9), versioned(1, 5)].into_iter().for_each(|record| table.take(record));
        let (_, history) = table.histories(&wall(), Epoch::parse(SPARE), |_| LONG).next().expect("a channel");
        assert_eq!(history.state().version.map(|version| version.number), Some(9));
    }

    #[test]
    fn only_the_very_last_record_says_that_a_process_came_to_its_end() {
        let mut table = Table::default();
        assert_eq!(table.stopped(), None);
        table.take(Record::Stopped { time_ms: 8, mark_born: 1 });
        assert_eq!((table.stopped(), table.latest_ms()), (Some(Stop { time_ms: 8, mark_born: 1 }), 8));
        table.take(Record::Opened { time_ms: 9, fresh: None });
        assert_eq!((table.stopped(), table.latest_ms()), (None, 9));
        table.take(Record::Stopped { time_ms: 8, mark_born: 1 });
        table.skip();
        assert_eq!(table.stopped(), None);
    }
}
