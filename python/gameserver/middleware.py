"""Middleware: what runs around handlers, whoever they are. docs/services.md.

A middleware is a generator of a `Call`: what stands before its one ``yield`` runs before the handler, what stands behind it after.
``yield`` gives what the handler returned, and raises what it raised. One that returns without a ``yield`` has answered, with
`Call.result`, and the handler does not run. A ``def`` goes around handlers with and without ``async``; an ``async def`` makes
what it goes around wait.

>>> from collections.abc import Generator
>>> from gameserver import App, Session
>>> from gameserver.middleware import Call
>>> app = App("doc")
>>> @app.middleware
... def loud(call: Call) -> Generator[None, object, None]:
...     answer = yield
...     call.result = f"{answer}!"
>>> @app.on("hello")
... def hello(session: Session) -> str:
...     return "hello"
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import Any

from gameserver._core import Session
from gameserver._middleware import Call, use
from gameserver.errors import Refuse

__all__ = ["Call", "Timing", "audit", "idempotent", "require_role", "require_uid", "unit_of_work", "use"]

Plain = Callable[[Call], Generator[None, Any, None]]

log = logging.getLogger("gameserver.audit")

BUSY = object()


def require_uid() -> Plain:
    """Lets nobody in whom `@app.authenticate` has given no uid: they are answered with ``GS-401``.

    >>> guard = require_uid()
    """

    def require_uid(call: Call) -> Generator[None, Any, None]:
        if call.session.uid is None:
            raise Refuse("GS-401", "log in first")
        yield

    return require_uid


def require_role(
    role: str, *, roles_of: Callable[[Session], Any] = lambda session: getattr(session, "roles", ())
) -> Plain:
    """Lets only those in who have a role; others are answered with ``GS-403``.

    Args:
        roles_of: of a session, what it may be: anything with ``in``. By default its attribute `roles`, of your `Session` class.

    >>> guard = require_role("admin", roles_of=lambda session: {"admin"} if session.uid == "root" else ())
    """

    def require_role(call: Call) -> Generator[None, Any, None]:
        if role not in roles_of(call.session):
            raise Refuse("GS-403", f"this is for {role}s")
        yield

    return require_role


@dataclass(slots=True)
class _Spent:
    count: int = 0
    failed: int = 0
    seconds: float = 0.0
    longest: float = 0.0


class Timing:
    """How long handlers take, by route; waiting of an ``async def`` included.

    >>> from gameserver import App
    >>> app, timing = App("doc"), Timing()
    >>> around = app.middleware(timing.around)
    >>> timing.routes()
    {}
    """

    def __init__(self) -> None:
        self._spent: dict[str, _Spent] = {}

    def around(self, call: Call) -> Generator[None, Any, None]:
        """The middleware."""
        began, failed = time.perf_counter(), 1
        try:
            yield
            failed = 0
        finally:
            took = time.perf_counter() - began
            spent = self._spent.setdefault(call.handler.route, _Spent())
            spent.count += 1
            spent.failed += failed
            spent.seconds += took
            spent.longest = max(spent.longest, took)

    def routes(self) -> dict[str, dict[str, float]]:
        """By route: `count`, how many `failed` (refusals included), `mean` and `longest` in s."""
        return {
            route: {"count": s.count, "failed": s.failed, "mean": s.seconds / s.count, "longest": s.longest}
            for route, s in self._spent.items()
        }


def unit_of_work(cls: type[Any]) -> Callable[..., Any]:
    """Commits what a handler did if it returns, and rolls it back if it raises.

    Args:
        cls: the service, as long-lived as the message, that the handler takes, too; with `commit()` and `rollback()`, both sync or
            both async.

    >>> class Work:
    ...     def commit(self) -> None: ...
    ...     def rollback(self) -> None: ...
    >>> around = unit_of_work(Work)
    """

    async def around_async(call: Call, work: Any) -> AsyncGenerator[None, Any]:
        try:
            yield
        except BaseException:
            await work.rollback()
            raise
        await work.commit()

    def around_sync(call: Call, work: Any) -> Generator[None, Any, None]:
        try:
            yield
        except BaseException:
            work.rollback()
            raise
        work.commit()

    around: Callable[..., Any] = around_async if inspect.iscoroutinefunction(cls.commit) else around_sync
    around.__annotations__["work"] = cls
    around.__qualname__ = f"unit_of_work({cls.__qualname__})"
    return around


def audit(write: Callable[[dict[str, Any]], object] | None = None) -> Plain:
    """Writes down who did what, and how it went.

    Args:
        write: gets ``{"route", "uid", "session", "message", "outcome", "seconds"}`` of each call; the outcome is ``"done"`` or the
            error, a refusal's as its code. None: a line of the logger ``gameserver.audit``.

    >>> written = []
    >>> around = audit(written.append)
    """

    def audit(call: Call) -> Generator[None, Any, None]:
        began, outcome = time.perf_counter(), "done"
        try:
            yield
        except Refuse as refusal:
            outcome = refusal.code
            raise
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            entry = {
                "route": call.handler.route,
                "uid": call.session.uid,
                "session": call.session.id,
                "message": call.message,
                "outcome": outcome,
                "seconds": time.perf_counter() - began,
            }
            if write is not None:
                write(entry)
            else:
                log.info("%s", " ".join(f"{name}={value!r}" for name, value in entry.items()))

    return audit


def idempotent(
    key: Callable[[Call], object],
    *,
    seconds: float = 600.0,
    keys_max: int = 100_000,
    clock: Callable[[], float] = time.monotonic,
) -> Plain:
    """Runs a request once, however often it comes: the same key of the same person gets the first one's answer.

    While the first is under way, others are answered with ``GS-409``; one that failed may be tried again. It is kept in this
    process: what must be once across processes and restarts belongs into the transaction.

    Args:
        key: of a call, as the client has chosen it for the request and its repetitions; None: this one has none.
        seconds: for which answers are kept.
        keys_max: answers that are kept; beyond it the oldest go.

    >>> around = idempotent(lambda call: call.message.get("key"))
    """
    answers: OrderedDict[object, tuple[float, Any]] = OrderedDict()

    def idempotent(call: Call) -> Generator[None, Any, None]:
        own = key(call)
        if own is None:
            yield
            return
        who = (call.session.uid if call.session.uid is not None else call.session.id, call.handler.route, own)
        now = clock()
        while answers and (len(answers) > keys_max or next(iter(answers.values()))[0] + seconds <= now):
            answers.popitem(last=False)
        if who in answers:
            result = answers[who][1]
            if result is BUSY:
                raise Refuse("GS-409", "the same request is under way")
            call.result = result
            return
        answers[who] = (now, BUSY)
        try:
            answers[who] = (now, (yield))
        except BaseException:
            answers.pop(who, None)
            raise

    return idempotent
