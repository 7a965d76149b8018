//! libFuzzer's way into [`longwire_fuzz::packets`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::packets::run(data));
