"""The cases of a WebSocket conformance run, by the sections of RFC 6455 and RFC 7692.

What each comes to is a line of `websocket_results.txt`.

In our frames travel packets: so a message that arrives is a request to `echo`, and its answer says that it did.
"""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from wire_client import ACK, HANDSHAKE, HEARTBEAT, KICK, POMELO_HANDSHAKE, connection, packet, request

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
MASK = b"\x37\xfa\x21\x3d"
LAST = 100  # of a request: when all before is answered, and the connection still works
PATIENCE = 10.0  # s; never waited for where the server answers


class Case(NamedTuple):
    """One case: the bytes that a client sends, in these pieces, once its session is up."""

    name: str
    pieces: tuple[bytes, ...]
    deflate: bool = False


def frame(
    opcode: int, payload: bytes = b"", *, first: int = FIN, mask: bytes | None = MASK, length: bytes | None = None
) -> bytes:
    """A client's frame; `first`: the upper half of its first byte; `length`: instead of the right one, without the mask bit."""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = b"\x7f" + size.to_bytes(8, "big")
    head = bytes([first | opcode])
    if mask is None:
        return head + length + payload
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + bytes([length[0] | 0x80]) + length[1:] + mask + masked


def asked(number: int = 1, size: int = 4) -> bytes:
    """A request to `echo` with so large a body."""
    return request(number, "echo", b"x" * size)


def of_size(size: int) -> bytes:
    """A frame whose payload, a request, has this size."""
    return frame(BINARY, asked(1, size - len(asked(1, 0))))


def pack(payload: bytes, level: int = 9) -> bytes:
    """As RFC 7692 has it: without the end of its last block."""
    compress = zlib.compressobj(level, zlib.DEFLATED, -15)
    return (compress.compress(payload) + compress.flush(zlib.Z_SYNC_FLUSH))[:-4]


def cases() -> Iterator[Case]:
    yield from framing()
    yield from pings()
    yield from reserved()
    yield from fragmentation()
    yield from utf8()
    yield from closing()
    yield from limits()
    yield from deflated()


def framing() -> Iterator[Case]:
    for size in (12, 125, 126, 127, 128, 4096, 65535, 65536):
        yield Case(f"5.2 framing: payload of {size} bytes", (of_size(size),))
    whole = of_size(126)
    yield Case("5.2 framing: byte by byte", tuple(whole[at : at + 1] for at in range(len(whole))))
    yield Case("5.2 framing: two frames in one piece", (frame(BINARY, asked(1)) + frame(BINARY, asked(2)),))
    yield Case("5.2 framing: an empty message", (frame(BINARY), frame(BINARY, asked())))
    yield Case("5.2 framing: 16-bit length for 12 bytes", (frame(BINARY, asked(), length=b"\x7e\x00\x0d"),))
    yield Case(
        "5.2 framing: 64-bit length for 12 bytes", (frame(BINARY, asked(), length=b"\x7f" + b"\0" * 7 + b"\x0d"),)
    )
    yield Case(
        "5.2 framing: 64-bit length with the highest bit", (frame(BINARY, asked(), length=b"\x7f\x80" + b"\0" * 7),)
    )
    yield Case("5.3 masking: no mask", (frame(BINARY, asked(), mask=None),))
    yield Case("5.3 masking: a mask of zeros", (frame(BINARY, asked(), mask=b"\0\0\0\0"),))
    yield Case(
        "5.3 masking: another mask each",
        (frame(BINARY, asked(1), mask=b"\x01\x02\x03\x04") + frame(BINARY, asked(2), mask=b"\xff" * 4),),
    )
    yield Case("5.2 a packet across two messages", (frame(BINARY, asked()[:6]), frame(BINARY, asked()[6:])))
    yield Case("5.2 two packets in one message", (frame(BINARY, asked(1) + asked(2)),))


def pings() -> Iterator[Case]:
    for size in (0, 1, 125):
        yield Case(f"5.5.2 ping with {size} bytes", (frame(PING, b"p" * size),))
    yield Case("5.5.2 ping with 126 bytes", (frame(PING, b"p" * 126),))
    yield Case("5.5.2 ping with bytes that are no text", (frame(PING, b"\x00\xff\xfe"),))
    yield Case("5.5.2 ping, byte by byte", tuple(bytes([byte]) for byte in frame(PING, b"slow")))
    yield Case("5.5.2 ten pings", (b"".join(frame(PING, str(number).encode()) for number in range(10)),))
    yield Case("5.5.2 ping in pieces", (frame(PING, b"p", first=0),))
    yield Case("5.5.2 ping without a mask", (frame(PING, b"p", mask=None),))
    yield Case("5.5.3 pong that nobody asked for", (frame(PONG, b"x"), frame(BINARY, asked())))
    yield Case("5.5.3 pong with 126 bytes", (frame(PONG, b"p" * 126),))


def reserved() -> Iterator[Case]:
    for name, bits in (("1", RSV1), ("2", RSV2), ("3", RSV3), ("1, 2 and 3", RSV1 | RSV2 | RSV3)):
        yield Case(f"5.2 reserved bit {name} on a message", (frame(BINARY, asked(), first=FIN | bits),))
        yield Case(f"5.2 reserved bit {name} on a ping", (frame(PING, b"p", first=FIN | bits),))
        yield Case(f"5.2 reserved bit {name} on a close", (frame(CLOSE, b"\x03\xe8", first=FIN | bits),))
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"5.2 opcode {opcode}", (frame(opcode, b"x"), frame(PING)))
        yield Case(f"5.2 opcode {opcode} behind a message", (frame(BINARY, asked()) + frame(opcode),))


def fragmentation() -> Iterator[Case]:
    whole = asked(1, 100)
    parts = whole[:10], whole[10:50], whole[50:]
    start, middle, end = (
        frame(BINARY, parts[0], first=0),
        frame(CONTINUATION, parts[1], first=0),
        frame(CONTINUATION, parts[2]),
    )
    yield Case("5.4 a message in three frames", (start, middle, end))
    yield Case("5.4 a message in three frames, in one piece", (start + middle + end,))
    yield Case(
        "5.4 a frame for each byte",
        (
            frame(BINARY, whole[:1], first=0),
            *(frame(CONTINUATION, whole[at : at + 1], first=0) for at in range(1, len(whole))),
            frame(CONTINUATION),
        ),
    )
    yield Case(
        "5.4 empty frames between", (start, frame(CONTINUATION, first=0), middle, frame(CONTINUATION, first=0), end)
    )
    yield Case("5.4 pings between", (start, frame(PING, b"1"), middle, frame(PING, b"2"), end))
    yield Case("5.4 a close between", (start, frame(CLOSE, b"\x03\xe8"), end))
    yield Case("5.4 continuation of nothing", (frame(CONTINUATION, b"x"),))
    yield Case("5.4 continuation of nothing, unfinished", (frame(CONTINUATION, b"x", first=0),))
    yield Case("5.4 continuation behind a whole message", (frame(BINARY, asked()) + frame(CONTINUATION, b"x"),))
    yield Case("5.4 a message within a message", (start, frame(BINARY, asked())))
    yield Case("5.4 text within a message", (start, frame(TEXT, b"x")))
    yield Case("5.4 a continuation that ends twice", (start, end, end))


def utf8() -> Iterator[Case]:
    """Text is not spoken here, whatever is in it; reasons of a close are text."""
    for name, payload in (
        ("hello", b"hello"),
        ("no UTF-8", b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"),
        ("nothing", b""),
    ):
        yield Case(f"8.1 text: {name}", (frame(TEXT, payload),))
    yield Case("8.1 text in pieces", (frame(TEXT, b"h", first=0),))
    for name, reason in (
        ("a greek word", "κόσμε".encode()),
        ("cut", "κόσμε".encode()[:-1]),
        ("a surrogate", b"\xed\xa0\x80"),
        ("overlong", b"\xc0\xaf"),
        ("beyond Unicode", b"\xf4\x90\x80\x80"),
        ("a NUL", b"\x00"),
        ("the last code point", b"\xf4\x8f\xbf\xbf"),
    ):
        yield Case(f"8.1 reason of a close: {name}", (frame(CLOSE, b"\x03\xe8" + reason),))


def closing() -> Iterator[Case]:
    yield Case("5.5.1 close without a code", (frame(CLOSE),))
    yield Case("5.5.1 close with one byte", (frame(CLOSE, b"\x03"),))
    yield Case("5.5.1 close with a reason of 123 bytes", (frame(CLOSE, b"\x03\xe8" + b"r" * 123),))
    yield Case("5.5.1 close with a reason of 124 bytes", (frame(CLOSE, b"\x03\xe8" + b"r" * 124),))
    yield Case("5.5.1 two closes", (frame(CLOSE, b"\x03\xe8") + frame(CLOSE, b"\x03\xe9"),))
    yield Case("5.5.1 a ping behind a close", (frame(CLOSE, b"\x03\xe8") + frame(PING, b"late"),))
    yield Case("5.5.1 a message behind a close", (frame(CLOSE, b"\x03\xe8") + frame(BINARY, asked()),))
    yield Case("5.5.1 a message before a close", (frame(BINARY, asked()) + frame(CLOSE, b"\x03\xe8"),))
    yield Case("5.5.1 close in pieces", (frame(CLOSE, b"\x03\xe8", first=0),))
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
        yield Case(f"7.4 close code {code}", (frame(CLOSE, code.to_bytes(2, "big")),))
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        yield Case(f"7.4 close code {code}, which may not be sent", (frame(CLOSE, code.to_bytes(2, "big")),))


def limits() -> Iterator[Case]:
    most = 65536 + 4  # body_bytes_max, and a packet's header
    yield Case("10.4 the longest message", (of_size(most),))
    yield Case("10.4 a byte more, by its header alone", (of_size(most + 1)[:14],))
    yield Case("10.4 2^62 bytes, by its header alone", (frame(BINARY, length=b"\x7f\x40" + b"\0" * 7),))
    yield Case("10.4 a packet of 16 MiB, by its header alone", (frame(BINARY, b"\x04\xff\xff\xff"),))


def deflated() -> Iterator[Case]:
    packed = pack(asked(1, 3000))
    first = FIN | RSV1

    def case(name: str, *pieces: bytes) -> Case:
        return Case(f"7692 {name}", pieces, deflate=True)

    yield case("a compressed message", frame(BINARY, packed, first=first))
    for level in (0, 1, 6):
        yield case(f"compressed with level {level}", frame(BINARY, pack(asked(1, 3000), level), first=first))
    yield case("a message that is not compressed", frame(BINARY, asked()))
    yield case("in two frames", frame(BINARY, packed[:9], first=RSV1), frame(CONTINUATION, packed[9:]))
    yield case("an empty last frame", frame(BINARY, packed, first=RSV1), frame(CONTINUATION))
    yield case(
        "a ping between", frame(BINARY, packed[:9], first=RSV1), frame(PING, b"p"), frame(CONTINUATION, packed[9:])
    )
    yield case("a final block", frame(BINARY, zlib.compress(asked(), 9, -15) + b"\x00", first=first))
    yield case(
        "the reserved bit on a continuation",
        frame(BINARY, packed[:9], first=RSV1),
        frame(CONTINUATION, packed[9:], first=first),
    )
    yield case("the reserved bit on a ping", frame(PING, b"p", first=first))
    yield case("reserved bit 2", frame(BINARY, packed, first=FIN | RSV2))
    yield case("no deflate", frame(BINARY, b"\xff\xff\xff\xff", first=first))
    yield case("exactly as much as a message may be", frame(BINARY, pack(asked(1, 65536 - 7)), first=first))
    yield case("a bomb of a byte too much", frame(BINARY, pack(asked(1, 65536 - 7) + b"x"), first=first))
    yield case("a bomb of 16 MiB", frame(BINARY, pack(b"\0" * (1 << 24)), first=first))
    bomb = pack(request(1, "echo", bytes(range(256)) * 255) + bytes(300))
    yield case("a bomb in pieces", frame(BINARY, bomb[:200], first=RSV1), frame(CONTINUATION, bomb[200:]))


def play(port: int, case: Case, source: str | None = None) -> str:
    """Runs a case against a server; says in words what came of it.

    Raises:
        EOFError, OSError: it does not begin.
    """
    with connection(port, PATIENCE, source) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if case.deflate else ""
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + offer.encode() + b"\r\n"
        )
        reader = Reader(raw)
        reader.skip_head()
        raw.sendall(frame(BINARY, packet(HANDSHAKE, POMELO_HANDSHAKE)))
        reader.frame()
        raw.sendall(frame(BINARY, packet(ACK)))
        said: list[str] = []
        try:
            for piece in case.pieces:
                raw.sendall(piece)
            raw.sendall(frame(BINARY, request(LAST, "echo", b"are you there")))
        except OSError:
            pass  # it has closed already
        while (got := reader.frame()) is not None:
            if told := tell(*got):
                said.append(told)
            if told == f"answer {LAST} of 13":
                said[-1] = "open"
                break
        else:
            said.append("ended")
        return ", ".join(said)


def tell(opcode: int, payload: bytes, compressed: bool) -> str:
    """A frame of the server in words; heartbeats are none."""
    if compressed:
        payload = zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff")
    match opcode:
        case 2 if payload[0] == HEARTBEAT:
            return ""
        case 2 if payload[0] == KICK:
            return f"kick {payload[4:].decode()}"
        case 2:
            return f"{'packed ' if compressed else ''}answer {payload[5]} of {len(payload) - 6}"
        case 8:
            return f"close {int.from_bytes(payload[:2], 'big') if payload else 'without a code'}"
        case 10:
            return f"pong {payload[:4].hex()}{'...' if len(payload) > 4 else ''} of {len(payload)}"
        case _:
            return f"opcode {opcode}"


class Reader:
    """Frames of a server, one at a time."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._bytes = b""

    def skip_head(self) -> None:
        while b"\r\n\r\n" not in self._bytes:
            if not self._more():
                raise EOFError("no upgrade")
        self._bytes = self._bytes.split(b"\r\n\r\n", 1)[1]

    def frame(self) -> tuple[int, bytes, bool] | None:
        """Opcode, payload, and whether it is compressed; None: the server has ended the connection."""
        head = self._take(2)
        if head is None:
            return None
        size = head[1]
        if size >= 126:
            size = int.from_bytes(self._take(2 if size == 126 else 8) or b"", "big")
        payload = self._take(size)
        return None if payload is None else (head[0] & 15, payload, bool(head[0] & RSV1))

    def _take(self, count: int) -> bytes | None:
        while len(self._bytes) < count:
            if not self._more():
                return None
        taken, self._bytes = self._bytes[:count], self._bytes[count:]
        return taken

    def _more(self) -> bool:
        try:
            data = self._raw.recv(65536)
        except ConnectionResetError:
            return False
        self._bytes += data
        return bool(data)
