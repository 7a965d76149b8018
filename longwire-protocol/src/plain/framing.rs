//! Packets on a stream of bytes: ended by a terminator, or announced by a length field.
//!
//! [`Framing`] says how, [`Framing::write`] makes packets and a [`Framer`] takes them apart again, whatever the
//! pieces in which they come. It knows nothing of what packets mean, and judges no configuration but its own:
//! [`LengthField::check`].
//!
//! What must stay true: a packet over the limit is refused at the first byte that shows it, a length before
//! anything is kept for it; how the stream was cut changes nothing; between packets nothing is kept, and after a
//! violation nothing more is taken.

use crate::close::CloseReason;
use bytes::Bytes;
use memchr::memmem;

/// The longest head of a packet: whatever a `body_offset` can say.
pub const MAX_HEAD_BYTES: usize = u8::MAX as usize;

/// How packets are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Framing {
    /// By what stands behind each.
    Terminator(Terminator),
    /// By a length in the head of each.
    Length(LengthField),
}

/// What stands behind each packet, and in none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Terminator {
    bytes: [u8; Terminator::MAX_BYTES],
    len: u8,
}

/// Where a packet's head says how long it is, and what that counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LengthField {
    /// How many bytes the number takes: 1, 2 or 4.
    pub bytes: u8,
    /// Which of them comes first.
    pub order: ByteOrder,
    /// How many bytes stand before the number.
    pub offset: u8,
    /// How many bytes stand before the body: the length of the head.
    pub body_offset: u8,
    /// What the number counts.
    pub counts: Counts,
    /// A packet is taken and given with its head, which whoever uses it reads and writes.
    pub is_whole: bool,
}

/// The order of the bytes of a number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ByteOrder {
    /// The most significant first, as networks have it.
    #[default]
    Big,
    /// The least significant first.
    Little,
}

/// What a length counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Counts {
    /// The bytes behind the head.
    #[default]
    Body,
    /// All bytes, those of the head included.
    Packet,
}

/// A rule of the framing that the peer broke: the stream cannot be read on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// `MessageTooBig` or `ProtocolError`; `InternalError` if the framing itself is none (see
    /// [`LengthField::check`]).
    pub reason: CloseReason,
    /// The rule.
    pub what: &'static str,
}

impl Terminator {
    /// The longest terminator.
    pub const MAX_BYTES: usize = 8;

    /// A line feed.
    pub const LINE_FEED: Terminator = Terminator { bytes: [b'\n', 0, 0, 0, 0, 0, 0, 0], len: 1 };

    /// A terminator of 1 to 8 bytes; `None` for any other number.
    pub fn new(bytes: &[u8]) -> Option<Terminator> {
        if bytes.is_empty() || bytes.len() > Terminator::MAX_BYTES {
            return None;
        }
        let mut all = [0; Terminator::MAX_BYTES];
        all[..bytes.len()].copy_from_slice(bytes);
        Some(Terminator { bytes: all, len: bytes.len() as u8 })
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether it cannot stand in JSON on one line, whatever is published: it has a control character, or a byte
    /// that UTF-8 never has. Any other may end a packet of JSON before its time.
    pub fn is_foreign_to_json(&self) -> bool {
        self.as_slice()
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || matches!(byte, 0xc0 | 0xc1 | 0xf5..))
    }
}

impl LengthField {
    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), &'static str> {
        if !matches!(self.bytes, 1 | 2 | 4) {
            return Err("a length takes 1, 2 or 4 bytes");
        }
        if u16::from(self.body_offset) < u16::from(self.offset) + u16::from(self.bytes) {
            return Err("the body begins before the length ends");
        }
        Ok(())
    }

    fn head_bytes(&self) -> usize {
        usize::from(self.body_offset)
    }

    /// The largest number that the field holds.
    fn max_number(&self) -> u64 {
        match self.bytes {
            1 => u64::from(u8::MAX),
            2 => u64::from(u16::MAX),
            _ => u64::from(u32::MAX),
        }
    }

    /// Reads the number from the front of a packet; `None` if more bytes are needed.
    fn read_number(&self, packet: &[u8]) -> Option<u64> {
        let field = packet.get(usize::from(self.offset)..)?.get(..usize::from(self.bytes))?;
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.order {
            ByteOrder::Big => field.iter().fold(0, join),
            ByteOrder::Little => field.iter().rev().fold(0, join),
        })
    }

    fn write_head(&self, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.head_bytes(), 0);
        let big = number.to_be_bytes();
        let count = usize::from(self.bytes).min(big.len());
        // What `check` refuses is written as far as the head reaches.
        let field = out[start..].iter_mut().skip(usize::from(self.offset)).take(count);
        let digits = &big[big.len() - count..];
        match self.order {
            ByteOrder::Big => field.zip(digits).for_each(|(to, from)| *to = *from),
            ByteOrder::Little => field.zip(digits.iter().rev()).for_each(|(to, from)| *to = *from),
        }
    }
}

impl Framing {
    /// Appends `body` as a packet to `out`; false, and nothing, if the length field cannot say how long it is.
    ///
    /// What a framing of whole packets is given is a packet already. Bytes of the head that are no length are 0.
    /// Whether `body` holds the terminator is not looked at: it then becomes several packets.
    #[must_use]
    pub fn write(&self, body: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Framing::Terminator(terminator) => {
                out.reserve_exact(body.len() + terminator.as_slice().len());
                out.extend_from_slice(body);
                out.extend_from_slice(terminator.as_slice());
            }
            Framing::Length(field) if field.is_whole => out.extend_from_slice(body),
            Framing::Length(field) => {
                if body.len() as u64 > self.longest_body_bytes() {
                    return false;
                }
                let head_bytes = match field.counts {
                    Counts::Body => 0,
                    Counts::Packet => field.head_bytes(),
                };
                out.reserve_exact(field.head_bytes() + body.len());
                field.write_head((head_bytes + body.len()) as u64, out);
                out.extend_from_slice(body);
            }
        }
        true
    }

    /// Makes a packet; empty if the length field cannot say how long it is.
    pub fn packet(&self, body: &[u8]) -> Bytes {
        let mut packet = Vec::new();
        // Nothing was written if it does not fit.
        let _ = self.write(body, &mut packet);
        packet.into()
    }

    /// The longest body of which a packet can be made.
    pub fn longest_body_bytes(&self) -> u64 {
        match self {
            Framing::Length(field) if !field.is_whole => match field.counts {
                Counts::Body => field.max_number(),
                Counts::Packet => field.max_number().saturating_sub(field.head_bytes() as u64),
            },
            _ => u64::MAX,
        }
    }

    /// The same, with a head before what is given.
    #[must_use]
    pub fn with_head(self) -> Framing {
        match self {
            Framing::Length(field) => Framing::Length(LengthField { is_whole: false, ..field }),
            terminator => terminator,
        }
    }

    /// The body of a packet that a [`Framer`] gave: without the head where whole packets are taken.
    pub fn body_of(&self, packet: &Bytes) -> Bytes {
        match self {
            Framing::Length(field) if field.is_whole => packet.slice(field.head_bytes().min(packet.len())..),
            _ => packet.clone(),
        }
    }
}

/// Takes a stream apart into packets. Small while idle: what is incomplete is kept in a buffer that is freed
/// when the packet is complete.
#[derive(Debug)]
pub struct Framer {
    framing: Framing,
    max_packet_bytes: u32,
    has_ended: bool,
    /// What came of a packet that is not complete; a packet is never complete in here.
    #[expect(
        clippy::box_collection,
        reason = "16 bytes less for every connection that waits between packets"
    )]
    kept: Option<Box<Vec<u8>>>,
}

impl Framer {
    /// Starts at the front of a stream. `max_packet_bytes` bounds a packet with its head, without its terminator.
    pub fn new(framing: Framing, max_packet_bytes: u32) -> Framer {
        Framer { framing, max_packet_bytes, has_ended: false, kept: None }
    }

    /// How packets are told apart.
    pub fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Whether nothing of a packet is kept.
    pub fn is_idle(&self) -> bool {
        self.kept.is_none()
    }

    /// Takes a packet from the front of `input` and returns its body (the whole packet, where the framing says
    /// so), leaving `input` behind it. `None` means that more bytes are needed: all of `input` was taken.
    ///
    /// # Errors
    /// The rule that the peer broke; the rest of the input, and all later input, is discarded.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, Violation> {
        if self.has_ended {
            *input = &[];
            return Ok(None);
        }
        let result = match self.framing {
            Framing::Terminator(terminator) => self.read_terminated(&terminator, input),
            Framing::Length(field) => match field.check() {
                Ok(()) => self.read_announced(&field, input),
                Err(what) => Err(Violation { reason: CloseReason::InternalError, what }),
            },
        };
        if result.is_err() {
            self.has_ended = true;
            self.kept = None;
            *input = &[];
        }
        result
    }

    fn read_terminated(
        &mut self,
        terminator: &Terminator,
        input: &mut &[u8],
    ) -> Result<Option<Bytes>, Violation> {
        let terminator = terminator.as_slice();
        let kept_bytes = self.kept.as_ref().map_or(0, |kept| kept.len());
        // Where the terminator begins, counted from the front of the packet.
        let found = find_across(self.kept.as_deref().map_or(&[], |kept| kept), input, terminator)
            .or_else(|| memmem::find(input, terminator).map(|at| kept_bytes + at));
        let Some(body_bytes) = found else {
            // All but the last bytes, which may begin a terminator, are body for certain.
            let body_bytes = (kept_bytes + input.len()).saturating_sub(terminator.len() - 1);
            self.check_size(body_bytes as u64, "a packet goes on past the limit without its terminator")?;
            self.keep(input);
            return Ok(None);
        };
        self.check_size(body_bytes as u64, "a packet is larger than the limit")?;
        let end = body_bytes + terminator.len() - kept_bytes;
        let body = match self.kept.take() {
            None => Bytes::copy_from_slice(&input[..body_bytes]),
            Some(mut kept) => {
                kept.extend_from_slice(&input[..body_bytes.saturating_sub(kept_bytes)]);
                kept.truncate(body_bytes);
                tight(*kept)
            }
        };
        *input = &input[end..];
        Ok(Some(body))
    }

    fn read_announced(&mut self, field: &LengthField, input: &mut &[u8]) -> Result<Option<Bytes>, Violation> {
        let head_bytes = field.head_bytes();
        // The head alone, as far as it is there.
        let mut head = [0; MAX_HEAD_BYTES];
        let kept = self.kept.as_deref().map_or(&[][..], |kept| kept);
        let from_kept = kept.len().min(head_bytes);
        let from_input = input.len().min(head_bytes - from_kept);
        head[..from_kept].copy_from_slice(&kept[..from_kept]);
        head[from_kept..from_kept + from_input].copy_from_slice(&input[..from_input]);
        let Some(number) = field.read_number(&head[..from_kept + from_input]) else {
            // A head is shorter than 256 bytes: so much may be kept below any limit.
            self.keep(input);
            return Ok(None);
        };
        let packet_bytes = match field.counts {
            Counts::Body => head_bytes as u64 + number,
            Counts::Packet if number < head_bytes as u64 => {
                return Err(Violation {
                    reason: CloseReason::ProtocolError,
                    what: "a length is smaller than the head that it counts",
                });
            }
            Counts::Packet => number,
        };
        self.check_size(packet_bytes, "a length announces a packet larger than the limit")?;
        // Within the limit, which is a u32.
        let packet_bytes = packet_bytes as usize;
        // A packet that is complete is never kept, so this cannot be less than nothing.
        let missing = packet_bytes - kept.len();
        let Some((rest, behind)) = input.split_at_checked(missing) else {
            self.keep(input);
            return Ok(None);
        };
        let start = if field.is_whole { 0 } else { head_bytes };
        let packet = match self.kept.take() {
            None => Bytes::copy_from_slice(&rest[start..]),
            Some(mut kept) => {
                kept.extend_from_slice(rest);
                let _ = kept.drain(..start);
                tight(*kept)
            }
        };
        *input = behind;
        Ok(Some(packet))
    }

    fn check_size(&self, bytes: u64, what: &'static str) -> Result<(), Violation> {
        if bytes > u64::from(self.max_packet_bytes) {
            return Err(Violation { reason: CloseReason::MessageTooBig, what });
        }
        Ok(())
    }

    fn keep(&mut self, input: &mut &[u8]) {
        if !input.is_empty() {
            self.kept.get_or_insert_default().extend_from_slice(input);
            *input = &[];
        }
    }
}

/// Finds the first terminator that begins in `kept` and ends in `input`.
fn find_across(kept: &[u8], input: &[u8], terminator: &[u8]) -> Option<usize> {
    let before = kept.len().min(terminator.len() - 1);
    let behind = input.len().min(terminator.len() - 1);
    let mut seam = [0; 2 * Terminator::MAX_BYTES];
    let start = kept.len() - before;
    seam[..before].copy_from_slice(&kept[start..]);
    seam[before..before + behind].copy_from_slice(&input[..behind]);
    let seam = &seam[..before + behind];
    let found = seam.windows(terminator.len()).position(|window| window == terminator);
    found.map(|at| start + at)
}

/// Spare capacity would live as long as the packet does.
fn tight(mut bytes: Vec<u8>) -> Bytes {
    bytes.shrink_to_fit();
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: LengthField = LengthField {
        bytes: 4,
        order: ByteOrder::Big,
        offset: 0,
        body_offset: 4,
        counts: Counts::Body,
        is_whole: false,
    };

    fn terminator(bytes: &[u8]) -> Framing {
        Framing::Terminator(Terminator::new(bytes).expect("1 to 8 bytes"))
    }

    #[test]
    fn a_waiting_framer_is_small_and_holds_nothing() {
        assert!(size_of::<Framer>() <= 32, "{}", size_of::<Framer>());
        let mut framer = Framer::new(terminator(b"\r\n"), 1 << 20);
        let packet = [&vec![b'a'; 100_000][..], b"\r\n"].concat();
        for mut piece in packet.chunks(1000) {
            assert!(framer.is_idle() == (piece.as_ptr() == packet.as_ptr()));
            let packet = framer.decode(&mut piece).expect("within the limit");
            assert_eq!(packet.is_some(), framer.is_idle());
        }
        assert!(framer.is_idle());
    }

    #[test]
    fn what_is_announced_is_not_allocated_before_it_comes() {
        let mut framer = Framer::new(Framing::Length(LENGTH), u32::MAX);
        let mut head = &b"\xff\xff\xff\x00ab"[..];
        assert_eq!(framer.decode(&mut head), Ok(None));
        assert!(framer.kept.as_ref().is_some_and(|kept| kept.capacity() < 100));
    }

    #[test]
    fn a_wrong_field_is_named_and_reads_nothing() {
        for (field, what) in [
            (LengthField { bytes: 3, ..LENGTH }, "a length takes 1, 2 or 4 bytes"),
            (LengthField { bytes: 0, ..LENGTH }, "a length takes 1, 2 or 4 bytes"),
            (LengthField { body_offset: 3, ..LENGTH }, "the body begins before the length ends"),
            (
                LengthField { offset: 255, body_offset: 255, ..LENGTH },
                "the body begins before the length ends",
            ),
        ] {
            assert_eq!(field.check(), Err(what));
            let mut framer = Framer::new(Framing::Length(field), 100);
            let reason = CloseReason::InternalError;
            assert_eq!(framer.decode(&mut &b"\0\0\0\0"[..]), Err(Violation { reason, what }));
            let mut out = Vec::new();
            assert!(Framing::Length(field).write(b"x", &mut out), "and writes what it can");
        }
        assert_eq!(LENGTH.check(), Ok(()));
        assert_eq!(LengthField { offset: 251, body_offset: 255, ..LENGTH }.check(), Ok(()));
    }

    #[test]
    fn a_terminator_has_one_to_eight_bytes() {
        assert_eq!(Terminator::new(b""), None);
        assert_eq!(Terminator::new(b"123456789"), None);
        for bytes in [&b"\0"[..], b"\r\n", b"12345678"] {
            assert_eq!(Terminator::new(bytes).expect("allowed").as_slice(), bytes);
        }
        assert_eq!(Terminator::new(b"\n"), Some(Terminator::LINE_FEED));
    }

    #[test]
    fn it_is_known_which_terminators_json_can_hold() {
        for (bytes, is_foreign) in [
            (&b"\n"[..], true),
            (b"\r\n", true),
            (b"\0", true),
            (b"end\x03", true),
            (b"\xff", true),
            (b"\xc0", true),
            (b"\t", false),
            (b" ", false),
            (b"}", false),
            (b"end", false),
            (b"\x7f", false),
            (b"\xc3\xa9", false),
        ] {
            let terminator = Terminator::new(bytes).expect("allowed");
            assert_eq!(terminator.is_foreign_to_json(), is_foreign, "{bytes:?}");
        }
    }
}
