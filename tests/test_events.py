"""Domain events: order per key, nothing lost, nothing twice, nobody waits for another; what fails is tried again, or put aside."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from conftest import Serve, eventually
from dishka import Provider
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import ask, dead
from wire_client import Client

from gameserver import App, ConfigError, Event, GameServerError, Overloaded, Router, Session, _events, queued
from gameserver.services import Scope
from gameserver.testing import RunningServer, running


@queued(2_000_000)
class Happened(Event):
    key: int
    number: int


class Special(Happened):
    more: str = ""


@queued(3)
class Few(Event):
    number: int


@queued(3, when_full="drop_oldest")
class Newest(Event):
    number: int


@queued(3, when_full="coalesce")
class Moved(Event):
    who: str
    x: int


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once: what is tested is the order, not the pause."""
    monkeypatch.setattr(_events, "DELAY_MIN", 0.0005)
    monkeypatch.setattr(_events, "DELAY_MAX", 0.002)


class History:
    """Who handled what, in which order; says what is wrong with it."""

    def __init__(self) -> None:
        self.handled: dict[str, list[Happened]] = defaultdict(list)

    def check(self, subscriber: str, emitted: list[Happened]) -> None:
        """Of each key all, once, in the order in which they were emitted."""
        by_key: dict[int, list[int]] = defaultdict(list)
        for event in self.handled[subscriber]:
            by_key[event.key].append(event.number)
        wanted: dict[int, list[int]] = defaultdict(list)
        for event in emitted:
            wanted[event.key].append(event.number)
        for key, numbers in wanted.items():
            assert by_key[key] == numbers, f"{subscriber}, key {key}"
        assert sum(map(len, by_key.values())) == len(emitted)


def emit_all(app: App, some: list[tuple[Event, object]]) -> None:
    for event, key in some:
        app.emit(event, key=key)


def done(server: RunningServer) -> None:
    eventually(server, lambda stats: all(one["waiting"] == 0 for one in stats["events"].values()))


@given(
    keys=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    seed=st.integers(0, 1 << 32),
    fails=st.sampled_from([0.0, 0.2, 0.6]),
    pauses=st.booleans(),
    concurrency=st.integers(1, 5),
    batch=st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_any_subscriber_handles_all_once_and_each_key_in_order(
    keys: list[int], seed: int, fails: float, pauses: bool, concurrency: int, batch: int
) -> None:
    app, history, chance = App("events"), History(), Random(seed)

    def may_fail() -> None:
        if chance.random() < fails:
            raise OSError("for now")

    async def may_wait() -> None:
        for _ in range(chance.randrange(4) if pauses else 0):
            await asyncio.sleep(0)

    @app.on_event(Happened, retries=1000)
    def sync(event: Happened) -> None:
        may_fail()
        history.handled["sync"].append(event)

    @app.on_event(Happened, retries=1000, concurrency=concurrency)
    async def waits(event: Happened) -> None:
        await may_wait()
        may_fail()
        history.handled["waits"].append(event)
        await may_wait()

    @app.on_event(Happened, retries=1000, batch=batch)
    def many(events: list[Happened]) -> None:
        may_fail()
        history.handled["many"] += events

    @app.on_event(Happened, retries=1000, batch=batch)
    async def many_wait(events: list[Happened]) -> None:
        await may_wait()
        may_fail()
        history.handled["many_wait"] += events

    emitted: list[Happened] = []

    def emit(some: list[int]) -> None:
        for key in some:
            emitted.append(Happened(key, len(emitted)))
            app.emit(emitted[-1], key=key)

    with running(app) as server:
        half = len(keys) // 2
        server.call(emit, keys[:half])
        server.call(emit, keys[half:])
        done(server)
        for name, stats in server.stats()["events"].items():
            assert (stats["done"], stats["dead"]) == (len(keys), 0), name
    for subscriber in ("sync", "waits", "many", "many_wait"):
        history.check(subscriber, emitted)


def test_a_million() -> None:
    """With failures now and then: none lost, none twice, none out of order."""
    app, history, count = App("events", log_level="critical"), History(), 1_000_000
    chance = Random(1)

    def fails() -> None:
        if chance.random() < 0.0005:
            raise OSError("for now")

    @app.on_event(Happened, retries=1000)
    def sync(event: Happened) -> None:
        fails()
        history.handled["sync"].append(event)

    @app.on_event(Happened, retries=1000)
    async def waits(event: Happened) -> None:
        if event.number % 1000 == 0:
            await asyncio.sleep(0)
        fails()
        history.handled["waits"].append(event)

    @app.on_event(Happened, retries=1000, batch=500)
    def many(events: list[Happened]) -> None:
        history.handled["many"] += events

    emitted = [Happened(number * 7919 % 5000, number) for number in range(count)]

    def emit() -> None:
        for event in emitted:
            app.emit(event, key=event.key)

    with running(app) as server:
        server.call(emit, timeout=60)
        deadline = time.monotonic() + 120
        while any(one["waiting"] for one in server.stats()["events"].values()):
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)  # asking costs the server time
        assert all(one["done"] == count for one in server.stats()["events"].values())
    for subscriber in ("sync", "waits", "many"):
        history.check(subscriber, emitted)


def test_who_is_told(serve: Serve) -> None:
    app, told, router = App("events"), Counter[str](), Router("deep")
    fakes = Provider(scope=Scope.APP)
    fakes.provide(Book)
    app.provide(fakes)

    @app.on("go")
    def go(session: Session) -> None:
        app.emit(Special(1, 1), key=1)
        told["emitted"] += 1
        assert told["base"] == 0, "later, from the loop"

    @app.on_event(Happened)
    def base(event: Happened) -> None:
        told["base"] += 1

    @router.on_event(Special)
    async def special(event: Special, book: Book) -> None:
        book["written"] += 1
        told[f"special {book['written']}"] += 1

    @app.on_event(Few)
    def few(event: Few) -> None:
        told["few"] += 1

    app.include(router)
    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        client.request("go")
        done(server)
        server.call(app.emit, Happened(1, 2))
        done(server)
    assert told == {"emitted": 1, "base": 2, "special 1": 1}


class Book(dict[str, int]):
    def __init__(self) -> None:
        self["written"] = 0


def test_one_that_is_slow_delays_nobody_else_and_no_other_key(serve: Serve) -> None:
    app, handled = App("events"), []
    go_on: list[asyncio.Event] = []

    @app.on_event(Happened)
    async def slow(event: Happened) -> None:
        if event.key == 1:
            go_on.append(asyncio.Event())
            await go_on[-1].wait()
        handled.append(("slow", event.key))

    @app.on_event(Happened)
    def quick(event: Happened) -> None:
        handled.append(("quick", event.key))

    with serve(app) as server:
        server.call(emit_all, app, [(Happened(key, 0), key) for key in (1, 1, 2, 3)])
        eventually(server, lambda stats: len(handled) == 6)
        assert [key for who, key in handled if who == "quick"] == [1, 1, 2, 3]
        assert [key for who, key in handled if who == "slow"] == [2, 3]
        for count in (1, 2):
            eventually(server, functools.partial(lambda count, stats: len(go_on) == count, count))
            server.call(go_on[-1].set)
        done(server)
        assert [key for who, key in handled if who == "slow"] == [2, 3, 1, 1]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("batch", [0, 4])
def test_a_poisoned_one_is_put_aside_and_blocks_nothing(serve: Serve, is_async: bool, batch: int) -> None:
    app = App("events")
    handled: list[int] = []
    cured: list[bool] = []

    def take(events: list[Happened]) -> None:
        if any(event.number == 1 for event in events) and not cured:
            raise ValueError("poison")
        handled.extend(event.number for event in events)

    def one(event: Happened) -> None:
        take([event])

    def some(event: list[Happened]) -> None:
        take(event)

    async def one_async(event: Happened) -> None:
        take([event])

    async def some_async(event: list[Happened]) -> None:
        take(event)

    chosen: Any = (some_async if is_async else some) if batch else (one_async if is_async else one)
    app.on_event(Happened, retries=3, batch=batch)(chosen)
    with serve(app) as server:
        server.call(emit_all, app, [(Happened(key, number), key) for key, number in ((1, 1), (1, 2), (2, 3))])
        eventually(
            server, lambda stats: sorted(handled) in ([2, 3], [3]) and next(iter(stats["events"].values()))["dead"] >= 1
        )
        done(server)
        letters = dead(server)
        assert letters[0].event == Happened(1, 1)
        assert (letters[0].key, letters[0].error, letters[0].name) == (1, "ValueError: poison", "Happened")
        stats = next(iter(server.stats()["events"].values()))
        assert stats["done"] + stats["dead"] == 3
        assert letters == dead(server, letters[0].subscriber)
        cured.append(True)
        for letter in letters:
            ask(server, functools.partial(app.dead_letters.replay, letter))
        done(server)
        assert sorted(handled) == [1, 2, 3]
        assert dead(server) == []
        for refused in (app.dead_letters.replay, app.dead_letters.remove):
            with pytest.raises(KeyError):
                ask(server, functools.partial(refused, letters[0]))


def blocked(app: App, cls: Any) -> tuple[list[Any], list[asyncio.Event]]:
    handled: list[Any] = []
    gate: list[asyncio.Event] = []

    @app.on_start
    def start() -> None:
        gate.append(asyncio.Event())

    async def take(event: Any) -> None:
        await gate[0].wait()
        handled.append(event)

    take.__annotations__["event"] = cls
    app.on_event(cls, concurrency=1)(take)
    return handled, gate


def test_a_full_queue_refuses_and_nobody_gets_it(serve: Serve) -> None:
    app = App("events")
    handled, gate = blocked(app, Few)
    others: list[int] = []

    @app.on_event(Few)
    def quick(event: Few) -> None:
        others.append(event.number)

    @app.on("more")
    def more(body: bytes) -> None:
        app.emit(Few(int(body)))

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        client.request("more", b"0")
        eventually(server, lambda stats: others == [0])
        answers = [client.request("more", str(number).encode()) for number in range(1, 6)]
        assert [json.loads(answer.body)["code"] for answer in answers if answer.error] == ["GS-503"] * 2
        eventually(server, lambda stats: others == [0, 1, 2, 3])
        server.call(gate[0].set)
        done(server)
        assert [event.number for event in handled] == [0, 1, 2, 3]
        assert sum(one["refused"] for one in server.stats()["events"].values()) == 2
        assert server.stats()["errors"] == []


def test_the_oldest_are_dropped_or_those_of_one_key_become_one(serve: Serve) -> None:
    app = App("events")
    newest, gate = blocked(app, Newest)
    moved, other_gate = blocked(app, Moved)
    with serve(app) as server:
        server.call(lambda: app.emit(Newest(0), key=0))
        server.call(lambda: app.emit(Moved("a", 0), key="a"))
        server.call(emit_all, app, [(Newest(n), 0) for n in range(1, 8)])
        server.call(emit_all, app, [(Moved(who, x), who) for x, who in enumerate("abcbdba")])
        stats = server.stats()["events"]
        server.call(gate[0].set)
        server.call(other_gate[0].set)
        done(server)
    assert [event.number for event in newest] == [0, 5, 6, 7]
    assert [one["dropped"] for one in stats.values()] == [4, 2]
    assert [one["coalesced"] for one in stats.values()] == [0, 2]
    # Of b the newest took the first one's place, and was the oldest when the last a came.
    assert [(event.who, event.x) for event in moved] == [("a", 0), ("c", 2), ("d", 4), ("a", 6)]


def test_what_waits_when_the_server_stops_is_handled_first() -> None:
    app, handled = App("events"), []

    @app.on_event(Happened)
    async def take(event: Happened) -> None:
        await asyncio.sleep(0)
        handled.append(event.number)

    @app.on_stop
    def stop() -> None:
        for number in range(200):
            app.emit(Happened(number % 3, number), key=number % 3)

    with running(app):
        pass
    assert sorted(handled) == list(range(200))
    with pytest.raises(GameServerError, match="does not run"):
        app.emit(Happened(1, 1))


def test_what_never_ends_is_told(caplog: pytest.LogCaptureFixture) -> None:
    app = App("events")

    @app.on_event(Happened)
    async def stuck(event: Happened) -> None:
        await asyncio.Event().wait()

    with running(app, drain_timeout=0.1) as server:
        server.call(app.emit, Happened(1, 1))
        server.call(app.emit, Happened(2, 1))
    assert "2 events were not handled when the server stopped" in caplog.text


def wrong_class(app: App) -> None:
    app.on_event(int)  # type: ignore[arg-type]


def wrong_parameter(app: App) -> None:
    @app.on_event(Happened)
    def take(event: Few) -> None: ...


def wrong_batch(app: App) -> None:
    @app.on_event(Happened, batch=3)
    def take(event: Happened) -> None: ...


def no_batch(app: App) -> None:
    @app.on_event(Happened)
    def take(event: list[Happened]) -> None: ...


def with_session(app: App) -> None:
    @app.on_event(Happened)
    def take(session: Session, event: Happened) -> None: ...


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (wrong_class, r"test_events\.py:\d+: @on_event\(<class 'int'>\): give a subclass of Event"),
        (wrong_parameter, r"test_events\.py:\d+: .*takes .*Few.*; it is given .*Happened"),
        (wrong_batch, "it is given list"),
        (no_batch, "takes list"),
        (with_session, "parameter 'session': Session can't be filled here"),
        (lambda app: app.on_event(Happened, retries=-1), r"retries=-1\): a whole number from 0 up"),
        (lambda app: queued(0), "a whole number above 0"),
        (
            lambda app: queued(1, when_full="panic"),  # type: ignore[arg-type]
            'or "coalesce"',
        ),
        (lambda app: queued(1)(int), "a subclass of Event"),  # type: ignore[type-var]
    ],
)
def test_mistakes(declare: Callable[[App], Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        declare(App("events"))


def test_only_events_are_emitted() -> None:
    app = App("events")
    with running(app) as server:
        with pytest.raises(TypeError, match="an object of a subclass of Event"):
            server.call(app.emit, "news")
        server.call(app.emit, Happened(1, 1))
    assert issubclass(Overloaded, GameServerError)
