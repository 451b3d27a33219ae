"""The application: what is registered, and running it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import json
import logging
import os
import random
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from gameserver import _banner, _carried, _logging, _recording, _schema, _settings
from gameserver._answer import is_message, route_of
from gameserver._core import Core, Session
from gameserver._dead_letters import DeadLetters
from gameserver._delivery import Delivery
from gameserver._drain import Drain
from gameserver._ending import Ending
from gameserver._entity import Entity
from gameserver._events import Event, Events
from gameserver._group import Group, User
from gameserver._handlers import Registry, Router, check_sessions, limits_of
from gameserver._http import HttpHost
from gameserver._limit import per_second
from gameserver._loop import CoreSelector, GameLoop
from gameserver._middleware import with_middleware
from gameserver._ranked import Ranked
from gameserver._room import Room
from gameserver._rooms import Rooms
from gameserver._services import Services
from gameserver._signature import Handler, Kind, here, make_handler, suggest
from gameserver._stores import HasStores, Stores
from gameserver._timer import Timer, call_name, check_delay
from gameserver._types import Pushable
from gameserver._work import Work, blocking, cpu
from gameserver._world import World, classes_of
from gameserver.errors import ConfigError, GameServerError, SessionClosed
from gameserver.matchmaking import RankedQueue

if TYPE_CHECKING:
    from dishka import Provider

RoomT = TypeVar("RoomT", bound=Room[Any])
R = TypeVar("R", bound=type[Room[Any]])
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

log = logging.getLogger("gameserver")

_running: weakref.WeakSet[App] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: its copies of running servers must not be touched."""
    for app in _running:
        if app._core is not None:
            app._core.forked()


os.register_at_fork(after_in_child=_after_fork)


class Clock:
    """The time of the turn that runs now: the same for everything in it, and recorded, so that a run can be replayed.

    >>> from gameserver import App
    >>> App("doc").clock.now() >= 0
    True
    """

    __slots__ = ("_app",)

    def __init__(self, app: App) -> None:
        self._app = app

    def now(self) -> float:
        """Seconds on a monotonic clock; 0 before the server runs."""
        core = self._app._core
        return core.now() if core is not None else 0.0


class App(HasStores, Registry):
    """A game server: handlers, and the room that everybody is in.

    Args:
        name: how logs and the banner call it.
        session: your own subclass of `Session`; an object of it is made, without arguments, for every session.
        static: a folder whose files are served over HTTP on the game's port; relative to the game's own folder.
        http: an ASGI app that gets every HTTP request which is no WebSocket upgrade (but `/healthz` and `/gameserver.js`).
        seed: of `app.random`; None: from the system.
        world: what is replicated to clients; None: a `World` with its defaults.
        settings: any setting by its name, see docs/settings.md: ``App("arena", tick_rate=30, port=7777)``.

    Raises:
        ConfigError: an unknown setting, or a session class that is none.

    >>> from gameserver import App, Session
    >>> app = App("arena", tick_rate=30)
    >>> @app.on("echo")
    ... def echo(session: Session, body: bytes) -> bytes:
    ...     return body
    """

    def __init__(
        self,
        name: str = "game",
        *,
        session: type[Session] = Session,
        static: str | os.PathLike[str] | None = None,
        http: Any = None,
        seed: int | None = None,
        world: World | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if world is not None and not isinstance(world, World):
            raise ConfigError(f"{here(1)}App(world={world!r}): give a World: App(world=World(cell=100))")
        if not (isinstance(session, type) and issubclass(session, Session)):
            raise ConfigError(f"{here(1)}App(session={session!r}): give a subclass of gameserver.Session")
        try:
            inspect.signature(session).bind()
        except TypeError as error:
            raise ConfigError(
                f"{here(1)}App(session={session.__qualname__}): one is made without arguments for each session ({error}); "
                "give the parameters of its __init__ defaults"
            ) from None
        known = [*_settings.Settings.__dataclass_fields__]
        for key in settings:
            if key not in known:
                raise ConfigError(f"{here(1)}App({key}=...): no such setting{suggest(key, known)}")
        self.name = name
        self.random = random.Random(seed if seed is not None else int.from_bytes(os.urandom(16)))
        self.clock = Clock(self)
        self.world = world if world is not None else World()
        self._session_class = session
        self._static = static
        self._http = http
        self._folder: Path | None = None  # of the game; the command line knows it
        self._code_settings: dict[str, Any] = settings
        self._rooms = Rooms(self)
        self._services = Services(self)
        self._stores = Stores(self)
        self._core: Core | None = None
        self._loop: GameLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._empty: asyncio.Event | None = None
        self._timers: dict[int, Timer] = {}
        self._functions: dict[str, Callable[..., Any]] = {}  # by qualified name, once they were swapped
        self._every: dict[str, tuple[float, Timer]] = {}  # by qualified name: the interval, and the timer that waits
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session_tasks: dict[int, set[asyncio.Task[Any]]] = {}
        self._running_handlers: list[Handler] = []  # with their services
        self._events = Events(self)
        self._work: Sequence[Work] = ()  # off the loop: that blocks, that computes
        self._tick_rate = 0
        self._pushed: list[type] = []  # messages that the game has named
        self._messages = _schema.Messages((), ())
        self._errors = _logging.ErrorLog(logging.getLogger("gameserver.handlers"))
        self._addresses: list[str] = []
        self._last_stats: dict[str, Any] = {}
        self._signals = 0
        self._stop_was_asked = False
        self._drain_with: Drain | None = None
        self._draining: asyncio.Task[None] | None = None
        self._failure: str | None = None  # of the core, by which the server ended

    # -- what is registered ------------------------------------------------------------------------------------------

    @property
    def handlers(self) -> Sequence[Handler]:
        """Everything registered, in order."""
        return tuple(self._handlers)

    def authenticate(self, function: F) -> F:
        """Says who a client is, from the `user` object of its handshake; what it returns becomes the session's uid.

        Takes `dict` (the user object; empty if there is none) and, if wanted, the `Session`. Returns the uid, or None
        for a guest. Raises `Refuse(code, text)` to refuse. Sync or async, within `auth_timeout`. The server binds the uid:
        an older session of the same uid is kicked and leaves with `Left.REPLACED`.

        >>> from gameserver import App, Refuse
        >>> app = App("doc")
        >>> @app.authenticate
        ... async def who(user: dict) -> str | None:
        ...     if user.get("token") != "letmein":
        ...         raise Refuse("bad-token", "log in again")
        ...     return user["name"]
        """
        return self._plain(Kind.AUTHENTICATE, function)

    def include(self, router: Router) -> None:
        """Takes over all handlers of a router.

        Raises:
            ConfigError: a route is handled already.
        """
        if not isinstance(router, Router):
            raise ConfigError(f"{here(1)}app.include({router!r}): give a Router")
        for handler in router._handlers:
            around = (*router._middleware, *handler.middleware) if handler.kind is Kind.ROUTE else ()
            self._add(replace(handler, middleware=around))
        self._subscriptions += router._subscriptions
        router._is_included = True

    def provide(self, *providers: Provider) -> None:
        """Takes dishka's providers: services that handlers and rooms name in their signatures come from them; see docs/services.md.

        Raises:
            ConfigError: one is no provider, or dishka is not installed. When the server starts: a service that a handler names has
                no provider, or can't be had there; says handler and parameter.

        >>> from dishka import Provider, provide
        >>> from gameserver import App
        >>> from gameserver.services import Scope
        >>> class Clockwork: ...
        >>> app = App("doc")
        >>> services = Provider(scope=Scope.APP)
        >>> made = services.provide(Clockwork)
        >>> app.provide(services)
        >>> @app.on("wind")
        ... def wind(clockwork: Clockwork) -> None: ...
        """
        self._services.provide(here(1), providers)

    def override(self, *providers: Provider) -> contextlib.AbstractContextManager[None]:
        """In a test: these providers' services in place of those that the game has, in servers that start within the block.

        Raises:
            ConfigError: the server runs already.

        >>> from dishka import Provider
        >>> from gameserver import App
        >>> app = App("doc")
        >>> fakes = Provider()
        >>> with app.override(fakes):
        ...     pass  # with gameserver.testing.running(app) as server: ...
        """
        return self._services.override(here(1), providers)

    def room(
        self,
        name: str,
        *,
        max_members: int = 100,
        max_rooms: int = 10_000,
        tick_rate: int = 0,
        grace: float = 0.0,
        dispose_after: float | None = 0.0,
        match: Sequence[str] = (),
        sort: str | None = None,
        waits: Sequence[type] = (),
        dispose_on_error: bool = False,
        clients_create: bool = True,
        entities: Sequence[type[Entity]] = (),
        cell: float = 100,
        view: float = 300,
    ) -> Callable[[R], R]:
        """Registers a class of rooms; see docs/rooms.md.

        Args:
            name: as clients ask for it.
            max_members: seats in one room.
            max_rooms: rooms of this class at a time.
            tick_rate: of its `on_tick`, in Hz; 0: none.
            grace: seconds for which the seat of somebody with a uid is kept when their session is lost or replaced.
            dispose_after: seconds without members after which a room ends; None: it stays.
            match: fields of the options: people meet only in a room that was made with the same values.
            sort: which of several open rooms is filled first: ``"members"`` or a name of its metadata, the least first, or
                with a minus, ``"-members"``, the most; None: the oldest.
            waits: messages that `Room.wait_for` takes.
            dispose_on_error: an exception in a room's code ends the room.
            clients_create: clients may have rooms made.
            entities: classes that live in the rooms' worlds; those that handlers take need not be named.
            cell, view: as of `World`.

        Raises:
            ConfigError: the class is no `Room`, the name is taken, or a handler's signature is wrong.
        """
        where = here(1)
        if self._core is not None:
            raise ConfigError(f"{where}@app.room({name!r}): the server runs already; register rooms before app.run()")

        def register(cls: R) -> R:
            self._rooms.add(
                cls,
                name,
                where,
                max_members=max_members,
                max_rooms=max_rooms,
                tick_rate=tick_rate,
                grace=grace,
                dispose_after=dispose_after,
                match=match,
                sort=sort,
                waits=waits,
                dispose_on_error=dispose_on_error,
                clients_create=clients_create,
                entities=entities,
                cell=cell,
                view=view,
            )
            return cls

        return register

    def ranked(
        self,
        name: str,
        cls: type[Room[Any]],
        *,
        rating: Callable[[Session], float],
        teams: int = 2,
        team_size: int = 1,
        window: float = 100.0,
        widen: float = 10.0,
        window_max: float = 1000.0,
    ) -> Ranked:
        """A queue for ranked matches, which are rooms of a registered class; see `RankedQueue` and docs/rooms.md.

        Args:
            name: as clients ask for it, by a request to `$queue`.
            rating: how strong somebody is.
            teams, team_size, window, widen, window_max: as of `RankedQueue`.

        Raises:
            ConfigError: the class is not registered or its rooms are too small, the name is taken, or an argument is wrong.
        """
        where = here(1)
        kind = next((kind for kind in self._rooms.types.values() if kind.cls is cls), None)
        if kind is None:
            raise ConfigError(f"{where}app.ranked({name!r}): register {cls!r} before, by @app.room")
        if name in self._rooms.ranked:
            raise ConfigError(f"{where}app.ranked({name!r}): there is a queue of this name")
        if kind.max_members < teams * team_size:
            raise ConfigError(
                f"{where}app.ranked({name!r}): {teams} teams of {team_size} do not fit into max_members={kind.max_members}"
            )
        queue = RankedQueue(teams, team_size, window, widen, window_max)
        made = self._rooms.ranked[name] = Ranked(self, name, kind, rating, queue)
        return made

    @property
    def rooms(self) -> Sequence[Room[Any]]:
        """The rooms that are open, oldest first."""
        return self._rooms.rooms()

    async def create_room(self, cls: type[RoomT], options: dict[str, Any] | None = None) -> RoomT:
        """Makes a room of a registered class; it waits for members, and is disposed of when the last one leaves.

        Raises:
            Refuse: there are `max_rooms`, or the room's `on_create` refused.
        """
        kind = cls._type
        room = self._rooms.open(kind, options or {})
        room._publish()
        await self._rooms.create(kind, room)
        return cast(RoomT, room)

    def save_room(self, room: Room[Any]) -> bytes:
        """A room between two ticks as bytes: members, groups, timers, random, clock, world, and what its `on_save` returns.

        The room goes on; `dispose` it if it is to be somewhere else from now on.

        Raises:
            GameServerError: a coroutine of it runs, a timer is no method of it, or something is of no plain value; says which.
        """
        return _carried.save(room)

    def load_room(self, data: bytes) -> Room[Any]:
        """A room as `save_room` has left it, with a new number: its next tick is the one that would have come.

        Its members are away, as if their sessions had been lost: for `grace` seconds their seats are kept. The bytes are as
        trusted as the game's own code: take none from strangers.

        Raises:
            GameServerError: they are no room of this app's classes. SchemaError: its entities have other columns.
            Refuse: there are `max_rooms` of its class.
        """
        return _carried.load(self, data)

    def messages(self, *classes: type) -> None:
        """Names messages that are pushed, so that clients are told of them when they connect.

        Those of handlers, what they take and what they answer, are known already. A class that is pushed first and named
        nowhere is learned then, and a warning is logged: clients that are connected cannot read it.

        Raises:
            ConfigError: one is no message.

        >>> from gameserver import App, Message, u32
        >>> app = App("doc")
        >>> class Joined(Message):
        ...     who: u32
        >>> app.messages(Joined)
        """
        for cls in classes:
            if not is_message(cls):
                raise ConfigError(f"{here(1)}app.messages({cls!r}): give subclasses of Message")
        self._pushed += [cls for cls in classes if cls not in self._pushed]

    def _add(self, handler: Handler) -> None:
        if self._core is not None:
            raise ConfigError(f"{handler.where}: the server runs already; register handlers before app.run()")
        super()._add(handler)

    def _describe_handlers(self) -> Sequence[Handler]:
        return self.handlers

    def _schema_document(self) -> dict[str, Any]:
        self._rooms.make_worlds()
        self.world._core.add(classes_of(self._handlers, self.world))
        found = _schema.Messages([*self._rooms.all_handlers(), *self._handlers], self._pushed).document(
            *self._world_documents()
        )
        document: dict[str, Any] = json.loads(found[1]) if found else {}
        return document

    # -- sending -----------------------------------------------------------------------------------------------------

    @overload
    def push(self, message: Pushable, /, *, skip: Session | None = None, delivery: Delivery | None = None) -> int: ...
    @overload
    def push(
        self, route: str, body: Any = None, *, skip: Session | None = None, delivery: Delivery | None = None
    ) -> int: ...
    def push(
        self, route: Any, body: Any = None, *, skip: Session | None = None, delivery: Delivery | None = None
    ) -> int:
        """Pushes a message, or a body to a route, to every session but `skip`. It is encoded once, or twice if some clients
        agreed on JSON and others on protobuf.

        Args:
            route: a message, which goes to the route of its class's name; or a route, 1 to 255 bytes of UTF-8.
            body: bytes as they are; None for an empty body (``{}`` where JSON was agreed); a message; anything else as JSON.
            delivery: what may happen to it on its way to clients that are slow; None: as its class says, else `RELIABLE`.

        Returns:
            To how many.
        """
        return self._core_running().broadcast(route, body, skip, delivery)

    def group(self, name: str) -> Group:
        """The group of this name; it exists as long as it has members."""
        return Group(self, name)

    def user(self, uid: str) -> User:
        """The person with this uid, wherever they are connected."""
        return User(self, uid)

    @property
    def sessions(self) -> list[Session]:
        """All sessions that joined and are not gone, in the order in which they came."""
        return self._core_running().sessions()

    # -- time and tasks ----------------------------------------------------------------------------------------------

    def after(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """Calls `function(*arguments)` once, in `seconds`. Sync or async; in the thread of the handlers.

        Raises:
            TypeError: `function` can't be called.
            ValueError: `seconds` is negative or no number.
        """
        if not callable(function):
            raise TypeError(
                f"app.after(seconds, function, ...): {function!r} is not a function; write its name without ()"
            )
        timer = Timer(self, check_delay(seconds), call_name(function), (function, *arguments))
        self._start_timer(timer)
        return timer

    def task(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine beside the handlers; kept alive, its error is logged, cancelled when the server stops."""
        self._core_running().now()  # from another thread it raises
        assert self._loop is not None
        task: asyncio.Task[T] = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(
            functools.partial(self._task_done, f"task {getattr(coroutine, '__qualname__', coroutine)}")
        )
        return task

    def emit(self, event: Event, key: object = None) -> None:
        """Tells all subscribers that something has happened (`on_event`). Returns at once: they are called later, from the loop.

        Args:
            key: whom it is about: events of one key come to each subscriber strictly in order, one at a time; None: in any.

        Raises:
            Overloaded: too many wait for a subscriber already, and its class refuses more (`queued`); none of them gets it.
            GameServerError: the server does not run.

        >>> from gameserver import App, Event
        >>> app = App("doc")
        >>> class LoggedIn(Event):
        ...     player: str
        >>> @app.on("login")
        ... def login(body: bytes) -> None:
        ...     app.emit(LoggedIn(body.decode()), key=body)
        """
        publisher = self._stores.publisher
        if publisher is not None and event._shared:
            assert self._stores.known is not None
            publisher.put(self._stores.known.envelope(event, key))
            return
        self._events.emit(event, key)

    @property
    def dead_letters(self) -> DeadLetters:
        """Events that a subscriber could not handle, however often it was tried: listed, and replayed."""
        return self._events.dead_letters

    async def run_blocking(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function that blocks in another thread; what it returns or raises comes back here. The tick goes on meanwhile.

        For files, and libraries without asyncio. Nothing of the game may be touched there but by `call_soon_threadsafe`. If who
        waits is cancelled, the thread still goes on to the function's end.

        Raises:
            Overloaded: `blocking_waiting` calls wait already; where nobody catches it, the request is answered with ``GS-503``.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.on("load")
        ... async def load(body: bytes) -> str:
        ...     return await app.run_blocking(open("/etc/hostname").read)
        """
        result: T = await self._blocking_running().run(function, *arguments)
        return result

    async def run_cpu(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function that computes for long in another process; what it returns or raises comes back here.

        Function and arguments are pickled: a function stands at the top of a module, and a game that is run as a script begins with
        ``if __name__ == "__main__":``, since the process imports it again. Processes are spawned with the first call, which takes
        as long as an import of the game.

        Raises:
            Overloaded: `cpu_waiting` calls wait already; where nobody catches it, the request is answered with ``GS-503``.
            GameServerError: the process has died.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.on("path")
        ... async def path(body: bytes) -> int:
        ...     return await app.run_cpu(sum, range(10_000_000))
        """
        result: T = await self._cpu_running().run(function, *arguments)
        return result

    def _blocking_running(self) -> Work:
        self._core_running()
        return self._work[0]

    def _cpu_running(self) -> Work:
        self._core_running()
        return self._work[1]

    def _session_task(self, session: Session, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """See `Session.task`."""
        if session.state == "closed":
            coroutine.close()
            raise SessionClosed(f"session {session.id} is closed")
        task = self.task(coroutine)
        tasks = self._session_tasks.setdefault(session.id, set())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    def _left(self, session: Session) -> None:
        """After the game's own `on_leave`."""
        for task in list(self._session_tasks.pop(session.id, ())):
            task.cancel()
        self._stores.leave(session)
        self._services.leave(session)

    def call_soon_threadsafe(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Calls a function in the thread of the handlers; the one call that other threads may make.

        Raises:
            GameServerError: the server does not run.
        """
        loop = self._loop
        where = f"app.call_soon_threadsafe({call_name(function)})"
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self._run_call, where, function, *arguments)
                return
        except RuntimeError:  # it has just closed
            pass
        raise GameServerError("app.call_soon_threadsafe: the server does not run; call it between on_start and on_stop")

    def drain(self) -> None:
        """Begins to stop as SIGTERM does: lets rooms and players come to an end for `drain_grace` seconds, then stops.

        Nobody new comes in, rooms are locked and get `Room.on_drain`, clients without a seat in a room are asked to connect anew
        (by then to another server), each after a time of its own. Calling it again stops at once.
        """
        core = self._core_running()
        core.now()  # from another thread it raises
        assert self._loop is not None
        if self._draining is None and self._drain_with is not None:
            drain = self._drain_with
            self._draining = self._loop.create_task(drain.run())
            self._draining.add_done_callback(lambda _: self.stop())
        else:
            self.stop()

    def stop(self) -> None:
        """Stops the server at once: no new connections, `on_stop`, kicks, flush, return from `run`."""
        if self._core is not None:
            self._core.now()  # from another thread it raises
        if self._stopping is not None:
            self._stopping.set()

    # -- what can be seen --------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counters of the running server, as plain numbers.

        Keys: ``connections`` (open, accepted, refused_full, refused_address, refused_rate, refused_descriptors, accept_errors, tls,
        tls_failed, tls_truncated, reads, flushes, waits, told_late), ``sessions``, ``resume`` (resumed, refused), ``closed`` (a
        count for each reason), ``messages`` (in, out, limited, unknown_route, ignored, bodies_refused, bodies_refused_by_route,
        batch_dropped, tasks),
        ``pool`` (blocks out, high_water, hits, misses), ``tick`` (count, skipped, dilated_ns, the number of the next and when
        that is due on the monotonic clock, next_due_ns, lateness_p50_ns, lateness_p99_ns), ``errors`` (a list: kind, location,
        where, count and more of each distinct one), ``work`` (of ``blocking`` and ``cpu``: running, waiting, done,
        failed, refused), ``events`` (of each subscriber: waiting, done, failed, dead, dropped, coalesced, refused), ``stores`` (of
        ``redis`` and ``database`` as `Guard.stats`, ``locks``, ``saved``, those that there are).
        """
        work = {name: work.stats() for name, work in zip(("blocking", "cpu"), self._work, strict=False)}
        return {
            **self._core_running().stats(),
            "work": work,
            "events": self._events.stats(),
            "stores": self._stores.stats(),
            "errors": [asdict(count) for count in self._errors.counts()],
        }

    @property
    def addresses(self) -> Sequence[str]:
        """Where it listens: ``["127.0.0.1:7777"]``, or the path of a Unix socket; empty before `on_start`."""
        return tuple(self._addresses)

    @property
    def port(self) -> int:
        """The TCP port, also when 0 was asked for.

        Raises:
            GameServerError: it does not listen on TCP (yet).
        """
        for address in self._addresses:
            _, colon, port = address.rpartition(":")
            if colon:
                return int(port)
        raise GameServerError("app.port: not listening on TCP yet; read it in on_start or later")

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, *, _source: str = "code", record: str | os.PathLike[str] | None = None, **settings: Any) -> None:
        """Runs the server until SIGTERM, Ctrl-C or `stop`; can be called again afterwards.

        Args:
            record: a file that takes everything which enters the logic thread, for `gameserver.testing.replay`. The clock of
                asyncio is `app.clock` then: it stands still within a turn.
            settings: as in `App`; they win over those, and the environment and the command line over both.

        Raises:
            ConfigError: a setting or a handler is wrong; says what, where, and what to do.
            OSError: the address can't be bound.
            GameServerError: an I/O thread has ended by itself; the server was stopped, in order, for it.
        """
        if self._core is not None:
            self._core.now()  # in a forked child, or in another thread, it raises and says so
            raise GameServerError("app.run: it runs already, in this process; stop it first")
        if _source == "code":
            code, command_line = {**self._code_settings, **settings}, {}
        else:
            code, command_line = self._code_settings, settings
        resolved = _settings.resolve(code, command_line=command_line, environ=os.environ, start=self._home())
        check_sessions(self._handlers, self._session_class)
        self._tick_rate = resolved.settings.tick_rate
        self._check_ticks(self._handlers)
        limits_of([*self._handlers, *self._rooms.all_handlers()])
        self._messages = _schema.Messages([*self._rooms.all_handlers(), *self._handlers], self._pushed)
        _logging.configure(resolved.settings.log_level)
        options = self._core_options(resolved.settings)
        core = Core(options, self._session_class, self._failed, self._fire)
        self._show_world(core)
        core.set_schema(self._messages.document(*self._world_documents()))
        core.set_learn(self._learn)
        core.set_task(self._session_task)
        make_loop: Callable[[CoreSelector, Core], GameLoop] = GameLoop
        if record is not None:
            core.record(os.fspath(record), _recording.started_with(self.random, options))
            make_loop = _recording.RecordingLoop
        self._run(core, resolved.settings, make_loop)
        if self._failure is not None:
            raise GameServerError(f"{self._failure}; the server was stopped")

    def _run(
        self, core: Core, settings: _settings.Settings, make_loop: Callable[[CoreSelector, Core], GameLoop]
    ) -> None:
        self._core = core
        _running.add(self)
        try:
            with asyncio.Runner(loop_factory=lambda: self._make_loop(core, make_loop)) as runner:
                runner.run(self._main(core, settings))
        finally:
            self._core = self._loop = self._stopping = self._empty = self._drain_with = self._draining = None
            self._addresses = []
            self._timers.clear()
            self._every.clear()
            self._functions.clear()
            self._tasks.clear()
            self._session_tasks.clear()
            self._rooms.end()
            with contextlib.suppress(RuntimeError):  # a forked child: nothing works, and its error is on its way
                self._last_stats = core.stats()
                core.close()

    async def _main(self, core: Core, settings: _settings.Settings) -> None:
        loop = self._loop
        assert loop is not None
        self._stopping, self._empty, self._failure = asyncio.Event(), asyncio.Event(), None
        loop.stopping = self._stopping
        static = self._home() / self._static if self._static is not None else None
        host = HttpHost(core, app=self._http, static=static, errors=self._errors, wall=loop.wall)
        ending = Ending(settings.drain_timeout)
        if settings.drain_grace:
            self._drain_with = Drain(self, core, host, settings.drain_grace)
        self._work = (
            blocking(settings.blocking_threads, settings.blocking_waiting),
            cpu(settings.cpu_processes, settings.cpu_waiting),
        )
        with self._signal_handlers():
            try:
                await self._stores.start(settings, self._home())
                await self._serve(core, settings, host, ending)
            finally:
                await self._stores.stop()

    async def _serve(self, core: Core, settings: _settings.Settings, host: HttpHost, ending: Ending) -> None:
        loop = self._loop
        assert loop is not None
        assert self._stopping is not None
        self._rooms.begin()
        await self._services.start(
            [
                *self._within([*self._handlers, *self._rooms.every_handler()]),
                *(subscription.handler for subscription in self._subscriptions),
            ],
            {name: kind.cls for name, kind in self._rooms.types.items()},
        )
        self._running_handlers = self._services.bound(self._within(self._handlers))
        subscriptions = [
            replace(subscription, handler=self._services.bound_one(subscription.handler))
            for subscription in self._subscriptions
        ]
        self._events.start(subscriptions)
        await self._stores.begin_events(subscriptions)
        rust_echo = os.environ.get("GAMESERVER_BENCH_RUST_ECHO") == "1"
        self._bind(core, self, rust_echo)
        core.set_http(host)
        core.set_on_failure(self._core_failed)
        self._addresses = core.listen()
        await host.start()
        try:
            core.stamp("S")
            for handler in self._of(Kind.START):
                await self._call(handler)
            gc.collect()
            gc.freeze()
            core.start()
            for handler in self._of(Kind.EVERY):
                self._start_every(handler)
            if not loop.is_replay:
                limit = core.raise_descriptor_limit()
                log.info(
                    "%s",
                    _banner.banner(
                        self.name, self.handlers, settings, self._urls(settings), limit, list(self._rooms.types)
                    ),
                )
            await self._stopping.wait()
            await self._shut_down(core, ending)
        finally:
            self._stopping.set()
            gc.unfreeze()
            await ending.end(self._tasks)
            if left := self._events.stop():
                log.warning("%d events were not handled when the server stopped", left)
            try:
                await ending.within(asyncio.ensure_future(self._services.stop()))
            except TimeoutError as error:
                self._failed("the end of the app's services", error)
            try:
                await ending.within(asyncio.ensure_future(self._stores.stop()))
            except TimeoutError as error:
                self._failed("the end of the app's stores", error)
            for work in self._work:
                work.stop()
            await host.stop(ending.left())
            await ending.end(asyncio.all_tasks() - {asyncio.current_task()})
            core.end_run()

    def _replay(self, path: str) -> tuple[int, int, str | None, list[str]]:
        """A recorded run once more, without sockets; see `gameserver.testing.replay`."""
        state, options = _recording.read_start(path)
        settings = _settings.Settings(**{key: options[key] for key in _settings.Settings.__dataclass_fields__})
        core = Core(options, self._session_class, self._failed, self._fire)
        self.random.setstate(state)
        self._tick_rate = settings.tick_rate
        self._check_ticks(self._handlers)
        self._messages = _schema.Messages([*self._rooms.all_handlers(), *self._handlers], self._pushed)
        self._show_world(core)
        core.set_schema(self._messages.document(*self._world_documents()))
        core.set_learn(self._learn)
        core.set_task(self._session_task)
        outside: list[str] = []
        core.replay(path, self._replayed)
        try:
            self._run(core, settings, functools.partial(_recording.ReplayLoop, outside=outside))
        except asyncio.CancelledError:  # by `_replayed`
            pass
        except Exception:
            if core.replayed()[2] is None:
                raise
        turns, compared, difference = core.replayed()
        if difference is not None and outside:
            difference = (
                f"{difference} (other threads had called before, which is not done again: {', '.join(outside)})"
            )
        return turns, compared, difference, outside

    def _replayed(self) -> None:
        """The recording is at its end, or it differs: what still waits would wait for ever."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    async def _shut_down(self, core: Core, ending: Ending) -> None:
        assert self._empty is not None
        core.stop_accepting()
        core.stamp("P")
        for handler in self._of(Kind.STOP):
            try:
                result = handler.call()
                if inspect.isawaitable(result):
                    await ending.within(asyncio.ensure_future(result))
            except Exception as error:
                self._failed(handler.where, error)
        self._rooms.shut_down()
        with contextlib.suppress(TimeoutError):
            await ending.within(asyncio.ensure_future(self._events.drain()))
        with contextlib.suppress(TimeoutError):
            await ending.within(asyncio.ensure_future(self._stores.save_sessions()))
        if core.shut_down("shutdown", self._empty.set):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ending.left()):
                    await self._empty.wait()

    async def _call(self, handler: Handler) -> None:
        result = handler.call()
        if inspect.isawaitable(result):
            await result

    def _of(self, kind: Kind) -> list[Handler]:
        return [handler for handler in self._running_handlers if handler.kind is kind]

    def _home(self) -> Path:
        """The game's folder: of the file that was run, or where we stand."""
        main_file = getattr(sys.modules.get("__main__"), "__file__", None)
        return self._folder or (Path(main_file).resolve().parent if main_file else Path.cwd())

    def _make_loop(self, core: Core, make: Callable[[CoreSelector, Core], GameLoop]) -> GameLoop:
        selector = CoreSelector(core)
        loop = make(selector, core)
        loop.set_exception_handler(self._loop_failed)
        core.set_loop(loop, selector.keys)
        self._loop = loop
        return loop

    def _core_options(self, settings: _settings.Settings) -> dict[str, Any]:
        options = asdict(settings)
        for rate in ("message_rate", "address_message_rate", "connect_rate"):
            options[rate] = per_second(options[rate]) or 0.0
        options["through_bytes"] = os.environ.get("GAMESERVER_THROUGH_BYTES") == "1"
        options["redis_url"] = options["database_url"] = (
            None  # they may hold passwords, and recordings keep what is here
        )
        options["node"] = int.from_bytes(os.urandom(4)) >> 4
        return options

    def _core_running(self) -> Core:
        core = self._core
        if core is None:
            raise GameServerError("the server does not run; this works between on_start and the end of run()")
        return core

    def _urls(self, settings: _settings.Settings) -> list[str]:
        scheme = "https" if settings.tls_cert else "http"
        return [
            f"{scheme}://{address}/" if not address.startswith("/") else f"unix:{address}"
            for address in self._addresses
        ]

    def _swap(self, other: App) -> None:
        """Takes the handlers of `other` in place of ours, by name, while tasks and timers of the old ones go on."""
        check_sessions(other._handlers, self._session_class)
        self._check_ticks(other._handlers)
        messages = _schema.Messages([*other._rooms.all_handlers(), *other._handlers], other._pushed)
        schema = messages.document(*self._world_documents())
        core = self._core_running()
        self._bind(core, other)
        core.set_schema(schema)
        self._messages, self._pushed = messages, other._pushed
        self._handlers = list(other._handlers)
        self._middleware = list(other._middleware)
        self._running_handlers = self._services.bound(self._within(self._handlers))
        self._functions = {handler.qualname: handler.call for handler in self._running_handlers}
        every = {handler.qualname: handler for handler in self._of(Kind.EVERY)}
        for name, (interval, timer) in list(self._every.items()):
            if name not in every or every[name].interval != interval:
                timer.cancel()
                del self._every[name]
        for name, handler in every.items():
            if name not in self._every:
                self._start_every(handler)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _bind(self, core: Core, source: App, rust_echo: bool = False) -> None:
        """Has the core call the handlers of `source`."""
        own = self._stores.of_sessions(self._services.bound(source._within(source._handlers)))
        tables = [self._services.bound(source._within(table)) for table in source._rooms.tables()]
        handlers = [*self._rooms.calls(), *own, make_handler(Kind.LEAVE, self._left)]
        limits = limits_of([*handlers, *source._rooms.all_handlers()])
        core.bind(handlers, rust_echo, tables, limits)

    def _within(self, handlers: Sequence[Handler]) -> list[Handler]:
        """The same handlers, within their middleware."""
        return [with_middleware(handler, self._middleware) for handler in handlers]

    def _learn(self, cls: type) -> str:
        """A class is pushed for the first time; its route."""
        if cls not in self._messages:
            self._messages.add(cls)
            self._core_running().set_schema(self._messages.document(*self._world_documents()))
            log.warning(
                "%s is pushed, but named nowhere: clients that are connected can't read it; write app.messages(%s)",
                cls.__qualname__,
                cls.__qualname__,
            )
        return route_of(cls)

    def _check_ticks(self, handlers: Sequence[Handler]) -> None:
        for handler in handlers:
            if handler.is_batch and not self._tick_rate:
                raise ConfigError(
                    f"{handler.where}: a batch is handed over at each tick, and there is none; set tick_rate"
                )
            if handler.entity_class is not None and not self._tick_rate:
                raise ConfigError(f"{handler.where}: the world goes on at each tick, and there is none; set tick_rate")

    def _world_documents(self) -> tuple[dict[str, Any] | None, dict[str, Any]]:
        """What clients are told of the world, None if it has no tables; and of the worlds of rooms."""
        tables = self.world._document()
        world = {"cell": self.world.cell, "tick_rate": self._tick_rate, "tables": tables} if tables else None
        return world, self._rooms.world_documents()

    def _show_world(self, core: Core) -> None:
        self._rooms.make_worlds()
        self.world._core.add(classes_of(self._handlers, self.world))
        core.set_world(self.world._core)

    # -- timers ------------------------------------------------------------------------------------------------------

    def _start_timer(self, timer: Timer) -> None:
        timer._due = self.clock.now() + timer._seconds
        timer._key = self._core_running().timer_start(timer._seconds)
        self._timers[timer._key] = timer

    def _stop_timer(self, timer: Timer) -> None:
        if timer._key in self._timers:
            self._core_running().timer_cancel(timer._key)
            del self._timers[timer._key]

    def _fire(self, key: int) -> None:
        """The core says that a timer is due."""
        timer = self._timers.pop(key, None)
        if timer is None:
            return
        function, *arguments = timer._arguments
        if inspect.isfunction(function):  # a method belongs to an object that no table knows
            function = self._functions.get(timer._name, function)
        self._run_call(timer._name, function, *arguments)

    def _start_every(self, handler: Handler) -> None:
        first = self.clock.now()
        self._next_every(handler, first, 1)

    def _next_every(self, handler: Handler, first: float, count: int) -> None:
        now = self.clock.now()
        # Deadlines are absolute; those that a stall has passed are skipped, not made up for.
        count = max(
            count, int((now - first) / handler.interval) + 1 if now > first + count * handler.interval else count
        )
        delay = max(0.0, first + count * handler.interval - now)
        timer = Timer(self, delay, f"every {handler.qualname}", (self._fire_every, handler, first, count))
        self._start_timer(timer)
        self._every[handler.qualname] = (handler.interval, timer)

    def _fire_every(self, handler: Handler, first: float, count: int) -> None:
        self._next_every(handler, first, count + 1)
        self._run_call(handler.qualname, self._functions.get(handler.qualname, handler.call))

    def _run_call(self, where: str, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            result = function(*arguments)
            if inspect.iscoroutine(result):
                self.task(result)
        except BaseException as error:  # contained as in a handler: what a client can cause must not end the server
            self._failed(where, error)

    # -- errors ------------------------------------------------------------------------------------------------------

    def _core_failed(self, why: str) -> None:
        """The core can't go on as it should: with half of its threads it would serve half of its clients."""
        log.critical("%s; the server stops", why)
        self._failure = why
        if self._stopping is not None:
            self._stopping.set()

    def _task_done(self, where: str, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(where, error)

    def _failed(self, where: str, error: BaseException) -> None:
        """An exception of the game's code: logged once per distinct traceback, counted, and harms nobody."""
        if isinstance(error, asyncio.CancelledError) and (self._stopping is None or self._stopping.is_set()):
            return  # what still waited when the server stopped
        self._errors.record(error, where, time.monotonic())

    def _loop_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio would print each time: a callback that raised, a task that nobody waited for."""
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self._failed(f"asyncio: {context.get('message')}", error)

    # -- signals -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signal_handlers(self) -> Any:
        loop = self._loop
        assert loop is not None
        if loop.is_replay or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._signals, self._stop_was_asked = 0, False
        before: dict[signal.Signals, Any] = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.getsignal(number)
            # asyncio's own handler wakes the loop; ours runs also while a handler of the game is stuck.
            loop.add_signal_handler(number, lambda: None)
            signal.signal(number, self._on_signal)
            signal.siginterrupt(number, False)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        can_drain = number == signal.SIGTERM and self._drain_with is not None
        if self._loop is None or self._stopping is None:
            return
        if can_drain and self._signals == 1:
            self._loop.call_from_signal(self.drain)
        elif not self._stop_was_asked:
            self._stop_was_asked = True
            self._loop.call_from_signal(self._stopping.set)
        else:
            sys.stderr.flush()
            os._exit(128 + number)
