"""`gameserver.wire`: golden vectors, properties of any input, and the `websockets` package as a second opinion."""

from __future__ import annotations

import doctest
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from wire_client import varint

import gameserver.wire
from gameserver.errors import ProtocolError
from gameserver.wire import (
    BinaryMessage,
    Closed,
    ErrorBody,
    Event,
    Message,
    MessageKind,
    Opened,
    Packet,
    PacketDecoder,
    PacketKind,
    Ping,
    Pong,
    Refused,
    TextMessage,
    WebSocket,
    decode_client_handshake,
    decode_error,
    decode_message,
    decode_server_handshake,
    deflate,
    encode_client_handshake,
    encode_error,
    encode_message,
    encode_packet,
    encode_refusal,
    encode_server_handshake,
    escape_ascii,
    inflate,
    repair_surrogates,
)

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus"

GOLDEN_MESSAGES = [
    ("00 00 01 61", Message(MessageKind.REQUEST, "a")),
    ("01 00 00 01", Message(MessageKind.REQUEST, 1)),
    ("02 01 61", Message(MessageKind.NOTIFY, "a")),
    ("06 01 61", Message(MessageKind.PUSH, "a")),
    ("07 00 01", Message(MessageKind.PUSH, 1)),
    ("04 81 01", Message(MessageKind.RESPONSE, id=129)),
    ("04 00 01", Message(MessageKind.RESPONSE, body=b"\x01")),
    ("24 00 01", Message(MessageKind.RESPONSE, body=b"\x01", error=True)),
]

GOLDEN_PACKETS = [
    ("02 00 00 00", PacketKind.HANDSHAKE_ACK, b""),
    ("03 00 00 00", PacketKind.HEARTBEAT, b""),
    (
        "04 00 00 0e 00 01 09 72 6f 6f 6d 2e 6a 6f 69 6e 7b 7d",
        PacketKind.DATA,
        Message(MessageKind.REQUEST, "room.join", b"{}", id=1),
    ),
    ("04 00 00 07 01 ac 02 00 07 7b 7d", PacketKind.DATA, Message(MessageKind.REQUEST, 7, b"{}", id=300)),
    (
        "04 00 00 0a 04 01 7b 22 6f 6b 22 3a 31 7d",
        PacketKind.DATA,
        Message(MessageKind.RESPONSE, body=b'{"ok":1}', id=1),
    ),
    (
        "04 00 00 0f 06 06 6f 6e 4d 6f 76 65 7b 22 78 22 3a 31 7d",
        PacketKind.DATA,
        Message(MessageKind.PUSH, "onMove", b'{"x":1}'),
    ),
    (
        "04 00 00 16 24 01 0a 07 50 49 54 2d 34 30 34 12 09 6e 6f 74 20 66 6f 75 6e 64",
        PacketKind.DATA,
        Message(
            MessageKind.RESPONSE, body=encode_error(ErrorBody("PIT-404", "not found"), "protobuf"), id=1, error=True
        ),
    ),
    (
        "05 00 00 11 7b 22 72 65 61 73 6f 6e 22 3a 22 6b 69 63 6b 22 7d",
        PacketKind.KICK,
        b'{"reason":"kick"}',
    ),
]

kinds = st.sampled_from(PacketKind)
packets = st.lists(st.builds(Packet, kinds, st.binary(max_size=300)), max_size=10)
pieces = st.lists(st.integers(1, 40), min_size=1, max_size=20)
routes = st.one_of(
    st.integers(0, 0xFFFF),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=63),
    st.just("r" * 255),
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message that can be written."""
    kind = draw(st.sampled_from(MessageKind))
    return Message(
        kind,
        draw(routes) if kind.has_route else None,
        draw(st.binary(max_size=300)),
        draw(st.integers(0, 2**32 - 1)) if kind.has_id else 0,
        draw(st.booleans()),
        draw(st.booleans()),
    )


def cut(stream: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    """The stream in pieces of these sizes, over and over."""
    at, index = 0, 0
    while at < len(stream):
        size = sizes[index % len(sizes)]
        yield stream[at : at + size]
        at, index = at + size, index + 1


def run_decoder(stream: bytes, sizes: Sequence[int], cap: int) -> tuple[list[Packet], str | None]:
    """Packets and error, with the memory watched."""
    decoder, seen = PacketDecoder(cap), []
    for piece in cut(stream, sizes):
        try:
            seen += decoder.feed(piece)
        except ProtocolError as error:
            seen += decoder.before_error
            with pytest.raises(ProtocolError):
                decoder.feed(b"")
            return seen, str(error)
        assert decoder.capacity <= cap + 4
        assert decoder.buffered <= decoder.capacity
    return seen, None


# Packets and messages.


@pytest.mark.parametrize(("golden", "message"), GOLDEN_MESSAGES)
def test_golden_messages(golden: str, message: Message) -> None:
    data = bytes.fromhex(golden)
    assert encode_message(message) == data
    assert decode_message(data) == message


@pytest.mark.parametrize(("golden", "kind", "body"), GOLDEN_PACKETS)
def test_golden_packets(golden: str, kind: PacketKind, body: bytes | Message) -> None:
    data = bytes.fromhex(golden)
    if isinstance(body, Message):
        assert decode_message(data[4:]) == body
        body = encode_message(body)
    assert encode_packet(kind, body) == data
    assert PacketDecoder().feed(data) == [Packet(kind, body)]


def spelled(message: Message) -> bytes:
    """The message's bytes by docs/wire.md, written here once more: what both directions of a codec get wrong alike, this sees."""
    is_code = isinstance(message.route, int)
    flag = message.kind << 1 | is_code | 0x10 * message.compressed | 0x20 * message.error
    head = bytes([flag]) + (varint(message.id) if message.kind.has_id else b"")
    if isinstance(message.route, int):
        return head + message.route.to_bytes(2, "big") + message.body
    if message.route is not None:
        name = message.route.encode()
        return head + bytes([len(name)]) + name + message.body
    return head + message.body


@given(messages())
def test_any_message_round_trips_by_the_bytes_of_the_protocol(message: Message) -> None:
    assert encode_message(message) == spelled(message)
    assert decode_message(spelled(message)) == message


@given(kinds, st.sampled_from([0, 1, 255, 256, 65_535, 65_536]), st.integers(-1, 1))
def test_a_packet_may_be_as_long_as_its_cap_and_no_longer(kind: PacketKind, cap: int, more: int) -> None:
    body = bytes(max(0, cap + more))
    stream = bytes([kind]) + len(body).to_bytes(3, "big") + body
    assert encode_packet(kind, body) == stream
    if len(body) <= cap:
        assert PacketDecoder(cap).feed(stream) == [Packet(kind, body)]
    else:
        with pytest.raises(ProtocolError):
            PacketDecoder(cap).feed(stream[:4])  # the declared length is enough


@given(packets, pieces)
def test_any_cutting_gives_the_same_packets(packets: list[Packet], sizes: list[int]) -> None:
    stream = b"".join(encode_packet(*packet) for packet in packets)
    assert run_decoder(stream, sizes, 300) == (packets, None)


@given(st.binary(max_size=400), st.integers(0, 200), pieces)
def test_any_bytes_give_packets_or_a_protocol_error(stream: bytes, cap: int, sizes: list[int]) -> None:
    assert run_decoder(stream, sizes, cap) == run_decoder(stream, [len(stream) or 1], cap)


@given(packets, st.data(), st.integers(0, 300), pieces)
def test_a_stream_with_one_byte_changed(packets: list[Packet], data: st.DataObject, cap: int, sizes: list[int]) -> None:
    stream = bytearray(b"".join(encode_packet(*packet) for packet in packets) or b"\x03")
    stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    whole = run_decoder(bytes(stream), [len(stream)], cap)
    assert run_decoder(bytes(stream), sizes, cap) == whole
    assert b"".join(encode_packet(*packet) for packet in whole[0]) == stream[: sum(4 + len(p.body) for p in whole[0])]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = decode_message(data)
    except ProtocolError:
        return
    assert decode_message(encode_message(message)) == message


def test_a_declared_length_costs_nothing() -> None:
    decoder = PacketDecoder()
    assert decoder.feed(b"\x04\xff\xff\xff" + b"x" * 1000) == []
    assert (decoder.buffered, decoder.capacity < 4096) == (1004, True)


def test_what_was_complete_before_an_error() -> None:
    decoder = PacketDecoder()
    with pytest.raises(ProtocolError, match="packet type 0x09"):
        decoder.feed(encode_packet(PacketKind.HEARTBEAT) + b"\x09")
    assert decoder.before_error == [Packet(PacketKind.HEARTBEAT)]


@pytest.mark.parametrize(
    "message",
    [
        Message(MessageKind.PUSH, "r" * 256),
        Message(MessageKind.PUSH),
        Message(MessageKind.PUSH, "a", id=1),
        Message(MessageKind.PUSH, -1),
        Message(MessageKind.PUSH, 65_536),
        Message(MessageKind.PUSH, "\ud800"),
        Message(MessageKind.RESPONSE, "a"),
        Message(MessageKind.RESPONSE, id=-1),
        Message(MessageKind.RESPONSE, id=2**32),
        Message(4, "a"),  # type: ignore[arg-type]
    ],
)
def test_messages_that_cannot_be_written(message: Message) -> None:
    with pytest.raises(ValueError):
        encode_message(message)


def test_packets_that_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="at most 16777215"):
        encode_packet(PacketKind.DATA, bytes(2**24))
    with pytest.raises(ValueError):
        encode_packet(6)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        encode_packet(PacketKind.DATA, 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_will_do(kind: Callable[[bytes], bytes]) -> None:
    assert PacketDecoder().feed(kind(b"\x03\0\0\0")) == [Packet(PacketKind.HEARTBEAT)]
    assert encode_packet(PacketKind.DATA, kind(b"x")) == b"\x04\0\0\x01x"


# Bodies.


@given(st.binary(max_size=3000))
def test_what_zlib_packs_is_unpacked_under_the_cap(body: bytes) -> None:
    packed = zlib.compress(body)
    assert inflate(packed, len(body)) == body
    for short in range(1, min(len(body), 2) + 1):
        with pytest.raises(ProtocolError, match="more than"):
            inflate(packed, len(body) - short)


@given(st.binary(max_size=3000))
def test_what_we_pack_zlib_unpacks(body: bytes) -> None:
    packed = deflate(body * 3)
    if packed is not None:
        assert len(packed) < 3 * len(body)
        assert zlib.decompress(packed) == body * 3


@given(st.binary(max_size=300))
def test_any_bytes_inflate_or_not(body: bytes) -> None:
    try:
        assert len(inflate(body, 100)) <= 100
    except ProtocolError:
        pass


@given(
    st.text(max_size=30), st.text(max_size=30), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)
)
def test_any_error_round_trips(code: str, msg: str, metadata: dict[str, str]) -> None:
    error = ErrorBody(code, msg, metadata)
    body = encode_error(error, "json")
    assert decode_error(body, "json") == error
    assert json.loads(body.decode("ascii")) == {"code": code, "msg": msg} | ({"metadata": metadata} if metadata else {})
    assert decode_error(encode_error(error, "protobuf"), "protobuf") == error


@given(st.binary(max_size=100), st.sampled_from(["json", "protobuf"]))
def test_any_bytes_are_an_error_body_or_a_protocol_error(body: bytes, serializer: gameserver.wire.Serializer) -> None:
    try:
        assert isinstance(decode_error(body, serializer), ErrorBody)
    except ProtocolError:
        pass


@given(st.text())
def test_text_that_javascript_garbled(text: str) -> None:
    garbled = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    units = b"".join(
        chr(unit).encode("utf-8", "surrogatepass") for unit in memoryview(garbled.encode("utf-16-le")).cast("H")
    )
    assert repair_surrogates(units).decode() == text
    assert json.loads(escape_ascii(json.dumps(text, ensure_ascii=False).encode()).decode("ascii")) == text


# Handshakes.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(json_values.filter(lambda value: value is not None), st.sampled_from([None, "json", "protobuf"]))
def test_client_handshakes_round_trip(user: object, serializer: gameserver.wire.Serializer | None) -> None:
    client = decode_client_handshake(encode_client_handshake(user, serializer=serializer))
    assert (client.user, client.serializer, client.gs) == (user, serializer, serializer is not None)
    assert client.type == "gameserver-python"


@given(json_values, st.integers(1, 100), st.none() | st.integers(0, 2**64 - 1))
def test_server_handshakes_round_trip(user: object, heartbeat: int, session: int | None) -> None:
    body = encode_server_handshake(heartbeat=heartbeat, routes={"room.join": 7}, session=session, user=user)
    server = decode_server_handshake(body)
    assert (server.code, server.heartbeat, server.session) == (200, heartbeat, session)
    assert (server.serializer, server.routes) == ("json", {"room.join": 7})
    assert server.user == ({} if user is None else user)
    assert body.isascii()


def test_no_answer_is_a_multiple_of_1024() -> None:
    for length in range(900, 2100):
        assert len(encode_packet(PacketKind.HANDSHAKE, encode_server_handshake(user="u" * length))) % 1024
        assert len(encode_packet(PacketKind.HANDSHAKE, encode_refusal(400, "no", "u" * length))) % 1024


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_handshake_or_a_protocol_error(body: bytes) -> None:
    for decode in (decode_client_handshake, decode_server_handshake):
        try:
            decode(body)
        except ProtocolError:
            pass


@pytest.mark.parametrize("user", ["[" * 1000 + "]" * 1000, "1" * 5000, "{", ""])
def test_handshakes_that_python_could_not_read(user: str) -> None:
    with pytest.raises(ProtocolError):
        decode_client_handshake(b'{"user":' + user.encode() + b"}")


# WebSocket, by itself.


def opened_pair() -> tuple[WebSocket, WebSocket]:
    """A client and a server that have found each other."""
    client, server = WebSocket.client("localhost:7777", "/play"), WebSocket.server()
    assert server.feed(client.bytes_to_send()) == [Opened("/play")]
    assert client.feed(server.bytes_to_send()) == [Opened("")]
    return client, server


def test_a_conversation() -> None:
    client, server = opened_pair()
    client.send_text("né")
    client.send_binary(memoryview(b"x" * 70_000))
    client.send_ping(b"p")
    assert server.feed(client.bytes_to_send()) == [TextMessage("né"), BinaryMessage(b"x" * 70_000), Ping(b"p")]
    assert client.feed(server.bytes_to_send()) == [Pong(b"p")]
    client.close(4000, "bye")
    assert server.feed(client.bytes_to_send()) == [Closed(4000, "bye")]
    assert client.feed(server.bytes_to_send()) == [Closed(4000, "")]
    assert client.is_closed
    assert server.is_closed
    with pytest.raises(ProtocolError, match="closed"):
        server.send_text("late")


def test_masks_are_not_repeated() -> None:
    client, _ = opened_pair()
    masks = set()
    for _ in range(100):
        client.send_binary(b"")
        masks.add(client.bytes_to_send()[2:6])
    assert len(masks) == 100
    assert len({WebSocket.client("a").bytes_to_send() for _ in range(100)}) == 100


def test_what_cannot_be_sent() -> None:
    with pytest.raises(ProtocolError, match="not open yet"):
        WebSocket.server().send_text("early")
    client, _ = opened_pair()
    for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 70_000):
        with pytest.raises(ValueError, match="close code"):
            client.close(code)
    with pytest.raises(ValueError, match="125"):
        client.send_ping(bytes(126))
    with pytest.raises(ValueError, match="printable"):
        WebSocket.client("a\r\nX: y")
    assert client.is_open


@pytest.mark.parametrize(
    ("origin", "allowed", "opens"),
    [
        (None, [], True),
        ("http://localhost:7777", [], True),
        ("http://localhost:7778", [], False),
        ("https://friend.example", ["https://friend.example"], True),
        ("https://friend.example.evil.example", ["https://friend.example"], False),
        ("null", [], False),
        ("https://anyone.example", ["*"], True),
    ],
)
def test_origins(origin: str | None, allowed: list[str], opens: bool) -> None:
    client = WebSocket.client("localhost:7777", origin=origin)
    server = WebSocket.server(allowed_origins=allowed)
    (event,) = server.feed(client.bytes_to_send())
    assert isinstance(event, Opened if opens else Refused)
    (event,) = client.feed(server.bytes_to_send())
    assert event == Opened("") if opens else isinstance(event, Refused) and event.status == 403


def run_websocket(socket: WebSocket, stream: bytes, sizes: Sequence[int], cap: int) -> tuple[list[Event], bytes]:
    """Events and answers, with the memory watched."""
    events: list[Event] = []
    for piece in cut(stream, sizes):
        events += socket.feed(piece)
        assert socket.buffered <= max(cap + 139, 8192)
    return events, socket.bytes_to_send()


@given(st.binary(max_size=300), st.sampled_from(["server", "client", "upgrade"]), st.integers(0, 200), pieces)
def test_any_bytes_give_events_however_cut(stream: bytes, role: str, cap: int, sizes: list[int]) -> None:
    def socket() -> WebSocket:
        match role:
            case "server" | "client":
                return WebSocket.opened("server" if role == "server" else "client", message_bytes_max=cap)
            case _:
                return WebSocket.server(message_bytes_max=cap)

    whole, whole_sent = run_websocket(socket(), stream, [len(stream) or 1], cap)
    events, sent = run_websocket(socket(), stream, sizes, cap)
    assert events == whole
    assert role == "client" or sent == whole_sent  # a client's masks differ
    assert not any(isinstance(event, Closed | Refused) for event in whole[:-1])


@pytest.mark.parametrize("folder", ["upgrade", "websocket_frames", "packets", "messages"])
def test_the_corpus_of_the_fuzzer(folder: str) -> None:
    files = sorted((CORPUS / folder).iterdir())
    assert len(files) >= 10
    for file in files:
        data = file.read_bytes()
        assert run_decoder(data[2:], [1], 100) == run_decoder(data[2:], [len(data)], 100)
        makers: list[Callable[[], WebSocket]] = [WebSocket.server, lambda: WebSocket.opened("server")]
        for make in makers:
            assert run_websocket(make(), data, [1], 1 << 20) == run_websocket(make(), data, [len(data) or 1], 1 << 20)
        for decode in (decode_message, decode_client_handshake, decode_server_handshake, decode_error):
            try:
                decode(data)
            except ProtocolError:
                pass


# WebSocket, beside the `websockets` package.

URI = parse_uri("ws://localhost:7777/play")

text_parts = st.lists(st.text(max_size=20), min_size=1, max_size=3)
binary_parts = st.lists(st.binary(max_size=200), min_size=1, max_size=3)
actions = st.lists(
    st.tuples(st.just("text"), text_parts)
    | st.tuples(st.just("binary"), binary_parts)
    | st.tuples(st.just("ping"), st.binary(max_size=125))
    | st.tuples(st.just("pong"), st.binary(max_size=125)),
    max_size=8,
)


def drain(protocol: ClientProtocol | ServerProtocol) -> bytes:
    """What it wants to send."""
    return b"".join(protocol.data_to_send())


def act(
    protocol: ClientProtocol | ServerProtocol, actions: list[tuple[str, list[str] | list[bytes] | bytes]]
) -> list[Event]:
    """Sends all of it through the oracle; what the other end should see."""
    expected: list[Event] = []
    for what, payload in actions:
        if what == "ping" and isinstance(payload, bytes):
            protocol.send_ping(payload)
            expected.append(Ping(payload))
        elif what == "pong" and isinstance(payload, bytes):
            protocol.send_pong(payload)
            expected.append(Pong(payload))
        else:
            parts = [part.encode() if isinstance(part, str) else part for part in payload if not isinstance(part, int)]
            send = protocol.send_text if what == "text" else protocol.send_binary
            for index, part in enumerate(parts):
                (protocol.send_continuation if index else send)(part, fin=index == len(parts) - 1)
            whole = b"".join(parts)
            expected.append(TextMessage(whole.decode()) if what == "text" else BinaryMessage(whole))
    return expected


def received(protocol: ClientProtocol | ServerProtocol) -> list[Frame]:
    """Frames that the oracle has read."""
    return [event for event in protocol.events_received() if isinstance(event, Frame)]


@given(actions, pieces)
def test_the_server_role_against_websockets(
    actions: list[tuple[str, list[str] | list[bytes] | bytes]], sizes: list[int]
) -> None:
    oracle, server = ClientProtocol(URI), WebSocket.server()
    oracle.send_request(oracle.connect())
    stream = drain(oracle)
    events, answer = run_websocket(server, stream, sizes, 1 << 20)
    assert events == [Opened("/play")]
    oracle.receive_data(answer)
    (response,) = oracle.events_received()
    assert isinstance(response, Response)
    assert (response.status_code, oracle.state) == (101, State.OPEN)

    expected = act(oracle, actions)
    events, answer = run_websocket(server, drain(oracle), sizes, 1 << 20)
    assert events == expected
    oracle.receive_data(answer)
    assert [frame.data for frame in received(oracle)] == [event.data for event in expected if isinstance(event, Ping)]

    server.send_text("né")
    server.send_binary(b"x" * 300)
    server.send_ping(b"p")
    oracle.receive_data(server.bytes_to_send())
    assert [(frame.opcode, bytes(frame.data)) for frame in received(oracle)] == [
        (Opcode.TEXT, "né".encode()),
        (Opcode.BINARY, b"x" * 300),
        (Opcode.PING, b"p"),
    ]
    assert server.feed(drain(oracle)) == [Pong(b"p")]
    server.close(1001, "stop")
    oracle.receive_data(server.bytes_to_send())
    assert server.feed(drain(oracle)) == [Closed(1001, "stop")]
    oracle.receive_eof()
    assert (oracle.close_code, oracle.close_reason) == (1001, "stop")
    assert server.is_closed


@given(actions, pieces)
def test_the_client_role_against_websockets(
    actions: list[tuple[str, list[str] | list[bytes] | bytes]], sizes: list[int]
) -> None:
    oracle, client = ServerProtocol(), WebSocket.client("localhost:7777", "/play")
    oracle.receive_data(client.bytes_to_send())
    (request,) = oracle.events_received()
    assert isinstance(request, Request)
    oracle.send_response(oracle.accept(request))
    assert run_websocket(client, drain(oracle), sizes, 1 << 20) == ([Opened("")], b"")

    expected = act(oracle, actions)
    events, answer = run_websocket(client, drain(oracle), sizes, 1 << 20)
    assert events == expected
    oracle.receive_data(answer)
    assert [frame.data for frame in received(oracle)] == [event.data for event in expected if isinstance(event, Ping)]

    client.send_text("né")
    client.send_binary(b"x" * 70_000)
    oracle.receive_data(client.bytes_to_send())
    assert [bytes(frame.data) for frame in received(oracle)] == ["né".encode(), b"x" * 70_000]
    oracle.send_close(1000, "done")
    assert client.feed(drain(oracle)) == [Closed(1000, "done")]
    oracle.receive_data(client.bytes_to_send())
    oracle.receive_eof()
    assert (oracle.close_code, oracle.state) == (1000, State.CLOSED)


@given(st.binary(max_size=120), pieces)
def test_broken_frames_close_as_websockets_closes(payload: bytes, sizes: list[int]) -> None:
    """The same bytes to both servers: both close, with the same code, or both go on."""
    request = ClientProtocol(URI)
    request.send_request(request.connect())
    upgrade = drain(request)
    oracle = ServerProtocol(max_size=1 << 20)
    oracle.receive_data(upgrade)
    (event,) = oracle.events_received()
    assert isinstance(event, Request)
    oracle.send_response(oracle.accept(event))
    drain(oracle)
    server = WebSocket.server(message_bytes_max=1 << 20)
    server.feed(upgrade)

    oracle.receive_data(payload)
    events, _ = run_websocket(server, payload, sizes, 1 << 20)
    closed = [event for event in events if isinstance(event, Closed)]
    sent = oracle.close_sent
    # It checks text whole, and judges a header when all of it is there: then it is late, not of another opinion.
    if sent is not None:
        assert closed
        assert closed[0].code == (sent.code if closed[0].error else closed[0].code)
    if closed and not closed[0].error:
        assert oracle.close_rcvd is not None
        assert closed[0].code == oracle.close_rcvd.code


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("GET /", "POST /"), 405),
        (("Upgrade: websocket\r\n", ""), 426),
        (("Connection: Upgrade\r\n", ""), 426),
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), 400),
        (("Host: localhost:7777\r\n", ""), 400),
        (("HTTP/1.1", "HTTP/1.0"), 505),
        (("HTTP/1.1", "HTTP/3.1"), 505),
        (("GET /play", "GET /" + "p" * 9000), 431),
    ],
)
def test_wrong_requests_get_the_right_status(change: tuple[str, str], status: int) -> None:
    right = ClientProtocol(URI)
    right.send_request(right.connect())
    request = drain(right).decode()
    assert change[0] in request
    server = WebSocket.server()
    (event,) = server.feed(request.replace(*change).encode())
    assert isinstance(event, Refused)
    assert event.status == status
    answer = server.bytes_to_send()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert server.is_closed
    right.receive_data(answer)
    right.receive_eof()
    assert isinstance(right.handshake_exc, InvalidHandshake)


def test_deflate_is_declined() -> None:
    from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

    oracle = ClientProtocol(URI, extensions=[ClientPerMessageDeflateFactory()])
    oracle.send_request(oracle.connect())
    server = WebSocket.server()
    request = drain(oracle)
    assert b"permessage-deflate" in request
    assert server.feed(request) == [Opened("/play")]
    oracle.receive_data(server.bytes_to_send())
    assert (oracle.state, oracle.extensions) == (State.OPEN, [])


# The module's face.


def test_the_examples_in_the_docstrings() -> None:
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE
    results = doctest.testmod(gameserver.wire, optionflags=flags)
    assert results.attempted > 50
    assert results.failed == 0


def test_every_name_is_listed_sorted_and_explained() -> None:
    names = gameserver.wire.__all__
    assert names == sorted(names)
    own = {
        name
        for name, value in vars(gameserver.wire).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == "gameserver.wire"
    }
    assert own <= set(names)
    for name in own:
        assert ">>>" in (getattr(gameserver.wire, name).__doc__ or ""), name
