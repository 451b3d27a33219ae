"""Nineteen ways to hurt a server, each a function that goes on until it is told to stop.

As a script: ``python attackers.py NAME PORT SECONDS``. They run in a process of their own, so that the good client's times are
not the attacker's. Everything by chance has a seed.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import ssl
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from websocket_cases import Case, cases, frame, pack, play
from wire_client import (
    ACK,
    DATA,
    HANDSHAKE,
    HEARTBEAT,
    POMELO_HANDSHAKE,
    Client,
    connection,
    notify,
    packet,
    request,
    varint,
)

HELLO = packet(HANDSHAKE, POMELO_HANDSHAKE)
READY = HELLO + packet(ACK)
GS = b'{"sys":{"gs":{"serializer":"protobuf","resume":{}}},"user":{}}'
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
SEED = 20
SOURCE = "127.0.0.2"  # the good client comes from another address

Going = Callable[[], bool]


def slow_handshakes(port: int, going: Going) -> None:
    """A byte a second, of a handshake, of an HTTP head, of TLS; a closed one is replaced at once."""
    scripts = [HELLO, UPGRADE + b"\r\n", TLS_HELLO + bytes(512)]
    held: list[tuple[socket.socket | None, bytes, int]] = [(connect(port), scripts[at % 3], 0) for at in range(300)]
    while going():
        again: list[tuple[socket.socket | None, bytes, int]] = []
        for raw, script, at in held:
            if raw is not None and said(raw, script[at : at + 1]):
                again.append((raw, script, at + 1))
            else:
                if raw is not None:
                    raw.close()
                again.append((connect(port), script, 0))
        held = again
        pause(going, 1.0)


def length_bombs(port: int, going: Going) -> None:
    """Lengths of up to 2^63 bytes, before the handshake and after it, of which nothing follows."""
    bombs = [
        packet(HANDSHAKE)[:1] + b"\xff\xff\xff",
        READY + b"\x04\xff\xff\xff",
        READY + b"\x04\x01\x00\x00" + b"x" * 1000,  # allowed by its length, and never whole
        UPGRADE + b"\r\n" + b"\x82\xff\x7f" + b"\xff" * 7,
        UPGRADE + b"\r\n" + frame(2, READY) + b"\x82\xff\x00\x00\x00\x00\xff\xff\xff\xff",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
    ]
    held: list[socket.socket] = []
    number = 0
    while going():
        raw = connect(port)
        number += 1
        if raw is not None and said(raw, bombs[number % len(bombs)]):
            held.append(raw)
        if len(held) > 500:
            held.pop(0).close()
        time.sleep(0.001)


def deflate_bombs(port: int, going: Going) -> None:
    """A kilobyte that unpacks to a gigabyte's beginning: as zlib in a message, and as a compressed frame."""
    zeros = bytes(1 << 24)
    zipped = zlib.compress(zeros, 9)
    message = bytes([1 << 1 | 0x10, 4]) + b"take" + zipped
    offered = UPGRADE + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" + frame(2, READY)
    bombs = [
        READY + packet(DATA, message),
        offered + frame(2, pack(zeros), first=0xC0),
        offered + frame(2, pack(notify("take", zeros[: 65536 - 7]) * 2), first=0xC0),
    ]
    for number in counted(going):
        with closing(connect(port)) as raw:
            if raw is not None and said(raw, bombs[number % len(bombs)]):
                until_closed(raw)


def message_flood(port: int, going: Going) -> None:
    """One client that tells as fast as it can."""
    raw = must(connect(port))
    raw.sendall(READY)
    many = notify("take", b"x" * 16) * 1000
    while going():
        raw.sendall(many)
        if select.select([raw], [], [], 0)[0]:
            raw.recv(65536)


def connect_flood(port: int, going: Going) -> None:
    """Connections from one address, as fast as they come."""
    while going():
        for _ in range(50):
            raw = connect(port)
            if raw is not None:
                raw.close()


def descriptors(port: int, going: Going) -> None:
    """More connections than the server has descriptors, and none is closed."""
    held: list[socket.socket | None] = []
    while going():
        if len(held) < 1000:
            held.append(connect(port))
            said(held[-1], HELLO)
        else:
            pause(going, 0.05)


def half_open(port: int, going: Going) -> None:
    """Clients that shake hands and are never heard again; their sockets stay."""
    held = []
    for _ in range(300):
        raw = must(connect(port))
        raw.sendall(packet(HANDSHAKE, GS) + packet(ACK))
        held.append(raw)
    pause(going, 1e9)


def slow_readers(port: int, going: Going) -> None:
    """Clients that ask for megabytes and read a byte a second."""
    held: list[socket.socket] = []
    while going():
        if len(held) < 60:
            raw = connect(port)
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                said(raw, READY + notify("read", b"800"))
                held.append(raw)
            continue
        for raw in [*held]:
            try:
                if select.select([raw], [], [], 0)[0] and not raw.recv(1):
                    held.remove(raw)
            except OSError:
                held.remove(raw)
        pause(going, 1.0)


def replays(port: int, going: Going) -> None:
    """A request twice under one number, and a whole session's bytes again on another connection, its token included."""
    for _ in counted(going):
        with closing(connect(port)) as raw:
            if raw is None:
                continue
            raw.sendall(READY + request(7, "buy") * 2)
            until_closed(raw)
        token = ""
        with Client(port, source=SOURCE) as client, contextlib.suppress(EOFError, OSError):
            client.handshake(GS)
            token = client.hello["sys"]["gs"]["resume"]["token"]
        stolen = json.dumps({"sys": {"gs": {"resume": {"token": token, "seen": 0}}}, "user": {}}).encode()
        stream = packet(HANDSHAKE, stolen) + packet(ACK) + request(1, "echo")
        for _ in range(2):
            with closing(connect(port)) as raw:
                if raw is not None and said(raw, stream):
                    receive(raw)


def tokens(port: int, going: Going) -> None:
    """Guessed tokens, cut ones, tokens of a client's own choice, and used ones."""
    chance = random.Random(SEED)
    own = "A" * 22
    for number in counted(going):
        guess = [
            "".join(chance.choices("ABCDEFabcdef0123456789-_", k=chance.choice([0, 1, 21, 22, 23, 43, 300]))),
            own,
        ][number % 2]
        with Client(port, source=SOURCE) as client, contextlib.suppress(EOFError, OSError):
            client.handshake(
                json.dumps(
                    {"sys": {"gs": {"resume": {"token": guess, "seen": chance.randrange(3)}}}, "user": {}}
                ).encode()
            )
            fresh = client.hello["sys"].get("gs", {}).get("resume", {})
            assert fresh.get("token") != guess
            assert "seen" not in fresh


def websockets(port: int, going: Going) -> None:
    """Every case of the conformance run, over and over."""
    abuse: list[Case] = [case for case in cases() if not case.deflate]
    for number in counted(going):
        with contextlib.suppress(EOFError, OSError):
            play(port, abuse[number % len(abuse)], SOURCE)


def tls_garbage(port: int, going: Going) -> None:
    """What begins as TLS and is none; handshakes that end in the middle; records of nothing."""
    chance = random.Random(SEED)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for number in counted(going):
        with closing(connect(port)) as raw:
            if raw is None:
                continue
            match number % 5:
                case 0:
                    said(raw, TLS_HELLO + chance.randbytes(600))
                case 1:
                    said(raw, TLS_HELLO)
                case 2:
                    said(raw, b"\x16\x03\x03\xff\xff" + bytes(100))
                case 3:
                    said(raw, b"\x16\x03\x01\x00\x00" * 1000)  # empty records
                case _:
                    with contextlib.suppress(OSError), context.wrap_socket(raw) as wrapped:
                        wrapped.sendall(READY)
                        # A ClientHello within the session, as a renegotiation would be, and records that are no TLS.
                        with contextlib.suppress(OSError), socket.socket(fileno=wrapped.detach()) as bare:
                            bare.sendall(TLS_HELLO + bytes(508) + chance.randbytes(200))
                            receive(bare)
                    continue
            receive(raw)


ORIGINS = [
    "https://evil.example",
    "http://game.example",
    "https://game.example.evil.example",
    "https://evilgame.example",
    "https://game.example:444",
    "https://game.example/",
    "https://game.example.",
    "https://sub.game.example",
    "null",
    "",
    "file://",
    "*",
    "https://",
    "//game.example",
    "game.example",
    "https://game.example, https://evil.example",
    "https://game.example https://evil.example",
    "https://user@game.example",
    "https://game.example\\@evil.example",
    "https://GAME.EXAMPLE:443",
]
"""None is ``https://game.example``, which alone is allowed."""


def cross_site(port: int, going: Going) -> None:
    """Pages of twenty other origins, and two origins at once."""
    for number in counted(going):
        with closing(connect(port)) as raw:
            if raw is not None:
                line = b"Origin: " + ORIGINS[number % len(ORIGINS)].encode() + b"\r\n"
                if number % (len(ORIGINS) + 1) == 0:
                    line = b"Origin: https://game.example\r\nOrigin: https://evil.example\r\n"
                said(raw, UPGRADE + line + b"\r\n")
                answer = receive(raw)
                assert not answer.startswith(b"HTTP/1.1 101"), (line, answer)


def recursion(port: int, going: Going) -> None:
    """Depth in every codec: protobuf, JSON bodies, the handshake's JSON."""
    deep = b""
    while len(deep) < 60_000:
        deep = b"\x12" + varint(len(deep)) + deep
    flat = b"\x12\x80\x80\x80\x80\x08"  # a child of 2 GiB
    bodies = [
        (packet(HANDSHAKE, GS), [("Tree", deep), ("Tree", flat), ("Tree", b"\x13" * 60_000)]),
        (HELLO, [("json", b"[" * 60_000), ("json", b'{"a":' * 10_000), ("Tree", b'{"child":' * 6000)]),
        (packet(HANDSHAKE, b'{"user":' * 500), []),
        (packet(HANDSHAKE, b"[" * 4000), []),
    ]
    for number in counted(going):
        hello, messages = bodies[number % len(bodies)]
        with closing(connect(port)) as raw:
            if raw is not None:
                stream = b"".join(request(at, route, body) for at, (route, body) in enumerate(messages, 1))
                said(raw, hello + packet(ACK) + stream)
                receive(raw)


def headers(port: int, going: Going) -> None:
    """Heads of HTTP that are too long, have too many lines, or no end."""
    bombs = [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: %d\r\n" % (at, at) for at in range(70)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 10_000,
        b"G" * 10_000,
    ]
    for number in counted(going):
        with closing(connect(port)) as raw:
            if raw is not None and said(raw, bombs[number % len(bombs)]):
                receive(raw)


def garbage(port: int, going: Going) -> None:
    """Random bytes, and sessions with some of their bytes changed, cut, doubled or left out."""
    chance = random.Random(SEED)
    good = READY + packet(HEARTBEAT) + request(1, "echo", b"x" * 50) + notify("take") + request(2, "Tree", b"\x0a\x01a")
    over_ws = UPGRADE + b"\r\n" + frame(2, good)
    for number in counted(going):
        stream = bytearray([chance.randbytes(300), good, over_ws][number % 3])
        for _ in range(chance.randrange(1, 8)):
            at = chance.randrange(len(stream))
            match chance.randrange(4):
                case 0:
                    stream[at] ^= 1 << chance.randrange(8)
                case 1:
                    del stream[at:]
                    stream += b"\0"
                case 2:
                    stream[at:at] = stream[at : at + chance.randrange(40)]
                case _:
                    del stream[at : at + chance.randrange(1, 10)]
                    stream += b"\0"
        with closing(connect(port)) as raw:
            if raw is not None and said(raw, bytes(stream)):
                receive(raw, 0.01)


def log_floods(port: int, going: Going) -> None:
    """Whatever could be worth a line: handlers that raise, bodies that do not decode, routes that nobody has, broken rules."""
    for begun in counted(going):
        with (
            Client(port, source=SOURCE) as client,
            contextlib.suppress(EOFError, OSError),
        ):  # after so many bad bodies it is closed
            client.handshake(POMELO_HANDSHAKE)
            for number in counted(going):
                body = f"{begun}.{number}\n\x1b[31mINJECTED\r\n".encode()
                client.send(
                    request(number % 60 + 1, "fail", body) + notify(f"nobody.{number}") + notify("json", b"{" + body)
                )
                client.response(number % 60 + 1)
        with closing(connect(port)) as raw:
            said(raw, READY + packet(DATA, b"\xff"))


def cardinality(port: int, going: Going) -> None:
    """Names that are never the same: of routes, people, origins, groups of digits."""
    for number in counted(going):
        name = f"x{number}"
        hello = json.dumps(
            {"sys": {"type": name, "version": name, "gs": {"serializer": "json"}}, "user": {"name": name}}
        )
        with Client(port, source=SOURCE) as client, contextlib.suppress(EOFError, OSError):
            client.handshake(hello.encode())
            client.send(b"".join(notify(f"{name}.{at}@{at}") for at in range(20)) + request(1, name))
            client.response(1)
        with closing(connect(port)) as raw:
            said(raw, UPGRADE + f"Origin: https://{name}.example\r\n\r\n".encode())


def resets(port: int, going: Going) -> None:
    """Connections that end by a reset: at once, in the handshake, in a session with answers on their way."""
    for number in counted(going):
        raw = connect(port)
        if raw is None:
            continue
        said(raw, [b"", HELLO[:9], READY, READY + request(1, "echo", b"x" * 1000) * 20, UPGRADE + b"\r\n"][number % 5])
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


ATTACKS: dict[str, Callable[[int, Going], None]] = {
    attack.__name__: attack
    for attack in (
        slow_handshakes,
        length_bombs,
        deflate_bombs,
        message_flood,
        connect_flood,
        descriptors,
        half_open,
        slow_readers,
        replays,
        tokens,
        websockets,
        tls_garbage,
        cross_site,
        recursion,
        headers,
        garbage,
        log_floods,
        cardinality,
        resets,
    )
}


# -- their tools ------------------------------------------------------------------------------------------------------------


def connect(port: int) -> socket.socket | None:
    """A connection, if one is to be had."""
    try:
        return connection(port, 5, SOURCE)
    except OSError:
        return None


def must(raw: socket.socket | None) -> socket.socket:
    assert raw is not None, "no connection"
    return raw


def said(raw: socket.socket | None, data: bytes) -> bool:
    """Whether these bytes went."""
    try:
        must(raw).sendall(data)
    except (OSError, AssertionError):
        return False
    return True


def receive(raw: socket.socket, patience: float = 0.2) -> bytes:
    """What comes next, if anything does."""
    raw.settimeout(patience)
    try:
        return raw.recv(65536)
    except OSError:
        return b""


def until_closed(raw: socket.socket) -> None:
    """Reads to the end; at most a second."""
    raw.settimeout(1)
    with contextlib.suppress(OSError):
        while raw.recv(65536):
            pass


def closing(raw: socket.socket | None) -> contextlib.AbstractContextManager[socket.socket | None]:
    return contextlib.closing(raw) if raw is not None else contextlib.nullcontext()


def counted(going: Going) -> Iterator[int]:
    """0, 1, 2, ... as long as it goes on."""
    number = 0
    while going():
        yield number
        number += 1


def pause(going: Going, seconds: float) -> None:
    """Waits, but not beyond the end."""
    end = time.monotonic() + seconds
    while going() and time.monotonic() < end:
        time.sleep(0.01)


def main() -> None:
    name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    end = time.monotonic() + seconds
    print("BEGUN", flush=True)
    ATTACKS[name](port, lambda: time.monotonic() < end)


if __name__ == "__main__":
    main()
