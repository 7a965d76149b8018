//! The fossil delta: one payload written as what it shares with the one before it.
//!
//! The text format of the centrifuge protocol's delta compression (section 7): the target's length and a line
//! feed, then commands, `COUNT@OFFSET,` to copy from the base and `COUNT:` before literal bytes, and at the end
//! the target's `CHECKSUM;`. Numbers are written in base 64. The codecs of the centrifuge dialect call
//! [`shorter`] and [`series`] for what they send, clients call [`apply`] for what they get.
//!
//! What must stay true: [`apply`] gives back what [`create`] was given; it never panics, never makes more than
//! its limit and gives nothing whose checksum is wrong. [`create`] takes time linear in both lengths, whatever
//! they hold, and the delta of a target that is UTF-8 is UTF-8 itself, so that it fits into a JSON string.

use crate::message::Publication;
use bytes::Bytes;
use std::sync::Arc;

/// The digits of a number, from 0 to 63.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

/// Length of the pieces of the base that are looked for in the target.
const BLOCK: usize = 16;

/// How many blocks of equal hash are tried at one place: bounds the time for repetitive data.
const MAX_CANDIDATES: usize = 64;

/// How many blocks of the base are remembered: bounds the memory, at 12 bytes each.
const MAX_BLOCKS: usize = 1 << 22;

/// Why a delta cannot be applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what} at byte {at} of the delta")]
pub struct FossilError {
    /// What is wrong.
    pub what: &'static str,
    /// Where in the delta.
    pub at: usize,
}

/// Writes `target` as a delta to `base`; it is longer than the target itself where they share too little.
pub fn create(base: &[u8], target: &[u8]) -> Vec<u8> {
    let cut = Cut { target, is_text: simdutf8::basic::from_utf8(target).is_ok() };
    let mut writer = Writer { target, literal: 0, out: Vec::with_capacity(64) };
    write_number(target.len() as u64, &mut writer.out);
    writer.out.push(b'\n');

    // Most payloads differ from the last one in the middle alone, and then nothing need be searched for.
    let start = cut.back(shared(base.iter().zip(target)));
    if is_worth_a_copy(0, start) {
        writer.copy(0, 0, start);
    }
    let tail = shared(base[start..].iter().rev().zip(target[start..].iter().rev()));
    let end = cut.forth(target.len() - tail);
    let tail = target.len() - end;

    if base.len() >= BLOCK && end - writer.literal >= BLOCK {
        writer.copy_blocks(base, writer.literal, end, &cut);
    }
    if is_worth_a_copy(base.len() - tail, tail) {
        writer.copy(base.len() - tail, end, tail);
    }
    writer.finish()
}

/// Gives the target of which `delta` is the delta to `base`.
///
/// # Errors
///
/// If the delta is malformed, belongs to another base, or its target is longer than `max_bytes`.
pub fn apply(base: &[u8], delta: &[u8], max_bytes: usize) -> Result<Vec<u8>, FossilError> {
    let mut reader = Reader { delta, at: 0 };
    let (len, after) = reader.number()?;
    if after != b'\n' {
        return Err(reader.wrong("the target's length does not end in a line feed"));
    }
    let len = len as usize;
    if len > max_bytes {
        return Err(reader.wrong("the target is too long"));
    }
    let mut target = Vec::with_capacity(len);
    loop {
        let (number, after) = reader.number()?;
        let count = number as usize;
        let piece = match after {
            b';' if target.len() != len => return Err(reader.wrong("the target's length is another")),
            b';' if number != checksum(&target) => return Err(reader.wrong("the checksum is wrong")),
            b';' if reader.at != delta.len() => return Err(reader.wrong("something follows the checksum")),
            b';' => return Ok(target),
            b'@' => {
                let (offset, after) = reader.number()?;
                if after != b',' {
                    return Err(reader.wrong("a copy does not end in a comma"));
                }
                slice(base, offset as usize, count).ok_or_else(|| reader.wrong("a copy leaves the base"))?
            }
            b':' => {
                let literal =
                    slice(delta, reader.at, count).ok_or_else(|| reader.wrong("a literal is cut off"))?;
                reader.at += count;
                literal
            }
            _ => return Err(reader.wrong("an unknown command")),
        };
        if piece.len() > len - target.len() {
            return Err(reader.wrong("the target is longer than announced"));
        }
        target.extend_from_slice(piece);
    }
}

/// The delta of `data` to `base`, if there is a base and the delta is shorter than the data.
pub fn shorter(base: Option<&[u8]>, data: &[u8]) -> Option<Vec<u8>> {
    // The shortest delta has a length, a copy of one digit and offset, and a checksum.
    const SHORTEST: usize = 8;
    let base = base.filter(|_| data.len() > SHORTEST)?;
    Some(create(base, data)).filter(|delta| delta.len() < data.len())
}

/// Publications that follow each other, each with its data in some form and its delta to the one before it where that is
/// shorter; the first has none.
pub fn series(
    publications: &[Arc<Publication>],
    data: impl Fn(&Publication) -> Bytes,
) -> impl Iterator<Item = (&Arc<Publication>, Bytes, Option<Vec<u8>>)> {
    let mut base: Option<Bytes> = None;
    publications.iter().map(move |publication| {
        let data = data(publication);
        let delta = shorter(base.as_deref(), &data);
        base = Some(data.clone());
        (publication, data, delta)
    })
}

/// Where the target may be cut: anywhere, or between characters if it is text.
struct Cut<'a> {
    target: &'a [u8],
    is_text: bool,
}

impl Cut<'_> {
    fn is_within_character(&self, at: usize) -> bool {
        // RFC 3629 section 3: all bytes of a character but its first are 10xxxxxx.
        self.is_text && self.target.get(at).is_some_and(|byte| byte & 0xc0 == 0x80)
    }

    fn back(&self, mut at: usize) -> usize {
        while self.is_within_character(at) {
            at -= 1;
        }
        at
    }

    fn forth(&self, mut at: usize) -> usize {
        while self.is_within_character(at) {
            at += 1;
        }
        at
    }
}

/// Writes the commands of a delta.
struct Writer<'a> {
    target: &'a [u8],
    /// Up to where the target is written; what follows becomes literal unless a copy covers it.
    literal: usize,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn copy(&mut self, offset: usize, start: usize, len: usize) {
        self.write_literal(start);
        write_number(len as u64, &mut self.out);
        self.out.push(b'@');
        write_number(offset as u64, &mut self.out);
        self.out.push(b',');
        self.literal = start + len;
    }

    fn write_literal(&mut self, end: usize) {
        if end > self.literal {
            write_number((end - self.literal) as u64, &mut self.out);
            self.out.push(b':');
            self.out.extend_from_slice(&self.target[self.literal..end]);
            self.literal = end;
        }
    }

    /// Writes what can be copied of the target from `start` to `end`, both at least a block apart.
    fn copy_blocks(&mut self, base: &[u8], start: usize, end: usize, cut: &Cut<'_>) {
        let blocks = Blocks::new(base);
        let mut at = start;
        let mut hash = hash(&self.target[at..at + BLOCK]);
        loop {
            let found = blocks.longest(hash, &self.target[..end], at, self.literal);
            let copied = found.and_then(|(offset, from, to)| {
                let (cut_from, cut_to) = (cut.forth(from), cut.back(to));
                let offset = offset + (cut_from - from);
                let len = cut_to.checked_sub(cut_from)?;
                is_worth_a_copy(offset, len).then_some((offset, cut_from, len))
            });
            if let Some((offset, from, len)) = copied {
                self.copy(offset, from, len);
                at = self.literal;
                if at + BLOCK > end {
                    return;
                }
                hash = self::hash(&self.target[at..at + BLOCK]);
            } else if at + BLOCK < end {
                hash = roll(hash, self.target[at], self.target[at + BLOCK]);
                at += 1;
            } else {
                return;
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.write_literal(self.target.len());
        write_number(checksum(self.target), &mut self.out);
        self.out.push(b';');
        self.out
    }
}

/// Where the blocks of the base are, by their hash.
struct Blocks<'a> {
    base: &'a [u8],
    /// By the hash's upper bits: one more than the number of the first block; 0 if there is none.
    first: Vec<u32>,
    /// One more than the number of the next block with the same upper bits; 0 if there is none.
    next: Vec<u32>,
    shift: u32,
}

impl<'a> Blocks<'a> {
    fn new(base: &'a [u8]) -> Blocks<'a> {
        let count = (base.len() / BLOCK).min(MAX_BLOCKS);
        let bits = count.next_power_of_two().trailing_zeros().max(1);
        let mut blocks = Blocks { base, first: vec![0; 1 << bits], next: vec![0; count], shift: 32 - bits };
        // From the last to the first, so that of many equal blocks the first are tried.
        for number in (0..count).rev() {
            let start = number * BLOCK;
            let slot = blocks.slot(hash(&base[start..start + BLOCK]));
            blocks.next[number] = blocks.first[slot];
            blocks.first[slot] = number as u32 + 1;
        }
        blocks
    }

    fn slot(&self, hash: u32) -> usize {
        // Fibonacci hashing: the upper bits of the product depend on all bits.
        (hash.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }

    /// The longest part of `target` that covers the block at `at`, begins at `literal` or later and stands in
    /// the base: its offset there, its start and its end.
    fn longest(&self, hash: u32, target: &[u8], at: usize, literal: usize) -> Option<(usize, usize, usize)> {
        let mut best: Option<(usize, usize, usize)> = None;
        let mut link = self.first[self.slot(hash)];
        for _ in 0..MAX_CANDIDATES {
            let Some(number) = link.checked_sub(1) else { break };
            link = self.next[number as usize];
            let offset = number as usize * BLOCK;
            let after = shared(self.base[offset..].iter().zip(&target[at..]));
            if after < BLOCK {
                continue;
            }
            let before = shared(self.base[..offset].iter().rev().zip(target[literal..at].iter().rev()));
            if best.is_none_or(|(_, from, to)| before + after > to - from) {
                best = Some((offset - before, at - before, at + after));
            }
        }
        best
    }
}

/// How many pairs are equal before the first that is not.
fn shared<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}

/// What the hash of sixteen bytes is made with: any odd number with bits all over.
const FACTOR: u32 = 0x0101_6b2d;

fn hash(block: &[u8]) -> u32 {
    block.iter().fold(0u32, |hash, byte| hash.wrapping_mul(FACTOR).wrapping_add(u32::from(*byte)))
}

/// The hash of the block one byte further on.
fn roll(hash: u32, leaving: u8, entering: u8) -> u32 {
    const LAST_FACTOR: u32 = FACTOR.wrapping_pow(BLOCK as u32);
    hash.wrapping_mul(FACTOR)
        .wrapping_sub(LAST_FACTOR.wrapping_mul(u32::from(leaving)))
        .wrapping_add(u32::from(entering))
}

/// Whether a copy takes fewer bytes than the literal it replaces, even where it cuts a literal in two.
fn is_worth_a_copy(offset: usize, len: usize) -> bool {
    let digits = |number: usize| (usize::BITS - number.leading_zeros()).div_ceil(6).max(1) as usize;
    len > digits(len) + digits(offset) + 2 + 4
}

/// The wrapping sum of the target's words of four bytes, the last padded with zeros.
fn checksum(target: &[u8]) -> u64 {
    let (words, rest) = target.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum =
        words.iter().fold(u32::from_be_bytes(last), |sum, word| sum.wrapping_add(u32::from_be_bytes(*word)));
    sum.into()
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(6).max(1);
    out.extend((0..digits).rev().map(|digit| DIGITS[(number >> (6 * digit) & 63) as usize]));
}

fn slice(bytes: &[u8], start: usize, len: usize) -> Option<&[u8]> {
    bytes.get(start..)?.get(..len)
}

/// Reads the numbers of a delta.
struct Reader<'a> {
    delta: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next number, of 32 bits, and the byte that ends it.
    fn number(&mut self) -> Result<(u64, u8), FossilError> {
        let start = self.at;
        let mut number = 0u64;
        loop {
            let Some(byte) = self.delta.get(self.at).copied() else {
                return Err(self.wrong("the delta is cut off"));
            };
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'A'..=b'Z' => byte - b'A' + 10,
                b'_' => 36,
                b'a'..=b'z' => byte - b'a' + 37,
                b'~' => 63,
                _ if self.at == start => return Err(self.wrong("a number is missing")),
                _ => {
                    self.at += 1;
                    return Ok((number, byte));
                }
            };
            number = number << 6 | u64::from(digit);
            if number > u32::MAX.into() {
                return Err(self.wrong("a number is larger than 32 bits"));
            }
            self.at += 1;
        }
    }

    fn wrong(&self, what: &'static str) -> FossilError {
        FossilError { what, at: self.at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    fn text(delta: &[u8]) -> &str {
        std::str::from_utf8(delta).unwrap()
    }

    #[test]
    fn deltas_of_a_few_bytes_are_those_of_the_format() {
        assert_eq!(text(&create(b"", b"")), "0\n0;");
        // 0x61000000 is 97 times 64^4: the digits 1, 33, 0, 0, 0, 0.
        assert_eq!(text(&create(b"", b"a")), "1\n1:a1X0000;");
        assert_eq!(text(&create(b"b", b"a")), "1\n1:a1X0000;");
        // The five words add up to 0x676c989c: the digits 1, 39, 27, 9, 34, 28.
        let base = b"0123456789abcdefghij";
        assert_eq!(text(&create(base, base)), "K\nK@0,1cR9YS;");
        // A word more, 0x21212121, makes 0x888db9bd: the digits 2, 8, 35, 27, 38, 61.
        assert_eq!(text(&create(base, b"0123456789abcdefghij!!!!")), "O\nK@0,4:!!!!28ZRby;");
        assert_eq!(apply(base, b"K\nK@0,1cR9YS;", 20).unwrap(), base);
        assert_eq!(apply(b"", b"1\n1:a1X0000;", 1).unwrap(), b"a");
        assert_eq!(apply(b"xyz", b"0\n0;", 0).unwrap(), b"");
    }

    fn sum(number: u64) -> String {
        let mut out = Vec::new();
        write_number(number, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_in_the_fewest_digits() {
        for (number, digits) in [
            (0, "0"),
            (9, "9"),
            (10, "A"),
            (35, "Z"),
            (36, "_"),
            (37, "a"),
            (63, "~"),
            (64, "10"),
            (4095, "~~"),
            (4096, "100"),
            (0xffff_ffff, "3~~~~~"),
        ] {
            assert_eq!(sum(number), digits);
            let mut reader = Reader { delta: &[digits.as_bytes(), b";"].concat(), at: 0 };
            assert_eq!(reader.number(), Ok((number, b';')));
        }
    }

    #[test]
    fn what_is_wrong_with_a_delta_is_said() {
        let base = b"0123456789abcdefghij";
        for (delta, what) in [
            (&b""[..], "the delta is cut off at byte 0 of the delta"),
            (b"K", "the delta is cut off"),
            (b"\n0;", "a number is missing"),
            (b"0;0;", "does not end in a line feed"),
            (b"L\nL@0,0;", "the target is too long"),
            (b"40000000\n", "a number is larger than 32 bits"),
            (b"1\n", "the delta is cut off"),
            (b"1\n1", "the delta is cut off"),
            (b"1\n1!", "an unknown command"),
            (b"1\n1:", "a literal is cut off"),
            (b"1\n3~~~~~:a", "a literal is cut off"),
            (b"1\n1@", "the delta is cut off"),
            (b"1\n1@0;", "a copy does not end in a comma"),
            (b"1\n1@K,0;", "a copy leaves the base"),
            (b"1\nK@1,0;", "a copy leaves the base"),
            (b"1\n3~~~~~@3~~~~~,0;", "a copy leaves the base"),
            (b"1\n2:ab0;", "the target is longer than announced"),
            (b"3\n2:ab0;", "the target's length is another"),
            (b"1\n1:a1X0001;", "the checksum is wrong"),
            (b"1\n1:a1X0000;;", "something follows the checksum"),
        ] {
            let error = apply(base, delta, 20).expect_err(what).to_string();
            assert!(error.contains(what), "{delta:?}: {error}");
        }
    }

    #[test]
    fn a_small_change_in_a_large_payload_is_a_small_delta() {
        let rows: Vec<String> = (0..2000)
            .map(|i| format!("{{\"id\":{i},\"name\":\"row number {}\",\"price\":{}}}", i * 7, i * 31 % 977))
            .collect();
        let base = format!("[{}]", rows.join(","));
        let changed = |at: usize, text: &str| {
            let mut rows = rows.clone();
            rows[at] = text.to_owned();
            format!("[{}]", rows.join(","))
        };
        let two = changed(3, "null").replace("\"id\":1500,", "\"id\":\"fifteen hundred\",");
        let moved = format!("[{},{}]", rows[1000..].join(","), rows[..1000].join(","));
        for target in
            [base.clone(), changed(700, "{\"id\":0}"), changed(0, "1"), changed(1999, ""), two, moved]
        {
            let delta = create(base.as_bytes(), target.as_bytes());
            assert!(delta.len() < 120, "{} bytes", delta.len());
            assert_eq!(apply(base.as_bytes(), &delta, MAX).unwrap(), target.as_bytes());
        }
    }

    #[test]
    fn a_delta_of_text_never_cuts_a_character() {
        let base = "[\"\u{43f}\u{440}\u{438}\u{432}\u{435}\u{442} \u{1f600} \u{43c}\u{438}\u{440}\u{433}\u{434}\u{435}\u{442}\u{44b}\u{431}\u{44b}\u{43b}\"]".repeat(5);
        // \u{43f} and \u{4bf} begin with other bytes and end alike; \u{1f600} and \u{1f640} begin alike.
        for (from, to) in [
            ("\u{43f}", "\u{4bf}"),
            ("\u{1f600}", "\u{1f640}"),
            ("\u{1f600}", "\u{1f601}"),
            ("\u{442}", "\u{482}"),
        ] {
            for count in [1, 2, 100] {
                let target = base.replacen(from, to, count);
                let delta = create(base.as_bytes(), target.as_bytes());
                std::str::from_utf8(&delta).unwrap();
                assert_eq!(apply(base.as_bytes(), &delta, MAX).unwrap(), target.as_bytes());
            }
        }
    }

    #[test]
    fn repetitive_payloads_take_no_time() {
        let same = vec![b'a'; 1 << 18];
        let mut stripes = vec![b'a'; 1 << 18];
        stripes.iter_mut().step_by(40).for_each(|byte| *byte = b'b');
        for (base, target) in [(&same, &stripes), (&stripes, &same), (&same, &same), (&stripes, &stripes)] {
            let delta = create(base, target);
            assert_eq!(&apply(base, &delta, MAX).unwrap(), target);
        }
    }

    #[test]
    fn a_series_begins_with_a_whole_payload_and_goes_on_with_differences() {
        let payload = |i: usize| Bytes::from(format!("{{\"text\":\"{}\",\"i\":{i}}}", "long ".repeat(20)));
        let publication = |data| {
            Arc::new(Publication { offset: 0, data, info: None, tags: vec![], except: None, is_json: true })
        };
        let publications = [payload(1), payload(2), Bytes::from_static(b"17"), payload(3)].map(publication);
        let mut deltas = series(&publications, Publication::json).map(|(_, _, delta)| delta);
        assert_eq!(deltas.next().unwrap(), None);
        let second = deltas.next().unwrap().expect("much is shared");
        assert_eq!(apply(&payload(1), &second, MAX).unwrap(), payload(2));
        assert_eq!(
            [deltas.next().unwrap(), deltas.next().unwrap(), deltas.next().flatten()],
            [None, None, None]
        );
    }

    /// A target made of pieces of the base and pieces of its own.
    fn related() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let letters = prop_oneof![any::<u8>(), prop::sample::select(b"ab\xd0\xbf\x80".to_vec())];
        let base = prop::collection::vec(letters, 0..400);
        let piece = (any::<[prop::sample::Index; 2]>(), prop::collection::vec(any::<u8>(), 0..30));
        (base, prop::collection::vec(piece, 0..6)).prop_map(|(base, pieces)| {
            let mut target = Vec::new();
            for (ends, own) in pieces {
                let [a, b] = ends.map(|end| end.index(base.len() + 1));
                target.extend_from_slice(&base[a.min(b)..a.max(b)]);
                target.extend_from_slice(&own);
            }
            (base, target)
        })
    }

    proptest! {
        #[test]
        fn a_delta_gives_back_its_target((base, target) in related()) {
            let delta = create(&base, &target);
            prop_assert_eq!(apply(&base, &delta, target.len()).unwrap(), &target[..]);
            if let Some(max_bytes) = target.len().checked_sub(1) {
                prop_assert!(apply(&base, &delta, max_bytes).is_err());
            }
            if std::str::from_utf8(&target).is_ok() {
                prop_assert!(std::str::from_utf8(&delta).is_ok());
            }
        }

        #[test]
        fn a_delta_of_text_is_text(
            base in "[a-c\u{43f}-\u{442}\u{1f600}-\u{1f603}]{0,120}",
            cuts in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..5),
            own in "[a-c\u{43f}\u{4bf}\u{1f600}\u{1f640}]{0,10}",
        ) {
            let chars: Vec<char> = base.chars().collect();
            let mut target = String::new();
            for ends in cuts {
                let [a, b] = ends.map(|end| end.index(chars.len() + 1));
                target.extend(&chars[a.min(b)..a.max(b)]);
                target.push_str(&own);
            }
            let delta = create(base.as_bytes(), target.as_bytes());
            prop_assert!(std::str::from_utf8(&delta).is_ok());
            prop_assert_eq!(apply(base.as_bytes(), &delta, MAX).unwrap(), target.as_bytes());
        }

        #[test]
        fn arbitrary_deltas_never_panic(
            base in prop::collection::vec(any::<u8>(), 0..50),
            delta in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                prop::collection::vec(prop::sample::select(b"0129AZ_az~@,:;\n".to_vec()), 0..60),
            ],
        ) {
            if let Ok(target) = apply(&base, &delta, 100) {
                prop_assert!(target.len() <= 100);
            }
        }
    }
}
