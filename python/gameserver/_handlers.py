"""The decorators: what is registered, and under which route."""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

from gameserver._core import Session
from gameserver._events import Event, Subscription
from gameserver._limit import Over
from gameserver._middleware import Middleware, make_middleware
from gameserver._signature import Handler, Keep, Kind, check_route, here, hints_of, make_handler
from gameserver.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


class Registry:
    """The decorators that `App` and `Router` share."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []
        self._middleware: list[Middleware] = []
        self._subscriptions: list[Subscription] = []

    def middleware(self, function: F) -> F:
        """Puts a generator around all handlers of messages, of a router: around its own; the first one outermost. See
        `gameserver.middleware`.

        Rooms' handlers are within the app's, too; batches, ticks and timers are not.

        Raises:
            ConfigError: it is no generator function of a `Call`.

        >>> from collections.abc import Generator
        >>> from gameserver import App
        >>> from gameserver.middleware import Call
        >>> app = App("doc")
        >>> @app.middleware
        ... def counted(call: Call) -> Generator[None, object, None]:
        ...     print("before", call.handler.route)
        ...     yield
        """
        self._middleware.append(make_middleware(function, "@middleware"))
        return function

    @overload
    def on(self, route: F, /) -> F: ...
    @overload
    def on(
        self,
        route: str | None = None,
        /,
        *,
        concurrent: bool = False,
        keep: Keep = "all",
        rate: str | None = None,
        burst: int | None = None,
        over: Over = "refuse",
    ) -> Callable[[F], F]: ...
    def on(
        self,
        route: Callable[..., Any] | str | None = None,
        /,
        *,
        concurrent: bool = False,
        keep: Keep = "all",
        rate: str | None = None,
        burst: int | None = None,
        over: Over = "refuse",
    ) -> Callable[..., Any]:
        """Handles requests and notifies to a route; what the function returns answers a request.

        Parameters of the function are filled by their annotations: `Session` (or your subclass); your subclass of `Entity`:
        the sender's own entity of that class (who has none, is answered with ``GS-409``); and one body: your
        subclass of `Message` (checked before the function runs; classes that protoc generated do, too), `bytes` (as it
        came), `dict` or `list` (JSON; ``dict[str, int]`` and the like are checked), or `Batch` of a message: all that
        came of it since the last tick. It may return a message, `bytes`, `None` (an empty body) or anything that is JSON.
        Sync or async.

        What does not decode is answered with ``GS-400``, which names message and field.

        Args:
            route: 1 to 255 bytes of UTF-8, as clients spell it; without one, it is the name of the message's class.
            concurrent: an async handler may run beside others of the same session; else they go one at a time, in order.
            keep: of a batch, ``"last"`` keeps only each session's newest.
            rate: how often each client may send to this route: ``"10/s"``, ``"90/min"``, ``"5/h"``; None: only the
                connection's own limit counts (`message_rate`). What comes beyond it never reaches Python.
            burst: how many may come at once; None: as many as in two seconds.
            over: what becomes of more: ``"drop"``, ``"refuse"`` (a request is answered with ``GS-429``, a notify dropped
                and told on ``$error``) or ``"kick"``.

        Raises:
            ConfigError: the signature or the route is wrong; says where and what may stand there.

        >>> from gameserver import App, Message, Session, f32
        >>> app = App("doc")
        >>> class Move(Message):
        ...     dx: f32
        >>> class Moved(Message):
        ...     x: f32
        >>> @app.on
        ... def move(session: Session, msg: Move) -> Moved:
        ...     return Moved(x=msg.dx)
        >>> @app.on("echo")
        ... def echo(session: Session, body: bytes) -> bytes:
        ...     return body
        >>> [handler.route for handler in app.handlers]
        ['Move', 'echo']
        """
        if callable(route):
            self._add(make_handler(Kind.ROUTE, route))
            return route
        if route is not None and not isinstance(route, str):
            raise ConfigError(f"{here(1)}@on({route!r}): give the route as a string: @app.on('room.echo')")
        if keep not in ("all", "last"):
            raise ConfigError(f"{here(1)}@on(keep={keep!r}): 'all' or 'last'")

        def register(function: F) -> F:
            self._add(
                make_handler(
                    Kind.ROUTE,
                    function,
                    route=route,
                    concurrent=concurrent,
                    keep=keep,
                    rate=rate,
                    burst=burst,
                    over=over,
                )
            )
            return function

        return register

    def on_join(self, function: F) -> F:
        """Called with a session once it may send: after its handshake was answered and acknowledged.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_join
        ... def join(session: Session) -> None:
        ...     session.push("hello", {"you": session.id})
        """
        return self._plain(Kind.JOIN, function)

    def on_drop(self, function: F) -> F:
        """Called when a session is cut or falls silent: it may come back within `resume_grace` seconds (docs/sessions.md).

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_drop
        ... def drop(session: Session) -> None: ...
        """
        return self._plain(Kind.DROP, function)

    def on_resume(self, function: F) -> F:
        """Called when a dropped session is heard again, on its connection or on a new one: nothing was lost.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_resume
        ... def resume(session: Session) -> None: ...
        """
        return self._plain(Kind.RESUME, function)

    def on_congested(self, function: F) -> F:
        """Called when more than `congested_bytes` wait for a client: it takes what is sent more slowly than it comes.

        Send it less: it is disconnected when its `Session.backlog` is beyond `queue_bytes_max`. `LATEST` and `DROPPABLE` pushes
        never disconnect anybody.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> slow: set[Session] = set()
        >>> @app.on_congested
        ... def congested(session: Session) -> None:
        ...     slow.add(session)
        """
        return self._plain(Kind.CONGESTED, function)

    def on_relieved(self, function: F) -> F:
        """Called when a congested client has caught up: a quarter of `congested_bytes` waits for it, or less.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_relieved
        ... def relieved(session: Session) -> None: ...
        """
        return self._plain(Kind.RELIEVED, function)

    def on_leave(self, function: F) -> F:
        """Called exactly once for every session that joined, when it is gone for good.

        >>> from gameserver import App, Left, Session
        >>> app = App("doc")
        >>> @app.on_leave
        ... def leave(session: Session, why: Left) -> None: ...
        """
        return self._plain(Kind.LEAVE, function)

    def on_event(
        self, event: type[Event], *, batch: int = 0, concurrency: int = 16, retries: int = 5
    ) -> Callable[[F], F]:
        """Calls the function with each event of a class that is emitted (`App.emit`), and of its subclasses. Sync or async.

        Events with the same key come strictly in order, one at a time; different keys do not wait for each other. What it raises is
        tried again after a while, twice as long each time; then the event is a dead letter (`App.dead_letters`). Other subscribers
        notice nothing of that.

        Args:
            batch: takes a list of at most so many events at once; 0: one by one.
            concurrency: how many an async function may have under way at a time.
            retries: attempts after the first.

        Raises:
            ConfigError: it is no class of events, a number is none, or the function takes something else.

        >>> from gameserver import App, Event
        >>> app = App("doc")
        >>> class LoggedIn(Event):
        ...     player: str
        >>> @app.on_event(LoggedIn)
        ... async def welcome(event: LoggedIn) -> None: ...
        """
        where = here(1)
        if not (isinstance(event, type) and issubclass(event, Event)):
            raise ConfigError(f"{where}@on_event({event!r}): give a subclass of Event")
        for name, value, least in (("batch", batch, 0), ("concurrency", concurrency, 1), ("retries", retries, 0)):
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{where}@on_event({name}={value!r}): a whole number from {least} up")

        def register(function: F) -> F:
            handler = make_handler(Kind.EVENT, function)
            hints = hints_of(function, 2)
            taken: Any = next(hint for hint in hints.values() if _is_event(hint))
            wanted = list[event] if batch else event  # type: ignore[valid-type]
            inner = typing.get_args(taken)[0] if typing.get_origin(taken) is list else taken
            if (typing.get_origin(taken) is list) != bool(batch) or not issubclass(event, inner):
                raise ConfigError(f"{handler.where}: takes {taken!r}; it is given {wanted!r}")
            self._subscriptions.append(Subscription(handler, event, batch, concurrency, retries))
            return function

        return register

    def every(self, seconds: float) -> Callable[[F], F]:
        """Calls the function each `seconds`, on absolute deadlines: it does not drift. Sync or async.

        Raises:
            ConfigError: `seconds` is not above 0.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.every(60)
        ... def save() -> None: ...
        """
        if not isinstance(seconds, (int, float)) or not 0.001 <= seconds < 1e9:
            raise ConfigError(f"{here(1)}@every({seconds!r}): give seconds from 0.001 up: @app.every(60)")

        def register(function: F) -> F:
            self._add(make_handler(Kind.EVERY, function, interval=float(seconds)))
            return function

        return register

    def tick(self, function: F) -> F:
        """Called at each tick with the fixed step in seconds, in the thread of the handlers.

        >>> from gameserver import App
        >>> app = App("doc", tick_rate=30)
        >>> @app.tick
        ... def step(dt: float) -> None: ...
        """
        return self._plain(Kind.TICK, function)

    def on_start(self, function: F) -> F:
        """Called before the first connection is accepted; the address is known already. Sync or async.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.on_start
        ... async def start() -> None: ...
        """
        return self._plain(Kind.START, function)

    def on_stop(self, function: F) -> F:
        """Called when the server stops, while sessions can still be pushed to. Sync or async.

        >>> from gameserver import App
        >>> app = App("doc")
        >>> @app.on_stop
        ... def stop() -> None: ...
        """
        return self._plain(Kind.STOP, function)

    def on_drain(self, function: F) -> F:
        """Called when the server begins to drain: SIGTERM came, and there is a `drain_grace`. Sync or async.

        >>> from gameserver import App
        >>> app = App("doc", drain_grace=300)
        >>> @app.on_drain
        ... def drain() -> None:
        ...     app.push("notice", {"text": "the server stops after this match"})
        """
        return self._plain(Kind.DRAIN, function)

    def _plain(self, kind: Kind, function: F) -> F:
        self._add(make_handler(kind, function, depth=3))
        return function

    def _add(self, handler: Handler) -> None:
        for other in self._handlers:
            if handler.kind is Kind.ROUTE and other.kind is Kind.ROUTE and other.route == handler.route:
                raise ConfigError(
                    f"{handler.where}: route {handler.route!r} is handled already at {other.where}; give one of them another route"
                )
            if handler.kind is Kind.AUTHENTICATE and other.kind is Kind.AUTHENTICATE:
                raise ConfigError(f"{handler.where}: authenticate stands already at {other.where}; keep one")
        self._handlers.append(handler)


def _is_event(annotation: Any) -> bool:
    inner = typing.get_args(annotation)[0] if typing.get_origin(annotation) is list else annotation
    return isinstance(inner, type) and issubclass(inner, Event)


def limits_of(handlers: Sequence[Handler]) -> list[tuple[str, float, int, str]]:
    """How often each client may send to which route, for the core; routes without a limit are left out.

    Raises:
        ConfigError: two handlers of one route, of the app and of a room, say different things.
    """
    found: dict[str, Handler] = {}
    for handler in handlers:
        if handler.limit is not None:
            other = found.setdefault(handler.route, handler)
            if other.limit != handler.limit:
                raise ConfigError(
                    f"{handler.where}: route {handler.route!r} has another rate at {other.where}; a route has one, whoever "
                    "handles it: write the same at both, or at one of them"
                )
    return [
        (route, handler.limit.per_second, handler.limit.burst, handler.limit.over)
        for route, handler in found.items()
        if handler.limit is not None
    ]


class Router(Registry):
    """Handlers under a common prefix, to be included in an app: one module of a larger game.

    Args:
        prefix: put before each route with a dot between: ``Router("chat")`` and ``on("say")`` handle ``chat.say``.

    >>> from gameserver import App, Router
    >>> chat = Router("chat")
    >>> @chat.on("say")
    ... def say(body: bytes) -> bytes:
    ...     return body
    >>> app = App("doc")
    >>> app.include(chat)
    >>> [h.route for h in app.handlers]
    ['chat.say']
    """

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        if not isinstance(prefix, str):
            raise ConfigError(f"{here(1)}Router({prefix!r}): the prefix is a string: Router('chat')")
        self.prefix = prefix
        self._is_included = False

    def _add(self, handler: Handler) -> None:
        if self._is_included:
            raise ConfigError(
                f"{handler.where}: its router was included already, and this would be missed; call app.include after it"
            )
        if handler.kind is Kind.ROUTE and self.prefix:
            route = f"{self.prefix}.{handler.route}"
            check_route(route, handler.where)
            handler = replace(handler, route=route)
        super()._add(handler)


def check_sessions(handlers: Sequence[Handler], session_class: type[Session]) -> None:
    """Every handler's session parameter must accept the app's session class.

    Raises:
        ConfigError: one does not.
    """
    for handler in handlers:
        wanted = handler.session_class
        if wanted is not None and not (issubclass(wanted, Session) and issubclass(session_class, wanted)):
            raise ConfigError(
                f"{handler.where}: takes a {wanted.__qualname__}, but the app's sessions are {session_class.__qualname__}; "
                f"write App(..., session={wanted.__qualname__})"
            )
