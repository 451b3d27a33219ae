//! See `fuzz::schema_decode::schema_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::schema_decode::schema_decode(data));
