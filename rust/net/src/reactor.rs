//! The reactor: waits for many descriptors at once and moves their bytes.
//!
//! A turn of whoever polls it: [`Reactor::wait`], then [`Reactor::next_ready`] until there is none; for a readable
//! socket [`Reactor::read`]; and at the end of the pass one [`Reactor::flush`] for each socket that something was
//! queued for. Nothing is called back except the closure that `read` is given, and nothing is sent behind the
//! caller's back except what TLS itself has to say.

use crate::address::{Address, Peer};
use crate::admission::{Admission, Admitted, Refused};
use crate::late::Late;
use crate::listener::Listener;
use crate::pool::Pool;
use crate::queue::SendQueue;
use crate::slots::Slots;
pub use crate::slots::Token;
use crate::socket::{Scratch, Socket, Traffic};
use crate::sys::{self, Epoll, Events, Foreign, Happened, Interest, Timer};
use crate::tls::{Tls, TlsClientConfig, TlsConfig};
use crate::waker::Waker;
use rustix::fd::{OwnedFd, RawFd};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a reactor is made with.
#[derive(Clone, Debug)]
pub struct ReactorConfig {
    /// Bytes that may wait to be sent on one socket.
    pub queue_bytes_max: usize,
    /// Descriptors that one wait reports at most.
    pub events_per_wait: usize,
    /// Connections that are accepted after one wait at most, so that a storm of them does not keep the others waiting.
    pub accepts_per_wait: usize,
    /// Where buffers come from. Reactors on different threads had better not share one.
    pub pool: Pool,
}

impl Default for ReactorConfig {
    fn default() -> Self {
        Self { queue_bytes_max: 1 << 20, events_per_wait: 256, accepts_per_wait: 64, pool: Pool::new() }
    }
}

/// What a wait found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A new connection, admitted already.
    Accepted(Token),
    /// What [`Reactor::connect`] began has succeeded. (If it fails the socket is readable, and reading gives the error.)
    Connected(Token),
    /// There are bytes, or the end, or an error: read.
    Readable(Token),
    /// A blocked socket takes bytes again: flush.
    Writable(Token),
    /// A watched descriptor of somebody else.
    Foreign {
        /// Which.
        fd: RawFd,
        /// Reading would not block.
        read: bool,
        /// Writing would not block.
        write: bool,
        /// It is broken or hung up; whichever of the two was asked for is then true as well.
        error: bool,
    },
    /// A [`Waker`] was used.
    Woken,
}

/// What the closure of [`Reactor::read`] did with the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that are done with.
    pub consumed: usize,
    /// Counted from the first byte that is not: how many it takes until the next item is complete. If that many are
    /// there already, there are complete items left (the budget was used up). 0 if nothing is left.
    pub needed: usize,
}

/// What a read came to.
#[derive(Debug)]
pub enum Read<R> {
    /// The closure was called.
    Data {
        /// What it gave.
        value: R,
        /// Complete items are left: [`Reactor::pending`] will offer them again. Until they are taken nothing more is
        /// received.
        pending: bool,
    },
    /// Bytes came, but fewer than the closure had said that it needs; it was not called.
    Partial,
    /// Nothing there.
    WouldBlock,
    /// The peer sends no more. Sending to it still works.
    Eof,
    /// The connection is broken: close it.
    Error(io::Error),
    /// There is no such socket (any more).
    Gone,
}

/// What a flush came to.
#[derive(Debug)]
pub enum Flush {
    /// Everything has been handed to the kernel.
    Done,
    /// The kernel takes no more now; [`Ready::Writable`] will come.
    Blocked,
    /// The connection is broken: close it.
    Closed(io::Error),
    /// There is no such socket (any more).
    Gone,
}

/// Why a connection cannot become TLS.
#[derive(Debug, thiserror::Error)]
pub enum StartTlsError {
    /// The listener that accepted it was given no certificate.
    #[error("the client speaks TLS, but this port has no certificate (tls_cert, tls_key)")]
    NotConfigured,
    /// There is no such socket, or it speaks TLS already.
    #[error("there is no such connection, or it speaks TLS already")]
    NotPossible,
    /// The client's first message is wrong.
    #[error("the TLS handshake failed: {0}")]
    Handshake(#[from] io::Error),
}

/// What a reactor knows about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The other end.
    pub peer: Peer,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Counters of a [`Reactor`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReactorStats {
    /// Connections accepted and admitted.
    pub accepted: u64,
    /// Connections closed at once, because all places were taken.
    pub refused_full: u64,
    /// Connections closed at once, because their address had all the connections that it may have.
    pub refused_address: u64,
    /// Connections closed at once, because their address connects too often.
    pub refused_rate: u64,
    /// Connections closed at once, because there were no descriptors left.
    pub refused_descriptors: u64,
    /// Other failures of accept.
    pub accept_errors: u64,
    /// Connections that began to speak TLS.
    pub tls: u64,
    /// Connections that broke TLS's rules, in its handshake or later.
    pub tls_failed: u64,
    /// Connections whose TLS stream was cut off: its end came, and was not announced.
    pub tls_truncated: u64,
    /// Reads of sockets.
    pub reads: u64,
    /// Flushes of sockets.
    pub flushes: u64,
    /// Waits.
    pub waits: u64,
    /// Times that a socket was told of as one that may be told of late.
    pub told_late: u64,
    /// Bytes received from the network.
    pub bytes_in: u64,
    /// Bytes handed to the network.
    pub bytes_out: u64,
    /// Open sockets.
    pub open: usize,
}

impl ReactorStats {
    #[cold]
    fn tls_ended_by(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.tls_truncated += 1,
            // rustls's; those of the network itself have kinds of their own.
            io::ErrorKind::Other | io::ErrorKind::InvalidData => self.tls_failed += 1,
            _ => {}
        }
    }
}

/// Sockets, and the wait for them. A plain value: one thread at a time polls it.
#[derive(Debug)]
pub struct Reactor {
    epoll: Epoll,
    events: Events,
    next_event: usize,
    late: Late,
    /// What the last event said beside what was told already.
    also: Option<Ready>,
    sockets: Slots<Socket>,
    scratch: Scratch,
    pool: Pool,
    queue_bytes_max: usize,
    listening: Vec<Listening>,
    accepting: Option<u16>,
    accepts_per_wait: usize,
    accepts_left: usize,
    reserve: Option<OwnedFd>,
    foreign: BTreeMap<RawFd, Interest>,
    waker: Waker,
    timer: Timer,
    timer_set: u64,
    /// Sockets that are only being drained, and until when. All stay equally long, so they are in order.
    lingering: VecDeque<(u64, Token)>,
    /// Sockets to be told as readable although epoll will not.
    again: VecDeque<Token>,
    stats: ReactorStats,
}

#[derive(Debug)]
struct Listening {
    listener: Arc<Listener>,
    admission: Arc<Admission>,
    tls: Option<TlsConfig>,
    /// Out of descriptors: not watched until then.
    paused_until: Option<u64>,
}

impl Reactor {
    /// A reactor without sockets.
    pub fn new(config: ReactorConfig) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let (waker, timer) = (Waker::new()?, Timer::new()?);
        let late = Late::new(&epoll, tag(LATE, 0, 0), config.events_per_wait.max(1))?;
        epoll.add_edge(waker.counter(), tag(WAKER, 0, 0))?;
        epoll.add_edge(&timer, tag(TIMER, 0, 0))?;
        Ok(Self {
            epoll,
            events: Events::with_capacity(config.events_per_wait.max(1)),
            next_event: 0,
            late,
            also: None,
            sockets: Slots::new(),
            scratch: Scratch::new(),
            pool: config.pool,
            queue_bytes_max: config.queue_bytes_max,
            listening: Vec::new(),
            accepting: None,
            accepts_per_wait: config.accepts_per_wait.max(1),
            accepts_left: 0,
            reserve: sys::reserve_descriptor(),
            foreign: BTreeMap::new(),
            waker,
            timer,
            timer_set: u64::MAX,
            lingering: VecDeque::new(),
            again: VecDeque::new(),
            stats: ReactorStats::default(),
        })
    }

    /// Accepts connections from `listener`, as `admission` lets them in. With `tls` they may begin to speak TLS, see
    /// [`Reactor::start_tls`].
    pub fn listen(
        &mut self,
        listener: Arc<Listener>,
        admission: Arc<Admission>,
        tls: Option<TlsConfig>,
    ) -> io::Result<()> {
        let index = u16::try_from(self.listening.len() + 1).map_err(io::Error::other)? - 1; // sockets count from 1
        self.epoll.add_exclusive(&*listener, tag(LISTENER, u32::from(index), 0))?;
        self.listening.push(Listening { listener, admission, tls, paused_until: None });
        Ok(())
    }

    /// Accepts no more. Listeners that nobody else holds are closed.
    pub fn stop_listening(&mut self) {
        for listening in self.listening.drain(..) {
            if listening.paused_until.is_none() {
                // It may be shared, and then stay open: it has to be taken out by hand.
                let _ = self.epoll.delete(&*listening.listener);
            }
        }
        self.accepting = None;
    }

    /// Begins to connect. [`Ready::Connected`] says when it has succeeded.
    pub fn connect(&mut self, address: &Address) -> io::Result<Token> {
        let fd = sys::connect(address)?;
        let peer = match address {
            Address::Tcp(tcp) => Peer::tcp(*tcp),
            Address::Unix(_) => Peer::Unix,
        };
        let mut socket = Socket::new(fd, Admitted::outgoing(peer), self.queue_bytes_max);
        socket.connecting = true;
        self.insert(socket)
    }

    /// The same, and speaks TLS to a server whose certificate must be for `server_name`.
    pub fn connect_tls(
        &mut self,
        address: &Address,
        tls: &TlsClientConfig,
        server_name: &str,
    ) -> io::Result<Token> {
        let tls = Tls::client(tls, server_name)?;
        let token = self.connect(address)?;
        if let Some(socket) = self.sockets.find_mut(token) {
            socket.tls = Some(Box::new(tls));
        }
        Ok(token)
    }

    /// Watches a descriptor that somebody else owns, level-triggered; once more changes what for.
    pub fn watch(&mut self, fd: RawFd, read: bool, write: bool) -> io::Result<()> {
        if fd < 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let (interest, data) = (Interest { read, write }, tag(FOREIGN, 0, fd as u32));
        let is_known = |error: &io::Error| error.raw_os_error() == Some(Errno::EXIST.raw_os_error());
        let is_unknown = |error: &io::Error| error.raw_os_error() == Some(Errno::NOENT.raw_os_error());
        // Its owner may have closed it and been given its number again, so what we remember may be wrong.
        let watched = if self.foreign.contains_key(&fd) {
            match self.epoll.modify(Foreign(fd), data, interest) {
                Err(error) if is_unknown(&error) => self.epoll.add(Foreign(fd), data, interest),
                watched => watched,
            }
        } else {
            match self.epoll.add(Foreign(fd), data, interest) {
                Err(error) if is_known(&error) => self.epoll.modify(Foreign(fd), data, interest),
                watched => watched,
            }
        };
        match watched {
            Ok(()) => self.foreign.insert(fd, interest),
            Err(_) => self.foreign.remove(&fd),
        };
        watched
    }

    /// Watches it no more. It may be closed already.
    pub fn unwatch(&mut self, fd: RawFd) -> io::Result<()> {
        match self.foreign.remove(&fd) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) => {
                let _ = self.epoll.delete(Foreign(fd)); // closing it has taken it out
                Ok(())
            }
        }
    }

    /// Waits until something is ready, or until `deadline`, nanoseconds of [`sys::monotonic_now`]'s clock.
    ///
    /// `Some(0)` does not wait, `None` waits as long as it takes. A signal or one of the reactor's own timers also
    /// ends it, with nothing ready: look at the clock after every wait. With `spin` the thread does not sleep, and
    /// the wait ends after 5 ms at the latest.
    pub fn wait(&mut self, deadline: Option<u64>, spin: bool) -> io::Result<()> {
        self.leave_events();
        self.accepting = None;
        self.accepts_left = self.accepts_per_wait;
        self.stats.waits += 1;
        let deadline = if self.again.is_empty() { earlier(deadline, self.own_deadline()) } else { Some(0) };
        let end = earlier(deadline, self.late.deadline());
        if spin {
            self.spin(end)?;
        } else {
            let block = self.set_timer(end)?;
            self.epoll.wait(&mut self.events, block)?;
        }
        if self.late.deadline().is_some() {
            self.late.after_wait(&self.epoll, sys::monotonic_now(), deadline)?;
        }
        if self.own_deadline().is_some() {
            self.handle_timeouts(sys::monotonic_now());
        }
        Ok(())
    }

    /// The next thing that the last wait found.
    #[inline]
    pub fn next_ready(&mut self) -> Option<Ready> {
        loop {
            if let Some(ready) = self.also.take() {
                return Some(ready);
            }
            if let Some(listener) = self.accepting {
                match self.accept_next(listener) {
                    Some(token) => return Some(Ready::Accepted(token)),
                    None => self.accepting = None,
                }
            }
            let (tag, happened) = match self.events.at(self.next_event) {
                Some(event) => {
                    self.next_event += 1;
                    event
                }
                None => match self.late.next_event() {
                    Some(event) => {
                        self.stats.told_late += 1;
                        event
                    }
                    None => return self.next_again(),
                },
            };
            let (kind, slot, high) = (tag as u32 & KIND_MASK, tag as u32 & !KIND_MASK, (tag >> 32) as u32);
            let ready = match kind {
                SOCKET => self.socket_ready(Token { slot, generation: high }, happened),
                FOREIGN => self.foreign_ready(high as RawFd, happened),
                LISTENER => {
                    self.accepting = Some(slot as u16);
                    None
                }
                WAKER => {
                    self.waker.told();
                    Some(Ready::Woken)
                }
                LATE => {
                    // It fails for want of kernel memory alone; then it calls again.
                    let _ = self.late.called(&self.epoll, sys::monotonic_now());
                    None
                }
                _ => {
                    self.timer_set = u64::MAX;
                    None
                }
            };
            if ready.is_some() {
                return ready;
            }
        }
    }

    /// Whether the last wait reported as many descriptors as it could, so that there may be more that are ready.
    pub fn ready_is_partial(&self) -> bool {
        self.events.is_full() || self.late.is_full()
    }

    /// Receives once, and gives `f` all bytes of this socket that are not done with, and its queue. What `f` leaves
    /// is kept; it is called again when as many bytes are there as it said it needs.
    #[inline]
    pub fn read<R>(
        &mut self,
        token: Token,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        self.stats.reads += 1;
        let Some(socket) = find(&mut self.sockets, token) else { return Read::Gone };
        let read = socket.read(&mut self.scratch, &self.pool, f);
        if socket.tls.is_some() {
            if let Read::Error(error) = &read {
                self.stats.tls_ended_by(error);
            }
            self.after_tls(token);
        }
        read
    }

    /// Gives `f` the complete items that an earlier read left, without receiving anything.
    pub fn pending<R>(
        &mut self,
        token: Token,
        f: impl FnOnce(&mut [u8], &mut SendQueue, &Pool) -> (Taken, R),
    ) -> Read<R> {
        let Some(socket) = find(&mut self.sockets, token) else { return Read::Gone };
        let read = socket.pending(&self.pool, f);
        if socket.end_due {
            self.after_tls(token);
        }
        read
    }

    /// A socket's queue, and the pool to fill it from.
    #[inline]
    pub fn queue(&mut self, token: Token) -> Option<(&mut SendQueue, &Pool)> {
        Some((&mut find(&mut self.sockets, token)?.queue, &self.pool))
    }

    /// Sends what is queued for a socket, in one call.
    #[inline]
    pub fn flush(&mut self, token: Token) -> Flush {
        self.stats.flushes += 1;
        let Some(socket) = find(&mut self.sockets, token) else { return Flush::Gone };
        let flushed = socket.flush(&mut self.scratch.traffic);
        let blocked = matches!(flushed, Flush::Blocked) && !socket.awaits_handshake;
        if blocked != socket.blocked {
            socket.blocked = blocked;
            rearm((&self.epoll, &self.late), token, socket);
        }
        flushed
    }

    /// Whether what is to be sent on a socket now may go past its queue: nothing waits there, and nobody has to encrypt it.
    #[inline]
    pub fn is_clear(&self, token: Token) -> bool {
        self.sockets.find(token).is_some_and(Socket::is_clear)
    }

    /// Sends on a socket that [`Reactor::is_clear`], without a buffer of its own: how many bytes the system took. The rest has
    /// to be queued and flushed.
    #[inline]
    pub fn send_past(&mut self, token: Token, bytes: &[u8]) -> io::Result<usize> {
        self.stats.flushes += 1;
        match self.sockets.find_mut(token) {
            Some(socket) if socket.is_clear() => socket.send(bytes, &mut self.scratch.traffic),
            _ => Ok(0),
        }
    }

    /// Reads no more from a socket for now: it is not told as readable. Costs nothing unless bytes come.
    pub fn pause(&mut self, token: Token) {
        if let Some(socket) = find(&mut self.sockets, token) {
            socket.paused = true;
        }
    }

    /// Reads from it again.
    pub fn resume(&mut self, token: Token) {
        if let Some(socket) = find(&mut self.sockets, token)
            && std::mem::take(&mut socket.paused)
        {
            if socket.watched.is_none_or(|watched| !watched.read) {
                rearm((&self.epoll, &self.late), token, socket);
            }
            if socket.end_due {
                self.again.push_back(token);
            }
        }
    }

    /// Whether this socket may be told as readable up to a millisecond late, together with others like it: for one that brings
    /// what waits anyway. Two system calls when it changes.
    pub fn set_late(&mut self, token: Token, late: bool) {
        let Some(socket) = find(&mut self.sockets, token).filter(|socket| socket.late != late) else {
            return;
        };
        if let Some(watched) = socket.watched {
            let (now, then) =
                if late { (&self.epoll, &self.late.epoll) } else { (&self.late.epoll, &self.epoll) };
            // For want of kernel memory it stays where it is.
            let Ok(()) = then.add(&socket.fd, tag(SOCKET, token.slot, token.generation), watched) else {
                return;
            };
            let _ = now.delete(&socket.fd);
        }
        socket.late = late;
    }

    /// Speaks TLS with this client from here on. For a closure that saw the beginning of it and consumed nothing: all
    /// that it left becomes TLS's. Later reads see what is inside.
    pub fn start_tls(&mut self, token: Token) -> Result<(), StartTlsError> {
        let socket = find(&mut self.sockets, token).ok_or(StartTlsError::NotPossible)?;
        if socket.tls.is_some() {
            return Err(StartTlsError::NotPossible);
        }
        let listening = socket.listener.and_then(|number| self.listening.get(usize::from(number.get()) - 1));
        let config =
            listening.and_then(|listening| listening.tls.as_ref()).ok_or(StartTlsError::NotConfigured)?;
        let tls = Tls::server(config).map_err(io::Error::other)?;
        let started = socket.start_tls(tls, &mut self.scratch, &self.pool);
        self.stats.tls += 1;
        if let Err(error) = &started {
            self.stats.tls_ended_by(error);
        }
        self.flush(token); // the answer, or the alert
        self.after_tls(token);
        Ok(started?)
    }

    /// Tells the peer that we send no more. What is queued should have been flushed before.
    pub fn shutdown_write(&mut self, token: Token) {
        if let Some(socket) = find(&mut self.sockets, token) {
            socket.shutdown_write(&mut self.scratch.traffic);
        }
    }

    /// Closes a socket at once; what is queued is dropped. Says whether there was one.
    pub fn close(&mut self, token: Token) -> bool {
        // A lingering one is closed already, as far as the caller is concerned.
        find(&mut self.sockets, token).is_some() && self.sockets.remove(token).is_some()
    }

    /// Closes a socket politely: tells the peer that we send no more, and forgets what it still sends until it has
    /// ended its half, for at most a second. (Closing with unread bytes would reset the connection, and a reset takes
    /// the last thing that we sent with it, be it the reason.) For the caller the socket is gone. Flush before.
    pub fn linger(&mut self, token: Token) {
        let Some(socket) = find(&mut self.sockets, token) else { return };
        socket.shutdown_write(&mut self.scratch.traffic);
        if socket.ended || socket.connecting {
            self.sockets.remove(token);
            return;
        }
        socket.drop_buffers();
        (socket.lingering, socket.blocked) = (true, false);
        rearm((&self.epoll, &self.late), token, socket);
        self.lingering.push_back((sys::monotonic_now() + LINGER_NANOS, token));
    }

    /// Wakes this reactor from another thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What is known about a socket.
    pub fn info(&self, token: Token) -> Option<Info> {
        let socket = self.sockets.find(token).filter(|socket| !socket.lingering)?;
        Some(Info { peer: socket.peer(), tls: socket.tls.is_some() })
    }

    /// Which of the listeners accepted it, by the order in which they were given; None: none did, or there is no such socket.
    pub fn listener_of(&self, token: Token) -> Option<usize> {
        Some(usize::from(self.sockets.find(token)?.listener?.get()) - 1)
    }

    /// The number that all connections of this one's address share; see [`Admission::shared`].
    pub fn shared_number(&self, token: Token) -> Option<Arc<AtomicU64>> {
        self.sockets.find(token)?.admitted.shared()
    }

    /// A proxy has said that `peer` stands behind this connection: it takes that one's place, if there is one.
    pub fn set_peer(&mut self, token: Token, peer: Peer) -> Result<(), Refused> {
        let Some(socket) = self.sockets.find_mut(token) else { return Ok(()) };
        let result = socket.admitted.move_to(peer, sys::monotonic_now());
        match result {
            Err(Refused::Full) => self.stats.refused_full += 1,
            Err(Refused::AddressFull) => self.stats.refused_address += 1,
            Err(Refused::TooOften) => self.stats.refused_rate += 1,
            Ok(()) => {}
        }
        result
    }

    /// The round trip to the peer as the kernel measures it, by one system call. `None` on Unix sockets.
    pub fn rtt_us(&self, token: Token) -> Option<u32> {
        let socket = self.sockets.find(token)?;
        if socket.peer() == Peer::Unix { None } else { sys::rtt_us(&socket.fd) }
    }

    /// Whether there is such a socket.
    pub fn is_open(&self, token: Token) -> bool {
        self.sockets.find(token).is_some_and(|socket| !socket.lingering)
    }

    /// Counters.
    pub fn stats(&self) -> ReactorStats {
        let Traffic { bytes_in, bytes_out } = self.scratch.traffic;
        ReactorStats { open: self.sockets.len(), bytes_in, bytes_out, ..self.stats }
    }

    /// Where buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A caller that did not ask for everything that was ready: sockets will be reported again, but what is told only
    /// once must not be lost.
    fn leave_events(&mut self) {
        while let Some((tag, _)) = self.events.at(self.next_event) {
            self.next_event += 1;
            match tag as u32 & KIND_MASK {
                TIMER => self.timer_set = u64::MAX,
                WAKER => self.waker.wake_again(),
                _ => {}
            }
        }
        self.next_event = 0;
        self.late.leave_events();
        self.also = None;
    }

    #[inline]
    fn socket_ready(&mut self, token: Token, happened: Happened) -> Option<Ready> {
        // One that was closed since the wait is not found: its generation is over.
        let socket = self.sockets.find_mut(token)?;
        if socket.lingering {
            if socket.discard(&mut self.scratch) {
                self.sockets.remove(token);
            }
            return None;
        }
        if socket.connecting {
            return self.connected(token, happened);
        }
        let writable = happened.writable() && socket.blocked;
        if happened.readable() {
            if !socket.paused && !socket.ended {
                self.also = writable.then_some(Ready::Writable(token));
                return Some(Ready::Readable(token));
            }
            if happened.broken() && !socket.blocked {
                // Epoll tells of a broken one whether asked or not: it has to go until somebody cares.
                unwatch((&self.epoll, &self.late), socket);
            } else {
                rearm((&self.epoll, &self.late), token, socket);
            }
        }
        writable.then_some(Ready::Writable(token))
    }

    fn connected(&mut self, token: Token, happened: Happened) -> Option<Ready> {
        let socket = self.sockets.find_mut(token)?;
        if !happened.writable() {
            return None;
        }
        socket.connecting = false;
        rearm((&self.epoll, &self.late), token, socket);
        if happened.broken() {
            return Some(Ready::Readable(token));
        }
        if socket.tls.is_some() {
            self.flush(token); // its hello
        } else if socket.blocked {
            self.also = Some(Ready::Writable(token));
        }
        Some(Ready::Connected(token))
    }

    fn foreign_ready(&self, fd: RawFd, happened: Happened) -> Option<Ready> {
        let interest = self.foreign.get(&fd)?;
        let (read, write) = (happened.readable() && interest.read, happened.writable() && interest.write);
        Some(Ready::Foreign { fd, read, write, error: happened.broken() })
    }

    /// A read of a TLS connection may have sent something, and may have seen the end.
    #[cold]
    fn after_tls(&mut self, token: Token) {
        let Some(socket) = self.sockets.find_mut(token) else { return };
        if socket.watched.is_some_and(|watched| watched.write != socket.wanted().write) {
            rearm((&self.epoll, &self.late), token, socket);
        }
        if socket.end_due && !socket.paused && !self.again.contains(&token) {
            self.again.push_back(token);
        }
    }

    fn next_again(&mut self) -> Option<Ready> {
        while let Some(token) = self.again.pop_front() {
            if find(&mut self.sockets, token).is_some_and(|socket| !socket.paused && socket.end_due) {
                return Some(Ready::Readable(token));
            }
        }
        None
    }

    fn accept_next(&mut self, index: u16) -> Option<Token> {
        while self.accepts_left > 0 {
            self.accepts_left -= 1;
            let listening = self.listening.get(usize::from(index))?;
            let (fd, peer) = match sys::accept(&*listening.listener) {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return None,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.out_of_descriptors(index);
                    return None;
                }
                // The client was gone before we came, or the like: the next one is not to blame.
                Err(_) => {
                    self.stats.accept_errors += 1;
                    continue;
                }
            };
            let admitted = match listening.admission.admit(&peer, sys::monotonic_now()) {
                Ok(admitted) => admitted,
                Err(Refused::Full) => {
                    self.stats.refused_full += 1;
                    continue;
                }
                Err(Refused::AddressFull) => {
                    self.stats.refused_address += 1;
                    continue;
                }
                Err(Refused::TooOften) => {
                    self.stats.refused_rate += 1;
                    continue;
                }
            };
            let mut socket = Socket::new(fd, admitted, self.queue_bytes_max);
            socket.listener = NonZeroU16::new(index + 1);
            match self.insert(socket) {
                Ok(token) => {
                    self.stats.accepted += 1;
                    return Some(token);
                }
                Err(_) => self.stats.accept_errors += 1,
            }
        }
        None
    }

    /// No descriptor is left. A connection that cannot be accepted stays in the backlog and keeps the listener ready:
    /// epoll would tell of it for ever. So one client is let in on the reserve and closed, for it to know, and the
    /// listener rests for a moment.
    #[cold]
    fn out_of_descriptors(&mut self, index: u16) {
        let Some(listening) = self.listening.get_mut(usize::from(index)) else { return };
        if self.reserve.take().is_some() && sys::accept(&*listening.listener).is_ok() {
            self.stats.refused_descriptors += 1;
        }
        self.reserve = sys::reserve_descriptor();
        if self.epoll.delete(&*listening.listener).is_ok() {
            listening.paused_until = Some(sys::monotonic_now() + LISTENER_PAUSE_NANOS);
        }
    }

    fn insert(&mut self, socket: Socket) -> io::Result<Token> {
        let token = self.sockets.insert(socket).map_err(|_| io::Error::other("2^24 sockets are open"))?;
        let Some(socket) = self.sockets.find_mut(token) else { unreachable!("inserted above") };
        let wanted = socket.wanted();
        if let Err(error) = self.epoll.add(&socket.fd, tag(SOCKET, token.slot, token.generation), wanted) {
            self.sockets.remove(token);
            return Err(error);
        }
        socket.watched = Some(wanted);
        Ok(token)
    }

    /// Arranges for the wait to end at `deadline`. Says whether it may sleep at all.
    fn set_timer(&mut self, deadline: Option<u64>) -> io::Result<bool> {
        match deadline {
            Some(0) => Ok(false),
            // One that is set to fire earlier wakes us early, and then it is set anew: cheaper than keeping it exact.
            Some(deadline) if deadline < self.timer_set => {
                self.timer.set(deadline)?;
                self.timer_set = deadline;
                Ok(true)
            }
            _ => Ok(true),
        }
    }

    fn spin(&mut self, deadline: Option<u64>) -> io::Result<()> {
        let end = sys::monotonic_now() + SPIN_NANOS_MAX;
        let end = deadline.map_or(end, |deadline| deadline.min(end));
        loop {
            self.epoll.wait(&mut self.events, false)?;
            if !self.events.is_empty() || sys::monotonic_now() >= end {
                return Ok(());
            }
        }
    }

    /// When the reactor itself has something to do.
    #[inline]
    fn own_deadline(&self) -> Option<u64> {
        let linger = self.lingering.front().map(|&(until, _)| until);
        let paused = self.listening.iter().filter_map(|listening| listening.paused_until).min();
        earlier(linger, paused)
    }

    #[cold]
    fn handle_timeouts(&mut self, now: u64) {
        while let Some(&(until, token)) = self.lingering.front() {
            let lingers = self.sockets.find(token).is_some();
            if lingers && until > now {
                break;
            }
            self.lingering.pop_front();
            self.sockets.remove(token);
        }
        for (index, listening) in self.listening.iter_mut().enumerate() {
            if listening.paused_until.is_some_and(|until| until <= now) {
                let tag = tag(LISTENER, index as u32, 0);
                listening.paused_until = match self.epoll.add_exclusive(&*listening.listener, tag) {
                    Ok(()) => None,
                    Err(_) => Some(now + LISTENER_PAUSE_NANOS),
                };
            }
        }
    }
}

/// A socket as far as the caller is concerned: one that only lingers is none.
#[inline]
fn find(sockets: &mut Slots<Socket>, token: Token) -> Option<&mut Socket> {
    sockets.find_mut(token).filter(|socket| !socket.lingering)
}

/// Watches a socket for what it now has to be watched for.
fn rearm(epolls: (&Epoll, &Late), token: Token, socket: &mut Socket) {
    let epoll = epoll_of(epolls, socket);
    let (wanted, tag) = (socket.wanted(), tag(SOCKET, token.slot, token.generation));
    if socket.watched == Some(wanted) {
        return;
    }
    let armed = match socket.watched {
        Some(_) => epoll.modify(&socket.fd, tag, wanted),
        None => epoll.add(&socket.fd, tag, wanted),
    };
    // It can only fail for want of kernel memory; then the old interest stays, and the next event tries again.
    if armed.is_ok() {
        socket.watched = Some(wanted);
    }
}

fn unwatch(epolls: (&Epoll, &Late), socket: &mut Socket) {
    if socket.watched.take().is_some() {
        let _ = epoll_of(epolls, socket).delete(&socket.fd);
    }
}

/// The one that a socket is watched by.
fn epoll_of<'a>((epoll, late): (&'a Epoll, &'a Late), socket: &Socket) -> &'a Epoll {
    if socket.late { &late.epoll } else { epoll }
}

fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What epoll gives back: 24 bits of slot, 8 of kind, and 32 that are a generation or a descriptor.
fn tag(kind: u32, slot: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(kind | slot)
}

const KIND_MASK: u32 = 0xff << 24;
const SOCKET: u32 = 0;
const LISTENER: u32 = 1 << 24;
const FOREIGN: u32 = 2 << 24;
const WAKER: u32 = 3 << 24;
const TIMER: u32 = 4 << 24;
const LATE: u32 = 5 << 24;

/// How long a listener rests when there are no descriptors left: ten tries a second.
const LISTENER_PAUSE_NANOS: u64 = 100_000_000;
/// How long a polite close waits for the peer: several round trips on a bad line.
const LINGER_NANOS: u64 = 1_000_000_000;
/// A spinning thread looks up this often, so that signals are seen to.
const SPIN_NANOS_MAX: u64 = 5_000_000;

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Reactor>();
};
