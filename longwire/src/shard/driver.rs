//! The small task of one session: it waits for the socket and for the one request in progress.
//!
//! It decides nothing: bytes go to the session, the session's request goes to
//! [`commands`](super::commands), what is in the outbox goes to the socket. The socket itself lies beside the
//! session in the shard, so that a broadcast writes without waking this task. What must stay true: every
//! way out passes through [`Shard::remove`], which takes the session out of hub and presence at once; only
//! the polite goodbye may take longer.

use super::{Entry, Key, Shard, arm, commands, entry};
use crate::session::outbox::Flushed;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a peer that was told goodbye may take to close its side.
const LINGER: Duration = Duration::from_secs(3);

/// The task of one session.
pub(super) struct Driver {
    shard: Rc<Shard>,
    key: Key,
    stage: Stage,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

enum Stage {
    /// Nothing is in progress.
    Idle,
    /// A request is.
    Working(Work),
    /// The session is gone; its link is being closed politely.
    Leaving(Work),
}

impl Driver {
    pub(super) fn new(shard: Rc<Shard>, key: Key) -> Driver {
        Driver { shard, key, stage: Stage::Idle }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        let shard = &driver.shard;
        let config = &shard.node.config;
        loop {
            match &mut driver.stage {
                Stage::Leaving(work) => return work.as_mut().poll(cx),
                Stage::Working(work) => {
                    if work.as_mut().poll(cx).is_ready() {
                        driver.stage = Stage::Idle;
                        let now = shard.node.env.clock.now();
                        shard.with(driver.key, |entry| entry.session.resume(now, config));
                    }
                }
                Stage::Idle => {}
            }
            shard.settle(driver.key);
            let mut state = shard.state.borrow_mut();
            let state = &mut *state;
            let Some(entry) = entry(&mut state.sessions, driver.key) else { return Poll::Ready(()) };
            // A client that asks faster than it reads waits for its answers to be read.
            let is_behind = entry.session.outbox.len() > config.client.max_outbox_bytes / 4
                && flush(shard, cx, entry).is_pending();
            if !is_behind
                && matches!(driver.stage, Stage::Idle)
                && let Some(request) = entry.session.poll_request()
            {
                driver.stage =
                    Stage::Working(Box::pin(commands::carry_out(shard.clone(), driver.key, request)));
                continue;
            }
            if entry.session.closing().is_none()
                && entry.session.wants_bytes(config)
                && shard.read(cx, entry).is_ready()
            {
                continue;
            }
            if entry.session.closing().is_some() {
                break;
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
        let Some(entry) = shard.remove(driver.key) else { return Poll::Ready(()) };
        if let Stage::Working(work) = std::mem::replace(&mut driver.stage, Stage::Idle)
            && entry.session.is_connected()
        {
            // A request that is under way with the broker is not torn off in the middle. Who was not connected only
            // asked who it is, and nobody waits for that any more.
            tokio::task::spawn_local(work);
        }
        let Some(closing) = entry.session.closing() else { return Poll::Ready(()) };
        if !closing.is_polite {
            if closing.initiator == crate::session::Initiator::Server {
                entry.link.stream.abort_on_drop();
            }
            return Poll::Ready(());
        }
        let mut work: Work = Box::pin(goodbye(shard.clone(), entry));
        if work.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        driver.stage = Stage::Leaving(work);
        Poll::Pending
    }
}

/// Writes the outbox; ready once it is empty or the link broke, pending while the socket takes no more.
fn flush(shard: &Shard, cx: &mut Context<'_>, entry: &mut Entry) -> Poll<()> {
    let now = shard.node.env.clock.now();
    while shard.write(now, entry) == Flushed::Blocked {
        if let Err(error) = ready!(entry.link.stream.poll_write_ready(cx)) {
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
        }
    }
}

impl Shard {
    /// Reads once and hands what came to the session; pending if nothing did.
    fn read(&self, cx: &mut Context<'_>, entry: &mut Entry) -> Poll<()> {
        let scratch = &mut *self.scratch.borrow_mut();
        match ready!(entry.link.stream.poll_read_into(cx, scratch)) {
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

/// Writes the last words, ends the writing half and waits for the peer to do the same.
async fn goodbye(shard: Rc<Shard>, mut entry: Box<Entry>) {
    let clock = shard.node.env.clock;
    let polite = async {
        let write = |cx: &mut Context<'_>| {
            while shard.write(clock.now(), &mut entry) == Flushed::Blocked {
                // A broken link shows when the write is tried again.
                let _ = ready!(entry.link.stream.poll_write_ready(cx));
            }
            Poll::Ready(())
        };
        std::future::poll_fn(write).await;
        entry.link.stream.shutdown_write();
        shard.discard(&mut entry.link.stream).await
    };
    if clock.timeout(LINGER, polite).await.is_none() {
        entry.link.stream.abort_on_drop();
    }
    // What the peer did not take waits no longer.
    entry.session.outbox.clear();
    entry.count_outbox(&shard.counters);
}
