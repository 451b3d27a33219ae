"""The swarm against real servers: what it sends, what it counts, and what it says of servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gameserver import (
    App,
    Entity,
    MaxLen,
    Member,
    Message,
    Range,
    Refuse,
    Room,
    Session,
    World,
    f32,
    f64,
    i64,
    on,
    u8,
    u16,
)
from gameserver.client import ClientError
from gameserver.errors import ConfigError, GameServerError
from gameserver.swarm import Bot, Scenario, ask, between, changes, churn, hold, letters, one_of, play, ramp, storm, tell
from gameserver.swarm._page import page
from gameserver.swarm._show import LiveView
from gameserver.swarm._thresholds import Threshold
from gameserver.swarm._units import pace, per_second, seconds
from gameserver.swarm._values import random_message
from gameserver.testing import RunningServer, running

ROOT = Path(__file__).resolve().parents[1]


class Team(enum.Enum):
    RED = 0
    BLUE = 7


class Spot(Message):
    x: Annotated[f32, Range(-1, 1)]
    y: Annotated[f64, Range(5, None)] = 5.0


class Odd(Message):
    """A little of everything that has bounds."""

    small: u8
    spots: list[Spot]
    by_name: dict[str, Spot]
    signed: Annotated[i64, Range(None, -3)] = -3
    name: Annotated[str, MaxLen(3)] = ""
    team: Team = Team.RED
    next: Odd | None = None


class Move(Message):
    x: f32
    y: f32


class Moved(Message):
    x: f32


class Ship(Entity):
    x: f32 = 0
    y: f32 = 0
    hull: u16 = 10


def game(echoed: threading.Event | None = None) -> tuple[App, Counter[str]]:
    echoed = echoed or threading.Event()
    app, heard = App("swarmed", tick_rate=50, world=World(cell=10, view=10)), Counter[str]()

    @app.authenticate
    def authenticate(session: Session, user: dict[str, Any]) -> None:
        heard[f"user {user.get('name')}"] += 1
        if user.get("name") == "mallory":
            raise Refuse("banned", "go away")

    @app.on_join
    def join(session: Session) -> None:
        app.world.spawn(Ship, owner=session, x=1, y=1)
        app.world.follow(session)

    @app.tick
    def sway(dt: float) -> None:
        app.world.columns(Ship).x += 1

    @app.on
    def move(session: Session, msg: Move) -> Moved:
        heard["Move"] += 1
        return Moved(msg.x)

    @app.on
    def odd(session: Session, msg: Odd) -> None:
        heard["Odd"] += 1

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        heard["echo"] += 1
        if heard["echo"] == 100:
            echoed.set()
        return body

    @app.on("news")
    def news(session: Session, body: bytes) -> None:
        session.push("news@7", b"12345")

    @app.on("never")
    async def never() -> None:
        await asyncio.Event().wait()

    @app.on("kick")
    def kick(session: Session) -> None:
        session.kick("enough")

    @app.on("stall")
    def stall(session: Session, body: bytes) -> None:
        if heard["stalled"] == 0:
            heard["stalled"] += 1
            time.sleep(0.4)

    return app, heard


@pytest.fixture
def server() -> Iterator[RunningServer]:
    echoed = threading.Event()
    app, heard = game(echoed)
    with running(app) as server:
        server.heard, server.echoed = heard, echoed  # type: ignore[attr-defined]
        yield server


def against(server: RunningServer, actions: Any, phases: Any, scheme: str = "ws", **more: Any) -> dict[str, Any]:
    return play(Scenario(actions, phases, url=f"{scheme}://127.0.0.1:{server.port}", **more))


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
@pytest.mark.parametrize("serializer", ["protobuf", "json"])
@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_sent_is_heard_and_answered(server: RunningServer, scheme: str, serializer: Any, threads: int) -> None:
    actions = [ask(Move, weight=3), ask(Odd), tell("echo", body=b"abc", weight=2)]
    phases = [ramp(20, 0.2, counts=True), hold(0.5)]
    result = against(server, actions, phases, scheme, pace="40/s", serializer=serializer, threads=threads)
    total, heard = result["total"], server.heard  # type: ignore[attr-defined]
    by_route = {action["route"]: action for action in total["actions"]}
    assert {route: action["sent"] for route, action in by_route.items()} == {name: heard[name] for name in by_route}
    assert by_route["Move"]["answered"] == by_route["Move"]["sent"] > 0
    assert by_route["Odd"]["latency"]["count"] == by_route["Odd"]["sent"] > 0
    assert by_route["echo"]["answered"] == 0 < by_route["echo"]["bytes"] == 3 * by_route["echo"]["sent"]
    assert by_route["Move"]["sent"] > by_route["echo"]["sent"] > by_route["Odd"]["sent"]
    assert (total["opened"], total["begun"], total["ended"], total["errors"]) == (20, 20, {}, {})
    assert (total["timed_out"], total["lost"], total["error_share"]) == (0, 0, 0)
    assert total["latency"]["count"] == total["answered"]
    assert sum(second["sent"] for second in result["series"]) == total["sent"]
    assert {name: count for name, count in heard.items() if name.startswith("user")} == {
        f"user bot-{n}": 1 for n in range(20)
    }
    assert not result["thresholds"]


def test_an_open_loop_sends_what_is_due_whatever_the_server_does(server: RunningServer) -> None:
    """While the server stalls, requests go on to become due, and each counts from then."""
    result = against(server, [ask("stall")], [hold(1.2, clients=20)], pace="50/s")
    total = result["total"]
    due = 20 * 50 * 1.2
    assert 0.4 * due < total["sent"] <= due + 20  # from when each was let in
    assert total["answered"] == total["sent"]
    # All that were due in the first 0.3 of its 0.4 s waited at least 0.1 s: a quarter of them all.
    curve = result["total"]["curve"]
    assert next(value for share, value in curve if share >= 0.85) > 0.1
    assert total["latency"]["max"] >= 0.35


def test_what_became_due_while_the_swarm_was_stopped_is_sent_and_charged(server: RunningServer, tmp_path: Path) -> None:
    """Whoever was late, the players would have waited: a tool that left out what it missed would say that all was well."""
    kept = tmp_path / "result.json"
    (tmp_path / "load.py").write_text(
        "from gameserver.swarm import *\n"
        "scenario = Scenario([ask('echo', body=b'x')], [hold(1.5, clients=10)], pace='50/s', "
        f"url='tcp://127.0.0.1:{server.port}')\n"
    )
    command = [sys.executable, "-m", "gameserver", "swarm", str(tmp_path / "load.py"), "--json", str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as swarm:
        assert server.echoed.wait(30)  # type: ignore[attr-defined]
        swarm.send_signal(signal.SIGSTOP)
        time.sleep(0.5)  # that long it is stopped
        swarm.send_signal(signal.SIGCONT)
        said, _ = swarm.communicate(timeout=60)
    total = json.loads(kept.read_text())["total"]
    assert total["sent"] == total["answered"] == total["lateness"]["count"]
    # A quarter of all was due while it was stopped, and is more than 0.1 s late.
    assert total["lateness"]["p90"] > 0.1
    assert total["latency"]["p90"] > 0.1
    assert swarm.returncode == 1
    assert "INVALID: the swarm itself was late" in said


def test_a_closed_loop_has_so_many_under_way(server: RunningServer) -> None:
    result = against(server, [ask("never")], [hold(0.3, clients=3)], pace="depth 4", timeout=0.4)
    assert result["total"]["sent"] == result["total"]["timed_out"] == 12
    result = against(server, [ask("echo", body=b"x")], [hold(0.3, clients=3)], pace="depth 4")
    assert result["total"]["sent"] == result["total"]["answered"] > 100
    assert result["total"]["lateness"]["count"] == 0


def test_errors_and_pushes_are_counted_by_name(server: RunningServer) -> None:
    actions = [ask("nobody"), ask(Odd, spots=[], weight=0.01), ask("news")]
    total = against(server, actions, [hold(0.4, clients=5)], pace="50/s", serializer="json")["total"]
    asked = {action["route"]: action["sent"] for action in total["actions"]}
    assert total["errors"] == {"GS-404": asked["nobody"]}
    assert total["failed"] == asked["nobody"]
    assert total["error_share"] == pytest.approx(asked["nobody"] / total["answered"])
    assert total["pushes"]["news"] == (asked["news"], 5 * asked["news"])


def test_snapshots_are_counted_and_what_lies_between(server: RunningServer) -> None:
    total = against(server, [], [hold(1.0, clients=4)], pace="nothing", world=True)["total"]
    assert total["snapshots"] == total["pushes"]["$w"][0] >= 4
    assert total["snapshot_gaps"]["count"] == total["snapshots"] - 4
    assert total["sent"] == 0
    assert against(server, [], [hold(0.3, clients=4)], pace="nothing")["total"]["snapshots"] == 0


def test_snapshots_are_decoded(server: RunningServer) -> None:
    total = against(server, [], [hold(1.0, clients=4)], pace="nothing", world="decode")["total"]
    assert total["decoded"] == total["snapshots"] > 4
    assert 1 <= total["entities_each"] <= 5  # ships on one spot, as many as have come
    assert total["ended"] == {}


class Card(Message):
    rank: u8


class Table(Room[Member]):
    @on
    def card(self, seat: Member, msg: Card) -> Card:
        return Card(msg.rank)


def test_clients_take_seats_and_speak_to_their_room() -> None:
    app = App("seated")
    rooms: Counter[int] = Counter()

    class Counted(Table):
        async def on_join(self, seat: Member) -> None:
            rooms[self.number] += 1

    app.room("table", max_members=4)(Counted)
    with running(app) as server:
        total = against(server, [ask(Card)], [hold(0.5, clients=10)], pace="30/s", room="table")["total"]
        assert sorted(rooms.values()) == [2, 4, 4]
        assert total["joining"]["count"] == 10
        assert (total["errors"], total["ended"]) == ({}, {})
        assert total["answered"] == total["sent"] > 10
        total = against(server, [ask(Card)], [hold(0.2, clients=2)], room="nothing")["total"]
        assert list(total["ended"].values()) == [2]
        assert next(iter(total["ended"])).startswith("no room: ")


def test_bots_have_minds_of_their_own(server: RunningServer) -> None:
    async def mind(bot: Bot) -> None:
        assert await bot.ask("Move", {"x": 2, "y": 0}) == {"x": 2}
        with contextlib.suppress(ClientError):
            await bot.ask("nobody", {})

    async def clumsy(bot: Bot) -> None:
        await bot.ask("Move", {"x": 1, "y": 0})
        raise ZeroDivisionError

    result = against(server, [ask("echo")], [hold(0.6, clients=2)], bots={mind: 3, clumsy: 1}, pace="10/s")
    bots, heard = result["bots"], server.heard  # type: ignore[attr-defined]
    assert bots["count"] == 4
    assert 0 <= heard["Move"] - bots["answered"] <= 4, "what was under way at the end"
    assert bots["answered"] > 10
    assert bots["latency"]["count"] == bots["answered"]
    assert set(bots["errors"]) == {"GS-404", "ZeroDivisionError"}
    assert (bots["errors"]["ZeroDivisionError"], "clumsy" in bots["traceback"]) == (1, True)
    assert result["total"]["opened"] == 2
    alone = play(Scenario([], [hold(0.3)], bots={mind: 1}, pace="nothing", url=f"tcp://127.0.0.1:{server.port}"))
    assert alone["bots"]["answered"] > 1
    assert "1 bots of Python" in page(alone)


def test_clients_come_and_go(server: RunningServer) -> None:
    result = against(
        server,
        [ask("echo")],
        [ramp(10, 0.1, counts=True), churn(40, 0.5), storm(0.5), ramp(0, 0.2, counts=True)],
        pace="20/s",
    )
    total = result["total"]
    assert 20 + 5 <= total["opened"] <= 20 + 25
    assert total["ended"] == {}, "we have ended them"
    assert total["lost"] == total["timed_out"] == 0
    assert max(second["clients"] for second in result["series"]) <= 10
    assert server.stats()["connections"]["accepted"] == total["begun"] >= total["opened"]


def test_who_is_refused_or_kicked_is_told_by_name(server: RunningServer) -> None:
    result = against(server, [ask("echo")], [hold(0.3, clients=3)], user={"name": "mallory"})
    assert result["total"]["ended"] == {"refused: 500 banned": 3}
    assert result["invalid"] == ["no client was let in: refused: 500 banned"]
    result = against(server, [ask("kick")], [hold(0.4, clients=3)], pace="50/s")
    assert result["total"]["ended"] == {"kicked: enough": 3}
    assert result["total"]["lost"] >= 3


def test_secured(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    app, heard = game()
    with running(app, tls_cert=cert, tls_key=key) as server:
        for scheme in ("wss", "tls"):
            heard.clear()
            url = f"{scheme}://localhost:{server.port}"
            result = play(
                Scenario([ask("echo", body=b"x")], [hold(0.3, clients=5)], pace="20/s", url=url), ca=str(cert)
            )
            assert result["total"]["answered"] == heard["echo"] > 0
    with pytest.raises(OSError, match="nowhere"):
        play(Scenario([], [hold(0.1, clients=1)], pace="nothing", url="wss://localhost:1"), ca="/nowhere.pem")


def test_a_page(server: RunningServer, tmp_path: Path) -> None:
    page = Scenario([], [hold(0.4, clients=7)], pace="depth 1", url=f"http://127.0.0.1:{server.port}/healthz")
    total = play(page)["total"]
    assert (total["opened"], total["ended"], total["errors"]) == (7, {}, {})
    assert 0 <= total["sent"] - total["answered"] <= 7
    assert total["answered"] == total["latency"]["count"] > 100
    total = play(replace(page, url=f"http://127.0.0.1:{server.port}/nowhere"))["total"]
    assert total["errors"] == {"404": total["answered"]} != {}
    app = App("long", static=tmp_path)
    (tmp_path / "long.txt").write_bytes(b"x" * 300_000)
    with running(app) as long:
        total = play(replace(page, url=f"http://127.0.0.1:{long.port}/long.txt", threads=2))["total"]
        assert total["answered"] > 10
        assert total["bytes_in"] >= 300_000 * total["answered"]
        assert (total["errors"], total["ended"]) == ({}, {})


# -- servers that misbehave -------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        result = play(Scenario([ask("a")], [hold(0.2, clients=3)], url=f"tcp://127.0.0.1:{free.getsockname()[1]}"))
    assert result["total"]["opened"] == 0
    assert set(result["total"]["ended"]) == {"not let in: reset"}
    assert result["invalid"]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"220 mail.example ESMTP\r\n", "not let in: packet-type"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "not let in: "),
        (b"", "not let in: handshake-timeout"),
    ],
)
@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_a_server_that_speaks_something_else(said: bytes, why: str, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held = []

        def serve() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                held.append(raw)
                raw.sendall(said)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        result = play(Scenario([ask("a")], [hold(0.3, clients=2)], url=url, timeout=0.2))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for raw in held:
            raw.close()
    assert result["total"]["opened"] == 0
    assert result["invalid"]
    if scheme == "tcp":
        assert all(text.startswith("not let in: ") for text in result["total"]["ended"])
        assert not why.endswith("t") or why in result["total"]["ended"]


def test_a_server_that_dies_midway(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        "import os\nfrom gameserver import App\napp = App('dies')\n"
        "@app.on('die')\ndef die(body: bytes) -> None:\n    print('last words', flush=True)\n    os._exit(3)\n"
    )
    with pytest.raises(GameServerError, match=r"(?s)has died after .*last words"):
        play(Scenario([ask("die")], [hold(30, clients=2)], pace="20/s", target="game.py"), folder=tmp_path)


# -- what is declared -------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32))
def test_values_by_chance_are_valid(seed: int) -> None:
    for cls in (Odd, Spot, Move):
        message = random_message(cls, {}, Random(seed))
        assert cls.decode(message.encode()) == message
        assert cls.from_json(message.to_json()) == message


def test_values_that_are_given() -> None:
    action = ask(Odd, small=between(1, 6), name=letters(1, 3), team=one_of(Team.BLUE), spots=[Spot(1.0)])
    for body in action.bodies(Random(1), 50, "protobuf"):
        message = Odd.decode(body)
        assert 1 <= message.small <= 6
        assert (message.team, message.spots, 1 <= len(message.name) <= 3) == (Team.BLUE, [Spot(1.0)], True)
    assert ask("a", body={"x": 1}).bodies(Random(1), 1, "json") == [b'{"x":1}']
    assert ask("a", body=lambda random: {"x": random.randint(1, 1)}).bodies(Random(1), 1, "json") == [b'{"x":1}']
    assert ask("a").bodies(Random(1), 1, "json") == [b""]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ask(Move, z=1), r"test_swarm\.py:\d+: Move has no field z; it has x, y"),
        (lambda: ask(Move, weight=0), r"test_swarm\.py:\d+: ask\(weight=0\)"),
        (lambda: tell("a", x=1), r"test_swarm\.py:\d+: tell\('a'\): a route has a body="),
        (lambda: ask(Move, body=b""), "a message has fields, and no body="),
        (lambda: ask(int), "a class of messages, or a route"),
        (lambda: ask(Spot, x=between(3.0, 4.0)).bodies(Random(1), 1, "json"), r"test_swarm\.py:\d+: Spot: .*x"),
        (lambda: hold("soon"), "'soon' is no duration"),
        (lambda: hold(0), "from 0.05 to 1,000,000 s"),
        (lambda: ramp(-1, 1), "-1 clients"),
        (lambda: churn("often", 1), "'often' is no rate"),
        (lambda: Scenario([], [], url="ws://a"), "needs a phase"),
        (lambda: Scenario([], [hold(1)], url="ws://a"), "no phase has any clients"),
        (lambda: Scenario([], [hold(1, clients=1)]), "either target"),
        (lambda: Scenario([], [hold(1)], url="ws://a", bots={print: 1}), "an async function of a Bot"),  # type: ignore[dict-item]
        (lambda: Scenario([], [hold(1, clients=1)], url="ws://a", pace="fast"), "pace 'fast'"),
        (lambda: Scenario([tell("a")], [hold(1, clients=1)], url="ws://a", pace="depth 2"), "closed loop"),
        (lambda: Scenario([], [hold(1, clients=1)], url="ws://a", thresholds=["p98 < 1"]), "'p98 < 1' is no threshold"),
        (lambda: Scenario([], [hold(1, clients=1)], url="ws://a", thresholds=["p99 < 1 mile"]), "is no threshold"),
        (lambda: Scenario([], [hold(1, clients=1)], url="ws://a", user={"a": {1}}).handshakes(), "is no JSON object"),
        (lambda: play(Scenario([], [hold(1, clients=1)], url="gopher://a")), "is no address"),
        (lambda: play(Scenario([], [hold(1, clients=1)], target="nowhere.py")), "did not start"),
    ],
)
def test_mistakes_are_told_before_the_first_connection(make: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


def test_units() -> None:
    assert [seconds(text) for text in ("500ms", "2s", "1.5m", "1h", 3)] == [0.5, 2.0, 90.0, 3600.0, 3.0]
    assert [pace(text) for text in ("20/s", "90/min", "depth 16", "nothing")] == [
        ("open", 20.0), ("open", 1.5), ("closed", 16.0), ("quiet", 0.0)
    ]  # fmt: skip
    assert per_second("120/min") == 2.0
    threshold = Threshold.read("p99.9<=50ms")
    assert (threshold.name, threshold.sign, threshold.limit) == ("p99.9", "<=", 0.05)
    result = {"total": {"latency": {"p999": 0.05}, "error_share": 0.002}, "server": None}
    assert threshold.holds(result)
    assert not Threshold.read("errors < 0.1%").holds(result)
    assert Threshold.read("errors > 0.1%").holds(result)
    assert not Threshold.read("tick_skipped == 0").holds(result), "not measured"


# -- results ----------------------------------------------------------------------------------------------------------


def made_up(p99: float, wavers: float, count: int = 20) -> dict[str, Any]:
    series = [
        {"phase": 0, "latency": dict.fromkeys(("p50", "p90", "p99", "p999", "mean", "max"), p99 * (1 + wavers * (-1) ** n)),
         "answered": 10, "snapshot_gaps": {"p99": 0}, "lateness": {"p99": 0}, "bytes_in": 1, "clients": 1, "seconds": 1.0}
        for n in range(count)
    ]  # fmt: skip
    total = {"latency": {"p99": p99}, "answered_per_second": 10}
    return {"total": total, "series": series, "server": None, "scenario": {"phases": [{"counts": True}]}}


def test_a_change_is_told_from_noise() -> None:
    def verdict(before: Any, now: Any, name: str = "p99") -> str:
        return next(change.verdict for change in changes(before, now) if change.name == name)

    assert verdict(made_up(0.010, 0.05), made_up(0.012, 0.05)) == "worse"
    assert verdict(made_up(0.012, 0.05), made_up(0.010, 0.05)) == "better"
    assert verdict(made_up(0.010, 0.5), made_up(0.012, 0.5)) == "within the noise"
    assert verdict(made_up(0.010, 0.05, 3), made_up(0.012, 0.05, 3)) == "", "too short to know"
    assert verdict(made_up(0.010, 0.05), made_up(0.012, 0.05), "rate") == ""


def test_the_command(tmp_path: Path) -> None:
    def swarm(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "gameserver", "swarm", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    load = ("--clients", "30", "--rate", "10/s", "--ramp", "200ms", "--for", "2500ms")
    kept, report = tmp_path / "first.json", tmp_path / "report.html"
    done = swarm("examples/arena.py", *load, "--json", str(kept), "--must", "errors < 50%", "--must", "p99 < 10s")
    result = json.loads(kept.read_text())
    # On a busy machine the swarm may have been late, which it says.
    assert done.returncode == (1 if result["invalid"] else 0), done.stdout + done.stderr
    assert "ask Steer" in done.stdout
    assert "holds: p99 < 10s" in done.stdout
    assert result["total"]["snapshots"] > 100
    assert result["total"]["errors"].keys() <= {"GS-409", "playing"}
    assert result["server"]["ticks"] > 10
    assert result["server"]["memory_max"] > 1e6
    done = swarm("examples/arena.py", *load, "--html", str(report), "--compare", str(kept), "--must", "p50 < 0.001us")
    assert done.returncode == 1, done.stderr
    assert "FAILS: p50 < 0.001us" in done.stdout
    html = report.read_text()
    assert html.count("<svg") >= 8
    assert "Against the earlier run" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "<script" not in html
    assert "src=" not in html


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("nowhere.py",), 2, "nowhere.py"),
        (("examples/arena.py", "--rate", "quick"), 2, "pace 'quick'"),
        (("examples/arena.py", "--clients", "-3"), 2, "-3 clients"),
        (("examples/arena.py", "--for", "0"), 2, "no duration"),
        (("http://127.0.0.1:1/", "--rate", "1/s"), 2, "closed loop"),
        (("http://127.0.0.1:1/", "--for", "100ms", "--ramp", "100ms"), 1, "no client was let in"),
        (("examples/arena.py", "--user", "{"), 2, "is no JSON"),
        (("examples/arena.py", "--must", "p99 fast"), 2, "is no threshold"),
        (("examples/arena.py", "--compare", "README.md"), 2, "is no result"),
        (("examples/arena.py", "--compare", "nowhere.json"), 2, "No such file"),
        (("examples/arena.py", "--json", "nowhere/a.json"), 2, "there is no such folder"),
        (
            ("examples/arena.py", "--url", "ws://127.0.0.1:1", "--for", "100ms", "--ramp", "100ms"),
            1,
            "no client was let in",
        ),
        (("examples/arena.py", "--room", "cards"), 2, "the game has no rooms"),
        (("LOAD",), 2, "load.py:3: Move has no field z"),
        (("LOAD", "--rate", "5/s"), 2, "Move has no field z"),
        (("FINE", "--rate", "5/s"), 2, "says --rate itself"),
        (("FINE",), 1, "FAILS: rate > 1000"),
    ],
)
def test_what_the_command_says_of_mistakes(tmp_path: Path, arguments: tuple[str, ...], code: int, text: str) -> None:
    (tmp_path / "rules.py").write_text(
        "from gameserver import App, Message, f32\napp = App('g')\nclass Move(Message):\n    x: f32\n"
        "@app.on\ndef move(msg: Move) -> None: ...\n"
    )
    head = "from gameserver.swarm import *\nfrom rules import Move\n"
    files = {"LOAD": tmp_path / "load.py", "FINE": tmp_path / "fine.py"}
    files["LOAD"].write_text(head + "scenario = Scenario([ask(Move, z=1)], [hold(1, clients=1)], target='rules.py')\n")
    files["FINE"].write_text(
        head
        + "scenario = Scenario([ask(Move, x=1)], [hold(0.3, clients=2)], target='rules.py', thresholds=['rate > 1000'])\n"
    )
    typed = [str(files.get(argument, argument)) for argument in arguments]
    command = [sys.executable, "-m", "gameserver", "swarm", *typed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_live_view_names_errors_by_code(server: RunningServer) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    scenario = Scenario([ask("nobody")], [hold(1.2, clients=2)], pace="20/s", url=f"ws://127.0.0.1:{server.port}")
    with LiveView(console, scenario, "live") as view:
        result = play(scenario, watch=view.add)
    table = view._table()
    with console.capture() as drawn:
        console.print(table)
    assert f"errors: GS-404 {result['total']['errors']['GS-404']}" in drawn.get()


def test_the_command_warns_of_what_bots_cost(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text("from gameserver import App\napp = App('g')\n")
    (tmp_path / "load.py").write_text(
        "from gameserver.swarm import *\nasync def idle(bot):\n    await bot.pause(0.1)\n"
        "scenario = Scenario([], [hold(0.3)], bots={idle: 2}, target='game.py')\n"
    )
    command = [sys.executable, "-m", "gameserver", "swarm", str(tmp_path / "load.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 bots are Python" in done.stdout


def test_a_short_soak() -> None:
    done = subprocess.run(
        [sys.executable, "benches/soak.py", "0.05"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("answers") == 2


def test_a_page_of_a_run_without_anything() -> None:
    result = play(Scenario([], [ramp(5, 0.1), hold(0.1)], pace="nothing", url="ws://127.0.0.1:1"))
    assert "<b>This run is invalid.</b>" in page(result)
