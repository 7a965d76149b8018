//! Frames to send, and the masking both directions share (RFC 6455 sections 5.2 and 5.3).
//!
//! A server's frame is the same for every receiver, so it is made once as shared [`Bytes`]; a client's frame
//! is masked with a key that the caller draws. Messages are sent as one frame: nothing here fragments.
//!
//! What must stay true: lengths are written in their shortest form, and a control frame never carries more
//! than [`MAX_CONTROL_BYTES`].

use super::Kind;
use bytes::Bytes;

/// The largest payload of a close, ping or pong (RFC 6455 section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opcode {
    /// A further part of the message that is under way.
    Continuation,
    /// The first part of a text message.
    Text,
    /// The first part of a binary message.
    Binary,
    /// The end of the connection.
    Close,
    /// A question for a sign of life.
    Ping,
    /// The answer to a ping, or an unasked sign of life.
    Pong,
}

impl Opcode {
    /// The opcode's four bits.
    pub fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0x0,
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xA,
        }
    }

    /// Reads the low four bits of a frame's first byte; `None` for the reserved ones.
    pub fn from_bits(bits: u8) -> Option<Opcode> {
        match bits & 0x0F {
            0x0 => Some(Opcode::Continuation),
            0x1 => Some(Opcode::Text),
            0x2 => Some(Opcode::Binary),
            0x8 => Some(Opcode::Close),
            0x9 => Some(Opcode::Ping),
            0xA => Some(Opcode::Pong),
            _ => None,
        }
    }

    /// Whether it is a close, ping or pong: those may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self.bits() & 0x8 != 0
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Opcode {
        match kind {
            Kind::Text => Opcode::Text,
            Kind::Binary => Opcode::Binary,
        }
    }
}

/// The header of a frame, to be written before its payload. At most [`FrameHeader::MAX_BYTES`] long.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    bytes: [u8; FrameHeader::MAX_BYTES],
    len: u8,
}

impl FrameHeader {
    /// The longest header of an unmasked frame; a masked frame's has four bytes more.
    pub const MAX_BYTES: usize = 10;

    fn new(first: u8, mask_bit: u8, payload_len: usize) -> FrameHeader {
        let mut bytes = [0; FrameHeader::MAX_BYTES];
        bytes[0] = first;
        // RFC 6455 section 5.2: the minimal number of bytes must be used for the length.
        let len = if payload_len <= 125 {
            bytes[1] = mask_bit | payload_len as u8;
            2
        } else if payload_len <= usize::from(u16::MAX) {
            bytes[1] = mask_bit | 126;
            bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        } else {
            bytes[1] = mask_bit | 127;
            bytes[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        };
        FrameHeader { bytes, len }
    }

    /// The header's bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl AsRef<[u8]> for FrameHeader {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// Makes the header of an unmasked frame that is a whole message, for callers that put the header and the
/// payload into one buffer. `rsv1` marks a compressed payload.
pub fn header(kind: Kind, rsv1: bool, payload_len: usize) -> FrameHeader {
    FrameHeader::new(first_byte(kind.into(), rsv1), 0, payload_len)
}

/// Appends one whole frame with its FIN bit to `out`, masked if a key is given. `rsv1` marks a compressed
/// payload. The payload of a control frame is cut after [`MAX_CONTROL_BYTES`].
pub fn encode(opcode: Opcode, rsv1: bool, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    let payload = match opcode.is_control() {
        true => &payload[..payload.len().min(MAX_CONTROL_BYTES)],
        false => payload,
    };
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let header = FrameHeader::new(first_byte(opcode, rsv1), mask_bit, payload.len());
    out.reserve(header.as_slice().len() + 4 + payload.len());
    out.extend_from_slice(header.as_slice());
    if let Some(key) = mask {
        out.extend_from_slice(&key);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(key) = mask {
        apply_mask(&mut out[start..], key, 0);
    }
}

/// Makes an unmasked frame that is a whole message, ready to be shared by all its receivers.
pub fn message(kind: Kind, payload: &[u8]) -> Bytes {
    unmasked(first_byte(kind.into(), false), payload)
}

/// Makes an unmasked frame that is a whole compressed message: the RSV1 bit is set.
pub(super) fn compressed_message(kind: Kind, deflated: &[u8]) -> Bytes {
    unmasked(first_byte(kind.into(), true), deflated)
}

/// Makes an unmasked close frame. The reason is cut at a character after 123 bytes.
pub fn close(code: u16, reason: &str) -> Bytes {
    unmasked(first_byte(Opcode::Close, false), &close_payload(code, reason))
}

/// Makes the payload of a close frame, for [`encode`]. The reason is cut at a character after 123 bytes.
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &reason[..end];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// Makes an unmasked close frame without a code, the answer to a close frame without one.
pub fn close_without_code() -> Bytes {
    unmasked(first_byte(Opcode::Close, false), b"")
}

/// Makes an unmasked ping. The payload is cut after [`MAX_CONTROL_BYTES`].
pub fn ping(payload: &[u8]) -> Bytes {
    unmasked(first_byte(Opcode::Ping, false), &payload[..payload.len().min(MAX_CONTROL_BYTES)])
}

/// Makes an unmasked pong. The payload is cut after [`MAX_CONTROL_BYTES`].
pub fn pong(payload: &[u8]) -> Bytes {
    unmasked(first_byte(Opcode::Pong, false), &payload[..payload.len().min(MAX_CONTROL_BYTES)])
}

/// XORs `data` with the masking key (RFC 6455 section 5.3). `offset` is where in the payload `data` begins.
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let key = [key[offset % 4], key[(offset + 1) % 4], key[(offset + 2) % 4], key[(offset + 3) % 4]];
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = data.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key_byte) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key_byte;
    }
}

fn first_byte(opcode: Opcode, rsv1: bool) -> u8 {
    0x80 | if rsv1 { 0x40 } else { 0 } | opcode.bits()
}

fn unmasked(first: u8, payload: &[u8]) -> Bytes {
    let header = FrameHeader::new(first, 0, payload.len());
    let mut frame = Vec::with_capacity(header.as_slice().len() + payload.len());
    frame.extend_from_slice(header.as_slice());
    frame.extend_from_slice(payload);
    Bytes::from(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_by_words_equals_masking_by_bytes_at_every_offset_and_length() {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        let data: Vec<u8> = (0..67).map(|i| (i * 31) as u8).collect();
        for offset in 0..9 {
            for len in 0..data.len() {
                let mut masked = data[..len].to_vec();
                apply_mask(&mut masked, key, offset);
                let expected: Vec<u8> =
                    data[..len].iter().enumerate().map(|(i, b)| b ^ key[(offset + i) % 4]).collect();
                assert_eq!(masked, expected, "offset {offset} len {len}");
            }
        }
    }

    #[test]
    fn the_examples_of_rfc_6455_section_5_7_come_out() {
        assert_eq!(&message(Kind::Text, b"Hello")[..], b"\x81\x05Hello");
        let mut masked = Vec::new();
        encode(Opcode::Text, false, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello", &mut masked);
        assert_eq!(masked, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(&ping(b"Hello")[..], b"\x89\x05Hello");
        let mut pong_frame = Vec::new();
        encode(Opcode::Pong, false, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello", &mut pong_frame);
        assert_eq!(pong_frame, [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(message(Kind::Binary, &[0; 256])[..4], [0x82, 0x7E, 0x01, 0x00]);
        assert_eq!(message(Kind::Binary, &[0; 65536])[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn the_length_is_written_in_its_shortest_form() {
        for (len, header_len) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(header(Kind::Text, false, len).as_slice().len(), header_len, "{len}");
        }
        assert_eq!(header(Kind::Text, true, 1).as_slice(), [0xC1, 1]);
    }

    #[test]
    fn a_long_close_reason_is_cut_at_a_character() {
        let frame = close(1000, &"é".repeat(100));
        assert_eq!(frame[1], 124);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }

    #[test]
    fn control_payloads_never_pass_their_limit() {
        assert_eq!(ping(&[b'x'; 200]).len(), 127);
        assert_eq!(pong(&[b'x'; 126]).len(), 127);
        let mut out = Vec::new();
        encode(Opcode::Ping, false, Some([1, 2, 3, 4]), &[b'x'; 200], &mut out);
        assert_eq!(out.len(), 2 + 4 + 125);
    }

    #[test]
    fn every_opcode_survives_its_bits_and_reserved_ones_have_none() {
        for bits in 0..16 {
            let known = matches!(bits, 0..=2 | 8..=10);
            assert_eq!(Opcode::from_bits(bits).map(Opcode::bits), known.then_some(bits));
        }
    }
}
