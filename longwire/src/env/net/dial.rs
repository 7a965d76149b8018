//! Connections that this process opens to look at what is on the way: TCP, and TLS on it, step by step.
//!
//! Calls to backends go through `env/http`, where a library does all steps at once. Here each is a call of its own, so
//! that its time can be taken and what it met can be told. A certificate that nobody trusts is no end here but a
//! [`Doubt`]: whoever looks into a problem wants to see what is behind it. What must stay true: a doubt is handed to the
//! caller with the stream, who then says nothing secret on it; signatures of the handshake are verified in any case.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection that was dialled; what is read and written is plain text.
#[derive(Debug)]
pub struct Dialled(Cover);

#[derive(Debug)]
enum Cover {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why a certificate is not to be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// Nobody whom this machine trusts signed it.
    Issuer,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
    /// It is for other names than the one that was dialled.
    Name,
    /// It is an authority's own, and no server's.
    Authority,
    /// This machine has no list of whom to trust.
    NoRoots(String),
    /// The verifier's words.
    Other(String),
}

/// What a handshake of TLS came to.
#[derive(Debug)]
pub struct Secured {
    /// The connection.
    pub stream: Dialled,
    /// The version, such as `TLS 1.3`.
    pub version: &'static str,
    /// What was agreed upon to be spoken within (ALPN).
    pub protocol: Option<String>,
    /// Why the server may be somebody else.
    pub doubt: Option<Doubt>,
    /// The server's certificate in DER.
    pub certificate: Vec<u8>,
}

/// Why there is no TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NoTls {
    /// What answered does not speak it.
    NotSpoken,
    /// The peer ended the connection in the middle of the handshake.
    Ended,
    /// The library's words.
    Failed(String),
}

/// Whom this machine trusts.
#[derive(Clone, Debug)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    roots: Result<Arc<dyn ServerCertVerifier>, String>,
}

/// Connects a socket; small writes are sent at once.
///
/// # Errors
/// The operating system's.
pub async fn connect(address: SocketAddr) -> io::Result<Dialled> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Dialled(Cover::Plain(stream)))
}

impl Trust {
    /// Whom the operating system trusts; reads its list, which takes a while.
    pub fn system() -> Trust {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = rustls_platform_verifier::Verifier::new(provider.clone());
        let roots = roots.map(|roots| Arc::new(roots) as Arc<dyn ServerCertVerifier>);
        Trust { provider, roots: roots.map_err(|error| error.to_string()) }
    }

    /// Whom this verifier believes.
    pub fn of(verifier: Arc<dyn ServerCertVerifier>) -> Trust {
        Trust { provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()), roots: Ok(verifier) }
    }

    /// Makes a fresh handshake on a connection; `protocols` are offered by ALPN, none if there are none.
    ///
    /// # Errors
    /// Why it did not succeed; a certificate that is not trusted is none of these.
    pub async fn secure(&self, stream: Dialled, host: &str, protocols: &[&str]) -> Result<Secured, NoTls> {
        let failed = |what: &dyn std::fmt::Display| NoTls::Failed(what.to_string());
        let Cover::Plain(socket) = stream.0 else { return Err(failed(&"there is TLS on it already")) };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let witness = Arc::new(Witness { trust: self.clone(), doubt: Mutex::new(None) });
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let mut config = builder
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(witness.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        let stream = connected.map_err(|error| NoTls::of(&error))?;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "TLS 1.3",
        };
        let protocol = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        let certificate = session.peer_certificates().and_then(<[_]>::first).map(|first| first.to_vec());
        let doubt = witness.doubt.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = Dialled(Cover::Tls(Box::new(stream)));
        Ok(Secured { stream, version, protocol, doubt, certificate: certificate.unwrap_or_default() })
    }
}

impl NoTls {
    fn of(error: &io::Error) -> NoTls {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) {
            return NoTls::Ended;
        }
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            // Its first byte is that of no record of TLS.
            Some(rustls::Error::InvalidMessage(_)) => NoTls::NotSpoken,
            Some(inner) => NoTls::Failed(inner.to_string()),
            None => NoTls::Failed(error.to_string()),
        }
    }
}

/// A verifier that lets everybody pass and remembers whom it should not have.
#[derive(Debug)]
struct Witness {
    trust: Trust,
    doubt: Mutex<Option<Doubt>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let doubt = match &self.trust.roots {
            Err(what) => Some(Doubt::NoRoots(what.clone())),
            Ok(roots) => roots
                .verify_server_cert(certificate, intermediates, name, ocsp, now)
                .err()
                .map(|error| Doubt::of(&error)),
        };
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.trust.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl Doubt {
    fn of(error: &rustls::Error) -> Doubt {
        match error {
            rustls::Error::InvalidCertificate(error) => match error {
                CertificateError::UnknownIssuer => Doubt::Issuer,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Doubt::Expired,
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Doubt::NotYet,
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Doubt::Name
                }
                // The library keeps what it has no word for as the words of another.
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => Doubt::Authority,
                other => Doubt::Other(other.to_string()),
            },
            other => Doubt::Other(other.to_string()),
        }
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Cover::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Cover::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Cover::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Cover::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Cover::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Cover::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Cover::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Cover::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
