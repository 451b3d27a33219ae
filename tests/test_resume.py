"""Sessions that go on over another connection, over real sockets: wherever it is cut, nothing is lost and nothing runs twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import Serve, eventually
from returning import CuttingProxy, Returning
from wire_client import Client, connected, notify

from gameserver import App, Left, Session
from gameserver.testing import RunningServer


@dataclass
class Game:
    """An app that notes what its handlers were called with."""

    app: App = field(default_factory=lambda: App("resume"))
    ran: dict[str, list[str]] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)

    def __post_init__(self) -> None:
        app = self.app
        releases: dict[tuple[str, str], asyncio.Event] = {}

        def note(session: Session, what: str) -> str:
            uid = session.uid or str(session.id)
            self.ran.setdefault(uid, []).append(what)
            return uid

        def release(uid: str, number: str) -> asyncio.Event:
            return releases.setdefault((uid, number), asyncio.Event())

        @app.authenticate
        def authenticate(session: Session, user: dict[str, str]) -> str | None:
            return user.get("uid")

        @app.on_join
        def join(session: Session) -> None:
            self.story.append("join")
            self.sessions[session.uid or str(session.id)] = session

        @app.on_drop
        def drop(session: Session) -> None:
            self.story.append("drop")

        @app.on_resume
        def resume(session: Session) -> None:
            assert self.sessions[session.uid or str(session.id)] is session
            self.story.append("resume")

        @app.on_leave
        def leave(session: Session, why: Left) -> None:
            self.story.append(f"leave {why.value}")

        @app.on("echo")
        def echo(session: Session, body: bytes) -> bytes:
            note(session, f"echo {body.decode()}")
            session.push("pushed", body)
            app.user(session.uid or "").push("to", body)
            return body

        @app.on("hold", concurrent=True)
        async def hold(session: Session, body: bytes) -> bytes:
            uid = note(session, f"hold {body.decode()}")
            await release(uid, body.decode()).wait()
            return b"held " + body

        @app.on("release")
        def let_go(session: Session, body: bytes) -> None:
            uid = note(session, f"release {body.decode()}")
            release(uid, body.decode()).set()


@contextlib.contextmanager
def resuming(serve: Serve, game: Game, **settings: Any) -> Iterator[RunningServer]:
    """A server whose clients are gone when it stops."""
    with serve(game.app, **settings) as server:
        yield server
        while Client.opened:
            Client.opened.pop().close()


def play(port: int, uid: str, game: Game) -> Returning:
    """A short session; each step may be cut anywhere."""
    client = Returning(port, {"uid": uid})
    holds = []
    for number in (b"0", b"1"):
        holds.append(client.request("hold", number))
        asked = client.request("echo", number)
        client.notify("release", number)
        assert client.until_answered(asked) == number
    for number, hold in zip((b"0", b"1"), holds, strict=True):
        assert client.until_answered(hold) == b"held " + number
    client.until_pushed(4)
    expected = [f"{what} {number}" for number in (0, 1) for what in ("hold", "echo", "release")]
    assert game.ran[uid] == expected
    assert client.pushes == [("pushed", b"0"), ("to", b"0"), ("pushed", b"1"), ("to", b"1")]
    assert len(client.answers) == 4
    assert client.renewed == 0
    return client


@pytest.mark.parametrize("by_reset", [True, False], ids=["reset", "eof"])
def test_a_cut_after_any_packet_of_a_session_and_of_its_resume_loses_nothing(serve: Serve, by_reset: bool) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server, CuttingProxy(server.port) as proxy:
        proxy.by_reset = by_reset
        play(proxy.port, "whole", game)
        total = proxy.carried
        assert total >= 16
        for first in range(1, total):
            # Of the way back: handshake, answer, acknowledgement, heartbeat, what is sent again.
            for second in (None, 1, 2, 3, 4, 5, 6):
                proxy.cuts = [first] if second is None else [first, second]
                play(proxy.port, f"{first} {second}", game)
        stats = server.stats()
        assert stats["resume"]["resumed"] > total
        assert stats["resume"]["refused"] == 0
        assert stats["errors"] == []


def test_the_game_hears_of_it_and_has_the_same_session(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        client.cut()
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        client.connect()
        assert client.until_answered(client.request("echo", b"1")) == b"1"
        assert game.story == ["join", "drop", "resume"]
        assert client.resumed == 1


def test_an_old_socket_that_is_still_open_is_closed(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        old = client.client
        client.connect()
        old.until_closed()
        assert client.until_answered(client.request("echo", b"1")) == b"1"
        assert eventually(server, lambda stats: stats["closed"]["replaced"] == 1)["sessions"] == 1
        assert game.story == ["join", "drop", "resume"]


def second_device(server: RunningServer, token: str | None, uid: str = "ann") -> Returning:
    """Somebody who begins with this token."""
    other = Returning(server.port, {"uid": uid})
    other.client.close()
    other.token, other.session = token, "0"
    return other


def test_a_replayed_token_is_a_login_like_any_other(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        used = client.token
        client.cut()
        client.connect()
        thief = second_device(server, used, "eve")
        thief.connect()
        assert (thief.resumed, thief.renewed) == (0, 1)
        assert client.until_answered(client.request("echo", b"1")) == b"1"
        assert game.ran == {"ann": ["echo 1"]}


def test_the_same_uid_from_another_device_ends_the_session_and_its_token(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server:
        phone = Returning(server.port, {"uid": "ann"}).joined()
        phone.cut()
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        tablet = Returning(server.port, {"uid": "ann"}).joined()
        assert tablet.until_answered(tablet.request("echo", b"1")) == b"1"
        phone.user = {"uid": "bob"}
        phone.connect()
        phone.joined()
        assert (phone.resumed, phone.renewed) == (0, 1)
        assert game.story == ["join", "drop", "leave replaced", "join", "join"]


@pytest.mark.parametrize("how", ["goodbye", "kick", "close"])
def test_a_token_is_worth_nothing_after_logout(serve: Serve, how: str) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        if how == "goodbye":
            client.client.send(notify("$leave"))
        else:
            server.call(getattr(game.sessions["ann"], how))
        client.client.until_closed()
        client.connect()
        client.joined()
        assert (client.resumed, client.renewed) == (0, 1)
        assert game.story == ["join", f"leave {'left' if how == 'goodbye' else 'kicked'}", "join"]


def test_beyond_what_is_kept_it_is_refused(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game, resume_grace=30, resume_bytes_max=1000) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        client.cut()
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        for _ in range(4):
            server.call(lambda: game.sessions["ann"].push("p", bytes(300)))
        client.connect()
        client.joined()
        assert (client.resumed, client.renewed) == (0, 1)
        assert server.stats()["resume"] == {"resumed": 0, "refused": 1}
        assert game.story == ["join", "drop", "leave lost", "join"]


def test_the_end_of_a_session_that_waits_is_told_at_once(serve: Serve) -> None:
    game = Game()
    left = threading.Event()

    @game.app.on_leave
    def leave(session: Session) -> None:
        left.set()

    with resuming(serve, game, resume_grace=30) as server:
        client = Returning(server.port, {"uid": "ann"}).joined()
        client.cut()
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        server.call(game.sessions["ann"].kick)
        assert left.wait(10)
        assert game.story == ["join", "drop", "leave kicked"]


def test_without_a_grace_nothing_of_it_is_offered(serve: Serve) -> None:
    game = Game()
    with resuming(serve, game) as server:
        with Client(server.port) as client:
            answer = client.handshake(b'{"sys":{"gs":{"resume":{}}},"user":{}}')
            assert "resume" not in answer["sys"]["gs"]
        with connected(server.port) as other:
            other.socket.shutdown(1)
            other.until_closed()
        eventually(server, lambda stats: stats["sessions"] == 0)
