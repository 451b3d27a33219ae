//! One client: where it is, and which of its requests are under way.

use std::collections::VecDeque;

use engine::event::{LinkId, Nanos};
use world::Replica;

use crate::session::Session;

/// A client. One that comes back to its session keeps what it awaits, its room and when it speaks; else a new life begins.
#[derive(Debug, Default)]
pub(crate) struct Bot {
    pub state: State,
    /// While it has a connection.
    pub link: Option<LinkId>,
    /// Whatever was set down for an earlier connection is void.
    pub life: u32,
    /// When it began to connect, or may do so again.
    pub since: Nanos,
    /// When it was cut off, if it is to go on where it was.
    pub cut_at: Nanos,
    /// Its next message is set down, or its closed loop runs: nothing has to be started.
    pub speaks: bool,
    /// When the last snapshot came; 0: none yet.
    pub snapshot_at: Nanos,
    /// The room in which it has its seat; 0: none.
    pub room: u32,
    /// What it sees, if it decodes that.
    pub replica: Option<Box<Replica>>,
    /// The same of its room's world.
    pub room_replica: Option<Box<Replica>>,
    /// What lets it go on after a cut, where the plan has that.
    pub session: Option<Box<Session>>,
    /// Which of the plan's turns comes next, and which bodies.
    pub turn: u32,
    flights: Flights,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Without a connection; may begin one after `since`.
    #[default]
    Out,
    /// On its way in.
    Connecting,
    /// It plays.
    In,
}

/// A request that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flight {
    /// When it was to be sent.
    pub due: Nanos,
    pub action: u16,
}

impl Bot {
    /// One that has not come yet, whose turns begin there.
    pub fn new(turn: u32) -> Self {
        Self { turn, ..Self::default() }
    }

    /// The number for a request.
    #[inline]
    pub fn ask(&mut self, flight: Flight) -> u32 {
        self.flights.push(flight)
    }

    /// The request that this answers, once.
    #[inline]
    pub fn answered(&mut self, id: u32) -> Option<Flight> {
        self.flights.take(id)
    }

    /// Forgets the requests that were due before this, and says how many they were.
    pub fn give_up(&mut self, before: Nanos) -> u64 {
        self.flights.give_up(before)
    }

    /// Its session has ended: how many requests it took with it.
    pub fn end_life(&mut self) -> u64 {
        self.life = self.life.wrapping_add(1);
        (self.link, self.session, self.speaks) = (None, None, false);
        (self.snapshot_at, self.room) = (0, 0);
        (self.replica, self.room_replica) = (None, None);
        std::mem::take(&mut self.flights).open
    }

    /// Requests under way.
    pub fn under_way(&self) -> u64 {
        self.flights.open
    }
}

/// Requests in the order in which they were sent; answers may come in any.
#[derive(Debug, Default)]
struct Flights {
    /// The number of the first.
    first: u32,
    waiting: VecDeque<Option<Flight>>,
    open: u64,
}

impl Flights {
    fn push(&mut self, flight: Flight) -> u32 {
        if self.waiting.is_empty() {
            // Numbers that are short to write; 0 is none.
            self.first = if self.first > SHORT { 1 } else { self.first.max(1) };
        }
        self.waiting.push_back(Some(flight));
        self.open += 1;
        self.first + (self.waiting.len() - 1) as u32
    }

    fn take(&mut self, id: u32) -> Option<Flight> {
        let place = id.checked_sub(self.first)? as usize;
        let flight = self.waiting.get_mut(place)?.take()?;
        self.open -= 1;
        self.trim();
        Some(flight)
    }

    fn give_up(&mut self, before: Nanos) -> u64 {
        let mut given_up = 0;
        // Oldest first: one that is young ends the search.
        for waiting in &mut self.waiting {
            match waiting {
                Some(flight) if flight.due < before => {
                    *waiting = None;
                    given_up += 1;
                }
                Some(_) => break,
                None => {}
            }
        }
        self.open -= given_up;
        self.trim();
        given_up
    }

    fn trim(&mut self) {
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

/// Up to here a number takes two bytes on the wire.
const SHORT: u32 = 1 << 13;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a plain list of what is open.
        #[test]
        fn each_answer_finds_its_request_once(steps in proptest::collection::vec((0u8..8, 0usize..20), 1..300)) {
            let (mut flights, mut open, mut now) = (Flights::default(), Vec::<(u32, Flight)>::new(), 0);
            for (step, which) in steps {
                now += 1;
                match step {
                    0..4 => {
                        let flight = Flight { due: now, action: which as u16 };
                        let id = flights.push(flight);
                        prop_assert!(open.iter().all(|(other, _)| *other != id));
                        open.push((id, flight));
                    }
                    4..7 if !open.is_empty() => {
                        let (id, flight) = open.remove(which % open.len());
                        prop_assert_eq!(flights.take(id), Some(flight));
                        prop_assert_eq!(flights.take(id), None);
                    }
                    7 => {
                        let before = now.saturating_sub(which as u64);
                        let old = open.iter().filter(|(_, flight)| flight.due < before).count() as u64;
                        open.retain(|(_, flight)| flight.due >= before);
                        prop_assert_eq!(flights.give_up(before), old);
                    }
                    _ => {}
                }
                prop_assert_eq!(flights.open, open.len() as u64);
            }
        }
    }
}
