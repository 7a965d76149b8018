//! Sockets: listening, and one stream of bytes.
//!
//! A [`Listener`] hands out [`Accepted`] sockets that belong to no runtime yet; the shard that takes one
//! makes it a [`Stream`], so that a socket is registered with one poller only. Options that Linux lets an
//! accepted socket inherit are set once, on the listener. Nothing here understands the bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A listening socket.
pub struct Listener {
    socket: AsyncFd<socket2::Socket>,
    address: SocketAddr,
}

/// A socket that was accepted and is registered nowhere.
pub struct Accepted {
    socket: socket2::Socket,
    /// The other end.
    pub peer: SocketAddr,
}

impl Listener {
    /// Listens on `address` with the longest backlog that the system allows.
    ///
    /// `user_timeout` is how long the kernel keeps trying to deliver written bytes to a peer that does not
    /// acknowledge them (`TCP_USER_TIMEOUT`); it and `TCP_NODELAY` pass to every accepted socket.
    ///
    /// # Errors
    /// The operating system's, with the address in the text.
    pub fn bind(address: SocketAddr, user_timeout: Duration) -> io::Result<Listener> {
        let listen = || {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
            socket.set_reuse_address(true)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_tcp_user_timeout(Some(user_timeout))?;
            socket.bind(&address.into())?;
            socket.listen(backlog())?;
            let bound = socket.local_addr()?.as_socket().unwrap_or(address);
            Ok(Listener { socket: watch(socket)?, address: bound })
        };
        listen().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })
    }

    /// The address that is listened on; its port is the real one where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system's; out of descriptors is the one that a caller should wait out.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let (socket, peer) = self
            .socket
            .async_io(tokio::io::Interest::READABLE, |listener| {
                // `accept4` sets close-on-exec; non-blocking is set by the receiver of the socket.
                listener.accept()
            })
            .await?;
        let peer = peer.as_socket().ok_or_else(|| io::Error::other("the peer has no internet address"))?;
        Ok(Accepted { socket, peer })
    }
}

/// Whether accepting failed because something ran out: descriptors (`EMFILE`, `ENFILE`) or memory (`ENOMEM`,
/// `ENOBUFS`).
pub fn is_out_of_resources(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

/// Has the runtime watch a listening socket.
///
/// Tokio's own listener would register each accepted socket with the accepting thread's poller, only to be
/// taken out again for its shard.
#[expect(unsafe_code, reason = "the promise that registering asks for is kept, see below")]
fn watch(socket: socket2::Socket) -> io::Result<AsyncFd<socket2::Socket>> {
    // SAFETY: a `Socket` owns its descriptor and gives out the same one until it is dropped, and the
    // `AsyncFd`, which owns the `Socket`, deregisters it before that.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// The system's limit for a listen backlog.
fn backlog() -> i32 {
    super::disk::read_to_string(std::path::Path::new("/proc/sys/net/core/somaxconn"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(4096)
}

impl Accepted {
    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn into_stream(self) -> io::Result<Stream> {
        let socket = std::net::TcpStream::from(self.socket);
        socket.set_nonblocking(true)?;
        Ok(Stream(TcpStream::from_std(socket)?))
    }

    /// Writes what the socket takes at once, and closes it.
    ///
    /// A registered stream would take nothing yet: its runtime has not asked the poller whether it could.
    pub fn turn_away(self, last_words: &[u8]) {
        use std::io::Write;
        if self.socket.set_nonblocking(true).is_ok() {
            // If not even that fits, closing says enough.
            let _ = (&self.socket).write(last_words);
        }
    }
}

/// A stream of bytes, registered with the runtime of the thread that made it.
pub struct Stream(TcpStream);

impl Stream {
    /// Reads into `scratch`: the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// The operating system's.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(scratch);
        match Pin::new(&mut self.0).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads what is there, without waiting and whether or not the runtime has heard of it.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; otherwise the operating system's.
    pub fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize> {
        use std::io::Read;
        (&*socket2::SockRef::from(&self.0)).read(scratch)
    }

    /// Writes what fits, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; otherwise the operating system's.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    /// Writes what fits of one slice, without waiting.
    ///
    /// # Errors
    /// As [`try_write_vectored`](Self::try_write_vectored).
    pub fn try_write(&self, slice: &[u8]) -> io::Result<usize> {
        self.0.try_write(slice)
    }

    /// Waits until something can be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    /// Ends the writing half: what was written is delivered, then the end.
    pub fn shutdown_write(&mut self) {
        let waker = std::task::Waker::noop();
        // The shutdown of a TCP socket is one system call that never waits; an error means it is closed.
        let _ = Pin::new(&mut self.0).poll_shutdown(&mut Context::from_waker(waker));
    }

    /// Makes the drop of this stream abortive: unsent bytes are thrown away and the peer gets a reset.
    pub fn abort_on_drop(&self) {
        // An error means that the socket is closed, which is what was wanted.
        let _ = socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO));
    }

    /// Takes the socket away from this thread's runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn into_accepted(self, peer: SocketAddr) -> io::Result<Accepted> {
        Ok(Accepted { socket: self.0.into_std()?.into(), peer })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
