//! The reactor: sockets, TLS, buffers. Moves bytes for whoever polls it; knows no packet.
//!
//! Start at [`reactor`]: a [`reactor::Reactor`] is a plain value that one thread at a time polls. It tells which
//! sockets are ready, hands out what they received and sends what was queued for them. What the bytes mean is its
//! caller's business. Everything that only Linux has, and every `unsafe`, lives in [`sys`].

pub mod address;
pub mod admission;
mod late;
pub mod listener;
pub mod pool;
pub mod queue;
pub mod reactor;
mod slots;
mod socket;
pub mod sys;
pub mod tls;
pub mod waker;
