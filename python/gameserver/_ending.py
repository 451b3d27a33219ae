"""The end of a run: what still runs is cancelled, waited for, and then left behind by name."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

log = logging.getLogger("gameserver")

MOMENT = 0.1
"""s; who is cancelled may take this long to end, however short `drain_timeout` is."""


class Ending:
    """The deadline of all that a run's end waits for together; it begins when it is first asked for.

    Args:
        seconds: what all of it may take. Each step has a moment even when they are used up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = max(seconds, MOMENT)
        self._deadline: float | None = None

    def left(self) -> float:
        """Seconds that the next step may take."""
        now = asyncio.get_running_loop().time()
        if self._deadline is None:
            self._deadline = now + self._seconds
        return max(self._deadline - now, MOMENT)

    async def end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancels tasks and waits for them until the deadline. One that swallows its cancellation is left where it waits.

        Its loop is about to be closed, so it never goes on; who waits for all tasks of the loop does not see it any more.
        """
        tasks = set(tasks)
        for task in tasks:
            task.cancel()
        left = self.left()
        if not tasks:
            return
        _, stubborn = await asyncio.wait(tasks, timeout=left)
        if not stubborn:
            return
        names = Counter(name_of(task) for task in stubborn)
        text = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in sorted(names.items()))
        log.warning("left running, since cancelled it did not end within drain_timeout (%g s): %s", self._seconds, text)
        for task in stubborn:
            asyncio._unregister_task(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined] # it was told just now, and with a name

    async def within(self, task: asyncio.Future[Any]) -> None:
        """Waits for a task until the deadline; its error is raised here. One that takes longer is cancelled and not waited for.

        Raises:
            TimeoutError: it took longer.
        """
        _, late = await asyncio.wait({task}, timeout=self.left())
        if late:
            task.cancel()
            raise TimeoutError(f"not done within drain_timeout ({self._seconds:g} s)")
        if not task.cancelled():
            task.result()


def name_of(task: asyncio.Task[Any]) -> str:
    """The qualified name of what a task runs."""
    coroutine: Any = task.get_coro()
    name = getattr(coroutine, "__qualname__", None) or repr(coroutine)
    frame = getattr(coroutine, "cr_frame", None)
    return name if frame is None else f"{frame.f_globals.get('__name__', '?')}.{name}"
