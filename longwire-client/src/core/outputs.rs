//! What a client wants done, in order, and how far the writing of it got.
//!
//! Small messages that are sent one after the other become one write. What must stay true: bytes of one line keep their
//! order among themselves and with its closing; an idle client keeps no buffer here.

use crate::machine::{Line, Output};
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The queue of outputs.
#[derive(Debug)]
pub(super) struct Outputs {
    queue: VecDeque<Output>,
    /// Bytes behind the queue, all of one line.
    pending: Vec<u8>,
    line: Line,
}

impl Outputs {
    pub(super) fn new() -> Outputs {
        Outputs { queue: VecDeque::new(), pending: Vec::new(), line: Line(0) }
    }

    /// Where bytes of `line` are appended.
    pub(super) fn buffer(&mut self, line: Line) -> &mut Vec<u8> {
        if self.line != line {
            self.flush();
            self.line = line;
        }
        &mut self.pending
    }

    pub(super) fn push(&mut self, output: Output) {
        self.flush();
        self.queue.push_back(output);
    }

    pub(super) fn pop(&mut self) -> Option<Output> {
        if let Some(output) = self.queue.pop_front() {
            if self.queue.is_empty() {
                self.queue = VecDeque::new();
            }
            return Some(output);
        }
        let bytes = std::mem::take(&mut self.pending);
        (!bytes.is_empty()).then(|| Output::Transmit { line: self.line, bytes: Bytes::from(bytes) })
    }

    /// How many bytes of `line` wait here.
    pub(super) fn queued(&self, line: Line) -> usize {
        let in_queue = |output: &Output| match output {
            Output::Transmit { line: of, bytes } if *of == line => bytes.len(),
            _ => 0,
        };
        let pending = if self.line == line { self.pending.len() } else { 0 };
        self.queue.iter().map(in_queue).sum::<usize>() + pending
    }

    /// Forgets what waits for `line`.
    pub(super) fn forget(&mut self, line: Line) {
        if self.line == line {
            self.pending = Vec::new();
        }
        self.queue.retain(|output| !matches!(output, Output::Transmit { line: of, .. } if *of == line));
    }

    fn flush(&mut self) {
        let bytes = std::mem::take(&mut self.pending);
        if !bytes.is_empty() {
            self.queue.push_back(Output::Transmit { line: self.line, bytes: Bytes::from(bytes) });
        }
    }
}

/// How far the writing of one line got.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Writes {
    /// Given to be written, and not known to be.
    given: usize,
    /// Since when none of it was written.
    stalled_since: Option<Instant>,
}

impl Writes {
    /// Notes that bytes were given to be written.
    pub(super) fn give(&mut self, count: usize) {
        self.given = self.given.saturating_add(count);
    }

    /// Notes what an attempt to write left.
    pub(super) fn note(&mut self, now: Instant, unwritten: usize) {
        if unwritten == 0 {
            self.stalled_since = None;
        } else if unwritten < self.given || self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        self.given = unwritten;
    }

    pub(super) fn unwritten(&self) -> usize {
        self.given
    }

    /// When the peer has taken nothing for `timeout`.
    pub(super) fn stalls_at(&self, timeout: Duration) -> Option<Instant> {
        self.stalled_since.map(|since| since + timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(outputs: &mut Outputs) -> Vec<String> {
        std::iter::from_fn(|| outputs.pop())
            .map(|output| match output {
                Output::Transmit { line, bytes } => format!("{}:{}", line.0, String::from_utf8_lossy(&bytes)),
                Output::Close { line, .. } => format!("close {}", line.0),
                Output::Dial { line, .. } => format!("dial {}", line.0),
            })
            .collect()
    }

    #[test]
    fn bytes_keep_their_order_and_small_ones_are_joined() {
        let mut outputs = Outputs::new();
        outputs.buffer(Line(1)).extend_from_slice(b"ab");
        outputs.buffer(Line(1)).extend_from_slice(b"c");
        outputs.buffer(Line(2)).extend_from_slice(b"x");
        outputs.buffer(Line(1)).extend_from_slice(b"d");
        assert_eq!((outputs.queued(Line(1)), outputs.queued(Line(2))), (4, 1));
        outputs.push(Output::Close { line: Line(1), abort: false });
        outputs.buffer(Line(2)).extend_from_slice(b"y");
        assert_eq!(words(&mut outputs), ["1:abc", "2:x", "1:d", "close 1", "2:y"]);
        outputs.buffer(Line(3)).extend_from_slice(b"z");
        outputs.forget(Line(3));
        assert_eq!(words(&mut outputs), [""; 0]);
    }

    #[test]
    fn a_write_stalls_only_while_nothing_is_taken() {
        let (now, timeout) = (Instant::now(), Duration::from_secs(10));
        let mut writes = Writes::default();
        writes.give(100);
        writes.note(now, 100);
        assert_eq!(writes.stalls_at(timeout), Some(now + timeout));
        let later = now + Duration::from_secs(9);
        writes.note(later, 99);
        assert_eq!(writes.stalls_at(timeout), Some(later + timeout), "a byte was taken");
        writes.give(50);
        writes.note(later + timeout / 2, 149);
        assert_eq!(writes.stalls_at(timeout), Some(later + timeout), "what is added takes nothing away");
        writes.note(later + timeout, 0);
        assert_eq!(writes.stalls_at(timeout), None);
    }
}
