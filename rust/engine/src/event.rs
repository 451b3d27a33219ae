//! All that crosses between a link (on its socket's thread) and the realm (on the logic thread).
//!
//! A log owns its data: events are plain values, the bytes that they speak of lie in one buffer beside them. So a
//! log can be sent to a thread, written to a file and replayed, or put on another machine, and nothing is allocated
//! per event once its two buffers have grown.

use std::convert::Infallible;
use std::num::NonZeroU64;

use wire::message;
use wire::packet::{self, BODY_BYTES_MAX};

use crate::room::ROOM_NUMBER_MAX;

/// Nanoseconds on a monotonic clock whose zero the caller chose.
pub type Nanos = u64;

/// One connection. Unique in the process until its 32-bit generation wraps on the same slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(NonZeroU64); // its bits plus 1, so that an `Option` of it is no longer

impl LinkId {
    /// `slot` must be below 2^24, `reactor` below 255.
    pub fn new(reactor: u8, slot: u32, generation: u32) -> Self {
        debug_assert!(slot < 1 << 24 && reactor < u8::MAX);
        Self::from_bits(u64::from(reactor) << 56 | u64::from(slot) << 32 | u64::from(generation))
    }

    /// The id that [`LinkId::to_bits`] gave. Any number is one; `u64::MAX`, which that never gives, becomes another
    /// that is nobody's.
    pub fn from_bits(bits: u64) -> Self {
        Self(NonZeroU64::new(bits.wrapping_add(1)).unwrap_or(NonZeroU64::MAX))
    }

    /// The id as a number, for logs and tables.
    pub fn to_bits(self) -> u64 {
        self.0.get() - 1
    }

    /// Which reactor polls the link's socket.
    pub fn reactor(self) -> u8 {
        (self.to_bits() >> 56) as u8
    }

    /// The link's place in its reactor's table.
    pub fn slot(self) -> u32 {
        (self.to_bits() >> 32) as u32 & 0xff_ffff
    }

    /// Tells a slot's tenants apart.
    pub fn generation(self) -> u32 {
        self.to_bits() as u32
    }
}

impl std::fmt::Debug for LinkId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "link {}.{}#{}", self.reactor(), self.slot(), self.generation())
    }
}

/// A range of a log's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub start: u32,
    /// How many bytes.
    pub len: u32,
}

/// Events in order, and the bytes that they speak of.
#[derive(Clone, Debug, PartialEq)]
pub struct Log<E> {
    /// The events, oldest first.
    pub events: Vec<E>,
    bytes: Vec<u8>,
}

/// From the links to the realm.
pub type UpLog = Log<Up>;
/// From the realm to the links.
pub type DownLog = Log<Down>;

/// A request or a notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// A request's id; a notify has none.
    pub request: Option<u32>,
    /// Its payload.
    pub body: &'a [u8],
}

impl UpLog {
    /// The messages of [`Up::Messages`] that this log holds. It ends at bytes that are none: a log may have come from a file.
    #[inline]
    pub fn messages(&self, packets: Span) -> Messages<'_> {
        Messages { rest: self.bytes(packets) }
    }
}

/// See [`UpLog::messages`].
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    #[inline(always)] // once per message: it stays in registers
    fn next(&mut self) -> Option<Message<'a>> {
        let (message, others) = packet::data(self.rest, BODY_BYTES_MAX)?;
        self.rest = others;
        let (request, body) = message::asked(message)?;
        Some(Message { request, body })
    }
}

impl<E> Default for Log<E> {
    fn default() -> Self {
        Self { events: Vec::new(), bytes: Vec::new() }
    }
}

impl<E> Log<E> {
    /// Keeps a copy of `bytes`; at most 4 GiB in all, which the bounds of every queue keep far away.
    #[inline]
    pub fn store(&mut self, bytes: &[u8]) -> Span {
        let span = Span { start: self.bytes.len() as u32, len: bytes.len() as u32 };
        self.bytes.extend_from_slice(bytes);
        span
    }

    /// Says in bytes of this log where the parts of a [`Down::Snapshot`] are.
    pub fn store_parts(&mut self, parts: impl IntoIterator<Item = Span>) -> Span {
        self.append_with(|bytes| {
            for part in parts {
                bytes.extend_from_slice(&part.start.to_le_bytes());
                bytes.extend_from_slice(&part.len.to_le_bytes());
            }
        })
    }

    /// The parts that `span`, given by [`Log::store_parts`] of this log, speaks of. One that the log does not have is left out:
    /// a log may have come from a file.
    pub fn parts(&self, span: Span) -> impl Iterator<Item = &[u8]> + Clone {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize;
        self.bytes(span).chunks_exact(8).filter_map(move |part| {
            let (start, len) = part.split_at(4);
            self.bytes.get(number(start)..)?.get(..number(len))
        })
    }

    /// The bytes that `span`, given by [`Log::store`] of this log, speaks of.
    #[inline]
    pub fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }

    /// Adds an event.
    #[inline]
    pub fn push(&mut self, event: E) {
        self.events.push(event);
    }

    /// Empties the log; its buffers stay, but for what a burst has made much larger than this time needed.
    pub fn clear(&mut self) {
        clear_buffer(&mut self.events);
        clear_buffer(&mut self.bytes);
    }

    /// Keeps what `write` appends to the log's bytes; on an error nothing is kept.
    #[inline]
    pub fn store_with<X>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), X>) -> Result<Span, X> {
        let start = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        Ok(Span { start: start as u32, len: (self.bytes.len() - start) as u32 })
    }

    /// Keeps what `write` appends to the log's bytes.
    #[inline]
    pub(crate) fn append_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Span {
        let Ok(span) = self.store_with(|bytes| {
            write(bytes);
            Ok::<_, Infallible>(())
        });
        span
    }

    /// Bytes of memory that it keeps, used or not.
    pub fn room(&self) -> usize {
        self.bytes.capacity() + self.events.capacity() * size_of::<E>()
    }

    /// Bytes stored, a measure of what the log holds.
    pub fn stored(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes of memory that events and their bytes take.
    #[inline]
    pub fn size(&self) -> usize {
        self.bytes.len() + self.events.len() * size_of::<E>()
    }

    pub(crate) fn all_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Empties a buffer, and halves it if it was hardly used: memory that one burst needed goes back, a pass at a time.
fn clear_buffer<T>(buffer: &mut Vec<T>) {
    let (used, room) = (buffer.len(), buffer.capacity());
    buffer.clear();
    if room * size_of::<T>() > KEPT_BYTES && used < room / 4 {
        buffer.shrink_to(room / 2);
    }
}

/// What reliable bytes toward a client are charged: at least what they are on the wire, whatever the framing, so that
/// an empty queue always means that nothing is owed.
#[inline]
pub(crate) fn charge(route_bytes: usize, body_bytes: usize) -> u32 {
    (route_bytes + body_bytes + FRAMING_BYTES_MAX) as u32
}

/// As [`charge`], of answers.
#[inline]
pub(crate) fn charge_answers(packets_bytes: usize, count: u32) -> u32 {
    packets_bytes as u32 + count * FRAME_HEADER_BYTES_MAX as u32
}

/// Buffers of a log up to this size are never made smaller.
const KEPT_BYTES: usize = 256 << 10;
/// A WebSocket frame's.
const FRAME_HEADER_BYTES_MAX: usize = 10;
/// Of a push: the frame's header, packet header 4, flag 1, route's length 1.
const FRAMING_BYTES_MAX: usize = FRAME_HEADER_BYTES_MAX + 4 + 1 + 1;

/// A route's number in the [`crate::route::RouteTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// How bytes reach us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Packets straight on the stream.
    Tcp,
    /// Packets in binary WebSocket frames.
    WebSocket,
    /// Plain HTTP, handed to the ASGI app.
    Http,
}

/// What goes first toward a client that is slow; reliable packets are [`Priority::Normal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Behind all others; dropped first.
    Low = -1,
    /// In the order in which it was sent.
    #[default]
    Normal = 0,
    /// Before all others whose first byte has not left, but behind what is reliable.
    High = 1,
}

/// The key of a packet that is not reliable: its priority, and which others it replaces.
///
/// ```text
/// bits 63, 62 priority, signed; 61 ours; 60 to 30 the room; 29 to 16 the route; 15 to 0 the game's own key
/// ```
pub fn key(priority: Priority, room: u32, route: u16, own: u16) -> u64 {
    debug_assert!(room <= ROOM_NUMBER_MAX && route < 1 << ROUTE_BITS);
    (priority as i64 as u64) << PRIORITY_SHIFT
        | u64::from(room) << 30
        | u64::from(route) << 16
        | u64::from(own)
}

/// Distinct routes that are pushed as `Latest`: one less than so many bits.
pub const ROUTE_BITS: u32 = 14;
const PRIORITY_SHIFT: u32 = 62;
const OURS: u64 = 1 << 61;
/// With a room's number: of its one snapshot that waits.
pub const SNAPSHOT_KEY: u64 = OURS | 1 << 60;
/// Of what tells a client how much of it was seen.
pub(crate) const SEEN_KEY: u64 = OURS;

/// What may happen to a block that waits to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Sent in order or the link is closed.
    Reliable,
    /// An unsent one with the same key is replaced.
    Latest,
    /// The oldest unsent ones go first when the queue is full.
    Droppable,
}

/// What a link tells the realm.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Up {
    /// The transport is known: a link to the game exists. `address` is text: `10.0.0.7:51234`, `[::1]:5`, `unix`.
    Opened { link: LinkId, transport: Transport, tls: bool, address: Span },
    /// The client's handshake, JSON of at most `auth_bytes_max` bytes.
    Handshake { link: LinkId, body: Span },
    /// The client acknowledged our answer: data may flow.
    Ready { link: LinkId },
    /// Requests and notifies on one route of the table, oldest first: `count` whole Data packets, one behind the other, none of
    /// them compressed; see [`UpLog::messages`]. `room` is the number behind the route's `@`, 0 if none.
    Messages { link: LinkId, route: RouteId, room: u32, packets: Span, count: u32 },
    /// A message to a route that nobody handles; `request` is its id, if it wants an answer.
    UnknownRoute { link: LinkId, request: Option<u32>, route: Span },
    /// Messages over a limit, which were dropped, and whether their sender wants to be told; `route` is theirs, if it is in
    /// the table and theirs was the limit.
    Dropped { link: LinkId, route: Option<RouteId>, tell: bool, count: u32 },
    /// A request over a limit, to be refused; `route` as of `Dropped`.
    Limited { link: LinkId, id: u32, route: Option<RouteId> },
    /// Nothing heard for `stale_after`.
    Silent { link: LinkId },
    /// Heard again after `Silent`.
    Heard { link: LinkId },
    /// Counters, at each heartbeat that we send. `rtt_us` is 0 where the system has none; `quiet` is how long ago the
    /// client was last heard.
    Meter { link: LinkId, bytes_in: u64, bytes_out: u64, rtt_us: u32, quiet: Nanos },
    /// Bytes charged at a `Down` have left, or were dropped.
    Sent { link: LinkId, bytes: u32 },
    /// So much waits for this client that it is slow: [`crate::link::LinkConfig::congested_bytes`].
    Congested { link: LinkId },
    /// It has caught up after `Congested`.
    Relieved { link: LinkId },
    /// The first bytes of the [`Down::Snapshot`] of this number and of all before it have left: they reach the client, or the link is lost.
    SnapshotLeft { link: LinkId, number: u16 },
    /// The end; nothing follows from this link.
    Closed { link: LinkId, why: Close },
    /// Bytes of plain HTTP; the first ones hold the whole header block.
    HttpBytes { link: LinkId, body: Span },
    /// The HTTP client will send no more.
    HttpEnded { link: LinkId },
    /// Everything queued for this HTTP client has left.
    HttpDrained { link: LinkId },
    /// A kick, a push or a response from a client: of no meaning, counted.
    Ignored { link: LinkId },
    /// A client has handled so many of its session's counted messages.
    Seen { link: LinkId, count: u64 },
    /// The client says that it leaves for good.
    Leaves { link: LinkId },
    /// From no link: 32 random bytes, from which tokens are made.
    Seeded { seed: Span },
    /// Client role: the answer to a request.
    Response { link: LinkId, id: u32, error: bool, body: Span },
    /// Client role: a push.
    Push { link: LinkId, route: Span, body: Span },
    /// Client role: the server kicks us; its close follows.
    Kicked { link: LinkId, body: Span },
}

/// What the realm asks of a link. Each one names a link that may be gone: then nothing happens.
#[expect(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Down {
    /// The handshake's answer, JSON. Codes 1 to `codes` of the dictionary in it stand for the routes 0 to `codes` - 1. With
    /// `counts` the client counts what it gets: a push that may be dropped says that it is not counted.
    Accept { link: LinkId, body: Span, codes: u16, counts: bool },
    /// The handshake's refusal, JSON; closes.
    Refuse { link: LinkId, why: Close, body: Span },
    /// Answers to requests, oldest first: `count` whole Data packets, one behind the other.
    Answers { link: LinkId, packets: Span, count: u32 },
    /// What another link of the session was to send: `count` whole Data packets, one behind the other.
    Again { link: LinkId, packets: Span, count: u32 },
    /// A push to one.
    Push { link: LinkId, class: Class, key: u64, route: Span, body: Span },
    /// A push to many, encoded once. `targets` are 8 bytes each, [`LinkId::to_bits`], little-endian.
    Broadcast { targets: Span, class: Class, key: u64, route: Span, body: Span },
    /// A push that replaces the last of its kind, if no byte of that has left. Its body is in pieces, which others share:
    /// `parts` are 8 bytes each, a [`Span`]'s start and length, little-endian.
    Snapshot { link: LinkId, number: u16, room: u32, route: Span, parts: Span },
    /// A Kick packet with this JSON body, then close once it has left.
    Kick { link: LinkId, why: Close, body: Span },
    /// Close once what is queued has left.
    Close { link: LinkId, why: Close },
    /// Stop reading: the session's queue is full.
    Pause { link: LinkId },
    /// Read again.
    Resume { link: LinkId },
    /// Bytes toward an HTTP client.
    HttpBytes { link: LinkId, body: Span },
    /// Close at once, without waiting for what is queued.
    Abort { link: LinkId, why: Close },
    /// Client role: a request.
    Request { link: LinkId, id: u32, route: Span, body: Span },
    /// Client role: a notify.
    Notify { link: LinkId, route: Span, body: Span },
}

impl Up {
    /// Which link tells it; one that is nobody's where none does.
    #[inline]
    pub fn link(&self) -> LinkId {
        match *self {
            Up::Opened { link, .. }
            | Up::Handshake { link, .. }
            | Up::Ready { link }
            | Up::Messages { link, .. }
            | Up::UnknownRoute { link, .. }
            | Up::Dropped { link, .. }
            | Up::Limited { link, .. }
            | Up::Congested { link }
            | Up::Relieved { link }
            | Up::Silent { link }
            | Up::Heard { link }
            | Up::Meter { link, .. }
            | Up::Sent { link, .. }
            | Up::SnapshotLeft { link, .. }
            | Up::Closed { link, .. }
            | Up::HttpBytes { link, .. }
            | Up::HttpEnded { link }
            | Up::HttpDrained { link }
            | Up::Ignored { link }
            | Up::Seen { link, .. }
            | Up::Leaves { link }
            | Up::Response { link, .. }
            | Up::Push { link, .. }
            | Up::Kicked { link, .. } => link,
            Up::Seeded { .. } => LinkId::from_bits(u64::MAX),
        }
    }
}

impl Down {
    /// Which link is asked; `None` for a broadcast.
    #[inline]
    pub fn link(&self) -> Option<LinkId> {
        match *self {
            Down::Accept { link, .. }
            | Down::Refuse { link, .. }
            | Down::Answers { link, .. }
            | Down::Again { link, .. }
            | Down::Push { link, .. }
            | Down::Snapshot { link, .. }
            | Down::Kick { link, .. }
            | Down::Close { link, .. }
            | Down::Pause { link }
            | Down::Resume { link }
            | Down::HttpBytes { link, .. }
            | Down::Abort { link, .. }
            | Down::Request { link, .. }
            | Down::Notify { link, .. } => Some(link),
            Down::Broadcast { .. } => None,
        }
    }
}

impl Transport {
    /// The word for it in logs and in Python.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::WebSocket => "websocket",
            Transport::Http => "http",
        }
    }
}

/// Why a link ended: each is a counter in `app.stats()` under its [`Close::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Close {
    /// The peer closed its side in good order.
    Left,
    /// The peer or the network cut it.
    Reset,
    /// Heartbeats missed.
    Silent,
    /// No complete handshake before its deadline.
    HandshakeTimeout,
    /// `authenticate` did not answer before its deadline.
    AuthTimeout,
    /// `authenticate` said no, or the handshake was rejected.
    Refused,
    /// Its queue was full.
    Slow,
    /// The game kicked it.
    Kicked,
    /// The game closed it.
    Closed,
    /// A newer session of the same uid.
    Replaced,
    /// The server stops.
    Shutdown,
    /// First bytes of no protocol that we speak.
    UnknownProtocol,
    /// Packet type that does not exist, or not here.
    PacketType,
    /// Body over the cap, by its declared length.
    PacketTooLong,
    /// Data before the acknowledgement.
    DataBeforeAck,
    /// A second handshake, or an ack that nothing asked for.
    HandshakeTwice,
    /// Handshake that is no JSON object.
    HandshakeInvalid,
    /// Flag bits, varint or length of a message.
    MessageInvalid,
    /// Route that is no UTF-8, or a dictionary code that was never given.
    RouteInvalid,
    /// Body that does not inflate, or to more than the cap.
    InflateInvalid,
    /// WebSocket frame against the rules.
    WebSocketInvalid,
    /// HTTP that does not parse, or too long a header.
    HttpInvalid,
    /// A proxy's connection that does not begin with the PROXY protocol.
    ProxyInvalid,
    /// Origin not on the list.
    OriginRefused,
    /// Too many messages in a minute whose body is not what their route takes.
    BadMessages,
    /// More messages than a limit allows, whose `over` is `kick`.
    RateLimited,
    /// A defect of ours, contained.
    Panic,
}

impl Close {
    /// Every reason, in the order of the enum.
    pub const ALL: [Close; 27] = [
        Close::Left,
        Close::Reset,
        Close::Silent,
        Close::HandshakeTimeout,
        Close::AuthTimeout,
        Close::Refused,
        Close::Slow,
        Close::Kicked,
        Close::Closed,
        Close::Replaced,
        Close::Shutdown,
        Close::UnknownProtocol,
        Close::PacketType,
        Close::PacketTooLong,
        Close::DataBeforeAck,
        Close::HandshakeTwice,
        Close::HandshakeInvalid,
        Close::MessageInvalid,
        Close::RouteInvalid,
        Close::InflateInvalid,
        Close::WebSocketInvalid,
        Close::HttpInvalid,
        Close::ProxyInvalid,
        Close::OriginRefused,
        Close::BadMessages,
        Close::RateLimited,
        Close::Panic,
    ];

    /// The reason as logs, metrics and `app.stats()` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Close::Left => "left",
            Close::Reset => "reset",
            Close::Silent => "silent",
            Close::HandshakeTimeout => "handshake-timeout",
            Close::AuthTimeout => "auth-timeout",
            Close::Refused => "refused",
            Close::Slow => "slow",
            Close::Kicked => "kicked",
            Close::Closed => "closed",
            Close::Replaced => "replaced",
            Close::Shutdown => "shutdown",
            Close::UnknownProtocol => "unknown-protocol",
            Close::PacketType => "packet-type",
            Close::PacketTooLong => "packet-too-long",
            Close::DataBeforeAck => "data-before-ack",
            Close::HandshakeTwice => "handshake-twice",
            Close::HandshakeInvalid => "handshake-invalid",
            Close::MessageInvalid => "message-invalid",
            Close::RouteInvalid => "route-invalid",
            Close::InflateInvalid => "inflate-invalid",
            Close::WebSocketInvalid => "websocket-invalid",
            Close::HttpInvalid => "http-invalid",
            Close::ProxyInvalid => "proxy-invalid",
            Close::OriginRefused => "origin-refused",
            Close::BadMessages => "bad-messages",
            Close::RateLimited => "rate-limited",
            Close::Panic => "panic",
        }
    }
}
