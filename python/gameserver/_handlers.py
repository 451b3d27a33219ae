"""From a decorated function to a call plan, once, at registration."""

from __future__ import annotations

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from gameserver._core import Session
from gameserver._types import Left
from gameserver.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

ROUTE_BYTES_MAX = 255  # the length of a route is one byte on the wire


class Kind(StrEnum):
    """What a handler answers to.

    >>> Kind.JOIN.decorator
    '@app.on_join'
    """

    ROUTE = "route"
    JOIN = "join"
    DROP = "drop"
    RESUME = "resume"
    LEAVE = "leave"
    AUTHENTICATE = "authenticate"
    TICK = "tick"
    EVERY = "every"
    START = "start"
    STOP = "stop"

    @property
    def decorator(self) -> str:
        """As the game writes it."""
        if self is Kind.ROUTE:
            return "@app.on(route)"
        if self is Kind.EVERY:
            return "@app.every(seconds)"
        return f"@app.{self}" if self in (Kind.AUTHENTICATE, Kind.TICK) else f"@app.on_{self}"


class Argument(StrEnum):
    """What stands in one place of a handler's signature; one letter each, read by the core."""

    SESSION = "s"
    BYTES = "b"
    JSON = "j"
    WHY = "w"
    DT = "d"
    USER = "u"


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered function: what it answers to, where it stands, how it is called."""

    kind: Kind
    route: str
    qualname: str
    file: str
    line: int
    call: Callable[..., Any]
    arguments: str
    decode: Callable[[bytes], Any] | None
    session_class: type[Session] | None
    is_async: bool
    concurrent: bool
    interval: float

    @property
    def where(self) -> str:
        """File, line and name, for messages."""
        return f"{self.file}:{self.line}: {self.qualname}"


# Which arguments a kind of handler may take, and what to say of them.
_ALLOWED: Mapping[Kind, str] = {
    Kind.ROUTE: "sbj",
    Kind.JOIN: "s",
    Kind.DROP: "s",
    Kind.RESUME: "s",
    Kind.LEAVE: "sw",
    Kind.AUTHENTICATE: "su",
    Kind.TICK: "d",
    Kind.EVERY: "",
    Kind.START: "",
    Kind.STOP: "",
}
_MEANING: Mapping[str, str] = {
    "s": "Session (or your subclass of it)",
    "b": "bytes (the body as it came)",
    "j": "dict or list (the body as JSON)",
    "w": "Left (why the session left)",
    "d": "float (the fixed step in seconds)",
    "u": "dict (the handshake's user object)",
}


def make_handler(
    kind: Kind,
    function: Callable[..., Any],
    *,
    route: str = "",
    concurrent: bool = False,
    interval: float = 0.0,
    depth: int = 2,
) -> Handler:
    """Reads the signature of `function` into a plan.

    `depth` says how many frames up the decorated function is being defined: its local names may stand in annotations.

    Raises:
        ConfigError: a parameter that nothing can fill, an annotation that can't be read, a bad route.
    """
    if not callable(function):
        raise ConfigError(
            f"{here(depth + 1)}{kind.decorator}: {function!r} is not a function; decorate a function or method"
        )
    plain = inspect.unwrap(function)
    code = getattr(plain, "__code__", None)
    file = code.co_filename if code is not None else "<unknown>"
    line = code.co_firstlineno if code is not None else 0
    module = getattr(function, "__module__", "") or ""
    qualname = f"{module}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    where = f"{file}:{line}: {qualname}"
    if kind is Kind.ROUTE:
        _check_route(route, where)
    is_async = any(inspect.iscoroutinefunction(f) for f in (function, plain, type(plain).__call__))
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise ConfigError(f"{where}: it yields; a handler returns its answer, and pushes what else there is to say")
    if is_async and kind is Kind.TICK:
        raise ConfigError(
            f"{where}: a tick can't wait; write def in place of async def, and give what waits to app.task(...)"
        )
    if concurrent and not is_async:
        raise ConfigError(f"{where}: concurrent=True is for async def: others run only while a handler awaits")
    try:
        signature = inspect.signature(function)
        hints = _hints(function, depth + 1)
    except NameError as error:
        raise ConfigError(
            f"{where}: annotation names {error.name!r}, which is not defined here; import it or spell it right"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: its signature can't be read: {error}") from error
    letters: list[str] = []
    decode: Callable[[bytes], Any] | None = None
    session_class: type[Session] | None = None
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"{where}: parameter {parameter.name!r} is {parameter.kind.description}; handlers take plain parameters only"
            )
        if parameter.name not in hints:
            raise ConfigError(f"{where}: parameter {parameter.name!r} has no annotation; {_may_stand(kind)}")
        annotation = hints[parameter.name]
        letter = _letter(kind, annotation)
        if letter is None or letter not in _ALLOWED[kind]:
            raise ConfigError(
                f"{where}: parameter {parameter.name!r}: {_spell(annotation)} can't be filled here; {_may_stand(kind)}"
            )
        if letter in letters or (letter in "bj" and ("b" in letters or "j" in letters)):
            raise ConfigError(f"{where}: parameter {parameter.name!r}: a second {_MEANING[letter]}; one is enough")
        letters.append(letter)
        if letter == "s":
            session_class = annotation
        elif letter in "ju":
            decode = _decoder(annotation, where, parameter.name)
    return Handler(
        kind=kind,
        route=route,
        qualname=qualname,
        file=file,
        line=line,
        call=function,
        arguments="".join(letters),
        decode=decode,
        session_class=session_class,
        is_async=is_async,
        concurrent=concurrent,
        interval=interval,
    )


class Registry:
    """The decorators that `App` and `Router` share."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []

    def on(self, route: str, *, concurrent: bool = False) -> Callable[[F], F]:
        """Handles requests and notifies to `route`; what the function returns answers a request.

        Parameters of the function are filled by their annotations: `Session` (or your subclass), and one of `bytes`
        (the body as it came), `dict` or `list` (the body as JSON; `dict[str, int]` and the like are checked).
        It may return `bytes`, `None` (an empty body) or anything that is JSON. Sync or async.

        Args:
            route: 1 to 255 bytes of UTF-8, as clients spell it.
            concurrent: an async handler may run beside others of the same session; else they go one at a time, in order.

        Raises:
            ConfigError: the signature or the route is wrong; says where and what may stand there.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on("echo")
        ... def echo(session: Session, body: bytes) -> bytes:
        ...     return body
        """
        if not isinstance(route, str):
            raise ConfigError(f"{here(1)}@on({_spell(route)}): give the route as a string: @app.on('room.echo')")

        def register(function: F) -> F:
            self._add(make_handler(Kind.ROUTE, function, route=route, concurrent=concurrent))
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
        """Called when a session is cut or falls silent: it may come back within `resume_grace` seconds.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_drop
        ... def drop(session: Session) -> None: ...
        """
        return self._plain(Kind.DROP, function)

    def on_resume(self, function: F) -> F:
        """Called when a dropped session is heard again.

        >>> from gameserver import App, Session
        >>> app = App("doc")
        >>> @app.on_resume
        ... def resume(session: Session) -> None: ...
        """
        return self._plain(Kind.RESUME, function)

    def on_leave(self, function: F) -> F:
        """Called exactly once for every session that joined, when it is gone for good.

        >>> from gameserver import App, Left, Session
        >>> app = App("doc")
        >>> @app.on_leave
        ... def leave(session: Session, why: Left) -> None: ...
        """
        return self._plain(Kind.LEAVE, function)

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
            raise ConfigError(f"{here(1)}@every({_spell(seconds)}): give seconds from 0.001 up: @app.every(60)")

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
            raise ConfigError(f"{here(1)}Router({_spell(prefix)}): the prefix is a string: Router('chat')")
        self.prefix = prefix
        self._is_included = False

    def _add(self, handler: Handler) -> None:
        if self._is_included:
            raise ConfigError(
                f"{handler.where}: its router was included already, and this would be missed; call app.include after it"
            )
        if handler.kind is Kind.ROUTE and self.prefix:
            route = f"{self.prefix}.{handler.route}"
            _check_route(route, handler.where)
            handler = replace(handler, route=route)
        super()._add(handler)


def check_sessions(handlers: Sequence[Handler], session_class: type[Session]) -> None:
    """Every handler's session parameter must accept the app's session class.

    Raises:
        ConfigError: one does not.
    """
    for handler in handlers:
        wanted = handler.session_class
        if wanted is not None and not issubclass(session_class, wanted):
            raise ConfigError(
                f"{handler.where}: takes a {wanted.__qualname__}, but the app's sessions are {session_class.__qualname__}; "
                f"write App(..., session={wanted.__qualname__})"
            )


def here(depth: int) -> str:
    """File and line of the caller `depth` frames above the one that asks, for the beginning of a message."""
    frame = sys._getframe(depth + 1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: "


def suggest(wrong: str, known: Sequence[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_route(route: str, where: str) -> None:
    try:
        length = len(route.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: route {route!r} is no valid text: {error.reason}") from error
    if not 1 <= length <= ROUTE_BYTES_MAX:
        raise ConfigError(f"{where}: route {route[:40]!r} has {length} bytes; 1 to {ROUTE_BYTES_MAX} fit on the wire")
    if route.startswith("$"):
        raise ConfigError(f"{where}: route {route!r}: names that begin with $ are the server's own; choose another")


def _hints(function: Callable[..., Any], depth: int) -> dict[str, Any]:
    frame: types.FrameType | None = sys._getframe(depth)
    names = dict(frame.f_locals) if frame is not None else {}
    target = function if hasattr(function, "__annotations__") else type(function).__call__
    return typing.get_type_hints(target, localns=names)


def _letter(kind: Kind, annotation: Any) -> str | None:
    if isinstance(annotation, type) and issubclass(annotation, Session):
        return "s"
    if annotation is Left:
        return "w"
    if annotation is float and kind is Kind.TICK:
        return "d"
    if annotation is bytes:
        return "b"
    origin = typing.get_origin(annotation) or annotation
    if origin in (dict, list):
        return "u" if kind is Kind.AUTHENTICATE and origin is dict else "j"
    return None


def _decoder(annotation: Any, where: str, name: str) -> Callable[[bytes], Any]:
    try:
        return msgspec.json.Decoder(annotation).decode
    except TypeError as error:
        raise ConfigError(f"{where}: parameter {name!r}: {_spell(annotation)} is not JSON: {error}") from error


def _may_stand(kind: Kind) -> str:
    allowed = _ALLOWED[kind]
    if not allowed:
        return "it takes no parameters"
    return "here may stand: " + ", ".join(_MEANING[letter] for letter in allowed)


def _spell(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
