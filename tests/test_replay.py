"""A recorded run of the plaza, replayed without sockets, gives identical bytes."""

from __future__ import annotations

import importlib.util
import json
import threading
from pathlib import Path

from wire_client import connected, notify

from gameserver import App
from gameserver.testing import replay, running


def plaza() -> App:
    """A fresh plaza, as its file makes it."""
    file = Path(__file__).parent.parent / "examples" / "plaza.py"
    spec = importlib.util.spec_from_file_location("plaza_again", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = module.app
    assert isinstance(app, App)
    return app


def play(app: App, recording: Path) -> None:
    enough = threading.Event()
    with running(app, record=recording) as server:
        clients = [connected(server.port) for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(notify("move", json.dumps({"x": 1, "y": number}).encode()))
        for client in clients:
            for _ in range(30):
                client.push()
            client.close()
        enough.set()


def test_a_recorded_plaza_replays_to_the_same_bytes(tmp_path: Path) -> None:
    recording = tmp_path / "plaza.gsr"
    play(plaza(), recording)
    result = replay(plaza(), recording)
    assert result.difference is None
    assert result.turns >= 6  # 30 pushes, of which a late turn may catch up 5
    assert result.compared >= 6


def test_a_replay_of_other_code_says_where_it_differs(tmp_path: Path) -> None:
    recording = tmp_path / "plaza.gsr"
    play(plaza(), recording)
    other = plaza()

    @other.tick
    def more(dt: float) -> None:
        other.push("surprise", {"random": other.random.random()})

    assert "turn" in (replay(other, recording).difference or "")
