//! A clock that stands still while its thread does: silence is never judged over a stall.

use engine::event::Nanos;

/// A gap between two looks at the clock, outside of a wait, that counts as a stall: what a busy pass may take.
const STALL_NANOS: Nanos = 250_000_000;

/// Monotonic time less the time in which this thread could not have read.
#[derive(Debug, Default)]
pub struct Awake {
    last: Nanos,
    stalled: Nanos,
}

impl Awake {
    /// A clock that runs from `now` on.
    pub fn new(now: Nanos) -> Self {
        Self { last: now, stalled: 0 }
    }

    /// The time of a thread that begins to wait at `now`; a long gap since it last woke was a stall.
    pub fn begin_wait(&mut self, now: Nanos) {
        let gap = now.saturating_sub(self.last);
        if gap > STALL_NANOS {
            self.stalled += gap;
        }
        self.last = now;
    }

    /// The wait is over. `reading` is false when arriving bytes were not read meanwhile, on purpose.
    pub fn end_wait(&mut self, now: Nanos, reading: bool) {
        if !reading {
            self.stalled += now.saturating_sub(self.last);
        }
        self.last = now;
    }

    /// What the links are told.
    pub fn now(&self) -> Nanos {
        self.last - self.stalled
    }

    /// The time when it last woke, stalls included.
    pub fn monotonic(&self) -> Nanos {
        self.last
    }

    /// An awake time as monotonic time, for a wait.
    pub fn to_monotonic(&self, awake: Nanos) -> Nanos {
        awake.saturating_add(self.stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn waiting_counts_and_a_stall_does_not() {
        let mut awake = Awake::new(0);
        awake.begin_wait(0);
        awake.end_wait(10 * SECOND, true);
        assert_eq!(awake.now(), 10 * SECOND);
        awake.begin_wait(70 * SECOND); // a handler took a minute
        assert_eq!(awake.now(), 10 * SECOND);
        awake.end_wait(71 * SECOND, true);
        assert_eq!(awake.now(), 11 * SECOND);
        assert_eq!(awake.to_monotonic(awake.now()), 71 * SECOND);
    }

    #[test]
    fn waiting_without_reading_does_not_count() {
        let mut awake = Awake::new(0);
        awake.begin_wait(SECOND / 10);
        awake.end_wait(30 * SECOND, false);
        assert_eq!(awake.now(), SECOND / 10);
    }
}
