//! Layer 2: messages, the body of a Data packet.
//!
//! `flag, [id varint], [route], payload`; the flag's bits are `00 error zlib type:3 route-is-code`.

use std::str;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::packet::{self, HEADER_BYTES, PacketKind};

/// The longest route, in bytes of UTF-8.
pub const ROUTE_BYTES_MAX: usize = 255;

/// The most bytes that can stand before a message's payload: flag, id, route.
pub const HEAD_BYTES_MAX: usize = 1 + ID_BYTES_MAX + 1 + ROUTE_BYTES_MAX;

/// Who speaks to whom, and whether an answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// From the client, with an id: answered by a response with the same id.
    Request = 0,
    /// From the client: not answered.
    Notify = 1,
    /// From the server: answers a request.
    Response = 2,
    /// From the server, unasked.
    Push = 3,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route<'a> {
    /// Responses have none: their id says it.
    None,
    /// A name, at most [`ROUTE_BYTES_MAX`] bytes.
    Name(&'a str),
    /// A code of the handshake's dictionary.
    Code(u16),
}

/// One message, borrowed from the packet that carried it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Request, notify, response or push.
    pub kind: MessageKind,
    /// Of requests and responses; 0 in all others, which carry none.
    pub id: u32,
    /// Where it goes.
    pub route: Route<'a>,
    /// The payload is an error body.
    pub error: bool,
    /// The payload is zlib (RFC 1950): see [`inflate`].
    pub compressed: bool,
    /// The payload as it was sent.
    pub body: &'a [u8],
}

/// A [`Message`] whose route's name may be no text: see [`split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of a message")]
pub struct Parts<'a> {
    pub kind: MessageKind,
    pub id: u32,
    pub route: RawRoute<'a>,
    pub error: bool,
    pub compressed: bool,
    pub body: &'a [u8],
}

/// A [`Route`] whose name may be no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawRoute<'a> {
    /// As [`Route::None`].
    None,
    /// At most [`ROUTE_BYTES_MAX`] bytes, see [`route_name`].
    Name(&'a [u8]),
    /// As [`Route::Code`].
    Code(u16),
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A Data packet without a body.
    #[error("a message without bytes: it begins with a flag")]
    Empty,
    /// Bits 7 and 6 mean nothing.
    #[error("message flag {0:#04x}: bits 7 and 6 must be 0")]
    UnknownFlag(u8),
    /// Types 4 to 7 mean nothing.
    #[error("message type {0}: must be 0 (request) to 3 (push)")]
    UnknownType(u8),
    /// The bytes end inside the id.
    #[error("message ends within its id")]
    IdCut,
    /// The id is over 32 bits or 5 bytes.
    #[error("message id over 32 bits")]
    IdOverflow,
    /// The bytes end inside the route.
    #[error("message ends within its route")]
    RouteCut,
    /// The route's name is no text.
    #[error("message route is not UTF-8")]
    RouteNotUtf8,
}

/// Why a message has no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The route does not fit its length byte.
    #[error("route of {0} bytes: at most 255 allowed")]
    RouteTooLong(usize),
    /// A request, notify or push without a route.
    #[error("a {0:?} needs a route")]
    RouteMissing(MessageKind),
    /// A response with a route.
    #[error("a Response has no route: its id says which request it answers")]
    RouteOnResponse,
}

/// Why a compressed payload could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// No zlib stream, a broken one, or bytes behind its end.
    #[error("message body does not inflate")]
    Malformed,
    /// It grows over the cap.
    #[error("message body inflates to more than {max} bytes")]
    TooLong {
        /// The cap.
        max: usize,
    },
}

/// Reads the message that `input`, a Data packet's body, is.
#[inline]
pub fn decode(input: &[u8]) -> Result<Message<'_>, MessageError> {
    let Parts { kind, id, route, error, compressed, body } = split(input)?;
    let route = match route {
        RawRoute::None => Route::None,
        RawRoute::Name(name) => Route::Name(route_name(name)?),
        RawRoute::Code(code) => Route::Code(code),
    };
    Ok(Message { kind, id, route, error, compressed, body })
}

/// Takes a message apart as [`decode`] does, but for the route's name: who finds its bytes in a table of routes need
/// not ask whether they are text.
#[inline]
pub fn split(input: &[u8]) -> Result<Parts<'_>, MessageError> {
    let (&flag, rest) = input.split_first().ok_or(MessageError::Empty)?;
    if flag & FLAG_UNKNOWN != 0 {
        return Err(MessageError::UnknownFlag(flag));
    }
    let kind = match (flag >> 1) & 7 {
        0 => MessageKind::Request,
        1 => MessageKind::Notify,
        2 => MessageKind::Response,
        3 => MessageKind::Push,
        unknown => return Err(MessageError::UnknownType(unknown)),
    };
    let (id, rest) = if kind.has_id() { decode_id(rest)? } else { (0, rest) };
    // Some servers set the code bit in responses too, where no route follows: ignored there, as clients do.
    let (route, body) =
        if kind.has_route() { split_route(rest, flag & FLAG_CODE != 0)? } else { (RawRoute::None, rest) };
    Ok(Parts { kind, id, route, error: flag & FLAG_ERROR != 0, compressed: flag & FLAG_ZLIB != 0, body })
}

/// What nearly every client's message is: a request (`id`) or a notify on a route by name, not compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plain<'a> {
    /// A request's.
    pub id: Option<u32>,
    /// The route, not yet known to be text.
    pub name: &'a [u8],
    /// The payload.
    pub body: &'a [u8],
}

/// Takes such a message apart; none: [`split`] says what it is, or what is wrong with it.
#[inline(always)] // once per message: its answer stays in registers
pub fn plain(input: &[u8]) -> Option<Plain<'_>> {
    let (&flag, rest) = input.split_first()?;
    let (id, rest) = match flag {
        FLAG_REQUEST => {
            let (&low, others) = rest.split_first()?;
            let (&high, others) = if low < 0x80 { (&0, others) } else { others.split_first()? };
            if high < 0x80 {
                (Some(u32::from(low & 0x7f) | u32::from(high) << 7), others)
            } else {
                let (id, others) = decode_id(rest).ok()?;
                (Some(id), others)
            }
        }
        FLAG_NOTIFY => (None, rest),
        _ => return None,
    };
    let (&length, rest) = rest.split_first()?;
    let (name, body) = rest.split_at_checked(usize::from(length))?;
    Some(Plain { id, name, body })
}

/// The name of a route whose bytes are text.
#[inline]
pub fn route_name(name: &[u8]) -> Result<&str, MessageError> {
    str::from_utf8(name).map_err(|_| MessageError::RouteNotUtf8)
}

/// What a request (`Some` of its id) or a notify brings, whatever its route; not if it is compressed.
#[inline(always)] // once per message
pub fn asked(input: &[u8]) -> Option<(Option<u32>, &[u8])> {
    match plain(input) {
        Some(Plain { id, body, .. }) => Some((id, body)),
        None => asked_unusually(input),
    }
}

#[cold]
fn asked_unusually(input: &[u8]) -> Option<(Option<u32>, &[u8])> {
    let Parts { kind, id, compressed: false, body, .. } = split(input).ok()? else { return None };
    match kind {
        MessageKind::Request => Some((Some(id), body)),
        MessageKind::Notify => Some((None, body)),
        MessageKind::Response | MessageKind::Push => None,
    }
}

/// Appends the message: a Data packet's body.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let mut flag = flag(message.kind, message.error, message.compressed);
    match (message.route, message.kind.has_route()) {
        (Route::None, true) => return Err(EncodeError::RouteMissing(message.kind)),
        (Route::Name(_) | Route::Code(_), false) => return Err(EncodeError::RouteOnResponse),
        (Route::Name(name), true) if name.len() > ROUTE_BYTES_MAX => {
            return Err(EncodeError::RouteTooLong(name.len()));
        }
        (Route::Code(_), true) => flag |= FLAG_CODE,
        (Route::None, false) | (Route::Name(_), true) => {}
    }
    out.reserve(encoded_bytes(message));
    out.push(flag);
    if message.kind.has_id() {
        let id = Id::of(message.id);
        out.extend_from_slice(&id.bits.to_le_bytes()[..id.len]);
    }
    match message.route {
        Route::None => {}
        Route::Name(name) => {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        Route::Code(code) => out.extend_from_slice(&code.to_be_bytes()),
    }
    out.extend_from_slice(message.body);
    Ok(())
}

/// How many bytes [`encode`] appends for this message.
#[inline]
pub fn encoded_bytes(message: &Message<'_>) -> usize {
    let id = if message.kind.has_id() { id_bytes(message.id) } else { 0 };
    let route = match message.route {
        Route::None => 0,
        Route::Name(name) => 1 + name.len(),
        Route::Code(_) => 2,
    };
    1 + id + route + message.body.len()
}

/// What stands before a response's payload, on the stack: so the lengths in front of it can be written first.
#[derive(Debug, Clone, Copy)]
pub struct ResponseHead {
    // Put together in a register and stored whole: bytes stored one by one cannot be loaded together without a stall.
    bytes: [u8; 8],
    len: usize,
}

impl ResponseHead {
    /// The head of the response to request `id`.
    #[inline]
    pub fn new(id: u32, error: bool, compressed: bool) -> Self {
        let id = Id::of(id);
        let flag = flag(MessageKind::Response, error, compressed);
        Self { bytes: (id.bits << 8 | u64::from(flag)).to_le_bytes(), len: 1 + id.len }
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Appends the packet that brings it and `payload`.
    ///
    /// # Panics
    ///
    /// As [`packet::header`].
    #[inline]
    pub fn append_packet(&self, payload: &[u8], out: &mut Vec<u8>) {
        let header = packet::header(PacketKind::Data, self.len + payload.len());
        let head = u128::from(u64::from_le_bytes(self.bytes)) << (8 * HEADER_BYTES);
        let head = head | u128::from(u32::from_le_bytes(header));
        out.reserve(size_of_val(&head) + payload.len());
        let start = out.len() + HEADER_BYTES + self.len;
        // By one copy of known length, which is twice as fast as one that has to ask.
        out.extend_from_slice(&head.to_le_bytes());
        out.truncate(start);
        out.extend_from_slice(payload);
    }
}

/// Appends what the zlib stream `body` unpacks to: at most `max` bytes, whatever it claims.
///
/// On an error `out` is as it was.
pub fn inflate(body: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
    let start = out.len();
    let result = inflate_behind(start, body, max, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends `body` as a zlib stream if that is smaller, and says whether it did; `out` is as it was if not.
pub fn deflate_if_smaller(body: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    // No room for anything as long as the body itself: the stream that does not fit is not wanted.
    out.reserve_exact(body.len().saturating_sub(1));
    let spare = out.capacity();
    let mut compress = Compress::new(Compression::default(), true);
    let status = compress.compress_vec(body, out, FlushCompress::Finish);
    debug_assert_eq!(spare, out.capacity());
    if matches!(status, Ok(Status::StreamEnd)) && out.len() - start < body.len() {
        return true;
    }
    out.truncate(start);
    false
}

impl MessageKind {
    /// Requests and responses carry an id.
    #[inline]
    pub fn has_id(self) -> bool {
        matches!(self, Self::Request | Self::Response)
    }

    /// All but responses carry a route.
    #[inline]
    pub fn has_route(self) -> bool {
        !matches!(self, Self::Response)
    }
}

/// A message's first byte, for a route that is a name.
#[inline]
pub fn flag(kind: MessageKind, error: bool, compressed: bool) -> u8 {
    ((kind as u8) << 1) | (u8::from(error) * FLAG_ERROR) | (u8::from(compressed) * FLAG_ZLIB)
}

/// An id as a varint, its first byte lowest.
struct Id {
    bits: u64,
    len: usize,
}

impl Id {
    #[inline]
    fn of(mut id: u32) -> Self {
        let (mut bits, mut len) = (0, 0);
        while id >= 0x80 {
            bits |= u64::from(id & 0x7f | 0x80) << (8 * len);
            id >>= 7;
            len += 1;
        }
        Self { bits: bits | u64::from(id) << (8 * len), len: len + 1 }
    }
}

#[inline]
fn id_bytes(id: u32) -> usize {
    match id {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

#[inline]
fn decode_id(input: &[u8]) -> Result<(u32, &[u8]), MessageError> {
    let mut id = 0u32;
    for (index, &byte) in input.iter().take(ID_BYTES_MAX).enumerate() {
        // Only four bits are left for the fifth byte.
        if index == ID_BYTES_MAX - 1 && byte > 0x0f {
            return Err(MessageError::IdOverflow);
        }
        id |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((id, &input[index + 1..]));
        }
    }
    Err(MessageError::IdCut)
}

#[inline]
fn split_route(input: &[u8], is_code: bool) -> Result<(RawRoute<'_>, &[u8]), MessageError> {
    if is_code {
        let (&code, rest) = input.split_first_chunk::<2>().ok_or(MessageError::RouteCut)?;
        return Ok((RawRoute::Code(u16::from_be_bytes(code)), rest));
    }
    let (&len, rest) = input.split_first().ok_or(MessageError::RouteCut)?;
    let (name, rest) = rest.split_at_checked(usize::from(len)).ok_or(MessageError::RouteCut)?;
    Ok((RawRoute::Name(name), rest))
}

fn inflate_behind(start: usize, body: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
    let mut decompress = Decompress::new(true);
    loop {
        let produced = out.len() - start;
        // One byte over the cap is room enough to see that it is too long. Room grows with what has come out.
        let room = (max.saturating_add(1) - produced).min(produced.max(INFLATE_FIRST_BYTES));
        let read = decompress.total_in() as usize;
        out.reserve_exact(room);
        let before = out.len();
        let status = inflate_into(&mut decompress, &body[read..], room, out)?;
        if out.len() - start > max {
            return Err(InflateError::TooLong { max });
        }
        let read_now = decompress.total_in() as usize;
        match status {
            Status::StreamEnd if read_now == body.len() => return Ok(()),
            Status::StreamEnd => return Err(InflateError::Malformed),
            // Nothing moved, with room and no end in sight: the stream is cut.
            Status::Ok | Status::BufError if out.len() == before && read_now == read => {
                return Err(InflateError::Malformed);
            }
            Status::Ok | Status::BufError => {}
        }
    }
}

/// At most `room` bytes more, however much the vector could hold.
fn inflate_into(
    decompress: &mut Decompress,
    input: &[u8],
    room: usize,
    out: &mut Vec<u8>,
) -> Result<Status, InflateError> {
    let before = out.len();
    out.resize(before + room, 0);
    let produced_before = decompress.total_out();
    let status = decompress.decompress(input, &mut out[before..], FlushDecompress::None);
    out.truncate(before + (decompress.total_out() - produced_before) as usize);
    status.map_err(|_| InflateError::Malformed)
}

/// Ids are 32 bits, seven to a byte.
const ID_BYTES_MAX: usize = 5;

const FLAG_REQUEST: u8 = 0b0000_0000;
const FLAG_NOTIFY: u8 = 0b0000_0010;
const FLAG_CODE: u8 = 0b0000_0001;
const FLAG_ZLIB: u8 = 0b0001_0000;
const FLAG_ERROR: u8 = 0b0010_0000;
const FLAG_UNKNOWN: u8 = 0b1100_0000;

/// The first guess at what a compressed body becomes: they are compressed because they are longer than a packet.
const INFLATE_FIRST_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    const PLAIN: Message<'static> = Message {
        kind: MessageKind::Push,
        id: 0,
        route: Route::None,
        error: false,
        compressed: false,
        body: b"",
    };

    fn golden() -> Vec<(&'static str, Message<'static>)> {
        use MessageKind::{Notify, Push, Request, Response};
        let a = Route::Name("a");
        vec![
            ("00 00 01 61", Message { kind: Request, route: a, ..PLAIN }),
            ("01 00 00 01", Message { kind: Request, route: Route::Code(1), ..PLAIN }),
            ("02 01 61", Message { kind: Notify, route: a, ..PLAIN }),
            ("06 01 61", Message { kind: Push, route: a, ..PLAIN }),
            ("07 00 01", Message { kind: Push, route: Route::Code(1), ..PLAIN }),
            ("04 81 01", Message { kind: Response, id: 129, ..PLAIN }),
            ("04 00 01", Message { kind: Response, body: &[1], ..PLAIN }),
            ("24 00 01", Message { kind: Response, body: &[1], error: true, ..PLAIN }),
            (
                "00 01 09 72 6f 6f 6d 2e 6a 6f 69 6e  7b 7d",
                Message { kind: Request, id: 1, route: Route::Name("room.join"), body: b"{}", ..PLAIN },
            ),
            (
                "01 ac 02 00 07  7b 7d",
                Message { kind: Request, id: 300, route: Route::Code(7), body: b"{}", ..PLAIN },
            ),
            (
                "04 01  7b 22 6f 6b 22 3a 31 7d",
                Message { kind: Response, id: 1, body: br#"{"ok":1}"#, ..PLAIN },
            ),
            (
                "06 06 6f 6e 4d 6f 76 65  7b 22 78 22 3a 31 7d",
                Message { kind: Push, route: Route::Name("onMove"), body: br#"{"x":1}"#, ..PLAIN },
            ),
            (
                "24 01  0a 07 50 49 54 2d 34 30 34  12 09 6e 6f 74 20 66 6f 75 6e 64",
                Message {
                    kind: Response,
                    id: 1,
                    error: true,
                    body: b"\x0a\x07PIT-404\x12\x09not found",
                    ..PLAIN
                },
            ),
        ]
    }

    #[test]
    fn the_golden_vectors_both_ways() {
        for (bytes, message) in golden() {
            let bytes = hex(bytes);
            assert_eq!(decode(&bytes), Ok(message));
            let mut out = Vec::new();
            encode(&message, &mut out).unwrap();
            assert_eq!(out, bytes);
            assert_eq!(encoded_bytes(&message), bytes.len());
        }
    }

    #[test]
    fn ids_at_every_length() {
        for id in [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455, 268_435_456, u32::MAX] {
            let message = Message { kind: MessageKind::Response, id, error: true, body: b"x", ..PLAIN };
            let mut out = Vec::new();
            encode(&message, &mut out).unwrap();
            assert_eq!(decode(&out), Ok(message));
            assert_eq!(encoded_bytes(&message), out.len());
            assert_eq!(ResponseHead::new(id, true, false).as_slice(), &out[..out.len() - 1]);
        }
    }

    /// The short ways say what the long one says, and of whatever bytes nothing that it does not.
    #[test]
    fn plain_messages_are_what_they_are_taken_apart_as() {
        let ids = [0, 127, 128, 16_383, 16_384, 2_097_152, u32::MAX];
        let messages = ids.iter().map(|&id| Message { kind: MessageKind::Request, id, ..PLAIN });
        let messages = messages.chain([Message { kind: MessageKind::Notify, ..PLAIN }]);
        for message in messages {
            for (route, name) in [
                (Route::Name("Move"), Some(&b"Move"[..])),
                (Route::Name(""), Some(b"")),
                (Route::Code(9), None),
            ] {
                let message = Message { route, body: b"body", ..message };
                let mut bytes = Vec::new();
                encode(&message, &mut bytes).unwrap();
                let id = (message.kind == MessageKind::Request).then_some(message.id);
                assert_eq!(asked(&bytes), Some((id, &b"body"[..])), "{message:?}");
                assert_eq!(plain(&bytes), name.map(|name| Plain { id, name, body: b"body" }));
                // With a byte missing, or bits that change what it is.
                for end in 0..bytes.len() - 4 {
                    assert_eq!(
                        (plain(&bytes[..end]), asked(&bytes[..end])),
                        (None, None),
                        "{message:?} {end}"
                    );
                }
                for flag in [FLAG_ZLIB, FLAG_UNKNOWN, 0b100] {
                    let mut other = bytes.clone();
                    other[0] |= flag;
                    assert_eq!((plain(&other), asked(&other)), (None, None), "{message:?} {flag}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_message() {
        for (bytes, error) in [
            ("", MessageError::Empty),
            ("40 00 01 61", MessageError::UnknownFlag(0x40)),
            ("80 00 01 61", MessageError::UnknownFlag(0x80)),
            ("08", MessageError::UnknownType(4)),
            ("0e", MessageError::UnknownType(7)),
            ("00", MessageError::IdCut),
            ("00 80 80", MessageError::IdCut),
            ("04 ff ff ff ff 10", MessageError::IdOverflow),
            ("04 80 80 80 80 80 00", MessageError::IdOverflow),
            ("00 00", MessageError::RouteCut),
            ("02 02 61", MessageError::RouteCut),
            ("03 00", MessageError::RouteCut),
            ("02 02 c3 28", MessageError::RouteNotUtf8),
        ] {
            assert_eq!(decode(&hex(bytes)), Err(error), "{bytes}");
        }
    }

    #[test]
    fn what_has_no_bytes() {
        let long = "r".repeat(256);
        let push = Message { route: Route::Name(&long), ..PLAIN };
        let mut out = Vec::new();
        assert_eq!(encode(&push, &mut out), Err(EncodeError::RouteTooLong(256)));
        assert_eq!(encode(&PLAIN, &mut out), Err(EncodeError::RouteMissing(MessageKind::Push)));
        let response = Message { kind: MessageKind::Response, route: Route::Code(1), ..PLAIN };
        assert_eq!(encode(&response, &mut out), Err(EncodeError::RouteOnResponse));
        assert!(out.is_empty());
        encode(&Message { route: Route::Name(&long[..255]), ..PLAIN }, &mut out).unwrap();
        assert_eq!(out.len(), 257);
    }

    #[test]
    fn inflating_stops_at_the_cap() {
        for size in [0, 1, 2047, 2048, 2049, 100_000] {
            let plain = vec![b'x'; size];
            let packed = deflate(&plain);
            let mut out = b"before".to_vec();
            assert_eq!(inflate(&packed, size, &mut out), Ok(()), "{size}");
            assert_eq!(out[6..], plain);
            for short in [1, 2] {
                if size >= short {
                    let max = size - short;
                    let mut out = b"before".to_vec();
                    assert_eq!(inflate(&packed, max, &mut out), Err(InflateError::TooLong { max }));
                    assert_eq!(out, b"before");
                }
            }
        }
    }

    #[test]
    fn a_bomb_costs_its_cap() {
        // About 16 KiB that unpack to 16 MiB.
        let packed = deflate(&vec![0; 16 << 20]);
        let mut out = Vec::new();
        assert_eq!(inflate(&packed, 4096, &mut out), Err(InflateError::TooLong { max: 4096 }));
        assert!(out.capacity() <= 4096 * 2 + 1, "{}", out.capacity());
    }

    #[test]
    fn what_does_not_inflate() {
        let packed = deflate(b"hello hello hello");
        let mut trailing = packed.clone();
        trailing.push(0);
        let mut broken = packed.clone();
        *broken.last_mut().unwrap() ^= 1;
        for bytes in [&b""[..], b"hello", &packed[..packed.len() - 1], &packed[..2], &trailing, &broken] {
            let mut out = Vec::new();
            assert_eq!(inflate(bytes, 100, &mut out), Err(InflateError::Malformed), "{bytes:?}");
            assert!(out.is_empty());
        }
    }

    #[test]
    fn deflating_only_when_smaller() {
        let mut out = b"before".to_vec();
        for short in [&b""[..], b"a", b"{}", b"no gain here"] {
            assert!(!deflate_if_smaller(short, &mut out));
            assert_eq!(out, b"before");
        }
        let long = b"again and ".repeat(30);
        assert!(deflate_if_smaller(&long, &mut out));
        assert_eq!(out[6], 0x78);
        let mut back = Vec::new();
        inflate(&out[6..], long.len(), &mut back).unwrap();
        assert_eq!(back, long);
    }

    fn deflate(plain: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }
}
