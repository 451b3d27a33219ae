"""What one client may cost, over real sockets: rates, proxies' words, compressed messages, and clients that do not read."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import Serve, eventually
from websockets.sync.client import connect
from wire_client import ACK, DATA, HANDSHAKE, POMELO_HANDSHAKE, Client, connected, notify, packet, read_message, request

from gameserver import DROPPABLE, LATEST, RELIABLE, App, ConfigError, Delivery, Member, Message, Room, Session, on, u16

GS = b'{"sys":{"gs":{"serializer":"json"}},"user":{}}'


class Moved(Message, delivery=LATEST.by("who")):
    """Only the newest of each is of use."""

    who: u16
    x: u16


def game(**options: Any) -> App:
    app = App("limits", **options)
    app.messages(Moved)

    @app.on("echo")
    def echo(session: Session, body: bytes) -> bytes:
        return body

    @app.on("chat", rate="2/min", burst=3)
    def chat(session: Session, body: bytes) -> bytes:
        return body

    @app.on("quiet", rate="1/h", burst=1, over="drop")
    def quiet(session: Session, body: bytes) -> None:
        session.push("heard")

    @app.on("once", rate="1/h", burst=1, over="kick")
    def once(session: Session, body: bytes) -> None: ...

    @app.on("where")
    def where(session: Session) -> list[Any]:
        return [session.address, session.tls]

    return app


# -- rates ----------------------------------------------------------------------------------------------------------------


def test_a_route_has_the_rate_of_its_decorator(serve: Serve) -> None:
    with serve(game()) as server:
        client = Client(server.port)
        client.handshake(GS)
        answers = [client.request("chat", b"x") for _ in range(4)]
        assert [answer.error for answer in answers] == [False, False, False, True]
        error = json.loads(answers[3].body)
        assert error["code"] == "GS-429"
        assert error["metadata"] == {"route": "chat"}
        client.send(notify("chat", b"x") * 10)
        assert json.loads(client.push("$error").body)["code"] == "GS-429"
        client.send(notify("quiet") * 10)
        assert client.push().route == "heard"
        assert client.request("echo", b"!").body == b"!"
        assert client.pushes == []
        assert server.stats()["messages"]["limited"] == 1 + 10 + 9
        assert connected(server.port).request("chat", b"x").body == b"x"  # each client has its own


def test_who_is_over_a_rate_that_kicks_is_closed(serve: Serve) -> None:
    with serve(game()) as server:
        client = connected(server.port)
        client.send(notify("once") * 2)
        client.until_closed()
        eventually(server, lambda stats: stats["closed"]["rate-limited"] == 1)


def test_all_messages_of_a_client_have_a_rate(serve: Serve) -> None:
    with serve(game(), message_rate="1/h", message_burst=5) as server:
        client = connected(server.port)
        answers = [client.request("echo") for _ in range(6)]
        assert [answer.error for answer in answers] == [False] * 5 + [True]
    with serve(game(), message_rate="none") as server:
        client = connected(server.port)
        client.send(b"".join(request(number, "echo") for number in range(1, 20_001)))
        assert not any(client.response(number).error for number in range(1, 20_001))


def test_all_clients_of_an_address_share_a_rate(serve: Serve) -> None:
    with serve(game(), address_message_rate="1/h", address_message_burst=10) as server:
        clients = [connected(server.port) for _ in range(3)]
        answers = [client.request("echo").error for _ in range(5) for client in clients]
        assert 9 <= answers.count(False) <= 11
        assert answers[-1]


def test_an_address_connects_so_often_and_no_more(serve: Serve) -> None:
    with serve(game(), connect_rate="1/h", connect_burst=3) as server:
        clients = [Client(server.port) for _ in range(4)]
        assert [client.handshake()["code"] for client in clients[:3]] == [200] * 3
        with pytest.raises((EOFError, BrokenPipeError)):
            clients[3].handshake()
        eventually(server, lambda stats: stats["connections"]["refused_rate"] == 1)


def test_a_rooms_handler_has_a_rate(serve: Serve) -> None:
    app = game()

    @app.room("lobby")
    class Lobby(Room[Member]):
        @on("say", rate="1/h", burst=2)
        def say(self, body: bytes) -> bytes:
            return body

    with serve(app) as server:
        client = Client(server.port)
        client.handshake(GS)
        number = json.loads(client.request("$join_or_create", b'{"name":"lobby"}').body)["room"]
        answers = [client.request(f"say@{number}", b"x").error for _ in range(3)]
        assert answers == [False, False, True]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rate": "10 per s"}, "'10/s'"),
        ({"rate": "0/s"}, "'10/s'"),
        ({"burst": 3}, "goes with a rate"),
        ({"rate": "1/s", "burst": 0}, "from 1"),
        ({"rate": "1/s", "over": "ignore"}, "'drop', 'refuse'"),
    ],
)
def test_a_rate_that_is_none_is_named_at_start(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):

        @App("wrong").on("a", **options)
        def handler(body: bytes) -> None: ...


def test_a_route_has_one_rate_whoever_handles_it() -> None:
    app = game()

    @app.room("lobby")
    class Lobby(Room[Member]):
        @on("chat", rate="5/s")
        def chat(self, body: bytes) -> None: ...

    with pytest.raises(ConfigError, match="another rate"):
        app.run(port=0)


# -- proxies --------------------------------------------------------------------------------------------------------------


def proxied(address: str, port: int) -> bytes:
    """A header of the PROXY protocol, version 2."""
    ends = socket.inet_aton(address) + socket.inet_aton("10.0.0.1") + struct.pack(">HH", port, 7777)
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x11]) + struct.pack(">H", len(ends)) + ends


def test_the_proxy_protocol_says_where_a_client_is(serve: Serve) -> None:
    settings = {"proxies": "127.0.0.0/8", "proxy_protocol": True, "max_connections_per_address": 2}
    with serve(game(), **settings) as server:
        clients = []
        for port in (1000, 1001, 1002):
            client = Client(server.port)
            client.send(proxied("192.0.2.7", port))
            clients.append(client)
            if port < 1002:
                client.handshake()
                assert json.loads(client.request("where").body) == [f"192.0.2.7:{port}", False]
        assert clients[2].until_closed() == []  # the caps are the client's, not the proxy's
        other = Client(server.port)
        other.send(proxied("192.0.2.8", 9) + packet(HANDSHAKE, POMELO_HANDSHAKE))
        assert other.read_packet()[0] == HANDSHAKE
        stranger = Client(server.port)
        stranger.send(packet(HANDSHAKE, POMELO_HANDSHAKE))
        assert stranger.until_closed() == []
        eventually(server, lambda stats: stats["closed"]["proxy-invalid"] == 1)


def test_tls_behind_a_proxy_that_speaks_its_protocol(serve: Serve, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.create_default_context(cafile=str(cert))
    settings = {"proxies": ["127.0.0.1"], "proxy_protocol": True, "tls_cert": str(cert), "tls_key": str(key)}
    with serve(game(), **settings) as server:
        for flags in (0, socket.MSG_MORE):  # by itself, and in one segment with TLS's first bytes
            client = Client(server.port)
            client.socket.send(proxied("192.0.2.7", 5), flags)
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            client.handshake()
            assert json.loads(client.request("where").body) == ["192.0.2.7:5", True]


def test_forwarded_is_believed_of_proxies_alone(serve: Serve) -> None:
    headers = {"Forwarded": "for=192.0.2.9;proto=https", "Origin": "https://elsewhere"}
    for proxies, expected in ((["127.0.0.1"], ["192.0.2.9:0", True]), (["10.0.0.0/8"], None)):
        with serve(game(), proxies=proxies, allowed_origins=["https://elsewhere"]) as server:
            with connect(f"ws://127.0.0.1:{server.port}/", additional_headers=headers, proxy=None) as ws:
                ws.send(packet(HANDSHAKE, POMELO_HANDSHAKE))
                ws.recv()
                ws.send(packet(ACK) + request(1, "where"))
                answer = next(body for body in iter(ws.recv, None) if isinstance(body, bytes) and body[0] == DATA)
                told = json.loads(read_message(answer[4:]).body)
                assert told == expected or (expected is None and told[0].startswith("127.0.0.1:") and not told[1])


def test_http_sees_the_address_that_a_proxy_tells(serve: Serve) -> None:
    async def shows(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(scope["client"]).encode()})

    with serve(game(http=shows), proxies="127.0.0.1") as server:
        asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/", headers={"X-Forwarded-For": "192.0.2.9"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.loads(answer.read())[0] == "192.0.2.9"


# -- compressed messages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["on", "takeover"])
def test_a_websocket_client_that_compresses(serve: Serve, mode: str) -> None:
    with serve(game(), websocket_deflate=mode) as server:
        with connect(f"ws://127.0.0.1:{server.port}/", proxy=None, compression="deflate") as ws:
            assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]  # type: ignore[union-attr]
            ws.send(packet(HANDSHAKE, POMELO_HANDSHAKE))
            ws.recv()
            ws.send(packet(ACK))
            for number, body in enumerate([b"a" * 30_000, b"", b"a" * 30_000, bytes(range(256)) * 100, b"xyz"], 1):
                ws.send(request(number, "echo", body))
                while (answer := ws.recv())[0] != DATA:
                    pass
                assert isinstance(answer, bytes)
                got = read_message(answer[4:])
                assert (got.id, got.body) == (number, body or b"null")


def test_compression_is_off_unless_it_is_asked_for(serve: Serve) -> None:
    with (
        serve(game()) as server,
        connect(f"ws://127.0.0.1:{server.port}/", proxy=None, compression="deflate") as ws,
    ):
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers


# -- clients that do not read ------------------------------------------------------------------------------------------------


def slow_client(port: int) -> Client:
    """A client whose kernel takes little."""
    client = Client.__new__(Client)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(10)
    raw.connect(("127.0.0.1", port))
    Client.opened.append(client)
    client.socket, client._buffer, client._number, client.pushes, client.heartbeats = raw, b"", 0, [], 0
    client.hello = {}
    client.handshake(GS)
    return client


def test_latest_and_droppable_pushes_never_disconnect_and_reliable_ones_stay_in_order(serve: Serve) -> None:
    app = game(queue_bytes_max=8 << 20, congested_bytes=100_000)  # a kernel takes some MB
    events: list[str] = []
    congested, relieved = threading.Event(), threading.Event()

    @app.on_congested
    def slow(session: Session) -> None:
        events.append("congested")
        congested.set()

    @app.on_relieved
    async def fast(session: Session) -> None:
        events.append("relieved")
        relieved.set()

    @app.on("flood")
    def flood(session: Session, body: bytes) -> None:
        for number in range(3000):
            session.push("chat", str(number).encode() + b"-" * 4000, delivery=DROPPABLE)
            session.push("pos", str(number).encode() + b"-" * 200, delivery=LATEST)
            session.push(Moved(who=number % 5, x=number))
            if number % 100 == 0:
                session.push("must", str(number).encode())
        session.push("end", delivery=RELIABLE)

    with serve(app) as server:
        client = slow_client(server.port)
        client.send(notify("flood"))
        assert congested.wait(10)
        got: dict[str, list[bytes]] = {}
        while "end" not in got:
            message = client.push()
            got.setdefault(message.route, []).append(message.body)
        assert [int(body) for body in got["must"]] == list(range(0, 3000, 100))
        chat = [int(body.split(b"-")[0]) for body in got["chat"]]
        assert chat == sorted(chat)
        assert len(chat) < 2500, "some had to go"
        positions = [int(body.split(b"-")[0]) for body in got["pos"]]
        assert positions == sorted(positions)
        assert positions[-1] == 2999, "the newest always arrives"
        moved = [json.loads(body) for body in got["Moved"]]
        for who in range(5):
            own = [move["x"] for move in moved if move["who"] == who]
            assert own == sorted(own)
            assert own[-1] == 2995 + who, "of each key"
        assert client.request("echo", b"!").body == b"!"
        assert relieved.wait(10)
        assert events == ["congested", "relieved"]


def test_a_high_priority_goes_first_and_a_low_one_last(serve: Serve) -> None:
    app = game()

    @app.on("flood")
    def flood(session: Session, body: bytes) -> int:
        session.push("big", b"-" * 500_000)
        session.push("low", delivery=DROPPABLE.low)
        session.push("normal", delivery=DROPPABLE)
        session.push("high", delivery=LATEST.keyed(3).high)
        session.push("reliable")
        return session.backlog

    with serve(app) as server:
        client = slow_client(server.port)
        client.send(request(1, "flood"))
        assert int(client.response(1).body) > 500_000
        order = [message.route for message in client.pushes]
        client.pushes.clear()
        while "low" not in order:
            order.append(client.push("low").route)
        assert order == ["big", "high", "normal", "reliable", "low"]


@pytest.mark.parametrize("wrong", ["RELIABLE.low", "DROPPABLE.keyed(1)", "LATEST.keyed(65_536)", "RELIABLE.by('who')"])
def test_a_delivery_that_can_not_be(wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong.split(".")[0]):
        eval(wrong)


def test_what_the_head_of_a_message_can_not_say() -> None:
    with pytest.raises(ConfigError, match="no such field"):

        class Wrong(Message, delivery=LATEST.by("nobody")):
            who: u16

    with pytest.raises(ConfigError, match="RELIABLE, LATEST"):

        class Worse(Message, delivery="latest"):
            who: u16

    assert isinstance(LATEST, Delivery)


def test_a_key_that_is_none_raises(serve: Serve) -> None:
    app = game()

    class Named(Message, delivery=LATEST.by("name")):
        name: str

    app.messages(Named)

    @app.on("push")
    def push(session: Session, body: bytes) -> str:
        try:
            session.push(Named(name="x"))
        except ValueError as error:
            return str(error)
        return ""

    with serve(app) as server:
        assert "a number from 0 to 65535" in json.loads(connected(server.port).request("push").body)
