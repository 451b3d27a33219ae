//! Deadlines of any number of things, at a cost that does not depend on the number.
//!
//! A hierarchy of wheels: 64 slots of about a millisecond, 64 of 64 times that, and so on. An entry lies in a slot of
//! the wheel that its distance asks for and moves down as its time comes, so setting, clearing and firing are O(1).
//! Whoever has a table of things with one deadline each needs no keys: see [`crate::timer::Timers`] for those who do.

use crate::event::Nanos;

/// An entry whose time has come; it is set no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Whose it was.
    pub place: u32,
    /// When it was due.
    pub deadline: Nanos,
}

/// One deadline for each place of a table, or none.
pub struct Wheel {
    nodes: Vec<Node>,
    len: usize,
    sequence: u64,
    /// All slots before this one are empty.
    tick: u64,
    levels: [Level; LEVELS],
    batch: Vec<(Nanos, u64, Due)>,
    /// How often an entry was hung somewhere: the work done.
    #[cfg(test)]
    links: u64,
}

#[derive(Clone, Copy)]
struct Node {
    deadline: Nanos,
    /// Above, 48 bits that tell entries of one deadline apart: the order in which they were set. 2^48 are nine years of a
    /// million a second. Below, 16 bits for where it hangs: `level * 64 + slot`, or [`NOWHERE`], or [`UNSET`].
    order: u64,
    next: u32,
    previous: u32,
}

impl Node {
    fn hangs(&self) -> u16 {
        self.order as u16
    }

    fn hang(&mut self, at: u16) {
        self.order = self.order & !0xffff | u64::from(at);
    }
}

struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

impl Wheel {
    /// An empty wheel at `now`.
    pub fn new(now: Nanos) -> Self {
        Self {
            nodes: Vec::new(),
            len: 0,
            sequence: 0,
            tick: now >> SLOT_BITS,
            levels: std::array::from_fn(|_| Level { occupied: 0, heads: [NONE; SLOTS] }),
            batch: Vec::new(),
            #[cfg(test)]
            links: 0,
        }
    }

    /// Sets the deadline of a place, or moves it. One that is over counts as one that is due now; `Nanos::MAX` is never.
    ///
    /// There is a node for each place up to the largest that was set.
    pub fn set(&mut self, place: u32, deadline: Nanos) {
        if self.nodes.len() <= place as usize {
            self.nodes.resize_with(place as usize + 1, || Node {
                deadline: 0,
                order: u64::from(UNSET),
                next: NONE,
                previous: NONE,
            });
        }
        if !self.unlink(place) {
            self.len += 1;
        }
        self.sequence += 1;
        let node = &mut self.nodes[place as usize];
        (node.deadline, node.order) = (deadline, self.sequence << 16 | u64::from(UNSET));
        self.link(place);
    }

    /// Takes a place's deadline out; false if it has none.
    pub fn clear(&mut self, place: u32) -> bool {
        let was_set = self.unlink(place);
        if was_set {
            self.nodes[place as usize].hang(UNSET);
            self.len -= 1;
        }
        was_set
    }

    /// Whether a place has a deadline.
    pub fn is_set(&self, place: u32) -> bool {
        self.nodes.get(place as usize).is_some_and(|node| node.hangs() != UNSET)
    }

    /// Appends all entries that are due at `now`, in the order of their deadlines, then of their being set.
    ///
    /// An entry fires when its slot of about a millisecond is over: never early, and late by no more than the slot.
    pub fn expire(&mut self, now: Nanos, due: &mut Vec<Due>) {
        let end = now >> SLOT_BITS;
        while self.tick < end {
            // The first slot that holds anything, or the first moment at which entries move down.
            let Some(tick) = self.next_tick().filter(|&tick| tick < end) else {
                self.tick = end;
                break;
            };
            self.tick = tick;
            self.cascade();
            self.take_slot();
            self.tick = tick + 1;
        }
        // Entries may lie where `tick` has just arrived: moved down now, they are found by their slot's bit.
        self.cascade();
        self.batch.sort_unstable_by_key(|&(deadline, order, _)| (deadline, order));
        due.extend(self.batch.drain(..).map(|(.., due)| due));
    }

    /// When [`Wheel::expire`] has something to do: the end of the first slot that holds an entry, or a moment before
    /// it at which entries move down.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.next_tick().map(|tick| (tick + 1) << SLOT_BITS)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first tick at or after `self.tick` that has entries at the lowest level or moves entries down.
    fn next_tick(&self) -> Option<u64> {
        let mut first = None;
        for (number, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = number as u32 * LEVEL_BITS;
            let here = self.tick >> shift;
            let distance = level.occupied.rotate_right((here & SLOT_MASK) as u32).trailing_zeros();
            // A higher level's slot at distance 0 is one that lies a whole turn ahead, but for a cascade that is due.
            let tick = ((here + u64::from(distance)) << shift).max(self.tick);
            first = Some(first.map_or(tick, |first: u64| first.min(tick)));
        }
        first
    }

    /// Moves down what lies in the slots that `self.tick` has come to.
    fn cascade(&mut self) {
        for number in (1..LEVELS).rev() {
            let slot = (self.tick >> (number as u32 * LEVEL_BITS) & SLOT_MASK) as usize;
            let level = &mut self.levels[number];
            if level.occupied & 1 << slot == 0 {
                continue;
            }
            level.occupied &= !(1 << slot);
            let mut index = std::mem::replace(&mut level.heads[slot], NONE);
            while index != NONE {
                let next = self.nodes[index as usize].next;
                self.link(index);
                index = next;
            }
        }
    }

    /// Puts the entries of the lowest level's slot at `self.tick` into the batch.
    fn take_slot(&mut self) {
        let slot = (self.tick & SLOT_MASK) as usize;
        self.levels[0].occupied &= !(1 << slot);
        let mut index = std::mem::replace(&mut self.levels[0].heads[slot], NONE);
        while index != NONE {
            let node = &mut self.nodes[index as usize];
            let Node { deadline, order, next, .. } = *node;
            node.hang(UNSET);
            self.len -= 1;
            self.batch.push((deadline, order, Due { place: index, deadline }));
            index = next;
        }
    }

    /// Hangs a node where its deadline belongs, as seen from `self.tick`.
    fn link(&mut self, index: u32) {
        #[cfg(test)]
        {
            self.links += 1;
        }
        let deadline = self.nodes[index as usize].deadline;
        if deadline == Nanos::MAX {
            self.nodes[index as usize].hang(NOWHERE);
            return;
        }
        let tick = (deadline >> SLOT_BITS).max(self.tick);
        // The highest bit in which the two differ says which wheel still tells them apart.
        let differing = (tick ^ self.tick) | SLOT_MASK;
        let number = ((u64::BITS - 1 - differing.leading_zeros()) / LEVEL_BITS) as usize;
        debug_assert!(number < LEVELS);
        let slot = (tick >> (number as u32 * LEVEL_BITS) & SLOT_MASK) as usize;
        let level = &mut self.levels[number];
        level.occupied |= 1 << slot;
        let head = std::mem::replace(&mut level.heads[slot], index);
        let node = &mut self.nodes[index as usize];
        (node.next, node.previous) = (head, NONE);
        node.hang((number * SLOTS + slot) as u16);
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
    }

    /// Unhooks a node; false if it was not set.
    fn unlink(&mut self, index: u32) -> bool {
        let Some(node) = self.nodes.get(index as usize) else { return false };
        let (Node { next, previous, .. }, at) = (*node, node.hangs());
        if at == UNSET || at == NOWHERE {
            return at == NOWHERE;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return true;
        }
        let (number, slot) = (usize::from(at) / SLOTS, usize::from(at) % SLOTS);
        let level = &mut self.levels[number];
        level.heads[slot] = next;
        if next == NONE {
            level.occupied &= !(1 << slot);
        }
        true
    }
}

/// A slot of the lowest wheel is 2^20 ns, about a millisecond.
const SLOT_BITS: u32 = 20;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
/// Enough for every bit that a deadline has left: 20 + 8 * 6 = 68.
const LEVELS: usize = 8;
const NONE: u32 = u32::MAX;
const UNSET: u16 = u16::MAX;
const NOWHERE: u16 = u16::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Nanos = 1 << SLOT_BITS;
    const SECOND: Nanos = 1_000_000_000;

    fn places(wheel: &mut Wheel, now: Nanos) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        due.iter().map(|due| due.place).collect()
    }

    #[test]
    fn a_place_has_one_deadline() {
        let mut wheel = Wheel::new(0);
        wheel.set(7, 5 * SECOND);
        wheel.set(7, SECOND);
        assert_eq!((wheel.len(), wheel.is_set(7), wheel.is_set(6)), (1, true, false));
        assert_eq!(places(&mut wheel, SECOND + SLOT), [7]);
        assert_eq!((wheel.is_set(7), wheel.clear(7), wheel.clear(8)), (false, false, false));
        wheel.set(7, Nanos::MAX);
        wheel.set(7, 6 * SECOND);
        assert!(wheel.clear(7) && wheel.is_empty());
        assert_eq!((places(&mut wheel, 9 * SECOND), wheel.next_deadline()), (vec![], None));
    }

    #[test]
    fn a_deadline_is_small() {
        assert_eq!(size_of::<Node>(), 24);
    }

    #[test]
    fn driving_a_wheel_by_its_own_deadlines_reaches_every_entry_in_few_steps() {
        let mut wheel = Wheel::new(123);
        let deadline = 30 * 24 * 3600 * SECOND;
        wheel.set(0, deadline);
        let mut steps = 0;
        let at = loop {
            let now = wheel.next_deadline().unwrap();
            steps += 1;
            if !places(&mut wheel, now).is_empty() {
                break now;
            }
        };
        assert!(steps <= LEVELS, "{steps}");
        assert!((deadline..=deadline + SLOT).contains(&at));
    }

    /// The cost of idle sessions: each one's timer fires once per heartbeat and is set again, and nobody else's is touched.
    #[test]
    fn the_work_per_heartbeat_is_the_same_for_a_thousand_sessions_and_for_a_hundred_thousand() {
        let heartbeat = 15 * SECOND;
        for sessions in [1_000u32, 100_000] {
            let mut wheel = Wheel::new(0);
            for session in 0..sessions {
                wheel.set(session, heartbeat * u64::from(session) / u64::from(sessions));
            }
            let (mut due, mut count) = (Vec::new(), 0u64);
            let rounds = u64::from(300_000 / sessions + 1);
            let (began, links_before) = (std::time::Instant::now(), wheel.links);
            while count < rounds * u64::from(sessions) {
                let now = wheel.next_deadline().unwrap();
                wheel.expire(now, &mut due);
                for Due { place, deadline } in due.drain(..) {
                    assert!(deadline <= now && now - deadline <= SLOT, "only what is due, and in time");
                    wheel.set(place, deadline + heartbeat);
                    count += 1;
                }
            }
            let nanos = began.elapsed().as_nanos() as f64 / count as f64;
            let links = (wheel.links - links_before) as f64 / count as f64;
            println!(
                "{sessions} sessions: {nanos:.0} ns and {links:.2} moves per heartbeat, {:.1} bytes each",
                wheel.nodes.len() as f64 * size_of::<Node>() as f64 / f64::from(sessions)
            );
            // 15 s lie in the third wheel: an entry is set once and moves down twice, and once more where a higher
            // wheel's slot begins.
            assert!(links <= 3.1, "{links}");
            assert_eq!(wheel.len(), sessions as usize);
        }
    }

    #[test]
    fn a_wheel_with_nothing_due_touches_nobody() {
        let mut wheel = Wheel::new(0);
        for session in 0..100_000 {
            wheel.set(session, 15 * SECOND + u64::from(session) * 1000);
        }
        let links = wheel.links;
        for millis in 0..10_000 {
            assert_eq!(places(&mut wheel, millis * SECOND / 1000), [0u32; 0]);
        }
        // The two wheels above the lowest are passed through at most once.
        assert!(wheel.links - links <= 200_000, "{}", wheel.links - links);
        let links = wheel.links;
        assert_eq!(places(&mut wheel, 10 * SECOND + 1), [0u32; 0]);
        assert_eq!(wheel.links, links);
    }
}
