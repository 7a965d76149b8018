//! A client's end of a WebSocket: handshake, whole messages, pings, and the close.
//!
//! The dialects on top see messages, of the one kind that was agreed on, and the end. Frames, masks and the handshake's rules are those of
//! `longwire-protocol`; what is added here is what a browser does with them: it answers pings and the close,
//! and hears nothing more once it began to close itself. What must stay true: an error from here is the
//! server's fault.

use bytes::Bytes;
use longwire::env::rng::Rng;
use longwire_protocol::http::parse_response_head;
use longwire_protocol::websocket::handshake::{ClientRequest, HandshakeError};
use longwire_protocol::websocket::{Compressor, Connection, Event, Kind, Opcode, Role, frame};
use std::cell::RefCell;

/// The longest answer to a handshake.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The most headers of such an answer.
const MAX_HEADERS: usize = 100;

/// The largest message a client takes.
const MAX_MESSAGE_BYTES: u32 = 16 << 20;

thread_local! {
    /// Every message is compressed by itself, so one compressor serves all clients.
    static COMPRESSOR: RefCell<Compressor> = RefCell::default();
}

/// One client's link, over all of its connections.
pub(super) struct Link {
    host: String,
    target: String,
    /// What is asked for; messages are binary with one, texts without.
    subprotocol: Option<&'static str>,
    offer_deflate: bool,
    rng: Rng,
    state: State,
}

enum State {
    Idle,
    Handshake { key: [u8; 16], head: Vec<u8> },
    Open { frames: Connection, is_deflated: bool, is_closing: bool },
}

/// What came from the server.
#[derive(PartialEq, Debug)]
pub(super) enum Incoming {
    /// The handshake succeeded.
    Open,
    /// The handshake was answered with this status.
    Refused(u16),
    /// A message.
    Message(Bytes),
    /// The close frame; its answer is written.
    Close { code: Option<u16>, reason: String },
}

impl Link {
    pub(super) fn new(
        host: String,
        target: String,
        subprotocol: Option<&'static str>,
        offer_deflate: bool,
        rng: Rng,
    ) -> Link {
        Link { host, target, subprotocol, offer_deflate, rng, state: State::Idle }
    }

    /// Begins a handshake with a fresh key.
    pub(super) fn open(&mut self, out: &mut Vec<u8>) {
        let key = self.rng.bits_128().to_be_bytes();
        let request = self.request(key).encode().expect("a host and a path of the simulator's own");
        out.extend_from_slice(&request);
        self.state = State::Handshake { key, head: Vec::new() };
    }

    /// Forgets the connection.
    pub(super) fn reset(&mut self) {
        self.state = State::Idle;
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { is_closing: false, .. })
    }

    /// Takes what comes next from `input`; `None` once all of it was taken.
    ///
    /// # Errors
    /// The rule that the server broke.
    pub(super) fn poll(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Incoming>, String> {
        if let State::Handshake { .. } = self.state {
            return self.poll_handshake(input);
        }
        while let State::Open { frames, is_closing, .. } = &mut self.state {
            let event = frames.decode(input).map_err(|violation| format!("websocket: {violation}"))?;
            match event {
                None => return Ok(None),
                Some(Event::Ping(payload)) => self.write(Opcode::Pong, false, &payload, out),
                Some(Event::Pong(_)) => {}
                Some(Event::Message { kind, .. }) if (kind == Kind::Binary) != self.subprotocol.is_some() => {
                    return Err(format!(
                        "websocket: a message of the kind {kind:?}, which was not agreed on"
                    ));
                }
                Some(Event::Message { .. }) if *is_closing => {}
                Some(Event::Message { data, .. }) => return Ok(Some(Incoming::Message(data))),
                Some(Event::Close { code, reason }) => {
                    if !*is_closing {
                        *is_closing = true;
                        // RFC 6455 section 5.5.1: the answer repeats the code.
                        let payload = code.map_or(Vec::new(), |code| frame::close_payload(code, ""));
                        self.write(Opcode::Close, false, &payload, out);
                    }
                    return Ok(Some(Incoming::Close { code, reason }));
                }
            }
        }
        *input = &[];
        Ok(None)
    }

    /// Sends a message, compressed where that was agreed on and makes it shorter.
    pub(super) fn send(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let State::Open { is_deflated, is_closing: false, .. } = self.state else { return };
        let opcode = if self.subprotocol.is_some() { Opcode::Binary } else { Opcode::Text };
        let is_sent = is_deflated
            && COMPRESSOR.with_borrow_mut(|compressor| match compressor.compress(message) {
                Some(deflated) => {
                    self.write(opcode, true, deflated, out);
                    true
                }
                None => false,
            });
        if !is_sent {
            self.write(opcode, false, message, out);
        }
    }

    /// Begins to close, as a page's `close()` does: without a code. False if there is nothing to close.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) -> bool {
        let State::Open { is_closing, .. } = &mut self.state else { return false };
        if std::mem::replace(is_closing, true) {
            return false;
        }
        self.write(Opcode::Close, false, b"", out);
        true
    }

    fn request(&self, key: [u8; 16]) -> ClientRequest<'_> {
        ClientRequest {
            host: &self.host,
            target: &self.target,
            key,
            origin: None,
            subprotocols: self.subprotocol.as_slice(),
            offer_deflate: self.offer_deflate,
            headers: &[],
        }
    }

    fn poll_handshake(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, String> {
        let State::Handshake { key, head } = &mut self.state else { return Ok(None) };
        let (key, mut bytes) = (*key, std::mem::take(head));
        bytes.extend_from_slice(input);
        let parsed = parse_response_head(&bytes, MAX_HEAD_BYTES, MAX_HEADERS)
            .map_err(|error| format!("websocket: the answer to the handshake: {error}"))?;
        let Some((answer, consumed)) = parsed else {
            *input = &[];
            self.state = State::Handshake { key, head: bytes };
            return Ok(None);
        };
        // Without these bytes the head was not whole, so what follows it is all of this input.
        *input = &input[input.len() - (bytes.len() - consumed)..];
        match self.request(key).verify(&answer) {
            Ok(agreement) => {
                let frames = Connection::new(Role::Client, agreement.deflate, MAX_MESSAGE_BYTES);
                self.state = State::Open { frames, is_deflated: agreement.deflate, is_closing: false };
                Ok(Some(Incoming::Open))
            }
            Err(HandshakeError::Status(status)) => {
                self.state = State::Idle;
                Ok(Some(Incoming::Refused(status)))
            }
            Err(error) => Err(format!("websocket: {error}")),
        }
    }

    fn write(&mut self, opcode: Opcode, rsv1: bool, payload: &[u8], out: &mut Vec<u8>) {
        let [a, b, c, d, ..] = self.rng.bits().to_be_bytes();
        frame::encode(opcode, rsv1, Some([a, b, c, d]), payload, out);
    }
}
