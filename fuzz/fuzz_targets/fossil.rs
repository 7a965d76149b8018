//! libFuzzer's way into [`longwire_fuzz::fossil`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::fossil::run(data));
