"""A swarm whose connections are cut, over networks that are worse than the real one, by clients that think."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gameserver import App, Entity, Member, Message, Room, Session, World, f32, on, sync
from gameserver.errors import ConfigError
from gameserver.swarm import NETWORKS, Network, Scenario, ask, drops, hold, play, ramp, storm, tell
from gameserver.swarm._network import network_of
from gameserver.swarm._page import page
from gameserver.testing import RunningServer, running

RTO_MIN = 0.2  # s
UNLIMITED: dict[str, Any] = {"message_rate": "none", "address_message_rate": "none", "connect_rate": "none"}


class Say(Message):
    x: f32


class Stone(Entity):
    x: f32 = sync(0)


class Hall(Room[Member]):
    def on_create(self, options: dict[str, Any]) -> None:
        for number in range(3):
            self.world.spawn(Stone, x=number)

    def on_tick(self, dt: float) -> None:
        self.world.columns(Stone).x += 1

    @on
    def say(self, seat: Member, msg: Say) -> Say:
        heard["room"] += 1
        seat.push("news", b"n")
        return Say(msg.x)


heard: Counter[str] = Counter()


def game() -> App:
    app = App("cut", tick_rate=50, world=World())
    app.room("hall", max_members=5, tick_rate=20, entities=(Stone,))(Hall)
    heard.clear()

    @app.on_join
    def join(session: Session) -> None:
        heard["joined"] += 1
        app.world.spawn(Stone, owner=session)

    @app.tick
    def sway(dt: float) -> None:
        app.world.columns(Stone).x += 1

    @app.on
    def say(session: Session, msg: Say) -> Say:
        heard["Say"] += 1
        session.push("news", b"news")
        return Say(msg.x)

    @app.on("note")
    def note(session: Session, body: bytes) -> None:
        heard["note"] += 1

    return app


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running(game(), resume_grace=20, **UNLIMITED) as server:
        yield server


def against(server: RunningServer, actions: Any, phases: Any, scheme: str = "ws", **more: Any) -> dict[str, Any]:
    return play(Scenario(actions, phases, url=f"{scheme}://127.0.0.1:{server.port}", **more))


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
@pytest.mark.parametrize("pace", ["60/s", "depth 4"])
@pytest.mark.parametrize("room", [None, "hall"])
def test_who_is_cut_off_goes_on_and_nothing_is_lost_or_run_twice(
    server: RunningServer, scheme: str, pace: str, room: str | None
) -> None:
    actions = [ask(Say, x=1)] if pace.startswith("depth") or room else [ask(Say, x=1), tell("note", body=b"n")]
    phases = [ramp(20, 0.2, counts=True), drops("80/s", 1.0), storm(0.5)]
    total = against(server, actions, phases, scheme, pace=pace, room=room, resume=True)["total"]
    assert total["resumed"] == total["resuming"]["count"] == total["opened"] - 20 > 40
    assert (total["renewed"], total["lost"], total["timed_out"]) == (0, 0, 0)
    assert (total["errors"], total["ended"]) == ({}, {})
    sent = {action["route"]: action["sent"] for action in total["actions"]}
    assert sent == ({"Say": heard["room"]} if room else {route: heard[route] for route in sent})
    assert total["answered"] == sent["Say"] > 100
    assert total["pushes"]["news"][0] == sent["Say"], "pushes are counted, too, and come once"
    assert heard["joined"] == 20, "as many sessions as clients"
    assert server.stats()["resume"]["resumed"] == total["resumed"]


def test_what_waits_for_a_session_to_go_on_counts_from_when_it_was_due(server: RunningServer) -> None:
    """A round trip of 0.3 s: a client that was cut needs two of them, and what it was to say meanwhile waits so long."""
    result = against(
        server, [ask(Say, x=1)], [hold(1.0, clients=5), storm(1.0)], pace="50/s", resume=True, network=Network("150ms")
    )
    total = result["total"]
    assert (total["resumed"], total["lost"], total["sent"]) == (5, 0, total["answered"])
    assert heard["Say"] == total["sent"]
    assert total["resuming"]["p50"] >= 0.6
    assert total["latency"]["p50"] >= 0.3
    assert total["latency"]["max"] >= 0.6


def test_sessions_that_the_server_no_longer_has_begin_anew() -> None:
    with running(game(), resume_grace=0.05) as server:
        slow = Network("100ms")  # the cut is over when the grace is
        phases = [hold(1.0, clients=4), storm(1.2)]
        total = against(server, [ask(Say, x=1)], phases, pace="20/s", resume=True, network=slow)["total"]
        assert (total["renewed"], total["resumed"]) == (4, 0)
        assert heard["joined"] == 8
        assert total["lost"] > 0, "what was under way"
        assert total["sent"] == total["answered"] + total["lost"]


def test_a_server_that_keeps_no_sessions_is_told_of() -> None:
    with running(game()) as server:
        result = against(server, [ask(Say, x=1)], [hold(0.2, clients=3), storm(0.3)], pace="20/s", resume=True)
    assert (result["total"]["resumed"], result["total"]["opened"]) == (0, 6)
    assert any("no session could go on" in why for why in result["invalid"])


def test_who_leaves_for_good_leaves_no_session_behind(server: RunningServer) -> None:
    for scheme in ("ws", "tcp"):
        against(server, [ask(Say, x=1)], [hold(0.3, clients=5), ramp(0, 0.2)], scheme, pace="20/s", resume=True)
    assert server.stats()["sessions"] == 0


# -- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "tcp"])
def test_a_delay_is_that_of_each_way(server: RunningServer, scheme: str) -> None:
    phases = [hold(1.2, clients=5)]
    total = against(server, [ask(Say, x=1)], phases, scheme, pace="20/s", network=Network("50ms"))["total"]
    assert total["latency"]["p50"] >= 0.1
    # Two round trips at least: TCP's own, and the handshake's.
    assert total["connecting"]["p50"] >= 0.2
    assert heard["Say"] == total["sent"] == total["answered"] > 20
    assert (total["ended"], total["errors"]) == ({}, {})


def test_jitter_is_on_top_and_nothing_overtakes(server: RunningServer) -> None:
    network = Network("20ms", jitter="40ms")
    total = against(server, [ask(Say, x=1)], [hold(1.5, clients=20)], pace="10/s", network=network)["total"]
    assert total["latency"]["p50"] >= 0.05
    curve = [value for _, value in total["curve"]]
    assert min(curve) >= 0.04
    assert max(curve) - min(curve) >= 0.03
    assert total["answered"] == total["sent"]


def test_what_is_lost_comes_later(server: RunningServer) -> None:
    network = Network(loss="20%")
    total = against(server, [ask(Say, x=1)], [hold(1.0, clients=20)], pace="10/s", network=network)["total"]
    assert total["answered"] == total["sent"] == heard["Say"]
    assert total["latency"]["max"] >= RTO_MIN
    curve = total["curve"]
    assert min(value for _, value in curve) < RTO_MIN, "most are not lost"


def test_a_narrow_line_takes_its_time(server: RunningServer) -> None:
    """100 messages of 1,000 bytes at once over 50 kB/s: two seconds."""
    network = Network(bandwidth="50kB/s")
    total = against(
        server, [ask("note", body=b"x" * 1000)], [hold(0.3, clients=1)], pace="depth 100", network=network, timeout=20
    )["total"]
    assert total["answered"] == total["sent"] >= 100
    assert total["latency"]["max"] >= 1.9


def test_each_client_has_one_of_several_networks(server: RunningServer) -> None:
    networks = {Network(): 3, Network("200ms"): 1}
    result = against(server, [ask(Say, x=1)], [hold(1.6, clients=20)], pace="10/s", network=networks, threads=2)
    fast = max(share for share, value in result["total"]["curve"] if value < 0.4)
    assert 0.5 < fast < 0.97  # those with a delay ask less: they are in later
    assert "75% the real one; 25% delay 200.00 ms" in page(result)


def test_secured_over_a_bad_network(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with running(game(), tls_cert=cert, tls_key=key) as server:
        for scheme in ("wss", "tls"):
            url, phases = f"{scheme}://localhost:{server.port}", [hold(1.0, clients=5)]
            scenario = Scenario([ask(Say, x=1)], phases, pace="20/s", url=url, network=NETWORKS["mobile"])
            total = play(scenario, ca=str(cert))["total"]
            assert total["answered"] == total["sent"] > 0
            assert total["latency"]["p50"] >= 0.08


def test_a_server_behind_a_network_that_is_not_there() -> None:
    scenario = Scenario([ask("a")], [hold(0.4, clients=3)], url="tcp://127.0.0.1:1", network=Network("10ms"))
    result = play(scenario)
    assert result["total"]["opened"] == 0
    assert result["invalid"]
    assert all(why.startswith("not let in: ") for why in result["total"]["ended"])


@pytest.mark.parametrize(
    ("text", "network"),
    [("mobile", NETWORKS["mobile"]), ("delay=40ms, loss=1%", Network("40ms", loss=0.01)),
     ("bandwidth=2MB/s jitter=0.5", Network(jitter="500ms", bandwidth=2e6))],
)  # fmt: skip
def test_networks_by_name(text: str, network: Network) -> None:
    assert network_of(text) == network


# -- thinking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pace", ["1000/s", "depth 1"])
def test_who_thinks_says_less(server: RunningServer, pace: str) -> None:
    actions = [ask(Say, x=1, think="100ms")]
    total = against(server, actions, [hold(1.05, clients=10)], pace=pace)["total"]
    assert 10 * 4 < total["sent"] <= 10 * 11
    assert total["answered"] == total["sent"]
    actions = [ask(Say, x=1, think=("20ms", "180ms"))]
    total = against(server, actions, [hold(1.05, clients=10)], pace=pace)["total"]
    assert 10 * 4 < total["sent"] <= 10 * 20


# -- the world --------------------------------------------------------------------------------------------------------


def test_worlds_of_rooms_are_decoded(server: RunningServer) -> None:
    total = against(server, [], [hold(1.0, clients=4)], pace="nothing", room="hall", world="decode")["total"]
    assert total["decoded"] == total["snapshots"] == total["pushes"]["$w"][0] > 20
    # Of the app's world all the clients' stones, of the room's three.
    assert 2 < total["entities_each"] < 4
    assert total["ended"] == {}


def test_snapshots_have_an_age(server: RunningServer, tmp_path: Path) -> None:
    total = against(server, [], [hold(1.0, clients=4)], pace="nothing", world=True)["total"]
    assert total["snapshot_ages"]["count"] == total["snapshots"] > 50
    assert total["snapshot_ages"]["p50"] < 0.5, "beside the freshest"
    slow = Network("100ms")
    total = against(server, [], [hold(1.0, clients=4)], pace="nothing", world=True, network=slow)["total"]
    assert total["snapshot_ages"]["p50"] < 0.09, (
        "all are as late: nobody can tell, unless the server says when its ticks are due"
    )
    (tmp_path / "game.py").write_text(
        "from gameserver import App, World, Entity, Session, f32\nclass Stone(Entity):\n    x: f32 = 0\n"
        "app = App('aged', tick_rate=50, world=World())\n@app.on_join\ndef join(session: Session) -> None:\n"
        "    app.world.spawn(Stone)\n@app.tick\ndef sway(dt: float) -> None:\n    app.world.columns(Stone).x += 1\n"
    )
    phases = [ramp(4, 2.0), hold(1.0)]  # the server tells of its ticks once a second
    scenario = Scenario([], phases, pace="nothing", world=True, network=slow, target="game.py")
    total = play(scenario, folder=tmp_path)["total"]
    assert total["snapshot_ages"]["p50"] >= 0.1


# -- what is declared -------------------------------------------------------------------------------------------------

MISTAKES = [
    ("Scenario([], [hold('soon', clients=1)], url='ws://a')", "'soon' is no duration"),
    ("Scenario([], [drops('often', 1)], url='ws://a')", "'often' is no rate"),
    ("Scenario([ask('a', think=('2s', '1s'))], [hold(1, clients=1)], url='ws://a')", "the least comes first"),
    ("Scenario([ask('a', think='long')], [hold(1, clients=1)], url='ws://a')", "'long' is no duration"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', pace='fast')", "pace 'fast'"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', thresholds=['p98 < 1'])", "is no threshold"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', network={Network(): 0})", "a number above 0"),
    ("Scenario([], [hold(1, clients=1)], url='http://a', resume=True)", "a page has no sessions"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', network=Network(loss='90%'))", "no share"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', network=Network(bandwidth='fast'))", "no bandwidth"),
    ("Scenario([], [hold(1, clients=1)], url='ws://a', network=Network(delay='-1s'))", "no duration"),
]


@pytest.mark.parametrize(("made", "text"), MISTAKES)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, made: str, text: str) -> None:
    file = tmp_path / "load.py"
    file.write_text(f"from gameserver.swarm import *\n\nscenario = {made}\n")
    with pytest.raises(ConfigError, match=r"load\.py:3: ") as raised:
        exec(compile(file.read_text(), str(file), "exec"), {})
    assert text in str(raised.value)


def test_the_command_with_a_network_and_cuts(tmp_path: Path) -> None:
    (tmp_path / "game.py").write_text(
        "from gameserver import App\napp = App('g', resume_grace=20)\n@app.on('a')\ndef a(body: bytes) -> bytes:\n    return body\n"
    )
    (tmp_path / "load.py").write_text(
        "from gameserver.swarm import *\nscenario = Scenario([ask('a', body=b'x')], [ramp(10, '200ms'), drops('20/s', '1s')], "
        "pace='10/s', target='game.py', resume=True, thresholds=['lost == 0', 'renewed == 0', 'resume_p99 < 10s'])\n"
    )
    kept, html = tmp_path / "kept.json", tmp_path / "report.html"
    command = [sys.executable, "-m", "gameserver", "swarm", str(tmp_path / "load.py")]
    command += ["--network", "delay=20ms jitter=5ms", "--json", str(kept), "--html", str(html)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    result = json.loads(kept.read_text())
    assert done.returncode == (1 if result["invalid"] else 0), done.stdout + done.stderr
    assert "gone on after a cut" in done.stdout
    assert "until back, p99" in html.read_text()
    assert result["total"]["latency"]["p50"] >= 0.04
    command[-6:] = ["--network", "carrier pigeon"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "is no network" in done.stderr) == (2, True), done.stderr
