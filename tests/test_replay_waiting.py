"""Recorded runs whose handlers wait go on in a replay: the same bytes, and the same order of all steps."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_client import RESPONSE, Client, connected, request

from gameserver import App, Session, SessionClosed
from gameserver.testing import RunningServer, replay, running

Steps = list[tuple[object, ...]]
Game = Callable[[Steps], App]
Play = Callable[[RunningServer], None]


def check(serve: Serve, file: Path, game: Game, play: Play) -> Steps:
    """Records a game that is played, replays it, and compares bytes and steps; returns the steps."""
    steps: Steps = []
    with serve(game(steps), record=file) as server:
        play(server)
    again: Steps = []
    result = replay(game(again), file)
    assert result.difference is None
    assert result.compared > 0
    assert again == steps
    return steps


def together(port: int, route: str, clients: int = 4, requests: int = 3) -> None:
    """Several clients ask at once, and read all answers."""
    everybody = [connected(port) for _ in range(clients)]
    for number in range(1, requests + 1):
        for client in everybody:
            client.send(request(number, route, b"%d" % number))
    for client in everybody:
        assert sorted(answer(client) for _ in range(requests)) == list(range(1, requests + 1))
        client.close()


def answer(client: Client) -> int:
    """Reads one response, in whatever order they come; pushes are not kept."""
    return next(message.id for message in client.messages() if message.kind == RESPONSE)


def app_of(steps: Steps, **settings: Any) -> tuple[App, Callable[..., None]]:
    app = App("waits", seed=3, **settings)

    def step(*what: object) -> None:
        steps.append((app.clock.now(), asyncio.get_running_loop().time(), *what))

    return app, step


def sleeps(steps: Steps) -> App:
    app, step = app_of(steps)

    @app.on("ask", concurrent=True)
    async def ask(session: Session, body: bytes) -> dict[str, float]:
        step("begin", body)
        await asyncio.sleep(app.random.random() / 50)
        step("middle", body)
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        step("end", body)
        return {"chance": app.random.random(), "at": app.clock.now()}

    return app


def timeouts(steps: Steps) -> App:
    app, step = app_of(steps)

    @app.on("ask")
    async def ask(session: Session, body: bytes) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(app.random.choice((0.001, 0.009, 0.0101, 5)))
        except TimeoutError:
            step("late", body)
            return f"late {app.random.random()}"
        step("early", body)
        return f"early {app.random.random()}"

    return app


def groups(steps: Steps) -> App:
    """Of a task group that fails, the others are cancelled in the order of a set."""
    app, step = app_of(steps)

    async def child(number: int, body: bytes) -> None:
        try:
            await asyncio.sleep(0.002 if number == 3 else 5)
            raise LookupError
        except asyncio.CancelledError:
            step("cancelled", number, body)
            await asyncio.sleep(0)
            app.push("cancelled", {"number": number, "chance": app.random.random()})
            raise

    @app.on("ask")
    async def ask(session: Session, body: bytes) -> str:
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(child(number, body))
        except* LookupError:
            step("failed", body)
        return "failed"

    return app


def events(steps: Steps) -> App:
    """Who asks waits until all have asked."""
    app, step = app_of(steps)
    waiting: dict[str, tuple[set[Session], asyncio.Event]] = {}

    @app.on("ask")
    async def ask(session: Session, body: bytes) -> str:
        who, event = waiting.setdefault(body.decode(), (set(), asyncio.Event()))
        who.add(session)
        if len(who) == 4:
            for other in who:
                step("there", other.id)
                other.push("all", {"chance": app.random.random()})
            event.set()
        await event.wait()
        step("on", session.id, body)
        return f"{app.random.random()}"

    return app


def tasks(steps: Steps) -> App:
    app, step = app_of(steps)
    queue: asyncio.Queue[tuple[Session, bytes]] = asyncio.Queue(2)

    async def work(number: int) -> None:
        while True:
            session, body = await queue.get()
            step("work", number, body)
            await asyncio.sleep(0.003)
            with contextlib.suppress(SessionClosed):
                session.push("done", {"by": number, "at": app.clock.now()})

    @app.on_start
    async def start() -> None:
        for number in range(2):
            app.task(work(number))
        await asyncio.sleep(0.01)
        step("started")

    @app.on("ask")
    async def ask(session: Session, body: bytes) -> str:
        await queue.put((session, body))
        return "queued"

    return app


def later(steps: Steps) -> App:
    app, step = app_of(steps, tick_rate=100)

    async def wave(session: Session, body: bytes) -> None:
        step("wave", body)
        await asyncio.sleep(0.004)
        app.push("wave", {"chance": app.random.random(), "body": body.decode()})

    @app.on("ask")
    async def ask(session: Session, body: bytes) -> str:
        app.after(0.002, wave, session, body)
        await asyncio.sleep(0.005)
        return "soon"

    @app.every(0.005)
    async def beat() -> None:
        await asyncio.sleep(0.007)
        step("beat")

    @app.tick
    def tick(dt: float) -> None:
        step("tick")

    return app


def joins(steps: Steps) -> App:
    app, step = app_of(steps)

    @app.authenticate
    async def who(user: dict[str, str]) -> str:
        await asyncio.sleep(0.002)
        return f"guest {app.random.random()}"

    @app.on_join
    async def join(session: Session) -> None:
        step("joins", session.uid)
        await asyncio.sleep(0.004)
        session.push("welcome", {"uid": session.uid, "at": app.clock.now(), "since": session.connected_at})

    @app.on("ask")
    def ask(session: Session, body: bytes) -> str:
        step("asks", session.uid)
        return f"{session.uid}"

    @app.on_leave
    async def leave(session: Session) -> None:
        await asyncio.sleep(0.002)
        step("left", session.uid)
        app.push("left", {"uid": session.uid})

    @app.on_stop
    async def stop() -> None:
        await asyncio.sleep(0.01)
        app.push("bye", {"at": app.clock.now()})

    return app


def threads(steps: Steps) -> App:
    app, step = app_of(steps)

    def query(body: bytes) -> dict[str, Any]:
        if body == b"3":
            raise KeyError("three")
        return {"from": threading.current_thread().name, "at": time.time(), "body": body}

    @app.on("ask", concurrent=True)
    async def ask(session: Session, body: bytes) -> str:
        try:
            found = await asyncio.to_thread(query, body)
        except KeyError as error:
            found = {"error": error.args}
        step("found", body)
        return f"{found} {app.random.random()}"

    return app


@pytest.mark.parametrize("game", [sleeps, timeouts, groups, events, tasks, later, joins, threads])
def test_handlers_that_wait_go_on_in_a_replay(serve: Serve, tmp_path: Path, game: Game) -> None:
    steps = check(serve, tmp_path / "run.gsr", game, lambda server: together(server.port, "ask"))
    assert len(steps) >= 4


# -- any small game --------------------------------------------------------------------------------------------------

ACTS = st.recursive(
    st.one_of(
        st.tuples(st.just("sleep"), st.sampled_from((0, 0.0005, 0.001, 0.002))),
        st.tuples(st.just("chance")),
        st.tuples(st.sampled_from(("set", "wait", "push", "after", "stop-waiting")), st.integers(0, 2)),
    ),
    lambda acts: st.tuples(
        st.sampled_from(("task", "group", "failing-group", "timeout", "shield")), st.lists(acts, max_size=4)
    ),
    max_leaves=8,
)
PROGRAMS = st.lists(st.lists(ACTS, max_size=5), min_size=3, max_size=3)


def game_of(programs: list[list[Any]], steps: Steps) -> App:
    """A game whose three routes do as the programs say. An act is its name, and a number or further acts."""
    app, step = app_of(steps)
    flags = [asyncio.Event() for _ in range(3)]

    async def act(place: str, name: str, value: Any = None) -> None:
        step(place, name)
        match name:
            case "sleep":
                await asyncio.sleep(value)
            case "chance":
                app.push("chance", {"value": app.random.random()})
            case "set":
                flags[value].set()
            case "wait":
                await flags[value].wait()
            case "stop-waiting":
                flags[value].set()
                flags[value].clear()
            case "push":
                app.push(f"{value}", {"at": app.clock.now()})
            case "after":
                app.after(value / 1000, step, place, "fired")
            case "task":
                app.task(run(f"{place}/task", value))
            case "shield":
                await asyncio.shield(app.task(run(f"{place}/shielded", value)))
            case "timeout":
                async with asyncio.timeout(0.001):
                    await run(f"{place}/timeout", value)
            case "group" | "failing-group":
                async with asyncio.TaskGroup() as group:
                    for number, inner in enumerate(value):
                        group.create_task(run(f"{place}/{number}", [inner]))
                    if name == "failing-group":
                        await asyncio.sleep(0)
                        raise LookupError
        step(place, name, "done")

    async def run(place: str, acts: list[Any]) -> None:
        try:
            for name, *value in acts:
                await act(place, name, *value)
        except asyncio.CancelledError:
            step(place, "cancelled")
            raise

    def route(number: int, *, concurrent: bool) -> None:
        @app.on(f"run{number}", concurrent=concurrent)
        async def handler(session: Session, body: bytes) -> str:
            try:
                async with asyncio.timeout(0.02):
                    await run(f"{session.id & 0xFF}.{number}", programs[number])
            except* (TimeoutError, LookupError):
                step("failed", number)
            return f"{app.random.random()}"

    for number in range(3):
        route(number, concurrent=number > 0)
    return app


@pytest.mark.parametrize("io_threads", [0, 2])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs=PROGRAMS, order=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8))
def test_any_small_game_goes_on_in_a_replay(
    tmp_path: Path, io_threads: int, programs: list[list[Any]], order: list[tuple[int, int]]
) -> None:
    def play(server: RunningServer) -> None:
        clients = [connected(server.port) for _ in range(3)]
        asked = [0, 0, 0]
        for who, number in order:
            asked[who] += 1
            clients[who].send(request(asked[who], f"run{number}"))
        for client, count in zip(clients, asked, strict=True):
            for _ in range(count):
                answer(client)
            client.close()

    def serve(app: App, **settings: Any) -> Any:
        return running(app, io_threads=io_threads, log_level="critical", **settings)

    check(serve, tmp_path / "run.gsr", lambda steps: game_of(programs, steps), play)


def test_a_session_hashes_as_its_id_unless_it_was_asked_before_it_had_one(serve: Serve) -> None:
    early: set[Session] = set()

    class Early(Session):
        def __init__(self) -> None:
            early.add(self)

    for kind in (Session, Early):
        app = App("hash", session=kind)

        @app.on("ask")
        def ask(session: Session) -> list[bool]:
            return [hash(session) == (session.id + 2**63) % 2**64 - 2**63, session in early, session == session]

        with serve(app) as server, connected(server.port) as client:
            assert client.request("ask").body == (b"[true,false,true]" if kind is Session else b"[false,true,true]")
