//! Where a link puts what is to be sent: whole packets, each with its class. Joining them is the socket's business.

use std::sync::Arc;

use bytes::Bytes;
use wire::message::{self, MessageKind, ROUTE_BYTES_MAX};
use wire::packet::{self, HEADER_BYTES, PacketKind};
use wire::websocket::frame::{OpCode, frame_header};

use crate::event::{self, Class};

/// The link's view of its socket.
pub trait Outbox {
    /// Queues one whole packet, framing included, which `write` appends to a buffer that may hold others before it.
    fn packet(&mut self, class: Class, key: u32, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full>;

    /// Queues reliable packets that stand one behind the other, without frames.
    ///
    /// A stream takes them as they are; here each is queued by itself.
    fn packets(&mut self, mut packets: &[u8]) -> Result<(), Full> {
        while let Some((packet, rest)) = packet::first(packets) {
            self.packet(Class::Reliable, 0, |bytes| bytes.extend_from_slice(packet))?;
            packets = rest;
        }
        Ok(())
    }

    /// Queues a packet that others queue too.
    fn block(&mut self, class: Class, key: u32, bytes: &Arc<Bytes>) -> Result<(), Full>;

    /// The round trip in microseconds as the system measures it; 0 where it does not. Asked once per heartbeat.
    fn rtt_us(&self) -> u32 {
        0
    }
}

/// The queue takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is full")]
pub struct Full;

/// A push to many: encoded once, for all framings. In every queue it is one pointer, not the four words of a `Bytes`.
#[derive(Clone, Debug)]
pub struct SharedPush {
    pub(crate) websocket: Arc<Bytes>,
    pub(crate) raw: Arc<Bytes>,
    pub(crate) charge: u32,
}

impl SharedPush {
    /// Encodes it.
    ///
    /// # Panics
    ///
    /// When the route is over 255 bytes or the whole over what a packet holds: the realm sends no such thing.
    pub fn new(route: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        let (route, body) = (route.as_ref(), body.as_ref());
        let head = push_head(route, false);
        let message_bytes = head.len() + route.len() + body.len();
        let frame = frame_header(OpCode::Binary, HEADER_BYTES + message_bytes);
        let mut bytes = Vec::with_capacity(frame.as_slice().len() + HEADER_BYTES + message_bytes);
        bytes.extend_from_slice(frame.as_slice());
        bytes.extend_from_slice(&packet::header(PacketKind::Data, message_bytes));
        for part in [&head, route, body] {
            bytes.extend_from_slice(part);
        }
        let websocket = Bytes::from(bytes);
        let raw = websocket.slice(frame.as_slice().len()..);
        Self {
            websocket: Arc::new(websocket),
            raw: Arc::new(raw),
            charge: event::charge(route.len(), body.len()),
        }
    }
}

/// Flag and route length of a push.
pub(crate) fn push_head(route: &[u8], compressed: bool) -> [u8; 2] {
    assert!(
        route.len() <= ROUTE_BYTES_MAX,
        "a route has at most {ROUTE_BYTES_MAX} bytes, not {}",
        route.len()
    );
    [message::flag(MessageKind::Push, false, compressed), route.len() as u8]
}
