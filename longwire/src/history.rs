//! What one channel remembers: its epoch, the number of its newest publication, and a bounded ring.
//!
//! A plain struct: time comes in as an argument, and who keeps it, behind which lock, is the broker's
//! business. What must stay true: offsets grow by one and are never reused within an epoch, and the ring
//! holds a contiguous run that ends at the top.

use longwire_protocol::{Epoch, Position, Publication, Since};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The memory of one channel.
#[derive(Debug)]
pub struct History {
    epoch: Epoch,
    top: u64,
    retained: VecDeque<(Instant, Arc<Publication>)>,
    /// When the position itself is forgotten.
    forgotten_at: Instant,
    /// How long it lasts from its last use.
    lasting: Duration,
    /// The newest version, where the publisher says which.
    version: Option<Box<Version>>,
}

/// Which state of the publisher's data a publication tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Grows with every state.
    pub number: u64,
    /// Numbers of different epochs say nothing about each other.
    pub epoch: Box<str>,
}

/// How much a channel remembers, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Publications kept.
    pub size: usize,
    /// Time a publication is kept.
    pub ttl: Duration,
    /// Time the position is kept after the last use.
    pub meta_ttl: Duration,
    /// Keep it beyond the life of the process, where the broker can.
    pub is_on_disk: bool,
}

/// Everything about a channel's memory but its publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Identity of the numbering.
    pub epoch: Epoch,
    /// The number of the newest publication.
    pub top: u64,
    /// The number of the oldest publication that is retained, or of the next that will be.
    pub first: u64,
    /// When the position itself is forgotten.
    pub forgotten_at: Instant,
    /// The newest version, where the publisher says which.
    pub version: Option<Box<Version>>,
}

/// Which part of a history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Publications after this position, or, reversed, before it; `None` for the end in question.
    pub since: Option<Since>,
    /// Most publications that are wanted.
    pub limit: usize,
    /// Newest first.
    pub reverse: bool,
}

/// What a history answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The publications asked for.
    pub publications: Vec<Arc<Publication>>,
    /// The position of the newest publication of the channel.
    pub top: Position,
}

impl History {
    /// A memory without publications.
    pub fn new(now: Instant, epoch: Epoch) -> History {
        let (retained, lasting) = (VecDeque::new(), Duration::ZERO);
        History { epoch, top: 0, retained, forgotten_at: now, lasting, version: None }
    }

    /// A memory as it was before: `retained` is the contiguous run that ends at the top, or empty.
    pub fn restored(now: Instant, state: State, retained: VecDeque<(Instant, Arc<Publication>)>) -> History {
        let State { epoch, top, forgotten_at, version, .. } = state;
        let lasting = forgotten_at.saturating_duration_since(now);
        History { epoch, top, retained, forgotten_at, lasting, version }
    }

    /// Everything but the publications.
    pub fn state(&self) -> State {
        let first = self.retained.front().map_or(self.top + 1, |(_, oldest)| oldest.offset);
        let (forgotten_at, version) = (self.forgotten_at, self.version.clone());
        State { epoch: self.epoch, top: self.top, first, forgotten_at, version }
    }

    /// A retained publication by its number, and when it expires.
    pub fn retained(&self, offset: u64) -> Option<(Instant, &Arc<Publication>)> {
        let (_, oldest) = self.retained.front()?;
        let index = usize::try_from(offset.checked_sub(oldest.offset)?).ok()?;
        self.retained.get(index).map(|(expiry, publication)| (*expiry, publication))
    }

    /// When the position itself is forgotten, unless it is used before.
    pub fn forgotten_at(&self) -> Instant {
        self.forgotten_at
    }

    /// How long the position lasts from its last use.
    pub fn lasting(&self) -> Duration {
        self.lasting
    }

    /// The position of the newest publication.
    pub fn top(&self) -> Position {
        Position { offset: self.top, epoch: self.epoch }
    }

    /// Numbers a publication and keeps it; `publication` is given the number and returns the shared form.
    pub fn append(
        &mut self,
        now: Instant,
        retention: &Retention,
        publication: impl FnOnce(u64) -> Arc<Publication>,
    ) -> (Position, Arc<Publication>) {
        self.top += 1;
        let publication = publication(self.top);
        while self.retained.len() >= retention.size.max(1) {
            self.retained.pop_front();
        }
        self.retained.push_back((now + retention.ttl, publication.clone()));
        self.touch(now, retention);
        self.expire(now);
        (self.top(), publication)
    }

    /// The newest publication, if it is retained.
    pub fn newest(&mut self, now: Instant) -> Option<Arc<Publication>> {
        self.expire(now);
        let (_, newest) = self.retained.back()?;
        (newest.offset == self.top).then(|| newest.clone())
    }

    /// Notes what a publication that is about to come tells of; false, and not noted, if that is not newer than
    /// what was told before.
    pub fn advance(&mut self, version: Version) -> bool {
        let is_told = self
            .version
            .as_ref()
            .is_some_and(|told| told.epoch == version.epoch && told.number >= version.number);
        if !is_told {
            self.version = Some(Box::new(version));
        }
        !is_told
    }

    /// The asked-for part.
    pub fn page(&mut self, now: Instant, part: &Part) -> Page {
        self.expire(now);
        let publications = self.retained.iter().map(|(_, publication)| publication);
        let publications = match (part.reverse, part.since) {
            (false, None) => publications.take(part.limit).cloned().collect(),
            (false, Some(since)) => {
                publications.filter(|p| p.offset > since.offset).take(part.limit).cloned().collect()
            }
            (true, None) => publications.rev().take(part.limit).cloned().collect(),
            (true, Some(since)) => {
                publications.rev().filter(|p| p.offset < since.offset).take(part.limit).cloned().collect()
            }
        };
        Page { publications, top: self.top() }
    }

    /// Forgets the publications, but not the numbering.
    pub fn clear(&mut self) {
        self.retained.clear();
    }

    /// Notes that the position was asked for or used.
    pub fn touch(&mut self, now: Instant, retention: &Retention) {
        // The numbering of a channel in which nothing was ever published says nothing: anybody who may
        // subscribe could make such channels, so they are not remembered for weeks.
        self.lasting = if self.top == 0 { retention.ttl } else { retention.meta_ttl.max(retention.ttl) };
        self.rest(now);
    }

    /// Notes that the position was used until this moment, and will not be for a while.
    pub fn rest(&mut self, now: Instant) {
        self.forgotten_at = self.forgotten_at.max(now + self.lasting);
    }

    /// Drops what is past its time; tells whether the whole memory may be dropped.
    pub fn expire(&mut self, now: Instant) -> bool {
        // Retention may have been shortened by a new configuration, so expiries need not ascend: the run
        // stays contiguous by only ever dropping from the front.
        while self.retained.front().is_some_and(|(expiry, _)| *expiry <= now) {
            self.retained.pop_front();
        }
        if self.retained.is_empty() {
            self.retained = VecDeque::new();
        }
        self.retained.is_empty() && self.forgotten_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention {
        size: 3,
        ttl: Duration::from_secs(60),
        meta_ttl: Duration::from_secs(3600),
        is_on_disk: false,
    };

    fn filled(now: Instant, count: u64) -> History {
        let mut history = History::new(now, Epoch::parse("abcdefgh"));
        for _ in 0..count {
            history.append(now, &RETENTION, |offset| {
                Arc::new(Publication {
                    offset,
                    data: "{}".into(),
                    info: None,
                    tags: Vec::new(),
                    except: None,
                    is_json: true,
                })
            });
        }
        history
    }

    fn offsets(page: &Page) -> Vec<u64> {
        page.publications.iter().map(|p| p.offset).collect()
    }

    fn part(since: Option<u64>, limit: usize, reverse: bool) -> Part {
        Part { since: since.map(|offset| Since { offset, epoch: None }), limit, reverse }
    }

    #[test]
    fn offsets_start_at_one_and_the_oldest_give_way() {
        let now = Instant::now();
        let mut history = filled(now, 5);
        let page = history.page(now, &part(None, 10, false));
        assert_eq!(offsets(&page), [3, 4, 5]);
        assert_eq!(page.top.offset, 5);
    }

    #[test]
    fn parts_are_cut_by_position_limit_and_direction() {
        let now = Instant::now();
        let mut history = filled(now, 3);
        assert_eq!(offsets(&history.page(now, &part(Some(1), 10, false))), [2, 3]);
        assert_eq!(offsets(&history.page(now, &part(None, 2, false))), [1, 2]);
        assert_eq!(offsets(&history.page(now, &part(None, 2, true))), [3, 2]);
        assert_eq!(offsets(&history.page(now, &part(Some(3), 2, true))), [2, 1]);
        assert_eq!(offsets(&history.page(now, &part(None, 0, false))), [] as [u64; 0]);
    }

    #[test]
    fn only_a_newer_version_or_another_epoch_advances() {
        let now = Instant::now();
        let mut history = filled(now, 1);
        let version = |number, epoch: &str| Version { number, epoch: epoch.into() };
        for (number, epoch, is_newer) in [
            (5, "a", true),
            (5, "a", false),
            (4, "a", false),
            (6, "a", true),
            (1, "b", true),
            (1, "b", false),
        ] {
            assert_eq!(history.advance(version(number, epoch)), is_newer, "{number} {epoch}");
        }
        history.clear();
        assert!(!history.advance(version(1, "b")), "what was told outlives the publications");
    }

    #[test]
    fn the_newest_publication_is_the_one_at_the_top() {
        let now = Instant::now();
        let mut history = filled(now, 5);
        assert_eq!(history.newest(now).map(|p| p.offset), Some(5));
        assert_eq!(history.newest(now + Duration::from_secs(61)), None);
        assert_eq!(filled(now, 0).newest(now), None);
    }

    #[test]
    fn publications_expire_before_the_numbering_does() {
        let now = Instant::now();
        let mut history = filled(now, 2);
        let later = now + Duration::from_secs(61);
        assert_eq!(offsets(&history.page(later, &part(None, 10, false))), [] as [u64; 0]);
        assert_eq!(history.top().offset, 2);
        assert!(!history.expire(later));
        assert!(history.expire(now + Duration::from_secs(3601)));
    }
    #[test]
    fn a_memory_can_be_taken_down_and_put_up_again() {
        let now = Instant::now();
        let mut history = filled(now, 5);
        history.advance(Version { number: 3, epoch: "e".into() });
        let state = history.state();
        assert_eq!((state.top, state.first, state.forgotten_at), (5, 3, now + RETENTION.meta_ttl));
        let retained: VecDeque<_> = (state.first..=state.top)
            .filter_map(|offset| history.retained(offset).map(|(expiry, kept)| (expiry, kept.clone())))
            .collect();
        assert_eq!((history.retained(2), history.retained(6)), (None, None));
        let mut again = History::restored(now, state, retained);
        assert_eq!(again.page(now, &part(None, 10, false)), history.page(now, &part(None, 10, false)));
        assert!(!again.advance(Version { number: 3, epoch: "e".into() }));
        assert!(!again.expire(now + Duration::from_secs(3599)));
        assert!(again.expire(now + Duration::from_secs(3600)));
        history.clear();
        assert_eq!((history.state().first, history.retained(5)), (6, None));
    }

    #[test]
    fn a_position_that_was_in_use_lasts_from_then_on() {
        let now = Instant::now();
        let mut history = filled(now, 1);
        history.clear();
        history.rest(now + Duration::from_secs(3000));
        assert!(!history.expire(now + Duration::from_secs(6599)));
        assert!(history.expire(now + Duration::from_secs(6600)));
    }
}
