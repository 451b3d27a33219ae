"""What is lost when things die, more often and longer than in the tests: `make chaos`, or some of it, `make chaos ARGS=killed`.

- killed: writers killed by -9 at random moments, and the database with them, 200 times each, on SQLite and on PostgreSQL;
- outages: Redis and PostgreSQL away for 30 seconds under load, in every order, by SIGKILL and by SIGSTOP;
- history: 100,000 events to consumers that are killed all the time, while Redis is killed, too, and a tenth of them comes twice;
- failover: a primary of a real six-node cluster killed while shared events are published, with and without WAIT.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)
sys.path.insert(0, str(ROOT / "tests"))

import history  # noqa: E402
import killed  # noqa: E402
import outage  # noqa: E402
from benches.harness.report import Figure, Section, asked, publish, stated  # noqa: E402
from stores import Cluster, Postgres, postgres_server, redis_cluster, redis_server  # noqa: E402

from gameserver import App, Event, shared  # noqa: E402
from gameserver.testing import RunningServer, running  # noqa: E402


@shared
class Told(Event):
    """What is published while a primary dies."""

    number: int


def main() -> int:
    """Prints the figures; 1 if anything was lost that must not be."""
    parser = argparse.ArgumentParser(prog="benches/chaos.py", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["killed", "outages", "history", "failover"])
    parser.add_argument("--rounds", type=int, default=200, help="of kills, on each database")
    parser.add_argument("--seconds", type=float, default=30.0, help="for which stores are away")
    parser.add_argument("--events", type=int, default=100_000, help="of the history")
    parser.add_argument("--failovers", type=int, default=5)
    arguments = parser.parse_args()
    figures: list[Figure] = []
    for part in arguments.parts:
        match part:
            case "killed":
                figures += kills(arguments.rounds)
            case "outages":
                figures += outages(arguments.seconds)
            case "history":
                figures += histories(arguments.events)
            case "failover":
                figures += failovers(arguments.failovers)
            case _:
                parser.error(f"there is no {part}")
    publish(Section("chaos", "Things that die", figures, []))
    return 1 if any(figure.reached == "NO" for figure in figures) else 0


def kills(rounds: int) -> list[Figure]:
    """Of writers, and of the database that they write to."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        found.append(_kills("SQLite, the writer killed", f"sqlite:///{folder}/game.db", rounds, killed.kill_process))
    with postgres_server() as server:
        url = server.database()
        found.append(_kills("PostgreSQL, the writer killed", url, rounds, killed.kill_process))
        found.append(_kills("PostgreSQL, it and the writer killed", url, rounds // 4, _with_database(server), rounds))
    return [figure for figures in found for figure in figures]


def _with_database(server: Postgres) -> Callable[[int], None]:
    def kill(pid: int) -> None:
        server.kill()
        killed.kill_process(pid)
        server.start()

    return kill


def _kills(name: str, url: str, rounds: int, kill: Callable[[int], None], first: int = 0) -> list[Figure]:
    asyncio.run(killed.prepare(url))
    total = killed.Found(0, 0, 0, 0)
    for number in range(first, first + rounds):
        one = killed.killed_round(url, number * 1_000_000, random.random() * 0.1, kill)
        total = killed.Found(*(a + b for a, b in zip(total, one, strict=True)))
        if number % 20 == 0:
            print(f"{name}: round {number - first}, {total}", flush=True)
    detail = f"{rounds} rounds, {total.acknowledged:,} transactions acknowledged"
    return [
        asked(f"{name}: acknowledged and lost", [total.lost], 0.0, detail=detail),
        asked(f"{name}: half-written, or an event without its rows", [total.halves + total.events], 0.0, detail=detail),
    ]


def outages(seconds: float) -> list[Figure]:
    """In every order, and by both ways to be gone."""
    found = []
    for how in ("kill", "pause"):
        for order in (("redis",), ("postgres",), ("redis", "postgres"), ("postgres", "redis")):
            with redis_server() as redis, postgres_server() as postgres:
                report = outage.outage(redis, postgres, order, seconds, how)
            name = f"{' and '.join(order)} away for {seconds:g} s, by {how}"
            print(f"{name}: {len(report.acknowledged)} acknowledged, {len(report.lost)} lost", flush=True)
            lost = len(report.lost) + report.saved_behind + report.moves_failed
            detail = (
                f"{report.moves:,} moves, the longest {report.longest_move * 1e3:.0f} ms; {len(report.acknowledged):,} durable "
                f"writes acknowledged, {sum(report.refusals.values()):,} requests refused"
            )
            found.append(
                asked(f"{name}: moves failed, durable writes lost, entities behind", [lost], 0.0, detail=detail)
            )
            recovery = max(report.recovery.values())
            found.append(asked(f"{name}: until all works again", [recovery], outage.RECOVERY_MAX, unit=" s"))
    return found


def histories(events: int) -> list[Figure]:
    """One with a Redis that is killed again and again, and one with a cluster that fails over again and again."""
    with redis_server() as redis, postgres_server() as postgres:
        one = history.history(redis.url, postgres, events, history.killed_and_back(redis))
    with redis_cluster() as cluster, postgres_server() as postgres:
        other = history.history(cluster.url, postgres, events, history.failed_over(cluster), replicas=1)
    return [
        asked(
            f"{events:,} shared events, {what}: out of order, twice, or lost",
            [float(len(found.wrongs))],
            0.0,
            detail=f"{found.seconds:.0f} s; {found.kills} consumers killed or stopped, {found.repeated:,} events published "
            f"twice; {'; '.join(found.wrongs[:3])}",
        )
        for what, found in (("Redis killed again and again", one), ("primaries of a cluster killed", other))
    ]


BACK_AFTER = 5.0  # s


def failovers(rounds: int) -> list[Figure]:
    """What of published events is lost with a primary."""
    found = []
    for replicas in (0, 1):
        lost, downs = [], []
        for _ in range(rounds):
            with redis_cluster() as cluster:
                one, down = _failover(cluster, replicas)
            print(f"redis_replicas={replicas}: {one} lost, {down:.1f} s", flush=True)
            lost.append(one)
            downs.append(down)
        name = f"a primary killed under load, redis_replicas={replicas}"
        text = f"{sum(lost)} ({', '.join(map(str, lost))} of each round's 20,000)"
        if replicas:
            found.append(asked(f"{name}: published events lost", [float(sum(lost))], 0.0, detail=text))
        else:
            found.append(stated(f"{name}: published events lost", text))
        found.append(stated(f"{name}: until events go on", f"{median(downs):.1f} s"))
    return found


def _failover(cluster: Cluster, replicas: int) -> tuple[int, float]:
    from gameserver._redis.streams import stream_of

    heard: set[int] = set()
    app = App("failover", redis_url=cluster.url, redis_replicas=replicas, store_timeout=1.0)

    @app.on_event(Told)
    def hear(event: Told) -> None:
        heard.add(event.number)

    count = 20_000
    with running(app) as server:
        emitter = threading.Thread(target=_emit, args=(server, app, count))
        emitter.start()
        while len(heard) < count // 4:
            time.sleep(0.01)
        victim = cluster.primary_of(stream_of("Told", 0))
        victim.kill()
        killed_at, before = time.monotonic(), len(heard)
        while len(heard) <= before + 200 and time.monotonic() < killed_at + 30:
            time.sleep(0.01)
        down = time.monotonic() - killed_at
        time.sleep(max(0.0, killed_at + BACK_AFTER - time.monotonic()))
        victim.start()  # as whoever watches over it would: it becomes the copy of who stood in for it
        emitter.join()
        last, since = -1, time.monotonic()
        while len(heard) < count and time.monotonic() < since + 8:
            if len(heard) != last:
                last, since = len(heard), time.monotonic()
            time.sleep(0.05)
    return count - len(heard), down


def _emit(server: RunningServer, app: App, count: int) -> None:
    def some(first: int) -> None:
        for number in range(first, first + 100):
            app.emit(Told(number), key=number % 50)

    for first in range(0, count, 100):
        server.call(some, first, timeout=60)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
