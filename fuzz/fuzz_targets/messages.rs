//! See `fuzz::codecs::messages`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codecs::messages(data));
