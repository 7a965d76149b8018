//! libFuzzer's way into [`longwire_fuzz::centrifuge_client`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| longwire_fuzz::centrifuge_client::run(data));
