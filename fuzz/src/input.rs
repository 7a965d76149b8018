//! Arbitrary bytes taken apart: numbers, pieces, text.
//!
//! Every target reads its decisions from the front of its data and keeps the rest as what the peer says. What
//! is missing reads as zero, so any data is a whole program, and a change of one byte changes little.

/// What is left of the data.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Starts at the front of `data`.
    pub fn new(data: &'a [u8]) -> Input<'a> {
        Input { rest: data }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    /// The next byte's lowest bit.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// The next two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number of eight bytes, small ones being likelier: the first byte says how many follow.
    pub fn number(&mut self) -> u64 {
        let bytes = self.byte() % 9;
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// One of `choices`.
    pub fn choose<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// The next bytes, at most `max`; the two bytes before them say how many.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let count = usize::from(self.short()).min(max).min(self.rest.len());
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        bytes
    }

    /// As [`bytes`](Self::bytes), as text.
    pub fn text(&mut self, max: usize) -> String {
        String::from_utf8_lossy(self.bytes(max)).into_owned()
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Cuts `data` into pieces whose lengths are drawn from `seed`: every way to cut a short stream is reached by
/// some seed, and most cuts are short.
pub fn pieces(data: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let mut state = seed;
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // The mixing of SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 27;
        let longest = [1, 2, 3, 5, 8, 20, 100, 2000][mixed as usize % 8];
        let count = (1 + (mixed >> 8) as usize % longest).min(rest.len());
        let (piece, behind) = rest.split_at(count);
        rest = behind;
        Some(piece)
    })
}
