//! The same peers on a thread of their own: whole logs cross over bounded queues, one wake per burst.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use crossbeam_queue::{ArrayQueue, SegQueue};
use engine::event::{Close, DownLog, Log, UpLog};
use engine::link::LinkConfig;
use net::reactor::ReactorStats;
use net::waker::Waker;

use crate::peers::Peers;

/// Logs that may wait for the logic thread; then the thread stops reading and goes on sending.
const UP_LOGS_MAX: usize = 8;
/// An empty log that keeps more memory than this is not kept.
const KEPT_BYTES: usize = 256 << 10;

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
    stats: Mutex<ReactorStats>,
    /// Why the thread has ended, if nobody asked it to.
    failure: OnceLock<String>,
    /// What it had still to tell then.
    last_words: Mutex<Option<UpLog>>,
}

enum Order {
    Apply(DownLog),
    Configure(Arc<LinkConfig>),
    StopListening,
    ReleaseMemory,
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
            stats: Mutex::default(),
            failure: OnceLock::new(),
            last_words: Mutex::default(),
        });
        let waker = peers.reactor().waker();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("gameserver-io-{number}"))
            .spawn(move || watched(&mut peers, &theirs, &logic, spin))?;
        Ok(Self { shared, waker, thread: Some(thread) })
    }

    /// The next log, if there is one.
    pub fn poll(&self) -> Option<UpLog> {
        let log = self.shared.ups.pop().or_else(|| self.last_words());
        if log.is_some() && self.shared.blocked.load(SeqCst) {
            self.waker.wake();
        }
        log
    }

    /// Why the thread has ended without being asked to. Its connections are closed, and nothing works there any more.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Gives a log's buffers back.
    pub fn recycle(&self, mut log: UpLog) {
        log.clear();
        keep(&self.shared.empty_ups, log);
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

    /// A burst is over.
    pub fn release_memory(&self) {
        self.order(Order::ReleaseMemory);
    }

    /// Counters, as of the thread's last pass.
    pub fn stats(&self) -> ReactorStats {
        self.shared.stats.lock().map(|stats| *stats).unwrap_or_default()
    }

    fn last_words(&self) -> Option<UpLog> {
        self.failure()?;
        self.shared.last_words.lock().ok()?.take()
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
            let _ = thread.join(); // its panic, if any, was told as its failure
        }
    }
}

/// A thread's whole life. One that ends without being asked to leaves word why, and what becomes of its connections.
fn watched(peers: &mut Peers, shared: &Shared, logic: &Waker, spin: bool) {
    let mut ups = UpLog::default();
    let why = match catch_unwind(AssertUnwindSafe(|| run(peers, shared, &mut ups, logic, spin))) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("waiting for sockets failed: {error}"),
        Err(panic) => format!("it panicked: {}", panic_text(&*panic)),
    };
    // What has panicked may do so again.
    let _ = catch_unwind(AssertUnwindSafe(|| peers.end_all(Close::Reset, &mut ups)));
    if let Ok(mut last_words) = shared.last_words.lock() {
        *last_words = Some(ups);
    }
    if let Ok(mut shown) = shared.stats.lock() {
        shown.open = 0;
    }
    let _ = shared.failure.set(why);
    logic.wake();
}

/// Keeps an empty log to be used again; one too many, or one that a burst has made large, is freed.
fn keep<E>(empty: &ArrayQueue<Log<E>>, log: Log<E>) {
    if log.room() <= KEPT_BYTES {
        let _ = empty.push(log);
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn run(peers: &mut Peers, shared: &Shared, ups: &mut UpLog, logic: &Waker, spin: bool) -> io::Result<()> {
    let (mut stopping, mut open) = (false, 0);
    while !shared.stop.load(SeqCst) {
        peers.wait(None, spin)?;
        // Reading tells the wake; an order pushed from then on is a wake of its own, so none is left lying.
        peers.read(ups, usize::MAX);
        while let Some(order) = shared.orders.pop() {
            match order {
                Order::Apply(mut downs) => {
                    peers.apply(&downs, ups);
                    downs.clear();
                    keep(&shared.empty_downs, downs);
                }
                Order::Configure(config) => peers.configure(config),
                Order::StopListening => {
                    peers.stop_listening(ups);
                    stopping = true;
                }
                Order::ReleaseMemory => net::sys::release_own_memory(),
            }
        }
        peers.flush(false, ups);
        deliver(peers, shared, ups, logic);
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
    Ok(())
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
