"""Servers and loads as processes: built, pinned to their cores, measured, ended."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "benches" / "out"
SOURCES = {
    "epoll": ["benches/reference/epoll.c"],
    "timer": ["benches/reference/timer.c"],
    "load": ["benches/load/load.c", "benches/load/connection.c"],
}
COMPILE = ["cc", "-O3", "-Wall", "-Wextra"]
GO = ("nano", "pitaya")
GO_SECONDS_MAX = 600
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
LOAD_SECONDS_MAX = 60.0  # beyond its window: opening 10,000 connections on a busy machine

LIMITS = {
    f"GAMESERVER_{kind}_{what}": "100000000/s" if what == "RATE" else "10000000"
    for kind in ("MESSAGE", "ADDRESS_MESSAGE", "CONNECT")
    for what in ("RATE", "BURST")
}

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]


class Unmeasured(Exception):
    """Why there is no figure: something is not installed, does not start, or answers wrongly."""


@dataclass(frozen=True)
class Server:
    """How a server is started; it prints `PORT <n>` when it listens."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    load: tuple[str, ...] = ()
    """What the load generator is told beside the scenario's arguments."""


class RunningServer:
    """A server's process, pinned to the server's core."""

    def __init__(self, server: Server) -> None:
        self.name = server.name
        self.load = server.load
        self._errors = OUT / f"{server.name}.err"
        with self._errors.open("w") as errors:
            try:
                self._process = subprocess.Popen(
                    server.command,
                    cwd=ROOT,
                    env=environment() | server.environment,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
                )
            except FileNotFoundError:
                raise Unmeasured(f"{server.name} is not installed") from None
        self.pid = self._process.pid
        try:
            self.port = self._read_port()
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def _read_port(self) -> int:
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_SECONDS_MAX, self._process.kill)
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith("PORT "):
                    return int(line.split()[1])
        finally:
            watchdog.cancel()
        raise Unmeasured(f"{self.name} did not start: {self._complaint()}")

    def _complaint(self) -> str:
        lines = [line for line in self._errors.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"

    def memory(self) -> int:
        """Bytes of anonymous memory: heap, stacks, and what was written of mapped files."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                return int(line.split()[1]) * 1024
        raise Unmeasured("no Pss_Anon in smaps_rollup: Linux 5.2 or later is needed")

    def stop(self) -> dict[str, Any]:
        """Ends it; returns the JSON that it printed at last, if any."""
        self._process.send_signal(signal.SIGTERM)
        try:
            output, _ = self._process.communicate(timeout=STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            output, _ = self._process.communicate()
        lines = [line for line in output.splitlines() if line.startswith("{")]
        last: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        return last


@contextlib.contextmanager
def running(server: Server) -> Iterator[RunningServer]:
    """A server that is gone afterwards."""
    process = RunningServer(server)
    try:
        yield process
    finally:
        if process._process.poll() is None:
            process.stop()


def environment() -> dict[str, str]:
    """Ours, without settings of the game server that a developer may have set. Its limits are on, and out of the loads' way."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("GAMESERVER_")}
    return plain | LIMITS


def build() -> None:
    """Compiles the reference and the load generator where their sources are newer."""
    OUT.mkdir(exist_ok=True)
    headers = list((ROOT / "benches").glob("*/*.h"))
    for name, sources in SOURCES.items():
        paths = [ROOT / source for source in sources]
        target = OUT / name
        newest = max(path.stat().st_mtime for path in [*paths, *headers])
        if not target.exists() or target.stat().st_mtime < newest:
            command = [*COMPILE, "-o", str(target), *map(str, paths)]
            print("$", shlex.join(command), flush=True)
            subprocess.run(command, check=True)


def build_go() -> None:
    """Compiles the references in Go, where there is Go and their modules can be had."""
    if shutil.which("go") is None:
        return
    for name in GO:
        folder, target = ROOT / "benches/reference" / name, OUT / name
        newest = max(path.stat().st_mtime for path in folder.iterdir())
        if target.exists() and target.stat().st_mtime >= newest:
            continue
        command = ["go", "build", "-o", str(target), "."]
        print("$", shlex.join(command), flush=True)
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=GO_SECONDS_MAX, check=False)
        if done.returncode:
            print(f"{name}: not built: {done.stderr.strip().splitlines()[-1]}", flush=True)


def _load_command(server: RunningServer, arguments: tuple[str, ...]) -> list[str]:
    command = [str(OUT / "load"), *arguments, *server.load, "--port", str(server.port), "--pid", str(server.pid)]
    return ["taskset", "-c", str(LOAD_CORE), *command]


def apply_load(server: RunningServer, arguments: tuple[str, ...], warmup: float, seconds: float) -> dict[str, Any]:
    """Runs the load generator over its window; returns what it printed.

    Raises:
        Unmeasured: a connection was closed, or an answer wrong.
    """
    command = [*_load_command(server, arguments), "--warmup", str(warmup), "--seconds", str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=warmup + seconds + LOAD_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise Unmeasured(f"{server.name}: the load did not finish") from None
    if done.returncode:
        raise Unmeasured(f"{server.name}: {done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def memory_per_connection(server: RunningServer, connections: int, settle: float) -> float:
    """Bytes of anonymous memory that one idle connection costs the server."""
    before = server.memory()
    command = _load_command(server, ("idle", "--connections", str(connections)))
    load = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert load.stdout is not None
        if not load.stdout.readline():
            assert load.stderr is not None
            raise Unmeasured(f"{server.name}: {load.stderr.read().strip()}")
        time.sleep(settle)
        return (server.memory() - before) / connections
    finally:
        load.communicate()  # its input ends, so it does


def stolen_ticks() -> tuple[int, int]:
    """Time that the hypervisor gave to others, and all time, of the two cores, in clock ticks."""
    stolen = total = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *values = line.split()
        if name in (f"cpu{SERVER_CORE}", f"cpu{LOAD_CORE}"):
            stolen += int(values[7])
            total += sum(map(int, values[:8]))
    return stolen, total
