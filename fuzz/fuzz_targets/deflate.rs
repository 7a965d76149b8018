//! libFuzzer's way into [`longwire_fuzz::deflate`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::deflate::run(data));
