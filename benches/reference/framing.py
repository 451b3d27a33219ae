"""The wire in plain Python, for the references: as fast as one gets it without leaving Python."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

HANDSHAKE, HANDSHAKE_ACK, HEARTBEAT, DATA = 1, 2, 3, 4
HANDSHAKE_JSON = b'{"code":200,"sys":{"heartbeat":15,"dict":{},"serializer":"json"},"user":{}}'
HEARTBEAT_PACKET = b"\x03\x00\x00\x00"
HANDSHAKE_PACKET = bytes((HANDSHAKE, 0, 0, len(HANDSHAKE_JSON))) + HANDSHAKE_JSON
REQUEST, RESPONSE = 0, 4

header = Struct(">I").unpack_from  # type and length at once
response_head = Struct(">IB").pack  # packet header and message flag

Handler = Callable[["Connection", bytes], bytes]


class Connection:
    """One connection without its socket: bytes in, packets to send out."""

    __slots__ = ("handlers", "ready", "rest")

    def __init__(self, handlers: dict[bytes, Handler]) -> None:
        self.handlers = handlers
        self.ready = False
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that answer `data`, in order.

        Raises:
            ValueError: the client breaks the protocol.
        """
        if self.rest:
            data = self.rest + data
        handlers = self.handlers
        out: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= 4:
            (head,) = header(data, at)
            body = at + 4
            end = body + (head & 0xFFFFFF)
            if end > size:
                break
            if head >> 24 == DATA and self.ready:
                stop = body + 2
                while data[stop - 1] >= 0x80:  # the id's varint: echoed, never decoded
                    stop += 1
                if data[body] != REQUEST:
                    raise ValueError("not a request")
                start = stop + 1 + data[stop]
                answer = handlers[data[stop + 1 : start]](self, data[start:end])
                ident = data[body + 1 : stop]
                length = 1 + len(ident) + len(answer)
                out.append(response_head(DATA << 24 | length, RESPONSE) + ident + answer)
            else:
                self.control(head >> 24, out)
            at = end
        self.rest = data[at:]
        return out

    def control(self, kind: int, out: list[bytes]) -> None:
        """Any packet but Data."""
        if kind == HANDSHAKE:
            out.append(HANDSHAKE_PACKET)
        elif kind == HANDSHAKE_ACK:
            self.ready = True
            out.append(HEARTBEAT_PACKET)
        elif kind != HEARTBEAT:
            raise ValueError(f"packet of type {kind}")


def echo(connection: Connection, body: bytes) -> bytes:
    """The handler of all references."""
    return body


HANDLERS: dict[bytes, Handler] = {b"echo": echo}
