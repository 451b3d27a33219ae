//! The same peers on a thread of their own: whole logs cross over bounded queues, one wake per burst.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use crossbeam_queue::{ArrayQueue, SegQueue};
use engine::event::{DownLog, UpLog};
use engine::link::LinkConfig;
use net::reactor::ReactorStats;
use net::waker::Waker;

use crate::peers::Peers;

/// Logs that may wait for the logic thread; then the thread stops reading and goes on sending.
const UP_LOGS_MAX: usize = 8;

/// One reactor's thread, seen from the logic thread.
pub struct IoThread {
    shared: Arc<Shared>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ups: ArrayQueue<UpLog>,
    empty_ups: ArrayQueue<UpLog>,
    // Unbounded, but what is in it was charged to sessions, and each session has its bound.
    orders: SegQueue<Order>,
    empty_downs: ArrayQueue<DownLog>,
    blocked: AtomicBool,
    stop: AtomicBool,
    stats: std::sync::Mutex<ReactorStats>,
}

enum Order {
    Apply(DownLog),
    Configure(Arc<LinkConfig>),
    StopListening,
}

impl IoThread {
    /// Starts thread `number`; `logic` wakes the logic thread.
    pub fn start(mut peers: Peers, number: u8, logic: Waker, spin: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            ups: ArrayQueue::new(UP_LOGS_MAX),
            empty_ups: ArrayQueue::new(UP_LOGS_MAX),
            orders: SegQueue::new(),
            empty_downs: ArrayQueue::new(UP_LOGS_MAX),
            blocked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stats: std::sync::Mutex::default(),
        });
        let waker = peers.reactor().waker();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("gameserver-io-{number}"))
            .spawn(move || run(&mut peers, &theirs, &logic, spin))?;
        Ok(Self { shared, waker, thread: Some(thread) })
    }

    /// The next log, if there is one.
    pub fn poll(&self) -> Option<UpLog> {
        let log = self.shared.ups.pop();
        if log.is_some() && self.shared.blocked.load(SeqCst) {
            self.waker.wake();
        }
        log
    }

    /// Gives a log's buffers back.
    pub fn recycle(&self, mut log: UpLog) {
        log.clear();
        let _ = self.shared.empty_ups.push(log); // one too many: freed
    }

    /// Sends a log, leaving an empty one.
    pub fn apply(&self, downs: &mut DownLog) {
        let empty = self.shared.empty_downs.pop().unwrap_or_default();
        self.order(Order::Apply(std::mem::replace(downs, empty)));
    }

    /// New settings for all links.
    pub fn configure(&self, config: Arc<LinkConfig>) {
        self.order(Order::Configure(config));
    }

    /// No new connections.
    pub fn stop_listening(&self) {
        self.order(Order::StopListening);
    }

    /// Counters, as of the thread's last pass.
    pub fn stats(&self) -> ReactorStats {
        self.shared.stats.lock().map(|stats| *stats).unwrap_or_default()
    }

    fn order(&self, order: Order) {
        self.shared.orders.push(order);
        self.waker.wake();
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic of the thread was reported by its hook
        }
    }
}

fn run(peers: &mut Peers, shared: &Shared, logic: &Waker, spin: bool) {
    let mut ups = UpLog::default();
    let (mut stopping, mut open) = (false, 0);
    while !shared.stop.load(SeqCst) {
        if let Err(error) = peers.wait(None, spin) {
            tracing::error!(%error, "waiting for sockets failed");
            return;
        }
        // Reading tells the wake; an order pushed from then on is a wake of its own, so none is left lying.
        peers.read(&mut ups, usize::MAX);
        while let Some(order) = shared.orders.pop() {
            match order {
                Order::Apply(mut downs) => {
                    peers.apply(&downs, &mut ups);
                    downs.clear();
                    let _ = shared.empty_downs.push(downs); // one too many: freed
                }
                Order::Configure(config) => peers.configure(config),
                Order::StopListening => {
                    peers.stop_listening(&mut ups);
                    stopping = true;
                }
            }
        }
        peers.flush(false, &mut ups);
        deliver(peers, shared, &mut ups, logic);
        let stats = peers.reactor().stats();
        if stopping && stats.open < open {
            // A shutdown waits for the last socket, and the end of one that only lingered is no event.
            logic.wake();
        }
        open = stats.open;
        if let Ok(mut shown) = shared.stats.lock() {
            *shown = stats;
        }
    }
}

/// Hands the log over; when there is no room, reading stops until there is.
fn deliver(peers: &mut Peers, shared: &Shared, ups: &mut UpLog, logic: &Waker) {
    let was_blocked = shared.blocked.load(SeqCst);
    if !ups.is_empty() {
        let empty = shared.empty_ups.pop().unwrap_or_default();
        match shared.ups.push(std::mem::replace(ups, empty)) {
            Ok(()) => logic.wake(),
            Err(log) => {
                *ups = log;
                shared.blocked.store(true, SeqCst);
            }
        }
    }
    if ups.is_empty() {
        shared.blocked.store(false, SeqCst);
    } else if shared.ups.is_empty() {
        // The logic thread took everything between the push and the mark: nobody would wake us.
        return deliver(peers, shared, ups, logic);
    }
    if was_blocked == ups.is_empty() {
        peers.set_reading(ups.is_empty());
    }
}
