//! See `fuzz::world_replica::world_replica`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::world_replica::world_replica(data));
