//! Bytes to be written: a piece on the stack, in front of the vector where they belong.
//!
//! A number goes into the piece with one check and one move, and its place stays in a register. Pushed to a vector, each
//! would wait for the length that the one before has put into memory.

use crate::codec::Raw;
use crate::wire::{varint_array, varint_word};

/// What comes next, until it is [flushed](Piece::flush).
pub(crate) struct Piece {
    bytes: [u8; PIECE_BYTES],
    used: usize,
}

impl Piece {
    #[inline(always)]
    pub fn new() -> Self {
        Self { bytes: [0; PIECE_BYTES], used: 0 }
    }

    /// Appends what there is to `out`, and begins anew.
    #[inline(always)]
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        if self.used > 0 {
            out.extend_from_slice(&self.bytes[..self.used.min(PIECE_BYTES)]);
            self.used = 0;
        }
    }

    /// A tag and its value.
    #[inline(always)]
    pub fn put_tagged(&mut self, tag: u32, value: Raw<'_>, out: &mut Vec<u8>) {
        if tag >= 0x80 {
            self.put(Raw::Varint(tag.into()), out);
            return self.put(value, out);
        }
        let tag = tag as u8;
        match value {
            Raw::Varint(value @ 0..0x80) => self.put_bytes([tag, value as u8], 2, out),
            Raw::Fixed32([a, b, c, d]) => self.put_bytes([tag, a, b, c, d], 5, out),
            Raw::Bytes(value) if value.len() < 0x80 => {
                self.put_bytes([tag, value.len() as u8], 2, out);
                self.put_slice(value, out);
            }
            value => {
                self.put_bytes([tag], 1, out);
                self.put(value, out);
            }
        }
    }

    #[inline(always)]
    pub fn put(&mut self, value: Raw<'_>, out: &mut Vec<u8>) {
        match value {
            Raw::Varint(value @ 0..0x80) => self.put_bytes([value as u8], 1, out),
            Raw::Varint(value) => match varint_word(value) {
                Some((word, length)) => self.put_bytes(word.to_le_bytes(), length, out),
                None => {
                    let (bytes, length) = varint_array(value);
                    self.put_bytes(bytes, length, out);
                }
            },
            Raw::Fixed32(bytes) => self.put_bytes(bytes, 4, out),
            Raw::Fixed64(bytes) => self.put_bytes(bytes, 8, out),
            Raw::Bytes(value) => {
                self.put(Raw::Varint(value.len() as u64), out);
                self.put_slice(value, out);
            }
        }
    }

    /// The first `length` of these bytes; the others may be overwritten by what follows.
    #[inline(always)]
    fn put_bytes<const N: usize>(&mut self, bytes: [u8; N], length: usize, out: &mut Vec<u8>) {
        if self.used > PIECE_BYTES - N {
            self.flush(out);
        }
        self.bytes[self.used..][..N].copy_from_slice(&bytes);
        self.used += length;
    }

    #[inline(always)]
    fn put_slice(&mut self, value: &[u8], out: &mut Vec<u8>) {
        match self.bytes.get_mut(self.used..).and_then(|rest| rest.get_mut(..value.len())) {
            Some(place) => {
                place.copy_from_slice(value);
                self.used += value.len();
            }
            None => {
                self.flush(out);
                out.extend_from_slice(value);
            }
        }
    }
}

/// A tag, and one byte for the length of a body that is not known yet. Gives where the body starts.
#[inline(always)]
pub(crate) fn begin_body(tag: u32, out: &mut Vec<u8>) -> usize {
    if tag < 0x80 {
        out.extend_from_slice(&[tag as u8, 0]);
    } else {
        let (bytes, length) = varint_array(tag.into());
        out.extend_from_slice(&bytes[..length]);
        out.push(0);
    }
    out.len()
}

/// The body that began at `body` ends: writes its length, and moves it if that needs more than one byte.
#[inline(always)]
pub(crate) fn end_body(body: usize, out: &mut Vec<u8>) {
    let length = out.len() - body;
    if length < 0x80 {
        out[body - 1] = length as u8;
    } else {
        end_long_body(body, length, out);
    }
}

#[inline(never)]
fn end_long_body(body: usize, length: usize, out: &mut Vec<u8>) {
    let (prefix, prefix_bytes) = varint_array(length as u64);
    let moved = body + prefix_bytes - 1;
    out.resize(moved + length, 0);
    out.copy_within(body..body + length, moved);
    out[body - 1..moved].copy_from_slice(&prefix[..prefix_bytes]);
}

/// Room for a small message: a move of a player, not the text that it says.
const PIECE_BYTES: usize = 128;
