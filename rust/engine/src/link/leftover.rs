//! What WebSocket frames left: the beginning of a packet that spans them, or packets beyond the budget.

/// Bytes that are taken from the front, and rarely moved for it: each byte at most once for each that was taken.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    bytes: Vec<u8>,
    start: usize,
}

impl Leftover {
    /// What has not been taken yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Appends.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes so many bytes from the front. An empty one keeps no memory.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.is_empty() {
            *self = Self::default();
        } else if self.start > self.bytes.len() / 2 {
            // What is moved is less than what was taken since the last move.
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `step` at a time; says how many bytes were moved on the way. What is not moved lies where it lay.
    fn moved(bytes: usize, step: usize) -> usize {
        let content: Vec<u8> = (0..bytes).map(|place| (place % 251) as u8).collect();
        let mut leftover = Leftover::default();
        leftover.extend(&content);
        let (mut taken, mut moved) = (0, 0);
        while !leftover.is_empty() {
            let before = leftover.rest().as_ptr().addr();
            let step = step.min(leftover.rest().len());
            leftover.consume(step);
            taken += step;
            assert_eq!(leftover.rest(), &content[taken..]);
            if leftover.rest().as_ptr().addr() != before + step {
                moved += leftover.rest().len();
            }
            // As much again is kept in vain, at most.
            assert!(leftover.bytes.len() <= 2 * leftover.rest().len().max(1));
        }
        assert_eq!(leftover.bytes.capacity(), 0);
        moved
    }

    #[test]
    fn taking_all_of_it_in_small_steps_moves_each_byte_about_once() {
        for (bytes, step) in [(1, 1), (7, 2), (64 << 10, 128), (1 << 20, 700), (1 << 20, 1 << 19)] {
            let moved = moved(bytes, step);
            assert!(moved <= bytes, "{moved} bytes moved to take {bytes} in steps of {step}");
        }
    }

    #[test]
    fn what_is_appended_comes_behind() {
        let mut leftover = Leftover::default();
        leftover.extend(b"abcd");
        leftover.consume(1);
        leftover.extend(b"ef");
        assert_eq!(leftover.rest(), b"bcdef");
        leftover.consume(4);
        assert_eq!(leftover.rest(), b"f");
    }
}
