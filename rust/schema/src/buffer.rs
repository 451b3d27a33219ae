//! Bytes to be written, and the place to write at.
//!
//! The vector is longer than what is written, so that a number is one check and one move. The place is passed along as a
//! number and stays in a register: pushed to the vector, each value would wait for the length that the one before has put
//! into memory.

use crate::codec::Raw;
use crate::wire::{VARINT_BYTES_MAX, varint_array, varint_word};

/// What is written, with zeros behind it that may be written over.
pub(crate) struct Buffer<'o> {
    bytes: &'o mut Vec<u8>,
}

impl<'o> Buffer<'o> {
    /// Behind what is there already.
    #[inline(always)]
    pub fn new(bytes: &'o mut Vec<u8>) -> Self {
        bytes.extend_from_slice(&[0; ROOM_BYTES]);
        Self { bytes }
    }

    /// What was written ends here.
    #[inline(always)]
    pub fn finish(self, end: usize) {
        self.bytes.truncate(end);
    }

    /// What was written from `start` to `end`.
    pub fn written(&mut self, start: usize, end: usize) -> &mut [u8] {
        self.bytes.get_mut(start..end).unwrap_or_default()
    }

    /// Writes a tag and its value; gives the place behind.
    #[inline(always)]
    pub fn put_tagged(&mut self, at: usize, tag: u32, value: Raw<'_>) -> usize {
        match value {
            Raw::Varint(value) => {
                let (Some(place), 0..0x80) = (self.place(at), tag) else {
                    return self.put_varint_slowly(at, Some(tag), value);
                };
                if value < 0x80 {
                    [place[0], place[1]] = [tag as u8, value as u8];
                    return at + 2;
                }
                let Some((word, length)) = varint_word(value) else {
                    return self.put_varint_slowly(at, Some(tag), value);
                };
                place[0] = tag as u8;
                place[1..9].copy_from_slice(&word.to_le_bytes());
                at + 1 + length
            }
            Raw::Fixed32(bytes) => {
                let (Some(place), 0..0x80) = (self.place(at), tag) else {
                    return self.put_fixed_slowly(at, Some(tag), bytes);
                };
                place[0] = tag as u8;
                place[1..5].copy_from_slice(&bytes);
                at + 5
            }
            Raw::Fixed64(bytes) => {
                let (Some(place), 0..0x80) = (self.place(at), tag) else {
                    return self.put_fixed_slowly(at, Some(tag), bytes);
                };
                place[0] = tag as u8;
                place[1..9].copy_from_slice(&bytes);
                at + 9
            }
            Raw::Bytes(bytes) => {
                let (Some(place), 0..0x80) = (self.place(at), tag) else {
                    return self.put_delimited_slowly(at, tag, bytes);
                };
                // A short text is two numbers, which overlap where it is less than 16 bytes.
                let (Some(first), Some(last), 8..=SHORT_BYTES_MAX) =
                    (bytes.first_chunk::<8>(), bytes.last_chunk::<8>(), bytes.len())
                else {
                    return self.put_delimited_slowly(at, tag, bytes);
                };
                [place[0], place[1]] = [tag as u8, bytes.len() as u8];
                place[2..10].copy_from_slice(first);
                place[bytes.len() - 6..][..8].copy_from_slice(last);
                at + 2 + bytes.len()
            }
        }
    }

    /// Writes a number without a tag; gives the place behind.
    #[inline(always)]
    pub fn put_number(&mut self, at: usize, value: Raw<'_>) -> usize {
        match value {
            Raw::Varint(value) => {
                let Some(place) = self.place(at) else { return self.put_varint_slowly(at, None, value) };
                if value < 0x80 {
                    place[0] = value as u8;
                    return at + 1;
                }
                let Some((word, length)) = varint_word(value) else {
                    return self.put_varint_slowly(at, None, value);
                };
                place[..8].copy_from_slice(&word.to_le_bytes());
                at + length
            }
            Raw::Fixed32(bytes) => {
                let Some(place) = self.place(at) else { return self.put_fixed_slowly(at, None, bytes) };
                place[..4].copy_from_slice(&bytes);
                at + 4
            }
            Raw::Fixed64(bytes) => {
                let Some(place) = self.place(at) else { return self.put_fixed_slowly(at, None, bytes) };
                place[..8].copy_from_slice(&bytes);
                at + 8
            }
            Raw::Bytes(_) => at, // never packed
        }
    }

    /// A tag, and one byte for the length of a body that is not known yet. Gives where the body starts.
    #[inline(always)]
    pub fn begin_body(&mut self, at: usize, tag: u32) -> usize {
        self.put_tagged(at, tag, Raw::Varint(0))
    }

    /// The body that began at `body` ends at `end`: writes its length, and moves it if that needs more than one byte.
    #[inline(always)]
    pub fn end_body(&mut self, body: usize, end: usize) -> usize {
        let length = end - body;
        match self.bytes.get_mut(body - 1) {
            Some(place) if length < 0x80 => {
                *place = length as u8;
                end
            }
            _ => self.end_long_body(body, length),
        }
    }

    #[inline(never)]
    fn end_long_body(&mut self, body: usize, length: usize) -> usize {
        let (prefix, prefix_bytes) = varint_array(length as u64);
        let moved = body + prefix_bytes - 1;
        self.make_room(moved + length, 0);
        self.bytes.copy_within(body..body + length, moved);
        self.bytes[body - 1..moved].copy_from_slice(&prefix[..prefix_bytes]);
        moved + length
    }

    #[inline(always)]
    fn put_bytes(&mut self, at: usize, bytes: &[u8]) -> usize {
        match self.bytes.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                at + bytes.len()
            }
            None => self.put_bytes_growing(at, bytes),
        }
    }

    #[cold]
    fn put_bytes_growing(&mut self, at: usize, bytes: &[u8]) -> usize {
        self.make_room(at, bytes.len());
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        at + bytes.len()
    }

    // What is not one byte of tag and few of value, or where the room is used up.

    #[inline(never)]
    fn put_varint_slowly(&mut self, at: usize, tag: Option<u32>, value: u64) -> usize {
        let at = self.put_tag(at, tag);
        self.put_varint(at, value)
    }

    #[inline(never)]
    fn put_fixed_slowly<const N: usize>(&mut self, at: usize, tag: Option<u32>, bytes: [u8; N]) -> usize {
        let at = self.put_tag(at, tag);
        self.put_bytes(at, &bytes)
    }

    #[inline(never)]
    fn put_delimited_slowly(&mut self, at: usize, tag: u32, bytes: &[u8]) -> usize {
        let at = self.put_tag(at, Some(tag));
        let at = self.put_varint(at, bytes.len() as u64);
        self.put_bytes(at, bytes)
    }

    /// Makes room for a number, and puts its tag there.
    fn put_tag(&mut self, at: usize, tag: Option<u32>) -> usize {
        self.make_room(at, 0);
        match tag {
            Some(tag) => self.put_varint(at, tag.into()),
            None => at,
        }
    }

    fn put_varint(&mut self, at: usize, value: u64) -> usize {
        let (bytes, length) = varint_array(value);
        self.put_bytes(at, &bytes[..length])
    }

    /// Room for a number and its tag; `None`: it is used up.
    #[inline(always)]
    fn place(&mut self, at: usize) -> Option<&mut [u8; PLACE_BYTES]> {
        let end = at.checked_add(PLACE_BYTES)?;
        self.bytes.get_mut(at..end)?.first_chunk_mut()
    }

    /// Makes sure of room for so many bytes, and a number behind them. Grows in proportion to what is written.
    fn make_room(&mut self, at: usize, bytes: usize) {
        let needed = at + bytes + PLACE_BYTES;
        if self.bytes.len() < needed {
            self.bytes.resize(needed.saturating_add(at).saturating_add(ROOM_BYTES), 0);
        }
    }
}

/// Longest text that is written without a call.
const SHORT_BYTES_MAX: usize = 16;
/// A tag and a number at their longest; a short text with its tag and length.
const PLACE_BYTES: usize =
    if 5 + VARINT_BYTES_MAX > 2 + SHORT_BYTES_MAX { 5 + VARINT_BYTES_MAX } else { 2 + SHORT_BYTES_MAX };
/// Room for a small message: a move of a player, not the text that it says.
const ROOM_BYTES: usize = 128;
