//! Promises of `fossil`.
//!
//! Whatever comes as a delta gives no more than the limit, or is refused. A target made of its base's pieces and
//! others comes back from its delta; the delta is hardly longer than the target, is text if the target is,
//! and does not pass a limit that is smaller.

use crate::input::Input;
use longwire_protocol::fossil::{apply, create, shorter};

/// What a delta may make here.
const MAX: usize = 5000;

/// Takes the data as a base and a delta, then as a base and how to make a target of it.
pub fn run(data: &[u8]) {
    hostile(Input::new(data));
    faithful(Input::new(data));
}

fn hostile(mut input: Input<'_>) {
    let base = input.bytes(500);
    let delta = input.rest();
    match apply(base, delta, MAX) {
        Ok(target) => {
            assert!(target.len() <= MAX);
            gives_back(base, &target);
        }
        Err(error) => assert!(error.at <= delta.len() && !error.what.is_empty(), "{error}"),
    }
}

fn faithful(mut input: Input<'_>) {
    let base = input.bytes(2000);
    let mut target = Vec::new();
    while !input.is_empty() && target.len() < MAX / 2 {
        let start = usize::from(input.short()).min(base.len());
        let len = usize::from(input.byte()).min(base.len() - start);
        target.extend_from_slice(&base[start..start + len]);
        target.extend_from_slice(input.bytes(50));
    }
    gives_back(base, &target);
    gives_back(&target, base);
}

fn gives_back(base: &[u8], target: &[u8]) {
    let delta = create(base, target);
    assert_eq!(apply(base, &delta, target.len()).as_deref(), Ok(target));
    if let Some(less) = target.len().checked_sub(1) {
        assert!(apply(base, &delta, less).is_err(), "the limit is passed");
    }
    // A length, the head of a literal and a checksum.
    assert!(delta.len() <= target.len() + 20, "{} bytes for {}", delta.len(), target.len());
    if std::str::from_utf8(target).is_ok() {
        assert!(std::str::from_utf8(&delta).is_ok(), "a character is cut");
    }
    assert_eq!(shorter(None, target), None);
    match shorter(Some(base), target) {
        Some(short) => assert!(short == delta && short.len() < target.len()),
        None => assert!(delta.len() >= target.len()),
    }
}
