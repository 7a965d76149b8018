//! Time: monotonic for everything that waits, wall time only for tokens and logs.
//!
//! Monotonic time is the runtime's, which a single-threaded runtime can pause. Wall time is a pair taken
//! once, at start: a step of the machine's clock neither closes a client nor expires a history.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock; copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock::starting_at(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// A clock for which it is, at this moment, so long after the beginning of 1970.
    pub fn starting_at(start_unix: Duration) -> Clock {
        Clock { start: tokio::time::Instant::now().into_std(), start_unix }
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
        (self.start_unix + (self.now() - self.start)).as_secs() as i64
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
