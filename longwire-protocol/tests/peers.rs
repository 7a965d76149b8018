//! The WebSocket codec against two other implementations, in both roles, over loopback.
//!
//! tokio-tungstenite's engine does not compress; yawc does, also while it sends a message in fragments. Both
//! talk both ways, as client and as server.

mod echo;

use bytes::Bytes;
use futures_util::SinkExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use longwire_protocol::http::parse_response_head;
use longwire_protocol::websocket::handshake::ClientRequest;
use longwire_protocol::websocket::{Compressor, Connection, Event, Kind, Opcode, Role, frame};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{self, Message, protocol::CloseFrame};

const LIMIT: u32 = 1 << 20;
const KEY: [u8; 4] = [0xA5, 0x00, 0xFF, 0x3C];

/// One end of a connection, made of the codec.
struct End {
    stream: TcpStream,
    connection: Connection,
    mask: Option<[u8; 4]>,
    received: Vec<u8>,
    /// Bytes that came after the handshake.
    bytes_in: usize,
}

impl End {
    fn dial(server: SocketAddr, offer_deflate: bool) -> (End, bool) {
        let mut stream = TcpStream::connect(server).expect("listening");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let request = ClientRequest {
            host: &server.to_string(),
            target: "/echo?x=1",
            key: *b"sixteen bytes!!!",
            origin: None,
            subprotocols: &[],
            offer_deflate,
            headers: &[("X-Test", "yes")],
        };
        stream.write_all(&request.encode().expect("valid")).expect("sent");
        let mut head = Vec::new();
        loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
            if let Some((response, consumed)) = parse_response_head(&head, 4096, 100).expect("a valid head") {
                assert_eq!(consumed, head.len());
                let deflate = request.verify(&response).expect("a valid handshake").deflate;
                let connection = Connection::new(Role::Client, deflate, LIMIT);
                return (
                    End { stream, connection, mask: Some(KEY), received: Vec::new(), bytes_in: 0 },
                    deflate,
                );
            }
        }
    }

    fn accept(listener: &TcpListener) -> (End, bool) {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let (deflate, received) = echo::shake_hands(&mut stream).expect("a handshake");
        let connection = Connection::new(Role::Server, deflate, LIMIT);
        let bytes_in = received.len();
        (End { stream, connection, mask: None, received, bytes_in }, deflate)
    }

    fn send(&mut self, opcode: Opcode, rsv1: bool, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::encode(opcode, rsv1, self.mask, payload, &mut bytes);
        self.stream.write_all(&bytes).expect("sent");
    }

    /// Sends a message in pieces, a ping after each but the last.
    fn send_fragments(&mut self, kind: Kind, rsv1: bool, payload: &[u8], piece_bytes: usize) {
        let pieces: Vec<&[u8]> = payload.chunks(piece_bytes).collect();
        let mut bytes = Vec::new();
        for (i, piece) in pieces.iter().enumerate() {
            let first_byte = bytes.len();
            let opcode = if i == 0 { kind.into() } else { Opcode::Continuation };
            frame::encode(opcode, rsv1 && i == 0, self.mask, piece, &mut bytes);
            if i + 1 < pieces.len() {
                bytes[first_byte] &= 0x7F;
                frame::encode(Opcode::Ping, false, self.mask, b"between", &mut bytes);
            }
        }
        self.stream.write_all(&bytes).expect("sent");
    }

    fn next(&mut self) -> Event {
        loop {
            let mut input = &self.received[..];
            let event = self.connection.decode(&mut input).expect("the peer breaks no rule");
            let left = input.len();
            self.received.drain(..self.received.len() - left);
            if let Some(event) = event {
                return event;
            }
            let mut buffer = [0; 4096];
            let len = self.stream.read(&mut buffer).expect("something comes");
            assert_ne!(len, 0, "the peer left");
            self.received.extend_from_slice(&buffer[..len]);
            self.bytes_in += len;
        }
    }

    /// Reads messages until the peer closes, and answers its pings and its close.
    fn read_to_the_close(&mut self) -> Vec<(Kind, Bytes)> {
        let mut read = Vec::new();
        loop {
            match self.next() {
                Event::Message { kind, data } => read.push((kind, data)),
                Event::Ping(payload) => self.send(Opcode::Pong, false, &payload),
                Event::Pong(_) => {}
                Event::Close { code, .. } => {
                    assert_eq!(code, Some(1000));
                    self.send(Opcode::Close, false, &frame::close_payload(1000, ""));
                    return read;
                }
            }
        }
    }
}

fn text(len: usize) -> String {
    let mut text = "aé€😀, ".repeat(len / 12);
    text.extend(std::iter::repeat_n('.', len - text.len()));
    text
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

const SIZES: [usize; 8] = [0, 1, 125, 126, 65_535, 65_536, 100_000, 1 << 20];

#[test]
fn a_tungstenite_client_is_echoed() {
    let server = echo::start(LIMIT);
    let stream = TcpStream::connect(server).expect("listening");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let (mut client, response) =
        tungstenite::client(format!("ws://{server}/echo"), stream).expect("a handshake");
    assert_eq!(response.status(), 101);
    for len in SIZES {
        for sent in [Message::text(text(len)), Message::binary(noise(len))] {
            client.send(sent.clone()).expect("sent");
            assert_eq!(client.read().expect("echoed"), sent);
        }
    }
    for (data, fin) in [(Data::Text, false), (Data::Continue, false), (Data::Continue, true)] {
        client.send(Message::Frame(Frame::message("é", OpCode::Data(data), fin))).expect("sent");
    }
    assert_eq!(client.read().expect("echoed"), Message::text("ééé"));
    client.send(Message::Ping("?".into())).expect("sent");
    assert_eq!(client.read().expect("answered"), Message::Pong("?".into()));
    let close = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    client.close(Some(close)).expect("sent");
    let Message::Close(Some(answer)) = client.read().expect("answered") else { panic!("no close") };
    assert_eq!(answer.code, CloseCode::Normal);
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn a_tungstenite_client_is_told_what_it_did_wrong() {
    let server = echo::start(100);
    let stream = TcpStream::connect(server).expect("listening");
    let (mut client, _) = tungstenite::client(format!("ws://{server}/echo"), stream).expect("a handshake");
    client.send(Message::binary(noise(101))).expect("sent");
    let Message::Close(Some(close)) = client.read().expect("a close") else { panic!("no close") };
    assert_eq!((close.code, close.reason.as_str()), (CloseCode::Size, "message too big"));
}

#[test]
fn a_tungstenite_server_understands_our_client() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    let echo = std::thread::spawn(move || {
        let mut peer = tungstenite::accept(listener.accept().expect("a client").0).expect("a handshake");
        loop {
            match peer.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => peer.send(message).expect("sent"),
                Ok(_) => {}
                Err(error) => return matches!(error, tungstenite::Error::ConnectionClosed),
            }
        }
    });
    // It declines the offer: it does not compress.
    let (mut client, deflate) = End::dial(server, true);
    assert!(!deflate);
    for len in SIZES {
        client.send(Opcode::Text, false, text(len).as_bytes());
        assert_eq!(client.next(), Event::Message { kind: Kind::Text, data: text(len).into() });
        client.send(Opcode::Binary, false, &noise(len));
        assert_eq!(client.next(), Event::Message { kind: Kind::Binary, data: noise(len).into() });
    }
    client.send_fragments(Kind::Text, false, text(10_000).as_bytes(), 3001);
    for _ in 0..3 {
        assert_eq!(client.next(), Event::Pong("between".into()));
    }
    assert_eq!(client.next(), Event::Message { kind: Kind::Text, data: text(10_000).into() });
    client.send(Opcode::Close, false, &frame::close_payload(1000, "bye"));
    assert!(matches!(client.next(), Event::Close { code: Some(1000), .. }));
    drop(client);
    assert!(echo.join().expect("no panic"));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Sends what yawc must understand; returns it in order.
fn send_to_yawc(end: &mut End) -> Vec<(Kind, Bytes)> {
    let mut compressor = Compressor::new();
    let mut expected = Vec::new();
    for len in [100, 1000, 70_000, 500_000] {
        let payload = text(len);
        let deflated = compressor.compress(payload.as_bytes()).expect("it repeats").to_vec();
        end.send(Opcode::Text, true, &deflated);
        end.send_fragments(Kind::Text, true, &deflated, deflated.len().div_ceil(3));
        end.send_fragments(Kind::Text, false, payload.as_bytes(), len.div_ceil(2) + 1);
        expected.extend(std::iter::repeat_n((Kind::Text, Bytes::from(payload)), 3));
        end.send(Opcode::Binary, false, &noise(len));
        expected.push((Kind::Binary, noise(len).into()));
    }
    end.send(Opcode::Ping, false, b"last");
    expected
}

/// Reads with yawc until the peer closes.
async fn read_with_yawc<S>(mut peer: yawc::WebSocket<S>) -> Vec<(Kind, Bytes)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut read = Vec::new();
    while let Ok(frame) = poll_fn(|cx| peer.poll_next_frame(cx)).await {
        match frame.opcode() {
            yawc::OpCode::Text => read.push((Kind::Text, frame.into_payload())),
            yawc::OpCode::Binary => read.push((Kind::Binary, frame.into_payload())),
            _ => {}
        }
    }
    read
}

/// Expects yawc's answers to all pings, then to a close.
fn finish_with_yawc(end: &mut End) {
    let mut between = 0;
    loop {
        match end.next() {
            Event::Pong(payload) if payload == "last" => break,
            Event::Pong(payload) => {
                assert_eq!(payload, "between");
                between += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(between, 12);
    end.send(Opcode::Close, false, &frame::close_payload(1000, "bye"));
    assert!(matches!(end.next(), Event::Close { code: Some(1000), .. }));
}

fn yawc_options() -> yawc::Options {
    yawc::Options::default().with_balanced_compression().with_utf8().with_limits(1 << 21, 1 << 22)
}

#[test]
fn a_yawc_client_understands_our_compressed_frames() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    let ours = std::thread::spawn(move || {
        let (mut end, deflate) = End::accept(&listener);
        assert!(deflate);
        let expected = send_to_yawc(&mut end);
        finish_with_yawc(&mut end);
        expected
    });
    let read = runtime().block_on(async {
        let url = format!("ws://{server}/").parse().expect("a URL");
        let peer = yawc::WebSocket::connect(url).with_options(yawc_options()).await.expect("a handshake");
        read_with_yawc(peer).await
    });
    assert!(read == ours.join().expect("no panic"));
}

/// Accepts one connection with yawc and lets `talk` have it.
async fn serve_with_yawc<T, F>(
    listener: TcpListener,
    talk: impl FnOnce(yawc::WebSocket<yawc::HttpStream>) -> F + Send + 'static,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    listener.set_nonblocking(true).expect("for tokio");
    let listener = tokio::net::TcpListener::from_std(listener).expect("for tokio");
    let (stream, _) = listener.accept().await.expect("a client");
    let (send, receive) = tokio::sync::oneshot::channel();
    let once = std::sync::Mutex::new(Some((send, talk)));
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        let upgraded = yawc::WebSocket::upgrade_with_options(&mut request, yawc_options());
        let (response, upgrade) = upgraded.expect("a handshake that yawc accepts");
        let (send, talk) = once.lock().expect("no panic").take().expect("one request");
        tokio::spawn(async move {
            let peer = upgrade.await.expect("upgraded");
            assert!(send.send(talk(peer).await).is_ok());
        });
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    connection.await.expect("upgraded");
    receive.await.expect("it talked to the end")
}

#[test]
fn a_yawc_server_understands_our_clients_compressed_frames() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    let ours = std::thread::spawn(move || {
        let (mut end, deflate) = End::dial(server, true);
        assert!(deflate);
        let expected = send_to_yawc(&mut end);
        finish_with_yawc(&mut end);
        expected
    });
    let read = runtime().block_on(serve_with_yawc(listener, read_with_yawc));
    assert!(read == ours.join().expect("no panic"));
}

/// Sends messages of every kind and size with yawc, whole and in fragments, then closes; returns them in
/// order.
async fn send_with_yawc<S>(mut peer: yawc::WebSocket<S>) -> Vec<(Kind, Bytes)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut sent = Vec::new();
    for len in SIZES {
        for (kind, payload) in [(Kind::Text, Bytes::from(text(len))), (Kind::Binary, Bytes::from(noise(len)))]
        {
            let first = |piece: Bytes| match kind {
                Kind::Text => yawc::Frame::text(piece),
                Kind::Binary => yawc::Frame::binary(piece),
            };
            peer.send(first(payload.clone())).await.expect("sent");
            sent.push((kind, payload.clone()));
            // Cut wherever it falls, characters included; a ping after each piece but the last.
            let piece_bytes = len.div_ceil(3).max(1);
            let pieces: Vec<Bytes> = payload.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
            for (i, piece) in pieces.iter().enumerate() {
                let is_last = i + 1 == pieces.len();
                let frame =
                    if i == 0 { first(piece.clone()) } else { yawc::Frame::continuation(piece.clone()) };
                peer.send(frame.with_fin(is_last)).await.expect("sent");
                if !is_last {
                    peer.send(yawc::Frame::ping("between")).await.expect("sent");
                }
            }
            if !pieces.is_empty() {
                sent.push((kind, payload));
            }
        }
    }
    peer.send(yawc::Frame::close(yawc::close::CloseCode::Normal, "bye")).await.expect("sent");
    // Nothing is echoed: there are only pongs and the answer to the close.
    assert!(read_with_yawc(peer).await.is_empty());
    sent
}

/// Reads what yawc sends, which must have been compressed.
fn read_from_yawc(mut end: End) -> Vec<(Kind, Bytes)> {
    let read = end.read_to_the_close();
    let text_bytes: usize =
        read.iter().filter(|(kind, _)| *kind == Kind::Text).map(|(_, data)| data.len()).sum();
    let all_bytes: usize = read.iter().map(|(_, data)| data.len()).sum();
    // The text repeats itself: next to nothing is left of it.
    let bytes_in = end.bytes_in;
    assert!(bytes_in < all_bytes - text_bytes / 2, "{bytes_in} bytes came for {all_bytes}");
    read
}

#[test]
fn what_a_yawc_client_compresses_and_fragments_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    let ours = std::thread::spawn(move || {
        let (end, deflate) = End::accept(&listener);
        assert!(deflate);
        read_from_yawc(end)
    });
    let sent = runtime().block_on(async {
        let url = format!("ws://{server}/").parse().expect("a URL");
        let peer = yawc::WebSocket::connect(url).with_options(yawc_options()).await.expect("a handshake");
        send_with_yawc(peer).await
    });
    assert!(sent == ours.join().expect("no panic"));
}

#[test]
fn what_a_yawc_server_compresses_and_fragments_is_read() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = listener.local_addr().expect("bound");
    let ours = std::thread::spawn(move || {
        let (end, deflate) = End::dial(server, true);
        assert!(deflate);
        read_from_yawc(end)
    });
    let sent = runtime().block_on(serve_with_yawc(listener, send_with_yawc));
    assert!(sent == ours.join().expect("no panic"));
}

#[test]
fn a_yawc_client_that_does_not_compress_is_echoed() {
    let server = echo::start(LIMIT);
    runtime().block_on(async {
        let url = format!("ws://{server}/echo").parse().expect("a URL");
        let options = yawc_options().without_compression();
        let mut peer = yawc::WebSocket::connect(url).with_options(options).await.expect("a handshake");
        for len in SIZES {
            for frame in [yawc::Frame::text(text(len)), yawc::Frame::binary(noise(len))] {
                peer.send(frame.clone()).await.expect("sent");
                let echoed = poll_fn(|cx| peer.poll_next_frame(cx)).await.expect("echoed");
                assert_eq!(echoed.opcode(), frame.opcode());
                assert!(echoed.into_payload() == frame.into_payload(), "{len} bytes differ");
            }
        }
    });
}
