"""A client that speaks the wire's exact bytes over a plain socket, independent of the code under test."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

HANDSHAKE, ACK, HEARTBEAT, DATA, KICK = 1, 2, 3, 4, 5
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; Python names it from 3.12 on
REQUEST, NOTIFY, RESPONSE, PUSH = 0, 1, 2, 3

POMELO_HANDSHAKE = b'{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}},"user":{}}'
LIBPITAYA_HANDSHAKE = (
    b'{"sys":{"platform":"linux","libVersion":"0.3.5-release","clientBuildNumber":"1","clientVersion":"1.0"},"user":{}}'
)


def packet(kind: int, body: bytes = b"") -> bytes:
    """A packet: type, 24-bit length, body."""
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def varint(number: int) -> bytes:
    """Base-128, least significant group first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def request(number: int, route: str, body: bytes = b"") -> bytes:
    """A Data packet with a request."""
    name = route.encode()
    return packet(DATA, bytes([REQUEST << 1]) + varint(number) + bytes([len(name)]) + name + body)


def notify(route: str, body: bytes = b"") -> bytes:
    """A Data packet with a notify."""
    name = route.encode()
    return packet(DATA, bytes([NOTIFY << 1, len(name)]) + name + body)


class Message(NamedTuple):
    """A message as it came."""

    kind: int
    id: int
    route: str
    error: bool
    body: bytes


def read_message(data: bytes) -> Message:
    """Takes a Data packet's body apart."""
    flag = data[0]
    kind, at, number, route = flag >> 1 & 7, 1, 0, ""
    if kind in (REQUEST, RESPONSE):
        shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
    if kind != RESPONSE:
        length = data[at]
        route = data[at + 1 : at + 1 + length].decode()
        at += 1 + length
    return Message(kind, number, route, bool(flag & 0x20), data[at:])


def connection(port: int, timeout: float, source: str | None = None) -> socket.socket:
    """A socket to a port of this machine; from another of its addresses, without asking which ports are free there beforehand.

    Raises:
        OSError: there is none.
    """
    raw = socket.socket()
    raw.settimeout(timeout)
    try:
        if source is not None:
            raw.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            raw.bind((source, 0))
        raw.connect(("127.0.0.1", port))
    except BaseException:
        raw.close()
        raise
    return raw


class Client:
    """A blocking client; every read has a deadline, so a test never hangs."""

    opened: ClassVar[list[Client]] = []  # closed by conftest when a test ends

    def __init__(
        self,
        address: str | int,
        *,
        timeout: float = 10.0,
        tls: ssl.SSLContext | None = None,
        family: int = 0,
        source: str | None = None,
    ) -> None:
        if isinstance(address, int):
            self.socket: socket.socket = connection(address, timeout, source)
        elif address.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            host, _, port = address.rpartition(":")
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        Client.opened.append(self)
        self._buffer = b""
        self._number = 0
        self.pushes: list[Message] = []
        self.heartbeats = 0
        self.hello: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes in good order."""
        self.socket.close()

    def reset(self) -> None:
        """Ends the connection without a word: with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.socket.sendall(data)

    def read_packet(self) -> tuple[int, bytes]:
        """The next packet of any kind.

        Raises:
            EOFError: the server closed.
        """
        while True:
            if len(self._buffer) >= 4:
                length = int.from_bytes(self._buffer[1:4], "big")
                if len(self._buffer) >= 4 + length:
                    kind, body = self._buffer[0], self._buffer[4 : 4 + length]
                    self._buffer = self._buffer[4 + length :]
                    return kind, body
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError as error:
                raise EOFError("reset") from error
            if not data:
                raise EOFError("closed")
            self._buffer += data

    def handshake(self, body: bytes = POMELO_HANDSHAKE) -> dict[str, Any]:
        """Handshake and ack; returns the server's answer."""
        self.send(packet(HANDSHAKE, body))
        kind, answer = self.read_packet()
        assert kind == HANDSHAKE, (kind, answer)
        self.hello = json.loads(answer)
        if self.hello["code"] == 200:
            self.send(packet(ACK))
        return self.hello

    def messages(self) -> Iterator[Message]:
        """Messages as they come; heartbeats are counted and answered."""
        while True:
            kind, body = self.read_packet()
            if kind == HEARTBEAT:
                self.heartbeats += 1
                self.send(packet(HEARTBEAT))
            elif kind == DATA:
                yield read_message(body)
            else:
                raise AssertionError(f"packet {kind} {body!r}")

    def response(self, number: int) -> Message:
        """The response to request `number`; pushes on the way are kept."""
        for message in self.messages():
            if message.kind == RESPONSE:
                assert message.id == number, (message, number)
                return message
            self.pushes.append(message)
        raise AssertionError("unreachable")

    def request(self, route: str, body: bytes = b"") -> Message:
        """Sends a request and waits for its response."""
        self._number += 1
        self.send(request(self._number, route, body))
        return self.response(self._number)

    def push(self, route: str | None = None) -> Message:
        """The next push, of this route."""
        for index, message in enumerate(self.pushes):
            if route in (None, message.route):
                return self.pushes.pop(index)
        for message in self.messages():
            if message.kind == PUSH and route in (None, message.route):
                return message
            self.pushes.append(message)
        raise AssertionError("unreachable")

    def until_closed(self) -> list[tuple[int, bytes]]:
        """All packets until the server closes."""
        packets = []
        while True:
            try:
                packets.append(self.read_packet())
            except EOFError:
                return packets


def connected(address: str | int, **options: Any) -> Client:
    """A client after handshake and ack."""
    client = Client(address, **options)
    client.handshake()
    return client
