//! What the processes at the two ends do to a connection, and what becomes of it without them: reading, writing,
//! closing, being killed, losing power. The errors and the order in which they are given are those of Linux.

use super::super::fate::{Happening, Side, Why};
use super::super::kernel::Shared;
use super::super::pipe::Ending;
use super::Connection;
use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

impl Connection {
    pub(in crate::net) fn poll_read(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        shared: &mut Shared,
        now: Instant,
    ) -> Poll<io::Result<usize>> {
        match self.read(side, scratch, shared, now) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                shared.replace(&mut self.ends[side].reader, cx.waker());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    pub(in crate::net) fn read(
        &mut self,
        side: Side,
        scratch: &mut [u8],
        shared: &mut Shared,
        now: Instant,
    ) -> io::Result<usize> {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[side.other()]);
        if end.is_gone {
            return Err(ErrorKind::WouldBlock.into());
        }
        if scratch.is_empty() {
            return Ok(0);
        }
        if pipe.unread() > 0 {
            let count = pipe.take(scratch);
            if end.is_alive && pipe.has_much_room() {
                self.tell(side.other(), Duration::ZERO, shared, now);
            }
            return Ok(count);
        }
        if pipe.ended {
            return Ok(0);
        }
        match end.error.take() {
            Some(kind) => Err(kind.into()),
            None if end.is_alive => Err(ErrorKind::WouldBlock.into()),
            // The error was given to an earlier call.
            None => Ok(0),
        }
    }

    pub(in crate::net) fn write(
        &mut self,
        side: Side,
        slices: &[IoSlice<'_>],
        shared: &mut Shared,
        now: Instant,
    ) -> io::Result<usize> {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[side]);
        if end.is_gone {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(kind) = end.error.take() {
            return Err(kind.into());
        }
        if !end.is_alive || pipe.ending != Ending::Open {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Ok(0);
        }
        let count = pipe.write(slices).ok_or(ErrorKind::WouldBlock)?;
        self.transmit(side, shared, now);
        Ok(count)
    }

    pub(in crate::net) fn poll_write_ready(
        &mut self,
        side: Side,
        cx: &mut Context<'_>,
        shared: &mut Shared,
    ) -> Poll<io::Result<()>> {
        let (end, pipe) = (&mut self.ends[side], &mut self.pipes[side]);
        let fails_at_once = !end.is_alive || pipe.ending != Ending::Open;
        if !end.is_gone && (fails_at_once || pipe.is_writable()) {
            return Poll::Ready(Ok(()));
        }
        shared.replace(&mut end.writer, cx.waker());
        Poll::Pending
    }

    pub(in crate::net) fn shutdown_write(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        if self.ends[side].is_alive && self.pipes[side].ending == Ending::Open {
            self.pipes[side].ending = Ending::Queued;
            self.record(Happening::Fin(side), shared, now);
            self.transmit(side, shared, now);
            shared.wakes.extend(self.ends[side].writer.take());
        }
    }

    pub(in crate::net) fn abort_on_close(&mut self, side: Side) {
        self.ends[side].aborts = true;
    }

    /// Someone took the connection from the queue of its listener.
    pub(in crate::net) fn accepted(&mut self, shared: &mut Shared, now: Instant) {
        self.record(Happening::Accepted, shared, now);
    }

    pub(in crate::net) fn close(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        let end = &mut self.ends[side];
        if !end.is_open {
            return;
        }
        end.is_open = false;
        end.closed_at = Some(now);
        shared.spent.extend(end.reader.take());
        shared.spent.extend(end.writer.take());
        if end.is_gone {
            return;
        }
        let (is_alive, aborts) = (end.is_alive, end.aborts);
        self.record(Happening::Closed(side), shared, now);
        let inward = &mut self.pipes[side.other()];
        let has_unread = inward.unread() > 0;
        inward.discard_unread();
        if is_alive && (aborts || has_unread) {
            self.forget(side, shared);
            self.send_reset(side, if aborts { Why::Aborted } else { Why::Unread }, shared, now);
        } else if is_alive {
            self.shutdown_write(side, shared, now);
            self.settle(side, shared, now);
            self.watch(side, shared);
        }
    }

    /// The process ends without a word of its own; its kernel closes the socket.
    pub(in crate::net) fn kill(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        if self.ends[side].is_open {
            self.record(Happening::Killed(side), shared, now);
            self.close(side, shared, now);
            self.ends[side].is_gone = true;
        }
    }

    /// The host of `side` loses power.
    pub(in crate::net) fn vanish(&mut self, side: Side, shared: &mut Shared, now: Instant) {
        let end = &mut self.ends[side];
        if !end.is_alive && !end.is_open {
            return;
        }
        end.is_gone = true;
        end.error = None;
        self.forget(side, shared);
        self.pipes[side.other()].discard_unread();
        self.record(Happening::Vanished(side), shared, now);
    }
}
