//! Joins net and engine: one turn of the loop, top to bottom, and the same on n threads.
//!
//! Start reading at [`turn`]. A [`peers::Peers`] is a reactor and its links, polled by one thread; the logic thread
//! has one of its own and, with `io_threads=n`, n more on [`threads`].
#![forbid(unsafe_code)]

pub mod awake;
pub mod options;
mod outboxes;
mod patience;
pub mod peers;
pub mod record;
pub mod replay;
pub mod threads;
pub mod ticks;
pub mod turn;
