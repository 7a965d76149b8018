//! The task that moves a machine: sockets, a timer, and nothing that decides.
//!
//! One task for each client. It is a future written by hand, so that a waiting client costs little more than its
//! sockets: bytes are read into a buffer that the thread's clients share, the timer exists while something is due, and
//! no lock is held while it waits. What must stay true: the order of what a machine gives is the order in which it is
//! written; a socket is read only while its machine wants bytes; what has to be closed is closed in bounded time; who
//! waits for a machine is told when nobody moves it any more.

use crate::cause::Cause;
use crate::dial::{self, Socket};
use crate::machine::{End, Line, Machine, Output};
use crate::options::Tls;
use crate::shared::Shared;
use bytes::{Buf, Bytes};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What one read takes at most.
const SCRATCH_BYTES: usize = 64 << 10;

/// How many pieces one write takes at most.
const MAX_SLICES: usize = 32;

/// How often the task goes round before others have their turn.
const MAX_ROUNDS: u32 = 16;

/// How long a socket that is closed may take for its last bytes and the peer's end.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Moves one machine until it is over.
pub(crate) struct Driver<M: Machine> {
    shared: Arc<Shared<M>>,
    tls: Tls,
    lines: Vec<(Line, State)>,
    sleep: Option<Pin<Box<Sleep>>>,
}

type Dialling = Pin<Box<dyn Future<Output = Result<Socket, Cause>> + Send>>;

enum State {
    Dialling(Dialling),
    Open(Open),
    /// Of no more interest to the machine: the last bytes, then the end.
    Closing(Box<Closing>),
    Gone,
}

/// A connected socket and what is to be written to it.
struct Open {
    socket: Socket,
    out: VecDeque<Bytes>,
    unwritten: usize,
    /// TLS may hold what it took.
    is_flushed: bool,
    /// A write was told that the connection is reset.
    was_reset: bool,
    has_ended: bool,
}

struct Closing {
    open: Open,
    has_shut_down: bool,
    until: Pin<Box<Sleep>>,
}

impl<M: Machine> Driver<M> {
    pub(crate) fn new(shared: Arc<Shared<M>>, tls: Tls) -> Driver<M> {
        Driver { shared, tls, lines: Vec::new(), sleep: None }
    }

    /// Takes what the machine wants done; says whether anything was, and whether the machine is over.
    fn take_outputs(&mut self, waker: &Waker) -> (bool, bool) {
        let Driver { shared, tls, lines, sleep } = self;
        let (is_busy, is_over, timeout) = shared.drive(waker, |machine, _| {
            let mut is_busy = false;
            while let Some(output) = machine.poll_output() {
                is_busy = true;
                apply(lines, tls, output);
            }
            (is_busy, machine.is_over(), machine.poll_timeout())
        });
        match (timeout, sleep.as_mut()) {
            (None, _) => *sleep = None,
            (Some(at), Some(sleep)) if sleep.deadline().into_std() == at => {}
            (Some(at), Some(sleep)) => sleep.as_mut().reset(at.into()),
            (Some(at), None) => *sleep = Some(Box::pin(tokio::time::sleep_until(at.into()))),
        }
        (is_busy, is_over)
    }

    /// Goes on with every line; says whether anything happened.
    fn move_lines(&mut self, cx: &mut Context<'_>) -> bool {
        let Driver { shared, lines, .. } = self;
        let mut is_busy = false;
        for (line, state) in lines.iter_mut() {
            is_busy |= match state {
                State::Dialling(dialling) => match dialling.as_mut().poll(cx) {
                    Poll::Pending => false,
                    Poll::Ready(result) => {
                        let result = result.map(|socket| *state = State::Open(Open::new(socket)));
                        if result.is_err() {
                            *state = State::Gone;
                        }
                        shared.drive(cx.waker(), |machine, now| machine.handle_dialled(now, *line, result));
                        true
                    }
                },
                State::Open(open) => open.write_for(shared, *line, cx) | open.read_for(shared, *line, cx),
                State::Closing(closing) => {
                    let is_done = closing.poll(cx);
                    if is_done {
                        *state = State::Gone;
                    }
                    is_done
                }
                State::Gone => false,
            };
        }
        let count = lines.len();
        lines.retain(|(_, state)| !matches!(state, State::Gone));
        if lines.len() < count {
            lines.shrink_to_fit();
        }
        is_busy
    }

    fn move_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let is_due = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(cx).is_ready());
        if is_due {
            self.sleep = None;
            self.shared.drive(cx.waker(), |machine, now| machine.handle_timeout(now));
        }
        is_due
    }
}

impl<M: Machine> Future for Driver<M> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..MAX_ROUNDS {
            let (had_outputs, is_over) = this.take_outputs(cx.waker());
            // Sockets before the clock: bytes that came in time are heard before anybody is called silent.
            let is_busy = this.move_lines(cx) | this.move_clock(cx);
            if is_over && this.lines.is_empty() {
                return Poll::Ready(());
            }
            if !had_outputs && !is_busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A task that is dropped before its end, with its runtime, leaves nobody waiting.
impl<M: Machine> Drop for Driver<M> {
    fn drop(&mut self) {
        self.lines.clear();
        self.shared.with(|machine, now| machine.handle_abandoned(now));
    }
}

/// Does what a machine wants.
fn apply(lines: &mut Vec<(Line, State)>, tls: &Tls, output: Output) {
    match output {
        Output::Dial { line, address, timeout } => {
            lines.reserve_exact(1);
            lines.push((line, State::Dialling(Box::pin(dial::dial(address, timeout, tls.clone())))));
        }
        Output::Transmit { line, bytes } => {
            if let Some((_, State::Open(open))) = lines.iter_mut().find(|(known, _)| *known == line) {
                open.unwritten += bytes.len();
                open.out.push_back(bytes);
            }
        }
        Output::Close { line, abort } => {
            let Some((_, state)) = lines.iter_mut().find(|(known, _)| *known == line) else { return };
            *state = match std::mem::replace(state, State::Gone) {
                State::Open(open) if abort || open.has_ended => {
                    if abort {
                        open.socket.abort();
                    }
                    State::Gone
                }
                State::Open(open) => State::Closing(Box::new(Closing {
                    open,
                    has_shut_down: false,
                    until: Box::pin(tokio::time::sleep(CLOSE_GRACE)),
                })),
                State::Closing(_) | State::Dialling(_) | State::Gone => State::Gone,
            };
        }
    }
}

impl Open {
    fn new(socket: Socket) -> Open {
        Open {
            socket,
            out: VecDeque::new(),
            unwritten: 0,
            is_flushed: true,
            was_reset: false,
            has_ended: false,
        }
    }

    /// Writes what it can and tells the machine how much is left; says whether anything was written.
    fn write_for<M: Machine>(&mut self, shared: &Shared<M>, line: Line, cx: &mut Context<'_>) -> bool {
        if self.has_ended || (self.out.is_empty() && self.is_flushed) {
            return false;
        }
        let before = self.unwritten;
        let result = self.write(cx);
        let is_busy = self.unwritten < before;
        let unwritten = self.unwritten;
        shared.drive(cx.waker(), |machine, now| machine.handle_unwritten(now, line, unwritten));
        if let Poll::Ready(Err(error)) = result {
            self.was_reset = error.kind() == ErrorKind::ConnectionReset;
            // What was read of its last words comes first: a peer that refuses says why and closes.
            while self.read_for(shared, line, cx) && !self.has_ended {}
            if !self.has_ended {
                self.end(shared, line, cx.waker(), end_of(&error));
            }
            return true;
        }
        is_busy
    }

    /// Writes until nothing is left or nothing is taken.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, bytes) in slices.iter_mut().zip(&self.out) {
                *slice = IoSlice::new(bytes);
                count += 1;
            }
            let written = match Pin::new(&mut self.socket).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
            };
            self.is_flushed = false;
            self.take(written);
        }
        if !self.is_flushed {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Forgets what was written.
    fn take(&mut self, mut written: usize) {
        self.unwritten = self.unwritten.saturating_sub(written);
        while let Some(bytes) = self.out.front_mut() {
            if bytes.len() > written {
                bytes.advance(written);
                return;
            }
            written -= bytes.len();
            self.out.pop_front();
        }
        self.out = VecDeque::new();
    }

    /// Reads once, if the machine wants it, and gives it what came; says whether anything did.
    fn read_for<M: Machine>(&mut self, shared: &Shared<M>, line: Line, cx: &mut Context<'_>) -> bool {
        if self.has_ended || !shared.drive(cx.waker(), |machine, _| machine.wants_bytes(line)) {
            return false;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH_BYTES, 0);
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Pending => false,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.end(shared, line, cx.waker(), End::Eof);
                    true
                }
                Poll::Ready(Ok(())) => {
                    let bytes = buffer.filled();
                    shared.drive(cx.waker(), |machine, now| machine.handle_bytes(now, line, bytes));
                    true
                }
                Poll::Ready(Err(error)) => {
                    self.end(shared, line, cx.waker(), end_of(&error));
                    true
                }
            }
        })
    }

    fn end<M: Machine>(&mut self, shared: &Shared<M>, line: Line, waker: &Waker, mut end: End) {
        self.has_ended = true;
        // The system tells of a reset once: if a write was told, what is read then only looks like an end, over TLS
        // like one without a farewell.
        if self.was_reset && matches!(end, End::Eof) {
            end = End::Reset;
        }
        shared.drive(waker, |machine, now| machine.handle_end(now, line, end));
    }
}

fn end_of(error: &io::Error) -> End {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => End::Reset,
        // TLS without its farewell: what came before it is whole, for every dialect knows its own ends.
        ErrorKind::UnexpectedEof => End::Eof,
        _ => End::Failed(error.to_string()),
    }
}

impl Closing {
    /// Writes the last bytes, says that there are no more, and waits for the peer's end, so that unread bytes do not
    /// turn the farewell into a reset; says whether it is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.until.as_mut().poll(cx).is_ready() {
            return true;
        }
        if !self.has_shut_down {
            match self.open.write(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => {}
            }
            match Pin::new(&mut self.open.socket).poll_shutdown(cx) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) => self.has_shut_down = true,
            }
        }
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(SCRATCH_BYTES, 0);
            loop {
                let mut buffer = ReadBuf::new(scratch);
                match Pin::new(&mut self.open.socket).poll_read(cx, &mut buffer) {
                    Poll::Pending => return false,
                    Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                    Poll::Ready(_) => return true,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
