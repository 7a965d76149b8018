//! Promises of `plain::framing`.
//!
//! However a stream is cut, it is the packets that a second, simple reading of the whole finds; what is over the
//! limit is refused and nothing follows a refusal; between packets nothing is kept. What is written is read again,
//! unless a body holds its terminator.

use crate::input::{Input, pieces};
use bytes::Bytes;
use longwire_protocol::CloseReason;
use longwire_protocol::plain::{ByteOrder, Counts, Framer, Framing, LengthField, Terminator};

/// Takes the data as a framing and a limit, then as the stream, then as bodies to write.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let framing = framing(&mut input);
    let max_packet_bytes = u32::from(input.short()) % 1000;
    let seed = input.number();
    let bodies = input.clone();
    read(framing, max_packet_bytes, seed, input.rest());
    written(framing, seed, bodies);
}

/// A framing that its check accepts.
pub fn framing(input: &mut Input<'_>) -> Framing {
    if input.flag() {
        let bytes = input.bytes(Terminator::MAX_BYTES);
        return Framing::Terminator(Terminator::new(bytes).unwrap_or(Terminator::LINE_FEED));
    }
    let field = LengthField {
        bytes: input.choose(&[1, 2, 4]),
        order: input.choose(&[ByteOrder::Big, ByteOrder::Little]),
        offset: input.byte() % 20,
        body_offset: 0,
        counts: input.choose(&[Counts::Body, Counts::Packet]),
        is_whole: input.flag(),
    };
    let field = LengthField { body_offset: field.offset + field.bytes + input.byte() % 20, ..field };
    assert_eq!(field.check(), Ok(()));
    Framing::Length(field)
}

type Read = (Vec<Bytes>, Option<CloseReason>);

fn read(framing: Framing, max_packet_bytes: u32, seed: u64, stream: &[u8]) {
    let limit = max_packet_bytes as usize;
    let expected = match framing {
        Framing::Terminator(terminator) => read_terminated(terminator.as_slice(), limit, stream),
        Framing::Length(field) => read_announced(&field, limit, stream),
    };
    assert_eq!(take(framing, max_packet_bytes, [stream]), expected, "in one piece");
    assert_eq!(take(framing, max_packet_bytes, pieces(stream, seed)), expected, "cut by {seed}");
    assert_eq!(take(framing, max_packet_bytes, stream.chunks(1)), expected, "byte by byte");
}

fn take<'a>(framing: Framing, max_packet_bytes: u32, stream: impl IntoIterator<Item = &'a [u8]>) -> Read {
    let mut framer = Framer::new(framing, max_packet_bytes);
    let (mut packets, mut refused) = (Vec::new(), None);
    for mut piece in stream {
        loop {
            let before = piece.len();
            match framer.decode(&mut piece) {
                Ok(Some(packet)) => {
                    assert!(refused.is_none(), "a packet after a refusal");
                    assert!(framer.is_idle() && packet.len() <= max_packet_bytes as usize);
                    assert!(piece.len() < before, "a packet of nothing");
                    packets.push(packet);
                }
                Ok(None) => break,
                Err(violation) => {
                    assert!(refused.replace(violation.reason).is_none(), "refused twice");
                    assert!(framer.is_idle() && piece.is_empty());
                }
            }
        }
        assert!(piece.is_empty(), "{} bytes were not taken", piece.len());
    }
    (packets, refused)
}

/// The simplest reading of a whole stream that there is.
fn read_terminated(terminator: &[u8], limit: usize, mut stream: &[u8]) -> Read {
    let mut packets = Vec::new();
    loop {
        let found = stream.windows(terminator.len()).position(|window| window == terminator);
        // Without an end, what may be the beginning of one is no body yet.
        let body_bytes = found.unwrap_or((stream.len() + 1).saturating_sub(terminator.len()));
        if body_bytes > limit {
            return (packets, Some(CloseReason::MessageTooBig));
        }
        let Some(body_bytes) = found else { return (packets, None) };
        packets.push(Bytes::copy_from_slice(&stream[..body_bytes]));
        stream = &stream[body_bytes + terminator.len()..];
    }
}

fn read_announced(field: &LengthField, limit: usize, mut stream: &[u8]) -> Read {
    let mut packets = Vec::new();
    let head_bytes = usize::from(field.body_offset);
    loop {
        let start = usize::from(field.offset);
        let Some(number) = stream.get(start..start + usize::from(field.bytes)) else {
            return (packets, None);
        };
        let mut digits: Vec<u8> = number.to_vec();
        if field.order == ByteOrder::Big {
            digits.reverse();
        }
        let number: u64 = digits.iter().enumerate().map(|(at, digit)| u64::from(*digit) << (8 * at)).sum();
        let packet_bytes = match field.counts {
            Counts::Body => head_bytes as u64 + number,
            Counts::Packet => number,
        };
        if packet_bytes < head_bytes as u64 {
            return (packets, Some(CloseReason::ProtocolError));
        }
        if packet_bytes > limit as u64 {
            return (packets, Some(CloseReason::MessageTooBig));
        }
        let Some((packet, rest)) = stream.split_at_checked(packet_bytes as usize) else {
            return (packets, None);
        };
        let from = if field.is_whole { 0 } else { head_bytes };
        packets.push(Bytes::copy_from_slice(&packet[from..]));
        stream = rest;
    }
}

fn written(framing: Framing, seed: u64, mut input: Input<'_>) {
    let (mut stream, mut bodies) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let body = input.bytes(600);
        let mut packet = Vec::new();
        let fits = body.len() as u64 <= framing.with_head().longest_body_bytes();
        assert_eq!(framing.with_head().write(body, &mut packet), fits);
        if !fits {
            assert!(packet.is_empty());
            continue;
        }
        if let Framing::Terminator(terminator) = framing {
            let terminator = terminator.as_slice();
            let first = packet.windows(terminator.len()).position(|window| window == terminator);
            if first != Some(body.len()) {
                continue;
            }
        }
        assert_eq!(framing.with_head().packet(body), packet);
        stream.extend_from_slice(&packet);
        bodies.push(Bytes::copy_from_slice(body));
    }
    let (packets, refused) = take(framing, u32::MAX, pieces(&stream, seed));
    assert_eq!(refused, None);
    let read: Vec<Bytes> = packets.iter().map(|packet| framing.body_of(packet)).collect();
    assert_eq!(read, bodies, "written and read");
}
