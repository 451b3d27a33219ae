"""A real cluster of six nodes: slots that move while they are used (MOVED, ASK), and a primary that dies."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from redis.crc import key_slot
from stores import Cluster, Redis, ask, redis_cluster, until

from gameserver import App, LockLost, Unavailable
from gameserver._redis.keys import tag, under
from gameserver.testing import RunningServer, running


class Traffic:
    """A lock that is taken and given back without a pause."""

    def __init__(self, app: App, name: str) -> None:
        self.fences: list[int] = []
        self.errors: Counter[str] = Counter()
        self._app, self._name = app, name
        self._over = threading.Event()
        self._future: Future[None] | None = None

    def start(self, server: RunningServer) -> None:
        loop: Any = self._app._loop
        self._future = server.call(lambda: asyncio.run_coroutine_threadsafe(self._run(), loop))

    def stop(self) -> None:
        self._over.set()
        assert self._future is not None
        self._future.result(30)

    async def _run(self) -> None:
        while not self._over.is_set():
            try:
                async with self._app.lock(self._name, ttl=3, wait=5) as lock:
                    await lock.write("fence", str(lock.fence).encode())
                    assert await lock.read("fence") == str(lock.fence).encode()
                    self.fences.append(lock.fence)
            except (Unavailable, LockLost) as error:
                self.errors[str(error).split(":")[0]] += 1
                await asyncio.sleep(0.05)


def more(server: RunningServer, traffic: Traffic, count: int = 20) -> None:
    """Once it goes on."""
    before = len(traffic.fences)
    holds: Callable[[], bool] = lambda: len(traffic.fences) >= before + count  # noqa: E731
    ask(server, lambda: until(holds, 60), timeout=70)


def test_a_slot_moves_while_it_is_used(cluster: Cluster) -> None:
    place = tag("lock", "moving")
    slot = str(key_slot(place.encode()))
    source = cluster.primary_of(place)
    ids = {node: node.cli("CLUSTER", "MYID").strip() for node in cluster.nodes}
    target = next(node for node in cluster.nodes if node is not source and _is_primary(node))
    with running(App("moving"), redis_url=cluster.url) as server:
        traffic = Traffic(server.app, "moving")
        traffic.start(server)
        more(server, traffic)
        assert "OK" in target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        assert "OK" in source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        asked = under(place, "asked")  # which is not here, so that the client is told to ask there
        assert ask(server, lambda: server.app.redis.set(asked, b"1"))
        assert ask(server, lambda: server.app.redis.get(asked)) == b"1"
        assert asked in target.cli("CLUSTER", "GETKEYSINSLOT", slot, "100")
        for _ in range(100):
            keys = source.cli("CLUSTER", "GETKEYSINSLOT", slot, "100").split()
            if not keys:
                break
            source.cli("MIGRATE", "127.0.0.1", str(target.port), "", "0", "5000", "KEYS", *keys)
        for node in (target, source, *cluster.nodes):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
        more(server, traffic)
        traffic.stop()
    assert cluster.primary_of(place) is target
    assert traffic.fences == sorted(set(traffic.fences))
    # While the keys of one lock are here and there, Redis says TRYAGAIN: they are refused, and go on when all have moved.
    assert set(traffic.errors) <= {"redis", "redis is down; it is tried again within 1 s"}, traffic.errors


def _is_primary(node: Redis) -> bool:
    return "role:master" in node.cli("INFO", "replication")


def test_a_primary_dies_while_its_locks_are_used() -> None:
    with redis_cluster() as cluster, running(App("failing"), redis_url=cluster.url, store_timeout=0.5) as server:
        traffic, other = Traffic(server.app, "failing"), Traffic(server.app, "other")
        for one in (traffic, other):
            one.start(server)
            more(server, one)
        victim = cluster.primary_of(tag("lock", "failing"))
        victim.kill()
        # Another process starts meanwhile, though a node that the URL names is dead and has not been replaced.
        with running(App("newcomer"), redis_url=cluster.url):
            pass
        before = len(traffic.fences)
        more(server, traffic)  # by itself, when its copy stands in for it
        for one in (traffic, other):
            one.stop()
        with running(App("later"), redis_url=cluster.url):  # though it is dead still
            pass
        assert cluster.primary_of(tag("lock", "failing")) is not victim
        assert len(traffic.fences) > before
        assert traffic.fences == sorted(set(traffic.fences))  # also those that it has not told its copy
