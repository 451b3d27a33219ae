//! Names of entities that never come to mean another one.

use std::fmt;

/// An entity of a table: a slot, and how often it was used before. Once the entity is despawned, the handle is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle {
    /// The slot. Small, and used again.
    pub index: u32,
    /// How many entities had the slot before.
    pub generation: u32,
}

impl Handle {
    /// As a number, never 0: what columns of references hold, and clients' names of entities.
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index + 1)
    }

    /// The inverse of [`Handle::to_bits`]; `None` for 0 and whatever else is no handle.
    #[inline]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let index = (bits as u32).checked_sub(1)?;
        Some(Self { index, generation: (bits >> 32) as u32 })
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}
