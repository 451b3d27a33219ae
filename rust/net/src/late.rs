//! Sockets that may be told of a little late: what they bring waits anyway, so under load one wake does for many of them.
//!
//! They have an epoll of their own, which the reactor's listens to. When it calls often, it is listened to no longer, and asked
//! every [`LATE_NANOS`] instead, until it has nothing to tell. A network card spares its host interrupts in the same way (interrupt
//! moderation, coalescing).

use std::io;

use crate::sys::{Epoll, Events, Happened, Interest};

/// The epoll of such sockets, and when it is asked.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) epoll: Epoll,
    /// By what the reactor's epoll knows it.
    tag: u64,
    events: Events,
    next_event: usize,
    /// When it is asked next; `None`: it is listened to.
    ask_at: Option<u64>,
    /// Since when its calls are counted, and how many there were.
    calls: (u64, u32),
}

impl Late {
    /// Without sockets; it calls `reactor` by `tag`.
    pub(crate) fn new(reactor: &Epoll, tag: u64, events: usize) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        reactor.add(&epoll, tag, LISTENED_TO)?;
        let events = Events::with_capacity(events);
        Ok(Self { epoll, tag, events, next_event: 0, ask_at: None, calls: (0, 0) })
    }

    /// When a wait has to end for it.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.ask_at
    }

    /// A wait has ended that was to end at `deadline` at the latest. If that has come it is asked early: what is due by time, such
    /// as a tick, counts on all that has arrived.
    pub(crate) fn after_wait(&mut self, reactor: &Epoll, now: u64, deadline: Option<u64>) -> io::Result<()> {
        let Some(ask_at) = self.ask_at else { return Ok(()) };
        if now < ask_at && deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        self.epoll.wait(&mut self.events, false)?;
        if self.events.is_empty() {
            reactor.modify(&self.epoll, self.tag, LISTENED_TO)?;
            (self.ask_at, self.calls) = (None, (now, 0));
        } else {
            self.ask_at = Some(now + LATE_NANOS);
        }
        Ok(())
    }

    /// It has called.
    pub(crate) fn called(&mut self, reactor: &Epoll, now: u64) -> io::Result<()> {
        let (since, calls) = self.calls;
        self.calls = if now < since + LATE_NANOS { (since, calls + 1) } else { (now, 1) };
        if self.calls.1 >= CALLS_MAX {
            reactor.modify(&self.epoll, self.tag, MUTED)?;
            self.ask_at = Some(now + LATE_NANOS);
        }
        self.epoll.wait(&mut self.events, false)
    }

    /// The next thing that it had to tell.
    #[inline]
    pub(crate) fn next_event(&mut self) -> Option<(u64, Happened)> {
        let event = self.events.at(self.next_event)?;
        self.next_event += 1;
        Some(event)
    }

    /// Whether it told of as many sockets as it could.
    pub(crate) fn is_full(&self) -> bool {
        self.events.is_full()
    }

    /// A new wait begins: what it had to tell and nobody took, it will tell again.
    pub(crate) fn leave_events(&mut self) {
        self.events.clear();
        self.next_event = 0;
    }
}

const LISTENED_TO: Interest = Interest { read: true, write: false };
const MUTED: Interest = Interest { read: false, write: false };
/// How late such a socket may be told of.
const LATE_NANOS: u64 = 1_000_000;
/// How often it calls within [`LATE_NANOS`] before it is muted.
const CALLS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use rustix::fd::OwnedFd;

    const TAG: u64 = 7;
    const SOCKET: u64 = 9;
    const START: u64 = 1_000 * LATE_NANOS;

    /// The reactor's epoll, and one of a descriptor that is ready.
    fn ready() -> (Epoll, Late, OwnedFd) {
        let reactor = Epoll::new().unwrap();
        let late = Late::new(&reactor, TAG, 8).unwrap();
        let socket = sys::wake_counter().unwrap();
        late.epoll.add(&socket, SOCKET, LISTENED_TO).unwrap();
        sys::wake(&socket);
        (reactor, late, socket)
    }

    /// Whether the reactor is called now.
    fn calls(reactor: &Epoll) -> bool {
        let mut events = Events::with_capacity(8);
        reactor.wait(&mut events, false).unwrap();
        events.at(0).inspect(|(tag, _)| assert_eq!(*tag, TAG)).is_some()
    }

    fn told(late: &mut Late) -> Option<u64> {
        let told = late.next_event().map(|(tag, _)| tag);
        late.leave_events();
        told
    }

    /// It has called as often as it may.
    fn muted() -> (Epoll, Late, OwnedFd) {
        let (reactor, mut late, socket) = ready();
        for call in 1..=CALLS_MAX {
            assert!(calls(&reactor));
            assert_eq!(late.deadline(), None);
            late.called(&reactor, START + u64::from(call)).unwrap();
            assert_eq!(told(&mut late), Some(SOCKET));
        }
        (reactor, late, socket)
    }

    #[test]
    fn one_that_calls_now_and_then_is_answered_at_once() {
        let (reactor, mut late, _socket) = ready();
        for call in 0..100 {
            assert!(calls(&reactor));
            late.called(&reactor, START + call * LATE_NANOS / 3).unwrap();
            assert_eq!((told(&mut late), late.deadline()), (Some(SOCKET), None));
        }
    }

    #[test]
    fn one_that_calls_too_often_is_asked_when_it_is_time() {
        let (reactor, mut late, _socket) = muted();
        let mut at = START + u64::from(CALLS_MAX);
        for _ in 0..3 {
            assert!(!calls(&reactor));
            assert_eq!(late.deadline(), Some(at + LATE_NANOS));
            late.after_wait(&reactor, at + LATE_NANOS - 1, None).unwrap();
            assert_eq!(told(&mut late), None);
            at += LATE_NANOS;
            late.after_wait(&reactor, at, None).unwrap();
            assert_eq!(told(&mut late), Some(SOCKET));
        }
    }

    #[test]
    fn what_is_due_by_time_has_all_that_arrived() {
        let (reactor, mut late, _socket) = muted();
        let now = START + LATE_NANOS / 2;
        late.after_wait(&reactor, now, Some(now + 1)).unwrap();
        assert_eq!(told(&mut late), None);
        late.after_wait(&reactor, now, Some(now)).unwrap();
        assert_eq!(told(&mut late), Some(SOCKET));
    }

    #[test]
    fn one_that_has_nothing_to_tell_is_listened_to_again() {
        let (reactor, mut late, socket) = muted();
        rustix::io::read(&socket, &mut [0; 8]).unwrap();
        let now = START + 2 * LATE_NANOS;
        late.after_wait(&reactor, now, None).unwrap();
        assert_eq!((told(&mut late), late.deadline()), (None, None));
        assert!(!calls(&reactor));
        sys::wake(&socket);
        assert!(calls(&reactor));
        late.called(&reactor, now + 1).unwrap(); // it has been counted anew
        assert_eq!((told(&mut late), late.deadline()), (Some(SOCKET), None));
    }
}
