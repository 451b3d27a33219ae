//! What is to be played: against whom, by how many, in which phases, with which messages.

use engine::event::Nanos;
use net::address::Address;
use net::tls::TlsClientConfig;
use world::WorldShape;

use crate::network::Network;

/// All of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub address: Address,
    /// Whom its certificate must name; None: without TLS.
    pub tls: Option<(TlsClientConfig, String)>,
    /// Host and path of WebSocket; None: packets straight on the stream.
    pub websocket: Option<(String, String)>,
    /// Host and path of a page: clients speak HTTP and nothing else, in a closed loop of one request each. Pace, churn and storms
    /// do not count then; the page is the first action.
    pub get: Option<(String, String)>,
    /// Handshakes in JSON; client n sends the one of number n modulo how many there are. At least one.
    pub handshakes: Vec<Vec<u8>>,
    /// The body of `$join_or_create`, JSON: each client takes a seat in a room before it plays, and what it says goes there.
    pub join: Option<Vec<u8>>,
    /// Of clients that asked for the replicated world.
    pub world: World,
    /// Whether a session outlives its connection: a client that was cut off goes on where it was. Handshakes have
    /// `"resume":{}` then, in `sys.gs`, before anything that could be taken for it.
    pub resume: bool,
    /// Networks between clients and the server, and the share of clients that have each; None: the real one. Empty: all have that.
    pub networks: Vec<(f64, Option<Network>)>,
    /// What clients say; may be none.
    pub actions: Vec<Action>,
    /// One after the other. At least one.
    pub phases: Vec<Phase>,
    /// At least one. Clients are dealt out to them.
    pub threads: usize,
    /// Of all that is left to chance.
    pub seed: u64,
    /// A request without an answer for so long counts as timed out, as does a connection that is not up by then.
    pub timeout: Nanos,
}

/// One kind of message.
#[derive(Clone, Debug)]
pub struct Action {
    /// Its route.
    pub route: String,
    /// Whether an answer is awaited; else it is a notify.
    pub is_request: bool,
    /// How often it is chosen, beside the others'.
    pub weight: f64,
    /// Bodies to choose from, in turn. At least one.
    pub bodies: Vec<Vec<u8>>,
    /// After it the client says nothing for a time between these two: in an open loop beyond the pace's interval, in a
    /// closed loop once the answer is there.
    pub think: (Nanos, Nanos),
}

/// What clients do with snapshots.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// The app's: they decode each snapshot. None: it is only counted.
    pub shape: Option<WorldShape>,
    /// The same of the room in which they take their seats.
    pub room_shape: Option<WorldShape>,
    /// Ticks a second of the app's; 0: no snapshot's age is known.
    pub tick_rate: u32,
}

/// A stretch of time.
#[derive(Clone, Debug)]
pub struct Phase {
    /// For reports.
    pub name: String,
    /// How long.
    pub nanos: Nanos,
    /// Clients at its end: from one phase's to the next one's their number goes evenly, or at once with `jumps`.
    pub clients: u32,
    /// All at its beginning, not one after the other.
    pub jumps: bool,
    /// What they do.
    pub pace: Pace,
    /// So many a second leave in good order, and others come for them.
    pub churn: f64,
    /// The connections of so many a second are cut off, and they come back.
    pub drops: f64,
    /// At its beginning every connection is cut off, and all come back.
    pub storms: bool,
    /// Whether its latencies count in the total.
    pub counts: bool,
}

/// How clients send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Nothing.
    Quiet,
    /// Open loop: so many messages a second from each client, evenly, each client from an offset of its own.
    Open(f64),
    /// Closed loop: so many requests of each client are under way at any time. What a slow server is spared is not seen.
    Closed(u32),
}

impl Plan {
    /// How long it takes.
    pub fn nanos(&self) -> Nanos {
        self.phases.iter().map(|phase| phase.nanos).sum()
    }

    /// When each stretch ends that is told for itself, from the start: whole seconds, and ends of phases.
    pub(crate) fn stretches(&self) -> Vec<Nanos> {
        let mut ends: Vec<Nanos> = (1..=self.nanos() / SECOND).map(|second| second * SECOND).collect();
        let mut end = 0;
        for phase in &self.phases {
            end += phase.nanos;
            ends.push(end);
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// The number of the phase at `at` nanoseconds from the start, and when it began; None: it is over.
    pub fn phase_at(&self, at: Nanos) -> Option<(usize, Nanos)> {
        let mut began = 0;
        for (number, phase) in self.phases.iter().enumerate() {
            if at < began + phase.nanos {
                return Some((number, began));
            }
            began += phase.nanos;
        }
        None
    }

    /// How many clients there should be at `at`.
    pub fn clients_at(&self, at: Nanos) -> u32 {
        let Some((number, began)) = self.phase_at(at) else { return 0 };
        let phase = &self.phases[number];
        let before = number.checked_sub(1).map_or(0, |before| self.phases[before].clients);
        if phase.jumps {
            return phase.clients;
        }
        let share = (at - began) as f64 / phase.nanos as f64;
        (f64::from(before) + (f64::from(phase.clients) - f64::from(before)) * share).round() as u32
    }

    /// The most clients at any time.
    pub fn clients_max(&self) -> u32 {
        self.phases.iter().map(|phase| phase.clients).max().unwrap_or(0)
    }

    /// What is said in turn: numbers of actions, as often as their weights say, well mixed.
    pub(crate) fn turns(&self, random: &mut Random) -> Vec<u16> {
        let weights: Vec<f64> = self.actions.iter().map(|action| action.weight).collect();
        let mut turns = deal(&weights);
        for last in (1..turns.len()).rev() {
            turns.swap(last, random.below(last as u64 + 1) as usize);
        }
        turns
    }

    /// Numbers of networks: client n has the one in place n, modulo how many there are.
    pub(crate) fn network_of_clients(&self) -> Vec<u16> {
        deal(&self.networks.iter().map(|(share, _)| *share).collect::<Vec<_>>())
    }
}

/// Numbers of weights, each as often as its share says and evenly spread: the one that is furthest behind comes next.
fn deal(weights: &[f64]) -> Vec<u16> {
    let sum: f64 = weights.iter().sum();
    let mut dealt = Vec::new();
    let mut due: Vec<f64> = vec![0.0; weights.len()];
    for _ in 0..if sum > 0.0 { TURNS } else { 0 } {
        for (due, weight) in due.iter_mut().zip(weights) {
            *due += weight / sum;
        }
        let (next, _) = due.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("there are some");
        due[next] -= 1.0;
        dealt.push(next as u16);
    }
    dealt
}

const TURNS: usize = 4096;
const SECOND: Nanos = 1_000_000_000;

/// SplitMix64 (Steele, Lea, Flood 2014): enough chance for a load, and the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From `first` to `last`, both included.
    pub(crate) fn between(&mut self, (first, last): (u64, u64)) -> u64 {
        first + self.below(last.saturating_sub(first).saturating_add(1))
    }

    /// From 0 to below 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phase(nanos: Nanos, clients: u32, jumps: bool) -> Phase {
        Phase {
            name: String::new(),
            nanos,
            clients,
            jumps,
            pace: Pace::Quiet,
            churn: 0.0,
            drops: 0.0,
            storms: false,
            counts: true,
        }
    }

    fn plan(phases: Vec<Phase>, weights: &[f64]) -> Plan {
        let action = |&weight: &f64| Action {
            route: "a".into(),
            is_request: true,
            weight,
            bodies: vec![Vec::new()],
            think: (0, 0),
        };
        Plan {
            address: Address::Tcp("127.0.0.1:1".parse().unwrap()),
            tls: None,
            websocket: None,
            get: None,
            join: None,
            world: World::default(),
            resume: false,
            networks: Vec::new(),
            handshakes: vec![b"{}".to_vec()],
            actions: weights.iter().map(action).collect(),
            phases,
            threads: 1,
            seed: 1,
            timeout: 1,
        }
    }

    #[test]
    fn clients_rise_and_fall_evenly_and_jump_where_they_should() {
        let plan = plan(
            vec![phase(100, 10, false), phase(100, 10, false), phase(50, 40, true), phase(10, 0, false)],
            &[],
        );
        let at = |at| plan.clients_at(at);
        assert_eq!((at(0), at(50), at(99), at(150), at(200), at(249)), (0, 5, 10, 10, 40, 40));
        assert_eq!((at(255), at(260), plan.nanos(), plan.clients_max()), (20, 0, 260, 40));
    }

    #[test]
    fn stretches_are_seconds_and_end_with_phases() {
        let plan = plan(vec![phase(SECOND / 2, 1, false), phase(2 * SECOND, 1, false)], &[]);
        assert_eq!(plan.stretches(), [1, 2, 4, 5].map(|half| half * SECOND / 2));
    }

    proptest! {
        #[test]
        fn each_action_has_its_share(weights in proptest::collection::vec(0.01f64..100.0, 1..20), seed: u64) {
            let plan = plan(vec![phase(1, 1, false)], &weights);
            let turns = plan.turns(&mut Random(seed));
            let sum: f64 = weights.iter().sum();
            for (number, weight) in weights.iter().enumerate() {
                let found = turns.iter().filter(|&&turn| usize::from(turn) == number).count() as f64;
                prop_assert!((found - weight / sum * turns.len() as f64).abs() < 2.0 + weights.len() as f64);
            }
        }
    }
}
