//! TLS over a socket in memory that takes and gives what a test says, with the other end played by rustls' client.

use super::super::{Socket, Stream};
use super::*;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::Waker;

/// A socket whose both directions are queues.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    inbound: VecDeque<u8>,
    is_ended: bool,
    outbound: Vec<u8>,
    /// Bytes that are taken before it blocks.
    room: usize,
    has_ended: bool,
}

impl Socket for Pipe {
    fn poll_read(&self, _: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        pending(self.read_now(scratch))
    }

    fn read_now(&self, scratch: &mut [u8]) -> io::Result<usize> {
        let mut ends = self.0.lock().unwrap();
        let count = scratch.len().min(ends.inbound.len());
        if count == 0 && !ends.is_ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (to, from) in scratch.iter_mut().zip(ends.inbound.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }

    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut ends = self.0.lock().unwrap();
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let count = all.len().min(ends.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        ends.room -= count;
        ends.outbound.extend_from_slice(&all[..count]);
        Ok(count)
    }

    fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0.lock().unwrap().room {
            0 => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn shutdown_write(&self) {
        self.0.lock().unwrap().has_ended = true;
    }

    fn abort_on_drop(&self) {}
}

/// A stream, its socket, and the client at the other end.
struct World {
    stream: Stream,
    pipe: Pipe,
    client: ClientConnection,
}

/// A certificate and its key in files, and what the client trusts.
fn files(name: &str) -> (tempfile::TempDir, PathBuf, PathBuf, CertificateDer<'static>) {
    let directory = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (certificate, key) = (directory.path().join("certificate.pem"), directory.path().join("key.pem"));
    disk::write(&certificate, &pair.cert.pem()).unwrap();
    disk::write(&key, &pair.signing_key.serialize_pem()).unwrap();
    (directory, certificate, key, pair.cert.der().clone())
}

impl World {
    /// After the handshake.
    fn new() -> World {
        let (_directory, certificate, key, trusted) = files("localhost");
        let identity = Identity::load(&certificate, &key).unwrap();
        let tls = identity.acceptor(&[]).unwrap().begin().unwrap();
        let pipe = Pipe::default();
        let stream = Stream { socket: Connected::Other(Box::new(pipe.clone())), tls: Some(tls) };
        let mut roots = RootCertStore::empty();
        roots.add(trusted).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let mut world =
            World { stream, pipe, client: ClientConnection::new(Arc::new(config), name).unwrap() };
        while !world.is_ready() {
            world.pipe.0.lock().unwrap().room = 1000;
            world.carry();
        }
        world.carry();
        assert!(!world.client.is_handshaking());
        world
    }

    fn is_ready(&mut self) -> bool {
        let ready = std::pin::pin!(self.stream.ready());
        match ready.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ready) => ready.map(|()| true).unwrap(),
            Poll::Pending => false,
        }
    }

    /// Carries what was written to both ends; what the client read.
    fn carry(&mut self) -> Vec<u8> {
        let mut ends = self.pipe.0.lock().unwrap();
        let mut written = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut written).unwrap();
        }
        ends.inbound.extend(written);
        let outbound = std::mem::take(&mut ends.outbound);
        let (mut outbound, mut plain) = (&outbound[..], Vec::new());
        while !outbound.is_empty() {
            self.client.read_tls(&mut outbound).unwrap();
            self.client.process_new_packets().unwrap();
            match self.client.reader().read_to_end(&mut plain) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => drop(read.unwrap()),
            }
        }
        plain
    }

    fn read(&mut self, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        self.stream.poll_read_into(&mut Context::from_waker(Waker::noop()), scratch)
    }
}

#[test]
fn what_waits_for_a_full_socket_is_neither_lost_nor_called_written() {
    let mut world = World::new();
    let text = vec![b'x'; 100];
    world.pipe.0.lock().unwrap().room = 40;
    let first = world.stream.try_write(&text).unwrap();
    assert_eq!(first, 99, "the last byte stands for what waits");
    assert_eq!(world.stream.try_write(&text[first..]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    world.pipe.0.lock().unwrap().room = 1000;
    assert_eq!(world.stream.try_write(&text[first..]).unwrap(), 1);
    assert_eq!(world.carry(), text);
    // One byte alone is as well kept.
    world.pipe.0.lock().unwrap().room = 3;
    for _ in 0..2 {
        assert_eq!(world.stream.try_write(b"y").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    world.pipe.0.lock().unwrap().room = 1000;
    assert_eq!(world.stream.try_write(b"y").unwrap(), 1);
    assert_eq!(world.carry(), b"y");
}

#[test]
fn at_most_one_record_waits_however_much_is_given() {
    let world = World::new();
    let text = vec![b'x'; 1 << 20];
    world.pipe.0.lock().unwrap().room = 0;
    assert!(world.stream.try_write(&text).unwrap() < MAX_PENDING_BYTES);
    assert_eq!(world.stream.try_write(&text[1..]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let tls = world.stream.tls.as_ref().unwrap();
    let mut waiting = Vec::new();
    while tls.borrow().connection.wants_write() {
        tls.borrow_mut().connection.write_tls(&mut waiting).unwrap();
    }
    assert!(waiting.len() < MAX_PENDING_BYTES + 100, "{}", waiting.len());
}

#[test]
fn an_end_with_and_without_a_last_word_is_an_end() {
    for is_polite in [true, false] {
        let mut world = World::new();
        world.client.writer().write_all(b"hello").unwrap();
        if is_polite {
            world.client.send_close_notify();
        }
        world.carry();
        world.pipe.0.lock().unwrap().is_ended = true;
        let mut scratch = [0; 3];
        assert!(matches!(world.read(&mut scratch), Poll::Ready(Ok(3))));
        assert_eq!(world.stream.read_now(&mut scratch).unwrap(), 2, "what was decrypted needs no socket");
        assert!(matches!(world.read(&mut scratch), Poll::Ready(Ok(0))));
        // The other half is still open.
        world.pipe.0.lock().unwrap().room = 1000;
        assert_eq!(world.stream.try_write(b"bye").unwrap(), 3);
        world.stream.shutdown_write();
        assert_eq!(world.carry(), b"bye");
        assert!(world.pipe.0.lock().unwrap().has_ended);
        let mut rest = [0; 1];
        assert_eq!(world.client.reader().read(&mut rest).unwrap(), 0, "a close_notify came");
    }
}

#[test]
fn what_is_no_tls_is_an_error_of_the_peer() {
    let mut world = World::new();
    world.pipe.0.lock().unwrap().inbound.extend(b"GET / HTTP/1.1\r\n\r\n");
    match world.read(&mut [0; 10]) {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), io::ErrorKind::InvalidData),
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_that_cannot_be_used_are_named_and_what_was_read_stays() {
    let (_directory, certificate, key, der) = files("a");
    let (_other, other_certificate, other_key, other_der) = files("b");
    let identity = Identity::load(&certificate, &key).unwrap();
    assert!(!identity.reload().unwrap(), "it is the same");
    let presented = || identity.newest.0.load().cert[0].clone();
    let good = [&certificate, &key].map(|path| disk::read_to_string(path).unwrap());
    for (path, contents, expected) in [
        (&certificate, "", "certificate.pem: has no certificate in it"),
        (&certificate, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "is no PEM"),
        (
            &certificate,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
            "certificate.pem: cannot be",
        ),
        (&key, "", "key.pem: has no private key in it"),
        (&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "key.pem: cannot be used"),
        (&key, &disk::read_to_string(&other_key).unwrap(), "key.pem: is not the key of the certificate in"),
    ] {
        disk::write(path, contents).unwrap();
        let error = identity.reload().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(presented(), der);
        disk::write(&certificate, &good[0]).unwrap();
        disk::write(&key, &good[1]).unwrap();
    }
    for (from, to) in [(&other_certificate, &certificate), (&other_key, &key)] {
        disk::write(to, &disk::read_to_string(from).unwrap()).unwrap();
    }
    assert!(identity.reload().unwrap());
    assert_eq!(presented(), other_der);
    let missing = Identity::load(Path::new("/nowhere/x.pem"), &key).err().expect("there is none");
    assert!(missing.to_string().contains("/nowhere/x.pem"), "{missing}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_in_order_however_the_socket_cuts_them(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 1..20),
        rooms in prop::collection::vec(0usize..3000, 1..20),
        is_async in any::<bool>(),
    ) {
        use tokio::io::AsyncWrite;
        let mut world = World::new();
        let sent = pieces.concat();
        let (mut left, mut came, mut turn) = (pieces.iter().map(|piece| &piece[..]).collect::<VecDeque<_>>(), Vec::new(), 0);
        loop {
            left.retain(|piece| !piece.is_empty());
            if left.is_empty() {
                break;
            }
            world.pipe.0.lock().unwrap().room = 1 + rooms[turn % rooms.len()];
            turn += 1;
            let written = if is_async {
                let mut cx = Context::from_waker(Waker::noop());
                match std::pin::Pin::new(&mut world.stream).poll_write(&mut cx, left[0]) {
                    Poll::Ready(written) => written,
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            } else {
                let slices: Vec<IoSlice<'_>> = left.iter().take(3).map(|piece| IoSlice::new(piece)).collect();
                world.stream.try_write_vectored(&slices)
            };
            match written {
                Ok(mut count) => {
                    while count > 0 {
                        let part = count.min(left[0].len());
                        left[0] = &left[0][part..];
                        count -= part;
                        left.retain(|piece| !piece.is_empty());
                    }
                }
                Err(error) => prop_assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            came.extend(world.carry());
        }
        prop_assert!(came == sent, "{} of {} bytes", came.len(), sent.len());
    }
}
