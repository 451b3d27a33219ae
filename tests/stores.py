"""Real stores for tests: Redis, a cluster of six, PostgreSQL; from Debian's packages, on free ports, ended with the tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from gameserver import DeadLetter
from gameserver.testing import RunningServer

T = TypeVar("T")

TIMEOUT = 30.0  # s for a server to come up


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Redis:
    """A Redis server of its own; it can be stopped, killed and started again on the same port, with what it has saved."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port if port is not None else free_ports(1)[0]
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--save", "", "--appendonly", "no", "--enable-debug-command", "yes", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while "PONG" not in (said := self.cli("PING")) and "NOAUTH" not in said:
            assert time.monotonic() < deadline, said
            assert self._process is None or self._process.poll() is None, "redis-server has ended"
            time.sleep(0.02)

    def cli(self, *words: str) -> str:
        """What it says to a command."""
        command = ["redis-cli", "-p", str(self.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        return done.stdout + done.stderr

    def pause(self) -> None:
        """It does not answer, and its connections stay."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def kill(self) -> None:
        """As `kill -9`."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[Redis]:
    """One server, empty."""
    folder = Path(tempfile.mkdtemp(prefix="gs-redis-"))
    server = Redis(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """Six nodes: three primaries, a replica of each."""

    def __init__(self, nodes: Sequence[Redis]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def primary_of(self, key: str) -> Redis:
        """The node that has a key now."""
        for node in self.nodes:
            slot = node.cli("CLUSTER", "KEYSLOT", key).strip()
            if not slot.isdecimal():
                continue
            for line in node.cli("CLUSTER", "NODES").splitlines():
                words = line.split()
                if len(words) > 8 and "master" in words[2] and "fail" not in words[2]:
                    for span in words[8:]:
                        first, _, last = span.partition("-")
                        if first.isdecimal() and int(first) <= int(slot) <= int(last or first):
                            port = int(words[1].split("@")[0].rsplit(":", 1)[1])
                            return next(one for one in self.nodes if one.port == port)
        raise AssertionError(f"no node has {key}")


@contextlib.contextmanager
def redis_cluster() -> Iterator[Cluster]:
    """Six nodes, empty; a primary that does not answer is replaced within two seconds."""
    folder = Path(tempfile.mkdtemp(prefix="gs-cluster-"))
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]
    nodes: list[Redis] = []
    try:
        for number in range(6):
            port, bus = free_ports(2)
            nodes.append(Redis(folder / str(number), *options, "--cluster-port", str(bus), port=port))
            nodes[-1].start()
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        command = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        deadline = time.monotonic() + TIMEOUT
        while not all(_is_whole(node) for node in nodes):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Cluster(nodes)
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _is_whole(node: Redis) -> bool:
    links = node.cli("INFO", "replication")
    is_linked = "role:master" in links or "master_link_status:up" in links
    return "cluster_state:ok" in node.cli("CLUSTER", "INFO") and is_linked


class Postgres:
    """A PostgreSQL server of its own, which can be killed and started again with its data."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self._folder = folder
        self._programs = _postgres_programs()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def make(self) -> None:
        """An empty cluster of databases."""
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "game", "--auth=trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Returns when it answers."""
        (self._folder / "data" / "standby.signal").unlink(missing_ok=True)
        self._start(answer=0)

    def start_refusing(self) -> None:
        """Returns when it listens and lets nobody in, as while it recovers from a crash."""
        (self._folder / "data" / "standby.signal").touch()
        self._start("-c", "hot_standby=off", answer=1)

    def _start(self, *more: str, answer: int) -> None:
        options = ["-p", str(self.port), "-k", str(self._folder), "-c", "listen_addresses=127.0.0.1", *more]
        command = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **_as_other(self._folder)
        )
        deadline = time.monotonic() + TIMEOUT
        check = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        while subprocess.run(check, check=False).returncode != answer:
            assert time.monotonic() < deadline
            assert self._process.poll() is None, "postgres has ended"
            time.sleep(0.02)

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._databases += 1
        name = f"game{self._databases}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "game", name)
        return f"postgresql://game@127.0.0.1:{self.port}/{name}"

    def pause(self) -> None:
        """No process of it goes on."""
        for pid in self._all():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        for pid in self._all():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """As `kill -9` of all its processes."""
        if self._process is None:
            return
        for pid in self._all():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def _all(self) -> list[int]:
        assert self._process is not None
        own = self._process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        return [own, *map(int, children)]

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **_as_other(self._folder))
        assert done.returncode == 0, done.stdout + done.stderr


def _postgres_programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is not installed: apt install postgresql"
    return found[-1].parent


def _as_other(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "cwd": str(folder)}


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """One server, without databases."""
    folder = Path(tempfile.mkdtemp(prefix="gs-postgres-"))
    folder.chmod(0o755)
    server = Postgres(folder)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it holds, in a server's loop."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110, of a condition that nobody announces
            await asyncio.sleep(0.01)


def dead(server: RunningServer, subscriber: str | None = None) -> Sequence[DeadLetter]:
    """The dead letters of a server."""
    return ask(server, lambda: server.app.dead_letters.list(subscriber))


def ask(server: RunningServer, make: Callable[[], Coroutine[Any, Any, T]], timeout: float = 30.0) -> T:
    """What a coroutine gives that runs beside the server's handlers."""
    answer: Future[T] = Future()

    def begin() -> None:
        def done(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                answer.set_exception(RuntimeError("cancelled"))
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        asyncio.get_running_loop().create_task(make()).add_done_callback(done)

    server.app.call_soon_threadsafe(begin)
    return answer.result(timeout)
