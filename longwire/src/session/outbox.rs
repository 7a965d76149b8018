//! What one session is about to write: shared bytes, bounded, written as many at a time as the socket takes.
//!
//! It knows no frame boundaries and no socket type: it is given something to write into. What must stay
//! true: bytes leave in the order in which they came, none twice; and once as much as the limit waits, a push
//! is refused and the session is closed as slow. So at most the limit and one item wait: an item that is
//! larger than the limit can be sent to a peer that reads.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Instant;

/// How many slices one write takes.
const SLICES: usize = 64;

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// Since when a write has been waiting for the socket without progress.
    blocked_since: Option<Instant>,
}

/// A push was refused: the limit would have been passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// How far writing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is written.
    All,
    /// The socket takes no more; some is left.
    Blocked,
}

impl Outbox {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Since when a write has been waiting for the socket without progress.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked_since
    }

    /// Adds bytes.
    ///
    /// # Errors
    /// [`Overflow`] if `limit` bytes wait already.
    pub fn push(&mut self, bytes: Bytes, limit: usize) -> Result<(), Overflow> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.bytes >= limit {
            return Err(Overflow);
        }
        self.bytes += bytes.len();
        self.queue.push_back(bytes);
        Ok(())
    }

    /// Throws away what waits; returns how many bytes that were.
    pub fn clear(&mut self) -> usize {
        self.queue = VecDeque::new();
        std::mem::take(&mut self.bytes)
    }

    /// Gives out what waits, in order.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.queue).into()
    }

    /// Writes until nothing is left or `write` says `WouldBlock`; adds what was written to `written`.
    ///
    /// # Errors
    /// Those of `write`, but for `WouldBlock` and `Interrupted`.
    pub fn flush(
        &mut self,
        now: Instant,
        written: &mut u64,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Flushed> {
        while self.bytes > 0 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.queue.len().min(SLICES);
            for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
                *slice = IoSlice::new(bytes);
            }
            match write(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.advance(n);
                    *written += n as u64;
                    self.blocked_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since.get_or_insert(now);
                    return Ok(Flushed::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // An idle connection keeps no queue: there may be a million of them.
        self.queue = VecDeque::new();
        self.blocked_since = None;
        Ok(Flushed::All)
    }

    fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        while let Some(front) = self.queue.front_mut() {
            if n < front.len() {
                front.advance(n);
                return;
            }
            n -= front.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_push_past_the_limit_is_refused_and_changes_nothing() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push("longer than the limit".into(), 8), Ok(()));
        assert_eq!(outbox.push("6789".into(), 8), Err(Overflow));
        assert_eq!(outbox.len(), 21);
    }

    #[test]
    fn a_blocked_write_remembers_since_when_and_progress_forgets_it() {
        let mut outbox = Outbox::default();
        outbox.push("12345".into(), 100).unwrap();
        let (now, mut written) = (Instant::now(), 0);
        let blocked = |_: &[IoSlice<'_>]| Err(io::ErrorKind::WouldBlock.into());
        assert_eq!(outbox.flush(now, &mut written, blocked).unwrap(), Flushed::Blocked);
        assert_eq!(outbox.blocked_since(), Some(now));
        assert_eq!(outbox.flush(now, &mut written, |s| Ok(s[0].len())).unwrap(), Flushed::All);
        assert_eq!((outbox.blocked_since(), written, outbox.len()), (None, 5, 0));
    }

    proptest! {
        #[test]
        fn bytes_leave_in_order_however_the_socket_cuts_them(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..100),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let mut outbox = Outbox::default();
            for piece in &pieces {
                outbox.push(piece.clone().into(), usize::MAX).unwrap();
            }
            let (mut out, mut turn, mut written) = (Vec::new(), 0, 0);
            outbox.flush(Instant::now(), &mut written, |slices| {
                turn += 1;
                let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                let n = cuts[turn % cuts.len()].min(all.len());
                out.extend_from_slice(&all[..n]);
                Ok(n)
            }).unwrap();
            prop_assert_eq!(out, pieces.concat());
            prop_assert!(outbox.is_empty());
        }
    }
}
