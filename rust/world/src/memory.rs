//! Address space that never moves: the crate's only unsafe code.
//!
//! A table's columns stand one behind the other in one mapping, each with room for all rows that there may ever be. Pages
//! take memory when they are first written. Whoever holds the [`Arc`] may go on reading and writing, also when the world is gone.

use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};

/// The mapping of one table.
pub struct Memory {
    // Cells: those who were given a pointer (NumPy) write while the world reads, in turns.
    bytes: UnsafeCell<MmapMut>,
    len: usize,
}

// SAFETY: the mapping is plain bytes without ties to a thread. The world and the views that were given its pointers are used in turns
// by one thread; other threads may only drop it, or keep it alive.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// A range of a mapping that is an array of rows, for those who read and write it without the world.
#[derive(Clone)]
pub struct RawColumn {
    /// The first row. Valid for reads and writes of all `rows`, as long as `memory` lives; aligned to a page.
    pub pointer: *mut u8,
    /// Live rows, when this was made.
    pub rows: usize,
    /// Bytes from a row to the next.
    pub stride: usize,
    /// Keeps the memory. `None` if nothing was ever spawned: there are no rows.
    pub memory: Option<Arc<Memory>>,
}

/// Plain numbers: any bytes are a value, and a value has no padding.
pub(crate) trait Plain: Copy + 'static {}
impl Plain for i8 {}
impl Plain for i16 {}
impl Plain for i32 {}
impl Plain for i64 {}
impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for f32 {}
impl Plain for f64 {}

impl Memory {
    /// Reserves `len` bytes, all 0.
    pub fn reserve(len: usize) -> io::Result<Self> {
        let bytes = MmapOptions::new().len(len.max(1)).no_reserve_swap().map_anon()?;
        Ok(Self { bytes: UnsafeCell::new(bytes), len })
    }

    /// `count` numbers from byte `offset`.
    pub(crate) fn slice<T: Plain>(&self, offset: usize, count: usize) -> &[T] {
        let pointer = self.pointer_to::<T>(offset, count);
        // SAFETY: in bounds and aligned, by `pointer_to`; initialised, since mappings start as 0. Nobody writes
        // meanwhile: see `Send`.
        unsafe { std::slice::from_raw_parts(pointer, count) }
    }

    /// The same, to write.
    #[allow(clippy::mut_from_ref)] // one logic thread, in turns; the slices do not outlive the call that asks for them
    pub(crate) fn slice_mut<T: Plain>(&self, offset: usize, count: usize) -> &mut [T] {
        let pointer = self.pointer_to::<T>(offset, count);
        // SAFETY: as in `slice`; the crate holds no other slice of this range while it holds this one.
        unsafe { std::slice::from_raw_parts_mut(pointer, count) }
    }

    /// Copies `len` bytes from one row to another.
    pub(crate) fn copy_within(&self, from: usize, to: usize, len: usize) {
        let (from, to) = (self.pointer_to::<u8>(from, len), self.pointer_to::<u8>(to, len));
        // SAFETY: both in bounds, by `pointer_to`; they may overlap.
        unsafe { std::ptr::copy(from, to, len) }
    }

    /// The address of byte `offset`.
    pub(crate) fn pointer(&self, offset: usize) -> *mut u8 {
        self.pointer_to::<u8>(offset, 0).cast()
    }

    fn pointer_to<T: Plain>(&self, offset: usize, count: usize) -> *mut T {
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(
            end.is_some_and(|end| end <= self.len),
            "a column of {count} rows at {offset} is within {}",
            self.len
        );
        assert!(offset.is_multiple_of(align_of::<T>()), "a column is aligned");
        // SAFETY: `offset <= len`, asserted above; only a pointer is made of the reference to the map.
        unsafe { (*self.bytes.get()).as_mut_ptr().add(offset).cast() }
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes of address space", self.len)
    }
}
