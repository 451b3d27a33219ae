//! Rooms: opened and closed by the game, entered and left by sessions, ticking each at its own rate.

use super::{Event, Realm, SessionKey};
use crate::clock::TickClock;
use crate::event::Nanos;
use crate::group::GroupKey;
use crate::room::{Room, RoomNumber, Tick};

impl Realm {
    /// A new room, with a tick if it is given a clock. `None`: there have been 2^31 - 1 rooms.
    pub fn room_open(&mut self, clock: Option<TickClock>) -> Option<RoomNumber> {
        let number = self.rooms.number()?;
        let members = self.groups.open_unnamed();
        let tick = clock.map(|clock| {
            let timer = self.timers.insert(clock.next_deadline(), ROOM_TIMER | u64::from(number));
            Tick { clock, timer }
        });
        self.rooms.insert(number, Room { members, tick });
        Some(number)
    }

    /// The end of a room: all its members are out. False if there is none.
    pub fn room_close(&mut self, number: RoomNumber) -> bool {
        let Some(room) = self.rooms.remove(number) else { return false };
        let members: Vec<_> = self.groups.members(room.members).collect();
        for session in members {
            self.group_remove(room.members, session);
        }
        self.groups.forget(room.members);
        if let Some(tick) = room.tick {
            self.timers.cancel(tick.timer);
        }
        true
    }

    /// Adds a member until it leaves or its session ends. False if it is one, or either is gone.
    pub fn room_enter(&mut self, number: RoomNumber, session: SessionKey) -> bool {
        self.room_members(number).is_some_and(|members| self.group_add(members, session))
    }

    /// Takes a member out; false if it is none.
    pub fn room_exit(&mut self, number: RoomNumber, session: SessionKey) -> bool {
        self.room_members(number).is_some_and(|members| self.group_remove(members, session))
    }

    /// The group that is a room's members.
    pub fn room_members(&self, number: RoomNumber) -> Option<GroupKey> {
        self.rooms.get(number).map(|room| room.members)
    }

    /// A room's tick.
    pub fn room_clock(&self, number: RoomNumber) -> Option<&TickClock> {
        self.rooms.get(number)?.tick.as_ref().map(|tick| &tick.clock)
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// A room's next tick is due.
    pub(super) fn room_due(&mut self, now: Nanos, number: RoomNumber) {
        let Some(tick) = self.rooms.get_mut(number).and_then(|room| room.tick.as_mut()) else { return };
        for _ in 0..tick.clock.due(now).count {
            self.events.push_back(Event::RoomTick { room: number });
        }
        tick.timer = self.timers.insert(tick.clock.next_deadline(), ROOM_TIMER | u64::from(number));
    }
}

/// In the payload of a timer that is a room's.
pub(super) const ROOM_TIMER: u64 = 1 << 32;
