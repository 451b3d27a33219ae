"""A client that sends its last requests and ends its half of the stream: all are answered, then the connection is closed."""

from __future__ import annotations

import asyncio
import socket

import pytest
from conftest import Serve, eventually
from wire_client import DATA, connected, read_message, request

from gameserver import App, Left, Session


@pytest.mark.parametrize("is_async", [False, True])
def test_the_last_requests_are_answered_and_then_it_has_left(serve: Serve, is_async: bool) -> None:
    app = App("half")
    story: list[str] = []

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        story.append("asked")
        return body

    @app.on("slow")
    async def slow(session: Session, body: bytes) -> bytes:
        story.append("asked")
        await asyncio.sleep(0.02)
        return body

    @app.on_leave
    def leave(session: Session, why: Left) -> None:
        story.append(why.value)

    with serve(app) as server:
        client = connected(server.port)
        asked = [request(number, "slow" if is_async else "echo", b"last") for number in range(1, 6)]
        client.send(b"".join(asked))
        client.socket.shutdown(socket.SHUT_WR)
        answers = [read_message(body) for kind, body in client.until_closed() if kind == DATA]
        assert [(answer.id, answer.body) for answer in answers] == [(number, b"last") for number in range(1, 6)]
        stats = eventually(server, lambda stats: stats["closed"]["left"] == 1)
        assert stats["sessions"] == 0
    assert story == ["asked"] * 5 + ["left"]
