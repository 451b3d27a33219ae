"""The tier of caches that all processes share, and how they hear of what others change: client-side caching, in RESP3.

One connection for each server tracks all keys of caches (``CLIENT TRACKING ON BCAST``). While it is not there, what lies in this
process is doubtful, and Redis is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gameserver._redis.connection import Connection, Script
from gameserver._redis.keys import PREFIX
from gameserver._tasks import begin, ended
from gameserver.errors import Overloaded
from gameserver.locks import Lock, Locks

log = logging.getLogger("gameserver")

RECONNECT = 0.2  # s
SILENCE = 2.0  # s without a word, after which Redis is asked whether it is there; as long again, and it is not
LOAD_TTL = 10.0  # s of the lock under which one of all processes loads
TRACKED = f"{PREFIX}:cache:"

GET = Script("""
local value = redis.call('GET', KEYS[1])
if not value then return false end
return {value, redis.call('PTTL', KEYS[1])}
""")


class RedisTier:
    """Values in Redis."""

    def __init__(self, connection: Connection, locks: Locks, wait: float) -> None:
        self._connection, self._locks, self._wait = connection, locks, wait

    async def get(self, place: str) -> tuple[bytes, float] | None:
        found = await self._connection.run(GET, [place], [], attempts=2)
        return (found[0], max(0.0, found[1] / 1000)) if found else None

    async def put(self, place: str, value: bytes, ttl: float) -> None:
        client: Any = self._connection.client
        await self._connection.call(lambda: client.set(place, value, px=max(1, round(ttl * 1000))), attempts=2)

    async def remove(self, place: str) -> None:
        client: Any = self._connection.client
        await self._connection.call(lambda: client.delete(place), attempts=3)

    async def alone(self, place: str, load: Callable[[], Awaitable[None]]) -> None:
        lock = Lock(self._locks, place, LOAD_TTL, self._wait, False)
        try:
            await lock.__aenter__()
        except Overloaded:  # somebody is slow: better twice than never
            await load()
            return
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(lock)
            await load()


class Tracking:
    """Hears of changes.

    Args:
        changed: gets the key that another process (or this one) has changed or removed.
        trusted: whether all changes are heard of, from now on.
    """

    def __init__(self, connection: Connection, changed: Callable[[str], None], trusted: Callable[[bool], None]) -> None:
        self._connection, self._changed, self._trusted = connection, changed, trusted
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_hearing: dict[str, bool] = {}

    async def start(self) -> None:
        """Of each server that may hold keys."""
        await self._watch()

    async def stop(self) -> None:
        """No more."""
        await ended(self._tasks)
        self._tasks.clear()

    async def _watch(self) -> None:
        client: Any = self._connection.client
        if not self._connection.is_cluster:
            self._begin("", client.connection_pool.make_connection)
            return
        for node in client.get_primaries():
            self._begin(node.name, functools.partial(node.connection_class, **node.connection_kwargs))

    def _begin(self, name: str, make: Callable[[], Any]) -> None:
        self._is_hearing[name] = False
        self._tasks.add(begin("the listener for caches", functools.partial(self._listen, name, make)))

    async def _listen(self, name: str, make: Callable[[], Any]) -> None:
        from redis.exceptions import RedisError

        while True:
            connection = make()
            try:
                await connection.connect()
                connection._parser.set_invalidation_push_handler(self._heard)
                await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", TRACKED)
                await connection.read_response()
                self._hear(name, True)
                await self._read(connection)
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("redis: no word of what others change in caches (%s); trying again", error)
                self._hear(name, False)
                await asyncio.sleep(RECONNECT)
            finally:
                with contextlib.suppress(Exception):
                    await connection.disconnect(nowait=True)

    async def _read(self, connection: Any) -> None:
        """Until it is silent for too long: then others' changes do not reach us."""
        from redis.exceptions import TimeoutError as RedisTimeoutError

        is_asked = False
        while True:
            try:
                await connection.read_response(push_request=True, timeout=SILENCE, disconnect_on_error=False)
                is_asked = False
            except RedisTimeoutError:
                if is_asked:
                    raise
                await connection.send_command("PING")
                is_asked = True

    def _hear(self, name: str, hears: bool) -> None:
        before = all(self._is_hearing.values())
        self._is_hearing[name] = hears
        now = all(self._is_hearing.values())
        if now != before:
            self._trusted(now)

    async def _heard(self, response: Any) -> None:
        _, keys = response
        if keys is None:  # FLUSHALL
            self._trusted(all(self._is_hearing.values()))
            return
        for key in keys:
            self._changed(key.decode() if isinstance(key, bytes) else key)
