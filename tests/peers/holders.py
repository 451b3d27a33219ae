"""Holds many locks, and writes under each from a thread that nobody can cancel: ``holders.py REDIS_URL FIRST COUNT TTL FENCED``.

Says ``held`` when it has all of them, ``lost`` when it has lost all, and ends when its standard input does: then says how many
writes were accepted, and refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

import redis

from gameserver import LockLost
from gameserver._redis.connection import Connection
from gameserver._redis.keys import tag, under
from gameserver._redis.leases import WRITE, RedisLeases, tag_within
from gameserver.locks import Lock, Locks


def write(client: Any, name: str, fence: int, fenced: bool) -> bool:
    own = tag("lock", name)
    if fenced:
        keys = [under(own, "fence"), tag_within(own, "who")]
        return bool(client.eval(WRITE.text, 2, *keys, fence, str(fence).encode(), 60_000))
    client.hset(tag_within(own, "who"), "value", str(fence))
    return True


async def main() -> None:
    url, first, count, ttl, fenced = (
        sys.argv[1],
        int(sys.argv[2]),
        int(sys.argv[3]),
        float(sys.argv[4]),
        sys.argv[5] == "1",
    )
    connection = Connection(url, 5.0)
    await connection.open()
    leases = RedisLeases(connection)
    locks = Locks(leases)
    over = threading.Event()
    counts = {"accepted": 0, "refused": 0, "lost": 0}
    fences: dict[str, int] = {}
    all_held = asyncio.Event()
    pool = redis.Redis.from_url(url, max_connections=1000)

    def work(name: str, fence: int) -> None:
        while not over.is_set():
            accepted = write(pool, name, fence, fenced)
            counts["accepted" if accepted else "refused"] += 1
            time.sleep(0.05)

    async def hold(name: str) -> None:
        try:
            async with Lock(locks, name, ttl, None, False) as lock:
                fences[name] = lock.fence
                thread = threading.Thread(target=work, args=(name, lock.fence), daemon=True)
                thread.start()
                if len(fences) == count:
                    all_held.set()
                await asyncio.Event().wait()
        except LockLost:
            counts["lost"] += 1
            if counts["lost"] == count:
                print("lost", flush=True)

    tasks = [asyncio.create_task(hold(f"holder:{number}")) for number in range(first, first + count)]
    await all_held.wait()
    print("held", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps({**counts, "fences": fences}), flush=True)


asyncio.run(main())
