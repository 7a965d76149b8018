//! libFuzzer's way into [`longwire_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::config::run(data));
