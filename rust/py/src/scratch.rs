//! A buffer that is lent, so that a message is written without an allocation.

use std::cell::RefCell;

/// Lends an empty buffer. Game code that runs meanwhile and wants one, too, gets another.
#[inline]
pub fn with_buffer<T>(run: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local!(static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let mut buffer = BUFFER.take();
    buffer.clear();
    let result = run(&mut buffer);
    if buffer.capacity() <= BUFFER_BYTES_MAX {
        BUFFER.set(buffer);
    }
    result
}

/// The lent buffer keeps no more than this.
const BUFFER_BYTES_MAX: usize = 1 << 16;
