"""Leases: what a lock stands on; in Redis (`_redis/leases.py`), or here, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Lease", "Leases", "LocalLeases"]

WRITTEN_MAX = 100_000  # locks of this process under which something is kept


@dataclass(frozen=True, slots=True)
class Lease:
    """What a store says to somebody who wants a lock."""

    fence: int
    """The fencing token, above 0; 0: somebody else has it."""
    left: float
    """Then: seconds until it ends by itself, if nobody renews it."""


class Leases(Protocol):
    """Where leases are kept."""

    expire: bool
    """They end by themselves: renew them."""

    async def take(self, name: str, holder: str, ttl: float) -> Lease:
        """Takes it, if it is free; again, if the holder has it."""
        ...

    async def renew(self, name: str, holder: str, ttl: float) -> bool:
        """False: the holder does not have it (any more)."""
        ...

    async def give_back(self, name: str, holder: str) -> None:
        """Ends it, if the holder has it, and wakes those who wait."""
        ...

    def watch(self, name: str) -> AbstractAsyncContextManager[Callable[[float], Awaitable[None]]]:
        """Within the block it is heard of when somebody gives it back: what it gives waits for that, so many seconds at most."""
        ...

    async def write(self, name: str, key: str, fence: int, value: bytes) -> bool:
        """False: there is a newer lease than this one."""
        ...

    async def read(self, name: str, key: str) -> bytes | None:
        """What was written last."""
        ...


class LocalLeases:
    """In this process: leases do not end by themselves, since their holders can't be gone without it."""

    expire = False

    def __init__(self) -> None:
        self._fence = 0
        self._fences: dict[str, int] = {}
        self._values: dict[str, dict[str, bytes]] = {}  # by lock; who wrote last stands last

    async def take(self, name: str, holder: str, ttl: float) -> Lease:
        """Always: who waits in this process has waited already."""
        # From the clock, so that it goes on growing when the process is started anew.
        self._fence = max(self._fence + 1, time.time_ns() // 1000)
        self._fences[name] = self._fence
        return Lease(self._fence, 0.0)

    async def renew(self, name: str, holder: str, ttl: float) -> bool:
        return True

    async def give_back(self, name: str, holder: str) -> None:
        if name not in self._values:
            self._fences.pop(name, None)

    @contextlib.asynccontextmanager
    async def watch(self, name: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        yield asyncio.sleep

    async def write(self, name: str, key: str, fence: int, value: bytes) -> bool:
        if fence < self._fences.get(name, 0):
            return False
        values = self._values[name] = self._values.pop(name, {})
        values[key] = value
        if len(self._values) > WRITTEN_MAX:
            oldest = next(iter(self._values))
            del self._values[oldest]
            self._fences.pop(oldest, None)
        return True

    async def read(self, name: str, key: str) -> bytes | None:
        return self._values.get(name, {}).get(key)
