//! Promises of `plain::position_token`.
//!
//! What is written is read as what it was, whatever the names; it holds nothing that could end a line and is
//! no longer than announced. What is read can be written and read again. A token that was decoded once too
//! often still says the same, unless a name holds `=` or `%`, or begins with a comma.

use crate::input::Input;
use longwire_protocol::http::percent_decode;
use longwire_protocol::plain::position_token::{
    MAX_BYTES, MAX_CHANNELS, PositionToken, longest_entry_bytes, write_position,
};
use longwire_protocol::{Epoch, Position};

/// Takes the data as a token, then as the names and positions to make one of.
pub fn run(data: &[u8]) {
    read(data);
    made(Input::new(data));
}

fn read(text: &[u8]) {
    match PositionToken::parse(text) {
        Ok(token) => {
            assert!(text.len() <= MAX_BYTES && token.iter().count() <= MAX_CHANNELS);
            let mut written = Vec::new();
            token.write(&mut written);
            if written.len() <= MAX_BYTES {
                assert_eq!(PositionToken::parse(&written), Ok(token), "read, written and read again");
            }
        }
        Err(error) => assert!(error.at <= text.len(), "{error}"),
    }
}

fn made(mut input: Input<'_>) {
    let mut token = PositionToken::default();
    let mut longest = 0;
    while !input.is_empty() && token.iter().count() < MAX_CHANNELS {
        let offset = input.number();
        let epoch = match input.byte() {
            0 => Epoch::FOREIGN,
            bits => Epoch::from_random(u64::from(bits).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        };
        let name = input.text(40);
        if name.is_empty() || token.get(&name).is_some() {
            continue;
        }
        let position = Position { offset, epoch };
        token.set(&name, position);
        assert_eq!(token.get(&name), Some(position));
        longest += longest_entry_bytes(&name);
    }
    let mut written = Vec::new();
    token.write(&mut written);
    assert!(written.len() <= longest, "longer than announced");
    assert!(written.iter().all(u8::is_ascii_graphic), "a byte that a header cannot hold");
    let mut one_by_one = Vec::new();
    for (name, position) in token.iter() {
        write_position(name, &position, &mut one_by_one);
    }
    assert_eq!(written, one_by_one);
    if written.len() > MAX_BYTES {
        return;
    }
    assert_eq!(PositionToken::parse(&written).as_ref(), Ok(&token), "written and read");
    let survives_decoding = |name: &str| {
        !name.starts_with(',') && !name.chars().any(|c| c <= ' ' || c == '\x7f' || c == '=' || c == '%')
    };
    if token.iter().all(|(name, _)| survives_decoding(name)) {
        let text = std::str::from_utf8(&written).expect("checked to be ASCII");
        let decoded = percent_decode(text);
        assert_eq!(PositionToken::parse(decoded.as_bytes()), Ok(token), "decoded once too often");
    }
}
