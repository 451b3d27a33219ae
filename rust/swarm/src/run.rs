//! A plan on its threads, and what they have counted so far.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use engine::event::Nanos;
use net::reactor::ReactorStats;
use net::sys::thread_cpu_time;

use crate::http::Browsers;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::worker::{ORIGIN_UNKNOWN, Worker};

/// What one thread, or all of them, have counted in a stretch of the run: a second, or less where a phase ends.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// From 0.
    pub number: usize,
    /// When it began, from the start.
    pub began: Nanos,
    /// How long it was to be.
    pub nanos: Nanos,
    /// The plan's phase; one beyond the last: what was under way at the end.
    pub phase: usize,
    /// The counts.
    pub tally: Tally,
}

/// A thread's place in a run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Which of the plan's threads it is.
    pub number: u32,
    /// When the plan started (monotonic).
    pub started: Nanos,
    /// When the server's tick 0 was due.
    pub tick_origin: Arc<AtomicI64>,
    tell: Sender<Stretch>,
    stop: Arc<AtomicBool>,
}

impl Place {
    /// Whether the run was ended early.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Hands over what a thread has counted, stretch by stretch.
#[derive(Debug)]
pub(crate) struct Teller {
    plan: Arc<Plan>,
    started: Nanos,
    /// Of stretches, from the start.
    ends: Vec<Nanos>,
    number: usize,
    cpu_before: Nanos,
    bytes_before: (u64, u64),
    to: Sender<Stretch>,
}

impl Teller {
    /// Of the thread that has this place.
    pub fn new(plan: Arc<Plan>, at: &Place) -> Self {
        let ends = plan.stretches();
        let to = at.tell.clone();
        Self { plan, started: at.started, ends, number: 0, cpu_before: 0, bytes_before: (0, 0), to }
    }

    /// From now on CPU time counts: of the thread that calls this.
    pub fn begin(&mut self) {
        self.cpu_before = thread_cpu_time();
    }

    /// When a stretch is over.
    pub fn due(&self) -> Nanos {
        self.ends.get(self.number).map_or(Nanos::MAX, |end| self.started + end)
    }

    /// Tells what was counted since the last time.
    pub fn tell(&mut self, now: Nanos, mut tally: Tally, stats: ReactorStats) {
        let cpu = thread_cpu_time();
        tally.cpu = cpu - self.cpu_before;
        tally.bytes_in = stats.bytes_in - self.bytes_before.0;
        tally.bytes_out = stats.bytes_out - self.bytes_before.1;
        (self.cpu_before, self.bytes_before) = (cpu, (stats.bytes_in, stats.bytes_out));
        let at = now.saturating_sub(self.started);
        let began = self.number.checked_sub(1).map_or(0, |before| self.ends[before.min(self.ends.len() - 1)]);
        let end = self.ends.get(self.number).map_or(at, |&end| end.min(at)); // it may be ended early
        let phase = self.plan.phase_at(began).map_or(self.plan.phases.len(), |(phase, _)| phase);
        // Nobody listens: the run was dropped, and says so to `stop`.
        let _ = self.to.send(Stretch {
            number: self.number,
            began,
            nanos: end.saturating_sub(began),
            phase,
            tally,
        });
        self.number = self.ends.partition_point(|&end| end <= at).max(self.number + 1);
    }
}

/// A plan that is being played.
#[derive(Debug)]
pub struct Run {
    plan: Arc<Plan>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    told: Receiver<Stretch>,
    stop: Arc<AtomicBool>,
    tick_origin: Arc<AtomicI64>,
    /// Of threads that have told: how many have, and what.
    open: BTreeMap<usize, (usize, Stretch)>,
    total: Tally,
    started: Nanos,
    failure: Option<String>,
}

impl Run {
    /// Starts the threads.
    pub fn start(plan: Plan) -> io::Result<Self> {
        let _ = net::sys::raise_descriptor_limit();
        let plan = Arc::new(plan);
        let started = net::sys::monotonic_now();
        let (tell, told) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let tick_origin = Arc::new(AtomicI64::new(ORIGIN_UNKNOWN));
        let mut threads = Vec::new();
        for number in 0..plan.threads as u32 {
            let thread = std::thread::Builder::new().name(format!("swarm-{number}"));
            let (tell, stop, tick_origin) = (tell.clone(), stop.clone(), tick_origin.clone());
            let at = Place { number, started, tick_origin, tell, stop };
            let plan = plan.clone();
            threads.push(if plan.get.is_some() {
                let mut browsers = Browsers::new(plan, at)?;
                thread.spawn(move || browsers.play())?
            } else {
                let mut worker = Worker::new(plan, at)?;
                thread.spawn(move || worker.play())?
            });
        }
        let total = Tally::new(plan.actions.len());
        let open = BTreeMap::new();
        Ok(Self { plan, threads, told, stop, tick_origin, open, total, started, failure: None })
    }

    /// Stretches that all threads have told since the last call, in order.
    pub fn poll(&mut self) -> Vec<Stretch> {
        let is_over = self.is_over(); // asked before: what a thread has told last is not missed
        while let Ok(stretch) = self.told.try_recv() {
            match self.open.get_mut(&stretch.number) {
                Some((told, sum)) => {
                    *told += 1;
                    sum.tally.clients += stretch.tally.clients;
                    sum.tally.add(&stretch.tally);
                }
                None => {
                    self.open.insert(stretch.number, (1, stretch));
                }
            }
        }
        let threads = self.threads.len();
        let mut done = Vec::new();
        // A thread that was busy may have told two stretches as one: then the later one never fills up.
        let newest_full =
            self.open.iter().rev().find(|(_, (told, _))| *told >= threads).map(|(number, _)| *number);
        while let Some(entry) = self.open.first_entry() {
            if !is_over && newest_full.is_none_or(|newest| *entry.key() > newest) {
                break;
            }
            done.push(entry.remove().1);
        }
        for stretch in &done {
            match self.plan.phases.get(stretch.phase).is_none_or(|phase| phase.counts) {
                true => self.total.add(&stretch.tally),
                false => self.total.add_connections(&stretch.tally),
            }
        }
        done
    }

    /// Whether all threads have ended.
    pub fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// What has counted so far: of phases that do not count, connections alone.
    pub fn total(&self) -> &Tally {
        &self.total
    }

    /// What is being played.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Nanoseconds since the start.
    pub fn elapsed(&self) -> Nanos {
        net::sys::monotonic_now() - self.started
    }

    /// The server's tick of this number is due then (monotonic): so the age of snapshots is known.
    pub fn tell_tick(&self, number: u64, due: Nanos) {
        let rate = self.plan.world.tick_rate;
        if rate > 0 {
            let origin = i128::from(due) - i128::from(number) * 1_000_000_000 / i128::from(rate);
            self.tick_origin.store(origin as i64, Ordering::Relaxed);
        }
    }

    /// Ends it early.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Why a thread has failed, once all have ended.
    pub fn failure(&mut self) -> Option<&str> {
        if self.is_over() {
            for thread in self.threads.drain(..) {
                match thread.join() {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => self.failure = Some(error.to_string()),
                    Err(_) => self.failure = Some("a thread of the swarm panicked".to_owned()),
                }
            }
        }
        self.failure.as_deref()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // what it failed of, nobody asks any more
        }
    }
}
