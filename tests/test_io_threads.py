"""What becomes of a server when one of its I/O threads comes to an end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest
from wire_client import KICK, Client, connected

from gameserver import App, GameServerError, Left, Session
from gameserver.testing import RunningServer, running


def epolls() -> set[int]:
    """This process's epoll descriptors."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:[eventpoll]":
                found.add(int(name))
    return found


def test_a_server_whose_io_thread_has_ended_stops_in_order_and_says_so() -> None:
    app = App("half alive")
    before: set[int] = set()
    joined = threading.Semaphore(0)
    story: list[str] = []

    @app.on_start
    def start() -> None:
        before.update(epolls())  # the threads start after this

    @app.on_join
    def join() -> None:
        joined.release()

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        story.append(why.value)

    @app.on_stop
    def stop() -> None:
        story.append("stop")

    def until_it_ends() -> None:
        with running(app, io_threads=2, drain_timeout=2.0) as server:
            clients = [connected(server.port) for _ in range(8)]
            # Whose acknowledgement its thread has not read would never leave.
            assert all(joined.acquire(timeout=10) for _ in clients)
            # Its next wait is for a file that is no epoll: the kernel refuses it.
            epoll = min(epolls() - before)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, epoll)
            os.close(null)
            servers.append(server)
            # Clients of both threads hear of it: cut off, or kicked for the shutdown. Newcomers make both threads wake up.
            with contextlib.suppress(OSError):
                while True:
                    Client(server.port).close()
            kicks = [body for client in clients for kind, body in client.until_closed() if kind == KICK]
            assert set(kicks) <= {b'{"reason":"shutdown"}'}

    servers: list[RunningServer] = []
    with pytest.raises(GameServerError, match=r"I/O thread [12] of 2 has ended: waiting for sockets failed: .*stopped"):
        until_it_ends()
    [server] = servers
    assert story.count("stop") == 1
    assert len(story) == 9
    assert set(story) <= {"stop", "lost", "shutdown"}
    assert server.final_stats["pool"]["out"] == 0
    assert server.final_stats["sessions"] == 0
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", server.port)) != 0
