"""What comes from outside of a recording: replayed where it is plain data, else named."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import urllib.request
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from wire_client import connected

from gameserver import App, Session
from gameserver._recording import RecordingLoop, is_plain
from gameserver.testing import Replayed, RunningServer, replay


def ask(server: RunningServer) -> None:
    with connected(server.port) as client:
        client.request("ask")


def recorded(
    serve: Serve, file: Path, make: Callable[[], App], play: Callable[[RunningServer], None] = ask
) -> Replayed:
    with serve(make(), record=file) as server:
        play(server)
    return replay(make(), file)


def asking(handler: Callable[..., Any]) -> Callable[[], App]:
    """Makes games with one handler, whose result is sent."""

    def make() -> App:
        app = App("outside", seed=5)

        @app.on("ask")
        async def ask(session: Session) -> str:
            return f"{await handler()} {app.random.random()}"

        return app

    return make


CALLS: list[object] = []


def count(*values: object) -> int:
    CALLS.append(values)
    return len(CALLS)


def test_plain_data_is_what_its_repr_says() -> None:
    class Text(str):
        __slots__ = ()

    plain = [None, True, 3, -0.5, "é", b"\xff", (1, [2]), {"a": {1: None}}]
    assert all(map(is_plain, plain))
    assert not any(
        map(is_plain, [float("nan"), float("inf"), Text("x"), {1}, Decimal(1), [object()], {"a": Text("x")}])
    )


def test_results_of_executors_are_in_the_recording(serve: Serve, tmp_path: Path) -> None:
    async def handler() -> object:
        loop = asyncio.get_running_loop()
        late = asyncio.wait_for(loop.run_in_executor(None, threading.Event().wait, 0.05), 0.001)
        found = await asyncio.gather(
            asyncio.to_thread(count, "a"), loop.run_in_executor(None, count, 2), late, return_exceptions=True
        )
        return [type(item).__name__ if isinstance(item, Exception) else item for item in found]

    CALLS.clear()
    make = asking(handler)
    with serve(make(), record=tmp_path / "run.gsr") as server:
        ask(server)
    assert len(CALLS) == 2
    assert replay(make(), tmp_path / "run.gsr").difference is None
    assert len(CALLS) == 2  # nothing ran again


def test_another_result_of_an_executor_ends_the_replay_by_name(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch_price() -> object:
        return await asyncio.to_thread(Decimal, "1.5")

    result = recorded(serve, tmp_path / "run.gsr", asking(fetch_price))
    assert result.difference is not None
    for part in ("decimal.Decimal", "fetch_price", "no plain data"):
        assert part in result.difference
        assert any(part in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


def test_a_socket_of_the_game_ends_the_replay_by_name(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch() -> object:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return await reader.read()

    async def spawn() -> object:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        return await process.wait()

    with serve(App("other")) as other:
        port = other.port
        result = recorded(serve, tmp_path / "socket.gsr", asking(fetch))
    assert "fetch" in (result.difference or "")
    assert "create_connection" in (result.difference or "")
    assert any("create_connection" in record.getMessage() for record in caplog.records)
    assert "subprocess_exec" in (recorded(serve, tmp_path / "process.gsr", asking(spawn)).difference or "")


def test_calls_of_other_threads_are_named_and_not_made(serve: Serve, tmp_path: Path) -> None:
    def make() -> App:
        app = App("threads", seed=5)

        @app.on("ask")
        async def ask(session: Session) -> str:
            return f"{app.random.random()}"

        return app

    def play(server: RunningServer) -> None:
        def news() -> None:
            if pushes:
                server.app.push("news", {"chance": server.app.random.random()})
            done.set()

        with connected(server.port) as client:
            client.request("ask")
            done = threading.Event()
            server.app.call_soon_threadsafe(news)
            assert done.wait(10)
            client.request("ask")

    for pushes in (False, True):
        result = recorded(serve, tmp_path / "run.gsr", make, play)
        assert any("news" in call for call in result.outside)
        assert (result.difference is not None) == pushes
        if pushes:
            assert "news" in (result.difference or "")


def test_no_call_of_another_thread_is_left_lying(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes in when a turn's calls have been taken, but not yet the wakes, is waited for by nobody else."""
    app, done, armed = App("threads"), threading.Event(), threading.Event()
    process = RecordingLoop._process_events

    def processed(loop: RecordingLoop, events: list[Any]) -> None:
        process(loop, events)
        if events and armed.is_set():
            armed.clear()
            late = threading.Thread(target=app.call_soon_threadsafe, args=(done.set,))
            late.start()
            late.join()

    monkeypatch.setattr(RecordingLoop, "_process_events", processed)
    monkeypatch.setattr("gameserver._http.SWEEP_INTERVAL", 1e6)  # nothing else wakes it
    with serve(app, record=tmp_path / "run.gsr") as server:
        armed.set()
        server.call(int)
        assert done.wait(5)
    assert len(replay(App("threads"), tmp_path / "run.gsr").outside) == 3


def test_another_thread_that_calls_a_replay_is_told(serve: Serve, tmp_path: Path) -> None:
    errors: list[RuntimeError] = []

    async def handler() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(CALLS.append, "here")  # of its own thread: in order

        def thread() -> None:
            try:
                loop.call_soon_threadsafe(CALLS.append, "there")
            except RuntimeError as error:
                errors.append(error)

        other = threading.Thread(target=thread)
        other.start()
        other.join()
        await asyncio.sleep(0)

    CALLS.clear()
    assert recorded(serve, tmp_path / "run.gsr", asking(handler)).difference is None
    assert sorted(map(str, CALLS)) == ["here", "here", "there"]
    assert "replay" in str(errors[0])


def test_plain_http_is_replayed(serve: Serve, tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await asyncio.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    def play(server: RunningServer) -> None:
        for _ in range(2):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/") as answer:
                assert answer.read() == b"hi"
        ask(server)

    def make() -> App:
        game = App("http", http=app)

        @game.on("ask")
        async def ask(session: Session) -> None:
            await asyncio.sleep(0.001)

        return game

    result = recorded(serve, tmp_path / "run.gsr", make, play)
    assert result.difference is None
    assert result.compared >= 4


def test_a_recording_that_was_cut_off_is_replayed_as_far_as_it_goes(serve: Serve, tmp_path: Path) -> None:
    async def handler() -> str:
        await asyncio.sleep(0.01)
        return "slept"

    make, file = asking(handler), tmp_path / "run.gsr"
    whole = recorded(serve, file, make)
    data, at, parts = file.read_bytes(), 0, []
    while at < len(data):
        parts.append(at)
        at += 5 + int.from_bytes(data[at + 1 : at + 5], "little")
    for place in parts[2 :: max(1, len(parts) // 12)]:
        file.write_bytes(data[:place])
        result = replay(make(), file)
        assert result.difference is None
        assert result.turns <= whole.turns
        file.write_bytes(data[: place + 3])
        with pytest.raises(OSError, match=r"fill|cut off"):
            replay(make(), file)


def test_a_replay_of_code_that_waits_otherwise_differs(serve: Serve, tmp_path: Path) -> None:
    def make(seconds: float) -> App:
        async def handler() -> str:
            await asyncio.sleep(seconds)
            return "slept"

        return asking(handler)()

    file = tmp_path / "run.gsr"
    with serve(make(0.005), record=file) as server:
        ask(server)
    assert replay(make(0.005), file).difference is None
    assert replay(make(0.004), file).difference is None or "turn" in (replay(make(0.004), file).difference or "")
    assert "turn" in (replay(make(60), file).difference or "")
    assert "turn" in (replay(make(0), file).difference or "")
