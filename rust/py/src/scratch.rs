//! Buffers that are lent, so that a message is written without an allocation.

use std::cell::RefCell;

/// A lent buffer: taken at the first use, given back when this is dropped. Game code that runs meanwhile and wants one, too, gets
/// another.
#[derive(Default)]
pub struct Lent(Option<Vec<u8>>);

impl Lent {
    /// The buffer, empty.
    #[inline]
    pub fn empty(&mut self) -> &mut Vec<u8> {
        let buffer =
            self.0.get_or_insert_with(|| BUFFERS.with_borrow_mut(|kept| kept.pop().unwrap_or_default()));
        buffer.clear();
        buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffer) = self.0.take()
            && buffer.capacity() <= BUFFER_BYTES_MAX
        {
            BUFFERS.with_borrow_mut(|kept| {
                if kept.len() < KEPT_MAX {
                    kept.push(buffer);
                }
            });
        }
    }
}

/// Lends an empty buffer.
#[inline]
pub fn with_buffer<T>(run: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    run(Lent::default().empty())
}

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that is given back keeps no more than this.
const BUFFER_BYTES_MAX: usize = 1 << 16;
/// So many are kept: one for each call of the game's that is within another.
const KEPT_MAX: usize = 4;
