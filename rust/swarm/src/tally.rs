//! What clients noticed, as counts and histograms; those of several threads and seconds add up.

use std::collections::BTreeMap;

use engine::event::Nanos;
use hdrhistogram::Histogram;

/// Nanoseconds, to three digits, up to a minute; what is longer counts as a minute.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that are allowed");
        histogram.auto(false);
        Self(histogram)
    }
}

impl Times {
    /// One more.
    #[inline]
    pub fn record(&mut self, nanos: Nanos) {
        self.0.saturating_record(nanos.clamp(1, LONGEST));
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value that this share of all are at most; 0 if there are none.
    pub fn quantile(&self, share: f64) -> Nanos {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(share) }
    }

    /// The largest; 0 if there are none.
    pub fn max(&self) -> Nanos {
        self.quantile(1.0)
    }

    /// Their mean.
    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    /// A curve: shares of all, each nearer to 1, and their quantiles.
    pub fn curve(&self) -> Vec<(f64, Nanos)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_quantiles(5);
        steps.map(|step| (step.quantile(), step.value_iterated_to())).collect()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("of the same bounds");
    }
}

/// Of one action.
#[derive(Clone, Debug, Default)]
pub struct ActionTally {
    /// Sent.
    pub sent: u64,
    /// Bytes of bodies sent.
    pub bytes: u64,
    /// Answered, well or with an error.
    pub answered: u64,
    /// With an error, by its code.
    pub errors: BTreeMap<String, u64>,
    /// From the intended time to the answer.
    pub latency: Times,
}

/// All of it, of a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Of each action, in the plan's order.
    pub actions: Vec<ActionTally>,
    /// Of all requests.
    pub latency: Times,
    /// How late messages left: the tool's own delay. Open loop.
    pub lateness: Times,
    /// From the first packet of a connection to its being let in.
    pub connecting: Times,
    /// From being let in to having a seat in a room.
    pub joining: Times,
    /// From being cut off to going on with the session.
    pub resuming: Times,
    /// Between two snapshots of one client.
    pub snapshot_gaps: Times,
    /// How old snapshots were when they came: since their tick was due.
    pub snapshot_ages: Times,
    /// Connections that were begun, and those that were let in.
    pub begun: u64,
    /// See `begun`.
    pub opened: u64,
    /// Connections with which a session went on, and those that were to and got a new one.
    pub resumed: u64,
    /// See `resumed`.
    pub renewed: u64,
    /// How connections ended that we did not end: the server's kick, a reset, a refusal.
    pub ended: BTreeMap<String, u64>,
    /// Requests that waited too long.
    pub timed_out: u64,
    /// Requests whose connection ended before their answer.
    pub lost: u64,
    /// Pushes by route: how many, and bytes of their bodies.
    pub pushes: BTreeMap<String, (u64, u64)>,
    /// Snapshots of the world.
    pub snapshots: u64,
    /// Entities that clients had in view after snapshots that they decoded, all added up.
    pub entities: u64,
    /// Such snapshots.
    pub decoded: u64,
    /// Bytes received and sent, framing and TLS included.
    pub bytes_in: u64,
    /// See `bytes_in`.
    pub bytes_out: u64,
    /// CPU time of the threads.
    pub cpu: Nanos,
    /// Clients that are in; of several threads added up, of several seconds the last.
    pub clients: u64,
}

impl Tally {
    /// For so many actions.
    pub fn new(actions: usize) -> Self {
        Self { actions: vec![ActionTally::default(); actions], ..Self::default() }
    }

    /// Adds what another thread, or another second, has counted. `clients` is not touched.
    pub fn add(&mut self, other: &Self) {
        for (action, other) in self.actions.iter_mut().zip(&other.actions) {
            action.sent += other.sent;
            action.bytes += other.bytes;
            action.answered += other.answered;
            action.latency.add(&other.latency);
            add_counts(&mut action.errors, &other.errors);
        }
        for (times, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.lateness, &other.lateness),
            (&mut self.snapshot_gaps, &other.snapshot_gaps),
            (&mut self.snapshot_ages, &other.snapshot_ages),
        ] {
            times.add(others);
        }
        for (route, (count, bytes)) in &other.pushes {
            let sum = self.pushes.entry(route.clone()).or_default();
            *sum = (sum.0 + count, sum.1 + bytes);
        }
        for (sum, more) in [
            (&mut self.timed_out, other.timed_out),
            (&mut self.lost, other.lost),
            (&mut self.snapshots, other.snapshots),
            (&mut self.entities, other.entities),
            (&mut self.decoded, other.decoded),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.cpu, other.cpu),
        ] {
            *sum += more;
        }
        self.add_connections(other);
    }

    /// Adds only what became of connections.
    pub fn add_connections(&mut self, other: &Self) {
        self.begun += other.begun;
        self.opened += other.opened;
        self.resumed += other.resumed;
        self.renewed += other.renewed;
        self.resuming.add(&other.resuming);
        self.connecting.add(&other.connecting);
        self.joining.add(&other.joining);
        add_counts(&mut self.ended, &other.ended);
    }

    /// Messages sent.
    pub fn sent(&self) -> u64 {
        self.actions.iter().map(|action| action.sent).sum()
    }

    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.actions.iter().map(|action| action.answered).sum()
    }

    /// Answers that were errors.
    pub fn errors(&self) -> u64 {
        self.actions.iter().flat_map(|action| action.errors.values()).sum()
    }
}

/// One more of a name that came from a server.
pub(crate) fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    add_count(counts, name, 1);
}

fn add_counts(sum: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (name, &more) in more {
        add_count(sum, name, more);
    }
}

/// A server may send a new name each time: beyond a bound they are others.
fn add_count(counts: &mut BTreeMap<String, u64>, name: &str, more: u64) {
    let known = if counts.len() < NAMES_MAX || counts.contains_key(name) { name } else { OTHERS };
    match counts.get_mut(known) {
        Some(count) => *count += more,
        None => _ = counts.insert(known.to_owned(), more),
    }
}

pub(crate) const NAMES_MAX: usize = 256;
pub(crate) const OTHERS: &str = "others";
const LONGEST: Nanos = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_hostile_server_are_bounded_and_all_counted() {
        let (mut total, mut sent) = (Tally::new(1), 0);
        for stretch in 0..4 {
            let mut tally = Tally::new(1);
            for number in 0..1000 {
                count(&mut tally.ended, &format!("{stretch}.{number}"));
                sent += 1;
            }
            assert!(tally.ended.len() <= NAMES_MAX + 1);
            total.add(&tally);
        }
        assert!(total.ended.len() <= NAMES_MAX + 1);
        assert_eq!(total.ended.values().sum::<u64>(), sent);
    }

    #[test]
    fn times_of_two_threads_are_those_of_one() {
        let (mut all, mut odd, mut even) = (Times::default(), Times::default(), Times::default());
        for nanos in 1..10_000u64 {
            all.record(nanos * 1000);
            if nanos % 2 == 0 { even.record(nanos * 1000) } else { odd.record(nanos * 1000) }
        }
        odd.add(&even);
        for share in [0.0, 0.5, 0.99, 0.999, 1.0] {
            assert_eq!(odd.quantile(share), all.quantile(share));
        }
        assert_eq!((odd.count(), odd.max()), (9_999, all.max()));
        all.record(u64::MAX);
        assert!(all.max() >= LONGEST);
        assert_eq!(Times::default().quantile(0.5), 0);
    }
}
