"""What stores cost: shared events beside a bare loop of Redis commands, a hit of a cache, a lock, and what the tick notices."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
sys.path.insert(0, str(ROOT / "tests"))

from benches.harness import processes  # noqa: E402
from benches.harness.processes import Server, running  # noqa: E402
from benches.harness.report import Figure, Section, asked, publish  # noqa: E402
from stores import Redis, redis_server  # noqa: E402

from gameserver import App, Event, shared  # noqa: E402

QUICK = "--quick" in sys.argv
ROUNDS, COUNT, HITS, TICK_SECONDS = (1, 10_000, 100_000, 2.0) if QUICK else (5, 50_000, 300_000, 8.0)
PARTITIONS, WRITTEN, READ = 16, 500, 100  # as in gameserver/_redis/streams.py


@shared
class Told(Event):
    """As small as an event is."""

    who: int


def main() -> int:
    """Prints the table."""
    processes.OUT.mkdir(exist_ok=True)
    with redis_server() as redis:
        figures = [streams(redis), hits(), lock(redis), *ticks(redis)]
    publish(Section("stores", "Stores", figures, []))
    return 0


def streams(redis: Redis) -> Figure:
    """Published, read, handled by a `def` and acknowledged, a second."""
    pairs = []
    for number in range(ROUNDS):
        if number % 2:
            pairs.append((our_streams(redis), bare_streams(redis)))
        else:
            bare = bare_streams(redis)
            pairs.append((our_streams(redis), bare))
    rates = [sorted(side)[len(side) // 2] for side in zip(*pairs, strict=True)]
    return asked(
        "shared events a second / a bare XADD and XREADGROUP loop of the same batches",
        [ours / bare for ours, bare in pairs],
        0.7,
        aim=0.9,
        more_is_better=True,
        detail=f"{rates[0]:,.0f} / {rates[1]:,.0f}",
    )


def our_streams(redis: Redis) -> float:
    """Events a second."""
    redis.cli("FLUSHALL")
    app, handled, rate = App("streams", log_level="error", redis_url=redis.url), 0, 0.0

    @app.on_event(Told)
    def hear(event: Told) -> None:
        nonlocal handled
        handled += 1

    @app.on_start
    async def measure() -> None:
        nonlocal rate
        while sum(len(reader._own) for reader in app._stores._readers) < PARTITIONS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        began = time.perf_counter()
        for number in range(COUNT):
            app.emit(Told(number), key=number)
        while handled < COUNT:  # noqa: ASYNC110  # an event for each would be in the figure
            await asyncio.sleep(0.001)
        rate = COUNT / (time.perf_counter() - began)
        app.stop()

    app.run(port=0)
    return rate


def bare_streams(redis: Redis) -> float:
    """The same by hand with redis-py: no keys in order, no leases, no ids, no retries."""
    import msgspec
    from redis.asyncio import Redis as Client

    redis.cli("FLUSHALL")
    places = [f"bare:{number}" for number in range(PARTITIONS)]
    decode = msgspec.json.Decoder(Told).decode

    async def write(client: Any) -> None:
        for first in range(0, COUNT, WRITTEN):
            pipeline = client.pipeline(transaction=False)
            for number in range(first, first + WRITTEN):
                pipeline.xadd(places[number % PARTITIONS], {"b": msgspec.json.encode(Told(number))})
            await pipeline.execute()

    async def read(client: Any) -> None:
        handled = 0
        while handled < COUNT:
            found = await client.xreadgroup("g", "c", dict.fromkeys(places, ">"), count=READ, block=500)
            for place, entries in found:
                for _, fields in entries:
                    decode(fields[b"b"])
                    handled += 1
                await client.xack(place, "g", *(number for number, _ in entries))

    async def measure() -> float:
        client: Any = Client.from_url(redis.url, protocol=2)
        for place in places:
            await client.xgroup_create(place, "g", id="0", mkstream=True)
        began = time.perf_counter()
        await asyncio.gather(write(client), read(client))
        took = time.perf_counter() - began
        await client.aclose()
        return COUNT / took

    return asyncio.run(measure())


def hits() -> Figure:
    """Of a function that has its value here."""
    app, found = App("cache", log_level="error"), []
    values = {"ada": 7}

    @app.cached(ttl=3600)
    async def cached(key: str) -> int | None:
        return values.get(key)

    async def plain(key: str) -> int | None:
        return values[key]

    async def spend(function: Any) -> float:
        began = time.perf_counter()
        for _ in range(HITS):
            await function("ada")
        return (time.perf_counter() - began) / HITS * 1e9

    @app.on_start
    async def measure() -> None:
        await cached("ada")
        for _ in range(max(3, ROUNDS)):
            found.append((await spend(cached), await spend(plain)))
        app.stop()

    app.run(port=0)
    ns = [sorted(side)[len(side) // 2] for side in zip(*found, strict=True)]
    return asked(
        "a hit of an async function's cache / a look into a dict by one",
        [ours / bare for ours, bare in found],
        4.0,
        aim=2.0,
        detail=f"{ns[0]:.0f} / {ns[1]:.0f} ns",
    )


def lock(redis: Redis) -> Figure:
    """Scripts that Redis was asked to run for a lock nobody else wants."""
    app, calls = App("lock", log_level="error", redis_url=redis.url), 0.0

    def scripts() -> int:
        lines = redis.cli("INFO", "commandstats").splitlines()
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines if line.startswith("cmdstat_evalsha"))

    @app.on_start
    async def measure() -> None:
        nonlocal calls
        for _ in range(2):
            before = await app.run_blocking(scripts)
            for _ in range(100):
                async with app.lock("uncontended"):
                    pass
            calls = (await app.run_blocking(scripts) - before) / 100
        app.stop()

    app.run(port=0)
    return asked("an uncontended lock and unlock: round trips", [calls], 2.0)


def ticks(redis: Redis) -> list[Figure]:
    """How late a 60 Hz tick begins."""
    found: dict[str, list[float]] = {"p50": [], "p99": []}
    figures: dict[str, list[tuple[float, float]]] = {"p50": [], "p99": []}
    for _ in range(ROUNDS):
        sides = []
        for busy in ("1", "0"):
            environment = {"BUSY": busy, "GAMESERVER_REDIS_URL": redis.url}
            server = Server(f"busy-{busy}", (sys.executable, "-m", "benches.servers.busy"), environment)
            with running(server) as process:
                if busy == "1":
                    redis.pause()
                try:
                    time.sleep(TICK_SECONDS)
                    sides.append(process.stop())
                finally:
                    redis.go_on()
        for name in found:
            ours, idle = (side[f"lateness_{name}_ns"] / 1e3 for side in sides)
            found[name].append(ours / idle)
            figures[name].append((ours, idle))
    what = "a 60 Hz tick's lateness beside 5,000 events, 500 saves a second and a stopped Redis / an idle server's"
    return [
        asked(f"{what}, {name}", found[name], 1.5, aim=1.1, detail=_us(figures[name]))
        for name in ("p99", "p50")
    ]  # fmt: skip


def _us(pairs: list[tuple[float, float]]) -> str:
    sides = [sorted(side)[len(side) // 2] for side in zip(*pairs, strict=True)]
    return f"{sides[0]:.0f} / {sides[1]:.0f} us"


if __name__ == "__main__":
    sys.exit(main())
