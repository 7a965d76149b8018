//! libFuzzer's way into [`longwire_fuzz::session`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::session::run(data));
