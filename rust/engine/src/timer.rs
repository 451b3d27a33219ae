//! Deadlines by key, for things that come and go.

use crate::event::Nanos;
use crate::wheel::{Due, Wheel};

/// An entry of [`Timers`]; never valid again once it has fired or was cancelled.
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
pub struct Timers {
    wheel: Wheel,
    entries: Vec<Entry>,
    free: Vec<u32>,
    due: Vec<Due>,
}

struct Entry {
    payload: u64,
    generation: u32,
}

impl Timers {
    /// None at `now`.
    pub fn new(now: Nanos) -> Self {
        Self { wheel: Wheel::new(now), entries: Vec::new(), free: Vec::new(), due: Vec::new() }
    }

    /// Adds an entry. A deadline that is over counts as one that is due now; `Nanos::MAX` is never.
    pub fn insert(&mut self, deadline: Nanos, payload: u64) -> TimerKey {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { payload: 0, generation: 1 });
            self.entries.len() as u32 - 1
        });
        self.wheel.set(index, deadline);
        let entry = &mut self.entries[index as usize];
        entry.payload = payload;
        TimerKey::new(index, entry.generation)
    }

    /// Moves an entry to another deadline, as if it were inserted now; false if there is none.
    pub fn rearm(&mut self, key: TimerKey, deadline: Nanos) -> bool {
        let Some(index) = self.find(key) else { return false };
        self.wheel.set(index, deadline);
        true
    }

    /// Takes an entry out and gives back its payload.
    pub fn cancel(&mut self, key: TimerKey) -> Option<u64> {
        let index = self.find(key)?;
        self.wheel.clear(index);
        Some(self.release(index).payload)
    }

    /// Appends all entries that are due at `now`, in the order of their deadlines, then of their insertion.
    ///
    /// An entry fires when its slot of about a millisecond is over: never early, and late by no more than the slot.
    pub fn expire(&mut self, now: Nanos, fired: &mut Vec<Fired>) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.expire(now, &mut due);
        fired.extend(due.drain(..).map(|Due { place, deadline }| {
            let Entry { payload, generation } = self.release(place);
            Fired { key: TimerKey::new(place, generation), payload, deadline }
        }));
        self.due = due;
    }

    /// When [`Timers::expire`] has something to do: see [`Wheel::next_deadline`].
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.wheel.next_deadline()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.wheel.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }

    fn find(&self, key: TimerKey) -> Option<u32> {
        let entry = self.entries.get(key.index() as usize)?;
        (entry.generation == key.generation() && self.wheel.is_set(key.index())).then_some(key.index())
    }

    /// Makes an entry's key invalid and its place free.
    fn release(&mut self, index: u32) -> Entry {
        let entry = &mut self.entries[index as usize];
        let released = Entry { payload: entry.payload, generation: entry.generation };
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(index);
        released
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SLOT_BITS: u32 = 20;
    const SLOT: Nanos = 1 << SLOT_BITS;
    const SECOND: Nanos = 1_000_000_000;

    fn payloads(timers: &mut Timers, now: Nanos) -> Vec<u64> {
        let mut fired = Vec::new();
        timers.expire(now, &mut fired);
        fired.iter().map(|fired| fired.payload).collect()
    }

    #[test]
    fn entries_fire_by_deadline_then_by_insertion() {
        let mut timers = Timers::new(0);
        for (deadline, payload) in [(30, 1), (10, 2), (30, 3), (20, 4), (5 * SECOND, 5)] {
            timers.insert(deadline, payload);
        }
        assert_eq!(timers.next_deadline(), Some(SLOT));
        assert_eq!(payloads(&mut timers, SLOT - 1), [0u64; 0]);
        assert_eq!(payloads(&mut timers, SLOT), [2, 4, 1, 3]);
        assert_eq!(payloads(&mut timers, 5 * SECOND - 1), [0u64; 0]);
        assert_eq!(payloads(&mut timers, 5 * SECOND + SLOT), [5]);
        assert_eq!((timers.next_deadline(), timers.is_empty()), (None, true));
    }

    #[test]
    fn a_key_is_good_for_one_entry() {
        let mut timers = Timers::new(0);
        let old = timers.insert(10, 1);
        assert_eq!(timers.cancel(old), Some(1));
        let new = timers.insert(10, 2);
        assert_ne!(old, new);
        assert_eq!((timers.cancel(old), timers.rearm(old, 5)), (None, false));
        assert_eq!(payloads(&mut timers, SECOND), [2]);
        assert_eq!(timers.cancel(new), None);
    }

    #[test]
    fn never_is_never() {
        let mut timers = Timers::new(0);
        let key = timers.insert(Nanos::MAX, 1);
        timers.insert(Nanos::MAX - 1, 2);
        assert_eq!(payloads(&mut timers, 1 << 62), [0u64; 0]);
        assert!(timers.rearm(key, (1 << 62) + 1));
        assert_eq!(payloads(&mut timers, (1 << 62) + SLOT), [1]);
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
        fn timers_are_a_sorted_list(start in 0..1u64 << 60, steps in proptest::collection::vec(step(), 1..120)) {
            let mut timers = Timers::new(start);
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            let (mut now, mut sequence) = (start, 0u64);
            let mut fired = Vec::new();
            for step in steps {
                sequence += 1;
                match step {
                    Step::Insert(delay) => {
                        let key = timers.insert(now + delay, sequence);
                        keys.push((key, (now + delay, sequence), sequence));
                        model.insert((now + delay, sequence), sequence);
                    }
                    Step::Cancel(which) if which < keys.len() => {
                        let (key, place, payload) = keys[which];
                        let there = model.remove(&place).is_some();
                        prop_assert_eq!(timers.cancel(key), there.then_some(payload));
                    }
                    Step::Rearm(which, delay) if which < keys.len() => {
                        let (key, place, payload) = keys[which];
                        let there = model.remove(&place).is_some();
                        prop_assert_eq!(timers.rearm(key, now + delay), there);
                        if there {
                            keys[which].1 = (now + delay, sequence);
                            model.insert((now + delay, sequence), payload);
                        }
                    }
                    Step::Cancel(_) | Step::Rearm(..) => {}
                    Step::Advance(_) | Step::ToDeadline => {
                        if let Step::Advance(delay) = step {
                            now += delay;
                        } else if let Some(deadline) = timers.next_deadline() {
                            prop_assert!(deadline > now >> SLOT_BITS << SLOT_BITS);
                            if let Some((&(first, _), _)) = model.first_key_value() {
                                prop_assert!(deadline <= first.max(now) + SLOT, "a deadline would be missed");
                            }
                            now = now.max(deadline);
                        }
                        timers.expire(now, &mut fired);
                        let end = now >> SLOT_BITS << SLOT_BITS;
                        let rest = model.split_off(&(end, 0));
                        let due: Vec<_> = std::mem::replace(&mut model, rest).into_iter().collect();
                        let got: Vec<_> = fired.drain(..).map(|fired| (fired.deadline, fired.payload)).collect();
                        prop_assert_eq!(got, due.iter().map(|&((deadline, _), payload)| (deadline, payload)).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next_deadline().is_some(), !model.is_empty());
            }
        }
    }
}
