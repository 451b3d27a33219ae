"""A room that is carried: its next tick is the one that would have come, in a server that has never seen it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import Serve, eventually
from wire_client import Client

from gameserver import OWNER, App, Entity, GameServerError, Member, Room, every, f32, on, sync, u16
from gameserver.testing import RunningServer


class Drop(Entity):
    x: f32 = 0.0
    y: f32 = 0.0


class Seat(Member):
    gold: u16 = sync(0, to=OWNER)

    def __init__(self) -> None:
        self.note = "new"


class Rain(Room[Seat]):
    wind: f32 = sync(0)

    def __init__(self) -> None:
        self.story: list[Any] = []
        self.count = 0
        self.log = True

    def on_join(self, seat: Seat) -> None:
        seat.gold = 5 * seat.number
        seat.note = f"seat {seat.number}"
        self.world.spawn(Drop, owner=seat.session, x=seat.number)
        self.group("all").add(seat)
        self.metadata = {"wet": True}

    def on_tick(self, dt: float) -> None:
        self.wind = self.random.random()
        self.world.spawn_many(Drop, 2, x=self.random.random(), y=[1, 2])
        drops = self.world.columns(Drop)
        drops.y += np.float32(self.wind)
        self.story.append([self.random.random(), *map(float, drops.x), *map(float, drops.y)])

    @every(3600)
    def rare(self) -> None: ...

    def thunder(self, seat: Seat, times: int) -> None:
        self.story.append(["thunder", seat.number, times])

    @on("gold")
    def get(self, seat: Seat) -> list[Any]:
        drop = self.world.owned(Drop, seat.session) if seat.session is not None else None
        return [seat.gold, seat.note, drop is not None, len(self.group("all")), seat.number]

    def on_save(self) -> Any:
        return {"count": self.count, "notes": {str(seat.number): seat.note for seat in self.members}}

    def on_load(self, state: Any) -> None:
        self.story, self.count, self.log = [], state["count"], False
        for seat in self.members:
            seat.note = state["notes"][str(seat.number)]


def rain(tick_rate: int) -> App:
    app = App("rain", seed=1)

    @app.authenticate
    def authenticate(user: dict[str, Any]) -> str | None:
        return user.get("name")

    app.room("rain", tick_rate=tick_rate, entities=(Drop,), grace=60, dispose_after=None)(Rain)
    return app


def login(server: RunningServer, name: str) -> Client:
    client = Client(server.port)
    user = {"sys": {"gs": {"serializer": "json"}}, "user": {"name": name} if name else {}}
    assert client.handshake(json.dumps(user).encode())["code"] == 200
    return client


def ask(client: Client, route: str, **body: Any) -> Any:
    answer = client.request(route, json.dumps(body).encode())
    assert not answer.error, answer
    return json.loads(answer.body)


def room_of(server: RunningServer) -> Rain:
    room = server.app.rooms[0]
    assert isinstance(room, Rain)
    return room


def test_the_next_tick_is_the_same(serve: Serve) -> None:
    with serve(rain(10)) as server:
        ann, guest, bob = login(server, "ann"), login(server, ""), login(server, "bob")
        number = ask(ann, "$create", name="rain", options={"a": 1})["room"]
        for client in (guest, bob):
            ask(client, "$join_by_id", room=number)
        eventually(server, lambda _: server.call(lambda: len(room_of(server).story) >= 3))

        def carry() -> tuple[bytes, int, float]:
            room = room_of(server)
            room.count = 42
            room.after(3600, room.thunder, room.members[2], 7)
            return server.app.save_room(room), len(room.story), room.clock.now()

        data, ticks, age = server.call(carry)
        eventually(server, lambda _: server.call(lambda: len(room_of(server).story) >= ticks + 2))
        goes_on = server.call(lambda: room_of(server).story[ticks : ticks + 2])
        while Client.opened:
            Client.opened.pop().close()
    with serve(rain(10)) as server:
        due_in = server.call(lambda: server.app._rooms.core().clock(server.app.load_room(data).number))
        assert due_in is not None
        assert due_in[1] == pytest.approx(msgspec.msgpack.decode(data)["next_tick"], abs=1e-6)
        eventually(server, lambda _: server.call(lambda: len(room_of(server).story) >= 2))
        came = server.call(lambda: room_of(server).story[:2])
        assert came[0] == goes_on[0]
        assert came[1][0] == goes_on[1][0]  # the guest's drop went with its seat meanwhile
        room = server.call(lambda: room_of(server))
        assert (room.options, room.metadata, room.count, room.log) == ({"a": 1}, {"wet": True}, 42, False)
        assert server.call(room.clock.now) >= age
        # The guest can't come back; the others have their seats, and what is theirs.
        assert server.call(lambda: [seat.uid for seat in room.members]) == ["ann", "bob"]
        bob = login(server, "bob")
        eventually(server, lambda _: server.call(lambda: room.members[1].is_connected))
        assert ask(bob, "gold") == [15, "seat 3", True, 2, 3]
        assert ask(login(server, "ann"), "$join_by_id", room=room.number)["seat"] == 1
        assert ask(login(server, "dan"), "$join_by_id", room=room.number)["seat"] == 4

        def thunder() -> Any:
            (timer,) = [timer for timer in room._timers if timer._name.endswith("thunder")]
            assert 3500 < timer.left <= 3600
            timer.restart(0)

        server.call(thunder)
        eventually(server, lambda _: server.call(lambda: ["thunder", 3, 7] in room.story))
        again = server.call(lambda: server.app.load_room(server.app.save_room(room)))
        assert server.call(lambda: [seat.gold for seat in again.members]) == [5, 15, 20]
        while Client.opened:
            Client.opened.pop().close()


def test_what_cannot_be_carried_says_so(serve: Serve) -> None:
    app = rain(0)
    with serve(app) as server:
        made = server.call(lambda: asyncio.get_running_loop().create_task(app.create_room(Rain)))
        eventually(server, lambda _: server.call(lambda: made.done()))

        def check() -> None:
            room = made.result()
            data = app.save_room(room)
            for wrong in (b"", b"\x80", data[:-1], data[:40], data.replace(b"rain", b"hail")):
                with pytest.raises(GameServerError):
                    app.load_room(wrong)
            timer = room.after(5, lambda: None)
            with pytest.raises(GameServerError, match=r"timer for .*lambda.* is no method"):
                app.save_room(room)
            timer.cancel()
            task = room.task(asyncio.Event().wait())
            with pytest.raises(GameServerError, match=r"Event.wait runs still"):
                app.save_room(room)
            task.cancel()
            room._tasks.clear()
            room.metadata = {"what": object()}
            with pytest.raises(GameServerError, match="plain values"):
                app.save_room(room)
            room.dispose()
            with pytest.raises(GameServerError, match="has ended"):
                app.save_room(room)
            assert app.rooms == ()

        server.call(check)
