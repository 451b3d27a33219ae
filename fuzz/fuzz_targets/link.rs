//! See `fuzz::link::link`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::link::link(data));
