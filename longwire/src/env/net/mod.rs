//! Sockets: listening, and one stream of bytes.
//!
//! A [`Listener`] hands out [`Accepted`] sockets that belong to no runtime yet; the shard that takes one
//! makes it a [`Stream`], so that a socket is registered with one poller only. Options that Linux lets an
//! accepted socket inherit are set once, on the listener. Another [`Network`] than the system's may stand
//! behind all three, which is what a simulator needs. A listener may be one of TLS ([`tls`]): whoever holds its
//! streams reads and writes plain text. Nothing else here understands the bytes.

pub mod dial;
pub mod tls;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A network that stands in for the system's: what a simulator implements.
pub trait Network: Send + Sync {
    /// As [`Net::listen`].
    ///
    /// # Errors
    /// Those that the system's would give.
    fn listen(&self, address: SocketAddr, user_timeout: Duration) -> io::Result<Box<dyn Listen>>;
}

/// A listening socket of another network than the system's.
pub trait Listen: Send {
    /// The address that is listened on.
    fn address(&self) -> SocketAddr;

    /// The next connection and who is at its other end.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Box<dyn Socket>, SocketAddr)>>;
}

/// A connected socket of another network than the system's. Dropped, it closes: with an end, or with a reset
/// if it was told so or if something is left unread.
pub trait Socket: Send {
    /// As [`Stream::poll_read_into`].
    fn poll_read(&self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>>;

    /// As [`Stream::read_now`].
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; otherwise what the system's would give.
    fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize>;

    /// As [`Stream::try_write_vectored`].
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; otherwise what the system's would give.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// As [`Stream::poll_write_ready`].
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// As [`Stream::shutdown_write`].
    fn shutdown_write(&self);

    /// As [`Stream::abort_on_drop`].
    fn abort_on_drop(&self);
}

/// The network that a process uses.
#[derive(Clone, Default)]
pub struct Net(Option<Arc<dyn Network>>);

/// A listening socket.
pub struct Listener {
    socket: Listening,
    address: SocketAddr,
    acceptor: Option<tls::Acceptor>,
}

enum Listening {
    System(AsyncFd<socket2::Socket>),
    Other(Box<dyn Listen>),
}

/// A socket that was accepted and is registered nowhere.
pub struct Accepted {
    socket: Unregistered,
    cover: Cover,
    /// The other end.
    pub peer: SocketAddr,
}

enum Unregistered {
    System(socket2::Socket),
    Other(Box<dyn Socket>),
}

/// What is between the bytes of a socket that belongs to no thread and the plain text.
enum Cover {
    Nothing,
    /// TLS, of which nothing was read.
    Due(tls::Acceptor),
    /// TLS that has begun.
    Begun(tls::Shared),
}

/// After how long without a byte the kernel asks whether a peer is still there, where that is left to it.
const KEEPALIVE_TIME: Duration = Duration::from_secs(120);

/// The time between its questions; nine without an answer are the end.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

impl Net {
    /// The system's network.
    pub fn system() -> Net {
        Net(None)
    }

    /// A network that stands in for the system's.
    pub fn of(network: Arc<dyn Network>) -> Net {
        Net(Some(network))
    }

    /// Listens on `address` with the longest backlog that the system allows.
    ///
    /// `user_timeout` is how long the kernel keeps trying to deliver written bytes to a peer that does not
    /// acknowledge them (`TCP_USER_TIMEOUT`); it and `TCP_NODELAY` pass to every accepted socket.
    ///
    /// # Errors
    /// The operating system's, with the address in the text.
    pub fn listen(&self, address: SocketAddr, user_timeout: Duration) -> io::Result<Listener> {
        let listen = || match &self.0 {
            None => listen_on_system(address, user_timeout),
            Some(network) => {
                let socket = network.listen(address, user_timeout)?;
                let address = socket.address();
                Ok(Listener { address, socket: Listening::Other(socket), acceptor: None })
            }
        };
        listen().map_err(|error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        })
    }
}

fn listen_on_system(address: SocketAddr, user_timeout: Duration) -> io::Result<Listener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(user_timeout))?;
    socket.bind(&address.into())?;
    socket.listen(backlog())?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Listener { socket: Listening::System(watch(socket)?), address, acceptor: None })
}

impl Listener {
    /// The address that is listened on; its port is the real one where port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same listener, all of whose connections are of TLS.
    pub fn with_tls(self, acceptor: tls::Acceptor) -> Listener {
        Listener { acceptor: Some(acceptor), ..self }
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system's; out of descriptors is the one that a caller should wait out.
    pub async fn accept(&self) -> io::Result<Accepted> {
        let cover = || self.acceptor.clone().map_or(Cover::Nothing, Cover::Due);
        match &self.socket {
            Listening::System(socket) => {
                // `accept4` sets close-on-exec; non-blocking is set by the receiver of the socket.
                let accept = |listener: &socket2::Socket| listener.accept();
                let (socket, peer) = socket.async_io(tokio::io::Interest::READABLE, accept).await?;
                let peer =
                    peer.as_socket().ok_or_else(|| io::Error::other("the peer has no internet address"))?;
                Ok(Accepted { socket: Unregistered::System(socket), cover: cover(), peer })
            }
            Listening::Other(socket) => {
                let (socket, peer) = std::future::poll_fn(|cx| socket.poll_accept(cx)).await?;
                Ok(Accepted { socket: Unregistered::Other(socket), cover: cover(), peer })
            }
        }
    }
}

/// The addresses that a name stands for, as the system resolves it; their ports are 0.
///
/// # Errors
/// The name is not known, or nobody can be asked.
pub async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
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
        let socket = match self.socket {
            Unregistered::System(socket) => {
                let socket = std::net::TcpStream::from(socket);
                socket.set_nonblocking(true)?;
                Connected::System(TcpStream::from_std(socket)?)
            }
            Unregistered::Other(socket) => Connected::Other(socket),
        };
        let tls = match self.cover {
            Cover::Nothing => None,
            Cover::Due(acceptor) => Some(acceptor.begin()?),
            Cover::Begun(tls) => Some(tls),
        };
        Ok(Stream { socket, tls })
    }

    /// Writes what the socket takes at once, and closes it; on one of TLS nothing can be said yet.
    ///
    /// A registered stream would take nothing yet: its runtime has not asked the poller whether it could.
    pub fn turn_away(self, last_words: &[u8]) {
        use std::io::Write;
        if !matches!(self.cover, Cover::Nothing) {
            return;
        }
        // If not even the last words fit, closing says enough.
        match self.socket {
            Unregistered::System(socket) if socket.set_nonblocking(true).is_ok() => {
                let _ = (&socket).write(last_words);
            }
            Unregistered::System(_) => {}
            Unregistered::Other(socket) => {
                let _ = socket.try_write_vectored(&[IoSlice::new(last_words)]);
            }
        }
    }
}

/// A stream of bytes; one of the system is registered with the runtime of the thread that made it.
pub struct Stream {
    socket: Connected,
    tls: Option<tls::Shared>,
}

/// The socket of a stream.
enum Connected {
    System(TcpStream),
    Other(Box<dyn Socket>),
}

impl Stream {
    /// Waits until plain text can be read and written: at once, unless the stream is one of TLS whose handshake is
    /// not done. To be awaited before all else; whoever does so sets the limit in time.
    ///
    /// # Errors
    /// The operating system's; `InvalidData` if the peer speaks no TLS, or none that is accepted; `UnexpectedEof` if
    /// it ended before the handshake did.
    pub async fn ready(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| match &mut self.tls {
            Some(tls) => tls.get_mut().poll_handshake(&mut self.socket, cx),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Reads into `scratch`: the number of bytes, 0 at the end.
    ///
    /// # Errors
    /// The operating system's; `InvalidData` for what is no TLS where that is spoken.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            Some(tls) => tls.get_mut().poll_read(&mut self.socket, cx, scratch),
            None => self.socket.poll_read(cx, scratch),
        }
    }

    /// Reads what is there, without waiting and whether or not the runtime has heard of it.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is; otherwise as [`poll_read_into`](Self::poll_read_into).
    pub fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.borrow_mut().read_now(&self.socket, scratch),
            None => self.socket.read_now(scratch),
        }
    }

    /// Writes what fits, without waiting. After anything less than all, or `WouldBlock`, the next write must begin
    /// with the bytes that were left.
    ///
    /// # Errors
    /// `WouldBlock` if nothing fits; otherwise the operating system's.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.borrow_mut().write_now(&self.socket, slices),
            None => self.socket.try_write_vectored(slices),
        }
    }

    /// Writes what fits of one slice, without waiting.
    ///
    /// # Errors
    /// As [`try_write_vectored`](Self::try_write_vectored).
    pub fn try_write(&self, slice: &[u8]) -> io::Result<usize> {
        match (&self.tls, &self.socket) {
            (None, Connected::System(stream)) => stream.try_write(slice),
            _ => self.try_write_vectored(&[IoSlice::new(slice)]),
        }
    }

    /// Waits until something can be written.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Ends the writing half: what was written is delivered, then the end.
    pub fn shutdown_write(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.get_mut().close_now(&self.socket);
        }
        let waker = std::task::Waker::noop();
        // The shutdown of a TCP socket is one system call that never waits; an error means it is closed.
        let _ = self.socket.poll_shutdown(&mut Context::from_waker(waker));
    }

    /// Says the last word of TLS, if that is spoken, before the stream is dropped because the peer has ended.
    pub fn end_politely(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.get_mut().close_now(&self.socket);
        }
    }

    /// Lets the peer leave unread for as long as it likes what it was written, and has the kernel ask now and then whether
    /// it is still there.
    pub fn outlast_silence(&self) {
        if let Connected::System(stream) = &self.socket {
            let socket = socket2::SockRef::from(stream);
            let probes =
                socket2::TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
            // An error means that the socket is closed.
            let _ = socket.set_tcp_user_timeout(None).and_then(|()| socket.set_tcp_keepalive(&probes));
        }
    }

    /// Makes the drop of this stream abortive: unsent bytes are thrown away and the peer gets a reset.
    pub fn abort_on_drop(&self) {
        match &self.socket {
            // An error means that the socket is closed, which is what was wanted.
            Connected::System(stream) => {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Connected::Other(socket) => socket.abort_on_drop(),
        }
    }

    /// Takes the socket away from this thread's runtime.
    ///
    /// # Errors
    /// The operating system's.
    pub fn into_accepted(self, peer: SocketAddr) -> io::Result<Accepted> {
        let socket = match self.socket {
            Connected::System(stream) => Unregistered::System(stream.into_std()?.into()),
            Connected::Other(socket) => Unregistered::Other(socket),
        };
        let cover = self.tls.map_or(Cover::Nothing, Cover::Begun);
        Ok(Accepted { socket, cover, peer })
    }
}

impl Connected {
    fn poll_read(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Connected::System(stream) => {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Connected::Other(socket) => socket.poll_read(cx, scratch),
        }
    }

    fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize> {
        use std::io::Read;
        match self {
            Connected::System(stream) => (&*socket2::SockRef::from(stream)).read(scratch),
            Connected::Other(socket) => socket.read_now(scratch),
        }
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Connected::System(stream) => stream.try_write_vectored(slices),
            Connected::Other(socket) => socket.try_write_vectored(slices),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Connected::System(stream) => stream.poll_write_ready(cx),
            Connected::Other(socket) => socket.poll_write_ready(cx),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Connected::System(stream) => Pin::new(stream).poll_shutdown(cx),
            Connected::Other(socket) => {
                socket.shutdown_write();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Stream { socket, tls } = &mut *self;
        match (tls, socket) {
            // Into what is not initialised, which only the system's may.
            (None, Connected::System(stream)) => Pin::new(stream).poll_read(cx, buf),
            _ => self.poll_read_into(cx, buf.initialize_unfilled()).map_ok(|count| buf.advance(count)),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Stream { socket, tls } = &mut *self;
        match (tls, socket) {
            (Some(tls), socket) => tls.get_mut().poll_write(socket, cx, buf),
            (None, Connected::System(stream)) => Pin::new(stream).poll_write(cx, buf),
            (None, Connected::Other(socket)) => loop {
                match socket.try_write_vectored(&[IoSlice::new(buf)]) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(socket.poll_write_ready(cx))?;
                    }
                    written => return Poll::Ready(written),
                }
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream { socket, tls } = &mut *self;
        match tls {
            Some(tls) => tls.get_mut().poll_flush(socket, cx),
            // A socket keeps nothing back.
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream { socket, tls } = &mut *self;
        if let Some(tls) = tls {
            // A link that is broken has no use for the last words.
            let _ = ready!(tls.get_mut().poll_close(socket, cx));
        }
        socket.poll_shutdown(cx)
    }
}
