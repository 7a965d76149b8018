//! A WebSocket of the doctor's: the handshake, and frames one by one.
//!
//! It answers nothing by itself: whether a ping is answered is what a probe decides. What must stay true: messages are
//! bounded, and a frame that is never finished can be sent, because that is how a server's limit is found without giving
//! it a message.

use super::line::{Break, Line};
use super::seen::Upgrade;
use bytes::Bytes;
use longwire_protocol::http::parse_response_head;
use longwire_protocol::websocket::frame::{self, Opcode};
use longwire_protocol::websocket::handshake::ClientRequest;
use longwire_protocol::websocket::{Connection, Event, Role};
use std::time::{Duration, Instant};

/// The longest message that is read.
const MAX_MESSAGE_BYTES: u32 = 1 << 20;

/// How much of a refusal's body is shown.
const SHOWN_BYTES: usize = 400;

/// How long the body of a refusal may take.
const BODY_TIME: Duration = Duration::from_secs(1);

/// Sets the bit that ends a message.
const FIN: u8 = 0x80;

/// An open WebSocket.
pub(super) struct Socket {
    line: Line,
    connection: Connection,
    /// Bytes from which masking keys are taken in turn.
    mask: [u8; 4],
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) subprotocols: &'a [&'a str],
    pub(super) offer_deflate: bool,
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// Chance.
    pub(super) key: u128,
}

/// A handshake: what was seen, the socket if it succeeded, and the head that was answered.
pub(super) struct Shaken {
    pub(super) seen: Upgrade,
    pub(super) socket: Option<Socket>,
    pub(super) head: Option<super::line::Head>,
}

impl Asked<'_> {
    fn request(&self) -> ClientRequest<'_> {
        ClientRequest {
            host: self.host,
            target: self.path,
            key: self.key.to_be_bytes(),
            origin: None,
            subprotocols: self.subprotocols,
            offer_deflate: self.offer_deflate,
            headers: self.headers,
        }
    }
}

/// Makes the handshake on a fresh connection.
pub(super) async fn shake(mut line: Line, asked: &Asked<'_>, deadline: Instant) -> Shaken {
    let begun = line.clock().now();
    let mut seen = Upgrade { path: asked.path.to_owned(), ..Upgrade::default() };
    let request = asked.request();
    let bytes = match request.encode() {
        Ok(bytes) => bytes,
        Err(error) => {
            seen.error = Some(error.to_string());
            return Shaken { seen, socket: None, head: None };
        }
    };
    let answered = match line.send(&bytes, deadline).await {
        Ok(()) => raw_head(&mut line, deadline).await,
        Err(broken) => Err(broken),
    };
    seen.ms = super::milliseconds(line.clock().now() - begun);
    let raw = match answered {
        Ok(raw) => raw,
        Err(broken) => {
            seen.error = Some(broken.text());
            return Shaken { seen, socket: None, head: None };
        }
    };
    let Ok(Some((parsed, _))) = parse_response_head(&raw, raw.len().max(1), 128) else {
        seen.error = Some("the head of the answer cannot be read".to_owned());
        return Shaken { seen, socket: None, head: None };
    };
    seen.status = Some(parsed.status);
    let shown = |name: &str| parsed.headers.first_str(name).map(super::super::printable);
    seen.location = shown("location");
    seen.compression = shown("sec-websocket-extensions");
    seen.subprotocol = shown("sec-websocket-protocol");
    let head = super::line::Head::of(&parsed);
    if parsed.status != 101 {
        let body_deadline = deadline.min(line.clock().now() + BODY_TIME);
        let body = line.beginning(&head, SHOWN_BYTES, body_deadline).await;
        seen.body = super::super::printable(super::text_of(&body).trim());
        return Shaken { seen, socket: None, head: Some(head) };
    }
    // What is judged of an offer is whether it was taken; the doctor sends and reads nothing compressed.
    if !asked.offer_deflate
        && let Err(error) = request.verify(&parsed)
    {
        seen.error = Some(error.to_string());
        return Shaken { seen, socket: None, head: Some(head) };
    }
    let connection = Connection::new(Role::Client, false, MAX_MESSAGE_BYTES);
    let mask = (asked.key as u32).to_be_bytes();
    Shaken { seen, socket: Some(Socket { line, connection, mask }), head: Some(head) }
}

/// Takes a head off the line, as bytes.
async fn raw_head(line: &mut Line, deadline: Instant) -> Result<Vec<u8>, Break> {
    loop {
        if let Some(at) = line.received.windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(line.received.drain(..at + 4).collect());
        }
        line.read_more(deadline).await?;
    }
}

impl Socket {
    /// What comes next. It may be given up and called again.
    pub(super) async fn next(&mut self, deadline: Instant) -> Result<Event, Break> {
        loop {
            if !self.line.received.is_empty() {
                let mut input = self.line.received.as_slice();
                let decoded = self.connection.decode(&mut input);
                let used = self.line.received.len() - input.len();
                self.line.received.drain(..used);
                match decoded {
                    Ok(Some(event)) => return Ok(event),
                    Ok(None) => {}
                    Err(violation) => return Err(Break::Wrong(violation.to_string())),
                }
            }
            self.line.read_more(deadline).await?;
        }
    }

    /// Sends a whole frame.
    pub(super) async fn send(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Break> {
        let bytes = self.frame(opcode, payload);
        self.line.send(&bytes, deadline).await
    }

    /// Sends a piece of a message that goes on.
    pub(super) async fn send_piece(
        &mut self,
        is_first: bool,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Break> {
        let opcode = if is_first { Opcode::Text } else { Opcode::Continuation };
        let mut bytes = self.frame(opcode, payload);
        bytes[0] &= !FIN;
        self.line.send(&bytes, deadline).await
    }

    /// Says that this end closes.
    pub(super) async fn close(&mut self, deadline: Instant) -> Result<(), Break> {
        self.send(Opcode::Close, &frame::close_payload(1000, ""), deadline).await
    }

    /// Sends a ping and waits for its pong; what else comes meanwhile is handed over.
    pub(super) async fn ping(&mut self, payload: &[u8], deadline: Instant) -> Result<(), Break> {
        self.send(Opcode::Ping, payload, deadline).await?;
        loop {
            match self.next(deadline).await? {
                Event::Pong(answer) if answer == payload => return Ok(()),
                // A server that pings before it answers is answered too.
                Event::Ping(asked) => self.send(Opcode::Pong, &asked, deadline).await?,
                Event::Close { code, reason } => return Err(Break::Failed(told(code, &reason))),
                Event::Pong(_) | Event::Message { .. } => {}
            }
        }
    }

    fn frame(&mut self, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        // RFC 6455 section 5.3 wants keys that cannot be foreseen, to protect caches from scripts in pages; here nobody
        // chooses what is sent.
        self.mask = u32::from_be_bytes(self.mask).wrapping_mul(0x9e37_79b1).wrapping_add(1).to_be_bytes();
        let mut bytes = Vec::with_capacity(payload.len() + 14);
        frame::encode(opcode, false, Some(self.mask), payload, &mut bytes);
        bytes
    }
}

/// A close frame, in words.
pub(super) fn told(code: Option<u16>, reason: &str) -> String {
    match (code, reason) {
        (None, _) => "close without a code".to_owned(),
        (Some(code), "") => format!("close {code}"),
        (Some(code), reason) => format!("close {code} {}", super::super::printable(reason)),
    }
}

/// A text message.
pub(super) fn text(data: &Bytes) -> String {
    String::from_utf8_lossy(data).into_owned()
}
