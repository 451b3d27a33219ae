"""The Python client against real servers: in asyncio and in a frame loop, in frames and without, over networks that are cut."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from returning import Network

from gameserver import OWNER, App, Entity, Left, MaxLen, Message, Refuse, Session, World, f32, sync, u16, u32
from gameserver.client import Client, ClientError, Netgraph
from gameserver.testing import RunningServer, running

DEADLINE = 20.0


class Add(Message):
    a: u32
    b: u32


class Sum(Message):
    sum: u32


class Said(Message):
    text: str = ""


class Steer(Message):
    x: f32


class Ship(Entity):
    x: f32 = sync(0, quantize=0.5, interpolate=True)
    y: f32 = sync(0, quantize=0.5)
    name: Annotated[str, MaxLen(8)] = ""
    hull: u16 = 10
    gold: u16 = sync(0, to=OWNER)


def game() -> App:
    app = App("client", tick_rate=100, world=World(cell=10, view=10), resume_grace=20)
    app.messages(Said)
    app.left = []  # type: ignore[attr-defined]
    app.drifting = None  # type: ignore[attr-defined]

    @app.authenticate
    def authenticate(session: Session, user: dict[str, Any]) -> None:
        if user.get("name") == "mallory":
            raise Refuse("banned", "go away")

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        app.left.append(str(why))  # type: ignore[attr-defined]

    @app.on
    def add(session: Session, msg: Add) -> Sum:
        return Sum(msg.a + msg.b)

    @app.on("twice")
    def twice(session: Session, body: bytes) -> Any:
        return json.loads(body)["x"] * 2

    @app.on
    def said(session: Session, msg: Said) -> None:
        session.push(msg)

    @app.on("never")
    async def never() -> None:
        await asyncio.Event().wait()

    @app.on("kick")
    def kick(session: Session) -> None:
        session.kick("enough")

    @app.on("launch")
    def launch(session: Session) -> int:
        app.world.spawn(Ship, x=3, y=3)
        app.world.spawn(Ship, x=500, y=500)
        return app.world.spawn(Ship, owner=session, x=1, y=1, gold=7).id

    @app.on
    def steer(me: Ship, msg: Steer) -> None:
        me.x += msg.x

    @app.on("drift")
    def drift(session: Session) -> int:
        app.drifting = app.world.spawn(Ship, x=2, y=2, name="drifter")  # type: ignore[attr-defined]
        return app.drifting.id  # type: ignore[attr-defined,no-any-return]

    @app.tick
    def move(dt: float) -> None:
        if (ship := app.drifting) is not None:  # type: ignore[attr-defined]
            ship.x += 0.5
            ship.hull += 1

    @app.on("sink")
    def sink(me: Ship) -> None:
        me.despawn()

    return app


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running(game()) as server:
        yield server


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def pumped(client: Client, until: Callable[[], Any]) -> Any:
    """Frames until it is true."""
    by = time.monotonic() + DEADLINE
    while not (found := until()):
        assert time.monotonic() < by
        client.pump()
    return found


async def true(client: Client, holds: Callable[[], Any]) -> Any:
    """Waits for snapshots until it is."""
    while not (found := holds()):  # noqa: ASYNC110 - snapshots are what the loop brings
        await asyncio.sleep(0)
    return found


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
@pytest.mark.parametrize("serializer", ["json", "protobuf"])
def test_messages_both_ways(server: RunningServer, scheme: str, serializer: str) -> None:
    async def main() -> None:
        url = f"{scheme}://127.0.0.1:{server.port}"
        async with await Client.connect(url, messages=[Add, Sum, Said], serializer=serializer) as client:
            assert await client.request(Add(2, 3)) == Sum(5)
            assert await client.request("Add", {"a": 1, "b": 1}) == Sum(2)
            assert await client.request("twice", {"x": "ab"}) == "abab"
            assert await client.request("twice", b'{"x":2}') == b"4"
            said: asyncio.Queue[Any] = asyncio.Queue()

            @client.on(Said)
            async def heard(body: Said) -> None:
                await said.put(body)

            assert client.notify(Said("hello"))
            assert await said.get() == Said("hello")
            with pytest.raises(ClientError, match="GS-404"):
                await client.request("nothing")
            with pytest.raises(ClientError, match="timeout"):
                await client.request("never", timeout=0.05)
            refused: asyncio.Queue[Any] = asyncio.Queue()
            client.on("$error", refused.put_nowait)
            client.notify("nothing")
            assert (await refused.get()).code == "GS-404"
            assert client.session is not None
        assert client.state == "closed"

    run(main)


def test_plain_json_without_any_class(server: RunningServer) -> None:
    async def main() -> None:
        async with await Client.connect(f"tcp://127.0.0.1:{server.port}") as client:
            assert await client.request("Add", {"a": 2, "b": 2}) == {"sum": 4}
            with pytest.raises(ClientError, match="GS-400"):
                await client.request("Add", {"a": "x"})
            with pytest.raises(TypeError):
                client.request("Add", {"a": object()})

    run(main)


def test_protobuf_without_the_class_says_what_is_missing(server: RunningServer) -> None:
    async def main() -> None:
        async with await Client.connect(f"ws://127.0.0.1:{server.port}", messages=[Add]) as client:
            with pytest.raises(ClientError, match=r"Add carries a Sum: give its class"):
                await client.request(Add(1, 1))
            assert await client.request(Add(1, 1), raw=True) == Sum(2).encode()

    run(main)


def test_refused_unreachable_and_wrong(server: RunningServer) -> None:
    async def main() -> None:
        url = f"ws://127.0.0.1:{server.port}"
        with pytest.raises(ClientError) as refused:
            await Client.connect(url, user={"name": "mallory"})
        assert (refused.value.code, refused.value.msg) == ("banned", "go away")
        with pytest.raises(ClientError, match="unreachable"):
            await Client.connect("ws://127.0.0.1:1")
        with pytest.raises(ClientError, match="unreachable"):
            await Client.connect(f"ws://127.0.0.1:{server.port}", user=lambda: 1 / 0)
        with pytest.raises(ValueError, match="serializer"):
            await Client.connect(url, serializer="xml")
        with pytest.raises(TypeError):
            await Client.connect(url, tiemout=5)

        async def user() -> dict[str, str]:
            return {"name": "Ann"}

        async with await Client.connect(url, user=user) as client:
            with pytest.raises(TypeError, match=r"Client\.open"):
                client.pump()

    run(main)


def test_a_kick_is_told_and_ends_it(server: RunningServer) -> None:
    async def main() -> None:
        client = await Client.connect(f"ws://127.0.0.1:{server.port}")
        kicked, over = asyncio.Event(), asyncio.Event()
        client.on_kick(lambda reason: kicked.set() if reason == "enough" else None)
        client.on_disconnect(lambda error, retry_in: over.set() if retry_in is None else None)
        client.notify("kick")
        asked = client.request("never")
        with pytest.raises(ClientError, match="kicked"):
            await asked
        await kicked.wait()
        await over.wait()
        assert client.state == "closed"

    run(main)


def test_a_listener_may_close_its_client(server: RunningServer) -> None:
    async def main() -> None:
        client = await Client.connect(f"ws://127.0.0.1:{server.port}")
        over = asyncio.Event()

        async def kicked(reason: str) -> None:
            await client.aclose()
            over.set()

        client.on_kick(kicked)
        client.notify("kick")
        await over.wait()

    run(main)


@pytest.mark.parametrize("scheme", ["wss", "tls", "ws", "tcp"])
def test_what_was_said_before_the_end_arrives_and_no_socket_is_left(
    certificate: tuple[Path, Path], scheme: str
) -> None:
    cert, key = certificate
    app, heard, all_heard = game(), list[int](), threading.Event()

    @app.on("long")
    def long(session: Session, body: bytes) -> None:
        heard.append(len(body))
        if len(heard) == 300:
            all_heard.set()

    context = ssl.create_default_context(cafile=cert) if scheme in ("wss", "tls") else None
    secured: dict[str, Any] = {"tls_cert": cert, "tls_key": key} if context else {}
    with running(app, **secured) as server:

        async def main() -> None:
            client = await Client.connect(f"{scheme}://localhost:{server.port}", tls=context)
            for _ in range(300):  # more than the system's buffers hold
                client.notify("long", b"x" * 60_000)
            await client.aclose()

        run(main)
        gc.collect()  # a socket that is open would warn, which fails the test
        assert all_heard.wait(DEADLINE)
        assert sum(heard) == 300 * 60_000


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_a_cut_session_goes_on_and_nothing_is_lost(server: RunningServer, scheme: str) -> None:
    async def main() -> None:
        with Network(server.port) as network:
            client = await Client.connect(f"{scheme}://127.0.0.1:{network.port}", delay=0.01)
            resumed, got = asyncio.Queue[None](), list[Any]()
            client.on_resume(lambda: resumed.put_nowait(None))
            client.on("Said", lambda body: got.append(body["text"]))
            asked = []
            for number in range(60):
                asked.append(client.request("twice", {"x": number}))
                client.notify("Said", {"text": str(number)})
                if number % 20 == 10:
                    network.cut()
                    await resumed.get()
            assert await asyncio.gather(*asked) == [2 * number for number in range(60)]
            assert await client.request("twice", {"x": 0}) == 0
            assert got == [str(number) for number in range(60)]
            assert client.is_resumed
            await client.aclose()
            assert await true(client, lambda: server.app.left) == ["left"]  # type: ignore[attr-defined]

    run(main)


def test_the_world(server: RunningServer) -> None:
    async def main() -> None:
        with Network(server.port) as network:
            client = await Client.connect(f"ws://127.0.0.1:{network.port}", world=True, delay=0.01)
            world = client.world
            assert world is not None
            story: list[tuple[str, int]] = []
            world.on_add(Ship, lambda ship: story.append(("add", ship.id)))
            world.on_change("Ship", lambda ship: story.append(("change", ship.id)))
            world.on_remove("Ship", lambda ship: story.append(("remove", ship.id)))
            id = await client.request("launch")
            await true(client, lambda: world.mine(Ship))
            mine = world.mine("Ship")
            assert (mine.id, mine.x, mine.hull, mine.gold) == (id, 1.0, 10, 7)
            assert mine.is_in_view
            assert len(world.entities[Ship]) == 2
            other = next(ship for ship in world.entities["Ship"].values() if ship is not mine)
            assert other.gold is None
            with pytest.raises(AttributeError, match="no column 'hul'"):
                _ = mine.hul
            client.input(Steer(2))
            await true(client, lambda: mine.x == 3)
            assert ("change", id) in story
            # Cut, and back: the same objects, which say what they said until there is news; what happened meanwhile is told.
            resumed = asyncio.Event()

            @client.on_resume
            def back() -> None:
                assert mine.x == 3
                resumed.set()

            story.clear()
            network.cut()
            await resumed.wait()
            client.input(Steer(1))
            await true(client, lambda: mine.x == 4)
            assert world.mine(Ship) is mine
            assert {verb for verb, _ in story} == {"change"}
            client.notify("sink")
            await true(client, lambda: ("remove", id) in story)
            assert world.mine(Ship) is None
            await client.aclose()

    run(main)


def test_who_listens_late_is_told_of_those_that_are_in_view(server: RunningServer) -> None:
    async def main() -> None:
        async with await Client.connect(f"ws://127.0.0.1:{server.port}", world=True) as client:
            world = client.world
            assert world is not None
            id = await client.request("launch")
            await true(client, lambda: world.mine(Ship))
            there = sorted(world.entities[Ship])
            assert id in there
            told: list[int] = []

            @world.on_add(Ship)
            async def added(ship: Any) -> None:
                told.append(ship.id)

            await true(client, lambda: sorted(told) == there)

    run(main)


def test_what_is_drawn_moves_between_snapshots(server: RunningServer) -> None:
    with Network(server.port) as network:
        client = Client.open(f"ws://127.0.0.1:{network.port}", world=True, delay=0.01)
        world = client.world
        assert world is not None
        assert world.server_tick() == 0
        assert dict(world.sample()) == {"Ship": []}
        launched, drifts = client.request("launch"), client.request("drift")
        pumped(client, lambda: drifts.done() and world.sample()[Ship])
        id = drifts.result()
        path: list[tuple[float, float]] = []
        resumed: list[bool] = []
        client.on_resume(lambda: resumed.append(True))

        def frame() -> bool:
            ship = next((ship for ship in world.sample()[Ship] if ship.id == id), None)
            if ship is not None:
                path.append((ship.x, world.entities[Ship][id].x))
                assert (ship.name, ship.y, ship.gold) == ("drifter", 2.0, None)
                assert ship.hull == world.entities[Ship][id].hull
            return ship is not None and ship.x > 4

        pumped(client, frame)
        told = world.bytes["Ship"]
        network.cut()
        pumped(client, lambda: frame() and bool(resumed) and path[-1][0] > 6)
        drawn = [x for x, _ in path]
        assert drawn == sorted(drawn)  # never back, the cut included
        assert world.bytes["Ship"] > told
        assert any(x % 0.5 for x in drawn)  # between what snapshots say
        assert all(x <= newest for x, newest in path)
        with pytest.raises(AttributeError, match=r"no column 'speed'.*it has id, .*name"):
            _ = next(iter(world.sample()[Ship])).speed
        assert world.timing.delay > 0.01
        assert world.server_tick() > world.tick - 1
        assert launched.result() in {ship.id for ship in world.sample()["Ship"]}
        client.close()


def test_the_netgraphs_figures(server: RunningServer) -> None:
    client = Client.open(f"tcp://127.0.0.1:{server.port}", world=True)
    netgraph = Netgraph(client)
    assert netgraph.lines() == []
    world = client.world
    assert world is not None
    client.request("drift")
    client.request("launch")

    def reading() -> Any:
        netgraph.update()
        newest = netgraph.readings[-1]
        return newest if newest.rtt and newest.tables.get("Ship") and newest.bytes_out else None

    newest = pumped(client, reading)
    assert newest.bytes_in > newest.tables["Ship"] > 0
    traffic = client.traffic
    assert sum(world.bytes.values()) < traffic.bytes_in
    assert traffic.messages_out >= 3  # two of ours, and a ping
    assert traffic.messages_in > traffic.messages_out
    lines = netgraph.lines()
    assert lines[0].startswith("rtt ")
    assert lines[0].endswith("open")
    assert any(line.startswith("Ship ") for line in lines)
    client.close()
    netgraph.update()
    assert client.traffic.bytes_out > traffic.bytes_out


def test_in_a_frame_loop_of_a_program_with_many_files(server: RunningServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as files:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        while files.enter_context(open(os.devnull)).fileno() < 1024:  # as many as `select` knows
            pass
        with Client.open(f"ws://127.0.0.1:{server.port}", messages=[Add, Sum]) as client:
            asked = client.request(Add(20, 22))
            assert pumped(client, asked.done)
            assert asked.result() == Sum(42)


def test_in_a_frame_loop(server: RunningServer) -> None:
    with Network(server.port) as network:
        client = Client.open(f"ws://127.0.0.1:{network.port}", world=True, messages=[Add, Sum], delay=0.01)
        asked = client.request(Add(20, 22))
        assert not asked.done()
        assert pumped(client, asked.done)
        assert asked.result() == Sum(42)
        client.request("launch")
        world = client.world
        assert world is not None
        mine = pumped(client, lambda: world.mine("Ship"))
        resumed: list[bool] = []
        client.on_resume(lambda: resumed.append(True))
        network.cut()
        pumped(client, lambda: resumed)
        client.input(Steer(5))
        pumped(client, lambda: mine.x == 6)
        failed = client.request("nothing")
        pumped(client, failed.done)
        with pytest.raises(ClientError, match="GS-404"):
            failed.result()
        client.close()
        assert client.state == "closed"
    with pytest.raises(ClientError, match="unreachable"):
        Client.open("tcp://127.0.0.1:1")


@pytest.mark.parametrize("scheme", ["wss", "tls"])
def test_secured(certificate: tuple[Path, Path], scheme: str) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    with running(game(), tls_cert=cert, tls_key=key) as server:

        async def main() -> None:
            async with await Client.connect(f"{scheme}://localhost:{server.port}", tls=context) as client:
                assert await client.request("twice", {"x": 4}) == 8

        run(main)
        with Client.open(f"{scheme}://localhost:{server.port}", tls=context) as client:
            asked = client.request("twice", {"x": 5})
            pumped(client, asked.done)
            assert asked.result() == 10
