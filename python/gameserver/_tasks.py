"""Tasks that go on whatever happens, and end when they are asked to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

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


async def ended(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancels tasks until they are done: a library may have swallowed the first time, as redis-py does now and then."""
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN)
