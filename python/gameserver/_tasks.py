"""Tasks that end when they are asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN = 0.2  # s


async def ended(tasks: Iterable[asyncio.Task[Any] | None]) -> None:
    """Cancels tasks until they are done: a library may have swallowed the first time, as redis-py does now and then."""
    waiting = {task for task in tasks if task is not None}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN)
