"""What a game sees: handlers, answers, sessions, groups, pushes, over real sockets."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import itertools
import json
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

import pytest
from conftest import Serve, eventually
from wire_client import KICK, POMELO_HANDSHAKE, Client, connected, notify, packet, request

from gameserver import App, ConfigError, GameServerError, Left, Refuse, Router, Session, SessionClosed, Timer
from gameserver.testing import running


class Player(Session):
    """A typed session of a game."""

    def __init__(self) -> None:
        self.name = "nobody"
        self.seen: list[bytes] = []


def echo_app() -> App:
    app = App("test")

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    return app


def test_a_request_is_answered(serve: Serve) -> None:
    with serve(echo_app()) as server, connected(server.port) as client:
        assert client.hello["code"] == 200
        assert client.hello["sys"]["heartbeat"] == 15
        for body in (b"x", b"hello", bytes(range(256)), b"y" * 60_000):
            answer = client.request("echo", body)
            assert (answer.error, answer.body) == (False, body)


def test_many_requests_in_one_write_are_answered_in_order(serve: Serve) -> None:
    with serve(echo_app()) as server, connected(server.port) as client:
        client.send(b"".join(request(number, "echo", b"%d" % number) for number in range(1, 2001)))
        for number in range(1, 2001):
            assert client.response(number).body == b"%d" % number


def test_any_cut_of_the_stream_gives_the_same(serve: Serve) -> None:
    stream = packet(1, POMELO_HANDSHAKE) + packet(2) + request(1, "echo", b"a" * 300) + request(2, "echo", b"b")
    with serve(echo_app()) as server:
        for step in (1, 2, 3, 5, 7, 64):
            with Client(server.port) as client:
                for at in range(0, len(stream), step):
                    client.send(stream[at : at + step])
                assert client.read_packet()[0] == 1
                assert client.response(1).body == b"a" * 300
                assert client.response(2).body == b"b"


def test_what_a_handler_returns(serve: Serve) -> None:
    app = App("test")

    @app.on("none")
    def none(body: bytes) -> None:
        return None

    @app.on("dict")
    def a_dict(session: Session) -> dict[str, Any]:
        return {"id": session.id, "text": "héllo 😀"}

    @app.on("nothing")
    def nothing() -> list[int]:
        return [1, 2]

    @app.on("view")
    def view(body: bytes, session: Session) -> memoryview:
        return memoryview(body)[1:]

    with serve(app) as server, connected(server.port) as client:
        assert client.request("none").body == b"null"
        answer = client.request("dict").body
        assert answer.isascii()
        assert json.loads(answer)["text"] == "héllo 😀"
        assert client.request("nothing").body == b"[1,2]"
        assert client.request("view", b"abc").body == b"bc"


def test_json_bodies_are_decoded_and_checked(serve: Serve) -> None:
    app = App("test")

    @app.on("add")
    def add(body: dict[str, int]) -> int:
        return sum(body.values())

    @app.on("text")
    def text(body: dict) -> str:  # type: ignore[type-arg]
        return str(body["t"])

    with serve(app) as server, connected(server.port) as client:
        assert client.request("add", b'{"a":1,"b":2}').body == b"3"
        wrong = client.request("add", b'{"a":"x"}')
        assert wrong.error
        assert json.loads(wrong.body)["code"] == "GS-400"
        assert "int" in json.loads(wrong.body)["msg"]
        garbage = client.request("add", b"\xff\xfe{")
        assert json.loads(garbage.body)["code"] == "GS-400"
        # Pomelo's JS client sends astral characters as surrogate bytes (WIRE.md, rule 7).
        answer = client.request("text", b'{"t":"\xed\xa0\xbd\xed\xb8\x80"}')
        assert json.loads(answer.body) == "😀"
        assert client.request("add", b'{"a":1}').body == b"1"  # the connection lives


def test_errors_answer_and_keep_the_connection(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    app = echo_app()

    @app.on("refuse")
    def refuse(body: bytes) -> None:
        raise Refuse("room-full", "the room is full", {"room": "7"})

    @app.on("crash")
    def crash(body: bytes) -> None:
        raise ZeroDivisionError("secret detail")

    @app.on("bad-return")
    def bad_return(body: bytes) -> Any:
        return object()

    with serve(app) as server, connected(server.port) as client:
        answer = client.request("refuse")
        assert answer.error
        assert json.loads(answer.body) == {"code": "room-full", "msg": "the room is full", "metadata": {"room": "7"}}
        for _ in range(3):
            answer = client.request("crash")
            assert json.loads(answer.body)["code"] == "GS-500"
            assert b"secret" not in answer.body
        assert json.loads(client.request("bad-return").body)["code"] == "GS-500"
        assert json.loads(client.request("nowhere").body)["code"] == "GS-404"
        client.send(notify("nowhere", b"x") + notify("crash", b"x"))
        assert client.request("echo", b"alive").body == b"alive"
        errors = server.stats()["errors"]
        assert sorted(entry["count"] for entry in errors) == [1, 4]


def test_routers_and_typed_sessions(serve: Serve) -> None:
    chat = Router("chat")

    @chat.on("say")
    def say(player: Player, body: bytes) -> str:
        player.name = body.decode()
        return player.name

    @chat.on("who")
    async def who(player: Player) -> str:
        return player.name

    app = App("test", session=Player)
    app.include(chat)
    with serve(app) as server, connected(server.port) as a, connected(server.port) as b:
        assert a.request("chat.say", b"ann").body == b'"ann"'
        assert a.request("chat.who").body == b'"ann"'
        assert b.request("chat.who").body == b'"nobody"'


def test_pushes_groups_and_everybody(serve: Serve) -> None:
    app = App("test")

    @app.on("join")
    def join(session: Session, body: bytes) -> int:
        group = app.group(body.decode())
        group.add(session)
        assert session in group
        return len(group)

    @app.on("say")
    def say(session: Session, body: bytes) -> int:
        return app.group("red").push("said", body, skip=session)

    @app.on("all")
    def to_all(body: bytes) -> int:
        return app.push("news", {"text": body.decode()})

    @app.on("leave")
    def leave(session: Session) -> list[bool]:
        return [app.group("red").remove(session), app.group("red").remove(session)]

    with serve(app) as server:
        a, b, c = (connected(server.port) for _ in range(3))
        assert [x.request("join", b"red").body for x in (a, b)] == [b"1", b"2"]
        c.request("join", b"blue")
        assert a.request("say", b"hi").body == b"1"
        assert b.push("said").body == b"hi"
        assert c.request("all", b"!").body == b"3"
        for client in (a, b, c):
            assert json.loads(client.push("news").body) == {"text": "!"}
        assert b.request("leave").body == b"[true,false]"
        assert a.request("say", b"hi").body == b"0"
        b.close()
        a.close()
        assert c.request("say", b"?").body in (b"0", b"1")
        c.close()


def test_lifecycle_and_why(serve: Serve) -> None:
    app = App("test")
    events: list[tuple[str, int, str]] = []
    happened = threading.Condition()

    def note(what: str, session: Session, why: str = "") -> None:
        with happened:
            events.append((what, session.id, why))
            happened.notify_all()

    @app.on_join
    def join(session: Session) -> None:
        note("join", session)
        session.push("you", session.id)

    @app.on_drop
    def drop(session: Session) -> None:
        note("drop", session)

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        note("leave", session, why)
        with pytest.raises(SessionClosed):
            session.push("late")

    @app.on("kick-me")
    def kick_me(session: Session) -> None:
        session.kick("enough")

    @app.on("close-me")
    def close_me(session: Session) -> None:
        session.close()

    def left(number: int) -> list[tuple[str, str]]:
        with happened:
            assert happened.wait_for(lambda: any(e[:2] == ("leave", number) for e in events), 10)
            return [(what, why) for what, id, why in events if id == number]

    with serve(app) as server:
        client = connected(server.port)
        number = int(client.push("you").body)
        client.close()
        assert left(number) == [("join", ""), ("leave", "left")]

        client = connected(server.port)
        number = int(client.push("you").body)
        client.send(request(1, "kick-me"))
        packets = client.until_closed()
        assert (KICK, b'{"reason":"enough"}') in packets
        assert left(number) == [("join", ""), ("leave", "kicked")]

        client = connected(server.port)
        number = int(client.push("you").body)
        client.send(request(1, "close-me"))
        client.until_closed()
        assert left(number) == [("join", ""), ("leave", "kicked")]

        client = connected(server.port)
        number = int(client.push("you").body)
        client.send(b"\x09garbage")
        client.until_closed()
        assert left(number) == [("join", ""), ("leave", "kicked")]

        client = connected(server.port)
        number = int(client.push("you").body)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()  # a reset
        assert left(number) == [("join", ""), ("drop", ""), ("leave", "lost")]

        client = connected(server.port)
        number = int(client.push("you").body)
    assert [why for what, id, why in events if (what, id) == ("leave", number)] == ["shutdown"]
    assert any(kind == KICK for kind, _ in client.until_closed())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_authenticate_binds_the_uid(serve: Serve, asynchronous: bool) -> None:
    app = App("test")
    left: list[tuple[str | None, Left]] = []

    def check(user: dict[str, Any]) -> str | None:
        if user.get("token") == "bad":
            raise Refuse("bad-token", "log in again")
        if user.get("token") == "crash":
            raise RuntimeError("no")
        name = user.get("name")
        return str(name) if name is not None else None

    if asynchronous:

        @app.authenticate
        async def who_async(user: dict[str, Any]) -> str | None:
            await asyncio.sleep(0)
            return check(user)
    else:

        @app.authenticate
        def who(session: Session, user: dict[str, Any]) -> str | None:
            return check(user)

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        left.append((session.uid, why))

    @app.on("whoami")
    def whoami(session: Session) -> str | None:
        return session.uid

    @app.on("tell")
    def tell(body: bytes) -> bool:
        return app.user("ann").push("told", body)

    def shake(server_port: int, user: dict[str, Any]) -> Client:
        client = Client(server_port)
        client.handshake(json.dumps({"sys": {"type": "t", "version": "1"}, "user": user}).encode())
        return client

    with serve(app) as server:
        refused = shake(server.port, {"token": "bad"})
        assert refused.hello["code"] == 500
        assert refused.hello["user"] == {"code": "bad-token", "msg": "log in again"}
        assert refused.until_closed() == []
        assert shake(server.port, {"token": "crash"}).hello["user"]["code"] == "GS-500"
        guest = shake(server.port, {})
        assert guest.request("whoami").body == b"null"
        ann = shake(server.port, {"name": "ann"})
        assert ann.request("whoami").body == b'"ann"'
        assert guest.request("tell", b"hi").body == b"true"
        assert ann.push("told").body == b"hi"
        again = shake(server.port, {"name": "ann"})
        assert again.request("whoami").body == b'"ann"'
        assert any(kind == KICK for kind, _ in ann.until_closed())
        assert guest.request("tell", b"2").body == b"true"
        assert again.push("told").body == b"2"
        assert left == [("ann", Left.REPLACED)]
        for client in (guest, again):
            client.close()


def test_async_handlers_are_tasks_and_keep_the_order(serve: Serve) -> None:
    app = App("test")
    gate = asyncio.Event()

    @app.on("slow")
    async def slow(session: Session, body: bytes) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        async with asyncio.timeout(10):
            await gate.wait()
        return body

    @app.on("fast")
    def fast(session: Session, body: bytes) -> bytes:
        return body

    @app.on("open")
    def open_gate(session: Session) -> None:
        gate.set()

    @app.on("group")
    async def group(session: Session) -> list[int]:
        async def part(number: int) -> int:
            await asyncio.sleep(0)
            return number

        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(part(number)) for number in range(3)]
        return [task.result() for task in parts]

    @app.on("timeout")
    async def timeout(session: Session) -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "?"

    with serve(app) as server, connected(server.port) as a, connected(server.port) as b:
        a.send(request(1, "slow", b"1") + b"".join(request(n, "fast", b"%d" % n) for n in range(2, 60)))
        assert b.request("fast", b"b").body == b"b"  # others do not wait
        b.request("open")
        for number in range(1, 60):
            assert a.response(number).body == b"%d" % number
        assert b.request("group").body == b"[0,1,2]"
        assert b.request("timeout").body == b'"timed out"'


def test_concurrent_handlers_overtake(serve: Serve) -> None:
    app = App("test")
    gate = asyncio.Event()

    @app.on("slow", concurrent=True)
    async def slow(session: Session, body: bytes) -> bytes:
        await gate.wait()
        return body

    @app.on("open")
    def open_gate(session: Session) -> None:
        gate.set()

    with serve(app) as server, connected(server.port) as client:
        client.send(request(1, "slow", b"1") + request(2, "open"))
        assert client.response(2).body == b"null"
        assert client.response(1).body == b"1"


def test_an_async_join_comes_before_the_first_message(serve: Serve) -> None:
    app = App("test", session=Player)
    left = threading.Event()
    order: list[str] = []

    @app.on_join
    async def join(player: Player) -> None:
        await asyncio.sleep(0.01)
        player.name = "joined"
        order.append("joined")

    @app.on_leave
    def leave(player: Player, why: Left) -> None:
        order.append("left")
        left.set()

    @app.on("name")
    def name(player: Player) -> str:
        return player.name

    with serve(app) as server:
        with connected(server.port) as client:
            assert client.request("name").body == b'"joined"'
        assert left.wait(10)
        left.clear()
        order.clear()
        connected(server.port).close()  # gone while on_join waits
        assert left.wait(10)
        assert order == ["joined", "left"]


def test_timers_every_and_ticks(serve: Serve) -> None:
    app = App("test", tick_rate=100)
    steps: list[float] = []
    beats: list[float] = []
    done = threading.Event()
    fired: list[str] = []

    @app.tick
    def step(dt: float) -> None:
        steps.append(dt)

    @app.every(0.02)
    def beat() -> None:
        beats.append(app.clock.now())
        if len(beats) == 5:
            done.set()

    @app.on_start
    def start() -> None:
        app.after(0.01, fired.append, "sync")

        async def later() -> None:
            fired.append("async")

        app.after(0.01, later)
        cancelled = app.after(0.001, fired.append, "never")
        assert 0 < cancelled.left <= 0.0011
        cancelled.cancel()
        assert cancelled.left == 0
        again = app.after(5, fired.append, "restarted")
        again.restart(0.005)

    with serve(app):
        assert done.wait(10)
    assert sorted(fired) == ["async", "restarted", "sync"]
    assert set(steps) == {0.01}
    assert len(steps) >= 5
    assert all(b > a for a, b in itertools.pairwise(beats))


def test_session_metadata(serve: Serve) -> None:
    app = App("test")

    @app.on("me")
    def me(session: Session, body: bytes) -> dict[str, Any]:
        return {
            "address": session.address,
            "transport": session.transport,
            "tls": session.tls,
            "serializer": session.serializer,
            "state": session.state,
            "online": session.online_time,
            "since": session.connected_at,
            "heard": session.last_heard,
            "in": [session.messages_in, session.bytes_in],
            "out": [session.messages_out, session.bytes_out],
        }

    with serve(app) as server, connected(server.port) as client:
        client.request("me", b"12345")
        seen = json.loads(client.request("me", b"123").body)
        host, port = client.socket.getsockname()
        assert seen["address"] == f"{host}:{port}"
        assert (seen["transport"], seen["tls"], seen["serializer"], seen["state"]) == ("tcp", False, "json", "active")
        assert 0 <= seen["online"] < 60
        assert seen["since"] > 1.7e9
        assert seen["heard"] < 60
        assert seen["in"] == [2, 8]
        assert seen["out"][0] == 1


def test_a_session_made_by_hand_is_closed() -> None:
    session = Session()
    for call in (lambda: session.push("x"), session.kick, session.close, lambda: session.uid):
        with pytest.raises(SessionClosed, match="no server"):
            call()  # type: ignore[no-untyped-call]


def test_a_foreign_thread_is_refused_and_told_what_to_call() -> None:
    app = echo_app()
    with running(app) as server:
        with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
            app.push("x", b"")
        assert server.call(app.push, "x", b"") == 0
    with pytest.raises(GameServerError, match="does not run"):
        app.push("x", b"")


def test_run_can_be_called_again() -> None:
    app = echo_app()
    for _ in range(3):
        with running(app) as server, connected(server.port) as client:
            assert client.request("echo", b"x").body == b"x"


def test_handlers_are_swapped_while_tasks_of_the_old_wait(serve: Serve) -> None:
    app, new = App("test"), App("test")
    gate, begun = asyncio.Event(), threading.Event()

    @app.on("slow")
    async def slow(body: bytes) -> bytes:
        begun.set()
        await gate.wait()
        return b"old " + body

    @app.on("version")
    def version(session: Session) -> int:
        app._swap(new)
        gate.set()
        return 1

    @new.on("version")
    def new_version(session: Session) -> int:
        return 2

    @new.on("added")
    def added(session: Session) -> int:
        return 3

    with serve(app) as server, connected(server.port) as a, connected(server.port) as b:
        a.send(request(1, "slow", b"x"))
        assert begun.wait(20)
        assert b.request("version").body == b"1"
        assert a.response(1).body == b"old x"
        assert b.request("version").body == b"2"
        assert b.request("added").body == b"3"
        assert json.loads(b.request("slow").body)["code"] == "GS-404"


def test_mistakes_fail_at_registration() -> None:
    app = App("test")

    def wrong(**cases: Any) -> None:
        for pattern, decorate in cases.items():
            with pytest.raises(ConfigError, match=pattern.replace("_", ".*")) as caught:
                decorate()
            assert "test_app.py" in str(caught.value) or "App(" in str(caught.value) or "@on(" in str(caught.value)

    def unannotated(x): ...  # type: ignore[no-untyped-def]
    def odd(x: set[int]) -> None: ...
    def twice(a: bytes, b: dict) -> None: ...  # type: ignore[type-arg]
    def star(*args: bytes) -> None: ...
    def fine(body: bytes) -> None: ...
    def nowhere(body: Nowhere) -> None: ...  # type: ignore[name-defined] # noqa: F821
    def ticker(dt: int) -> None: ...

    app.on("taken")(fine)
    wrong(
        no_annotation=lambda: app.on("a")(cast(Any, unannotated)),
        set=lambda: app.on("a")(odd),
        one_is_enough=lambda: app.on("a")(twice),
        variadic=lambda: app.on("a")(star),
        not_defined=lambda: app.on("a")(nowhere),
        handled_already=lambda: app.on("taken")(fine),
        bytes_fit=lambda: app.on("x" * 256)(fine),
        own=lambda: app.on("$x")(fine),
        float=lambda: app.tick(ticker),
        as_a_string=lambda: app.on(7),  # type: ignore[call-overload]
        takes_the_route_from_the_message=lambda: app.on(fine),
        did_you_mean=lambda: App("x", tick_rat=3),
    )
    other = App("other")

    class Special(Session): ...

    @other.on("x")
    def special(session: Special) -> None: ...

    with pytest.raises(ConfigError, match=r"session=.*Special"):
        other.run(port=0)


def test_a_server_that_ended_leaves_no_descriptor_behind() -> None:
    app = echo_app()

    def once() -> int:
        with running(app) as server, connected(server.port) as client:
            client.request("echo", b"x")
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = once()
    assert [once() for _ in range(3)] == [before] * 3


# --- what handlers may do without harm --------------------------------------------------------------------------------


class Broken(Refuse):
    """A subclass that has lost what `Refuse` keeps."""

    def __init__(self) -> None:
        pass


def run_at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """As a decorator of some library: what it wraps is async, what it returns is not."""

    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        try:
            function(*arguments).send(None)
        except StopIteration as end:
            return end.value

    return wrapper


def as_async(function: Callable[..., Any]) -> Callable[..., Any]:
    """The other way round."""

    @functools.wraps(function)
    async def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


def test_nothing_that_a_handler_raises_ends_the_server(serve: Serve) -> None:
    app = echo_app()

    @app.on("broken-refusal")
    def broken_refusal(session: Session) -> None:
        raise Broken

    @app.on("exit")
    def leave(session: Session) -> None:
        sys.exit(3)

    @app.on("run-at-once")
    @run_at_once
    async def at_once(session: Session) -> int:
        return 1

    @app.on("cancelled")
    async def cancelled(session: Session) -> None:
        raise asyncio.CancelledError

    @app.on("cancels-itself")
    async def cancels_itself(session: Session) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @app.on("surrogate")
    def surrogate(session: Session) -> str:
        return "\ud800"

    @app.on("later")
    def later(session: Session) -> None:
        app.after(0, sys.exit, 3)
        app.call_soon_threadsafe(sys.exit, 3)
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)

    routes = ["broken-refusal", "exit", "run-at-once", "cancelled", "cancels-itself", "surrogate"]
    with serve(app) as server, connected(server.port) as client:
        for route in routes:
            assert json.loads(client.request(route).body)["code"] == "GS-500", route
        assert client.request("later").body == b"null"
        seen = eventually(server, lambda stats: len(stats["errors"]) == len(routes) + 2)  # both exits are one error
        assert {error["kind"] for error in seen["errors"]} >= {"SystemExit", "ZeroDivisionError"}
        assert client.request("echo", b"alive").body == b"alive"


def test_an_async_wrapper_of_a_sync_function_is_async(serve: Serve) -> None:
    app = App("test")

    @app.on("x")
    @as_async
    def x(session: Session) -> int:
        return 2

    with serve(app) as server, connected(server.port) as client:
        assert client.request("x").body == b"2"


def test_no_handler_sees_what_another_has_set_in_its_context(serve: Serve) -> None:
    app = App("test", tick_rate=200)
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")
    ticks: list[str] = []
    enough = threading.Event()

    @app.on_join
    def join(session: Session) -> None:
        who.set("join")

    @app.tick
    def first(dt: float) -> None:
        ticks.append(who.get())
        who.set("tick")
        if len(ticks) >= 3:
            enough.set()

    @app.on("set")
    def set_it(session: Session, body: bytes) -> None:
        who.set(body.decode())

    @app.on("set-async")
    async def set_async(session: Session, body: bytes) -> str:
        who.set(body.decode())
        await asyncio.sleep(0)
        return who.get()

    @app.on("get")
    def get(session: Session) -> str:
        return who.get()

    @app.on("get-async")
    async def get_async(session: Session) -> str:
        await asyncio.sleep(0)
        return who.get()

    with serve(app) as server, connected(server.port) as client:
        # In one write, so that all of them run in one turn, and some of them queued behind a task.
        routes = ["set", "get", "set-async", "get", "get-async", "set", "get-async", "get"]
        client.send(b"".join(request(number, route, b"me") for number, route in enumerate(routes, 1)))
        answers = [client.response(number).body for number in range(1, len(routes) + 1)]
        assert enough.wait(10)
    assert answers == [{"set": b"null", "set-async": b'"me"'}.get(route, b'"nobody"') for route in routes]
    assert set(ticks) == {"nobody"}


def test_a_session_that_leaves_while_its_handler_waits(serve: Serve) -> None:
    app = App("test")
    gate, ended = asyncio.Event(), threading.Event()
    seen: list[str] = []

    @app.on("wait")
    async def wait(session: Session) -> str:
        session.push("waiting")
        await gate.wait()
        try:
            session.push("late")
        except SessionClosed:
            seen.append(session.state)
        ended.set()
        return "too late"

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        seen.append(why)
        gate.set()

    with serve(app) as server:
        client = connected(server.port)
        client.send(request(1, "wait") + request(2, "wait"))
        client.push("waiting")
        client.close()
        assert ended.wait(10)
        eventually(server, lambda stats: stats["messages"]["tasks"] == 0)
        assert seen == ["left", "closed"]  # the second message died with its session
        assert server.stats()["errors"] == []


def test_what_waits_for_ever_is_cancelled_at_the_end_and_no_error(serve: Serve) -> None:
    app = App("test")
    ended: list[str] = []

    async def for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(name)
            raise

    @app.on("wait")
    async def wait(session: Session) -> None:
        session.push("waiting")
        await for_ever("handler")

    @app.on_start
    def start() -> None:
        app.task(for_ever("task"))

    with serve(app) as server:
        client = connected(server.port)
        client.send(request(1, "wait"))
        client.push("waiting")
    assert sorted(ended) == ["handler", "task"]
    assert app._errors.counts() == []


def test_the_end_waits_for_on_leave(serve: Serve) -> None:
    app = App("test")
    saved: list[Left] = []

    @app.on_leave
    async def save(session: Session, why: Left) -> None:
        await asyncio.sleep(0.05)  # the database
        saved.append(why)

    with serve(app) as server:
        client = connected(server.port)
        eventually(server, lambda stats: stats["sessions"] == 1)
        server.call(app.stop)
        client.until_closed()
        client.close()
    assert saved == [Left.SHUTDOWN]


def test_a_session_that_cannot_be_made_is_refused(serve: Serve) -> None:
    class Fails(Session):
        def __init__(self) -> None:
            raise OSError("no disk")

    with serve(App("test", session=Fails)) as server:
        client = Client(server.port)
        assert client.handshake()["user"]["code"] == "GS-500"
        assert client.until_closed() == []
        assert server.stats()["errors"][0]["kind"] == "OSError"


@pytest.mark.parametrize(
    ("agreed", "answer", "push"),
    [
        ({}, b"null", b"{}"),
        ({"gs": {"serializer": "json"}}, b"null", b"{}"),
        ({"gs": {"serializer": "protobuf"}}, b"", b""),
    ],
)
def test_an_empty_body_is_json_where_that_was_agreed(
    serve: Serve, agreed: dict[str, Any], answer: bytes, push: bytes
) -> None:
    app = App("test")

    @app.on("none")
    def none(session: Session) -> None:
        session.push("nothing")
        app.push("nothing", None)
        session.push("bytes", b"\xff\x00")

    @app.on("bytes")
    def raw(body: bytes) -> bytes:
        return body

    with serve(app) as server:
        client = Client(server.port)
        client.handshake(json.dumps({"sys": {"type": "t", "version": "1", **agreed}}).encode())
        assert client.request("none").body == answer
        assert [client.push("nothing").body for _ in range(2)] == [push, push]
        assert client.push("bytes").body == b"\xff\x00"  # bytes go as they are, whatever was agreed
        assert client.request("bytes", b"\xff\x00").body == b"\xff\x00"
        assert client.request("bytes", b"").body == answer


def test_two_logins_of_one_uid_at_once_leave_one(serve: Serve) -> None:
    app = App("test")
    gate = asyncio.Event()
    left: list[tuple[str | None, Left]] = []
    asked = threading.Semaphore(0)

    @app.authenticate
    async def who(user: dict[str, str]) -> str:
        asked.release()
        await gate.wait()
        return user["name"]

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        left.append((session.uid, why))

    @app.on("tell")
    def tell(session: Session) -> list[bool]:
        user = app.user("ann")
        return [user.session is session, user.push("told"), app.user("bob").push("told")]

    with serve(app) as server:
        clients = [Client(server.port) for _ in range(3)]
        for client in clients:
            client.send(packet(1, b'{"sys":{"type":"t","version":"1"},"user":{"name":"ann"}}'))
            assert asked.acquire(timeout=10)
        clients[0].close()  # gone while it waits: it binds nothing and unbinds nobody
        eventually(server, lambda stats: stats["connections"]["open"] == 2)
        server.call(gate.set)
        eventually(server, lambda stats: stats["closed"]["replaced"] == 1)
        assert any(kind == KICK for kind, _ in clients[1].until_closed())
        winner = clients[2]
        assert winner.read_packet()[0] == 1
        winner.send(packet(2))
        assert winner.request("tell").body == b"[true,true,false]"


# --- time, threads, tables --------------------------------------------------------------------------------------------


def test_timers_and_every_are_swapped_with_the_handlers(serve: Serve) -> None:
    app, new = App("test"), App("test")
    seen: list[str] = []
    swapped = threading.Event()

    def version(name: str, app: App) -> Callable[[], None]:
        @app.every(0.01)
        def beat() -> None:
            seen.append(f"{name} beat")
            if seen.count("new beat") >= 2 and "new call" in seen:
                swapped.set()

        @app.on("call")
        def call() -> None:
            seen.append(f"{name} call")

        return call

    old_call = version("old", app)
    version("new", new)

    def swap() -> None:
        app.after(0.001, old_call)
        app._swap(new)

    with serve(app) as server:
        server.call(swap)
        assert swapped.wait(10), seen
    assert seen.count("new call") == 1
    assert "old call" not in seen
    assert "old beat" not in seen[seen.index("new beat") :]


def test_an_every_of_the_old_handlers_ends_and_one_of_the_new_begins(serve: Serve) -> None:
    app, new = App("test"), App("test")
    seen: list[str] = []
    enough = threading.Event()

    @app.every(0.005)
    def old_beat() -> None:
        seen.append("old")

    @new.every(0.005)
    def new_beat() -> None:
        seen.append("new")
        if seen.count("new") == 3:
            enough.set()

    with serve(app) as server:
        server.call(app._swap, new)
        assert enough.wait(10)
    assert "old" not in seen[seen.index("new") :]


def test_a_timer_can_be_started_again_after_it_has_fired(serve: Serve) -> None:
    app = App("test")
    fired = threading.Semaphore(0)

    def start() -> Timer:
        return app.after(0.001, fired.release)

    with serve(app) as server:
        timer = server.call(start)
        assert fired.acquire(timeout=10)
        assert server.call(lambda: timer.left) == 0
        server.call(timer.restart, 0.002)
        assert fired.acquire(timeout=10)
        for wrong in (-1, float("nan"), 1e9):
            with pytest.raises(ValueError, match="give seconds"):
                server.call(app.after, wrong, print)
        with pytest.raises(TypeError, match="without"):
            server.call(app.after, 1, None)


def test_every_call_from_a_foreign_thread_is_refused(serve: Serve) -> None:
    app = echo_app()
    sessions: list[Session] = []

    @app.on("keep")
    def keep(session: Session) -> None:
        sessions.append(session)

    async def nothing() -> None: ...

    with serve(app) as server, connected(server.port) as client:
        client.request("keep")
        session, group = sessions[0], app.group("g")
        timer = server.call(app.after, 100, print)
        coroutine = nothing()
        calls: list[Callable[[], object]] = [
            lambda: session.push("x"),
            session.kick,
            session.close,
            lambda: session.uid,
            lambda: app.push("x"),
            lambda: app.sessions,
            app.stats,
            app.stop,
            app.clock.now,
            lambda: app.after(1, print),
            lambda: app.task(coroutine),
            timer.cancel,
            timer.restart,
            lambda: timer.left,
            lambda: group.add(session),
            lambda: group.remove(session),
            lambda: group.push("x"),
            lambda: session in group,
            lambda: len(group),
            lambda: app.user("x").push("x"),
            app.run,
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="call_soon_threadsafe"):
                call()
        coroutine.close()
        answer: Future[float] = Future()
        app.call_soon_threadsafe(lambda: answer.set_result(timer.left))
        assert answer.result(10) > 90  # the refused cancel has cancelled nothing
        assert client.request("echo", b"x").body == b"x"
    with pytest.raises(GameServerError, match="does not run"):
        app.call_soon_threadsafe(print)


def test_stats_have_the_keys_that_their_docstring_names(serve: Serve) -> None:
    doc = App.stats.__doc__ or ""
    with serve(echo_app()) as server:
        stats = server.stats()
    named = set(re.findall(r"\w+", doc.partition("Keys:")[2]))
    for key, value in stats.items():
        assert key in named
        if isinstance(value, dict) and key != "closed":
            assert set(value) <= named, key
    assert all(isinstance(count, int) for count in stats["closed"].values())


def test_more_mistakes_fail_at_registration_with_their_place() -> None:
    app, router = App("test"), Router("r")

    async def waits(dt: float) -> None: ...
    def sync(session: Session) -> None: ...
    def yields(session: Session) -> Any:
        yield 1

    async def yields_async(session: Session) -> Any:
        yield 1

    class Needs(Session):
        def __init__(self, name: str) -> None: ...

    app.include(router)
    cases: list[tuple[str, Callable[[], object]]] = [
        ("app.task", lambda: app.tick(waits)),
        ("async def", lambda: app.on("a", concurrent=True)(sync)),
        ("it yields", lambda: app.on("a")(yields)),
        ("it yields", lambda: app.on("a")(yields_async)),
        ("@app.on_join", lambda: app.on_join(cast(Any, "x"))),
        ("@app.tick", lambda: app.tick(cast(Any, 3))),
        ("'name'", lambda: App("x", session=Needs)),
        ("subclass of", lambda: App("x", session=cast(Any, int))),
        ("included already", lambda: router.on("a")(sync)),
        ("give a Router", lambda: app.include(cast(Any, app))),
        ("the prefix is", lambda: Router(cast(Any, 1))),
        ("0.001 up", lambda: app.every(0)),
        ("did you mean 'heartbeat'", lambda: App("x", hartbeat=3)),
    ]
    for text, mistake in cases:
        with pytest.raises(ConfigError, match=re.escape(text)) as caught:
            mistake()
        assert re.match(rf"{re.escape(__file__)}:\d+: ", str(caught.value)), caught.value
    with running(app) as server, pytest.raises(ConfigError, match="runs already"):
        server.call(app.on("late"), sync)
