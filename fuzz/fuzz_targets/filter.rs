//! libFuzzer's way into [`longwire_fuzz::filter`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::filter::run(data));
