//! The wire format below the fields: tags, varints, lengths.
//!
//! Lenient and strict exactly where google's upb is: a varint's bits beyond 64 are dropped, a tag or a length has at
//! most five bytes, a number that is too big for its kind loses its high bits.

/// What is left of a message. Functions that are not inlined take it by value and give it back, so that it can stay in
/// registers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
}

/// Why bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They end inside of a value.
    #[error("the bytes end inside of a value")]
    Truncated,
    /// A varint of more than ten bytes, or a tag of more than five.
    #[error("a varint is too long")]
    Varint,
    /// A tag with field number 0, or of a wire type that there is not.
    #[error("tag {0} is none that protobuf knows")]
    Tag(u32),
    /// The end of a group that did not begin.
    #[error("a group ends that did not begin")]
    Group,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A packed run that ends inside of an item.
    #[error("a packed list ends inside of an item")]
    Packed,
}

pub(crate) const VARINT: u32 = 0;
pub(crate) const FIXED64: u32 = 1;
pub(crate) const LEN: u32 = 2;
pub(crate) const GROUP: u32 = 3;
pub(crate) const END_GROUP: u32 = 4;
pub(crate) const FIXED32: u32 = 5;

impl<'b> Reader<'b> {
    #[inline(always)]
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Field number times 8, plus the wire type; not yet checked.
    #[inline(always)]
    pub fn tag(&mut self) -> Result<u32, Malformed> {
        let tag = self.up_to::<TAG_BYTES_MAX>()?;
        u32::try_from(tag).map_err(|_| Malformed::Varint)
    }

    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        self.up_to::<VARINT_BYTES_MAX>()
    }

    /// A varint of at most `MAX` bytes.
    #[inline(always)]
    fn up_to<const MAX: usize>(&mut self) -> Result<u64, Malformed> {
        if let [first, rest @ ..] = self.rest
            && *first < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(*first));
        }
        let (value, length) = long_varint::<MAX>(self.rest);
        match self.rest.get(length..) {
            Some(rest) if length > 0 => {
                self.rest = rest;
                Ok(value)
            }
            _ if self.rest.len() < MAX => Err(Malformed::Truncated),
            _ => Err(Malformed::Varint),
        }
    }

    /// A length and the bytes that it announces.
    #[inline(always)]
    pub fn delimited(&mut self) -> Result<&'b [u8], Malformed> {
        let length = match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                usize::from(first)
            }
            _ => self.tag()? as usize,
        };
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(Malformed::Truncated),
        }
    }

    #[inline(always)]
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(Malformed::Truncated),
        }
    }

    /// Goes past the value behind `tag`; a group in it may hold `depth` groups within groups, itself counted.
    ///
    /// `Ok(None)`: too deep.
    pub fn skip(mut self, tag: u32, depth: u32) -> Result<Option<Self>, Malformed> {
        if tag >> 3 == 0 {
            return Err(Malformed::Tag(tag));
        }
        match tag & 7 {
            VARINT => self.varint().map(drop)?,
            FIXED64 => self.fixed::<8>().map(drop)?,
            LEN => self.delimited().map(drop)?,
            FIXED32 => self.fixed::<4>().map(drop)?,
            GROUP => return self.skip_group(tag >> 3, depth),
            END_GROUP => return Err(Malformed::Group),
            _ => return Err(Malformed::Tag(tag)),
        }
        Ok(Some(self))
    }

    #[cold]
    fn skip_group(mut self, number: u32, depth: u32) -> Result<Option<Self>, Malformed> {
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(None);
        };
        loop {
            let tag = self.tag()?;
            if tag == (number << 3 | END_GROUP) {
                return Ok(Some(self));
            }
            match self.skip(tag, depth)? {
                Some(rest) => self = rest,
                None => return Ok(None),
            }
        }
    }
}

/// A varint of up to `MAX` bytes, and how many it has: 0 if it does not end. A pair of numbers stays in registers.
#[inline(never)]
fn long_varint<const MAX: usize>(bytes: &[u8]) -> (u64, usize) {
    if let Some(word) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        // The first byte without its top bit is the last of the varint.
        let ends = !word & TOP_BITS;
        if ends != 0 {
            let length = ends.trailing_zeros() as usize / 8 + 1;
            let value = gather(word & (u64::MAX >> (64 - 8 * length)));
            return if length <= MAX { (value, length) } else { (0, 0) };
        }
    }
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(MAX).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return (value, index + 1);
        }
    }
    (0, 0)
}

/// The bytes of a varint, the first lowest, and how many they are; `None` if they are more than eight.
#[inline(always)]
pub(crate) fn varint_word(value: u64) -> Option<(u64, usize)> {
    // The usual numbers of more than one byte.
    if (0x80..1 << 14).contains(&value) {
        return Some((value & 0x7f | 0x80 | (value << 1 & 0x7f00), 2));
    }
    if (1 << 14..1 << 21).contains(&value) {
        return Some((value & 0x7f | (value << 1 & 0x7f00) | (value << 2 & 0x7f_0000) | 0x8080, 3));
    }
    if value >= 1 << 56 {
        return None;
    }
    let length = varint_bytes(value);
    let continued = TOP_BITS & !(u64::MAX << (8 * (length - 1)));
    Some((spread(value) | continued, length))
}

/// All bytes of a varint.
pub(crate) fn varint_array(mut value: u64) -> ([u8; VARINT_BYTES_MAX], usize) {
    let mut bytes = [0; VARINT_BYTES_MAX];
    let mut length = 0;
    while value >= 0x80 {
        bytes[length] = value as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    bytes[length] = value as u8;
    (bytes, length + 1)
}

/// Puts 7 bits into each byte: 28 in each half, 14 in each quarter, 7 in each eighth.
#[inline(always)]
fn spread(value: u64) -> u64 {
    let value = value & 0x0000_0000_0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x0fff_c000_0fff_c000) << 2;
    value & 0x007f_007f_007f_007f | (value & 0x3f80_3f80_3f80_3f80) << 1
}

/// The other way; top bits are dropped.
#[inline(always)]
fn gather(word: u64) -> u64 {
    let word = word & 0x007f_007f_007f_007f | (word & 0x7f00_7f00_7f00_7f00) >> 1;
    let word = word & 0x0000_3fff_0000_3fff | (word & 0x3fff_0000_3fff_0000) >> 2;
    word & 0x0000_0000_0fff_ffff | (word & 0x0fff_ffff_0000_0000) >> 4
}

const TOP_BITS: u64 = 0x8080_8080_8080_8080;

/// How many bytes a varint takes.
#[inline]
pub(crate) fn varint_bytes(value: u64) -> usize {
    (((value | 1).ilog2() + 7) / 7) as usize
}

#[inline(always)]
pub(crate) fn zigzag32(value: i32) -> u32 {
    (value << 1 ^ value >> 31) as u32
}

#[inline(always)]
pub(crate) fn zigzag64(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[inline(always)]
pub(crate) fn unzigzag32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline(always)]
pub(crate) fn unzigzag64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

pub(crate) const VARINT_BYTES_MAX: usize = 10;
/// 29 bits of number and 3 of wire type; lengths, of at most 31 bits, are as long.
const TAG_BYTES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_is_read_as_it_was_written(value: u64, shift in 0u32..64, behind: [u8; 8]) {
            let value = value >> shift;
            let (array, length) = varint_array(value);
            let mut bytes = array[..length].to_vec();
            prop_assert_eq!(length, varint_bytes(value));
            if let Some((word, length)) = varint_word(value) {
                prop_assert_eq!(&word.to_le_bytes()[..length], &bytes);
            }
            for end in 0..bytes.len() {
                prop_assert_eq!(Reader::new(&bytes[..end]).varint(), Err(Malformed::Truncated));
            }
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert!(reader.is_empty());
            bytes.extend(behind);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.rest, behind);
        }

        #[test]
        fn zigzag_there_and_back(value: i64) {
            prop_assert_eq!(unzigzag64(zigzag64(value)), value);
            prop_assert_eq!(unzigzag32(zigzag32(value as i32)), value as i32);
        }
    }

    #[test]
    fn tags_and_varints_end_where_googles_do() {
        let tag = |bytes: &[u8]| Reader::new(bytes).tag();
        assert_eq!(tag(&[0x88, 0x80, 0x80, 0x80, 0x00]), Ok(8));
        assert_eq!(tag(&[0xf8, 0xff, 0xff, 0xff, 0x0f]), Ok(0xffff_fff8));
        assert_eq!(tag(&[0x88, 0x80, 0x80, 0x80, 0x10]), Err(Malformed::Varint));
        assert_eq!(tag(&[0x88, 0x80, 0x80, 0x80, 0x80, 0x00]), Err(Malformed::Varint));
        let mut eleven = [0xff; 11];
        assert_eq!(Reader::new(&eleven).varint(), Err(Malformed::Varint));
        eleven[9] = 0x7f;
        assert_eq!(Reader::new(&eleven).varint(), Ok(u64::MAX));
        eleven[9] = 0x02;
        assert_eq!(Reader::new(&eleven).varint(), Ok(u64::MAX >> 1));
    }

    #[test]
    fn zigzag_of_the_protobuf_documentation() {
        let pairs =
            [(0, 0), (-1, 1), (1, 2), (-2, 3), (0x7fff_ffff, 0xffff_fffe), (-0x8000_0000, 0xffff_ffff)];
        for (value, encoded) in pairs {
            assert_eq!(zigzag32(value), encoded);
        }
    }
}
