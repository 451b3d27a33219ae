//! What must hold for any bytes at all: one function for each fuzz target. The ordinary tests of `wire`, `engine`, `schema` and `world` call
//! the same functions, with the corpus and with random bytes.

pub mod codecs;
pub mod link;
pub mod schema_decode;
pub mod world_replica;
