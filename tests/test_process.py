"""A server as a process: signals, exits, forks, the command line."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from wire_client import HEARTBEAT, KICK, Client, connected, packet, request

GAME = """
import os, sys, time
from gameserver import App, Session, Left
app = App("process", tick_rate=60)

@app.on("echo")
def echo(session: Session, body: bytes) -> bytes:
    return body

@app.on("stick")
def stick(session: Session) -> None:
    print("STUCK", flush=True)
    while True:
        pass

@app.on("stall")
def stall(session: Session, body: bytes) -> None:
    time.sleep(float(body))

@app.on("fork")
def fork(session: Session) -> str:
    read, write = os.pipe()
    if os.fork() == 0:
        for call in (lambda: session.push("x"), app.run, app.stop, lambda: app.task(None)):
            try:
                call()
                os.write(write, b"it worked")
            except RuntimeError as error:
                os.write(write, str(error).encode())
        os._exit(0)
    os.wait()
    return os.read(read, 1000).decode()

@app.tick
def step(dt: float) -> None:
    app.push("tick", b"x")

@app.on_stop
def stop() -> None:
    print("STOPPING", flush=True)

@app.on_leave
def leave(session: Session, why: Left) -> None:
    print("LEFT", why.value, flush=True)

@app.on_start
def start() -> None:
    print("PORT", app.port, flush=True)

if __name__ == "__main__":
    app.run(port=0, **eval(sys.argv[1]) if len(sys.argv) > 1 else {})
"""


@contextmanager
def process(tmp_path: Path, settings: str = "{}") -> Iterator[tuple[subprocess.Popen[str], int]]:
    game = tmp_path / "game.py"
    game.write_text(GAME)
    command = [sys.executable, str(game), settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line.startswith("PORT"):
                server.kill()
                raise AssertionError(line + server.stderr.read())  # type: ignore[union-attr]
            yield server, int(line.split()[1])
        finally:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("settings", ["{}", "{'io_threads': 2}"])
def test_a_signal_stops_in_order(tmp_path: Path, number: signal.Signals, settings: str) -> None:
    with process(tmp_path, settings) as (server, port):
        client = connected(port)
        assert client.request("echo", b"x").body == b"x"
        server.send_signal(number)
        packets = client.until_closed()
        assert [body for kind, body in packets if kind == KICK] == [b'{"reason":"shutdown"}']
        client.close()
        out, err = server.communicate(timeout=10)
        assert server.returncode == 0, err
        assert out.split() == ["STOPPING", "LEFT", "shutdown"]
        assert "Traceback" not in err


def test_a_second_signal_exits_at_once(tmp_path: Path) -> None:
    with process(tmp_path) as (server, port):
        client = connected(port)
        client.send(request(1, "stick"))
        assert server.stdout is not None
        assert server.stdout.readline() == "STUCK\n"
        server.send_signal(signal.SIGINT)
        while server.poll() is None:
            server.send_signal(signal.SIGINT)
        assert server.returncode == 128 + signal.SIGINT
        client.close()


def test_sigterm_lets_players_finish_where_there_is_a_grace(tmp_path: Path) -> None:
    with process(tmp_path, "{'drain_grace': 30.0}") as (server, port):
        client = connected(port)
        server.send_signal(signal.SIGTERM)
        newcomer = Client(port)
        while newcomer.handshake()["code"] == 200:  # until the signal is there
            newcomer.close()
            newcomer = Client(port)
        assert client.request("echo", b"x").body == b"x"
        client.close()
        out, err = server.communicate(timeout=10)
        assert server.returncode == 0, err
        assert out.split()[-1] == "STOPPING"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_grace(tmp_path: Path, second: signal.Signals) -> None:
    with process(tmp_path, "{'drain_grace': 30.0}") as (server, port):
        client = connected(port)
        server.send_signal(signal.SIGTERM)
        assert server.stdout is not None
        newcomer = Client(port)
        while newcomer.handshake()["code"] == 200:
            newcomer.close()
            newcomer = Client(port)
        server.send_signal(second)
        assert [body for kind, body in client.until_closed() if kind == KICK] == [b'{"reason":"shutdown"}']
        _, err = server.communicate(timeout=10)
        assert server.returncode == 0, err


def test_exit_during_traffic_leaves_no_hang_and_no_traceback(tmp_path: Path) -> None:
    for round in range(12):
        with process(tmp_path, f"{{'io_threads': {round % 3}, 'drain_timeout': 1.0}}") as (server, port):
            clients = [connected(port) for _ in range(8)]
            for client in clients:
                client.send(b"".join(request(number, "echo", b"x" * 100) for number in range(200)))
            server.send_signal(signal.SIGTERM)
            _, err = server.communicate(timeout=20)
            assert server.returncode == 0, (round, err)
            assert "Traceback" not in err, err
            assert "panic" not in err, err
            for client in clients:
                client.close()


def answer_heartbeats(clients: list[Client], done: threading.Event) -> None:
    """What a client library does beside the game."""
    while not done.is_set():
        for ready in select.select([client.socket for client in clients], [], [], 0.05)[0]:
            data = ready.recv(65536)
            for _ in range(data.count(packet(HEARTBEAT))):
                ready.sendall(packet(HEARTBEAT))


@pytest.mark.parametrize("threads", [0, 1])
def test_a_stall_closes_nobody(tmp_path: Path, threads: int) -> None:
    # Closed after 0.6 s of silence: the stall of the game's thread is five times as long.
    settings = f"{{'heartbeat': 0.2, 'stale_after': 0.3, 'tick_rate': 0, 'io_threads': {threads}}}"
    with process(tmp_path, settings) as (server, port):
        quiet = [connected(port) for _ in range(5)]
        done = threading.Event()
        pump = threading.Thread(target=answer_heartbeats, args=(quiet, done))
        pump.start()
        with connected(port) as busy:
            busy.send(request(1, "stall", b"3"))
            assert busy.response(1).body == b"null"
        done.set()
        pump.join()
        for client in quiet:
            assert client.request("echo", b"alive").body == b"alive"
            client.close()
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=10)
        assert "lost" not in out


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    with process(tmp_path) as (_, port), connected(port) as client:
        answer = client.request("fork").body
        assert answer.count(b"forked from a running server") == 4
        assert b"it worked" not in answer
        assert client.request("echo", b"x").body == b"x"


def test_a_taken_port_is_an_os_error(tmp_path: Path) -> None:
    with process(tmp_path) as (_, port):
        again = subprocess.run(
            [sys.executable, str(tmp_path / "game.py")],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GAMESERVER_PORT": str(port)},
        )
        assert again.returncode == 1
        assert "Address already in use" in again.stderr
        assert str(port) in again.stderr
