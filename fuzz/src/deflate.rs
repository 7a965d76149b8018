//! Promises of permessage-deflate: `websocket::Compressor` and the inflating side of `websocket::Connection`.
//!
//! Whatever the compressed bytes claim, no more than the limit comes out, and it is what an independent
//! reading of the same bytes gives. What was compressed inflates to itself, at exactly its length and not
//! below; fragments and the messages before make no difference.

use crate::input::{Input, pieces};
use flate2::{Decompress, FlushDecompress, Status};
use longwire_protocol::CloseReason;
use longwire_protocol::websocket::frame::{self, Opcode};
use longwire_protocol::websocket::{Compressor, Connection, Event, Kind, Role, Violation};
use std::cell::RefCell;

thread_local! {
    /// As in a shard: one compressor serves message after message.
    static COMPRESSOR: RefCell<Compressor> = RefCell::new(Compressor::new());
}

/// Takes a limit and the rest as a compressed message, then the same rest as a payload to compress.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limit = input.choose(&[0, 1, 64, 1000, 4096, 65_536]);
    let seed = input.number();
    let body = input.rest();
    hostile(body, limit, seed);
    faithful(body, seed);
}

fn hostile(compressed: &[u8], limit: u32, seed: u64) {
    let whole = inflate(std::iter::once(compressed), limit);
    match &whole {
        Ok(inflated) => {
            assert!(inflated.len() <= limit as usize, "inflated past the limit");
            assert_eq!(Some(&inflated[..]), reference(compressed).as_deref(), "another reading differs");
        }
        Err(violation) => assert!(
            matches!(violation.reason, CloseReason::MessageTooBig | CloseReason::InvalidPayload),
            "{violation:?}"
        ),
    }
    let in_fragments = inflate(pieces(compressed, seed), limit);
    assert_eq!(in_fragments.is_ok(), whole.is_ok(), "fragments make a difference");
    if let (Ok(fragments), Ok(whole)) = (in_fragments, whole) {
        assert_eq!(fragments, whole, "fragments make a difference");
    }
}

fn faithful(body: &[u8], seed: u64) {
    // Repeated, so that there is something to compress, also past the window of 32 KiB.
    let times = [1, 2, 5, 40][seed as usize % 4];
    let payload = body.repeat(times);
    let compress = |payload: &[u8]| {
        COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(payload).map(<[u8]>::to_vec))
    };
    let Some(deflated) = compress(&payload) else { return };
    assert!(deflated.len() < payload.len(), "compressing made it longer");
    let framed = COMPRESSOR.with_borrow_mut(|c| c.compress_message(Kind::Binary, &payload));
    assert!(framed.is_some(), "the same payload compresses each time");
    assert_eq!(compress(&payload).as_deref(), Some(&deflated[..]), "the message before made a difference");

    let exact = payload.len() as u32;
    assert_eq!(inflate(std::iter::once(&deflated[..]), exact).as_ref(), Ok(&payload));
    assert_eq!(inflate(pieces(&deflated, seed), exact).as_ref(), Ok(&payload));
    let too_little = inflate(std::iter::once(&deflated[..]), exact - 1);
    assert_eq!(too_little.map_err(|violation| violation.reason), Err(CloseReason::MessageTooBig));

    let mut connection = Connection::new(Role::Client, true, exact);
    let frame = framed.unwrap_or_default();
    match connection.decode(&mut &frame[..]) {
        Ok(Some(Event::Message { data, .. })) => assert_eq!(data, payload),
        other => panic!("the server's frame was not understood: {other:?}"),
    }
}

/// What a server makes of one compressed binary message that comes in these fragments.
fn inflate<'p>(fragments: impl Iterator<Item = &'p [u8]>, limit: u32) -> Result<Vec<u8>, Violation> {
    let mut fragments = fragments.peekable();
    let mut connection = Connection::new(Role::Server, true, limit);
    let mut is_first = true;
    loop {
        let fragment = fragments.next().unwrap_or_default();
        let is_last = fragments.peek().is_none();
        let mut frame = Vec::new();
        let opcode = if is_first { Opcode::Binary } else { Opcode::Continuation };
        frame::encode(opcode, is_first, Some([7, 0, 255, 3]), fragment, &mut frame);
        if !is_last {
            frame[0] &= 0x7f;
        }
        is_first = false;
        match connection.decode(&mut &frame[..])? {
            Some(Event::Message { data, .. }) => return Ok(data.to_vec()),
            None if !is_last => {}
            other => panic!("{other:?} after a whole message"),
        }
    }
}

/// Inflates as RFC 7692 section 7.2.2 says, straightforwardly; `None` if the data is no whole DEFLATE stream.
fn reference(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut inflated = Vec::new();
    if compressed.is_empty() {
        return Some(inflated);
    }
    let with_tail = [compressed, &[0, 0, 0xff, 0xff]].concat();
    let mut rest = &with_tail[..];
    loop {
        let mut decoder = Decompress::new(false);
        loop {
            inflated.reserve(1024);
            let before = (decoder.total_in(), decoder.total_out());
            let at = decoder.total_in() as usize;
            let status = decoder.decompress_vec(&rest[at..], &mut inflated, FlushDecompress::Sync).ok()?;
            if status == Status::StreamEnd {
                break;
            }
            if before == (decoder.total_in(), decoder.total_out()) {
                return Some(inflated);
            }
        }
        rest = &rest[decoder.total_in() as usize..];
        // A final block may end the message, with or without a byte of padding.
        if rest.len() <= 5 {
            return Some(inflated);
        }
    }
}
