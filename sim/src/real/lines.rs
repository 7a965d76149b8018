//! The sockets of one real client: what its driver would hold.
//!
//! Each is dialled, open, or being closed: then its last bytes are written, its half ended, and the peer's end awaited
//! for a while. What must stay true: what is closed is heard of no more.

use crate::net::{ConnId, Dialled};
use longwire_client::machine::{End, Line, Machine};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How long a socket that is closed may take for its last bytes and the peer's end.
pub(super) const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// How much one read takes.
const READ_BYTES: usize = 16 * 1024;

type Dialling = Pin<Box<dyn Future<Output = io::Result<(Dialled, SocketAddr)>>>>;

/// What happened on a line.
pub(super) enum Happened {
    /// Here, and to whom.
    Dialled(io::Result<(SocketAddr, ConnId, SocketAddr)>),
    /// So much is left to be written.
    Wrote(usize),
    Read(Vec<u8>),
    Ended(End),
}

/// Sockets by their numbers.
#[derive(Default)]
pub(super) struct Lines {
    lines: BTreeMap<Line, State>,
}

enum State {
    Dialling(Dialling),
    Open(Open),
    Closing { open: Open, has_shut_down: bool, until: Instant },
}

struct Open {
    link: Dialled,
    unsent: VecDeque<u8>,
    /// Something was given since the last attempt to write.
    is_fresh: bool,
    has_ended: bool,
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether the line came to be connected.
    pub(super) fn was_connected(&self, line: Line) -> bool {
        matches!(self.lines.get(&line), Some(State::Open(_) | State::Closing { .. }))
    }

    /// Whether the peer ended it, or it broke.
    pub(super) fn has_ended(&self, line: Line) -> bool {
        matches!(self.lines.get(&line), Some(State::Open(Open { has_ended: true, .. })))
    }

    /// Whether all that was given was written.
    pub(super) fn is_written(&self, line: Line) -> bool {
        match self.lines.get(&line) {
            Some(State::Open(open) | State::Closing { open, .. }) => open.unsent.is_empty(),
            _ => true,
        }
    }

    pub(super) fn dial(
        &mut self,
        line: Line,
        dialling: impl Future<Output = io::Result<(Dialled, SocketAddr)>> + 'static,
    ) {
        self.lines.insert(line, State::Dialling(Box::pin(dialling)));
    }

    pub(super) fn transmit(&mut self, line: Line, bytes: &[u8]) {
        if let Some(State::Open(open)) = self.lines.get_mut(&line) {
            open.unsent.extend(bytes);
            open.is_fresh = true;
        }
    }

    pub(super) fn close(&mut self, line: Line, abort: bool, until: Instant) {
        if let Some(State::Open(mut open)) = self.lines.remove(&line) {
            if abort {
                open.link.abort_on_drop();
            } else if !open.has_ended {
                self.lines.insert(line, State::Closing { open, has_shut_down: false, until });
            }
        }
    }

    /// Lets go of everything; the lines that were of interest.
    pub(super) fn drop_all(&mut self) -> Vec<Line> {
        let lines = std::mem::take(&mut self.lines);
        lines.into_iter().filter(|(_, state)| matches!(state, State::Open(_))).map(|(line, _)| line).collect()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let untils = self.lines.values().filter_map(|state| match state {
            State::Closing { until, .. } => Some(*until),
            _ => None,
        });
        untils.min()
    }

    /// Lets go of what took too long to close.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.lines.retain(|_, state| !matches!(state, State::Closing { until, .. } if *until <= now));
    }

    /// Waits until something happens on a line.
    pub(super) async fn next(
        &mut self,
        machine: &mut dyn Machine,
        is_reading_paused: bool,
    ) -> (Line, Happened) {
        poll_fn(|cx| self.poll(cx, machine, is_reading_paused)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut dyn Machine,
        is_reading_paused: bool,
    ) -> Poll<(Line, Happened)> {
        let mut closed = Vec::new();
        let mut happened = None;
        for (line, state) in &mut self.lines {
            let line = *line;
            let polled = match state {
                State::Dialling(dialling) => dialling.as_mut().poll(cx).map(|result| {
                    Some(match result {
                        Ok((link, to)) => {
                            let (local, id) = (link.local, link.id);
                            let unsent = VecDeque::new();
                            *state = State::Open(Open { link, unsent, is_fresh: false, has_ended: false });
                            Happened::Dialled(Ok((local, id, to)))
                        }
                        Err(error) => {
                            closed.push(line);
                            Happened::Dialled(Err(error))
                        }
                    })
                }),
                State::Open(open) => {
                    let is_read = !is_reading_paused && machine.wants_bytes(line);
                    open.poll(cx, is_read).map(Some)
                }
                State::Closing { open, has_shut_down, .. } => {
                    if open.poll_closing(cx, has_shut_down).is_ready() {
                        closed.push(line);
                    }
                    Poll::Pending
                }
            };
            if let Poll::Ready(Some(what)) = polled {
                happened = Some((line, what));
                break;
            }
        }
        let was_closed = !closed.is_empty();
        closed.into_iter().for_each(|line| drop(self.lines.remove(&line)));
        match happened {
            Some(happened) => Poll::Ready(happened),
            None => {
                if was_closed && self.lines.is_empty() {
                    // Whoever waits for the last of them looks again.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl Open {
    fn poll(&mut self, cx: &mut Context<'_>, is_read: bool) -> Poll<Happened> {
        if self.has_ended {
            return Poll::Pending;
        }
        let before = self.unsent.len();
        let writing = self.write(cx);
        let is_fresh = std::mem::take(&mut self.is_fresh);
        if let Err(error) = writing {
            self.has_ended = true;
            return Poll::Ready(Happened::Ended(end_of(&error)));
        }
        if self.unsent.len() < before || is_fresh {
            return Poll::Ready(Happened::Wrote(self.unsent.len()));
        }
        if !is_read {
            return Poll::Pending;
        }
        let mut scratch = vec![0; READ_BYTES];
        match self.link.poll_read(cx, &mut scratch) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                self.has_ended = true;
                Poll::Ready(Happened::Ended(End::Eof))
            }
            Poll::Ready(Ok(count)) => {
                scratch.truncate(count);
                Poll::Ready(Happened::Read(scratch))
            }
            Poll::Ready(Err(error)) => {
                self.has_ended = true;
                Poll::Ready(Happened::Ended(end_of(&error)))
            }
        }
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>, has_shut_down: &mut bool) -> Poll<()> {
        if self.write(cx).is_err() {
            return Poll::Ready(());
        }
        if self.unsent.is_empty() && !std::mem::replace(has_shut_down, true) {
            self.link.shutdown_write();
        }
        let mut scratch = [0; 4096];
        loop {
            match self.link.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Writes what fits.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.unsent.is_empty() {
            let (front, _) = self.unsent.as_slices();
            match self.link.socket.try_write_vectored(&[IoSlice::new(front)]) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match self.link.socket.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Ok(()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
        _ => End::Failed(error.to_string()),
    }
}
