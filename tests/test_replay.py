"""A recorded run of the plaza, replayed without sockets, gives identical bytes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest
from conftest import Serve
from wire_client import connected, notify

from gameserver import App, Session
from gameserver.testing import replay


def plaza() -> App:
    """A fresh plaza, as its file makes it."""
    file = Path(__file__).parent.parent / "examples" / "plaza.py"
    spec = importlib.util.spec_from_file_location("plaza_again", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = module.app
    assert isinstance(app, App)
    return app


def play(serve: Serve, app: App, recording: Path) -> None:
    with serve(app, record=recording) as server:
        clients = [connected(server.port) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(notify("move", json.dumps({"x": 1, "y": number}).encode()))
        for client in clients:
            for _ in range(30):
                client.push()
            client.close()


def test_a_recorded_plaza_replays_to_the_same_bytes(serve: Serve, tmp_path: Path) -> None:
    recording = tmp_path / "plaza.gsr"
    play(serve, plaza(), recording)
    result = replay(plaza(), recording)
    assert result.difference is None
    assert result.turns >= 6  # 30 pushes, of which a late turn may catch up 5
    assert result.compared >= 6


def test_a_replay_of_other_code_says_where_it_differs(serve: Serve, tmp_path: Path) -> None:
    recording = tmp_path / "plaza.gsr"
    play(serve, plaza(), recording)
    other = plaza()

    @other.tick
    def more(dt: float) -> None:
        other.push("surprise", {"random": other.random.random()})

    assert "turn" in (replay(other, recording).difference or "")


def asynchronous() -> App:
    """A game whose handlers are async, and do not wait."""
    app = App("async", seed=7)

    @app.on_start
    async def start() -> None:
        app.random.random()

    @app.authenticate
    async def who(user: dict[str, str]) -> str:
        async with asyncio.TaskGroup():
            return f"guest {app.random.random()}"

    @app.on("roll")
    async def roll(session: Session) -> dict[str, object]:
        assert asyncio.current_task() is not None
        return {"rolled": app.random.random(), "you": session.uid, "at": app.clock.now()}

    @app.every(0.01)
    async def beat() -> None: ...

    return app


def test_async_handlers_that_do_not_wait_are_replayed(serve: Serve, tmp_path: Path) -> None:
    recording = tmp_path / "async.gsr"
    with serve(asynchronous(), record=recording) as server, connected(server.port) as client:
        rolls = [client.request("roll").body for _ in range(5)]
    assert len(set(rolls)) == 5
    result = replay(asynchronous(), recording)
    assert result.difference is None
    assert result.compared >= 6


def test_the_end_is_replayed_with_who_was_there(serve: Serve, tmp_path: Path) -> None:
    def farewell() -> App:
        app = asynchronous()

        @app.on_stop
        def stop() -> None:
            app.push("bye", {"at": app.clock.now()})

        return app

    app, recording = farewell(), tmp_path / "end.gsr"
    with serve(app, record=recording) as server:
        clients = [connected(server.port) for _ in range(3)]
        for client in clients:
            client.request("roll")
        server.call(app.stop)
        for client in clients:
            assert client.push("bye").body
            client.until_closed()
            client.close()
    result = replay(farewell(), recording)
    assert result.difference is None
    assert result.compared >= 3


def test_a_file_that_is_no_recording_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replay(asynchronous(), tmp_path / "none.gsr")
    damaged = tmp_path / "damaged.gsr"
    for data in (b"N\xff\xff\xff\xff", b"Z\x00\x00\x00\x00", b"N\x03\x00\x00\x00{1}", b"T\x08\x00\x00\x00" + bytes(8)):
        damaged.write_bytes(data)
        with pytest.raises(OSError):
            replay(asynchronous(), damaged)
