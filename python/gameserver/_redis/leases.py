"""Leases of locks in Redis; and who waits for one, woken and not polling."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from gameserver._leases import Lease
from gameserver._redis.connection import Connection, Script
from gameserver._redis.keys import tag, under
from gameserver._tasks import begin, ended

log = logging.getLogger("gameserver")

KEPT_MS = 7 * 86_400_000  # a week: a lock's counter after its last holder, what was written after the last write
RECONNECT = 0.2  # s
HEARD_MAX = 1.0  # s until Redis has said that we hear; without it, who waits looks again when the lease ends

# Keys: lock, fence. Arguments: holder, ttl in ms, how long the counter is kept in ms. Gives the fencing token, or 0 and the ms
# that are left. Tokens come from the server's clock where the counter is gone, or older: they grow also after a failover that
# has lost the last ones, as far as the servers' clocks agree.
TAKE = Script("""
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then return {'0', redis.call('PTTL', KEYS[1])} end
local now = redis.call('TIME')
local fence = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now[1] * 1000000 + now[2])
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SET', KEYS[2], text, 'PX', ARGV[3])
return {text, 0}
""")

# Keys: lock. Arguments: holder, ttl in ms.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# Keys: lock. Arguments: holder, the channel of those who wait.
GIVE_BACK = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
""")

# Keys: fence, value (a hash: its fence, its bytes). Arguments: fence, bytes, how long it is kept in ms.
WRITE = Script("""
local newest = tonumber(redis.call('GET', KEYS[1]) or '0')
local written = tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')
if tonumber(ARGV[1]) < math.max(newest, written) then return 0 end
redis.call('HSET', KEYS[2], 'fence', ARGV[1], 'value', ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
""")


class RedisLeases:
    """In Redis: they end by themselves."""

    expire = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._wakes = _Wakes(connection)

    async def take(self, name: str, holder: str, ttl: float) -> Lease:
        own = tag("lock", name)
        fence, left = await self._connection.run(
            TAKE, [own, under(own, "fence")], [holder, _ms(ttl), KEPT_MS], attempts=3
        )
        return Lease(int(fence), max(0.001, left / 1000))

    async def renew(self, name: str, holder: str, ttl: float) -> bool:
        return bool(await self._connection.run(RENEW, [tag("lock", name)], [holder, _ms(ttl)], attempts=3))

    async def give_back(self, name: str, holder: str) -> None:
        own = tag("lock", name)
        await self._connection.run(GIVE_BACK, [own], [holder, own], attempts=3)

    def watch(self, name: str) -> AbstractAsyncContextManager[Callable[[float], Awaitable[None]]]:
        return self._wakes.watch(tag("lock", name))

    async def write(self, name: str, key: str, fence: int, value: bytes) -> bool:
        own = tag("lock", name)
        keys = [under(own, "fence"), tag_within(own, key)]
        return bool(await self._connection.run(WRITE, keys, [fence, value, KEPT_MS], attempts=3))

    async def read(self, name: str, key: str) -> bytes | None:
        client: Any = self._connection.client
        place = tag_within(tag("lock", name), key)
        found: bytes | None = await self._connection.call(lambda: client.hget(place, "value"), attempts=3)
        return found

    async def close(self) -> None:
        """Nobody waits any more."""
        await self._wakes.close()


def tag_within(tagged: str, key: str) -> str:
    """A key of a game's own choice, in an aggregate's slot: only the first pair of braces counts.

    >>> tag_within("gs:lock:{0f}", "a}{b")
    'gs:lock:{0f}:value:a}{b'
    """
    return under(tagged, f"value:{key}")


class _Wakes:
    """One connection that hears of all locks which somebody here waits for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._watched: dict[str, asyncio.Event] = {}  # one waits for a lock in a process: the others wait for that one
        self._pubsub: Any = None
        self._listener: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, channel: str) -> AsyncIterator[Callable[[float], Awaitable[None]]]:
        """See `Leases.watch`."""
        event = self._watched[channel] = asyncio.Event()

        async def wait(seconds: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
            event.clear()

        try:
            await self._subscribe(channel)
            await wait(HEARD_MAX)
            yield wait
        finally:
            del self._watched[channel]
            await self._unsubscribe(channel)

    async def close(self) -> None:
        await ended([self._listener])
        self._listener = None
        if self._pubsub is not None:
            await self._pubsub.aclose()
            self._pubsub = None

    async def _subscribe(self, channel: str) -> None:
        from redis.exceptions import RedisError

        if self._pubsub is None:
            client: Any = self._connection.client
            self._pubsub = client.pubsub()
        with contextlib.suppress(RedisError, OSError):
            await self._pubsub.subscribe(channel)
        if self._listener is None:
            self._listener = begin("the listener for locks", self._listen)

    async def _unsubscribe(self, channel: str) -> None:
        from redis.exceptions import RedisError

        if self._pubsub is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._pubsub.unsubscribe(channel)

    async def _listen(self) -> None:
        from redis.exceptions import RedisError

        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except (RedisError, OSError, RuntimeError) as error:
                # redis-py subscribes again when it connects again; what was missed meanwhile, a lease's end makes up for.
                log.debug("redis: %s; listening again", error)
                await asyncio.sleep(RECONNECT)
                continue
            if message is None:
                await asyncio.sleep(RECONNECT)  # nothing is subscribed
                continue
            channel = message["channel"].decode()
            if message["type"] in ("subscribe", "message") and channel in self._watched:
                self._watched[channel].set()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
