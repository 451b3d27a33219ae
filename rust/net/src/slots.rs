//! A table whose places are used again, and whose tokens tell the tenants of one place apart.

/// Names one socket of one reactor. After the socket is closed it names nothing, also when its slot is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// The place in the reactor's table, below 2^24.
    pub slot: u32,
    /// Which tenant of that place.
    pub generation: u32,
}

/// Values by token.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: NONE, len: 0 }
    }

    /// Keeps `value`, or gives it back if all 2^24 places are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<Token, T> {
        let slot = if self.free == NONE {
            if self.entries.len() >= SLOTS_MAX {
                return Err(value);
            }
            self.entries.push(Entry { generation: 0, next_free: NONE, value: None });
            self.entries.len() as u32 - 1
        } else {
            self.free
        };
        let entry = &mut self.entries[slot as usize];
        if slot == self.free {
            self.free = entry.next_free;
        }
        entry.value = Some(value);
        self.len += 1;
        Ok(Token { slot, generation: entry.generation })
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let entry = self.entries.get_mut(token.slot as usize)?;
        if entry.generation != token.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        entry.next_free = self.free;
        self.free = token.slot;
        self.len -= 1;
        Some(value)
    }

    #[inline]
    pub(crate) fn find(&self, token: Token) -> Option<&T> {
        match self.entries.get(token.slot as usize) {
            Some(entry) if entry.generation == token.generation => entry.value.as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, token: Token) -> Option<&mut T> {
        match self.entries.get_mut(token.slot as usize) {
            Some(entry) if entry.generation == token.generation => entry.value.as_mut(),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

const SLOTS_MAX: usize = 1 << 24;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut slots = Slots::new();
        let old = slots.insert("old").unwrap();
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new").unwrap();
        assert_eq!(new.slot, old.slot);
        assert!(slots.find(old).is_none() && slots.find_mut(old).is_none() && slots.remove(old).is_none());
        assert_eq!((slots.find(new), slots.len()), (Some(&"new"), 1));
    }

    #[test]
    fn places_are_used_again() {
        let mut slots = Slots::new();
        let tokens: Vec<_> = (0..10).map(|n| slots.insert(n).unwrap()).collect();
        for &token in &tokens[3..6] {
            slots.remove(token);
        }
        for n in 0..3 {
            assert!((3..6).contains(&slots.insert(n).unwrap().slot));
        }
        assert_eq!(slots.insert(0).unwrap().slot, 10);
    }
}
