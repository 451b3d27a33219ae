//! Columns of entities.
#![allow(dead_code, missing_docs)]
pub mod handle;
pub mod memory;
pub mod shape;
pub mod value;
mod varint;
pub mod world;
