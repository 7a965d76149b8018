//! libFuzzer's way into [`longwire_fuzz::http_body`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::http_body::run(data));
