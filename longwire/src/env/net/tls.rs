//! TLS on a socket: certificates that are read anew while it serves, and the state of one connection.
//!
//! An [`Identity`] is a chain of certificates and its key, from two files. Its [`Acceptor`] is what a listener gives
//! to the sockets that it accepts; what it presents is the identity's newest. A `Session` is what a
//! [`Stream`](super::Stream) keeps beside its socket: it is fed by whoever reads the stream, and never waits.
//! What must stay true: a byte is called written only when every byte of ciphertext before it is with the kernel,
//! but for the last byte of what one record holds, which is withheld until then; so whoever writes until nothing is
//! left, as one does on a socket, forgets nothing here. Ciphertext that waits is bounded by one record.

use super::Connected;
use crate::env::disk;
use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

/// Plaintext that is encrypted before the socket has taken what was encrypted before: one full record.
const MAX_PENDING_BYTES: usize = 16 * 1024;

/// Slices that one write takes at most.
const SLICES: usize = 64;

/// Reads that bring nothing for the caller before others have their turn.
const MAX_EMPTY_READS: usize = 64;

/// A chain of certificates and the key of the first, from two files in PEM.
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    newest: Arc<Newest>,
}

/// What handshakes that begin are given.
struct Newest(ArcSwap<CertifiedKey>);

/// Makes connections of TLS from sockets; a copy makes the same.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

/// One connection's TLS, within what a stream shares with itself alone.
pub(super) type Shared = Box<RefCell<Session>>;

/// One connection's TLS.
pub(super) struct Session {
    connection: ServerConnection,
    /// The caller was not told that the last byte of what it gave is written, and will give it again.
    is_withheld: bool,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    /// A file that cannot be read or has not in it what it should, or a key that is another certificate's; the text
    /// names the file.
    pub fn load(certificate: &Path, key: &Path) -> io::Result<Identity> {
        let newest = Arc::new(Newest(ArcSwap::from_pointee(read(certificate, key)?)));
        Ok(Identity { certificate: certificate.to_path_buf(), key: key.to_path_buf(), newest })
    }

    /// Reads both files again: whether the certificates are others. Connections that are open keep theirs.
    ///
    /// # Errors
    /// Those of [`load`](Self::load); what was read before stays.
    pub fn reload(&self) -> io::Result<bool> {
        let read = read(&self.certificate, &self.key)?;
        let is_other = self.newest.0.load().cert != read.cert;
        self.newest.0.store(Arc::new(read));
        Ok(is_other)
    }

    /// What makes connections of TLS with this identity; `protocols` are the names of what is spoken within (ALPN,
    /// RFC 7301), none if clients need not say.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn acceptor(&self, protocols: &[&str]) -> io::Result<Acceptor> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.newest.clone() as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Whoever comes back after a break resumes without a signature, and nothing is kept here for that.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        config.send_tls13_tickets = 1;
        Ok(Acceptor(Arc::new(config)))
    }
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is in it: there is a key.
        f.write_str("Newest")
    }
}

fn read(certificate: &Path, key: &Path) -> io::Result<CertifiedKey> {
    let wrong = |path: &Path, what: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    };
    let text = disk::read_to_string(certificate)?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| wrong(certificate, format!("is no PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "has no certificate in it (PEM)".to_owned()));
    }
    let text = disk::read_to_string(key)?;
    let private = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            wrong(key, "has no private key in it (PEM: PKCS #8, PKCS #1 or SEC1)".to_owned())
        }
        error => wrong(key, format!("is no PEM: {error}")),
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong(key, format!("is not the key of the certificate in {}", certificate.display()))
        }
        rustls::Error::InvalidCertificate(_) => wrong(certificate, format!("cannot be used: {error}")),
        error => wrong(key, format!("cannot be used: {error}")),
    })
}

impl Acceptor {
    /// The server's side of a connection that begins.
    pub(super) fn begin(self) -> io::Result<Shared> {
        let mut connection = ServerConnection::new(self.0).map_err(io::Error::other)?;
        connection.set_buffer_limit(Some(MAX_PENDING_BYTES));
        Ok(Box::new(RefCell::new(Session { connection, is_withheld: false })))
    }
}

impl Session {
    /// Goes on with the handshake; ready when it is done and written.
    pub(super) fn poll_handshake(
        &mut self,
        socket: &mut Connected,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut polled = Polled { socket, cx };
        pending(loop {
            if let Err(error) = self.flush(&mut polled) {
                break Err(error);
            }
            if !self.connection.is_handshaking() {
                break Ok(());
            }
            match self.take_in(&mut polled) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        })
    }

    /// As [`Stream::poll_read_into`](super::Stream::poll_read_into).
    pub(super) fn poll_read(
        &mut self,
        socket: &mut Connected,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut polled = Polled { socket, cx };
        for _ in 0..MAX_EMPTY_READS {
            match self.read(&mut polled, scratch) {
                Ok(None) => {}
                Ok(Some(count)) => return Poll::Ready(Ok(count)),
                Err(error) => return pending(Err(error)),
            }
        }
        polled.cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// As [`Stream::read_now`](super::Stream::read_now).
    pub(super) fn read_now(&mut self, socket: &Connected, scratch: &mut [u8]) -> io::Result<usize> {
        for _ in 0..MAX_EMPTY_READS {
            if let Some(count) = self.read(&mut AtOnce(socket), scratch)? {
                return Ok(count);
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Reads plaintext; `None` if what came with one read of the socket had none in it.
    fn read(&mut self, socket: &mut (impl Read + Write), scratch: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(count) = self.decrypted(scratch)? {
            return Ok(Some(count));
        }
        self.take_in(socket)?;
        // What answers the peer's own needs (a change of keys) goes out with the next write, if not at once.
        let _ = self.flush(socket);
        self.decrypted(scratch)
    }

    /// What was decrypted and not read yet; 0 if the peer has ended its side.
    fn decrypted(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        match self.connection.reader().read(scratch) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // Many programs end without a `close_notify` (RFC 8446 section 6.1). What they lost is told as on a
            // socket without TLS: every dialect knows by itself what is complete.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }

    /// Reads once from the socket and decrypts; 0 at its end.
    fn take_in(&mut self, socket: &mut (impl Read + Write)) -> io::Result<usize> {
        let count = self.connection.read_tls(socket)?;
        if let Err(error) = self.connection.process_new_packets() {
            // The alert that says what was wrong; if it cannot be written, closing says enough.
            let _ = self.flush(socket);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    /// As [`Stream::try_write_vectored`](super::Stream::try_write_vectored): what it took less than all of, the
    /// caller gives again.
    pub(super) fn write_now(&mut self, socket: &Connected, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(&mut AtOnce(socket), slices)
    }

    /// As [`write_now`](Self::write_now), and arranges to be woken.
    pub(super) fn poll_write(
        &mut self,
        socket: &mut Connected,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        pending(self.write(&mut Polled { socket, cx }, &[IoSlice::new(bytes)]))
    }

    fn write(&mut self, socket: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(socket)?;
        // With that, the byte that was withheld is written; it is the first of what is given.
        let before = usize::from(std::mem::take(&mut self.is_withheld));
        let mut rest = [IoSlice::new(&[]); SLICES];
        let mut skip = before;
        for (rest, slice) in rest.iter_mut().zip(slices) {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            *rest = IoSlice::new(&slice[skipped..]);
        }
        let taken = self.connection.writer().write_vectored(&rest[..slices.len().min(SLICES)])?;
        match self.flush(socket) {
            Ok(()) => Ok(before + taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                self.is_withheld = true;
                match before + taken - 1 {
                    0 => Err(error),
                    written => Ok(written),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Has all ciphertext written, and arranges to be woken.
    pub(super) fn poll_flush(
        &mut self,
        socket: &mut Connected,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        pending(self.flush(&mut Polled { socket, cx }))
    }

    /// Writes ciphertext until none is left; `WouldBlock` if the socket does not take it.
    fn flush(&mut self, socket: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing more comes, as far as the socket takes that.
    pub(super) fn close_now(&mut self, socket: &Connected) {
        self.connection.send_close_notify();
        // The end of the socket's own writing half follows, whether or not this was taken.
        let _ = self.flush(&mut AtOnce(socket));
    }

    /// Tells the peer that nothing more comes; ready when that is written.
    pub(super) fn poll_close(
        &mut self,
        socket: &mut Connected,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection.send_close_notify();
        self.poll_flush(socket, cx)
    }
}

/// What would block is pending: the socket has taken note of who waits.
fn pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

/// A socket that wakes whoever waits.
struct Polled<'a, 'b, 'c> {
    socket: &'a mut Connected,
    cx: &'b mut Context<'c>,
}

impl Read for Polled<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.socket.poll_read(self.cx, buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Polled<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.socket.try_write_vectored(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.poll_write_ready(self.cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => return Err(error),
                    }
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket that does what it can at once.
struct AtOnce<'a>(&'a Connected);

impl Read for AtOnce<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_now(buffer)
    }
}

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
