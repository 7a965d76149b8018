//! Whether a backend answers, and when that is worth a line in the log.
//!
//! A backend that is down fails thousands of calls a second; the log has a line when that begins, one a minute
//! while it lasts, and one when it is over. A plain struct: the time is an argument. It counts nothing for
//! metrics and keeps no call from being made.

use std::time::{Duration, Instant};

/// While calls fail, a line is written this often.
const REMINDER: Duration = Duration::from_secs(60);

/// How a backend has answered lately.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// Since when every call failed; `None` if the last one was answered.
    since: Option<Instant>,
    /// Failures that no line told of.
    failures: u64,
    last_line: Option<Instant>,
    /// A line told of the outage, so its end is told too.
    is_told: bool,
}

impl Outage {
    /// Notes that a call failed; how many did since the last line, if a line is due.
    pub(super) fn failed(&mut self, now: Instant) -> Option<u64> {
        self.since.get_or_insert(now);
        self.failures += 1;
        if self.last_line.is_some_and(|last| now.saturating_duration_since(last) < REMINDER) {
            return None;
        }
        self.last_line = Some(now);
        self.is_told = true;
        Some(std::mem::take(&mut self.failures))
    }

    /// Notes that a call was answered; how long none was, if a line is due.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Duration> {
        let since = self.since.take()?;
        std::mem::take(&mut self.is_told).then(|| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_has_a_line_at_its_beginning_one_a_minute_and_one_at_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outage = Outage::default();
        assert_eq!(outage.answered(at(0)), None);
        let lines: Vec<(u64, u64)> =
            (1..=130).filter_map(|second| Some((second, outage.failed(at(second))?))).collect();
        assert_eq!(lines, [(1, 1), (61, 60), (121, 60)]);
        assert_eq!(outage.answered(at(131)), Some(Duration::from_secs(130)));
        assert_eq!(outage.answered(at(132)), None);
    }

    #[test]
    fn a_backend_that_fails_now_and_then_does_not_fill_the_log() {
        let start = Instant::now();
        let mut outage = Outage::default();
        let mut lines = 0;
        for millis in 0..59_000 {
            let now = start + Duration::from_millis(millis);
            lines += u32::from(outage.failed(now).is_some()) + u32::from(outage.answered(now).is_some());
        }
        assert_eq!(lines, 2);
    }
}
