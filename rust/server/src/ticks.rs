//! How late ticks were: a histogram of fixed size.

use engine::event::Nanos;

/// Buckets per power of two: a quantile is right to a 64th.
const STEPS: u32 = 1 << STEP_BITS;
const STEP_BITS: u32 = 6;
const BUCKETS: usize = ((65 - STEP_BITS) * STEPS) as usize;

/// Ticks so far, and how late they began.
#[derive(Clone, Debug)]
pub struct TickStats {
    /// Ticks run.
    pub count: u64,
    /// Ticks left out, with `on_late="skip"`.
    pub skipped: u64,
    /// Nanoseconds by which time was stretched, with `on_late="dilate"`.
    pub dilated: Nanos,
    lateness: Box<[u32; BUCKETS]>,
}

impl Default for TickStats {
    fn default() -> Self {
        Self { count: 0, skipped: 0, dilated: 0, lateness: Box::new([0; BUCKETS]) }
    }
}

impl TickStats {
    /// Counts a tick that began `late` nanoseconds after its deadline.
    pub fn late(&mut self, late: Nanos) {
        self.lateness[bucket(late)] += 1;
    }

    /// The lateness in nanoseconds that a share `q` of the ticks did not exceed, to a 64th.
    pub fn quantile(&self, q: f64) -> Nanos {
        let total: u64 = self.lateness.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total as f64 * q).ceil() as u64;
        let mut seen = 0;
        for (place, &count) in self.lateness.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted && seen > 0 {
                return upper_edge(place);
            }
        }
        0
    }
}

fn bucket(nanos: Nanos) -> usize {
    if nanos < Nanos::from(STEPS) {
        return nanos as usize;
    }
    let power = nanos.ilog2();
    let step = (nanos >> (power - STEP_BITS)) as u32 & (STEPS - 1);
    ((power - STEP_BITS + 1) * STEPS + step) as usize
}

fn upper_edge(place: usize) -> Nanos {
    if place < STEPS as usize {
        return place as Nanos;
    }
    let power = place as u32 / STEPS + STEP_BITS - 1;
    let step = place as u32 % STEPS;
    ((u64::from(STEPS + step) + 1) << (power - STEP_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_number_and_is_a_64th_wide() {
        for nanos in (0..2000).chain([1_000_000, 123_456_789, u64::MAX / 2]) {
            let edge = upper_edge(bucket(nanos));
            assert!(edge >= nanos, "{nanos}: {edge}");
            assert!(edge - nanos <= nanos / 64 + 1, "{nanos}: {edge}");
        }
    }

    #[test]
    fn quantiles_of_an_even_spread() {
        let mut stats = TickStats::default();
        for nanos in 1..=1000 {
            stats.late(nanos * 1000);
        }
        let half = stats.quantile(0.5);
        assert!((500_000..=508_000).contains(&half), "{half}");
        let most = stats.quantile(0.99);
        assert!((990_000..=1_006_000).contains(&most), "{most}");
    }
}
