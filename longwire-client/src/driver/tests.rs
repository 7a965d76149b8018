//! The driver over real sockets of the loopback interface, TLS included.

use super::*;
use crate::address::Address;
use crate::core::{Asks, Core, Event, Inbound, Plan, Terms};
use crate::options::Options;
use crate::transport::Transport;
use longwire_protocol::heartbeat::{self, Intervals};
use longwire_protocol::http::{AllowedOrigins, parse_request_head};
use longwire_protocol::websocket::{Connection, Event as Frame, Kind, Opcode, Role, frame, handshake};
use rustls::pki_types::PrivateKeyDer;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A dialect without words: logged in as soon as it is connected, it keeps what comes.
struct Probe {
    core: Core,
    wants: bool,
    heard: Vec<u8>,
    events: Vec<String>,
}

impl Probe {
    fn take_events(&mut self, now: Instant) {
        while let Some(event) = self.core.poll_event() {
            self.events.push(match event {
                Event::Open(_) => {
                    let intervals =
                        Intervals { interval: heartbeat::OFF, timeout: SECOND, max_silence: heartbeat::OFF };
                    let terms = Terms {
                        intervals,
                        kind: heartbeat::Kind::Silent,
                        session: String::new(),
                        node: String::new(),
                    };
                    self.core.logged_in(now, terms);
                    "open".to_owned()
                }
                Event::BeatDue => "beat".to_owned(),
                Event::Lost(cause) => format!("lost {}", cause.name()),
                Event::GaveUp(cause, _) => format!("gave up {}", cause.name()),
            });
        }
    }
}

impl Machine for Probe {
    fn poll_output(&mut self) -> Option<Output> {
        self.core.poll_output()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        self.take_events(now);
    }

    fn handle_dialled(&mut self, now: Instant, line: Line, result: Result<(), Cause>) {
        self.core.handle_dialled(now, line, result);
        self.take_events(now);
    }

    fn handle_bytes(&mut self, now: Instant, line: Line, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(inbound) = self.core.decode(now, line, &mut input) {
            match inbound {
                Inbound::Message(_, data) | Inbound::Event { data, .. } => {
                    self.heard.extend_from_slice(&data)
                }
                Inbound::Bytes(bytes) => self.heard.extend_from_slice(bytes),
            }
        }
        self.take_events(now);
    }

    fn handle_unwritten(&mut self, now: Instant, line: Line, unwritten: usize) {
        self.core.handle_unwritten(now, line, unwritten);
    }

    fn handle_end(&mut self, now: Instant, line: Line, end: End) {
        self.core.handle_end(now, line, end);
        self.take_events(now);
    }

    fn handle_abandoned(&mut self, now: Instant) {
        self.core.leave(now);
        self.core.abandon();
    }

    fn wants_bytes(&self, line: Line) -> bool {
        self.wants && self.core.wants_bytes(line)
    }

    fn take_wakes(&mut self) -> Vec<Waker> {
        Vec::new()
    }

    fn is_over(&self) -> bool {
        self.core.is_over()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn start(url: &str, transport: Transport, options: Options) -> Arc<Shared<Probe>> {
    let plan = Plan {
        servers: vec![Arc::new(Address::parse(url).unwrap())],
        transports: vec![transport],
        target: |address, _| address.target.clone(),
        subprotocols: &[],
        uplink: "/emulation",
        asks: Asks::WithLogin,
    };
    let tls = options.tls.clone();
    let core = Core::new(plan, options);
    let shared = Shared::spawn(Probe { core, wants: true, heard: Vec::new(), events: Vec::new() }, tls);
    shared.with(|probe, now| probe.core.start(now));
    shared
}

/// Waits until something is so of the machine, for 20 s at most.
async fn until(shared: &Shared<Probe>, what: &str, mut is_so: impl FnMut(&mut Probe) -> bool) {
    for _ in 0..2000 {
        if shared.with_nudge(|probe, _| (is_so(probe), false)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let events = shared.with(|probe, _| probe.events.clone());
    panic!("{what} did not come; there were {events:?}");
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Answers a WebSocket's handshake.
async fn accept_websocket(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
    }
    let (head, _) = parse_request_head(&request, 1 << 14, 100).unwrap().expect("whole");
    let allowed_origins = AllowedOrigins::default();
    let options =
        handshake::Options { allowed_origins: &allowed_origins, subprotocols: &[], allow_deflate: false };
    let response = handshake::accept(&head, &options).unwrap().response;
    stream.write_all(&response).await.unwrap();
}

#[tokio::test]
async fn large_messages_go_both_ways_over_a_websocket_and_leaving_is_orderly() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        accept_websocket(&mut stream).await;
        let mut connection = Connection::new(Role::Server, false, 8 << 20);
        let mut code = None;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            if read == 0 {
                return code;
            }
            let mut input = &buffer[..read];
            while let Some(event) = connection.decode(&mut input).unwrap() {
                match event {
                    Frame::Message { data, .. } => {
                        let mut echo = Vec::new();
                        frame::encode(Opcode::Binary, false, None, &data, &mut echo);
                        stream.write_all(&echo).await.unwrap();
                    }
                    Frame::Close { code: said, .. } => code = said,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    let shared = start(&format!("ws://127.0.0.1:{port}/x"), Transport::WebSocket, Options::default());
    until(&shared, "the connection", |probe| probe.events == ["open"]).await;
    let message: Vec<u8> = (0..4u32 << 20).map(|n| (n % 251) as u8).collect();
    shared.with(|probe, now| {
        probe.core.send(now, Kind::Binary, &message);
        probe.core.send(now, Kind::Binary, b"and a small one");
    });
    let total = message.len() + 15;
    until(&shared, "the echo", |probe| probe.heard.len() == total).await;
    assert!(shared.with(|probe, _| probe.heard[..message.len()] == message && probe.core.unwritten() == 0));
    shared.with(|probe, now| probe.core.leave(now));
    assert_eq!(server.await.unwrap(), Some(1000), "a close frame and then the end");
    until(&shared, "the end", |probe| probe.core.is_over()).await;
    let task_holds = || Arc::strong_count(&shared) > 1;
    for _ in 0..1000 {
        if !task_holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the task goes on behind the end");
}

fn certificate() -> (TlsAcceptor, Arc<rustls::ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

#[tokio::test]
async fn tls_is_spoken_with_whom_the_options_trust() {
    let (acceptor, config) = certificate();
    let (listener, port) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = vec![0; 1 << 16];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..read]).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let url = format!("tls://localhost:{port}");
    let message = vec![7; 1 << 20];
    for tls in [Tls::Config(config), Tls::Anybody] {
        let shared = start(&url, Transport::Tcp, Options { tls, ..Options::default() });
        until(&shared, "the connection", |probe| probe.events == ["open"]).await;
        shared.with(|probe, now| probe.core.send(now, Kind::Binary, &message));
        until(&shared, "the echo", |probe| probe.heard == message).await;
        shared.with(|probe, now| probe.core.leave(now));
    }
    let shared = start(&url, Transport::Tcp, Options::default());
    until(&shared, "the refusal", |probe| probe.events.first().is_some_and(|event| event == "lost tls"))
        .await;
    shared.with(|probe, now| probe.core.leave(now));
}

#[tokio::test]
async fn a_reset_is_one_though_a_write_met_it_first() {
    let (acceptor, config) = certificate();
    let (listener, port) = listener().await;
    for scheme in ["tcp", "tls"] {
        let mut options = Options { tls: Tls::Config(Arc::clone(&config)), ..Options::default() };
        options.reconnect.is_on = false;
        let shared = start(&format!("{scheme}://localhost:{port}"), Transport::Tcp, options);
        let (stream, _) = listener.accept().await.unwrap();
        let reset = |stream: &TcpStream| {
            socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        };
        // Once it is connected, the test has the thread until it waits: nothing is read before something is said.
        if scheme == "tls" {
            let stream = acceptor.accept(stream).await.unwrap();
            until(&shared, "the connection", |probe| probe.events == ["open"]).await;
            reset(stream.get_ref().0);
            drop(stream);
        } else {
            until(&shared, "the connection", |probe| probe.events == ["open"]).await;
            reset(&stream);
            drop(stream);
        }
        shared.with(|probe, now| probe.core.send(now, Kind::Binary, b"is anybody there?"));
        until(&shared, "the reset", |probe| probe.events.len() > 1).await;
        assert_eq!(shared.with(|probe, _| probe.events[1].clone()), "lost reset", "{scheme}");
        shared.with(|probe, now| probe.core.leave(now));
    }
}

#[tokio::test]
async fn what_happens_to_a_socket_is_named_and_the_client_comes_back() {
    let (listener, port) = listener().await;
    let shared = start(&format!("tcp://127.0.0.1:{port}"), Transport::Tcp, Options::default());
    let (stream, _) = listener.accept().await.unwrap();
    until(&shared, "the connection", |probe| probe.events == ["open"]).await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let (stream, _) = listener.accept().await.unwrap();
    until(&shared, "the return", |probe| probe.events == ["open", "lost reset", "open"]).await;
    drop(stream);
    until(&shared, "the end", |probe| probe.events.last().is_some_and(|event| event == "lost ended")).await;
    // Whatever waits to be accepted is reset with the listener.
    drop(listener);
    until(&shared, "the refusal", |probe| probe.events.last().is_some_and(|event| event == "lost refused"))
        .await;
    shared.with(|probe, now| probe.core.leave(now));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_unresolved() {
    let shared = start("tcp://no-such-host.invalid:1", Transport::Tcp, Options::default());
    until(&shared, "the failure", |probe| {
        probe.events.first().is_some_and(|event| event == "lost unresolved")
    })
    .await;
    shared.with(|probe, now| probe.core.leave(now));
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_left_after_the_write_timeout() {
    let (listener, port) = listener().await;
    let mut options = Options::default();
    options.timeouts.write = Duration::from_millis(300);
    options.reconnect.is_on = false;
    let shared = start(&format!("tcp://127.0.0.1:{port}"), Transport::Tcp, options);
    let (_stream, _) = listener.accept().await.unwrap();
    until(&shared, "the connection", |probe| probe.events == ["open"]).await;
    // More than both sockets' buffers take.
    shared.with(|probe, now| probe.core.send(now, Kind::Binary, &vec![0; 32 << 20]));
    until(&shared, "the stall", |probe| {
        probe.events.get(1).is_some_and(|event| event == "lost write_stalled")
    })
    .await;
}

#[tokio::test]
async fn a_socket_is_not_read_while_the_machine_wants_nothing() {
    let (listener, port) = listener().await;
    let shared = start(&format!("tcp://127.0.0.1:{port}"), Transport::Tcp, Options::default());
    let (mut stream, _) = listener.accept().await.unwrap();
    until(&shared, "the connection", |probe| probe.events == ["open"]).await;
    shared.with(|probe, _| probe.wants = false);
    let piece = vec![1; 1 << 20];
    let mut taken = 0;
    // Up to what the sockets' buffers hold, and then no more.
    while let Ok(written) = tokio::time::timeout(SECOND / 2, stream.write(&piece)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "somebody reads");
    }
    // At most the read that was under way.
    assert!(shared.with(|probe, _| probe.heard.len() <= SCRATCH_BYTES));
    shared.with(|probe, _| probe.wants = true);
    until(&shared, "the rest", |probe| probe.heard.len() == taken).await;
    shared.with(|probe, now| probe.core.leave(now));
}

#[test]
fn what_an_idle_client_consists_of_is_small() {
    // The connection itself, the task, and what moves it; a dialect's own state comes on top.
    let core = size_of::<Core>() + Core::LINK_BYTES;
    let driver = size_of::<Driver<Probe>>() + size_of::<(Line, State)>() + size_of::<Sleep>();
    assert!(core < 1600 && driver < 400, "{core} and {driver} bytes");
}
