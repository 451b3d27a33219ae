//! Numbers and names that a message must not use again.

use std::collections::{BTreeMap, BTreeSet};

/// What is reserved, by a message's full name.
pub type ReservedByMessage = BTreeMap<String, Reserved>;

/// Numbers and names of fields that there once were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reserved {
    /// Their numbers.
    pub numbers: BTreeSet<u32>,
    /// Their names.
    pub names: BTreeSet<String>,
}

impl Reserved {
    /// The numbers as ranges, ends included.
    pub(crate) fn ranges(&self) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for &number in &self.numbers {
            match ranges.last_mut() {
                Some((_, end)) if *end + 1 == number => *end = number,
                _ => ranges.push((number, number)),
            }
        }
        ranges
    }
}
