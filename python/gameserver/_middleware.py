"""Middleware: generators around handlers. What stands before `yield` runs before the handler, what stands behind it after."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from gameserver._core import Session
from gameserver._member import Member
from gameserver._signature import Argument, Handler, Kind, Service, hints_of, may_be_service
from gameserver._tasks import at_once
from gameserver.errors import ConfigError

__all__ = ["Call", "Middleware", "make_middleware", "use", "with_middleware"]

F = TypeVar("F", bound=Callable[..., Any])
MARK = "_gameserver_middleware"


class Call:
    """What a middleware sees of one message.

    >>> from collections.abc import Generator
    >>> def polite(call: Call) -> Generator[None, object, None]:
    ...     answer = yield
    ...     call.result = answer or "you are welcome"
    """

    __slots__ = ("handler", "member", "message", "result", "session")

    def __init__(self, handler: Handler, session: Session, member: Member | None, message: Any) -> None:
        self.handler = handler
        """What is called: its `route`, its `qualname`."""
        self.session = session
        """Who sent it."""
        self.member = member
        """The same in a room; None outside of one."""
        self.message = message
        """The body, as the handler takes it; None if it takes none."""
        self.result: Any = None
        """What the handler returned; what is set here is answered in its place."""


@dataclass(frozen=True, slots=True)
class Middleware:
    """A function, read once."""

    function: Callable[..., Generator[None, Any, None] | AsyncGenerator[None, Any]]
    is_async: bool
    call_place: int
    services: tuple[Service, ...]
    where: str


def use(*middleware: Callable[..., Any]) -> Callable[[F], F]:
    """Puts middleware around one handler, the first one outermost; stands below `@app.on`, or `@on` in a room.

    Raises:
        ConfigError: one is no generator function of a `Call`.

    >>> from gameserver import App, Session
    >>> from gameserver.middleware import require_uid, use
    >>> app = App("doc")
    >>> @app.on("shout")
    ... @use(require_uid())
    ... def shout(session: Session, body: bytes) -> None: ...
    """
    made: list[Middleware] = []
    for function in middleware:  # no comprehension: local names are looked for so many frames up
        made.append(make_middleware(function, "@use"))

    def mark(function: F) -> F:
        function.__dict__[MARK] = (*made, *function.__dict__.get(MARK, ()))
        return function

    return mark


def make_middleware(function: Callable[..., Any], decorator: str) -> Middleware:
    """Reads a function.

    Raises:
        ConfigError: it is no generator function of a `Call` and services.
    """
    code = getattr(function, "__code__", None)
    place = f"{code.co_filename}:{code.co_firstlineno}: " if code is not None else ""
    where = f"{place}{getattr(function, '__qualname__', function)!s}"
    is_async = inspect.isasyncgenfunction(function)
    if not is_async and not inspect.isgeneratorfunction(function):
        raise ConfigError(
            f"{where}: {decorator}: a middleware is a generator: what stands before its one `yield` runs before the handler, "
            "what stands behind it after; `yield` gives what the handler returned"
        )
    try:
        hints = hints_of(function, 3)
    except NameError as error:
        raise ConfigError(f"{where}: annotation names {error.name!r}, which is not defined here") from error
    call_place, services = None, []
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        annotation = hints.get(parameter.name)
        if annotation is Call:
            call_place = number
        elif annotation is not None and may_be_service(annotation):
            services.append(Service(parameter.name, annotation, number, where))
        else:
            raise ConfigError(f"{where}: parameter {parameter.name!r}: a middleware takes a Call, and services")
    if call_place is None:
        raise ConfigError(f"{where}: a middleware takes a Call: def {function.__name__}(call: Call)")
    return Middleware(function, is_async, call_place, tuple(services), where)


def with_middleware(handler: Handler, outer: Sequence[Middleware]) -> Handler:
    """The handler within those of its app, outermost, and its own; itself if there are none.

    Raises:
        ConfigError: it is a batch, which is of many messages, and has some of its own.
    """
    if handler.kind is not Kind.ROUTE:
        return handler
    own = handler.middleware
    if handler.is_batch:
        if own:
            raise ConfigError(
                f"{handler.where}: a batch is of many messages, and runs without middleware: {own[0].where}"
            )
        return handler
    chain = (*outer, *own)
    if not chain:
        return handler
    in_room = handler.method_of is not None
    arguments = handler.arguments if Argument.SESSION in handler.arguments else Argument.SESSION + handler.arguments
    plan = _Plan(handler, chain, in_room, arguments)
    is_async = handler.is_async or any(middleware.is_async for middleware in chain)
    call: Any = plan.call_async() if is_async else plan.call()
    call.__module__, call.__qualname__ = handler.call.__module__, handler.qualname.rpartition(".")[2]
    return replace(handler, call=call, arguments=arguments, services=plan.services, is_async=is_async, middleware=())


class _Plan:
    """Where in the chain's arguments each one's are: the message's own, then the handler's services, then each middleware's."""

    def __init__(self, handler: Handler, chain: Sequence[Middleware], in_room: bool, arguments: str) -> None:
        self._handler, self._chain = handler, chain
        self._own = len(arguments) + in_room
        self._who = arguments.index(Argument.SESSION) + in_room
        self._in_room = in_room
        self._drops_who = arguments != handler.arguments
        bodies = [place for place, letter in enumerate(arguments, in_room) if letter in BODIES]
        self._body = bodies[0] if bodies else None
        services = [*handler.services]
        self._function_services = slice(self._own, self._own + len(services))
        self._slices = []
        for middleware in chain:
            start = self._own + len(services)
            services += middleware.services
            self._slices.append((middleware, slice(start, self._own + len(services))))
        self.services = tuple(replace(service, place=self._own + n) for n, service in enumerate(services))

    def call(self) -> Callable[..., Any]:
        """Of a chain where nothing waits: the same, done in one step."""
        chain = self.call_async()

        def run(*arguments: Any) -> Any:
            return at_once(chain(*arguments))

        return run

    def call_async(self) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Of one where the handler or a middleware may wait."""
        waits = self._handler.is_async

        async def chain(*arguments: Any) -> Any:
            call = self._made(arguments)
            begun: list[Any] = []
            error: BaseException | None = None
            try:
                for middleware, services in self._slices:
                    generator = _begun(middleware, call, arguments[services])
                    try:
                        if middleware.is_async:
                            await generator.__anext__()
                        else:
                            next(generator)
                    except (StopIteration, StopAsyncIteration):
                        break
                    begun.append(generator)
                else:
                    result = self._handler.call(*self._arguments(arguments))
                    call.result = await result if waits else result
            except BaseException as raised:
                error = raised
            while begun:
                generator = begun.pop()
                is_async = self._chain[len(begun)].is_async
                try:
                    if is_async:
                        await (generator.asend(call.result) if error is None else generator.athrow(error))
                        await generator.aclose()
                    elif error is None:
                        generator.send(call.result)
                        generator.close()
                    else:
                        generator.throw(error)
                        generator.close()
                    error = RuntimeError(f"{self._chain[len(begun)].where}: a middleware yields once")
                except (StopIteration, StopAsyncIteration):
                    error = None
                except BaseException as raised:
                    error = raised
            if error is not None:
                raise error
            return call.result

        return chain

    def _made(self, arguments: Sequence[Any]) -> Call:
        who = arguments[self._who]
        body = arguments[self._body] if self._body is not None else None
        session, member = (who.session, who) if self._in_room else (who, None)
        return Call(self._handler, session, member, body)

    def _arguments(self, arguments: tuple[Any, ...]) -> Sequence[Any]:
        """The handler's own."""
        own = arguments[: self._own]
        if self._drops_who:
            own = (*own[: self._who], *own[self._who + 1 :])
        if not self._handler.services:
            return own
        placed = list(own)
        for service, made in zip(self._handler.services, arguments[self._function_services], strict=True):
            placed.insert(service.place, made)
        return placed


BODIES = (Argument.BYTES, Argument.JSON, Argument.MESSAGE)


def _begun(middleware: Middleware, call: Call, services: Sequence[Any]) -> Any:
    arguments: list[Any] = list(services)
    arguments.insert(middleware.call_place, call)
    return middleware.function(*arguments)
