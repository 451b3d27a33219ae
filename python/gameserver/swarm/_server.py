"""The game that a swarm plays against, in a process of its own; what it says of itself once a second comes back over a pipe.

As a module: ``python -m gameserver.swarm._server TARGET FD SETTINGS``. A line of JSON each: first its port, then its counters.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gameserver import _target
from gameserver._app import App
from gameserver.errors import ConfigError

__all__ = ["ServerProcess", "start"]

START_WITHIN, STOP_WITHIN = 60.0, 20.0  # s
# All clients of a swarm come from one address; that is the tool's doing, and no attack.
SETTINGS = {"host": "127.0.0.1", "port": 0, "connect_rate": "none", "address_message_rate": "none"}


class ServerProcess:
    """A game that runs for a swarm."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: int, log: Path) -> None:
        self.process = process
        self.log = log
        self.reports: list[dict[str, Any]] = []
        """What it has said so far, oldest first."""
        self.scheme = "ws"
        self.port = 0
        self._pipe = pipe
        self._rest = b""

    def read(self, timeout: float = 0.0) -> bool:
        """Takes what it has said; False: it has ended."""
        while select.select([self._pipe], [], [], timeout)[0]:
            data = os.read(self._pipe, 1 << 16)
            if not data:
                return False
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in map(json.loads, lines):
                if "port" in line:
                    self.port, self.scheme = line["port"], line["scheme"]
                else:
                    self.reports.append(line)
            timeout = 0.0
        return True

    def complaint(self) -> str:
        """The last lines of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return "\n".join(lines[-12:])


@contextlib.contextmanager
def start(target: str, folder: Path, settings: Mapping[str, Any]) -> Iterator[ServerProcess]:
    """Starts a game in `folder` and waits until it listens; ends it afterwards.

    Raises:
        ConfigError: it does not start; says what it said.
    """
    mine, theirs = os.pipe()
    with tempfile.NamedTemporaryFile("w+b", prefix="gameserver-swarm-", suffix=".log", delete=False) as log:
        arguments = [target, str(theirs), json.dumps({**SETTINGS, **settings})]
        process = subprocess.Popen(
            [sys.executable, "-m", "gameserver.swarm._server", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(theirs,),
            start_new_session=True,  # Ctrl-C is for the swarm, which then ends it
        )
    os.close(theirs)
    server = ServerProcess(process, mine, Path(log.name))
    try:
        end = time.monotonic() + START_WITHIN
        while server.port == 0:
            left = end - time.monotonic()
            if not server.read(max(0.0, left)) or left <= 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1)
                raise ConfigError(f"{target} did not start:\n{server.complaint()}")
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(mine)
        server.log.unlink()


class _Watch:
    """Counters of a running game, told once a second."""

    def __init__(self, app: App, pipe: int, scheme: str) -> None:
        self._app, self._pipe, self._scheme = app, pipe, scheme
        self._gc_began = 0
        self._gc_longest = self._gc_sum = 0
        gc.callbacks.append(self._collected)

    def started(self) -> None:
        self._tell({"port": self._app.port, "scheme": self._scheme})

    def second(self) -> None:
        stats = self._app.stats()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self._tell(
            {
                "at": time.monotonic(),
                "tick": stats["tick"],
                "sessions": stats["sessions"],
                "errors": sum(error["count"] for error in stats["errors"]),
                "messages": {name: stats["messages"][name] for name in ("in", "out", "limited")},
                "cpu": usage.ru_utime + usage.ru_stime,
                "memory": pages * resource.getpagesize(),
                "blocks": stats["pool"]["out"],
                "gc_longest": self._gc_longest / 1e9,
                "gc_sum": self._gc_sum / 1e9,
            }
        )
        self._gc_longest = 0

    def _tell(self, what: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # whoever started this is gone
            os.write(self._pipe, json.dumps(what).encode() + b"\n")

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._gc_began = now
        else:
            took = now - self._gc_began
            self._gc_longest, self._gc_sum = max(self._gc_longest, took), self._gc_sum + took


def main() -> None:
    """Runs the game until SIGTERM."""
    target, pipe, settings = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    app = _target.load(target).app
    assert isinstance(app, App)
    os.set_inheritable(pipe, False)
    watch = _Watch(app, pipe, "wss" if settings.get("tls_cert") else "ws")
    app.on_start(watch.started)
    app.every(1.0)(watch.second)
    app.run(_source="swarm", **settings)


if __name__ == "__main__":
    main()
