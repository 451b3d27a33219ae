//! Sessions and time, without I/O and without a clock.
//!
//! Two halves and the two enums between them: a [`link::Link`] is one connection, on its socket's thread; the
//! [`realm::Realm`] is everybody, on the logic thread. [`event::Up`] goes from the links to the realm, [`event::Down`]
//! back. Time is an argument everywhere, so epoll, a test, a simulated network and a recorded file can all drive it.

#![forbid(unsafe_code)]

pub mod clock;
pub mod event;
pub mod group;
pub mod link;
pub mod rate;
pub mod realm;
pub mod resume;
pub mod room;
pub mod route;
pub mod session;
pub mod timer;
pub mod wheel;

mod address;
mod limits;
mod outbox;
mod record;
mod snapshots;
