//! The swarm's face: a plan in, counts and quantiles out, second by second.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use net::address::Address;
use net::tls::TlsClientConfig;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use swarm::network::Network;
use swarm::plan::{Action, Pace, Phase, Plan, World};
use swarm::run::Run;
use swarm::tally::{ActionTally, Tally, Times};
use world::WorldShape;

/// A plan that is being played, on threads of its own.
#[pyclass(frozen, module = "gameserver._core")]
pub struct SwarmRun {
    run: Mutex<Run>,
}

/// An action, as a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct GivenAction {
    route: String,
    is_request: bool,
    weight: f64,
    bodies: Vec<Vec<u8>>,
    think: (f64, f64),
}

/// A phase, as a dict.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct GivenPhase {
    name: String,
    seconds: f64,
    clients: u32,
    jumps: bool,
    kind: String,
    amount: f64,
    churn: f64,
    drops: f64,
    storms: bool,
    counts: bool,
}

/// A network, as a dict; its share of clients, and None for the real one.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct GivenNetwork {
    share: f64,
    delay: f64,
    jitter: f64,
    loss: f64,
    bytes_per_second: Option<f64>,
    is_real: bool,
}

/// What the server says of its worlds, in JSON, and ticks a second.
type GivenWorld = (Option<String>, Option<String>, u32);

#[pymethods]
impl SwarmRun {
    #[new]
    #[pyo3(signature = (*, host, port, tls, websocket, get, join, world, resume, networks, handshakes, actions, phases, threads, seed, timeout))]
    #[expect(clippy::too_many_arguments, reason = "Python's own, by name")]
    fn new(
        host: IpAddr,
        port: u16,
        tls: Option<(PathBuf, String)>,
        websocket: Option<(String, String)>,
        get: Option<(String, String)>,
        join: Option<Vec<u8>>,
        world: GivenWorld,
        resume: bool,
        networks: Vec<GivenNetwork>,
        handshakes: Vec<Vec<u8>>,
        actions: Vec<GivenAction>,
        phases: Vec<GivenPhase>,
        threads: usize,
        seed: u64,
        timeout: f64,
    ) -> PyResult<Self> {
        let tls = match tls {
            Some((ca, name)) => {
                let config =
                    TlsClientConfig::trusting(&ca).map_err(|error| PyOSError::new_err(error.to_string()))?;
                Some((config, name))
            }
            None => None,
        };
        let actions = actions.into_iter().map(|action| Action {
            route: action.route,
            is_request: action.is_request,
            weight: action.weight,
            bodies: action.bodies,
            think: (nanos(action.think.0), nanos(action.think.1)),
        });
        let plan = Plan {
            address: Address::Tcp(SocketAddr::new(host, port)),
            tls,
            websocket,
            get,
            join,
            world: World { shape: shape(world.0)?, room_shape: shape(world.1)?, tick_rate: world.2 },
            resume,
            networks: networks.into_iter().map(network).collect(),
            handshakes,
            actions: actions.collect(),
            phases: phases.into_iter().map(phase).collect::<PyResult<_>>()?,
            threads,
            seed,
            timeout: nanos(timeout),
        };
        let sound = threads > 0
            && !plan.handshakes.is_empty()
            && !plan.phases.is_empty()
            && plan.actions.len() < usize::from(u16::MAX)
            && plan.actions.iter().all(|action| !action.bodies.is_empty() && action.weight > 0.0);
        if !sound {
            return Err(PyValueError::new_err(
                "a plan has threads, handshakes, phases, and bodies and weights of actions",
            ));
        }
        Ok(Self { run: Mutex::new(Run::start(plan)?) })
    }

    /// What all threads have told since the last call: a dict for each stretch of a second or less.
    fn poll<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let stretches = self.run().poll();
        stretches
            .iter()
            .map(|stretch| {
                let dict = tally_dict(py, &stretch.tally)?;
                dict.set_item("at", seconds(stretch.began))?;
                dict.set_item("seconds", seconds(stretch.nanos))?;
                dict.set_item("phase", stretch.phase)?;
                dict.set_item("clients", stretch.tally.clients)?;
                Ok(dict)
            })
            .collect()
    }

    /// What has counted so far, with curves, and each action for itself.
    fn total<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let run = self.run();
        let total = run.total();
        let dict = tally_dict(py, total)?;
        dict.set_item("curve", curve(&total.latency))?;
        dict.set_item("lateness_curve", curve(&total.lateness))?;
        let actions = total
            .actions
            .iter()
            .zip(&run.plan().actions)
            .map(|(tally, action)| action_dict(py, action, tally));
        dict.set_item("actions", actions.collect::<PyResult<Vec<_>>>()?)?;
        Ok(dict)
    }

    /// Whether all threads have ended.
    fn is_over(&self) -> bool {
        self.run().is_over()
    }

    /// Why a thread has failed, if one has; asked once all have ended.
    fn failure(&self) -> Option<String> {
        self.run().failure().map(str::to_owned)
    }

    /// The server's tick of this number is due then, ns of the monotonic clock: so the age of snapshots is known.
    fn tell_tick(&self, number: u64, due: u64) {
        self.run().tell_tick(number, due);
    }

    /// Seconds since the start.
    fn elapsed(&self) -> f64 {
        self.run().elapsed() as f64 / 1e9
    }

    /// Ends it early.
    fn stop(&self) {
        self.run().stop();
    }
}

impl SwarmRun {
    fn run(&self) -> MutexGuard<'_, Run> {
        // Counts, and handles of threads: whatever has panicked, they are whole.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn phase(given: GivenPhase) -> PyResult<Phase> {
    let GivenPhase { name, seconds, clients, jumps, kind, amount, churn, drops, storms, counts } = given;
    let pace = match kind.as_str() {
        "quiet" => Pace::Quiet,
        "open" if amount > 0.0 => Pace::Open(amount),
        "closed" => Pace::Closed(amount as u32),
        _ => return Err(PyValueError::new_err(format!("a pace is quiet, open or closed, not {kind}"))),
    };
    Ok(Phase { name, nanos: nanos(seconds).max(1), clients, jumps, pace, churn, drops, storms, counts })
}

fn network(given: GivenNetwork) -> (f64, Option<Network>) {
    let network = Network {
        delay: nanos(given.delay),
        jitter: nanos(given.jitter),
        loss: given.loss,
        bytes_per_second: given.bytes_per_second,
    };
    (given.share, (!given.is_real).then_some(network))
}

fn shape(tables: Option<String>) -> PyResult<Option<WorldShape>> {
    let shape = tables.map(|tables| WorldShape::from_json(&tables)).transpose();
    shape.map_err(|error| PyValueError::new_err(format!("a world's tables: {error}")))
}

fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn tally_dict<'py>(py: Python<'py>, tally: &Tally) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, times) in [
        ("latency", &tally.latency),
        ("lateness", &tally.lateness),
        ("connecting", &tally.connecting),
        ("joining", &tally.joining),
        ("resuming", &tally.resuming),
        ("snapshot_gaps", &tally.snapshot_gaps),
        ("snapshot_ages", &tally.snapshot_ages),
    ] {
        dict.set_item(name, times_dict(py, times)?)?;
    }
    for (name, count) in [
        ("begun", tally.begun),
        ("opened", tally.opened),
        ("resumed", tally.resumed),
        ("renewed", tally.renewed),
        ("sent", tally.sent()),
        ("answered", tally.answered()),
        ("failed", tally.errors()),
        ("timed_out", tally.timed_out),
        ("lost", tally.lost),
        ("snapshots", tally.snapshots),
        ("decoded", tally.decoded),
        ("entities", tally.entities),
        ("bytes_in", tally.bytes_in),
        ("bytes_out", tally.bytes_out),
    ] {
        dict.set_item(name, count)?;
    }
    dict.set_item("cpu", seconds(tally.cpu))?;
    dict.set_item("ended", &tally.ended)?;
    let pushes = PyDict::new(py);
    for (route, (count, bytes)) in &tally.pushes {
        pushes.set_item(route, (count, bytes))?;
    }
    dict.set_item("pushes", pushes)?;
    let errors = PyDict::new(py);
    for (code, count) in tally.actions.iter().flat_map(|action| &action.errors) {
        let before: u64 = errors.get_item(code)?.map_or(Ok(0), |count| count.extract())?;
        errors.set_item(code, before + count)?;
    }
    dict.set_item("errors", errors)?;
    Ok(dict)
}

fn action_dict<'py>(py: Python<'py>, action: &Action, tally: &ActionTally) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("route", &action.route)?;
    dict.set_item("is_request", action.is_request)?;
    dict.set_item("sent", tally.sent)?;
    dict.set_item("bytes", tally.bytes)?;
    dict.set_item("answered", tally.answered)?;
    dict.set_item("errors", &tally.errors)?;
    dict.set_item("latency", times_dict(py, &tally.latency)?)?;
    Ok(dict)
}

/// Seconds.
fn times_dict<'py>(py: Python<'py>, times: &Times) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("count", times.count())?;
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
        dict.set_item(name, seconds(times.quantile(share)))?;
    }
    dict.set_item("mean", times.mean() / 1e9)?;
    Ok(dict)
}

fn curve(times: &Times) -> Vec<(f64, f64)> {
    times.curve().into_iter().map(|(share, nanos)| (share, seconds(nanos))).collect()
}
