//! Frames to send, and headers from one version's escapes to another's.
//!
//! What is kept of headers is a block with the escapes of 1.2 (see [`crate::queue::Headers`]); it goes out as it is to
//! whoever speaks 1.2, and, where it holds no escape, to all. What must stay true: whatever a sender wrote, a receiver
//! finds no header that the sender did not write, and no line feed ends one early, not even in 1.0, which has no escapes.

use super::Version;
use crate::message::{Publication, Push};
use crate::position::Position;
use crate::queue::{self, is_frame_header};
use bytes::Bytes;
use memchr::{memchr, memchr_iter, memchr2, memchr3};

/// The form in which a connection wants what it shares with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Style {
    /// By which version's rules headers are written.
    pub version: Version,
}

/// The first header of a shared part whose publication has a position. Others each connection numbers by itself.
pub(crate) const SHARED_ID: &[u8] = b"message-id:";

impl Style {
    /// Makes the part of a MESSAGE that is the same for all subscriptions of a channel: what follows its destination,
    /// the line feed behind the frame included. Empty where there is nothing to say.
    pub(crate) fn shared(self, push: &Push, position: Option<Position>) -> Bytes {
        match push {
            Push::Publication(publication) | Push::Delta { publication, .. } => {
                self.publication(publication, position)
            }
            Push::Message { data, .. } => {
                let mut out = Vec::with_capacity(data.len() + 40);
                write_body(data, &mut out);
                out.push(b'\n');
                out.into()
            }
            // Who came and who went is nothing that a MESSAGE says.
            _ => Bytes::new(),
        }
    }

    fn publication(self, publication: &Publication, position: Option<Position>) -> Bytes {
        let tags: usize = publication.tags.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        let mut out = Vec::with_capacity(publication.data.len() + tags + 128);
        if let Some(Position { offset, epoch }) = position {
            out.extend_from_slice(SHARED_ID);
            out.extend_from_slice(b"t-");
            out.extend_from_slice(epoch.as_str().as_bytes());
            out.push(b'-');
            write_decimal(offset, &mut out);
            out.extend_from_slice(b"\noffset:");
            write_decimal(offset, &mut out);
            out.extend_from_slice(b"\nepoch:");
            out.extend_from_slice(epoch.as_str().as_bytes());
            out.push(b'\n');
        }
        for (name, value) in &publication.tags {
            // SDKs may tag with any name.
            if !is_frame_header(name) && !is_position_header(name) {
                write_header(self.version, name, value, &mut out);
            }
        }
        write_body(&publication.data, &mut out);
        out.push(b'\n');
        out.into()
    }
}

/// Whether a header of a MESSAGE from a channel is the server's.
pub(crate) fn is_position_header(name: &str) -> bool {
    matches!(name, "offset" | "epoch" | "recovered")
}

/// Whether a block has a header of this name, which is given with its colon.
pub(crate) fn has_header(headers: &queue::Headers, name: &[u8]) -> bool {
    let block = headers.as_bytes();
    block.starts_with(name) || memchr_iter(b'\n', block).any(|at| block[at + 1..].starts_with(name))
}

/// Writes the last header, the empty line, the body and what ends it.
pub(crate) fn write_body(body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length:");
    write_decimal(body.len() as u64, out);
    out.extend_from_slice(b"\n\n");
    out.extend_from_slice(body);
    out.push(0);
}

/// Writes a header. In 1.0, which has no escapes, a name that would need one is left out and a line break in a value
/// becomes a blank.
pub fn write_header(version: Version, name: &str, value: &str, out: &mut Vec<u8>) {
    if version == Version::V10
        && (name.is_empty() || name.bytes().any(|byte| matches!(byte, b':' | b'\n' | b'\r')))
    {
        return;
    }
    write_escaped(version, name, out);
    out.push(b':');
    write_escaped(version, value, out);
    out.push(b'\n');
}

/// Writes a name or a value by the rules of a version.
pub(crate) fn write_escaped(version: Version, text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    if memchr(0, bytes).is_some() {
        // Whoever does not count would end the frame there; no sender of STOMP can have written it.
        return write_escaped(version, &text.replace('\0', "\u{fffd}"), out);
    }
    let is_plain = match version {
        Version::V10 => memchr2(b'\n', b'\r', bytes).is_none(),
        _ => memchr3(b'\n', b':', b'\\', bytes).is_none() && memchr(b'\r', bytes).is_none(),
    };
    if is_plain {
        return out.extend_from_slice(bytes);
    }
    match version {
        Version::V12 => queue::escape(text, out),
        // In 1.1 a carriage return is as any other octet.
        Version::V11 => {
            for byte in text.bytes() {
                match byte {
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b':' => out.extend_from_slice(b"\\c"),
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    byte => out.push(byte),
                }
            }
        }
        Version::V10 => {
            out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }))
        }
    }
}

/// Writes a block of headers by the rules of a version.
pub(crate) fn write_block(version: Version, headers: &queue::Headers, out: &mut Vec<u8>) {
    let block = headers.as_bytes();
    let is_same = match version {
        Version::V12 => memchr(0, block).is_none(),
        _ => memchr2(0, b'\\', block).is_none(),
    };
    if is_same {
        return out.extend_from_slice(block);
    }
    for (name, value) in headers.iter() {
        write_header(version, &name, &value, out);
    }
}

/// Appends a header as it came in a frame to a block with the escapes of 1.2. Its escapes were [checked]
/// (super::decode::Frame::check).
pub(crate) fn append_to_block(version: Version, name: &str, value: &str, block: &mut Vec<u8>) {
    append_part(version, name, block);
    block.push(b':');
    append_part(version, value, block);
    block.push(b'\n');
}

fn append_part(version: Version, text: &str, block: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let is_same = match version {
        // What has a backslash has an escape, which is the same in 1.2.
        Version::V11 | Version::V12 => memchr2(b':', b'\r', bytes).is_none(),
        Version::V10 => memchr3(b':', b'\r', b'\\', bytes).is_none(),
    };
    if is_same {
        return block.extend_from_slice(bytes);
    }
    for byte in text.bytes() {
        match byte {
            b'\r' => block.extend_from_slice(b"\\r"),
            b':' => block.extend_from_slice(b"\\c"),
            b'\\' if version == Version::V10 => block.extend_from_slice(b"\\\\"),
            byte => block.push(byte),
        }
    }
}

/// Writes a number.
pub(crate) fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// What an ERROR says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ErrorFrame<'a> {
    /// In one line.
    pub(crate) message: &'a str,
    /// The frame that it answers, if that wanted a receipt.
    pub(crate) receipt: Option<&'a str>,
    /// What versions there are, if none is in common.
    pub(crate) versions: bool,
    /// For whoever reads logs.
    pub(crate) detail: &'a str,
}

/// Writes an ERROR.
pub(crate) fn write_error(version: Version, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"ERROR\n");
    write_header(version, "message", error.message, out);
    if let Some(receipt) = error.receipt {
        write_header(version, "receipt-id", receipt, out);
    }
    if error.versions {
        out.extend_from_slice(b"version:1.0,1.1,1.2\n");
    }
    out.extend_from_slice(b"content-type:text/plain\n");
    // Text has no NUL: a client that does not count would stop there.
    let detail = error.detail.replace('\0', "\u{fffd}");
    write_body(detail.as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Headers;
    use crate::stomp::decode::unescape;
    use proptest::prelude::*;

    fn block(version: Version, headers: &Headers) -> String {
        let mut out = Vec::new();
        write_block(version, headers, &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_header_goes_from_each_version_to_each() {
        let headers = Headers::of([("plain", "as it is"), ("hard", "a:b\\c\nd\re")]);
        assert_eq!(block(Version::V12, &headers), "plain:as it is\nhard:a\\cb\\\\c\\nd\\re\n");
        assert_eq!(block(Version::V11, &headers), "plain:as it is\nhard:a\\cb\\\\c\\nd\re\n");
        assert_eq!(block(Version::V10, &headers), "plain:as it is\nhard:a:b\\c d e\n");
    }

    #[test]
    fn nobody_injects_a_header_into_a_client_of_the_first_version() {
        let headers = Headers::of([("a", "x\ninjected:yes"), ("b:c", "x"), ("d\ne", "x")]);
        assert_eq!(block(Version::V10, &headers), "a:x injected:yes\n");
    }

    #[test]
    fn no_header_ends_its_frame_early() {
        let headers = Headers::of([("a", "x\0y")]);
        for version in Version::ALL {
            assert_eq!(block(version, &headers), "a:x\u{fffd}y\n");
        }
    }

    #[test]
    fn a_reserved_tag_of_an_sdk_is_not_a_header() {
        let tags = ["ack", "content-type", "epoch", "message-id", "subscription"];
        let tags = tags.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let publication =
            Publication { offset: 0, data: "{}".into(), info: None, tags, except: None, is_json: true };
        let shared = Style { version: Version::V12 }.publication(&publication, None);
        assert_eq!(shared, "content-type:x\ncontent-length:2\n\n{}\0\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in any::<String>()) {
            for version in [Version::V11, Version::V12] {
                let mut out = Vec::new();
                write_escaped(version, &text, &mut out);
                let written = String::from_utf8(out).expect("text");
                prop_assert!(!written.contains(['\n', ':']));
                prop_assert_eq!(&*unescape(version, &written).expect("our own escapes"), &text);
            }
        }

        #[test]
        fn what_came_in_any_version_is_the_same_in_the_block(
            name in "[^:\\\\\r\n\u{0}]{1,8}", value in "[^\n]{0,12}",
        ) {
            for version in Version::ALL {
                if let Ok(meant) = unescape(version, &value) {
                    let mut block = Vec::new();
                    append_to_block(version, &name, &value, &mut block);
                    let headers = Headers::from_block(block.into());
                    let read: Vec<_> = headers.iter().collect();
                    prop_assert_eq!(read, [((&*name).into(), meant)]);
                }
            }
        }

        #[test]
        fn numbers_are_written_as_everywhere(number in any::<u64>()) {
            let mut out = Vec::new();
            write_decimal(number, &mut out);
            prop_assert_eq!(out, number.to_string().into_bytes());
        }
    }
}
