//! Position tokens: where a reader stands in several channels, as one piece of text.
//!
//! `news=7.abcdefgh,chat:1=0.zyxwvuts` says: publication 7 of `news` was the last one seen, and none of
//! `chat:1`. A token is the `id:` of an event in an event stream and comes back as `Last-Event-ID` or as
//! `?since=`; the other plain transports use the same text.
//!
//! In a name everything but letters, digits and `_.:~$*/-` is percent-encoded, so that a token fits a header
//! and a query. Whoever copies a token into a query without encoding it again has it decoded once too often;
//! therefore a name may hold any visible character undecoded except `=` and `%`, the comma included but as its
//! first: what separates two entries is a comma after a position.
//!
//! One entry may have no name: `=12.kwmzqpfa`. It says that its reader got the twelfth answer to a long-poll of the
//! session of which the rest is a mark, and all before it.
//!
//! What must stay true: what [`write_position`] wrote, [`PositionToken::parse`] reads, whatever the name;
//! nothing written here can end a line.

use crate::position::{Epoch, Position};

/// How long a token may be.
pub const MAX_BYTES: usize = 16 * 1024;

/// How many channels a token may name.
pub const MAX_CHANNELS: usize = 128;

/// Positions by channel, in the order in which they were first named.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PositionToken {
    entries: Vec<(String, Position)>,
    answer: Option<Position>,
}

impl PositionToken {
    /// Reads a token; empty text is a token without positions.
    ///
    /// # Errors
    ///
    /// If the text is not a token, names more than [`MAX_CHANNELS`] channels, or is longer than
    /// [`MAX_BYTES`].
    pub fn parse(text: &[u8]) -> Result<PositionToken, TokenError> {
        if text.len() > MAX_BYTES {
            return Err(TokenError { what: "longer than 16384 bytes", at: MAX_BYTES });
        }
        let mut token = PositionToken::default();
        let mut start = 0;
        while start < text.len() {
            let is_answer = text[start] == b'=';
            if !is_answer && token.entries.len() == MAX_CHANNELS {
                return Err(TokenError { what: "more than 128 channels", at: start });
            }
            let Some(name_bytes) = memchr::memchr(b'=', &text[start..]) else {
                return Err(TokenError { what: "a channel without `=`", at: start });
            };
            let name = &text[start..start + name_bytes];
            let channel = if is_answer { String::new() } else { decode_name(name, start)? };
            if token.get(&channel).is_some() {
                return Err(TokenError { what: "a channel for the second time", at: start });
            }
            if is_answer && token.answer.is_some() {
                return Err(TokenError { what: "an answer for the second time", at: start });
            }
            let position_start = start + name_bytes + 1;
            let position_bytes = memchr::memchr(b',', &text[position_start..]);
            let end = position_bytes.map_or(text.len(), |bytes| position_start + bytes);
            let position = parse_position(&text[position_start..end], position_start)?;
            match is_answer {
                true => token.answer = Some(position),
                false => token.entries.push((channel, position)),
            }
            start = end + 1;
            if start == text.len() {
                return Err(TokenError { what: "a comma at the end", at: end });
            }
        }
        Ok(token)
    }

    /// Where the reader stands in `channel`, if the token says.
    pub fn get(&self, channel: &str) -> Option<Position> {
        self.entries.iter().find(|(name, _)| name == channel).map(|(_, position)| *position)
    }

    /// Notes that the reader stands at `position` in `channel`.
    pub fn set(&mut self, channel: &str, position: Position) {
        match self.entries.iter_mut().find(|(name, _)| name == channel) {
            Some((_, earlier)) => *earlier = position,
            None => self.entries.push((channel.to_owned(), position)),
        }
    }

    /// Which answer to a long-poll the reader got last, if the token says.
    pub fn answer(&self) -> Option<Position> {
        self.answer
    }

    /// Forgets `channel`.
    pub fn remove(&mut self, channel: &str) {
        self.entries.retain(|(name, _)| name != channel);
    }

    /// The channels and their positions.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Position)> {
        self.entries.iter().map(|(channel, position)| (channel.as_str(), *position))
    }

    /// Whether no channel has a position.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Writes the token as text.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        for (channel, position) in self.iter() {
            write_position(channel, &position, &mut text);
        }
        if let Some(answer) = &self.answer {
            write_answer(answer, &mut text);
        }
        out.extend_from_slice(&text);
    }
}

/// Why a text is not a position token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("position token has {what} at byte {at}")]
pub struct TokenError {
    /// What was found.
    pub what: &'static str,
    /// Where, counted from 0.
    pub at: usize,
}

/// Adds the position of one more channel to the token in `token`, which holds nothing else.
pub fn write_position(channel: &str, position: &Position, token: &mut Vec<u8>) {
    if !token.is_empty() {
        token.push(b',');
    }
    write_entry(channel, position, token);
}

/// Adds the number of the last answer to a long-poll to the token in `token`, which holds nothing else.
pub fn write_answer(answer: &Position, token: &mut Vec<u8>) {
    write_position("", answer, token);
}

/// Writes the token that names `channel` alone behind whatever `token` holds.
pub fn write_entry(channel: &str, position: &Position, token: &mut Vec<u8>) {
    for byte in channel.bytes() {
        if is_plain(byte) {
            token.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            token.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
    token.push(b'=');
    crate::json::write_number(position.offset, token);
    token.push(b'.');
    token.extend_from_slice(position.epoch.as_str().as_bytes());
}

/// The most bytes that the position of `channel` can take in a token, with the comma before it.
///
/// A token over many long names can outgrow [`MAX_BYTES`], and would not be read back: whoever accepts a
/// list of channels adds these up first.
pub fn longest_entry_bytes(channel: &str) -> usize {
    let name_bytes: usize = channel.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum();
    // The comma, the name, `=`, twenty digits, `.` and eight letters.
    1 + name_bytes + 1 + 20 + 1 + 8
}

/// The most bytes that the position of `channel` can take in a token that stands in a query, encoded once more there.
pub fn longest_query_bytes(channel: &str) -> usize {
    let bytes_of = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() || b"_.-".contains(&byte) => 1,
        _ if is_plain(byte) => 3,
        // `%2540`
        _ => 5,
    };
    // `%2C`, the name, `%3D`, twenty digits, `.` and eight letters.
    3 + channel.bytes().map(bytes_of).sum::<usize>() + 3 + 20 + 1 + 8
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:~$*/-".contains(&byte)
}

fn decode_name(text: &[u8], start: usize) -> Result<String, TokenError> {
    if text.is_empty() || text[0] == b',' {
        return Err(TokenError { what: "a channel without a name", at: start });
    }
    let mut name = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if byte == b'%' {
            let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                return Err(TokenError { what: "`%` without two hexadecimal digits", at: start + at });
            };
            name.push((high << 4 | low) as u8);
            at += 3;
        } else if byte <= b' ' || byte == 0x7f {
            return Err(TokenError { what: "a space or control character", at: start + at });
        } else {
            name.push(byte);
            at += 1;
        }
    }
    String::from_utf8(name).map_err(|_| TokenError { what: "a name that is not UTF-8", at: start })
}

/// Reads `OFFSET.EPOCH`.
fn parse_position(text: &[u8], start: usize) -> Result<Position, TokenError> {
    let Some(digits) = memchr::memchr(b'.', text) else {
        return Err(TokenError { what: "a position without `.`", at: start });
    };
    let (number, epoch) = (&text[..digits], &text[digits + 1..]);
    let wrong_offset = TokenError { what: "an offset that is not a whole number below 2^64", at: start };
    if number.is_empty() {
        return Err(wrong_offset);
    }
    let mut offset = 0u64;
    for byte in number {
        let digit = char::from(*byte).to_digit(10).ok_or(wrong_offset)?;
        offset = offset.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit))).ok_or(wrong_offset)?;
    }
    let wrong_epoch =
        TokenError { what: "an epoch that is not eight letters or digits", at: start + digits + 1 };
    let epoch = std::str::from_utf8(epoch).map_err(|_| wrong_epoch)?;
    let parsed = Epoch::parse(epoch);
    // The foreign epoch has a text too, and what was written must be readable.
    if parsed.as_str() != epoch {
        return Err(wrong_epoch);
    }
    Ok(Position { offset, epoch: parsed })
}
