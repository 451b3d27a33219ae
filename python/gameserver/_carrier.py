"""Tasks that lend themselves to async handlers.

An async handler needs a task that is current while it runs, for `asyncio.timeout` and task groups; it needs one of its
own only when it waits. So a few tasks wait, and the core makes one of them current for a handler's first step. Most
handlers end there. One that waits hands itself over: its carrier drives the rest, and lends itself again afterwards.
"""

from __future__ import annotations

import asyncio
import types
from asyncio.tasks import _enter_task, _leave_task  # type: ignore[attr-defined] # what asyncio's own eager tasks use
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameserver._loop import GameLoop

__all__ = ["Carrier", "as_coroutine"]

Done = Callable[[Any, BaseException | None], object]


class Carrier:
    """A task, and the context that it runs handlers in; it waits as soon as it is made."""

    __slots__ = ("_coroutine", "_done", "_loop", "_waiting", "_yielded", "task")

    def __init__(self, loop: GameLoop, context: Context) -> None:
        self._loop = loop
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._yielded: Any = None
        self._done: Done | None = None
        self._waiting: asyncio.Future[None]
        self.task = loop.begin(self._carry(), context)

    def hand_over(self, coroutine: Coroutine[Any, Any, Any], yielded: Any, done: Done) -> None:
        """Drives a coroutine on that has taken its first step as this task; `yielded` is what it waits for.

        `done(value, error)` is called, outside of any task, when it has ended.
        """
        self._coroutine, self._yielded, self._done = coroutine, yielded, done
        if not self._waiting.done():  # else the handler has cancelled its task, which is told to it in a moment
            self._waiting.set_result(None)

    def retire(self) -> None:
        """Ends the task: a handler has left its traces in it."""
        self.task.cancel()

    async def _carry(self) -> None:
        self._waiting = self._loop.create_future()
        while True:
            is_cancelled = False
            try:
                await self._waiting
            except asyncio.CancelledError:
                if self._coroutine is None:
                    raise
                is_cancelled = True
            coroutine, yielded, done = self._coroutine, self._yielded, self._done
            assert coroutine is not None
            assert done is not None
            self._coroutine = self._yielded = self._done = None
            self._waiting = self._loop.create_future()  # `done` may find the next handler for this task
            try:
                self._finish(done, await _rest(coroutine, yielded, is_cancelled), None)
            except (SystemExit, KeyboardInterrupt) as error:
                self._finish(done, None, error)
                raise
            except BaseException as error:
                self._finish(done, None, error)
            coroutine = yielded = done = None
            if self.task.cancelling():
                return

    def _finish(self, done: Done, value: Any, error: BaseException | None) -> None:
        """Tells the end. What follows from it is no part of this task, so no task is current meanwhile."""
        _leave_task(self._loop, self.task)
        try:
            done(value, error)
        except BaseException as failure:
            self._loop.call_exception_handler({"message": "the end of a handler failed", "exception": failure})
        finally:
            _enter_task(self._loop, self.task)


async def as_coroutine(awaitable: Any) -> Any:
    """What a handler returned that is no coroutine of Python's own, as one."""
    return await awaitable


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, Any], yielded: Any, is_cancelled: bool) -> Generator[Any, Any, Any]:
    """The coroutine from its first `yielded` on. `is_cancelled`: its task was, within the first step."""
    error: BaseException | None = None
    if yielded is None:  # a bare yield, as of `asyncio.sleep(0)`: its turn has come
        if not is_cancelled:
            return (yield from coroutine)  # type: ignore[misc]
        error = asyncio.CancelledError()
    elif is_cancelled:
        yielded.cancel()
    while True:
        if error is None:
            try:
                yield yielded
            except BaseException as raised:
                error = raised
            else:
                return (yield from coroutine)  # type: ignore[misc]
        try:
            yielded = coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        error = None
