//! The proxy that makes the networks of a plan: a thread's clients connect to it, and it connects to the server for each.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use engine::event::Nanos;
use net::address::Address;
use net::admission::Admission;
use net::listener::Listener;
use net::queue::Class;
use net::reactor::{Flush, Reactor, ReactorConfig, Read, Ready, Taken, Token};
use net::sys::monotonic_now;
use net::waker::Waker;

use crate::network::{Line, Network};
use crate::plan::Random;
use crate::tally::Times;

/// A proxy, in a thread of its own until it is dropped.
pub(crate) struct Proxy {
    /// By the number of the network; None: clients of that one go straight to the server.
    addresses: Vec<Option<Address>>,
    lateness: Arc<Mutex<Times>>,
    over: Arc<AtomicBool>,
    waker: Waker,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Proxy {
    /// To a server, by these networks.
    pub fn start(server: &Address, networks: &[Option<Network>], seed: u64) -> io::Result<Self> {
        let mut reactor = Reactor::new(ReactorConfig {
            queue_bytes_max: 2 * QUEUED_BYTES_MAX,
            ..ReactorConfig::default()
        })?;
        let mut addresses = Vec::new();
        for network in networks {
            addresses.push(match network {
                Some(_) => {
                    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                    let listener = Arc::new(Listener::bind(&Address::Tcp(local))?);
                    let address = listener.local_address().clone();
                    reactor.listen(listener, Arc::new(Admission::new(0, 0, None)), None)?;
                    Some(address)
                }
                None => None,
            });
        }
        let (over, lateness) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let waker = reactor.waker();
        let mut relay = Relay {
            server: server.clone(),
            networks: networks.iter().flatten().copied().collect(),
            reactor,
            ends: Vec::new(),
            due: BinaryHeap::new(),
            random: Random(seed),
            now: monotonic_now(),
            late: Vec::new(),
            lateness: Arc::clone(&lateness),
        };
        let stop = Arc::clone(&over);
        let thread =
            std::thread::Builder::new().name("swarm-network".into()).spawn(move || relay.run(&stop))?;
        Ok(Self { addresses, lateness, over, waker, thread: Some(thread) })
    }

    /// Where clients of this network connect to.
    pub fn address(&self, network: usize) -> Option<&Address> {
        self.addresses.get(network)?.as_ref()
    }

    /// How late the proxy itself was with what it had to pass on, since the last call.
    pub fn take_lateness(&self) -> Times {
        std::mem::take(&mut lock(&self.lateness))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // its clients saw what it failed of
        }
    }
}

fn lock(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner) // counts are whole, whoever has panicked
}

/// The thread's own.
struct Relay {
    server: Address,
    /// In the order of the listeners.
    networks: Vec<Network>,
    reactor: Reactor,
    /// By the slot of a connection.
    ends: Vec<Option<End>>,
    /// When the first of what an end has to pass on is due.
    due: BinaryHeap<Reverse<(Nanos, u32, u32)>>,
    random: Random,
    now: Nanos,
    late: Vec<Nanos>,
    lateness: Arc<Mutex<Times>>,
}

/// One end of a client's connection, and what came from there and is on its way to the other.
struct End {
    token: Token,
    other: Token,
    line: Line,
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    is_connected: bool,
    /// Nothing more comes from it, and the other end was told.
    is_done: bool,
    /// It is broken, or ended.
    is_over: bool,
    is_paused: bool,
    /// The other end takes no more for now.
    is_stuck: bool,
    /// It stands among those that are due.
    is_scheduled: bool,
}

struct Piece {
    due: Nanos,
    what: What,
}

enum What {
    Bytes(usize),
    End,
    Cut,
}

/// On their way in one direction of a connection, at most; then its sender waits.
const HELD_BYTES_MAX: usize = 4 << 20;
/// Toward a socket that does not take them.
const QUEUED_BYTES_MAX: usize = 256 << 10;
const LOOK_EVERY: Nanos = 1_000_000_000;

impl Relay {
    fn run(&mut self, over: &AtomicBool) -> io::Result<()> {
        while !over.load(Ordering::Relaxed) {
            let due = self.due.peek().map_or(Nanos::MAX, |Reverse((due, ..))| *due);
            self.reactor.wait(Some(due.min(self.now + LOOK_EVERY)), false)?;
            self.now = monotonic_now();
            while let Some(ready) = self.reactor.next_ready() {
                match ready {
                    Ready::Accepted(token) => self.open(token),
                    Ready::Connected(token) => {
                        if let Some(end) = self.end(token) {
                            end.is_connected = true;
                            let other = end.other;
                            self.pass(other);
                        }
                    }
                    Ready::Readable(token) => self.receive(token),
                    Ready::Writable(token) => {
                        self.flush(token);
                        if let Some(other) = self.end(token).map(|end| end.other) {
                            self.pass(other);
                        }
                    }
                    Ready::Foreign { .. } | Ready::Woken => {}
                }
            }
            while let Some(&Reverse((due, slot, generation))) = self.due.peek()
                && due <= self.now
            {
                self.due.pop();
                let token = Token { slot, generation };
                if let Some(end) = self.end(token) {
                    end.is_scheduled = false;
                    self.pass(token);
                }
            }
            if !self.late.is_empty() {
                let mut lateness = lock(&self.lateness);
                self.late.drain(..).for_each(|nanos| lateness.record(nanos));
            }
        }
        Ok(())
    }

    fn end(&mut self, token: Token) -> Option<&mut End> {
        self.ends.get_mut(token.slot as usize)?.as_mut().filter(|end| end.token == token)
    }

    /// A client is here: the server is called for it.
    fn open(&mut self, client: Token) {
        let network = self.reactor.listener_of(client).and_then(|number| self.networks.get(number));
        let (Some(&network), Ok(server)) = (network, self.reactor.connect(&self.server)) else {
            self.reactor.close(client);
            return;
        };
        // The client believes that it is connected already; over this network it would be after a round trip.
        let open_at = self.now + 2 * network.delay;
        for (token, other, open_at) in [(client, server, open_at), (server, client, self.now)] {
            let place = token.slot as usize;
            if self.ends.len() <= place {
                self.ends.resize_with(place + 1, || None);
            }
            self.ends[place] = Some(End {
                token,
                other,
                line: Line::new(network, open_at, self.random.next()),
                bytes: VecDeque::new(),
                pieces: VecDeque::new(),
                is_connected: token == client,
                is_done: false,
                is_over: false,
                is_paused: false,
                is_stuck: false,
                is_scheduled: false,
            });
        }
    }

    fn receive(&mut self, token: Token) {
        let Some(end) = self.ends.get_mut(token.slot as usize).and_then(Option::as_mut) else { return };
        if end.token != token {
            return;
        }
        let held = &mut end.bytes;
        let read = self.reactor.read(token, |bytes, _, _| {
            held.extend(&*bytes);
            (Taken { consumed: bytes.len(), needed: 0 }, bytes.len())
        });
        match read {
            Read::Data { value, .. } => {
                if end.bytes.len() > HELD_BYTES_MAX && !end.is_paused {
                    end.is_paused = true;
                    self.reactor.pause(token);
                }
                self.hold(token, What::Bytes(value));
            }
            Read::Eof => self.hold(token, What::End),
            Read::Error(_) => self.hold(token, What::Cut),
            Read::Partial | Read::WouldBlock | Read::Gone => {}
        }
    }

    /// Something has come from this end: it is due at the other one later.
    fn hold(&mut self, token: Token, what: What) {
        let now = self.now;
        let Some(end) = self.end(token) else { return };
        let bytes = match what {
            What::Bytes(bytes) => bytes,
            What::End | What::Cut if end.is_over => return,
            What::End | What::Cut => {
                end.is_over = true;
                0
            }
        };
        let due = end.line.pass(now, bytes);
        end.pieces.push_back(Piece { due, what });
        self.schedule(token);
    }

    fn schedule(&mut self, token: Token) {
        let Some(end) = self.end(token) else { return };
        if let Some(piece) = end.pieces.front()
            && !end.is_stuck
            && !end.is_scheduled
        {
            end.is_scheduled = true;
            let due = piece.due;
            self.due.push(Reverse((due, token.slot, token.generation)));
        }
    }

    /// What is due goes to the other end.
    fn pass(&mut self, from: Token) {
        let Some(other) = self.end(from).map(|end| end.other) else { return };
        if !self.end(other).is_some_and(|end| end.is_connected || end.is_over) {
            return; // it will be told as connected
        }
        let now = self.now;
        while let Some(end) = self.ends[from.slot as usize].as_mut()
            && let Some(piece) = end.pieces.front()
            && piece.due <= now
        {
            let queued = self.reactor.queue(other).map_or(0, |(queue, _)| queue.len_bytes());
            match piece.what {
                What::Bytes(_) if queued > QUEUED_BYTES_MAX => {
                    end.is_stuck = true;
                    break;
                }
                What::End if queued > 0 => {
                    end.is_stuck = true;
                    break;
                }
                What::Bytes(length) => {
                    if !std::mem::take(&mut end.is_stuck) {
                        self.late.push(now - piece.due);
                    }
                    let bytes = end.bytes.drain(..length);
                    if let Some((queue, pool)) = self.reactor.queue(other) {
                        // One beyond its bound is broken, which the flush will say.
                        let _ = queue.append(pool, Class::Reliable, 0, |out| out.extend(bytes));
                    }
                }
                What::End => {
                    self.reactor.shutdown_write(other);
                    (end.is_done, end.is_stuck) = (true, false);
                }
                What::Cut => return self.close(from, other),
            }
            end.pieces.pop_front();
            if end.is_paused && end.bytes.len() < HELD_BYTES_MAX / 2 {
                end.is_paused = false;
                self.reactor.resume(from);
            }
            if !self.flush(other) {
                break;
            }
        }
        if [from, other].into_iter().all(|token| self.end(token).is_some_and(|end| end.is_done)) {
            return self.close(from, other);
        }
        self.schedule(from);
    }

    /// False: it takes no more for now, or is broken; then that is on its way to the other end.
    fn flush(&mut self, token: Token) -> bool {
        match self.reactor.flush(token) {
            Flush::Done => true,
            Flush::Blocked => false,
            Flush::Closed(_) => {
                self.hold(token, What::Cut);
                false
            }
            Flush::Gone => false,
        }
    }

    fn close(&mut self, one: Token, other: Token) {
        for token in [one, other] {
            self.reactor.close(token);
            self.ends[token.slot as usize] = None;
        }
    }
}
