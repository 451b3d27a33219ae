//! WebSocket (RFC 6455), both roles, without extensions and subprotocols.
//!
//! [`upgrade`] is the HTTP part, [`frame`] the frames; [`connection`] joins both into whole messages, for tools.

pub mod connection;
pub mod frame;
pub mod upgrade;
