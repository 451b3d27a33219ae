//! When ticks are due.
//!
//! Deadlines are computed from the start, never from the tick before, so nothing drifts.

use crate::event::Nanos;

/// What to do with ticks beyond those that may be caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLate {
    /// Leave them out: the game's time stays with the wall's, and the gap is counted.
    #[default]
    Skip,
    /// Let the game's time fall behind the wall's by them: no tick is left out, and the distance is published.
    Dilate,
}

/// What has to run now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Number of the first tick to run; the others follow it.
    pub first: u64,
    /// How many to run.
    pub count: u32,
    /// How many were left out after them.
    pub skipped: u64,
    /// By how much all later deadlines moved.
    pub dilated: Nanos,
}

/// Ticks 1, 2, 3, ... of a fixed rate.
#[derive(Clone, Debug)]
pub struct TickClock {
    start: Nanos,
    rate: u32,
    max_catch_up: u32,
    on_late: OnLate,
    next: u64,
    skipped: u64,
    dilation: Nanos,
}

impl TickClock {
    /// `rate` ticks a second from `start` on; at most `max_catch_up` (at least 1) in one go.
    ///
    /// # Panics
    ///
    /// When `rate` is 0.
    pub fn new(start: Nanos, rate: u32, max_catch_up: u32, on_late: OnLate) -> Self {
        assert!(rate > 0, "a tick rate is at least 1 Hz");
        Self { start, rate, max_catch_up: max_catch_up.max(1), on_late, next: 1, skipped: 0, dilation: 0 }
    }

    /// One whose first tick is the first that is due after `now`: clocks of one rate that started whole seconds apart tick together.
    pub fn joined_at(mut self, now: Nanos) -> Self {
        self.next = self.last_due(now) + 1;
        self
    }

    /// The ticks to run at `now`. They count as run.
    pub fn due(&mut self, now: Nanos) -> Due {
        let first = self.next;
        let behind = self.last_due(now).saturating_sub(first - 1);
        let count = behind.min(u64::from(self.max_catch_up));
        let excess = behind - count;
        self.next += count;
        let mut due = Due { first, count: count as u32, skipped: 0, dilated: 0 };
        if excess > 0 {
            match self.on_late {
                OnLate::Skip => {
                    due.skipped = excess;
                    self.skipped += excess;
                    self.next += excess;
                }
                OnLate::Dilate => {
                    // As if the last of the excess ticks were the last that has run.
                    due.dilated = self.deadline(self.next - 1 + excess) - self.deadline(self.next - 1);
                    self.dilation += due.dilated;
                }
            }
        }
        due
    }

    /// When tick `n` is due: start + n * 10^9 / rate, rounded down, plus the dilation so far.
    pub fn deadline(&self, n: u64) -> Nanos {
        self.start + self.dilation + (u128::from(n) * NANOS_PER_SECOND / u128::from(self.rate)) as Nanos
    }

    /// When the next tick is due.
    pub fn next_deadline(&self) -> Nanos {
        self.deadline(self.next)
    }

    /// Number of the next tick.
    pub fn next_tick(&self) -> u64 {
        self.next
    }

    /// The step in seconds: always the same.
    pub fn dt(&self) -> f64 {
        1.0 / f64::from(self.rate)
    }

    /// Ticks left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// By how much the game's time is behind.
    pub fn dilation(&self) -> Nanos {
        self.dilation
    }

    /// Ticks in a second.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// The last tick whose deadline is at or before `now`.
    pub fn last_due(&self, now: Nanos) -> u64 {
        let Some(elapsed) = now.checked_sub(self.start + self.dilation) else { return 0 };
        // Deadlines are rounded down, so a tick is due up to a fraction of a nanosecond early.
        ((u128::from(elapsed) + 1) * u128::from(self.rate)).div_ceil(NANOS_PER_SECOND) as u64 - 1
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn clocks_of_one_rate_tick_together() {
        for rate in [1, 20, 60, 144] {
            let first = TickClock::new(77, rate, 1, OnLate::Skip);
            let mut other = TickClock::new(77 + 5 * SECOND, rate, 1, OnLate::Skip)
                .joined_at(77 + 5 * SECOND + SECOND / 3);
            assert!(other.next_deadline() > 77 + 5 * SECOND + SECOND / 3);
            assert!(
                other.next_deadline() <= 77 + 5 * SECOND + SECOND / 3 + SECOND.div_ceil(Nanos::from(rate))
            );
            let deadlines: Vec<_> = (1..=u64::from(rate) * 8).map(|n| first.deadline(n)).collect();
            for _ in 0..rate {
                let due = other.next_deadline();
                assert!(deadlines.contains(&due));
                assert_eq!((other.due(due).count, other.skipped()), (1, 0));
            }
        }
    }

    #[test]
    fn tick_216_000_of_60_hz_is_at_exactly_an_hour() {
        let mut clock = TickClock::new(77, 60, 1, OnLate::Skip);
        assert_eq!(clock.deadline(216_000), 77 + 3600 * SECOND);
        // And so when each one is run at its deadline, one after the other.
        for n in 1..=216_000 {
            let deadline = clock.next_deadline();
            assert_eq!(clock.due(deadline - 1).count, 0);
            assert_eq!(clock.due(deadline), Due { first: n, count: 1, skipped: 0, dilated: 0 });
        }
        assert_eq!(clock.next_deadline(), 77 + 3600 * SECOND + 16_666_666);
    }

    #[test]
    fn a_late_clock_catches_up_within_its_bound() {
        let mut clock = TickClock::new(0, 10, 5, OnLate::Skip);
        assert_eq!(clock.due(SECOND / 2), Due { first: 1, count: 5, skipped: 0, dilated: 0 });
        assert_eq!(clock.skipped(), 0);
    }

    #[test]
    fn what_is_beyond_the_bound_is_skipped_and_counted() {
        let mut clock = TickClock::new(0, 10, 3, OnLate::Skip);
        assert_eq!(clock.due(SECOND), Due { first: 1, count: 3, skipped: 7, dilated: 0 });
        assert_eq!((clock.next_deadline(), clock.next_tick(), clock.skipped()), (SECOND * 11 / 10, 11, 7));
    }

    #[test]
    fn or_the_time_is_dilated_by_it() {
        let mut clock = TickClock::new(0, 10, 3, OnLate::Dilate);
        assert_eq!(clock.due(SECOND), Due { first: 1, count: 3, skipped: 0, dilated: SECOND * 7 / 10 });
        assert_eq!(
            (clock.next_deadline(), clock.next_tick(), clock.dilation()),
            (SECOND * 11 / 10, 4, SECOND * 7 / 10)
        );
        assert_eq!(clock.due(SECOND).count, 0);
    }

    #[test]
    fn the_step_is_fixed_whatever_was_late() {
        let mut clock = TickClock::new(0, 60, 2, OnLate::Dilate);
        let dt = clock.dt();
        clock.due(10 * SECOND);
        assert_eq!((clock.dt(), dt), (1.0 / 60.0, 1.0 / 60.0));
        // What is behind adds up, and is published.
        let behind = clock.dilation();
        clock.due(20 * SECOND);
        assert!(clock.dilation() > behind && clock.skipped() == 0);
    }

    #[test]
    fn a_bound_of_zero_still_runs_a_tick() {
        let mut clock = TickClock::new(0, 10, 0, OnLate::Skip);
        assert_eq!(clock.due(SECOND), Due { first: 1, count: 1, skipped: 9, dilated: 0 });
    }

    proptest! {
        #[test]
        fn no_rate_drifts(rate in 1u32..=u32::MAX, start in 0..1u64 << 60, seconds in 0u64..100_000_000, n: u32) {
            let clock = TickClock::new(start, rate, 1, OnLate::Skip);
            // Whole seconds are met exactly, however long it runs.
            prop_assert_eq!(clock.deadline(u64::from(rate) * seconds), start + seconds * SECOND);
            // And any tick to less than a nanosecond: the deadline is the exact one, rounded down.
            let late = u128::from(clock.deadline(n.into()) - start) * u128::from(rate);
            let exact = u128::from(n) * NANOS_PER_SECOND;
            prop_assert!(late <= exact && exact < late + u128::from(rate));
        }

        #[test]
        fn ten_seconds_of_late_ticks_end_where_they_should(rate in 1u32..2000, jitter in 0u64..400_000) {
            let mut clock = TickClock::new(3, rate, 1, OnLate::Skip);
            let mut ran = 0;
            for n in 1..=u64::from(rate) * 10 {
                // Each one is woken late by less than a step: that never adds up.
                let due = clock.due(clock.next_deadline() + jitter * (n % 2));
                ran += u64::from(due.count) + due.skipped;
            }
            prop_assert_eq!((ran, clock.next_deadline()), (u64::from(rate) * 10, clock.deadline(u64::from(rate) * 10 + 1)));
            prop_assert_eq!(clock.deadline(u64::from(rate) * 3600), 3 + 3600 * SECOND);
        }

        #[test]
        fn every_tick_is_run_or_skipped_and_none_is_early(
            rate in 1u32..2000, catch_up in 1u32..8, dilate: bool, steps in proptest::collection::vec(0u64..3_000_000_000, 1..50),
        ) {
            let on_late = if dilate { OnLate::Dilate } else { OnLate::Skip };
            let mut clock = TickClock::new(5, rate, catch_up, on_late);
            let (mut now, mut next) = (5, 1);
            for step in steps {
                now += step;
                let before = clock.clone();
                let due = clock.due(now);
                prop_assert_eq!(due.first, next);
                prop_assert!(due.count <= catch_up);
                if due.count > 0 {
                    prop_assert!(before.deadline(next + u64::from(due.count) - 1) <= now);
                }
                next += u64::from(due.count) + due.skipped;
                prop_assert!(clock.next_deadline() > now);
                prop_assert_eq!(clock.next_tick(), next);
            }
        }
    }
}
