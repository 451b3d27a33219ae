"""The asyncio loop that waits in the core: asyncio is the guest, its descriptors wait beside ours.

`select()` is where the core waits for sockets and deadlines and dispatches; it returns to asyncio after each batch
that gave asyncio anything to do.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from gameserver._core import Core


class CoreSelector(selectors._BaseSelectorImpl):
    """asyncio's selector, whose `select` is the core's turn."""

    def __init__(self, core: Core) -> None:
        super().__init__()
        self._core = core
        self.keys: dict[int, selectors.SelectorKey] = self._fd_to_key  # type: ignore[attr-defined]
        self.select = core.select  # type: ignore[method-assign] # no Python frame between asyncio and the core

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._core.watch(key.fd, bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE))
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = super().unregister(fileobj)
        self._core.unwatch(key.fd)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:  # pragma: no cover
        raise RuntimeError("replaced by the core's turn in __init__")


class GameLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in which a task's first step can run at once: see `begin`."""

    task_class: type[asyncio.Task[Any]] = asyncio.Task
    is_replay = False

    def __init__(self, selector: selectors.BaseSelector, core: Core) -> None:
        super().__init__(selector)
        self.core = core
        self.stopping: asyncio.Event | None = None
        """Set when the server is to stop."""

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def call_from_signal(self, function: Callable[[], object]) -> None:
        """Calls a function soon; for a signal's handler, which may interrupt anything."""
        self.call_soon_threadsafe(function)

    def stop(self) -> None:
        """As asyncio's; from a handler too: the core returns to asyncio only when it has something to call."""
        super().stop()
        if not self.is_closed():
            self.call_soon(lambda: None)

    if sys.version_info >= (3, 12):

        def begin(self, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> asyncio.Task[Any]:
            """A real task whose first step has run; it is done already if nothing made it wait."""
            return self.task_class(coroutine, loop=self, context=context, eager_start=True)

    else:

        def begin(self, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> asyncio.Task[Any]:
            """A real task whose first step has run; it is done already if nothing made it wait.

            Python 3.12 has eager tasks; before, the step that a new task schedules is kept and called here.
            """
            steps: list[tuple[Callable[[], object], Context]] = []

            def keep(step: Callable[[], object], *, context: Context) -> None:
                steps.append((step, context))

            self.call_soon = keep  # type: ignore[method-assign, assignment]
            try:
                task = self.task_class(coroutine, loop=self, context=context)
            finally:
                del self.call_soon
            [(step, kept_context)] = steps
            kept_context.run(step)
            return task


async def as_coroutine(awaitable: Any) -> Any:
    """What a handler returned that is no coroutine of Python's own, as one."""
    return await awaitable
