"""A history of shared events, with everything that can go wrong in it, and what is wrong with it in the end.

Used by `test_shared_events.py`, shortly and with planted bugs, and by `benches/chaos.py`, for 100,000 events.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from redis.exceptions import RedisError
from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stores import Cluster, Postgres, Redis, ask

from gameserver import App, Event, shared
from gameserver._redis.streams import PARTITIONS, stream_of
from gameserver.testing import RunningServer, running

CONSUMER = Path(__file__).parent / "peers" / "consumer.py"
KEYS = 200
OPEN_MAX = 300  # events that are not handled when the next ones are emitted
KILLS_MAX = 40
BACK_AFTER = 4.0  # s until a primary that was killed is started again
STOPPED = 2.0  # s; leases of these consumers are half as long


@shared
class Step(Event):
    who: str
    number: int


class Base(DeclarativeBase):
    pass


class Effect(Base):
    """What a subscriber has done, in the order in which it did."""

    __tablename__ = "effect"
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    who: Mapped[str]
    number: Mapped[int]


class Seen(NamedTuple):
    who: str
    number: int


def wrongs(emitted: Sequence[Seen], effects: Sequence[Seen]) -> list[str]:
    """All that is wrong with a history: orders that broke, effects that came twice, events that are lost."""
    found = []
    last: dict[str, int] = defaultdict(lambda: -1)
    for one in effects:
        if one.number <= last[one.who]:
            found.append(f"{one} came after {last[one.who]}")
        last[one.who] = max(last[one.who], one.number)
    for one, count in Counter(effects).items():
        if count > 1:
            found.append(f"{one} came {count} times")
    found += [f"{one} is lost" for one in set(emitted) - set(effects)]
    found += [f"{one} was never emitted" for one in set(effects) - set(emitted)]
    return found


def steps(keys: int, each: int) -> list[Seen]:
    """Events of so many keys, in turns."""
    return [Seen(f"player {key}", number) for number in range(each) for key in range(keys)]


class History(NamedTuple):
    """How it went."""

    wrongs: list[str]
    kills: int
    """Consumers that were killed by -9, and started anew, or stopped by SIGSTOP for longer than their leases."""
    repeated: int
    """Events that were published twice, by intent."""
    seconds: float


def killed_and_back(redis: Redis) -> Callable[[], None]:
    """Makes a Redis of its own keep all that it acknowledges, and gives what kills it and starts it again."""
    redis.kill()
    redis._options = ("--appendonly", "yes", "--appendfsync", "always")
    redis.start()

    def fail() -> None:
        redis.kill()
        redis.start()

    return fail


def failed_over(cluster: Cluster) -> Callable[[], None]:
    """Gives what kills the primary that has the events: its copy stands in for it, and it comes back as the copy of that. Before it
    has had time for that, nothing is killed."""
    next_time = [0.0]

    def fail() -> None:
        if time.monotonic() < next_time[0]:
            return
        next_time[0] = time.monotonic() + 3 * BACK_AFTER
        victim = cluster.primary_of(stream_of("Step", 0))
        victim.kill()
        threading.Timer(BACK_AFTER, victim.start).start()

    return fail


def history(
    redis_url: str, postgres: Postgres, count: int, fail: Callable[[], None] | None, *, bug: str = "", replicas: int = 0
) -> History:
    """Emits so many events to three consumers that die all the time, and each tenth event twice.

    Args:
        fail: makes Redis fail, and come back; None: it does not.
        bug: that the consumers have, see `peers/consumer.py`.
        replicas: that must have an event.
    """
    url, began, kills = postgres.database(), time.monotonic(), 0
    app = App(
        "emitter",
        redis_url=redis_url,
        database_url=url,
        log_level="critical",
        store_timeout=1.0,
        redis_replicas=replicas,
    )
    app.storage(Base.metadata)
    emitted = steps(KEYS, count // KEYS)
    repeated, kill_every = 0, max(1, count // 500 // KILLS_MAX)
    with running(app) as server, _consumers(redis_url, url, bug) as consumers:
        publisher, known = app._stores.publisher, app._stores.known
        assert publisher is not None
        assert known is not None

        def emit(part: Sequence[Seen]) -> int:
            envelopes = [known.envelope(Step(one.who, one.number), one.who) for one in part]
            again = random.sample(envelopes, len(envelopes) // 10)
            for envelope in (*envelopes, *again):  # behind others of their keys: late, and twice
                publisher.put(envelope)
            return len(again)

        for number, start in enumerate(range(0, count, 500)):
            repeated += server.call(emit, emitted[start : start + 500], timeout=30)
            _until_few_are_open(server, start + 500)  # but some are, which die with their consumer
            if number % kill_every == 0:
                if number // kill_every % 2:
                    consumers.stop_one(STOPPED)
                else:
                    consumers.kill_one()
                kills += 1
            if fail is not None and number % (2 * kill_every) == 1:
                fail()
        consumers.kill_one()
        kills += 1
        effects = _until_still(server, len(emitted))
    return History(wrongs(emitted, effects), kills, repeated, time.monotonic() - began)


class _Consumers:
    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._processes = [self._start() for _ in range(3)]

    def kill_one(self) -> None:
        """By -9; another takes its place."""
        victim = self._processes.pop(0)
        victim.kill()
        with victim:
            pass
        self._processes.append(self._start())

    def stop_one(self, seconds: float) -> None:
        """By SIGSTOP: it does not know that others have what it had."""
        victim = self._processes[0]
        victim.send_signal(signal.SIGSTOP)
        threading.Timer(seconds, victim.send_signal, [signal.SIGCONT]).start()

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            with process:
                pass

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(CONSUMER), *self._arguments]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True)


@contextlib.contextmanager
def _consumers(*arguments: str) -> Iterator[_Consumers]:
    consumers = _Consumers(arguments)
    try:
        yield consumers
    finally:
        consumers.stop()


def _until_few_are_open(server: RunningServer, emitted: int) -> None:
    async def count() -> int:
        async with server.app.transaction() as work:
            found: int = (await work.sql.execute(select(func.count()).select_from(Effect))).scalar_one()
            return found

    deadline = time.monotonic() + 30
    while ask(server, count) < emitted - OPEN_MAX:
        if time.monotonic() > deadline:
            return  # what is lost will be said in the end
        time.sleep(0.02)


def _until_still(server: RunningServer, count: int) -> list[Seen]:
    """Effects, when all that was published has been acknowledged, or no more come for a while."""
    found: list[Seen] = []
    since = time.monotonic()
    while time.monotonic() < since + 15:
        if len(set(found)) >= count and ask(server, lambda: _is_acknowledged(server.app), timeout=60):
            break
        now = ask(server, lambda: effects_of(server.app), timeout=60)
        if len(now) != len(found):
            found, since = now, time.monotonic()
        time.sleep(0.05)
    return ask(server, lambda: effects_of(server.app), timeout=60)


async def _is_acknowledged(app: App) -> bool:
    """Whether nothing of the streams is still on its way, so that nothing can come twice any more."""
    try:
        for number in range(PARTITIONS):
            place = stream_of("Step", number)
            last = (await app.redis.xinfo_stream(place))["last-generated-id"]
            for group in await app.redis.xinfo_groups(place):
                if group["pending"] or group["last-delivered-id"] != last:
                    return False
    except (RedisError, OSError):  # it fails over
        return False
    return True


async def effects_of(app: App) -> list[Seen]:
    """All there are, in their order."""
    async with app.transaction() as work:
        rows = await work.sql.execute(select(Effect.who, Effect.number).order_by(Effect.place))
        return [Seen(*row) for row in rows]
