//! What must hold for any bytes at all: one function for each fuzz target. The ordinary tests of `wire` and `engine` call
//! the same functions, with the corpus and with random bytes.

pub mod codecs;
pub mod link;
