//! A running server to talk to, and clients that speak to it in raw bytes.
//!
//! [`TestServer`] is the server in this process, [`Binary`] the built command in a process of its own, for
//! what only shows there: log lines, exit codes, memory. [`Raw`] speaks WebSocket, [`Events`] reads an event
//! stream, [`http`] makes one request. They share no code with the server beyond its configuration and the
//! signing of tokens. What must stay true: every wait has a limit, and a limit that passes says what was
//! waited for.

use crate::framing_suite;
use longwire::config::{ChannelOptions, Config};
use longwire::env::Env;
use longwire::server::Server;
use longwire_protocol::CloseReason;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything may take that should take no time: long, because the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(5);

/// The secret of the tokens that the server of [`config`] accepts.
pub(crate) const SECRET: &str = "a secret of the integration tests";

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(STEP);
    }
}

/// Seconds since 1970, and that many more.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    now as i64 + seconds
}

/// A token with these claims, signed as the server expects it.
pub(crate) fn token(claims: &Value) -> String {
    longwire::auth::sign(SECRET, claims).expect("claims can be signed")
}

/// A connection token of a user, good for an hour.
pub(crate) fn user_token(user: &str) -> String {
    token(&json!({"sub": user, "exp": in_seconds(3600)}))
}

/// A channel in which everybody may do everything, without memory.
pub(crate) fn open_channel() -> ChannelOptions {
    ChannelOptions {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        ..ChannelOptions::default()
    }
}

/// The same, remembering `history_size` publications; clients may recover.
pub(crate) fn remembering_channel(history_size: usize) -> ChannelOptions {
    ChannelOptions {
        history_size,
        history_ttl: Duration::from_secs(300),
        allow_recovery: true,
        allow_positioning: true,
        ..open_channel()
    }
}

/// The settings that tests begin with: two shards, everybody may come, `plain` channels are open, those of
/// the namespace `kept` remember ten publications, those of `seen` have presence, joins and leaves.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.listen_on(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    config.server.shards = 2;
    config.server.drain_over = Duration::ZERO;
    config.client.allow_anonymous = true;
    config.auth.hmac_secret = Some(SECRET.to_owned());
    config.channel = open_channel();
    config.namespaces.insert("kept".to_owned(), remembering_channel(10));
    let seen = ChannelOptions { presence: true, join_leave: true, ..open_channel() };
    config.namespaces.insert("seen".to_owned(), seen);
    config
}

/// The server, in this process.
pub(crate) struct TestServer {
    server: Option<Server>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl TestServer {
    /// Starts it with the settings of [`config`].
    pub(crate) fn start() -> TestServer {
        TestServer::with(|_| {})
    }

    /// Starts it with changed settings.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> TestServer {
        let mut config = config();
        change(&mut config);
        TestServer::of(config)
    }

    /// Starts it with these settings.
    pub(crate) fn of(config: Config) -> TestServer {
        let server = Server::start(config, false, Env::system()).expect("a server that starts");
        let address = server.addresses()[0];
        TestServer { server: Some(server), address }
    }

    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("it is taken only when it ends")
    }

    /// Opens a WebSocket.
    pub(crate) fn open(&self) -> Raw {
        Raw::open(self.address)
    }

    /// Opens a WebSocket and connects as the anonymous user.
    pub(crate) fn connect(&self) -> Raw {
        self.connect_with("")
    }

    /// Opens a WebSocket and connects as `user`.
    pub(crate) fn connect_as(&self, user: &str) -> Raw {
        self.connect_with(&user_token(user))
    }

    /// Opens a WebSocket and connects with a token.
    pub(crate) fn connect_with(&self, token: &str) -> Raw {
        let mut raw = self.open();
        raw.connect(token);
        raw
    }

    /// Calls a method of the HTTP API; what it answers with status 200.
    #[track_caller]
    pub(crate) fn api(&self, method: &str, body: &Value) -> Value {
        api(self.address, method, body)
    }

    /// Publishes through the HTTP API.
    #[track_caller]
    pub(crate) fn publish(&self, channel: &str, data: impl Into<Value>) -> Value {
        let answer = self.api("publish", &json!({"channel": channel, "data": data.into()}));
        answer["result"].clone()
    }

    /// Connections closed for a reason.
    pub(crate) fn closes(&self, reason: CloseReason) -> u64 {
        self.server().node().counters.iter().map(|shard| shard.closes[reason as usize].get()).sum()
    }

    /// Waits until a connection was closed for a reason.
    #[track_caller]
    pub(crate) fn await_close(&self, reason: CloseReason) {
        until(&format!("a close with {reason}"), || self.closes(reason) > 0);
    }

    /// Drains it and returns when it has ended.
    pub(crate) fn drain(mut self) {
        self.server.take().expect("it is taken only here").drain().expect("it drains");
    }
}

/// Calls a method of the HTTP API; what it answers with status 200.
#[track_caller]
pub(crate) fn api(server: SocketAddr, method: &str, body: &Value) -> Value {
    let response = post(server, &format!("/api/{method}"), &body.to_string());
    assert_eq!(response.status, 200, "{method} {body}: {}", response.text());
    serde_json::from_slice(&response.body).expect("the API answers with JSON")
}

/// An HTTP response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Status line and headers, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Makes a GET request with more headers (each with its line end).
#[track_caller]
pub(crate) fn get(server: SocketAddr, path: &str, headers: &str) -> Response {
    http(server, format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{headers}\r\n"))
}

/// Makes a POST request.
#[track_caller]
pub(crate) fn post(server: SocketAddr, path: &str, body: &str) -> Response {
    let len = body.len();
    http(
        server,
        format!(
            "POST {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
        ),
    )
}

/// Sends bytes and reads the response to them.
#[track_caller]
pub(crate) fn http(server: SocketAddr, request: impl AsRef<[u8]>) -> Response {
    let mut link = Link::open(server);
    link.send(request.as_ref());
    link.response()
}

/// A TCP connection with what was read of it and not used.
pub(crate) struct Link {
    stream: TcpStream,
    /// Where everything is TLS.
    pub(crate) tls: Option<Box<rustls::ClientConnection>>,
    received: Vec<u8>,
}

/// Why nothing more comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The server ended the connection.
    Closed,
    /// The server reset it.
    Reset,
    /// The limit passed.
    Nothing,
}

impl Link {
    #[track_caller]
    pub(crate) fn open(server: SocketAddr) -> Link {
        let stream = TcpStream::connect(server).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        let link = Link { stream, tls: None, received: Vec::new() };
        link.limit(LIMIT);
        link
    }

    /// Has everything be TLS from here on; the handshake is made by the first bytes that are sent or read.
    pub(crate) fn with_tls(self, tls: rustls::ClientConnection) -> Link {
        Link { tls: Some(Box::new(tls)), ..self }
    }

    /// How long reads and writes may wait.
    pub(crate) fn limit(&self, limit: Duration) {
        self.stream.set_read_timeout(Some(limit)).expect("a limit");
        self.stream.set_write_timeout(Some(limit)).expect("a limit");
    }

    /// Sends bytes; a server that closed meanwhile shows when the answer is read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = match &mut self.tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.stream);
                stream.write_all(bytes).and_then(|()| stream.flush())
            }
            None => self.stream.write_all(bytes),
        };
    }

    /// Ends this side.
    pub(crate) fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            while tls.wants_write() && tls.write_tls(&mut self.stream).is_ok() {}
        }
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Breaks off: the peer sees a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    }

    /// Reads more.
    pub(crate) fn read_more(&mut self) -> Result<(), End> {
        let mut buffer = [0; 64 * 1024];
        let read = match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut buffer),
            None => self.stream.read(&mut buffer),
        };
        match read {
            Ok(0) => Err(End::Closed),
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(End::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(End::Reset),
        }
    }

    /// Waits for the end of the connection, whatever comes before it.
    pub(crate) fn await_end(&mut self) -> End {
        loop {
            match self.read_more() {
                Ok(()) => self.received.clear(),
                Err(end) => return end,
            }
        }
    }

    /// Takes what comes up to and with `mark`.
    pub(crate) fn take_up_to(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.received.windows(mark.len()).position(|window| window == mark) {
                return Ok(self.received.drain(..at + mark.len()).collect());
            }
            self.read_more()?;
        }
    }

    /// Takes so many bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<Vec<u8>, End> {
        while self.received.len() < len {
            self.read_more()?;
        }
        Ok(self.received.drain(..len).collect())
    }

    /// Reads a response; without a `Content-Length`, its head only.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.try_response().unwrap_or_else(|end| panic!("no response: {end:?}"))
    }

    pub(crate) fn try_response(&mut self) -> Result<Response, End> {
        let head = self.take_up_to(b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&head).trim_end().to_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut response = Response { status, head, body: Vec::new() };
        let len = response.header("content-length").map_or(0, |len| len.parse().expect("a length"));
        while self.received.len() < len {
            self.read_more()?;
        }
        response.body = self.received.drain(..len).collect();
        Ok(response)
    }
}

/// What a WebSocket brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// Code and reason.
    Close(Option<u16>, String),
    End(End),
}

/// A WebSocket client that does nothing by itself, not even answer a beat.
pub(crate) struct Raw {
    pub(crate) link: Link,
    /// Set by [`connect`](Self::connect).
    pub(crate) client: String,
}

/// Where WebSockets are served.
pub(crate) const WEBSOCKET: &str = "/connection/websocket";

/// A handshake with more headers (each with its line end).
pub(crate) fn handshake(server: SocketAddr, headers: &str) -> String {
    upgrade(server, WEBSOCKET, headers)
}

/// A request to upgrade to WebSocket, with more headers (each with its line end).
pub(crate) fn upgrade(server: SocketAddr, path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

impl Raw {
    #[track_caller]
    pub(crate) fn open(server: SocketAddr) -> Raw {
        Raw::open_with(server, "")
    }

    /// Opens with more headers (each with its line end).
    #[track_caller]
    pub(crate) fn open_with(server: SocketAddr, headers: &str) -> Raw {
        Raw::of_request(server, &handshake(server, headers))
    }

    /// Opens one of the plain dialect.
    #[track_caller]
    pub(crate) fn plain(server: &TestServer, query: &str) -> Raw {
        Raw::of_request(server.address, &upgrade(server.address, &format!("/ws?{query}"), ""))
    }

    /// Opens with a request of one's own.
    #[track_caller]
    pub(crate) fn of_request(server: SocketAddr, request: &str) -> Raw {
        let mut link = Link::open(server);
        link.send(request.as_bytes());
        Raw::on(link)
    }

    /// Reads the answer to a handshake that was asked for.
    #[track_caller]
    pub(crate) fn on(mut link: Link) -> Raw {
        let response = link.response();
        assert_eq!(response.status, 101, "{} {}", response.head, response.text());
        Raw { link, client: String::new() }
    }

    /// Connects and remembers the client's id.
    #[track_caller]
    pub(crate) fn connect(&mut self, token: &str) -> Value {
        let command = match token {
            "" => r#"{"id":1,"connect":{}}"#.to_owned(),
            token => json!({"id": 1, "connect": {"token": token}}).to_string(),
        };
        let reply: Value = serde_json::from_str(&self.ask(&command)).expect("a reply is JSON");
        self.client =
            reply["connect"]["client"].as_str().unwrap_or_else(|| panic!("refused: {reply}")).to_owned();
        reply
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.link.send(&framing_suite::frame(0x81, text.as_bytes()));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.link.send(bytes);
    }

    /// Sends a command and returns what comes next.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.send(command);
        self.line()
    }

    /// Sends a command and returns what comes next, as a value.
    #[track_caller]
    pub(crate) fn ask_value(&mut self, command: &Value) -> Value {
        serde_json::from_str(&self.ask(&command.to_string())).expect("a reply is JSON")
    }

    /// Subscribes with the command id 2; the reply as a value.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, channel: &str) -> Value {
        let reply = self.ask_value(&json!({"id": 2, "subscribe": {"channel": channel}}));
        assert!(reply.get("subscribe").is_some(), "{reply}");
        reply["subscribe"].clone()
    }

    /// The next text.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        match self.next() {
            Received::Text(text) => text,
            other => panic!("not a text but {other:?}"),
        }
    }

    /// The next text, as a value.
    #[track_caller]
    pub(crate) fn value(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("a reply or push is JSON")
    }

    /// Expects that the next thing is a close with this reason's code and text, and then the end.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, reason: CloseReason) {
        assert_eq!(self.next(), Received::Close(Some(reason.code()), reason.text().to_owned()));
        self.link.finish();
        assert_eq!(self.next(), Received::End(End::Closed), "after the close");
    }

    /// Expects that nothing came before the reply to a further command.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        let reply = self.ask(r#"{"id":4711,"rpc":{"method":"x"}}"#);
        assert_eq!(reply, r#"{"id":4711,"error":{"code":108,"message":"not available"}}"#);
    }

    pub(crate) fn next(&mut self) -> Received {
        match self.frame() {
            Err(end) => Received::End(end),
            Ok((0x81, payload)) => Received::Text(String::from_utf8(payload).expect("a text is UTF-8")),
            Ok((0x82, payload)) => Received::Binary(payload),
            Ok((0x89, payload)) => Received::Ping(payload),
            Ok((0x8A, payload)) => Received::Pong(payload),
            Ok((0x88, payload)) => match payload.split_at_checked(2) {
                None => Received::Close(None, String::new()),
                Some((code, reason)) => Received::Close(
                    Some(u16::from_be_bytes([code[0], code[1]])),
                    String::from_utf8(reason.to_vec()).expect("a close reason is UTF-8"),
                ),
            },
            Ok((first, _)) => panic!("a frame that begins with {first:#04x}"),
        }
    }

    /// Reads one frame: its first byte and its payload.
    pub(crate) fn frame(&mut self) -> Result<(u8, Vec<u8>), End> {
        let link = &mut self.link;
        loop {
            let (header, len) = match link.received[..] {
                [_, len @ 0..=125, ..] => (2, usize::from(len)),
                [_, 126, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
                [_, 127, a, b, c, d, e, f, g, h, ..] => {
                    (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)
                }
                [_, 128..=255, ..] => panic!("the server's frame is masked"),
                _ => (0, 0),
            };
            if header > 0 && link.received.len() >= header + len {
                let first = link.received[0];
                let frame: Vec<u8> = link.received.drain(..header + len).collect();
                return Ok((first, frame[header..].to_vec()));
            }
            link.read_more()?;
        }
    }
}

/// One event of an event stream.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    /// Empty for a publication.
    pub(crate) name: String,
    pub(crate) data: String,
    /// It was nothing but a comment.
    pub(crate) is_comment: bool,
    pub(crate) retry: Option<u64>,
}

impl Event {
    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.data).expect("an event's data is JSON")
    }
}

/// An event stream.
pub(crate) struct Events {
    pub(crate) link: Link,
    pub(crate) head: Response,
}

impl Events {
    /// Asks for a stream with more headers (each with its line end), and expects one.
    #[track_caller]
    pub(crate) fn open(server: SocketAddr, path: &str, headers: &str) -> Events {
        let mut link = Link::open(server);
        link.send(format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n{headers}\r\n").as_bytes());
        Events::on(link)
    }

    /// Reads the head of a stream that was asked for.
    #[track_caller]
    pub(crate) fn on(mut link: Link) -> Events {
        let head = link.response();
        assert_eq!(head.status, 200, "{} {}", head.head, head.text());
        Events { link, head }
    }

    /// The next event, comments included.
    pub(crate) fn try_next(&mut self) -> Result<Event, End> {
        let block = self.link.take_up_to(b"\n\n")?;
        let block = String::from_utf8(block).expect("an event stream is UTF-8");
        let mut event = Event {
            is_comment: block.lines().all(|l| l.is_empty() || l.starts_with(':')),
            ..Event::default()
        };
        for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            let (field, value) = line.split_once(": ").unwrap_or((line, ""));
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.name = value.to_owned(),
                "data" => event.data.push_str(value),
                "retry" => event.retry = value.parse().ok(),
                other => panic!("an event with the field {other:?}"),
            }
        }
        Ok(event)
    }

    /// The next event that is no comment.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Event {
        loop {
            let event = self.try_next().unwrap_or_else(|end| panic!("no event: {end:?}"));
            if !event.is_comment {
                return event;
            }
        }
    }
}

/// The built command, running.
pub(crate) struct Binary {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// What a process printed so far.
#[derive(Clone, Default)]
pub(crate) struct Output(Arc<Mutex<Vec<String>>>);

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let lines = output.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.lock().expect("nobody panics with it").push(line);
            }
        });
        output
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }

    /// Waits for a line with `part` in it, which may have come before.
    #[track_caller]
    pub(crate) fn await_line(&self, part: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.contains(part)) {
                return line;
            }
            assert!(start.elapsed() < LIMIT, "no line with {part:?} in {:#?}", self.lines());
            std::thread::sleep(STEP);
        }
    }
}

/// A command of the binary, with an environment that has no settings in it.
pub(crate) fn longwire(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longwire"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LONGWIRE_")) {
        command.env_remove(name);
    }
    command
}

impl Binary {
    /// Starts a command.
    pub(crate) fn start(arguments: &[&str]) -> Binary {
        let mut child =
            longwire(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was built");
        let stdout = Output::of(child.stdout.take().expect("it is piped"));
        let stderr = Output::of(child.stderr.take().expect("it is piped"));
        Binary { child, stdout, stderr }
    }

    /// Starts a server with more settings, on a free port unless they name one; its address.
    pub(crate) fn serve(settings: &[&str]) -> (Binary, SocketAddr) {
        let mut arguments = vec!["serve", "--log.json", "true", "--server.shards", "2"];
        if !settings.contains(&"--server.listen") {
            arguments.extend(["--server.listen", "127.0.0.1:0"]);
        }
        arguments.extend(settings);
        let server = Binary::start(&arguments);
        let line: Value =
            serde_json::from_str(&server.stderr.await_line("\"listening\"")).expect("the log is JSON");
        let address = line["address"].as_str().expect("an address").parse().expect("an address");
        (server, address)
    }

    pub(crate) fn stdout(&self) -> &Output {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Output {
        &self.stderr
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
        assert!(sent.expect("a shell").success());
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the end of a process", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it was waited for")
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
