//! See `fuzz::codecs::websocket_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::codecs::websocket_frames(data));
