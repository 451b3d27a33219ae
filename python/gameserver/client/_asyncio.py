"""A client in an asyncio loop."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable
from typing import Any

from gameserver.client._address import Address
from gameserver.client._errors import ClientError
from gameserver.client._protocol import Protocol

__all__ = ["AsyncioDriver"]

WRITE_BYTES_MAX = 32 * 1024 * 1024  # of a server that reads nothing


class AsyncioDriver:
    """Moves bytes between the loop's transports and a `Protocol`, and runs what that calls."""

    def __init__(self, protocol: Protocol, address: Address, user: Any) -> None:
        self._protocol = protocol
        self._address = address
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._wire: _Wire | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wires: set[_Wire] = set()
        self._is_opening = False
        self._is_settling = False
        protocol.on_told = self.settle

    def now(self) -> float:
        """The loop's time, in s."""
        return self._loop.time()

    def future(self) -> asyncio.Future[Any]:
        """For an answer."""
        return self._loop.create_future()

    def settle(self) -> None:
        """After anything that the protocol was told: sends, calls, opens, closes, and waits for what is next."""
        if self._is_settling:
            return  # a listener of ours asks or tells: it is taken up below
        self._is_settling = True
        try:
            while self._protocol.calls:
                self._run(*self._protocol.calls.popleft())
        finally:
            self._is_settling = False
        wire = self._wire
        if wire is not None and wire.transport is not None:
            if data := self._protocol.bytes_to_send():
                wire.transport.write(data)
            if not self._protocol.wants_socket:
                self._wire = None
                wire.close(self._protocol.options.timeout, self._protocol.has_left)
            elif wire.transport.get_write_buffer_size() > WRITE_BYTES_MAX:
                wire.transport.abort()
        if self._protocol.wants_connection and not self._is_opening:
            self._is_opening = True
            self._keep(self._open())
        if self._timer is not None:
            self._timer.cancel()
        due = self._protocol.due
        self._timer = self._loop.call_at(due, self._timeout) if due < float("inf") else None

    def opened(self, wire: _Wire) -> None:
        """A connection; it may be one that nobody wants any more."""
        self._wires.add(wire)

    def received(self, wire: _Wire, data: bytes) -> None:
        """Bytes of a connection; none: its end."""
        if not data:
            self._wires.discard(wire)
        if wire is self._wire:
            if not data:
                self._wire = None
            self._protocol.feed(self.now(), data)
            self.settle()

    async def closed(self) -> None:
        """Until the server has the last bytes, and nothing runs any more; if it takes none, for the timeout at most."""
        while tasks := self._tasks - {asyncio.current_task()}:  # a listener may ask for this
            await asyncio.wait(tasks)
        if self._wires:
            await asyncio.wait([wire.lost for wire in self._wires])

    async def _open(self) -> None:
        try:
            wire = _Wire(self)
            async with asyncio.timeout(self._protocol.options.timeout):
                user = self._user() if callable(self._user) else self._user
                if inspect.isawaitable(user):
                    user = await user
                await self._loop.create_connection(
                    lambda: wire, self._address.host, self._address.port, ssl=self._address.tls
                )
        except (OSError, TimeoutError, ssl.SSLError) as error:
            self._is_opening = False
            self._protocol.failed(self.now(), ClientError("unreachable", str(error) or "no connection in time"))
        except Exception as error:
            self._is_opening = False
            self._protocol.failed(self.now(), ClientError("unreachable", f"user() failed: {error!r}"))
        else:
            self._is_opening = False
            if not self._protocol.wants_connection:  # closed meanwhile
                wire.close(self._protocol.options.timeout, False)
                return
            self._wire = wire
            self._protocol.connected(self.now(), user)
        self.settle()

    def _timeout(self) -> None:
        self._protocol.handle_timeouts(self.now())
        self.settle()

    def _run(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            result = function(*arguments)
        except Exception as error:
            text = f"gameserver.client: {function!r} failed"
            self._loop.call_exception_handler({"message": text, "exception": error})
            return
        if inspect.iscoroutine(result):
            self._keep(result)

    def _keep(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Wire(asyncio.Protocol):
    """One transport."""

    def __init__(self, driver: AsyncioDriver) -> None:
        self._driver = driver
        self.lost: asyncio.Future[None] = driver.future()
        self._limit: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._driver.opened(self)

    def close(self, timeout: float, server_ends: bool) -> None:
        """Sends what is left, and waits for the server's end: a socket that is closed with something unread takes back what it
        has not sent. A stream of TLS has no half that can be ended: there the server has to be about to end it by itself."""
        assert self.transport is not None
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif not server_ends:
            self.transport.close()
        self._limit = asyncio.get_running_loop().call_later(timeout, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        self._driver.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._driver.received(self, b"")
        self.lost.set_result(None)
