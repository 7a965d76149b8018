//! A STOMP client of raw bytes, over TCP or a WebSocket: it checks what it reads and does nothing by itself.
//!
//! It shares no code with the server. [`Client`] writes any bytes, or frames with the escapes of its version, and reads
//! frame by frame. A MESSAGE that comes while a RECEIPT is awaited is kept for [`Client::message`], in order. What must
//! stay true: an ERROR that nobody expects ends the test with its text, and every wait has the limit of the harness.

use crate::framing_suite;
use crate::harness::{End, Link, Raw, Received, upgrade};
use std::collections::VecDeque;
use std::net::SocketAddr;

/// A frame that the server sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    pub(super) command: String,
    /// In their order, as text of no escapes.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Every byte, with the NUL.
    pub(super) bytes: Vec<u8>,
}

impl Frame {
    /// Reads a whole frame; `version` says which escapes there are.
    #[track_caller]
    fn parse(bytes: Vec<u8>, version: &str) -> Frame {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").expect("a frame has an empty line");
        let head = std::str::from_utf8(&bytes[..end]).expect("a frame's head is UTF-8");
        let mut lines = head.split('\n');
        let command = lines.next().expect("one at least").to_owned();
        let is_plain = version == "1.0" || command == "CONNECTED";
        let text = |raw: &str| if is_plain { raw.to_owned() } else { unescape(raw, version) };
        let headers: Vec<_> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no colon in {line:?}"));
                assert!(is_plain || !value.contains(':'), "a raw colon in {line:?}");
                (text(name), text(value))
            })
            .collect();
        assert_eq!(bytes.last(), Some(&0), "a frame ends with NUL: {head}");
        let body = bytes[end + 2..bytes.len() - 1].to_vec();
        let frame = Frame { command, headers, body, bytes };
        match frame.header("content-length") {
            Some(length) => assert_eq!(length, frame.body.len().to_string(), "{frame:?}"),
            None => assert!(frame.body.is_empty(), "a body without content-length: {frame:?}"),
        }
        frame
    }

    /// The value of a header, the first of its name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header that must be there.
    #[track_caller]
    pub(super) fn get(&self, name: &str) -> &str {
        self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// How often a header is there.
    pub(super) fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(known, _)| known == name).count()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn unescape(raw: &str, version: &str) -> String {
    let mut text = String::new();
    let mut chars = raw.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('c') => ':',
                Some('\\') => '\\',
                Some('r') if version == "1.2" => '\r',
                other => panic!("the escape {other:?} in {raw:?}, which {version} does not have"),
            },
            char => char,
        });
    }
    text
}

fn escape(text: &str, version: &str) -> String {
    if version == "1.0" {
        return text.to_owned();
    }
    let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace(':', "\\c");
    if version == "1.2" { text.replace('\r', "\\r") } else { text }
}

/// What comes next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Incoming {
    Frame(Frame),
    /// An end of line between frames.
    Beat,
    /// The code of a WebSocket's close frame.
    Close(Option<u16>),
    End(End),
}

/// How the bytes go.
pub(super) enum Way {
    Tcp(Box<Link>),
    WebSocket {
        raw: Box<Raw>,
        /// Write binary messages.
        is_binary: bool,
    },
}

/// A STOMP client.
pub(super) struct Client {
    pub(super) way: Way,
    /// Which escapes it writes and reads.
    pub(super) version: String,
    early: VecDeque<Frame>,
    receipts: u64,
}

/// Headers that a frame is written with.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

impl Client {
    /// Opens a TCP connection, and says nothing.
    #[track_caller]
    pub(super) fn open(server: SocketAddr) -> Client {
        Client::over(Way::Tcp(Box::new(Link::open(server))))
    }

    /// Opens a WebSocket, and says nothing.
    #[track_caller]
    pub(super) fn websocket(server: SocketAddr, path: &str, is_binary: bool) -> Client {
        let request = upgrade(server, path, "Sec-WebSocket-Protocol: v10.stomp, v11.stomp, v12.stomp\r\n");
        Client::over(Way::WebSocket { raw: Box::new(Raw::of_request(server, &request)), is_binary })
    }

    pub(super) fn over(way: Way) -> Client {
        Client { way, version: "1.2".to_owned(), early: VecDeque::new(), receipts: 0 }
    }

    /// Connects with this one version and more headers; the CONNECTED.
    #[track_caller]
    pub(super) fn connect(&mut self, version: &str, more: Headers<'_>) -> Frame {
        self.version = "1.0".to_owned();
        let mut headers = vec![("accept-version", version), ("host", "localhost")];
        if version == "1.0" {
            headers.clear();
        }
        headers.extend(more);
        self.write("CONNECT", &headers, b"");
        let connected = self.frame();
        assert_eq!(connected.command, "CONNECTED", "{connected:?}");
        assert_eq!(connected.get("version"), version);
        self.version = version.to_owned();
        connected
    }

    /// Sends bytes as they are: over a WebSocket, as one message.
    pub(super) fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match &mut self.way {
            Way::Tcp(link) => link.send(bytes),
            Way::WebSocket { raw, is_binary } => {
                raw.send_bytes(&framing_suite::frame(if *is_binary { 0x82 } else { 0x81 }, bytes));
            }
        }
    }

    /// The bytes of a frame, with `content-length` where the body needs it.
    pub(super) fn encoded(&self, command: &str, headers: Headers<'_>, body: &[u8]) -> Vec<u8> {
        let mut bytes = format!("{command}\n").into_bytes();
        for (name, value) in headers {
            let (name, value) = (escape(name, &self.version), escape(value, &self.version));
            bytes.extend(format!("{name}:{value}\n").into_bytes());
        }
        if body.contains(&0) && !headers.iter().any(|(name, _)| *name == "content-length") {
            bytes.extend(format!("content-length:{}\n", body.len()).into_bytes());
        }
        bytes.push(b'\n');
        bytes.extend(body);
        bytes.push(0);
        bytes
    }

    /// Sends a frame.
    pub(super) fn write(&mut self, command: &str, headers: Headers<'_>, body: &[u8]) {
        let bytes = self.encoded(command, headers, body);
        self.raw(bytes);
    }

    /// Sends a frame with a receipt of its own and awaits it.
    #[track_caller]
    pub(super) fn ask(&mut self, command: &str, headers: Headers<'_>, body: &[u8]) -> Frame {
        self.receipts += 1;
        let receipt = format!("ask-{}", self.receipts);
        let mut headers = headers.to_vec();
        headers.push(("receipt", &receipt));
        self.write(command, &headers, body);
        self.receipt(&receipt)
    }

    /// Sends a message and awaits its receipt.
    #[track_caller]
    pub(super) fn put(&mut self, destination: &str, body: impl AsRef<[u8]>) -> Frame {
        self.put_with(destination, &[], body)
    }

    #[track_caller]
    pub(super) fn put_with(&mut self, destination: &str, more: Headers<'_>, body: impl AsRef<[u8]>) -> Frame {
        let mut headers = vec![("destination", destination)];
        headers.extend(more);
        self.ask("SEND", &headers, body.as_ref())
    }

    /// Subscribes and awaits the receipt.
    #[track_caller]
    pub(super) fn subscribe(&mut self, id: &str, destination: &str, ack: &str) -> Frame {
        self.subscribe_with(id, destination, &[("ack", ack)])
    }

    #[track_caller]
    pub(super) fn subscribe_with(&mut self, id: &str, destination: &str, more: Headers<'_>) -> Frame {
        let mut headers = vec![("id", id), ("destination", destination)];
        headers.extend(more);
        let before = self.early.len();
        let receipt = self.ask("SUBSCRIBE", &headers, b"");
        let mut came = self.early.iter().skip(before);
        let is_early = came.any(|message| message.header("subscription") == Some(id));
        assert!(!is_early, "a MESSAGE came before the RECEIPT of its SUBSCRIBE");
        receipt
    }

    /// Says ACK or NACK to a MESSAGE as its version does, with more headers, and awaits the receipt.
    #[track_caller]
    pub(super) fn answer(&mut self, command: &str, message: &Frame, more: Headers<'_>) -> Frame {
        let subscription = message.header("subscription").unwrap_or_default();
        let mut headers = match self.version.as_str() {
            "1.2" => vec![("id", message.get("ack"))],
            "1.1" => vec![("message-id", message.get("message-id")), ("subscription", subscription)],
            _ => vec![("message-id", message.get("message-id"))],
        };
        headers.extend(more);
        self.ask(command, &headers, b"")
    }

    #[track_caller]
    pub(super) fn ack(&mut self, message: &Frame) -> Frame {
        self.answer("ACK", message, &[])
    }

    #[track_caller]
    pub(super) fn nack(&mut self, message: &Frame) -> Frame {
        self.answer("NACK", message, &[])
    }

    /// The next frame or whatever else comes.
    #[track_caller]
    pub(super) fn next(&mut self) -> Incoming {
        let bytes = match &mut self.way {
            Way::Tcp(link) => match read_frame(link) {
                Ok(bytes) => bytes,
                Err(end) => return Incoming::End(end),
            },
            Way::WebSocket { raw, .. } => match raw.next() {
                Received::Text(text) => text.into_bytes(),
                Received::Binary(bytes) => bytes,
                Received::Close(code, _) => return Incoming::Close(code),
                Received::End(end) => return Incoming::End(end),
                other => panic!("neither text nor binary but {other:?}"),
            },
        };
        match bytes[..] {
            [b'\n'] => Incoming::Beat,
            _ => Incoming::Frame(Frame::parse(bytes, &self.version)),
        }
    }

    /// The next frame.
    #[track_caller]
    pub(super) fn frame(&mut self) -> Frame {
        loop {
            match self.next() {
                Incoming::Frame(frame) => return frame,
                Incoming::Beat => {}
                other => panic!("no frame but {other:?}"),
            }
        }
    }

    /// Awaits a receipt; messages that come before it are kept.
    #[track_caller]
    pub(super) fn receipt(&mut self, id: &str) -> Frame {
        loop {
            let frame = self.frame();
            match frame.command.as_str() {
                "MESSAGE" => self.early.push_back(frame),
                "RECEIPT" => {
                    assert_eq!(frame.get("receipt-id"), id);
                    return frame;
                }
                _ => panic!("no RECEIPT of {id} but {frame:?} {:?}", frame.text()),
            }
        }
    }

    /// The next message.
    #[track_caller]
    pub(super) fn message(&mut self) -> Frame {
        let message = self.early.pop_front().unwrap_or_else(|| self.frame());
        assert_eq!(message.command, "MESSAGE", "{message:?} {:?}", message.text());
        message
    }

    /// The bodies of the next messages.
    #[track_caller]
    pub(super) fn bodies(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.message().text()).collect()
    }

    /// Expects that nothing comes before the receipt of something that went the way of all queues' messages.
    #[track_caller]
    pub(super) fn quiet(&mut self) {
        self.put_with("/queue/nobody.reads.this", &[("persistent", "false")], "x");
        assert!(self.early.is_empty(), "{:?}", self.early);
    }

    /// Expects an ERROR, and then the end of the connection.
    #[track_caller]
    pub(super) fn error(&mut self) -> Frame {
        let error = self.error_then();
        self.gone();
        error
    }

    /// Expects an ERROR; what comes after it is left.
    #[track_caller]
    pub(super) fn error_then(&mut self) -> Frame {
        let error = loop {
            let frame = self.frame();
            match frame.command.as_str() {
                "ERROR" => break frame,
                "MESSAGE" | "RECEIPT" => {}
                _ => panic!("no ERROR but {frame:?}"),
            }
        };
        assert!(!error.get("message").is_empty(), "{error:?}");
        error
    }

    /// Expects the end of the connection, without another frame.
    #[track_caller]
    pub(super) fn gone(&mut self) {
        loop {
            match self.next() {
                Incoming::Beat => {}
                Incoming::Close(_) => {
                    if let Way::WebSocket { raw, .. } = &mut self.way {
                        raw.link.finish();
                    }
                }
                Incoming::End(End::Closed) => return,
                other => panic!("not the end but {other:?}"),
            }
        }
    }

    /// Leaves as the specification advises: with a receipt.
    #[track_caller]
    pub(super) fn disconnect(mut self) {
        self.write("DISCONNECT", &[("receipt", "bye")], b"");
        self.receipt("bye");
        self.gone();
    }

    /// Breaks off: the server sees a reset.
    pub(super) fn vanish(self) {
        match self.way {
            Way::Tcp(link) => link.reset(),
            Way::WebSocket { raw, .. } => raw.link.reset(),
        }
    }

    pub(super) fn link(&mut self) -> &mut Link {
        match &mut self.way {
            Way::Tcp(link) => link,
            Way::WebSocket { raw, .. } => &mut raw.link,
        }
    }
}

/// The bytes of one frame, without the line feed that the server writes behind each, or one end of line.
fn read_frame(link: &mut Link) -> Result<Vec<u8>, End> {
    let mut bytes = link.take(1)?;
    if bytes == b"\n" {
        return Ok(bytes);
    }
    bytes.extend(link.take_up_to(b"\n\n")?);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let rest = match length {
        Some(length) => link.take(length.parse::<usize>().expect("a length") + 1)?,
        None => link.take_up_to(b"\0")?,
    };
    bytes.extend(rest);
    assert_eq!(link.take(1)?, b"\n", "a line feed follows");
    Ok(bytes)
}
