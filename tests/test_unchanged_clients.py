"""Rules of existing clients (libpitaya, Pitaya's Go client, Pomelo's JS clients), each with that client's exact bytes."""

from __future__ import annotations

import json
import zlib

import pytest
from conftest import Serve, eventually
from websockets.sync.client import connect
from wire_client import (
    ACK,
    DATA,
    HANDSHAKE,
    HEARTBEAT,
    KICK,
    LIBPITAYA_HANDSHAKE,
    POMELO_HANDSHAKE,
    Client,
    connected,
    notify,
    packet,
    request,
    varint,
)

from gameserver import App, Session

GO_HANDSHAKE = (
    b'{"sys":{"platform":"mac","libVersion":"0.3.5-release","clientBuildNumber":"20","clientVersion":"1.0.0"},'
    b'"user":{"age":30}}'
)
# Pitaya's first Go client sends its source text as it stands, with the line feeds and tabs around and in it.
GO_V1_HANDSHAKE = (
    b'\n{\n\t"sys": {\n\t\t"platform": "mac",\n\t\t"libVersion": "0.3.5-release",\n\t\t"clientBuildNumber":"20",\n'
    b'\t\t"clientVersion":"2.1"\n\t},\n\t"user": {\n\t\t"age": 30\n\t}\n}\n'
)
PYPOMELO_HANDSHAKE = b'{"sys": {"version": "1.1.1", "type": "socket"}, "user": {}}'
# pomelo-jsclient-websocket of npm, with the `user` that its caller may leave undefined.
POMELO_NPM_HANDSHAKE = b'{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{},"protoVersion":0}}'
STARX_HANDSHAKE = b'{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}},"user":{}}'


def game() -> App:
    app = App("old clients")

    @app.on("room.room.join")
    def join(session: Session, body: bytes) -> bytes:
        app.group("room").add(session)
        session.push("onMembers", {"members": [session.id]})
        return b'{"code":200}'

    @app.on("room.room.message")
    def message(session: Session, body: bytes) -> None:
        app.group("room").push("onMessage", body)

    @app.on("room.room.empty")
    def empty(session: Session, body: bytes) -> None:
        session.push("onEmpty")

    @app.on("room.room.kick")
    def kick(session: Session) -> None:
        session.kick("bye")

    @app.on("room.room.echo")
    def echo(body: bytes) -> bytes:
        return body

    return app


@pytest.mark.parametrize(
    "hello",
    [
        POMELO_HANDSHAKE,
        POMELO_NPM_HANDSHAKE,
        LIBPITAYA_HANDSHAKE,
        GO_HANDSHAKE,
        GO_V1_HANDSHAKE,
        STARX_HANDSHAKE,
        PYPOMELO_HANDSHAKE,
        b'{"sys":{}}',
        b"{}",
    ],
)
def test_it_connects_requests_notifies_and_is_pushed_to(serve: Serve, hello: bytes) -> None:
    with serve(game()) as server, Client(server.port) as client:
        client.handshake(hello)
        assert client.request("room.room.join", b"{}").body == b'{"code":200}'
        assert "members" in json.loads(client.push("onMembers").body)
        client.send(notify("room.room.message", b'{"text":"hi"}'))
        assert client.push("onMessage").body == b'{"text":"hi"}'


def test_1_the_first_packet_is_the_handshake_answer_in_one_write_of_no_odd_length(serve: Serve) -> None:
    with serve(game()) as server, Client(server.port) as client:
        client.send(packet(HANDSHAKE, POMELO_HANDSHAKE))
        data = client.socket.recv(65536)
        assert data[0] == HANDSHAKE
        assert len(data) == 4 + int.from_bytes(data[1:4], "big")
        assert len(data) % 1024 != 0


def test_2_and_3_heartbeat_is_an_integer_and_nothing_unasked_is_told(serve: Serve) -> None:
    with serve(game(), heartbeat=1.5) as server, Client(server.port) as client:
        client.send(packet(HANDSHAKE, LIBPITAYA_HANDSHAKE))
        kind, answer = client.read_packet()
        assert kind == HANDSHAKE
        assert b'"heartbeat":2' in answer
        hello = json.loads(answer)
        assert hello["code"] == 200
        assert "useDict" not in hello["sys"]
        assert "gs" not in hello["sys"]
        assert hello["sys"]["dict"] == {}
        assert hello["sys"]["serializer"] == "json"
        assert answer.isascii()


def test_4_a_heartbeat_comes_right_after_the_ack_and_again_whatever_else_is_sent(serve: Serve) -> None:
    app = game()

    @app.every(0.01)
    def chatter() -> None:
        app.push("chatter", b"{}")

    with serve(app, heartbeat=0.2) as server, Client(server.port) as client:
        client.send(packet(HANDSHAKE, STARX_HANDSHAKE))
        assert client.read_packet()[0] == HANDSHAKE
        client.send(packet(ACK))
        assert client.read_packet() == (HEARTBEAT, b"")
        seen = 0
        while seen < 3:
            kind, _ = client.read_packet()
            if kind == HEARTBEAT:
                seen += 1
                client.send(packet(HEARTBEAT))


def test_4_a_client_that_only_answers_heartbeats_stays(serve: Serve) -> None:
    with serve(game(), heartbeat=0.1, stale_after=0.25) as server, connected(server.port) as client:
        for _ in range(8):
            assert client.read_packet() == (HEARTBEAT, b"")
            client.send(packet(HEARTBEAT))
        assert client.request("room.room.echo", b"x").body == b"x"


def test_4_a_javascript_client_that_answers_every_second_heartbeat_only_stays_active(serve: Serve) -> None:
    """Both JS clients answer one interval late, and drop the heartbeat that comes meanwhile: two intervals between answers."""
    app = game()
    dropped: list[int] = []

    @app.on_drop
    def drop(session: Session) -> None:
        dropped.append(session.id)

    with serve(app, heartbeat=0.25, stale_after=0.7) as server, connected(server.port) as client:
        for _ in range(4):
            assert client.read_packet() == (HEARTBEAT, b"")
            assert client.read_packet() == (HEARTBEAT, b"")
            client.send(packet(HEARTBEAT))
        assert client.request("room.room.echo", b"x").body == b"x"
        assert server.call(lambda: list(dropped)) == []


def test_a_silent_client_is_closed(serve: Serve) -> None:
    with serve(game(), heartbeat=0.1, stale_after=0.2) as server, connected(server.port) as client:
        kinds = [kind for kind, _ in client.until_closed()]
        assert set(kinds) <= {HEARTBEAT, KICK}
        eventually(server, lambda stats: stats["closed"]["silent"] == 1)


def test_5_a_compressed_body_is_inflated_and_bounded(serve: Serve) -> None:
    with serve(game(), body_bytes_max=4096) as server:
        with connected(server.port) as client:
            body = zlib.compress(b"a" * 4000)
            name = b"room.room.echo"
            client.send(packet(DATA, b"\x10" + varint(9) + bytes([len(name)]) + name + body))
            answer = client.response(9)
            assert answer.body in (b"a" * 4000, body) or zlib.decompress(answer.body) == b"a" * 4000
        with connected(server.port) as client:
            bomb = zlib.compress(b"a" * 4_000_000)
            assert len(bomb) < 4096
            client.send(packet(DATA, b"\x10" + varint(9) + bytes([len(name)]) + name + bomb))
            client.until_closed()
        with connected(server.port) as client:
            client.send(packet(DATA, b"\x10" + varint(9) + bytes([len(name)]) + name + b"no zlib"))
            client.until_closed()
        eventually(server, lambda stats: stats["closed"]["inflate-invalid"] == 2)


def test_6_and_7_bodies_toward_json_clients_are_never_empty_and_ascii(serve: Serve) -> None:
    with serve(game()) as server, connected(server.port) as client:
        assert json.loads(client.request("room.room.empty").body) is None
        assert json.loads(client.push("onEmpty").body) in ({}, None)
        client.request("room.room.join", b"{}")
        answer = client.request("room.room.nowhere", b"{}")
        assert answer.error
        assert json.loads(answer.body)["code"] == "GS-404"
        client.send(request(77, "room.room.kick", b"{}"))
        kicks = [body for kind, body in client.until_closed() if kind == KICK]
        assert [json.loads(body) for body in kicks] == [{"reason": "bye"}]


def test_6_an_error_and_a_push_of_nothing_are_json_objects_in_a_message_without_unknown_flags(serve: Serve) -> None:
    """pypomelo looks at the flag's low four bits only, and insists that every body is an object."""
    with serve(game()) as server, Client(server.port) as client:
        client.handshake(PYPOMELO_HANDSHAKE)
        answer = client.request("room.room.nowhere", b"{}")
        assert answer.error
        assert isinstance(json.loads(answer.body), dict)
        client.send(notify("room.room.empty", b"{}"))
        assert json.loads(client.push("onEmpty").body) == {}
        client.send(request(9, "room.room.echo", b'{"a":"' + b"a" * 4000 + b'"}'))
        while (got := client.read_packet())[0] != DATA:
            pass
        assert got[1][0] == 0x04, "a response, not compressed"


def test_one_packet_in_each_websocket_frame(serve: Serve) -> None:
    """pomelo-nodejsclient-websocket takes one packet out of a frame, and fails on several."""
    with serve(game()) as server, connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as peer:
        peer.send(packet(HANDSHAKE, STARX_HANDSHAKE))
        hello = peer.recv(10)
        assert isinstance(hello, bytes)
        assert hello[0] == HANDSHAKE
        peer.send(packet(ACK))
        peer.send(b"".join(request(n, "room.room.echo", b"%d" % n) for n in range(1, 301)))
        answers = 0
        while answers < 300:
            frame = peer.recv(10)
            assert isinstance(frame, bytes)
            assert len(frame) == 4 + int.from_bytes(frame[1:4], "big")
            answers += frame[0] == DATA


def test_nothing_is_sent_between_the_handshake_answer_and_the_ack(serve: Serve) -> None:
    """Pitaya's Go client throws away what it read together with the handshake answer."""
    app = game()

    @app.every(0.01)
    def chatter() -> None:
        app.push("chatter", b"{}")

    with serve(app) as server, Client(server.port) as client, connected(server.port) as other:
        client.send(packet(HANDSHAKE, GO_V1_HANDSHAKE))
        assert client.read_packet()[0] == HANDSHAKE
        for _ in range(5):
            other.push("chatter")  # that long, at least
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.socket.recv(1)
        client.socket.settimeout(10)
        client.send(packet(ACK))
        assert client.read_packet() == (HEARTBEAT, b"")
        assert client.push("chatter").body == b"{}"


def test_8_ids_begin_anywhere_zero_included(serve: Serve) -> None:
    with serve(game()) as server, connected(server.port) as client:
        for number in (0, 1, 127, 128, 300, 2**31, 2**32 - 1):
            client.send(request(number, "room.room.echo", b"x"))
            assert client.response(number).body == b"x"


def test_9_after_a_refusal_the_server_closes(serve: Serve) -> None:
    with serve(game()) as server, Client(server.port) as client:
        client.send(packet(HANDSHAKE, b"no json"))
        client.until_closed()
        eventually(server, lambda stats: stats["closed"]["handshake-invalid"] == 1)


def test_10_handshake_ack_and_request_in_one_write(serve: Serve) -> None:
    with serve(game()) as server, Client(server.port) as client:
        client.send(packet(HANDSHAKE, b'{"sys":{}}') + packet(ACK) + request(5, "room.room.echo", b"now"))
        assert client.read_packet()[0] == HANDSHAKE
        assert client.response(5).body == b"now"


def test_11_long_routes_and_unknown_notifies(serve: Serve) -> None:
    app = game()
    long = "r" * 255

    @app.on(long)
    def handle(body: bytes) -> bytes:
        return body

    with serve(app) as server, connected(server.port) as client:
        assert client.request(long, b"x").body == b"x"
        client.send(notify("nobody", b"x"))
        assert client.request(long, b"y").body == b"y"
        eventually(server, lambda stats: stats["messages"]["unknown_route"] == 1)


def test_12_a_clients_kick_or_push_is_ignored_and_counted(serve: Serve) -> None:
    with serve(game()) as server, connected(server.port) as client:
        client.send(packet(KICK, b"{}") + packet(DATA, b"\x06\x01ax"))
        assert client.request("room.room.echo", b"x").body == b"x"
        eventually(server, lambda stats: stats["messages"]["ignored"] == 2)


def test_it_comes_back(serve: Serve) -> None:
    with serve(game()) as server:
        for first in (1, 40):  # libpitaya and JS go on counting their ids
            with connected(server.port) as client:
                client.send(request(first, "room.room.echo", b"x"))
                assert client.response(first).body == b"x"
