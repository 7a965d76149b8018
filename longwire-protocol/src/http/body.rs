//! Bodies of HTTP/1 responses: by length, in chunks, or until the connection closes (RFC 9112 sections 6 and 7).
//!
//! Pieces of the body are parts of the bytes that came in: nothing is copied, nothing is kept but a number. Clients
//! use it, for answers and for streams without end. What it is not: it opens no coding but `chunked`.
//!
//! What must stay true: the same bytes give the same body however they are cut; a body is bounded before anybody keeps
//! it, and so are the lines around its chunks.

use super::{HeadError, Headers, Repeated, ResponseHead, bad};

/// How many bytes the line before a chunk may have, its extensions included.
const MAX_LINE_BYTES: usize = 4096;

/// How many bytes may follow the last chunk.
const MAX_TRAILER_BYTES: usize = 16 * 1024;

/// How a response's body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseBody {
    /// There is none.
    Empty,
    /// After so many bytes, never 0.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// Why bytes are no body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct BodyError {
    /// The rule that was broken.
    pub what: &'static str,
}

impl ResponseHead<'_> {
    /// Says what follows the head, if all readers agree on it (RFC 9112 section 6.3). The request was no `HEAD`.
    ///
    /// # Errors
    ///
    /// If length and coding contradict each other, or a coding is unknown.
    pub fn body(&self) -> Result<ResponseBody, HeadError> {
        body(self.status, &self.headers, self.is_http_11)
    }
}

fn body(status: u16, headers: &Headers<'_>, is_http_11: bool) -> Result<ResponseBody, HeadError> {
    if matches!(status, 100..=199 | 204 | 304) {
        return Ok(ResponseBody::Empty);
    }
    let coding = headers.at_most_one("transfer-encoding");
    let Ok(coding) = coding else { return Err(bad("there is more than one transfer-encoding")) };
    // At times servers repeat the same length (RFC 9110 section 8.6 lets it pass).
    let length = match headers.at_most_one("content-length") {
        Ok(length) => length,
        Err(Repeated) => {
            let mut lengths = headers.all("content-length");
            let first = lengths.next();
            if lengths.any(|length| Some(length) != first) {
                return Err(bad("there are two content-lengths"));
            }
            first
        }
    };
    match (length, coding) {
        (None, None) => Ok(ResponseBody::UntilClose),
        (Some(_), Some(_)) => Err(bad("there are both a content-length and a transfer-encoding")),
        (None, Some(_)) if !is_http_11 => Err(bad("HTTP/1.0 has no transfer-encoding")),
        (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(ResponseBody::Chunked),
        (None, Some(_)) => Err(bad("the transfer-encoding is not chunked")),
        (Some(digits), None) => {
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| is_number);
            match text.and_then(|text| text.parse().ok()) {
                Some(0) => Ok(ResponseBody::Empty),
                Some(length) => Ok(ResponseBody::Length(length)),
                None => Err(bad("the content-length is malformed")),
            }
        }
    }
}

/// The state of one body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// How many bytes of body may still come.
    room: u64,
}

#[derive(Clone, Debug)]
enum State {
    /// So many bytes of a body with a length are left.
    Length(u64),
    UntilClose,
    /// The line before a chunk.
    Size {
        size: u64,
        digits: u8,
        line_bytes: usize,
        part: LinePart,
    },
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd {
        is_after_carriage_return: bool,
    },
    /// What follows the last chunk: lines up to an empty one.
    Trailer {
        bytes: usize,
        line_bytes: usize,
        is_after_carriage_return: bool,
    },
    Complete,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinePart {
    Digits,
    Extension,
    CarriageReturn,
}

const SIZE: State = State::Size { size: 0, digits: 0, line_bytes: 0, part: LinePart::Digits };

impl BodyDecoder {
    /// Makes the state of a body that begins and may have up to `max_bytes`.
    ///
    /// # Errors
    ///
    /// If its length is known to be more.
    pub fn new(body: ResponseBody, max_bytes: u64) -> Result<BodyDecoder, BodyError> {
        let state = match body {
            ResponseBody::Empty | ResponseBody::Length(0) => State::Complete,
            ResponseBody::Length(length) if length > max_bytes => return Err(TOO_LARGE),
            ResponseBody::Length(length) => State::Length(length),
            ResponseBody::Chunked => SIZE,
            ResponseBody::UntilClose => State::UntilClose,
        };
        Ok(BodyDecoder { state, room: max_bytes })
    }

    /// Takes the next piece of the body from the front of `input`, which is advanced past it; `None` if all of it is
    /// read, or the body is complete: what is left of `input` is then not part of it.
    ///
    /// # Errors
    ///
    /// If the bytes are no body, or it has more than it may have. Nothing that follows can be understood.
    pub fn decode<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BodyError> {
        while !input.is_empty() {
            match &mut self.state {
                State::Complete => return Ok(None),
                State::UntilClose => {
                    let piece = take(input, u64::MAX);
                    self.room = self.room.checked_sub(piece.len() as u64).ok_or(TOO_LARGE)?;
                    return Ok(Some(piece));
                }
                State::Length(left) => {
                    let piece = take(input, *left);
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.state = State::Complete;
                    }
                    return Ok(Some(piece));
                }
                State::Chunk(left) => {
                    let piece = take(input, *left);
                    *left -= piece.len() as u64;
                    if *left == 0 {
                        self.state = State::ChunkEnd { is_after_carriage_return: false };
                    }
                    return Ok(Some(piece));
                }
                _ => {
                    let byte = input[0];
                    *input = &input[1..];
                    self.handle_line_byte(byte)?;
                }
            }
        }
        Ok(None)
    }

    /// Whether all of the body was read.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// Judges the end of the connection.
    ///
    /// # Errors
    ///
    /// If the body is cut off.
    pub fn handle_end(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Complete => {
                self.state = State::Complete;
                Ok(())
            }
            _ => Err(BodyError { what: "the body is cut off" }),
        }
    }

    /// Takes a byte of the lines around chunks (RFC 9112 section 7.1).
    fn handle_line_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        match &mut self.state {
            State::Size { size, digits, line_bytes, part } => {
                *line_bytes += 1;
                if *line_bytes > MAX_LINE_BYTES {
                    return Err(BodyError { what: "the line before a chunk is too long" });
                }
                match (*part, byte) {
                    (LinePart::CarriageReturn, b'\n') => {
                        let size = *size;
                        if size == 0 {
                            self.state = TRAILER;
                        } else {
                            self.room = self.room.checked_sub(size).ok_or(TOO_LARGE)?;
                            self.state = State::Chunk(size);
                        }
                    }
                    (LinePart::CarriageReturn, _) | (_, b'\n') => return Err(LINE_END),
                    (LinePart::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                        // 16 digits are 64 bits.
                        if *digits == 16 {
                            return Err(BodyError { what: "a chunk's size has too many digits" });
                        }
                        *digits += 1;
                        let digit = char::from(byte).to_digit(16).unwrap_or_default();
                        *size = *size << 4 | u64::from(digit);
                    }
                    (LinePart::Digits, b'\r' | b';' | b' ' | b'\t') if *digits > 0 => {
                        *part = if byte == b'\r' { LinePart::CarriageReturn } else { LinePart::Extension };
                    }
                    (LinePart::Digits, _) => return Err(BodyError { what: "a chunk's size is malformed" }),
                    (LinePart::Extension, b'\r') => *part = LinePart::CarriageReturn,
                    (LinePart::Extension, _) => {}
                }
            }
            State::ChunkEnd { is_after_carriage_return } => match (*is_after_carriage_return, byte) {
                (false, b'\r') => *is_after_carriage_return = true,
                (true, b'\n') => self.state = SIZE,
                _ => return Err(BodyError { what: "a chunk does not end where it should" }),
            },
            State::Trailer { bytes, line_bytes, is_after_carriage_return } => {
                *bytes += 1;
                if *bytes > MAX_TRAILER_BYTES {
                    return Err(BodyError { what: "what follows the last chunk is too long" });
                }
                match (*is_after_carriage_return, byte) {
                    (true, b'\n') if *line_bytes == 0 => self.state = State::Complete,
                    (true, b'\n') => (*line_bytes, *is_after_carriage_return) = (0, false),
                    (true, _) | (false, b'\n') => return Err(LINE_END),
                    (false, b'\r') => *is_after_carriage_return = true,
                    (false, _) => *line_bytes += 1,
                }
            }
            State::Length(_) | State::UntilClose | State::Chunk(_) | State::Complete => {}
        }
        Ok(())
    }
}

const TRAILER: State = State::Trailer { bytes: 0, line_bytes: 0, is_after_carriage_return: false };
const TOO_LARGE: BodyError = BodyError { what: "the body is larger than the limit" };
const LINE_END: BodyError = BodyError { what: "a line's end is malformed" };

/// Takes at most `max` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], max: u64) -> &'a [u8] {
    let count = usize::try_from(max).unwrap_or(usize::MAX).min(input.len());
    let (piece, rest) = input.split_at(count);
    *input = rest;
    piece
}

#[cfg(test)]
mod tests {
    use super::super::parse_response_head;
    use super::*;
    use proptest::prelude::*;

    /// The body in `pieces`, and what is left behind it.
    fn decode(body: ResponseBody, max: u64, pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
        let mut decoder = BodyDecoder::new(body, max)?;
        let (mut content, mut left) = (Vec::new(), Vec::new());
        for mut piece in pieces.iter().copied() {
            while let Some(part) = decoder.decode(&mut piece)? {
                assert!(!part.is_empty());
                content.extend_from_slice(part);
            }
            assert!(piece.is_empty() || decoder.is_complete());
            left.extend_from_slice(piece);
        }
        decoder.handle_end()?;
        assert!(decoder.is_complete());
        Ok((content, left))
    }

    const CHUNKS: &[u8] =
        b"5\r\nhello\r\n1;name=\"v\"\r\n,\r\n00006 \r\n world\r\n0\r\nTrailer: x\r\n\r\nHTTP/1.1";

    #[test]
    fn chunks_are_joined_however_the_bytes_are_cut() {
        let expected = (b"hello, world".to_vec(), b"HTTP/1.1".to_vec());
        for cut in 0..=CHUNKS.len() {
            let pieces = [&CHUNKS[..cut], &CHUNKS[cut..]];
            assert_eq!(decode(ResponseBody::Chunked, 12, &pieces), Ok(expected.clone()), "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = CHUNKS.chunks(1).collect();
        assert_eq!(decode(ResponseBody::Chunked, 12, &bytes), Ok(expected));
    }

    #[test]
    fn what_follows_a_body_with_a_length_is_left() {
        let text: &[u8] = b"abcdeHTTP/1.1 200";
        for cut in 0..=text.len() {
            let decoded = decode(ResponseBody::Length(5), 5, &[&text[..cut], &text[cut..]]);
            assert_eq!(decoded, Ok((b"abcde".to_vec(), b"HTTP/1.1 200".to_vec())));
        }
        assert_eq!(decode(ResponseBody::Empty, 0, &[b"x"]), Ok((Vec::new(), b"x".to_vec())));
        assert_eq!(decode(ResponseBody::UntilClose, 3, &[b"x", b"yz"]), Ok((b"xyz".to_vec(), Vec::new())));
    }

    #[test]
    fn a_body_that_is_cut_off_is_told_from_one_that_ends() {
        for cut in 0..CHUNKS.len() - b"HTTP/1.1".len() {
            let error = decode(ResponseBody::Chunked, 12, &[&CHUNKS[..cut]]).unwrap_err();
            assert_eq!(error.what, "the body is cut off", "cut at {cut}");
        }
        assert!(decode(ResponseBody::Length(2), 5, &[b"a"]).is_err());
    }

    #[test]
    fn a_body_is_refused_before_it_passes_its_limit() {
        assert_eq!(decode(ResponseBody::Length(6), 5, &[]), Err(TOO_LARGE));
        assert_eq!(decode(ResponseBody::UntilClose, 2, &[b"ab", b"c"]), Err(TOO_LARGE));
        assert_eq!(decode(ResponseBody::Chunked, 11, &[CHUNKS]), Err(TOO_LARGE));
        assert_eq!(decode(ResponseBody::Chunked, 1 << 20, &[b"ffffffffffffffff\r\n"]), Err(TOO_LARGE));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for text in [
            "\r\nhello",
            "5\nhello",
            "5\rhello",
            "x\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "5\r\nhelloworld",
            "5\r\nhello\n",
            "5 ;x\ny\r\n",
            "11111111111111111\r\n",
            "0\r\nTrailer\n\r\n",
            "0\r\n\rx",
        ] {
            let error = decode(ResponseBody::Chunked, 1 << 20, &[text.as_bytes()]).unwrap_err();
            assert_ne!(error.what, "the body is cut off", "{text:?}");
        }
        let long = [b"5;".to_vec(), vec![b'x'; MAX_LINE_BYTES]].concat();
        assert!(decode(ResponseBody::Chunked, 9, &[&long]).unwrap_err().what.contains("too long"));
        let long = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(MAX_TRAILER_BYTES / 6 + 1)].concat();
        assert!(decode(ResponseBody::Chunked, 9, &[&long]).unwrap_err().what.contains("too long"));
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        let said = |fields: &str| {
            let text = format!("HTTP/1.1 {fields}\r\n\r\n");
            parse_response_head(text.as_bytes(), 1 << 12, 64).unwrap().unwrap().0.body()
        };
        assert_eq!(said("200 OK"), Ok(ResponseBody::UntilClose));
        assert_eq!(said("204 No Content\r\nContent-Length: 3"), Ok(ResponseBody::Empty));
        assert_eq!(said("101 Switching\r\nTransfer-Encoding: chunked"), Ok(ResponseBody::Empty));
        assert_eq!(said("200 OK\r\nContent-Length: 0"), Ok(ResponseBody::Empty));
        assert_eq!(said("200 OK\r\nContent-Length: 7\r\nContent-Length: 7"), Ok(ResponseBody::Length(7)));
        assert_eq!(said("200 OK\r\nTransfer-Encoding: Chunked"), Ok(ResponseBody::Chunked));
        for wrong in [
            "200 OK\r\nContent-Length: 7\r\nContent-Length: 8",
            "200 OK\r\nContent-Length: +7",
            "200 OK\r\nContent-Length: 99999999999999999999",
            "200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked",
            "200 OK\r\nTransfer-Encoding: gzip, chunked",
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_in_chunks_arrives(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            step in 1usize..64,
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let pieces: Vec<&[u8]> = wire.chunks(step).collect();
            let decoded = decode(ResponseBody::Chunked, u64::MAX, &pieces);
            prop_assert_eq!(decoded, Ok((chunks.concat(), Vec::new())));
        }

        #[test]
        fn any_bytes_give_the_same_however_they_are_cut(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'1')], 0..60),
            cut in 0usize..60,
        ) {
            let cut = cut.min(bytes.len());
            let whole = decode(ResponseBody::Chunked, 100, &[&bytes]);
            prop_assert_eq!(decode(ResponseBody::Chunked, 100, &[&bytes[..cut], &bytes[cut..]]), whole);
        }
    }
}
