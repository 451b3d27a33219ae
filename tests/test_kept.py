"""What a handler was given and has not kept becomes what it is given next: what it has kept stays as it was."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from conftest import Serve
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_client import Client, connected, notify

from gameserver import App, Message, f32, f64, i64, u32


class Mood(IntEnum):
    CALM = 0
    WILD = 3


class Flat(Message):
    number: u32
    far: i64
    y: f64
    flag: bool
    text: str
    raw: bytes
    mood: Mood
    x: f32 = 0.5
    maybe: f64 | None = None


class Note:
    __slots__ = ("note",)
    note: object


class Noted(Note, Message):
    number: u32


class Shout(str):
    __slots__ = ()


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FLATS = st.builds(
    Flat,
    number=st.sampled_from([0, 1, 200, 300_000]),
    far=st.sampled_from([0, -1, 1 << 40]),
    x=FLOATS,
    y=FLOATS,
    flag=st.booleans(),
    text=st.sampled_from(["", "a", "four", "file", "lines", "höher"]),
    raw=st.sampled_from([b"", b"x", b"many bytes"]),
    mood=st.sampled_from(Mood),
    maybe=st.none() | FLOATS,
)
FIELDS = list(Flat.__match_args__)
ACTS = ["look", "keep", "keep values", "change", "shout", "break", "delete"]
BODIES = [b"", b"a", b"ab", b"ba", b"cd", b"abc"]


def test_a_message_that_a_handler_keeps_stays_as_it_was(serve: Serve) -> None:
    app = App("test")
    acts: list[str] = []
    seen: list[str] = []
    kept: dict[int, Any] = {}

    @app.on
    def flat(msg: Flat) -> None:
        act = acts[len(seen)]
        seen.append(repr(msg))
        assert type(msg.text) is str
        match act:
            case "keep":
                kept[len(seen) - 1] = msg
            case "keep values":
                kept[len(seen) - 1] = [getattr(msg, name) for name in FIELDS]
            case "change":
                msg.x, msg.text, msg.maybe = 9.75, "changed", None
            case "shout":
                msg.text = Shout("four")
            case "break":
                msg.text = "\ud800"  # no text that could come
            case "delete":
                del msg.y

    @app.on("done")
    def done() -> None: ...

    with serve(app) as server, Client(server.port) as client:
        client.handshake(b'{"sys":{"gs":{"serializer":"protobuf"}}}')

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.tuples(FLATS, st.sampled_from(ACTS)), min_size=1, max_size=30))
        def check(sent: list[tuple[Flat, str]]) -> None:
            acts[:] = [act for _, act in sent]
            seen.clear()
            kept.clear()
            bodies = [message.encode() for message, _ in sent]
            client.send(b"".join(notify("Flat", body) for body in bodies))
            client.request("done")
            fresh = [Flat.decode(body) for body in bodies]
            assert seen == [repr(message) for message in fresh]
            for index, value in kept.items():
                values = [getattr(fresh[index], name) for name in FIELDS]
                assert (value if isinstance(value, list) else [getattr(value, name) for name in FIELDS]) == values
            assert set(kept) == {index for index, act in enumerate(acts) if act.startswith("keep")}

        check()
        assert server.stats()["errors"] == []


def test_what_a_handler_adds_to_a_message_is_in_no_other(serve: Serve) -> None:
    app = App("test")
    found: list[object] = []

    @app.on
    def noted(msg: Noted) -> None:
        found.append(getattr(msg, "note", None))
        msg.note = msg.number

    @app.on("done")
    def done() -> None: ...

    with serve(app) as server, Client(server.port) as client:
        client.handshake(b'{"sys":{"gs":{"serializer":"protobuf"}}}')
        client.send(b"".join(notify("Noted", Noted(number).encode()) for number in range(5)))
        client.request("done")
        assert found == [None] * 5


def test_bytes_that_a_handler_keeps_stay_as_they_were(serve: Serve) -> None:
    app = App("test")
    acts: list[str] = []
    hashes: list[int] = []
    kept: dict[int, Any] = {}

    @app.on("raw")
    def raw(body: bytes) -> None:
        act = acts[len(hashes)]
        if act == "keep":
            kept[len(hashes)] = body
        elif act == "view":
            kept[len(hashes)] = memoryview(body)
        hashes.append(hash(body) if act != "look" else 0)

    @app.on("done")
    def done() -> None: ...

    with serve(app) as server, connected(server.port) as client:

        @settings(max_examples=60, deadline=None)
        @given(
            st.lists(
                st.tuples(st.sampled_from(BODIES), st.sampled_from(["look", "hash", "keep", "view"])),
                min_size=1,
                max_size=40,
            )
        )
        def check(sent: list[tuple[bytes, str]]) -> None:
            acts[:] = [act for _, act in sent]
            hashes.clear()
            kept.clear()
            client.send(b"".join(notify("raw", body) for body, _ in sent))
            client.request("done")
            assert hashes == [hash(body) if act != "look" else 0 for body, act in sent]
            assert {index: bytes(value) for index, value in kept.items()} == {
                index: body for index, (body, act) in enumerate(sent) if act in ("keep", "view")
            }

        check()
        assert server.stats()["errors"] == []
