//! Rooms: a number, members, and ticks; those of one rate tick together.

use rustc_hash::FxHashMap;

use crate::clock::{Due, TickClock};
use crate::event::Nanos;
use crate::group::GroupKey;
use crate::timer::TimerKey;

/// A room of a [`crate::realm::Realm`]: the number that clients write behind a route's `@`. Never 0, never used again.
pub type RoomNumber = u32;

/// Numbers of rooms end there: they are part of what snapshots are known by.
pub const ROOM_NUMBER_MAX: RoomNumber = (1 << 31) - 1;

/// All rooms.
#[derive(Default)]
pub(crate) struct Rooms {
    // The keys are ours: a client can look numbers up, but adds none. Nothing ever walks over this map.
    rooms: FxHashMap<RoomNumber, Room>,
    last: RoomNumber,
    circles: FxHashMap<CircleId, Circle>,
    last_circle: CircleId,
    /// Those that rooms may join, one for each rate. They are due to the nanosecond, as the app's tick is, so that one wake is for all;
    /// a timer's slot would be over a moment later.
    together: Vec<Together>,
}

struct Together {
    rate: u32,
    circle: CircleId,
    due: Nanos,
}

/// What the realm keeps of a room.
pub(crate) struct Room {
    pub members: GroupKey,
    /// None: it has no tick.
    pub tick: Option<Tick>,
}

/// Which ticks are a room's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// With whom it ticks.
    pub circle: CircleId,
    /// Ticks of the circle before its first.
    pub before: u64,
}

/// Rooms that tick together. Never used again.
pub type CircleId = u32;

/// How a new room ticks.
#[derive(Clone, Debug)]
pub enum RoomTick {
    /// With all others of this clock's rate; by this clock, if there are none.
    Together(TickClock),
    /// For itself.
    Alone(TickClock),
}

/// Where a room's ticks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomTime {
    /// The number of its next one; its first is 1.
    pub next_tick: u64,
    /// When that is due.
    pub next_deadline: Nanos,
}

pub(crate) struct Circle {
    pub clock: TickClock,
    /// Of the next deadline, if it has only one room.
    pub timer: Option<TimerKey>,
    rooms: usize,
}

impl Rooms {
    /// The number that the next room gets; `None` when all are used up.
    pub fn number(&mut self) -> Option<RoomNumber> {
        self.last = Some(self.last + 1).filter(|&number| number <= ROOM_NUMBER_MAX)?;
        Some(self.last)
    }

    pub fn insert(&mut self, number: RoomNumber, room: Room) {
        self.rooms.insert(number, room);
    }

    pub fn remove(&mut self, number: RoomNumber) -> Option<Room> {
        self.rooms.remove(&number)
    }

    pub fn get(&self, number: RoomNumber) -> Option<&Room> {
        self.rooms.get(&number)
    }

    /// A room joins those that it ticks with; `start` begins a timer for one that ticks alone.
    pub fn begin_ticks(
        &mut self,
        now: Nanos,
        tick: RoomTick,
        start: impl FnOnce(CircleId, &TickClock) -> TimerKey,
    ) -> Tick {
        let (clock, is_shared) = match tick {
            RoomTick::Together(clock) => (clock, true),
            RoomTick::Alone(clock) => (clock, false),
        };
        if is_shared
            && let Some(&Together { circle, .. }) =
                self.together.iter().find(|together| together.rate == clock.rate())
            && let Some(found) = self.circles.get_mut(&circle)
        {
            found.rooms += 1;
            // One that is due already is not for who has just come.
            let before = found.clock.last_due(now).max(found.clock.next_tick() - 1);
            return Tick { circle, before };
        }
        self.last_circle += 1;
        let (circle, before) = (self.last_circle, clock.next_tick() - 1);
        let timer = if is_shared {
            self.together.push(Together { rate: clock.rate(), circle, due: clock.next_deadline() });
            None
        } else {
            Some(start(circle, &clock))
        };
        self.circles.insert(circle, Circle { clock, timer, rooms: 1 });
        Tick { circle, before }
    }

    /// A room ticks no more. The timer of its circle, if it was the last of it.
    pub fn end_ticks(&mut self, tick: Tick) -> Option<TimerKey> {
        let circle = self.circles.get_mut(&tick.circle)?;
        circle.rooms -= 1;
        if circle.rooms > 0 {
            return None;
        }
        let circle = self.circles.remove(&tick.circle)?;
        self.together.retain(|together| together.circle != tick.circle);
        circle.timer
    }

    /// When the next ones that tick together are due.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.together.iter().map(|together| together.due).min()
    }

    /// One of them that is due; it has to be asked for its ticks, which puts it off.
    pub fn next_due(&self, now: Nanos) -> Option<CircleId> {
        self.together.iter().find(|together| together.due <= now).map(|together| together.circle)
    }

    /// The ticks of a circle that are due, and when the next one is.
    pub fn due(&mut self, now: Nanos, circle: CircleId) -> Option<(Due, Nanos)> {
        let found = self.circles.get_mut(&circle)?;
        let (due, next) = (found.clock.due(now), found.clock.next_deadline());
        for together in self.together.iter_mut().filter(|together| together.circle == circle) {
            together.due = next;
        }
        Some((due, next))
    }

    pub fn circle(&self, circle: CircleId) -> Option<&Circle> {
        self.circles.get(&circle)
    }

    pub fn circle_mut(&mut self, circle: CircleId) -> Option<&mut Circle> {
        self.circles.get_mut(&circle)
    }

    pub fn len(&self) -> usize {
        self.rooms.len()
    }
}
