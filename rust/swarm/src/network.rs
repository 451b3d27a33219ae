//! A network that is worse than the real one: delay, jitter, loss, a narrow line; as rules, without a socket.
//!
//! TCP loses nothing: what the network loses is sent again, and everything behind it waits. So a loss is a stall.

use engine::event::Nanos;

use crate::plan::Random;

/// What one direction of a client's connection is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// From one end to the other.
    pub delay: Nanos,
    /// At most so much longer, by chance.
    pub jitter: Nanos,
    /// The share of packets that are lost.
    pub loss: f64,
    /// Of the narrowest place on the way; None: as many as come.
    pub bytes_per_second: Option<f64>,
}

impl Network {
    /// How long a lost packet takes to be sent again: Linux waits for the round trip and 200 ms (`TCP_RTO_MIN`; RFC 6298 asks for
    /// a second). Games send too little for the faster ways of noticing (RFC 5681's three duplicates).
    pub fn stall(&self) -> Nanos {
        RTO_MIN + 2 * self.delay + self.jitter
    }
}

/// One direction of a connection: what goes in comes out later, in the same order.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    network: Network,
    random: Random,
    /// The narrowest place has sent what came before.
    free_at: f64,
    /// What came before is out.
    last: Nanos,
}

impl Line {
    /// One that takes nothing before `open_at`: a connection has to be made first.
    pub fn new(network: Network, open_at: Nanos, seed: u64) -> Self {
        Self { network, random: Random(seed), free_at: open_at as f64, last: open_at }
    }

    /// When the last of `bytes` that go in at `now` comes out at the other end.
    pub fn pass(&mut self, now: Nanos, bytes: usize) -> Nanos {
        self.free_at = self.free_at.max(now as f64);
        if let Some(rate) = self.network.bytes_per_second {
            self.free_at += bytes as f64 / rate * 1e9;
        }
        let mut way = self.network.delay + self.random.below(self.network.jitter + 1);
        for _ in 0..bytes.div_ceil(PACKET_BYTES) {
            // Each time that it is lost again the sender waits twice as long.
            let mut stall = self.network.stall();
            for _ in 0..LOST_MAX {
                if self.random.share() >= self.network.loss {
                    break;
                }
                way += stall;
                stall *= 2;
            }
        }
        self.last = self.last.max(self.free_at as Nanos + way);
        self.last
    }
}

const RTO_MIN: Nanos = 200_000_000;
/// What fits into one on an ordinary network.
const PACKET_BYTES: usize = 1448;
/// That often one packet is lost at most.
const LOST_MAX: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks() -> impl Strategy<Value = Network> {
        (0u64..1_000_000_000, 0u64..100_000_000, 0.0f64..0.5, proptest::option::of(1e3f64..1e8)).prop_map(
            |(delay, jitter, loss, bytes_per_second)| Network { delay, jitter, loss, bytes_per_second },
        )
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_late_enough_and_no_faster_than_the_line(
            network in networks(),
            pieces in proptest::collection::vec((0u64..50_000_000, 1usize..20_000), 1..100),
            seed: u64,
        ) {
            let (mut line, mut again) = (Line::new(network, 1000, seed), Line::new(network, 1000, seed));
            let (mut now, mut before, mut sum) = (1000, 0, 0);
            for (pause, bytes) in pieces {
                now += pause;
                sum += bytes;
                let out = line.pass(now, bytes);
                prop_assert_eq!(out, again.pass(now, bytes), "the same seed");
                prop_assert!(out >= before && out >= now + network.delay);
                if let Some(rate) = network.bytes_per_second {
                    prop_assert!((out - 1000 - network.delay) as f64 >= sum as f64 / rate * 1e9 - 1000.0);
                }
                before = out;
            }
        }

        #[test]
        fn as_many_are_lost_as_should_be(loss in 0.01f64..0.3, seed: u64) {
            let network = Network { delay: 1_000_000, jitter: 0, loss, bytes_per_second: None };
            let mut line = Line::new(network, 0, seed);
            // So far apart that none waits for another.
            let late = (0..4000u64).filter(|n| {
                let now = n * 1_000_000_000_000;
                line.pass(now, 100) - now > network.delay
            });
            let share = late.count() as f64 / 4000.0;
            prop_assert!((share - loss).abs() < 0.05, "{} of {}", share, loss);
        }
    }

    #[test]
    fn nothing_wrong_with_it_is_no_delay() {
        let network = Network { delay: 0, jitter: 0, loss: 0.0, bytes_per_second: None };
        assert_eq!(Line::new(network, 0, 1).pass(5, 1 << 20), 5);
        assert_eq!(network.stall(), 200_000_000);
    }
}
