//! Token buckets: how often something may happen, and in how large a burst.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm of ATM, ITU-T I.371, as a
//! virtual schedule): nothing has to be filled while nobody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Nanos;

/// How often, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// One token's worth of time.
    interval: Nanos,
    /// How far ahead of the time a bucket may be: the burst's worth.
    window: Nanos,
}

impl Rate {
    /// `per_second` above 0, and at most a million millions; `burst` at least 1.
    pub fn new(per_second: f64, burst: u32) -> Self {
        let interval = (1e9 / per_second.max(1e-9)).clamp(1.0, 1e18) as Nanos;
        Self { interval, window: interval.saturating_mul(Nanos::from(burst.max(1))) }
    }
}

/// A token bucket; a new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at: Nanos,
}

impl Bucket {
    /// Takes a token, if there is one.
    #[inline]
    pub fn take(&mut self, now: Nanos, rate: Rate) -> bool {
        let full_at = self.full_at.max(now).saturating_add(rate.interval);
        let is_there = full_at - now <= rate.window;
        if is_there {
            self.full_at = full_at;
        }
        is_there
    }
}

/// A bucket that many links share: those of one address. Tokens are taken when they were spent, in one step for all that a pass
/// brought, so it can be overdrawn by as much.
#[derive(Clone, Debug, Default)]
pub struct SharedBucket(pub Arc<AtomicU64>);

impl SharedBucket {
    /// Whether it has a token.
    #[inline]
    pub fn has_any(&self, now: Nanos, rate: Rate) -> bool {
        let full_at = self.0.load(Ordering::Relaxed);
        full_at.saturating_sub(now).saturating_add(rate.interval) <= rate.window
    }

    /// So many were spent.
    #[inline]
    pub fn spend(&self, now: Nanos, rate: Rate, count: u32) {
        let spent = rate.interval.saturating_mul(Nanos::from(count));
        let later = |full_at: Nanos| Some(full_at.max(now).saturating_add(spent));
        // It always succeeds: `later` never says no.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }
}

/// What becomes of what is over a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It is dropped and counted.
    Drop,
    /// A request is answered with `GS-429`; a notify is dropped.
    Refuse,
    /// The connection is closed.
    Kick,
}

/// A rate, and what becomes of what is over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How often.
    pub rate: Rate,
    /// Beyond it.
    pub over: Over,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Nanos = 1_000_000_000;

    proptest! {
        /// Against a bucket as textbooks have it, with a level that rises with the time.
        #[test]
        fn it_is_a_token_bucket(
            per_second in 1u32..2000,
            burst in 1u32..50,
            steps in proptest::collection::vec(0u64..300_000_000, 1..200),
        ) {
            let rate = Rate::new(f64::from(per_second), burst);
            // In units of a token's interval, so that both are exact.
            let interval = Nanos::from((1e9 / f64::from(per_second)) as u64);
            let full = interval * Nanos::from(burst);
            let (mut bucket, mut level, mut now, mut before) = (Bucket::default(), full, SECOND, SECOND);
            for step in steps {
                now += step;
                level = full.min(level + (now - before));
                before = now;
                let is_there = level >= interval;
                if is_there {
                    level -= interval;
                }
                prop_assert_eq!(bucket.take(now, rate), is_there);
            }
        }

        /// What many take of it together is what one would have got, but for the last pass.
        #[test]
        fn a_shared_one_is_overdrawn_by_a_pass_at_most(
            passes in proptest::collection::vec((0u64..50_000_000, 1u32..64), 1..200),
        ) {
            let rate = Rate::new(1000.0, 100);
            let (shared, mut now, mut spent) = (SharedBucket::default(), SECOND, 0u64);
            for (step, count) in passes {
                now += step;
                if shared.has_any(now, rate) {
                    shared.spend(now, rate, count);
                    spent += u64::from(count);
                }
                prop_assert!(spent <= 100 + (now - SECOND) / 1_000_000 + 64);
            }
        }
    }

    #[test]
    fn the_ends_of_what_may_be_asked_for() {
        let mut bucket = Bucket::default();
        let never = Rate::new(1e-300, u32::MAX);
        assert!(bucket.take(0, never));
        let always = Rate::new(f64::INFINITY, 0);
        assert!(Bucket::default().take(u64::MAX, always));
        assert!(!Bucket { full_at: u64::MAX }.take(0, Rate::new(1.0, 1)));
    }
}
