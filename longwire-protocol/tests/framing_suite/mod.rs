//! Framing cases for a WebSocket server, and the client that runs them over TCP.
//!
//! A table in the spirit of the sections 1 to 7, 9, 10, 12 and 13 of the Autobahn suite: each case says what
//! bytes are sent, in which pieces, what the server answers and how the connection ends. The cases expect an
//! echo server; those of [`violations`] end in a close code whatever the server does with messages, so they
//! can be run against any server that speaks no further protocol before the violation is noticed.
//!
//! It depends on the standard library only, and shares no code with what it tests, so that it can be included
//! by path into other test binaries; one that runs only some of it leaves the rest unused.

#![allow(dead_code, reason = "a binary that includes this may run only the violations")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// One case.
pub(crate) struct Case {
    /// Section, what is done, and how it is cut.
    pub(crate) name: String,
    /// The `Sec-WebSocket-Extensions` to offer; the server must then agree to compress.
    pub(crate) deflate_offer: Option<&'static str>,
    /// What is sent, each piece with a write of its own.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// What is echoed, in order.
    pub(crate) answers: Vec<Answer>,
    /// How it ends.
    pub(crate) end: End,
}

/// A frame that the server sends. It may be fragmented no further, and never masked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An echoed text.
    Text(Vec<u8>),
    /// An echoed binary message.
    Binary(Vec<u8>),
    /// An answer to a ping.
    Pong(Vec<u8>),
}

/// How a case ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The client closes with 1000 after the last answer, and the server answers that.
    Ours,
    /// A sent close frame is answered with this code, or with none.
    Answered(Option<u16>),
    /// The server closes with this code: 1002, 1007 or 1009.
    Violation(u16),
}

/// All cases, for a server whose limit is `max_message_bytes`.
pub(crate) fn cases(max_message_bytes: usize) -> Vec<Case> {
    let mut suite = Suite { cases: Vec::new(), max_message_bytes };
    suite.messages();
    suite.pings();
    suite.reserved_bits();
    suite.opcodes();
    suite.fragmentation();
    suite.text();
    suite.closing();
    suite.masking_and_lengths();
    suite.limits();
    suite.compression();
    suite.cases
}

/// The cases that end in a violation which no message precedes.
pub(crate) fn violations(max_message_bytes: usize) -> Vec<Case> {
    let mut cases = cases(max_message_bytes);
    let is_silent = |case: &Case| case.answers.iter().all(|answer| matches!(answer, Answer::Pong(_)));
    cases.retain(|case| matches!(case.end, End::Violation(_)) && is_silent(case));
    cases
}

/// Runs a case against an echo server.
///
/// # Errors
///
/// What the server did instead.
pub(crate) fn run(case: &Case, server: SocketAddr, path: &str) -> Result<(), String> {
    let mut client = Client::connect(server, path, case.deflate_offer)?;
    let writer = client.send(case.pieces.clone())?;
    for (i, expected) in case.answers.iter().enumerate() {
        let (first, payload) = client.read_frame()?;
        let answer = match first {
            0x81 => Answer::Text(payload),
            0x82 => Answer::Binary(payload),
            0x8A => Answer::Pong(payload),
            0x88 => return Err(format!("answer {i} is a close: {:?}", close_code(&payload)?)),
            _ => return Err(format!("answer {i} begins with {first:#04x}")),
        };
        if answer != *expected {
            return Err(format!("answer {i} differs"));
        }
    }
    if case.end == End::Ours {
        client.send(vec![frame(0x88, &1000u16.to_be_bytes())])?.join().map_err(|_| "the writer panicked")?;
    }
    let expected = match case.end {
        End::Ours => Some(1000),
        End::Answered(code) => code,
        End::Violation(code) => Some(code),
    };
    client.expect_close(expected, false)?;
    drop(client);
    writer.join().map_err(|_| "the writer panicked".to_owned())
}

/// Runs a case of [`violations`] against any server: only how it ends counts.
///
/// # Errors
///
/// What the server did instead.
pub(crate) fn run_violation(case: &Case, server: SocketAddr, path: &str) -> Result<(), String> {
    let End::Violation(code) = case.end else { return Err("the case ends in no violation".to_owned()) };
    let mut client = Client::connect(server, path, case.deflate_offer)?;
    let writer = client.send(case.pieces.clone())?;
    client.expect_close(Some(code), true)?;
    drop(client);
    writer.join().map_err(|_| "the writer panicked".to_owned())
}

const KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
/// A first byte without FIN.
const TEXT_PART: u8 = 0x01;
const BINARY_PART: u8 = 0x02;
const PART: u8 = 0x00;
const LAST: u8 = 0x80;
/// First bytes with RSV1.
const DEFLATED_TEXT: u8 = 0xC1;
const DEFLATED_BINARY: u8 = 0xC2;
const DEFLATED_TEXT_PART: u8 = 0x41;

const OFFER: &str = "permessage-deflate; client_max_window_bits";
/// "Hello" compressed (RFC 7692 section 7.2.3.1).
const HELLO_DEFLATED: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

/// A masked frame with a length in its shortest form.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    match payload.len() {
        0..=125 => frame_with(first, 0, payload.len() as u64, payload),
        126..=0xFFFF => frame_with(first, 2, payload.len() as u64, payload),
        _ => frame_with(first, 8, payload.len() as u64, payload),
    }
}

/// A masked frame whose length is written in that many more bytes: 0, 2 or 8.
fn frame_with(first: u8, len_bytes: usize, len: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match len_bytes {
        0 => bytes.push(0x80 | len as u8),
        2 => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(len.to_be_bytes());
        }
    }
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Bytes that repeat late and hold every value.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

/// Text that long, with characters of one to four bytes.
fn long_text(len: usize) -> Vec<u8> {
    let mut text = "aé€😀".repeat(len / 10).into_bytes();
    text.resize(len, b'.');
    text
}

/// DEFLATE without compression: stored blocks, then the zero byte that the left-out tail completes.
fn stored(payload: &[u8], block_bytes: usize) -> Vec<u8> {
    let mut deflated = Vec::new();
    for block in payload.chunks(block_bytes) {
        let len = block.len() as u16;
        deflated.push(0x00);
        deflated.extend(len.to_le_bytes());
        deflated.extend((!len).to_le_bytes());
        deflated.extend(block);
    }
    deflated.push(0x00);
    deflated
}

/// DEFLATE of one byte (below 144) repeated `1 + 258 * matches` times, at some 158 to 1: a fixed-code block
/// with a literal and matches of length 258 at distance 1.
fn run_of(byte: u8, matches: usize) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut push = |value: u32, len: u32| bits.extend((0..len).rev().map(|i| value >> i & 1 == 1));
    push(0b0, 1); // not the final block
    push(0b10, 2); // fixed codes; the two bits of the type come lowest first: 01
    push(0x30 + u32::from(byte), 8);
    for _ in 0..matches {
        push(0b1100_0101, 8);
        push(0, 5);
    }
    push(0, 7); // end of block
    push(0, 3); // the header of the stored block whose rest is left out
    bits.chunks(8)
        .map(|octet| octet.iter().enumerate().fold(0, |sum, (i, bit)| sum | u8::from(*bit) << i))
        .collect()
}

struct Suite {
    cases: Vec<Case>,
    max_message_bytes: usize,
}

impl Suite {
    fn add(&mut self, name: impl Into<String>, sent: Vec<u8>, answers: Vec<Answer>, end: End) {
        let case = Case { name: name.into(), deflate_offer: None, pieces: vec![sent], answers, end };
        self.cases.push(case);
    }

    /// The case added last, once more in pieces of that many bytes.
    fn again_in_pieces(&mut self, bytes: usize) {
        let Some(last) = self.cases.last() else { return };
        let sent = last.pieces.concat();
        let case = Case {
            name: format!("{}, in pieces of {bytes} bytes", last.name),
            deflate_offer: last.deflate_offer,
            pieces: sent.chunks(bytes).map(<[u8]>::to_vec).collect(),
            answers: last.answers.clone(),
            end: last.end,
        };
        self.cases.push(case);
    }

    fn deflated(&mut self, name: impl Into<String>, sent: Vec<u8>, answers: Vec<Answer>, end: End) {
        self.add(name, sent, answers, end);
        if let Some(case) = self.cases.last_mut() {
            case.deflate_offer = Some(OFFER);
        }
    }

    fn breaks(&mut self, name: impl Into<String>, sent: Vec<u8>, code: u16) {
        self.add(name, sent, vec![], End::Violation(code));
    }

    fn messages(&mut self) {
        for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536] {
            let text = long_text(len);
            self.add(
                format!("1.1 text of {len} bytes"),
                frame(TEXT, &text),
                vec![Answer::Text(text)],
                End::Ours,
            );
            let data = pattern(len);
            self.add(
                format!("1.2 binary of {len} bytes"),
                frame(BINARY, &data),
                vec![Answer::Binary(data)],
                End::Ours,
            );
            if len > 1 {
                self.again_in_pieces(if len < 1000 { 1 } else { 997 });
            }
        }
        let three = [frame(TEXT, b"one"), frame(BINARY, b"two"), frame(TEXT, b"three")].concat();
        let answers =
            vec![Answer::Text(b"one".into()), Answer::Binary(b"two".into()), Answer::Text(b"three".into())];
        self.add("1.3 three messages in one piece", three, answers, End::Ours);
        self.again_in_pieces(1);
    }

    fn pings(&mut self) {
        for (what, payload) in [
            ("without payload", vec![]),
            ("with text", b"Hello, world!".to_vec()),
            ("with bytes that are not text", vec![0x00, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0x00, 0xFF]),
            ("with 125 bytes", vec![0xFE; 125]),
        ] {
            self.add(
                format!("2.1 ping {what}"),
                frame(PING, &payload),
                vec![Answer::Pong(payload)],
                End::Ours,
            );
            self.again_in_pieces(1);
        }
        self.breaks("2.2 ping with 126 bytes", frame(PING, &[0xFE; 126]), 1002);
        self.breaks("2.2 pong with 126 bytes", frame(PONG, &[0xFE; 126]), 1002);
        self.breaks("2.2 ping with a 16-bit length of 5", frame_with(PING, 2, 5, b"Hello"), 1002);
        self.breaks("2.2 ping with a 64-bit length of 5", frame_with(PING, 8, 5, b"Hello"), 1002);
        self.add("2.3 pong that nobody asked for", frame(PONG, b""), vec![], End::Ours);
        self.add("2.3 pong with a payload that nobody asked for", frame(PONG, b"unasked"), vec![], End::Ours);
        let sent = [frame(PONG, b"unasked"), frame(PING, b"asked")].concat();
        self.add("2.4 pong, then ping", sent, vec![Answer::Pong(b"asked".into())], End::Ours);
        let payloads: Vec<Vec<u8>> = (0..10).map(|i| format!("ping {i}").into_bytes()).collect();
        let sent = payloads.iter().flat_map(|payload| frame(PING, payload)).collect();
        self.add("2.5 ten pings", sent, payloads.into_iter().map(Answer::Pong).collect(), End::Ours);
        self.again_in_pieces(1);
    }

    fn reserved_bits(&mut self) {
        for rsv in 1..=7u8 {
            let bits = rsv << 4;
            self.breaks(format!("3.1 text with reserved bits {rsv:03b}"), frame(TEXT | bits, b"x"), 1002);
            self.breaks(format!("3.2 binary with reserved bits {rsv:03b}"), frame(BINARY | bits, b"x"), 1002);
            self.breaks(format!("3.3 ping with reserved bits {rsv:03b}"), frame(PING | bits, b"x"), 1002);
            self.breaks(
                format!("3.4 close with reserved bits {rsv:03b}"),
                frame(CLOSE | bits, &[0x03, 0xE8]),
                1002,
            );
            let sent = [frame(TEXT, b"good"), frame(TEXT | bits, b"bad"), frame(PING, b"late")].concat();
            let good = vec![Answer::Text(b"good".into())];
            self.add(
                format!("3.5 a good text, then reserved bits {rsv:03b}"),
                sent,
                good,
                End::Violation(1002),
            );
            let sent = [frame(TEXT_PART, b"x"), frame(LAST | bits, b"y")].concat();
            self.breaks(format!("3.6 continuation with reserved bits {rsv:03b}"), sent, 1002);
        }
        self.again_in_pieces(1);
    }

    fn opcodes(&mut self) {
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15u8] {
            self.breaks(format!("4.1 reserved opcode {opcode}"), frame(0x80 | opcode, b""), 1002);
            self.breaks(
                format!("4.2 reserved opcode {opcode} with payload"),
                frame(0x80 | opcode, b"x"),
                1002,
            );
            let sent = [frame(TEXT, b"good"), frame(0x80 | opcode, b"bad"), frame(PING, b"late")].concat();
            let good = vec![Answer::Text(b"good".into())];
            self.add(
                format!("4.3 a good text, then reserved opcode {opcode}"),
                sent,
                good,
                End::Violation(1002),
            );
            self.again_in_pieces(1);
        }
    }

    fn fragmentation(&mut self) {
        let text = |data: &[u8]| Answer::Text(data.to_vec());
        let pong = |data: &[u8]| Answer::Pong(data.to_vec());
        let (a, b) = (frame(TEXT_PART, b"frag"), frame(LAST, b"ment"));
        let ping = frame(PING, b"?");

        self.add("5.1 two fragments", [&a[..], &b].concat(), vec![text(b"fragment")], End::Ours);
        self.again_in_pieces(1);
        let sent = [&a[..], &ping, &b].concat();
        self.add("5.2 a ping between fragments", sent, vec![pong(b"?"), text(b"fragment")], End::Ours);
        self.again_in_pieces(1);
        let sent = [&a[..], &frame(PONG, b"!"), &b].concat();
        self.add("5.3 a pong between fragments", sent, vec![text(b"fragment")], End::Ours);
        let parts: Vec<u8> = (0..5)
            .flat_map(|i| [frame(if i == 0 { BINARY_PART } else { PART }, &[i; 100]), ping.clone()].concat())
            .collect();
        let whole: Vec<u8> = (0..5).flat_map(|i| [i; 100]).collect();
        let mut answers = vec![pong(b"?"); 5];
        answers.push(Answer::Binary(whole));
        let sent = [parts, frame(LAST, b"")].concat();
        self.add("5.4 pings between binary fragments, an empty last one", sent, answers, End::Ours);
        self.again_in_pieces(7);
        let sent = [frame(TEXT_PART, b""), frame(PART, b""), frame(LAST, b"")].concat();
        self.add("5.5 three empty fragments", sent, vec![text(b"")], End::Ours);
        let sent = [frame(TEXT_PART, b""), frame(PART, b"x"), frame(LAST, b"")].concat();
        self.add("5.6 empty fragments around one byte", sent, vec![text(b"x")], End::Ours);
        let sent = [frame(TEXT_PART, b"x"), frame(PART, b"").repeat(5000), frame(LAST, b"y")].concat();
        self.add("5.7 five thousand empty fragments", sent, vec![text(b"xy")], End::Ours);
        let single: Vec<u8> = b"ne byte each".iter().flat_map(|byte| frame(PART, &[*byte])).collect();
        let sent = [frame(TEXT_PART, b"o"), single, frame(LAST, b"")].concat();
        self.add("5.8 fragments of one byte", sent, vec![text(b"one byte each")], End::Ours);
        self.again_in_pieces(1);
        let sent = [&a[..], &b, &frame(BINARY_PART, b"next"), &frame(LAST, b"!")].concat();
        let answers = vec![text(b"fragment"), Answer::Binary(b"next!".into())];
        self.add("5.9 two fragmented messages", sent, answers, End::Ours);
        let sent = [&a[..], &frame(PING, &[7; 125]), &b, &ping].concat();
        let answers = vec![pong(&[7; 125]), text(b"fragment"), pong(b"?")];
        self.add("5.10 the longest ping between fragments", sent, answers, End::Ours);
        self.again_in_pieces(3);

        self.breaks("5.11 a fragmented ping", [frame(0x09, b"frag"), frame(LAST, b"ment")].concat(), 1002);
        self.breaks("5.12 a fragmented pong", [frame(0x0A, b"frag"), frame(LAST, b"ment")].concat(), 1002);
        self.breaks("5.13 a fragmented close", [frame(0x08, &[0x03]), frame(LAST, &[0xE8])].concat(), 1002);
        self.breaks("5.14 a last fragment of nothing", [b.clone(), frame(TEXT, b"x")].concat(), 1002);
        self.breaks("5.15 a fragment of nothing", [frame(PART, b"x"), b.clone()].concat(), 1002);
        self.breaks("5.16 an empty last fragment of nothing", frame(LAST, b""), 1002);
        self.breaks("5.17 a text within a message", [&a[..], &frame(TEXT, b"x")].concat(), 1002);
        self.breaks("5.18 a binary message within a message", [&a[..], &frame(BINARY, b"x")].concat(), 1002);
        self.breaks("5.19 a message begun twice", [a.clone(), a.clone()].concat(), 1002);
        self.breaks("5.20 an empty text within a message", [&a[..], &frame(TEXT, b"")].concat(), 1002);
        let sent = [&a[..], &b, &frame(LAST, b"more")].concat();
        self.add("5.21 a fragment too many", sent, vec![text(b"fragment")], End::Violation(1002));
        self.again_in_pieces(1);
        let sent = [&frame(TEXT, b"whole")[..], &frame(PART, b"more"), &b].concat();
        self.add("5.22 a fragment after a whole message", sent, vec![text(b"whole")], End::Violation(1002));
        let sent = [&a[..], &ping, &frame(TEXT, b"x")].concat();
        self.add("5.23 a ping, then a text within a message", sent, vec![pong(b"?")], End::Violation(1002));
    }

    fn text(&mut self) {
        for (what, text) in [
            ("Greek", "κόσμε".as_bytes()),
            ("mixed", "Hello-µ@ßöäüàá-UTF-8!!".as_bytes()),
            ("a null", b"\0"),
            ("U+007F", b"\x7f"),
            ("U+0080", b"\xc2\x80"),
            ("U+07FF", b"\xdf\xbf"),
            ("U+0800", b"\xe0\xa0\x80"),
            ("U+D7FF", b"\xed\x9f\xbf"),
            ("U+E000", b"\xee\x80\x80"),
            ("U+FFFD", b"\xef\xbf\xbd"),
            ("U+FFFE", b"\xef\xbf\xbe"),
            ("U+FFFF", b"\xef\xbf\xbf"),
            ("U+10000", b"\xf0\x90\x80\x80"),
            ("U+1FFFF", b"\xf0\x9f\xbf\xbf"),
            ("U+10FFFF", b"\xf4\x8f\xbf\xbf"),
            ("a byte order mark", b"\xef\xbb\xbfx"),
        ] {
            let answer = vec![Answer::Text(text.into())];
            self.add(format!("6.1 {what}"), frame(TEXT, text), answer.clone(), End::Ours);
            self.again_in_pieces(1);
            let parts: Vec<u8> = text.iter().flat_map(|byte| frame(PART, &[*byte])).collect();
            let sent = [frame(TEXT_PART, b""), parts, frame(LAST, b"")].concat();
            self.add(format!("6.2 {what}, a fragment for each byte"), sent, answer, End::Ours);
        }
        for (what, bytes) in [
            ("a lone continuation byte", &b"\x80"[..]),
            ("the last continuation byte", b"\xbf"),
            ("six continuation bytes", b"\x80\xbf\x80\xbf\x80\xbf"),
            ("a lone start of two", b"\xc3 "),
            ("a lone start of three", b"\xe2 "),
            ("a start of three and one more", b"\xe2\x82 "),
            ("a start of four and two more", b"\xf0\x9f\x98 "),
            ("a start of five", b"\xf8\x88\x80\x80\x80"),
            ("a start of six", b"\xfc\x84\x80\x80\x80\x80"),
            ("0xFE", b"\xfe"),
            ("0xFF", b"\xff"),
            ("0xFE 0xFE 0xFF 0xFF", b"\xfe\xfe\xff\xff"),
            ("a slash in two bytes", b"\xc0\xaf"),
            ("a slash in three bytes", b"\xe0\x80\xaf"),
            ("a slash in four bytes", b"\xf0\x80\x80\xaf"),
            ("U+007F in two bytes", b"\xc1\xbf"),
            ("U+07FF in three bytes", b"\xe0\x9f\xbf"),
            ("U+FFFF in four bytes", b"\xf0\x8f\xbf\xbf"),
            ("a null in two bytes", b"\xc0\x80"),
            ("U+D800", b"\xed\xa0\x80"),
            ("U+DFFF", b"\xed\xbf\xbf"),
            ("a pair of surrogates", b"\xed\xa0\x80\xed\xb0\x80"),
            ("U+110000", b"\xf4\x90\x80\x80"),
            ("0xF5", b"\xf5\x80\x80\x80"),
        ] {
            let surrounded = ["κόσμε ".as_bytes(), bytes, " more"[..].as_bytes()].concat();
            self.breaks(format!("6.3 {what}"), frame(TEXT, &surrounded), 1007);
            self.again_in_pieces(1);
            // The message never ends: the violation must be noticed as soon as the byte is there.
            let parts: Vec<u8> = surrounded.iter().flat_map(|byte| frame(PART, &[*byte])).collect();
            let sent = [frame(TEXT_PART, b""), parts].concat();
            self.breaks(format!("6.4 {what}, in a message that never ends"), sent, 1007);
            let mut cut = frame(TEXT, &[&surrounded[..], &[b'.'; 100]].concat());
            cut.truncate(cut.len() - 100);
            self.breaks(format!("6.5 {what}, in a frame that never ends"), cut, 1007);
        }
        for (what, bytes) in [("two", &b"\xc3"[..]), ("three", b"\xe2\x82"), ("four", b"\xf0\x9f\x98")] {
            self.breaks(format!("6.6 text that ends within a character of {what}"), frame(TEXT, bytes), 1007);
            let sent = [frame(TEXT_PART, bytes), frame(LAST, b"")].concat();
            self.breaks(format!("6.6 fragments that end within a character of {what}"), sent, 1007);
        }
        let mut long = long_text(60_000);
        long[59_990] = 0xFF;
        self.breaks("6.7 a bad byte late in a long text", frame(TEXT, &long), 1007);
        let data = vec![0xFF; 100];
        self.add(
            "6.8 a binary message need not be text",
            frame(BINARY, &data),
            vec![Answer::Binary(data)],
            End::Ours,
        );
    }

    fn closing(&mut self) {
        self.add("7.1 a close without a code", frame(CLOSE, b""), vec![], End::Answered(None));
        self.add("7.1 a close", close(1000, b""), vec![], End::Answered(Some(1000)));
        self.again_in_pieces(1);
        let sent = [frame(TEXT, b"x"), close(1000, b""), frame(TEXT, b"late")].concat();
        self.add(
            "7.2 a text after the close",
            sent,
            vec![Answer::Text(b"x".into())],
            End::Answered(Some(1000)),
        );
        self.add(
            "7.2 a ping after the close",
            [close(1001, b""), frame(PING, b"late")].concat(),
            vec![],
            End::Answered(Some(1001)),
        );
        self.add(
            "7.2 two closes",
            [close(1000, b""), close(1001, b"")].concat(),
            vec![],
            End::Answered(Some(1000)),
        );
        let sent = [frame(TEXT_PART, b"x"), close(1000, b""), frame(LAST, b"late")].concat();
        self.add("7.2 a close within a message", sent, vec![], End::Answered(Some(1000)));
        let broken = [close(1000, b""), vec![0xFF; 50]].concat();
        self.add("7.2 garbage after the close", broken, vec![], End::Answered(Some(1000)));
        self.breaks("7.3 a close with one byte", frame(CLOSE, b"\x03"), 1002);
        self.breaks("7.3 a close with 126 bytes", close(1000, &[b'*'; 124]), 1002);
        self.add("7.4 a reason", close(1000, b"Hello World!"), vec![], End::Answered(Some(1000)));
        self.add("7.4 a reason of 123 bytes", close(1000, &[b'*'; 123]), vec![], End::Answered(Some(1000)));
        self.add("7.4 a reason in Greek", close(1000, "κόσμε".as_bytes()), vec![], End::Answered(Some(1000)));
        self.breaks("7.5 a reason that is not text", close(1000, b"\xce\xba\xed\xa0\x80edited"), 1007);
        self.breaks("7.5 a reason that ends within a character", close(1000, b"\xe2\x82"), 1007);
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            self.add(format!("7.6 code {code}"), close(code, b"why"), vec![], End::Answered(Some(code)));
        }
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 32_768, 65_535] {
            self.breaks(format!("7.7 code {code}"), close(code, b""), 1002);
            self.breaks(format!("7.7 code {code} with a reason"), close(code, b"why"), 1002);
        }
    }

    fn masking_and_lengths(&mut self) {
        for (what, bytes) in [
            ("text", &b"\x81\x05Hello"[..]),
            ("binary", b"\x82\x05Hello"),
            ("empty text", b"\x81\x00"),
            ("ping", b"\x89\x01?"),
            ("pong", b"\x8a\x00"),
            ("close", b"\x88\x02\x03\xe8"),
            ("first fragment", b"\x01\x01x"),
            ("text with a 16-bit length, cut after it", b"\x81\x7e\x01\x00"),
        ] {
            self.breaks(format!("8.1 unmasked {what}"), bytes.to_vec(), 1002);
        }
        let sent = [&frame(TEXT_PART, b"x")[..], b"\x80\x01y"].concat();
        self.breaks("8.1 unmasked last fragment", sent, 1002);
        for (len_bytes, len) in [(2, 0), (2, 1), (2, 125), (8, 0), (8, 125), (8, 126), (8, 65_535)] {
            let name = format!("8.2 a length of {len} in {len_bytes} bytes");
            self.breaks(name, frame_with(BINARY, len_bytes, len, &vec![1; len as usize]), 1002);
        }
        for len in [1 << 63, u64::MAX] {
            self.breaks(format!("8.3 a length of {len:#x}"), frame_with(BINARY, 8, len, b"x"), 1002);
        }
        let mut zero_key = vec![TEXT, 0x85, 0, 0, 0, 0];
        zero_key.extend(b"Hello");
        self.add("8.4 a masking key of zeros", zero_key, vec![Answer::Text(b"Hello".into())], End::Ours);
    }

    fn limits(&mut self) {
        let limit = self.max_message_bytes;
        let text = long_text(limit);
        let answer = vec![Answer::Text(text.clone())];
        self.add("9.1 text of exactly the limit", frame(TEXT, &text), answer.clone(), End::Ours);
        self.again_in_pieces(1300);
        self.again_in_pieces(65_536);
        let parts: Vec<u8> = text.chunks(1000).flat_map(|part| frame(PART, part)).collect();
        let sent = [frame(TEXT_PART, b""), parts, frame(LAST, b"")].concat();
        self.add("9.2 text of exactly the limit in fragments", sent, answer, End::Ours);
        let data = pattern(limit);
        let answer = vec![Answer::Binary(data.clone())];
        self.add("9.3 binary of exactly the limit", frame(BINARY, &data), answer.clone(), End::Ours);
        let parts: Vec<u8> = data.chunks(64).flat_map(|part| frame(PART, part)).collect();
        let sent = [frame(BINARY_PART, b""), parts, frame(LAST, b"")].concat();
        self.add("9.4 binary of exactly the limit in fragments of 64 bytes", sent, answer, End::Ours);
        let data = pattern(limit.min(65_536));
        let parts: Vec<u8> = data.chunks(1300).flat_map(|part| frame(PART, part)).collect();
        let sent = [frame(BINARY_PART, b""), parts, frame(LAST, b"")].concat();
        self.add("10.1 binary in fragments of 1300 bytes", sent, vec![Answer::Binary(data)], End::Ours);
        self.again_in_pieces(1300);

        self.breaks("9.5 one byte more than the limit", frame(BINARY, &pattern(limit + 1)), 1009);
        self.breaks(
            "9.5 one byte more than the limit, only announced",
            frame_with(BINARY, 8, limit as u64 + 1, b""),
            1009,
        );
        for len in [1 << 32, (1 << 32) + 5, 1 << 40, i64::MAX as u64] {
            self.breaks(format!("9.6 {len:#x} bytes announced"), frame_with(TEXT, 8, len, b"Hello"), 1009);
            let sent = [frame(TEXT_PART, b"x"), frame_with(LAST, 8, len, b"")].concat();
            self.breaks(format!("9.6 {len:#x} bytes announced in a fragment"), sent, 1009);
        }
        let half = vec![b'x'; limit / 2];
        let sent = [frame(TEXT_PART, &half), frame(PART, &half), frame(LAST, b"xx")].concat();
        self.breaks("9.7 fragments whose sum passes the limit", sent, 1009);
        let sent = [frame(TEXT_PART, &half), frame(PART, &half).repeat(4)].concat();
        self.breaks("9.7 fragments without end", sent, 1009);
    }

    fn compression(&mut self) {
        let hello = || vec![Answer::Text(b"Hello".into())];
        let ours = End::Ours;
        self.deflated("12.1 a compressed text", frame(DEFLATED_TEXT, &HELLO_DEFLATED), hello(), ours);
        self.again_in_pieces(1);
        self.deflated(
            "12.1 a compressed binary message",
            frame(DEFLATED_BINARY, &HELLO_DEFLATED),
            vec![Answer::Binary(b"Hello".into())],
            ours,
        );
        let sent =
            [frame(DEFLATED_TEXT_PART, &HELLO_DEFLATED[..3]), frame(LAST, &HELLO_DEFLATED[3..])].concat();
        self.deflated("12.2 a compressed text in two fragments", sent, hello(), ours);
        self.again_in_pieces(1);
        let parts: Vec<u8> = HELLO_DEFLATED.iter().flat_map(|byte| frame(PART, &[*byte])).collect();
        let sent = [frame(DEFLATED_TEXT_PART, b""), parts, frame(PING, b"?"), frame(LAST, b"")].concat();
        let answers = [vec![Answer::Pong(b"?".into())], hello()].concat();
        self.deflated("12.2 a compressed text in fragments of a byte, and a ping", sent, answers, ours);
        let stored_hello = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        self.deflated("12.3 a stored block", frame(DEFLATED_TEXT, &stored_hello), hello(), ours);
        let final_block = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        self.deflated("12.3 a final block", frame(DEFLATED_TEXT, &final_block), hello(), ours);
        let two_blocks = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        self.deflated("12.3 two blocks", frame(DEFLATED_TEXT, &two_blocks), hello(), ours);
        self.deflated(
            "12.3 an empty compressed text",
            frame(DEFLATED_TEXT, &[0x00]),
            vec![Answer::Text(vec![])],
            ours,
        );
        self.deflated("12.4 a plain text where compression is agreed", frame(TEXT, b"Hello"), hello(), ours);
        let sent = [
            frame(DEFLATED_TEXT, &HELLO_DEFLATED),
            frame(TEXT, b"plain"),
            frame(DEFLATED_TEXT, &HELLO_DEFLATED),
        ]
        .concat();
        let answers = [hello(), vec![Answer::Text(b"plain".into())], hello()].concat();
        self.deflated("12.4 compressed, plain, compressed", sent, answers, ours);
        for len in [1, 64, 1000, 20_000] {
            let data = pattern(len);
            let answers = vec![Answer::Binary(data.clone())];
            self.deflated(
                format!("12.5 {len} bytes in stored blocks"),
                frame(DEFLATED_BINARY, &stored(&data, 8192)),
                answers,
                ours,
            );
        }
        for matches in [0, 1, 4, 78] {
            let run = vec![b'x'; 1 + 258 * matches];
            let name = format!("12.6 a run of {} bytes", run.len());
            self.deflated(name, frame(DEFLATED_TEXT, &run_of(b'x', matches)), vec![Answer::Text(run)], ours);
            self.again_in_pieces(5);
        }
        let limit = self.max_message_bytes;
        let incompressible = pattern(limit);
        let sent = frame(DEFLATED_BINARY, &stored(&incompressible, 16_384));
        self.deflated(
            "12.7 exactly the limit, compressed to more",
            sent,
            vec![Answer::Binary(incompressible)],
            ours,
        );
        let matches = limit / 258 + 1;
        let bad = |code| End::Violation(code);
        self.deflated(
            "12.8 a bomb just past the limit",
            frame(DEFLATED_TEXT, &run_of(b'x', matches)),
            vec![],
            bad(1009),
        );
        let bomb = run_of(b'x', (limit - 100) * 8 / 13);
        self.deflated("12.8 a bomb of the limit's size", frame(DEFLATED_BINARY, &bomb), vec![], bad(1009));
        let (head, tail) = bomb.split_at(bomb.len() / 2);
        let sent = [frame(DEFLATED_TEXT_PART, head), frame(LAST, tail)].concat();
        self.deflated("12.8 a bomb in fragments", sent, vec![], bad(1009));
        let sent = frame_with(DEFLATED_TEXT, 8, limit as u64 * 2, b"");
        self.deflated("12.8 compressed data of twice the limit, only announced", sent, vec![], bad(1009));

        let sent =
            [frame(DEFLATED_TEXT_PART, &HELLO_DEFLATED[..3]), frame(0xC0, &HELLO_DEFLATED[3..])].concat();
        self.deflated("13.1 RSV1 on a continuation", sent, vec![], bad(1002));
        let sent = [frame(TEXT_PART, b"x"), frame(0x40, b"y")].concat();
        self.deflated("13.1 RSV1 on a continuation of plain text", sent, vec![], bad(1002));
        for (what, first) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
            self.deflated(format!("13.1 RSV1 on a {what}"), frame(first | 0x40, b""), vec![], bad(1002));
        }
        for (what, bits) in [("RSV2", 0x20), ("RSV3", 0x10), ("RSV1 and RSV2", 0x60)] {
            self.deflated(
                format!("13.2 {what} on a text"),
                frame(TEXT | bits, &HELLO_DEFLATED),
                vec![],
                bad(1002),
            );
        }
        for (what, bytes) in [
            ("0xFF", &[0xFF; 10][..]),
            ("a stored block with a wrong length", &[0x00, 0x05, 0x00, 0x00, 0x00, 0x48, 0x00]),
            ("a block of the reserved type", &[0x06, 0x00]),
            ("a match before the beginning", &[0xf2, 0x00, 0x11, 0x00, 0x00]),
            ("a text that was not compressed", b"Hello, world, this is plain text"),
            ("data that is cut off", &HELLO_DEFLATED[..4]),
        ] {
            self.deflated(format!("13.3 {what}"), frame(DEFLATED_TEXT, bytes), vec![], bad(1007));
        }
        let sent = frame(DEFLATED_TEXT, &stored(b"ok\xff", 100));
        self.deflated("13.4 compressed text that is not UTF-8", sent, vec![], bad(1007));
        let sent = frame(DEFLATED_TEXT, &stored(b"\xe2\x82", 100));
        self.deflated("13.4 compressed text that ends within a character", sent, vec![], bad(1007));
        for offer in [
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover; client_max_window_bits=9",
            "permessage-deflate; server_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=9, permessage-deflate",
            "x-other, permessage-deflate; unknown, permessage-deflate; client_max_window_bits=\"15\"",
        ] {
            self.deflated(
                format!("13.5 offered as {offer}"),
                frame(DEFLATED_TEXT, &HELLO_DEFLATED),
                hello(),
                ours,
            );
            if let Some(case) = self.cases.last_mut() {
                case.deflate_offer = Some(offer);
            }
        }
    }
}

struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    fn connect(server: SocketAddr, path: &str, deflate_offer: Option<&str>) -> Result<Client, String> {
        let text = |error: std::io::Error| format!("connecting: {error}");
        let stream = TcpStream::connect(server).map_err(text)?;
        stream.set_nodelay(true).map_err(text)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
        let mut client = Client { stream, received: Vec::new() };
        let offer =
            deflate_offer.map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {server}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
        );
        client.stream.write_all(request.as_bytes()).map_err(text)?;
        let head_len = loop {
            if let Some(at) = client.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            client.read_more()?;
        };
        let head = String::from_utf8_lossy(&client.received[..head_len]).into_owned();
        client.received.drain(..head_len);
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
            return Err(format!("the handshake was answered with {head:?}"));
        }
        let agreed = head.to_ascii_lowercase().contains("permessage-deflate");
        if agreed != deflate_offer.is_some() {
            return Err(format!("compression agreed on: {agreed}, in {head:?}"));
        }
        Ok(client)
    }

    /// Writes in a thread, so that a server that answers while it reads cannot block both sides. Errors are
    /// ignored: a server may close before everything was sent.
    fn send(&self, pieces: Vec<Vec<u8>>) -> Result<std::thread::JoinHandle<()>, String> {
        let mut stream = self.stream.try_clone().map_err(|error| error.to_string())?;
        Ok(std::thread::spawn(move || {
            for piece in pieces {
                if stream.write_all(&piece).is_err() {
                    return;
                }
            }
        }))
    }

    fn read_more(&mut self) -> Result<(), String> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("the connection ended early".to_owned()),
            Ok(len) => {
                self.received.extend_from_slice(&buffer[..len]);
                Ok(())
            }
            Err(error) => Err(format!("nothing came: {error}")),
        }
    }

    /// Reads one frame: its first byte and its payload. It must not be masked, and its length minimal.
    fn read_frame(&mut self) -> Result<(u8, Vec<u8>), String> {
        self.read_up_to(2)?;
        let (first, second) = (self.received[0], self.received[1]);
        if second & 0x80 != 0 {
            return Err("the server's frame is masked".to_owned());
        }
        let (header_len, payload_len) = match second {
            126 => {
                self.read_up_to(4)?;
                (4, u64::from(u16::from_be_bytes([self.received[2], self.received[3]])))
            }
            127 => {
                self.read_up_to(10)?;
                let mut len = [0; 8];
                len.copy_from_slice(&self.received[2..10]);
                (10, u64::from_be_bytes(len))
            }
            short => (2, u64::from(short)),
        };
        let minimal = match header_len {
            2 => true,
            4 => payload_len > 125,
            _ => payload_len > 65_535,
        };
        if !minimal {
            return Err("the server's length is not minimal".to_owned());
        }
        let whole = header_len + payload_len as usize;
        self.read_up_to(whole)?;
        let payload = self.received[header_len..whole].to_vec();
        self.received.drain(..whole);
        Ok((first, payload))
    }

    fn read_up_to(&mut self, len: usize) -> Result<(), String> {
        while self.received.len() < len {
            self.read_more()?;
        }
        Ok(())
    }

    /// Reads a close frame with that code, then the end of the connection.
    fn expect_close(&mut self, expected: Option<u16>, skip_others: bool) -> Result<(), String> {
        let payload = loop {
            match self.read_frame()? {
                (0x88, payload) => break payload,
                _ if skip_others => {}
                (first, _) => {
                    return Err(format!("a frame that begins with {first:#04x} came instead of a close"));
                }
            }
        };
        let code = close_code(&payload)?;
        if code != expected {
            return Err(format!("closed with {code:?} instead of {expected:?}"));
        }
        if !self.received.is_empty() {
            return Err("more came after the close".to_owned());
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        match self.stream.read(&mut [0; 1]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("more came after the close".to_owned()),
            // A server that does not read what is left resets the connection.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                Ok(())
            }
            Err(error) => Err(format!("the connection stayed open: {error}")),
        }
    }
}

/// Reads a close frame's code; its reason must be text.
fn close_code(payload: &[u8]) -> Result<Option<u16>, String> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] if std::str::from_utf8(reason).is_ok() => {
            Ok(Some(u16::from_be_bytes([*high, *low])))
        }
        _ => Err("the close frame is malformed".to_owned()),
    }
}
