//! WebSocket (RFC 6455), both roles, without subprotocols; in server role with `permessage-deflate` (RFC 7692).
//!
//! [`upgrade`] is the HTTP part, [`frame`] the frames, [`deflate`] what is in compressed ones; [`connection`] joins both into whole messages, for tools.

pub mod connection;
pub mod deflate;
pub mod frame;
pub mod upgrade;
