//! Where a link puts what is to be sent: whole packets, each with its class. Joining them is the socket's business.

use std::sync::Arc;

use bytes::Bytes;
use wire::message::{self, MessageKind, ROUTE_BYTES_MAX};
use wire::packet::{self, HEADER_BYTES, PacketKind};
use wire::websocket::frame::{OpCode, frame_header};

use crate::event::{self, Class};
use crate::resume::UNCOUNTED_PREFIX;

/// The link's view of its socket.
pub trait Outbox {
    /// Queues one whole packet, framing included, which `write` appends to a buffer that may hold others before it.
    fn packet(&mut self, class: Class, key: u64, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), Full>;

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
    fn block(&mut self, class: Class, key: u64, bytes: &Arc<Bytes>) -> Result<(), Full>;

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
    counted: Framed,
    /// For clients that count, if it may be dropped.
    uncounted: Option<Framed>,
    pub(crate) charge: u32,
}

#[derive(Clone, Debug)]
struct Framed {
    websocket: Arc<Bytes>,
    raw: Arc<Bytes>,
}

impl SharedPush {
    /// Encodes it.
    ///
    /// # Panics
    ///
    /// When the route is over 255 bytes or the whole over what a packet holds: the realm sends no such thing.
    pub fn new(class: Class, route: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        let (route, body) = (route.as_ref(), body.as_ref());
        let prefix = uncounted_prefix(class, route);
        Self {
            counted: Framed::new(b"", route, body),
            uncounted: (!prefix.is_empty()).then(|| Framed::new(prefix, route, body)),
            charge: event::charge(route.len(), body.len()),
        }
    }

    /// The block for a link that speaks frames or not, and whose client counts or not.
    #[inline]
    pub(crate) fn block(&self, is_framed: bool, counts: bool) -> &Arc<Bytes> {
        let framed = match &self.uncounted {
            Some(uncounted) if counts => uncounted,
            _ => &self.counted,
        };
        if is_framed { &framed.websocket } else { &framed.raw }
    }
}

impl Framed {
    fn new(prefix: &[u8], route: &[u8], body: &[u8]) -> Self {
        let head = push_head(prefix.len() + route.len(), false);
        let message_bytes = head.len() + prefix.len() + route.len() + body.len();
        let frame = frame_header(OpCode::Binary, HEADER_BYTES + message_bytes);
        let mut bytes = Vec::with_capacity(frame.as_slice().len() + HEADER_BYTES + message_bytes);
        bytes.extend_from_slice(frame.as_slice());
        bytes.extend_from_slice(&packet::header(PacketKind::Data, message_bytes));
        for part in [&head, prefix, route, body] {
            bytes.extend_from_slice(part);
        }
        let websocket = Bytes::from(bytes);
        let raw = websocket.slice(frame.as_slice().len()..);
        Self { websocket: Arc::new(websocket), raw: Arc::new(raw) }
    }
}

/// What stands before the route of a push toward a client that counts.
pub(crate) fn uncounted_prefix(class: Class, route: &[u8]) -> &'static [u8] {
    // Reserved routes are not counted as they are.
    if class == Class::Reliable || route.starts_with(b"$") { b"" } else { UNCOUNTED_PREFIX.as_bytes() }
}

/// Flag and route length of a push.
pub(crate) fn push_head(route_bytes: usize, compressed: bool) -> [u8; 2] {
    assert!(route_bytes <= ROUTE_BYTES_MAX, "a route has at most {ROUTE_BYTES_MAX} bytes, not {route_bytes}");
    [message::flag(MessageKind::Push, false, compressed), route_bytes as u8]
}
