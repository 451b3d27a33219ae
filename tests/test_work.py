"""Work off the loop: results come back to the logic thread, queues are bounded, and a worker that blocks delays nobody."""

from __future__ import annotations

import asyncio
import contextvars
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, eventually
from wire_client import Client, request

from gameserver import App, GameServerError, Overloaded, Session, SessionClosed
from gameserver.testing import running

who = contextvars.ContextVar("who", default="nobody")


def asked(client: Client, route: str, body: bytes = b"") -> Any:
    answer = client.request(route, body)
    text = json.loads(answer.body or b"null")
    return text["code"] if answer.error else text


def fails() -> None:
    raise LookupError("not there")


def square(number: int) -> list[int]:
    return [number * number, os.getpid()]


def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def method() -> str | None:
    return multiprocessing.get_start_method(allow_none=True)


def test_what_blocks_runs_in_a_thread_and_comes_back_to_the_loops(serve: Serve) -> None:
    app, threads = App("work"), []

    @app.on("block")
    async def block(session: Session, body: bytes) -> list[Any]:
        who.set("somebody")

        def work(text: bytes) -> str:
            threads.append(threading.current_thread())
            return f"{text.decode()} {who.get()}"

        before = threading.current_thread()
        result = await app.run_blocking(work, body)
        return [result, threading.current_thread() is before]

    @app.on("fail")
    async def fail() -> str:
        try:
            await app.run_blocking(fails)
        except LookupError as error:
            return str(error)
        return "no error"

    with serve(app, blocking_threads=2) as server, Client(server.port) as client:
        client.handshake()
        assert asked(client, "block", b"hi") == ["hi somebody", True]
        assert asked(client, "fail") == "not there"
        stats = eventually(server, lambda stats: stats["work"]["blocking"]["done"] == 2)
        assert stats["work"]["blocking"] == {"running": 0, "waiting": 0, "done": 2, "failed": 1, "refused": 0}
        assert stats["work"]["cpu"]["done"] == 0
    assert not any(thread is threading.main_thread() or not thread.daemon for thread in threads)


def held(app: App, go_on: threading.Event) -> None:
    @app.on("hold", concurrent=True)
    async def hold(session: Session) -> int:
        await app.run_blocking(go_on.wait, 60)
        return 1


def test_too_much_is_refused_and_nothing_else_is(serve: Serve) -> None:
    app, go_on = App("work"), threading.Event()
    held(app, go_on)
    with serve(app, blocking_threads=2, blocking_waiting=3) as server, Client(server.port) as client:
        client.handshake()
        client.send(b"".join(request(number, "hold") for number in range(1, 9)))
        refused = []
        for message in client.messages():
            refused.append(message)
            if len(refused) == 3:
                break
        assert all(message.error and json.loads(message.body)["code"] == "GS-503" for message in refused)
        work = server.stats()["work"]["blocking"]
        assert (work["running"], work["waiting"], work["refused"]) == (2, 3, 3)
        assert server.stats()["errors"] == []
        go_on.set()
        answered = [message for _, message in zip(range(5), client.messages(), strict=False)]
        assert [message.error for message in answered] == [False] * 5
        assert {message.id for message in (*refused, *answered)} == set(range(1, 9))


def test_workers_that_block_delay_no_tick(serve: Serve) -> None:
    app, go_on = App("work"), threading.Event()
    ticks = 0
    held(app, go_on)

    @app.tick
    def tick(dt: float) -> None:
        nonlocal ticks
        ticks += 1

    with serve(app, tick_rate=100, blocking_threads=1) as server:
        clients = [Client(server.port) for _ in range(5)]
        for client in clients:
            client.handshake()
            client.send(request(1, "hold"))
        eventually(server, lambda stats: stats["work"]["blocking"]["waiting"] == 4)
        before, count = ticks, server.stats()["tick"]["count"]
        eventually(server, lambda stats: ticks >= before + 50)
        assert server.stats()["tick"]["count"] >= count + 50
        assert server.stats()["work"]["blocking"]["done"] == 0, "all still blocked"
        go_on.set()
        for client in clients:
            assert client.response(1).body == b"1"


def test_who_no_longer_waits_does_not_free_the_worker(serve: Serve) -> None:
    app, go_on = App("work"), threading.Event()

    @app.on("impatient")
    async def impatient(session: Session) -> str:
        try:
            async with asyncio.timeout(0.01):
                await app.run_blocking(go_on.wait, 60)
        except TimeoutError:
            return "gave up"
        return "waited"

    with serve(app, blocking_threads=1, blocking_waiting=0) as server, Client(server.port) as client:
        client.handshake()
        assert [asked(client, "impatient"), asked(client, "impatient")] == ["gave up", "GS-503"]
        go_on.set()
        eventually(server, lambda stats: stats["work"]["blocking"]["running"] == 0)
        assert asked(client, "impatient") == "waited"


def test_what_computes_runs_in_a_process_of_its_own_that_was_spawned() -> None:
    app = App("work")

    @app.on("square")
    async def squared(session: Session, body: bytes) -> list[int]:
        return await app.run_cpu(square, int(body))

    @app.on("method")
    async def how(session: Session) -> Any:
        return await app.run_cpu(method)

    @app.on("die")
    async def die(session: Session) -> str:
        try:
            await app.run_cpu(dies)
        except GameServerError as error:
            return str(error)
        return "lived"

    with running(app, cpu_processes=1) as server, Client(server.port, timeout=60) as client:
        client.handshake()
        nine, process = asked(client, "square", b"3")
        assert (nine, process != os.getpid()) == (9, True)
        assert asked(client, "method") == "spawn"
        assert "a process has died while it computed dies" in asked(client, "die")
        nine, another = asked(client, "square", b"3")
        assert (nine, another != process) == (9, True), "others were started"
        assert server.stats()["work"]["cpu"]["failed"] == 1


def test_only_while_the_server_runs() -> None:
    app = App("work")
    with pytest.raises(GameServerError, match="does not run"):
        asyncio.run(app.run_blocking(sum, []))
    assert issubclass(Overloaded, GameServerError)


def test_a_thread_that_never_ends_keeps_nobody_from_leaving(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        textwrap.dedent(
            """
            import threading, time
            from gameserver import App
            app = App("stuck", drain_timeout=0.2)
            @app.on_start
            def start():
                app.task(stuck())
            async def stuck():
                await app.run_blocking(threading.Event().wait)
            @app.every(0.05)
            def stop():
                print("stopping", flush=True)
                app.stop()
            app.run(port=0, log_level="error")
            print("over", flush=True)
            """
        )
    )
    done = subprocess.run([sys.executable, "game.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "over"), done.stderr


def test_a_script_computes_in_processes(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        textwrap.dedent(
            """
            from gameserver import App
            app = App("script")
            def double(number):
                return 2 * number
            @app.on_start
            async def start():
                print(await app.run_cpu(double, 21), flush=True)
                app.stop()
            if __name__ == "__main__":
                app.run(port=0, log_level="error")
            """
        )
    )
    done = subprocess.run([sys.executable, "game.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_a_sessions_task_ends_with_it(serve: Serve) -> None:
    app = App("tasks", resume_grace=0.0)
    story: list[str] = []
    kept: list[Session] = []

    @app.on("begin")
    def begin(session: Session) -> None:
        async def forever() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                story.append("cancelled")
                raise

        async def short() -> None:
            story.append("short")

        kept.append(session)
        session.task(short())
        session.task(forever())

    with serve(app) as server:
        with Client(server.port) as client, Client(server.port) as other:
            for one in (client, other):
                one.handshake()
                one.request("begin")
            eventually(server, lambda stats: story == ["short", "short"])
        eventually(server, lambda stats: story.count("cancelled") == 2)

        async def never() -> None: ...

        coroutine = never()
        with pytest.raises(SessionClosed):
            server.call(kept[0].task, coroutine)
        coroutine.close()
        assert server.stats()["errors"] == []
        assert not app._session_tasks
