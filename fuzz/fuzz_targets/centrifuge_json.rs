//! libFuzzer's way into [`longwire_fuzz::centrifuge_json`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::centrifuge_json::run(data));
