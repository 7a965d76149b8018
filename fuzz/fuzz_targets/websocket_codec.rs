//! libFuzzer's way into [`longwire_fuzz::websocket_codec`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::websocket_codec::run(data));
