//! Protobuf without generated code: from a descriptor to a plan that reads and writes bytes.
//!
//! A *shape* says what messages look like; *plans* are made of it once, and then drive a `Sink` (decode) or ask a
//! `Source` (encode). Nothing here knows whose values these are: a tree, columns, or Python's objects.
//! No I/O beyond reading `.proto` files, no clock. Every bound is checked before memory is taken.

#![forbid(unsafe_code)]

mod buffer;
mod codec;
mod decode;
mod encode;
mod map_order;
mod steps;
mod wire;

pub mod bounds;
pub mod compatibility;
pub mod descriptor;
pub mod discard;
pub mod error;
pub mod plan;
pub mod proto_text;
pub mod shape;
pub mod value;

pub use wire::Malformed;
