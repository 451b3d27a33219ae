"""Worlds of rooms: each has its own, seen by its members alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Serve, eventually

from gameserver import (
    OWNER,
    App,
    ConfigError,
    Entity,
    GameServerError,
    Left,
    Member,
    Room,
    SchemaError,
    f32,
    on,
    sync,
    u8,
    u16,
)
from gameserver.client import Client, RemoteRoom

DEADLINE = 20.0


class Stone(Entity):
    x: f32 = sync(0, quantize=0.5)
    y: f32 = sync(0, quantize=0.5)


class Seat(Member):
    gold: u16 = sync(7, to=OWNER)


class Hall(Room[Seat]):
    mood: u8 = sync(1)

    def __init__(self) -> None:
        self.story: list[Any] = []

    def on_join(self, seat: Seat) -> None:
        self.world.spawn(Stone, x=self.number, owner=seat.session)

    @on("mood")
    async def set_mood(self, seat: Seat) -> None:
        await asyncio.sleep(0)
        self.mood += 1

    def on_leave(self, seat: Seat, why: Left) -> None:
        seat.gold += 1
        self.story.append((seat.gold, self.mood))


def halls(tick_rate: int = 0) -> App:
    app = App("halls")
    app.room("hall", entities=(Stone,), tick_rate=tick_rate, dispose_after=None)(Hall)
    return app


async def enter(port: int) -> tuple[Client, RemoteRoom]:
    client = await Client.connect(f"tcp://127.0.0.1:{port}", world=True)
    return client, await client.create("hall")


async def until(room: RemoteRoom, true: Callable[[], object]) -> None:
    changed = asyncio.Event()
    assert room.world is not None
    for name in ("Hall", "Seat", "Stone"):
        for listen in (room.world.on_add, room.world.on_change, room.world.on_remove):
            listen(name, lambda _: changed.set())
    async with asyncio.timeout(DEADLINE):
        while not true():
            changed.clear()
            await changed.wait()


async def sees_its_own(room: RemoteRoom) -> None:
    world = room.world
    assert world is not None
    await until(room, lambda: room.state and room.members and world.mine(Stone))
    assert [stone.x for stone in world.entities[Stone].values()] == [room.number]
    assert [seat.gold for seat in room.members] == [7]


@pytest.mark.parametrize("tick_rate", [0, 100])
def test_each_room_shows_its_own_world(serve: Serve, tick_rate: int) -> None:
    async def play(port: int) -> None:
        ann, hers = await enter(port)
        bob, his = await enter(port)
        assert hers.number != his.number
        for room in (hers, his):
            await sees_its_own(room)
        await hers.request("mood")
        await until(hers, lambda: hers.state.mood == 2)
        assert his.state.mood == 1
        # A second member sees what is there, but for what is the first one's alone.
        cid = await Client.connect(f"tcp://127.0.0.1:{port}", world=True)
        theirs = await cid.join_by_id(hers.number)
        await until(theirs, lambda: len(theirs.members) == 2)
        assert (theirs.state.mood, [seat.gold for seat in theirs.members]) == (2, [None, 7])
        await hers.leave()
        await until(theirs, lambda: [seat.number for seat in theirs.members] == [2])
        world = theirs.world
        assert world is not None
        await until(theirs, lambda: len(world.entities[Stone]) == 1)  # hers went with her
        for client in (ann, bob, cid):
            await client.aclose()

    app = halls(tick_rate)
    with serve(app) as server:
        asyncio.run(play(server.port))
        eventually(server, lambda _: server.call(lambda: not app.sessions))
        # The last values can be read when the row is gone.
        assert server.call(lambda: [room.story for room in app.rooms]) == [[(8, 2), (8, 2)], [(8, 1)]]  # type: ignore[attr-defined]


def test_what_is_over_keeps_its_values_and_takes_no_others(serve: Serve) -> None:
    app = halls()
    with serve(app) as server:

        def end() -> Any:
            return asyncio.get_running_loop().create_task(app.create_room(Hall))

        task = server.call(end)
        eventually(server, lambda _: server.call(lambda: task.done()))

        def check() -> Any:
            room = task.result()
            room.mood = 9
            with pytest.raises(ValueError, match=r"Hall 1.mood"):
                room.mood = 1000
            room.dispose()
            with pytest.raises(GameServerError, match="over: mood"):
                room.mood = 1
            return room.mood

        assert server.call(check) == 9


def test_mistakes_say_what_to_do(serve: Serve) -> None:
    class Bare(Room[Member]): ...

    app = App("bare")
    app.room("bare")(Bare)
    with serve(app) as server:
        task = server.call(lambda: asyncio.get_running_loop().create_task(app.create_room(Bare)))
        eventually(server, lambda _: server.call(lambda: task.done()))

        def check() -> None:
            with pytest.raises(ConfigError, match=r"entities=\(Player,\)"):
                task.result().world.spawn(Stone)

        server.call(check)

    class Wrong(Room[Member]):
        number: u8 = sync(1)

    app = App("wrong")
    app.room("wrong")(Wrong)
    with pytest.raises(SchemaError, match=r"Wrong.number: every Room has a member of this name"):
        app._rooms.make_worlds()
    with pytest.raises(ConfigError, match="no subclass of Entity"):
        app.room("x", entities=(int,))(Hall)  # type: ignore[arg-type]


def test_a_rate_is_so_many_ticks_of_the_worlds_server(serve: Serve) -> None:
    class Slow(Entity):
        x: f32 = sync(0, rate=10)

    app = App("slow", tick_rate=50)
    app.world.declare(Slow)

    @app.room("slow", tick_rate=20, entities=(Slow,))
    class Place(Room[Member]): ...

    async def ask(port: int) -> Any:
        async with await Client.connect(f"tcp://127.0.0.1:{port}", world=True) as client:
            return client._protocol.schema

    with serve(app) as server:
        schema = asyncio.run(ask(server.port))
    every = [
        schema["world"]["tables"][0]["columns"][0]["every"],
        schema["rooms"]["slow"]["tables"][0]["columns"][0]["every"],
    ]
    assert every == [5, 2], json.dumps(schema)
