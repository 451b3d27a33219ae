"""A client that goes on with its session over another connection, and a proxy that cuts connections where a test wants."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from wire_client import ACK, DATA, HANDSHAKE, HEARTBEAT, RESPONSE, Client, notify, packet, read_message, request

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: close sends a reset."""


class Returning:
    """Keeps what the server may not have seen, counts what it has handled, and comes back whenever it is cut."""

    def __init__(self, port: int, user: object = None) -> None:
        self.port = port
        self.user = {} if user is None else user
        self.token: str | None = None
        self.session = ""
        self.seen = 0
        self.gone = 0
        self.kept: list[bytes] = []
        self.answers: list[tuple[int, bytes]] = []
        self.pushes: list[tuple[str, bytes]] = []
        self.resumed = 0
        self.renewed = 0
        self._number = 0
        self.client: Client
        self.connect()

    def connect(self) -> None:
        """Until it is there; whatever is cut on the way is tried again."""
        while True:
            with contextlib.suppress(OSError, EOFError):
                return self._connect()

    def request(self, route: str, body: bytes = b"") -> int:
        """Asks; the answer comes by `until_answered`."""
        self._number += 1
        self._post(request(self._number, route, body))
        return self._number

    def notify(self, route: str, body: bytes = b"") -> None:
        """Tells."""
        self._post(notify(route, body))

    def until_answered(self, number: int) -> bytes:
        """The answer to a request."""
        while True:
            for other, body in self.answers:
                if other == number:
                    return body
            self._handle_next()

    def until_pushed(self, count: int) -> None:
        """Reads until so many pushes have come, of all."""
        while len(self.pushes) < count:
            self._handle_next()

    def joined(self) -> Self:
        """Once the server's game has heard that it is there: it answers."""
        self.until_answered(self.request("nobody handles this"))
        return self

    def cut(self) -> None:
        """Loses its connection, and does not know yet."""
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.client.close()

    def _connect(self) -> None:
        resume = {} if self.token is None else {"token": self.token, "seen": self.seen}
        hello = {"sys": {"gs": {"serializer": "json", "resume": resume}}, "user": self.user}
        self.client = client = Client(self.port)
        client.send(packet(HANDSHAKE, json.dumps(hello).encode()))
        kind, body = client.read_packet()
        assert kind == HANDSHAKE
        answer: dict[str, Any] = json.loads(body)
        assert answer["code"] == 200, answer
        gs = answer["sys"]["gs"]
        self.token = gs["resume"]["token"]
        seen = gs["resume"].get("seen")
        if seen is not None:
            assert gs["session"] == self.session
            self._let_go(seen)
            self.resumed += 1
        elif self.session:
            self.renewed += 1
            self.seen = self.gone = 0
            self.kept = []
        self.session = gs["session"]
        client.send(packet(ACK))
        for message in self.kept:
            client.send(message)

    def _post(self, message: bytes) -> None:
        self.kept.append(message)
        try:
            self.client.send(message)
        except OSError:
            self.connect()

    def _handle_next(self) -> None:
        try:
            kind, body = self.client.read_packet()
        except (OSError, EOFError):
            return self.connect()
        if kind == HEARTBEAT:
            return None
        assert kind == DATA, (kind, body)
        message = read_message(body)
        if message.kind == RESPONSE:
            self.seen += 1
            self.answers.append((message.id, message.body))
        elif message.route == "$seen":
            self._let_go(int(message.body))
        else:
            self.seen += 1
            self.pushes.append((message.route, message.body))
        return None

    def _let_go(self, seen: int) -> None:
        assert self.gone <= seen <= self.gone + len(self.kept), (seen, self.gone, len(self.kept))
        del self.kept[: seen - self.gone]
        self.gone = seen


class CuttingProxy:
    """Carries packets, and cuts the connection after so many: the first number of `cuts`, then the next one, then never."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.cuts: list[int] = []
        self.by_reset = True
        self.carried = 0
        """Packets of the connection that is open."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets: set[socket.socket] = set()
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Cuts what is open."""
        with self._lock:
            self._cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.upstream))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._cut()
                self.carried = 0
                self._sockets = {client, server}
            for one, other in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=(one, other))
                self._threads.append(thread)
                thread.start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for whole in _packets(one):
                with self._lock:
                    if one not in self._sockets:
                        return
                    other.sendall(whole)
                    self.carried += 1
                    if self.cuts and self.carried >= self.cuts[0]:
                        self.cuts.pop(0)
                        self._cut()
        with self._lock:
            if one in self._sockets:
                self._cut()

    def _cut(self) -> None:
        for end in self._sockets:
            if self.by_reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            # Whoever reads from it wakes up.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._sockets = set()


def _packets(end: socket.socket) -> Iterator[bytes]:
    buffer = b""
    while data := end.recv(65536):
        buffer += data
        while len(buffer) >= 4 and len(buffer) >= (total := 4 + int.from_bytes(buffer[1:4], "big")):
            yield buffer[:total]
            buffer = buffer[total:]


class Network:
    """A network between clients and a port: carries bytes as they are, and can be cut."""

    def __init__(self, port: int) -> None:
        self.upstream = port
        self.is_down = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Everybody's connection is gone, and what was on its way."""
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                    end.close()
            self._pairs.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self.upstream))
            with self._lock:
                self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                thread = threading.Thread(target=self._carry, args=(one, other))
                self._threads.append(thread)
                thread.start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
