"""The framing by itself: bytes to items and back, without sockets. For tools, bots and tests.

Two layers, as ``docs/wire.md`` has them: packets, and the messages in Data packets. `WebSocket` carries the same packets
in frames. Nothing here waits or reads a clock, and everything is the code that the server itself runs.

>>> message = Message(MessageKind.REQUEST, "room.join", b"{}", id=1)
>>> encode_packet(PacketKind.DATA, encode_message(message)).hex(" ")
'04 00 00 0e 00 01 09 72 6f 6f 6d 2e 6a 6f 69 6e 7b 7d'
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal, NamedTuple, TypeAlias

from gameserver import _core
from gameserver.errors import ProtocolError

__all__ = [
    "BODY_BYTES_MAX",
    "BinaryMessage",
    "ClientHandshake",
    "Closed",
    "ErrorBody",
    "Event",
    "Message",
    "MessageKind",
    "Opened",
    "Packet",
    "PacketDecoder",
    "PacketKind",
    "Ping",
    "Pong",
    "Refused",
    "Route",
    "Serializer",
    "ServerHandshake",
    "TextMessage",
    "WebSocket",
    "decode_client_handshake",
    "decode_error",
    "decode_message",
    "decode_server_handshake",
    "deflate",
    "detect",
    "encode_client_handshake",
    "encode_error",
    "encode_message",
    "encode_packet",
    "encode_refusal",
    "encode_server_handshake",
    "escape_ascii",
    "inflate",
    "repair_surrogates",
]

Data: TypeAlias = bytes | bytearray | memoryview
Route: TypeAlias = str | int | None
"""A name of at most 255 bytes, a code of the dictionary (0 to 65535), or None in responses."""
Serializer: TypeAlias = Literal["json", "protobuf"]

BODY_BYTES_MAX = 2**24 - 1
"""The longest body that a packet's header can declare, in bytes."""


class PacketKind(IntEnum):
    """What a packet is for.

    >>> PacketKind(3)
    <PacketKind.HEARTBEAT: 3>
    """

    HANDSHAKE = 1
    HANDSHAKE_ACK = 2
    HEARTBEAT = 3
    DATA = 4
    KICK = 5


class Packet(NamedTuple):
    """One packet: its kind, and everything behind its header.

    >>> Packet(PacketKind.HEARTBEAT).body
    b''
    """

    kind: PacketKind
    body: bytes = b""


class MessageKind(IntEnum):
    """Who speaks to whom: requests and notifies come from clients, responses and pushes from the server.

    >>> MessageKind.PUSH.has_id, MessageKind.PUSH.has_route
    (False, True)
    """

    REQUEST = 0
    NOTIFY = 1
    RESPONSE = 2
    PUSH = 3

    @property
    def has_id(self) -> bool:
        """Requests and responses carry an id."""
        return self in (MessageKind.REQUEST, MessageKind.RESPONSE)

    @property
    def has_route(self) -> bool:
        """All but responses carry a route."""
        return self is not MessageKind.RESPONSE


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the body of a Data packet.

    Args:
        kind: request, notify, response or push.
        route: where it goes; None in responses alone.
        body: the payload as it is sent (see `inflate` for a ``compressed`` one).
        id: 0 to 2**32 - 1, of requests and responses; 0 in all others.
        error: the body is an error, see `decode_error`.
        compressed: the body is zlib.

    >>> Message(MessageKind.PUSH, "onMove", b'{"x":1}').id
    0
    """

    kind: MessageKind
    route: Route = None
    body: bytes = b""
    id: int = 0
    error: bool = False
    compressed: bool = False


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What went wrong: a code for programs, a text for people, and more.

    >>> ErrorBody("GS-404", "not found").metadata
    {}
    """

    code: str
    msg: str
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientHandshake:
    """What a client says of itself; None: left out, or not what it should be.

    ``gs`` says that it knows this server's additions. ``user`` is the decoded JSON of its ``user`` field.

    >>> decode_client_handshake(b'{"sys":{"type":"js-websocket"},"user":{"name":"Ann"}}').user
    {'name': 'Ann'}
    """

    type: str | None
    version: str | None
    platform: str | None
    client_version: str | None
    gs: bool
    serializer: Serializer | None
    dict_wanted: bool
    user: Any


@dataclass(frozen=True, slots=True)
class ServerHandshake:
    """A server's answer: ``code`` 200 is a welcome, any other a refusal with its reason in ``user``.

    ``heartbeat`` is in seconds (None: no heartbeats), ``routes`` the dictionary of route codes, ``session`` the
    session's id from a server of this kind.

    >>> decode_server_handshake(b'{"code":200,"sys":{"heartbeat":15}}').heartbeat
    15
    """

    code: int
    heartbeat: int | None
    serializer: Serializer | None
    routes: dict[str, int]
    session: int | None
    user: Any


def encode_packet(kind: PacketKind, body: Data = b"") -> bytes:
    """A packet: header and body.

    Raises:
        ValueError: the body is over `BODY_BYTES_MAX` bytes.

    >>> encode_packet(PacketKind.HANDSHAKE_ACK)
    b'\\x02\\x00\\x00\\x00'
    """
    return _core.wire_encode_packet(PacketKind(kind), _bytes(body))


class PacketDecoder:
    """Cuts a stream into packets, however it arrives.

    A packet over ``body_bytes_max`` is refused when its header is there; of an incomplete one, only the bytes that
    have arrived are kept, so never more than the cap and four bytes.

    >>> decoder = PacketDecoder()
    >>> decoder.feed(b"\\x03\\x00")
    []
    >>> decoder.feed(b"\\x00\\x00\\x02\\x00\\x00\\x00")
    [Packet(kind=<PacketKind.HEARTBEAT: 3>, body=b''), Packet(kind=<PacketKind.HANDSHAKE_ACK: 2>, body=b'')]
    """

    __slots__ = ("_decoder",)

    def __init__(self, body_bytes_max: int = BODY_BYTES_MAX) -> None:
        self._decoder = _core.WirePacketDecoder(min(body_bytes_max, BODY_BYTES_MAX))

    def feed(self, data: Data) -> list[Packet]:
        """The packets that ``data`` completes, in order; ``b""`` gives none.

        Raises:
            ProtocolError: an unknown type, or a body over the cap; again at every later call. What was complete before
                is in `before_error`.

        >>> PacketDecoder(body_bytes_max=100).feed(b"\\x04\\xff\\xff\\xff")
        Traceback (most recent call last):
        gameserver.errors.ProtocolError: packet body of 16777215 bytes: at most 100 allowed here
        """
        return [Packet(PacketKind(kind), body) for kind, body in self._decoder.feed(_bytes(data))]

    @property
    def before_error(self) -> list[Packet]:
        """The packets that were complete in the call of `feed` that raised.

        >>> decoder = PacketDecoder()
        >>> try:
        ...     decoder.feed(b"\\x03\\x00\\x00\\x00\\x09")
        ... except ProtocolError:
        ...     decoder.before_error
        [Packet(kind=<PacketKind.HEARTBEAT: 3>, body=b'')]
        """
        return [Packet(PacketKind(kind), body) for kind, body in self._decoder.before_error]

    @property
    def buffered(self) -> int:
        """Bytes of a packet that is not complete yet.

        >>> decoder = PacketDecoder()
        >>> decoder.feed(b"\\x03\\x00"), decoder.buffered
        ([], 2)
        """
        return self._decoder.buffered

    @property
    def capacity(self) -> int:
        """Bytes of memory held for incomplete packets: at most the cap and four.

        >>> PacketDecoder().capacity
        0
        """
        return self._decoder.capacity


def encode_message(message: Message) -> bytes:
    """A message as the body of a Data packet.

    Raises:
        ValueError: the route is too long, missing, or in a response; the id does not fit, or stands in a notify or push.

    >>> encode_message(Message(MessageKind.RESPONSE, body=b"x", id=129))
    b'\\x04\\x81\\x01x'
    """
    kind = MessageKind(message.kind)
    if not 0 <= message.id <= (0xFFFF_FFFF if kind.has_id else 0):
        raise ValueError(
            f"id {message.id} of a {kind.name.lower()}: " + ("0 to 2**32 - 1" if kind.has_id else "must be 0")
        )
    if isinstance(message.route, int) and not 0 <= message.route <= 0xFFFF:
        raise ValueError(f"route code {message.route}: 0 to 65535")
    return _core.wire_encode_message(
        kind, message.id, message.route, message.error, message.compressed, _bytes(message.body)
    )


def decode_message(data: Data) -> Message:
    """The message that the body of a Data packet is.

    Raises:
        ProtocolError: it is none.

    >>> decode_message(bytes.fromhex("07 00 01"))
    Message(kind=<MessageKind.PUSH: 3>, route=1, body=b'', id=0, error=False, compressed=False)
    """
    kind, id, route, error, compressed, body = _core.wire_decode_message(_bytes(data))
    return Message(MessageKind(kind), route, body, id, error, compressed)


def inflate(body: Data, bytes_max: int) -> bytes:
    """The body of a ``compressed`` message as it was before.

    Raises:
        ProtocolError: it is no zlib stream, or over ``bytes_max`` bytes; no more than that is ever unpacked.

    >>> import zlib
    >>> inflate(zlib.compress(b"hello"), bytes_max=5)
    b'hello'
    """
    return _core.wire_inflate(_bytes(body), bytes_max)


def deflate(body: Data) -> bytes | None:
    """The body as zlib, or None when that is not smaller.

    >>> deflate(b"{}") is None
    True
    >>> len(deflate(b"again and " * 30) or b"") < 40
    True
    """
    return _core.wire_deflate(_bytes(body))


def encode_error(error: ErrorBody, serializer: Serializer = "json") -> bytes:
    """The body of a response with ``error`` set.

    >>> encode_error(ErrorBody("GS-404", "not found"))
    b'{"code":"GS-404","msg":"not found"}'
    """
    return _core.wire_encode_error(serializer, error.code, error.msg, list(error.metadata.items()))


def decode_error(body: Data, serializer: Serializer = "json") -> ErrorBody:
    """What the body of a response with ``error`` set says.

    Raises:
        ProtocolError: it is no error body of that serializer.

    >>> decode_error(bytes.fromhex("0a 07 50 49 54 2d 34 30 34"), "protobuf").code
    'PIT-404'
    """
    code, msg, metadata = _core.wire_decode_error(serializer, _bytes(body))
    return ErrorBody(code, msg, dict(metadata))


def encode_client_handshake(
    user: object = None,
    *,
    type: str = "gameserver-python",
    version: str = "0.1.0",
    serializer: Serializer | None = None,
    codes: bool | None = None,
) -> bytes:
    """The body of a client's Handshake packet.

    Args:
        user: what ``@app.authenticate`` sees: anything that JSON can say; None is ``{}``.
        type: what kind of client this is; JavaScript clients begin with ``js``.
        version: of the client.
        serializer: what bodies shall be; None leaves it to the server.
        codes: whether to be sent route codes. With this or a serializer the handshake has a ``sys.gs``.

    Raises:
        ValueError: ``user`` cannot be written as JSON. (TypeError, if its type cannot.)

    >>> encode_client_handshake({"name": "Ann"})
    b'{"sys":{"type":"gameserver-python","version":"0.1.0"},"user":{"name":"Ann"}}'
    """
    return _core.wire_encode_client_handshake(type, version, serializer, codes, _json({} if user is None else user))


def decode_client_handshake(body: Data) -> ClientHandshake:
    """What a client's Handshake packet says; lenient toward what is missing or unknown.

    Raises:
        ProtocolError: it is no JSON object, or nested over 32 deep.

    >>> decode_client_handshake(b'{"sys":{"gs":{"serializer":"protobuf"}}}').serializer
    'protobuf'
    """
    type, version, platform, client_version, gs, user = _core.wire_decode_client_handshake(_bytes(body))
    serializer, codes = gs or (None, False)
    return ClientHandshake(type, version, platform, client_version, gs is not None, serializer, codes, _value(user))


def encode_server_handshake(
    *,
    heartbeat: int = 15,
    serializer: Serializer = "json",
    routes: Mapping[str, int] | None = None,
    session: int | None = None,
    user: object = None,
) -> bytes:
    """The body of a server's welcome. The packet that it makes is no multiple of 1024 bytes (some clients hang on that).

    Args:
        heartbeat: seconds, 1 or more.
        serializer: what bodies are.
        routes: the dictionary of route codes, only for a client that asked.
        session: the session's id, only for a client that sent a ``sys.gs``; the answer then has one too.
        user: anything that JSON can say; None is ``{}``.

    Raises:
        ValueError: a heartbeat below 1, or a ``user`` that cannot be written as JSON.

    >>> encode_server_handshake()
    b'{"code":200,"sys":{"heartbeat":15,"dict":{},"serializer":"json"},"user":{}}'
    """
    _in_range("heartbeat", heartbeat, 1, 0xFFFF_FFFF)
    _in_range("session", session or 0, 0, 2**64 - 1)
    for code in (routes or {}).values():
        _in_range("route code", code, 0, 0xFFFF)
    return _core.wire_encode_server_handshake(
        heartbeat, serializer, list((routes or {}).items()), session, _json({} if user is None else user)
    )


def encode_refusal(code: Literal[400, 500, 501], reason: str, text: str = "", *, heartbeat: int = 15) -> bytes:
    """The body of a server's refusal: 400 rejected, 500 the game's check failed, 501 client too old.

    Raises:
        ValueError: another code, or a heartbeat below 1.

    >>> encode_refusal(400, "banned", "come back tomorrow")
    b'{"code":400,"sys":{"heartbeat":15},"user":{"code":"banned","msg":"come back tomorrow"}}'
    """
    _in_range("code", code, 400, 501)
    _in_range("heartbeat", heartbeat, 1, 0xFFFF_FFFF)
    return _core.wire_encode_refusal(heartbeat, code, reason, text)


def decode_server_handshake(body: Data) -> ServerHandshake:
    """What a server's Handshake packet says.

    Raises:
        ProtocolError: it is no JSON object with a code.

    >>> decode_server_handshake(encode_refusal(400, "banned")).user
    {'code': 'banned', 'msg': ''}
    """
    code, heartbeat, serializer, routes, session, user = _core.wire_decode_server_handshake(_bytes(body))
    return ServerHandshake(code, heartbeat, serializer, dict(routes), session, _value(user))


def repair_surrogates(text: Data) -> bytes:
    """JSON with surrogate pairs written as bytes (as JavaScript clients do) in proper UTF-8; all else as it is.

    >>> repair_surrogates(bytes.fromhex("ed a0 bd ed b8 80")).decode()
    '😀'
    """
    return _core.wire_repair_surrogates(_bytes(text))


def escape_ascii(json_text: Data) -> bytes:
    """JSON in ASCII: the rest as ``\\uXXXX`` (JavaScript clients garble long UTF-8).

    >>> escape_ascii('"é"'.encode())
    b'"\\\\u00e9"'
    """
    return _core.wire_escape_ascii(_bytes(json_text))


def detect(first: Data) -> Literal["incomplete", "packets", "http", "tls", "unknown"]:
    """What a connection speaks, by its first bytes; eight are always enough.

    >>> detect(b"GET / HTTP/1.1"), detect(b"\\x01\\x00"), detect(b"G")
    ('http', 'packets', 'incomplete')
    """
    return _core.wire_detect(_bytes(first))


@dataclass(frozen=True, slots=True)
class Opened:
    """The upgrade is done; a server sees what was asked for.

    >>> Opened("/play").target
    '/play'
    """

    target: str


@dataclass(frozen=True, slots=True)
class Refused:
    """There will be no WebSocket: the HTTP status that says why (0: no HTTP at all), and a sentence.

    >>> Refused(403, "this origin is not allowed").status
    403
    """

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A whole message of text.

    >>> TextMessage("hello").text
    'hello'
    """

    text: str


@dataclass(frozen=True, slots=True)
class BinaryMessage:
    """A whole message of bytes.

    >>> BinaryMessage(b"hello").data
    b'hello'
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping; its pong is among the bytes to send.

    >>> Ping(b"").data
    b''
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong.

    >>> Pong(b"").data
    b''
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event.

    ``code`` is the peer's (1005: it gave none; 1006: it went without a word) or, with ``error``, the one that we closed
    with because the peer broke a rule; ``reason`` says which.

    >>> Closed(1000, "bye").error
    False
    """

    code: int
    reason: str
    error: bool = False


Event: TypeAlias = Opened | Refused | TextMessage | BinaryMessage | Ping | Pong | Closed


class WebSocket:
    """A WebSocket (RFC 6455) without its socket, either role, from the first byte of the upgrade.

    `feed` it what arrives, send `bytes_to_send` after every call. Pings are answered, closes are answered, messages in
    pieces are joined. A peer that breaks the rules gets the right status or close code, and you get `Refused` or
    `Closed`; nothing that a peer sends raises. Extensions and subprotocols are declined.

    >>> client, server = WebSocket.client("localhost", "/play"), WebSocket.server()
    >>> server.feed(client.bytes_to_send())
    [Opened(target='/play')]
    >>> client.feed(server.bytes_to_send())
    [Opened(target='')]
    >>> client.send_binary(encode_packet(PacketKind.HEARTBEAT))
    >>> server.feed(client.bytes_to_send())
    [BinaryMessage(data=b'\\x03\\x00\\x00\\x00')]
    """

    __slots__ = ("_socket",)

    def __init__(self, _socket: _core.WireWebSocket) -> None:
        self._socket = _socket

    @classmethod
    def server(cls, *, message_bytes_max: int = 1 << 20, allowed_origins: Sequence[str] = ()) -> WebSocket:
        """A server's end.

        Args:
            message_bytes_max: a longer message, in one frame or in pieces, closes with code 1009.
            allowed_origins: pages that may connect (``"https://friend.example"``, ``"*"``) beside the server's own. A client
                that names no origin is no browser, and may.

        >>> server = WebSocket.server()
        >>> server.feed(b"POST / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
        [Refused(status=405, reason='a WebSocket begins with GET')]
        >>> server.bytes_to_send().splitlines()[0]
        b'HTTP/1.1 405 Method Not Allowed'
        """
        return cls(_core.WireWebSocket.server(message_bytes_max, list(allowed_origins)))

    @classmethod
    def client(
        cls, host: str, target: str = "/", *, origin: str | None = None, message_bytes_max: int = 1 << 20
    ) -> WebSocket:
        """A client's end; its request is among the bytes to send.

        Args:
            host: what ``Host`` says: ``"game.example:7777"``.
            target: path and query.
            origin: what ``Origin`` says, for tests of a server's allow-list.
            message_bytes_max: as for `server`.

        Raises:
            ValueError: spaces or control characters in these.

        >>> WebSocket.client("game.example").bytes_to_send().splitlines()[:2]
        [b'GET / HTTP/1.1', b'Host: game.example']
        """
        return cls(_core.WireWebSocket.client(host, target, origin, message_bytes_max))

    @classmethod
    def opened(cls, role: Literal["server", "client"], *, message_bytes_max: int = 1 << 20) -> WebSocket:
        """Either end behind an upgrade that somebody else has done.

        >>> WebSocket.opened("server").is_open
        True
        """
        if role not in ("server", "client"):
            raise ValueError(f'role {role!r}: must be "server" or "client"')
        return cls(_core.WireWebSocket.opened(role == "server", message_bytes_max))

    def feed(self, data: Data) -> list[Event]:
        """What the peer's bytes mean, in order. After `Closed` or `Refused` everything is ignored.

        >>> WebSocket.opened("client").feed(b"\\x81\\x02hi")
        [TextMessage(text='hi')]
        """
        return [_EVENTS[name](*values) for name, *values in self._socket.feed(_bytes(data))]

    def feed_eof(self) -> list[Event]:
        """The peer sends nothing more.

        >>> WebSocket.opened("server").feed_eof()
        [Closed(code=1006, reason='the connection was cut', error=False)]
        """
        return [_EVENTS[name](*values) for name, *values in self._socket.feed_eof()]

    def bytes_to_send(self) -> bytes:
        """The bytes to send since the last call.

        >>> WebSocket.opened("server").bytes_to_send()
        b''
        """
        return self._socket.bytes_to_send()

    def send_text(self, text: str) -> None:
        """Sends a message of text.

        Raises:
            ProtocolError: not open yet, or closed.

        >>> server = WebSocket.opened("server")
        >>> server.send_text("hi")
        >>> server.bytes_to_send()
        b'\\x81\\x02hi'
        """
        self._socket.send_text(text)

    def send_binary(self, data: Data) -> None:
        """Sends a message of bytes: for the game's protocol, one packet.

        Raises:
            ProtocolError: not open yet, or closed.

        >>> server = WebSocket.opened("server")
        >>> server.send_binary(b"hi")
        >>> server.bytes_to_send()
        b'\\x82\\x02hi'
        """
        self._socket.send_binary(_bytes(data))

    def send_ping(self, data: Data = b"") -> None:
        """Sends a ping.

        Raises:
            ProtocolError: not open yet, or closed.
            ValueError: over 125 bytes.

        >>> server = WebSocket.opened("server")
        >>> server.send_ping()
        >>> server.bytes_to_send()
        b'\\x89\\x00'
        """
        self._socket.send_ping(_bytes(data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Sends a close frame (a reason over 123 bytes is cut); `Closed` comes when the peer answers.

        Raises:
            ProtocolError: not open yet, or closed.
            ValueError: a code that may not be sent: 1000 to 1003, 1007 to 1014 and 3000 to 4999 may.

        >>> server = WebSocket.opened("server")
        >>> server.close(4000, "bye")
        >>> server.bytes_to_send()
        b'\\x88\\x05\\x0f\\xa0bye'
        """
        _in_range("close code", code, 1000, 4999)
        self._socket.send_close(code, reason)

    @property
    def is_open(self) -> bool:
        """The upgrade is done, and no close was sent or seen.

        >>> WebSocket.server().is_open
        False
        """
        return self._socket.is_open

    @property
    def is_closed(self) -> bool:
        """Nothing more is read or sent: close the socket when the last bytes have left.

        >>> WebSocket.server().is_closed
        False
        """
        return self._socket.is_closed

    @property
    def buffered(self) -> int:
        """Bytes of frames and messages that are not complete: at most ``message_bytes_max`` and 139 (a frame's header and
        a ping), or 8 KiB of HTTP.

        >>> socket = WebSocket.opened("client")
        >>> socket.feed(b"\\x81\\x02h"), socket.buffered
        ([], 3)
        """
        return self._socket.buffered


_EVENTS: dict[str, type[Any]] = {
    "opened": Opened,
    "refused": Refused,
    "text": TextMessage,
    "binary": BinaryMessage,
    "ping": Ping,
    "pong": Pong,
    "closed": Closed,
}


def _bytes(data: Data) -> bytes:
    return data if isinstance(data, bytes) else bytes(memoryview(data))


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _value(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:  # a number too long for Python
        raise ProtocolError(f"handshake's user: {error}") from None


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} {value}: must be {low} to {high}")
