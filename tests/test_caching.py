"""Caches, and the attack that each of their protections is for."""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from stores import Redis, ask, until

from gameserver import App, ConfigError, Unavailable
from gameserver.caching import Cached
from gameserver.testing import RunningServer, running


class Store:
    """What is behind the cache: it counts, and it is slow."""

    def __init__(self, *keys: str, seconds: float = 0.0) -> None:
        self.values: dict[str, int] = dict.fromkeys(keys, 1)
        self.loads: list[str] = []
        self.seconds = seconds
        self.is_down = False

    async def get(self, key: str) -> int | None:
        self.loads.append(key)
        await asyncio.sleep(self.seconds)
        if self.is_down:
            raise Unavailable("the store is down")
        return self.values.get(key)


def cached_app(store: Store, **options: Any) -> tuple[App, Cached[[str], int | None]]:
    app = App("cache")

    @app.cached(**{"ttl": 60.0, **options})
    async def value(key: str) -> int | None:
        return await store.get(key)

    return app, value


@pytest.fixture(params=["local", "redis"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "local":
        return {}
    redis: Redis = request.getfixturevalue("one_redis")
    redis.cli("FLUSHALL")
    return {"redis_url": redis.url}


def trusted(server: RunningServer, value: Cached[Any, Any]) -> None:
    """Once it hears of what others change."""

    ask(server, lambda: until(lambda: value._trusts_local))


def test_what_is_there_is_loaded_once(settings: dict[str, Any]) -> None:
    store = Store("a")
    app, value = cached_app(store)
    with running(app, **settings) as server:
        trusted(server, value)

        async def run() -> list[int | None]:
            return [await value("a"), await value("a"), await value(key="a")]  # type: ignore[call-arg]

        assert ask(server, run) == [1, 1, 1]
        assert store.loads == ["a"]
        ask(server, lambda: value.forget("a"))
        store.values["a"] = 2
        assert ask(server, run) == [2, 2, 2]


def test_stampede_500_who_miss_at_once_make_one_load(settings: dict[str, Any]) -> None:
    store = Store("a", seconds=0.05)
    app, value = cached_app(store)
    with running(app, **settings) as server:

        async def run() -> set[int | None]:
            return set(await asyncio.gather(*(value("a") for _ in range(500))))

        assert ask(server, run) == {1}
        assert store.loads == ["a"]


def test_stampede_of_three_processes(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    store = Store("a", seconds=0.1)
    pairs = [cached_app(store) for _ in range(3)]
    from contextlib import ExitStack

    with ExitStack() as stack:
        servers = [stack.enter_context(running(app, redis_url=one_redis.url)) for app, _ in pairs]

        def begin(server: RunningServer, value: Cached[[str], int | None]) -> Any:
            async def run() -> set[int | None]:
                return set(await asyncio.gather(*(value("a") for _ in range(500))))

            return asyncio.run_coroutine_threadsafe(run(), server.app._loop)  # type: ignore[arg-type]

        futures = [server.call(begin, server, value) for server, (_, value) in zip(servers, pairs, strict=True)]
        assert [future.result(10) for future in futures] == [{1}] * 3
    assert store.loads == ["a"]


def test_penetration_of_ids_that_do_not_exist(settings: dict[str, Any]) -> None:
    store = Store("a")
    app, value = cached_app(store, negative_ttl=60.0)
    with running(app, **settings) as server:

        async def run() -> None:
            for _ in range(10):
                assert await value("nobody") is None

        ask(server, run)
        assert store.loads == ["nobody"]


def test_penetration_of_ids_at_random(settings: dict[str, Any]) -> None:
    store = Store(*map(str, range(1000)))
    app = App("cache")

    async def known() -> list[str]:
        return [*store.values]

    @app.cached(ttl=60, known=known)
    async def value(key: str) -> int | None:
        return await store.get(key)

    with running(app, **settings) as server:

        async def attack() -> None:
            for number in range(2000):
                assert await value(f"random {number}") is None

        ask(server, attack)
        assert len(store.loads) < 60  # one in a hundred passes the filter
        assert value.stats()["unknown"] > 1900

        async def good() -> None:
            for number in range(0, 1000, 10):
                assert await value(str(number)) == 1
            assert await value("new") is None
            store.values["new"] = 5
            value.learn("new")
            assert await value("new") == 5

        ask(server, good)


def test_ids_at_random_push_nothing_out() -> None:
    store = Store("a", "b")
    app, value = cached_app(store, maximum=100)
    with running(app) as server:

        async def run() -> None:
            await value("a")
            await value("b")
            for number in range(1000):
                await value(f"random {number}")
            del store.loads[:]
            await value("a")
            await value("b")

        ask(server, run)
        assert store.loads == []
        assert value.stats()["entries"] == 102


class Time:
    """A clock that stands until it is told to go."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def made(
    function: Callable[..., Any], clock: Time, chance: random.Random | None = None, **options: Any
) -> Cached[Any, Any]:
    """One whose time stands still, without a server."""
    given: dict[str, Any] = {
        "ttl": 100.0, "negative_ttl": 10.0, "key": None, "known": None, "jitter": 0.1, "maximum": 1000, "stale_for": 50.0,
    }  # fmt: skip
    return Cached(function, clock=clock, chance=chance or random.Random(7), **{**given, **options})


def test_avalanche_what_came_at_once_does_not_end_at_once() -> None:
    clock, loads = Time(), []

    async def load(key: int) -> int:
        loads.append(clock.now)
        return key

    async def run() -> None:
        cache = made(load, clock)
        await cache.start(None)
        for key in range(500):
            await cache(key)
        del loads[:]
        for step in range(130):
            clock.now = 1000.0 + step
            cache.sweep()
            for key in range(500):
                await cache(key)
            await asyncio.sleep(0)
        cache.stop()

    asyncio.run(run())
    most = max(loads.count(second) for second in set(loads))
    assert min(loads) >= 1089
    assert max(loads) <= 1112
    assert most <= 500 / 8  # spread over some twenty seconds


def test_what_is_asked_for_is_loaded_anew_before_it_ends() -> None:
    clock, loads = Time(), []

    async def load(key: str) -> int:
        loads.append(clock.now)
        clock.now += 1.0  # it takes so long
        return len(loads)

    async def run() -> list[int]:
        cache = made(load, clock, jitter=0.0)
        await cache.start(None)
        await cache("hot")
        found = []
        while clock.now < 1101.0 and len(loads) < 2:
            clock.now += 0.1
            cache.sweep()
            found.append(await cache("hot"))  # never waits
            await asyncio.sleep(0)
        refreshed = await cache("hot")
        cache.stop()
        return [*found, refreshed]

    found = asyncio.run(run())
    assert found[:-1] == [1] * (len(found) - 1)
    assert found[-1] == 2
    assert 1090 < loads[1] < 1101  # the more it costs, the earlier


def test_a_store_that_is_down_is_stood_in_for() -> None:
    clock, store = Time(), Store("a")

    async def run() -> None:
        async def load(key: str) -> int | None:
            return await store.get(key)

        cache = made(load, clock, jitter=0.0)
        await cache.start(None)
        assert await cache("a") == 1
        store.is_down = True
        clock.now += 120.0
        cache.sweep()
        assert await cache("a") == 1
        assert cache.stats()["stale"] == 1
        clock.now += 50.0
        cache.sweep()
        with pytest.raises(Unavailable):
            await cache("a")
        with pytest.raises(Unavailable):
            await cache("never loaded")
        store.is_down = False
        assert await cache("a") == 1
        cache.stop()

    asyncio.run(run())


def test_what_nobody_asks_for_goes_first() -> None:
    clock, loads = Time(), []

    async def load(key: int) -> int:
        loads.append(key)
        return key

    async def run() -> None:
        cache = made(load, clock, maximum=100)
        await cache.start(None)
        for key in range(100):
            await cache(key)
        for _ in range(2):
            for key in range(10):
                await cache(key)  # the hot ones
        for key in range(1000, 1080):
            await cache(key)
        del loads[:]
        for key in range(10):
            await cache(key)
        cache.stop()

    asyncio.run(run())
    assert loads == []


def test_hot_key_lies_here_and_others_changes_are_heard_of(one_redis: Redis) -> None:
    one_redis.cli("FLUSHALL")
    store = Store("hot")
    (app, value), (other_app, other_value) = cached_app(store), cached_app(store)
    with running(app, redis_url=one_redis.url) as server, running(other_app, redis_url=one_redis.url) as other:
        trusted(server, value)
        trusted(other, other_value)

        async def read(function: Cached[[str], int | None]) -> int | None:
            return await function("hot")

        async def settled(function: Cached[[str], int | None]) -> None:
            before = -1
            while before != function.stats()["misses"]:
                before = function.stats()["misses"]
                await function("hot")
                await asyncio.sleep(0.05)

        for one, function in ((server, value), (other, other_value)):
            assert ask(one, functools.partial(read, function)) == 1
        for one, function in ((server, value), (other, other_value)):
            ask(one, functools.partial(settled, function))
        assert store.loads == ["hot"]
        gets = one_redis.cli("INFO", "commandstats")

        async def many() -> None:
            for _ in range(1000):
                await value("hot")

        ask(server, many)
        calls = [
            line for line in one_redis.cli("INFO", "commandstats").splitlines() if line.startswith("cmdstat_evalsha")
        ]
        assert calls == [
            line for line in gets.splitlines() if line.startswith("cmdstat_evalsha")
        ]  # Redis was not asked

        store.values["hot"] = 2
        ask(other, lambda: other_value.forget("hot"))

        async def changed() -> None:
            deadline = time.monotonic() + 5
            while await value("hot") != 2:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

        ask(server, changed)


def test_without_redis_it_goes_on_from_memory(own_redis: Redis) -> None:
    store = Store("a", "b")
    app, value = cached_app(store)
    with running(app, redis_url=own_redis.url, store_timeout=0.3) as server:
        trusted(server, value)

        async def read(key: str = "a") -> int | None:
            return await value(key)

        ask(server, read)
        own_redis.kill()

        ask(server, lambda: until(lambda: not value._trusts_local))
        assert ask(server, read) == 1
        assert value.stats()["stale"] == 1
        assert store.loads == ["a"]
        assert ask(server, lambda: read("b")) == 1  # loaded, and kept here
        own_redis.start()
        trusted(server, value)
        store.values["a"] = 7
        own_redis.cli("FLUSHALL")

        async def newest() -> None:
            while await value("a") != 7:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        ask(server, newest)


def test_errors_are_not_kept(settings: dict[str, Any]) -> None:
    store = Store("a")
    app, value = cached_app(store)
    store.is_down = True
    with running(app, **settings) as server:

        async def read() -> int | None:
            return await value("a")

        for _ in range(2):
            with pytest.raises(Unavailable, match="the store is down"):
                ask(server, read)
        store.is_down = False
        assert ask(server, read) == 1
        assert store.loads == ["a"] * 3


def test_who_waits_and_is_cancelled_does_not_end_the_load(settings: dict[str, Any]) -> None:
    store = Store("a", seconds=0.05)
    app, value = cached_app(store)
    with running(app, **settings) as server:

        async def run() -> int | None:
            first = asyncio.create_task(value("a"))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(value("a"))
            await asyncio.sleep(0)
            first.cancel()
            return await second

        assert ask(server, run) == 1
        assert store.loads == ["a"]


def test_keys_of_several_arguments(settings: dict[str, Any]) -> None:
    app = App("cache")
    calls: list[object] = []

    @app.cached(ttl=60)
    async def near(x: int, y: int, radius: int = 5) -> list[int]:
        calls.append((x, y, radius))
        return [x, y, radius]

    @app.cached(ttl=60, key=lambda where: (where["x"], where["y"]))
    async def at(where: dict[str, int]) -> int:
        calls.append(("at", where["x"], where["y"]))
        return where["x"] + where["y"]

    with running(app, **settings) as server:

        async def run() -> None:
            assert await near(1, 2) == [1, 2, 5]
            assert await near(1, y=2) == [1, 2, 5]
            assert await near(1, 2, 6) == [1, 2, 6]
            assert await at({"x": 1, "y": 2, "z": 3}) == 3
            assert await at({"x": 1, "y": 2}) == 3

        ask(server, run)
        assert calls == [(1, 2, 5), (1, 2, 6), ("at", 1, 2)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ttl": 0}, "ttl=0"),
        ({"ttl": 1, "negative_ttl": -1}, "negative_ttl=-1"),
        ({"ttl": 1, "jitter": 1}, "jitter=1"),
        ({"ttl": 1, "maximum": 0}, "maximum=0"),
        ({"ttl": 1, "stale_for": -1}, "stale_for=-1"),
    ],
)
def test_mistakes(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        App("cache").cached(**options)


def test_only_async_functions() -> None:
    with pytest.raises(ConfigError, match="an async def"):

        @App("cache").cached(ttl=1)  # type: ignore[arg-type]
        def plain(key: str) -> int:
            return 1
