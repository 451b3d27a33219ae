"""Tasks that go on whatever happens, and end when they are asked to; coroutines that need none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from gameserver.errors import GameServerError

T = TypeVar("T")

log = logging.getLogger("gameserver")

PAUSE = 1.0  # s after what nobody expected
AGAIN = 0.2  # s


def begin(name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
    """Runs something for ever; an error that it does not know is logged, and it begins anew."""
    return asyncio.get_running_loop().create_task(_persevere(name, run), name=name)


async def _persevere(name: str, run: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await run()
        except Exception:
            log.exception("%s has failed, and begins anew", name)
        await asyncio.sleep(PAUSE)


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not wait.

    Raises:
        GameServerError: it does.
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise GameServerError("something has to be waited for where nobody can: in a handler without async")


async def ended(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancels tasks until they are done: a library may have swallowed the first time, as redis-py does now and then."""
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN)
