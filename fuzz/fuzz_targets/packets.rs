//! See `fuzz::codecs::packets`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codecs::packets(data));
