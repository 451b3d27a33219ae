"""Bytes that break the rules: the connection is closed with a counted reason, nobody else notices, nothing leaks."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest
from conftest import Serve, eventually
from wire_client import ACK, DATA, HANDSHAKE, POMELO_HANDSHAKE, Client, connected, packet, request

from gameserver import App, Session

HELLO = packet(HANDSHAKE, POMELO_HANDSHAKE)
READY = HELLO + packet(ACK)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(first: int, payload: bytes) -> bytes:
    assert len(payload) < 126
    return bytes([first, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


ATTACKS = {
    "unknown first byte": (b"\x09\0\0\0", "unknown-protocol"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "unknown-protocol"),
    "unknown packet": (READY + b"\x09\0\0\0", "packet-type"),
    "packet zero": (READY + b"\0\0\0\0", "packet-type"),
    "too long before login": (b"\x01\xff\xff\xff", "packet-too-long"),
    "too long after login": (READY + b"\x04\xff\xff\xff", "packet-too-long"),
    "data before ack": (HELLO + packet(DATA, b"\x02\x01a"), "data-before-ack"),
    "two handshakes": (READY + HELLO, "handshake-twice"),
    "handshake is a list": (packet(HANDSHAKE, b"[]"), "handshake-invalid"),
    "handshake is deep": (packet(HANDSHAKE, b'{"user":' + b"[" * 2000 + b"]" * 2000 + b"}"), "handshake-invalid"),
    "handshake is no UTF-8": (packet(HANDSHAKE, b'{"a":"\xff"}'), "handshake-invalid"),
    "empty data": (READY + packet(DATA), "message-invalid"),
    "message type 4": (READY + packet(DATA, b"\x08\x01a"), "message-invalid"),
    "message type 7": (READY + packet(DATA, b"\x0e\x01a"), "message-invalid"),
    "flag bit 6": (READY + packet(DATA, b"\x42\x01a"), "message-invalid"),
    "flag bit 7": (READY + packet(DATA, b"\x82\x01a"), "message-invalid"),
    "varint of six bytes": (READY + packet(DATA, b"\x00\xff\xff\xff\xff\xff\x01\x01a"), "message-invalid"),
    "varint over 32 bits": (READY + packet(DATA, b"\x00\xff\xff\xff\xff\x7f\x01a"), "message-invalid"),
    "varint cut off": (READY + packet(DATA, b"\x00\x80"), "message-invalid"),
    "route runs over": (READY + packet(DATA, b"\x02\x09abc"), "message-invalid"),
    "route is no UTF-8": (READY + packet(DATA, b"\x02\x02\xff\xfe"), "route-invalid"),
    "route code never given": (READY + packet(DATA, b"\x03\x00\x07"), "route-invalid"),
    "HTTP garbage": (b"GET \x00\x01\r\n\r\n", "http-invalid"),
    "HTTP header without end": (b"GET / HTTP/1.1\r\nX: " + b"a" * 20000, "http-invalid"),
    "WebSocket unmasked": (UPGRADE + b"\x82\x02ab", "websocket-invalid"),
    "WebSocket reserved bit": (UPGRADE + masked(0xC2, b"x"), "websocket-invalid"),
    "WebSocket opcode 3": (UPGRADE + masked(0x83, b"x"), "websocket-invalid"),
    "WebSocket text": (UPGRADE + masked(0x81, b"x"), "websocket-invalid"),
    "WebSocket oversized": (UPGRADE + b"\x82\xff" + struct.pack(">Q", 1 << 40), "websocket-invalid"),
    "WebSocket long ping": (UPGRADE + b"\x89\xfe\x00\x80" + b"\0" * 4, "websocket-invalid"),
    "WebSocket continues nothing": (UPGRADE + masked(0x80, b"x"), "websocket-invalid"),
    "WebSocket packet type": (UPGRADE + masked(0x82, b"\x09\0\0\0"), "packet-type"),
}


@pytest.mark.parametrize("name", list(ATTACKS))
def test_rules_are_kept(serve: Serve, name: str) -> None:
    attack, reason = ATTACKS[name]
    app = App("attacked")

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    with serve(app) as server, connected(server.port) as good:
        with socket.create_connection(("127.0.0.1", server.port), 10) as bad:
            bad.sendall(attack)
            while True:  # closed, whatever was said before
                try:
                    if not bad.recv(65536):
                        break
                except ConnectionResetError:
                    break
        assert good.request("echo", b"still here").body == b"still here"
        stats = eventually(server, lambda stats: sum(stats["closed"].values()) == 1)
        closed = {why: count for why, count in stats["closed"].items() if count}
        assert reason is None or closed == {reason: 1}


def test_a_handshake_that_never_comes_is_closed(serve: Serve) -> None:
    with serve(App("slow"), handshake_timeout=0.2) as server:
        clients = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(4)]
        clients[1].sendall(HELLO[:10])
        clients[2].sendall(HELLO)  # no ack
        clients[3].sendall(UPGRADE[:30])
        for client in clients:
            while client.recv(4096):
                pass
            client.close()
        eventually(server, lambda stats: stats["closed"]["handshake-timeout"] == 4)


def test_a_declared_length_reserves_nothing(serve: Serve) -> None:
    with serve(App("bombed"), body_bytes_max=16_000_000) as server:
        clients = [connected(server.port) for _ in range(50)]
        for client in clients:
            client.send(b"\x04" + (15_000_000).to_bytes(3, "big") + b"\x02\x01a")
        for client in clients:
            client.send(b"x")
        assert server.call(app_pool_bytes, server.app) < 50 * 16 * 1024
        for client in clients:
            client.close()


def app_pool_bytes(app: App) -> int:
    """Buffers out, counted as if each were of the smallest class but one."""
    return int(app.stats()["pool"]["out"]) * 2048


def test_connection_caps(serve: Serve) -> None:
    app = App("capped")

    @app.on("echo")
    def echo(body: bytes) -> bytes:
        return body

    with serve(app, max_connections_per_address=2) as server:
        good = [connected(server.port) for _ in range(2)]
        with Client(server.port) as third:
            third.until_closed()
        good.pop().close()
        while True:  # the place is free as soon as the server has seen the close
            try:
                client = connected(server.port)
                break
            except (EOFError, OSError):
                continue
        assert client.request("echo", b"x").body == b"x"
        assert server.stats()["connections"]["refused_address"] >= 1
        client.close()
        good.pop().close()


def test_a_slow_client_is_closed_and_costs_nobody(serve: Serve) -> None:
    app = App("slow")

    @app.on("flood")
    def flood(session: Session) -> None:
        for _ in range(100):
            app.push("flood", bytes(60_000))

    @app.on("echo")
    def echo(body: bytes) -> bytes:
        return body

    with serve(app, queue_bytes_max=100_000) as server:
        slow = connected(server.port)
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        fast = connected(server.port)
        closed = 0
        for _ in range(50):
            fast.send(request(1, "flood"))
            try:
                fast.response(1)
            except EOFError:
                fast = connected(server.port)
            fast.pushes.clear()
            closed = server.stats()["closed"]["slow"]
            if closed:
                break
        assert closed >= 1
        with connected(server.port) as other:
            assert other.request("echo", b"x").body == b"x"
        slow.close()
        fast.close()


def test_requests_that_are_not_read_are_slowed_down_not_answered_into_memory(serve: Serve) -> None:
    app = App("pipelined")
    answered = 0

    @app.on("big")
    def big(session: Session) -> bytes:
        nonlocal answered
        answered += 1
        return bytes(50_000)

    @app.on("echo")
    def echo(body: bytes) -> bytes:
        return body

    with serve(app) as server, connected(server.port) as greedy, connected(server.port) as good:
        greedy.socket.settimeout(0.2)
        number = 0
        with contextlib.suppress(TimeoutError):
            while True:
                number += 1
                greedy.send(request(number, "big"))
        for _ in range(20):
            assert good.request("echo", b"x").body == b"x"
        assert answered * 50_000 < 64_000_000
        eventually(server, lambda stats: stats["closed"]["slow"] == 0)
