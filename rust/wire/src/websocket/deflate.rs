//! `permessage-deflate` (RFC 7692): compressed messages, server role.
//!
//! What a message unpacks to is bounded while it unpacks, whatever it claims. Our own messages never refer to earlier ones: a
//! compressor that remembers them is 300 KB for each connection.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::http::Headers;
use crate::message::InflateError;

/// Whether clients that offer it may compress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DeflateMode {
    /// No.
    #[default]
    Off,
    /// Each message for itself.
    On,
    /// A client's messages may refer to its earlier ones: smaller, and 40 KB of memory for each connection.
    Takeover,
}

/// What was agreed on, and the message that is being unpacked.
#[derive(Debug)]
pub struct Deflate {
    keeps_context: bool,
    /// There while a compressed message is open, and always if it keeps the context.
    inflate: Option<Decompress>,
    is_open: bool,
    produced: usize,
}

impl Deflate {
    /// Takes the first of a client's offers that we can meet. Gives what the answer has to say.
    pub fn agree(headers: &Headers<'_>, mode: DeflateMode) -> Option<(Self, &'static str)> {
        if mode == DeflateMode::Off {
            return None;
        }
        let mut offers =
            headers.all("sec-websocket-extensions").flat_map(|value| value.split(|&byte| byte == b','));
        let forbids_context = offers.find_map(read_offer)?;
        let keeps_context = mode == DeflateMode::Takeover && !forbids_context;
        let answer = match keeps_context {
            true => "permessage-deflate; server_no_context_takeover",
            false => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        };
        Some((Self { keeps_context, inflate: None, is_open: false, produced: 0 }, answer))
    }

    /// A frame of data has come; `compressed`: its first reserved bit is set, which begins a compressed message. Says whether its
    /// payload is to be unpacked.
    pub fn opens(&mut self, is_first: bool, compressed: bool) -> bool {
        if is_first {
            (self.is_open, self.produced) = (compressed, 0);
        }
        self.is_open
    }

    /// Appends what a frame's payload unpacks to; `fin`: it is the last of its message, which may unpack to `max` bytes in all.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        fin: bool,
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), InflateError> {
        self.feed(payload, max, out)?;
        if fin {
            self.feed(&MESSAGE_END, max, out)?;
            self.is_open = false;
            if !self.keeps_context {
                self.inflate = None;
            }
        }
        Ok(())
    }

    fn feed(&mut self, mut input: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
        let inflate = self.inflate.get_or_insert_with(|| Decompress::new(false));
        loop {
            // One byte more than may come: so that one too many is seen.
            let room = (max + 1).saturating_sub(self.produced).min(CHUNK_BYTES);
            if room == 0 {
                return Err(InflateError::TooLong { max });
            }
            let (start, before_in) = (out.len(), inflate.total_in());
            out.resize(start + room, 0);
            let before_out = inflate.total_out();
            let status = inflate.decompress(input, &mut out[start..], FlushDecompress::Sync);
            let produced = (inflate.total_out() - before_out) as usize;
            out.truncate(start + produced);
            let status = status.map_err(|_| InflateError::Malformed)?;
            let taken = (inflate.total_in() - before_in) as usize;
            input = &input[taken..];
            self.produced += produced;
            if self.produced > max {
                return Err(InflateError::TooLong { max });
            }
            if status == Status::StreamEnd {
                // A final block may end before the message does; what follows begins anew (section 7.2.3.4).
                inflate.reset(false);
            }
            if input.is_empty() && produced < room {
                return Ok(());
            }
            if taken == 0 && produced == 0 {
                return Err(InflateError::Malformed);
            }
        }
    }
}

/// Appends a message's bytes packed, if that is smaller, and says whether it did.
pub fn deflate_message(parts: &[&[u8]], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(bytes);
    COMPRESS.with_borrow_mut(|compress| {
        compress.reset();
        for (place, part) in parts.iter().enumerate() {
            let flush = if place + 1 == parts.len() { FlushCompress::Sync } else { FlushCompress::None };
            let mut rest = *part;
            loop {
                let before = compress.total_in();
                // It never grows beyond the room that the message itself would take.
                let status = compress.compress_vec(rest, out, flush);
                rest = &rest[(compress.total_in() - before) as usize..];
                if !matches!(status, Ok(Status::Ok)) || out.len() - start >= bytes {
                    break;
                }
                if rest.is_empty() {
                    break;
                }
            }
            if !rest.is_empty() {
                out.truncate(start);
                return false;
            }
        }
        if !out[start..].ends_with(&MESSAGE_END) || out.len() - start >= bytes {
            out.truncate(start);
            return false;
        }
        out.truncate(out.len() - MESSAGE_END.len());
        true
    })
}

/// Whether an offer can be met, and then whether the client forbids itself to refer to earlier messages.
fn read_offer(offer: &[u8]) -> Option<bool> {
    let mut parts = offer.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
        return None;
    }
    let mut seen = [false; 4];
    for part in parts {
        let (name, value) = match part.iter().position(|&byte| byte == b'=') {
            Some(at) => (part[..at].trim_ascii(), Some(unquoted(part[at + 1..].trim_ascii()))),
            None => (part, None),
        };
        let place = PARAMETERS.iter().position(|known| name.eq_ignore_ascii_case(known))?;
        let is_right = match (place, value) {
            (0 | 1, None) | (2, None) => true,
            (2, Some(bits)) => window_bits(bits).is_some(),
            // A smaller window than the usual one is none of our compressor's.
            (3, Some(bits)) => window_bits(bits) == Some(15),
            _ => false,
        };
        if !is_right || std::mem::replace(&mut seen[place], true) {
            return None;
        }
    }
    Some(seen[0])
}

fn window_bits(value: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.starts_with(['0', '+']))?;
    text.parse().ok().filter(|bits| (8..=15).contains(bits))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

thread_local! {
    static COMPRESS: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

const PARAMETERS: [&[u8]; 4] = [
    b"client_no_context_takeover",
    b"server_no_context_takeover",
    b"client_max_window_bits",
    b"server_max_window_bits",
];
/// What ends a message, and is left out on the wire.
const MESSAGE_END: [u8; 4] = [0, 0, 0xff, 0xff];
const CHUNK_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::parse_head;
    use crate::packet::Decoded;
    use crate::testing::hex;

    fn agreed(lines: &str, mode: DeflateMode) -> Option<(Deflate, &'static str)> {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let Ok(Decoded::Complete { item, .. }) = parse_head(text.as_bytes(), 8192) else { panic!("{text}") };
        Deflate::agree(&item.headers, mode)
    }

    fn on() -> Deflate {
        agreed("Sec-WebSocket-Extensions: permessage-deflate\r\n", DeflateMode::On).unwrap().0
    }

    fn unpack(deflate: &mut Deflate, packed: &[u8], max: usize) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        assert!(deflate.opens(true, true));
        deflate.inflate(packed, true, max, &mut out).map(|()| out)
    }

    /// Section 7.2.3 of the standard.
    #[test]
    fn the_examples_of_the_standard() {
        let mut one = on();
        for packed in [
            "f2 48 cd c9 c9 07 00",
            "00 05 00 fa ff 48 65 6c 6c 6f 00",
            "f3 48 cd c9 c9 07 00 00",
            "f2 48 05 00 00 00 ff ff ca c9 c9 07 00",
        ] {
            assert_eq!(unpack(&mut one, &hex(packed), 5), Ok(b"Hello".to_vec()), "{packed}");
        }
        // The same message twice, the second by reference to the first: only with takeover.
        let lines = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
        let mut keeping = agreed(lines, DeflateMode::Takeover).unwrap().0;
        for packed in ["f2 48 cd c9 c9 07 00", "f2 00 11 00 00"] {
            assert_eq!(unpack(&mut keeping, &hex(packed), 5), Ok(b"Hello".to_vec()), "{packed}");
        }
        let mut forgetting = on();
        assert_eq!(unpack(&mut forgetting, &hex("f2 48 cd c9 c9 07 00"), 5), Ok(b"Hello".to_vec()));
        assert_ne!(unpack(&mut forgetting, &hex("f2 00 11 00 00"), 5), Ok(b"Hello".to_vec()));
    }

    #[test]
    fn the_bound_is_exact() {
        for bytes in [1, 5, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 100_000] {
            let (body, mut packed) = (vec![b'a'; bytes + 20], Vec::new());
            assert!(deflate_message(&[&body], &mut packed));
            assert_eq!(unpack(&mut on(), &packed, bytes + 20).map(|out| out.len()), Ok(bytes + 20));
            for less in [1, 2, 19] {
                let max = bytes + 20 - less;
                assert_eq!(unpack(&mut on(), &packed, max), Err(InflateError::TooLong { max }));
            }
        }
    }

    #[test]
    fn a_bomb_takes_no_memory() {
        let mut bomb = Vec::new();
        let mut compress = Compress::new(Compression::best(), false);
        let zeros = vec![0; 1 << 20];
        for _ in 0..64 {
            let mut rest = &zeros[..];
            while !rest.is_empty() {
                bomb.reserve(4096);
                let before = compress.total_in();
                compress.compress_vec(rest, &mut bomb, FlushCompress::None).unwrap();
                rest = &rest[(compress.total_in() - before) as usize..];
            }
        }
        let mut out = Vec::new();
        let mut deflate = on();
        assert!(deflate.opens(true, true));
        assert_eq!(deflate.inflate(&bomb, false, 65536, &mut out), Err(InflateError::TooLong { max: 65536 }));
        assert!(out.capacity() <= 4 * 65536, "{}", out.capacity());
    }

    #[test]
    fn offers() {
        let offer = |text: &str, mode| {
            agreed(&format!("Sec-WebSocket-Extensions: {text}\r\n"), mode).map(|found| found.1)
        };
        let plain = Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        for good in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "PERMESSAGE-DEFLATE; Client_Max_Window_Bits=\"10\"",
            "x-webkit-deflate-frame, permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; server_max_window_bits=15; client_no_context_takeover",
        ] {
            assert_eq!(offer(good, DeflateMode::On), plain, "{good}");
            assert_eq!(offer(good, DeflateMode::Off), None);
        }
        for bad in [
            "",
            "deflate",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=08",
            "permessage-deflate; client_no_context_takeover=1",
            "permessage-deflate; unknown",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ] {
            assert_eq!(offer(bad, DeflateMode::On), None, "{bad}");
        }
        assert_eq!(offer("permessage-deflate; client_no_context_takeover", DeflateMode::Takeover), plain);
    }

    proptest! {
        #[test]
        fn what_we_pack_unpacks_in_any_pieces(
            words in proptest::collection::vec("[ab]{0,40}|[a-z]{0,9}", 0..60),
            cuts in proptest::collection::vec(0usize..400, 0..6),
        ) {
            let body = words.concat().into_bytes();
            let (first, second) = body.split_at(body.len() / 3);
            let mut packed = b"before".to_vec();
            if !deflate_message(&[first, second], &mut packed) {
                prop_assert_eq!(&packed[..], b"before");
                return Ok(());
            }
            let packed = &packed[6..];
            prop_assert!(packed.len() < body.len());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(packed.len())).collect();
            cuts.sort_unstable();
            let (mut deflate, mut out, mut from) = (on(), Vec::new(), 0);
            prop_assert!(deflate.opens(true, true));
            for cut in cuts {
                deflate.inflate(&packed[from..cut], false, body.len(), &mut out).unwrap();
                from = cut;
            }
            deflate.inflate(&packed[from..], true, body.len(), &mut out).unwrap();
            prop_assert_eq!(out, body);
        }

        #[test]
        fn anything_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..300), max in 0usize..2000) {
            if let Ok(out) = unpack(&mut on(), &bytes, max) {
                prop_assert!(out.len() <= max);
            }
        }
    }
}
