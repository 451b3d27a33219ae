"""A room as bytes, between two ticks: to be made again in another process, where the next tick is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from gameserver import _core
from gameserver._entity import Entity
from gameserver._member import Member
from gameserver._types import Left
from gameserver._world import World
from gameserver._world_snapshot import WorldSnapshot
from gameserver.errors import GameServerError

if TYPE_CHECKING:
    from gameserver._app import App
    from gameserver._room import Room
    from gameserver._rooms import RoomType

VERSION = 1
SEAT = "$seat"


class _Seat(msgspec.Struct):
    number: int
    uid: str | None
    team: int | None
    row: int
    owned: list[tuple[str, int, bool]]


class _Timer(msgspec.Struct):
    method: str
    arguments: list[Any]
    left: float


class _Carried(msgspec.Struct):
    version: int
    name: str
    options: dict[str, Any]
    match: list[Any]
    metadata: dict[str, Any]
    locked: bool
    private: bool
    random: list[Any]
    age: float
    last_seat: int
    errors: int
    row: int
    seats: list[_Seat]
    groups: list[tuple[str, list[int]]]
    timers: list[_Timer]
    every: list[tuple[str, float]]
    next_tick: float | None
    world: bytes | None
    state: Any


def save(room: Room[Any]) -> bytes:
    """See `App.save_room`."""
    what = f"room {room.number} ({room.name}) can't be carried"
    if room.is_disposed:
        raise GameServerError(f"{what}: it has ended")
    if room._tasks or room._waits:
        names = ", ".join(sorted(task.get_coro().__qualname__ for task in room._tasks)) or "wait_for"  # type: ignore[union-attr]
        raise GameServerError(f"{what}: {names} runs still; a coroutine can't be carried")
    seats = list(room.members)
    own = {room._idle, *(seat._grace for seat in seats), *room._reserved.values()}
    own |= {timer for _, timer in room._every.values()}
    now = room._app.clock.now()
    clock = room._core_rooms().clock(room.number)
    carried = _Carried(
        version=VERSION,
        name=room.name,
        options=dict(room.options),
        match=list(room._listing.match),
        metadata=dict(room.metadata),
        locked=room.is_locked,
        private=room.private,
        random=_listed(room.random.getstate()),
        age=room.clock.now(),
        last_seat=room._last_seat,
        errors=room.errors,
        row=room._row.id if room._row is not None else 0,
        seats=[_save_seat(room, seat) for seat in seats],
        groups=[(group.name, [seat.number for seat in group]) for group in room.groups],
        timers=[_save_timer(room, timer, what) for timer in room._timers if timer not in own],
        every=[(name, due - now) for name, (due, _) in room._every.items()],
        next_tick=clock[1] if clock is not None else None,
        world=room.world.snapshot()._copy.to_bytes() if room._world is not None else None,
        state=room.on_save(),
    )
    try:
        return msgspec.msgpack.encode(carried)
    except (TypeError, OverflowError) as error:
        raise GameServerError(
            f"{what}: options, metadata, arguments of timers and what on_save returns are of plain values: {error}"
        ) from None


def load(app: App, data: bytes) -> Room[Any]:
    """See `App.load_room`."""
    try:
        carried = msgspec.msgpack.decode(data, type=_Carried)
    except msgspec.MsgspecError as error:
        raise GameServerError(f"these bytes are no room: {error}") from None
    kind = app._rooms.types.get(carried.name)
    if carried.version != VERSION or kind is None:
        raise GameServerError(f"a room of {carried.name!r}, version {carried.version}: this app has no such rooms")
    if (kind.world is None) != (carried.world is None):
        raise GameServerError(
            f"a room of {carried.name!r}: here they have {'no ' if kind.world is None else 'a '}world"
        )
    for method in [*(timer.method for timer in carried.timers), *(name for name, _ in carried.every)]:
        if not callable(getattr(kind.cls, method, None)):
            raise GameServerError(f"a room of {carried.name!r} with a timer for {method}, which there is not")
    world: World | None = None
    if kind.world is not None and carried.world is not None:
        world = kind.world._like()
        world.restore(WorldSnapshot(_core.WorldCopy.from_bytes(world._core, carried.world)))
    room = app._rooms.open(kind, carried.options, (tuple(carried.match), carried.next_tick, world))
    try:
        _fill(room, kind, carried)
    except BaseException:
        room._end(Left.DISPOSED)
        raise
    return room


def _fill(room: Room[Any], kind: RoomType, carried: _Carried) -> None:
    room.random.setstate(_tupled(carried.random))
    room.clock._start = room._app.clock.now() - carried.age
    room.errors, room._last_seat = carried.errors, carried.last_seat
    room._row = _entity(room, kind.room_row, carried.row)
    room._listing.metadata, room._listing.locked, room._listing.private = (
        carried.metadata,
        carried.locked,
        carried.private,
    )
    classes = {cls.__name__: cls for cls in room.world._core.classes()} if room._world is not None else {}
    for saved in carried.seats:
        seat = kind.seat.__new__(kind.seat)
        seat._take_place(room, None, saved.uid, saved.number, saved.team)
        seat._row = _entity(room, kind.seat_row, saved.row)
        if seat._row is not None:
            seat._row.keep = True
        for name, id, keep in saved.owned:
            entity = _entity(room, cast("type[Entity]", classes[name]), id)
            if entity is not None:
                entity.keep = keep
                seat._owned.append(entity)
        room._seats[seat.number] = seat
    room._listing.taken = len(room._seats)
    for name, numbers in carried.groups:
        for number in numbers:
            room.group(name).add(room._seats[number])
    room.on_load(carried.state)
    for timer in carried.timers:
        arguments = (room._seats.get(one[SEAT]) if _is_seat(one) else one for one in timer.arguments)
        room.after(max(0.0, timer.left), getattr(room, timer.method), *arguments)
    for name, left in carried.every:
        room._start_every(name, left)
    assert room._created is not None
    room._created.set_result(None)
    room._publish()
    for seat in room.members:
        room._app._rooms.keep_seat(seat)
    room._start_idle()


def _save_seat(room: Room[Any], seat: Member) -> _Seat:
    owned = seat._owned
    if room._world is not None and seat._session is not None:
        owned = cast("list[Entity]", room.world._core.owned_all(seat._session))
    live = [entity for entity in owned if entity in room.world and entity != seat._row]
    own = [(type(entity).__name__, entity.id, entity.keep) for entity in live]
    row = seat._row.id if seat._row is not None else 0
    return _Seat(seat.number, seat.uid, seat.team, row, own)


def _save_timer(room: Room[Any], timer: Any, what: str) -> _Timer:
    name = getattr(timer.function, "__name__", "")
    if getattr(timer.function, "__self__", None) is not room or getattr(type(room), name, None) is None:
        raise GameServerError(
            f"{what}: the timer for {timer._name} is no method of the room; write room.after(s, self.method)"
        )
    plain = [{SEAT: one.number} if isinstance(one, Member) else one for one in timer.arguments]
    return _Timer(name, plain, timer.left)


def _entity(room: Room[Any], cls: type[Entity] | None, id: int) -> Entity | None:
    if cls is None or not id:
        return None
    return next((entity for entity in room.world.each(cls) if entity.id == id), None)


def _is_seat(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {SEAT}


def _listed(state: Any) -> Any:
    return [_listed(one) for one in state] if isinstance(state, tuple) else state


def _tupled(state: Any) -> Any:
    return tuple(_tupled(one) for one in state) if isinstance(state, list) else state
