"""The world and the sessions: the sender's entity, who owns what, who leaves, batches by rows."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest
from conftest import Serve, eventually
from wire_client import Client, connected, notify

from gameserver import App, Batch, ConfigError, Entity, Left, Message, Session, SessionClosed, World, f32, u16
from gameserver.testing import running
from gameserver.wire import decode_error


class Move(Message):
    dx: f32


class Player(Entity):
    x: f32 = 0.0
    y: f32 = 0.0
    hp: u16 = 100


class Hero(Player):
    mana: u16 = 7


class Flag(Entity, table="global"):
    owner_name: u16 = 0


def arena(**settings: Any) -> App:
    app = App("arena", tick_rate=200, **settings)

    @app.on("spawn")
    def spawn(session: Session, body: bytes) -> int:
        return app.world.spawn(Hero if body == b"hero" else Player, owner=session, hp=50).id

    @app.on
    def move(me: Player, msg: Move) -> list[Any]:
        me.x += msg.dx
        return [type(me).__name__, me.x]

    @app.on("late")
    async def late(body: bytes, session: Session, me: Player) -> list[Any]:
        await asyncio.sleep(0)
        assert me.owner is session
        return [me.hp, body.decode()]

    @app.on("mana")
    def mana(me: Hero) -> int:
        return me.mana

    @app.on("die")
    def die(me: Player) -> None:
        me.despawn()

    return app


def answer(client: Client, route: str, body: bytes = b"") -> Any:
    message = client.request(route, body)
    return decode_error(message.body, "json") if message.error else json.loads(message.body)


def test_a_handler_gets_the_senders_own_entity(serve: Serve) -> None:
    with serve(arena()) as server:
        ann, bob, eve = (connected(server.port) for _ in range(3))
        assert answer(ann, "spawn") == 1
        assert answer(bob, "spawn", b"hero") == 1  # of another class
        move = b'{"dx": 2}'
        assert [answer(ann, "Move", move), answer(ann, "Move", move)] == [["Player", 2.0], ["Player", 4.0]]
        assert answer(bob, "Move", move) == ["Hero", 2.0]  # a Hero is a Player
        assert answer(bob, "late", b"hi") == [50, "hi"]
        assert answer(bob, "mana") == 7
        for client, route, name in [(eve, "Move", "Player"), (ann, "mana", "Hero")]:
            refused = answer(client, route, move)
            assert (refused.code, refused.msg) == ("GS-409", f"this route takes your {name}, and you have none")
        answer(ann, "die")
        assert answer(ann, "Move", move).code == "GS-409"
        answer(ann, "spawn")
        assert answer(ann, "Move", move) == ["Player", 2.0]


def test_what_a_session_owns_leaves_with_it_but_what_is_kept(serve: Serve) -> None:
    app = arena()
    left: list[Any] = []

    @app.on("keep")
    def keep(session: Session, body: bytes) -> None:
        app.world.spawn(Flag, owner=session, keep=True)
        other = app.world.spawn(Player, owner=session)
        other.owner = None

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        mine = app.world.owned(Player, session)
        assert mine is not None
        left.append(mine.hp)

    with serve(app) as server:
        ann = connected(server.port)
        answer(ann, "spawn")
        answer(ann, "keep")

        def count(cls: type[Entity]) -> int:
            return server.call(lambda: app.world.count(cls))

        assert (count(Player), count(Flag)) == (2, 1)
        ann.close()
        eventually(server, lambda stats: stats["sessions"] == 0 and count(Player) == 1)
        assert (left, count(Flag)) == ([50], 1)
        assert server.call(lambda: [one.owner for one in app.world.each(Flag)]) == [None]
        assert server.call(lambda: [one.owner for one in app.world.each(Player)]) == [None]


def test_an_owner_has_to_be_a_session_of_this_server(serve: Serve) -> None:
    app = arena()
    kept: list[Session] = []

    @app.on("me")
    def me(session: Session) -> None:
        kept.append(session)

    def spawn() -> None:
        app.world.spawn(Player, owner=kept[0])

    with serve(app) as server:
        ann = connected(server.port)
        answer(ann, "me")
        server.call(spawn)
        assert server.call(lambda: [one.owner for one in app.world.each(Player)]) == kept
        ann.close()
        eventually(server, lambda stats: stats["sessions"] == 0)
        with pytest.raises(SessionClosed, match="is closed"):
            server.call(spawn)
        with pytest.raises(SessionClosed, match="belongs to no"):
            server.call(lambda: app.world.spawn(Player, owner=Session()))


def test_a_batch_by_rows(serve: Serve) -> None:
    app = arena()
    app._handlers = [handler for handler in app._handlers if handler.route != "Move"]
    seen: list[Any] = []

    @app.on
    def moves(batch: Batch[Move]) -> None:
        before = len(batch)
        rows = batch.rows(Player)
        assert len(rows) == len(batch) == len(batch.ids) == len(batch.dx)
        np.add.at(app.world.columns(Player).x, rows, batch.dx)
        seen.append((before, len(batch)))

    with serve(app) as server:
        clients = [connected(server.port) for _ in range(3)]
        for client in clients[:2]:
            answer(client, "spawn")
        for client in clients:
            client.send(notify("Move", b'{"dx": 1.5}') * 2)
            answer(client, "spawn", b"hero")  # behind the notifies: they have come
        eventually(server, lambda stats: sum(before for before, _ in seen) == 6)
        assert sum(after for _, after in seen) == 4
        # The third one has a Hero at most, whose row is in another table.
        assert sorted(server.call(lambda: app.world.columns(Player).x.tolist())) == [3.0, 3.0]


def test_the_world_belongs_to_the_thread_of_the_handlers() -> None:
    app = arena()
    before = app.world.spawn(Player, hp=3)
    with running(app) as server:
        with pytest.raises(RuntimeError, match="thread"):
            before.hp  # noqa: B018
        with pytest.raises(RuntimeError, match="thread"):
            app.world.spawn(Player)
        assert server.call(lambda: before.hp) == 3
        other = App("other", world=app.world, tick_rate=1)
        with pytest.raises((ConfigError, RuntimeError)):
            other.run(port=0)
    assert before.hp == 3  # whoever has it
    with running(app) as server:
        assert server.call(lambda: before.hp) == 3


def test_a_server_can_be_run_twice_with_one_world() -> None:
    app = arena()
    for count in (1, 2):
        with running(app) as server:
            server.call(lambda: app.world.spawn(Flag))
            assert server.call(lambda: app.world.count(Flag)) == count


def test_what_is_wrong_is_found_at_start() -> None:
    with pytest.raises(ConfigError, match="give a World"):
        App("x", world=3)  # type: ignore[arg-type]
    app = App("x")

    @app.on("a")
    def takes(me: Player) -> None: ...

    with pytest.raises(ConfigError, match="the world goes on at each tick, and there is none; set tick_rate"):
        app.run(port=0)
    with pytest.raises(ConfigError, match="can't be filled here"):

        @app.on_join
        def join(me: Player) -> None: ...

    with pytest.raises(ConfigError, match="a second your subclass of Entity"):

        @app.on("b")
        def twice(me: Player, you: Player) -> None: ...

    with pytest.raises(ConfigError, match="can't be filled here"):

        @app.on("c")
        def base(me: Entity) -> None: ...


def test_despawned_rows_go_at_the_end_of_the_tick() -> None:
    app = App("x", tick_rate=200, world=World(cell=10, view=20))
    ticks: list[tuple[int, int]] = []
    done = threading.Event()

    @app.tick
    def step(dt: float) -> None:
        before = app.world.count(Player)
        for one in [*app.world.each(Player)][:1]:
            one.despawn()
        ticks.append((before, app.world.count(Player)))
        if len(ticks) == 4:
            done.set()

    app.world.spawn_many(Player, 3)
    with running(app):
        assert done.wait(10)
    assert ticks[:4] == [(3, 3), (2, 2), (1, 1), (0, 0)]
