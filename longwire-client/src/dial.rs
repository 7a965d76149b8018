//! From an address to a connected socket: resolving, TCP, TLS.
//!
//! Every address that a name has is tried in turn, each with its share of the time, so that one that swallows packets
//! does not hide the next. What must stay true: what went wrong is a [`Cause`] that names the step; every socket
//! notices by itself, too, that its peer vanished.

use crate::address::Address;
use crate::cause::Cause;
use crate::options::Tls;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
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

/// The least that one of several addresses has.
const LEAST_SHARE: Duration = Duration::from_millis(250);

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
        let deadline = Instant::now() + timeout;
        let stream = connect(&resolve(&address).await?, deadline).await?;
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

async fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Cause> {
    let mut failure = Cause::ConnectTimeout;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // The count of addresses is that of a DNS answer, far less than a `u32`.
        let share = (left / (addresses.len() - tried) as u32).max(LEAST_SHARE);
        failure = match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Cause::Refused,
            Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Cause::ConnectTimeout,
            Ok(Err(error)) => Cause::Unreachable(error.to_string()),
            Err(_) => Cause::ConnectTimeout,
        };
    }
    Err(failure)
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
        Tls::Anybody => anybody().map_err(|error| Cause::Tls(error.to_string())),
        Tls::System => {
            let known = match SYSTEM.get() {
                Some(known) => known.clone(),
                None => {
                    let load = || SYSTEM.get_or_init(|| system().map_err(|error| error.to_string())).clone();
                    tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| Err(error.to_string()))
                }
            };
            known.map_err(Cause::Tls)
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn system() -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_platform_verifier()?.with_no_client_auth()))
}

fn anybody() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = provider();
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Anybody(provider));
    Ok(Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// Accepts any certificate, but only from whoever has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
