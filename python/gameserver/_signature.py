"""From a decorated function to a call plan, once, at registration."""

from __future__ import annotations

import difflib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gameserver import _answer
from gameserver._answer import Answer, is_message, is_own_message, route_of
from gameserver._batch import Batch
from gameserver._core import Session
from gameserver._entity import Entity
from gameserver._limit import Limit, limit_of
from gameserver._member import Member
from gameserver._types import Left
from gameserver.errors import ConfigError

if TYPE_CHECKING:
    from gameserver._middleware import Middleware

Keep = Literal["all", "last"]

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
    CONGESTED = "congested"
    RELIEVED = "relieved"
    LEAVE = "leave"
    AUTHENTICATE = "authenticate"
    TICK = "tick"
    EVERY = "every"
    START = "start"
    STOP = "stop"
    DRAIN = "drain"
    EVENT = "event"

    @property
    def decorator(self) -> str:
        """As the game writes it."""
        if self is Kind.ROUTE:
            return "@app.on"
        if self is Kind.EVERY:
            return "@app.every(seconds)"
        if self is Kind.EVENT:
            return "@app.on_event(...)"
        return f"@app.{self}" if self in (Kind.AUTHENTICATE, Kind.TICK) else f"@app.on_{self}"


class Argument(StrEnum):
    """What stands in one place of a handler's signature; one letter each, read by the core."""

    SESSION = "s"
    BYTES = "b"
    JSON = "j"
    MESSAGE = "m"
    BATCH = "n"
    WHY = "w"
    DT = "d"
    USER = "u"
    ENTITY = "e"
    EVENT = "v"


@dataclass(frozen=True, slots=True)
class Service:
    """A parameter that nothing of the message fills: what it names is made by a provider (`App.provide`)."""

    name: str
    cls: Any
    place: int
    """Among the parameters, `self` included."""
    where: str = ""


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
    message: type | None
    """The class that its body is, if it is a message."""
    answer: Answer | None
    """What it answers, if the return annotation names messages."""
    keep: Keep
    """Of a batch handler: every message, or only the newest of each session."""
    session_class: type[Session] | type[Member] | None
    """What it takes of who sent: in a room, a `Member`."""
    entity_class: type[Entity] | None
    """The class of the sender's entity that it takes."""
    is_async: bool
    concurrent: bool
    interval: float
    limit: Limit | None
    """How often each client may send to its route."""
    services: tuple[Service, ...] = ()
    method_of: type | None = None
    """The class of rooms that it is a method of."""
    middleware: tuple[Middleware, ...] = ()
    """What it is within, the first one outermost; the app's own not among them."""

    @property
    def is_batch(self) -> bool:
        """Whether it takes all of a tick at once."""
        return Argument.BATCH in self.arguments

    @property
    def where(self) -> str:
        """File, line and name, for messages."""
        return f"{self.file}:{self.line}: {self.qualname}"


# Which arguments a kind of handler may take, and what to say of them.
_ALLOWED: Mapping[Kind, str] = {
    Kind.ROUTE: "sembjn",
    Kind.JOIN: "s",
    Kind.DROP: "s",
    Kind.RESUME: "s",
    Kind.CONGESTED: "s",
    Kind.RELIEVED: "s",
    Kind.LEAVE: "sw",
    Kind.AUTHENTICATE: "su",
    Kind.TICK: "d",
    Kind.EVERY: "",
    Kind.START: "",
    Kind.STOP: "",
    Kind.DRAIN: "",
    Kind.EVENT: "v",
}
_BODIES = "bjmn"
_MEANING: Mapping[str, str] = {
    "s": "Session (or your subclass of it)",
    "b": "bytes (the body as it came)",
    "j": "dict or list (the body as JSON)",
    "e": "your subclass of Entity (the sender's own)",
    "m": "your subclass of Message (the body, checked)",
    "n": "Batch[...] of it (all of a tick)",
    "w": "Left (why the session left)",
    "d": "float (the fixed step in seconds)",
    "u": "dict (the handshake's user object)",
    "v": "your subclass of Event, or a list of it (a batch)",
}


def make_handler(
    kind: Kind,
    function: Callable[..., Any],
    *,
    route: str | None = None,
    concurrent: bool = False,
    keep: Keep = "all",
    interval: float = 0.0,
    rate: str | None = None,
    burst: int | None = None,
    over: str = "refuse",
    depth: int = 2,
    method_of: type | None = None,
    names: Mapping[str, Any] | None = None,
) -> Handler:
    """Reads the signature of `function` into a plan.

    `depth` says how many frames up the decorated function is being defined: its local names may stand in annotations.
    Of a method of a room, `method_of` is the class and `names` what its annotations may use beside its module's globals.
    Without a route, it is the name of the message that the function takes.

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
    if route is not None:
        check_route(route, where)
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
        hints = hints_of(function, depth + 1, names)
    except NameError as error:
        raise ConfigError(
            f"{where}: annotation names {error.name!r}, which is not defined here; import it or spell it right"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: its signature can't be read: {error}") from error
    letters: list[str] = []
    decode: Callable[[bytes], Any] | None = None
    message: type | None = None
    session_class: type[Session] | type[Member] | None = None
    entity_class: type[Entity] | None = None
    services: list[Service] = []
    parameters = list(signature.parameters.values())
    own = 1 if method_of is not None else 0
    for place, parameter in enumerate(parameters[own:], own):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise ConfigError(
                f"{where}: parameter {parameter.name!r} is {parameter.kind.description}; handlers take plain parameters only"
            )
        if parameter.name not in hints:
            raise ConfigError(f"{where}: parameter {parameter.name!r} has no annotation; {_may_stand(kind)}")
        annotation = hints[parameter.name]
        letter = _letter(kind, annotation, Session if method_of is None else Member)
        if letter is None and may_be_service(annotation):
            services.append(Service(parameter.name, annotation, place, where))
            continue
        if letter is None or letter not in _ALLOWED[kind]:
            raise ConfigError(
                f"{where}: parameter {parameter.name!r}: {_spell(annotation)} can't be filled here; {_may_stand(kind)}"
            )
        if letter in letters or (letter in _BODIES and any(other in _BODIES for other in letters)):
            raise ConfigError(f"{where}: parameter {parameter.name!r}: a second {_MEANING[letter]}; one is enough")
        letters.append(letter)
        if letter == "s":
            session_class = annotation
        elif letter == "e":
            entity_class = annotation
        elif letter == "m":
            message = annotation
        elif letter == "n":
            message = _batched(annotation, where, parameter.name)
        elif letter in "ju":
            decode = _decoder(annotation, where, parameter.name)
    if "n" in letters and method_of is not None:
        raise ConfigError(f"{where}: batches are handed to the app's tick; in a room take the message itself")
    answer = _answer.of(hints.get("return"), where) if kind is Kind.ROUTE else None
    if "n" in letters:
        _check_batch(letters, is_async, answer, where)
    elif keep != "all":
        raise ConfigError(f"{where}: keep={keep!r} is for batches: annotate the parameter with Batch[...]")
    if kind is Kind.ROUTE and route is None:
        if message is None:
            raise ConfigError(
                f"{where}: @app.on takes the route from the message, and there is none here; "
                "annotate a parameter with your subclass of Message, or give a route: @app.on('room.echo')"
            )
        route = route_of(message)
        check_route(route, where)
    return Handler(
        kind=kind,
        route=route or "",
        qualname=qualname,
        file=file,
        line=line,
        call=function,
        arguments="".join(letters),
        decode=decode,
        message=message,
        answer=answer,
        keep=keep,
        session_class=session_class,
        entity_class=entity_class,
        is_async=is_async,
        concurrent=concurrent,
        interval=interval,
        limit=limit_of(rate, burst, over, where),
        services=tuple(services),
        method_of=method_of,
        middleware=tuple(getattr(function, "_gameserver_middleware", ())),
    )


def here(depth: int) -> str:
    """File and line of the caller `depth` frames above the one that asks, for the beginning of a message."""
    frame = sys._getframe(depth + 1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}: "


def suggest(wrong: str, known: Sequence[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_route(route: str, where: str) -> None:
    try:
        length = len(route.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(f"{where}: route {route!r} is no valid text: {error.reason}") from error
    if not 1 <= length <= ROUTE_BYTES_MAX:
        raise ConfigError(f"{where}: route {route[:40]!r} has {length} bytes; 1 to {ROUTE_BYTES_MAX} fit on the wire")
    if route.startswith("$"):
        raise ConfigError(f"{where}: route {route!r}: names that begin with $ are the server's own; choose another")


def hints_of(function: Callable[..., Any], depth: int, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Annotations, evaluated; local names may stand in them, of `depth` frames up.

    Raises:
        NameError: one names what is not there.
    """
    frame: types.FrameType | None = sys._getframe(depth)
    names = dict(known if known is not None else frame.f_locals if frame is not None else {})
    target = function if hasattr(function, "__annotations__") else type(function).__call__
    return typing.get_type_hints(target, localns=names)


def _letter(kind: Kind, annotation: Any, person: type) -> str | None:
    if isinstance(annotation, type) and issubclass(annotation, person):
        return "s"
    if isinstance(annotation, type) and issubclass(annotation, Entity) and annotation is not Entity:
        return "e"
    if kind is Kind.EVENT:
        (inner,) = typing.get_args(annotation) if typing.get_origin(annotation) is list else (annotation,)
        return "v" if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None
    if annotation is Left:
        return "w"
    if annotation is float and kind is Kind.TICK:
        return "d"
    if annotation is bytes:
        return "b"
    if is_message(annotation):
        return "m"
    if annotation is Batch or typing.get_origin(annotation) is Batch:
        return "n"
    origin = typing.get_origin(annotation) or annotation
    if origin in (dict, list):
        return "u" if kind is Kind.AUTHENTICATE and origin is dict else "j"
    return None


def may_be_service(annotation: Any) -> bool:
    """A class of the game's own: whether anybody provides it is known when the server starts."""
    cls = typing.get_origin(annotation) or annotation
    if not isinstance(cls, type) or cls.__module__ in ("builtins", "typing", "types", "collections.abc"):
        return False
    if cls.__module__ == "gameserver":  # where all that is ours says it is from
        return cls.__qualname__ == "App"
    return not issubclass(cls, (Session, Member, Entity, Batch, Left, msgspec.Struct)) and not is_message(cls)


def _decoder(annotation: Any, where: str, name: str) -> Callable[[bytes], Any]:
    try:
        return msgspec.json.Decoder(annotation).decode
    except TypeError as error:
        raise ConfigError(f"{where}: parameter {name!r}: {_spell(annotation)} is not JSON: {error}") from error


def _batched(annotation: Any, where: str, name: str) -> type:
    inner = typing.get_args(annotation)
    if len(inner) == 1 and is_own_message(inner[0]):
        message: type = inner[0]
        return message
    raise ConfigError(f"{where}: parameter {name!r}: {_spell(annotation)}: a batch is of one Message: Batch[Move]")


def _check_batch(letters: Sequence[str], is_async: bool, answer: Answer | None, where: str) -> None:
    if len(letters) > 1:
        raise ConfigError(
            f"{where}: a batch is of many sessions, and its handler takes nothing else: see batch.sessions"
        )
    if is_async:
        raise ConfigError(
            f"{where}: a batch is handled within a tick, which can't wait; write def in place of async def"
        )
    if answer is not None:
        raise ConfigError(f"{where}: nobody waits for an answer to a batch; push what there is to say")


def _may_stand(kind: Kind) -> str:
    allowed = _ALLOWED[kind]
    if not allowed:
        return "it takes no parameters"
    return "here may stand: " + ", ".join(_MEANING[letter] for letter in allowed)


def _spell(annotation: Any) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
