//! Where a reader stands in a channel: offset, epoch, position, and the one function for continuity.
//!
//! A channel with history numbers its publications from 1. The number is the *offset*; the identity of the
//! numbering is the *epoch*, drawn anew whenever a channel's memory was lost; both together are a
//! [`Position`]. What must stay true: the question "is this publication next, a duplicate, or a gap?" is
//! answered by [`continuity`] alone, here and in the client and in the simulator's checker.

use crate::flaw::{self, Flaw};
use std::fmt;

/// Identity of a channel's numbering: eight ASCII letters or digits on the wire.
///
/// Clients may send any text as an epoch (centrifuge-js sends `_` for "I know nothing"). Text that
/// could not have come from longwire parses to [`Epoch::FOREIGN`], which equals no channel's epoch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch([u8; 8]);

impl Epoch {
    /// An epoch that no channel has: what unknown text parses to.
    pub const FOREIGN: Epoch = Epoch([0; 8]);

    /// Makes an epoch of 64 random bits: eight lower-case letters.
    pub fn from_random(mut bits: u64) -> Epoch {
        let mut letters = [b'a'; 8];
        for letter in &mut letters {
            *letter = b'a' + (bits % 26) as u8;
            bits /= 26;
        }
        Epoch(letters)
    }

    /// Reads an epoch as it stands on the wire; anything but eight ASCII letters or digits is foreign.
    pub fn parse(text: &str) -> Epoch {
        match <[u8; 8]>::try_from(text.as_bytes()) {
            Ok(letters) if letters.iter().all(u8::is_ascii_alphanumeric) => Epoch(letters),
            _ => Epoch::FOREIGN,
        }
    }

    /// The epoch as text; `_` for the foreign one.
    pub fn as_str(&self) -> &str {
        if *self == Epoch::FOREIGN {
            return "_";
        }
        std::str::from_utf8(&self.0).expect("only ASCII letters and digits are ever stored")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_str())
    }
}

/// The place of a publication, or of a reader that has seen it, in a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Number of the publication within its epoch, from 1; 0 means "before the first".
    pub offset: u64,
    /// Identity of the numbering.
    pub epoch: Epoch,
}

/// Where a returning reader says it stopped.
///
/// The epoch may be absent: a reader that saw a channel without publications knows none. An absent epoch
/// is accepted as any (centrifuge protocol, "Recovery and positions").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Since {
    /// Offset of the last publication seen; 0 if none was.
    pub offset: u64,
    /// Epoch of that offset, if known.
    pub epoch: Option<Epoch>,
}

impl From<Position> for Since {
    fn from(position: Position) -> Since {
        Since { offset: position.offset, epoch: Some(position.epoch) }
    }
}

/// How a publication relates to the last one that was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// The very next one.
    Next,
    /// Seen before: drop it.
    Duplicate,
    /// At least one publication between is missing.
    Gap,
    /// The channel's numbering began anew: nothing can be said about what is missing.
    OtherEpoch,
}

/// Tells how the publication at `next` relates to a reader that has seen everything up to `seen`.
pub fn continuity(seen: &Position, next: &Position) -> Continuity {
    let is_passed = |flaw, is_wrong: bool| is_wrong && flaw::is_on(flaw);
    if is_passed(Flaw::GapPasses, next.offset > seen.offset)
        || is_passed(Flaw::DuplicatePasses, next.offset <= seen.offset)
    {
        Continuity::Next
    } else if seen.epoch != next.epoch {
        Continuity::OtherEpoch
    } else if next.offset <= seen.offset {
        Continuity::Duplicate
    } else if next.offset == seen.offset + 1 {
        Continuity::Next
    } else {
        Continuity::Gap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> Position {
        Position { offset, epoch: Epoch::parse("abcdefgh") }
    }

    #[test]
    fn the_next_offset_continues_and_an_old_one_is_a_duplicate() {
        assert_eq!(continuity(&at(7), &at(8)), Continuity::Next);
        assert_eq!(continuity(&at(7), &at(7)), Continuity::Duplicate);
        assert_eq!(continuity(&at(7), &at(3)), Continuity::Duplicate);
    }

    #[test]
    fn a_skipped_offset_is_a_gap_and_another_epoch_says_nothing() {
        assert_eq!(continuity(&at(7), &at(9)), Continuity::Gap);
        let other = Position { offset: 8, epoch: Epoch::parse("zzzzzzzz") };
        assert_eq!(continuity(&at(7), &other), Continuity::OtherEpoch);
    }

    #[test]
    fn an_epoch_survives_its_text_and_foreign_text_equals_no_epoch() {
        let epoch = Epoch::from_random(0x1234_5678_9abc_def0);
        assert_eq!(Epoch::parse(epoch.as_str()), epoch);
        for text in ["", "_", "short", "too-long-for-us", "abc def!"] {
            assert_eq!(Epoch::parse(text), Epoch::FOREIGN, "{text:?}");
        }
    }
}
