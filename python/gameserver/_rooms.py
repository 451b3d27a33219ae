"""All rooms of an app: their classes, and what clients ask on the routes that begin with `$`."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from gameserver._answer import is_message, is_own_message
from gameserver._core import CoreRooms, Session
from gameserver._directory import Directory, Listing, LocalDirectory
from gameserver._entity import Entity
from gameserver._limit import Over
from gameserver._member import Member
from gameserver._ranked import Ranked
from gameserver._room import Room
from gameserver._signature import Handler, Kind, here, make_handler
from gameserver._synced import SEAT_COLUMNS, row_class
from gameserver._types import Left
from gameserver._world import World
from gameserver.errors import ConfigError, GameServerError, Refuse

if TYPE_CHECKING:
    from gameserver._app import App

F = TypeVar("F", bound=Callable[..., Any])

ROOMS_PER_SESSION_MAX = 16  # seats of one session
LIST_MAX = 100  # rooms in an answer to `$rooms`
JOIN_TIMEOUT = 15.0  # seconds that `on_create`, `on_auth` and `on_join` may take together


@dataclass(eq=False)
class RoomType:
    """A class of rooms, and how it was registered."""

    name: str
    cls: type[Room[Any]]
    seat: type[Member]
    index: int
    max_members: int
    max_rooms: int
    tick_rate: int
    grace: float
    dispose_after: float | None
    match: tuple[str, ...]
    sort: str | None
    waits: tuple[type, ...]
    dispose_on_error: bool
    clients_create: bool
    handlers: list[Handler]
    every: dict[str, Handler]
    options: type | None
    """The message that `on_create` takes, if it is one."""
    entities: tuple[type[Entity], ...]
    cell: float
    view: float
    count: int = 0
    world: World | None = None
    """Of which each room gets one more; None: they have none."""
    room_row: type[Entity] | None = None
    seat_row: type[Entity] | None = None

    @property
    def has_tick(self) -> bool:
        """Whether its rooms do anything at a tick."""
        return self.world is not None or any(handler.kind is Kind.TICK for handler in self.handlers)

    def make_world(self) -> None:
        """Reads what lives in its rooms, once all classes are there."""
        if self.world is not None:
            return  # of the app's run before this one
        self.room_row = row_class(self.cls, Room)
        self.seat_row = row_class(self.seat, Member, **SEAT_COLUMNS)
        taken = [handler.entity_class for handler in self.handlers if handler.entity_class is not None]
        classes = [row for row in (self.room_row, self.seat_row) if row is not None]
        classes += dict.fromkeys([*self.entities, *taken])
        if classes:
            self.world = World(self.cell, self.view)
            self.world.declare(*classes)
            self.world._core.set_tick_rate(self.tick_rate)

    def world_document(self) -> dict[str, Any] | None:
        """What clients are told of its rooms' worlds: docs/wire.md, "Rooms"."""
        if self.world is None:
            return None
        document: dict[str, Any] = {
            "cell": self.world.cell,
            "tick_rate": self.tick_rate,
            "tables": self.world._document(),
        }
        if self.room_row is not None:
            document["room"] = self.room_row.__name__
        if self.seat_row is not None:
            document["member"] = self.seat_row.__name__
        return document


@dataclass(frozen=True)
class _Mark:
    kind: Kind
    route: str | None = None
    concurrent: bool = False
    interval: float = 0.0
    rate: str | None = None
    burst: int | None = None
    over: Over = "refuse"
    names: dict[str, Any] = field(default_factory=dict)


@overload
def on(route: F, /) -> F: ...
@overload
def on(
    route: str | None = None,
    /,
    *,
    concurrent: bool = False,
    rate: str | None = None,
    burst: int | None = None,
    over: Over = "refuse",
) -> Callable[[F], F]: ...
def on(
    route: Callable[..., Any] | str | None = None,
    /,
    *,
    concurrent: bool = False,
    rate: str | None = None,
    burst: int | None = None,
    over: Over = "refuse",
) -> Any:
    """Marks a method of a `Room` as a handler, as `App.on` does a function; it takes a `Member` in place of a `Session`.

    A rate is the route's: who is in several rooms has it once.

    >>> from gameserver import App, Member, Message, Room, on, u8
    >>> app = App("doc")
    >>> class Play(Message):
    ...     card: u8
    >>> @app.room("cards", max_members=4)
    ... class Table(Room[Member]):
    ...     @on
    ...     def play(self, seat: Member, msg: Play) -> None:
    ...         self.push(msg, skip=seat)
    """
    if callable(route):
        return _mark(route, _Mark(Kind.ROUTE, names=dict(sys._getframe(1).f_locals)))
    names = dict(sys._getframe(1).f_locals)
    mark = _Mark(Kind.ROUTE, route, concurrent, rate=rate, burst=burst, over=over, names=names)
    return lambda function: _mark(function, mark)


def every(seconds: float) -> Callable[[F], F]:
    """Marks a method of a `Room` to be called each `seconds`, on absolute deadlines, as `App.every` does a function.

    Raises:
        ConfigError: `seconds` is not above 0.
    """
    if not isinstance(seconds, (int, float)) or not 0.001 <= seconds < 1e9:
        raise ConfigError(f"{here(1)}@every({seconds!r}): give seconds from 0.001 up: @every(60)")
    return lambda function: _mark(function, _Mark(Kind.EVERY, interval=float(seconds)))


def _mark(function: F, mark: _Mark) -> F:
    function.__dict__.setdefault("_gameserver_marks", []).append(mark)
    return function


class Rooms:
    """The rooms of one app."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.types: dict[str, RoomType] = {}
        self.ranked: dict[str, Ranked] = {}
        self.directory: Directory = LocalDirectory()
        self.errors = 0
        self._is_draining = False
        self._open: dict[int, Room[Any]] = {}
        self._by_session: dict[Session, list[Room[Any]]] = {}
        self._away: dict[str, list[Member]] = {}
        self._core: CoreRooms | None = None

    # -- registering ---------------------------------------------------------------------------------------------------

    def add(self, cls: type[Room[Any]], name: str, where: str, **options: Any) -> None:
        """Registers a class; see `App.room`."""
        if not (isinstance(cls, type) and issubclass(cls, Room)):
            raise ConfigError(f"{where}@app.room({name!r}): decorate a subclass of gameserver.Room")
        if name in self.types:
            raise ConfigError(f"{where}@app.room({name!r}): {self.types[name].cls.__qualname__} has this name already")
        seat = next(
            (
                argument
                for base in getattr(cls, "__orig_bases__", ())
                for argument in typing.get_args(base)
                if isinstance(argument, type) and issubclass(argument, Member)
            ),
            Member,
        )
        for parameter, least in (("max_members", 1), ("max_rooms", 1), ("tick_rate", 0), ("grace", 0)):
            if not options[parameter] >= least:
                raise ConfigError(f"{where}@app.room({parameter}={options[parameter]!r}): at least {least}")
        for message in options["waits"]:
            if not is_own_message(message):
                raise ConfigError(f"{where}@app.room(waits=...): {message!r} is no subclass of Message")
        handlers, timed = _handlers_of(cls, seat, where, options["waits"])
        options["entities"] = tuple(options["entities"])
        for entity in options["entities"]:
            if not (isinstance(entity, type) and issubclass(entity, Entity)):
                raise ConfigError(f"{where}@app.room(entities=...): {entity!r} is no subclass of Entity")
        options["waits"], options["match"] = tuple(options["waits"]), tuple(options["match"])
        cls._type = self.types[name] = RoomType(
            name=name,
            cls=cls,
            seat=seat,
            index=len(self.types),
            handlers=handlers,
            every=timed,
            options=_options_of(cls),
            **options,
        )

    def tables(self) -> list[list[Handler]]:
        """The handlers of each class, for the core."""
        return [kind.handlers for kind in self.types.values()]

    def all_handlers(self) -> list[Handler]:
        """Those of all classes that take messages."""
        return [handler for kind in self.types.values() for handler in kind.handlers if handler.kind is Kind.ROUTE]

    def every_handler(self) -> list[Handler]:
        """All that methods of rooms answer to, timers included."""
        return [handler for kind in self.types.values() for handler in (*kind.handlers, *kind.every.values())]

    def make_worlds(self) -> None:
        """Before the app starts."""
        for kind in self.types.values():
            kind.make_world()

    def world_documents(self) -> dict[str, Any]:
        """What clients are told of the worlds of rooms, by the names of their classes."""
        documents = {name: kind.world_document() for name, kind in self.types.items()}
        return {name: document for name, document in documents.items() if document is not None}

    def calls(self) -> list[Handler]:
        """What the app handles on behalf of rooms, if there are any."""
        if not self.types:
            return []
        routes = {
            "$join_or_create": self._join_or_create,
            "$create": self._create,
            "$join": self._join,
            "$join_by_id": self._join_by_id,
            "$rejoin": self._rejoin,
            "$rooms": self._list,
            "$leave_room": self._leave,
            "$queue": self._queue,
            "$unqueue": self._unqueue,
        }
        made = [
            replace(make_handler(Kind.ROUTE, function, route=route[1:], rate="20/s", burst=100), route=route)
            for route, function in routes.items()
        ]
        return [
            *made,
            make_handler(Kind.JOIN, self._joined),
            make_handler(Kind.DROP, self._dropped),
            make_handler(Kind.RESUME, self._resumed),
            make_handler(Kind.LEAVE, self._left),
        ]

    # -- the run -------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A run starts."""
        self._core = self._app._core_running().rooms()

    def end(self) -> None:
        """A run has ended: nothing is left of its rooms."""
        for kind in self.types.values():
            kind.count = 0
        for ranked in self.ranked.values():
            ranked._end()
        self._core = None
        self._is_draining = False
        self._open.clear()
        self._by_session.clear()
        self._away.clear()
        self.directory = LocalDirectory()

    def drain(self, grace: float) -> None:
        """The server is about to stop: nobody joins any more, and each room is told."""
        self._is_draining = True
        for room in list(self._open.values()):
            room.lock()
            room._spawn(room.on_drain, grace)

    def is_seated(self, session: Session) -> bool:
        """Whether a session has a seat in any room."""
        return session in self._by_session

    def shut_down(self) -> None:
        """The server stops: every room ends."""
        for room in list(self._open.values()):
            room._end(Left.SHUTDOWN)

    def core(self) -> CoreRooms:
        """The core's side of it."""
        if self._core is None:
            raise GameServerError("the server does not run; rooms work between on_start and the end of run()")
        return self._core

    def rooms(self) -> Sequence[Room[Any]]:
        """Those that are open, oldest first."""
        return tuple(self._open.values())

    def seated(self, session: Session, room: Room[Any]) -> None:
        """A session has a seat in a room."""
        self._by_session.setdefault(session, []).append(room)

    def unseated(self, session: Session, room: Room[Any]) -> None:
        """It has it no longer."""
        rooms = self._by_session.get(session, [])
        if room in rooms:
            rooms.remove(room)
        if not rooms:
            self._by_session.pop(session, None)

    def closed(self, room: Room[Any]) -> None:
        """A room has ended."""
        self._open.pop(room.number, None)
        self.directory.withdraw(room.number)
        room._type.count -= 1

    def open(
        self,
        kind: RoomType,
        options: dict[str, Any],
        carried: tuple[tuple[Any, ...], float | None, World | None] | None = None,
    ) -> Room[Any]:
        """A new room that nobody is in, before its `on_create`.

        Raises:
            Refuse: there are `max_rooms` of this class.
        """
        if self._is_draining:
            raise Refuse("GS-503", "the server is about to stop; connect again")
        if kind.count >= kind.max_rooms:
            raise Refuse("rooms-full", f"there are {kind.max_rooms} rooms of {kind.name!r} already")
        room = kind.cls.__new__(kind.cls)
        room._open(self._app, options, *(carried or (_match(kind, options), None, None)))
        kind.count += 1
        self._open[room.number] = room
        room._created = asyncio.get_running_loop().create_future()
        room._created.add_done_callback(lambda future: future.cancelled() or future.exception())
        return room

    async def create(self, kind: RoomType, room: Room[Any]) -> None:
        """Runs `__init__` and `on_create`; those who wait for the room learn how it went."""
        assert room._created is not None
        try:
            room.__init__(**await self._app._services.open_room(room))  # type: ignore[misc]
            await _finish(room.on_create(_read_options(kind, room.options)))
        except BaseException as error:
            refusal = error if isinstance(error, Refuse) else Refuse("GS-500", "the room could not be made")
            room._created.set_exception(refusal)
            room._end(Left.DISPOSED)
            raise
        room._created.set_result(None)
        for name in kind.every:
            room._start_every(name)

    # -- sessions ------------------------------------------------------------------------------------------------------

    def _joined(self, session: Session) -> None:
        if session.uid is not None:
            for seat in self._away.pop(session.uid, ()):
                if seat._session is None and seat._number in seat._room._seats:
                    seat._room._return(seat, session)

    def _dropped(self, session: Session) -> None:
        for room in tuple(self._by_session.get(session, ())):
            seat = room._seat_of(session)
            if seat is not None:
                seat._is_dropped = True
                room._spawn(room.on_drop, seat)

    def _resumed(self, session: Session) -> None:
        for room in tuple(self._by_session.get(session, ())):
            seat = room._seat_of(session)
            if seat is not None:
                seat._is_dropped = False
                room._spawn(room.on_resume, seat)

    def _left(self, session: Session, why: Left) -> None:
        for ranked in self.ranked.values():
            ranked.cancel(session)
        for room in self._by_session.pop(session, ()):
            seat = room._seat_of(session)
            if seat is None:
                continue
            if why in (Left.LOST, Left.REPLACED) and room._type.grace > 0 and seat.uid is not None:
                self.keep_seat(seat)
            else:
                room._leave(seat, why)

    def keep_seat(self, seat: Member) -> None:
        """Its session has ended: it waits for the person."""
        room = seat._room
        if seat.uid is None or room._type.grace <= 0:
            room._leave(seat, Left.LOST)
            return
        waiting = self._away.setdefault(seat.uid, [])
        waiting[:] = [other for other in waiting if other._number in other._room._seats]
        waiting.append(seat)
        room._away(seat)

    # -- what clients ask ----------------------------------------------------------------------------------------------

    async def _join_or_create(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        kind, options = self._asked(body)
        listing = self.directory.take(kind.name, _match(kind, options), kind.sort)
        if listing is not None:
            return await self._enter(session, listing.number, options)
        return await self._create_and_enter(session, kind, options)

    async def _create(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        kind, options = self._asked(body)
        return await self._create_and_enter(session, kind, options)

    async def _join(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        kind, options = self._asked(body)
        listing = self.directory.take(kind.name, _match(kind, options), kind.sort)
        if listing is None:
            raise Refuse("no-room", f"no room of {kind.name!r} is open")
        return await self._enter(session, listing.number, options)

    async def _join_by_id(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        room, options = self._room_of(body), body.get("options") or {}
        if room is None or not isinstance(options, dict):
            raise Refuse("no-room", "there is no such room")
        seat = room._seat_of(session)
        if seat is not None:
            return _answer(room, seat)
        if session.uid is not None and session.uid in room._reserved:
            room._reserved.pop(session.uid).cancel()
        elif self.directory.take_in(room.number) is None:
            raise Refuse("room-locked" if room.is_locked else "room-full", "nobody can join this room now")
        return await self._enter(session, room.number, options)

    def _rejoin(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        room = self._room_of(body)
        seat = room._seat_of(session) if room is not None else None
        if room is None or seat is None:
            raise Refuse("no-seat", "you have no seat in this room any more")
        return _answer(room, seat)

    async def _list(self, session: Session, body: dict[str, Any]) -> list[dict[str, Any]]:
        name, fields = body.get("name"), body.get("filter") or {}
        if not (name is None or isinstance(name, str)) or not isinstance(fields, dict):
            raise Refuse("GS-400", 'give {"name": "arena", "filter": {"map": "ice"}}, or less')
        return [_describe(listing) for listing in self.directory.find(name, fields, LIST_MAX)]

    def _leave(self, session: Session, body: dict[str, Any]) -> None:
        room = self._room_of(body)
        seat = room._seat_of(session) if room is not None else None
        if room is None or seat is None:
            raise Refuse("no-seat", "you are not in this room")
        room._leave(seat, Left.LEFT)

    def _queue(self, session: Session, body: dict[str, Any]) -> None:
        self._ranked_of(body).enter(session)

    def _unqueue(self, session: Session, body: dict[str, Any]) -> bool:
        return self._ranked_of(body).cancel(session)

    def _ranked_of(self, body: dict[str, Any]) -> Ranked:
        name = body.get("name")
        ranked = self.ranked.get(name) if isinstance(name, str) else None
        if ranked is None:
            raise Refuse("no-queue", f"there is no queue of the name {str(name)[:40]!r}")
        return ranked

    def _room_of(self, body: dict[str, Any]) -> Room[Any] | None:
        number = body.get("room")
        return self._open.get(number) if isinstance(number, int) else None

    def _asked(self, body: dict[str, Any]) -> tuple[RoomType, dict[str, Any]]:
        name, options = body.get("name"), body.get("options") or {}
        kind = self.types.get(name) if isinstance(name, str) else None
        if kind is None:
            raise Refuse("no-room", f"there are no rooms of the name {str(name)[:40]!r}")
        if not isinstance(options, dict):
            raise Refuse("GS-400", "options are an object")
        return kind, options

    async def _create_and_enter(self, session: Session, kind: RoomType, options: dict[str, Any]) -> dict[str, Any]:
        if not kind.clients_create:
            raise Refuse("no-room", f"no room of {kind.name!r} is open")
        self._check_seats(session)
        room = self.open(kind, options)
        room._listing.taken = 1
        room._publish()
        try:
            async with asyncio.timeout(JOIN_TIMEOUT):
                await self.create(kind, room)
        except TimeoutError:
            raise Refuse("GS-500", "the room was not made in time") from None
        return await self._enter(session, room.number, options)

    def _check_seats(self, session: Session) -> None:
        if len(self._by_session.get(session, ())) >= ROOMS_PER_SESSION_MAX:
            raise Refuse("GS-429", f"you are in {ROOMS_PER_SESSION_MAX} rooms; leave one first")

    async def _enter(
        self, session: Session, number: int, options: dict[str, Any], team: int | None = None
    ) -> dict[str, Any]:
        """Sits down on a place that was taken; gives it back if that fails."""
        room = self._open[number]
        seat: Member | None = None
        try:
            self._check_seats(session)
            async with asyncio.timeout(JOIN_TIMEOUT):
                if room._created is not None:
                    await asyncio.shield(room._created)
                if await _finish(room.on_auth(session, options)) is False:
                    raise Refuse("refused", "you may not join this room")
                room._check_open("join")
                seat = room._sit(session, team)
                await _finish(room.on_join(seat))
        except BaseException as error:
            if seat is not None:
                room._leave(seat, Left.KICKED)
            elif not room.is_disposed:
                self.directory.give_back(number)
                room._start_idle()
            if isinstance(error, (TimeoutError, GameServerError)) and not isinstance(error, Refuse):
                raise Refuse("no-room", "the room has ended, or took too long") from error
            if isinstance(error, Exception) and not isinstance(error, Refuse):
                room._failed(f"{type(room).__qualname__}.on_join", error)
                raise Refuse("GS-500", "the room failed; the server's log says more") from error
            raise
        assert seat is not None
        return _answer(room, seat)


def _handlers_of(
    cls: type[Room[Any]], seat: type[Member], where: str, waits: Sequence[type]
) -> tuple[list[Handler], dict[str, Handler]]:
    handlers: list[Handler] = []
    timed: dict[str, Handler] = {}
    for name in dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base)):
        function = inspect.getattr_static(cls, name)
        for mark in getattr(function, "_gameserver_marks", ()):
            handler = make_handler(
                mark.kind,
                function,
                route=mark.route,
                concurrent=mark.concurrent,
                interval=mark.interval,
                rate=mark.rate,
                burst=mark.burst,
                over=mark.over,
                method_of=cls,
                names={**mark.names, cls.__name__: cls},
            )
            if handler.kind is Kind.EVERY:
                timed[name] = handler
            else:
                handlers.append(handler)
    if tick := getattr(cls, "on_tick", None):
        handlers.append(make_handler(Kind.TICK, tick, method_of=cls, names={}))
    handlers += [_waiting(message, where) for message in waits]
    routes: dict[str, Handler] = {}
    for handler in handlers:
        wanted = handler.session_class
        if wanted is not None and not issubclass(seat, wanted):
            raise ConfigError(
                f"{handler.where}: takes a {wanted.__qualname__}, but the room's members are {seat.__qualname__}; "
                f"write Room[{wanted.__qualname__}]"
            )
        if handler.kind is Kind.ROUTE and (other := routes.setdefault(handler.route, handler)) is not handler:
            raise ConfigError(f"{handler.where}: route {handler.route!r} is handled already at {other.where}")
    return handlers, timed


def _waiting(message: type, where: str) -> Handler:
    def arrived(self: Any, seat: Member, msg: Any) -> None:
        self._arrived(seat, msg)

    arrived.__annotations__["msg"] = message
    return make_handler(Kind.ROUTE, arrived, method_of=Room, names={"Member": Member})


def _options_of(cls: type[Room[Any]]) -> type | None:
    hints: dict[str, Any] = inspect.get_annotations(cls.on_create)
    for name, annotation in hints.items():
        if isinstance(annotation, str):
            annotation = getattr(sys.modules.get(cls.__module__), annotation, None)
        if name != "return" and isinstance(annotation, type) and is_message(annotation):
            return annotation
    return None


def _read_options(kind: RoomType, options: Any) -> Any:
    if kind.options is None:
        return options
    try:
        return kind.options.from_json(json.dumps(options))  # type: ignore[attr-defined]
    except GameServerError as error:
        raise Refuse("GS-400", f"options: {error}") from error


def _match(kind: RoomType, options: dict[str, Any]) -> tuple[Any, ...]:
    values = tuple(options.get(field) for field in kind.match)
    if any(isinstance(value, (dict, list)) for value in values):
        raise Refuse("GS-400", f"options: {', '.join(kind.match)} are matched by: give numbers or strings")
    return values


async def _finish(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _answer(room: Room[Any], seat: Member) -> dict[str, Any]:
    return {"room": room.number, "name": room.name, "seat": seat.number}


def _describe(listing: Listing) -> dict[str, Any]:
    return {
        "room": listing.number,
        "name": listing.name,
        "members": listing.taken,
        "max_members": listing.max_members,
        "metadata": listing.metadata,
    }
