//! Promises of `http::body`.
//!
//! However a body is cut, it is the one that a second, simple reading of the whole finds, and what follows it is left;
//! it never has more than its limit; what was written in chunks is read.

use crate::input::{Input, pieces};
use longwire_protocol::http::body::{BodyDecoder, ResponseBody};

/// Decides the kind, the limit and the cuts with its first bytes; the rest is what the peer sends, then what is written.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte() % 3;
    let max = input.choose(&[1 << 20, 1000, 20, 3, 0]);
    let seed = u64::from(input.short());
    let body = match kind {
        0 => ResponseBody::Chunked,
        1 => ResponseBody::UntilClose,
        _ => ResponseBody::Length(input.number() % 2000),
    };
    let bytes = input.rest();
    let simple = simple(body, max, bytes);
    for cuts in [0, seed, seed ^ 0xffff] {
        let all: Vec<&[u8]> = if cuts == 0 { vec![bytes] } else { pieces(bytes, cuts).collect() };
        assert_eq!(decoded(body, max, &all), simple, "cut with {cuts}");
    }
    written(bytes, seed);
}

/// The body and what is left behind it; `None` if it is refused or cut off.
type Read = Option<(Vec<u8>, Vec<u8>)>;

fn decoded(body: ResponseBody, max: u64, pieces: &[&[u8]]) -> Read {
    let mut decoder = BodyDecoder::new(body, max).ok()?;
    let (mut content, mut left) = (Vec::new(), Vec::new());
    for mut piece in pieces.iter().copied() {
        while let Some(part) = decoder.decode(&mut piece).ok()? {
            assert!(!part.is_empty(), "a piece of nothing");
            content.extend_from_slice(part);
            assert!(content.len() as u64 <= max, "more than the limit");
        }
        assert!(piece.is_empty() || decoder.is_complete(), "bytes that nobody took");
        left.extend_from_slice(piece);
    }
    decoder.handle_end().ok()?;
    Some((content, left))
}

fn simple(body: ResponseBody, max: u64, bytes: &[u8]) -> Read {
    let content = match body {
        ResponseBody::Empty => return Some((Vec::new(), bytes.to_vec())),
        ResponseBody::UntilClose => (bytes.to_vec(), Vec::new()),
        ResponseBody::Length(length) => {
            let (content, left) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
            (content.to_vec(), left.to_vec())
        }
        ResponseBody::Chunked => chunks(bytes)?,
    };
    (content.0.len() as u64 <= max).then_some(content)
}

fn chunks(mut rest: &[u8]) -> Read {
    let mut content = Vec::new();
    loop {
        let line = line(&mut rest)?;
        // With its end.
        if line.len() + 2 > 4096 {
            return None;
        }
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 || !matches!(line.get(digits), None | Some(b';' | b' ' | b'\t')) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    let trailer = rest.len();
    while !line(&mut rest)?.is_empty() {}
    (trailer - rest.len() <= 16 * 1024).then(|| (content, rest.to_vec()))
}

/// Takes a line, which has no other line end within.
fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let line = &rest[..end];
    *rest = rest[end..].strip_prefix(b"\r\n")?;
    Some(line)
}

/// Sends the data in chunks, and reads it.
fn written(bytes: &[u8], seed: u64) {
    let mut wire = Vec::new();
    for chunk in pieces(bytes, seed) {
        wire.extend_from_slice(format!("{:X}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\nrest");
    let read = decoded(ResponseBody::Chunked, bytes.len() as u64, &pieces(&wire, !seed).collect::<Vec<_>>());
    assert_eq!(read, Some((bytes.to_vec(), b"rest".to_vec())), "written and read");
}
