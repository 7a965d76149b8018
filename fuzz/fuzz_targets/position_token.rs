//! libFuzzer's way into [`longwire_fuzz::position_token`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::position_token::run(data));
