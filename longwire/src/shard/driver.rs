//! The small task beside each session: it waits for the socket and for requests that are in progress.
//!
//! It lives as long as the session; links come and go under it. It decides nothing: bytes go to the session, the
//! session's request goes to [`commands`](super::commands), what is in the outbox goes to the socket. The socket
//! itself lies beside the session in the shard, so that a broadcast writes without waking this task. What must stay
//! true: every way out passes through [`Shard::remove`], which takes the session out of hub and presence at once;
//! whatever becomes of a link after that, and of one whose session goes on without it, does not concern this task.

use super::{Entry, Key, Link, Shard, arm, commands, entry, takeover};
use crate::session::outbox::Flushed;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// The task of one session.
pub(super) struct Driver {
    shard: Rc<Shard>,
    key: Key,
    /// What is in progress.
    work: Option<Work>,
}

/// A request that is carried out.
pub(super) type Work = Pin<Box<dyn Future<Output = ()>>>;

impl Driver {
    /// Starts the task of a session, which has something in progress already or not.
    pub(super) fn start(shard: Rc<Shard>, key: Key, work: Option<Work>) {
        tokio::task::spawn_local(Driver { shard, key, work });
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        let shard = &driver.shard;
        let config = &shard.node.config;
        loop {
            if let Some(work) = &mut driver.work
                && work.as_mut().poll(cx).is_ready()
            {
                driver.work = None;
                let now = shard.node.env.clock.now();
                shard.with(driver.key, |entry| entry.session.resume(now, config));
            }
            shard.settle(driver.key);
            shard.tell_messages(driver.key);
            let mut borrowed = shard.state.borrow_mut();
            let state = &mut *borrowed;
            let Some(entry) = entry(&mut state.sessions, driver.key) else { return Poll::Ready(()) };
            entry.session.answer_poll();
            shard.note_written(driver.key, entry);
            if entry.session.closing().is_some() {
                break;
            }
            if driver.work.is_none() && state.returning.contains_key(&driver.key) {
                driver.work = Some(Box::pin(takeover::go_on(shard.clone(), driver.key)));
                continue;
            }
            if entry.session.is_away() && entry.link.is_some() {
                drop(borrowed);
                shard.let_go(driver.key);
                continue;
            }
            // A client that asks faster than it reads waits for its answers to be read.
            let is_behind = !entry.session.writes_before_it_reads()
                && entry.session.outbox.len() > config.client.max_outbox_bytes / 4
                && flush(shard, cx, entry).is_pending();
            if !is_behind
                && driver.work.is_none()
                && let Some(request) = entry.session.poll_request()
            {
                driver.work = Some(Box::pin(commands::carry_out(shard.clone(), driver.key, request)));
                continue;
            }
            if entry.session.wants_bytes(config) && shard.read(cx, entry).is_ready() {
                continue;
            }
            if entry.needs_driver() {
                continue;
            }
            if entry.session.outbox.is_empty() || flush(shard, cx, entry).is_pending() {
                if entry.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                    entry.waker = Some(cx.waker().clone());
                }
                arm(&mut state.wheel, driver.key, entry, config);
                return Poll::Pending;
            }
            // All is written, or writing failed: look again.
        }
        let Some(mut entry) = shard.remove(driver.key) else { return Poll::Ready(()) };
        if let Some(work) = driver.work.take()
            && entry.session.is_connected()
        {
            // A request that is under way with the broker is not torn off in the middle. Who was not connected only
            // asked who it is, and nobody waits for that any more.
            tokio::task::spawn_local(work);
        }
        let outbox = std::mem::take(&mut entry.session.outbox);
        if let (Some(link), Some(closing)) = (entry.link.take(), entry.session.closing()) {
            let keeps_alive =
                entry.session.connection().is_finished() && entry.session.connection().keeps_alive();
            shard.end_link(link, outbox, closing, keeps_alive, None);
        }
        let returning = shard.state.borrow_mut().returning.remove(&driver.key);
        if let Some(returning) = returning {
            // Why one was not let in concerns nobody else.
            let closing = entry.session.closing().filter(|_| entry.session.is_connected());
            shard.open_instead(returning, closing);
        }
        Poll::Ready(())
    }
}

/// Writes the outbox; ready once it is empty or the link broke, pending while the socket takes no more.
fn flush(shard: &Shard, cx: &mut Context<'_>, entry: &mut Entry) -> Poll<()> {
    let now = shard.node.env.clock.now();
    while shard.write(now, entry) == Flushed::Blocked {
        let Some(Link { stream, .. }) = &entry.link else { return Poll::Ready(()) };
        if let Err(error) = ready!(stream.poll_write_ready(cx)) {
            entry.session.handle_broken_link(error);
            break;
        }
    }
    Poll::Ready(())
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A panic is a bug of ours; it costs this one connection, and the connection leaves nothing behind.
        if std::thread::panicking() && self.shard.state.try_borrow_mut().is_ok() {
            drop(self.shard.remove(self.key));
            self.shard.state.borrow_mut().returning.remove(&self.key);
        }
    }
}

impl Shard {
    /// Reads once and hands what came to the session; pending if nothing did.
    fn read(&self, cx: &mut Context<'_>, entry: &mut Entry) -> Poll<()> {
        let scratch = &mut *self.scratch.borrow_mut();
        let Some(Link { stream, .. }) = &mut entry.link else { return Poll::Pending };
        match ready!(stream.poll_read_into(cx, scratch)) {
            Ok(0) => entry.session.handle_end(None),
            Ok(n) => {
                self.counters.bytes_in.add(n as u64);
                let now = self.node.env.clock.now();
                entry.session.handle_bytes(now, &scratch[..n], &self.node.config);
            }
            Err(error) => entry.session.handle_end(Some(error)),
        }
        Poll::Ready(())
    }

    /// Does something with a session that is still there.
    pub(super) fn with<T>(&self, key: Key, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        entry(&mut self.state.borrow_mut().sessions, key).map(act)
    }
}
