//! Rooms as Python sees them: which object a number is, who sits where, and whose a message is.

use std::sync::Arc;

use engine::event::Nanos;
use engine::realm::{CircleId, RoomNumber};
use engine::room::Tick;
use engine::session::SessionKey;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::app::Shared;
use crate::dispatch::Asker;
use crate::handler::Table;
use crate::push::Push;
use crate::session::Session;
use crate::state::State;
use crate::world::face::World;
use crate::world::state as world_state;
use crate::world::turn;
use wire::message::ROUTE_BYTES_MAX;

/// All rooms that are open.
#[derive(Default)]
pub struct Rooms {
    rooms: FxHashMap<RoomNumber, Room>,
    /// Those that tick together, in the order in which they came.
    circles: FxHashMap<CircleId, Circle>,
    /// The rooms that a session has a seat in, in the order in which it came.
    joined: FxHashMap<SessionKey, Vec<RoomNumber>>,
    /// Those without ticks of whose worlds something was written in this turn.
    pub touched: Vec<RoomNumber>,
}

struct Room {
    object: Py<PyAny>,
    class: usize,
    world: Option<Arc<world_state::Shared>>,
    seats: FxHashMap<SessionKey, Py<PyAny>>,
}

/// Rooms that tick together.
#[derive(Default)]
struct Circle {
    rooms: Vec<Option<Ticking>>,
    /// So many of them have ended.
    ended: usize,
}

/// A room at its ticks, with what they need beside each other: between two ticks the caches have forgotten it.
struct Ticking {
    number: RoomNumber,
    /// Ticks of the circle before its first.
    before: u64,
    class: usize,
    has_world: bool,
    object: Py<PyAny>,
}

/// Whose a message is.
pub enum Place {
    /// A room's: its number and class, the room, the sender's seat.
    Room(RoomNumber, usize, Py<PyAny>, Py<PyAny>),
    /// Nobody's in particular.
    App,
    /// Of a room that the sender is not in.
    Outside,
    /// Of several that it is in.
    Ambiguous,
}

impl Rooms {
    /// Whose a message is: the room's that it names, else the only one's that its sender is in and that handles it.
    pub fn place(&self, py: Python<'_>, table: &Table, asker: Asker) -> Place {
        if asker.room != 0 {
            return self.seat(py, asker.room, asker.key).unwrap_or(Place::Outside);
        }
        if !table.is_in_rooms(asker.route) {
            return Place::App;
        }
        let Some(joined) = self.joined.get(&asker.key) else { return Place::App };
        let handles = |number: &&RoomNumber| {
            let class = self.rooms.get(number).and_then(|room| table.rooms.get(room.class));
            class.is_some_and(|class| class.route(asker.route).is_some())
        };
        let mut found = joined.iter().filter(handles);
        match (found.next(), found.next()) {
            (Some(&number), None) => self.seat(py, number, asker.key).unwrap_or(Place::Outside),
            (None, _) => Place::App,
            _ => Place::Ambiguous,
        }
    }

    /// A room's object and the number of its class.
    pub fn room(&self, py: Python<'_>, number: RoomNumber) -> Option<(Py<PyAny>, usize)> {
        let room = self.rooms.get(&number)?;
        Some((room.object.clone_ref(py), room.class))
    }

    /// How many places there are in a circle; those of rooms that have ended are given up first. To be called before a tick.
    pub fn ticking(&mut self, circle: CircleId) -> usize {
        let Some(Circle { rooms, ended }) = self.circles.get_mut(&circle) else { return 0 };
        if std::mem::take(ended) > 0 {
            rooms.retain(Option::is_some);
        }
        rooms.len()
    }

    /// The room in a place of a circle, if this tick is one of its: its number, object and class, and whether it has a world.
    #[inline]
    pub fn ticking_at(
        &self,
        py: Python<'_>,
        circle: CircleId,
        place: usize,
        tick: u64,
    ) -> Option<(RoomNumber, Py<PyAny>, usize, bool)> {
        let Circle { rooms, .. } = self.circles.get(&circle)?;
        if let Some(Some(later)) = rooms.get(place + PREFETCHED) {
            prefetch(later.object.as_ptr());
        }
        let room = rooms.get(place)?.as_ref()?;
        (tick > room.before).then(|| (room.number, room.object.clone_ref(py), room.class, room.has_world))
    }

    /// A room ticks no more. Its object, to be dropped where Python may run.
    fn end_ticks(&mut self, circle: CircleId, number: RoomNumber) -> Option<Py<PyAny>> {
        let Circle { rooms, ended } = self.circles.get_mut(&circle)?;
        let place = rooms.iter().position(|room| room.as_ref().is_some_and(|room| room.number == number))?;
        let room = rooms[place].take();
        *ended += 1;
        if *ended == rooms.len() {
            self.circles.remove(&circle);
        }
        room.map(|room| room.object)
    }

    /// A room's world.
    #[inline]
    pub fn world(&self, number: RoomNumber) -> Option<Arc<world_state::Shared>> {
        self.rooms.get(&number)?.world.clone()
    }

    /// All worlds, which are no room's any more.
    pub fn take_worlds(&mut self) -> Vec<Arc<world_state::Shared>> {
        self.rooms.values_mut().filter_map(|room| room.world.take()).collect()
    }

    fn seat(&self, py: Python<'_>, number: RoomNumber, session: SessionKey) -> Option<Place> {
        let room = self.rooms.get(&number)?;
        let seat = room.seats.get(&session)?;
        Some(Place::Room(number, room.class, room.object.clone_ref(py), seat.clone_ref(py)))
    }

    fn exit(&mut self, number: RoomNumber, session: SessionKey) -> Option<Py<PyAny>> {
        let seat = self.rooms.get_mut(&number)?.seats.remove(&session);
        if let Some(joined) = self.joined.get_mut(&session) {
            joined.retain(|&other| other != number);
            if joined.is_empty() {
                self.joined.remove(&session);
            }
        }
        seat
    }
}

/// So many rooms before its turn a room's object is fetched: it is cold by then, and its turn is short.
const PREFETCHED: usize = 8;

/// Asks the processor to have an object at hand soon.
#[inline]
fn prefetch<T>(object: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it is a hint; whatever the address, it reads nothing that could be seen and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(object.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// The room's address of a push: `Moved@17`.
fn address(route: &str, number: RoomNumber) -> PyResult<String> {
    let address = format!("{route}@{number}");
    if address.len() > ROUTE_BYTES_MAX {
        return Err(PyValueError::new_err(format!(
            "route {address:?} has {} bytes; {ROUTE_BYTES_MAX} fit on the wire",
            address.len()
        )));
    }
    Ok(address)
}

/// What a game's rooms ask; see `_core.pyi`.
#[pyclass(frozen, module = "gameserver._core")]
pub struct CoreRooms {
    shared: Arc<Shared>,
}

impl CoreRooms {
    /// Of this server.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[pymethods]
impl CoreRooms {
    /// Opens a room of this class; says its number.
    #[pyo3(signature = (object, class_, tick_rate, world, first = None))]
    fn open(
        &self,
        py: Python<'_>,
        object: Py<PyAny>,
        class_: usize,
        tick_rate: u32,
        world: Option<&Bound<'_, World>>,
        first: Option<f64>,
    ) -> PyResult<RoomNumber> {
        let mut state = self.shared.enter()?;
        let first = first.map(|seconds| (seconds * 1e9) as Nanos);
        let number = state.server.room_open(tick_rate, first);
        let number = number.ok_or_else(|| PyRuntimeError::new_err("all numbers of rooms are used up"))?;
        drop(state);
        let world = world.map(|world| world.get().shared.clone());
        if let Some(world) = &world {
            world.attach(py, &self.shared, tick_rate, number)?;
        }
        let mut state = self.shared.enter()?;
        if let Some(Tick { circle, before }) = state.realm().room_tick(number) {
            let (has_world, object) = (world.is_some(), object.clone_ref(py));
            let ticking = Ticking { number, before, class: class_, has_world, object };
            state.rooms.circles.entry(circle).or_default().rooms.push(Some(ticking));
        }
        let room = Room { object, class: class_, world, seats: FxHashMap::default() };
        state.rooms.rooms.insert(number, room);
        Ok(number)
    }

    /// Closes a room; false if it is closed.
    fn close(&self, number: RoomNumber) -> PyResult<bool> {
        let mut state = self.shared.enter()?;
        let State { rooms, server, .. } = &mut *state;
        let tick = server.realm.room_tick(number);
        server.realm.room_close(number);
        let ticked = tick.and_then(|tick| rooms.end_ticks(tick.circle, number));
        let sitting: Vec<SessionKey> = match rooms.rooms.get(&number) {
            Some(room) => room.seats.keys().copied().collect(),
            None => return Ok(false),
        };
        let seats: Vec<_> = sitting.into_iter().map(|session| rooms.exit(number, session)).collect();
        let room = rooms.rooms.remove(&number);
        drop(state);
        if let Some(world) = room.as_ref().and_then(|room| room.world.as_ref()) {
            world.detach()?;
        }
        drop((room, seats, ticked)); // may run Python
        Ok(true)
    }

    /// Gives a session a seat. False if it has one, or either is gone.
    fn enter(
        &self,
        py: Python<'_>,
        number: RoomNumber,
        session: &Bound<'_, Session>,
        seat: Py<PyAny>,
    ) -> PyResult<bool> {
        let key = session.get().key_in(py, &self.shared)?;
        let mut state = self.shared.enter()?;
        if !state.server.realm.room_enter(number, key) {
            return Ok(false);
        }
        let State { rooms, .. } = &mut *state;
        if let Some(room) = rooms.rooms.get_mut(&number) {
            room.seats.insert(key, seat);
            rooms.joined.entry(key).or_default().push(number);
        }
        drop(state);
        turn::joined(&self.shared, number, key)?;
        Ok(true)
    }

    /// Takes a session's seat.
    fn exit(&self, py: Python<'_>, number: RoomNumber, session: &Bound<'_, Session>) -> PyResult<()> {
        let key = session.get().key_in(py, &self.shared)?;
        let mut state = self.shared.enter()?;
        state.server.realm.room_exit(number, key);
        let seat = state.rooms.exit(number, key);
        drop(state);
        drop(seat); // may run Python
        turn::left(&self.shared, number, key)?;
        Ok(())
    }

    /// Pushes to a room's members but one, or to those of a group of it; to how many.
    #[pyo3(signature = (number, route, body, skip, group = None, delivery = None))]
    #[expect(clippy::too_many_arguments, reason = "Python's own, by name")]
    fn push(
        &self,
        py: Python<'_>,
        number: RoomNumber,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
        skip: Option<&Bound<'_, Session>>,
        group: Option<&str>,
        delivery: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<usize> {
        let push = Push::new(&self.shared, route, body, delivery)?;
        let skip = skip.map(|session| session.get().key_in(py, &self.shared)).transpose()?;
        let address = address(push.route(), number)?;
        push.with_bodies(&self.shared, |state, bodies| {
            let realm = &mut state.server.realm;
            let members = match group {
                None => realm.room_members(number),
                Some(name) => realm.find_group(name),
            };
            let Some(members) = members else { return 0 };
            realm.push_group(members, skip, push.class(), push.key(number), &address, bodies)
        })
    }

    /// Pushes to one member; false if it is gone.
    #[pyo3(signature = (number, session, route, body, delivery = None))]
    fn push_to(
        &self,
        py: Python<'_>,
        number: RoomNumber,
        session: &Bound<'_, Session>,
        route: &Bound<'_, PyAny>,
        body: Option<&Bound<'_, PyAny>>,
        delivery: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let push = Push::new(&self.shared, route, body, delivery)?;
        let key = session.get().key_in(py, &self.shared)?;
        let address = address(push.route(), number)?;
        let serializer = self.shared.enter()?.realm().session(key).map(|session| session.serializer());
        let Some(serializer) = serializer else { return Ok(false) };
        push.with_body(serializer, |body| {
            Ok(self.shared.enter()?.push(key, push.class(), push.key(number), &address, body))
        })
    }

    /// Of a room's tick: the number of the next one, and seconds until it is due.
    fn clock(&self, number: RoomNumber) -> PyResult<Option<(u64, f64)>> {
        let state = self.shared.enter()?;
        let time = state.realm().room_time(number);
        let left = |due: Nanos| due.saturating_sub(state.now()) as f64 / 1e9;
        Ok(time.map(|time| (time.next_tick, left(time.next_deadline))))
    }
}
