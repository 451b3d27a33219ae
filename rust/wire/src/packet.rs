//! Layer 1: packets, `type u8, length u24 big-endian, body`.

/// The bytes before a packet's body.
pub const HEADER_BYTES: usize = 4;

/// The longest body that the header can declare.
pub const BODY_BYTES_MAX: usize = (1 << 24) - 1;

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketKind {
    /// JSON, both ways: the first packet of each side.
    Handshake = 1,
    /// Empty, from the client: it has read the server's handshake.
    HandshakeAck = 2,
    /// Empty, both ways.
    Heartbeat = 3,
    /// A message.
    Data = 4,
    /// JSON, from the server: why the connection is about to close.
    Kick = 5,
}

/// One packet, borrowed from the bytes that it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it is for.
    pub kind: PacketKind,
    /// Everything behind the header.
    pub body: &'a [u8],
}

/// What a decoder makes of the bytes it has seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<T> {
    /// Right as far as it goes.
    Incomplete {
        /// How many bytes from the start of the input are needed before it is worth asking again: the whole item once
        /// its length is known, its header before that.
        needed: usize,
    },
    /// One item.
    Complete {
        /// The item.
        item: T,
        /// How many bytes of the input it was.
        consumed: usize,
    },
}

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The first byte names no packet.
    #[error("packet type {0:#04x}: must be 0x01 to 0x05")]
    UnknownType(u8),
    /// The header declares more than is allowed here.
    #[error("packet body of {declared} bytes: at most {max} allowed here")]
    TooLong {
        /// The length in the header.
        declared: usize,
        /// The cap that was asked for.
        max: usize,
    },
}

/// Reads the packet at the start of `input`.
///
/// The type is judged as soon as its byte is there, the length as soon as the header is: no caller needs to reserve
/// memory for a body that is too long.
#[inline]
pub fn decode(input: &[u8], body_bytes_max: usize) -> Result<Decoded<Packet<'_>>, PacketError> {
    let Some(&first) = input.first() else {
        return Ok(Decoded::Incomplete { needed: HEADER_BYTES });
    };
    let Some(kind) = PacketKind::from_byte(first) else {
        return Err(PacketError::UnknownType(first));
    };
    let Some(&[_, high, middle, low]) = input.first_chunk::<HEADER_BYTES>() else {
        return Ok(Decoded::Incomplete { needed: HEADER_BYTES });
    };
    let declared = u32::from_be_bytes([0, high, middle, low]) as usize;
    if declared > body_bytes_max {
        return Err(PacketError::TooLong { declared, max: body_bytes_max });
    }
    let total = HEADER_BYTES + declared;
    match input.get(HEADER_BYTES..total) {
        Some(body) => Ok(Decoded::Complete { item: Packet { kind, body }, consumed: total }),
        None => Ok(Decoded::Incomplete { needed: total }),
    }
}

/// The first of whole packets that stand one behind the other, header included, and the others; none if that is not
/// what the bytes are.
#[inline]
pub fn first(packets: &[u8]) -> Option<(&[u8], &[u8])> {
    match decode(packets, BODY_BYTES_MAX) {
        Ok(Decoded::Complete { consumed, .. }) => Some(packets.split_at(consumed)),
        _ => None,
    }
}

/// The body of the Data packet at the start of `input`, and what stands behind; none: [`decode`] says what it is instead.
#[inline(always)] // once per message
pub fn data(input: &[u8], body_bytes_max: usize) -> Option<(&[u8], &[u8])> {
    let (header, rest) = input.split_first_chunk::<HEADER_BYTES>()?;
    let declared = (u32::from_be_bytes(*header) ^ DATA_HEADER) as usize;
    // Of another kind it would be longer than any body can be.
    if declared > body_bytes_max.min(BODY_BYTES_MAX) { None } else { rest.split_at_checked(declared) }
}

/// The header of a Data packet without a body.
const DATA_HEADER: u32 = (PacketKind::Data as u32) << 24;

/// The header of a packet with a body of `body_bytes`.
///
/// # Panics
///
/// When `body_bytes` is over [`BODY_BYTES_MAX`]: the caller bounds what it sends.
#[inline]
pub fn header(kind: PacketKind, body_bytes: usize) -> [u8; HEADER_BYTES] {
    assert!(
        body_bytes <= BODY_BYTES_MAX,
        "a packet's body is at most {BODY_BYTES_MAX} bytes, not {body_bytes}"
    );
    let [_, high, middle, low] = (body_bytes as u32).to_be_bytes();
    [kind as u8, high, middle, low]
}

/// Appends a whole packet.
///
/// # Panics
///
/// As [`header`].
pub fn encode(kind: PacketKind, body: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_BYTES + body.len());
    out.extend_from_slice(&header(kind, body.len()));
    out.extend_from_slice(body);
}

impl PacketKind {
    /// The kind that this type byte names.
    #[inline]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Handshake,
            2 => Self::HandshakeAck,
            3 => Self::Heartbeat,
            4 => Self::Data,
            5 => Self::Kick,
            _ => return None,
        })
    }
}

/// Cuts a stream into packets and owns the incomplete rest; for tools and tests.
///
/// Complete packets are borrowed from the input; only a packet that is cut is copied, as its bytes arrive, and never
/// more of it than the cap and a header.
///
/// ```
/// use wire::packet::{PacketDecoder, PacketKind};
///
/// let mut decoder = PacketDecoder::new(1024);
/// let mut kinds = Vec::new();
/// for mut piece in [&b"\x03\x00"[..], &b"\x00\x00\x02\x00\x00\x00"[..]] {
///     while let Some(packet) = decoder.next(&mut piece).unwrap() {
///         kinds.push(packet.kind);
///     }
/// }
/// assert_eq!(kinds, [PacketKind::Heartbeat, PacketKind::HandshakeAck]);
/// ```
#[derive(Debug)]
pub struct PacketDecoder {
    tail: Vec<u8>,
    tail_was_given: bool,
    body_bytes_max: usize,
    failed: Option<PacketError>,
}

impl PacketDecoder {
    /// A decoder that refuses bodies over `body_bytes_max`.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { tail: Vec::new(), tail_was_given: false, body_bytes_max, failed: None }
    }

    /// The next packet of the stream that goes on with `input`, which shrinks by what was taken. `None`: `input` is
    /// used up. After an error every call returns it again.
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Packet<'a>>, PacketError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if self.tail_was_given {
            self.tail.clear();
            self.tail_was_given = false;
        }
        if self.tail.is_empty() {
            match decode(input, self.body_bytes_max) {
                Ok(Decoded::Complete { item, consumed }) => {
                    *input = &input[consumed..];
                    return Ok(Some(item));
                }
                Ok(Decoded::Incomplete { .. }) if input.is_empty() => return Ok(None),
                Ok(Decoded::Incomplete { .. }) => {}
                Err(error) => return Err(*self.failed.insert(error)),
            }
        }
        if !self.complete_tail(input)? {
            return Ok(None);
        }
        self.tail_was_given = true;
        match decode(&self.tail, self.body_bytes_max)? {
            Decoded::Complete { item, .. } => Ok(Some(item)),
            Decoded::Incomplete { .. } => Ok(None),
        }
    }

    /// A body longer than this is refused from here on (also one whose header has been seen already).
    pub fn set_body_bytes_max(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// Bytes of a packet that is not complete yet.
    pub fn buffered(&self) -> usize {
        if self.tail_was_given { 0 } else { self.tail.len() }
    }

    /// Bytes of memory held: at most the cap and a header.
    pub fn capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// Moves bytes from `input` until the tail is one whole packet.
    fn complete_tail(&mut self, input: &mut &[u8]) -> Result<bool, PacketError> {
        loop {
            let needed = match decode(&self.tail, self.body_bytes_max) {
                Ok(Decoded::Complete { .. }) => return Ok(true),
                Ok(Decoded::Incomplete { needed }) => needed,
                Err(error) => return Err(*self.failed.insert(error)),
            };
            if input.is_empty() {
                return Ok(false);
            }
            let taken = input.len().min(needed - self.tail.len());
            grow(&mut self.tail, taken, needed);
            self.tail.extend_from_slice(&input[..taken]);
            *input = &input[taken..];
        }
    }
}

/// Room for `more` bytes: doubling as data really arrives, never beyond the item's own size.
pub(crate) fn grow(buffer: &mut Vec<u8>, more: usize, item_bytes: usize) {
    let wanted = buffer.len() + more;
    if wanted > buffer.capacity() {
        let capacity = (buffer.capacity() * 2).min(item_bytes).max(wanted);
        buffer.reserve_exact(capacity - buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    #[test]
    fn the_golden_headers() {
        for (bytes, kind) in
            [("02 00 00 00", PacketKind::HandshakeAck), ("03 00 00 00", PacketKind::Heartbeat)]
        {
            let mut out = Vec::new();
            encode(kind, b"", &mut out);
            assert_eq!(out, hex(bytes));
            let packet = Packet { kind, body: b"" };
            assert_eq!(decode(&out, 0), Ok(Decoded::Complete { item: packet, consumed: 4 }));
        }
        assert_eq!(header(PacketKind::Handshake, 68).to_vec(), hex("01 00 00 44"));
        assert_eq!(header(PacketKind::Data, BODY_BYTES_MAX).to_vec(), hex("04 ff ff ff"));
    }

    #[test]
    fn a_kick_is_a_packet_with_json() {
        let bytes = hex("05 00 00 11  7b 22 72 65 61 73 6f 6e 22 3a 22 6b 69 63 6b 22 7d");
        let packet = Packet { kind: PacketKind::Kick, body: br#"{"reason":"kick"}"# };
        assert_eq!(decode(&bytes, 17), Ok(Decoded::Complete { item: packet, consumed: 21 }));
    }

    #[test]
    fn the_type_is_judged_on_its_byte_and_the_length_on_the_header() {
        for bad in (0..=0).chain(6..=255) {
            assert_eq!(decode(&[bad], 10), Err(PacketError::UnknownType(bad)));
        }
        assert_eq!(decode(&[], 10), Ok(Decoded::Incomplete { needed: 4 }));
        assert_eq!(decode(&[4, 0xff, 0xff], 10), Ok(Decoded::Incomplete { needed: 4 }));
        assert_eq!(
            decode(&[4, 0xff, 0xff, 0xff], 10),
            Err(PacketError::TooLong { declared: BODY_BYTES_MAX, max: 10 })
        );
        assert_eq!(decode(&[4, 0, 0, 11], 10), Err(PacketError::TooLong { declared: 11, max: 10 }));
        assert_eq!(decode(&[4, 0, 0, 10], 10), Ok(Decoded::Incomplete { needed: 14 }));
    }

    #[test]
    fn a_decoder_that_failed_stays_failed() {
        let mut decoder = PacketDecoder::new(10);
        assert_eq!(decoder.next(&mut &[9][..]), Err(PacketError::UnknownType(9)));
        assert_eq!(decoder.next(&mut &[3, 0, 0, 0][..]), Err(PacketError::UnknownType(9)));
        assert_eq!(decoder.capacity(), 0);
    }

    #[test]
    #[should_panic(expected = "at most 16777215 bytes")]
    fn a_body_that_no_header_can_declare_panics() {
        header(PacketKind::Data, BODY_BYTES_MAX + 1);
    }
}
