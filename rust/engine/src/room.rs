//! Rooms: a number, members, and a tick of their own.

use rustc_hash::FxHashMap;

use crate::clock::TickClock;
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
}

/// What the realm keeps of a room.
pub(crate) struct Room {
    pub members: GroupKey,
    /// None: it has no tick.
    pub tick: Option<Tick>,
}

/// A room's tick.
pub(crate) struct Tick {
    pub clock: TickClock,
    /// Of the next deadline.
    pub timer: TimerKey,
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

    pub fn get_mut(&mut self, number: RoomNumber) -> Option<&mut Room> {
        self.rooms.get_mut(&number)
    }

    pub fn len(&self) -> usize {
        self.rooms.len()
    }
}
