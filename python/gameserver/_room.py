"""A room: members, handlers, ticks and timers of their own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast, overload

from gameserver._answer import route_of
from gameserver._core import CoreRooms, Session
from gameserver._delivery import Delivery
from gameserver._directory import Listing
from gameserver._entity import Entity
from gameserver._member import Member
from gameserver._room_group import RoomGroup
from gameserver._room_timer import RoomTimer
from gameserver._synced import find_synced
from gameserver._timer import Timer, call_name, check_delay
from gameserver._types import Left, Pushable
from gameserver.errors import ConfigError, GameServerError, Refuse

if TYPE_CHECKING:
    from gameserver._app import App
    from gameserver._rooms import RoomType
    from gameserver._world import World

M = TypeVar("M", bound=Member)
T = TypeVar("T")


class RoomClock:
    """A room's time: seconds since it was made, the same for everything in a turn; it goes on when the room is carried."""

    __slots__ = ("_app", "_start")

    def __init__(self, app: App, start: float) -> None:
        self._app = app
        self._start = start

    def now(self) -> float:
        """Seconds since the room was made."""
        return self._app.clock.now() - self._start


class Room(Generic[M]):
    """The base of your rooms, registered by `App.room`; the words mean what they mean on `App`.

    Override what you need, sync or async: ``on_create(options)``, ``on_auth(session, options)``, ``on_join(seat)``,
    ``on_drop(seat)``, ``on_resume(seat)``, ``on_leave(seat, why)``, ``on_dispose()``; and ``on_tick(dt)``, sync.

    >>> from gameserver import App, Member, Room, on
    >>> app = App("doc")
    >>> class Seat(Member): ...
    >>> @app.room("chat", max_members=50)
    ... class Chat(Room[Seat]):
    ...     @on("say")
    ...     def say(self, seat: Seat, body: bytes) -> None:
    ...         self.push("said", body, skip=seat)

    Fields with `sync` are seen by all members whose clients show worlds, ``turn: u32 = sync(0)``; `entities=` of `App.room` says
    what else lives in the room's `world`.
    """

    _type: ClassVar[RoomType]
    _app: App

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        find_synced(cls, sys._getframe(1))

    def _open(
        self,
        app: App,
        options: Mapping[str, Any],
        match: tuple[Any, ...],
        first_tick: float | None,
        world: World | None,
    ) -> None:
        """Gives it its number; what was set before `on_create` is set here. `world`: of a room that was carried."""
        kind = self._type
        self._app = app
        self._world = world or (kind.world._like() if kind.world is not None else None)
        core = self._world._core if self._world is not None else None
        self._number = self._core_rooms().open(
            self, kind.index, kind.tick_rate if kind.has_tick else 0, core, first_tick
        )
        self._row = self.world.spawn(kind.room_row) if kind.room_row is not None and world is None else None
        self._last: dict[str, Any] = {}
        self.random = random.Random(app.random.getrandbits(128))
        self.clock = RoomClock(app, app.clock.now())
        self.options = options
        self.errors = 0
        self._seats: dict[int, M] = {}
        self._groups: dict[str, RoomGroup[M]] = {}
        self._last_seat = 0
        self._listing = Listing(self._number, kind.name, match, kind.max_members)
        self._timers: dict[RoomTimer, None] = {}
        self._every: dict[str, tuple[float, Timer]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waits: list[tuple[type, M | None, asyncio.Future[tuple[M, Any]]]] = []
        self._reserved: dict[str, Timer] = {}
        self._created: asyncio.Future[None] | None = None
        self._idle: Timer | None = None
        self._is_disposed = False

    # -- what can be seen ----------------------------------------------------------------------------------------------

    @property
    def number(self) -> int:
        """What clients write behind a route: ``Say@17``. Never used again in this process."""
        return self._number

    @property
    def name(self) -> str:
        """The name of its class, as clients ask for it."""
        return self._type.name

    @property
    def world(self) -> World:
        """What is replicated to this room's members, and to nobody else; the words are those of `App.world`.

        In a room without ticks, what is written is sent at the end of the turn; an array that was kept from before is not
        watched: ask for its columns again.

        Raises:
            ConfigError: it has none: neither `sync` fields nor `entities=`.
        """
        if self._world is None:
            raise ConfigError(
                f"rooms of {self.name!r} have no world: say what lives there, @app.room({self.name!r}, entities=(Player,))"
            )
        return self._world

    @property
    def members(self) -> Sequence[M]:
        """Who has a seat, away or not, in the order in which they came."""
        return tuple(self._seats.values())

    def group(self, name: str) -> RoomGroup[M]:
        """Members that are addressed together, made when it is first asked for."""
        found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = RoomGroup(self, name)
        return found

    @property
    def groups(self) -> Sequence[RoomGroup[M]]:
        """All groups, in the order in which they were made."""
        return tuple(self._groups.values())

    @property
    def is_disposed(self) -> bool:
        """Whether it has ended."""
        return self._is_disposed

    @property
    def private(self) -> bool:
        """True: matchmaking leaves it out, and it is in no list; `join_by_id` works."""
        return self._listing.private

    @private.setter
    def private(self, value: bool) -> None:
        self._listing.private = bool(value)
        self._publish()

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What lists of rooms show of it, and filters and sorting see: JSON. Set it as a whole."""
        return self._listing.metadata

    @metadata.setter
    def metadata(self, value: Mapping[str, Any]) -> None:
        self._listing.metadata = dict(value)
        self._publish()

    @property
    def is_locked(self) -> bool:
        """Whether nobody may join any more."""
        return self._listing.locked

    def lock(self) -> None:
        """Nobody joins from now on; those who have a seat may come back."""
        self._listing.locked = True
        self._publish()

    def unlock(self) -> None:
        """Takes `lock` back."""
        self._listing.locked = False
        self._publish()

    # -- sending -------------------------------------------------------------------------------------------------------

    @overload
    def push(self, message: Pushable, /, *, skip: M | None = None, delivery: Delivery | None = None) -> int: ...
    @overload
    def push(self, route: str, body: Any = None, *, skip: M | None = None, delivery: Delivery | None = None) -> int: ...
    def push(self, route: Any, body: Any = None, *, skip: M | None = None, delivery: Delivery | None = None) -> int:
        """Pushes a message, or a body to a route, to each member but `skip`; see `App.push`. Clients see ``Moved@17``.

        Returns:
            To how many.
        """
        session = skip.session if skip is not None else None
        return self._core_rooms().push(self._number, route, body, session, None, delivery)

    # -- time and tasks ------------------------------------------------------------------------------------------------

    def after(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """Calls `function(*arguments)` once, in `seconds`, unless the room has ended by then; see `App.after`."""
        if not callable(function):
            raise TypeError(
                f"room.after(seconds, function, ...): {function!r} is not a function; write its name without ()"
            )
        self._check_open("after")
        timer = RoomTimer(self, check_delay(seconds), function, arguments)
        timer.restart()
        return timer

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine beside the handlers; its error is logged and counted, and it is cancelled when the room ends."""
        if self._is_disposed:
            coroutine.close()
            self._check_open("task")
        task = self._app.task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def wait_for(self, message: type[T], seat: M | None = None, *, timeout: float | None = None) -> T:  # noqa: ASYNC109 (it is ours, and said in seconds)
        """Waits for the next message of a class that `App.room` was told of by ``waits=``, from `seat` or from anybody.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            TypeError: the class is not among `waits`.
            GameServerError: the room has ended, or the seat is given up.
        """
        if message not in self._type.waits:
            raise TypeError(f"room.wait_for({message!r}): name it in @app.room(..., waits=({message.__name__},))")
        self._check_open("wait_for")
        future: asyncio.Future[tuple[M, Any]] = asyncio.get_running_loop().create_future()
        entry = (message, seat, future)
        self._waits.append(entry)
        try:
            async with asyncio.timeout(timeout):
                _, found = await future
        finally:
            self._waits = [other for other in self._waits if other is not entry]
        return cast(T, found)

    # -- the end -------------------------------------------------------------------------------------------------------

    def reserve(self, uid: str, seconds: float) -> bool:
        """Keeps a place for a person, who joins by `join_by_id` within `seconds`; False if there is none."""
        delay = check_delay(seconds)
        if uid in self._reserved:
            self._reserved[uid].restart(delay)
            return True
        if self._app._rooms.directory.take_in(self._number) is None:
            return False
        self._reserved[uid] = self.after(delay, self._reservation_over, uid)
        return True

    def dispose(self) -> None:
        """Ends the room: members leave with `Left.DISPOSED`, timers and tasks are cancelled, then `on_dispose` runs."""
        self._end(Left.DISPOSED)

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} {self._number} {len(self._seats)}/{self._listing.max_members}>"

    # -- members -------------------------------------------------------------------------------------------------------

    def _seat_of(self, session: Session) -> M | None:
        return next((seat for seat in self._seats.values() if seat._session is session), None)

    def _sit(self, session: Session, team: int | None) -> M:
        """Makes a seat on a place that was taken in the directory."""
        seat = cast(M, self._type.seat.__new__(self._type.seat))
        self._last_seat += 1
        seat._take_place(self, session, session.uid, self._last_seat, team)
        if not self._core_rooms().enter(self._number, session, seat):
            raise Refuse("GS-409", "you are in this room already, or one of you is gone")
        try:
            if self._type.seat_row is not None:
                row = self.world._core.spawn(
                    self._type.seat_row, {"number": seat._number, "owner": session, "keep": True}
                )
                seat._row = cast(Entity, row)
            seat.__init__()  # type: ignore[misc]
        except BaseException:
            self._give_up_row(seat)
            self._core_rooms().exit(self._number, session)
            raise
        self._seats[seat._number] = seat
        self._app._rooms.seated(session, self)
        self._stop_idle()
        return seat

    def _return(self, seat: M, session: Session) -> None:
        """A person whose session had ended is back with another one."""
        if seat._grace is not None:
            seat._grace.cancel()
            seat._grace = None
        seat._session, seat._is_dropped = session, False
        self._core_rooms().enter(self._number, session, seat)
        for group in self._groups.values():
            if seat in group:
                group._enter(session)
        for entity in (seat._row, *seat._owned):
            if entity is not None and entity in self.world:
                entity.owner = session
        seat._owned = []
        self._app._rooms.seated(session, self)
        self._spawn(self.on_resume, seat)

    def _away(self, seat: M) -> None:
        """The session has ended; the seat is kept for a while."""
        session, seat._session = seat._session, None
        if session is not None:
            if self._world is not None:
                seat._owned = cast("list[Entity]", self._world._core.release(session))
            self._core_rooms().exit(self._number, session)
        if not seat._is_dropped:
            seat._is_dropped = True
            self._spawn(self.on_drop, seat)
        if seat._number in self._seats:
            seat._grace = self.after(self._type.grace, self._leave, seat, Left.LOST)

    def _leave(self, seat: M, why: Left) -> None:
        """The one way in which a seat is given up."""
        if self._seats.pop(seat._number, None) is None:
            return
        if seat._grace is not None:
            seat._grace.cancel()
            seat._grace = None
        session = seat._session
        for group in self._groups.values():
            group.remove(seat)
        if session is not None:
            self._core_rooms().exit(self._number, session)
            self._app._rooms.unseated(session, self)
            with contextlib.suppress(GameServerError):  # the session may be over
                session.push("$left", {"room": self._number, "why": str(why)})
        for _, waits_for, future in self._waits:
            if waits_for is seat and not future.done():
                future.set_exception(GameServerError(f"{seat!r} has left"))
        for entity in seat._owned:
            if entity in self.world and not entity.keep:
                entity.despawn()
        seat._owned = []
        self._spawn(self.on_leave, seat, why)
        self._give_up_row(seat)
        seat._session = None
        if not self._is_disposed:
            self._app._rooms.directory.give_back(self._number)
            self._start_idle()

    def _give_up_row(self, owner: Any) -> None:
        """What a member or this room has to show is over; its last values can be read."""
        row, owner._row = owner._row, None
        if row is not None:
            owner._last = {name: getattr(row, name) for name in row.__columns__}
            row.despawn()

    def _reservation_over(self, uid: str) -> None:
        if self._reserved.pop(uid, None) is not None:
            self._app._rooms.directory.give_back(self._number)
            self._start_idle()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _core_rooms(self) -> CoreRooms:
        return self._app._rooms.core()

    def _check_open(self, what: str) -> None:
        if self._is_disposed:
            raise GameServerError(f"room.{what}: room {self._number} has ended")

    def _publish(self) -> None:
        if not self._is_disposed:
            self._app._rooms.directory.publish(self._listing)

    def _start_idle(self) -> None:
        wait = self._type.dispose_after
        if wait is not None and not self._listing.taken and self._idle is None and not self._is_disposed:
            self._idle = self.after(wait, self._idle_over)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _idle_over(self) -> None:
        self._idle = None
        if not self._listing.taken:
            self.dispose()

    def _end(self, why: Left) -> None:
        if self._is_disposed:
            return
        self._is_disposed = True
        self._app._rooms.closed(self)
        for seat in self.members:
            self._leave(seat, why)
        for timer in list(self._timers):
            timer.cancel()
        self._every.clear()
        for _, _, future in self._waits:
            if not future.done():
                future.set_exception(GameServerError(f"room {self._number} has ended"))
                future.exception()  # who awaits it may be cancelled first
        current = None
        with contextlib.suppress(RuntimeError):
            current = asyncio.current_task()
        for task in [task for task in self._tasks if task is not current]:
            task.cancel()
        self._give_up_row(self)
        self._core_rooms().close(self._number)
        self._spawn(self.on_dispose)
        self._app._services.close_room(self)

    def _spawn(self, hook: Callable[..., Any], *arguments: Any) -> None:
        """Calls a hook of the game; contains what it raises."""
        try:
            result = hook(*arguments)
            if inspect.iscoroutine(result):
                task = self._app.task(result)
                task.add_done_callback(self._task_done)
        except Exception as error:
            self._failed(call_name(hook), error)

    def _fire(self, timer: RoomTimer) -> None:
        self._timers.pop(timer, None)
        try:
            result = timer.function(*timer.arguments)
            if inspect.iscoroutine(result):
                self.task(result)
        except Exception as error:
            self._failed(timer._name, error)

    def _start_every(self, name: str, due_in: float | None = None) -> None:
        interval = self._type.every[name].interval
        due = self._app.clock.now() + (interval if due_in is None else due_in)
        self._next_every(name, due)

    def _next_every(self, name: str, due: float) -> None:
        timer = self.after(max(0.0, due - self._app.clock.now()), self._fire_every, name, due)
        self._every[name] = (due, timer)

    def _fire_every(self, name: str, due: float) -> None:
        handler = self._app._services.bound_one(self._type.every[name])
        # Deadlines are absolute; those that a stall has passed are skipped, not made up for.
        missed = max(0, int((self._app.clock.now() - due) / handler.interval))
        self._next_every(name, due + (missed + 1) * handler.interval)
        self._spawn(functools.partial(handler.call, self))

    def _arrived(self, seat: M, message: Any) -> None:
        """A message of a class that is waited for."""
        for wanted, whom, future in self._waits:
            if wanted is type(message) and whom in (None, seat) and not future.done():
                future.set_result((seat, message))
                return
        raise Refuse("GS-409", f"nobody waits for {route_of(type(message))} now")

    def _failed(self, where: str, error: BaseException) -> None:
        """An exception of the room's code: logged once per distinct traceback, counted, and nobody else's."""
        self.errors += 1
        self._app._rooms.errors += 1
        self._app._failed(where, error)
        if self._type.dispose_on_error and not self._is_disposed:
            self._end(Left.DISPOSED)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:  # logged by the app
            self.errors += 1
            self._app._rooms.errors += 1

    # -- for the game to override --------------------------------------------------------------------------------------

    def on_create(self, options: Any) -> Any:
        """The room was made; `options` are those of who asked for it: a dict, or what the annotation says (a Message)."""

    def on_auth(self, session: Session, options: dict[str, Any]) -> Any:
        """May this person join? `Refuse` or False: no."""

    def on_join(self, seat: M) -> Any:
        """Somebody has a seat now."""

    def on_drop(self, seat: M) -> Any:
        """A member is cut off, and may come back."""

    def on_resume(self, seat: M) -> Any:
        """A member is back."""

    def on_leave(self, seat: M, why: Left) -> Any:
        """A member has left for good: exactly once for each that `on_join` was called for."""

    def on_save(self) -> Any:
        """The room is carried: what of its Python state is to be there again, in plain values; see `App.save_room`."""

    def on_load(self, state: Any) -> None:
        """It was carried: what `on_save` has returned. Neither `__init__` nor `on_create` runs, of members neither."""

    def on_drain(self, seconds: float) -> Any:
        """The server is about to stop, in `seconds` at the latest: the room is locked; bring it to an end, and `dispose` it."""

    def on_dispose(self) -> Any:
        """The room has ended."""
