"""A server that drains: who stays until the end of the match, who is sent away, and who is turned away."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request

from conftest import Serve, eventually
from wire_client import KICK, Client, connected

from gameserver import App, Member, Room, Session, on
from gameserver.client import Client as RemoteClient
from gameserver.testing import RunningServer

GS = b'{"sys":{"gs":{"serializer":"json","resume":{}}},"user":{}}'


def game(**options: object) -> App:
    app = App("draining", **{"drain_grace": 30.0, **options})  # type: ignore[arg-type]

    @app.room("match")
    class Match(Room[Member]):
        def on_drain(self, seconds: float) -> None:
            self.push("last round", {"seconds": seconds})

        @on("finish")
        def finish(self, seat: Member, body: bytes) -> None:
            self.dispose()

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    return app


def knows(server: RunningServer) -> Client:
    client = Client(server.port)
    client.handshake(GS)
    return client


def health(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_match_is_played_to_its_end(serve: Serve) -> None:
    app = game(resume_grace=10.0)
    told = threading.Event()

    @app.on_drain
    async def drain() -> None:
        await asyncio.sleep(0)
        told.set()

    with serve(app) as server:
        player, idle, old = knows(server), knows(server), connected(server.port)
        number = json.loads(player.request("$join_or_create", b'{"name":"match"}').body)["room"]
        assert health(server.port) == 200
        server.call(app.drain)
        assert told.wait(10)
        # Who plays is told by the room, and sent away when the match is over; who does not, at once.
        assert player.push().route == f"last round@{number}"
        delay = json.loads(idle.push("$reconnect").body)["delay"]
        assert 0 <= delay <= 10
        assert health(server.port) == 503
        refused = Client(server.port).handshake(GS)
        assert (refused["code"], refused["user"]["code"]) == (500, "GS-503")
        assert json.loads(player.request("$create", b'{"name":"match"}').body)["code"] == "GS-503"
        assert old.request("$join_by_id", json.dumps({"room": number}).encode()).error
        idle.close()
        assert player.request("echo", b"!").body == b"!"
        player.request(f"finish@{number}")
        assert player.push("$reconnect").route == "$reconnect"
        player.close()
        # One that knows nothing of it stays until it goes by itself.
        assert old.request("echo", b"!").body == b"!"
        old.close()
    assert server.final_stats["sessions"] == 0


def test_the_grace_ends_and_the_rest_is_kicked(serve: Serve) -> None:
    app = game(drain_grace=0.3)
    with serve(app) as server:
        client = knows(server)
        server.call(app.drain)
        client.push("$reconnect")
        packets = client.until_closed()
        assert [body for kind, body in packets if kind == KICK] == [b'{"reason":"shutdown"}']


def test_who_is_dropped_meanwhile_may_come_back(serve: Serve) -> None:
    app = game(resume_grace=20.0)
    with serve(app) as server:
        client = knows(server)
        token = client.hello["sys"]["gs"]["resume"]["token"]
        client.request("$join_or_create", b'{"name":"match"}')
        server.call(app.drain)
        client.push()
        client.reset()
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        back = Client(server.port)
        resume = {"sys": {"gs": {"serializer": "json", "resume": {"token": token, "seen": 2}}}, "user": {}}
        assert back.handshake(json.dumps(resume).encode())["code"] == 200
        assert back.request("echo", b"!").body == b"!"
        server.call(app.drain)  # again: at once
        back.until_closed()


def test_our_client_connects_anew(serve: Serve) -> None:
    """The server that it is sent to is the next one on the same port."""

    async def play(port: int, drain: threading.Event, again: threading.Event) -> list[str]:
        story: list[str] = []
        client = await RemoteClient.connect(f"tcp://127.0.0.1:{port}", delay=0.05, delay_max=0.2)
        client.on_drain(lambda delay: story.append("drain"))
        back = asyncio.Event()

        @client.on_reconnect
        def reconnected() -> None:
            story.append("reconnect")
            back.set()

        assert await client.request("echo", b"x", raw=True) == b"x"
        drain.set()
        await asyncio.wait_for(back.wait(), 20)
        assert await client.request("echo", b"y", raw=True) == b"y"
        again.set()
        await client.aclose()
        return story

    drain, again = threading.Event(), threading.Event()
    story: list[str] = []
    app = game(drain_grace=1.0)
    with serve(app) as first:
        port = first.port
        player = threading.Thread(target=lambda: story.extend(asyncio.run(play(port, drain, again))))
        player.start()
        assert drain.wait(10)
        first.call(app.drain)
    with serve(game(), port=port):
        assert again.wait(20)
        player.join(10)
    assert story == ["drain", "reconnect"]
