"""Rooms in the browser's client, in Chromium."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from chromium import TIMEOUT, chromium
from conftest import Serve, eventually
from playwright.sync_api import Browser, Page
from returning import Network

from gameserver import OWNER, App, Entity, Member, Message, Room, f32, on, sync, u8, u16


class Hello(Message):
    """Pushed before joining is answered."""

    text: str


class Wave(Message):
    """To all in the room."""

    times: u8


class Seat(Member):
    secret: u16 = sync(0, to=OWNER)
    points: u16 = sync(3)


class Ball(Entity):
    x: f32 = sync(0, quantize=0.5)
    y: f32 = sync(0, quantize=0.5)


class Pitch(Room[Seat]):
    goals: u16 = sync(0)

    def on_create(self, options: dict[str, Any]) -> None:
        self.metadata = {"place": options.get("place", "")}

    def on_join(self, seat: Seat) -> None:
        seat.secret = 40 + seat.number
        seat.push(Hello("welcome"))
        self.world.spawn(Ball, owner=seat.session, x=seat.number)

    @on
    def wave(self, seat: Seat, msg: Wave) -> Wave:
        self.push(msg, skip=seat)
        self.goals += msg.times
        return Wave(msg.times + 1)

    @on("kick")
    def kick(self, me: Ball) -> float:
        me.x += 10
        return me.x

    @on("throw")
    def throw(self, seat: Seat) -> None:
        seat.kick()


def game(tick_rate: int) -> App:
    app = App("pitch", resume_grace=0.2)
    app.messages(Hello)

    @app.authenticate
    def authenticate(user: dict[str, Any]) -> str:
        return str(user["name"])

    app.room("pitch", max_members=3, grace=30, entities=(Ball,), tick_rate=tick_rate)(Pitch)
    return app


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


class Person:
    """A page whose client is `globalThis.client`."""

    def __init__(self, browser: Browser, port: int, name: str) -> None:
        self.page: Page = browser.new_context().new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.goto(f"http://127.0.0.1:{port}/gameserver.js")
        self.run(
            """async (name) => {
                const { connect } = await import('/gameserver.js');
                globalThis.told = [];
                globalThis.client = await connect('/', { world: true, user: { name } });
            }""",
            name,
        )

    def run(self, script: str, argument: Any = None) -> Any:
        return self.page.evaluate(script, argument)

    def until(self, holds: str) -> None:
        self.page.wait_for_function(f"() => !!({holds})")

    def join(self, call: str) -> int:
        """Joins; hears nothing of what came before, were it not kept."""
        number = self.run(
            f"""async () => {{
                globalThis.room = await client.{call};
                await new Promise((done) => setTimeout(done, 50));
                for (const route of ['Hello', 'Wave']) room.on(route, (body) => told.push([route, body.text ?? body.times]));
                room.onLeave((why) => told.push(['left', why]));
                return room.number;
            }}"""
        )
        return int(number)


@pytest.mark.parametrize("tick_rate", [0, 50])
def test_rooms_in_the_browser(browser: Browser, serve: Serve, tick_rate: int) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(game(tick_rate)))
        network = stack.enter_context(Network(server.port))
        ann, bob = Person(browser, server.port, "ann"), Person(browser, network.port, "bob")
        number = ann.join("joinOrCreate('pitch', { place: 'home' })")
        assert bob.join("join('pitch')") == number
        bob.until("told.length === 1")
        assert bob.run("told") == [["Hello", "welcome"]]
        # Messages are the room's, and the schema's.
        assert ann.run("room.request('Wave', { times: 2 })")["times"] == 3
        bob.until("told.length === 2")
        assert bob.run("told[1]") == ["Wave", 2]
        # Fields of room and members, and what lives there.
        bob.until(
            "room.state?.goals === 2 && room.members.length === 2 && room.members.every((one) => one.points === 3)"
        )
        assert bob.run("room.members.map((one) => one.secret)") == [None, 42]
        bob.until("room.world.mine('Ball')?.x === 2 && room.world.entities.Ball.size === 2")
        assert bob.run("room.request('kick')") == 12
        bob.until("room.world.mine('Ball').x === 12")
        assert ann.run("client.world.entities.Ball.size") == 0  # of the app's own world
        listed = ann.run("client.rooms({ name: 'pitch', filter: { place: 'home' } })")
        assert [(room["room"], room["members"]) for room in listed] == [(number, 2)]
        assert ann.run("client.joinOrCreate('nowhere').catch((error) => error.code)") == "no-room"
        # The connection is lost for longer than sessions are kept: the seat is the same person's still.
        before = bob.run("client.session")
        network.is_down = True
        network.cut()
        eventually(server, lambda _: server.call(lambda: server.app.user("bob").session is None))
        assert server.call(lambda: [seat.is_connected for seat in server.app.rooms[0].members]) == [True, False]
        network.is_down = False
        bob.until(
            f"client.state === 'open' && client.session !== '{before}' && room.left === '' && room.state?.goals === 2"
        )
        eventually(
            server, lambda _: server.call(lambda: all(seat.is_connected for seat in server.app.rooms[0].members))
        )
        assert bob.run("room.request('kick')") == 22
        bob.run("room.notify('throw')")
        bob.until("room.left === 'kicked'")
        assert bob.run("told.at(-1)") == ["left", "kicked"]
        ann.run("room.leave()")
        assert ann.run("[room.left, told.at(-1)]") == ["left", ["left", "left"]]
        eventually(server, lambda _: server.call(lambda: not server.app.rooms))
