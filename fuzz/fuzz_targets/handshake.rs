//! libFuzzer's way into [`longwire_fuzz::handshake`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::handshake::run(data));
