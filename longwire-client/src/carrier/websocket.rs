//! A WebSocket: the client's handshake, masked frames out, messages in.
//!
//! A close frame is returned here; whether a ping is answered is up to `core`. What must stay true: each frame has a mask of its own
//! (RFC 6455 section 5.3); behind a close frame nothing is written.

use super::http::{HeadReader, malformed, refusal};
use super::{Inbound, Step};
use crate::cause::Cause;
use crate::chance::Chance;
use longwire_protocol::websocket::handshake::{ClientRequest, HandshakeError};
use longwire_protocol::websocket::{Connection, Event, Kind, Opcode, Role, frame};

/// The state of one WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocket {
    state: State,
    has_closed: bool,
}

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Open(Connection),
}

#[derive(Debug)]
struct Handshake {
    key: [u8; 16],
    subprotocols: &'static [&'static str],
    offer_deflate: bool,
    max_message_bytes: u32,
    head: HeadReader,
}

/// What a handshake asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) subprotocols: &'static [&'static str],
    pub(crate) offer_deflate: bool,
    pub(crate) headers: &'a [(String, String)],
    pub(crate) max_message_bytes: usize,
}

impl WebSocket {
    /// Begins: appends the request to `out`.
    ///
    /// # Errors
    ///
    /// Which part of the request cannot be sent.
    pub(crate) fn begin(ask: &Ask<'_>, chance: &mut Chance, out: &mut Vec<u8>) -> Result<WebSocket, Cause> {
        let headers: Vec<(&str, &str)> =
            ask.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let key = chance.key();
        let request = ClientRequest {
            host: ask.host,
            target: ask.target,
            key,
            origin: None,
            subprotocols: ask.subprotocols,
            offer_deflate: ask.offer_deflate,
            headers: &headers,
        };
        let bytes = request.encode().map_err(|error| match error {
            HandshakeError::Request(part) => malformed(part),
            other => Cause::Unreachable(other.to_string()),
        })?;
        out.extend_from_slice(&bytes);
        let handshake = Handshake {
            key,
            subprotocols: ask.subprotocols,
            offer_deflate: ask.offer_deflate,
            max_message_bytes: u32::try_from(ask.max_message_bytes).unwrap_or(u32::MAX),
            head: HeadReader::default(),
        };
        Ok(WebSocket { state: State::Handshake(Box::new(handshake)), has_closed: false })
    }

    pub(super) fn decode<'a>(
        &mut self,
        input: &mut &'a [u8],
        chance: &mut Chance,
        out: &mut Vec<u8>,
    ) -> Result<Option<Step<'a>>, Cause> {
        match &mut self.state {
            State::Handshake(handshake) => {
                let Some((subprotocol, connection)) = handshake.take(input)? else { return Ok(None) };
                self.state = State::Open(connection);
                Ok(Some(Step::Opened { subprotocol }))
            }
            State::Open(connection) => loop {
                if input.is_empty() {
                    return Ok(None);
                }
                let event = match connection.decode(input) {
                    Ok(Some(event)) => event,
                    Ok(None) => return Ok(None),
                    Err(violation) => {
                        self.close(violation.reason.code(), violation.what, chance, out);
                        return Err(Cause::Protocol(violation.to_string()));
                    }
                };
                match event {
                    Event::Message { kind, data } => {
                        return Ok(Some(Step::Inbound(Inbound::Message(kind, data))));
                    }
                    Event::Ping(data) => return Ok(Some(Step::Pinged(data))),
                    Event::Pong(_) => {}
                    Event::Close { code, reason } => {
                        // RFC 6455 section 5.5.1: a close frame is returned, with the code that came.
                        let payload = code.map_or_else(Vec::new, |code| frame::close_payload(code, ""));
                        self_encode(self.has_closed, Opcode::Close, &payload, chance, out);
                        self.has_closed = true;
                        let cause = match code {
                            None => Cause::Ended,
                            Some(code) => Cause::told(code, reason),
                        };
                        return Ok(Some(Step::Ended(cause)));
                    }
                }
            },
        }
    }

    /// Appends a message as one masked frame; nothing before the handshake is done or behind a close frame.
    pub(crate) fn encode(&self, kind: Kind, message: &[u8], chance: &mut Chance, out: &mut Vec<u8>) {
        if self.is_open() {
            frame::encode(kind.into(), false, Some(chance.mask()), message, out);
        }
    }

    /// Appends a ping.
    pub(crate) fn ping(&self, chance: &mut Chance, out: &mut Vec<u8>) {
        if self.is_open() {
            frame::encode(Opcode::Ping, false, Some(chance.mask()), b"", out);
        }
    }

    /// Appends the answer to a ping.
    pub(crate) fn pong(&self, data: &[u8], chance: &mut Chance, out: &mut Vec<u8>) {
        if self.is_open() {
            frame::encode(Opcode::Pong, false, Some(chance.mask()), data, out);
        }
    }

    /// Appends a close frame, the last that is written.
    pub(crate) fn close(&mut self, code: u16, reason: &str, chance: &mut Chance, out: &mut Vec<u8>) {
        if self.is_open() {
            self_encode(false, Opcode::Close, &frame::close_payload(code, reason), chance, out);
            self.has_closed = true;
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_)) && !self.has_closed
    }
}

/// Appends a control frame, unless a close frame was the last word.
fn self_encode(has_closed: bool, opcode: Opcode, payload: &[u8], chance: &mut Chance, out: &mut Vec<u8>) {
    if !has_closed {
        frame::encode(opcode, false, Some(chance.mask()), payload, out);
    }
}

impl Handshake {
    fn take(&mut self, input: &mut &[u8]) -> Result<Option<(Option<String>, Connection)>, Cause> {
        let Handshake { key, subprotocols, offer_deflate, max_message_bytes, head } = self;
        head.take(input, |head| {
            // What is judged are the answers to these; host and target are not repeated in them.
            let asked = ClientRequest {
                host: "",
                target: "/",
                key: *key,
                origin: None,
                subprotocols,
                offer_deflate: *offer_deflate,
                headers: &[],
            };
            let agreement = asked.verify(head).map_err(|error| match error {
                HandshakeError::Status(_) => refusal(head),
                other => Cause::Protocol(other.to_string()),
            })?;
            let connection = Connection::new(Role::Client, agreement.deflate, *max_message_bytes);
            Ok((agreement.subprotocol.map(str::to_owned), connection))
        })
    }
}
