"""Services that handlers and rooms name: who makes them, how long they live, and what is said when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from conftest import Serve, eventually
from dishka import Provider, provide
from wire_client import Client

from gameserver import App, Batch, ConfigError, Member, Message, Refuse, Room, Session, f32, on
from gameserver.services import Scope
from gameserver.testing import running

story: list[str] = []


class Engine:
    """Has to be waited for, and ended."""


class Shop:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def price(self, item: str) -> int:
        return len(item)


class Mail:
    def send(self) -> str:
        return "sent"


class Cart:
    def __init__(self, session: Session, shop: Shop) -> None:
        self.session, self.shop, self.items = session, shop, 0


class UnitOfWork:
    def __init__(self) -> None:
        self.done: list[str] = []


class Audit:
    def __init__(self, work: UnitOfWork, cart: Cart) -> None:
        self.work, self.cart = work, cart


class Ledger:
    """Of one message, and has to be waited for."""


class Scores:
    def __init__(self, room: Room[Any], shop: Shop) -> None:
        self.room, self.points = room, 0


class Services(Provider):
    scope = Scope.APP
    shop = provide(Shop)
    mail = provide(Mail)
    cart = provide(Cart, scope=Scope.SESSION)
    audit = provide(Audit, scope=Scope.MESSAGE)
    scores = provide(Scores, scope=Scope.ROOM)

    @provide
    async def engine(self) -> AsyncIterator[Engine]:
        story.append("engine begins")
        await asyncio.sleep(0)
        yield Engine()
        await asyncio.sleep(0)
        story.append("engine ends")

    @provide(scope=Scope.MESSAGE)
    def work(self) -> Iterator[UnitOfWork]:
        work = UnitOfWork()
        error = yield work
        story.append(f"work ends: {error!r}, {work.done}")

    @provide(scope=Scope.MESSAGE)
    async def ledger(self) -> AsyncIterator[Ledger]:
        await asyncio.sleep(0)
        yield Ledger()
        story.append("ledger ends")


class Say(Message):
    x: f32


@pytest.fixture(autouse=True)
def fresh() -> None:
    story.clear()


def game() -> App:
    app = App("services")
    app.provide(Services())
    return app


def ask(port: int, *requests: tuple[str, bytes]) -> list[Any]:
    """Answers to requests of one session."""
    with Client(port) as client:
        client.handshake()
        return [json.loads(client.request(route, body).body or b"null") for route, body in requests]


@pytest.mark.parametrize("order", ["last", "first", "wrapped"])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_lives_as_long_as_the_app(serve: Serve, order: str, is_async: bool) -> None:
    app, shops = game(), []

    if order == "first":

        def price(shop: Shop, session: Session, body: bytes, mail: Mail) -> Any:
            shops.append(shop)
            return [shop.price(body.decode()), mail.send()]

        async def waits(shop: Shop, session: Session, body: bytes, mail: Mail) -> Any:
            await asyncio.sleep(0)
            return price(shop, session, body, mail)
    else:

        def price(session: Session, body: bytes, shop: Shop, mail: Mail) -> Any:  # type: ignore[misc]
            shops.append(shop)
            return [shop.price(body.decode()), mail.send()]

        async def waits(session: Session, body: bytes, shop: Shop, mail: Mail) -> Any:  # type: ignore[misc]
            await asyncio.sleep(0)
            return price(session, body, shop, mail)  # type: ignore[arg-type]

    chosen: Any = waits if is_async else price
    if order == "wrapped":
        chosen = functools.wraps(chosen)(lambda *arguments: inner(*arguments))
        inner = waits if is_async else price
    app.on("price")(chosen)
    with serve(app) as server:
        assert story == ["engine begins"]
        assert ask(server.port, ("price", b"sword"), ("price", b"bow")) == [[5, "sent"], [3, "sent"]]
        assert ask(server.port, ("price", b"")) == [[0, "sent"]]
    assert len({id(shop) for shop in shops}) == 1
    assert story == ["engine begins", "engine ends"]


def test_what_lives_as_long_as_a_session(serve: Serve) -> None:
    app = game()
    gone = threading.Event()

    @app.on("add")
    def add(cart: Cart) -> list[int]:
        cart.items += 1
        return [cart.items, cart.session.id]

    @app.on("waits")
    async def waits(session: Session, cart: Cart, ledger: Ledger) -> list[Any]:
        cart.items += 10
        return [cart.items, cart.session is session]

    @app.on_leave
    def leave(session: Session, cart: Cart) -> None:
        story.append(f"left with {cart.items}")
        gone.set()

    with serve(app) as server:
        (one, first), (two, same), (three, is_same) = ask(server.port, ("add", b""), ("add", b""), ("waits", b""))
        assert (one, two, three, first == same, is_same) == (1, 2, 12, True, True)
        assert gone.wait(10)
        assert ask(server.port, ("add", b""))[0][0] == 1, "another session, another cart"
        server.call(lambda: None)
        assert not [*app._services._sessions] or len(app._services._sessions) == 1
    assert story.count("left with 12") == 1
    assert "ledger ends" in story


def test_what_lives_as_long_as_a_message(serve: Serve) -> None:
    app, works = game(), []

    @app.on("pay")
    def pay(session: Session, body: bytes, work: UnitOfWork, audit: Audit) -> None:
        assert audit.work is work
        assert audit.cart.session is session
        work.done.append(body.decode())
        works.append(work)
        if body == b"dear":
            raise Refuse("poor", "too dear")

    @app.on("wait")
    async def wait(body: bytes, work: UnitOfWork, ledger: Ledger) -> None:
        work.done.append("waited")
        await asyncio.sleep(0)
        works.append(work)

    with serve(app) as server:
        ask(server.port, ("pay", b"a"), ("pay", b"dear"), ("wait", b""))
        assert story[1:] == [
            "work ends: None, ['a']",
            "work ends: Refuse('poor', 'too dear'), ['dear']",
            "ledger ends",
            "work ends: None, ['waited']",
        ]
    assert len({id(work) for work in works}) == 3


def test_what_lives_as_long_as_a_room(serve: Serve) -> None:
    app = game()

    @app.room("hall")
    class Hall(Room[Member]):
        def __init__(self, shop: Shop, scores: Scores) -> None:
            assert scores.room is self
            self.scores = scores
            story.append(f"made with {type(shop).__name__}")

        @on("score")
        def score(self, seat: Member, msg: Say, scores: Scores, mail: Mail) -> Say:
            assert scores is self.scores
            scores.points += 1
            return Say(scores.points)

        @on("buy")
        async def buy(self, seat: Member, cart: Cart, work: UnitOfWork) -> None:
            assert seat.session is cart.session
            cart.items += 1
            self.push("bought", {"items": cart.items})

    with serve(app) as server:
        for _ in range(2):
            with Client(server.port) as client:
                client.handshake()
                room = json.loads(client.request("$create", b'{"name":"hall"}').body)["room"]
                told = [json.loads(client.request(f"score@{room}", b'{"x":1}').body)["x"] for _ in range(2)]
                assert told == [1, 2], "each room has its own"
                client.request(f"buy@{room}", b"")
        eventually(server, lambda stats: stats["sessions"] == 0)
        server.call(lambda: None)
    assert story.count("made with Shop") == 2
    assert not app._services._rooms


def test_ticks_timers_start_and_stop_have_services(serve: Serve) -> None:
    app, ticked = App("services", tick_rate=100), threading.Event()
    app.provide(Services())

    @app.on_start
    async def start(engine: Engine, work: UnitOfWork, ledger: Ledger, here: App) -> None:
        assert here is app
        work.done.append("start")

    @app.tick
    def tick(dt: float, shop: Shop) -> None:
        assert shop.price("abc") == 3
        ticked.set()

    @app.every(0.01)
    def every(mail: Mail, work: UnitOfWork) -> None:
        work.done.append("timer")

    @app.on_stop
    def stop(shop: Shop) -> None:
        story.append("stop")

    with serve(app) as server:
        assert ticked.wait(10)
        assert server.stats()["errors"] == []
        while not any("timer" in line for line in list(story)):
            server.call(lambda: None)
    assert story[:3] == ["engine begins", "ledger ends", "work ends: None, ['start']"]
    assert story[-1] == "engine ends"
    assert "stop" in story


def test_a_test_puts_others_in_their_place() -> None:
    class Fake(Mail):
        def send(self) -> str:
            return "kept"

    fakes = Provider(scope=Scope.APP)
    fakes.provide(Fake, provides=Mail)
    app = game()

    @app.on("send")
    def send(mail: Mail) -> str:
        return mail.send()

    for expected in ("kept", "sent"):
        with app.override(fakes) if expected == "kept" else contextlib.nullcontext():
            with running(app) as server:
                assert ask(server.port, ("send", b"")) == [expected]
                with pytest.raises(ConfigError, match="the server runs already"):
                    server.call(lambda: app.override(fakes).__enter__())


class Broken:
    pass


class More(Provider):
    @provide(scope=Scope.MESSAGE)
    def broken(self) -> Broken:
        raise OSError("no disk")


def test_a_service_that_fails_is_the_messages_failure(serve: Serve) -> None:
    app = game()
    app.provide(More())

    @app.on("a")
    def a(session: Session, broken: Broken) -> None: ...

    @app.on("b")
    def b(shop: Shop) -> int:
        return 1

    with serve(app) as server, Client(server.port) as client:
        client.handshake()
        answer = client.request("a", b"")
        assert answer.error
        assert b"GS-500" in answer.body
        assert not client.request("b", b"").error
        assert server.stats()["errors"][0]["kind"] == "OSError"


class Unknown:
    pass


class Shopp:
    pass


def _unknown(app: App) -> None:
    @app.on("a")
    def a(session: Session, it: Unknown) -> None: ...


def _near(app: App) -> None:
    @app.on("a")
    def a(session: Session, it: Shopp) -> None: ...


def _sync_waits(app: App) -> None:
    @app.on("a")
    def a(session: Session, ledger: Ledger) -> None: ...


def _no_session(app: App) -> None:
    @app.every(1)
    def a(cart: Cart) -> None: ...


def _no_room(app: App) -> None:
    @app.on("a")
    def a(scores: Scores) -> None: ...


def _batch(app: App) -> None:
    @app.on
    def a(says: Batch[Say], work: UnitOfWork) -> None: ...


def _room_init(app: App) -> None:
    @app.room("hall")
    class Hall(Room[Member]):
        def __init__(self, cart: Cart) -> None: ...


def _bare_init(app: App) -> None:
    @app.room("hall")
    class Hall(Room[Member]):
        def __init__(self, cart) -> None: ...  # type: ignore[no-untyped-def]


def _room_needs_session(app: App) -> None:
    class Wrong:
        def __init__(self, cart: Cart) -> None: ...

    more = Provider(scope=Scope.ROOM)
    more.provide(Wrong)
    app.provide(more)


def _missing_part(app: App) -> None:
    class Needs:
        def __init__(self, it: Unknown) -> None: ...

    more = Provider(scope=Scope.APP)
    more.provide(Needs)
    app.provide(more)


@pytest.mark.parametrize(
    ("declare", "text"),
    [
        (_unknown, r"test_services\.py:\d+: .*parameter 'it': nothing provides Unknown; give a provider of it"),
        (_near, "nothing provides Shopp; did you mean 'Shop'"),
        (_sync_waits, "parameter 'ledger': Ledger has to be waited for.*make the handler async def"),
        (_no_session, r"parameter 'cart': Cart lives as long as a session, and @app.every\(seconds\) has none"),
        (_no_room, "parameter 'scores': Scores lives as long as a room, and this is no handler of one"),
        (_batch, "parameter 'work': UnitOfWork: a batch is of many sessions"),
        (_room_init, "parameter 'cart': a room is there before its members"),
        (_bare_init, "parameter 'cart' has no annotation; a room's __init__ takes services"),
        (_room_needs_session, "lives as long as a room, so it can't need what lives as long as a session"),
        (_missing_part, "app.provide.*Unknown"),
    ],
)
def test_what_cannot_be_had_is_told_at_start(declare: Callable[[App], None], text: str) -> None:
    app = App("services", tick_rate=10)
    app.provide(Services())
    declare(app)
    with pytest.raises(ConfigError, match=f"(?s){text}"), running(app):
        pass


def test_without_any_provider() -> None:
    app = App("services")
    _unknown(app)
    with pytest.raises(ConfigError, match="parameter 'it': nothing provides Unknown"), running(app):
        pass
    with pytest.raises(ConfigError, match=r"test_services\.py:\d+: .*give a dishka Provider"):
        app.provide(Services)  # type: ignore[arg-type]
