//! Promises of `websocket::Connection` and `websocket::frame`.
//!
//! What was cut anywhere decodes as what came in one piece: the same events, the same violation. Nothing is
//! longer than the limit, nothing is decoded after the end, and an event that is encoded again decodes to itself.
//! Masking twice changes nothing, and a payload may be masked part by part.

use crate::input::{Input, pieces};
use bytes::Bytes;
use longwire_protocol::websocket::frame::{self, MAX_CONTROL_BYTES, Opcode};
use longwire_protocol::websocket::{Connection, Event, Kind, Role, Violation};

/// Decides role, compression, limit and cuts with its first bytes; the rest is what the peer sends.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let choices = input.byte();
    let role = if choices & 1 == 0 { Role::Server } else { Role::Client };
    let is_deflated = choices & 2 != 0;
    let limit = [0, 1, 125, 126, 1000, 65_535, 65_536, 100_000][usize::from(choices >> 2) % 8];
    let seed = u64::from(input.short());
    masking(&mut input.clone());
    round_trip(&mut input.clone(), role, limit);

    let stream = input.rest();
    let decode = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        decode_all(&mut Connection::new(role, is_deflated, limit), pieces, limit)
    };
    let whole = decode(&mut std::iter::once(stream));
    assert_eq!(decode(&mut pieces(stream, seed)), whole, "cut in pieces");
    if stream.len() <= 300 {
        assert_eq!(decode(&mut stream.chunks(1)), whole, "byte by byte");
    }

    let mut again = Vec::new();
    for event in &whole.0 {
        encode(event, role, seed as u8, &mut again);
    }
    let mut connection = Connection::new(role, is_deflated, limit);
    let (events, violation) = decode_all(&mut connection, &mut std::iter::once(&again[..]), limit);
    assert_eq!(violation, None, "what was encoded here breaks a rule");
    assert_eq!(events, whole.0, "decoded, encoded and decoded again");
    assert!(connection.is_idle(), "whole frames leave nothing behind");
}

fn decode_all(
    connection: &mut Connection,
    pieces: &mut dyn Iterator<Item = &[u8]>,
    limit: u32,
) -> (Vec<Event>, Option<Violation>) {
    let mut events = Vec::new();
    let mut violation = None;
    for mut piece in pieces {
        loop {
            let had_ended = connection.has_ended();
            match connection.decode(&mut piece) {
                Ok(Some(event)) => {
                    assert!(!had_ended, "an event after the end");
                    match &event {
                        Event::Message { data, .. } => assert!(data.len() <= limit as usize),
                        Event::Ping(data) | Event::Pong(data) => assert!(data.len() <= MAX_CONTROL_BYTES),
                        Event::Close { reason, .. } => {
                            assert!(reason.len() <= MAX_CONTROL_BYTES - 2);
                            assert!(connection.has_ended(), "a close ends decoding");
                        }
                    }
                    events.push(event);
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(!had_ended && connection.has_ended(), "a violation ends decoding, once");
                    violation = Some(error);
                }
            }
        }
        assert!(piece.is_empty(), "what was given was not taken");
        assert!(!connection.has_ended() || connection.is_idle(), "memory is kept after the end");
    }
    (events, violation)
}

/// The frame that a peer of `role` would have sent for this event.
fn encode(event: &Event, role: Role, key: u8, out: &mut Vec<u8>) {
    let mask = (role == Role::Server).then(|| [key, key ^ 0x5a, 0, key.wrapping_mul(7)]);
    match event {
        Event::Message { kind, data } => frame::encode((*kind).into(), false, mask, data, out),
        Event::Ping(data) => frame::encode(Opcode::Ping, false, mask, data, out),
        Event::Pong(data) => frame::encode(Opcode::Pong, false, mask, data, out),
        Event::Close { code: Some(code), reason } => {
            frame::encode(Opcode::Close, false, mask, &frame::close_payload(*code, reason), out);
        }
        Event::Close { code: None, .. } => frame::encode(Opcode::Close, false, mask, &[], out),
    }
}

fn masking(input: &mut Input<'_>) {
    let key = [input.byte(), input.byte(), input.byte(), input.byte()];
    let cut = usize::from(input.byte());
    let plain = input.bytes(600);
    let mut masked = plain.to_vec();
    frame::apply_mask(&mut masked, key, 0);
    let by_hand: Vec<u8> = plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
    assert_eq!(masked, by_hand);
    let mut in_parts = plain.to_vec();
    let cut = cut.min(in_parts.len());
    let (first, second) = in_parts.split_at_mut(cut);
    frame::apply_mask(first, key, 0);
    frame::apply_mask(second, key, cut);
    assert_eq!(in_parts, masked, "masked in two parts");
    frame::apply_mask(&mut masked, key, 0);
    assert_eq!(masked, plain, "masked twice");
}

/// A message of chosen content, in fragments with a ping between them, arrives whole.
fn round_trip(input: &mut Input<'_>, role: Role, limit: u32) {
    let kind = if input.flag() { Kind::Text } else { Kind::Binary };
    let seed = input.number();
    let payload = match kind {
        Kind::Text => input.text(3000).into_bytes(),
        Kind::Binary => input.bytes(3000).to_vec(),
    };
    let mask = (role == Role::Server).then(|| (seed as u32).to_be_bytes());
    let mut stream = Vec::new();
    let mut fragments = pieces(&payload, seed).peekable();
    let mut opcode = Opcode::from(kind);
    let mut pings = 0;
    loop {
        let fragment = fragments.next().unwrap_or_default();
        let is_last = fragments.peek().is_none();
        let start = stream.len();
        frame::encode(opcode, false, mask, fragment, &mut stream);
        if is_last {
            break;
        }
        // `encode` makes whole messages; a fragment has no FIN bit.
        stream[start] &= 0x7f;
        frame::encode(Opcode::Ping, false, mask, b"between", &mut stream);
        pings += 1;
        opcode = Opcode::Continuation;
    }
    let mut connection = Connection::new(role, false, limit);
    let (mut events, violation) = decode_all(&mut connection, &mut pieces(&stream, !seed), limit);
    if payload.len() > limit as usize {
        assert!(violation.is_some(), "a message past the limit was taken");
        return;
    }
    assert_eq!(violation, None);
    let message = events.pop();
    assert_eq!(message, Some(Event::Message { kind, data: Bytes::copy_from_slice(&payload) }));
    assert_eq!(events, vec![Event::Ping(Bytes::from_static(b"between")); pings]);
}
