"""A server under attack, and a good client that plays on meanwhile: what it notices, and what the server pays."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wire_client import Client

HERE = Path(__file__).parent
WARMUP, ALONE = 50, 200  # answers of the good client before the attack: thrown away, and measured
STEP = 0.004  # s between two requests of the good client
BACK_WITHIN = 2.0  # s; one without descriptors lets its listener rest for a moment


@dataclass
class Target:
    """A server of its own process."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def memory(self) -> float:
        """Resident, in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE") / 1e6

    def cpu(self) -> float:
        """Seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stats(self) -> dict[str, Any]:
        """What the server counts, asked for over a new connection: it is back as soon as an attack has ended."""
        end = time.monotonic() + BACK_WITHIN
        while True:
            try:
                with Client(self.port) as client:
                    client.handshake()
                    found: dict[str, Any] = json.loads(client.request("stats").body)
                    return found
            except (EOFError, OSError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


@contextlib.contextmanager
def target(**settings: Any) -> Iterator[Target]:
    """Starts the server; in the end it must stop in good order."""
    with tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False) as log:
        command = [sys.executable, str(HERE / "target.py"), json.dumps({"port": 0, **settings})]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    path = Path(log.name)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("PORT"), path.read_text()
        yield Target(process, int(line.split()[1]), path)
        process.terminate()
        assert process.wait(20) == 0, path.read_text()[-2000:]
        assert "panic" not in path.read_text()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        path.unlink()


class Good:
    """A client that asks a few hundred times a second, each in its turn; `mark` begins another stretch of measurements."""

    def __init__(self, port: int) -> None:
        self._client = Client(port)
        self._client.handshake()
        self._going = True
        self._times: list[float] = []
        self._failure: BaseException | None = None
        self._heard = threading.Condition()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def mark(self) -> None:
        self._times = []

    def wait_for(self, answers: int) -> None:
        """Returns when so many have come since the last mark."""
        with self._heard:
            assert self._heard.wait_for(lambda: self._failure is not None or len(self._times) >= answers, 30), (
                "too slow"
            )
        self.times()

    def times(self) -> list[float]:
        """Round trips since the last mark, in seconds."""
        if self._failure is not None:
            raise AssertionError("the good client was hurt") from self._failure
        return self._times

    def p99(self) -> float:
        times = sorted(self.times())
        assert len(times) >= 20, f"only {len(times)} answers"
        return times[int(len(times) * 0.99)]

    def close(self) -> None:
        self._going = False
        self._thread.join(15)
        self._client.close()

    def _play(self) -> None:
        try:
            while self._going:
                began = time.perf_counter()
                assert self._client.request("echo", b"good").body == b"good"
                with self._heard:
                    self._times.append(time.perf_counter() - began)
                    self._heard.notify_all()
                time.sleep(STEP)
        except BaseException as error:
            with self._heard:
                self._failure = error
                self._heard.notify_all()


@dataclass
class Report:
    """What an attack came to."""

    name: str
    p99_before: float
    p99: float
    memory_before: float
    memory_most: float
    memory_after: float
    cpu: float
    """Of one core, while it went on."""
    log_lines: int
    stats: dict[str, Any]
    seconds: float
    stats_before: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    """What the attacker has counted."""


def besiege(name: str, seconds: float, relief: float, enough: float, **settings: Any) -> Report:
    """Measures the good client alone, then with the attack, and the server's memory until it is within `enough` MB of what it was
    before, at most `relief` seconds."""
    with target(**settings) as server:
        good = Good(server.port)
        try:
            good.wait_for(WARMUP)
            good.mark()
            good.wait_for(ALONE)
            p99_before, stats_before, memory_before = good.p99(), server.stats(), server.memory()
            lines = len(server.log.read_text().splitlines())
            command = [sys.executable, str(HERE / "attackers.py"), name, str(server.port), str(seconds)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
                assert attacker.stdout is not None
                assert attacker.stdout.readline() == "BEGUN\n"
                good.mark()
                cpu, began, most = server.cpu(), time.monotonic(), memory_before
                while attacker.poll() is None:
                    most = max(most, server.memory())
                    time.sleep(0.02)
                took = time.monotonic() - began
                assert attacker.returncode == 0, f"the attacker found a hole, or failed: {name}"
                seen = json.loads(attacker.stdout.readline())
            p99, spent = good.p99(), server.cpu() - cpu
            after = server.memory()
            end = time.monotonic() + relief
            while after > memory_before + enough and time.monotonic() < end:
                time.sleep(0.05)
                after = server.memory()
            stats = server.stats()
            said = len(server.log.read_text().splitlines()) - lines
        finally:
            good.close()
        return Report(
            name, p99_before, p99, memory_before, most, after, spent / took, said, stats, took, stats_before, seen
        )
