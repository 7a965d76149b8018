//! From an address to a connected socket: resolving, TCP, TLS.
//!
//! Every address that a name has is tried, each with a head start before the next, so that one that swallows packets
//! costs little. What must stay true: what went wrong is a [`Cause`] that names the step; every socket
//! notices by itself, too, that its peer vanished.

use crate::address::Address;
use crate::cause::Cause;
use crate::options::Tls;
use crate::trust;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long sent bytes may stay unacknowledged before the kernel ends the connection: longer than a write may stall, for
/// what the kernel has taken is no longer seen here.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Without traffic for so long, the kernel asks the peer for a sign of life.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long one of several addresses is tried alone (RFC 8305 section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to `address` within `timeout`.
///
/// # Errors
/// The step that failed.
pub(crate) async fn dial(address: Arc<Address>, timeout: Duration, tls: Tls) -> Result<Socket, Cause> {
    let connect = async {
        let stream = connect(&resolve(&address).await?).await?;
        tune(&stream).map_err(|error| Cause::Unreachable(error.to_string()))?;
        if !address.is_encrypted {
            return Ok(Socket::Plain(stream));
        }
        let name =
            ServerName::try_from(address.host.clone()).map_err(|error| Cause::Tls(error.to_string()))?;
        let connector = TlsConnector::from(config(tls).await?);
        let stream = connector.connect(name, stream).await.map_err(tls_failure)?;
        Ok(Socket::Tls(Box::new(stream)))
    };
    tokio::time::timeout(timeout, connect).await.unwrap_or(Err(Cause::ConnectTimeout))
}

async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Cause> {
    if let Ok(literal) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(literal, address.port)]);
    }
    let found = tokio::net::lookup_host((address.host.as_str(), address.port)).await;
    let found: Vec<SocketAddr> = found.map_err(|error| Cause::Unresolved(error.to_string()))?.collect();
    if found.is_empty() {
        return Err(Cause::Unresolved(format!("\"{}\" has no address", address.host)));
    }
    Ok(found)
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Begins with the next address when one has failed or has had its head start (RFC 8305 section 5); whoever is first
/// there is taken.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Cause> {
    let mut untried = in_turn(addresses).into_iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut failure = Cause::ConnectTimeout;
    let mut head_start = pin!(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        loop {
            let before = attempts.len();
            let mut connected = None;
            attempts.retain_mut(|attempt| match attempt.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(Ok(stream)) => {
                    connected = Some(stream);
                    false
                }
                Poll::Ready(Err(error)) => {
                    failure = connect_failure(&error);
                    false
                }
            });
            if let Some(stream) = connected {
                return Poll::Ready(Ok(stream));
            }
            let has_failed = attempts.len() < before;
            if !has_failed && !attempts.is_empty() && head_start.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match untried.next() {
                Some(address) => attempts.push(Box::pin(TcpStream::connect(address))),
                None if attempts.is_empty() => return Poll::Ready(Err(failure.clone())),
                None => return Poll::Pending,
            }
            head_start.as_mut().reset(Instant::now() + HEAD_START);
        }
    })
    .await
}

/// The addresses in the resolver's order, but both families in turn: where one is broken, the other is near.
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first =
        |address: &&SocketAddr| Some(address.is_ipv4()) == addresses.first().map(SocketAddr::is_ipv4);
    let (mut first, mut second) =
        (addresses.iter().filter(is_first), addresses.iter().filter(|of| !is_first(of)));
    let pairs =
        std::iter::from_fn(|| Some([first.next(), second.next()]).filter(|pair| *pair != [None, None]));
    pairs.flatten().flatten().copied().collect()
}

fn connect_failure(error: &io::Error) -> Cause {
    match error.kind() {
        ErrorKind::ConnectionRefused => Cause::Refused,
        ErrorKind::TimedOut => Cause::ConnectTimeout,
        _ => Cause::Unreachable(error.to_string()),
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

fn tls_failure(error: io::Error) -> Cause {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Cause::Reset,
        ErrorKind::UnexpectedEof => Cause::Tls("the server ended the connection in the handshake".to_owned()),
        _ => Cause::Tls(error.to_string()),
    }
}

async fn config(tls: Tls) -> Result<Arc<ClientConfig>, Cause> {
    /// One for the process: reading whom the system trusts takes files and time.
    static SYSTEM: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();

    match tls {
        Tls::Config(config) => Ok(config),
        Tls::Anybody => trust::anybody().map_err(|error| Cause::Tls(error.to_string())),
        Tls::System => {
            let known = match SYSTEM.get() {
                Some(known) => known.clone(),
                None => {
                    let load =
                        || SYSTEM.get_or_init(|| trust::system().map_err(|error| error.to_string())).clone();
                    tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| Err(error.to_string()))
                }
            };
            known.map_err(Cause::Tls)
        }
    }
}

impl Socket {
    /// Has the kernel forget what is unsent and tell the peer so, when the socket is dropped.
    pub(crate) fn abort(&self) {
        let stream = match self {
            Socket::Plain(stream) => stream,
            Socket::Tls(stream) => stream.get_ref().0,
        };
        // Where it fails the socket is closed in the ordinary way.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
