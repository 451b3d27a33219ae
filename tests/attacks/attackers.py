"""Nineteen ways to hurt a server, each a function that goes on until it is told to stop, and then says what it has seen.

As a script: ``python attackers.py NAME PORT SECONDS``. They run in a process of their own, so that the good client's times are
not the attacker's. Everything by chance has a seed. What they count has been answered, or ended, by the server: `cases.py`
compares it with what the server has counted.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import select
import signal
import socket
import ssl
import struct
import sys
import time
import zlib
from collections import Counter
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
PATIENCE = 20.0  # s, for what must come
TIMES_MAX = 12_000  # of 28,000 ports, with at most two connections each
ALL_MAX = 60  # s, for what is to be seen after the attack
SOURCE = "127.0.0.2"  # the good client comes from another address

Going = Callable[[], bool]
Seen = Counter[str]


def slow_handshakes(port: int, going: Going) -> Seen:
    """A byte a second, of a handshake, of an HTTP head, of TLS; a closed one is replaced at once."""
    scripts = [HELLO, UPGRADE + b"\r\n", TLS_HELLO + bytes(512)]
    seen = Seen()
    held = [(must(connect(port)), scripts[at % 3], 0) for at in range(300)]
    while going() or seen["ended"] < 300:
        again: list[tuple[socket.socket, bytes, int]] = []
        for raw, script, at in held:
            if ended(raw):
                seen["ended"] += 1
                raw.close()
                again.append((must(connect(port)), script, 0))
            else:
                said(raw, script[at : at + 1])
                again.append((raw, script, at + 1))
        held = again
        time.sleep(1.0)
    return seen


def length_bombs(port: int, going: Going) -> Seen:
    """Lengths of up to 2^63 bytes, before the handshake and after it, of which nothing follows."""
    closed = [
        packet(HANDSHAKE)[:1] + b"\xff\xff\xff",
        READY + b"\x04\xff\xff\xff",
        UPGRADE + b"\r\n" + b"\x82\xff\x7f" + b"\xff" * 7,
        UPGRADE + b"\r\n" + frame(2, READY) + b"\x82\xff\x00\x00\x00\x00\xff\xff\xff\xff",
    ]
    never_whole = [
        READY + b"\x04\x01\x00\x00" + b"x" * 1000,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\n",
    ]
    seen = Seen()
    held: list[socket.socket] = []
    for number in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, closed[number % len(closed)])
            until_closed(raw)
            seen["ended"] += 1
        if len(held) < 500:
            held.append(must(connect(port)))
            said(held[-1], never_whole[number % 2])
    return seen


def deflate_bombs(port: int, going: Going) -> Seen:
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
    seen = Seen()
    for number in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, bombs[number % len(bombs)])
            until_closed(raw)
            seen["ended"] += 1
    return seen


def message_flood(port: int, going: Going) -> Seen:
    """One client that tells as fast as it can."""
    raw = must(connect(port))
    raw.sendall(READY)
    many = notify("take", b"x" * 16) * 1000
    seen = Seen()
    while going():
        raw.sendall(many)
        seen["said"] += 1000
        if select.select([raw], [], [], 0)[0]:
            raw.recv(65536)
    raw.shutdown(socket.SHUT_WR)
    until_closed(raw)
    return seen


def connect_flood(port: int, going: Going) -> Seen:
    """Connections from one address, as fast as they come."""
    seen = Seen()
    while going():
        for _ in range(50):
            raw = connect(port)
            if raw is not None:
                seen["connected"] += 1
                raw.close()
    return seen


def descriptors(port: int, going: Going) -> Seen:
    """More connections than the server has descriptors, and none is closed."""
    held: list[socket.socket] = []
    while going() or len(held) < 1000:
        if len(held) < 1000:
            held.append(must(connect(port)))
            said(held[-1], HELLO)
        else:
            time.sleep(0.05)
    return Seen(ended=sum(ended(raw) for raw in held))


def half_open(port: int, going: Going) -> Seen:
    """Clients that shake hands and are never heard again; their sockets stay."""
    held = []
    for _ in range(300):
        raw = must(connect(port))
        raw.sendall(packet(HANDSHAKE, GS) + packet(ACK))
        held.append(raw)
    for raw in held:
        until_closed(raw)
    while going():
        time.sleep(0.05)
    return Seen(ended=len(held))


def slow_readers(port: int, going: Going) -> Seen:
    """Clients that ask for megabytes and read a byte a second."""
    held = []
    for _ in range(60):
        raw = must(connect(port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.sendall(READY + notify("read", b"800"))
        held.append(raw)
    seen = Seen(answered=sum(raw.recv(1) != b"" for raw in held))
    while going():
        for raw in held:
            receive(raw, 0.0, 1)
        time.sleep(1.0)
    return seen


def replays(port: int, going: Going) -> Seen:
    """A request twice under one number, and a whole session's bytes again on another connection, its token included."""
    seen = Seen()
    for _ in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            raw.sendall(READY + request(7, "buy") * 2)
            until_closed(raw)
            seen["bought"] += 1
        with Client(port, source=SOURCE) as client:
            client.handshake(GS)
            token = client.hello["sys"]["gs"]["resume"]["token"]
            client.request("echo", b"mine")
        stolen = json.dumps({"sys": {"gs": {"resume": {"token": token, "seen": 0}}}, "user": {}}).encode()
        stream = packet(HANDSHAKE, stolen) + packet(ACK) + request(1, "echo")
        for _ in range(2):
            with contextlib.closing(must(connect(port))) as raw:
                raw.sendall(stream)
                seen["replayed"] += receive(raw) != b""
    return seen


def tokens(port: int, going: Going) -> Seen:
    """Guessed tokens, cut ones, tokens of a client's own choice, and used ones."""
    chance = random.Random(SEED)
    own = "A" * 22
    seen = Seen()
    for number in counted(going):
        guess = [
            "".join(chance.choices("ABCDEFabcdef0123456789-_", k=chance.choice([0, 1, 21, 22, 23, 43, 300]))),
            own,
        ][number % 2]
        with Client(port, source=SOURCE) as client:
            client.handshake(
                json.dumps(
                    {"sys": {"gs": {"resume": {"token": guess, "seen": chance.randrange(3)}}}, "user": {}}
                ).encode()
            )
            fresh = client.hello["sys"].get("gs", {}).get("resume", {})
            assert fresh.get("token") != guess
            assert "seen" not in fresh
            seen["guessed"] += 1
    return seen


REFUSED = re.compile("close 100[279]")  # protocol error, not UTF-8, too big


def websockets(port: int, going: Going) -> Seen:
    """Every case of the conformance run, over and over."""
    abuse: list[Case] = [case for case in cases() if not case.deflate]
    seen = Seen()
    for number in counted(going):
        seen["refused"] += REFUSED.search(play(port, abuse[number % len(abuse)], SOURCE)) is not None
    return seen


def tls_garbage(port: int, going: Going) -> Seen:
    """What begins as TLS and is none; handshakes that end in the middle; records of nothing."""
    chance = random.Random(SEED)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    seen = Seen()
    for number in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            match number % 5:
                case 0:
                    said(raw, TLS_HELLO + chance.randbytes(600))
                case 1:
                    said(raw, TLS_HELLO)
                    continue
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
            until_closed(raw)
            seen["ended"] += 1
    return seen


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


def cross_site(port: int, going: Going) -> Seen:
    """Pages of twenty other origins, and two origins at once."""
    seen = Seen()
    for number in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            line = b"Origin: " + ORIGINS[number % len(ORIGINS)].encode() + b"\r\n"
            if number % (len(ORIGINS) + 1) == 0:
                line = b"Origin: https://game.example\r\nOrigin: https://evil.example\r\n"
            said(raw, UPGRADE + line + b"\r\n")
            answer = receive(raw, 5)
            assert answer.startswith(b"HTTP/1.1 403"), (line, answer)
            seen["refused"] += 1
    return seen


def recursion(port: int, going: Going) -> Seen:
    """Depth in every codec: protobuf, JSON bodies, the handshake's JSON."""
    deep = b""
    while len(deep) < 60_000:
        deep = b"\x12" + varint(len(deep)) + deep
    flat = b"\x12\x80\x80\x80\x80\x08"  # a child of 2 GiB
    bodies: list[tuple[bytes, list[tuple[str, bytes]]]] = [
        (packet(HANDSHAKE, GS), [("Tree", deep), ("Tree", flat), ("Tree", b"\x13" * 60_000)]),
        (HELLO, [("json", b"[" * 60_000), ("json", b'{"a":' * 10_000), ("Tree", b'{"child":' * 6000)]),
        (packet(HANDSHAKE, b'{"user":' * 500), []),
        (packet(HANDSHAKE, b"[" * 4000), []),
    ]
    seen = Seen()
    for number in counted(going):
        hello, messages = bodies[number % len(bodies)]
        with contextlib.closing(must(connect(port))) as raw:
            stream = b"".join(request(at, route, body) for at, (route, body) in enumerate(messages, 1))
            said(raw, hello + packet(ACK) + stream)
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_WR)  # it is all answered, and closed
            until_closed(raw)
            seen["refused"] += len(messages)
    return seen


def headers(port: int, going: Going) -> Seen:
    """Heads of HTTP that are too long, have too many lines, or no end."""
    bombs = [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20_000,
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"H%d: %d\r\n" % (at, at) for at in range(70)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 10_000,
        b"G" * 10_000,
    ]
    seen = Seen()
    for number in counted(going):
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, bombs[number % len(bombs)])
            seen["refused"] += receive(raw).startswith(b"HTTP/1.1 431")
    return seen


def garbage(port: int, going: Going) -> Seen:
    """Random bytes, and sessions with some of their bytes changed, cut, doubled or left out."""
    chance = random.Random(SEED)
    good = READY + packet(HEARTBEAT) + request(1, "echo", b"x" * 50) + notify("take") + request(2, "Tree", b"\x0a\x01a")
    over_ws = UPGRADE + b"\r\n" + frame(2, good)
    seen = Seen()
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
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, bytes(stream))
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_WR)
            until_closed(raw)
            seen["ended"] += 1
    return seen


def log_floods(port: int, going: Going) -> Seen:
    """Whatever could be worth a line: handlers that raise, bodies that do not decode, routes that nobody has, broken rules."""
    seen = Seen()
    for begun in counted(going):
        with Client(port, source=SOURCE) as client, contextlib.suppress(EOFError, OSError):
            client.handshake(POMELO_HANDSHAKE)
            for number in counted(going):  # after so many bad bodies it is closed
                body = f"{begun}.{number}\n\x1b[31mINJECTED\r\n".encode()
                client.send(
                    request(number % 60 + 1, "fail", body) + notify(f"nobody.{number}") + notify("json", b"{" + body)
                )
                client.response(number % 60 + 1)
                seen["answered"] += 1
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, READY + packet(DATA, b"\xff"))
    return seen


def cardinality(port: int, going: Going) -> Seen:
    """Names that are never the same: of routes, people, origins, groups of digits."""
    seen = Seen()
    for number in counted(going):
        name = f"x{number}"
        hello = json.dumps(
            {"sys": {"type": name, "version": name, "gs": {"serializer": "json"}}, "user": {"name": name}}
        )
        with Client(port, source=SOURCE) as client:
            client.handshake(hello.encode())
            client.send(b"".join(notify(f"{name}.{at}@{at}") for at in range(20)) + request(1, name))
            client.response(1)
            seen["routes"] += 21
        with contextlib.closing(must(connect(port))) as raw:
            said(raw, UPGRADE + f"Origin: https://{name}.example\r\n\r\n".encode())
    return seen


def resets(port: int, going: Going) -> Seen:
    """Connections that end by a reset: at once, in the handshake, in a session with answers on their way."""
    seen = Seen()
    for number in counted(going):
        raw = must(connect(port))
        said(raw, [b"", HELLO[:9], READY, READY + request(1, "echo", b"x" * 1000) * 20, UPGRADE + b"\r\n"][number % 5])
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        seen["ended"] += 1
    return seen


ATTACKS: dict[str, Callable[[int, Going], Seen]] = {
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


def receive(raw: socket.socket, patience: float = 0.2, bytes_max: int = 65536) -> bytes:
    """What comes next, if anything does."""
    raw.settimeout(patience)
    try:
        return raw.recv(bytes_max)
    except OSError:
        return b""


def ended(raw: socket.socket) -> bool:
    """Whether the server has ended this connection; what has come is thrown away."""
    raw.setblocking(False)
    try:
        while raw.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def until_closed(raw: socket.socket) -> None:
    """Reads to the end, which comes."""
    raw.settimeout(PATIENCE)
    with contextlib.suppress(ConnectionError):
        while raw.recv(65536):
            pass


def counted(going: Going) -> Iterator[int]:
    """0, 1, 2, ... as long as it goes on, and there are ports: one that was used rests for a minute."""
    number = 0
    while going() and number < TIMES_MAX:
        yield number
        number += 1


def main() -> None:
    name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    signal.alarm(int(seconds) + ALL_MAX)
    end = time.monotonic() + seconds
    print("BEGUN", flush=True)
    print(json.dumps(ATTACKS[name](port, lambda: time.monotonic() < end)), flush=True)


if __name__ == "__main__":
    main()
