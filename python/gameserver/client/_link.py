"""One connection, sans-I/O: bytes and time in, events and bytes out. Packets lie in a stream, or in WebSocket frames."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gameserver import wire
from gameserver.client._errors import ClientError
from gameserver.errors import ProtocolError

__all__ = ["Ended", "Heartbeat", "Kicked", "Link", "LinkEvent", "Received", "Shaken", "Traffic"]

DEAD_AFTER_HEARTBEATS = 2.5  # the server sends one each interval: so many without a byte are no accident
CLOSE_NORMAL, CLOSE_PROTOCOL, CLOSE_SILENT = 1000, 4400, 4408


@dataclass(frozen=True, slots=True)
class Shaken:
    """The server has let us in: what its handshake said."""

    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Received:
    """A response or push; its route is a name, its body is inflated."""

    message: wire.Message


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The server is there."""


@dataclass(frozen=True, slots=True)
class Kicked:
    """The server ends the session."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event. `is_final`: another attempt would end the same way."""

    error: ClientError
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """What went over connections: bytes of packets, without what WebSocket and TCP add."""

    bytes_in: int = 0
    bytes_out: int = 0
    messages_in: int = 0
    messages_out: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.messages_in + other.messages_in,
            self.messages_out + other.messages_out,
        )


LinkEvent: TypeAlias = Shaken | Received | Heartbeat | Kicked | Ended


class Link:
    """From the first byte to the last.

    Args:
        hello: the body of our handshake.
        host: of the WebSocket's request; None: packets lie in the stream as they are.
        now: s, of any clock that does not jump.
        timeout: s until the server's handshake.
        body_bytes_max: larger packets and inflated bodies end it.
    """

    def __init__(
        self, hello: bytes, *, host: str | None, target: str, now: float, timeout: float, body_bytes_max: int
    ) -> None:
        self._packets = wire.PacketDecoder(body_bytes_max)
        self._socket = wire.WebSocket.client(host, target, message_bytes_max=body_bytes_max + 4) if host else None
        self._hello = hello
        self._out = bytearray()
        self._body_bytes_max = body_bytes_max
        self._codes: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._heartbeat = math.inf
        self._shake_by = now + timeout
        self._heard = self._sent = now
        self._timeout = timeout
        self.is_open = False
        self.is_ended = False
        self._bytes_in = self._bytes_out = self._messages_in = self._messages_out = 0
        if self._socket is None:
            self._send(wire.PacketKind.HANDSHAKE, hello, now)

    def feed(self, now: float, data: bytes) -> list[LinkEvent]:
        """What the server's bytes mean."""
        events: list[LinkEvent] = []
        if self.is_ended:
            return events
        self._heard = now
        try:
            if self._socket is None:
                self._take(now, data, events)
            else:
                for event in self._socket.feed(data):
                    self._take_event(now, event, events)
        except ProtocolError as error:
            self._breach(str(error), events)
        return events

    def feed_eof(self) -> list[LinkEvent]:
        """The server sends nothing more."""
        return self.end(self._lost("the connection was closed"))

    def _lost(self, text: str) -> ClientError:
        return ClientError("disconnected" if self.is_open else "unreachable", text)

    def end(self, error: ClientError, code: int = CLOSE_NORMAL, *, is_final: bool = False) -> list[LinkEvent]:
        """From our side."""
        if self.is_ended:
            return []
        if self._socket is not None and self._socket.is_open:
            self._socket.close(code)
        self.is_ended = True
        self.is_open = False
        return [Ended(error, is_final)]

    def send(self, now: float, message: bytes) -> None:
        """A whole message, once `is_open`."""
        self._send(wire.PacketKind.DATA, message, now)

    @property
    def traffic(self) -> Traffic:
        """So far."""
        return Traffic(self._bytes_in, self._bytes_out, self._messages_in, self._messages_out)

    def route(self, name: str) -> str | int:
        """The code that the server gave to a route, or the route."""
        return self._codes.get(name, name)

    def bytes_to_send(self) -> bytes:
        """Since the last call."""
        if self._socket is not None:
            return self._socket.bytes_to_send()
        out, self._out = bytes(self._out), bytearray()
        return out

    @property
    def due(self) -> float:
        """When `handle_timeouts` has to be called, at the latest."""
        if self.is_ended:
            return math.inf
        if not self.is_open:
            return self._shake_by
        return min(self._sent + self._heartbeat, self._heard + DEAD_AFTER_HEARTBEATS * self._heartbeat)

    def handle_timeouts(self, now: float) -> list[LinkEvent]:
        """What is due by time."""
        if self.is_ended or now < self.due:
            return []
        if not self.is_open:
            return self.end(ClientError("timeout", f"no handshake within {self._timeout:g} s"), CLOSE_SILENT)
        if now >= self._heard + DEAD_AFTER_HEARTBEATS * self._heartbeat:
            return self.end(ClientError("disconnected", f"nothing heard for {now - self._heard:.0f} s"), CLOSE_SILENT)
        self._send(wire.PacketKind.HEARTBEAT, b"", now)
        return []

    # -- what comes ---------------------------------------------------------------------------------------------------

    def _take_event(self, now: float, event: wire.Event, events: list[LinkEvent]) -> None:
        match event:
            case wire.Opened():
                self._send(wire.PacketKind.HANDSHAKE, self._hello, now)
            case wire.BinaryMessage(data):
                self._take(now, data, events)
            case wire.TextMessage():
                raise ProtocolError("a text frame")
            case wire.Refused(status, reason):
                events += self.end(ClientError("unreachable", f"no WebSocket: HTTP {status}, {reason}"))
            case wire.Closed(code, reason, error):
                text = f"the connection was closed ({code} {reason})".replace(" )", ")")
                events += self.end(ClientError("protocol", reason) if error else self._lost(text))

    def _take(self, now: float, data: bytes, events: list[LinkEvent]) -> None:
        self._bytes_in += len(data)
        try:
            packets = self._packets.feed(data)
        except ProtocolError:
            for packet in self._packets.before_error:
                self._take_packet(now, packet, events)
            raise
        for packet in packets:
            if self.is_ended:
                return
            self._take_packet(now, packet, events)

    def _take_packet(self, now: float, packet: wire.Packet, events: list[LinkEvent]) -> None:
        match packet.kind:
            case wire.PacketKind.HANDSHAKE if not self.is_open:
                self._take_handshake(now, packet.body, events)
            case wire.PacketKind.KICK:
                self._take_kick(packet.body, events)
            case wire.PacketKind.DATA if self.is_open:
                events.append(Received(self._message(packet.body)))
            case wire.PacketKind.HEARTBEAT if self.is_open:
                self._send(wire.PacketKind.HEARTBEAT, b"", now)
                events.append(Heartbeat())
            case kind:
                raise ProtocolError(f"packet {kind.name} {'after' if self.is_open else 'before'} its handshake")

    def _take_handshake(self, now: float, body: bytes, events: list[LinkEvent]) -> None:
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise ProtocolError(f"a handshake that is no JSON: {error}") from None
        code = answer.get("code") if isinstance(answer, dict) else None
        if type(code) is not int:
            raise ProtocolError("a handshake without a code")
        if code != 200:
            user = answer.get("user")
            user = user if isinstance(user, dict) else {}
            why = ClientError(str(user.get("code") or "refused"), str(user.get("msg") or ""), {"status": str(code)})
            events += self.end(why, is_final=why.code != "GS-503")  # the next attempt may reach another server
            return
        sys = answer.get("sys")
        sys = sys if isinstance(sys, dict) else {}
        heartbeat, codes = sys.get("heartbeat"), sys.get("dict")
        if isinstance(heartbeat, int | float) and heartbeat > 0:
            self._heartbeat = float(heartbeat)
        if isinstance(codes, dict):
            self._codes = {name: code for name, code in codes.items() if type(code) is int and 0 <= code < 65536}
            self._names = {code: name for name, code in self._codes.items()}
        self.is_open = True
        self._send(wire.PacketKind.HANDSHAKE_ACK, b"", now)
        events.append(Shaken({"sys": sys, "user": answer.get("user")}))

    def _take_kick(self, body: bytes, events: list[LinkEvent]) -> None:
        try:
            kick = json.loads(body)
            reason = str(kick["reason"])
        except (ValueError, KeyError, TypeError):
            reason = ""  # a kick without a readable reason is still one
        was_open = self.is_open
        if was_open:
            events.append(Kicked(reason))
        events += self.end(ClientError("kicked", reason), is_final=not was_open and reason != "shutdown")

    def _message(self, body: bytes) -> wire.Message:
        message = wire.decode_message(body)
        self._messages_in += 1
        name = message.route
        if isinstance(name, int):
            if name not in self._names:
                raise ProtocolError(f"route code {name}, which is in no dictionary")
            name = self._names[name]
        content = wire.inflate(message.body, self._body_bytes_max) if message.compressed else message.body
        return wire.Message(message.kind, name, content, message.id, message.error)

    def _breach(self, what: str, events: list[LinkEvent]) -> None:
        events += self.end(ClientError("protocol", f"the server sent {what}"), CLOSE_PROTOCOL)

    def _send(self, kind: wire.PacketKind, body: bytes, now: float) -> None:
        packet = wire.encode_packet(kind, body)
        self._sent = now
        if self._socket is None:
            self._out += packet
        elif self._socket.is_open:
            self._socket.send_binary(packet)
        else:
            return
        self._bytes_out += len(packet)
        self._messages_out += kind is wire.PacketKind.DATA
