"""Middleware: what runs around handlers, in which order, what it sees, and what becomes of errors."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from conftest import Serve
from dishka import Provider
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import Client, request

from gameserver import App, Batch, ConfigError, Member, Message, Refuse, Room, Router, Session, f32, on
from gameserver.middleware import Call, Timing, audit, idempotent, require_role, require_uid, unit_of_work, use
from gameserver.services import Scope
from gameserver.testing import running

Around = Generator[None, Any, None]


class Say(Message):
    x: f32


def asked(client: Client, route: str, body: bytes = b"") -> Any:
    answer = client.request(route, body)
    text = json.loads(answer.body or b"null")
    return text["code"] if answer.error else text


def noted(story: list[Any], name: str) -> Any:
    def note(call: Call) -> Around:
        story.append(f"{name}(")
        try:
            result = yield
            story.append(f"{result})")
        except BaseException as error:
            story.append(f"{error})")
            raise

    return note


def noted_async(story: list[Any], name: str) -> Any:
    async def note(call: Call) -> AsyncGenerator[None, Any]:
        await asyncio.sleep(0)
        story.append(f"{name}(")
        try:
            result = yield
            await asyncio.sleep(0)
            story.append(f"{result})")
        except BaseException as error:
            story.append(f"{error})")
            raise

    return note


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("waits", [False, True])
def test_the_apps_is_outermost_then_the_routers_then_its_own(serve: Serve, is_async: bool, waits: bool) -> None:
    app, story, router = App("chain"), [], Router("deep")  # type: ignore[var-annotated]
    make = noted_async if waits else noted
    for name in ("a", "b"):
        app.middleware(make(story, name))
    router.middleware(noted(story, "r"))

    def say(session: Session, body: bytes) -> str:
        story.append(body.decode())
        if body == b"bad":
            raise Refuse("bad", "not so")
        return "ok"

    async def say_async(session: Session, body: bytes) -> str:
        await asyncio.sleep(0)
        return say(session, body)

    router.on("say")(use(noted(story, "u"), noted(story, "v"))(say_async if is_async else say))
    app.include(router)

    @app.on("plain")
    def plain() -> int:
        return 1

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert asked(client, "deep.say", b"hi") == "ok"
        assert story == ["a(", "b(", "r(", "u(", "v(", "hi", "ok)", "ok)", "ok)", "ok)", "ok)"]
        story.clear()
        assert asked(client, "deep.say", b"bad") == "bad"
        assert story == ["a(", "b(", "r(", "u(", "v(", "bad", *["bad: not so)"] * 5]
        story.clear()
        assert asked(client, "plain") == 1
        assert story == ["a(", "b(", "1)", "1)"]
        assert server.stats()["errors"] == []


@pytest.mark.parametrize("is_async", [False, True])
def test_what_it_sees_and_what_it_may_change(serve: Serve, is_async: bool) -> None:
    app, seen = App("sees"), []

    @app.middleware
    def look(call: Call) -> Around:
        seen.append((call.handler.route, call.session.id, call.member, call.message))
        if call.message == b"stop":
            call.result = "stopped"
            return
        try:
            call.result = [(yield)]
        except ZeroDivisionError:
            call.result = "mended"

    def echo(body: bytes) -> str:
        return str(1 / int(body))

    async def echo_async(body: bytes) -> str:
        await asyncio.sleep(0)
        return echo(body)

    app.on("echo")(echo_async if is_async else echo)

    @app.on
    def say(msg: Say, session: Session) -> Say:
        return msg

    @app.room("hall")
    class Hall(Room[Member]):
        @on("shout")
        @use(require_uid())
        def shout(self, seat: Member, body: bytes) -> int:
            return 1

        @on("talk")
        def talk(self, body: bytes) -> int:
            assert body == b"t"
            return seat_count(self)

    def seat_count(room: Room[Any]) -> int:
        return len(room.members)

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert [asked(client, "echo", body) for body in (b"4", b"0", b"stop")] == [["0.25"], "mended", "stopped"]
        room = asked(client, "$create", b'{"name":"hall"}')["room"]
        assert asked(client, f"talk@{room}", b"t") == [1]
        assert asked(client, f"shout@{room}", b"t") == "GS-401"
        assert asked(client, "Say", b'{"x":1}') == "GS-500", "a list is no Say"
        routes, sessions, members, messages = zip(*seen, strict=True)
        assert routes == ("echo", "echo", "echo", "talk", "shout", "Say")
        assert len(set(sessions)) == 1
        assert [member is not None for member in members] == [False, False, False, True, True, False]
        assert messages == (b"4", b"0", b"stop", b"t", b"t", Say(1))


Event = st.sampled_from(["through", "raise before", "raise after", "swallow", "answer", "change"])


@given(chain=st.lists(Event, max_size=5), fails=st.booleans(), waits=st.lists(st.booleans(), min_size=6, max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_chain_does_what_nested_functions_would(chain: list[str], fails: bool, waits: list[bool]) -> None:
    """Against a model: functions that call each other."""

    def model(level: int) -> Any:
        if level == len(chain):
            if fails:
                raise ValueError("handler")
            return "handler"
        match chain[level]:
            case "raise before":
                raise ValueError(f"before {level}")
            case "answer":
                return f"answer {level}"
            case "swallow":
                try:
                    return model(level + 1)
                except ValueError:
                    return f"swallowed {level}"
            case "raise after":
                model(level + 1)
                raise ValueError(f"after {level}")
            case "change":
                return f"changed {model(level + 1)}"
        return model(level + 1)

    def make(level: int, event: str) -> Any:
        def before(call: Call) -> bool:
            if event == "raise before":
                raise ValueError(f"before {level}")
            if event == "answer":
                call.result = f"answer {level}"
            return event == "answer"

        def after(call: Call, result: Any) -> None:
            if event == "raise after":
                raise ValueError(f"after {level}")
            if event == "change":
                call.result = f"changed {result}"

        def plain(call: Call) -> Around:
            if before(call):
                return
            try:
                result = yield
            except ValueError:
                if event != "swallow":
                    raise
                call.result = f"swallowed {level}"
                return
            after(call, result)

        async def waiting(call: Call) -> AsyncGenerator[None, Any]:
            if before(call):
                return
            try:
                result = yield
            except ValueError:
                if event != "swallow":
                    raise
                call.result = f"swallowed {level}"
                return
            after(call, result)

        return waiting if waits[level] else plain

    app = App("model")

    def handler(session: Session) -> str:
        if fails:
            raise ValueError("handler")
        return "handler"

    async def handler_async(session: Session) -> str:
        return handler(session)

    from gameserver._middleware import with_middleware

    app.on("a")(use(*[make(n, event) for n, event in enumerate(chain)])(handler_async if waits[5] else handler))
    found = with_middleware(app.handlers[0], ())

    def run(call: Any) -> Any:
        try:
            result = call()
            return asyncio.run(result) if asyncio.iscoroutine(result) else result
        except ValueError as error:
            return repr(error)

    class Nobody:
        uid, id = None, 1

    assert run(lambda: found.call(Nobody())) == run(lambda: model(0))


class Work:
    made: list[Work] = []

    def __init__(self) -> None:
        self.told: list[str] = []
        Work.made.append(self)

    def commit(self) -> None:
        self.told.append("commit")

    def rollback(self) -> None:
        self.told.append("rollback")


class SlowWork(Work):
    async def commit(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.told.append("commit")

    async def rollback(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.told.append("rollback")


@pytest.mark.parametrize("cls", [Work, SlowWork])
def test_a_unit_of_work_is_the_handlers_own_and_commits_or_not(serve: Serve, cls: Any) -> None:
    app, provider = App("work"), Provider(scope=Scope.MESSAGE)
    provider.provide(cls)
    app.provide(provider)
    Work.made.clear()

    def pay(session: Session, body: bytes, work: Any) -> None:
        work.told.append(body.decode())
        if body == b"dear":
            raise Refuse("poor", "too dear")

    pay.__annotations__["work"] = cls
    app.on("pay")(use(unit_of_work(cls))(pay))
    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert [asked(client, "pay", body) for body in (b"a", b"dear")] == [None, "poor"]
    assert [work.told for work in Work.made] == [["a", "commit"], ["dear", "rollback"]]


def test_who_may_do_what(serve: Serve) -> None:
    app = App("roles")

    @app.authenticate
    def who(user: dict[str, Any]) -> str | None:
        return user.get("name")

    @app.on("any")
    @use(require_uid())
    def anybody(session: Session) -> int:
        return 1

    @app.on("admin")
    @use(require_uid(), require_role("admin", roles_of=lambda session: {"admin"} if session.uid == "root" else ()))
    def admin(session: Session) -> int:
        return 2

    with serve(app) as server:
        for name, answers in ((None, ["GS-401", "GS-401"]), ("ada", [1, "GS-403"]), ("root", [1, 2])):
            with Client(server.port) as client:
                client.handshake(json.dumps({"sys": {}, "user": {"name": name}}).encode())
                assert [asked(client, route) for route in ("any", "admin")] == answers


def test_timing_and_audit(serve: Serve) -> None:
    app, timing = App("told"), Timing()
    written: list[dict[str, Any]] = []
    app.middleware(timing.around)
    app.middleware(audit(written.append))

    @app.on("do")
    async def do(session: Session, body: bytes) -> None:
        await asyncio.sleep(0)
        if body == b"no":
            raise Refuse("no", "no")
        if body == b"oh":
            raise ZeroDivisionError

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert [asked(client, "do", body) for body in (b"yes", b"no", b"oh")] == [None, "no", "GS-500"]
        spent = timing.routes()["do"]
    assert (spent["count"], spent["failed"]) == (3, 2)
    assert 0 < spent["mean"] <= spent["longest"]
    assert [entry["outcome"] for entry in written] == ["done", "no", "ZeroDivisionError"]
    assert [entry["message"] for entry in written] == [b"yes", b"no", b"oh"]


def test_the_same_request_runs_once(serve: Serve) -> None:
    app, ran = App("once"), []
    began, go_on = threading.Event(), asyncio.Event()
    now = [0.0]
    once = idempotent(lambda call: call.message.get("key"), seconds=60, keys_max=3, clock=lambda: now[0])

    @app.on("buy")
    @use(once)
    async def buy(session: Session, body: dict[str, Any]) -> int:
        ran.append(body)
        if body.get("wait"):
            began.set()
            await go_on.wait()
        if body.get("fail") and len(ran) < 9:
            raise Refuse("poor", "no")
        return len(ran)

    def ask(client: Client, **body: Any) -> Any:
        return asked(client, "buy", json.dumps(body).encode())

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert [ask(client, key="a"), ask(client, key="a"), ask(client, key="b"), ask(client, key="a")] == [1, 1, 2, 1]
        assert [ask(client), ask(client)] == [3, 4], "none without a key"
        assert [ask(client, key="c", fail=True), ask(client, key="c")] == ["poor", 6], "what failed may be tried again"
        now[0] = 61
        assert ask(client, key="a") == 7, "too long ago"
        with Client(server.port) as other:
            other.handshake()
            assert ask(other, key="a") == 8, "of somebody else"


def test_a_second_one_while_the_first_runs_is_refused(serve: Serve) -> None:
    app, go_on = App("busy"), asyncio.Event()

    @app.on("buy", concurrent=True)
    @use(idempotent(lambda call: call.message))
    async def buy(session: Session, body: bytes) -> int:
        await go_on.wait()
        return 1

    @app.on("go")
    def go() -> None:
        go_on.set()

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        client.send(request(1, "buy", b"k") + request(2, "buy", b"k") + request(3, "go"))
        answers: dict[int, Any] = {}
        for message in client.messages():
            answers[message.id] = message
            if len(answers) == 3:
                break
        assert json.loads(answers[2].body)["code"] == "GS-409"
        assert json.loads(answers[1].body) == 1


def no_generator(call: Call) -> None: ...


def no_call() -> Around:
    yield


def strange(call: Call, number: int) -> Around:
    yield


def test_mistakes() -> None:
    app = App("wrong")
    for function, text in (
        (no_generator, r"test_middleware\.py:\d+: no_generator: @middleware: a middleware is a generator"),
        (no_call, "a middleware takes a Call: def no_call"),
        (strange, "parameter 'number': a middleware takes a Call, and services"),
    ):
        with pytest.raises(ConfigError, match=text):
            app.middleware(function)

    @app.on
    @use(require_uid())
    def says(says: Batch[Say]) -> None: ...

    with pytest.raises(ConfigError, match="a batch is of many messages, and runs without middleware"):
        with running(app, tick_rate=10):
            pass


def test_one_that_yields_twice_is_an_error_of_the_game(serve: Serve) -> None:
    app = App("twice")

    @app.middleware
    def twice(call: Call) -> Around:
        yield
        yield

    @app.on("a")
    def a() -> int:
        return 1

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        assert asked(client, "a") == "GS-500"
        assert (
            "a middleware yields once" in str(server.stats()["errors"][0])
            or server.stats()["errors"][0]["kind"] == "RuntimeError"
        )


def test_handlers_without_any_are_called_as_they_are() -> None:
    from gameserver._middleware import with_middleware

    app = App("plain")

    @app.on("a")
    def a(session: Session) -> None: ...

    assert with_middleware(app.handlers[0], ()) is app.handlers[0]
    assert app.handlers[0].call is a
