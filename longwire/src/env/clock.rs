//! Time: monotonic for everything that waits, wall time only for tokens and logs.
//!
//! Monotonic time is the runtime's, which a single-threaded runtime can pause: a step of the machine's clock neither
//! closes a client nor expires a history. Wall time follows that clock, because issuers and backends go by theirs, and
//! a machine that was wrong or slept is set right later.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock; copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// Wall time at the start, of a clock that tells one of its own.
    start_unix: Option<Duration>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock { start: tokio::time::Instant::now().into_std(), start_unix: None }
    }

    /// A clock for which it is, at this moment, so long after the beginning of 1970.
    pub fn starting_at(start_unix: Duration) -> Clock {
        Clock { start: tokio::time::Instant::now().into_std(), start_unix: Some(start_unix) }
    }

    /// Monotonic time.
    pub fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    /// When this clock was made.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Wall time, in seconds since 1970.
    pub fn unix_seconds(&self) -> i64 {
        self.unix().as_secs() as i64
    }

    /// Wall time, in milliseconds since 1970.
    pub fn unix_millis(&self) -> i64 {
        self.unix().as_millis() as i64
    }

    fn unix(&self) -> Duration {
        match self.start_unix {
            Some(start_unix) => start_unix + (self.now() - self.start),
            None => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Waits until `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> tokio::time::Sleep {
        tokio::time::sleep_until(deadline.into())
    }

    /// Waits for `span`.
    pub fn sleep(&self, span: Duration) -> tokio::time::Sleep {
        tokio::time::sleep(span)
    }

    /// Waits for `future`, but no longer than `span`; `None` if that ran out.
    pub async fn timeout<F: Future>(&self, span: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(span, future).await.ok()
    }
}
