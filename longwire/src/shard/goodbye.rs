//! The end of a link: its last words, or a reset.
//!
//! A link that ends politely is looked after apart from its session, which is gone, or goes on with another link. What
//! must stay true: a peer that takes no last words, or does not end its side, keeps its socket for a moment only; what
//! waits for it is in the shard's gauge of outboxes.

use super::{Link, Shard};
use crate::session::outbox::{Flushed, Outbox};
use crate::session::{Closing, Initiator};
use crate::telemetry::ShardCounters;
use longwire_protocol::{CloseReason, Position};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long a peer that was told goodbye may take to close its side.
const LINGER: Duration = Duration::from_secs(3);

/// Bytes that wait for a peer, in the shard's gauge.
struct LastWords {
    outbox: Outbox,
    counters: Arc<ShardCounters>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        self.counters.outbox_bytes.sub(self.outbox.len() as u64);
    }
}

impl Shard {
    /// Ends a link as `closing` says; `outbox` is what is written before that, if the end is polite. One that carried a
    /// poll which was answered may carry another request if `keeps_alive`; `answered` is the number of the answer.
    pub(super) fn end_link(
        self: &Rc<Shard>,
        mut link: Link,
        outbox: Outbox,
        closing: &Closing,
        keeps_alive: bool,
        answered: Option<Position>,
    ) {
        if closing.is_polite {
            self.counters.outbox_bytes.add(outbox.len() as u64);
            let words = LastWords { outbox, counters: self.counters.clone() };
            self.run_apart(say_goodbye(self.clone(), link, words, keeps_alive, answered));
        } else if closing.initiator == Initiator::Server {
            link.stream.abort_on_drop();
        } else {
            // With TLS, each side says that it ends (RFC 8446 section 6.1).
            link.stream.end_politely();
        }
    }

    /// Counts a link that was closed.
    pub(super) fn count_close(&self, reason: CloseReason) {
        self.counters.closes[reason as usize].add(1);
        if reason == CloseReason::NoHeartbeat {
            self.counters.heartbeats_missed.add(1);
        }
    }

    /// Writes what the socket takes; false if more is left.
    fn write_last(&self, link: &Link, words: &mut LastWords) -> bool {
        let (now, mut written) = (self.node.env.clock.now(), 0);
        let flushed = words.outbox.flush(now, &mut written, |slices| link.stream.try_write_vectored(slices));
        self.counters.bytes_out.add(written);
        self.counters.outbox_bytes.sub(written);
        // To a link that broke there is nothing left to say.
        !matches!(flushed, Ok(Flushed::Blocked))
    }
}

/// Writes the last words, ends the writing half and waits for the peer to do the same; or gives the link back to the
/// front door, which is told what was `answered`.
async fn say_goodbye(
    shard: Rc<Shard>,
    mut link: Link,
    mut words: LastWords,
    keeps_alive: bool,
    answered: Option<Position>,
) {
    let clock = shard.node.env.clock;
    let write = async {
        let write = |cx: &mut Context<'_>| {
            while !shard.write_last(&link, &mut words) {
                // A broken link shows when the write is tried again.
                let _ = ready!(link.stream.poll_write_ready(cx));
            }
            Poll::Ready(())
        };
        std::future::poll_fn(write).await;
    };
    let is_over = clock.timeout(LINGER, write).await.is_none();
    let is_written = words.outbox.is_empty();
    if is_over {
        return link.stream.abort_on_drop();
    }
    if is_written
        && keeps_alive
        && let Some(to_front_door) = shard.to_front_door.get()
    {
        return to_front_door(link, answered);
    }
    link.stream.shutdown_write();
    if clock.timeout(LINGER, shard.discard(&mut link.stream)).await.is_none() {
        link.stream.abort_on_drop();
    }
}
