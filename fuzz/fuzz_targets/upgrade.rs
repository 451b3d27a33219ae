//! See `fuzz::codecs::upgrade`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codecs::upgrade(data));
