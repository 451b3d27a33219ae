//! Buffers that find their way home.
//!
//! A [`Block`] is a `Vec<u8>` on loan: dropping it, also while a panic unwinds, empties it and puts it back. So a
//! connection can borrow memory for the moment in which it has something to keep, and own none while it is idle.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Free blocks of four sizes. A clone is another handle to the same blocks.
#[derive(Clone, Default)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// A pool without any block; they are allocated as they are first needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// A block with room for at least `bytes_min`: the most recently returned one of its size, so that it is likely
    /// to be in the cache, or a new one. Above the largest size, plain memory that is given back to the system.
    #[inline]
    pub fn take(&self, bytes_min: usize) -> Block {
        let class = class_for(bytes_min);
        let reused = {
            let mut shelf = self.shared.shelf(class);
            let reused = shelf.free.pop();
            shelf.out += 1;
            shelf.high_water = shelf.high_water.max(shelf.out);
            match reused {
                Some(_) => shelf.hits += 1,
                None => shelf.misses += 1,
            }
            reused
        };
        let mut memory = reused.unwrap_or_else(|| {
            let bytes = CLASS_BYTES.get(class).copied().unwrap_or(bytes_min);
            Box::new(Memory { bytes: Vec::with_capacity(bytes), class: class as u8, home: None })
        });
        memory.home = Some(Arc::clone(&self.shared));
        Block { memory: Some(memory) }
    }

    /// What the pool did so far.
    pub fn stats(&self) -> PoolStats {
        let mut stats = PoolStats::default();
        for class in 0..SHELVES {
            let shelf = self.shared.shelf(class);
            stats.out += shelf.out;
            stats.high_water += shelf.high_water;
            stats.hits += shelf.hits;
            stats.misses += shelf.misses;
            stats.free_bytes += shelf.free.len() * CLASS_BYTES.get(class).copied().unwrap_or(0);
        }
        stats
    }

    /// Bytes of blocks that were given back to the system, since there were too many of them; counted from 0 again.
    pub fn take_released(&self) -> u64 {
        self.shared.released.swap(0, Ordering::Relaxed)
    }

    /// Gives all free blocks back to the system.
    pub fn trim(&self) {
        for class in 0..SHELVES {
            let free = std::mem::take(&mut self.shared.shelf(class).free);
            drop(free); // outside of the lock
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

/// Counters of a [`Pool`], over all sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Blocks on loan now. Zero when nothing is in flight, or something leaked.
    pub out: usize,
    /// The most that were on loan at once, added up over the sizes.
    pub high_water: usize,
    /// Loans that a returned block served.
    pub hits: u64,
    /// Loans that had to allocate.
    pub misses: u64,
    /// Memory waiting to be used again.
    pub free_bytes: usize,
}

/// A buffer on loan from a [`Pool`]. Returns itself when dropped.
pub struct Block {
    // One pointer wide. `None` only inside of `drop`.
    memory: Option<Box<Memory>>,
}

impl Block {
    /// Moves to a block with room for at least `bytes_min` in all, with the same content. Does nothing if there is room.
    pub fn grow(&mut self, pool: &Pool, bytes_min: usize) {
        if self.capacity() < bytes_min {
            let mut larger = pool.take(bytes_min);
            larger.extend_from_slice(self);
            *self = larger;
        }
    }
}

impl Deref for Block {
    type Target = Vec<u8>;

    #[inline]
    fn deref(&self) -> &Vec<u8> {
        &self.memory.as_ref().expect("a block has memory until it is dropped").bytes
    }
}

impl DerefMut for Block {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.memory.as_mut().expect("a block has memory until it is dropped").bytes
    }
}

impl Drop for Block {
    #[inline]
    fn drop(&mut self) {
        let Some(mut memory) = self.memory.take() else { return };
        let Some(home) = memory.home.take() else { return };
        let class = usize::from(memory.class);
        memory.bytes.clear();
        // Someone wrote more than there was room for: the Vec grew, and is no longer of its size.
        let fits = CLASS_BYTES.get(class).is_some_and(|&bytes| memory.bytes.capacity() == bytes);
        let mut shelf = home.shelf(class);
        shelf.out -= 1;
        if fits && shelf.free.len() < FREE_MAX[class] {
            shelf.free.push(memory);
        } else {
            home.released.fetch_add(memory.bytes.capacity() as u64, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block of {} bytes (room for {})", self.len(), self.capacity())
    }
}

struct Memory {
    bytes: Vec<u8>,
    class: u8,
    // Set while on loan; without it, a free block would keep its own pool alive.
    home: Option<Arc<Shared>>,
}

#[derive(Default)]
struct Shared {
    shelves: [Mutex<Shelf>; SHELVES],
    released: AtomicU64,
}

impl Shared {
    #[inline]
    fn shelf(&self, class: usize) -> std::sync::MutexGuard<'_, Shelf> {
        // Nothing that may panic runs under the lock, so a poisoned shelf is whole.
        self.shelves[class].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stack, not a queue: the block that was used last is the one still in the cache. A mutex that is almost never
/// contended (each reactor has its own pool) costs the same two atomic operations as a lock-free queue, and guards
/// the counters as well.
#[derive(Default)]
struct Shelf {
    #[allow(clippy::vec_box)] // boxes go in and out whole: a Block is one pointer
    free: Vec<Box<Memory>>,
    out: usize,
    high_water: usize,
    hits: u64,
    misses: u64,
}

#[inline]
fn class_for(bytes: usize) -> usize {
    match bytes {
        0..=512 => 0,
        513..=2_048 => 1,
        2_049..=16_384 => 2,
        16_385..=65_536 => 3,
        65_537..=262_144 => 4,
        _ => LARGE,
    }
}

/// 512 for packets that must stay replaceable on their own, 2 KiB for a pass of small answers, 16 KiB for the largest
/// body that is accepted by default, 64 KiB for one receive, 256 KiB for what is truly large.
const CLASS_BYTES: [usize; LARGE] = [512, 2 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Where blocks above the largest size are counted.
const LARGE: usize = 5;
const SHELVES: usize = LARGE + 1;
/// What may lie idle: 0.5 + 2 + 2 + 2 + 2 MiB.
const FREE_MAX: [usize; SHELVES] = [1024, 1024, 128, 32, 8, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_dropped_block_is_handed_out_again_empty() {
        let pool = Pool::new();
        let mut block = pool.take(100);
        block.extend_from_slice(b"secret");
        let at = block.as_ptr();
        drop(block);
        let block = pool.take(400);
        assert_eq!((block.as_ptr(), block.len()), (at, 0));
        let stats = pool.stats();
        assert_eq!((stats.out, stats.hits, stats.misses, stats.high_water), (1, 1, 1, 1));
    }

    #[test]
    fn a_block_has_the_room_that_was_asked_for() {
        let pool = Pool::new();
        for bytes in [0, 1, 512, 513, 2048, 2049, 16384, 16385, 65536, 65537, 262_144, 262_145, 3 << 20] {
            assert!(pool.take(bytes).capacity() >= bytes, "{bytes}");
        }
        assert_eq!(pool.stats().out, 0);
    }

    #[test]
    fn a_panic_returns_the_block() {
        let pool = Pool::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut block = pool.take(10);
            block.push(1);
            panic!("in the middle of writing");
        }));
        assert!(panicked.is_err());
        assert_eq!((pool.stats().out, pool.stats().free_bytes), (0, 512));
    }

    #[test]
    fn a_block_that_grew_is_not_kept() {
        let pool = Pool::new();
        let mut block = pool.take(2048);
        block.resize(5000, 0);
        drop(block);
        assert_eq!((pool.stats().out, pool.stats().free_bytes), (0, 0));
    }

    #[test]
    fn above_the_largest_size_memory_is_given_back() {
        let pool = Pool::new();
        for _ in 0..2 {
            drop(pool.take(1 << 20));
        }
        let stats = pool.stats();
        assert_eq!((stats.out, stats.hits, stats.misses, stats.free_bytes), (0, 0, 2, 0));
    }

    #[test]
    fn what_lies_idle_is_bounded() {
        let pool = Pool::new();
        let blocks: Vec<_> = (0..20).map(|_| pool.take(256 << 10)).collect();
        drop(blocks);
        assert_eq!(pool.stats().free_bytes, 8 * (256 << 10));
        assert_eq!((pool.take_released(), pool.take_released()), (12 * (256 << 10), 0));
        pool.trim();
        assert_eq!(pool.stats().free_bytes, 0);
    }

    #[test]
    fn growing_keeps_the_content() {
        let pool = Pool::new();
        let mut block = pool.take(512);
        block.extend_from_slice(&[7; 512]);
        block.grow(&pool, 600);
        assert_eq!((block.len(), block.capacity()), (512, 2048));
        assert_eq!(block.as_slice(), [7; 512]);
        assert_eq!(pool.stats().out, 1);
    }

    #[test]
    fn a_dropped_pool_frees_its_blocks() {
        let pool = Pool::new();
        let weak = Arc::downgrade(&pool.shared);
        drop(pool.take(1));
        drop(pool);
        assert!(weak.upgrade().is_none());
    }
}
