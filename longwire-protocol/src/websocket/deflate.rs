//! permessage-deflate (RFC 7692): compressing once for many receivers, inflating within a limit.
//!
//! Both directions run without context takeover: every message stands alone, so one [`Compressor`] serves
//! all connections of a shard, one frame serves all subscribers, and a connection keeps no state. The window
//! is the full 32 KiB; an offer that asks this side for less is declined in the handshake.
//!
//! What must stay true: inflating never produces more than the message limit and one byte, whatever the
//! input claims; and what cannot be a whole compressed message is an error, not a shorter message.

use super::{Kind, frame};
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;
use std::fmt;

/// What a sync flush ends with; it is left out on the wire (RFC 7692 section 7.2.1).
const SYNC_TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The left-out tail and an empty final block. A decoder stands at the end of the final block only if what
/// came before it was whole: data that is cut off swallows these bytes as its own.
const SYNC_TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// Shorter payloads are not worth the attempt.
const MIN_PAYLOAD_BYTES: usize = 64;

/// A scratch buffer that a large message made larger is freed.
const MAX_KEPT_SCRATCH_BYTES: usize = 64 * 1024;

/// Compresses messages, each by itself. One serves all connections of a thread; it holds some 380 KB.
pub struct Compressor {
    compress: Compress,
    scratch: Vec<u8>,
}

impl Compressor {
    /// Makes a compressor of level 1 with a window of 32 KiB.
    pub fn new() -> Compressor {
        Compressor { compress: Compress::new(Compression::new(1), false), scratch: Vec::new() }
    }

    /// Makes the unmasked frame of a whole compressed message, to be shared by every receiver that
    /// negotiated compression; `None` if it would not be shorter than the plain one.
    pub fn compress_message(&mut self, kind: Kind, payload: &[u8]) -> Option<Bytes> {
        let deflated = self.compress(payload)?;
        Some(frame::compressed_message(kind, deflated))
    }

    /// Compresses a payload for a frame with RSV1; `None` if that would not make it shorter.
    pub fn compress(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < MIN_PAYLOAD_BYTES {
            return None;
        }
        self.compress.reset();
        self.scratch.clear();
        self.scratch.shrink_to(MAX_KEPT_SCRATCH_BYTES);
        // Output that does not fit here would not be shorter than the payload.
        self.scratch.reserve(payload.len() + SYNC_TAIL.len());
        let status = self.compress.compress_vec(payload, &mut self.scratch, FlushCompress::Sync);
        let whole =
            self.compress.total_in() == payload.len() as u64 && self.scratch.len() < self.scratch.capacity();
        if !matches!(status, Ok(Status::Ok)) || !whole {
            return None;
        }
        self.scratch.strip_suffix(&SYNC_TAIL).filter(|deflated| deflated.len() < payload.len())
    }
}

impl Default for Compressor {
    fn default() -> Compressor {
        Compressor::new()
    }
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

/// Why a message could not be inflated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum InflateError {
    /// It is larger than the limit.
    TooBig,
    /// It is not a whole DEFLATE stream.
    Corrupt,
}

thread_local! {
    /// Every message stands alone, so a thread's connections share one decoder (47 KB).
    static DECODER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// How much compressed data a message within `max_message_bytes` can need: incompressible data grows by five
/// bytes a block, and some encoders make small blocks.
pub(super) fn max_compressed_bytes(max_message_bytes: u32) -> u64 {
    let limit = u64::from(max_message_bytes);
    (limit + limit / 8 + 64).min(u64::from(u32::MAX))
}

/// Inflates one message that was compressed without context takeover (RFC 7692 section 7.2.2).
pub(super) fn inflate(compressed: &[u8], max_message_bytes: u32) -> Result<Vec<u8>, InflateError> {
    // An empty message is one zero byte (RFC 7692 section 7.2.3.6); some peers leave out even that.
    if compressed.is_empty() {
        return Ok(Vec::new());
    }
    let max_bytes = max_message_bytes as usize;
    let mut inflated =
        Vec::with_capacity(compressed.len().saturating_mul(3).min(max_bytes.saturating_add(1)));
    DECODER.with_borrow_mut(|decoder| {
        decoder.reset(false);
        // A final block may end the data (RFC 7692 section 7.2.3.4), with or without a byte of padding.
        if inflate_part(decoder, compressed, &mut inflated, max_bytes)? {
            return Ok(());
        }
        match inflate_part(decoder, &SYNC_TAIL_AND_END, &mut inflated, max_bytes)? {
            true => Ok(()),
            false => Err(InflateError::Corrupt),
        }
    })?;
    Ok(inflated)
}

/// Inflates all of `part`. Says whether a final block ended exactly at its end.
fn inflate_part(
    decoder: &mut Decompress,
    mut part: &[u8],
    inflated: &mut Vec<u8>,
    max_bytes: usize,
) -> Result<bool, InflateError> {
    loop {
        if inflated.len() == inflated.capacity() {
            // `max_bytes + 1` tells a message of exactly the limit from one beyond it.
            let room = max_bytes.saturating_add(1).saturating_sub(inflated.len());
            inflated.reserve_exact(inflated.len().max(256).min(room));
        }
        let (in_before, out_before) = (decoder.total_in(), inflated.len());
        let status = decoder
            .decompress_vec(part, inflated, FlushDecompress::None)
            .map_err(|_| InflateError::Corrupt)?;
        let taken = (decoder.total_in() - in_before) as usize;
        part = &part[taken..];
        if inflated.len() > max_bytes {
            return Err(InflateError::TooBig);
        }
        if status == Status::StreamEnd {
            // What follows a final block is a stream of its own.
            decoder.reset(false);
            if part.is_empty() {
                return Ok(true);
            }
        } else if part.is_empty() && inflated.len() < inflated.capacity() {
            return Ok(false);
        }
        if taken == 0 && inflated.len() == out_before {
            return Err(InflateError::Corrupt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut x = 0x2545_F491_4F6C_DD1Du64;
        let step = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn the_examples_of_rfc_7692_section_7_2_3_inflate() {
        let hello =
            |bytes: &[u8]| assert_eq!(inflate(bytes, 100).as_deref(), Ok(&b"Hello"[..]), "{bytes:x?}");
        hello(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        // No compression (7.2.3.3), a final block (7.2.3.4), two blocks (7.2.3.5).
        hello(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00]);
        hello(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]);
        hello(&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00]);
        // A final block without the padding.
        hello(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        assert_eq!(inflate(&[0x00], 100), Ok(vec![]));
        assert_eq!(inflate(&[], 100), Ok(vec![]));
    }

    #[test]
    fn a_back_reference_into_another_message_is_corrupt() {
        // The second "Hello" of RFC 7692 section 7.2.3.2, which needs the first one's window.
        assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], 100), Err(InflateError::Corrupt));
    }

    #[test]
    fn what_is_cut_off_anywhere_is_corrupt_or_a_shorter_whole_never_garbage() {
        let text = br#"{"channel":"news","data":{"text":"hello hello hello","n":123456}}"#.repeat(4);
        let mut compressor = Compressor::new();
        let whole = compressor.compress(&text).expect("it repeats").to_vec();
        assert_eq!(inflate(&whole, 10_000).as_deref(), Ok(&text[..]));
        for len in 1..whole.len() - 1 {
            assert_eq!(inflate(&whole[..len], 10_000), Err(InflateError::Corrupt), "cut after {len}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let mut compressor = Compressor::new();
        let bomb = compressor.compress(&vec![0; 16 << 20]).expect("zeros shrink").to_vec();
        assert!(bomb.len() < 1 << 18);
        assert_eq!(inflate(&bomb, 65_536), Err(InflateError::TooBig));
        assert_eq!(inflate(&bomb, (16 << 20) - 1), Err(InflateError::TooBig));
        assert_eq!(inflate(&bomb, 16 << 20).map(|v| v.len()), Ok(16 << 20));
        assert_eq!(inflate(&bomb, 0), Err(InflateError::TooBig));
    }

    #[test]
    fn the_room_for_inflating_never_passes_the_limit() {
        let mut compressor = Compressor::new();
        for len in [64, 255, 256, 257, 1000, 65_535, 65_536] {
            let payload = vec![b'x'; len];
            let deflated = compressor.compress(&payload).expect("it repeats").to_vec();
            let inflated = inflate(&deflated, len as u32).expect("within the limit");
            assert_eq!(inflated, payload);
            assert!(inflated.capacity() <= len + 1, "{} for {len}", inflated.capacity());
            assert_eq!(inflate(&deflated, len as u32 - 1), Err(InflateError::TooBig));
        }
    }

    #[test]
    fn a_compressed_frame_inflates_to_its_payload_and_messages_do_not_depend_on_each_other() {
        let mut compressor = Compressor::new();
        let payloads: Vec<Vec<u8>> =
            (0..5).map(|i| format!("publication {i}, ").repeat(20).into_bytes()).collect();
        let frames: Vec<Bytes> = payloads
            .iter()
            .map(|p| compressor.compress_message(Kind::Text, p).expect("it repeats"))
            .collect();
        for (frame, payload) in frames.iter().zip(&payloads).rev() {
            assert_eq!(frame[0], 0xC1);
            assert_eq!(inflate(&frame[2..], 10_000).as_ref(), Ok(payload));
        }
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        let mut compressor = Compressor::new();
        assert_eq!(compressor.compress_message(Kind::Binary, &noise(5000)), None);
        assert_eq!(compressor.compress_message(Kind::Text, b"short"), None);
        assert!(compressor.compress_message(Kind::Text, &[b'a'; 64]).is_some());
    }

    #[test]
    fn a_scratch_buffer_that_grew_is_given_back() {
        let mut compressor = Compressor::new();
        assert!(compressor.compress(&vec![b'a'; 1 << 20]).is_some());
        assert!(compressor.compress(&[b'a'; 100]).is_some());
        assert!(compressor.scratch.capacity() <= MAX_KEPT_SCRATCH_BYTES);
    }
}
