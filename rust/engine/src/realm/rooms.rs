//! Rooms: opened and closed by the game, entered and left by sessions, ticking each at its own rate.

use super::{Event, Realm, SessionKey};
use crate::event::Nanos;
use crate::group::GroupKey;
use crate::room::{CircleId, Room, RoomNumber, RoomTick, RoomTime, Tick};

impl Realm {
    /// A new room, which may tick. `None`: there have been 2^31 - 1 rooms.
    pub fn room_open(&mut self, now: Nanos, tick: Option<RoomTick>) -> Option<RoomNumber> {
        let number = self.rooms.number()?;
        let members = self.groups.open_unnamed();
        let timers = &mut self.timers;
        let tick = tick.map(|tick| {
            self.rooms.begin_ticks(now, tick, |circle, clock| {
                timers.insert(clock.next_deadline(), ROOM_TIMER | u64::from(circle))
            })
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
        if let Some(timer) = room.tick.and_then(|tick| self.rooms.end_ticks(tick)) {
            self.timers.cancel(timer);
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

    /// Which ticks are a room's, if it has any.
    pub fn room_tick(&self, number: RoomNumber) -> Option<Tick> {
        self.rooms.get(number)?.tick
    }

    /// When a room's next tick is.
    pub fn room_time(&self, number: RoomNumber) -> Option<RoomTime> {
        let Tick { circle, before } = self.room_tick(number)?;
        let clock = &self.rooms.circle(circle)?.clock;
        let next = clock.next_tick().max(before + 1);
        Some(RoomTime { next_tick: next - before, next_deadline: clock.deadline(next) })
    }

    /// The step in seconds of rooms that tick together; 0 when there are none left.
    pub fn circle_dt(&self, circle: CircleId) -> f64 {
        self.rooms.circle(circle).map_or(0.0, |circle| circle.clock.dt())
    }

    /// How many rooms there are.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// The next tick of some rooms is due.
    pub(super) fn rooms_due(&mut self, now: Nanos, circle: CircleId) {
        let Some((due, next)) = self.rooms.due(now, circle) else { return };
        for tick in due.first..due.first + u64::from(due.count) {
            self.events.push_back(Event::RoomTicks { circle, tick });
        }
        if let Some(alone) = self.rooms.circle_mut(circle).filter(|circle| circle.timer.is_some()) {
            alone.timer = Some(self.timers.insert(next, ROOM_TIMER | u64::from(circle)));
        }
    }
}

/// In the payload of a timer that is a circle's.
pub(super) const ROOM_TIMER: u64 = 1 << 32;
