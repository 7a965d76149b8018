//! One HTTP/1.1 connection: hyper answers its requests until the browser reuses it for a stream.
//!
//! A browser keeps connections and opens its next `EventSource` on any of them. An idle stream must not
//! cost a hyper connection, so when such a request comes, hyper is taken apart: the socket goes back to the
//! caller together with the request's head, as if it had just been read. What must stay true: nothing that
//! was written is lost and nothing that was read is lost, and every wait has an end.

use super::{read_body, serve};
use crate::node::Node;
use bytes::{Buf, Bytes};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Version};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a connection may wait for its next request.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// What hyper may buffer of one connection, unless a head may be larger.
const MAX_BUFFER_BYTES: usize = 64 * 1024;

/// How a connection ended, as far as hyper is concerned.
#[derive(Debug)]
pub enum Outcome<S> {
    /// It is closed.
    Done,
    /// It is to become a stream: what was read and not answered begins with the request's head.
    TakeOver {
        /// The connection, with everything flushed.
        stream: S,
        /// Bytes to be read before those of the stream.
        read: Vec<u8>,
    },
}

/// Serves the requests of one connection, whose first `prefix` bytes have been read already.
///
/// A request whose method and path are those of a stream (`is_streaming`) ends this with [`Outcome::TakeOver`],
/// once its body is collected; a GET request only without one. Once
/// `draining` is ready, no further request is waited for.
pub async fn serve_connection<S>(
    node: Arc<Node>,
    stream: S,
    prefix: Bytes,
    peer: SocketAddr,
    is_streaming: fn(&str, &str) -> bool,
    draining: impl Future<Output = ()>,
) -> Outcome<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let link = Arc::new(Link::default());
    let io = PrefixedIo { prefix, stream, link: link.clone() };
    let service = service_fn(|request: Request<Incoming>| {
        let (node, link) = (node.clone(), link.clone());
        async move {
            let is_for_stream = is_streaming(request.method().as_str(), request.uri().path());
            if is_for_stream && request.method() == Method::GET && request.body().is_end_stream() {
                let (head, _) = request.into_parts();
                link.give_back(request_bytes(&head, &[]));
                return pending().await;
            }
            let call = Call::begin(&link);
            if is_for_stream && request.method() == Method::POST {
                let (head, body) = request.into_parts();
                match read_body(&node, body, node.config.websocket.max_message_bytes).await {
                    Ok(body) => link.give_back(request_bytes(&head, &body)),
                    Err(refused) => return Ok(refused.into()),
                }
                drop(call);
                return pending().await;
            }
            Ok::<_, Infallible>(serve(&node, request, peer.ip()).await)
        }
    });
    let http = &node.config.http;
    let mut connection = http1::Builder::new()
        .max_headers(http.max_headers)
        .max_header_size(http.max_head_bytes)
        .max_buf_size(MAX_BUFFER_BYTES.max(http.max_head_bytes))
        // One clock for all waits: the watch below.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service);

    let mut watch = Watch { phase: Phase::Idle, progress: 0 };
    let mut deadline = pin!(node.env.clock.sleep(MAX_IDLE));
    let (mut draining, mut is_draining) = (pin!(draining), false);
    let head = poll_fn(|cx| {
        if !is_draining && draining.as_mut().poll(cx).is_ready() {
            is_draining = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%peer, %error, "an HTTP connection ended with an error");
            }
            return Poll::Ready(None);
        }
        let mut head = link.head.lock().unwrap_or_else(PoisonError::into_inner);
        // hyper mostly flushes one answer before it reads the next request, but promises it nowhere.
        if head.is_some() && !link.is_dirty.load(Ordering::Relaxed) {
            return Poll::Ready(head.take());
        }
        drop(head);
        if let Some(phase) = watch.look(&link) {
            let span = match phase {
                Phase::Idle => MAX_IDLE,
                Phase::Head => http.head_timeout,
                // The body has its own limit, and what follows it waits for nobody outside.
                Phase::Call => http.body_timeout.saturating_mul(2),
                Phase::Write => node.config.client.write_timeout,
            };
            deadline.as_mut().reset((node.env.clock.now() + span).into());
        }
        deadline.as_mut().poll(cx).map(|()| {
            tracing::debug!(%peer, phase = ?watch.phase, "an HTTP connection took too long");
            None
        })
    })
    .await;

    let Some(mut read) = head else { return Outcome::Done };
    let parts = connection.into_parts();
    let io = parts.io.into_inner();
    read.extend_from_slice(&parts.read_buf);
    read.extend_from_slice(&io.prefix);
    Outcome::TakeOver { stream: io.stream, read }
}

/// A request as bytes. Names are in lower case and in their order, which is all that a head means; the body,
/// however it came, has its length.
fn request_bytes(head: &Parts, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512 + body.len());
    let version = if head.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    bytes.extend_from_slice(format!("{} {} {version}\r\n", head.method, head.uri).as_bytes());
    for (name, value) in &head.headers {
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            continue;
        }
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if head.method == Method::POST {
        bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// What the parts of one connection tell each other; all of them run within one task.
#[derive(Default)]
struct Link {
    /// Something was written, or was tried to be, and is not flushed.
    is_dirty: AtomicBool,
    /// Bytes were read that belong to no call yet.
    has_read: AtomicBool,
    /// A request is being answered.
    in_call: AtomicBool,
    /// Bytes written.
    written: AtomicU64,
    /// Head of the request that is to become a stream.
    head: Mutex<Option<Vec<u8>>>,
}

impl Link {
    /// Has the connection taken apart: the request is for a stream.
    fn give_back(&self, request: Vec<u8>) {
        *self.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }
}

/// Marks a request that is being answered, until it is dropped.
struct Call(Arc<Link>);

impl Call {
    fn begin(link: &Arc<Link>) -> Call {
        link.in_call.store(true, Ordering::Relaxed);
        Call(link.clone())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.in_call.store(false, Ordering::Relaxed);
        self.0.has_read.store(false, Ordering::Relaxed);
    }
}

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Head,
    Call,
    Write,
}

/// Notices when a connection waits for something else than before.
struct Watch {
    phase: Phase,
    progress: u64,
}

impl Watch {
    /// The phase, if it began anew; a write that gets on begins anew, a head that dribbles does not.
    fn look(&mut self, link: &Link) -> Option<Phase> {
        let phase = if link.in_call.load(Ordering::Relaxed) {
            Phase::Call
        } else if link.is_dirty.load(Ordering::Relaxed) {
            Phase::Write
        } else if link.has_read.load(Ordering::Relaxed) {
            Phase::Head
        } else {
            Phase::Idle
        };
        let progress = link.written.load(Ordering::Relaxed);
        if phase == self.phase && progress == self.progress {
            return None;
        }
        (self.phase, self.progress) = (phase, progress);
        Some(phase)
    }
}

/// A stream whose first bytes have been read already.
struct PrefixedIo<S> {
    prefix: Bytes,
    stream: S,
    link: Arc<Link>,
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefixedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.prefix.is_empty() {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
            if this.prefix.is_empty() {
                this.prefix = Bytes::new();
            }
            this.link.has_read.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > filled {
            this.link.has_read.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> PrefixedIo<S> {
    /// Writes by `write`. What is pending lies in hyper's buffer, so an attempt makes dirty, too.
    fn note_write(
        &mut self,
        write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.link.is_dirty.store(true, Ordering::Relaxed);
        let polled = write(Pin::new(&mut self.stream));
        if let Poll::Ready(Ok(count)) = &polled {
            self.link.written.fetch_add(*count as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefixedIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note_write(|stream| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_write(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes only when it has written everything that it holds.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.link.is_dirty.store(false, Ordering::Relaxed);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::node_with;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const PUBLISH: &str = "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 34\r\n\r\n\
                           {\"channel\":\"chat\",\"data\":{\"a\":12}}";
    const STREAM: &str = "GET /sse?channels=a,b&x=%20 HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
                          x-odd: caf\u{e9}\r\ncookie: a=1\r\ncookie: b=2\r\nlast-event-id: 7\r\n\r\n";

    fn start(
        prefix: &str,
        buffer_bytes: usize,
        change: impl FnOnce(&mut crate::config::Config),
    ) -> (DuplexStream, JoinHandle<Outcome<DuplexStream>>) {
        let (here, there) = duplex(buffer_bytes);
        let (node, prefix) = (node_with(change), Bytes::copy_from_slice(prefix.as_bytes()));
        let peer = SocketAddr::from(([127, 0, 0, 1], 4000));
        let serving = tokio::spawn(async move {
            serve_connection(node, there, prefix, peer, |_, path| path == "/sse", pending()).await
        });
        (here, serving)
    }

    /// Reads one response to its end, which the content length tells.
    async fn response(stream: &mut DuplexStream) -> String {
        let mut bytes = Vec::new();
        loop {
            bytes.push(stream.read_u8().await.expect("a response"));
            let text = String::from_utf8_lossy(&bytes);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.expect("a length").parse().unwrap() {
                    return text.into_owned();
                }
            }
        }
    }

    async fn taken_over(serving: JoinHandle<Outcome<DuplexStream>>) -> (DuplexStream, Vec<u8>) {
        match serving.await.unwrap() {
            Outcome::TakeOver { stream, read } => (stream, read),
            Outcome::Done => panic!("the connection should have been given back"),
        }
    }

    #[tokio::test]
    async fn a_connection_reused_for_a_stream_comes_back_with_the_exact_head() {
        let (mut client, serving) = start(PUBLISH, 4096, |_| {});
        assert!(response(&mut client).await.starts_with("HTTP/1.1 200 OK\r\n"));
        client.write_all(PUBLISH.as_bytes()).await.unwrap();
        assert!(response(&mut client).await.contains("{\"result\":{\"offset\":2,"));
        client.write_all(STREAM.as_bytes()).await.unwrap();
        let (mut stream, read) = taken_over(serving).await;
        assert_eq!(String::from_utf8_lossy(&read), STREAM);
        // What comes back is the very connection.
        stream.write_all(b"data: 1\n\n").await.unwrap();
        let mut event = [0; 9];
        client.read_exact(&mut event).await.unwrap();
        assert_eq!(&event, b"data: 1\n\n");
    }

    #[tokio::test]
    async fn nothing_is_lost_wherever_a_pipelined_stream_request_is_split() {
        let all = format!("{PUBLISH}{STREAM}after the head");
        let expected = format!("{STREAM}after the head");
        for split in 0..=all.len() {
            if !all.is_char_boundary(split) {
                continue;
            }
            // A tiny pipe makes the response wait while the stream's request is read.
            for buffer_bytes in [7, 4096] {
                let (client, serving) = start(&all[..split], buffer_bytes, |_| {});
                let (mut reader, mut writer) = tokio::io::split(client);
                let write = async { writer.write_all(&all.as_bytes()[split..]).await.unwrap() };
                let read_response = async {
                    let mut response = Vec::new();
                    while !response.ends_with(b"}}") {
                        response.push(reader.read_u8().await.expect("the whole response"));
                    }
                    response
                };
                let take_over = async {
                    let (mut stream, mut read) = taken_over(serving).await;
                    while read.len() < expected.len() {
                        read.push(stream.read_u8().await.expect("the rest of what was sent"));
                    }
                    read
                };
                let ((), response, read) = tokio::join!(write, read_response, take_over);
                assert_eq!(String::from_utf8_lossy(&read), expected, "split at {split}");
                assert!(response.starts_with(b"HTTP/1.1 200 OK"), "split at {split}");
            }
        }
    }

    #[tokio::test]
    async fn the_first_request_may_be_the_stream() {
        let (_client, serving) = start(STREAM, 4096, |_| {});
        assert_eq!(String::from_utf8_lossy(&taken_over(serving).await.1), STREAM);
    }

    #[tokio::test]
    async fn a_stream_request_with_a_body_is_refused_and_not_taken_for_a_stream() {
        let request = "GET /sse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nGET ";
        let (mut client, serving) = start(request, 4096, |_| {});
        assert!(response(&mut client).await.starts_with("HTTP/1.1 400 "));
        drop(client);
        assert!(matches!(serving.await.unwrap(), Outcome::Done));
    }

    #[tokio::test]
    async fn a_connection_that_the_client_ends_is_done() {
        let (mut client, serving) = start("", 4096, |_| {});
        client
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
        assert!(matches!(serving.await.unwrap(), Outcome::Done));
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Big: {}\r\n\r\n", "x".repeat(20_000));
        let (mut client, serving) = start("", 64 * 1024, |_| {});
        client.write_all(head.as_bytes()).await.unwrap();
        assert!(response(&mut client).await.starts_with("HTTP/1.1 431 "));
        assert!(matches!(serving.await.unwrap(), Outcome::Done));
    }

    #[tokio::test(start_paused = true)]
    async fn every_wait_has_an_end() {
        let head_that_dribbles = "GET /health HTTP/1.1\r\nHost: local";
        let body_that_stops = "POST /api/info HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{";
        for (seconds, prefix) in [(75, ""), (10, head_that_dribbles), (30, body_that_stops)] {
            let (mut client, serving) = start(prefix, 4096, |_| {});
            let began = tokio::time::Instant::now();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(began.elapsed().as_secs(), seconds, "{prefix}");
            assert_eq!(answer.starts_with("HTTP/1.1 408 "), seconds == 30, "{answer}");
            assert!(matches!(serving.await.unwrap(), Outcome::Done));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dribbling_head_does_not_get_more_time_for_each_byte() {
        let (mut client, serving) = start("GET / HTTP/1.1\r\nX: ", 4096, |_| {});
        let began = tokio::time::Instant::now();
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(matches!(serving.await.unwrap(), Outcome::Done));
        assert!((10..=12).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_its_answer_is_dropped() {
        let (mut client, serving) =
            start("", 64, |config| config.client.write_timeout = Duration::from_secs(5));
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(matches!(serving.await.unwrap(), Outcome::Done));
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}
