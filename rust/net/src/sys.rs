//! What only Linux has, and the only `unsafe` of this crate: epoll, timerfd, eventfd, accept4, TCP_INFO, limits.
//!
//! Each function is one system call, with interruption by a signal dealt with.

use crate::address::{Address, Peer};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

/// Nanoseconds of CLOCK_MONOTONIC: the clock of [`crate::reactor::Reactor::wait`]'s deadlines.
#[inline]
pub fn monotonic_now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * NANOS_PER_SECOND + now.tv_nsec as u64
}

/// CPU time of this thread so far, in nanoseconds.
pub fn thread_cpu_time() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as u64 * NANOS_PER_SECOND + now.tv_nsec as u64
}

/// Bytes of the system's generator, fit for secrets.
pub fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    let mut filled = 0;
    while filled < COUNT {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}

/// Raises the soft limit of open descriptors to the hard one. Returns the soft limit before and now.
pub fn raise_descriptor_limit() -> io::Result<(u64, u64)> {
    let limit = getrlimit(Resource::Nofile);
    let before = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    if before < hard {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok((before, hard))
}

/// An epoll instance. `tag` is what an event brings back.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub(crate) fn add(&self, fd: impl AsFd, tag: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(tag), interest.flags())?)
    }

    /// A listener that several reactors share: only one of them is woken by a new connection.
    pub(crate) fn add_exclusive(&self, fd: impl AsFd, tag: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(tag), flags)?)
    }

    /// Events on the edge: told once, without having to read the descriptor. For eventfd and timerfd.
    pub(crate) fn add_edge(&self, fd: impl AsFd, tag: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(tag), flags)?)
    }

    pub(crate) fn modify(&self, fd: impl AsFd, tag: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.0, fd, epoll::EventData::new_u64(tag), interest.flags())?)
    }

    pub(crate) fn delete(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Fills `events` up to its capacity. A signal ends the wait with no events.
    #[inline]
    pub(crate) fn wait(&self, events: &mut Events, block: bool) -> io::Result<()> {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        events.0.clear();
        match epoll::wait(&self.0, spare_capacity(&mut events.0), (!block).then_some(&AT_ONCE)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What one wait reports.
pub(crate) struct Events(Vec<epoll::Event>);

// SAFETY: an event is not `Send` because it may carry a pointer; ours carry numbers.
unsafe impl Send for Events {}

impl Events {
    pub(crate) fn with_capacity(events: usize) -> Self {
        Self(Vec::with_capacity(events))
    }

    /// The tag of one event, and what happened. (The struct is packed: its fields are copied, never borrowed.)
    #[inline]
    pub(crate) fn at(&self, index: usize) -> Option<(u64, Happened)> {
        let event = self.0.get(index)?;
        let (flags, data) = (event.flags, event.data);
        Some((data.u64(), Happened(flags)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} events", self.0.len())
    }
}

/// What an event says about its descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened(epoll::EventFlags);

impl Happened {
    /// A read would not block: there are bytes, or the end, or an error to pick up.
    #[inline]
    pub(crate) fn readable(self) -> bool {
        self.0.intersects(epoll::EventFlags::IN.union(BROKEN))
    }

    /// A write would not block.
    #[inline]
    pub(crate) fn writable(self) -> bool {
        self.0.intersects(epoll::EventFlags::OUT.union(BROKEN))
    }

    /// Reported whether one asked or not, and again and again: gone in both directions, or an error.
    #[inline]
    pub(crate) fn broken(self) -> bool {
        self.0.intersects(BROKEN)
    }
}

const BROKEN: epoll::EventFlags = epoll::EventFlags::HUP.union(epoll::EventFlags::ERR);

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.read);
        flags.set(epoll::EventFlags::OUT, self.write);
        flags
    }
}

/// A timer that fires once, at an absolute time; unlike a wait's timeout it is exact, and needs no clock to be read.
#[derive(Debug)]
pub(crate) struct Timer(OwnedFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?))
    }

    pub(crate) fn set(&self, deadline: u64) -> io::Result<()> {
        let deadline = deadline.max(1); // zero would disarm it
        let spec = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: (deadline / NANOS_PER_SECOND) as i64,
                tv_nsec: (deadline % NANOS_PER_SECOND) as i64,
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A counter that wakes a wait.
pub(crate) fn wake_counter() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Adds one. Can only fail when the counter is at its end, and then it wakes all the same.
pub(crate) fn wake(counter: impl AsFd) {
    while rustix::io::write(&counter, &1u64.to_ne_bytes()) == Err(Errno::INTR) {}
}

/// A descriptor that somebody else owns (asyncio's).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign(pub(crate) RawFd);

impl AsFd for Foreign {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: never -1 (`Reactor::watch` refuses negative numbers). That it is open is the caller's promise; if
        // it is not, epoll_ctl, the only call it is handed to, fails with EBADF and touches no memory.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// Gives pages of the heap that nothing lies on back to the system: the allocator does so at the heap's end only. Some milliseconds.
/// Of other threads' heaps it leaves the ends: see [`release_own_memory`].
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, touches only what is free, and may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives the free end of this thread's heap back to the system. glibc does so only in `free`, once the end is larger than a
/// threshold that each large block raises (to 64 MiB at most), and `malloc_trim` does so for the main thread's heap alone.
pub fn release_own_memory() {
    #[cfg(target_env = "gnu")]
    {
        set_heap_thresholds(END_KEPT_BYTES);
        // Freeing this much makes the allocator look at its heap's end.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(100 << 10)));
        set_heap_thresholds(2 * MAPPED_BYTES);
    }
}

/// At how many free bytes an end goes back. Told once, the allocator no longer finds its thresholds by itself: so it is told the
/// other one, too, from which on a block is mapped, and not of a heap.
#[cfg(target_env = "gnu")]
fn set_heap_thresholds(end_bytes: libc::c_int) {
    // SAFETY: it takes numbers, changes what later calls of the allocator do, and may be called by any thread at any time.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, end_bytes);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

#[cfg(target_env = "gnu")]
const END_KEPT_BYTES: libc::c_int = 1 << 20;
#[cfg(target_env = "gnu")]
const MAPPED_BYTES: libc::c_int = 8 << 20;

/// Receives into `buffer`. `Ok(0)` is the end of the stream.
#[inline]
pub(crate) fn receive(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::recv(&fd, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            received => return received.map(|(bytes, _)| bytes),
        }
    }
}

/// Receives into what `buffer` has left of its capacity, which must not be nothing.
pub(crate) fn receive_appending(fd: impl AsFd, buffer: &mut Vec<u8>) -> Result<usize, Errno> {
    debug_assert!(buffer.capacity() > buffer.len());
    loop {
        match rustix::net::recv(&fd, spare_capacity(buffer), RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            received => return received.map(|(bytes, _)| bytes),
        }
    }
}

/// Sends what the socket takes. A broken pipe is an error, never a signal.
#[inline]
pub(crate) fn send(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(&fd, bytes, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent,
        }
    }
}

/// The same for several pieces in one call.
pub(crate) fn send_vectored(fd: impl AsFd, pieces: &[IoSlice<'_>]) -> Result<usize, Errno> {
    loop {
        match rustix::net::sendmsg(&fd, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent,
        }
    }
}

/// A new connection of a listener, and who it is.
pub(crate) fn accept(listener: impl AsFd) -> Result<(OwnedFd, Peer), Errno> {
    loop {
        match rustix::net::acceptfrom_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok((fd, address)) => {
                let tcp = address.and_then(|address| SocketAddr::try_from(address).ok());
                return Ok((fd, tcp.map_or(Peer::Unix, Peer::tcp)));
            }
        }
    }
}

/// A listening socket. Connections inherit its options: on Linux no call per connection is needed for them.
pub(crate) fn listen(address: &Address) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    match address {
        Address::Tcp(tcp) => {
            sockopt::set_socket_reuseaddr(&fd, true)?;
            set_tcp_options(&fd)?;
            if tcp.is_ipv6() {
                // 0.0.0.0 and [::] may then be listened at side by side.
                sockopt::set_ipv6_v6only(&fd, true)?;
            }
            rustix::net::bind(&fd, tcp)?;
        }
        Address::Unix(path) => rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?,
    }
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}

/// Where a TCP listener is bound, its port known.
pub(crate) fn local_address(fd: impl AsFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(fd)?)?)
}

/// Begins to connect; the socket is writable once it is connected.
pub(crate) fn connect(address: &Address) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    let connecting = match address {
        Address::Tcp(tcp) => {
            set_tcp_options(&fd)?;
            rustix::net::connect(&fd, tcp)
        }
        Address::Unix(path) => rustix::net::connect(&fd, &SocketAddrUnix::new(path)?),
    };
    match connecting {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// Ends our half of the stream.
pub(crate) fn shutdown_write(fd: impl AsFd) {
    // Fails only where there is nothing left to end.
    let _ = rustix::net::shutdown(fd, Shutdown::Write);
}

/// The smoothed round trip as the kernel measures it. `None` where there is none (Unix sockets).
pub(crate) fn rtt_us(fd: impl AsFd) -> Option<u32> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` is valid for writing `len` bytes, and the kernel writes no more than `len`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    // SAFETY: a struct of integers, all of it zeroed before: every part is initialised, whatever was written.
    (result == 0).then(|| unsafe { info.assume_init() }.tcpi_rtt)
}

/// A descriptor that is held back for the day on which there is none left.
pub(crate) fn reserve_descriptor() -> Option<OwnedFd> {
    rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()
}

fn stream_socket(address: &Address) -> io::Result<OwnedFd> {
    let family = match address {
        Address::Tcp(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Tcp(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn set_tcp_options(fd: impl AsFd) -> io::Result<()> {
    // A pass is one send: waiting for more to go with it would only add latency.
    sockopt::set_tcp_nodelay(&fd, true)?;
    // What we sent is not even acknowledged: the peer's machine or the network is gone.
    sockopt::set_tcp_user_timeout(&fd, UNACKNOWLEDGED_MS_MAX)?;
    // And who has nothing to acknowledge is asked: one whose protocol has no heartbeat, as HTTP.
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&fd, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&fd, KEEPALIVE_PROBES)?;
    Ok(())
}

const NANOS_PER_SECOND: u64 = 1_000_000_000;
/// A burst of connections waits here while accept is paced; the kernel lowers it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Longer than three missed heartbeats of 15 s, so that it is normally the heartbeat that decides.
const UNACKNOWLEDGED_MS_MAX: u32 = 60_000;
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_inherits_its_listeners_options() {
        let listener = listen(&Address::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let client = connect(&Address::Tcp(local_address(&listener).unwrap())).unwrap();
        let (accepted, peer) = accept(&listener).unwrap();
        for socket in [&client, &accepted] {
            assert!(sockopt::tcp_nodelay(socket).unwrap());
            assert_eq!(sockopt::tcp_user_timeout(socket).unwrap(), UNACKNOWLEDGED_MS_MAX);
            assert!(sockopt::socket_keepalive(socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), KEEPALIVE_IDLE);
            assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), KEEPALIVE_PROBES);
        }
        assert_eq!(peer, Peer::Tcp(local_address(&client).unwrap()));
        assert!(rtt_us(&accepted).is_some());
    }

    #[test]
    fn a_unix_socket_has_no_round_trip_time() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(rtt_us(&socket), None);
    }

    #[test]
    fn the_clock_is_that_of_the_system() {
        let (before, now, after) = (monotonic_now(), monotonic_now(), monotonic_now());
        assert!(before <= now && now <= after);
    }
}
