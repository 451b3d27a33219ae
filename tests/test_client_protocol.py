"""The Python client without sockets: bytes and time in, bytes and calls out."""

from __future__ import annotations

import json
import math
import struct
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_client import DATA, HANDSHAKE, HEARTBEAT, KICK, PUSH, REQUEST, RESPONSE, packet, read_message, varint

from gameserver import wire
from gameserver.client import ClientError, RemoteWorld
from gameserver.client._address import Address
from gameserver.client._link import Ended, Link
from gameserver.client._protocol import Options, Protocol
from gameserver.client._resumption import Outbox


def answer(**gs: Any) -> bytes:
    """A server's handshake."""
    sys = {"heartbeat": 10, "dict": {"said": 7}, "serializer": "json", "gs": {"session": "5", **gs}}
    return packet(HANDSHAKE, json.dumps({"code": 200, "sys": sys, "user": {}}).encode())


def response(id: int, body: bytes, *, error: bool = False) -> bytes:
    return packet(DATA, bytes([RESPONSE << 1 | 0x20 * error]) + varint(id) + body)


def push(route: str, body: bytes) -> bytes:
    return packet(DATA, bytes([PUSH << 1, len(route)]) + route.encode() + body)


def resume(token: str, seen: int | None = None) -> dict[str, Any]:
    return {"resume": {"grace": 20_000, "token": token, **({} if seen is None else {"seen": seen})}}


class Peer:
    """The server's side, and the driver: a `Protocol`, and what it sent and called."""

    def __init__(self, **options: Any) -> None:
        self.protocol = Protocol(Options(**options), random=lambda: 1.0)
        self.now = 100.0
        self.told: list[Any] = []
        for event in ("kick", "disconnect", "drop", "resume", "reconnect", "open"):
            self.protocol.on_event(event, lambda *given, event=event: self.told.append((event, *map(str, given))))

    def connected(self, **gs: Any) -> Peer:
        """With a connection, and what the server says of it."""
        self.protocol.connected(self.now, {})
        self.hello = json.loads(self.sent()[4:])
        self.feed(answer(**gs))
        return self

    def feed(self, data: bytes) -> None:
        self.protocol.feed(self.now, data)
        self.run()

    def run(self) -> None:
        while self.protocol.calls:
            function, arguments = self.protocol.calls.popleft()
            function(*arguments)

    def sent(self) -> bytes:
        return self.protocol.bytes_to_send()

    def messages(self) -> list[Any]:
        """Of the data packets that were sent since."""
        packets = wire.PacketDecoder().feed(self.sent())
        return [read_message(one.body) for one in packets if one.kind is wire.PacketKind.DATA]

    def request(self, route: str, body: Any = None, timeout: float | None = None) -> list[Any]:
        """What becomes of it comes into the list."""
        done: list[Any] = []
        self.protocol.request(self.now, route, body, timeout, False, lambda value, error: done.append(error or value))
        return done

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.protocol.due <= end:
            self.now = max(self.now, self.protocol.due)
            self.protocol.handle_timeouts(self.now)
            self.run()
        self.now = end


def test_asks_and_is_answered_in_any_order() -> None:
    peer = Peer().connected()
    assert peer.hello["sys"]["gs"] == {"serializer": "json", "schema": "", "resume": {}}
    one, other = peer.request("a", {"x": 1}), peer.request("b")
    sent = peer.messages()
    assert [(message.kind, message.id, message.route, message.body) for message in sent] == [
        (REQUEST, 1, "a", b'{"x": 1}'),
        (REQUEST, 2, "b", b"{}"),
    ]
    peer.feed(response(2, b"[1]") + response(1, b'{"code":"busy","msg":"no"}', error=True) + response(9, b"null"))
    assert other == [[1]]
    assert [str(error) for error in one] == ["busy: no"]
    assert peer.protocol.session == "5"


def test_a_request_times_out_and_its_late_answer_is_ignored() -> None:
    peer = Peer().connected()
    asked = peer.request("a", timeout=3)
    peer.advance(2.9)
    assert asked == []
    peer.advance(0.2)
    assert [error.code for error in asked] == ["timeout"]
    peer.feed(response(1, b"1"))
    assert len(asked) == 1


def test_pushes_reach_their_listeners_by_name_and_by_code() -> None:
    peer = Peer().connected()
    got: list[Any] = []
    peer.protocol.on(0.0, "said", got.append)
    peer.protocol.on(0.0, "$error", lambda error: got.append(error.code))
    peer.feed(push("said", b'"a"') + packet(DATA, bytes([PUSH << 1 | 1, 0, 7]) + b'"b"') + push("$~said", b'"c"'))
    peer.feed(push("$error", b'{"code":"GS-404","msg":""}') + push("other", b"{"))
    assert got == ["a", "b", "c", "GS-404"]
    peer.feed(packet(DATA, bytes([PUSH << 1 | 1, 0, 8])))
    assert peer.told[-1][0] == "disconnect"
    assert "in no dictionary" in peer.told[-1][1]


def test_heartbeats_are_answered_and_sent_and_silence_is_found() -> None:
    peer = Peer(reconnect=False).connected()
    peer.sent()
    peer.feed(packet(HEARTBEAT))
    assert peer.sent() == packet(HEARTBEAT)
    peer.advance(9.9)
    assert peer.sent() == b""
    peer.advance(0.2)
    assert peer.sent() == packet(HEARTBEAT)
    peer.advance(15)
    assert peer.told[-1][0] == "disconnect"
    assert "nothing heard" in peer.told[-1][1]
    assert peer.protocol.due == math.inf


def test_goes_on_with_what_the_server_lacks_and_tells_what_it_has() -> None:
    peer = Peer().connected(**resume("one"))
    asked = [peer.request("a", number) for number in range(3)]
    peer.feed(response(1, b"0") + push("said", b"1") + push("$~said", b"1"))
    peer.feed(b"")
    assert [told[0] for told in peer.told] == ["open", "drop", "disconnect"]
    peer.advance(0.39)
    assert not peer.protocol.wants_connection
    later = peer.request("late")
    peer.advance(0.02)
    assert peer.protocol.wants_connection
    peer.connected(**resume("two", 2))
    assert peer.hello["sys"]["gs"]["resume"] == {"token": "one", "seen": 2}
    assert [message.route for message in peer.messages()] == ["a", "late"]
    peer.feed(response(2, b"1") + response(3, b"2") + response(4, b'"x"'))
    assert (asked, later) == ([[0], [1], [2]], ["x"])
    assert peer.told[-1] == ("resume",)
    assert peer.protocol.is_resumed
    peer.feed(packet(HEARTBEAT))
    assert [(message.route, message.body) for message in peer.messages()] == [("$seen", b"5")]


def test_a_session_that_is_over_fails_what_was_asked() -> None:
    peer = Peer().connected(**resume("one"))
    asked = peer.request("a")
    peer.feed(b"")
    peer.advance(1)
    peer.connected(**resume("other"))
    assert [error.code for error in asked] == ["disconnected"]
    assert peer.told[-1] == ("reconnect",)
    assert peer.messages() == []


@pytest.mark.parametrize(
    "gs", [resume("x", 5), {"resume": {"token": "x", "seen": -1}}, {"resume": {"token": "x", "seen": "1"}}]
)
def test_a_server_that_goes_on_with_what_never_was_breaks_the_rules(gs: dict[str, Any]) -> None:
    peer = Peer().connected(**resume("one"))
    peer.request("a")
    peer.feed(b"")
    peer.advance(1)
    peer.connected(**gs)
    assert peer.protocol.state == "waiting"
    assert not peer.protocol.wants_socket


def test_while_the_connection_is_lost_no_more_is_kept_than_may_be() -> None:
    peer = Peer(outbox_bytes_max=40).connected(**resume("one"))
    peer.feed(b"")
    assert peer.protocol.notify(peer.now, "a", "x" * 20)
    assert not peer.protocol.notify(peer.now, "a", "x" * 20)
    with pytest.raises(ClientError, match="outbox-full"):
        peer.request("a", "x" * 20)


def test_a_kick_ends_it_a_restart_does_not() -> None:
    peer = Peer().connected(**resume("one"))
    asked = peer.request("a")
    peer.feed(packet(KICK, b'{"reason":"shutdown"}'))
    assert [error.code for error in asked] == ["kicked"]
    assert peer.protocol.state == "waiting"
    other = Peer().connected()
    other.feed(packet(KICK, b'{"reason":"cheating"}'))
    assert other.protocol.state == "closed"
    assert ("kick", "cheating") in other.told


def test_a_refusal_is_not_tried_again() -> None:
    peer = Peer()
    peer.protocol.connected(peer.now, {})
    peer.feed(packet(HANDSHAKE, b'{"code":500,"user":{"code":"banned","msg":"go"}}'))
    assert (peer.protocol.state, peer.told) == ("closed", [("disconnect", "banned: go", "None")])


def test_backoff_grows_to_its_bound() -> None:
    peer = Peer(attempts=6).connected()
    peer.feed(b"")
    waits = []
    while peer.protocol.state == "waiting":
        before = peer.now
        peer.advance(peer.protocol.due - peer.now)
        waits.append(round(peer.now - before, 3))
        peer.protocol.failed(peer.now, ClientError("unreachable", "no"))
        peer.run()
    assert waits == [0.4, 0.8, 1.6, 3.2, 6.4, 10.0]
    assert peer.told[-1] == ("disconnect", "unreachable: no", "None")


def test_inputs_leave_at_most_once_a_tick_the_newest() -> None:
    peer = Peer().connected()
    sent: list[Any] = []

    def collect() -> None:
        sent.extend((round(peer.now - 100, 3), message.body.decode()) for message in peer.messages())

    for number in range(3):
        peer.protocol.input(peer.now, "steer", number)
    collect()
    for _ in range(3):
        peer.advance(1 / 30)
        collect()
    peer.protocol.input(peer.now, "steer", 9)
    collect()
    assert [body for _, body in sent] == ["0", "2", "9"]
    assert sent[1][0] == 0.033


def test_close_says_goodbye() -> None:
    peer = Peer().connected(**resume("one"))
    asked = peer.request("a")
    peer.messages()
    peer.protocol.close(peer.now)
    peer.run()
    assert [message.route for message in peer.messages()] == ["$leave"]
    assert [error.code for error in asked] == ["closed"]
    assert not peer.protocol.wants_socket
    with pytest.raises(ClientError, match="closed"):
        peer.request("b")


@given(st.lists(st.integers(0, 400), max_size=12), st.sampled_from([None, "game:1"]))
def test_the_stream_may_be_cut_anywhere(cuts: list[int], host: str | None) -> None:
    peer = Peer(host=host)
    peer.protocol.connected(peer.now, {})
    stream = answer() + push("said", b"1") + packet(HEARTBEAT) + push("said", b"2")
    if host:
        server = wire.WebSocket.server()
        server.feed(peer.sent())
        head = server.bytes_to_send()
        for one in (answer(), push("said", b"1") + packet(HEARTBEAT), push("said", b"2")):
            server.send_binary(one)
        stream = head + server.bytes_to_send()
    got: list[Any] = []
    peer.protocol.on(0.0, "said", got.append)
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    for start, end in pairwise(places):
        peer.feed(stream[start:end])
    assert (got, peer.protocol.state) == ([1, 2], "open")


PIECES = [answer(), push("said", b"1"), push("$w", b"\1"), push("$seen", b"9")]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(PIECES)), max_size=5))
def test_any_bytes_are_understood_or_end_the_connection(pieces: list[bytes]) -> None:
    peer = Peer(world=True, reconnect=False)
    peer.protocol.connected(peer.now, {})
    for piece in pieces:
        if piece:
            peer.feed(piece)
    assert peer.protocol.wants_socket == (peer.protocol.state != "closed")


@given(st.lists(st.one_of(st.binary(min_size=1, max_size=9), st.integers(0, 6)), max_size=40))
def test_an_outbox_keeps_the_newest_that_were_not_seen(steps: list[bytes | int]) -> None:
    outbox, all_sent, seen = Outbox(20), list[bytes](), 0
    for step in steps:
        if isinstance(step, bytes):
            outbox.keep(step)
            all_sent.append(step)
            continue
        seen = min(seen + step, len(all_sent))
        kept_all = deque(all_sent[len(all_sent) - len(outbox.messages) :]) == outbox.messages
        assert outbox.handle_seen(seen) == (seen >= len(all_sent) - len(outbox.messages))
        assert kept_all
    assert sum(map(len, outbox.messages)) <= 20
    assert not outbox.handle_seen(len(all_sent) + 1)


def test_addresses() -> None:
    assert Address.of("ws://h").authority == "h:80"
    assert Address.of("tls://[::1]:5").authority == "[::1]:5"
    assert Address.of("wss://h/a?b").target == "/a?b"
    for url in ("http://h", "h:5", "ws://", ""):
        with pytest.raises(ValueError, match="write ws://"):
            Address.of(url)


def test_a_link_that_has_ended_says_nothing_more() -> None:
    link = Link(b"{}", host=None, target="/", now=0, timeout=5, body_bytes_max=100)
    [ended] = link.feed(1, b"\xff")
    assert isinstance(ended, Ended)
    assert (link.feed(2, answer()), link.feed_eof(), link.handle_timeouts(99), link.due) == ([], [], [], math.inf)
    late = Link(b"{}", host=None, target="/", now=0, timeout=5, body_bytes_max=100)
    [ended] = late.handle_timeouts(5)
    assert isinstance(ended, Ended)
    assert ended.error.code == "timeout"


@pytest.mark.parametrize("rate", [math.inf, math.nan, -1, 0, "20", None, 1e300])
@pytest.mark.parametrize("every", [0, -3, "often", 1.5, None, 10**30])
def test_a_world_of_nonsense_is_drawn_all_the_same(rate: Any, every: Any) -> None:
    column = {"name": "x", "type": "f32", "interpolate": True, "every": every}
    world = RemoteWorld()
    world._begin({"tick_rate": rate, "cell": "wide", "tables": [{"name": "Ship", "columns": [column]}]}, False)
    for tick in range(1, 4):  # one block of one entity that moves
        world._apply(5.0 + tick, bytes([tick * 2 + (tick == 1), 2, 0, 1, 0, 0]) + struct.pack("<f", tick))
        world.sample(5.0 + tick)
    [ship] = world.sample(60.0)["Ship"]
    assert 1 <= ship.x <= 3
    assert world.tick_rate == 30.0
