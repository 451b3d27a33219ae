"""A whole server that has no descriptors left: it neither spins nor loses its listener, and serves again when it has some."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from wire_client import Client, connected

LIMIT = 96
CROWD = LIMIT + 300

GAME = f"""
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))  # both: the server raises the soft one
from gameserver import App, Session
app = App("poor")

@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body

@app.on("stats")
async def stats(session: Session) -> dict:
    await asyncio.sleep(0)
    return app.stats()

@app.on_start
def start() -> None:
    print("PORT", app.port, flush=True)

if __name__ == "__main__":
    app.run(port=0, io_threads=int(sys.argv[1]))
"""


@contextlib.contextmanager
def poor_server(tmp_path: Path, io_threads: int) -> Iterator[tuple[subprocess.Popen[str], int]]:
    path = tmp_path / "game.py"
    path.write_text(GAME)
    command = [sys.executable, str(path), str(io_threads)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server, int(server.stdout.readline().split()[1])
        finally:
            server.kill()


def cpu_seconds(pid: int) -> float:
    """Of all threads, user and system."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def refused(client: Client) -> int:
    """How many the server has turned away since it had no descriptor for them."""
    stats = json.loads(client.request("stats").body)
    return int(stats["connections"]["refused_descriptors"])


def is_rid_of(crowd: int, client: Client) -> bool:
    """Whether the server has met all of these, and only this client is left."""
    stats = json.loads(client.request("stats").body)["connections"]
    return bool(stats["open"] == 1 and stats["accepted"] + stats["refused_descriptors"] > crowd)


@pytest.mark.parametrize("io_threads", [0, 2])
def test_without_descriptors_it_serves_whom_it_has_and_later_everybody(tmp_path: Path, io_threads: int) -> None:
    with poor_server(tmp_path, io_threads) as (server, port), connected(port) as player:
        crowd = [Client(port) for _ in range(CROWD)]  # the kernel lets them in, whether the server can or not
        while refused(player) == 0:
            pass
        assert len(os.listdir(f"/proc/{server.pid}/fd")) >= LIMIT - 2

        # For two seconds nothing gets better. It tries ten times a second, and serves the player.
        before, began, answers = cpu_seconds(server.pid), time.monotonic(), 0
        while time.monotonic() < began + 2:
            assert player.request("echo", b"x").body == b"x"
            answers += 1
            time.sleep(0.02)  # a player's pace, for the CPU time to be that of the server's own doing
        spent = cpu_seconds(server.pid) - before
        assert spent < 0.5, f"{spent} s of CPU in 2 s"
        assert answers > 10
        assert refused(player) <= 100, "most of them wait, and are not let in to be turned away as fast as it goes"

        # Relief: who comes now is let in, by the same listener.
        for client in crowd:
            client.close()
        while not is_rid_of(CROWD, player):
            pass
        for _ in range(20):
            with connected(port) as late:
                assert late.request("echo", b"late").body == b"late"
        server.send_signal(signal.SIGTERM)
        player.until_closed()
        _, errors = server.communicate(timeout=10)
        assert server.returncode == 0, errors
        assert "Traceback" not in errors
