//! A sink that keeps nothing: what is left is the check.

use crate::plan::{Scalar, Sink, Stopped};

/// Takes any message and keeps nothing but the counts of its lists and maps. Of a message within, which may come in pieces, each
/// piece is counted by itself: what is not kept takes no memory.
#[derive(Debug, Clone, Default)]
pub struct Discard {
    /// By slot; only as long as the last list or map that has come.
    counts: Vec<usize>,
}

impl Discard {
    /// Has seen nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the next message, in the same memory.
    pub fn clear(&mut self) {
        self.counts.clear();
    }

    fn one_more(&mut self, slot: u16) {
        let slot = usize::from(slot);
        if slot >= self.counts.len() {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
    }
}

impl Sink for Discard {
    type Child<'a> = Discard;

    fn set(&mut self, _: u16, _: Scalar<'_>) -> Result<(), Stopped> {
        Ok(())
    }

    fn message(&mut self, _: u16) -> Result<Self, Stopped> {
        Ok(Self::new())
    }

    fn item(&mut self, slot: u16, _: Scalar<'_>) -> Result<(), Stopped> {
        self.one_more(slot);
        Ok(())
    }

    fn message_item(&mut self, slot: u16) -> Result<Self, Stopped> {
        self.one_more(slot);
        Ok(Self::new())
    }

    fn entry(&mut self, slot: u16, _: Scalar<'_>, _: Scalar<'_>) -> Result<(), Stopped> {
        self.one_more(slot);
        Ok(())
    }

    fn message_entry(&mut self, slot: u16, _: Scalar<'_>) -> Result<Self, Stopped> {
        self.one_more(slot);
        Ok(Self::new())
    }

    fn choose(&mut self, _: u16, _: u16) -> Result<(), Stopped> {
        Ok(())
    }

    fn count(&self, slot: u16) -> usize {
        self.counts.get(usize::from(slot)).copied().unwrap_or(0)
    }
}
