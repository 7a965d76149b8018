//! Signs of life: when to send one, and when to call the peer dead.
//!
//! One machine for every transport and both ends. It formats no bytes: the dialect does. It is asked with
//! [`Heartbeat::poll_timeout`] when it wants to be called and told with [`Heartbeat::seen`] that bytes came.
//! What must stay true: any inbound byte counts, not only an answer. A peer that answers is never called
//! dead; one that does not answer a beat is called dead `timeout` after it was sent, or, if the beat still
//! waits to be written, at the latest `max_silence` after the peer's last byte. A timer that comes late calls
//! nobody dead who was not asked, and who was asked late has the whole `timeout`. Where the peer knows nothing of
//! beats ([`Kind::Idle`]), it is called dead `max_silence` after its last byte, and never before.

use std::time::{Duration, Instant};

/// An interval that never passes: what is off.
pub const OFF: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// What is expected of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Nothing: it cannot say anything (a browser's `EventSource`), and is only beaten to.
    OneWay,
    /// An answer to every beat.
    TwoWay,
    /// That it says something every `max_silence`, of itself or because it answers beats.
    Idle,
    /// Nothing, and it is told nothing.
    Silent,
}

/// The intervals of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intervals {
    /// Time between beats.
    pub interval: Duration,
    /// How long a peer may take to answer a beat; less than `interval`. Without meaning where no answer is awaited.
    pub timeout: Duration,
    /// How long a peer may be silent. Where beats are answered, while a beat still waits to be written: more than
    /// `interval` plus `timeout`.
    pub max_silence: Duration,
}

/// What a heartbeat wants when its time has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Write a beat.
    Beat,
    /// The peer is dead: close, abortively.
    PeerDead,
}

/// The heartbeat of one connection.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    next_beat: Instant,
    last_seen: Instant,
    /// The last beat was not answered yet. It was sent one interval before `next_beat`.
    is_unanswered: bool,
    kind: Kind,
}

impl Heartbeat {
    /// Starts the heartbeat of a connection that was opened at `now`.
    ///
    /// `spread` (0.0 to 1.0, from the caller's random source) places the first beat within the second half
    /// of the first interval, so that connections that came together do not beat together.
    pub fn new(now: Instant, intervals: &Intervals, kind: Kind, spread: f64) -> Heartbeat {
        let half = intervals.interval.min(OFF) / 2;
        let next_beat = match kind {
            Kind::Silent => now + OFF,
            _ => now + half + half.mul_f64(spread.clamp(0.0, 1.0)),
        };
        Heartbeat { next_beat, last_seen: now, is_unanswered: false, kind }
    }

    /// Goes on with intervals that were agreed upon with what came last: the first beat comes in the second half of an
    /// interval from then, at the place in it that `spread` (0.0 to 1.0) says.
    pub fn follow(&mut self, intervals: &Intervals, spread: f64) {
        *self = Heartbeat::new(self.last_seen, intervals, self.kind, spread);
    }

    /// Notes that bytes came.
    pub fn seen(&mut self, now: Instant) {
        self.last_seen = now;
        self.is_unanswered = false;
    }

    /// When bytes came last.
    pub fn last_seen(&self) -> Instant {
        self.last_seen
    }

    /// Whether a beat was sent that nothing answered yet.
    pub fn is_unanswered(&self) -> bool {
        self.is_unanswered
    }

    /// Notes that the beat without an answer has not even been written: the peer cannot have seen it.
    pub fn defer(&mut self, now: Instant, intervals: &Intervals) {
        if let Some(dead_at) = self.dead_at(intervals).filter(|_| self.kind == Kind::TwoWay) {
            // Never earlier: a beat that a late timer sent is answered in its own time.
            let deferred = (now + intervals.timeout).min(self.last_seen + intervals.max_silence).max(dead_at);
            self.next_beat = deferred - intervals.timeout + intervals.interval;
        }
    }

    /// Whether the peer would be called dead at `now`, unless something comes from it.
    pub fn is_overdue(&self, now: Instant, intervals: &Intervals) -> bool {
        self.dead_at(intervals).is_some_and(|dead_at| dead_at <= now)
    }

    /// Leaves a beat out that is due at `now`: the dialect has none yet.
    pub fn skip(&mut self, now: Instant, intervals: &Intervals) {
        if self.next_beat <= now {
            self.next_beat = now + self.interval(intervals);
        }
    }

    /// The time at which [`handle_timeout`](Self::handle_timeout) has something to say.
    pub fn poll_timeout(&self, intervals: &Intervals) -> Instant {
        self.dead_at(intervals).map_or(self.next_beat, |dead_at| self.next_beat.min(dead_at))
    }

    /// Says what is due at `now`; the caller sends the beat or closes.
    pub fn handle_timeout(&mut self, now: Instant, intervals: &Intervals) -> Option<Due> {
        if self.dead_at(intervals).is_some_and(|dead_at| dead_at <= now) {
            return Some(Due::PeerDead);
        }
        if self.next_beat > now {
            return None;
        }
        self.next_beat = now + self.interval(intervals);
        self.is_unanswered = self.kind == Kind::TwoWay;
        (self.kind != Kind::Silent).then_some(Due::Beat)
    }

    fn dead_at(&self, intervals: &Intervals) -> Option<Instant> {
        match self.kind {
            // The timeout is shorter than the interval, so the first beat without an answer is the last.
            Kind::TwoWay => {
                self.is_unanswered.then(|| self.next_beat - intervals.interval + intervals.timeout)
            }
            Kind::Idle => Some(self.last_seen + intervals.max_silence.min(OFF)),
            Kind::OneWay | Kind::Silent => None,
        }
    }

    fn interval(&self, intervals: &Intervals) -> Duration {
        if self.kind == Kind::Silent { OFF } else { intervals.interval.min(OFF) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVALS: Intervals = Intervals {
        interval: Duration::from_secs(25),
        timeout: Duration::from_secs(8),
        max_silence: Duration::from_secs(35),
    };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Runs a heartbeat from deadline to deadline until `end`; `answers` says whether the peer answers.
    fn run(answers: bool, end: Duration) -> (u32, Option<Duration>) {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::TwoWay, 0.5);
        let mut beats = 0;
        loop {
            let now = heartbeat.poll_timeout(&INTERVALS);
            if now > start + end {
                return (beats, None);
            }
            match heartbeat.handle_timeout(now, &INTERVALS) {
                Some(Due::PeerDead) => return (beats, Some(now - start)),
                Some(Due::Beat) => {
                    beats += 1;
                    if answers {
                        heartbeat.seen(now + secs(7));
                    }
                }
                None => panic!("woken at the promised time for nothing"),
            }
        }
    }

    #[test]
    fn a_quiet_peer_that_answers_late_is_never_called_dead() {
        let (beats, dead) = run(true, secs(25 * 20));
        assert_eq!(dead, None);
        assert_eq!(beats, 20);
    }

    #[test]
    fn a_silent_peer_is_dead_eight_seconds_after_the_first_beat() {
        let (beats, dead) = run(false, secs(1000));
        assert_eq!(beats, 1);
        assert_eq!(dead, Some(Duration::from_millis(18_750) + secs(8)));
    }

    #[test]
    fn any_byte_moves_the_deadline() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::TwoWay, 0.0);
        let beat = heartbeat.poll_timeout(&INTERVALS);
        assert_eq!(heartbeat.handle_timeout(beat, &INTERVALS), Some(Due::Beat));
        heartbeat.seen(beat + secs(7));
        assert_eq!(heartbeat.handle_timeout(beat + secs(8), &INTERVALS), None);
    }

    #[test]
    fn the_first_beat_is_spread_over_the_second_half_of_the_interval() {
        let start = Instant::now();
        for (spread, expected) in [(0.0, 12.5), (0.5, 18.75), (1.0, 25.0), (7.0, 25.0)] {
            let heartbeat = Heartbeat::new(start, &INTERVALS, Kind::OneWay, spread);
            assert_eq!(heartbeat.poll_timeout(&INTERVALS) - start, Duration::from_secs_f64(expected));
        }
    }

    #[test]
    fn a_beat_that_waits_to_be_written_kills_nobody_before_the_longest_silence() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::TwoWay, 0.0);
        let beat = heartbeat.poll_timeout(&INTERVALS);
        assert_eq!(heartbeat.handle_timeout(beat, &INTERVALS), Some(Due::Beat));
        for second in 13..35 {
            heartbeat.defer(start + secs(second), &INTERVALS);
            assert_eq!(heartbeat.handle_timeout(start + secs(second), &INTERVALS), None, "after {second} s");
        }
        heartbeat.defer(start + secs(35), &INTERVALS);
        assert_eq!(heartbeat.handle_timeout(start + secs(35), &INTERVALS), Some(Due::PeerDead));
    }

    #[test]
    fn a_late_timer_asks_before_it_calls_anybody_dead() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::TwoWay, 0.0);
        let late = start + secs(100);
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), Some(Due::Beat));
        assert_eq!(heartbeat.handle_timeout(late + secs(7), &INTERVALS), None);
        assert_eq!(heartbeat.handle_timeout(late + secs(8), &INTERVALS), Some(Due::PeerDead));
    }

    #[test]
    fn a_peer_that_was_asked_late_has_the_whole_timeout_even_if_the_beat_waits_to_be_written() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::TwoWay, 0.0);
        let late = start + secs(100);
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), Some(Due::Beat));
        for second in 0..8 {
            heartbeat.defer(late + secs(second), &INTERVALS);
            assert_eq!(heartbeat.handle_timeout(late + secs(second), &INTERVALS), None, "after {second} s");
        }
        heartbeat.defer(late + secs(8), &INTERVALS);
        assert_eq!(heartbeat.handle_timeout(late + secs(8), &INTERVALS), Some(Due::PeerDead));
    }

    #[test]
    fn a_peer_that_cannot_answer_is_only_beaten_to() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::OneWay, 0.0);
        for _ in 0..100 {
            let now = heartbeat.poll_timeout(&INTERVALS);
            assert_eq!(heartbeat.handle_timeout(now, &INTERVALS), Some(Due::Beat));
        }
    }

    #[test]
    fn a_paused_machine_beats_once_and_not_for_every_missed_interval() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, Kind::OneWay, 0.0);
        let late = start + secs(3600);
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), Some(Due::Beat));
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), None);
        assert_eq!(heartbeat.poll_timeout(&INTERVALS), late + secs(25));
    }

    const IDLE: Intervals = Intervals {
        interval: Duration::from_secs(25),
        timeout: Duration::ZERO,
        max_silence: Duration::from_secs(30),
    };

    #[test]
    fn who_says_nothing_is_dead_exactly_at_the_limit_and_not_before() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &IDLE, Kind::Idle, 1.0);
        assert_eq!(heartbeat.poll_timeout(&IDLE), start + secs(25));
        assert_eq!(heartbeat.handle_timeout(start + secs(25), &IDLE), Some(Due::Beat));
        assert!(!heartbeat.is_unanswered(), "a beat is not for an answer");
        assert_eq!(heartbeat.poll_timeout(&IDLE), start + secs(30));
        let last = start + secs(30) - Duration::from_nanos(1);
        assert_eq!(heartbeat.handle_timeout(last, &IDLE), None);
        assert_eq!(heartbeat.handle_timeout(start + secs(30), &IDLE), Some(Due::PeerDead));
        // Nothing that waits to be written gives more time: the peer need not hear to speak.
        heartbeat.defer(start + secs(30), &IDLE);
        assert_eq!(heartbeat.handle_timeout(start + secs(30), &IDLE), Some(Due::PeerDead));
        heartbeat.seen(start + secs(30));
        assert_eq!(heartbeat.handle_timeout(start + secs(30), &IDLE), None);
    }

    #[test]
    fn the_page_that_says_hello_every_ten_seconds_stays_and_the_one_that_stops_goes() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &IDLE, Kind::Idle, 0.5);
        for hello in 1..=100 {
            let now = start + secs(10 * hello);
            assert_ne!(heartbeat.handle_timeout(now, &IDLE), Some(Due::PeerDead));
            heartbeat.seen(now);
        }
        let silent_from = start + secs(1000);
        loop {
            let now = heartbeat.poll_timeout(&IDLE);
            if heartbeat.handle_timeout(now, &IDLE) == Some(Due::PeerDead) {
                assert_eq!(now, silent_from + secs(30));
                break;
            }
        }
    }

    #[test]
    fn what_is_off_never_comes() {
        let off = Intervals { interval: Duration::MAX, timeout: Duration::MAX, max_silence: Duration::MAX };
        let start = Instant::now();
        let far = start + secs(10 * 365 * 24 * 60 * 60);
        for kind in [Kind::Idle, Kind::OneWay, Kind::Silent] {
            let mut heartbeat = Heartbeat::new(start, &off, kind, 0.5);
            assert!(heartbeat.poll_timeout(&off) > far, "{kind:?}");
            assert_eq!(heartbeat.handle_timeout(far, &off), None, "{kind:?}");
            heartbeat.skip(far, &off);
            heartbeat.defer(far, &off);
            assert!(heartbeat.poll_timeout(&off) > far, "{kind:?}");
        }
        // One without the other.
        let limit_off = Intervals { max_silence: OFF, ..IDLE };
        let mut heartbeat = Heartbeat::new(start, &limit_off, Kind::Idle, 0.0);
        for _ in 0..1000 {
            let now = heartbeat.poll_timeout(&limit_off);
            assert_eq!(heartbeat.handle_timeout(now, &limit_off), Some(Due::Beat));
        }
        let pings_off = Intervals { interval: OFF, ..IDLE };
        let mut heartbeat = Heartbeat::new(start, &pings_off, Kind::Idle, 0.0);
        assert_eq!(heartbeat.poll_timeout(&pings_off), start + secs(30));
        assert_eq!(heartbeat.handle_timeout(start + secs(30), &pings_off), Some(Due::PeerDead));
    }

    #[test]
    fn nobody_is_told_anything_by_a_silent_heartbeat() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &IDLE, Kind::Silent, 0.0);
        for hour in 1..100 {
            assert_eq!(heartbeat.handle_timeout(start + secs(3600 * hour), &IDLE), None);
        }
        assert!(heartbeat.poll_timeout(&IDLE) > start + secs(3600 * 100));
    }

    /// Milliseconds of an interval that may be off.
    fn interval() -> impl Strategy<Value = Duration> {
        prop_oneof![
            8 => (1u64..100_000).prop_map(Duration::from_millis),
            1 => Just(OFF),
            1 => Just(Duration::MAX),
        ]
    }

    proptest! {
        #[test]
        fn who_says_a_byte_within_every_limit_is_never_called_dead(
            beats in interval(),
            limit in 1u64..100_000,
            spread in 0.0f64..=1.0,
            // How long it is silent, in parts of the limit, and how late each timer is meanwhile.
            silences in prop::collection::vec((0.0f64..=1.0, 0u64..50_000), 1..50),
        ) {
            let max_silence = Duration::from_millis(limit);
            let intervals = Intervals { interval: beats, timeout: Duration::ZERO, max_silence };
            let start = Instant::now();
            let mut heartbeat = Heartbeat::new(start, &intervals, Kind::Idle, spread);
            let mut heard = start;
            for (part, late) in silences {
                let next = heard + max_silence.mul_f64(part);
                loop {
                    let due = heartbeat.poll_timeout(&intervals) + Duration::from_millis(late);
                    // Whoever calls has taken what came before, so a timer that is later finds the byte.
                    if due >= next || due >= heard + max_silence {
                        break;
                    }
                    prop_assert_eq!(heartbeat.handle_timeout(due, &intervals), Some(Due::Beat));
                }
                heartbeat.seen(next);
                heard = next;
                prop_assert_ne!(heartbeat.handle_timeout(next, &intervals), Some(Due::PeerDead));
            }
            // And once it falls silent, it is dead at the limit, however many beats come before.
            let dead_at = loop {
                let due = heartbeat.poll_timeout(&intervals);
                prop_assert!(due <= heard + max_silence);
                match heartbeat.handle_timeout(due, &intervals) {
                    Some(Due::PeerDead) => break due,
                    other => prop_assert_eq!(other, Some(Due::Beat)),
                }
            };
            prop_assert_eq!(dead_at, heard + max_silence);
        }

        #[test]
        fn beats_come_at_their_interval_whatever_is_heard(
            beats in 1u64..10_000,
            spread in 0.0f64..=1.0,
            heard in prop::collection::vec(any::<bool>(), 1..50),
        ) {
            let intervals = Intervals {
                interval: Duration::from_millis(beats),
                timeout: Duration::ZERO,
                max_silence: OFF,
            };
            let start = Instant::now();
            let mut heartbeat = Heartbeat::new(start, &intervals, Kind::Idle, spread);
            let mut due = heartbeat.poll_timeout(&intervals);
            prop_assert!(due >= start + intervals.interval / 2 && due <= start + intervals.interval);
            for is_heard in heard {
                prop_assert_eq!(heartbeat.handle_timeout(due, &intervals), Some(Due::Beat));
                if is_heard {
                    heartbeat.seen(due);
                }
                let next = heartbeat.poll_timeout(&intervals);
                prop_assert_eq!(next, due + intervals.interval);
                due = next;
            }
        }
    }
}
