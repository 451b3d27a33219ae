"""Existing clients, unmodified as their registries serve them, play through the game of `peers/game.py`.

What they are pinned to, and their steps, are in `peers/`. Each is a program that ends with status 0, or says which step went
wrong. All play at the same time on the same server, so nobody may notice the others either. Clients that no registry serves
(Pitaya's Go client, libpitaya) are in `test_unchanged_clients.py`, byte by byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peers.game import game

from gameserver.testing import running

PEERS = Path(__file__).parent / "peers"
# Pomelo's clients know whole seconds. They answer every second heartbeat when idle: `test_4` of test_unchanged_clients.py.
SETTINGS: dict[str, Any] = {"heartbeat": 1.0, "stale_after": 2.5, "drain_timeout": 2.0}


def prepared(command: list[str | Path], made: Path, wanted: Path) -> None:
    """Runs what installs a client, unless `made` is newer than the file that says what is wanted."""
    if made.exists() and made.stat().st_mtime >= wanted.stat().st_mtime:
        return
    done = subprocess.run(command, cwd=wanted.parent, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(map(str, command))} in {wanted.parent}:\n{done.stdout}{done.stderr}"
    made.touch()


@pytest.fixture(scope="module")
def pomelo() -> Path | None:
    """Pomelo's JavaScript clients, from npm; None on a machine without npm."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        return None
    install: list[str | Path] = ["npm", "ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund"]
    folder = PEERS / "pomelo"
    prepared(install, folder / "node_modules" / ".installed", folder / "package-lock.json")
    return folder / "play.cjs"


@pytest.fixture(scope="module")
def pypomelo() -> Path:
    """pypomelo, from PyPI: beside its program, not in the environment of the tests."""
    folder = PEERS / "pypomelo"
    install: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    install += ["--target", folder / ".site", "--requirement", "requirements.txt"]
    prepared(install, folder / ".site" / ".installed", folder / "requirements.txt")
    return folder / "play.py"


@pytest.fixture(scope="module", params=["inline", "threads"])
def played(
    request: pytest.FixtureRequest, pomelo: Path | None, pypomelo: Path, certificate: tuple[Path, Path]
) -> dict[str, str]:
    """What was wrong with each client, by name; nothing: an empty text."""
    cert, key = map(str, certificate)
    threads = 2 if request.param == "threads" else 0
    environment = {**os.environ, "PYTHONPATH": str(pypomelo.parent / ".site")}
    python = [sys.executable, "-W", "error", str(pypomelo)]
    with (
        running(game(), io_threads=threads, **SETTINGS) as plain,
        running(game(), io_threads=threads, tls_cert=cert, tls_key=key, **SETTINGS) as tls,
    ):
        commands = {
            "pypomelo": [*python, str(plain.port)],
            "pypomelo over TLS": [*python, str(tls.port), cert],
        }
        if pomelo is not None:
            for name in ("browser", "node"):
                commands[f"pomelo {name}"] = ["node", "--no-deprecation", str(pomelo), name, str(plain.port)]
        playing = {
            name: subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            for name, command in commands.items()
        }
        wrong = {}
        try:
            for name, process in playing.items():
                output, _ = process.communicate(timeout=60)
                wrong[name] = "" if process.returncode == 0 else output or f"status {process.returncode}"
        finally:
            for process in playing.values():
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
    for server in (plain, tls):
        assert server.final_stats["pool"]["out"] == 0, server.final_stats
    return wrong


@pytest.mark.parametrize("name", ["pomelo browser", "pomelo node"])
def test_pomelos_javascript_client(played: dict[str, str], name: str) -> None:
    if name not in played:
        pytest.skip("npm or node is not installed: Pomelo's JavaScript clients come from npm")
    assert played[name] == ""


@pytest.mark.parametrize("name", ["pypomelo", "pypomelo over TLS"])
def test_pypomelo(played: dict[str, str], name: str) -> None:
    assert played[name] == ""
