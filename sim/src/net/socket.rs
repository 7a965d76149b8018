//! What processes hold of the network: listeners, accepted sockets, dialled sockets.
//!
//! Thin: each call goes through the lock to the connection. Dropping one is what a kernel sees as closing.

use super::fate::{ConnId, Side};
use super::kernel::Handle;
use longwire::env::net::{Listen, Network, Socket};
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

/// The network as the processes of one host see it.
#[derive(Clone)]
pub struct HostNet {
    pub(super) handle: Handle,
    pub(super) ip: IpAddr,
}

impl Network for HostNet {
    fn listen(&self, address: SocketAddr, user_timeout: Duration) -> io::Result<Box<dyn Listen>> {
        if !address.ip().is_unspecified() && address.ip() != self.ip {
            let text = format!("cannot listen on {address}: the host is {}", self.ip);
            return Err(io::Error::new(ErrorKind::AddrNotAvailable, text));
        }
        let listening = self.handle.with(|state| state.listen(self.ip, address.port(), user_timeout));
        let (bound, id) = listening.ok_or_else(|| {
            let text = format!("cannot listen on {address}: the address is in use");
            io::Error::new(ErrorKind::AddrInUse, text)
        })?;
        let shown = SocketAddr::new(address.ip(), bound.port());
        Ok(Box::new(SimListener { handle: self.handle.clone(), bound, shown, id }))
    }
}

struct SimListener {
    handle: Handle,
    bound: SocketAddr,
    /// As asked for, with the real port.
    shown: SocketAddr,
    id: u64,
}

impl Listen for SimListener {
    fn address(&self) -> SocketAddr {
        self.shown
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Socket>, SocketAddr)>> {
        self.handle.with(|state| state.poll_accept(self.bound, self.id, cx.waker())).map(|(id, client)| {
            let socket = SimSocket { handle: self.handle.clone(), id, side: Side::Server };
            Ok((Box::new(socket) as Box<dyn Socket>, client))
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.handle.with(|state| state.unlisten(self.bound, self.id));
    }
}

pub(super) struct SimSocket {
    pub(super) handle: Handle,
    pub(super) id: ConnId,
    pub(super) side: Side,
}

impl Socket for SimSocket {
    fn poll_read(&self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, now| {
                connection.poll_read(self.side, cx, scratch, shared, now)
            })
        });
        // A killed process may go on for a while in the simulator; it hears of nothing.
        read.unwrap_or(Poll::Pending)
    }

    fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize> {
        let read = self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, now| {
                connection.read(self.side, scratch, shared, now)
            })
        });
        read.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, now| {
                connection.write(self.side, slices, shared, now)
            })
        });
        written.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, _| {
                connection.poll_write_ready(self.side, cx, shared)
            })
        });
        ready.unwrap_or(Poll::Pending)
    }

    fn shutdown_write(&self) {
        self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, now| {
                connection.shutdown_write(self.side, shared, now);
            })
        });
    }

    fn abort_on_drop(&self) {
        self.handle.with(|state| {
            state.with_connection(self.id, |connection, _, _| connection.abort_on_close(self.side))
        });
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.handle.with(|state| {
            state.with_connection(self.id, |connection, shared, now| {
                connection.close(self.side, shared, now);
            })
        });
    }
}

/// A connection that was dialled.
pub struct Dialled {
    /// The socket; dropping it closes the connection.
    pub socket: Box<dyn Socket>,
    /// This end's address, which is what the server sees.
    pub local: SocketAddr,
    /// The connection's name.
    pub id: ConnId,
}

impl Dialled {
    /// Reads: the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// What a kernel would give: reset or timed out.
    pub async fn read(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, scratch)).await
    }

    /// As [`read`](Self::read), by polling.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_read(cx, scratch)
    }

    /// Writes some of `bytes`, as much as fits.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::task::ready!(self.socket.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Writes all of `bytes`, waiting for room as it needs.
    ///
    /// # Errors
    /// What a kernel would give; how much was written before is not told.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Ends the writing half.
    pub fn shutdown_write(&mut self) {
        self.socket.shutdown_write();
    }

    /// Makes dropping abortive.
    pub fn abort_on_drop(&mut self) {
        self.socket.abort_on_drop();
    }
}
