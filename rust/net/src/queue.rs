//! What waits to be sent on one socket.
//!
//! Small reliable packets are written one behind the other into one block, so that a pass of many answers is one
//! segment and one `send`. Everything else (a reference to a block that many connections share, a packet that may
//! still be replaced or dropped) is a segment of its own. The queue is bounded; what happens at the bound is said
//! by each packet's [`Class`].

use crate::pool::{Block, Pool};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

/// What may happen to a packet while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is sent, in order; when there is no room, appending fails and the connection should end.
    Reliable,
    /// An unsent one with the same key is replaced, in its place. These do not count toward the bound but have one of the same
    /// size of their own; what is beyond it is dropped, unless its key says [`KEY_FEW`].
    Latest,
    /// When there is no room, the oldest unsent ones of the lowest priority go.
    Droppable,
}

/// In a key: there are few of them, and large ones, so they count nowhere.
pub const KEY_FEW: u64 = 1 << 61;
/// The two highest bits of a key are the packet's priority, as a signed number: what has a higher one goes before what has not
/// begun to leave, but never before what is reliable. Reliable packets have this one, whatever their key says.
pub const PRIORITY_NORMAL: i8 = 0;
const PRIORITY_SHIFT: u32 = 62;

/// No room for a reliable packet: the client reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{queued} bytes wait to be sent and the bound is {bytes_max} (queue_bytes_max): the client reads too slowly"
)]
pub struct Full {
    /// Bytes that were waiting.
    pub queued: usize,
    /// The bound.
    pub bytes_max: usize,
}

/// Packets in order, bounded in bytes.
#[derive(Debug)]
pub struct SendQueue {
    // The first segment lies in the queue itself: most queues never have a second one, and so never allocate.
    first: Option<Segment>,
    #[allow(clippy::box_collection)] // 8 bytes in place of 32, in every idle connection
    rest: Option<Box<VecDeque<Segment>>>,
    bytes: u32,
    charged: u32,
    bytes_max: u32,
    dropped: u32,
}

impl SendQueue {
    /// An empty queue that holds at most `bytes_max` bytes (at most 1 GiB) of packets that are not `Latest`.
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = clamp(bytes_max);
        Self { first: None, rest: None, bytes: 0, charged: 0, bytes_max, dropped: 0 }
    }

    /// Changes the bound. What is queued already stays.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = clamp(bytes_max);
    }

    /// Appends the packet that `write` appends to the buffer it is given. `write` must only append.
    ///
    /// For packets whose length is not known before: one that does not fit is written, then taken back. When the
    /// length is known, [`SendQueue::append_sized`] is never slower.
    #[inline]
    pub fn append(
        &mut self,
        pool: &Pool,
        class: Class,
        key: u64,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Full> {
        match class {
            Class::Reliable => self.append_reliable(pool, UNSIZED_ROOM, write),
            Class::Latest | Class::Droppable => {
                self.append_replaceable(pool, class, key, UNSIZED_ROOM, write)
            }
        }
    }

    /// Appends the packet of `bytes` bytes that `write` appends to the buffer it is given. A reliable one that does
    /// not fit is refused before `write` runs.
    #[inline]
    pub fn append_sized(
        &mut self,
        pool: &Pool,
        class: Class,
        key: u64,
        bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Full> {
        match class {
            Class::Reliable => {
                if self.make_room(bytes) {
                    self.append_reliable(pool, bytes, write)
                } else {
                    Err(self.full())
                }
            }
            Class::Latest | Class::Droppable => self.append_replaceable(pool, class, key, bytes, write),
        }
    }

    /// Appends a packet that other connections send too: by reference, unless it is small and what waits before it
    /// is small as well; then copying makes one segment of both.
    pub fn append_shared(
        &mut self,
        pool: &Pool,
        class: Class,
        key: u64,
        packet: &Arc<Bytes>,
    ) -> Result<(), Full> {
        if packet.is_empty() {
            return Ok(());
        }
        if class == Class::Reliable && packet.len() <= COPIED_MAX && self.first.is_some() {
            return self.append_sized(pool, class, key, packet.len(), |out| out.extend_from_slice(packet));
        }
        self.push(Segment::Shared(Status { class, key, sent: 0 }, Arc::clone(packet)))
    }

    /// Bytes that wait.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Whether a packet waits that may still be replaced, and whose key has all these bits.
    pub fn has_replaceable(&self, bits: u64) -> bool {
        self.segments().any(|segment| segment.is_unsent(Class::Latest) && segment.status().key & bits == bits)
    }

    /// Packets dropped or replaced since the last call.
    #[inline]
    pub fn take_dropped(&mut self) -> u32 {
        std::mem::take(&mut self.dropped)
    }

    /// Points `out` at what is to be sent first, as much as it takes. Returns how many slices it filled.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slot, segment) in out.iter_mut().zip(self.segments()) {
            *slot = IoSlice::new(segment.unsent());
            filled += 1;
        }
        filled
    }

    /// All that waits if it is in one piece (then one `send` is enough), and how many pieces there are.
    #[inline]
    pub(crate) fn front(&self) -> Option<(&[u8], bool)> {
        let first = self.first.as_ref()?;
        Some((first.unsent(), self.rest.as_ref().is_none_or(|rest| rest.is_empty())))
    }

    /// The first `bytes` bytes have been sent.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.len_bytes());
        let mut left = bytes as u32;
        while let Some(first) = &mut self.first {
            let waits = first.len() as u32 - first.status().sent;
            let leaves = left.min(waits);
            if first.status().class != Class::Latest {
                self.charged -= leaves;
            }
            self.bytes -= leaves;
            left -= leaves;
            if leaves < waits {
                first.status_mut().sent += leaves;
                return;
            }
            self.next_segment();
        }
    }

    /// Drops everything, also what was partly sent: the connection is gone.
    pub fn clear(&mut self) {
        (self.first, self.rest, self.bytes, self.charged) = (None, None, 0, 0);
    }

    #[inline]
    fn append_reliable(
        &mut self,
        pool: &Pool,
        room: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Full> {
        let queued = self.bytes;
        if let Some(open) = self.open_block(pool, room) {
            let added = write_appending(open, write);
            self.bytes += added;
            self.charged += added;
            if self.charged > self.bytes_max && !self.make_room(0) {
                self.take_back(added);
                return Err(Full { queued: queued as usize, bytes_max: self.bytes_max as usize });
            }
            return Ok(());
        }
        let size = match self.last_of_normal() {
            None => FIRST_BLOCK,
            // A full block: the next one is larger, so that what waits long is in few pieces.
            Some(Segment::Block(Status { class: Class::Reliable, .. }, full)) => {
                (full.capacity() * 4).clamp(FIRST_BLOCK, LATER_BLOCK_MAX)
            }
            Some(_) => 0,
        };
        let size = size.max(room);
        let mut block = pool.take(size);
        write_appending(&mut block, write);
        self.push(Segment::Block(Status { class: Class::Reliable, key: 0, sent: 0 }, block))
    }

    fn append_replaceable(
        &mut self,
        pool: &Pool,
        class: Class,
        key: u64,
        room: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Full> {
        let mut block = pool.take(room);
        write_appending(&mut block, write);
        self.push(Segment::Block(Status { class, key, sent: 0 }, block))
    }

    /// The block at the end, if the next reliable packet may go there.
    #[inline]
    fn open_block(&mut self, pool: &Pool, room: usize) -> Option<&mut Block> {
        let (last, alone) = match &mut self.rest {
            Some(rest) if !rest.is_empty() => {
                match rest.iter_mut().rfind(|segment| segment.priority() >= PRIORITY_NORMAL) {
                    Some(last) => (last, false),
                    None => (self.first.as_mut()?, false),
                }
            }
            _ => (self.first.as_mut()?, true),
        };
        if last.status().class != Class::Reliable {
            return None;
        }
        if let Segment::Shared(status, shared) = last
            && shared.len() <= COPIED_MAX
            && shared.len() + room <= FIRST_BLOCK
        {
            // A small broadcast is queued as a reference as long as it is alone. It no longer is.
            let mut block = pool.take(FIRST_BLOCK);
            block.extend_from_slice(shared);
            *last = Segment::Block(*status, block);
        }
        let Segment::Block(_, block) = last else { return None };
        if alone && block.capacity() - block.len() < room && block.len() + room <= GROWN_MAX {
            // Copying 2 KiB costs less than what the kernel asks for a second slice.
            block.grow(pool, GROWN_MAX);
        }
        (block.capacity() - block.len() >= room).then_some(block)
    }

    /// Queues one more segment by the rules of its class.
    fn push(&mut self, segment: Segment) -> Result<(), Full> {
        let Status { class, key, .. } = *segment.status();
        let (bytes, priority) = (segment.len(), segment.priority());
        if bytes == 0 {
            return Ok(());
        }
        if bytes > PACKET_MAX || self.len_bytes() + bytes > 2 * PACKET_MAX {
            return self.refuse(class);
        }
        match class {
            Class::Reliable | Class::Droppable => {
                if !self.make_room_for(bytes + self.overhead(), class, priority) {
                    return self.refuse(class);
                }
            }
            Class::Latest => {
                if let Some(old) = self.find_unsent(key) {
                    let old_bytes = old.len() as u32;
                    *old = segment;
                    self.bytes = self.bytes - old_bytes + bytes as u32;
                    self.dropped = self.dropped.saturating_add(1);
                    return Ok(());
                }
                if key & KEY_FEW == 0 && self.latest_bytes() + bytes + SEGMENT_BYTES > self.bytes_max as usize
                {
                    return self.refuse(class);
                }
            }
        }
        self.bytes += bytes as u32;
        if class != Class::Latest {
            self.charged += (bytes + self.overhead()) as u32;
        }
        self.insert(segment, priority);
        Ok(())
    }

    /// Behind all of its priority and of higher ones, behind reliable ones, and behind what has begun to leave.
    fn insert(&mut self, segment: Segment, priority: i8) {
        let Some(first) = &mut self.first else {
            self.first = Some(segment);
            return;
        };
        let rest = self.rest.get_or_insert_default();
        let goes_before = |other: &Segment| {
            let Status { class, sent, .. } = *other.status();
            class != Class::Reliable && other.priority() < priority && sent == 0
        };
        let at = rest.iter().rposition(|other| !goes_before(other)).map_or(0, |place| place + 1);
        if at > 0 || !goes_before(first) {
            return rest.insert(at, segment);
        }
        // What a segment costs beside its bytes is charged for all but the first.
        let is_charged = |segment: &Segment| segment.status().class != Class::Latest;
        self.charged += if is_charged(first) { SEGMENT_BYTES as u32 } else { 0 };
        self.charged -= if is_charged(&segment) { SEGMENT_BYTES as u32 } else { 0 };
        rest.push_front(std::mem::replace(first, segment));
    }

    /// What waits of the latest that are not few, and what that costs beside its bytes.
    fn latest_bytes(&self) -> usize {
        let counts =
            |segment: &&Segment| segment.is_unsent(Class::Latest) && segment.status().key & KEY_FEW == 0;
        self.segments().filter(counts).map(|segment| segment.len() + SEGMENT_BYTES).sum()
    }

    /// There is no room: that is an error for a packet that has to be sent, and else what was to be expected.
    fn refuse(&mut self, class: Class) -> Result<(), Full> {
        if class == Class::Reliable {
            return Err(self.full());
        }
        self.dropped = self.dropped.saturating_add(1);
        Ok(())
    }

    /// What one more segment costs beside its bytes.
    fn overhead(&self) -> usize {
        if self.first.is_some() { SEGMENT_BYTES } else { 0 }
    }

    /// Whether `bytes` more fit; drops unsent droppable packets, oldest first, as long as they do not.
    #[inline]
    fn make_room(&mut self, bytes: usize) -> bool {
        self.make_room_for(bytes, Class::Reliable, PRIORITY_NORMAL)
    }

    /// The same for a packet of this class: what may be dropped drops none of a higher priority.
    #[inline]
    fn make_room_for(&mut self, bytes: usize, class: Class, priority: i8) -> bool {
        let highest = if class == Class::Reliable { i8::MAX } else { priority };
        self.charged as usize + bytes <= self.bytes_max as usize || self.drop_oldest(bytes, highest)
    }

    #[cold]
    fn drop_oldest(&mut self, bytes: usize, highest: i8) -> bool {
        while self.charged as usize + bytes > self.bytes_max as usize {
            let droppable = |segment: &&Segment| segment.is_unsent(Class::Droppable);
            let lowest = self.segments().filter(droppable).map(Segment::priority).min();
            let Some(lowest) = lowest.filter(|&lowest| lowest <= highest) else { return false };
            let is_oldest = |segment: &Segment| droppable(&segment) && segment.priority() == lowest;
            let Some(at) = self.segments().position(is_oldest) else { return false };
            let gone = match (at, &mut self.rest) {
                (1.., Some(rest)) => {
                    self.charged -= SEGMENT_BYTES as u32;
                    rest.remove(at - 1).map_or(0, |segment| segment.len())
                }
                _ => {
                    let gone = self.first.as_ref().map_or(0, Segment::len);
                    self.next_segment();
                    gone
                }
            };
            self.bytes -= gone as u32;
            self.charged -= gone as u32;
            self.dropped = self.dropped.saturating_add(1);
        }
        true
    }

    /// The first segment is done with.
    #[inline]
    fn next_segment(&mut self) {
        self.first = None;
        let Some(rest) = &mut self.rest else { return };
        self.first = rest.pop_front();
        match &self.first {
            Some(first) if first.status().class != Class::Latest => self.charged -= SEGMENT_BYTES as u32,
            Some(_) => {}
            // A connection that is pushed to at every tick keeps its few slots; a long backlog's memory goes.
            None if rest.capacity() > KEPT_SEGMENTS => self.rest = None,
            None => {}
        }
    }

    /// The last packet did not fit: `bytes` at the end of the open block go.
    #[cold]
    fn take_back(&mut self, bytes: u32) {
        let first = self.first.as_mut();
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        let last = first.into_iter().chain(rest).rfind(|segment| segment.priority() >= PRIORITY_NORMAL);
        if let Some(Segment::Block(_, block)) = last {
            let len = block.len() - bytes as usize;
            block.truncate(len);
            self.bytes -= bytes;
            self.charged -= bytes;
        }
    }

    fn find_unsent(&mut self, key: u64) -> Option<&mut Segment> {
        let first = self.first.iter_mut();
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        first.chain(rest).find(|segment| segment.is_unsent(Class::Latest) && segment.status().key == key)
    }

    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.first.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// The last one that is not of low priority.
    fn last_of_normal(&self) -> Option<&Segment> {
        let last = self
            .rest
            .as_ref()
            .and_then(|rest| rest.iter().rfind(|segment| segment.priority() >= PRIORITY_NORMAL));
        last.or(self.first.as_ref())
    }

    #[cold]
    fn full(&self) -> Full {
        Full { queued: self.len_bytes(), bytes_max: self.bytes_max as usize }
    }
}

/// What is sent in one piece. A tag, the status and one pointer: 32 bytes, in every idle connection.
#[derive(Debug)]
enum Segment {
    Block(Status, Block),
    Shared(Status, Arc<Bytes>),
}

#[derive(Clone, Copy, Debug)]
struct Status {
    sent: u32,
    key: u64,
    class: Class,
}

impl Segment {
    #[inline]
    fn status(&self) -> &Status {
        match self {
            Self::Block(status, _) | Self::Shared(status, _) => status,
        }
    }

    #[inline]
    fn status_mut(&mut self) -> &mut Status {
        match self {
            Self::Block(status, _) | Self::Shared(status, _) => status,
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Block(_, block) => block,
            Self::Shared(_, packet) => packet,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.bytes().len()
    }

    #[inline]
    fn unsent(&self) -> &[u8] {
        &self.bytes()[self.status().sent as usize..]
    }

    #[inline]
    fn priority(&self) -> i8 {
        let status = self.status();
        if status.class == Class::Reliable {
            PRIORITY_NORMAL
        } else {
            (status.key as i64 >> PRIORITY_SHIFT) as i8
        }
    }

    /// Whether it is of this class and can still be taken out.
    fn is_unsent(&self, class: Class) -> bool {
        let status = self.status();
        status.class == class && status.sent == 0
    }
}

/// Lets `write` append to `block`; if it panics, what it wrote is taken back, so that half a packet is never sent.
#[inline]
fn write_appending(block: &mut Block, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
    struct TakeBack<'a>(&'a mut Vec<u8>, usize);
    impl Drop for TakeBack<'_> {
        fn drop(&mut self) {
            self.0.truncate(self.1);
        }
    }
    let before = block.len();
    let mut guard = TakeBack(block, before);
    write(guard.0);
    let after = guard.0.len();
    assert!(after >= before, "a packet's writer must only append");
    guard.1 = after;
    (after - before) as u32
}

fn clamp(bytes_max: usize) -> u32 {
    bytes_max.min(PACKET_MAX) as u32
}

/// A shared packet up to this size is copied when that saves a segment: copying costs less than the kernel's work
/// for one more slice.
const COPIED_MAX: usize = 512;
/// The first block of reliable packets: 30 answers of 64 bytes.
const FIRST_BLOCK: usize = 2048;
/// A first block that is full becomes one of this size: a pass of 230 answers of 64 bytes is still one piece.
const GROWN_MAX: usize = 16 << 10;
/// The largest block that is taken because others are full.
const LATER_BLOCK_MAX: usize = 64 << 10;
/// The room that a packet of unknown length gets. A longer one makes its block grow, which costs an allocation.
const UNSIZED_ROOM: usize = 512;
/// What a segment counts toward the bound beside its bytes: the smallest block, which a packet of one byte may own.
const SEGMENT_BYTES: usize = 512;
/// Lengths are kept in 32 bits.
const PACKET_MAX: usize = 1 << 30;
/// Slots for segments that an empty queue keeps.
const KEPT_SEGMENTS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn content(queue: &SendQueue) -> String {
        let bytes: Vec<u8> = queue.segments().flat_map(|segment| segment.unsent().iter().copied()).collect();
        String::from_utf8(bytes).unwrap()
    }

    fn add(queue: &mut SendQueue, pool: &Pool, class: Class, key: u64, text: &str) -> Result<(), Full> {
        queue.append(pool, class, key, |out| out.extend_from_slice(text.as_bytes()))
    }

    #[test]
    fn reliable_packets_share_a_block() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(10_000));
        for _ in 0..20 {
            add(&mut queue, &pool, Class::Reliable, 0, &"x".repeat(68)).unwrap();
        }
        assert_eq!(queue.segments().count(), 1);
        assert_eq!((queue.len_bytes(), pool.stats().out), (20 * 68, 1));
        queue.advance(20 * 68);
        assert_eq!((queue.len_bytes(), pool.stats().out, queue.is_empty()), (0, 0, true));
    }

    #[test]
    fn a_large_shared_packet_is_a_reference_and_a_small_one_joins_its_neighbours() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(10_000));
        let (large, small) = (Arc::new(Bytes::from(vec![b'L'; 600])), Arc::new(Bytes::from_static(b"small")));
        queue.append_shared(&pool, Class::Reliable, 0, &small).unwrap();
        assert_eq!(pool.stats().out, 0, "alone it is a reference");
        queue.append_shared(&pool, Class::Reliable, 0, &small).unwrap();
        add(&mut queue, &pool, Class::Reliable, 0, "own").unwrap();
        assert_eq!((queue.segments().count(), content(&queue).as_str()), (1, "smallsmallown"));
        queue.append_shared(&pool, Class::Reliable, 0, &large).unwrap();
        assert_eq!((queue.segments().count(), pool.stats().out), (2, 1));
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(queue.slices(&mut slices), 2);
        assert_eq!(slices[1].as_ptr(), large.as_ptr());
    }

    #[test]
    fn the_latest_replaces_an_unsent_one_in_its_place() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(10_000));
        add(&mut queue, &pool, Class::Latest, 1, "one").unwrap();
        add(&mut queue, &pool, Class::Reliable, 0, "-").unwrap();
        add(&mut queue, &pool, Class::Latest, 2, "two").unwrap();
        add(&mut queue, &pool, Class::Latest, 2, "TWO").unwrap();
        assert_eq!(content(&queue), "one-TWO");
        queue.advance(1);
        add(&mut queue, &pool, Class::Latest, 1, "ONE").unwrap();
        assert_eq!(content(&queue), "ne-TWOONE", "its first byte has left, so it is sent to its end");
        assert_eq!(queue.take_dropped(), 1);
    }

    #[test]
    fn the_latest_does_not_count_toward_the_bound() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(1_000));
        add(&mut queue, &pool, Class::Latest, KEY_FEW, &"s".repeat(50_000)).unwrap();
        add(&mut queue, &pool, Class::Reliable, 0, &"r".repeat(400)).unwrap();
        assert!(add(&mut queue, &pool, Class::Reliable, 0, &"r".repeat(400)).is_err());
    }

    #[test]
    fn the_oldest_droppable_goes_first() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(1_600));
        for text in ["a", "b", "c"] {
            add(&mut queue, &pool, Class::Droppable, 0, &text.repeat(180)).unwrap();
        }
        queue.advance(1);
        add(&mut queue, &pool, Class::Droppable, 0, &"d".repeat(180)).unwrap();
        assert_eq!(queue.take_dropped(), 1);
        let left = content(&queue);
        assert!(left.starts_with('a') && !left.contains('b') && left.contains('c') && left.ends_with('d'));
        // A reliable one takes what it needs, and no more.
        add(&mut queue, &pool, Class::Reliable, 0, &"R".repeat(100)).unwrap();
        assert_eq!(queue.take_dropped(), 1);
        assert!(content(&queue).contains('d'));
    }

    #[test]
    fn a_full_queue_says_so_and_keeps_what_it_has() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(100));
        add(&mut queue, &pool, Class::Reliable, 0, &"x".repeat(80)).unwrap();
        let full = Full { queued: 80, bytes_max: 100 };
        assert_eq!(add(&mut queue, &pool, Class::Reliable, 0, &"y".repeat(30)), Err(full));
        assert_eq!(
            queue.append_sized(&pool, Class::Reliable, 0, 30, |_| panic!("not to be asked")),
            Err(full)
        );
        assert_eq!(content(&queue), "x".repeat(80));
        add(&mut queue, &pool, Class::Reliable, 0, &"y".repeat(20)).unwrap();
    }

    #[test]
    fn half_a_packet_is_never_sent() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(10_000));
        for class in [Class::Reliable, Class::Latest, Class::Droppable] {
            for _ in 0..2 {
                add(&mut queue, &pool, Class::Reliable, 0, "whole").unwrap();
                let before = content(&queue);
                let writing = catch_unwind(AssertUnwindSafe(|| {
                    let _ = queue.append(&pool, class, 0, |out| {
                        out.extend_from_slice(b"half");
                        panic!("in the middle of it");
                    });
                }));
                assert!(writing.is_err());
                assert_eq!((content(&queue), queue.len_bytes()), (before.clone(), before.len()));
            }
        }
        queue.clear();
        assert_eq!(pool.stats().out, 0);
    }

    #[test]
    fn many_small_segments_cost_no_more_than_the_bound() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(1 << 20));
        // The worst mixture: each packet ends the block of the one before it.
        for n in 0..200_000 {
            let class = if n % 2 == 0 { Class::Reliable } else { Class::Droppable };
            if add(&mut queue, &pool, class, 0, "tiny").is_err() {
                break;
            }
        }
        assert!(pool.stats().out <= (1 << 20) / SEGMENT_BYTES, "{:?}", pool.stats());
    }

    #[test]
    fn a_drained_queue_gives_a_long_backlog_back() {
        let (pool, mut queue) = (Pool::new(), SendQueue::new(1 << 20));
        for n in 0..100 {
            add(&mut queue, &pool, Class::Latest, n, "snapshot").unwrap();
        }
        queue.advance(queue.len_bytes());
        assert!(queue.rest.is_none() && queue.is_empty());
        assert_eq!(pool.stats().out, 0);
    }
}
