//! Bytes to items and back: packets, messages, handshakes, WebSocket frames.
//!
//! Nothing here does I/O, reads a clock or draws randomness, and nothing imports another crate of ours. Every decoder
//! judges a declared length before the bytes that it announces are there, borrows from its input where it can, and
//! answers any bytes at all with an item, "incomplete", or an error.

#![forbid(unsafe_code)]

#[cfg(test)]
mod testing;

pub mod detect;
pub mod error_body;
pub mod handshake;
pub mod http;
pub mod json_text;
pub mod message;
pub mod packet;
pub mod proxy;
pub mod websocket;
