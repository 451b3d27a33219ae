"""Locks: alone in this process and in all of them, renewed, lost, woken, and fenced."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from stores import Cluster, Redis, ask, redis_server

from gameserver import App, Conflict, GameServerError, LockLost, Overloaded, Unavailable
from gameserver._redis.keys import tag, under
from gameserver.testing import RunningServer, running

HOLDERS = Path(__file__).parent / "peers" / "holders.py"


@pytest.fixture(params=["local", "redis", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    settings = {}
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("one_redis").url
    elif request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        settings["redis_url"] = cluster.url
    with running(App("locks"), **settings) as found:
        yield found


def evals(redis: Redis) -> int:
    """Scripts that were called."""
    lines = redis.cli("INFO", "commandstats").splitlines()
    calls = [line.split("calls=")[1].split(",")[0] for line in lines if line.startswith("cmdstat_eval")]
    return sum(map(int, calls))


def commands(redis: Redis) -> int:
    return int(redis.cli("INFO", "stats").split("total_commands_processed:")[1].split()[0])


def test_who_has_it_is_alone_and_each_has_a_greater_fence(server: RunningServer) -> None:
    app, inside, fences = server.app, [0], []

    async def add() -> None:
        async with app.lock("counter", ttl=5) as lock:
            before = inside[0]
            fences.append(lock.fence)
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            inside[0] = before + 1

    async def all_of_them() -> None:
        await asyncio.gather(*(add() for _ in range(40)))

    ask(server, all_of_them)
    assert inside == [40]
    assert fences == sorted(set(fences))
    assert server.stats()["stores"]["locks"] == {"held": 0, "taken": 40, "waited": 39, "lost": 0}


def test_across_processes_who_has_it_is_alone(one_redis: Redis) -> None:
    inside, log = [0], []

    async def add(app: App) -> None:
        for _ in range(15):
            async with app.lock("across", ttl=5) as lock:
                before = inside[0]
                log.append(lock.fence)
                await asyncio.sleep(0.002)
                inside[0] = before + 1

    with ExitStack() as stack:
        servers = [stack.enter_context(running(App("locks"), redis_url=one_redis.url)) for _ in range(3)]

        async def several(app: App) -> None:
            await asyncio.gather(add(app), add(app))

        futures = [
            server.call(lambda server=server: asyncio.run_coroutine_threadsafe(several(server.app), server.app._loop))
            for server in servers
        ]
        for future in futures:
            future.result(30)
    assert inside == [90]
    assert log == sorted(set(log))


def test_other_names_do_not_wait(server: RunningServer) -> None:
    async def both() -> None:
        async with server.app.lock("one"), server.app.lock("other"):
            pass

    ask(server, both)


def test_who_waits_too_long_is_told_so(server: RunningServer) -> None:
    async def wait() -> None:
        async with server.app.lock("held"):
            async with asyncio.timeout(5):
                await asyncio.create_task(take())

    async def take() -> None:
        async with server.app.lock("held", wait=0.05):
            pass

    with pytest.raises(Overloaded, match=r"lock 'held': somebody else has had it for 0.05 s"):
        ask(server, wait)


def test_a_task_that_has_it_already(server: RunningServer) -> None:
    async def twice() -> None:
        async with server.app.lock("twice"), server.app.lock("twice"):
            pass

    with pytest.raises(GameServerError, match="this very task holds it.*reentrant=True"):
        ask(server, twice)

    async def again() -> list[int]:
        async with server.app.lock("again") as outer, server.app.lock("again", reentrant=True) as inner:
            fences = [outer.fence, inner.fence]
        async with server.app.lock("again", wait=0) as third:
            return [*fences, third.fence]

    first, second, third = ask(server, again)
    assert first == second < third


def test_an_error_in_the_block_gives_it_back(server: RunningServer) -> None:
    async def fail() -> None:
        async with server.app.lock("error"):
            raise LookupError("mine")

    async def take() -> None:
        async with server.app.lock("error", wait=1):
            pass

    with pytest.raises(LookupError, match="mine"):
        ask(server, fail)
    ask(server, take)


def test_who_waits_and_is_cancelled_leaves_no_trace(server: RunningServer) -> None:
    async def run() -> None:
        async def take() -> None:
            async with server.app.lock("cancelled"):
                pass

        async with server.app.lock("cancelled"):
            waiting = [asyncio.create_task(take()) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            waiting[1].cancel()
            await asyncio.wait(waiting[:2])
        await asyncio.wait_for(waiting[2], 5)
        await asyncio.wait_for(take(), 5)

    ask(server, run)


def test_a_write_under_an_older_lease_is_refused(server: RunningServer) -> None:
    async def run() -> bytes | None:
        lock = server.app.lock("guarded")
        async with lock:
            await lock.write("a", b"first")
            old = lock.fence
        async with server.app.lock("guarded") as newer:
            await newer.write("a", b"second")
            lock.fence = old  # as one that was stopped meanwhile
            with pytest.raises(Conflict, match="somebody else has had it meanwhile"):
                await lock.write("a", b"stale")
            with pytest.raises(Conflict):
                await lock.write("never written before", b"stale")
            return await newer.read("a")

    assert ask(server, run) == b"second"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [({"ttl": 0.01}, "ttl=0.01"), ({"ttl": float("nan")}, "ttl=nan"), ({"wait": -1}, "wait=-1")],
)
def test_mistakes(server: RunningServer, arguments: dict[str, float], complaint: str) -> None:
    async def take() -> None:
        server.app.lock("x", **arguments)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=complaint):
        ask(server, take)


def test_without_a_server_there_are_no_locks() -> None:
    with pytest.raises(GameServerError, match=r"app.lock: the server does not run"):
        App("locks").lock("x")


def test_a_lock_costs_two_round_trips(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url) as server:

        async def take() -> None:
            async with server.app.lock("cheap"):
                pass

        ask(server, take)  # the scripts are there now
        before = evals(own_redis), commands(own_redis)
        for _ in range(10):
            ask(server, take)
        after = evals(own_redis), commands(own_redis)
    assert after[0] - before[0] == 20
    # Commands within scripts count, too: SET and GET and the like, 5 and 3 of them; and INFO.
    assert after[1] - before[1] <= 10 * (2 + 9) + 4


def test_who_waits_is_woken_and_does_not_poll(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url) as one, running(App("locks"), redis_url=own_redis.url) as other:

        async def hold(seconds: float) -> float:
            async with one.app.lock("awaited", ttl=30):
                held.set()
                await asyncio.sleep(seconds)
            return time.monotonic()

        async def take() -> float:
            async with other.app.lock("awaited", ttl=30):
                return time.monotonic()

        async def warm() -> None:
            async with other.app.lock("warm"):
                pass

        import threading

        held = threading.Event()
        ask(other, warm)
        holder = one.call(lambda: asyncio.run_coroutine_threadsafe(hold(1.0), one.app._loop))  # type: ignore[arg-type]
        assert held.wait(5)
        before = evals(own_redis)
        taken = ask(other, take)
        calls = evals(own_redis) - before
        released = holder.result(5)
    assert released - 0.5 <= taken <= released + 15  # not before, and far earlier than the ttl of 30 s
    # Asked, asked again once it would hear, took; and both were given back: five scripts in a second.
    assert calls <= 5


def test_what_runs_is_stopped_when_it_can_not_be_renewed(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url, store_timeout=0.3) as server:
        import threading

        held = threading.Event()

        async def hold() -> float:
            began = time.monotonic()
            try:
                async with server.app.lock("lost", ttl=1.5):
                    held.set()
                    await asyncio.Event().wait()  # until the lock stops it
            except LockLost:
                return time.monotonic() - began
            raise AssertionError

        future = server.call(lambda: asyncio.run_coroutine_threadsafe(hold(), server.app._loop))  # type: ignore[arg-type]
        assert held.wait(5)
        own_redis.pause()
        stopped_after = future.result(20)
        own_redis.go_on()
        stats = server.stats()["stores"]["locks"]
    assert stopped_after >= 0.9  # two thirds of the ttl
    assert stats["lost"] == 1


def test_what_runs_is_stopped_when_somebody_else_has_it(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url) as server:

        async def hold() -> None:
            async with server.app.lock("taken", ttl=0.6):
                await server.app.redis.set(tag("lock", "taken"), "another")
                await asyncio.Event().wait()  # until the lock stops it

        with pytest.raises(LockLost, match="somebody else has it"):
            ask(server, hold)
        assert own_redis.cli("GET", tag("lock", "taken")).strip() == "another"  # and was not taken away from them


def test_it_is_renewed_as_long_as_it_is_held(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url) as server:

        async def hold() -> None:
            async with server.app.lock("long", ttl=0.3):
                left, renewals = 0, -1  # its first lease is none
                while renewals < 8:
                    now = await server.app.redis.pttl(tag("lock", "long"))
                    assert now > 0
                    renewals += now > left
                    left = now

        ask(server, hold)
        assert server.stats()["stores"]["locks"]["lost"] == 0
    assert own_redis.cli("EXISTS", tag("lock", "long")).strip() == "0"


def test_a_cancelled_body_is_cancelled_and_not_lost(server: RunningServer) -> None:
    async def run() -> None:
        async def hold() -> None:
            async with server.app.lock("mine"):
                await asyncio.Event().wait()

        task = asyncio.create_task(hold())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with server.app.lock("mine", wait=2):
            pass

    ask(server, run)


def test_without_redis_it_is_unavailable(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url, store_timeout=0.3) as server:
        own_redis.kill()

        async def take() -> None:
            async with server.app.lock("gone"):
                pass

        with pytest.raises(Unavailable, match="redis"):
            ask(server, take)


def test_fences_grow_also_when_redis_has_lost_them(own_redis: Redis) -> None:
    with running(App("locks"), redis_url=own_redis.url) as server:

        async def take() -> int:
            async with server.app.lock("fence") as lock:
                return lock.fence

        first = ask(server, take)
        own_redis.cli("FLUSHALL")
        assert ask(server, take) > first
        own_redis.cli("SET", under(tag("lock", "fence"), "fence"), str(2 * first))
        assert ask(server, take) == 2 * first + 1  # whatever a clock says


@pytest.mark.parametrize("fenced", [True, False])
def test_holders_that_were_stopped_for_longer_than_the_ttl(fenced: bool) -> None:
    """300 of them go on writing when they are continued: fenced, none is accepted; without it, stale writes are seen."""
    processes, each, ttl = 6, 50, 2.0
    with redis_server("--maxclients", "10000") as redis:

        def start(first: int) -> subprocess.Popen[str]:
            command = [sys.executable, str(HOLDERS), redis.url, str(first), str(each), str(ttl), str(int(fenced))]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def says(process: subprocess.Popen[str], word: str) -> None:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{word}\n"

        old = [start(number * each) for number in range(processes)]
        for process in old:
            says(process, "held")
            process.send_signal(signal.SIGSTOP)
        new = [start(number * each) for number in range(processes)]  # they get the locks when the leases end
        try:
            for process in new:
                says(process, "held")
            for process in new:  # their last word
                assert process.stdin is not None
                process.stdin.close()
            said = [json.loads(process.stdout.read()) for process in new if process.stdout is not None]
            for process in old:
                process.send_signal(signal.SIGCONT)
            for process in old:
                says(process, "lost")
            for process in old:
                assert process.stdin is not None
                process.stdin.close()
            stale = [json.loads(process.stdout.read()) for process in old if process.stdout is not None]
        finally:
            for process in (*old, *new):
                process.kill()
                with process:
                    pass  # its pipes, and itself
        fences = {name: fence for one in said for name, fence in one["fences"].items()}
        assert len(fences) == processes * each
        from gameserver._redis.leases import tag_within

        values = {name: int(redis.cli("HGET", tag_within(tag("lock", name), "who"), "value")) for name in fences}
    overwritten = sum(values[name] != fence for name, fence in fences.items())
    assert sum(one["lost"] for one in stale) == processes * each
    if fenced:
        assert overwritten == 0
        assert sum(one["refused"] for one in stale) >= processes * each  # they have tried
    else:
        assert overwritten > processes * each / 2
