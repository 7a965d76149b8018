//! One connection of the centrifuge dialect: WebSocket, or a response that never ends with requests beside it.
//!
//! Over WebSocket commands come as messages. A response (SSE, HTTP stream) is one way: its first commands came
//! with the request, all later ones come by requests of their own, which the server takes to
//! [`deliver`](Link::deliver). A *bare* link has no way back at all: it begins with one connect request and is
//! told pushes only. What must stay true: a message of several commands is given out one at a time, and what a
//! peer sends on a link that has no way back means nothing.

use super::{DecodeError, Format};
use crate::close::{Close, CloseReason};
use crate::command::{Command, Numbered};
use crate::connection::{Answer, Fault, Inbound, Transport};
use crate::encoding::{Encoding, Framing, Style, encode_push};
use crate::error_code::ErrorCode;
use crate::message::{Push, Reply, ReplyError};
use crate::websocket::{self, Event, Role, frame};
use bytes::Bytes;

/// How the server says that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beats {
    /// By an empty message, which the client answers by one.
    Messages,
    /// By ping frames, which a WebSocket implementation answers by itself.
    Frames,
}

/// One connection of the dialect.
#[derive(Debug)]
pub struct Link {
    /// Over WebSocket.
    frames: Option<websocket::Connection>,
    style: Style,
    beats: Beats,
    /// The request of a bare link was taken.
    is_begun: bool,
    /// What is left of a message whose commands are taken one by one; rarely anything.
    message: Option<Box<Bytes>>,
}

impl Link {
    /// A link after a WebSocket handshake; bare where `is_bare`.
    pub fn websocket(
        format: Format,
        is_bare: bool,
        beats: Beats,
        is_deflated: bool,
        max_message_bytes: u32,
    ) -> Link {
        let framing = if is_deflated { Framing::Deflated } else { Framing::WebSocket };
        Link {
            frames: Some(websocket::Connection::new(Role::Server, is_deflated, max_message_bytes)),
            ..Link::stream(Style { format, framing, is_bare }, beats)
        }
    }

    /// A link over a response, whose head the caller writes.
    pub fn response(style: Style) -> Link {
        Link::stream(style, Beats::Messages)
    }

    fn stream(style: Style, beats: Beats) -> Link {
        Link { frames: None, style, beats, is_begun: false, message: None }
    }

    /// Takes a message that came by a request of its own, or with the request that is answered.
    pub fn deliver(&mut self, data: Bytes) {
        let message = match self.message.take() {
            None => data,
            // Protobuf messages end by themselves.
            Some(rest) if self.style.format == Format::Protobuf => [&**rest, &*data].concat().into(),
            Some(rest) => [&**rest, b"\n", &*data].concat().into(),
        };
        self.message = Some(Box::new(message));
    }

    /// Bytes of messages that wait for their turn.
    pub fn waiting_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.len())
    }

    pub(crate) fn transport(&self) -> Transport {
        match (self.style.framing, self.style.is_bare) {
            (Framing::WebSocket | Framing::Deflated, false) => Transport::WebSocket,
            (Framing::WebSocket | Framing::Deflated, true) => Transport::UniWebSocket,
            (Framing::Events, false) => Transport::EventStream,
            (Framing::Events, true) => Transport::UniEventStream,
            (Framing::Stream | Framing::Chunks, false) => Transport::HttpStream,
            (Framing::Stream | Framing::Chunks, true) => Transport::UniHttpStream,
        }
    }

    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Whether the peer sends bytes on the link itself, and so answers beats.
    pub(crate) fn answers_beats(&self) -> bool {
        self.frames.is_some()
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.style.is_bare
    }

    /// Whether beats are announced to the client, and whether it is told to answer them.
    pub(crate) fn beat_terms(&self) -> (bool, bool) {
        let by_messages = self.beats == Beats::Messages;
        (by_messages || self.style.is_bare, by_messages && self.answers_beats())
    }

    pub(crate) fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Inbound>, Fault> {
        loop {
            if let Some(message) = self.message.take()
                && let Some(command) = self.next_of(*message)
            {
                return command.map(|command| Some(Inbound::Command(command))).map_err(bad_command);
            }
            let Some(frames) = &mut self.frames else {
                *input = &[];
                return Ok(None);
            };
            let event = frames
                .decode(input)
                .map_err(|violation| Fault { reason: violation.reason, what: violation.what.into() })?;
            match event {
                None => return Ok(None),
                Some(Event::Ping(payload)) => return Ok(Some(Inbound::Transmit(frame::pong(&payload)))),
                Some(Event::Pong(_)) => {}
                Some(Event::Close { code, .. }) => return Ok(Some(Inbound::Closed(code))),
                // Nothing that a client says after its request means anything on a bare link.
                Some(Event::Message { .. }) if self.style.is_bare && self.is_begun => {}
                Some(Event::Message { kind, data }) => {
                    if kind != self.style.kind() {
                        return Err(bad_request(match self.style.format {
                            Format::Json => "binary message on a JSON connection",
                            Format::Protobuf => "text message on a Protobuf connection",
                        }));
                    }
                    let command =
                        self.next_of(data).ok_or_else(|| bad_request("message without a command"))?;
                    return command.map(|command| Some(Inbound::Command(command))).map_err(bad_command);
                }
            }
        }
    }

    /// The next command of a message, whose rest is kept.
    fn next_of(&mut self, mut message: Bytes) -> Option<Result<Numbered, DecodeError>> {
        if self.style.is_bare {
            if self.is_begun {
                return None;
            }
            self.is_begun = true;
            let connect = self.style.format.decode_connect(&message);
            return Some(connect.map(|it| Numbered { id: 1, command: Command::Connect(Box::new(it)) }));
        }
        let command = self.style.format.decode_next(&mut message);
        if self.style.format == Format::Json && message.iter().all(u8::is_ascii_whitespace) {
            message.clear();
        }
        if !message.is_empty() {
            self.message = Some(Box::new(message));
        }
        command
    }

    pub(crate) fn reply(&mut self, id: u32, reply: &Reply) -> Answer {
        // What is for one client alone is not worth compressing.
        let style = self.style.inflated();
        let silent = |bytes| Answer { bytes, close: None, detail: String::new() };
        if !style.is_bare {
            return silent(style.message(&mut None, |out| style.format.encode_reply(id, reply, out)));
        }
        match reply {
            Reply::Connect(result) => silent(self.push("", &Push::Connect(result.clone()))),
            Reply::Error(error) => {
                let reason = refusal(error);
                Answer {
                    bytes: self.farewell(&reason.into()),
                    close: Some(reason),
                    detail: format!("{} ({})", error.message, error.code),
                }
            }
            // Nothing else was asked for.
            _ => silent(Bytes::new()),
        }
    }

    /// Makes a push for this link alone.
    pub(crate) fn push(&self, channel: &str, push: &Push) -> Bytes {
        encode_push(Encoding::Centrifuge(self.style.inflated()), channel, push, None, &mut None)
    }

    pub(crate) fn beat(&self) -> Bytes {
        // RFC 6455 section 5.5.2: an empty ping.
        const PING: &[u8] = b"\x89\x00";
        match (self.beats, self.style.is_bare) {
            (Beats::Messages, _) => Bytes::from_static(self.style.beat()),
            (Beats::Frames, false) => Bytes::from_static(PING),
            // The frame is for the peer's implementation to answer, the message for its program to see.
            (Beats::Frames, true) => [PING, self.style.beat()].concat().into(),
        }
    }

    pub(crate) fn farewell(&self, close: &Close) -> Bytes {
        let frame = || frame::close(close.code, &close.text);
        if self.frames.is_some() && !self.style.is_bare {
            return frame();
        }
        let mut last = self.push("", &Push::Disconnect(close.clone())).to_vec();
        if self.frames.is_some() {
            last.extend_from_slice(&frame());
        } else if self.style.framing == Framing::Chunks {
            // The last chunk (RFC 9112 section 7.1).
            last.extend_from_slice(b"0\r\n\r\n");
        }
        last.into()
    }
}

/// The close reason that a refused connect amounts to where nothing but a close can be said (centrifuge protocol,
/// section 10).
fn refusal(error: &ReplyError) -> CloseReason {
    let known = ErrorCode::ALL.iter().find(|known| known.code() == error.code);
    match known {
        Some(ErrorCode::TokenExpired | ErrorCode::Expired) => CloseReason::Expired,
        Some(ErrorCode::TooManyRequests) => CloseReason::TooManyRequests,
        Some(ErrorCode::PermissionDenied) => CloseReason::PermissionDenied,
        _ => CloseReason::InternalError,
    }
}

fn bad_command(error: DecodeError) -> Fault {
    bad_request(&error.to_string())
}

fn bad_request(what: &str) -> Fault {
    Fault { reason: CloseReason::BadRequest, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(format: Format, framing: Framing, is_bare: bool) -> Link {
        Link::response(Style { format, framing, is_bare })
    }

    fn commands(link: &mut Link) -> Vec<u32> {
        let next = |link: &mut Link| match link.decode(&mut &b"what comes on the link means nothing"[..]) {
            Ok(Some(Inbound::Command(numbered))) => Some(numbered.id),
            Ok(None) => None,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(|| next(link)).collect()
    }

    #[test]
    fn messages_that_come_while_others_wait_are_taken_in_their_order() {
        let rpc = |id: u32| Bytes::from(format!("{{\"id\":{id},\"rpc\":{{}}}}"));
        let mut link = response(Format::Json, Framing::Events, false);
        link.deliver(rpc(1));
        link.deliver(rpc(2));
        assert_eq!(link.waiting_bytes(), 2 * rpc(1).len() + 1);
        link.deliver(Bytes::from_static(b" \n"));
        assert_eq!((commands(&mut link), link.waiting_bytes()), (vec![1, 2], 0));
        // An rpc command with each id, behind its length.
        let mut link = response(Format::Protobuf, Framing::Chunks, false);
        link.deliver(Bytes::from_static(b"\x04\x08\x01\x6a\x00"));
        link.deliver(Bytes::from_static(b"\x04\x08\x02\x6a\x00"));
        assert_eq!(commands(&mut link), [1, 2]);
    }

    #[test]
    fn a_link_without_a_way_back_has_one_request() {
        let mut link = response(Format::Json, Framing::Events, true);
        link.deliver(Bytes::from_static(b"{\"token\":\"t\"}"));
        assert_eq!(commands(&mut link), [1]);
        link.deliver(Bytes::from_static(b"{\"token\":\"t\"}"));
        assert_eq!(commands(&mut link), [] as [u32; 0]);
    }

    #[test]
    fn a_refused_request_ends_a_link_without_a_way_back_as_the_protocol_says() {
        let backends_own = |temporary| ReplyError { code: 1000, message: "busy".into(), temporary };
        for (error, reason) in [
            (ErrorCode::TokenExpired.into(), CloseReason::Expired),
            (ErrorCode::Expired.into(), CloseReason::Expired),
            (ErrorCode::TooManyRequests.into(), CloseReason::TooManyRequests),
            (ErrorCode::PermissionDenied.into(), CloseReason::PermissionDenied),
            (ErrorCode::UnknownChannel.into(), CloseReason::InternalError),
            (backends_own(true), CloseReason::InternalError),
            (backends_own(false), CloseReason::InternalError),
        ] {
            let mut link = response(Format::Json, Framing::Stream, true);
            let answer = link.reply(1, &Reply::Error(error));
            assert_eq!(answer.close, Some(reason));
            let last = format!(
                "{{\"disconnect\":{{\"code\":{},\"reason\":\"{}\"}}}}\n",
                reason.code(),
                reason.text()
            );
            assert_eq!(answer.bytes, last.as_bytes());
        }
    }
}
