//! libFuzzer's way into [`longwire_fuzz::selector`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::selector::run(data));
