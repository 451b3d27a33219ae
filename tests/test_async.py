"""Async handlers are tasks like any other, though most of them borrow one that waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextvars import ContextVar
from typing import Any

import pytest
from conftest import Serve, eventually
from wire_client import connected, request

from gameserver import App, Session

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")

Body = Callable[[], Awaitable[object]]


async def times_out_at_once() -> str:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    return "timed out"


async def times_out_later() -> str:
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    return "timed out"


async def a_timeout_that_is_not_needed() -> str:
    async with asyncio.timeout(60):
        await asyncio.sleep(0)
    return "in time"


async def a_task_group() -> list[int]:
    async def square(number: int) -> int:
        await asyncio.sleep(0)
        return number * number

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(square(number)) for number in range(4)]
    return [task.result() for task in tasks]


async def a_task_group_that_fails() -> str:
    async def fail() -> None:
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()
    except* ValueError:
        outcome = "child"
    else:
        outcome = "nothing came"
    return outcome


async def cancels_itself_and_waits() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    task.uncancel()
    await asyncio.sleep(0)
    return "went on"


async def cancels_itself_and_yields() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    task.uncancel()
    return "went on"


async def cancels_itself_and_is_done() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "done before it heard"


async def is_one_task_throughout() -> bool:
    first = asyncio.current_task()
    await asyncio.sleep(0)
    second = asyncio.current_task()
    await asyncio.sleep(0.001)
    return first is not None and first is second is asyncio.current_task()


async def catches_what_it_awaits() -> str:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("lost")

    with contextlib.suppress(KeyError):
        await fail()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.get_loop().call_soon(future.set_exception, KeyError("too"))
    try:
        await future
    except KeyError as error:
        return str(error.args[0])
    return "nothing came"


async def sees_its_own_context() -> list[str]:
    seen = [NAME.get()]
    NAME.set("me")
    await asyncio.sleep(0)
    seen.append(NAME.get())
    return seen


async def shields_and_gathers() -> list[Any]:
    return list(await asyncio.gather(asyncio.shield(asyncio.sleep(0, "a")), asyncio.sleep(0.001, "b")))


async def asks_an_async_iterator() -> list[int]:
    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    return [number async for number in numbers()]


CASES: dict[Body, object] = {
    times_out_at_once: "timed out",
    times_out_later: "timed out",
    a_timeout_that_is_not_needed: "in time",
    a_task_group: [0, 1, 4, 9],
    a_task_group_that_fails: "child",
    cancels_itself_and_waits: "went on",
    cancels_itself_and_yields: "went on",
    cancels_itself_and_is_done: "done before it heard",
    is_one_task_throughout: True,
    catches_what_it_awaits: "too",
    sees_its_own_context: ["nobody", "me"],
    shields_and_gathers: ["a", "b"],
    asks_an_async_iterator: [0, 1, 2],
}


def test_whatever_a_task_may_do_a_handler_may(serve: Serve) -> None:
    """Each case twice in a row, by three clients at once: nothing that one leaves behind is seen by the next."""
    app = App("tasks")
    cases = {case.__name__: case for case in CASES}

    @app.on("case")
    async def run(session: Session, body: bytes) -> object:
        return await cases[body.decode()]()

    with serve(app) as server:
        clients = [connected(server.port) for _ in range(3)]
        for number, case in enumerate([*cases, *reversed(cases)]):
            for client in clients:
                client.send(request(number, "case", case.encode()))
            for client in clients:
                answer = client.response(number)
                assert not answer.error, (case, answer.body)
                assert json.loads(answer.body) == CASES[cases[case]], case
        eventually(server, lambda stats: stats["messages"]["tasks"] == 0)


def test_what_is_awaitable_but_no_coroutine_is_awaited(serve: Serve) -> None:
    app = App("awaitables")

    class Patient:
        def __init__(self, value: object) -> None:
            self.value = value

        def __await__(self) -> Generator[Any, None, object]:
            yield from asyncio.sleep(0).__await__()
            return self.value

    def patient(function: Callable[..., object]) -> Callable[..., Awaitable[object]]:
        async def declared(session: Session) -> object:  # what the decorator promises
            return function(session)

        declared.__wrapped__ = function  # type: ignore[attr-defined]
        return declared

    @app.on("later")
    async def later(session: Session) -> object:
        return await Patient(["later"])

    @app.on("wrapped")
    @patient
    def wrapped(session: Session) -> object:
        return ["wrapped"]

    with serve(app) as server, connected(server.port) as client:
        assert json.loads(client.request("later").body) == ["later"]
        assert json.loads(client.request("wrapped").body) == ["wrapped"]


def test_many_handlers_wait_at_once_and_end_in_any_order(serve: Serve) -> None:
    app = App("crowd")
    gates: list[asyncio.Event] = []

    @app.on("wait", concurrent=True)
    async def wait(session: Session, body: bytes) -> bytes:
        gate = asyncio.Event()
        gates.append(gate)
        await gate.wait()
        return body

    @app.on("open")
    def open_gates() -> int:
        count = len(gates)
        for gate in reversed(gates):
            gate.set()
        gates.clear()
        return count

    with serve(app) as server:
        clients = [connected(server.port) for _ in range(30)]
        other = connected(server.port)
        for turn in range(3):
            for client in clients:
                client.send(request(turn, "wait", b"x") + request(1000 + turn, "wait", b"y"))
            eventually(server, lambda stats: stats["messages"]["tasks"] == 60)
            assert json.loads(other.request("open").body) == 60
            for client in clients:
                bodies = {message.id: message.body for _, message in zip(range(2), client.messages(), strict=False)}
                assert bodies == {turn: b"x", 1000 + turn: b"y"}
        eventually(server, lambda stats: stats["messages"]["tasks"] == 0)


def test_every_task_of_a_run_is_gone_after_it(serve: Serve) -> None:
    app = App("left-over")
    seen: list[asyncio.Task[Any]] = []

    @app.on("tasks")
    async def tasks(session: Session) -> int:
        seen.extend(asyncio.all_tasks())
        return len(seen)

    with serve(app) as server, connected(server.port) as client:
        assert json.loads(client.request("tasks").body) > 0
    assert all(task.done() for task in seen)
