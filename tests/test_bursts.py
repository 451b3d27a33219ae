"""Messages that come in one piece: each finds what those before it have left, whatever that was."""

from __future__ import annotations

import contextvars
import json

from conftest import Serve
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import DATA, Message, connected, request

from gameserver import App, Refuse, Session

BIG = b"x" * 40_000
"""Two of these are more than may wait for a client before its next message does."""
ACTS = ["answer", "push", "push to all", "big", "nothing", "refuse", "set", "own bytes", "close"]


def test_each_message_of_a_burst_finds_what_those_before_it_left(serve: Serve) -> None:
    app = App("test")
    handled: list[str] = []
    set_by: contextvars.ContextVar[str] = contextvars.ContextVar("set_by", default="nobody")

    class Own(bytes):
        """Enters the core when it goes."""

        def __del__(self) -> None:
            app.push("gone", bytes(self))

    @app.on("act")
    def act(session: Session, body: bytes) -> bytes | None:
        kind = body.decode()
        handled.append(kind)
        assert set_by.get() == "nobody"
        assert "big" in handled or session.messages_in == len(handled)
        match kind:
            case "push":
                session.push("pushed", b"one")
            case "push to all":
                app.push("pushed", b"all")
            case "big":
                return BIG
            case "nothing":
                return None
            case "refuse":
                raise Refuse("NO", "no")
            case "set":
                set_by.set("me")
            case "own bytes":
                return Own(b"mine")
            case "close":
                session.close()
        return body

    def told(kind: str) -> list[tuple[str, bytes]]:
        """What the client gets for one, in order."""
        match kind:
            case "push":
                return [("pushed", b"one"), ("answer", b"push")]
            case "push to all":
                return [("pushed", b"all"), ("answer", b"push to all")]
            case "big":
                return [("answer", BIG)]
            case "nothing":
                return [("answer", b"null")]
            case "refuse":
                return [("error", b"NO")]
            case "own bytes":
                return [("answer", b"mine"), ("gone", b"mine")]
        return [("answer", kind.encode())]

    def shown(message: Message) -> tuple[str, bytes]:
        if message.error:
            return ("error", json.loads(message.body)["code"].encode())
        return (message.route or "answer", message.body)

    with serve(app) as server:

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.sampled_from(ACTS), min_size=1, max_size=24))
        def check(acts: list[str]) -> None:
            handled.clear()
            lives = acts[: acts.index("close")] if "close" in acts else acts
            with connected(server.port) as client:
                client.send(b"".join(request(number, "act", kind.encode()) for number, kind in enumerate(acts, 1)))
                due = [one for kind in lives for one in told(kind)]
                messages = client.messages()
                assert [shown(next(messages)) for _ in due] == due
                if "close" in acts:
                    assert all(kind != DATA for kind, _ in client.until_closed())
            assert handled == acts[: len(lives) + 1]

        check()
        assert server.stats()["errors"] == []


def test_a_burst_is_answered_in_full_though_its_answers_are_longer_than_the_queue(serve: Serve) -> None:
    app = App("test", queue_bytes_max=1 << 20)
    count = 60
    assert len(BIG) * count > 2 << 20

    @app.on("big")
    def big(session: Session, body: bytes) -> bytes:
        return BIG

    with serve(app) as server, connected(server.port) as client:
        client.send(b"".join(request(number, "big") for number in range(1, count + 1)))
        assert all(client.response(number).body == BIG for number in range(1, count + 1))
