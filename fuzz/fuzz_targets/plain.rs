//! libFuzzer's way into [`longwire_fuzz::plain`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::plain::run(data));
