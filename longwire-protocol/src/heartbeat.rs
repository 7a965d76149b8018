//! Signs of life: when to send one, and when to call the peer dead.
//!
//! One machine for every transport and both ends. It formats no bytes: the dialect does. It is asked with
//! [`Heartbeat::poll_timeout`] when it wants to be called and told with [`Heartbeat::seen`] that bytes came.
//! What must stay true: any inbound byte counts, not only an answer; a peer that answers is never called
//! dead; a peer that does not answer a beat is called dead `timeout` after it was sent, or, if the beat still
//! waits to be written, at the latest `max_silence` after the peer's last byte. A timer that comes late calls
//! nobody dead who was not asked, and who was asked late has the whole `timeout`.

use std::time::{Duration, Instant};

/// The intervals of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Intervals {
    /// Time between beats.
    pub interval: Duration,
    /// How long a peer may take to answer a beat; less than `interval`.
    pub timeout: Duration,
    /// How long a peer may be silent while a beat still waits to be written; more than `interval` plus
    /// `timeout`.
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
    /// Whether the peer can answer at all (a browser's `EventSource` cannot).
    is_two_way: bool,
}

impl Heartbeat {
    /// Starts the heartbeat of a connection that was opened at `now`.
    ///
    /// `spread` (0.0 to 1.0, from the caller's random source) places the first beat within the second half
    /// of the first interval, so that connections that came together do not beat together.
    pub fn new(now: Instant, intervals: &Intervals, is_two_way: bool, spread: f64) -> Heartbeat {
        let half = intervals.interval / 2;
        Heartbeat {
            next_beat: now + half + half.mul_f64(spread.clamp(0.0, 1.0)),
            last_seen: now,
            is_unanswered: false,
            is_two_way,
        }
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
        if let Some(dead_at) = self.dead_at(intervals) {
            // Never earlier: a beat that a late timer sent is answered in its own time.
            let deferred = (now + intervals.timeout).min(self.last_seen + intervals.max_silence).max(dead_at);
            self.next_beat = deferred - intervals.timeout + intervals.interval;
        }
    }

    /// Leaves a beat out that is due at `now`: the dialect has none yet.
    pub fn skip(&mut self, now: Instant, intervals: &Intervals) {
        if self.next_beat <= now {
            self.next_beat = now + intervals.interval;
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
        self.next_beat = now + intervals.interval;
        self.is_unanswered = self.is_two_way;
        Some(Due::Beat)
    }

    fn dead_at(&self, intervals: &Intervals) -> Option<Instant> {
        // The timeout is shorter than the interval, so the first beat without an answer is the last.
        self.is_unanswered.then(|| self.next_beat - intervals.interval + intervals.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, true, 0.5);
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
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, true, 0.0);
        let beat = heartbeat.poll_timeout(&INTERVALS);
        assert_eq!(heartbeat.handle_timeout(beat, &INTERVALS), Some(Due::Beat));
        heartbeat.seen(beat + secs(7));
        assert_eq!(heartbeat.handle_timeout(beat + secs(8), &INTERVALS), None);
    }

    #[test]
    fn the_first_beat_is_spread_over_the_second_half_of_the_interval() {
        let start = Instant::now();
        for (spread, expected) in [(0.0, 12.5), (0.5, 18.75), (1.0, 25.0), (7.0, 25.0)] {
            let heartbeat = Heartbeat::new(start, &INTERVALS, false, spread);
            assert_eq!(heartbeat.poll_timeout(&INTERVALS) - start, Duration::from_secs_f64(expected));
        }
    }

    #[test]
    fn a_beat_that_waits_to_be_written_kills_nobody_before_the_longest_silence() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, true, 0.0);
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
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, true, 0.0);
        let late = start + secs(100);
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), Some(Due::Beat));
        assert_eq!(heartbeat.handle_timeout(late + secs(7), &INTERVALS), None);
        assert_eq!(heartbeat.handle_timeout(late + secs(8), &INTERVALS), Some(Due::PeerDead));
    }

    #[test]
    fn a_peer_that_was_asked_late_has_the_whole_timeout_even_if_the_beat_waits_to_be_written() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, true, 0.0);
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
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, false, 0.0);
        for _ in 0..100 {
            let now = heartbeat.poll_timeout(&INTERVALS);
            assert_eq!(heartbeat.handle_timeout(now, &INTERVALS), Some(Due::Beat));
        }
    }

    #[test]
    fn a_paused_machine_beats_once_and_not_for_every_missed_interval() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::new(start, &INTERVALS, false, 0.0);
        let late = start + secs(3600);
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), Some(Due::Beat));
        assert_eq!(heartbeat.handle_timeout(late, &INTERVALS), None);
        assert_eq!(heartbeat.poll_timeout(&INTERVALS), late + secs(25));
    }
}
