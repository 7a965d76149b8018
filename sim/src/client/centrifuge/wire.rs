//! How the dialect's messages travel: WebSocket, or a response that goes on with requests beside it.
//!
//! It frames and knows no message's meaning. Whether each reply came whole in a chunk or an event of its own is
//! judged here. What must stay true: the same bytes give the same messages however they are cut, and an error
//! from here is the server's fault.

use crate::client::event_source::{Item, Parser};
use crate::client::event_stream::encode;
use crate::client::websocket::{self, Link};
use crate::client::{Output, Post, Settings};
use bytes::Bytes;
use longwire_protocol::centrifuge::Format;
use longwire_protocol::http::parse_response_head;

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 100;

/// A longer chunk is not taken.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// Dialect and transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::client) struct Route {
    pub(in crate::client) carrier: Carrier,
    pub(in crate::client) format: Format,
    /// The server says pushes, and nothing but the first request can be said to it.
    pub(in crate::client) is_bare: bool,
}

/// What messages travel in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::client) enum Carrier {
    WebSocket,
    Events,
    Chunks,
}

impl Route {
    fn path(self) -> &'static str {
        match (self.carrier, self.is_bare) {
            (Carrier::WebSocket, false) => "/connection/websocket",
            (Carrier::WebSocket, true) => "/connection/uni_websocket",
            (Carrier::Events, false) => "/connection/sse",
            (Carrier::Events, true) => "/connection/uni_sse",
            (Carrier::Chunks, false) => "/connection/http_stream",
            (Carrier::Chunks, true) => "/connection/uni_http_stream",
        }
    }

    /// Whether what the client says after its first message goes by requests of its own.
    pub(super) fn is_emulated(self) -> bool {
        self.carrier != Carrier::WebSocket && !self.is_bare
    }

    pub(super) fn name(self) -> &'static str {
        match (self.carrier, self.format, self.is_bare) {
            (Carrier::WebSocket, Format::Json, false) => "centrifuge json over websocket",
            (Carrier::WebSocket, Format::Protobuf, false) => "centrifuge protobuf over websocket",
            (Carrier::WebSocket, Format::Json, true) => "centrifuge json over websocket, one way",
            (Carrier::WebSocket, Format::Protobuf, true) => "centrifuge protobuf over websocket, one way",
            (Carrier::Events, _, false) => "centrifuge over sse",
            (Carrier::Events, _, true) => "centrifuge over sse, one way",
            (Carrier::Chunks, Format::Json, false) => "centrifuge json over http stream",
            (Carrier::Chunks, Format::Protobuf, false) => "centrifuge protobuf over http stream",
            (Carrier::Chunks, Format::Json, true) => "centrifuge json over http stream, one way",
            (Carrier::Chunks, Format::Protobuf, true) => "centrifuge protobuf over http stream, one way",
        }
    }
}

/// One client's link, over all of its connections.
pub(super) struct Wire {
    pub(super) route: Route,
    host: String,
    /// Over WebSocket.
    link: Option<Link>,
    response: Response,
    /// The session and the node that further requests must name.
    session: Option<(String, String)>,
}

enum Response {
    Idle,
    /// The request is sent.
    Head(Vec<u8>),
    Events(Box<Parser>),
    Chunks(Vec<u8>),
    /// The last chunk came.
    Ended,
}

/// What came from the server.
#[derive(PartialEq, Debug)]
pub(super) enum Incoming {
    /// The WebSocket handshake succeeded.
    Open,
    /// The request was answered with this status.
    Refused(u16),
    /// A message.
    Message(Bytes),
    /// The close frame; its answer is written.
    Close { code: Option<u16>, reason: String },
}

impl Wire {
    pub(super) fn new(route: Route, settings: &Settings) -> Wire {
        let subprotocol = (route.format == Format::Protobuf).then_some("centrifuge-protobuf");
        let Settings { host, offer_deflate, rng, .. } = settings;
        let link = (route.carrier == Carrier::WebSocket).then(|| {
            Link::new(
                host.clone(),
                route.path().to_owned(),
                subprotocol,
                *offer_deflate,
                rng.fork("websocket"),
            )
        });
        Wire { route, host: host.clone(), link, response: Response::Idle, session: None }
    }

    /// Begins a WebSocket handshake; false where the first message is to be sent with the request, see
    /// [`request`](Self::request).
    pub(super) fn open(&mut self, out: &mut Vec<u8>) -> bool {
        match &mut self.link {
            Some(link) => link.open(out),
            None => return false,
        }
        true
    }

    /// Asks for a response that goes on.
    pub(super) fn request(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let (path, host) = (self.route.path(), &self.host);
        let (line, rest) = match self.route.carrier {
            Carrier::Events => {
                let message = encode(&String::from_utf8_lossy(message));
                let rest = "Accept: text/event-stream\r\nCache-Control: no-cache\r\n".to_owned();
                (format!("GET {path}?cf_connect={message} HTTP/1.1"), rest)
            }
            _ => {
                let kind = content_type(self.route.format);
                let rest = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", message.len());
                (format!("POST {path} HTTP/1.1"), rest)
            }
        };
        out.extend_from_slice(format!("{line}\r\nHost: {host}\r\n{rest}\r\n").as_bytes());
        if self.route.carrier != Carrier::Events {
            out.extend_from_slice(message);
        }
        self.response = Response::Head(Vec::new());
    }

    /// Notes what further requests must name.
    pub(super) fn set_session(&mut self, session: String, node: String) {
        self.session = Some((session, node));
    }

    /// Forgets the connection.
    pub(super) fn reset(&mut self) {
        self.link.iter_mut().for_each(Link::reset);
        self.response = Response::Idle;
        self.session = None;
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        match &self.link {
            Some(link) => link.is_open(),
            None => self.session.is_some(),
        }
    }

    /// Takes what comes next from `input`; `None` once all of it was taken.
    ///
    /// # Errors
    /// The rule that the server broke.
    pub(super) fn poll(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Incoming>, String> {
        if let Some(link) = &mut self.link {
            let incoming = link.poll(input, out)?;
            return Ok(incoming.map(|incoming| match incoming {
                websocket::Incoming::Open => Incoming::Open,
                websocket::Incoming::Refused(status) => Incoming::Refused(status),
                websocket::Incoming::Message(data) => Incoming::Message(data),
                websocket::Incoming::Close { code, reason } => Incoming::Close { code, reason },
            }));
        }
        self.poll_response(input).map_err(|what| format!("stream: {what}"))
    }

    fn poll_response(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, String> {
        loop {
            match &mut self.response {
                Response::Idle => *input = &[],
                Response::Head(_) => {
                    if let Some(status) = self.read_head(input)? {
                        return Ok(Some(Incoming::Refused(status)));
                    }
                    if let Response::Head(_) = self.response {
                        return Ok(None);
                    }
                    continue;
                }
                Response::Events(parser) => match parser.poll(input)? {
                    None => {}
                    Some(Item::Event { name, data, has_id: false }) if name == "message" => {
                        return Ok(Some(Incoming::Message(data.into_bytes().into())));
                    }
                    // What only forces the head through a proxy.
                    Some(Item::Comment) => continue,
                    Some(item) => return Err(format!("an event that the dialect does not have: {item:?}")),
                },
                Response::Chunks(bytes) => {
                    bytes.extend_from_slice(input);
                    *input = &[];
                    match take_chunk(bytes)? {
                        None => {}
                        Some(chunk) if chunk.is_empty() => {
                            let rest = bytes.len();
                            self.response = Response::Ended;
                            if rest > 0 {
                                return Err(format!("{rest} bytes behind the last chunk"));
                            }
                        }
                        Some(chunk) => {
                            require_whole(self.route.format, &chunk)?;
                            return Ok(Some(Incoming::Message(chunk.into())));
                        }
                    }
                }
                Response::Ended if input.is_empty() => {}
                Response::Ended => return Err("bytes behind the last chunk".to_owned()),
            }
            return Ok(None);
        }
    }

    /// Reads the head of the response; its status if it is a refusal.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<Option<u16>, String> {
        let Response::Head(bytes) = &mut self.response else { return Ok(None) };
        bytes.extend_from_slice(input);
        let parsed = parse_response_head(bytes, MAX_HEAD_BYTES, MAX_HEADERS);
        let Some((head, consumed)) = parsed.map_err(|error| format!("the response's head: {error}"))? else {
            *input = &[];
            return Ok(None);
        };
        *input = &input[input.len() - (bytes.len() - consumed)..];
        match head.status {
            200 => {}
            status @ 400..=599 => {
                self.response = Response::Idle;
                return Ok(Some(status));
            }
            status => return Err(format!("the status {status}")),
        }
        let is_sse = self.route.carrier == Carrier::Events;
        let kind = head.headers.first_str("content-type").unwrap_or_default();
        let expected = match (is_sse, self.route.format) {
            (true, _) => "text/event-stream",
            (false, Format::Json) => "application/x-ndjson",
            (false, Format::Protobuf) => content_type(Format::Protobuf),
        };
        if kind.split(';').next().map(str::trim) != Some(expected) {
            return Err(format!("the content type is {kind:?}"));
        }
        let is_chunked = head.headers.first("transfer-encoding") == Some(b"chunked");
        let is_framed = ["transfer-encoding", "content-length", "content-encoding"]
            .into_iter()
            .any(|name| name != "transfer-encoding" && head.headers.first(name).is_some());
        if is_framed || is_chunked == is_sse {
            return Err("the body does not go on as this transport's does".to_owned());
        }
        self.response = match is_sse {
            true => Response::Events(Box::new(Parser::new(String::new()))),
            false => Response::Chunks(Vec::new()),
        };
        Ok(None)
    }

    /// Sends a message, over WebSocket or by a request of its own.
    pub(super) fn send(&mut self, message: &[u8], out: &mut Output) {
        match (&mut self.link, &self.session) {
            (Some(link), _) => link.send(message, &mut out.bytes),
            (None, Some((session, node))) => {
                let body = match self.route.format {
                    Format::Json => serde_json::json!({
                        "session": session, "node": node, "data": String::from_utf8_lossy(message),
                    })
                    .to_string()
                    .into_bytes(),
                    Format::Protobuf => super::protobuf::emulation(session, node, message),
                };
                out.posts.push(Post {
                    path: "/emulation".into(),
                    number: None,
                    body,
                    content_type: content_type(self.route.format),
                });
            }
            (None, None) => {}
        }
    }

    /// Begins to close, where that is more than leaving. False if there is nothing to close.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> bool {
        self.link.as_mut().is_some_and(|link| link.close(out))
    }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        // The one content type that means Protobuf (centrifuge protocol, section 1.2).
        Format::Protobuf => "application/octet-stream",
    }
}

/// Takes the first chunk, if it is whole (RFC 9112 section 7.1).
fn take_chunk(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() > 20 { Err("a chunk without a size".to_owned()) } else { Ok(None) };
    };
    let digits = std::str::from_utf8(&bytes[..line]).map_err(|_| "a chunk's size is no text")?;
    let size = usize::from_str_radix(digits, 16).map_err(|_| format!("a chunk of the size {digits:?}"))?;
    if size > MAX_CHUNK_BYTES {
        return Err(format!("a chunk of {size} bytes"));
    }
    let (start, end) = (line + 2, line + 2 + size);
    match bytes.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => {
            let chunk = bytes[start..end].to_vec();
            bytes.drain(..end + 2);
            Ok(Some(chunk))
        }
        Some(_) => Err("a chunk that does not end where it should".to_owned()),
    }
}

/// A chunk holds one message, whole.
fn require_whole(format: Format, chunk: &[u8]) -> Result<(), String> {
    let is_whole = match format {
        // What is not ASCII is escaped, for clients that decode piece by piece.
        Format::Json => {
            chunk.iter().position(|byte| *byte == b'\n') == Some(chunk.len() - 1) && chunk.is_ascii()
        }
        Format::Protobuf => {
            let mut rest = chunk;
            super::protobuf::take_delimited(&mut rest).is_ok() && rest.is_empty()
        }
    };
    if is_whole { Ok(()) } else { Err(format!("a chunk of {} bytes is not one message", chunk.len())) }
}
