"""Plays through the game of ../game.py with pypomelo's client, unmodified as PyPI serves it.

    python play.py PORT [CERTIFICATE]

With a certificate, over TLS. Ends with status 0 when all that it saw was right; else says what was wrong and ends with 1.
"""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from pypomelo.client import Client  # type: ignore[import-not-found]
from pypomelo.protocol import Protocol  # type: ignore[import-not-found]

HEARTBEATS = 5
DEADLINE = 30.0


class BlockingClient(Client):  # type: ignore[misc]
    """pypomelo leaves the socket to a subclass: this one reads until what is waited for is there."""

    def __init__(self) -> None:
        super().__init__(self)
        self.welcome: Any = None
        self.heartbeats = 0
        self.pushes: list[tuple[str, Any]] = []
        self.is_closed = True

    def connect(self, host: str, port: int, certificate: str | None = None) -> None:
        self.socket: socket.socket = socket.create_connection((host, port), DEADLINE)
        if certificate is not None:
            context = ssl.create_default_context(cafile=certificate)
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.is_closed = False
        self.welcome = None
        self.send_sync()
        self.until(lambda: self.welcome is not None)

    def close(self) -> None:
        self.is_closed = True
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    # What pypomelo calls.

    def on_connected(self, client: Client, user: Any) -> None:
        self.welcome = user

    def on_heartbeat(self, client: Client) -> None:
        self.heartbeats += 1
        self.send_heartbeat()

    def on_push(self, client: Client, route: Any, body: Any) -> None:
        self.pushes.append((route if isinstance(route, str) else route.decode(), body))

    # What the steps below call.

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            head = self.read(4)
            if head is None:
                self.close()
                assert holds(), "the server closed"
                return
            packet = Protocol.unpack(head)
            body = self.read(packet.length)
            assert body is not None, "the server closed inside a packet"
            packet.append(body)
            self.on_protocol(packet)

    def read(self, length: int) -> bytes | None:
        data = b""
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                return None
            data += more
        return data

    def ask(self, route: str, body: dict[str, Any]) -> Any:
        answers: list[Any] = []
        self.send_request(route, body, lambda client, route, request, answer: answers.append(answer))
        self.until(lambda: bool(answers))
        return answers[0]

    def push(self, route: str) -> Any:
        self.until(lambda: any(name == route for name, _ in self.pushes))
        index = next(index for index, (name, _) in enumerate(self.pushes) if name == route)
        return self.pushes.pop(index)[1]


def check(seen: object, expected: object) -> None:
    assert seen == expected, f"{seen!r} instead of {expected!r}"


def play(step: Callable[[str], None], port: int, certificate: str | None) -> None:
    name = "pypomelo" if certificate is None else "pypomelo over TLS"
    client = BlockingClient()

    step("connect")
    client.connect("127.0.0.1", port, certificate)
    check(client.welcome, {})

    step("request and push")
    check(client.ask("room.room.join", {"room": name, "name": name}), {"code": 200, "room": name})
    check(client.push("onJoin"), {"name": name})

    step("notify")
    client.send_notify("room.room.say", {"room": name, "text": "hi"})
    check(client.push("onSay"), {"text": "hi"})
    for n in range(100):
        client.send_notify("room.room.silent", {"n": n})
        client.send_notify("room.room.nobody", {"n": n})
    check(client.ask("room.room.heard", {}), {"n": list(range(100))})

    step("errors")
    check(client.ask("room.room.nowhere", {})["code"], "GS-404")
    refused = client.ask("room.room.refuse", {})
    check((refused["code"], refused["msg"]), ("GAME-7", "not today"))

    step("a push of nothing")  # a response of nothing is `null`, and pypomelo takes objects only
    client.send_notify("room.room.null", {})
    check(client.push("onNull"), {})

    step("text of the whole of Unicode, and bodies around the sizes of buffers")
    texts = ["häßlich, 漢字, 😀 👩‍🚀, \0\x7f\x80\u07ff\u0800\uffff", "漢" * 8000]
    texts += ["x" * size for size in (0, 1, 1000, 1010, 1024, 2048, 4096, 16384, 60_000)]
    for text in texts:
        check(client.ask("room.room.echo", {"text": text}), {"text": text})

    step("many requests at once")
    answers: list[Any] = []
    for n in range(1000):
        client.send_request("room.room.echo", {"n": n}, lambda client, route, request, answer: answers.append(answer))
    client.until(lambda: len(answers) == 1000)
    check(answers, [{"n": n} for n in range(1000)])

    step("silence")
    until = client.heartbeats + HEARTBEATS
    client.until(lambda: client.heartbeats >= until)
    check(client.ask("room.room.echo", {"text": "still here"}), {"text": "still here"})

    step("the server cuts the connection, and the client comes back, its ids going on")
    client.send_notify("room.room.cut", {})
    client.until(lambda: client.is_closed)
    client.connect("127.0.0.1", port, certificate)
    assert client.request_id > 1000
    check(client.ask("room.room.echo", {"text": "back"}), {"text": "back"})

    step("kick")
    client.send_notify("room.room.kick", {})
    client.until(lambda: client.is_closed)


def main() -> int:
    steps = ["start"]
    try:
        play(steps.append, int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    except Exception as error:
        print(f'pypomelo: at step "{steps[-1]}": {type(error).__name__}: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
