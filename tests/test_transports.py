"""One port: raw packets, WebSocket, TLS and plain HTTP; IPv4, IPv6 and Unix sockets."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, eventually
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin
from wire_client import (
    ACK,
    DATA,
    HANDSHAKE,
    HEARTBEAT,
    POMELO_HANDSHAKE,
    Client,
    connected,
    packet,
    read_message,
    request,
)

from gameserver import App, Session


def game(**options: object) -> App:
    app = App("transports", **options)  # type: ignore[arg-type]

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    @app.on("transport")
    def transport(session: Session) -> list[object]:
        return [session.transport, session.tls, session.rtt is None]

    return app


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


def play(peer: ClientConnection) -> None:
    """Handshake, ack, a heartbeat, a request: one packet per frame."""
    peer.send(packet(HANDSHAKE, POMELO_HANDSHAKE))
    answer = peer.recv(10)
    assert isinstance(answer, bytes)
    assert json.loads(answer[4:])["code"] == 200
    peer.send(packet(ACK))
    assert peer.recv(10) == packet(HEARTBEAT)
    for body in (b"x", bytes(300), bytes(60_000)):
        peer.send(request(1, "echo", body))
        answer = peer.recv(10)
        assert isinstance(answer, bytes)
        assert answer[0] == DATA
        assert read_message(answer[4:]).body == body


def test_websocket(serve: Serve) -> None:
    with serve(game()) as server, connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as peer:
        assert peer.protocol.extensions == []  # permessage-deflate was offered, and declined
        play(peer)
        # Several packets in a frame, and a packet that spans frames.
        peer.send(request(1, "echo", b"a") + request(2, "echo", b"b"))
        both = [read_message(bytes(peer.recv(10))[4:]) for _ in range(2)]  # type: ignore[arg-type]
        assert [message.body for message in both] == [b"a", b"b"]
        data = request(3, "transport")
        peer.send(data[:5])
        peer.send([data[5:9], data[9:]])  # fragments of one message
        answer = read_message(bytes(peer.recv(10))[4:])  # type: ignore[arg-type]
        assert json.loads(answer.body)[:2] == ["websocket", False]
        assert peer.ping().wait(10)


def test_websocket_origins(serve: Serve) -> None:
    with serve(game(), allowed_origins=("https://game.example",)) as server:
        url = f"ws://127.0.0.1:{server.port}/"
        for good in ("https://game.example", f"http://127.0.0.1:{server.port}"):
            with connect(url, origin=Origin(good)) as peer:
                play(peer)
        for bad in (
            "https://game.example.evil.com",
            "https://evilgame.example",
            "http://game.example",
            "https://game.example:8443",
            "null",
            f"http://127.0.0.1:{server.port + 1}",
        ):
            with pytest.raises(InvalidStatus) as refused, connect(url, origin=Origin(bad)):
                pass
            assert refused.value.response.status_code == 403
        eventually(server, lambda stats: stats["closed"]["origin-refused"] == 6)


KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
ASKS = "HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"POST / {ASKS}Sec-WebSocket-Version: 13\r\n{KEY}\r\nContent-Length: 0\r\n", 405),
        (f"GET / {ASKS}Sec-WebSocket-Version: 8\r\n{KEY}\r\n", 426),
        (f"GET / {ASKS}Sec-WebSocket-Version: 13\r\n", 400),
        (f"GET / {ASKS}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", 400),
    ],
)
def test_wrong_upgrades_get_the_right_status(serve: Serve, head: str, status: int) -> None:
    with serve(game()) as server, socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(head.encode() + b"\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == status


def test_tls_for_packets_websocket_and_http(serve: Serve, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with serve(game(), tls_cert=str(cert), tls_key=str(key)) as server:
        with connected(server.port, tls=trusting(cert)) as client:
            assert client.request("echo", bytes(60_000)).body == bytes(60_000)
            assert json.loads(client.request("transport").body)[:2] == ["tcp", True]
        with connect(f"wss://localhost:{server.port}/", ssl=trusting(cert), max_size=None) as peer:
            play(peer)
        with urllib.request.urlopen(f"https://localhost:{server.port}/healthz", context=trusting(cert)) as page:
            assert page.status == 200
        with connected(server.port) as plain:  # the same port still tells them apart
            assert json.loads(plain.request("transport").body)[:2] == ["tcp", False]


def test_how_tls_ended_is_counted(serve: Serve, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with serve(game(), tls_cert=str(cert), tls_key=str(key)) as server:
        with connected(server.port, tls=trusting(cert)) as polite:
            assert polite.request("echo", b"x").body == b"x"
            assert isinstance(polite.socket, ssl.SSLSocket)
            polite.socket.unwrap()  # TLS's own end, both ways
        eventually(server, lambda stats: stats["closed"]["left"] == 1)
        with connected(server.port, tls=trusting(cert)) as cut:
            assert cut.request("echo", b"x").body == b"x"  # and the socket is closed without a word of TLS
        eventually(server, lambda stats: stats["closed"]["reset"] == 1)
        with Client(server.port) as hostile:
            hostile.send(b"\x16\x03\x01\x00\x04\x01\x00\x00\x00")
            hostile.socket.recv(100)  # the alert

        def counts(stats: dict[str, Any]) -> list[int]:
            return [stats["connections"][name] for name in ("open", "tls", "tls_failed", "tls_truncated")]

        # I/O threads tell their counts once they come to it.
        eventually(server, lambda stats: counts(stats) == [0, 3, 1, 1])


def test_plain_http(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    with serve(game(static=tmp_path)) as server:
        base = f"http://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{base}/") as page:
            assert page.read() == b"<h1>hello</h1>"
        with urllib.request.urlopen(f"{base}/gameserver.js") as page:
            assert "javascript" in page.headers["content-type"]
            assert b"export" in page.read()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for _ in range(3):  # keep-alive
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
        connection.request("GET", "/../secret")
        assert connection.getresponse().status == 404
        connection.close()
        with connected(server.port) as client:
            assert client.request("echo", b"x").body == b"x"


def test_the_games_own_asgi_app(serve: Serve) -> None:
    async def shop(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()  # type: ignore[operator]
            body += message.get("body", b"")
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-size", str(len(body)).encode())]})  # type: ignore[operator]
        for _ in range(50):
            await send({"type": "http.response.body", "body": bytes(50_000), "more_body": True})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    with serve(game(http=shop)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("POST", "/buy", body=bytes(1_000_000))
        answer = connection.getresponse()
        assert answer.headers["x-size"] == "1000000"
        assert len(answer.read()) == 2_500_000
        connection.close()


def test_ipv6_and_unix(serve: Serve, tmp_path: Path) -> None:
    with serve(game(), host="::1") as server, connected(server.addresses[0]) as client:
        assert server.addresses[0].startswith("[::1]:")
        assert client.request("echo", b"6").body == b"6"
    path = str(tmp_path / "game.sock")
    with serve(game(), unix=path) as server, connected(path) as client:
        assert server.addresses == [path]
        assert client.request("echo", b"u").body == b"u"
        assert json.loads(client.request("transport").body) == ["tcp", False, True]
    assert not Path(path).exists()
