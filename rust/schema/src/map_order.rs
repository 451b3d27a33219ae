//! The order of a map's entries.

use std::cmp::Ordering;

use crate::plan::Scalar;
use crate::wire::{LEN, Reader};

/// Entries just written, to be put in order: by the key as an unsigned number, the largest first; texts by their bytes,
/// where the end of a text comes after any byte (`ab`, `a`, `b`). It is upb's order, which writes from the back.
pub(crate) struct MapOrder {
    start: usize,
    end: usize,
    entries: Vec<MapEntry>,
}

/// Where an entry lies, counted from the first one.
struct MapEntry {
    number: u64,
    start: usize,
    end: usize,
}

impl MapOrder {
    /// The first entry will be written at `start`.
    pub fn new(start: usize) -> Self {
        Self { start, end: start, entries: Vec::new() }
    }

    /// Where the first one was written.
    pub fn start(&self) -> usize {
        self.start
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The next entry ends here.
    pub fn push(&mut self, key: Scalar<'_>, end: usize) {
        let number = match key {
            Scalar::Bool(key) => u64::from(key),
            Scalar::I32(key) => key as u64,
            Scalar::I64(key) => key as u64,
            Scalar::U32(key) => u64::from(key),
            Scalar::U64(key) => key,
            // A text is read from what was written.
            _ => 0,
        };
        self.entries.push(MapEntry { number, start: self.end - self.start, end: end - self.start });
        self.end = end;
    }

    /// Puts the entries in order; `written` are all of them.
    pub fn sort(mut self, written: &mut [u8]) {
        let order = |a: &MapEntry, b: &MapEntry| {
            let texts = || text_order(key_of(&written[a.start..a.end]), key_of(&written[b.start..b.end]));
            b.number.cmp(&a.number).then_with(texts)
        };
        if self.entries.is_sorted_by(|a, b| order(a, b) != Ordering::Greater) {
            return;
        }
        self.entries.sort_by(order);
        let sorted: Vec<u8> =
            self.entries.iter().flat_map(|entry| &written[entry.start..entry.end]).copied().collect();
        written.copy_from_slice(&sorted);
    }
}

fn text_order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then(b.len().cmp(&a.len()))
}

/// The text that is the key of an entry; empty for a number.
fn key_of(entry: &[u8]) -> &[u8] {
    let mut reader = Reader::new(entry);
    let body = reader.tag().and_then(|_| reader.delimited()).unwrap_or_default();
    let mut reader = Reader::new(body);
    match reader.tag() {
        Ok(tag) if tag & 7 == LEN => reader.delimited().unwrap_or_default(),
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_comes_last() {
        let mut texts = ["", "a", "aa", "aaa", "ab", "b", "ba", "z", "zz", "\u{e9}"];
        texts.sort_by(|a, b| text_order(a.as_bytes(), b.as_bytes()));
        assert_eq!(texts, ["aaa", "aa", "ab", "a", "ba", "b", "zz", "z", "\u{e9}", ""]);
    }
}
