"""A client in Python: for bots, tests, tools, and games with a window of their own.

It speaks to a server as the browser's client does: requests, notifies, pushes, the replicated world; a session that is
cut goes on where the server keeps it (`resume_grace`).
"""

from __future__ import annotations

import random as _random
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from gameserver._message import Message
from gameserver.client._address import Address
from gameserver.client._asyncio import AsyncioDriver
from gameserver.client._bodies import Route
from gameserver.client._drawn import DrawnEntity
from gameserver.client._errors import ClientError
from gameserver.client._link import Traffic
from gameserver.client._netgraph import Netgraph, NetgraphReading
from gameserver.client._protocol import Done, Options, Protocol, State
from gameserver.client._pump import PumpDriver
from gameserver.client._rooms import RemoteRoom
from gameserver.client._timeline import Timing
from gameserver.client._world import Entities, RemoteEntity, RemoteWorld, Sample
from gameserver.wire import Serializer

__all__ = [
    "Client",
    "ClientError",
    "DrawnEntity",
    "Entities",
    "Netgraph",
    "NetgraphReading",
    "RemoteEntity",
    "RemoteRoom",
    "RemoteWorld",
    "Sample",
    "Timing",
    "Traffic",
]

F = TypeVar("F", bound=Callable[..., object])


class Client:
    """One person's connection to a server; survives lost sockets. Made by `connect`, or by `open`.

    In asyncio::

        async with await Client.connect("ws://127.0.0.1:7777/", messages=[Said]) as client:
            client.on(Said, lambda said: print(said.text))
            answer = await client.request("add", {"a": 1, "b": 2})

    In a frame loop, where nothing runs but in `pump`::

        client = Client.open("tcp://127.0.0.1:7777", world=True)
        while drawing():
            client.pump()
            client.input(Steer(x=1, y=0))
            draw(client.world.sample()["Blob"])

    Attributes:
        world: what is seen of the replicated world; None unless it was asked for.
    """

    world: RemoteWorld | None

    def __init__(self, protocol: Protocol, driver: AsyncioDriver | PumpDriver) -> None:
        """Use `connect` or `open`."""
        self._protocol = protocol
        self._driver = driver
        self.world = protocol.world

    @classmethod
    async def connect(cls, url: str, *, user: Any = None, tls: ssl.SSLContext | None = None, **options: Any) -> Self:
        """Connects in the running loop, and returns once requests can be sent.

        Args:
            url: `ws://host:port/`, `wss://`, or `tcp://host:port` and `tls://` for packets without WebSocket frames.
            user: what the server's `authenticate` sees; a function, async or not, is called anew for each connection.
            tls: of `wss` and `tls`; None: Python's default.
            options: `messages`: message classes that answers and pushes become; `serializer`: "protobuf" or "json", by
                default protobuf if there are `messages`; `world`: whether to show the replicated world; `resume`,
                `reconnect`: whether a lost session is to go on, and a lost connection to come back; `attempts` in a
                row, `delay` and `delay_max` s between them (full jitter); `timeout` s for an attempt, `request_timeout`
                s for an answer; `outbox_bytes_max`: what is kept until the server has seen it; `body_bytes_max`: larger
                packets end the connection.

        Raises:
            ClientError: `unreachable`, `timeout`, `protocol`, or the code with which the server refused.
            ValueError, TypeError: a URL or an option that there is not.
        """
        protocol, address = _made(url, tls, options)
        driver = AsyncioDriver(protocol, address, user)
        opened = driver.future()
        _watch(protocol, lambda error: None if opened.done() else _settle(opened, error))
        driver.settle()
        await opened
        return cls(protocol, driver)

    @classmethod
    def open(cls, url: str, *, user: Any = None, tls: ssl.SSLContext | None = None, **options: Any) -> Self:
        """Connects without a loop, and returns once requests can be sent; from then on, `pump` does all that there is
        to do.

        Args and Raises: as `connect`; `user` is no async function.
        """
        protocol, address = _made(url, tls, options)
        driver = PumpDriver(protocol, address, user)
        ends: list[ClientError | None] = []
        _watch(protocol, ends.append)
        by = time.monotonic() + protocol.options.timeout
        while not ends:
            driver.pump()
            if ends:
                break
            driver.wait(min(0.05, max(0.0, by - time.monotonic())))
        if ends[0] is not None:
            raise ends[0]
        return cls(protocol, driver)

    @property
    def state(self) -> State:
        """`connecting`, `open`, `waiting` (for the next attempt) or `closed`."""
        return self._protocol.state

    @property
    def session(self) -> str | None:
        """The session's id; None from a server that does not tell."""
        return self._protocol.session

    @property
    def schema(self) -> Mapping[str, Any]:
        """What the server says of its messages, routes and worlds: docs/wire.md, "The schema"; empty if it has none."""
        return self._protocol.schema

    @property
    def is_resumed(self) -> bool:
        """Whether this connection went on with the session of one before it."""
        return self._protocol.is_resumed

    @property
    def traffic(self) -> Traffic:
        """What went over all connections so far."""
        return self._protocol.traffic

    def request(self, route: Route, body: Any = None, *, timeout: float | None = None, raw: bool = False) -> Any:
        """Asks. While a session that can go on is cut, it is asked once that does; `timeout` counts all the same.

        Args:
            route: a name, or a message: that of its class.
            body: a message, bytes, or what JSON can say.
            timeout: s; None: `request_timeout`.
            raw: the answer as bytes; by default what the schema says, or JSON.

        Returns:
            A future of the answer: in asyncio to be awaited, else of `concurrent.futures`.

        Raises:
            ClientError: by the future: the server's error answer, or `timeout`, `disconnected`, `outbox-full`,
                `closed`, `kicked`, `bad-body`. TypeError, ValueError: the body is nothing that the route takes.
        """
        raw = raw or isinstance(body, bytes)
        return self._future(lambda done: self._protocol.request(self._driver.now(), route, body, timeout, raw, done))

    def notify(self, route: Route, body: Any = None) -> bool:
        """Tells, without an answer. False: while disconnected, if there is no session to go on, or no more is kept.

        What the server refuses comes as a push to `$error`.
        """
        is_sent = self._protocol.notify(self._driver.now(), route, body)
        self._driver.settle()
        return is_sent

    def input(self, route: Route, body: Any = None) -> None:
        """Tells what the player does: at most once a tick of the server; of what comes sooner, the newest."""
        self._protocol.input(self._driver.now(), route, body)
        self._driver.settle()

    @overload
    def on(self, route: Route) -> Callable[[F], F]: ...
    @overload
    def on(self, route: Route, listener: F) -> F: ...
    def on(self, route: Route, listener: F | None = None) -> F | Callable[[F], F]:
        """Calls a function with each push to a route; in asyncio it may be async. A decorator without one. `$error`
        gets a `ClientError`.
        """

        def add(function: F) -> F:
            self._protocol.on(self._driver.now(), route, function)
            self._driver.settle()
            return function

        return add if listener is None else add(listener)

    def join_or_create(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Takes a seat in an open room of this name, or in a new one. Of the options, the room's class says which people meet
        by; it gets them all.

        Returns:
            A future of the `RemoteRoom`.

        Raises:
            ClientError: by the future: as `request`; `no-room`, `room-full`, `room-locked`, `rooms-full`, or what the room says.
        """
        return self._join("$join_or_create", {"name": name, "options": dict(options or {})})

    def create(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Takes a seat in a new room; else as `join_or_create`."""
        return self._join("$create", {"name": name, "options": dict(options or {})})

    def join(self, name: str, options: Mapping[str, Any] | None = None) -> Any:
        """Takes a seat in an open room of this name; else as `join_or_create`."""
        return self._join("$join", {"name": name, "options": dict(options or {})})

    def join_by_id(self, number: int, options: Mapping[str, Any] | None = None) -> Any:
        """Takes a seat in this room, or finds the one that the session has there; else as `join_or_create`."""
        return self._join("$join_by_id", {"room": number, "options": dict(options or {})})

    def rooms(self, name: str | None = None, filter: Mapping[str, Any] | None = None) -> Any:
        """The rooms that can be joined, oldest first; at most 100.

        Args:
            name: only those of this name.
            filter: only those with these values in their metadata.

        Returns:
            A future of a list: `room`, `name`, `members`, `max_members` and `metadata` of each.
        """
        return self.request("$rooms", {"name": name, "filter": dict(filter or {})})

    def on_kick(self, listener: F) -> F:
        """Calls a function with the reason when the server kicks us."""
        return self._on("kick", listener)

    def on_disconnect(self, listener: F) -> F:
        """Calls a function whenever the connection is lost, or a further attempt fails: why, and s until the next; None: never."""
        return self._on("disconnect", listener)

    def on_drop(self, listener: F) -> F:
        """Calls a function when the connection is lost and the session may go on."""
        return self._on("drop", listener)

    def on_resume(self, listener: F) -> F:
        """Calls a function when the session goes on: nothing was lost."""
        return self._on("resume", listener)

    def on_reconnect(self, listener: F) -> F:
        """Calls a function when the connection is there again, with a new session: requests of the old one have failed."""
        return self._on("reconnect", listener)

    def on_drain(self, listener: F) -> F:
        """Calls a function when the server is about to stop: in so many seconds this client connects anew, as somebody new."""
        return self._on("drain", listener)

    def pump(self) -> None:
        """Of a client made by `open`: reads, sends and calls what is due, and returns at once.

        Raises:
            TypeError: it was made by `connect`.
        """
        if not isinstance(self._driver, PumpDriver):
            raise TypeError("client.pump: this client lives in asyncio; make it by Client.open(url)")
        self._driver.pump()

    async def aclose(self) -> None:
        """Says goodbye, and never connects again; returns once that is done. In asyncio."""
        self.close()
        if isinstance(self._driver, AsyncioDriver):
            await self._driver.closed()

    def close(self) -> None:
        """Says goodbye, and never connects again. Requests in flight fail with `closed`."""
        self._protocol.close(self._driver.now())
        self._driver.settle()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _join(self, route: str, body: Mapping[str, Any]) -> Any:
        return self._future(lambda done: self._protocol.join(self._driver.now(), self, route, body, done))

    def _future(self, ask: Callable[[Done], None]) -> Any:
        future = self._driver.future()

        def done(answer: Any, error: ClientError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        try:
            ask(done)
        except ClientError as error:
            future.set_exception(error)
        self._driver.settle()
        return future

    def _on(self, event: str, listener: F) -> F:
        self._protocol.on_event(event, listener)
        return listener


def _made(url: str, tls: ssl.SSLContext | None, options: dict[str, Any]) -> tuple[Protocol, Address]:
    address = Address.of(url, tls)
    messages: Sequence[type[Message]] = tuple(options.pop("messages", ()))
    serializer: Serializer | None = options.pop("serializer", None)
    if serializer not in (None, "json", "protobuf"):
        raise ValueError(f'serializer={serializer!r}: "json" or "protobuf"')
    host = address.authority if address.is_websocket else None
    known = Options(host=host, target=address.target, messages=tuple(messages), serializer=serializer, **options)
    return Protocol(known, _random.random), address


def _watch(protocol: Protocol, ended: Callable[[ClientError | None], object]) -> None:
    """Of the first attempt: None: it is there."""
    protocol.on_event("open", lambda: ended(None))
    protocol.on_event("disconnect", lambda error, _: ended(error))


def _settle(future: Any, error: ClientError | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
