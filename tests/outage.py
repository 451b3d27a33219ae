"""A game under load whose stores go away and come back: what its players notice, and what is lost.

Players move (no store), buy (a transaction: durable), are saved (persistent entities: replicated), look at a shop (a cache), and
trade (a lock). Used by `test_stores_down.py`, shortly, and by `benches/chaos.py`, for 30 seconds in every order.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from stores import Postgres, Redis, ask
from wire_client import Client, connected

from gameserver import App, Entity, Session, f32, u32
from gameserver.middleware import use
from gameserver.storage import UnitOfWork, transaction
from gameserver.testing import RunningServer, running

PLAYERS = 4
RECOVERY_MAX = 5.0  # s, of the issue that this is for


class Base(DeclarativeBase):
    pass


class Bought(Base):
    __tablename__ = "bought"
    number: Mapped[int] = mapped_column(primary_key=True)


@dataclass
class Report:
    """What was seen."""

    moves: int = 0
    moves_failed: int = 0
    longest_move: float = 0.0
    acknowledged: set[int] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    lost: set[int] = field(default_factory=set)
    """Acknowledged, and not in the database."""
    recovery: dict[str, float] = field(default_factory=dict)
    """By what players do: seconds from when all stores were back until it worked again."""
    saved_behind: int = 0
    """Persistent entities whose stored state is not their last one, at the end."""
    ticks_skipped: int = 0
    lateness_p99: float = 0.0
    is_down_seen: bool = False
    """A breaker had opened."""


def outage(redis: Redis, postgres: Postgres, order: Sequence[str], seconds: float, how: str) -> Report:
    """Lets stores go away one after the other, and come back in the same order.

    Args:
        order: of ``"redis"`` and ``"postgres"``.
        seconds: for which each is away.
        how: ``"kill"``, or ``"pause"``: connections stay, and nobody answers.
    """
    report = Report()
    app = App(
        "outage",
        tick_rate=50,
        redis_url=redis.url,
        database_url=postgres.database(),
        store_timeout=0.5,
        save_interval=0.2,
    )
    hero = _game(app)
    stores: dict[str, Any] = {"redis": redis, "postgres": postgres}
    over = threading.Event()
    with running(app, timeout=30) as server:
        threads = [threading.Thread(target=_play, args=(server, number, report, over)) for number in range(PLAYERS)]
        for thread in threads:
            thread.start()
        _until_all_works(server)
        _watch(server, report, 1.0)
        try:
            for name in order:
                stores[name].pause() if how == "pause" else stores[name].kill()
                _watch(server, report, seconds / len(order))
            _watch(server, report, seconds - seconds / len(order))
            for name in order:
                stores[name].go_on() if how == "pause" else stores[name].start()
            back = time.monotonic()
            report.recovery = _until_all_works(server, back)
            _watch(server, report, 1.0)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        stats = server.stats()
        report.ticks_skipped = stats["tick"]["skipped"]
        report.lateness_p99 = stats["tick"]["lateness_p99_ns"] / 1e9
        last = server.call(lambda: {player: entity.x for player, entity in app.heroes.items()})  # type: ignore[attr-defined]
        ask(server, lambda: _until_saved(app))
        report.lost = report.acknowledged - ask(server, lambda: _bought(app))
        stored = ask(server, lambda: _stored(app))
        report.saved_behind = sum(abs(stored.get(key, -1.0) - x) > 1e-3 for key, x in last.items())
    assert hero is not None
    return report


def _game(app: App) -> type[Entity]:
    app.storage(Base.metadata)
    heroes: dict[str, Any] = {}
    app.heroes = heroes  # type: ignore[attr-defined]

    @app.persistent
    class Hero(Entity):
        x: f32 = 0.0
        y: f32 = 0.0
        moves: u32 = 0

    @app.on("join")
    async def join(session: Session, body: bytes) -> None:
        heroes[body.decode()] = await app.load(Hero, body.decode())

    @app.on("move")
    def move(session: Session, body: bytes) -> float:
        hero = heroes[body.decode()]
        hero.x += 1.0
        hero.moves += 1
        return float(hero.x)

    @app.on("buy")
    @use(transaction)
    async def buy(session: Session, body: bytes, work: UnitOfWork) -> None:
        work.sql.add(Bought(number=int(body)))

    @app.cached(ttl=0.5)
    async def prices(shop: str) -> int:
        async with app.transaction() as work:
            return int((await work.sql.execute(select(func.count()).select_from(Bought))).scalar_one() * 0 + 7)

    @app.on("look")
    async def look(session: Session, body: bytes) -> int:
        return await prices(body.decode())

    @app.on("trade")
    async def trade(session: Session, body: bytes) -> None:
        async with app.lock(f"trade:{body.decode()}", ttl=2, wait=1):
            pass

    @app.tick
    def step(dt: float) -> None:
        for hero in heroes.values():
            hero.y += dt

    return Hero


def _play(server: RunningServer, player: int, report: Report, over: threading.Event) -> None:
    """One player: moves with one hand, and does the rest with the other."""
    client, other = connected(server.port), connected(server.port)
    name = f"player {player}".encode()
    assert not client.request("join", name).error

    def move() -> None:
        while not over.is_set():
            began = time.perf_counter()
            answer = client.request("move", name)
            report.longest_move = max(report.longest_move, time.perf_counter() - began)
            report.moves += 1
            report.moves_failed += answer.error
            over.wait(0.01)

    hand = threading.Thread(target=move)
    hand.start()
    number = player
    while not over.is_set():
        for route in ("buy", "look", "trade"):
            body = str(number).encode() if route == "buy" else name
            answer = other.request(route, body)
            if answer.error:
                report.refusals[f"{route} {json.loads(answer.body)['code']}"] += 1
            elif route == "buy":
                report.acknowledged.add(number)
        number += PLAYERS
        over.wait(0.01)
    hand.join()


def _watch(server: RunningServer, report: Report, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stores = server.stats()["stores"]
        report.is_down_seen |= any(stores[name]["opened"] > 0 for name in ("redis", "database"))
        time.sleep(0.1)


def _until_all_works(server: RunningServer, since: float = 0.0) -> dict[str, float]:
    """Seconds until each of what players do works."""
    client: Client = connected(server.port)
    found = {}
    for route, body in (("buy", b"-1"), ("look", b"probe"), ("trade", b"probe")):
        number = -1
        while True:
            if route == "buy":
                number -= 1
                body = str(number - int(time.time() * 1000) % 1_000_000_000).encode()
            if not client.request(route, body).error:
                break
            time.sleep(0.02)
        found[route] = time.monotonic() - since
    return found


async def _until_saved(app: App) -> None:
    saver = app._stores.saver
    assert saver is not None
    saver._scan()
    await saver._flush()
    assert not saver._pending


async def _bought(app: App) -> set[int]:
    async with app.transaction() as work:
        return {*(await work.sql.scalars(select(Bought.number))).all()}


async def _stored(app: App) -> dict[str, float]:
    from gameserver._sql.tables import ENTITIES

    async with app.transaction() as work:
        rows = await work.sql.execute(select(ENTITIES.c.key, ENTITIES.c.data))
        return {key: json.loads(data)["x"] for key, data in rows}
