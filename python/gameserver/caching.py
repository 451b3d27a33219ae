"""Functions whose results are kept for a while, without what caches are known to fail by. docs/caching.md.

- **penetration**, ids that do not exist: their absence is kept, too, and a Bloom filter of those that do lets no others through;
- **stampede**, many who miss at once: one of them loads, all get what it brings; with Redis, one of all processes;
- **avalanche**, what ends at one moment: times to live are spread;
- **hot keys**: they lie in this process; with Redis, which tells us what others have changed (client-side caching, RESP3);
- **expiry under load**: what is asked for is loaded anew shortly before it ends, while the old value is given (XFetch: Vattani and
  others, "Optimal probabilistic cache stampede prevention", VLDB 2015).

>>> from gameserver import App
>>> app = App("doc")
>>> @app.cached(ttl=60)
... async def profile(player: str) -> dict[str, int]:
...     return {"wins": len(player)}
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import inspect
import itertools
import logging
import math
import random
import time
import typing
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast

import msgspec

from gameserver._redis.keys import tag
from gameserver.errors import Overloaded, Unavailable

__all__ = ["Cached"]

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("gameserver")

SWEEP = 0.05  # s between two looks for what has ended: so much later it may be given
XFETCH_BETA = 1.0
SPARE = 1.2  # a Bloom filter holds that many times what it was filled with
FALSE_RATE = 0.01
KNOWN_MIN = 10_000


class _Tier(Protocol):
    """Where all processes keep what one has loaded."""

    async def get(self, place: str) -> tuple[bytes, float] | None:
        """The value, and seconds until it ends."""
        ...

    async def put(self, place: str, value: bytes, ttl: float) -> None:
        """All processes but this one are told."""
        ...

    async def remove(self, place: str) -> None:
        """All processes are told."""
        ...

    async def alone(self, place: str, load: Callable[[], Awaitable[None]]) -> None:
        """Calls it while no other process does for the same key."""
        ...


@dataclass(slots=True)
class _Counts:
    misses: int = 0
    loads: int = 0
    shared: int = 0
    """Found in Redis: another process had loaded it."""
    joined: int = 0
    """Waited for a load that was under way."""
    refreshed: int = 0
    """Loaded anew before the end."""
    unknown: int = 0
    """Keys that the filter said do not exist."""
    stale: int = 0
    """Given beyond their end, since nothing newer could be had."""
    evicted: int = 0
    invalidated: int = 0


class _Entry:
    """What is kept of one key."""

    __slots__ = ("doubtful", "due", "ends", "number", "place", "used", "value")

    def __init__(self, value: Any, ends: float, number: int, place: str) -> None:
        self.value = value
        self.ends = ends
        self.number = number  # a new value of the same key has another
        self.place = place  # in Redis
        self.due = False  # a hit has to look closer: it shall be loaded anew, has ended, or is doubtful
        self.doubtful = False  # another process may have changed it, and we may not have heard
        self.used = False


class Cached(Generic[P, T]):
    """A function with a cache in front; made by `App.cached`, and called as the function is.

    >>> from gameserver import App
    >>> app = App("doc")
    >>> @app.cached(ttl=60)
    ... async def wins(player: str) -> int:
    ...     return 7
    >>> wins.stats()["loads"]
    0
    """

    def __init__(
        self,
        function: Callable[P, Awaitable[T]],
        *,
        ttl: float,
        negative_ttl: float,
        key: Callable[P, Any] | None,
        known: Callable[[], Awaitable[Iterable[Any]]] | None,
        jitter: float,
        maximum: int,
        stale_for: float,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.name = f"{function.__module__}.{function.__qualname__}"
        self._function, self._key, self._known_ids = function, key, known
        self._ttl, self._negative_ttl, self._jitter, self._maximum = ttl, negative_ttl, jitter, maximum
        self._stale_for = stale_for
        self._clock, self._chance = clock, chance if chance is not None else random.Random()
        self._entries: dict[Any, _Entry] = {}
        self._nothing: dict[Any, _Entry] = {}  # keys without a value: asked for at random, they push nothing else out
        self._by_place: dict[str, Any] = {}  # keys, if there is Redis
        self._asked: dict[str, bool] = {}  # what Redis is asked for now; True: it was changed meanwhile
        self._loading: dict[Any, asyncio.Future[T]] = {}
        self._ends: list[tuple[float, int, Any]] = []  # a heap: when to look at what
        self._numbers = itertools.count()
        self._counts = _Counts()
        self._hits = 0
        self._filter: Any = None
        self._tier: _Tier | None = None
        self._trusts_local = True  # False: changes of others are not heard of now
        self._timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        hint: Any = typing.get_type_hints(function).get("return", Any)
        kept: Any = tuple.__class_getitem__((hint, float))  # with what its load had cost, in s
        self._encode, self._decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(kept).decode
        parameters = [*inspect.signature(function).parameters.values()]
        self._takes_one = key is None and len(parameters) == 1 and parameters[0].kind.name == "POSITIONAL_OR_KEYWORD"

    # Of a function with one parameter, that is the key, and a hit does nothing but look.
    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function gives, or has given not too long ago."""
        if len(args) == 1 and self._takes_one:
            key: Any = args[0]
            entry = self._entries.get(key)
            if entry is not None and not entry.due:
                entry.used = True
                self._hits += 1
                return cast(T, entry.value)
        else:
            key = self._key_of(args, kwargs)
            entry = self._entries.get(key)
            if entry is not None and not entry.due:
                entry.used = True
                self._hits += 1
                return cast(T, entry.value)
        return await self._slow(key, functools.partial(self._function, *args, **kwargs), entry)

    def stats(self) -> dict[str, int]:
        """`entries` here, and counts: hits, misses, loads, shared, joined, refreshed, unknown, stale, evicted, invalidated."""
        return {"entries": len(self._entries) + len(self._nothing), **asdict(self._counts), "hits": self._hits}

    async def forget(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """What is kept for these arguments is no longer true: here, and with Redis in all processes.

        Raises:
            Unavailable: Redis is down, so that others go on until their values end.
        """
        key = self._key_of(args, kwargs)
        self._drop(key)
        if self._tier is not None:
            await self._tier.remove(self._place(key))

    def learn(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """There is something under this key from now on: the filter of `known` lets it through."""
        key = self._key_of(args, kwargs)
        self._remove(self._nothing, key)
        if self._filter is not None:
            self._filter.add(_stable(key))

    # -- a run ---------------------------------------------------------------------------------------------------------

    async def start(self, tier: _Tier | None) -> None:
        """Empty, and with the keys that exist."""
        for kept in (self._entries, self._nothing, self._by_place, self._ends):
            kept.clear()
        self._tier = tier
        self._trusts_local = tier is None
        if self._known_ids is not None:
            from rbloom import Bloom

            keys = [*await self._known_ids()]
            # Its own hash is of this process, and may be guessed; ours is of bytes.
            self._filter = Bloom(max(KNOWN_MIN, int(len(keys) * SPARE)), FALSE_RATE, _hashed)
            for key in keys:
                self._filter.add(_stable(key))
        self._sweep_later()

    def stop(self) -> None:
        """No load goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._background:
            task.cancel()
        self._tier = None

    def invalidated(self, place: str) -> None:
        """Another process has changed a key."""
        if place in self._asked:
            self._asked[place] = True
        key = self._by_place.get(place)
        if key is not None:
            self._counts.invalidated += 1
            for table in (self._entries, self._nothing):
                if (entry := table.get(key)) is not None:  # it stays, for when Redis is down
                    entry.due = entry.doubtful = True

    def trust_local(self, trusts: bool) -> None:
        """Whether we hear of what other processes change from now on. What is here may have changed before."""
        self._trusts_local = trusts
        for entry in (*self._entries.values(), *self._nothing.values()):
            entry.due = entry.doubtful = True

    # -- what is not here ----------------------------------------------------------------------------------------------

    async def _slow(self, key: Any, load: Callable[[], Awaitable[T]], entry: _Entry | None) -> T:
        now = self._clock()
        if entry is None:
            entry = self._nothing.get(key)
        if entry is not None and entry.ends > now and not entry.doubtful:
            entry.used = True
            self._hits += 1
            if entry.due and key not in self._loading:  # it is time to load it anew, and it is good meanwhile
                self._counts.refreshed += 1
                self._begin(key, load, entry)
            return cast(T, entry.value)
        self._counts.misses += 1
        if self._filter is not None and _stable(key) not in self._filter:
            self._counts.unknown += 1
            return cast(T, None)
        under_way = self._loading.get(key)
        if under_way is not None:
            self._counts.joined += 1
        else:
            under_way = self._begin(key, load, entry)
        return await asyncio.shield(under_way)

    def _begin(self, key: Any, load: Callable[[], Awaitable[T]], entry: _Entry | None) -> asyncio.Future[T]:
        """One load for all who wait, which goes on also if they don't."""
        task = asyncio.get_running_loop().create_task(self._load(key, load, entry))
        self._loading[key] = task
        self._background.add(task)

        def done(task: asyncio.Task[T]) -> None:
            self._background.discard(task)
            if self._loading.get(key) is task:
                del self._loading[key]
            if not task.cancelled():
                task.exception()  # those who wait get it

        task.add_done_callback(done)
        return task

    async def _load(self, key: Any, load: Callable[[], Awaitable[T]], entry: _Entry | None) -> T:
        now = self._clock()
        try:
            if self._tier is None:
                return await self._load_here(key, load)
            is_refresh = entry is not None and entry.ends > now and not entry.doubtful
            return await self._load_shared(self._tier, key, load, entry, is_refresh)
        except (Unavailable, Overloaded, OSError, TimeoutError):
            if entry is None or self._clock() >= entry.ends + self._stale_for:
                raise
            self._counts.stale += 1
            return cast(T, entry.value)

    async def _load_here(self, key: Any, load: Callable[[], Awaitable[T]]) -> T:
        self._counts.loads += 1
        began = self._clock()
        value = await load()
        now = self._clock()
        self._keep(key, value, self._spread(value), now - began, now)
        return value

    async def _load_shared(
        self, tier: _Tier, key: Any, load: Callable[[], Awaitable[T]], entry: _Entry | None, is_refresh: bool
    ) -> T:
        place = self._place(key)
        result: list[T] = []
        failure: list[Exception] = []

        async def load_alone() -> None:
            if not is_refresh and (found := await self._found(tier, key, place)) is not None:
                result.append(found[0])
                return
            self._counts.loads += 1
            began = self._clock()
            try:
                value = await load()
            except Exception as error:
                failure.append(error)
                return
            cost, ttl = self._clock() - began, self._spread(value)
            result.append(value)
            self._keep(key, value, ttl, cost, self._clock())
            await tier.put(place, self._encode((value, cost)), ttl)

        try:
            if not is_refresh and (found := await self._found(tier, key, place)) is not None:
                return found[0]
            await tier.alone(place, load_alone)
        except (Unavailable, Overloaded):  # Redis is down: this process has its own memory
            if not result and not failure:
                if entry is not None and entry.ends > self._clock():
                    self._counts.stale += 1
                    return cast(T, entry.value)
                return await self._load_here(key, load)
        if failure:
            raise failure[0]
        return result[0]

    async def _found(self, tier: _Tier, key: Any, place: str) -> tuple[T] | None:
        self._asked[place] = False
        try:
            found = await tier.get(place)
        finally:
            was_changed = self._asked.pop(place, False)
        if found is None:
            return None
        raw, left = found
        try:
            value, cost = self._decode(raw)
        except (msgspec.MsgspecError, ValueError):
            return None  # of an older game, with another shape
        self._counts.shared += 1
        self._keep(key, value, left, cost, self._clock())
        if was_changed and (kept := self._entries.get(key) or self._nothing.get(key)) is not None:
            kept.due = kept.doubtful = True
        return (value,)

    def _spread(self, value: Any) -> float:
        ttl = self._negative_ttl if value is None else self._ttl
        return ttl * (1 + self._jitter * (2 * self._chance.random() - 1))

    # -- what is here --------------------------------------------------------------------------------------------------

    def _keep(self, key: Any, value: Any, ttl: float, cost: float, now: float) -> None:
        self._remove(self._entries, key)
        self._remove(self._nothing, key)
        place = ""
        if self._tier is not None:
            place = self._place(key)
            self._by_place[place] = key
        entry = _Entry(value, now + ttl, next(self._numbers), place)
        entry.due = entry.doubtful = not self._trusts_local
        if value is None:
            self._nothing[key] = entry
            while len(self._nothing) > self._maximum:
                self._remove(self._nothing, next(iter(self._nothing)))
                self._counts.evicted += 1
            return
        self._entries[key] = entry
        # XFetch draws with each request; drawn once, one request in this process begins the load, as the first of many would.
        early = cost * XFETCH_BETA * -math.log(1 - self._chance.random())
        heapq.heappush(self._ends, (max(now, entry.ends - early), entry.number, key))
        while len(self._entries) > self._maximum:
            self._evict()

    def _evict(self) -> None:
        """The oldest that nobody has asked for since we last came by (CLOCK, or second chance: Corbató, 1968)."""
        while True:
            key = next(iter(self._entries))
            entry = self._entries[key]
            if not entry.used:
                self._counts.evicted += 1
                self._remove(self._entries, key)
                return
            entry.used = False
            self._entries[key] = self._entries.pop(key)

    def _remove(self, table: dict[Any, _Entry], key: Any) -> None:
        entry = table.pop(key, None)
        if entry is not None and entry.place:
            del self._by_place[entry.place]

    def _drop(self, key: Any) -> None:
        self._remove(self._entries, key)
        self._remove(self._nothing, key)
        self._loading.pop(key, None)  # what it brings may be old

    def sweep(self) -> None:
        """Marks what has to be loaded anew; forgets what has ended long ago."""
        now, ends = self._clock(), self._ends
        while ends and ends[0][0] <= now:
            _, number, key = heapq.heappop(ends)
            entry = self._entries.get(key)
            if entry is None or entry.number != number:
                continue
            if now >= entry.ends + self._stale_for:
                self._remove(self._entries, key)
                continue
            entry.due = True
            heapq.heappush(ends, (entry.ends + self._stale_for, number, key))

    def _sweep_later(self) -> None:
        self.sweep()
        self._timer = asyncio.get_running_loop().call_later(SWEEP, self._sweep_later)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._key is not None:
            return self._key(*args, **kwargs)
        if not kwargs and self._takes_one:
            return args[0]
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        bound.apply_defaults()
        values = (*bound.args, *bound.kwargs.values())
        return values[0] if self._takes_one else values

    def _place(self, key: Any) -> str:
        return tag("cache", _stable((self.name, key)))


def _stable(key: Any) -> bytes:
    """The same bytes for the same key in all processes."""
    try:
        return msgspec.msgpack.encode(key)
    except TypeError as error:
        raise TypeError(f"{key!r} can't be a cache's key ({error}); give key= to @app.cached") from error


def _hashed(raw: bytes) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(raw, digest_size=16).digest(), signed=True)
