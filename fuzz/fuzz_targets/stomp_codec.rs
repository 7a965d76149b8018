//! libFuzzer's way into [`longwire_fuzz::stomp_codec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::stomp_codec::run(data));
