//! Promises of `stomp::decode` and `stomp::encode`.
//!
//! However a stream is cut, it is the frames that a second, simple reading of the whole finds, and ends where that ends;
//! nothing passes a limit, nothing follows a refusal, between frames nothing is kept. A header that is written by a
//! version's rules is read as what it was, and is one line, whatever is in it.

use crate::input::{Input, pieces};
use bytes::Bytes;
use longwire_protocol::stomp::decode::{Bounds, Decoder, unescape};
use longwire_protocol::stomp::encode::write_header;
use longwire_protocol::stomp::{Limits, Version};

/// Takes the data as limits and cuts, then as the stream, then as headers to write.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = Limits {
        max_line_bytes: usize::from(input.byte()) + 1,
        max_headers: usize::from(input.byte() % 16) + 1,
        max_head_bytes: usize::from(input.short() % 1024) + 2,
        max_body_bytes: usize::from(input.short() % 1024),
        ..Limits::default()
    };
    let seed = input.number();
    let texts = input.clone();
    let stream = input.rest();
    let expected = simple(stream, &limits);
    assert_eq!(read([stream], &limits), expected, "in one piece");
    assert_eq!(read(pieces(stream, seed), &limits), expected, "cut by {seed}");
    assert_eq!(read(stream.chunks(1), &limits), expected, "byte by byte");
    written(texts);
}

/// Frames, a head and a body each, and whether something was refused.
type Read = (Vec<(String, Bytes)>, bool);

fn read<'a>(stream: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Read {
    let bounds = Bounds::of(limits);
    let mut decoder = Decoder::default();
    let (mut frames, mut is_refused) = (Vec::new(), false);
    for mut piece in stream {
        loop {
            let before = piece.len();
            match decoder.decode(&mut piece, &bounds) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(!is_refused, "a frame after a refusal");
                    assert!(piece.len() < before, "a frame of no bytes");
                    for version in Version::ALL {
                        let is_good = frame.check(version).is_ok();
                        for (name, value) in frame.headers(version).filter(|_| is_good) {
                            assert!(unescape(version, name).is_ok() && unescape(version, value).is_ok());
                        }
                    }
                    frames.push((frame.head().to_owned(), frame.body.clone()));
                }
                Err(violation) => {
                    assert!(!is_refused && violation.head.len() <= 1024, "{violation}");
                    is_refused = true;
                }
            }
        }
        assert!(piece.is_empty(), "something is left of a piece");
    }
    assert!(!is_refused || decoder.is_idle(), "what was refused is kept");
    (frames, is_refused)
}

/// The same by looking at everything from its beginning.
fn simple(mut rest: &[u8], limits: &Limits) -> Read {
    let mut frames = Vec::new();
    loop {
        while let Some(after) = [&b"\n"[..], b"\r\n", b"\0"].iter().find_map(|gap| rest.strip_prefix(*gap)) {
            rest = after;
        }
        match simple_frame(rest, limits) {
            Ok(Some((frame, len))) => {
                frames.push(frame);
                rest = &rest[len..];
            }
            Ok(None) => return (frames, false),
            Err(()) => return (frames, true),
        }
    }
}

/// Head and body of a frame.
type Simple = (String, Bytes);

/// The frame at the front, and how long it is.
fn simple_frame(bytes: &[u8], limits: &Limits) -> Result<Option<(Simple, usize)>, ()> {
    let (mut at, mut lines, mut len) = (0, 0, None);
    loop {
        let rest = &bytes[at..];
        let end = rest.iter().position(|byte| matches!(byte, 0 | b'\n'));
        let line = &rest[..end.unwrap_or(rest.len())];
        let line_len = line.strip_suffix(b"\r").unwrap_or(line).len();
        // A carriage return that is the last so far may belong to the end of the line.
        let max = if lines == 0 { 32 } else { limits.max_line_bytes };
        let longest = if end.is_some() { max } else { max + 1 };
        let seen = if end.is_some() { line_len } else { line.len() };
        if end.is_some_and(|end| rest[end] == 0) {
            return Err(());
        }
        let is_empty = end.is_some() && line_len == 0;
        if seen > longest || at + end.map_or(line.len(), |end| end + 1) > limits.max_head_bytes {
            return Err(());
        }
        let Some(end) = end else { return Ok(None) };
        at += end + 1;
        if is_empty {
            break;
        }
        if lines > 0 {
            let line = &line[..line_len];
            let colon = line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0).ok_or(())?;
            if lines > limits.max_headers {
                return Err(());
            }
            if &line[..colon] == b"content-length" && len.is_none() {
                let digits = std::str::from_utf8(line[colon + 1..].trim_ascii()).map_err(drop)?;
                if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                    return Err(());
                }
                len = Some(digits.trim_start_matches('0').parse().or(
                    match digits.trim_start_matches('0') {
                        "" => Ok(0usize),
                        _ => Err(()),
                    },
                )?);
                if len > Some(limits.max_body_bytes) {
                    return Err(());
                }
            }
        }
        lines += 1;
    }
    let body = &bytes[at..];
    let body_len = match len {
        Some(len) => len,
        None => match body.iter().position(|byte| *byte == 0) {
            Some(len) => len,
            None if body.len() > limits.max_body_bytes => return Err(()),
            None => return Ok(None),
        },
    };
    if body_len > limits.max_body_bytes {
        return Err(());
    }
    match body.get(body_len) {
        None => Ok(None),
        Some(0) => {
            let head = std::str::from_utf8(&bytes[..at]).map_err(drop)?.to_owned();
            Ok(Some(((head, Bytes::copy_from_slice(&body[..body_len])), at + body_len + 1)))
        }
        Some(_) => Err(()),
    }
}

/// Takes the data as headers, and reads what is written of them.
fn written(mut input: Input<'_>) {
    let mut headers = Vec::new();
    while !input.is_empty() && headers.len() < 16 {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "");
        let name = text(input.bytes(40));
        // The length of the body is the frame's own.
        let is_free = !name.is_empty() && name != "content-length";
        headers.push((if is_free { name } else { "x".to_owned() }, text(input.bytes(40))));
    }
    for version in Version::ALL {
        let mut bytes = b"MESSAGE\n".to_vec();
        for (name, value) in &headers {
            write_header(version, name, value, &mut bytes);
        }
        bytes.extend_from_slice(b"\n\0");
        let mut rest = &bytes[..];
        let bounds = Bounds::of(&Limits::default());
        let frame =
            Decoder::default().decode(&mut rest, &bounds).expect("our own frame").expect("it is whole");
        assert!(rest.is_empty(), "headers ended their frame early");
        // In 1.0 and 1.1 a carriage return at the end of a line is not told from the line's end.
        let is_told = |value: &str| version == Version::V12 || !value.ends_with('\r');
        let read: Vec<(String, String)> = frame
            .headers(if version == Version::V10 { Version::V11 } else { version })
            .map(|(name, value)| match version {
                Version::V10 => (name.to_owned(), value.to_owned()),
                _ => {
                    let plain = |text| unescape(version, text).expect("our own escapes").into_owned();
                    (plain(name), plain(value))
                }
            })
            .collect();
        if version == Version::V10 {
            let is_written = |name: &str| !name.contains([':', '\n', '\r']);
            let expected = headers.iter().filter(|(name, _)| is_written(name));
            let expected: Vec<_> =
                expected.map(|(name, value)| (name.clone(), value.replace(['\n', '\r'], " "))).collect();
            assert_eq!(read, expected);
        } else if headers.iter().all(|(_, value)| is_told(value)) {
            assert_eq!(read, headers);
        }
        assert!(version == Version::V11 || frame.check(version).is_ok(), "what was written breaks a rule");
    }
}
