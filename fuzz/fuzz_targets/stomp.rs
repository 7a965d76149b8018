//! libFuzzer's way into [`longwire_fuzz::stomp`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::stomp::run(data));
