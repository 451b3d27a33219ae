"""A client across all its connections, sans-I/O: bytes, time and randomness in; bytes, and calls of the game's code,
out.

A driver owns the socket: when `wants_connection`, it opens one and says so (`connected`), feeds what comes, sends
`bytes_to_send()`, calls `handle_timeouts` by `due`, runs what is in `calls`, and closes the socket when `wants_socket`
is over.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from gameserver import wire
from gameserver._message import Message
from gameserver.client._bodies import Bodies, Route, name_of
from gameserver.client._errors import ClientError
from gameserver.client._link import Ended, Heartbeat, Kicked, Link, LinkEvent, Received, Shaken, Traffic
from gameserver.client._resumption import ERROR_ROUTE, RECONNECT_ROUTE, Resumption
from gameserver.client._rooms import Caller, RemoteRoom, Rooms, room_of
from gameserver.client._world import RemoteWorld
from gameserver.errors import ProtocolError

__all__ = ["Options", "Protocol", "State"]

SEEN_ROUTE, WORLD_ROUTE, LEAVE_ROUTE, UNCOUNTED_PREFIX = "$seen", "$w", "$leave", "$~"
ROOM_WORLD_PREFIX, LEFT_ROUTE, REJOIN_ROUTE = "$w@", "$left", "$rejoin"
State = Literal["connecting", "open", "waiting", "closed"]
Done = Callable[[Any, ClientError | None], object]

MOVE_LOOK_EVERY = 0.1  # s; whether all that was asked for is answered
MOVE_WAIT_MAX = 2.0  # s


@dataclass(frozen=True, slots=True)
class Options:
    """What `Client.connect` says of them."""

    host: str | None = None
    """Of a WebSocket's request; None: raw packets."""
    target: str = "/"
    messages: tuple[type[Message], ...] = ()
    serializer: wire.Serializer | None = None
    world: bool = False
    resume: bool = True
    reconnect: bool = True
    attempts: float = math.inf
    delay: float = 0.4
    delay_max: float = 10.0
    timeout: float = 8.0
    request_timeout: float = 10.0
    outbox_bytes_max: int = 256 * 1024
    body_bytes_max: int = wire.BODY_BYTES_MAX


@dataclass(slots=True)
class _Pending:
    route: str
    due: float
    raw: bool
    done: Done
    at_once: bool
    """It is ours: called before anything else that comes."""


@dataclass(slots=True)
class _Input:
    body: Any
    waits: bool
    free_at: float


@dataclass(slots=True)
class _Listeners:
    pushes: dict[str, list[Callable[..., object]]] = field(default_factory=dict)
    events: dict[str, list[Callable[..., object]]] = field(default_factory=dict)


class Protocol:
    """See the module. `random()` gives floats from 0 to 1."""

    def __init__(self, options: Options, random: Callable[[], float]) -> None:
        self.options = options
        self.state: State = "connecting"
        self.world = RemoteWorld(self._tell_now) if options.world else None
        self.rooms = Rooms()
        self.session: str | None = None
        self.schema: Mapping[str, Any] = {}
        self.is_resumed = False
        self.calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        """What the driver has to run: functions of the game, and their arguments."""
        self.on_told: Callable[[], object] = lambda: None
        """Called when the game itself has added to them."""
        self.wants_connection = True
        self._random = random
        self._classes = {cls.__name__: cls for cls in options.messages}
        self._bodies = Bodies(self._serializer(), {}, self._classes)
        self._link: Link | None = None
        self._retry_at = math.inf
        self._move_at = math.inf
        self._moving_since = 0.0
        self._attempt = 0
        self._was_open = False
        self._resumption: Resumption | None = None
        self._pending: dict[int, _Pending] = {}
        self._inputs: dict[str, _Input] = {}
        self._listeners = _Listeners()
        self._last_id = 0
        self._farewell = bytearray()
        self._traffic_before = Traffic()
        self.has_left = False
        """Whether the server was told that we leave: then it ends the connection."""

    # -- for the driver ------------------------------------------------------------------------------------------------

    @property
    def wants_socket(self) -> bool:
        """Whether the socket that there is has a connection on it."""
        return self._link is not None

    @property
    def traffic(self) -> Traffic:
        """Over all connections so far."""
        return self._traffic_before + self._link.traffic if self._link is not None else self._traffic_before

    def connected(self, now: float, user: object) -> None:
        """A socket is there."""
        gs: dict[str, Any] = {"serializer": self._serializer(), "schema": ""}
        if self.options.world:
            gs["world"] = True
        if self.options.resume:
            gs["resume"] = self._resumption.ask() if self._resumption else {}
        hello = {
            "sys": {"type": "gameserver-python", "version": "0.1.0", "gs": gs},
            "user": {} if user is None else user,
        }
        self.wants_connection = False
        self._farewell.clear()  # the last connection ended without it
        self._link = Link(
            json.dumps(hello, ensure_ascii=False, allow_nan=False).encode(),
            host=self.options.host,
            target=self.options.target,
            now=now,
            timeout=self.options.timeout,
            body_bytes_max=self.options.body_bytes_max,
        )

    def failed(self, now: float, error: ClientError) -> None:
        """There is no socket."""
        self.wants_connection = False
        self._lost(now, error)

    def feed(self, now: float, data: bytes) -> None:
        """Bytes have come; none: the server sends nothing more."""
        if self._link is not None:
            self._take(now, self._link.feed(now, data) if data else self._link.feed_eof())

    def bytes_to_send(self) -> bytes:
        """Since the last call."""
        out, self._farewell = bytes(self._farewell), bytearray()
        return out + (self._link.bytes_to_send() if self._link is not None else b"")

    @property
    def due(self) -> float:
        """When `handle_timeouts` has to be called, at the latest."""
        dues = [pending.due for pending in self._pending.values()]
        dues += [given.free_at for given in self._inputs.values()]
        return min([self._retry_at, self._move_at, self._link.due if self._link is not None else math.inf, *dues])

    def handle_timeouts(self, now: float) -> None:
        """What is due by time."""
        if self._link is not None:
            self._take(now, self._link.handle_timeouts(now))
        for id in [id for id, pending in self._pending.items() if pending.due <= now]:
            late = self._pending.pop(id)
            self._answer(late, None, ClientError("timeout", f"no answer to {late.route} in time"))
        for route in [route for route, given in self._inputs.items() if given.free_at <= now]:
            self._send_input(now, route)
        if now >= self._move_at:
            self._move(now)
        if now >= self._retry_at:
            self._retry_at = math.inf
            self.state, self.wants_connection = "connecting", True

    # -- for the game --------------------------------------------------------------------------------------------------

    def request(self, now: float, route: Route, body: Any, timeout: float | None, raw: bool, done: Done) -> None:
        """Asks; `done(answer, None)` or `done(None, error)` follows.

        Raises:
            ClientError: `closed`, `disconnected` or `outbox-full`: it was not sent.
            TypeError, ValueError: the body is nothing that the route takes.
        """
        self._ask(now, self._learn(route), route if isinstance(route, Message) else body, timeout, raw, done)

    def _ask(
        self, now: float, name: str, body: Any, timeout: float | None, raw: bool, done: Done, *, at_once: bool = False
    ) -> None:
        if not self._can_write():
            raise ClientError("closed" if self.state == "closed" else "disconnected", "not connected")
        id = self._next_id()
        message = self._message(wire.MessageKind.REQUEST, name, body, id)
        if not self._has_room(message):
            raise ClientError("outbox-full", "the connection is lost, and no more is kept for when it is back")
        due = now + (self.options.request_timeout if timeout is None else timeout)
        self._pending[id] = _Pending(name, due, raw, done, at_once)
        self._post(now, message)

    def notify(self, now: float, route: Route, body: Any) -> bool:
        """Tells. False: it is not sent, and not kept."""
        name = self._learn(route)
        if not self._can_write():
            return False
        message = self._message(wire.MessageKind.NOTIFY, name, route if isinstance(route, Message) else body, 0)
        if not self._has_room(message):
            return False
        self._post(now, message)
        return True

    def input(self, now: float, route: Route, body: Any) -> None:
        """Tells at most once a tick of the server; of what comes sooner, the newest."""
        name, body = self._learn(route), route if isinstance(route, Message) else body
        given = self._inputs.get(name)
        if given is None:
            self._inputs[name] = _Input(body, True, now)
            self._send_input(now, name)
        else:
            given.body, given.waits = body, True

    def on(self, now: float, route: Route, listener: Callable[..., object]) -> None:
        """Calls `listener(body)` for each push to a route."""
        name = self._learn(route)
        self._listeners.pushes.setdefault(name, []).append(listener)
        for early in self.rooms.take_early(now, name):
            self._push(now, early.message)

    def join(self, now: float, client: Caller, route: str, body: Mapping[str, Any], done: Done) -> None:
        """Asks for a seat in a room; `done(room, None)` or `done(None, error)` follows.

        Raises:
            ClientError: as `request`.
        """

        def answered(place: Any, error: ClientError | None) -> None:
            self.rooms.joining -= 1
            room = None
            if error is None:
                try:
                    room = self._seated(client, place)
                except (LookupError, TypeError, ValueError, ProtocolError) as wrong:
                    error = ClientError("bad-body", f"{route} was answered with no seat: {wrong!r}")
            self.rooms.forget_strangers()
            done(room, error)

        self.rooms.joining += 1
        try:
            self._ask(now, route, body, None, False, answered, at_once=True)
        except BaseException:
            self.rooms.joining -= 1
            raise

    def on_event(self, event: str, listener: Callable[..., object]) -> None:
        """Of `kick`, `disconnect`, `drop`, `resume`, `reconnect`, `drain`."""
        self._listeners.events.setdefault(event, []).append(listener)

    def close(self, now: float) -> None:
        """Says goodbye, and never connects again."""
        if self.state == "closed":
            return
        if self._link is not None and self._link.is_open:
            self._link.send(now, self._message(wire.MessageKind.NOTIFY, LEAVE_ROUTE, b"", 0))
            self.has_left = True
        self._finish(ClientError("closed", "closed by this client"))

    # -- what comes ----------------------------------------------------------------------------------------------------

    def _take(self, now: float, events: list[LinkEvent]) -> None:
        for event in events:
            link = self._link
            if link is None:
                return
            try:
                self._take_event(now, link, event)
            except ProtocolError as error:
                self._take(now, link.end(ClientError("protocol", f"the server sent {error}"), 4400))
                return

    def _take_event(self, now: float, link: Link, event: LinkEvent) -> None:
        match event:
            case Shaken(answer):
                self._shaken(now, link, answer)
            case Received(message):
                self._message_in(now, message)
            case Heartbeat():
                self._tell_seen(now)
            case Kicked(reason):
                self._give_up(ClientError("kicked", reason))
                self._emit("kick", reason)
                if reason != "shutdown":
                    self._finish(ClientError("kicked", reason))
            case Ended(error, is_final):
                self._drop_link()
                if is_final:
                    self._finish(error)
                else:
                    self._lost(now, error)

    def _shaken(self, now: float, link: Link, answer: Mapping[str, Any]) -> None:
        sys = answer["sys"]
        gs = sys.get("gs") if isinstance(sys.get("gs"), dict) else {}
        offer = gs.get("resume")
        token, seen = (offer.get("token"), offer.get("seen")) if isinstance(offer, dict) else (None, None)
        schema = gs.get("schema")
        self.schema = schema if isinstance(schema, dict) else {}
        serializer: wire.Serializer = "protobuf" if sys.get("serializer") == "protobuf" else "json"
        self._bodies = Bodies(serializer, self.schema, self._classes)
        goes_on = seen is not None
        if goes_on:
            before = self._resumption
            if before is None or type(seen) is not int or seen < 0:
                raise ProtocolError("that a session goes on which is none")
            if not before.outbox.handle_seen(seen):
                self._give_up(ClientError("disconnected", "the server lacks more than was kept for it"))
                self._take(now, link.end(ClientError("disconnected", "the session can not go on")))
                return
            before.token = str(token)
            for message in before.outbox.messages:
                link.send(now, message)
        else:
            self._give_up(ClientError("disconnected", "the session is over; this is a new one"))
            if isinstance(token, str):
                self._resumption = Resumption(token, self.options.outbox_bytes_max)
        self.session = gs.get("session") if isinstance(gs.get("session"), str) else None
        was_open, self._was_open = self._was_open, True
        self.state, self._attempt, self.is_resumed = "open", 0, goes_on
        if self.world is not None:
            self._tell(self.world._begin(self.schema.get("world"), goes_on))
        self._tell(self.rooms.begin(self.schema.get("rooms"), goes_on))
        if was_open and not goes_on:
            self._rejoin(now)
        if was_open:
            self._emit("resume" if goes_on else "reconnect")
        elif not goes_on:
            self._emit("open")

    def _message_in(self, now: float, message: wire.Message) -> None:
        if message.kind is wire.MessageKind.PUSH and message.route == SEEN_ROUTE:
            self._seen(message.body)
            return
        if self._resumption is not None and self._resumption.count(message):
            self._tell_seen(now)
        if message.kind is wire.MessageKind.RESPONSE:
            self._response(message)
        elif message.kind is wire.MessageKind.PUSH:
            self._push(now, message)

    def _response(self, message: wire.Message) -> None:
        pending = self._pending.pop(message.id, None)
        if pending is None:
            return  # answered after its timeout
        if message.error:
            self._answer(pending, None, self._bodies.error(message.body))
            return
        try:
            answer = message.body if pending.raw else self._bodies.answer(pending.route, message.body)
        except ClientError as error:
            self._answer(pending, None, error)
        else:
            self._answer(pending, answer, None)

    def _push(self, now: float, message: wire.Message) -> None:
        if message.route == WORLD_ROUTE:
            if self.world is not None:
                self._tell(self.world._apply(now, message.body))
            return
        name = str(message.route).removeprefix(UNCOUNTED_PREFIX)
        if name.startswith(ROOM_WORLD_PREFIX):
            room = self.rooms.joined.get(room_of(name))
            if room is None:
                self.rooms.keep_early(now, name, message)
            elif room.world is not None:
                self._tell(room.world._apply(now, message.body))
            return
        if name == LEFT_ROUTE:
            self._left(message.body)
            return
        if name == RECONNECT_ROUTE:
            self._move_later(now, message.body)
            return
        listeners = self._listeners.pushes.get(name, ())
        if not listeners:
            self.rooms.keep_early(now, name, message)
            return
        try:
            body = self._bodies.error(message.body) if name == ERROR_ROUTE else self._bodies.push(name, message.body)
        except ClientError as error:
            self._emit("bad_push", error)
            return
        for listener in listeners:
            self._call(listener, body)

    def _seated(self, client: Caller, place: Mapping[str, Any]) -> RemoteRoom:
        known = self.rooms.joined.get(place["room"])
        if known is not None:
            return known  # the seat was there already
        world = RemoteWorld(self._tell_now) if self.options.world else None
        room = RemoteRoom(client, place, world)
        self._tell(room._begin(self.schema.get("rooms"), False))
        self.rooms.joined[room.number] = room
        for early in self.rooms.take_early(-math.inf, f"{ROOM_WORLD_PREFIX}{room.number}"):
            self._push(early.at, early.message)
        return room

    def _move_later(self, now: float, body: bytes) -> None:
        """The server is about to stop: in a while it is left for another one."""
        try:
            delay = max(0.0, float(json.loads(body)["delay"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ProtocolError(f"a push to {RECONNECT_ROUTE} without a delay") from error
        self._move_at, self._moving_since = now + delay, now + delay
        self._emit("drain", delay)

    def _move(self, now: float) -> None:
        self._move_at = math.inf
        if self.state != "open" or self._link is None:
            return
        if self._pending and now - self._moving_since < MOVE_WAIT_MAX:
            self._move_at = now + MOVE_LOOK_EVERY
            return
        error = ClientError("disconnected", "the server is about to stop; connecting anew")
        self._link.send(now, self._message(wire.MessageKind.NOTIFY, LEAVE_ROUTE, b"", 0))
        self._link.end(error)
        self._drop_link()
        self._give_up(error)
        self._lost(now, error)

    def _left(self, body: bytes) -> None:
        try:
            told = json.loads(body)
            number, why = int(told["room"]), str(told["why"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ProtocolError(f"that a seat is given up, but not which: {error!r}") from None
        self._tell(self.rooms.end(number, why))

    def _rejoin(self, now: float) -> None:
        """There is a new session: the server has kept the seats of somebody whom it knows."""
        for room in list(self.rooms.joined.values()):

            def answered(place: Any, error: ClientError | None, room: RemoteRoom = room) -> None:
                is_back = isinstance(place, dict) and place.get("seat") == room.seat
                # Cut again: the next connection asks again.
                if not is_back and (error is None or error.code != "disconnected"):
                    self._tell(self.rooms.end(room.number, "lost"))

            self._ask(now, REJOIN_ROUTE, {"room": room.number}, None, False, answered, at_once=True)

    def _seen(self, body: bytes) -> None:
        seen = int(body) if body.isdigit() and len(body) < 20 else -1
        if self._resumption is not None and (seen < 0 or not self._resumption.outbox.handle_seen(seen)):
            raise ProtocolError("that it has seen what was never sent")

    def _tell_seen(self, now: float) -> None:
        seen = self._resumption.tell() if self._resumption is not None else None
        if seen is not None and self._link is not None:
            self._link.send(now, self._message(wire.MessageKind.NOTIFY, SEEN_ROUTE, str(seen).encode(), 0))

    def _lost(self, now: float, error: ClientError) -> None:
        """The connection, or an attempt to have one."""
        is_drop = self.state == "open" and self._resumption is not None
        if self._resumption is None or error.code == "protocol":  # what broke the rules would come again
            self._give_up(ClientError("disconnected", error.msg))
        if not self.options.reconnect or not self._was_open or self._attempt >= self.options.attempts:
            self._finish(error)
            return
        retry_in = self._random() * min(self.options.delay_max, self.options.delay * 2**self._attempt)
        self._attempt += 1
        self.state, self._retry_at = "waiting", now + retry_in
        if is_drop and self._resumption is not None:
            self._emit("drop", error)
        self._emit("disconnect", error, retry_in)

    def _finish(self, error: ClientError) -> None:
        if self.state == "closed":
            return
        self.state, self._retry_at, self.wants_connection = "closed", math.inf, False
        if self._link is not None:
            self._link.end(error)
            self._drop_link()
        self._inputs.clear()
        self._give_up(error)
        for number in list(self.rooms.joined):
            self._tell(self.rooms.end(number, "lost"))
        self._emit("disconnect", error, None)

    def _drop_link(self) -> None:
        assert self._link is not None
        self._farewell += self._link.bytes_to_send()
        self._traffic_before += self._link.traffic
        self._link = None

    def _give_up(self, error: ClientError) -> None:
        """The session does not go on."""
        self._resumption = None
        pending, self._pending = self._pending, {}
        for one in pending.values():
            self._answer(one, None, error)

    # -- what goes -----------------------------------------------------------------------------------------------------

    def _serializer(self) -> wire.Serializer:
        return self.options.serializer or ("protobuf" if self.options.messages else "json")

    def _learn(self, route: Route) -> str:
        cls = type(route) if isinstance(route, Message) else route
        if isinstance(cls, type):
            self._classes.setdefault(cls.__name__, cls)
        return name_of(route)

    def _can_write(self) -> bool:
        return self.state == "open" or (self.state != "closed" and self._resumption is not None)

    def _has_room(self, message: bytes) -> bool:
        return self.state == "open" or self._resumption is None or self._resumption.outbox.has_room(message)

    def _message(self, kind: wire.MessageKind, name: str, body: Any, id: int) -> bytes:
        route = self._link.route(name) if self._link is not None else name
        return wire.encode_message(wire.Message(kind, route, self._bodies.encode(name, body), id))

    def _post(self, now: float, message: bytes) -> None:
        if self._resumption is not None:
            self._resumption.outbox.keep(message)
        if self._link is not None and self._link.is_open:
            self._link.send(now, message)

    def _send_input(self, now: float, route: str) -> None:
        given = self._inputs[route]
        if not given.waits:
            del self._inputs[route]
            return
        given.free_at = now + 1 / (self.world.tick_rate if self.world is not None else 30.0)
        if self.state == "open":
            given.waits = False
            self.notify(now, route, given.body)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 0xFFFF_FFFF + 1
            if self._last_id not in self._pending:
                return self._last_id

    def _emit(self, event: str, *arguments: Any) -> None:
        for listener in self._listeners.events.get(event, ()):
            self._call(listener, *arguments)

    def _tell(self, calls: list[tuple[Callable[[Any], object], Any]]) -> None:
        self.calls.extend((call, (entity,)) for call, entity in calls)

    def _tell_now(self, calls: list[tuple[Callable[[Any], object], Any]]) -> None:
        if calls:
            self._tell(calls)
            self.on_told()

    def _answer(self, pending: _Pending, answer: Any, error: ClientError | None) -> None:
        if pending.at_once:
            pending.done(answer, error)
        else:
            self._call(pending.done, answer, error)

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        self.calls.append((function, arguments))
