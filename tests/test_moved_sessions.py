"""Sessions that another process goes on with: who it is and what the game keeps of them; once, and by nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import eventually
from returning import Returning
from stores import Cluster, Redis, ask

from gameserver import App, Left, Session
from gameserver.testing import RunningServer, running


class Player(Session):
    gold: int = 0

    def on_save(self) -> dict[str, int]:
        return {"gold": self.gold}

    def on_load(self, data: dict[str, int]) -> None:
        self.gold = data["gold"]


def game(story: list[str], name: str, *, logs_in: bool = True) -> App:
    app = App(name, session=Player, resume_grace=30, save_interval=0.05)

    if logs_in:

        @app.authenticate
        def authenticate(user: dict[str, Any]) -> str | None:
            story.append(f"{name}: login")
            uid: str | None = user.get("uid")
            return uid

    @app.on_join
    def join(player: Player) -> None:
        story.append(f"{name}: join {player.uid} {player.gold}")

    @app.on_leave
    def leave(player: Player, why: Left) -> None:
        story.append(f"{name}: leave {player.uid} {why}")

    @app.on("earn")
    def earn(player: Player, body: bytes) -> list[Any]:
        player.gold += int(body or b"0")
        return [player.uid, player.gold, name]

    return app


def earned(client: Returning, gold: int = 0) -> Any:
    return json.loads(client.until_answered(client.request("earn", str(gold).encode())))


def back(client: Returning) -> None:
    """Loses its connection, and has another."""
    client.cut()
    client.connect()


def saved(server: RunningServer, gold: int) -> None:
    """Once the record says so."""

    def is_saved() -> bool:
        store = server.app._stores.sessions
        assert store is not None
        return any(kept.written.endswith(bytes([gold])) for kept in store._kept.values())

    until(lambda: server.call(is_saved))


def ada(server: RunningServer) -> Returning:
    """A client of hers, with seven coins that are saved."""
    client = Returning(server.port, {"uid": "ada"})
    earned(client, 7)
    saved(server, 7)
    return client


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def two(stack: ExitStack, redis: Redis | Cluster, story: list[str], **options: Any) -> list[RunningServer]:
    return [
        stack.enter_context(running(game(story, name, **options), redis_url=redis.url)) for name in ("first", "second")
    ]


@pytest.mark.parametrize("kind", ["redis", "cluster"])
def test_another_process_goes_on(kind: str, request: pytest.FixtureRequest) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, request.getfixturevalue("one_redis" if kind == "redis" else "cluster"), story)
        client = Returning(first.port, {"uid": "ada"})
        assert earned(client, 7) == ["ada", 7, "first"]
        saved(first, 7)
        client.port, client.user = second.port, {}  # without a password
        back(client)
        assert earned(client, 1) == ["ada", 8, "second"]
        assert client.renewed == 1
        until(lambda: "first: leave ada kicked" in story)  # it is told at once
        assert eventually(first, lambda stats: stats["stores"]["sessions"]["moved"] == 1)
        assert second.stats()["stores"]["sessions"]["claimed"] == 1
        saved(second, 8)
        client.port = first.port  # and back
        back(client)
        assert earned(client, 1) == ["ada", 9, "first"]
    assert [line for line in story if "login" in line] == ["first: login"]


def test_guests_go_on_too(one_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, one_redis, story, logs_in=False)
        client = Returning(first.port)
        earned(client, 5)
        saved(first, 5)
        client.port = second.port
        back(client)
        assert earned(client) == [None, 5, "second"]


def test_a_server_that_stops_leaves_its_sessions_to_others(one_redis: Redis) -> None:
    story: list[str] = []
    with running(game(story, "second"), redis_url=one_redis.url) as second:
        with running(game(story, "first"), redis_url=one_redis.url) as first:
            client = Returning(first.port, {"uid": "ada"})
            earned(client, 3)
        client.port, client.user = second.port, {}
        back(client)
        assert earned(client) == ["ada", 3, "second"]
    assert "first: leave ada shutdown" in story


def test_a_token_is_good_once(one_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, one_redis, story)
        client = ada(first)
        token = client.token
        client.port = second.port
        back(client)
        earned(client)
        for port in (first.port, second.port):
            thief = Returning(port, {"uid": "thief"})
            thief.token, thief.port = token, port
            back(thief)
            assert earned(thief)[:2] == ["thief", 0]
        assert earned(client)[:2] == ["ada", 7]


def test_a_token_that_was_replaced_is_no_good_elsewhere(one_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, one_redis, story)
        client = ada(first)
        old = client.token
        back(client)
        earned(client, 1)  # back at the first one, with another token
        assert client.resumed == 1
        saved(first, 8)
        thief = Returning(second.port, {"uid": "thief"})
        thief.token = old
        back(thief)
        assert earned(thief)[:2] == ["thief", 0]
        assert earned(client)[:2] == ["ada", 8]


def test_after_a_logout_there_is_nothing_to_go_on_with(one_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, one_redis, story)
        client = ada(first)
        client.notify("$leave")
        until(lambda: any("leave ada" in line for line in story))
        until(lambda: first.stats()["stores"]["redis"]["under_way"] == 0)
        client.port, client.user = second.port, {"uid": "bob"}
        back(client)
        assert earned(client)[:2] == ["bob", 0]


def test_a_login_elsewhere_ends_the_session_here(one_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = two(stack, one_redis, story)
        here = Returning(first.port, {"uid": "ada"})
        earned(here)
        until(lambda: first.stats()["stores"]["sessions"]["saved"] > 0)
        there = Returning(second.port, {"uid": "ada"})
        earned(there)
        until(lambda: "first: leave ada kicked" in story)
        assert earned(there)[0] == "ada"


def test_without_redis_who_comes_logs_in(own_redis: Redis) -> None:
    story: list[str] = []
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(running(game(story, name), redis_url=own_redis.url, store_timeout=0.3))
            for name in ("first", "second")
        )
        client = Returning(first.port, {"uid": "ada"})
        earned(client, 7)
        own_redis.kill()
        client.port = second.port
        back(client)
        assert earned(client)[:2] == ["ada", 0]
        assert "second: login" in story


def test_an_on_save_that_fails_harms_nobody(one_redis: Redis) -> None:
    class Odd(Session):
        def on_save(self) -> object:
            raise LookupError("mine")

    app = App("odd", session=Odd, resume_grace=30, save_interval=0.05)

    @app.on("earn")
    def earn(session: Session, body: bytes) -> list[Any]:
        return [None, 0]

    with running(app, redis_url=one_redis.url) as server:
        client = Returning(server.port)
        earned(client)
        until(lambda: any("LookupError" in str(error) for error in server.stats()["errors"]))
        assert earned(client) == [None, 0]


@pytest.mark.parametrize("grace", [0, 30])
def test_without_a_grace_nothing_is_kept(grace: float, one_redis: Redis) -> None:
    with running(App("plain"), redis_url=one_redis.url, resume_grace=grace) as server:
        assert ("sessions" in server.stats()["stores"]) == bool(grace)


def test_saves_that_overtake_each_other_are_no_claim(one_redis: Redis) -> None:
    story: list[str] = []
    with running(game(story, "first"), redis_url=one_redis.url) as first:
        client = ada(first)
        store = first.app._stores.sessions
        assert store is not None

        async def both() -> None:
            (kept,) = store._kept.values()
            kept.version += 10
            await store._save_one(kept)
            kept.version -= 10
            await store._save_one(kept)

        ask(first, both)
        assert earned(client)[:2] == ["ada", 7]
        assert first.stats()["stores"]["sessions"]["moved"] == 0
