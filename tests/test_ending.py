"""The end of a run is bounded: who swallows its cancellation is left behind, and named."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import pytest
from conftest import Serve
from wire_client import connected, request

from gameserver import App, Session


async def swallows() -> None:
    while True:
        try:
            await asyncio.Event().wait()  # for ever
        except asyncio.CancelledError:
            pass


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["task", "handler", "timer", "own", "join", "leave", "stop"])
def test_what_swallows_its_cancellation_is_left_behind_and_named(
    serve: Serve, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    app = App("stubborn")
    own: list[asyncio.Task[Any]] = []
    begun = threading.Event()

    @app.on("go")
    async def go(session: Session) -> None:
        if kind == "task":
            app.task(swallows())
        elif kind == "timer":
            app.after(0, swallows)
        elif kind == "own":
            own.append(asyncio.create_task(swallows()))
        elif kind == "handler":
            begun.set()
            await swallows()

    @app.on_join
    async def join(session: Session) -> None:
        if kind == "join":
            begun.set()
            await swallows()

    @app.on_leave
    async def leave(session: Session) -> None:
        if kind == "leave":
            await swallows()

    @app.on_stop
    async def stop() -> None:
        if kind == "stop":
            await swallows()

    # `serve` gives the server 20 s to stop.
    with serve(app, drain_timeout=0.3) as server:
        client = connected(server.port)
        client.send(request(1, "go"))
        if kind in ("handler", "join"):
            assert begun.wait(20)
        else:
            assert client.response(1).body == b"null"
    client.until_closed()
    said = [text for text in warnings(caplog) if "left running" in text]
    name = {"handler": "go", "join": "join", "leave": "leave", "stop": "stop"}.get(kind, "test_ending.swallows")
    assert len(said) == 1, warnings(caplog)
    assert said[0].startswith("left running, since cancelled it did not end within drain_timeout (0.3 s): ")
    assert name in said[0]
    assert "idle" not in said[0]
    own.clear()


def test_what_obeys_is_waited_for_and_nothing_is_said(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = App("obedient")
    ended: list[str] = []

    async def tidies_up(name: str) -> None:
        try:
            await asyncio.Event().wait()  # for ever
        finally:
            await asyncio.sleep(0.05)
            ended.append(name)

    @app.on("go")
    async def go(session: Session) -> None:
        app.task(tidies_up("task"))
        tasks.append(asyncio.create_task(tidies_up("own")))
        session.push("started")
        await tidies_up("handler")

    tasks: list[asyncio.Task[Any]] = []
    with serve(app, drain_timeout=5.0) as server:
        client = connected(server.port)
        client.send(request(1, "go"))
        client.push("started")
    assert sorted(ended) == ["handler", "own", "task"]
    assert warnings(caplog) == []


def test_an_on_stop_that_takes_too_long_is_told_and_cancelled(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = App("late")
    story: list[str] = []

    @app.on_stop
    async def slow() -> None:
        try:
            await asyncio.Event().wait()  # for ever
        finally:
            story.append("cancelled")

    @app.on_stop
    def next_one() -> None:
        story.append("next")

    @app.on_stop
    async def failing() -> None:
        raise ValueError("no")

    with serve(app, drain_timeout=0.2):
        pass
    assert sorted(story) == ["cancelled", "next"]
    said = "\n".join(warnings(caplog))
    assert "slow" in said
    assert "not done within drain_timeout (0.2 s)" in said
    assert "ValueError: no" in said
    assert "left running" not in said


def test_all_steps_of_the_end_together_take_no_longer_than_drain_timeout(serve: Serve) -> None:
    async def http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()  # for ever

    app = App("late", http=http)

    async def slow() -> None:
        await asyncio.Event().wait()

    for _ in range(4):
        app.on_stop(slow)

    @app.on_start
    async def start() -> None:
        app.task(swallows())

    with serve(app, drain_timeout=1.5):
        began = time.monotonic()
    assert time.monotonic() - began < 4.5  # one after the other: 9 s
