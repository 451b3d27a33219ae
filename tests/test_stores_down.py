"""Stores that go away under load, shortly. For 30 seconds, in every order: `make chaos`."""

from __future__ import annotations

import pytest
from outage import RECOVERY_MAX, outage
from stores import Redis, postgres_server


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
