//! Load for a game server: thousands of clients from one process, and what they noticed.
//!
//! A [`plan::Plan`] says who plays and how; [`run::Run`] starts it on threads and collects a [`tally::Tally`] a second. Each thread
//! ([`worker`]) polls the server's own [`server::peers::Peers`], in client role.
//!
//! The load is an open loop unless closed was asked for: each message has an intended time, latency counts from it, and no answer is
//! waited for before the next message. So a server that stalls is charged for all that would have been sent meanwhile ("coordinated
//! omission", Gil Tene). How late the tool itself was is measured beside it.
#![forbid(unsafe_code)]

mod bot;
mod http;
pub mod network;
pub mod plan;
mod proxy;
pub mod run;
mod session;
pub mod tally;
mod worker;
