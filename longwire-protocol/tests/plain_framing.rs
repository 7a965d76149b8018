//! Packets on a stream of bytes: what they look like, how they are read in whatever pieces they come, and what is
//! refused.

#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use bytes::Bytes;
use longwire_protocol::CloseReason;
use longwire_protocol::plain::framing::Violation;
use longwire_protocol::plain::{ByteOrder, Counts, Framer, Framing, LengthField, Terminator};
use proptest::prelude::*;

const LENGTH: LengthField = LengthField {
    bytes: 4,
    order: ByteOrder::Big,
    offset: 0,
    body_offset: 4,
    counts: Counts::Body,
    is_whole: false,
};

fn ended_by(bytes: &[u8]) -> Framing {
    Framing::Terminator(Terminator::new(bytes).unwrap())
}

type Read = (Vec<Bytes>, Option<Violation>);

/// Reads a stream that comes in these pieces; also whether nothing is kept at its end.
fn read<'a>(
    framing: Framing,
    max_packet_bytes: u32,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Read, bool) {
    let mut framer = Framer::new(framing, max_packet_bytes);
    let mut packets = Vec::new();
    for mut piece in pieces {
        loop {
            match framer.decode(&mut piece) {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(framer.decode(&mut &b"anything\n\0\0"[..]), Ok(None), "nothing follows");
                    return ((packets, Some(violation)), framer.is_idle());
                }
            }
        }
        assert_eq!(piece, b"", "all was taken");
    }
    ((packets, None), framer.is_idle())
}

/// Reads a stream as a whole, in two pieces cut anywhere, and byte by byte.
fn read_in_all_ways(framing: Framing, max_packet_bytes: u32, stream: &[u8]) -> Read {
    let (whole, was_idle) = read(framing, max_packet_bytes, [stream]);
    for cut in 0..=stream.len() {
        let (front, back) = stream.split_at(cut);
        assert_eq!(read(framing, max_packet_bytes, [front, back]), (whole.clone(), was_idle), "cut at {cut}");
    }
    assert_eq!(read(framing, max_packet_bytes, stream.chunks(1)), (whole.clone(), was_idle), "byte by byte");
    whole
}

fn packets(all: &[&'static [u8]]) -> Vec<Bytes> {
    all.iter().map(|packet| Bytes::from_static(packet)).collect()
}

fn refused(reason: CloseReason, what: &'static str) -> Option<Violation> {
    Some(Violation { reason, what })
}

#[test]
fn a_packet_ends_at_the_first_terminator() {
    for (terminator, stream, expected) in [
        (&b"\n"[..], &b"a\nbc\n\nd"[..], packets(&[b"a", b"bc", b""])),
        (b"\r\n", b"a\r\nb\rc\nd\r\r\n\r\n", packets(&[b"a", b"b\rc\nd\r", b""])),
        // Terminators that begin like what stands before them, or like themselves.
        (b"aab", b"aaabaabaaaab", packets(&[b"a", b"", b"aa"])),
        (b"\n\n", b"a\n\n\nb\n\n\n\n", packets(&[b"a", b"\nb", b""])),
        (b"abcabcab", b"abcabcabcabcab-abcabcab", packets(&[b"", b"cabcab-"])),
        (b"\0", b"\0\0", packets(&[b"", b""])),
        (b"12345678", b"1234567 12345678", packets(&[b"1234567 "])),
    ] {
        assert_eq!(read_in_all_ways(ended_by(terminator), 100, stream), (expected, None), "{terminator:?}");
    }
}

#[test]
fn a_packet_is_as_long_as_its_head_says() {
    let by = |bytes, order, offset, body_offset, counts| {
        Framing::Length(LengthField { bytes, order, offset, body_offset, counts, is_whole: false })
    };
    for (framing, stream, expected) in [
        (by(1, ByteOrder::Big, 0, 1, Counts::Body), &b"\x02ab\0\x01c"[..], packets(&[b"ab", b"", b"c"])),
        (by(2, ByteOrder::Big, 0, 2, Counts::Body), b"\0\x02ab\0\0", packets(&[b"ab", b""])),
        (by(2, ByteOrder::Little, 0, 2, Counts::Body), b"\x02\0ab\0\0", packets(&[b"ab", b""])),
        (by(4, ByteOrder::Big, 0, 4, Counts::Packet), b"\0\0\0\x06ab\0\0\0\x04", packets(&[b"ab", b""])),
        (by(4, ByteOrder::Little, 2, 7, Counts::Body), b"hh\x01\0\0\0tx", packets(&[b"x"])),
        (by(2, ByteOrder::Big, 3, 6, Counts::Packet), b"hhh\0\x07txhhh\0\x06t", packets(&[b"x", b""])),
    ] {
        assert_eq!(read_in_all_ways(framing, 100, stream), (expected, None), "{framing:?}");
    }
}

#[test]
fn whole_packets_keep_their_heads_and_are_written_as_they_are() {
    let field = LengthField { bytes: 2, offset: 1, body_offset: 4, is_whole: true, ..LENGTH };
    let framing = Framing::Length(field);
    let (read, violation) = read_in_all_ways(framing, 100, b"c\0\x02fabc\0\0f");
    assert_eq!((&read, violation), (&packets(&[b"c\0\x02fab", b"c\0\0f"]), None));
    assert_eq!((framing.body_of(&read[0]), framing.body_of(&read[1])), ("ab".into(), "".into()));
    assert_eq!(framing.packet(&read[0]), read[0]);
    assert_eq!(framing.with_head().packet(b"ab"), &b"\0\0\x02\0ab"[..]);
}

#[test]
fn a_length_over_the_limit_is_refused_from_the_field_alone() {
    let too_big = refused(CloseReason::MessageTooBig, "a length announces a packet larger than the limit");
    // Four gigabytes.
    let (read, violation) = read_in_all_ways(Framing::Length(LENGTH), u32::MAX, b"\xff\xff\xff\xff");
    assert_eq!((read.len(), violation), (0, too_big));
    // The field is there, the head is not.
    let field = LengthField { offset: 2, body_offset: 200, ..LENGTH };
    assert_eq!(read_in_all_ways(Framing::Length(field), 65_536, b"ab\xff\xff\xff\xff"), (vec![], too_big));
    // With its head, a packet may be just so long.
    assert_eq!(read_in_all_ways(Framing::Length(LENGTH), 6, b"\0\0\0\x02ab").0, packets(&[b"ab"]));
    assert_eq!(read_in_all_ways(Framing::Length(LENGTH), 6, b"\0\0\0\x03"), (vec![], too_big));
    // What came before is given out.
    assert_eq!(
        read_in_all_ways(Framing::Length(LENGTH), 6, b"\0\0\0\x01a\0\0\0\x03"),
        (packets(&[b"a"]), too_big)
    );
}

#[test]
fn a_length_that_is_less_than_the_head_it_counts_breaks_the_protocol() {
    let field = LengthField { counts: Counts::Packet, body_offset: 6, ..LENGTH };
    let broken = refused(CloseReason::ProtocolError, "a length is smaller than the head that it counts");
    for length in 0..6 {
        assert_eq!(read_in_all_ways(Framing::Length(field), 100, &[0, 0, 0, length]), (vec![], broken));
    }
    assert_eq!(read_in_all_ways(Framing::Length(field), 100, &[0, 0, 0, 6, 1, 2]), (packets(&[b""]), None));
}

#[test]
fn a_packet_without_end_is_refused_at_the_byte_that_shows_it() {
    let endless =
        refused(CloseReason::MessageTooBig, "a packet goes on past the limit without its terminator");
    let framing = ended_by(b"\r\n");
    assert_eq!(read_in_all_ways(framing, 4, b"abcd\r\n"), (packets(&[b"abcd"]), None));
    assert_eq!(read_in_all_ways(framing, 4, b"abcd\r"), (vec![], None), "it may end yet");
    assert_eq!(read_in_all_ways(framing, 4, b"abcde\r"), (vec![], endless));
    assert_eq!(read_in_all_ways(framing, 4, b"abcdef"), (vec![], endless));
    // In one piece the end is there, and comes too late.
    let (read, violation) = read(framing, 4, [&b"abcdef\r\n"[..]]).0;
    assert_eq!(
        (read, violation),
        (vec![], refused(CloseReason::MessageTooBig, "a packet is larger than the limit"))
    );
}

#[test]
fn a_body_that_a_length_cannot_tell_is_not_written() {
    for (counts, bytes, longest) in [
        (Counts::Body, 1, 255),
        (Counts::Packet, 1, 253),
        (Counts::Body, 2, 65_535),
        (Counts::Packet, 2, 65_533),
        (Counts::Body, 4, u64::from(u32::MAX)),
    ] {
        let framing = Framing::Length(LengthField { bytes, counts, body_offset: bytes.max(2), ..LENGTH });
        assert_eq!(framing.longest_body_bytes(), longest);
        if longest < 100_000 {
            let mut out = b"before".to_vec();
            assert!(!framing.write(&vec![0; longest as usize + 1], &mut out));
            assert_eq!(out, b"before");
            assert_eq!(framing.packet(&vec![0; longest as usize + 1]), "");
            assert_eq!(
                framing.packet(&vec![0; longest as usize]).len(),
                longest as usize + usize::from(bytes.max(2))
            );
        }
    }
    assert_eq!(ended_by(b"\n").longest_body_bytes(), u64::MAX);
}

#[test]
fn an_endless_stream_keeps_no_more_than_a_packet() {
    let mut framer = Framer::new(ended_by(b"--"), 1000);
    let mut taken = 0;
    let violation = loop {
        match framer.decode(&mut &[b'-', b'x'][..]) {
            Ok(None) => taken += 2,
            Ok(Some(packet)) => panic!("{packet:?}"),
            Err(violation) => break violation,
        }
    };
    assert_eq!((violation.reason, taken), (CloseReason::MessageTooBig, 1000));
    assert!(framer.is_idle(), "and nothing once it is refused");
}

/// Every way to announce a length that there is; heads from the shortest to the longest.
fn length_fields() -> impl Iterator<Item = LengthField> {
    let offsets = |bytes: u8| [0, 1, 7, 128, u8::MAX - bytes].map(|offset| (bytes, offset));
    let fields = [1u8, 2, 4].into_iter().flat_map(offsets).flat_map(|(bytes, offset)| {
        let end = offset + bytes;
        [end, end.saturating_add(1), u8::MAX].map(|body_offset| (bytes, offset, body_offset))
    });
    fields.flat_map(|(bytes, offset, body_offset)| {
        (0..8u8).map(move |choice| LengthField {
            bytes,
            order: if choice & 1 == 0 { ByteOrder::Big } else { ByteOrder::Little },
            offset,
            body_offset,
            counts: if choice & 2 == 0 { Counts::Body } else { Counts::Packet },
            is_whole: choice & 4 != 0,
        })
    })
}

#[test]
fn every_length_field_is_read_as_it_is_written_wherever_it_is_cut() {
    let mut tried = 0;
    for field in length_fields() {
        assert_eq!(field.check(), Ok(()), "{field:?}");
        let framing = Framing::Length(field);
        let longest = framing.with_head().longest_body_bytes();
        let bodies = [&b"hello"[..], b"", b"\0\xff"].map(|body| &body[..body.len().min(longest as usize)]);
        let packets = bodies.map(|body| framing.with_head().packet(body));
        assert!(packets.iter().zip(bodies).all(|(packet, body)| {
            packet.len() == usize::from(field.body_offset) + body.len() && packet.ends_with(body)
        }));
        let stream = packets.concat();
        let (read, violation) = read_in_all_ways(framing, 512, &stream);
        assert_eq!(violation, None, "{field:?}");
        let expected = if field.is_whole { packets } else { bodies.map(Bytes::copy_from_slice) };
        assert_eq!(read, expected, "{field:?}");
        assert!(read.iter().zip(bodies).all(|(read, body)| framing.body_of(read) == body), "{field:?}");
        tried += 1;
    }
    assert_eq!(tried, 3 * 5 * 3 * 8);
}

#[test]
fn every_length_field_refuses_the_largest_number_without_adding_past_its_end() {
    for field in length_fields() {
        let framing = Framing::Length(field);
        let head_bytes = u32::from(field.body_offset);
        let largest = match field.bytes {
            1 => u32::from(u8::MAX),
            2 => u32::from(u16::MAX),
            _ => u32::MAX,
        };
        let mut head = vec![0; field.offset.into()];
        head.resize(usize::from(field.offset + field.bytes), 0xff);
        let packet_bytes = match field.counts {
            Counts::Body => u64::from(head_bytes) + u64::from(largest),
            Counts::Packet => u64::from(largest),
        };
        let limit = u32::try_from(packet_bytes - 1).unwrap_or(u32::MAX);
        let violation = read(framing, limit, [&head[..]]).0.1;
        let reason = violation.map(|violation| violation.reason);
        assert_eq!(reason, Some(CloseReason::MessageTooBig), "{field:?}");
        // One byte of room more is enough to wait for it.
        if let Ok(room) = u32::try_from(packet_bytes)
            && packet_bytes > head.len() as u64
        {
            assert_eq!(read(framing, room, [&head[..]]), ((vec![], None), false), "{field:?}");
        }
    }
}

#[test]
fn a_field_that_cannot_be_is_told_so_and_ends_the_stream_that_has_it() {
    for (bytes, offset, body_offset) in
        [(0, 0, 0), (3, 0, 3), (8, 0, 8), (4, 0, 3), (2, 254, 255), (4, 252, 255), (1, 255, 255)]
    {
        let field = LengthField { bytes, offset, body_offset, ..LENGTH };
        assert!(field.check().is_err(), "{field:?}");
        let ((read, violation), is_idle) = read(Framing::Length(field), u32::MAX, [&[0; 300][..]]);
        assert_eq!((read.len(), is_idle), (0, true), "{field:?}");
        assert_eq!(
            violation.map(|violation| violation.reason),
            Some(CloseReason::InternalError),
            "{field:?}"
        );
        // Nor does writing go beyond its head.
        let _ = Framing::Length(field).packet(b"body");
    }
}

fn any_framing() -> impl Strategy<Value = Framing> {
    // Few letters, so that terminators overlap themselves and what stands before them.
    let terminator = prop::collection::vec(prop::sample::select(vec![b'a', b'b', b'\n']), 1..=8);
    let length =
        (prop::sample::select(vec![1u8, 2, 4]), any::<bool>(), 0u8..5, 0u8..5, any::<bool>(), any::<bool>());
    prop_oneof![
        terminator.prop_map(|bytes| ended_by(&bytes)),
        length.prop_map(|(bytes, is_big, offset, more, of_body, is_whole)| Framing::Length(LengthField {
            bytes,
            order: if is_big { ByteOrder::Big } else { ByteOrder::Little },
            offset,
            body_offset: offset + bytes + more,
            counts: if of_body { Counts::Body } else { Counts::Packet },
            is_whole,
        }))
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![4 => prop::sample::select(vec![b'a', b'b', b'\n']), 1 => any::<u8>()];
    prop::collection::vec(letter, 0..40)
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..20, 0..60)
}

fn cut<'a>(mut stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for bytes in cuts {
        let (piece, rest) = stream.split_at((*bytes).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}

proptest! {
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        framing in any_framing(),
        bodies in prop::collection::vec(body(), 0..10),
        cuts in cuts(),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for body in &bodies {
            let mut packet = Vec::new();
            prop_assert!(framing.with_head().write(body, &mut packet));
            match framing {
                // The body may have the terminator in it, or make one with that which follows.
                Framing::Terminator(terminator) => {
                    let terminator = terminator.as_slice();
                    let first = packet.windows(terminator.len()).position(|window| window == terminator);
                    if first != Some(body.len()) {
                        continue;
                    }
                    expected.push(body.clone());
                }
                Framing::Length(field) if field.is_whole => expected.push(packet.clone()),
                Framing::Length(_) => expected.push(body.clone()),
            }
            stream.extend_from_slice(&packet);
        }
        let ((read, violation), is_idle) = read(framing, 100, cut(&stream, &cuts));
        prop_assert_eq!(violation, None);
        prop_assert_eq!(read.iter().map(|packet| packet.to_vec()).collect::<Vec<_>>(), expected);
        prop_assert!(is_idle);
    }

    #[test]
    fn arbitrary_bytes_mean_the_same_however_they_are_cut(
        framing in any_framing(),
        stream in prop::collection::vec(prop_oneof![prop::sample::select(vec![b'a', b'b', b'\n', 0, 1]), any::<u8>()], 0..200),
        cuts in cuts(),
        max_packet_bytes in 0u32..60,
    ) {
        let ((whole, violation), _) = read(framing, max_packet_bytes, [&stream[..]]);
        let ((pieces, later), _) = read(framing, max_packet_bytes, cut(&stream, &cuts));
        prop_assert_eq!(&whole, &pieces);
        prop_assert_eq!(violation.map(|it| it.reason), later.map(|it| it.reason));
        prop_assert!(whole.iter().all(|packet| packet.len() <= max_packet_bytes as usize));
    }
}
