"""Every integration test runs on both halves of the house: inline, on I/O threads, and with all events taken through bytes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificate
from stores import Cluster, Postgres, Redis, postgres_server, redis_cluster, redis_server
from wire_client import Client

from gameserver import App
from gameserver.testing import RunningServer, running

collect_ignore = ["peers", "attacks/target.py"]  # programs of their own, which tests run
collect_ignore_glob = ["typing/*"]  # read by mypy, never run

Serve = Callable[..., contextlib.AbstractContextManager[RunningServer]]


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while Client.opened:
        Client.opened.pop().close()


@pytest.fixture(params=["inline", "threads", "bytes"])
def serve(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`running`, with the sockets polled inline, by two threads, or inline with every log encoded and decoded.

    When the block ends, no buffer may be out and no async handler under way.
    """
    threads = 2 if request.param == "threads" else 0
    if request.param == "bytes":
        monkeypatch.setenv("GAMESERVER_THROUGH_BYTES", "1")

    @contextlib.contextmanager
    def serve(app: App, **settings: Any) -> Iterator[RunningServer]:
        with running(app, **{"io_threads": threads, "drain_timeout": 2.0, **settings}) as server:
            yield server
        assert server.final_stats["pool"]["out"] == 0, server.final_stats

    return serve


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def one_redis() -> Iterator[Redis]:
    """A Redis that tests share: names in it are a test's own."""
    with redis_server() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that a test may stop and kill."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Six nodes that tests share."""
    with redis_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def one_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that tests share, each with a database of its own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/game.db"
    server: Postgres = request.getfixturevalue("one_postgres")
    return server.database()


def eventually(server: RunningServer, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The server's stats, as soon as they are as expected: with threads, a client may see its close before the game does."""
    deadline = time.monotonic() + 10
    while not holds(stats := server.stats()):
        assert time.monotonic() < deadline, stats
    return stats
