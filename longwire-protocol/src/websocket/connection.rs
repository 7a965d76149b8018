//! Received bytes into events: one peer's frames, whole messages, and the rules it must keep.
//!
//! The caller reads into a buffer that many connections share and gives what arrived to
//! [`Connection::decode`]; only what is incomplete is kept here, in a box that is freed when the message
//! completes. A whole unfragmented frame costs one allocation: the event's [`Bytes`].
//!
//! What it is not: it writes nothing, and answers neither pings nor closes.
//!
//! What must stay true: every rule is checked at the first byte that breaks it, a length before anything is
//! allocated for it, and text as it arrives; after a violation or a close nothing more is decoded.

use super::deflate::{self, InflateError};
use super::frame::{MAX_CONTROL_BYTES, Opcode, apply_mask};
use super::{Kind, Role};
use crate::close::CloseReason;
use bytes::Bytes;

/// What is known of one connection's receiving side. 16 bytes while idle.
#[derive(Debug)]
pub struct Connection {
    partial: Option<Box<Partial>>,
    max_message_bytes: u32,
    role: Role,
    deflate: bool,
    ended: bool,
}

/// What a peer said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A whole message: all its fragments, inflated, and UTF-8 if it is text.
    Message {
        /// Text or binary.
        kind: Kind,
        /// The payload.
        data: Bytes,
    },
    /// A ping; it wants a pong with the same payload.
    Ping(Bytes),
    /// A pong, asked for or not.
    Pong(Bytes),
    /// The peer closes; it wants a close frame with the same code. Nothing is decoded after it.
    Close {
        /// The code, if the peer gave one. It is one that may be sent (RFC 6455 section 7.4).
        code: Option<u16>,
        /// The text behind the code, often empty.
        reason: String,
    },
}

/// A rule that the peer broke. The connection must be closed with the reason's code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// `ProtocolError` (1002), `InvalidPayload` (1007) or `MessageTooBig` (1009).
    pub reason: CloseReason,
    /// The rule.
    pub what: &'static str,
}

impl Connection {
    /// Starts after the handshake. `deflate` says that permessage-deflate was negotiated, without context
    /// takeover by the peer; `max_message_bytes` bounds a message, the sum of its fragments, and what a
    /// compressed one inflates to.
    pub fn new(role: Role, deflate: bool, max_message_bytes: u32) -> Connection {
        Connection { partial: None, max_message_bytes, role, deflate, ended: false }
    }

    /// Takes frames from the front of `input` and returns the next event, leaving `input` behind it. `None`
    /// means that more bytes are needed: `input` is then empty, and what it held of a frame is kept.
    ///
    /// After a close event or a violation the rest of the input, and all later input, is discarded.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        if self.ended {
            *input = &[];
            return Ok(None);
        }
        let result = self.next_event(input);
        if matches!(result, Err(_) | Ok(Some(Event::Close { .. }))) {
            self.ended = true;
            self.partial = None;
            *input = &[];
        }
        result
    }

    /// Whether nothing of a frame or a message is kept. The connection then holds no heap.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Whether a close or a violation ended decoding.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn next_event(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            if self.partial.as_ref().is_none_or(|partial| partial.open.is_none()) {
                let Some(header) = self.read_header(input)? else { return Ok(None) };
                if let Some(event) = self.take_whole_frame(header, input)? {
                    return Ok(Some(event));
                }
                self.open_frame(header);
            }
            match self.read_payload(input)? {
                Step::Event(event) => return Ok(Some(event)),
                Step::FrameEnded => {}
                Step::NeedsMore => return Ok(None),
            }
        }
    }

    /// Takes a frame's header from `input`, joined with what is kept of it.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        let rules =
            Rules { role: self.role, deflate: self.deflate, max_message_bytes: self.max_message_bytes };
        if let Some(partial) = self.partial.as_deref_mut().filter(|partial| partial.header_len > 0) {
            // A header is complete after at most MAX_HEADER_BYTES, so `header_len` stays inside the array.
            while let Some((&byte, rest)) = input.split_first() {
                partial.header[usize::from(partial.header_len)] = byte;
                partial.header_len += 1;
                *input = rest;
                let kept = &partial.header[..usize::from(partial.header_len)];
                if let Some((header, _)) = rules.parse_header(kept, partial.message.as_ref())? {
                    partial.header_len = 0;
                    return Ok(Some(header));
                }
            }
            return Ok(None);
        }
        let message = self.partial.as_ref().and_then(|partial| partial.message.as_ref());
        if let Some((header, header_len)) = rules.parse_header(input, message)? {
            *input = &input[header_len..];
            return Ok(Some(header));
        }
        if !input.is_empty() {
            let partial = self.partial.get_or_insert_default();
            partial.header[..input.len()].copy_from_slice(input);
            partial.header_len = input.len() as u8;
            *input = &[];
        }
        Ok(None)
    }

    /// The usual case: the frame is an event by itself and all of its payload is in `input`.
    fn take_whole_frame(&mut self, header: Header, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        let kind = match header.opcode {
            Opcode::Continuation => return Ok(None),
            Opcode::Text if header.fin => Some(Kind::Text),
            Opcode::Binary if header.fin => Some(Kind::Binary),
            Opcode::Text | Opcode::Binary => return Ok(None),
            Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        let Some((payload, rest)) = input.split_at_checked(header.payload_len as usize) else {
            return Ok(None);
        };
        *input = rest;
        let mut data = payload.to_vec();
        if let Some(key) = header.mask {
            apply_mask(&mut data, key, 0);
        }
        let event = match kind {
            Some(kind) => {
                let message = Message { kind, compressed: header.rsv1, data, valid_utf8: 0 };
                message.into_event(self.max_message_bytes)?
            }
            None => control_event(header.opcode, data)?,
        };
        self.release_if_idle();
        Ok(Some(event))
    }

    fn open_frame(&mut self, header: Header) {
        let partial = self.partial.get_or_insert_default();
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            _ => None,
        };
        if let Some(kind) = kind {
            partial.message =
                Some(Message { kind, compressed: header.rsv1, data: Vec::new(), valid_utf8: 0 });
        }
        partial.open = Some(Open { header, received: 0 });
    }

    /// Moves what is there of the open frame's payload into the message, or into the control payload.
    fn read_payload(&mut self, input: &mut &[u8]) -> Result<Step, Violation> {
        let Some(partial) = self.partial.as_deref_mut() else { return Ok(Step::NeedsMore) };
        let Partial { open: slot, message: message_slot, control, .. } = partial;
        let Some(open) = slot else { return Ok(Step::NeedsMore) };
        let Header { opcode, fin, mask, payload_len, .. } = open.header;

        let missing = (payload_len - open.received) as usize;
        let (chunk, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        let offset = open.received as usize;
        // `chunk` is no longer than what the frame misses, whose length is a `u32`.
        open.received += chunk.len() as u32;
        let frame_ended = open.received == payload_len;
        if frame_ended {
            *slot = None;
        }

        if opcode.is_control() {
            append_unmasked(control, chunk, missing, mask, offset);
            if !frame_ended {
                return Ok(Step::NeedsMore);
            }
            let event = control_event(opcode, std::mem::take(control))?;
            self.release_if_idle();
            return Ok(Step::Event(event));
        }
        let Some(message) = message_slot else { return Ok(Step::NeedsMore) };
        append_unmasked(&mut message.data, chunk, missing, mask, offset);
        message.check_text_so_far()?;
        match (frame_ended, fin) {
            (false, _) => Ok(Step::NeedsMore),
            (true, false) => Ok(Step::FrameEnded),
            (true, true) => {
                let message = message_slot.take();
                self.release_if_idle();
                match message {
                    Some(message) => Ok(Step::Event(message.into_event(self.max_message_bytes)?)),
                    None => Ok(Step::FrameEnded),
                }
            }
        }
    }

    fn release_if_idle(&mut self) {
        let is_idle = |partial: &Partial| {
            partial.header_len == 0 && partial.open.is_none() && partial.message.is_none()
        };
        if self.partial.as_deref().is_some_and(is_idle) {
            self.partial = None;
        }
    }
}

/// The longest header: two bytes, eight of length, four of masking key.
const MAX_HEADER_BYTES: usize = 14;

/// What is kept while a frame or a message is incomplete.
#[derive(Default, Debug)]
struct Partial {
    message: Option<Message>,
    open: Option<Open>,
    /// The received part of a control frame's payload.
    control: Vec<u8>,
    header: [u8; MAX_HEADER_BYTES],
    header_len: u8,
}

/// A frame whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Open {
    header: Header,
    received: u32,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    payload_len: u32,
    mask: Option<[u8; 4]>,
    opcode: Opcode,
    fin: bool,
    rsv1: bool,
}

/// A message whose end has not come.
#[derive(Debug)]
struct Message {
    data: Vec<u8>,
    /// How much of uncompressed text is known to be UTF-8; at most three bytes of a character may follow.
    valid_utf8: usize,
    kind: Kind,
    compressed: bool,
}

enum Step {
    Event(Event),
    FrameEnded,
    NeedsMore,
}

impl Message {
    /// Checks the text that arrived, so that a bad byte is noticed before the message ends.
    fn check_text_so_far(&mut self) -> Result<(), Violation> {
        if self.kind == Kind::Binary || self.compressed {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.data[self.valid_utf8..]) {
            Ok(_) => self.valid_utf8 = self.data.len(),
            Err(error) if error.error_len().is_none() => self.valid_utf8 += error.valid_up_to(),
            Err(_) => return Err(invalid("a text message is not UTF-8")),
        }
        Ok(())
    }

    fn into_event(mut self, max_message_bytes: u32) -> Result<Event, Violation> {
        if self.compressed {
            self.valid_utf8 = 0;
            self.data = match deflate::inflate(&self.data, max_message_bytes) {
                Ok(data) => data,
                Err(InflateError::TooBig) => {
                    return Err(too_big("a compressed message inflates past the limit"));
                }
                Err(InflateError::Corrupt) => return Err(invalid("a compressed message is corrupt")),
            };
        }
        if self.kind == Kind::Text && simdutf8::basic::from_utf8(&self.data[self.valid_utf8..]).is_err() {
            return Err(invalid("a text message is not UTF-8"));
        }
        // Spare capacity would live as long as the message does, and cost `Bytes` a second allocation.
        self.data.shrink_to_fit();
        Ok(Event::Message { kind: self.kind, data: Bytes::from(self.data) })
    }
}

/// What a header is judged by.
struct Rules {
    role: Role,
    deflate: bool,
    max_message_bytes: u32,
}

impl Rules {
    /// Reads a header from the front of `bytes`; `None` if more bytes are needed. Each rule is checked as
    /// soon as its bytes are there.
    fn parse_header(
        &self,
        bytes: &[u8],
        message: Option<&Message>,
    ) -> Result<Option<(Header, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        if first & 0x30 != 0 {
            return Err(protocol_error("a reserved bit is set"));
        }
        let Some(opcode) = Opcode::from_bits(first) else {
            return Err(protocol_error("the opcode is reserved"));
        };
        if rsv1 && !self.deflate {
            return Err(protocol_error("RSV1 is set but compression was not negotiated"));
        }
        // RFC 7692 section 6: the bit belongs to the first frame of a message.
        if rsv1 && (opcode.is_control() || opcode == Opcode::Continuation) {
            return Err(protocol_error("RSV1 is set on a frame that does not begin a message"));
        }
        match opcode {
            Opcode::Continuation if message.is_none() => {
                return Err(protocol_error("a continuation frame continues nothing"));
            }
            Opcode::Text | Opcode::Binary if message.is_some() => {
                return Err(protocol_error("a message begins before the last one has ended"));
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong if !fin => {
                return Err(protocol_error("a control frame is fragmented"));
            }
            _ => {}
        }

        let Some(&second) = bytes.get(1) else { return Ok(None) };
        let masked = second & 0x80 != 0;
        match self.role {
            // RFC 6455 section 5.1.
            Role::Server if !masked => return Err(protocol_error("a client's frame is not masked")),
            Role::Client if masked => return Err(protocol_error("a server's frame is masked")),
            _ => {}
        }
        let short_len = second & 0x7F;
        if opcode.is_control() && usize::from(short_len) > MAX_CONTROL_BYTES {
            return Err(protocol_error("a control frame is longer than 125 bytes"));
        }
        let (payload_len, mask_start) = match short_len {
            126 => {
                let Some(&long) = bytes.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
                (u64::from(u16::from_be_bytes(long)), 4)
            }
            127 => {
                let Some(&long) = bytes.get(2..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
                (u64::from_be_bytes(long), 10)
            }
            _ => (u64::from(short_len), 2),
        };
        // RFC 6455 section 5.2: the most significant bit is 0, and the minimal number of bytes is used.
        if payload_len >> 63 != 0 {
            return Err(protocol_error("a 64-bit length has its top bit set"));
        }
        if (mask_start == 4 && payload_len < 126) || (mask_start == 10 && payload_len <= u64::from(u16::MAX))
        {
            return Err(protocol_error("a length is not in its shortest form"));
        }
        if !opcode.is_control() {
            let compressed = message.map_or(rsv1, |message| message.compressed);
            let so_far = message.map_or(0, |message| message.data.len() as u64);
            let limit = match compressed {
                true => deflate::max_compressed_bytes(self.max_message_bytes),
                false => u64::from(self.max_message_bytes),
            };
            if so_far.saturating_add(payload_len) > limit {
                return Err(too_big("a message is larger than the limit"));
            }
        }
        // Within the limit, which is less than 2^32 also for compressed data, or at most 125.
        let Ok(payload_len) = u32::try_from(payload_len) else {
            return Err(too_big("a message is larger than the limit"));
        };

        let (mask, header_len) = match masked {
            false => (None, mask_start),
            true => {
                let key = bytes.get(mask_start..).and_then(<[u8]>::first_chunk);
                let Some(&key) = key else { return Ok(None) };
                (Some(key), mask_start + 4)
            }
        };
        Ok(Some((Header { payload_len, mask, opcode, fin, rsv1 }, header_len)))
    }
}

/// Appends `chunk` to `buffer` and unmasks it. `missing` is how much of the frame had not arrived before: it
/// bounds how far the buffer grows ahead, which is never past twice of what was received.
fn append_unmasked(buffer: &mut Vec<u8>, chunk: &[u8], missing: usize, mask: Option<[u8; 4]>, offset: usize) {
    let start = buffer.len();
    if buffer.capacity() < start + chunk.len() {
        let ahead = (2 * buffer.capacity()).max(64).min(start + missing);
        buffer.reserve_exact(ahead.max(start + chunk.len()) - start);
    }
    buffer.extend_from_slice(chunk);
    if let Some(key) = mask {
        apply_mask(&mut buffer[start..], key, offset);
    }
}

fn control_event(opcode: Opcode, payload: Vec<u8>) -> Result<Event, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload.into())),
        Opcode::Pong => Ok(Event::Pong(payload.into())),
        _ => close_event(&payload),
    }
}

/// Reads the payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
fn close_event(payload: &[u8]) -> Result<Event, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(Event::Close { code: None, reason: String::new() }),
        [_] => return Err(protocol_error("a close frame has a payload of one byte")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol_error("a close code must not be sent"));
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close { code: Some(code), reason: reason.to_owned() }),
        Err(_) => Err(invalid("a close reason is not UTF-8")),
    }
}

fn protocol_error(what: &'static str) -> Violation {
    Violation { reason: CloseReason::ProtocolError, what }
}

fn invalid(what: &'static str) -> Violation {
    Violation { reason: CloseReason::InvalidPayload, what }
}

fn too_big(what: &'static str) -> Violation {
    Violation { reason: CloseReason::MessageTooBig, what }
}

#[cfg(test)]
mod tests {
    use super::super::{Compressor, frame};
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn server(max_message_bytes: u32) -> Connection {
        Connection::new(Role::Server, false, max_message_bytes)
    }

    /// A client's frame with any first byte.
    fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(Opcode::Binary, false, Some(KEY), payload, &mut out);
        out[0] = first;
        out
    }

    fn decode_all(connection: &mut Connection, mut input: &[u8]) -> Result<Vec<Event>, Violation> {
        let mut events = Vec::new();
        while let Some(event) = connection.decode(&mut input)? {
            events.push(event);
        }
        assert!(input.is_empty());
        Ok(events)
    }

    fn text(data: &str) -> Event {
        Event::Message { kind: Kind::Text, data: Bytes::copy_from_slice(data.as_bytes()) }
    }

    #[test]
    fn an_idle_connection_is_small_and_holds_no_heap() {
        assert!(size_of::<Connection>() <= 16, "{}", size_of::<Connection>());
        let mut connection = server(1000);
        let bytes = [raw(0x01, b"Hel"), raw(0x89, b"?"), raw(0x80, b"lo"), raw(0x8A, b"")].concat();
        for (i, byte) in bytes.iter().enumerate() {
            decode_all(&mut connection, &[*byte]).expect("no violation");
            assert_eq!(connection.is_idle(), i + 1 == bytes.len() || i + 7 == bytes.len(), "after byte {i}");
        }
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_decode() {
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(decode_all(&mut server(100), &masked), Ok(vec![text("Hello")]));
        let mut client = Connection::new(Role::Client, false, 100_000);
        let fragments = [0x01, 0x03, 0x48, 0x65, 0x6c, 0x80, 0x02, 0x6c, 0x6f];
        assert_eq!(decode_all(&mut client, &fragments), Ok(vec![text("Hello")]));
        assert_eq!(decode_all(&mut client, b"\x89\x05Hello"), Ok(vec![Event::Ping("Hello".into())]));
        let big = frame::message(Kind::Binary, &[7; 65_536]);
        let expected = Event::Message { kind: Kind::Binary, data: Bytes::from(vec![7; 65_536]) };
        assert_eq!(decode_all(&mut client, &big), Ok(vec![expected]));
    }

    #[test]
    fn a_rule_is_enforced_at_the_first_byte_that_breaks_it() {
        let cases: &[(&[u8], &str)] = &[
            (&[0x83], "the opcode is reserved"),
            (&[0x8F], "the opcode is reserved"),
            (&[0xA1], "a reserved bit is set"),
            (&[0x91], "a reserved bit is set"),
            (&[0xC1], "RSV1 is set but compression was not negotiated"),
            (&[0x80], "a continuation frame continues nothing"),
            (&[0x09], "a control frame is fragmented"),
            (&[0x81, 0x05], "a client's frame is not masked"),
            (&[0x89, 0xFE], "a control frame is longer than 125 bytes"),
            (&[0x82, 0xFE, 0, 125], "a length is not in its shortest form"),
            (&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], "a length is not in its shortest form"),
            (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], "a 64-bit length has its top bit set"),
        ];
        for (bytes, what) in cases {
            let mut connection = server(1 << 20);
            let (last, before) = bytes.split_last().expect("not empty");
            for byte in before {
                assert_eq!(decode_all(&mut connection, &[*byte]), Ok(vec![]), "{what}");
            }
            let violation = Violation { reason: CloseReason::ProtocolError, what };
            assert_eq!(decode_all(&mut connection, &[*last]), Err(violation));
            assert_eq!(decode_all(&mut connection, &raw(0x81, b"later")), Ok(vec![]));
            assert!(connection.is_idle() && connection.has_ended());
        }
    }

    #[test]
    fn a_masked_frame_of_a_server_is_refused() {
        let mut client = Connection::new(Role::Client, false, 100);
        let violation = decode_all(&mut client, &raw(0x81, b"x")).expect_err("masked");
        assert_eq!(violation.what, "a server's frame is masked");
    }

    #[test]
    fn a_length_is_refused_before_its_payload_and_before_its_key() {
        for (len, header) in [
            (101u64, vec![0x82, 0x80 | 101]),
            (4096, vec![0x82, 0xFE, 0x10, 0x00]),
            (1 << 40, [&[0x82, 0xFF][..], &(1u64 << 40).to_be_bytes()].concat()),
            (i64::MAX as u64, [&[0x82, 0xFF][..], &i64::MAX.to_be_bytes()].concat()),
        ] {
            let violation = decode_all(&mut server(100), &header).expect_err("too big");
            assert_eq!(violation.reason, CloseReason::MessageTooBig, "{len}");
        }
        assert_eq!(decode_all(&mut server(100), &raw(0x82, &[1; 100])).map(|events| events.len()), Ok(1));
    }

    #[test]
    fn the_sum_of_the_fragments_counts() {
        let mut connection = server(10);
        assert_eq!(decode_all(&mut connection, &raw(0x02, &[0; 6])), Ok(vec![]));
        assert_eq!(decode_all(&mut connection, &raw(0x00, &[0; 4])), Ok(vec![]));
        let violation = decode_all(&mut connection, &raw(0x80, &[0; 1])).expect_err("11 bytes");
        assert_eq!(violation.reason, CloseReason::MessageTooBig);
    }

    #[test]
    fn empty_fragments_without_end_take_no_memory() {
        let mut connection = server(10);
        assert_eq!(decode_all(&mut connection, &raw(0x01, b"")), Ok(vec![]));
        let flood = raw(0x00, b"").repeat(100_000);
        assert_eq!(decode_all(&mut connection, &flood), Ok(vec![]));
        let message = connection.partial.as_ref().and_then(|partial| partial.message.as_ref());
        assert_eq!(message.map(|message| message.data.capacity()), Some(0));
        assert_eq!(decode_all(&mut connection, &raw(0x80, b"end")), Ok(vec![text("end")]));
    }

    #[test]
    fn a_buffer_grows_with_what_came_not_with_what_was_announced() {
        let mut connection = server(u32::MAX);
        let header = [&[0x82, 0xFF][..], &(1u64 << 30).to_be_bytes(), &KEY].concat();
        assert_eq!(decode_all(&mut connection, &header), Ok(vec![]));
        for received in 1..5000 {
            assert_eq!(decode_all(&mut connection, b"x"), Ok(vec![]));
            let message = connection.partial.as_ref().and_then(|partial| partial.message.as_ref());
            let capacity = message.map_or(0, |message| message.data.capacity());
            assert!(capacity <= (2 * received).max(64), "{capacity} after {received}");
        }
    }

    #[test]
    fn bad_text_is_noticed_before_its_message_ends() {
        // An unfinished frame, an unfinished message, and a surrogate split over fragments.
        let cut = raw(0x81, b"ok\xff and more");
        assert!(decode_all(&mut server(100), &cut[..cut.len() - 2]).is_err());
        assert!(decode_all(&mut server(100), &raw(0x01, b"ok\xff")).is_err());
        let mut connection = server(100);
        assert_eq!(decode_all(&mut connection, &raw(0x01, b"\xed")), Ok(vec![]));
        let violation = decode_all(&mut connection, &raw(0x00, b"\xa0")).expect_err("a surrogate");
        assert_eq!(violation.reason, CloseReason::InvalidPayload);
    }

    #[test]
    fn text_that_ends_within_a_character_is_refused() {
        assert!(decode_all(&mut server(100), &raw(0x81, b"\xc3")).is_err());
        let mut connection = server(100);
        assert_eq!(decode_all(&mut connection, &raw(0x01, b"\xc3")), Ok(vec![]));
        assert!(decode_all(&mut connection, &raw(0x80, b"")).is_err());
    }

    #[test]
    fn a_character_may_be_split_over_fragments_with_a_ping_between() {
        let mut connection = server(100);
        let bytes =
            [raw(0x01, &[0xf0]), raw(0x00, &[0x9f, 0x98]), raw(0x89, b"!"), raw(0x80, &[0x80])].concat();
        let events = decode_all(&mut connection, &bytes);
        assert_eq!(events, Ok(vec![Event::Ping("!".into()), text("😀")]));
    }

    #[test]
    fn close_codes_that_must_not_be_sent_are_refused() {
        for code in 0..=u16::MAX {
            let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let events = decode_all(&mut server(100), &raw(0x88, &code.to_be_bytes()));
            assert_eq!(events.is_ok(), allowed, "{code}");
        }
        assert!(decode_all(&mut server(100), &raw(0x88, b"\x03")).is_err());
        let close = Event::Close { code: None, reason: String::new() };
        assert_eq!(decode_all(&mut server(100), &raw(0x88, b"")), Ok(vec![close]));
        let violation = decode_all(&mut server(100), &raw(0x88, b"\x03\xe8\xff")).expect_err("not UTF-8");
        assert_eq!(violation.reason, CloseReason::InvalidPayload);
    }

    #[test]
    fn nothing_is_decoded_after_a_close() {
        let mut connection = server(100);
        let bytes = [raw(0x88, b"\x03\xe8bye"), raw(0x81, b"late")].concat();
        let close = Event::Close { code: Some(1000), reason: "bye".into() };
        assert_eq!(decode_all(&mut connection, &bytes), Ok(vec![close]));
        assert!(connection.has_ended());
    }

    #[test]
    fn a_compressed_message_is_inflated_whole_or_in_fragments() {
        let payload = "compress me, ".repeat(20);
        let mut compressor = Compressor::new();
        let deflated = compressor.compress(payload.as_bytes()).expect("it repeats");
        let (head, tail) = deflated.split_at(5);
        let mut connection = Connection::new(Role::Server, true, 1000);
        for bytes in [raw(0xC1, deflated), [raw(0x41, head), raw(0x8A, b""), raw(0x80, tail)].concat()] {
            let events = decode_all(&mut connection, &bytes).expect("valid");
            assert_eq!(events.last(), Some(&text(&payload)));
            assert!(connection.is_idle());
        }
        let violation = decode_all(&mut Connection::new(Role::Server, true, 100), &raw(0xC1, deflated));
        assert_eq!(violation.expect_err("260 bytes").reason, CloseReason::MessageTooBig);
    }

    #[test]
    fn rsv1_belongs_to_the_first_frame_of_a_message() {
        for bytes in [raw(0xC9, b""), raw(0xC0, b""), [raw(0x41, b"x"), raw(0xC0, b"")].concat()] {
            let violation = decode_all(&mut Connection::new(Role::Server, true, 100), &bytes);
            assert_eq!(violation.expect_err("RSV1").reason, CloseReason::ProtocolError);
        }
    }

    #[test]
    fn corrupt_compressed_data_and_inflated_text_that_is_not_utf_8_are_invalid_payloads() {
        let mut connection = Connection::new(Role::Server, true, 1000);
        let violation = decode_all(&mut connection, &raw(0xC2, &[0xFF; 10])).expect_err("corrupt");
        assert_eq!(violation.reason, CloseReason::InvalidPayload);
        let mut compressor = Compressor::new();
        let deflated = compressor.compress(&[0xFF; 100]).expect("it repeats");
        let mut connection = Connection::new(Role::Server, true, 1000);
        assert!(decode_all(&mut connection, &raw(0xC2, deflated)).is_ok());
        let violation = decode_all(&mut connection, &raw(0xC1, deflated)).expect_err("not text");
        assert_eq!(violation.reason, CloseReason::InvalidPayload);
    }
}
