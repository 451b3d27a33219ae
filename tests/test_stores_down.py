"""Stores that go away under load, shortly. For 30 seconds, in every order: `make chaos`."""

from __future__ import annotations

import pytest
from outage import RECOVERY_MAX, outage
from sqlalchemy import text
from stores import Redis, ask, postgres_server, until

from gameserver import App, Entity, Unavailable, f32
from gameserver.testing import running


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.parametrize("order", [("redis", "postgres"), ("postgres", "redis")], ids="-".join)
def test_players_go_on_and_nothing_durable_is_lost(order: tuple[str, ...], how: str, own_redis: Redis) -> None:
    with postgres_server() as postgres:
        report = outage(own_redis, postgres, order, 3.0, how)
    assert report.moves > 100
    assert report.moves_failed == 0
    assert len(report.acknowledged) > 20
    assert report.lost == set()
    assert report.saved_behind == 0
    assert report.is_down_seen
    assert {code.split()[1] for code in report.refusals} == {"GS-503"}, report.refusals
    assert set(report.recovery) == {"buy", "look", "trade"}
    assert max(report.recovery.values()) < 4 * RECOVERY_MAX  # the bound itself is measured by `make chaos`


def test_a_database_that_refuses_connections_is_down_and_drops_nothing() -> None:
    """PostgreSQL answers, and says that it is starting: no row is at fault."""
    with postgres_server() as postgres:
        app = App("refused", database_url=postgres.database(), store_timeout=0.5, save_interval=0.02)
        app.storage()

        @app.persistent
        class Hero(Entity):
            x: f32 = 0.0

        async def loaded() -> float:
            return float((await app.load(Hero, "ada")).x)

        async def change(hero: Hero) -> None:
            hero.x += 1

        async def count() -> int:
            async with app.transaction() as work:
                return int((await work.sql.execute(text("select count(*) from pg_stat_activity"))).scalar_one())

        with running(app) as server:
            hero = ask(server, lambda: app.load(Hero, "ada"))
            postgres.kill()
            postgres.start_refusing()
            ask(server, lambda: change(hero))
            failed = server.stats()["stores"]["saved"]["failed"]
            ask(server, lambda: until(lambda: server.app.stats()["stores"]["saved"]["failed"] > failed + 1))
            with pytest.raises(Unavailable):
                ask(server, count)
            assert server.stats()["stores"]["saved"]["dropped"] == 0
            postgres.kill()
            postgres.start()
            ask(server, lambda: until(lambda: server.app.stats()["stores"]["saved"]["pending"] == 0))
            assert server.stats()["stores"]["saved"]["dropped"] == 0
        with running(app) as server:
            assert ask(server, loaded) == 1.0
