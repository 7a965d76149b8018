//! libFuzzer's way into [`longwire_fuzz::jwt`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::jwt::run(data));
