//! libFuzzer's way into [`longwire_fuzz::event_stream`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::event_stream::run(data));
