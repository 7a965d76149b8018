//! Bytes into frames, whatever the pieces in which they come.
//!
//! The caller reads into a buffer that many connections share and gives what arrived to [`Decoder::decode`]; only what
//! is incomplete is kept here. A frame that is there whole costs the allocation of its body: its head is lent from the
//! input. What headers mean, and which escapes they may have, differs by version: [`Frame::check`] and
//! [`Frame::headers`] are told which is spoken.
//!
//! What must stay true: each byte is looked at once for where a frame ends, however it is cut; a limit is checked before
//! anything is kept; buffers grow with what was received, never with what was announced; after a violation nothing more
//! is decoded.

use super::{Limits, Version};
use crate::close::CloseReason;
use bytes::Bytes;
use memchr::{memchr, memchr2};
use std::borrow::Cow;

/// The longest command. None of the protocol's is longer than eleven.
const MAX_COMMAND_BYTES: usize = 32;

/// How much of a broken frame's head a violation shows.
const MAX_SHOWN_BYTES: usize = 1024;

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Command and headers, a line each, as they came, without the empty line behind them.
    head: Cow<'a, str>,
    /// Where the lines of the headers begin.
    headers_at: usize,
    /// What follows them.
    pub body: Bytes,
}

/// Why bytes are no frame. The connection must be closed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Violation {
    /// `BadRequest` or `MessageTooBig`.
    pub reason: CloseReason,
    /// The rule.
    pub what: &'static str,
    /// The beginning of the frame's head, as far as it came.
    pub head: Vec<u8>,
}

/// How long a frame may be, and its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    max_line_bytes: usize,
    max_headers: usize,
    max_head_bytes: usize,
    max_body_bytes: usize,
    max_frame_bytes: usize,
}

impl Bounds {
    /// The bounds of frames of those who are known.
    pub fn of(limits: &Limits) -> Bounds {
        Bounds {
            max_line_bytes: limits.max_line_bytes,
            max_headers: limits.max_headers,
            max_head_bytes: limits.max_head_bytes,
            max_body_bytes: limits.max_body_bytes,
            max_frame_bytes: usize::MAX,
        }
    }

    /// The bounds of the first frame.
    pub fn of_login(limits: &Limits) -> Bounds {
        Bounds { max_frame_bytes: limits.max_login_bytes, ..Bounds::of(limits) }
    }
}

/// Takes frames from a stream. It holds no heap between frames.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    has_ended: bool,
}

/// What is kept of an incomplete frame.
#[derive(Debug, Default)]
struct Partial {
    head: Vec<u8>,
    scan: Scan,
    /// The head is complete.
    is_in_body: bool,
    body: Vec<u8>,
}

/// How far a head was looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    /// Where the current line begins.
    line_at: usize,
    /// Up to where there is no end of it.
    seen: usize,
    /// Where the first line of headers begins; 0 before the command is complete.
    headers_at: usize,
    /// Lines of headers.
    headers: usize,
    /// What the first `content-length` says.
    body_len: Option<usize>,
}

/// What is wrong, before it is known what to show of the frame.
type Wrong = (CloseReason, &'static str);

impl Decoder {
    /// Takes the next frame from the front of `input` and leaves `input` behind it. `None` means that more bytes are
    /// needed: `input` is then empty, and what it held of a frame is kept.
    ///
    /// # Errors
    /// The rule that the peer broke. All that comes later is discarded.
    pub fn decode<'a>(
        &mut self,
        input: &mut &'a [u8],
        bounds: &Bounds,
    ) -> Result<Option<Frame<'a>>, Violation> {
        if self.has_ended {
            *input = &[];
            return Ok(None);
        }
        let begun = *input;
        let result = match &self.partial {
            Some(_) => self.go_on(input, bounds),
            None => self.begin(input, bounds),
        };
        result.map_err(|(reason, what)| {
            self.has_ended = true;
            *input = &[];
            let kept = self.partial.take().map(|partial| partial.head).filter(|head| !head.is_empty());
            let mut head = kept.unwrap_or_else(|| skip_between(begun).to_vec());
            head.truncate(MAX_SHOWN_BYTES);
            Violation { reason, what, head }
        })
    }

    /// Whether nothing of a frame is kept.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// The usual case: nothing is kept, and most often all of the frame is there.
    fn begin<'a>(&mut self, input: &mut &'a [u8], bounds: &Bounds) -> Result<Option<Frame<'a>>, Wrong> {
        *input = skip_between(input);
        let bytes = *input;
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut scan = Scan::default();
        let Some(head_len) = scan.advance(bytes, bounds)? else {
            let partial = Partial { head: bytes.to_vec(), scan, ..Partial::default() };
            self.partial = Some(Box::new(partial));
            *input = &[];
            return Ok(None);
        };
        let (head, rest) = bytes.split_at(head_len);
        let (body, rest) = match scan.body(rest, head_len, bounds)? {
            Some(found) => found,
            None => {
                let partial = Partial { head: head.to_vec(), scan, is_in_body: true, body: Vec::new() };
                self.partial = Some(Box::new(partial));
                *input = rest;
                return self.go_on(input, bounds);
            }
        };
        *input = rest;
        let head = simdutf8::basic::from_utf8(head).map_err(|_| NOT_UTF_8)?;
        let body = Bytes::copy_from_slice(body);
        Ok(Some(Frame { head: Cow::Borrowed(head), headers_at: scan.headers_at, body }))
    }

    /// Goes on with a frame of which something is kept.
    fn go_on<'a>(&mut self, input: &mut &'a [u8], bounds: &Bounds) -> Result<Option<Frame<'a>>, Wrong> {
        let Some(partial) = &mut self.partial else { return Ok(None) };
        while !partial.is_in_body {
            if input.is_empty() {
                return Ok(None);
            }
            // Line by line, so that nothing of the body is taken for the head. A line without an end is within the
            // input's length of its bound when that is noticed.
            let taken = memchr2(b'\n', 0, input).map_or(input.len(), |at| at + 1);
            let (piece, rest) = input.split_at(taken);
            if partial.head.len() + taken > bounds.max_head_bytes.min(bounds.max_frame_bytes) {
                return Err(HEAD_TOO_BIG);
            }
            let longest = bounds.max_line_bytes.max(MAX_COMMAND_BYTES) + LINE_END_BYTES;
            if partial.head.len() - partial.scan.line_at + taken > longest {
                return Err(LINE_TOO_LONG);
            }
            partial.head.extend_from_slice(piece);
            *input = rest;
            match partial.scan.advance(&partial.head, bounds)? {
                None => {}
                // A carriage return and a line feed between frames, cut in the middle.
                Some(0) => {
                    self.partial = None;
                    return self.begin(input, bounds);
                }
                Some(_) => partial.is_in_body = true,
            }
        }
        if !partial.take_body(input, bounds)? {
            return Ok(None);
        }
        let Some(partial) = self.partial.take() else { return Ok(None) };
        let Partial { head, mut body, scan, .. } = *partial;
        let head = String::from_utf8(head).map_err(|_| NOT_UTF_8)?;
        // Spare capacity would live as long as the body does.
        body.shrink_to_fit();
        Ok(Some(Frame { head: Cow::Owned(head), headers_at: scan.headers_at, body: body.into() }))
    }
}

const LINE_END_BYTES: usize = 2;
const COMMAND_TOO_LONG: Wrong = (CloseReason::BadRequest, "the command is too long");
const NOT_UTF_8: Wrong = (CloseReason::BadRequest, "the head of a frame is not UTF-8");
const HEAD_TOO_BIG: Wrong = (CloseReason::MessageTooBig, "the head of a frame is too long");
const LINE_TOO_LONG: Wrong = (CloseReason::MessageTooBig, "a header line is too long");
const BODY_TOO_BIG: Wrong = (CloseReason::MessageTooBig, "the body of a frame is too long");
const NO_NUL: Wrong =
    (CloseReason::BadRequest, "no NUL follows the body: content-length says less or more than there is");

/// Leaves out what may stand between frames: heartbeats, and what clients send that miscount.
fn skip_between(mut input: &[u8]) -> &[u8] {
    loop {
        input = match input {
            [b'\n' | 0, rest @ ..] | [b'\r', b'\n', rest @ ..] => rest,
            _ => return input,
        };
    }
}

impl Partial {
    /// Takes what is there of the body; false if more is needed.
    fn take_body(&mut self, input: &mut &[u8], bounds: &Bounds) -> Result<bool, Wrong> {
        let head_len = self.head.len();
        let Some(len) = self.scan.body_len else {
            let end = memchr(0, input);
            let piece = &input[..end.unwrap_or(input.len())];
            check_body(self.body.len() + piece.len(), head_len, bounds)?;
            self.body.extend_from_slice(piece);
            *input = &input[end.map_or(piece.len(), |end| end + 1)..];
            return Ok(end.is_some());
        };
        check_body(len, head_len, bounds)?;
        let missing = len - self.body.len();
        let (piece, rest) = input.split_at(missing.min(input.len()));
        if self.body.capacity() - self.body.len() < piece.len() {
            // Double what came, but never more than what is to come.
            self.body.reserve_exact(missing.min(piece.len() + self.body.len()));
        }
        self.body.extend_from_slice(piece);
        *input = rest;
        match input.split_first() {
            None => Ok(false),
            Some((0, rest)) => {
                *input = rest;
                Ok(true)
            }
            Some(_) => Err(NO_NUL),
        }
    }
}

fn check_body(len: usize, head_len: usize, bounds: &Bounds) -> Result<(), Wrong> {
    let is_allowed = len <= bounds.max_body_bytes && head_len.saturating_add(len) <= bounds.max_frame_bytes;
    if is_allowed { Ok(()) } else { Err(BODY_TOO_BIG) }
}

impl Scan {
    /// Looks at what was not looked at yet of a head; its length with the empty line, once that is there. A length of 0
    /// says that there was an empty line and no frame.
    fn advance(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Option<usize>, Wrong> {
        let max_head_bytes = bounds.max_head_bytes.min(bounds.max_frame_bytes);
        loop {
            let Some(found) = memchr2(b'\n', 0, &bytes[self.seen..]) else {
                self.seen = bytes.len();
                self.check_line(bytes.len() - self.line_at, bounds)?;
                return if bytes.len() > max_head_bytes { Err(HEAD_TOO_BIG) } else { Ok(None) };
            };
            let end = self.seen + found;
            if bytes[end] == 0 {
                return Err((
                    CloseReason::BadRequest,
                    "a frame ends within its head: the empty line is missing",
                ));
            }
            self.seen = end + 1;
            if self.seen > max_head_bytes {
                return Err(HEAD_TOO_BIG);
            }
            let line = without_cr(&bytes[self.line_at..end]);
            self.check_line(line.len(), bounds)?;
            self.line_at = self.seen;
            if self.headers_at == 0 {
                if line.is_empty() {
                    return Ok(Some(0));
                }
                if line.len() > MAX_COMMAND_BYTES {
                    return Err(COMMAND_TOO_LONG);
                }
                self.headers_at = self.seen;
            } else if line.is_empty() {
                return Ok(Some(self.seen));
            } else {
                self.take_header(line, bounds)?;
            }
        }
    }

    fn check_line(&self, len: usize, bounds: &Bounds) -> Result<(), Wrong> {
        match self.headers_at {
            // A carriage return may belong to the end of the line.
            0 if len > MAX_COMMAND_BYTES + 1 => Err(COMMAND_TOO_LONG),
            0 => Ok(()),
            _ if len > bounds.max_line_bytes + 1 => Err(LINE_TOO_LONG),
            _ => Ok(()),
        }
    }

    fn take_header(&mut self, line: &[u8], bounds: &Bounds) -> Result<(), Wrong> {
        self.headers += 1;
        if self.headers > bounds.max_headers {
            return Err((CloseReason::MessageTooBig, "a frame has too many headers"));
        }
        if line.len() > bounds.max_line_bytes {
            return Err(LINE_TOO_LONG);
        }
        match memchr(b':', line) {
            None => return Err((CloseReason::BadRequest, "a header line has no colon")),
            Some(0) => return Err((CloseReason::BadRequest, "a header has no name")),
            Some(_) => {}
        }
        if let Some(value) = line.strip_prefix(b"content-length:")
            && self.body_len.is_none()
        {
            let value = value.trim_ascii();
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err((CloseReason::BadRequest, "content-length is no number"));
            }
            let len = value
                .iter()
                .fold(0usize, |len, digit| len.saturating_mul(10).saturating_add(usize::from(digit - b'0')));
            check_body(len, 0, bounds)?;
            self.body_len = Some(len);
        }
        Ok(())
    }

    /// The body at the front of `bytes`; `None` if it is not there whole.
    fn body<'a>(
        &self,
        bytes: &'a [u8],
        head_len: usize,
        bounds: &Bounds,
    ) -> Result<Option<Parted<'a>>, Wrong> {
        let len = match self.body_len {
            Some(len) => len,
            None => match memchr(0, bytes) {
                Some(len) => len,
                None => return Ok(None),
            },
        };
        check_body(len, head_len, bounds)?;
        match bytes.get(len) {
            None => Ok(None),
            Some(0) => Ok(Some((&bytes[..len], &bytes[len + 1..]))),
            Some(_) => Err(NO_NUL),
        }
    }
}

/// A body, and what follows its NUL.
type Parted<'a> = (&'a [u8], &'a [u8]);

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

impl Frame<'_> {
    /// The command.
    pub fn command(&self) -> &str {
        let line = self.head[..self.headers_at].trim_end_matches('\n');
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// Command and headers as they came.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Names and values in their order, with their escapes. In 1.0 blanks before a value do not belong to it.
    pub fn headers(&self, version: Version) -> Headers<'_> {
        Headers { rest: &self.head[self.headers_at..], version }
    }

    /// Whether all headers keep the rules of a version that [`decode`](Decoder::decode) does not know of.
    ///
    /// # Errors
    /// The rule.
    pub fn check(&self, version: Version) -> Result<(), &'static str> {
        let lines = &self.head.as_bytes()[self.headers_at..];
        if version == Version::V12 {
            // A carriage return is part of the end of a line, or escaped.
            let mut crs = memchr::memchr_iter(b'\r', lines);
            if crs.any(|at| lines.get(at + 1) != Some(&b'\n')) {
                return Err("a carriage return stands within a header line");
            }
        }
        if version == Version::V10 || memchr(b'\\', lines).is_none() {
            return Ok(());
        }
        for (name, value) in self.headers(version) {
            unescape(version, name)?;
            unescape(version, value)?;
        }
        Ok(())
    }
}

/// Names and values of a frame, in their order.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a str,
    version: Version,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let end = memchr(b'\n', self.rest.as_bytes())?;
        let line = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        let line = line.strip_suffix('\r').unwrap_or(line);
        // The empty line at the end has none.
        let colon = memchr(b':', line.as_bytes())?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        Some((name, if self.version == Version::V10 { value.trim_start_matches([' ', '\t']) } else { value }))
    }
}

/// Takes the escapes of a version back. CONNECT and CONNECTED have none in any.
///
/// # Errors
/// An escape that the version does not have.
pub fn unescape(version: Version, text: &str) -> Result<Cow<'_, str>, &'static str> {
    if version == Version::V10 || memchr(b'\\', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr(b'\\', rest.as_bytes()) {
        plain.push_str(&rest[..at]);
        plain.push(match rest.as_bytes().get(at + 1) {
            Some(b'n') => '\n',
            Some(b'c') => ':',
            Some(b'\\') => '\\',
            Some(b'r') if version == Version::V12 => '\r',
            _ => return Err("a header has an escape that the version does not have"),
        });
        rest = &rest[at + 2..];
    }
    plain.push_str(rest);
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Read = (String, Vec<(String, String)>, Bytes);

    fn small() -> Bounds {
        Bounds {
            max_line_bytes: 40,
            max_headers: 4,
            max_head_bytes: 100,
            max_body_bytes: 50,
            max_frame_bytes: usize::MAX,
        }
    }

    /// All frames of a stream that comes in pieces of these lengths, over and over, and how it ends.
    fn read(bytes: &[u8], pieces: &[usize], bounds: &Bounds) -> (Vec<Read>, Option<&'static str>) {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        let mut rest = bytes;
        for len in pieces.iter().cycle() {
            if rest.is_empty() {
                return (frames, None);
            }
            let (mut piece, after) = rest.split_at((*len).clamp(1, rest.len()));
            rest = after;
            loop {
                match decoder.decode(&mut piece, bounds) {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
                        let headers = frame.headers(Version::V12).map(owned).collect();
                        frames.push((frame.command().to_owned(), headers, frame.body));
                    }
                    Err(violation) => return (frames, Some(violation.what)),
                }
            }
            assert!(piece.is_empty());
        }
        unreachable!("the pieces never end")
    }

    fn one(text: &str) -> Result<Read, &'static str> {
        let (mut frames, end) = read(text.as_bytes(), &[text.len()], &small());
        let again = read(text.as_bytes(), &[1], &small());
        assert_eq!(again, (frames.clone(), end), "byte by byte it is something else: {text:?}");
        match end {
            Some(what) => Err(what),
            None => Ok(frames.pop().expect("a frame")),
        }
    }

    fn frame(command: &str, headers: &[(&str, &str)], body: &str) -> Read {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        (command.to_owned(), headers.collect(), Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn frames_are_read_with_all_that_may_stand_around_them() {
        for (text, expected) in [
            ("SEND\na:b\n\nbody\0", frame("SEND", &[("a", "b")], "body")),
            ("SEND\r\na:b\r\n\r\nbody\0\r\n\n", frame("SEND", &[("a", "b")], "body")),
            ("\n\r\n\0\nSEND\n\n\0", frame("SEND", &[], "")),
            ("SEND\na:b:c\nd:\n\n\0", frame("SEND", &[("a", "b:c"), ("d", "")], "")),
            ("SEND\ncontent-length:3\n\n\0\0\0\0", frame("SEND", &[("content-length", "3")], "\0\0\0")),
            ("SEND\ncontent-length:0\n\n\0", frame("SEND", &[("content-length", "0")], "")),
            (
                "SEND\ncontent-length:1\ncontent-length:9\n\nx\0",
                frame("SEND", &[("content-length", "1"), ("content-length", "9")], "x"),
            ),
            ("BEGIN\na: b \n\nignored\0", frame("BEGIN", &[("a", " b ")], "ignored")),
        ] {
            assert_eq!(one(text), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_at_once_and_for_good() {
        let long = |n: usize| "x".repeat(n);
        for (text, what) in [
            ("SEND\nno colon\n", "a header line has no colon"),
            ("SEND\n:value\n", "a header has no name"),
            ("SEND\na:b\0", "a frame ends within its head: the empty line is missing"),
            ("SEND\0", "a frame ends within its head: the empty line is missing"),
            ("SEND\ncontent-length:-1\n", "content-length is no number"),
            ("SEND\ncontent-length:\n", "content-length is no number"),
            ("SEND\ncontent-length:0x1\n", "content-length is no number"),
            ("SEND\ncontent-length:51\n", "the body of a frame is too long"),
            ("SEND\ncontent-length:99999999999999999999999\n", "the body of a frame is too long"),
            ("SEND\ncontent-length:2\n\nabc\0", NO_NUL.1),
            ("SEND\ncontent-length:4\n\nabc\0\n", NO_NUL.1),
            (&format!("SEND\n\n{}", long(51)), "the body of a frame is too long"),
            (&long(34), "the command is too long"),
            (&format!("SEND\na:{}", long(41)), "a header line is too long"),
            ("SEND\na:\nb:\nc:\nd:\ne:\n", "a frame has too many headers"),
            (&format!("SEND\na:{0}\nb:{0}\nc:{0}\n", long(35)), "the head of a frame is too long"),
            ("SEND\n\u{0}", "a frame ends within its head: the empty line is missing"),
        ] {
            assert_eq!(one(text), Err(what), "{text:?}");
        }
        let (frames, end) = read(b"SEND\na:\xff\n\n\0SEND\n\n\0", &[99], &small());
        assert_eq!((frames.len(), end), (0, Some("the head of a frame is not UTF-8")));
        let mut decoder = Decoder::default();
        assert!(decoder.decode(&mut &b"SEND\nno\n"[..], &small()).is_err());
        assert_eq!(decoder.decode(&mut &b"SEND\n\n\0"[..], &small()), Ok(None));
    }

    #[test]
    fn a_violation_shows_the_frame_and_nothing_of_those_before() {
        for pieces in [1, 1000] {
            let mut decoder = Decoder::default();
            let bytes = b"SEND\n\n\0\n\nACK\nid:7\nwrong\n";
            let violation = bytes.chunks(pieces).find_map(|mut piece| {
                loop {
                    match decoder.decode(&mut piece, &small()) {
                        Ok(Some(_)) => {}
                        Ok(None) => return None,
                        Err(violation) => return Some(violation),
                    }
                }
            });
            assert_eq!(violation.expect("no colon").head, b"ACK\nid:7\nwrong\n");
        }
    }

    #[test]
    fn the_first_frame_has_a_bound_for_all_of_it() {
        let bounds = Bounds { max_frame_bytes: 30, ..small() };
        let of = |text: &str| read(text.as_bytes(), &[7], &bounds).1;
        assert_eq!(of("CONNECT\na:b\n\n12345678901234567\0"), None);
        assert_eq!(of("CONNECT\na:b\n\n123456789012345678\0"), Some(BODY_TOO_BIG.1));
        assert_eq!(of("CONNECT\nab:b\ncontent-length:6\n\n"), Some(HEAD_TOO_BIG.1));
    }

    #[test]
    fn a_buffer_grows_with_what_came_and_not_with_what_was_announced() {
        let bounds = Bounds::of(&Limits::default());
        let mut decoder = Decoder::default();
        let mut head = &b"SEND\ncontent-length:16777216\n\n"[..];
        assert_eq!(decoder.decode(&mut head, &bounds), Ok(None));
        for received in 1..5000usize {
            assert_eq!(decoder.decode(&mut &b"x"[..], &bounds), Ok(None));
            let capacity = decoder.partial.as_ref().map_or(0, |partial| partial.body.capacity());
            assert!(capacity <= 2 * received.max(32), "{capacity} after {received}");
        }
        let mut endless = Decoder::default();
        assert_eq!(endless.decode(&mut &b"SEND\n\n"[..], &bounds), Ok(None));
        let chunk = vec![b'x'; 1 << 20];
        let refused = (0..=16).find(|_| endless.decode(&mut &chunk[..], &bounds).is_err());
        assert_eq!(refused, Some(16), "the seventeenth megabyte is too much");
        assert!(endless.is_idle(), "what is refused is not kept");
    }

    #[test]
    fn nothing_is_kept_between_frames() {
        let mut decoder = Decoder::default();
        for piece in [&b"SEND\n"[..], b"\nbo", b"dy\0\n\r", b"\nSEND\n\n\0", b"\r\n\n"] {
            let mut input = piece;
            while decoder.decode(&mut input, &small()).expect("good").is_some() {}
        }
        assert!(decoder.is_idle());
    }

    #[test]
    fn escapes_are_those_of_the_version() {
        for (text, meant) in [
            ("plain", [Ok("plain"); 3]),
            ("a\\nb\\cc\\\\d", [Ok("a\\nb\\cc\\\\d"), Ok("a\nb:c\\d"), Ok("a\nb:c\\d")]),
            ("C:\\new\\rest", [Ok("C:\\new\\rest"), Err(()), Ok("C:\new\rest")]),
            ("\\t", [Ok("\\t"), Err(()), Err(())]),
            ("end\\", [Ok("end\\"), Err(()), Err(())]),
            ("\\\\n", [Ok("\\\\n"), Ok("\\n"), Ok("\\n")]),
        ] {
            for (version, meant) in Version::ALL.into_iter().zip(meant) {
                let read = unescape(version, text);
                assert_eq!(read.as_deref().map_err(|_| ()), meant, "{text:?} in {version:?}");
            }
        }
    }

    #[test]
    fn rules_of_a_version_hold_for_headers_that_nobody_reads() {
        let check = |version, head: &str| {
            let text = format!("SEND\n{head}\n\n\0");
            let frame = Decoder::default()
                .decode(&mut text.as_bytes(), &small())
                .map(|frame| frame.expect("a frame").check(version));
            frame.expect("decodes")
        };
        assert_eq!(check(Version::V10, "x:\\t\ry"), Ok(()));
        assert!(check(Version::V11, "x:\\t").is_err() && check(Version::V12, "x\\t:").is_err());
        assert_eq!(check(Version::V11, "x:a\rb"), Ok(()));
        assert!(check(Version::V12, "x:a\rb").is_err());
        assert_eq!(check(Version::V12, "x:a\r"), Ok(()));
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_changes_nothing(
            parts in prop::collection::vec(prop::sample::select(vec![
                "SEND\n", "\n", "\r\n", "a:b\n", "a:b\r\n", "content-length:2\n", "\0", "xy", "x", "\n\n", "ACK\n", ":",
            ]), 0..24),
            pieces in prop::collection::vec(1usize..9, 1..6),
        ) {
            let bytes = parts.concat().into_bytes();
            let whole = read(&bytes, &[usize::MAX], &small());
            prop_assert_eq!(&read(&bytes, &pieces, &small()), &whole);
            prop_assert_eq!(&read(&bytes, &[1], &small()), &whole);
        }
    }
}
