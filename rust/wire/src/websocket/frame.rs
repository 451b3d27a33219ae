//! Frames: `fin opcode, mask length, [length], [mask], payload`.

use std::str;

use crate::packet::Decoded;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpCode {
    /// Goes on with a message.
    Continuation = 0,
    /// Begins a message of UTF-8.
    Text = 1,
    /// Begins a message of bytes.
    Binary = 2,
    /// Ends the connection.
    Close = 8,
    /// Is to be answered by a pong.
    Ping = 9,
    /// Answers a ping.
    Pong = 10,
}

/// Who reads: a server's input is masked, a client's is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Reads masked frames.
    Server,
    /// Reads frames without a mask.
    Client,
}

/// What a reader expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Who it is.
    pub role: Role,
    /// Messages may be compressed: their first frame has the first reserved bit set (RFC 7692).
    pub deflate: bool,
}

impl From<Role> for Reader {
    fn from(role: Role) -> Self {
        Self { role, deflate: false }
    }
}

/// One frame, its payload unmasked in the bytes that it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// It is the last of its message.
    pub fin: bool,
    /// It begins a compressed message.
    pub compressed: bool,
    /// What it is for.
    pub opcode: OpCode,
    /// The payload, without a mask.
    pub payload: &'a mut [u8],
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// It is the last of its message.
    pub fin: bool,
    /// It begins a compressed message.
    pub compressed: bool,
    /// What it is for.
    pub opcode: OpCode,
    /// What its payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// The declared length of the payload.
    pub payload_bytes: usize,
}

/// How a peer broke the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WsError {
    /// RSV bits are for extensions, and none was agreed on.
    #[error("WebSocket frame with reserved bits")]
    ReservedBits,
    /// Opcodes 3 to 7 and 11 to 15 mean nothing.
    #[error("WebSocket opcode {0:#x} is unknown")]
    UnknownOpCode(u8),
    /// A control frame in pieces, or over 125 bytes.
    #[error("WebSocket control frame in pieces or over 125 bytes")]
    BadControl,
    /// From a client, without a mask.
    #[error("WebSocket frame of a client without a mask")]
    MaskMissing,
    /// From a server, with a mask.
    #[error("WebSocket frame of a server with a mask")]
    MaskUnexpected,
    /// A length in more bytes than it needs, or of 64 bits.
    #[error("WebSocket frame length is not in its shortest form")]
    BadLength,
    /// Over the cap.
    #[error("WebSocket frame of {declared} bytes: at most {max} allowed here")]
    TooLong {
        /// The length in the header.
        declared: u64,
        /// The cap that was asked for.
        max: usize,
    },
    /// A continuation of nothing.
    #[error("WebSocket continuation without a message")]
    NothingToContinue,
    /// A new message within a message.
    #[error("WebSocket message begins within another")]
    MessageInMessage,
    /// Text, or the reason of a close, that is no UTF-8.
    #[error("WebSocket text is not UTF-8")]
    NotUtf8,
    /// A close frame with one byte, or a code that must not be sent.
    #[error("WebSocket close frame with a bad code")]
    BadClose,
}

impl WsError {
    /// The code to close with.
    pub fn close_code(self) -> u16 {
        match self {
            Self::TooLong { .. } => CLOSE_TOO_BIG,
            Self::NotUtf8 => CLOSE_BAD_DATA,
            _ => CLOSE_PROTOCOL_ERROR,
        }
    }
}

/// Done.
pub const CLOSE_NORMAL: u16 = 1000;
/// The server stops, or the page is left.
pub const CLOSE_GOING_AWAY: u16 = 1001;
/// The peer broke a rule.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;
/// The peer sent text where bytes are spoken, or the other way round.
pub const CLOSE_UNSUPPORTED: u16 = 1003;
/// Never sent: the close frame had no code.
pub const CLOSE_NO_CODE: u16 = 1005;
/// Never sent: there was no close frame.
pub const CLOSE_ABNORMAL: u16 = 1006;
/// Text that is no UTF-8.
pub const CLOSE_BAD_DATA: u16 = 1007;
/// The peer broke a rule of the server.
pub const CLOSE_POLICY: u16 = 1008;
/// Over a cap.
pub const CLOSE_TOO_BIG: u16 = 1009;

/// The longest header: two bytes, a length of eight, a mask.
pub const FRAME_HEAD_BYTES_MAX: usize = 2 + 8 + 4;

/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Reads the frame at the start of `input` and unmasks its payload there, once it is complete.
///
/// `max` bounds the payload; it is judged on the declared length. Only the `consumed` bytes
/// of a complete frame are changed.
#[inline]
pub fn decode_frame(
    input: &mut [u8],
    reader: impl Into<Reader>,
    max: usize,
) -> Result<Decoded<Frame<'_>>, WsError> {
    let (head, head_bytes) = match decode_frame_head(input, reader, max)? {
        Decoded::Complete { item, consumed } => (item, consumed),
        Decoded::Incomplete { needed } => return Ok(Decoded::Incomplete { needed }),
    };
    let total = head_bytes + head.payload_bytes;
    match input.get_mut(head_bytes..total) {
        None => Ok(Decoded::Incomplete { needed: total }),
        Some(payload) => {
            if let Some(mask) = head.mask {
                apply_mask(payload, mask);
            }
            let FrameHead { fin, compressed, opcode, .. } = head;
            let item = Frame { fin, compressed, opcode, payload };
            Ok(Decoded::Complete { item, consumed: total })
        }
    }
}

/// Reads a frame's header; each byte is judged as soon as it is there.
#[inline]
pub fn decode_frame_head(
    input: &[u8],
    reader: impl Into<Reader>,
    max: usize,
) -> Result<Decoded<FrameHead>, WsError> {
    let Reader { role, deflate } = reader.into();
    let Some(&first) = input.first() else {
        return Ok(Decoded::Incomplete { needed: 2 });
    };
    let compressed = first & RSV1 != 0;
    if first & RSV & !RSV1 != 0 || compressed && !deflate {
        return Err(WsError::ReservedBits);
    }
    let fin = first & FIN != 0;
    let opcode = OpCode::from_bits(first & 0x0f)?;
    if compressed && !matches!(opcode, OpCode::Text | OpCode::Binary) {
        return Err(WsError::ReservedBits);
    }
    if opcode.is_control() && !fin {
        return Err(WsError::BadControl);
    }
    let Some(&second) = input.get(1) else {
        return Ok(Decoded::Incomplete { needed: 2 });
    };
    let masked = second & MASKED != 0;
    match role {
        Role::Server if !masked => return Err(WsError::MaskMissing),
        Role::Client if masked => return Err(WsError::MaskUnexpected),
        _ => {}
    }
    let short = second & !MASKED;
    if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
        return Err(WsError::BadControl);
    }
    let length_bytes = match short {
        LENGTH_16 => 2,
        LENGTH_64 => 8,
        _ => 0,
    };
    let needed = 2 + length_bytes + if masked { 4 } else { 0 };
    let declared = match (length_bytes, &input[2..]) {
        (0, _) => u64::from(short),
        (2, [a, b, ..]) => u64::from(u16::from_be_bytes([*a, *b])),
        (8, [a, b, c, d, e, f, g, h, ..]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        _ => return Ok(Decoded::Incomplete { needed }),
    };
    let shortest = match length_bytes {
        0 => true,
        2 => declared > CONTROL_BYTES_MAX as u64,
        _ => declared > u64::from(u16::MAX) && declared >> 63 == 0,
    };
    if !shortest {
        return Err(WsError::BadLength);
    }
    let payload_bytes = match usize::try_from(declared) {
        Ok(bytes) if bytes <= max || opcode.is_control() => bytes,
        _ => return Err(WsError::TooLong { declared, max }),
    };
    let mask = match (masked, &input[2 + length_bytes..]) {
        (false, _) => None,
        (true, &[a, b, c, d, ..]) => Some([a, b, c, d]),
        (true, _) => return Ok(Decoded::Incomplete { needed }),
    };
    Ok(Decoded::Complete {
        item: FrameHead { fin, compressed, opcode, mask, payload_bytes },
        consumed: needed,
    })
}

/// The header of a whole, unmasked frame: what a server sends.
#[inline]
pub fn frame_header(opcode: OpCode, payload_bytes: usize) -> EncodedHead {
    FrameHead { fin: true, compressed: false, opcode, mask: None, payload_bytes }.encode()
}

/// Appends a frame; a client gives a fresh random `mask`.
pub fn encode_frame(opcode: OpCode, fin: bool, mask: Option<[u8; 4]>, payload: &[u8], out: &mut Vec<u8>) {
    let head = FrameHead { fin, compressed: false, opcode, mask, payload_bytes: payload.len() }.encode();
    out.reserve(head.as_slice().len() + payload.len());
    out.extend_from_slice(head.as_slice());
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// The payload of a close frame. The reason is cut to what fits.
pub fn encode_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

/// Code and reason of a close frame's payload; without one, [`CLOSE_NO_CODE`].
pub fn decode_close(payload: &[u8]) -> Result<(u16, &str), WsError> {
    if payload.is_empty() {
        return Ok((CLOSE_NO_CODE, ""));
    }
    let (&code, reason) = payload.split_first_chunk::<2>().ok_or(WsError::BadClose)?;
    let code = u16::from_be_bytes(code);
    if !may_be_sent(code) {
        return Err(WsError::BadClose);
    }
    Ok((code, str::from_utf8(reason).map_err(|_| WsError::NotUtf8)?))
}

/// Whether a close frame may carry this code.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Masks, and unmasks.
#[inline]
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        if let Ok(bytes) = <[u8; 8]>::try_from(&*word) {
            word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// A frame's header as bytes, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct EncodedHead {
    bytes: [u8; FRAME_HEAD_BYTES_MAX],
    len: usize,
}

impl EncodedHead {
    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl FrameHead {
    /// As bytes.
    #[inline]
    pub fn encode(self) -> EncodedHead {
        let mut bytes = [0; FRAME_HEAD_BYTES_MAX];
        bytes[0] =
            if self.fin { FIN } else { 0 } | if self.compressed { RSV1 } else { 0 } | self.opcode as u8;
        let mut len = 2;
        bytes[1] = match self.payload_bytes {
            short @ 0..=CONTROL_BYTES_MAX => short as u8,
            medium @ 0..=0xffff => {
                bytes[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
                len = 4;
                LENGTH_16
            }
            long => {
                bytes[2..10].copy_from_slice(&(long as u64).to_be_bytes());
                len = 10;
                LENGTH_64
            }
        };
        if let Some(mask) = self.mask {
            bytes[1] |= MASKED;
            bytes[len..len + 4].copy_from_slice(&mask);
            len += 4;
        }
        EncodedHead { bytes, len }
    }
}

impl OpCode {
    /// Close, ping and pong: short, whole, and allowed within a message.
    #[inline]
    pub fn is_control(self) -> bool {
        self as u8 >= 8
    }

    #[inline]
    fn from_bits(bits: u8) -> Result<Self, WsError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            unknown => return Err(WsError::UnknownOpCode(unknown)),
        })
    }
}

/// Which frames may follow which: the rules of fragmentation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fragments {
    open: Option<OpCode>,
}

impl Fragments {
    /// Takes note of a frame, and says what it belongs to: a control frame to itself, any other to a message of text
    /// or bytes, which `fin` ends.
    #[inline]
    pub fn check(&mut self, opcode: OpCode, fin: bool) -> Result<OpCode, WsError> {
        let message = match (opcode, self.open) {
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => return Ok(opcode),
            (OpCode::Continuation, Some(open)) => open,
            (OpCode::Continuation, None) => return Err(WsError::NothingToContinue),
            (OpCode::Text | OpCode::Binary, Some(_)) => return Err(WsError::MessageInMessage),
            (OpCode::Text | OpCode::Binary, None) => opcode,
        };
        self.open = if fin { None } else { Some(message) };
        Ok(message)
    }

    /// Whether a message has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// The examples of RFC 6455, section 5.7.
    #[test]
    fn the_examples_of_the_standard() {
        for (bytes, role, fin, opcode, payload) in [
            ("81 05 48 65 6c 6c 6f", Role::Client, true, OpCode::Text, "Hello"),
            ("81 85 37 fa 21 3d 7f 9f 4d 51 58", Role::Server, true, OpCode::Text, "Hello"),
            ("01 03 48 65 6c", Role::Client, false, OpCode::Text, "Hel"),
            ("80 02 6c 6f", Role::Client, true, OpCode::Continuation, "lo"),
            ("89 05 48 65 6c 6c 6f", Role::Client, true, OpCode::Ping, "Hello"),
            ("8a 85 37 fa 21 3d 7f 9f 4d 51 58", Role::Server, true, OpCode::Pong, "Hello"),
        ] {
            let mut bytes = hex(bytes);
            let mask = (role == Role::Server).then_some([0x37, 0xfa, 0x21, 0x3d]);
            let mut out = Vec::new();
            encode_frame(opcode, fin, mask, payload.as_bytes(), &mut out);
            assert_eq!(out, bytes);
            let consumed = bytes.len();
            let mut payload = payload.to_owned().into_bytes();
            let item = Frame { fin, compressed: false, opcode, payload: &mut payload };
            assert_eq!(decode_frame(&mut bytes, role, 5), Ok(Decoded::Complete { item, consumed }));
        }
    }

    #[test]
    fn lengths_at_every_size_cut_everywhere() {
        for len in [0usize, 1, 125, 126, 127, 65_535, 65_536] {
            for (role, mask) in [(Role::Server, Some([1, 2, 3, 4])), (Role::Client, None)] {
                let payload: Vec<u8> = (0..len).map(|index| index as u8).collect();
                let mut bytes = Vec::new();
                encode_frame(OpCode::Binary, true, mask, &payload, &mut bytes);
                let total = bytes.len();
                for cut in (0..total.min(20)).chain([total - 1]) {
                    let before = bytes[..cut].to_vec();
                    let Ok(Decoded::Incomplete { needed }) = decode_frame(&mut bytes[..cut], role, len)
                    else {
                        panic!()
                    };
                    assert!(cut < needed && needed <= total);
                    assert_eq!(bytes[..cut], before);
                }
                let Ok(Decoded::Complete { item, consumed }) = decode_frame(&mut bytes, role, len) else {
                    panic!()
                };
                assert_eq!((&*item.payload, consumed), (&payload[..], total));
                assert!(frame_header(OpCode::Binary, len).as_slice().len() + len <= total);
            }
        }
    }

    #[test]
    fn broken_frames() {
        use WsError::*;
        let long = |declared, max| TooLong { declared, max };
        for (bytes, role, error) in [
            ("c1", Role::Server, ReservedBits),
            ("a1", Role::Server, ReservedBits),
            ("91", Role::Server, ReservedBits),
            ("83", Role::Server, UnknownOpCode(3)),
            ("8f", Role::Server, UnknownOpCode(15)),
            ("09", Role::Server, BadControl),
            ("89 fe", Role::Server, BadControl),
            ("88 ff", Role::Server, BadControl),
            ("82 05", Role::Server, MaskMissing),
            ("82 85", Role::Client, MaskUnexpected),
            ("82 fe 00 7d", Role::Server, BadLength),
            ("82 ff 00 00 00 00 00 00 ff ff", Role::Server, BadLength),
            ("82 ff 80 00 00 00 00 00 00 00", Role::Server, BadLength),
            ("82 fd", Role::Server, long(125, 100)),
            ("82 fe 01 00", Role::Server, long(256, 100)),
            ("82 ff 7f ff ff ff ff ff ff ff", Role::Server, long(i64::MAX as u64, 100)),
        ] {
            assert_eq!(decode_frame(&mut hex(bytes), role, 100), Err(error), "{bytes}");
        }
        assert_eq!(long(1, 0).close_code(), 1009);
        assert_eq!(NotUtf8.close_code(), 1007);
        assert_eq!(BadLength.close_code(), 1002);
    }

    #[test]
    fn control_frames_are_short_whatever_the_cap() {
        assert_eq!(
            decode_frame(&mut hex("89 fd 00 00 00 00"), Role::Server, 0),
            Ok(Decoded::Incomplete { needed: 131 })
        );
    }

    #[test]
    fn what_may_follow_what() {
        use OpCode::*;
        let mut fragments = Fragments::default();
        assert_eq!(fragments.check(Continuation, true), Err(WsError::NothingToContinue));
        assert_eq!(fragments.check(Text, true), Ok(Text));
        assert_eq!(fragments.check(Binary, false), Ok(Binary));
        assert!(fragments.is_open());
        assert_eq!(fragments.check(Ping, true), Ok(Ping));
        assert_eq!(fragments.check(Text, true), Err(WsError::MessageInMessage));
        assert_eq!(fragments.check(Continuation, false), Ok(Binary));
        assert_eq!(fragments.check(Continuation, true), Ok(Binary));
        assert!(!fragments.is_open());
    }

    #[test]
    fn closing_codes_and_reasons() {
        assert_eq!(decode_close(b""), Ok((1005, "")));
        assert_eq!(decode_close(b"\x03\xe8"), Ok((1000, "")));
        assert_eq!(decode_close(b"\x0b\xb8bye"), Ok((3000, "bye")));
        assert_eq!(decode_close(b"\x03"), Err(WsError::BadClose));
        assert_eq!(decode_close(b"\x03\xe8\xff"), Err(WsError::NotUtf8));
        for bad in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(decode_close(&u16::to_be_bytes(bad)), Err(WsError::BadClose), "{bad}");
        }
        let mut out = Vec::new();
        encode_close(1001, &"é".repeat(100), &mut out);
        assert_eq!(decode_close(&out), Ok((1001, &*"é".repeat(61))));
    }

    #[test]
    fn masking_twice_is_nothing() {
        for len in 0..40 {
            let plain: Vec<u8> = (0..len).collect();
            let mut masked = plain.clone();
            apply_mask(&mut masked, [9, 8, 7, 6]);
            assert!(masked.iter().zip(&plain).enumerate().all(|(at, (a, b))| a ^ b == [9, 8, 7, 6][at % 4]));
            apply_mask(&mut masked, [9, 8, 7, 6]);
            assert_eq!(masked, plain);
        }
    }
}
