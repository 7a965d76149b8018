//! What was heard and not read yet: one queue between the state and one reader.
//!
//! It is locked by itself, so that a reader takes what there is without the client's lock; whoever holds both took the
//! client's first. What must stay true: it never drops by itself. When it is full the state asks for no more bytes until
//! the reader has caught up; the bound is therefore passed by at most what one read brings.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// A queue with one reader.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    queue: VecDeque<T>,
    /// The most that may wait before no more bytes are asked for.
    bound: usize,
    reader: Option<Waker>,
    /// Nothing is added any more.
    is_closed: bool,
    /// It was full, and the state waits for the reader.
    is_stalled: bool,
}

/// What came of adding one.
pub(crate) struct Pushed {
    /// Who is to be woken.
    pub(crate) wakes: Option<Waker>,
    /// It is full from then on, and was not before.
    pub(crate) has_filled: bool,
}

impl<T> Mailbox<T> {
    pub(crate) fn new(bound: usize) -> Mailbox<T> {
        Mailbox {
            inner: Mutex::new(Inner {
                queue: VecDeque::new(),
                bound: bound.max(1),
                reader: None,
                is_closed: false,
                is_stalled: false,
            }),
        }
    }

    /// Adds one.
    pub(crate) fn push(&self, value: T) -> Pushed {
        let mut inner = self.lock();
        if inner.is_closed {
            return Pushed { wakes: None, has_filled: false };
        }
        inner.queue.push_back(value);
        let has_filled = inner.queue.len() >= inner.bound && !inner.is_stalled;
        inner.is_stalled |= has_filled;
        Pushed { wakes: inner.reader.take(), has_filled }
    }

    /// Adds one if there is room, and stops nobody if there is not: false.
    pub(crate) fn offer(&self, value: T, wakes: &mut Vec<Waker>) -> bool {
        let mut inner = self.lock();
        if inner.queue.len() >= inner.bound {
            return false;
        }
        if !inner.is_closed {
            inner.queue.push_back(value);
            wakes.extend(inner.reader.take());
        }
        true
    }

    /// Whether it is full, and the reader has not caught up since.
    pub(crate) fn is_stalled(&self) -> bool {
        self.lock().is_stalled
    }

    /// Whether nothing is added any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Ends it: the reader takes what there is and is then told that nothing follows.
    pub(crate) fn close(&self) -> Option<Waker> {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.is_stalled = false;
        inner.reader.take()
    }

    /// Forgets what waits: nobody reads it any more.
    pub(crate) fn abandon(&self) {
        let mut inner = self.lock();
        inner.is_closed = true;
        inner.is_stalled = false;
        inner.queue = VecDeque::new();
        inner.reader = None;
    }

    /// Takes everything, into `batch` which is empty; `Ready(None)` when nothing follows. True if the state waits for room:
    /// there is some, and it is to be told.
    fn poll_take(&self, cx: &mut Context<'_>, batch: &mut VecDeque<T>) -> Poll<Option<bool>> {
        let mut inner = self.lock();
        if inner.queue.is_empty() {
            if inner.is_closed {
                return Poll::Ready(None);
            }
            match &mut inner.reader {
                Some(waker) => waker.clone_from(cx.waker()),
                reader => *reader = Some(cx.waker().clone()),
            }
            // An idle reader keeps none of the room that a busy moment took.
            inner.queue = VecDeque::new();
            return Poll::Pending;
        }
        std::mem::swap(&mut inner.queue, batch);
        Poll::Ready(Some(std::mem::take(&mut inner.is_stalled)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner<T>> {
        // Nothing in here can panic between two changes that belong together.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading end of a mailbox. What nobody reads any more is forgotten with it.
#[derive(Debug)]
pub struct Reader<T> {
    mailbox: Arc<Mailbox<T>>,
    /// Taken, and not given out yet.
    batch: VecDeque<T>,
    resumes: bool,
}

impl<T> Reader<T> {
    pub(crate) fn new(mailbox: Arc<Mailbox<T>>) -> Reader<T> {
        Reader { mailbox, batch: VecDeque::new(), resumes: false }
    }

    /// Gives what was heard next; `Ready(None)` when nothing follows.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        loop {
            if let Some(value) = self.batch.pop_front() {
                return Poll::Ready(Some(value));
            }
            match self.mailbox.poll_take(cx, &mut self.batch) {
                Poll::Ready(Some(resumes)) => self.resumes |= resumes,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    self.batch = VecDeque::new();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Gives what was heard already, without waiting.
    pub fn try_next(&mut self) -> Option<T> {
        match self.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => None,
        }
    }

    /// Forgets what waits, and all that follows.
    pub(crate) fn leave(&mut self) {
        self.mailbox.abandon();
        self.batch = VecDeque::new();
    }

    /// Whether the client had stopped reading for this reader's sake and is to be moved once, so that it goes on; true
    /// once each time.
    pub fn take_resumes(&mut self) -> bool {
        std::mem::take(&mut self.resumes)
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        self.mailbox.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mailbox_stalls_until_it_is_read_and_loses_nothing() {
        let mailbox = Arc::new(Mailbox::new(2));
        mailbox.push(1);
        assert!(!mailbox.is_stalled());
        mailbox.push(2);
        assert!(mailbox.is_stalled());
        mailbox.push(3);
        let mut reader = Reader::new(mailbox.clone());
        assert_eq!(reader.try_next(), Some(1));
        assert!(reader.take_resumes() && !reader.take_resumes() && !mailbox.is_stalled());
        assert_eq!((reader.try_next(), reader.try_next(), reader.try_next()), (Some(2), Some(3), None));
    }

    #[test]
    fn what_waits_is_read_after_the_end() {
        let mailbox = Arc::new(Mailbox::new(2));
        mailbox.push(1);
        mailbox.close();
        mailbox.push(2);
        let mut reader = Reader::new(mailbox.clone());
        assert_eq!(reader.try_next(), Some(1));
        assert_eq!(reader.poll_next(&mut Context::from_waker(Waker::noop())), Poll::Ready(None));
        drop(reader);
        assert!(!mailbox.is_stalled());
    }
}
