//! Deadlines of any number of things, at a cost that does not depend on the number.
//!
//! A hierarchy of wheels: 64 slots of about a millisecond, 64 of 64 times that, and so on. An entry lies in a slot of
//! the wheel that its distance asks for and moves down as its time comes, so setting, cancelling and firing are O(1).

use crate::event::Nanos;

/// An entry of a [`Wheel`]; never valid again once it has fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerKey(u64);

impl TimerKey {
    /// The key as a number.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The key that [`TimerKey::to_bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    fn index(self) -> u32 {
        self.0 as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// An entry whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The entry's key, not valid any more.
    pub key: TimerKey,
    /// What was given with it.
    pub payload: u64,
    /// When it was due.
    pub deadline: Nanos,
}

/// Entries by deadline.
pub struct Wheel {
    nodes: Vec<Node>,
    free: u32,
    len: usize,
    sequence: u64,
    /// All slots before this one are empty.
    tick: u64,
    levels: [Level; LEVELS],
    batch: Vec<(Nanos, u64, Fired)>,
    /// How often an entry was hung somewhere: the work done.
    #[cfg(test)]
    links: u64,
}

struct Node {
    deadline: Nanos,
    payload: u64,
    /// Tells entries of one deadline apart: insertion order.
    sequence: u64,
    next: u32,
    previous: u32,
    generation: u32,
    /// `level * 64 + slot`, or [`NOWHERE`].
    place: u16,
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
            free: NONE,
            len: 0,
            sequence: 0,
            tick: now >> SLOT_BITS,
            levels: std::array::from_fn(|_| Level { occupied: 0, heads: [NONE; SLOTS] }),
            batch: Vec::new(),
            #[cfg(test)]
            links: 0,
        }
    }

    /// Adds an entry. A deadline that is over counts as one that is due now; `Nanos::MAX` is never.
    pub fn insert(&mut self, deadline: Nanos, payload: u64) -> TimerKey {
        let index = self.allocate();
        self.sequence += 1;
        let node = &mut self.nodes[index as usize];
        (node.deadline, node.payload, node.sequence) = (deadline, payload, self.sequence);
        let key = TimerKey::new(index, node.generation);
        self.len += 1;
        self.link(index);
        key
    }

    /// Moves an entry to another deadline, as if it were inserted now; false if there is none.
    pub fn rearm(&mut self, key: TimerKey, deadline: Nanos) -> bool {
        let Some(index) = self.find(key) else { return false };
        self.unlink(index);
        self.sequence += 1;
        let node = &mut self.nodes[index as usize];
        (node.deadline, node.sequence) = (deadline, self.sequence);
        self.link(index);
        true
    }

    /// Takes an entry out and gives back its payload.
    pub fn cancel(&mut self, key: TimerKey) -> Option<u64> {
        let index = self.find(key)?;
        self.unlink(index);
        Some(self.release(index).payload)
    }

    /// Appends all entries that are due at `now`, in the order of their deadlines, then of their insertion.
    ///
    /// An entry fires when its slot of about a millisecond is over: never early, and late by no more than the slot.
    pub fn expire(&mut self, now: Nanos, fired: &mut Vec<Fired>) {
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
        self.batch.sort_unstable_by_key(|&(deadline, sequence, _)| (deadline, sequence));
        fired.extend(self.batch.drain(..).map(|(.., fired)| fired));
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
            let node = &self.nodes[index as usize];
            let (next, sequence) = (node.next, node.sequence);
            let key = TimerKey::new(index, node.generation);
            let Released { payload, deadline } = self.release(index);
            self.batch.push((deadline, sequence, Fired { key, payload, deadline }));
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
            self.nodes[index as usize].place = NOWHERE;
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
        node.place = (number * SLOTS + slot) as u16;
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Node { next, previous, place, .. } = self.nodes[index as usize];
        if place == NOWHERE {
            return;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return;
        }
        let (number, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        let level = &mut self.levels[number];
        level.heads[slot] = next;
        if next == NONE {
            level.occupied &= !(1 << slot);
        }
    }

    fn find(&self, key: TimerKey) -> Option<u32> {
        let node = self.nodes.get(key.index() as usize)?;
        (node.generation == key.generation() && node.place != FREE).then_some(key.index())
    }

    fn allocate(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            self.free = self.nodes[index as usize].next;
            return index;
        }
        self.nodes.push(Node {
            deadline: 0,
            payload: 0,
            sequence: 0,
            next: NONE,
            previous: NONE,
            generation: 1,
            place: FREE,
        });
        self.nodes.len() as u32 - 1
    }

    fn release(&mut self, index: u32) -> Released {
        let node = &mut self.nodes[index as usize];
        let released = Released { payload: node.payload, deadline: node.deadline };
        node.generation = node.generation.wrapping_add(1);
        node.place = FREE;
        node.next = std::mem::replace(&mut self.free, index);
        self.len -= 1;
        released
    }
}

struct Released {
    payload: u64,
    deadline: Nanos,
}

/// A slot of the lowest wheel is 2^20 ns, about a millisecond.
const SLOT_BITS: u32 = 20;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
/// Enough for every bit that a deadline has left: 20 + 8 * 6 = 68.
const LEVELS: usize = 8;
const NONE: u32 = u32::MAX;
const FREE: u16 = u16::MAX;
const NOWHERE: u16 = u16::MAX - 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SLOT: Nanos = 1 << SLOT_BITS;
    const SECOND: Nanos = 1_000_000_000;

    fn payloads(wheel: &mut Wheel, now: Nanos) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.expire(now, &mut fired);
        fired.iter().map(|fired| fired.payload).collect()
    }

    #[test]
    fn entries_fire_by_deadline_then_by_insertion() {
        let mut wheel = Wheel::new(0);
        for (deadline, payload) in [(30, 1), (10, 2), (30, 3), (20, 4), (5 * SECOND, 5)] {
            wheel.insert(deadline, payload);
        }
        assert_eq!(wheel.next_deadline(), Some(SLOT));
        assert_eq!(payloads(&mut wheel, SLOT - 1), [0u64; 0]);
        assert_eq!(payloads(&mut wheel, SLOT), [2, 4, 1, 3]);
        assert_eq!(payloads(&mut wheel, 5 * SECOND - 1), [0u64; 0]);
        assert_eq!(payloads(&mut wheel, 5 * SECOND + SLOT), [5]);
        assert_eq!((wheel.next_deadline(), wheel.is_empty()), (None, true));
    }

    #[test]
    fn a_key_is_good_for_one_entry() {
        let mut wheel = Wheel::new(0);
        let old = wheel.insert(10, 1);
        assert_eq!(wheel.cancel(old), Some(1));
        let new = wheel.insert(10, 2);
        assert_ne!(old, new);
        assert_eq!((wheel.cancel(old), wheel.rearm(old, 5)), (None, false));
        assert_eq!(payloads(&mut wheel, SECOND), [2]);
        assert_eq!(wheel.cancel(new), None);
    }

    #[test]
    fn never_is_never() {
        let mut wheel = Wheel::new(0);
        let key = wheel.insert(Nanos::MAX, 1);
        wheel.insert(Nanos::MAX - 1, 2);
        assert_eq!(payloads(&mut wheel, 1 << 62), [0u64; 0]);
        assert!(wheel.rearm(key, (1 << 62) + 1));
        assert_eq!(payloads(&mut wheel, (1 << 62) + SLOT), [1]);
    }

    #[test]
    fn driving_a_wheel_by_its_own_deadlines_reaches_every_entry_in_few_steps() {
        let mut wheel = Wheel::new(123);
        let deadline = 30 * 24 * 3600 * SECOND;
        wheel.insert(deadline, 1);
        let mut steps = 0;
        let at = loop {
            let now = wheel.next_deadline().unwrap();
            steps += 1;
            if !payloads(&mut wheel, now).is_empty() {
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
        for sessions in [1_000u64, 100_000] {
            let mut wheel = Wheel::new(0);
            for session in 0..sessions {
                wheel.insert(heartbeat * session / sessions, session);
            }
            let (mut fired, mut count) = (Vec::new(), 0u64);
            let rounds = 300_000 / sessions + 1;
            let (began, links_before) = (std::time::Instant::now(), wheel.links);
            while count < rounds * sessions {
                let now = wheel.next_deadline().unwrap();
                wheel.expire(now, &mut fired);
                for Fired { payload, deadline, .. } in fired.drain(..) {
                    assert!(deadline <= now && now - deadline <= SLOT, "only what is due, and in time");
                    wheel.insert(deadline + heartbeat, payload);
                    count += 1;
                }
            }
            let nanos = began.elapsed().as_nanos() as f64 / count as f64;
            let links = (wheel.links - links_before) as f64 / count as f64;
            println!(
                "{sessions} sessions: {nanos:.0} ns and {links:.2} moves per heartbeat, {:.1} bytes each",
                wheel.nodes.len() as f64 * size_of::<Node>() as f64 / sessions as f64
            );
            // 15 s lie in the third wheel: an entry is set once and moves down twice, and once more where a higher
            // wheel's slot begins.
            assert!(links <= 3.1, "{links}");
            assert_eq!(wheel.len() as u64, sessions);
            assert_eq!(wheel.nodes.len() as u64, sessions, "an entry that fires frees its place");
        }
    }

    #[test]
    fn a_wheel_with_nothing_due_touches_nobody() {
        let mut wheel = Wheel::new(0);
        for session in 0..100_000 {
            wheel.insert(15 * SECOND + session * 1000, session);
        }
        let links = wheel.links;
        for millis in 0..10_000 {
            assert_eq!(payloads(&mut wheel, millis * SECOND / 1000), [0u64; 0]);
        }
        // The two wheels above the lowest are passed through at most once.
        assert!(wheel.links - links <= 200_000, "{}", wheel.links - links);
        let links = wheel.links;
        assert_eq!(payloads(&mut wheel, 10 * SECOND + 1), [0u64; 0]);
        assert_eq!(wheel.links, links);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Rearm(usize, u64),
        Advance(u64),
        ToDeadline,
    }

    fn step() -> impl Strategy<Value = Step> {
        let delay = || prop_oneof![0..3 * SLOT, 0..100 * SECOND, 0..1u64 << 55];
        prop_oneof![
            4 => delay().prop_map(Step::Insert),
            1 => (0..100usize).prop_map(Step::Cancel),
            1 => (0..100usize, delay()).prop_map(|(which, delay)| Step::Rearm(which, delay)),
            2 => delay().prop_map(Step::Advance),
            2 => Just(Step::ToDeadline),
        ]
    }

    proptest! {
        #[test]
        fn a_wheel_is_a_sorted_list(start in 0..1u64 << 60, steps in proptest::collection::vec(step(), 1..120)) {
            let mut wheel = Wheel::new(start);
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            let (mut now, mut sequence) = (start, 0u64);
            let mut fired = Vec::new();
            for step in steps {
                sequence += 1;
                match step {
                    Step::Insert(delay) => {
                        let key = wheel.insert(now + delay, sequence);
                        keys.push((key, (now + delay, sequence), sequence));
                        model.insert((now + delay, sequence), sequence);
                    }
                    Step::Cancel(which) if which < keys.len() => {
                        let (key, place, payload) = keys[which];
                        let there = model.remove(&place).is_some();
                        prop_assert_eq!(wheel.cancel(key), there.then_some(payload));
                    }
                    Step::Rearm(which, delay) if which < keys.len() => {
                        let (key, place, payload) = keys[which];
                        let there = model.remove(&place).is_some();
                        prop_assert_eq!(wheel.rearm(key, now + delay), there);
                        if there {
                            keys[which].1 = (now + delay, sequence);
                            model.insert((now + delay, sequence), payload);
                        }
                    }
                    Step::Cancel(_) | Step::Rearm(..) => {}
                    Step::Advance(_) | Step::ToDeadline => {
                        if let Step::Advance(delay) = step {
                            now += delay;
                        } else if let Some(deadline) = wheel.next_deadline() {
                            prop_assert!(deadline > now >> SLOT_BITS << SLOT_BITS);
                            if let Some((&(first, _), _)) = model.first_key_value() {
                                prop_assert!(deadline <= first.max(now) + SLOT, "a deadline would be missed");
                            }
                            now = now.max(deadline);
                        }
                        wheel.expire(now, &mut fired);
                        let end = now >> SLOT_BITS << SLOT_BITS;
                        let rest = model.split_off(&(end, 0));
                        let due: Vec<_> = std::mem::replace(&mut model, rest).into_iter().collect();
                        let got: Vec<_> = fired.drain(..).map(|fired| (fired.deadline, fired.payload)).collect();
                        prop_assert_eq!(got, due.iter().map(|&((deadline, _), payload)| (deadline, payload)).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.next_deadline().is_some(), !model.is_empty());
            }
        }
    }
}
