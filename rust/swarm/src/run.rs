//! A plan on its threads, and what they have counted so far.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use engine::event::Nanos;
use net::reactor::ReactorStats;
use net::sys::thread_cpu_time;

use crate::http::Browsers;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::worker::Worker;

/// What one thread, or all of them, have counted in a second of the run.
#[derive(Clone, Debug)]
pub struct Second {
    /// From 0.
    pub number: u64,
    /// The plan's phase at its beginning; one beyond the last: what was under way at the end.
    pub phase: usize,
    /// The counts.
    pub tally: Tally,
}

/// Hands over what a thread has counted, once a second.
#[derive(Debug)]
pub(crate) struct Teller {
    started: Nanos,
    second: u64,
    cpu_before: Nanos,
    bytes_before: (u64, u64),
    to: Sender<Second>,
}

impl Teller {
    /// Of a plan that started at `started`.
    pub fn new(started: Nanos, to: Sender<Second>) -> Self {
        Self { started, second: 0, cpu_before: 0, bytes_before: (0, 0), to }
    }

    /// From now on CPU time counts: of the thread that calls this.
    pub fn begin(&mut self) {
        self.cpu_before = thread_cpu_time();
    }

    /// When a second is over.
    pub fn due(&self) -> Nanos {
        self.started + (self.second + 1) * SECOND
    }

    /// Tells what was counted since the last time.
    pub fn tell(&mut self, now: Nanos, plan: &Plan, mut tally: Tally, stats: ReactorStats) {
        let cpu = thread_cpu_time();
        tally.cpu = cpu - self.cpu_before;
        tally.bytes_in = stats.bytes_in - self.bytes_before.0;
        tally.bytes_out = stats.bytes_out - self.bytes_before.1;
        (self.cpu_before, self.bytes_before) = (cpu, (stats.bytes_in, stats.bytes_out));
        let phase = plan.phase_at(self.second * SECOND).map_or(plan.phases.len(), |(phase, _)| phase);
        // Nobody listens: the run was dropped, and says so to `stop`.
        let _ = self.to.send(Second { number: self.second, phase, tally });
        self.second = (now - self.started.min(now)) / SECOND;
    }
}

/// A plan that is being played.
#[derive(Debug)]
pub struct Run {
    plan: Arc<Plan>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    seconds: Receiver<Second>,
    stop: Arc<AtomicBool>,
    /// Of threads that have told: how many have, and what.
    open: BTreeMap<u64, (usize, Second)>,
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
        let (tell, seconds) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..plan.threads as u32 {
            let thread = std::thread::Builder::new().name(format!("swarm-{number}"));
            let (plan, tell, stop) = (plan.clone(), tell.clone(), stop.clone());
            threads.push(if plan.get.is_some() {
                let mut browsers = Browsers::new(plan, number, started, tell, stop)?;
                thread.spawn(move || browsers.play())?
            } else {
                let mut worker = Worker::new(plan, number, started, tell, stop)?;
                thread.spawn(move || worker.play())?
            });
        }
        let total = Tally::new(plan.actions.len());
        Ok(Self { plan, threads, seconds, stop, open: BTreeMap::new(), total, started, failure: None })
    }

    /// Seconds that all threads have told since the last call, in order.
    pub fn poll(&mut self) -> Vec<Second> {
        let is_over = self.is_over(); // asked before: what a thread has told last is not missed
        while let Ok(second) = self.seconds.try_recv() {
            match self.open.get_mut(&second.number) {
                Some((told, sum)) => {
                    *told += 1;
                    sum.tally.clients += second.tally.clients;
                    sum.tally.add(&second.tally);
                }
                None => {
                    self.open.insert(second.number, (1, second));
                }
            }
        }
        let threads = self.threads.len();
        let mut done = Vec::new();
        // A thread that was busy may have told two seconds as one: then the earlier one never fills up.
        let newest_full =
            self.open.iter().rev().find(|(_, (told, _))| *told >= threads).map(|(number, _)| *number);
        while let Some(entry) = self.open.first_entry() {
            if !is_over && newest_full.is_none_or(|newest| *entry.key() > newest) {
                break;
            }
            done.push(entry.remove().1);
        }
        for second in &done {
            match self.plan.phases.get(second.phase).is_none_or(|phase| phase.counts) {
                true => self.total.add(&second.tally),
                false => self.total.add_connections(&second.tally),
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

const SECOND: Nanos = 1_000_000_000;

impl Drop for Run {
    fn drop(&mut self) {
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // what it failed of, nobody asks any more
        }
    }
}
